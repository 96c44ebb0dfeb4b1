/*
 * Where a migration goes to or comes from: URIs as QEMU's, connecting, listening, who may connect (-migration-allow).
 *
 *   tcp:HOST:PORT   [HOST] for IPv6; an empty host or 0 listens on every address
 *   unix:PATH
 *   fd:NAME         a descriptor from getfd, or the number of an inherited one: socket, pipe or file
 *   exec:COMMAND    /bin/sh -c COMMAND with the stream as its standard input (or output, incoming)
 *   file:PATH       saved guests: see save.c
 */
#include "session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "vmm/fdset.h"
#include "vmm/log.h"
#include "vmm/names.h"

#define USER_TIMEOUT_MS 30000 /* TCP: data or probes unacknowledged for so long end the connection */
#define KEEPALIVE_S     10    /* of silence until the first probe */

/* ---- parsing ---- */

static int parse_tcp(const char *text, struct address *a, struct err *e)
{
	const char *colon = strrchr(text, ':'), *host = text, *end = colon;

	if (!colon || !colon[1])
		return err_set(e, EINVAL, "migration address 'tcp:%s': expected tcp:HOST:PORT", text);
	if (*host == '[' && end > host && end[-1] == ']') {
		host++;
		end--;
	} else if (memchr(host, ':', (size_t)(end - host))) {
		return err_set(e, EINVAL,
			       "migration address 'tcp:%s': put an IPv6 address in brackets, tcp:[ADDRESS]:PORT", text);
	}
	if ((size_t)(end - host) >= sizeof(a->host) || strlen(colon + 1) >= sizeof(a->port))
		return err_set(e, EINVAL, "migration address 'tcp:%s': too long", text);
	memcpy(a->host, host, (size_t)(end - host));
	a->host[end - host] = 0;
	snprintf(a->port, sizeof(a->port), "%s", colon + 1);
	if (!strcmp(a->host, "0"))
		a->host[0] = 0;
	a->kind = ADDRESS_TCP;
	return 0;
}

int address_parse(const char *uri, struct address *a, struct err *e)
{
	static const struct {
		const char *prefix;
		enum address_kind kind;
	} kinds[] = {{"unix:", ADDRESS_UNIX}, {"fd:", ADDRESS_FD}, {"exec:", ADDRESS_EXEC}, {"file:", ADDRESS_FILE}};

	*a = (struct address){0};
	if (!strncmp(uri, "tcp:", 4))
		return parse_tcp(uri + 4, a, e);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		const char *rest = uri + strlen(kinds[i].prefix);

		if (strncmp(uri, kinds[i].prefix, strlen(kinds[i].prefix)))
			continue;
		if (!*rest || strlen(rest) >= sizeof(a->path))
			return err_set(e, EINVAL, "migration address '%.80s': %s", uri,
				       *rest ? "too long" : "something is missing after ':'");
		snprintf(a->path, sizeof(a->path), "%s", rest);
		a->kind = kinds[i].kind;
		return 0;
	}
	return err_set(e, EINVAL,
		       "unknown migration protocol: %s (tcp:HOST:PORT, unix:PATH, fd:NAME, exec:COMMAND and file:PATH "
		       "are known)",
		       uri);
}

/* ---- peers ---- */

static bool loopback(const struct sockaddr_storage *ss)
{
	const struct sockaddr_in *v4 = (const void *)ss;
	const struct sockaddr_in6 *v6 = (const void *)ss;

	if (ss->ss_family == AF_INET)
		return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
	if (ss->ss_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ||
		       (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && v6->sin6_addr.s6_addr[12] == 127);
	return true;
}

static void print_address(const struct sockaddr_storage *ss, socklen_t len, char *text, size_t size)
{
	char host[80], port[16];

	if (ss->ss_family == AF_UNIX ||
	    getnameinfo((const void *)ss, len, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(text, size, "unix");
	else
		snprintf(text, size, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
}

void address_peer(int fd, char *text, size_t size)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);

	if (getpeername(fd, (void *)&ss, &len))
		snprintf(text, size, "fd %d", fd);
	else
		print_address(&ss, len, text, size);
}

bool address_is_remote(int fd)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);

	return !getpeername(fd, (void *)&ss, &len) && ss.ss_family != AF_UNIX && !loopback(&ss);
}

