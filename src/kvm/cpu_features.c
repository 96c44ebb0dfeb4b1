/*
 * CPU features: their names (QEMU's), where CPUID shows them, and which depend on which. Sources: Intel SDM 2A CPUID,
 * AMD APM 3 Appendix E, Linux Documentation/virt/kvm/x86/cpuid.rst.
 *
 * Left out and refused by name: SGX, AMX, Intel PT, architectural LBR, the VIA leaves, the VMX control words (nested
 * VMX has KVM's default set when "vmx" is on) and Hyper-V enlightenments.
 */
#include "src/kvm/kvm_internal.h"

#include <stdlib.h>

/* Where a word of features is, and the names of its bits from bit 0 up ('.': none of ours). */
const struct feature_word_info feature_words[FEAT_WORDS] = {
	[FEAT_1_EDX] = {0x1, 0, REG_EDX,
			"fpu vme de pse tsc msr pae mce cx8 apic . sep mtrr pge mca cmov pat pse36 pn "
			"clflush . ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"},
	[FEAT_1_ECX] = {0x1, 0, REG_ECX,
			"pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid . fma cx16 xtpr pdcm "
			". pcid dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave . avx f16c "
			"rdrand hypervisor"},
	[FEAT_7_0_EBX] = {0x7, 0, REG_EBX,
			  "fsgsbase tsc-adjust . bmi1 hle avx2 . smep bmi2 erms invpcid rtm . . mpx . avx512f "
			  "avx512dq rdseed adx smap avx512ifma pcommit clflushopt clwb . avx512pf avx512er "
			  "avx512cd sha-ni avx512bw avx512vl"},
	[FEAT_7_0_ECX] = {0x7, 0, REG_ECX,
			  ". avx512vbmi umip pku . waitpkg avx512vbmi2 . gfni vaes vpclmulqdq avx512vnni "
			  "avx512bitalg . avx512-vpopcntdq . la57 . . . . . rdpid . bus-lock-detect cldemote . "
			  "movdiri movdir64b . . pks"},
	[FEAT_7_0_EDX] = {0x7, 0, REG_EDX,
			  ". . avx512-4vnniw avx512-4fmaps fsrm . . . avx512-vp2intersect . md-clear . . . "
			  "serialize . tsx-ldtrk . . . . . . avx512-fp16 . . spec-ctrl stibp . "
			  "arch-capabilities . ssbd"},
	[FEAT_7_1_EAX] = {0x7, 1, REG_EAX, ". . . . avx-vnni avx512-bf16 . . . . fzrm fsrs fsrc"},
	[FEAT_8000_0001_EDX] = {0x80000001, 0, REG_EDX,
				". . . . . . . . . . . syscall . . . . . . . . nx . mmxext . . fxsr-opt pdpe1gb "
				"rdtscp . lm 3dnowext 3dnow"},
	[FEAT_8000_0001_ECX] = {0x80000001, 0, REG_ECX,
				"lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw "
				"ibs xop skinit wdt . lwp fma4 tce . nodeid-msr . tbm topoext perfctr-core "
				"perfctr-nb"},
	[FEAT_8000_0007_EBX] = {0x80000007, 0, REG_EBX, "overflow-recov succor"},
	[FEAT_8000_0007_EDX] = {0x80000007, 0, REG_EDX, ". . . . . . . . invtsc"},
	[FEAT_8000_0008_EBX] = {0x80000008, 0, REG_EBX,
				"clzero . xsaveerptr . . . . . . wbnoinvd . . ibpb . ibrs amd-stibp . "
				"stibp-always-on . . . . . . amd-ssbd virt-ssbd amd-no-ssb . amd-psfd"},
	[FEAT_8000_000A_EDX] = {0x8000000a, 0, REG_EDX,
				"npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists . . "
				"pause-filter . pfthreshold avic . v-vmsave-vmload vgif . . . . . . . . vnmi . . "
				"svme-addr-chk"},
	[FEAT_8000_0021_EAX] = {0x80000021, 0, REG_EAX,
				"no-nested-data-bp . lfence-always-serializing . . . null-sel-clr-base . auto-ibrs"},
	[FEAT_D_1_EAX] = {0xd, 1, REG_EAX, "xsaveopt xsavec xgetbv1 xsaves"},
	[FEAT_6_EAX] = {0x6, 0, REG_EAX, ". . arat"},
	[FEAT_KVM] = {0x40000001, 0, REG_EAX,
		      "kvmclock kvm-nopiodelay kvm-mmu kvmclock kvm-asyncpf kvm-steal-time kvm-pv-eoi "
		      "kvm-pv-unhalt . kvm-pv-tlb-flush . kvm-pv-ipi kvm-poll-control kvm-pv-sched-yield "
		      "kvm-asyncpf-int kvm-msi-ext-dest-id . . . . . . . . kvmclock-stable-bit"},
	[FEAT_KVM_HINTS] = {0x40000001, 0, REG_EDX, "kvm-hint-dedicated"},
	[FEAT_ARCH_CAP] = {0x0, 0, REG_EAX,
			   "rdctl-no ibrs-all rsba skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no tsx-ctrl "
			   "taa-no . . . . sbdr-ssdp-no fbsdp-no psdp-no . fb-clear . . . . . . bhi-no pbrsb-no "
			   ". gds-no rfds-no"},
};

