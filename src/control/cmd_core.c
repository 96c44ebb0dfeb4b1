/* QMP: negotiation, introspection, identity. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "commands.h"
#include "hmp.h"
#include "types.h"
#include "vmm-config.h"
#include "vmm/block.h"
#include "vmm/chardev.h"
#include "vmm/config.h"

static const struct qmp_type version_triple =
	QMP_OBJECT("VersionTriple", QMP_REQ("major", qmp_int), QMP_REQ("minor", qmp_int), QMP_REQ("micro", qmp_int));
const struct qmp_type qmp_version_info =
	QMP_OBJECT("VersionInfo", QMP_REQ("qemu", version_triple), QMP_REQ("package", qmp_str));
static const struct qmp_type capability = QMP_ENUM("QMPCapability", "oob");
static const struct qmp_type name_info = QMP_OBJECT("NameInfo", QMP_OPT("name", qmp_str));
static const struct qmp_type uuid_info = QMP_OBJECT("UuidInfo", QMP_REQ("UUID", qmp_str));
static const struct qmp_type kvm_info =
	QMP_OBJECT("KvmInfo", QMP_REQ("enabled", qmp_bool), QMP_REQ("present", qmp_bool));
static const struct qmp_type target_info = QMP_OBJECT("TargetInfo", QMP_REQ("arch", qmp_str));
static const struct qmp_type command_info = QMP_OBJECT("CommandInfo", QMP_REQ("name", qmp_str));
static const struct qmp_type event_info = QMP_OBJECT("EventInfo", QMP_REQ("name", qmp_str));
static const struct qmp_type parameter_type =
	QMP_ENUM("CommandLineParameterType", "string", "boolean", "number", "size");
static const struct qmp_type parameter_info =
	QMP_OBJECT("CommandLineParameterInfo", QMP_REQ("name", qmp_str), QMP_REQ("type", parameter_type),
		   QMP_OPT("help", qmp_str), QMP_OPT("default", qmp_str));
static const struct qmp_type option_info = QMP_OBJECT("CommandLineOptionInfo", QMP_REQ("option", qmp_str),
						      QMP_REQ("parameters", QMP_LIST_OF(parameter_info)));

static const struct qmp_type manual_command =
	QMP_OBJECT("XCommandHelp", QMP_REQ("name", qmp_str), QMP_REQ("help", qmp_str), QMP_REQ("since", qmp_str));
static const struct qmp_type manual_event =
	QMP_OBJECT("XEventHelp", QMP_REQ("name", qmp_str), QMP_REQ("help", qmp_str));
static const struct qmp_type manual = QMP_OBJECT("XManual", QMP_REQ("commands", QMP_LIST_OF(manual_command)),
						 QMP_REQ("events", QMP_LIST_OF(manual_event)));

/* ---- negotiation and version ---- */

static json_t *qmp_capabilities(struct qmp_call *call, struct err *e)
{
	/* There is but one capability, so a list that is not empty enables it. Requests are never held back behind
	   others, so out-of-band ones need no queue of their own. */
	call->client->negotiated = true;
	call->client->oob = json_array_size(json_object_get(call->args, "enable")) > 0;
	return json_object();
}

/* Clients choose by QEMU's version what they may ask; ours is in package. */
json_t *qmp_version(void)
{
	return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "micro", 0, "minor", 2, "major", 7, "package",
			 "vmm-" VMM_VERSION);
}

static json_t *query_version(struct qmp_call *call, struct err *e)
{
	return qmp_version();
}

static json_t *query_commands(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();
	const struct qmp_command *c;

	for (size_t i = 0; (c = qmp_command_at(i)); i++)
		json_array_append_new(list, json_pack("{s:s}", "name", c->name));
	return list;
}

static json_t *query_events(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();
	const struct qmp_event *ev;

	for (size_t i = 0; (ev = qmp_event_at(i)); i++)
		json_array_append_new(list, json_pack("{s:s}", "name", ev->name));
	return list;
}

