/* The wire format's grammar: see wire.h. Pure functions: no I/O, no state, nothing trusted. */
#include "wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/bytes.h"
#include "xxh3.h"

#define SEED_BYTES 16 /* of the header, before the hash */

static uint64_t hash(const void *data, size_t len, uint64_t seed)
{
	return __builtin_cpu_supports("avx2") ? xxh3_avx2(data, len, seed) : xxh3_generic(data, len, seed);
}

uint64_t wire_hash(const void *data, size_t len)
{
	return hash(data, len, 0);
}

uint64_t wire_page_hash(const void *page)
{
	uint64_t h = hash(page, WIRE_PAGE, 0);

	return h ? h : 1;
}

/* A vector at a time; most pages that are not zero differ within the first. */
bool wire_page_is_zero(const void *page)
{
	const uint64_t *p = page;

	if (p[0] | p[1] | p[WIRE_PAGE / 16] | p[WIRE_PAGE / 8 - 1])
		return false;
	for (size_t i = 0; i < WIRE_PAGE / 8; i += 8)
		if (p[i] | p[i + 1] | p[i + 2] | p[i + 3] | p[i + 4] | p[i + 5] | p[i + 6] | p[i + 7])
			return false;
	return true;
}

/* ---- preamble ---- */

void wire_put_preamble(uint8_t out[WIRE_PREAMBLE], const struct wire_preamble *p)
{
	memcpy(out, WIRE_MAGIC, 8);
	put_le16(out + 8, WIRE_VERSION);
	put_le16(out + 10, WIRE_OLDEST);
	out[12] = p->kind;
	out[13] = p->flags;
	put_le16(out + 14, p->channel);
	put_le64(out + 16, p->session);
	put_le32(out + 24, p->features);
	put_le32(out + 28, (uint32_t)wire_hash(out, 28));
}

int wire_get_preamble(const uint8_t in[WIRE_PREAMBLE], struct wire_preamble *p, struct err *e)
{
	if (memcmp(in, WIRE_MAGIC, 8))
		return err_set(e, EBADMSG,
			       "this is no migration stream of vmm: it does not start with the magic number");
	if (get_le32(in + 28) != (uint32_t)wire_hash(in, 28))
		return err_set(e, EBADMSG, "the stream's first 32 bytes were damaged on their way (wrong checksum)");
	*p = (struct wire_preamble){.version = get_le16(in + 8),
				    .oldest = get_le16(in + 10),
				    .kind = in[12],
				    .flags = in[13],
				    .channel = get_le16(in + 14),
				    .session = get_le64(in + 16),
				    .features = get_le32(in + 24)};
	if (p->oldest > WIRE_VERSION)
		return err_set(
			e, EPROTONOSUPPORT,
			"the stream has version %u and needs a vmm that reads at least %u; this one reads %u..%u",
			p->version, p->oldest, WIRE_OLDEST, WIRE_VERSION);
	if (p->version < WIRE_OLDEST)
		return err_set(e, EPROTONOSUPPORT, "the stream has version %u, this vmm reads %u..%u", p->version,
			       WIRE_OLDEST, WIRE_VERSION);
	p->version = MIN(p->version, (uint16_t)WIRE_VERSION);
	return 0;
}

/* ---- records ---- */

const char *wire_type_name(uint16_t type)
{
	static _Thread_local char number[24];

	switch ((enum wire_type)type) {
	case WIRE_DESCRIPTION:
		return "machine description";
	case WIRE_PRESENT:
		return "present pages";
	case WIRE_LAYOUT:
		return "RAM layout";
	case WIRE_DRIVES:
		return "drives";
	case WIRE_BEGIN:
		return "begin";
	case WIRE_BATCH:
		return "page batch";
	case WIRE_ROUND:
		return "round's end";
	case WIRE_STATE:
		return "device state";
	case WIRE_SWITCH:
		return "switch";
	case WIRE_GO:
		return "go";
	case WIRE_BITMAP:
		return "page bitmap";
	case WIRE_MEMORY:
		return "memory descriptors";
	case WIRE_WINDOWS:
		return "memory windows";
	case WIRE_CHANNELS:
		return "number of channels";
	case WIRE_END:
		return "end";
	case WIRE_INDEX:
		return "index";
	case WIRE_ACCEPT:
		return "accept";
	case WIRE_REFUSE:
		return "refusal";
	case WIRE_ROUND_DONE:
		return "round done";
	case WIRE_READY:
		return "ready";
	case WIRE_RUNNING:
		return "running";
	case WIRE_REQUEST:
		return "page request";
	case WIRE_COMPLETE:
		return "complete";
	case WIRE_HAVE:
		return "received pages";
	case WIRE_ABORT:
		return "abort";
	case WIRE_PING:
		return "ping";
	}
	snprintf(number, sizeof(number), "record %u", type);
	return number;
}

void wire_put_header(uint8_t out[WIRE_HEADER], uint16_t type, uint16_t flags, uint32_t length, uint32_t sequence,
		     const void *payload, uint32_t hashed)
{
	put_le16(out, type);
	put_le16(out + 2, flags);
	put_le32(out + 4, length);
	put_le32(out + 8, hashed);
	put_le32(out + 12, sequence);
	put_le64(out + SEED_BYTES, hash(payload, hashed, hash(out, SEED_BYTES, 0)));
}

