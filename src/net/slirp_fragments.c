/*
 * Fragments of IPv4 datagrams from the guest (RFC 791 section 3.2), put together before libslirp sees them:
 * libslirp 4.7 follows a wild pointer when the last fragment of a datagram comes before the others, and keeps any
 * number of unfinished datagrams.
 *
 * A bit for each block of 8 bytes says what is there. Fragments that overlap, which only an attack sends (RFC 5722
 * forbids them for IPv6), end their datagram. DATAGRAMS_MAX are under way at once, the oldest makes room; each for half
 * a minute at most.
 */
#include "slirp_private.h"

#include <stdlib.h>
#include <string.h>
#include "vmm/bytes.h"
#include "vmm/clock.h"
#include "vmm/net.h"

#define DATAGRAMS_MAX 16
#define LIFE_NS       (30 * NS_PER_SEC)
#define ETHER         14
#define IP_MIN        20
#define IP_HEADER_MAX 60
#define PAYLOAD_MAX   (65535 - IP_MIN)
#define MORE          0x2000
#define OFFSET        0x1fff

struct datagram {
	uint8_t key[11]; /* addresses, identification, protocol */
	uint64_t began_ns;
	size_t total, present, extent;           /* bytes of payload; total 0: the last has not come */
	size_t header_len;                       /* 0: the first has not come */
	uint8_t header[ETHER + IP_HEADER_MAX];   /* of the first */
	uint8_t blocks[PAYLOAD_MAX / 8 / 8 + 1]; /* a bit each */
	uint8_t payload[PAYLOAD_MAX + 8];
};

struct fragments {
	struct datagram *d[DATAGRAMS_MAX];
};

void fragments_free(struct fragments *t)
{
	for (unsigned i = 0; t && i < DATAGRAMS_MAX; i++)
		free(t->d[i]);
	free(t);
}

bool fragments_is_one(const uint8_t *frame, size_t len)
{
	return len >= ETHER + IP_MIN && get_be16(frame + 12) == 0x0800 && get_be16(frame + ETHER + 6) & (MORE | OFFSET);
}

static uint16_t sum_of(const uint8_t *header, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i += 2)
		sum += get_be16(header + i);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* The slot of the datagram, a new one if it has none: a free one or the oldest's. */
static struct datagram **find(struct fragments *t, const uint8_t *key)
{
	uint64_t now = clock_ns(VCLOCK_VIRTUAL);
	struct datagram **slot = &t->d[0];

	for (unsigned i = 0; i < DATAGRAMS_MAX; i++) {
		struct datagram **d = &t->d[i];

		if (*d && now - (*d)->began_ns > LIFE_NS) {
			free(*d);
			*d = NULL;
		}
		if (*d && !memcmp((*d)->key, key, sizeof((*d)->key)))
			return d;
		if (*slot && (!*d || (*d)->began_ns < (*slot)->began_ns))
			slot = d;
	}
	free(*slot);
	*slot = xzalloc(sizeof(**slot));
	memcpy((*slot)->key, key, sizeof((*slot)->key));
	(*slot)->began_ns = now;
	return slot;
}

/* False: it contradicts what is there. */
static bool put(struct datagram *d, const uint8_t *payload, size_t at, size_t len, bool more)
{
	for (size_t block = at / 8; block < (at + len + 7) / 8; block++) {
		if (d->blocks[block / 8] & BIT(block % 8))
			return false;
		d->blocks[block / 8] |= (uint8_t)BIT(block % 8);
	}
	d->extent = MAX(d->extent, at + len);
	if ((!more && d->total) || (d->total && d->extent > d->total) || (!more && d->extent > at + len))
		return false;
	if (!more)
		d->total = at + len;
	memcpy(d->payload + at, payload, len);
	d->present += len;
	return true;
}

static size_t finish(struct datagram *d, uint8_t *whole)
{
	uint8_t *ip = whole + ETHER;
	size_t len = d->header_len + d->total;

	memcpy(whole, d->header, ETHER + d->header_len);
	memcpy(whole + ETHER + d->header_len, d->payload, d->total);
	put_be16(ip + 2, (uint16_t)len);
	put_be16(ip + 6, 0);
	put_be16(ip + 10, 0);
	put_be16(ip + 10, sum_of(ip, d->header_len));
	return ETHER + len;
}

size_t fragments_add(struct fragments **table, const uint8_t *frame, size_t len, uint8_t *whole)
{
	const uint8_t *ip = frame + ETHER;
	size_t header = (ip[0] & 0xf) * 4u, total = get_be16(ip + 2), at = (get_be16(ip + 6) & OFFSET) * 8u, size;
	bool more = get_be16(ip + 6) & MORE;
	uint8_t key[sizeof((*table)->d[0]->key)];
	struct datagram **d;

	if (ip[0] >> 4 != 4 || header < IP_MIN || total <= header || ETHER + total > len || sum_of(ip, header))
		return 0;
	size = total - header;
	if ((more && size % 8) || at + size > PAYLOAD_MAX)
		return 0;
	memcpy(key, ip + 12, 8);
	memcpy(key + 8, ip + 4, 2);
	key[10] = ip[9];
	if (!*table)
		*table = xzalloc(sizeof(**table));
	d = find(*table, key);
	if (!at) {
		(*d)->header_len = header;
		memcpy((*d)->header, frame, ETHER + header);
	}
	size = put(*d, ip + header, at, size, more) ? 0 : SIZE_MAX;
	if (!size && (!(*d)->total || !(*d)->header_len || (*d)->present < (*d)->total))
		return 0;
	/* complete, or spoilt */
	if (!size && (*d)->present == (*d)->total && (*d)->header_len + (*d)->total <= 65535)
		size = finish(*d, whole);
	else
		size = 0;
	free(*d);
	*d = NULL;
	return size;
}