/* Other spellings QEMU accepts; '_' and '-' are the same in names. */
static const struct {
	const char *alias, *name;
} aliases[] = {
	{"sse3", "pni"}, {"sse4-1", "sse4.1"},  {"sse4-2", "sse4.2"},      {"i64", "lm"},
	{"xd", "nx"},    {"ffxsr", "fxsr-opt"}, {"pclmuldq", "pclmulqdq"},
};

/* A feature that means nothing without another goes with it. */
static const struct {
	const char *needed, *dependents;
} dependencies[] = {
	{"xsave", "avx pku xsaveopt xsavec xgetbv1 xsaves mpx"},
	{"avx", "fma f16c avx2 xop fma4 vaes vpclmulqdq avx-vnni"},
	{"avx2", "avx512f"},
	{"avx512f",
	 "avx512dq avx512ifma avx512pf avx512er avx512cd avx512bw avx512vl avx512vbmi avx512vbmi2 avx512vnni "
	 "avx512bitalg avx512-vpopcntdq avx512-4vnniw avx512-4fmaps avx512-vp2intersect avx512-bf16 avx512-fp16"},
	{"arch-capabilities", "rdctl-no ibrs-all rsba skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no tsx-ctrl taa-no "
			      "sbdr-ssdp-no fbsdp-no psdp-no fb-clear bhi-no pbrsb-no gds-no rfds-no"},
	{"svm",
	 "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists pause-filter pfthreshold avic "
	 "v-vmsave-vmload vgif vnmi svme-addr-chk"},
};

/* Next blank-separated word of *s into buf; false at the end. */
static bool next_word(const char **s, char *buf, size_t size)
{
	size_t n;

	while (**s == ' ')
		(*s)++;
	n = (size_t)(strchrnul(*s, ' ') - *s);
	if (!n)
		return false;
	memcpy(buf, *s, MIN(n, size - 1));
	buf[MIN(n, size - 1)] = 0;
	*s += n;
	return true;
}

/* The bits of a word's names that are called `want`. Every start looks up a few hundred names: no copies here. */
static uint32_t find_bits(const char *names, const char *want)
{
	size_t len = strlen(want);
	const char *counted = names;
	unsigned bit = 0;
	uint32_t bits = 0;

	for (const char *s = names; (s = strstr(s, want)); s += len) {
		if ((s > names && s[-1] != ' ') || (s[len] && s[len] != ' '))
			continue;
		for (; counted < s; counted++)
			bit += *counted == ' ';
		bits |= BIT(bit);
	}
	return bits;
}

bool feature_mask(const char *name, uint32_t mask[FEAT_WORDS])
{
	bool found = false;
	char want[40];

	snprintf(want, sizeof(want), "%s", name);
	for (char *p = want; *p; p++)
		if (*p == '_')
			*p = '-';
	for (size_t i = 0; i < ARRAY_SIZE(aliases); i++)
		if (!strcmp(want, aliases[i].alias))
			strcpy(want, aliases[i].name);
	if (!*want || strchr(want, ' ') || !strcmp(want, "."))
		return false;
	for (unsigned w = 0; w < FEAT_WORDS; w++) {
		const char *names = feature_words[w].names;

		mask[w] = names ? find_bits(names, want) : 0;
		found = found || mask[w];
	}
	return found;
}

