/*
 * -netdev stream: a stream socket, with addresses as QEMU 7.2 spells them; frames as in frames.c.
 *
 *   addr.type=inet|unix|fd,...      connect there
 *   ...,server=on                   listen there; one peer at a time
 *
 * Left out: reconnect=, which is newer than QEMU 7.2.
 */
#include "netdev.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/fdset.h"

struct stream_netdev {
	struct netdev d;
	struct net_where addr;
	bool server;
	struct net_address bound;
	struct net_stream s;
};
#define STREAM(x) ((struct stream_netdev *)(x))

static const struct prop stream_props[] = {
	NETDEV_COMMON_PROPS,
	PROP(struct stream_netdev, server, PROP_BOOL, .help = "listen instead of connecting"),
	NET_WHERE_PROPS(struct stream_netdev, addr, "addr"),
	PROP_NAMED(struct stream_netdev, "addr.keep-alive", addr.keep_alive, PROP_BOOL,
		   .help = "inet: notice a peer that is gone"),
	PROP_END,
};

static int open_inherited(struct stream_netdev *n, struct err *e)
{
	socklen_t len = sizeof(int);
	int type = 0, listening = 0, fd;

	if (!n->addr.str)
		return err_set(e, EINVAL, "Parameter 'addr.str' is missing");
	fd = fd_name_take(n->addr.str, e);
	if (fd < 0)
		return fd;
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_STREAM) {
		close(fd);
		return err_set(e, ENOTSOCK, "fd %s is not a stream socket", n->addr.str);
	}
	len = sizeof(int);
	getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len);
	if (listening && !n->server) {
		close(fd);
		return err_set(e, EINVAL, "fd %s is a listening socket, which does not go with server=off",
			       n->addr.str);
	}
	if (n->server)
		return net_stream_listen(&n->s, fd, e);
	n->s.fd_name = n->addr.str;
	return net_stream_connected(&n->s, fd, e);
}

static int stream_open(struct netdev *d, struct err *e)
{
	struct stream_netdev *n = STREAM(d);
	struct net_address a;
	int r, fd;

	if (!n->addr.type)
		return err_set(e, EINVAL, "Parameter 'addr.type' is missing");
	net_stream_init(&n->s, d);
	n->s.events = true;
	n->s.keep_alive = n->addr.keep_alive;
	if (!strcmp(n->addr.type, "fd"))
		return open_inherited(n, e);
	r = net_where_resolve(&n->addr, "addr", SOCK_STREAM, n->server, &a, e);
	if (r)
		return r;
	if (!n->server)
		return net_stream_connect(&n->s, &a, e);
	fd = net_bind(&a, SOCK_STREAM, true, e);
	if (fd < 0)
		return fd;
	n->bound = a;
	r = net_stream_listen(&n->s, fd, e);
	if (r)
		net_unbind(&n->bound);
	return r;
}

static void stream_close(struct netdev *d)
{
	net_stream_stop(&STREAM(d)->s);
	net_unbind(&STREAM(d)->bound);
}

static bool stream_send(struct netdev *d, unsigned queue, const struct iovec *iov, int n)
{
	return net_stream_send(&STREAM(d)->s, iov, n);
}

static ssize_t stream_recv(struct netdev *d, unsigned queue, const struct iovec *iov, int n)
{
	return net_stream_recv(&STREAM(d)->s, iov, n);
}

static void stream_want(struct netdev *d, unsigned queue, bool on)
{
	net_stream_want(&STREAM(d)->s, on);
}

static void stream_describe(struct netdev *d, char *buf, size_t size)
{
	net_stream_describe(&STREAM(d)->s, buf, size);
}

const struct netdev_ops netdev_stream_ops = {
	.name = "stream",
	.help = "a stream socket to another guest: TCP, unix or inherited",
	.props = stream_props,
	.size = sizeof(struct stream_netdev),
	.open = stream_open,
	.close = stream_close,
	.send = stream_send,
	.recv = stream_recv,
	.want_packets = stream_want,
	.describe = stream_describe,
};
