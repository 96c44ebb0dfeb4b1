/*
 * The receiving side of guest memory. A page whose hash does not fit was written by the guest while it was on its way
 * (or damaged): it is noted as torn and must come again before the guest may run here; in a batch marked stable it is
 * damage.
 *
 * Pages that have no memory yet go through a buffer that stays in the processor's cache: received, compared, written
 * into the memfd. So the kernel neither zeroes nor maps what is overwritten at once; the guest's first touch maps it.
 * RAM that is there already (below) or comes in huge pages is received where it is mapped.
 *
 * RAM starts empty: zero pages cost nothing unless something else was received before. A helper allocates the memory
 * the source says it will fill ahead of the data, because first touches are slower than the line: by touching it where
 * faults give huge pages (shmem_enabled=advise), else, where all of a huge page will be filled, by asking for that one
 * (MADV_COLLAPSE, Linux 6.1; a tenth of the time that its 512 small pages take). Not if post-copy may come: that has to
 * take single pages away again. RAM that was reserved before anybody came (-mem-prealloc) is kept as it is, unless
 * somebody has written to it meanwhile.
 */
#include "ram_recv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "compress.h"
#include "vmm/bytes.h"
#include "vmm/log.h"

#define PIECE_PAGES   64u /* stay in the processor's cache until they are written */
#define BOUNCE        (WIRE_BATCH_PAGES * (size_t)WIRE_PAGE + 4096)
#define HUGE          (2ull << 20)
#define HUGE_PAGES    ((uint32_t)(HUGE / WIRE_PAGE))
#define HUGE_AT_ONCE  8 /* each call has all processors drain their lists */
#define HUGE_REFUSALS 4 /* memory is fragmented: looking for more would only take time */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

struct receiver {
	struct channel *channel;
	struct compressor *zstd;
	uint8_t *bounce; /* what has no place yet */
	struct iovec iov[WIRE_BATCH_PAGES];
	uint64_t page[WIRE_BATCH_PAGES];
};

/* The block's bitmap holds what was received with data; torn what is to come again. */
static struct {
	unsigned long *torn[MAX_BLOCKS];
	bool again[MAX_BLOCKS];          /* reserved, but had to be emptied */
	bool mapped[MAX_BLOCKS];         /* received where it is mapped, see the head */
	unsigned long *huge[MAX_BLOCKS]; /* atomic; bit: the helper got this huge page. NULL: it shall not ask */
	uint64_t n_torn;                 /* atomic */
	uint64_t zero_pages, data_pages; /* atomic */
	/* the helper */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	pthread_t helper;
	bool helper_runs, quit;
	struct extent {
		unsigned block;
		uint64_t first, count;
	} * todo;
	size_t n_todo, done;
} ram = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

int (*ram_recv_place)(unsigned block, uint64_t page, const uint8_t *data, uint32_t n, struct err *e);

static bool test_and_set(unsigned long *map, uint64_t n)
{
	unsigned long bit = 1ul << n % 64;

	return __atomic_fetch_or(&map[n / 64], bit, __ATOMIC_RELAXED) & bit;
}

static bool test_and_clear(unsigned long *map, uint64_t n)
{
	unsigned long bit = 1ul << n % 64;

	if (!(__atomic_load_n(&map[n / 64], __ATOMIC_RELAXED) & bit))
		return false;
	return __atomic_fetch_and(&map[n / 64], ~bit, __ATOMIC_RELAXED) & bit;
}

/* ---- the helper ---- */

/* Huge pages where nothing is yet, whatever the host's setting for shared memory is. */
static bool collapse(const struct mig_block *b, uint64_t first, uint64_t count)
{
	uint8_t *at = b->v.host + first * WIRE_PAGE;

	for (uint64_t i = 0; i < count; i += HUGE_PAGES) /* one that is empty is passed over */
		if (madvise(at + i * WIRE_PAGE, WIRE_PAGE, MADV_POPULATE_WRITE))
			return false;
	return !madvise(at, count * WIRE_PAGE, MADV_COLLAPSE);
}

static bool has_data(const struct mig_block *b, uint64_t first)
{
	for (uint64_t word = first / 64; word < (first + HUGE_PAGES) / 64; word++)
		if (__atomic_load_n(&b->bitmap[word], __ATOMIC_RELAXED))
			return true;
	return false;
}

