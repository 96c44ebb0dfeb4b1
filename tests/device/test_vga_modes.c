/* What the VGA shows: each kind of mode is programmed as the BIOS does and every pixel compared. */
#include "vga_modes.h"

#include <stdlib.h>
#include <string.h>
#include "vmm/clock.h"

#define DEVFN (2 << 3)
#define LFB   0xe0000000u

static struct board *b;

static void setup(void)
{
	b = bench_new("-m 16 -vga std");
	bench_pci_writel(b, DEVFN, 0x10, LFB);
	bench_pci_writew(b, DEVFN, 0x04, 0x03);
}

static void teardown(void)
{
	bench_free(b);
}

/* ---- text ---- */

static uint8_t glyph(unsigned font, unsigned ch, unsigned row)
{
	return (uint8_t)(ch * 7 + row * 29 + font * 101 + 1);
}

/* As INT 10h AX=1100h does: plane 2, sequential. */
static void load_font(unsigned font, uint32_t plane_offset, const struct vga_mode *back)
{
	vga_sr(b, 2, 0x04);
	vga_sr(b, 4, 0x07);
	vga_gr(b, 4, 0x02);
	vga_gr(b, 5, 0x00);
	vga_gr(b, 6, 0x04);
	for (unsigned ch = 0; ch < 256; ch++)
		for (unsigned row = 0; row < 16; row++)
			bench_writeb(b, 0xa0000 + plane_offset + ch * 32 + row, glyph(font, ch, row));
	vga_sr(b, 2, back->sr[2]);
	vga_sr(b, 4, back->sr[4]);
	for (uint8_t i = 4; i < 7; i++)
		vga_gr(b, i, back->gr[i]);
}

static uint32_t ega_color(const struct vga_mode *m, unsigned index)
{
	return vga_test_color(m->ar[index]);
}

struct text_look {
	const struct vga_mode *mode;
	unsigned cols, dots, repeat, font;
	bool blink_off;
	int cursor_cell; /* -1: none */
};

/* Dot x of scan line `row` of a character, straight from the data sheet. */
static bool text_dot(const struct text_look *l, unsigned ch, unsigned attr, unsigned row, unsigned x)
{
	if ((attr & 0x77) == 0x01 && row == (l->mode->cr[0x14] & 0x1f))
		return true;
	if (l->blink_off && attr & 0x80)
		return false;
	if (x < 8)
		return glyph(l->font, ch, row) >> (7 - x) & 1;
	return ch >= 0xc0 && ch <= 0xdf && (glyph(l->font, ch, row) & 1);
}

static void check_text(const struct text_look *l, uint32_t window)
{
	uint8_t text[4000];

	bench_read(b, window, text, l->cols * 50);
	vga_check_size(l->cols * l->dots * l->repeat, 400);
	for (unsigned y = 0; y < 400; y++)
		for (unsigned x = 0; x < l->cols * l->dots; x++) {
			unsigned cell = y / 16 * l->cols + x / l->dots, row = y % 16;
			unsigned v = get_le16(text + 2 * cell), attr = v >> 8;
			bool on = text_dot(l, v & 0xff, attr, row, x % l->dots);

			if ((int)cell == l->cursor_cell && row >= 13 && row <= 14)
				on = true;
			for (unsigned i = 0; i < l->repeat; i++)
				vga_check_pixel(x * l->repeat + i, y,
						ega_color(l->mode, on ? attr & 15 : attr >> 4 & 7));
		}
}

static void fill_text(uint32_t window, unsigned cells)
{
	for (unsigned i = 0; i < cells; i++)
		bench_writew(b, window + 2 * i, (uint16_t)(i * 0x2b5d + 0x1741));
}

START_TEST(text_80x25)
{
	struct text_look l = {&mode_03, 80, 9, 1, 0, false, 85};

	vga_set_mode(b, &mode_03);
	load_font(0, 0, &mode_03);
	vga_cr(b, 0x0f, 85);
	fill_text(0xb8000, 2000);
	check_text(&l, 0xb8000);
	/* Half a second later both blink phases have changed: cursor after 16 frames, characters after 32. */
	bench_step(b, 470 * NS_PER_MS);
	l.blink_off = true;
	check_text(&l, 0xb8000);
	bench_step(b, 230 * NS_PER_MS);
	l.cursor_cell = -1;
	check_text(&l, 0xb8000);
}
END_TEST

