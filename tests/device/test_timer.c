/* The 8254 and port 61h: waveforms, latches, BCD, gates, IRQ 0; what Linux and SeaBIOS measure time with. */
#include "bench.h"

enum { CH0 = 0x40, CH1, CH2, CONTROL, PORT61 = 0x61 };

/* ns of n ticks of 1193182 Hz, rounded up: the first moment at which n have passed. */
static uint64_t ticks(uint64_t n)
{
	return (n * NS_PER_SEC + 1193181) / 1193182;
}

static void program(struct board *b, unsigned ch, unsigned mode, uint16_t count)
{
	bench_outb(b, CONTROL, (uint8_t)(ch << 6 | 0x30 | mode << 1));
	bench_outb(b, (uint16_t)(CH0 + ch), (uint8_t)count);
	bench_outb(b, (uint16_t)(CH0 + ch), (uint8_t)(count >> 8));
}

static uint16_t latched(struct board *b, unsigned ch)
{
	uint8_t low;

	bench_outb(b, CONTROL, (uint8_t)(ch << 6));
	low = bench_inb(b, (uint16_t)(CH0 + ch));
	return (uint16_t)(low | bench_inb(b, (uint16_t)(CH0 + ch)) << 8);
}

static uint16_t in16(struct board *b, uint16_t port)
{
	uint8_t low = bench_inb(b, port);

	return (uint16_t)(low | bench_inb(b, port) << 8);
}

static bool out2(struct board *b)
{
	return bench_inb(b, PORT61) & 0x20;
}

static uint8_t status(struct board *b, unsigned ch)
{
	bench_outb(b, CONTROL, (uint8_t)(0xe0 | 2u << ch));
	return bench_inb(b, (uint16_t)(CH0 + ch));
}

START_TEST(rate_generator_ticks)
{
	struct board *b = bench_new("-m 16");

	program(b, 0, 2, 11932); /* Linux, HZ=100 */
	bench_gsi_edges(b, 0);
	bench_step(b, ticks(11932) - 1);
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 0);
	bench_step(b, 1);
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 1);
	bench_step(b, NS_PER_SEC);
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 99); /* 99.998 Hz, and a bit less than a period had passed */
	bench_free(b);
}
END_TEST

START_TEST(square_wave_ticks_at_18_2_hz)
{
	struct board *b = bench_new("-m 16");

	program(b, 0, 3, 0); /* BIOS */
	bench_gsi_edges(b, 0);
	bench_step(b, 10 * NS_PER_SEC);
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 182);
	bench_free(b);
}
END_TEST

START_TEST(one_shot_interrupts_once)
{
	struct board *b = bench_new("-m 16");

	program(b, 0, 0, 1000);
	bench_gsi_edges(b, 0);
	bench_step(b, ticks(1000) - 1);
	ck_assert(!bench_gsi(b, 0));
	bench_step(b, 1);
	ck_assert(bench_gsi(b, 0));
	bench_step(b, NS_PER_SEC);
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 1);
	/* Linux's oneshot clockevent writes only a new count in mode 4 */
	program(b, 0, 4, 500);
	bench_gsi_edges(b, 0);
	bench_step(b, ticks(501));
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 1);
	bench_outb(b, CH0, 0x00);
	bench_outb(b, CH0, 0x10);
	bench_step(b, ticks(4096));
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 0);
	bench_step(b, ticks(2));
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 1);
	bench_free(b);
}
END_TEST

START_TEST(counts_down_and_latches)
{
	struct board *b = bench_new("-m 16");

	program(b, 0, 2, 10000);
	bench_step(b, ticks(1));
	ck_assert_uint_eq(latched(b, 0), 9999);
	bench_outb(b, CONTROL, 0x00);
	bench_step(b, ticks(5000));
	ck_assert_uint_eq(in16(b, CH0), 9999);
	ck_assert_uint_eq(latched(b, 0) / 10, 499);
	/* the live counter, low byte then high byte */
	program(b, 0, 0, 0x1234);
	bench_step(b, ticks(0x34));
	ck_assert_uint_eq(bench_inb(b, CH0), 0x00);
	ck_assert_uint_eq(bench_inb(b, CH0), 0x12);
	bench_free(b);
}
END_TEST

