/* Standard VGA: registers, display memory against a model, DISPI, PCI, state. Pictures: test_vga_modes.c. */
#include "vga_modes.h"

#include <stdlib.h>
#include <string.h>
#include "vmm/clock.h"

#define DEVFN (2 << 3)
#define LFB   0xe0000000u
#define MMIO  0xfebf0000u

static struct board *b;

static void setup(void)
{
	b = bench_new("-m 16 -vga std");
	bench_pci_writel(b, DEVFN, 0x10, LFB);
	bench_pci_writel(b, DEVFN, 0x18, MMIO);
	bench_pci_writew(b, DEVFN, 0x04, 0x03);
}

static void teardown(void)
{
	bench_free(b);
}

static void dispi(uint16_t index, uint16_t v)
{
	bench_outw(b, 0x1ce, index);
	bench_outw(b, 0x1cf, v);
}

static uint16_t dispi_get(uint16_t index)
{
	bench_outw(b, 0x1ce, index);
	return bench_inw(b, 0x1cf);
}

START_TEST(pci_identity)
{
	ck_assert_uint_eq(bench_pci_readl(b, DEVFN, 0x00), 0x11111234);
	ck_assert_uint_eq(bench_pci_readl(b, DEVFN, 0x08), 0x03000002);
	bench_pci_writel(b, DEVFN, 0x10, ~0u);
	ck_assert_uint_eq(bench_pci_readl(b, DEVFN, 0x10), 0xff000008); /* 16 MiB, prefetchable */
	bench_pci_writel(b, DEVFN, 0x18, ~0u);
	ck_assert_uint_eq(bench_pci_readl(b, DEVFN, 0x18), 0xfffff000);
	bench_pci_writel(b, DEVFN, 0x30, ~0u);
	ck_assert_uint_eq(bench_pci_readl(b, DEVFN, 0x30) & 0xfffff800, 0xffff0000); /* 64 KiB of video BIOS */
	bench_pci_writel(b, DEVFN, 0x30, 0xfea00001);
	ck_assert_uint_eq(bench_readw(b, 0xfea00000), 0xaa55);
}
END_TEST

START_TEST(registers_read_back)
{
	static const uint8_t sr_mask[] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e};
	static const uint8_t gr_mask[] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};

	bench_outb(b, 0x3c2, 0x63);
	ck_assert_uint_eq(bench_inb(b, 0x3cc), 0x63);
	for (uint8_t i = 0; i < 5; i++) {
		vga_sr(b, i, 0xff);
		ck_assert_uint_eq(bench_inb(b, 0x3c5), sr_mask[i]);
	}
	for (uint8_t i = 0; i < 9; i++) {
		vga_gr(b, i, 0xff);
		ck_assert_uint_eq(bench_inb(b, 0x3cf), gr_mask[i]);
	}
	vga_cr(b, 0x11, 0);
	for (uint8_t i = 0; i < 25; i++) {
		vga_cr(b, i, (uint8_t)(0x7f - i));
		ck_assert_uint_eq(bench_inb(b, 0x3d5), 0x7fu - i);
	}
	/* Attribute controller: index and data through one port, the flip-flop cleared by reading 3DAh. */
	bench_inb(b, 0x3da);
	bench_outb(b, 0x3c0, 0x05);
	bench_outb(b, 0x3c0, 0x2a);
	bench_outb(b, 0x3c0, 0x25);
	ck_assert_uint_eq(bench_inb(b, 0x3c1), 0x2a);
	ck_assert_uint_eq(bench_inb(b, 0x3c0), 0x25);
	bench_inb(b, 0x3da);
	bench_outb(b, 0x3c0, 0x06); /* an index again */
	ck_assert_uint_eq(bench_inb(b, 0x3c0), 0x06);
}
END_TEST

