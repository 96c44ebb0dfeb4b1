/* Clocks and timers: see vmm/clock.h. One binary heap per loop and clock, one timerfd per loop. */
#include "vmm/clock.h"

#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include "loop_private.h"

/*
 * Guest time in one word, so that readers need no lock: bit 0 says whether it runs, the rest is an offset in ns.
 * Running: guest time = host monotonic time + offset; stopped: the offset is guest time itself. 63 bits last 292 years.
 */
static uint64_t virtual_word;
static pthread_mutex_t virtual_lock = PTHREAD_MUTEX_INITIALIZER; /* leaf; writers only */
static struct {
	bool manual;
	uint64_t manual_ns, manual_host_ns;
} vc;

static uint64_t host_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static uint64_t word_to_ns(uint64_t word)
{
	return ((word >> 1) + (word & 1 ? host_ns(CLOCK_MONOTONIC) : 0)) & (UINT64_MAX >> 1);
}

static uint64_t virtual_ns(void)
{
	return word_to_ns(__atomic_load_n(&virtual_word, __ATOMIC_ACQUIRE));
}

static void virtual_change(bool running, uint64_t offset)
{
	__atomic_store_n(&virtual_word, offset << 1 | running, __ATOMIC_RELEASE);
}

static bool virtual_running(void)
{
	return __atomic_load_n(&virtual_word, __ATOMIC_ACQUIRE) & 1;
}

uint64_t clock_ns(enum clock_kind kind)
{
	if (vc.manual) {
		uint64_t now = __atomic_load_n(&vc.manual_ns, __ATOMIC_ACQUIRE);

		return kind == VCLOCK_HOST ? now + vc.manual_host_ns : now;
	}
	switch (kind) {
	case VCLOCK_VIRTUAL:
		return virtual_ns();
	case VCLOCK_HOST:
		return host_ns(CLOCK_REALTIME);
	case VCLOCK_REAL:
		return host_ns(CLOCK_MONOTONIC);
	}
	return 0;
}

static void rearm(struct loop *loop);

void clock_virtual_stop(void)
{
	pthread_mutex_lock(&virtual_lock);
	if (virtual_running())
		virtual_change(false, virtual_ns());
	pthread_mutex_unlock(&virtual_lock);
}

void clock_virtual_start(void)
{
	pthread_mutex_lock(&virtual_lock);
	if (!virtual_running())
		virtual_change(true, virtual_ns() - host_ns(CLOCK_MONOTONIC));
	pthread_mutex_unlock(&virtual_lock);
	if (loop_main())
		rearm(loop_main());
}

bool clock_virtual_running(void)
{
	return vc.manual || virtual_running();
}

void clock_virtual_set(uint64_t ns)
{
	pthread_mutex_lock(&virtual_lock);
	if (!virtual_running())
		virtual_change(false, ns);
	pthread_mutex_unlock(&virtual_lock);
	if (vc.manual)
		__atomic_store_n(&vc.manual_ns, ns, __ATOMIC_RELEASE);
}

void clock_use_manual(uint64_t host)
{
	vc.manual = true;
	vc.manual_ns = 0;
	vc.manual_host_ns = host;
}

bool clock_is_manual(void)
{
	return vc.manual;
}

/* ---- heap ---- */

int timers_init(struct loop *loop)
{
	pthread_mutex_init(&loop->timer_lock, NULL);
	loop->fd_due_ns = TIMER_NEVER;
	return 0;
}

void timers_free(struct loop *loop)
{
	for (int i = 0; i < N_CLOCKS; i++)
		free(loop->heap[i].v);
	pthread_mutex_destroy(&loop->timer_lock);
}

static void place(struct timer_heap *h, uint32_t pos, struct timer *t)
{
	h->v[pos] = t;
	t->heap_pos = pos;
}

static void sift_up(struct timer_heap *h, uint32_t pos)
{
	struct timer *t = h->v[pos];

	while (pos > 1 && h->v[pos / 2]->deadline > t->deadline) {
		place(h, pos, h->v[pos / 2]);
		pos /= 2;
	}
	place(h, pos, t);
}

