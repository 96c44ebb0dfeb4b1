/*
 * The destination of a migration: docs/migration.md has its state machine. The main thread listens and accepts; each connection
 * gets a thread that lets the peer introduce itself within HANDSHAKE_MS, so that one that dawdles stops nobody. The first
 * that introduces itself as a migration becomes the session; further channels of it find it by its number.
 *
 *   SETUP     waiting; a peer whose machine does not fit is refused with the reason, and the wait goes on
 *   ACTIVE    pages arrive
 *   DEVICE    SWITCH came: load the state, take the disks' locks, say READY
 *   GO        run, say RUNNING
 *
 * A failure after ACCEPT ends the process, as QEMU's does: the machine is half filled, and the guest lives at the source. A
 * connection lost between READY and GO leaves the guest here complete but paused: only the operator can know whether it lives
 * elsewhere.
 */
#include "destination.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "compress.h"
#include "handover.h"
#include "save.h"
#include "postcopy_destination.h"
#include "vmm/bytes.h"
#include "vmm/clock.h"
#include "vmm/log.h"

#define MAX_GREETERS   16
#define MAX_LISTEN     8
#define MAX_STATE      (256u << 20)
#define MAX_DESCRIBE   (16u << 20)
#define PING_MS	       100 /* signs of life while the main thread loads */
#define LINGER_MS      500 /* how long a refused peer may take to read the reason */

static struct {
	bool waiting;  /* a guest is to come or is coming */
	bool deferred; /* -incoming defer, migrate-incoming not given yet */
	struct address address;
	int listen_fd[MAX_LISTEN];
	struct watch *watch[MAX_LISTEN];
	unsigned n_listen;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned greeters;
	bool quit;
} waiting = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

/* The page channels of the session. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned expected, attached, open;
	struct channel *channel[MAX_CHANNELS];
	uint32_t round[MAX_CHANNELS];
	bool claimed, closing, over;
	bool recoverable;	   /* a post-copy waits for a new connection */
	struct channel *recovery; /* here it is */
	int result;
	struct err err;
} pages = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

bool destination_waits(void)
{
	return waiting.waiting;
}

bool destination_talks(void)
{
	bool talks;

	pthread_mutex_lock(&waiting.lock);
	talks = waiting.greeters;
	pthread_mutex_unlock(&waiting.lock);
	return talks;
}

/* ---- page channels ---- */

static int page_loop(struct channel *c, unsigned slot, struct err *e)
{
	struct receiver *rv = receiver_new(c);
	int r = 0;

	while (!r) {
		struct wire_record rec;
		uint8_t raw[WIRE_HEADER], *payload;

		r = channel_get_header(c, &rec, raw, e);
		if (r)
			break;
		if (rec.type == WIRE_BATCH) {
			r = receiver_batch(rv, &rec, raw, e);
			continue;
		}
		r = channel_get_payload(c, &rec, raw, 4, &payload, e);
		if (r)
			break;
		if (rec.type != WIRE_ROUND || rec.length != 4) {
			r = err_set(e, EBADMSG, "%s: '%s' on a channel for pages", c->peer, wire_type_name(rec.type));
		} else {
			pthread_mutex_lock(&pages.lock);
			pages.round[slot] = get_le32(payload);
			pthread_cond_broadcast(&pages.cond);
			pthread_mutex_unlock(&pages.lock);
		}
		free(payload);
	}
	receiver_free(rv);
	return r;
}

/* A channel of the session that is under way; takes c. */
static void serve_pages(struct channel *c, const struct wire_preamble *p)
{
	struct err e = ERR_INIT;
	unsigned slot = p->channel - 1u;
	bool mine;
	int r;

	pthread_mutex_lock(&pages.lock);
	mine = pages.claimed && !pages.closing && p->session == session.id && slot < pages.expected && !pages.channel[slot];
	if (mine) {
		pages.channel[slot] = c;
		pages.attached++;
		pages.open++;
		pthread_cond_broadcast(&pages.cond);
	}
	pthread_mutex_unlock(&pages.lock);
	if (!mine) {
		log_warn("migration", "%s: a channel of no migration that is under way; refused", c->peer);
		channel_free(c);
		return;
	}
	c->deadline_ns = 0;
	session_confine();
	r = page_loop(c, slot, &e);
	pthread_mutex_lock(&pages.lock);
	if (r && !pages.over && !pages.result) {
		pages.result = r;
		pages.err = e;
		channel_shutdown(session.main); /* its reader learns of it */
	}
	pages.open--;
	pages.channel[slot] = NULL;
	pthread_cond_broadcast(&pages.cond);
	pthread_mutex_unlock(&pages.lock);
	channel_free(c);
}

