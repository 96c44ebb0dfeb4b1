/* -vnc's argument (QEMU's syntax) and the sockets it means. */
#include "src/display/vnc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "vmm/names.h"
#include "vmm/prop.h"

#define PORT_BASE 5900

/* Sockets of a process that died leave their name behind; those of a living one answer. */
static int bind_unix(int fd, const struct sockaddr_un *addr, struct err *e)
{
	if (!bind(fd, (const struct sockaddr *)addr, sizeof(*addr)))
		return 0;
	if (errno == EADDRINUSE) {
		int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		bool dead = connect(probe, (const struct sockaddr *)addr, sizeof(*addr)) && errno == ECONNREFUSED;

		close(probe);
		if (!dead)
			return err_set(e, EADDRINUSE, "the socket '%s' is in use by another process", addr->sun_path);
		unlink(addr->sun_path);
		if (!bind(fd, (const struct sockaddr *)addr, sizeof(*addr)))
			return 0;
	}
	return err_errno(e, errno, "cannot create the socket '%s'", addr->sun_path);
}

static int listen_unix(struct vnc_options *o, const char *path, struct err *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, rc;

	if (!*path || strlen(path) >= sizeof(addr.sun_path))
		return err_set(e, EINVAL, "the socket path must have 1 to %zu characters", sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, errno, "cannot create a socket");
	rc = bind_unix(fd, &addr, e);
	if (!rc && listen(fd, 8))
		rc = err_errno(e, errno, "cannot listen on '%s'", path);
	if (rc) {
		close(fd);
		return rc;
	}
	o->fd[o->n_fds++] = fd;
	o->unix_path = xstrdup(path);
	o->family = "unix";
	return 0;
}

/* All addresses of one port, or none of them. -EADDRINUSE: another port may do. */
static int listen_port(struct vnc_options *o, const struct addrinfo *list, unsigned port, struct err *e)
{
	int code = EADDRNOTAVAIL;

	for (const struct addrinfo *a = list; a && o->n_fds < VNC_LISTEN_MAX; a = a->ai_next) {
		int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

		if (fd < 0)
			continue; /* no IPv6 on this host */
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (a->ai_family == AF_INET6) {
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
			((struct sockaddr_in6 *)a->ai_addr)->sin6_port = htons((uint16_t)port);
		} else {
			((struct sockaddr_in *)a->ai_addr)->sin_port = htons((uint16_t)port);
		}
		if (!bind(fd, a->ai_addr, a->ai_addrlen) && !listen(fd, 8)) {
			o->fd[o->n_fds++] = fd;
			continue;
		}
		code = errno;
		close(fd);
		if (code == EADDRINUSE || code == EACCES) {
			while (o->n_fds)
				close(o->fd[--o->n_fds]);
			break;
		}
	}
	return o->n_fds ? 0 : err_errno(e, code, "cannot listen on port %u", port);
}

static void name_listener(struct vnc_options *o)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);

	if (!getsockname(o->fd[0], (struct sockaddr *)&sa, &len))
		getnameinfo((struct sockaddr *)&sa, len, o->host, sizeof(o->host), o->service, sizeof(o->service),
			    NI_NUMERICHOST | NI_NUMERICSERV);
	o->family = sa.ss_family == AF_INET6 ? "ipv6" : "ipv4";
}

static int listen_tcp(struct vnc_options *o, const char *where, int family, unsigned to, struct err *e)
{
	struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
	const char *colon = strrchr(where, ':');
	char *host, *end;
	unsigned long n;
	int rc;

	if (!colon)
		return err_set(e, EINVAL, "'%s' is neither HOST:N nor unix:PATH nor none", where);
	n = strtoul(colon + 1, &end, 10);
	if (end == colon + 1 || *end || n > 65535 - PORT_BASE)
		return err_set(e, EINVAL, "the display number '%s' is not 0 to %d", colon + 1, 65535 - PORT_BASE);
	host = where[0] == '[' && colon > where + 1 && colon[-1] == ']'
		       ? xstrndup(where + 1, (size_t)(colon - where) - 2)
		       : xstrndup(where, (size_t)(colon - where));
	rc = names_find(*host ? host : NULL, "0", &hints, &list);
	if (rc) {
		rc = err_set(e, EINVAL, "the host '%s' is not known: %s", host, gai_strerror(rc));
		free(host);
		return rc;
	}
	for (unsigned long display = n;; display++) {
		rc = listen_port(o, list, (unsigned)(PORT_BASE + display), e);
		if (rc != -EADDRINUSE || display >= to || display >= 65535 - PORT_BASE)
			break;
	}
	names_free(list);
	free(host);
	if (!rc)
		name_listener(o);
	return rc;
}

