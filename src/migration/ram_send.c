/*
 * The sending side of guest memory. A round takes pages from the blocks' bitmaps in batches: claim up to 256 pages,
 * sort out the zero ones, hash the others, and send them straight from the memfd: to another host by reference
 * (sendfile: nobody copies), on the loopback and in unix sockets by copy (one in the kernel; passing references page by
 * page there saves the source no more than it costs the destination). The guest may write to a page after it was
 * hashed: the receiver finds that its hash does not fit and waits for the page to come again, which it will because the
 * write is in the dirty log.
 *
 * What is copied anyway and is not mapped into this process is copied early, with read() from the memfd: the batch is
 * looked at, hashed and sent from a buffer in the processor's cache. To map it page by page would cost more than the
 * copy, many times more where a hypervisor shadows the page tables. What the guest touches is mapped (KVM asks for it
 * by its address here), what came from a file or by a migration and was not touched since is not. So a small batch now
 * and then is sent from where it is mapped, and the faults that this takes tell about those that follow.
 *
 * With several channels each has a thread that claims and sends batches; the claims are the only thing they share.
 */
#include "ram_send.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "compress.h"
#include "present.h"
#include "vmm/bytes.h"

#define BATCH_PAGES    256u /* larger ones leave the cache between hashing and sending, smaller ones wake the receiver */
#define COPY_PAGES     128u /* stay in the processor's cache until they are sent */
#define PROBE_PAGES    64u  /* a read fault maps 16 pages around it at most, or a huge page */
#define PROBE_BATCHES  64u
#define CLEAR_PAGES    4096u /* of KVM's log at a time: a system call and a flush of the processors' TLBs each */
#define SENDFILE_PAGES 8     /* shorter runs are cheaper copied: one sendmsg for many */

struct batch {
	unsigned block;
	uint32_t n;
	uint64_t page[WIRE_BATCH_PAGES];
};

/* Buffers of one sending thread. */
struct sender {
	struct channel *channel;
	pthread_t thread;
	bool threaded;
	struct batch batch;
	uint32_t data[WIRE_BATCH_PAGES]; /* indexes into batch.page */
	uint64_t hash[WIRE_BATCH_PAGES]; /* of the data pages */
	struct wire_runs runs;
	uint8_t *head;
	size_t head_cap;
	struct iovec *iov;
	uint8_t *copy;        /* the batch's pages, or NULL: they are always looked at where they are mapped */
	bool copied;          /* this batch's */
	bool unmapped;        /* the last probe's were */
	unsigned copies_left; /* until the next probe; 0 without copy */
	struct compressor *zstd;
	struct err err;
	int result;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct sender own, *extra;
	unsigned n_extra;
	/* the claim */
	unsigned block;
	uint64_t page, cleared, pending; /* cleared: up to this page of the block is KVM's log */
	/* since the dirty log was looked at: when, and how much later it was cleared, summed up over pages */
	uint64_t synced_ns, late_us, all_pages;
	/* the round */
	uint32_t round;
	unsigned generation, busy;
	bool stable, quit, failed, small_only;
	bool stop;                       /* atomic */
	uint64_t zero_pages, data_pages; /* atomic */
	uint64_t retired_bytes;          /* of channels for pages that are gone */
	uint64_t main_bytes;             /* of main channels that broke (post-copy) */
} ram = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

/* ---- claiming ---- */

static uint64_t count(const unsigned long *map, uint64_t words)
{
	uint64_t n = 0;

	for (uint64_t w = 0; w < words; w++)
		n += (uint64_t)__builtin_popcountl(map[w]);
	return n;
}

/* KVM stops to count the pages that come next as written only now, shortly before they are read: what the guest wrote
   to them since the round began needs no other one. The guest stands in a stable round, where all was cleared. */