/* Huge pages for those that will be filled and are not being filled yet. */
static bool get_huge(unsigned block, uint64_t first, uint64_t count)
{
	const struct mig_block *b = &session.block[block];
	uint64_t end = ALIGN_DOWN(first + count, (uint64_t)HUGE_PAGES);

	first = ALIGN_UP(first, (uint64_t)HUGE_PAGES);
	while (first < end && has_data(b, first))
		first += HUGE_PAGES;
	if (first >= end)
		return true;
	if (!collapse(b, first, end - first))
		return false;
	for (uint64_t n = first / HUGE_PAGES; n < end / HUGE_PAGES; n++)
		__atomic_fetch_or(&ram.huge[block][n / 64], 1ul << n % 64, __ATOMIC_RELEASE);
	return true;
}

/* The next step of what the source said it will send; lock held. */
static struct extent next_step_locked(void)
{
	struct extent *from = &ram.todo[ram.done], x = *from;
	uint64_t step;

	step = (ram.huge[x.block] ? HUGE_AT_ONCE : 1) * HUGE_PAGES;
	x.count = MIN(x.count, step - x.first % step);
	from->first += x.count;
	from->count -= x.count;
	if (!from->count)
		ram.done++;
	return x;
}

static void *helper_thread(void *arg)
{
	unsigned refused = 0;

	(void)arg;
	session_confine();
	pthread_mutex_lock(&ram.lock);
	while (!ram.quit) {
		const struct mig_block *b;
		struct extent x;

		if (ram.done == ram.n_todo) {
			pthread_cond_wait(&ram.cond, &ram.lock);
			continue;
		}
		x = next_step_locked();
		pthread_mutex_unlock(&ram.lock);
		b = &session.block[x.block];
		/* Without space for it, or on a kernel before 5.14 that cannot populate, pages come as they are
		 * touched. */
		if (!ram.huge[x.block])
			madvise(b->v.host + x.first * WIRE_PAGE, x.count * WIRE_PAGE, MADV_POPULATE_WRITE);
		else if (refused < HUGE_REFUSALS && !get_huge(x.block, x.first, x.count))
			refused++;
		pthread_mutex_lock(&ram.lock);
	}
	pthread_mutex_unlock(&ram.lock);
	return NULL;
}

int ram_recv_present(const uint8_t *payload, size_t len, struct err *e)
{
	struct wire_run_reader r;
	uint64_t first, count;
	unsigned block;
	int ret;

	if (len < 2 || (block = get_le16(payload)) >= session.n_blocks)
		return err_set(e, EBADMSG, "the stream is damaged: present pages of an unknown memory block");
	r = (struct wire_run_reader){.p = payload + 2, .end = payload + len, .limit = session.block[block].pages};
	pthread_mutex_lock(&ram.lock);
	while ((ret = wire_runs_next(&r, &first, &count, e)) > 0) {
		if (session.block[block].v.reserved || !(ram.mapped[block] || ram.huge[block]))
			continue;
		if (!(ram.n_todo & 63))
			ram.todo = xrealloc(ram.todo, (ram.n_todo + 64) * sizeof(*ram.todo));
		ram.todo[ram.n_todo++] = (struct extent){block, first, count};
	}
	pthread_cond_signal(&ram.cond);
	pthread_mutex_unlock(&ram.lock);
	if (!ret && ram.n_todo && !ram.helper_runs) {
		ram.quit = false;
		ret = session_thread(&ram.helper, "migrate/memory", helper_thread, NULL, e);
		ram.helper_runs = !ret;
	}
	return ret;
}

/* ---- begin and end ---- */

void ram_recv_stop_helper(void)
{
	pthread_mutex_lock(&ram.lock);
	ram.quit = true;
	pthread_cond_broadcast(&ram.cond);
	pthread_mutex_unlock(&ram.lock);
	if (ram.helper_runs)
		pthread_join(ram.helper, NULL);
	ram.helper_runs = false;
}

void ram_recv_forget(unsigned block, uint64_t first, uint64_t count)
{
	for (; count; first++, count--)
		if (test_and_clear(ram.torn[block], first))
			__atomic_sub_fetch(&ram.n_torn, 1, __ATOMIC_RELAXED);
}

void ram_recv_end(void)
{
	ram_recv_stop_helper();
	ram_recv_place = NULL;
	for (unsigned i = 0; i < MAX_BLOCKS; i++) {
		free(ram.torn[i]);
		free(ram.huge[i]);
		ram.torn[i] = ram.huge[i] = NULL;
	}
	free(ram.todo);
	ram.todo = NULL;
	ram.n_todo = ram.done = 0;
}

