/*
 * Each engine against a model: thousands of random reads, writes, zero writes, discards and flushes with many in
 * flight, torn into odd buffers, must leave the image exactly as a byte array in memory.
 */
#include "block_test.h"

enum { SLOTS = 48, SLOT_SIZE = 32 * 1024, SIZE = SLOTS * SLOT_SIZE, ROUNDS = 2500 };

struct slot {
	struct block_req req;
	struct iovec iov[8];
	uint8_t *buf;
	uint64_t at, len; /* within the slot */
	bool busy;
};

static struct slot slots[SLOTS];
static uint8_t *model;
static unsigned in_flight, seed;

static unsigned rnd(unsigned n)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 8) % n;
}

static void done(struct block_req *req, int ret)
{
	struct slot *s = container_of(req, struct slot, req);

	ck_assert_int_eq(ret, 0);
	if (req->op == BLOCK_READ)
		for (uint64_t pos = 0, i = 0; pos < req->len; pos += s->iov[i++].iov_len)
			ck_assert_mem_eq(s->iov[i].iov_base, model + req->offset + pos, s->iov[i].iov_len);
	s->busy = false;
	in_flight--;
}

/* Cut the buffer into up to 8 pieces at 512-byte borders; sometimes start it at an odd address. */
static void cut(struct slot *s)
{
	uint8_t *p = s->buf + (rnd(4) ? 0 : 1 + rnd(511));
	uint64_t left = s->req.len;

	s->req.n_iov = 0;
	while (left) {
		uint64_t take = s->req.n_iov == 7 ? left : MIN(left, 512ull * (1 + rnd(16)));

		s->iov[s->req.n_iov++] = (struct iovec){p, take};
		p += take;
		left -= take;
	}
}

static void start(struct block *b, unsigned n)
{
	struct slot *s = &slots[n];
	unsigned kind = rnd(16);

	s->at = 512ull * rnd(SLOT_SIZE / 512);
	s->len = MIN(512ull * (1 + rnd(40)), SLOT_SIZE - s->at);
	s->req = (struct block_req){
		.offset = (uint64_t)n * SLOT_SIZE + s->at, .len = s->len, .iov = s->iov, .done = done};
	s->req.op = kind < 7    ? BLOCK_READ
		    : kind < 13 ? BLOCK_WRITE
		    : kind < 14 ? BLOCK_WRITE_ZEROES
		    : kind < 15 ? BLOCK_DISCARD
				: BLOCK_FLUSH;
	cut(s);
	if (s->req.op == BLOCK_WRITE) {
		bool zero = !rnd(6);
		uint64_t pos = 0;

		s->req.fua = !rnd(8);
		for (int i = 0; i < s->req.n_iov; i++)
			memset(s->iov[i].iov_base, zero ? 0 : (int)rnd(256), s->iov[i].iov_len);
		for (int i = 0; i < s->req.n_iov; pos += s->iov[i++].iov_len)
			memcpy(model + s->req.offset + pos, s->iov[i].iov_base, s->iov[i].iov_len);
	} else if (s->req.op == BLOCK_WRITE_ZEROES || s->req.op == BLOCK_DISCARD) {
		memset(model + s->req.offset, 0, s->len);
	}
	s->busy = true;
	in_flight++;
	block_submit(b, &s->req);
}

