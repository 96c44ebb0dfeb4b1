/* PS/2 keyboard and mouse behind the 8042: scan codes, commands, packets, IntelliMouse. */
#include "bench.h"

#include <stdio.h>
#include <string.h>
#include "vmm/clock.h"
#include "vmm/input.h"

static struct board *b;

static void ccb(uint8_t v)
{
	bench_outb(b, 0x64, 0x60);
	bench_outb(b, 0x60, v);
}

static void setup(void)
{
	b = bench_new("-m 16");
	ccb(0x00); /* no translation: what the keyboard sends */
}

static void teardown(void)
{
	bench_free(b);
}

static int next_byte_within(unsigned ms)
{
	for (unsigned i = 0; i <= ms * 4; i++) {
		if (bench_inb(b, 0x64) & 1)
			return bench_inb(b, 0x60);
		bench_step(b, 250 * NS_PER_US);
	}
	return -1;
}

static int next_byte(void)
{
	return next_byte_within(10);
}

/* All that comes, as hexadecimal text. */
static const char *bytes(void)
{
	static char text[1024];
	size_t n = 0;
	int v;

	text[0] = 0;
	while ((v = next_byte()) >= 0 && n < sizeof(text) - 4)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%02x", n ? " " : "", v);
	return text;
}

static const char *kbd(uint8_t v)
{
	bench_outb(b, 0x60, v);
	return bytes();
}

static const char *aux(uint8_t v)
{
	bench_outb(b, 0x64, 0xd4);
	bench_outb(b, 0x60, v);
	return bytes();
}

static void key(const char *name, bool down)
{
	input_key(keycode_from_name(name), down);
}

static void check_key(const char *name, const char *make, const char *brk)
{
	const char *got;

	key(name, true);
	got = bytes();
	ck_assert_msg(!strcmp(got, make), "%s down: %s, want %s", name, got, make);
	key(name, false);
	got = bytes();
	ck_assert_msg(!strcmp(got, brk), "%s up: %s, want %s", name, got, brk);
}

START_TEST(scan_set_2)
{
	check_key("a", "1c", "f0 1c");
	check_key("f7", "83", "f0 83");
	check_key("home", "e0 6c", "e0 f0 6c");
	check_key("kp_enter", "e0 5a", "e0 f0 5a");
	check_key("pause", "e1 14 77 e1 f0 14 f0 77", "");
	check_key("print", "e0 12 e0 7c", "e0 f0 7c e0 f0 12");
	key("ctrl", true);
	bytes();
	check_key("pause", "e0 7e e0 f0 7e", "");
	check_key("print", "e0 7c", "e0 f0 7c");
	key("ctrl", false);
	bytes();
	key("alt", true);
	bytes();
	check_key("print", "84", "f0 84");
	check_key("sysrq", "84", "f0 84");
}
END_TEST

START_TEST(translated_to_set_1)
{
	ccb(0x40);
	check_key("a", "1e", "9e");
	check_key("f7", "41", "c1");
	check_key("home", "e0 47", "e0 c7");
	check_key("pause", "e1 1d 45 e1 9d c5", "");
	check_key("print", "e0 2a e0 37", "e0 b7 e0 aa");
	key("shift", true);
	bytes();
	check_key("print", "e0 37", "e0 b7");
	key("shift", false);
	bytes();
	key("alt_r", true);
	bytes();
	check_key("print", "54", "d4");
}
END_TEST

START_TEST(scan_set_1)
{
	kbd(0xf0);
	ck_assert_str_eq(kbd(0x01), "fa");
	kbd(0xf0);
	ck_assert_str_eq(kbd(0x00), "fa 01");
	check_key("a", "1e", "9e");
	check_key("delete", "e0 53", "e0 d3");
	check_key("pause", "e1 1d 45 e1 9d c5", "");
	check_key("print", "e0 2a e0 37", "e0 b7 e0 aa");
	kbd(0xf0);
	ck_assert_str_eq(kbd(0x04), "fe"); /* there is no set 4 */
}
END_TEST

