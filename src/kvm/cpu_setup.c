/*
 * -cpu: from the text to the CPU the guest will see. Names, options and defaults are QEMU's (pc-i440fx-7.2 under KVM),
 * with one difference: a feature asked for by name that the host lacks is an error, not a warning.
 */
#include "src/kvm/kvm_internal.h"

#include <cpuid.h>
#include <stdlib.h>

#define MSR_ARCH_CAPS 0x10a

/* What every named model gets as far as the host has it. */
static const char kvm_defaults[] = "hypervisor kvmclock kvm-nopiodelay kvm-asyncpf kvm-steal-time kvm-pv-eoi "
				   "kvmclock-stable-bit";
/* Bits this room derives from the topology whatever KVM reports. */
static const char always_offered[] = "ht cmp-legacy hypervisor arat x2apic";
/* `host` and `max` leave these out unless asked: they promise what the operator has to provide, or follow from -smp. */
static const char not_by_default[] = "-kvm-hint-dedicated -svm-lock -ht -cmp-legacy";

const char *kvm_cpu_model_name(size_t i, const char **summary)
{
	static const char *const special[][2] = {
		{"host", "the host's CPU with every feature KVM can give"},
		{"max", "every feature KVM can give; the same as host"},
		{"base", "no feature but those asked for"},
	};

	if (i < ARRAY_SIZE(special)) {
		*summary = special[i][1];
		return special[i][0];
	}
	i -= ARRAY_SIZE(special);
	if (i < cpu_models_count) {
		*summary = cpu_models[i].model_id;
		return cpu_models[i].name;
	}
	i -= cpu_models_count;
	for (size_t m = 0; m < cpu_models_count; m++)
		if (cpu_models[m].version && i-- == 0) {
			*summary = cpu_models[m].model_id;
			return cpu_models[m].version;
		}
	return NULL;
}

/* ---- what the host offers ---- */

static int fetch_supported(struct kvm_vm *vm, struct err *e)
{
	for (unsigned n = 128; n <= 1024 && !vm->supported; n *= 2) {
		struct kvm_cpuid2 *c = xzalloc(sizeof(*c) + n * sizeof(c->entries[0]));

		c->nent = n;
		if (ioctl(vm->sys_fd, KVM_GET_SUPPORTED_CPUID, c) == 0) {
			vm->supported = c;
			return 0;
		}
		free(c);
		if (errno != E2BIG)
			return err_errno(e, errno, "KVM does not tell which CPU features it supports");
	}
	return vm->supported ? 0 : err_set(e, E2BIG, "KVM reports an impossible number of CPUID leaves");
}

