/*
 * Post-copy at the source: the guest runs at the destination already, and we have its memory. What it touches is asked
 * for and goes first; the rest follows in the background. A connection that breaks is no end: the source waits, paused,
 * for a new one
 * ("migrate" with resume), learns which pages are missing, and goes on.
 */
#include "source.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "vmm/bytes.h"
#include "vmm/log.h"

#define PUSH_PAGES 64          /* in one go, between two looks for requests */
#define UNSENT_LOW (128 << 10) /* keep the socket's queue short: a page that is asked for waits behind it */
#define HAVE_STALL 30000

static struct {
	uint64_t requests;
	struct channel *next;   /* session.lock: a new connection, to be tried */
	struct address address; /* where a recovery goes; the connecting thread's */
	int fd;
	bool connecting; /* session.lock */
	bool end_said;   /* END was sent on this connection: nothing waits here */
} post;

/* ---- requests ---- */

static int serve_request(struct source *s, const uint8_t *payload, size_t len, struct err *e)
{
	unsigned block;
	uint64_t first;
	uint32_t count;

	if (len != 14)
		return err_set(e, EBADMSG, "the destination's request has %zu bytes", len);
	block = get_le16(payload);
	first = get_le64(payload + 2);
	count = get_le32(payload + 10);
	if (block >= session.n_blocks || !count || count > WIRE_BATCH_PAGES || first >= session.block[block].pages ||
	    count > session.block[block].pages - first)
		return err_set(e, EBADMSG, "the destination asks for pages that are not there");
	ram_send_unmark(block, first, count);
	pthread_mutex_lock(&session.lock);
	session.info.postcopy_requests = ++post.requests;
	pthread_mutex_unlock(&session.lock);
	return ram_send_pages(s->main, block, first, count, e);
}

bool source_postcopy_request(struct source *s, uint16_t type, const uint8_t *payload, size_t len, int *result,
			     struct err *e)
{
	if (type != WIRE_REQUEST || !s->postcopied)
		return false;
	*result = serve_request(s, payload, len, e);
	return true;
}

/* ---- what the destination has to wait for ---- */

int source_postcopy_missing(struct source *s, struct err *e)
{
	int r = 0;

	post.requests = 0;
	post.end_said = false;
	for (unsigned i = 0; !r && i < session.n_blocks; i++) {
		struct wire_runs w = {0};
		uint8_t *payload;

		if (!session.block[i].v.main)
			continue;
		wire_runs_add_bitmap(&w, session.block[i].bitmap, session.block[i].pages);
		payload = xzalloc(w.len + 2);
		put_le16(payload, (uint16_t)i);
		if (w.len)
			memcpy(payload + 2, w.data, w.len);
		r = channel_put(s->main, WIRE_BITMAP, 0, payload, (uint32_t)w.len + 2, e);
		free(payload);
		free(w.data);
	}
	return r;
}

/* ---- recovery ---- */

/* The rest of the answer to our preamble: which pages are missing there. */
static int read_missing(struct source *s, struct err *e)
{
	struct wire_record rec;
	struct wire_run_reader rd;
	uint8_t raw[WIRE_HEADER], *payload;
	uint64_t first, count;
	unsigned block = 0;
	int r;

	for (;;) {
		r = channel_get_header(s->main, &rec, raw, e);
		if (!r)
			r = channel_get_payload(s->main, &rec, raw, WIRE_MAX_PAYLOAD, &payload, e);
		if (r)
			return r;
		if (rec.type == WIRE_REFUSE || rec.type == WIRE_ABORT)
			r = err_set(e, EREMOTEIO, "the destination refuses: %.900s", (char *)payload);
		else if (rec.type == WIRE_BEGIN)
			break;
		else if (rec.type != WIRE_HAVE || rec.length < 2 || (block = get_le16(payload)) >= session.n_blocks)
			r = err_set(e, EBADMSG, "the destination's list of missing pages cannot be read");
		if (!r) {
			rd = (struct wire_run_reader){
				.p = payload + 2, .end = payload + rec.length, .limit = session.block[block].pages};
			while ((r = wire_runs_next(&rd, &first, &count, e)) > 0)
				ram_send_mark(block, first, count);
		}
		free(payload);
		if (r)
			return r;
	}
	free(payload);
	return 0;
}

static int resume_on(struct source *s, struct channel *c, struct err *e)
{
	struct wire_preamble p = {
		.kind = WIRE_MAIN, .flags = WIRE_RESUME, .session = session.id, .features = session.features};
	int r;

	c->stall_ms = HAVE_STALL;
	pthread_mutex_lock(&session.lock);
	s->main = session.main = c;
	pthread_mutex_unlock(&session.lock);
	ram_send_use(c);
	r = channel_send_preamble(c, &p, e);
	if (!r)
		r = channel_recv_preamble(c, &p, e);
	if (!r && p.session != session.id)
		r = err_set(e, EBADMSG, "%s waits for another guest", c->peer);
	if (!r) {
		ram_send_rewind();
		r = read_missing(s, e);
		ram_send_recount();
	}
	c->stall_ms = 0;
	return r;
}

static const char *what_next(void)
{
	bool unconfirmed;

	pthread_mutex_lock(&session.lock);
	unconfirmed = session.unconfirmed;
	pthread_mutex_unlock(&session.lock);
	if (unconfirmed)
		return "the guest may run at the destination: if that says postcopy-paused, give migrate with resume a "
		       "way to it; if it has "
		       "ended, migrate_cancel leaves the guest paused here";
	if (post.end_said)
		return "every page was sent: if the destination says completed, the guest is there as a whole and this "
		       "vmm can be ended; "
		       "else give migrate with resume a way to it";
	return "the guest waits at the destination for pages that are here: give migrate with resume a way to it";
}

