/*
 * A polling virtio 1.x driver for payloads: features, split queues of a few buffers, no interrupts.
 *
 * References: VIRTIO 1.2 sections 2.7 (split virtqueues), 3.1 (initialization), 4.1.4 (PCI).
 */
#ifndef PAYLOAD_VIRTIO_H
#define PAYLOAD_VIRTIO_H

#include "payload.h"

#define VIRTQ_SIZE     8
#define VIRTIO_QUEUES  6
#define VIRTQ_WRITABLE 2 /* flag of a buffer: for the device to write */
#define VIRTQ_NEXT     1

struct virtq_buffer {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct virtq {
	struct virtq_buffer desc[VIRTQ_SIZE];
	struct {
		uint16_t flags, idx, ring[VIRTQ_SIZE], used_event;
	} avail;
	struct {
		uint16_t flags, idx;
		struct {
			uint32_t id, len;
		} ring[VIRTQ_SIZE];
		uint16_t avail_event;
	} used __attribute__((aligned(4)));
	uint16_t seen;
} __attribute__((aligned(4096)));

struct virtio {
	volatile uint8_t *common, *config; /* config: the device's own; NULL: it has none */
	uint32_t notify, multiplier;
	uint64_t features;
	struct virtq q[VIRTIO_QUEUES];
};

enum { VIRTIO_ACKNOWLEDGE = 1, VIRTIO_DRIVER = 2, VIRTIO_DRIVER_OK = 4, VIRTIO_FEATURES_OK = 8 };
enum { VIRTIO_SELECT = 0, VIRTIO_OFFERED = 4, VIRTIO_SELECT_OURS = 8, VIRTIO_OURS = 12, VIRTIO_STATUS = 20 };
enum { VIRTQ_SELECT = 22, VIRTQ_LENGTH = 24, VIRTQ_ENABLE = 28, VIRTQ_AREAS = 32 };

static void virtio_write32(struct virtio *v, unsigned offset, uint32_t value)
{
	*(volatile uint32_t *)(v->common + offset) = value;
}

static void virtio_write16(struct virtio *v, unsigned offset, uint16_t value)
{
	*(volatile uint16_t *)(v->common + offset) = value;
}

/* Give the function's 64-bit BAR 4 this address and find the structures in it. false: no modern interface. */
static bool virtio_find(struct virtio *v, unsigned bdf, uint32_t bar)
{
	pci_write32(bdf, 0x20, bar);
	pci_write32(bdf, 0x24, 0);
	pci_write32(bdf, 4, pci_read32(bdf, 4) | 6);
	for (unsigned cap = pci_read32(bdf, 0x34) & 0xff; cap;) {
		uint32_t head = pci_read32(bdf, cap), where = bar + pci_read32(bdf, cap + 8);

		if ((head & 0xff) == 9 && head >> 24 == 1)
			v->common = (volatile uint8_t *)(uintptr_t)where;
		if ((head & 0xff) == 9 && head >> 24 == 4)
			v->config = (volatile uint8_t *)(uintptr_t)where;
		if ((head & 0xff) == 9 && head >> 24 == 2) {
			v->notify = where;
			v->multiplier = pci_read32(bdf, cap + 16);
		}
		cap = head >> 8 & 0xff;
	}
	return v->common && v->notify;
}

/* Reset it, take the features wanted that it offers, set up the first n queues. */
static bool virtio_start(struct virtio *v, uint64_t wanted, unsigned n)
{
	volatile uint8_t *status = v->common + VIRTIO_STATUS;

	*status = 0;
	while (*status)
		;
	*status = VIRTIO_ACKNOWLEDGE;
	*status |= VIRTIO_DRIVER;
	v->features = 0;
	for (unsigned half = 0; half < 2; half++) {
		virtio_write32(v, VIRTIO_SELECT, half);
		uint32_t bits = *(volatile uint32_t *)(v->common + VIRTIO_OFFERED) & (uint32_t)(wanted >> 32 * half);
		virtio_write32(v, VIRTIO_SELECT_OURS, half);
		virtio_write32(v, VIRTIO_OURS, bits);
		v->features |= (uint64_t)bits << 32 * half;
	}
	*status |= VIRTIO_FEATURES_OK;
	if (!(*status & VIRTIO_FEATURES_OK))
		return false;
	for (unsigned i = 0; i < n; i++) {
		struct virtq *q = &v->q[i];
		uint64_t areas[3] = {(uintptr_t)q->desc, (uintptr_t)&q->avail, (uintptr_t)&q->used};

		q->avail.flags = 1;
		q->avail.idx = q->used.idx = q->seen = 0;
		virtio_write16(v, VIRTQ_SELECT, (uint16_t)i);
		virtio_write16(v, VIRTQ_LENGTH, VIRTQ_SIZE);
		for (unsigned a = 0; a < 3; a++) {
			virtio_write32(v, VIRTQ_AREAS + 8 * a, (uint32_t)areas[a]);
			virtio_write32(v, VIRTQ_AREAS + 8 * a + 4, (uint32_t)(areas[a] >> 32));
		}
		virtio_write16(v, VIRTQ_ENABLE, 1);
	}
	*status |= VIRTIO_DRIVER_OK;
	return true;
}

/* Hand out a chain of pieces at the first descriptor given; of these the caller keeps count. */
static void virtio_put(struct virtio *v, unsigned n, unsigned first, const struct virtq_buffer *pieces, unsigned count)
{
	struct virtq *q = &v->q[n];

	for (unsigned i = 0; i < count; i++) {
		q->desc[first + i] = pieces[i];
		q->desc[first + i].next = (uint16_t)(first + i + 1);
		if (i + 1 < count)
			q->desc[first + i].flags |= VIRTQ_NEXT;
	}
	q->avail.ring[q->avail.idx % VIRTQ_SIZE] = (uint16_t)first;
	__sync_synchronize();
	*(volatile uint16_t *)&q->avail.idx = (uint16_t)(q->avail.idx + 1);
	__sync_synchronize();
	virtio_write16(v, VIRTQ_SELECT, (uint16_t)n);
	uint16_t offset = *(volatile uint16_t *)(v->common + 30);
	*(volatile uint16_t *)(uintptr_t)(v->notify + offset * v->multiplier) = (uint16_t)n;
}

/* The first descriptor of a chain that came back, or -1. */
static int virtio_get(struct virtio *v, unsigned n)
{
	struct virtq *q = &v->q[n];

	if (*(volatile uint16_t *)&q->used.idx == q->seen)
		return -1;
	barrier();
	return (int)q->used.ring[q->seen++ % VIRTQ_SIZE].id;
}

/* Hand out a chain and wait for it. For queues that have nothing else under way. */
static void virtio_do(struct virtio *v, unsigned n, const struct virtq_buffer *pieces, unsigned count)
{
	virtio_put(v, n, 0, pieces, count);
	while (virtio_get(v, n) < 0)
		__asm__ volatile("pause");
}

#endif
