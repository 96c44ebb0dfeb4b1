/*
 * The event loop: epoll, eventfd and one timerfd per loop. The main thread runs loop_main(); I/O threads may run
 * loops of their own. Handlers run on the loop's thread.
 *
 * Locks: a watch or post may name a lock (a device's mutex); the loop takes it around the handler. Code in a
 * handler therefore never locks its own device. NULL: no lock.
 */
#ifndef VMM_LOOP_H
#define VMM_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include "vmm/err.h"

struct loop;

/* EPOLLIN, EPOLLOUT, EPOLLRDHUP. LOOP_HANGUP: the peer of a socket will send no more, whether or not data is left to
   read; reported until the watch no longer asks for it. */
enum { LOOP_READ = 1, LOOP_WRITE = 4, LOOP_HANGUP = 0x2000 };

/* events: those asked for that are ready; an error or full hang-up counts as all of them. */
typedef void loop_watch_fn(void *opaque, int fd, unsigned events);
typedef void loop_post_fn(void *opaque);

struct watch; /* owned by the loop, released by loop_unwatch() */

struct loop *loop_new(struct err *e); /* NULL on failure */
void loop_free(struct loop *loop);    /* NULL-safe; no handler may be running */
/* The process's main loop; created by base at start-up (loop_init_main) before anything else needs it. */
struct loop *loop_main(void);
int loop_init_main(struct err *e); /* the calling thread is its owner */

/* Run until loop_stop(). Owner thread only. */
void loop_run(struct loop *loop);
/* Handle what is ready; wait at most timeout_ms (-1: until something happens, 0: poll). Returns handlers run. */
int loop_step(struct loop *loop, int timeout_ms);
void loop_stop(struct loop *loop);             /* any thread */
bool loop_is_current(const struct loop *loop); /* the caller is the loop's thread */
/* loop_run() was called: from now on nothing on the owner's thread may wait. Owner thread. */
bool loop_has_run(const struct loop *loop);

/* Watch fd for events. Any thread. fd stays the caller's. Fails with -EPERM for regular files (epoll cannot). */
struct watch *loop_watch(struct loop *loop, int fd, unsigned events, pthread_mutex_t *lock, loop_watch_fn *fn,
			 void *opaque, struct err *e);
/* Change the events waited for (0: none, stays registered). Any thread. */
void loop_watch_set(struct watch *w, unsigned events);
/* Stop watching and release w. After return from the loop's own thread the handler is never called again; from
   another thread a call in progress may still finish: use loop_post() to tear down. NULL-safe. */
void loop_unwatch(struct watch *w);

/* Run fn(opaque) on the loop's thread, in the order posted. Any thread, never blocks, takes a leaf lock only:
   THE way to another thread. lock is taken around fn if not NULL. */
void loop_post(struct loop *loop, pthread_mutex_t *lock, loop_post_fn *fn, void *opaque);

/*
 * A bottom half: an embedded, re-usable post. Scheduling it while it is pending does nothing; cancel removes it.
 * Allocation-free, for hot paths (completions).
 */
struct bh {
	struct loop *loop;
	pthread_mutex_t *lock;
	loop_post_fn *fn;
	void *opaque;
	bool pending;
	struct bh *next;
};
/* Once, before it is scheduled. lock: as loop_post(). Devices: device_bh_init(). */
void bh_init(struct bh *bh, struct loop *loop, pthread_mutex_t *lock, loop_post_fn *fn, void *opaque);
void bh_schedule(struct bh *bh); /* any thread; leaf lock only */
void bh_cancel(struct bh *bh);   /* loop's thread, or with bh->lock held: fn does not run after return */

#endif
