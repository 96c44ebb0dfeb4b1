/* 82441FX: what lies between 0xA0000 and 1 MiB under each PAM and SMRAM setting. */
#include "bench.h"

#include <string.h>

#define SMRAM 0x72

static void pam(struct board *b, unsigned reg, uint8_t v)
{
	bench_pci_writeb(b, 0, reg, v);
}

START_TEST(rom_shows_below_one_mebibyte)
{
	struct board *b = bench_new("-m 16");
	uint8_t low[256], high[256];

	bench_read(b, 0xfff00, low, sizeof(low));
	bench_read(b, 0xffffff00, high, sizeof(high));
	ck_assert_mem_eq(low, high, sizeof(low));
	ck_assert_uint_eq(low[0xf0], 0xea); /* SeaBIOS's far jump at the reset vector */
	bench_read(b, 0xe0000, low, sizeof(low));
	bench_read(b, 0xfffe0000, high, sizeof(high));
	ck_assert_mem_eq(low, high, sizeof(low));
	/* ROM does not listen, nothing is at 0xC0000 */
	bench_writeb(b, 0xffff0, 0);
	ck_assert_uint_eq(bench_readb(b, 0xffff0), 0xea);
	bench_writeb(b, 0xc0000, 0x55);
	ck_assert_uint_eq(bench_readb(b, 0xc0000), 0xff);
	bench_free(b);
}
END_TEST

START_TEST(segments_go_to_dram_as_their_bits_say)
{
	static const struct {
		uint32_t base;
		uint8_t reg, shift;
	} segs[] = {{0xc0000, 0x5a, 0}, {0xc4000, 0x5a, 4}, {0xc8000, 0x5b, 0}, {0xcc000, 0x5b, 4}, {0xd0000, 0x5c, 0},
		    {0xd4000, 0x5c, 4}, {0xd8000, 0x5d, 0}, {0xdc000, 0x5d, 4}, {0xe0000, 0x5e, 0}, {0xe4000, 0x5e, 4},
		    {0xe8000, 0x5f, 0}, {0xec000, 0x5f, 4}, {0xf0000, 0x59, 4}};
	struct board *b = bench_new("-m 16");

	for (unsigned i = 0; i < ARRAY_SIZE(segs); i++) {
		uint32_t first = segs[i].base, last = i == 12 ? 0xfffff : first + 0x3fff;
		uint8_t pci_first = bench_readb(b, first), pci_last = bench_readb(b, last);

		pam(b, segs[i].reg, 3 << segs[i].shift); /* read and write DRAM */
		bench_writeb(b, first, 0x40 + i);
		bench_writeb(b, last, 0x80 + i);
		ck_assert_uint_eq(bench_readb(b, first), 0x40 + i);
		ck_assert_uint_eq(bench_readb(b, last), 0x80 + i);
		pam(b, segs[i].reg, 1 << segs[i].shift); /* write-protected */
		bench_writeb(b, first, 0);
		ck_assert_uint_eq(bench_readb(b, first), 0x40 + i);
		pam(b, segs[i].reg, 2 << segs[i].shift); /* writes go through to DRAM, reads to PCI */
		bench_writeb(b, first, 0x11);
		ck_assert_uint_eq(bench_readb(b, first), pci_first);
		ck_assert_uint_eq(bench_readb(b, last), pci_last);
		pam(b, segs[i].reg, 0);
		bench_writeb(b, first, 0x22);
		pam(b, segs[i].reg, 3 << segs[i].shift);
		ck_assert_uint_eq(bench_readb(b, first), 0x11);
		pam(b, segs[i].reg, 0);
	}
	bench_free(b);
}
END_TEST

/* How a BIOS of the time shadows itself: copy each byte onto itself, then read from DRAM. */
START_TEST(rom_copies_onto_itself)
{
	struct board *b = bench_new("-m 16");
	uint8_t rom[4096], shadow[4096];

	bench_read(b, 0xff000, rom, sizeof(rom));
	pam(b, 0x59, 0x20);
	for (uint32_t a = 0xff000; a < 0x100000; a += 4)
		bench_writel(b, a, bench_readl(b, a));
	pam(b, 0x59, 0x30);
	bench_writeb(b, 0xff000, rom[0] ^ 0xff);
	bench_read(b, 0xff000, shadow, sizeof(shadow));
	ck_assert_uint_eq(shadow[0], rom[0] ^ 0xff);
	ck_assert_mem_eq(shadow + 1, rom + 1, sizeof(rom) - 1);
	bench_free(b);
}
END_TEST

