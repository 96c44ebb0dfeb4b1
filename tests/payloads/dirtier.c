/*
 * Dirty memory at a steady rate: the guest of migration tests and benchmarks.
 *
 * Command line: start=ADDRESS (default 64M) size=BYTES (default 64M) rate=PAGES/S (default as fast
 * as possible) tsc=HZ (TSC frequency, needed with rate).  Writes one word of every page of the
 * range, round after round; word 0 of each page is the round's number, word 1 and the last one the
 * page's own index ^ round, so that a page that was lost, stale, torn or swapped shows.  Every
 * page's predecessor value is checked before it is overwritten: a mismatch prints "FAIL page".
 * fill=BYTES: as much behind that range is written once and left alone.
 *
 * cpus=2: the second processor has the upper half of the range, with rounds of its own; the rate
 * is shared; idle2=1: it writes to one page only.  disk=1: after each round one of the first eight sectors of the
 * primary master (blank at first) is read, must hold what the last round but seven left there, and is written.
 *
 * Prints "ready", then "round N" after each of the first processor's; any received character makes it check all
 * pages (and sectors) once and print "PASS dirtier rounds=N gap=TICKS": the longest time between two pages of
 * either processor, in TSC ticks, since it was last asked; with cpus=2 also second=N, the second one's rounds.
 * quiet=1: rounds are not printed.  halt=1: halt once all pages are written, for an
 * idle guest that takes no processor time.
 */
#include "payload.h"

#define SECTORS 8

/* A processor's part of the range. What the other one reads is volatile. */
struct part {
	uint64_t start, first, pages; /* address of the range; index of the first page */
	uint64_t ticks;               /* for a batch of pages; 0: no limit */
	volatile uint64_t round, gap;
	volatile uint64_t bad;     /* index + 1 of a page that was wrong */
	volatile bool wait, waits; /* stand still between two rounds; it does */
};
static struct part part[2];

static const uint64_t batch = 256;

static uint64_t mark_of(uint64_t index, uint64_t round)
{
	return index ^ round * 0x9e3779b97f4a7c15ull;
}

static bool good(const struct part *p, uint64_t i, uint64_t round)
{
	volatile uint64_t *page = (uint64_t *)(p->start + i * 4096);
	uint64_t mark = mark_of(i, round);
	return page[0] == round && page[1] == mark && page[511] == mark;
}

static int fail(const struct part *p, uint64_t i, uint64_t round)
{
	volatile uint64_t *page = (uint64_t *)(p->start + i * 4096);
	put_string("FAIL page ");
	put_dec(i);
	put_string(" holds round ");
	put_dec(page[0]);
	put_string(" instead of ");
	put_dec(round);
	put_string(page[1] == page[511] ? " whole" : " torn");
	put_string("\n");
	return 0x11;
}

static void wait_until(uint64_t when)
{
	while ((int64_t)(rdtsc() - when) < 0)
		__asm__ volatile("pause");
}

static __attribute__((noreturn)) long halt(long a, long b)
{
	(void)a;
	(void)b;
	for (;;)
		__asm__ volatile("cli; hlt");
}

/* One round over the part's pages; false: one was wrong (p->bad). */
static bool dirty_round(struct part *p, uint64_t *next)
{
	uint64_t round = p->round + 1, last = rdtsc();

	for (uint64_t i = p->first; i < p->first + p->pages; i++) {
		volatile uint64_t *page = (uint64_t *)(p->start + i * 4096);
		if (!good(p, i, round - 1)) {
			p->bad = i + 1;
			return false;
		}
		uint64_t now = rdtsc();
		if (now - last > p->gap)
			p->gap = now - last;
		last = now;
		page[0] = round;
		page[1] = mark_of(i, round);
		page[511] = mark_of(i, round);
		if (p->ticks && i % batch == batch - 1)
			wait_until(*next += p->ticks);
	}
	p->round = round;
	return true;
}

static void second(void *arg)
{
	struct part *p = arg;
	uint64_t next = rdtsc();

	while (dirty_round(p, &next)) {
		while (p->wait) {
			p->waits = true;
			next = rdtsc();
		}
		p->waits = false;
	}
	for (;;)
		__asm__ volatile("pause");
}

/* ---- the disk ---- */

enum { ATA_DATA = 0x1f0, ATA_COUNT = 0x1f2, ATA_LBA = 0x1f3, ATA_DEVICE = 0x1f6, ATA_COMMAND = 0x1f7 };
enum { ATA_READ = 0x20, ATA_WRITE = 0x30, ATA_BUSY = 0x80, ATA_DRQ = 0x08, ATA_BAD = 0x21 };

static bool ata_wait(uint8_t wanted)
{
	uint8_t status;
	do
		status = inb(ATA_COMMAND);
	while (status & ATA_BUSY || (!(status & ATA_BAD) && (status & wanted) != wanted));
	return !(status & ATA_BAD);
}

