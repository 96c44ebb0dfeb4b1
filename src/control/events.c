/* QMP events: the table, and the rate limits that keep a guest from flooding clients. */
#include "events.h"

#include <stdlib.h>
#include <string.h>
#include "qmp.h"
#include "types.h"
#include "vmm/clock.h"
#include "vmm/log.h"
#include "vmm/machine.h"

const struct qmp_type qmp_migration_status = QMP_ENUM(
	"MigrationStatus", "none", "setup", "cancelling", "cancelled", "active", "postcopy-active", "postcopy-paused",
	"postcopy-recover", "completed", "failed", "colo", "pre-switchover", "device", "wait-unplug");
static const struct qmp_type shutdown_cause =
	QMP_ENUM("ShutdownCause", "none", "host-error", "host-qmp-quit", "host-qmp-system-reset", "host-signal",
		 "host-ui", "guest-shutdown", "guest-reset", "guest-panic", "subsystem-reset", "snapshot-load");
static const struct qmp_type panic_action = QMP_ENUM("GuestPanicAction", "pause", "poweroff", "run");
static const struct qmp_type io_operation = QMP_ENUM("IoOperationType", "read", "write");
static const struct qmp_type io_action = QMP_ENUM("BlockErrorAction", "ignore", "report", "stop");
static const struct qmp_type network_family =
	QMP_ENUM("NetworkAddressFamily", "ipv4", "ipv6", "unix", "vsock", "unknown");
static const struct qmp_type vnc_server =
	QMP_OBJECT("VncServerInfo", QMP_REQ("host", qmp_str), QMP_REQ("service", qmp_str),
		   QMP_REQ("family", network_family), QMP_REQ("websocket", qmp_bool), QMP_OPT("auth", qmp_str));
static const struct qmp_type vnc_client = QMP_OBJECT(
	"VncClientInfo", QMP_REQ("host", qmp_str), QMP_REQ("service", qmp_str), QMP_REQ("family", network_family),
	QMP_REQ("websocket", qmp_bool), QMP_OPT("x509_dname", qmp_str), QMP_OPT("sasl_username", qmp_str));

static const struct qmp_type stream_address_kind = QMP_ENUM("NetStreamAddressType", "inet", "unix", "fd");
static const struct qmp_type stream_address = {
	.name = "NetStreamAddress",
	.kind = QMP_KIND_OBJECT,
	.members = QMP_MEMBERS(QMP_REQ("type", stream_address_kind)),
	.tag = "type",
	.variants =
		(const struct qmp_variant[]){
			{"inet", QMP_MEMBERS(QMP_REQ("host", qmp_str), QMP_REQ("port", qmp_str))},
			{"unix", QMP_MEMBERS(QMP_REQ("path", qmp_str))},
			{"fd", QMP_MEMBERS(QMP_REQ("str", qmp_str))},
			{NULL, NULL},
		},
};
static const struct qmp_type ost_slot_type = QMP_ENUM("ACPISlotType", "DIMM", "CPU");
const struct qmp_type qmp_ost_info =
	QMP_OBJECT("ACPIOSTInfo", QMP_OPT("device", qmp_str), QMP_REQ("slot", qmp_str),
		   QMP_REQ("slot-type", ost_slot_type), QMP_REQ("source", qmp_int), QMP_REQ("status", qmp_int));
const struct qmp_type qmp_job_status = QMP_ENUM("JobStatus", "undefined", "created", "running", "paused", "ready",
						"standby", "waiting", "pending", "aborting", "concluded", "null");

static const struct qmp_type dump_status = QMP_ENUM("DumpStatus", "none", "active", "completed", "failed");
const struct qmp_type qmp_dump_result = QMP_OBJECT("DumpQueryResult", QMP_REQ("status", dump_status),
						   QMP_REQ("completed", qmp_int), QMP_REQ("total", qmp_int));

#define VNC_DATA QMP_MEMBERS(QMP_REQ("server", vnc_server), QMP_REQ("client", vnc_client))

