/*
 * -netdev socket: sockets between guests, in QEMU's older spelling.
 *
 *   listen=[HOST]:PORT             a TCP server, one peer at a time; frames as in frames.c
 *   connect=HOST:PORT              its client
 *   mcast=GROUP:PORT[,localaddr=]  a multicast group as a bus
 *   udp=HOST:PORT,localaddr=HOST:PORT   a UDP tunnel
 *   fd=FD                          an inherited stream or datagram socket that has a peer
 */
#include "netdev.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/fdset.h"

struct socket_netdev {
	struct netdev d;
	char *fd_name, *listen, *connect, *mcast, *udp, *localaddr;
	bool is_stream;
	struct net_address bound;
	struct net_stream s;
	struct net_datagrams g;
};
#define SOCKET(x) ((struct socket_netdev *)(x))

static const struct prop socket_props[] = {
	NETDEV_COMMON_PROPS,
	PROP_NAMED(struct socket_netdev, "fd", fd_name, PROP_STR, .help = "inherited or passed socket: number or name"),
	PROP(struct socket_netdev, listen, PROP_STR, .help = "wait for a peer at [HOST]:PORT"),
	PROP(struct socket_netdev, connect, PROP_STR, .help = "connect to a peer at HOST:PORT"),
	PROP(struct socket_netdev, mcast, PROP_STR, .help = "multicast group GROUP:PORT"),
	PROP(struct socket_netdev, udp, PROP_STR, .help = "UDP peer HOST:PORT"),
	PROP(struct socket_netdev, localaddr, PROP_STR, .help = "udp: our HOST:PORT; mcast: address of the interface"),
	PROP_END,
};

static int open_inherited(struct socket_netdev *n, struct err *e)
{
	socklen_t len = sizeof(int);
	int type = 0, listening = 0, fd = fd_name_take(n->fd_name, e);

	if (fd < 0)
		return fd;
	getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len);
	len = sizeof(int);
	if (listening || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) ||
	    (type != SOCK_STREAM && type != SOCK_DGRAM)) {
		close(fd);
		return err_set(e, ENOTSOCK, "fd=%s is not a socket with a peer (stream or datagram)", n->fd_name);
	}
	if (type == SOCK_DGRAM)
		return net_datagrams_start(&n->g, &n->d, 0, fd, NULL, e);
	n->is_stream = true;
	return net_stream_connected(&n->s, fd, e);
}

static int open_listen(struct socket_netdev *n, struct err *e)
{
	int r = net_parse_address(n->listen, SOCK_STREAM, true, &n->bound, e), fd;

	if (r)
		return r;
	n->is_stream = true;
	fd = net_bind(&n->bound, SOCK_STREAM, true, e);
	return fd < 0 ? fd : net_stream_listen(&n->s, fd, e);
}

static int open_connect(struct socket_netdev *n, struct err *e)
{
	struct net_address a;
	int r = net_parse_address(n->connect, SOCK_STREAM, false, &a, e);

	n->is_stream = true;
	return r ? r : net_stream_connect(&n->s, &a, e);
}

static int open_multicast(struct socket_netdev *n, struct err *e)
{
	struct net_address group, interface = {.len = 0};
	int r = net_parse_address(n->mcast, SOCK_DGRAM, false, &group, e), fd;

	if (!r && n->localaddr) {
		struct net_where w = {
			.type = (char *)"inet", .host = n->localaddr, .port = (char *)"0", .ipv4 = 1, .ipv6 = 0};

		r = net_where_resolve(&w, "localaddr", SOCK_DGRAM, true, &interface, e);
	}
	fd = r ? r : net_multicast_socket(&group, &interface, e);
	return fd < 0 ? fd : net_datagrams_start(&n->g, &n->d, 0, fd, &group, e);
}

static int open_udp(struct socket_netdev *n, struct err *e)
{
	struct net_address to;
	int r, fd;

	if (!n->localaddr)
		return err_set(e, EINVAL, "localaddr= is mandatory with udp=");
	r = net_parse_address(n->udp, SOCK_DGRAM, false, &to, e);
	if (!r)
		r = net_parse_address(n->localaddr, SOCK_DGRAM, true, &n->bound, e);
	fd = r ? r : net_bind(&n->bound, SOCK_DGRAM, true, e);
	return fd < 0 ? fd : net_datagrams_start(&n->g, &n->d, 0, fd, &to, e);
}

static int socket_open(struct netdev *d, struct err *e)
{
	struct socket_netdev *n = SOCKET(d);

	if (!!n->fd_name + !!n->listen + !!n->connect + !!n->mcast + !!n->udp != 1)
		return err_set(e, EINVAL, "exactly one of listen=, connect=, mcast=, udp= or fd= is required");
	if (n->localaddr && !n->mcast && !n->udp)
		return err_set(e, EINVAL, "localaddr= is only valid with mcast= or udp=");
	n->g.fd = -1;
	net_stream_init(&n->s, d);
	if (n->fd_name)
		return open_inherited(n, e);
	if (n->listen)
		return open_listen(n, e);
	if (n->connect)
		return open_connect(n, e);
	return n->mcast ? open_multicast(n, e) : open_udp(n, e);
}

static void socket_close(struct netdev *d)
{
	net_stream_stop(&SOCKET(d)->s);
	net_datagrams_stop(&SOCKET(d)->g);
}

static bool socket_send(struct netdev *d, unsigned queue, const struct iovec *iov, int n)
{
	return SOCKET(d)->is_stream ? net_stream_send(&SOCKET(d)->s, iov, n)
				    : net_datagrams_send(&SOCKET(d)->g, iov, n);
}

static ssize_t socket_recv(struct netdev *d, unsigned queue, const struct iovec *iov, int n)
{
	return SOCKET(d)->is_stream ? net_stream_recv(&SOCKET(d)->s, iov, n)
				    : net_datagrams_recv(&SOCKET(d)->g, iov, n);
}

static void socket_want(struct netdev *d, unsigned queue, bool on)
{
	if (SOCKET(d)->is_stream)
		net_stream_want(&SOCKET(d)->s, on);
	else
		net_datagrams_want(&SOCKET(d)->g, on);
}

static void socket_describe(struct netdev *d, char *buf, size_t size)
{
	struct socket_netdev *n = SOCKET(d);
	char to[160];

	net_address_print(&n->g.to, to, sizeof(to));
	if (n->fd_name)
		snprintf(buf, size, "fd=%s", n->fd_name);
	else if (n->is_stream)
		net_stream_describe(&n->s, buf, size);
	else
		snprintf(buf, size, "socket: %s=%s", n->mcast ? "mcast" : "udp", to);
}

const struct netdev_ops netdev_socket_ops = {
	.name = "socket",
	.help = "a socket to another guest: TCP, UDP, multicast or inherited",
	.props = socket_props,
	.size = sizeof(struct socket_netdev),
	.open = socket_open,
	.close = socket_close,
	.send = socket_send,
	.recv = socket_recv,
	.want_packets = socket_want,
	.describe = socket_describe,
};
