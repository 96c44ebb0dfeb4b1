/*
 * The region map: what a port or memory access reaches. Writers (region_*) hold the map's lock and publish a new
 * flattened view; readers take no lock: ports go through a 64 K index, memory through the published sorted array. An
 * array that was replaced is freed once every vCPU has passed a KVM_RUN boundary.
 */
#include "board.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE 4096ull

/* ---- building ---- */

static bool is_enabled_mem(const struct region *r)
{
	return r->desc->space == SPACE_MMIO && r->size;
}

static uint64_t region_end(const struct region *r)
{
	return r->base + r->size < r->base ? UINT64_MAX : r->base + r->size;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The region that answers [start, end): highest priority, then the latest enabled. */
static struct region *winner(const struct map *m, uint64_t start, uint64_t end)
{
	struct region *best = NULL;

	for (size_t i = 0; i < m->n_regions; i++) {
		struct region *r = m->region[i];

		if (is_enabled_mem(r) && r->base <= start && region_end(r) >= end &&
		    (!best || r->desc->priority >= best->desc->priority))
			best = r;
	}
	return best;
}

static struct map_view *flatten(const struct map *m)
{
	uint64_t *edge = xcalloc(m->n_regions * 2 + 1, sizeof(*edge));
	struct map_view *v = xzalloc(sizeof(*v) + (m->n_regions * 2 + 1) * sizeof(v->piece[0]));
	size_t n = 0;

	for (size_t i = 0; i < m->n_regions; i++)
		if (is_enabled_mem(m->region[i])) {
			edge[n++] = m->region[i]->base;
			edge[n++] = region_end(m->region[i]);
		}
	qsort(edge, n, sizeof(*edge), compare_u64);
	for (size_t i = 0; i + 1 < n; i++) {
		struct map_piece *last = v->n ? &v->piece[v->n - 1] : NULL;
		struct region *r;

		if (edge[i] == edge[i + 1] || !(r = winner(m, edge[i], edge[i + 1])))
			continue;
		if (last && last->region == r && last->end == edge[i])
			last->end = edge[i + 1];
		else
			v->piece[v->n++] = (struct map_piece){edge[i], edge[i + 1], r};
	}
	free(edge);
	return v;
}

/* Which pieces are memory. Those that are not page-aligned (BARs below 4 KiB) cannot be backed: they trap. */
size_t map_list_memory(const struct map_view *v, bool log, struct kvm_memory **out)
{
	const struct device *owner = NULL; /* of list[n - 1] */
	struct kvm_memory *list = *out = xcalloc(v->n + 1, sizeof(*list));
	size_t n = 0;

	for (size_t i = 0; i < v->n; i++) {
		const struct map_piece *p = &v->piece[i];
		struct region *r = p->region;
		struct kvm_memory *last = n ? &list[n - 1] : NULL;
		bool logged = r->log_dirty || (log && r->kind == REGION_RAM);
		uint8_t *host;

		if (r->kind == REGION_IO || !r->ram || ((p->start | p->end) & (PAGE - 1)))
			continue;
		host = r->ram->host + r->ram_offset + (p->start - r->base);
		if (last && last->gpa + last->size == p->start && (uint8_t *)last->host + last->size == host &&
		    last->readonly == (r->kind == REGION_ROM) && last->log_dirty == logged && owner == r->dev)
			/* Adjacent PAM windows; never with the RAM around them: the large slots stay when a window
			 * changes. */
			last->size += p->end - p->start;
		else
			list[n++] = (struct kvm_memory){.gpa = p->start,
							.size = p->end - p->start,
							.host = host,
							.readonly = r->kind == REGION_ROM,
							.log_dirty = logged};
		owner = r->dev;
	}
	return n;
}

static void update_slots(struct board *b, const struct map_view *v)
{
	struct kvm_memory *list;
	struct err e = ERR_INIT;
	size_t n;

	if (!b->kvm || b->map.slots_held)
		return;
	n = map_list_memory(v, b->dirty_log, &list);
	if (kvm_set_memory(b->kvm, list, n, &e))
		log_error("map", "%s", e.msg);
	free(list);
}

static void rebuild(struct board *b)
{
	struct map *m = &b->map;
	struct map_view *old = m->view, *v;

	if (m->batch || !m->mem_stale)
		return;
	m->mem_stale = false;
	v = flatten(m);
	dirty_before_change(b, old);
	__atomic_store_n(&m->view, v, __ATOMIC_RELEASE);
	update_slots(b, v);
	dirty_after_change(b, old, v);
	/* Exit handlers on other vCPUs may still be looking at the old view. */
	if (b->kvm)
		kvm_call_after_grace(b->kvm, free, old);
	else
		free(old);
}

/* ---- ports ---- */

static unsigned pio_slot(struct map *m, struct region *r)
{
	for (unsigned i = 1; i < ARRAY_SIZE(m->pio_region); i++)
		if (m->pio_region[i] == r)
			return i;
	for (unsigned i = 1; i < ARRAY_SIZE(m->pio_region); i++)
		if (!m->pio_region[i]) {
			__atomic_store_n(&m->pio_region[i], r, __ATOMIC_RELEASE);
			return i;
		}
	return 0;
}

/* Re-compute the index for the ports of r after it appeared or went away. */
static void index_ports(struct board *b, uint64_t base, uint64_t size)
{
	struct map *m = &b->map;

	for (uint64_t port = base; port < base + size && port < 65536; port++) {
		struct region *best = NULL;
		unsigned slot = 0;

		for (size_t i = 0; i < m->n_regions; i++) {
			struct region *r = m->region[i];

			if (r->desc->space == SPACE_PIO && r->base <= port && port < r->base + r->size &&
			    (!best || r->desc->priority >= best->desc->priority))
				best = r;
		}
		if (best)
			slot = pio_slot(m, best);
		if (m->pio_index[port] != slot)
			__atomic_store_n(&m->pio_index[port], (uint16_t)slot, __ATOMIC_RELEASE);
	}
}

/* KVM's log of a slot is gone with it: what the window shows counts as written. */
static void lost_log(struct board *b, struct region *r)
{
	if (r->ram && r->log_dirty)
		ram_block_mark_dirty(r->ram, 0, r->ram->size);
	else if (r->ram && b->dirty_log)
		ram_block_mark_dirty(r->ram, r->ram_offset, r->size);
}

static void changed(struct board *b, struct region *r)
{
	doorbells_follow(b, r);
	if (r->desc->space == SPACE_PIO) {
		index_ports(b, r->base, r->size);
		return;
	}
	lost_log(b, r);
	b->map.mem_stale = true;
	rebuild(b);
}

static void list_add(struct map *m, struct region *r)
{
	if (m->n_regions == m->cap_regions) {
		m->cap_regions = m->cap_regions ? m->cap_regions * 2 : 64;
		m->region = xrealloc(m->region, m->cap_regions * sizeof(*m->region));
	}
	m->region[m->n_regions++] = r;
}

static void list_del(struct map *m, struct region *r)
{
	for (size_t i = 0; i < m->n_regions; i++)
		if (m->region[i] == r) {
			memmove(&m->region[i], &m->region[i + 1], (m->n_regions - i - 1) * sizeof(*m->region));
			m->n_regions--;
			return;
		}
}

/* ---- the devices' interface ---- */

void region_enable(struct region *r, bool on)
{
	struct board *b = r->dev->board;

	pthread_mutex_lock(&b->map.lock);
	if (r->enabled != on) {
		r->enabled = on;
		if (on)
			list_add(&b->map, r);
		else
			list_del(&b->map, r);
		if (on && r->desc->coalesced && b->kvm)
			kvm_coalesce_writes(b->kvm, r->desc->space == SPACE_PIO, r->base, r->desc->coalesced);
		changed(b, r);
	}
	pthread_mutex_unlock(&b->map.lock);
}

void region_hurry_writes(struct device *dev)
{
	if (dev->board->kvm)
		kvm_hurry_coalesced(dev->board->kvm);
}

void region_move(struct region *r, uint64_t base)
{
	struct board *b = r->dev->board;

	pthread_mutex_lock(&b->map.lock);
	if (r->base != base) {
		bool was_enabled = r->enabled;

		region_batch_begin(r->dev);
		region_enable(r, false);
		r->base = base;
		region_enable(r, was_enabled);
		region_batch_end(r->dev);
	}
	pthread_mutex_unlock(&b->map.lock);
}

void region_set_kind(struct region *r, enum region_kind kind, struct ram_block *ram, uint64_t ram_offset)
{
	struct board *b = r->dev->board;

	pthread_mutex_lock(&b->map.lock);
	if (r->kind != kind || r->ram != ram || r->ram_offset != ram_offset) {
		if (r->enabled)
			lost_log(b, r);
		r->kind = kind;
		r->ram = ram;
		r->ram_offset = ram_offset;
		if (r->enabled)
			changed(b, r);
	}
	pthread_mutex_unlock(&b->map.lock);
}

void region_batch_begin(struct device *dev)
{
	pthread_mutex_lock(&dev->board->map.lock); /* recursive: held until the batch ends */
	dev->board->map.batch++;
}

void region_batch_end(struct device *dev)
{
	dev->board->map.batch--;
	rebuild(dev->board);
	pthread_mutex_unlock(&dev->board->map.lock);
}

/* A batch that never ends: nobody needs to follow how the map falls apart, and KVM would take milliseconds to. */
void map_defer(struct board *b)
{
	pthread_mutex_lock(&b->map.lock);
	b->map.batch++;
	pthread_mutex_unlock(&b->map.lock);
}

void map_commit(struct board *b)
{
	pthread_mutex_lock(&b->map.lock);
	b->map.batch--;
	rebuild(b);
	pthread_mutex_unlock(&b->map.lock);
}

void map_hold_slots(struct board *b, bool hold)
{
	pthread_mutex_lock(&b->map.lock);
	b->map.mem_stale |= b->map.slots_held && !hold;
	b->map.slots_held = hold;
	pthread_mutex_unlock(&b->map.lock);
}

void map_refresh_slots(struct board *b)
{
	pthread_mutex_lock(&b->map.lock);
	update_slots(b, b->map.view);
	pthread_mutex_unlock(&b->map.lock);
}

void map_freeze(struct board *b)
{
	pthread_mutex_lock(&b->map.lock);
	b->map.batch++;
	pthread_mutex_unlock(&b->map.lock);
}

int map_init(struct board *b, struct err *e)
{
	struct map *m = &b->map;
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&m->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	/* mmap, not malloc: pages of ports nobody uses are never touched and cost nothing */
	m->pio_index = mmap(NULL, 65536 * sizeof(uint16_t), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->pio_index == MAP_FAILED) {
		m->pio_index = NULL;
		return err_errno(e, errno, "cannot allocate the port map");
	}
	m->view = flatten(m);
	return 0;
}

void map_free(struct board *b)
{
	struct map *m = &b->map;

	free(m->view);
	free(m->region);
	if (m->pio_index)
		munmap(m->pio_index, 65536 * sizeof(uint16_t));
	pthread_mutex_destroy(&m->lock);
}

/* ---- access ---- */

static const struct map_piece *find_piece(const struct map_view *v, uint64_t addr)
{
	size_t lo = 0, hi = v->n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (addr < v->piece[mid].start)
			hi = mid;
		else if (addr >= v->piece[mid].end)
			lo = mid + 1;
		else
			return &v->piece[mid];
	}
	return NULL;
}

