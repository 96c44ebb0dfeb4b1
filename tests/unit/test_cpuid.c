/*
 * CPU models and CPUID, against invented hosts: no KVM needed.
 */
#include <stdlib.h>

#include "src/kvm/kvm_internal.h"
#include "tests/lib/suite.h"

/* A host that offers everything named in `features`, with an AVX-capable extended state. */
static struct kvm_vm *host(const char *vendor, const char *features)
{
	struct kvm_vm *vm = calloc(1, sizeof(*vm));
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 64 * sizeof(c->entries[0]));
	uint32_t word[FEAT_WORDS] = {0};
	const uint32_t leaves[][2] = {{1, 0},          {6, 0},          {7, 0},          {7, 1},
				      {0xd, 1},        {0x80000001, 0}, {0x80000007, 0}, {0x8000000a, 0},
				      {0x80000021, 0}, {0x40000001, 0}};

	ck_assert(features_apply(word, features));
	c->entries[c->nent++] = (struct kvm_cpuid_entry2){
		0, 0, 0, 0x1f, get_le32(vendor), get_le32(vendor + 8), get_le32(vendor + 4), {0}};
	c->entries[c->nent++] = (struct kvm_cpuid_entry2){.function = 0x80000000, .eax = 0x80000021};
	c->entries[c->nent++] =
		(struct kvm_cpuid_entry2){.function = 0x80000008, .eax = 0x3030 - 2, .ebx = word[FEAT_8000_0008_EBX]};
	c->entries[c->nent++] =
		(struct kvm_cpuid_entry2){.function = 0xd, .flags = 1, .eax = 7, .ebx = 832, .ecx = 832};
	c->entries[c->nent++] =
		(struct kvm_cpuid_entry2){.function = 0xd, .flags = 1, .index = 2, .eax = 256, .ebx = 576};
	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++) {
		struct kvm_cpuid_entry2 *k = &c->entries[c->nent++];

		*k = (struct kvm_cpuid_entry2){.function = leaves[i][0], .index = leaves[i][1], .flags = 1};
		for (unsigned w = 0; w < FEAT_WORDS; w++)
			if (feature_words[w].leaf == k->function && feature_words[w].sub == k->index &&
			    w != FEAT_ARCH_CAP) {
				uint32_t *regs[] = {&k->eax, &k->ebx, &k->ecx, &k->edx};

				*regs[feature_words[w].reg] = word[w];
			}
	}
	vm->supported = c;
	vm->sys_fd = -1;
	vm->caps.tsc_deadline = true;
	return vm;
}

static struct kvm_vm *full_host(const char *vendor)
{
	char *all = features_all_names();
	struct kvm_vm *vm = host(vendor, all);

	free(all);
	return vm;
}

static void host_free(struct kvm_vm *vm)
{
	free(vm->supported);
	free(vm);
}

static const struct smp_opts one = {1, 1, 1, 1, 1, 1};

static struct kvm_cpuid_entry2 table[128];
static size_t n_table;

static const struct kvm_cpuid_entry2 *leaf(uint32_t function, uint32_t index)
{
	for (size_t i = 0; i < n_table; i++)
		if (table[i].function == function && (!table[i].flags || table[i].index == index))
			return &table[i];
	return NULL;
}

static void make(struct kvm_vm *vm, unsigned index)
{
	n_table = cpuid_build(vm, kvm_apic_id(&vm->cpu.smp, index), index, table, ARRAY_SIZE(table));
}

static void setup(struct kvm_vm *vm, const char *text, const struct smp_opts *smp)
{
	struct err e = ERR_INIT;

	ck_assert_msg(kvm_cpu_setup(vm, text, smp, &e) == 0, "%s", e.msg);
	make(vm, 0);
}

static bool shows(struct kvm_vm *vm, const char *feature)
{
	uint32_t mask[FEAT_WORDS];

	ck_assert(feature_mask(feature, mask));
	for (unsigned w = 0; w < FEAT_WORDS; w++)
		if (mask[w] && (vm->cpu.word[w] & mask[w]) == mask[w])
			return true;
	return false;
}

