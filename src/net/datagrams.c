/* One datagram socket as a cable: a frame per datagram. UDP, multicast, unix sockets and inherited ones. */
#include "netdev.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/log.h"

#define RETRY_NS      (200 * NS_PER_US)
#define EMPTY_AT_ONCE 16 /* empty datagrams and errors passed over in one call */

static void set_events(struct net_datagrams *g)
{
	if (!g->broken)
		loop_watch_set(g->watch, (g->in_on ? LOOP_READ : 0) | (g->out_on ? LOOP_WRITE : 0));
}

static void socket_ready(void *opaque, int fd, unsigned events)
{
	struct net_datagrams *g = opaque;

	if ((events & LOOP_WRITE) && g->out_on) {
		g->out_on = false;
		set_events(g);
		netdev_writable(g->d, g->queue);
	}
	if ((events & LOOP_READ) && g->in_on)
		netdev_readable(g->d, g->queue);
}

static void retry_fired(void *opaque)
{
	struct net_datagrams *g = opaque;

	netdev_writable(g->d, g->queue);
}

int net_datagrams_start(struct net_datagrams *g, struct netdev *d, unsigned queue, int fd, const struct net_address *to,
			struct err *e)
{
	*g = (struct net_datagrams){.d = d, .queue = queue, .fd = fd};
	if (to)
		g->to = *to;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	timer_init(&g->retry, loop_main(), VCLOCK_REAL, NULL, retry_fired, g);
	g->watch = loop_watch(loop_main(), fd, 0, NULL, socket_ready, g, e);
	if (g->watch)
		return 0;
	close(fd);
	g->fd = -1;
	return -EIO;
}

void net_datagrams_stop(struct net_datagrams *g)
{
	if (g->fd < 0)
		return;
	timer_cancel(&g->retry);
	loop_unwatch(g->watch);
	close(g->fd);
	g->fd = -1;
}

void net_datagrams_want(struct net_datagrams *g, bool on)
{
	g->in_on = on;
	set_events(g);
}

static bool wait_for_room(struct net_datagrams *g)
{
	if (net_address_family(&g->to) == AF_UNIX) {
		timer_arm(&g->retry, clock_ns(VCLOCK_REAL) + RETRY_NS);
	} else {
		g->out_on = true;
		set_events(g);
	}
	return false;
}

bool net_datagrams_send(struct net_datagrams *g, const struct iovec *iov, int n)
{
	struct msghdr msg = {.msg_name = g->to.len ? g->to.bytes : NULL,
			     .msg_namelen = g->to.len,
			     .msg_iov = (struct iovec *)iov,
			     .msg_iovlen = (size_t)n};
	ssize_t done;

	do {
		done = sendmsg(g->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (done < 0 && errno == EINTR);
	if (done >= 0)
		return true;
	if (errno == EAGAIN && !g->broken)
		return wait_for_room(g);
	/* Nobody there, no route, too long for this network: what a cable does. */
	log_debug("net", "%s: a frame was not sent: %s", netdev_id(g->d), strerror(errno));
	netdev_tx_lost(g->d);
	return true;
}

/* Errors of frames sent earlier show up here, once each. */
static bool is_passing(int code)
{
	return code == EINTR || code == ECONNREFUSED || code == ECONNRESET || code == EHOSTUNREACH ||
	       code == ENETUNREACH || code == EHOSTDOWN || code == ENETDOWN || code == EMSGSIZE || code == ENOBUFS ||
	       code == ENOMEM;
}

ssize_t net_datagrams_recv(struct net_datagrams *g, const struct iovec *iov, int n)
{
	for (int i = 0; i < EMPTY_AT_ONCE; i++) {
		struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
		ssize_t len = recvmsg(g->fd, &msg, MSG_DONTWAIT);

		if (len > 0)
			return msg.msg_flags & MSG_TRUNC ? -EMSGSIZE : len;
		if (len < 0 && errno == EAGAIN)
			return 0;
		if (len < 0 && !is_passing(errno)) {
			log_warn("net", "%s: cannot receive any more: %s", netdev_id(g->d), strerror(errno));
			loop_watch_set(g->watch, 0);
			g->broken = true;
			timer_arm(&g->retry, 0); /* what waits for room is lost */
			return 0;
		}
	}
	return 0;
}

static int join(int fd, const struct net_address *group, const struct net_address *local)
{
	int on = 1;

	if (net_address_family(group) == AF_INET6) {
		struct ipv6_mreq m = {.ipv6mr_multiaddr = ((const struct sockaddr_in6 *)group->bytes)->sin6_addr,
				      .ipv6mr_interface = ((const struct sockaddr_in6 *)group->bytes)->sin6_scope_id};

		return setsockopt(fd, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &m, sizeof(m)) ||
		       setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, &on, sizeof(on));
	}
	struct ip_mreq m = {.imr_multiaddr = ((const struct sockaddr_in *)group->bytes)->sin_addr};

	if (local->len)
		m.imr_interface = ((const struct sockaddr_in *)local->bytes)->sin_addr;
	/* Other guests on this host are members as well: they hear what we send (and so do we, as on QEMU). */
	return setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof(m)) ||
	       setsockopt(fd, IPPROTO_IP, IP_MULTICAST_LOOP, &on, sizeof(on)) ||
	       (local->len && setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &m.imr_interface, sizeof(m.imr_interface)));
}

int net_multicast_socket(const struct net_address *group, const struct net_address *local, struct err *e)
{
	char name[160];
	int fd, r;

	net_address_print(group, name, sizeof(name));
	if (!net_address_is_multicast(group))
		return err_set(e, EINVAL, "%s is not a multicast address (224.0.0.0 to 239.255.255.255, ff00::/8)",
			       name);
	if (local->len && net_address_family(local) != AF_INET)
		return err_set(e, EINVAL,
			       "the local address chooses the interface: an IPv4 address, with an IPv4 group");
	fd = net_bind(group, SOCK_DGRAM, true, e);
	if (fd < 0)
		return fd;
	if (!join(fd, group, local))
		return fd;
	r = err_errno(e, errno, "cannot join the multicast group %s", name);
	close(fd);
	return r;
}
