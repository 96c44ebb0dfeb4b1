/*
 * The wire format, shared by migration streams and saved files: preamble, record framing, runs of pages. Everything is
 * little-endian. docs/migration.md has the whole protocol; this file is its grammar.
 *
 *   stream   = preamble record*
 *   preamble = magic[8] | u16 version | u16 oldest | u8 kind | u8 flags | u16 channel | u64 session | u32 features |
 * u32 check record   = u16 type | u16 flags | u32 length | u32 hashed | u32 sequence | u64 hash | payload[length]
 *
 * hash is XXH3-64 over payload[0..hashed), seeded with the XXH3-64 of the sixteen header bytes before it, so that
 * header and payload are covered by one number. hashed == length but for page batches, whose data carry one hash per
 * page: a page may change while it is on its way (the guest runs), and the receiver has to know which one. sequence
 * counts the records of a channel from 0: a lost, repeated or inserted record is found. check is the low half of the
 * XXH3-64 of what precedes it.
 */
#ifndef VMM_MIGRATION_WIRE_H
#define VMM_MIGRATION_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "vmm/err.h"

#define WIRE_MAGIC       "\x89VMM\r\n\x1a\n" /* as PNG's: text conversions and cut files show at once */
#define WIRE_VERSION     1                   /* newest we speak */
#define WIRE_OLDEST      1                   /* oldest we speak */
#define WIRE_PREAMBLE    32
#define WIRE_HEADER      24
#define WIRE_PAGE        4096u
#define WIRE_MAX_PAYLOAD (64u << 20) /* of any record; page batches and texts have smaller bounds */

enum wire_kind {
	WIRE_MAIN = 0,  /* control, state, and pages unless there are channels for them */
	WIRE_PAGES = 1, /* one of several channels for pages */
	WIRE_FILE = 2,  /* a saved file: no channel at all */
	WIRE_URGENT = 3 /* post-copy: pages the guest waits for */
};
enum {
	WIRE_ONE_WAY = 1, /* preamble flag: nobody answers (pipe, file) */
	WIRE_RESUME = 2   /* preamble flag: the rest of a post-copy whose connection broke */
};

/* What both ends must agree on; the answer holds the features both have. */
enum wire_feature {
	WIRE_F_CHANNELS = 1u << 0, /* parallel channels for pages */
	WIRE_F_ZSTD = 1u << 1,     /* compressed page batches */
	WIRE_F_POSTCOPY = 1u << 2, /* the destination can run before it has all pages */
	WIRE_F_MEMORY = 1u << 3,   /* same host: memory blocks go by descriptor, no page is sent */
	WIRE_F_WINDOWS = 1u << 4,  /* where the guest's memory is mapped, before it stops */
	WIRE_F_FEWER = 1u << 5,    /* channels that BEGIN announced may stay away: CHANNELS */
};

struct wire_preamble {
	uint16_t version, oldest;
	uint8_t kind, flags;
	uint16_t channel;
	uint64_t session; /* random; the same on all channels of one migration */
	uint32_t features;
};
void wire_put_preamble(uint8_t out[WIRE_PREAMBLE], const struct wire_preamble *p);
/* Check magic, checksum and version overlap; p->version becomes the newest both speak. */
int wire_get_preamble(const uint8_t in[WIRE_PREAMBLE], struct wire_preamble *p, struct err *e);