/* Until every page channel has come to the end of this round. */
static int wait_round(uint32_t round, struct err *e)
{
	int r = 0;

	pthread_mutex_lock(&pages.lock);
	for (unsigned i = 0; !r && i < pages.expected;) {
		if (pages.result) {
			*e = pages.err;
			r = pages.result;
		} else if (session_cancelled() || waiting.quit) {
			r = err_set(e, ECANCELED, "cancelled");
		} else if (pages.round[i] >= round) {
			i++;
		} else {
			struct timespec ts;

			clock_gettime(CLOCK_REALTIME, &ts);
			ts.tv_sec++;
			pthread_cond_timedwait(&pages.cond, &pages.lock, &ts);
		}
	}
	pthread_mutex_unlock(&pages.lock);
	return r;
}

static void close_pages(void)
{
	pthread_mutex_lock(&pages.lock);
	pages.closing = true;
	for (unsigned i = 0; i < MAX_CHANNELS; i++)
		if (pages.channel[i])
			channel_shutdown(pages.channel[i]);
	while (pages.open)
		pthread_cond_wait(&pages.cond, &pages.lock);
	pthread_mutex_unlock(&pages.lock);
}

/* ---- introduction ---- */

/* Only one at a time: the winner's channel becomes the session's. */
static bool claim_session(struct channel *c, const struct wire_preamble *p)
{
	bool mine;

	pthread_mutex_lock(&pages.lock);
	mine = !pages.claimed && !waiting.quit;
	if (mine) {
		memset(pages.round, 0, sizeof(pages.round));
		pages.expected = pages.attached = 0;
		pages.closing = pages.over = false;
		pages.result = 0;
		pages.claimed = true;
		session.id = p->session;
		session.main = c;
	}
	pthread_mutex_unlock(&pages.lock);
	return mine;
}

static void release_session(void)
{
	close_pages();
	pthread_mutex_lock(&pages.lock);
	pages.claimed = false;
	session.main = NULL;
	pthread_mutex_unlock(&pages.lock);
}

void destination_over(void)
{
	waiting.waiting = false;
}

uint32_t destination_features(const struct channel *c)
{
	return WIRE_F_CHANNELS | (c->local && !c->tls ? WIRE_F_MEMORY : 0) | (compress_available() ? WIRE_F_ZSTD : 0) |
	       (cap_is_on(caps_now(), CAP_POSTCOPY_RAM) && postcopy_available() ? WIRE_F_POSTCOPY : 0);
}

/* Let the peer read the reason before the connection goes. */
static void refuse(struct channel *c, enum wire_type type, const char *why)
{
	struct err ignored = ERR_INIT;
	uint8_t waste[4096];
	uint64_t until = mono_ns() + LINGER_MS * 1000000ull;

	if (c->one_way)
		return;
	c->stall_ms = LINGER_MS;
	if (channel_put_text(c, type, why, &ignored) || !c->socket || c->tls)
		return;
	shutdown(c->fd, SHUT_WR);
	while (mono_ns() < until && channel_wait(c, LINGER_MS, &ignored) > 0 && recv(c->fd, waste, sizeof(waste), 0) > 0)
		;
}

void destination_refuse(struct channel *c, const char *why)
{
	refuse(c, WIRE_REFUSE, why);
}

struct introduction {
	uint8_t *description, *layout, *drives;
	size_t description_len, layout_len, drives_len;
	unsigned channels;
};

static void free_introduction(struct introduction *in)
{
	free(in->description);
	free(in->layout);
	free(in->drives);
}

