/* The session: status, numbers, threads and the way to the main thread. See session.h; the operator's side is
 * migration.c. */
#include "session.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
#include "vmm/block.h"
#include "vmm/crash.h"
#include "vmm/hotplug.h"
#include "vmm/log.h"
#include "vmm/sandbox.h"

struct session session = {.lock = PTHREAD_MUTEX_INITIALIZER,
			  .cond = PTHREAD_COND_INITIALIZER,
			  .cancel_fd = -1,
			  .limit = {.lock = PTHREAD_MUTEX_INITIALIZER}};

static const char *const status_names[MIGRATION_N_STATUS] = {
	[MIGRATION_NONE] = "none",
	[MIGRATION_SETUP] = "setup",
	[MIGRATION_CANCELLING] = "cancelling",
	[MIGRATION_CANCELLED] = "cancelled",
	[MIGRATION_ACTIVE] = "active",
	[MIGRATION_POSTCOPY_ACTIVE] = "postcopy-active",
	[MIGRATION_POSTCOPY_PAUSED] = "postcopy-paused",
	[MIGRATION_POSTCOPY_RECOVER] = "postcopy-recover",
	[MIGRATION_COMPLETED] = "completed",
	[MIGRATION_FAILED] = "failed",
	[MIGRATION_COLO] = "colo",
	[MIGRATION_PRE_SWITCHOVER] = "pre-switchover",
	[MIGRATION_DEVICE] = "device",
	[MIGRATION_WAIT_UNPLUG] = "wait-unplug",
};

const char *migration_status_name(enum migration_status s)
{
	return status_names[s];
}

void session_status(enum migration_status s)
{
	char data[64];
	bool changed;

	pthread_mutex_lock(&session.lock);
	changed = session.status != s;
	session.status = s;
	pthread_mutex_unlock(&session.lock);
	if (!changed || !cap_is_on(caps_now(), CAP_EVENTS))
		return;
	snprintf(data, sizeof(data), "{\"status\": \"%s\"}", status_names[s]);
	machine_event(session.board, "MIGRATION", data);
}

enum migration_status session_get_status(void)
{
	enum migration_status s;

	pthread_mutex_lock(&session.lock);
	s = session.status;
	pthread_mutex_unlock(&session.lock);
	return s;
}

void session_pass(uint64_t pass)
{
	char data[64];

	if (!cap_is_on(caps_now(), CAP_EVENTS))
		return;
	snprintf(data, sizeof(data), "{\"pass\": %llu}", (unsigned long long)pass);
	machine_event(session.board, "MIGRATION_PASS", data);
}

bool session_cancelled(void)
{
	bool c;

	pthread_mutex_lock(&session.lock);
	c = session.cancel_asked;
	pthread_mutex_unlock(&session.lock);
	return c;
}

struct ending {
	enum migration_status status;
	struct err err;
	bool failed;
};

static void reap(void *opaque)
{
	struct ending *end = opaque;
	enum migration_status s = end->status;

	pthread_join(session.thread, NULL);
	session.running = false;
	pthread_mutex_lock(&session.lock);
	if (end->failed)
		session.err = end->err;
	if (s == MIGRATION_FAILED && session.cancel_asked)
		s = MIGRATION_CANCELLED;
	pthread_mutex_unlock(&session.lock);
	if (s == MIGRATION_FAILED && session.outgoing)
		log_error("migration", "%s", end->err.msg);
	if (session.outgoing)
		block_mark_all(session.id, false);
	if (session.board)
		machine_hold_devices(session.board, false);
	session_status(s);
	free(end);
}

void session_end(enum migration_status s, const struct err *err)
{
	struct ending *end = xzalloc(sizeof(*end));

	end->status = s;
	end->failed = err;
	if (err)
		end->err = *err;
	loop_post(loop_main(), NULL, reap, end);
}

void session_wake(void)
{
	const uint64_t one = 1;

	if (write(session.cancel_fd, &one, sizeof(one)) < 0) {
		/* full: readable already */
	}
}

/* ---- RAM blocks ---- */

void session_free_blocks(void)
{
	for (unsigned i = 0; i < session.n_blocks; i++)
		free(session.block[i].bitmap);
	memset(session.block, 0, sizeof(session.block));
	session.n_blocks = 0;
}

int session_take_blocks(struct err *e)
{
	struct ram_view v;

	session_free_blocks();
	for (unsigned i = 0; machine_ram(session.board, i, &v); i++) {
		struct mig_block *b = &session.block[i];

		if (i == MAX_BLOCKS)
			return err_set(e, E2BIG, "the machine has more than %u memory blocks", MAX_BLOCKS);
		b->v = v;
		snprintf(b->name, sizeof(b->name), "%s", v.name);
		b->pages = v.size / RAM_PAGE;
		b->bitmap = calloc(b->pages / 64 + 1, sizeof(*b->bitmap));
		session.n_blocks = i + 1;
		if (!b->bitmap)
			return err_errno(e, ENOMEM, "page bitmap of '%s'", b->name);
	}
	return 0;
}

