/*
 * virtio-net's control queue (VIRTIO 1.2 section 5.1.6.5) and the receive filter it steers. A command is refused, with
 * VIRTIO_NET_ERR, if its class was not negotiated, if its data are short or say what cannot be.
 */
#include "virtio_net.h"

enum { CLASS_RX, CLASS_MAC, CLASS_VLAN, CLASS_ANNOUNCE, CLASS_MQ, CLASS_GUEST_OFFLOADS };
enum { RX_PROMISC, RX_ALLMULTI, RX_ALLUNI, RX_NOMULTI, RX_NOUNI, RX_NOBCAST };
enum { MAC_TABLE_SET, MAC_ADDR_SET };
enum { VLAN_ADD, VLAN_DEL };
enum { ANNOUNCE_ACK };
enum { MQ_PAIRS_SET };
enum { GUEST_OFFLOADS_SET };
enum { ACK_OK, ACK_ERR };
#define COMMAND_SIZE 2 /* u8 class; u8 command */

/* ---- the filter ---- */

static bool in_vlan(const struct vnet *s, unsigned id)
{
	return s->vlans[id / 8] & BIT(id % 8);
}

static bool listed(const struct vnet *s, const uint8_t *mac, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++)
		if (!memcmp(s->macs[i], mac, 6))
			return true;
	return false;
}

bool vnet_passes(const struct vnet *s, const uint8_t *frame, size_t len)
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	if (s->promisc)
		return true;
	if (virtio_has(&s->v, VNET_CTRL_VLAN) && len >= 16 && get_be16(frame + 12) == 0x8100 &&
	    !in_vlan(s, get_be16(frame + 14) & 0xfff))
		return false;
	if (!memcmp(frame, broadcast, 6))
		return !s->nobcast;
	if (frame[0] & 1)
		return !s->nomulti && (s->allmulti || s->multi_overflow || listed(s, frame, s->n_uni, s->n_multi));
	return !s->nouni &&
	       (s->alluni || s->uni_overflow || !memcmp(frame, s->mac, 6) || listed(s, frame, 0, s->n_uni));
}

/* 5.1.6.5.1: promiscuous until the driver says otherwise, as one that has no control queue expects. */
void vnet_reset_filter(struct vnet *s)
{
	s->promisc = true;
	s->allmulti = s->alluni = s->nomulti = s->nouni = s->nobcast = false;
	s->uni_overflow = s->multi_overflow = false;
	s->n_uni = s->n_multi = 0;
	memset(s->macs, 0, sizeof(s->macs));
	memset(s->vlans, 0, sizeof(s->vlans));
}

void vnet_show_filter(struct nic *n, struct nic_rx_filter *f)
{
	struct vnet *s = vnet_of_nic(n);

	f->promiscuous = s->promisc;
	f->broadcast_allowed = !s->nobcast;
	f->unicast = s->nouni ? NIC_RX_NONE : s->alluni ? NIC_RX_ALL : NIC_RX_NORMAL;
	f->multicast = s->nomulti ? NIC_RX_NONE : s->allmulti ? NIC_RX_ALL : NIC_RX_NORMAL;
	f->unicast_overflow = s->uni_overflow;
	f->multicast_overflow = s->multi_overflow;
	memcpy(f->main_mac, s->mac, 6);
	f->n_unicast = s->n_uni;
	f->unicast_table = (const uint8_t(*)[6])s->macs;
	f->n_multicast = s->n_multi;
	f->multicast_table = (const uint8_t(*)[6])s->macs + s->n_uni;
	f->vlan = NIC_RX_ALL;
	if (!virtio_has(&s->v, VNET_CTRL_VLAN))
		return;
	if (!s->vlan_list)
		s->vlan_list = xcalloc(VNET_VLANS, sizeof(*s->vlan_list));
	for (unsigned id = 0; id < VNET_VLANS; id++)
		if (in_vlan(s, id))
			s->vlan_list[f->n_vlan++] = (uint16_t)id;
	f->vlan_table = s->vlan_list;
	f->vlan = f->n_vlan ? NIC_RX_NORMAL : NIC_RX_NONE;
}

/* ---- commands: each returns whether it was carried out ---- */

static bool data(const struct virtq_elem *el, size_t offset, void *buf, size_t len)
{
	return virtq_read(el, COMMAND_SIZE + offset, buf, len) == len;
}

static bool rx_mode(struct vnet *s, uint8_t command, const struct virtq_elem *el)
{
	bool *const modes[] = {&s->promisc, &s->allmulti, &s->alluni, &s->nomulti, &s->nouni, &s->nobcast};
	uint8_t on;

	if (command >= ARRAY_SIZE(modes) ||
	    !virtio_has(&s->v, command < RX_ALLUNI ? VNET_CTRL_RX : VNET_CTRL_RX_EXTRA) || !data(el, 0, &on, 1))
		return false;
	*modes[command] = on;
	nic_rx_filter_changed(&s->nic);
	return true;
}

/* One of the two tables at offset, le32 entries and the addresses, into s->macs at `at`, where `room` are free. A
   longer one is taken as "all". False: it is cut off. */
static bool mac_table(struct vnet *s, const struct virtq_elem *el, uint64_t *offset, unsigned at, uint8_t *n,
		      bool *overflow)
{
	unsigned room = VNET_MACS - at;
	uint8_t raw[4];
	uint32_t entries;

	if (!data(el, *offset, raw, sizeof(raw)))
		return false;
	entries = get_le32(raw);
	if (COMMAND_SIZE + *offset + sizeof(raw) + 6ull * entries > el->out_len)
		return false;
	*overflow = entries > room;
	*n = *overflow ? 0 : (uint8_t)entries;
	if (*n && !data(el, *offset + sizeof(raw), s->macs[at], 6ul * *n))
		return false;
	*offset += sizeof(raw) + 6ull * entries;
	return true;
}

