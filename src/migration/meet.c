/*
 * -incoming without a machine on the command line: wait for a guest, read its description, and let main build the
 * machine from it; then the migration goes on where it stopped. Everything happens on the main thread before the
 * machine, the control sockets and the sandbox exist; each peer has HANDSHAKE_MS to introduce itself. A
 * termination signal ends the wait: its descriptor is the channels' cancel descriptor here.
 */
#include "save.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/log.h"

#define MAX_DESCRIPTION (64u << 20)

static int introduce(struct migration_meeting *m, struct err *e)
{
	struct channel *c = m->channel;
	struct wire_preamble answer;
	struct wire_record rec;
	uint8_t raw[WIRE_HEADER];
	int r = channel_recv_preamble(c, &m->preamble, e);

	if (!r && m->preamble.kind != WIRE_MAIN)
		r = err_set(e, EBADMSG, "a stream of kind %u cannot be received here", m->preamble.kind);
	if (r)
		return r;
	c->one_way = m->preamble.flags & WIRE_ONE_WAY;
	answer = m->preamble;
	answer.features = m->features =
		m->preamble.features & (c->one_way ? (uint32_t)WIRE_F_ZSTD : destination_features(c));
	if (!c->one_way)
		r = channel_send_preamble(c, &answer, e);
	if (!r)
		r = channel_get_header(c, &rec, raw, e);
	if (!r && rec.type != WIRE_DESCRIPTION)
		r = err_set(e, EBADMSG, "%s: the stream begins with '%s' instead of the machine's description", c->peer,
			    wire_type_name(rec.type));
	if (!r)
		r = channel_get_payload(c, &rec, raw, MAX_DESCRIPTION, &m->description, e);
	if (!r)
		m->description_len = rec.length;
	return r;
}

/* A connection: keep it if it introduces itself as a guest. */
static int try_peer(struct migration_meeting *m, int fd, const char *peer, int signal_fd, struct err *e)
{
	int r;

	m->channel = channel_new(fd, signal_fd, peer);
	if (!m->only)
		m->channel->deadline_ns = mono_ns() + HANDSHAKE_MS * 1000000ull;
	r = introduce(m, e);
	if (!r)
		return 0;
	if (r != -ECANCELED) {
		log_warn("migration", "%s: refused: %s", peer, e->msg);
		destination_refuse(m->channel, e->msg);
	}
	channel_free(m->channel);
	m->channel = NULL;
	return r;
}

/*
 * Who has connected but not yet said what he is. One peer at a time is listened to, but only once its whole preamble is
 * there: who says nothing, or dribbles, waits here until his time is over and keeps nobody out.
 */
struct caller {
	int fd;
	uint64_t until;
	char peer[320];
};
#define MAX_CALLERS 16

static void send_away(const struct caller *c, int signal_fd, const char *why)
{
	struct channel *channel = channel_new(c->fd, signal_fd, c->peer);

	log_warn("migration", "%s: refused: %s", c->peer, why);
	destination_refuse(channel, why);
	channel_free(channel);
}

/* Takes fd, just accepted. False: it was not wanted. */
static bool admit(struct caller *c, int fd, bool full)
{
	const int enough = WIRE_PREAMBLE;

	*c = (struct caller){.fd = fd, .until = mono_ns() + HANDSHAKE_MS * 1000000ull};
	if (address_allowed(fd, c->peer, sizeof(c->peer)) && !full) {
		address_tune(fd);
		address_warn_plain(fd);
		setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &enough,
			   sizeof(enough)); /* TCP; a unix socket's peer is of this host */
		return true;
	}
	log_warn("migration", "%s: refused: %s", c->peer,
		 full ? "too many connections are waiting to introduce themselves"
		      : "-migration-allow does not list it");
	close(fd);
	return false;
}

static int listen_to(struct migration_meeting *m, const struct caller *c, int signal_fd, struct err *e)
{
	const int any = 1;

	setsockopt(c->fd, SOL_SOCKET, SO_RCVLOWAT, &any, sizeof(any));
	*e = ERR_INIT;
	return try_peer(m, c->fd, c->peer, signal_fd, e);
}

/* The next event: a caller is ready (its index); or LOOK_AGAIN; or an error, -EINTR for a signal. */
enum { LOOK_AGAIN = -10000 };

static int next_event(struct migration_meeting *m, struct caller *callers, unsigned *n, int signal_fd, struct err *e)
{
	struct pollfd p[MEET_LISTEN + MAX_CALLERS + 1] = {{.fd = signal_fd, .events = POLLIN}};
	struct pollfd *of_callers = p + 1 + m->n_listen;
	uint64_t now = mono_ns(), until = UINT64_MAX;
	int timeout;

	for (unsigned i = 0; i < m->n_listen; i++)
		p[i + 1] = (struct pollfd){.fd = m->listen_fd[i], .events = POLLIN};
	for (unsigned i = 0; i < *n; i++) {
		of_callers[i] = (struct pollfd){.fd = callers[i].fd, .events = POLLIN};
		until = MIN(until, callers[i].until);
	}
	timeout = !*n ? -1 : until > now ? (int)((until - now) / 1000000) + 1 : 0;
	if (poll(p, 1 + m->n_listen + *n, timeout) < 0 && errno != EINTR)
		return err_errno(e, errno, "poll");
	if (p[0].revents)
		return err_set(e, EINTR, "ended by a signal while it waited for a guest");
	for (unsigned i = 0; i < *n; i++)
		if (of_callers[i].revents)
			return (int)i;
	now = mono_ns();
	for (unsigned i = 0; i < *n;)
		if (now >= callers[i].until) {
			send_away(&callers[i], signal_fd, "it took too long to introduce itself");
			callers[i] = callers[--*n];
		} else {
			i++;
		}
	for (unsigned i = 0; i < m->n_listen; i++) {
		int fd = p[i + 1].revents ? accept4(m->listen_fd[i], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK) : -1;
		struct caller c;

		if (fd >= 0 && admit(&c, fd, *n == MAX_CALLERS))
			callers[(*n)++] = c;
	}
	return LOOK_AGAIN;
}

static int wait_for_peer(struct migration_meeting *m, int signal_fd, struct err *e)
{
	struct caller callers[MAX_CALLERS];
	unsigned n = 0;
	int r;

	for (;;) {
		struct caller c;

		r = next_event(m, callers, &n, signal_fd, e);
		if (r == LOOK_AGAIN)
			continue;
		if (r < 0)
			break;
		c = callers[r];
		callers[r] = callers[--n];
		r = listen_to(m, &c, signal_fd, e);
		if (!r || r == -ECANCELED)
			break;
	}
	for (unsigned i = 0; i < n; i++)
		send_away(&callers[i], signal_fd, r ? e->msg : "another migration is coming in already");
	return r;
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
		r = wait_for_peer(m, signal_fd, e);
		break;
	case ADDRESS_FD:
	case ADDRESS_EXEC:
		m->only = true;
		fd = address_take_fd(&m->address, true, e);
		r = fd < 0 ? fd : try_peer(m, fd, uri, signal_fd, e);
		break;
	case ADDRESS_FILE:
		r = restore_open(m->address.path, &fd, e);
		m->only = true;
		if (r > 0)
			r = try_peer(m, fd, uri, signal_fd, e);
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
