/*
 * Log. One line per message to stderr or to the -D file: time, level, room, text; or a JSON object. Any thread may log;
 * the writer takes a leaf lock. Nothing logs without bound: each place in the source that warns gets LOG_BURST lines at
 * once, then one per second, and the next line that passes tells how many did not. docs/observing.md says which level
 * is for what.
 */
#ifndef VMM_LOG_H
#define VMM_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include "vmm/err.h"

enum log_level {
	LOG_ERROR, /* the operator must act: something asked for does not happen */
	LOG_WARN,  /* it works, but not as the operator may think */
	LOG_INFO,  /* once per life-cycle step */
	LOG_GUEST, /* the guest did something its hardware forbids; off by default */
	LOG_DEBUG, /* for developers; off by default */
	LOG_LEVELS
};
const char *log_level_name(enum log_level level); /* "error", "warning", ... */

/* Rate limit: a static or per-device object, zero-initialised. */
struct log_limit {
	uint64_t window_start_ns;
	uint32_t count;
	uint32_t suppressed;
};
#define LOG_BURST 10

/* room: the folder's name ("block") or the chip's ("ide"), see log_rooms. fmt without newline. */
void log_write(enum log_level level, const char *room, const char *fmt, ...) VMM_PRINTF(3, 4);
/* At most LOG_BURST lines at once and then one per second through this limit, which only the log touches. */
void log_limited(struct log_limit *limit, enum log_level level, const char *room, const char *fmt, ...)
	VMM_PRINTF(4, 5);
#define LOG_HERE(level, room, ...)                                   \
	do {                                                         \
		static struct log_limit limit_here_;                 \
		log_limited(&limit_here_, level, room, __VA_ARGS__); \
	} while (0)
#define log_error(room, ...) LOG_HERE(LOG_ERROR, room, __VA_ARGS__)
#define log_warn(room, ...)  LOG_HERE(LOG_WARN, room, __VA_ARGS__)
#define log_info(room, ...)  LOG_HERE(LOG_INFO, room, __VA_ARGS__)
#define log_debug(room, ...)                                     \
	do {                                                     \
		if (log_enabled(LOG_DEBUG, room))                \
			log_write(LOG_DEBUG, room, __VA_ARGS__); \
	} while (0)
/* Guest faults. */
#define log_guest(limit, room, ...) log_limited(limit, LOG_GUEST, room, __VA_ARGS__)

/* Whether log_write() would write anything: for what is costly to put together. */
bool log_enabled(enum log_level level, const char *room);
/* Lines written at this level so far, and lines that rate limits kept back at any. */
uint64_t log_count(enum log_level level);
uint64_t log_suppressed(void);

/* -D FILE: append to this file from now on; NULL: stderr. Opens before the sandbox closes the file system. */
int log_open(const char *path, struct err *e);
/*
 * -d LIST, comma-separated: ROOM (its debug messages), ROOM=LEVEL (what it logs up to), all[=LEVEL], guest_errors.
 * Replaces the list before it. Main thread, best before there are others. An unknown name is refused with the nearest
 * one.
 */
int log_set_filter(const char *list, struct err *e);
void log_set_level(enum log_level level); /* of rooms that the filter does not name */
/* -msg: an ISO 8601 UTC time; the guest's name; JSON lines instead of text. */
void log_set_timestamp(bool on);
void log_set_guest_name(const char *name); /* NULL: none; copied */
void log_set_json(bool on);
/* Rooms and their summaries, for -d help; NULL past the end. */
const char *log_room(size_t i, const char **summary);

/* For crash.c, which may not lock: where the log goes, and whether its lines are JSON. */
int log_raw_fd(void);
bool log_is_json(void);

#endif