static int read_introduction(struct channel *c, struct introduction *in, struct err *e)
{
	for (;;) {
		struct wire_record rec;
		uint8_t raw[WIRE_HEADER], *payload = NULL, **to = NULL;
		size_t *len = NULL;
		int r = channel_get_header(c, &rec, raw, e);

		if (!r)
			r = channel_get_payload(c, &rec, raw, MAX_DESCRIBE, &payload, e);
		if (r)
			return r;
		switch (rec.type) {
		case WIRE_DESCRIPTION:
			to = &in->description;
			len = &in->description_len;
			break;
		case WIRE_LAYOUT:
			to = &in->layout;
			len = &in->layout_len;
			break;
		case WIRE_DRIVES:
			to = &in->drives;
			len = &in->drives_len;
			break;
		case WIRE_BEGIN:
			in->channels = rec.length == 4 ? payload[0] : 0;
			free(payload);
			if (!in->description || !in->layout || !in->drives || rec.length != 4 || in->channels > MAX_CHANNELS)
				return err_set(e, EBADMSG, "%s: the stream begins without describing the machine", c->peer);
			return 0;
		default:
			break;
		}
		if (!to || *to) {
			free(payload);
			return err_set(e, EBADMSG, "%s: unexpected '%s' at the stream's beginning", c->peer, wire_type_name(rec.type));
		}
		*to = payload;
		*len = rec.length;
	}
}

/* On the main thread: does the guest fit this machine? */
static void check_machine(struct main_call *c)
{
	struct introduction *in = c->arg;
	int r = machine_check_description(session.board, in->description, in->description_len, &c->err);

	if (!r)
		r = check_layout(in->layout, in->layout_len, &c->err);
	if (!r)
		r = check_drives(in->drives, in->drives_len, &c->err);
	if (!r)
		r = ram_recv_begin(&c->err);
	main_call_done(c, r);
}

/* ---- the stream ---- */

struct incoming {
	struct channel *c, *first; /* first: its greeter frees it */
	struct receiver *rv;
	struct state_buf state;
	struct switchover sw;
	uint32_t round;
	uint64_t load_ns, resume_ns;
	bool ready, loaded, gone;
};

static void ping(void *arg)
{
	struct channel *c = arg;
	struct err ignored = ERR_INIT;

	if (!c->one_way)
		channel_put(c, WIRE_PING, 0, NULL, 0, &ignored);
}

static int on_state(struct incoming *in, const uint8_t *payload, size_t len, struct err *e)
{
	if (in->state.len + len > MAX_STATE)
		return err_set(e, EBADMSG, "the stream is damaged: more than %u MiB of device state", MAX_STATE >> 20);
	if (in->state.len + len > in->state.cap) {
		uint8_t *more = realloc(in->state.data, in->state.len + len);

		if (!more)
			return err_errno(e, ENOMEM, "device state");
		in->state.data = more;
		in->state.cap = in->state.len + len;
	}
	memcpy(in->state.data + in->state.len, payload, len);
	in->state.len += len;
	return 0;
}

static int on_round(struct incoming *in, const uint8_t *payload, size_t len, struct err *e)
{
	uint8_t answer[8];
	int r;

	if (len != 4)
		return err_set(e, EBADMSG, "the stream is damaged: a round's end of %zu bytes", len);
	in->round = get_le32(payload);
	r = wait_round(in->round, e);
	if (r || in->c->one_way)
		return r;
	put_le32(answer, in->round);
	put_le32(answer + 4, (uint32_t)MIN(ram_recv_torn(), (uint64_t)UINT32_MAX));
	return channel_put(in->c, WIRE_ROUND_DONE, 0, answer, sizeof(answer), e);
}

static int late_page(struct incoming *in, struct err *e)
{
	struct wire_record rec;
	uint8_t raw[WIRE_HEADER];
	int r = channel_get_header(in->c, &rec, raw, e);

	if (!r && rec.type != WIRE_BATCH)
		r = err_set(e, EBADMSG, "the stream is damaged: '%s' while the guest's state is loaded", wire_type_name(rec.type));
	return r ? r : receiver_batch(in->rv, &rec, raw, e);
}