bool address_passes_fds(int fd)
{
	int domain = 0;
	socklen_t len = sizeof(domain);

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) && domain == AF_UNIX;
}

void address_warn_plain(int fd)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	char text[160];

	if (getpeername(fd, (void *)&ss, &len) || loopback(&ss))
		return;
	print_address(&ss, len, text, sizeof(text));
	log_warn("migration",
		 "%s: the guest's memory goes over the network in clear text, and nobody checks who takes it; use TLS "
		 "(tls-creds)",
		 text);
}

/* ---- who may connect ---- */

struct network {
	uint8_t bytes[16]; /* IPv4 as ::ffff:a.b.c.d */
	unsigned bits;
};
static struct network *allowed;
static size_t n_allowed;

static int parse_network(const char *text, struct network *n, struct err *e)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	char copy[64], *slash, *end;
	unsigned long bits, max;

	if (strlen(text) >= sizeof(copy))
		return err_set(e, EINVAL, "-migration-allow: '%s' is no network", text);
	strcpy(copy, text);
	slash = strchr(copy, '/');
	if (slash)
		*slash++ = 0;
	if (inet_pton(AF_INET, copy, n->bytes + 12) == 1) {
		memcpy(n->bytes, mapped, sizeof(mapped));
		max = 32;
	} else if (inet_pton(AF_INET6, copy, n->bytes) == 1) {
		max = 128;
	} else {
		return err_set(e, EINVAL, "-migration-allow: '%s' is no address (10.0.0.0/8, 192.168.1.7, fd00::/8)",
			       text);
	}
	bits = slash ? strtoul(slash, &end, 10) : max;
	if (slash && (!*slash || *end || bits > max))
		return err_set(e, EINVAL, "-migration-allow: '%s': the prefix length is 0..%lu", text, max);
	n->bits = (unsigned)(bits + 128 - max);
	return 0;
}

int migration_allow(const char *list, struct err *e)
{
	char *copy = xstrdup(list), *save = NULL;
	int r = 0;

	for (char *word = strtok_r(copy, ",", &save); !r && word; word = strtok_r(NULL, ",", &save)) {
		allowed = xrealloc(allowed, (n_allowed + 1) * sizeof(*allowed));
		r = parse_network(word, &allowed[n_allowed], e);
		if (!r)
			n_allowed++;
	}
	if (!r && !n_allowed)
		r = err_set(e, EINVAL, "-migration-allow: a list of networks is missing");
	free(copy);
	return r;
}

static bool in_network(const struct network *n, const uint8_t *addr)
{
	for (unsigned bit = 0; bit < n->bits; bit++)
		if ((n->bytes[bit / 8] ^ addr[bit / 8]) & (0x80 >> bit % 8))
			return false;
	return true;
}

bool address_allowed(int fd, char *text, size_t size)
{
	struct sockaddr_storage ss = {0};
	const struct sockaddr_in *v4 = (const void *)&ss;
	const struct sockaddr_in6 *v6 = (const void *)&ss;
	socklen_t len = sizeof(ss);
	uint8_t addr[16] = {[10] = 0xff, [11] = 0xff};

	address_peer(fd, text, size);
	if (getpeername(fd, (void *)&ss, &len))
		return false;
	if (ss.ss_family == AF_UNIX || !n_allowed)
		return true;
	if (ss.ss_family == AF_INET)
		memcpy(addr + 12, &v4->sin_addr, 4);
	else
		memcpy(addr, &v6->sin6_addr, 16);
	for (size_t i = 0; i < n_allowed; i++)
		if (in_network(&allowed[i], addr))
			return true;
	return false;
}

/* ---- connecting ---- */

/* On other sockets each of these fails, which is all right. */
void address_tune(int fd)
{
	int one = 1, timeout = USER_TIMEOUT_MS, idle = KEEPALIVE_S, interval = KEEPALIVE_S / 2;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
}