/* Whether the host gives more than was touched: then only faults allocate so. The block is empty. */
static bool in_huge_pages(const struct mig_block *b)
{
	off_t end;

	if (b->v.size < 2 * HUGE || madvise(b->v.host + HUGE, WIRE_PAGE, MADV_POPULATE_WRITE))
		return false;
	end = lseek(b->v.fd, HUGE, SEEK_HOLE);
	fallocate(b->v.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, HUGE, HUGE);
	return end > (off_t)(HUGE + WIRE_PAGE);
}

/* Whether the kernel gives them on request. */
static bool can_have_huge_pages(const struct mig_block *b)
{
	bool can;

	if (b->v.size < 2 * HUGE || (uintptr_t)b->v.host % HUGE)
		return false;
	can = collapse(b, HUGE_PAGES, HUGE_PAGES);
	fallocate(b->v.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, HUGE, HUGE);
	return can;
}

int ram_recv_begin(struct err *e)
{
	ram_recv_end();
	ram.n_torn = ram.zero_pages = ram.data_pages = 0;
	for (unsigned i = 0; i < session.n_blocks; i++) {
		struct mig_block *b = &session.block[i];

		ram.again[i] = !machine_ram_take_untouched(session.board, i) && b->v.reserved;
		if ((!b->v.reserved || ram.again[i]) &&
		    fallocate(b->v.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)b->v.size))
			return err_errno(e, errno, "cannot empty memory block '%s'", b->name);
		ram.mapped[i] = b->v.reserved || in_huge_pages(b);
		memset(b->bitmap, 0, (b->pages / 64 + 1) * sizeof(*b->bitmap));
		ram.torn[i] = calloc(b->pages / 64 + 1, sizeof(unsigned long));
		if (!ram.mapped[i] && !(session.features & WIRE_F_POSTCOPY) && can_have_huge_pages(b))
			ram.huge[i] = calloc(b->pages / HUGE_PAGES / 64 + 1, sizeof(unsigned long));
		if (!ram.torn[i])
			return err_errno(e, ENOMEM, "page bitmap of '%s'", b->name);
	}
	return 0;
}

void ram_recv_populate(const struct mig_block *b)
{
	if (madvise(b->v.host, b->v.size, MADV_POPULATE_WRITE))
		log_warn("migration", "memory block '%s' cannot be reserved again: %s", b->name, strerror(errno));
}

void ram_recv_reserve(void)
{
	for (unsigned i = 0; i < session.n_blocks; i++) {
		struct mig_block *b = &session.block[i];

		if (!ram.again[i])
			continue;
		log_info("migration", "memory block '%s' had been written to and is reserved anew", b->name);
		ram_recv_populate(b);
	}
}

int ram_recv_check(struct err *e)
{
	uint64_t n = ram_recv_torn();

	return n ? err_set(e, EBADMSG,
			   "the stream is damaged: %llu pages arrived with a wrong checksum and never came again",
			   (unsigned long long)n)
		 : 0;
}

uint64_t ram_recv_torn(void)
{
	return __atomic_load_n(&ram.n_torn, __ATOMIC_RELAXED);
}

void ram_recv_stats(struct ram_recv_stats *s)
{
	s->zero_pages = __atomic_load_n(&ram.zero_pages, __ATOMIC_RELAXED);
	s->data_pages = __atomic_load_n(&ram.data_pages, __ATOMIC_RELAXED);
}

/* ---- batches ---- */

struct receiver *receiver_new(struct channel *c)
{
	struct receiver *r = xzalloc(sizeof(*r));

	r->channel = c;
	return r;
}

void receiver_free(struct receiver *r)
{
	if (!r)
		return;
	compressor_free(r->zstd);
	free(r->bounce);
	free(r);
}

/* Page numbers of the data pages. */
static int plan(struct receiver *r, const struct wire_batch *wb, struct wire_run_reader *runs, struct err *e)
{
	uint64_t first, count;
	uint32_t n = 0;

	while (n < wb->data_pages) {
		int ret = wire_runs_next(runs, &first, &count, e);

		if (ret <= 0 || count > wb->data_pages - n)
			return ret < 0 ? ret
				       : err_set(e, EBADMSG,
						 "the stream is damaged: a batch's runs do not fit its number of "
						 "pages");
		while (count--)
			r->page[n++] = first++;
	}
	runs->next = 0;
	return 0;
}

static int check_page(const struct wire_batch *wb, uint64_t page, const uint8_t *data, uint64_t hash, bool stable,
		      struct err *e)
{
	bool good = wire_page_hash(data) == hash;

