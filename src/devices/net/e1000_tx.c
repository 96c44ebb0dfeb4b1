/*
 * The 82540EM transmits: SDM 3.3 (descriptors), 3.4 (ring, write-back, delay timers), 3.5 (segmentation), 3.6
 * (checksums), 9.2 (VLAN tags).
 *
 * The tail's doorbell schedules a bottom half; each of its runs handles a bounded number of descriptors and frames. A
 * large packet is cut as it is read, so that it needs no more memory than one frame; where the network is busy the
 * descriptor stays half done, and the rest follows when the network has room, in another process too. Left out:
 * prefetching (TXDCTL; descriptors are read one by one and written back at once), early reports (RPS).
 */
#include "src/devices/net/e1000.h"

#include <errno.h>

#define TURN_DESCRIPTORS 64
#define TURN_FRAMES      16

#define TXD_EOP  0x01
#define TXD_IFCS 0x02
#define TXD_IC   0x04 /* legacy */
#define TXD_TSE  0x04 /* data and context */
#define TXD_RS   0x08
#define TXD_DEXT 0x20
#define TXD_VLE  0x40
#define TXD_IDE  0x80
#define TXD_DD   0x01

#define POPTS_IXSM 0x01
#define POPTS_TXSM 0x02
#define TUCMD_TCP  0x01
#define TUCMD_IPV4 0x02

#define DELAY_NS 1024ull /* unit of TIDV and TADV */

static uint8_t command(const struct e1000_tx *t)
{
	return t->desc[11];
}

static bool is_legacy(const struct e1000_tx *t)
{
	return !(command(t) & TXD_DEXT);
}

static bool is_context(const struct e1000_tx *t)
{
	return !is_legacy(t) && t->desc[10] >> 4 == 0;
}

static uint32_t data_length(const struct e1000_tx *t)
{
	return is_legacy(t) ? get_le16(t->desc + 8) : get_le32(t->desc + 8) & 0xfffff;
}

static const struct e1000_context *context(const struct e1000_tx *t)
{
	return &t->context[t->segmented];
}

static void load_context(struct e1000 *s)
{
	const uint8_t *d = s->tx.desc;
	bool segmentation = d[11] & TXD_TSE;

	s->tx.context[segmentation] = (struct e1000_context){
		.ipcss = d[0],
		.ipcso = d[1],
		.ipcse = get_le16(d + 2),
		.tucss = d[4],
		.tucso = d[5],
		.tucse = get_le16(d + 6),
		.paylen = get_le32(d + 8) & 0xfffff,
		.tucmd = d[11],
		.header = d[13],
		.mss = get_le16(d + 14),
	};
	if (segmentation)
		e1000_count(s, E1000_STAT(0x40f8), 1); /* TSCTC */
}

/* ---- one frame ---- */

/* SDM 3.6: the sum of [start, end] goes to `at`; what stands there is part of it (the pseudo-header's sum). */
static void insert_sum(uint8_t *frame, uint32_t len, uint32_t start, uint32_t at, uint32_t end, uint32_t more)
{
	uint16_t sum;

	end = end && end < len ? end + 1 : len;
	if (start >= end || at + 2 > len)
		return;
	sum = (uint16_t)~net_fold((uint32_t)net_sum(frame + start, end - start) + more);
	put_be16(frame + at, sum ? sum : 0xffff);
}

static void count(struct e1000 *s, const uint8_t *frame, uint32_t len)
{
	e1000_count(s, E1000_STAT(0x4080), 1); /* GPTC */
	e1000_count(s, E1000_STAT(0x40d4), 1); /* TPT */
	e1000_count64(s, E1000_STAT(0x4090), len);
	e1000_count64(s, E1000_STAT(0x40c8), len);
	e1000_count_size(s, E1000_STAT(0x40d8), len);
	if (eth_is_broadcast(frame))
		e1000_count(s, E1000_STAT(0x40f4), 1);
	else if (eth_is_multicast(frame))
		e1000_count(s, E1000_STAT(0x40f0), 1);
}

static void legacy_sum(struct e1000_tx *t)
{
	if (command(t) & TXD_IC) /* CSS and CSO */
		insert_sum(t->frame, t->len, t->desc[13], t->desc[10], 0, 0);
}

