/*
 * The RTL8139C+ receives: into one ring buffer (C mode; DS 5.7, PG 3) or into descriptors (C+ mode, DS 6.2).
 *
 * Frames are fetched when there is room; one that has none waits for the driver, so that nothing is lost that the
 * network can hold back. Of C+ mode's descriptors nobody tells when the driver gives them back: while frames wait they
 * are looked at with each register access of the interrupt handler, and once a millisecond. Left out: early receive
 * (offered to drivers by bits that read 0).
 */
#include "src/devices/net/rtl8139.h"

#define TURN    32 /* frames per turn of the main loop */
#define POLL_NS NS_PER_MS

/* C mode's header of a frame: status and length, 2 bytes each */
#define RING_HEADER 4
#define RX_ROK      0x0001
#define RX_BAR      0x2000
#define RX_PAM      0x4000
#define RX_MAR      0x8000
#define C_FRAME_MAX 4096 /* with FCS, DS 5.7: longer ones are errors */

/* C+ mode's status */
#define CP_BAR      0x01000000u
#define CP_PAM      0x02000000u
#define CP_MAR      0x04000000u
#define CP_PID_TCP  0x00010000u
#define CP_PID_UDP  0x00020000u
#define CP_PID_IP   0x00030000u
#define CP_IP_FAIL  0x00008000u
#define CP_UDP_FAIL 0x00004000u
#define CP_TCP_FAIL 0x00002000u
#define CP_TAVA     0x00010000u

static bool cplus(const struct rtl8139 *s)
{
	return rtl_reg16(s, CPCR) & CPCR_RX;
}

static bool receiving(const struct rtl8139 *s)
{
	return s->regs[CR] & CR_RE && !s->card.paused && s->link && !rtl8139_loopback(s) &&
	       pci_bus_master(&s->card.dev);
}

/* ---- C mode's ring ---- */

static uint32_t ring_size(const struct rtl8139 *s)
{
	return 8192u << (rtl_reg32(s, RCR) >> 11 & 3);
}

static uint32_t write_at(const struct rtl8139 *s)
{
	return rtl_reg16(s, CBR) % ring_size(s);
}

/* CAPR stands 16 bytes before what the driver will read next (PG 3.1). */
static uint32_t read_at(const struct rtl8139 *s)
{
	return (rtl_reg16(s, CAPR) + 16u) % ring_size(s);
}

bool rtl8139_rx_empty(const struct rtl8139 *s)
{
	return write_at(s) == read_at(s);
}

/* Never quite full: that would look empty. */
static uint32_t ring_room(const struct rtl8139 *s)
{
	uint32_t size = ring_size(s), used = (write_at(s) + size - read_at(s)) % size;

	return size - used - 4;
}

static uint32_t ring_need(uint32_t len)
{
	return ALIGN_UP(RING_HEADER + len, 4u);
}

static void to_ram(struct rtl8139 *s, uint64_t at, const void *p, uint32_t len)
{
	if (len && dma_write(&s->card.dev, at, p, len))
		log_guest(&s->card.dev.guest_log, "rtl8139", "%s: receive buffer at 0x%llx is not in memory",
			  s->card.dev.id, (unsigned long long)at);
}

/* With WRAP the last frame goes on behind the ring's end, in the driver's reserve; there is none behind 64 KB. */
static void ring_put(struct rtl8139 *s, uint32_t at, const uint8_t *p, uint32_t len)
{
	uint32_t size = ring_size(s), base = rtl_reg32(s, RBSTART), first = len;

	at %= size;
	if (!(rtl_reg32(s, RCR) & RCR_WRAP) || size == 65536)
		first = MIN(len, size - at);
	to_ram(s, (uint64_t)base + at, p, first);
	to_ram(s, base, p + first, len - first);
}

