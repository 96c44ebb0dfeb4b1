/* QMP: life cycle, vCPUs, machine types. */
#include <errno.h>
#include <string.h>
#include "commands.h"
#include "types.h"
#include "vmm/config.h"
#include "vmm/kvm.h"

const struct qmp_type qmp_run_state =
	QMP_ENUM("RunState", "debug", "inmigrate", "internal-error", "io-error", "paused", "postmigrate", "prelaunch",
		 "finish-migrate", "restore-vm", "running", "save-vm", "shutdown", "suspended", "watchdog",
		 "guest-panicked", "colo");
static const struct qmp_type status_info = QMP_OBJECT(
	"StatusInfo", QMP_REQ("running", qmp_bool), QMP_REQ("singlestep", qmp_bool), QMP_REQ("status", qmp_run_state));
const struct qmp_type qmp_cpu_properties = QMP_OBJECT("CpuInstanceProperties", QMP_OPT("socket-id", qmp_int),
						      QMP_OPT("core-id", qmp_int), QMP_OPT("thread-id", qmp_int));
static const struct qmp_type cpu_info_fast =
	QMP_OBJECT("CpuInfoFast", QMP_REQ("cpu-index", qmp_int), QMP_REQ("qom-path", qmp_str),
		   QMP_REQ("thread-id", qmp_int), QMP_OPT("props", qmp_cpu_properties), QMP_REQ("target", qmp_str));
static const struct qmp_type machine_info = QMP_OBJECT(
	"MachineInfo", QMP_REQ("name", qmp_str), QMP_OPT("alias", qmp_str), QMP_OPT("is-default", qmp_bool),
	QMP_REQ("cpu-max", qmp_int), QMP_REQ("hotpluggable-cpus", qmp_bool), QMP_REQ("numa-mem-supported", qmp_bool),
	QMP_REQ("deprecated", qmp_bool), QMP_OPT("default-cpu-type", qmp_str));
static const struct qmp_type memory_size =
	QMP_OBJECT("MemoryInfo", QMP_REQ("base-memory", qmp_int), QMP_OPT("plugged-memory", qmp_int));
static const struct qmp_type current_machine =
	QMP_OBJECT("CurrentMachineParams", QMP_REQ("wakeup-suspend-support", qmp_bool));
static const struct qmp_type iothread_info =
	QMP_OBJECT("IOThreadInfo", QMP_REQ("id", qmp_str), QMP_REQ("thread-id", qmp_int));
static const struct qmp_type reboot_action = QMP_ENUM("RebootAction", "reset", "shutdown");
static const struct qmp_type shutdown_action = QMP_ENUM("ShutdownAction", "poweroff", "pause");
static const struct qmp_type panic_action = QMP_ENUM("PanicAction", "pause", "shutdown", "exit-failure", "none");

static const struct qmp_type watchdog_action = {
	.name = "WatchdogAction", .kind = QMP_KIND_ENUM, .values = watchdog_action_names};

/* ---- status ---- */

static json_t *query_status(struct qmp_call *call, struct err *e)
{
	return json_pack("{s:s, s:b, s:b}", "status", run_state_name(machine_run_state(call->board)), "singlestep", 0,
			 "running", machine_running(call->board));
}

static json_t *stop(struct qmp_call *call, struct err *e)
{
	/* Stopped for a dump only: stays stopped after it. */
	if (machine_running(call->board) || machine_run_state(call->board) == RUN_SAVE_VM)
		machine_stop(call->board, RUN_PAUSED);
	return json_object();
}

static json_t *cont(struct qmp_call *call, struct err *e)
{
	if (dump_in_progress()) {
		err_set(e, EBUSY, "There is a dump in process, please wait.");
		return NULL;
	}
	return machine_cont(call->board, e) ? NULL : json_object();
}

static json_t *system_reset(struct qmp_call *call, struct err *e)
{
	machine_reset(call->board, SHUTDOWN_HOST_QMP_RESET);
	return json_object();
}

static json_t *system_powerdown(struct qmp_call *call, struct err *e)
{
	machine_powerdown(call->board);
	return json_object();
}