START_TEST(text_40x25_is_twice_as_wide)
{
	struct text_look l = {&mode_01, 40, 9, 2, 0, false, 0};

	vga_set_mode(b, &mode_01);
	load_font(0, 0, &mode_01);
	fill_text(0xb8000, 1000);
	check_text(&l, 0xb8000);
}
END_TEST

START_TEST(text_8_dots_and_second_font)
{
	struct vga_mode m = mode_03;
	struct text_look l = {&m, 80, 8, 1, 3, false, 0};

	m.sr[1] = 0x01;
	m.sr[3] = 0x35; /* both maps 5: the second bank's second font, at 24 KiB */
	m.ar[0x13] = 0;
	vga_set_mode(b, &m);
	load_font(3, 0x6000, &m);
	fill_text(0xb8000, 2000);
	check_text(&l, 0xb8000);
}
END_TEST

START_TEST(text_monochrome_underlines)
{
	struct text_look l = {&mode_07, 80, 9, 1, 0, false, 0};

	vga_set_mode(b, &mode_07);
	load_font(0, 0, &mode_07);
	fill_text(0xb0000, 2000);
	for (unsigned i = 0; i < 80; i++) /* underlined, bright underlined */
		bench_writew(b, 0xb0000 + 2 * i, (uint16_t)((i % 2 ? 0x0900 : 0x0100) + i));
	check_text(&l, 0xb0000);
}
END_TEST

static struct rect damage[64];
static unsigned n_damage;

static void on_damage(void *opaque, const struct rect *r)
{
	ck_assert_uint_lt(n_damage, 64);
	damage[n_damage++] = *r;
}

START_TEST(only_changes_are_reported)
{
	struct console_sink sink = {.damaged = on_damage};

	vga_set_mode(b, &mode_03);
	load_font(0, 0, &mode_03);
	vga_cr(b, 0x0a, 0x20); /* no cursor */
	console_add_sink(console_first(), &sink);
	console_refresh(console_first(), false);
	n_damage = 0;
	console_refresh(console_first(), false);
	ck_assert_uint_eq(n_damage, 0);
	bench_writew(b, 0xb8000 + 2 * (80 * 3 + 10), 0x0741);
	bench_writew(b, 0xb8000 + 2 * (80 * 3 + 12), 0x0741);
	console_refresh(console_first(), false);
	ck_assert_uint_eq(n_damage, 1);
	ck_assert_int_eq(damage[0].y, 48);
	ck_assert_int_eq(damage[0].h, 16);
	ck_assert_int_le(damage[0].x, 90);
	ck_assert_int_ge(damage[0].x + damage[0].w, 117);
	ck_assert_int_le(damage[0].w, 5 * 9);

	vga_set_mode(b, &mode_13);
	console_refresh(console_first(), false);
	n_damage = 0;
	console_refresh(console_first(), false);
	ck_assert_uint_eq(n_damage, 0);
	bench_writeb(b, 0xa0000 + 320 * 100, 1); /* one page: 12.8 lines, each of two scan lines */
	console_refresh(console_first(), false);
	ck_assert_uint_eq(n_damage, 1);
	ck_assert_int_le(damage[0].y, 200);
	ck_assert_int_gt(damage[0].y + damage[0].h, 201);
	ck_assert_int_le(damage[0].h, 30);
	console_del_sink(console_first(), &sink);
}
END_TEST