static void ring_deliver(struct rtl8139 *s)
{
	uint32_t at = write_at(s);
	uint8_t header[RING_HEADER];

	put_le16(header, (uint16_t)s->rx_flags);
	put_le16(header + 2, (uint16_t)s->rx_len);
	ring_put(s, at + RING_HEADER, s->rx_frame, s->rx_len);
	ring_put(s, at, header, RING_HEADER);
	put_le16(s->regs + CBR, (uint16_t)((at + ring_need(s->rx_len)) % ring_size(s)));
}

/* ---- C+ mode's descriptors ---- */

static uint64_t desc_at(const struct rtl8139 *s, unsigned i)
{
	return (get_le64(s->regs + RDSAR) & ~255ull) + i * RTL_DESC;
}

static unsigned after(unsigned i, uint32_t opts1)
{
	return opts1 & DESC_EOR || i == RTL_RING - 1 ? 0 : i + 1;
}

static uint32_t desc_opts(struct rtl8139 *s, unsigned i)
{
	uint8_t raw[4];

	return dma_read(&s->card.dev, desc_at(s, i), raw, sizeof(raw)) ? 0 : get_le32(raw);
}

static uint32_t desc_size(uint32_t opts1)
{
	return opts1 & 0x1fff;
}

/* Whether the driver's descriptors have room for len bytes; *never: not even all of them. */
static bool descs_have_room(struct rtl8139 *s, uint32_t len, bool *never)
{
	unsigned i = s->cp_rx_next;
	uint32_t room = 0;

	*never = false;
	for (unsigned n = 0; n < RTL_RING; n++) {
		uint32_t opts1 = desc_opts(s, i);

		if (!(opts1 & DESC_OWN))
			return false;
		room += desc_size(opts1);
		if (room >= len)
			return true;
		i = after(i, opts1);
		if (i == s->cp_rx_next)
			break;
	}
	*never = true;
	return false;
}

static void descs_deliver(struct rtl8139 *s)
{
	uint32_t done = 0;
	bool first = true;

	while (done < s->rx_len) {
		uint64_t at = desc_at(s, s->cp_rx_next);
		uint8_t desc[RTL_DESC];
		uint32_t opts1, n, status;
		bool last;

		dma_read(&s->card.dev, at, desc, sizeof(desc)); /* it could be read a moment ago */
		opts1 = get_le32(desc);
		n = MIN(desc_size(opts1), s->rx_len - done);
		to_ram(s, get_le64(desc + 8), s->rx_frame + done, n);
		done += n;
		/* Changed behind our back to have no room: the frame ends here. */
		last = done == s->rx_len || !(opts1 & DESC_OWN) || !n;
		status = (opts1 & DESC_EOR) | (first ? DESC_FS : 0);
		status |= last ? DESC_LS | s->rx_flags | s->rx_len : n;
		put_le32(desc + 4, last ? s->rx_tag : 0);
		put_le32(desc, status);
		dma_write(&s->card.dev, at + 4, desc + 4, 4);
		dma_write(&s->card.dev, at, desc, 4); /* gives it to the driver: last */
		s->cp_rx_next = (uint8_t)after(s->cp_rx_next, opts1);
		first = false;
		if (last)
			break;
	}
}

/* ---- filter, DS 5.4 (MAR) and 5.12 (RCR) ---- */

/* The upper six bits of the address's CRC, most significant bit first. */
static unsigned multicast_hash(const uint8_t *mac)
{
	uint32_t crc = ~net_crc32(mac, 6);
	unsigned hash = 0;

	for (unsigned i = 0; i < 6; i++)
		hash = hash << 1 | (crc >> i & 1);
	return hash;
}

