/*
 * A saved guest as a file. Everything a process needs to map it lies on page boundaries; pages of zeros are holes.
 *
 *   preamble (kind WIRE_FILE) | DESCRIPTION | LAYOUT | DRIVES | INDEX     the head, records as in a stream
 *   memory blocks, each at its own offset, page n of a block at offset + n * 4096
 *   page hashes: a leaf of 512 numbers for each 2 MiB of a block; 0: the page is zero, whatever the file holds there
 *   device state
 *
 *   INDEX = u64 file size | u64 hashes' offset | u64 state's offset, length, hash | run state[32] | u32 blocks | u32
 * leaves | u64 block offset[blocks] | u64 hash of leaf[leaves]
 *
 * The head is written last. Its records have hashes; the index has the hash of every leaf, a leaf that of every page:
 * so a page can be checked when it is needed, without reading anything else, and whatever was cut or flipped is found.
 */
#ifndef VMM_MIGRATION_IMAGE_H
#define VMM_MIGRATION_IMAGE_H

#include "session.h"

#define LEAF_PAGES 512u
#define LEAF_BYTES ((uint64_t)LEAF_PAGES * WIRE_PAGE)

struct image_block {
	uint64_t offset, pages;
	uint32_t first_leaf, leaves;
};

struct image {
	int fd;
	char path[512];
	uint64_t size, hash_offset, state_offset, state_len, state_hash;
	char run_state[32];
	struct image_block block[MAX_BLOCKS];
	unsigned n_blocks;
	uint32_t leaves;
	uint64_t *leaf_hash; /* [leaves] */
	uint64_t *hash;      /* writing: [leaves * LEAF_PAGES] */
	uint8_t *description, *layout, *drives;
	size_t description_len, layout_len, drives_len;
	uint64_t head_len;
};

/* Writing. fd is taken; the parts are copied; session.block says which memory. */
struct image *image_create(int fd, const char *path, const void *description, size_t description_len,
			   const void *layout, size_t layout_len, const void *drives, size_t drives_len, struct err *e);
/* Pages [first, first + n) of a block as they are at `data`. Any thread, each page by one at a time. */
int image_put(struct image *im, unsigned block, uint64_t first, uint64_t n, const uint8_t *data, struct err *e);
uint64_t image_bytes(void); /* written by image_put() since image_create() */
/* Hashes, state, head; and everything on stable storage. */
int image_finish(struct image *im, const struct state_buf *state, const char *run_state, struct err *e);

/* Reading. 1: no image, but a stream that was kept in a file (nothing is taken). The head is checked, memory is not. */
int image_open(int fd, const char *path, struct image **out, struct err *e);
/* The hashes of leaf n, checked. */
int image_leaf(struct image *im, uint32_t leaf, uint64_t hash[LEAF_PAGES], struct err *e);
/* Read pages [first, first + n) of a block, all of one leaf, into buf and check them by its hashes. Zero pages are
   skipped if skip_zero, else cleared. */
int image_get(struct image *im, unsigned block, uint64_t first, uint64_t n, const uint64_t *hash, bool skip_zero,
	      uint8_t *buf, struct err *e);
/* The same for who maps the file: zero pages must be zeros there. first is the leaf's first page; buf is scratch. */
int image_verify(struct image *im, unsigned block, uint64_t first, uint64_t n, const uint64_t *hash, uint8_t *buf,
		 struct err *e);
int image_state(struct image *im, uint8_t **state, struct err *e);
void image_free(struct image *im); /* closes; NULL-safe */

/* "PATH[,map=eager|lazy|private]": cuts the option off. -1: not given. */
enum image_map { MAP_EAGER, MAP_LAZY, MAP_COPY_ON_WRITE };
int image_path(char *path, int *map, struct err *e);

#endif
