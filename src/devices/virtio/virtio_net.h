/*
 * virtio-net: what its files share. virtio_net.c is the device (options, features, configuration, life cycle, state),
 * virtio_net_io.c moves packets, virtio_net_ctrl.c is the control queue and the receive filter it steers.
 */
#ifndef VMM_DEVICES_VIRTIO_NET_H
#define VMM_DEVICES_VIRTIO_NET_H

#include "virtio.h"
#include "vmm/net.h"

/* Feature bits (5.1.3) */
enum vnet_feature {
	VNET_CSUM = 0,
	VNET_GUEST_CSUM = 1,
	VNET_CTRL_GUEST_OFFLOADS = 2,
	VNET_MTU = 3,
	VNET_MAC = 5,
	VNET_GSO = 6, /* legacy: all kinds of segmentation */
	VNET_GUEST_TSO4 = 7,
	VNET_GUEST_TSO6 = 8,
	VNET_GUEST_ECN = 9,
	VNET_GUEST_UFO = 10,
	VNET_HOST_TSO4 = 11,
	VNET_HOST_TSO6 = 12,
	VNET_HOST_ECN = 13,
	VNET_HOST_UFO = 14,
	VNET_MRG_RXBUF = 15,
	VNET_STATUS = 16,
	VNET_CTRL_VQ = 17,
	VNET_CTRL_RX = 18,
	VNET_CTRL_VLAN = 19,
	VNET_CTRL_RX_EXTRA = 20,
	VNET_GUEST_ANNOUNCE = 21,
	VNET_MQ = 22,
	VNET_CTRL_MAC_ADDR = 23,
	VNET_OPTIONS = 24, /* the bits above that have an option */
	VNET_SPEED_DUPLEX = 63,
};

/* struct virtio_net_hdr (5.1.6) */
enum {
	VNET_HDR_FLAGS = 0,
	VNET_HDR_GSO_TYPE = 1,
	VNET_HDR_LEN = 2,
	VNET_HDR_GSO_SIZE = 4,
	VNET_HDR_CSUM_START = 6,
	VNET_HDR_CSUM_OFFSET = 8,
	VNET_HDR_OLD_SIZE = 10,
	VNET_HDR_NUM_BUFFERS = 10, /* with MRG_RXBUF, and for every modern driver */
	VNET_HDR_SIZE = 12,
};
#define VNET_HDR_NEEDS_CSUM 1

#define VNET_MACS  64 /* addresses the filter knows, as QEMU's */
#define VNET_VLANS 4096

struct vnet_pair {
	bool tx_blocked; /* the netdev has no room: wait for writable() */
	/* Receive chains in hand, oldest first: between turns of the loop only while a packet waits for more of them.
	 */
	struct virtq_elem **rx;
	unsigned n_rx;
	uint64_t rx_room;
	size_t expect; /* bytes packets needed lately */
	/* A packet, header included, that the driver has too few buffers for. */
	uint8_t *pending;
	size_t pending_len;
};

struct vnet {
	struct virtio v;
	struct virtq vq[2 * NET_MAX_QUEUES + 1];
	struct nic nic;

	/* options */
	char *netdev_id, *romfile, *duplex, *tx_mode;
	uint8_t own_mac[6];
	bool offer[VNET_OPTIONS], rss, hash, guest_rsc_ext, failover;
	uint16_t host_mtu, rx_size, tx_size;
	int32_t speed, bootindex;

	unsigned max_pairs;
	struct vnet_pair pair[NET_MAX_QUEUES];

	/* state */
	uint8_t mac[6];
	uint16_t pairs;        /* in use */
	uint64_t offloads_off; /* features of its own the driver switched off meanwhile */
	bool link_up;          /* as the driver was told */
	bool announce;         /* it shall announce itself */
	bool promisc, allmulti, alluni, nomulti, nouni, nobcast;
	bool uni_overflow, multi_overflow; /* the driver's table is too long: anything of the kind passes */
	uint8_t n_uni, n_multi;
	uint8_t macs[VNET_MACS][6]; /* unicast ones first */
	uint8_t vlans[VNET_VLANS / 8];

	/* run time */
	bool stale;      /* the netdev has to be told what the driver negotiated */
	bool has_header; /* it takes and gives virtio's header */
	uint8_t *bounce; /* NET_HEADER_MAX + NET_PACKET_MAX bytes */
	uint16_t *vlan_list;
};

static inline struct vnet *vnet_of(struct virtio *v)
{
	return container_of(v, struct vnet, v);
}
static inline struct vnet *vnet_of_nic(struct nic *n)
{
	return container_of(n, struct vnet, nic);
}
static inline struct virtq *vnet_rx_queue(struct vnet *s, unsigned pair)
{
	return &s->vq[2 * pair];
}
static inline struct virtq *vnet_tx_queue(struct vnet *s, unsigned pair)
{
	return &s->vq[2 * pair + 1];
}
/* 5.1.2: behind all pairs if the driver knows of more than one. */
static inline unsigned vnet_ctrl_index(const struct vnet *s)
{
	return virtio_has(&s->v, VNET_MQ) ? 2 * s->max_pairs : 2;
}

/* ---- virtio_net.c ---- */
unsigned vnet_header_size(const struct vnet *s); /* of what the driver negotiated */
/* Tell the netdev what the driver negotiated and chose, if it does not know yet. Main loop. */
void vnet_configure(struct vnet *s);
void vnet_set_mac(struct vnet *s, const uint8_t mac[6]);

/* ---- virtio_net_io.c ---- */
void vnet_run_rx(struct virtq *vq);
void vnet_run_tx(struct virtq *vq);
void vnet_readable(struct nic *n, unsigned queue);
void vnet_writable(struct nic *n, unsigned queue);
void vnet_give_back(struct vnet *s);    /* receive chains in hand, for a pause */
void vnet_drop_packets(struct vnet *s); /* and chains in hand, for a reset */

/* ---- virtio_net_ctrl.c ---- */
void vnet_run_ctrl(struct virtq *vq);
bool vnet_passes(const struct vnet *s, const uint8_t *frame, size_t len); /* the driver wants this frame; len >= 14 */
void vnet_reset_filter(struct vnet *s);
void vnet_show_filter(struct nic *n, struct nic_rx_filter *f);

#endif
