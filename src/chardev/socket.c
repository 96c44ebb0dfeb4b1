/*
 * -chardev socket: unix and TCP stream sockets, server or client.
 *
 *   server=on          listen; one peer at a time, or several with chardev_serve() (QMP)
 *   wait=on            (server's default) vmm starts once the first peer has connected
 *   reconnect=SECONDS  client: keep trying, and come back after a loss
 *   fd=N               an inherited socket: listening (server=on) or connected
 *   telnet=on          see telnet.c
 *
 * Addresses are resolved once, when it is opened: nothing here blocks later. TLS and websockets are not offered.
 */
#include "backend.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "vmm/fdset.h"
#include "vmm/log.h"
#include "vmm/names.h"

#define MAX_FDS         16 /* QEMU's limit for one message and for what may wait */
#define ACCEPT_RETRY_MS 1000

#define LAST_READS 4096 /* of a byte to 4 KiB each */

struct socket_chardev {
	struct chardev c;
	/* options */
	char *path, *host, *port, *fd_name;
	bool abstract, tight, server, nodelay, telnet;
	int wait, ipv4, ipv6; /* ONOFFAUTO */
	uint32_t reconnect;
	uint16_t to;

	int fd, listen_fd;
	bool connecting, in_on, out_on, leaving;
	struct watch *watch, *listen_watch;
	struct timer retry_timer;
	struct addrinfo *addresses;    /* TCP client */
	struct addrinfo *next_address; /* ... to be tried */
	struct telnet telnet_state;
	bool half_iac; /* telnet: the second IAC of a doubled one is still to be sent */
	bool is_unix;
	dev_t path_dev; /* the socket file we made: removed at close if it is still ours */
	ino_t path_ino;
	int fds[MAX_FDS];
	int n_fds;
	char local[320], remote[128];

	/* chardev_serve() */
	unsigned max_peers, peers;
	void (*on_peer)(void *opaque, struct chardev *peer);
	void *on_peer_opaque;
	struct socket_chardev *parent; /* in a peer */
};

#define S(c) ((struct socket_chardev *)(c))

static const struct prop socket_props[] = {
	CHARDEV_COMMON_PROPS,
	PROP(struct socket_chardev, path, PROP_STR, .help = "unix socket"),
	PROP(struct socket_chardev, abstract, PROP_BOOL, .help = "path is a name in the abstract namespace"),
	PROP(struct socket_chardev, tight, PROP_BOOL, .def = 1, .help = "abstract: no padding to the full length"),
	PROP(struct socket_chardev, host, PROP_STR, .help = "TCP host; server: address to listen on, default all"),
	PROP(struct socket_chardev, port, PROP_STR, .help = "TCP port"),
	PROP(struct socket_chardev, to, PROP_U16, .help = "server: try ports from port up to this one"),
	PROP(struct socket_chardev, ipv4, PROP_ONOFFAUTO, .def = 2, .help = "use IPv4"),
	PROP(struct socket_chardev, ipv6, PROP_ONOFFAUTO, .def = 2, .help = "use IPv6"),
	PROP_NAMED(struct socket_chardev, "fd", fd_name, PROP_STR,
		   .help = "inherited or passed socket: number or name"),
	PROP(struct socket_chardev, server, PROP_BOOL, .help = "listen instead of connecting"),
	PROP(struct socket_chardev, wait, PROP_ONOFFAUTO, .def = 2,
	     .help = "server: start only when a client has connected (default on)"),
	PROP(struct socket_chardev, nodelay, PROP_BOOL, .def = 1, .help = "TCP: send small packets at once"),
	PROP(struct socket_chardev, telnet, PROP_BOOL, .help = "speak telnet to the peer"),
	PROP(struct socket_chardev, reconnect, PROP_U32, .max = 86400,
	     .help = "client: seconds between attempts to connect, 0: only one"),
	PROP_END,
};

static void resume_listening(struct socket_chardev *s);
static void try_connect(struct socket_chardev *s);
static void socket_disconnect(struct chardev *c);

/* ---- names ---- */