/* One access within r; its device's lock held. Splits what is wider than the handler takes. */
static uint64_t read_locked(struct region *r, uint64_t offset, unsigned size)
{
	const struct region_ops *ops = r->desc->ops;
	unsigned max = ops && ops->max_access ? ops->max_access : 4, min = ops && ops->min_access ? ops->min_access : 1;
	uint64_t value = 0;

	if (!ops || !ops->read)
		return ~0ull;
	if (size < min) {
		uint64_t base = ALIGN_DOWN(offset, min);

		return ops->read(r->dev, r, base, min) >> ((offset - base) * 8);
	}
	if (size <= max && (size & (size - 1)) == 0)
		return ops->read(r->dev, r, offset, size);
	for (unsigned done = 0, part; done < size; done += part) {
		part = MIN(max, 1u << (31 - __builtin_clz(size - done)));
		value |= (ops->read(r->dev, r, offset + done, part) & (part == 8 ? ~0ull : BIT64(part * 8) - 1))
			 << (done * 8);
	}
	return value;
}

static void write_locked(struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	const struct region_ops *ops = r->desc->ops;
	unsigned max = ops && ops->max_access ? ops->max_access : 4, min = ops && ops->min_access ? ops->min_access : 1;

	if (!ops || !ops->write)
		return;
	if (size < min) {
		log_guest(&r->dev->guest_log, "map", "%s: %u-byte write to %s+0x%llx, which takes at least %u bytes",
			  r->dev->id, size, r->desc->name, (unsigned long long)offset, min);
		return;
	}
	for (unsigned done = 0, part; done < size; done += part) {
		part = MIN(max, 1u << (31 - __builtin_clz(size - done)));
		ops->write(r->dev, r, offset + done, part == 8 ? value : (value >> (done * 8)) & (BIT64(part * 8) - 1),
			   part);
	}
}