static void sift_down(struct timer_heap *h, uint32_t pos)
{
	struct timer *t = h->v[pos];

	for (;;) {
		uint32_t child = pos * 2;

		if (child > h->n)
			break;
		if (child < h->n && h->v[child + 1]->deadline < h->v[child]->deadline)
			child++;
		if (h->v[child]->deadline >= t->deadline)
			break;
		place(h, pos, h->v[child]);
		pos = child;
	}
	place(h, pos, t);
}

static void heap_remove(struct timer_heap *h, struct timer *t)
{
	uint32_t pos = t->heap_pos;
	struct timer *last;

	if (!pos)
		return;
	last = h->v[h->n--];
	t->heap_pos = 0;
	if (last != t) {
		place(h, pos, last);
		sift_up(h, pos);
		sift_down(h, last->heap_pos);
	}
}

static void heap_insert(struct timer_heap *h, struct timer *t)
{
	if (h->n + 2 > h->cap) {
		h->cap = h->cap ? h->cap * 2 : 16;
		h->v = xrealloc(h->v, h->cap * sizeof(*h->v));
	}
	h->n++;
	place(h, h->n, t);
	sift_up(h, h->n);
}

/* Monotonic host time at which the heap's first timer is due; TIMER_NEVER if none or its clock stands still. */
static uint64_t next_real(const struct timer_heap *h, enum clock_kind kind)
{
	uint64_t now, deadline;

	if (!h->n || (kind == VCLOCK_VIRTUAL && !clock_virtual_running()))
		return TIMER_NEVER;
	deadline = h->v[1]->deadline;
	now = clock_ns(kind);
	return host_ns(CLOCK_MONOTONIC) + (deadline > now ? deadline - now : 0);
}

/* Program the timerfd if some heap's first deadline is earlier than what it is set to. Called with the lock held. */
static void arm_fd_locked(struct loop *loop)
{
	uint64_t due = TIMER_NEVER;

	for (int i = 0; i < N_CLOCKS; i++)
		due = MIN(due, next_real(&loop->heap[i], (enum clock_kind)i));
	if (due < loop->fd_due_ns) {
		struct itimerspec its = {
			.it_value = {.tv_sec = (time_t)(due / NS_PER_SEC), .tv_nsec = (long)(due % NS_PER_SEC)}};

		timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &its, NULL);
		loop->fd_due_ns = due;
	}
}

static void rearm(struct loop *loop)
{
	if (vc.manual)
		return;
	pthread_mutex_lock(&loop->timer_lock);
	arm_fd_locked(loop);
	pthread_mutex_unlock(&loop->timer_lock);
}

void timer_init(struct timer *t, struct loop *loop, enum clock_kind kind, pthread_mutex_t *lock, timer_fn *fn,
		void *opaque)
{
	*t = (struct timer){
		.kind = kind, .loop = loop, .lock = lock, .fn = fn, .opaque = opaque, .deadline = TIMER_NEVER};
}

void timer_arm(struct timer *t, uint64_t deadline_ns)
{
	struct loop *loop = t->loop;
	struct timer_heap *h;

	if (deadline_ns == TIMER_NEVER) {
		timer_cancel(t);
		return;
	}
	h = &loop->heap[t->kind];
	pthread_mutex_lock(&loop->timer_lock);
	if (h->running == t)
		h->running = NULL;
	heap_remove(h, t);
	t->deadline = deadline_ns;
	heap_insert(h, t);
	if (h->v[1] == t && !vc.manual)
		arm_fd_locked(loop);
	pthread_mutex_unlock(&loop->timer_lock);
}

void timer_cancel(struct timer *t)
{
	struct loop *loop = t->loop;
	struct timer_heap *h;

	t->deadline = TIMER_NEVER;
	if (!loop)
		return;
	h = &loop->heap[t->kind];
	pthread_mutex_lock(&loop->timer_lock);
	if (h->running == t)
		h->running = NULL;
	heap_remove(h, t);
	pthread_mutex_unlock(&loop->timer_lock);
}

bool timer_pending(const struct timer *t)
{
	return t->deadline != TIMER_NEVER;
}

void timer_settle(struct timer *t)
{
	timer_arm(t, t->deadline);
}