static const struct qmp_event events[] = {
	{"ACPI_DEVICE_OST", "The guest says what became of a hot-plug request (_OST).",
	 QMP_MEMBERS(QMP_REQ("info", qmp_ost_info))},
	{"BALLOON_CHANGE", "The guest has more or less RAM than before, in bytes.",
	 QMP_MEMBERS(QMP_REQ("actual", qmp_int)), 1000},
	{"BLOCK_IO_ERROR", "A disk request failed; action says what becomes of it.",
	 QMP_MEMBERS(QMP_REQ("device", qmp_str), QMP_OPT("node-name", qmp_str), QMP_REQ("operation", io_operation),
		     QMP_REQ("action", io_action), QMP_OPT("nospace", qmp_bool), QMP_REQ("reason", qmp_str))},
	{"BLOCK_WRITE_THRESHOLD", "A write went beyond what block-set-write-threshold set; it is off now.",
	 QMP_MEMBERS(QMP_REQ("node-name", qmp_str), QMP_REQ("amount-exceeded", qmp_size),
		     QMP_REQ("write-threshold", qmp_size))},
	{"DEVICE_DELETED", "A device has been removed, and its back ends are free.",
	 QMP_MEMBERS(QMP_OPT("device", qmp_str), QMP_REQ("path", qmp_str))},
	{"DEVICE_TRAY_MOVED", "A tray was opened or closed, by the guest or by a command.",
	 QMP_MEMBERS(QMP_REQ("device", qmp_str), QMP_REQ("id", qmp_str), QMP_REQ("tray-open", qmp_bool))},
	{"DEVICE_UNPLUG_GUEST_ERROR", "The guest refused to let go of a device.",
	 QMP_MEMBERS(QMP_OPT("device", qmp_str), QMP_REQ("path", qmp_str))},
	{"DUMP_COMPLETED", "A dump of guest memory ended; error: how it failed.",
	 QMP_MEMBERS(QMP_REQ("result", qmp_dump_result), QMP_OPT("error", qmp_str))},
	{"GUEST_CRASHLOADED", "The guest reported a crash kernel has been loaded and takes over.",
	 QMP_MEMBERS(QMP_REQ("action", panic_action))},
	{"GUEST_PANICKED", "The guest's kernel panicked.", QMP_MEMBERS(QMP_REQ("action", panic_action))},
	{"JOB_STATUS_CHANGE", "A job's state changed.",
	 QMP_MEMBERS(QMP_REQ("id", qmp_str), QMP_REQ("status", qmp_job_status))},
	{"MIGRATION", "A migration changed its status; needs the capability 'events'.",
	 QMP_MEMBERS(QMP_REQ("status", qmp_migration_status))},
	{"MIGRATION_PASS", "The next round of a migration begins; needs the capability 'events'.",
	 QMP_MEMBERS(QMP_REQ("pass", qmp_int))},
	{"NETDEV_STREAM_CONNECTED", "The peer of a -netdev stream is there.",
	 QMP_MEMBERS(QMP_REQ("netdev-id", qmp_str), QMP_REQ("addr", stream_address))},
	{"NETDEV_STREAM_DISCONNECTED", "The peer of a -netdev stream has gone.",
	 QMP_MEMBERS(QMP_REQ("netdev-id", qmp_str))},
	{"NIC_RX_FILTER_CHANGED", "A network card lets other packets through; told once until query-rx-filter looks.",
	 QMP_MEMBERS(QMP_OPT("name", qmp_str), QMP_REQ("path", qmp_str))},
	{"POWERDOWN", "The ACPI power button was pressed.", NULL},
	{"RESET", "The machine was reset.", QMP_MEMBERS(QMP_REQ("guest", qmp_bool), QMP_REQ("reason", shutdown_cause))},
	{"RESUME", "vCPUs run again.", NULL},
	{"RTC_CHANGE", "The guest set its clock; offset: seconds from -rtc base.",
	 QMP_MEMBERS(QMP_REQ("offset", qmp_int), QMP_REQ("qom-path", qmp_str)), 1000},
	{"SHUTDOWN", "The guest powered off, or vmm ends.",
	 QMP_MEMBERS(QMP_REQ("guest", qmp_bool), QMP_REQ("reason", shutdown_cause))},
	{"STOP", "vCPUs are stopped.", NULL},
	{"SUSPEND", "The guest entered ACPI S3.", NULL},
	{"SUSPEND_DISK", "The guest asked for ACPI S4.", NULL},
	{"VNC_CONNECTED", "A VNC client connected.", VNC_DATA},
	{"VNC_DISCONNECTED", "A VNC client went.", VNC_DATA},
	{"VNC_INITIALIZED", "A VNC client is authenticated and sees the screen.", VNC_DATA},
	{"VSERPORT_CHANGE", "A program in the guest opened or closed a virtio-serial port.",
	 QMP_MEMBERS(QMP_REQ("id", qmp_str), QMP_REQ("open", qmp_bool)), 1000, "id"},
	{"WAKEUP", "The guest left ACPI S3.", NULL},
	{"WATCHDOG", "The watchdog timer ran out.", QMP_MEMBERS(QMP_REQ("action", qmp_str)), 1000},
	{NULL},
};