static json_t *system_wakeup(struct qmp_call *call, struct err *e)
{
	if (machine_run_state(call->board) != RUN_SUSPENDED) {
		err_set(e, EINVAL, "Unable to wake up: guest is not in suspended state");
		return NULL;
	}
	machine_request_wakeup(call->board);
	return json_object();
}

static json_t *quit(struct qmp_call *call, struct err *e)
{
	machine_quit(call->board, SHUTDOWN_HOST_QMP_QUIT);
	return json_object();
}

static json_t *inject_nmi(struct qmp_call *call, struct err *e)
{
	machine_inject_nmi(call->board);
	return json_object();
}

/* Index of an argument in its enum, -1 if it is absent. The enums of vmm/config.h are in this order. */
static int action(struct qmp_call *call, const char *name, const char *const *values)
{
	const char *text = qmp_arg_str(call, name);

	for (int i = 0; text && values[i]; i++)
		if (!strcmp(values[i], text))
			return i;
	return -1;
}

static json_t *set_action(struct qmp_call *call, struct err *e)
{
	static const int reboots[] = {REBOOT_RESET, REBOOT_SHUTDOWN};
	static const int shutdowns[] = {SHUTDOWN_POWEROFF, SHUTDOWN_PAUSE};
	static const int panics[] = {PANIC_PAUSE, PANIC_SHUTDOWN, PANIC_EXIT_FAILURE, PANIC_NONE};
	int r = action(call, "reboot", reboot_action.values), s = action(call, "shutdown", shutdown_action.values);
	int p = action(call, "panic", panic_action.values), w = action(call, "watchdog", watchdog_action.values);

	machine_set_actions(call->board, r < 0 ? -1 : reboots[r], s < 0 ? -1 : shutdowns[s], p < 0 ? -1 : panics[p]);
	if (w >= 0)
		machine_set_watchdog_action(call->board, w);
	return json_object();
}

static json_t *watchdog_set_action(struct qmp_call *call, struct err *e)
{
	machine_set_watchdog_action(call->board, action(call, "action", watchdog_action.values));
	return json_object();
}

/* ---- facts ---- */

static json_t *query_cpus_fast(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();
	struct cpu_info info;

	for (unsigned i = 0; machine_cpu_info(call->board, i, &info); i++) {
		json_array_append_new(list,
				      json_pack("{s:i, s:s, s:i, s:{s:i, s:i, s:i}, s:s}", "cpu-index", (int)info.index,
						"qom-path", info.path, "thread-id", info.thread_id, "props", "core-id",
						(int)info.core, "thread-id", (int)info.thread, "socket-id",
						(int)info.socket, "target", "x86_64"));
	}
	return list;
}

static json_t *query_machines(struct qmp_call *call, struct err *e)
{
	return json_pack("[{s:s, s:s, s:b, s:i, s:b, s:b, s:b, s:s}, {s:s, s:i, s:b, s:b, s:b}]", "name",
			 "pc-i440fx-7.2", "alias", "pc", "is-default", 1, "cpu-max", MACHINE_MAX_CPUS,
			 "hotpluggable-cpus", 1, "numa-mem-supported", 0, "deprecated", 0, "default-cpu-type",
			 "qemu64-x86_64-cpu", "name", "none", "cpu-max", 1, "hotpluggable-cpus", 0,
			 "numa-mem-supported", 0, "deprecated", 0);
}

static json_t *query_memory_size(struct qmp_call *call, struct err *e)
{
	return json_pack("{s:I}", "base-memory", (json_int_t)machine_config(call->board)->memory.size);
}

static json_t *rtc_reset_reinjection(struct qmp_call *call, struct err *e)
{
	struct device *rtc = device_find_class(call->board, "mc146818rtc");

	for (const struct device_property *p = rtc ? rtc->class->properties : NULL; p && p->name; p++) {
		if (strcmp(p->name, "lost-ticks"))
			continue;
		pthread_mutex_lock(rtc->lock);
		p->set(rtc, "0", e);
		pthread_mutex_unlock(rtc->lock);
	}
	return e->code ? NULL : json_object();
}