START_TEST(crtc_write_protection)
{
	vga_set_mode(b, &mode_03); /* its CR11 protects */
	vga_cr(b, 0x01, 0x11);
	ck_assert_uint_eq(bench_inb(b, 0x3d5), 0x4f);
	vga_cr(b, 0x07, 0xe0);
	ck_assert_uint_eq(bench_inb(b, 0x3d5), 0x0f); /* only the line compare bit changed */
	vga_cr(b, 0x11, 0x0e);
	vga_cr(b, 0x01, 0x11);
	ck_assert_uint_eq(bench_inb(b, 0x3d5), 0x11);
}
END_TEST

START_TEST(mono_and_colour_addresses)
{
	bench_outb(b, 0x3c2, 0x67);
	bench_outw(b, 0x3d4, 0x5a0e);
	ck_assert_uint_eq(bench_inb(b, 0x3b5), 0xff);
	bench_outb(b, 0x3c2, 0x66);
	ck_assert_uint_eq(bench_inb(b, 0x3d5), 0xff);
	bench_outb(b, 0x3b4, 0x0e);
	ck_assert_uint_eq(bench_inb(b, 0x3b5), 0x5a);
}
END_TEST

START_TEST(dac_ports)
{
	vga_color(b, 7, 1, 2, 0xff);
	bench_outb(b, 0x3c7, 7);
	ck_assert_uint_eq(bench_inb(b, 0x3c7), 3);
	ck_assert_uint_eq(bench_inb(b, 0x3c9), 1);
	ck_assert_uint_eq(bench_inb(b, 0x3c9), 2);
	ck_assert_uint_eq(bench_inb(b, 0x3c9), 0x3f); /* six bits */
	bench_outb(b, 0x3c8, 0xff);
	ck_assert_uint_eq(bench_inb(b, 0x3c7), 0);
	for (int i = 0; i < 6; i++) /* wraps to entry 0 */
		bench_outb(b, 0x3c9, (uint8_t)(10 + i));
	bench_outb(b, 0x3c7, 0);
	ck_assert_uint_eq(bench_inb(b, 0x3c9), 13);
	/* An unfinished colour is dropped. */
	bench_outb(b, 0x3c8, 7);
	bench_outb(b, 0x3c9, 0x30);
	bench_outb(b, 0x3c7, 7);
	ck_assert_uint_eq(bench_inb(b, 0x3c9), 1);
}
END_TEST

START_TEST(retrace_timing_is_70_hz)
{
	unsigned frames = 0, in_retrace = 0, blank = 0, n = 100000;
	bool last = false;

	vga_set_mode(b, &mode_03);
	for (unsigned i = 0; i < n; i++) { /* one second in steps of 10 us */
		uint8_t v = bench_inb(b, 0x3da);

		frames += (v & 8) && !last;
		last = v & 8;
		in_retrace += last;
		blank += v & 1;
		if (v & 8)
			ck_assert(v & 1);
		bench_step(b, 10 * NS_PER_US);
	}
	ck_assert_uint_ge(frames, 69);
	ck_assert_uint_le(frames, 71);
	ck_assert_uint_ge(in_retrace, n / 400); /* 2 of 449 lines */
	ck_assert_uint_le(in_retrace, n / 150);
	ck_assert_uint_ge(blank, n / 5); /* a fifth of each line and 49 lines */
	ck_assert_uint_le(blank, n / 2);
}
END_TEST

/* ---- display memory against a model written from the data sheet, bit by bit ---- */

struct model {
	uint8_t plane[4][65536], latch[4];
	uint8_t sr2, sr4, gr[9];
};

static bool model_decode(const struct model *m, uint32_t addr, uint32_t *a)
{
	static const uint32_t base[] = {0xa0000, 0xa0000, 0xb0000, 0xb8000}, size[] = {131072, 65536, 32768, 32768};
	unsigned map = m->gr[6] >> 2;

	*a = addr - base[map];
	return addr >= base[map] && *a < size[map];
}

