/* QMP types: checking values against them, and query-qmp-schema, which is nothing but the tables printed. */
#include "qmp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const struct qmp_type qmp_str = {.name = "str", .kind = QMP_KIND_STR};
const struct qmp_type qmp_int = {.name = "int", .kind = QMP_KIND_INT};
const struct qmp_type qmp_size = {.name = "int", .kind = QMP_KIND_SIZE};
const struct qmp_type qmp_number = {.name = "number", .kind = QMP_KIND_NUMBER};
const struct qmp_type qmp_bool = {.name = "bool", .kind = QMP_KIND_BOOL};
const struct qmp_type qmp_null = {.name = "null", .kind = QMP_KIND_NULL};
const struct qmp_type qmp_any = {.name = "any", .kind = QMP_KIND_ANY};

/* ---- checking ---- */

static const char *const kind_names[] = {
	[QMP_KIND_STR] = "string",    [QMP_KIND_INT] = "integer",         [QMP_KIND_SIZE] = "integer",
	[QMP_KIND_NUMBER] = "number", [QMP_KIND_BOOL] = "boolean",        [QMP_KIND_NULL] = "null",
	[QMP_KIND_ANY] = "any",       [QMP_KIND_ENUM] = "string",         [QMP_KIND_OBJECT] = "object",
	[QMP_KIND_ARRAY] = "array",   [QMP_KIND_ALTERNATE] = "alternate",
};

static bool fits(const struct qmp_type *t, const json_t *v)
{
	switch (t->kind) {
	case QMP_KIND_STR:
	case QMP_KIND_ENUM:
		return json_is_string(v);
	case QMP_KIND_INT:
	case QMP_KIND_SIZE:
		return json_is_integer(v);
	case QMP_KIND_NUMBER:
		return json_is_number(v);
	case QMP_KIND_BOOL:
		return json_is_boolean(v);
	case QMP_KIND_NULL:
		return json_is_null(v);
	case QMP_KIND_OBJECT:
		return json_is_object(v);
	case QMP_KIND_ARRAY:
		return json_is_array(v);
	default:
		return true;
	}
}

static const char *last_part(const char *path)
{
	const char *dot = strrchr(path, '.');

	return dot ? dot + 1 : path;
}

static int check_enum(const struct qmp_type *t, const char *text, const char *path, struct err *e)
{
	const char *v;

	for (size_t i = 0; (v = t->value_at ? t->value_at(i) : t->values[i]); i++)
		if (!strcmp(v, text))
			return 0;
	return err_set(e, EINVAL, "Parameter '%s' does not accept value '%.200s'", last_part(path), text);
}

static int check_array(const struct qmp_type *t, const json_t *array, const char *path, struct err *e)
{
	char inner[256];
	json_t *item;
	size_t i;

	json_array_foreach(array, i, item)
	{
		int ret;

		snprintf(inner, sizeof(inner), "%s[%zu]", path, i);
		ret = qmp_check(t->element, item, inner, e);
		if (ret)
			return ret;
	}
	return 0;
}

static int check_alternate(const struct qmp_type *t, const json_t *v, const char *path, struct err *e)
{
	for (size_t i = 0; t->choices[i]; i++)
		if (fits(t->choices[i], v))
			return qmp_check(t->choices[i], v, path, e);
	return err_set(e, EINVAL, "Invalid parameter type for '%s', expected: %s", path, t->name);
}

static const struct qmp_member *find_member(const struct qmp_member *m, const char *name)
{
	for (; m && m->name; m++)
		if (!strcmp(m->name, name))
			return m;
	return NULL;
}

/* Members given against those that exist; `more`: of the selected variant, may be NULL; open: others may be there. */
static int check_object(const struct qmp_member *members, const struct qmp_member *more, bool open,
			const json_t *object, const char *path, struct err *e)
{
	const struct qmp_member *lists[] = {members, more};
	const char *dot = *path ? "." : "";
	char inner[256];
	const char *key;
	json_t *v;
	int ret;

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		for (const struct qmp_member *m = lists[i]; m && m->name; m++) {
			snprintf(inner, sizeof(inner), "%s%s%s", path, dot, m->name);
			v = json_object_get(object, m->name);
			if (!v && !m->optional)
				return err_set(e, EINVAL, "Parameter '%s' is missing", inner);
			ret = v ? qmp_check(m->type, v, inner, e) : 0;
			if (ret)
				return ret;
		}
	}
	json_object_foreach((json_t *)object, key, v)
	{
		if (!open && !find_member(members, key) && !find_member(more, key))
			return err_set(e, EINVAL, "Parameter '%s%s%.200s' is unexpected", path, dot, key);
	}
	return 0;
}