/* main_call(); in a post-copy pages are received meanwhile, because the main thread may wait for one. */
static int call_main(struct incoming *in, void (*fn)(struct main_call *c), struct err *e)
{
	struct main_call *call = main_call_start(fn, &in->sw);
	struct err lost = ERR_INIT;
	int r = 0, r2;

	while (postcopy_on() && !r && !main_call_over(call)) {
		r = channel_wait(in->c, 2, &lost);
		if (r > 0)
			r = late_page(in, &lost);
	}
	if (r && !in->gone)
		postcopy_end(); /* whoever waits for a page waits in vain: let it go on, the process ends */
	r2 = main_call_wait(call, PING_MS, ping, in->c, e);
	if (!r2 && r && !in->gone) {
		*e = lost;
		r2 = r;
	}
	return r2;
}

static int on_switch(struct incoming *in, const char *text, struct err *e)
{
	uint64_t t0 = mono_ns();
	int r = ram_recv_check(e);

	if (r)
		return r;
	session_status(MIGRATION_DEVICE);
	snprintf(in->sw.run_state, sizeof(in->sw.run_state), "%s", text);
	in->sw.data = in->state.data;
	in->sw.len = in->state.len;
	/* A guest that will not run at once leaves its disks to whoever continues it (libvirt's late-block-activate). */
	in->sw.activate = !machine_config(session.board)->stopped || !cap_is_on(caps_now(), CAP_LATE_BLOCK_ACTIVATE);
	in->loaded = true;
	r = call_main(in, switchover_load, e);
	in->load_ns = mono_ns() - t0;
	if (r || in->c->one_way)
		return r;
	in->ready = true;
	return channel_put(in->c, WIRE_READY, 0, NULL, 0, e);
}

static int on_go(struct incoming *in, struct err *e)
{
	uint64_t t0 = mono_ns();
	uint8_t times[16];
	struct err lost = ERR_INIT;
	int r;

	if (!in->loaded)
		return err_set(e, EBADMSG, "the stream is damaged: 'go' before the guest's state");
	in->gone = true;
	r = call_main(in, switchover_run, e);
	in->resume_ns = mono_ns() - t0;
	if (r || in->c->one_way)
		return r;
	put_le64(times, in->load_ns);
	put_le64(times + 8, in->resume_ns);
	if (channel_put(in->c, WIRE_RUNNING, 0, times, sizeof(times), &lost))
		log_warn("migration", "the guest runs here, but the source could not be told (%s): it keeps its copy paused", lost.msg);
	return 0;
}

/* Post-copy: the source has nothing left. */
static int on_end(struct incoming *in, struct err *e)
{
	struct err ignored = ERR_INIT;

	if (!in->gone || postcopy_left())
		return err_set(e, EBADMSG, "the source has nothing left, but %llu pages are missing",
			       (unsigned long long)postcopy_left());
	postcopy_end();
	channel_put(in->c, WIRE_COMPLETE, 0, NULL, 0, &ignored);
	return 0;
}

/* One record; *over: the guest is here. */
static int handle(struct incoming *in, bool *over, struct err *e)
{
	struct wire_record rec;
	uint8_t raw[WIRE_HEADER], *payload;
	int r = channel_get_header(in->c, &rec, raw, e);

	if (r)
		return r;
	if (rec.type == WIRE_BATCH && (!in->loaded || postcopy_on()))
		return receiver_batch(in->rv, &rec, raw, e);
	r = channel_get_payload(in->c, &rec, raw, WIRE_MAX_PAYLOAD, &payload, e);
	if (r)
		return r;
	switch (rec.type) {
	case WIRE_MEMORY:
		r = in->loaded ? err_set(e, EBADMSG, "the stream is damaged: memory after the state")
			       : handover_receive(in->c, payload, rec.length, e);
		break;
	case WIRE_BITMAP:
		r = in->loaded ? err_set(e, EBADMSG, "the stream is damaged: missing pages after the state")
			       : postcopy_missing(in->c, payload, rec.length, e);
		break;
	case WIRE_END:
		r = on_end(in, e);
		*over = !r;
		break;
	case WIRE_PRESENT:
		r = ram_recv_present(payload, rec.length, e);
		break;
	case WIRE_ROUND:
		r = on_round(in, payload, rec.length, e);
		break;
	case WIRE_STATE:
		r = on_state(in, payload, rec.length, e);
		break;
	case WIRE_SWITCH:
		r = in->loaded ? err_set(e, EBADMSG, "the stream is damaged: two switches") : on_switch(in, (char *)payload, e);
		break;
	case WIRE_GO:
		r = on_go(in, e);
		*over = !r && !postcopy_on();
		if (!r && postcopy_on())
			session_status(MIGRATION_POSTCOPY_ACTIVE);
		break;
	case WIRE_ABORT:
		r = err_set(e, ECONNABORTED, "the source gave up: %.900s", (char *)payload);
		break;
	default:
		r = err_set(e, EBADMSG, "the stream is damaged: unexpected '%s'", wire_type_name(rec.type));
	}
	free(payload);
	return r;
}

