/* Latency histograms: every request is counted once, in the bin where it belongs. */
#include "block_test.h"
#include "src/block/block_private.h"

static struct block *open_image(void)
{
	return drive("file=%s,format=raw,if=none,id=d", image("img", 1 << 20));
}

static uint64_t all(const uint64_t *bin, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += bin[i];
	return sum;
}

START_TEST(bins)
{
	static const struct {
		uint64_t ns;
		unsigned bin;
	} cases[] = {{0, 0},     {1, 0},           {1024, 0},
		     {1025, 1},  {2048, 1},        {2049, 2},
		     {4096, 2},  {1ull << 32, 22}, {(1ull << 32) + 1, 23},
		     {~0ull, 23}};
	struct block *b = open_image();
	struct block_stats st;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct block_stats before;

		block_get_stats(b, &before);
		latency_account(b, BLOCK_WRITE, cases[i].ns);
		block_get_stats(b, &st);
		ck_assert_uint_eq(st.latency[BLOCK_WRITE][cases[i].bin], before.latency[BLOCK_WRITE][cases[i].bin] + 1);
	}
	ck_assert_uint_eq(all(st.latency[BLOCK_WRITE], BLOCK_LATENCY_BINS), ARRAY_SIZE(cases));
	block_close(b);
}
END_TEST

START_TEST(own_boundaries)
{
	static const uint64_t boundaries[] = {10, 50, 100};
	static const uint64_t ns[] = {0, 9, 10, 49, 50, 99, 100, 5000};
	struct block *b = open_image();
	struct block_histogram h;

	latency_account(b, BLOCK_READ, 1); /* nobody asked */
	block_set_histogram(b, BLOCK_READ, boundaries, 3);
	for (size_t i = 0; i < ARRAY_SIZE(ns); i++)
		latency_account(b, BLOCK_READ, ns[i]);
	h = block_get_histogram(b, BLOCK_READ);
	ck_assert_uint_eq(h.n, 3);
	for (size_t i = 0; i < 4; i++)
		ck_assert_uint_eq(h.bin[i], 2);
	ck_assert_uint_eq(block_get_histogram(b, BLOCK_WRITE).n, 0);
	ck_assert_uint_eq(block_get_histogram(b, BLOCK_DISCARD).n, 0);
	block_set_histogram(b, BLOCK_READ, boundaries, 1); /* begins anew */
	h = block_get_histogram(b, BLOCK_READ);
	ck_assert_uint_eq(all(h.bin, h.n + 1), 0);
	block_close(b);
}
END_TEST

/* Real requests: successes, and one that is refused. */
START_TEST(requests)
{
	struct block *b = open_image();
	struct block_stats st;
	uint8_t buf[512] = {0};

	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(block_pwrite(b, (uint64_t)i * 512, buf, sizeof(buf)), 0);
	ck_assert_int_eq(block_pread(b, 0, buf, sizeof(buf)), 0);
	ck_assert_int_eq(block_pread(b, 1 << 20, buf, sizeof(buf)), -EIO);
	block_get_stats(b, &st);
	ck_assert_uint_eq(st.ops[BLOCK_WRITE], 5);
	ck_assert_uint_eq(all(st.latency[BLOCK_WRITE], BLOCK_LATENCY_BINS), 5);
	ck_assert_uint_eq(st.ops[BLOCK_READ], 1);
	ck_assert_uint_eq(st.invalid[BLOCK_READ], 1);
	ck_assert_uint_eq(st.errors[BLOCK_READ], 0);
	ck_assert_uint_eq(all(st.latency[BLOCK_READ], BLOCK_LATENCY_BINS), 1);
	ck_assert_uint_gt(st.last_access_ns, 0);
	ck_assert(st.account_failed && st.account_invalid);
	block_close(b);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {bins, own_boundaries, requests};

	return run_tests("latency", tests, ARRAY_SIZE(tests));
}
