/*
 * Memory back ends. -ram and -memfd are memfd mappings, as guest RAM without a back end is; -file maps a file, made as
 * long as it needs to be. Names and defaults are QEMU 7.2's.
 *
 * All are shared mappings: a migration sends from their descriptors.
 *
 * Left out: a named file with share=off (copy on write), NUMA placement (host-nodes, policy other than default: run vmm
 * under numactl), persistent memory (pmem), read-only files and offsets, -epc. merge is accepted and changes nothing:
 * KSM does not look at shared mappings.
 */
#include "vmm/memory_backend.h"
#include "vmm/loop.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define PAGE 4096ull

struct memory_backend {
	struct object object;
	uint64_t size, align, hugetlb_size;
	char *mem_path, *host_nodes;
	bool merge, dump, prealloc, share, reserve, hugetlb, seal, discard_data, pmem, readonly, canonical;
	uint32_t prealloc_threads;
	bool named;  /* a file that others can open */
	bool sparse; /* to be populated by whoever created it */
	int policy;
	int fd;
	uint8_t *host;
};

static struct memory_backend *of(const struct object *o)
{
	return container_of(o, struct memory_backend, object);
}

/* ---- users ---- */

struct memory_backend *memory_backend_claim(const char *id, const char *owner_property, struct err *e)
{
	struct object *o = object_find(id);

	if (!o) {
		err_set(e, ENOENT, "Memory backend '%s' not found", id);
		return NULL;
	}
	if (o->users) {
		err_set(e, EBUSY, "Property '%s': memory backend '%s' is in use", owner_property, id);
		return NULL;
	}
	o = object_claim(id, "memory-backend", owner_property, e);
	return o ? of(o) : NULL;
}

void memory_backend_release(struct memory_backend *m)
{
	object_release(&m->object);
}

void *memory_backend_host(const struct memory_backend *m)
{
	return m->host;
}

uint64_t memory_backend_size(const struct memory_backend *m)
{
	return m->size;
}

int memory_backend_fd(const struct memory_backend *m)
{
	return m->fd;
}

/* What the host can give without taking it from others, with swap; UINT64_MAX if it does not say. */
static uint64_t available(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kib, sum = 0;
	bool found = false;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu", &kib) == 1 || sscanf(line, "SwapFree: %llu", &kib) == 1) {
			found |= *line == 'M';
			sum += kib;
		}
	if (f)
		fclose(f);
	return found ? sum * KIB : UINT64_MAX;
}

static int cannot_provide(uint64_t size, const char *why, struct err *e)
{
	return err_set(e, ENOMEM, "prealloc: the host cannot provide %llu MiB now (%s)",
		       (unsigned long long)(size / MIB), why);
}

/*
 * A hypervisor that shadows this host's page tables maps a page when it is touched, once for the kernel and once for
 * the process, at many times the cost of a fault. So write to each page what is in it, from both, while nobody else
 * does: one who wrote to the same byte in between would lose that.
 */
static void touch(int fd, void *host, uint64_t size)
{
	unsigned a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & BIT(31))) /* no hypervisor */
		return;
	for (uint64_t at = 0; at < size; at += PAGE) {
		uint8_t *page = (uint8_t *)host + at;

		if (pread(fd, page, 1, (off_t)at) == 1) /* the byte that is there */
			__atomic_fetch_or(page, 0, __ATOMIC_RELAXED);
	}
}

/* fd: -1 where others can write, too. Huge pages and file systems are limited elsewhere. Once the main loop runs, the
 * sandbox lets nobody look. */
static int populate(int fd, void *host, uint64_t size, bool own_pool, struct err *e)
{
	uint64_t now = own_pool || loop_has_run(loop_main()) ? UINT64_MAX : available();
	char text[64];

	if (size > now) {
		snprintf(text, sizeof(text), "%llu MiB are available", (unsigned long long)(now / MIB));
		return cannot_provide(size, text, e);
	}
	if (madvise(host, size, MADV_POPULATE_WRITE))
		return cannot_provide(size, strerror(errno == EFAULT ? ENOSPC : errno), e);
	if (fd >= 0)
		touch(fd, host, size);
	return 0;
}

int memory_populate(int fd, void *host, uint64_t size, struct err *e)
{
	return populate(fd, host, size, false, e);
}

int memory_backend_populate(struct memory_backend *m, struct err *e)
{
	return populate(m->named ? -1 : m->fd, m->host, m->size, m->hugetlb || m->mem_path, e)
		       ? err_prefix(e, "object '%s'", m->object.id)
		       : 0;
}

bool memory_backend_prealloc(const struct memory_backend *m)
{
	return m->prealloc && !m->sparse;
}

bool memory_backend_is_ours(const struct memory_backend *m)
{
	return !m->named;
}

struct memory_backend *memory_backend_claim_sparse(const char *id)
{
	struct object *o = object_find(id);