static int check_union(const struct qmp_type *t, const json_t *object, const char *path, struct err *e)
{
	const char *tag = json_string_value(json_object_get(object, t->tag));
	const struct qmp_member *tag_member = find_member(t->members, t->tag);
	char inner[256];
	int ret;

	snprintf(inner, sizeof(inner), "%s%s%s", path, *path ? "." : "", t->tag);
	if (!tag)
		return err_set(e, EINVAL,
			       json_object_get(object, t->tag) ? "Invalid parameter type for '%s', expected: string"
							       : "Parameter '%s' is missing",
			       inner);
	ret = check_enum(tag_member->type, tag, inner, e);
	if (ret)
		return ret;
	for (const struct qmp_variant *v = t->variants; v->value; v++)
		if (!strcmp(v->value, tag))
			return check_object(t->members, v->members, t->open, object, path, e);
	return check_object(t->members, NULL, t->open, object, path, e);
}

int qmp_check(const struct qmp_type *t, const json_t *value, const char *path, struct err *e)
{
	if (!fits(t, value))
		return err_set(e, EINVAL, "Invalid parameter type for '%s', expected: %s", path, kind_names[t->kind]);
	switch (t->kind) {
	case QMP_KIND_SIZE:
		if (json_integer_value(value) >= 0)
			return 0;
		return err_set(e, EINVAL, "Parameter '%s' expects a non-negative integer", path);
	case QMP_KIND_ENUM:
		return check_enum(t, json_string_value(value), path, e);
	case QMP_KIND_ARRAY:
		return check_array(t, value, path, e);
	case QMP_KIND_ALTERNATE:
		return check_alternate(t, value, path, e);
	case QMP_KIND_OBJECT:
		return t->tag ? check_union(t, value, path, e)
			      : check_object(t->members, NULL, t->open, value, path, e);
	default:
		return 0;
	}
}

int qmp_check_members(const struct qmp_member *members, const json_t *object, const char *path, struct err *e)
{
	return check_object(members, NULL, false, object, path, e);
}

/* ---- the schema ---- */

struct schema {
	json_t *list, *seen; /* seen: names already in the list */
};

static void add_type(struct schema *s, const struct qmp_type *t);

/* Arrays have no name of their own: "[ELEMENT]"; there are none of arrays. */
static void type_name(const struct qmp_type *t, char *buf, size_t size)
{
	bool array = t->kind == QMP_KIND_ARRAY;

	snprintf(buf, size, "%s%s%s", array ? "[" : "", array ? t->element->name : t->name, array ? "]" : "");
}

static json_t *type_ref(struct schema *s, const struct qmp_type *t)
{
	char name[128];

	add_type(s, t);
	type_name(t, name, sizeof(name));
	return json_string(name);
}

static json_t *describe_members(struct schema *s, const struct qmp_member *m)
{
	json_t *out = json_array();

	for (; m && m->name; m++) {
		json_t *o = json_object();

		json_object_set_new(o, "name", json_string(m->name));
		json_object_set_new(o, "type", type_ref(s, m->type));
		if (m->optional)
			json_object_set_new(o, "default", json_null());
		json_array_append_new(out, o);
	}
	return out;
}

static void describe_enum(json_t *o, const struct qmp_type *t)
{
	json_t *values = json_array(), *members = json_array();
	const char *v;

	for (size_t i = 0; (v = t->value_at ? t->value_at(i) : t->values[i]); i++) {
		json_array_append_new(values, json_string(v));
		json_array_append_new(members, json_pack("{s:s}", "name", v));
	}
	json_object_set_new(o, "values", values);
	json_object_set_new(o, "members", members);
}