static void context_sums(struct e1000_tx *t)
{
	const struct e1000_context *c = context(t);
	/* Of a large packet the driver cannot know a segment's length: the chip adds it (SDM 3.5.6). */
	uint32_t length = t->segmented && c->tucss < t->len ? t->len - c->tucss : 0;

	if (t->popts & POPTS_IXSM)
		insert_sum(t->frame, t->len, c->ipcss, c->ipcso, c->ipcse, 0);
	if (t->popts & POPTS_TXSM)
		insert_sum(t->frame, t->len, c->tucss, c->tucso, c->tucse, length);
}

static void make_segment(struct e1000_tx *t, bool last)
{
	const struct e1000_context *c = context(t);
	const struct net_segments how = {
		.header = t->header_len,
		.l3 = c->ipcss,
		.l4 = c->tucss,
		.mss = c->mss,
		.ipv6 = !(c->tucmd & TUCMD_IPV4),
		.tcp = c->tucmd & TUCMD_TCP,
	};

	net_segment_header(t->frame, &how, t->segment, t->len - t->header_len, last);
	t->segment++;
}

/* The frame is complete. */
static void finish_frame(struct e1000 *s, bool last)
{
	struct e1000_tx *t = &s->tx;

	if (t->segmented)
		make_segment(t, last);
	if (is_legacy(t))
		legacy_sum(t);
	else
		context_sums(t);
	/* Without IFCS the driver brings the FCS, which the network wants no more than another. Drivers that forgot the
	 * bit bring none. */
	if (last && !(command(t) & TXD_IFCS) && net_has_fcs(t->frame, t->len))
		t->len -= ETH_FCS;
	if (t->len < ETH_MIN && s->tctl & TCTL_PSP) {
		memset(t->frame + t->len, 0, ETH_MIN - t->len);
		t->len = ETH_MIN;
	}
	if (t->len >= ETH_HEADER && s->ctrl & CTRL_VME && t->tagged)
		t->len = (uint32_t)net_insert_vlan(t->frame, t->len, (uint16_t)s->vet, t->tag);
	t->ready = true;
}

/* False: the network is busy. */
static bool send(struct e1000 *s)
{
	struct e1000_tx *t = &s->tx;
	const struct iovec iov = {.iov_base = t->frame, .iov_len = t->len};

	if (e1000_loopback(s))
		e1000_rx_loop(s, t->frame, t->len);
	else if (!netdev_send(&s->card.nic, 0, &iov, 1))
		return false;
	if (t->len >= ETH_HEADER)
		count(s, t->frame, t->len + ETH_FCS);
	t->ready = false;
	t->len = 0;
	return true;
}

/* ---- descriptors ---- */

static bool fetch(struct e1000 *s)
{
	struct e1000_tx *t = &s->tx;
	uint64_t at = e1000_ring_head(&s->tx_ring);

	if (dma_read(&s->card.dev, at, t->desc, sizeof(t->desc))) {
		log_guest(&s->card.dev.guest_log, "e1000", "%s: transmit descriptor at 0x%llx is not in memory",
			  s->card.dev.id, (unsigned long long)at);
		return false;
	}
	t->fetched = true;
	t->done = 0;
	if (is_context(t))
		return true;
	/* The last descriptor says it; of a large packet segments leave before that one is seen, and drivers set it in
	 * the first or in all. */
	t->tagged = command(t) & TXD_VLE || (t->in_packet && t->segmented && t->tagged);
	if (command(t) & TXD_VLE)
		t->tag = get_le16(t->desc + 14);
	if (t->in_packet)
		return true;
	/* The first of a packet says what is done with all of it (SDM 3.3.7.3). */
	t->in_packet = true;
	t->too_long = false;
	t->segmented = !is_legacy(t) && command(t) & TXD_TSE;
	t->popts = is_legacy(t) ? 0 : t->desc[13];
	t->len = t->header_len = t->segment = t->payload = 0;
	return true;
}

static void read_data(struct e1000 *s, uint8_t *to, uint32_t len)
{
	struct e1000_tx *t = &s->tx;
	uint64_t from = get_le64(t->desc) + t->done;

	if (dma_read(&s->card.dev, from, to, len))
		log_guest(&s->card.dev.guest_log, "e1000", "%s: transmit buffer at 0x%llx is not in memory",
			  s->card.dev.id, (unsigned long long)from);
	t->done += len;
}

