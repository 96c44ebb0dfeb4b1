/*
 * virtio-net: VIRTIO 1.2 section 5.1, with the legacy interface's parts, as a network card of up to 16 queue pairs and
 * a control queue. Checksums and segmentation are left to the host where the netdev can do them (tap).
 *
 *   virtio_net.c       options, features, configuration space, life cycle, state
 *   virtio_net_io.c    packets
 *   virtio_net_ctrl.c  control queue, receive filter
 *
 * Left out, and refused when asked for: receive steering by hash (rss, hash; with several pairs the host's tap chooses
 * the queue), coalescing of received segments for Windows (guest_rsc_ext), standby for a passed-through card
 * (failover), and a timer that holds packets back (tx=timer). The control queue's size follows the receive queues'
 * where a driver without MQ meets several pairs.
 */
#include "virtio_net.h"

#include <errno.h>
#include <stdlib.h>

enum {
	CONFIG_MAC = 0,
	CONFIG_STATUS = 6,
	CONFIG_PAIRS = 8,
	CONFIG_MTU = 10,
	CONFIG_SPEED = 12,
	CONFIG_DUPLEX = 16,
	CONFIG_SIZE = 17
};
enum { STATUS_LINK_UP = 1, STATUS_ANNOUNCE = 2 };
enum { DUPLEX_HALF = 0, DUPLEX_FULL = 1, DUPLEX_UNKNOWN = 0xff };
#define QUEUE_MIN 256
#define CTRL_SIZE 64
#define MTU_MIN   68 /* 5.1.4.1 */

/* ---- features ---- */

#define NO_FEATURE 255
/* What a feature needs: abilities of the netdev (enum net_offload), and another feature. Bases come before what builds
 * on them. */
static const struct {
	uint8_t bit, needs;
	uint16_t offloads;
} needs[] = {
	{VNET_CSUM, NO_FEATURE, NET_CSUM},
	{VNET_GUEST_CSUM, NO_FEATURE, NET_CSUM},
	{VNET_GUEST_TSO4, VNET_GUEST_CSUM, NET_TSO4},
	{VNET_GUEST_TSO6, VNET_GUEST_CSUM, NET_TSO6},
	{VNET_GUEST_ECN, VNET_GUEST_TSO4, NET_ECN},
	{VNET_GUEST_UFO, VNET_GUEST_CSUM, NET_UFO},
	{VNET_HOST_TSO4, VNET_CSUM, NET_TSO4},
	{VNET_HOST_TSO6, VNET_CSUM, NET_TSO6},
	{VNET_HOST_ECN, VNET_HOST_TSO4, NET_ECN},
	{VNET_HOST_UFO, VNET_CSUM, NET_UFO},
	{VNET_GSO, VNET_HOST_TSO4, NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN | NET_UFO},
	{VNET_GSO, VNET_HOST_TSO6, 0},
	{VNET_CTRL_GUEST_OFFLOADS, VNET_CTRL_VQ, 0},
	{VNET_CTRL_RX, VNET_CTRL_VQ, 0},
	{VNET_CTRL_RX_EXTRA, VNET_CTRL_RX, 0},
	{VNET_CTRL_VLAN, VNET_CTRL_VQ, 0},
	{VNET_CTRL_MAC_ADDR, VNET_CTRL_VQ, 0},
	{VNET_GUEST_ANNOUNCE, VNET_CTRL_VQ, 0},
	{VNET_GUEST_ANNOUNCE, VNET_STATUS, 0},
	{VNET_MQ, VNET_CTRL_VQ, 0},
};

static uint64_t features(const struct virtio *v)
{
	const struct vnet *s = container_of(v, struct vnet, v);
	unsigned offloads = nic_offloads(&s->nic);
	uint64_t f = BIT64(VNET_MAC);

	for (unsigned bit = 0; bit < VNET_OPTIONS; bit++)
		if (s->offer[bit])
			f |= BIT64(bit);
	if (s->host_mtu)
		f |= BIT64(VNET_MTU);
	if (s->speed >= 0 || s->duplex)
		f |= BIT64(VNET_SPEED_DUPLEX);
	for (size_t i = 0; i < ARRAY_SIZE(needs); i++)
		if (needs[i].offloads & ~offloads || (needs[i].needs != NO_FEATURE && !(f & BIT64(needs[i].needs))))
			f &= ~BIT64(needs[i].bit);
	return f;
}

