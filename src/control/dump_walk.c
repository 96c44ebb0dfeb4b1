/*
 * All linear memory a guest's page tables map. Intel SDM 3A, 4.3 to 4.5: no paging, 32-bit with 4 MiB pages and PSE-36,
 * PAE, 4 and 5 levels. Access rights and reserved bits are not looked at.
 */
#include "dump.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/bytes.h"

#define PRESENT    1u
#define LARGE      0x80u
#define ADDRESS    0x000ffffffffff000ull /* bits 51..12 */
#define MAX_TABLES (256u * 1024)         /* page tables read: 1 GiB of them */
#define MAX_MAPS   (1024u * 1024)

struct walk {
	const struct dump *d;
	struct dump_maps *out;
	unsigned tables, max_tables;
	size_t max_maps;
	unsigned top; /* level whose upper half are the negative addresses; 0: none */
};

size_t dump_read(const struct dump *d, uint64_t gpa, void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < d->n_ram && done < len; i++) {
		const struct dump_block *b = &d->ram[i];
		uint64_t at = gpa + done;
		size_t n;

		if (at < b->gpa || at - b->gpa >= b->size)
			continue;
		n = (size_t)MIN((uint64_t)(len - done), b->size - (at - b->gpa));
		memcpy((char *)buf + done, b->host + (at - b->gpa), n);
		done += n;
	}
	return done;
}

static int add(struct walk *w, uint64_t linear, uint64_t physical, uint64_t size)
{
	struct dump_maps *m = w->out;
	struct dump_map *last = m->n ? &m->v[m->n - 1] : NULL;

	if (last && last->linear + last->size == linear && last->physical + last->size == physical) {
		last->size += size;
		return 0;
	}
	if (m->n >= w->max_maps)
		return -E2BIG;
	if (m->n == m->cap) {
		m->cap = m->cap ? m->cap * 2 : 256;
		m->v = xrealloc(m->v, m->cap * sizeof(*m->v));
	}
	m->v[m->n++] = (struct dump_map){linear, physical, size};
	return 0;
}

/* The parts that are RAM: device memory is not for dumps. */
static int add_ram(struct walk *w, uint64_t linear, uint64_t physical, uint64_t size)
{
	int r = 0;

	for (unsigned i = 0; !r && i < w->d->n_ram; i++) {
		const struct dump_block *b = &w->d->ram[i];
		uint64_t from = MAX(physical, b->gpa), to = MIN(physical + size, b->gpa + b->size);

		if (from < to)
			r = add(w, linear + (from - physical), from, to - from);
	}
	return r;
}

static int read_table(struct walk *w, uint64_t table, void *buf, size_t len)
{
	if (++w->tables > w->max_tables)
		return -E2BIG;
	return dump_read(w->d, table, buf, len) == len ? 1 : 0;
}

/* Tables of 512 8-byte entries; level 1 is the last. linear: of the first entry. */
static int walk_wide(struct walk *w, uint64_t table, unsigned level, uint64_t linear)
{
	unsigned shift = 12 + 9 * (level - 1);
	uint64_t page = 1ull << shift;
	uint8_t raw[4096];
	int r = read_table(w, table, raw, sizeof(raw));

	if (r <= 0)
		return r;
	for (unsigned i = 0; i < 512; i++) {
		uint64_t e = get_le64(raw + 8 * i), at = linear + ((uint64_t)i << shift);

		if (!(e & PRESENT))
			continue;
		if (level == w->top && i >= 256)
			at |= ~0ull << (shift + 9); /* canonical form */
		r = level == 1 || (level <= 3 && e & LARGE) ? add_ram(w, at, e & ADDRESS & ~(page - 1), page)
							    : walk_wide(w, e & ADDRESS, level - 1, at);
		if (r < 0)
			return r;
	}
	return 0;
}

static int walk_pae(struct walk *w, uint64_t cr3)
{
	uint8_t raw[32];
	int r = read_table(w, cr3 & 0xffffffe0, raw, sizeof(raw));

	for (unsigned i = 0; r > 0 && i < 4; i++) {
		uint64_t e = get_le64(raw + 8 * i);

		if (e & PRESENT && (r = walk_wide(w, e & ADDRESS, 2, (uint64_t)i << 30)) < 0)
			return r;
		r = 1;
	}
	return r < 0 ? r : 0;
}

static int walk_32(struct walk *w, const struct cpu_regs *regs)
{
	uint8_t dir[4096], raw[4096];
	int r = read_table(w, regs->cr3 & 0xfffff000, dir, sizeof(dir));

	for (unsigned i = 0; r > 0 && i < 1024; i++) {
		uint32_t pde = get_le32(dir + 4 * i);

		if (!(pde & PRESENT))
			continue;
		if (pde & LARGE && regs->cr4 & CPU_CR4_PSE) { /* bits 20..13 are address bits 39..32 */
			r = add_ram(w, (uint64_t)i << 22, (pde & 0xffc00000) | (uint64_t)(pde >> 13 & 0xff) << 32,
				    4 * MIB);
			if (r < 0)
				return r;
			r = 1;
			continue;
		}
		r = read_table(w, pde & 0xfffff000, raw, sizeof(raw));
		for (unsigned k = 0; r > 0 && k < 1024; k++) {
			uint32_t pte = get_le32(raw + 4 * k);
			uint64_t at = (uint64_t)i << 22 | k << 12;

			if (pte & PRESENT && add_ram(w, at, pte & 0xfffff000, 4 * KIB) < 0)
				return -E2BIG;
		}
		if (r < 0)
			return r;
		r = 1;
	}
	return r < 0 ? r : 0;
}

int dump_walk(const struct dump *d, const struct cpu_regs *regs, struct dump_maps *out, struct err *e)
{
	struct walk w = {.d = d,
			 .out = out,
			 .max_tables = d->max_tables ? d->max_tables : MAX_TABLES,
			 .max_maps = d->max_maps ? d->max_maps : MAX_MAPS};
	int r = 0;

	if (!(regs->cr0 & CPU_CR0_PG)) {
		for (unsigned i = 0; !r && i < d->n_ram; i++)
			r = add(&w, d->ram[i].gpa, d->ram[i].gpa, d->ram[i].size);
	} else if (cpu_in_long_mode(regs)) {
		w.top = regs->cr4 & CPU_CR4_LA57 ? 5 : 4;
		r = walk_wide(&w, regs->cr3 & ADDRESS, w.top, 0);
	} else if (regs->cr4 & CPU_CR4_PAE) {
		r = walk_pae(&w, regs->cr3);
	} else {
		r = walk_32(&w, regs);
	}
	return r < 0 ? err_set(e, E2BIG, "The guest's page tables are too large or go in circles; dump without paging")
		     : 0;
}

static int by_address(const void *a, const void *b)
{
	const struct dump_map *x = a, *y = b;

	if (x->linear != y->linear)
		return x->linear < y->linear ? -1 : 1;
	return x->physical < y->physical ? -1 : x->physical > y->physical;
}

void dump_maps_tidy(struct dump_maps *m)
{
	size_t n = 0;

	if (!m->n)
		return;
	qsort(m->v, m->n, sizeof(*m->v), by_address);
	for (size_t i = 1; i < m->n; i++) {
		struct dump_map *last = &m->v[n], *next = &m->v[i];
		bool same = next->linear - last->linear == next->physical - last->physical;

		if (same && next->linear - last->linear <= last->size)
			last->size = MAX(last->size, next->linear - last->linear + next->size);
		else
			m->v[++n] = *next;
	}
	m->n = n + 1;
}