static bool accepts(struct rtl8139 *s, const uint8_t *frame)
{
	uint32_t rcr = rtl_reg32(s, RCR);
	unsigned hash;

	if (eth_is_broadcast(frame)) {
		s->rx_flags = cplus(s) ? CP_BAR : RX_BAR;
		return rcr & RCR_AB;
	}
	if (eth_is_multicast(frame)) {
		hash = multicast_hash(frame);
		s->rx_flags = cplus(s) ? CP_MAR : RX_MAR;
		return rcr & RCR_AM && s->regs[MAR + hash / 8] >> (hash % 8) & 1;
	}
	if (!memcmp(frame, s->regs + IDR, 6)) {
		s->rx_flags = cplus(s) ? CP_PAM : RX_PAM;
		return rcr & (RCR_APM | RCR_AAP);
	}
	s->rx_flags = 0;
	return rcr & RCR_AAP;
}

void rtl8139_rx_filter(struct nic *n, struct nic_rx_filter *f)
{
	struct rtl8139 *s = container_of(n, struct rtl8139, card.nic);
	uint32_t rcr = rtl_reg32(s, RCR);
	uint64_t hash = get_le64(s->regs + MAR);

	memcpy(f->main_mac, n->mac, 6);
	f->promiscuous = rcr & RCR_AAP && rcr & RCR_AM && hash == UINT64_MAX;
	f->broadcast_allowed = rcr & RCR_AB;
	f->multicast_overflow = rcr & RCR_AM && hash; /* a hash passes more than the driver asked for */
	f->unicast = rcr & RCR_AAP ? NIC_RX_ALL : rcr & RCR_APM ? NIC_RX_NORMAL : NIC_RX_NONE;
	f->multicast = !(rcr & RCR_AM) || !hash ? NIC_RX_NONE : hash == UINT64_MAX ? NIC_RX_ALL : NIC_RX_NORMAL;
	f->vlan = NIC_RX_ALL;
}

/* ---- a frame's way ---- */

static void count(struct rtl8139 *s, const uint8_t *frame)
{
	s->tally.rx_ok++;
	if (eth_is_broadcast(frame))
		s->tally.rx_broadcast++;
	else if (eth_is_multicast(frame))
		s->tally.rx_multicast++;
	else
		s->tally.rx_unicast++;
}

static void check_sums(struct rtl8139 *s, uint32_t len)
{
	struct net_headers h;

	net_parse(s->rx_frame, len, &h);
	if (h.ip != 4)
		return;
	if (net_check_ip(s->rx_frame, &h) == NET_CHECK_BAD)
		s->rx_flags |= CP_IP_FAIL;
	if (!h.l4)
		s->rx_flags |= CP_PID_IP;
	else
		s->rx_flags |= h.protocol == IP_TCP ? CP_PID_TCP : CP_PID_UDP;
	if (net_check_l4(s->rx_frame, &h) == NET_CHECK_BAD)
		s->rx_flags |= h.protocol == IP_TCP ? CP_TCP_FAIL : CP_UDP_FAIL;
}

/* The frame of len bytes in rx_frame becomes the one to deliver; false: it is nothing for this guest. */
static bool take(struct rtl8139 *s, uint32_t len)
{
	uint8_t *frame = s->rx_frame;

	if (len < ETH_MIN) {
		memset(frame + len, 0, ETH_MIN - len);
		len = ETH_MIN;
	}
	if (!accepts(s, frame))
		return false;
	if (!cplus(s) && len + ETH_FCS > C_FRAME_MAX) {
		s->tally.rx_error++;
		return false;
	}
	count(s, frame);
	s->rx_tag = 0;
	if (!cplus(s))
		s->rx_flags |= RX_ROK;
	else if (rtl_reg16(s, CPCR) & CPCR_RXSUM)
		check_sums(s, len);
	put_le32(frame + len, net_crc32(frame, len));
	s->rx_len = len + ETH_FCS;
	if (cplus(s) && rtl_reg16(s, CPCR) & CPCR_VLAN && get_be16(frame + ETH_TYPE) == ETHERTYPE_VLAN) {
		s->rx_tag = CP_TAVA | get_le16(frame + ETH_TYPE + 2); /* in the order of the wire */
		s->rx_len = (uint32_t)net_strip_vlan(frame, s->rx_len);
	}
	return true;
}

