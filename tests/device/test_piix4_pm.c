/* PIIX4 power management and SMBus: what ACPI drivers, SeaBIOS and i2c-piix4 rely on. */
#include "bench.h"
#include "vmm/clock.h"

#include <string.h>

#define PM     (1 << 3 | 3)
#define BASE   0x600
#define STS    (BASE + 0)
#define EN     (BASE + 2)
#define CNT    (BASE + 4)
#define TMR    (BASE + 8)
#define SCI    9
#define TMROF  0x0001
#define PWRBTN 0x0100
#define WAK    0x8000

/* What SeaBIOS does: PM ports at 0x600, then ACPI mode. */
static struct board *pm_new(const char *options)
{
	struct board *b = bench_new(options);

	bench_pci_writel(b, PM, 0x40, BASE | 1);
	bench_pci_writeb(b, PM, 0x80, 1);
	bench_outb(b, 0xb2, 0xf1);
	return b;
}

START_TEST(ports_appear_where_pmbase_says)
{
	struct board *b = bench_new("-m 16");

	ck_assert_uint_eq(bench_inw(b, CNT), 0xffff);
	bench_pci_writel(b, PM, 0x40, 0xffffffff);
	ck_assert_uint_eq(bench_pci_readl(b, PM, 0x40), 0x0000ffc1);
	bench_pci_writel(b, PM, 0x40, BASE | 1);
	ck_assert_uint_eq(bench_inw(b, CNT), 0xffff);
	bench_pci_writeb(b, PM, 0x80, 1);
	ck_assert_uint_eq(bench_inw(b, CNT), 0);
	bench_pci_writel(b, PM, 0x40, 0xb001);
	ck_assert_uint_eq(bench_inw(b, CNT), 0xffff);
	ck_assert_uint_eq(bench_inw(b, 0xb004), 0);
	ck_assert_uint_eq(bench_pci_readb(b, PM, 0x5b) & 2, 2); /* no SMI handler to install */
	b = bench_save_load(b);
	ck_assert_uint_eq(bench_inw(b, 0xb004), 0);
	bench_reset(b);
	ck_assert_uint_eq(bench_inw(b, 0xb004), 0xffff);
	bench_free(b);
}
END_TEST

START_TEST(smi_command_switches_acpi_on_and_off)
{
	struct board *b = pm_new("-m 16");

	ck_assert_uint_eq(bench_inw(b, CNT) & 1, 1);
	bench_outb(b, 0xb2, 0xf0);
	ck_assert_uint_eq(bench_inw(b, CNT) & 1, 0);
	bench_outb(b, 0xb3, 0x12);
	ck_assert_uint_eq(bench_inb(b, 0xb2), 0xf0);
	ck_assert_uint_eq(bench_inb(b, 0xb3), 0x12);
	bench_free(b);
}
END_TEST

START_TEST(timer_counts_3_579545_mhz_in_24_bits)
{
	struct board *b = pm_new("-m 16");
	uint32_t start = bench_inl(b, TMR);

	bench_step(b, NS_PER_SEC);
	ck_assert_uint_eq((bench_inl(b, TMR) - start) & 0xffffff, 3579545);
	bench_step(b, 10 * NS_PER_SEC);
	ck_assert_uint_le(bench_inl(b, TMR), 0xffffff);
	uint32_t now = bench_inl(b, TMR);
	bench_outl(b, TMR, 0); /* read-only */
	ck_assert_uint_eq(bench_inl(b, TMR), now);
	b = bench_save_load(b);
	ck_assert_uint_eq(bench_inl(b, TMR), now);
	bench_free(b);
}
END_TEST

START_TEST(timer_overflow_raises_the_sci)
{
	struct board *b = pm_new("-m 16");

	bench_outw(b, STS, TMROF);
	bench_outw(b, EN, TMROF);
	ck_assert(!bench_gsi(b, SCI));
	/* bit 23 changes every 2.34 s */
	bench_step(b, 2343000000ull - clock_ns(VCLOCK_VIRTUAL));
	ck_assert(!bench_gsi(b, SCI));
	bench_step(b, 2 * NS_PER_MS);
	ck_assert(bench_gsi(b, SCI));
	ck_assert_uint_eq(bench_inw(b, STS) & TMROF, TMROF);
	bench_outw(b, STS, TMROF);
	ck_assert(!bench_gsi(b, SCI));
	ck_assert_uint_eq(bench_inw(b, STS) & TMROF, 0);
	bench_step(b, 2400 * NS_PER_MS);
	ck_assert(bench_gsi(b, SCI));
	/* Without the enable bit the status is there all the same. */
	bench_outw(b, EN, 0);
	bench_outw(b, STS, TMROF);
	bench_step(b, 2400 * NS_PER_MS);
	ck_assert(!bench_gsi(b, SCI));
	ck_assert_uint_eq(bench_inw(b, STS) & TMROF, TMROF);
	bench_free(b);
}
END_TEST

