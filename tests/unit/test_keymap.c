/* Keys and the input router: names, scan codes, keysyms, ASCII, send-key. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/lib/suite.h"
#include "vmm/clock.h"
#include "vmm/input.h"
#include "vmm/util.h"

START_TEST(scan_codes_are_the_published_ones)
{
	/* Set 1, 2 and 3 from the IBM and Microsoft tables, written out independently of keymap.c. */
	static const struct {
		const char *name;
		uint16_t set1, set2, set3;
	} want[] = {
		{"esc", 0x01, 0x76, 0x08},         {"1", 0x02, 0x16, 0x16},
		{"minus", 0x0c, 0x4e, 0x4e},       {"backspace", 0x0e, 0x66, 0x66},
		{"tab", 0x0f, 0x0d, 0x0d},         {"q", 0x10, 0x15, 0x15},
		{"p", 0x19, 0x4d, 0x4d},           {"ret", 0x1c, 0x5a, 0x5a},
		{"ctrl", 0x1d, 0x14, 0x11},        {"a", 0x1e, 0x1c, 0x1c},
		{"semicolon", 0x27, 0x4c, 0x4c},   {"grave_accent", 0x29, 0x0e, 0x0e},
		{"shift", 0x2a, 0x12, 0x12},       {"backslash", 0x2b, 0x5d, 0x5c},
		{"z", 0x2c, 0x1a, 0x1a},           {"slash", 0x35, 0x4a, 0x4a},
		{"shift_r", 0x36, 0x59, 0x59},     {"kp_multiply", 0x37, 0x7c, 0x7e},
		{"alt", 0x38, 0x11, 0x19},         {"spc", 0x39, 0x29, 0x29},
		{"caps_lock", 0x3a, 0x58, 0x14},   {"f1", 0x3b, 0x05, 0x07},
		{"f7", 0x41, 0x83, 0x37},          {"f10", 0x44, 0x09, 0x4f},
		{"num_lock", 0x45, 0x77, 0x76},    {"scroll_lock", 0x46, 0x7e, 0x5f},
		{"kp_7", 0x47, 0x6c, 0x6c},        {"kp_subtract", 0x4a, 0x7b, 0x84},
		{"kp_add", 0x4e, 0x79, 0x7c},      {"kp_0", 0x52, 0x70, 0x70},
		{"kp_decimal", 0x53, 0x71, 0x71},  {"less", 0x56, 0x61, 0x13},
		{"f11", 0x57, 0x78, 0x56},         {"f12", 0x58, 0x07, 0x5e},
		{"kp_enter", 0x11c, 0x15a, 0x79},  {"ctrl_r", 0x11d, 0x114, 0x58},
		{"kp_divide", 0x135, 0x14a, 0x77}, {"alt_r", 0x138, 0x111, 0x39},
		{"home", 0x147, 0x16c, 0x6e},      {"up", 0x148, 0x175, 0x63},
		{"pgup", 0x149, 0x17d, 0x6f},      {"left", 0x14b, 0x16b, 0x61},
		{"right", 0x14d, 0x174, 0x6a},     {"end", 0x14f, 0x169, 0x65},
		{"down", 0x150, 0x172, 0x60},      {"pgdn", 0x151, 0x17a, 0x6d},
		{"insert", 0x152, 0x170, 0x67},    {"delete", 0x153, 0x171, 0x64},
		{"meta_l", 0x15b, 0x11f, 0x8b},    {"meta_r", 0x15c, 0x127, 0x8c},
		{"menu", 0x15d, 0x12f, 0x8d},      {"yen", 0x7d, 0x6a, 0x5d},
		{"henkan", 0x79, 0x64, 0x86},      {"power", 0x15e, 0x137, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		keycode_t k = keycode_from_name(want[i].name);

		ck_assert_msg(k, "%s is unknown", want[i].name);
		ck_assert_str_eq(keycode_name(k), want[i].name);
		ck_assert_msg(keycode_set1(k) == want[i].set1, "%s set 1: %x", want[i].name, keycode_set1(k));
		ck_assert_msg(keycode_set2(k) == want[i].set2, "%s set 2: %x", want[i].name, keycode_set2(k));
		ck_assert_msg(keycode_set3(k) == want[i].set3, "%s set 3: %x", want[i].name, keycode_set3(k));
		ck_assert_int_eq(keycode_from_set1(want[i].set1), k);
	}
	ck_assert_int_eq(keycode_from_name("hyper"), 0);
	ck_assert_int_eq(keycode_from_name(""), 0);
	ck_assert_int_eq(keycode_from_set1(0x1ff), 0);
	ck_assert_int_eq(keycode_from_set1(0xcb), keycode_from_name("left")); /* QMP number with bit 7 */
}
END_TEST

