/* Verbs: processors and memory of a running guest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "config.h"
#include "ctl.h"

#define NO_OPTIONS NULL
#define EXAMPLES(...)             \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}

/* ---- vCPUs ---- */

static json_t *vcpu_row(const struct guest *g, json_t *cpu)
{
	pid_t thread = (pid_t)json_integer_value(json_object_get(cpu, "thread-id"));
	json_t *row = json_pack("{s:s, s:i, s:I, s:i}", "name", g->name, "id", (int)g->pid, "vcpu",
				json_integer_value(json_object_get(cpu, "cpu-index")), "thread", (int)thread);
	struct proc_times t;
	struct cpu_mask mask;

	if (thread > 0 && proc_times(g->pid, thread, &t)) {
		char state[2] = {t.state == 'R' ? 'r' : 'b', 0}; /* as xm: running or blocked */

		json_object_set_new(row, "cpu", json_integer(t.cpu));
		json_object_set_new(row, "state", json_string(state));
		json_object_set_new(row, "time", json_real(t.user + t.system));
	}
	if (thread > 0 && !cpu_mask_of(thread, &mask)) {
		char *text = cpu_mask_format(&mask);

		json_object_set_new(row, "affinity", json_string(text));
		free(text);
	}
	return row;
}

static int do_vcpu_list(struct ctl *c)
{
	static const struct column columns[] = {
		{"NAME", "name"},   {"ID", "id", true},       {"VCPU", "vcpu", true},   {"CPU", "cpu", true},
		{"STATE", "state"}, {"TIME/s", "time", true}, {"AFFINITY", "affinity"}, {NULL}};
	struct guest_list list;
	int r = guest_all(c, c->argv, c->argc, &list), status;

	c->result = json_array();
	for (size_t i = 0; !r && i < list.n; i++) {
		json_t *cpus, *cpu;
		struct guest g;
		size_t k;

		r = guest_connect(c, list.v[i].name, &g);
		if (r && !c->argc) { /* of all: those that answer */
			ctl_warn(c, "%s", c->err.msg);
			r = CTL_OK;
			continue;
		}
		cpus = r ? NULL : guest_query(c, &g, "query-cpus-fast", NULL, &status);
		json_array_foreach(cpus, k, cpu) json_array_append_new(c->result, vcpu_row(&g, cpu));
		r = r ? r : status;
		json_decref(cpus);
		guest_close(&g);
	}
	if (!r)
		table_print(c, columns, c->result);
	guest_list_free(&list);
	return r;
}

static int do_vcpu_pin(struct ctl *c)
{
	bool all = !strcmp(c->argv[1], "all"), found = false;
	struct cpu_mask mask;
	struct guest g;
	json_t *cpus, *cpu;
	long which = -1;
	size_t i;
	int r = all ? CTL_OK : ctl_number(c, "vcpu-pin", c->argv[1], 0, 255, &which), status = CTL_OK;

	if (!r && cpu_mask_parse(c->argv[2], &mask, &c->err))
		return CTL_USAGE;
	if (!r)
		r = guest_connect(c, c->argv[0], &g);
	if (r)
		return r;
	cpus = guest_query(c, &g, "query-cpus-fast", NULL, &status);
	json_array_foreach(cpus, i, cpu)
	{
		pid_t thread = (pid_t)json_integer_value(json_object_get(cpu, "thread-id"));
		int failed;

		if (!all && json_integer_value(json_object_get(cpu, "cpu-index")) != which)
			continue;
		found = true;
		failed = thread > 0 ? cpu_mask_apply(thread, &mask) : -ESRCH;
		if (failed)
			r = ctl_errno(c, -failed, "%s: cannot pin vCPU %zu", g.name, i);
	}
	if (!status && !found)
		r = ctl_fail(c, CTL_FAILED, "%s has no vCPU %s", g.name, c->argv[1]);
	json_decref(cpus);
	guest_close(&g);
	return status ? status : r;
}

/* Give or take one; entries of query-hotpluggable-cpus say where. 1: nothing left to give or take. */
static int change_one(struct ctl *c, struct guest *g, bool add, long n)
{
	int status;
	json_t *list = guest_query(c, g, "query-hotpluggable-cpus", NULL, &status), *item, *args = NULL;
	const char *path = NULL;
	size_t i;

	if (!list)
		return status;
	/* vmm lists the last one first; the lowest free place is taken, the highest given back */
	json_array_foreach(list, i, item)
	{
		const char *plugged = json_string_value(json_object_get(item, "qom-path"));

		if (add && !plugged) {
			json_decref(args);
			args = json_copy(json_object_get(item, "props"));
			json_object_set(args, "driver", json_object_get(item, "type"));
		} else if (!add && plugged && !path) {
			path = plugged;
		}
	}
	if (args) {
		char id[24];

		snprintf(id, sizeof(id), "vcpu%ld", n);
		json_object_set_new(args, "id", json_string(id));
		status = guest_command(c, g, "device_add", args);
	} else if (path) {
		status = guest_command(c, g, "device_del", json_pack("{s:s}", "id", path));
	} else {
		status = ctl_fail(c, CTL_FAILED, "%s has no %s vCPU", g->name,
				  add ? "place for a further" : "removable");
	}
	json_decref(list);
	return status;
}

