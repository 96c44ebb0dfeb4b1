/* How long requests took: fixed bins that are always counted, and the histograms an operator asks for. */
#include "src/block/block_private.h"

#include <stdlib.h>

static unsigned bin_of(uint64_t ns)
{
	unsigned bits = ns > 1 ? 64 - (unsigned)__builtin_clzll(ns - 1) : 0; /* ns <= 1 << bits */

	return bits <= 10 ? 0 : MIN(bits - 10, BLOCK_LATENCY_BINS - 1u);
}

void latency_account(struct block *b, enum block_op op, uint64_t ns)
{
	__atomic_fetch_add(&b->stats.latency[op][bin_of(ns)], 1, __ATOMIC_RELAXED);
	if (op <= BLOCK_FLUSH && b->histogram[op].n) {
		const uint64_t *boundary = b->histogram[op].boundary;
		size_t lo = 0, hi = b->histogram[op].n; /* the first boundary above ns */

		while (lo < hi) {
			size_t mid = (lo + hi) / 2;

			if (ns < boundary[mid])
				hi = mid;
			else
				lo = mid + 1;
		}
		b->histogram[op].bin[lo]++;
	}
}

struct block_histogram block_get_histogram(const struct block *b, enum block_op op)
{
	if (op > BLOCK_FLUSH)
		return (struct block_histogram){0};
	return (struct block_histogram){b->histogram[op].n, b->histogram[op].boundary, b->histogram[op].bin};
}

void block_set_histogram(struct block *b, enum block_op op, const uint64_t *boundary, size_t n)
{
	if (op > BLOCK_FLUSH)
		return;
	free(b->histogram[op].boundary);
	free(b->histogram[op].bin);
	b->histogram[op].boundary = b->histogram[op].bin = NULL;
	b->histogram[op].n = n;
	if (!n)
		return;
	b->histogram[op].boundary = xcalloc(n, sizeof(*boundary));
	memcpy(b->histogram[op].boundary, boundary, n * sizeof(*boundary));
	b->histogram[op].bin = xcalloc(n + 1, sizeof(*boundary));
}

void latency_free(struct block *b)
{
	for (int op = 0; op <= BLOCK_FLUSH; op++)
		block_set_histogram(b, (enum block_op)op, NULL, 0);
}
