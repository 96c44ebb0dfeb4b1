/*
 * Split virtqueues: VIRTIO 1.2 section 2.7. The driver's three areas are read and written with dma_*() only; what came
 * from there is copied first and checked before use.
 *
 *   descriptors  { le64 addr; le32 len; le16 flags; le16 next; } [size]
 *   available    le16 flags; le16 idx; le16 ring[size]; le16 used_event;
 *   used         le16 flags; le16 idx; { le32 id; le32 len; } ring[size]; le16 avail_event;
 */
#include "virtio.h"

#include <errno.h>
#include <stdlib.h>

#define DESC_SIZE     16
#define DESC_NEXT     1
#define DESC_WRITE    2
#define DESC_INDIRECT 4

#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY     1

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

/* ---- the driver's memory ---- */

static bool load16(struct virtq *vq, uint64_t addr, uint16_t *value)
{
	uint8_t raw[2];

	if (dma_read(&vq->v->dev, addr, raw, sizeof(raw))) {
		virtio_fail(vq->v, "queue %u: its ring at 0x%llx is not in RAM", vq->index, (unsigned long long)addr);
		return false;
	}
	*value = get_le16(raw);
	return true;
}

static bool store(struct virtq *vq, uint64_t addr, const void *raw, size_t len)
{
	if (dma_write(&vq->v->dev, addr, raw, len)) {
		virtio_fail(vq->v, "queue %u: its ring at 0x%llx is not in RAM", vq->index, (unsigned long long)addr);
		return false;
	}
	return true;
}

static bool store16(struct virtq *vq, uint64_t addr, uint16_t value)
{
	uint8_t raw[2];

	put_le16(raw, value);
	return store(vq, addr, raw, sizeof(raw));
}

static uint64_t avail_idx_addr(const struct virtq *vq)
{
	return vq->avail + 2;
}

static uint64_t used_event_addr(const struct virtq *vq)
{
	return vq->avail + 4 + 2 * (uint64_t)vq->size;
}

static uint64_t avail_event_addr(const struct virtq *vq)
{
	return vq->used + 4 + 8 * (uint64_t)vq->size;
}

static bool load_desc(struct virtq *vq, uint64_t table, uint32_t n, struct desc *d)
{
	uint8_t raw[DESC_SIZE];

	if (dma_read(&vq->v->dev, table + (uint64_t)n * DESC_SIZE, raw, sizeof(raw))) {
		virtio_fail(vq->v, "queue %u: descriptor %u at 0x%llx is not in RAM", vq->index, n,
			    (unsigned long long)table);
		return false;
	}
	*d = (struct desc){get_le64(raw), get_le32(raw + 8), get_le16(raw + 12), get_le16(raw + 14)};
	return true;
}

/* ---- set-up ---- */

void virtq_init(struct virtq *vq, uint16_t size, void (*run)(struct virtq *vq))
{
	vq->max = size;
	vq->run = run;
	virtq_reset(vq);
}

void virtq_reset(struct virtq *vq)
{
	vq->size = vq->max;
	vq->vector = VIRTIO_NO_VECTOR;
	vq->ready = vq->signalled = vq->quiet = vq->news = false;
	vq->desc = vq->avail = vq->used = 0;
	vq->last_avail = vq->used_idx = vq->signalled_used = vq->seen_avail = 0;
}

/* It may be looked at: memory can be reached, and the driver has set it up. Before virtio 1.0 drivers fill and ring
   queues before they say DRIVER_OK (Linux did until 4.0). */
static bool usable(const struct virtq *vq)
{
	const struct virtio *v = vq->v;

	return vq->ready && !v->broken && !v->paused && pci_bus_master(&v->dev) && (!v->modern || virtio_running(v));
}

void virtq_run(struct virtq *vq)
{
	if (!usable(vq))
		return;
	vq->budget = vq->size;
	vq->in_run = true;
	vq->run(vq);
	vq->in_run = false;
}