/* Guests sleep in S3 unless -global PIIX4_PM.disable_s3=1 takes it from them. */
static json_t *query_current_machine(struct qmp_call *call, struct err *e)
{
	const struct device *pm = device_find_class(call->board, "PIIX4_PM");
	const struct prop *p = pm ? prop_find(pm->class->props, "disable_s3") : NULL;
	bool disabled = p && *((const uint8_t *)pm + p->offset);

	return json_pack("{s:b}", "wakeup-suspend-support", pm && !disabled);
}

static json_t *query_nothing(struct qmp_call *call, struct err *e)
{
	return json_array();
}

static json_t *dumpdtb(struct qmp_call *call, struct err *e)
{
	return machine_write_description(call->board, qmp_arg_str(call, "filename"), e) ? NULL : json_object();
}

const struct qmp_command qmp_machine_commands[] = {
	{"query-status", "Run state of the guest.", "0.1", NULL, &status_info, 0, 0, query_status},
	{"stop", "Stop the vCPUs.", "0.1", NULL, NULL, 0, 0, stop},
	{"cont", "Let the vCPUs run.", "0.1", NULL, NULL, 0, 0, cont},
	{"system_reset", "Reset the machine, like its reset button.", "0.1", NULL, NULL, 0, 0, system_reset},
	{"system_powerdown", "Press the ACPI power button.", "0.1", NULL, NULL, 0, 0, system_powerdown},
	{"system_wakeup", "Wake the guest from ACPI S3.", "0.1", NULL, NULL, 0, 0, system_wakeup},
	{"quit", "End vmm at once, like pulling the plug.", "0.1", NULL, NULL, 0, 0, quit},
	{"inject-nmi", "Send an NMI to the vCPUs.", "0.1", NULL, NULL, 0, 0, inject_nmi},
	{"set-action", "What a reboot, power-off or panic of the guest leads to.", "0.1",
	 QMP_MEMBERS(QMP_OPT("reboot", reboot_action), QMP_OPT("shutdown", shutdown_action),
		     QMP_OPT("panic", panic_action), QMP_OPT("watchdog", watchdog_action)),
	 NULL, 0, 0, set_action},
	{"watchdog-set-action", "What a watchdog that fires leads to.", "0.2",
	 QMP_MEMBERS(QMP_REQ("action", watchdog_action)), NULL, 0, 0, watchdog_set_action},
	{"rtc-reset-reinjection", "Forget clock interrupts the guest has missed.", "0.2", NULL, NULL, 0, 0,
	 rtc_reset_reinjection},
	{"query-current-machine", "What this machine can do.", "0.2", NULL, &current_machine, 0, 0,
	 query_current_machine},
	{"query-iothreads", "I/O threads with an id of their own; there are none.", "0.2", NULL,
	 &QMP_LIST_OF(iothread_info), 0, 0, query_nothing},
	{"query-memory-devices", "Memory devices (DIMMs); the board has none.", "0.2", NULL, &QMP_LIST_OF(qmp_any), 0,
	 0, query_nothing},
	{"query-tpm", "Trusted platform modules; the board has none.", "0.2", NULL, &QMP_LIST_OF(qmp_any), 0, 0,
	 query_nothing},
	{"query-tpm-models", "Kinds of trusted platform modules; there are none.", "0.2", NULL, &QMP_LIST_OF(qmp_str),
	 0, 0, query_nothing},
	{"query-tpm-types", "Back ends of trusted platform modules; there are none.", "0.2", NULL,
	 &QMP_LIST_OF(qmp_str), 0, 0, query_nothing},
	{"dumpdtb", "Write the machine description, a flattened device tree, to a file.", "0.2",
	 QMP_MEMBERS(QMP_REQ("filename", qmp_str)), NULL, 0, 0, dumpdtb},
	{"query-cpus-fast", "vCPUs with their host threads.", "0.1", NULL, &QMP_LIST_OF(cpu_info_fast), 0, 0,
	 query_cpus_fast},
	{"query-machines", "Machine types.", "0.1", NULL, &QMP_LIST_OF(machine_info), 0, 0, query_machines},
	{"query-memory-size-summary", "Guest RAM in bytes.", "0.1", NULL, &memory_size, 0, 0, query_memory_size},
	{NULL},
};