/* How many bytes of [port, port+size) fall into the region found at port. */
static struct region *find_port(struct board *b, uint16_t port)
{
	unsigned slot = __atomic_load_n(&b->map.pio_index[port], __ATOMIC_ACQUIRE);

	return slot ? __atomic_load_n(&b->map.pio_region[slot], __ATOMIC_ACQUIRE) : NULL;
}

uint64_t map_pio_read(struct board *b, uint16_t port, unsigned size)
{
	struct region *r = find_port(b, port);
	uint64_t value;

	if (!r) {
		if (size == 1 || port + size > 65536)
			return ~0ull;
	} else if (port - r->base + size <= r->size) {
		pthread_mutex_lock(r->dev->lock);
		value = read_locked(r, port - r->base, size);
		pthread_mutex_unlock(r->dev->lock);
		return value;
	}
	value = 0; /* the access straddles regions: the bus splits it into bytes */
	for (unsigned i = 0; i < size; i++) {
		struct region *byte = port + i < 65536 ? find_port(b, (uint16_t)(port + i)) : NULL;
		uint64_t v = 0xff;

		if (byte) {
			pthread_mutex_lock(byte->dev->lock);
			v = read_locked(byte, port + i - byte->base, 1) & 0xff;
			pthread_mutex_unlock(byte->dev->lock);
		}
		value |= v << (8 * i);
	}
	return value;
}

