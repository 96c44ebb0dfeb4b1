/*
 * Post-copy, and the connection broke: the guest runs on what it has and waits for the rest. A new connection of the
 * same migration brings it, on the address we listen on anyway or on the one migrate-recover gives.
 *
 * The main thread may itself be one of those that wait for a page (a device's DMA), so the session's thread accepts as
 * well. And the two ends need not agree that the connection is gone: one that comes back with the session's number has
 * given the old one up, so that is ended here, and the newcomer waits until the session's thread has noticed.
 */
#include "destination.h"

#include <errno.h>
#include <time.h>
#include "postcopy_destination.h"
#include "vmm/log.h"

#define LOOK_MS     100   /* between two looks at the listening sockets */
#define NOTICE_MS   5000  /* the session's thread may be so long about the old connection */
#define REATTACH_MS 30000 /* the new connection may stand still so long before it counts as broken as well */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool possible; /* the session is a post-copy that runs here */
	bool wanted;   /* its thread waits for next */
	bool quit;
	struct channel *next;
} recovery = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

void recovery_possible(bool yes)
{
	pthread_mutex_lock(&recovery.lock);
	recovery.possible = yes;
	pthread_cond_broadcast(&recovery.cond);
	pthread_mutex_unlock(&recovery.lock);
}

void recovery_quit(void)
{
	pthread_mutex_lock(&recovery.lock);
	recovery.quit = true;
	pthread_cond_broadcast(&recovery.cond);
	pthread_mutex_unlock(&recovery.lock);
}

/* ---- the session's thread ---- */

static struct channel *next_channel(void)
{
	struct channel *c;

	pthread_mutex_lock(&recovery.lock);
	while (!recovery.next && !recovery.quit) {
		pthread_mutex_unlock(&recovery.lock);
		destination_poll(LOOK_MS);
		pthread_mutex_lock(&recovery.lock);
	}
	recovery.wanted = false;
	c = recovery.next;
	recovery.next = NULL;
	pthread_mutex_unlock(&recovery.lock);
	return c;
}

static int go_on_with(struct incoming *in, struct channel *c, struct err *e)
{
	int r;

	pthread_mutex_lock(&session.lock);
	session.main = c;
	pthread_mutex_unlock(&session.lock);
	if (in->c != in->first)
		channel_free(in->c);
	in->c = c;
	c->deadline_ns = 0;
	c->stall_ms = REATTACH_MS;
	receiver_free(in->rv);
	in->rv = receiver_new(c);
	r = postcopy_reattach(c, e);
	c->stall_ms = 0;
	return r;
}

int recovery_wait(struct incoming *in, struct err *e)
{
	struct channel *c;
	int r;

	do {
		log_error("migration",
			  "post-copy: %s; %llu pages are missing: the guest waits where it needs one (migrate-recover)",
			  e->msg, (unsigned long long)postcopy_left());
		channel_shutdown(in->c); /* first: the fault thread may be writing to it with what detach has to take */
		postcopy_detach();
		pthread_mutex_lock(&session.lock);
		session.err = *e;
		pthread_mutex_unlock(&session.lock);
		pthread_mutex_lock(&recovery.lock); /* before the status says so: an operator acts on it at once */
		recovery.wanted = true;
		pthread_cond_broadcast(&recovery.cond);
		pthread_mutex_unlock(&recovery.lock);
		session_status(MIGRATION_POSTCOPY_PAUSED);
		c = next_channel();
		if (!c)
			return err_set(e, ECANCELED, "vmm ends");
		session_status(MIGRATION_POSTCOPY_RECOVER);
		*e = ERR_INIT;
		r = go_on_with(in, c, e);
	} while (r);
	session_status(MIGRATION_POSTCOPY_ACTIVE);
	return 0;
}

/* ---- a greeter's thread ---- */

/* recovery.lock is held. True: the session's thread waits for a connection. */
static bool wait_until_wanted(void)
{
	struct timespec until;

	if (recovery.wanted)
		return true;
	pthread_mutex_lock(&session.lock);
	if (session.main)
		channel_shutdown(session.main);
	pthread_mutex_unlock(&session.lock);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += NOTICE_MS / 1000;
	while (recovery.possible && !recovery.wanted && !recovery.quit)
		if (pthread_cond_timedwait(&recovery.cond, &recovery.lock, &until))
			break;
	return recovery.wanted && !recovery.quit;
}

bool recovery_offer(struct channel *c, const struct wire_preamble *p, struct err *e)
{
	bool wanted;

	if (channel_send_preamble(c, p, e))
		return false;
	pthread_mutex_lock(&recovery.lock);
	wanted = recovery.possible && p->session == session.id && !recovery.next && wait_until_wanted() &&
		 !recovery.next;
	if (wanted)
		recovery.next = c;
	pthread_cond_broadcast(&recovery.cond);
	pthread_mutex_unlock(&recovery.lock);
	if (!wanted)
		err_set(e, EINVAL, "no post-copy of this guest waits to be recovered here");
	return wanted;
}
