/*
 * Who comes to the destination. The main thread listens and accepts; each connection gets a thread that lets the peer
 * introduce itself within HANDSHAKE_MS, so that one that dawdles stops nobody. What it turns out to be decides who goes
 * on with it: a migration (destination.c), one of its channels for pages, or the rest of a post-copy
 * (destination_recovery.c).
 */
#include "destination.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "compress.h"
#include "postcopy_destination.h"
#include "save.h"
#include "vmm/log.h"

#define MAX_GREETERS 16
#define MAX_LISTEN   8
#define LINGER_MS    500 /* how long a refused peer may take to read the reason */

struct greeter;

static struct {
	bool waiting;  /* a guest is to come or is coming */
	bool deferred; /* -incoming defer, migrate-incoming not given yet */
	bool over;     /* a guest came */
	struct address address;
	struct watch *watch[MAX_LISTEN];
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int listen_fd[MAX_LISTEN]; /* lock; changed by the main thread only */
	unsigned n_listen;
	unsigned greeters;         /* lock */
	struct greeter *strangers; /* lock; who has not introduced himself yet, newest first */
} waiting = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

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

void destination_over(void)
{
	waiting.waiting = false;
	waiting.over = true;
}

bool destination_is_over(void)
{
	return waiting.over;
}

void destination_stop_listening(void)
{
	pthread_mutex_lock(&waiting.lock);
	for (unsigned i = 0; i < waiting.n_listen; i++) {
		loop_unwatch(waiting.watch[i]);
		close(waiting.listen_fd[i]);
	}
	if (waiting.n_listen && waiting.address.kind == ADDRESS_UNIX)
		unlink(waiting.address.path);
	waiting.n_listen = 0;
	pthread_mutex_unlock(&waiting.lock);
}

/* ---- refusing ---- */

void destination_say_no(struct channel *c, enum wire_type type, const char *why)
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
	while (mono_ns() < until && channel_wait(c, LINGER_MS, &ignored) > 0 &&
	       recv(c->fd, waste, sizeof(waste), 0) > 0)
		;
}

void destination_refuse(struct channel *c, const char *why)
{
	destination_say_no(c, WIRE_REFUSE, why);
}

/* ---- greeters ---- */

struct greeter {
	int fd;
	struct channel *channel;
	bool only; /* fd: or exec: nobody else will come */
	char peer[320];
	struct migration_meeting *met;
	struct greeter *next; /* of strangers */
};

/* It may be sent away from now on, until destination_introduced(). */
static void remember_stranger(struct greeter *g)
{
	pthread_mutex_lock(&waiting.lock);
	g->next = waiting.strangers;
	waiting.strangers = g;
	pthread_mutex_unlock(&waiting.lock);
}

void destination_introduced(const struct channel *c)
{
	pthread_mutex_lock(&waiting.lock);
	for (struct greeter **p = &waiting.strangers; *p; p = &(*p)->next)
		if ((*p)->channel == c) {
			*p = (*p)->next;
			break;
		}
	pthread_mutex_unlock(&waiting.lock);
}

/* Who has had the most time makes room for another. */
static void send_away_oldest(void)
{
	struct greeter **p = &waiting.strangers;

	pthread_mutex_lock(&waiting.lock);
	while (*p && (*p)->next)
		p = &(*p)->next;
	if (*p) {
		log_warn("migration", "%s: others came while it dawdled over its introduction", (*p)->peer);
		channel_shutdown((*p)->channel);
		*p = NULL;
	}
	pthread_mutex_unlock(&waiting.lock);
}

static void refused_for_good(void *opaque)
{
	destination_failed_exit(opaque);
}

static void greet(struct greeter *g)
{
	struct channel *c = g->met ? g->met->channel : channel_new(g->fd, session.cancel_fd, g->peer);
	struct wire_preamble p;
	struct err e = ERR_INIT;
	int r = 0;

	g->channel = c;
	c->only = g->only;
	if (g->met)
		p = g->met->preamble;
	else if (!g->only)
		remember_stranger(g);
	if (!g->only)
		c->deadline_ns = mono_ns() + HANDSHAKE_MS * 1000000ull;
	if (!g->met && tls_wanted())
		r = tls_server(c, &e);
	if (!r && !g->met)
		r = channel_recv_preamble(c, &p, &e);
	if (!r && p.kind == WIRE_PAGES) {
		destination_introduced(c);
		pages_serve(c, &p);
		return;
	}
	if (!r && p.kind != WIRE_MAIN)
		r = err_set(&e, EBADMSG, "a stream of kind %u cannot be received here", p.kind);
	if (!r && p.flags & WIRE_RESUME) {
		destination_introduced(c);
		if (recovery_offer(c, &p, &e))
			return;
		log_warn("migration", "%s: refused: %s", g->peer, e.msg);
		destination_refuse(c, e.msg);
		channel_free(c);
		return;
	}
	if (!r && pages_claimed()) {
		channel_send_preamble(c, &p, &e);
		r = err_set(&e, EBUSY, DESTINATION_BUSY);
	}
	if (r) {
		log_warn("migration", "%s: refused: %s", g->peer, e.msg);
		destination_refuse(c, e.msg);
	} else {
		r = destination_serve(c, &p, g->met, &e);
	}
	destination_introduced(c);
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

	*g = (struct greeter){.fd = fd, .only = only, .met = met};
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

/* Takes fd, which was accepted just now. */
static void greet_peer(int fd)
{
	char peer[320];
	struct err e = ERR_INIT;
	unsigned n;

	pthread_mutex_lock(&waiting.lock);
	n = waiting.greeters;
	pthread_mutex_unlock(&waiting.lock);
	if (!address_allowed(fd, peer, sizeof(peer))) {
		log_warn("migration", "%s: refused: -migration-allow does not list it", peer);
		close(fd);
	} else if (n >= 2 * (MAX_GREETERS + MAX_CHANNELS)) { /* those that were sent away have not gone yet */
		log_warn("migration", "%s: refused: too many connections are waiting to introduce themselves", peer);
		close(fd);
	} else {
		if (n >= MAX_GREETERS + MAX_CHANNELS)
			send_away_oldest();
		address_tune(fd);
		if (!tls_wanted())
			address_warn_plain(fd);
		if (start_greeter(fd, peer, false, NULL, &e))
			log_warn("migration", "%s: %s", peer, e.msg);
	}
}

static void on_connection(void *opaque, int listen_fd, unsigned events)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)opaque;
	(void)events;
	if (fd >= 0)
		greet_peer(fd);
}