static uint8_t model_read(struct model *m, uint32_t addr)
{
	uint32_t a, at;
	unsigned plane = m->gr[4];
	uint8_t v = 0;

	if (!model_decode(m, addr, &a))
		return 0xff;
	at = a;
	if (m->sr4 & 8) {
		plane = a % 4;
		at = a / 4;
	} else if (m->gr[5] & 0x10) {
		plane = (m->gr[4] & 2) + a % 2;
		if (m->gr[6] & 2)
			at = a - a % 2;
	}
	at %= 65536;
	for (int p = 0; p < 4; p++)
		m->latch[p] = m->plane[p][at];
	if (!(m->gr[5] & 8))
		return m->latch[plane];
	for (int bit = 0; bit < 8; bit++) {
		bool same = true;

		for (int p = 0; p < 4; p++)
			if (m->gr[7] >> p & 1 && (m->latch[p] >> bit & 1) != (m->gr[2] >> p & 1))
				same = false;
		v |= (uint8_t)(same << bit);
	}
	return v;
}

static bool model_bit(const struct model *m, int p, int bit, uint8_t value)
{
	int rotated_bit = (bit + (m->gr[3] & 7)) % 8;
	bool latch = m->latch[p] >> bit & 1, set = m->gr[0] >> p & 1, in, mask = m->gr[8] >> bit & 1;

	switch (m->gr[5] & 3) {
	case 0:
		in = m->gr[1] >> p & 1 ? set : value >> rotated_bit & 1;
		break;
	case 1:
		return latch;
	case 2:
		in = value >> p & 1;
		break;
	default:
		in = set;
		mask = mask && (value >> rotated_bit & 1);
	}
	switch (m->gr[3] >> 3 & 3) {
	case 1:
		in = in && latch;
		break;
	case 2:
		in = in || latch;
		break;
	case 3:
		in = in != latch;
		break;
	}
	return mask ? in : latch;
}

static void model_write(struct model *m, uint32_t addr, uint8_t value)
{
	uint32_t a, at;

	if (!model_decode(m, addr, &a))
		return;
	for (unsigned p = 0; p < 4; p++) {
		uint8_t byte = 0;

		if (!(m->sr2 >> p & 1))
			continue;
		at = a;
		if (m->sr4 & 8) {
			if (p != a % 4)
				continue;
			at = a / 4;
		} else {
			if (!(m->sr4 & 4) && p % 2 != a % 2)
				continue;
			if (m->gr[6] & 2)
				at = a - a % 2;
		}
		for (int bit = 0; bit < 8; bit++)
			byte |= (uint8_t)(model_bit(m, (int)p, bit, value) << bit);
		m->plane[p][at % 65536] = byte;
	}
}

static uint8_t pick(const uint8_t *values, unsigned n)
{
	return values[(unsigned)rand() % n];
}

/* Half of the settings are those of everyday modes, so that the windows mapped as RAM are met often. */
static void random_settings(struct model *m)
{
	bool plain = rand() % 2;

	m->sr2 = plain ? pick((const uint8_t[]){0x0f, 0x03}, 2) : (uint8_t)rand() & 0x0f;
	m->sr4 = pick((const uint8_t[]){0x02, 0x06, 0x0e}, 3);
	m->gr[0] = (uint8_t)rand() & 0x0f;
	m->gr[1] = plain ? 0 : (uint8_t)rand() & 0x0f;
	m->gr[2] = (uint8_t)rand() & 0x0f;
	m->gr[3] = plain ? 0 : (uint8_t)rand() & 0x1f;
	m->gr[4] = plain ? 0 : (uint8_t)rand() & 0x03;
	m->gr[5] = plain ? pick((const uint8_t[]){0x00, 0x10}, 2) : (uint8_t)rand() & 0x1b;
	m->gr[6] = (uint8_t)rand() & 0x0f;
	m->gr[7] = (uint8_t)rand() & 0x0f;
	m->gr[8] = plain ? 0xff : (uint8_t)rand();
	vga_sr(b, 2, m->sr2);
	vga_sr(b, 4, m->sr4);
	for (uint8_t i = 0; i < 9; i++)
		vga_gr(b, i, m->gr[i]);
}