/* What the tables say to people; vmm-qmp(7) is made of it. */
static json_t *x_query_manual(struct qmp_call *call, struct err *e)
{
	json_t *commands = json_array(), *events = json_array();
	const struct qmp_command *c;
	const struct qmp_event *ev;

	for (size_t i = 0; (c = qmp_command_at(i)); i++)
		json_array_append_new(
			commands, json_pack("{s:s, s:s, s:s}", "name", c->name, "help", c->help, "since", c->since));
	for (size_t i = 0; (ev = qmp_event_at(i)); i++)
		json_array_append_new(events, json_pack("{s:s, s:s}", "name", ev->name, "help", ev->help));
	return json_pack("{s:o, s:o}", "commands", commands, "events", events);
}

static json_t *query_schema(struct qmp_call *call, struct err *e)
{
	return qmp_schema();
}

/* ---- command line ---- */

/* Names under which QEMU's query lists an option's parameters. */
static const char *group_name(const char *option)
{
	static const char *const names[][2] = {{"smp", "smp-opts"}, {"m", "memory"}, {"boot", "boot-opts"}};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i][0], option))
			return names[i][1];
	return option;
}

static const char *parameter_kind(const struct prop *p)
{
	switch (p->type) {
	case PROP_BOOL:
	case PROP_ONOFFAUTO:
		return "boolean";
	case PROP_U8:
	case PROP_U16:
	case PROP_U32:
	case PROP_U64:
	case PROP_I32:
		return "number";
	case PROP_SIZE:
		return "size";
	default:
		return "string";
	}
}

static bool has_parameter(const json_t *list, const char *name)
{
	json_t *o;
	size_t i;

	json_array_foreach((json_t *)list, i, o)
	{
		if (!strcmp(json_string_value(json_object_get(o, "name")), name))
			return true;
	}
	return false;
}

static void add_parameters(json_t *list, const struct prop *p)
{
	for (; p && p->name; p++) {
		json_t *o;

		if (p->internal || has_parameter(list, p->name))
			continue;
		o = json_pack("{s:s, s:s}", "name", p->name, "type", parameter_kind(p));
		if (p->help)
			json_object_set_new(o, "help", json_string(p->help));
		if (p->def_str)
			json_object_set_new(o, "default", json_string(p->def_str));
		json_array_append_new(list, o);
	}
}

static json_t *describe_option(const struct option_desc *d)
{
	json_t *list = json_array();
	const struct prop *props;

	if (!strcmp(d->name, "chardev")) {
		json_array_append_new(list, json_pack("{s:s, s:s}", "name", "backend", "type", "string"));
		for (size_t i = 0; chardev_backend_at(i, NULL, &props); i++)
			add_parameters(list, props);
	} else if (!strcmp(d->name, "drive")) {
		add_parameters(list, block_drive_props);
	} else if (!strcmp(d->name, "blockdev")) {
		add_parameters(list, block_blockdev_props);
	}
	add_parameters(list, d->props);
	return json_pack("{s:s, s:o}", "option", group_name(d->name), "parameters", list);
}

static json_t *query_command_line_options(struct qmp_call *call, struct err *e)
{
	const char *wanted = qmp_arg_str(call, "option");
	const struct option_desc *d;
	json_t *list = json_array();

	for (size_t i = 0; (d = config_option(i)); i++)
		if (!wanted || !strcmp(wanted, group_name(d->name)))
			json_array_append_new(list, describe_option(d));
	if (wanted && !json_array_size(list)) {
		json_decref(list);
		err_set(e, EINVAL, "Invalid parameter '%.200s'", wanted);
		return NULL;
	}
	return list;
}

/* ---- identity ---- */

static json_t *query_name(struct qmp_call *call, struct err *e)
{
	const char *name = machine_config(call->board)->name;
	json_t *o = json_object();

	if (name)
		json_object_set_new(o, "name", qmp_text(name));
	return o;
}

