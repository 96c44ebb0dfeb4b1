/* Processors: masks, and times from /proc. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
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

bool read_small(const char *path, char *buf, size_t size)
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