START_TEST(single_byte_access_and_bcd)
{
	struct board *b = bench_new("-m 16");

	bench_outb(b, CONTROL, 0x10); /* LSB only, mode 0 */
	bench_outb(b, CH0, 0x80);
	bench_step(b, ticks(0x10));
	ck_assert_uint_eq(bench_inb(b, CH0), 0x70);
	bench_outb(b, CONTROL, 0x20); /* MSB only */
	bench_outb(b, CH0, 0x80);
	bench_step(b, ticks(0x100));
	ck_assert_uint_eq(bench_inb(b, CH0), 0x7f);
	bench_outb(b, CONTROL, 0x35); /* mode 2, BCD */
	bench_outb(b, CH0, 0x00);
	bench_outb(b, CH0, 0x10); /* 1000 */
	bench_step(b, ticks(1));
	ck_assert_uint_eq(latched(b, 0), 0x0999);
	bench_gsi_edges(b, 0);
	bench_step(b, ticks(999));
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 1);
	bench_free(b);
}
END_TEST

START_TEST(read_back_gives_status_and_count)
{
	struct board *b = bench_new("-m 16");

	bench_outb(b, CONTROL, 0x34);
	ck_assert_uint_eq(status(b, 0), 0xf4); /* OUT high, null count */
	bench_outb(b, CH0, 0xe8);
	ck_assert_uint_eq(status(b, 0), 0xf4);
	bench_outb(b, CH0, 0x03);
	ck_assert_uint_eq(status(b, 0), 0xb4);
	program(b, 0, 0, 100);
	ck_assert_uint_eq(status(b, 0), 0x30);
	bench_step(b, ticks(100));
	ck_assert_uint_eq(status(b, 0), 0xb0);
	/* both at once: status first; a second latch before reading changes nothing */
	program(b, 0, 2, 1000);
	bench_step(b, ticks(10));
	bench_outb(b, CONTROL, 0xc2);
	bench_step(b, ticks(10));
	bench_outb(b, CONTROL, 0xc2);
	ck_assert_uint_eq(bench_inb(b, CH0), 0xb4);
	ck_assert_uint_eq(in16(b, CH0), 990);
	ck_assert_uint_eq(bench_inb(b, CONTROL), 0xff);
	bench_free(b);
}
END_TEST

/* Linux's pit_calibrate_tsc() and SeaBIOS: mode 0 on channel 2, port 61h bit 5 rises when the count is done. */
START_TEST(channel_2_calibrates)
{
	struct board *b = bench_new("-m 16");

	bench_outb(b, PORT61, (uint8_t)((bench_inb(b, PORT61) & ~0x02) | 0x01));
	program(b, 2, 0, 59659); /* 50 ms */
	ck_assert(!out2(b));
	bench_step(b, ticks(59659) - 1);
	ck_assert(!out2(b));
	bench_step(b, 1);
	ck_assert(out2(b));
	ck_assert_msg(!bench_gsi(b, 0), "channel 2 drove IRQ 0");
	bench_free(b);
}
END_TEST

START_TEST(gate_stops_and_restarts)
{
	struct board *b = bench_new("-m 16");

	ck_assert_uint_eq(bench_inb(b, PORT61) & 1, 0);
	program(b, 2, 0, 1000); /* gate low: waits */
	bench_step(b, ticks(5000));
	ck_assert(!out2(b));
	ck_assert_uint_eq(latched(b, 2), 1000);
	bench_outb(b, PORT61, 0x01);
	bench_step(b, ticks(400));
	bench_outb(b, PORT61, 0x00);
	bench_step(b, ticks(5000));
	ck_assert_uint_eq(latched(b, 2), 600);
	bench_outb(b, PORT61, 0x01);
	bench_step(b, ticks(600));
	ck_assert(out2(b));
	/* mode 3: low gate forces OUT high, its rise starts the cycle */
	program(b, 2, 3, 1000);
	bench_step(b, ticks(600));
	ck_assert(!out2(b));
	bench_outb(b, PORT61, 0x00);
	ck_assert(out2(b));
	bench_step(b, ticks(123456));
	bench_outb(b, PORT61, 0x01);
	ck_assert_uint_eq(latched(b, 2), 1000);
	bench_step(b, ticks(501));
	ck_assert(!out2(b));
	/* mode 1: the rise of the gate triggers */
	program(b, 2, 1, 100);
	bench_step(b, ticks(1000));
	ck_assert(out2(b));
	bench_outb(b, PORT61, 0x00);
	bench_outb(b, PORT61, 0x01);
	ck_assert(!out2(b));
	bench_step(b, ticks(100));
	ck_assert(out2(b));
	/* mode 5: low for one tick after the count */
	program(b, 2, 5, 100);
	bench_outb(b, PORT61, 0x00);
	bench_outb(b, PORT61, 0x01);
	bench_step(b, ticks(100));
	ck_assert(!out2(b));
	bench_step(b, ticks(1));
	ck_assert(out2(b));
	bench_free(b);
}
END_TEST

