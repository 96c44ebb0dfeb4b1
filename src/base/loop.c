/* The event loop: see vmm/loop.h. epoll(7), eventfd(2); timers in clock.c. */
#include "vmm/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "loop_private.h"

struct watch {
	struct loop *loop;
	int fd;
	unsigned events;
	pthread_mutex_t *lock;
	loop_watch_fn *fn;
	void *opaque;
	bool dead;
	struct watch *next_dead;
};

struct post {
	pthread_mutex_t *lock;
	loop_post_fn *fn;
	void *opaque;
	struct post *next;
};

#define MAX_EVENTS 32

static struct loop *main_loop;

static int add_internal(struct loop *loop, int fd, void *mark)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = mark};

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
}

struct loop *loop_new(struct err *e)
{
	struct loop *loop = xzalloc(sizeof(*loop));

	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	pthread_mutex_init(&loop->lock, NULL);
	loop->bh_tail = &loop->bh_head;
	loop->posts_tail = &loop->posts;
	if (loop->epoll_fd < 0 || loop->event_fd < 0 || loop->timer_fd < 0 || timers_init(loop) ||
	    add_internal(loop, loop->event_fd, &loop->event_fd) ||
	    add_internal(loop, loop->timer_fd, &loop->timer_fd)) {
		err_errno(e, errno, "cannot create an event loop (file descriptor limit?)");
		loop_free(loop);
		return NULL;
	}
	return loop;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	while (loop->posts) {
		struct post *p = loop->posts;

		loop->posts = p->next;
		free(p);
	}
	while (loop->dead) {
		struct watch *w = loop->dead;

		loop->dead = w->next_dead;
		free(w);
	}
	timers_free(loop);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	if (loop->event_fd >= 0)
		close(loop->event_fd);
	if (loop->timer_fd >= 0)
		close(loop->timer_fd);
	pthread_mutex_destroy(&loop->lock);
	if (main_loop == loop)
		main_loop = NULL;
	free(loop);
}

int loop_init_main(struct err *e)
{
	if (!main_loop)
		main_loop = loop_new(e);
	if (!main_loop)
		return e ? -e->code : -EMFILE;
	main_loop->owner = pthread_self();
	main_loop->owner_known = true;
	return 0;
}

struct loop *loop_main(void)
{
	return main_loop;
}

bool loop_is_current(const struct loop *loop)
{
	return loop->owner_known && pthread_equal(loop->owner, pthread_self());
}

static void notify(struct loop *loop)
{
	uint64_t one = 1;

	if (write(loop->event_fd, &one, sizeof(one)) < 0) {
		/* EAGAIN: the counter is full, so the loop will wake up anyway */
	}
}

void loop_stop(struct loop *loop)
{
	__atomic_store_n(&loop->stop, true, __ATOMIC_RELEASE);
	notify(loop);
}

/* ---- watches ---- */

static uint32_t epoll_events(unsigned events)
{
	return (events & LOOP_READ ? (uint32_t)EPOLLIN : 0) | (events & LOOP_WRITE ? (uint32_t)EPOLLOUT : 0) |
	       (events & LOOP_HANGUP ? (uint32_t)EPOLLRDHUP : 0);
}

struct watch *loop_watch(struct loop *loop, int fd, unsigned events, pthread_mutex_t *lock, loop_watch_fn *fn,
			 void *opaque, struct err *e)
{
	struct watch *w = xzalloc(sizeof(*w));
	struct epoll_event ev = {.events = epoll_events(events), .data.ptr = w};

	*w = (struct watch){.loop = loop, .fd = fd, .events = events, .lock = lock, .fn = fn, .opaque = opaque};
	/* Add also when nothing is asked for yet, to learn now whether the fd can be watched at all. */
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) ||
	    (!events && epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL))) {
		err_errno(e, errno, "cannot watch file descriptor %d", fd);
		free(w);
		return NULL;
	}
	return w;
}

