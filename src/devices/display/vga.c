/*
 * Standard VGA adapter with Bochs VBE extensions, PCI 1234:1111: registers, memory windows, PCI function.
 *
 * Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (1992); QEMU docs/specs/standard-vga.txt
 * for BAR 2 and the DISPI ports.
 *
 * Left out: the subsystem sleep bit (3C3h), the light pen, monitor detection by DAC comparators (3C2h bit 4 always says
 * that a colour monitor is there), the vertical retrace interrupt (no pin), Hercules and interlaced timing, the panning
 * of 9-dot graphics, EDID (BAR 2 offset 0 reads as all ones: no data).
 */
#include "src/devices/display/vga.h"

#include <errno.h>
#include <stdlib.h>
#include "vmm/pci.h"

enum { DAC_WRITING = 0, DAC_READING = 3 };

/* ---- memory windows ---- */

enum { REGION_LFB, REGION_MMIO, REGION_WINDOW_A, REGION_WINDOW_B0, REGION_WINDOW_B8 };

/* CPU data goes to memory unchanged and nothing but the address decides where. */
static bool writes_plainly(const struct vga *v)
{
	return (v->misc & MISC_RAM_ENABLE) && !(v->gr[GR_ENABLE_SR] & 0x0f) && !(v->gr[GR_ROTATE] & 0x1f) &&
	       !(v->gr[GR_MODE] & 0x0b) && v->gr[GR_BIT_MASK] == 0xff;
}

static bool chain4_is_ram(const struct vga *v)
{
	return !vga_vbe_on(v) && writes_plainly(v) && (v->sr[SR_MEMORY_MODE] & SR04_CHAIN4) &&
	       (v->sr[SR_MAP_MASK] & 0x0f) == 0x0f;
}

/* A text mode (or a CGA graphics mode) with the window at B0000h or B8000h. */
static bool shadow_is_right(const struct vga *v)
{
	return !vga_vbe_on(v) && writes_plainly(v) && (v->sr[SR_MAP_MASK] & 0x0f) == 0x03 &&
	       !(v->sr[SR_MEMORY_MODE] & (SR04_CHAIN4 | SR04_NO_ODD_EVEN)) && (v->gr[GR_MODE] & GR05_ODD_EVEN) &&
	       (v->gr[GR_MISC] & GR06_CHAIN_ODD_EVEN) && (v->gr[GR_MISC] & 0x08) && !(v->gr[GR_READ_MAP] & 2);
}

static void fill_shadow(struct vga *v)
{
	for (uint32_t a = 0; a < VGA_SHADOW_SIZE; a += 2)
		vga_shadow(v)[a >> 1] = (uint16_t)*vga_word(v, a);
	ram_block_mark_dirty(v->vram, v->mem_size, VGA_SHADOW_SIZE);
}

static void empty_shadow(struct vga *v)
{
	for (uint32_t a = 0; a < VGA_SHADOW_SIZE; a += 2)
		*vga_word(v, a) = (*vga_word(v, a) & 0xffff0000u) | vga_shadow(v)[a >> 1];
	ram_block_mark_dirty(v->vram, 0, VGA_SHADOW_SIZE * 4);
}

static void map_window(struct vga *v, unsigned region, int64_t offset)
{
	struct region *r = &v->dev.regions[region];
	enum region_kind kind = offset < 0 ? REGION_IO : REGION_RAM;

	bool was_ram = r->kind == REGION_RAM;
	uint64_t was_at = r->ram_offset;

	if (r->kind == kind && (!was_ram || was_at == (uint64_t)offset))
		return;
	region_set_kind(r, kind, kind == REGION_RAM ? v->vram : NULL, kind == REGION_RAM ? (uint64_t)offset : 0);
	/* What the guest wrote through the old mapping is not in anybody's log any more. */
	if (was_ram)
		ram_block_mark_dirty(v->vram, was_at, r->size);
}

