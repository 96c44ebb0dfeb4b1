/* The chip set as direct boot leaves it, without a BIOS. */
#include "bench.h"
#include "src/machine/chipset.h"

START_TEST(functions_are_assigned_and_decode)
{
	struct board *b = bench_new("-m 16 -device pvpanic-pci,addr=4 -device pvpanic-pci,addr=9");

	chipset_setup(b);
	ck_assert_uint_eq(bench_pci_readl(b, 1 << 3, 0x60), 0x0b0b0a0a);
	ck_assert_uint_eq(bench_inb(b, 0x4d1), 0x0c);
	ck_assert_uint_eq(bench_inw(b, 0x604), 0); /* PM control */
	ck_assert_uint_eq(bench_pci_readb(b, 1 << 3 | 3, 0x3c), 9);
	for (unsigned slot = 4; slot <= 9; slot += 5) {
		uint32_t bar = bench_pci_readl(b, slot << 3, 0x10);
		ck_assert_uint_ge(bar, 0xe0000000);
		ck_assert_uint_eq(bench_readb(b, bar), 3);
	}
	ck_assert_uint_ne(bench_pci_readl(b, 4 << 3, 0x10), bench_pci_readl(b, 9 << 3, 0x10));
	/* DRAM where tables go */
	bench_writel(b, 0xf0000, 0x12345678);
	ck_assert_uint_eq(bench_readl(b, 0xf0000), 0x12345678);
	bench_writel(b, 0xe0000, 0x9abcdef0);
	ck_assert_uint_eq(bench_readl(b, 0xe0000), 0x9abcdef0);
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("chipset");

	tcase_add_test(t, functions_are_assigned_and_decode);
	return run_suite("chipset", (TCase *[]){t, NULL});
}
