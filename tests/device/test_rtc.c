/* The RTC and CMOS RAM as SeaBIOS, DOS and Linux use them. The bench's wall clock starts at 2001-09-09 01:46:40 UTC. */
#include "bench.h"
#include "vmm/cmos.h"

#include <errno.h>

enum { SEC, SEC_ALARM, MIN_, MIN_ALARM, HOUR, HOUR_ALARM, WDAY, MDAY, MONTH, YEAR, A, B, C, D, CENTURY = 0x32 };
enum { IRQ = 8 };

static uint8_t rtc_get(struct board *b, uint8_t reg)
{
	bench_outb(b, 0x70, reg);
	return bench_inb(b, 0x71);
}

static unsigned rtc_get16(struct board *b, uint8_t reg)
{
	unsigned low = rtc_get(b, reg);

	return low | (unsigned)rtc_get(b, (uint8_t)(reg + 1)) << 8;
}

static void rtc_put(struct board *b, uint8_t reg, uint8_t v)
{
	bench_outb(b, 0x70, reg);
	bench_outb(b, 0x71, v);
}

static void ck_time(struct board *b, unsigned h, unsigned m, unsigned s)
{
	ck_assert_msg(rtc_get(b, HOUR) == h && rtc_get(b, MIN_) == m && rtc_get(b, SEC) == s,
		      "the clock shows %02x:%02x:%02x, not %02x:%02x:%02x", rtc_get(b, HOUR), rtc_get(b, MIN_),
		      rtc_get(b, SEC), h, m, s);
}

static void ck_date(struct board *b, unsigned century, unsigned y, unsigned m, unsigned d, unsigned wday)
{
	ck_assert_msg(rtc_get(b, CENTURY) == century && rtc_get(b, YEAR) == y && rtc_get(b, MONTH) == m &&
			      rtc_get(b, MDAY) == d && rtc_get(b, WDAY) == wday,
		      "the date is %02x%02x-%02x-%02x, day %02x of the week", rtc_get(b, CENTURY), rtc_get(b, YEAR),
		      rtc_get(b, MONTH), rtc_get(b, MDAY), rtc_get(b, WDAY));
}

START_TEST(shows_utc_in_bcd)
{
	struct board *b = bench_new("-m 16");

	ck_assert_uint_eq(rtc_get(b, D), 0x80);
	ck_assert_uint_eq(rtc_get(b, A) & 0x7f, 0x26);
	ck_time(b, 0x01, 0x46, 0x40);
	ck_date(b, 0x20, 0x01, 0x09, 0x09, 1); /* a Sunday */
	bench_step(b, 20 * NS_PER_SEC);
	ck_time(b, 0x01, 0x47, 0x00);
	bench_free(b);
}
END_TEST

START_TEST(base_date)
{
	struct board *b = bench_new("-m 16 -rtc base=2024-02-28T23:59:58");

	ck_date(b, 0x20, 0x24, 0x02, 0x28, 4);
	bench_step(b, 3 * NS_PER_SEC);
	ck_time(b, 0x00, 0x00, 0x01);
	ck_date(b, 0x20, 0x24, 0x02, 0x29, 5);
	bench_step(b, 86400 * NS_PER_SEC);
	ck_date(b, 0x20, 0x24, 0x03, 0x01, 6);
	bench_free(b);
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-m 16 -rtc base=yesterday"), "yesterday"));
}
END_TEST

START_TEST(binary_and_12_hours)
{
	struct board *b = bench_new("-m 16 -rtc base=1999-12-31T23:59:59");

	rtc_put(b, B, 0x06);
	ck_time(b, 23, 59, 59);
	ck_date(b, 19, 99, 12, 31, 6);
	rtc_put(b, B, 0x04);
	ck_assert_uint_eq(rtc_get(b, HOUR), 0x80 | 11);
	rtc_put(b, B, 0x00);
	ck_assert_uint_eq(rtc_get(b, HOUR), 0x91);
	bench_step(b, NS_PER_SEC);
	ck_assert_uint_eq(rtc_get(b, HOUR), 0x12); /* midnight is 12 AM */
	ck_date(b, 0x20, 0x00, 0x01, 0x01, 7);
	rtc_put(b, HOUR, 0x92); /* noon */
	rtc_put(b, B, 0x02);
	ck_time(b, 0x12, 0x00, 0x00);
	bench_free(b);
}
END_TEST

