/* zstd for page batches: see compress.h. */
#include "compress.h"

#include <stdlib.h>
#include <string.h>
#include "vmm-config.h"
#include "vmm/util.h"
#include "wire.h"

#if HAVE_ZSTD
#include <zstd.h>

#define PLAIN (WIRE_BATCH_PAGES * (size_t)WIRE_PAGE)

struct compressor {
	ZSTD_CCtx *out;
	ZSTD_DCtx *in;
	int level;
	uint8_t *plain, *frame;
	size_t frame_cap;
};

bool compress_available(void)
{
	return true;
}

struct compressor *compressor_new(int level)
{
	struct compressor *c = xzalloc(sizeof(*c));

	c->level = level;
	c->frame_cap = ZSTD_compressBound(PLAIN);
	c->plain = malloc(PLAIN);
	c->frame = malloc(c->frame_cap);
	c->out = ZSTD_createCCtx();
	c->in = ZSTD_createDCtx();
	if (c->plain && c->frame && c->out && c->in)
		return c;
	compressor_free(c);
	return NULL;
}

void compressor_free(struct compressor *c)
{
	if (!c)
		return;
	ZSTD_freeCCtx(c->out);
	ZSTD_freeDCtx(c->in);
	free(c->plain);
	free(c->frame);
	free(c);
}

size_t compress_pages(struct compressor *c, const uint8_t *host, const uint64_t *page, const uint32_t *index,
		      uint32_t n, const void **frame)
{
	size_t len;

	for (uint32_t i = 0; i < n; i++)
		memcpy(c->plain + (size_t)i * WIRE_PAGE, host + page[index[i]] * WIRE_PAGE, WIRE_PAGE);
	len = ZSTD_compressCCtx(c->out, c->frame, c->frame_cap, c->plain, (size_t)n * WIRE_PAGE, c->level);
	*frame = c->frame;
	return ZSTD_isError(len) ? 0 : len;
}

bool decompress_pages(struct compressor *c, const void *frame, size_t len, size_t size, const uint8_t **pages)
{
	if (size > PLAIN)
		return false;
	*pages = c->plain;
	return ZSTD_decompressDCtx(c->in, c->plain, size, frame, len) == size;
}

#else

bool compress_available(void)
{
	return false;
}

struct compressor *compressor_new(int level)
{
	(void)level;
	return NULL;
}

void compressor_free(struct compressor *c)
{
	(void)c;
}

size_t compress_pages(struct compressor *c, const uint8_t *host, const uint64_t *page, const uint32_t *index,
		      uint32_t n, const void **frame)
{
	return 0;
}

bool decompress_pages(struct compressor *c, const void *frame, size_t len, size_t size, const uint8_t **pages)
{
	return false;
}

#endif
