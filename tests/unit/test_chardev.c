/* Character devices: every backend, flow control towards peers that hang or vanish, the mux, bad options. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include "src/chardev/backend.h"
#include "tests/lib/suite.h"
#include "vmm/chardev.h"
#include "vmm/clock.h"
#include "vmm/fdset.h"

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

static size_t fe_can_receive(void *opaque)
{
	return ((struct fe *)opaque)->room;
}
static void fe_receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct fe *f = opaque;

	ck_assert_uint_le(len, f->room);
	ck_assert_uint_le(f->n + len, sizeof(f->in));
	memcpy(f->in + f->n, buf, len);
	f->n += len;
	f->room -= len;
}
static void fe_event(void *opaque, enum chardev_event ev)
{
	struct fe *f = opaque;

	f->opened += ev == CHARDEV_OPENED;
	f->closed += ev == CHARDEV_CLOSED;
	f->breaks += ev == CHARDEV_BREAK;
}
static void fe_writable(void *opaque)
{
	((struct fe *)opaque)->writable++;
}
static const struct chardev_frontend wire = {fe_can_receive, fe_receive, fe_event, fe_writable, false};
static const struct chardev_frontend protocol = {fe_can_receive, fe_receive, fe_event, fe_writable, true};

static char *path(const char *name)
{
	static char bufs[8][128];
	static int i;
	char *p = bufs[i++ % 8];

	snprintf(p, 128, "%s/%s", dir, name);
	return p;
}

static struct chardev *try_open(const char *text)
{
	struct opts o;
	struct chardev *c;

	e = ERR_INIT;
	ck_assert_int_eq(opts_parse(&o, text, "backend", &e), 0);
	c = chardev_open(&o, &e);
	opts_free(&o);
	return c;
}

static struct chardev *open_fmt(const char *fmt, ...)
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

static void attach(struct fe *f, const char *id, const struct chardev_frontend *ops)
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

static size_t put(struct fe *f, const void *buf, size_t len)
{
	size_t n;

	pthread_mutex_lock(&f->lock);
	n = chardev_write(f->c, buf, len);
	pthread_mutex_unlock(&f->lock);
	return n;
}

static void puts_to(struct fe *f, const char *s)
{
	ck_assert_uint_eq(put(f, s, strlen(s)), strlen(s));
}

static int connect_unix(const char *p)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", p);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static int listen_unix(const char *p)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", p);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	ck_assert_int_eq(listen(fd, 4), 0);
	return fd;
}

/* Read exactly len bytes from fd while the loop runs. */
static char *read_peer(int fd, size_t len)
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

