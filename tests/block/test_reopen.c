/* blockdev-reopen seen by the data: each way of reaching the file reads what the others wrote. And write thresholds. */
#include "block_test.h"

static struct block *node(const char *text)
{
	struct opts o = {0};
	struct err e = ERR_INIT;
	struct block *b;

	ck_assert_int_eq(opts_parse(&o, text, NULL, &e), 0);
	b = block_open_blockdev(&o, &e);
	ck_assert_msg(b != NULL, "refused: %s", e.msg);
	opts_free(&o);
	return b;
}

static int reopen(const char *text, struct err *e)
{
	struct opts o = {0};
	int r;

	*e = ERR_INIT;
	ck_assert_int_eq(opts_parse(&o, text, NULL, e), 0);
	r = block_reopen(&o, 1, e);
	opts_free(&o);
	return r;
}

static const char *file_node(const char *p, const char *more)
{
	static char text[512];

	snprintf(text, sizeof(text), "driver=file,node-name=f,filename=%s%s", p, more);
	return text;
}

START_TEST(data_survives_every_way)
{
	static const char *const ways[] = {"",
					   ",cache.direct=on",
					   ",cache.direct=on,aio=native",
					   ",aio=threads",
					   ",cache.no-flush=on",
					   ",discard=unmap,detect-zeroes=unmap"};
	const char *p = image("disk", 1 << 20);
	struct block *b = node(file_node(p, ""));
	char buf[1024], want[1024];
	struct err e;

	for (unsigned i = 0; i < 3 * ARRAY_SIZE(ways); i++) {
		int r = reopen(file_node(p, ways[i % ARRAY_SIZE(ways)]), &e);

		ck_assert_msg(!r || strstr(e.msg, "O_DIRECT") || strstr(e.msg, "cache.direct"), "%s", e.msg);
		memset(want, (int)i + 1, sizeof(want));
		/* Not aligned to 512: with O_DIRECT it goes through a bounce buffer. */
		ck_assert_int_eq(block_pwrite(b, 100 + 3000 * i, want, sizeof(want)), 0);
		for (unsigned k = 0; k <= i; k++) {
			memset(want, (int)k + 1, sizeof(want));
			ck_assert_int_eq(block_pread(b, 100 + 3000 * k, buf, sizeof(buf)), 0);
			ck_assert_mem_eq(buf, want, sizeof(buf));
		}
	}
	ck_assert_int_eq(reopen(file_node(p, ",read-only=on"), &e), 0);
	ck_assert_int_eq(block_pwrite(b, 0, "x", 1), -EPERM);
	ck_assert_int_eq(block_pread(b, 100, buf, sizeof(buf)), 0);
	ck_assert_int_eq(buf[0], 1);
	ck_assert_int_eq(reopen(file_node(p, ""), &e), 0);
	ck_assert_int_eq(block_pwrite(b, 0, "x", 1), 0);
}
END_TEST

static char event[256];
static unsigned events;

static void on_event(void *opaque, const char *name, const char *json)
{
	ck_assert_str_eq(name, "BLOCK_WRITE_THRESHOLD");
	snprintf(event, sizeof(event), "%s", json);
	events++;
}

START_TEST(threshold_tells_once)
{
	struct block *b = node(file_node(image("disk", 1 << 20), ""));
	struct block_info info;
	struct err e = ERR_INIT;

	block_set_event_handler(on_event, NULL);
	ck_assert_int_eq(block_set_write_threshold("f", 4096, &e), 0);
	block_get_info(b, &info);
	ck_assert_uint_eq(info.write_threshold, 4096);
	ck_assert_int_eq(block_pwrite(b, 0, "1234", 4), 0);
	ck_assert_int_eq(block_pwrite(b, 4092, "1234", 4), 0);
	ck_assert_uint_eq(events, 0);
	ck_assert_int_eq(block_pwrite(b, 4094, "1234", 4), 0); /* in whole sectors */
	ck_assert_uint_eq(events, 1);
	ck_assert_str_eq(event, "{\"node-name\": \"f\", \"amount-exceeded\": 512, \"write-threshold\": 4096}");
	ck_assert_int_eq(block_pwrite(b, 8192, "1234", 4), 0);
	ck_assert_uint_eq(events, 1);
	block_get_info(b, &info);
	ck_assert_uint_eq(info.write_threshold, 0);
	ck_assert_int_eq(block_set_write_threshold("nope", 1, &e), -ENOENT);
	ck_assert_str_eq(e.msg, "Device 'nope' not found");
	block_set_event_handler(NULL, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {data_survives_every_way, threshold_tells_once};

	return run_tests("block-reopen", tests, ARRAY_SIZE(tests));
}
