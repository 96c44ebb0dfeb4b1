/*
 * -chardev pipe,path=P: named pipes. The guest reads P.in and writes P.out; if these do not exist, P is used for both.
 * Opened for reading and writing, so that it works whether or not somebody has the other end open yet.
 */
#include "backend.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct pipe_chardev {
	struct chardev c;
	char *path;
	int in_fd, out_fd;
	struct fdio io;
};

static const struct prop pipe_props[] = {
	CHARDEV_COMMON_PROPS,
	PROP(struct pipe_chardev, path, PROP_STR, .help = "named pipes PATH.in and PATH.out, or PATH for both"),
	PROP_END,
};

static int open_fifo(const char *path, const char *suffix, struct err *e)
{
	char *name = xasprintf("%s%s", path, suffix);
	int fd = open(name, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0) {
		fd = err_errno(e, errno, "cannot open %s (make it with mkfifo)", name);
	} else if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		close(fd);
		fd = err_set(e, EINVAL, "%s is a regular file, not a pipe (make it with mkfifo)", name);
	}
	free(name);
	return fd;
}

static int open_fds(struct pipe_chardev *p, struct err *e)
{
	p->in_fd = open_fifo(p->path, ".in", NULL);
	p->out_fd = open_fifo(p->path, ".out", e);
	if (p->in_fd >= 0 && p->out_fd >= 0)
		return 0;
	if (p->in_fd >= 0 || p->out_fd >= 0) { /* one of the pair: surely a mistake */
		close(MAX(p->in_fd, p->out_fd));
		return err_set(e, ENOENT, "%s.in and %s.out must both exist (make them with mkfifo)", p->path, p->path);
	}
	p->in_fd = p->out_fd = open_fifo(p->path, "", e);
	return p->in_fd < 0 ? p->in_fd : 0;
}

static void close_fds(struct pipe_chardev *p)
{
	if (p->out_fd != p->in_fd)
		close(p->out_fd);
	close(p->in_fd);
}

static void pipe_eof(struct chardev *c)
{
	struct pipe_chardev *p = (struct pipe_chardev *)c;

	if (p->in_fd == p->out_fd)
		fdio_stop(&p->io);
}

static int pipe_open(struct chardev *c, struct err *e)
{
	struct pipe_chardev *p = (struct pipe_chardev *)c;
	int ret;

	if (!p->path)
		return err_set(e, EINVAL, "path= is missing");
	ret = open_fds(p, e);
	if (ret)
		return ret;
	ret = fdio_start(&p->io, c, p->in_fd, p->out_fd, pipe_eof, e);
	if (ret) {
		close_fds(p);
		return ret;
	}
	chardev_opened(c);
	return 0;
}

static void pipe_close(struct chardev *c)
{
	struct pipe_chardev *p = (struct pipe_chardev *)c;

	fdio_stop(&p->io);
	close_fds(p);
}

static ssize_t pipe_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	return fdio_write(&((struct pipe_chardev *)c)->io, buf, len);
}

static void pipe_want_input(struct chardev *c, bool on)
{
	fdio_want_input(&((struct pipe_chardev *)c)->io, on);
}

const struct chardev_ops chardev_pipe_ops = {
	.name = "pipe",
	.help = "a pair of named pipes",
	.props = pipe_props,
	.size = sizeof(struct pipe_chardev),
	.open = pipe_open,
	.close = pipe_close,
	.write = pipe_write,
	.want_input = pipe_want_input,
};