START_TEST(names_have_their_bits)
{
	static const struct {
		const char *name;
		enum feature_word w;
		unsigned bit;
	} known[] = {
		/* Intel SDM 2A, tables 3-8 ff.; AMD APM 3 appendix E */
		{"fpu", FEAT_1_EDX, 0},
		{"sse2", FEAT_1_EDX, 26},
		{"pni", FEAT_1_ECX, 0},
		{"sse3", FEAT_1_ECX, 0},
		{"cx16", FEAT_1_ECX, 13},
		{"sse4_1", FEAT_1_ECX, 19},
		{"sse4.2", FEAT_1_ECX, 20},
		{"x2apic", FEAT_1_ECX, 21},
		{"xsave", FEAT_1_ECX, 26},
		{"avx", FEAT_1_ECX, 28},
		{"rdrand", FEAT_1_ECX, 30},
		{"hypervisor", FEAT_1_ECX, 31},
		{"fsgsbase", FEAT_7_0_EBX, 0},
		{"avx2", FEAT_7_0_EBX, 5},
		{"smap", FEAT_7_0_EBX, 20},
		{"avx512f", FEAT_7_0_EBX, 16},
		{"sha-ni", FEAT_7_0_EBX, 29},
		{"umip", FEAT_7_0_ECX, 2},
		{"pku", FEAT_7_0_ECX, 3},
		{"vaes", FEAT_7_0_ECX, 9},
		{"la57", FEAT_7_0_ECX, 16},
		{"rdpid", FEAT_7_0_ECX, 22},
		{"spec-ctrl", FEAT_7_0_EDX, 26},
		{"ssbd", FEAT_7_0_EDX, 31},
		{"syscall", FEAT_8000_0001_EDX, 11},
		{"nx", FEAT_8000_0001_EDX, 20},
		{"xd", FEAT_8000_0001_EDX, 20},
		{"lm", FEAT_8000_0001_EDX, 29},
		{"svm", FEAT_8000_0001_ECX, 2},
		{"topoext", FEAT_8000_0001_ECX, 22},
		{"invtsc", FEAT_8000_0007_EDX, 8},
		{"clzero", FEAT_8000_0008_EBX, 0},
		{"ibpb", FEAT_8000_0008_EBX, 12},
		{"xsaveopt", FEAT_D_1_EAX, 0},
		{"arat", FEAT_6_EAX, 2},
		{"kvm-pv-eoi", FEAT_KVM, 6},
		{"kvm_pv_unhalt", FEAT_KVM, 7},
		{"kvmclock-stable-bit", FEAT_KVM, 24},
		{"mds-no", FEAT_ARCH_CAP, 5},
	};
	uint32_t mask[FEAT_WORDS];

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		ck_assert_msg(feature_mask(known[i].name, mask), "%s", known[i].name);
		ck_assert_msg(mask[known[i].w] == BIT(known[i].bit), "%s", known[i].name);
	}
	ck_assert(feature_mask("kvmclock", mask));
	ck_assert_uint_eq(mask[FEAT_KVM], BIT(0) | BIT(3));
	ck_assert(!feature_mask(".", mask));
	ck_assert(!feature_mask("", mask));
	ck_assert(!feature_mask("ss sse", mask));
	ck_assert(!feature_mask("sse22", mask));
}
END_TEST

START_TEST(model_table_is_sound)
{
	for (size_t i = 0; i < cpu_models_count; i++) {
		const struct cpu_model *m = &cpu_models[i];
		uint32_t word[FEAT_WORDS] = {0};
		bool base_found = !m->base;

		ck_assert_msg(features_apply(word, m->features), "%s has an unknown feature", m->name);
		for (size_t j = 0; j < i; j++) {
			base_found |= m->base && !strcmp(m->base, cpu_models[j].name);
			ck_assert_str_ne(m->name, cpu_models[j].name);
			if (m->version && cpu_models[j].version)
				ck_assert_str_ne(m->version, cpu_models[j].version);
		}
		ck_assert_msg(base_found, "%s: its base does not precede it", m->name);
		ck_assert_uint_le(strlen(m->model_id), 48);
	}
}
END_TEST

START_TEST(every_model_works)
{
	const char *name, *summary;

	for (size_t i = 0; (name = kvm_cpu_model_name(i, &summary)); i++) {
		struct kvm_vm *vm = full_host("GenuineIntel");

		setup(vm, name, &one);
		ck_assert_uint_gt(n_table, 3);
		ck_assert_uint_lt(n_table, ARRAY_SIZE(table));
		ck_assert_uint_eq(leaf(0, 0)->eax, vm->cpu.level);
		host_free(vm);
	}
}
END_TEST

