/*
 * The 82540EM receives: SDM 3.2 (descriptors, write-back, thresholds, delay timers, checksums), 13.5 (filters), 9
 * (VLANs).
 *
 * Frames are fetched when the ring has room; one that needs more descriptors than there are waits here for the driver,
 * so that nothing is lost that the network can hold back. Overruns happen in loopback only, and for a frame that the
 * whole ring could not take. Left out: prefetching (RXDCTL; descriptors are read one by one and written back at once),
 * packet splitting (other chips), wake-up by packets.
 */
#include "src/devices/net/e1000.h"

#define TURN 32 /* frames per turn of the main loop */

#define RXD_DD    0x01
#define RXD_EOP   0x02
#define RXD_IXSM  0x04
#define RXD_VP    0x08
#define RXD_TCPCS 0x20
#define RXD_IPCS  0x40
#define RXD_PIF   0x80
#define RXE_TCPE  0x20
#define RXE_IPE   0x40

#define RXCSUM_PCSS  0xffu
#define RXCSUM_IPOFL 0x100u
#define RXCSUM_TUOFL 0x200u

#define RDTR_FPD 0x80000000u
#define DELAY_NS 1024ull /* unit of RDTR and RADV */

#define LONG_PACKET 1522 /* with FCS */

/* ---- room ---- */

static uint32_t buffer_size(const struct e1000 *s)
{
	uint32_t size = 2048u >> (s->rctl >> 16 & 3);

	/* With BSEX 16384, 8192, 4096; its first value is reserved and taken as without. */
	return s->rctl & RCTL_BSEX && size != 2048 ? size * 16 : size;
}

static uint32_t descriptors_for(const struct e1000 *s, uint32_t len)
{
	uint32_t size = buffer_size(s);

	return (len + size - 1) / size;
}

static bool receiving(const struct e1000 *s)
{
	return s->rctl & RCTL_EN && s->link && !s->card.paused && !e1000_loopback(s);
}

void e1000_rx_update(struct e1000 *s)
{
	bool room = receiving(s) && e1000_ring_filled(&s->rx_ring);

	if (s->rx.len && room)
		bh_schedule(&s->card.rx_bh);
	nic_want_packets(&s->card.nic, 0, room && !s->rx.len);
}

/* ---- filters, SDM 13.5.1 to 13.5.4 ---- */

static bool exact_match(const struct e1000 *s, const uint8_t *mac)
{
	for (unsigned i = 0; i < ARRAY_SIZE(s->ra); i += 2)
		if (s->ra[i + 1] & RAH_AV && get_le32(mac) == s->ra[i] && get_le16(mac + 4) == (s->ra[i + 1] & 0xffff))
			return true;
	return false;
}

static bool hash_match(const struct e1000 *s, const uint8_t *mac)
{
	static const uint8_t shift[] = {4, 3, 2, 0}; /* bits 47:36, 46:35, 45:34, 43:32 of the address */
	unsigned bits = get_le16(mac + 4) >> shift[s->rctl >> 12 & 3] & 0xfff;

	return s->mta[bits >> 5] >> (bits & 31) & 1;
}

static bool vlan_match(const struct e1000 *s, const uint8_t *frame)
{
	uint16_t tci = get_be16(frame + ETH_TYPE + 2);

	if (get_be16(frame + ETH_TYPE) != s->vet || !(s->rctl & RCTL_VFE))
		return true;
	if (s->rctl & RCTL_CFIEN && (tci >> 12 & 1) != (s->rctl & RCTL_CFI ? 1 : 0))
		return false;
	return s->vfta[tci >> 5 & 0x7f] >> (tci & 31) & 1;
}

/* Pause frames end in the MAC. */
static bool is_control(const uint8_t *frame)
{
	static const uint8_t pause[6] = {0x01, 0x80, 0xc2, 0x00, 0x00, 0x01};

	return get_be16(frame + ETH_TYPE) == 0x8808 && !memcmp(frame, pause, 6);
}

