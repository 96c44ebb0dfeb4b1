/* Computations over Ethernet frames: see net_frame.h. */
#include "src/devices/net/net_frame.h"

#include <string.h>

#define ETHERTYPE_IP   0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100

/* ---- frame check sequence ---- */

/* Eight bytes a step: table[k][b] is the remainder of byte b with k zero bytes behind it. Main loop only: built when
 * first needed. */
static uint32_t table[8][256];

static void build_table(void)
{
	for (unsigned b = 0; b < 256; b++) {
		uint32_t c = b;

		for (int i = 0; i < 8; i++)
			c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
		table[0][b] = c;
	}
	for (unsigned k = 1; k < 8; k++)
		for (unsigned b = 0; b < 256; b++)
			table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 0xff];
}

uint32_t net_crc32(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t c = UINT32_MAX;

	if (!table[0][1])
		build_table();
	for (; len >= 8; p += 8, len -= 8) {
		uint32_t low = get_le32(p) ^ c, high = get_le32(p + 4);

		c = table[7][low & 0xff] ^ table[6][low >> 8 & 0xff] ^ table[5][low >> 16 & 0xff] ^
		    table[4][low >> 24] ^ table[3][high & 0xff] ^ table[2][high >> 8 & 0xff] ^
		    table[1][high >> 16 & 0xff] ^ table[0][high >> 24];
	}
	for (; len; p++, len--)
		c = c >> 8 ^ table[0][(c ^ *p) & 0xff];
	return ~c;
}

bool net_has_fcs(const uint8_t *frame, size_t len)
{
	return len > ETH_FCS && net_crc32(frame, len - ETH_FCS) == get_le32(frame + len - ETH_FCS);
}

/* ---- checksums ---- */

uint16_t net_fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

uint16_t net_sum(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t sum = 0;
	uint32_t word;

	/* RFC 1071, 2: in any byte order and word size, folded and swapped at the end. */
	for (; len >= 4; p += 4, len -= 4) {
		memcpy(&word, p, 4);
		sum += word;
	}
	word = 0;
	memcpy(&word, p, len);
	sum += word;
	sum = (sum & UINT32_MAX) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return be16toh(net_fold((uint32_t)((sum & 0xffff) + (sum >> 16))));
}

static bool parse_ipv4(const uint8_t *frame, size_t len, struct net_headers *h)
{
	const uint8_t *ip = frame + h->l3;
	size_t room = len - h->l3;
	unsigned header, total;

	if (room < 20 || ip[0] >> 4 != 4)
		return false;
	header = (ip[0] & 15) * 4u;
	total = get_be16(ip + 2);
	if (header < 20 || total < header || total > room)
		return false;
	h->ip = 4;
	h->protocol = ip[9];
	h->l4 = h->l3 + header;
	h->end = h->l3 + total;
	h->fragment = get_be16(ip + 6) & 0x3fff;
	return true;
}

static bool is_extension(uint8_t next)
{
	return next == 0 || next == 43 || next == 44 || next == 60; /* hop-by-hop, routing, fragment, destination */
}

static bool parse_ipv6(const uint8_t *frame, size_t len, struct net_headers *h)
{
	const uint8_t *ip = frame + h->l3;
	size_t room = len - h->l3;
	uint32_t at = h->l3 + 40;
	unsigned n = 0;
	uint8_t next;

	if (room < 40 || ip[0] >> 4 != 6 || 40u + get_be16(ip + 4) > room)
		return false;
	h->end = at + get_be16(ip + 4);
	for (next = ip[6]; is_extension(next); n++) {
		uint8_t after;

		if (n == 8 || at + 8 > h->end)
			return false;
		after = frame[at];
		h->fragment |= next == 44 && get_be16(frame + at + 2) & 0xfff9;
		/* With a routing header still to go the pseudo-header has another destination than the one seen here.
		 */
		h->fragment |= next == 43 && frame[at + 3];
		at += next == 44 ? 8u : (frame[at + 1] + 1) * 8u;
		next = after;
	}
	h->ip = 6;
	h->protocol = next;
	h->l4 = at;
	return true;
}

void net_parse(const uint8_t *frame, size_t len, struct net_headers *h)
{
	unsigned type;
	bool sound = false;

	*h = (struct net_headers){.l3 = ETH_HEADER, .end = (uint32_t)len};
	if (len < ETH_HEADER + ETH_VLAN)
		return;
	type = get_be16(frame + ETH_TYPE);
	if (type == ETHERTYPE_VLAN) {
		type = get_be16(frame + ETH_TYPE + ETH_VLAN);
		h->l3 += ETH_VLAN;
	}
	if (type == ETHERTYPE_IP)
		sound = parse_ipv4(frame, len, h);
	else if (type == ETHERTYPE_IPV6)
		sound = parse_ipv6(frame, len, h);
	if (!sound || h->fragment || h->l4 > h->end ||
	    !((h->protocol == IP_TCP && h->end - h->l4 >= 20) || (h->protocol == IP_UDP && h->end - h->l4 >= 8)))
		h->l4 = 0;
}