/* What QEMU 7.2 gives a guest (pc-i440fx-7.2, KVM). */
START_TEST(known_models)
{
	struct kvm_vm *vm = full_host("GenuineIntel");

	setup(vm, "qemu64", &one);
	ck_assert_uint_eq(leaf(0, 0)->eax, 0xd);
	ck_assert_uint_eq(leaf(1, 0)->eax, 0x00060fb1);
	ck_assert_uint_eq(leaf(1, 0)->edx, 0x078bfbfd);
	ck_assert_uint_eq(leaf(1, 0)->ecx, 0x80202001);
	ck_assert_uint_eq(leaf(0x80000000, 0)->eax, 0x8000000a);
	ck_assert_uint_eq(leaf(0x80000001, 0)->edx, 0x20100800);
	ck_assert_mem_eq(&leaf(0x80000002, 0)->eax, "QEMU", 4);
	ck_assert_uint_eq(leaf(2, 0)->edx, 0x002c307d);

	setup(vm, "486", &one);
	ck_assert_uint_eq(leaf(0, 0)->eax, 1);
	ck_assert_uint_eq(leaf(1, 0)->eax, 0x480);
	ck_assert_uint_eq(leaf(1, 0)->edx, 0x0000000b);
	ck_assert_uint_eq(leaf(1, 0)->ecx, 0x80000000);
	ck_assert_ptr_null(leaf(0x80000000, 0));
	ck_assert_uint_eq(kvm_cpu_phys_bits(vm), 32);

	setup(vm, "pentium3", &one);
	ck_assert_uint_eq(leaf(1, 0)->eax, 0x673);
	ck_assert_uint_eq(leaf(1, 0)->edx, 0x0383fbff);
	ck_assert_uint_eq(kvm_cpu_phys_bits(vm), 36);

	setup(vm, "Haswell-noTSX", &one);
	ck_assert_uint_eq(leaf(1, 0)->eax, 0x000306c1);
	ck_assert(!shows(vm, "hle") && !shows(vm, "rtm") && shows(vm, "avx2") && shows(vm, "f16c"));
	ck_assert_uint_eq(leaf(7, 0)->ebx, 0x000007a9);
	ck_assert_uint_eq(leaf(0xd, 0)->eax, 7);
	ck_assert_uint_eq(leaf(0xd, 0)->ecx, 832);
	ck_assert_uint_eq(leaf(0xd, 2)->ebx, 576);
	ck_assert_str_eq(kvm_cpu_model(vm), "Haswell-noTSX");
	setup(vm, "Haswell-v2", &one);
	ck_assert_str_eq(kvm_cpu_model(vm), "Haswell-noTSX");
	host_free(vm);
}
END_TEST

START_TEST(features_on_and_off)
{
	struct kvm_vm *vm = full_host("GenuineIntel");

	setup(vm, "qemu64,+ssse3,-cx16,popcnt=on,lahf_lm=off,aes", &one);
	ck_assert(shows(vm, "ssse3") && shows(vm, "popcnt") && shows(vm, "aes"));
	ck_assert(!shows(vm, "cx16") && !shows(vm, "lahf-lm"));
	setup(vm, "Haswell,-xsave", &one); /* what needs it goes with it */
	ck_assert(!shows(vm, "avx") && !shows(vm, "avx2") && !shows(vm, "f16c") && !shows(vm, "xsaveopt"));
	setup(vm, "qemu64,kvm=off", &one);
	ck_assert_ptr_null(leaf(0x40000000, 0));
	setup(vm, "qemu64,-kvm", &one);
	ck_assert_ptr_null(leaf(0x40000000, 0));
	setup(vm, "qemu64,-kvmclock", &one);
	ck_assert_uint_eq(leaf(0x40000001, 0)->eax & (BIT(0) | BIT(3)), 0);
	ck_assert_mem_eq(&leaf(0x40000000, 0)->ebx, "KVMKVMKVM\0\0\0", 12);
	setup(vm, "host", &one);
	ck_assert(!shows(vm, "invtsc")); /* cannot migrate */
	setup(vm, "host,migratable=off", &one);
	ck_assert(shows(vm, "invtsc"));
	setup(vm, "host,+invtsc", &one);
	ck_assert(shows(vm, "invtsc"));
	setup(vm, "qemu64,vendor=AuthenticAMD,family=23,model=1,stepping=2,model-id=My,,CPU,phys-bits=42", &one);
	ck_assert_uint_eq(leaf(1, 0)->eax, 0x00800f12);
	ck_assert_mem_eq(&leaf(0x80000002, 0)->eax, "My,CPU\0\0", 8);
	ck_assert_uint_eq(leaf(0x80000008, 0)->eax, 42 | 48 << 8);
	ck_assert_mem_eq(&leaf(0, 0)->ebx, "Auth", 4);
	setup(vm, "486,+avx2,+xsave,+avx", &one); /* levels rise to show it */
	ck_assert_uint_ge(leaf(0, 0)->eax, 7);
	host_free(vm);
}
END_TEST

static void refused(struct kvm_vm *vm, const char *text, const char *expect)
{
	struct err e = ERR_INIT;

	ck_assert_msg(kvm_cpu_setup(vm, text, &one, &e) < 0, "%s was accepted", text);
	ck_assert_msg(strstr(e.msg, expect), "%s: '%s' lacks '%s'", text, e.msg, expect);
	ck_assert_ptr_null(strchr(e.msg, '\n'));
}