static bool accepts(struct e1000 *s, const uint8_t *frame)
{
	bool multicast = eth_is_multicast(frame), broadcast = eth_is_broadcast(frame);

	s->rx.status = 0;
	if (!vlan_match(s, frame) || (is_control(frame) && !(s->rctl & RCTL_PMCF)))
		return false;
	if (s->rctl & (multicast ? RCTL_MPE : RCTL_UPE) || (broadcast && s->rctl & RCTL_BAM) || exact_match(s, frame))
		return true;
	if (!multicast || !hash_match(s, frame))
		return false;
	s->rx.status = RXD_PIF; /* the driver has to look */
	return true;
}

void e1000_rx_filter(struct nic *n, struct nic_rx_filter *f)
{
	static uint8_t unicast[16][6], multicast[16][6]; /* main thread */
	struct e1000 *s = container_of(n, struct e1000, card.nic);
	uint32_t hashed = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(s->mta); i++)
		hashed |= s->mta[i];
	for (unsigned i = 2; i < ARRAY_SIZE(s->ra); i += 2) {
		uint8_t mac[8];

		put_le32(mac, s->ra[i]);
		put_le32(mac + 4, s->ra[i + 1]);
		if (!(s->ra[i + 1] & RAH_AV))
			continue;
		if (eth_is_multicast(mac))
			memcpy(multicast[f->n_multicast++], mac, 6);
		else
			memcpy(unicast[f->n_unicast++], mac, 6);
	}
	for (unsigned v = 0; v < ARRAY_SIZE(s->vlans); v++)
		if (s->vfta[v >> 5] >> (v & 31) & 1)
			s->vlans[f->n_vlan++] = (uint16_t)v;
	memcpy(f->main_mac, n->mac, 6);
	f->promiscuous = s->rctl & RCTL_UPE && s->rctl & RCTL_MPE;
	f->broadcast_allowed = s->rctl & RCTL_BAM;
	f->multicast_overflow = hashed;
	f->unicast = s->rctl & RCTL_UPE ? NIC_RX_ALL : NIC_RX_NORMAL;
	f->multicast = s->rctl & RCTL_MPE ? NIC_RX_ALL : f->n_multicast || hashed ? NIC_RX_NORMAL : NIC_RX_NONE;
	f->vlan = !(s->rctl & RCTL_VFE) ? NIC_RX_ALL : f->n_vlan ? NIC_RX_NORMAL : NIC_RX_NONE;
	f->unicast_table = (const uint8_t(*)[6])unicast;
	f->multicast_table = (const uint8_t(*)[6])multicast;
	f->vlan_table = s->vlans;
}

/* ---- a frame becomes what the ring gets ---- */

static void count(struct e1000 *s, const uint8_t *frame, uint32_t len)
{
	e1000_count(s, E1000_STAT(0x4074), 1); /* GPRC */
	e1000_count64(s, E1000_STAT(0x4088), len);
	e1000_count_size(s, E1000_STAT(0x405c), len);
	if (eth_is_broadcast(frame))
		e1000_count(s, E1000_STAT(0x4078), 1);
	else if (eth_is_multicast(frame))
		e1000_count(s, E1000_STAT(0x407c), 1);
}

/* SDM 3.2.9: the packet checksum is of all from PCSS on; IP and TCP are looked at where RXCSUM says so. */
static void check_sums(struct e1000 *s, uint32_t len)
{
	struct e1000_rx *rx = &s->rx;
	uint32_t start = s->rxcsum & RXCSUM_PCSS;
	struct net_headers h;
	enum net_check c;

	rx->checksum = start < len ? net_sum(rx->frame + start, len - start) : 0;
	rx->errors = 0;
	if (!(s->rxcsum & (RXCSUM_IPOFL | RXCSUM_TUOFL))) {
		rx->status |= RXD_IXSM;
		return;
	}
	net_parse(rx->frame, len, &h);
	c = s->rxcsum & RXCSUM_IPOFL ? net_check_ip(rx->frame, &h) : NET_CHECK_NONE;
	rx->status |= c != NET_CHECK_NONE ? RXD_IPCS : 0;
	rx->errors |= c == NET_CHECK_BAD ? RXE_IPE : 0;
	c = s->rxcsum & RXCSUM_TUOFL ? net_check_l4(rx->frame, &h) : NET_CHECK_NONE;
	rx->status |= c != NET_CHECK_NONE ? RXD_TCPCS : 0;
	rx->errors |= c == NET_CHECK_BAD ? RXE_TCPE : 0;
}