void map_pio_write(struct board *b, uint16_t port, uint64_t value, unsigned size)
{
	struct region *r = find_port(b, port);

	if (!r) {
		if (size == 1)
			return;
	} else if (port - r->base + size <= r->size) {
		pthread_mutex_lock(r->dev->lock);
		write_locked(r, port - r->base, value, size);
		pthread_mutex_unlock(r->dev->lock);
		return;
	}
	for (unsigned i = 0; i < size && port + i < 65536; i++) {
		struct region *byte = find_port(b, (uint16_t)(port + i));

		if (byte) {
			pthread_mutex_lock(byte->dev->lock);
			write_locked(byte, port + i - byte->base, (value >> (8 * i)) & 0xff, 1);
			pthread_mutex_unlock(byte->dev->lock);
		}
	}
}

/* REP INS/OUTS: hand whole runs to devices that take them. */
static uint32_t string_run(struct region *r, uint64_t offset, bool write, uint8_t *data, unsigned size, uint32_t count)
{
	const struct region_ops *ops = r->desc->ops;
	uint32_t done = 0;

	pthread_mutex_lock(r->dev->lock);
	while (done < count) {
		uint32_t n = 0;

		if (write ? ops->write_string != NULL : ops->read_string != NULL)
			n = write ? ops->write_string(r->dev, r, offset, data + done * size, size, count - done)
				  : ops->read_string(r->dev, r, offset, data + done * size, size, count - done);
		if (n) {
			done += MIN(n, count - done);
			continue;
		}
		if (write)
			write_locked(r, offset, get_le(data + done * size, size), size);
		else
			put_le(data + done * size, read_locked(r, offset, size), size);
		done++;
	}
	pthread_mutex_unlock(r->dev->lock);
	return done;
}