unsigned vnet_header_size(const struct vnet *s)
{
	return virtio_has(&s->v, VNET_MRG_RXBUF) || virtio_has(&s->v, VIRTIO_F_VERSION_1) ? VNET_HDR_SIZE
											  : VNET_HDR_OLD_SIZE;
}

/* What the driver takes unfinished: enum net_offload. */
static unsigned driver_takes(const struct vnet *s)
{
	static const struct {
		uint8_t bit, offload;
	} map[] = {{VNET_GUEST_CSUM, NET_CSUM},
		   {VNET_GUEST_TSO4, NET_TSO4},
		   {VNET_GUEST_TSO6, NET_TSO6},
		   {VNET_GUEST_ECN, NET_ECN},
		   {VNET_GUEST_UFO, NET_UFO}};
	unsigned takes = 0;

	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (virtio_has(&s->v, map[i].bit) && !(s->offloads_off & BIT64(map[i].bit)))
			takes |= map[i].offload;
	return takes;
}

void vnet_configure(struct vnet *s)
{
	if (!s->stale)
		return;
	s->stale = false;
	s->has_header = !nic_set_vnet_header(&s->nic, vnet_header_size(s));
	if (s->has_header)
		nic_set_offloads(&s->nic, driver_takes(s));
	nic_set_queues(&s->nic, s->pairs);
}

/* ---- configuration space (5.1.4) ---- */

static void config_read(struct virtio *v, uint8_t *config)
{
	struct vnet *s = vnet_of(v);

	memcpy(config + CONFIG_MAC, s->mac, 6);
	put_le16(config + CONFIG_STATUS,
		 (uint16_t)((s->link_up ? STATUS_LINK_UP : 0) | (s->announce ? STATUS_ANNOUNCE : 0)));
	put_le16(config + CONFIG_PAIRS, (uint16_t)s->max_pairs);
	put_le16(config + CONFIG_MTU, s->host_mtu);
	put_le32(config + CONFIG_SPEED, (uint32_t)s->speed);
	config[CONFIG_DUPLEX] = !s->duplex ? DUPLEX_UNKNOWN : strcmp(s->duplex, "full") ? DUPLEX_HALF : DUPLEX_FULL;
}

void vnet_set_mac(struct vnet *s, const uint8_t mac[6])
{
	memcpy(s->mac, mac, 6);
	memcpy(s->nic.mac, mac, 6);
	nic_rx_filter_changed(&s->nic);
}

/* Before 1.0 drivers wrote their address here, byte by byte. */
static void config_write(struct virtio *v, unsigned offset, uint32_t value, unsigned size)
{
	struct vnet *s = vnet_of(v);
	uint8_t mac[6], raw[4];

	if (v->modern || virtio_has(v, VNET_CTRL_MAC_ADDR))
		return;
	memcpy(mac, s->mac, 6);
	put_le(raw, value, size);
	for (unsigned i = 0; i < size; i++)
		if (offset + i < 6)
			mac[offset + i] = raw[i];
	if (memcmp(mac, s->mac, 6))
		vnet_set_mac(s, mac);
}

/* ---- link and announcement ---- */

static void link_changed(struct nic *n, bool up)
{
	struct vnet *s = vnet_of_nic(n);

	s->stale = true; /* another netdev, perhaps */
	for (unsigned i = 0; i < s->max_pairs; i++) {
		s->pair[i].tx_blocked = false;
		virtq_schedule(vnet_tx_queue(s, i));
		virtq_schedule(vnet_rx_queue(s, i));
	}
	if (s->link_up == up)
		return;
	s->link_up = up;
	if (virtio_has(&s->v, VNET_STATUS))
		virtio_config_changed(&s->v);
}

/* 5.1.6.5.4 */
static bool announce(struct nic *n)
{
	struct vnet *s = vnet_of_nic(n);

	if (!virtio_running(&s->v) || !virtio_has(&s->v, VNET_GUEST_ANNOUNCE))
		return false;
	s->announce = true;
	virtio_config_changed(&s->v);
	return true;
}

