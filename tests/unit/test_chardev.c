/* Character devices: every backend but sockets (test_chardev_socket.c), the mux, bad options. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include "tests/unit/chardev_test.h"
#include "vmm/fdset.h"

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
	tcase_add_test(t, mux_escapes);
	tcase_add_test(t, mux_has_several_front_ends);
	tcase_add_test(t, one_owner_each);
	tcase_add_test(t, writing_from_another_thread);
	tcase_add_loop_test(t, bad_options_are_refused_by_name, 0, ARRAY_SIZE(refused));
	tcase_add_test(t, old_spellings);
	tcase_add_test(t, named_descriptors);
	return run_suite("chardev", (TCase *[]){t, NULL});
}
