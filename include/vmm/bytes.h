/* Unaligned little- and big-endian loads and stores, bounded copies. */
#ifndef VMM_BYTES_H
#define VMM_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define VMM_BYTES_ACCESSORS(bits)                                  \
	static inline uint##bits##_t get_le##bits(const void *p)   \
	{                                                          \
		uint##bits##_t v;                                  \
		memcpy(&v, p, sizeof(v));                          \
		return le##bits##toh(v);                           \
	}                                                          \
	static inline uint##bits##_t get_be##bits(const void *p)   \
	{                                                          \
		uint##bits##_t v;                                  \
		memcpy(&v, p, sizeof(v));                          \
		return be##bits##toh(v);                           \
	}                                                          \
	static inline void put_le##bits(void *p, uint##bits##_t v) \
	{                                                          \
		v = htole##bits(v);                                \
		memcpy(p, &v, sizeof(v));                          \
	}                                                          \
	static inline void put_be##bits(void *p, uint##bits##_t v) \
	{                                                          \
		v = htobe##bits(v);                                \
		memcpy(p, &v, sizeof(v));                          \
	}
VMM_BYTES_ACCESSORS(16)
VMM_BYTES_ACCESSORS(32)
VMM_BYTES_ACCESSORS(64)
#undef VMM_BYTES_ACCESSORS

/* Little-endian value of size 1, 2, 4 or 8; put_le() stores its low bytes. */
static inline uint64_t get_le(const void *p, unsigned size)
{
	uint64_t v = 0;
	memcpy(&v, p, size);
	return le64toh(v);
}
static inline void put_le(void *p, uint64_t v, unsigned size)
{
	v = htole64(v);
	memcpy(p, &v, size);
}

#endif
