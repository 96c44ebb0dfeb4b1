/*
 * -incoming without a machine on the command line: wait for a guest, read its description, and let main build the
 * machine from it; then the migration goes on where it stopped. Everything happens on the main thread before the
 * machine, the control sockets and the sandbox exist. Each peer has HANDSHAKE_MS to introduce itself; all of them are
 * listened to at once (caller.c), so one that dribbles keeps nobody out. A termination signal ends the wait: its
 * descriptor is the channels' cancel descriptor here.
 */
#include "save.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "caller.h"
#include "destination.h"
#include "vmm/log.h"

#define MAX_CALLERS 16
#define MAX_WAITING (64u << 20) /* bytes of descriptions that are not whole, of all callers */

struct waiting_room {
	struct migration_meeting *meeting;
	int signal_fd;
	struct caller caller[MAX_CALLERS];
	unsigned n;
};

static void remove_caller(struct waiting_room *w, unsigned i)
{
	caller_end(&w->caller[i]);
	w->caller[i] = w->caller[--w->n];
}

/* Whoever has had the most time makes room; who is to leave anyway has had enough. */
static void make_room(struct waiting_room *w)
{
	unsigned oldest = 0;

	for (unsigned i = 1; i < w->n; i++) {
		bool leaving = w->caller[i].stage == CALLER_LEAVING, other = w->caller[oldest].stage == CALLER_LEAVING;

		if (leaving != other ? leaving : w->caller[i].until < w->caller[oldest].until)
			oldest = i;
	}
	if (w->caller[oldest].stage != CALLER_LEAVING)
		caller_refuse(&w->caller[oldest], "others came while it dawdled over its introduction");
	remove_caller(w, oldest);
}

/* Takes fd, just accepted. */
static void admit(struct waiting_room *w, int fd)
{
	char peer[320];

	if (!address_allowed(fd, peer, sizeof(peer))) {
		log_warn("migration", "%s: refused: -migration-allow does not list it", peer);
		close(fd);
		return;
	}
	address_tune(fd);
	address_warn_plain(fd);
	if (w->n == MAX_CALLERS)
		make_room(w);
	caller_begin(&w->caller[w->n++], channel_new(fd, w->signal_fd, peer), mono_ns() + HANDSHAKE_MS * 1000000ull);
}

/* Who is late goes; and who needs most memory, if it is too much together. */
static void tidy(struct waiting_room *w)
{
	uint64_t now = mono_ns();
	size_t sum = 0;
	unsigned largest = 0;

	for (unsigned i = 0; i < w->n;) {
		struct caller *c = &w->caller[i];

		if (now >= c->until && c->stage == CALLER_LEAVING) {
			remove_caller(w, i);
			continue;
		}
		if (now >= c->until)
			caller_refuse(c, "it took too long to introduce itself");
		i++;
	}
	for (unsigned i = 0; i < w->n; i++) {
		sum += w->caller[i].room;
		if (w->caller[i].room > w->caller[largest].room)
			largest = i;
	}
	if (sum > MAX_WAITING)
		caller_refuse(&w->caller[largest], "its description is too large while others wait");
}

/* 1: this caller brings a guest. */
static int listen_to(struct caller *c, struct err *e)
{
	int r;

	if (c->stage == CALLER_LEAVING) {
		if (caller_gone(c))
			c->until = 0;
		return 0;
	}
	*e = ERR_INIT;
	r = caller_advance(c, e);
	if (r < 0)
		caller_refuse(c, e->msg);
	return r;
}

static void take(struct migration_meeting *m, struct caller *c)
{
	m->channel = c->channel;
	m->preamble = c->preamble;
	m->features = c->features;
	m->description = c->description;
	m->description_len = c->rec.length;
	*c = (struct caller){0};
}

/* One turn: 1: somebody introduced himself, 0: wait on, or an error (-EINTR: a signal; without listeners: the only one
   was no guest). */
