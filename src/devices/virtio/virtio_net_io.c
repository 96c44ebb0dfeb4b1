/*
 * virtio-net's packets (VIRTIO 1.2 sections 5.1.6.2 to 5.1.6.4).
 *
 * Receiving: packets are pulled straight into the driver's buffers. How many chains a packet needs is only known once
 * it is here, so as many are mapped as packets needed lately, with a bounce buffer behind them for what is longer; with
 * mergeable buffers its contents go on into further chains. If the driver has too few, the packet waits until it offers
 * more.
 *
 * Sending: a chain goes to the netdev as it is, behind a copy of its header that was checked. One that the netdev has
 * no room for goes back to the ring, so that there is nothing to save; the queue waits until the netdev takes packets
 * again.
 */
#include "virtio_net.h"

#include <errno.h>
#include <stdlib.h>

#define IOV_MAX_USED  256 /* pieces of a packet; one in more pieces is copied */
#define RX_PER_TURN   64  /* packets */
#define EXPECT_DECAYS 8

enum { GSO_NONE = 0, GSO_TCPV4 = 1, GSO_UDP = 3, GSO_TCPV6 = 4, GSO_ECN = 0x80 };

static struct vnet_pair *pair_of(struct virtq *vq)
{
	return &vnet_of(vq->v)->pair[vq->index / 2];
}

static bool in_use(struct vnet *s, unsigned pair)
{
	return virtio_running(&s->v) && !s->v.paused && pair < s->pairs;
}

/* ---- receive: chains in hand ---- */

/* Have chains for at least `want` bytes in hand. False: the driver has no more, or broke the rules. */
static bool take_chains(struct vnet *s, unsigned i, uint64_t want)
{
	struct vnet_pair *p = &s->pair[i];
	struct virtq *vq = vnet_rx_queue(s, i);
	bool merges = virtio_has(&s->v, VNET_MRG_RXBUF);

	while (p->rx_room < want && (merges || !p->n_rx) && p->n_rx < vq->max) {
		struct virtq_elem *el = virtq_pop(vq);

		if (!el)
			return false;
		if (el->in_len < (p->n_rx ? 1 : vnet_header_size(s))) {
			virtq_drop(el);
			virtio_fail(&s->v, "receive queue %u: a buffer without room", i);
			return false;
		}
		p->rx[p->n_rx++] = el;
		p->rx_room += el->in_len;
	}
	return p->rx_room >= want;
}

static void give_back(struct vnet_pair *p)
{
	while (p->n_rx)
		virtq_unpop(p->rx[--p->n_rx]);
	p->rx_room = 0;
}

void vnet_give_back(struct vnet *s)
{
	for (unsigned i = 0; i < s->max_pairs; i++)
		give_back(&s->pair[i]);
}

static void forget_pending(struct vnet_pair *p)
{
	free(p->pending);
	p->pending = NULL;
	p->pending_len = 0;
}

void vnet_drop_packets(struct vnet *s)
{
	for (unsigned i = 0; i < s->max_pairs; i++) {
		struct vnet_pair *p = &s->pair[i];

		while (p->n_rx)
			virtq_drop(p->rx[--p->n_rx]);
		p->rx_room = 0;
		p->expect = 0;
		p->tx_blocked = false;
		forget_pending(p);
	}
}

/* Bytes to the chains in hand, `offset` from the start of the first. */
static bool scatter(struct vnet_pair *p, uint64_t offset, const uint8_t *buf, size_t len)
{
	for (unsigned i = 0; i < p->n_rx && len; i++) {
		size_t part;

		if (offset >= p->rx[i]->in_len) {
			offset -= p->rx[i]->in_len;
			continue;
		}
		part = MIN(len, (size_t)(p->rx[i]->in_len - offset));
		if (virtq_write(p->rx[i], offset, buf, part) != part)
			return false;
		buf += part;
		len -= part;
		offset = 0;
	}
	return !len;
}

/* The chains in hand hold a packet of `total` bytes: fill in the header's rest, and give those that it takes to the
 * driver. */