static const struct nic_ops nic_ops = {
	.readable = vnet_readable,
	.writable = vnet_writable,
	.link_changed = link_changed,
	.rx_filter = vnet_show_filter,
	.announce = announce,
};

/* ---- the core's calls ---- */

static void no_packets(struct vnet *s)
{
	for (unsigned i = 0; i < s->max_pairs; i++)
		nic_want_packets(&s->nic, i, false);
}

static void start(struct virtio *v)
{
	vnet_of(v)->stale = true; /* a vCPU is here; the netdev is told by the main loop, before the first packet */
}

static void reset(struct virtio *v)
{
	struct vnet *s = vnet_of(v);

	no_packets(s);
	vnet_drop_packets(s);
	vnet_reset_filter(s);
	memcpy(s->mac, s->own_mac, 6);
	memcpy(s->nic.mac, s->own_mac, 6);
	s->pairs = 1;
	s->offloads_off = 0;
	s->announce = false;
	s->stale = true;
}

/* A packet that waits for buffers goes on waiting; in another process it is lost, as on any cable that is moved. */
static void pause_packets(struct virtio *v)
{
	struct vnet *s = vnet_of(v);

	no_packets(s);
	vnet_give_back(s);
	for (unsigned i = 0; i < s->max_pairs; i++)
		s->pair[i].tx_blocked = false; /* tried again */
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_NET,
	.config_size = CONFIG_SIZE,
	.features = features,
	.config_read = config_read,
	.config_write = config_write,
	.start = start,
	.reset = reset,
	.pause = pause_packets,
};

/* Queue 2 is the second pair's or, for a driver that knows of one only, the control queue. */
static void run(struct virtq *vq)
{
	const struct vnet *s = vnet_of(vq->v);

	if (vq->index == vnet_ctrl_index(s))
		vnet_run_ctrl(vq);
	else if (vq->index >= 2 * s->max_pairs)
		return;
	else if (vq->index % 2)
		vnet_run_tx(vq);
	else
		vnet_run_rx(vq);
}

/* ---- the class ---- */

static int check_size(const char *name, unsigned size, struct err *e)
{
	if (size >= QUEUE_MIN && size <= VIRTQ_MAX_SIZE && !(size & (size - 1)))
		return 0;
	return err_set(e, EINVAL, "Invalid %s (= %u), must be a power of 2 between %u and %u.", name, size, QUEUE_MIN,
		       VIRTQ_MAX_SIZE);
}

static int check_options(const struct vnet *s, struct err *e)
{
	const char *refused = s->rss             ? "rss"
			      : s->hash          ? "hash"
			      : s->guest_rsc_ext ? "guest_rsc_ext"
			      : s->failover      ? "failover"
						 : NULL;
	int r;

	if (refused)
		return err_set(e, ENOTSUP, "%s=on: this network card cannot do that", refused);
	if (s->tx_mode && strcmp(s->tx_mode, "bh"))
		return err_set(e, ENOTSUP, "tx=%s: packets are sent at once, only tx=bh is possible", s->tx_mode);
	if (s->duplex && strcmp(s->duplex, "half") && strcmp(s->duplex, "full"))
		return err_set(e, EINVAL, "'duplex' must be 'half' or 'full'");
	if (s->speed < -1)
		return err_set(e, EINVAL, "'speed' must be between 0 and INT_MAX");
	if (s->host_mtu && s->host_mtu < MTU_MIN)
		return err_set(e, EINVAL, "host_mtu=%u: the smallest is %u", s->host_mtu, MTU_MIN);
	r = check_size("rx_queue_size", s->rx_size, e);
	return r ? r : check_size("tx_queue_size", s->tx_size, e);
}

static void release(struct vnet *s)
{
	for (unsigned i = 0; i < s->max_pairs; i++)
		free(s->pair[i].rx);
	free(s->bounce);
	free(s->vlan_list);
	nic_detach(&s->nic);
}