const struct kvm_cpuid_entry2 *cpuid_supported(struct kvm_vm *vm, uint32_t leaf, uint32_t sub)
{
	for (unsigned i = 0; i < vm->supported->nent; i++) {
		const struct kvm_cpuid_entry2 *k = &vm->supported->entries[i];

		if (k->function == leaf && (!(k->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || k->index == sub))
			return k;
	}
	return NULL;
}

static uint32_t arch_capabilities(struct kvm_vm *vm)
{
	union {
		struct kvm_msrs head;
		uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
	} m = {.room = {0}};
	struct kvm_msrs *k = &m.head;

	k->nmsrs = 1;
	k->entries[0].index = MSR_ARCH_CAPS;
	return ioctl(vm->sys_fd, KVM_GET_MSRS, k) == 1 ? (uint32_t)k->entries[0].data : 0;
}

static uint32_t register_of(const struct kvm_cpuid_entry2 *k, enum cpuid_reg reg)
{
	return reg == REG_EAX ? k->eax : reg == REG_EBX ? k->ebx : reg == REG_ECX ? k->ecx : k->edx;
}

static void host_features(struct kvm_vm *vm, uint32_t word[FEAT_WORDS])
{
	bool intel_like;
	const struct kvm_cpuid_entry2 *k = cpuid_supported(vm, 0, 0);

	intel_like = !k || k->ebx != signature_AMD_ebx;
	for (unsigned w = 0; w < FEAT_WORDS; w++) {
		k = w == FEAT_ARCH_CAP ? NULL : cpuid_supported(vm, feature_words[w].leaf, feature_words[w].sub);
		word[w] = k ? register_of(k, feature_words[w].reg) & feature_named_bits(w) : 0;
	}
	features_apply(word, always_offered);
	features_apply(word, "kvm-hint-dedicated");
	if (vm->caps.tsc_deadline)
		features_apply(word, "tsc-deadline");
	/* KVM emulates the register everywhere; AMD CPUs do not have it. */
	if (intel_like && word[FEAT_7_0_EDX] & BIT(29))
		word[FEAT_ARCH_CAP] = arch_capabilities(vm);
	else
		features_apply(word, "-arch-capabilities");
}

/* ---- models ---- */

static const struct cpu_model *find_model(const char *name)
{
	for (size_t i = 0; i < cpu_models_count; i++)
		if (!strcmp(cpu_models[i].name, name) ||
		    (cpu_models[i].version && !strcmp(cpu_models[i].version, name)))
			return &cpu_models[i];
	return NULL;
}

static void model_features(const struct cpu_model *m, uint32_t word[FEAT_WORDS])
{
	if (m->base)
		model_features(find_model(m->base), word);
	features_apply(word, m->features);
}

static void registers_to_text(char *text, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
	put_le32(text, a);
	put_le32(text + 4, b);
	put_le32(text + 8, c);
	put_le32(text + 12, d);
}

static void host_identity(struct kvm_vm *vm, struct cpu_def *d)
{
	const struct kvm_cpuid_entry2 *k = cpuid_supported(vm, 0x80000000u, 0);
	uint32_t a, b, c, dx;

	if (__get_cpuid(1, &a, &b, &c, &dx)) {
		d->family = (a >> 8 & 15) + ((a >> 8 & 15) == 15 ? a >> 20 & 0xff : 0);
		d->model_nr = (a >> 4 & 15) | (a >> 12 & 0xf0);
		d->stepping = a & 15;
	}
	for (unsigned i = 0; i < 3; i++)
		if (__get_cpuid(0x80000002u + i, &a, &b, &c, &dx))
			registers_to_text(d->model_id + 16 * i, a, b, c, dx);
	d->xlevel = k ? MIN(k->eax, 0x80000021u) : 0;
	k = cpuid_supported(vm, 0, 0);
	d->level = k ? MIN(k->eax, 0x1fu) : 1;
}

static unsigned host_phys_bits(struct kvm_vm *vm)
{
	const struct kvm_cpuid_entry2 *k = cpuid_supported(vm, 0x80000008u, 0);
	unsigned bits = k ? k->eax & 0xff : 0;

	return bits >= 32 && bits <= 52 ? bits : 36;
}

static int choose_model(struct kvm_vm *vm, const char *name, const uint32_t host[FEAT_WORDS], struct cpu_def *d,
			struct err *e)
{
	const struct cpu_model *m = find_model(name);
	const struct kvm_cpuid_entry2 *k = cpuid_supported(vm, 0, 0);
	const char *names[256], *summary, *near;
	size_t n = 0;

	if (k) {
		put_le32(d->vendor, k->ebx);
		put_le32(d->vendor + 4, k->edx);
		put_le32(d->vendor + 8, k->ecx);
	}
	if (!strcmp(name, "host") || !strcmp(name, "max")) {
		host_identity(vm, d);
		memcpy(d->word, host, sizeof(d->word));
		features_apply(d->word, not_by_default);
		d->model = !strcmp(name, "host") ? "host" : "max";
		d->phys_bits = host_phys_bits(vm);
		return 0;
	}
	if (!strcmp(name, "base")) {
		d->model = "base";
		return 0;
	}
	if (!m) {
		while (n < ARRAY_SIZE(names) && (names[n] = kvm_cpu_model_name(n, &summary)))
			n++;
		near = err_nearest(name, names, n);
		return err_set(e, EINVAL, "-cpu %s: no such CPU model%s%s%s; '-cpu help' lists them", name,
			       near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
	}
	d->model = m->name;
	d->family = m->family;
	d->model_nr = m->model;
	d->stepping = m->stepping;
	d->level = m->level;
	d->xlevel = m->xlevel;
	snprintf(d->model_id, sizeof(d->model_id), "%s", m->model_id);
	model_features(m, d->word);
	return 0;
}

/* ---- options ---- */

struct request {
	struct cpu_def *d;
	const char *only;                         /* features, by name; NULL: all that are asked for */
	uint32_t on[FEAT_WORDS], off[FEAT_WORDS]; /* asked for by name */
	bool enforce, check, migratable, host_phys_bits;
	uint32_t lacking[FEAT_WORDS]; /* of the model, on this host */
	uint32_t phys_bits;
};

static int parse_bool(const char *name, const char *value, bool *out, struct err *e)
{
	if (!strcmp(value, "on") || !strcmp(value, "yes") || !strcmp(value, "true"))
		*out = true;
	else if (!strcmp(value, "off") || !strcmp(value, "no") || !strcmp(value, "false"))
		*out = false;
	else
		return err_set(e, EINVAL, "-cpu: %s=%s: must be on or off", name, value);
	return 0;
}

static int parse_number(const char *name, const char *value, uint64_t max, uint64_t *out, struct err *e)
{
	char *end;

	errno = 0;
	*out = strtoull(value, &end, 0);
	if (errno || end == value || *end || *value == '-' || *out > max)
		return err_set(e, EINVAL, "-cpu: %s=%s: must be a number from 0 to %llu", name, value,
			       (unsigned long long)max);
	return 0;
}

static int set_number(struct request *q, const char *name, const char *value, bool *known, struct err *e)
{
	struct cpu_def *d = q->d;
	const struct {
		const char *name;
		uint32_t *to;
		uint64_t max;
	} numbers[] = {
		{"family", &d->family, 0xff + 15},   {"model", &d->model_nr, 0xff},
		{"stepping", &d->stepping, 15},      {"level", &d->level, 0x1f},
		{"xlevel", &d->xlevel, 0x80000021u}, {"phys-bits", &q->phys_bits, 52},
	};
	uint64_t v;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		if (strcmp(name, numbers[i].name))
			continue;
		*known = true;
		r = parse_number(name, value, numbers[i].max, &v, e);
		if (r == 0)
			*numbers[i].to = (uint32_t)v;
		return r;
	}
	if (!strcmp(name, "tsc-frequency")) {
		*known = true;
		return parse_number(name, value, 100000000000ull, &d->tsc_hz, e);
	}
	return 0;
}

static int set_text(struct cpu_def *d, const char *name, const char *value, bool *known, struct err *e)
{
	if (!strcmp(name, "vendor")) {
		*known = true;
		if (strlen(value) != 12)
			return err_set(e, EINVAL, "-cpu: vendor=%s: must have 12 characters, such as GenuineIntel",
				       value);
		strcpy(d->vendor, value);
	} else if (!strcmp(name, "model-id")) {
		*known = true;
		if (strlen(value) > 48)
			return err_set(e, EINVAL, "-cpu: model-id: must have at most 48 characters");
		memset(d->model_id, 0, sizeof(d->model_id));
		strcpy(d->model_id, value);
	}
	return 0;
}

static int set_switch(struct request *q, const char *name, const char *value, bool *known, struct err *e)
{
	bool ignored;
	const struct {
		const char *name;
		bool *to;
	} switches[] = {
		{"check", &q->check},
		{"enforce", &q->enforce},
		{"migratable", &q->migratable},
		{"host-phys-bits", &q->host_phys_bits},
		{"kvm", &q->d->expose_kvm},
		{"l3-cache", &q->d->l3_cache},
		{"pmu", &q->d->pmu},
		{"host-cache-info", &q->d->host_cache},
		{"cpuid-0xb", &q->d->cpuid_0xb},
		{"legacy-cache", &ignored},
	};

	for (size_t i = 0; i < ARRAY_SIZE(switches); i++)
		if (!strcmp(name, switches[i].name)) {
			*known = true;
			return parse_bool(name, value, switches[i].to, e);
		}
	return 0;
}

static int unknown_name(const char *name, struct err *e)
{
	static const char options[] =
		" check enforce migratable host-phys-bits kvm l3-cache pmu host-cache-info cpuid-0xb "
		"family model stepping level xlevel phys-bits tsc-frequency vendor model-id";
	char *all = features_all_names(), *text = xasprintf("%s%s", all, options), *save = NULL;
	const char *names[512], *near;
	size_t n = 0;

	for (char *w = strtok_r(text, " ", &save); w && n < ARRAY_SIZE(names); w = strtok_r(NULL, " ", &save))
		names[n++] = w;
	near = err_nearest(name, names, n);
	if (near)
		err_set(e, EINVAL, "-cpu: no feature or option is called '%s'; did you mean '%s'?", name, near);
	else
		err_set(e, EINVAL, "-cpu: no feature or option is called '%s'; '-cpu help' lists them", name);
	free(all);
	free(text);
	return -EINVAL;
}

static int set_feature(struct request *q, const char *name, bool on, struct err *e)
{
	uint32_t mask[FEAT_WORDS];
	bool known = false;
	int r = set_switch(q, name, on ? "on" : "off", &known, e); /* "-kvm", "+pmu" */

	if (known)
		return r;
	if (!feature_mask(name, mask))
		return unknown_name(name, e);
	for (unsigned w = 0; w < FEAT_WORDS; w++) {
		q->on[w] = on ? q->on[w] | mask[w] : q->on[w] & ~mask[w];
		q->off[w] = on ? q->off[w] & ~mask[w] : q->off[w] | mask[w];
	}
	return 0;
}

/* One item after the model: "+f", "-f", "f", "f=on", "option=value". */
static int parse_item(struct request *q, char *item, struct err *e)
{
	char *value = strchr(item, '=');
	bool known = false, on = true;
	int r;

	if (item[0] == '+' || item[0] == '-')
		return set_feature(q, item + 1, item[0] == '+', e);
	if (value)
		*value++ = 0;
	for (char *p = item; *p; p++)
		if (*p == '_')
			*p = '-';
	if (!value) {
		r = set_switch(q, item, "on", &known, e);
		return known ? r : set_feature(q, item, true, e);
	}
	r = set_number(q, item, value, &known, e);
	if (!known)
		r = set_text(q->d, item, value, &known, e);
	if (!known)
		r = set_switch(q, item, value, &known, e);
	if (known)
		return r;
	r = parse_bool(item, value, &on, e);
	return r < 0 ? (feature_mask(item, (uint32_t[FEAT_WORDS]){0}) ? r : unknown_name(item, e))
		     : set_feature(q, item, on, e);
}

/* The next comma-separated item of *s, ",," meaning one comma; malloc'ed, NULL at the end. */
static char *next_item(const char **s)
{
	char *item, *out;

	if (!*s)
		return NULL;
	item = out = xzalloc(strlen(*s) + 1);
	for (; **s; (*s)++) {
		if (**s == ',' && (*s)[1] != ',')
			break;
		if (**s == ',')
			(*s)++;
		*out++ = **s;
	}
	*s = **s ? *s + 1 : NULL;
	return item;
}

static int parse_items(struct request *q, const char *rest, struct err *e)
{
	char *item;
	int r = 0;

	while (r == 0 && (item = next_item(&rest))) {
		if (*item)
			r = parse_item(q, item, e);
		free(item);
	}
	return r;
}

/* ---- against the host ---- */

static bool missing(const uint32_t want[FEAT_WORDS], const uint32_t have[FEAT_WORDS], uint32_t out[FEAT_WORDS])
{
	bool some = false;

	for (unsigned w = 0; w < FEAT_WORDS; w++) {
		out[w] = want[w] & ~have[w];
		some |= out[w] != 0;
	}
	return some;
}

static int filter(struct request *q, const uint32_t host[FEAT_WORDS], const char *text, struct err *e)
{
	struct cpu_def *d = q->d;
	uint32_t *lacking = q->lacking;
	char *names;

	if (missing(q->on, host, lacking)) {
		names = features_names(lacking);
		err_set(e, ENOTSUP, "-cpu %s: this host does not offer its guests: %s", text, names);
		free(names);
		return -ENOTSUP;
	}
	for (unsigned w = 0; w < FEAT_WORDS; w++)
		d->word[w] = (d->word[w] | q->on[w]) & ~q->off[w];
	features_drop_dependents(d->word);
	if (missing(d->word, host, lacking)) {
		names = features_names(lacking);
		if (q->enforce) {
			err_set(e, ENOTSUP, "-cpu %s: this host lacks of model %s: %s", text, d->model, names);
			free(names);
			return -ENOTSUP;
		}
		if (q->check)
			log_warn("kvm", "this host lacks features of CPU model %s, the guest runs without them: %s",
				 d->model, names);
		free(names);
		for (unsigned w = 0; w < FEAT_WORDS; w++)
			d->word[w] &= host[w];
		features_drop_dependents(d->word);
	}
	return 0;
}

/* Nothing but what is in the list; bits without a name are the model's. */
static void limit(struct cpu_def *d, const char *features)
{
	uint32_t keep[FEAT_WORDS] = {0};

	features_apply(keep, features);
	for (unsigned w = 0; w < FEAT_WORDS; w++)
		d->word[w] &= keep[w] | ~feature_named_bits(w);
}

/* The highest leaves have to reach the features shown there. */
static void adjust_levels(struct cpu_def *d)
{
	for (unsigned w = 0; w < FEAT_WORDS; w++) {
		uint32_t leaf = feature_words[w].leaf;

		if (!d->word[w] || w == FEAT_ARCH_CAP || w == FEAT_KVM || w == FEAT_KVM_HINTS)
			continue;
		if (leaf >= 0x80000000u)
			d->xlevel = MAX(d->xlevel, leaf);
		else
			d->level = MAX(d->level, leaf);
	}
	if (d->smp.dies > 1)
		d->level = MAX(d->level, 0x1fu);
}

static int choose_phys_bits(struct kvm_vm *vm, struct request *q, struct err *e)
{
	struct cpu_def *d = q->d;
	unsigned host = host_phys_bits(vm);
	unsigned needed = vm->ram_end > 1 ? 64 - (unsigned)__builtin_clzll(vm->ram_end - 1) : 0;

	if (q->phys_bits) {
		if (q->phys_bits < 32 || q->phys_bits > host)
			return err_set(e, ENOTSUP, "-cpu: phys-bits=%u: this host allows 32 to %u", q->phys_bits, host);
		d->phys_bits = q->phys_bits;
	} else if (q->host_phys_bits) {
		d->phys_bits = host;
	} else if (!d->phys_bits) {
		d->phys_bits = d->word[FEAT_8000_0001_EDX] & BIT(29) ? MIN(MAX(40u, needed), host)
			       : d->word[FEAT_1_EDX] & BIT(17)       ? 36
								     : 32;
	}
	return 0;
}

static int setup(struct kvm_vm *vm, struct request *q, const char *text, const char *model, const char *rest,
		 struct err *e)
{
	uint32_t host[FEAT_WORDS], lacking[FEAT_WORDS];
	int r;

	host_features(vm, host);
	r = choose_model(vm, model, host, q->d, e);
	if (r < 0)
		return r;
	if (find_model(model)) {
		uint32_t defaults[FEAT_WORDS] = {0};

		features_apply(defaults, kvm_defaults);
		if (q->d->word[FEAT_1_EDX] & BIT(9))
			features_apply(defaults, "x2apic");
		missing(defaults, host, lacking);
		for (unsigned w = 0; w < FEAT_WORDS; w++)
			q->d->word[w] |= defaults[w] & ~lacking[w];
	}
	r = parse_items(q, rest, e);
	if (r == 0 && q->migratable)
		features_apply(q->d->word, "-invtsc"); /* unless asked for by name */
	if (r == 0)
		r = filter(q, host, text, e);
	if (r == 0 && q->only)
		limit(q->d, q->only);
	if (r == 0)
		r = choose_phys_bits(vm, q, e);
	return r;
}

/* From the text to q->d, without side effects. */
static int resolve(struct kvm_vm *vm, struct request *q, const char *text, const struct smp_opts *smp, struct err *e)
{
	struct cpu_def *d = q->d;
	const char *rest = text;
	char *model;
	int r = vm->supported ? 0 : fetch_supported(vm, e);

	if (r < 0)
		return r;
	*d = (struct cpu_def){.expose_kvm = true, .l3_cache = true, .cpuid_0xb = true, .smp = *smp};
	model = next_item(&rest);
	r = setup(vm, q, text, model, rest, e);
	free(model);
	if (r < 0)
		return r;
	if (!d->expose_kvm)
		d->word[FEAT_KVM] = d->word[FEAT_KVM_HINTS] = 0;
	if (smp->cores * smp->threads * smp->dies > 1 && d->word[FEAT_1_EDX])
		d->word[FEAT_1_EDX] |= BIT(28); /* HT: leaf 1 EBX counts the package's logical CPUs */
	adjust_levels(d);
	return 0;
}

int cpu_resolve(struct kvm_vm *vm, const char *text, const struct smp_opts *smp, struct cpu_def *d,
		uint32_t lacking[FEAT_WORDS], struct err *e)
{
	struct request q = {.d = d, .migratable = true};
	int r = resolve(vm, &q, text, smp, e);

	memcpy(lacking, q.lacking, sizeof(q.lacking));
	return r;
}

int kvm_cpu_setup(struct kvm_vm *vm, const char *text, const struct smp_opts *smp, struct err *e)
{
	return kvm_cpu_setup_limited(vm, text, NULL, smp, e);
}

int kvm_cpu_setup_limited(struct kvm_vm *vm, const char *text, const char *features, const struct smp_opts *smp,
			  struct err *e)
{
	struct cpu_def d;
	struct request q = {.d = &d, .only = features, .check = text != NULL, .migratable = true};
	int r = resolve(vm, &q, text ? text : "qemu64", smp, e);

	if (r < 0)
		return r;
	vm->cpu = d;
	memcpy(vm->cpu_missing, q.lacking, sizeof(q.lacking));
	vm->cpu_ready = true;
	return 0;
}

const char *kvm_cpu_model(struct kvm_vm *vm)
{
	return vm->cpu.model;
}

char *kvm_cpu_features(struct kvm_vm *vm)
{
	return features_names(vm->cpu.word);
}

bool kvm_can_nest(const struct kvm_vm *vm)
{
	return vm->caps.nested_size &&
	       (vm->cpu.word[FEAT_1_ECX] & BIT(5) /* VMX */ || vm->cpu.word[FEAT_8000_0001_ECX] & BIT(2) /* SVM */);
}

char *kvm_state_needs(struct kvm_vm *vm)
{
	char nested[32] = "";

	if (kvm_can_nest(vm))
		snprintf(nested, sizeof(nested), " nested=%zu", vm->caps.nested_size);
	return xasprintf("xsave=%zu%s%s%s", vm->caps.xsave_size, nested, vm->caps.xcrs ? " xcrs" : "",
			 vm->caps.debugregs ? " debugregs" : "");
}

/* One word: the same name, and room for as many bytes. */
static bool is_met(const char *word, size_t len, const char *has)
{
	size_t name = MIN(strcspn(word, "="), len);

	for (const char *h = has; *h; h += strcspn(h, " "), h += *h == ' ')
		if (!strncmp(h, word, name) && (!h[name] || strchr("= ", h[name])))
			return name == len || (h[name] == '=' &&
					       strtoull(word + name + 1, NULL, 10) <= strtoull(h + name + 1, NULL, 10));
	return false;
}

const char *kvm_state_lacks(const char *needs, const char *has)
{
	while (*needs) {
		size_t len = strcspn(needs, " ");

		if (!is_met(needs, len, has))
			return needs;
		needs += len;
		needs += *needs == ' ';
	}
	return NULL;
}

unsigned kvm_cpu_phys_bits(struct kvm_vm *vm)
{
	return vm->cpu.phys_bits;
}