void loop_watch_set(struct watch *w, unsigned events)
{
	struct epoll_event ev = {.events = epoll_events(events), .data.ptr = w};

	if (w->dead || w->events == events)
		return;
	/* With no events asked for, epoll would still report hang-ups without end: take the fd out. */
	if (!events)
		epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	else
		epoll_ctl(w->loop->epoll_fd, w->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, w->fd, &ev);
	w->events = events;
}

void loop_unwatch(struct watch *w)
{
	struct loop *loop;

	if (!w || w->dead)
		return;
	loop = w->loop;
	if (w->events)
		epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	pthread_mutex_lock(&loop->lock);
	w->dead = true;
	w->next_dead = loop->dead;
	loop->dead = w;
	pthread_mutex_unlock(&loop->lock);
	if (!loop_is_current(loop))
		notify(loop);
}

/* ---- posts and bottom halves ---- */

void loop_post(struct loop *loop, pthread_mutex_t *lock, loop_post_fn *fn, void *opaque)
{
	struct post *p = xzalloc(sizeof(*p));
	bool wake;

	*p = (struct post){.lock = lock, .fn = fn, .opaque = opaque};
	pthread_mutex_lock(&loop->lock);
	*loop->posts_tail = p;
	loop->posts_tail = &p->next;
	wake = !loop->notified;
	loop->notified = true;
	pthread_mutex_unlock(&loop->lock);
	if (wake)
		notify(loop);
}

void bh_init(struct bh *bh, struct loop *loop, pthread_mutex_t *lock, loop_post_fn *fn, void *opaque)
{
	*bh = (struct bh){.loop = loop, .lock = lock, .fn = fn, .opaque = opaque};
}

void bh_schedule(struct bh *bh)
{
	struct loop *loop = bh->loop;
	bool wake = false;

	pthread_mutex_lock(&loop->lock);
	if (!bh->pending) {
		bh->pending = true;
		bh->next = NULL;
		*loop->bh_tail = bh;
		loop->bh_tail = &bh->next;
		wake = !loop->notified;
		loop->notified = true;
	}
	pthread_mutex_unlock(&loop->lock);
	if (wake)
		notify(loop);
}

void bh_cancel(struct bh *bh)
{
	struct loop *loop = bh->loop;

	if (!loop)
		return;
	pthread_mutex_lock(&loop->lock);
	if (bh->pending) {
		struct bh **p = &loop->bh_head;

		while (*p && *p != bh)
			p = &(*p)->next;
		if (*p) {
			*p = bh->next;
			if (!bh->next)
				loop->bh_tail = p;
		}
		bh->pending = false;
	}
	pthread_mutex_unlock(&loop->lock);
}

static void call(pthread_mutex_t *lock, loop_post_fn *fn, void *opaque)
{
	if (lock)
		pthread_mutex_lock(lock);
	fn(opaque);
	if (lock)
		pthread_mutex_unlock(lock);
}

static struct post *take_post(struct loop *loop)
{
	struct post *p;

	pthread_mutex_lock(&loop->lock);
	p = loop->posts;
	if (p) {
		loop->posts = p->next;
		if (!p->next)
			loop->posts_tail = &loop->posts;
	}
	pthread_mutex_unlock(&loop->lock);
	return p;
}

/*
 * Run one bottom half. Its own lock comes before the loop's lock (bh_cancel is called with the former held), so: peek,
 * take its lock, then look again whether it is still the pending one.
 */
static bool run_one_bh(struct loop *loop)
{
	pthread_mutex_t *lock;
	struct bh *bh;
	bool mine;

	pthread_mutex_lock(&loop->lock);
	bh = loop->bh_head;
	lock = bh ? bh->lock : NULL;
	pthread_mutex_unlock(&loop->lock);
	if (!bh)
		return false;
	if (lock)
		pthread_mutex_lock(lock);
	pthread_mutex_lock(&loop->lock);
	mine = loop->bh_head == bh;
	if (mine) {
		loop->bh_head = bh->next;
		if (!bh->next)
			loop->bh_tail = &loop->bh_head;
		bh->pending = false;
	}
	pthread_mutex_unlock(&loop->lock);
	if (mine)
		bh->fn(bh->opaque);
	if (lock)
		pthread_mutex_unlock(lock);
	return true;
}

