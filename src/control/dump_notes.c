/*
 * What both kinds of dumps have in common: a growing buffer, which width they have, and the notes with the registers:
 * NT_PRSTATUS as Linux writes it, and QEMU's own with control registers and segments.
 */
#include "dump_private.h"

#include <elf.h>
#include <string.h>

void dump_put(struct dump_out *o, uint64_t value, size_t size)
{
	if (o->n + size > o->cap) {
		o->cap = MAX(o->cap * 2, o->n + size + 1024);
		o->v = xrealloc(o->v, o->cap);
	}
	for (size_t i = 0; i < size; i++)
		o->v[o->n++] = i < 8 ? (uint8_t)(value >> (8 * i)) : 0;
}

void dump_put_word(struct dump_out *o, uint64_t value)
{
	dump_put(o, value, o->wide ? 8 : 4);
}

/* Linux struct user_regs_struct, the order of ptrace(2). */
static void put_regs64(struct dump_out *o, const struct cpu_regs *r)
{
	static const uint8_t first[] = {15, 14,     13,      12,      CPU_RBP, CPU_RBX, 11,     10,
					9,  CPU_R8, CPU_RAX, CPU_RCX, CPU_RDX, CPU_RSI, CPU_RDI};
	static const uint8_t last[] = {CPU_DS, CPU_ES, CPU_FS, CPU_GS};

	for (size_t i = 0; i < ARRAY_SIZE(first); i++)
		dump_put(o, r->gpr[first[i]], 8);
	dump_put(o, r->gpr[CPU_RAX], 8); /* orig_rax */
	dump_put(o, r->rip, 8);
	dump_put(o, r->seg[CPU_CS].selector, 8);
	dump_put(o, r->rflags, 8);
	dump_put(o, r->gpr[CPU_RSP], 8);
	dump_put(o, r->seg[CPU_SS].selector, 8);
	dump_put(o, r->seg[CPU_FS].base, 8);
	dump_put(o, r->seg[CPU_GS].base, 8);
	for (size_t i = 0; i < ARRAY_SIZE(last); i++)
		dump_put(o, r->seg[last[i]].selector, 8);
}

static void put_regs32(struct dump_out *o, const struct cpu_regs *r)
{
	static const uint8_t first[] = {CPU_RBX, CPU_RCX, CPU_RDX, CPU_RSI, CPU_RDI, CPU_RBP, CPU_RAX};
	static const uint8_t middle[] = {CPU_DS, CPU_ES, CPU_FS, CPU_GS};

	for (size_t i = 0; i < ARRAY_SIZE(first); i++)
		dump_put(o, r->gpr[first[i]], 4);
	for (size_t i = 0; i < ARRAY_SIZE(middle); i++)
		dump_put(o, r->seg[middle[i]].selector, 4);
	dump_put(o, r->gpr[CPU_RAX], 4); /* orig_eax */
	dump_put(o, r->rip, 4);
	dump_put(o, r->seg[CPU_CS].selector, 4);
	dump_put(o, r->rflags, 4);
	dump_put(o, r->gpr[CPU_RSP], 4);
	dump_put(o, r->seg[CPU_SS].selector, 4);
}

/* The name with its terminating 0, filled up to 8 bytes. */
static void put_note_head(struct dump_out *o, const char *name, uint32_t size, uint32_t type)
{
	dump_put(o, strlen(name) + 1, 4);
	dump_put(o, size, 4);
	dump_put(o, type, 4);
	dump_put(o, 0, 8);
	memcpy(o->v + o->n - 8, name, strlen(name));
}

static void put_prstatus(struct dump_out *o, const struct cpu_regs *r, unsigned index)
{
	put_note_head(o, "CORE", o->wide ? 336 : 144, NT_PRSTATUS);
	dump_put(o, 0, o->wide ? 32 : 24);
	dump_put(o, index + 1, 4); /* pid */
	dump_put(o, 0, o->wide ? 76 : 44);
	if (o->wide)
		put_regs64(o, r);
	else
		put_regs32(o, r);
	dump_put(o, 0, o->wide ? 8 : 4);
}

