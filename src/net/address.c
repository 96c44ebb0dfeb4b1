/* Socket addresses of network back ends: resolved once, when the back end is opened. */
#include "netdev.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "vmm/names.h"

_Static_assert(sizeof(struct sockaddr_storage) <= sizeof(((struct net_address *)0)->bytes), "an address fits");

static const struct sockaddr *sa(const struct net_address *a)
{
	return (const struct sockaddr *)a->bytes;
}

int net_address_family(const struct net_address *a)
{
	return a->len ? sa(a)->sa_family : AF_UNSPEC;
}

static int resolve_inet(const char *host, const char *port, int family, int socktype, bool passive,
			struct net_address *out, struct err *e)
{
	struct addrinfo hints = {.ai_socktype = socktype, .ai_family = family, .ai_flags = passive ? AI_PASSIVE : 0};
	struct addrinfo *list = NULL;
	int r;

	if (!port || !*port)
		return err_set(e, EINVAL, "a port is missing");
	if (!port_is_possible(port))
		return err_set(e, EINVAL, "port %s is not 0 to 65535", port);
	if (!host || !*host) { /* any of ours, or ourselves */
		host = NULL;
		if (family == AF_UNSPEC)
			hints.ai_family = AF_INET;
	}
	r = names_find(host, port, &hints, &list);
	if (r)
		return err_set(e, EINVAL, "cannot resolve %s:%s: %s", host ? host : "", port, gai_strerror(r));
	memcpy(out->bytes, list->ai_addr, list->ai_addrlen);
	out->len = list->ai_addrlen;
	names_free(list);
	return 0;
}

static int resolve_unix(const struct net_where *w, struct net_address *out, struct err *e)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	size_t n = w->path ? strlen(w->path) : 0, max = sizeof(un.sun_path) - 1;

	if (!n)
		return err_set(e, EINVAL, "a path is missing");
	if (n > max)
		return err_set(e, ENAMETOOLONG, "path=%.60s...: a socket's name has at most %zu bytes", w->path, max);
	memcpy(un.sun_path + (w->abstract ? 1 : 0), w->path, n);
	out->len = w->abstract && w->tight ? (uint32_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n) : sizeof(un);
	memcpy(out->bytes, &un, sizeof(un));
	return 0;
}

int net_where_resolve(const struct net_where *w, const char *name, int socktype, bool passive, struct net_address *out,
		      struct err *e)
{
	int family = AF_UNSPEC, r;

	*out = (struct net_address){.len = 0};
	if (!strcmp(w->type, "unix")) {
		if (w->host || w->port || w->str)
			return err_set(e, EINVAL, "%s.type=unix goes with %s.path only", name, name);
		r = resolve_unix(w, out, e);
		return r ? err_prefix(e, "%s", name) : 0;
	}
	if (strcmp(w->type, "inet"))
		return err_set(e, EINVAL, "Parameter '%s.type' expects inet, unix or fd, not '%s'", name, w->type);
	if (w->path || w->str || w->abstract)
		return err_set(e, EINVAL, "%s.type=inet goes with %s.host and %s.port", name, name, name);
	if (w->ipv4 == 0 && w->ipv6 == 0)
		return err_set(e, EINVAL, "%s.ipv4=off and %s.ipv6=off leave no way", name, name);
	if (w->ipv6 == 0 || (w->ipv4 == 1 && w->ipv6 != 1))
		family = AF_INET;
	else if (w->ipv4 == 0 || (w->ipv6 == 1 && w->ipv4 != 1))
		family = AF_INET6;
	r = resolve_inet(w->host, w->port, family, socktype, passive, out, e);
	return r ? err_prefix(e, "%s", name) : 0;
}

int net_parse_address(const char *text, int socktype, bool passive, struct net_address *out, struct err *e)
{
	const char *colon = strrchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : 0;
	char *host;
	int r;

	*out = (struct net_address){.len = 0};
	if (!colon)
		return err_set(e, EINVAL, "'%s' is not HOST:PORT", text);
	host = len >= 2 && text[0] == '[' && colon[-1] == ']' ? xstrndup(text + 1, len - 2) : xstrndup(text, len);
	r = resolve_inet(host, colon + 1, AF_UNSPEC, socktype, passive, out, e);
	free(host);
	return r;
}

