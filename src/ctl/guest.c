/*
 * Guests in the run directory: /run/vmm for root, $XDG_RUNTIME_DIR/vmm for others. One directory per guest, named for
 * it:
 *
 *   qmp.sock      vmm's control socket
 *   pid           vmm's process id; vmm holds a lock on it as long as it lives
 *   keeper        the keeper's process id, locked by it (keeper.c)
 *   config        the configuration as started, in the syntax of vmm.conf(5)
 *   command       the command line of vmm, one word per line
 *   console.sock  the first serial port; console1.sock ... the others
 *   console.log   what the guest wrote to it; old parts become holes
 *   metrics.sock  OpenMetrics text, where vmm offers it
 *   log           link to the log file, which outlives the guest
 *   reboot        there while a reboot that `vmmctl reboot` asked for is under way
 *
 * Locks, not the existence of files, say who lives: a directory without locks was left by a crash and is cleared away.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "ctl.h"

bool guest_name_valid(const char *name, struct err *e)
{
	size_t len = strlen(name);
	size_t good = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-");

	if (len && len <= GUEST_NAME_MAX && good == len && isalnum((unsigned char)*name))
		return true;
	err_set(e, EINVAL,
		"'%.80s' cannot be a guest's name: letters, digits and ._+- (a letter or digit first), at most %d",
		name, GUEST_NAME_MAX);
	return false;
}

/* ---- directories ---- */

static char *choose(const char *override, const char *of_root, const char *base, const char *below, struct err *e)
{
	const char *set = getenv(override), *from = getenv(base), *home = getenv("HOME");

	if (set && *set == '/')
		return xstrdup(set);
	if (set && *set) {
		err_set(e, EINVAL, "%s=%s: not an absolute path", override, set);
		return NULL;
	}
	if (geteuid() == 0)
		return xstrdup(of_root);
	if (from && *from == '/')
		return xasprintf("%s/vmm", from);
	if (below && home && *home == '/')
		return xasprintf("%s/%s/vmm", home, below);
	err_set(e, ENOENT, "neither %s nor %s is set: log in properly, or name a directory", override, base);
	return NULL;
}

char *run_directory(struct err *e)
{
	return choose("VMM_RUN_DIR", "/run/vmm", "XDG_RUNTIME_DIR", NULL, e);
}

char *config_directory(struct err *e)
{
	return choose("VMM_CONFIG_DIR", "/etc/vmm", "XDG_CONFIG_HOME", ".config", e);
}

char *log_directory(struct err *e)
{
	return choose("VMM_LOG_DIR", "/var/log/vmm", "XDG_STATE_HOME", ".local/state", e);
}

int make_directories(const char *path, mode_t mode, struct err *e)
{
	char *copy = xstrdup(path);
	int r = 0;

	for (char *slash = strchr(copy + 1, '/'); !r && slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(copy, 0755) && errno != EEXIST)
			r = err_errno(e, errno, "cannot create the directory %s", copy);
		*slash = '/';
	}
	if (!r && mkdir(path, mode) && errno != EEXIST)
		r = err_errno(e, errno, "cannot create the directory %s", path);
	free(copy);
	return r;
}

/* ---- files ---- */

char *guest_read_file(int dir, const char *file, size_t limit, size_t *len)
{
	int fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	char *text = NULL;
	ssize_t n = -1;

	if (fd < 0)
		return NULL;
	if (!fstat(fd, &st) && S_ISREG(st.st_mode) && (size_t)st.st_size <= limit) {
		text = xzalloc((size_t)st.st_size + 1);
		n = read(fd, text, (size_t)st.st_size);
	} else {
		errno = EFBIG;
	}
	close(fd);
	if (n < 0) {
		free(text);
		return NULL;
	}
	text[n] = 0;
	if (len)
		*len = (size_t)n;
	return text;
}

int guest_write_file(int dir, const char *file, const char *text, size_t len, mode_t mode)
{
	char *new = xasprintf("%s.new", file);
	int fd = openat(dir, new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode), r = 0;

	if (fd < 0) {
		r = -errno;
	} else {
		ssize_t n = write(fd, text, len);

		if (n != (ssize_t)len)
			r = n < 0 ? -errno : -ENOSPC;
		if (close(fd) && !r)
			r = -errno;
		if (!r && renameat(dir, new, dir, file))
			r = -errno;
		if (r)
			unlinkat(dir, new, 0);
	}
	free(new);
	return r;
}