static json_t *query_uuid(struct qmp_call *call, struct err *e)
{
	const uint8_t *u = machine_config(call->board)->uuid;
	char text[37];
	char *p = text;

	for (int i = 0; i < 16; i++)
		p += sprintf(p, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
	return json_pack("{s:s}", "UUID", text);
}

static json_t *query_kvm(struct qmp_call *call, struct err *e)
{
	bool enabled = machine_config(call->board)->machine.accel == ACCEL_KVM;

	return json_pack("{s:b, s:b}", "enabled", enabled, "present", enabled || access("/dev/kvm", F_OK) == 0);
}

static json_t *query_target(struct qmp_call *call, struct err *e)
{
	return json_pack("{s:s}", "arch", "x86_64");
}

struct human {
	struct hmp h;
	struct qmp_later *later; /* the command's answer comes later, and so does ours */
	json_t *result;
};

static void human_done(struct hmp *h, const char *text)
{
	struct human *m = container_of(h, struct human, h);

	m->result = qmp_text(text);
	if (m->later) {
		qmp_later_finish(m->later, m->result, NULL);
		free(m);
	}
}

static json_t *human_monitor_command(struct qmp_call *call, struct err *e)
{
	int64_t cpu = qmp_arg_int(call, "cpu-index", 0);
	struct human *m;
	json_t *result;

	if (cpu < 0 || cpu >= board_max_cpus(call->board)) {
		err_set(e, EINVAL, "Parameter 'cpu-index' expects a CPU number");
		return NULL;
	}
	m = xzalloc(sizeof(*m));
	m->h = (struct hmp){.board = call->board, .cpu = (unsigned)cpu, .done = human_done};
	hmp_run(&m->h, qmp_arg_str(call, "command-line"));
	if (!m->result) {
		m->later = qmp_later(call);
		return NULL;
	}
	result = m->result;
	free(m);
	return result;
}

const struct qmp_command qmp_core_commands[] = {
	{"qmp_capabilities", "Leave negotiation mode; must come first.", "0.1",
	 QMP_MEMBERS(QMP_OPT("enable", QMP_LIST_OF(capability))), NULL, 0, QMP_NEGOTIATION | QMP_OOB, qmp_capabilities},
	{"query-version", "QEMU version whose interface this is, and our own in package.", "0.1", NULL,
	 &qmp_version_info, 0, 0, query_version},
	{"query-commands", "Names of all commands.", "0.1", NULL, &QMP_LIST_OF(command_info), 0, 0, query_commands},
	{"query-events", "Names of all events.", "0.1", NULL, &QMP_LIST_OF(event_info), 0, 0, query_events},
	{"query-qmp-schema", "Commands, events and types of this server.", "0.1", NULL, &QMP_LIST_OF(qmp_any), 0, 0,
	 query_schema},
	{"x-query-manual", "What each command and event is for.", "0.2", NULL, &manual, 0, 0, x_query_manual},
	{"query-command-line-options", "Options of the command line with their parameters.", "0.1",
	 QMP_MEMBERS(QMP_OPT("option", qmp_str)), &QMP_LIST_OF(option_info), 0, 0, query_command_line_options},
	{"query-name", "The name given with -name.", "0.1", NULL, &name_info, 0, 0, query_name},
	{"query-uuid", "The guest's UUID; zeroes if none was given.", "0.1", NULL, &uuid_info, 0, 0, query_uuid},
	{"query-kvm", "Whether KVM is there and in use.", "0.1", NULL, &kvm_info, 0, 0, query_kvm},
	{"query-target", "The guest's architecture.", "0.1", NULL, &target_info, 0, 0, query_target},
	{"human-monitor-command", "Run a command of QEMU's readline monitor; \"help\" lists them.", "0.1",
	 QMP_MEMBERS(QMP_REQ("command-line", qmp_str), QMP_OPT("cpu-index", qmp_int)), &qmp_str, 0, 0,
	 human_monitor_command},
	{NULL},
};
