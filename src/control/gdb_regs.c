/*
 * The register file as gdb numbers it, and target.xml, from one table. Numbers and layout are QEMU's (i386-64bit.xml
 * and i386-32bit.xml), so scripts work unchanged; the feature names are gdb's own where it knows them (GDB manual,
 * G.5.6).
 *
 * Left out: AVX and later registers, as in QEMU 7.2.
 */
#include "gdb_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/bytes.h"

enum kind {
	K_WORD,     /* a uint64_t of cpu_regs, cut to the register's width */
	K_SELECTOR, /* which: segment */
	K_BASE,     /* which: segment */
	K_ST,       /* which: ST(n) */
	K_XMM,
	K_FPU,   /* which: enum fpu_field */
	K_MXCSR, /* 32 bits */
};
enum fpu_field { FPU_CTRL, FPU_STAT, FPU_TAG, FPU_ISEG, FPU_IOFF, FPU_OSEG, FPU_OOFF, FPU_OP };
enum feature { F_CORE, F_SEGMENTS, F_SSE, F_SYSTEM, N_FEATURES };

struct row {
	const char *name;
	enum feature feature;
	const char *type;
	uint8_t bits[2]; /* narrow, wide; 0: not in that file */
	enum kind kind;
	uint16_t which; /* offset, or number */
};

#define GPR64(name, i, t)                                                           \
	{                                                                           \
		name, F_CORE, t, {0, 64}, K_WORD, offsetof(struct cpu_regs, gpr[i]) \
	}
#define SYSTEM(name, field)                                                               \
	{                                                                                 \
		name, F_SYSTEM, "int", {32, 64}, K_WORD, offsetof(struct cpu_regs, field) \
	}
#define SELECTOR(name, seg)                                      \
	{                                                        \
		name, F_CORE, "int32", {32, 32}, K_SELECTOR, seg \
	}
#define ST(n)                                                  \
	{                                                      \
		"st" #n, F_CORE, "i387_ext", {80, 80}, K_ST, n \
	}
#define FPU(name, f)                                    \
	{                                               \
		name, F_CORE, "int", {32, 32}, K_FPU, f \
	}
#define XMM(n, narrow)                                             \
	{                                                          \
		"xmm" #n, F_SSE, "vec128", {narrow, 128}, K_XMM, n \
	}