static void name_address(const struct sockaddr *sa, socklen_t len, char *buf, size_t size)
{
	char host[INET6_ADDRSTRLEN + 20], port[8];

	if (sa->sa_family == AF_UNIX) {
		const struct sockaddr_un *un = (const struct sockaddr_un *)sa;
		int max = (int)len - (int)offsetof(struct sockaddr_un, sun_path);

		if (max > 0 && !un->sun_path[0])
			snprintf(buf, size, "unix:@%.*s", max - 1, un->sun_path + 1);
		else
			snprintf(buf, size, "unix:%.*s", MAX(max, 0), un->sun_path);
	} else if (getnameinfo(sa, len, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV)) {
		snprintf(buf, size, "socket");
	} else if (sa->sa_family == AF_INET6) {
		snprintf(buf, size, "[%s]:%s", host, port);
	} else {
		snprintf(buf, size, "%s:%s", host, port);
	}
}

static void name_socket(int fd, bool peer, char *buf, size_t size)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);

	*buf = 0;
	if (!(peer ? getpeername : getsockname)(fd, (struct sockaddr *)&ss, &len))
		name_address((struct sockaddr *)&ss, len, buf, size);
}

static void name_local(struct socket_chardev *s, int fd)
{
	char name[256];

	name_socket(fd, !s->server, name, sizeof(name));
	if (s->is_unix)
		snprintf(s->local, sizeof(s->local), "%s%s", name, s->server ? ",server=on" : "");
	else
		snprintf(s->local, sizeof(s->local), "%s:%s%s", s->telnet ? "telnet" : "tcp", name,
			 s->server ? ",server=on" : "");
}

static void socket_describe(struct chardev *c, char *buf, size_t size)
{
	struct socket_chardev *s = S(c);

	if (!c->open && !s->peers)
		snprintf(buf, size, "disconnected:%s", s->local);
	else if (s->is_unix || !*s->remote)
		snprintf(buf, size, "%s", s->local);
	else
		snprintf(buf, size, "%s <-> %s", s->local, s->remote);
}

/* ---- a connection ---- */

static void set_events(struct socket_chardev *s)
{
	if (s->watch)
		loop_watch_set(s->watch, (s->in_on ? LOOP_READ : LOOP_HANGUP) | (s->out_on ? LOOP_WRITE : 0));
}

static void drop_fds(struct socket_chardev *s)
{
	for (int i = 0; i < s->n_fds; i++)
		close(s->fds[i]);
	s->n_fds = 0;
}

static void collect_fds(struct socket_chardev *s, struct msghdr *msg)
{
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(msg); cm; cm = CMSG_NXTHDR(msg, cm)) {
		size_t n = (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		drop_fds(s); /* nobody wanted those of the message before: do not mistake them for these */
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cm) + i * sizeof(int), sizeof(int));
			if (s->n_fds < MAX_FDS)
				s->fds[s->n_fds++] = fd;
			else
				close(fd);
		}
	}
}

