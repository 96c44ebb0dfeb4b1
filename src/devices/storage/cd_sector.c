/*
 * Raw CD-ROM Mode 1 sectors: sync, header, user data, error detection and correction codes, for READ CD with fields
 * other than user data. Source: ECMA-130 (2nd edition), clause 14 and annexes A (RSPC) and 14.3 (EDC).
 */
#include "src/devices/storage/ide.h"

uint32_t cd_lba_to_msf(uint32_t lba)
{
	lba += 150; /* 2 seconds of 75 frames */
	return lba / 75 / 60 << 16 | lba / 75 % 60 << 8 | lba % 75;
}

static uint8_t bcd(uint32_t v)
{
	return (uint8_t)(v / 10 % 10 << 4 | v % 10);
}

/* EDC: x^32 + x^31 + x^16 + x^15 + x^4 + x^3 + x + 1, least significant bit first. */
static uint32_t edc(const uint8_t *p, size_t len)
{
	uint32_t crc = 0;

	while (len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0xd8018001u : 0);
	}
	return crc;
}

/* GF(2^8) with x^8 + x^4 + x^3 + x^2 + 1 */
static uint8_t times_alpha(uint8_t v)
{
	return (uint8_t)(v << 1 ^ (v & 0x80 ? 0x1d : 0));
}

static uint8_t divide_by_alpha_plus_1(uint8_t v)
{
	/* Solve x * (alpha + 1) = v: try is cheaper to read than a table and runs on 172 bytes per sector. */
	for (unsigned x = 0; x < 256; x++)
		if ((uint8_t)(times_alpha((uint8_t)x) ^ x) == v)
			return (uint8_t)x;
	return 0;
}

/* One set of parity: `vectors` code words of `length` bytes each, steps through the sector from its header on. */
static void parity(const uint8_t *src, unsigned vectors, unsigned length, unsigned vector_step, unsigned byte_step,
		   uint8_t *dest)
{
	unsigned size = vectors * length;

	for (unsigned v = 0; v < vectors; v++) {
		unsigned at = (v >> 1) * vector_step + (v & 1);
		uint8_t a = 0, b = 0;

		for (unsigned i = 0; i < length; i++) {
			a = times_alpha((uint8_t)(a ^ src[at]));
			b ^= src[at];
			at += byte_step;
			if (at >= size)
				at -= size;
		}
		a = divide_by_alpha_plus_1((uint8_t)(times_alpha(a) ^ b));
		dest[v] = a;
		dest[v + vectors] = a ^ b;
	}
}

void cd_make_raw_sector(uint8_t raw[CD_RAW_SECTOR], uint32_t lba)
{
	uint32_t msf = cd_lba_to_msf(lba);

	memset(raw, 0xff, 12);
	raw[0] = raw[11] = 0;
	raw[12] = bcd(msf >> 16);
	raw[13] = bcd(msf >> 8 & 0xff);
	raw[14] = bcd(msf & 0xff);
	raw[15] = 1;
	put_le32(raw + 2064, edc(raw, 2064));
	memset(raw + 2068, 0, 8);
	parity(raw + 12, 86, 24, 2, 86, raw + 2076);  /* P */
	parity(raw + 12, 52, 43, 86, 88, raw + 2248); /* Q, over P too */
}