START_TEST(scan_set_3_and_its_key_types)
{
	kbd(0xf0);
	kbd(0x03);
	check_key("a", "1c", "");          /* typematic: no break code */
	check_key("shift", "12", "f0 12"); /* make/break */
	check_key("f1", "07", "");
	check_key("home", "6e", "");
	check_key("pause", "62", "");
	ck_assert_str_eq(kbd(0xfa), "fa"); /* all typematic and make/break */
	check_key("a", "1c", "f0 1c");
	check_key("home", "6e", "f0 6e");
	ck_assert_str_eq(kbd(0xf9), "fa"); /* all make only */
	ck_assert_str_eq(kbd(0xfc), "fa");
	ck_assert_str_eq(kbd(0x1c), "fa");
	ck_assert_str_eq(kbd(0x6e), "fa"); /* the list goes on */
	ck_assert_str_eq(kbd(0xf4), "fa"); /* and ends with a command */
	check_key("a", "1c", "f0 1c");
	check_key("home", "6e", "f0 6e");
	check_key("s", "1b", "");
	ck_assert_str_eq(kbd(0xf6), "fa"); /* defaults: set 2 again */
	check_key("s", "1b", "f0 1b");
}
END_TEST

START_TEST(commands)
{
	ck_assert_str_eq(kbd(0xee), "ee");
	ck_assert_str_eq(kbd(0xf2), "fa ab 83");
	ck_assert_str_eq(kbd(0xfe), "83"); /* resend */
	ck_assert_str_eq(kbd(0x55), "fe"); /* no such command */
	ck_assert_str_eq(kbd(0xed), "fa");
	ck_assert_str_eq(kbd(0x07), "fa");
	ck_assert_uint_eq(input_leds(), 7);
	ck_assert_str_eq(kbd(0xed), "fa"); /* a command in place of the parameter is obeyed */
	ck_assert_str_eq(kbd(0xf4), "fa");
	ck_assert_str_eq(kbd(0xf5), "fa");
	check_key("a", "", ""); /* disabled */
	ck_assert_str_eq(kbd(0xf4), "fa");
	check_key("a", "1c", "f0 1c");
	bench_outb(b, 0x60, 0xff);
	ck_assert_int_eq(next_byte(), 0xfa);
	ck_assert_int_eq(bench_inb(b, 0x64) & 1, 0); /* the self test takes its time */
	ck_assert_int_eq(next_byte(), 0xaa);
	ck_assert_uint_eq(input_leds(), 0);
}
END_TEST

START_TEST(replies_pass_waiting_keys)
{
	bench_outb(b, 0x64, 0xad);
	key("a", true);
	key("b", true);
	bench_outb(b, 0x60, 0xf2);
	ck_assert_str_eq(bytes(), "fa ab 83 1c 32");
}
END_TEST

START_TEST(typematic_repeat)
{
	ck_assert_str_eq(kbd(0xf3), "fa");
	ck_assert_str_eq(kbd(0x20), "fa"); /* 500 ms, 30 per second */
	key("a", true);
	ck_assert_int_eq(next_byte(), 0x1c);
	key("a", true); /* the front end's own repetition is not a new stroke */
	ck_assert_int_eq(next_byte_within(450), -1);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(next_byte_within(60), 0x1c);
	key("shift", true); /* another key takes over */
	ck_assert_int_eq(next_byte(), 0x12);
	ck_assert_int_eq(next_byte_within(450), -1);
	ck_assert_int_eq(next_byte_within(60), 0x12);
	key("shift", false);
	ck_assert_int_eq(next_byte(), 0xf0);
	ck_assert_int_eq(next_byte(), 0x12);
	ck_assert_int_eq(next_byte_within(1000), -1);
}
END_TEST

START_TEST(overrun_is_reported_once)
{
	unsigned n = 0, overruns = 0;
	int v;

	bench_outb(b, 0x64, 0xad);
	for (int i = 0; i < 100; i++) {
		key("a", true);
		key("a", false);
	}
	bench_outb(b, 0x64, 0xae);
	while ((v = next_byte()) >= 0) {
		n++;
		overruns += v == 0x00;
	}
	ck_assert_uint_eq(overruns, 1);
	ck_assert_uint_le(n, 64);
	check_key("b", "32", "f0 32");
}
END_TEST

