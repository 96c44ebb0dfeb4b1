/* The one function a fuzz target provides: process the input, return 0; crashing, hanging or leaking is a finding. */
#ifndef VMM_TEST_FUZZ_H
#define VMM_TEST_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "vmm/bytes.h"
#include "vmm/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An input read as a program: the next `size` (at most 8) bytes as a little-endian number; zeroes past its end. */
struct input {
	const uint8_t *p;
	size_t left;
};

static inline uint64_t take(struct input *in, unsigned size)
{
	uint8_t v[8] = {0};
	size_t n = MIN((size_t)size, in->left);

	memcpy(v, in->p, n);
	in->p += n;
	in->left -= n;
	return get_le64(v);
}

#endif
