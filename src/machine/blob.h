/* A byte string under construction (ACPI and SMBIOS tables). Private to the machine room. */
#ifndef VMM_MACHINE_BLOB_H
#define VMM_MACHINE_BLOB_H

#include <stdlib.h>
#include "vmm/bytes.h"
#include "vmm/util.h"

struct blob {
	uint8_t *data;
	size_t len, cap;
};

/* Append n bytes (zeros if src is NULL); returns where they begin. Sizes come from ourselves: at most some 100 KiB, or
   from files whose length was checked. */
static inline size_t blob_add(struct blob *b, const void *src, size_t n)
{
	size_t at = b->len;
	if (n == 0)
		return at;
	if (b->len + n > b->cap) {
		b->cap = MAX(2 * b->cap, b->len + n + 256);
		b->data = xrealloc(b->data, b->cap);
	}
	if (src)
		memcpy(b->data + at, src, n);
	else
		memset(b->data + at, 0, n);
	b->len += n;
	return at;
}

/* Append a little-endian value of size 1, 2, 4 or 8. */
static inline size_t blob_le(struct blob *b, uint64_t v, unsigned size)
{
	uint8_t raw[8];
	put_le(raw, v, size);
	return blob_add(b, raw, size);
}

static inline void blob_align(struct blob *b, size_t a)
{
	blob_add(b, NULL, ALIGN_UP(b->len, a) - b->len);
}

static inline void blob_free(struct blob *b)
{
	free(b->data);
	*b = (struct blob){0};
}

#endif