/* An object type made of a bare member list (arguments, event data, variants); NULL: the empty one. */
static json_t *add_object(struct schema *s, const char *name, const struct qmp_member *members)
{
	if (!members || !members->name)
		name = "q_empty";
	if (!json_object_get(s->seen, name)) {
		json_object_set_new(s->seen, name, json_true());
		json_array_append_new(s->list, json_pack("{s:s, s:s, s:o}", "name", name, "meta-type", "object",
							 "members", describe_members(s, members)));
	}
	return json_string(name);
}

static void describe_union(struct schema *s, json_t *o, const struct qmp_type *t)
{
	json_t *variants = json_array();

	for (const struct qmp_variant *v = t->variants; v->value; v++) {
		char name[128];

		snprintf(name, sizeof(name), "%s-%s", t->name, v->value);
		json_array_append_new(
			variants, json_pack("{s:s, s:o}", "case", v->value, "type", add_object(s, name, v->members)));
	}
	json_object_set_new(o, "tag", json_string(t->tag));
	json_object_set_new(o, "variants", variants);
}

static void add_type(struct schema *s, const struct qmp_type *t)
{
	static const char *const json_types[] = {
		[QMP_KIND_STR] = "string",    [QMP_KIND_INT] = "int",      [QMP_KIND_SIZE] = "int",
		[QMP_KIND_NUMBER] = "number", [QMP_KIND_BOOL] = "boolean", [QMP_KIND_NULL] = "null",
		[QMP_KIND_ANY] = "value",
	};
	char name[128];
	json_t *o;

	type_name(t, name, sizeof(name));
	if (json_object_get(s->seen, name))
		return;
	json_object_set_new(s->seen, name, json_true());
	o = json_pack("{s:s}", "name", name);
	json_array_append_new(s->list, o);
	switch (t->kind) {
	case QMP_KIND_ENUM:
		json_object_set_new(o, "meta-type", json_string("enum"));
		describe_enum(o, t);
		break;
	case QMP_KIND_ARRAY:
		json_object_set_new(o, "meta-type", json_string("array"));
		json_object_set_new(o, "element-type", type_ref(s, t->element));
		break;
	case QMP_KIND_OBJECT:
		json_object_set_new(o, "meta-type", json_string("object"));
		json_object_set_new(o, "members", describe_members(s, t->members));
		if (t->tag)
			describe_union(s, o, t);
		break;
	case QMP_KIND_ALTERNATE:
		json_object_set_new(o, "meta-type", json_string("alternate"));
		json_object_set_new(o, "members", json_array());
		for (size_t i = 0; t->choices[i]; i++)
			json_array_append_new(json_object_get(o, "members"),
					      json_pack("{s:o}", "type", type_ref(s, t->choices[i])));
		break;
	default:
		json_object_set_new(o, "meta-type", json_string("builtin"));
		json_object_set_new(o, "json-type", json_string(json_types[t->kind]));
	}
}

static json_t *string_list(const char *const *texts)
{
	json_t *list = json_array();

	for (; *texts; texts++)
		json_array_append_new(list, json_string(*texts));
	return list;
}

json_t *qmp_schema(void)
{
	struct schema s = {.list = json_array(), .seen = json_object()};
	const struct qmp_command *c;
	const struct qmp_event *ev;
	char name[128];

	for (size_t i = 0; (c = qmp_command_at(i)); i++) {
		json_t *o = json_pack("{s:s, s:s, s:b}", "name", c->name, "meta-type", "command", "allow-oob",
				      !!(c->flags & QMP_OOB));

		json_array_append_new(s.list, o);
		snprintf(name, sizeof(name), "q_obj_%s-arg", c->name);
		json_object_set_new(o, "arg-type", add_object(&s, name, c->args));
		json_object_set_new(o, "ret-type", c->result ? type_ref(&s, c->result) : add_object(&s, "", NULL));
		if (c->features)
			json_object_set_new(o, "features", string_list(c->features));
	}
	for (size_t i = 0; (ev = qmp_event_at(i)); i++) {
		json_t *o = json_pack("{s:s, s:s}", "name", ev->name, "meta-type", "event");

		json_array_append_new(s.list, o);
		snprintf(name, sizeof(name), "q_obj_%s-arg", ev->name);
		json_object_set_new(o, "arg-type", add_object(&s, name, ev->data));
	}
	json_decref(s.seen);
	return s.list;
}
