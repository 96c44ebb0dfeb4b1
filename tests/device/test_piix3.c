/* PIIX3's ISA bridge: interrupt routing registers and reset control. */
#include "bench.h"

#define PIIX3 (1 << 3)

START_TEST(registers_have_their_reset_values_and_masks)
{
	struct board *b = bench_new("-m 16");

	ck_assert_uint_eq(bench_pci_readl(b, PIIX3, 8), 0x06010000);
	ck_assert_uint_eq(bench_pci_readl(b, PIIX3, 4), 0x02000007);
	ck_assert_uint_eq(bench_pci_readl(b, PIIX3, 0x60), 0x80808080);
	ck_assert_uint_eq(bench_pci_readb(b, PIIX3, 0x4c), 0x4d);
	ck_assert_uint_eq(bench_pci_readw(b, PIIX3, 0x4e), 0x0003);
	ck_assert_uint_eq(bench_pci_readb(b, PIIX3, 0x69), 0x02);
	ck_assert_uint_eq(bench_pci_readb(b, PIIX3, 0xa0), 0x08);
	bench_pci_writel(b, PIIX3, 0x60, 0xffffffff);
	ck_assert_uint_eq(bench_pci_readl(b, PIIX3, 0x60), 0x8f8f8f8f);
	bench_pci_writew(b, PIIX3, 4, 0);
	ck_assert_uint_eq(bench_pci_readw(b, PIIX3, 4), 0x0007);
	bench_pci_writel(b, PIIX3, 0x60, 0x0b0a0b0a);
	b = bench_save_load(b);
	ck_assert_uint_eq(bench_pci_readl(b, PIIX3, 0x60), 0x0b0a0b0a);
	bench_reset(b);
	ck_assert_uint_eq(bench_pci_readl(b, PIIX3, 0x60), 0x80808080);
	bench_free(b);
}
END_TEST

START_TEST(reset_control_resets_on_rcpu)
{
	struct board *b = bench_new("-m 16");

	bench_event(b, "RESET");
	ck_assert_uint_eq(bench_inb(b, 0xcf9), 0);
	bench_outb(b, 0xcf9, 0x02);
	ck_assert_uint_eq(bench_inb(b, 0xcf9), 0x02);
	ck_assert_ptr_null(bench_event(b, "RESET"));
	bench_pci_writeb(b, PIIX3, 0x60, 5);
	bench_outb(b, 0xcf9, 0x06);
	ck_assert_ptr_nonnull(bench_event(b, "RESET"));
	ck_assert_uint_eq(bench_pci_readb(b, PIIX3, 0x60), 0x80);
	ck_assert_uint_eq(bench_inb(b, 0xcf9), 0);
	bench_free(b);
}
END_TEST

/* A dword at 0xCF8 covers port 0xCF9 and is CONFIG_ADDRESS all the same. */
START_TEST(configuration_address_does_not_reset)
{
	struct board *b = bench_new("-m 16");

	bench_event(b, "RESET");
	bench_outl(b, 0xcf8, 0x80000600);
	ck_assert_ptr_null(bench_event(b, "RESET"));
	ck_assert_uint_eq(bench_inl(b, 0xcf8), 0x80000600);
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("piix3");

	tcase_add_test(t, registers_have_their_reset_values_and_masks);
	tcase_add_test(t, reset_control_resets_on_rcpu);
	tcase_add_test(t, configuration_address_does_not_reset);
	return run_suite("piix3", (TCase *[]){t, NULL});
}
