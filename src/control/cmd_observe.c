/* QMP: seeing inside a guest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "commands.h"
#include "gdbstub.h"
#include "metrics.h"
#include "stats_vmm.h"
#include "vmm/kvm.h"

static json_t *gdbserver(struct qmp_call *call, struct err *e)
{
	const char *device = qmp_arg_str(call, "device");

	return gdbstub_start(call->board, device ? device : "tcp::1234", e) ? NULL : json_object();
}

static json_t *query_metrics(struct qmp_call *call, struct err *e)
{
	size_t len;
	char *text = metrics_text(call->board, METRICS_OPENMETRICS, &len);
	json_t *o = json_pack("{s:o}", "text", qmp_text_n(text, len));

	free(text);
	return o;
}

/* ---- query-stats ---- */

static const struct qmp_type stats_provider = QMP_ENUM("StatsProvider", "kvm", "x-vmm");
static const struct qmp_type stats_target = QMP_ENUM("StatsTarget", "vm", "vcpu", "x-drive", "x-nic");
static const struct qmp_type stats_request =
	QMP_OBJECT("StatsRequest", QMP_REQ("provider", stats_provider), QMP_OPT("names", QMP_LIST_OF(qmp_str)));
static const struct qmp_type stats_value = QMP_OBJECT("Stats", QMP_REQ("name", qmp_str), QMP_REQ("value", qmp_any));
static const struct qmp_type stats_result =
	QMP_OBJECT("StatsResult", QMP_REQ("provider", stats_provider), QMP_OPT("qom-path", qmp_str),
		   QMP_OPT("x-name", qmp_str), QMP_REQ("stats", QMP_LIST_OF(stats_value)));

static const char *const type_names[] = {
	[KVM_STAT_CUMULATIVE] = "cumulative",
	[KVM_STAT_INSTANT] = "instant",
	[KVM_STAT_PEAK] = "peak",
	[KVM_STAT_LINEAR_HISTOGRAM] = "linear-histogram",
	[KVM_STAT_LOG2_HISTOGRAM] = "log2-histogram",
};
static const char *const unit_names[] = {
	[KVM_STAT_BYTES] = "bytes",
	[KVM_STAT_SECONDS] = "seconds",
	[KVM_STAT_CYCLES] = "cycles",
	[KVM_STAT_BOOLEAN] = "boolean",
};

static const struct qmp_type stats_type =
	QMP_ENUM("StatsType", "cumulative", "instant", "peak", "linear-histogram", "log2-histogram");
static const struct qmp_type stats_unit = QMP_ENUM("StatsUnit", "bytes", "seconds", "cycles", "boolean");
static const struct qmp_type stats_schema_value = QMP_OBJECT(
	"StatsSchemaValue", QMP_REQ("name", qmp_str), QMP_REQ("type", stats_type), QMP_OPT("unit", stats_unit),
	QMP_OPT("base", qmp_int), QMP_REQ("exponent", qmp_int), QMP_OPT("bucket-size", qmp_int));
static const struct qmp_type stats_schema =
	QMP_OBJECT("StatsSchema", QMP_REQ("provider", stats_provider), QMP_REQ("target", stats_target),
		   QMP_REQ("stats", QMP_LIST_OF(stats_schema_value)));

/* An absent list names everything. */
static bool listed(const json_t *names, const char *name)
{
	size_t i;
	json_t *v;

	json_array_foreach(names, i, v) if (!strcmp(json_string_value(v), name)) return true;
	return !names;
}

static json_t *describe_value(const struct kvm_stat *st, const uint64_t *value)
{
	json_t *list;

	if (st->unit == KVM_STAT_BOOLEAN)
		return json_boolean(*value);
	if (st->type < KVM_STAT_LINEAR_HISTOGRAM)
		return json_integer((json_int_t)*value);
	list = json_array();
	for (unsigned i = 0; i < st->size; i++)
		json_array_append_new(list, json_integer((json_int_t)value[i]));
	return list;
}

/* One StatsResult, unless nothing of it is asked for. */
static int append_stats(json_t *results, struct kvm_vm *vm, int vcpu, const char *path, const json_t *names,
			struct err *e)
{
	const struct kvm_stat *stats;
	uint64_t *value;
	size_t at = 0;
	json_t *list, *o;
	int n = kvm_stats_get(vm, vcpu, &stats, &value);

	if (n < 0)
		return err_errno(e, -n, "KVM's statistics cannot be read");
	list = json_array();
	for (int i = 0; i < n; at += stats[i++].size)
		if (listed(names, stats[i].name))
			json_array_append_new(list, json_pack("{s:s, s:o}", "name", stats[i].name, "value",
							      describe_value(&stats[i], value + at)));
	free(value);
	if (!json_array_size(list)) {
		json_decref(list);
		return 0;
	}
	o = json_pack("{s:s, s:o}", "provider", "kvm", "stats", list);
	if (path)
		json_object_set_new(o, "qom-path", json_string(path));
	json_array_append_new(results, o);
	return 0;
}

