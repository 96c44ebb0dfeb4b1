/*
 * Which pages of a RAM block were written, for two readers that do not disturb each other: frame buffers ask for their
 * own block, migration for all. A writer marks both bitmaps; KVM's log, which is cleared by reading, is moved into
 * both.
 *
 * KVM's log dies with its slot. The map calls dirty_before_change() and dirty_after_change() around every change of
 * slots while migration looks: what a vCPU wrote to a slot that goes away is fetched, and what it wrote between the
 * fetch and the end counts as written altogether.
 */
#include "board.h"

#include <stdlib.h>
#include "vmm/ram.h"

#define PAGE          4096ull
#define BITS_PER_LONG (8 * sizeof(unsigned long))

static size_t words_of(const struct ram_block *rb)
{
	return (rb->size / PAGE + BITS_PER_LONG - 1) / BITS_PER_LONG;
}

static void mark(unsigned long *map, uint64_t first, uint64_t last)
{
	for (uint64_t page = first; page <= last; page++)
		if (page % BITS_PER_LONG == 0 && last - page >= BITS_PER_LONG) {
			__atomic_store_n(&map[page / BITS_PER_LONG], ~0ul, __ATOMIC_RELEASE);
			page += BITS_PER_LONG - 1;
		} else {
			__atomic_fetch_or(&map[page / BITS_PER_LONG], 1ul << (page % BITS_PER_LONG), __ATOMIC_RELEASE);
		}
}

void ram_block_mark_dirty(struct ram_block *rb, uint64_t offset, uint64_t len)
{
	unsigned long *dirty = __atomic_load_n(&rb->dirty, __ATOMIC_ACQUIRE);
	unsigned long *migrate = __atomic_load_n(&rb->migrate_dirty, __ATOMIC_ACQUIRE);
	uint64_t last;

	if (__atomic_load_n(&rb->untouched, __ATOMIC_RELAXED))
		__atomic_store_n(&rb->untouched, false, __ATOMIC_RELAXED);
	if ((!dirty && !migrate) || !len || offset >= rb->size)
		return;
	last = MIN(offset + len - 1, rb->size - 1) / PAGE;
	if (dirty)
		mark(dirty, offset / PAGE, last);
	if (migrate)
		mark(migrate, offset / PAGE, last);
}

/* Start tracking; everything counts as written. */
static void start_tracking(struct ram_block *rb, unsigned long **map)
{
	unsigned long *fresh;

	if (*map) {
		mark(*map, 0, rb->size / PAGE - 1);
		return;
	}
	fresh = xcalloc(words_of(rb), sizeof(*fresh));
	mark(fresh, 0, rb->size / PAGE - 1);
	__atomic_store_n(map, fresh, __ATOMIC_RELEASE);
}

static void or_word(unsigned long *map, uint64_t word, unsigned long bits)
{
	if (map && bits)
		__atomic_fetch_or(&map[word], bits, __ATOMIC_RELEASE);
}

/* The piece's first page within its block. */
static uint64_t first_page(const struct map_piece *p)
{
	return (p->region->ram_offset + (p->start - p->region->base)) / PAGE;
}

/* OR KVM's log of one mapped piece into the block's bitmaps; look: it is cleared later, by machine_dirty_clear(). */
static void collect_piece(struct board *b, const struct map_piece *p, bool look)
{
	struct ram_block *rb = p->region->ram;
	uint64_t pages = (p->end - p->start) / PAGE, first = first_page(p);
	size_t words = (pages + BITS_PER_LONG - 1) / BITS_PER_LONG;
	unsigned long *log = xcalloc(words + 1, sizeof(*log));
	unsigned shift = first % BITS_PER_LONG;
	int r = look ? kvm_look_dirty(b->kvm, p->start, pages * PAGE, log)
		     : kvm_get_dirty(b->kvm, p->start, pages * PAGE, log);

	if (r) /* nobody knows: nothing may be lost */
		ram_block_mark_dirty(rb, first * PAGE, pages * PAGE);
	else
		for (size_t w = 0; w < words; w++) {
			unsigned long low = log[w] << shift, high = shift ? log[w] >> (BITS_PER_LONG - shift) : 0;
			uint64_t at = first / BITS_PER_LONG + w;

			or_word(rb->dirty, at, low);
			or_word(rb->migrate_dirty, at, low);
			if (high) {
				or_word(rb->dirty, at + 1, high);
				or_word(rb->migrate_dirty, at + 1, high);
			}
		}
	free(log);
}

static bool is_logged(const struct board *b, const struct map_piece *p)
{
	return p->region->ram && p->region->kind == REGION_RAM && !((p->start | p->end) & (PAGE - 1)) &&
	       (b->dirty_log || p->region->log_dirty);
}

/* ---- frame buffers ---- */

void ram_block_fetch_dirty(struct ram_block *rb, uint64_t offset, uint64_t len, unsigned long *bitmap)
{
	struct board *b = rb->board;
	uint64_t first = offset / PAGE, pages = (len + PAGE - 1) / PAGE;

	if (!rb->dirty)
		start_tracking(rb, &rb->dirty);
	if (b->kvm) {
		pthread_mutex_lock(&b->map.lock);
		for (size_t i = 0; i < b->map.view->n; i++)
			if (b->map.view->piece[i].region->ram == rb && is_logged(b, &b->map.view->piece[i]))
				collect_piece(b, &b->map.view->piece[i], false);
		pthread_mutex_unlock(&b->map.lock);
	}
	for (uint64_t i = 0; i < pages && first + i < rb->size / PAGE; i++) {
		uint64_t page = first + i;
		unsigned long bit = 1ul << (page % BITS_PER_LONG);

		if (__atomic_fetch_and(&rb->dirty[page / BITS_PER_LONG], ~bit, __ATOMIC_ACQ_REL) & bit)
			bitmap[i / BITS_PER_LONG] |= 1ul << (i % BITS_PER_LONG);
	}
}