static void clear_ahead(const struct mig_block *b)
{
	uint64_t first = ram.page & ~63ull, end = MIN(b->pages, first + CLEAR_PAGES);

	ram.cleared = end;
	if (!machine_dirty_clear(session.board, ram.block, first, end - first, b->bitmap + first / 64))
		return;
	ram.late_us += count(b->bitmap + first / 64, (end - first + 63) / 64) * ((mono_ns() - ram.synced_ns) / 1000);
}

/* The next pages to send, at most max, all of one block; false: none are left. */
static bool claim(struct batch *out, uint32_t max)
{
	out->n = 0;
	pthread_mutex_lock(&ram.lock);
	for (; !ram.failed && !__atomic_load_n(&ram.stop, __ATOMIC_RELAXED) && ram.block < session.n_blocks && !out->n;
	     ram.block++, ram.page = ram.cleared = 0) {
		struct mig_block *b = &session.block[ram.block];

		if (ram.small_only && b->v.main)
			continue;
		out->block = ram.block;
		while (ram.page < b->pages && out->n < max) {
			unsigned long *word = &b->bitmap[ram.page / 64];
			unsigned long bits = *word & (~0ul << (ram.page % 64));

			if (!bits) {
				ram.page = (ram.page / 64 + 1) * 64;
				continue;
			}
			ram.page = (ram.page & ~63ull) + (uint64_t)__builtin_ctzl(bits);
			if (ram.page >= ram.cleared && !ram.stable)
				clear_ahead(b);
			*word &= ~(1ul << (ram.page % 64));
			out->page[out->n++] = ram.page++;
		}
		if (out->n == max)
			break;
	}
	__atomic_sub_fetch(&ram.pending, out->n, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&ram.lock);
	return out->n;
}

uint64_t ram_send_pending(void)
{
	return __atomic_load_n(&ram.pending, __ATOMIC_RELAXED);
}

/* ---- a batch ---- */

static const uint8_t *page_at(const struct sender *s, uint32_t i)
{
	return s->copied ? s->copy + (size_t)i * WIRE_PAGE
			 : session.block[s->batch.block].v.host + s->batch.page[i] * WIRE_PAGE;
}

/* Whether the batch could be read into s->copy. */
static bool copy_batch(struct sender *s)
{
	const struct batch *b = &s->batch;
	int fd = session.block[b->block].v.fd;

	if (!s->copies_left)
		return false;
	s->copies_left--;
	if (b->n > COPY_PAGES || fd < 0)
		return false;
	for (uint32_t i = 0, n; i < b->n; i += n) {
		for (n = 1; i + n < b->n && b->page[i + n] == b->page[i] + n; n++)
			;
		if (pread(fd, s->copy + (size_t)i * WIRE_PAGE, (size_t)n * WIRE_PAGE,
			  (off_t)(b->page[i] * WIRE_PAGE)) != (ssize_t)n * WIRE_PAGE)
			return false;
	}
	return true;
}

static void add_run(struct wire_runs *w, uint64_t *first, uint64_t *count, uint64_t page)
{
	if (*count && *first + *count == page) {
		++*count;
		return;
	}
	if (*count)
		wire_runs_add(w, *first, *count);
	*first = page;
	*count = 1;
}