/* The frame of len bytes in rx.frame passes the filters and becomes the one to deliver; false: it is nothing for this
 * guest. */
static bool take(struct e1000 *s, uint32_t len)
{
	struct e1000_rx *rx = &s->rx;

	if (len < ETH_MIN) {
		memset(rx->frame + len, 0, ETH_MIN - len);
		len = ETH_MIN;
	}
	e1000_count(s, E1000_STAT(0x40d0), 1); /* TPR, TOR: all that there was */
	e1000_count64(s, E1000_STAT(0x40c0), len + ETH_FCS);
	if (!accepts(s, rx->frame))
		return false;
	if (len + ETH_FCS > (s->rctl & RCTL_LPE ? E1000_RX_MAX : LONG_PACKET)) {
		e1000_count(s, E1000_STAT(0x40ac), 1); /* ROC */
		return false;
	}
	count(s, rx->frame, len + ETH_FCS);
	check_sums(s, len);
	rx->special = 0;
	if (!(s->rctl & RCTL_SECRC))
		put_le32(rx->frame + len, net_crc32(rx->frame, len));
	if (s->ctrl & CTRL_VME && get_be16(rx->frame + ETH_TYPE) == s->vet) {
		rx->status |= RXD_VP;
		rx->special = get_be16(rx->frame + ETH_TYPE + 2);
		len = (uint32_t)net_strip_vlan(rx->frame, len + ETH_FCS) - ETH_FCS;
	}
	rx->len = len + (s->rctl & RCTL_SECRC ? 0 : ETH_FCS);
	return true;
}

/* ---- interrupts, SDM 3.2.7 ---- */

static void interrupt_now(struct e1000 *s, uint32_t cause)
{
	timer_cancel(&s->rx_delay);
	timer_cancel(&s->rx_limit);
	e1000_cause(s, cause);
}

void e1000_rx_timer(void *opaque)
{
	interrupt_now(opaque, ICR_RXT0);
}

void e1000_rx_flush(struct e1000 *s)
{
	if (s->rdtr & RDTR_FPD && timer_pending(&s->rx_delay))
		interrupt_now(s, ICR_RXT0);
	s->rdtr &= ~RDTR_FPD;
}

static void received(struct e1000 *s, uint32_t len)
{
	uint64_t now;

	if (len < (s->rsrpd & 0xfff)) {
		e1000_cause(s, ICR_SRPD);
		return;
	}
	if (!s->mitigation || !s->rdtr) {
		interrupt_now(s, ICR_RXT0);
		return;
	}
	now = clock_ns(VCLOCK_VIRTUAL);
	timer_arm(&s->rx_delay, now + s->rdtr * DELAY_NS);
	if (s->radv && !timer_pending(&s->rx_limit))
		timer_arm(&s->rx_limit, now + s->radv * DELAY_NS);
}

/* ---- into the ring ---- */

/* One descriptor: `len` bytes at data; last: of the frame. Buffers at 0 take nothing (SDM 3.2.3: null descriptors). */
static void put(struct e1000 *s, const uint8_t *data, uint32_t len, bool last)
{
	uint64_t at = e1000_ring_head(&s->rx_ring);
	uint8_t desc[E1000_DESC];
	uint64_t buffer;

	if (dma_read(&s->card.dev, at, desc, sizeof(desc)))
		log_guest(&s->card.dev.guest_log, "e1000", "%s: receive descriptor at 0x%llx is not in memory",
			  s->card.dev.id, (unsigned long long)at);
	buffer = get_le64(desc);
	if (buffer && dma_write(&s->card.dev, buffer, data, len))
		log_guest(&s->card.dev.guest_log, "e1000", "%s: receive buffer at 0x%llx is not in memory",
			  s->card.dev.id, (unsigned long long)buffer);
	put_le16(desc + 8, (uint16_t)len);
	put_le16(desc + 10, s->rx.checksum);
	desc[12] = (uint8_t)(RXD_DD | (last ? RXD_EOP | s->rx.status : 0));
	desc[13] = last ? s->rx.errors : 0;
	put_le16(desc + 14, last ? s->rx.special : 0);
	/* The status goes last, in one store: another CPU of the guest may poll it. */
	dma_write(&s->card.dev, at + 8, desc + 8, 8);
	e1000_ring_advance(&s->rx_ring);
}