static bool all_taken(const struct e1000_tx *t)
{
	return t->done == data_length(t);
}

static bool is_end(const struct e1000_tx *t)
{
	return command(t) & TXD_EOP && all_taken(t);
}

/* Take more of the descriptor into the segment; it is complete when this returns true. */
static bool gather_segment(struct e1000 *s)
{
	struct e1000_tx *t = &s->tx;
	const struct e1000_context *c = context(t);
	uint32_t left = data_length(t) - t->done, full = (uint32_t)c->header + c->mss, n;

	if (!c->mss || full > E1000_TX_MAX || t->header_len > c->header) {
		log_guest(&s->card.dev.guest_log, "e1000", "%s: segments of %u and %u bytes are not possible",
			  s->card.dev.id, c->header, c->mss);
		t->done += left;
		return false;
	}
	if (t->header_len < c->header) {
		n = MIN(left, c->header - t->header_len);
		read_data(s, t->header + t->header_len, n);
		t->header_len += n;
		return false;
	}
	if (!t->len) {
		memcpy(t->frame, t->header, t->header_len);
		t->len = t->header_len;
	}
	n = MIN(left, full - MIN(full, t->len));
	read_data(s, t->frame + t->len, n);
	t->len += n;
	t->payload += n;
	return t->len >= full || t->payload == c->paylen;
}

static void gather_frame(struct e1000 *s)
{
	struct e1000_tx *t = &s->tx;
	uint32_t left = data_length(t) - t->done;

	if (t->too_long || left > E1000_TX_MAX - t->len) {
		t->too_long = true;
		t->done += left;
		return;
	}
	read_data(s, t->frame + t->len, left);
	t->len += left;
}

static void written_back(struct e1000 *s)
{
	struct e1000_tx *t = &s->tx;
	uint64_t now;

	if (!(command(t) & TXD_RS))
		return;
	t->desc[12] |= TXD_DD;
	dma_write(&s->card.dev, e1000_ring_head(&s->tx_ring) + 12, t->desc + 12, 1);
	if (!(command(t) & TXD_IDE) || !s->tidv || !s->mitigation) {
		e1000_tx_timer(s);
		return;
	}
	now = clock_ns(VCLOCK_VIRTUAL);
	timer_arm(&s->tx_delay, now + s->tidv * DELAY_NS);
	if (s->tadv && !timer_pending(&s->tx_limit))
		timer_arm(&s->tx_limit, now + s->tadv * DELAY_NS);
}

/* SDM 3.4.3.2: or at once. */
void e1000_tx_timer(void *opaque)
{
	struct e1000 *s = opaque;

	timer_cancel(&s->tx_delay);
	timer_cancel(&s->tx_limit);
	e1000_cause(s, ICR_TXDW);
}

static void end_packet(struct e1000 *s)
{
	struct e1000_tx *t = &s->tx;

	if (t->too_long)
		log_guest(&s->card.dev.guest_log, "e1000", "%s: a frame of more than %u bytes is not sent",
			  s->card.dev.id, E1000_TX_MAX);
	t->in_packet = false;
	t->len = 0;
}

static void complete(struct e1000 *s)
{
	struct e1000_tx *t = &s->tx;

	if (!is_context(t) && command(t) & TXD_EOP)
		end_packet(s);
	written_back(s);
	t->fetched = false;
	e1000_ring_advance(&s->tx_ring);
	if (!e1000_ring_filled(&s->tx_ring))
		e1000_cause(s, ICR_TXQE);
}

enum progress { DONE, BUSY, BUDGET };

/* Work on the descriptor at the head. */
static enum progress work(struct e1000 *s, unsigned *frames)
{
	struct e1000_tx *t = &s->tx;

	for (;;) {
		if (t->ready) {
			if (!*frames)
				return BUDGET;
			if (!send(s))
				return BUSY;
			--*frames;
		}
		if (is_end(t) && t->len && !t->too_long)
			finish_frame(s, true);
		else if (all_taken(t))
			return DONE;
		else if (!t->segmented)
			gather_frame(s);
		else if (gather_segment(s))
			finish_frame(s, is_end(t) || t->payload == context(t)->paylen);
	}
}

