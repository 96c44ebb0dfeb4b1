/* Hostile kernel images: multiboot. A segment outside of guest RAM or of the file is a finding. */
#include "fuzz.h"

#include <stdlib.h>
#include "src/machine/boot.h"

#define RAM (128 * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct boot_image im;
	struct err e = ERR_INIT;

	if (boot_parse_multiboot(data, size, RAM, &im, &e) < 0)
		return 0;
	for (unsigned i = 0; i < im.n_segments; i++) {
		const struct boot_segment *s = &im.segment[i];

		if (s->gpa > RAM || s->mem_len > RAM - s->gpa || s->file_len > s->mem_len || s->offset > size ||
		    s->file_len > size - s->offset)
			abort();
	}
	return 0;
}