static int wait_connected(int fd, int timeout_ms, int cancel_fd)
{
	struct pollfd p[2] = {{.fd = fd, .events = POLLOUT}, {.fd = cancel_fd, .events = POLLIN}};
	int err = 0, r;
	socklen_t len = sizeof(err);

	do
		r = poll(p, 2, timeout_ms);
	while (r < 0 && errno == EINTR);
	if (r == 0)
		return -ETIMEDOUT;
	if (p[1].revents)
		return -ECANCELED;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	return -err;
}

/*
 * Within one host there is no congestion to control. One that paces (BBR, where it is the system's default) sets a
 * timer for each packet, which costs more processor time there than all else that TCP does but copy. "reno" is always
 * there and always allowed. It is chosen before the connection is made: a socket that was paced once stays so.
 */
static void tune_local(int fd, const struct sockaddr *sa, socklen_t len)
{
	struct sockaddr_storage ss = {0};

	memcpy(&ss, sa, MIN(len, (socklen_t)sizeof(ss)));
	if (loopback(&ss))
		setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

static int connect_one(int family, const struct sockaddr *sa, socklen_t len, int timeout_ms, int cancel_fd)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

	if (fd < 0)
		return -errno;
	if (family != AF_UNIX)
		tune_local(fd, sa, len);
	r = connect(fd, sa, len) ? -errno : 0;
	if (r == -EINPROGRESS || r == -EAGAIN)
		r = wait_connected(fd, timeout_ms, cancel_fd);
	if (r) {
		close(fd);
		return r;
	}
	if (family != AF_UNIX)
		address_tune(fd);
	return fd;
}

static int check_port(const struct address *a, struct err *e)
{
	return port_is_possible(a->port)
		       ? 0
		       : err_set(e, EINVAL, "tcp:%s:%s: the port is not 0 to 65535", a->host, a->port);
}

static int not_found(const struct address *a, int code, struct err *e)
{
	return err_set(e, code == EAI_CANCELED ? ECANCELED : EADDRNOTAVAIL, "tcp:%s:%s: %s", a->host, a->port,
		       gai_strerror(code));
}

static int unix_sockaddr(const struct address *a, struct sockaddr_un *un, struct err *e)
{
	*un = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(a->path) >= sizeof(un->sun_path))
		return err_set(e, ENAMETOOLONG, "unix:%s: the path of a socket has at most %zu bytes", a->path,
			       sizeof(un->sun_path) - 1);
	strcpy(un->sun_path, a->path);
	return 0;
}

int address_connect(const struct address *a, int timeout_ms, int cancel_fd, struct err *e)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	struct sockaddr_un un;
	int fd = -EADDRNOTAVAIL, r;

	if (a->kind == ADDRESS_UNIX) {
		r = unix_sockaddr(a, &un, e);
		if (r)
			return r;
		fd = connect_one(AF_UNIX, (void *)&un, sizeof(un), timeout_ms, cancel_fd);
		return fd < 0 ? err_errno(e, -fd, "Failed to connect to 'unix:%s'", a->path) : fd;
	}
	r = check_port(a, e);
	if (r)
		return r;
	r = names_wait(*a->host ? a->host : "localhost", a->port, &hints, cancel_fd, &list);
	if (r)
		return not_found(a, r, e);
	for (struct addrinfo *ai = list; ai && fd < 0 && fd != -ECANCELED; ai = ai->ai_next)
		fd = connect_one(ai->ai_family, ai->ai_addr, ai->ai_addrlen, timeout_ms, cancel_fd);
	names_free(list);
	return fd < 0 ? err_errno(e, -fd, "Failed to connect to 'tcp:%s:%s'", a->host, a->port) : fd;
}

/* ---- listening ---- */

/*
 * Who waits for the socket's name to appear must be able to connect to it then: it listens before it has that name. A
 * socket that is there was left behind by one that has gone, and is replaced, as QEMU does. 0 or -1 with errno.
 */
