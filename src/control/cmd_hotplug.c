/* QMP: devices and vCPUs that come and go. */
#include <errno.h>
#include <stdlib.h>
#include "commands.h"
#include "json_opts.h"
#include "types.h"
#include "vmm/migration.h"

static const struct qmp_type hotpluggable_cpu =
	QMP_OBJECT("HotpluggableCPU", QMP_REQ("type", qmp_str), QMP_REQ("vcpus-count", qmp_int),
		   QMP_REQ("props", qmp_cpu_properties), QMP_OPT("qom-path", qmp_str));

/* The description is on its way: the machine must stay what it says. */
static int check_migration(const char *command, struct err *e)
{
	return migration_busy() ? err_set(e, EBUSY, "%s not allowed while migrating", command) : 0;
}

static json_t *device_add(struct qmp_call *call, struct err *e)
{
	struct opts o;
	int r = check_migration("device_add", e);

	if (!r)
		r = json_to_opts(call->args, &o, e);

	if (r)
		return NULL;
	r = machine_device_add(call->board, &o, e);
	opts_free(&o);
	return r ? NULL : json_object();
}

static json_t *device_del(struct qmp_call *call, struct err *e)
{
	if (check_migration("device_del", e))
		return NULL;
	return machine_device_del(call->board, qmp_arg_str(call, "id"), e) ? NULL : json_object();
}

/* QEMU lists the last one first. */
static json_t *query_hotpluggable_cpus(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();
	struct cpu_info info;

	for (unsigned i = 0; machine_possible_cpu(call->board, i, &info); i++) {
		json_t *o = json_pack("{s:s, s:i, s:{s:i, s:i, s:i}}", "type", machine_cpu_type(call->board),
				      "vcpus-count", 1, "props", "core-id", (int)info.core, "thread-id",
				      (int)info.thread, "socket-id", (int)info.socket);

		if (info.present)
			json_object_set_new(o, "qom-path", json_string(info.path));
		json_array_insert_new(list, 0, o);
	}
	return list;
}

/* Slots of CPUs; there is no hot-pluggable memory. */
static json_t *query_acpi_ospm_status(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();
	uint32_t event, status;
	struct cpu_info info;

	for (unsigned i = 0; machine_cpu_ost_status(call->board, i, &event, &status); i++) {
		json_t *o = json_pack("{s:o, s:s, s:I, s:I}", "slot", json_sprintf("%u", i), "slot-type", "CPU",
				      "source", (json_int_t)event, "status", (json_int_t)status);

		if (machine_possible_cpu(call->board, i, &info) && info.id)
			json_object_set_new(o, "device", qmp_text(info.id));
		json_array_append_new(list, o);
	}
	return list;
}

static const char *const device_add_features[] = {"json-cli", "json-cli-hotplug", NULL};

const struct qmp_command qmp_hotplug_commands[] = {
	{"device_add", "Add a device, or a vCPU of a type and place that query-hotpluggable-cpus reports.", "0.2",
	 QMP_MEMBERS(QMP_REQ("driver", qmp_str), QMP_OPT("bus", qmp_str), QMP_OPT("id", qmp_str)), NULL, 0,
	 QMP_OPEN_ARGS, device_add, device_add_features},
	{"device_del", "Remove a device. One the guest has to give up is gone when DEVICE_DELETED says so.", "0.2",
	 QMP_MEMBERS(QMP_REQ("id", qmp_str)), NULL, 0, 0, device_del},
	{"query-hotpluggable-cpus", "CPUs this machine can have, and which it has.", "0.2", NULL,
	 &QMP_LIST_OF(hotpluggable_cpu), 0, 0, query_hotpluggable_cpus},
	{"query-acpi-ospm-status", "What the guest reported last of each vCPU that can come and go (_OST).", "0.2",
	 NULL, &QMP_LIST_OF(qmp_ost_info), 0, 0, query_acpi_ospm_status},
	{NULL},
};