int wire_get_header(const uint8_t in[WIRE_HEADER], uint32_t sequence, struct wire_record *r, struct err *e)
{
	*r = (struct wire_record){.type = get_le16(in),
				  .flags = get_le16(in + 2),
				  .length = get_le32(in + 4),
				  .hashed = get_le32(in + 8),
				  .sequence = get_le32(in + 12),
				  .hash = get_le64(in + SEED_BYTES)};
	if (r->length > WIRE_MAX_PAYLOAD || r->hashed > r->length)
		return err_set(e, EBADMSG, "the stream is damaged: a record claims %u bytes, %u of them checked",
			       r->length, r->hashed);
	if (r->sequence != sequence)
		return err_set(e, EBADMSG, "the stream is damaged: record %u follows where %u is due", r->sequence,
			       sequence);
	if (r->hashed != r->length && r->type != WIRE_BATCH)
		return err_set(e, EBADMSG, "the stream is damaged: a record '%s' is checked only in part",
			       wire_type_name(r->type));
	return 0;
}

int wire_check(const uint8_t in[WIRE_HEADER], const struct wire_record *r, const void *payload, struct err *e)
{
	if (hash(payload, r->hashed, hash(in, SEED_BYTES, 0)) == r->hash)
		return 0;
	return err_set(e, EBADMSG, "the stream is damaged: record %u (%s, %u bytes) has a wrong checksum", r->sequence,
		       wire_type_name(r->type), r->length);
}

/* ---- batches ---- */

void wire_put_batch(uint8_t out[WIRE_BATCH_HEAD], const struct wire_batch *b)
{
	put_le16(out, b->block);
	put_le16(out + 2, 0);
	put_le32(out + 4, b->data_pages);
	put_le32(out + 8, b->zero_pages);
	put_le32(out + 12, b->data_bytes);
	put_le32(out + 16, b->run_bytes);
}

int wire_get_batch(const uint8_t *head, const struct wire_record *r, struct wire_batch *b, struct err *e)
{
	if (r->hashed < WIRE_BATCH_HEAD)
		return err_set(e, EBADMSG, "the stream is damaged: a page batch of %u bytes", r->hashed);
	*b = (struct wire_batch){.block = get_le16(head),
				 .data_pages = get_le32(head + 4),
				 .zero_pages = get_le32(head + 8),
				 .data_bytes = get_le32(head + 12),
				 .run_bytes = get_le32(head + 16)};
	if (b->data_pages > WIRE_BATCH_PAGES || b->run_bytes > WIRE_MAX_PAYLOAD ||
	    (uint64_t)WIRE_BATCH_HEAD + b->run_bytes + b->data_pages * 8ull != r->hashed ||
	    (uint64_t)r->hashed + b->data_bytes != r->length ||
	    (r->flags & WIRE_BATCH_ZSTD ? b->data_bytes > b->data_pages * WIRE_PAGE + 4096
					: b->data_bytes != b->data_pages * WIRE_PAGE))
		return err_set(
			e, EBADMSG,
			"the stream is damaged: a page batch's numbers do not fit together (%u + %u pages, %u bytes)",
			b->data_pages, b->zero_pages, r->length);
	return 0;
}

/* ---- runs ---- */

static void put_leb(struct wire_runs *w, uint64_t v)
{
	if (w->len + 10 > w->cap) {
		w->cap = MAX(w->cap * 2, (size_t)256);
		w->data = xrealloc(w->data, w->cap);
	}
	do {
		w->data[w->len++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
		v >>= 7;
	} while (v);
}

void wire_runs_add(struct wire_runs *w, uint64_t first, uint64_t count)
{
	put_leb(w, first - w->next);
	put_leb(w, count);
	w->next = first + count;
}

/* The next bit with the wanted value at or after n; `pages` if there is none. */
static uint64_t find_bit(const unsigned long *map, uint64_t n, uint64_t pages, bool value)
{
	while (n < pages) {
		unsigned long word = (value ? map[n / 64] : ~map[n / 64]) >> (n % 64);

		if (word)
			return MIN(pages, n + (uint64_t)__builtin_ctzl(word));
		n = (n / 64 + 1) * 64;
	}
	return pages;
}

void wire_runs_add_bitmap(struct wire_runs *w, const unsigned long *bitmap, uint64_t pages)
{
	for (uint64_t n = find_bit(bitmap, 0, pages, true), end; n < pages; n = find_bit(bitmap, end, pages, true)) {
		end = find_bit(bitmap, n, pages, false);
		wire_runs_add(w, n, end - n);
	}
}

static int get_leb(struct wire_run_reader *r, uint64_t *v)
{
	*v = 0;
	for (unsigned shift = 0; shift < 63; shift += 7) {
		uint8_t byte;

		if (r->p == r->end)
			return -EBADMSG;
		byte = *r->p++;
		*v |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return 0;
	}
	return -EBADMSG;
}

int wire_runs_next(struct wire_run_reader *r, uint64_t *first, uint64_t *count, struct err *e)
{
	uint64_t skip;

	if (r->p == r->end)
		return 0;
	if (get_leb(r, &skip) || get_leb(r, count) || !*count || skip > r->limit - r->next ||
	    *count > r->limit - r->next - skip)
		return err_set(e, EBADMSG,
			       "the stream is damaged: it names pages behind the end of the memory block (%llu pages)",
			       (unsigned long long)r->limit);
	*first = r->next + skip;
	r->next = *first + *count;
	return 1;
}
