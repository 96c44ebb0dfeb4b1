/*
 * The source of a migration: docs/migration.md has its state machine. Runs on the session's thread.
 *
 *   SETUP     connect, introduce, describe; the destination says ACCEPT or REFUSE
 *   ACTIVE    rounds: send what is dirty, wait until it has arrived, look at what was written meanwhile, decide
 *   (PRE_SWITCHOVER: the guest stands still and waits for migrate-continue)
 *   DEVICE    last pages, device state, SWITCH; the destination loads and says READY
 *   GO        from here on only the destination may run; it says RUNNING
 *
 * Until GO any failure takes the guest back. After GO without RUNNING nobody knows: the guest stays paused here and
 * says so.
 */
#include "source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "compress.h"
#include "handover.h"
#include "vmm/bytes.h"
#include "vmm/log.h"

#define REASON_MS       300   /* after a failed send: how long to wait for the destination's reason */
#define RUNNING_MS      10000 /* after GO: how long RUNNING may take */
#define STATE_PART      (16u << 20)
#define OWN_CHANNELS_MS 2500       /* for each to connect, with a second try after the first second */
#define OWN_CHANNELS    2          /* without multifd: two threads at each end hash and copy */
#define FLUSHED_NS      5000000ull /* a flush that was over so soon is over as soon when the guest stands */
#define MAX_FLUSHES     3

/* ---- answers ---- */

/* The connection failed while sending: the destination may have said why. */
static void find_reason(struct source *s, struct err *e)
{
	struct wire_record rec;
	uint8_t raw[WIRE_HEADER], *text;
	struct err ignored = ERR_INIT;

	if (s->main->one_way || e->code == ECANCELED || session_cancelled())
		return;
	s->main->stall_ms = REASON_MS;
	for (int i = 0; i < 8; i++) {
		if (channel_wait(s->main, REASON_MS, &ignored) <= 0 ||
		    channel_get_header(s->main, &rec, raw, &ignored) ||
		    channel_get_payload(s->main, &rec, raw, 4096, &text, &ignored))
			return;
		if (rec.type == WIRE_ABORT || rec.type == WIRE_REFUSE)
			err_set(e, EREMOTEIO, "the destination gave up: %.900s", (char *)text);
		free(text);
		if (rec.type == WIRE_ABORT || rec.type == WIRE_REFUSE)
			return;
	}
}

/* Wait for one kind of answer; text refusals become errors. The payload is copied to out if given. */
static int expect(struct source *s, enum wire_type type, void *out, size_t len, struct err *e)
{
	for (;;) {
		struct wire_record rec;
		uint8_t raw[WIRE_HEADER], *payload;
		int r = channel_get_header(s->main, &rec, raw, e);

		if (!r)
			r = channel_get_payload(s->main, &rec, raw, 65536, &payload, e);
		if (r)
			return r;
		if (source_postcopy_request(s, rec.type, payload, rec.length, &r, e)) {
			free(payload);
			if (r)
				return r;
			continue;
		}
		if (rec.type == WIRE_REFUSE)
			r = err_set(e, EREMOTEIO, "the destination refuses: %.900s", (char *)payload);
		else if (rec.type == WIRE_ABORT)
			r = err_set(e, EREMOTEIO, "the destination gave up: %.900s", (char *)payload);
		else if (rec.type == type && rec.length != len)
			r = err_set(e, EBADMSG, "the destination's answer '%s' has %u bytes instead of %zu",
				    wire_type_name(rec.type), rec.length, len);
		else if (rec.type == type && len)
			memcpy(out, payload, len);
		else if (rec.type != type && rec.type != WIRE_ROUND_DONE)
			r = err_set(e, EBADMSG, "the destination answered '%s' instead of '%s'",
				    wire_type_name(rec.type), wire_type_name((uint16_t)type));
		free(payload);
		if (r || rec.type == type)
			return r;
	}
}

