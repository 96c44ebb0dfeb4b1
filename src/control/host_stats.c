/* Reading /proc/self: see host_stats.h. Directories are opened once, so that a chroot does not hide them. */
#include "host_stats.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "vmm/clock.h"

#define STAT_FIELDS 44

static int self_fd = -1;
static uint64_t max_fds; /* a limit that nothing here changes */
static double boot_time; /* seconds since 1970 */

void host_stats_open(void)
{
	struct timespec up, now;
	struct rlimit limit;

	if (self_fd >= 0)
		return;
	self_fd = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		max_fds = limit.rlim_cur;
	clock_gettime(CLOCK_BOOTTIME, &up);
	clock_gettime(CLOCK_REALTIME, &now);
	boot_time = (double)(now.tv_sec - up.tv_sec) + (double)(now.tv_nsec - up.tv_nsec) / 1e9;
}

void host_stats_close(void)
{
	if (self_fd >= 0)
		close(self_fd);
	self_fd = -1;
}

static bool slurp(const char *path, char *buf, size_t size)
{
	int fd = self_fd < 0 ? -1 : openat(self_fd, path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	if (fd >= 0)
		close(fd);
	buf[n > 0 ? n : 0] = 0;
	return n > 0;
}

static uint64_t ticks_to_ns(uint64_t ticks)
{
	return ticks * (NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK));
}

/* field[n]: the n-th of proc(5)'s list, from 4 on; the name in field 2 may hold anything. */
static bool read_stat(const char *path, uint64_t field[STAT_FIELDS])
{
	char text[1024], *p;

	memset(field, 0, STAT_FIELDS * sizeof(*field));
	if (!slurp(path, text, sizeof(text)) || !(p = strrchr(text, ')')) || strlen(p) < 4)
		return false;
	p += 3; /* ") S" */
	for (int i = 4; i < STAT_FIELDS && *p; i++)
		field[i] = strtoull(p, &p, 10);
	return true;
}

bool host_thread_times(int tid, struct host_thread_times *t)
{
	uint64_t field[STAT_FIELDS];
	char path[64], text[128];
	unsigned long long run, wait;

	snprintf(path, sizeof(path), "task/%d/schedstat", tid);
	if (!slurp(path, text, sizeof(text)) || sscanf(text, "%llu %llu", &run, &wait) != 2)
		return false;
	snprintf(path, sizeof(path), "task/%d/stat", tid);
	if (!read_stat(path, field))
		return false;
	t->cpu_ns = run;
	t->wait_ns = wait;
	t->guest_ns = ticks_to_ns(field[43]);
	if (t->guest_ns > t->cpu_ns) /* ticks are coarse */
		t->guest_ns = t->cpu_ns;
	return true;
}

static uint64_t count_fds(void)
{
	int fd = openat(self_fd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	uint64_t n = 0;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	for (struct dirent *entry; (entry = readdir(d));)
		n += entry->d_name[0] != '.';
	closedir(d);
	return n - 1; /* the directory itself */
}

bool host_process(struct host_process *p)
{
	uint64_t field[STAT_FIELDS];
	struct timespec ts;

	if (!read_stat("stat", field))
		return false;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	*p = (struct host_process){
		.cpu_ns = (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec,
		.threads = field[20],
		.start_time = boot_time + (double)ticks_to_ns(field[22]) / 1e9,
		.virtual_bytes = field[23],
		.resident_bytes = field[24] * (uint64_t)sysconf(_SC_PAGESIZE),
		.open_fds = count_fds(),
		.max_fds = max_fds,
	};
	return true;
}
