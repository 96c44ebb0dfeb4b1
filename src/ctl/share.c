/*
 * Shares of the processors, through control groups: version 2 where its "cpu" controller is, else version 1's, as hosts
 * with the hybrid layout have it. Documentation/admin-guide/cgroup-v2.rst, cgroup-v1 and scheduler/sched-bwc.rst of
 * Linux.
 *
 * A guest that has a control group to itself (a systemd service, say) gets its files written there; else it is moved
 * into GROUP/vmm-NAME below its present group, which must be ours to divide (root, or a group delegated to the user),
 * or, where version 2 does not let a group with processes be divided, below the root of the hierarchy. Its keeper
 * removes that again when the guest has ended for good.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "ctl.h"

#define XEN_WEIGHT 256 /* one share, as Xen's credit scheduler counts */
#define PERIOD_US  100000

/* One share in the file's unit, and its limits. */
static const struct version {
	const char *weight_file;
	long share, least, most;
} version1 = {"cpu.shares", 1024, 2, 262144}, version2 = {"cpu.weight", 100, 1, 10000};

struct group {
	const struct version *version;
	char *path, *root; /* of its hierarchy */
};

static void group_free(struct group *g)
{
	free(g->path);
	free(g->root);
	*g = (struct group){0};
}

static char *file_in(const char *group, const char *file)
{
	return xasprintf("%s/%s", group, file);
}

static bool read_file(const char *group, const char *file, char *buf, size_t size)
{
	char *path = file_in(group, file);
	bool ok = read_small(path, buf, size);

	free(path);
	return ok;
}

/* Is word one of the words of text, which `between` separates? */
static bool has_word(const char *text, const char *word, const char *between)
{
	for (size_t n; *text; text += n + (text[n] != 0)) {
		n = strcspn(text, between);
		if (n == strlen(word) && !strncmp(text, word, n))
			return true;
	}
	return false;
}