/* ---- migration: all blocks ---- */

bool machine_ram(struct board *b, unsigned i, struct ram_view *out)
{
	struct ram_block *rb;
	unsigned n = 0;

	for (rb = b->blocks; rb; rb = rb->next) /* newest first */
		n++;
	if (i >= n)
		return false;
	for (rb = b->blocks; n - 1 > i; n--)
		rb = rb->next;
	*out = (struct ram_view){.name = rb->name,
				 .host = rb->host,
				 .size = rb->size,
				 .fd = rb->fd,
				 .main = rb == b->ram,
				 .reserved = rb->reserved};
	return true;
}

static struct ram_block *block_at(struct board *b, unsigned i)
{
	struct ram_view v;

	if (machine_ram(b, i, &v))
		for (struct ram_block *rb = b->blocks; rb; rb = rb->next)
			if (rb->host == v.host)
				return rb;
	return NULL;
}

bool machine_ram_take_untouched(struct board *b, unsigned i)
{
	struct ram_block *rb = block_at(b, i);

	return rb && __atomic_exchange_n(&rb->untouched, false, __ATOMIC_RELAXED);
}

int machine_dirty_start(struct board *b, struct err *e)
{
	(void)e;
	pthread_mutex_lock(&b->map.lock);
	for (struct ram_block *rb = b->blocks; rb; rb = rb->next)
		start_tracking(rb, &rb->migrate_dirty);
	b->dirty_log = true;
	map_refresh_slots(b);
	pthread_mutex_unlock(&b->map.lock);
	return 0;
}

void machine_dirty_stop(struct board *b)
{
	pthread_mutex_lock(&b->map.lock);
	machine_dirty_sync(b, false); /* frame buffers' readers still want theirs */
	b->dirty_log = false;
	map_refresh_slots(b);
	pthread_mutex_unlock(&b->map.lock);
}

void machine_dirty_sync(struct board *b, bool look)
{
	pthread_mutex_lock(&b->map.lock);
	if (b->kvm && b->dirty_log)
		for (size_t i = 0; i < b->map.view->n; i++) {
			const struct map_piece *p = &b->map.view->piece[i];

			/* a frame buffer's reader takes the bits and knows nothing of clearing */
			if (is_logged(b, p))
				collect_piece(b, p, look && !__atomic_load_n(&p->region->ram->dirty, __ATOMIC_ACQUIRE));
		}
	pthread_mutex_unlock(&b->map.lock);
}

bool machine_dirty_clear(struct board *b, unsigned i, uint64_t first, uint64_t n, const unsigned long *map)
{
	const struct ram_block *rb = block_at(b, i);
	bool cleared = false;

	pthread_mutex_lock(&b->map.lock);
	if (b->kvm && b->dirty_log && rb && !__atomic_load_n(&rb->dirty, __ATOMIC_ACQUIRE))
		for (size_t k = 0; k < b->map.view->n; k++) {
			const struct map_piece *p = &b->map.view->piece[k];
			uint64_t from, to;

			if (p->region->ram != rb || !is_logged(b, p))
				continue;
			from = MAX(first, first_page(p));
			to = MIN(first + n, first_page(p) + (p->end - p->start) / PAGE);
			/* on an error they are told again */
			if (from < to && kvm_clear_dirty(b->kvm, p->start + (from - first_page(p)) * PAGE,
							 (to - from) * PAGE, map, from - first) > 0)
				cleared = true;
		}
	pthread_mutex_unlock(&b->map.lock);
	return cleared;
}

uint64_t machine_dirty_take(struct board *b, unsigned i, unsigned long *bitmap)
{
	struct ram_block *rb = block_at(b, i);
	uint64_t n = 0;

	if (!rb || !rb->migrate_dirty)
		return 0;
	for (size_t w = 0; w < words_of(rb); w++) {
		unsigned long bits;

		if (!__atomic_load_n(&rb->migrate_dirty[w], __ATOMIC_RELAXED))
			continue;
		bits = __atomic_exchange_n(&rb->migrate_dirty[w], 0, __ATOMIC_ACQ_REL);
		bitmap[w] |= bits;
		n += (uint64_t)__builtin_popcountl(bits);
	}
	return n;
}

void dirty_all(struct board *b)
{
	for (struct ram_block *rb = b->blocks; b->dirty_log && rb; rb = rb->next)
		ram_block_mark_dirty(rb, 0, rb->size);
}

void dirty_before_change(struct board *b, const struct map_view *old)
{
	for (size_t i = 0; b->kvm && b->dirty_log && i < old->n; i++)
		if (is_logged(b, &old->piece[i]))
			collect_piece(b, &old->piece[i], false);
}

static bool has_piece(const struct map_view *v, const struct map_piece *p)
{
	for (size_t i = 0; i < v->n; i++)
		if (v->piece[i].start == p->start && v->piece[i].end == p->end && v->piece[i].region == p->region)
			return true;
	return false;
}

/* A slot may span adjacent pieces of one device: if one of them changed, none of that device's is trusted. */
void dirty_after_change(struct board *b, const struct map_view *old, const struct map_view *now)
{
	for (size_t i = 0; b->dirty_log && i < old->n; i++) {
		const struct device *dev = old->piece[i].region->dev;

		if (has_piece(now, &old->piece[i]))
			continue;
		for (size_t k = 0; k < old->n; k++) {
			struct region *r = old->piece[k].region;

			if (r->dev == dev && r->ram)
				ram_block_mark_dirty(r->ram, r->ram_offset + (old->piece[k].start - r->base),
						     old->piece[k].end - old->piece[k].start);
		}
	}
}
