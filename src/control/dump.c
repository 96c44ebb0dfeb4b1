/* Writing the core file; see dump.h. Headers, notes and program headers first, then memory: a pipe will do. */
#include "dump.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm/bytes.h"
#include "work.h"

#define PAGE  4096u
#define CHUNK (256 * KIB)

/* A buffer that grows; fields are as wide as the ELF class says. */
struct out {
	uint8_t *v;
	size_t n, cap;
	bool wide; /* ELFCLASS64 */
};

static void put(struct out *o, uint64_t value, size_t size)
{
	if (o->n + size > o->cap) {
		o->cap = MAX(o->cap * 2, o->n + size + 1024);
		o->v = xrealloc(o->v, o->cap);
	}
	for (size_t i = 0; i < size; i++)
		o->v[o->n++] = i < 8 ? (uint8_t)(value >> (8 * i)) : 0;
}

static void put_word(struct out *o, uint64_t value)
{
	put(o, value, o->wide ? 8 : 4);
}

/* ---- notes ---- */

/* Linux struct user_regs_struct, the order of ptrace(2). */
static void put_regs64(struct out *o, const struct cpu_regs *r)
{
	static const uint8_t first[] = {15, 14, 13, 12, CPU_RBP, CPU_RBX, 11, 10, 9, CPU_R8, CPU_RAX, CPU_RCX, CPU_RDX,
					CPU_RSI, CPU_RDI};
	static const uint8_t last[] = {CPU_DS, CPU_ES, CPU_FS, CPU_GS};

	for (size_t i = 0; i < ARRAY_SIZE(first); i++)
		put(o, r->gpr[first[i]], 8);
	put(o, r->gpr[CPU_RAX], 8); /* orig_rax */
	put(o, r->rip, 8);
	put(o, r->seg[CPU_CS].selector, 8);
	put(o, r->rflags, 8);
	put(o, r->gpr[CPU_RSP], 8);
	put(o, r->seg[CPU_SS].selector, 8);
	put(o, r->seg[CPU_FS].base, 8);
	put(o, r->seg[CPU_GS].base, 8);
	for (size_t i = 0; i < ARRAY_SIZE(last); i++)
		put(o, r->seg[last[i]].selector, 8);
}

static void put_regs32(struct out *o, const struct cpu_regs *r)
{
	static const uint8_t first[] = {CPU_RBX, CPU_RCX, CPU_RDX, CPU_RSI, CPU_RDI, CPU_RBP, CPU_RAX};
	static const uint8_t middle[] = {CPU_DS, CPU_ES, CPU_FS, CPU_GS};

	for (size_t i = 0; i < ARRAY_SIZE(first); i++)
		put(o, r->gpr[first[i]], 4);
	for (size_t i = 0; i < ARRAY_SIZE(middle); i++)
		put(o, r->seg[middle[i]].selector, 4);
	put(o, r->gpr[CPU_RAX], 4); /* orig_eax */
	put(o, r->rip, 4);
	put(o, r->seg[CPU_CS].selector, 4);
	put(o, r->rflags, 4);
	put(o, r->gpr[CPU_RSP], 4);
	put(o, r->seg[CPU_SS].selector, 4);
}

/* The name with its terminating 0, filled up to 8 bytes. */
static void put_note_head(struct out *o, const char *name, uint32_t size, uint32_t type)
{
	put(o, strlen(name) + 1, 4);
	put(o, size, 4);
	put(o, type, 4);
	put(o, 0, 8);
	memcpy(o->v + o->n - 8, name, strlen(name));
}

static void put_prstatus(struct out *o, const struct cpu_regs *r, unsigned index)
{
	put_note_head(o, "CORE", o->wide ? 336 : 144, NT_PRSTATUS);
	put(o, 0, o->wide ? 32 : 24);
	put(o, index + 1, 4); /* pid */
	put(o, 0, o->wide ? 76 : 44);
	if (o->wide)
		put_regs64(o, r);
	else
		put_regs32(o, r);
	put(o, 0, o->wide ? 8 : 4);
}

/* Flags as in the upper half of a descriptor. */
static void put_segment(struct out *o, const struct cpu_segment *s)
{
	put(o, s->selector, 4);
	put(o, s->limit, 4);
	put(o, (uint32_t)s->type << 8 | s->s << 12 | s->dpl << 13 | s->present << 15 | s->avl << 20 | s->l << 21 |
		       s->db << 22 | (uint32_t)s->g << 23,
	    4);
	put(o, 0, 4);
	put(o, s->base, 8);
}