/* Linux's mc146818_set_time(): SET, divider reset, registers, divider on, SET off. */
START_TEST(guest_sets_the_clock)
{
	struct board *b = bench_new("-m 16");
	static const uint8_t regs[][2] = {{YEAR, 0x30}, {MONTH, 0x12}, {MDAY, 0x31},    {HOUR, 0x23},
					  {MIN_, 0x59}, {SEC, 0x58},   {CENTURY, 0x20}, {WDAY, 0x03}};
	const char *event;

	rtc_put(b, B, 0x82);
	rtc_put(b, A, 0x76);
	for (size_t i = 0; i < ARRAY_SIZE(regs); i++)
		rtc_put(b, regs[i][0], regs[i][1]);
	bench_step(b, 5 * NS_PER_SEC);
	ck_time(b, 0x23, 0x59, 0x58);
	rtc_put(b, B, 0x02);
	rtc_put(b, A, 0x26);
	/* the first update half a second after the divider was let go */
	bench_step(b, 499 * NS_PER_MS);
	ck_time(b, 0x23, 0x59, 0x58);
	bench_step(b, 2 * NS_PER_MS);
	ck_time(b, 0x23, 0x59, 0x59);
	bench_step(b, NS_PER_SEC);
	ck_date(b, 0x20, 0x31, 0x01, 0x01, 4);
	event = bench_event(b, "RTC_CHANGE");
	ck_assert_ptr_nonnull(event);
	/* 2030-12-31 23:59:58 is 924991993 s after 2001-09-09 01:46:45 */
	ck_assert_msg(strstr(event, "\"offset\": 924991993"), "%s", event);
	bench_free(b);
}
END_TEST

START_TEST(running_clock_can_be_set_too)
{
	struct board *b = bench_new("-m 16");

	bench_step(b, 700 * NS_PER_MS);
	rtc_put(b, MIN_, 0x10);
	ck_time(b, 0x01, 0x10, 0x40);
	bench_step(b, 300 * NS_PER_MS);
	ck_time(b, 0x01, 0x10, 0x41);
	bench_free(b);
}
END_TEST

START_TEST(nonsense_is_normalised)
{
	struct board *b = bench_new("-m 16");

	for (unsigned reg = 0; reg < 0x80; reg++)
		rtc_put(b, (uint8_t)reg, 0xff);
	rtc_put(b, A, 0x26);
	rtc_put(b, B, 0x06);
	for (unsigned reg = 0; reg < 0x80; reg++)
		rtc_get(b, (uint8_t)reg);
	ck_assert(rtc_get(b, SEC) < 60 && rtc_get(b, HOUR) < 24 && rtc_get(b, MONTH) <= 12 && rtc_get(b, MDAY) <= 31);
	rtc_put(b, B, 0x86);
	rtc_put(b, MONTH, 2);
	rtc_put(b, MDAY, 30);
	rtc_put(b, YEAR, 23);
	rtc_put(b, CENTURY, 20);
	rtc_put(b, B, 0x06);
	ck_assert_uint_eq(rtc_get(b, MONTH), 3);
	ck_assert_uint_eq(rtc_get(b, MDAY), 2);
	bench_step(b, 100 * NS_PER_SEC);
	bench_free(b);
}
END_TEST

START_TEST(update_in_progress_precedes_the_update)
{
	struct board *b = bench_new("-m 16");

	ck_assert_uint_eq(rtc_get(b, A) & 0x80, 0);
	bench_step(b, NS_PER_SEC - 245 * NS_PER_US);
	ck_assert_uint_eq(rtc_get(b, A) & 0x80, 0);
	bench_step(b, 2 * NS_PER_US);
	ck_assert_uint_eq(rtc_get(b, A) & 0x80, 0x80);
	ck_time(b, 0x01, 0x46, 0x40);
	bench_step(b, 243 * NS_PER_US);
	ck_assert_uint_eq(rtc_get(b, A) & 0x80, 0);
	ck_time(b, 0x01, 0x46, 0x41);
	rtc_put(b, B, 0x82); /* no updates while SET */
	bench_step(b, NS_PER_SEC - 100 * NS_PER_US);
	ck_assert_uint_eq(rtc_get(b, A) & 0x80, 0);
	bench_free(b);
}
END_TEST

START_TEST(update_ended_interrupts_once_a_second)
{
	struct board *b = bench_new("-m 16");

	rtc_get(b, C);
	rtc_put(b, B, 0x12);
	bench_step(b, NS_PER_SEC);
	ck_assert(bench_gsi(b, IRQ));
	bench_step(b, 5 * NS_PER_SEC);
	ck_assert_msg(bench_gsi_edges(b, IRQ) == 1, "an interrupt not acknowledged was repeated");
	ck_assert_uint_eq(rtc_get(b, C) & 0xb0, 0x90);
	ck_assert(!bench_gsi(b, IRQ));
	ck_assert_uint_eq(rtc_get(b, C), 0x00);
	bench_step(b, NS_PER_SEC);
	ck_assert_uint_eq(bench_gsi_edges(b, IRQ), 1);
	bench_free(b);
}
END_TEST