enum net_check net_check_ip(const uint8_t *frame, const struct net_headers *h)
{
	if (h->ip != 4)
		return NET_CHECK_NONE;
	return net_sum(frame + h->l3, (frame[h->l3] & 15) * 4u) == 0xffff ? NET_CHECK_GOOD : NET_CHECK_BAD;
}

static unsigned l4_checksum_at(const struct net_headers *h)
{
	return h->l4 + (h->protocol == IP_TCP ? 16 : 6);
}

/* Of the pseudo-header and all behind the IP header; a datagram may be shorter than its packet. */
static uint16_t l4_sum(const uint8_t *frame, const struct net_headers *h)
{
	uint32_t len = h->end - h->l4, sum;

	if (h->protocol == IP_UDP && get_be16(frame + h->l4 + 4) >= 8)
		len = MIN(len, (uint32_t)get_be16(frame + h->l4 + 4));
	if (h->ip == 4)
		sum = net_sum(frame + h->l3 + 12, 8);
	else
		sum = net_sum(frame + h->l3 + 8, 32);
	sum += h->protocol + (len >> 16) + (len & 0xffff) + net_sum(frame + h->l4, len);
	return net_fold(sum);
}

enum net_check net_check_l4(const uint8_t *frame, const struct net_headers *h)
{
	if (!h->l4 || (h->protocol == IP_UDP && !get_be16(frame + l4_checksum_at(h))))
		return NET_CHECK_NONE;
	return l4_sum(frame, h) == 0xffff ? NET_CHECK_GOOD : NET_CHECK_BAD;
}

void net_put_ip_checksum(uint8_t *frame, const struct net_headers *h)
{
	uint8_t *ip = frame + h->l3;

	if (h->ip != 4)
		return;
	put_be16(ip + 10, 0);
	put_be16(ip + 10, (uint16_t)~net_sum(ip, (ip[0] & 15) * 4u));
}

void net_put_l4_checksum(uint8_t *frame, const struct net_headers *h)
{
	uint8_t *at;
	uint16_t sum;

	if (!h->l4)
		return;
	at = frame + l4_checksum_at(h);
	put_be16(at, 0);
	sum = (uint16_t)~l4_sum(frame, h);
	put_be16(at, sum ? sum : 0xffff); /* RFC 768: 0 would say that there is none */
}

/* ---- segments ---- */

static void segment_ip(uint8_t *ip, const struct net_segments *s, uint32_t index, uint32_t payload)
{
	uint32_t len = s->header - s->l3 + payload;

	if (s->ipv6) {
		if (s->l3 + 40 <= s->header)
			put_be16(ip + 4, (uint16_t)(len - 40));
	} else if (s->l3 + 20 <= s->header) {
		put_be16(ip + 2, (uint16_t)len);
		put_be16(ip + 4, (uint16_t)(get_be16(ip + 4) + index));
	}
}

void net_segment_header(uint8_t *header, const struct net_segments *s, uint32_t index, uint32_t payload, bool last)
{
	uint8_t *l4 = header + s->l4;

	segment_ip(header + s->l3, s, index, payload);
	if (s->tcp && s->l4 + 20 <= s->header) {
		put_be32(l4 + 4, get_be32(l4 + 4) + index * s->mss);
		if (!last)
			l4[13] &= (uint8_t)~TCP_FIN_PSH;
	} else if (!s->tcp && s->l4 + 8 <= s->header) {
		put_be16(l4 + 4, (uint16_t)(s->header - s->l4 + payload));
	}
}

/* ---- VLAN ---- */

size_t net_insert_vlan(uint8_t *frame, size_t len, uint16_t tpid, uint16_t tci)
{
	memmove(frame + ETH_TYPE + ETH_VLAN, frame + ETH_TYPE, len - ETH_TYPE);
	put_be16(frame + ETH_TYPE, tpid);
	put_be16(frame + ETH_TYPE + 2, tci);
	return len + ETH_VLAN;
}

size_t net_strip_vlan(uint8_t *frame, size_t len)
{
	memmove(frame + ETH_TYPE, frame + ETH_TYPE + ETH_VLAN, len - ETH_TYPE - ETH_VLAN);
	return len - ETH_VLAN;
}
