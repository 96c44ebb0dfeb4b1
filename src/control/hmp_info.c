/* The subjects of "info". What QMP already knows is asked there, so that both say the same. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "hmp.h"
#include "vmm-config.h"
#include "vmm/block.h"
#include "vmm/chardev.h"
#include "vmm/net.h"
#include "vmm/config.h"
#include "vmm/kvm.h"
#include "vmm/state.h"

static void keep(void *opaque, json_t *result, const struct err *e)
{
	*(json_t **)opaque = json_incref(result);
}

json_t *hmp_query(struct board *board, const char *command, const char *argument, const char *value)
{
	json_t *args = json_object(), *result = NULL;

	if (argument)
		json_object_set_new(args, argument, json_string(value));
	qmp_run(board, command, args, keep, &result);
	json_decref(args);
	return result;
}

static void info_status(struct hmp *h)
{
	struct board *b = h->board;
	FILE *out = h->out;

	const char *state = run_state_name(machine_run_state(b));

	if (machine_running(b))
		fprintf(out, "VM status: running\r\n");
	else if (machine_run_state(b) == RUN_PAUSED)
		fprintf(out, "VM status: paused\r\n");
	else
		fprintf(out, "VM status: paused (%s)\r\n", state);
}

static void info_version(struct hmp *h)
{
	fprintf(h->out, "7.2.0vmm-%s\r\n", VMM_VERSION);
}

static void info_name(struct hmp *h)
{
	const char *name = machine_config(h->board)->name;

	if (name)
		fprintf(h->out, "%s\r\n", name);
}

static void info_uuid(struct hmp *h)
{
	json_t *o = hmp_query(h->board, "query-uuid", NULL, NULL);

	fprintf(h->out, "%s\r\n", HMP_STR(o, "UUID"));
	json_decref(o);
}

static void info_kvm(struct hmp *h)
{
	fprintf(h->out, "kvm support: %s\r\n",
		machine_config(h->board)->machine.accel == ACCEL_KVM ? "enabled" : "disabled");
}

static void info_cpus(struct hmp *h)
{
	struct cpu_info info;

	for (unsigned i = 0; machine_cpu_info(h->board, i, &info); i++)
		fprintf(h->out, "%c CPU #%u: thread_id=%d\r\n", info.index == h->cpu ? '*' : ' ', info.index,
			info.thread_id);
}

static void info_chardev(struct hmp *h)
{
	for (struct chardev *c = chardev_next(NULL); c; c = chardev_next(c))
		fprintf(h->out, "%s: filename=%s\r\n", chardev_id(c), chardev_filename(c));
}

static void print_block(const struct block *b, FILE *out)
{
	const char *qdev = *block_qdev_id(b) ? block_qdev_id(b) : block_owner(b);
	struct block_info i;

	block_get_info(b, &i);
	fprintf(out, "%s", *block_id(b) ? block_id(b) : qdev ? qdev : "");
	if (block_inserted(b))
		fprintf(out, " (%s): %s (%s%s)\r\n", i.node_name, i.filename, i.driver,
			i.readonly ? ", read-only" : "");
	else
		fprintf(out, ": [not inserted]\r\n");
	if (qdev)
		fprintf(out, "    Attached to:      %s\r\n", qdev);
	if (block_is_removable(b))
		fprintf(out, "    Removable device: %slocked, tray %s\r\n", block_is_locked(b) ? "" : "not ",
			block_tray_is_open(b) ? "open" : "closed");
	if (block_inserted(b))
		fprintf(out, "    Cache mode:       %s%s%s\r\n", i.writeback ? "writeback" : "writethrough",
			i.direct ? ", direct" : "", i.no_flush ? ", ignore flushes" : "");
}

static void info_block(struct hmp *h)
{
	for (struct block *b = block_next(NULL); b; b = block_next(b)) {
		if (block_is_node(b))
			continue;
		print_block(b, h->out);
		fprintf(h->out, "\r\n");
	}
}

static void info_blockstats(struct hmp *h)
{
	static const char *const numbers[] = {"rd_bytes",         "wr_bytes",           "rd_operations",
					      "wr_operations",    "flush_operations",   "wr_total_time_ns",
					      "rd_total_time_ns", "flush_total_time_ns"};
	json_t *list = hmp_query(h->board, "query-blockstats", NULL, NULL), *o;
	size_t i;

	json_array_foreach(list, i, o)
	{
		const json_t *stats = json_object_get(o, "stats");

		fprintf(h->out, "%s:", *HMP_STR(o, "device") ? HMP_STR(o, "device") : HMP_STR(o, "qdev"));
		for (size_t n = 0; n < ARRAY_SIZE(numbers); n++)
			fprintf(h->out, " %s=%lld", numbers[n], HMP_INT(stats, numbers[n]));
		fprintf(h->out, "\r\n");
	}
	json_decref(list);
}

static void info_jobs(struct hmp *h)
{
	json_t *list = hmp_query(h->board, "query-jobs", NULL, NULL), *o;
	size_t i;

	json_array_foreach(list, i, o)
	{
		fprintf(h->out, "%s: %s, %s, %lld of %lld%s%s\r\n", HMP_STR(o, "id"), HMP_STR(o, "type"),
			HMP_STR(o, "status"), HMP_INT(o, "current-progress"), HMP_INT(o, "total-progress"),
			*HMP_STR(o, "error") ? ", " : "", HMP_STR(o, "error"));
	}
	if (!json_array_size(list))
		fprintf(h->out, "No active jobs\r\n");
	json_decref(list);
}

static void info_block_jobs(struct hmp *h)
{
	fprintf(h->out, "No active jobs\r\n"); /* those there are, are of the newer kind: info jobs */
}

