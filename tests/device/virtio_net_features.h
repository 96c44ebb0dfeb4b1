/* Features of virtio-net (VIRTIO 1.2, 5.1.3 and 5.1.3.1) as masks. */
#ifndef VMM_TEST_VIRTIO_NET_FEATURES_H
#define VMM_TEST_VIRTIO_NET_FEATURES_H

enum {
	F_CSUM = 1 << 0,
	F_GUEST_CSUM = 1 << 1,
	F_CTRL_GUEST_OFFLOADS = 1 << 2,
	F_MTU = 1 << 3,
	F_MAC = 1 << 5,
	F_GSO = 1 << 6,
	F_GUEST_TSO4 = 1 << 7,
	F_GUEST_TSO6 = 1 << 8,
	F_GUEST_ECN = 1 << 9,
	F_HOST_TSO4 = 1 << 11,
	F_HOST_TSO6 = 1 << 12,
	F_HOST_ECN = 1 << 13,
	F_MRG_RXBUF = 1 << 15,
	F_STATUS = 1 << 16,
	F_CTRL_VQ = 1 << 17,
	F_CTRL_RX = 1 << 18,
	F_CTRL_VLAN = 1 << 19,
	F_CTRL_RX_EXTRA = 1 << 20,
	F_GUEST_ANNOUNCE = 1 << 21,
	F_MQ = 1 << 22,
	F_CTRL_MAC_ADDR = 1 << 23,
};
#define F_SPEED_DUPLEX (1ull << 63)

#endif