void map_exit_pio(struct board *b, uint16_t port, bool write, void *data, unsigned size, uint32_t count)
{
	uint8_t *p = data;

	if (count > 1) {
		struct region *r = find_port(b, port);

		if (r && r->desc->ops && port - r->base + size <= r->size) {
			string_run(r, port - r->base, write, p, size, count);
			return;
		}
	}
	for (uint32_t i = 0; i < count; i++, p += size) {
		if (write)
			map_pio_write(b, port, get_le(p, size), size);
		else
			put_le(p, map_pio_read(b, port, size), size);
	}
}

/* Memory behind a piece: used when KVM has no slot for it (no KVM, sub-page pieces, a slot being replaced). */
static void ram_access(const struct map_piece *p, uint64_t addr, bool write, void *data, unsigned len)
{
	struct region *r = p->region;
	uint64_t offset = r->ram_offset + (addr - r->base);

	if (!r->ram || offset + len > r->ram->size) {
		if (!write)
			memset(data, 0xff, len);
	} else if (!write) {
		memcpy(data, r->ram->host + offset, len);
	} else {
		memcpy(r->ram->host + offset, data, len);
		ram_block_mark_dirty(r->ram, offset, len);
	}
}

static void piece_access(const struct map_piece *p, uint64_t addr, bool write, uint8_t *data, unsigned len)
{
	struct region *r = p->region;

	if (r->kind == REGION_RAM || (r->kind == REGION_ROM && !write)) {
		ram_access(p, addr, write, data, len);
		return;
	}
	pthread_mutex_lock(r->dev->lock);
	while (len) {
		unsigned part = MIN(8u, 1u << (31 - __builtin_clz(len)));

		if (write)
			write_locked(r, addr - r->base, get_le(data, part), part);
		else
			put_le(data, read_locked(r, addr - r->base, part), part);
		addr += part;
		data += part;
		len -= part;
	}
	pthread_mutex_unlock(r->dev->lock);
}

static void mem_access(struct board *b, uint64_t addr, bool write, uint8_t *data, size_t len)
{
	const struct map_view *v = __atomic_load_n(&b->map.view, __ATOMIC_ACQUIRE);

	while (len) {
		const struct map_piece *p = find_piece(v, addr);
		size_t part = len;

		if (p) {
			part = MIN(part, p->end - addr);
			piece_access(p, addr, write, data, (unsigned)MIN(part, 1u << 30));
		} else {
			part = 1;
			if (!write)
				*data = 0xff;
		}
		addr += part;
		data += part;
		len -= part;
	}
}

void map_exit_mmio(struct board *b, uint64_t addr, bool write, void *data, unsigned len)
{
	mem_access(b, addr, write, data, len);
}

int map_mem_read(struct board *b, uint64_t addr, void *buf, size_t len)
{
	mem_access(b, addr, false, buf, len);
	return 0;
}