/* An address inside the window (mostly low, so that accesses meet). */
static uint32_t random_address(const struct model *m)
{
	static const uint32_t base[] = {0xa0000, 0xa0000, 0xb0000, 0xb8000}, size[] = {131072, 65536, 32768, 32768};
	unsigned map = m->gr[6] >> 2;
	uint32_t span = rand() % 4 ? 256 : size[map];

	return base[map] + (uint32_t)rand() % span;
}

static void compare_planes(struct model *m)
{
	static uint8_t buf[65536];

	vga_sr(b, 4, 0x06);
	vga_gr(b, 5, 0x00);
	vga_gr(b, 6, 0x05);
	for (uint8_t p = 0; p < 4; p++) {
		vga_gr(b, 4, p);
		bench_read(b, 0xa0000, buf, sizeof(buf));
		for (unsigned i = 0; i < sizeof(buf); i++)
			if (buf[i] != m->plane[p][i])
				ck_abort_msg("plane %u byte %04x is %02x, the model has %02x", p, i, buf[i],
					     m->plane[p][i]);
	}
}

static void check_against_model(unsigned seed, bool save)
{
	struct model *m = calloc(1, sizeof(*m));

	srand(seed);
	vga_set_mode(b, &mode_12);
	for (int round = 0; round < 400; round++) {
		random_settings(m);
		/* Windows that are RAM do not load the latches: start each round with the same ones. */
		uint8_t gr5 = m->gr[5], gr8 = m->gr[8];
		uint32_t at = random_address(m);

		m->gr[5] |= 0x08;
		vga_gr(b, 5, m->gr[5]);
		ck_assert_uint_eq(bench_readb(b, at), model_read(m, at));
		m->gr[5] = gr5;
		vga_gr(b, 5, gr5);
		m->gr[8] = gr8;
		for (int i = 0; i < 30; i++) {
			uint8_t v = (uint8_t)rand();
			bool reads = rand() % 3 == 0;

			at = random_address(m);
			if (reads && (m->gr[1] || m->gr[3] || m->gr[8] != 0xff || (m->gr[5] & 0x0b))) {
				uint8_t got = bench_readb(b, at), want = model_read(m, at);

				ck_assert_msg(got == want, "seed %u round %d: read %05x is %02x, want %02x", seed,
					      round, at, got, want);
			} else {
				bench_writeb(b, at, v);
				model_write(m, at, v);
			}
		}
		if (save && round % 100 == 50)
			b = bench_save_load(b);
	}
	compare_planes(m);
	free(m);
}

START_TEST(memory_follows_the_model)
{
	for (unsigned seed = 1; seed <= 8; seed++) {
		check_against_model(seed, false);
		bench_free(b);
		setup();
	}
}
END_TEST

START_TEST(memory_follows_the_model_across_migration)
{
	check_against_model(99, true);
}
END_TEST

START_TEST(wide_accesses_are_bytes_in_order)
{
	vga_set_mode(b, &mode_12);
	bench_writel(b, 0xa0010, 0x44332211);
	ck_assert_uint_eq(bench_readb(b, 0xa0010), 0x11);
	ck_assert_uint_eq(bench_readl(b, 0xa0010), 0x44332211);
	ck_assert_uint_eq(bench_readw(b, 0xa0012), 0x4433);
	bench_outb(b, 0x3c2, 0xe1); /* display RAM disabled for the CPU */
	ck_assert_uint_eq(bench_readl(b, 0xa0010), 0xffffffff);
	bench_writel(b, 0xa0010, 0);
	bench_outb(b, 0x3c2, 0xe3);
	ck_assert_uint_eq(bench_readl(b, 0xa0010), 0x44332211);
}
END_TEST

