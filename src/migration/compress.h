/* Compressed page batches (zstd), where vmm was built with it. Each thread has its own. */
#ifndef VMM_MIGRATION_COMPRESS_H
#define VMM_MIGRATION_COMPRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct compressor;

bool compress_available(void);
struct compressor *compressor_new(int level); /* NULL: not available */
void compressor_free(struct compressor *c);   /* NULL-safe */
/* Pages host + page[index[i]] * 4096 as one frame; 0: not compressible. The frame lives until the next call. */
size_t compress_pages(struct compressor *c, const uint8_t *host, const uint64_t *page, const uint32_t *index,
		      uint32_t n, const void **frame);
/* Exactly `size` bytes of pages out of a frame from outside; false: it is damaged. Returned pages live until the next
 * call. */
bool decompress_pages(struct compressor *c, const void *frame, size_t len, size_t size, const uint8_t **pages);

#endif
