/*
 * Guest RAM and other RAM blocks: memfd mappings, so that a migration can send from them and a successor process can
 * take them over without a copy. The PCI hole follows QEMU's `pc`: up to 3.5 GiB stay below 4 GiB, larger guests
 * keep 3 GiB there (so that both parts are gigabyte-aligned) and the rest starts at 4 GiB.
 */
#include "board.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define PAGE 4096ull

static uint64_t host_memory(void)
{
	struct sysinfo si;

	if (sysinfo(&si))
		return UINT64_MAX;
	return ((uint64_t)si.totalram + si.totalswap) * si.mem_unit;
}

struct ram_block *ram_block_create(struct board *b, const char *name, uint64_t size, struct err *e)
{
	struct ram_block *rb = xzalloc(sizeof(*rb));

	size = ALIGN_UP(size, PAGE);
	rb->board = b;
	rb->size = size;
	snprintf(rb->name, sizeof(rb->name), "%s", name);
	rb->fd = memfd_create(name, MFD_CLOEXEC);
	if (rb->fd < 0 || ftruncate(rb->fd, (off_t)size)) {
		err_errno(e, errno, "cannot create %llu MiB of guest memory '%s'", (unsigned long long)(size / MIB), name);
		ram_block_free(rb);
		return NULL;
	}
	rb->host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, rb->fd, 0);
	if (rb->host == MAP_FAILED) {
		rb->host = NULL;
		err_errno(e, errno, "cannot map %llu MiB of guest memory '%s'", (unsigned long long)(size / MIB), name);
		ram_block_free(rb);
		return NULL;
	}
	if (!b->config->machine.dump_guest_core)
		madvise(rb->host, size, MADV_DONTDUMP);
	rb->next = b->blocks;
	b->blocks = rb;
	return rb;
}

void ram_block_free(struct ram_block *rb)
{
	struct ram_block **p;

	if (!rb)
		return;
	for (p = &rb->board->blocks; *p; p = &(*p)->next)
		if (*p == rb) {
			*p = rb->next;
			break;
		}
	if (rb->host)
		munmap(rb->host, rb->size);
	if (rb->fd >= 0)
		close(rb->fd);
	free(rb->dirty);
	free(rb);
}

struct ram_block *ram_block_new(struct device *dev, const char *name, uint64_t size, struct err *e)
{
	char full[64];

	snprintf(full, sizeof(full), "%.40s/%.20s", dev->id, name);
	return ram_block_create(dev->board, full, size, e);
}

void *ram_block_ptr(struct ram_block *rb)
{
	return rb->host;
}

uint64_t ram_block_size(const struct ram_block *rb)
{
	return rb->size;
}

int ram_create(struct board *b, struct err *e)
{
	uint64_t size = b->config->memory.size, low_max = b->config->machine.max_ram_below_4g;

	if (!low_max)
		low_max = 0xe0000000;
	if (b->kvm && size > host_memory())
		return err_set(e, ENOMEM, "-m: %llu MiB of guest memory are more than this host has (%llu MiB with swap); ask for less",
			       (unsigned long long)(size / MIB), (unsigned long long)(host_memory() / MIB));
	if (size >= low_max)
		b->ram_low = MIN(low_max, 0xc0000000ull);
	else
		b->ram_low = size;
	b->ram_high = size - b->ram_low;
	if (b->kvm && b->ram_high && 4 * GIB + b->ram_high > kvm_max_gpa(b->kvm))
		return err_set(e, EINVAL, "-m: %llu MiB do not fit into the physical address space KVM offers (%llu GiB); ask for less",
			       (unsigned long long)(size / MIB), (unsigned long long)(kvm_max_gpa(b->kvm) / GIB));
	b->ram = ram_block_create(b, "pc.ram", size, e);
	return b->ram ? 0 : -ENOMEM;
}

uint64_t board_ram_below_4g(const struct board *board)
{
	return board->ram_low;
}

uint64_t board_ram_above_4g(const struct board *board)
{
	return board->ram_high;
}

struct ram_block *board_ram(const struct board *board)
{
	return board->ram;
}

/* ---- dirty tracking for frame buffers ---- */

#define BITS_PER_LONG (8 * sizeof(unsigned long))

void ram_block_mark_dirty(struct ram_block *rb, uint64_t offset, uint64_t len)
{
	unsigned long *dirty = __atomic_load_n(&rb->dirty, __ATOMIC_ACQUIRE);

	if (!dirty || !len)
		return;
	for (uint64_t page = offset / PAGE; page <= (offset + len - 1) / PAGE && page < rb->size / PAGE; page++)
		__atomic_fetch_or(&dirty[page / BITS_PER_LONG], 1ul << (page % BITS_PER_LONG), __ATOMIC_RELAXED);
}

/* Start tracking own writes; everything counts as written. */
static void start_tracking(struct ram_block *rb)
{
	size_t words = (rb->size / PAGE + BITS_PER_LONG - 1) / BITS_PER_LONG;
	unsigned long *dirty = xcalloc(words, sizeof(*dirty));

	memset(dirty, 0xff, words * sizeof(*dirty));
	__atomic_store_n(&rb->dirty, dirty, __ATOMIC_RELEASE);
}

/* Or KVM's log of one mapped piece into the block's bitmap. */
static void collect_piece(struct board *b, struct ram_block *rb, const struct map_piece *p)
{
	struct region *r = p->region;
	uint64_t size = p->end - p->start, first = (r->ram_offset + (p->start - r->base)) / PAGE;
	size_t words = (size / PAGE + BITS_PER_LONG - 1) / BITS_PER_LONG;
	unsigned long *log = xcalloc(words, sizeof(*log));

	if (!kvm_get_dirty(b->kvm, p->start, size, log))
		for (uint64_t i = 0; i < size / PAGE; i++)
			if (log[i / BITS_PER_LONG] & (1ul << (i % BITS_PER_LONG)))
				ram_block_mark_dirty(rb, (first + i) * PAGE, 1);
	free(log);
}

void ram_block_fetch_dirty(struct ram_block *rb, uint64_t offset, uint64_t len, unsigned long *bitmap)
{
	struct board *b = rb->board;
	uint64_t first = offset / PAGE, pages = (len + PAGE - 1) / PAGE;

	if (!rb->dirty)
		start_tracking(rb);
	if (b->kvm) {
		pthread_mutex_lock(&b->map.lock);
		for (size_t i = 0; i < b->map.view->n; i++)
			if (b->map.view->piece[i].region->ram == rb && b->map.view->piece[i].region->log_dirty &&
			    b->map.view->piece[i].region->kind == REGION_RAM)
				collect_piece(b, rb, &b->map.view->piece[i]);
		pthread_mutex_unlock(&b->map.lock);
	}
	for (uint64_t i = 0; i < pages && first + i < rb->size / PAGE; i++) {
		uint64_t page = first + i;
		unsigned long bit = 1ul << (page % BITS_PER_LONG);

		if (__atomic_fetch_and(&rb->dirty[page / BITS_PER_LONG], ~bit, __ATOMIC_RELAXED) & bit)
			bitmap[i / BITS_PER_LONG] |= 1ul << (i % BITS_PER_LONG);
	}
}
