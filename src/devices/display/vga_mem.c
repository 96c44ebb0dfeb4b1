/*
 * VGA display memory as the CPU sees it at A0000h-BFFFFh: address decoding, latches, write modes 0-3, read modes 0-1.
 *
 * Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem": Memory Maps, Graphics Controller.
 * Device lock held throughout.
 */
#include "src/devices/display/vga.h"

/* A bit per plane to a byte per plane. */
static uint32_t expand(unsigned bits)
{
	return (bits & 1 ? 0x000000ffu : 0) | (bits & 2 ? 0x0000ff00u : 0) | (bits & 4 ? 0x00ff0000u : 0) |
	       (bits & 8 ? 0xff000000u : 0);
}

/* Graphics Misc bits 3-2: which part of the 128 KiB answers. */
static bool in_window(const struct vga *v, uint32_t *addr)
{
	static const struct {
		uint32_t base, size;
	} maps[4] = {{0, 0x20000}, {0, 0x10000}, {0x10000, 0x8000}, {0x18000, 0x8000}};
	unsigned m = v->gr[GR_MISC] >> 2 & 3;

	if (!(v->misc & MISC_RAM_ENABLE) || vga_linear(v) || *addr < maps[m].base ||
	    *addr - maps[m].base >= maps[m].size)
		return false;
	*addr -= maps[m].base;
	return true;
}

/* Plane address to an index of 32-bit words in VRAM; the bank moves it in 4-bpp VBE modes. */
static bool plane_word(const struct vga *v, uint32_t a, uint32_t *word)
{
	*word = a & (VGA_PLANE_SIZE - 1);
	if (vga_vbe_on(v))
		*word += (uint32_t)v->vbe[VBE_BANK] << 16;
	return *word < v->mem_size / 4;
}

uint8_t vga_mem_read(struct vga *v, uint32_t addr)
{
	uint32_t a = addr, word;
	unsigned plane;

	if (!in_window(v, &a))
		return 0xff;
	if (v->sr[SR_MEMORY_MODE] & SR04_CHAIN4) {
		plane = a & 3;
		a >>= 2;
	} else if (v->gr[GR_MODE] & GR05_ODD_EVEN) {
		plane = (v->gr[GR_READ_MAP] & 2) | (a & 1);
		if (v->gr[GR_MISC] & GR06_CHAIN_ODD_EVEN)
			a &= ~1u;
	} else {
		plane = v->gr[GR_READ_MAP] & 3;
	}
	if (!plane_word(v, a, &word))
		return 0xff;
	v->latch = *vga_word(v, word);
	if (!(v->gr[GR_MODE] & 0x08))
		return (uint8_t)(v->latch >> 8 * plane);

	/* Read mode 1: a bit is set where all planes that matter have the compare colour. */
	uint32_t differs = (v->latch ^ expand(v->gr[GR_COLOR_COMPARE])) & expand(v->gr[GR_DONT_CARE]);

	differs |= differs >> 16;
	differs |= differs >> 8;
	return (uint8_t)~differs;
}

/* What the graphics controller makes of a byte: a byte for each plane. */
static uint32_t write_data(const struct vga *v, uint8_t value)
{
	const uint8_t *gr = v->gr;
	unsigned rotate = gr[GR_ROTATE] & 7;
	uint8_t rotated = (uint8_t)(value >> rotate | value << (8 - rotate));
	uint32_t set_reset = expand(gr[GR_SET_RESET]), mask = gr[GR_BIT_MASK] * 0x01010101u, data;

	switch (gr[GR_MODE] & 3) {
	case 0: {
		uint32_t enable = expand(gr[GR_ENABLE_SR]);

		data = (set_reset & enable) | (rotated * 0x01010101u & ~enable);
		break;
	}
	case 1:
		return v->latch;
	case 2:
		data = expand(value);
		break;
	default:
		data = set_reset;
		mask &= rotated * 0x01010101u;
		break;
	}
	switch (gr[GR_ROTATE] >> 3 & 3) {
	case 1:
		data &= v->latch;
		break;
	case 2:
		data |= v->latch;
		break;
	case 3:
		data ^= v->latch;
		break;
	}
	return (data & mask) | (v->latch & ~mask);
}

void vga_mem_write(struct vga *v, uint32_t addr, uint8_t value)
{
	uint32_t a = addr, word;
	unsigned planes = v->sr[SR_MAP_MASK] & 0x0f;

	if (!in_window(v, &a))
		return;
	if (v->sr[SR_MEMORY_MODE] & SR04_CHAIN4) {
		planes &= 1u << (a & 3);
		a >>= 2;
	} else {
		if (!(v->sr[SR_MEMORY_MODE] & SR04_NO_ODD_EVEN))
			planes &= a & 1 ? 0x0a : 0x05;
		if (v->gr[GR_MISC] & GR06_CHAIN_ODD_EVEN)
			a &= ~1u;
	}
	if (!planes || !plane_word(v, a, &word))
		return;

	uint32_t *cell = vga_word(v, word), select = expand(planes);

	*cell = (*cell & ~select) | (write_data(v, value) & select);
	ram_block_mark_dirty(v->vram, (uint64_t)word * 4, 4);
}
