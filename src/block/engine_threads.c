/*
 * aio=threads: a pool of worker threads that carry out requests with blocking system calls. Workers are created on the
 * main loop when work waits and nobody is idle (a vCPU thread neither creates threads nor passes its seccomp filter
 * on), and leave after IDLE_SECONDS without work. Stacks are small: a worker needs a few KiB.
 */
#include "src/block/block_private.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

#include "vmm/log.h"

enum { MAX_WORKERS = 64, IDLE_SECONDS = 10, STACK_SIZE = 128 * 1024 };

static struct {
	pthread_mutex_t lock;
	pthread_cond_t work; /* something was queued, or stop */
	pthread_cond_t gone; /* a worker left */
	bool initialised, stop;
	struct block_req *head, **tail;
	unsigned queued, workers, idle;
	struct bh spawn;
	void (*thread_hook)(void);
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .gone = PTHREAD_COND_INITIALIZER};

/* Where a queued request keeps its work function. */
static block_work_fn **work_of(struct block_req *req)
{
	return (block_work_fn **)&req->scratch[0];
}

void block_set_thread_hook(void (*fn)(void))
{
	pool.thread_hook = fn;
}

/* Wait for work; false: leave. Pool locked. */
static bool wait_for_work(void)
{
	struct timespec until;
	bool timeout = false;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += IDLE_SECONDS;
	pool.idle++;
	while (!pool.head && !pool.stop && !timeout)
		timeout = pthread_cond_timedwait(&pool.work, &pool.lock, &until) == ETIMEDOUT;
	pool.idle--;
	return pool.head != NULL;
}

static void *worker(void *unused)
{
	pthread_setname_np(pthread_self(), "vmm-io");
	if (pool.thread_hook)
		pool.thread_hook();
	pthread_mutex_lock(&pool.lock);
	while (wait_for_work()) {
		struct block_req *req = pool.head;
		block_work_fn *work = *work_of(req);

		pool.head = req->next;
		if (!pool.head)
			pool.tail = &pool.head;
		pool.queued--;
		pthread_mutex_unlock(&pool.lock);
		block_req_complete(req, work(req->node, req));
		pthread_mutex_lock(&pool.lock);
	}
	pool.workers--;
	pthread_cond_signal(&pool.gone);
	pthread_mutex_unlock(&pool.lock);
	return NULL;
}

/* Main loop, pool locked. */
static int start_worker(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, MAX((size_t)STACK_SIZE, (size_t)PTHREAD_STACK_MIN));
	r = pthread_create(&thread, &attr, worker, NULL);
	pthread_attr_destroy(&attr);
	if (!r)
		pool.workers++;
	return -r;
}

/* No worker can be had: nothing would ever complete these. */
static void fail_queue(int ret)
{
	while (pool.head) {
		struct block_req *req = pool.head;

		pool.head = req->next;
		pool.queued--;
		block_req_complete(req, ret);
	}
	pool.tail = &pool.head;
}

static void spawn_workers(void *unused)
{
	pthread_mutex_lock(&pool.lock);
	for (unsigned n = pool.queued > pool.idle ? pool.queued - pool.idle : 0; n && pool.workers < MAX_WORKERS; n--) {
		int r = start_worker();

		if (r && !pool.workers) {
			log_error("block", "cannot create a worker thread for disk I/O: %s", strerror(-r));
			fail_queue(r);
		}
		if (r)
			break;
	}
	pthread_mutex_unlock(&pool.lock);
}

/* Once, from the first open on the main thread. */
static void pool_init_locked(void)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pool.work, &attr);
	pthread_condattr_destroy(&attr);
	bh_init(&pool.spawn, loop_main(), NULL, spawn_workers, NULL);
	pool.tail = &pool.head;
	pool.initialised = true;
}

void pool_submit(struct block_node *n, struct block_req *req, block_work_fn *work)
{
	bool spawn;

	req->node = n;
	req->next = NULL;
	*work_of(req) = work;
	pthread_mutex_lock(&pool.lock);
	if (!pool.initialised)
		pool_init_locked();
	*pool.tail = req;
	pool.tail = &req->next;
	pool.queued++;
	spawn = pool.queued > pool.idle && pool.workers < MAX_WORKERS;
	pthread_cond_signal(&pool.work);
	pthread_mutex_unlock(&pool.lock);
	if (spawn)
		bh_schedule(&pool.spawn);
}

bool pool_cancel(struct block_req *req)
{
	struct block_req **p;
	bool found = false;

	pthread_mutex_lock(&pool.lock);
	for (p = &pool.head; *p && *p != req; p = &(*p)->next)
		;
	if (*p) {
		*p = req->next;
		if (!*p)
			pool.tail = p;
		pool.queued--;
		found = true;
	}
	pthread_mutex_unlock(&pool.lock);
	if (found)
		block_req_complete(req, -ECANCELED);
	return found;
}

void pool_shutdown(void)
{
	pthread_mutex_lock(&pool.lock);
	if (pool.initialised) {
		pool.stop = true;
		pthread_cond_broadcast(&pool.work);
		while (pool.workers)
			pthread_cond_wait(&pool.gone, &pool.lock);
		bh_cancel(&pool.spawn);
		pthread_cond_destroy(&pool.work);
		pool.stop = pool.initialised = false; /* the next one may be on another main loop */
	}
	pthread_mutex_unlock(&pool.lock);
}
