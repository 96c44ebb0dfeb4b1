/*
 * What the machine does in a hand-over, on the main thread: stop and save at the source, load and run at the
 * destination, and take the guest back when it fails. The disks' locks are the fence: the source releases them before
 * the destination is asked to load, the destination takes them before it says READY, and whoever has them may run.
 */
#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm/block.h"
#include "vmm/clock.h"
#include "vmm/log.h"

#define TAKE_BACK_MS 900 /* the destination may need a moment to notice that it is over and to release the locks */
#define RETRY_MS     10

/* ---- the source ---- */

struct retry {
	struct timer timer;
	struct main_call *call;
	uint64_t until;
	void (*fn)(struct main_call *c);
};

static void retry_now(void *opaque)
{
	struct retry *r = opaque;
	struct main_call *call = r->call;
	void (*fn)(struct main_call * c) = r->fn;

	free(r);
	fn(call);
}

static void retry_fire(void *opaque)
{
	struct retry *r = opaque;

	timer_cancel(&r->timer);
	retry_now(r);
}

static void again_soon(struct main_call *c, void (*fn)(struct main_call *c))
{
	struct retry *r = xzalloc(sizeof(*r));

	r->call = c;
	r->fn = fn;
	if (clock_is_manual()) { /* -accel qtest: no timer fires by itself */
		usleep(RETRY_MS * 1000);
		loop_post(loop_main(), NULL, retry_now, r);
		return;
	}
	timer_init(&r->timer, loop_main(), VCLOCK_REAL, NULL, retry_fire, r);
	timer_arm(&r->timer, clock_ns(VCLOCK_REAL) + RETRY_MS * NS_PER_MS);
}

void switchover_stop(struct main_call *c)
{
	struct switchover *s = c->arg;
	uint64_t t0 = mono_ns();

	if (!machine_quiet(session.board)) { /* a reset or power-off is due: it happens first */
		again_soon(c, switchover_stop);
		return;
	}
	s->before = machine_migration_stop(session.board);
	s->stopped = true;
	s->stop_us = (mono_ns() - t0) / 1000;
	main_call_done(c, 0);
}

struct flush {
	struct block_req req;
	struct switchover *s;
};

static void saved(struct switchover *s)
{
	struct main_call *c = s->call;
	uint64_t t0 = mono_ns();
	int r;

	s->flush_us += (t0 - s->flush_since) / 1000;
	if (s->flush_error) {
		main_call_done(c, err_errno(&c->err, -s->flush_error, "cannot flush the guest's disks"));
		return;
	}
	block_inactivate_all();
	s->released = true;
	s->state.len = 0;
	r = machine_save_state(session.board, &s->state, &c->err);
	s->state_us += (mono_ns() - t0) / 1000;
	main_call_done(c, r);
}

static void flush_done(struct block_req *req, int ret)
{
	struct flush *f = container_of(req, struct flush, req);
	struct switchover *s = f->s;

	if (ret)
		s->flush_error = ret;
	free(f);
	if (!--s->flushes)
		s->flushed(s);
}

/* What the guest believes written must be where the destination reads it. */
static void flush(struct switchover *s, void (*done)(struct switchover *s))
{
	s->flushed = done;
	s->flushes = 1;
	s->flush_error = 0;
	for (struct block *b = block_next(NULL); b; b = block_next(b)) {
		struct flush *f;

		if (!block_inserted(b) || block_readonly(b) || s->same_host)
			continue;
		f = xzalloc(sizeof(*f));
		f->s = s;
		f->req = (struct block_req){.op = BLOCK_FLUSH, .done = flush_done};
		s->flushes++;
		block_submit(b, &f->req);
	}
	if (!--s->flushes)
		done(s);
}

static void flushed_early(struct switchover *s)
{
	main_call_done(s->call, 0); /* an error is found again when the guest stands */
}

void switchover_flush(struct main_call *c)
{
	struct switchover *s = c->arg;

	s->call = c;
	flush(s, flushed_early);
}

static void quiesced(void *opaque)
{
	struct switchover *s = opaque;

	s->quiesced = true;
	flush(s, saved);
}

void switchover_save(struct main_call *c)
{
	struct switchover *s = c->arg;

	s->call = c;
	s->flush_since = mono_ns();
	machine_quiesce(session.board, quiesced, s);
}

static uint64_t take_back_until;

void switchover_take_back(struct main_call *c)
{
	struct switchover *s = c->arg;
	struct err e = ERR_INIT;
	int r = 0;

	if (!take_back_until)
		take_back_until = mono_ns() + TAKE_BACK_MS * NS_PER_MS;
	if (s->released && block_activate_all(&e)) {
		if (mono_ns() < take_back_until) {
			again_soon(c, switchover_take_back);
			return;
		}
		take_back_until = 0;
		machine_migration_return(session.board, RUN_PAUSED, NULL);
		main_call_done(c, err_set(&c->err, EBUSY,
					  "the guest stays paused here: its disks are in use elsewhere (%s). If it "
					  "does not run at the "
					  "destination, end that vmm and continue here",
					  e.msg));
		return;
	}
	take_back_until = 0;
	s->released = false;
	if (s->stopped)
		r = machine_migration_return(session.board, s->before, &c->err);
	s->stopped = false;
	main_call_done(c, r); /* s is gone from here on */
}

void switchover_done(struct main_call *c)
{
	machine_stop(session.board, RUN_POSTMIGRATE);
	main_call_done(c, 0);
}

void switchover_unknown(struct main_call *c)
{
	machine_stop(session.board, RUN_PAUSED);
	main_call_done(c, 0);
}

const char *switchover_state_to_send(const struct switchover *s)
{
	return run_state_name(s->before);
}

/* ---- the destination ---- */

void switchover_load(struct main_call *c)
{
	struct switchover *s = c->arg;
	enum run_state state;
	int r;

	if (!run_state_find(s->run_state, &state)) {
		main_call_done(c, err_set(&c->err, EBADMSG, "the stream is damaged: the guest's run state is '%s'",
					  s->run_state));
		return;
	}
	r = machine_load_state(session.board, s->data, s->len, &c->err);
	if (!r && s->activate) {
		r = block_activate_all(&c->err);
		if (r)
			err_prefix(&c->err, "the guest's disks");
	}
	main_call_done(c, r);
}

/* Which of the source's states the guest goes on with; INMIGRATE and the like mean nothing here. */
static enum run_state arriving_state(const char *name)
{
	enum run_state s = RUN_PAUSED;

	if (run_state_find(name, &s) &&
	    (s == RUN_SHUTDOWN || s == RUN_SUSPENDED || s == RUN_INTERNAL_ERROR || s == RUN_IO_ERROR ||
	     s == RUN_GUEST_PANICKED || s == RUN_WATCHDOG || s == RUN_PRELAUNCH))
		return s;
	return RUN_PAUSED;
}

void switchover_run(struct main_call *c)
{
	struct switchover *s = c->arg;
	int r = 0;

	machine_migration_arrived(session.board, arriving_state(s->run_state));
	if (!strcmp(s->run_state, run_state_name(RUN_RUNNING)) && !machine_config(session.board)->stopped)
		r = machine_cont(session.board, &c->err);
	main_call_done(c, r);
}

void switchover_arrived_paused(struct main_call *c)
{
	block_inactivate_all();
	machine_migration_arrived(session.board, RUN_PAUSED);
	main_call_done(c, 0);
}
