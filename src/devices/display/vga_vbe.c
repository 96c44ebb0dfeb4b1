/*
 * The Bochs DISPI registers: resolutions and depths beyond VGA, a linear frame buffer, banks and panning.
 *
 * Source: bochs.sourceforge.io, "VBE DISPI interface" (version B0C5h); QEMU, docs/specs/standard-vga.txt.
 * The guest may write any value at any time. While VBE is off they are only stored; while it is on they always describe
 * a picture that lies inside VRAM.
 */
#include "src/devices/display/vga.h"

#define ID_FIRST 0xb0c0
#define ID_LAST  0xb0c5

/* Largest mode, as GETCAPS reports it; 16000 x 12000 is what QEMU tells and drivers accept. */
#define MAX_XRES 16000
#define MAX_YRES 12000
#define MAX_BPP  32

static unsigned bits_per_pixel(const struct vga *v)
{
	return v->vbe[VBE_BPP] == 15 ? 16 : v->vbe[VBE_BPP];
}

/* Plane bytes, not bytes, count in 4-bpp modes: four times as many pixels per address, a quarter of the memory. */
static uint32_t memory_units(const struct vga *v)
{
	return v->vbe[VBE_BPP] == 4 ? v->mem_size / 4 : v->mem_size;
}

static uint32_t units_per(const struct vga *v, uint32_t pixels)
{
	return v->vbe[VBE_BPP] == 4 ? pixels / 8 : pixels * bits_per_pixel(v) / 8;
}

uint32_t vga_vbe_pitch(const struct vga *v)
{
	return units_per(v, v->vbe[VBE_VIRT_WIDTH]);
}

uint64_t vga_vbe_start(const struct vga *v)
{
	return (uint64_t)v->vbe[VBE_Y_OFFSET] * vga_vbe_pitch(v) + units_per(v, v->vbe[VBE_X_OFFSET]);
}

static uint16_t clamp(uint32_t v, uint32_t min, uint32_t max)
{
	return (uint16_t)(v < min ? min : v > max ? max : v);
}

/* End of the last pixel shown, in memory units. */
static uint64_t shown_end(const struct vga *v)
{
	const uint16_t *r = v->vbe;

	return vga_vbe_start(v) + (uint64_t)(r[VBE_YRES] - 1) * vga_vbe_pitch(v) + units_per(v, r[VBE_XRES]);
}

/* Make the registers consistent after any change while VBE is on. */
static void fix_up(struct vga *v)
{
	uint16_t *r = v->vbe;
	uint32_t memory;

	switch (r[VBE_BPP]) {
	case 4:
	case 8:
	case 15:
	case 16:
	case 24:
	case 32:
		break;
	default:
		r[VBE_BPP] = 8;
	}
	memory = memory_units(v);
	r[VBE_XRES] = clamp(r[VBE_XRES] & ~7u, 8, MAX_XRES);
	r[VBE_VIRT_WIDTH] = clamp(r[VBE_VIRT_WIDTH] & ~7u, r[VBE_XRES], MAX_XRES);

	uint32_t lines = memory / vga_vbe_pitch(v); /* at least 16: 1 MiB of VRAM, 64000 bytes per line */

	r[VBE_YRES] = clamp(r[VBE_YRES], 1, MIN(lines, (uint32_t)MAX_YRES));
	r[VBE_VIRT_HEIGHT] = clamp(lines, r[VBE_YRES], UINT16_MAX);
	r[VBE_BANK] = clamp(r[VBE_BANK], 0, (memory >> 16) - 1);
	if (shown_end(v) > memory)
		r[VBE_Y_OFFSET] = 0;
	if (shown_end(v) > memory)
		r[VBE_X_OFFSET] = 0;
}

bool vga_vbe_valid(const struct vga *v)
{
	struct vga copy = *v;

	if (!vga_vbe_on(v))
		return true;
	fix_up(&copy);
	return !memcmp(copy.vbe, v->vbe, sizeof(copy.vbe));
}

void vga_vbe_reset(struct vga *v)
{
	memset(v->vbe, 0, sizeof(v->vbe));
	v->vbe_index = 0;
	v->vbe[VBE_ID] = ID_LAST;
}

uint16_t vga_vbe_read(const struct vga *v, unsigned index)
{
	if (v->vbe[VBE_ENABLE] & VBE_GETCAPS) {
		switch (index) {
		case VBE_XRES:
			return MAX_XRES;
		case VBE_YRES:
			return MAX_YRES;
		case VBE_BPP:
			return MAX_BPP;
		}
	}
	if (index == VBE_MEMORY_64K)
		return (uint16_t)(v->mem_size >> 16);
	return index < VBE_STORED ? v->vbe[index] : 0;
}

static void clear_screen(struct vga *v)
{
	size_t bytes = (size_t)v->vbe[VBE_YRES] * vga_vbe_pitch(v) * (v->vbe[VBE_BPP] == 4 ? 4 : 1);

	bytes = MIN(bytes, (size_t)v->mem_size);
	memset(v->mem, 0, bytes);
	ram_block_mark_dirty(v->vram, 0, bytes);
}

static void write_enable(struct vga *v, uint16_t value)
{
	bool was_on = vga_vbe_on(v);

	if ((value ^ v->vbe[VBE_ENABLE]) & VBE_8BIT_DAC)
		v->palette_version++;
	v->vbe[VBE_ENABLE] = value;
	if (!was_on && (value & VBE_ENABLED)) {
		v->vbe[VBE_VIRT_WIDTH] = v->vbe[VBE_XRES];
		v->vbe[VBE_X_OFFSET] = v->vbe[VBE_Y_OFFSET] = 0;
		v->vbe[VBE_BANK] = 0;
		fix_up(v);
		vga_update_windows(v); /* the text shadow returns to the planes before they are cleared */
		if (!(value & VBE_NOCLEAR))
			clear_screen(v);
	} else if (was_on && !(value & VBE_ENABLED)) {
		v->vbe[VBE_BANK] = 0;
	}
	vga_update_windows(v);
}

void vga_vbe_write(struct vga *v, unsigned index, uint16_t value)
{
	switch (index) {
	case VBE_ID:
		/* Software writes the version it speaks and reads back whether it is known. */
		if (value >= ID_FIRST && value <= ID_LAST)
			v->vbe[VBE_ID] = value;
		break;
	case VBE_ENABLE:
		write_enable(v, value);
		break;
	case VBE_BANK:
		/* A bank beyond memory leaves the window where it is. */
		if (value < memory_units(v) >> 16) {
			v->vbe[VBE_BANK] = value;
			vga_update_windows(v);
		}
		break;
	case VBE_VIRT_HEIGHT: /* follows from the memory size */
		break;
	case VBE_XRES:
	case VBE_YRES:
	case VBE_BPP:
	case VBE_VIRT_WIDTH:
	case VBE_X_OFFSET:
	case VBE_Y_OFFSET:
		v->vbe[index] = value;
		if (vga_vbe_on(v)) {
			fix_up(v);
			vga_update_windows(v);
		}
		break;
	}
}