/* False: it has to wait. */
static bool deliver(struct e1000 *s)
{
	struct e1000_rx *rx = &s->rx;
	uint32_t before = e1000_ring_filled(&s->rx_ring), need = descriptors_for(s, rx->len),
		 n = s->rx_ring.len / E1000_DESC;
	uint32_t threshold = n >> (1 + MIN(s->rctl >> 8 & 3, 2u)), size = buffer_size(s);

	if (need > before && need < n)
		return false;
	if (need > before) {
		e1000_count(s, E1000_STAT(0x4010), 1); /* MPC */
		rx->len = 0;
		e1000_cause(s, ICR_RXO);
		return true;
	}
	for (uint32_t done = 0; done < rx->len; done += size)
		put(s, rx->frame + done, MIN(size, rx->len - done), done + size >= rx->len);
	if (before > threshold && before - need <= threshold)
		e1000_cause(s, ICR_RXDMT0);
	received(s, rx->len);
	rx->len = 0;
	return true;
}

void e1000_readable(struct nic *n, unsigned queue)
{
	struct e1000 *s = container_of(n, struct e1000, card.nic);
	const struct iovec iov = {.iov_base = s->rx.frame, .iov_len = E1000_RX_MAX - ETH_FCS};

	for (unsigned i = 0; i < TURN && receiving(s) && !s->rx.len && e1000_ring_filled(&s->rx_ring); i++) {
		ssize_t len = netdev_recv(n, queue, &iov, 1);

		if (!len)
			return;
		if (len < 0) {
			e1000_count(s, E1000_STAT(0x40ac), 1);
			continue;
		}
		if (take(s, (uint32_t)len))
			deliver(s);
	}
	e1000_rx_update(s);
}

void e1000_rx_run(void *opaque)
{
	struct e1000 *s = opaque;

	if (s->rx.len && receiving(s) && e1000_ring_filled(&s->rx_ring) && !deliver(s))
		return; /* still too few: the tail's next move tries again */
	e1000_rx_update(s);
}

void e1000_rx_loop(struct e1000 *s, const uint8_t *frame, size_t len)
{
	if (!(s->rctl & RCTL_EN) || len > E1000_RX_MAX - ETH_FCS)
		return;
	if (s->rx.len || !e1000_ring_filled(&s->rx_ring)) {
		e1000_count(s, E1000_STAT(0x4010), 1);
		e1000_cause(s, ICR_RXO);
		return;
	}
	memcpy(s->rx.frame, frame, len);
	if (take(s, (uint32_t)len) && !deliver(s)) {
		s->rx.len = 0;
		e1000_count(s, E1000_STAT(0x4010), 1);
		e1000_cause(s, ICR_RXO);
	}
}

void e1000_rx_reset(struct e1000 *s)
{
	s->rx.len = 0;
	s->rx.status = s->rx.errors = 0;
	s->rx.checksum = s->rx.special = 0;
	s->rx_ring = (struct e1000_ring){0};
	s->rctl = s->rxcsum = s->rdtr = s->radv = s->rsrpd = 0;
	timer_cancel(&s->rx_delay);
	timer_cancel(&s->rx_limit);
}

static const struct state_field fields[] = {
	STATE_U(struct e1000_rx, status),  STATE_U(struct e1000_rx, errors),        STATE_U(struct e1000_rx, checksum),
	STATE_U(struct e1000_rx, special), STATE_VBUF(struct e1000_rx, frame, len), STATE_FIELDS_END,
};
const struct state_table e1000_rx_state = {.name = "e1000-rx", .version = 1, .oldest = 1, .fields = fields};
