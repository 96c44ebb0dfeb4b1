/*
 * The state codec: see vmm/state.h. Section layout, little-endian:
 *
 *   u32 magic "vmst" | u16 version | u8 id length | u8 table length | u32 payload length | u32 checksum | id | table |
 * payload
 *
 * The checksum is CRC-32 (IEEE 802.3) over everything but itself. The payload holds the fields in table order.
 */
#include "vmm/state.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/bytes.h"

#define SECTION_MAGIC   0x74736d76u /* "vmst" */
#define HEADER_SIZE     16
#define CHECKSUM_OFFSET 12
#define TIMER_IDLE      INT64_MAX

/* ---- buffer ---- */

void state_buf_free(struct state_buf *b)
{
	free(b->data);
	*b = (struct state_buf){0};
}

static uint8_t *grow(struct state_buf *b, size_t n)
{
	if (b->len + n > b->cap) {
		b->cap = MAX(b->cap * 2, b->len + n + 256);
		b->data = xrealloc(b->data, b->cap);
	}
	b->len += n;
	return b->data + b->len - n;
}

static uint32_t crc32_step(uint32_t crc, const uint8_t *p, size_t len)
{
	static uint32_t table[256];

	if (!table[1])
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t c = i;

			for (int k = 0; k < 8; k++)
				c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
			table[i] = c;
		}
	while (len--)
		crc = table[(crc ^ *p++) & 0xff] ^ (crc >> 8);
	return crc;
}

static uint32_t section_checksum(const uint8_t *section, size_t len)
{
	uint32_t crc = crc32_step(0xffffffffu, section, CHECKSUM_OFFSET);

	return ~crc32_step(crc, section + HEADER_SIZE, len - HEADER_SIZE);
}

/* ---- saving ---- */

static int64_t timer_relative(const struct timer *t)
{
	int64_t delta;

	if (t->deadline == TIMER_NEVER)
		return TIMER_IDLE;
	delta = (int64_t)(t->deadline - clock_ns(t->kind));
	return delta == TIMER_IDLE ? TIMER_IDLE - 1 : delta;
}

static void save_fields(struct state_buf *out, const struct state_table *t, const uint8_t *obj)
{
	for (const struct state_field *f = t->fields; f->type != STATE_END; f++) {
		for (size_t i = 0; i < f->count; i++) {
			const uint8_t *v = obj + f->offset + i * f->size;
			uint32_t used;

			switch (f->type) {
			case STATE_UINT:
				put_le(grow(out, f->size), get_le(v, (unsigned)f->size), (unsigned)f->size);
				break;
			case STATE_BOOL:
				*grow(out, 1) = *(const bool *)v;
				break;
			case STATE_BYTES:
				memcpy(grow(out, f->size), v, f->size);
				break;
			case STATE_VBYTES:
				used = *(const uint32_t *)(obj + f->count_offset);
				used = MIN(used, (uint32_t)f->size);
				put_le32(grow(out, 4), used);
				memcpy(grow(out, used), v, used);
				break;
			case STATE_STRUCT:
				save_fields(out, f->sub, v);
				break;
			case STATE_TIMER:
				put_le64(grow(out, 8), (uint64_t)timer_relative((const struct timer *)v));
				break;
			case STATE_END:
				break;
			}
		}
	}
}

static int run_pre_save(const struct state_table *t, void *obj, struct err *e)
{
	for (const struct state_field *f = t->fields; f->type != STATE_END; f++)
		for (size_t i = 0; f->type == STATE_STRUCT && i < f->count; i++) {
			int r = run_pre_save(f->sub, (uint8_t *)obj + f->offset + i * f->size, e);

			if (r)
				return r;
		}
	return t->pre_save ? t->pre_save(obj, e) : 0;
}

int state_save(struct state_buf *out, const char *id, const struct state_table *t, void *obj, struct err *e)
{
	size_t start = out->len, id_len = strlen(id), table_len = strlen(t->name), names;
	uint8_t *head;
	int r = run_pre_save(t, obj, e);

	if (r)
		return r;
	if (id_len > 63 || table_len > 63)
		return err_set(e, ENAMETOOLONG, "state section name '%s' is longer than 63 bytes",
			       id_len > 63 ? id : t->name);
	names = id_len + table_len;
	head = grow(out, HEADER_SIZE + names);
	memcpy(head + HEADER_SIZE, id, id_len);
	memcpy(head + HEADER_SIZE + id_len, t->name, table_len);
	save_fields(out, t, obj);
	head = out->data + start; /* grow() may have moved it */
	put_le32(head, SECTION_MAGIC);
	put_le16(head + 4, t->version);
	head[6] = (uint8_t)id_len;
	head[7] = (uint8_t)table_len;
	put_le32(head + 8, (uint32_t)(out->len - start - HEADER_SIZE - names));
	put_le32(head + CHECKSUM_OFFSET, section_checksum(head, out->len - start));
	return 0;
}

/* ---- loading ---- */