START_TEST(text_scrolls_by_start_address_and_splits)
{
	struct text_screen t;
	uint16_t cells[2000];

	vga_set_mode(b, &mode_03);
	load_font(0, 0, &mode_03);
	fill_text(0xb8000, 4000);
	vga_cr(b, 0x0c, 0x00);
	vga_cr(b, 0x0d, 80); /* one row down */
	ck_assert(console_text(console_first(), &t, cells, 2000));
	ck_assert_uint_eq(t.cols, 80);
	ck_assert_uint_eq(t.rows, 25);
	ck_assert_uint_eq(cells[0], bench_readw(b, 0xb8000 + 160));
	vga_check_size(720, 400);
	unsigned v = bench_readw(b, 0xb8000 + 160 + 2);

	vga_check_pixel(9, 5, ega_color(&mode_03, glyph(0, v & 0xff, 5) & 0x80 ? v >> 8 & 15 : v >> 12 & 7));
	/* Line compare at 199: from scan line 200 on the screen starts at address 0. */
	vga_cr(b, 0x11, 0);
	vga_cr(b, 0x18, 199);
	vga_cr(b, 0x07, 0x0f);
	vga_cr(b, 0x09, 0x0f);
	console_refresh(console_first(), false);
	v = bench_readw(b, 0xb8000 + 2);
	vga_check_pixel(9, 205, ega_color(&mode_03, glyph(0, v & 0xff, 5) & 0x80 ? v >> 8 & 15 : v >> 12 & 7));
	v = bench_readw(b, 0xb8000 + 160 + 160 * 12);
	vga_check_pixel(0, 195, ega_color(&mode_03, glyph(0, v & 0xff, 3) & 0x80 ? v >> 8 & 15 : v >> 12 & 7));
}
END_TEST

START_TEST(text_as_text)
{
	static const char hello[] = "Hello \x80\xcd!";
	char *utf8;
	struct text_screen t;
	uint16_t cells[2000];

	vga_set_mode(b, &mode_03);
	for (unsigned i = 0; i < 2000; i++)
		bench_writew(b, 0xb8000 + 2 * i, 0x0720);
	for (unsigned i = 0; hello[i]; i++)
		bench_writeb(b, 0xb8000 + 160 + 2 * i, (uint8_t)hello[i]);
	vga_cr(b, 0x0f, 89);
	utf8 = console_text_utf8(console_first());
	ck_assert(!strncmp(utf8, "\nHello Ç═!\n\n", strlen("\nHello Ç═!\n\n")));
	free(utf8);
	ck_assert(console_text(console_first(), &t, cells, 2000));
	ck_assert_int_eq(t.cursor_x, 9);
	ck_assert_int_eq(t.cursor_y, 1);
	vga_cr(b, 0x0a, 0x2d);
	ck_assert(console_text(console_first(), &t, cells, 2000));
	ck_assert_int_eq(t.cursor_x, -1);
	vga_set_mode(b, &mode_13);
	ck_assert_ptr_null(console_text_utf8(console_first()));
}
END_TEST

/* ---- graphics ---- */

static void fill_window(uint32_t base, uint32_t len)
{
	for (uint32_t i = 0; i < len; i += 4)
		bench_writel(b, base + i, i * 0x9e3779b1u >> 3 ^ i);
}

START_TEST(mode_13_256_colours)
{
	static uint8_t memory[64000];

	vga_set_mode(b, &mode_13);
	fill_window(0xa0000, 64000);
	bench_read(b, 0xa0000, memory, 64000);
	vga_check_size(640, 400);
	for (unsigned y = 0; y < 400; y++)
		for (unsigned x = 0; x < 640; x++)
			vga_check_pixel(x, y, vga_test_color(memory[y / 2 * 320 + x / 2]));
	/* DAC changes show at once, and so does the mask. */
	vga_color(b, bench_readb(b, 0xa0000), 63, 0, 0);
	console_refresh(console_first(), false);
	vga_check_pixel(0, 0, 0xff0000);
	bench_outb(b, 0x3c6, 0x0f);
	console_refresh(console_first(), false);
	unsigned v = bench_readb(b, 0xa0000 + 77);

	vga_check_pixel(154, 0, vga_test_color(v & 0x0f));
}
END_TEST