void vga_update_windows(struct vga *v)
{
	bool shadow = shadow_is_right(v);
	unsigned map = v->gr[GR_MISC] >> 2 & 3;
	int64_t a = -1, b0 = -1, b8 = -1;

	if (vga_linear(v)) {
		a = (int64_t)v->vbe[VBE_BANK] << 16;
	} else if (chain4_is_ram(v) && map < 2) {
		a = 0;
		if (map == 0) {
			b0 = 0x10000;
			b8 = 0x18000;
		}
	} else if (shadow) {
		*(map == 2 ? &b0 : &b8) = v->mem_size;
	}
	if (shadow && !v->shadow)
		fill_shadow(v);
	region_batch_begin(&v->dev);
	map_window(v, REGION_WINDOW_A, a);
	map_window(v, REGION_WINDOW_B0, b0);
	map_window(v, REGION_WINDOW_B8, b8);
	region_batch_end(&v->dev);
	if (!shadow && v->shadow)
		empty_shadow(v);
	v->shadow = shadow;
}

static uint64_t window_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	uint32_t addr = (uint32_t)(r->base - 0xa0000 + offset);
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)vga_mem_read(DEVICE(dev, struct vga), addr + i) << 8 * i;
	return value;
}

static void window_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	uint32_t addr = (uint32_t)(r->base - 0xa0000 + offset);

	for (unsigned i = 0; i < size; i++)
		vga_mem_write(DEVICE(dev, struct vga), addr + i, (uint8_t)(value >> 8 * i));
}

/* ---- registers ---- */

static uint32_t overflow_bits(const struct vga *v, unsigned bit8, unsigned bit9)
{
	uint8_t o = v->cr[CR_OVERFLOW];

	return (o & bit8 ? 0x100u : 0) | (o & bit9 ? 0x200u : 0);
}

/*
 * Input status 1: bit 0 while nothing is displayed, bit 3 in vertical retrace. The beam's position follows from guest
 * time and the programmed raster, so that software which paces itself on the retrace runs at the right speed.
 */
static uint8_t input_status1(const struct vga *v)
{
	uint32_t lines = (v->cr[CR_VTOTAL] | overflow_bits(v, 0x01, 0x20)) + 2;
	uint32_t shown = (v->cr[CR_VDISP_END] | overflow_bits(v, 0x02, 0x40)) + 1;
	uint32_t sync = v->cr[CR_VSYNC_START] | overflow_bits(v, 0x04, 0x80);
	uint32_t chars = v->cr[CR_HTOTAL] + 5u, chars_shown = v->cr[CR_HDISP_END] + 1u;
	uint32_t dots = chars * (v->sr[SR_CLOCKING] & SR01_8DOT ? 8 : 9);
	uint32_t khz = v->misc & 0x04 ? 28322 : 25175;

	if (v->sr[SR_CLOCKING] & SR01_HALF_CLOCK)
		khz /= 2;
	if (vga_vbe_on(v) || shown >= lines || sync < shown || sync >= lines || chars_shown >= chars) {
		/* No VGA raster is programmed: 640 x 480 at 60 Hz will do. */
		lines = 525, shown = 480, sync = 490, chars = 100, chars_shown = 80, dots = 800, khz = 25175;
	}

	uint64_t line_ns = dots * 1000000ull / khz;
	uint64_t pos = clock_ns(VCLOCK_VIRTUAL) % (line_ns * lines);
	uint32_t line = (uint32_t)(pos / line_ns), ch = (uint32_t)(pos % line_ns * chars / line_ns);
	uint32_t sync_lines = (v->cr[CR_VSYNC_END] - sync) & 0x0f;
	uint8_t status = line >= shown || ch >= chars_shown ? 0x01 : 0x00;

	if (line >= sync && line < sync + (sync_lines ? sync_lines : 2))
		status |= 0x08;
	return status;
}

static uint8_t dac_data_read(struct vga *v)
{
	uint8_t value = v->palette[v->dac_read * 3 + v->dac_part];

	if (++v->dac_part == 3) {
		v->dac_part = 0;
		v->dac_read++;
	}
	return value;
}

