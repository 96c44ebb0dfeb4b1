/* The log writer: see vmm/log.h. One write(2) per line, so lines of several threads do not mix. */
#include "vmm/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER; /* leaf */
static int log_fd = STDERR_FILENO;
static enum log_level log_level = LOG_INFO;
static bool log_timestamp;
static bool guest_errors;
static char *log_filter; /* ",room,room," */

static const char *const level_names[] = {"error", "warning", "info", "guest", "debug"};

static bool filter_has(const char *room)
{
	char key[64];

	if (!log_filter)
		return false;
	snprintf(key, sizeof(key), ",%s,", room);
	return strstr(log_filter, key) || strstr(log_filter, ",all,");
}

bool log_enabled(enum log_level level, const char *room)
{
	if (level == LOG_GUEST)
		return guest_errors;
	return level <= log_level || filter_has(room);
}

static void write_line(enum log_level level, const char *room, const char *fmt, va_list ap)
{
	char line[2048];
	size_t n = 0;

	if (log_timestamp) {
		struct timespec ts;
		struct tm tm;

		clock_gettime(CLOCK_REALTIME, &ts);
		gmtime_r(&ts.tv_sec, &tm);
		n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
		n += (size_t)snprintf(line + n, sizeof(line) - n, ".%06ldZ ", ts.tv_nsec / 1000);
	}
	n += (size_t)snprintf(line + n, sizeof(line) - n, "vmm: %s%s%s: ", level == LOG_INFO ? "" : level_names[level],
			      level == LOG_INFO ? "" : ": ", room);
	n += (size_t)vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	if (n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	for (size_t i = 0; i < n; i++) /* what a guest or peer named must not steer the terminal */
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[n++] = '\n';
	pthread_mutex_lock(&log_lock);
	if (write(log_fd, line, n) < 0) {
		/* a full disk must not stop the guest */
	}
	pthread_mutex_unlock(&log_lock);
}

void log_write(enum log_level level, const char *room, const char *fmt, ...)
{
	va_list ap;

	if (!log_enabled(level, room))
		return;
	va_start(ap, fmt);
	write_line(level, room, fmt, ap);
	va_end(ap);
}

#define GUEST_BURST 10

void log_guest(struct log_limit *limit, const char *room, const char *fmt, ...)
{
	struct timespec ts;
	uint64_t now;
	uint32_t missed;
	va_list ap;

	if (!guest_errors)
		return;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
	pthread_mutex_lock(&log_lock);
	if (now - limit->window_start_ns > 1000000000ull && limit->count >= GUEST_BURST)
		limit->count = GUEST_BURST - 1;
	if (limit->count >= GUEST_BURST) {
		limit->suppressed++;
		pthread_mutex_unlock(&log_lock);
		return;
	}
	limit->count++;
	limit->window_start_ns = now;
	missed = limit->suppressed;
	limit->suppressed = 0;
	pthread_mutex_unlock(&log_lock);
	if (missed)
		log_write(LOG_GUEST, room, "(%u similar lines left out)", missed);
	va_start(ap, fmt);
	write_line(LOG_GUEST, room, fmt, ap);
	va_end(ap);
}

int log_open(const char *path, struct err *e)
{
	int fd = STDERR_FILENO, old;

	if (path) {
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
		if (fd < 0)
			return err_errno(e, errno, "-D %s: cannot open the log file", path);
	}
	pthread_mutex_lock(&log_lock);
	old = log_fd;
	log_fd = fd;
	pthread_mutex_unlock(&log_lock);
	if (old != STDERR_FILENO && old != fd)
		close(old);
	return 0;
}

int log_set_filter(const char *list, struct err *e)
{
	char *filter = xasprintf(",%s,", list ? list : "");

	(void)e;
	free(log_filter);
	log_filter = filter;
	guest_errors = strstr(filter, ",guest_errors,") || strstr(filter, ",all,");
	return 0;
}

void log_set_level(enum log_level level)
{
	log_level = level;
}

void log_set_timestamp(bool on)
{
	log_timestamp = on;
}
