/* File descriptor sets (/dev/fdset/N) and named descriptors: see vmm/fdset.h. */
#include "vmm/fdset.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_MEMBERS 1024 /* of all sets and names: a client cannot use up our descriptors without bound */

struct member {
	struct fdset_member m;
	char *opaque;
	struct member *next;
};

struct named_fd {
	char *name;
	int fd;
	struct named_fd *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct member *members; /* sorted by set, then in order of arrival */
static struct named_fd *names;
static unsigned count;

/* ---- sets ---- */

static bool has_set(int64_t set)
{
	for (struct member *m = members; m; m = m->next)
		if (m->m.set == set)
			return true;
	return false;
}

int64_t fdset_add(int64_t set, int fd, const char *opaque, struct err *e)
{
	struct member *m, **p;

	if (set < -1)
		return err_set(e, EINVAL, "Parameter 'fdset-id' expects a non-negative value");
	pthread_mutex_lock(&lock);
	if (count >= MAX_MEMBERS) {
		pthread_mutex_unlock(&lock);
		return err_set(e, EMFILE, "too many file descriptors in sets (at most %d)", MAX_MEMBERS);
	}
	if (set < 0)
		for (set = 0; has_set(set); set++)
			continue;
	m = xzalloc(sizeof(*m));
	m->opaque = xstrdup(opaque);
	m->m = (struct fdset_member){.set = set, .fd = fd, .opaque = m->opaque};
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	for (p = &members; *p && (*p)->m.set <= set; p = &(*p)->next)
		continue;
	m->next = *p;
	*p = m;
	count++;
	pthread_mutex_unlock(&lock);
	return set;
}

int fdset_remove(int64_t set, int fd, struct err *e)
{
	struct member **p = &members;
	bool found = false;

	pthread_mutex_lock(&lock);
	while (*p) {
		struct member *m = *p;

		if (m->m.set != set || (fd >= 0 && m->m.fd != fd)) {
			p = &m->next;
			continue;
		}
		*p = m->next;
		close(m->m.fd);
		free(m->opaque);
		free(m);
		count--;
		found = true;
	}
	pthread_mutex_unlock(&lock);
	if (found)
		return 0;
	if (fd >= 0)
		return err_set(e, ENOENT, "File descriptor named 'fdset-id:%" PRId64 ", fd:%d' not found", set, fd);
	return err_set(e, ENOENT, "File descriptor named 'fdset-id:%" PRId64 "' not found", set);
}

bool fdset_at(size_t i, struct fdset_member *out)
{
	for (struct member *m = members; m; m = m->next) {
		if (i--)
			continue;
		*out = m->m;
		return true;
	}
	return false;
}

static int open_member(int64_t set, int flags, const char *path, struct err *e)
{
	int want = flags & O_ACCMODE, fd = -1;
	bool known = false;

	pthread_mutex_lock(&lock);
	for (struct member *m = members; m && fd < 0; m = m->next) {
		int mode;

		if (m->m.set != set)
			continue;
		known = true;
		mode = fcntl(m->m.fd, F_GETFL) & O_ACCMODE;
		if (mode == want || mode == O_RDWR)
			fd = fcntl(m->m.fd, F_DUPFD_CLOEXEC, 3);
	}
	pthread_mutex_unlock(&lock);
	if (!known)
		return err_set(e, ENOENT, "%s: there is no such set; give it with -add-fd or add-fd", path);
	if (fd < 0)
		return err_set(e, EACCES, "%s: no descriptor in the set is open for %s", path,
			       want == O_RDONLY   ? "reading"
			       : want == O_WRONLY ? "writing"
						  : "reading and writing");
	if (flags & O_TRUNC)
		(void)!ftruncate(fd, 0); /* pipes and terminals cannot */
	return fd;
}

int fdset_open(const char *path, int flags, mode_t mode, struct err *e)
{
	int64_t set;
	char rest;
	int fd;

	if (!strncmp(path, "/dev/fdset/", 11)) {
		if (sscanf(path + 11, "%" SCNd64 "%c", &set, &rest) != 1 || set < 0)
			return err_set(e, EINVAL, "%s: a number must follow /dev/fdset/", path);
		return open_member(set, flags, path, e);
	}
	fd = open(path, flags | O_CLOEXEC, mode);
	return fd < 0 ? err_errno(e, errno, "cannot open %s", path) : fd;
}

/* ---- names ---- */

static struct named_fd **find_name(const char *name)
{
	struct named_fd **p = &names;

	while (*p && strcmp((*p)->name, name))
		p = &(*p)->next;
	return p;
}

int fd_name_set(const char *name, int fd, struct err *e)
{
	struct named_fd *n;

	if (isdigit((unsigned char)*name) || !*name)
		return err_set(e, EINVAL, "Parameter 'fdname' expects a name not starting with a digit");
	n = *find_name(name);
	if (n) {
		close(n->fd);
		n->fd = fd;
		return 0;
	}
	if (count >= MAX_MEMBERS)
		return err_set(e, EMFILE, "too many named file descriptors (at most %d)", MAX_MEMBERS);
	n = xzalloc(sizeof(*n));
	n->name = xstrdup(name);
	n->fd = fd;
	n->next = names;
	names = n;
	count++;
	return 0;
}

static int detach(const char *name)
{
	struct named_fd **p = find_name(name), *n = *p;
	int fd;

	if (!n)
		return -ENOENT;
	fd = n->fd;
	*p = n->next;
	free(n->name);
	free(n);
	count--;
	return fd;
}

int fd_name_close(const char *name, struct err *e)
{
	int fd = detach(name);

	if (fd < 0)
		return err_set(e, ENOENT, "File descriptor named '%s' not found", name);
	close(fd);
	return 0;
}

int fd_name_take(const char *text, struct err *e)
{
	char *end;
	long n;
	int fd;

	if (!isdigit((unsigned char)*text)) {
		fd = detach(text);
		return fd < 0 ? err_set(e, ENOENT, "File descriptor named '%s' not found", text) : fd;
	}
	errno = 0;
	n = strtol(text, &end, 10);
	if (*end || errno || n > INT32_MAX || fcntl((int)n, F_GETFD) < 0)
		return err_set(e, EBADF, "fd=%s is not an open file descriptor", text);
	fcntl((int)n, F_SETFD, FD_CLOEXEC);
	return (int)n;
}