/* Where version 2 with its "cpu" controller is, malloc'ed; NULL: nowhere. A set root is believed. */
static char *root_of_v2(void)
{
	static const char *const places[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
	const char *set = getenv("VMM_CGROUP_ROOT");
	char text[1024];

	if (set && *set)
		return xstrdup(set);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (read_file(places[i], "cgroup.controllers", text, sizeof(text)) && has_word(text, "cpu", " \n"))
			return xstrdup(places[i]);
	return NULL;
}

/* A line of /proc/PID/cgroup, "number:controllers:path": version 2 has number 0, version 1 names its controllers. */
static bool take_line(struct group *g, char *line)
{
	char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;

	if (!path || path[1] != '/')
		return false;
	*path++ = 0;
	controllers++;
	if (g->version == &version2 ? strncmp(line, "0:", 2) || *controllers : !has_word(controllers, "cpu", ","))
		return false;
	g->path = xasprintf("%s%s", g->root, strcmp(path, "/") ? path : "");
	return true;
}

static int find_group(struct group *g, pid_t pid, struct err *e)
{
	char path[64], text[8192], *save = NULL;

	*g = (struct group){.version = &version2, .root = root_of_v2()};
	if (!g->root) {
		g->version = &version1;
		g->root = xstrdup("/sys/fs/cgroup/cpu"); /* also where it is mounted with cpuacct: there is a link */
	}
	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	if (read_small(path, text, sizeof(text)))
		for (char *line = strtok_r(text, "\n", &save); line && !g->path; line = strtok_r(NULL, "\n", &save))
			take_line(g, line);
	if (g->path && (getenv("VMM_CGROUP_ROOT") || !access(g->path, F_OK)))
		return 0;
	group_free(g);
	return err_set(e, ENOTSUP,
		       "this host has no control groups with a \"cpu\" controller, neither version 2 nor 1");
}

static int write_text(const char *group, const char *file, const char *text, struct err *e)
{
	char *path = file_in(group, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC), r = 0;

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		r = err_errno(e, errno, "cannot write %s", path);
	if (fd >= 0)
		close(fd);
	free(path);
	return r;
}

/* Whether it is that of a unit of systemd's made for this guest: vmm@NAME.service, or the scope of enter_scope(). */
static bool is_unit(const char *path, const char *name)
{
	const char *last = strrchr(path, '/');
	char *service = xasprintf("/vmm@%s.service", name), *scope = xasprintf("/vmm-%s.scope", name);
	bool yes = last && (!strcmp(last, service) || !strcmp(last, scope));

	free(service);
	free(scope);
	return yes;
}

/* Whether all processes in the group are the guest's: vmm, its keeper, in a unit also vmm's helpers. */
static bool group_is_ours(const struct group *g, pid_t pid, const char *name)
{
	char text[256], number[16];
	struct proc_times t;
	char *s, *end;
	size_t n = 0;

	snprintf(number, sizeof(number), "%d", (int)pid);
	if (is_unit(g->path, name))
		return true;
	if (!proc_times(pid, 0, &t) || !read_file(g->path, "cgroup.procs", text, sizeof(text)))
		return false;
	for (s = text; *s; s = end, n++) {
		strtol(s, &end, 10);
		if (end == s)
			break;
		end += *end == '\n';
	}
	return n <= 2 && has_word(text, number, "\n") && strcmp(g->path, g->root);
}

static char *own_group(const char *parent, const char *name)
{
	return xasprintf("%s/vmm-%s", parent, name);
}

/* A new group in `parent` for the process; 0 or -errno. */
static int divide(const struct group *g, const char *parent, const char *own, pid_t pid, struct err *e)
{
	char number[16], enabled[256];
	bool enable =
		g->version == &version2 && !(read_file(parent, "cgroup.subtree_control", enabled, sizeof(enabled)) &&
					     has_word(enabled, "cpu", " \n"));
	int r = 0;

	snprintf(number, sizeof(number), "%d", (int)pid);
	if (mkdir(own, 0755) && errno != EEXIST)
		r = err_errno(e, errno, "cannot create %s", own);
	if (!r && enable)
		r = write_text(parent, "cgroup.subtree_control", "+cpu", e);
	if (!r)
		r = write_text(own, "cgroup.procs", number, e);
	if (r) {
		err_prefix(e, "no right to divide the control group %s (systemd: Delegate=cpu)", parent);
		if (!rmdir(own) && enable)
			write_text(parent, "cgroup.subtree_control", "-cpu", NULL);
	}
	return r;
}

/* g: the group that pid is in -> the one whose shares are the guest's: that, or a new one. */
static int make_group(struct group *g, pid_t pid, const char *name, struct err *e)
{
	char *own, text[64];
	int r;

	if (group_is_ours(g, pid, name) && read_file(g->path, g->version->weight_file, text, sizeof(text)))
		return 0;
	own = own_group(g->path, name);
	r = divide(g, g->path, own, pid, e);
	/* cgroup-v2.rst, "No Internal Process Constraint": only the root is free of it. And only there is the
	 * controller for certain. */
	if (r && g->version == &version2 && strcmp(g->path, g->root)) {
		free(own);
		own = own_group(g->root, name);
		r = divide(g, g->root, own, pid, NULL);
	}
	if (r) {
		free(own);
		return -EACCES;
	}
	*e = ERR_INIT;
	free(g->path);
	g->path = own;
	return 0;
}

static int write_cap(const struct group *g, long cap, struct err *e)
{
	char period[16], quota[24], both[48];
	int r;

	snprintf(period, sizeof(period), "%d", PERIOD_US);
	if (cap)
		snprintf(quota, sizeof(quota), "%ld", cap * (PERIOD_US / 100));
	else
		snprintf(quota, sizeof(quota), "%s", g->version == &version2 ? "max" : "-1");
	if (g->version == &version2) {
		snprintf(both, sizeof(both), "%s %s", quota, period);
		return write_text(g->path, "cpu.max", both, e);
	}
	r = write_text(g->path, "cpu.cfs_period_us", period, e);
	return r ? r : write_text(g->path, "cpu.cfs_quota_us", quota, e);
}

int sched_set(pid_t pid, const char *name, long weight, long cap, struct err *e)
{
	struct group g;
	char text[24];
	int r = find_group(&g, pid, e);

	if (r)
		return r;
	r = make_group(&g, pid, name, e);
	if (!r && weight >= 0) {
		long shares = (weight * g.version->share + XEN_WEIGHT / 2) / XEN_WEIGHT;

		snprintf(text, sizeof(text), "%ld", MIN(MAX(shares, g.version->least), g.version->most));
		r = write_text(g.path, g.version->weight_file, text, e);
	}
	if (!r && cap >= 0)
		r = write_cap(&g, cap, e);
	group_free(&g);
	return r;
}

/* Quota and period; false: no limit. */
static bool read_cap(const struct group *g, long *quota, long *period)
{
	char text[64], *end;

	if (!read_file(g->path, g->version == &version2 ? "cpu.max" : "cpu.cfs_quota_us", text, sizeof(text)))
		return false;
	*quota = strtol(text, &end, 10);
	if (end == text || *quota <= 0)
		return false;
	if (g->version == &version1 && !read_file(g->path, "cpu.cfs_period_us", end = text, sizeof(text)))
		return false;
	*period = strtol(end, NULL, 10);
	return *period > 0;
}

int sched_get(pid_t pid, long *weight, long *cap, struct err *e)
{
	long quota, period;
	struct group g;
	char text[64];
	int r = find_group(&g, pid, e);

	*weight = XEN_WEIGHT;
	*cap = 0;
	if (r)
		return r;
	if (read_file(g.path, g.version->weight_file, text, sizeof(text)))
		*weight = (strtol(text, NULL, 10) * XEN_WEIGHT + g.version->share / 2) / g.version->share;
	if (read_cap(&g, &quota, &period))
		*cap = quota * 100 / period;
	group_free(&g);
	return 0;
}

/* Where make_group() may have made the guest's: below its keeper's group, or below the root. */
static char *made_group(const struct group *keepers, const char *name, unsigned place)
{
	return own_group(place ? keepers->root : keepers->path, name);
}

void sched_rejoin(pid_t pid, const char *name)
{
	struct err e = ERR_INIT;
	struct group g;
	char number[16];

	if (find_group(&g, getpid(), &e))
		return;
	snprintf(number, sizeof(number), "%d", (int)pid);
	for (unsigned place = 0; place < 2; place++) {
		char *own = made_group(&g, name, place);
		int r = write_text(own, "cgroup.procs", number, NULL);

		free(own);
		if (!r)
			break;
	}
	group_free(&g);
}

void sched_forget(const char *name)
{
	struct err e = ERR_INIT;
	struct group g;

	if (find_group(&g, getpid(), &e))
		return;
	for (unsigned place = 0; place < 2; place++) {
		char *own = made_group(&g, name, place);

		rmdir(own); /* fails if it is not there, or not empty */
		free(own);
	}
	group_free(&g);
}