static int count_vcpus(struct ctl *c, struct guest *g, long *n)
{
	int status;
	json_t *cpus = guest_query(c, g, "query-cpus-fast", NULL, &status);

	*n = (long)json_array_size(cpus);
	json_decref(cpus);
	return status;
}

static int do_vcpu_set(struct ctl *c)
{
	long wanted, now;
	struct guest g;
	int r = ctl_number(c, "vcpu-set", c->argv[1], 1, 255, &wanted);

	if (!r)
		r = guest_connect(c, c->argv[0], &g);
	if (r)
		return r;
	r = count_vcpus(c, &g, &now);
	for (long n = now; !r && n < wanted; n++)
		r = change_one(c, &g, true, n);
	/* the guest lets go of a processor in its own time: one after the other */
	while (!r && now > wanted) {
		int64_t deadline = now_ms() + c->timeout_ms;
		long before = now;

		r = change_one(c, &g, false, 0);
		while (!r && now == before && now_ms() < deadline) {
			json_t *event = qmp_event(g.qmp, 200);

			json_decref(event);
			r = count_vcpus(c, &g, &now);
		}
		if (!r && now == before)
			r = ctl_fail(c, CTL_NO_ANSWER, "%s: the guest does not let go of a vCPU; %ld remain", g.name,
				     now);
	}
	guest_close(&g);
	return r;
}

/* ---- shares ---- */

static int do_sched_credit(struct ctl *c)
{
	static const struct column columns[] = {
		{"NAME", "name"}, {"ID", "id", true}, {"WEIGHT", "weight", true}, {"CAP", "cap", true}, {NULL}};
	const char *domain = ctl_option(c, "domain"), *w = ctl_option(c, "weight"), *k = ctl_option(c, "cap");
	char *name = (char *)(domain ? domain : c->argc ? c->argv[0] : NULL);
	struct guest_list list;
	long weight = -1, cap = -1;
	int r = CTL_OK;

	if (w)
		r = ctl_number(c, "--weight", w, 1, 65535, &weight);
	if (!r && k)
		r = ctl_number(c, "--cap", k, 0, 102400, &cap);
	if (!r && (w || k) && !name)
		r = ctl_fail(c, CTL_USAGE, "sched-credit: which guest?");
	if (!r)
		r = guest_all(c, &name, name != NULL, &list);
	if (r)
		return r;
	c->result = json_array();
	for (size_t i = 0; !r && i < list.n; i++) {
		struct guest *g = &list.v[i];
		struct err e = ERR_INIT;

		if (!g->pid)
			continue;
		if ((w || k) && sched_set(g->pid, g->name, weight, cap, &c->err))
			r = ctl_fail(c, CTL_FAILED, "%s: %s", g->name, c->err.msg);
		else if (sched_get(g->pid, &weight, &cap, &e))
			r = ctl_fail(c, CTL_FAILED, "%s: %s", g->name, e.msg);
		else if (!w && !k)
			json_array_append_new(c->result,
					      json_pack("{s:s, s:i, s:I, s:I}", "name", g->name, "id", (int)g->pid,
							"weight", (json_int_t)weight, "cap", (json_int_t)cap));
	}
	if (!r && !w && !k)
		table_print(c, columns, c->result);
	guest_list_free(&list);
	return r;
}

/* ---- memory ---- */

/* "512", "512M", "2G": bytes; a bare number counts MiB. */
static int take_size(struct ctl *c, const char *text, uint64_t *bytes)
{
	struct guest_config *config = guest_config_new();
	int r = guest_config_set(config, "memory", text, &c->err);

	*bytes = config->memory;
	guest_config_free(config);
	return r ? CTL_USAGE : CTL_OK;
}

static struct guest_config *running_config(struct ctl *c, const struct guest *g)
{
	struct guest_config *config = guest_config_new();
	size_t len = 0;
	char *text = guest_read_file(g->dir, "config", MIB, &len);

	if (!text)
		ctl_errno(c, errno, "%s: cannot read its configuration", g->name);
	if (!text || config_parse_native(config, "config", text, len, &c->err)) {
		guest_config_free(config);
		config = NULL;
	}
	free(text);
	return config;
}