START_TEST(every_printable_character_has_a_key)
{
	for (unsigned c = 0x20; c < 0x7f; c++) {
		bool shift, ctrl, sym_shift;
		keycode_t k = keycode_from_ascii((unsigned char)c, &shift, &ctrl);

		ck_assert_msg(k && !ctrl, "no key for '%c'", c);
		ck_assert_int_eq(keycode_from_keysym(c, &sym_shift), k);
		ck_assert_int_eq(shift, sym_shift);
		ck_assert_int_eq(shift, (c >= 'A' && c <= 'Z') || strchr("~!@#$%^&*()_+{}|:\"<>?", (int)c) != NULL);
	}
}
END_TEST

START_TEST(control_characters_are_control_keys)
{
	bool shift, ctrl;

	ck_assert_str_eq(keycode_name(keycode_from_ascii(3, &shift, &ctrl)), "c");
	ck_assert(ctrl);
	ck_assert_str_eq(keycode_name(keycode_from_ascii('\r', &shift, &ctrl)), "ret");
	ck_assert(!ctrl);
	ck_assert_str_eq(keycode_name(keycode_from_ascii(0x7f, &shift, &ctrl)), "backspace");
	ck_assert_str_eq(keycode_name(keycode_from_ascii(0x1c, &shift, &ctrl)), "backslash");
	ck_assert(ctrl);
	ck_assert_str_eq(keycode_name(keycode_from_ascii(0x1d, &shift, &ctrl)), "bracket_right");
	ck_assert_str_eq(keycode_name(keycode_from_ascii(0, &shift, &ctrl)), "2");
	ck_assert_int_eq(keycode_from_ascii(0xe4, &shift, &ctrl), 0);
}
END_TEST

START_TEST(keysyms_of_named_keys)
{
	bool shift;

	ck_assert_str_eq(keycode_name(keycode_from_keysym(0xff0d, &shift)), "ret");
	ck_assert_str_eq(keycode_name(keycode_from_keysym(0xffc9, &shift)), "f12");
	ck_assert_str_eq(keycode_name(keycode_from_keysym(0xff9c, &shift)), "kp_1"); /* KP_End */
	ck_assert(!shift);
	ck_assert_str_eq(keycode_name(keycode_from_keysym(0xfe20, &shift)), "tab"); /* ISO_Left_Tab */
	ck_assert_int_eq(keycode_from_keysym(0, &shift), 0);
	ck_assert_int_eq(keycode_from_keysym(0x1000041, &shift), 0);
}
END_TEST

/* ---- router ---- */
static char trace[512];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void on_key(void *opaque, keycode_t k, bool down)
{
	size_t n = strlen(trace);

	ck_assert_int_ne(pthread_mutex_trylock(&lock), 0); /* called with the handler's lock held */
	snprintf(trace + n, sizeof(trace) - n, "%s%c%s ", (const char *)opaque, down ? '+' : '-', keycode_name(k));
}

static void on_rel(void *opaque, int dx, int dy, int dz, unsigned buttons)
{
	size_t n = strlen(trace);

	snprintf(trace + n, sizeof(trace) - n, "%s(%d,%d,%d,%u) ", (const char *)opaque, dx, dy, dz, buttons);
}

