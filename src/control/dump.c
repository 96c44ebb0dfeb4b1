/* Writing the core file; see dump.h. Headers, notes and program headers first, then memory: a pipe will do. */
#include "dump_private.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm/bytes.h"
#include "work.h"

#define CHUNK (256 * KIB)

/* ---- the file ---- */

struct file {
	struct dump *d;
	struct dump_out head;
	struct dump_block part[DUMP_MAX_BLOCKS]; /* what of the blocks is written */
	unsigned n_parts;
	struct dump_maps maps;
	size_t notes_size;
	uint16_t machine;
};

unsigned dump_choose_parts(const struct dump *d, struct dump_block part[DUMP_MAX_BLOCKS])
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->n_ram; i++) {
		struct dump_block b = d->ram[i];
		uint64_t from = b.gpa, to = b.gpa + b.size;

		if (d->length) {
			from = MAX(from, d->begin);
			to = d->begin + d->length < d->begin ? to : MIN(to, d->begin + d->length);
		}
		if (from >= to)
			continue;
		part[n++] = (struct dump_block){.gpa = from, .size = to - from, .host = b.host + (from - b.gpa)};
	}
	return n;
}

void dump_measure(struct dump *d)
{
	struct dump_block part[DUMP_MAX_BLOCKS];
	unsigned n = dump_choose_parts(d, part);

	d->total = 0;
	for (unsigned i = 0; i < n; i++)
		d->total += part[i].size;
}

static int find_maps(struct file *f, struct err *e)
{
	const struct dump *d = f->d;
	int r = 0;

	for (unsigned i = 0; !r && i < d->n_cpus; i++) {
		bool seen = false;

		for (unsigned k = 0; k < i; k++)
			seen |= d->cpus[k].cr3 == d->cpus[i].cr3 && !((d->cpus[k].cr0 ^ d->cpus[i].cr0) & CPU_CR0_PG);
		if (!seen && (d->cpus[i].cr0 & CPU_CR0_PG || d->n_cpus == 1 || i == 0))
			r = dump_walk(d, &d->cpus[i], &f->maps, e);
	}
	dump_maps_tidy(&f->maps);
	return r;
}

static void put_load(struct dump_out *o, uint64_t linear, uint64_t physical, uint64_t size, uint64_t offset)
{
	dump_put(o, PT_LOAD, 4);
	if (o->wide)
		dump_put(o, PF_R | PF_W | PF_X, 4);
	dump_put_word(o, offset);
	dump_put_word(o, linear);
	dump_put_word(o, physical);
	dump_put_word(o, size);
	dump_put_word(o, size);
	if (!o->wide)
		dump_put(o, PF_R | PF_W | PF_X, 4);
	dump_put_word(o, 0);
}

static void put_note_header(struct dump_out *o, uint64_t offset, uint64_t size)
{
	dump_put(o, PT_NOTE, 4);
	if (o->wide)
		dump_put(o, 0, 4);
	dump_put_word(o, offset);
	dump_put_word(o, 0);
	dump_put_word(o, 0);
	dump_put_word(o, size);
	dump_put_word(o, size);
	if (!o->wide)
		dump_put(o, 0, 4);
	dump_put_word(o, 0);
}

/* The parts of a linear range that are written. Without `put`, counts. */
static size_t put_map(struct file *f, const struct dump_map *m, bool emit)
{
	size_t n = 0;

	for (unsigned i = 0; i < f->n_parts; i++) {
		const struct dump_block *b = &f->part[i];
		uint64_t from = MAX(m->physical, b->gpa), to = MIN(m->physical + m->size, b->gpa + b->size);

		if (from >= to)
			continue;
		n++;
		if (emit)
			put_load(&f->head, m->linear + (from - m->physical), from, to - from,
				 b->file_offset + (from - b->gpa));
	}
	return n;
}

static size_t put_loads(struct file *f, bool emit)
{
	size_t n = 0;

	if (f->d->paging) {
		for (size_t i = 0; i < f->maps.n; i++)
			n += put_map(f, &f->maps.v[i], emit);
		return n;
	}
	for (unsigned i = 0; emit && i < f->n_parts; i++)
		put_load(&f->head, 0, f->part[i].gpa, f->part[i].size, f->part[i].file_offset);
	return f->n_parts;
}

