/* The small ports through which a guest talks to its host or resets itself: 92h, debugcon, isa-debug-exit, pvpanic. */
#include "bench.h"
#include "vmm/chardev.h"

#include <string.h>

START_TEST(port_92_resets_on_a_rising_edge)
{
	struct board *b = bench_new("-m 16");

	bench_event(b, "RESET");
	ck_assert_uint_eq(bench_inb(b, 0x92), 0x02);
	bench_outb(b, 0x92, 0x00);
	ck_assert_uint_eq(bench_inb(b, 0x92), 0x00);
	b = bench_save_load(b);
	ck_assert_uint_eq(bench_inb(b, 0x92), 0x00);
	bench_event(b, "RESET");
	bench_outb(b, 0x92, 0x03);
	const char *data = bench_event(b, "RESET");
	ck_assert_ptr_nonnull(data);
	ck_assert_ptr_nonnull(strstr(data, "guest-reset"));
	ck_assert_uint_eq(bench_inb(b, 0x92), 0x02);
	bench_free(b);
}
END_TEST

static bool ring_has(void *opaque)
{
	char buf[64];
	size_t n = chardev_ring_read(chardev_find("c"), buf, sizeof(buf) - 1);

	buf[n] = '\0';
	strcat(opaque, buf);
	return strstr(opaque, "\n") != NULL;
}

START_TEST(debugcon_prints)
{
	struct board *b =
		bench_new("-m 16 -chardev ringbuf,id=c,size=1024 -device isa-debugcon,iobase=0x402,chardev=c");
	char got[256] = "";

	ck_assert_uint_eq(bench_inb(b, 0x402), 0xe9);
	for (const char *p = "Hello\n"; *p; p++)
		bench_outb(b, 0x402, *p);
	bench_wait(b, ring_has, got);
	ck_assert_str_eq(got, "Hello\n");
	bench_free(b);
}
END_TEST

START_TEST(debugcon_reads_what_it_is_told)
{
	struct board *b = bench_new("-m 16 -chardev null,id=c -device isa-debugcon,readback=0x5a,chardev=c");

	ck_assert_uint_eq(bench_inb(b, 0xe9), 0x5a);
	bench_free(b);
}
END_TEST

START_TEST(debugcon_needs_a_chardev)
{
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-m 16 -device isa-debugcon"), "chardev"));
}
END_TEST

START_TEST(debug_exit_ends_with_an_odd_status)
{
	struct board *b = bench_new("-m 16 -device isa-debug-exit,iobase=0xf4,iosize=4");

	ck_assert_uint_eq(bench_inb(b, 0xf4), 0);
	bench_outl(b, 0xf4, 0x10);
	bench_idle(b);
	ck_assert_int_eq(machine_exit_status(b), 0x21);
	bench_free(b);
}
END_TEST

START_TEST(debug_exit_stays_within_the_ports)
{
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-m 16 -device isa-debug-exit,iobase=0xffff"), "0xffff"));
}
END_TEST

START_TEST(pvpanic_reports)
{
	struct board *b = bench_new("-m 16 -device pvpanic -action panic=none");

	ck_assert_uint_eq(bench_inb(b, 0x505), 3);
	bench_outb(b, 0x505, 2);
	ck_assert_ptr_nonnull(bench_event(b, "GUEST_CRASHLOADED"));
	ck_assert_ptr_null(bench_event(b, "GUEST_PANICKED"));
	bench_outb(b, 0x505, 1);
	ck_assert_ptr_nonnull(bench_event(b, "GUEST_PANICKED"));
	bench_outb(b, 0x505, 0xfc); /* unknown bits */
	ck_assert_ptr_null(bench_event(b, "GUEST_PANICKED"));
	bench_free(b);
}
END_TEST

START_TEST(pvpanic_offers_what_it_is_told)
{
	struct board *b = bench_new("-m 16 -device pvpanic,ioport=0x5050,events=2 -action panic=none");

	ck_assert_uint_eq(bench_inb(b, 0x5050), 2);
	bench_outb(b, 0x5050, 1);
	ck_assert_ptr_null(bench_event(b, "GUEST_PANICKED"));
	bench_free(b);
}
END_TEST

START_TEST(pvpanic_pci_reports)
{
	struct board *b = bench_new("-m 16 -device pvpanic-pci,addr=5 -action panic=none");

	bench_pci_writel(b, 5 << 3, 0x10, 0xe0000000);
	bench_pci_writew(b, 5 << 3, 4, 2);
	bench_writeb(b, 0xe0000000, 1);
	ck_assert_ptr_nonnull(bench_event(b, "GUEST_PANICKED"));
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("hostports");

	tcase_add_test(t, port_92_resets_on_a_rising_edge);
	tcase_add_test(t, debugcon_prints);
	tcase_add_test(t, debugcon_reads_what_it_is_told);
	tcase_add_test(t, debugcon_needs_a_chardev);
	tcase_add_test(t, debug_exit_ends_with_an_odd_status);
	tcase_add_test(t, debug_exit_stays_within_the_ports);
	tcase_add_test(t, pvpanic_reports);
	tcase_add_test(t, pvpanic_offers_what_it_is_told);
	tcase_add_test(t, pvpanic_pci_reports);
	return run_suite("hostports", (TCase *[]){t, NULL});
}