	if (good) {
		if (test_and_clear(ram.torn[wb->block], page))
			__atomic_sub_fetch(&ram.n_torn, 1, __ATOMIC_RELAXED);
	} else if (stable) {
		return err_set(e, EBADMSG, "the stream is damaged: page %llu of '%s' has a wrong checksum",
			       (unsigned long long)page, session.block[wb->block].name);
	} else if (!test_and_set(ram.torn[wb->block], page)) {
		__atomic_add_fetch(&ram.n_torn, 1, __ATOMIC_RELAXED);
	}
	return 0;
}

static int zero_pages(const struct wire_batch *wb, struct wire_run_reader *runs, struct err *e)
{
	struct mig_block *b = &session.block[wb->block];
	uint64_t first, count, n = 0;
	int ret;

	while ((ret = wire_runs_next(runs, &first, &count, e)) > 0) {
		n += count;
		for (; count; first++, count--) {
			if (test_and_clear(ram.torn[wb->block], first))
				__atomic_sub_fetch(&ram.n_torn, 1, __ATOMIC_RELAXED);
			if (ram_recv_place) {
				ret = ram_recv_place(wb->block, first, NULL, 1, e);
				if (ret)
					return ret;
			} else if (test_and_clear(b->bitmap, first)) {
				memset(b->v.host + first * WIRE_PAGE, 0, WIRE_PAGE);
			}
		}
	}
	if (!ret && n != wb->zero_pages)
		ret = err_set(e, EBADMSG, "the stream is damaged: a batch's runs do not fit its number of zero pages");
	return ret;
}

/* The bytes of a batch that cannot go where they belong as they come: compressed, or pages of a guest that runs. */
static int receive_aside(struct receiver *r, const struct wire_record *rec, const struct wire_batch *wb,
			 const uint8_t **pages, struct err *e)
{
	struct iovec iov = {r->bounce, wb->data_bytes};
	int ret = channel_recv(r->channel, &iov, 1, e);

	*pages = r->bounce;
	if (ret || !(rec->flags & WIRE_BATCH_ZSTD))
		return ret;
	if (!r->zstd && !(r->zstd = compressor_new(1)))
		return err_set(e, ENOTSUP, "the pages are compressed with zstd, which this vmm was built without");
	if (!decompress_pages(r->zstd, r->bounce, wb->data_bytes, (size_t)wb->data_pages * WIRE_PAGE, pages))
		return err_set(e, EBADMSG, "the stream is damaged: a compressed batch cannot be unpacked");
	return 0;
}

static int take_aside(struct receiver *r, const struct wire_record *rec, const struct wire_batch *wb,
		      const uint8_t *hashes, struct err *e)
{
	struct mig_block *b = &session.block[wb->block];
	bool stable = rec->flags & WIRE_BATCH_STABLE;
	const uint8_t *pages;
	int ret = receive_aside(r, rec, wb, &pages, e);

	for (uint32_t i = 0; !ret && i < wb->data_pages; i++) {
		const uint8_t *from = pages + (size_t)i * WIRE_PAGE;

		ret = check_page(wb, r->page[i], from, get_le64(hashes + (size_t)i * 8), stable, e);
		if (!ret && ram_recv_place) {
			ret = ram_recv_place(wb->block, r->page[i], from, 1, e);
		} else if (!ret) {
			memcpy(b->v.host + r->page[i] * WIRE_PAGE, from, WIRE_PAGE);
			test_and_set(b->bitmap, r->page[i]);
		}
	}
	return ret;
}

/* How many of the batch's pages from its i-th on, at most n, follow each other. */
static uint32_t run_of(const struct receiver *r, uint32_t i, uint32_t n)
{
	uint32_t len = 1;

	while (len < n && r->page[i + len] == r->page[i] + len)
		len++;
	return len;
}

/* n pages of the batch from its i-th on, out of the buffer to where they belong. */
static int put_pages(struct receiver *r, const struct wire_batch *wb, uint32_t i, uint32_t n, struct err *e)
{
	struct mig_block *b = &session.block[wb->block];

	for (uint32_t k = 0, len; k < n; k += len) {
		uint64_t page = r->page[i + k];
		ssize_t done;

		len = run_of(r, i + k, n - k);
		done = pwrite(b->v.fd, r->bounce + (size_t)k * WIRE_PAGE, (size_t)len * WIRE_PAGE,
			      (off_t)(page * WIRE_PAGE));
		if (done != (ssize_t)len * WIRE_PAGE)
			return err_errno(e, done < 0 ? errno : ENOSPC,
					 "there is no memory for the guest's pages (block '%s')", b->name);
	}
	return 0;
}

