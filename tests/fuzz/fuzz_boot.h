/* What the fuzz targets of the kernel formats share: an image that is taken stays inside guest RAM and its file. */
#ifndef VMM_TEST_FUZZ_BOOT_H
#define VMM_TEST_FUZZ_BOOT_H

#include "fuzz.h"

#include <stdlib.h>
#include "src/machine/boot.h"

#define RAM (128 * MIB)

typedef int boot_parse_fn(const uint8_t *data, size_t len, uint64_t ram, struct boot_image *im, struct err *e);

static inline int fuzz_boot_image(boot_parse_fn *parse, const uint8_t *data, size_t size)
{
	struct boot_image im;
	struct err e = ERR_INIT;

	if (parse(data, size, RAM, &im, &e) < 0)
		return 0;
	for (unsigned i = 0; i < im.n_segments; i++) {
		const struct boot_segment *s = &im.segment[i];

		if (s->gpa > RAM || s->mem_len > RAM - s->gpa || s->file_len > s->mem_len || s->offset > size ||
		    s->file_len > size - s->offset)
			abort();
	}
	return 0;
}

#endif
