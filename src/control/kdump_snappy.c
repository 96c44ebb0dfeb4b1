/* The module vmm-kdump-snappy.so: pages through snappy. */
#include <snappy-c.h>
#include "kdump.h"

static int no_state;

static void *create(void)
{
	return &no_state;
}

static void destroy(void *state)
{
}

static size_t compress_page(void *state, const uint8_t page[4096], uint8_t *out)
{
	size_t len = KDUMP_BOUND;

	return snappy_compress((const char *)page, 4096, (char *)out, &len) == SNAPPY_OK ? len : 0;
}

extern const struct kdump_codec vmm_module_kdump;
const struct kdump_codec vmm_module_kdump = {"snappy", KDUMP_SNAPPY, create, destroy, compress_page};