START_TEST(mode_3_counts_by_two)
{
	struct board *b = bench_new("-m 16");

	bench_outb(b, PORT61, 0x01);
	program(b, 2, 3, 7); /* four ticks high, three low */
	for (unsigned i = 0; i < 14; i++) {
		static const uint8_t count[7] = {6, 4, 2, 0, 6, 4, 2};

		ck_assert_msg(out2(b) == (i % 7 < 4), "OUT is wrong after %u ticks", i);
		ck_assert_uint_eq(latched(b, 2), count[i % 7]);
		bench_step(b, ticks(i + 1) - ticks(i));
	}
	bench_free(b);
}
END_TEST

/* DOS music changes the count of a running square wave: in effect after the half-cycle, not at once. */
START_TEST(new_count_waits_for_the_half_cycle)
{
	struct board *b = bench_new("-m 16");

	bench_outb(b, PORT61, 0x01);
	program(b, 2, 3, 1000);
	bench_step(b, ticks(100));
	bench_outb(b, CH2, 200);
	bench_outb(b, CH2, 0);
	ck_assert_uint_eq(status(b, 2) & 0x40, 0x40);
	bench_step(b, ticks(399));
	ck_assert(out2(b));
	bench_step(b, ticks(2));
	ck_assert(!out2(b));
	ck_assert_uint_eq(status(b, 2) & 0x40, 0);
	bench_step(b, ticks(100));
	ck_assert(out2(b));
	bench_step(b, ticks(100));
	ck_assert(!out2(b));
	/* mode 2, IRQ 0: the period in progress is finished first */
	program(b, 0, 2, 10000);
	bench_gsi_edges(b, 0);
	bench_step(b, ticks(5000));
	bench_outb(b, CH0, 100);
	bench_outb(b, CH0, 0);
	bench_step(b, ticks(4999));
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 0);
	bench_step(b, ticks(2));
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 1);
	bench_step(b, ticks(1000));
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 10);
	bench_free(b);
}
END_TEST

START_TEST(refresh_bit_toggles_every_15_us)
{
	struct board *b = bench_new("-m 16");
	unsigned changes = 0;
	uint8_t last = bench_inb(b, PORT61) & 0x10, now;

	for (unsigned i = 0; i < 1508; i++) {
		bench_step(b, NS_PER_US);
		now = bench_inb(b, PORT61) & 0x10;
		changes += now != last;
		last = now;
	}
	ck_assert_msg(changes >= 99 && changes <= 101, "%u changes in 1508 us", changes);
	bench_free(b);
}
END_TEST

START_TEST(port_61_keeps_its_bits)
{
	struct board *b = bench_new("-m 16");

	bench_outb(b, PORT61, 0x0f);
	ck_assert_uint_eq(bench_inb(b, PORT61) & 0xcf, 0x0f);
	bench_outb(b, PORT61, 0xf0);
	ck_assert_uint_eq(bench_inb(b, PORT61) & 0xcf, 0x00);
	bench_free(b);
}
END_TEST

/* A count of 1 or 2 must not cost the host a timer every 2 us. */
START_TEST(tick_rate_is_bounded)
{
	struct board *b = bench_new("-m 16");
	unsigned n;

	program(b, 0, 2, 2);
	bench_gsi_edges(b, 0);
	bench_step(b, 10 * NS_PER_MS);
	n = bench_gsi_edges(b, 0);
	ck_assert_msg(n >= 200 && n <= 251, "%u ticks in 10 ms", n);
	program(b, 0, 2, 1);
	bench_step(b, 10 * NS_PER_MS);
	ck_assert(bench_gsi_edges(b, 0) <= 252);
	bench_free(b);
}
END_TEST

