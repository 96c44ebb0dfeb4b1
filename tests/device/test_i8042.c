/* 8042 keyboard controller, driven as firmware, Linux and Windows drive it. */
#include "bench.h"

#include "vmm/clock.h"
#include "vmm/input.h"

#define ST_OBF 0x01
#define ST_SYS 0x04
#define ST_CMD 0x08
#define ST_AUX 0x20

static struct board *b;

static void setup(void)
{
	b = bench_new("-m 16");
}

static void teardown(void)
{
	bench_free(b);
}

static uint8_t status(void)
{
	return bench_inb(b, 0x64);
}

/* The next byte, as a driver polls for it: 20 ms at most. -1: none came. */
static int next_byte(void)
{
	for (int i = 0; i < 200; i++) {
		if (status() & ST_OBF)
			return bench_inb(b, 0x60);
		bench_step(b, 100 * NS_PER_US);
	}
	return -1;
}

static void command(uint8_t c)
{
	bench_outb(b, 0x64, c);
}

static uint8_t ccb(void)
{
	command(0x20);
	return (uint8_t)next_byte();
}

static void set_ccb(uint8_t v)
{
	command(0x60);
	bench_outb(b, 0x60, v);
}

static int aux(uint8_t v)
{
	command(0xd4);
	bench_outb(b, 0x60, v);
	return next_byte();
}

static int kbd(uint8_t v)
{
	bench_outb(b, 0x60, v);
	return next_byte();
}

START_TEST(self_test_and_interface_tests_pass)
{
	ck_assert_uint_eq(status() & (ST_OBF | ST_SYS), 0);
	command(0xaa);
	ck_assert(status() & ST_CMD);
	ck_assert_int_eq(next_byte(), 0x55);
	ck_assert(status() & ST_SYS);
	command(0xab);
	ck_assert_int_eq(next_byte(), 0x00);
	command(0xa9);
	ck_assert_int_eq(next_byte(), 0x00);
	command(0xa4);
	ck_assert_int_eq(next_byte(), 0xf1); /* no password */
	bench_outb(b, 0x60, 0xee);
	ck_assert_uint_eq(status() & ST_CMD, 0);
	ck_assert_int_eq(next_byte(), 0xee);
	ck_assert_uint_eq(status() & 0x10, 0x10); /* key lock open */
}
END_TEST

START_TEST(ccb_and_ram_read_back)
{
	set_ccb(0x61);
	ck_assert_uint_eq(ccb(), 0x61);
	command(0x65);
	bench_outb(b, 0x60, 0x5a);
	command(0x25);
	ck_assert_int_eq(next_byte(), 0x5a);
	command(0xad);
	ck_assert_uint_eq(ccb(), 0x71);
	command(0xae);
	command(0xa8);
	ck_assert_uint_eq(ccb(), 0x41);
	command(0xa7);
	ck_assert_uint_eq(ccb(), 0x61);
	command(0xe0);
	ck_assert_int_eq(next_byte(), 0x01); /* auxiliary clock held low */
}
END_TEST

/* i8042_check_aux() and i8042_toggle_aux() of Linux: the loop command and the interrupt it must raise. */
START_TEST(linux_finds_the_aux_port)
{
	set_ccb(0x40 | 0x30);
	command(0xd3);
	bench_outb(b, 0x60, 0x5a);
	ck_assert_uint_eq(status() & (ST_OBF | ST_AUX), ST_OBF | ST_AUX);
	ck_assert_int_eq(next_byte(), 0x5a);
	command(0xa9);
	ck_assert_int_eq(next_byte(), 0);
	command(0xa7);
	ck_assert(ccb() & 0x20);
	command(0xa8);
	ck_assert(!(ccb() & 0x20));
	set_ccb(0x40 | 0x10 | 0x02);
	bench_gsi_edges(b, 12);
	command(0xd3);
	bench_outb(b, 0x60, 0xa5);
	ck_assert_uint_eq(bench_gsi_edges(b, 12), 1);
	ck_assert(bench_gsi(b, 12));
	ck_assert(!bench_gsi(b, 1));
	ck_assert_int_eq(next_byte(), 0xa5);
	ck_assert(!bench_gsi(b, 12));
	/* 0xd2: the same for the keyboard side. */
	set_ccb(0x41);
	command(0xd2);
	bench_outb(b, 0x60, 0x77);
	ck_assert(bench_gsi(b, 1));
	ck_assert_uint_eq(status() & (ST_OBF | ST_AUX), ST_OBF);
	ck_assert_int_eq(next_byte(), 0x77); /* not translated */
	ck_assert(!bench_gsi(b, 1));
}
END_TEST