/* In the order of their numbers. */
static const struct row rows[] = {
	{"eax", F_CORE, "int32", {32, 0}, K_WORD, offsetof(struct cpu_regs, gpr[CPU_RAX])},
	{"ecx", F_CORE, "int32", {32, 0}, K_WORD, offsetof(struct cpu_regs, gpr[CPU_RCX])},
	{"edx", F_CORE, "int32", {32, 0}, K_WORD, offsetof(struct cpu_regs, gpr[CPU_RDX])},
	{"ebx", F_CORE, "int32", {32, 0}, K_WORD, offsetof(struct cpu_regs, gpr[CPU_RBX])},
	{"esp", F_CORE, "data_ptr", {32, 0}, K_WORD, offsetof(struct cpu_regs, gpr[CPU_RSP])},
	{"ebp", F_CORE, "data_ptr", {32, 0}, K_WORD, offsetof(struct cpu_regs, gpr[CPU_RBP])},
	{"esi", F_CORE, "int32", {32, 0}, K_WORD, offsetof(struct cpu_regs, gpr[CPU_RSI])},
	{"edi", F_CORE, "int32", {32, 0}, K_WORD, offsetof(struct cpu_regs, gpr[CPU_RDI])},
	{"eip", F_CORE, "code_ptr", {32, 0}, K_WORD, offsetof(struct cpu_regs, rip)},
	GPR64("rax", CPU_RAX, "int64"),
	GPR64("rbx", CPU_RBX, "int64"),
	GPR64("rcx", CPU_RCX, "int64"),
	GPR64("rdx", CPU_RDX, "int64"),
	GPR64("rsi", CPU_RSI, "int64"),
	GPR64("rdi", CPU_RDI, "int64"),
	GPR64("rbp", CPU_RBP, "data_ptr"),
	GPR64("rsp", CPU_RSP, "data_ptr"),
	GPR64("r8", 8, "int64"),
	GPR64("r9", 9, "int64"),
	GPR64("r10", 10, "int64"),
	GPR64("r11", 11, "int64"),
	GPR64("r12", 12, "int64"),
	GPR64("r13", 13, "int64"),
	GPR64("r14", 14, "int64"),
	GPR64("r15", 15, "int64"),
	{"rip", F_CORE, "code_ptr", {0, 64}, K_WORD, offsetof(struct cpu_regs, rip)},
	{"eflags", F_CORE, "i386_eflags", {32, 32}, K_WORD, offsetof(struct cpu_regs, rflags)},
	SELECTOR("cs", CPU_CS),
	SELECTOR("ss", CPU_SS),
	SELECTOR("ds", CPU_DS),
	SELECTOR("es", CPU_ES),
	SELECTOR("fs", CPU_FS),
	SELECTOR("gs", CPU_GS),
	{"fs_base", F_SEGMENTS, "int", {32, 64}, K_BASE, CPU_FS},
	{"gs_base", F_SEGMENTS, "int", {32, 64}, K_BASE, CPU_GS},
	SYSTEM("k_gs_base", kernel_gs_base),
	SYSTEM("cr0", cr0),
	SYSTEM("cr2", cr2),
	SYSTEM("cr3", cr3),
	SYSTEM("cr4", cr4),
	SYSTEM("cr8", cr8),
	SYSTEM("efer", efer),
	ST(0),
	ST(1),
	ST(2),
	ST(3),
	ST(4),
	ST(5),
	ST(6),
	ST(7),
	FPU("fctrl", FPU_CTRL),
	FPU("fstat", FPU_STAT),
	FPU("ftag", FPU_TAG),
	FPU("fiseg", FPU_ISEG),
	FPU("fioff", FPU_IOFF),
	FPU("foseg", FPU_OSEG),
	FPU("fooff", FPU_OOFF),
	FPU("fop", FPU_OP),
	XMM(0, 128),
	XMM(1, 128),
	XMM(2, 128),
	XMM(3, 128),
	XMM(4, 128),
	XMM(5, 128),
	XMM(6, 128),
	XMM(7, 128),
	XMM(8, 0),
	XMM(9, 0),
	XMM(10, 0),
	XMM(11, 0),
	XMM(12, 0),
	XMM(13, 0),
	XMM(14, 0),
	XMM(15, 0),
	{"mxcsr", F_SSE, "i386_mxcsr", {32, 32}, K_MXCSR, 0},
};

static const struct row *find_row(bool wide, unsigned n)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].bits[wide] && !n--)
			return &rows[i];
	return NULL;
}

unsigned gdb_regs_count(bool wide)
{
	unsigned n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		n += rows[i].bits[wide] != 0;
	return n;
}

size_t gdb_regs_size(bool wide)
{
	size_t bytes = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		bytes += rows[i].bits[wide] / 8;
	return bytes;
}

/* ---- the x87 ---- */

/* FXSAVE keeps one bit per register; gdb wants two (SDM 1, 8.1.7): valid, zero, special, empty. */
static unsigned full_tag(const struct cpu_regs *r)
{
	unsigned tags = 0, top = r->fsw >> 11 & 7;

	for (unsigned i = 0; i < 8; i++) {
		const uint8_t *st = r->st[(i - top) & 7];
		uint64_t mantissa = get_le64(st);
		unsigned exponent = get_le16(st + 8) & 0x7fff, tag = 2;

		if (!(r->ftw & 1u << i))
			tag = 3;
		else if (!exponent && !mantissa)
			tag = 1;
		else if (exponent && exponent != 0x7fff && mantissa >> 63)
			tag = 0;
		tags |= tag << (2 * i);
	}
	return tags;
}

static uint32_t get_fpu(const struct cpu_regs *r, enum fpu_field f)
{
	switch (f) {
	case FPU_CTRL:
		return r->fcw;
	case FPU_STAT:
		return r->fsw;
	case FPU_TAG:
		return full_tag(r);
	case FPU_ISEG:
		return (uint16_t)(r->fip >> 32);
	case FPU_IOFF:
		return (uint32_t)r->fip;
	case FPU_OSEG:
		return (uint16_t)(r->fdp >> 32);
	case FPU_OOFF:
		return (uint32_t)r->fdp;
	case FPU_OP:
		return r->fop;
	}
	return 0;
}

