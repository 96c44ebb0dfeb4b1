/*
 * Core files of a hostile guest: its page tables and registers are the input. A mapping outside of RAM, one out of
 * order, or a walk that does not end is a finding.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "src/control/dump.h"
#include "src/control/kdump.h"
#include "src/control/work.h"

#define LOW  (256 * KIB)
#define HIGH (64 * KIB)

/* The first byte: mode. The next eight: CR3. The rest: RAM from address 0 on, again and again. */
static void fill(struct cpu_regs *r, uint8_t *ram, const uint8_t *data, size_t size)
{
	*r = (struct cpu_regs){.cr0 = CPU_CR0_PE | (data[0] & 1 ? CPU_CR0_PG : 0),
			       .cr4 = (data[0] & 2 ? CPU_CR4_PAE : 0) | (data[0] & 4 ? CPU_CR4_LA57 : 0) |
				      (data[0] & 8 ? CPU_CR4_PSE : 0),
			       .efer = data[0] & 16 ? CPU_EFER_LMA : 0};
	memcpy(&r->cr3, data + 1, 8);
	if (data[0] & 32)
		r->cr3 %= LOW;
	data += 9;
	size -= 9;
	for (size_t i = 0; size && i < LOW + HIGH; i += size)
		memcpy(ram + i, data, MIN(size, LOW + HIGH - i));
}

static void check(const struct dump *d, const struct dump_maps *m)
{
	for (size_t i = 0; i < m->n; i++) {
		const struct dump_map *v = &m->v[i];
		bool inside = false;

		for (unsigned k = 0; k < d->n_ram; k++)
			inside |= v->physical >= d->ram[k].gpa && v->size <= d->ram[k].size &&
				  v->physical - d->ram[k].gpa <= d->ram[k].size - v->size;
		if (!inside || !v->size || (i && v->linear < m->v[i - 1].linear))
			abort();
	}
}

/* Stands for a compressor. */
static size_t halve(void *state, const uint8_t page[4096], uint8_t *out)
{
	memcpy(out, page, 2048);
	return page[0] & 1 ? 2048 : 0;
}

static void *no_state(void)
{
	static int state;

	return &state;
}

static void forget(void *state)
{
}

static void write_kdump(struct dump *d, struct work *w, int fd)
{
	static const struct kdump_codec codec = {"half", 1, no_state, forget, halve};
	struct err e = ERR_INIT;

	d->paging = false;
	if (kdump_write(d, w, fd, &codec, &e))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t ram[LOW + HIGH];
	static int null = -1;
	struct dump_maps maps = {0};
	struct err e = ERR_INIT;
	struct work w = {0};
	struct cpu_regs regs;
	struct dump d = {
		.ram = {{.gpa = 0, .size = LOW, .host = ram}, {.gpa = 1ull << 32, .size = HIGH, .host = ram + LOW}},
		.n_ram = 2,
		.paging = true,
		.max_tables =
			2048, /* most inputs are tables that go in circles: the whole limit takes seconds under ASan */
		.max_maps = 4096,
		.cpus = &regs,
		.n_cpus = 1};

	if (null < 0)
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (size < 10)
		return 0;
	if (dump_note_size(data, size) > size)
		abort();
	memset(ram, 0, sizeof(ram));
	fill(&regs, ram, data, size);
	if (!dump_walk(&d, &regs, &maps, &e)) {
		dump_maps_tidy(&maps);
		check(&d, &maps);
		dump_measure(&d);
		if (maps.n < 4096 && dump_write(&d, &w, null, false, &e))
			abort();
	}
	write_kdump(&d, &w, null);
	free(maps.v);
	return 0;
}