bool net_address_is_multicast(const struct net_address *a)
{
	switch (net_address_family(a)) {
	case AF_INET:
		return IN_MULTICAST(ntohl(((const struct sockaddr_in *)a->bytes)->sin_addr.s_addr));
	case AF_INET6:
		return IN6_IS_ADDR_MULTICAST(&((const struct sockaddr_in6 *)a->bytes)->sin6_addr);
	default:
		return false;
	}
}

static void unix_name(const struct net_address *a, char *buf, size_t size)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)a->bytes;
	int max = (int)a->len - (int)offsetof(struct sockaddr_un, sun_path);

	if (max > 0 && !un->sun_path[0])
		snprintf(buf, size, "@%.*s", max - 1, un->sun_path + 1);
	else
		snprintf(buf, size, "%.*s", MAX(max, 0), un->sun_path);
}

void net_address_print(const struct net_address *a, char *buf, size_t size)
{
	char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "";
	int family = net_address_family(a);

	if (family == AF_UNIX) {
		snprintf(buf, size, "unix:");
		unix_name(a, buf + MIN(size, (size_t)5), size - MIN(size, (size_t)5));
	} else if (!family || getnameinfo(sa(a), a->len, host, sizeof(host), port, sizeof(port),
					  NI_NUMERICHOST | NI_NUMERICSERV)) {
		snprintf(buf, size, "?");
	} else {
		snprintf(buf, size, family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
	}
}

char *net_address_json(const struct net_address *a)
{
	char host[NI_MAXHOST] = "", port[NI_MAXSERV] = "";
	json_t *v;
	char *text;

	if (net_address_family(a) == AF_UNIX) {
		unix_name(a, host, sizeof(host));
		v = json_pack("{s:s, s:o?}", "type", "unix", "path", json_string(host));
		if (!json_object_get(v, "path")) /* not UTF-8 */
			json_object_set_new(v, "path", json_string("?"));
	} else {
		getnameinfo(sa(a), a->len, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
		v = json_pack("{s:s, s:s, s:s}", "type", "inet", "host", host, "port", port);
	}
	text = json_dumps(v, 0);
	json_decref(v);
	return text;
}

char *net_fd_json(const char *name)
{
	json_t *v = json_pack("{s:s, s:s}", "type", "fd", "str", name);
	char *text = v ? json_dumps(v, 0) : xstrdup("{\"type\": \"fd\", \"str\": \"?\"}"); /* not UTF-8 */

	json_decref(v);
	return text;
}

/* A socket file may be left over from a process that died; one that somebody listens on is not ours to take. */
static int clear_stale(const struct net_address *a, int socktype, struct err *e)
{
	const char *path = ((const struct sockaddr_un *)a->bytes)->sun_path;
	struct stat st;
	int fd, r;

	if (net_address_family(a) != AF_UNIX || !*path || lstat(path, &st))
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, EEXIST, "%s exists and is not a socket", path);
	fd = socket(AF_UNIX, socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, errno, "cannot make a socket");
	r = connect(fd, sa(a), a->len) ? errno : 0;
	close(fd);
	if (r != ECONNREFUSED)
		return err_set(e, EADDRINUSE, "%s is in use by another process", path);
	return unlink(path) && errno != ENOENT ? err_errno(e, errno, "cannot replace %s", path) : 0;
}

int net_bind(const struct net_address *a, int socktype, bool share_port, struct err *e)
{
	int r = clear_stale(a, socktype, e), fd, one = 1;
	char name[160];

	if (r)
		return r;
	fd = socket(net_address_family(a), socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_errno(e, errno, "cannot make a socket");
	if (share_port)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (!bind(fd, sa(a), a->len))
		return fd;
	net_address_print(a, name, sizeof(name));
	r = err_errno(e, errno, "cannot bind to %s", name);
	close(fd);
	return r;
}

void net_unbind(const struct net_address *a)
{
	const char *path = ((const struct sockaddr_un *)a->bytes)->sun_path;

	if (net_address_family(a) == AF_UNIX && *path)
		unlink(path);
}
