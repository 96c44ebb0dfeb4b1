/*
 * -chardev stdio: the terminal vmm was started from, in raw mode, or whatever stdin and stdout are.
 *
 * O_NONBLOCK belongs to the open file description, which stdin and stdout usually share with stderr and the shell.
 * Terminals and pipes are therefore opened once more through /proc/self/fd, so that only our own copy is non-blocking.
 * Where that fails (sockets) the flag is set on the shared one and taken back at exit.
 *
 * signal=on (default): Ctrl-C ends vmm; signal=off: the guest gets Ctrl-C, Ctrl-Z and Ctrl-\.
 */
#include "backend.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

struct stdio_chardev {
	struct chardev c;
	bool signal;
	int in_fd, out_fd;
	struct fdio io;
};

static const struct prop stdio_props[] = {
	CHARDEV_COMMON_PROPS,
	PROP(struct stdio_chardev, signal, PROP_BOOL, .def = 1,
	     .help = "terminal keys such as Ctrl-C act on vmm; off: the guest gets them"),
	PROP_END,
};

/* One terminal per process; read by chardev_restore_terminal() on any exit path, signal handlers included. */
static struct {
	volatile sig_atomic_t in_use, raw;
	struct termios saved;
	int flags[2]; /* of stdin and stdout, -1: untouched */
} terminal = {.flags = {-1, -1}};

void chardev_restore_terminal(void)
{
	int saved_errno = errno;

	if (terminal.raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &terminal.saved);
	terminal.raw = 0;
	for (int fd = 0; fd < 2; fd++) {
		if (terminal.flags[fd] >= 0)
			fcntl(fd, F_SETFL, terminal.flags[fd]);
		terminal.flags[fd] = -1;
	}
	errno = saved_errno;
}

static int make_nonblocking(int fd, int mode)
{
	char path[32];
	struct stat st;
	int copy;

	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fcntl(fd, F_DUPFD_CLOEXEC, 3);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	copy = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (copy >= 0)
		return copy;
	if (terminal.flags[fd] < 0)
		terminal.flags[fd] = fcntl(fd, F_GETFL);
	fcntl(fd, F_SETFL, terminal.flags[fd] | O_NONBLOCK);
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static void enter_raw_mode(bool signals)
{
	struct termios raw;
	sigset_t ttou, old;

	if (tcgetattr(STDIN_FILENO, &terminal.saved))
		return; /* not a terminal */
	raw = terminal.saved;
	tty_make_raw(&raw, true);
	if (signals)
		raw.c_lflag |= ISIG;
	else
		raw.c_lflag &= ~(tcflag_t)ISIG;
	/* Started in the background: set it all the same instead of being stopped. */
	sigemptyset(&ttou);
	sigaddset(&ttou, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &ttou, &old);
	terminal.raw = 1;
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static int stdio_open(struct chardev *c, struct err *e)
{
	static bool at_exit;
	struct stdio_chardev *s = (struct stdio_chardev *)c;
	int ret;

	if (terminal.in_use)
		return err_set(e, EBUSY, "stdio is in use by another character device; share it with mux=on");
	s->in_fd = make_nonblocking(STDIN_FILENO, O_RDONLY);
	s->out_fd = make_nonblocking(STDOUT_FILENO, O_WRONLY);
	if (s->in_fd < 0 && s->out_fd < 0)
		return err_set(e, EBADF, "stdin and stdout are closed");
	ret = fdio_start(&s->io, c, s->in_fd, s->out_fd, NULL, e);
	if (ret)
		return ret;
	if (!at_exit)
		atexit(chardev_restore_terminal);
	at_exit = true;
	terminal.in_use = 1;
	enter_raw_mode(s->signal);
	chardev_opened(c);
	return 0;
}

static void stdio_close(struct chardev *c)
{
	struct stdio_chardev *s = (struct stdio_chardev *)c;

	fdio_stop(&s->io);
	if (s->in_fd >= 0)
		close(s->in_fd);
	if (s->out_fd >= 0)
		close(s->out_fd);
	chardev_restore_terminal();
	terminal.in_use = 0;
}

static ssize_t stdio_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	struct stdio_chardev *s = (struct stdio_chardev *)c;

	return s->out_fd < 0 ? (ssize_t)len : fdio_write(&s->io, buf, len);
}

static void stdio_want_input(struct chardev *c, bool on)
{
	fdio_want_input(&((struct stdio_chardev *)c)->io, on);
}

const struct chardev_ops chardev_stdio_ops = {
	.name = "stdio",
	.help = "the terminal vmm was started from",
	.props = stdio_props,
	.size = sizeof(struct stdio_chardev),
	.open = stdio_open,
	.close = stdio_close,
	.write = stdio_write,
	.want_input = stdio_want_input,
};