START_TEST(mode_x_planes_pages_panning_and_split)
{
	static uint8_t want[65536 * 4];

	vga_set_mode(b, &mode_x);
	for (unsigned p = 0; p < 4; p++) {
		vga_sr(b, 2, (uint8_t)(1 << p));
		for (unsigned i = 0; i < 40000; i++) {
			want[i * 4 + p] = (uint8_t)(i * 31 + p * 77 + i / 251);
			bench_writeb(b, 0xa0000 + i, want[i * 4 + p]);
		}
	}
	vga_check_size(640, 480);
	for (unsigned y = 0; y < 480; y++)
		for (unsigned x = 0; x < 640; x++)
			vga_check_pixel(x, y, vga_test_color(want[y / 2 * 320 + x / 2]));
	/* Second page, one pixel to the left, split at scan line 300. */
	vga_cr(b, 0x0c, 0x4b);
	vga_ar(b, 0x13, 2);
	vga_ar(b, 0x10, 0x61);
	vga_cr(b, 0x11, 0);
	vga_cr(b, 0x18, 299 & 0xff);
	vga_cr(b, 0x07, 0x3e);
	vga_cr(b, 0x09, 0x01);
	console_refresh(console_first(), false);
	for (unsigned y = 0; y < 300; y++)
		for (unsigned x = 0; x < 640; x += 7)
			vga_check_pixel(x, y, vga_test_color(want[0x4b00 * 4 + y / 2 * 320 + x / 2 + 1]));
	for (unsigned y = 300; y < 480; y++)
		for (unsigned x = 0; x < 640; x += 7)
			vga_check_pixel(x, y, vga_test_color(want[(y - 300) / 2 * 320 + x / 2]));
}
END_TEST

static void fill_planes(uint8_t want[4][38400], unsigned len)
{
	for (unsigned p = 0; p < 4; p++) {
		vga_sr(b, 2, (uint8_t)(1 << p));
		for (unsigned i = 0; i < len; i++) {
			want[p][i] = (uint8_t)(i * 13 + p * 59 + i / 97);
			bench_writeb(b, 0xa0000 + i, want[p][i]);
		}
	}
	vga_sr(b, 2, 0x0f);
}

static unsigned planar_index(uint8_t want[4][38400], unsigned byte, unsigned x)
{
	unsigned index = 0;

	for (unsigned p = 0; p < 4; p++)
		index |= (want[p][byte] >> (7 - x % 8) & 1u) << p;
	return index;
}

START_TEST(mode_12_16_colours)
{
	static uint8_t want[4][38400];

	vga_set_mode(b, &mode_12);
	fill_planes(want, 38400);
	vga_check_size(640, 480);
	for (unsigned y = 0; y < 480; y++)
		for (unsigned x = 0; x < 640; x++)
			vga_check_pixel(x, y, ega_color(&mode_12, planar_index(want, y * 80 + x / 8, x)));
	vga_ar(b, 0x12, 0x05); /* planes 0 and 2 only */
	vga_ar(b, 0x14, 0x0c); /* the DAC's last 64 colours */
	vga_ar(b, 0x13, 3);
	console_refresh(console_first(), false);
	for (unsigned x = 0; x < 630; x++)
		vga_check_pixel(x, 9,
				vga_test_color(0xc0 | mode_12.ar[planar_index(want, 720 + (x + 3) / 8, x + 3) & 5]));
	vga_ar(b, 0x10, 0x81); /* bits 5-4 from the colour select register too */
	vga_ar(b, 0x14, 0x06);
	console_refresh(console_first(), false);
	vga_check_pixel(0, 9, vga_test_color(0x60 | (mode_12.ar[planar_index(want, 720, 3) & 5] & 0x0f)));
}
END_TEST

START_TEST(mode_0d_320x200_16_colours)
{
	static uint8_t want[4][38400];

	vga_set_mode(b, &mode_0d);
	fill_planes(want, 8000);
	vga_check_size(640, 400);
	for (unsigned y = 0; y < 400; y++)
		for (unsigned x = 0; x < 640; x++)
			vga_check_pixel(x, y, ega_color(&mode_0d, planar_index(want, y / 2 * 40 + x / 16, x / 2)));
}
END_TEST

