/*
 * The metrics as QEMU's query-stats groups them: a target for each kind of thing, a result for each thing. A name is
 * the family's without "vmm_" and with the values of labels that do not say which thing: net_packets_receive.
 */
#include "stats_vmm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "metrics.h"
#include "qom.h"
#include "vmm/block.h"
#include "vmm/device.h"
#include "vmm/machine.h"

/* The label that names a thing, and the target it belongs to; what has none of these is of the VM. */
static const struct {
	const char *label, *target;
} kinds[] = {{"vcpu", "vcpu"}, {"drive", "x-drive"}, {"nic", "x-nic"}, {NULL, "vm"}};

static size_t kind_of(const struct metric_sample *m)
{
	for (size_t i = 0; kinds[i].label; i++)
		if (m->labels && m->labels[0] && !strcmp(m->labels[0], kinds[i].label))
			return i;
	return ARRAY_SIZE(kinds) - 1;
}

static void stat_name(char *name, size_t size, const struct metric_sample *m)
{
	const char *const *l = m->labels;
	size_t n = (size_t)snprintf(name, size, "%s", m->family + strlen("vmm_"));

	if (l && l[0] && kinds[kind_of(m)].label)
		l += 2;
	for (; l && l[0] && n < size; l += 2)
		n += (size_t)snprintf(name + n, size - n, "_%s", l[1]);
	for (char *p = name; *p; p++)
		if (*p == '-')
			*p = '_';
}

/* ---- which thing ---- */

static bool device_path(struct board *b, const char *id, char path[QOM_PATH_MAX])
{
	const struct device *dev = id ? device_find(b, id) : NULL;

	if (dev)
		qom_device_path(dev, path);
	return dev;
}

/* The QOM path of the thing a sample is about; false: it has none. */
static bool path_of(struct board *b, const struct metric_sample *m, char path[QOM_PATH_MAX])
{
	const char *label = kinds[kind_of(m)].label, *name = label ? m->labels[1] : NULL;
	struct cpu_info info;

	if (!label)
		return false;
	if (!strcmp(label, "nic"))
		return device_path(b, name, path);
	if (!strcmp(label, "drive")) {
		for (struct block *k = block_next(NULL); k; k = block_next(k))
			if (!strcmp(*block_id(k) ? block_id(k) : block_owner(k) ? block_owner(k) : "", name))
				return device_path(b, block_owner(k), path);
		return false;
	}
	for (unsigned i = 0; machine_cpu_info(b, i, &info); i++)
		if (info.index == (unsigned)atoi(name)) {
			snprintf(path, QOM_PATH_MAX, "%s", info.path);
			return true;
		}
	return false;
}

/* ---- query-stats ---- */

struct collect {
	struct board *board;
	const char *target;
	const json_t *paths, *names;
	json_t *results, *things; /* things: {"name": the StatsResult, borrowed} */
};

static bool has(const json_t *list, const char *text)
{
	size_t i;
	json_t *v;

	json_array_foreach(list, i, v) if (!strcmp(json_string_value(v), text)) return true;
	return !list;
}

static json_t *sample_value(const struct metric_sample *m)
{
	json_t *list;

	if (m->type != METRIC_HISTOGRAM)
		return json_integer((json_int_t)*m->values);
	list = json_array();
	for (unsigned i = 0; i < m->n; i++)
		json_array_append_new(list, json_integer((json_int_t)m->values[i]));
	return list;
}

/* The result of the thing a sample is about, made for its first one; NULL: not asked for. */
static json_t *result_for(struct collect *c, const struct metric_sample *m)
{
	const char *name = kinds[kind_of(m)].label ? m->labels[1] : "";
	json_t *o = json_object_get(c->things, name);
	char path[QOM_PATH_MAX];
	bool known;

	if (o)
		return o;
	known = path_of(c->board, m, path);
	if (c->paths && (!known || !has(c->paths, path)))
		return NULL;
	o = json_pack("{s:s, s:[]}", "provider", "x-vmm", "stats");
	if (known)
		json_object_set_new(o, "qom-path", json_string(path));
	if (*name)
		json_object_set_new(o, "x-name", qmp_text(name));
	json_array_append_new(c->results, o);
	json_object_set(c->things, name, o);
	return o;
}

static void take(void *opaque, const struct metric_sample *m)
{
	struct collect *c = opaque;
	char name[128];
	json_t *o;

	stat_name(name, sizeof(name), m);
	if (strcmp(kinds[kind_of(m)].target, c->target) || !has(c->names, name))
		return;
	o = result_for(c, m);
	if (o)
		json_array_append_new(json_object_get(o, "stats"),
				      json_pack("{s:s, s:o}", "name", name, "value", sample_value(m)));
}

void stats_vmm_collect(struct board *b, const char *target, const json_t *paths, const json_t *names, json_t *results)
{
	struct collect c = {.board = b, .target = target, .paths = paths, .names = names, .results = results};

	c.things = json_object();
	metrics_samples(b, take, &c);
	json_decref(c.things);
}

/* ---- query-stats-schemas ---- */

struct describe {
	json_t *stats[ARRAY_SIZE(kinds)], *seen[ARRAY_SIZE(kinds)];
};

static void describe(void *opaque, const struct metric_sample *m)
{
	static const char *const types[] = {
		[METRIC_COUNTER] = "cumulative", [METRIC_GAUGE] = "instant", [METRIC_HISTOGRAM] = "log2-histogram"};
	struct describe *d = opaque;
	size_t k = kind_of(m);
	char name[128];
	json_t *o;

	stat_name(name, sizeof(name), m);
	if (json_object_get(d->seen[k], name))
		return;
	json_object_set_new(d->seen[k], name, json_true());
	o = json_pack("{s:s, s:s, s:i}", "name", name, "type", types[m->type], "exponent", m->exponent);
	if (m->unit && strcmp(m->unit, "ratio"))
		json_object_set_new(o, "unit", json_string(m->unit));
	if (m->exponent)
		json_object_set_new(o, "base", json_integer(10));
	json_array_append_new(d->stats[k], o);
}

void stats_vmm_schemas(struct board *b, json_t *schemas)
{
	struct describe d;

	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		d.stats[k] = json_array();
		d.seen[k] = json_object();
	}
	metrics_samples(b, describe, &d);
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		json_array_append_new(schemas, json_pack("{s:s, s:s, s:o}", "provider", "x-vmm", "target",
							 kinds[k].target, "stats", d.stats[k]));
		json_decref(d.seen[k]);
	}
}