/* Sort the pages into data and zero; the head's runs and hashes. Returns the head's length. */
static uint32_t build_head(struct sender *s, struct wire_batch *wb)
{
	const struct batch *b = &s->batch;
	uint64_t first = 0, count = 0;
	uint32_t hashed;
	uint8_t zero[WIRE_BATCH_PAGES];
	size_t run_bytes;

	s->runs.len = 0;
	s->runs.next = 0;
	for (uint32_t i = 0; i < b->n; i++) {
		zero[i] = wire_page_is_zero(page_at(s, i));
		if (zero[i])
			continue;
		s->hash[wb->data_pages] = wire_page_hash(page_at(s, i)); /* now that it is in the cache */
		s->data[wb->data_pages++] = i;
		add_run(&s->runs, &first, &count, b->page[i]);
	}
	if (count)
		wire_runs_add(&s->runs, first, count);
	count = 0;
	s->runs.next = 0; /* the zero pages start again from 0 */
	for (uint32_t i = 0; i < b->n; i++)
		if (zero[i]) {
			wb->zero_pages++;
			add_run(&s->runs, &first, &count, b->page[i]);
		}
	if (count)
		wire_runs_add(&s->runs, first, count);
	run_bytes = s->runs.len;
	hashed = (uint32_t)(WIRE_BATCH_HEAD + run_bytes + wb->data_pages * 8);
	if (WIRE_HEADER + hashed > s->head_cap) {
		s->head_cap = WIRE_HEADER + hashed + 4096;
		s->head = xrealloc(s->head, s->head_cap);
	}
	memcpy(s->head + WIRE_HEADER + WIRE_BATCH_HEAD, s->runs.data, run_bytes);
	for (uint32_t i = 0; i < wb->data_pages; i++)
		put_le64(s->head + WIRE_HEADER + WIRE_BATCH_HEAD + run_bytes + i * 8, s->hash[i]);
	wb->run_bytes = (uint32_t)run_bytes;
	return hashed;
}

/* The data pages, gathered; long runs by reference. n: entries of s->iov that wait to be sent. */
static int send_data(struct sender *s, const struct wire_batch *wb, int n, struct err *e)
{
	const struct batch *b = &s->batch;
	const struct mig_block *blk = &session.block[b->block];
	int r = 0;

	for (uint32_t i = 0, len; s->copied && i < wb->data_pages; i += len) {
		for (len = 1; i + len < wb->data_pages && s->data[i + len] == s->data[i] + len; len++)
			;
		s->iov[n++] = (struct iovec){s->copy + (size_t)s->data[i] * WIRE_PAGE, (size_t)len * WIRE_PAGE};
	}
	for (uint32_t i = 0, len; !s->copied && !r && i < wb->data_pages; i += len) {
		uint64_t first = b->page[s->data[i]];

		for (len = 1; i + len < wb->data_pages && b->page[s->data[i + len]] == first + len; len++)
			;
		if (len < SENDFILE_PAGES || blk->v.fd < 0 || !s->channel->by_reference) {
			s->iov[n++] = (struct iovec){blk->v.host + first * WIRE_PAGE, (size_t)len * WIRE_PAGE};
			continue;
		}
		r = channel_send(s->channel, s->iov, n, e);
		n = 0;
		if (!r)
			r = channel_send_file(s->channel, blk->v.fd, first * WIRE_PAGE, (size_t)len * WIRE_PAGE, e);
	}
	return r || !n ? r : channel_send(s->channel, s->iov, n, e);
}

static int send_batch(struct sender *s, bool stable, struct err *e)
{
	struct wire_batch wb = {.block = (uint16_t)s->batch.block};
	struct channel *c = s->channel;
	uint16_t flags = stable ? WIRE_BATCH_STABLE : 0;
	uint32_t hashed;
	const void *frame = NULL;
	int r;

	s->copied = copy_batch(s);
	hashed = build_head(s, &wb);
	wb.data_bytes = wb.data_pages * WIRE_PAGE;
	if (s->zstd && wb.data_pages) {
		size_t len = compress_pages(s->zstd, session.block[s->batch.block].v.host, s->batch.page, s->data,
					    wb.data_pages, &frame);

		if (len && len < wb.data_bytes) {
			wb.data_bytes = (uint32_t)len;
			flags |= WIRE_BATCH_ZSTD;
		} else {
			frame = NULL;
		}
	}
	wire_put_batch(s->head + WIRE_HEADER, &wb);
	pthread_mutex_lock(&c->out_lock);
	wire_put_header(s->head, WIRE_BATCH, flags, hashed + wb.data_bytes, c->seq_out++, s->head + WIRE_HEADER,
			hashed);
	s->iov[0] = (struct iovec){s->head, WIRE_HEADER + hashed};
	if (frame) {
		s->iov[1] = (struct iovec){(void *)(uintptr_t)frame, wb.data_bytes};
		r = channel_send(c, s->iov, 2, e);
	} else {
		r = send_data(s, &wb, 1, e);
	}
	pthread_mutex_unlock(&c->out_lock);
	__atomic_fetch_add(&ram.zero_pages, wb.zero_pages, __ATOMIC_RELAXED);
	__atomic_fetch_add(&ram.data_pages, wb.data_pages, __ATOMIC_RELAXED);
	return r;
}