START_TEST(flags_show_without_interrupts)
{
	struct board *b = bench_new("-m 16");

	rtc_get(b, C);
	bench_step(b, 1500 * NS_PER_MS);
	ck_assert_uint_eq(rtc_get(b, C), 0x50); /* UF and PF; the alarm is at 00:00:00 */
	ck_assert_uint_eq(rtc_get(b, C), 0x00);
	ck_assert_uint_eq(bench_gsi_edges(b, IRQ), 0);
	bench_free(b);
}
END_TEST

START_TEST(alarm_with_dont_care)
{
	struct board *b = bench_new("-m 16 -rtc base=2024-01-01T10:00:00");

	rtc_put(b, HOUR_ALARM, 0xc0);
	rtc_put(b, MIN_ALARM, 0x30);
	rtc_put(b, SEC_ALARM, 0x15);
	rtc_put(b, B, 0x22);
	rtc_get(b, C);
	bench_step(b, 1814 * NS_PER_SEC);
	ck_assert(!bench_gsi(b, IRQ));
	bench_step(b, NS_PER_SEC);
	ck_assert(bench_gsi(b, IRQ));
	ck_assert_uint_eq(rtc_get(b, C) & 0xa0, 0xa0);
	bench_step(b, 3600 * NS_PER_SEC);
	ck_assert(bench_gsi(b, IRQ));
	rtc_get(b, C);
	rtc_put(b, HOUR_ALARM, 0x09); /* tomorrow */
	bench_gsi_edges(b, IRQ);
	bench_step(b, 79199 * NS_PER_SEC);
	ck_assert_uint_eq(bench_gsi_edges(b, IRQ), 0);
	bench_step(b, NS_PER_SEC);
	ck_assert_uint_eq(bench_gsi_edges(b, IRQ), 1);
	rtc_get(b, C);
	rtc_put(b, HOUR_ALARM, 0xff); /* every second */
	rtc_put(b, MIN_ALARM, 0xff);
	rtc_put(b, SEC_ALARM, 0xff);
	bench_step(b, NS_PER_SEC);
	ck_assert_uint_eq(bench_gsi_edges(b, IRQ), 1);
	rtc_get(b, C);
	rtc_put(b, SEC_ALARM, 0x77); /* never */
	bench_step(b, 90000 * NS_PER_SEC);
	ck_assert_uint_eq(bench_gsi_edges(b, IRQ), 0);
	bench_free(b);
}
END_TEST

/* SeaBIOS's INT 15h AH=86h: 1024 Hz, PIE, read C in the handler. */
START_TEST(periodic_interrupts)
{
	struct board *b = bench_new("-m 16");
	unsigned n = 0;

	rtc_get(b, C);
	rtc_put(b, B, 0x42);
	for (unsigned i = 0; i < 1000; i++) {
		bench_step(b, NS_PER_MS);
		n += bench_gsi(b, IRQ);
		rtc_get(b, C);
	}
	ck_assert_msg(n >= 999, "%u of 1000 polls in a second saw the 1024 Hz interrupt", n);
	rtc_put(b, A, 0x2f); /* 2 Hz */
	rtc_get(b, C);
	bench_gsi_edges(b, IRQ);
	for (unsigned i = 0; i < 100; i++) {
		bench_step(b, 100 * NS_PER_MS);
		rtc_get(b, C);
	}
	ck_assert_uint_eq(bench_gsi_edges(b, IRQ), 20);
	rtc_put(b, A, 0x20); /* rate 0: none */
	bench_step(b, NS_PER_SEC);
	ck_assert_uint_eq(bench_gsi_edges(b, IRQ), 0);
	bench_free(b);
}
END_TEST

/* A guest that could not take its ticks for a while gets them later, faster, with driftfix=slew; without, they are
 * lost. */
START_TEST(slew_delivers_lost_ticks)
{
	for (int slew = 0; slew < 2; slew++) {
		struct board *b = bench_new(slew ? "-m 16 -rtc driftfix=slew" : "-m 16");
		unsigned n = 0;

		rtc_put(b, A, 0x2a); /* 64 Hz */
		rtc_get(b, C);
		rtc_put(b, B, 0x42);
		bench_step(b, NS_PER_SEC); /* asleep: 63 ticks missed */
		bench_gsi_edges(b, IRQ);
		for (unsigned i = 0; i < 3000; i++) {
			if (bench_gsi(b, IRQ)) {
				n++;
				rtc_get(b, C);
			}
			bench_step(b, NS_PER_MS);
		}
		/* four seconds have 256 ticks */
		if (slew)
			ck_assert_msg(n >= 254 && n <= 257, "%u ticks with slew", n);
		else
			ck_assert_msg(n >= 191 && n <= 194, "%u ticks without", n);
		bench_free(b);
	}
}
END_TEST