START_TEST(smram_opens_closes_and_locks)
{
	struct board *b = bench_new("-m 16");

	bench_pci_writeb(b, 0, SMRAM, 0x48); /* G_SMRAME, D_OPEN */
	ck_assert_uint_eq(bench_pci_readb(b, 0, SMRAM), 0x4a);
	bench_writel(b, 0xa8000, 0xdeadbeef);
	ck_assert_uint_eq(bench_readl(b, 0xa8000), 0xdeadbeef);
	bench_pci_writeb(b, 0, SMRAM, 0x08);
	ck_assert_uint_ne(bench_readl(b, 0xa8000), 0xdeadbeef);
	bench_pci_writeb(b, 0, SMRAM, 0x48);
	ck_assert_uint_eq(bench_readl(b, 0xa8000), 0xdeadbeef);
	bench_pci_writeb(b, 0, SMRAM, 0x58); /* D_LCK clears D_OPEN and stays */
	ck_assert_uint_eq(bench_pci_readb(b, 0, SMRAM), 0x1a);
	ck_assert_uint_ne(bench_readl(b, 0xa8000), 0xdeadbeef);
	bench_pci_writeb(b, 0, SMRAM, 0x48);
	ck_assert_uint_eq(bench_pci_readb(b, 0, SMRAM), 0x1a);
	b = bench_save_load(b);
	bench_pci_writeb(b, 0, SMRAM, 0x48);
	ck_assert_uint_eq(bench_pci_readb(b, 0, SMRAM), 0x1a);
	bench_reset(b);
	ck_assert_uint_eq(bench_pci_readb(b, 0, SMRAM), 0x02);
	bench_pci_writeb(b, 0, SMRAM, 0x48);
	ck_assert_uint_eq(bench_pci_readb(b, 0, SMRAM), 0x4a);
	bench_free(b);
}
END_TEST

START_TEST(windows_survive_save_and_not_reset)
{
	struct board *b = bench_new("-m 16");

	pam(b, 0x5a, 0x31);
	bench_writeb(b, 0xc4000, 0x66);
	b = bench_save_load(b);
	ck_assert_uint_eq(bench_readb(b, 0xc4000), 0x66);
	bench_writeb(b, 0xc0000, 1);
	ck_assert_uint_ne(bench_readb(b, 0xc0000), 1);
	bench_reset(b);
	ck_assert_uint_eq(bench_readb(b, 0xc4000), 0xff);
	ck_assert_uint_eq(bench_pci_readb(b, 0, 0x5a), 0);
	bench_free(b);
}
END_TEST

START_TEST(registers_have_their_reset_values_and_masks)
{
	struct board *b = bench_new("-m 16");

	ck_assert_uint_eq(bench_pci_readl(b, 0, 4), 0x02800006);
	ck_assert_uint_eq(bench_pci_readb(b, 0, 0x57), 0x01);
	ck_assert_uint_eq(bench_pci_readb(b, 0, 0x58), 0x10);
	ck_assert_uint_eq(bench_pci_readb(b, 0, 0x67), 2); /* 16 MiB in units of 8 */
	bench_pci_writew(b, 0, 4, 0);
	ck_assert_uint_eq(bench_pci_readw(b, 0, 4), 0x0006);
	bench_pci_writel(b, 0, 0x59, 0xffffffff);
	ck_assert_uint_eq(bench_pci_readb(b, 0, 0x59), 0x30);
	ck_assert_uint_eq(bench_pci_readb(b, 0, 0x5a), 0x33);
	bench_pci_writel(b, 0, 0, 0);
	ck_assert_uint_eq(bench_pci_readl(b, 0, 0), 0x12378086);
	ck_assert_uint_eq(bench_pci_readb(b, 0, 0x3d), 0);
	bench_free(b);
}
END_TEST

START_TEST(turbo_reset_control_resets)
{
	struct board *b = bench_new("-m 16");

	pam(b, 0x5a, 0x33);
	bench_event(b, "RESET");
	bench_pci_writeb(b, 0, 0x93, 0x06);
	ck_assert_ptr_nonnull(bench_event(b, "RESET"));
	ck_assert_uint_eq(bench_pci_readb(b, 0, 0x5a), 0);
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("i440fx");

	tcase_add_test(t, rom_shows_below_one_mebibyte);
	tcase_add_test(t, segments_go_to_dram_as_their_bits_say);
	tcase_add_test(t, rom_copies_onto_itself);
	tcase_add_test(t, smram_opens_closes_and_locks);
	tcase_add_test(t, windows_survive_save_and_not_reset);
	tcase_add_test(t, registers_have_their_reset_values_and_masks);
	tcase_add_test(t, turbo_reset_control_resets);
	return run_suite("i440fx", (TCase *[]){t, NULL});
}