START_TEST(refusals)
{
	struct kvm_vm *vm =
		host("AuthenticAMD", "fpu tsc msr pae cx8 apic cmov sse sse2 syscall nx lm pni cx16 kvmclock");

	refused(vm, "Haswel", "Haswell");
	refused(vm, "qemu65", "qemu64");
	refused(vm, "xyzzy", "-cpu help");
	refused(vm, "qemu64,+avx2,+cx16", "avx2");
	refused(vm, "qemu64,+avx22", "did you mean 'avx2'");
	refused(vm, "qemu64,+amx-tile", "amx-tile");
	refused(vm, "qemu64,cx16=maybe", "on or off");
	refused(vm, "qemu64,vendor=Me", "12 characters");
	refused(vm, "qemu64,phys-bits=51", "32 to 46");
	refused(vm, "qemu64,family=-1", "number");
	refused(vm, "Haswell,enforce", "avx2");
	refused(vm, "", "no such CPU model");
	/* Without enforce the model's missing features are masked. */
	setup(vm, "Haswell", &one);
	ck_assert(!shows(vm, "avx") && shows(vm, "sse2"));
	ck_assert_uint_eq(leaf(7, 0)->ebx, 0);
	host_free(vm);
}
END_TEST

START_TEST(topology)
{
	const struct smp_opts smp = {12, 12, 2, 1, 3, 2};
	struct kvm_vm *vm = full_host("GenuineIntel");

	/* threads: 1 bit, cores: 2 bits, then the socket */
	ck_assert_uint_eq(kvm_apic_id(&smp, 0), 0);
	ck_assert_uint_eq(kvm_apic_id(&smp, 1), 1);
	ck_assert_uint_eq(kvm_apic_id(&smp, 2), 2);
	ck_assert_uint_eq(kvm_apic_id(&smp, 5), 5);
	ck_assert_uint_eq(kvm_apic_id(&smp, 6), 8);
	ck_assert_uint_eq(kvm_apic_id(&smp, 11), 13);
	setup(vm, "Haswell", &smp);
	make(vm, 11);
	ck_assert_uint_eq(leaf(1, 0)->ebx >> 24, 13);
	ck_assert_uint_eq(leaf(1, 0)->ebx >> 16 & 0xff, 6);
	ck_assert(leaf(1, 0)->edx & BIT(28));
	ck_assert_uint_eq(leaf(4, 0)->eax >> 14 & 0xfff, 1); /* L1: two threads */
	ck_assert_uint_eq(leaf(4, 0)->eax >> 26, 3);         /* ids for four cores */
	ck_assert_uint_eq(leaf(4, 3)->eax >> 14 & 0xfff, 7); /* L3: the package */
	ck_assert_uint_eq(leaf(4, 4)->eax, 0);
	ck_assert_uint_eq(leaf(0xb, 0)->eax, 1);
	ck_assert_uint_eq(leaf(0xb, 0)->ebx, 2);
	ck_assert_uint_eq(leaf(0xb, 1)->eax, 3);
	ck_assert_uint_eq(leaf(0xb, 1)->ebx, 6);
	ck_assert_uint_eq(leaf(0xb, 1)->edx, 13);
	ck_assert_uint_eq(leaf(0x80000008, 0)->ecx, 5 | 3 << 12);
	host_free(vm);

	vm = full_host("AuthenticAMD");
	setup(vm, "EPYC", &smp);
	make(vm, 3);
	ck_assert(leaf(0x80000001, 0)->ecx & BIT(1));
	ck_assert_uint_eq(leaf(0x8000001e, 0)->eax, 3);
	ck_assert_uint_eq(leaf(0x8000001e, 0)->ebx, 1 << 8 | 1);
	ck_assert_uint_eq(leaf(0x8000001d, 3)->eax >> 14 & 0xfff, 5);
	ck_assert_ptr_null(leaf(4, 0));
	host_free(vm);
}
END_TEST

START_TEST(help_lists_all)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	kvm_cpu_print_help(f);
	fclose(f);
	ck_assert(strstr(text, "Haswell-noTSX-IBRS"));
	ck_assert(strstr(text, "  host "));
	ck_assert(strstr(text, " avx512-vpopcntdq"));
	ck_assert(strstr(text, "kvm-pv-tlb-flush"));
	free(text);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("all");

	log_set_level(LOG_ERROR);
	tcase_add_test(c, names_have_their_bits);
	tcase_add_test(c, model_table_is_sound);
	tcase_add_test(c, every_model_works);
	tcase_add_test(c, known_models);
	tcase_add_test(c, features_on_and_off);
	tcase_add_test(c, refusals);
	tcase_add_test(c, topology);
	tcase_add_test(c, help_lists_all);
	return run_suite("cpuid", (TCase *[]){c, NULL});
}