static void info_dump(struct hmp *h)
{
	json_t *o = hmp_query(h->board, "query-dump", NULL, NULL);
	long long total = HMP_INT(o, "total");

	fprintf(h->out, "Status: %s\r\n", HMP_STR(o, "status"));
	if (!strcmp(HMP_STR(o, "status"), "active"))
		fprintf(h->out, "Finished: %.2f %%\r\n",
			total ? 100.0 * (double)HMP_INT(o, "completed") / (double)total : 0.0);
	json_decref(o);
}

static void info_nothing(struct hmp *h)
{
}

static void info_tpm(struct hmp *h)
{
	fprintf(h->out, "TPM device not supported\r\n");
}

static void info_usb(struct hmp *h)
{
	fprintf(h->out, "USB support not enabled\r\n");
}

static void info_mtree(struct hmp *h)
{
	map_print(h->board, h->out);
}

static void info_pic(struct hmp *h)
{
	struct board *b = h->board;
	FILE *out = h->out;

	static const char *const names[] = {"isa-i8259", "ioapic"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct device *dev = device_find_class(b, names[i]);
		char *json;

		if (!dev || !dev->class->state)
			continue;
		pthread_mutex_lock(dev->lock);
		json = state_json(dev->class->state, dev);
		pthread_mutex_unlock(dev->lock);
		fprintf(out, "%s: %s\r\n", dev->id, json ? json : "no state");
		free(json);
	}
}

static void info_irq(struct hmp *h)
{
	for (unsigned gsi = 0; gsi < 24; gsi++)
		if (irq_gsi_level(h->board, gsi))
			fprintf(h->out, "GSI %u: high\r\n", gsi);
}

static void info_pci(struct hmp *h)
{
	json_t *buses = hmp_query(h->board, "query-pci", NULL, NULL), *d, *r;
	size_t i, k;

	json_array_foreach(json_object_get(json_array_get(buses, 0), "devices"), i, d)
	{
		const json_t *id = json_object_get(d, "id"), *class = json_object_get(d, "class_info");

		fprintf(h->out, "  Bus  0, device %3lld, function %lld:\r\n    %s: PCI device %04llx:%04llx\r\n",
			HMP_INT(d, "slot"), HMP_INT(d, "function"),
			*HMP_STR(class, "desc") ? HMP_STR(class, "desc") : "Class", HMP_INT(id, "vendor"),
			HMP_INT(id, "device"));
		if (json_object_get(d, "irq"))
			fprintf(h->out, "      IRQ %lld, pin %c\r\n", HMP_INT(d, "irq"),
				(char)('A' + HMP_INT(d, "irq_pin") - 1));
		json_array_foreach(json_object_get(d, "regions"), k, r)
		{
			fprintf(h->out, "      BAR%lld: %s at 0x%llx [0x%llx].\r\n", HMP_INT(r, "bar"),
				!strcmp(HMP_STR(r, "type"), "io") ? "I/O" : "memory", HMP_INT(r, "address"),
				HMP_INT(r, "address") == -1 ? -1 : HMP_INT(r, "address") + HMP_INT(r, "size") - 1);
		}
		fprintf(h->out, "      id \"%s\"\r\n", HMP_STR(d, "qdev_id"));
	}
	json_decref(buses);
}