START_TEST(power_button_raises_the_sci)
{
	struct board *b = pm_new("-m 16");

	bench_outw(b, EN, PWRBTN);
	machine_powerdown(b);
	bench_idle(b);
	ck_assert_ptr_nonnull(bench_event(b, "POWERDOWN"));
	ck_assert(bench_gsi(b, SCI));
	ck_assert_uint_eq(bench_inw(b, STS) & PWRBTN, PWRBTN);
	b = bench_save_load(b);
	ck_assert(bench_gsi(b, SCI));
	bench_outw(b, STS, PWRBTN);
	ck_assert(!bench_gsi(b, SCI));
	bench_free(b);
}
END_TEST

START_TEST(s5_powers_off)
{
	struct board *b = pm_new("-m 16 -no-shutdown");

	bench_outw(b, CNT, 0x0001);
	ck_assert_ptr_null(bench_event(b, "SHUTDOWN"));
	bench_outw(b, CNT, 0x2001);
	const char *data = bench_event(b, "SHUTDOWN");
	ck_assert_ptr_nonnull(data);
	ck_assert_ptr_nonnull(strstr(data, "guest-shutdown"));
	bench_free(b);
}
END_TEST

START_TEST(s3_suspends_and_the_power_button_wakes)
{
	struct board *b = pm_new("-m 16");

	bench_writel(b, 0x5000, 0xfeedface);
	bench_pci_writeb(b, 0, 0x59, 0x30); /* shadow RAM, kept through the sleep */
	bench_writel(b, 0xffff0, 0x12345678);
	bench_outw(b, CNT, 0x2401);
	bench_idle(b);
	ck_assert_ptr_nonnull(bench_event(b, "SUSPEND"));
	ck_assert_int_eq(machine_run_state(b), RUN_SUSPENDED);
	machine_powerdown(b);
	bench_idle(b);
	ck_assert_ptr_nonnull(bench_event(b, "WAKEUP"));
	/* The firmware sets up the chip again; the OS finds why it woke. */
	bench_pci_writel(b, PM, 0x40, BASE | 1);
	bench_pci_writeb(b, PM, 0x80, 1);
	ck_assert_uint_eq(bench_inw(b, STS) & (WAK | PWRBTN), WAK | PWRBTN);
	ck_assert_uint_eq(bench_readl(b, 0x5000), 0xfeedface);
	ck_assert_uint_eq(bench_readl(b, 0xffff0), 0x12345678);
	bench_outb(b, 0x70, 0x0f);
	ck_assert_uint_eq(bench_inb(b, 0x71), 0xfe);
	bench_outw(b, STS, 0xffff);
	ck_assert_uint_eq(bench_inw(b, STS), 0);
	bench_free(b);
}
END_TEST

START_TEST(sleep_states_can_be_taken_away)
{
	struct board *b = pm_new("-m 16 -no-shutdown -global PIIX4_PM.disable_s3=1 -global PIIX4_PM.s4_val=5");

	bench_outw(b, CNT, 0x2401);
	ck_assert_ptr_null(bench_event(b, "SUSPEND"));
	bench_outw(b, CNT, 0x2001 | 2 << 10);
	ck_assert_ptr_null(bench_event(b, "SUSPEND_DISK"));
	bench_outw(b, CNT, 0x2001 | 5 << 10);
	ck_assert_ptr_nonnull(bench_event(b, "SUSPEND_DISK"));
	bench_free(b);
}
END_TEST

START_TEST(gpe_block_is_write_one_to_clear)
{
	struct board *b = pm_new("-m 16");

	bench_outw(b, 0xafe2, 0x0006);
	ck_assert_uint_eq(bench_inl(b, 0xafe0), 0x00060000);
	bench_outw(b, 0xafe0, 0xffff);
	ck_assert_uint_eq(bench_inw(b, 0xafe0), 0);
	bench_reset(b);
	ck_assert_uint_eq(bench_inl(b, 0xafe0), 0);
	bench_free(b);
}
END_TEST

/* ---- SMBus, the way i2c-piix4 drives it ---- */

#define SMB 0xb100

static uint8_t transact(struct board *b, uint8_t address, uint8_t command, unsigned protocol)
{
	bench_outb(b, SMB + 0, 0x1e);
	bench_outb(b, SMB + 4, address);
	bench_outb(b, SMB + 3, command);
	bench_outb(b, SMB + 2, protocol << 2);
	bench_outb(b, SMB + 2, bench_inb(b, SMB + 2) | 0x40);
	uint8_t status = bench_inb(b, SMB + 0);
	ck_assert_uint_eq(status & 1, 0);
	bench_outb(b, SMB + 0, status);
	ck_assert_uint_eq(bench_inb(b, SMB + 0), 0);
	return status;
}