int guest_lock_holder(int dir, const char *file)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), r;

	if (fd < 0)
		return errno == ENOENT ? -1 : 0;
	r = fcntl(fd, F_GETLK, &lock);
	close(fd);
	return r || lock.l_type == F_UNLCK ? 0 : lock.l_pid;
}

void guest_inspect(struct guest *g)
{
	g->pid = MAX(guest_lock_holder(g->dir, "pid"), 0);
	g->keeper = MAX(guest_lock_holder(g->dir, "keeper"), 0);
}

int guest_remove_directory(int dir, const char *run_dir)
{
	int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	char link[64], path[4200], *real, *slash;
	struct dirent *entry;
	bool inside;
	ssize_t n;

	if (!d)
		return -errno;
	while ((entry = readdir(d)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			unlinkat(dir, entry->d_name, 0);
	closedir(d);
	/* It may have been renamed since: /proc knows its present name. Nothing outside of the run directory is
	 * removed. */
	snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return -errno;
	path[n] = 0;
	real = realpath(run_dir, NULL); /* /var/run is a link */
	slash = strrchr(path, '/');
	inside = real && (size_t)(slash - path) == strlen(real) && !strncmp(path, real, strlen(real));
	free(real);
	if (!inside)
		return -EXDEV;
	return rmdir(path) ? -errno : 0;
}

/* ---- finding ---- */

static int open_guest(int run, const char *name, struct guest *g)
{
	*g = GUEST_INIT;
	snprintf(g->name, sizeof(g->name), "%.*s", GUEST_NAME_MAX, name);
	g->dir = openat(run, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (g->dir < 0)
		return -errno;
	guest_inspect(g);
	return 0;
}

void guest_close(struct guest *g)
{
	qmp_close(g->qmp);
	if (g->dir >= 0)
		close(g->dir);
	*g = GUEST_INIT;
}

void guest_list_free(struct guest_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		guest_close(&list->v[i]);
	free(list->v);
	*list = (struct guest_list){0};
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct guest *)a)->name, ((const struct guest *)b)->name);
}

/* Every directory with a guest's name. No run directory: no guests. */
static int read_all(struct ctl *c, struct guest_list *list)
{
	char *path = run_directory(&c->err);
	struct dirent *entry;
	DIR *d;

	*list = (struct guest_list){0};
	if (!path)
		return CTL_FAILED;
	d = opendir(path);
	if (!d && errno != ENOENT) {
		ctl_errno(c, errno, "cannot read the run directory %s", path);
		free(path);
		return CTL_FAILED;
	}
	free(path);
	while (d && (entry = readdir(d))) {
		struct guest g;

		if (!guest_name_valid(entry->d_name, NULL) || open_guest(dirfd(d), entry->d_name, &g))
			continue;
		list->v = xrealloc(list->v, (list->n + 1) * sizeof(*list->v));
		list->v[list->n++] = g;
	}
	if (d)
		closedir(d);
	if (list->n)
		qsort(list->v, list->n, sizeof(*list->v), by_name);
	return CTL_OK;
}

static int no_guest(struct ctl *c, const char *name, const struct guest_list *list)
{
	const char **names = xcalloc(list->n, sizeof(*names)), *near;
	int r;

	for (size_t i = 0; i < list->n; i++)
		names[i] = list->v[i].name;
	near = err_nearest(name, names, list->n);
	if (near)
		r = ctl_fail(c, CTL_NO_GUEST, "no guest '%s' is running; did you mean '%s'?", name, near);
	else
		r = ctl_fail(c, CTL_NO_GUEST, "no guest '%.80s' is running; `vmmctl list` shows all", name);
	free(names);
	return r;
}

static struct guest *pick(const struct guest_list *list, const char *name)
{
	long id;
	char *end;

	for (size_t i = 0; i < list->n; i++)
		if (!strcmp(list->v[i].name, name))
			return &list->v[i];
	id = strtol(name, &end, 10);
	for (size_t i = 0; !*end && id > 0 && i < list->n; i++)
		if (list->v[i].pid == id)
			return &list->v[i];
	return NULL;
}