/* Where the batch's pages come in, n from its i-th on. Returns the number of pieces. */
static int places(struct receiver *r, const struct wire_batch *wb, bool mapped, uint32_t i, uint32_t n)
{
	uint8_t *host = session.block[wb->block].v.host;
	int n_iov = 0;

	if (!mapped) {
		r->iov[0] = (struct iovec){r->bounce, (size_t)n * WIRE_PAGE};
		return 1;
	}
	for (uint32_t k = 0, len; k < n; k += len) {
		len = run_of(r, i + k, n - k);
		r->iov[n_iov++] = (struct iovec){host + r->page[i + k] * WIRE_PAGE, (size_t)len * WIRE_PAGE};
	}
	return n_iov;
}

/* The batch's pages where they are mapped, or piece by piece through a buffer into the memfd. */
static int take_pieces(struct receiver *r, const struct wire_record *rec, const struct wire_batch *wb, bool mapped,
		       const uint8_t *hashes, struct err *e)
{
	struct mig_block *b = &session.block[wb->block];
	bool stable = rec->flags & WIRE_BATCH_STABLE;
	int ret = 0;

	for (uint32_t i = 0, n; !ret && i < wb->data_pages; i += n) {
		n = MIN(wb->data_pages - i, PIECE_PAGES);
		ret = channel_recv(r->channel, r->iov, places(r, wb, mapped, i, n), e);
		for (uint32_t k = 0; !ret && k < n; k++)
			ret = check_page(wb, r->page[i + k],
					 mapped ? b->v.host + r->page[i + k] * WIRE_PAGE
						: r->bounce + (size_t)k * WIRE_PAGE,
					 get_le64(hashes + (size_t)(i + k) * 8), stable, e);
		if (!ret && !mapped)
			ret = put_pages(r, wb, i, n, e);
		for (uint32_t k = 0; !ret && k < n; k++)
			test_and_set(b->bitmap, r->page[i + k]);
	}
	return ret;
}

/* Whether the batch's pages have memory already. */
static bool is_mapped(const struct receiver *r, const struct wire_batch *wb)
{
	const unsigned long *huge = ram.huge[wb->block];

	for (uint32_t i = 0; huge && i < wb->data_pages; i++) {
		uint64_t n = r->page[i] / HUGE_PAGES;

		if (!(__atomic_load_n(&huge[n / 64], __ATOMIC_ACQUIRE) & 1ul << n % 64))
			return false;
	}
	return huge || ram.mapped[wb->block];
}

static int take_pages(struct receiver *r, const struct wire_record *rec, const struct wire_batch *wb,
		      const uint8_t *hashes, struct err *e)
{
	bool aside = rec->flags & WIRE_BATCH_ZSTD || ram_recv_place, mapped = !aside && is_mapped(r, wb);

	if (!mapped && !r->bounce && !(r->bounce = malloc(BOUNCE)))
		return err_errno(e, ENOMEM, "receive buffer");
	return aside ? take_aside(r, rec, wb, hashes, e) : take_pieces(r, rec, wb, mapped, hashes, e);
}

int receiver_batch(struct receiver *r, const struct wire_record *rec, const uint8_t raw[WIRE_HEADER], struct err *e)
{
	struct wire_run_reader runs;
	struct wire_batch wb;
	uint8_t *head;
	int ret = channel_get_payload(r->channel, rec, raw, WIRE_MAX_PAYLOAD, &head, e);

	if (ret)
		return ret;
	ret = wire_get_batch(head, rec, &wb, e);
	if (!ret && wb.block >= session.n_blocks)
		ret = err_set(e, EBADMSG, "the stream is damaged: pages of the unknown memory block %u", wb.block);
	if (!ret) {
		runs = (struct wire_run_reader){.p = head + WIRE_BATCH_HEAD,
						.end = head + WIRE_BATCH_HEAD + wb.run_bytes,
						.limit = session.block[wb.block].pages};
		ret = plan(r, &wb, &runs, e);
	}
	if (!ret)
		ret = take_pages(r, rec, &wb, head + WIRE_BATCH_HEAD + wb.run_bytes, e);
	if (!ret)
		ret = zero_pages(&wb, &runs, e);
	free(head);
	__atomic_fetch_add(&ram.data_pages, wb.data_pages, __ATOMIC_RELAXED);
	__atomic_fetch_add(&ram.zero_pages, wb.zero_pages, __ATOMIC_RELAXED);
	return ret;
}