START_TEST(cga_modes)
{
	static uint8_t memory[16384];

	vga_set_mode(b, &mode_04);
	fill_window(0xb8000, 16384);
	bench_read(b, 0xb8000, memory, 16384);
	vga_check_size(640, 400);
	for (unsigned y = 0; y < 400; y++)
		for (unsigned x = 0; x < 640; x++) {
			unsigned line = y / 2, px = x / 2;
			unsigned v = memory[line % 2 * 0x2000 + line / 2 * 80 + px / 4];

			vga_check_pixel(x, y, ega_color(&mode_04, v >> (6 - px % 4 * 2) & 3));
		}
	vga_set_mode(b, &mode_06);
	fill_window(0xb8000, 16384);
	bench_read(b, 0xb8000, memory, 16384);
	vga_check_size(640, 400);
	for (unsigned y = 0; y < 400; y++)
		for (unsigned x = 0; x < 640; x++) {
			unsigned line = y / 2;
			unsigned v = memory[line % 2 * 0x2000 + line / 2 * 80 + x / 8];

			vga_check_pixel(x, y, ega_color(&mode_06, v >> (7 - x % 8) & 1));
		}
}
END_TEST

/* ---- VBE ---- */

static void dispi(uint16_t index, uint16_t v)
{
	bench_outw(b, 0x1ce, index);
	bench_outw(b, 0x1cf, v);
}

static void vbe_mode(uint16_t w, uint16_t h, uint16_t bpp)
{
	vga_set_mode(b, &mode_03);
	dispi(4, 0);
	dispi(1, w);
	dispi(2, h);
	dispi(3, bpp);
	dispi(4, 0x41);
}

static uint32_t expected_pixel(unsigned bpp, uint32_t at)
{
	uint32_t v;

	switch (bpp) {
	case 8:
		return vga_test_color(bench_readb(b, LFB + at));
	case 15:
		v = bench_readw(b, LFB + at);
		return ((v >> 10 & 31) * 255 / 31) << 16 | ((v >> 5 & 31) * 255 / 31) << 8 | (v & 31) * 255 / 31;
	case 16:
		v = bench_readw(b, LFB + at);
		return ((v >> 11 & 31) * 255 / 31) << 16 | ((v >> 5 & 63) * 255 / 63) << 8 | (v & 31) * 255 / 31;
	case 24:
		return bench_readb(b, LFB + at) | (uint32_t)bench_readb(b, LFB + at + 1) << 8 |
		       (uint32_t)bench_readb(b, LFB + at + 2) << 16;
	default:
		return bench_readl(b, LFB + at) & 0xffffff;
	}
}

/* 5 and 6 bit components are replicated, which may differ by one from the rounded quotient. */
static bool near(uint32_t a, uint32_t c)
{
	for (int shift = 0; shift < 24; shift += 8)
		if (abs((int)(a >> shift & 0xff) - (int)(c >> shift & 0xff)) > 1)
			return false;
	return true;
}

START_TEST(vbe_depths_virtual_size_and_offset)
{
	static const uint16_t depths[] = {8, 15, 16, 24, 32};

	for (unsigned i = 0; i < 5; i++) {
		unsigned bpp = depths[i], bytes = (bpp + 7) / 8;

		vbe_mode(320, 200, (uint16_t)bpp);
		dispi(6, 400);
		dispi(8, 24);
		dispi(9, 10);
		fill_window(LFB, 400 * 220 * bytes);
		vga_check_size(320, 200);
		for (unsigned y = 0; y < 200; y += 3)
			for (unsigned x = 0; x < 320; x += 3) {
				uint32_t want = expected_pixel(bpp, ((y + 10) * 400 + x + 24) * bytes);

				if (!near(vga_pixel(x, y), want))
					ck_abort_msg("%u bpp: pixel %u,%u is %06x, want %06x", bpp, x, y,
						     vga_pixel(x, y), want);
			}
	}
}
END_TEST

START_TEST(vbe_4bpp_is_planar_with_banks)
{
	vbe_mode(800, 600, 4);
	vga_sr(b, 4, 0x06);
	vga_gr(b, 5, 0x00);
	vga_gr(b, 6, 0x05);
	vga_sr(b, 2, 0x0a);
	bench_writeb(b, 0xa0000 + 100 * 5, 0x80);
	vga_sr(b, 2, 0x0f);
	dispi(6, 2400); /* 300 bytes per line: line 250 lies in bank 1 */
	dispi(5, 1);
	bench_writeb(b, 0xa0000 + 300 * 250 - 65536, 0x01);
	vga_check_size(800, 600);
	vga_check_pixel(7, 250, ega_color(&mode_03, 15));
	dispi(6, 800);
	console_refresh(console_first(), false);
	vga_check_pixel(0, 5, ega_color(&mode_03, 10));
	vga_check_pixel(1, 5, ega_color(&mode_03, 0));
}
END_TEST