/* A batch from where it is mapped that tells whether it was. */
static int send_probe(struct sender *s, bool stable, struct err *e)
{
	long before = session_faults();
	int r = send_batch(s, stable, e);

	s->unmapped = session_faults() - before > (long)s->batch.n / 32;
	s->copies_left = s->unmapped ? PROBE_BATCHES : 0;
	return r;
}

static uint32_t next_size(const struct sender *s)
{
	if (s->copies_left)
		return COPY_PAGES;
	return s->unmapped ? PROBE_PAGES : BATCH_PAGES;
}

static int send_round(struct sender *s, uint32_t round, bool stable, struct err *e)
{
	uint8_t raw[4];
	int r = 0;

	while (!r && claim(&s->batch, next_size(s)))
		r = s->copy && !s->copies_left ? send_probe(s, stable, e) : send_batch(s, stable, e);
	put_le32(raw, round);
	return r ? r : channel_put(s->channel, WIRE_ROUND, 0, raw, sizeof(raw), e);
}

int ram_send_pages(struct channel *c, unsigned block, uint64_t first, uint32_t count, struct err *e)
{
	static struct sender s; /* one post-copy at a time, one thread that answers */
	int r = 0;

	if (!s.iov)
		s.iov = xcalloc(WIRE_BATCH_PAGES + 2, sizeof(*s.iov));
	s.channel = c;
	while (!r && count) {
		s.batch.block = block;
		s.batch.n = MIN(count, WIRE_BATCH_PAGES);
		for (uint32_t i = 0; i < s.batch.n; i++)
			s.batch.page[i] = first + i;
		r = send_batch(&s, true, e);
		first += s.batch.n;
		count -= s.batch.n;
	}
	return r;
}

/* ---- post-copy ---- */

void ram_send_mark(unsigned block, uint64_t first, uint64_t count)
{
	page_map_set(session.block[block].bitmap, first, first + count, true);
}

void ram_send_unmark(unsigned block, uint64_t first, uint64_t count)
{
	const unsigned long *map = session.block[block].bitmap;
	uint64_t waited = 0;

	for (uint64_t n = first; n < first + count; n++)
		waited += map[n / 64] >> n % 64 & 1;
	__atomic_sub_fetch(&ram.pending, waited, __ATOMIC_RELAXED);
	page_map_set(session.block[block].bitmap, first, first + count, false);
}

void ram_send_rewind(void)
{
	ram.block = 0;
	ram.page = ram.cleared = 0;
	ram.failed = false;
	ram.small_only = false;
	ram.stable = true; /* the guest stands here from now on */
	__atomic_store_n(&ram.stop, false, __ATOMIC_RELAXED);
}

void ram_send_recount(void)
{
	uint64_t pending = 0;

	for (unsigned i = 0; i < session.n_blocks; i++)
		pending += count(session.block[i].bitmap, session.block[i].pages / 64 + 1);
	__atomic_store_n(&ram.pending, pending, __ATOMIC_RELAXED);
}

void ram_send_stop(void)
{
	__atomic_store_n(&ram.stop, true, __ATOMIC_RELAXED);
}

void ram_send_use(struct channel *c)
{
	ram.own.channel = c;
}

void ram_send_retire(const struct channel *c)
{
	ram.main_bytes += c->sent;
}

int ram_send_some(uint32_t max, struct err *e)
{
	if (!claim(&ram.own.batch, max))
		return 0;
	return send_batch(&ram.own, true, e) ? -e->code : (int)ram.own.batch.n;
}