static void dac_data_write(struct vga *v, uint8_t value)
{
	if (!(v->vbe[VBE_ENABLE] & VBE_8BIT_DAC))
		value &= 0x3f;
	if (v->dac_part < 2) {
		v->dac_latch[v->dac_part++] = value;
		return;
	}
	/* A colour changes as a whole, with its third component. */
	memcpy(v->palette + v->dac_write * 3, v->dac_latch, 2);
	v->palette[v->dac_write * 3 + 2] = value;
	v->dac_part = 0;
	v->dac_write++;
	v->palette_version++;
}

static void attribute_write(struct vga *v, uint8_t value)
{
	static const uint8_t mask[AR_COUNT - AR_MODE] = {0xef, 0xff, 0x3f, 0x0f, 0x0f};
	unsigned n = v->ar_index & 0x1f;

	if (!v->ar_data)
		v->ar_index = value & 0x3f;
	else if (n < AR_MODE)
		v->ar[n] = value & 0x3f;
	else if (n < AR_COUNT)
		v->ar[n] = value & mask[n - AR_MODE];
	v->ar_data = !v->ar_data;
}

static void sequencer_write(struct vga *v, uint8_t value)
{
	static const uint8_t mask[8] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e};

	v->sr[v->sr_index] = value & mask[v->sr_index];
	if (v->sr_index == SR_MAP_MASK || v->sr_index == SR_MEMORY_MODE)
		vga_update_windows(v);
}

static void graphics_write(struct vga *v, uint8_t value)
{
	static const uint8_t mask[] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};

	if (v->gr_index >= ARRAY_SIZE(v->gr))
		return;
	v->gr[v->gr_index] = value & mask[v->gr_index];
	vga_update_windows(v);
}

static void crtc_write(struct vga *v, uint8_t value)
{
	unsigned n = v->cr_index;

	if (n >= CR_COUNT)
		return;
	/* CR11 bit 7 protects the horizontal timing, and CR07 but for the line compare bit. */
	if (n <= CR_OVERFLOW && (v->cr[CR_VSYNC_END] & 0x80)) {
		if (n == CR_OVERFLOW)
			v->cr[n] = (uint8_t)((v->cr[n] & ~0x10) | (value & 0x10));
		return;
	}
	v->cr[n] = value;
}

/* Miscellaneous Output bit 0 selects whether the CRTC answers at 3Dxh or 3Bxh. */
static bool answers(const struct vga *v, unsigned port)
{
	if (port >= 0x3d0)
		return v->misc & MISC_COLOR_PORTS;
	return port >= 0x3c0 || !(v->misc & MISC_COLOR_PORTS);
}

static uint8_t port_read(struct vga *v, unsigned port)
{
	if (!answers(v, port))
		return 0xff;
	switch (port) {
	case 0x3c0:
		return v->ar_index;
	case 0x3c1:
		return (v->ar_index & 0x1f) < AR_COUNT ? v->ar[v->ar_index & 0x1f] : 0;
	case 0x3c2: /* input status 0 */
		return 0x10;
	case 0x3c4:
		return v->sr_index;
	case 0x3c5:
		return v->sr[v->sr_index];
	case 0x3c6:
		return v->dac_mask;
	case 0x3c7:
		return v->dac_state;
	case 0x3c8:
		return v->dac_write;
	case 0x3c9:
		return dac_data_read(v);
	case 0x3ca:
		return v->feature;
	case 0x3cc:
		return v->misc;
	case 0x3ce:
		return v->gr_index;
	case 0x3cf:
		return v->gr_index < ARRAY_SIZE(v->gr) ? v->gr[v->gr_index] : 0;
	case 0x3b4:
	case 0x3d4:
		return v->cr_index;
	case 0x3b5:
	case 0x3d5:
		return v->cr_index < CR_COUNT ? v->cr[v->cr_index] : 0;
	case 0x3ba:
	case 0x3da:
		v->ar_data = false;
		return input_status1(v);
	default:
		return 0;
	}
}