static void deliver(struct vnet *s, unsigned i, size_t total)
{
	struct vnet_pair *p = &s->pair[i];
	uint8_t header[VNET_HDR_SIZE] = {0};
	unsigned size = vnet_header_size(s), n = 0;
	size_t left = total;

	for (size_t sum = 0; sum < total && n < p->n_rx; n++)
		sum += p->rx[n]->in_len;
	put_le16(header + VNET_HDR_NUM_BUFFERS, (uint16_t)n);
	if (!s->has_header)
		scatter(p, 0, header, size);
	else if (size == VNET_HDR_SIZE)
		scatter(p, VNET_HDR_NUM_BUFFERS, header + VNET_HDR_NUM_BUFFERS, 2);
	for (unsigned k = 0; k < n; k++) {
		uint32_t part = (uint32_t)MIN(left, (size_t)p->rx[k]->in_len);

		p->rx_room -= p->rx[k]->in_len;
		left -= part;
		virtq_push(p->rx[k], part);
	}
	p->n_rx -= n;
	memmove(p->rx, p->rx + n, p->n_rx * sizeof(*p->rx));
	p->expect = MAX(total, p->expect - p->expect / EXPECT_DECAYS);
}

/* ---- receive: a packet that waits for buffers ---- */

/* True: it does not wait any more. */
static bool deliver_pending(struct vnet *s, unsigned i)
{
	struct vnet_pair *p = &s->pair[i];
	bool enough = take_chains(s, i, p->pending_len);

	if (enough && scatter(p, 0, p->pending, p->pending_len)) {
		deliver(s, i, p->pending_len);
	} else if (!s->v.broken && !enough && p->n_rx < vnet_rx_queue(s, i)->size) {
		return false;
	}
	/* Otherwise it can never fit, as all the driver's buffers together are too small. */
	forget_pending(p);
	return true;
}

/* ---- receive: pulling ---- */

/* What is mapped for the next packet. */
struct landing {
	struct iovec iov[IOV_MAX_USED + 1];
	int n;           /* the guest's */
	uint64_t skip;   /* bytes of the header before it, which the device writes */
	uint64_t mapped; /* bytes of the guest's */
};

/* Host pointers for the chains in hand, and the bounce buffer behind them. */
static bool map_landing(struct vnet *s, struct vnet_pair *p, struct landing *l)
{
	l->n = 0;
	l->mapped = 0;
	l->skip = s->has_header ? 0 : vnet_header_size(s);
	for (unsigned i = 0; i < p->n_rx; i++) {
		uint64_t offset = i ? 0 : l->skip;
		int r = virtq_map(p->rx[i], DMA_FROM_DEVICE, offset, p->rx[i]->in_len - offset, l->iov + l->n,
				  IOV_MAX_USED - l->n);

		if (r == -E2BIG)
			break; /* the rest is copied */
		if (r < 0) {
			virtio_fail(&s->v, "a receive buffer that is not in RAM");
			return false;
		}
		l->n += r;
		l->mapped += p->rx[i]->in_len - offset;
	}
	l->iov[l->n] = (struct iovec){s->bounce, NET_HEADER_MAX + NET_PACKET_MAX};
	return true;
}

/* The first bytes of what has landed. */
static size_t peek(const struct landing *l, uint8_t *buf, size_t len)
{
	size_t done = 0;

	for (int i = 0; i <= l->n && done < len; i++) {
		size_t part = MIN(len - done, l->iov[i].iov_len);

		memcpy(buf + done, l->iov[i].iov_base, part);
		done += part;
	}
	return done;
}

static void poke(const struct landing *l, size_t offset, const uint8_t *buf, size_t len)
{
	for (int i = 0; i <= l->n && len; i++) {
		size_t part;

		if (offset >= l->iov[i].iov_len) {
			offset -= l->iov[i].iov_len;
			continue;
		}
		part = MIN(len, l->iov[i].iov_len - offset);
		memcpy((uint8_t *)l->iov[i].iov_base + offset, buf, part);
		buf += part;
		len -= part;
		offset = 0;
	}
}

/* Frames from a DHCP server on this host have no checksum yet, and DHCP clients of old look at it themselves: sum them
 * up. */
