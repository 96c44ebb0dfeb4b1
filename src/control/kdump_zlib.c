/* The module vmm-kdump-zlib.so: pages through zlib (RFC 1950), fast rather than small, as QEMU does. */
#include <stdlib.h>
#include <zlib.h>
#include "kdump.h"

static void *create(void)
{
	z_stream *z = calloc(1, sizeof(*z));

	if (z && deflateInit(z, Z_BEST_SPEED) != Z_OK) {
		free(z);
		z = NULL;
	}
	return z;
}

static void destroy(void *state)
{
	if (!state)
		return;
	deflateEnd(state);
	free(state);
}

static size_t compress_page(void *state, const uint8_t page[4096], uint8_t *out)
{
	z_stream *z = state;

	if (deflateReset(z) != Z_OK)
		return 0;
	z->next_in = (Bytef *)page;
	z->avail_in = 4096;
	z->next_out = out;
	z->avail_out = KDUMP_BOUND;
	return deflate(z, Z_FINISH) == Z_STREAM_END ? KDUMP_BOUND - z->avail_out : 0;
}

extern const struct kdump_codec vmm_module_kdump;
const struct kdump_codec vmm_module_kdump = {"zlib", KDUMP_ZLIB, create, destroy, compress_page};
