/*
 * Guest RAM and other RAM blocks: memfd mappings, so that a migration can send from them and a successor process can
 * take them over without a copy. The PCI hole follows QEMU's `pc`: up to 3.5 GiB stay below 4 GiB, larger guests
 * keep 3 GiB there (so that both parts are gigabyte-aligned) and the rest starts at 4 GiB.
 */
#include "board.h"
#include "vmm/memory_backend.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>
#include "vmm/ram.h"

#define PAGE      4096ull
#define HUGE_PAGE (2 * MIB)

static uint64_t host_memory(void)
{
	struct sysinfo si;

	if (sysinfo(&si))
		return UINT64_MAX;
	return ((uint64_t)si.totalram + si.totalswap) * si.mem_unit;
}

/* Guest RAM in memory that an object holds (-machine memory-backend=ID). */
static struct ram_block *ram_block_of_backend(struct board *b, const char *id, uint64_t size, struct err *e)
{
	struct memory_backend *m = memory_backend_claim(id, "memory-backend", e);
	struct ram_block *rb;

	if (!m)
		return NULL;
	if (memory_backend_size(m) != size) {
		err_set(e, EINVAL,
			"-machine memory-backend=%s: the object has %llu bytes, -m asks for %llu: they must be the "
			"same",
			id, (unsigned long long)memory_backend_size(m), (unsigned long long)size);
		memory_backend_release(m);
		return NULL;
	}
	rb = xzalloc(sizeof(*rb));
	*rb = (struct ram_block){
		.board = b, .backend = m, .fd = memory_backend_fd(m), .host = memory_backend_host(m), .size = size};
	rb->reserved = memory_backend_prealloc(m);
	rb->untouched = rb->reserved && memory_backend_is_ours(m);
	snprintf(rb->name, sizeof(rb->name),
		 MACHINE_RAM_ID); /* the same whatever it lies in: streams know it by this name */
	rb->next = b->blocks;
	b->blocks = rb;
	return rb;
}

/*
 * A mapping that KVM and the host can back with huge pages, which spare the guest most of its TLB misses: at a multiple
 * of their size, and marked. For shared memory the host decides in /sys/kernel/mm/transparent_hugepage/shmem_enabled.
 */
static void *map_ram(int fd, uint64_t size)
{
	uint8_t *area = mmap(NULL, size + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
		*host;
	size_t before, after;

	if (area == MAP_FAILED)
		return NULL;
	host = (uint8_t *)ALIGN_UP((uintptr_t)area, HUGE_PAGE);
	before = (size_t)(host - area);
	after = HUGE_PAGE - before;
	if (mmap(host, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0) == MAP_FAILED) {
		munmap(area, size + HUGE_PAGE);
		return NULL;
	}
	if (before)
		munmap(area, before);
	munmap(host + size, after);
	if (size >= HUGE_PAGE)
		madvise(host, size, MADV_HUGEPAGE);
	return host;
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
		err_errno(e, errno, "cannot create %llu MiB of guest memory '%s'", (unsigned long long)(size / MIB),
			  name);
		ram_block_free(rb);
		return NULL;
	}
	rb->host = map_ram(rb->fd, size);
	if (!rb->host) {
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
	if (rb->backend) {
		memory_backend_release(rb->backend);
	} else {
		if (rb->host)
			munmap(rb->host, rb->size);
		if (rb->fd >= 0)
			close(rb->fd);
	}
	free(rb->dirty);
	free(rb->migrate_dirty);
	free(rb);
}

/* ---- memory from elsewhere ---- */

static struct ram_block *find_block(struct board *b, const char *name, struct err *e)
{
	for (struct ram_block *rb = b->blocks; rb; rb = rb->next)
		if (!strcmp(rb->name, name))
			return rb;
	err_set(e, ENOENT, "there is no memory block '%s'", name);
	return NULL;
}

/* In place: KVM's slots and everybody's pointers stay right. */
static int replace(struct ram_block *rb, int flags, int fd, uint64_t offset, struct err *e)
{
	if (mmap(rb->host, rb->size, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_NORESERVE, fd, (off_t)offset) ==
	    MAP_FAILED)
		return err_errno(e, errno, "cannot map memory block '%s'", rb->name);
	if (!rb->board->config->machine.dump_guest_core)
		madvise(rb->host, rb->size, MADV_DONTDUMP);
	if (rb->fd >= 0)
		close(rb->fd);
	rb->fd = -1;
	rb->reserved = rb->untouched = false;
	return 0;
}

int machine_ram_map_private(struct board *b, const char *name, int fd, uint64_t offset, struct err *e)
{
	struct ram_block *rb = find_block(b, name, e);

	return rb ? replace(rb, MAP_PRIVATE, fd, offset, e) : -ENOENT;
}

int machine_ram_adopt(struct board *b, const char *name, int fd, struct err *e)
{
	struct ram_block *rb = find_block(b, name, e);
	struct stat st;
	int r;

	if (!rb)
		return -ENOENT;
	if (fstat(fd, &st) || (uint64_t)st.st_size != rb->size)
		return err_set(e, EINVAL, "memory block '%s' has another size", name);
	r = replace(rb, MAP_SHARED, fd, 0, e);
	if (!r)
		rb->fd = fd;
	return r;
}

void machine_ram_forget(struct board *b)
{
	for (struct ram_block *rb = b->blocks; rb; rb = rb->next) {
		struct err e = ERR_INIT;

		if (replace(rb, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &e)) {
			log_error("machine", "%s; it must not be touched here any more, vmm ends", e.msg);
			abort();
		}
	}
	b->memory_given = true;
}

struct ram_block *ram_block_new(struct device *dev, const char *name, uint64_t size, struct err *e)
{
	struct ram_block *rb;
	char full[64];

	snprintf(full, sizeof(full), "%.40s/%.20s", dev->id, name);
	rb = ram_block_create(dev->board, full, size, e);
	if (rb)
		rb->owner = dev;
	return rb;
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
	int r;

	if (!low_max)
		low_max = 0xe0000000;
	if (b->kvm && size > host_memory())
		return err_set(
			e, ENOMEM,
			"-m: %llu MiB of guest memory are more than this host has (%llu MiB with swap); ask for less",
			(unsigned long long)(size / MIB), (unsigned long long)(host_memory() / MIB));
	if (size >= low_max)
		b->ram_low = MIN(low_max, 0xc0000000ull);
	else
		b->ram_low = size;
	b->ram_high = size - b->ram_low;
	if (b->kvm && b->ram_high && 4 * GIB + b->ram_high > kvm_max_gpa(b->kvm))
		return err_set(
			e, EINVAL,
			"-m: %llu MiB do not fit into the physical address space KVM offers (%llu GiB); ask for less",
			(unsigned long long)(size / MIB), (unsigned long long)(kvm_max_gpa(b->kvm) / GIB));
	if (b->config->mem_path)
		b->ram = ram_block_of_backend(b, MACHINE_RAM_ID, size, e);
	else if (b->config->machine.memory_backend)
		b->ram = ram_block_of_backend(b, b->config->machine.memory_backend, size, e);
	else
		b->ram = ram_block_create(b, MACHINE_RAM_ID, size, e);
	if (b->ram && !b->ram->backend && b->config->mem_prealloc) {
		r = memory_populate(b->ram->fd, b->ram->host, size, e);
		if (r)
			return err_prefix(e, "-mem-prealloc");
		b->ram->reserved = b->ram->untouched = true;
	}
	return b->ram ? 0 : e && e->code ? -e->code : -ENOMEM;
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