/* ---- outcomes ---- */

static void stop_listening(void *opaque)
{
	(void)opaque;
	for (unsigned i = 0; i < waiting.n_listen; i++) {
		loop_unwatch(waiting.watch[i]);
		close(waiting.listen_fd[i]);
	}
	if (waiting.n_listen && waiting.address.kind == ADDRESS_UNIX)
		unlink(waiting.address.path);
	waiting.n_listen = 0;
}

static void arrived(void *opaque)
{
	(void)opaque;
	waiting.waiting = false;
	session.running = false;
	stop_listening(NULL);
	pthread_mutex_lock(&session.lock);
	session_free_blocks();
	session.info.address[0] = 0;
	session.info.total_time_ms = (mono_ns() - session.start_ns) / 1000000;
	pthread_mutex_unlock(&session.lock);
	session_status(MIGRATION_COMPLETED);
	migration_announce((uint32_t)session.params.announce_initial, (uint32_t)session.params.announce_max,
			   (uint32_t)session.params.announce_rounds, (uint32_t)session.params.announce_step);
}

static void failed(void *opaque)
{
	struct err *e = opaque;

	session.running = false;
	pthread_mutex_lock(&session.lock);
	session.err = *e;
	pthread_mutex_unlock(&session.lock);
	session_status(MIGRATION_FAILED);
	free(e);
}

static void failed_paused(void *opaque)
{
	waiting.waiting = false;
	stop_listening(NULL);
	failed(opaque);
}

static void failed_exit(void *opaque)
{
	failed(opaque);
	machine_request_exit(session.board, 1);
}

static void fail(struct incoming *in, struct err *e)
{
	struct err *copy;

	pthread_mutex_lock(&pages.lock);
	if (pages.result && !in->ready)
		*e = pages.err;
	pthread_mutex_unlock(&pages.lock);
	if (in->gone) {
		/* GO came, and the guest could not be started: it is complete, and nobody else has it. */
		err_prefix(e, "the guest was handed over but cannot run; it is paused here, continue it (cont)");
		refuse(in->c, WIRE_ABORT, e->msg);
	} else if (in->ready) {
		main_call(switchover_arrived_paused, NULL, NULL);
		err_prefix(e, "the connection was lost before 'go': the guest is complete but stays paused here; continue it (cont) only if "
			      "it does not run at the source");
	} else {
		refuse(in->c, WIRE_ABORT, e->msg);
		err_prefix(e, "incoming migration failed");
	}
	log_error("migration", "%s", e->msg);
	copy = xmemdup(e, sizeof(*e));
	loop_post(loop_main(), NULL, in->gone || in->ready ? failed_paused : failed_exit, copy);
}

/*
 * Post-copy, and the connection broke: the guest runs on what it has and waits for the rest. A new connection of the same
 * migration brings it: on the address we listen on anyway, or on the one migrate-recover gives.
 */