static ssize_t receive(struct socket_chardev *s, void *buf, size_t size)
{
	char control[CMSG_SPACE(sizeof(int) * MAX_FDS)];
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t n;

	do {
		n = recvmsg(s->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n >= 0 && msg.msg_controllen)
		collect_fds(s, &msg);
	return n;
}

enum read_result { READ_MORE, READ_EMPTY, READ_GONE };

static enum read_result read_some(struct socket_chardev *s)
{
	uint8_t buf[4096];
	size_t room = MIN(chardev_input_room(&s->c), sizeof(buf));
	bool brk = false;
	ssize_t n;

	if (!room)
		return READ_EMPTY;
	n = receive(s, buf, room);
	if (n <= 0)
		return n < 0 && errno == EAGAIN ? READ_EMPTY : READ_GONE;
	if (s->telnet)
		n = telnet_filter(&s->telnet_state, buf, n, &brk);
	if (brk)
		chardev_break_received(&s->c);
	if (n)
		chardev_input(&s->c, buf, n);
	return s->fd < 0 ? READ_EMPTY : READ_MORE;
}

/* The peer closed while the front end takes nothing, or does not take our output any more: keep what it sent, then let
 * go. One that only pretends to be gone has sent what a socket's buffer holds, and no more. */
static void read_rest(struct socket_chardev *s)
{
	if (s->leaving)
		return;
	s->leaving = true;
	for (unsigned n = 0; n < LAST_READS && s->fd >= 0; n++)
		if (!(chardev_input_room(&s->c) || chardev_input_grow(&s->c)) || read_some(s) != READ_MORE)
			break;
	s->leaving = false;
	if (s->fd >= 0)
		socket_disconnect(&s->c);
}

static void socket_gone(struct chardev *c)
{
	read_rest(S(c));
}

static void connection_ready(void *opaque, int fd, unsigned events)
{
	struct socket_chardev *s = opaque;

	if ((events & LOOP_WRITE) && s->out_on) {
		s->out_on = false;
		set_events(s);
		chardev_output_ready(&s->c);
	}
	if (s->fd >= 0 && !s->in_on && (events & LOOP_HANGUP))
		read_rest(s);
	else if (s->fd >= 0 && s->in_on && (events & LOOP_READ) && read_some(s) == READ_GONE)
		socket_disconnect(&s->c);
}

static void set_socket_options(const struct socket_chardev *s, int fd)
{
	int one = 1;

	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (s->is_unix)
		return;
	if (s->nodelay)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
}

/* fd is a connected socket: take it as the peer. */
static int adopt(struct socket_chardev *s, int fd, struct err *e)
{
	set_socket_options(s, fd);
	s->watch = loop_watch(loop_main(), fd, s->c.input_on ? LOOP_READ : LOOP_HANGUP, NULL, connection_ready, s, e);
	if (!s->watch) {
		close(fd);
		return -EIO;
	}
	s->fd = fd;
	s->in_on = s->c.input_on;
	s->out_on = false;
	s->telnet_state = (struct telnet){0};
	s->half_iac = false;
	name_socket(fd, true, s->remote, sizeof(s->remote));
	if (s->telnet && send(fd, telnet_greeting, telnet_greeting_len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("chardev", "%s: telnet greeting not sent", s->c.id);
	chardev_opened(&s->c);
	return 0;
}

static void retry_later(struct socket_chardev *s, uint64_t ms)
{
	timer_arm(&s->retry_timer, clock_ns(VCLOCK_REAL) + ms * NS_PER_MS);
}

static void socket_disconnect(struct chardev *c)
{
	struct socket_chardev *s = S(c);

	if (s->fd < 0)
		return;
	loop_unwatch(s->watch);
	s->watch = NULL;
	close(s->fd);
	s->fd = -1;
	drop_fds(s);
	*s->remote = 0;
	chardev_closed(c);
	if (s->listen_fd >= 0)
		resume_listening(s);
	else if (s->reconnect)
		retry_later(s, s->reconnect * 1000ull);
}

/* ---- output ---- */

static ssize_t send_bytes(struct socket_chardev *s, const uint8_t *buf, size_t len)
{
	ssize_t n;

	do {
		n = send(s->fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno != EAGAIN)
		return -errno;
	s->out_on = true;
	set_events(s);
	return 0;
}

/* 0xff is doubled on the way out (RFC 854); bytes taken are counted without the doubling. */
static ssize_t send_telnet(struct socket_chardev *s, const uint8_t *buf, size_t len)
{
	static const uint8_t iac[2] = {255, 255};
	const uint8_t *ff = memchr(buf, 255, len);
	ssize_t n;

	if (s->half_iac) {
		n = send_bytes(s, iac, 1);
		s->half_iac = n == 0;
		return n > 0 ? 1 : n;
	}
	if (!ff)
		return send_bytes(s, buf, len);
	if (ff > buf)
		return send_bytes(s, buf, ff - buf);
	n = send_bytes(s, iac, 2);
	s->half_iac = n == 1; /* the byte counts as taken once its second half is out */
	if (s->half_iac) {
		s->out_on = true;
		set_events(s);
		return 0;
	}
	return n > 0 ? 1 : n;
}

static ssize_t socket_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	struct socket_chardev *s = S(c);

	if (s->fd < 0)
		return -ENOTCONN;
	return s->telnet ? send_telnet(s, buf, len) : send_bytes(s, buf, len);
}

static void socket_want_input(struct chardev *c, bool on)
{
	S(c)->in_on = on;
	set_events(S(c));
}

static void socket_send_break(struct chardev *c)
{
	static const uint8_t telnet_break[] = {255, 243};

	/* Best effort: a queue behind the data would need more machinery than a break is worth. */
	if (S(c)->telnet && S(c)->fd >= 0 && !c->out_blocked)
		send(S(c)->fd, telnet_break, sizeof(telnet_break), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int socket_take_fds(struct chardev *c, int *fds, int max)
{
	struct socket_chardev *s = S(c);
	int n = MIN(max, s->n_fds);

	memcpy(fds, s->fds, n * sizeof(int));
	memmove(s->fds, s->fds + n, (s->n_fds - n) * sizeof(int));
	s->n_fds -= n;
	return n;
}

/* ---- server ---- */

static void new_peer(struct socket_chardev *s, int fd)
{
	struct chardev *c = chardev_new(&chardev_socket_ops, s->c.id);
	struct socket_chardev *peer = S(c);

	timer_init(&peer->retry_timer, loop_main(), VCLOCK_REAL, NULL, NULL, peer);
	peer->fd = peer->listen_fd = -1;
	peer->is_unix = s->is_unix;
	peer->telnet = s->telnet;
	peer->nodelay = s->nodelay;
	peer->parent = s;
	memcpy(peer->local, s->local, sizeof(peer->local));
	s->peers++;
	if (adopt(peer, fd, NULL)) {
		chardev_close(c);
		return;
	}
	c->owner = xstrdup(s->c.owner ? s->c.owner : "a control connection");
	s->on_peer(s->on_peer_opaque, c);
}

static void stop_listening(struct socket_chardev *s)
{
	loop_unwatch(s->listen_watch);
	s->listen_watch = NULL;
}

static void listener_ready(void *opaque, int listen_fd, unsigned events)
{
	struct socket_chardev *s = opaque;
	int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0) {
		if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
			return;
		/* Out of file descriptors: the listener would stay ready for ever. */
		log_warn("chardev", "%s: cannot accept a connection: %s", s->c.id, strerror(errno));
		stop_listening(s);
		retry_later(s, ACCEPT_RETRY_MS);
		return;
	}
	if (s->on_peer) {
		new_peer(s, fd);
		if (s->peers >= s->max_peers)
			stop_listening(s);
		return;
	}
	stop_listening(s);
	if (adopt(s, fd, NULL))
		resume_listening(s);
}

static void resume_listening(struct socket_chardev *s)
{
	if (s->listen_watch || s->listen_fd < 0 || s->fd >= 0 || (s->on_peer && s->peers >= s->max_peers))
		return;
	s->listen_watch = loop_watch(loop_main(), s->listen_fd, LOOP_READ, NULL, listener_ready, s, NULL);
}

static int wait_for_client(struct socket_chardev *s, struct err *e)
{
	struct pollfd pfd = {.fd = s->listen_fd, .events = POLLIN};
	int fd;

	fprintf(stderr, "vmm: -chardev id=%s: waiting for a connection on %s\n", s->c.id, s->local);
	for (;;) {
		if (poll(&pfd, 1, -1) < 0 && errno != EINTR)
			return err_errno(e, errno, "cannot wait for a connection");
		fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0)
			return adopt(s, fd, e);
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			return err_errno(e, errno, "cannot accept a connection");
	}
}

static int start_server(struct socket_chardev *s, int fd, struct err *e)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	s->listen_fd = fd;
	name_local(s, fd);
	if (s->wait && wait_for_client(s, e)) {
		close(fd);
		return -EIO;
	}
	resume_listening(s);
	return 0;
}

static int socket_serve(struct chardev *c, unsigned max_peers, void (*on_peer)(void *, struct chardev *), void *opaque)
{
	struct socket_chardev *s = S(c);
	int fd = s->fd;

	if (s->listen_fd < 0)
		return -ENOTSUP;
	s->max_peers = max_peers;
	s->on_peer = on_peer;
	s->on_peer_opaque = opaque;
	if (fd >= 0) { /* wait=on: the first one is here already */
		loop_unwatch(s->watch);
		s->watch = NULL;
		s->fd = -1;
		c->open = false;
		new_peer(s, fd);
	}
	resume_listening(s);
	return 0;
}

/* ---- unix addresses ---- */

static int unix_address(const struct socket_chardev *s, struct sockaddr_un *un, socklen_t *len, struct err *e)
{
	size_t n = strlen(s->path);
	size_t max = sizeof(un->sun_path) - (s->abstract ? 1 : 0);

	*un = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (!n)
		return err_set(e, EINVAL, "path= is empty");
	if (n > max - !s->abstract)
		return err_set(e, ENAMETOOLONG, "path=%.60s...: a socket's name has at most %zu bytes", s->path,
			       max - !s->abstract);
	memcpy(un->sun_path + (s->abstract ? 1 : 0), s->path, n);
	*len = s->abstract && s->tight ? offsetof(struct sockaddr_un, sun_path) + 1 + n : sizeof(*un);
	return 0;
}

/* A socket file may be left over from a process that died; one that somebody listens on is not ours to take. */
static int clear_stale_socket(const struct socket_chardev *s, const struct sockaddr_un *un, socklen_t len,
			      struct err *e)
{
	struct stat st;
	int fd, ret;

	if (s->abstract || lstat(s->path, &st))
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, EEXIST, "%s exists and is not a socket", s->path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, errno, "cannot make a socket");
	ret = connect(fd, (const struct sockaddr *)un, len) ? errno : 0;
	close(fd);
	if (ret == 0 || ret == EAGAIN)
		return err_set(e, EADDRINUSE, "%s is in use: another process listens there", s->path);
	return unlink(s->path) && errno != ENOENT ? err_errno(e, errno, "cannot replace %s", s->path) : 0;
}

static int listen_unix(struct socket_chardev *s, struct err *e)
{
	struct sockaddr_un un;
	struct stat st;
	socklen_t len = 0;
	int fd, ret;

	ret = unix_address(s, &un, &len, e);
	if (!ret)
		ret = clear_stale_socket(s, &un, len, e);
	if (ret)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, errno, "cannot make a socket");
	if (bind(fd, (struct sockaddr *)&un, len) || listen(fd, 64)) {
		ret = err_errno(e, errno, "cannot listen on %s", s->path);
		close(fd);
		return ret;
	}
	if (!s->abstract && !stat(s->path, &st)) {
		s->path_dev = st.st_dev;
		s->path_ino = st.st_ino;
	}
	return start_server(s, fd, e);
}

