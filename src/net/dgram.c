/*
 * -netdev dgram: a datagram socket, with addresses as QEMU 7.2 spells them.
 *
 *   local.type=inet + remote.type=inet    UDP; a multicast remote joins the group (local: the interface, optional)
 *   local.type=unix + remote.type=unix    a unix socket: local.path is made, remote.path need not exist yet
 *   local.type=fd                         an inherited datagram socket that knows its peer
 */
#include "netdev.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/fdset.h"

struct dgram_netdev {
	struct netdev d;
	struct net_where local, remote;
	struct net_address bound;
	struct net_datagrams g;
};
#define DGRAM(x) ((struct dgram_netdev *)(x))

static const struct prop dgram_props[] = {
	NETDEV_COMMON_PROPS,
	NET_WHERE_PROPS(struct dgram_netdev, local, "local"),
	NET_WHERE_PROPS(struct dgram_netdev, remote, "remote"),
	PROP_END,
};

static int open_inherited(struct dgram_netdev *n, struct err *e)
{
	socklen_t len = sizeof(int);
	int type = 0, fd;

	if (n->remote.type)
		return err_set(e, EINVAL, "local.type=fd knows its peer: it does not go with remote.*");
	if (!n->local.str)
		return err_set(e, EINVAL, "Parameter 'local.str' is missing");
	fd = fd_name_take(n->local.str, e);
	if (fd < 0)
		return fd;
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_DGRAM) {
		close(fd);
		return err_set(e, ENOTSOCK, "fd %s is not a datagram socket", n->local.str);
	}
	return net_datagrams_start(&n->g, &n->d, 0, fd, NULL, e);
}

static int open_multicast(struct dgram_netdev *n, const struct net_address *group, struct err *e)
{
	struct net_address interface = {.len = 0};
	int fd, r = 0;

	if (n->local.type) {
		struct net_where w = n->local;

		if (!strcmp(w.type, "inet") && !w.port)
			w.port = (char *)"0";
		r = net_where_resolve(&w, "local", SOCK_DGRAM, true, &interface, e);
	}
	fd = r ? r : net_multicast_socket(group, &interface, e);
	return fd < 0 ? fd : net_datagrams_start(&n->g, &n->d, 0, fd, group, e);
}

static int open_pair(struct dgram_netdev *n, const struct net_address *remote, struct err *e)
{
	int r, fd;

	if (!n->local.type)
		return err_set(e, EINVAL, "dgram requires local= parameter");
	r = net_where_resolve(&n->local, "local", SOCK_DGRAM, true, &n->bound, e);
	if (r)
		return r;
	if (net_address_family(&n->bound) != net_address_family(remote)) {
		n->bound.len = 0;
		return err_set(e, EINVAL, "local.* and remote.* are of different kinds");
	}
	fd = net_bind(&n->bound, SOCK_DGRAM, net_address_family(remote) != AF_UNIX, e);
	if (fd < 0)
		n->bound.len = 0;
	return fd < 0 ? fd : net_datagrams_start(&n->g, &n->d, 0, fd, remote, e);
}

static int dgram_open(struct netdev *d, struct err *e)
{
	struct dgram_netdev *n = DGRAM(d);
	struct net_address remote;
	int r;

	if (n->local.type && !strcmp(n->local.type, "fd"))
		return open_inherited(n, e);
	if (!n->remote.type)
		return err_set(e, EINVAL, "dgram requires remote= parameter");
	r = net_where_resolve(&n->remote, "remote", SOCK_DGRAM, false, &remote, e);
	if (r)
		return r;
	r = net_address_is_multicast(&remote) ? open_multicast(n, &remote, e) : open_pair(n, &remote, e);
	if (r)
		net_unbind(&n->bound);
	return r;
}

static void dgram_close(struct netdev *d)
{
	net_datagrams_stop(&DGRAM(d)->g);
	net_unbind(&DGRAM(d)->bound);
}

static bool dgram_send(struct netdev *d, unsigned queue, const struct iovec *iov, int n)
{
	return net_datagrams_send(&DGRAM(d)->g, iov, n);
}

static ssize_t dgram_recv(struct netdev *d, unsigned queue, const struct iovec *iov, int n)
{
	return net_datagrams_recv(&DGRAM(d)->g, iov, n);
}

static void dgram_want(struct netdev *d, unsigned queue, bool on)
{
	net_datagrams_want(&DGRAM(d)->g, on);
}

static void dgram_describe(struct netdev *d, char *buf, size_t size)
{
	struct dgram_netdev *n = DGRAM(d);
	char local[160], remote[160];

	net_address_print(&n->bound, local, sizeof(local));
	net_address_print(&n->g.to, remote, sizeof(remote));
	if (n->local.type && !strcmp(n->local.type, "fd"))
		snprintf(buf, size, "fd=%s", n->local.str);
	else if (n->bound.len)
		snprintf(buf, size, "%s/%s", local, remote);
	else
		snprintf(buf, size, "mcast=%s", remote);
}

const struct netdev_ops netdev_dgram_ops = {
	.name = "dgram",
	.help = "a datagram socket: UDP, multicast, unix or inherited",
	.props = dgram_props,
	.size = sizeof(struct dgram_netdev),
	.open = dgram_open,
	.close = dgram_close,
	.send = dgram_send,
	.recv = dgram_recv,
	.want_packets = dgram_want,
	.describe = dgram_describe,
};