static int run_posts(struct loop *loop)
{
	struct post *p;
	int n = 0;

	pthread_mutex_lock(&loop->lock);
	loop->notified = false; /* whatever is added from now on wakes us again */
	pthread_mutex_unlock(&loop->lock);
	/* A handler may post again; bound one step so that file descriptors get their turn. */
	while (n < 256 && run_one_bh(loop))
		n++;
	while (n < 512 && (p = take_post(loop))) {
		call(p->lock, p->fn, p->opaque);
		free(p);
		n++;
	}
	if (n >= 256) {
		pthread_mutex_lock(&loop->lock);
		loop->notified = true;
		pthread_mutex_unlock(&loop->lock);
		notify(loop);
	}
	return n;
}

bool loop_has_posts(struct loop *loop)
{
	bool any;

	pthread_mutex_lock(&loop->lock);
	any = loop->bh_head || loop->posts;
	pthread_mutex_unlock(&loop->lock);
	return any;
}

static void reap(struct loop *loop)
{
	struct watch *dead;

	pthread_mutex_lock(&loop->lock);
	dead = loop->dead;
	loop->dead = NULL;
	pthread_mutex_unlock(&loop->lock);
	while (dead) {
		struct watch *next = dead->next_dead;

		free(dead);
		dead = next;
	}
}

static int dispatch(struct loop *loop, const struct epoll_event *ev)
{
	struct watch *w = ev->data.ptr;
	unsigned events = 0;
	uint64_t drain;

	if (ev->data.ptr == &loop->event_fd) {
		pthread_mutex_lock(&loop->lock);
		loop->notified = false; /* a handler of this step may run the loop and wait for what others post */
		pthread_mutex_unlock(&loop->lock);
	}
	if (ev->data.ptr == &loop->event_fd || ev->data.ptr == &loop->timer_fd) {
		if (read(*(int *)ev->data.ptr, &drain, sizeof(drain)) < 0) {
			/* EAGAIN: somebody else drained it */
		}
		return 0;
	}
	if (ev->events & EPOLLIN)
		events |= LOOP_READ;
	if (ev->events & EPOLLOUT)
		events |= LOOP_WRITE;
	if (ev->events & (EPOLLERR | EPOLLHUP))
		events |= LOOP_READ | LOOP_WRITE | LOOP_HANGUP;
	if (ev->events & EPOLLRDHUP)
		events |= LOOP_HANGUP;
	events &= w->events;
	if (w->lock)
		pthread_mutex_lock(w->lock);
	if (!w->dead && events)
		w->fn(w->opaque, w->fd, events);
	if (w->lock)
		pthread_mutex_unlock(w->lock);
	return 1;
}

int loop_step(struct loop *loop, int timeout_ms)
{
	struct epoll_event ev[MAX_EVENTS];
	int n, handled = 0;

	if (!loop->owner_known) {
		loop->owner = pthread_self();
		loop->owner_known = true;
	}
	/* Posted since run_posts() last looked, with the wake-up already taken: by the step that a handler, which runs
	   this one, belongs to. */
	if (timeout_ms && loop_has_posts(loop))
		timeout_ms = 0;
	do
		n = epoll_wait(loop->epoll_fd, ev, MAX_EVENTS, timeout_ms);
	while (n < 0 && errno == EINTR && timeout_ms < 0 && !__atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE));
	for (int i = 0; i < n; i++)
		handled += dispatch(loop, &ev[i]);
	handled += timers_run(loop);
	handled += run_posts(loop);
	reap(loop);
	return handled;
}

bool loop_has_run(const struct loop *loop)
{
	return loop->ran;
}

void loop_run(struct loop *loop)
{
	loop->owner = pthread_self();
	loop->owner_known = true;
	loop->ran = true;
	while (!__atomic_exchange_n(&loop->stop, false, __ATOMIC_ACQ_REL))
		loop_step(loop, -1);
}