static void remove_socket_file(const struct socket_chardev *s)
{
	struct stat st;

	if (s->path_ino && !stat(s->path, &st) && st.st_dev == s->path_dev && st.st_ino == s->path_ino)
		unlink(s->path);
}

/* ---- TCP addresses ---- */

static int resolve(const struct socket_chardev *s, struct addrinfo **out, struct err *e)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = s->server ? AI_PASSIVE : AI_ADDRCONFIG};
	const char *host = s->host && *s->host ? s->host : NULL;
	int ret;

	if (!s->port || !*s->port)
		return err_set(e, EINVAL, "port= is missing");
	if (!port_is_possible(s->port))
		return err_set(e, EINVAL, "port %s is not 0 to 65535", s->port);
	if (s->ipv4 == 0 && s->ipv6 == 0)
		return err_set(e, EINVAL, "ipv4=off and ipv6=off leave no way to %s", s->port);
	if (s->ipv6 == 0 || (s->ipv4 == 1 && s->ipv6 != 1))
		hints.ai_family = AF_INET;
	else if (s->ipv4 == 0 || (s->ipv6 == 1 && s->ipv4 != 1))
		hints.ai_family = AF_INET6;
	ret = names_find(host, s->port, &hints, out);
	if (ret)
		return err_set(e, EINVAL, "cannot resolve %s:%s: %s", host ? host : "*", s->port, gai_strerror(ret));
	return 0;
}

