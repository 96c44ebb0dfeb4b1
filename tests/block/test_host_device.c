/*
 * Block devices as images: loop devices, with sectors of 512 and, where requests of 512 bytes must be turned into
 * read-modify-write, of 4096 bytes. Skipped (77) where no loop device can be had.
 */
#include "block_test.h"

#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define SIZE (1u << 20)

/* A loop device over the image; its path, or NULL with the reason. It goes away with its last user. */
static const char *loop_device(int image_fd, unsigned sector, const char **why)
{
	static char name[32];
	struct loop_config config = {
		.fd = (uint32_t)image_fd, .block_size = sector, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), fd = -1, n = -1;

	*why = "no loop device here, or no right to set one up";
	for (int attempt = 0; control >= 0 && n < 0 && attempt < 10; attempt++) {
		n = ioctl(control, LOOP_CTL_GET_FREE);
		snprintf(name, sizeof(name), "/dev/loop%d", n);
		fd = n < 0 ? -1 : open(name, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			break;
		n = ioctl(fd, LOOP_CONFIGURE, &config); /* fd stays open: it keeps the device */
		if (n < 0)
			close(fd);
		if (n < 0 && errno != EBUSY) /* EBUSY: another process was quicker */
			break;
	}
	if (control >= 0)
		close(control);
	return n < 0 || fd < 0 ? NULL : name;
}

static const char *device(unsigned sector)
{
	int fd = open(image("backing", SIZE), O_RDWR | O_CLOEXEC);
	const char *why, *name = loop_device(fd, sector, &why);

	close(fd);
	ck_assert_msg(name != NULL, "%s", why);
	return name;
}

START_TEST(size_and_names)
{
	struct block *b = drive("file=%s,format=raw,id=d0", device(512));
	struct block_info info;

	block_get_info(b, &info);
	ck_assert_str_eq(info.protocol, "host_device");
	ck_assert_uint_eq(block_size(b), SIZE);
	ck_assert_uint_eq(block_physical_sector(b), 512);
}
END_TEST

START_TEST(protocol_must_fit)
{
	const char *name = device(512);

	refused("to be a regular file", "file.driver=file,file.filename=%s,format=raw", name);
	refused("to be a block device", "file.driver=host_device,file.filename=%s,format=raw", image("f", 512));
}
END_TEST

/* Pieces smaller than a sector, at its edges and across: what is around them stays. */
static void small_writes(const char *options, unsigned sector)
{
	static const struct {
		unsigned at, len;
	} pieces[] = {{0, 512}, {512, 512}, {3584, 512}, {3584, 1024}, {4096, 4096}, {512, 8192}, {20480 - 512, 9216}};
	struct block *b;
	uint8_t want[65536], got[65536], piece[16384];

	b = drive("file=%s,format=raw,%s", device(sector), options);
	ck_assert_uint_eq(block_physical_sector(b), sector);
	for (size_t i = 0; i < sizeof(want); i++)
		want[i] = (uint8_t)(i * 7 + i / 512);
	ck_assert_int_eq(block_pwrite(b, 0, want, sizeof(want)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		memset(piece, (int)(0x80 + i), sizeof(piece));
		memcpy(want + pieces[i].at, piece, pieces[i].len);
		ck_assert_int_eq(block_pwrite(b, pieces[i].at, piece, pieces[i].len), 0);
		ck_assert_int_eq(block_pread(b, pieces[i].at, got, pieces[i].len), 0);
		ck_assert_mem_eq(got, piece, pieces[i].len);
	}
	ck_assert_int_eq(block_flush_sync(b), 0);
	get_bytes(path("backing"), 0, got, sizeof(got));
	ck_assert_mem_eq(got, want, sizeof(got));
}

START_TEST(small_writes_through_the_page_cache)
{
	small_writes("cache=writeback", 4096);
}
END_TEST

START_TEST(small_writes_direct)
{
	small_writes("cache=none", 512);
	small_writes("cache=none", 4096);
}
END_TEST

START_TEST(small_writes_with_libaio)
{
	small_writes("cache=none,aio=native", 4096);
}
END_TEST

struct write {
	struct block_req req;
	struct iovec iov;
	uint8_t data[512];
	unsigned *left;
};

static void written(struct block_req *req, int ret)
{
	struct write *w = req->opaque;

	ck_assert_int_eq(ret, 0);
	--*w->left;
}

/* Eight neighbours that share one sector of 4096 bytes are written at once: each read-modify-write must see the others.
 */
START_TEST(neighbours_written_at_once_do_not_undo_each_other)
{
	struct block *b = drive("file=%s,format=raw,cache=none", device(4096));
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct write w[64];
	unsigned left = ARRAY_SIZE(w);
	uint8_t got[sizeof(w[0].data)];

	for (unsigned i = 0; i < ARRAY_SIZE(w); i++) {
		memset(w[i].data, (int)i + 1, sizeof(w[i].data));
		w[i].iov = (struct iovec){w[i].data, sizeof(w[i].data)};
		w[i].left = &left;
		w[i].req = (struct block_req){.op = BLOCK_WRITE,
					      .offset = i * 512ull,
					      .len = 512,
					      .iov = &w[i].iov,
					      .n_iov = 1,
					      .lock = &lock,
					      .done = written,
					      .opaque = &w[i]};
		block_submit(b, &w[i].req);
	}
	ck_assert_int_eq(block_drain(b), 0);
	ck_assert_uint_eq(left, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(w); i++) {
		ck_assert_int_eq(block_pread(b, i * 512ull, got, sizeof(got)), 0);
		ck_assert_mem_eq(got, w[i].data, sizeof(got));
	}
}
END_TEST

START_TEST(second_writer_is_refused)
{
	const char *name = device(512);
	struct block *b = drive("file=%s,format=raw", name);

	refused("lock", "file=%s,format=raw", name);
	block_close(b);
	b = drive("file=%s,format=raw", name);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		size_and_names,           protocol_must_fit,        small_writes_through_the_page_cache,
		small_writes_direct,      small_writes_with_libaio, neighbours_written_at_once_do_not_undo_each_other,
		second_writer_is_refused,
	};
	int fd = memfd_create("image", MFD_CLOEXEC);
	const char *why;

	if (ftruncate(fd, SIZE) || !loop_device(fd, 4096, &why)) {
		printf("SKIP: %s\n", why);
		return 77;
	}
	return run_tests("host_device", tests, ARRAY_SIZE(tests));
}