static int look_around(struct waiting_room *w, struct err *e)
{
	struct migration_meeting *m = w->meeting;
	struct pollfd p[MEET_LISTEN + MAX_CALLERS + 1] = {{.fd = w->signal_fd, .events = POLLIN}};
	struct pollfd *of_callers = p + 1 + m->n_listen;
	unsigned n = w->n; /* those in p */
	uint64_t now = mono_ns(), until = UINT64_MAX;
	int timeout;

	for (unsigned i = 0; i < m->n_listen; i++)
		p[i + 1] = (struct pollfd){.fd = m->listen_fd[i], .events = POLLIN};
	for (unsigned i = 0; i < n; i++) {
		of_callers[i] = (struct pollfd){.fd = w->caller[i].channel->fd, .events = POLLIN};
		until = MIN(until, w->caller[i].until);
	}
	timeout = until == UINT64_MAX ? -1 : until > now ? (int)((until - now) / 1000000) + 1 : 0;
	if (poll(p, 1 + m->n_listen + n, timeout) < 0)
		return errno == EINTR ? 0 : err_errno(e, errno, "poll");
	if (p[0].revents)
		return err_set(e, EINTR, "ended by a signal while it waited for a guest");
	for (unsigned i = 0; i < n; i++) {
		int r = of_callers[i].revents ? listen_to(&w->caller[i], e) : 0;

		if (r > 0) {
			take(m, &w->caller[i]);
			w->caller[i] = w->caller[--w->n];
			return 1;
		}
		if (r < 0 && !m->n_listen)
			return r;
	}
	tidy(w);
	for (unsigned i = 0; i < m->n_listen; i++) {
		int fd = p[i + 1].revents ? accept4(m->listen_fd[i], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK) : -1;

		if (fd >= 0)
			admit(w, fd);
	}
	return 0;
}

/* The first who introduces himself as a guest; only: >= 0: that is he, and nobody else will come. */
static int wait_for_peer(struct migration_meeting *m, int only, const char *name, int signal_fd, struct err *e)
{
	struct waiting_room w = {.meeting = m, .signal_fd = signal_fd};
	int r = 0;

	if (only >= 0) {
		struct channel *c = channel_new(only, signal_fd, name);

		c->only = true;
		caller_begin(&w.caller[w.n++], c, UINT64_MAX);
	}
	while (!r)
		r = look_around(&w, e);
	for (unsigned i = 0; i < w.n; i++) {
		if (w.caller[i].stage != CALLER_LEAVING)
			caller_refuse(&w.caller[i], r < 0 ? e->msg : DESTINATION_BUSY);
		if (only >= 0)
			caller_linger(&w.caller[i]);
		caller_end(&w.caller[i]);
	}
	return r < 0 ? r : 0;
}

int migration_meet(const char *uri, const char *allow, int signal_fd, void (*listening)(void),
		   struct migration_meeting **out, const void **fdt, size_t *len, struct err *e)
{
	struct migration_meeting *m = *out = xzalloc(sizeof(*m));
	int r = allow ? migration_allow(allow, e) : 0, fd;

	if (!r)
		r = address_parse(uri, &m->address, e);
	if (r)
		return r;
	switch (m->address.kind) {
	case ADDRESS_TCP:
	case ADDRESS_UNIX:
		r = address_listen(&m->address, m->listen_fd, MEET_LISTEN, m->bound, sizeof(m->bound), e);
		if (r < 0)
			return r;
		m->n_listen = (unsigned)r;
		listening();
		r = wait_for_peer(m, -1, NULL, signal_fd, e);
		break;
	case ADDRESS_FD:
	case ADDRESS_EXEC:
		m->only = true;
		fd = address_take_fd(&m->address, true, e);
		r = fd < 0 ? fd : wait_for_peer(m, fd, uri, signal_fd, e);
		break;
	case ADDRESS_FILE:
		r = restore_open(m->address.path, &fd, e);
		m->only = true;
		if (r > 0)
			r = wait_for_peer(m, fd, uri, signal_fd, e);
		else if (!r)
			restore_description(fdt, len);
	}
	if (m->description) {
		*fdt = m->description;
		*len = m->description_len;
	}
	return r;
}

void migration_meeting_end(struct migration_meeting *m, const char *why)
{
	if (!m)
		return;
	if (m->channel) {
		if (why)
			destination_refuse(m->channel, why);
		channel_free(m->channel);
	}
	for (unsigned i = 0; i < m->n_listen; i++)
		close(m->listen_fd[i]);
	if (m->n_listen && m->address.kind == ADDRESS_UNIX)
		unlink(m->address.path);
	free(m->description);
	free(m);
}

int migration_meeting_resume(struct migration_meeting *m, struct err *e)
{
	return destination_resume(m, e);
}