static void slurp(const char *p, char *buf, size_t size)
{
	int fd = open(p, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	buf[n < 0 ? 0 : n] = 0;
	close(fd);
}

static void setup(void)
{
	strcpy(dir, "/tmp/vmm-chardev-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	ck_assert_int_eq(loop_init_main(&e), 0);
}

static void teardown(void)
{
	char cmd[128];

	chardev_close_all();
	loop_free(loop_main());
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	ck_assert_int_eq(system(cmd), 0);
}

/* ---- simple backends ---- */

START_TEST(ring_keeps_the_newest)
{
	char buf[64];

	open_fmt("ringbuf,id=r,size=16");
	attach(&fe, "r", &wire);
	puts_to(&fe, "0123456789");
	ck_assert_int_eq(chardev_ring_read(fe.c, buf, 4), 4);
	ck_assert_mem_eq(buf, "0123", 4);
	puts_to(&fe, "abcdefghijkl"); /* 18 bytes held, 2 too many */
	ck_assert_int_eq(chardev_ring_read(fe.c, buf, 64), 16);
	ck_assert_mem_eq(buf, "6789abcdefghijkl", 16);
	ck_assert_int_eq(chardev_ring_write(fe.c, "xy", 2), 2);
	ck_assert_int_eq(chardev_ring_read(fe.c, buf, 64), 2);
	open_fmt("null,id=n");
	ck_assert_int_eq(chardev_ring_read(chardev_find("n"), buf, 64), -EINVAL);
}
END_TEST

START_TEST(file_replaces_or_appends_and_log_copies)
{
	char buf[64];

	open_fmt("file,id=f,path=%s", path("out"));
	attach(&fe, "f", &wire);
	puts_to(&fe, "one\n");
	chardev_release(fe.c);
	chardev_close(chardev_find("f")); /* flushes */
	open_fmt("file,id=f,path=%s,append=on,logfile=%s", path("out"), path("log"));
	attach(&fe, "f", &wire);
	puts_to(&fe, "two\n");
	chardev_flush(fe.c);
	slurp(path("out"), buf, sizeof(buf));
	ck_assert_str_eq(buf, "one\ntwo\n");
	slurp(path("log"), buf, sizeof(buf));
	ck_assert_str_eq(buf, "two\n");
	open_fmt("null,id=n,logfile=%s,logappend=on", path("log"));
	attach(&fe2, "n", &wire);
	puts_to(&fe2, "three\n");
	chardev_flush(fe2.c);
	slurp(path("log"), buf, sizeof(buf));
	ck_assert_str_eq(buf, "two\nthree\n");
}
END_TEST

START_TEST(full_disk_loses_output_but_goes_on)
{
	char big[4096] = {'x'};

	open_fmt("file,id=f,path=/dev/full");
	attach(&fe, "f", &wire);
	for (int i = 0; i < 100; i++) {
		ck_assert_uint_eq(put(&fe, big, sizeof(big)), sizeof(big));
		loop_step(loop_main(), 0);
	}
}
END_TEST

START_TEST(file_through_an_fdset)
{
	char buf[64];
	int fd = open(path("set"), O_WRONLY | O_CREAT, 0600);

	ck_assert_int_eq(fdset_add(3, fd, "serial0-log", &e), 3);
	open_fmt("file,id=f,path=/dev/fdset/3,append=on");
	attach(&fe, "f", &wire);
	puts_to(&fe, "hello");
	chardev_flush(fe.c);
	slurp(path("set"), buf, sizeof(buf));
	ck_assert_str_eq(buf, "hello");
	ck_assert_int_eq(fdset_remove(3, -1, &e), 0);
	puts_to(&fe, "!"); /* its duplicate is still ours */
	chardev_flush(fe.c);
	slurp(path("set"), buf, sizeof(buf));
	ck_assert_str_eq(buf, "hello!");
	ck_assert_ptr_null(try_open("file,id=g,path=/dev/fdset/3"));
	ck_assert_ptr_nonnull(strstr(e.msg, "/dev/fdset/3"));
}
END_TEST

START_TEST(pipe_has_two_directions)
{
	int in, out;

	ck_assert_int_eq(mkfifo(path("p.in"), 0600) | mkfifo(path("p.out"), 0600), 0);
	open_fmt("pipe,id=p,path=%s", path("p"));
	attach(&fe, "p", &wire);
	puts_to(&fe, "early"); /* nobody has it open yet */
	loop_step(loop_main(), 0);
	in = open(path("p.in"), O_WRONLY);
	out = open(path("p.out"), O_RDONLY | O_NONBLOCK);
	ck_assert_str_eq(read_peer(out, 5), "early");
	ck_assert_int_eq(write(in, "typed", 5), 5);
	UNTIL(fe.n == 5);
	ck_assert_mem_eq(fe.in, "typed", 5);
	close(in);
	close(out);
	puts_to(&fe, "gone"); /* no reader: kept in the pipe, no SIGPIPE, no spinning */
	for (int i = 0; i < 5; i++)
		loop_step(loop_main(), 0);
	in = open(path("p.in"), O_WRONLY);
	ck_assert_int_eq(write(in, "again", 5), 5);
	UNTIL(fe.n == 10);
	close(in);
}
END_TEST

START_TEST(pty_comes_and_goes)
{
	const char *name;
	int fd;

	open_fmt("pty,id=p");
	attach(&fe, "p", &wire);
	name = chardev_filename(fe.c);
	ck_assert_int_eq(strncmp(name, "pty:/dev/pts/", 13), 0);
	ck_assert(!chardev_is_open(fe.c));
	puts_to(&fe, "lost");
	for (int i = 0; i < 2; i++) {
		fd = open(name + 4, O_RDWR | O_NOCTTY | O_NONBLOCK);
		UNTIL(fe.opened == i + 1);
		puts_to(&fe, "seen");
		ck_assert_str_eq(read_peer(fd, 4), "seen");
		ck_assert_int_eq(write(fd, "key\n", 4), 4);
		UNTIL(fe.n == 4u * (i + 1)); /* raw: no echo, no translation */
		close(fd);
		UNTIL(fe.closed == i + 1);
	}
	ck_assert_mem_eq(fe.in, "key\nkey\n", 8);
	/* With nobody there the loop sleeps. */
	while (loop_step(loop_main(), 0))
		continue;
	ck_assert_int_eq(loop_step(loop_main(), 20), 0);
}
END_TEST

/* In a child: stdio is a terminal; echo until 'q'. */
static void stdio_child(int slave, const char *options)
{
	dup2(slave, 0);
	dup2(slave, 1);
	e = ERR_INIT;
	loop_init_main(&e);
	if (!try_open(options))
		_exit(1);
	attach(&fe, "s", &wire);
	puts_to(&fe, "ready\n");
	while (!memchr(fe.in, 'q', fe.n))
		loop_step(loop_main(), 100);
	chardev_flush(fe.c);
	exit(0); /* atexit restores */
}

START_TEST(stdio_is_raw_and_restored)
{
	struct termios before, during, after;
	int master, slave, status;
	bool signals = _i == 0;
	pid_t pid;

	ck_assert_int_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
	tcgetattr(slave, &before);
	pid = fork();
	if (!pid)
		stdio_child(slave, signals ? "stdio,id=s" : "stdio,id=s,signal=off");
	fcntl(master, F_SETFL, O_NONBLOCK);
	ck_assert_str_eq(read_peer(master, 7), "ready\r\n"); /* output processing stays on */
	tcgetattr(slave, &during);
	ck_assert_uint_eq(during.c_lflag & (ICANON | ECHO), 0);
	ck_assert_int_eq(!!(during.c_lflag & ISIG), signals);
	ck_assert_int_eq(fcntl(slave, F_GETFL) & O_NONBLOCK, 0); /* the shell's own descriptor is left alone */
	ck_assert_int_eq(write(master, "q", 1), 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	tcgetattr(slave, &after);
	ck_assert_uint_eq(after.c_lflag, before.c_lflag);
	ck_assert_uint_eq(after.c_iflag, before.c_iflag);
	close(master);
	close(slave);
}
END_TEST

/* ---- sockets ---- */

START_TEST(unix_server_serves_one_peer_after_the_other)
{
	char want[256];
	int fd;

	open_fmt("socket,id=s,path=%s,server=on,wait=off", path("s"));
	attach(&fe, "s", &wire);
	snprintf(want, sizeof(want), "disconnected:unix:%s,server=on", path("s"));
	ck_assert_str_eq(chardev_filename(fe.c), want);
	puts_to(&fe, "dropped, nobody is there");
	for (int i = 0; i < 3; i++) {
		fd = connect_unix(path("s"));
		UNTIL(fe.opened == i + 1);
		ck_assert_str_eq(chardev_filename(fe.c), want + strlen("disconnected:"));
		puts_to(&fe, "hello");
		ck_assert_str_eq(read_peer(fd, 5), "hello");
		ck_assert_int_eq(send(fd, "abc", 3, 0), 3);
		UNTIL(fe.n == 3u * (i + 1));
		close(fd);
		UNTIL(fe.closed == i + 1);
	}
	chardev_release(fe.c);
	chardev_close(chardev_find("s"));
	ck_assert_int_eq(access(path("s"), F_OK), -1); /* the file is gone with us */
}
END_TEST

START_TEST(tcp_server_and_client)
{
	const char *name;
	char port[16] = "";

	open_fmt("socket,id=s,host=127.0.0.1,port=0,server=on,wait=off");
	attach(&fe, "s", &wire);
	name = chardev_filename(fe.c);
	ck_assert_int_eq(sscanf(name, "disconnected:tcp:127.0.0.1:%15[0-9]", port), 1);
	open_fmt("socket,id=c,host=127.0.0.1,port=%s", port);
	attach(&fe2, "c", &wire);
	UNTIL(fe.opened && fe2.opened);
	ck_assert_ptr_nonnull(strstr(chardev_filename(fe.c), ",server=on <-> 127.0.0.1:"));
	puts_to(&fe, "ping");
	puts_to(&fe2, "pong");
	UNTIL(fe.n == 4 && fe2.n == 4);
	ck_assert_mem_eq(fe.in, "pong", 4);
	chardev_disconnect(fe2.c);
	UNTIL(fe.closed && fe2.closed);
}
END_TEST

/*
 * A client that never reads: a wire's writer waits a moment once, then goes on for ever; what arrives is in order. The
 * moment is counted in turns of the loop, of 10 ms each where nothing happens: a crowded host makes turns longer, not
 * more.
 */
START_TEST(slow_reader_does_not_hold_up_a_wire)
{
	unsigned waits = 0, turns = 0;
	uint32_t word = 0;
	int fd;

	open_fmt("socket,id=s,path=%s,server=on,wait=off", path("s"));
	attach(&fe, "s", &wire);
	fd = connect_unix(path("s"));
	UNTIL(fe.opened);
	while (word < 2000000 / 4) {
		bool waited = false;
		size_t done = 0;

		while (done < 4) {
			size_t n = put(&fe, (char *)&word + done, 4 - done);

			done += n;
			if (n)
				continue;
			waited = true;
			ck_assert_uint_lt(turns++, 2 * CHARDEV_STALL_MS / 10);
			loop_step(loop_main(), 10);
		}
		waits += waited;
		word++;
		if (word % 256 == 0)
			loop_step(loop_main(), 0);
	}
	ck_assert_uint_eq(waits, 1);
	for (uint32_t i = 0; i < 10000; i++) {
		uint32_t got;

		memcpy(&got, read_peer(fd, 4), 4);
		ck_assert_uint_eq(got, i);
	}
	close(fd);
	UNTIL(fe.closed);
}
END_TEST

START_TEST(protocol_loses_nothing)
{
	static char pattern[400000];
	size_t sent = 0;
	int fd;

	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (char)(i * 7 + i / 251);
	open_fmt("socket,id=s,path=%s,server=on,wait=off", path("s"));
	attach(&fe, "s", &protocol);
	fd = connect_unix(path("s"));
	UNTIL(fe.opened);
	sent = put(&fe, pattern, sizeof(pattern));
	ck_assert_uint_le(sent, CHARDEV_QUEUE_SIZE); /* bounded */
	for (uint64_t until = clock_ns(VCLOCK_REAL) + 2 * CHARDEV_STALL_MS * NS_PER_MS;
	     clock_ns(VCLOCK_REAL) < until;) {
		sent += put(&fe, pattern + sent, sizeof(pattern) - sent);
		loop_step(loop_main(), 10);
	}
	ck_assert_uint_lt(sent, sizeof(pattern)); /* the peer reads nothing, so it must wait */
	for (size_t got = 0; got < sizeof(pattern);) {
		size_t n = MIN((size_t)1000, sizeof(pattern) - got);

		ck_assert_mem_eq(read_peer(fd, n), pattern + got, n);
		got += n;
		if (sent < sizeof(pattern))
			sent += put(&fe, pattern + sent, sizeof(pattern) - sent);
	}
	ck_assert_int_gt(fe.writable, 0);
	close(fd);
}
END_TEST

/* echo text | nc -U: the client is gone before the guest has read a byte. */
START_TEST(input_of_a_vanished_peer_is_delivered)
{
	static char text[100000];
	int fd;

	memset(text, 'k', sizeof(text));
	open_fmt("socket,id=s,path=%s,server=on,wait=off", path("s"));
	attach(&fe, "s", &wire);
	fe.room = 0;
	fd = connect_unix(path("s"));
	UNTIL(fe.opened);
	ck_assert_int_eq(send(fd, text, sizeof(text), 0), sizeof(text));
	close(fd);
	UNTIL(fe.closed);
	ck_assert_uint_eq(fe.n, 0);
	while (fe.n < sizeof(text)) { /* 16 at a time, like a UART */
		pthread_mutex_lock(&fe.lock);
		fe.room = 16;
		chardev_accept_input(fe.c);
		pthread_mutex_unlock(&fe.lock);
		UNTIL(fe.room == 0);
	}
	/* and the next client is served meanwhile */
	fd = connect_unix(path("s"));
	UNTIL(fe.opened == 2);
	close(fd);
}
END_TEST

/* It has gone when it is written to, and what it sent before was not read yet. */
START_TEST(last_words_of_a_peer_that_cannot_be_written_to)
{
	int fd;

	open_fmt("socket,id=s,path=%s,server=on,wait=off", path("s"));
	attach(&fe, "s", &wire);
	fd = connect_unix(path("s"));
	UNTIL(fe.opened);
	ck_assert_int_eq(send(fd, "last", 4, 0), 4);
	close(fd);
	put(&fe, "output", 6);
	chardev_flush(fe.c); /* fails, before the loop has looked at the socket */
	UNTIL(fe.closed);
	ck_assert_uint_eq(fe.n, 4);
	ck_assert_mem_eq(fe.in, "last", 4);
}
END_TEST

/* The guest writes on while a piece meets a peer that has gone. */
static ssize_t write_to_nobody(struct chardev *c, const uint8_t *buf, size_t len)
{
	ck_assert_uint_eq(chardev_write(c, " and last", 9), 9);
	return -EPIPE;
}

/* A peer that vanishes takes with it what it did not read, but nothing of what goes to the log. */
START_TEST(log_is_complete_whoever_leaves)
{
	static struct chardev_ops vanished;
	char log[32] = "";
	int fd;

	open_fmt("null,id=n,logfile=%s", path("log"));
	attach(&fe, "n", &wire);
	vanished = *fe.c->ops;
	vanished.discards = false;
	vanished.write = write_to_nobody;
	fe.c->ops = &vanished;
	ck_assert(fe.c->open);
	puts_to(&fe, "first");
	chardev_flush(fe.c);
	ck_assert_uint_eq(chardev_queued(fe.c), 0);
	fd = open(path("log"), O_RDONLY);
	ck_assert_int_gt(read(fd, log, sizeof(log) - 1), 0);
	ck_assert_str_eq(log, "first and last");
	close(fd);
}
END_TEST

START_TEST(reading_stops_when_the_front_end_is_full)
{
	static char text[64 * 1024];
	size_t sent = 0;
	int fd;

	open_fmt("socket,id=s,path=%s,server=on,wait=off", path("s"));
	attach(&fe, "s", &wire);
	fe.room = 0;
	fd = connect_unix(path("s"));
	UNTIL(fe.opened);
	for (ssize_t n; (n = send(fd, text, sizeof(text), MSG_DONTWAIT)) > 0;) {
		sent += n;
		loop_step(loop_main(), 0);
		ck_assert_uint_lt(sent, 2000000); /* back pressure reaches the client */
	}
	fe.room = sizeof(fe.in);
	chardev_accept_input(fe.c);
	UNTIL(fe.n == MIN(sent, sizeof(fe.in)));
	close(fd);
}
END_TEST

START_TEST(descriptors_arrive_with_the_bytes)
{
	char control[CMSG_SPACE(2 * sizeof(int))] = {0};
	struct iovec iov = {.iov_base = "x", .iov_len = 1};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *cm = CMSG_FIRSTHDR(&msg);
	int fd, fds[4], pair[2];

	open_fmt("socket,id=s,path=%s,server=on,wait=off", path("s"));
	attach(&fe, "s", &protocol);
	fd = connect_unix(path("s"));
	ck_assert_int_eq(pipe(pair), 0);
	cm->cmsg_level = SOL_SOCKET;
	cm->cmsg_type = SCM_RIGHTS;
	cm->cmsg_len = CMSG_LEN(2 * sizeof(int));
	memcpy(CMSG_DATA(cm), pair, sizeof(pair));
	ck_assert_int_eq(sendmsg(fd, &msg, 0), 1);
	UNTIL(fe.n == 1);
	ck_assert_int_eq(chardev_take_fds(fe.c, fds, 1), 1);
	ck_assert_int_eq(chardev_take_fds(fe.c, fds + 1, 3), 1);
	ck_assert_int_eq(write(fds[1], "!", 1), 1); /* it is the pipe's writing end */
	ck_assert_int_eq(read(pair[0], fds + 2, 1), 1);
	close(fd);
}
END_TEST

START_TEST(inherited_listening_socket_survives_clients)
{
	int listen_fd = listen_unix(path("inherited")), fd;

	open_fmt("socket,id=s,fd=%d,server=on,wait=off", listen_fd);
	attach(&fe, "s", &wire);
	for (int i = 1; i <= 2; i++) {
		fd = connect_unix(path("inherited"));
		UNTIL(fe.opened == i);
		close(fd);
		UNTIL(fe.closed == i);
	}
	ck_assert_ptr_null(try_open("socket,id=t,fd=0,server=on,wait=off"));
	ck_assert_ptr_nonnull(strstr(e.msg, "not a stream socket"));
}
END_TEST

START_TEST(client_reconnects)
{
	int listen_fd, fd;

	open_fmt("socket,id=s,path=%s,reconnect=1", path("late")); /* nobody listens yet: no error */
	attach(&fe, "s", &wire);
	listen_fd = listen_unix(path("late"));
	UNTIL(fe.opened == 1);
	fd = accept(listen_fd, NULL, NULL);
	close(fd);
	UNTIL(fe.closed == 1);
	UNTIL(fe.opened == 2);
	close(listen_fd);
}
END_TEST

START_TEST(telnet_options_breaks_and_ff)
{
	static const uint8_t typed[] = {'a', 255, 253, 1, 'b', 255, 255, 255, 250, 24, 1, 255, 240, 'c', 255, 243, 'd'};
	uint8_t *p;
	int fd;

	open_fmt("socket,id=s,path=%s,server=on,wait=off,telnet=on", path("s"));
	attach(&fe, "s", &wire);
	fd = connect_unix(path("s"));
	p = (uint8_t *)read_peer(fd, 12);
	ck_assert_mem_eq(p, "\xff\xfb\x01\xff\xfb\x03", 6);
	ck_assert_int_eq(send(fd, typed, sizeof(typed), 0), sizeof(typed));
	UNTIL(fe.n == 5);
	ck_assert_mem_eq(fe.in,
			 "ab\xff"
			 "cd",
			 5);
	ck_assert_int_eq(fe.breaks, 1);
	puts_to(&fe, "x\xff\xffy");
	ck_assert_mem_eq(read_peer(fd, 6), "x\xff\xff\xff\xffy", 6);
	close(fd);
}
END_TEST

static struct fe peers[8];
static unsigned n_peers;

static void on_peer(void *opaque, struct chardev *peer)
{
	struct fe *f = &peers[n_peers++];

	memset(f, 0, sizeof(*f));
	f->room = sizeof(f->in);
	f->c = peer;
	chardev_attach(peer, &protocol, f, NULL);
}

START_TEST(one_socket_serves_several_peers)
{
	int fd[5];

	n_peers = 0;
	chardev_claim("none", "x", &e);
	ck_assert_int_eq(chardev_serve(open_fmt("socket,id=s,path=%s,server=on,wait=off", path("s")), 4, on_peer, NULL),
			 0);
	for (int i = 0; i < 5; i++)
		fd[i] = connect_unix(path("s"));
	UNTIL(n_peers == 4);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(send(fd[i], &"0123"[i], 1, 0), 1);
	UNTIL(peers[0].n && peers[1].n && peers[2].n && peers[3].n);
	for (int i = 0; i < 10; i++)
		loop_step(loop_main(), 1);
	ck_assert_uint_eq(n_peers, 4); /* the fifth waits */
	close(fd[2]);
	UNTIL(peers[2].closed == 1);
	chardev_close(peers[2].c);
	UNTIL(n_peers == 5);
	for (int i = 0; i < 5; i++)
		if (i != 2) {
			close(fd[i]);
			chardev_close(peers[i].c);
		}
}
END_TEST

START_TEST(occupied_and_stale_sockets)
{
	struct chardev *c;
	int fd = listen_unix(path("busy"));

	ck_assert_ptr_null(
		try_open(strcat(strcpy((char[200]){0}, "socket,id=s,server=on,wait=off,path="), path("busy"))));
	ck_assert_ptr_nonnull(strstr(e.msg, "in use"));
	close(fd); /* the file stays behind, as after kill -9 */
	c = open_fmt("socket,id=s,server=on,wait=off,path=%s", path("busy"));
	ck_assert_ptr_nonnull(c);
	close(open(path("file"), O_CREAT | O_WRONLY, 0600));
	ck_assert_ptr_null(
		try_open(strcat(strcpy((char[200]){0}, "socket,id=t,server=on,wait=off,path="), path("file"))));
	ck_assert_ptr_nonnull(strstr(e.msg, "not a socket"));
}
END_TEST

/* ---- mux ---- */

static int quits;
static void on_quit(void *opaque)
{
	quits++;
}

static void type(int fd, const char *s)
{
	ck_assert_int_eq(send(fd, s, strlen(s), 0), strlen(s));
}

START_TEST(mux_escapes)
{
	int fd;

	quits = 0;
	chardev_on_quit(on_quit, NULL);
	open_fmt("socket,id=m,path=%s,server=on,wait=off,mux=on", path("m"));
	attach(&fe, "m", &wire);
	fd = connect_unix(path("m"));
	UNTIL(fe.opened);
	type(fd, "a\001\001b\001bc");
	UNTIL(fe.n == 4);
	ck_assert_mem_eq(fe.in, "a\001bc", 4);
	ck_assert_int_eq(fe.breaks, 1);
	type(fd, "\001h");
	ck_assert_ptr_nonnull(strstr(read_peer(fd, 60), "Ctrl-A h"));
	while (recv(fd, (char[1000]){0}, 1000, MSG_DONTWAIT) > 0)
		loop_step(loop_main(), 5);
	type(fd, "\001c");
	ck_assert_ptr_nonnull(strstr(read_peer(fd, 43), "nothing else"));
	while (recv(fd, (char[1000]){0}, 1000, MSG_DONTWAIT) > 0)
		loop_step(loop_main(), 5);
	type(fd, "\001tz");
	UNTIL(fe.n == 5);
	puts_to(&fe, "one\ntwo");
	{
		char *text = read_peer(fd, 4 + 15 + 3);

		ck_assert_int_eq(strncmp(text, "one\n[00:00:0", 12), 0);
		ck_assert_str_eq(text + 4 + 15, "two");
	}
	/* A guest that takes nothing cannot lock its operator out. */
	fe.room = 0;
	for (int i = 0; i < 100; i++) {
		char junk[1000];

		memset(junk, 'j', sizeof(junk));
		ck_assert_int_gt(send(fd, junk, sizeof(junk), 0), 0);
		loop_step(loop_main(), 0);
	}
	type(fd, "\001x");
	UNTIL(quits == 1);
	close(fd);
}
END_TEST

START_TEST(mux_has_several_front_ends)
{
	int fd;

	open_fmt("socket,id=m,path=%s,server=on,wait=off,mux=on", path("m"));
	attach(&fe, "m", &wire);
	attach(&fe2, "m", &wire);
	ck_assert_ptr_ne(fe.c, fe2.c);
	ck_assert_str_eq(chardev_id(fe2.c), "m");
	fd = connect_unix(path("m"));
	UNTIL(fe.opened && fe2.opened);
	type(fd, "1");
	UNTIL(fe.n == 1);
	type(fd, "\001c2");
	UNTIL(fe2.n == 1);
	type(fd, "\001c3");
	UNTIL(fe.n == 2);
	while (recv(fd, (char[1000]){0}, 1000, MSG_DONTWAIT) > 0)
		loop_step(loop_main(), 5);
	puts_to(&fe, "A");
	puts_to(&fe2, "B");
	ck_assert_str_eq(read_peer(fd, 2), "AB");
	close(fd);
}
END_TEST

/* ---- claims, threads, words ---- */

START_TEST(one_owner_each)
{
	open_fmt("null,id=n");
	attach(&fe, "n", &wire);
	ck_assert_ptr_null(chardev_claim("n", "serial1", &e));
	ck_assert_str_eq(e.msg, "serial1: character device 'n' is in use by a test");
	ck_assert_ptr_null(chardev_claim("nope", "serial1", &e));
	ck_assert_int_eq(e.code, ENOENT);
	chardev_release(fe.c);
	ck_assert_ptr_nonnull(chardev_claim("n", "serial1", &e));
}
END_TEST

static void *writer_thread(void *opaque)
{
	for (uint32_t i = 0; i < 20000; i++)
		while (put(&fe, &i, 4) != 4) /* a queue with a multiple of 4 takes all or nothing */
			sched_yield();
	return NULL;
}

START_TEST(writing_from_another_thread)
{
	pthread_t t;
	uint32_t got;
	int fd;

	open_fmt("socket,id=s,path=%s,server=on,wait=off", path("s"));
	attach(&fe, "s", &protocol);
	fd = connect_unix(path("s"));
	UNTIL(fe.opened);
	pthread_create(&t, NULL, writer_thread, NULL);
	for (uint32_t i = 0; i < 20000; i++) {
		memcpy(&got, read_peer(fd, 4), 4);
		ck_assert_uint_eq(got, i);
	}
	pthread_join(t, NULL);
	close(fd);
}
END_TEST

static const struct {
	const char *text, *message;
} refused[] = {
	{"stdoi,id=x", "did you mean 'stdio'"},
	{"stdio", "id= is missing"},
	{"vc,id=x", "no text consoles"},
	{"parport,id=x,path=/dev/parport0", "host parallel port"},
	{"null,id=x,sizee=3", "sizee"},
	{"ringbuf,id=x,size=1000", "not a power of two"},
	{"ringbuf,id=x,size=1G", "size"},
	{"file,id=x", "path= is missing"},
	{"file,id=x,path=/nonexistent/a", "/nonexistent/a"},
	{"file,id=x,path=/", "Is a directory"},
	{"pipe,id=x,path=/nonexistent/p", "mkfifo"},
	{"serial,id=x,path=/dev/null", "not a terminal"},
	{"socket,id=x", "say where"},
	{"socket,id=x,path=/a,host=b,port=1", "say where"},
	{"socket,id=x,path=/nonexistent/s", "/nonexistent/s"},
	{"socket,id=x,path=/nonexistent/s,server=on,wait=off", "cannot listen"},
	{"socket,id=x,path=/a,server=on,reconnect=1", "reconnect="},
	{"socket,id=x,path=/a,wait=on", "wait=on is for servers"},
	{"socket,id=x,host=127.0.0.1", "port= is missing"},
	{"socket,id=x,host=127.0.0.1,port=notaservice", "cannot resolve"},
	{"socket,id=x,host=127.0.0.1,port=1", "cannot connect"},
	{"socket,id=x,fd=9999", "not an open file descriptor"},
	{"socket,id=x,fd=nobody", "not found"},
	{"socket,id=x,path=/tmp/"
	 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	 "aaaaaaaa,"
	 "server=on,wait=off",
	 "at most"},
	{"null,id=x,logfile=/nonexistent/log", "logfile"},
};

START_TEST(bad_options_are_refused_by_name)
{
	ck_assert_ptr_null(try_open(refused[_i].text));
	ck_assert_msg(strstr(e.msg, refused[_i].message) != NULL, "'%s' lacks '%s'", e.msg, refused[_i].message);
	ck_assert_ptr_null(strchr(e.msg, '\n'));
	ck_assert_ptr_null(chardev_next(NULL));
}
END_TEST

START_TEST(old_spellings)
{
	char text[200];
	struct chardev *c;

	e = ERR_INIT;
	ck_assert_ptr_null(chardev_open_legacy("serial0", "none", &e));
	ck_assert_int_eq(e.code, 0);
	c = chardev_open_legacy("serial0", "null", &e);
	ck_assert_str_eq(chardev_backend_name(c), "null");
	ck_assert_ptr_eq(chardev_open_legacy("serial1", "chardev:serial0", &e), c);
	snprintf(text, sizeof(text), "unix:%s,server,nowait", path("s"));
	c = chardev_open_legacy("serial1", text, &e);
	ck_assert_msg(c != NULL, "%s", e.msg);
	ck_assert_str_eq(chardev_backend_name(c), "socket");
	snprintf(text, sizeof(text), "file:%s", path("with,comma"));
	c = chardev_open_legacy("serial2", text, &e);
	ck_assert_msg(c != NULL, "%s", e.msg);
	ck_assert_int_eq(access(path("with,comma"), F_OK), 0);
	c = chardev_open_legacy("serial3", "telnet:127.0.0.1:0,server=on,wait=off", &e);
	ck_assert_msg(c && strstr(chardev_filename(c), "telnet:127.0.0.1:"), "%s", e.msg);
	c = chardev_open_legacy("serial4", "tcp:[::1]:0,server=on,wait=off", &e);
	ck_assert_msg(c || strstr(e.msg, "::1"), "%s", e.msg); /* IPv6 may be absent here */
	ck_assert_ptr_null(chardev_open_legacy("serial5", "vc:80Cx24C", &e));
	ck_assert_ptr_null(chardev_open_legacy("serial5", "udp:1.2.3.4:5", &e));
	ck_assert_ptr_nonnull(strstr(e.msg, "'udp:1.2.3.4:5'"));
	ck_assert_ptr_null(chardev_open_legacy("serial5", "tcp:nohost", &e));
	ck_assert_ptr_null(chardev_open_legacy("serial5", "chardev:nobody", &e));
}
END_TEST

START_TEST(named_descriptors)
{
	int fd = open("/dev/null", O_RDWR), other = open("/dev/null", O_RDWR);

	ck_assert_int_eq(fd_name_set("mig", fd, &e), 0);
	ck_assert_int_eq(fd_name_set("mig", other, &e), 0); /* replaces: the first is closed */
	ck_assert_int_eq(fcntl(fd, F_GETFD), -1);
	ck_assert_int_eq(fd_name_take("mig", &e), other);
	ck_assert_int_eq(fd_name_take("mig", &e), -ENOENT);
	ck_assert_int_eq(fd_name_close("mig", &e), -ENOENT);
	ck_assert_str_eq(e.msg, "File descriptor named 'mig' not found");
	ck_assert_int_eq(fd_name_set("1x", other, &e), -EINVAL);
	close(other);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("chardev");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 20);
	tcase_add_test(t, ring_keeps_the_newest);
	tcase_add_test(t, file_replaces_or_appends_and_log_copies);
	tcase_add_test(t, full_disk_loses_output_but_goes_on);
	tcase_add_test(t, file_through_an_fdset);
	tcase_add_test(t, pipe_has_two_directions);
	tcase_add_test(t, pty_comes_and_goes);
	tcase_add_loop_test(t, stdio_is_raw_and_restored, 0, 2);
	tcase_add_test(t, unix_server_serves_one_peer_after_the_other);
	tcase_add_test(t, tcp_server_and_client);
	tcase_add_test(t, slow_reader_does_not_hold_up_a_wire);
	tcase_add_test(t, protocol_loses_nothing);
	tcase_add_test(t, input_of_a_vanished_peer_is_delivered);
	tcase_add_test(t, last_words_of_a_peer_that_cannot_be_written_to);
	tcase_add_test(t, log_is_complete_whoever_leaves);
	tcase_add_test(t, reading_stops_when_the_front_end_is_full);
	tcase_add_test(t, descriptors_arrive_with_the_bytes);
	tcase_add_test(t, inherited_listening_socket_survives_clients);
	tcase_add_test(t, client_reconnects);
	tcase_add_test(t, telnet_options_breaks_and_ff);
	tcase_add_test(t, one_socket_serves_several_peers);
	tcase_add_test(t, occupied_and_stale_sockets);
	tcase_add_test(t, mux_escapes);
	tcase_add_test(t, mux_has_several_front_ends);
	tcase_add_test(t, one_owner_each);
	tcase_add_test(t, writing_from_another_thread);
	tcase_add_loop_test(t, bad_options_are_refused_by_name, 0, ARRAY_SIZE(refused));
	tcase_add_test(t, old_spellings);
	tcase_add_test(t, named_descriptors);
	return run_suite("chardev", (TCase *[]){t, NULL});
}