int state_section_parse(const uint8_t *data, size_t len, struct state_section *s, size_t *used, struct err *e)
{
	size_t id_len, table_len, payload, total;

	if (len < HEADER_SIZE)
		return err_set(e, EBADMSG, "state section is cut off after %zu bytes", len);
	if (get_le32(data) != SECTION_MAGIC)
		return err_set(e, EBADMSG, "state section does not start with its magic number");
	id_len = data[6];
	table_len = data[7];
	payload = get_le32(data + 8);
	total = HEADER_SIZE + id_len + table_len + payload;
	if (id_len > 63 || table_len > 63 || !id_len || !table_len)
		return err_set(e, EBADMSG, "state section has a name of impossible length");
	if (len < total)
		return err_set(e, EBADMSG, "state section is cut off: %zu of %zu bytes", len, total);
	if (get_le32(data + CHECKSUM_OFFSET) != section_checksum(data, total))
		return err_set(e, EBADMSG, "state section has a wrong checksum: the data were damaged");
	*s = (struct state_section){
		.version = get_le16(data + 4), .payload = data + HEADER_SIZE + id_len + table_len, .len = payload};
	memcpy(s->id, data + HEADER_SIZE, id_len);
	memcpy(s->table, data + HEADER_SIZE + id_len, table_len);
	for (size_t i = 0; i < id_len + table_len; i++)
		if (data[HEADER_SIZE + i] < 0x20 || data[HEADER_SIZE + i] > 0x7e)
			return err_set(e, EBADMSG, "state section has a name with unprintable characters");
	*used = total;
	return 0;
}

struct reader {
	const struct state_section *s;
	size_t pos;
	struct err *e;
};

static const uint8_t *take(struct reader *r, size_t n)
{
	const uint8_t *p = r->s->payload + r->pos;

	if (n > r->s->len - r->pos)
		return NULL;
	r->pos += n;
	return p;
}

static int missing(struct reader *r, const struct state_field *f)
{
	return err_set(r->e, EBADMSG, "state of '%s': the data end before field '%s'", r->s->id, f->name);
}

static int load_uint(struct reader *r, const struct state_field *f, uint8_t *v)
{
	const uint8_t *p = take(r, f->size);
	uint64_t value;

	if (!p)
		return missing(r, f);
	value = get_le(p, (unsigned)f->size);
	if (value < f->min || (f->max && value > f->max))
		return err_set(r->e, ERANGE,
			       "state of '%s': field '%s' is %" PRIu64 ", allowed is %" PRIu64 "..%" PRIu64, r->s->id,
			       f->name, value, f->min, f->max);
	memcpy(v, p, f->size);
	return 0;
}

static int load_vbytes(struct reader *r, const struct state_field *f, uint8_t *obj)
{
	const uint8_t *p = take(r, 4);
	uint32_t used;

	if (!p)
		return missing(r, f);
	used = get_le32(p);
	if (used > f->size)
		return err_set(r->e, ERANGE, "state of '%s': field '%s' has %u bytes, at most %zu fit", r->s->id,
			       f->name, used, f->size);
	p = take(r, used);
	if (!p)
		return missing(r, f);
	memcpy(obj + f->offset, p, used);
	*(uint32_t *)(obj + f->count_offset) = used;
	return 0;
}

static int load_timer(struct reader *r, const struct state_field *f, struct timer *t)
{
	const uint8_t *p = take(r, 8);
	int64_t delta;

	if (!p)
		return missing(r, f);
	delta = (int64_t)get_le64(p);
	if (delta == TIMER_IDLE) {
		t->deadline = TIMER_NEVER;
		return 0;
	}
	/* Guest time at load continues where it was saved: anything beyond a century is damage. */
	if (delta > (int64_t)(100ull * 366 * 86400 * NS_PER_SEC) ||
	    delta < -(int64_t)(100ull * 366 * 86400 * NS_PER_SEC))
		return err_set(r->e, ERANGE, "state of '%s': timer '%s' is due in %" PRId64 " ns", r->s->id, f->name,
			       delta);
	t->deadline = clock_ns(t->kind) + (uint64_t)delta;
	if (delta < 0 && t->deadline > clock_ns(t->kind))
		t->deadline = 0;
	return 0;
}

static int load_fields(struct reader *r, const struct state_table *t, uint8_t *obj, uint16_t version);

static int load_field(struct reader *r, const struct state_field *f, uint8_t *obj, uint8_t *v, uint16_t version)
{
	const uint8_t *p;

	switch (f->type) {
	case STATE_UINT:
		return load_uint(r, f, v);
	case STATE_BOOL:
		p = take(r, 1);
		if (!p)
			return missing(r, f);
		if (*p > 1)
			return err_set(r->e, ERANGE, "state of '%s': field '%s' is %u, allowed is 0..1", r->s->id,
				       f->name, *p);
		*(bool *)v = *p;
		return 0;
	case STATE_BYTES:
		p = take(r, f->size);
		if (!p)
			return missing(r, f);
		memcpy(v, p, f->size);
		return 0;
	case STATE_VBYTES:
		return load_vbytes(r, f, obj);
	case STATE_STRUCT:
		return load_fields(r, f->sub, v, version);
	case STATE_TIMER:
		return load_timer(r, f, (struct timer *)v);
	case STATE_END:
		break;
	}
	return 0;
}

