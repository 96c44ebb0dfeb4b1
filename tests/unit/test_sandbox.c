/* Each filter bites: a forbidden call ends the process, loudly, and the calls a role lives on go through. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/lib/suite.h"
#include "vmm/sandbox.h"
#include "vmm/util.h"

#define EXIT_VIOLATION 159

/* Run fn behind the filter of `role` in a child; returns its exit status, stderr in `text`. */
static int confined(enum sandbox_role role, void (*fn)(void), char *text, size_t size)
{
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	if (!pid) {
		dup2(fds[1], STDERR_FILENO);
		if (sandbox_enter(role, NULL))
			_exit(98);
		fn();
		_exit(0);
	}
	close(fds[1]);
	n = read(fds[0], text, size - 1);
	text[MAX(n, 0)] = '\0';
	close(fds[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int fd_before;

static void do_exec(void)
{
	execl("/bin/true", "true", NULL);
}
static void do_open(void)
{
	open("/etc/passwd", O_RDONLY);
}
static void do_create(void)
{
	open("/dev/null", O_WRONLY);
}
static void do_socket(void)
{
	socket(AF_INET, SOCK_STREAM, 0);
}
static int by_value(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}
static void do_sort(void)
{
	static int many[4096];

	qsort(many, ARRAY_SIZE(many), sizeof(many[0]), by_value);
}
static void do_exec_memory(void)
{
	mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void do_write_exec_memory(void)
{
	mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void do_make_exec(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	mprotect(p, 4096, PROT_READ | PROT_EXEC);
}
static void do_setuid(void)
{
	setuid(0);
}
static void do_tty_ioctl(void)
{
	int n;

	ioctl(0, 0x541b /* FIONREAD */, &n);
}
static void do_fork(void)
{
	fork();
}
static void do_read(void)
{
	char c;

	if (read(fd_before, &c, 1) != 1)
		_exit(97);
}
static void do_sigaction(void)
{
	signal(SIGSYS, SIG_IGN);
}

static const struct {
	enum sandbox_role role;
	void (*fn)(void);
	const char *what;
	bool forbidden;
} cases[] = {
	{SANDBOX_MAIN, do_exec, "main: execve", true},
	{SANDBOX_MAIN, do_write_exec_memory, "main: writable and executable memory", true},
	{SANDBOX_MAIN, do_make_exec, "main: mprotect(PROT_EXEC)", true},
	{SANDBOX_MAIN, do_setuid, "main: setuid", true},
	{SANDBOX_MAIN, do_sigaction, "main: replacing the violation handler", true},
	{SANDBOX_MAIN, do_open, "main: open a medium", false},
	{SANDBOX_MAIN, do_socket, "main: sockets", false},
	{SANDBOX_MAIN, do_read, "main: read", false},
	{SANDBOX_SLIRP, do_exec, "slirp: execve", true},
	{SANDBOX_SLIRP, do_create, "slirp: open to write", true},
	{SANDBOX_SLIRP, do_fork, "slirp: fork", true},
	{SANDBOX_SLIRP, do_make_exec, "slirp: mprotect(PROT_EXEC)", true},
	{SANDBOX_SLIRP, do_open, "slirp: open to read", false},
	{SANDBOX_SLIRP, do_socket, "slirp: sockets", false},
	{SANDBOX_SLIRP, do_read, "slirp: read", false},
	{SANDBOX_VCPU, do_exec, "vcpu: execve", true},
	{SANDBOX_VCPU, do_open, "vcpu: open", true},
	{SANDBOX_VCPU, do_socket, "vcpu: socket", true},
	{SANDBOX_VCPU, do_read, "vcpu: read", true},
	{SANDBOX_VCPU, do_exec_memory, "vcpu: executable memory", true},
	{SANDBOX_VCPU, do_make_exec, "vcpu: mprotect(PROT_EXEC)", true},
	{SANDBOX_VCPU, do_tty_ioctl, "vcpu: an ioctl that is not KVM's", true},
	{SANDBOX_VCPU, do_fork, "vcpu: fork", true},
	{SANDBOX_VCPU, do_sort, "vcpu: sorting many", false},
	{SANDBOX_IO, do_exec, "io: execve", true},
	{SANDBOX_IO, do_open, "io: open", true},
	{SANDBOX_IO, do_socket, "io: socket", true},
	{SANDBOX_IO, do_exec_memory, "io: executable memory", true},
	{SANDBOX_IO, do_tty_ioctl, "io: an ioctl that is not a block device's", true},
	{SANDBOX_IO, do_fork, "io: fork", true},
	{SANDBOX_IO, do_read, "io: read", false},
	{SANDBOX_IO, do_sort, "io: sorting many", false},
	{SANDBOX_MIGRATION, do_exec, "migration: execve", true},
	{SANDBOX_MIGRATION, do_socket, "migration: a socket of its own", true},
	{SANDBOX_MIGRATION, do_exec_memory, "migration: executable memory", true},
	{SANDBOX_MIGRATION, do_tty_ioctl, "migration: an ioctl that is not KVM's", true},
	{SANDBOX_MIGRATION, do_read, "migration: read", false},
	{SANDBOX_VNC, do_exec, "vnc: execve", true},
	{SANDBOX_VNC, do_open, "vnc: open", true},
	{SANDBOX_VNC, do_socket, "vnc: a socket of its own", true},
	{SANDBOX_VNC, do_exec_memory, "vnc: executable memory", true},
	{SANDBOX_VNC, do_tty_ioctl, "vnc: ioctl", true},
	{SANDBOX_VNC, do_fork, "vnc: fork", true},
	{SANDBOX_VNC, do_read, "vnc: read", false},
};

START_TEST(filter_bites)
{
	char text[512];
	int status;

	fd_before = open("/dev/zero", O_RDONLY);
	status = confined(cases[_i].role, cases[_i].fn, text, sizeof(text));
	close(fd_before);
	if (cases[_i].forbidden) {
		ck_assert_msg(status == EXIT_VIOLATION, "%s: exit status %d, expected %d", cases[_i].what, status,
			      EXIT_VIOLATION);
		ck_assert_msg(strstr(text, "sandbox") && strstr(text, sandbox_role_name(cases[_i].role)),
			      "%s: the message names neither sandbox nor role: '%s'", cases[_i].what, text);
	} else {
		ck_assert_msg(status == 0, "%s: exit status %d: %s", cases[_i].what, status, text);
	}
}
END_TEST

static int event;

static void *worker(void *arg)
{
	uint64_t one = 1;

	sandbox_thread_io();
	free(malloc(1 << 20));
	if (write(event, &one, sizeof(one)) != sizeof(one))
		_exit(96);
	return arg;
}

/* What block workers do: a thread made behind the main filter adds its own, works and ends. */
static void do_thread(void)
{
	pthread_t t;
	uint64_t v;

	event = eventfd(0, 0);
	if (pthread_create(&t, NULL, worker, NULL) || pthread_join(t, NULL) || read(event, &v, sizeof(v)) != sizeof(v))
		_exit(95);
}

START_TEST(threads_nest_their_filters)
{
	char text[512];

	ck_assert_msg(confined(SANDBOX_MAIN, do_thread, text, sizeof(text)) == 0, "%s", text);
}
END_TEST

int main(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	puts("SKIP: a sanitizer's own system calls and signal handlers are not in the filters");
	return 77;
#endif
	TCase *t = tcase_create("sandbox");

	tcase_add_loop_test(t, filter_bites, 0, ARRAY_SIZE(cases));
	tcase_add_test(t, threads_nest_their_filters);
	return run_suite("sandbox", (TCase *[]){t, NULL});
}
