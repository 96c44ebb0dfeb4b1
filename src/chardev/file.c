/* -chardev file: output to a file, replaced or appended to; no input. A full disk loses output, never stops the guest.
 */
#include "backend.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "vmm/fdset.h"
#include "vmm/log.h"

struct file_chardev {
	struct chardev c;
	char *path;
	bool append;
	int fd;
	bool failed; /* said so once */
	struct fdio io;
};

static const struct prop file_props[] = {
	CHARDEV_COMMON_PROPS,
	PROP(struct file_chardev, path, PROP_STR, .help = "file to write, or /dev/fdset/N"),
	PROP(struct file_chardev, append, PROP_BOOL, .help = "append instead of replacing"),
	PROP_END,
};

static int file_open(struct chardev *c, struct err *e)
{
	struct file_chardev *f = (struct file_chardev *)c;
	int ret;

	if (!f->path)
		return err_set(e, EINVAL, "path= is missing");
	/* Non-blocking for the case that the "file" is a FIFO or terminal. */
	f->fd = fdset_open(f->path, O_WRONLY | O_CREAT | O_NONBLOCK | O_CLOEXEC | (f->append ? O_APPEND : O_TRUNC),
			   0666, e);
	if (f->fd < 0)
		return f->fd;
	ret = fdio_start(&f->io, c, -1, f->fd, NULL, e);
	if (ret) {
		close(f->fd);
		return ret;
	}
	chardev_opened(c);
	return 0;
}

static void file_close(struct chardev *c)
{
	struct file_chardev *f = (struct file_chardev *)c;

	fdio_stop(&f->io);
	close(f->fd);
}

static ssize_t file_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	struct file_chardev *f = (struct file_chardev *)c;
	ssize_t n = fdio_write(&f->io, buf, len);

	if (n < 0 && !f->failed) {
		f->failed = true;
		log_warn("chardev", "%s: cannot write %s: %s; output is lost until it can", c->id, f->path,
			 strerror((int)-n));
	} else if (n > 0) {
		f->failed = false;
	}
	return n;
}

const struct chardev_ops chardev_file_ops = {
	.name = "file",
	.help = "output to a file",
	.props = file_props,
	.size = sizeof(struct file_chardev),
	.open = file_open,
	.close = file_close,
	.write = file_write,
};