/* Text written in text mode is where planar access finds it, and the other way round: the shadow moves. */
START_TEST(text_is_in_planes_0_and_1)
{
	vga_set_mode(b, &mode_03);
	bench_writew(b, 0xb8000, 0x1f41);
	bench_writew(b, 0xb8f9e, 0x7042);
	vga_sr(b, 4, 0x06);
	vga_gr(b, 5, 0x00);
	vga_gr(b, 6, 0x04);
	ck_assert_uint_eq(bench_readb(b, 0xa0000), 0x41);
	ck_assert_uint_eq(bench_readb(b, 0xa0f9e), 0x42);
	vga_gr(b, 4, 1);
	ck_assert_uint_eq(bench_readb(b, 0xa0000), 0x1f);
	vga_sr(b, 2, 0x02);
	bench_writeb(b, 0xa0000, 0x2e);
	vga_set_mode(b, &mode_03);
	ck_assert_uint_eq(bench_readw(b, 0xb8000), 0x2e41);
	b = bench_save_load(b);
	ck_assert_uint_eq(bench_readw(b, 0xb8000), 0x2e41);
	ck_assert_uint_eq(bench_readw(b, 0xb8f9e), 0x7042);
	bench_reset(b);
	vga_set_mode(b, &mode_03);
	ck_assert_uint_eq(bench_readw(b, 0xb8f9e), 0x7042); /* a reset does not clear display memory */
}
END_TEST

START_TEST(dispi_registers)
{
	ck_assert_uint_eq(dispi_get(0), 0xb0c5);
	dispi(0, 0xb0c2);
	ck_assert_uint_eq(dispi_get(0), 0xb0c2);
	dispi(0, 0x1234);
	ck_assert_uint_eq(dispi_get(0), 0xb0c2);
	ck_assert_uint_eq(dispi_get(10), 256); /* 64 KiB units */
	dispi(4, 2);                           /* capabilities */
	ck_assert_uint_eq(dispi_get(1), 16000);
	ck_assert_uint_eq(dispi_get(2), 12000);
	ck_assert_uint_eq(dispi_get(3), 32);
	dispi(4, 0);
	dispi(1, 1024);
	dispi(2, 768);
	dispi(3, 32);
	dispi(4, 0x41);
	ck_assert_uint_eq(dispi_get(6), 1024);
	ck_assert_uint_eq(dispi_get(7), 4096);
	dispi(6, 2048);
	ck_assert_uint_eq(dispi_get(7), 2048);
	dispi(9, 1280);
	ck_assert_uint_eq(dispi_get(9), 1280);
	dispi(9, 1281); /* beyond memory */
	ck_assert_uint_eq(dispi_get(9), 0);
	/* The same registers in BAR 2, and the extended ones. */
	ck_assert_uint_eq(bench_readw(b, MMIO + 0x500 + 2 * 1), 1024);
	bench_writew(b, MMIO + 0x500 + 2 * 9, 77);
	ck_assert_uint_eq(dispi_get(9), 77);
	ck_assert_uint_eq(bench_readl(b, MMIO + 0x600), 8);
	ck_assert_uint_eq(bench_readl(b, MMIO + 0x604), 0x1e1e1e1e);
	bench_writew(b, MMIO + 0x404, 0x0502); /* 3C4h: map mask */
	ck_assert_uint_eq(bench_readb(b, MMIO + 0x405), 0x05);
	ck_assert_uint_eq(bench_inb(b, 0x3c5), 0x05);
}
END_TEST

START_TEST(hostile_dispi_values_stay_inside_vram)
{
	srand(5);
	for (int i = 0; i < 3000; i++) {
		uint16_t v = (uint16_t)(rand() % 4 ? rand() : rand() % 64);

		dispi((uint16_t)(rand() % 11), v);
		if (i % 10 == 0)
			console_refresh(console_first(), false);
		bench_writel(b, 0xa0000 + (uint32_t)rand() % 0x20000, 0x12345678);
	}
	b = bench_save_load(b);
	console_refresh(console_first(), true);
}
END_TEST

