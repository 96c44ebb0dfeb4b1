/* What the tests of character devices share: front ends that record, peers, a main loop that runs until something is
 * true. */
#ifndef TESTS_UNIT_CHARDEV_TEST_H
#define TESTS_UNIT_CHARDEV_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "tests/lib/suite.h"
#include "vmm/chardev.h"
#include "vmm/loop.h"

static char dir[64];
static struct err e;

/* A front end that records. */
struct fe {
	struct chardev *c;
	pthread_mutex_t lock;
	char in[300000];
	size_t n, room;
	int opened, closed, breaks, writable;
};
static struct fe fe, fe2;

static inline size_t fe_can_receive(void *opaque)
{
	return ((struct fe *)opaque)->room;
}
static inline void fe_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct fe *f = opaque;

	ck_assert_uint_le(len, f->room);
	ck_assert_uint_le(f->n + len, sizeof(f->in));
	memcpy(f->in + f->n, buf, len);
	f->n += len;
	f->room -= len;
}
static inline void fe_event(void *opaque, enum chardev_event ev)
{
	struct fe *f = opaque;

	f->opened += ev == CHARDEV_OPENED;
	f->closed += ev == CHARDEV_CLOSED;
	f->breaks += ev == CHARDEV_BREAK;
}
static inline void fe_writable(void *opaque)
{
	((struct fe *)opaque)->writable++;
}
static const struct chardev_frontend wire = {fe_can_receive, fe_receive, fe_event, fe_writable, false};
static const struct chardev_frontend protocol = {fe_can_receive, fe_receive, fe_event, fe_writable, true};

static inline char *path(const char *name)
{
	static char bufs[8][128];
	static int i;
	char *p = bufs[i++ % 8];

	snprintf(p, 128, "%s/%s", dir, name);
	return p;
}

static inline struct chardev *try_open(const char *text)
{
	struct opts o;
	struct chardev *c;

	e = ERR_INIT;
	ck_assert_int_eq(opts_parse(&o, text, "backend", &e), 0);
	c = chardev_open(&o, &e);
	opts_free(&o);
	return c;
}

static inline struct chardev *open_fmt(const char *fmt, ...)
{
	char text[512];
	va_list ap;
	struct chardev *c;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c = try_open(text);
	ck_assert_msg(c != NULL, "%s: %s", text, e.msg);
	return c;
}

static inline void attach(struct fe *f, const char *id, const struct chardev_frontend *ops)
{
	memset(f, 0, sizeof(*f));
	pthread_mutex_init(&f->lock, NULL);
	f->room = sizeof(f->in);
	f->c = chardev_claim(id, "a test", &e);
	ck_assert_msg(f->c != NULL, "%s", e.msg);
	chardev_attach(f->c, ops, f, &f->lock);
}

#define UNTIL(cond)                                                               \
	do {                                                                      \
		for (int tries = 0; !(cond); tries++) {                           \
			ck_assert_msg(tries < 1000, "never happened: %s", #cond); \
			loop_step(loop_main(), 5);                                \
		}                                                                 \
	} while (0)

static inline size_t put(struct fe *f, const void *buf, size_t len)
{
	size_t n;

	pthread_mutex_lock(&f->lock);
	n = chardev_write(f->c, buf, len);
	pthread_mutex_unlock(&f->lock);
	return n;
}

static inline void puts_to(struct fe *f, const char *s)
{
	ck_assert_uint_eq(put(f, s, strlen(s)), strlen(s));
}

static inline int connect_unix(const char *p)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", p);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static inline int listen_unix(const char *p)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", p);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	ck_assert_int_eq(listen(fd, 4), 0);
	return fd;
}

/* Read exactly len bytes from fd while the loop runs. */
static inline char *read_peer(int fd, size_t len)
{
	static char buf[1 << 20];
	size_t n = 0;

	for (int tries = 0; n < len; tries++) {
		ssize_t r = recv(fd, buf + n, len - n, MSG_DONTWAIT);

		if (r < 0 && errno == ENOTSOCK)
			r = read(fd, buf + n, len - n);
		if (r > 0)
			n += r;
		ck_assert_msg(tries < 2000, "got %zu of %zu bytes", n, len);
		loop_step(loop_main(), r > 0 ? 0 : 2);
	}
	buf[n] = 0;
	return buf;
}

static inline void slurp(const char *p, char *buf, size_t size)
{
	int fd = open(p, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	buf[n < 0 ? 0 : n] = 0;
	close(fd);
}

static inline void setup(void)
{
	strcpy(dir, "/tmp/vmm-chardev-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(loop_init_main(&e), 0);
}

static inline void teardown(void)
{
	char cmd[128];

	chardev_close_all();
	loop_free(loop_main());
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	ck_assert_int_eq(system(cmd), 0);
}

#endif
