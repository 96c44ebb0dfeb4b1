/*
 * The destination of a migration: docs/migration.md has its state machine. Runs on the thread of the connection that
 * introduced itself first (destination_listen.c).
 *
 *   SETUP     waiting; a peer whose machine does not fit is refused with the reason, and the wait goes on
 *   ACTIVE    pages arrive
 *   DEVICE    SWITCH came: load the state, take the disks' locks, say READY
 *   GO        run, say RUNNING
 *
 * A failure after ACCEPT ends the process, as QEMU's does: the machine is half filled, and the guest lives at the
 * source. A connection lost between READY and GO leaves the guest here complete but paused: only the operator can know
 * whether it lives elsewhere. In a post-copy it is not complete, and the process ends.
 */
#include "destination.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "compress.h"
#include "handover.h"
#include "postcopy_destination.h"
#include "vmm/bytes.h"
#include "vmm/clock.h"
#include "vmm/log.h"

#define MAX_STATE    (256u << 20)
#define MAX_DESCRIBE (16u << 20)
#define PING_MS      100 /* signs of life while the main thread loads */

/* ---- the handshake ---- */

uint32_t destination_features(const struct channel *c)
{
	return (c->only ? 0 : WIRE_F_CHANNELS | WIRE_F_FEWER) | WIRE_F_WINDOWS |
	       (c->local && !c->tls ? WIRE_F_MEMORY : 0) | (compress_available() ? WIRE_F_ZSTD : 0) |
	       (cap_is_on(caps_now(), CAP_POSTCOPY_RAM) && postcopy_available() ? WIRE_F_POSTCOPY : 0);
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
		size_t *len = NULL, room = MAX_DESCRIBE - in->layout_len - in->drives_len;
		int r = channel_get_header(c, &rec, raw, e);

		if (!r)
			r = channel_get_payload(c, &rec, raw, (uint32_t)room, &payload, e);
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
			if (!in->description || !in->layout || !in->drives || rec.length != 4 ||
			    in->channels > MAX_CHANNELS)
				return err_set(e, EBADMSG, "%s: the stream begins without describing the machine",
					       c->peer);
			return 0;
		default:
			break;
		}
		if (!to || *to) {
			free(payload);
			return err_set(e, EBADMSG, "%s: unexpected '%s' at the stream's beginning", c->peer,
				       wire_type_name(rec.type));
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
	if (len) /* an empty one may come first, when there is no memory yet */
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
	r = pages_wait_round(in->round, e);
	if (r || in->c->one_way)
		return r;
	put_le32(answer, in->round);
	put_le32(answer + 4, (uint32_t)MIN(ram_recv_torn(), (uint64_t)UINT32_MAX));
	return channel_put(in->c, WIRE_ROUND_DONE, 0, answer, sizeof(answer), e);
}

/* Post-copy, while the main thread loads or starts the guest. */
static int late_record(struct incoming *in, struct err *e)
{
	struct wire_record rec;
	uint8_t raw[WIRE_HEADER], *payload;
	int r = channel_get_header(in->c, &rec, raw, e);

	if (!r && rec.type == WIRE_BATCH)
		return receiver_batch(in->rv, &rec, raw, e);
	if (!r && rec.type != WIRE_END)
		return err_set(e, EBADMSG, "the stream is damaged: '%s' while the guest's state is loaded",
			       wire_type_name(rec.type));
	if (!r)
		r = channel_get_payload(in->c, &rec, raw, 0, &payload, e);
	if (r)
		return r;
	free(payload);
	in->ended = true;
	return 0;
}

/*
 * main_call(); in a post-copy pages are received meanwhile, because the main thread may wait for one. A connection that
 * breaks then: before GO the process ends, so whoever waits for a page is let go on; after it the pages come by a
 * recovery.
 */
