/* What the block tests share: images in a scratch directory, drives from option strings. */
#ifndef BLOCK_TEST_H
#define BLOCK_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/suite.h"
#include "vmm/block.h"
#include "vmm/log.h"
#include "vmm/loop.h"

static char scratch[] = "block-test-XXXXXX";

static inline const char *path(const char *name)
{
	static char buf[4][256];
	static int n;

	n = (n + 1) % 4;
	snprintf(buf[n], sizeof(buf[n]), "%s/%s", scratch, name);
	return buf[n];
}

/* A sparse image of `size` bytes. */
static inline const char *image(const char *name, uint64_t size)
{
	const char *p = path(name);
	int fd = open(p, O_RDWR | O_CREAT | O_TRUNC, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
	close(fd);
	return p;
}

static inline void put_bytes(const char *p, off_t at, const void *buf, size_t len)
{
	int fd = open(p, O_WRONLY);

	ck_assert_int_eq(pwrite(fd, buf, len, at), (ssize_t)len);
	close(fd);
}

static inline void get_bytes(const char *p, off_t at, void *buf, size_t len)
{
	int fd = open(p, O_RDONLY);

	ck_assert_int_eq(pread(fd, buf, len, at), (ssize_t)len);
	close(fd);
}

static inline uint64_t allocated(const char *p)
{
	struct stat st;

	ck_assert_int_eq(stat(p, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

/* block_open() from text; NULL with the message in *e. */
VMM_PRINTF(2, 3) static inline struct block *try_drive(struct err *e, const char *fmt, ...)
{
	struct opts o = {0};
	struct block *b;
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	*e = ERR_INIT;
	ck_assert_int_eq(opts_parse(&o, text, "file", e), 0);
	b = block_open(&o, e);
	opts_free(&o);
	return b;
}

#define drive(...)                                                \
	({                                                        \
		struct err e_;                                    \
		struct block *b_ = try_drive(&e_, __VA_ARGS__);   \
		ck_assert_msg(b_ != NULL, "refused: %s", e_.msg); \
		b_;                                               \
	})
#define refused(text, ...)                                                          \
	do {                                                                        \
		struct err e_;                                                      \
		struct block *b_ = try_drive(&e_, __VA_ARGS__);                     \
		ck_assert_msg(b_ == NULL, "accepted");                              \
		ck_assert_msg(strstr(e_.msg, text) != NULL, "message: %s", e_.msg); \
	} while (0)

static inline void setup(void)
{
	ck_assert_int_eq(loop_init_main(NULL), 0);
	ck_assert_ptr_nonnull(mkdtemp(scratch));
	log_set_level(LOG_ERROR);
}

static inline void teardown(void)
{
	char cmd[256];

	block_close_all();
	snprintf(cmd, sizeof(cmd), "rm -rf %s", scratch);
	ck_assert_int_eq(system(cmd), 0);
}

static inline int run_tests(const char *name, const TTest *const *tests, size_t n)
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	for (size_t i = 0; i < n; i++)
		tcase_add_test(tc, tests[i]);
	return run_suite(name, (TCase *[]){tc, NULL});
}

#endif