static void port_write(struct vga *v, unsigned port, uint8_t value)
{
	if (!answers(v, port))
		return;
	switch (port) {
	case 0x3c0:
		attribute_write(v, value);
		break;
	case 0x3c2:
		v->misc = value & ~0x10;
		vga_update_windows(v);
		break;
	case 0x3c4:
		v->sr_index = value & 7;
		break;
	case 0x3c5:
		sequencer_write(v, value);
		break;
	case 0x3c6:
		v->dac_mask = value;
		v->palette_version++;
		break;
	case 0x3c7:
		v->dac_read = value;
		v->dac_part = 0;
		v->dac_state = DAC_READING;
		break;
	case 0x3c8:
		v->dac_write = value;
		v->dac_part = 0;
		v->dac_state = DAC_WRITING;
		break;
	case 0x3c9:
		dac_data_write(v, value);
		break;
	case 0x3ce:
		v->gr_index = value & 0x0f;
		break;
	case 0x3cf:
		graphics_write(v, value);
		break;
	case 0x3b4:
	case 0x3d4:
		v->cr_index = value;
		break;
	case 0x3b5:
	case 0x3d5:
		crtc_write(v, value);
		break;
	case 0x3ba:
	case 0x3da:
		v->feature = value & 0x10;
		break;
	}
}

/* Index and data pairs are written as one word: a byte to each port, in order. */
static uint64_t ports_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)port_read(DEVICE(dev, struct vga), (unsigned)(r->base + offset) + i) << 8 * i;
	return value;
}

static void ports_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		port_write(DEVICE(dev, struct vga), (unsigned)(r->base + offset) + i, (uint8_t)(value >> 8 * i));
}

/* DISPI ports: index at 1CEh, data at 1CFh (x86) and, aligned, at 1D0h. */
static uint64_t dispi_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct vga *v = DEVICE(dev, struct vga);

	return offset ? vga_vbe_read(v, v->vbe_index) : v->vbe_index;
}

static void dispi_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct vga *v = DEVICE(dev, struct vga);

	if (offset)
		vga_vbe_write(v, v->vbe_index, (uint16_t)value);
	else
		v->vbe_index = (uint16_t)value;
}

/* BAR 2: the VGA ports 3C0h-3DFh at 400h, DISPI at 500h, the extended registers (size, byte order) at 600h. */
enum { MMIO_PORTS = 0x400, MMIO_DISPI = 0x500, MMIO_EXT = 0x600, MMIO_EXT_SIZE = 8 };
#define LITTLE_ENDIAN_FB 0x1e1e1e1eu

static uint64_t mmio_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct vga *v = DEVICE(dev, struct vga);
	uint64_t value = 0;

	if (offset >= MMIO_PORTS && offset + size <= MMIO_PORTS + 0x20) {
		for (unsigned i = 0; i < size; i++)
			value |= (uint64_t)port_read(v, 0x3c0 + (unsigned)(offset - MMIO_PORTS) + i) << 8 * i;
		return value;
	}
	if (offset >= MMIO_DISPI && offset < MMIO_DISPI + 2 * (VBE_MEMORY_64K + 1) && size == 2)
		return vga_vbe_read(v, (unsigned)(offset - MMIO_DISPI) / 2);
	if (offset == MMIO_EXT && size == 4)
		return MMIO_EXT_SIZE;
	if (offset == MMIO_EXT + 4 && size == 4)
		return LITTLE_ENDIAN_FB;
	return UINT64_MAX >> (64 - 8 * size);
}

static void mmio_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct vga *v = DEVICE(dev, struct vga);

	if (offset >= MMIO_PORTS && offset + size <= MMIO_PORTS + 0x20) {
		for (unsigned i = 0; i < size; i++)
			port_write(v, 0x3c0 + (unsigned)(offset - MMIO_PORTS) + i, (uint8_t)(value >> 8 * i));
	} else if (offset >= MMIO_DISPI && offset < MMIO_DISPI + 2 * (VBE_MEMORY_64K + 1) && size == 2) {
		vga_vbe_write(v, (unsigned)(offset - MMIO_DISPI) / 2, (uint16_t)value);
	} else if (offset == MMIO_EXT + 4 && size == 4 && value != LITTLE_ENDIAN_FB) {
		log_guest(&dev->guest_log, "display", "%s: a big-endian frame buffer is not supported", dev->id);
	}
}

