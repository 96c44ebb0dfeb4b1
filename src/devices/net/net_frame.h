/*
 * What adapters compute over Ethernet frames: the frame check sequence, checksums of IP, TCP and UDP, the headers of
 * segments.
 *
 * Sources: IEEE 802.3 3.2.9 (FCS); RFC 791, 768, 793, 1071 (checksums), 8200 (IPv6 and its extension headers). Frames
 * are hostile: every function takes lengths and looks at nothing beyond them.
 */
#ifndef VMM_DEVICES_NET_FRAME_H
#define VMM_DEVICES_NET_FRAME_H

#include "vmm/device.h"

#define ETH_HEADER  14
#define ETH_MIN     60 /* without FCS */
#define ETH_FCS     4
#define ETH_VLAN    4
#define ETH_TYPE    12 /* offset */
#define IP_TCP      6
#define IP_UDP      17
#define TCP_FIN_PSH 0x09

static inline bool eth_is_broadcast(const uint8_t *mac)
{
	static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	return !memcmp(mac, all, 6);
}

static inline bool eth_is_multicast(const uint8_t *mac)
{
	return mac[0] & 1;
}

/* The FCS as it is appended, little-endian. */
uint32_t net_crc32(const void *data, size_t len);
/* The last four bytes are the FCS of those before them. */
bool net_has_fcs(const uint8_t *frame, size_t len);

/* Ones' complement sum of big-endian words, folded to 16 bits and not inverted. An odd last byte counts as if a zero
 * followed. */
uint16_t net_sum(const void *data, size_t len);
uint16_t net_fold(uint32_t sum);

/* Where things are in a frame. */
struct net_headers {
	uint32_t l3, l4; /* offsets; l4 0: there is no TCP or UDP header to look at */
	uint32_t end;    /* of the IP packet: padding follows */
	uint8_t ip;      /* 4, 6, or 0: not IP, or malformed */
	uint8_t protocol;
	bool fragment;
};
/* len: without FCS. A VLAN tag is stepped over. Fills in what there is; h->ip is 0 if there is no sound IP header. */
void net_parse(const uint8_t *frame, size_t len, struct net_headers *h);

enum net_check { NET_CHECK_NONE /* there is no checksum, or it cannot be seen */, NET_CHECK_GOOD, NET_CHECK_BAD };
enum net_check net_check_ip(const uint8_t *frame, const struct net_headers *h);
enum net_check net_check_l4(const uint8_t *frame, const struct net_headers *h);
/* Compute and store, whatever is there now. Nothing where there is no such header, or in fragments. */
void net_put_ip_checksum(uint8_t *frame, const struct net_headers *h);
void net_put_l4_checksum(uint8_t *frame, const struct net_headers *h);

/* TCP (or UDP) segmentation: one large packet's header becomes that of each segment. */
struct net_segments {
	uint32_t header; /* bytes of all headers */
	uint32_t l3, l4;
	uint16_t mss;
	bool ipv6, tcp;
};
/* Make header, a copy of the large packet's, that of segment `index` (from 0) with `payload` bytes: lengths,
   identification, sequence number, flags. Checksums are the caller's. Offsets that do not fit into the header change
   nothing. */
void net_segment_header(uint8_t *header, const struct net_segments *s, uint32_t index, uint32_t payload, bool last);

/* Put a VLAN tag behind the addresses; the buffer has room for it. Returns the new length. */
size_t net_insert_vlan(uint8_t *frame, size_t len, uint16_t tpid, uint16_t tci);
/* Take it away; returns the new length. */
size_t net_strip_vlan(uint8_t *frame, size_t len);

#endif
