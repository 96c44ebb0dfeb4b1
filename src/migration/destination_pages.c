/*
 * The channels of the one session that is coming in: who claims it, which page channels belong to it, and the rounds
 * they have come to. Called by greeters' threads; the claim and the channels are under one lock.
 */
#include "destination.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/bytes.h"
#include "vmm/log.h"

#define SETTLE_MS 2000 /* how long connections that the source has made may take to come here */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned expected, attached, open;
	struct channel *channel[MAX_CHANNELS];
	uint32_t round[MAX_CHANNELS];
	bool claimed, closing, over, quit;
	bool settled; /* no more channels come; if then none are expected, those that came are not used */
	int result;
	struct err err;
} pages = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

/* ---- a page channel ---- */

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

void pages_serve(struct channel *c, const struct wire_preamble *p)
{
	struct err e = ERR_INIT;
	unsigned slot = p->channel - 1u;
	bool mine;
	int r;

	pthread_mutex_lock(&pages.lock);
	mine = pages.claimed && !pages.closing && p->session == session.id && slot < pages.expected &&
	       !pages.channel[slot];
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
	if (r && !pages.over && !(pages.settled && !pages.expected) && !pages.result) {
		pages.result = r;
		pages.err = e;
		channel_stop_reading(session.main); /* its reader learns of it */
	}
	pages.open--;
	pages.channel[slot] = NULL;
	pthread_cond_broadcast(&pages.cond);
	pthread_mutex_unlock(&pages.lock);
	channel_free(c);
}

int pages_wait_round(uint32_t round, struct err *e)
{
	int r = 0;

	pthread_mutex_lock(&pages.lock);
	for (unsigned i = 0; !r && i < pages.expected;) {
		if (pages.result) {
			*e = pages.err;
			r = pages.result;
		} else if (session_cancelled() || pages.quit) {
			r = err_set(e, ECANCELED, "cancelled");
		} else if (pages.round[i] >= round) {
			i++;
		} else {
			session_cond_wait(&pages.cond, &pages.lock, 1000000000);
		}
	}
	pthread_mutex_unlock(&pages.lock);
	return r;
}

/* ---- the session ---- */

void pages_close(void)
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

bool pages_claim(struct channel *c, const struct wire_preamble *p)
{
	bool mine;

	pthread_mutex_lock(&pages.lock);
	mine = !pages.claimed && !pages.quit;
	if (mine) {
		memset(pages.round, 0, sizeof(pages.round));
		pages.expected = pages.attached = 0;
		pages.closing = pages.over = pages.settled = false;
		pages.result = 0;
		pages.claimed = true;
		session.id = p->session;
		session.main = c;
	}
	pthread_mutex_unlock(&pages.lock);
	return mine;
}

bool pages_claimed(void)
{
	bool claimed;

	pthread_mutex_lock(&pages.lock);
	claimed = pages.claimed;
	pthread_mutex_unlock(&pages.lock);
	return claimed;
}

void pages_release(void)
{
	pages_close();
	pthread_mutex_lock(&pages.lock);
	pages.claimed = false;
	session.main = NULL;
	pthread_mutex_unlock(&pages.lock);
}

void pages_expect(unsigned channels)
{
	pthread_mutex_lock(&pages.lock);
	pages.expected = channels;
	pthread_mutex_unlock(&pages.lock);
}

int pages_settle(unsigned connected, unsigned *agreed, struct err *e)
{
	uint64_t until = mono_ns() + SETTLE_MS * 1000000ull;
	int r = 0;

	pthread_mutex_lock(&pages.lock);
	if (pages.settled || (connected && connected != pages.expected))
		r = err_set(e, EBADMSG, "the stream is damaged: a wrong number of channels");
	pages.settled = true;
	while (!r && pages.attached < connected && mono_ns() < until) {
		r = session_cancelled() || pages.quit ? err_set(e, ECANCELED, "cancelled") : 0;
		if (!r)
			session_cond_wait(&pages.cond, &pages.lock, 100000000);
	}
	if (!r && pages.attached < connected)
		log_info("migration", "%u of %u connections for pages came: the main one takes them", pages.attached,
			 connected);
	if (pages.attached < connected)
		connected = 0;
	pages.expected = connected;
	for (unsigned i = 0; !connected && i < MAX_CHANNELS; i++)
		if (pages.channel[i])
			channel_shutdown(pages.channel[i]);
	pthread_mutex_unlock(&pages.lock);
	*agreed = connected;
	return r;
}

void pages_over(void)
{
	pthread_mutex_lock(&pages.lock);
	pages.over = true;
	pthread_mutex_unlock(&pages.lock);
}

bool pages_reason(struct err *e)
{
	bool failed;

	pthread_mutex_lock(&pages.lock);
	failed = pages.result;
	if (failed)
		*e = pages.err;
	pthread_mutex_unlock(&pages.lock);
	return failed;
}

void pages_quit(void)
{
	pthread_mutex_lock(&pages.lock);
	pages.quit = true;
	pthread_cond_broadcast(&pages.cond);
	pthread_mutex_unlock(&pages.lock);
}
