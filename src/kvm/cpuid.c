/*
 * The CPUID table of each vCPU. Cache and topology leaves follow QEMU's defaults (pc-i440fx-7.2), so that an operating
 * system installed there sees the same CPU. Sources: Intel SDM 2A CPUID, AMD APM 3 Appendix E.
 *
 * KVM itself keeps the bits that follow CR4, XCR0 and APIC_BASE (OSXSAVE, OSPKE, APIC, the sizes in leaf 0Dh).
 */
#include "src/kvm/kvm_internal.h"

#include <cpuid.h>
#include <stdlib.h>

#define KVM_LEAF    0x40000000u
#define MCG_BANKS   10
#define MCG_CTL_P   BIT(8)
#define MCG_SER_P   BIT(24)
#define MAX_LEAVES  128
#define AMD_ALIASES 0x0183f3ff /* bits of leaf 1 EDX that AMD repeats in 80000001h EDX */

struct table {
	struct kvm_cpuid_entry2 *e;
	size_t n, max;
};

static struct kvm_cpuid_entry2 *add(struct table *t, uint32_t leaf, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
	static struct kvm_cpuid_entry2 overflow;
	struct kvm_cpuid_entry2 *k = t->n < t->max ? &t->e[t->n++] : &overflow;

	*k = (struct kvm_cpuid_entry2){.function = leaf, .eax = a, .ebx = b, .ecx = c, .edx = d};
	return k;
}

static void add_sub(struct table *t, uint32_t leaf, uint32_t sub, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
	struct kvm_cpuid_entry2 *k = add(t, leaf, a, b, c, d);

	k->index = sub;
	k->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
}

/* ---- topology: an APIC id is socket | die | core | thread, each field as wide as its count needs ---- */

static unsigned width(unsigned count)
{
	return count > 1 ? 32 - (unsigned)__builtin_clz(count - 1) : 0;
}

static unsigned core_shift(const struct smp_opts *s)
{
	return width(s->threads);
}

static unsigned die_shift(const struct smp_opts *s)
{
	return core_shift(s) + width(s->cores);
}

static unsigned socket_shift(const struct smp_opts *s)
{
	return die_shift(s) + width(s->dies);
}

uint32_t kvm_apic_id(const struct smp_opts *s, unsigned index)
{
	unsigned thread = index % s->threads, core = index / s->threads % s->cores;
	unsigned die = index / s->threads / s->cores % s->dies, socket = index / s->threads / s->cores / s->dies;

	return socket << socket_shift(s) | die << die_shift(s) | core << core_shift(s) | thread;
}

static unsigned per_socket(const struct smp_opts *s)
{
	return s->threads * s->cores * s->dies;
}

/* ---- identity ---- */

uint32_t cpuid_signature(const struct cpu_def *d)
{
	uint32_t family = d->family > 15 ? 15 | (d->family - 15) << 12 : d->family;

	return family << 8 | (d->model_nr & 15) << 4 | (d->model_nr & 0xf0) << 12 | d->stepping;
}

static bool is_amd(const struct cpu_def *d)
{
	return !strcmp(d->vendor, "AuthenticAMD") || !strcmp(d->vendor, "HygonGenuine");
}

static bool is_intel(const struct cpu_def *d)
{
	return !strcmp(d->vendor, "GenuineIntel");
}

static bool has(const struct cpu_def *d, enum feature_word w, unsigned bit)
{
	return d->word[w] & BIT(bit);
}

/* ---- caches ---- */

struct cache {
	uint8_t type, level; /* 1 data, 2 instruction, 3 unified */
	uint32_t size, ways, sets;
	bool self_init, shared_by_package, inclusive, complex_index, no_wbinvd_sharing;
};
#define L1(type, kib, ways, sets)                                                            \
	{                                                                                    \
		type, 1, kib << 10, ways, sets, .self_init = true, .no_wbinvd_sharing = true \
	}
#define L3(mib, sets)                                                                                       \
	{                                                                                                   \
		3, 3, mib << 20, 16, sets, .self_init = true, .shared_by_package = true, .inclusive = true, \
					   .complex_index = true                                            \
	}
