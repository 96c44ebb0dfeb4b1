/* One or two file descriptors as a character backend: watches, regular files, end of input. */
#include "backend.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

static void set_watches(struct fdio *f)
{
	if (f->in_watch)
		loop_watch_set(f->in_watch,
			       (f->in_on ? LOOP_READ : 0) | (f->out_on && f->out_fd == f->in_fd ? LOOP_WRITE : 0));
	if (f->out_watch)
		loop_watch_set(f->out_watch, f->out_on ? LOOP_WRITE : 0);
}

static void end_of_input(struct fdio *f)
{
	f->in_on = false;
	if (f->in_watch && f->in_fd != f->out_fd) {
		loop_unwatch(f->in_watch);
		f->in_watch = NULL;
	}
	set_watches(f);
	f->in_regular = false;
	if (f->eof)
		f->eof(f->c);
}

/* Returns false when there is nothing more to read at present. */
static bool read_some(struct fdio *f)
{
	uint8_t buf[4096];
	size_t room = MIN(chardev_input_room(f->c), sizeof(buf));
	ssize_t n;

	if (!room)
		return false;
	n = read(f->in_fd, buf, room);
	if (n > 0) {
		chardev_input(f->c, buf, n);
		return true;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	end_of_input(f);
	return false;
}

static void in_ready(void *opaque, int fd, unsigned events)
{
	struct fdio *f = opaque;

	if ((events & LOOP_WRITE) && f->out_on) {
		f->out_on = false;
		set_watches(f);
		chardev_output_ready(f->c);
	}
	if ((events & LOOP_READ) && f->in_on)
		read_some(f);
}

static void out_ready(void *opaque, int fd, unsigned events)
{
	struct fdio *f = opaque;

	f->out_on = false;
	loop_watch_set(f->out_watch, 0);
	chardev_output_ready(f->c);
}

static void regular_bh(void *opaque)
{
	struct fdio *f = opaque;

	if (f->in_on && read_some(f))
		bh_schedule(&f->in_bh);
}

/* epoll refuses files and devices that are always ready (/dev/null): *out stays NULL for these. */
static int watch(struct fdio *f, int fd, unsigned events, loop_watch_fn *fn, struct watch **out, struct err *e)
{
	struct err why = ERR_INIT;

	*out = loop_watch(loop_main(), fd, events, NULL, fn, f, &why);
	return *out || why.code == EPERM ? 0 : err_set(e, why.code, "%s", why.msg);
}

static int start_input(struct fdio *f, struct err *e)
{
	int ret = watch(f, f->in_fd, LOOP_READ, in_ready, &f->in_watch, e);

	if (ret)
		return ret;
	f->in_on = true;
	f->in_regular = !f->in_watch;
	if (f->in_regular)
		bh_schedule(&f->in_bh);
	return 0;
}

int fdio_start(struct fdio *f, struct chardev *c, int in_fd, int out_fd, void (*eof)(struct chardev *), struct err *e)
{
	int ret;

	signal(SIGPIPE, SIG_IGN);
	*f = (struct fdio){.c = c, .in_fd = in_fd, .out_fd = out_fd, .eof = eof};
	bh_init(&f->in_bh, loop_main(), NULL, regular_bh, f);
	ret = in_fd >= 0 ? start_input(f, e) : 0;

	if (!ret && out_fd >= 0 && out_fd != in_fd)
		ret = watch(f, out_fd, 0, out_ready, &f->out_watch, e);
	if (ret)
		fdio_stop(f);
	return ret;
}

void fdio_stop(struct fdio *f)
{
	if (!f->c)
		return;
	bh_cancel(&f->in_bh);
	loop_unwatch(f->in_watch);
	loop_unwatch(f->out_watch);
	f->in_watch = f->out_watch = NULL;
	f->in_on = f->out_on = f->in_regular = false;
}

void fdio_want_input(struct fdio *f, bool on)
{
	if (!f->in_watch && !f->in_regular)
		return;
	f->in_on = on;
	if (f->in_regular && on)
		bh_schedule(&f->in_bh);
	set_watches(f);
}

ssize_t fdio_write(struct fdio *f, const uint8_t *buf, size_t len)
{
	ssize_t n;

	do {
		n = write(f->out_fd, buf, len);
	} while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno != EAGAIN)
		return -errno;
	f->out_on = true;
	set_watches(f);
	return 0;
}