/* options must include discard=unmap: then discarded ranges of a file read as zeroes. */
static void exercise(const char *options, unsigned start_seed)
{
	const char *p = image("e.raw", SIZE);
	struct block *b;
	struct err e;
	uint8_t *all = malloc(SIZE);
	struct block_stats st;

	b = try_drive(&e, "file=%s,format=raw,discard=unmap,%s", p, options);
	if (!b && (strstr(e.msg, "O_DIRECT") || strstr(e.msg, "io_uring"))) {
		fprintf(stderr, "skipped %s: %s\n", options, e.msg);
		free(all);
		return;
	}
	ck_assert_msg(b != NULL, "%s", e.msg);
	seed = start_seed;
	model = calloc(1, SIZE);
	for (int i = 0; i < SLOTS; i++)
		ck_assert_int_eq(posix_memalign((void **)&slots[i].buf, 4096, 2 * SLOT_SIZE), 0);
	for (int i = 0; i < ROUNDS; i++) {
		unsigned n = rnd(SLOTS);

		while (slots[n].busy || in_flight > 24)
			loop_step(loop_main(), -1);
		start(b, n);
	}
	block_drain(b);
	ck_assert_uint_eq(in_flight, 0);
	ck_assert_int_eq(block_pread(b, 0, all, SIZE), 0);
	ck_assert_mem_eq(all, model, SIZE);
	block_get_stats(b, &st);
	ck_assert_uint_gt(st.ops[BLOCK_WRITE], 500);
	ck_assert_uint_gt(st.bytes[BLOCK_READ], SIZE);
	ck_assert_uint_gt(st.time_ns[BLOCK_READ], 0);
	ck_assert_uint_eq(st.errors[BLOCK_READ] + st.errors[BLOCK_WRITE], 0);
	block_close(b);
	if (!strstr(options, "snapshot")) {
		get_bytes(p, 0, all, SIZE);
		ck_assert_mem_eq(all, model, SIZE);
	}
	for (int i = 0; i < SLOTS; i++)
		free(slots[i].buf);
	free(model);
	free(all);
}

START_TEST(threads_cached)
{
	exercise("cache=writeback", 1);
}
END_TEST

START_TEST(threads_writethrough_detect_zeroes)
{
	exercise("cache=writethrough,detect-zeroes=unmap", 2);
}
END_TEST

START_TEST(threads_direct)
{
	exercise("cache=none", 3);
}
END_TEST

START_TEST(native)
{
	exercise("cache=none,aio=native", 4);
}
END_TEST

START_TEST(native_directsync_zeroes)
{
	exercise("cache=directsync,aio=native,detect-zeroes=on", 5);
}
END_TEST

START_TEST(io_uring_cached)
{
	exercise("aio=io_uring", 6);
}
END_TEST

START_TEST(io_uring_direct)
{
	exercise("aio=io_uring,cache=none", 7);
}
END_TEST

START_TEST(overlay)
{
	exercise("snapshot=on", 8);
}
END_TEST

static int cancelled, completed;

static void count_done(struct block_req *req, int ret)
{
	ck_assert(ret == 0 || ret == -ECANCELED);
	completed++;
	cancelled += ret == -ECANCELED;
}

/* Every request completes exactly once, cancelled or not, and close waits for them. */
START_TEST(cancel_and_close)
{
	static struct block_req r[200];
	static char buf[200][4096];
	static struct iovec iov[200];
	struct block *b = drive("file=%s,format=raw", image("c", 1 << 20));

	for (int i = 0; i < 200; i++) {
		iov[i] = (struct iovec){buf[i], 4096};
		r[i] = (struct block_req){
			.op = BLOCK_READ, .len = 4096, .iov = &iov[i], .n_iov = 1, .done = count_done};
		block_submit(b, &r[i]);
	}
	ck_assert_uint_eq(block_inflight(b), 200);
	for (int i = 0; i < 200; i++)
		block_cancel(b, &r[i]);
	block_close(b);
	ck_assert_int_eq(completed, 200);
	ck_assert_int_gt(cancelled, 0);
}
END_TEST

static int threads_now(void)
{
	char line[128];
	FILE *f = fopen("/proc/self/status", "r");
	int n = -1;

	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Threads: %d", &n) == 1)
			break;
	fclose(f);
	return n;
}

START_TEST(workers_come_and_go)
{
	struct block *b;
	char c;
	int before = threads_now();

	b = drive("file=%s,format=raw", image("t", 4096));
	ck_assert_int_eq(threads_now(), before); /* an idle drive costs no thread */
	for (int i = 0; i < 100; i++)
		ck_assert_int_eq(block_pread(b, 0, &c, 1), 0);
	ck_assert_int_le(threads_now(), before + 8); /* one at a time needs a worker or few */
	block_close_all();
	while (threads_now() > before)
		usleep(100);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		threads_cached,           threads_writethrough_detect_zeroes,
		threads_direct,           native,
		native_directsync_zeroes, io_uring_cached,
		io_uring_direct,          overlay,
		cancel_and_close,         workers_come_and_go,
	};

	return run_tests("engines", tests, ARRAY_SIZE(tests));
}