static int wait_for_recovery(struct incoming *in, struct err *e)
{
	struct channel *c;
	int r;

	do {
		log_error("migration", "post-copy: %s; %llu pages are missing: the guest waits where it needs one (migrate-recover)",
			  e->msg, (unsigned long long)postcopy_left());
		postcopy_detach();
		channel_shutdown(in->c);
		pthread_mutex_lock(&session.lock);
		session.err = *e;
		pthread_mutex_unlock(&session.lock);
		session_status(MIGRATION_POSTCOPY_PAUSED);
		pthread_mutex_lock(&pages.lock);
		pages.recoverable = true;
		while (!pages.recovery && !waiting.quit)
			pthread_cond_wait(&pages.cond, &pages.lock);
		pages.recoverable = false;
		c = pages.recovery;
		pages.recovery = NULL;
		pthread_mutex_unlock(&pages.lock);
		if (!c)
			return err_set(e, ECANCELED, "vmm ends");
		session_status(MIGRATION_POSTCOPY_RECOVER);
		pthread_mutex_lock(&session.lock);
		session.main = c;
		pthread_mutex_unlock(&session.lock);
		if (in->c != in->first)
			channel_free(in->c);
		in->c = c;
		c->deadline_ns = 0;
		receiver_free(in->rv);
		in->rv = receiver_new(c);
		*e = ERR_INIT;
		r = postcopy_reattach(c, e);
	} while (r);
	session_status(MIGRATION_POSTCOPY_ACTIVE);
	return 0;
}

/* Another connection of a post-copy that waits for one. Takes c. */
static bool offer_recovery(struct channel *c, const struct wire_preamble *p, struct err *e)
{
	bool wanted;
	int r;

	pthread_mutex_lock(&pages.lock);
	wanted = pages.recoverable && !pages.recovery && p->session == session.id;
	pthread_mutex_unlock(&pages.lock);
	r = channel_send_preamble(c, p, e);
	if (r)
		return false;
	if (!wanted) {
		err_set(e, EINVAL, "no post-copy of this guest waits to be recovered here");
		return false;
	}
	pthread_mutex_lock(&pages.lock);
	wanted = pages.recoverable && !pages.recovery;
	if (wanted)
		pages.recovery = c;
	pthread_cond_broadcast(&pages.cond);
	pthread_mutex_unlock(&pages.lock);
	return wanted;
}

static void receive(struct channel *c, const struct introduction *intro, struct err *e)
{
	struct incoming in = { .c = c, .first = c, .rv = receiver_new(c) };
	bool over = false;
	uint8_t accept[4];
	int r = 0;

	put_le32(accept, session.features);
	pthread_mutex_lock(&pages.lock);
	pages.expected = intro->channels;
	pthread_mutex_unlock(&pages.lock);
	session_status(MIGRATION_ACTIVE);
	if (!c->one_way)
		r = channel_put(c, WIRE_ACCEPT, 0, accept, sizeof(accept), e);
	while (!r && !over) {
		r = handle(&in, &over, e);
		if (r && in.gone && postcopy_on())
			r = wait_for_recovery(&in, e);
	}
	pthread_mutex_lock(&pages.lock);
	pages.over = true;
	pthread_mutex_unlock(&pages.lock);
	if (r)
		fail(&in, e);
	close_pages();
	postcopy_end();
	ram_recv_end();
	receiver_free(in.rv);
	if (in.c != in.first)
		channel_free(in.c);
	state_buf_free(&in.state);
	if (!r)
		loop_post(loop_main(), NULL, arrived, NULL);
}

static void start_session(struct main_call *c)
{
	session.outgoing = false;
	session.running = true;
	session.caps = caps_now();
	session.start_ns = mono_ns();
	main_call_done(c, 0);
}

static void end_session(struct main_call *c)
{
	session.running = false;
	session_free_blocks();
	main_call_done(c, 0);
}

/* The whole of an incoming migration on its main channel. 0, or why the peer was refused. */
static int serve_main(struct channel *c, const struct wire_preamble *p, const struct migration_meeting *met, struct err *e)
{
	struct introduction in = { 0 };
	struct wire_preamble answer = *p;
	int r = 0;

	c->one_way = p->flags & WIRE_ONE_WAY;
	answer.features = session.features = p->features & (c->one_way ? WIRE_F_ZSTD : destination_features(c));
	if (met) { /* it was answered, and its description read, before there was a machine */
		session.features = met->features;
		in.description = xmemdup(met->description, met->description_len);
		in.description_len = met->description_len;
	} else if (!c->one_way) {
		r = channel_send_preamble(c, &answer, e);
	}
	if (!r)
		r = read_introduction(c, &in, e);
	c->deadline_ns = 0;
	if (!r)
		r = main_call(start_session, NULL, e);
	if (!r) {
		r = main_call(check_machine, &in, e);
		if (r)
			main_call(end_session, NULL, NULL);
	}
	if (!r) {
		session_confine();
		receive(c, &in, e);
	} else {
		log_warn("migration", "%s: refused: %s", c->peer, e->msg);
		refuse(c, WIRE_REFUSE, e->msg);
	}
	free_introduction(&in);
	return r;
}