#define N_CACHES 4u
static const struct cache intel_caches[N_CACHES] = {
	L1(1, 32, 8, 64),
	L1(2, 32, 8, 64),
	{3, 2, 4 << 20, 16, 4096, .self_init = true, .no_wbinvd_sharing = true},
	L3(16, 16384),
};
static const struct cache amd_caches[N_CACHES] = {
	L1(1, 64, 2, 512),
	L1(2, 64, 2, 512),
	{3, 2, 512 << 10, 16, 512},
	L3(16, 16384),
};
/* Newer models bring their own. */
static const struct {
	const char *model;
	struct cache caches[N_CACHES];
} own_caches[] = {
	{"EPYC-Rome", {L1(1, 32, 8, 64), L1(2, 32, 8, 64), {3, 2, 512 << 10, 8, 1024}, L3(16, 16384)}},
	{"EPYC-Milan", {L1(1, 32, 8, 64), L1(2, 32, 8, 64), {3, 2, 512 << 10, 8, 1024}, L3(32, 32768)}},
	{"EPYC", {L1(1, 32, 8, 64), L1(2, 64, 4, 256), {3, 2, 512 << 10, 8, 1024}, L3(8, 8192)}},
	{"Dhyana", {L1(1, 32, 8, 64), L1(2, 64, 4, 256), {3, 2, 512 << 10, 8, 1024}, L3(8, 8192)}},
};

static const struct cache *caches_of(const struct cpu_def *d)
{
	for (size_t i = 0; i < ARRAY_SIZE(own_caches); i++)
		if (!strncmp(d->model, own_caches[i].model, strlen(own_caches[i].model)))
			return own_caches[i].caches;
	return amd_caches;
}

static uint32_t cache_flags(const struct cache *c)
{
	return c->no_wbinvd_sharing | c->inclusive << 1 | c->complex_index << 2;
}

static void add_leaf4(struct table *t, const struct cpu_def *d)
{
	const struct smp_opts *s = &d->smp;
	unsigned i;

	if (d->host_cache) {
		for (i = 0; i < 8; i++) {
			uint32_t a, b, c, dx;

			__cpuid_count(4, i, a, b, c, dx);
			add_sub(t, 4, i, a, b, c, dx);
			if (!(a & 31))
				break;
		}
		return;
	}
	for (i = 0; i < N_CACHES - !d->l3_cache; i++) {
		const struct cache *c = &intel_caches[i];
		uint32_t sharing = c->shared_by_package ? 1u << socket_shift(s) : 1u << core_shift(s);
		uint32_t cores = 1u << (socket_shift(s) - core_shift(s));

		add_sub(t, 4, i, c->type | c->level << 5 | c->self_init << 8 | (sharing - 1) << 14 | (cores - 1) << 26,
			63 | (c->ways - 1) << 22, c->sets - 1, cache_flags(c));
	}
	add_sub(t, 4, i, 0, 0, 0, 0);
}

static void add_leaf_8000001d(struct table *t, const struct cpu_def *d)
{
	const struct smp_opts *s = &d->smp;
	unsigned i;

	for (i = 0; i < N_CACHES - !d->l3_cache; i++) {
		const struct cache *c = &caches_of(d)[i];
		uint32_t sharing = c->shared_by_package ? per_socket(s) : s->threads;

		add_sub(t, 0x8000001du, i, c->type | c->level << 5 | c->self_init << 8 | (sharing - 1) << 14,
			63 | (c->ways - 1) << 22, c->sets - 1, cache_flags(c));
	}
	add_sub(t, 0x8000001du, i, 0, 0, 0, 0);
}

/* ---- basic leaves ---- */

static void add_topology(struct table *t, const struct cpu_def *d, uint32_t apic_id, uint32_t leaf)
{
	const struct smp_opts *s = &d->smp;
	bool dies = leaf == 0x1f;

	add_sub(t, leaf, 0, core_shift(s), s->threads, 0 | 1 << 8, apic_id);
	add_sub(t, leaf, 1, dies ? die_shift(s) : socket_shift(s), dies ? s->threads * s->cores : per_socket(s),
		1 | 2 << 8, apic_id);
	if (dies)
		add_sub(t, leaf, 2, socket_shift(s), per_socket(s), 2 | 5 << 8, apic_id);
	add_sub(t, leaf, dies ? 3 : 2, 0, 0, dies ? 3 : 2, apic_id);
}

