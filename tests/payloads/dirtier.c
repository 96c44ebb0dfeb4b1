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
 * Prints "ready", then "round N" after each; any received character makes it check all pages once
 * and print "PASS dirtier rounds=N gap=TICKS": the longest time between two pages, in TSC ticks, since
 * it was last asked.  quiet=1: rounds are not printed.  halt=1: halt once all pages are written, for an
 * idle guest that takes no processor time.
 */
#include "payload.h"

static bool check(volatile uint64_t *page, uint64_t index, uint64_t round)
{
    uint64_t mark = index ^ round * 0x9e3779b97f4a7c15ull;
    if (page[0] == round && page[1] == mark && page[511] == mark)
        return true;
    put_string("FAIL page ");
    put_dec(index);
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

int payload_main(void)
{
    uint64_t start = option("start", 64 << 20), size = option("size", 64 << 20);
    uint64_t rate = option("rate", 0), tsc = option("tsc", 0);
    uint64_t pages = size / 4096, batch = 256;
    uint64_t ticks = rate && tsc ? tsc / rate * batch : 0;

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
    put_string("ready\n");
    if (option("halt", 0))
        ring0(halt, 0, 0);
    uint64_t next = rdtsc(), last = next, gap = 0, quiet = option("quiet", 0);
    for (uint64_t round = 1;; round++) {
        for (uint64_t i = 0; i < pages; i++) {
            volatile uint64_t *page = (uint64_t *)(start + i * 4096);
            if (!check(page, i, round - 1))
                return 0x11;
            uint64_t now = rdtsc();
            if (now - last > gap)
                gap = now - last;
            last = now;
            page[0] = round;
            page[1] = i ^ round * 0x9e3779b97f4a7c15ull;
            page[511] = i ^ round * 0x9e3779b97f4a7c15ull;
            if (ticks && i % batch == batch - 1)
                wait_until(next += ticks);
        }
        if (!quiet) {
            put_string("round ");
            put_dec(round);
            put_string("\n");
        }
        if (get_char() >= 0) {
            for (uint64_t i = 0; i < pages; i++)
                if (!check((uint64_t *)(start + i * 4096), i, round))
                    return 0x11;
            put_string("PASS dirtier rounds=");
            put_dec(round);
            put_string(" gap=");
            put_dec(gap);
            put_string("\n");
            gap = 0;
        }
        last = rdtsc(); /* the console is not the guest's memory: its exits do not count */
    }
}