/* ---- connections ---- */

struct greeter {
	int fd;
	bool only; /* fd: or exec: nobody else will come */
	char peer[320];
	struct migration_meeting *met;
};

static void refused_for_good(void *opaque)
{
	failed_exit(opaque);
}

static void greet(struct greeter *g)
{
	struct channel *c = g->met ? g->met->channel : channel_new(g->fd, session.cancel_fd, g->peer);
	struct wire_preamble p;
	struct err e = ERR_INIT;
	int r = 0;

	if (g->met)
		p = g->met->preamble;
	if (!g->only)
		c->deadline_ns = mono_ns() + HANDSHAKE_MS * 1000000ull;
	if (!g->met && tls_wanted())
		r = tls_server(c, &e);
	if (!r && !g->met)
		r = channel_recv_preamble(c, &p, &e);
	if (!r && p.kind == WIRE_PAGES) {
		serve_pages(c, &p);
		return;
	}
	if (!r && p.kind != WIRE_MAIN)
		r = err_set(&e, EBADMSG, "a stream of kind %u cannot be received here", p.kind);
	if (!r && p.flags & WIRE_RESUME) {
		if (offer_recovery(c, &p, &e))
			return;
		log_warn("migration", "%s: refused: %s", g->peer, e.msg);
		refuse(c, WIRE_REFUSE, e.msg);
		channel_free(c);
		return;
	}
	if (!r && !claim_session(c, &p)) {
		r = err_set(&e, EBUSY, "another migration is coming in already");
		channel_send_preamble(c, &p, &e);
	}
	if (r) {
		log_warn("migration", "%s: refused: %s", g->peer, e.msg);
		refuse(c, WIRE_REFUSE, e.msg);
	} else {
		r = serve_main(c, &p, g->met, &e);
		release_session();
	}
	channel_free(c);
	if (g->met) {
		g->met->channel = NULL;
		migration_meeting_end(g->met, NULL);
	}
	if (r && g->only) {
		err_prefix(&e, "incoming migration failed");
		loop_post(loop_main(), NULL, refused_for_good, xmemdup(&e, sizeof(e)));
	}
}

static void *greeter_thread(void *arg)
{
	struct greeter *g = arg;

	greet(g);
	free(g);
	pthread_mutex_lock(&waiting.lock);
	waiting.greeters--;
	pthread_cond_broadcast(&waiting.cond);
	pthread_mutex_unlock(&waiting.lock);
	return NULL;
}

/* Takes fd. */
static int start_greeter(int fd, const char *peer, bool only, struct migration_meeting *met, struct err *e)
{
	struct greeter *g = xzalloc(sizeof(*g));
	pthread_t t;
	int r;

	*g = (struct greeter){ .fd = fd, .only = only, .met = met };
	snprintf(g->peer, sizeof(g->peer), "%s", peer);
	pthread_mutex_lock(&waiting.lock);
	waiting.greeters++;
	pthread_mutex_unlock(&waiting.lock);
	r = session_thread(&t, "migration", greeter_thread, g, e);
	if (!r) {
		pthread_detach(t);
		return 0;
	}
	pthread_mutex_lock(&waiting.lock);
	waiting.greeters--;
	pthread_mutex_unlock(&waiting.lock);
	if (fd >= 0)
		close(fd);
	free(g);
	return r;
}

static void on_connection(void *opaque, int listen_fd, unsigned events)
{
	char peer[320];
	struct err e = ERR_INIT;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	bool full;

	(void)opaque;
	(void)events;
	if (fd < 0)
		return;
	pthread_mutex_lock(&waiting.lock);
	full = waiting.greeters >= MAX_GREETERS + MAX_CHANNELS;
	pthread_mutex_unlock(&waiting.lock);
	if (!address_allowed(fd, peer, sizeof(peer))) {
		log_warn("migration", "%s: refused: -migration-allow does not list it", peer);
		close(fd);
	} else if (full) {
		log_warn("migration", "%s: refused: too many connections are waiting to introduce themselves", peer);
		close(fd);
	} else {
		if (!tls_wanted())
			address_warn_plain(fd);
		if (start_greeter(fd, peer, false, NULL, &e))
			log_warn("migration", "%s: %s", peer, e.msg);
	}
}