/* Extended state: the components that belong to features the guest has, where the host keeps them. */
static void add_xsave(struct table *t, struct kvm_vm *vm)
{
	const struct cpu_def *d = &vm->cpu;
	const struct kvm_cpuid_entry2 *h = cpuid_supported(vm, 0xd, 0), *k;
	uint64_t components = 3, host;
	uint32_t size = 576;

	if (!has(d, FEAT_1_ECX, 26) || !h) {
		add_sub(t, 0xd, 0, 0, 0, 0, 0);
		return;
	}
	host = h->eax | (uint64_t)h->edx << 32;
	if (has(d, FEAT_1_ECX, 28))
		components |= BIT64(2);
	if (has(d, FEAT_7_0_EBX, 14))
		components |= 3ull << 3;
	if (has(d, FEAT_7_0_EBX, 16))
		components |= 7ull << 5;
	if (has(d, FEAT_7_0_ECX, 3))
		components |= BIT64(9);
	components &= host;
	for (unsigned i = 2; i < 10; i++)
		if (components & BIT64(i) && (k = cpuid_supported(vm, 0xd, i)))
			size = MAX(size, k->eax + k->ebx);
	add_sub(t, 0xd, 0, (uint32_t)components, size, size, (uint32_t)(components >> 32));
	add_sub(t, 0xd, 1, d->word[FEAT_D_1_EAX], 0, 0, 0);
	for (unsigned i = 2; i < 10; i++)
		if (components & BIT64(i) && (k = cpuid_supported(vm, 0xd, i)))
			add_sub(t, 0xd, i, k->eax, k->ebx, k->ecx, 0);
}

static void add_basic(struct table *t, struct kvm_vm *vm, uint32_t apic_id)
{
	const struct cpu_def *d = &vm->cpu;
	const struct kvm_cpuid_entry2 *k;
	unsigned n = per_socket(&d->smp);

	add(t, 0, d->level, get_le32(d->vendor), get_le32(d->vendor + 8), get_le32(d->vendor + 4));
	add(t, 1, cpuid_signature(d), apic_id << 24 | (n > 1 ? MIN(n, 255u) << 16 : 0) | 8 << 8, d->word[FEAT_1_ECX],
	    d->word[FEAT_1_EDX]);
	if (d->level >= 2 && !is_amd(d)) /* descriptors: L1D 2Ch, L1I 30h, L2 7Dh, L3 4Dh */
		add(t, 2, 1, 0, d->l3_cache ? 0x4d : 0, 0x002c307d);
	if (d->level >= 4 && !is_amd(d))
		add_leaf4(t, d);
	if (d->level >= 5) /* MONITOR: no line size, extensions and interrupt break enumerated */
		add(t, 5, 0, 0, 3, 0);
	if (d->level >= 6)
		add(t, 6, d->word[FEAT_6_EAX], 0, 0, 0);
	if (d->level >= 7) {
		add_sub(t, 7, 0, d->word[FEAT_7_1_EAX] ? 1 : 0, d->word[FEAT_7_0_EBX], d->word[FEAT_7_0_ECX],
			d->word[FEAT_7_0_EDX]);
		if (d->word[FEAT_7_1_EAX])
			add_sub(t, 7, 1, d->word[FEAT_7_1_EAX], 0, 0, 0);
	}
	k = d->pmu ? cpuid_supported(vm, 0xa, 0) : NULL;
	if (d->level >= 0xa)
		add(t, 0xa, k ? k->eax : 0, k ? k->ebx : 0, k ? k->ecx : 0, k ? k->edx : 0);
	if (d->level >= 0xb && d->cpuid_0xb)
		add_topology(t, d, apic_id, 0xb);
	if (d->level >= 0xd)
		add_xsave(t, vm);
	if (d->level >= 0x1f && d->smp.dies > 1)
		add_topology(t, d, apic_id, 0x1f);
}

