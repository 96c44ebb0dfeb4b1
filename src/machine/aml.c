/* The few AML encodings that acpi.c needs. Source: ACPI 6.3, sections 20.2.2 to 20.2.5. */
#include "aml.h"

enum {
	OP_ZERO = 0x00,
	OP_ONE = 0x01,
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_STRING = 0x0d,
	OP_SCOPE = 0x10,
	OP_PACKAGE = 0x12,
	OP_BUFFER = 0x11,
	OP_METHOD = 0x14,
	OP_IF = 0xa0,
	OP_ELSE = 0xa1,
	OP_WHILE = 0xa2,
	OP_EXT = 0x5b,
	EXT_MUTEX = 0x01,
	EXT_ACQUIRE = 0x23,
	EXT_RELEASE = 0x27,
	EXT_REGION = 0x80,
	EXT_FIELD = 0x81,
	EXT_DEVICE = 0x82,
	EXT_PROCESSOR = 0x83,
};

size_t aml_begin(struct blob *b, const uint8_t *opcode, size_t len)
{
	blob_add(b, opcode, len);
	return b->len;
}

/* The length counts itself: one byte up to 63, else the low 4 bits and one or two more bytes. */
void aml_end(struct blob *b, size_t start)
{
	size_t body = b->len - start;
	unsigned extra = body + 1 <= 0x3f ? 0 : body + 2 <= 0xfff ? 1 : 2;
	uint32_t total = body + 1 + extra;
	blob_add(b, NULL, 1 + extra);
	memmove(b->data + start + 1 + extra, b->data + start, body);
	if (extra == 0) {
		b->data[start] = total;
		return;
	}
	b->data[start] = extra << 6 | (total & 0xf);
	for (unsigned i = 0; i < extra; i++)
		b->data[start + 1 + i] = total >> (4 + 8 * i);
}

size_t aml_scope(struct blob *b, const char *root_seg)
{
	size_t start = aml_begin(b, (const uint8_t[]){OP_SCOPE}, 1);
	blob_add(b, "\\", 1);
	blob_add(b, root_seg, 4);
	return start;
}

size_t aml_device(struct blob *b, const char *seg)
{
	size_t start = aml_begin(b, (const uint8_t[]){OP_EXT, EXT_DEVICE}, 2);
	blob_add(b, seg, 4);
	return start;
}

void aml_name(struct blob *b, const char *seg)
{
	blob_le(b, OP_NAME, 1);
	blob_add(b, seg, 4);
}

void aml_integer(struct blob *b, uint32_t v)
{
	unsigned size = v <= 1 ? 0 : v <= 0xff ? 1 : v <= 0xffff ? 2 : 4;
	static const uint8_t prefix[] = {[1] = OP_BYTE, [2] = OP_WORD, [4] = OP_DWORD};
	if (size == 0) {
		blob_le(b, v ? OP_ONE : OP_ZERO, 1);
		return;
	}
	blob_le(b, prefix[size], 1);
	blob_le(b, v, size);
}

void aml_string(struct blob *b, const char *s)
{
	blob_le(b, OP_STRING, 1);
	blob_add(b, s, strlen(s) + 1);
}

size_t aml_processor(struct blob *b, const char *seg, uint8_t id)
{
	size_t start = aml_begin(b, (const uint8_t[]){OP_EXT, EXT_PROCESSOR}, 2);
	blob_add(b, seg, 4);
	blob_le(b, id, 1);
	blob_le(b, 0, 4); /* no P_BLK: C2 and C3 are not offered */
	blob_le(b, 0, 1);
	return start;
}

void aml_package(struct blob *b, const uint8_t *v, uint8_t n)
{
	size_t start = aml_begin(b, (const uint8_t[]){OP_PACKAGE}, 1);
	blob_le(b, n, 1);
	for (unsigned i = 0; i < n; i++)
		aml_integer(b, v[i]);
	aml_end(b, start);
}

void aml_op(struct blob *b, enum aml_op op)
{
	blob_le(b, op, 1);
}

void aml_seg(struct blob *b, const char *seg)
{
	blob_add(b, seg, 4);
}

size_t aml_method(struct blob *b, const char *seg, unsigned args)
{
	enum { SERIALIZED = 0x08 };
	size_t start = aml_begin(b, (const uint8_t[]){OP_METHOD}, 1);
	aml_seg(b, seg);
	blob_le(b, args | SERIALIZED, 1);
	return start;
}

size_t aml_if(struct blob *b)
{
	return aml_begin(b, (const uint8_t[]){OP_IF}, 1);
}

size_t aml_else(struct blob *b)
{
	return aml_begin(b, (const uint8_t[]){OP_ELSE}, 1);
}

size_t aml_while(struct blob *b)
{
	return aml_begin(b, (const uint8_t[]){OP_WHILE}, 1);
}

void aml_acquire(struct blob *b, const char *mutex)
{
	blob_add(b, (const uint8_t[]){OP_EXT, EXT_ACQUIRE}, 2);
	aml_seg(b, mutex);
	blob_le(b, 0xffff, 2);
}

void aml_release(struct blob *b, const char *mutex)
{
	blob_add(b, (const uint8_t[]){OP_EXT, EXT_RELEASE}, 2);
	aml_seg(b, mutex);
}

void aml_mutex(struct blob *b, const char *seg)
{
	blob_add(b, (const uint8_t[]){OP_EXT, EXT_MUTEX}, 2);
	aml_seg(b, seg);
	blob_le(b, 0, 1); /* sync level */
}

void aml_io_region(struct blob *b, const char *seg, uint16_t port, uint8_t len)
{
	enum { SYSTEM_IO = 1 };
	blob_add(b, (const uint8_t[]){OP_EXT, EXT_REGION}, 2);
	aml_seg(b, seg);
	blob_le(b, SYSTEM_IO, 1);
	aml_integer(b, port);
	aml_integer(b, len);
}

size_t aml_field(struct blob *b, const char *region, enum aml_access access, bool write_as_zeros)
{
	size_t start = aml_begin(b, (const uint8_t[]){OP_EXT, EXT_FIELD}, 2);
	aml_seg(b, region);
	blob_le(b, access | (write_as_zeros ? 2 << 5 : 0), 1);
	return start;
}

void aml_field_bits(struct blob *b, const char *seg, uint8_t bits)
{
	if (seg)
		aml_seg(b, seg);
	else
		blob_le(b, 0, 1);
	blob_le(b, bits, 1); /* a PkgLength of one byte */
}

void aml_buffer(struct blob *b, const void *data, uint8_t len)
{
	size_t start = aml_begin(b, (const uint8_t[]){OP_BUFFER}, 1);
	aml_integer(b, len);
	blob_add(b, data, len);
	aml_end(b, start);
}