static void info_qtree(struct hmp *h)
{
	for (struct device *d = device_next(h->board, NULL); d; d = device_next(h->board, d)) {
		fprintf(h->out, "dev: %s, id \"%s\"%s%s\r\n", d->class->name, d->id, d->parent ? ", on " : "",
			d->parent ? d->parent->id : "");
		for (const struct prop *p = d->class->props; p && p->name; p++) {
			char *text = p->internal ? NULL : prop_format(p, d);

			if (text)
				fprintf(h->out, "    %s = \"%s\"\r\n", p->name, text);
			free(text);
		}
	}
}

static void print_netdev(struct hmp *h, const struct netdev *d, const char *before)
{
	char *info = netdev_info(d);

	fprintf(h->out, "%s%s: index=0,type=%s\r\n", before, netdev_id(d), info);
	free(info);
}

/* Network cards, each with its back end, and back ends nobody uses. */
static void info_network(struct hmp *h)
{
	for (struct nic *n = nic_next(NULL); n; n = nic_next(n)) {
		fprintf(h->out, "%s: index=0,type=nic,model=%s,macaddr=%02x:%02x:%02x:%02x:%02x:%02x%s\r\n",
			nic_name(n), n->dev->class->name, n->mac[0], n->mac[1], n->mac[2], n->mac[3], n->mac[4],
			n->mac[5], nic_link_up(n) ? "" : ",link=down");
		if (n->netdev)
			print_netdev(h, n->netdev, " \\ ");
	}
	for (struct netdev *d = netdev_next(NULL); d; d = netdev_next(d))
		if (!netdev_nic(d))
			print_netdev(h, d, "");
}

/* QEMU's numbers of hubs; there are none. */
static void info_usernet(struct hmp *h)
{
	for (struct netdev *d = netdev_next(NULL); d; d = netdev_next(d)) {
		char *text = net_user_connections(d), *save = NULL;

		if (!text)
			continue;
		fprintf(h->out, "Hub -1 (%s):\r\n", netdev_id(d));
		for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
			fprintf(h->out, "%s\r\n", line);
		free(text);
	}
}

static void info_registers(struct hmp *h)
{
	hmp_print_registers(h, false);
}

static void info_registers_all(struct hmp *h)
{
	hmp_print_registers(h, true);
}

static void info_mem(struct hmp *h)
{
	hmp_print_mappings(h);
}

static void info_balloon(struct hmp *h)
{
	json_t *o = hmp_query(h->board, "query-balloon", NULL, NULL);

	if (o)
		fprintf(h->out, "balloon: actual=%lld\r\n", HMP_INT(o, "actual") >> 20);
	else
		fprintf(h->out, "Error: No balloon device has been activated\r\n");
	json_decref(o);
}

static void info_memory_size(struct hmp *h)
{
	json_t *o = hmp_query(h->board, "query-memory-size-summary", NULL, NULL);

	fprintf(h->out, "base memory: %lld\r\n", HMP_INT(o, "base-memory"));
	json_decref(o);
}

static void info_vnc(struct hmp *h)
{
	json_t *o = hmp_query(h->board, "query-vnc", NULL, NULL), *c;
	size_t i;

	if (json_is_true(json_object_get(o, "enabled"))) {
		fprintf(h->out, "Server: %s:%s (%s)\r\n  Auth: %s\r\n", HMP_STR(o, "host"), HMP_STR(o, "service"),
			HMP_STR(o, "family"), HMP_STR(o, "auth"));
		json_array_foreach(json_object_get(o, "clients"), i, c)
		{
			fprintf(h->out, "Client: %s:%s (%s)\r\n", HMP_STR(c, "host"), HMP_STR(c, "service"),
				HMP_STR(c, "family"));
		}
	} else {
		fprintf(h->out, "Server: disabled\r\n");
	}
	json_decref(o);
}

static void info_mice(struct hmp *h)
{
	json_t *list = hmp_query(h->board, "query-mice", NULL, NULL), *o;
	size_t i;

	json_array_foreach(list, i, o)
	{
		fprintf(h->out, "%c Mouse #%lld: %s%s\r\n", json_is_true(json_object_get(o, "current")) ? '*' : ' ',
			HMP_INT(o, "index"), HMP_STR(o, "name"),
			json_is_true(json_object_get(o, "absolute")) ? " (absolute)" : "");
	}
	if (!json_array_size(list))
		fprintf(h->out, "No mouse devices connected\r\n");
	json_decref(list);
}

/* ---- migration ---- */

