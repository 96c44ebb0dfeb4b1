/*
 * The RTL8139C+ sends: four buffers in turn (C mode; DS 5.5, PG 2) or rings of descriptors (C+ mode, DS 6.1), with
 * checksums, large sends (TCP over IPv4) and VLAN tags.
 *
 * A doorbell schedules a bottom half; each of its runs handles a bounded number of frames. What is not sent stays the
 * guest's: a busy network needs no copy here, the frame is read again when there is room. Of a large send the number of
 * segments that are out is remembered.
 */
#include "src/devices/net/rtl8139.h"

#define TURN_FRAMES 16

/* C mode */
#define TSD_SIZE  0x1fffu
#define TSD_OWN   0x00002000u
#define TSD_TOK   0x00008000u
#define TSD_TABT  0x40000000u
#define C_TX_MAX  1792 /* DS 5.5 */
#define TCR_ABORT 1

/* C+ mode */
#define TX_LGSEN  0x08000000u
#define TX_IPCS   0x00040000u
#define TX_UDPCS  0x00020000u
#define TX_TCPCS  0x00010000u
#define TX_TES    0x00800000u /* written back: an error */
#define TX_TAGC   0x00020000u
#define CHAIN_MAX RTL_RING

static uint8_t packet[NET_PACKET_MAX + ETH_VLAN], segment[NET_PACKET_MAX + ETH_VLAN]; /* main loop */

bool rtl8139_loopback(const struct rtl8139 *s)
{
	return (rtl_reg32(s, TCR) & TCR_LOOPBACK) == TCR_LOOPBACK;
}

static bool cplus(const struct rtl8139 *s)
{
	return rtl_reg16(s, CPCR) & CPCR_TX;
}

static bool sending(const struct rtl8139 *s)
{
	return s->regs[CR] & CR_TE && !s->card.paused && pci_bus_master(&s->card.dev);
}

/* One frame; it has room for what is added. False: the network is busy. */
static bool send(struct rtl8139 *s, uint8_t *frame, uint32_t len)
{
	struct iovec iov = {.iov_base = frame};

	/* Without CRC the driver brings the FCS, which the network does not want. */
	if (rtl_reg32(s, TCR) & TCR_NO_CRC && net_has_fcs(frame, len))
		len -= ETH_FCS;
	if (len < ETH_MIN) {
		memset(frame + len, 0, ETH_MIN - len);
		len = ETH_MIN;
	}
	iov.iov_len = len;
	if (rtl8139_loopback(s))
		rtl8139_rx_loop(s, frame, len);
	else if (!netdev_send(&s->card.nic, 0, &iov, 1))
		return false;
	s->tally.tx_ok++;
	return true;
}

static bool from_ram(struct rtl8139 *s, uint64_t at, uint8_t *to, uint32_t len)
{
	if (!len || !dma_read(&s->card.dev, at, to, len))
		return true;
	log_guest(&s->card.dev.guest_log, "rtl8139", "%s: transmit buffer at 0x%llx is not in memory", s->card.dev.id,
		  (unsigned long long)at);
	return false;
}

/* ---- C mode ---- */

static void c_done(struct rtl8139 *s, uint8_t *reg, uint32_t status, uint16_t interrupt)
{
	put_le32(reg, get_le32(reg) | TSD_OWN | status);
	s->tx_next = (s->tx_next + 1) & 3;
	rtl8139_cause(s, interrupt);
}

static void c_run(struct rtl8139 *s)
{
	for (unsigned i = 0; i < 4; i++) {
		uint8_t *reg = s->regs + TSD + 4 * s->tx_next;
		uint32_t tsd = get_le32(reg), len = tsd & TSD_SIZE;

		if (tsd & TSD_OWN)
			return;
		if (len > C_TX_MAX || len < ETH_HEADER ||
		    !from_ram(s, rtl_reg32(s, TSAD + 4u * s->tx_next), packet, len)) {
			log_guest(&s->card.dev.guest_log, "rtl8139", "%s: a frame of %u bytes is not sent",
				  s->card.dev.id, len);
			s->tally.tx_abort++;
			c_done(s, reg, TSD_TABT, INT_TER);
			continue;
		}
		if (!send(s, packet, len))
			return;
		c_done(s, reg, TSD_TOK, INT_TOK);
	}
}