/* ---- setting up ---- */

/* A live upgrade: the parameter cannot change on the way, see migration_start(). */
static bool same_host(void)
{
	return session.handover;
}

/* Without multifd pages go over two more connections where that costs nobody anything. A relay that takes one only is
 * no error: then they go over the main channel. */
static bool takes_more_channels(const struct address *a)
{
	return (a->kind == ADDRESS_TCP || a->kind == ADDRESS_UNIX) && !cap_is_on(session.caps, CAP_POSTCOPY_RAM) &&
	       sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

static unsigned n_channels(void)
{
	if (!(session.features & WIRE_F_CHANNELS))
		return 0;
	if (cap_is_on(session.caps, CAP_MULTIFD))
		return session.params.multifd_channels;
	return session.features & WIRE_F_FEWER ? OWN_CHANNELS : 0;
}

static uint32_t wanted_features(const struct address *a)
{
	uint32_t f = 0;

	if (same_host())
		return WIRE_F_MEMORY | WIRE_F_WINDOWS;
	f |= WIRE_F_WINDOWS;
	if (cap_is_on(session.caps, CAP_MULTIFD)) {
		f |= WIRE_F_CHANNELS;
		if (session.params.multifd_compression == COMPRESSION_ZSTD && compress_available())
			f |= WIRE_F_ZSTD;
	} else if (takes_more_channels(a)) {
		f |= WIRE_F_CHANNELS | WIRE_F_FEWER;
	}
	if (cap_is_on(session.caps, CAP_POSTCOPY_RAM))
		f |= WIRE_F_POSTCOPY;
	return f;
}

static int introduce(struct source *s, struct err *e)
{
	struct wire_preamble p = {.kind = WIRE_MAIN,
				  .flags = s->main->one_way ? WIRE_ONE_WAY : 0,
				  .session = session.id,
				  .features = wanted_features(&s->start->address)};
	uint32_t wanted = p.features;
	int r = channel_send_preamble(s->main, &p, e);

	session.features = p.features & WIRE_F_ZSTD;
	if (r || s->main->one_way)
		return r;
	s->main->deadline_ns = mono_ns() + HANDSHAKE_MS * 1000000ull;
	r = channel_recv_preamble(s->main, &p, e);
	if (r)
		return r;
	if (p.session != session.id)
		return err_set(e, EBADMSG, "%s: the answer is for another migration", s->main->peer);
	session.features = p.features & wanted;
	if (same_host() && !(session.features & WIRE_F_MEMORY))
		return err_set(
			e, ENOTSUP,
			"%s cannot take memory over (mode=cpr-transfer needs a vmm of this version behind unix:PATH)",
			s->main->peer);
	return 0;
}

static int describe(struct source *s, struct err *e)
{
	struct source_start *st = s->start;
	uint8_t raw[4] = {0}, answer[4];
	uint8_t *layout = NULL;
	size_t len;
	int r = channel_put(s->main, WIRE_DESCRIPTION, 0, st->description, (uint32_t)st->description_len, e);

	raw[0] = (uint8_t)n_channels();
	if (!r)
		r = describe_layout(&layout, &len, e);
	if (!r)
		r = channel_put(s->main, WIRE_LAYOUT, 0, layout, (uint32_t)len, e);
	free(layout);
	if (!r)
		r = channel_put(s->main, WIRE_DRIVES, 0, st->drives, (uint32_t)st->drives_len, e);
	if (!r)
		r = channel_put(s->main, WIRE_BEGIN, 0, raw, sizeof(raw), e);
	if (r || s->main->one_way)
		return r;
	r = expect(s, WIRE_ACCEPT, answer, sizeof(answer), e);
	s->main->deadline_ns = 0;
	return r;
}

struct channel *source_connect(const struct address *a, int fd, int timeout_ms, struct err *e)
{
	struct channel *c;
	char peer[320];

	if (fd < 0)
		fd = address_connect(a, timeout_ms, session.cancel_fd, e);
	if (fd < 0)
		return NULL;
	address_tune(fd);
	if (a->kind == ADDRESS_UNIX)
		snprintf(peer, sizeof(peer), "unix:%.300s", a->path);
	else if (a->kind == ADDRESS_TCP)
		address_peer(fd, peer, sizeof(peer));
	else
		snprintf(peer, sizeof(peer), "%s:%.300s", a->kind == ADDRESS_FD ? "fd" : "exec", a->path);
	c = channel_new(fd, session.cancel_fd, peer);
	c->one_way = !c->socket;
	c->by_reference = address_is_remote(fd) && !tls_wanted();
	c->limit = &session.limit;
	if (tls_wanted()) {
		int r = c->socket ? tls_client(c, a->kind == ADDRESS_TCP ? a->host : "", e)
				  : err_set(e, ENOTSUP, "%s: TLS needs a socket", peer);

		if (r) {
			channel_free(c);
			return NULL;
		}
	} else {
		address_warn_plain(fd);
	}
	return c;
}

static int open_channels(struct source *s, unsigned n, int timeout_ms, struct err *e)
{
	int r = 0;

	while (!r && s->n_extra < n) {
		s->extra[s->n_extra] = source_connect(&s->start->address, -1, timeout_ms, e);
		if (!s->extra[s->n_extra])
			return -e->code;
		s->n_extra++;
	}
	for (unsigned i = 0; !r && i < s->n_extra; i++) {
		struct wire_preamble p = {.kind = WIRE_PAGES,
					  .channel = (uint16_t)(i + 1),
					  .session = session.id,
					  .features = session.features};

		r = channel_send_preamble(s->extra[i], &p, e);
	}
	return r;
}

/* Nobody asked for the channels, so the migration goes on without them where they cannot be had. A connection that is
 * made may end in a relay that serves one only: what counts is what has come to the destination. */
static int open_own_channels(struct source *s, struct err *e)
{
	struct err why = ERR_INIT;
	uint8_t n;
	int r = open_channels(s, n_channels(), OWN_CHANNELS_MS, &why);

	if (r && why.code == ECANCELED) {
		*e = why;
		return r;
	}
	n = r ? 0 : (uint8_t)s->n_extra;
	r = channel_put(s->main, WIRE_CHANNELS, 0, &n, 1, e);
	if (!r)
		r = expect(s, WIRE_CHANNELS, &n, 1, e);
	if (r || n == s->n_extra)
		return r;
	log_info("migration", "pages go over one connection, another cannot be had: %s",
		 *why.msg ? why.msg : "it does not come to the destination");
	while (s->n_extra)
		channel_free(s->extra[--s->n_extra]);
	return 0;
}

static void start_logging(struct main_call *c)
{
	main_call_done(c, machine_dirty_start(session.board, &c->err));
}

static void stop_logging(struct main_call *c)
{
	machine_dirty_stop(session.board);
	main_call_done(c, 0);
}

static int set_up(struct source *s, struct err *e)
{
	int r;

	s->main = source_connect(&s->start->address, s->start->fd, HANDSHAKE_MS, e);
	s->start->fd = -1;
	if (!s->main)
		return -e->code;
	pthread_mutex_lock(&session.lock);
	session.main = s->main;
	pthread_mutex_unlock(&session.lock);
	r = introduce(s, e);
	if (!r)
		r = describe(s, e);
	if (!r)
		r = session.features & WIRE_F_FEWER ? open_own_channels(s, e)
						    : open_channels(s, n_channels(), HANDSHAKE_MS, e);
	if (r)
		return r;
	session_confine();
	if (same_host()) {
		r = handover_send(s->main, e);
		return r ? r : windows_tell(s->main, true, e);
	}
	r = main_call(start_logging, NULL, e);
	s->logging = !r;
	if (!r) {
		r = ram_send_begin(s->extra, s->n_extra, e);
		s->sending = true;
	}
	return r;
}

/* ---- rounds ---- */

static void publish(const struct converge *c, uint64_t pending)
{
	struct ram_send_stats st;
	uint64_t pages;

	ram_send_stats(&st);
	pthread_mutex_lock(&session.lock);
	session.info.dirty_pages_rate = (uint64_t)(c->dirty_bytes_per_s / WIRE_PAGE);
	session.info.mbps = c->line_bytes_per_s * 8 / 1e6;
	session.info.pages_per_second = (uint64_t)(c->bytes_per_s / WIRE_PAGE);
	session.info.expected_downtime_ms = (uint64_t)(converge_expected_ms(c, pending * WIRE_PAGE) + 0.999);
	session.info.throttle_percent = c->throttle;
	session.info.n_throttled = 0;
	for (unsigned i = 0; i < MIGRATION_CPUS && c->throttle; i++)
		if (machine_cpu_dirty(session.board, i, &pages)) {
			session.info.throttle_of[i] = (uint8_t)source_throttle_of(i);
			session.info.n_throttled = i + 1;
		}
	session.info.precopy_bytes = st.bytes;
	pthread_mutex_unlock(&session.lock);
}

static void read_settings(struct source *s)
{
	const struct migration_params *p = &session.params;

	pthread_mutex_lock(&session.lock);
	s->converge.downtime_limit_ms = p->downtime_limit;
	s->converge.auto_converge = cap_is_on(session.caps, CAP_AUTO_CONVERGE);
	s->converge.trigger = p->throttle_trigger;
	s->converge.initial = p->throttle_initial;
	s->converge.increment = p->throttle_increment;
	s->converge.max = p->throttle_max;
	s->converge.tailslow = p->throttle_tailslow;
	s->timeout_s = p->timeout_s;
	s->timeout_force = p->timeout_action == TIMEOUT_FORCE;
	s->postcopy = session.postcopy_asked;
	s->main->stall_ms = 0;
	pthread_mutex_unlock(&session.lock);
}

/* One round, until the destination has it. */
static int one_round(struct source *s, bool stable, struct converge_round *cr, struct err *e)
{
	struct ram_send_stats before, after;
	uint64_t t0 = mono_ns();
	uint8_t answer[8];
	int r;

	if (!stable) {
		r = windows_tell(s->main, s->round == 0, e);
		if (r)
			return r;
	}
	ram_send_stats(&before);
	s->round++;
	session_pass(s->round);
	pthread_mutex_lock(&session.lock);
	session.info.sync_count = s->round;
	pthread_mutex_unlock(&session.lock);
	r = ram_send_round(s->round, stable, e);
	if (r)
		find_reason(s, e);
	else if (!stable && !s->main->one_way)
		r = expect(s, WIRE_ROUND_DONE, answer, sizeof(answer), e);
	ram_send_stats(&after);
	cr->line_bytes = after.bytes - before.bytes;
	cr->sent_bytes = MAX((after.data_pages - before.data_pages) * WIRE_PAGE, cr->line_bytes);
	cr->sent_ns = mono_ns() - t0;
	return r;
}

static int timed_out(struct source *s, bool *force, struct err *e)
{
	if (!s->timeout_s || mono_ns() - session.start_ns < s->timeout_s * 1000000000ull)
		return 0;
	if (s->timeout_force) {
		log_warn("migration", "not finished after %llu s: the guest is stopped now (x-timeout-action=force)",
			 (unsigned long long)s->timeout_s);
		*force = true;
		return 0;
	}
	return err_set(
		e, ETIMEDOUT,
		"not finished after %llu s (x-timeout): the guest writes %.0f MB/s, the connection carries %.0f MB/s",
		(unsigned long long)s->timeout_s, s->converge.dirty_bytes_per_s / 1e6, s->converge.bytes_per_s / 1e6);
}

static void tell_stall(struct source *s)
{
	if (s->stall_told)
		return;
	s->stall_told = true;
	log_warn("migration",
		 "it does not converge: the guest writes %.0f MB/s, the connection carries %.0f MB/s, and %llu ms of "
		 "pause are "
		 "allowed; raise downtime-limit or max-bandwidth, or use auto-converge or postcopy-ram",
		 s->converge.dirty_bytes_per_s / 1e6, s->converge.bytes_per_s / 1e6,
		 (unsigned long long)s->converge.downtime_limit_ms);
}

/*
 * The disks are flushed when the guest stands, which can take long where the host is at work; so most of it is done
 * before. If that took its time another round sends what the guest wrote meanwhile, to memory and, much less, to disks.
 */
static bool disks_ready(struct source *s, bool hurry, int *r, struct err *e)
{
	uint64_t t0 = mono_ns(), took;

	*r = main_call(switchover_flush, s->sw, e);
	took = mono_ns() - t0;
	log_debug("migration", "disks flushed in %.1f ms, before the guest is stopped", (double)took / 1e6);
	return *r || hurry || took < FLUSHED_NS || ++s->flushes >= MAX_FLUSHES;
}

static int rounds(struct source *s, struct err *e)
{
	uint64_t pending = ram_send_sync(true, false);
	bool force = false;
	int r = ram_send_present(e);

	session_status(MIGRATION_ACTIVE);
	while (!r) {
		struct converge_round cr;
		enum converge_verdict v;

		r = one_round(s, false, &cr, e);
		if (r)
			break;
		cr.dirty_ns = ram_send_logged_ns();
		pending = ram_send_sync(false, false);
		cr.pending_bytes = pending * WIRE_PAGE;
		read_settings(s);
		v = converge_decide(&s->converge, &cr);
		log_debug("migration", "round %u: %.1f MB in %.1f ms, %llu pages written meanwhile", s->round,
			  (double)cr.line_bytes / 1e6, (double)cr.sent_ns / 1e6, (unsigned long long)pending);
		if (v == CONVERGE_STALLED)
			tell_stall(s);
		source_throttle(s->converge.throttle);
		publish(&s->converge, pending);
		r = timed_out(s, &force, e);
		if (!r && (v == CONVERGE_SWITCH || force || s->postcopy) && disks_ready(s, force || s->postcopy, &r, e))
			break;
	}
	return r;
}

/* ---- switch-over ---- */

static int wait_for_continue(struct err *e)
{
	bool cancelled;

	session_status(MIGRATION_PRE_SWITCHOVER);
	pthread_mutex_lock(&session.lock);
	while (!session.continue_asked && !session.cancel_asked)
		pthread_cond_wait(&session.cond, &session.lock);
	cancelled = session.cancel_asked;
	pthread_mutex_unlock(&session.lock);
	return cancelled ? err_set(e, ECANCELED, "cancelled") : 0;
}

/* Pages while the main thread saves the devices; then what their DMA still wrote. */
static int send_last_pages(struct source *s, struct err *e)
{
	struct main_call *save = main_call_start(switchover_save, s->sw);
	struct converge_round cr;
	struct err save_err = ERR_INIT;
	uint64_t t0 = mono_ns();
	int r, r2;

	ram_send_sync(false, true);
	if (s->postcopy)
		cr = (struct converge_round){0};
	r = s->postcopy ? 0 : one_round(s, true, &cr, e);
	pthread_mutex_lock(&session.lock);
	session.info.final_pages_us = (mono_ns() - t0) / 1000;
	session.info.downtime_bytes = cr.line_bytes;
	pthread_mutex_unlock(&session.lock);
	r2 = main_call_wait(save, 0, NULL, NULL, &save_err);
	if (r2 && !r) {
		*e = save_err;
		return r2;
	}
	if (!r && ram_send_sync(false, true) && !s->postcopy)
		r = one_round(s, true, &cr, e);
	if (!r && s->postcopy)
		r = ram_send_small_blocks(++s->round, e);
	if (!r && s->postcopy)
		r = source_postcopy_missing(s, e);
	return r;
}

/* The guest stands: what is left of its memory, and its devices into s->sw. */
static int last_pages(struct source *s, struct err *e)
{
	if (same_host())
		return main_call(switchover_save, s->sw, e);
	return send_last_pages(s, e);
}

static int send_state(struct source *s, struct err *e)
{
	const struct state_buf *b = &s->sw->state;
	int r = 0;

	for (size_t at = 0; !r && at < b->len; at += STATE_PART)
		r = channel_put(s->main, WIRE_STATE, 0, b->data + at, (uint32_t)MIN(b->len - at, (size_t)STATE_PART),
				e);
	s->postcopied = s->postcopy;
	if (!r)
		r = channel_put(s->main, WIRE_SWITCH, s->postcopy ? WIRE_SWITCH_POSTCOPY : 0,
				switchover_state_to_send(s->sw), (uint32_t)strlen(switchover_state_to_send(s->sw)), e);
	if (r)
		find_reason(s, e);
	return r;
}

/* The point of no return, unless somebody asked to cancel. */
static int say_go(struct source *s, struct err *e)
{
	bool cancelled;

	pthread_mutex_lock(&session.lock);
	cancelled = session.cancel_asked;
	session.handing_over = !cancelled;
	pthread_mutex_unlock(&session.lock);
	if (cancelled)
		return err_set(e, ECANCELED, "cancelled");
	s->gone = true;
	return channel_put(s->main, WIRE_GO, 0, NULL, 0, e);
}

static void count_downtime(uint64_t load_ns, uint64_t resume_ns)
{
	uint64_t us = (mono_ns() - session.stopped_ns) / 1000;

	pthread_mutex_lock(&session.lock);
	session.info.load_us = load_ns / 1000;
	session.info.resume_us = resume_ns / 1000;
	session.info.downtime_us = us;
	session.info.downtime_ms = (us + 500) / 1000;
	pthread_mutex_unlock(&session.lock);
}

static int hand_over(struct source *s, struct err *e)
{
	uint8_t times[16] = {0};
	int r = 0;

	if (!s->main->one_way) {
		s->main->stall_ms = session.params.switchover_timeout;
		r = expect(s, WIRE_READY, NULL, 0, e);
	}
	if (!r)
		r = say_go(s, e);
	if (!r && !s->main->one_way) {
		s->main->stall_ms = RUNNING_MS;
		r = expect(s, WIRE_RUNNING, times, sizeof(times), e);
	} else if (!r) {
		r = channel_put(s->main, WIRE_END, 0, NULL, 0, e);
	}
	if (!r)
		count_downtime(get_le64(times), get_le64(times + 8));
	return r;
}

static int switch_over(struct source *s, struct err *e)
{
	int r;

	session.stopped_ns = mono_ns();
	r = main_call(switchover_stop, s->sw, e);
	if (!r && cap_is_on(session.caps, CAP_PAUSE_BEFORE_SWITCHOVER))
		r = wait_for_continue(e);
	if (r)
		return r;
	session_status(MIGRATION_DEVICE);
	if (!s->main->one_way)
		s->main->stall_ms = session.params.switchover_timeout;
	for (unsigned i = 0; i < s->n_extra; i++)
		s->extra[i]->stall_ms = session.params.switchover_timeout;
	r = last_pages(s, e);
	pthread_mutex_lock(&session.lock);
	session.info.stop_us = s->sw->stop_us;
	session.info.flush_us = s->sw->flush_us;
	session.info.state_us = s->sw->state_us;
	pthread_mutex_unlock(&session.lock);
	if (!r)
		r = send_state(s, e);
	return r ? r : hand_over(s, e);
}

/* ---- the end ---- */

void source_drop_main(struct source *s)
{
	struct channel *c = s->main;

	if (!c)
		return;
	pthread_mutex_lock(&session.lock);
	s->main = session.main = NULL;
	ram_send_retire(c);
	pthread_mutex_unlock(&session.lock);
	channel_free(c);
}

/* It failed. Before GO the guest is ours again; after it nobody may know. */
static void give_up(struct source *s, struct err *e)
{
	struct err why = *e, back = ERR_INIT;

	if (s->main) {
		struct err ignored = ERR_INIT;

		if (!s->main->one_way && why.code != EPIPE && why.code != ECANCELED) {
			s->main->stall_ms = 100;
			channel_put_text(s->main, WIRE_ABORT, why.msg, &ignored);
		}
		channel_shutdown(s->main);
	}
	for (unsigned i = 0; i < s->n_extra; i++)
		channel_shutdown(s->extra[i]);
	if (s->gone) {
		main_call(switchover_unknown, NULL, &back);
		err_set(e, why.code,
			"%.500s; this happened after the guest was handed over, so it may run at the destination. It "
			"stays paused "
			"here: continue it (cont) only if it does not run there",
			why.msg);
	} else if (main_call(switchover_take_back, s->sw, &back)) {
		err_set(e, why.code, "%.400s; %.500s", why.msg, back.msg);
	}
}

static void finish(struct source *s)
{
	struct ram_send_stats st;

	source_throttle(0);
	if (s->sending) {
		ram_send_stats(&st);
		pthread_mutex_lock(&session.lock);
		session.info.transferred = st.bytes;
		session.info.zero_pages = st.zero_pages;
		session.info.normal_pages = st.data_pages;
		session.info.multifd_bytes = st.channel_bytes;
		if (s->postcopied)
			session.info.postcopy_bytes = st.bytes - MIN(st.bytes, session.info.precopy_bytes);
		pthread_mutex_unlock(&session.lock);
		ram_send_end(); /* frees the extra channels */
	} else {
		for (unsigned i = 0; i < s->n_extra; i++)
			channel_free(s->extra[i]);
	}
	pthread_mutex_lock(&session.lock);
	session.main = NULL;
	session.info.total_time_ms = (mono_ns() - session.start_ns) / 1000000;
	pthread_mutex_unlock(&session.lock);
	channel_free(s->main);
	if (s->logging)
		main_call(stop_logging, NULL, NULL);
	state_buf_free(&s->sw->state);
	if (s->start->fd >= 0)
		close(s->start->fd);
	free(s->start->description);
	free(s->start->drives);
	free(s->start);
	if (!session_closing()) /* else the main thread may still be in the middle of it, for the last time */
		free(s->sw);
	session_free_blocks();
}

void *source_thread(void *arg)
{
	struct source s = {.start = arg, .sw = xzalloc(sizeof(*s.sw))};
	struct err e = ERR_INIT;
	int r;

	s.sw->same_host = same_host();
	r = set_up(&s, &e);

	pthread_mutex_lock(&session.lock);
	session.info.setup_time_ms = (mono_ns() - session.start_ns) / 1000000;
	pthread_mutex_unlock(&session.lock);
	if (!r && same_host())
		session_status(MIGRATION_ACTIVE);
	else if (!r)
		r = rounds(&s, &e);
	source_throttle(0);
	if (!r)
		r = switch_over(&s, &e);
	/* Once GO was said the destination may have begun to run: then the rest of its memory is here and nowhere else.
	 */
	if (s.postcopy && (!r || (s.gone && !session_closing())))
		r = source_postcopy(&s, r, &e);
	if (!r)
		r = main_call(same_host() ? handover_done : switchover_done, NULL, &e);
	else
		give_up(&s, &e);
	finish(&s);
	session_end(r ? MIGRATION_FAILED : MIGRATION_COMPLETED, r ? &e : NULL);
	return NULL;
}