/* The connection is gone: wait until the operator gives us another. -ECANCELED: vmm ends. */
static int recover(struct source *s, struct err *why)
{
	struct channel *next;
	bool end;
	int r;

	do {
		log_error("migration", "post-copy: %s; %s", why->msg, what_next());
		pthread_mutex_lock(&session.lock);
		session.err = *why;
		pthread_mutex_unlock(&session.lock);
		source_drop_main(s);
		session_status(MIGRATION_POSTCOPY_PAUSED);
		pthread_mutex_lock(&session.lock);
		while ((!post.next || post.connecting) && !session.cancel_asked)
			pthread_cond_wait(&session.cond, &session.lock);
		while (post.connecting)
			pthread_cond_wait(&session.cond, &session.lock);
		end = session.cancel_asked;
		next = post.next;
		post.next = NULL;
		pthread_mutex_unlock(&session.lock);
		if (end) {
			channel_free(next);
			return err_set(why, ECANCELED, "vmm ends");
		}
		*why = ERR_INIT;
		r = resume_on(s, next, why);
	} while (r);
	pthread_mutex_lock(&session.lock);
	session.unconfirmed = false;
	pthread_mutex_unlock(&session.lock);
	session_status(MIGRATION_POSTCOPY_ACTIVE);
	return 0;
}

/* A thread of its own: the session's may not open sockets any more. */
static void *connect_thread(void *arg)
{
	struct err e = ERR_INIT;
	struct channel *c = source_connect(&post.address, post.fd, HANDSHAKE_MS, &e);

	(void)arg;
	if (!c) {
		log_error("migration", "post-copy: %s", e.msg);
		session_status(MIGRATION_POSTCOPY_PAUSED); /* the next try waits for the end of this one, see
							      source_resume() */
	}
	pthread_mutex_lock(&session.lock);
	if (!c)
		session.err = e;
	post.next = c;
	post.connecting = false;
	pthread_cond_broadcast(&session.cond);
	pthread_mutex_unlock(&session.lock);
	return NULL;
}

int source_resume(const struct address *a, int fd, struct err *e)
{
	pthread_t t;
	int r;

	pthread_mutex_lock(&session.lock);
	while (post.connecting) /* one that failed and said so has only to end */
		pthread_cond_wait(&session.cond, &session.lock);
	post.address = *a;
	post.fd = fd;
	post.connecting = true;
	pthread_mutex_unlock(&session.lock);
	session_status(MIGRATION_POSTCOPY_RECOVER);
	r = session_thread(&t, "migrate/connect", connect_thread, NULL, e);
	if (!r) {
		pthread_detach(t);
		return 0;
	}
	session_status(MIGRATION_POSTCOPY_PAUSED);
	pthread_mutex_lock(&session.lock);
	post.connecting = false;
	pthread_mutex_unlock(&session.lock);
	return r;
}

/* ---- the push ---- */

static void keep_queue_short(struct channel *c)
{
	int low = UNSENT_LOW;

	setsockopt(c->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &low, sizeof(low));
}

/* Everything the bitmaps hold, requests first; until the destination says that it has all. */
static int push(struct source *s, struct err *e)
{
	post.end_said = false;
	keep_queue_short(s->main);
	for (;;) {
		struct wire_record rec;
		uint8_t raw[WIRE_HEADER], *payload;
		int r = channel_wait(s->main, post.end_said ? -1 : 0, e);

		if (r < 0)
			return r;
		if (r == 0) {
			r = ram_send_some(PUSH_PAGES, e);
			if (r == 0) {
				r = channel_put(s->main, WIRE_END, 0, NULL, 0, e);
				post.end_said = true;
			}
			if (r < 0)
				return r;
			continue;
		}
		r = channel_get_header(s->main, &rec, raw, e);
		if (!r)
			r = channel_get_payload(s->main, &rec, raw, 4096, &payload, e);
		if (r)
			return r;
		if (rec.type == WIRE_REQUEST) /* what is asked for after the end went out before it: the two crossed */
			r = post.end_said ? 0 : serve_request(s, payload, rec.length, e);
		else if (rec.type != WIRE_COMPLETE)
			r = err_set(e, EBADMSG, "the destination answered '%s' during post-copy",
				    wire_type_name(rec.type));
		free(payload);
		if (r || rec.type == WIRE_COMPLETE)
			return r;
	}
}

int source_postcopy(struct source *s, bool broken, struct err *e)
{
	int r = 0;

	pthread_mutex_lock(&session.lock);
	session.unconfirmed = broken;
	__atomic_store_n(&session.limit.bytes_per_s, session.params.max_postcopy_bandwidth, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&session.lock);
	if (!broken) {
		session_status(MIGRATION_POSTCOPY_ACTIVE);
		s->main->stall_ms = 0;
		ram_send_rewind();
	}
	while (broken || (r = push(s, e)) != 0) {
		broken = false;
		if (session_cancelled())
			break;
		r = recover(s, e);
		if (r)
			break;
	}
	__atomic_store_n(&session.limit.bytes_per_s, session.params.max_bandwidth, __ATOMIC_RELAXED);
	return r;
}
