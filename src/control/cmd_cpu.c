/*
 * QMP: CPU models. What a model is made of and what this host lacks of it comes from the room of KVM; without KVM
 * (-accel qtest) models are listed by name only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "commands.h"
#include "vmm/kvm.h"

static const struct qmp_type definition_info =
	QMP_OBJECT("CpuDefinitionInfo", QMP_REQ("name", qmp_str), QMP_OPT("migration-safe", qmp_bool),
		   QMP_REQ("static", qmp_bool), QMP_OPT("unavailable-features", QMP_LIST_OF(qmp_str)),
		   QMP_REQ("typename", qmp_str), QMP_OPT("alias-of", qmp_str), QMP_REQ("deprecated", qmp_bool));
static const struct qmp_type expansion_type = QMP_ENUM("CpuModelExpansionType", "static", "full");
static const struct qmp_type model_info =
	QMP_OBJECT("CpuModelInfo", QMP_REQ("name", qmp_str), QMP_OPT("props", qmp_any));
static const struct qmp_type expansion_info = QMP_OBJECT("CpuModelExpansionInfo", QMP_REQ("model", model_info));

/* What the host's own features decide, is not the same CPU elsewhere. */
static bool follows_host(const char *name)
{
	return !strcmp(name, "host") || !strcmp(name, "max");
}

json_t *qmp_words(const char *words)
{
	json_t *list = json_array();

	for (const char *p = words; *p; p += *p == ' ') {
		size_t n = strcspn(p, " ");

		if (n)
			json_array_append_new(list, json_stringn(p, n));
		p += n;
	}
	return list;
}

static void add_unavailable(json_t *o, struct kvm_vm *vm, const char *model)
{
	struct kvm_cpu_view view;
	struct err e = ERR_INIT;

	if (!vm || kvm_cpu_expand(vm, model, &view, &e))
		return;
	json_object_set_new(o, "unavailable-features", qmp_words(view.missing));
	kvm_cpu_view_free(&view);
}

static json_t *query_cpu_definitions(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();
	const char *name, *summary;

	for (size_t i = 0; (name = kvm_cpu_model_name(i, &summary)); i++) {
		bool is_static = !strcmp(name, "base");
		char *type = xasprintf("%s-x86_64-cpu", name);
		json_t *o = json_pack("{s:s, s:s, s:b, s:b, s:b}", "name", name, "typename", type, "static", is_static,
				      "migration-safe", !follows_host(name), "deprecated", 0);

		if (kvm_cpu_model_alias(name))
			json_object_set_new(o, "alias-of", json_string(kvm_cpu_model_alias(name)));
		add_unavailable(o, machine_kvm(call->board), name);
		json_array_append_new(list, o);
		free(type);
	}
	return list;
}

/* ---- expansion ---- */

/* A model with properties as the text -cpu takes; malloc'ed. */
static char *cpu_text(const char *name, const json_t *props, struct err *e)
{
	const char *key;
	char *text = xstrdup(name);
	json_t *v;

	if (props && !json_is_object(props)) {
		err_set(e, EINVAL, "Invalid parameter type for 'model.props', expected: object");
		free(text);
		return NULL;
	}
	json_object_foreach((json_t *)props, key, v)
	{
		char *next = NULL;

		if (json_is_boolean(v))
			next = xasprintf("%s,%s=%s", text, key, json_is_true(v) ? "on" : "off");
		else if (json_is_integer(v))
			next = xasprintf("%s,%s=%lld", text, key, (long long)json_integer_value(v));
		else if (json_is_string(v) && !strchr(json_string_value(v), ','))
			next = xasprintf("%s,%s=%s", text, key, json_string_value(v));
		if (!next || strpbrk(key, ",="))
			err_set(e, EINVAL, "Invalid parameter type for 'model.props.%.200s'", key);
		free(text);
		text = next;
		if (e->code) {
			free(text);
			return NULL;
		}
	}
	return text;
}

/* All features there are, as booleans. */
json_t *qmp_cpu_features(const struct kvm_cpu_view *view)
{
	char *names = kvm_feature_names();
	json_t *all = qmp_words(names), *on = qmp_words(view->features), *o = json_object(), *v;
	size_t i;

	json_array_foreach(all, i, v)
	{
		json_object_set_new(o, json_string_value(v), json_false());
	}
	json_array_foreach(on, i, v)
	{
		json_object_set_new(o, json_string_value(v), json_true());
	}
	json_decref(all);
	json_decref(on);
	free(names);
	return o;
}

static json_t *describe_model(const struct kvm_cpu_view *view, bool full)
{
	json_t *o = qmp_cpu_features(view);

	json_object_set_new(o, "family", json_integer(view->family));
	json_object_set_new(o, "model", json_integer(view->model));
	json_object_set_new(o, "stepping", json_integer(view->stepping));
	json_object_set_new(o, "model-id", qmp_text(view->model_id));
	json_object_set_new(o, "vendor", qmp_text(view->vendor));
	if (full) {
		json_object_set_new(o, "level", json_integer(view->level));
		json_object_set_new(o, "xlevel", json_integer(view->xlevel));
		json_object_set_new(o, "phys-bits", json_integer(view->phys_bits));
	}
	return o;
}

/* static: the features as differences to "base", which never changes; full: under the model's own name. */
static json_t *query_cpu_model_expansion(struct qmp_call *call, struct err *e)
{
	const json_t *model = json_object_get(call->args, "model");
	const char *name = json_string_value(json_object_get(model, "name"));
	bool full = !strcmp(qmp_arg_str(call, "type"), "full");
	struct kvm_cpu_view view;
	json_t *result;
	char *text;
	int r;

	if (!machine_kvm(call->board)) {
		err_set(e, ENOTSUP,
			"CPU models are expanded against what KVM offers, and this machine runs without it");
		return NULL;
	}
	if (strchr(name, ',')) {
		err_set(e, EINVAL, "The CPU model '%.100s' is not known", name);
		return NULL;
	}
	text = cpu_text(name, json_object_get(model, "props"), e);
	r = text ? kvm_cpu_expand(machine_kvm(call->board), text, &view, e) : -EINVAL;
	free(text);
	if (r)
		return NULL;
	result = json_pack("{s:{s:s, s:o}}", "model", "name", full ? name : "base", "props",
			   describe_model(&view, full));
	kvm_cpu_view_free(&view);
	return result;
}

const struct qmp_command qmp_cpu_commands[] = {
	{"query-cpu-definitions", "CPU models, and what this host lacks of each.", "0.2", NULL,
	 &QMP_LIST_OF(definition_info), 0, 0, query_cpu_definitions},
	{"query-cpu-model-expansion", "The features behind a CPU model on this host.", "0.2",
	 QMP_MEMBERS(QMP_REQ("type", expansion_type), QMP_REQ("model", model_info)), &expansion_info, 0, 0,
	 query_cpu_model_expansion},
	{NULL},
};
