/*
 * -chardev serial,path=/dev/ttyS0: a serial port (or any terminal) of the host. Line settings and breaks of the guest's
 * UART reach the real port; modem lines do not (the guest sees DCD, DSR and CTS on).
 */
#include "backend.h"

#include <errno.h>
#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

struct serial_tty {
	struct chardev c;
	char *path;
	int fd;
	struct termios saved;
	struct fdio io;
};

static const struct prop serial_props[] = {
	CHARDEV_COMMON_PROPS,
	PROP(struct serial_tty, path, PROP_STR, .help = "terminal device of the host, e.g. /dev/ttyS0"),
	PROP_END,
};

static void serial_eof(struct chardev *c)
{
	fdio_stop(&((struct serial_tty *)c)->io);
	chardev_closed(c);
}

static int serial_open(struct chardev *c, struct err *e)
{
	struct serial_tty *s = (struct serial_tty *)c;
	struct termios raw;
	int ret;

	if (!s->path)
		return err_set(e, EINVAL, "path= is missing");
	s->fd = open(s->path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (s->fd < 0)
		return err_errno(e, errno, "cannot open %s", s->path);
	if (tcgetattr(s->fd, &s->saved)) {
		close(s->fd);
		return err_set(e, ENOTTY, "%s is not a terminal", s->path);
	}
	raw = s->saved;
	tty_make_raw(&raw, false);
	raw.c_lflag &= ~(tcflag_t)ISIG;
	tcsetattr(s->fd, TCSANOW, &raw);
	ret = fdio_start(&s->io, c, s->fd, s->fd, serial_eof, e);
	if (ret) {
		close(s->fd);
		return ret;
	}
	chardev_opened(c);
	return 0;
}

static void serial_close(struct chardev *c)
{
	struct serial_tty *s = (struct serial_tty *)c;

	fdio_stop(&s->io);
	tcsetattr(s->fd, TCSANOW, &s->saved);
	close(s->fd);
}

static ssize_t serial_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	return fdio_write(&((struct serial_tty *)c)->io, buf, len);
}

static void serial_want_input(struct chardev *c, bool on)
{
	fdio_want_input(&((struct serial_tty *)c)->io, on);
}

static void serial_set_line(struct chardev *c, const struct chardev_line *line)
{
	tty_set_line(((struct serial_tty *)c)->fd, line);
}

static void serial_send_break(struct chardev *c)
{
	/* TCSBRKP would sleep for the break's 250 ms; the driver's own timing is as short as the UART allows. */
	tcsendbreak(((struct serial_tty *)c)->fd, 0);
}

const struct chardev_ops chardev_serial_ops = {
	.name = "serial",
	.alias = "tty",
	.help = "a serial port of the host",
	.props = serial_props,
	.size = sizeof(struct serial_tty),
	.open = serial_open,
	.close = serial_close,
	.write = serial_write,
	.want_input = serial_want_input,
	.set_line = serial_set_line,
	.send_break = serial_send_break,
};
