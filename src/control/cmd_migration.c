/* QMP: migration. Names, arguments and results are QEMU 7.2's (qapi/migration.json); "x-" is ours. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "commands.h"
#include "types.h"
#include "vmm/migration.h"

static const struct qmp_type capability =
	QMP_ENUM("MigrationCapability", "xbzrle", "rdma-pin-all", "auto-converge", "zero-blocks", "compress", "events",
		 "postcopy-ram", "x-colo", "release-ram", "block", "return-path", "pause-before-switchover", "multifd",
		 "dirty-bitmaps", "postcopy-blocktime", "late-block-activate", "x-ignore-shared", "validate-uuid",
		 "mapped-ram", "background-snapshot", "zero-copy-send", "postcopy-preempt");
static const struct qmp_type capability_status =
	QMP_OBJECT("MigrationCapabilityStatus", QMP_REQ("capability", capability), QMP_REQ("state", qmp_bool));
static const struct qmp_type compression = QMP_ENUM("MultiFDCompression", "none", "zlib", "zstd");
static const struct qmp_type percentages = QMP_LIST_OF(qmp_int);
static const struct qmp_type mode = QMP_ENUM("MigMode", "normal", "cpr-transfer");
static const struct qmp_type timeout_action = QMP_ENUM("MigrationTimeoutAction", "cancel", "force");

/* The members of query-migrate-parameters and migrate-set-parameters: the rows of migration_parameter_props. */
#define PARAMETERS                                                                                        \
	QMP_OPT("announce-initial", qmp_size), QMP_OPT("announce-max", qmp_size),                         \
		QMP_OPT("announce-rounds", qmp_size), QMP_OPT("announce-step", qmp_size),                 \
		QMP_OPT("throttle-trigger-threshold", qmp_int), QMP_OPT("cpu-throttle-initial", qmp_int), \
		QMP_OPT("cpu-throttle-increment", qmp_int), QMP_OPT("cpu-throttle-tailslow", qmp_bool),   \
		QMP_OPT("max-cpu-throttle", qmp_int), QMP_OPT("max-bandwidth", qmp_size),                 \
		QMP_OPT("max-postcopy-bandwidth", qmp_size), QMP_OPT("downtime-limit", qmp_size),         \
		QMP_OPT("multifd-channels", qmp_int), QMP_OPT("multifd-compression", compression),        \
		QMP_OPT("multifd-zstd-level", qmp_int), QMP_OPT("tls-creds", qmp_str),                    \
		QMP_OPT("tls-hostname", qmp_str), QMP_OPT("tls-authz", qmp_str), QMP_OPT("mode", mode),   \
		QMP_OPT("x-timeout", qmp_size), QMP_OPT("x-timeout-action", timeout_action),              \
		QMP_OPT("x-switchover-timeout", qmp_size)
static const struct qmp_type parameters = QMP_OBJECT("MigrationParameters", PARAMETERS);

static const struct qmp_type ram_stats = QMP_OBJECT(
	"MigrationStats", QMP_REQ("transferred", qmp_int), QMP_REQ("remaining", qmp_int), QMP_REQ("total", qmp_int),
	QMP_REQ("duplicate", qmp_int), QMP_REQ("skipped", qmp_int), QMP_REQ("normal", qmp_int),
	QMP_REQ("normal-bytes", qmp_int), QMP_REQ("dirty-pages-rate", qmp_int), QMP_REQ("mbps", qmp_number),
	QMP_REQ("dirty-sync-count", qmp_int), QMP_REQ("postcopy-requests", qmp_int), QMP_REQ("page-size", qmp_int),
	QMP_REQ("multifd-bytes", qmp_int), QMP_REQ("pages-per-second", qmp_int), QMP_REQ("precopy-bytes", qmp_int),
	QMP_REQ("downtime-bytes", qmp_int), QMP_REQ("postcopy-bytes", qmp_int),
	QMP_REQ("dirty-sync-missed-zero-copy", qmp_int));
static const struct qmp_type downtime_parts =
	QMP_OBJECT("MigrationDowntime", QMP_REQ("stop-us", qmp_int), QMP_REQ("final-pages-us", qmp_int),
		   QMP_REQ("flush-us", qmp_int), QMP_REQ("state-us", qmp_int), QMP_REQ("load-us", qmp_int),
		   QMP_REQ("resume-us", qmp_int), QMP_REQ("total-us", qmp_int));
static const struct qmp_type address_type = QMP_ENUM("SocketAddressType", "inet", "unix", "vsock", "fd");
static const struct qmp_type socket_address =
	QMP_OBJECT("SocketAddress", QMP_REQ("type", address_type), QMP_OPT("host", qmp_str), QMP_OPT("port", qmp_str),
		   QMP_OPT("path", qmp_str));