int ram_send_small_blocks(uint32_t round, struct err *e)
{
	int r;

	ram_send_rewind();
	ram.small_only = true;
	r = send_round(&ram.own, round, true, e);
	ram.small_only = false;
	return r;
}

/* ---- rounds ---- */

static void *sender_thread(void *arg)
{
	struct sender *s = arg;
	unsigned seen = 0;

	session_confine();
	pthread_mutex_lock(&ram.lock);
	for (;;) {
		uint32_t round;
		bool stable;

		while (ram.generation == seen && !ram.quit)
			pthread_cond_wait(&ram.cond, &ram.lock);
		if (ram.quit)
			break;
		seen = ram.generation;
		round = ram.round;
		stable = ram.stable;
		pthread_mutex_unlock(&ram.lock);
		s->result = send_round(s, round, stable, &s->err);
		pthread_mutex_lock(&ram.lock);
		if (s->result)
			ram.failed = true;
		if (!--ram.busy)
			pthread_cond_broadcast(&ram.cond);
	}
	pthread_mutex_unlock(&ram.lock);
	return NULL;
}

int ram_send_round(uint32_t round, bool stable, struct err *e)
{
	uint8_t raw[4];
	int r = 0;

	pthread_mutex_lock(&ram.lock);
	ram.block = 0;
	ram.page = ram.cleared = 0;
	ram.round = round;
	ram.stable = stable;
	ram.failed = false;
	if (ram.n_extra) {
		ram.busy = ram.n_extra;
		ram.generation++;
		pthread_cond_broadcast(&ram.cond);
		while (ram.busy)
			pthread_cond_wait(&ram.cond, &ram.lock);
		for (unsigned i = 0; i < ram.n_extra; i++)
			if (ram.extra[i].result && !r) {
				r = ram.extra[i].result;
				*e = ram.extra[i].err;
			}
	}
	pthread_mutex_unlock(&ram.lock);
	if (!ram.n_extra)
		return send_round(&ram.own, round, stable, e);
	put_le32(raw, round);
	return r ? r : channel_put(session.main, WIRE_ROUND, 0, raw, sizeof(raw), e);
}

static void init_sender(struct sender *s, struct channel *c)
{
	s->channel = c;
	s->iov = xcalloc(WIRE_BATCH_PAGES + 2, sizeof(*s->iov));
	if (session.features & WIRE_F_ZSTD)
		s->zstd = compressor_new(session.params.zstd_level);
	if (!s->zstd && !c->by_reference)
		s->copy = malloc(COPY_PAGES * (size_t)WIRE_PAGE);
}

static void free_sender(struct sender *s)
{
	free(s->iov);
	free(s->copy);
	free(s->head);
	free(s->runs.data);
	compressor_free(s->zstd);
}

int ram_send_begin(struct channel **extra, unsigned n, struct err *e)
{
	int r = 0;

	memset(&ram.own, 0, sizeof(ram.own));
	init_sender(&ram.own, session.main);
	ram.quit = false;
	__atomic_store_n(&ram.stop, false, __ATOMIC_RELAXED);
	ram.generation = 0;
	pthread_mutex_lock(&session.lock); /* query-migrate looks at these under it */
	ram.zero_pages = ram.data_pages = 0;
	ram.retired_bytes = ram.main_bytes = 0;
	ram.extra = xcalloc(n + 1, sizeof(*ram.extra));
	for (unsigned i = 0; i < n; i++)
		init_sender(&ram.extra[i], extra[i]);
	ram.n_extra = n;
	pthread_mutex_unlock(&session.lock);
	for (unsigned i = 0; i < n && !r; i++) {
		r = session_thread(&ram.extra[i].thread, "migrate/pages", sender_thread, &ram.extra[i], e);
		ram.extra[i].threaded = !r;
	}
	return r;
}

