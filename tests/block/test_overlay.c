/* snapshot=on, sparseness and discards: what ends up on disk. */
#include "block_test.h"

START_TEST(snapshot_leaves_the_image_alone)
{
	const char *p = image("base", 1 << 20);
	char before[4096], buf[8192], want[8192];
	struct block *b;

	memset(before, 'b', sizeof(before));
	put_bytes(p, 8192, before, sizeof(before));
	b = drive("file=%s,format=raw,snapshot=on", p);
	ck_assert(!block_readonly(b));
	ck_assert_int_eq(block_pwrite(b, 8192 + 512, "new", 3), 0);
	ck_assert_int_eq(block_pread(b, 8192 - 512, buf, 8192), 0);
	memset(want, 0, sizeof(want));
	memset(want + 512, 'b', 4096);
	memcpy(want + 1024, "new", 3);
	ck_assert_mem_eq(buf, want, sizeof(want));
	block_close(b);
	get_bytes(p, 8192, buf, 4096);
	ck_assert_mem_eq(buf, before, 4096);
}
END_TEST

START_TEST(snapshot_works_on_a_read_only_image)
{
	const char *p = image("base", 65536);
	struct block *b;
	char c;

	ck_assert_int_eq(chmod(p, 0444), 0);
	b = drive("file=%s,format=raw,snapshot=on", p);
	ck_assert_int_eq(block_pwrite(b, 0, "x", 1), 0);
	ck_assert_int_eq(block_pread(b, 0, &c, 1), 0);
	ck_assert_int_eq(c, 'x');
}
END_TEST

START_TEST(snapshot_of_a_cdrom_needs_no_overlay)
{
	struct block *b = drive("file=%s,format=raw,media=cdrom,snapshot=on", image("cd", 65536));
	struct block_info info;

	block_get_info(b, &info);
	ck_assert(info.readonly && !info.snapshot);
	ck_assert_int_eq(block_pwrite(b, 0, "x", 1), -EPERM);
}
END_TEST

START_TEST(snapshot_leaves_nothing_in_tmpdir)
{
	struct block *b;
	char cmd[256];

	mkdir(path("tmp"), 0700);
	setenv("TMPDIR", path("tmp"), 1);
	b = drive("file=%s,format=raw,snapshot=on", image("base", 65536));
	ck_assert_int_eq(block_pwrite(b, 0, "x", 1), 0);
	snprintf(cmd, sizeof(cmd), "test -z \"$(ls -A %s)\"", path("tmp"));
	ck_assert_int_eq(system(cmd), 0);
	setenv("TMPDIR", path("nowhere"), 1);
	refused("temporary overlay", "file=%s,format=raw,snapshot=on", image("base2", 65536));
}
END_TEST

START_TEST(sparse_stays_sparse)
{
	const char *p = image("sparse", 64 << 20);
	struct block *b = drive("file=%s,format=raw,discard=unmap,detect-zeroes=unmap", p);
	static char zeroes[1 << 20];
	char ones[4096];

	memset(ones, 1, sizeof(ones));
	for (int i = 0; i < 16; i++)
		ck_assert_int_eq(block_pwrite(b, (uint64_t)i << 20, zeroes, sizeof(zeroes)), 0);
	ck_assert_uint_le(allocated(p), 64 * 1024);
	ck_assert_int_eq(block_pwrite(b, 32 << 20, ones, sizeof(ones)), 0);
	ck_assert_int_eq(block_flush_sync(b), 0);
	ck_assert_uint_ge(allocated(p), 4096);
	ck_assert_uint_le(allocated(p), 256 * 1024);
	ck_assert_uint_eq(block_size(b), 64 << 20);
}
END_TEST

static int last_ret;

static void note(struct block_req *req, int ret)
{
	last_ret = ret;
}

static int run(struct block *b, enum block_op op, uint64_t offset, uint64_t len)
{
	struct block_req r = {.op = op, .offset = offset, .len = len, .done = note};

	block_submit(b, &r);
	block_drain(b);
	return last_ret;
}

START_TEST(discard_gives_back_space_only_when_asked)
{
	const char *p = image("d", 8 << 20);
	static char data[4 << 20];
	struct block *b = drive("file=%s,format=raw", p);
	uint64_t full;

	memset(data, 3, sizeof(data));
	ck_assert_int_eq(block_pwrite(b, 0, data, sizeof(data)), 0);
	ck_assert_int_eq(block_flush_sync(b), 0);
	full = allocated(p);
	ck_assert_int_eq(run(b, BLOCK_DISCARD, 0, sizeof(data)), 0);
	ck_assert_uint_eq(allocated(p), full);
	block_close(b);
	b = drive("file=%s,format=raw,discard=unmap", p);
	ck_assert_int_eq(run(b, BLOCK_DISCARD, 0, sizeof(data)), 0);
	ck_assert_uint_le(allocated(p), full - (3 << 20));
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		snapshot_leaves_the_image_alone,
		snapshot_works_on_a_read_only_image,
		snapshot_leaves_nothing_in_tmpdir,
		snapshot_of_a_cdrom_needs_no_overlay,
		sparse_stays_sparse,
		discard_gives_back_space_only_when_asked,
	};

	return run_tests("overlay", tests, ARRAY_SIZE(tests));
}