/* ---- threads ---- */

struct thread_start {
	void *(*fn)(void *);
	void *arg;
	char name[16];
};

static void *thread_main(void *opaque)
{
	struct thread_start start = *(struct thread_start *)opaque;

	free(opaque);
	prctl(PR_SET_NAME, start.name);
	return start.fn(start.arg);
}

int session_thread(pthread_t *t, const char *name, void *(*fn)(void *), void *arg, struct err *e)
{
	struct thread_start *start = xzalloc(sizeof(*start));
	sigset_t all, old;
	int r;

	*start = (struct thread_start){.fn = fn, .arg = arg};
	snprintf(start->name, sizeof(start->name), "%s", name);
	sigfillset(&all);
	crash_unblock(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(t, NULL, thread_main, start);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!r)
		return 0;
	free(start);
	return err_errno(e, r, "cannot create the thread '%s'", name);
}

void session_stand_back(void)
{
	setpriority(PRIO_PROCESS, (id_t)gettid(), 10);
}

void session_confine(void)
{
	sandbox_thread_migration();
}

void session_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t ns)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	ns += (uint64_t)until.tv_nsec;
	until.tv_sec += (time_t)(ns / 1000000000);
	until.tv_nsec = (long)(ns % 1000000000);
	pthread_cond_timedwait(cond, lock, &until);
}

long session_faults(void)
{
	struct rusage u;

	return getrusage(RUSAGE_THREAD, &u) ? 0 : u.ru_minflt;
}

/* ---- calls to the main thread ---- */

static pthread_mutex_t call_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t call_cond;
static bool call_cond_ready, closing;

bool session_closing(void)
{
	bool c;

	pthread_mutex_lock(&call_lock);
	c = closing;
	pthread_mutex_unlock(&call_lock);
	return c;
}

static void put_call(struct main_call *c)
{
	bool last;

	pthread_mutex_lock(&call_lock);
	last = --c->refs == 0;
	pthread_mutex_unlock(&call_lock);
	if (last)
		free(c);
}

static void run_call(void *opaque)
{
	struct main_call *c = opaque;

	if (session_closing()) /* nobody waits any more, and what arg points to is gone */
		put_call(c);
	else
		c->fn(c);
}

void main_call_done(struct main_call *c, int ret)
{
	pthread_mutex_lock(&call_lock);
	c->ret = ret;
	c->done = true;
	pthread_cond_broadcast(&call_cond);
	pthread_mutex_unlock(&call_lock);
	put_call(c);
}

void session_calls_init(void)
{
	pthread_condattr_t attr;

	if (call_cond_ready)
		return;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&call_cond, &attr);
	pthread_condattr_destroy(&attr);
	call_cond_ready = true;
}

void session_calls_close(void)
{
	pthread_mutex_lock(&call_lock);
	closing = true;
	pthread_cond_broadcast(&call_cond);
	pthread_mutex_unlock(&call_lock);
}

struct main_call *main_call_start(void (*fn)(struct main_call *c), void *arg)
{
	struct main_call *c = xzalloc(sizeof(*c));

	c->fn = fn;
	c->arg = arg;
	c->refs = 2;
	loop_post(loop_main(), NULL, run_call, c);
	return c;
}

bool main_call_over(struct main_call *c)
{
	bool over;

	pthread_mutex_lock(&call_lock);
	over = c->done || closing;
	pthread_mutex_unlock(&call_lock);
	return over;
}

int main_call_wait(struct main_call *c, unsigned every_ms, void (*tick)(void *), void *tick_arg, struct err *e)
{
	int r;

	pthread_mutex_lock(&call_lock);
	while (!c->done && !closing) {
		uint64_t until = mono_ns() + (uint64_t)every_ms * 1000000;
		struct timespec ts = {.tv_sec = (time_t)(until / 1000000000ull),
				      .tv_nsec = (long)(until % 1000000000ull)};

		if (!every_ms) {
			pthread_cond_wait(&call_cond, &call_lock);
		} else if (pthread_cond_timedwait(&call_cond, &call_lock, &ts) == ETIMEDOUT && !c->done) {
			pthread_mutex_unlock(&call_lock);
			tick(tick_arg);
			pthread_mutex_lock(&call_lock);
		}
	}
	r = c->done ? c->ret : -ECANCELED;
	if (r && e)
		*e = c->done ? c->err : (struct err){.code = ECANCELED, .msg = "vmm ends"};
	pthread_mutex_unlock(&call_lock);
	put_call(c);
	return r;
}

int main_call(void (*fn)(struct main_call *c), void *arg, struct err *e)
{
	return main_call_wait(main_call_start(fn, arg), 0, NULL, NULL, e);
}
