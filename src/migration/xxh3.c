/*
 * XXH3-64 of the library's header, built twice: for any processor, and with XXH3_BUILD=avx2 for those with AVX2, where
 * the checksums of guest memory cost half as much. Both give the same values; wire.c chooses. The header picks its code
 * by the compiler's target, hence a file that is compiled twice.
 */
#include "xxh3.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#ifndef XXH3_BUILD
#define XXH3_BUILD generic
#endif
#define JOIN(a, b)      a##b
#define NAME(prefix)    JOIN_NAME(prefix, XXH3_BUILD)
#define JOIN_NAME(a, b) JOIN(a, b)

uint64_t NAME(xxh3_)(const void *data, size_t len, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, len, seed);
}