static int create(struct device *dev, struct err *e)
{
	struct vnet *s = DEVICE(dev, struct vnet);
	const struct netdev *netdev;
	int r = check_options(s, e);

	if (r)
		return r;
	netdev = s->netdev_id ? netdev_find(s->netdev_id) : NULL;
	s->max_pairs = netdev ? netdev_queues(netdev) : 1;
	r = nic_attach(&s->nic, dev, s->netdev_id, s->max_pairs, s->own_mac, &nic_ops, e);
	if (r)
		return r;
	s->bounce = xzalloc(NET_HEADER_MAX + NET_PACKET_MAX);
	s->link_up = nic_link_up(&s->nic);
	virtio_init(&s->v, &ops, s->vq, 2 * s->max_pairs + 1);
	for (unsigned i = 0; i < s->max_pairs; i++) {
		virtq_init(vnet_rx_queue(s, i), s->rx_size, run);
		virtq_init(vnet_tx_queue(s, i), s->tx_size, run);
		s->pair[i].rx = xcalloc(s->rx_size, sizeof(*s->pair[i].rx));
	}
	virtq_init(&s->vq[2 * s->max_pairs], CTRL_SIZE, run);
	r = virtio_pci_create(&s->v, e);
	if (r)
		release(s);
	return r;
}

static void destroy(struct device *dev)
{
	struct vnet *s = DEVICE(dev, struct vnet);

	vnet_drop_packets(s);
	virtio_destroy(&s->v);
	release(s);
}

/* The link is the host's: what a saved guest knew of it may be out of date here. */
static void resume(struct device *dev)
{
	struct vnet *s = DEVICE(dev, struct vnet);

	virtio_class_resume(dev);
	if (s->link_up != nic_link_up(&s->nic))
		link_changed(&s->nic, !s->link_up);
}

static int post_load(void *obj, uint16_t version, struct err *e)
{
	struct vnet *s = obj;

	if (!s->pairs || s->pairs > s->max_pairs)
		return err_set(e, ERANGE, "device '%s': %u queue pairs in use; it has %u", s->v.dev.id, s->pairs,
			       s->max_pairs);
	if (s->n_uni + s->n_multi > VNET_MACS)
		return err_set(e, ERANGE, "device '%s': %u addresses in a table of %u", s->v.dev.id,
			       s->n_uni + s->n_multi, VNET_MACS);
	memcpy(s->nic.mac, s->mac, 6);
	s->stale = true;
	return virtio_post_load(&s->v, e);
}

static const struct state_field fields[] = {
	VIRTIO_STATE(struct vnet),
	STATE_BUF(struct vnet, mac),
	STATE_U(struct vnet, pairs),
	STATE_U(struct vnet, offloads_off),
	STATE_B(struct vnet, link_up),
	STATE_B(struct vnet, announce),
	STATE_B(struct vnet, promisc),
	STATE_B(struct vnet, allmulti),
	STATE_B(struct vnet, alluni),
	STATE_B(struct vnet, nomulti),
	STATE_B(struct vnet, nouni),
	STATE_B(struct vnet, nobcast),
	STATE_B(struct vnet, uni_overflow),
	STATE_B(struct vnet, multi_overflow),
	STATE_U(struct vnet, n_uni),
	STATE_U(struct vnet, n_multi),
	STATE_BUF(struct vnet, macs),
	STATE_BUF(struct vnet, vlans),
	STATE_FIELDS_END,
};
static const struct state_table table = {
	.name = "virtio-net", .version = 1, .oldest = 1, .fields = fields, .post_load = post_load};

#define OFFER(nm, bit, text) PROP_NAMED(struct vnet, nm, offer[bit], PROP_BOOL, .def = 1, .help = text)
#define REFUSED(nm)          PROP(struct vnet, nm, PROP_BOOL, .help = "only off")