static int do_mem_set(struct ctl *c)
{
	struct guest_config *config;
	struct guest g;
	uint64_t bytes;
	int r = take_size(c, c->argv[1], &bytes);

	if (!r)
		r = guest_connect(c, c->argv[0], &g);
	if (r)
		return r;
	config = running_config(c, &g);
	if (config && config->maxmem && bytes > config->maxmem)
		r = ctl_fail(c, CTL_FAILED, "%s may have at most %llu MiB (mem-max)", g.name,
			     (unsigned long long)(config->maxmem / MIB));
	if (!r)
		r = guest_command(c, &g, "balloon", json_pack("{s:I}", "value", (json_int_t)bytes));
	guest_config_free(config);
	guest_close(&g);
	return r;
}

static int do_mem_max(struct ctl *c)
{
	struct guest_config *config;
	struct guest g;
	uint64_t bytes;
	char *text;
	int r = take_size(c, c->argv[1], &bytes);

	if (!r)
		r = guest_find(c, c->argv[0], &g);
	if (r)
		return r;
	config = running_config(c, &g);
	if (!config) {
		r = CTL_FAILED;
	} else if (bytes > config->memory) {
		r = ctl_fail(c, CTL_FAILED, "%s was started with %llu MiB: no more can be given while it runs", g.name,
			     (unsigned long long)(config->memory / MIB));
	} else {
		config->maxmem = bytes;
		text = config_format(config);
		r = guest_write_file(g.dir, "config", text, strlen(text), 0600);
		r = r ? ctl_errno(c, -r, "%s: cannot write its configuration", g.name) : CTL_OK;
		free(text);
	}
	guest_config_free(config);
	guest_close(&g);
	return r;
}

/* ---- the table ---- */

static const struct verb_option sched_options[] = {
	{'d', "domain", "GUEST", "the guest, as xm has it"},
	{'w', "weight", "N", "its share; 256 is one share"},
	{'c', "cap", "PERCENT", "most time, in per cent of one processor; 0: no limit"},
	{0}};

const struct verb cpu_verbs[] = {
	{"mem-set", "GUEST SIZE", "Ask a guest to make do with that much memory",
	 "Through the balloon; a number without suffix counts MiB. It comes true as the guest's driver gives or takes.",
	 NO_OPTIONS, 2, 2, WORDS_GUEST, do_mem_set, EXAMPLES("vmmctl mem-set web 12")},
	{"mem-max", "GUEST SIZE", "Limit what mem-set may give a guest", NULL, NO_OPTIONS, 2, 2, WORDS_GUEST,
	 do_mem_max, EXAMPLES("vmmctl mem-max web 16")},
	{"vcpu-list", "[GUEST]...", "List the vCPUs: where they run, and where they may",
	 "STATE is r (running or ready) or b (blocked: the guest is idle).", NO_OPTIONS, 0, -1, WORDS_GUESTS,
	 do_vcpu_list, EXAMPLES("vmmctl vcpu-list", "vmmctl vcpu-list web")},
	{"vcpu-pin", "GUEST VCPU|all CPUS|all", "Say on which host processors a vCPU may run",
	 "CPUS is a list such as 0-3,^1. Lasts until the guest ends; cpus= in its configuration is for ever.",
	 NO_OPTIONS, 3, 3, WORDS_GUEST, do_vcpu_pin,
	 EXAMPLES("vmmctl vcpu-pin web 0 0", "vmmctl vcpu-pin web all all")},
	{"vcpu-set", "GUEST N", "Give a guest N vCPUs",
	 "Up to maxvcpus= of its configuration. The guest must agree to lose one.", NO_OPTIONS, 2, 2, WORDS_GUEST,
	 do_vcpu_set, EXAMPLES("vmmctl vcpu-set web 1")},
	{"sched-credit", "[GUEST]", "Show or set the processor share of guests",
	 "Through the host's control groups. Version 2: weight becomes cpu.weight (256 is their 100), cap becomes "
	 "cpu.max. What is set is told in steps of theirs: a weight of 400 as 399. It lasts until the guest ends, also "
	 "when it "
	 "is started again; cpu-weight= and cpu-cap= in its configuration are for ever. Hosts "
	 "whose cpu controller is still in version 1 (a hybrid layout): cpu.shares (256 is their 1024) and "
	 "cpu.cfs_quota_us. Needs "
	 "root, or a control group that was delegated to the user.",
	 sched_options, 0, 1, WORDS_GUEST, do_sched_credit,
	 EXAMPLES("vmmctl sched-credit", "vmmctl sched-credit -d web -w 512 -c 50")},
	{NULL},
};
