/*
 * -chardev pty: a pseudo terminal; its name is printed at start and shown by query-chardev.
 *
 * A master whose slave nobody has open reports a hang-up for ever, so it is not watched then. inotify on the slave's
 * node says when somebody opens it (QEMU polls once a second instead).
 */
#include "backend.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <termios.h>
#include <unistd.h>

#define POLL_MS 500 /* where inotify is not to be had */

struct pty_chardev {
	struct chardev c;
	int fd, inotify_fd;
	char slave[64];
	struct watch *inotify_watch;
	struct timer poll_timer;
	struct fdio io;
};

static const struct prop pty_props[] = {CHARDEV_COMMON_PROPS, PROP_END};

static bool slave_is_open(const struct pty_chardev *p)
{
	struct pollfd pfd = {.fd = p->fd, .events = POLLOUT};

	return poll(&pfd, 1, 0) >= 0 && !(pfd.revents & POLLHUP);
}

static void wait_for_slave(struct pty_chardev *p)
{
	if (!p->inotify_watch)
		timer_arm(&p->poll_timer, clock_ns(VCLOCK_REAL) + POLL_MS * NS_PER_MS);
}

static void slave_closed(struct chardev *c)
{
	struct pty_chardev *p = (struct pty_chardev *)c;

	fdio_stop(&p->io);
	chardev_closed(c);
	wait_for_slave(p);
}

static void check_slave(struct pty_chardev *p)
{
	if (p->c.open)
		return;
	if (!slave_is_open(p) || fdio_start(&p->io, &p->c, p->fd, p->fd, slave_closed, NULL)) {
		wait_for_slave(p);
		return;
	}
	fdio_want_input(&p->io, p->c.input_on);
	chardev_opened(&p->c);
}

static void inotify_ready(void *opaque, int fd, unsigned events)
{
	char buf[1024] __attribute__((aligned(__alignof__(struct inotify_event))));

	while (read(fd, buf, sizeof(buf)) > 0)
		continue;
	check_slave(opaque);
}

static void poll_timer_fired(void *opaque)
{
	check_slave(opaque);
}

static int make_pty(struct pty_chardev *p, struct err *e)
{
	struct termios t;
	int slave;

	p->fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (p->fd < 0)
		return err_errno(e, errno, "cannot make a pseudo terminal");
	if (grantpt(p->fd) || unlockpt(p->fd) || ptsname_r(p->fd, p->slave, sizeof(p->slave)) ||
	    (slave = open(p->slave, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0) {
		int code = errno;

		close(p->fd);
		return err_errno(e, code, "cannot set up the pseudo terminal");
	}
	/* Raw, so that nothing is echoed back before a terminal program takes over. Closing the slave once makes the
	   master report a hang-up until somebody opens it. */
	tcgetattr(slave, &t);
	tty_make_raw(&t, false);
	t.c_lflag &= ~(tcflag_t)ISIG;
	tcsetattr(slave, TCSAFLUSH, &t);
	close(slave);
	return 0;
}

static void watch_slave(struct pty_chardev *p)
{
	timer_init(&p->poll_timer, loop_main(), VCLOCK_REAL, NULL, poll_timer_fired, p);
	p->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (p->inotify_fd >= 0 && inotify_add_watch(p->inotify_fd, p->slave, IN_OPEN) >= 0)
		p->inotify_watch = loop_watch(loop_main(), p->inotify_fd, LOOP_READ, NULL, inotify_ready, p, NULL);
	wait_for_slave(p);
}

static int pty_open(struct chardev *c, struct err *e)
{
	struct pty_chardev *p = (struct pty_chardev *)c;
	int ret = make_pty(p, e);

	if (ret)
		return ret;
	watch_slave(p);
	/* The words are QEMU's: scripts look for them. */
	fprintf(stderr, "char device redirected to %s (label %s)\n", p->slave, c->id);
	return 0;
}

static void pty_close(struct chardev *c)
{
	struct pty_chardev *p = (struct pty_chardev *)c;

	fdio_stop(&p->io);
	loop_unwatch(p->inotify_watch);
	timer_cancel(&p->poll_timer);
	if (p->inotify_fd >= 0)
		close(p->inotify_fd);
	close(p->fd);
}

static ssize_t pty_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	return fdio_write(&((struct pty_chardev *)c)->io, buf, len);
}

static void pty_want_input(struct chardev *c, bool on)
{
	fdio_want_input(&((struct pty_chardev *)c)->io, on);
}

static void pty_describe(struct chardev *c, char *buf, size_t size)
{
	snprintf(buf, size, "pty:%s", ((struct pty_chardev *)c)->slave);
}

const struct chardev_ops chardev_pty_ops = {
	.name = "pty",
	.help = "a pseudo terminal; its name is printed",
	.props = pty_props,
	.size = sizeof(struct pty_chardev),
	.open = pty_open,
	.close = pty_close,
	.write = pty_write,
	.want_input = pty_want_input,
	.describe = pty_describe,
	.disconnect = slave_closed,
};
