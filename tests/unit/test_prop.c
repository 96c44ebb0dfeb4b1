/* Typed properties and option strings, as the command line uses them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "tests/lib/suite.h"
#include "vmm/prop.h"

struct sample {
	bool flag;
	uint8_t small;
	int32_t signed_value;
	uint64_t size, addr64;
	char *name;
	int mode, tri;
	uint8_t mac[6], uuid[16];
	int32_t slot;
};
static const char *const modes[] = {"fast", "slow", NULL};
static const struct prop table[] = {
	PROP(struct sample, flag, PROP_BOOL, .def = 1),
	PROP(struct sample, small, PROP_U8, .def = 4, .max = 23),
	PROP(struct sample, signed_value, PROP_I32, .def = (uint64_t)-1),
	PROP(struct sample, size, PROP_SIZE, .def = 512),
	PROP(struct sample, addr64, PROP_U64),
	PROP(struct sample, name, PROP_STR, .def_str = "none"),
	PROP(struct sample, mode, PROP_ENUM, .values = modes, .def = 1),
	PROP(struct sample, tri, PROP_ONOFFAUTO, .def = 2),
	PROP(struct sample, mac, PROP_MAC, .def_str = "52:54:00:12:34:56"),
	PROP(struct sample, uuid, PROP_UUID),
	PROP(struct sample, slot, PROP_PCI_ADDR),
	PROP_END,
};

static struct sample s;

static void setup(void)
{
	memset(&s, 0, sizeof(s));
	props_default(table, &s);
}

static void teardown(void)
{
	props_free(table, &s);
}

START_TEST(defaults_are_those_of_the_table)
{
	ck_assert(s.flag);
	ck_assert_uint_eq(s.small, 4);
	ck_assert_int_eq(s.signed_value, -1);
	ck_assert_str_eq(s.name, "none");
	ck_assert_int_eq(s.mode, 1);
	ck_assert_int_eq(s.tri, 2);
	ck_assert_uint_eq(s.mac[5], 0x56);
	ck_assert_int_eq(s.slot, -1);
}
END_TEST

static const struct {
	const char *name, *text, *formatted;
} good[] = {
	{"flag", "off", "off"},
	{"flag", "true", "on"},
	{"small", "0x17", "23"},
	{"signed_value", "-5", "-5"},
	{"size", "1.5k", "1536"},
	{"size", "2T", "2199023255552"},
	{"addr64", "18446744073709551615", "18446744073709551615"},
	{"name", "a b", "a b"},
	{"mode", "fast", "fast"},
	{"tri", "on", "on"},
	{"mac", "00:16:3e:01:02:03", "00:16:3e:01:02:03"},
	{"uuid", "12345678-9abc-def0-1234-56789abcdef0", "12345678-9abc-def0-1234-56789abcdef0"},
	{"slot", "0x1.0x2", "01.2"},
	{"slot", "1f.7", "1f.7"},
};

START_TEST(good_values_round_trip)
{
	const struct prop *p = prop_find(table, good[_i].name);
	char *text;

	ck_assert_int_eq(prop_parse(p, &s, good[_i].text, NULL), 0);
	text = prop_format(p, &s);
	ck_assert_str_eq(text, good[_i].formatted);
	free(text);
}
END_TEST

static const struct {
	const char *name, *text;
} wrong[] = {
	{"flag", "maybe"},
	{"small", "24"},
	{"small", "-1"},
	{"small", ""},
	{"small", "4x"},
	{"size", "12q"},
	{"size", "99999999999T"},
	{"size", "1.5"},
	{"addr64", "18446744073709551616"},
	{"mode", "medium"},
	{"tri", "perhaps"},
	{"mac", "00:11:22:33:44"},
	{"uuid", "1234"},
	{"slot", "20"},
	{"slot", "1.8"},
	{"slot", "x"},
};

START_TEST(wrong_values_are_refused_by_name)
{
	struct err e = ERR_INIT;

	ck_assert_int_lt(props_set(table, &s, "sample", wrong[_i].name, wrong[_i].text, &e), 0);
	ck_assert_ptr_nonnull(strstr(e.msg, wrong[_i].name));
}
END_TEST

START_TEST(unknown_property_names_the_nearest)
{
	struct err e = ERR_INIT;

	ck_assert_int_eq(props_set(table, &s, "sample", "smal", "1", &e), -EINVAL);
	ck_assert_str_eq(e.msg, "Property 'sample.smal' not found; did you mean 'small'?");
}
END_TEST

START_TEST(option_strings_follow_qemu)
{
	struct opts o;
	char *text;

	ck_assert_int_eq(opts_parse(&o, "a,,b.img,format=raw,snapshot,noshare,x=,x=2", "file", NULL), 0);
	ck_assert_str_eq(opts_get(&o, "file"), "a,b.img");
	ck_assert_str_eq(opts_get(&o, "format"), "raw");
	ck_assert_str_eq(opts_get(&o, "snapshot"), "on");
	ck_assert_str_eq(opts_get(&o, "share"), "off");
	ck_assert_str_eq(opts_get(&o, "x"), "2");
	ck_assert_ptr_null(opts_get(&o, "y"));
	opts_set(&o, "file", "q,r");
	opts_del(&o, "x");
	text = opts_format(&o);
	ck_assert_str_eq(text, "format=raw,snapshot=on,share=off,file=q,,r");
	free(text);
	opts_free(&o);
	ck_assert_int_lt(opts_parse(&o, "=x", NULL, NULL), 0);
	ck_assert_int_lt(opts_parse(&o, "a=1,,,b", NULL, NULL) ? -1 : 0, 1);
	opts_free(&o);
}
END_TEST

START_TEST(json_is_flattened)
{
	struct opts o;
	struct err e = ERR_INIT;

	ck_assert_int_eq(
		opts_parse(&o, "{\"driver\":\"raw\",\"cache\":{\"direct\":true},\"n\":5,\"l\":[\"x\"]}", NULL, &e), 0);
	ck_assert_str_eq(opts_get(&o, "driver"), "raw");
	ck_assert_str_eq(opts_get(&o, "cache.direct"), "on");
	ck_assert_str_eq(opts_get(&o, "n"), "5");
	ck_assert_str_eq(opts_get(&o, "l.0"), "x");
	opts_free(&o);
	ck_assert_int_eq(opts_parse(&o, "{\"a\":", NULL, &e), -EINVAL);
	ck_assert_int_eq(opts_parse(&o, "{} {", NULL, &e), -EINVAL);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("prop");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, defaults_are_those_of_the_table);
	tcase_add_loop_test(t, good_values_round_trip, 0, ARRAY_SIZE(good));
	tcase_add_loop_test(t, wrong_values_are_refused_by_name, 0, ARRAY_SIZE(wrong));
	tcase_add_test(t, unknown_property_names_the_nearest);
	tcase_add_test(t, option_strings_follow_qemu);
	tcase_add_test(t, json_is_flattened);
	return run_suite("prop", (TCase *[]){t, NULL});
}
