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
 * Prints "ready", then "round N" after each of the first processor's (quiet=1: not).  It listens between two rounds
 * and, if it knows tsc, every 20 ms between two batches of 256 pages:
 *
 *   x             check all pages (and sectors) once and print "PASS dirtier rounds=N gap=TICKS pages=N": the longest
 *                 time between two pages of either processor, in TSC ticks, since it was last asked; the pages both
 *                 have written; with cpus=2 also second=N, those of the second one
 *   i             write nothing more, and print "idle"
 *   N newline     write, N pages a second from now on (0: as fast as possible), and print "rate N"
 *
 * halt=1: halt once all pages are written, for an idle guest that takes no processor time.
 */
#include "payload.h"

#define SECTORS 8

/* A processor's part of the range. What the other one reads is volatile. */
struct part {
	uint64_t start, first, pages;     /* address of the range; index of the first page */
	volatile uint64_t ticks;          /* for a batch of pages; 0: no limit */
	volatile uint64_t round, at, gap; /* rounds done; the page that is next in this one */
	volatile uint64_t bad;            /* index + 1 of a page that was wrong */
	volatile bool wait, waits;        /* stand still at the next batch; it does */
};
static struct part part[2];

static unsigned cpus;
static bool disk, idle;
static uint64_t tsc, listened;

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

static bool fail(const struct part *p, uint64_t i, uint64_t round)
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
	return false;
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

/* What a processor goes by: when the next batch is due, when the last page was written, and the pages since a pause. */
struct pace {
	uint64_t next, last, pages;
};

static bool listen(struct pace *pace);

/* Between two batches. False: end. */
static bool pause(struct part *p, struct pace *pace)
{
	if (p == &part[0] && tsc && rdtsc() - listened > tsc / 50 && !listen(pace))
		return false;
	if (p->wait) {
		while (p->wait)
			p->waits = true;
		p->waits = false;
		pace->next = pace->last = rdtsc();
	}
	if (p->ticks)
		wait_until(pace->next += p->ticks * pace->pages / batch);
	pace->pages = 0;
	return true;
}

/* One round over the part's pages; false: one was wrong (p->bad), or listen() says so. */
static bool dirty_round(struct part *p, struct pace *pace)
{
	uint64_t round = p->round + 1;

	for (uint64_t i = p->first; i < p->first + p->pages; i++) {
		volatile uint64_t *page = (uint64_t *)(p->start + i * 4096);
		if (!good(p, i, round - 1)) {
			p->bad = i + 1;
			return false;
		}
		uint64_t now = rdtsc();
		if (now - pace->last > p->gap)
			p->gap = now - pace->last;
		pace->last = now;
		pace->pages++;
		page[0] = round;
		page[1] = mark_of(i, round);
		page[511] = mark_of(i, round);
		p->at = i + 1;
		if (i % batch == batch - 1 && i + 1 < p->first + p->pages && !pause(p, pace))
			return false;
	}
	p->at = p->first;
	p->round = round;
	return true;
}

static void second(void *arg)
{
	struct part *p = arg;
	struct pace pace = {rdtsc(), rdtsc(), 0};

	while (dirty_round(p, &pace))
		pause(p, &pace);
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

static uint64_t written(const struct part *p)
{
	return p->round * p->pages + p->at - p->first;
}

static void hold_second(void)
{
	part[1].wait = cpus > 1;
	while (part[1].wait && !part[1].waits && !part[1].bad)
		__asm__ volatile("pause");
}

/* It goes on before we do: at least one batch of its own between two checks. */
static void release_second(void)
{
	part[1].wait = false;
	while (part[1].waits)
		__asm__ volatile("pause");
}

static bool check_all(void)
{
	uint64_t gap;

	hold_second();
	gap = part[part[1].gap > part[0].gap].gap;
	for (unsigned n = 0; n < cpus; n++) {
		if (part[n].bad)
			return fail(&part[n], part[n].bad - 1, part[n].round);
		for (uint64_t i = part[n].first; i < part[n].first + part[n].pages; i++)
			if (!good(&part[n], i, part[n].round + (i < part[n].at)))
				return fail(&part[n], i, part[n].round + (i < part[n].at));
	}
	for (unsigned i = 0; disk && i < SECTORS; i++)
		if (!sector_good(i))
			return false;
	put_string("PASS dirtier rounds=");
	put_dec(part[0].round);
	put_string(" gap=");
	put_dec(gap);
	put_string(" pages=");
	put_dec(written(&part[0]) + written(&part[1]));
	if (cpus > 1) {
		put_string(" second=");
		put_dec(written(&part[1]));
	}
	put_string("\n");
	part[0].gap = part[1].gap = 0;
	if (!idle)
		release_second();
	return true;
}

static void set_rate(uint64_t rate)
{
	for (unsigned n = 0; n < cpus; n++)
		part[n].ticks = rate && tsc ? tsc * batch * cpus / rate : 0;
}

static void obey(int c)
{
	uint64_t rate = 0;

	if (c == 'i') {
		idle = true;
		hold_second();
		put_string("idle\n");
	}
	if (c < '0' || c > '9')
		return;
	while (c >= '0' && c <= '9') {
		rate = rate * 10 + (uint64_t)(c - '0');
		do
			c = get_char();
		while (c < 0);
	}
	set_rate(rate);
	put_string("rate ");
	put_dec(rate);
	put_string("\n");
	if (idle)
		release_second();
	idle = false;
}

/* False: a page or sector was wrong. */
static bool listen(struct pace *pace)
{
	do {
		int c = get_char();

		if (c == 'x' && !check_all())
			return false;
		obey(c);
		listened = rdtsc();
		if (c >= 0) /* that took its time, and was no gap */
			pace->next = pace->last = listened;
		if (idle)
			wait_until(listened + tsc / 1000);
	} while (idle);
	return true;
}

int payload_main(void)
{
	uint64_t start = option("start", 64 << 20), size = option("size", 64 << 20), pages = size / 4096;
	bool quiet = option("quiet", 0);

	tsc = option("tsc", 0);
	cpus = option("cpus", 1) > 1 ? 2 : 1;
	disk = option("disk", 0);
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
		part[n] = (struct part){
			.start = start, .first = n * (pages / cpus), .at = n * (pages / cpus), .pages = pages / cpus};
	set_rate(option("rate", 0));
	if (option("idle2", 0))
		part[1].pages = 1;
	if (cpus > 1)
		start_cpu(second, &part[1]);
	put_string("ready\n");
	if (option("halt", 0))
		ring0(halt, 0, 0);
	for (struct pace pace = {rdtsc(), rdtsc(), 0};;) {
		if (!dirty_round(&part[0], &pace)) {
			if (part[0].bad)
				fail(&part[0], part[0].bad - 1, part[0].round);
			return 0x11;
		}
		if (part[1].bad) {
			fail(&part[1], part[1].bad - 1, part[1].round);
			return 0x11;
		}
		if (disk && !disk_round(part[0].round))
			return 0x11;
		if (!quiet) {
			put_string("round ");
			put_dec(part[0].round);
			put_string("\n");
		}
		if (!listen(&pace) || !pause(&part[0], &pace))
			return 0x11;
	}
}
