/*
 * Log. One line per message to stderr or to the -D file: time, level, room, text. Any thread may log; the writer
 * takes a leaf lock. Nothing a guest can do logs without bound: use log_guest() for guest faults.
 */
#ifndef VMM_LOG_H
#define VMM_LOG_H

#include <stdbool.h>
#include "vmm/err.h"

enum log_level {
	LOG_ERROR, /* the operator must act: something asked for does not happen */
	LOG_WARN,  /* it works, but not as the operator may think */
	LOG_INFO,  /* once per life-cycle step */
	LOG_GUEST, /* the guest did something its hardware forbids; rate-limited; off by default */
	LOG_DEBUG, /* for developers; off by default */
};

/* Rate limit for log_guest(): a static or per-device object, zero-initialised; 10 lines, then 1 per second. */
struct log_limit {
	uint64_t window_start_ns;
	uint32_t count;
	uint32_t suppressed;
};

/* room: the folder's name ("block", "ide"). fmt without newline. */
void log_write(enum log_level level, const char *room, const char *fmt, ...) VMM_PRINTF(3, 4);
#define log_error(room, ...) log_write(LOG_ERROR, room, __VA_ARGS__)
#define log_warn(room, ...)  log_write(LOG_WARN, room, __VA_ARGS__)
#define log_info(room, ...)  log_write(LOG_INFO, room, __VA_ARGS__)
#define log_debug(room, ...)                                     \
	do {                                                     \
		if (log_enabled(LOG_DEBUG, room))                \
			log_write(LOG_DEBUG, room, __VA_ARGS__); \
	} while (0)
/* Guest faults; suppressed lines are counted and reported with the next line that passes. */
void log_guest(struct log_limit *limit, const char *room, const char *fmt, ...) VMM_PRINTF(3, 4);

bool log_enabled(enum log_level level, const char *room);
/* -D FILE: append to this file from now on; NULL: stderr. Opens before the sandbox closes the file system. */
int log_open(const char *path, struct err *e);
/* -d LIST: comma-separated rooms to log at debug level, "guest_errors", "all", "help" handled by the caller. */
int log_set_filter(const char *list, struct err *e);
void log_set_level(enum log_level level);
/* -msg timestamp=on: prefix lines with an ISO 8601 UTC time. */
void log_set_timestamp(bool on);

#endif