static const struct qmp_type migration_info =
	QMP_OBJECT("MigrationInfo", QMP_OPT("status", qmp_migration_status), QMP_OPT("ram", ram_stats),
		   QMP_OPT("total-time", qmp_int), QMP_OPT("expected-downtime", qmp_int), QMP_OPT("downtime", qmp_int),
		   QMP_OPT("setup-time", qmp_int), QMP_OPT("cpu-throttle-percentage", qmp_int),
		   QMP_OPT("x-cpu-throttle-percentages", percentages), QMP_OPT("error-desc", qmp_str),
		   QMP_OPT("socket-address", QMP_LIST_OF(socket_address)), QMP_OPT("x-downtime", downtime_parts));

/* ---- commands ---- */

static json_t *done(int r)
{
	return r < 0 ? NULL : json_object();
}

static json_t *migrate(struct qmp_call *call, struct err *e)
{
	if (qmp_arg_bool(call, "blk", false) || qmp_arg_bool(call, "inc", false)) {
		err_set(e, ENOTSUP, "blk and inc are not offered: source and destination share the disks");
		return NULL;
	}
	return done(migration_start(qmp_arg_str(call, "uri"), qmp_arg_bool(call, "resume", false), e));
}

static json_t *migrate_cancel(struct qmp_call *call, struct err *e)
{
	return done(migration_cancel(e));
}

static json_t *migrate_incoming(struct qmp_call *call, struct err *e)
{
	return done(migration_incoming(qmp_arg_str(call, "uri"), e));
}

static json_t *migrate_continue(struct qmp_call *call, struct err *e)
{
	const char *state = qmp_arg_str(call, "state");
	enum migration_status s = MIGRATION_NONE;

	for (int i = 0; i < MIGRATION_N_STATUS; i++)
		if (!strcmp(migration_status_name((enum migration_status)i), state))
			s = (enum migration_status)i;
	return done(migration_continue(s, e));
}

static json_t *migrate_start_postcopy(struct qmp_call *call, struct err *e)
{
	return done(migration_start_postcopy(e));
}

static json_t *migrate_pause(struct qmp_call *call, struct err *e)
{
	return done(migration_pause(e));
}

static json_t *migrate_recover(struct qmp_call *call, struct err *e)
{
	return done(migration_recover(qmp_arg_str(call, "uri"), e));
}

/* ---- capabilities and parameters ---- */

static json_t *query_capabilities(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();
	const char *name;
	bool on;

	for (size_t i = 0; (name = migration_capability(i, &on)) != NULL; i++)
		json_array_append_new(list, json_pack("{s:s, s:b}", "capability", name, "state", on));
	return list;
}

static json_t *set_capabilities(struct qmp_call *call, struct err *e)
{
	json_t *item;
	size_t i;

	json_array_foreach(json_object_get(call->args, "capabilities"), i,
			   item) if (migration_set_capability(json_string_value(json_object_get(item, "capability")),
							      json_is_true(json_object_get(item, "state")),
							      e) < 0) return NULL;
	return json_object();
}

static json_t *parameter_value(const struct prop *p, const char *text)
{
	if (p->type == PROP_STR || p->type == PROP_ENUM)
		return qmp_text(text ? text : "");
	if (p->type == PROP_BOOL)
		return json_boolean(text && !strcmp(text, "on"));
	return json_integer(text ? strtoll(text, NULL, 0) : 0);
}

static json_t *query_parameters(struct qmp_call *call, struct err *e)
{
	json_t *o = json_object();

	for (const struct prop *p = migration_parameter_props; p->name; p++) {
		char *text = prop_format(p, migration_parameters());

		json_object_set_new(o, p->name, parameter_value(p, text));
		free(text);
	}
	return o;
}

static json_t *set_parameters(struct qmp_call *call, struct err *e)
{
	const char *name;
	json_t *value;

	json_object_foreach(call->args, name, value)
	{
		char *text = json_is_string(value)    ? xstrdup(json_string_value(value))
			     : json_is_boolean(value) ? xstrdup(json_is_true(value) ? "on" : "off")
						      : xasprintf("%lld", (long long)json_integer_value(value));
		int r = migration_set_parameter(name, text, e);

		free(text);
		if (r < 0)
			return NULL;
	}
	return json_object();
}

/* ---- query-migrate ---- */

static json_t *address_json(const char *text)
{
	const char *colon = strrchr(text, ':');

	if (!strncmp(text, "unix:", 5))
		return json_pack("[{s:s, s:o}]", "type", "unix", "path", qmp_text(text + 5));
	return json_pack("[{s:s, s:s%, s:s}]", "type", "inet", "host", text + 4, (size_t)(colon - text - 4), "port",
			 colon + 1);
}

static json_t *ram_json(const struct migration_info *m)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:i, s:I, s:I, s:I, s:f, s:I, s:I, s:i, s:I, s:I, s:I, s:I, s:I, s:i}",
			 "transferred", (json_int_t)m->transferred, "remaining", (json_int_t)m->remaining, "total",
			 (json_int_t)m->total, "duplicate", (json_int_t)m->zero_pages, "skipped", 0, "normal",
			 (json_int_t)m->normal_pages, "normal-bytes", (json_int_t)(m->normal_pages * 4096),
			 "dirty-pages-rate", (json_int_t)m->dirty_pages_rate, "mbps", m->mbps, "dirty-sync-count",
			 (json_int_t)m->sync_count, "postcopy-requests", (json_int_t)m->postcopy_requests, "page-size",
			 4096, "multifd-bytes", (json_int_t)m->multifd_bytes, "pages-per-second",
			 (json_int_t)m->pages_per_second, "precopy-bytes", (json_int_t)m->precopy_bytes,
			 "downtime-bytes", (json_int_t)m->downtime_bytes, "postcopy-bytes",
			 (json_int_t)m->postcopy_bytes, "dirty-sync-missed-zero-copy", 0);
}