enum wire_type {
	/* source to destination, and in files */
	WIRE_DESCRIPTION = 1, /* the machine, a flattened device tree */
	WIRE_PRESENT,         /* u16 block, runs: pages that are not holes at the source, to be prepared */
	WIRE_LAYOUT,          /* RAM blocks: u16 n, n * { u64 size, u8 length, name } */
	WIRE_DRIVES,          /* u16 n, n * { u64 size, u8 flags, u8 length, id } */
	WIRE_BEGIN,           /* the destination answers ACCEPT or REFUSE before a page is sent */
	WIRE_BATCH,           /* pages, see struct wire_batch */
	WIRE_ROUND,           /* end of a round on this channel: u32 round */
	WIRE_STATE,           /* a part of machine_save_state()'s sections, in order */
	WIRE_SWITCH,   /* the guest is stopped, everything is sent; text: its run state; the destination loads and says
			  READY. Flag WIRE_SWITCH_POSTCOPY: not everything; what WIRE_BITMAP named comes later */
	WIRE_GO,       /* only the destination may run now */
	WIRE_BITMAP,   /* post-copy: pages the destination does not have, runs per block */
	WIRE_END,      /* the last record */
	WIRE_INDEX,    /* files: where things are (save room) */
	WIRE_MEMORY,   /* u16 n; then one byte that carries a descriptor for each block of the layout */
	WIRE_WINDOWS,  /* what is mapped where now: n * { u64 address, u64 size, u64 offset, u16 block, u8 flags (1:
			  read-only, 2: logged) } */
	WIRE_CHANNELS, /* before the first page: so many (u8) of the channels that BEGIN spoke of are connected, all or
			  none. The destination answers the same: with 0 if they do not come to it */
	/* destination to source */
	WIRE_ACCEPT = 0x80, /* u32 features, u64 pages that it already has (0) */
	WIRE_REFUSE,        /* text: why not */
	WIRE_ROUND_DONE,    /* u32 round, u32 pages that changed on their way */
	WIRE_READY,         /* loaded, disks locked: waits for GO */
	WIRE_RUNNING,       /* the guest runs here; u64 ns for loading, u64 ns for resuming */
	WIRE_REQUEST,       /* post-copy: u16 block, u64 first page, u32 count */
	WIRE_COMPLETE,      /* post-copy: every page is there */
	WIRE_HAVE,          /* recovery: u16 block, runs: pages that are missing; BEGIN ends the list */
	/* either way */
	WIRE_ABORT = 0xc0, /* text: this side gives up; the guest stays where it was */
	WIRE_PING,         /* ignored: a sign of life */
};
enum { WIRE_SWITCH_POSTCOPY = 1 };         /* flag of WIRE_SWITCH */
const char *wire_type_name(uint16_t type); /* "record 77" for an unknown one: static buffer per thread */

struct wire_record {
	uint16_t type, flags;
	uint32_t length, hashed, sequence;
	uint64_t hash;
};

/* Fill the 24 bytes of a record whose first `hashed` payload bytes are at `payload`. */
void wire_put_header(uint8_t out[WIRE_HEADER], uint16_t type, uint16_t flags, uint32_t length, uint32_t sequence,
		     const void *payload, uint32_t hashed);
/* Decode and check what can be checked without the payload: length and hashed against WIRE_MAX_PAYLOAD, the sequence.
 */
int wire_get_header(const uint8_t in[WIRE_HEADER], uint32_t sequence, struct wire_record *r, struct err *e);
/* Check the hash; in: the same header bytes, payload: the first r->hashed bytes. */
int wire_check(const uint8_t in[WIRE_HEADER], const struct wire_record *r, const void *payload, struct err *e);
uint64_t wire_hash(const void *data, size_t len);
uint64_t wire_page_hash(const void *page); /* of one page, never 0 */
bool wire_page_is_zero(const void *page);

/*
 * A batch of pages. Its payload:
 *
 *   u16 block | u16 reserved | u32 data pages | u32 zero pages | u32 data bytes | u32 run bytes | runs | hash[data
 * pages] | data
 *
 * hashed covers all but data. Runs name the data pages, then the zero pages, each in ascending order. Data: the pages
 * one after the other, or with WIRE_BATCH_ZSTD one frame that holds them.
 */
#define WIRE_BATCH_HEAD  20
#define WIRE_BATCH_PAGES 512u /* at most this many data pages, and as many runs */
enum {
	WIRE_BATCH_STABLE = 1, /* flag: the guest stands still, every page must have its hash */
	WIRE_BATCH_ZSTD = 2
};
struct wire_batch {
	uint16_t block;
	uint32_t data_pages, zero_pages, data_bytes, run_bytes;
};
void wire_put_batch(uint8_t out[WIRE_BATCH_HEAD], const struct wire_batch *b);
/* Check the numbers against each other, r and the block's size in pages. head: the r->hashed bytes. */
int wire_get_batch(const uint8_t *head, const struct wire_record *r, struct wire_batch *b, struct err *e);

/*
 * Runs of pages in ascending order: pairs of LEB128 numbers, pages skipped since the end of the last run and pages in
 * it. A sparse bitmap becomes two or three bytes per run, a full one a few bytes altogether.
 */
struct wire_runs {
	uint8_t *data;
	size_t len, cap;
	uint64_t next; /* end of the last run */
};
void wire_runs_add(struct wire_runs *w, uint64_t first, uint64_t count); /* grows data; free() it */
void wire_runs_add_bitmap(struct wire_runs *w, const unsigned long *bitmap, uint64_t pages);

struct wire_run_reader {
	const uint8_t *p, *end;
	uint64_t next, limit; /* pages of the block */
};
/* 1: a run; 0: the end; -EBADMSG: not runs, or beyond limit. */
int wire_runs_next(struct wire_run_reader *r, uint64_t *first, uint64_t *count, struct err *e);

#endif
