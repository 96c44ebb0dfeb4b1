/* Frames for tests of adapters, and checksums computed another way than the devices do: byte by byte. */
#ifndef VMM_TEST_NET_FRAMES_H
#define VMM_TEST_NET_FRAMES_H

#include <string.h>
#include "bench.h"
#include "vmm/bytes.h"

#define BROADCAST "\xff\xff\xff\xff\xff\xff"
#define PEER      "\x52\x54\x00\x99\x88\x77"

/* "mac=" of the adapters under test */
#define OWN_MAC_TEXT "52:54:00:11:22:33"
#define OWN_MAC      "\x52\x54\x00\x11\x22\x33"

enum { L3 = 14, L4 = 34, TCP_HEADERS = 54 };

static inline uint16_t test_sum(const uint8_t *p, size_t len, uint32_t sum)
{
	for (size_t i = 0; i < len; i++)
		sum += (uint32_t)p[i] << (i & 1 ? 0 : 8);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static inline uint16_t pseudo_sum(const uint8_t *frame, uint32_t len)
{
	return test_sum(frame + L3 + 12, 8, frame[L3 + 9] + len);
}

/* An IPv4 packet without checksums; the payload counts up from `seed`. Returns the frame's length. */
static inline size_t make_ip(uint8_t *f, const char *to, uint8_t protocol, size_t payload, uint8_t seed)
{
	size_t header = protocol == 6 ? 20 : 8, total = 20 + header + payload;

	memset(f, 0, L4 + header);
	memcpy(f, to, 6);
	memcpy(f + 6, PEER, 6);
	put_be16(f + 12, 0x0800);
	f[L3] = 0x45;
	put_be16(f + L3 + 2, (uint16_t)total);
	put_be16(f + L3 + 4, 0x1234);
	f[L3 + 8] = 64;
	f[L3 + 9] = protocol;
	put_be32(f + L3 + 12, 0x0a000001);
	put_be32(f + L3 + 16, 0x0a000002);
	put_be16(f + L4, 1000);
	put_be16(f + L4 + 2, 2000);
	if (protocol == 6) {
		put_be32(f + L4 + 4, 0xfffffff0); /* wraps in the second segment */
		f[L4 + 12] = 0x50;
		f[L4 + 13] = 0x19; /* ACK, PSH, FIN */
	} else {
		put_be16(f + L4 + 4, (uint16_t)(8 + payload));
	}
	for (size_t i = 0; i < payload; i++)
		f[L4 + header + i] = (uint8_t)(seed + i * 7);
	return L3 + total;
}

static inline void set_sums(uint8_t *f)
{
	uint32_t len = get_be16(f + L3 + 2) - 20u;
	uint8_t *at = f + L4 + (f[L3 + 9] == 6 ? 16 : 6);

	put_be16(f + L3 + 10, 0);
	put_be16(f + L3 + 10, (uint16_t)~test_sum(f + L3, 20, 0));
	put_be16(at, 0);
	put_be16(at, (uint16_t)~test_sum(f + L4, len, pseudo_sum(f, len)));
}

static inline void check_sums_of(const uint8_t *f)
{
	uint32_t len = get_be16(f + L3 + 2) - 20u;

	ck_assert_uint_eq(test_sum(f + L3, 20, 0), 0xffff);
	ck_assert_uint_eq(test_sum(f + L4, len, pseudo_sum(f, len)), 0xffff);
}

static inline uint32_t test_crc(const uint8_t *p, size_t len)
{
	uint32_t c = UINT32_MAX;

	while (len--) {
		c ^= *p++;
		for (int i = 0; i < 8; i++)
			c = c >> 1 ^ (c & 1 ? 0xedb88320u : 0);
	}
	return ~c;
}

/* Segment n of a packet that make_ip(.., 6, ..) made: mss bytes each, the last one `last`. Fails the test if it is not
 * right. */
static inline void check_segment(const uint8_t *f, size_t len, const uint8_t *whole, unsigned n, size_t mss,
				 size_t payload, bool last)
{
	ck_assert_uint_eq(len, TCP_HEADERS + payload);
	ck_assert_uint_eq(get_be16(f + L3 + 2), 40 + payload);
	ck_assert_uint_eq(get_be16(f + L3 + 4), 0x1234u + n);
	ck_assert_uint_eq(get_be32(f + L4 + 4), (uint32_t)(0xfffffff0u + n * mss));
	ck_assert_uint_eq(f[L4 + 13], last ? 0x19 : 0x10);
	ck_assert(!memcmp(f + TCP_HEADERS, whole + TCP_HEADERS + n * mss, payload));
	check_sums_of(f);
}

#endif