/* Flags as in the upper half of a descriptor. */
static void put_segment(struct dump_out *o, const struct cpu_segment *s)
{
	dump_put(o, s->selector, 4);
	dump_put(o, s->limit, 4);
	dump_put(o,
		 (uint32_t)s->type << 8 | s->s << 12 | s->dpl << 13 | s->present << 15 | s->avl << 20 | s->l << 21 |
			 s->db << 22 | (uint32_t)s->g << 23,
		 4);
	dump_put(o, 0, 4);
	dump_put(o, s->base, 8);
}

/* QEMU's own note: struct QEMUCPUState of its target/i386/arch_dump.c, version 1. crash takes CR3 from it. */
static void put_qemu_note(struct dump_out *o, const struct cpu_regs *r)
{
	static const uint8_t gprs[] = {CPU_RAX, CPU_RBX, CPU_RCX, CPU_RDX, CPU_RSI, CPU_RDI, CPU_RSP, CPU_RBP,
				       8,       9,       10,      11,      12,      13,      14,      15};
	static const uint8_t segments[] = {CPU_CS, CPU_DS, CPU_ES, CPU_FS, CPU_GS, CPU_SS, CPU_LDTR, CPU_TR};
	const uint64_t cr[5] = {r->cr0, 0, r->cr2, r->cr3, r->cr4};
	enum { SIZE = 8 + 18 * 8 + 10 * 24 + 5 * 8 + 8 };

	put_note_head(o, "QEMU", SIZE, 0);
	dump_put(o, 1, 4);
	dump_put(o, SIZE, 4);
	for (size_t i = 0; i < ARRAY_SIZE(gprs); i++)
		dump_put(o, r->gpr[gprs[i]], 8);
	dump_put(o, r->rip, 8);
	dump_put(o, r->rflags, 8);
	for (size_t i = 0; i < ARRAY_SIZE(segments); i++)
		put_segment(o, &r->seg[segments[i]]);
	put_segment(o, &(struct cpu_segment){.base = r->gdt_base, .limit = r->gdt_limit});
	put_segment(o, &(struct cpu_segment){.base = r->idt_base, .limit = r->idt_limit});
	for (size_t i = 0; i < ARRAY_SIZE(cr); i++)
		dump_put(o, cr[i], 8);
	dump_put(o, r->kernel_gs_base, 8);
}

void dump_put_notes(struct dump_out *o, const struct dump *d)
{
	for (unsigned i = 0; i < d->n_cpus; i++)
		put_prstatus(o, &d->cpus[i], i);
	for (unsigned i = 0; i < d->n_cpus; i++)
		put_qemu_note(o, &d->cpus[i]);
	for (size_t i = 0; i < d->guest_note_size; i++)
		dump_put(o, d->guest_note[i], 1);
}

size_t dump_note_size(const uint8_t *note, size_t len)
{
	uint64_t size;

	if (len < sizeof(Elf64_Nhdr))
		return 0;
	size = sizeof(Elf64_Nhdr) + ALIGN_UP((uint64_t)get_le32(note), 4u) + ALIGN_UP((uint64_t)get_le32(note + 4), 4u);
	return size <= len ? (size_t)size : 0;
}

bool dump_long_mode(const struct dump *d)
{
	return d->n_cpus && cpu_in_long_mode(&d->cpus[0]);
}

bool dump_is_wide(const struct dump *d)
{
	const struct dump_block *top = &d->ram[d->n_ram - 1];

	return dump_long_mode(d) || top->gpa + top->size > 1ull << 32;
}

bool dump_is_zero(const uint8_t *p, size_t len)
{
	return !*p && !memcmp(p, p + 1, len - 1);
}