/* What query-migrate tells in numbers, as QEMU's monitor words it. */
static const struct {
	const char *object, *member, *label, *unit; /* object: NULL: the answer itself */
	unsigned divide;
} migrate_numbers[] = {
	{NULL, "total-time", "total time", "ms", 1},
	{NULL, "expected-downtime", "expected downtime", "ms", 1},
	{NULL, "downtime", "downtime", "ms", 1},
	{NULL, "setup-time", "setup", "ms", 1},
	{"ram", "transferred", "transferred ram", "kbytes", 1024},
	{"ram", "remaining", "remaining ram", "kbytes", 1024},
	{"ram", "total", "total ram", "kbytes", 1024},
	{"ram", "duplicate", "duplicate", "pages", 1},
	{"ram", "normal", "normal", "pages", 1},
	{"ram", "normal-bytes", "normal bytes", "kbytes", 1024},
	{"ram", "dirty-sync-count", "dirty sync count", NULL, 1},
	{"ram", "page-size", "page size", "kbytes", 1024},
	{"ram", "dirty-pages-rate", "dirty pages rate", "pages", 1},
	{"ram", "postcopy-requests", "postcopy request count", NULL, 1},
	{NULL, "cpu-throttle-percentage", "cpu throttle percentage", NULL, 1},
};

static void info_migrate(struct hmp *h)
{
	json_t *o = hmp_query(h->board, "query-migrate", NULL, NULL);
	const char *status = HMP_STR(o, "status"), *error = HMP_STR(o, "error-desc");

	fprintf(h->out, "Migration status: %s", *status ? status : "none");
	fprintf(h->out, *error ? " (%s)\r\n" : "\r\n", error);
	for (size_t i = 0; i < ARRAY_SIZE(migrate_numbers); i++) {
		const char *in = migrate_numbers[i].object, *unit = migrate_numbers[i].unit;
		const json_t *v = json_object_get(in ? json_object_get(o, in) : o, migrate_numbers[i].member);

		if (v)
			fprintf(h->out, "%s: %lld%s%s\r\n", migrate_numbers[i].label,
				(long long)json_integer_value(v) / migrate_numbers[i].divide, unit ? " " : "",
				unit ? unit : "");
	}
	json_decref(o);
}

static void info_migrate_capabilities(struct hmp *h)
{
	json_t *list = hmp_query(h->board, "query-migrate-capabilities", NULL, NULL), *c;
	size_t i;

	json_array_foreach(list, i, c) fprintf(h->out, "%s: %s\r\n", HMP_STR(c, "capability"),
					       json_is_true(json_object_get(c, "state")) ? "on" : "off");
	json_decref(list);
}

/* "true", "17" or "text" of a member that may be any of these. */
static void print_scalar(FILE *out, const json_t *v)
{
	if (json_is_boolean(v))
		fprintf(out, "%s", json_is_true(v) ? "on" : "off");
	else if (json_is_integer(v))
		fprintf(out, "%lld", (long long)json_integer_value(v));
	else
		fprintf(out, "'%s'", json_is_string(v) ? json_string_value(v) : "");
}

static void info_migrate_parameters(struct hmp *h)
{
	json_t *o = hmp_query(h->board, "query-migrate-parameters", NULL, NULL), *v;
	const char *name;

	json_object_foreach(o, name, v)
	{
		fprintf(h->out, "%s: ", name);
		print_scalar(h->out, v);
		fprintf(h->out, "\r\n");
	}
	json_decref(o);
}

/* ---- CPUs and memory that can come ---- */

static void info_hotpluggable_cpus(struct hmp *h)
{
	static const char *const places[] = {"socket-id", "core-id", "thread-id"};
	json_t *list = hmp_query(h->board, "query-hotpluggable-cpus", NULL, NULL), *c;
	size_t i;

	fprintf(h->out, "Hotpluggable CPUs:\r\n");
	json_array_foreach(list, i, c)
	{
		fprintf(h->out, "  type: \"%s\"\r\n  vcpus_count: \"%lld\"\r\n", HMP_STR(c, "type"),
			HMP_INT(c, "vcpus-count"));
		if (*HMP_STR(c, "qom-path"))
			fprintf(h->out, "  qom_path: \"%s\"\r\n", HMP_STR(c, "qom-path"));
		fprintf(h->out, "  CPUInstance Properties:\r\n");
		for (size_t p = 0; p < ARRAY_SIZE(places); p++)
			fprintf(h->out, "    %s: \"%lld\"\r\n", places[p],
				HMP_INT(json_object_get(c, "props"), places[p]));
	}
	json_decref(list);
}