static const struct prop props[] = {
	PROP_NAMED(struct vnet, "netdev", netdev_id, PROP_NETDEV, .help = "id of the -netdev it is plugged into"),
	PROP_NAMED(struct vnet, "mac", own_mac, PROP_MAC,
		   .help = "its address (default: the next of 52:54:00:12:34:56 ...)"),
	PROP(struct vnet, bootindex, PROP_I32, .def = (uint64_t)-1, .help = "Boot order, lowest first; -1: none"),
	PROP(struct vnet, romfile, PROP_STR, .help = "expansion ROM image, for example pxe-virtio.rom (default: none)"),
	PROP_NAMED(struct vnet, "mq", offer[VNET_MQ], PROP_BOOL, .help = "offer all queue pairs of the netdev"),
	PROP_NAMED(struct vnet, "rx_queue_size", rx_size, PROP_U16, .def = 256,
		   .help = "entries of receive queues, 256 to 1024"),
	PROP_NAMED(struct vnet, "tx_queue_size", tx_size, PROP_U16, .def = 256,
		   .help = "entries of transmit queues, 256 to 1024"),
	PROP(struct vnet, host_mtu, PROP_U16,
	     .help = "largest packet the network takes, told to the driver; 0: nothing is told"),
	PROP(struct vnet, speed, PROP_I32, .def = (uint64_t)-1, .help = "Mbit/s, told to the driver; -1: unknown"),
	PROP(struct vnet, duplex, PROP_STR, .help = "half or full, told to the driver"),
	PROP_NAMED(struct vnet, "tx", tx_mode, PROP_STR, .help = "only bh"),
	OFFER("csum", VNET_CSUM, "offer checksums of sent packets"),
	OFFER("gso", VNET_GSO, "legacy: offer segmentation of all kinds"),
	OFFER("host_tso4", VNET_HOST_TSO4, "offer segmentation of sent packets, TCP/IPv4"),
	OFFER("host_tso6", VNET_HOST_TSO6, "offer segmentation of sent packets, TCP/IPv6"),
	OFFER("host_ecn", VNET_HOST_ECN, "offer segmentation of sent packets with ECN"),
	OFFER("host_ufo", VNET_HOST_UFO, "offer fragmentation of sent packets, UDP"),
	OFFER("guest_csum", VNET_GUEST_CSUM, "let packets without checksum in"),
	OFFER("guest_tso4", VNET_GUEST_TSO4, "let unsegmented packets in, TCP/IPv4"),
	OFFER("guest_tso6", VNET_GUEST_TSO6, "let unsegmented packets in, TCP/IPv6"),
	OFFER("guest_ecn", VNET_GUEST_ECN, "let unsegmented packets with ECN in"),
	OFFER("guest_ufo", VNET_GUEST_UFO, "let unfragmented packets in, UDP"),
	OFFER("mrg_rxbuf", VNET_MRG_RXBUF, "offer received packets in several buffers"),
	OFFER("status", VNET_STATUS, "tell the driver whether the link is up"),
	OFFER("guest_announce", VNET_GUEST_ANNOUNCE, "ask the driver to announce itself after a migration"),
	OFFER("ctrl_vq", VNET_CTRL_VQ, "offer the control queue, which the following need"),
	OFFER("ctrl_rx", VNET_CTRL_RX, "offer a receive filter"),
	OFFER("ctrl_rx_extra", VNET_CTRL_RX_EXTRA, "offer more modes of the receive filter"),
	OFFER("ctrl_vlan", VNET_CTRL_VLAN, "offer a filter of VLANs"),
	OFFER("ctrl_mac_addr", VNET_CTRL_MAC_ADDR, "let the driver set its address by command"),
	OFFER("ctrl_guest_offloads", VNET_CTRL_GUEST_OFFLOADS,
	      "let the driver change the guest_ features while it runs"),
	REFUSED(rss),
	REFUSED(hash),
	REFUSED(guest_rsc_ext),
	REFUSED(failover),
	VIRTIO_PROPS(struct vnet, UINT32_MAX),
	PROP_END,
};

static const struct pci_identity identity = VIRTIO_IDENTITY(0x1000, VIRTIO_ID_NET, 0x020000, .rom_bar = true);

DEVICE_CLASS(virtio_net) = {
	.name = "virtio-net-pci",
	.alias = "virtio-net-pci-transitional",
	.summary = "network card (virtio)",
	.category = "Network",
	.size = sizeof(struct vnet),
	VIRTIO_CLASS(identity),
	.props = props,
	.state = &table,
	.create = create,
	.destroy = destroy,
	.resume = resume,
};