static int listen_at(int fd, const struct sockaddr_un *un)
{
	struct sockaddr_un first = *un;
	struct stat st;
	int n = snprintf(first.sun_path, sizeof(first.sun_path), "%s.new", un->sun_path);
	bool there = !lstat(un->sun_path, &st);

	if (there && !S_ISSOCK(st.st_mode)) {
		errno = EADDRINUSE;
		return -1;
	}
	if ((size_t)n >= sizeof(first.sun_path)) { /* no room: the other order */
		if (there)
			unlink(un->sun_path);
		return bind(fd, (const void *)un, sizeof(*un)) || listen(fd, MAX_CHANNELS) ? -1 : 0;
	}
	if (!lstat(first.sun_path, &st) && S_ISSOCK(st.st_mode))
		unlink(first.sun_path);
	if (bind(fd, (const void *)&first, sizeof(first)))
		return -1;
	if (!listen(fd, MAX_CHANNELS) && !rename(first.sun_path, un->sun_path))
		return 0;
	n = errno;
	unlink(first.sun_path);
	errno = n;
	return -1;
}

static int listen_unix(const struct address *a, struct err *e)
{
	struct sockaddr_un un;
	int fd, r = unix_sockaddr(a, &un, e);

	if (r)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || listen_at(fd, &un)) {
		r = err_errno(e, errno, "cannot listen on unix:%s", a->path);
		if (fd >= 0)
			close(fd);
		return r;
	}
	return fd;
}

static int listen_one(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, MAX_CHANNELS)) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

int address_listen(const struct address *a, int *fds, int max, char *bound, size_t bound_size, struct err *e)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	struct addrinfo *list = NULL;
	int n = 0, r;

	if (a->kind == ADDRESS_UNIX) {
		fds[0] = listen_unix(a, e);
		snprintf(bound, bound_size, "unix:%s", a->path);
		return fds[0] < 0 ? fds[0] : 1;
	}
	r = check_port(a, e);
	if (r)
		return r;
	r = names_find(*a->host ? a->host : NULL, a->port, &hints, &list);
	if (r)
		return not_found(a, r, e);
	for (struct addrinfo *ai = list; ai && n < max; ai = ai->ai_next) {
		fds[n] = listen_one(ai);
		if (fds[n] < 0)
			r = fds[n];
		else
			n++;
		if (n && !strcmp(a->port, "0"))
			break; /* the kernel chose one: a second family would get another */
	}
	names_free(list);
	if (!n)
		return err_errno(e, -r, "cannot listen on tcp:%s:%s", a->host, a->port);
	getsockname(fds[0], (void *)&ss, &len);
	print_address(&ss, len, bound, bound_size);
	return n;
}

/* ---- descriptors and commands ---- */

/* A shell with one end of a pipe pair (so that the command sees plain pipes). */
static int spawn(const char *command, bool incoming, struct err *e)
{
	int p[2], ours, theirs;
	pid_t pid;

	if (session.board && machine_config(session.board)->sandbox &&
	    machine_run_state(session.board) != RUN_PRELAUNCH)
		return err_set(e, EPERM,
			       "exec:%s: the sandbox forbids starting programs; use tcp, unix or fd, or run vmm with "
			       "-sandbox off",
			       command);
	if (pipe2(p, O_CLOEXEC))
		return err_errno(e, errno, "exec:%s", command);
	ours = incoming ? p[0] : p[1];
	theirs = incoming ? p[1] : p[0];
	pid = fork();
	if (pid == 0) {
		sigset_t none;

		sigemptyset(&none);
		pthread_sigmask(SIG_SETMASK, &none, NULL);
		if (dup2(theirs, incoming ? STDOUT_FILENO : STDIN_FILENO) >= 0)
			execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	close(theirs);
	if (pid < 0) {
		close(ours);
		return err_errno(e, errno, "exec:%s", command);
	}
	return ours;
}

int address_take_fd(const struct address *a, bool incoming, struct err *e)
{
	int fd;

	if (a->kind == ADDRESS_EXEC)
		return spawn(a->path, incoming, e);
	fd = fd_name_take(a->path, e);
	if (fd >= 0 && fcntl(fd, F_GETFD) < 0)
		return err_errno(e, EBADF, "fd:%s", a->path);
	return fd;
}
