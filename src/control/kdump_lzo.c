/* The module vmm-kdump-lzo.so: pages through LZO1X-1. */
#include <lzo/lzo1x.h>
#include <stdlib.h>
#include "kdump.h"

static void *create(void)
{
	return lzo_init() == LZO_E_OK ? malloc(LZO1X_1_MEM_COMPRESS) : NULL;
}

static size_t compress_page(void *state, const uint8_t page[4096], uint8_t *out)
{
	lzo_uint len = KDUMP_BOUND;

	return lzo1x_1_compress(page, 4096, out, &len, state) == LZO_E_OK ? len : 0;
}

extern const struct kdump_codec vmm_module_kdump;
const struct kdump_codec vmm_module_kdump = {"lzo", KDUMP_LZO, create, free, compress_page};
