/*
 * The writer; see kdump.h. The file, in pages: header, sub-header and notes, two bitmaps (which pages there are, which
 * are written: all of them), a descriptor for each page, the pages. The flattened form says of each piece where it
 * belongs, so descriptors and pages are written side by side.
 */
#include "kdump.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "dump_private.h"
#include "work.h"

#define DESC_SIZE 24u
#define PIECE     (256 * KIB) /* of the file at once */

/* One piece of the file in the making. */
struct piece {
	uint64_t offset; /* of v[0] in the file */
	size_t n;
	uint8_t *v; /* PIECE bytes */
};

struct kdump {
	struct dump *d;
	struct work *w;
	int fd;
	const struct kdump_codec *codec;
	void *state;
	struct dump_block part[DUMP_MAX_BLOCKS];
	unsigned n_parts;
	uint64_t pages, end_pfn;        /* how many; one past the highest */
	uint64_t notes_at, bitmap_size; /* one bitmap's */
	uint64_t bitmaps_at, descs_at, data_at;
	struct piece descs, data;
};

/* ---- the flattened form: big-endian, whatever the guest is ---- */

static int write_record_head(struct kdump *k, uint64_t offset, uint64_t size)
{
	uint8_t head[16];

	put_be64(head, offset);
	put_be64(head + 8, size);
	return work_write(k->w, k->fd, head, sizeof(head));
}

static int write_at(struct kdump *k, uint64_t offset, const void *data, size_t len)
{
	int r = len ? write_record_head(k, offset, len) : 0;

	return r || !len ? r : work_write(k->w, k->fd, data, len);
}

static int write_start(struct kdump *k)
{
	uint8_t head[DUMP_PAGE] = "makedumpfile";

	put_be64(head + 16, 1); /* type */
	put_be64(head + 24, 1); /* version */
	return work_write(k->w, k->fd, head, sizeof(head));
}

static int write_end(struct kdump *k)
{
	return write_record_head(k, UINT64_MAX, UINT64_MAX);
}

static int flush_piece(struct kdump *k, struct piece *p)
{
	int r = write_at(k, p->offset, p->v, p->n);

	p->offset += p->n;
	p->n = 0;
	return r;
}

/* len <= PIECE */
static int append(struct kdump *k, struct piece *p, const void *data, size_t len)
{
	int r = p->n + len > PIECE ? flush_piece(k, p) : 0;

	if (r)
		return r;
	memcpy(p->v + p->n, data, len);
	p->n += len;
	return 0;
}

/* ---- headers ---- */

static void put_text(struct dump_out *o, const char *text, size_t size)
{
	dump_put(o, 0, size);
	memcpy(o->v + o->n - size, text, strlen(text));
}

/* struct disk_dump_header */
static int write_header(struct kdump *k, uint32_t sub_header_pages)
{
	struct dump_out o = {.wide = dump_is_wide(k->d)};
	int r;

	put_text(&o, "KDUMP   ", 8);
	dump_put(&o, 6, 4);
	dump_put(&o, 0, 4 * 65); /* sysname, nodename, release, version */
	put_text(&o, dump_long_mode(k->d) ? "x86_64" : "i686", 65);
	dump_put(&o, 0, 65 + (o.wide ? 22 : 10)); /* domainname; time stamp */
	dump_put(&o, k->codec->flag, 4);
	dump_put(&o, DUMP_PAGE, 4);
	dump_put(&o, sub_header_pages, 4);
	dump_put(&o, 2 * k->bitmap_size / DUMP_PAGE, 4);
	dump_put(&o, MIN(k->end_pfn, (uint64_t)UINT32_MAX), 4);
	dump_put(&o, 0, 4 * 4); /* of live dumps: blocks of RAM, of the device, written; the CPU that writes */
	dump_put(&o, k->d->n_cpus, 4);
	r = write_at(k, 0, o.v, o.n);
	free(o.v);
	return r;
}

/* Linux tells where it was loaded in its VMCOREINFO: "NUMBER(phys_base)=...". Text of the guest's, maybe without an
 * end. */
static uint64_t phys_base(const uint8_t *text, size_t len)
{
	static const char key[] = "\nNUMBER(phys_base)=";
	const uint8_t *at = memmem(text, len, key, strlen(key));
	char number[24] = "";

	if (!at)
		return 0;
	at += strlen(key);
	memcpy(number, at, MIN(sizeof(number) - 1, len - (size_t)(at - text)));
	return (uint64_t)strtoll(number, NULL, 10);
}

/* struct kdump_sub_header; the notes follow it, the guest's own last. */
static void put_sub_header(struct kdump *k, struct dump_out *o, size_t notes)
{
	size_t guest = k->d->guest_note_size, info = 0, info_size = 0; /* info: in the guest's note, behind its name */

	if (guest) {
		info = 12 + ALIGN_UP((size_t)get_le32(k->d->guest_note), (size_t)4);
		info_size = get_le32(k->d->guest_note + 4);
	}
	k->notes_at = DUMP_PAGE + (o->wide ? 104 : 80);
	dump_put_word(o, guest ? phys_base(k->d->guest_note + info, info_size) : 0);
	dump_put(o, 1, 4); /* dump_level: pages of zeroes are stored once */
	dump_put(o, 0, 4); /* split */
	dump_put_word(o, 0);
	dump_put_word(o, 0); /* of split files: first and last page */
	dump_put(o, guest ? k->notes_at + notes - guest + info : 0, 8);
	dump_put_word(o, info_size); /* VMCOREINFO */
	dump_put(o, k->notes_at, 8);
	dump_put_word(o, notes);
	dump_put(o, 0, 8);
	dump_put_word(o, 0); /* erased data */
	dump_put(o, 0, 16);
	dump_put(o, k->end_pfn, 8);
}

