/*
 * Image locks, compatible with QEMU's raw driver (block/file-posix.c, raw_check_lock_bytes): every user of an image
 * holds shared OFD locks on byte 100 + n for each permission n it uses and on byte 200 + n for each permission it does
 * not let others have. A conflict is another process's lock on the opposite byte. So two readers go together, a writer
 * excludes readers and writers, and QEMU and vmm exclude each other.
 *
 * Whose a lock is cannot be asked (an OFD lock has no owner). So a process that wants to be recognized as the one that
 * has an image, by another that opened perhaps the same, puts one more shared lock on a byte far behind any image's
 * end, whose number only the two know: a mark. It is seen through every path to the file, and from other hosts where
 * locks are.
 */
#include "src/block/block_private.h"

#include <errno.h>
#include <fcntl.h>

enum { LOCK_PERM = 100, LOCK_UNSHARED = 200 };
#define MARK_FIRST (INT64_C(1) << 60)
#define MARK_MASK  ((UINT64_C(1) << 56) - 1)
enum { PERM_CONSISTENT_READ, PERM_WRITE, PERM_WRITE_UNCHANGED, PERM_RESIZE };
static const char *const perm_names[] = {"consistent read", "write", "write unchanged", "resize"};

static int lock_byte(int fd, off_t byte)
{
	struct flock fl = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	return fcntl(fd, F_OFD_SETLK, &fl) ? -errno : 0;
}

/* Does another open file hold this byte? */
static int byte_taken(int fd, off_t byte)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	if (fcntl(fd, F_OFD_GETLK, &fl))
		return -errno;
	return fl.l_type != F_UNLCK;
}

static int conflict(int fd, off_t byte, const char *what, int perm, const char *path, struct err *e)
{
	int r = byte_taken(fd, byte);

	if (r < 0)
		return err_errno(e, -r, "Failed to test locks of image '%s'", path);
	if (r)
		return err_set(e, EAGAIN, "Failed to get %s\"%s\" lock. Is another process using the image [%s]?", what,
			       perm_names[perm], path);
	return 0;
}

static unsigned used_perms(bool write)
{
	return write ? BIT(PERM_CONSISTENT_READ) | BIT(PERM_WRITE) : BIT(PERM_CONSISTENT_READ);
}

static unsigned unshared_perms(bool write)
{
	return write ? BIT(PERM_WRITE) : BIT(PERM_WRITE) | BIT(PERM_RESIZE);
}

int image_lock_test(int fd, bool write, const char *path, struct err *e)
{
	for (int i = 0; i <= PERM_RESIZE; i++) {
		int r = 0;

		if (used_perms(write) & BIT(i))
			r = conflict(fd, LOCK_UNSHARED + i, "", i, path, e);
		if (!r && unshared_perms(write) & BIT(i))
			r = conflict(fd, LOCK_PERM + i, "shared ", i, path, e);
		if (r)
			return r;
	}
	return 0;
}

int image_lock(int fd, bool write, const char *path, struct err *e)
{
	unsigned used = used_perms(write), unshared = unshared_perms(write);

	for (int i = 0; i <= PERM_RESIZE; i++) {
		int r = 0;

		if (used & BIT(i))
			r = lock_byte(fd, LOCK_PERM + i);
		if (!r && unshared & BIT(i))
			r = lock_byte(fd, LOCK_UNSHARED + i);
		if (r == -EAGAIN || r == -EACCES)
			return err_set(e, EAGAIN, "Failed to get \"%s\" lock. Is another process using the image [%s]?",
				       perm_names[i], path);
		if (r) {
			err_errno(e, -r, "Failed to lock image '%s' (locking=off opens it without)", path);
			return -ENOLCK;
		}
	}
	return image_lock_test(fd, write, path, e);
}

static off_t mark_byte(uint64_t mark)
{
	return (off_t)(MARK_FIRST + (int64_t)(mark & MARK_MASK));
}

int image_mark(int fd, uint64_t mark)
{
	return lock_byte(fd, mark_byte(mark));
}

bool image_is_marked(int fd, uint64_t mark)
{
	return byte_taken(fd, mark_byte(mark)) > 0;
}

void image_unmark(int fd, uint64_t mark)
{
	struct flock fl = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = mark_byte(mark), .l_len = 1};

	fcntl(fd, F_OFD_SETLK, &fl);
}

void image_unlock(int fd)
{
	struct flock fl = {.l_type = F_UNLCK,
			   .l_whence = SEEK_SET,
			   .l_start = LOCK_PERM,
			   .l_len = LOCK_UNSHARED + 100 - LOCK_PERM};

	fcntl(fd, F_OFD_SETLK, &fl);
}