static int bind_and_listen(const struct addrinfo *ai, uint16_t port)
{
	struct sockaddr_storage ss;
	int one = 1, fd, code;

	memcpy(&ss, ai->ai_addr, ai->ai_addrlen);
	if (port && ai->ai_family == AF_INET)
		((struct sockaddr_in *)&ss)->sin_port = htons(port);
	else if (port)
		((struct sockaddr_in6 *)&ss)->sin6_port = htons(port);
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (!bind(fd, (struct sockaddr *)&ss, ai->ai_addrlen) && !listen(fd, 64))
		return fd;
	code = errno;
	close(fd);
	return -code;
}

static int listen_tcp(struct socket_chardev *s, struct err *e)
{
	struct addrinfo *list = NULL;
	int fd = -EADDRNOTAVAIL;
	int ret = resolve(s, &list, e);
	uint16_t first;

	if (ret)
		return ret;
	first = ntohs(((struct sockaddr_in *)list->ai_addr)->sin_port); /* same place in sockaddr_in6 */
	for (uint32_t port = first; fd < 0 && port <= MAX((uint32_t)s->to, (uint32_t)first); port++)
		for (struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next)
			fd = bind_and_listen(ai, port);
	names_free(list);
	if (fd < 0)
		return err_errno(e, -fd, "cannot listen on %s:%s", s->host && *s->host ? s->host : "*", s->port);
	return start_server(s, fd, e);
}

