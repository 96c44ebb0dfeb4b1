/*
 * Packets as fast as they go, through virtio-net in poll mode: no interrupts, doorbells as the device asks
 * for them (event index), one per batch at most. For tests/bench/net.py.
 *
 *   mode=tx|rx    as a number: 0 sends, 1 receives
 *   size=N        bytes of a frame that is sent, without header
 *   gso=N         sends TCP/IPv4 to be segmented into N bytes each
 *   count=N       packets that are measured
 *   warm=N        packets before that
 *   buffer=N      receive: bytes of a buffer; they are merged
 *   batch=N       packets per doorbell at most
 *
 * Says "ready", measures, says "PASS netload packets=.. bytes=.. ticks=.. bells=..". Received frames that do
 * not have the test's Ethernet type are not counted. References: VIRTIO 1.2 sections 2.7, 4.1.4, 5.1.6.
 */
#include "payload.h"

#define RING      256
#define BAR       0xe0000000u
#define TEST_TYPE 0x88b5 /* IEEE 802 local experimental */
#define HEADER    12

enum {
	F_CSUM = 0,
	F_MAC = 5,
	F_HOST_TSO4 = 11,
	F_GUEST_CSUM = 1,
	F_GUEST_TSO4 = 7,
	F_MRG_RXBUF = 15,
	F_EVENT_IDX = 29
};

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct queue {
	struct desc desc[RING];
	struct {
		uint16_t flags, idx, ring[RING], used_event;
	} avail;
	struct {
		uint16_t flags, idx;
		struct {
			uint32_t id, len;
		} ring[RING];
		uint16_t avail_event;
	} used __attribute__((aligned(4096)));
	uint16_t added, told, seen;
};

static struct queue queues[2] __attribute__((aligned(4096)));
static volatile uint8_t *common;
static volatile uint16_t *bell[2];
static uint64_t bells;

static void write32(unsigned offset, uint32_t v)
{
	*(volatile uint32_t *)(common + offset) = v;
}

static void write16(unsigned offset, uint16_t v)
{
	*(volatile uint16_t *)(common + offset) = v;
}

static void fail(const char *why)
{
	put_string("FAIL netload ");
	put_string(why);
	put_string("\n");
	payload_exit(1);
}

/* Where the structures are that a driver needs (4.1.4). */
static void find(int bdf)
{
	uint32_t bar = pci_read32((unsigned)bdf, 0x20), multiplier = 0, notify = 0;

	if (!(bar & ~15u) || pci_read32((unsigned)bdf, 0x24)) {
		pci_write32((unsigned)bdf, 0x20, BAR);
		pci_write32((unsigned)bdf, 0x24, 0);
	}
	pci_write32((unsigned)bdf, 4, pci_read32((unsigned)bdf, 4) | 6);
	bar = pci_read32((unsigned)bdf, 0x20) & ~15u;
	for (unsigned cap = pci_read32((unsigned)bdf, 0x34) & 0xff; cap;) {
		uint32_t head = pci_read32((unsigned)bdf, cap), where = bar + pci_read32((unsigned)bdf, cap + 8);

		if ((head & 0xff) == 9 && head >> 24 == 1) {
			common = (volatile uint8_t *)(uintptr_t)where;
		} else if ((head & 0xff) == 9 && head >> 24 == 2) {
			notify = where;
			multiplier = pci_read32((unsigned)bdf, cap + 16);
		}
		cap = head >> 8 & 0xff;
	}
	if (!common || !notify)
		fail("no modern interface");
	for (unsigned q = 0; q < 2; q++)
		bell[q] = (volatile uint16_t *)(uintptr_t)(notify + q * multiplier);
}

static void start(bool gso)
{
	uint64_t want = 1ull << 32 | 1ull << F_EVENT_IDX | 1u << F_MRG_RXBUF | 1u << F_MAC, offered;

	if (gso)
		want |= 1u << F_CSUM | 1u << F_HOST_TSO4 | 1u << F_GUEST_CSUM | 1u << F_GUEST_TSO4;
	common[20] = 0;
	while (common[20])
		;
	common[20] = 1;
	common[20] = 3;
	write32(0, 1);
	offered = (uint64_t) * (volatile uint32_t *)(common + 4) << 32;
	write32(0, 0);
	offered |= *(volatile uint32_t *)(common + 4);
	if (want & ~offered)
		fail("a feature is missing");
	for (unsigned half = 0; half < 2; half++) {
		write32(8, half);
		write32(12, (uint32_t)(want >> (32 * half)));
	}
	common[20] = 11;
	if (!(common[20] & 8))
		fail("features are refused");
	for (unsigned q = 0; q < 2; q++) {
		uint64_t areas[3] = {(uintptr_t)queues[q].desc, (uintptr_t)&queues[q].avail,
				     (uintptr_t)&queues[q].used};

		queues[q].avail.flags = 1;
		queues[q].avail.used_event = 0x8000; /* never reached in time to matter */
		write16(22, (uint16_t)q);
		write16(24, RING);
		for (unsigned i = 0; i < 3; i++) {
			write32(32 + 8 * i, (uint32_t)areas[i]);
			write32(36 + 8 * i, (uint32_t)(areas[i] >> 32));
		}
		write16(28, 1);
	}
	common[20] = 15;
}

static void add(struct queue *q, uint16_t id)
{
	q->avail.ring[q->added++ % RING] = id;
}