int guest_find(struct ctl *c, const char *name, struct guest *g)
{
	struct guest_list list;
	struct guest *found;
	int r;

	*g = GUEST_INIT;
	r = read_all(c, &list);
	if (r)
		return r;
	found = pick(&list, name);
	if (!found) {
		r = no_guest(c, name, &list);
	} else {
		*g = *found;
		*found = GUEST_INIT;
	}
	guest_list_free(&list);
	return r;
}

int guest_connect(struct ctl *c, const char *name, struct guest *g)
{
	int r = guest_find(c, name, g), status;
	json_t *answer;

	if (r)
		return r;
	if (!g->pid && g->keeper)
		r = ctl_fail(c, CTL_NO_GUEST, "%s is between two starts; try again", g->name);
	else if (!g->pid)
		r = ctl_fail(c, CTL_NO_GUEST, "%s does not run: what is left of it goes with `vmmctl destroy %s`",
			     g->name, g->name);
	if (!r) {
		g->qmp = qmp_open(g->dir, "qmp.sock", &c->err);
		if (!g->qmp)
			r = (err_prefix(&c->err, "%s", g->name), CTL_NO_ANSWER);
	}
	if (!r) {
		answer = guest_query(c, g, "query-status", NULL, &status);
		r = answer ? CTL_OK : status;
		json_decref(answer);
	}
	if (r)
		guest_close(g);
	return r;
}

int guest_all(struct ctl *c, char **names, int n_names, struct guest_list *list)
{
	struct guest_list all;
	int r = read_all(c, &all);

	if (r || !n_names) {
		*list = all;
		return r;
	}
	*list = (struct guest_list){xcalloc((size_t)n_names, sizeof(*list->v)), 0};
	for (int i = 0; !r && i < n_names; i++) {
		struct guest *g = pick(&all, names[i]);

		if (!g) {
			r = no_guest(c, names[i], &all);
		} else if (g->dir >= 0) { /* named twice: once is enough */
			list->v[list->n++] = *g;
			g->dir = -1;
			g->qmp = NULL;
		}
	}
	guest_list_free(&all);
	if (r)
		guest_list_free(list);
	return r;
}

/* ---- talking ---- */

json_t *guest_query(struct ctl *c, struct guest *g, const char *command, json_t *args, int *status)
{
	json_t *answer = qmp_run(g->qmp, command, args, c->timeout_ms, &c->err);

	*status = CTL_OK;
	if (answer)
		return answer;
	*status = c->err.code == ETIMEDOUT || c->err.code == EPIPE ? CTL_NO_ANSWER : CTL_FAILED;
	if (c->err.code == EPIPE)
		ctl_fail(c, CTL_NO_ANSWER, "%s: the guest ended before it answered %s", g->name, command);
	else if (c->err.code == ETIMEDOUT)
		ctl_fail(c, CTL_NO_ANSWER, "%s: no answer to %s within %d s", g->name, command, c->timeout_ms / 1000);
	else
		err_prefix(&c->err, "%s: %s", g->name, command);
	return NULL;
}

int guest_command(struct ctl *c, struct guest *g, const char *command, json_t *args)
{
	int status;

	json_decref(guest_query(c, g, command, args, &status));
	return status;
}

/* The directory goes last, after vmm and its keeper. */
bool guest_wait_end(const struct guest *g, int timeout_ms)
{
	int64_t deadline = now_ms() + timeout_ms;
	pid_t who = g->keeper ? g->keeper : g->pid;
	struct pollfd p = {.fd = who > 0 ? (int)syscall(SYS_pidfd_open, who, 0) : -1, .events = POLLIN};
	bool ended = p.fd < 0; /* it ended before we could look */

	while (!ended) {
		int64_t left = timeout_ms < 0 ? 60 * 1000 : deadline - now_ms();

		ended = poll(&p, 1, (int)MAX(left, 0)) > 0;
		if (timeout_ms >= 0 && left <= 0)
			break;
	}
	if (p.fd >= 0)
		close(p.fd);
	return ended;
}