static int write_headers(struct kdump *k)
{
	struct dump_out notes = {.wide = dump_is_wide(k->d)}, o = notes;
	uint64_t sub_pages;
	int r;

	dump_put_notes(&notes, k->d);
	put_sub_header(k, &o, notes.n);
	for (size_t i = 0; i < notes.n; i++)
		dump_put(&o, notes.v[i], 1);
	sub_pages = ALIGN_UP(o.n, (size_t)DUMP_PAGE) / DUMP_PAGE;
	k->bitmaps_at = (1 + sub_pages) * DUMP_PAGE;
	k->descs_at = k->bitmaps_at + 2 * k->bitmap_size;
	k->data_at = k->descs_at + k->pages * DESC_SIZE;
	r = write_header(k, (uint32_t)sub_pages);
	if (!r)
		r = write_at(k, DUMP_PAGE, o.v, o.n);
	free(o.v);
	free(notes.v);
	return r;
}

/* ---- bitmaps ---- */

static void set_bits(uint8_t *map, uint64_t from, uint64_t to)
{
	for (; from < to && from & 7; from++)
		map[from / 8] |= (uint8_t)(1u << (from & 7));
	if (to - from >= 8)
		memset(map + from / 8, 0xff, (size_t)((to - from) / 8));
	for (from += (to - from) & ~7ull; from < to; from++)
		map[from / 8] |= (uint8_t)(1u << (from & 7));
}

static int write_bitmap(struct kdump *k, uint64_t at)
{
	uint8_t *map = k->data.v; /* not in use yet */
	int r = 0;

	for (uint64_t done = 0; !r && done < k->bitmap_size; done += PIECE) {
		size_t n = (size_t)MIN((uint64_t)PIECE, k->bitmap_size - done);
		uint64_t first = done * 8, end = first + n * 8;

		memset(map, 0, n);
		for (unsigned i = 0; i < k->n_parts; i++) {
			const struct dump_block *b = &k->part[i];
			uint64_t from = MAX(b->gpa / DUMP_PAGE, first), to = MIN((b->gpa + b->size) / DUMP_PAGE, end);

			if (from < to)
				set_bits(map, from - first, to - first);
		}
		r = write_at(k, at + done, map, n);
	}
	return r;
}

/* ---- pages ---- */

static int put_page(struct kdump *k, const uint8_t *page)
{
	uint8_t packed[KDUMP_BOUND], desc[DESC_SIZE] = {0};
	const uint8_t *data = page;
	size_t size = DUMP_PAGE;
	uint64_t offset = k->data.offset + k->data.n;
	int r = 0;

	if (dump_is_zero(page, DUMP_PAGE)) {
		offset = k->data_at; /* the first one */
	} else {
		size = k->codec->compress(k->state, page, packed);
		data = packed;
		if (!size || size >= DUMP_PAGE) {
			size = DUMP_PAGE;
			data = page;
		}
		r = append(k, &k->data, data, size);
	}
	put_le64(desc, offset);
	put_le32(desc + 8, (uint32_t)size);
	put_le32(desc + 12, data == packed ? k->codec->flag : 0);
	return r ? r : append(k, &k->descs, desc, sizeof(desc));
}

static int write_pages(struct kdump *k)
{
	static const uint8_t zeroes[DUMP_PAGE];
	int r;

	k->descs.offset = k->descs_at;
	k->data.offset = k->data_at;
	r = append(k, &k->data, zeroes, sizeof(zeroes));
	for (unsigned i = 0; i < k->n_parts; i++) {
		const struct dump_block *b = &k->part[i];

		for (uint64_t at = 0; !r && at < b->size; at += DUMP_PAGE) {
			r = work_cancelled(k->w) ? -ECANCELED : put_page(k, b->host + at);
			__atomic_fetch_add(&k->d->done, DUMP_PAGE, __ATOMIC_RELAXED);
		}
	}
	if (!r)
		r = flush_piece(k, &k->descs);
	return r ? r : flush_piece(k, &k->data);
}

static int write_all(struct kdump *k)
{
	int r = write_start(k);

	if (!r)
		r = write_headers(k);
	for (int i = 0; !r && i < 2; i++)
		r = write_bitmap(k, k->bitmaps_at + i * k->bitmap_size);
	if (!r)
		r = write_pages(k);
	return r ? r : write_end(k);
}

int kdump_write(struct dump *d, struct work *w, int fd, const struct kdump_codec *codec, struct err *e)
{
	struct kdump k = {.d = d, .w = w, .fd = fd, .codec = codec, .state = codec->create()};
	int r = -ENOMEM;

	k.n_parts = dump_choose_parts(d, k.part);
	for (unsigned i = 0; i < k.n_parts; i++) {
		k.pages += k.part[i].size / DUMP_PAGE;
		k.end_pfn = (k.part[i].gpa + k.part[i].size) / DUMP_PAGE;
	}
	k.bitmap_size = ALIGN_UP(ALIGN_UP(k.end_pfn, 8ull) / 8, (uint64_t)DUMP_PAGE);
	k.descs.v = malloc(PIECE);
	k.data.v = malloc(PIECE);
	if (k.state && k.descs.v && k.data.v)
		r = write_all(&k);
	if (r)
		err_errno(e, -r, "dump: failed to save memory");
	free(k.descs.v);
	free(k.data.v);
	codec->destroy(k.state);
	return r;
}