static void drop(struct rtl8139 *s)
{
	s->rx_len = 0;
	rtl8139_missed(s);
	rtl8139_cause(s, INT_RXOVW);
}

/* False: the frame has to wait. */
static bool deliver(struct rtl8139 *s)
{
	bool never = false;

	if (cplus(s) ? descs_have_room(s, s->rx_len, &never) : ring_need(s->rx_len) <= ring_room(s)) {
		if (cplus(s))
			descs_deliver(s);
		else
			ring_deliver(s);
		s->rx_len = 0;
		s->rdu_told = false;
		rtl8139_cause(s, INT_ROK);
		return true;
	}
	if (!never)
		return false;
	drop(s);
	return true;
}

/* Room for any frame of usual size, so that hardly one has to wait here. */
static bool has_room(struct rtl8139 *s)
{
	return cplus(s) ? desc_opts(s, s->cp_rx_next) & DESC_OWN : ring_room(s) >= ring_need(1518);
}

/* C+ mode: frames wait for descriptors. Tell the driver, and look again. */
static void starve(struct rtl8139 *s)
{
	if (!cplus(s))
		return;
	if (!s->rdu_told)
		rtl8139_cause(s, INT_RXOVW);
	s->rdu_told = true;
	timer_arm(&s->poll, clock_ns(VCLOCK_VIRTUAL) + POLL_NS);
}

/* In C+ mode whether there is room shows when there is a frame. */
static bool want(struct rtl8139 *s)
{
	return receiving(s) && (cplus(s) || has_room(s));
}

/* Main loop. */
static void follow(struct rtl8139 *s)
{
	timer_cancel(&s->poll);
	if (receiving(s) && s->rx_len && !deliver(s)) {
		nic_want_packets(&s->card.nic, 0, false);
		starve(s);
		return;
	}
	nic_want_packets(&s->card.nic, 0, want(s));
}

void rtl8139_readable(struct nic *n, unsigned queue)
{
	struct rtl8139 *s = container_of(n, struct rtl8139, card.nic);
	const struct iovec iov = {.iov_base = s->rx_frame, .iov_len = RTL_FRAME_MAX - ETH_FCS};

	for (unsigned i = 0; i < TURN && receiving(s) && !s->rx_len; i++) {
		ssize_t len;

		if (!has_room(s)) {
			if (i)
				break; /* perhaps there is no other frame */
			nic_want_packets(n, queue, false);
			starve(s);
			return;
		}
		len = netdev_recv(n, queue, &iov, 1);
		if (!len)
			return;
		if (len < 0)
			s->tally.rx_error++;
		else if (take(s, (uint32_t)len))
			deliver(s);
	}
	follow(s);
}

void rtl8139_rx_run(void *opaque)
{
	struct rtl8139 *s = opaque;

	if (!s->card.paused)
		follow(s);
}

/* Any thread: what writes to memory happens on the main loop. */
void rtl8139_rx_update(struct rtl8139 *s)
{
	if (s->rx_len || timer_pending(&s->poll))
		bh_schedule(&s->card.rx_bh);
	else
		nic_want_packets(&s->card.nic, 0, want(s));
}

void rtl8139_rx_loop(struct rtl8139 *s, const uint8_t *frame, size_t len)
{
	if (!(s->regs[CR] & CR_RE) || len > RTL_FRAME_MAX - ETH_FCS)
		return;
	if (s->rx_len) {
		drop(s);
		return;
	}
	memcpy(s->rx_frame, frame, len);
	if (take(s, (uint32_t)len) && !deliver(s))
		drop(s);
}

void rtl8139_rx_restart(struct rtl8139 *s)
{
	put_le16(s->regs + CBR, 0);
	put_le16(s->regs + CAPR, 0xfff0);
	s->cp_rx_next = 0;
	s->rdu_told = false;
	s->rx_len = 0;
}
