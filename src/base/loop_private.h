/* What the event loop and the timers share: each loop has one heap of timers and one timerfd. */
#ifndef VMM_LOOP_PRIVATE_H
#define VMM_LOOP_PRIVATE_H

#include "vmm/clock.h"

struct timer_heap {
	struct timer **v; /* 1-based binary heap, earliest deadline first */
	uint32_t n, cap;
	struct timer *running; /* its callback is about to run; cancelled by setting it NULL */
};

#define N_CLOCKS 3

struct loop {
	int epoll_fd, event_fd, timer_fd;
	pthread_t owner;
	bool owner_known;
	bool ran; /* loop_run() was called */
	bool stop;
	pthread_mutex_t lock; /* leaf: posts, dead list */
	struct bh *bh_head, **bh_tail;
	struct post *posts, **posts_tail;
	struct watch *dead; /* unwatched, freed at the end of the step */
	bool notified;
	pthread_mutex_t timer_lock; /* leaf: the heaps and fd_due_ns */
	uint64_t fd_due_ns;         /* what the timerfd is set to, VCLOCK_REAL; TIMER_NEVER = expired or never set */
	struct timer_heap heap[N_CLOCKS]; /* by enum clock_kind */
};

bool loop_has_posts(struct loop *loop);
int timers_init(struct loop *loop);
void timers_free(struct loop *loop);
/* Run what is due; returns the number of callbacks. Loop's thread. */
int timers_run(struct loop *loop);

#endif