static void set_half(uint64_t *word, unsigned shift, uint32_t value)
{
	*word = (*word & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

static void set_fpu(struct cpu_regs *r, enum fpu_field f, uint32_t value)
{
	switch (f) {
	case FPU_CTRL:
		r->fcw = (uint16_t)value;
		break;
	case FPU_STAT:
		r->fsw = (uint16_t)value;
		break;
	case FPU_TAG:
		r->ftw = 0;
		for (unsigned i = 0; i < 8; i++)
			r->ftw |= (uint8_t)(((value >> (2 * i) & 3) != 3) << i);
		break;
	case FPU_ISEG:
		set_half(&r->fip, 32, value & 0xffff);
		break;
	case FPU_IOFF:
		set_half(&r->fip, 0, value);
		break;
	case FPU_OSEG:
		set_half(&r->fdp, 32, value & 0xffff);
		break;
	case FPU_OOFF:
		set_half(&r->fdp, 0, value);
		break;
	case FPU_OP:
		r->fop = value & 0x7ff;
		break;
	}
}

/* ---- segments ---- */

static bool is_code_or_data_load(unsigned segment, const struct cpu_segment *s)
{
	return s->present && s->s && (segment == CPU_CS) == !!(s->type & 8);
}

/* A descriptor's fields: SDM 3A, 3.4.5. */
static void decode_descriptor(uint64_t d, uint16_t selector, struct cpu_segment *s)
{
	uint32_t limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000));

	*s = (struct cpu_segment){
		.base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000),
		.selector = selector,
		.type = d >> 40 & 15,
		.s = d >> 44 & 1,
		.dpl = d >> 45 & 3,
		.present = d >> 47 & 1,
		.avl = d >> 52 & 1,
		.l = d >> 53 & 1,
		.db = d >> 54 & 1,
		.g = d >> 55 & 1,
	};
	s->limit = s->g ? limit << 12 | 0xfff : limit;
}

/* As if the guest had loaded the selector, without its checks of privilege; a descriptor that cannot be used leaves the
   segment as it is. */
static void load_selector(struct cpu_regs *r, unsigned segment, uint16_t selector, gdb_linear_read_fn *read,
			  void *opaque)
{
	struct cpu_segment *s = &r->seg[segment], loaded;
	bool local = selector & 4;
	uint64_t table = local ? r->seg[CPU_LDTR].base : r->gdt_base;
	uint32_t limit = local ? r->seg[CPU_LDTR].limit : r->gdt_limit;
	uint8_t raw[8];

	if (s->selector == selector)
		return;
	if (!(r->cr0 & CPU_CR0_PE) || r->rflags & CPU_RFLAGS_VM) {
		s->selector = selector;
		s->base = (uint32_t)selector << 4;
		return;
	}
	if (selector < 4 && segment != CPU_CS && (segment != CPU_SS || cpu_in_long_mode(r))) {
		*s = (struct cpu_segment){.selector = selector, .unusable = 1};
		return;
	}
	if ((selector | 7u) > limit || read(opaque, table + (selector & ~7u), raw, 8) != 8)
		return;
	decode_descriptor(get_le64(raw), selector, &loaded);
	if (is_code_or_data_load(segment, &loaded))
		*s = loaded;
}

/* ---- get and set ---- */

size_t gdb_reg_get(bool wide, const struct cpu_regs *r, unsigned n, uint8_t *buf)
{
	const struct row *row = find_row(wide, n);
	size_t size;

	if (!row)
		return 0;
	size = row->bits[wide] / 8;
	switch (row->kind) {
	case K_WORD:
		put_le(buf, *(const uint64_t *)((const uint8_t *)r + row->which), (unsigned)size);
		break;
	case K_SELECTOR:
		put_le32(buf, r->seg[row->which].selector);
		break;
	case K_BASE:
		put_le(buf, r->seg[row->which].base, (unsigned)size);
		break;
	case K_ST:
		memcpy(buf, r->st[row->which], size);
		break;
	case K_XMM:
		memcpy(buf, r->xmm[row->which], size);
		break;
	case K_FPU:
		put_le32(buf, get_fpu(r, (enum fpu_field)row->which));
		break;
	case K_MXCSR:
		put_le32(buf, r->mxcsr);
		break;
	}
	return size;
}