/* KVM's own, of the VM or of vCPUs. */
static int collect_kvm(struct qmp_call *call, const char *target, const json_t *paths, const json_t *names,
		       json_t *results, struct err *e)
{
	struct kvm_vm *vm = machine_kvm(call->board);
	struct cpu_info info;
	int r = 0;

	if (vm && !strcmp(target, "vm"))
		r = append_stats(results, vm, -1, NULL, names, e);
	for (unsigned i = 0; !r && vm && !strcmp(target, "vcpu") && machine_cpu_info(call->board, i, &info); i++)
		if (listed(paths, info.path))
			r = append_stats(results, vm, (int)info.index, info.path, names, e);
	return r;
}

static json_t *query_stats(struct qmp_call *call, struct err *e)
{
	static const char *const all[] = {"kvm", "x-vmm"};
	const json_t *providers = json_object_get(call->args, "providers");
	const json_t *paths = json_object_get(call->args, "vcpus");
	const char *target = qmp_arg_str(call, "target");
	size_t n = providers ? json_array_size(providers) : ARRAY_SIZE(all);
	json_t *results = json_array();

	if (paths && strcmp(target, "vcpu"))
		err_set(e, EINVAL, "Parameter 'vcpus' is unexpected");
	for (size_t i = 0; !e->code && i < n; i++) {
		const json_t *request = json_array_get(providers, i), *names = json_object_get(request, "names");
		const char *provider = request ? json_string_value(json_object_get(request, "provider")) : all[i];

		if (!strcmp(provider, "kvm"))
			collect_kvm(call, target, paths, names, results, e);
		else
			stats_vmm_collect(call->board, target, paths, names, results);
	}
	if (!e->code)
		return results;
	json_decref(results);
	return NULL;
}

static json_t *describe_stat(const struct kvm_stat *st)
{
	json_t *o =
		json_pack("{s:s, s:s, s:i}", "name", st->name, "type", type_names[st->type], "exponent", st->exponent);

	if (st->unit != KVM_STAT_NO_UNIT)
		json_object_set_new(o, "unit", json_string(unit_names[st->unit]));
	if (st->exponent)
		json_object_set_new(o, "base", json_integer(st->base));
	if (st->type == KVM_STAT_LINEAR_HISTOGRAM)
		json_object_set_new(o, "bucket-size", json_integer(st->bucket_size));
	return o;
}

static json_t *query_stats_schemas(struct qmp_call *call, struct err *e)
{
	const char *provider = qmp_arg_str(call, "provider");
	struct kvm_vm *vm = provider && strcmp(provider, "kvm") ? NULL : machine_kvm(call->board);
	json_t *schemas = json_array();

	for (int vcpu = 0; vm && vcpu >= -1; vcpu--) {
		const struct kvm_stat *stats;
		int n = kvm_stats_get(vm, vcpu, &stats, NULL);
		json_t *list = json_array();

		for (int i = 0; i < n; i++)
			json_array_append_new(list, describe_stat(&stats[i]));
		json_array_append_new(schemas, json_pack("{s:s, s:s, s:o}", "provider", "kvm", "target",
							 vcpu < 0 ? "vm" : "vcpu", "stats", list));
	}
	if (!provider || strcmp(provider, "kvm"))
		stats_vmm_schemas(call->board, schemas);
	return schemas;
}

static const struct qmp_type metrics_result = QMP_OBJECT("XMetrics", QMP_REQ("text", qmp_str));

const struct qmp_command qmp_observe_commands[] = {
	{"x-gdbserver", "Serve gdb on a character device (default tcp::1234); none: end that.", "0.2",
	 QMP_MEMBERS(QMP_OPT("device", qmp_str)), NULL, 0, 0, gdbserver},
	{"x-query-metrics", "All metrics as OpenMetrics text.", "0.2", NULL, &metrics_result, 0, 0, query_metrics},
	{"query-stats",
	 "Counters by target: KVM's of the VM and vCPUs, and all metrics (x-vmm), also of drives and network cards.",
	 "0.2",
	 QMP_MEMBERS(QMP_REQ("target", stats_target), QMP_OPT("vcpus", QMP_LIST_OF(qmp_str)),
		     QMP_OPT("providers", QMP_LIST_OF(stats_request))),
	 &QMP_LIST_OF(stats_result), 0, 0, query_stats},
	{"query-stats-schemas", "What query-stats tells.", "0.2", QMP_MEMBERS(QMP_OPT("provider", stats_provider)),
	 &QMP_LIST_OF(stats_schema), 0, 0, query_stats_schemas},
	{NULL},
};
