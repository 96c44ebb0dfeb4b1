/*
 * File descriptors handed to us: -add-fd / QMP add-fd sets ("/dev/fdset/N" opens a duplicate of a member), and the
 * names of QMP getfd. Main thread, except fdset_open().
 */
#ifndef VMM_FDSET_H
#define VMM_FDSET_H

#include <stdbool.h>
#include <sys/types.h>
#include "vmm/err.h"

/* open(2) that understands /dev/fdset/N: there it duplicates the member whose access mode fits `flags` (close-on-exec).
   Any thread. Returns an fd or -errno with a message that names the path. */
int fdset_open(const char *path, int flags, mode_t mode, struct err *e);

/* Add fd to set `set` (-1: the lowest unused number). Takes ownership on success. opaque: text for query-fdsets or
   NULL. Returns the set's number or -errno. */
int64_t fdset_add(int64_t set, int fd, const char *opaque, struct err *e);
/* Close one member (fd: its number as fdset_add got it) or, with fd -1, all. -ENOENT with QEMU's text. */
int fdset_remove(int64_t set, int fd, struct err *e);
/* Member i in the order of sets; false past the end. The text is the set's. */
struct fdset_member {
	int64_t set;
	int fd;
	const char *opaque; /* NULL: none */
};
bool fdset_at(size_t i, struct fdset_member *out);

/* getfd: names fd; an fd of the same name is closed. Takes ownership. Names must not start with a digit. */
int fd_name_set(const char *name, int fd, struct err *e);
/* closefd. -ENOENT with QEMU's text. */
int fd_name_close(const char *name, struct err *e);
/* Take the fd away from its name: the caller owns it. `text` may also be the number of an inherited fd ("33"). fd or
   -errno. */
int fd_name_take(const char *text, struct err *e);

#endif
