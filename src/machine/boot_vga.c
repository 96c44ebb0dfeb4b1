/*
 * The screen for a boot without firmware: 80x25 colour text (mode 3), as every kernel expects to find it, set up
 * through the VGA's own registers. Source: IBM VGA Technical Reference (mode 3 at 720x400); IBM PS/2 BIOS Technical
 * Reference (BIOS data area 449h..); Linux Documentation/arch/x86/zero-page.rst (screen_info).
 *
 * The character shapes come from the distribution's VGA BIOS image, where the 8x16 font is found by its first glyphs.
 * Without that file the text is there (screen dumps as text, serial) but not visible.
 */
#include "boot.h"

#include <stdlib.h>

#define VGA_ROM     "vgabios-stdvga.bin"
#define VGA_ROM_MAX (1 * MIB)
#define FONT_BYTES  4096
#define TEXT_BASE   0xb8000ull
#define PLANE_BASE  0xa0000ull

static const uint8_t sequencer[5] = {0x03, 0x00, 0x03, 0x00, 0x02};
static const uint8_t crtc[25] = {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
				 0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff};
static const uint8_t graphics[9] = {0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff};
static const uint8_t attributes[21] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
				       0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00};

void boot_find_font(struct boot *boot)
{
	/* The empty glyph 0 and the face that is glyph 1 */
	static const uint8_t first[32] = {[18] = 0x7e, 0x81, 0xa5, 0x81, 0x81, 0xbd, 0x99, 0x81, 0x81, 0x7e};
	const uint8_t *at;
	void *rom;
	size_t len;

	boot->has_vga = device_find_class(boot->board, "VGA") != NULL;
	if (!boot->has_vga || board_load_file(boot->board, VGA_ROM, VGA_ROM_MAX, &rom, &len, NULL) < 0)
		return;
	at = memmem(rom, len, first, sizeof(first));
	if (at && (size_t)((const uint8_t *)rom + len - at) >= FONT_BYTES)
		boot->font = xmemdup(at, FONT_BYTES);
	free(rom);
}

static void out(struct board *b, uint16_t port, uint8_t value)
{
	map_pio_write(b, port, value, 1);
}

static void out_all(struct board *b, uint16_t port, const uint8_t *values, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		map_pio_write(b, port, (uint64_t)values[i] << 8 | i, 2); /* index, then data */
}

static void set_colours(struct board *b)
{
	out(b, 0x3c6, 0xff);
	out(b, 0x3c8, 0);
	for (unsigned i = 0; i < 64; i++) { /* EGA's: bits rgbRGB, the small ones a third of the intensity */
		out(b, 0x3c9, (uint8_t)((i >> 2 & 1) * 42 + (i >> 5 & 1) * 21));
		out(b, 0x3c9, (uint8_t)((i >> 1 & 1) * 42 + (i >> 4 & 1) * 21));
		out(b, 0x3c9, (uint8_t)((i & 1) * 42 + (i >> 3 & 1) * 21));
	}
}

/* The font lives in plane 2, 32 bytes a character. */
static void load_font(struct board *b, const uint8_t *font)
{
	static const uint8_t plane2[5] = {0x03, 0x00, 0x04, 0x00, 0x06}, flat[9] = {[4] = 2, [6] = 4, [8] = 0xff};
	uint8_t planes[256 * 32] = {0};

	for (unsigned c = 0; c < 256; c++)
		memcpy(planes + c * 32, font + c * 16, 16);
	out_all(b, 0x3c4, plane2, sizeof(plane2));
	out_all(b, 0x3ce, flat, sizeof(flat));
	map_mem_write(b, PLANE_BASE, planes, sizeof(planes));
}

static void set_mode3(struct board *b, const uint8_t *font)
{
	uint16_t blank[80 * 25];

	out(b, 0x3c2, 0x67);                                     /* colour addresses, 28 MHz, 400 lines */
	out_all(b, 0x3d4, (const uint8_t[18]){[17] = 0x0e}, 18); /* registers 0..7 unlocked */
	out_all(b, 0x3d4, crtc, sizeof(crtc));
	if (font)
		load_font(b, font);
	out_all(b, 0x3c4, sequencer, sizeof(sequencer));
	out_all(b, 0x3ce, graphics, sizeof(graphics));
	map_pio_read(b, 0x3da, 1); /* the next write to 3C0h is an index */
	for (uint8_t i = 0; i < sizeof(attributes); i++) {
		out(b, 0x3c0, i);
		out(b, 0x3c0, attributes[i]);
	}
	out(b, 0x3c0, 0x20); /* show the picture */
	set_colours(b);
	for (unsigned i = 0; i < ARRAY_SIZE(blank); i++)
		blank[i] = htole16(0x0720);
	map_mem_write(b, TEXT_BASE, blank, sizeof(blank));
}

int boot_set_up_screen(struct boot *boot, struct err *e)
{
	/* 449h: mode, columns (word), bytes of a page (word); 460h: cursor shape, page, CRTC port; 484h: rows - 1,
	 * height */
	static const uint8_t mode[5] = {3, 80, 0, 0x00, 0x10}, cursor[5] = {0x0e, 0x0d, 0, 0xd4, 0x03},
			     rows[3] = {24, 16, 0};
	int r;

	if (!boot->has_vga)
		return 0;
	set_mode3(boot->board, boot->font);
	r = boot_put(boot, 0x449, mode, sizeof(mode), e);
	if (r == 0)
		r = boot_put(boot, 0x460, cursor, sizeof(cursor), e);
	return r == 0 ? boot_put(boot, 0x484, rows, sizeof(rows), e) : r;
}

void boot_describe_screen(const struct boot *boot, uint8_t *zero_page)
{
	if (!boot->has_vga)
		return;
	zero_page[0x06] = 3;                /* mode */
	zero_page[0x07] = 80;               /* columns */
	put_le16(zero_page + 0x0a, 0x0003); /* EGA: colour, 256 KiB */
	zero_page[0x0e] = 25;               /* lines */
	zero_page[0x0f] = 1;                /* VGA */
	zero_page[0x10] = 16;               /* height of a character */
}
