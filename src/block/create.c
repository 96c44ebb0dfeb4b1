/* New image files, for the operator's blockdev-create. */
#include "src/block/block_private.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vmm/fdset.h"

#include <fcntl.h>

int block_create_file(const char *path, struct err *e)
{
	int fd = fdset_open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644, e);
	struct stat st;
	int r;

	if (fd < 0)
		return fd;
	r = fstat(fd, &st) || !S_ISREG(st.st_mode) ? err_set(e, EINVAL, "'%s' is not a regular file", path) : 0;
	if (!r)
		r = image_lock(fd, true, path, e); /* nobody's image is cut down under him */
	if (r == -ENOLCK) {
		*e = ERR_INIT;
		r = 0;
	}
	if (!r && ftruncate(fd, 0))
		r = err_errno(e, errno, "Could not truncate '%s'", path);
	if (!r)
		return fd;
	close(fd);
	return r;
}
