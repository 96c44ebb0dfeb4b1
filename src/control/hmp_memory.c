/* Memory, registers and expressions for people: x, xp, print, info registers, info mem. No disassembler: that is gdb's.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "dump.h"
#include "hmp.h"
#include "vmm/debug.h"
#include "vmm/kvm.h"

/* ---- registers ---- */

/* A running vCPU is stopped for the moment this takes. */
static bool read_regs(struct hmp *h, unsigned cpu, struct cpu_regs *r)
{
	struct kvm_vm *vm = machine_kvm(h->board);
	struct kvm_vcpu *c = vm ? kvm_vcpu_get(vm, cpu) : NULL;
	bool running = machine_running(h->board);
	int ret;

	if (!c)
		return false;
	if (running)
		kvm_vcpus_pause(vm);
	ret = kvm_vcpu_get_regs(c, r);
	if (running)
		kvm_vcpus_resume(vm);
	return !ret;
}

static const char *const gpr_names[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI"};

static void print_segment(FILE *out, const char *name, const struct cpu_segment *s)
{
	uint32_t flags = (uint32_t)s->type << 8 | s->s << 12 | s->dpl << 13 | s->present << 15 | s->avl << 20 |
			 s->l << 21 | s->db << 22 | (uint32_t)s->g << 23;

	fprintf(out, "%-3s=%04x %016" PRIx64 " %08x %08x\r\n", name, s->selector, s->base, s->limit, flags);
}

static void print_cpu(FILE *out, unsigned index, const struct cpu_regs *r)
{
	static const uint8_t order[] = {CPU_RAX, CPU_RBX, CPU_RCX, CPU_RDX, CPU_RSI, CPU_RDI, CPU_RBP, CPU_RSP};
	static const struct {
		const char *name;
		unsigned seg;
	} segments[] = {{"ES", CPU_ES}, {"CS", CPU_CS}, {"SS", CPU_SS},    {"DS", CPU_DS},
			{"FS", CPU_FS}, {"GS", CPU_GS}, {"LDT", CPU_LDTR}, {"TR", CPU_TR}};

	fprintf(out, "\r\nCPU#%u\r\n", index);
	for (unsigned i = 0; i < 16; i++) {
		if (i < 8)
			fprintf(out, "%s=%016" PRIx64, gpr_names[order[i]], r->gpr[order[i]]);
		else
			fprintf(out, "R%-2u=%016" PRIx64, i, r->gpr[i]);
		fprintf(out, i % 4 == 3 ? "\r\n" : " ");
	}
	fprintf(out, "RIP=%016" PRIx64 " RFL=%08x CPL=%u HLT=%d\r\n", r->rip, (uint32_t)r->rflags, r->seg[CPU_SS].dpl,
		r->halted);
	for (size_t i = 0; i < ARRAY_SIZE(segments); i++)
		print_segment(out, segments[i].name, &r->seg[segments[i].seg]);
	fprintf(out, "GDT=     %016" PRIx64 " %08x\r\nIDT=     %016" PRIx64 " %08x\r\n", r->gdt_base, r->gdt_limit,
		r->idt_base, r->idt_limit);
	fprintf(out, "CR0=%08x CR2=%016" PRIx64 " CR3=%016" PRIx64 " CR4=%08x\r\n", (uint32_t)r->cr0, r->cr2, r->cr3,
		(uint32_t)r->cr4);
	fprintf(out, "DR0=%016" PRIx64 " DR1=%016" PRIx64 " DR2=%016" PRIx64 " DR3=%016" PRIx64 "\r\n", r->dr[0],
		r->dr[1], r->dr[2], r->dr[3]);
	fprintf(out, "DR6=%016" PRIx64 " DR7=%016" PRIx64 "\r\nEFER=%016" PRIx64 "\r\n", r->dr6, r->dr7, r->efer);
	fprintf(out, "FCW=%04x FSW=%04x FTW=%02x MXCSR=%08x\r\n", r->fcw, r->fsw, r->ftw, r->mxcsr);
}

void hmp_print_registers(struct hmp *h, bool all)
{
	struct cpu_info info;
	struct cpu_regs r;

	for (unsigned i = 0; machine_cpu_info(h->board, i, &info); i++) {
		if (!all && info.index != h->cpu)
			continue;
		if (read_regs(h, info.index, &r))
			print_cpu(h->out, info.index, &r);
		else
			fprintf(h->out, "\r\nCPU#%u has no registers: the machine runs without KVM\r\n", info.index);
	}
}

/* ---- expressions: + - * / % & | ^ and parentheses over numbers and $registers, as QEMU's monitor has them ---- */

struct expr {
	struct hmp *h;
	const char *p;
	bool have_regs;
	struct cpu_regs regs;
	struct err *e;
	unsigned depth;
};

static int64_t expr_sum(struct expr *x);

static void blank(struct expr *x)
{
	while (*x->p == ' ' || *x->p == '\t')
		x->p++;
}

static int64_t bad(struct expr *x, const char *what)
{
	if (!x->e->code)
		err_set(x->e, EINVAL, "%s", what);
	return 0;
}

static bool named(const char *name, size_t len, const char *want)
{
	return strlen(want) == len && !strncasecmp(name, want, len);
}

static int64_t expr_register(struct expr *x)
{
	const char *name = x->p;
	size_t len = 0;

	while (isalnum((unsigned char)name[len]))
		len++;
	x->p += len;
	if (!x->have_regs && !read_regs(x->h, x->h->cpu, &x->regs))
		return bad(x, "this machine has no registers to look at");
	x->have_regs = true;
	for (unsigned i = 0; i < 16; i++) {
		char text[8];

		snprintf(text, sizeof(text), "R%u", i);
		if (named(name, len, i < 8 ? gpr_names[i] : text) || (i < 8 && named(name, len, gpr_names[i] + 1)))
			return (int64_t)x->regs.gpr[i];
	}
	if (named(name, len, "rip") || named(name, len, "eip") || named(name, len, "pc"))
		return (int64_t)x->regs.rip;
	if (named(name, len, "eflags") || named(name, len, "rflags"))
		return (int64_t)x->regs.rflags;
	if (named(name, len, "cr3"))
		return (int64_t)x->regs.cr3;
	return bad(x, "unknown register");
}

static int64_t expr_unary(struct expr *x)
{
	uint64_t v;
	char *end;

	blank(x);
	if (++x->depth > 100)
		return bad(x, "the expression is too deep");
	switch (*x->p) {
	case '+':
		x->p++;
		return expr_unary(x);
	case '-':
		x->p++;
		return -(uint64_t)expr_unary(x);
	case '~':
		x->p++;
		return ~expr_unary(x);
	case '(':
		x->p++;
		v = (uint64_t)expr_sum(x);
		blank(x);
		if (*x->p != ')')
			return bad(x, "')' expected");
		x->p++;
		return (int64_t)v;
	case '$':
		x->p++;
		return expr_register(x);
	default:
		v = strtoull(x->p, &end, 0);
		if (end == x->p)
			return bad(x, *x->p ? "invalid char in expression" : "unexpected end of expression");
		x->p = end;
		return (int64_t)v;
	}
}

static int64_t expr_product(struct expr *x)
{
	uint64_t v = (uint64_t)expr_unary(x), w;

	for (;;) {
		char op;

		blank(x);
		op = *x->p;
		if (!op || !strchr("*/%", op) || x->e->code)
			return (int64_t)v;
		x->p++;
		w = (uint64_t)expr_unary(x);
		if (op != '*' && !w)
			return bad(x, "division by zero");
		v = op == '*' ? v * w : op == '/' ? v / w : v % w;
	}
}

static int64_t expr_logic(struct expr *x)
{
	uint64_t v = (uint64_t)expr_product(x), w;

	for (;;) {
		char op;

		blank(x);
		op = *x->p;
		if (!op || !strchr("&|^", op) || x->e->code)
			return (int64_t)v;
		x->p++;
		w = (uint64_t)expr_product(x);
		v = op == '&' ? v & w : op == '|' ? v | w : v ^ w;
	}
}

static int64_t expr_sum(struct expr *x)
{
	uint64_t v = (uint64_t)expr_logic(x), w;

	for (;;) {
		char op;

		blank(x);
		op = *x->p;
		if ((op != '+' && op != '-') || x->e->code)
			return (int64_t)v;
		x->p++;
		w = (uint64_t)expr_logic(x);
		v = op == '+' ? v + w : v - w;
	}
}

static bool evaluate(struct hmp *h, const char *text, uint64_t *value)
{
	struct err e = ERR_INIT;
	struct expr x = {.h = h, .p = text, .e = &e};

	*value = (uint64_t)expr_sum(&x);
	blank(&x);
	if (!e.code && *x.p)
		bad(&x, "invalid char in expression");
	if (e.code)
		fprintf(h->out, "%s\r\n", e.msg);
	return !e.code;
}

/* ---- x, xp, print ---- */

struct format {
	unsigned count, size;
	char letter; /* x d u o c */
};

/* "4xw": how many, how shown, how wide. */
static bool parse_format(struct hmp *h, const char *spec, struct format *f)
{
	char *end;

	*f = (struct format){.count = 1, .size = 4, .letter = 'x'};
	if (isdigit((unsigned char)*spec)) {
		f->count = (unsigned)MIN(strtoul(spec, &end, 10), 65536ul);
		spec = end;
	}
	for (; *spec; spec++) {
		switch (*spec) {
		case 'b':
			f->size = 1;
			break;
		case 'h':
			f->size = 2;
			break;
		case 'w':
			f->size = 4;
			break;
		case 'g':
			f->size = 8;
			break;
		case 'x':
		case 'd':
		case 'u':
		case 'o':
		case 'c':
			f->letter = *spec;
			break;
		default:
			fprintf(h->out, "invalid format '%c': x, d, u, o or c, of b, h, w or g\r\n", *spec);
			return false;
		}
	}
	if (f->letter == 'c')
		f->size = 1;
	return true;
}

static void print_number(FILE *out, const struct format *f, uint64_t v)
{
	unsigned bits = 64 - 8 * f->size;
	int64_t s = (int64_t)(v << bits) >> bits;

	switch (f->letter) {
	case 'd':
		fprintf(out, "%" PRId64, s);
		break;
	case 'u':
		fprintf(out, "%" PRIu64, v);
		break;
	case 'o':
		fprintf(out, "0%" PRIo64, v);
		break;
	case 'c':
		fprintf(out, isprint((int)v) && v != '\'' && v != '\\' ? "'%c'" : "'\\x%02x'", (int)v);
		break;
	default:
		fprintf(out, "0x%0*" PRIx64, (int)f->size * 2, v);
	}
}

static size_t read_physical(void *opaque, uint64_t addr, void *buf, size_t len)
{
	return machine_debug_read(opaque, addr, buf, len);
}

static bool read_item(struct hmp *h, const struct cpu_regs *r, uint64_t addr, uint8_t *buf, unsigned size)
{
	for (unsigned i = 0; i < size; i++) {
		uint64_t physical = addr + i;

		if (r && !cpu_translate(r, addr + i, &physical, read_physical, h->board))
			return false;
		if (machine_debug_read(h->board, physical, buf + i, 1) != 1)
			return false;
	}
	return true;
}

void hmp_examine(struct hmp *h, const char *spec, const char *address, bool physical)
{
	struct cpu_regs regs;
	struct format f;
	uint64_t addr;

	if (!parse_format(h, spec, &f) || !evaluate(h, address, &addr))
		return;
	if (!physical && !read_regs(h, h->cpu, &regs)) {
		fprintf(h->out, "this machine has no page tables to look through; use xp\r\n");
		return;
	}
	for (unsigned i = 0; i < f.count; i++, addr += f.size) {
		unsigned per_line = f.letter == 'c' ? 8 : f.size == 8 ? 2 : f.size == 1 ? 8 : 4;
		uint8_t raw[8] = {0};

		if (i % per_line == 0)
			fprintf(h->out, "%s%016" PRIx64 ":", i ? "\r\n" : "", addr);
		if (!read_item(h, physical ? NULL : &regs, addr, raw, f.size)) {
			fprintf(h->out, " Cannot access memory\r\n");
			return;
		}
		fputc(' ', h->out);
		print_number(h->out, &f, get_le(raw, f.size));
	}
	if (f.count)
		fprintf(h->out, "\r\n");
}

void hmp_print_value(struct hmp *h, const char *spec, const char *expression)
{
	struct format f;
	uint64_t v;

	if (!parse_format(h, spec, &f) || !evaluate(h, expression, &v))
		return;
	if (!*spec || f.letter == 'x')
		fprintf(h->out, "0x%" PRIx64 "\r\n", v);
	else {
		f.size = f.letter == 'c' ? 1 : 8;
		print_number(h->out, &f, f.letter == 'c' ? v & 0xff : v);
		fprintf(h->out, "\r\n");
	}
}

void hmp_print_physical(struct hmp *h, const char *spec, const char *address)
{
	struct cpu_regs regs;
	uint64_t linear, physical;

	if (!evaluate(h, address, &linear))
		return;
	if (!read_regs(h, h->cpu, &regs))
		fprintf(h->out, "this machine has no page tables to look through\r\n");
	else if (!cpu_translate(&regs, linear, &physical, read_physical, h->board))
		fprintf(h->out, "Unmapped\r\n");
	else
		fprintf(h->out, "gpa: %#" PRIx64 "\r\n", physical);
}

/* ---- info mem ---- */

#define MAX_LINES 4096

void hmp_print_mappings(struct hmp *h)
{
	uint64_t low = board_ram_below_4g(h->board), high = board_ram_above_4g(h->board);
	const uint8_t *host = board_ram(h->board) ? ram_block_ptr(board_ram(h->board)) : NULL;
	struct dump d = {
		.ram = {{.gpa = 0, .size = low, .host = host}, {.gpa = 1ull << 32, .size = high, .host = host + low}},
		.n_ram = host ? 1 + !!high : 0};
	struct dump_maps maps = {0};
	struct err e = ERR_INIT;
	struct cpu_regs r;

	if (!read_regs(h, h->cpu, &r) || !(r.cr0 & CPU_CR0_PG)) {
		fprintf(h->out, "PG disabled\r\n");
		return;
	}
	if (dump_walk(&d, &r, &maps, &e))
		fprintf(h->out, "%s\r\n", e.msg);
	dump_maps_tidy(&maps);
	for (size_t i = 0; i < maps.n && i < MAX_LINES; i++)
		fprintf(h->out, "%016" PRIx64 "-%016" PRIx64 " %016" PRIx64 " at %" PRIx64 "\r\n", maps.v[i].linear,
			maps.v[i].linear + maps.v[i].size, maps.v[i].size, maps.v[i].physical);
	if (maps.n > MAX_LINES)
		fprintf(h->out, "... and %zu more\r\n", maps.n - MAX_LINES);
	free(maps.v);
}