static void add_paravirtual(struct table *t, const struct cpu_def *d)
{
	if (!d->expose_kvm)
		return;
	add(t, KVM_LEAF, KVM_LEAF + 1, get_le32("KVMK"), get_le32("VMKV"), get_le32("M\0\0"));
	add(t, KVM_LEAF + 1, d->word[FEAT_KVM], 0, 0, d->word[FEAT_KVM_HINTS]);
}

/* ---- extended leaves ---- */

static void add_address_sizes(struct table *t, const struct cpu_def *d)
{
	const struct smp_opts *s = &d->smp;
	unsigned n = per_socket(s);
	unsigned virt = !has(d, FEAT_8000_0001_EDX, 29) ? 0 : has(d, FEAT_7_0_ECX, 16) ? 57 : 48;

	add(t, 0x80000008u, d->phys_bits | virt << 8, d->word[FEAT_8000_0008_EBX],
	    n > 1 ? (n - 1) | socket_shift(s) << 12 : 0, 0);
}

static void add_topoext(struct table *t, const struct cpu_def *d, uint32_t apic_id, unsigned index)
{
	const struct smp_opts *s = &d->smp;
	unsigned core = index / s->threads % (s->cores * s->dies), die = core / s->cores;

	add_leaf_8000001d(t, d);
	add(t, 0x8000001eu, apic_id, (s->threads - 1) << 8 | (core & 0xff), (s->dies - 1) << 8 | die, 0);
}

/* AMD APM 3, E.4.4: size in KiB, ways, lines per tag, line size. */
static uint32_t l1_register(const struct cache *c)
{
	return c->size >> 10 << 24 | c->ways << 16 | 1 << 8 | 64;
}

/* AMD APM 3, table E-4: 8 ways are coded 6, 16 ways 8. */
static uint32_t l2_associativity(const struct cache *c)
{
	return c->ways == 8 ? 6 : 8;
}

static void add_extended(struct table *t, struct kvm_vm *vm, uint32_t apic_id, unsigned index)
{
	const struct cpu_def *d = &vm->cpu;
	uint32_t ecx = d->word[FEAT_8000_0001_ECX], edx = d->word[FEAT_8000_0001_EDX];

	if (d->xlevel < 0x80000000u)
		return;
	add(t, 0x80000000u, d->xlevel, get_le32(d->vendor), get_le32(d->vendor + 8), get_le32(d->vendor + 4));
	if (per_socket(&d->smp) > 1 && !is_intel(d))
		ecx |= BIT(1); /* CmpLegacy: HTT means cores */
	if (is_amd(d))
		edx |= d->word[FEAT_1_EDX] & AMD_ALIASES;
	if (d->xlevel >= 0x80000001u)
		add(t, 0x80000001u, cpuid_signature(d), 0, ecx, edx);
	for (unsigned i = 0; i < 3 && d->xlevel >= 0x80000004u; i++)
		add(t, 0x80000002u + i, get_le32(d->model_id + 16 * i), get_le32(d->model_id + 16 * i + 4),
		    get_le32(d->model_id + 16 * i + 8), get_le32(d->model_id + 16 * i + 12));
	if (d->xlevel >= 0x80000005u) /* L1: fully associative TLBs of 255 entries, then the caches */
		add(t, 0x80000005u, 0x01ff01ff, 0x01ff01ff, l1_register(&caches_of(d)[0]),
		    l1_register(&caches_of(d)[1]));
	if (d->xlevel >= 0x80000006u) /* L2: 512-entry 4-way TLBs; L3 in units of 512 KiB */
		add(t, 0x80000006u, 0, 0x42004200,
		    caches_of(d)[2].size >> 10 << 16 | l2_associativity(&caches_of(d)[2]) << 12 | (1 << 8 | 64),
		    d->l3_cache
			    ? caches_of(d)[3].size >> 19 << 18 | l2_associativity(&caches_of(d)[3]) << 12 | 1 << 8 | 64
			    : 0);
	if (d->xlevel >= 0x80000007u)
		add(t, 0x80000007u, 0, d->word[FEAT_8000_0007_EBX], 0, d->word[FEAT_8000_0007_EDX]);
	if (d->xlevel >= 0x80000008u)
		add_address_sizes(t, d);
	if (d->xlevel >= 0x8000000au)
		add(t, 0x8000000au, has(d, FEAT_8000_0001_ECX, 2) ? 1 : 0, has(d, FEAT_8000_0001_ECX, 2) ? 16 : 0, 0,
		    has(d, FEAT_8000_0001_ECX, 2) ? d->word[FEAT_8000_000A_EDX] : 0);
	if (d->xlevel >= 0x8000001eu && has(d, FEAT_8000_0001_ECX, 22))
		add_topoext(t, d, apic_id, index);
	if (d->xlevel >= 0x80000021u)
		add(t, 0x80000021u, d->word[FEAT_8000_0021_EAX], 0, 0, 0);
}