static int load_fields(struct reader *r, const struct state_table *t, uint8_t *obj, uint16_t version)
{
	for (const struct state_field *f = t->fields; f->type != STATE_END; f++) {
		if (f->since > version)
			continue;
		for (size_t i = 0; i < f->count; i++) {
			int ret = load_field(r, f, obj, obj + f->offset + i * f->size, version);

			if (ret)
				return ret;
		}
	}
	return t->post_load ? t->post_load(obj, version, r->e) : 0;
}

int state_load(const struct state_section *s, const struct state_table *t, void *obj, struct err *e)
{
	struct reader r = {.s = s, .e = e};
	int ret;

	if (strcmp(s->table, t->name))
		return err_set(e, EBADMSG, "state of '%s' is of kind '%s', this device's is '%s'", s->id, s->table,
			       t->name);
	if (s->version < t->oldest || s->version > t->version)
		return err_set(e, ENOTSUP, "state of '%s' has version %u, this vmm loads %u..%u", s->id, s->version,
			       t->oldest, t->version);
	ret = load_fields(&r, t, obj, s->version);
	if (ret)
		return ret;
	if (r.pos != s->len)
		return err_set(e, EBADMSG, "state of '%s' has %zu bytes too many", s->id, s->len - r.pos);
	return 0;
}

/* ---- schema and JSON ---- */

static const char *const type_names[] = {
	[STATE_UINT] = "uint",     [STATE_BOOL] = "bool",     [STATE_BYTES] = "bytes",
	[STATE_VBYTES] = "vbytes", [STATE_STRUCT] = "struct", [STATE_TIMER] = "timer",
};

static void schema_fields(FILE *out, const struct state_table *t, int depth)
{
	for (const struct state_field *f = t->fields; f->type != STATE_END; f++) {
		fprintf(out, "%*s%s %s", depth * 2, "", f->name, type_names[f->type]);
		if (f->type == STATE_UINT)
			fprintf(out, "%zu", f->size * 8);
		else if (f->type == STATE_BYTES || f->type == STATE_VBYTES)
			fprintf(out, " %zu", f->size);
		if (f->count > 1)
			fprintf(out, "[%zu]", f->count);
		if (f->min || f->max)
			fprintf(out, " %" PRIu64 "..%" PRIu64, f->min, f->max);
		fprintf(out, " since %u\n", f->since);
		if (f->type == STATE_STRUCT)
			schema_fields(out, f->sub, depth + 1);
	}
}

char *state_schema(const struct state_table *t)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	fprintf(out, "%s version %u oldest %u\n", t->name, t->version, t->oldest);
	schema_fields(out, t, 1);
	fclose(out);
	return text;
}

static json_t *json_bytes(const uint8_t *p, size_t n)
{
	char *hex = xzalloc(2 * n + 1);
	json_t *v;

	for (size_t i = 0; i < n; i++)
		sprintf(hex + 2 * i, "%02x", p[i]);
	v = json_string(hex);
	free(hex);
	return v;
}

static json_t *json_fields(const struct state_table *t, const uint8_t *obj);

static json_t *json_value(const struct state_field *f, const uint8_t *obj, const uint8_t *v)
{
	switch (f->type) {
	case STATE_UINT:
		return json_integer((json_int_t)get_le(v, (unsigned)f->size));
	case STATE_BOOL:
		return json_boolean(*(const bool *)v);
	case STATE_BYTES:
		return json_bytes(v, f->size);
	case STATE_VBYTES:
		return json_bytes(v, MIN(*(const uint32_t *)(obj + f->count_offset), (uint32_t)f->size));
	case STATE_STRUCT:
		return json_fields(f->sub, v);
	case STATE_TIMER:
		if (((const struct timer *)v)->deadline == TIMER_NEVER)
			return json_null();
		return json_integer((json_int_t)timer_relative((const struct timer *)v));
	case STATE_END:
		break;
	}
	return json_null();
}

static json_t *json_fields(const struct state_table *t, const uint8_t *obj)
{
	json_t *out = json_object();

	for (const struct state_field *f = t->fields; f->type != STATE_END; f++) {
		json_t *v;

		if (f->count > 1) {
			v = json_array();
			for (size_t i = 0; i < f->count; i++)
				json_array_append_new(v, json_value(f, obj, obj + f->offset + i * f->size));
		} else {
			v = json_value(f, obj, obj + f->offset);
		}
		json_object_set_new(out, f->name, v);
	}
	return out;
}

char *state_json(const struct state_table *t, void *obj)
{
	json_t *v;
	char *text;

	if (run_pre_save(t, obj, NULL))
		return NULL;
	v = json_fields(t, obj);
	text = json_dumps(v, JSON_INDENT(2));
	json_decref(v);
	return text;
}