const struct qmp_event *qmp_event_at(size_t i)
{
	return i < ARRAY_SIZE(events) - 1 ? &events[i] : NULL;
}

const struct qmp_event *qmp_event_find(const char *name)
{
	for (size_t i = 0; events[i].name; i++)
		if (!strcmp(events[i].name, name))
			return &events[i];
	return NULL;
}

/* ---- rate limits ---- */

/* A limited event that was sent lately: the newest of a burst waits here. */
struct throttle {
	const struct qmp_event *ev;
	char *key;
	json_t *waiting;
	bool has_waiting;
	struct timer timer;
	struct throttle *next;
};
static struct throttle *throttles;

static void throttle_free(struct throttle *t)
{
	for (struct throttle **p = &throttles; *p; p = &(*p)->next)
		if (*p == t) {
			*p = t->next;
			break;
		}
	timer_cancel(&t->timer);
	json_decref(t->waiting);
	free(t->key);
	free(t);
}

static void throttle_over(void *opaque)
{
	struct throttle *t = opaque;

	if (!t->has_waiting) {
		throttle_free(t);
		return;
	}
	qmp_emit(t->ev->name, t->waiting);
	json_decref(t->waiting);
	t->waiting = NULL;
	t->has_waiting = false;
	timer_arm(&t->timer, clock_ns(VCLOCK_REAL) + t->ev->rate_ms * NS_PER_MS);
}

static const char *throttle_key(const struct qmp_event *ev, const json_t *data)
{
	const char *key = ev->key ? json_string_value(json_object_get(data, ev->key)) : NULL;

	return key ? key : "";
}

static void emit_limited(const struct qmp_event *ev, const json_t *data)
{
	const char *key = throttle_key(ev, data);
	struct throttle *t = throttles;

	while (t && (t->ev != ev || strcmp(t->key, key)))
		t = t->next;
	if (t) {
		json_decref(t->waiting);
		t->waiting = json_incref((json_t *)data);
		t->has_waiting = true;
		return;
	}
	t = xzalloc(sizeof(*t));
	t->ev = ev;
	t->key = xstrdup(key);
	t->next = throttles;
	throttles = t;
	timer_init(&t->timer, loop_main(), VCLOCK_REAL, NULL, throttle_over, t);
	timer_arm(&t->timer, clock_ns(VCLOCK_REAL) + ev->rate_ms * NS_PER_MS);
	qmp_emit(ev->name, data);
}

void events_emit(const char *name, const char *data_json)
{
	const struct qmp_event *ev = qmp_event_find(name);
	json_t *data = data_json ? json_loads(data_json, 0, NULL) : NULL;

	if (!ev || (data_json && !data) || !!ev->data != !!data)
		log_debug("control", "event %s does not match the table: %s", name, data_json ? data_json : "no data");
	if (ev && ev->rate_ms && !clock_is_manual())
		emit_limited(ev, data);
	else
		qmp_emit(name, data);
	json_decref(data);
}

void events_stop(void)
{
	while (throttles)
		throttle_free(throttles);
}