static void sum_dhcp(const struct landing *l, size_t header, size_t len)
{
	uint8_t p[1600], *f = p + header;
	size_t start, at;
	uint32_t sum = 0;

	if (len > sizeof(p) || peek(l, p, len) < header + 42 || !(p[VNET_HDR_FLAGS] & VNET_HDR_NEEDS_CSUM))
		return;
	/* IPv4 without options, UDP, from the server's port */
	if (get_be16(f + 12) != 0x0800 || f[14] != 0x45 || f[23] != 17 || get_be16(f + 34) != 67)
		return;
	start = get_le16(p + VNET_HDR_CSUM_START);
	at = start + get_le16(p + VNET_HDR_CSUM_OFFSET);
	if (header + at + 2 > len)
		return;
	for (size_t i = start; header + i < len; i += 2)
		sum += header + i + 1 < len ? get_be16(f + i) : (uint32_t)f[i] << 8;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~(sum + (sum >> 16)) & 0xffff;
	put_be16(f + at, (uint16_t)(sum ? sum : 0xffff)); /* 0 says: none */
	p[VNET_HDR_FLAGS] &= (uint8_t)~VNET_HDR_NEEDS_CSUM;
	poke(l, VNET_HDR_FLAGS, p, 1);
	poke(l, header + at, f + at, 2);
}

/* The driver has too few chains for what has landed (len bytes): keep all of it in one piece. */
static void keep(struct vnet *s, struct vnet_pair *p, const struct landing *l, size_t len)
{
	p->pending_len = l->skip + len;
	p->pending = xzalloc(p->pending_len);
	peek(l, p->pending + l->skip, len);
}

/* len bytes have landed. False: it waits for more buffers. */
static bool land(struct vnet *s, unsigned i, const struct landing *l, size_t len)
{
	struct vnet_pair *p = &s->pair[i];
	uint8_t head[VNET_HDR_SIZE + 18];
	size_t header = s->has_header ? vnet_header_size(s) : 0, total = l->skip + len, known;

	dma_unmap(&s->v.dev, DMA_FROM_DEVICE, l->iov, l->n, len);
	known = peek(l, head, MIN(len, sizeof(head)));
	if (known < header + 14 || !vnet_passes(s, head + header, known - header))
		return true; /* the next one comes to the same place */
	if (header)
		sum_dhcp(l, header, len);
	if (!take_chains(s, i, total)) {
		if (s->v.broken || !virtio_has(&s->v, VNET_MRG_RXBUF))
			return true;
		keep(s, p, l, len);
		return deliver_pending(s, i);
	}
	if (len <= l->mapped || scatter(p, l->skip + l->mapped, s->bounce, len - l->mapped))
		deliver(s, i, total);
	return true;
}

/* No buffers: have the driver ring when it offers some. */
static void starve(struct vnet *s, unsigned i)
{
	struct virtq *vq = vnet_rx_queue(s, i);

	nic_want_packets(&s->nic, i, false);
	virtq_want_rings(vq, true);
	if (!virtq_empty(vq))
		virtq_schedule(vq);
}

void vnet_readable(struct nic *nic, unsigned i)
{
	struct vnet *s = vnet_of_nic(nic);
	struct vnet_pair *p = &s->pair[i];
	struct landing l;
	bool room = true;

	if (!in_use(s, i)) {
		nic_want_packets(nic, i, false);
		return;
	}
	vnet_configure(s);
	for (unsigned n = 0; n < RX_PER_TURN && room && !s->v.broken; n++) {
		bool bounces;
		ssize_t len;

		room = !p->pending || deliver_pending(s, i);
		if (!room)
			break;
		take_chains(s, i, vnet_header_size(s) + p->expect);
		room = p->n_rx;
		if (!room || !map_landing(s, p, &l))
			break;
		/* Without mergeable buffers a longer packet is lost, unless the chain's many pieces were not mapped. */
		bounces = virtio_has(&s->v, VNET_MRG_RXBUF) || !l.n;
		len = netdev_recv(nic, i, l.iov, l.n + bounces);
		if (!len)
			break;
		if (len < 0)
			dma_unmap(&s->v.dev, DMA_FROM_DEVICE, l.iov, l.n, l.mapped);
		else
			room = land(s, i, &l, (size_t)len);
	}
	if (!p->pending)
		give_back(p);
	virtq_notify(vnet_rx_queue(s, i));
	if (!room)
		starve(s, i);
}

void vnet_run_rx(struct virtq *vq)
{
	struct vnet *s = vnet_of(vq->v);
	unsigned i = vq->index / 2;

	if (!in_use(s, i))
		return;
	vnet_configure(s);
	if (s->pair[i].pending) {
		if (!deliver_pending(s, i)) {
			starve(s, i);
			return;
		}
		give_back(&s->pair[i]);
		virtq_notify(vq);
	}
	if (virtq_empty(vq)) {
		starve(s, i);
		return;
	}
	virtq_want_rings(vq, false);
	nic_want_packets(&s->nic, i, true);
}