static int call_main(struct incoming *in, void (*fn)(struct main_call *c), struct err *e)
{
	struct main_call *call = main_call_start(fn, &in->sw);
	struct err lost = ERR_INIT;
	int r = 0, r2;

	while (postcopy_on() && !r && !in->ended && !main_call_over(call)) {
		r = channel_wait(in->c, 2, &lost);
		if (r > 0)
			r = late_record(in, &lost);
		if (r && in->gone)
			r = recovery_wait(in, &lost);
	}
	if (r && !in->gone)
		postcopy_end();
	r2 = main_call_wait(call, PING_MS, ping, in->c, e);
	if (!r2 && r) {
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
	log_debug("migration", "the guest stands: %zu bytes of its state", in->state.len);
	snprintf(in->sw.run_state, sizeof(in->sw.run_state), "%s", text);
	in->sw.data = in->state.data;
	in->sw.len = in->state.len;
	/* A guest that will not run at once leaves its disks to whoever continues it (libvirt's late-block-activate).
	 */
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
	recovery_possible(postcopy_on());
	r = call_main(in, switchover_run, e);
	in->resume_ns = mono_ns() - t0;
	if (r || in->c->one_way || in->c != in->first) /* another connection: the source knows that it runs here */
		return r;
	put_le64(times, in->load_ns);
	put_le64(times + 8, in->resume_ns);
	if (channel_put(in->c, WIRE_RUNNING, 0, times, sizeof(times), &lost))
		log_warn("migration", "the guest runs here, but the source could not be told (%s)%s", lost.msg,
			 postcopy_on() ? "" : ": it keeps its copy paused");
	return 0;
}

/* Post-copy: the source has nothing left. */
static int on_end(struct incoming *in, struct err *e)
{
	struct err ignored = ERR_INIT;

	if (!in->gone || postcopy_left())
		return err_set(e, EBADMSG, "the source has nothing left, but %llu pages are missing",
			       (unsigned long long)postcopy_left());
	recovery_possible(false);
	postcopy_end();
	channel_put(in->c, WIRE_COMPLETE, 0, NULL, 0, &ignored);
	return 0;
}

/* The source says whether it could connect the channels that it had announced; we, whether they came here. */
static int on_channels(struct incoming *in, const uint8_t *payload, size_t len, struct err *e)
{
	unsigned agreed;
	uint8_t answer;
	int r;

	if (len != 1 || !(session.features & WIRE_F_FEWER))
		return err_set(e, EBADMSG, "the stream is damaged: channels that nobody spoke of");
	r = pages_settle(payload[0], &agreed, e);
	answer = (uint8_t)agreed;
	return r ? r : channel_put(in->c, WIRE_CHANNELS, 0, &answer, 1, e);
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
	case WIRE_WINDOWS:
		r = in->loaded ? err_set(e, EBADMSG, "the stream is damaged: memory windows after the state")
			       : windows_expect(payload, rec.length, e);
		break;
	case WIRE_CHANNELS:
		r = on_channels(in, payload, rec.length, e);
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
		r = in->loaded ? err_set(e, EBADMSG, "the stream is damaged: two switches")
			       : on_switch(in, (char *)payload, e);
		break;
	case WIRE_GO:
		r = on_go(in, e);
		*over = !r && !postcopy_on();
		if (*over || r)
			break;
		session_status(MIGRATION_POSTCOPY_ACTIVE);
		if (in->ended) {
			r = on_end(in, e);
			*over = !r;
		}
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

static void arrived(void *opaque)
{
	(void)opaque;
	destination_over();
	session.running = false;
	destination_stop_listening();
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
	destination_over();
	destination_stop_listening();
	failed(opaque);
}

void destination_failed_exit(void *opaque)
{
	failed(opaque);
	machine_request_exit(session.board, 1);
}

/* What the main thread does once nothing of the session is in use any more: it may start another one at once. */
struct outcome {
	void (*tell)(void *opaque);
	void *opaque;
};

static struct outcome fail(struct incoming *in, struct err *e)
{
	bool paused = in->gone || (in->ready && !postcopy_on());

	if (!in->ready)
		pages_reason(e);
	if (in->gone) {
		/* GO came, and the guest could not be started: it is complete, and nobody else has it. */
		err_prefix(e, "the guest was handed over but cannot run; it is paused here, continue it (cont)");
		destination_say_no(in->c, WIRE_ABORT, e->msg);
	} else if (in->ready && !postcopy_on()) {
		main_call(switchover_arrived_paused, NULL, NULL);
		err_prefix(e, "the connection was lost before 'go': the guest is complete but stays paused here; "
			      "continue it (cont) only if "
			      "it does not run at the source");
	} else {
		destination_say_no(in->c, WIRE_ABORT, e->msg);
		err_prefix(e, "incoming migration failed");
	}
	log_error("migration", "%s", e->msg);
	return (struct outcome){paused ? failed_paused : destination_failed_exit, xmemdup(e, sizeof(*e))};
}

static struct outcome receive(struct channel *c, const struct introduction *intro, struct err *e)
{
	struct outcome out = {arrived, NULL};
	struct incoming in = {.c = c, .first = c, .rv = receiver_new(c)};
	bool over = false, torn;
	uint8_t accept[4];
	int r = 0;

	put_le32(accept, session.features);
	pages_expect(intro->channels);
	session_status(MIGRATION_ACTIVE);
	if (!c->one_way)
		r = channel_put(c, WIRE_ACCEPT, 0, accept, sizeof(accept), e);
	ram_recv_reserve(); /* the source does not wait for it, only its pages */
	while (!r && !over) {
		r = handle(&in, &over, e);
		if (r && in.gone && postcopy_on())
			r = recovery_wait(&in, e);
	}
	pages_over();
	torn = in.gone && postcopy_on() && postcopy_left(); /* vmm ends: see migration_guest_torn() */
	if (torn)
		out.tell = NULL;
	else if (r)
		out = fail(&in, e);
	pages_close();
	recovery_possible(false);
	if (!torn)
		postcopy_end();
	ram_recv_end();
	receiver_free(in.rv);
	pthread_mutex_lock(&session.lock); /* migrate-pause looks at it under the lock */
	session.main = NULL;
	pthread_mutex_unlock(&session.lock);
	if (in.c != in.first)
		channel_free(in.c);
	state_buf_free(&in.state);
	return out;
}

static void start_session(struct main_call *c)
{
	if (destination_is_over()) { /* it introduced itself slowly, and another one was here first */
		main_call_done(c, err_set(&c->err, EBUSY, "a guest has arrived here already"));
		return;
	}
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

int destination_serve(struct channel *c, const struct wire_preamble *p, const struct migration_meeting *met,
		      struct err *e)
{
	struct introduction in = {0};
	struct wire_preamble answer = *p;
	struct outcome out = {0};
	bool claimed;
	int r = 0;

	c->one_way = p->flags & WIRE_ONE_WAY;
	answer.features = p->features & (c->one_way ? WIRE_F_ZSTD : destination_features(c));
	if (met) { /* it was answered, and its description read, before there was a machine */
		answer.features = met->features;
		in.description = xmemdup(met->description, met->description_len);
		in.description_len = met->description_len;
	} else if (!c->one_way) {
		r = channel_send_preamble(c, &answer, e);
	}
	if (!r)
		r = read_introduction(c, &in, e);
	c->deadline_ns = 0;
	/* Not before: who dawdles over his introduction keeps nobody out. */
	destination_introduced(c);
	claimed = !r && pages_claim(c, p);
	if (!r && !claimed)
		r = err_set(e, EBUSY, DESTINATION_BUSY);
	if (!r) {
		session.features = answer.features;
		r = main_call(start_session, NULL, e);
	}
	if (!r) {
		r = main_call(check_machine, &in, e);
		if (r)
			main_call(end_session, NULL, NULL);
	}
	if (!r) {
		session_confine();
		out = receive(c, &in, e);
	} else {
		log_warn("migration", "%s: refused: %s", c->peer, e->msg);
		destination_refuse(c, e->msg);
	}
	if (claimed)
		pages_release();
	if (out.tell)
		loop_post(loop_main(), NULL, out.tell, out.opaque);
	free_introduction(&in);
	return r;
}