START_TEST(interrupts_follow_the_enable_bits)
{
	set_ccb(0x40);
	bench_outb(b, 0x60, 0xee);
	ck_assert_uint_eq(status() & ST_OBF, ST_OBF);
	ck_assert(!bench_gsi(b, 1));
	set_ccb(0x41); /* enabling with a full buffer interrupts at once */
	ck_assert(bench_gsi(b, 1));
	bench_inb(b, 0x60);
	ck_assert(!bench_gsi(b, 1));
}
END_TEST

START_TEST(every_byte_is_an_edge)
{
	set_ccb(0x41);
	bench_gsi_edges(b, 1);
	bench_outb(b, 0x60, 0xf2); /* ACK, AB, 41 */
	ck_assert_int_eq(next_byte(), 0xfa);
	ck_assert_int_eq(next_byte(), 0xab);
	ck_assert_int_eq(next_byte(), 0x41); /* 83 translated */
	ck_assert_int_eq(next_byte(), -1);
	ck_assert_uint_eq(bench_gsi_edges(b, 1), 3);
	set_ccb(0x01);
	ck_assert_int_eq(kbd(0xf2), 0xfa);
	ck_assert_int_eq(next_byte(), 0xab);
	ck_assert_int_eq(next_byte(), 0x83);
}
END_TEST

START_TEST(a_second_read_gives_the_same_byte)
{
	input_key(keycode_from_name("a"), true);
	input_key(keycode_from_name("a"), false);
	ck_assert_uint_eq(bench_inb(b, 0x60), 0x1e);
	ck_assert_uint_eq(bench_inb(b, 0x60), 0x1e);
	ck_assert_uint_eq(status() & ST_OBF, 0);
	bench_step(b, NS_PER_MS);
	ck_assert_uint_eq(bench_inb(b, 0x60), 0x9e);
}
END_TEST

START_TEST(a_disabled_interface_holds_its_bytes)
{
	command(0xad);
	input_key(keycode_from_name("a"), true);
	ck_assert_int_eq(next_byte(), -1);
	command(0xae);
	ck_assert_int_eq(next_byte(), 0x1e);
	command(0xad);
	ck_assert_int_eq(kbd(0xee), 0xee); /* writing to the device enables it */
	ck_assert(!(ccb() & 0x10));
	command(0xa7);
	ck_assert_int_eq(aux(0xf2), 0xfa);
	ck_assert_int_eq(next_byte(), 0x00);
}
END_TEST

START_TEST(bytes_of_the_mouse_are_marked)
{
	command(0xd4);
	bench_outb(b, 0x60, 0xf4);
	ck_assert_uint_eq(status() & (ST_OBF | ST_AUX), ST_OBF | ST_AUX);
	ck_assert_int_eq(next_byte(), 0xfa);
	input_rel(3, 0, 0, 0);
	ck_assert(status() & ST_AUX);
	ck_assert_int_eq(next_byte(), 0x08);
	ck_assert_int_eq(next_byte(), 3);
	ck_assert_int_eq(next_byte(), 0);
}
END_TEST

START_TEST(answers_wait_for_a_full_buffer)
{
	input_key(keycode_from_name("b"), true);
	command(0x20); /* the scan code is already in the buffer */
	ck_assert_uint_eq(bench_inb(b, 0x60), 0x30);
	ck_assert_uint_eq(status() & ST_OBF, ST_OBF);
	ck_assert_uint_eq(bench_inb(b, 0x60), 0x43);
}
END_TEST

