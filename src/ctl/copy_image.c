/* Copying disk images: reflinked where the file system can, else extent by extent, so that holes stay holes. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "verbs_config.h"

#define CHUNK (16 * MIB)

/* Between file systems that cannot do it for us. 0 or -errno. */
static int copy_through(int in, int out, off_t at, size_t len)
{
	size_t size = MIB;
	char *buf = xzalloc(size);
	int r = 0;

	while (!r && len) {
		ssize_t n = pread(in, buf, MIN(size, len), at);

		if (n <= 0)
			r = n < 0 ? -errno : -EIO; /* it shrank */
		else if (pwrite(out, buf, (size_t)n, at) != n)
			r = errno ? -errno : -ENOSPC;
		at += MAX(n, 0);
		len -= (size_t)MAX(n, 0);
	}
	free(buf);
	return r;
}

static int copy_range(int in, int out, off_t at, size_t len)
{
	while (len) {
		loff_t from = at, to = at;
		ssize_t n = copy_file_range(in, &from, out, &to, len, 0);

		if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP))
			return copy_through(in, out, at, len);
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int copy_extents(int in, int out, off_t size, struct progress *p)
{
	off_t data = 0, hole;
	int r = ftruncate(out, size) ? -errno : 0;

	while (!r && data < size) {
		data = lseek(in, data, SEEK_DATA);
		if (data < 0)
			return errno == ENXIO ? 0 : -errno; /* nothing but a hole up to the end */
		hole = lseek(in, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		for (; !r && data < hole; data += (off_t)MIN((size_t)(hole - data), (size_t)CHUNK)) {
			r = copy_range(in, out, data, MIN((size_t)(hole - data), (size_t)CHUNK));
			progress_draw(p, (uint64_t)data, (uint64_t)size, 0);
		}
	}
	return r;
}

int copy_image(struct ctl *c, const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK), out = -1, r = 0;
	struct progress p;
	struct stat st;

	if (in < 0 || fstat(in, &st))
		r = ctl_errno(c, errno, "cannot read %s", from);
	else if (!S_ISREG(st.st_mode))
		r = ctl_fail(c, CTL_FAILED,
			     "%s is no file: copy devices by hand, and name the copy with [disk] file=", from);
	if (!r) {
		out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, st.st_mode & 0777);
		if (out < 0)
			r = ctl_errno(c, errno, "cannot create %s", to);
	}
	if (!r) {
		int failed;

		progress_begin(&p, c, "copying");
		failed = ioctl(out, FICLONE, in) ? copy_extents(in, out, st.st_size, &p) : 0;
		if (!failed && fsync(out))
			failed = -errno;
		progress_end(&p);
		if (failed) {
			r = ctl_errno(c, -failed, "cannot copy %s to %s", from, to);
			unlink(to);
		}
	}
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	return r;
}