/* ---- C+ mode ---- */

struct chain {
	unsigned n; /* descriptors */
	uint32_t len;
	uint32_t opts1, opts2; /* of the first */
	bool bad;
};

static uint64_t desc_at(const struct rtl8139 *s, unsigned queue, unsigned i)
{
	return (get_le64(s->regs + (queue ? THPDS : TNPDS)) & ~255ull) + i * RTL_DESC;
}

static unsigned after(unsigned i, uint32_t opts1)
{
	return opts1 & DESC_EOR || i == RTL_RING - 1 ? 0 : i + 1;
}

/* Gather the packet at the ring's head. False: it is not (all) there. */
static bool gather(struct rtl8139 *s, unsigned queue, struct chain *c)
{
	unsigned i = s->cp_tx_next[queue];
	uint8_t desc[RTL_DESC];
	uint32_t opts1;

	*c = (struct chain){0};
	do {
		uint32_t n;

		if (c->n == CHAIN_MAX || dma_read(&s->card.dev, desc_at(s, queue, i), desc, sizeof(desc)))
			return false;
		opts1 = get_le32(desc);
		n = opts1 & 0xffff;
		if (!(opts1 & DESC_OWN))
			return false;
		if (!c->n) {
			c->opts1 = opts1;
			c->opts2 = get_le32(desc + 4);
		}
		c->n++;
		if (c->bad || c->len + n > NET_PACKET_MAX || !from_ram(s, get_le64(desc + 8), packet + c->len, n))
			c->bad = true;
		else
			c->len += n;
		i = after(i, opts1);
	} while (!(opts1 & DESC_LS));
	c->bad |= !(c->opts1 & DESC_FS) || c->len < ETH_HEADER;
	return true;
}

/* Give the chain back. The low half is the length, which drivers look at again. */
static void release(struct rtl8139 *s, unsigned queue, const struct chain *c)
{
	for (unsigned k = 0; k < c->n; k++) {
		uint64_t at = desc_at(s, queue, s->cp_tx_next[queue]);
		uint8_t raw[4];
		uint32_t opts1;

		if (dma_read(&s->card.dev, at, raw, sizeof(raw)))
			return;
		opts1 = get_le32(raw);
		put_le32(raw, (opts1 & (DESC_EOR | DESC_FS | DESC_LS | 0xffff)) | (c->bad ? TX_TES : 0));
		dma_write(&s->card.dev, at, raw, sizeof(raw));
		s->cp_tx_next[queue] = (uint8_t)after(s->cp_tx_next[queue], opts1);
	}
	s->cp_segment[queue] = 0;
}

static bool send_tagged(struct rtl8139 *s, const struct chain *c, uint8_t *frame, uint32_t len)
{
	if (c->opts2 & TX_TAGC) /* the tag is in the order of the wire */
		len = (uint32_t)net_insert_vlan(frame, len, ETHERTYPE_VLAN, __builtin_bswap16((uint16_t)c->opts2));
	return send(s, frame, len);
}

/* A large send: TCP over IPv4. 1: it is out; 0: more to do; -1: the network is busy. */
static int send_segments(struct rtl8139 *s, unsigned queue, const struct chain *c, const struct net_headers *h,
			 unsigned *frames)
{
	uint32_t header = h->l4 + (packet[h->l4 + 12] >> 4) * 4u, mss = c->opts1 >> 16 & 0x7ff, total = h->end - header;
	struct net_segments how = {.header = header, .l3 = h->l3, .l4 = h->l4, .mss = (uint16_t)mss, .tcp = true};

	for (uint32_t done; (done = s->cp_segment[queue] * mss) < total; s->cp_segment[queue]++) {
		uint32_t n = MIN(mss, total - done);
		struct net_headers sh;

		if (!*frames)
			return 0;
		memcpy(segment, packet, header);
		memcpy(segment + header, packet + header + done, n);
		net_segment_header(segment, &how, s->cp_segment[queue], n, done + n == total);
		net_parse(segment, header + n, &sh);
		net_put_ip_checksum(segment, &sh);
		net_put_l4_checksum(segment, &sh);
		if (!send_tagged(s, c, segment, header + n))
			return -1;
		--*frames;
	}
	return 1;
}

