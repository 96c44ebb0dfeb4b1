/*
 * Processors: masks, times from /proc, and shares through control groups (version 2 only).
 *
 * Shares: a guest that has a control group to itself (a systemd service, say) gets its files written there; else it is
 * moved into GROUP/vmm-NAME below its present group, which must be ours to divide (root, or a group delegated to the
 * user).
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "ctl.h"

#define MASK_CPUS ((long)sizeof(((struct cpu_mask *)0)->bits) * 8)

static void mask_set(struct cpu_mask *m, long cpu, bool on)
{
	if (on)
		m->bits[cpu / 8] |= (unsigned char)(1 << cpu % 8);
	else
		m->bits[cpu / 8] &= (unsigned char)~(1 << cpu % 8);
}

static bool mask_has(const struct cpu_mask *m, long cpu)
{
	return m->bits[cpu / 8] >> cpu % 8 & 1;
}

int cpu_mask_parse(const char *text, struct cpu_mask *mask, struct err *e)
{
	long online = sysconf(_SC_NPROCESSORS_CONF);
	const char *s = text;
	bool any = false;

	memset(mask, 0, sizeof(*mask));
	if (!strcmp(text, "all") || !strcmp(text, "any")) {
		for (long i = 0; i < MIN(online, MASK_CPUS); i++)
			mask_set(mask, i, true);
		return 0;
	}
	while (*s) {
		bool remove = *s == '^';
		char *end;
		long first = strtol(s += remove, &end, 10), last = first;

		if (end != s && *end == '-') {
			s = end + 1;
			last = strtol(s, &end, 10);
		}
		if (end == s || first < 0 || last < first || (*end && *end != ',') || (*end && !end[1]))
			return err_set(e, EINVAL, "'%.80s' is no list of processors such as 0-3,^1", text);
		if (last >= online || last >= MASK_CPUS)
			return err_set(e, EINVAL, "'%.80s': this host has processors 0 to %ld", text, online - 1);
		for (; first <= last; first++)
			mask_set(mask, first, !remove);
		s = end + (*end == ',');
	}
	for (long i = 0; i < MASK_CPUS; i++)
		any |= mask_has(mask, i);
	return any ? 0 : err_set(e, EINVAL, "'%.80s' leaves no processor", text);
}

char *cpu_mask_format(const struct cpu_mask *mask)
{
	long online = MIN(sysconf(_SC_NPROCESSORS_CONF), MASK_CPUS), n = 0;
	char *out = xstrdup("");

	for (long i = 0; i < online; i++)
		n += mask_has(mask, i);
	if (n == online) {
		free(out);
		return xstrdup("all");
	}
	for (long i = 0; i < online; i++) {
		long last = i;
		char *more;

		if (!mask_has(mask, i))
			continue;
		while (last + 1 < online && mask_has(mask, last + 1))
			last++;
		more = last > i ? xasprintf("%s%s%ld-%ld", out, *out ? "," : "", i, last)
				: xasprintf("%s%s%ld", out, *out ? "," : "", i);
		free(out);
		out = more;
		i = last;
	}
	return out;
}

int cpu_mask_apply(pid_t thread, const struct cpu_mask *mask)
{
	return sched_setaffinity(thread, sizeof(mask->bits), (const cpu_set_t *)mask->bits) ? -errno : 0;
}

int cpu_mask_of(pid_t thread, struct cpu_mask *mask)
{
	memset(mask, 0, sizeof(*mask));
	return sched_getaffinity(thread, sizeof(mask->bits), (cpu_set_t *)mask->bits) ? -errno : 0;
}

/* ---- times ---- */

static bool read_small(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	if (fd >= 0)
		close(fd);
	buf[MAX(n, 0)] = 0;
	return n > 0;
}

/* proc(5): field 3 is the state, 14 and 15 user and system time, 22 the start, 39 the processor, 43 guest time. */
bool proc_times(pid_t pid, pid_t thread, struct proc_times *t)
{
	double tick = 1.0 / (double)sysconf(_SC_CLK_TCK);
	unsigned long long field[44] = {0};
	char path[80], text[1024], *s, *end;

	*t = (struct proc_times){0};
	if (thread)
		snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", (int)pid, (int)thread);
	else
		snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (!read_small(path, text, sizeof(text)) || !(s = strrchr(text, ')')) || !s[1] || !s[2])
		return false;
	t->state = s[2];
	s += 3;
	for (int i = 4; i <= 43; i++, s = end)
		field[i] = strtoull(s, &end, 10);
	t->user = (double)field[14] * tick;
	t->system = (double)field[15] * tick;
	t->start = field[22];
	t->cpu = (int)field[39];
	t->guest = (double)field[43] * tick;
	strcpy(strrchr(path, '/'), "/schedstat");
	if (read_small(path, text, sizeof(text)) && (s = strchr(text, ' ')))
		t->steal = (double)strtoull(s, NULL, 10) / 1e9; /* ready to run, but not running */
	return true;
}