void virtq_schedule(struct virtq *vq)
{
	__atomic_fetch_or(&vq->v->to_run, BIT64(vq->index), __ATOMIC_RELEASE);
	bh_schedule(&vq->v->run_bh);
}

/* ---- taking chains ---- */

/* How many chains are waiting; a fault counts as none. */
static uint16_t waiting(struct virtq *vq)
{
	uint16_t n;

	if (vq->seen_avail == vq->last_avail) {
		/* 2.7.7.2: have the driver ring for the next one, then look whether it has just been added. */
		if (virtio_has(vq->v, VIRTIO_F_EVENT_IDX) && !vq->quiet) {
			if (!store16(vq, avail_event_addr(vq), vq->last_avail))
				return 0;
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
		}
		if (!load16(vq, avail_idx_addr(vq), &vq->seen_avail))
			return 0;
	}
	n = (uint16_t)(vq->seen_avail - vq->last_avail);
	if (n > vq->size) {
		virtio_fail(vq->v, "queue %u: available index %u is %u ahead of %u entries", vq->index, vq->seen_avail,
			    n, vq->size);
		return 0;
	}
	/* Entries and descriptors are read after the index that announces them. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return n;
}

bool virtq_empty(struct virtq *vq)
{
	return !usable(vq) || !waiting(vq);
}

/* A chain under construction. */
struct walk {
	uint64_t table;
	uint32_t entries, next;
	bool indirect;
	uint32_t steps;
	unsigned n_out, n_in;
	uint64_t out_len, in_len;
	struct virtq_seg seg[VIRTQ_MAX_SEGS];
};

static bool enter_indirect(struct virtq *vq, struct walk *w, const struct desc *d)
{
	const char *fault = NULL;

	if (!virtio_has(vq->v, VIRTIO_F_INDIRECT_DESC))
		fault = "an indirect descriptor was not negotiated";
	else if (w->indirect)
		fault = "an indirect table inside an indirect table";
	else if (d->flags & DESC_NEXT)
		fault = "an indirect descriptor with a next one"; /* 2.7.5.3.1 */
	else if (!d->len || d->len % DESC_SIZE || d->len / DESC_SIZE > 65536)
		fault = "an indirect table of impossible length";
	if (fault) {
		virtio_fail(vq->v, "queue %u: %s", vq->index, fault);
		return false;
	}
	w->table = d->addr;
	w->entries = d->len / DESC_SIZE;
	w->next = 0;
	w->indirect = true;
	w->steps = 0;
	return true;
}

static bool add_segment(struct virtq *vq, struct walk *w, const struct desc *d)
{
	bool in = d->flags & DESC_WRITE;

	if (!in && w->n_in) {
		virtio_fail(vq->v, "queue %u: a readable descriptor behind a writable one", vq->index);
		return false;
	}
	if (w->n_out + w->n_in == VIRTQ_MAX_SEGS) {
		virtio_fail(vq->v, "queue %u: a chain of more than %u descriptors", vq->index, VIRTQ_MAX_SEGS);
		return false;
	}
	w->seg[w->n_out + w->n_in] = (struct virtq_seg){d->addr, d->len};
	*(in ? &w->n_in : &w->n_out) += 1;
	*(in ? &w->in_len : &w->out_len) += d->len;
	if (w->in_len > UINT32_MAX || w->out_len > UINT32_MAX) {
		virtio_fail(vq->v, "queue %u: a chain of 4 GiB or more", vq->index);
		return false;
	}
	return true;
}

/* Follow the chain from its head. Every table is left after at most as many steps as it has entries. */
static bool walk_chain(struct virtq *vq, struct walk *w)
{
	struct desc d;

	for (;;) {
		if (w->next >= w->entries || w->steps++ == w->entries) {
			virtio_fail(vq->v, "queue %u: a chain that %s", vq->index,
				    w->next >= w->entries ? "leaves its table" : "does not end");
			return false;
		}
		if (!load_desc(vq, w->table, w->next, &d))
			return false;
		if (d.flags & DESC_INDIRECT) {
			if (!enter_indirect(vq, w, &d))
				return false;
			continue;
		}
		if (d.len && !add_segment(vq, w, &d))
			return false;
		if (!(d.flags & DESC_NEXT))
			return true;
		w->next = d.next;
	}
}

struct virtq_elem *virtq_pop(struct virtq *vq)
{
	struct walk w;
	struct virtq_elem *el;
	uint16_t head;

	if (!usable(vq))
		return NULL;
	if (vq->in_run && !vq->budget) {
		virtq_schedule(vq);
		return NULL;
	}
	if (!waiting(vq) || !load16(vq, vq->avail + 4 + 2 * (uint64_t)(vq->last_avail % vq->size), &head))
		return NULL;
	w.table = vq->desc;
	w.entries = vq->size;
	w.next = head;
	w.indirect = false;
	w.steps = w.n_out = w.n_in = 0;
	w.out_len = w.in_len = 0;
	if (!walk_chain(vq, &w))
		return NULL;
	el = xzalloc(sizeof(*el) + (w.n_out + w.n_in) * sizeof(el->seg[0]));
	el->vq = vq;
	el->epoch = vq->v->epoch;
	el->head = head;
	el->n_out = (uint16_t)w.n_out;
	el->n_in = (uint16_t)w.n_in;
	el->out_len = (uint32_t)w.out_len;
	el->in_len = (uint32_t)w.in_len;
	memcpy(el->seg, w.seg, (w.n_out + w.n_in) * sizeof(el->seg[0]));
	vq->last_avail++;
	vq->v->popped++;
	if (vq->in_run)
		vq->budget--;
	return el;
}

/* ---- giving them back ---- */

static void release(struct virtq_elem *el)
{
	struct virtio *v = el->vq->v;

	free(el);
	virtq_chain_gone(v);
}

void virtq_drop(struct virtq_elem *el)
{
	release(el);
}

void virtq_unpop(struct virtq_elem *el)
{
	if (el->epoch == el->vq->v->epoch)
		el->vq->last_avail--;
	release(el);
}

void virtq_push(struct virtq_elem *el, uint32_t written)
{
	struct virtq *vq = el->vq;
	uint8_t entry[8];

	if (el->epoch == vq->v->epoch && vq->ready && !vq->v->broken) {
		put_le32(entry, el->head);
		put_le32(entry + 4, written);
		if (store(vq, vq->used + 4 + 8 * (uint64_t)(vq->used_idx % vq->size), entry, sizeof(entry))) {
			vq->used_idx++;
			/* Data and entry are visible before the index that announces them. */
			__atomic_thread_fence(__ATOMIC_RELEASE);
			store16(vq, vq->used + 2, vq->used_idx);
			vq->news = true;
		}
	}
	release(el);
}

/* 2.7.10: did the index pass event while going from old to now? */
static bool passed(uint16_t event, uint16_t now, uint16_t old)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

static bool wants_interrupt(struct virtq *vq)
{
	uint16_t flags, event, old = vq->signalled_used;
	bool first = !vq->signalled;

	if (virtio_has(vq->v, VIRTIO_F_EVENT_IDX)) {
		vq->signalled = true;
		vq->signalled_used = vq->used_idx;
		if (!load16(vq, used_event_addr(vq), &event))
			return false;
		return first || passed(event, vq->used_idx, old);
	}
	return load16(vq, vq->avail, &flags) && !(flags & AVAIL_NO_INTERRUPT);
}

void virtq_notify(struct virtq *vq)
{
	struct virtio *v = vq->v;

	if (!vq->news || !vq->ready || v->broken)
		return;
	vq->news = false;
	/* Our index is visible before we look whether the driver still wants to hear of it. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (wants_interrupt(vq) ||
	    (virtio_has(v, VIRTIO_F_NOTIFY_ON_EMPTY) && !v->popped && !v->broken && virtq_empty(vq)))
		virtio_pci_interrupt(v, 1, vq->vector);
}

void virtq_want_rings(struct virtq *vq, bool on)
{
	if (!usable(vq) || vq->quiet == !on)
		return;
	vq->quiet = !on;
	if (virtio_has(vq->v, VIRTIO_F_EVENT_IDX)) {
		if (on)
			store16(vq, avail_event_addr(vq), vq->last_avail);
	} else {
		store16(vq, vq->used, on ? 0 : USED_NO_NOTIFY);
	}
	if (on)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* ---- contents ---- */

/* Call dma on each piece of [offset, offset + len) of a part; returns bytes done. */
static size_t copy(const struct virtq_elem *el, bool in, size_t offset, uint8_t *buf, size_t len)
{
	struct device *dev = &el->vq->v->dev;
	const struct virtq_seg *seg = in ? el->seg + el->n_out : el->seg;
	unsigned n = in ? el->n_in : el->n_out;
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		size_t part;

		if (offset >= seg[i].len) {
			offset -= seg[i].len;
			continue;
		}
		part = MIN(seg[i].len - offset, len - done);
		if (in ? dma_write(dev, seg[i].addr + offset, buf + done, part)
		       : dma_read(dev, seg[i].addr + offset, buf + done, part))
			break;
		done += part;
		offset = 0;
	}
	return done;
}

size_t virtq_read(const struct virtq_elem *el, size_t offset, void *buf, size_t len)
{
	return copy(el, false, offset, buf, len);
}

size_t virtq_write(const struct virtq_elem *el, size_t offset, const void *buf, size_t len)
{
	return copy(el, true, offset, (uint8_t *)(uintptr_t)buf, len);
}

int virtq_map(const struct virtq_elem *el, enum dma_dir dir, size_t offset, size_t len, struct iovec *iov, int max)
{
	bool in = dir == DMA_FROM_DEVICE;
	const struct virtq_seg *seg = in ? el->seg + el->n_out : el->seg;
	unsigned n = in ? el->n_in : el->n_out;
	int used = 0;

	for (unsigned i = 0; i < n && len; i++) {
		size_t part;
		int r;

		if (offset >= seg[i].len) {
			offset -= seg[i].len;
			continue;
		}
		part = MIN(seg[i].len - offset, len);
		r = used < max ? dma_map(&el->vq->v->dev, seg[i].addr + offset, part, dir, iov + used, max - used)
			       : -E2BIG;
		if (r < 0)
			return r;
		used += r;
		len -= part;
		offset = 0;
	}
	return len ? -EFAULT : used;
}

/* ---- state ---- */

/* Sizes and addresses only steer dma_*(), which checks; the indices are compared with what the driver wrote. */
static int post_load(void *obj, uint16_t version, struct err *e)
{
	struct virtq *vq = obj;

	if (!vq->size ? vq->max != 0 : (vq->size > vq->max || (vq->size & (vq->size - 1))))
		return err_set(e, ERANGE, "a virtio queue of %u entries; this device's has at most %u", vq->size,
			       vq->max);
	vq->seen_avail = vq->last_avail;
	vq->news = false;
	return 0;
}

static const struct state_field fields[] = {
	STATE_U(struct virtq, size),       STATE_U(struct virtq, vector),   STATE_B(struct virtq, ready),
	STATE_U(struct virtq, desc),       STATE_U(struct virtq, avail),    STATE_U(struct virtq, used),
	STATE_U(struct virtq, last_avail), STATE_U(struct virtq, used_idx), STATE_U(struct virtq, signalled_used),
	STATE_B(struct virtq, signalled),  STATE_B(struct virtq, quiet),    STATE_FIELDS_END,
};

const struct state_table virtq_state = {
	.name = "virtq", .version = 1, .oldest = 1, .fields = fields, .post_load = post_load};