static void on_abs(void *opaque, uint16_t x, uint16_t y, int dz, unsigned buttons)
{
}

START_TEST(newest_or_activated_handler_gets_the_events)
{
	struct input_handler a = {.name = "a", .key = on_key, .opaque = "a", .lock = &lock};
	struct input_handler m = {.name = "m", .rel = on_rel, .opaque = "m", .lock = &lock};
	struct input_handler t = {.name = "t", .abs = on_abs, .opaque = "t", .lock = &lock};
	struct input_handler b = {.name = "b", .key = on_key, .opaque = "b", .lock = &lock};
	keycode_t q = keycode_from_name("q");

	trace[0] = 0;
	input_key(q, true); /* nobody there: nothing happens */
	input_register(&a);
	input_register(&m);
	input_key(q, true);
	input_rel(1, -2, 3, BUTTON_LEFT);
	input_register(&b);
	input_key(q, false);
	input_activate(&a);
	input_key(q, false);
	ck_assert_str_eq(trace, "a+q m(1,-2,3,1) b-q a-q ");
	ck_assert(!input_wants_abs());
	input_register(&t);
	ck_assert(input_wants_abs());
	input_activate(&m);
	ck_assert(!input_wants_abs());
	input_unregister(&a);
	input_unregister(&b);
	input_unregister(&m);
	input_unregister(&t);
	ck_assert(!input_wants_abs());
}
END_TEST

START_TEST(send_keys_holds_releases_in_reverse_and_queues)
{
	struct input_handler h = {.name = "k", .key = on_key, .opaque = "", .lock = &lock};
	keycode_t cad[] = {keycode_from_name("ctrl"), keycode_from_name("alt"), keycode_from_name("delete")};
	keycode_t x = keycode_from_name("x"), unknown = 0;
	struct err e = ERR_INIT;

	ck_assert_int_eq(loop_init_main(NULL), 0);
	clock_use_manual(0);
	trace[0] = 0;
	input_register(&h);
	ck_assert_int_eq(input_send_keys(cad, 3, 0, &e), 0);
	ck_assert_int_eq(input_send_keys(&x, 1, 50, &e), 0);
	ck_assert_str_eq(trace, "+ctrl +alt +delete ");
	clock_manual_step(99 * NS_PER_MS);
	ck_assert_str_eq(trace, "+ctrl +alt +delete ");
	clock_manual_step(1 * NS_PER_MS);
	ck_assert_str_eq(trace, "+ctrl +alt +delete -delete -alt -ctrl ");
	clock_manual_step(100 * NS_PER_MS);
	ck_assert_str_eq(trace, "+ctrl +alt +delete -delete -alt -ctrl +x ");
	clock_manual_step(50 * NS_PER_MS);
	ck_assert_str_eq(trace, "+ctrl +alt +delete -delete -alt -ctrl +x -x ");

	ck_assert_int_lt(input_send_keys(&unknown, 1, 0, &e), 0);
	ck_assert_int_lt(input_send_keys(&x, 0, 0, &e), 0);
	while (!input_send_keys(&x, 1, 1, &e))
		;
	ck_assert_int_eq(e.code, ENOSPC); /* bounded */
	clock_manual_step(10 * NS_PER_SEC);
	ck_assert_int_eq(input_send_keys(&x, 1, 1, &e), 0);
	clock_manual_step(NS_PER_SEC);
	input_unregister(&h);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("keys");

	tcase_add_test(t, scan_codes_are_the_published_ones);
	tcase_add_test(t, every_printable_character_has_a_key);
	tcase_add_test(t, control_characters_are_control_keys);
	tcase_add_test(t, keysyms_of_named_keys);
	tcase_add_test(t, newest_or_activated_handler_gets_the_events);
	tcase_add_test(t, send_keys_holds_releases_in_reverse_and_queues);
	return run_suite("keymap", (TCase *[]){t, NULL});
}