/* ---- device ---- */

static int vga_create(struct device *dev, struct err *e)
{
	struct vga *v = DEVICE(dev, struct vga);

	if (v->vgamem_mb & (v->vgamem_mb - 1))
		return err_set(e, EINVAL, "%s: vgamem_mb=%u is not a power of two", dev->id, v->vgamem_mb);
	v->mem_size = v->vgamem_mb << 20;

	char *name = xasprintf("%s.vram", dev->id);

	v->vram = ram_block_new(dev, name, v->mem_size + VGA_SHADOW_SIZE, e);
	free(name);
	if (!v->vram)
		return e ? -e->code : -ENOMEM;
	v->mem = ram_block_ptr(v->vram);
	dev->regions[REGION_LFB].ram = v->vram;
	dev->regions[REGION_LFB].size = v->mem_size;
	dev->regions[REGION_LFB].log_dirty = true;
	for (unsigned i = REGION_WINDOW_A; i <= REGION_WINDOW_B8; i++)
		dev->regions[i].log_dirty = true;
	v->console = console_new(dev->id, &vga_console_source, v, dev->lock);
	return 0;
}

static void vga_destroy(struct device *dev)
{
	struct vga *v = DEVICE(dev, struct vga);

	console_free(v->console);
	vga_view_free(v->view);
}

static void vga_reset(struct device *dev)
{
	struct vga *v = DEVICE(dev, struct vga);

	v->misc = v->feature = 0;
	v->sr_index = v->gr_index = v->cr_index = v->ar_index = 0;
	memset(v->sr, 0, sizeof(v->sr));
	memset(v->gr, 0, sizeof(v->gr));
	memset(v->cr, 0, sizeof(v->cr));
	memset(v->ar, 0, sizeof(v->ar));
	memset(v->palette, 0, sizeof(v->palette));
	v->ar_data = false;
	v->dac_mask = 0xff;
	v->dac_state = DAC_WRITING;
	v->dac_read = v->dac_write = v->dac_part = 0;
	memset(v->dac_latch, 0, sizeof(v->dac_latch));
	v->latch = 0;
	v->palette_version++;
	vga_vbe_reset(v);
}

static void vga_settle(struct device *dev)
{
	struct vga *v = DEVICE(dev, struct vga);

	v->palette_version++;
	if (v->view)
		v->view->valid = false;
	vga_update_windows(v);
}

static int vga_post_load(void *obj, uint16_t version, struct err *e)
{
	const struct vga *v = obj;

	if (v->vbe[VBE_ENABLE] & VBE_ENABLED ? !vga_vbe_valid(v) : v->vbe[VBE_BANK] >= v->mem_size >> 16)
		return err_set(e, EINVAL, "the VBE mode does not fit the %u MiB of video memory", v->vgamem_mb);
	return 0;
}

static const struct state_field vga_fields[] = {
	STATE_U(struct vga, misc),
	STATE_U(struct vga, feature),
	STATE_U_MAX(struct vga, sr_index, 7),
	STATE_BUF(struct vga, sr),
	STATE_U_MAX(struct vga, gr_index, 15),
	STATE_BUF(struct vga, gr),
	STATE_U(struct vga, cr_index),
	STATE_BUF(struct vga, cr),
	STATE_U_MAX(struct vga, ar_index, 0x3f),
	STATE_BUF(struct vga, ar),
	STATE_B(struct vga, ar_data),
	STATE_U(struct vga, dac_mask),
	STATE_U_MAX(struct vga, dac_state, 3),
	STATE_U(struct vga, dac_read),
	STATE_U(struct vga, dac_write),
	STATE_U_MAX(struct vga, dac_part, 2),
	STATE_BUF(struct vga, dac_latch),
	STATE_BUF(struct vga, palette),
	STATE_U(struct vga, latch),
	STATE_U(struct vga, vbe_index),
	STATE_UA(struct vga, vbe),
	STATE_B(struct vga, shadow),
	STATE_FIELDS_END,
};
static const struct state_table vga_state = {
	.name = "vga", .version = 1, .oldest = 1, .fields = vga_fields, .post_load = vga_post_load};