static uint8_t spd_byte(struct board *b, unsigned module, uint8_t offset)
{
	ck_assert_uint_eq(transact(b, (0x50 + module) << 1 | 1, offset, 2), 0x02);
	return bench_inb(b, SMB + 5);
}

START_TEST(smbus_registers_are_found)
{
	struct board *b = bench_new("-m 16");

	ck_assert_uint_eq(bench_pci_readw(b, PM, 0x90), SMB | 1);
	ck_assert_uint_eq(bench_pci_readb(b, PM, 0xd2), 0x09);
	ck_assert_uint_eq(bench_inb(b, SMB), 0);
	bench_free(b);
}
END_TEST

START_TEST(modules_describe_the_ram)
{
	struct board *b = bench_new("-m 384");
	uint64_t total = 0;

	for (unsigned m = 0; m < 8; m++) {
		if (transact(b, (0x50 + m) << 1 | 1, 0, 0) != 0x02)
			continue;
		uint8_t sum = 0;
		for (unsigned i = 0; i < 63; i++)
			sum += spd_byte(b, m, i);
		ck_assert_uint_eq(spd_byte(b, m, 63), sum);
		ck_assert_uint_eq(spd_byte(b, m, 2), 4);
		total += spd_byte(b, m, 5) * (spd_byte(b, m, 31) * 4 * MIB);
	}
	ck_assert_uint_eq(total, 384 * MIB);
	bench_free(b);
}
END_TEST

START_TEST(smbus_protocols_and_errors)
{
	struct board *b = bench_new("-m 16");

	ck_assert_uint_eq(transact(b, 0x50 << 1 | 1, 0, 3), 0x02); /* word */
	ck_assert_uint_eq(bench_inb(b, SMB + 5), 128);
	ck_assert_uint_eq(bench_inb(b, SMB + 6), 8);
	ck_assert_uint_eq(transact(b, 0x50 << 1, 2, 1), 0x02); /* send byte sets the pointer */
	ck_assert_uint_eq(transact(b, 0x50 << 1 | 1, 0, 1), 0x02);
	ck_assert_uint_eq(bench_inb(b, SMB + 5), 4);
	/* A block whose count (byte 1: 8) precedes it */
	ck_assert_uint_eq(transact(b, 0x50 << 1 | 1, 1, 5), 0x02);
	ck_assert_uint_eq(bench_inb(b, SMB + 5), 8);
	bench_inb(b, SMB + 2); /* rewinds */
	ck_assert_uint_eq(bench_inb(b, SMB + 7), 4);
	ck_assert_uint_eq(bench_inb(b, SMB + 7), 0x0d);
	/* Nobody there; a reserved protocol; a block count beyond 32 (byte 0: 128) */
	ck_assert_uint_eq(transact(b, 0x31 << 1 | 1, 0, 2), 0x04);
	ck_assert_uint_eq(transact(b, 0x50 << 1 | 1, 0, 6), 0x04);
	ck_assert_uint_eq(transact(b, 0x50 << 1 | 1, 0, 5), 0x04);
	/* Writes change nothing */
	bench_outb(b, SMB + 5, 0x99);
	ck_assert_uint_eq(transact(b, 0x50 << 1, 2, 2), 0x02);
	ck_assert_uint_eq(spd_byte(b, 0, 2), 4);
	bench_free(b);
}
END_TEST

START_TEST(smbus_interrupt_is_irq_9)
{
	struct board *b = bench_new("-m 16");

	bench_outb(b, SMB + 4, 0x50 << 1 | 1);
	bench_outb(b, SMB + 2, 0x40 | 0x01 | 2 << 2);
	ck_assert(bench_gsi(b, SCI));
	bench_outb(b, SMB + 0, 0x02);
	ck_assert(!bench_gsi(b, SCI));
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("piix4_pm");

	tcase_add_test(t, ports_appear_where_pmbase_says);
	tcase_add_test(t, smi_command_switches_acpi_on_and_off);
	tcase_add_test(t, timer_counts_3_579545_mhz_in_24_bits);
	tcase_add_test(t, timer_overflow_raises_the_sci);
	tcase_add_test(t, power_button_raises_the_sci);
	tcase_add_test(t, s5_powers_off);
	tcase_add_test(t, s3_suspends_and_the_power_button_wakes);
	tcase_add_test(t, sleep_states_can_be_taken_away);
	tcase_add_test(t, gpe_block_is_write_one_to_clear);
	tcase_add_test(t, smbus_registers_are_found);
	tcase_add_test(t, modules_describe_the_ram);
	tcase_add_test(t, smbus_protocols_and_errors);
	tcase_add_test(t, smbus_interrupt_is_irq_9);
	return run_suite("piix4_pm", (TCase *[]){t, NULL});
}