/* psmouse_reset(), intellimouse_detect(), im_explorer_detect() of Linux. */
START_TEST(linux_detects_the_explorer_mouse)
{
	static const uint8_t im[] = {200, 100, 80}, ex[] = {200, 200, 80};

	ck_assert_str_eq(aux(0xff), "fa aa 00");
	ck_assert_str_eq(aux(0xf2), "fa 00");
	for (int i = 0; i < 3; i++) {
		ck_assert_str_eq(aux(0xf3), "fa");
		ck_assert_str_eq(aux(im[i]), "fa");
	}
	ck_assert_str_eq(aux(0xf2), "fa 03");
	for (int i = 0; i < 3; i++) {
		aux(0xf3);
		aux(ex[i]);
	}
	ck_assert_str_eq(aux(0xf2), "fa 04");
	ck_assert_str_eq(aux(0xf3), "fa");
	ck_assert_str_eq(aux(100), "fa");
	ck_assert_str_eq(aux(0xf4), "fa");
	input_rel(5, 7, 0, BUTTON_LEFT); /* right, down */
	ck_assert_str_eq(bytes(), "29 05 f9 00");
	bench_step(b, 20 * NS_PER_MS);
	input_rel(0, 0, -1, BUTTON_SIDE);
	ck_assert_str_eq(bytes(), "08 00 00 1f");
	bench_step(b, 20 * NS_PER_MS);
	input_rel(0, 0, 1, BUTTON_EXTRA | BUTTON_MIDDLE);
	ck_assert_str_eq(bytes(), "0c 00 00 21");
	ck_assert_str_eq(aux(0xff), "fa aa 00"); /* reset: a plain mouse again */
	ck_assert_str_eq(aux(0xf2), "fa 00");
}
END_TEST

START_TEST(plain_mouse_packets_and_large_movements)
{
	aux(0xf4);
	input_rel(-1, -1, 5, BUTTON_RIGHT);
	ck_assert_str_eq(bytes(), "1a ff 01"); /* no wheel in three bytes */
	bench_step(b, 20 * NS_PER_MS);
	input_rel(600, 0, 0, 0);
	ck_assert_str_eq(bytes(), "08 ff 00 08 ff 00 08 5a 00");
	bench_step(b, 20 * NS_PER_MS);
	input_rel(0, 0, 5, 0); /* nothing a plain mouse could tell */
	ck_assert_str_eq(bytes(), "");
}
END_TEST

START_TEST(sampling_rate_joins_movements)
{
	aux(0xf3);
	aux(10); /* ten packets per second */
	aux(0xf4);
	for (int i = 0; i < 50; i++) {
		input_rel(1, 0, 0, 0);
		bench_step(b, NS_PER_MS);
	}
	ck_assert_int_eq(next_byte(), 0x08);
	ck_assert_int_eq(next_byte(), 1);
	ck_assert_int_eq(next_byte(), 0);
	ck_assert_int_eq(next_byte_within(100), 0x08);
	ck_assert_int_eq(next_byte(), 49);
	ck_assert_int_eq(next_byte(), 0);
}
END_TEST

START_TEST(a_guest_that_does_not_read_loses_nothing)
{
	int dx = 0, v;

	aux(0xf4);
	for (int i = 0; i < 200; i++) {
		input_rel(10, 0, 0, 0);
		bench_step(b, 20 * NS_PER_MS);
	}
	while ((v = next_byte_within(30)) >= 0) {
		ck_assert_uint_eq((unsigned)v & 0xf8, 0x08);
		dx += next_byte();
		ck_assert_int_eq(next_byte(), 0);
	}
	ck_assert_int_eq(dx, 2000);
}
END_TEST