size_t cpuid_build(struct kvm_vm *vm, uint32_t apic_id, unsigned index, struct kvm_cpuid_entry2 *out, size_t max)
{
	struct table t = {.e = out, .max = max};

	add_basic(&t, vm, apic_id);
	add_paravirtual(&t, &vm->cpu);
	add_extended(&t, vm, apic_id, index);
	return t.n;
}

/* ---- to KVM ---- */

/* Machine checks as QEMU has them: ten banks, software error recovery as far as KVM offers it. */
static int setup_mce(struct kvm_vcpu *c, struct err *e)
{
	const struct cpu_def *d = &c->vm->cpu;
	uint64_t supported = 0, cap;
	int r;

	if (!c->vm->caps.mce || d->family < 6 || !has(d, FEAT_1_EDX, 7) || !has(d, FEAT_1_EDX, 14))
		return 0;
	if (ioctl(c->vm->sys_fd, KVM_X86_GET_MCE_CAP_SUPPORTED, &supported) < 0)
		return 0;
	cap = ((MCG_CTL_P | MCG_SER_P) & supported) | MCG_BANKS;
	r = vcpu_ioctl(c, KVM_X86_SETUP_MCE, &cap);
	return r < 0 ? err_errno(e, -r, "KVM refuses machine-check banks") : 0;
}

static int set_arch_capabilities(struct kvm_vcpu *c, struct err *e)
{
	union {
		struct kvm_msrs head;
		uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} m = {.room = {0}};
	struct kvm_msrs *k = &m.head;

	if (!has(&c->vm->cpu, FEAT_7_0_EDX, 29))
		return 0;
	k->nmsrs = 1;
	k->entries[0].index = 0x10a;
	k->entries[0].data = c->vm->cpu.word[FEAT_ARCH_CAP];
	return vcpu_ioctl(c, KVM_SET_MSRS, k) == 1
		       ? 0
		       : err_set(e, EIO, "KVM refuses the CPU model's IA32_ARCH_CAPABILITIES");
}

static int set_tsc_frequency(struct kvm_vcpu *c, struct err *e)
{
	uint64_t khz = c->vm->cpu.tsc_hz / 1000;
	int r;

	if (!khz)
		return 0;
	r = vcpu_ioctl(c, KVM_GET_TSC_KHZ, NULL);
	if (r > 0 && (uint64_t)r == khz)
		return 0;
	r = c->vm->caps.tsc_control ? vcpu_ioctl(c, KVM_SET_TSC_KHZ, (void *)(uintptr_t)khz) : -ENOTSUP;
	return r < 0 ? err_set(e, ENOTSUP,
			       "-cpu: tsc-frequency: this host's CPU cannot give guests another TSC frequency than "
			       "its own %d kHz",
			       vcpu_ioctl(c, KVM_GET_TSC_KHZ, NULL))
		     : 0;
}

int cpuid_apply(struct kvm_vcpu *c, struct err *e)
{
	struct kvm_cpuid2 *k = xzalloc(sizeof(*k) + MAX_LEAVES * sizeof(k->entries[0]));
	int r;

	k->nent = (uint32_t)cpuid_build(c->vm, c->apic_id, c->index, k->entries, MAX_LEAVES);
	r = vcpu_ioctl(c, KVM_SET_CPUID2, k);
	free(k);
	if (r < 0)
		return err_errno(e, -r, "KVM refuses the CPU model %s", c->vm->cpu.model);
	r = set_tsc_frequency(c, e);
	if (r == 0)
		r = setup_mce(c, e);
	if (r == 0)
		r = set_arch_capabilities(c, e);
	return r;
}