static void tell(unsigned n)
{
	struct queue *q = &queues[n];
	uint16_t old = q->told;

	if (old == q->added)
		return;
	q->avail.used_event = (uint16_t)(q->seen + 0x8000);
	barrier();
	*(volatile uint16_t *)&q->avail.idx = q->told = q->added;
	__sync_synchronize();
	/* 2.7.10 */
	if ((uint16_t)(q->added - *(volatile uint16_t *)&q->used.avail_event - 1) < (uint16_t)(q->added - old)) {
		*bell[n] = (uint16_t)n;
		bells++;
	}
}

static uint16_t done(const struct queue *q)
{
	return (uint16_t)(*(const volatile uint16_t *)&q->used.idx - q->seen);
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* A frame to nobody: of the test's type, or TCP/IPv4 with everything a host looks at before it cuts it into
 * segments.
 */
static void make_frame(uint8_t *p, uint64_t size, uint64_t gso)
{
	uint8_t *f = p + HEADER;

	for (unsigned i = 0; i < HEADER; i++)
		p[i] = 0;
	for (uint64_t i = 0; i < size; i++)
		f[i] = (uint8_t)i;
	for (unsigned i = 0; i < 12; i++)
		f[i] = "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01"[i];
	put16(f + 12, gso ? 0x0800 : TEST_TYPE);
	if (!gso)
		return;
	for (unsigned i = 0; i < 40; i++)
		f[14 + i] = 0;
	f[14] = 0x45;
	put16(f + 16, (unsigned)(size - 14));
	f[22] = 64;
	f[23] = 6;
	f[26] = f[30] = 10;
	f[29] = 1;
	f[33] = 2;
	put16(f + 34, 1000);
	put16(f + 36, 2000);
	f[46] = 0x50;
	f[47] = 0x10;
	p[0] = 1; /* NEEDS_CSUM */
	p[1] = 1; /* TCPV4 */
	p[2] = 54;
	p[4] = (uint8_t)gso;
	p[5] = (uint8_t)(gso >> 8);
	p[6] = 34;
	p[8] = 16;
}

static void result(uint64_t packets, uint64_t bytes, uint64_t ticks)
{
	put_string("PASS netload packets=");
	put_dec(packets);
	put_string(" bytes=");
	put_dec(bytes);
	put_string(" ticks=");
	put_dec(ticks);
	put_string(" bells=");
	put_dec(bells);
	put_string("\n");
}

static void transmit(uint8_t *memory, uint64_t warm, uint64_t count)
{
	uint64_t size = option("size", 64), gso = option("gso", 0), batch = option("batch", 32), sent = 0, begin = 0;
	uint64_t stride = (HEADER + size + 63) & ~63ull;
	struct queue *q = &queues[1];

	for (unsigned i = 0; i < RING; i++) {
		make_frame(memory + i * stride, size, gso);
		q->desc[i] = (struct desc){(uintptr_t)memory + i * stride, (uint32_t)(HEADER + size), 0, 0};
		add(q, (uint16_t)i);
		if (i % batch == batch - 1)
			tell(1);
	}
	while (sent < warm + count) {
		uint16_t n = done(q);

		if (n < batch)
			continue;
		for (unsigned i = 0; i < n; i++)
			add(q, (uint16_t)q->used.ring[q->seen++ % RING].id);
		if (sent < warm && sent + n >= warm) {
			begin = rdtsc();
			warm = sent + n;
			bells = 0;
		}
		sent += n;
		tell(1);
	}
	result(sent - warm, (sent - warm) * size, rdtsc() - begin);
}

static void receive(uint8_t *memory, uint64_t warm, uint64_t count)
{
	uint64_t buffer = option("buffer", 1536), batch = option("batch", 32), got = 0, bytes = 0, begin = 0;
	unsigned rest = 0; /* buffers of a packet that has begun */
	bool counts = false;
	struct queue *q = &queues[0];

	for (unsigned i = 0; i < RING; i++) {
		q->desc[i] = (struct desc){(uintptr_t)memory + i * buffer, (uint32_t)buffer, 2, 0};
		add(q, (uint16_t)i);
	}
	tell(0);
	while (got < warm + count) {
		uint16_t n = done(q);

		for (; n; n--) {
			uint32_t id = q->used.ring[q->seen % RING].id, len = q->used.ring[q->seen % RING].len;
			const uint8_t *p = memory + id * buffer;

			q->seen++;
			if (rest) {
				rest--;
			} else {
				uint16_t type = (uint16_t)(p[HEADER + 12] << 8 | p[HEADER + 13]);

				rest = (unsigned)(p[10] | p[11] << 8) - 1;
				counts = type == TEST_TYPE || p[1];
				len -= HEADER;
				got += counts;
				if (counts && got == warm) {
					begin = rdtsc();
					bytes = bells = 0;
				}
			}
			if (counts && got > warm)
				bytes += len;
			add(q, (uint16_t)id);
			if ((uint16_t)(q->added - q->told) >= batch)
				tell(0);
		}
	}
	result(got - warm, bytes, rdtsc() - begin);
}

int payload_main(void)
{
	uint8_t *memory = (uint8_t *)((free_ram() + 0xfffff) & ~0xfffffull);
	uint64_t count = option("count", 100000), warm = option("warm", count / 10 + 1), gso = option("gso", 0);
	int bdf = pci_find(0x1af4, 0x1000, 0);

	if (bdf < 0)
		fail("no card");
	find(bdf);
	start(gso);
	put_string("ready\n");
	(option("mode", 0) ? receive : transmit)(memory, warm, count);
	common[20] = 0;
	return 0;
}