START_TEST(remote_wrap_and_status)
{
	ck_assert_str_eq(aux(0xf0), "fa");
	input_rel(2, 3, 0, BUTTON_LEFT);
	ck_assert_str_eq(bytes(), "");
	ck_assert_str_eq(aux(0xeb), "fa 29 02 fd");
	ck_assert_str_eq(aux(0xe9), "fa 44 02 64"); /* remote, left button, 4 counts/mm, 100 */
	ck_assert_str_eq(aux(0xea), "fa");
	ck_assert_str_eq(aux(0xe8), "fa");
	ck_assert_str_eq(aux(0x03), "fa");
	ck_assert_str_eq(aux(0xe7), "fa");
	ck_assert_str_eq(aux(0xf4), "fa");
	ck_assert_str_eq(aux(0xe9), "fa 34 03 64");
	bench_step(b, 20 * NS_PER_MS);
	input_rel(3, 0, 0, BUTTON_LEFT);
	ck_assert_str_eq(bytes(), "09 03 00"); /* scaling 2:1 leaves 3 */
	bench_step(b, 20 * NS_PER_MS);
	input_rel(10, 0, 0, BUTTON_LEFT);
	ck_assert_str_eq(bytes(), "09 14 00"); /* and doubles 10 */
	ck_assert_str_eq(aux(0xee), "fa");
	ck_assert_str_eq(aux(0x12), "12"); /* wrapped */
	ck_assert_str_eq(aux(0xf4), "f4");
	ck_assert_str_eq(aux(0xec), "fa");
	ck_assert_str_eq(aux(0xf6), "fa");
	ck_assert_str_eq(aux(0xe9), "fa 04 02 64");
	ck_assert_str_eq(aux(0x77), "fe");
	ck_assert_str_eq(aux(0x77), "fc"); /* wrong twice */
	ck_assert_str_eq(aux(0xe8), "fa");
	ck_assert_str_eq(aux(0x09), "fe"); /* no such resolution */
	ck_assert_str_eq(aux(0x01), "fa");
}
END_TEST

START_TEST(state_survives)
{
	static const uint8_t im[] = {200, 100, 80};

	for (int i = 0; i < 3; i++) {
		aux(0xf3);
		aux(im[i]);
	}
	aux(0xf4);
	kbd(0xf3); /* waits for its parameter */
	bench_outb(b, 0x64, 0xad);
	key("q", true);
	input_rel(4, 0, 2, 0);
	b = bench_save_load(b);
	ck_assert_str_eq(bytes(), "08 04 00 02");
	bench_outb(b, 0x60, 0x20); /* the parameter; enables the interface */
	ck_assert_str_eq(bytes(), "fa 15");
	ck_assert_int_eq(next_byte_within(600), 0x15); /* still held: repeats */
	key("q", false);
	ck_assert_int_eq(next_byte(), 0xf0);
	ck_assert_int_eq(next_byte(), 0x15);
	ck_assert_str_eq(aux(0xf2), "fa 03");
}
END_TEST

START_TEST(reset_gives_power_on_values)
{
	kbd(0xf0);
	kbd(0x01);
	aux(0xf4);
	bench_reset(b);
	ccb(0x00);
	check_key("a", "1c", "f0 1c");
	input_rel(9, 9, 0, 0);
	ck_assert_str_eq(bytes(), ""); /* the mouse reports only when enabled */
}
END_TEST

int main(void)
{
	TCase *k = tcase_create("keyboard"), *m = tcase_create("mouse");

	tcase_add_checked_fixture(k, setup, teardown);
	tcase_add_test(k, scan_set_2);
	tcase_add_test(k, translated_to_set_1);
	tcase_add_test(k, scan_set_1);
	tcase_add_test(k, scan_set_3_and_its_key_types);
	tcase_add_test(k, commands);
	tcase_add_test(k, replies_pass_waiting_keys);
	tcase_add_test(k, typematic_repeat);
	tcase_add_test(k, overrun_is_reported_once);
	tcase_add_checked_fixture(m, setup, teardown);
	tcase_add_test(m, linux_detects_the_explorer_mouse);
	tcase_add_test(m, plain_mouse_packets_and_large_movements);
	tcase_add_test(m, sampling_rate_joins_movements);
	tcase_add_test(m, a_guest_that_does_not_read_loses_nothing);
	tcase_add_test(m, remote_wrap_and_status);
	tcase_add_test(m, state_survives);
	tcase_add_test(m, reset_gives_power_on_values);

	TCase *cases[] = {k, m, NULL};

	return run_suite("ps2", cases);
}