/* ---- client ---- */

static int connect_now(struct socket_chardev *s, struct err *e)
{
	int fd = -1, code = ENOENT, ret;

	if (s->path) {
		struct sockaddr_un un;
		socklen_t len;

		ret = unix_address(s, &un, &len, e);
		if (ret)
			return ret;
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd >= 0 && connect(fd, (struct sockaddr *)&un, len)) {
			code = errno;
			close(fd);
			fd = -1;
		}
		if (fd < 0)
			return err_errno(e, code, "cannot connect to %s", s->path);
	} else {
		for (struct addrinfo *ai = s->addresses; ai && fd < 0; ai = ai->ai_next) {
			fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
			if (fd >= 0 && !connect(fd, ai->ai_addr, ai->ai_addrlen))
				break;
			code = errno;
			if (fd >= 0)
				close(fd);
			fd = -1;
		}
		if (fd < 0)
			return err_errno(e, code, "cannot connect to %s:%s",
					 s->host && *s->host ? s->host : "localhost", s->port);
	}
	return adopt(s, fd, e);
}

static int connect_next(struct socket_chardev *s);

/* The connection that was under way is not to be had. May be the end of s: who waited for it may close it. */
static void connect_failed(struct socket_chardev *s, int code)
{
	struct err e = {0};

	loop_unwatch(s->watch);
	s->watch = NULL;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	s->connecting = false;
	if (s->next_address && !connect_next(s))
		return;
	if (s->reconnect) {
		retry_later(s, s->reconnect * 1000ull);
		return;
	}
	err_errno(&e, code, "cannot connect to %s", s->local);
	chardev_connected(&s->c, &e);
}

static void connect_ready(void *opaque, int fd, unsigned events)
{
	struct socket_chardev *s = opaque;
	int code = 0;
	socklen_t len = sizeof(code);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) || code) {
		connect_failed(s, code ? code : errno);
		return;
	}
	loop_unwatch(s->watch);
	s->watch = NULL;
	s->connecting = false;
	s->fd = -1;
	name_local(s, fd);
	if (!adopt(s, fd, NULL))
		chardev_connected(&s->c, NULL);
	else
		connect_failed(s, EIO);
}

/* Start a connection to the next address that takes one, without waiting for it: 0 or -errno. */
static int connect_next(struct socket_chardev *s)
{
	int code = ENOENT;

	do {
		struct sockaddr_storage ss = {0};
		socklen_t len = 0;

		if (s->path) {
			if (unix_address(s, (struct sockaddr_un *)&ss, &len, NULL))
				return -EINVAL;
		} else if (s->next_address) {
			len = s->next_address->ai_addrlen;
			memcpy(&ss, s->next_address->ai_addr, len);
			s->next_address = s->next_address->ai_next;
		}
		s->fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (s->fd >= 0 && (!connect(s->fd, (struct sockaddr *)&ss, len) || errno == EINPROGRESS)) {
			s->watch = loop_watch(loop_main(), s->fd, LOOP_WRITE, NULL, connect_ready, s, NULL);
			s->connecting = s->watch != NULL;
			if (s->connecting)
				return 0;
		}
		code = errno;
		if (s->fd >= 0)
			close(s->fd);
		s->fd = -1;
	} while (s->next_address);
	return -code;
}

static void try_connect(struct socket_chardev *s)
{
	s->next_address = s->addresses;
	if (connect_next(s))
		retry_later(s, s->reconnect * 1000ull);
}

static void retry_timer_fired(void *opaque)
{
	struct socket_chardev *s = opaque;

	if (s->listen_fd >= 0)
		resume_listening(s);
	else
		try_connect(s);
}