static bool ata(uint8_t command, unsigned sector, uint64_t data[64])
{
	outb(ATA_DEVICE, 0xe0);
	outb(ATA_COUNT, 1);
	outb(ATA_LBA, sector);
	outb(ATA_LBA + 1, 0);
	outb(ATA_LBA + 2, 0);
	outb(ATA_COMMAND, command);
	if (!ata_wait(ATA_DRQ))
		return false;
	uint16_t *p = (uint16_t *)data;
	for (unsigned i = 0; i < 256; i++)
		if (command == ATA_READ)
			p[i] = inw(ATA_DATA);
		else
			outw(ATA_DATA, p[i]);
	return ata_wait(0);
}

static uint64_t sector_round[SECTORS];

static bool sector_good(unsigned n)
{
	static uint64_t data[64];
	uint64_t round = sector_round[n];

	if (!ata(ATA_READ, n, data)) {
		put_string("FAIL disk: cannot read\n");
		return false;
	}
	for (unsigned i = 0; i < 64; i++)
		if (data[i] != (round ? mark_of(i, round) : 0)) {
			put_string("FAIL disk: sector ");
			put_dec(n);
			put_string(" does not hold round ");
			put_dec(round);
			put_string("\n");
			return false;
		}
	return true;
}

static bool disk_round(uint64_t round)
{
	static uint64_t data[64];
	unsigned n = round % SECTORS;

	if (!sector_good(n))
		return false;
	for (unsigned i = 0; i < 64; i++)
		data[i] = mark_of(i, round);
	if (!ata(ATA_WRITE, n, data)) {
		put_string("FAIL disk: cannot write\n");
		return false;
	}
	sector_round[n] = round;
	return true;
}

/* ---- all of it ---- */

static int check_all(unsigned cpus, bool disk)
{
	uint64_t gap = part[0].gap;

	if (cpus > 1) {
		part[1].wait = true;
		while (!part[1].waits && !part[1].bad)
			__asm__ volatile("pause");
		if (part[1].gap > gap)
			gap = part[1].gap;
	}
	for (unsigned n = 0; n < cpus; n++) {
		if (part[n].bad)
			return fail(&part[n], part[n].bad - 1, part[n].round);
		for (uint64_t i = part[n].first; i < part[n].first + part[n].pages; i++)
			if (!good(&part[n], i, part[n].round))
				return fail(&part[n], i, part[n].round);
	}
	for (unsigned i = 0; disk && i < SECTORS; i++)
		if (!sector_good(i))
			return 0x11;
	put_string("PASS dirtier rounds=");
	put_dec(part[0].round);
	put_string(" gap=");
	put_dec(gap);
	if (cpus > 1) {
		put_string(" second=");
		put_dec(part[1].round);
	}
	put_string("\n");
	part[0].gap = part[1].gap = 0;
	part[1].wait = false;
	while (part[1].waits) /* it goes on before we do: at least one round of its own between two checks */
		__asm__ volatile("pause");
	return 0;
}

int payload_main(void)
{
	uint64_t start = option("start", 64 << 20), size = option("size", 64 << 20);
	uint64_t rate = option("rate", 0), tsc = option("tsc", 0), pages = size / 4096;
	unsigned cpus = option("cpus", 1) > 1 ? 2 : 1;
	bool disk = option("disk", 0), quiet = option("quiet", 0);

	if (start + size > 4ull << 30)
		map_high(60);
	for (uint64_t i = 0; i < pages; i++) {
		volatile uint64_t *page = (uint64_t *)(start + i * 4096);
		page[0] = 0;
		page[1] = i;
		page[511] = i;
	}
	for (uint64_t i = 0; i < option("fill", 0) / 4096; i++) /* memory that only has to travel */
		*(volatile uint64_t *)(start + size + i * 4096) = i + 1;
	for (unsigned n = 0; n < cpus; n++)
		part[n] = (struct part){.start = start,
					.first = n * (pages / cpus),
					.pages = pages / cpus,
					.ticks = rate && tsc ? tsc / rate * batch * cpus : 0};
	if (option("idle2", 0))
		part[1].pages = 1;
	if (cpus > 1)
		start_cpu(second, &part[1]);
	put_string("ready\n");
	if (option("halt", 0))
		ring0(halt, 0, 0);
	for (uint64_t next = rdtsc();;) {
		if (!dirty_round(&part[0], &next))
			return fail(&part[0], part[0].bad - 1, part[0].round);
		if (part[1].bad)
			return fail(&part[1], part[1].bad - 1, part[1].round);
		if (disk && !disk_round(part[0].round))
			return 0x11;
		if (!quiet) {
			put_string("round ");
			put_dec(part[0].round);
			put_string("\n");
		}
		if (get_char() >= 0 && check_all(cpus, disk))
			return 0x11;
	}
}