static bool can_segment(const struct chain *c, const struct net_headers *h)
{
	uint32_t header;

	if (!(c->opts1 & TX_LGSEN) || !(c->opts1 >> 16 & 0x7ff) || h->ip != 4 || !h->l4 || h->protocol != IP_TCP)
		return false;
	header = h->l4 + (packet[h->l4 + 12] >> 4) * 4u;
	return header >= h->l4 + 20 && header < h->end;
}

/* A large packet is as long as its buffers, whatever its IP header says. */
static void set_total_length(const struct chain *c)
{
	unsigned l3 = ETH_HEADER + (get_be16(packet + ETH_TYPE) == ETHERTYPE_VLAN ? ETH_VLAN : 0);

	if (c->opts1 & TX_LGSEN && c->len >= l3 + 20 && packet[l3] >> 4 == 4)
		put_be16(packet + l3 + 2, (uint16_t)(c->len - l3));
}

static int send_packet(struct rtl8139 *s, unsigned queue, struct chain *c, unsigned *frames)
{
	struct net_headers h;

	set_total_length(c);
	net_parse(packet, c->len, &h);
	if (can_segment(c, &h))
		return send_segments(s, queue, c, &h, frames);
	if (!(c->opts1 & TX_LGSEN) && h.ip == 4) {
		if (c->opts1 & TX_IPCS)
			net_put_ip_checksum(packet, &h);
		if (c->opts1 & (h.protocol == IP_TCP ? TX_TCPCS : TX_UDPCS))
			net_put_l4_checksum(packet, &h);
	}
	--*frames;
	return send_tagged(s, c, packet, c->len) ? 1 : -1;
}

/* True: there may be more. */
static bool cplus_run(struct rtl8139 *s, unsigned queue)
{
	unsigned frames = TURN_FRAMES;
	struct chain c;

	while (frames) {
		int r = 1;

		if (!gather(s, queue, &c)) {
			s->cp_tx_poll[queue] = false;
			rtl8139_cause(s, INT_TDU);
			return false;
		}
		if (c.bad) {
			log_guest(&s->card.dev.guest_log, "rtl8139", "%s: a chain of %u descriptors is no frame",
				  s->card.dev.id, c.n);
			s->tally.tx_error++;
			frames--;
		} else {
			r = send_packet(s, queue, &c, &frames);
		}
		if (r < 0)
			return false;
		if (r == 0)
			break;
		release(s, queue, &c);
		rtl8139_cause(s, c.bad ? INT_TER : INT_TOK);
	}
	return true;
}

void rtl8139_tx_run(void *opaque)
{
	struct rtl8139 *s = opaque;
	bool more = false;

	if (!sending(s))
		return;
	if (!cplus(s)) {
		c_run(s);
		return;
	}
	for (unsigned queue = 2; queue-- > 0;) /* high priority first */
		if (s->cp_tx_poll[queue])
			more |= cplus_run(s, queue);
	if (more)
		bh_schedule(&s->card.tx_bh);
}

void rtl8139_tx_update(struct rtl8139 *s)
{
	if (sending(s))
		bh_schedule(&s->card.tx_bh);
}

void rtl8139_writable(struct nic *n, unsigned queue)
{
	rtl8139_tx_update(container_of(n, struct rtl8139, card.nic));
}

void rtl8139_tx_restart(struct rtl8139 *s)
{
	s->tx_next = 0;
	for (unsigned i = 0; i < 4; i++)
		put_le32(s->regs + TSD + 4 * i, TSD_OWN);
	memset(s->cp_tx_next, 0, sizeof(s->cp_tx_next));
	memset(s->cp_tx_poll, 0, sizeof(s->cp_tx_poll));
	memset(s->cp_segment, 0, sizeof(s->cp_segment));
}