/* 5.1.6.5.2: unicast addresses, then multicast ones. A refused command leaves the tables empty, not half old. */
static bool mac_tables(struct vnet *s, const struct virtq_elem *el)
{
	uint64_t offset = 0;
	bool good;

	if (!virtio_has(&s->v, VNET_CTRL_RX))
		return false;
	s->n_uni = s->n_multi = 0;
	good = mac_table(s, el, &offset, 0, &s->n_uni, &s->uni_overflow) &&
	       mac_table(s, el, &offset, s->n_uni, &s->n_multi, &s->multi_overflow) &&
	       COMMAND_SIZE + offset == el->out_len;
	if (!good) {
		s->n_uni = s->n_multi = 0;
		s->uni_overflow = s->multi_overflow = false;
	}
	nic_rx_filter_changed(&s->nic);
	return good;
}

static bool mac_address(struct vnet *s, const struct virtq_elem *el)
{
	uint8_t mac[6];

	if (!virtio_has(&s->v, VNET_CTRL_MAC_ADDR) || el->out_len != COMMAND_SIZE + sizeof(mac) ||
	    !data(el, 0, mac, sizeof(mac)))
		return false;
	vnet_set_mac(s, mac);
	return true;
}

static bool vlan(struct vnet *s, uint8_t command, const struct virtq_elem *el)
{
	uint8_t raw[2];
	unsigned id;

	if (command > VLAN_DEL || !virtio_has(&s->v, VNET_CTRL_VLAN) || !data(el, 0, raw, sizeof(raw)))
		return false;
	id = get_le16(raw);
	if (id >= VNET_VLANS)
		return false;
	if (command == VLAN_ADD)
		s->vlans[id / 8] |= (uint8_t)BIT(id % 8);
	else
		s->vlans[id / 8] &= (uint8_t)~BIT(id % 8);
	nic_rx_filter_changed(&s->nic);
	return true;
}

static bool announced(struct vnet *s, uint8_t command)
{
	if (command != ANNOUNCE_ACK || !virtio_has(&s->v, VNET_GUEST_ANNOUNCE) || !s->announce)
		return false;
	s->announce = false;
	return true;
}

static bool pairs(struct vnet *s, uint8_t command, const struct virtq_elem *el)
{
	uint8_t raw[2];
	unsigned n;

	if (command != MQ_PAIRS_SET || !virtio_has(&s->v, VNET_MQ) || !data(el, 0, raw, sizeof(raw)))
		return false;
	n = get_le16(raw);
	if (!n || n > s->max_pairs)
		return false;
	s->pairs = (uint16_t)n;
	s->stale = true;
	vnet_configure(s);
	for (unsigned i = 0; i < s->max_pairs; i++) {
		if (i >= n)
			nic_want_packets(&s->nic, i, false);
		virtq_schedule(vnet_rx_queue(s, i));
		virtq_schedule(vnet_tx_queue(s, i));
	}
	return true;
}

/* 5.1.6.5.6: the features of its receive side that the driver wants from now on, by their bits. */
static bool guest_offloads(struct vnet *s, uint8_t command, const struct virtq_elem *el)
{
	const uint64_t all = BIT64(VNET_GUEST_CSUM) | BIT64(VNET_GUEST_TSO4) | BIT64(VNET_GUEST_TSO6) |
			     BIT64(VNET_GUEST_ECN) | BIT64(VNET_GUEST_UFO);
	uint8_t raw[8];

	if (command != GUEST_OFFLOADS_SET || !virtio_has(&s->v, VNET_CTRL_GUEST_OFFLOADS) ||
	    !data(el, 0, raw, sizeof(raw)) || get_le64(raw) & ~(all & s->v.driver_features))
		return false;
	s->offloads_off = all & ~get_le64(raw);
	s->stale = true;
	vnet_configure(s);
	return true;
}

static bool command(struct vnet *s, const struct virtq_elem *el)
{
	uint8_t what[COMMAND_SIZE];

	if (virtq_read(el, 0, what, sizeof(what)) != sizeof(what))
		return false;
	switch (what[0]) {
	case CLASS_RX:
		return rx_mode(s, what[1], el);
	case CLASS_MAC:
		return what[1] == MAC_TABLE_SET ? mac_tables(s, el) : what[1] == MAC_ADDR_SET && mac_address(s, el);
	case CLASS_VLAN:
		return vlan(s, what[1], el);
	case CLASS_ANNOUNCE:
		return announced(s, what[1]);
	case CLASS_MQ:
		return pairs(s, what[1], el);
	case CLASS_GUEST_OFFLOADS:
		return guest_offloads(s, what[1], el);
	default:
		return false;
	}
}

void vnet_run_ctrl(struct virtq *vq)
{
	struct vnet *s = vnet_of(vq->v);
	struct virtq_elem *el;

	if (!virtio_running(vq->v) || !virtio_has(vq->v, VNET_CTRL_VQ))
		return;
	vnet_configure(s);
	while ((el = virtq_pop(vq))) {
		uint8_t ack;

		if (el->out_len < COMMAND_SIZE || !el->in_len) {
			virtq_drop(el);
			virtio_fail(vq->v, "a control command without a head or without room for its result");
			return;
		}
		ack = command(s, el) ? ACK_OK : ACK_ERR;
		if (ack == ACK_ERR)
			log_guest(&s->v.dev.guest_log, "virtio", "%s: a control command is refused", s->v.dev.id);
		virtq_push(el, (uint32_t)virtq_write(el, 0, &ack, sizeof(ack)));
	}
	virtq_notify(vq);
}