void destination_poll(int timeout_ms)
{
	struct pollfd p[MAX_LISTEN + 1] = {{.fd = session.cancel_fd, .events = POLLIN}};
	unsigned n;

	pthread_mutex_lock(&waiting.lock);
	n = waiting.n_listen;
	for (unsigned i = 0; i < n; i++)
		p[i + 1] = (struct pollfd){.fd = waiting.listen_fd[i], .events = POLLIN};
	pthread_mutex_unlock(&waiting.lock);
	if (poll(p, n + 1, timeout_ms) <= 0)
		return;
	/* The main thread may have closed it meanwhile, and its number may be another descriptor's: look again. */
	for (unsigned i = 0; i < n; i++) {
		int fd = -1;

		if (!(p[i + 1].revents & POLLIN))
			continue;
		pthread_mutex_lock(&waiting.lock);
		if (i < waiting.n_listen && waiting.listen_fd[i] == p[i + 1].fd)
			fd = accept4(p[i + 1].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		pthread_mutex_unlock(&waiting.lock);
		if (fd >= 0)
			greet_peer(fd);
	}
}

/* ---- listening ---- */

static int watch_listeners(const int *fds, int n, const char *bound, struct err *e)
{
	for (int i = 0; i < n; i++) {
		waiting.watch[i] = loop_watch(loop_main(), fds[i], LOOP_READ, NULL, on_connection, NULL, e);
		pthread_mutex_lock(&waiting.lock);
		waiting.listen_fd[i] = fds[i];
		waiting.n_listen = (unsigned)i + 1;
		pthread_mutex_unlock(&waiting.lock);
		if (!waiting.watch[i]) {
			destination_stop_listening();
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
	int fds[MAX_LISTEN], n = address_listen(&waiting.address, fds, MAX_LISTEN, bound, sizeof(bound), e);

	return n < 0 ? n : watch_listeners(fds, n, bound, e);
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
	if (m->n_listen)
		r = watch_listeners(m->listen_fd, (int)m->n_listen, m->bound, e);
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

/* Whether what we listen on has this port. */
static bool on_port(const char *port)
{
	const char *ours;
	bool same;

	pthread_mutex_lock(&session.lock);
	ours = strrchr(session.info.address, ':');
	same = waiting.n_listen && waiting.address.kind == ADDRESS_TCP && ours && !strcmp(ours + 1, port);
	pthread_mutex_unlock(&session.lock);
	return same;
}

int destination_listen_again(const char *uri, struct err *e)
{
	struct address a;
	char bound[320];
	int fds[MAX_LISTEN], r = address_parse(uri, &a, e), n, fd;

	if (r)
		return r;
	if (a.kind == ADDRESS_FD) {
		fd = address_take_fd(&a, true, e);
		return fd < 0 ? fd : start_greeter(fd, uri, false, NULL, e);
	}
	if (a.kind != ADDRESS_TCP && a.kind != ADDRESS_UNIX)
		return err_set(e, EINVAL, "%.80s: a post-copy goes on over tcp, unix or fd", uri);
	/*
	 * The source may come back at the old address until there is a new one: a name may take its time, or be
	 * nobody's. Only where the old one is in the way does it go first.
	 */
	n = address_listen(&a, fds, MAX_LISTEN, bound, sizeof(bound), e);
	if (n == -EADDRINUSE && a.kind == ADDRESS_TCP && on_port(a.port)) {
		destination_stop_listening();
		*e = ERR_INIT;
		n = address_listen(&a, fds, MAX_LISTEN, bound, sizeof(bound), e);
	}
	if (n < 0)
		return n;
	if (a.kind == ADDRESS_UNIX && waiting.address.kind == ADDRESS_UNIX && !strcmp(a.path, waiting.address.path))
		waiting.address.kind = ADDRESS_FD; /* the name is the new socket's already: it stays */
	destination_stop_listening();
	waiting.address = a;
	return watch_listeners(fds, n, bound, e);
}

void destination_stop(void)
{
	pages_quit();
	recovery_quit();
	pthread_mutex_lock(&waiting.lock);
	while (waiting.greeters)
		pthread_cond_wait(&waiting.cond, &waiting.lock);
	pthread_mutex_unlock(&waiting.lock);
	destination_stop_listening();
}