size_t gdb_reg_set(bool wide, struct cpu_regs *r, unsigned n, const uint8_t *buf, gdb_linear_read_fn *read,
		   void *opaque)
{
	const struct row *row = find_row(wide, n);
	uint64_t value = 0;
	size_t size;

	if (!row)
		return 0;
	size = row->bits[wide] / 8;
	if (size <= 8)
		value = get_le(buf, (unsigned)size);
	switch (row->kind) {
	case K_WORD:
		*(uint64_t *)((uint8_t *)r + row->which) = value;
		break;
	case K_SELECTOR:
		load_selector(r, row->which, (uint16_t)value, read, opaque);
		break;
	case K_BASE:
		r->seg[row->which].base = value;
		break;
	case K_ST:
		memcpy(r->st[row->which], buf, size);
		break;
	case K_XMM:
		memcpy(r->xmm[row->which], buf, size);
		break;
	case K_FPU:
		set_fpu(r, (enum fpu_field)row->which, (uint32_t)value);
		break;
	case K_MXCSR:
		r->mxcsr = (uint32_t)value;
		break;
	}
	return size;
}

/* ---- target.xml ---- */

static const char flags_xml[] =
	"<flags id=\"i386_eflags\" size=\"4\">"
	"<field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" end=\"1\"/>"
	"<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/>"
	"<field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/>"
	"<field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"IF\" start=\"9\" end=\"9\"/>"
	"<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/>"
	"<field name=\"IOPL\" start=\"12\" end=\"13\"/><field name=\"NT\" start=\"14\" end=\"14\"/>"
	"<field name=\"RF\" start=\"16\" end=\"16\"/><field name=\"VM\" start=\"17\" end=\"17\"/>"
	"<field name=\"AC\" start=\"18\" end=\"18\"/><field name=\"VIF\" start=\"19\" end=\"19\"/>"
	"<field name=\"VIP\" start=\"20\" end=\"20\"/><field name=\"ID\" start=\"21\" end=\"21\"/></flags>";
static const char sse_xml[] =
	"<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
	"<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
	"<vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
	"<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
	"<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>"
	"<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>"
	"<field name=\"uint128\" type=\"uint128\"/></union>"
	"<flags id=\"i386_mxcsr\" size=\"4\">"
	"<field name=\"IE\" start=\"0\" end=\"0\"/><field name=\"DE\" start=\"1\" end=\"1\"/>"
	"<field name=\"ZE\" start=\"2\" end=\"2\"/><field name=\"OE\" start=\"3\" end=\"3\"/>"
	"<field name=\"UE\" start=\"4\" end=\"4\"/><field name=\"PE\" start=\"5\" end=\"5\"/>"
	"<field name=\"DAZ\" start=\"6\" end=\"6\"/><field name=\"IM\" start=\"7\" end=\"7\"/>"
	"<field name=\"DM\" start=\"8\" end=\"8\"/><field name=\"ZM\" start=\"9\" end=\"9\"/>"
	"<field name=\"OM\" start=\"10\" end=\"10\"/><field name=\"UM\" start=\"11\" end=\"11\"/>"
	"<field name=\"PM\" start=\"12\" end=\"12\"/><field name=\"FZ\" start=\"15\" end=\"15\"/></flags>";

static const struct {
	const char *name, *types;
} features[N_FEATURES] = {
	[F_CORE] = {"org.gnu.gdb.i386.core", flags_xml},
	[F_SEGMENTS] = {"org.gnu.gdb.i386.segments", ""},
	[F_SSE] = {"org.gnu.gdb.i386.sse", sse_xml},
	[F_SYSTEM] = {"org.vmm.i386.system", ""},
};

/* gdb knows the segment bases of 64-bit CPUs only. */
static enum feature feature_of(const struct row *row, bool wide)
{
	return row->feature == F_SEGMENTS && !wide ? F_SYSTEM : row->feature;
}

char *gdb_regs_xml(bool wide)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	fprintf(out,
		"<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">"
		"<architecture>%s</architecture>",
		wide ? "i386:x86-64" : "i386");
	for (unsigned f = 0; f < N_FEATURES; f++) {
		unsigned number = 0;

		if (f == F_SEGMENTS && !wide)
			continue;
		fprintf(out, "<feature name=\"%s\">%s", features[f].name, features[f].types);
		for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
			const struct row *row = &rows[i];
			unsigned bits = row->bits[wide];

			if (bits && feature_of(row, wide) == f)
				fprintf(out, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"%s/>", row->name,
					bits, row->type, number, row->kind == K_FPU ? " group=\"float\"" : "");
			number += bits != 0;
		}
		fprintf(out, "</feature>");
	}
	fprintf(out, "</target>");
	fclose(out);
	return text;
}