/* ---- shares ---- */

#define XEN_WEIGHT    256 /* one share, as Xen's credit scheduler counts */
#define CGROUP_WEIGHT 100 /* the same in cpu.weight */
#define PERIOD_US     100000

static const char *cgroup_root(void)
{
	const char *set = getenv("VMM_CGROUP_ROOT");

	if (set && *set)
		return set;
	return access("/sys/fs/cgroup/cgroup.controllers", F_OK) && !access("/sys/fs/cgroup/unified", F_OK)
		       ? "/sys/fs/cgroup/unified"
		       : "/sys/fs/cgroup";
}

/* Path of its version 2 group; malloc'ed. */
static char *group_of(pid_t pid, struct err *e)
{
	char path[64], text[4096], *s, *nl;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	if (!read_small(path, text, sizeof(text)) || !(s = strstr(text, "0::/"))) {
		err_set(e, ENOTSUP, "this host has no control groups of version 2 (cgroup v2)");
		return NULL;
	}
	s += strlen("0::");
	nl = strchr(s, '\n');
	if (nl)
		*nl = 0;
	return xasprintf("%s%s", cgroup_root(), strcmp(s, "/") ? s : "");
}

static int write_text(const char *group, const char *file, const char *text, struct err *e)
{
	char *path = xasprintf("%s/%s", group, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC), r = 0;

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		r = err_errno(e, errno, "cannot write %s", path);
	if (fd >= 0)
		close(fd);
	free(path);
	return r;
}

/* Whether all processes in the group are vmm and its keeper. */
static bool group_is_ours(const char *group, pid_t pid)
{
	char path[4200], text[256], stat[64];
	struct proc_times t;
	char *s, *end;
	size_t n = 0;

	snprintf(path, sizeof(path), "%s/cgroup.procs", group);
	snprintf(stat, sizeof(stat), "%d", (int)pid);
	if (!proc_times(pid, 0, &t) || !read_small(path, text, sizeof(text)))
		return false;
	for (s = text; *s; s = end, n++) {
		strtol(s, &end, 10);
		if (end == s)
			break;
		end += *end == '\n';
	}
	return n <= 2 && strstr(text, stat) && strcmp(group, cgroup_root());
}

/* The group whose shares are the guest's: its own, or a new one. */
static char *make_group(pid_t pid, const char *name, struct err *e)
{
	char *now = group_of(pid, e), *own, number[16];

	if (!now || group_is_ours(now, pid))
		return now;
	own = xasprintf("%s/vmm-%s", now, name);
	snprintf(number, sizeof(number), "%d", (int)pid);
	if ((mkdir(own, 0755) && errno != EEXIST && err_errno(e, errno, "cannot create %s", own)) ||
	    write_text(now, "cgroup.subtree_control", "+cpu", e) || write_text(own, "cgroup.procs", number, e)) {
		err_prefix(e, "no right to divide the control group %s (systemd: Delegate=cpu)", now);
		rmdir(own);
		free(own);
		own = NULL;
	}
	free(now);
	return own;
}

int sched_set(pid_t pid, const char *name, long weight, long cap, struct err *e)
{
	char *group = make_group(pid, name, e), text[48];
	int r = group ? 0 : -EACCES;

	if (!r && weight >= 0) {
		long shares = weight * CGROUP_WEIGHT / XEN_WEIGHT;

		snprintf(text, sizeof(text), "%ld", MIN(MAX(shares, 1l), 10000l));
		r = write_text(group, "cpu.weight", text, e);
	}
	if (!r && cap >= 0) {
		if (cap)
			snprintf(text, sizeof(text), "%ld %d", cap * (PERIOD_US / 100), PERIOD_US);
		else
			snprintf(text, sizeof(text), "max %d", PERIOD_US);
		r = write_text(group, "cpu.max", text, e);
	}
	free(group);
	return r;
}

int sched_get(pid_t pid, long *weight, long *cap, struct err *e)
{
	char *group = group_of(pid, e), path[4200], text[64], *end;
	long quota, period;

	*weight = XEN_WEIGHT;
	*cap = 0;
	if (!group)
		return -ENOTSUP;
	snprintf(path, sizeof(path), "%s/cpu.weight", group);
	if (read_small(path, text, sizeof(text)))
		*weight = (strtol(text, NULL, 10) * XEN_WEIGHT + CGROUP_WEIGHT / 2) / CGROUP_WEIGHT;
	snprintf(path, sizeof(path), "%s/cpu.max", group);
	if (read_small(path, text, sizeof(text)) && strncmp(text, "max", 3)) {
		quota = strtol(text, &end, 10);
		period = strtol(end, NULL, 10);
		*cap = period > 0 ? quota * 100 / period : 0;
	}
	free(group);
	return 0;
}
