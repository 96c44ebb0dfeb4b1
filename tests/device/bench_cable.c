/* Cables of the device bench: one pair of sockets per queue, which outlives the board. */
#include "bench_cable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "bench.h"

#define MAX_CABLES 8

struct cable {
	char id[64];
	int here[NET_MAX_QUEUES], there[NET_MAX_QUEUES];
	struct netdev *d;
	struct bench_cable_state state;
	bool blocked;
};
static struct cable cables[MAX_CABLES];

struct bench_netdev {
	struct netdev d;
	uint32_t n_queues;
	bool vnet_hdr;
	char *script;
	struct cable *cable;
	struct net_datagrams g[NET_MAX_QUEUES];
};
#define BENCH(x) ((struct bench_netdev *)(x))

static const struct prop props[] = {
	NETDEV_COMMON_PROPS,
	PROP_NAMED(struct bench_netdev, "queues", n_queues, PROP_U32, .def = 1, .min = 1, .max = NET_MAX_QUEUES,
		   .help = "queue pairs"),
	PROP(struct bench_netdev, vnet_hdr, PROP_BOOL, .help = "takes unfinished packets"),
	PROP(struct bench_netdev, script, PROP_STR, .help = "not run"),
	PROP_END,
};

static struct cable *find(const char *id, bool make)
{
	for (unsigned i = 0; i < MAX_CABLES; i++) {
		if (!strcmp(cables[i].id, id))
			return &cables[i];
		if (*cables[i].id)
			continue;
		ck_assert_msg(make, "there is no -netdev bench,id=%s", id);
		snprintf(cables[i].id, sizeof(cables[i].id), "%s", id);
		return &cables[i];
	}
	ck_abort_msg("too many cables");
}

static int bench_open(struct netdev *d, struct err *e)
{
	struct bench_netdev *n = BENCH(d);

	n->cable = find(d->id, true);
	n->cable->d = d;
	n->cable->state = (struct bench_cable_state){.active = n->n_queues};
	d->queues = n->n_queues;
	for (unsigned q = 0; q < d->queues; q++) {
		int pair[2], size = 4 * 1024 * 1024;

		if (!n->cable->there[q]) {
			ck_assert(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
			n->cable->here[q] = pair[0];
			n->cable->there[q] = pair[1];
			setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
			setsockopt(pair[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
		}
		if (net_datagrams_start(&n->g[q], d, q, dup(n->cable->there[q]), NULL, e))
			return -EIO;
	}
	return 0;
}

static void bench_close(struct netdev *d)
{
	for (unsigned q = 0; q < d->queues; q++)
		net_datagrams_stop(&BENCH(d)->g[q]);
	BENCH(d)->cable->d = NULL;
}

static bool bench_send(struct netdev *d, unsigned queue, const struct iovec *iov, int n)
{
	return !BENCH(d)->cable->blocked && net_datagrams_send(&BENCH(d)->g[queue], iov, n);
}

static ssize_t bench_recv(struct netdev *d, unsigned queue, const struct iovec *iov, int n)
{
	return net_datagrams_recv(&BENCH(d)->g[queue], iov, n);
}

static void bench_want(struct netdev *d, unsigned queue, bool on)
{
	BENCH(d)->cable->state.reading[queue] = on;
	net_datagrams_want(&BENCH(d)->g[queue], on);
}

static unsigned bench_offloads(const struct netdev *d)
{
	return BENCH(d)->vnet_hdr ? NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN | NET_UFO : 0;
}

static int bench_set_vnet_header(struct netdev *d, unsigned len)
{
	if (len && !BENCH(d)->vnet_hdr)
		return -ENOTSUP;
	BENCH(d)->cable->state.vnet_len = len;
	return 0;
}

static void bench_set_offloads(struct netdev *d, unsigned offloads)
{
	BENCH(d)->cable->state.offloads = offloads;
}

static void bench_set_queues(struct netdev *d, unsigned active)
{
	BENCH(d)->cable->state.active = active;
}

const struct netdev_ops bench_cable_ops = {
	.name = "bench",
	.help = "the other end is a test",
	.props = props,
	.size = sizeof(struct bench_netdev),
	.open = bench_open,
	.close = bench_close,
	.send = bench_send,
	.recv = bench_recv,
	.want_packets = bench_want,
	.offloads = bench_offloads,
	.set_vnet_header = bench_set_vnet_header,
	.set_offloads = bench_set_offloads,
	.set_queues = bench_set_queues,
};

void bench_cable_send(struct board *b, const char *id, unsigned queue, const void *frame, size_t len)
{
	ck_assert_int_eq(send(find(id, false)->here[queue], frame, len, MSG_DONTWAIT), (ssize_t)len);
	bench_idle(b);
}

size_t bench_cable_recv(struct board *b, const char *id, unsigned queue, void *buf, size_t size)
{
	ssize_t n;

	bench_idle(b);
	n = recv(find(id, false)->here[queue], buf, size, MSG_DONTWAIT);
	return n < 0 ? 0 : (size_t)n;
}

struct bench_cable_state bench_cable_state(const char *id)
{
	return find(id, false)->state;
}

void bench_cable_block(struct board *b, const char *id, bool on)
{
	struct cable *c = find(id, false);

	c->blocked = on;
	for (unsigned q = 0; !on && c->d && q < c->d->queues; q++)
		netdev_writable(c->d, q);
	bench_idle(b);
}