static int watch_listeners(int n, const char *bound, struct err *e)
{
	for (int i = 0; i < n; i++) {
		waiting.watch[i] = loop_watch(loop_main(), waiting.listen_fd[i], LOOP_READ, NULL, on_connection, NULL, e);
		waiting.n_listen = (unsigned)i + 1;
		if (!waiting.watch[i]) {
			stop_listening(NULL);
			return -ENOMEM;
		}
	}
	pthread_mutex_lock(&session.lock);
	snprintf(session.info.address, sizeof(session.info.address), "%s", bound);
	pthread_mutex_unlock(&session.lock);
	return 0;
}

static int listen_on(struct err *e)
{
	char bound[320];
	int n = address_listen(&waiting.address, waiting.listen_fd, MAX_LISTEN, bound, sizeof(bound), e);

	return n < 0 ? n : watch_listeners(n, bound, e);
}

int destination_resume(struct migration_meeting *m, struct err *e)
{
	int r = 0;

	if (!m->channel) { /* a saved file */
		waiting.waiting = true;
		r = restore_start(e);
		if (!r)
			migration_meeting_end(m, NULL);
		return r;
	}
	waiting.address = m->address;
	memcpy(waiting.listen_fd, m->listen_fd, m->n_listen * sizeof(m->listen_fd[0]));
	if (m->n_listen)
		r = watch_listeners((int)m->n_listen, m->bound, e);
	m->n_listen = 0;
	m->channel->cancel_fd = session.cancel_fd;
	waiting.waiting = !r;
	if (r)
		return r;
	session_status(MIGRATION_SETUP);
	return start_greeter(-1, m->channel->peer, m->only, m, e);
}

int destination_listen(const char *uri, struct err *e)
{
	int r, fd;

	if (waiting.waiting && !waiting.deferred)
		return err_set(e, EBUSY, "The incoming migration has already been started");
	if (!strcmp(uri, "defer")) {
		waiting.waiting = waiting.deferred = true;
		return 0;
	}
	r = address_parse(uri, &waiting.address, e);
	if (r)
		return r;
	switch (waiting.address.kind) {
	case ADDRESS_TCP:
	case ADDRESS_UNIX:
		r = listen_on(e);
		break;
	case ADDRESS_FD:
	case ADDRESS_EXEC:
		fd = address_take_fd(&waiting.address, true, e);
		r = fd < 0 ? fd : start_greeter(fd, uri, true, NULL, e);
		break;
	case ADDRESS_FILE:
		r = restore_open(waiting.address.path, &fd, e);
		r = r > 0 ? start_greeter(fd, uri, true, NULL, e) : r ? r : restore_start(e);
	}
	if (r)
		return r;
	waiting.waiting = true;
	waiting.deferred = false;
	session_status(MIGRATION_SETUP);
	return 0;
}

int destination_listen_again(const char *uri, struct err *e)
{
	struct address a;
	int r = address_parse(uri, &a, e), fd;

	if (r)
		return r;
	if (a.kind == ADDRESS_FD) {
		fd = address_take_fd(&a, true, e);
		return fd < 0 ? fd : start_greeter(fd, uri, false, NULL, e);
	}
	if (a.kind != ADDRESS_TCP && a.kind != ADDRESS_UNIX)
		return err_set(e, EINVAL, "%.80s: a post-copy goes on over tcp, unix or fd", uri);
	stop_listening(NULL);
	waiting.address = a;
	return listen_on(e);
}

void destination_stop(void)
{
	pthread_mutex_lock(&pages.lock);
	waiting.quit = true;
	pthread_cond_broadcast(&pages.cond);
	pthread_mutex_unlock(&pages.lock);
	pthread_mutex_lock(&waiting.lock);
	while (waiting.greeters)
		pthread_cond_wait(&waiting.cond, &waiting.lock);
	pthread_mutex_unlock(&waiting.lock);
	stop_listening(NULL);
}