/*
 * Fire the first timer of h if due at `now`. Its own lock comes before the heap's (timer_cancel is called with the
 * former held), so it is taken between picking the timer and firing it; `running` tells whether it was cancelled
 * meanwhile.
 */
static bool fire_one(struct loop *loop, enum clock_kind kind, uint64_t now)
{
	struct timer_heap *h = &loop->heap[kind];
	struct timer *t;
	pthread_mutex_t *lock = NULL;
	bool fire;

	pthread_mutex_lock(&loop->timer_lock);
	t = h->n && h->v[1]->deadline <= now ? h->v[1] : NULL;
	if (t) {
		heap_remove(h, t);
		h->running = t;
		lock = t->lock;
	}
	pthread_mutex_unlock(&loop->timer_lock);
	if (!t)
		return false;
	if (lock)
		pthread_mutex_lock(lock);
	pthread_mutex_lock(&loop->timer_lock);
	fire = h->running == t;
	h->running = NULL;
	pthread_mutex_unlock(&loop->timer_lock);
	if (fire) {
		t->deadline = TIMER_NEVER;
		t->fn(t->opaque);
	}
	if (lock)
		pthread_mutex_unlock(lock);
	return true;
}

int timers_run(struct loop *loop)
{
	int n = 0;

	if (vc.manual)
		return 0;
	pthread_mutex_lock(&loop->timer_lock);
	if (loop->fd_due_ns <= host_ns(CLOCK_MONOTONIC))
		loop->fd_due_ns = TIMER_NEVER; /* expired: one-shot */
	pthread_mutex_unlock(&loop->timer_lock);
	for (int i = 0; i < N_CLOCKS; i++) {
		uint64_t now;

		if (i == VCLOCK_VIRTUAL && !clock_virtual_running())
			continue;
		now = clock_ns((enum clock_kind)i);
		while (n < 1000 && fire_one(loop, (enum clock_kind)i,
					    now)) /* a timer that re-arms in the past must not starve the loop */
			n++;
	}
	rearm(loop);
	return n;
}

uint64_t clock_next_deadline(void)
{
	struct loop *loop = loop_main();
	struct timer_heap *h = &loop->heap[VCLOCK_VIRTUAL];
	uint64_t deadline;

	pthread_mutex_lock(&loop->timer_lock);
	deadline = h->n ? h->v[1]->deadline : TIMER_NEVER;
	pthread_mutex_unlock(&loop->timer_lock);
	return deadline;
}

/* The heap whose first timer is due first at or before `until` (in manual time), or -1. */
static int manual_next(struct loop *loop, uint64_t until, uint64_t *deadline)
{
	int best = -1;

	for (int i = 0; i < N_CLOCKS; i++) {
		struct timer_heap *h = &loop->heap[i];
		uint64_t base = i == VCLOCK_HOST ? vc.manual_host_ns : 0, d;

		pthread_mutex_lock(&loop->timer_lock);
		d = h->n ? h->v[1]->deadline : TIMER_NEVER;
		pthread_mutex_unlock(&loop->timer_lock);
		if (d == TIMER_NEVER)
			continue;
		d = d > base ? d - base : 0;
		if (d <= until && (best < 0 || d < *deadline)) {
			best = i;
			*deadline = d;
		}
	}
	return best;
}

uint64_t clock_manual_set(uint64_t ns)
{
	struct loop *loop = loop_main();
	uint64_t due = 0;
	int kind;

	while ((kind = manual_next(loop, ns, &due)) >= 0) {
		if (due > vc.manual_ns)
			__atomic_store_n(&vc.manual_ns, due, __ATOMIC_RELEASE);
		fire_one(loop, (enum clock_kind)kind, clock_ns((enum clock_kind)kind));
		while (loop_has_posts(loop) && loop_step(loop, 0) > 0) /* bottom halves the callback caused */
			;
	}
	if (ns > vc.manual_ns)
		__atomic_store_n(&vc.manual_ns, ns, __ATOMIC_RELEASE);
	return vc.manual_ns;
}

uint64_t clock_manual_step(uint64_t delta_ns)
{
	return clock_manual_set(vc.manual_ns + delta_ns);
}