static void add_int(json_t *o, const char *name, uint64_t value)
{
	json_object_set_new(o, name, json_integer((json_int_t)value));
}

static json_t *query_migrate(struct qmp_call *call, struct err *e)
{
	struct migration_info m;
	json_t *o = json_object();

	migration_query(&m);
	if (m.address[0])
		json_object_set_new(o, "socket-address", address_json(m.address));
	if (m.status == MIGRATION_NONE)
		return o;
	json_object_set_new(o, "status", json_string(migration_status_name(m.status)));
	if (m.error[0] && (m.status == MIGRATION_FAILED || m.status == MIGRATION_POSTCOPY_PAUSED))
		json_object_set_new(o, "error-desc", qmp_text(m.error));
	if (!m.outgoing || m.status == MIGRATION_SETUP)
		return o;
	add_int(o, "total-time", m.total_time_ms);
	add_int(o, "setup-time", m.setup_time_ms);
	json_object_set_new(o, "ram", ram_json(&m));
	if (m.throttle_percent)
		add_int(o, "cpu-throttle-percentage", m.throttle_percent);
	if (m.n_throttled) {
		json_t *each = json_array();

		for (unsigned i = 0; i < m.n_throttled; i++)
			json_array_append_new(each, json_integer(m.throttle_of[i]));
		json_object_set_new(o, "x-cpu-throttle-percentages", each);
	}
	if (m.status != MIGRATION_COMPLETED) {
		add_int(o, "expected-downtime", m.expected_downtime_ms);
		return o;
	}
	add_int(o, "downtime", m.downtime_ms);
	json_object_set_new(o, "x-downtime",
			    json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "stop-us", (json_int_t)m.stop_us,
				      "final-pages-us", (json_int_t)m.final_pages_us, "flush-us",
				      (json_int_t)m.flush_us, "state-us", (json_int_t)m.state_us, "load-us",
				      (json_int_t)m.load_us, "resume-us", (json_int_t)m.resume_us, "total-us",
				      (json_int_t)m.downtime_us));
	return o;
}

const struct qmp_command qmp_migration_commands[] = {
	{"migrate", "Move the guest to where uri says: tcp:HOST:PORT, unix:PATH, fd:NAME or exec:COMMAND.", "0.2",
	 QMP_MEMBERS(QMP_REQ("uri", qmp_str), QMP_OPT("blk", qmp_bool), QMP_OPT("inc", qmp_bool),
		     QMP_OPT("detach", qmp_bool), QMP_OPT("resume", qmp_bool)),
	 NULL, 0, 0, migrate},
	{"migrate_cancel", "Give up the migration; the guest goes on here.", "0.2", NULL, NULL, 0, 0, migrate_cancel},
	{"migrate-incoming", "Wait for a guest at uri (-incoming defer).", "0.2", QMP_MEMBERS(QMP_REQ("uri", qmp_str)),
	 NULL, 0, 0, migrate_incoming},
	{"migrate-continue", "Go on from the given state (pause-before-switchover).", "0.2",
	 QMP_MEMBERS(QMP_REQ("state", qmp_migration_status)), NULL, 0, 0, migrate_continue},
	{"migrate-start-postcopy", "Let the guest run at the destination before all its memory is there.", "0.2", NULL,
	 NULL, 0, 0, migrate_start_postcopy},
	{"migrate-pause", "Interrupt a post-copy; migrate with resume goes on.", "0.2", NULL, NULL, 0, QMP_OOB,
	 migrate_pause},
	{"migrate-recover", "Wait at uri for the rest of an interrupted post-copy.", "0.2",
	 QMP_MEMBERS(QMP_REQ("uri", qmp_str)), NULL, 0, QMP_OOB, migrate_recover},
	{"query-migrate", "How a migration is getting on.", "0.2", NULL, &migration_info, 0, 0, query_migrate},
	{"query-migrate-capabilities", "What a migration may use.", "0.2", NULL, &QMP_LIST_OF(capability_status), 0, 0,
	 query_capabilities},
	{"migrate-set-capabilities", "Switch capabilities on and off.", "0.2",
	 QMP_MEMBERS(QMP_REQ("capabilities", QMP_LIST_OF(capability_status))), NULL, 0, 0, set_capabilities},
	{"query-migrate-parameters", "Limits and settings of migrations.", "0.2", NULL, &parameters, 0, 0,
	 query_parameters},
	{"migrate-set-parameters", "Change limits and settings, also while a migration is going on.", "0.2",
	 QMP_MEMBERS(PARAMETERS), NULL, 0, 0, set_parameters},
	{NULL},
};