/* QEMU's own note: struct QEMUCPUState of its target/i386/arch_dump.c, version 1. crash takes CR3 from it. */
static void put_qemu_note(struct out *o, const struct cpu_regs *r)
{
	static const uint8_t gprs[] = {CPU_RAX, CPU_RBX, CPU_RCX, CPU_RDX, CPU_RSI, CPU_RDI, CPU_RSP, CPU_RBP,
				       8,       9,       10,      11,      12,      13,      14,      15};
	static const uint8_t segments[] = {CPU_CS, CPU_DS, CPU_ES, CPU_FS, CPU_GS, CPU_SS, CPU_LDTR, CPU_TR};
	const uint64_t cr[5] = {r->cr0, 0, r->cr2, r->cr3, r->cr4};
	enum { SIZE = 8 + 18 * 8 + 10 * 24 + 5 * 8 + 8 };

	put_note_head(o, "QEMU", SIZE, 0);
	put(o, 1, 4);
	put(o, SIZE, 4);
	for (size_t i = 0; i < ARRAY_SIZE(gprs); i++)
		put(o, r->gpr[gprs[i]], 8);
	put(o, r->rip, 8);
	put(o, r->rflags, 8);
	for (size_t i = 0; i < ARRAY_SIZE(segments); i++)
		put_segment(o, &r->seg[segments[i]]);
	put_segment(o, &(struct cpu_segment){.base = r->gdt_base, .limit = r->gdt_limit});
	put_segment(o, &(struct cpu_segment){.base = r->idt_base, .limit = r->idt_limit});
	for (size_t i = 0; i < ARRAY_SIZE(cr); i++)
		put(o, cr[i], 8);
	put(o, r->kernel_gs_base, 8);
}

/* ---- the file ---- */

struct file {
	struct dump *d;
	struct out head;
	struct dump_block part[DUMP_MAX_BLOCKS]; /* what of the blocks is written */
	unsigned n_parts;
	struct dump_maps maps;
	size_t notes_size;
	uint16_t machine;
};

static unsigned choose_parts(const struct dump *d, struct dump_block part[DUMP_MAX_BLOCKS])
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
	unsigned n = choose_parts(d, part);

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

static void put_load(struct out *o, uint64_t linear, uint64_t physical, uint64_t size, uint64_t offset)
{
	put(o, PT_LOAD, 4);
	if (o->wide)
		put(o, PF_R | PF_W | PF_X, 4);
	put_word(o, offset);
	put_word(o, linear);
	put_word(o, physical);
	put_word(o, size);
	put_word(o, size);
	if (!o->wide)
		put(o, PF_R | PF_W | PF_X, 4);
	put_word(o, 0);
}

static void put_note_header(struct out *o, uint64_t offset, uint64_t size)
{
	put(o, PT_NOTE, 4);
	if (o->wide)
		put(o, 0, 4);
	put_word(o, offset);
	put_word(o, 0);
	put_word(o, 0);
	put_word(o, size);
	put_word(o, size);
	if (!o->wide)
		put(o, 0, 4);
	put_word(o, 0);
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
	struct out *o = &f->head;
	size_t size = o->wide ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr);
	bool many = n_headers >= PN_XNUM; /* then section header 0 has the number */

	put(o, 0, EI_NIDENT);
	memcpy(o->v, ELFMAG, SELFMAG);
	o->v[EI_CLASS] = o->wide ? ELFCLASS64 : ELFCLASS32;
	o->v[EI_DATA] = ELFDATA2LSB;
	o->v[EI_VERSION] = EV_CURRENT;
	put(o, ET_CORE, 2);
	put(o, f->machine, 2);
	put(o, EV_CURRENT, 4);
	put_word(o, 0);
	put_word(o, size);
	put_word(o, many ? size + n_headers * (o->wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)) : 0);
	put(o, 0, 4);
	put(o, size, 2);
	put(o, o->wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr), 2);
	put(o, many ? PN_XNUM : n_headers, 2);
	put(o, o->wide ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr), 2);
	put(o, many, 2);
	put(o, 0, 2);
}

/* Section header 0: only sh_info counts. */
static void put_section(struct out *o, size_t n_headers)
{
	put(o, 0, 8);
	put(o, 0, o->wide ? 32 : 16);
	put(o, 0, 4);
	put(o, n_headers, 4);
	put(o, 0, o->wide ? 16 : 8);
}

static void build_head(struct file *f)
{
	struct out *o = &f->head, notes = {.wide = o->wide};
	size_t n = !!f->d->n_cpus + put_loads(f, false), header = o->wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);
	uint64_t at = (o->wide ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)) + n * header, offset;

	for (unsigned i = 0; i < f->d->n_cpus; i++)
		put_prstatus(&notes, &f->d->cpus[i], i);
	for (unsigned i = 0; i < f->d->n_cpus; i++)
		put_qemu_note(&notes, &f->d->cpus[i]);
	if (n >= PN_XNUM)
		at += o->wide ? sizeof(Elf64_Shdr) : sizeof(Elf32_Shdr);
	offset = ALIGN_UP(at + notes.n, (uint64_t)PAGE);
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
		put(o, notes.v[i], 1);
	put(o, 0, (size_t)(ALIGN_UP(o->n, (size_t)PAGE) - o->n));
	free(notes.v);
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !*p && !memcmp(p, p + 1, len - 1);
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
			else if (sparse && is_zero(b->host + at, n))
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
	bool long_mode = d->n_cpus && cpu_in_long_mode(&d->cpus[0]);
	const struct dump_block *top = &d->ram[d->n_ram - 1];
	struct file f = {.d = d,
			 .head.wide = long_mode || top->gpa + top->size > 1ull << 32,
			 .machine = long_mode ? EM_X86_64 : EM_386};
	int r;

	f.n_parts = choose_parts(d, f.part);
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
