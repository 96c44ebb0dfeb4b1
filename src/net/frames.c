/*
 * A stream socket as a cable: each frame behind its length, four bytes in network order (QEMU's framing of `-netdev
 * socket` and `stream`, so that the peer can be either). A server serves one peer at a time, the others wait in the
 * kernel's queue.
 *
 * What a peer may cost us is bounded: one buffer of a frame in each direction. A length no frame can have ends the
 * connection, a peer that reads nothing loses what the guest sends after STALL_MS.
 */
#include "netdev.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/bytes.h"
#include "vmm/log.h"

#define LENGTH_LEN 4
#define LENGTH_MAX (4096 + 65536) /* QEMU's buffer: it may send frames as large as this */
#define BUF_LEN    (LENGTH_LEN + LENGTH_MAX)
#define STALL_MS   250
#define RETRY_MS   1000

static void resume_listening(struct net_stream *s);

/* ---- events ---- */

static void tell_connected(const struct net_stream *s)
{
	char *addr, *data;

	log_debug("net", "%s: connected", netdev_id(s->d));
	if (!s->events)
		return;
	addr = s->fd_name ? net_fd_json(s->fd_name) : net_address_json(&s->peer);
	data = xasprintf("{\"netdev-id\": \"%s\", \"addr\": %s}", netdev_id(s->d), addr);
	netdev_event("NETDEV_STREAM_CONNECTED", data);
	free(data);
	free(addr);
}

static void tell_disconnected(const struct net_stream *s)
{
	char *data;

	log_debug("net", "%s: disconnected", netdev_id(s->d));
	if (!s->events)
		return;
	data = xasprintf("{\"netdev-id\": \"%s\"}", netdev_id(s->d));
	netdev_event("NETDEV_STREAM_DISCONNECTED", data);
	free(data);
}

/* ---- a connection ---- */

static void set_events(struct net_stream *s)
{
	if (s->watch && !s->connecting)
		loop_watch_set(s->watch, (s->gone    ? 0
					  : s->in_on ? LOOP_READ
						     : LOOP_HANGUP) |
						 (s->out_on ? LOOP_WRITE : 0));
}

static void drop_connection(struct net_stream *s)
{
	loop_unwatch(s->watch);
	s->watch = NULL;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	timer_cancel(&s->stall);
	bh_cancel(&s->bh);
	free(s->in);
	free(s->out);
	s->in = s->out = NULL;
	s->in_head = s->in_len = s->out_head = s->out_len = 0;
	s->connecting = s->out_on = s->gone = s->stalled = false;
}

static void disconnect(struct net_stream *s)
{
	drop_connection(s);
	tell_disconnected(s);
	resume_listening(s);
	netdev_writable(s->d, 0); /* what waits for room is lost with the cable */
}

/* Called inside send and recv, where the NIC's lock is held: let go later. */
static void peer_gone(struct net_stream *s)
{
	s->gone = true;
	s->out_len = 0;
	s->out_on = false;
	set_events(s);
	bh_schedule(&s->bh);
}

/* The length of the frame at the front of `in`, when its four bytes are there. */
static bool front_length(const struct net_stream *s, uint32_t *len)
{
	if (s->in_len < LENGTH_LEN)
		return false;
	*len = get_be32(s->in + s->in_head);
	return true;
}

static bool frame_waits(const struct net_stream *s)
{
	uint32_t len;

	return front_length(s, &len) && s->in_len - LENGTH_LEN >= len;
}

static void stream_bh(void *opaque)
{
	struct net_stream *s = opaque;

	if (s->in_on && frame_waits(s))
		netdev_readable(s->d, 0);
	if (s->in_on && frame_waits(s))
		bh_schedule(&s->bh);
	else if (s->gone)
		disconnect(s);
}

