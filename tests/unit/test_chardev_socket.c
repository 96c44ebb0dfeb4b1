/* Character devices on sockets: clients that come, go, hang or vanish, telnet, descriptors, several peers at one. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "src/chardev/backend.h"
#include "tests/unit/chardev_test.h"
#include "vmm/clock.h"

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

int main(void)
{
	TCase *t = tcase_create("chardev_socket");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 20);
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
	return run_suite("chardev_socket", (TCase *[]){t, NULL});
}
