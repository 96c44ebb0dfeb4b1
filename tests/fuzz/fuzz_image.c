/*
 * Hostile saved guests. Records are hashed, so random bytes would end at the first checksum: the input becomes the
 * layout and the index of a file whose hashes are right.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "src/migration/image.h"
#include "vmm/bytes.h"

static uint64_t put(int fd, uint64_t at, uint16_t type, uint32_t sequence, const void *data, size_t len)
{
	uint8_t head[WIRE_HEADER];

	wire_put_header(head, type, 0, (uint32_t)len, sequence, data, (uint32_t)len);
	if (pwrite(fd, head, sizeof(head), (off_t)at) < 0 || pwrite(fd, data, len, (off_t)(at + sizeof(head))) < 0)
		abort();
	return at + sizeof(head) + len;
}

static void use(struct image *im)
{
	static uint8_t buf[LEAF_BYTES];
	uint64_t hash[LEAF_PAGES];
	struct err e = ERR_INIT;
	uint8_t *state;

	for (uint32_t i = 0; i < im->leaves && i < 4; i++)
		if (!image_leaf(im, i, hash, &e) && im->n_blocks && i < im->block[0].leaves)
			image_get(im, 0, (uint64_t)i * LEAF_PAGES,
				  MIN((uint64_t)LEAF_PAGES, im->block[0].pages - (uint64_t)i * LEAF_PAGES), hash, false,
				  buf, &e);
	if (!image_state(im, &state, &e))
		free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_preamble p = {.kind = WIRE_FILE};
	uint8_t raw[WIRE_PREAMBLE];
	size_t layout = size ? MIN((size_t)data[0], size - 1) : 0;
	int fd = memfd_create("image", MFD_CLOEXEC);
	uint64_t at = WIRE_PREAMBLE, want;
	struct err e = ERR_INIT;
	struct image *im;

	if (fd < 0 || !size)
		return 0;
	wire_put_preamble(raw, &p);
	if (pwrite(fd, raw, sizeof(raw), 0) < 0)
		abort();
	at = put(fd, at, WIRE_DESCRIPTION, 0, "x", 1);
	at = put(fd, at, WIRE_LAYOUT, 1, data + 1, layout);
	at = put(fd, at, WIRE_DRIVES, 2, "\0", 2);
	at = put(fd, at, WIRE_INDEX, 3, data + 1 + layout, size - 1 - layout);
	/* As long as it says, if that is not too much. */
	want = size - 1 - layout >= 8 ? get_le64(data + 1 + layout) : 0;
	if (want > at && want < 64 * MIB && ftruncate(fd, (off_t)want))
		abort();
	if (image_open(fd, "it", &im, &e) == 0) {
		use(im);
		image_free(im);
	}
	return 0;
}
