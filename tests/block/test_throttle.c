/* I/O limits, on a clock that the test moves. */
#include "block_test.h"

#include "vmm/clock.h"

#define N 400

static struct block_req req[N];
static char buf[N][65536]; /* one each: workers fill them at the same time */
static unsigned finished, failed;

static void on_done(struct block_req *r, int ret)
{
	finished++;
	failed += ret != 0;
}

static void submit(struct block *b, enum block_op op, unsigned first, unsigned n, uint64_t len)
{
	static struct iovec iov[N];

	for (unsigned i = first; i < first + n; i++) {
		iov[i] = (struct iovec){buf[i], len};
		req[i] = (struct block_req){.op = op, .len = len, .iov = &iov[i], .n_iov = 1, .done = on_done};
		block_submit(b, &req[i]);
	}
}

/* Exactly that many are done, and no more come without the clock. */
static void expect_done(unsigned want)
{
	for (int i = 0; finished < want && i < 2000; i++)
		loop_step(loop_main(), 5);
	for (int i = 0; i < 5; i++)
		loop_step(loop_main(), 2);
	ck_assert_uint_eq(finished, want);
}

/* A timer fires when its request may go, rounded up. */
static void advance(uint64_t ns)
{
	clock_manual_step(ns + 10 * NS_PER_US);
}

static void start(void)
{
	finished = failed = 0;
	clock_use_manual(0);
}

/* 100 a second: a tenth of a second's worth at once, and the one that overflows; the rest at that rate. */
START_TEST(operations)
{
	struct block *b;

	start();
	b = drive("file=%s,format=raw,id=d,iops=100", image("a", 1 << 20));
	submit(b, BLOCK_READ, 0, 50, 512);
	expect_done(11);
	advance(NS_PER_SEC / 10);
	expect_done(21);
	advance(NS_PER_SEC / 10);
	expect_done(31);
	advance(NS_PER_SEC);
	expect_done(50);
	ck_assert_uint_eq(failed, 0);
}
END_TEST

START_TEST(bytes_by_direction)
{
	struct block *b;

	start();
	b = drive("file=%s,format=raw,id=d,throttling.bps-write=655360",
		  image("a", 1 << 20)); /* ten of 64 KiB a second */
	submit(b, BLOCK_WRITE, 0, 10, 65536);
	expect_done(2);
	submit(b, BLOCK_READ, 10, 20, 65536); /* reads have no limit */
	expect_done(22);
	advance(NS_PER_SEC / 2);
	expect_done(27);
	advance(NS_PER_SEC);
	expect_done(30);
}
END_TEST

/* 10 a second, 50 in bursts of 2 seconds: 100 may come, but no more than 50 of them in a second. */
START_TEST(bursts)
{
	struct block *b;

	start();
	b = drive("file=%s,format=raw,id=d,iops=10,iops_max=50,iops_max_length=2", image("a", 1 << 20));
	submit(b, BLOCK_READ, 0, 300, 512);
	expect_done(6); /* a tenth of a second's worth of the burst rate, and one */
	advance(NS_PER_SEC);
	expect_done(56);
	advance(NS_PER_SEC);
	expect_done(106);
	advance(NS_PER_SEC); /* the burst is used up */
	ck_assert_uint_le(finished, 160);
	for (int i = 0; i < 10; i++)
		advance(NS_PER_SEC);
	ck_assert_uint_le(finished, 250);
	block_drain(b);
}
END_TEST

START_TEST(large_operations_count_for_several)
{
	struct block *b;

	start();
	b = drive("file=%s,format=raw,id=d,iops=100,iops_size=4096", image("a", 1 << 20));
	submit(b, BLOCK_READ, 0, 10, 65536); /* each is 16 */
	expect_done(1);
	advance(NS_PER_SEC * 16 / 100);
	expect_done(2);
	block_drain(b);
}
END_TEST

START_TEST(group)
{
	struct block *a, *b;

	start();
	a = drive("file=%s,format=raw,id=a,if=none,iops=100,group=both", image("a", 1 << 20));
	b = drive("file=%s,format=raw,id=b,if=none,iops=100,throttling.group=both", image("b", 1 << 20));
	submit(a, BLOCK_READ, 0, 11, 512);
	submit(b, BLOCK_READ, 11, 10, 512);
	expect_done(11);
	advance(NS_PER_SEC / 20);
	expect_done(16);
	advance(NS_PER_SEC);
	expect_done(21);
}
END_TEST

/* Whoever waits for the end of all requests does not wait for the limit. */
START_TEST(drain_release_and_cancel)
{
	struct block *b;

	start();
	b = drive("file=%s,format=raw,id=d,iops=1", image("a", 1 << 20));
	submit(b, BLOCK_READ, 0, 20, 512);
	block_drain(b);
	ck_assert_uint_eq(finished, 20);
	submit(b, BLOCK_READ, 20, 5, 512);
	block_cancel(b, &req[24]);
	expect_done(21);
	ck_assert_uint_eq(failed, 1);
	block_release_throttled();
	expect_done(25);
	submit(b, BLOCK_FLUSH, 25, 3, 0); /* never held back */
	expect_done(28);
}
END_TEST

START_TEST(change_at_run_time)
{
	struct block_limits l = {.avg = {[BLOCK_IOPS] = 1}, .max_length = {1, 1, 1, 1, 1, 1}};
	struct err e = ERR_INIT;
	const char *name;
	struct block *b;

	start();
	b = drive("file=%s,format=raw,id=d", image("a", 1 << 20));
	submit(b, BLOCK_READ, 0, 50, 512);
	expect_done(50);
	ck_assert_int_eq(block_set_limits(b, &l, NULL, &e), 0);
	ck_assert_uint_eq(block_get_limits(b, &name)->avg[BLOCK_IOPS], 1);
	ck_assert_str_eq(name, "d");
	submit(b, BLOCK_READ, 50, 10, 512);
	expect_done(51);
	ck_assert_int_eq(block_set_limits(b, &l, "other", &e), 0); /* to another group: what waited goes on */
	expect_done(60);
	submit(b, BLOCK_READ, 60, 10, 512);
	expect_done(61);
	l.avg[BLOCK_IOPS] = 0;
	ck_assert_int_eq(block_set_limits(b, &l, NULL, &e), 0); /* no limit: nothing waits */
	expect_done(70);
}
END_TEST

START_TEST(mistakes)
{
	static const struct {
		const char *options, *words;
	} wrong[] = {
		{"bps=1,bps_rd=1", "cannot be used at the same time"},
		{"iops=1,iops_wr=1", "cannot be used at the same time"},
		{"iops_size=1", "requires an iops value"},
		{"bps_max=5", "require corresponding"},
		{"bps=5,bps_max=4", "cannot be lower"},
		{"bps=5,bps_max_length=2", "without burst rate"},
		{"bps=5,bps_max=5,bps_max_length=0", "cannot be 0"},
		{"bps=1000000000000001", "within"},
		{"bps=1000000000000,bps_max=1000000000000,bps_max_length=100000", "too high"},
	};
	struct err e;

	start();
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		ck_assert_ptr_null(try_drive(&e, "file=%s,format=raw,%s", image("a", 512), wrong[i].options));
		ck_assert_msg(strstr(e.msg, wrong[i].words) != NULL, "%s: %s", wrong[i].options, e.msg);
	}
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {operations,
				      bytes_by_direction,
				      bursts,
				      large_operations_count_for_several,
				      group,
				      drain_release_and_cancel,
				      change_at_run_time,
				      mistakes};

	return run_tests("throttle", tests, ARRAY_SIZE(tests));
}