static void info_memdev(struct hmp *h)
{
	static const char *const flags[] = {"merge", "dump", "prealloc", "share", "reserve"};
	json_t *list = hmp_query(h->board, "query-memdev", NULL, NULL), *m, *node;
	size_t i, n;

	json_array_foreach(list, i, m)
	{
		fprintf(h->out, "memory backend: %s\r\n  size:  %lld\r\n", HMP_STR(m, "id"), HMP_INT(m, "size"));
		for (size_t f = 0; f < ARRAY_SIZE(flags); f++)
			fprintf(h->out, "  %s: %s\r\n", flags[f],
				json_is_true(json_object_get(m, flags[f])) ? "true" : "false");
		fprintf(h->out, "  policy: %s\r\n  host nodes: ", HMP_STR(m, "policy"));
		json_array_foreach(json_object_get(m, "host-nodes"), n, node)
			fprintf(h->out, "%s%lld", n ? "," : "", (long long)json_integer_value(node));
		fprintf(h->out, "\r\n");
	}
	json_decref(list);
}

static void info_snapshots(struct hmp *h)
{
	fprintf(h->out, "There is no snapshot available.\r\n");
}

static void info_iothreads(struct hmp *h)
{
}

static void print_tree(struct hmp *h, const char *path, const char *name, const char *type, unsigned depth)
{
	json_t *list = hmp_query(h->board, "qom-list", "path", path), *o;
	size_t i;

	fprintf(h->out, "%*s/%s (%s)\r\n", (int)depth * 2, "", name, type);
	json_array_foreach(list, i, o)
	{
		const char *kind = HMP_STR(o, "type");
		char *child, *child_type;

		if (strncmp(kind, "child<", 6) || depth > 8)
			continue;
		child = xasprintf("%s/%s", path, HMP_STR(o, "name"));
		child_type = xstrndup(kind + 6, strlen(kind) - 7);
		print_tree(h, child, HMP_STR(o, "name"), child_type, depth + 1);
		free(child);
		free(child_type);
	}
	json_decref(list);
}

static void info_qom_tree(struct hmp *h)
{
	print_tree(h, "/machine", "machine", "container", 0);
}

static const struct subject {
	const char *name, *help;
	void (*print)(struct hmp *h);
} subjects[] = {
	{"balloon", "memory the balloon leaves to the guest", info_balloon},
	{"block", "drives and what is in them", info_block},
	{"block-jobs", "jobs of QEMU's older kind; there are none", info_block_jobs},
	{"blockstats", "drives' operations and bytes", info_blockstats},
	{"chardev", "character devices", info_chardev},
	{"cpus", "vCPUs and their host threads", info_cpus},
	{"dump", "how far a dump is", info_dump},
	{"hotpluggable-cpus", "CPUs this machine can have", info_hotpluggable_cpus},
	{"iothreads", "I/O threads; there are none", info_iothreads},
	{"irq", "interrupt inputs that are high", info_irq},
	{"jobs", "long work in progress", info_jobs},
	{"kvm", "whether KVM is in use", info_kvm},
	{"mem", "the memory a vCPU's page tables map", info_mem},
	{"memdev", "memory back ends", info_memdev},
	{"memory-devices", "memory that was plugged in; there is none", info_nothing},
	{"memory_size_summary", "guest RAM", info_memory_size},
	{"mice", "pointing devices", info_mice},
	{"migrate", "the migration", info_migrate},
	{"migrate_capabilities", "the migration's capabilities", info_migrate_capabilities},
	{"migrate_parameters", "the migration's parameters", info_migrate_parameters},
	{"mtree", "the memory map", info_mtree},
	{"name", "the guest's name", info_name},
	{"network", "network cards", info_network},
	{"pci", "PCI functions", info_pci},
	{"pic", "interrupt controllers", info_pic},
	{"qom-tree", "the object tree", info_qom_tree},
	{"qtree", "devices and their options", info_qtree},
	{"registers", "a vCPU's registers; -a: all vCPUs'", info_registers},
	{"registers -a", NULL, info_registers_all},
	{"snapshots", "snapshots in images; raw images have none", info_snapshots},
	{"status", "is the guest running", info_status},
	{"tpm", "trusted platform modules; there are none", info_tpm},
	{"usb", "USB devices; there is no controller", info_usb},
	{"usernet", "connections of guests behind -netdev user", info_usernet},
	{"uuid", "the guest's UUID", info_uuid},
	{"version", "version", info_version},
	{"vnc", "the VNC server", info_vnc},
};

const char *hmp_info_at(size_t i, const char **help)
{
	if (i >= ARRAY_SIZE(subjects))
		return NULL;
	if (help)
		*help = subjects[i].help;
	return subjects[i].name;
}

bool hmp_info(struct hmp *h, const char *subject)
{
	for (size_t i = 0; i < ARRAY_SIZE(subjects); i++) {
		if (strcmp(subjects[i].name, subject))
			continue;
		subjects[i].print(h);
		return true;
	}
	return false;
}