static void put_elf_header(struct file *f, size_t n_headers)
{
	struct dump_out *o = &f->head;
	size_t size = o->wide ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr);
	bool many = n_headers >= PN_XNUM; /* then section header 0 has the number */

	dump_put(o, 0, EI_NIDENT);
	memcpy(o->v, ELFMAG, SELFMAG);
	o->v[EI_CLASS] = o->wide ? ELFCLASS64 : ELFCLASS32;
	o->v[EI_DATA] = ELFDATA2LSB;
	o->v[EI_VERSION] = EV_CURRENT;
	dump_put(o, ET_CORE, 2);
	dump_put(o, f->machine, 2);
	dump_put(o, EV_CURRENT, 4);
	dump_put_word(o, 0);
	dump_put_word(o, size);
	dump_put_word(o, many ? size + n_headers * (o->wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)) : 0);
	dump_put(o, 0, 4);
	dump_put(o, size, 2);
	dump_put(o, o->wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr), 2);
	dump_put(o, many ? PN_XNUM : n_headers, 2);
	dump_put(o, o->wide ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr), 2);
	dump_put(o, many, 2);
	dump_put(o, 0, 2);
}

/* Section header 0: only sh_info counts. */
static void put_section(struct dump_out *o, size_t n_headers)
{
	dump_put(o, 0, 8);
	dump_put(o, 0, o->wide ? 32 : 16);
	dump_put(o, 0, 4);
	dump_put(o, n_headers, 4);
	dump_put(o, 0, o->wide ? 16 : 8);
}

static void build_head(struct file *f)
{
	struct dump_out *o = &f->head, notes = {.wide = o->wide};
	size_t n = (f->d->n_cpus || f->d->guest_note_size) + put_loads(f, false);
	size_t header = o->wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	uint64_t at = (o->wide ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)) + n * header, offset;

	dump_put_notes(&notes, f->d);
	if (n >= PN_XNUM)
		at += o->wide ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
	offset = ALIGN_UP(at + notes.n, (uint64_t)DUMP_PAGE);
	for (unsigned i = 0; i < f->n_parts; i++) {
		f->part[i].file_offset = offset;
		offset += f->part[i].size;
	}
	put_elf_header(f, n);
	if (notes.n)
		put_note_header(o, at, notes.n);
	put_loads(f, true);
	if (n >= PN_XNUM)
		put_section(o, n);
	for (size_t i = 0; i < notes.n; i++)
		dump_put(o, notes.v[i], 1);
	dump_put(o, 0, (size_t)(ALIGN_UP(o->n, (size_t)DUMP_PAGE) - o->n));
	free(notes.v);
}

static int write_memory(struct file *f, struct work *w, int fd, bool sparse)
{
	int r = 0;

	for (unsigned i = 0; i < f->n_parts; i++) {
		const struct dump_block *b = &f->part[i];

		for (uint64_t at = 0; !r && at < b->size;) {
			size_t n = (size_t)MIN(CHUNK, b->size - at);

			if (work_cancelled(w))
				r = -ECANCELED;
			else if (sparse && dump_is_zero(b->host + at, n))
				r = lseek(fd, (off_t)n, SEEK_CUR) < 0 ? -errno : 0;
			else
				r = work_write(w, fd, b->host + at, n);
			at += n;
			__atomic_fetch_add(&f->d->done, n, __ATOMIC_RELAXED);
		}
	}
	if (!r && sparse && ftruncate(fd, lseek(fd, 0, SEEK_CUR))) /* a hole at the end */
		r = -errno;
	return r;
}

int dump_write(struct dump *d, struct work *w, int fd, bool sparse, struct err *e)
{
	struct file f = {.d = d, .head.wide = dump_is_wide(d), .machine = dump_long_mode(d) ? EM_X86_64 : EM_386};
	int r;

	f.n_parts = dump_choose_parts(d, f.part);
	r = d->paging ? find_maps(&f, e) : 0;
	if (!r) {
		build_head(&f);
		r = work_write(w, fd, f.head.v, f.head.n);
		if (!r)
			r = write_memory(&f, w, fd, sparse);
		if (r)
			err_errno(e, -r, "dump: failed to save memory");
	}
	free(f.head.v);
	free(f.maps.v);
	return r;
}
