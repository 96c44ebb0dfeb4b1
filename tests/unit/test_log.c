/* The log: what passes which filter, rate limits, and lines that nobody can break. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/lib/suite.h"
#include "vmm/log.h"

static char path[] = "log-test-XXXXXX";

static void setup(void)
{
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(log_open(path, NULL), 0);
}

static void teardown(void)
{
	log_open(NULL, NULL);
	unlink(path);
}

/* What was logged since the last call; valid until the next. */
static const char *logged(void)
{
	static char text[65536];
	FILE *f = fopen(path, "r");
	size_t n = fread(text, 1, sizeof(text) - 1, f);

	text[n] = 0;
	fclose(f);
	ck_assert_int_eq(truncate(path, 0), 0);
	return text;
}

START_TEST(levels_and_filters)
{
	struct err e = ERR_INIT;

	log_write(LOG_DEBUG, "block", "no");
	log_write(LOG_GUEST, "block", "no");
	log_write(LOG_INFO, "block", "yes");
	log_write(LOG_WARN, "block", "%d", 5);
	ck_assert_str_eq(logged(), "vmm: block: yes\nvmm: warning: block: 5\n");
	ck_assert_int_eq(log_set_filter("block,kvm=error,guest_errors", &e), 0);
	log_write(LOG_DEBUG, "block", "a");
	log_write(LOG_DEBUG, "display", "b");
	log_write(LOG_WARN, "kvm", "c");
	log_write(LOG_ERROR, "kvm", "d");
	log_write(LOG_GUEST, "ide", "e");
	ck_assert_str_eq(logged(), "vmm: debug: block: a\nvmm: error: kvm: d\nvmm: guest: ide: e\n");
	ck_assert_int_eq(log_set_filter("all=warning,display", &e), 0);
	ck_assert(!log_enabled(LOG_INFO, "block") && log_enabled(LOG_WARN, "block"));
	ck_assert(log_enabled(LOG_DEBUG, "display") && !log_enabled(LOG_GUEST, "display"));
	ck_assert_int_eq(log_set_filter("all", &e), 0);
	ck_assert(log_enabled(LOG_DEBUG, "kvm") && log_enabled(LOG_GUEST, "kvm"));
	ck_assert_int_lt(log_set_filter("blokc", &e), 0);
	ck_assert_ptr_nonnull(strstr(e.msg, "did you mean 'block'?"));
	ck_assert_int_lt(log_set_filter("block=loud", &e), 0);
	ck_assert_int_lt(log_set_filter("block=guest", &e), 0);
	ck_assert_int_eq(log_set_filter(NULL, &e), 0);
	ck_assert(!log_enabled(LOG_DEBUG, "kvm") && !log_enabled(LOG_GUEST, "kvm"));
}
END_TEST

START_TEST(rate_limit)
{
	uint64_t before = log_suppressed(), warnings = log_count(LOG_WARN);
	unsigned lines = 0;

	for (int i = 0; i < 500; i++)
		log_warn("block", "again %d", i);
	for (const char *p = logged(); (p = strchr(p, '\n')); p++)
		lines++;
	ck_assert_uint_ge(lines, LOG_BURST);
	ck_assert_uint_lt(lines, 100); /* a second or two may pass on a slow machine */
	ck_assert_uint_eq(log_count(LOG_WARN) - warnings, lines);
	ck_assert_uint_gt(log_suppressed() - before, 400);
	log_warn("block", "another place has its own limit");
	ck_assert_ptr_nonnull(strstr(logged(), "another place"));
}
END_TEST

/* Whatever a guest names: one line, printable, and in JSON mode valid JSON. */
START_TEST(hostile_text)
{
	static const char evil[] = "a\n\033[2Jb\"c\\d\x7f\xff\xc3\xa9";
	char big[5000];
	json_t *v;

	log_write(LOG_INFO, "main", "%s", evil);
	ck_assert_str_eq(logged(), "vmm: main: a??[2Jb\"c\\d?\xff\xc3\xa9\n");
	log_set_json(true);
	log_set_guest_name("x\"y");
	log_write(LOG_INFO, "main", "%s", evil);
	v = json_loads(logged(), 0, NULL);
	ck_assert_ptr_nonnull(v);
	ck_assert_str_eq(json_string_value(json_object_get(v, "text")), "a??[2Jb\"c\\d????");
	ck_assert_str_eq(json_string_value(json_object_get(v, "guest")), "x\"y");
	ck_assert_str_eq(json_string_value(json_object_get(v, "level")), "info");
	ck_assert_str_eq(json_string_value(json_object_get(v, "room")), "main");
	ck_assert_uint_eq(strlen(json_string_value(json_object_get(v, "time"))), strlen("2026-11-21T05:00:00.000000Z"));
	json_decref(v);
	for (size_t len = 1900; len < sizeof(big) - 1; len += 7) {
		memset(big, '"', len);
		big[len] = 0;
		log_write(LOG_ERROR, "main", "%s", big);
		v = json_loads(logged(), 0, NULL);
		ck_assert_msg(v != NULL, "length %zu", len);
		json_decref(v);
	}
	log_set_json(false);
	log_set_guest_name("box");
	log_set_timestamp(true);
	log_write(LOG_ERROR, "main", "%s", big);
	{
		const char *line = logged();

		ck_assert_ptr_nonnull(strstr(line, "Z box vmm: error: main: \"\"\""));
		ck_assert_uint_eq(strcspn(line, "\n"), strlen(line) - 1);
	}
	log_set_timestamp(false);
	log_set_guest_name(NULL);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("log");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, levels_and_filters);
	tcase_add_test(t, rate_limit);
	tcase_add_test(t, hostile_text);
	return run_suite("log", (TCase *[]){t, NULL});
}