START_TEST(output_port_and_reset_pulse)
{
	command(0xd0);
	uint8_t v = (uint8_t)next_byte();

	ck_assert_uint_eq(v & 0x03, 0x03); /* not reset, A20 on */
	command(0xd1);
	bench_outb(b, 0x60, 0xdd);
	command(0xd0);
	ck_assert_uint_eq((unsigned)next_byte() & 0x02, 0);
	command(0xdf);
	command(0xd0);
	ck_assert_uint_eq((unsigned)next_byte() & 0x02, 2);
	command(0xf1); /* pulses A20 only */
	bench_idle(b);
	ck_assert_ptr_null(bench_event(b, "RESET"));
	command(0xfe);
	bench_idle(b);
	ck_assert_ptr_nonnull(bench_event(b, "RESET"));
	command(0xd1);
	bench_outb(b, 0x60, 0xfe);
	bench_idle(b);
	ck_assert_ptr_nonnull(bench_event(b, "RESET"));
}
END_TEST

/* Windows XP's i8042prt: disable, read CCB, write it back, reset both devices, and enable. */
START_TEST(windows_initialises)
{
	command(0xad);
	command(0xa7);
	uint8_t mode = ccb();

	set_ccb((uint8_t)(mode & ~0x03));
	ck_assert_int_eq(kbd(0xff), 0xfa);
	ck_assert_int_eq(next_byte(), 0xaa);
	ck_assert_int_eq(kbd(0xf3), 0xfa);
	ck_assert_int_eq(kbd(0x00), 0xfa);
	ck_assert_int_eq(kbd(0xed), 0xfa);
	ck_assert_int_eq(kbd(0x02), 0xfa);
	ck_assert_uint_eq(input_leds(), 2);
	ck_assert_int_eq(aux(0xff), 0xfa);
	ck_assert_int_eq(next_byte(), 0xaa);
	ck_assert_int_eq(next_byte(), 0x00);
	ck_assert_int_eq(aux(0xe8), 0xfa); /* resolution 0 */
	ck_assert_int_eq(aux(0x00), 0xfa);
	ck_assert_int_eq(aux(0xe6), 0xfa); /* three times scaling 1:1, then status: Logitech's query */
	ck_assert_int_eq(aux(0xe6), 0xfa);
	ck_assert_int_eq(aux(0xe6), 0xfa);
	ck_assert_int_eq(aux(0xe9), 0xfa);
	ck_assert_int_eq(next_byte(), 0x00);
	ck_assert_int_eq(next_byte(), 0x00);
	ck_assert_int_eq(next_byte(), 100);
	set_ccb(0x47);
	ck_assert_uint_eq(ccb(), 0x47);
}
END_TEST

START_TEST(state_survives)
{
	set_ccb(0x43);
	input_key(keycode_from_name("home"), true);
	command(0xd1); /* waits for its data byte */
	b = bench_save_load(b);
	ck_assert_uint_eq(bench_inb(b, 0x60), 0xe0);
	bench_outb(b, 0x60, 0xdd);
	ck_assert_int_eq(next_byte(), 0x47); /* the data byte was not sent to the keyboard */
	command(0xd0);
	ck_assert_uint_eq((unsigned)next_byte() & 0x02, 0);
	ck_assert_uint_eq(ccb(), 0x43);
}
END_TEST

START_TEST(without_i8042_there_are_no_ports)
{
	bench_free(b);
	b = bench_new("-m 16 -machine i8042=off");
	ck_assert_uint_eq(status(), 0xff);
	ck_assert_uint_eq(bench_inb(b, 0x60), 0xff);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("i8042");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, self_test_and_interface_tests_pass);
	tcase_add_test(t, ccb_and_ram_read_back);
	tcase_add_test(t, linux_finds_the_aux_port);
	tcase_add_test(t, interrupts_follow_the_enable_bits);
	tcase_add_test(t, every_byte_is_an_edge);
	tcase_add_test(t, a_second_read_gives_the_same_byte);
	tcase_add_test(t, a_disabled_interface_holds_its_bytes);
	tcase_add_test(t, bytes_of_the_mouse_are_marked);
	tcase_add_test(t, answers_wait_for_a_full_buffer);
	tcase_add_test(t, output_port_and_reset_pulse);
	tcase_add_test(t, windows_initialises);
	tcase_add_test(t, state_survives);
	tcase_add_test(t, without_i8042_there_are_no_ports);

	TCase *cases[] = {t, NULL};

	return run_suite("i8042", cases);
}