/* ---- send ---- */

static bool may_gso(const struct vnet *s, uint8_t type)
{
	bool all = virtio_has(&s->v, VNET_GSO);

	switch (type & ~GSO_ECN) {
	case GSO_TCPV4:
		return all || virtio_has(&s->v, type & GSO_ECN ? VNET_HOST_ECN : VNET_HOST_TSO4);
	case GSO_TCPV6:
		return all || virtio_has(&s->v, type & GSO_ECN ? VNET_HOST_ECN : VNET_HOST_TSO6);
	case GSO_UDP:
		return !(type & GSO_ECN) && (all || virtio_has(&s->v, VNET_HOST_UFO));
	default:
		return false;
	}
}

/* The header of a frame of len bytes asks for what was negotiated and makes sense (5.1.6.2.1); put right what is only a
 * hint. */
static bool check_header(const struct vnet *s, uint8_t *header, uint64_t len)
{
	uint8_t type = header[VNET_HDR_GSO_TYPE];

	header[VNET_HDR_FLAGS] &= VNET_HDR_NEEDS_CSUM;
	put_le16(header + VNET_HDR_NUM_BUFFERS, 0);
	if (get_le16(header + VNET_HDR_LEN) > len)
		put_le16(header + VNET_HDR_LEN, (uint16_t)len);
	if (header[VNET_HDR_FLAGS] &&
	    (!virtio_has(&s->v, VNET_CSUM) ||
	     get_le16(header + VNET_HDR_CSUM_START) + get_le16(header + VNET_HDR_CSUM_OFFSET) + 2ull > len))
		return false;
	return type == GSO_NONE || (may_gso(s, type) && get_le16(header + VNET_HDR_GSO_SIZE));
}

/* False: the netdev has no room. What cannot be sent is counted as lost by the netdev, as a packet of no bytes. */
static bool send_chain(struct vnet *s, unsigned i, const struct virtq_elem *el)
{
	unsigned size = vnet_header_size(s);
	uint8_t header[VNET_HDR_SIZE] = {0};
	uint64_t len = el->out_len - size;
	struct iovec iov[IOV_MAX_USED + 1];
	int n = s->has_header, r;

	if (virtq_read(el, 0, header, size) != size || !check_header(s, header, len)) {
		log_guest(&s->v.dev.guest_log, "virtio", "%s: a packet's header asks for what is not possible",
			  s->v.dev.id);
		return netdev_send(&s->nic, i, NULL, 0);
	}
	iov[0] = (struct iovec){header, size};
	r = virtq_map(el, DMA_TO_DEVICE, size, len, iov + n, IOV_MAX_USED);
	if (r == -E2BIG && len <= NET_PACKET_MAX && virtq_read(el, size, s->bounce, len) == len) {
		iov[n] = (struct iovec){s->bounce, len};
		r = 1;
	}
	return netdev_send(&s->nic, i, iov, r < 0 ? 0 : n + r);
}

void vnet_run_tx(struct virtq *vq)
{
	struct vnet *s = vnet_of(vq->v);
	struct vnet_pair *p = pair_of(vq);
	struct virtq_elem *el;

	if (!in_use(s, vq->index / 2) || p->tx_blocked)
		return;
	vnet_configure(s);
	virtq_want_rings(vq, false);
	while ((el = virtq_pop(vq))) {
		if (el->out_len < vnet_header_size(s)) {
			virtq_drop(el);
			virtio_fail(vq->v, "transmit queue %u: a packet shorter than its header", vq->index / 2);
			return;
		}
		if (!send_chain(s, vq->index / 2, el)) {
			p->tx_blocked = true;
			virtq_unpop(el);
			break;
		}
		virtq_push(el, 0);
	}
	virtq_notify(vq);
	if (p->tx_blocked || !vq->budget)
		return; /* it is run again: by the netdev, or because there may be more */
	virtq_want_rings(vq, true);
	if (!virtq_empty(vq)) {
		virtq_want_rings(vq, false);
		virtq_schedule(vq);
	}
}

void vnet_writable(struct nic *nic, unsigned i)
{
	struct vnet *s = vnet_of_nic(nic);

	s->pair[i].tx_blocked = false;
	virtq_schedule(vnet_tx_queue(s, i));
}