START_TEST(vbe_8bit_dac)
{
	vbe_mode(320, 200, 8);
	dispi(4, 0x61);
	vga_color(b, 5, 0x12, 0x34, 0x56);
	bench_writeb(b, LFB + 3, 5);
	vga_check_size(320, 200);
	vga_check_pixel(3, 0, 0x123456);
}
END_TEST

START_TEST(largest_mode_fills_16_mib)
{
	vbe_mode(2560, 1600, 32);
	bench_writel(b, LFB + (2560 * 1600 - 1) * 4, 0x00abcdef);
	vga_check_size(2560, 1600);
	vga_check_pixel(2559, 1599, 0xabcdef);
}
END_TEST

START_TEST(screen_off_is_black_and_comes_back)
{
	vga_set_mode(b, &mode_13);
	bench_writeb(b, 0xa0000, 9);
	vga_check_size(640, 400);
	vga_check_pixel(0, 0, vga_test_color(9));
	vga_sr(b, 1, 0x21);
	console_refresh(console_first(), false);
	vga_check_pixel(0, 0, 0);
	vga_sr(b, 1, 0x01);
	console_refresh(console_first(), false);
	vga_check_pixel(0, 0, vga_test_color(9));
	bench_inb(b, 0x3da);
	bench_outb(b, 0x3c0, 0x00); /* palette address source */
	console_refresh(console_first(), false);
	vga_check_pixel(0, 0, 0);
	bench_reset(b);
	vga_check_size(640, 400);
	vga_check_pixel(0, 0, 0);
}
END_TEST

/* Whatever the registers say: bounded, no crash (under the sanitizers), and the surface stays consistent. */
START_TEST(random_registers_are_survived)
{
	srand(11);
	for (int i = 0; i < 80; i++) {
		bench_outb(b, 0x3c2, (uint8_t)rand() | 1);
		for (uint8_t n = 0; n < 5; n++)
			vga_sr(b, n, (uint8_t)rand() & 0xdf);
		for (uint8_t n = 0; n < 9; n++)
			vga_gr(b, n, (uint8_t)rand());
		vga_cr(b, 0x11, 0);
		for (uint8_t n = 0; n < 25; n++)
			vga_cr(b, n, (uint8_t)rand());
		for (uint8_t n = 0; n < 21; n++)
			vga_ar(b, n, (uint8_t)rand());
		for (int k = 0; k < 20; k++)
			bench_writel(b, 0xa0000 + (uint32_t)rand() % 0x1fffc, (uint32_t)rand());
		console_refresh(console_first(), rand() % 2);
		free(console_text_utf8(console_first()));
	}
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("modes");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, text_80x25);
	tcase_add_test(t, text_40x25_is_twice_as_wide);
	tcase_add_test(t, text_8_dots_and_second_font);
	tcase_add_test(t, text_monochrome_underlines);
	tcase_add_test(t, only_changes_are_reported);
	tcase_add_test(t, text_scrolls_by_start_address_and_splits);
	tcase_add_test(t, text_as_text);
	tcase_add_test(t, mode_13_256_colours);
	tcase_add_test(t, mode_x_planes_pages_panning_and_split);
	tcase_add_test(t, mode_12_16_colours);
	tcase_add_test(t, mode_0d_320x200_16_colours);
	tcase_add_test(t, cga_modes);
	tcase_add_test(t, vbe_depths_virtual_size_and_offset);
	tcase_add_test(t, vbe_4bpp_is_planar_with_banks);
	tcase_add_test(t, vbe_8bit_dac);
	tcase_add_test(t, largest_mode_fills_16_mib);
	tcase_add_test(t, screen_off_is_black_and_comes_back);
	tcase_add_test(t, random_registers_are_survived);
	tcase_set_timeout(t, 60);

	TCase *cases[] = {t, NULL};

	return run_suite("vga-modes", cases);
}
