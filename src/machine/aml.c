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
	OP_EXT = 0x5b,
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

void aml_processor(struct blob *b, const char *seg, uint8_t id)
{
	size_t start = aml_begin(b, (const uint8_t[]){OP_EXT, EXT_PROCESSOR}, 2);
	blob_add(b, seg, 4);
	blob_le(b, id, 1);
	blob_le(b, 0, 4); /* no P_BLK: C2 and C3 are not offered */
	blob_le(b, 0, 1);
	aml_end(b, start);
}

void aml_package(struct blob *b, const uint8_t *v, uint8_t n)
{
	size_t start = aml_begin(b, (const uint8_t[]){OP_PACKAGE}, 1);
	blob_le(b, n, 1);
	for (unsigned i = 0; i < n; i++)
		aml_integer(b, v[i]);
	aml_end(b, start);
}