	if (!o || strcmp(o->type->parent, "memory-backend") || !of(o)->sparse)
		return NULL;
	of(o)->sparse = false;
	return memory_backend_claim(id, "prealloc", NULL);
}

bool memory_backend_info(const struct object *o, struct memory_backend_info *out)
{
	const struct memory_backend *m = of(o);

	if (strcmp(o->type->parent, "memory-backend"))
		return false;
	*out = (struct memory_backend_info){.size = m->size,
					    .merge = m->merge,
					    .dump = m->dump,
					    .prealloc = m->prealloc,
					    .share = m->share,
					    .reserve = m->reserve};
	return true;
}

/* ---- creation ---- */

static int check(struct memory_backend *m, struct err *e)
{
	const char *type = m->object.type->name;

	if (!m->size)
		return err_set(e, EINVAL, "Parameter 'size' is missing");
	if (m->size > 16 * TIB)
		return err_set(e, EINVAL, "property 'size' of %s: %llu bytes are too much", type,
			       (unsigned long long)m->size);
	if (m->host_nodes || m->policy)
		return err_set(e, ENOTSUP,
			       "%s: host-nodes and policy are not offered: run vmm under numactl to place its memory",
			       type);
	if (m->pmem || m->readonly)
		return err_set(e, ENOTSUP, "%s: %s=on is not offered", type, m->pmem ? "pmem" : "readonly");
	if (m->hugetlb_size && !m->hugetlb)
		return err_set(e, EINVAL, "%s: 'hugetlbsize' needs hugetlb=on", type);
	if (m->hugetlb_size & (m->hugetlb_size - 1))
		return err_set(e, EINVAL, "%s: hugetlbsize=%llu is no power of two", type,
			       (unsigned long long)m->hugetlb_size);
	if (m->align & (m->align - 1) || m->align > GIB)
		return err_set(e, EINVAL, "%s: align=%llu is no power of two up to 1 GiB", type,
			       (unsigned long long)m->align);
	return 0;
}

static int map(struct memory_backend *m, struct err *e)
{
	m->host = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_SHARED | (m->reserve ? 0 : MAP_NORESERVE), m->fd, 0);
	if (m->host == MAP_FAILED) {
		m->host = NULL;
		return err_errno(e, errno, "object '%s': cannot map %llu MiB", m->object.id,
				 (unsigned long long)(m->size / MIB));
	}
	if (!m->dump)
		madvise(m->host, m->size, MADV_DONTDUMP);
	m->sparse = m->prealloc && loop_has_run(loop_main());
	return m->prealloc && !m->sparse ? memory_backend_populate(m, e) : 0;
}

static void release(struct object *o)
{
	struct memory_backend *m = of(o);

	if (m->host && m->discard_data)
		madvise(m->host, m->size, MADV_REMOVE);
	if (m->host)
		munmap(m->host, m->size);
	if (m->fd >= 0)
		close(m->fd);
	m->host = NULL;
	m->fd = -1;
}

static int finish(struct memory_backend *m, int r)
{
	if (r)
		release(&m->object);
	return r;
}

static int memfd_open(struct memory_backend *m, struct err *e)
{
	unsigned flags = MFD_CLOEXEC | (m->seal ? MFD_ALLOW_SEALING : 0);

	if (m->hugetlb)
		flags |= MFD_HUGETLB;
	if (m->hugetlb_size)
		flags |= (unsigned)__builtin_ctzll(m->hugetlb_size) << MAP_HUGE_SHIFT;
	m->size = ALIGN_UP(m->size, m->hugetlb_size ? m->hugetlb_size : m->hugetlb ? 2 * MIB : PAGE);
	m->fd = memfd_create(m->object.id, flags);
	if (m->fd < 0 || ftruncate(m->fd, (off_t)m->size))
		return err_errno(e, errno, "object '%s': cannot create %llu MiB%s", m->object.id,
				 (unsigned long long)(m->size / MIB), m->hugetlb ? " in huge pages" : "");
	if (m->seal && fcntl(m->fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL))
		return err_errno(e, errno, "object '%s': cannot seal its memory", m->object.id);
	return 0;
}

static int memfd_back_end(struct object *o, struct err *e)
{
	struct memory_backend *m = of(o);
	int r = check(m, e);

	m->fd = -1;
	if (!r)
		r = memfd_open(m, e);
	if (!r)
		r = map(m, e);
	return finish(m, r);
}

