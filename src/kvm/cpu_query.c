/*
 * CPU models as management tools ask for them: what a model is made of, what of it this host lacks, what "-cpu TEXT"
 * would give a guest. Nothing here changes the VM.
 */
#include "src/kvm/kvm_internal.h"

#include <stdlib.h>

const char *kvm_cpu_model_alias(const char *name)
{
	for (size_t i = 0; i < cpu_models_count; i++)
		if (!strcmp(cpu_models[i].name, name))
			return cpu_models[i].version;
	return NULL;
}

char *kvm_feature_names(void)
{
	return features_all_names();
}

static void fill(struct kvm_cpu_view *out, const struct cpu_def *d, const uint32_t missing[FEAT_WORDS])
{
	*out = (struct kvm_cpu_view){
		.family = d->family,
		.model = d->model_nr,
		.stepping = d->stepping,
		.level = d->level,
		.xlevel = d->xlevel,
		.phys_bits = d->phys_bits,
		.features = features_names(d->word),
		.missing = features_names(missing),
	};
	memcpy(out->vendor, d->vendor, sizeof(out->vendor));
	memcpy(out->model_id, d->model_id, sizeof(out->model_id));
}

int kvm_cpu_expand(struct kvm_vm *vm, const char *text, struct kvm_cpu_view *out, struct err *e)
{
	static const struct smp_opts one = {.cpus = 1, .maxcpus = 1, .sockets = 1, .dies = 1, .cores = 1, .threads = 1};
	uint32_t lacking[FEAT_WORDS];
	struct cpu_def d;
	int r = cpu_resolve(vm, text, &one, &d, lacking, e);

	if (r)
		return r;
	fill(out, &d, lacking);
	return 0;
}

int kvm_cpu_current(struct kvm_vm *vm, struct kvm_cpu_view *out)
{
	if (!vm->cpu_ready)
		return -ENODEV;
	fill(out, &vm->cpu, vm->cpu_missing);
	return 0;
}

void kvm_cpu_view_free(struct kvm_cpu_view *v)
{
	free(v->features);
	free(v->missing);
	v->features = v->missing = NULL;
}