START_TEST(state_survives_in_the_middle)
{
	struct board *b = bench_new("-m 16");

	program(b, 0, 2, 10000);
	bench_outb(b, PORT61, 0x03);
	program(b, 2, 0, 2000);
	bench_step(b, ticks(500));
	bench_outb(b, PORT61, 0x02);
	bench_outb(b, CONTROL, 0xc2); /* latch status and count of channel 0, read half of it */
	ck_assert_uint_eq(bench_inb(b, CH0), 0xb4);
	bench_outb(b, CH0, 0x34); /* and half of a new count written */
	b = bench_save_load(b);
	bench_gsi_edges(b, 0);
	ck_assert_uint_eq(in16(b, CH0), 9500);
	bench_outb(b, CH0, 0x12);
	ck_assert_uint_eq(latched(b, 2), 1500);
	bench_step(b, ticks(9500));
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 1);
	bench_step(b, ticks(0x1234));
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 1);
	ck_assert_uint_eq(bench_inb(b, PORT61) & 0x23, 0x02);
	bench_outb(b, PORT61, 0x03);
	bench_step(b, ticks(1500));
	ck_assert(out2(b));
	bench_free(b);
}
END_TEST

START_TEST(reset_stops_the_ticks)
{
	struct board *b = bench_new("-m 16");

	program(b, 0, 2, 1000);
	bench_outb(b, PORT61, 0x03);
	bench_step(b, ticks(1500));
	bench_reset(b);
	bench_gsi_edges(b, 0);
	bench_step(b, NS_PER_SEC);
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 0);
	ck_assert_uint_eq(bench_inb(b, PORT61) & 3, 0);
	bench_free(b);
}
END_TEST

/* Ticks the host was too late for come between the regular ones. A manual clock is never late: the state says so. */
START_TEST(owed_ticks_are_delivered)
{
	struct board *b = bench_new("-m 16");
	struct device *pit = device_find_class(b, "isa-pit");
	struct state_buf buf = {0};
	struct state_section s;
	struct err e = ERR_INIT;
	size_t used;

	ck_assert_ptr_nonnull(pit);
	program(b, 0, 2, 11932);
	ck_assert_int_eq(state_save(&buf, pit->id, pit->class->state, pit, &e), 0);
	ck_assert_int_eq(state_section_parse(buf.data, buf.len, &s, &used, &e), 0);
	put_le32((uint8_t *)s.payload + s.len - 4, 10); /* the last field: ticks owed */
	ck_assert_msg(!state_load(&s, pit->class->state, pit, &e), "%s", e.msg);
	pit->class->settle(pit);
	state_buf_free(&buf);
	bench_gsi_edges(b, 0);
	bench_step(b, 205 * NS_PER_MS);
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 20 + 10);
	bench_step(b, 200 * NS_PER_MS);
	ck_assert_uint_eq(bench_gsi_edges(b, 0), 20);
	bench_free(b);
}
END_TEST

START_TEST(lost_tick_policy_parses_under_both_names)
{
	struct board *b =
		bench_new("-m 16 -global kvm-pit.lost_tick_policy=delay -global isa-pit.lost_tick_policy=discard");

	bench_free(b);
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-m 16 -global kvm-pit.lost_tick_policy=merge"), "merge"));
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("8254");

	tcase_add_test(t, rate_generator_ticks);
	tcase_add_test(t, square_wave_ticks_at_18_2_hz);
	tcase_add_test(t, one_shot_interrupts_once);
	tcase_add_test(t, counts_down_and_latches);
	tcase_add_test(t, single_byte_access_and_bcd);
	tcase_add_test(t, read_back_gives_status_and_count);
	tcase_add_test(t, channel_2_calibrates);
	tcase_add_test(t, gate_stops_and_restarts);
	tcase_add_test(t, mode_3_counts_by_two);
	tcase_add_test(t, new_count_waits_for_the_half_cycle);
	tcase_add_test(t, refresh_bit_toggles_every_15_us);
	tcase_add_test(t, port_61_keeps_its_bits);
	tcase_add_test(t, tick_rate_is_bounded);
	tcase_add_test(t, state_survives_in_the_middle);
	tcase_add_test(t, reset_stops_the_ticks);
	tcase_add_test(t, owed_ticks_are_delivered);
	tcase_add_test(t, lost_tick_policy_parses_under_both_names);
	return run_suite("timer", (TCase *[]){t, NULL});
}