/* mem-path: a file, or a directory for a file without a name, which nobody else can map. */
static int file_open(struct memory_backend *m, struct err *e)
{
	struct stat st;

	if (!stat(m->mem_path, &st) && S_ISDIR(st.st_mode)) {
		char *path = xasprintf("%s/vmm-memory-XXXXXX", m->mem_path);

		m->fd = mkostemp(path, O_CLOEXEC);
		if (m->fd >= 0)
			unlink(path);
		free(path);
	} else if (!m->share) {
		return err_set(e, ENOTSUP,
			       "memory-backend-file: %s keeps its name, so others may map it: say share=on, or give a "
			       "directory",
			       m->mem_path);
	} else {
		m->named = true;
		m->fd = open(m->mem_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	}
	if (m->fd < 0 || fstat(m->fd, &st))
		return err_errno(e, errno, "can't open backing store %s for guest RAM", m->mem_path);
	if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(e, EINVAL, "backing store %s for guest RAM is neither a file nor a device", m->mem_path);
	m->size = ALIGN_UP(m->size, MAX(MAX(m->align, PAGE), S_ISREG(st.st_mode) ? (uint64_t)st.st_blksize : PAGE));
	if (S_ISREG(st.st_mode) && (uint64_t)st.st_size < m->size && ftruncate(m->fd, (off_t)m->size))
		return err_errno(e, errno, "cannot make %s %llu MiB long", m->mem_path,
				 (unsigned long long)(m->size / MIB));
	return 0;
}

static int file_back_end(struct object *o, struct err *e)
{
	struct memory_backend *m = of(o);
	int r = check(m, e);

	m->fd = -1;
	if (!r && (!m->mem_path || !*m->mem_path))
		r = err_set(e, EINVAL, "Parameter 'mem-path' is missing");
	if (!r)
		r = file_open(m, e);
	if (!r)
		r = map(m, e);
	return finish(m, r);
}

/* ---- types ---- */

static const char *const policies[] = {"default", "preferred", "bind", "interleave", NULL};

/* The rows that all three have; `shared` is the default of share. */
#define COMMON(shared)                                                                                                \
	PROP(struct memory_backend, size, PROP_SIZE, .help = "bytes"),                                                \
		PROP(struct memory_backend, share, PROP_BOOL, .def = shared, .help = "others may map it, too"),       \
		PROP(struct memory_backend, prealloc, PROP_BOOL, .help = "touch all of it at once"),                  \
		PROP_NAMED(struct memory_backend, "prealloc-threads", prealloc_threads, PROP_U32, .def = 1, .min = 1, \
			   .max = 1024, .help = "accepted; one does it"),                                             \
		PROP(struct memory_backend, reserve, PROP_BOOL, .def = 1, .help = "reserve swap for it"),             \
		PROP(struct memory_backend, merge, PROP_BOOL, .def = 1, .help = "accepted; KSM skips shared memory"), \
		PROP(struct memory_backend, dump, PROP_BOOL, .def = 1, .help = "part of a core dump of vmm"),         \
		PROP_NAMED(struct memory_backend, "host-nodes", host_nodes, PROP_STR, .help = "refused"),             \
		PROP(struct memory_backend, policy, PROP_ENUM, .values = policies, .help = "only default"),           \
		PROP_NAMED(struct memory_backend, "x-use-canonical-path-for-ramblock-id", canonical, PROP_BOOL,       \
			   .help = "accepted: memory is known by a name of its own")

static const struct prop ram_props[] = {COMMON(0), PROP_END};

static const struct prop memfd_props[] = {
	COMMON(1),
	PROP(struct memory_backend, hugetlb, PROP_BOOL, .help = "in huge pages"),
	PROP_NAMED(struct memory_backend, "hugetlbsize", hugetlb_size, PROP_SIZE, .max = GIB, .help = "their size"),
	PROP(struct memory_backend, seal, PROP_BOOL, .def = 1, .help = "nobody can change its length"),
	PROP_END,
};

static const struct prop file_props[] = {
	COMMON(0),
	PROP_NAMED(struct memory_backend, "mem-path", mem_path, PROP_STR,
		   .help = "file, or directory for one without a name"),
	PROP(struct memory_backend, align, PROP_SIZE, .help = "round the size up to this"),
	PROP_NAMED(struct memory_backend, "discard-data", discard_data, PROP_BOOL,
		   .help = "the file's contents need not be kept at the end"),
	PROP(struct memory_backend, pmem, PROP_BOOL, .help = "only off"),
	PROP(struct memory_backend, readonly, PROP_BOOL, .help = "only off"),
	PROP_END,
};

const struct object_type memory_backend_ram_type = {
	.name = "memory-backend-ram",
	.parent = "memory-backend",
	.summary = "memory of the host",
	.size = sizeof(struct memory_backend),
	.props = ram_props,
	.create = memfd_back_end,
	.destroy = release,
};

const struct object_type memory_backend_memfd_type = {
	.name = "memory-backend-memfd",
	.parent = "memory-backend",
	.summary = "memory of the host that others can map, sealed, in huge pages if asked",
	.size = sizeof(struct memory_backend),
	.props = memfd_props,
	.create = memfd_back_end,
	.destroy = release,
};

const struct object_type memory_backend_file_type = {
	.name = "memory-backend-file",
	.parent = "memory-backend",
	.summary = "memory in a file",
	.size = sizeof(struct memory_backend),
	.props = file_props,
	.create = file_back_end,
	.destroy = release,
};