START_TEST(cmos_ram_survives_reset_and_interrupts_do_not)
{
	struct board *b = bench_new("-m 16");

	rtc_put(b, 0x0f, 0x05);
	rtc_put(b, 0x7f, 0xa5);
	rtc_put(b, B, 0x72);
	bench_step(b, 2 * NS_PER_SEC);
	ck_assert(bench_gsi(b, IRQ));
	bench_reset(b);
	ck_assert(!bench_gsi(b, IRQ));
	ck_assert_uint_eq(rtc_get(b, B), 0x02);
	ck_assert_uint_eq(rtc_get(b, 0x0f), 0x05);
	ck_assert_uint_eq(rtc_get(b, 0x80 | 0x7f), 0xa5); /* bit 7 is the NMI mask */
	ck_assert_uint_eq(bench_inb(b, 0x70), 0xff);
	ck_time(b, 0x01, 0x46, 0x42);
	bench_free(b);
}
END_TEST

START_TEST(state_survives)
{
	struct board *b = bench_new("-m 16 -rtc base=2040-06-01T12:00:00,clock=vm");

	rtc_put(b, A, 0x2f);
	rtc_put(b, B, 0x52);
	rtc_get(b, C);
	rtc_put(b, 0x40, 0x77);
	rtc_put(b, HOUR, 0x15);
	bench_step(b, 700 * NS_PER_MS);
	b = bench_save_load(b);
	ck_assert(bench_gsi(b, IRQ));
	rtc_get(b, C);
	ck_time(b, 0x15, 0x00, 0x00);
	ck_date(b, 0x20, 0x40, 0x06, 0x01, 6);
	bench_gsi_edges(b, IRQ);
	bench_step(b, 299 * NS_PER_MS);
	ck_assert_uint_eq(bench_gsi_edges(b, IRQ), 0);
	bench_step(b, NS_PER_MS);
	ck_assert_uint_eq(bench_gsi_edges(b, IRQ), 1);
	ck_assert_uint_eq(rtc_get(b, C), 0xd0);
	ck_assert_uint_eq(rtc_get(b, 0x40), 0x77);
	ck_time(b, 0x15, 0x00, 0x01);
	bench_free(b);
}
END_TEST

/* What SeaBIOS takes from CMOS. */
START_TEST(cmos_describes_the_machine)
{
	struct board *b = bench_new("-m 5120 -smp 3 -boot order=dac");

	ck_assert_uint_eq(rtc_get16(b, 0x15), 640);
	ck_assert_uint_eq(rtc_get16(b, 0x17), 65535);
	ck_assert_uint_eq(rtc_get16(b, 0x34) * 65536ull + 16 * MIB, board_ram_below_4g(b));
	ck_assert_uint_eq((rtc_get16(b, 0x5b) | (uint64_t)rtc_get(b, 0x5d) << 16) * 65536ull, board_ram_above_4g(b));
	ck_assert_uint_eq(rtc_get(b, 0x5f), 2);
	ck_assert_uint_eq(rtc_get(b, 0x3d), 0x13);
	ck_assert_uint_eq(rtc_get(b, 0x38), 0x20);
	ck_assert_uint_eq(rtc_get(b, 0x10), 0x00);
	ck_assert_uint_eq(rtc_get(b, 0x14) & 0x41, 0x00);
	ck_assert_int_eq(rtc_set_cmos(b, 0x0d, 1), -EINVAL);
	ck_assert_int_eq(rtc_set_cmos(b, 0x80, 1), -EINVAL);
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("rtc");

	tcase_add_test(t, shows_utc_in_bcd);
	tcase_add_test(t, base_date);
	tcase_add_test(t, binary_and_12_hours);
	tcase_add_test(t, guest_sets_the_clock);
	tcase_add_test(t, running_clock_can_be_set_too);
	tcase_add_test(t, nonsense_is_normalised);
	tcase_add_test(t, update_in_progress_precedes_the_update);
	tcase_add_test(t, update_ended_interrupts_once_a_second);
	tcase_add_test(t, flags_show_without_interrupts);
	tcase_add_test(t, alarm_with_dont_care);
	tcase_add_test(t, periodic_interrupts);
	tcase_add_test(t, slew_delivers_lost_ticks);
	tcase_add_test(t, cmos_ram_survives_reset_and_interrupts_do_not);
	tcase_add_test(t, state_survives);
	tcase_add_test(t, cmos_describes_the_machine);
	return run_suite("rtc", (TCase *[]){t, NULL});
}