static const struct region_ops window_ops = {.read = window_read, .write = window_write, .max_access = 8};
static const struct region_ops ports_ops = {.read = ports_read, .write = ports_write, .max_access = 4};
static const struct region_ops dispi_ops = {.read = dispi_read, .write = dispi_write, .min_access = 2, .max_access = 2};
static const struct region_ops mmio_ops = {.read = mmio_read, .write = mmio_write, .max_access = 4};

#define VGA_PORTS(nm, first, n)                                                                        \
	{                                                                                              \
		.name = (nm), .space = SPACE_PIO, .base = (first), .size = (n), .bar = REGION_NOT_BAR, \
		.ops = &ports_ops                                                                      \
	}
#define VGA_WINDOW(nm, first, n)                                                                                       \
	{                                                                                                              \
		.name = (nm), .space = SPACE_MMIO, .base = (first), .size = (n), .bar = REGION_NOT_BAR, .priority = 1, \
		.coalesced = (n), .ops = &window_ops                                                                   \
	}

static const struct region_desc vga_regions[] = {
	[REGION_LFB] = {.name = "vga.vram", .space = SPACE_MMIO, .kind = REGION_RAM, .bar = 0},
	[REGION_MMIO] = {.name = "vga.mmio", .space = SPACE_MMIO, .size = 0x1000, .bar = 2, .ops = &mmio_ops},
	[REGION_WINDOW_A] = VGA_WINDOW("vga-a0000", 0xa0000, 0x10000),
	[REGION_WINDOW_B0] = VGA_WINDOW("vga-b0000", 0xb0000, 0x8000),
	[REGION_WINDOW_B8] = VGA_WINDOW("vga-b8000", 0xb8000, 0x8000),
	VGA_PORTS("vga-crtc-mono", 0x3b4, 2),
	VGA_PORTS("vga-status-mono", 0x3ba, 1),
	VGA_PORTS("vga-ports", 0x3c0, 16),
	VGA_PORTS("vga-crtc", 0x3d4, 2),
	VGA_PORTS("vga-status", 0x3da, 1),
	{.name = "vbe", .space = SPACE_PIO, .base = 0x1ce, .size = 4, .bar = REGION_NOT_BAR, .ops = &dispi_ops},
};

static const struct prop vga_props[] = {
	PROP(struct vga, vgamem_mb, PROP_U32, .def = 16, .min = 1, .max = 256,
	     .help = "video memory in MiB, a power of two"),
	PROP(struct vga, romfile, PROP_STR, .def_str = "vgabios-stdvga.bin", .help = "video BIOS image"),
	PROP_END,
};

static const struct pci_identity vga_pci = {
	.vendor = 0x1234,
	.device = 0x1111,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.revision = 2,
	.class_code = 0x030000,
	.bar = {[0] = {PCI_BAR_MEM32_PREFETCH}, [2] = {PCI_BAR_MEM32}},
	.rom_bar = true,
};

DEVICE_CLASS(vga) = {
	.name = "VGA",
	.summary = "standard VGA with Bochs VBE extensions",
	.bus = BUS_PCI,
	.category = "Display",
	.size = sizeof(struct vga),
	.user_creatable = true,
	.props = vga_props,
	.regions = vga_regions,
	.n_regions = ARRAY_SIZE(vga_regions),
	.pci = &vga_pci,
	.state = &vga_state,
	.create = vga_create,
	.destroy = vga_destroy,
	.reset = vga_reset,
	.settle = vga_settle,
};