START_TEST(banks_are_windows_into_linear_memory)
{
	dispi(1, 640);
	dispi(2, 480);
	dispi(3, 8);
	dispi(4, 0x41);
	for (unsigned bank = 0; bank < 256; bank += 51) {
		dispi(5, (uint16_t)bank);
		ck_assert_uint_eq(dispi_get(5), bank);
		bench_writel(b, 0xa1230, 0xcafe0000 + bank);
	}
	for (unsigned bank = 0; bank < 256; bank += 51)
		ck_assert_uint_eq(bench_readl(b, LFB + (bank << 16) + 0x1230), 0xcafe0000 + bank);
	dispi(5, 256); /* no such bank: the window stays */
	ck_assert_uint_eq(dispi_get(5), 255);
	ck_assert_uint_eq(bench_readl(b, 0xa1230), 0xcafe0000 + 255);
	ck_assert_uint_eq(bench_readl(b, 0xb8000), 0xffffffff);
	/* Enabling clears the screen unless told not to. */
	bench_writel(b, LFB + 100, 0x55555555);
	dispi(4, 0);
	dispi(4, 0xc1);
	ck_assert_uint_eq(bench_readl(b, LFB + 100), 0x55555555);
	dispi(4, 0);
	dispi(4, 0x41);
	ck_assert_uint_eq(bench_readl(b, LFB + 100), 0);
}
END_TEST

START_TEST(registers_survive_migration)
{
	vga_set_mode(b, &mode_13);
	for (unsigned i = 0; i < 64000; i++)
		bench_writeb(b, 0xa0000 + i, (uint8_t)(i * 7));
	bench_outb(b, 0x3c8, 9);
	bench_outb(b, 0x3c9, 1);
	bench_outb(b, 0x3c9, 2); /* the third component comes after the migration */
	b = bench_save_load(b);
	bench_outb(b, 0x3c9, 3);
	bench_outb(b, 0x3c7, 9);
	ck_assert_uint_eq(bench_inb(b, 0x3c9), 1);
	ck_assert_uint_eq(bench_inb(b, 0x3c9), 2);
	ck_assert_uint_eq(bench_inb(b, 0x3c9), 3);
	ck_assert_uint_eq(bench_readb(b, 0xa0000 + 63999), (uint8_t)(63999 * 7));
	vga_check_size(640, 400);
	vga_check_pixel(2 * 100, 2 * 50, vga_test_color((uint8_t)((50 * 320 + 100) * 7)));
	ck_assert_uint_eq(bench_readl(b, LFB), 0x150e0700);
}
END_TEST

START_TEST(memory_size_option)
{
	bench_free(b);
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-m 16 -vga none -device VGA,vgamem_mb=3"), "power of two"));
	b = bench_new("-m 16 -vga none -device VGA,vgamem_mb=64,addr=0x5");
	bench_pci_writel(b, 5 << 3, 0x10, ~0u);
	ck_assert_uint_eq(bench_pci_readl(b, 5 << 3, 0x10), 0xfc000008);
	ck_assert_uint_eq(dispi_get(10), 1024);
	bench_free(b);
	b = bench_new("-m 16 -vga none");
	ck_assert_ptr_null(console_first());
	ck_assert_uint_eq(bench_inb(b, 0x3cc), 0xff);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("vga");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, pci_identity);
	tcase_add_test(t, registers_read_back);
	tcase_add_test(t, crtc_write_protection);
	tcase_add_test(t, mono_and_colour_addresses);
	tcase_add_test(t, dac_ports);
	tcase_add_test(t, retrace_timing_is_70_hz);
	tcase_add_test(t, memory_follows_the_model);
	tcase_add_test(t, memory_follows_the_model_across_migration);
	tcase_add_test(t, wide_accesses_are_bytes_in_order);
	tcase_add_test(t, text_is_in_planes_0_and_1);
	tcase_add_test(t, dispi_registers);
	tcase_add_test(t, hostile_dispi_values_stay_inside_vram);
	tcase_add_test(t, banks_are_windows_into_linear_memory);
	tcase_add_test(t, registers_survive_migration);
	tcase_add_test(t, memory_size_option);
	tcase_set_timeout(t, 60);

	TCase *cases[] = {t, NULL};

	return run_suite("vga", cases);
}
