/* XXH3-64 for this processor and for those with AVX2: see xxh3.c. Callers use wire_hash(). */
#ifndef VMM_MIGRATION_XXH3_H
#define VMM_MIGRATION_XXH3_H

#include <stddef.h>
#include <stdint.h>

/* seed 0: the plain XXH3-64. Any thread, no state. */
uint64_t xxh3_generic(const void *data, size_t len, uint64_t seed);
uint64_t xxh3_avx2(const void *data, size_t len, uint64_t seed); /* only where the processor has AVX2 */

#endif
