/*
 * Clocks and timers.
 *
 * CLOCK_VIRTUAL: guest time in ns; stands still while the guest is paused; starts at 0 and continues after a migration.
 * CLOCK_HOST:    wall clock, ns since 1970-01-01 UTC (RTC contents).
 * CLOCK_REALTIME_MONO: host monotonic ns; never stops (screen refresh, rate limits).
 *
 * A manual clock (tests, -accel qtest) replaces all three: time moves only by clock_step()/clock_set(), and due
 * timers fire inside these calls in the order of their deadlines, each seeing `now` equal to its deadline.
 */
#ifndef VMM_CLOCK_H
#define VMM_CLOCK_H

#include "vmm/loop.h"

enum clock_kind { VCLOCK_VIRTUAL, VCLOCK_HOST, VCLOCK_REAL };

#define NS_PER_SEC  1000000000ull
#define NS_PER_MS   1000000ull
#define NS_PER_US   1000ull
#define TIMER_NEVER UINT64_MAX

uint64_t clock_ns(enum clock_kind kind); /* any thread; about the cost of clock_gettime() */

/* Stop and restart guest time (the life cycle calls these; nested calls are not counted). Any thread. */
void clock_virtual_stop(void);
void clock_virtual_start(void);
bool clock_virtual_running(void); /* any thread */
/* Set guest time, e.g. from a migration stream. Only while stopped. */
void clock_virtual_set(uint64_t ns);

/* Manual mode. Call before any timer is armed. host_ns: what VCLOCK_HOST shows at virtual time 0. */
void clock_use_manual(uint64_t host_ns);
bool clock_is_manual(void);
/* Advance to `ns` firing due timers; main thread. Going backwards is ignored. Returns the new time. */
uint64_t clock_manual_set(uint64_t ns);
uint64_t clock_manual_step(uint64_t delta_ns); /* the same, relative to now */
/* Deadline of the earliest armed VCLOCK_VIRTUAL timer of loop_main(), or TIMER_NEVER. */
uint64_t clock_next_deadline(void);

/*
 * Timers. Embedded in their owner; initialised once; fire on their loop with `lock` held (the owner's mutex).
 * One-shot: fn re-arms if it wants to be periodic. timer_arm/timer_cancel may be called by any thread that holds
 * `lock`; after timer_cancel under the lock fn does not run.
 */
typedef void timer_fn(void *opaque);
struct timer {
	enum clock_kind kind;
	struct loop *loop;
	pthread_mutex_t *lock;
	timer_fn *fn;
	void *opaque;
	uint64_t deadline; /* ns on its clock; TIMER_NEVER = idle. Saved and loaded by STATE_TIMER */
	uint32_t heap_pos; /* private: 0 = not in the heap */
};
/* Once, before anything else is done with it. lock may be NULL. Devices: device_timer_init(). */
void timer_init(struct timer *t, struct loop *loop, enum clock_kind kind, pthread_mutex_t *lock, timer_fn *fn,
		void *opaque);
void timer_arm(struct timer *t, uint64_t deadline_ns); /* absolute; TIMER_NEVER cancels; in the past: at once */
void timer_cancel(struct timer *t);                    /* NULL loop (never initialised) is fine */
bool timer_pending(const struct timer *t);             /* armed and not fired; lock held */
/* After a load: put t->deadline, as loaded, into effect. */
void timer_settle(struct timer *t);

#endif
