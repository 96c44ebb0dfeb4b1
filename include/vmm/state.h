/*
 * Device state as data: a table of fields. The same table serves snapshots, migration, a JSON dump and the golden
 * schema tests. Codec: src/migration/state.c.
 *
 * A section on the wire is {device id, table name, version, length, checksum, fields in table order, little-endian}.
 * Saving writes the newest version; loading accepts oldest..version. A field with since > the loaded version keeps the
 * value `reset` gave it. Values outside min..max, array counts above their bound, trailing or missing bytes: load fails
 * with the device, field and value named, and the device must be discarded.
 */
#ifndef VMM_STATE_H
#define VMM_STATE_H

#include <stdbool.h>
#include "vmm/clock.h"

enum state_type {
	STATE_END = 0,
	STATE_UINT,   /* size 1, 2, 4 or 8 */
	STATE_BOOL,   /* one byte, 0 or 1 */
	STATE_BYTES,  /* fixed size */
	STATE_VBYTES, /* inline buffer of `size` bytes, used length in the uint32_t at count_offset, <= size */
	STATE_STRUCT, /* sub table; `count` elements of `size` bytes each */
	STATE_TIMER,  /* struct timer: the deadline relative to now on its own clock (signed 64), or "idle" */
};

struct state_field {
	const char *name;
	enum state_type type;
	uint16_t since; /* first version that has it (1 = always) */
	size_t offset;
	size_t size;         /* of one element */
	size_t count;        /* elements; arrays of STATE_UINT/STATE_BOOL/STATE_STRUCT/STATE_TIMER; >= 1 */
	size_t count_offset; /* STATE_VBYTES */
	uint64_t min, max;   /* STATE_UINT; max 0 = the type's whole range */
	const struct state_table *sub;
};

struct state_table {
	const char *name; /* stable for ever */
	uint16_t version; /* newest, >= 1 */
	uint16_t oldest;  /* oldest still loaded */
	const struct state_field *fields;
	/* Bring fields up to date (e.g. fetch a chip that lives in KVM). Device's lock held. Optional. */
	int (*pre_save)(void *obj, struct err *e);
	/* Check what single-field bounds cannot (indices against sizes chosen by options, ...), derive cached fields.
	   Must refuse, never trust. Optional. */
	int (*post_load)(void *obj, uint16_t version, struct err *e);
};

#define STATE_FIELD_(S, m, ty, ...)                                                         \
	{                                                                                   \
		.name = #m, .type = (ty), .since = 1, .offset = offsetof(S, m), .count = 1, \
		.size = sizeof(((S *)0)->m), __VA_ARGS__                                    \
	}
#define STATE_U(S, m, ...)    STATE_FIELD_(S, m, STATE_UINT, __VA_ARGS__) /* uint8/16/32/64_t, enum-free */
#define STATE_U_MAX(S, m, mx) STATE_FIELD_(S, m, STATE_UINT, .max = (mx))
#define STATE_B(S, m)         STATE_FIELD_(S, m, STATE_BOOL)                                     /* bool */
#define STATE_BUF(S, m)       STATE_FIELD_(S, m, STATE_BYTES)                                    /* uint8_t m[N] */
#define STATE_VBUF(S, m, len) STATE_FIELD_(S, m, STATE_VBYTES, .count_offset = offsetof(S, len)) /* uint32_t len */
#define STATE_T(S, m)         STATE_FIELD_(S, m, STATE_TIMER)
#define STATE_UA(S, m, ...)                                                                   \
	{                                                                                     \
		.name = #m, .type = STATE_UINT, .since = 1, .offset = offsetof(S, m),         \
		.count = ARRAY_SIZE(((S *)0)->m), .size = sizeof(((S *)0)->m[0]), __VA_ARGS__ \
	}
#define STATE_BA(S, m)                                                                \
	{                                                                             \
		.name = #m, .type = STATE_BOOL, .since = 1, .offset = offsetof(S, m), \
		.count = ARRAY_SIZE(((S *)0)->m), .size = sizeof(bool)                \
	}
#define STATE_SUB(S, m, table) STATE_FIELD_(S, m, STATE_STRUCT, .sub = (table))
#define STATE_SUBA(S, m, table)                                                                  \
	{                                                                                        \
		.name = #m, .type = STATE_STRUCT, .since = 1, .offset = offsetof(S, m),          \
		.count = ARRAY_SIZE(((S *)0)->m), .size = sizeof(((S *)0)->m[0]), .sub = (table) \
	}
#define STATE_FIELDS_END          \
	{                         \
		.type = STATE_END \
	}

/* A growing byte buffer; zero-initialise; release with state_buf_free(). */
struct state_buf {
	uint8_t *data;
	size_t len, cap;
};
void state_buf_free(struct state_buf *b); /* empty and usable again afterwards */

/* Append one section for obj (table + id). */
int state_save(struct state_buf *out, const char *id, const struct state_table *t, void *obj, struct err *e);

/* A section found in a stream; points into it. */
struct state_section {
	char id[64];
	char table[64];
	uint16_t version;
	const uint8_t *payload;
	size_t len;
};
/* Parse the section at data; *used = its whole length. Checks lengths, names and the checksum. */
int state_section_parse(const uint8_t *data, size_t len, struct state_section *s, size_t *used, struct err *e);
/* Load s into obj. On error obj is in an undefined but safe state and must be reset or destroyed. */
int state_load(const struct state_section *s, const struct state_table *t, void *obj, struct err *e);

/* The schema as text, one line per field: what the golden files under tests/migration/golden hold. malloc'ed. */
char *state_schema(const struct state_table *t);
/* The state as a JSON object, for debugging; malloc'ed. */
char *state_json(const struct state_table *t, void *obj);

#endif