static int parse_share(struct vnc_options *o, const char *text, struct err *e)
{
	static const char *const names[] = {"allow-exclusive", "force-shared", "ignore"};

	for (unsigned i = 0; text && i < ARRAY_SIZE(names); i++)
		if (!strcmp(text, names[i])) {
			o->share = (enum vnc_share)i;
			return 0;
		}
	return text ? err_set(e, EINVAL, "share=%s: use allow-exclusive, force-shared or ignore", text) : 0;
}

static bool is_on(const char *text)
{
	return text && (!strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "true"));
}

/* Options that are known and change nothing here, and options of QEMU's that vmm does not have. */
static int check_rest(struct opts *opts, struct err *e)
{
	static const char *const ignored[] = {"id",   "lossy",   "non-adaptive", "key-delay-ms", "power-control",
					      "head", "display", "connections",  "audiodev"};
	static const char *const refused[] = {"websocket", "reverse",    "tls-creds", "tls-authz",
					      "sasl",      "sasl-authz", "acl"};

	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		opts_get(opts, ignored[i]);
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		const char *v = opts_get(opts, refused[i]);

		if (v && strcmp(v, "off"))
			return err_set(e, ENOTSUP, "the option %s is not available in vmm", refused[i]);
	}
	for (size_t i = 0; i < opts->n; i++)
		if (!opts->v[i].used)
			return err_set(e, EINVAL,
				       "the option '%s' is not known; use password=, password-secret=, share=, to=, "
				       "ipv4=, ipv6=",
				       opts->v[i].key);
	return 0;
}

int vnc_listen(struct vnc_options *o, const char *spec, struct err *e)
{
	struct opts opts = {0};
	const char *where, *to, *v4, *v6;
	int rc = opts_parse(&opts, spec, "vnc", e), family = AF_UNSPEC;

	*o = (struct vnc_options){0};
	if (rc)
		return rc;
	where = opts_get(&opts, "vnc");
	to = opts_get(&opts, "to");
	v4 = opts_get(&opts, "ipv4");
	v6 = opts_get(&opts, "ipv6");
	o->password = is_on(opts_get(&opts, "password"));
	o->password_secret = xstrdup(opts_get(&opts, "password-secret"));
	o->password |= o->password_secret != NULL;
	rc = parse_share(o, opts_get(&opts, "share"), e);
	if (!rc)
		rc = check_rest(&opts, e);
	if (is_on(v4) != is_on(v6))
		family = is_on(v4) ? AF_INET : AF_INET6;
	else if (v4 && !is_on(v4))
		family = AF_INET6;
	else if (v6 && !is_on(v6))
		family = AF_INET;
	if (!rc && !where)
		rc = err_set(e, EINVAL, "no address is given; use HOST:N or unix:PATH");
	else if (!rc && !strncmp(where, "unix:", 5))
		rc = listen_unix(o, where + 5, e);
	else if (!rc)
		rc = listen_tcp(o, where, family, to ? (unsigned)strtoul(to, NULL, 10) : 0, e);
	opts_free(&opts);
	return rc;
}

void vnc_unlisten(struct vnc_options *o)
{
	while (o->n_fds)
		close(o->fd[--o->n_fds]);
	if (o->unix_path)
		unlink(o->unix_path);
	free(o->unix_path);
	free(o->password_secret);
	o->unix_path = o->password_secret = NULL;
}