uint32_t feature_named_bits(enum feature_word w)
{
	unsigned bit = 0;
	uint32_t bits = 0;

	for (const char *s = feature_words[w].names; *s; s++) {
		bool starts = s == feature_words[w].names || s[-1] == ' ';

		if (starts && *s != '.')
			bits |= BIT(bit);
		bit += *s == ' ';
	}
	return bits;
}

bool features_apply(uint32_t word[FEAT_WORDS], const char *list)
{
	bool all_known = true;
	char name[40];

	while (next_word(&list, name, sizeof(name))) {
		bool off = name[0] == '-';
		uint32_t mask[FEAT_WORDS];

		if (!feature_mask(name + off, mask)) {
			all_known = false;
			continue;
		}
		for (unsigned w = 0; w < FEAT_WORDS; w++)
			word[w] = off ? word[w] & ~mask[w] : word[w] | mask[w];
	}
	return all_known;
}

static bool any(const uint32_t word[FEAT_WORDS], const uint32_t mask[FEAT_WORDS])
{
	for (unsigned w = 0; w < FEAT_WORDS; w++)
		if (word[w] & mask[w])
			return true;
	return false;
}

void features_drop_dependents(uint32_t word[FEAT_WORDS])
{
	uint32_t mask[FEAT_WORDS];
	char name[40];

	for (size_t i = 0; i < ARRAY_SIZE(dependencies); i++) {
		const char *s = dependencies[i].dependents;

		if (!feature_mask(dependencies[i].needed, mask) || any(word, mask))
			continue;
		while (next_word(&s, name, sizeof(name)))
			if (feature_mask(name, mask))
				for (unsigned w = 0; w < FEAT_WORDS; w++)
					word[w] &= ~mask[w];
	}
}

char *features_names(const uint32_t mask[FEAT_WORDS])
{
	char *text = NULL, word[40];
	size_t len = 0;
	const char *sep = "";
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return xstrdup("");
	for (unsigned w = 0; w < FEAT_WORDS; w++) {
		const char *s = feature_words[w].names;

		for (unsigned bit = 0; next_word(&s, word, sizeof(word)); bit++) {
			bool second_kvmclock = w == FEAT_KVM && bit == 3 && mask[w] & BIT(0);

			if (!(mask[w] & BIT(bit)) || word[0] == '.' || second_kvmclock)
				continue;
			fprintf(f, "%s%s", sep, word);
			sep = " ";
		}
	}
	fclose(f);
	return text;
}

char *features_all_names(void)
{
	uint32_t all[FEAT_WORDS];

	memset(all, 0xff, sizeof(all));
	return features_names(all);
}

static void print_wrapped(FILE *out, const char *words)
{
	size_t column = 0;
	char word[40];

	while (next_word(&words, word, sizeof(word))) {
		if (column + strlen(word) + 1 > 76) {
			fputc('\n', out);
			column = 0;
		}
		column += (size_t)fprintf(out, "%s%s", column ? " " : "  ", word);
	}
	fputc('\n', out);
}

void kvm_cpu_print_help(FILE *out)
{
	char *names = features_all_names();
	const char *name, *summary;

	fprintf(out, "CPU models (-cpu MODEL[,+feature][,-feature][,option=value]):\n");
	for (size_t i = 0; (name = kvm_cpu_model_name(i, &summary)); i++)
		fprintf(out, "  %-26s %s\n", name, summary);
	fprintf(out, "\nFeatures:\n");
	print_wrapped(out, names);
	fprintf(out, "\nOptions:\n"
		     "  check=on|off           name features of the model the host lacks (default on)\n"
		     "  enforce=on|off         refuse to start if the host lacks one\n"
		     "  migratable=on|off      host and max: leave out what cannot migrate (default on)\n"
		     "  kvm=on|off             show the guest that it runs on KVM (default on)\n"
		     "  pmu=on|off             performance counters (default off)\n"
		     "  vendor=TEXT            12 characters (default: the host's)\n"
		     "  family= model= stepping= level= xlevel= model-id=TEXT\n"
		     "  phys-bits=N, host-phys-bits=on|off   width of physical addresses\n"
		     "  l3-cache=on|off, host-cache-info=on|off, cpuid-0xb=on|off\n"
		     "  tsc-frequency=HZ       refused unless the host can give it\n");
	free(names);
}