static bool flush_rest(struct net_stream *s)
{
	while (s->out_len) {
		ssize_t n = send(s->fd, s->out + s->out_head, s->out_len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return false;
		if (n < 0) {
			peer_gone(s);
			return true;
		}
		s->out_head += (uint32_t)n;
		s->out_len -= (uint32_t)n;
	}
	return true;
}

static void connection_ready(void *opaque, int fd, unsigned events)
{
	struct net_stream *s = opaque;

	if ((events & LOOP_WRITE) && s->out_on && flush_rest(s)) {
		s->out_on = s->stalled = false;
		timer_cancel(&s->stall);
		set_events(s);
		netdev_writable(s->d, 0);
	}
	if (s->fd < 0 || s->gone)
		return;
	if (s->in_on && (events & LOOP_READ)) {
		netdev_readable(s->d, 0);
		if (frame_waits(s))
			bh_schedule(&s->bh);
	} else if (!s->in_on && (events & LOOP_HANGUP)) {
		disconnect(s); /* nobody takes what it may have left */
	}
}

static void stall_fired(void *opaque)
{
	struct net_stream *s = opaque;

	s->stalled = true;
	netdev_writable(s->d, 0);
}

static int start_connection(struct net_stream *s, int fd, struct err *e)
{
	int one = 1;

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* frames are what they are; unix sockets refuse */
	if (s->keep_alive)
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	s->watch = loop_watch(loop_main(), fd, s->in_on ? LOOP_READ : LOOP_HANGUP, NULL, connection_ready, s, e);
	if (!s->watch) {
		close(fd);
		return -EIO;
	}
	s->fd = fd;
	s->in = xrealloc(NULL, BUF_LEN);
	return 0;
}

/* ---- frames ---- */

void net_stream_want(struct net_stream *s, bool on)
{
	s->in_on = on;
	set_events(s);
	if (on && frame_waits(s))
		bh_schedule(&s->bh);
}

/* One read; false: nothing came. */
static bool fill(struct net_stream *s)
{
	ssize_t n;

	if (s->in_head && s->in_len)
		memmove(s->in, s->in + s->in_head, s->in_len);
	s->in_head = 0;
	do {
		n = recv(s->fd, s->in + s->in_len, BUF_LEN - s->in_len, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		s->in_len += (uint32_t)n;
		return true;
	}
	if (n == 0 || errno != EAGAIN)
		peer_gone(s);
	return false;
}

ssize_t net_stream_recv(struct net_stream *s, const struct iovec *iov, int n)
{
	uint32_t len = 0;
	ssize_t ret;

	if (s->fd < 0 || s->connecting)
		return 0;
	for (;;) {
		while (!front_length(s, &len) || (len <= LENGTH_MAX && !frame_waits(s)))
			if (s->gone || !fill(s))
				return 0;
		if (len > LENGTH_MAX) {
			if (!s->gone)
				log_warn("net",
					 "%s: the peer announces a frame of %u bytes, which cannot be: connection "
					 "closed",
					 netdev_id(s->d), len);
			s->in_len = 0;
			peer_gone(s);
			return 0;
		}
		s->in_head += LENGTH_LEN;
		s->in_len -= LENGTH_LEN;
		ret = net_iov_len(iov, n) < len ? -EMSGSIZE : (ssize_t)net_iov_put(iov, n, 0, s->in + s->in_head, len);
		s->in_head += len;
		s->in_len -= len;
		if (ret)
			return ret;
	}
}

static bool wait_for_room(struct net_stream *s)
{
	s->out_on = true;
	set_events(s);
	if (!timer_pending(&s->stall))
		timer_arm(&s->stall, clock_ns(VCLOCK_REAL) + STALL_MS * NS_PER_MS);
	return false;
}

static void keep_rest(struct net_stream *s, const uint8_t *header, const struct iovec *iov, int n, size_t done,
		      size_t total)
{
	size_t skip = MIN(done, (size_t)LENGTH_LEN);

	if (!s->out)
		s->out = xrealloc(NULL, BUF_LEN);
	memcpy(s->out, header + skip, LENGTH_LEN - skip);
	net_iov_get(iov, n, done - skip, s->out + LENGTH_LEN - skip, total - done);
	s->out_head = 0;
	s->out_len = (uint32_t)(total - done);
	wait_for_room(s);
}

bool net_stream_send(struct net_stream *s, const struct iovec *iov, int n)
{
	size_t len = net_iov_len(iov, n);
	uint8_t header[LENGTH_LEN];
	struct iovec all[NET_MAX_IOV + 1];
	struct msghdr msg = {.msg_iov = all, .msg_iovlen = (size_t)n + 1};
	ssize_t done;

	if (s->fd < 0 || s->connecting || s->gone || s->stalled) {
		netdev_tx_lost(s->d);
		return true;
	}
	if (s->out_len)
		return wait_for_room(s);
	put_be32(header, (uint32_t)len);
	all[0] = (struct iovec){.iov_base = header, .iov_len = LENGTH_LEN};
	memcpy(all + 1, iov, (size_t)n * sizeof(*iov));
	do {
		done = sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (done < 0 && errno == EINTR);
	if (done < 0 && errno == EAGAIN)
		return wait_for_room(s);
	if (done < 0) {
		peer_gone(s);
		netdev_tx_lost(s->d);
	} else if ((size_t)done < LENGTH_LEN + len) {
		keep_rest(s, header, iov, n, (size_t)done, LENGTH_LEN + len);
	}
	return true;
}

/* ---- server ---- */

static void accept_later_fired(void *opaque)
{
	resume_listening(opaque);
}

static void listener_ready(void *opaque, int listen_fd, unsigned events)
{
	struct net_stream *s = opaque;
	int fd;

	s->peer.len = sizeof(s->peer.bytes);
	fd = accept4(listen_fd, (struct sockaddr *)s->peer.bytes, &s->peer.len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return;
	loop_unwatch(s->listen_watch);
	s->listen_watch = NULL;
	if (fd < 0) { /* out of descriptors: the listener would stay ready for ever */
		log_warn("net", "%s: cannot accept a connection: %s", netdev_id(s->d), strerror(errno));
		timer_arm(&s->accept_later, clock_ns(VCLOCK_REAL) + RETRY_MS * NS_PER_MS);
		return;
	}
	if (start_connection(s, fd, NULL))
		resume_listening(s);
	else
		tell_connected(s);
}

static void resume_listening(struct net_stream *s)
{
	if (s->listen_fd >= 0 && s->fd < 0 && !s->listen_watch)
		s->listen_watch = loop_watch(loop_main(), s->listen_fd, LOOP_READ, NULL, listener_ready, s, NULL);
}

int net_stream_listen(struct net_stream *s, int fd, struct err *e)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (listen(fd, 1)) {
		int r = err_errno(e, errno, "cannot listen");

		close(fd);
		return r;
	}
	s->listen_fd = fd;
	resume_listening(s);
	return 0;
}

/* ---- client ---- */

static void connect_ready(void *opaque, int fd, unsigned events)
{
	struct net_stream *s = opaque;
	socklen_t len = sizeof(int);
	char name[160];
	int code = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) || code) {
		net_address_print(&s->peer, name, sizeof(name));
		log_warn("net", "%s: cannot connect to %s: %s", netdev_id(s->d), name, strerror(code));
		drop_connection(s);
		return;
	}
	loop_unwatch(s->watch);
	s->watch = NULL;
	s->connecting = false;
	s->fd = -1;
	if (!start_connection(s, fd, NULL))
		tell_connected(s);
}

int net_stream_connect(struct net_stream *s, const struct net_address *to, struct err *e)
{
	char name[160];
	int fd = socket(net_address_family(to), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

	if (fd < 0)
		return err_errno(e, errno, "cannot make a socket");
	s->peer = *to;
	if (!connect(fd, (const struct sockaddr *)to->bytes, to->len))
		return net_stream_connected(s, fd, e);
	if (errno != EINPROGRESS) {
		r = errno;
		net_address_print(to, name, sizeof(name));
		close(fd);
		return err_errno(e, r, "cannot connect to %s", name);
	}
	s->watch = loop_watch(loop_main(), fd, LOOP_WRITE, NULL, connect_ready, s, e);
	if (!s->watch) {
		close(fd);
		return -EIO;
	}
	s->fd = fd;
	s->connecting = true;
	return 0;
}

int net_stream_connected(struct net_stream *s, int fd, struct err *e)
{
	int r = start_connection(s, fd, e);

	if (!r)
		tell_connected(s);
	return r;
}

/* ---- begin and end ---- */

void net_stream_init(struct net_stream *s, struct netdev *d)
{
	s->d = d;
	s->fd = s->listen_fd = -1;
	bh_init(&s->bh, loop_main(), NULL, stream_bh, s);
	timer_init(&s->stall, loop_main(), VCLOCK_REAL, NULL, stall_fired, s);
	timer_init(&s->accept_later, loop_main(), VCLOCK_REAL, NULL, accept_later_fired, s);
}

void net_stream_stop(struct net_stream *s)
{
	drop_connection(s);
	timer_cancel(&s->accept_later);
	loop_unwatch(s->listen_watch);
	s->listen_watch = NULL;
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	s->listen_fd = -1;
}

void net_stream_describe(const struct net_stream *s, char *buf, size_t size)
{
	struct net_address bound = {.len = sizeof(bound.bytes)};
	char peer[160], here[160];

	if (s->listen_fd < 0 || getsockname(s->listen_fd, (struct sockaddr *)bound.bytes, &bound.len))
		bound.len = 0;
	net_address_print(&s->peer, peer, sizeof(peer));
	net_address_print(&bound, here, sizeof(here));
	if (s->fd_name)
		snprintf(buf, size, "fd=%s%s", s->fd_name, s->fd < 0 ? " (disconnected)" : "");
	else if (s->listen_fd >= 0 && s->fd < 0)
		snprintf(buf, size, "socket: wait from %s", here);
	else if (s->listen_fd >= 0)
		snprintf(buf, size, "socket: connection from %s", peer);
	else
		snprintf(buf, size, "socket: %s %s",
			 s->connecting ? "connecting to"
			 : s->fd < 0   ? "disconnected from"
				       : "connected to",
			 peer);
}