void ram_send_end(void)
{
	unsigned n = ram.n_extra;

	pthread_mutex_lock(&ram.lock);
	ram.quit = true;
	pthread_cond_broadcast(&ram.cond);
	pthread_mutex_unlock(&ram.lock);
	for (unsigned i = 0; i < n; i++)
		if (ram.extra[i].threaded)
			pthread_join(ram.extra[i].thread, NULL);
	pthread_mutex_lock(&session.lock); /* query-migrate looks at the channels under it */
	for (unsigned i = 0; i < n; i++)
		ram.retired_bytes += ram.extra[i].channel->sent;
	ram.n_extra = 0;
	pthread_mutex_unlock(&session.lock);
	for (unsigned i = 0; i < n; i++) {
		channel_free(ram.extra[i].channel);
		free_sender(&ram.extra[i]);
	}
	free(ram.extra);
	ram.extra = NULL;
	free_sender(&ram.own);
	memset(&ram.own, 0, sizeof(ram.own));
}

void ram_send_stats(struct ram_send_stats *s)
{
	*s = (struct ram_send_stats){.zero_pages = __atomic_load_n(&ram.zero_pages, __ATOMIC_RELAXED),
				     .data_pages = __atomic_load_n(&ram.data_pages, __ATOMIC_RELAXED),
				     .channel_bytes = ram.retired_bytes};
	for (unsigned i = 0; i < ram.n_extra; i++)
		s->channel_bytes += __atomic_load_n(&ram.extra[i].channel->sent, __ATOMIC_RELAXED);
	s->bytes = s->channel_bytes + ram.main_bytes;
	if (session.main)
		s->bytes += __atomic_load_n(&session.main->sent, __ATOMIC_RELAXED);
}

/* ---- bitmaps ---- */

/* At first all counts as written. What has no memory is not sent, so KVM has to notice from now on when it gets some;
   then whether it has is looked at again. */
static void without_holes(unsigned i)
{
	struct mig_block *b = &session.block[i];
	size_t words = b->pages / 64 + 1;
	unsigned long *map = xcalloc(words, sizeof(*map));

	present_pages(b, b->bitmap);
	for (size_t w = 0; w < words; w++)
		map[w] = ~b->bitmap[w];
	if (machine_dirty_clear(session.board, i, 0, b->pages, map)) {
		present_pages(b, map);
		for (size_t w = 0; w < words; w++)
			b->bitmap[w] |= map[w];
	}
	free(map);
}

uint64_t ram_send_sync(bool first, bool stable)
{
	uint64_t pending = 0, pages = 0;

	machine_dirty_sync(session.board, !stable);
	ram.synced_ns = mono_ns();
	ram.late_us = 0;
	for (unsigned i = 0; i < session.n_blocks; i++) {
		struct mig_block *b = &session.block[i];

		machine_dirty_take(session.board, i, b->bitmap);
		if (b->pages % 64)
			b->bitmap[b->pages / 64] &= (1ul << b->pages % 64) - 1;
		if (first)
			without_holes(i);
		pending += count(b->bitmap, b->pages / 64 + 1);
		pages += b->pages;
	}
	if (first)
		__atomic_fetch_add(&ram.zero_pages, pages - pending, __ATOMIC_RELAXED);
	__atomic_store_n(&ram.pending, pending, __ATOMIC_RELAXED);
	ram.all_pages = pages;
	return pending;
}

uint64_t ram_send_logged_ns(void)
{
	return mono_ns() - ram.synced_ns - ram.late_us * 1000 / ram.all_pages;
}

int ram_send_present(struct err *e)
{
	int r = 0;

	for (unsigned i = 0; !r && i < session.n_blocks; i++) {
		struct mig_block *b = &session.block[i];
		struct wire_runs w = {0};
		uint8_t *payload;

		wire_runs_add_bitmap(&w, b->bitmap, b->pages);
		if (w.len) {
			payload = xzalloc(w.len + 2);
			put_le16(payload, (uint16_t)i);
			memcpy(payload + 2, w.data, w.len);
			r = channel_put(session.main, WIRE_PRESENT, 0, payload, (uint32_t)w.len + 2, e);
			free(payload);
		}
		free(w.data);
	}
	return r;
}