static int start_client(struct socket_chardev *s, struct err *e)
{
	int ret = 0;

	if (!s->path)
		ret = resolve(s, &s->addresses, e);
	if (ret)
		return ret;
	if (s->path)
		snprintf(s->local, sizeof(s->local), "unix:%s", s->path);
	else
		snprintf(s->local, sizeof(s->local), "%s:%s:%s", s->telnet ? "telnet" : "tcp", s->host ? s->host : "",
			 s->port);
	if (s->reconnect) {
		try_connect(s);
		return 0;
	}
	if (!loop_has_run(loop_main()))
		return connect_now(s, e);
	s->next_address = s->addresses;
	ret = connect_next(s);
	return ret ? err_errno(e, -ret, "cannot connect to %s", s->local) : 0;
}

/* ---- open and close ---- */

static int start_inherited(struct socket_chardev *s, struct err *e)
{
	int fd = fd_name_take(s->fd_name, e);
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	int listening = 0, type = 0;
	socklen_t opt = sizeof(int);

	if (fd < 0)
		return fd;
	if (getsockname(fd, (struct sockaddr *)&ss, &len) || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &opt) ||
	    type != SOCK_STREAM) {
		close(fd);
		return err_set(e, ENOTSOCK, "fd=%s is not a stream socket", s->fd_name);
	}
	s->is_unix = ss.ss_family == AF_UNIX;
	opt = sizeof(int);
	getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &opt);
	if (listening != s->server) {
		close(fd);
		return err_set(e, EINVAL, "fd=%s is %sa listening socket, which does not go with server=%s", s->fd_name,
			       listening ? "" : "not ", s->server ? "on" : "off");
	}
	if (s->server)
		return start_server(s, fd, e);
	name_local(s, fd);
	return adopt(s, fd, e);
}

static int check_options(struct socket_chardev *s, struct err *e)
{
	int ways = !!s->path + (s->host || s->port) + !!s->fd_name;

	if (ways != 1)
		return err_set(e, EINVAL, "say where: exactly one of path=, host= with port=, or fd=");
	if (s->server && s->reconnect)
		return err_set(e, EINVAL, "reconnect= is for clients; it does not go with server=on");
	if (!s->server && s->wait == 1)
		return err_set(e, EINVAL, "wait=on is for servers; give server=on too");
	if (s->fd_name && s->reconnect)
		return err_set(e, EINVAL, "reconnect= needs an address; an fd= cannot be connected again");
	if (s->abstract && !s->path)
		return err_set(e, EINVAL, "abstract=on needs path=");
	s->wait = s->server && s->wait != 0;
	return 0;
}

static int socket_open(struct chardev *c, struct err *e)
{
	struct socket_chardev *s = S(c);
	int ret = check_options(s, e);

	s->fd = s->listen_fd = -1;
	timer_init(&s->retry_timer, loop_main(), VCLOCK_REAL, NULL, retry_timer_fired, s);
	s->is_unix = s->path != NULL;
	if (!ret) {
		if (s->fd_name)
			ret = start_inherited(s, e);
		else if (!s->server)
			ret = start_client(s, e);
		else
			ret = s->path ? listen_unix(s, e) : listen_tcp(s, e);
	}
	if (ret)
		names_free(s->addresses);
	return ret;
}

static void socket_close(struct chardev *c)
{
	struct socket_chardev *s = S(c);

	s->reconnect = 0;
	loop_unwatch(s->watch);
	s->watch = NULL;
	s->connecting = false;
	stop_listening(s);
	timer_cancel(&s->retry_timer);
	if (s->fd >= 0)
		close(s->fd);
	if (s->listen_fd >= 0) {
		remove_socket_file(s);
		close(s->listen_fd);
	}
	s->fd = s->listen_fd = -1;
	drop_fds(s);
	names_free(s->addresses);
	if (s->parent) {
		s->parent->peers--;
		resume_listening(s->parent);
	}
}

static bool socket_connecting(const struct chardev *c)
{
	return container_of(c, const struct socket_chardev, c)->connecting &&
	       !container_of(c, const struct socket_chardev, c)->reconnect;
}

const struct chardev_ops chardev_socket_ops = {
	.name = "socket",
	.help = "a unix or TCP socket",
	.props = socket_props,
	.size = sizeof(struct socket_chardev),
	.open = socket_open,
	.close = socket_close,
	.write = socket_write,
	.want_input = socket_want_input,
	.send_break = socket_send_break,
	.describe = socket_describe,
	.gone = socket_gone,
	.disconnect = socket_disconnect,
	.take_fds = socket_take_fds,
	.serve = socket_serve,
	.connecting = socket_connecting,
};