static bool sending(const struct e1000 *s)
{
	return s->tctl & TCTL_EN && !s->card.paused && e1000_ring_filled(&s->tx_ring);
}

void e1000_tx_run(void *opaque)
{
	struct e1000 *s = opaque;
	unsigned frames = TURN_FRAMES;

	for (unsigned i = 0; i < TURN_DESCRIPTORS; i++) {
		enum progress p = DONE;

		if (!sending(s) || (!s->tx.fetched && !fetch(s)))
			return; /* a ring outside memory waits for the next doorbell */
		if (is_context(&s->tx))
			load_context(s);
		else
			p = work(s, &frames);
		if (p == BUSY)
			return;
		if (p == BUDGET)
			break;
		complete(s);
	}
	bh_schedule(&s->card.tx_bh);
}

void e1000_writable(struct nic *n, unsigned queue)
{
	struct e1000 *s = container_of(n, struct e1000, card.nic);

	e1000_tx_update(s);
}

void e1000_tx_update(struct e1000 *s)
{
	if (sending(s))
		bh_schedule(&s->card.tx_bh);
}

void e1000_tx_reset(struct e1000 *s)
{
	struct e1000_tx *t = &s->tx;

	memset(t, 0, offsetof(struct e1000_tx, frame));
	s->tx_ring = (struct e1000_ring){0};
	s->tctl = s->tidv = s->tadv = 0;
	timer_cancel(&s->tx_delay);
	timer_cancel(&s->tx_limit);
}

/* After a load: what single bounds cannot say. */
int e1000_tx_check(const struct e1000 *s, struct err *e)
{
	const struct e1000_tx *t = &s->tx;

	if (t->fetched && !is_context(t) && (t->done > data_length(t) || !t->in_packet))
		return err_set(e, EINVAL, "device '%s': %u bytes of a descriptor of %u were sent", s->card.dev.id,
			       t->done, data_length(t));
	if (!t->ready && t->len > E1000_TX_MAX)
		return err_set(e, EINVAL, "device '%s': a frame of %u bytes is being put together", s->card.dev.id,
			       t->len);
	if (t->ready && !t->fetched)
		return err_set(e, EINVAL, "device '%s': a frame waits that belongs to no descriptor", s->card.dev.id);
	return 0;
}

static const struct state_field context_fields[] = {
	STATE_U(struct e1000_context, ipcss),
	STATE_U(struct e1000_context, ipcso),
	STATE_U(struct e1000_context, ipcse),
	STATE_U(struct e1000_context, tucss),
	STATE_U(struct e1000_context, tucso),
	STATE_U(struct e1000_context, tucse),
	STATE_U(struct e1000_context, tucmd),
	STATE_U(struct e1000_context, header),
	STATE_U(struct e1000_context, mss),
	STATE_U_MAX(struct e1000_context, paylen, 0xfffff),
	STATE_FIELDS_END,
};
static const struct state_table context_table = {
	.name = "e1000-tx-context", .version = 1, .oldest = 1, .fields = context_fields};

static const struct state_field fields[] = {
	STATE_SUBA(struct e1000_tx, context, &context_table),
	STATE_BUF(struct e1000_tx, desc),
	STATE_B(struct e1000_tx, fetched),
	STATE_U_MAX(struct e1000_tx, done, 0xfffff),
	STATE_B(struct e1000_tx, in_packet),
	STATE_B(struct e1000_tx, too_long),
	STATE_B(struct e1000_tx, segmented),
	STATE_B(struct e1000_tx, tagged),
	STATE_U(struct e1000_tx, tag),
	STATE_U(struct e1000_tx, popts),
	STATE_VBUF(struct e1000_tx, header, header_len),
	STATE_U(struct e1000_tx, segment),
	STATE_U(struct e1000_tx, payload),
	STATE_B(struct e1000_tx, ready),
	STATE_VBUF(struct e1000_tx, frame, len),
	STATE_FIELDS_END,
};
const struct state_table e1000_tx_state = {.name = "e1000-tx", .version = 1, .oldest = 1, .fields = fields};