int map_mem_write(struct board *b, uint64_t addr, const void *buf, size_t len)
{
	mem_access(b, addr, true, (uint8_t *)(uintptr_t)buf, len);
	return 0;
}

void *map_ram_ptr(struct board *b, uint64_t addr, bool write, uint64_t *avail, struct ram_block **rb, uint64_t *rb_off)
{
	const struct map_piece *p;
	void *host = NULL;

	/* Plain RAM, away from the window of ROMs and VGA memory: no look-up needed. */
	if (addr >= MIB ? addr < b->ram_low : addr < 0xa0000) {
		*rb = b->ram;
		*rb_off = addr;
		*avail = (addr >= MIB ? b->ram_low : MIN(b->ram_low, 0xa0000ull)) - addr;
		return b->ram->host + addr;
	}
	if (addr >= 4 * GIB && addr - 4 * GIB < b->ram_high) {
		*rb = b->ram;
		*rb_off = addr - 4 * GIB + b->ram_low;
		*avail = b->ram_high - (addr - 4 * GIB);
		return b->ram->host + *rb_off;
	}
	pthread_mutex_lock(&b->map.lock);
	p = find_piece(b->map.view, addr);
	if (p && p->region->ram && (p->region->kind == REGION_RAM || (p->region->kind == REGION_ROM && !write))) {
		uint64_t off = p->region->ram_offset + (addr - p->region->base);

		if (off < p->region->ram->size) {
			*rb = p->region->ram;
			*rb_off = off;
			*avail = MIN(p->end - addr, p->region->ram->size - off);
			host = p->region->ram->host + off;
		}
	}
	pthread_mutex_unlock(&b->map.lock);
	return host;
}

bool map_is_mapped(struct board *b, uint64_t addr)
{
	bool found;

	pthread_mutex_lock(&b->map.lock);
	found = find_piece(b->map.view, addr) != NULL;
	pthread_mutex_unlock(&b->map.lock);
	return found;
}

struct grace_call {
	loop_post_fn *fn;
	void *arg;
};

static void grace_over(void *opaque)
{
	struct grace_call *c = opaque;

	loop_post(loop_main(), NULL, c->fn, c->arg);
	free(c);
}

void map_call_after_grace(struct board *b, loop_post_fn *fn, void *arg)
{
	struct grace_call *c = xzalloc(sizeof(*c));

	*c = (struct grace_call){.fn = fn, .arg = arg};
	if (b->kvm)
		kvm_call_after_grace(b->kvm, grace_over, c);
	else
		grace_over(c);
}

void map_forget(struct board *b, const struct region *r)
{
	struct map *m = &b->map;

	pthread_mutex_lock(&m->lock);
	for (unsigned i = 1; i < ARRAY_SIZE(m->pio_region); i++)
		if (m->pio_region[i] == r)
			__atomic_store_n(&m->pio_region[i], NULL, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&m->lock);
}

void map_print(struct board *b, FILE *out)
{
	static const char *const kinds[] = {"i/o", "ram", "rom"};

	pthread_mutex_lock(&b->map.lock);
	fprintf(out, "memory:\n");
	for (size_t i = 0; i < b->map.view->n; i++) {
		const struct map_piece *p = &b->map.view->piece[i];

		fprintf(out, "  %016llx-%016llx %s %s.%s\n", (unsigned long long)p->start,
			(unsigned long long)p->end - 1, kinds[p->region->kind], p->region->dev->id,
			p->region->desc->name);
	}
	fprintf(out, "ports:\n");
	for (unsigned port = 0; port < 65536; port++) {
		unsigned slot = b->map.pio_index[port], last = port;

		if (!slot)
			continue;
		while (last < 65535 && b->map.pio_index[last + 1] == slot)
			last++;
		fprintf(out, "  %04x-%04x %s.%s\n", port, last, b->map.pio_region[slot]->dev->id,
			b->map.pio_region[slot]->desc->name);
		port = last;
	}
	pthread_mutex_unlock(&b->map.lock);
}
