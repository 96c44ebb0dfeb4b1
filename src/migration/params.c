/* Capabilities and parameters: tables and their rules. Main thread. */
#include "session.h"
#include "tls.h"

#include <errno.h>
#include <string.h>

static const struct {
	const char *name;
	enum mig_cap bit;
} capabilities[] = {
	{"auto-converge", CAP_AUTO_CONVERGE},
	{"events", CAP_EVENTS},
	{"postcopy-ram", CAP_POSTCOPY_RAM},
	{"return-path", CAP_RETURN_PATH},
	{"pause-before-switchover", CAP_PAUSE_BEFORE_SWITCHOVER},
	{"multifd", CAP_MULTIFD},
	{"late-block-activate", CAP_LATE_BLOCK_ACTIVATE},
	{"background-snapshot", CAP_BACKGROUND_SNAPSHOT},
	{"mapped-ram", CAP_MAPPED_RAM},
};
static uint32_t caps;

/* QEMU has them, we do not: say so instead of "unknown". */
static const struct {
	const char *name, *why;
} refused[] = {
	{"xbzrle", "pages go out whole; zstd compresses them (multifd-compression)"},
	{"rdma-pin-all", "there is no RDMA transport"},
	{"zero-blocks", "source and destination share the disks"},
	{"compress", "use multifd with multifd-compression=zstd"},
	{"x-colo", "there is no fault tolerance by lock-step"},
	{"release-ram", "the source keeps its memory until the destination runs"},
	{"block", "source and destination share the disks"},
	{"dirty-bitmaps", "there are no persistent bitmaps"},
	{"postcopy-blocktime", "it is not measured"},
	{"x-ignore-shared", "use a live upgrade"},
	{"validate-uuid", "the machines are compared anyway; a UUID given at the destination is a clone's"},
	{"zero-copy-send", "pages go out without a copy anyway, where the channel can"},
	{"postcopy-preempt", "urgent pages overtake others anyway"},
};

#define P(nm, member, ty, ...) PROP_NAMED(struct migration_params, nm, member, ty, __VA_ARGS__)
static const char *const compressions[] = {"none", "zstd", NULL};
static const char *const timeout_actions[] = {"cancel", "force", NULL};
static const char *const modes[] = {"normal", "cpr-transfer", NULL};

const struct prop migration_parameter_props[] = {
	P("announce-initial", announce_initial, PROP_U64, .def = 50, .max = 100000,
	  .help = "ms to the first announcement"),
	P("announce-max", announce_max, PROP_U64, .def = 550, .max = 100000,
	  .help = "ms between announcements at most"),
	P("announce-rounds", announce_rounds, PROP_U64, .def = 5, .max = 1000, .help = "announcements"),
	P("announce-step", announce_step, PROP_U64, .def = 100, .min = 1, .max = 10000,
	  .help = "ms more from one to the next"),
	P("throttle-trigger-threshold", throttle_trigger, PROP_U8, .def = 50, .min = 1, .max = 100,
	  .help = "auto-converge: dirtied / sent, in percent, from which vCPUs are slowed down"),
	P("cpu-throttle-initial", throttle_initial, PROP_U8, .def = 20, .min = 1, .max = 99,
	  .help = "percent, first step"),
	P("cpu-throttle-increment", throttle_increment, PROP_U8, .def = 10, .min = 1, .max = 99,
	  .help = "percent per step"),
	P("cpu-throttle-tailslow", throttle_tailslow, PROP_BOOL, .help = "smaller last steps"),
	P("max-cpu-throttle", throttle_max, PROP_U8, .def = 99, .min = 1, .max = 99, .help = "percent at most"),
	P("max-bandwidth", max_bandwidth, PROP_U64, .max = INT64_MAX,
	  .help = "bytes per second; 0: as fast as it goes"),
	P("max-postcopy-bandwidth", max_postcopy_bandwidth, PROP_U64, .max = INT64_MAX,
	  .help = "bytes per second of pages nobody waits for; 0: as fast as it goes"),
	P("downtime-limit", downtime_limit, PROP_U64, .def = 300, .max = 2000 * 1000,
	  .help = "ms the guest may stand still"),
	P("multifd-channels", multifd_channels, PROP_U8, .def = 2, .min = 1, .max = MAX_CHANNELS,
	  .help = "with multifd"),
	P("multifd-compression", multifd_compression, PROP_ENUM, .values = compressions, .help = "with multifd"),
	P("multifd-zstd-level", zstd_level, PROP_U8, .def = 1, .max = 20, .help = "with multifd-compression=zstd"),
	P("tls-creds", tls_creds, PROP_STR, .def_str = "", .help = "id of a tls-creds-x509 or tls-creds-psk object"),
	P("tls-hostname", tls_hostname, PROP_STR, .def_str = "", .help = "name the server's certificate must have"),
	P("tls-authz", tls_authz, PROP_STR, .def_str = "",
	  .help = "not offered: client certificates are verified by their CA"),
	P("x-timeout", timeout_s, PROP_U64, .max = 1000000, .help = "seconds a migration may take; 0: for ever"),
	P("x-timeout-action", timeout_action, PROP_ENUM, .values = timeout_actions,
	  .help = "then: cancel, or force: stop the guest and send what is left"),
	P("mode", mode, PROP_ENUM, .values = modes,
	  .help = "cpr-transfer: to another vmm on this host, memory stays where it is (unix:PATH)"),
	P("x-switchover-timeout", switchover_timeout, PROP_U32, .def = 1000, .min = 100, .max = 600000,
	  .help = "ms without a sign of life after which a stopped guest is taken back"),
	PROP_END,
};

bool cap_is_on(uint32_t set, enum mig_cap c)
{
	return set & (uint32_t)c;
}

uint32_t caps_now(void)
{
	return caps;
}

const char *migration_capability(size_t i, bool *on)
{
	if (i >= ARRAY_SIZE(capabilities))
		return NULL;
	*on = caps & (uint32_t)capabilities[i].bit;
	return capabilities[i].name;
}

int migration_set_capability(const char *name, bool on, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++)
		if (!strcmp(capabilities[i].name, name)) {
			if (session.running)
				return err_set(e, EBUSY, "There's a migration process in progress");
			caps = on ? caps | (uint32_t)capabilities[i].bit : caps & ~(uint32_t)capabilities[i].bit;
			return 0;
		}
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
		if (!strcmp(refused[i].name, name))
			return on ? err_set(e, ENOTSUP, "migration capability '%s' is not offered: %s", name,
					    refused[i].why)
				  : 0;
	return err_set(e, EINVAL, "Invalid parameter '%s'", name);
}

void *migration_parameters(void)
{
	return &session.params;
}

int migration_set_parameter(const char *name, const char *text, struct err *e)
{
	const struct prop *p = prop_find(migration_parameter_props, name);
	int r;

	if (!p)
		return err_set(e, EINVAL, "migration parameter '%s' is not offered", name);
	if (!strcmp(name, "tls-authz") && *text)
		return err_set(e, ENOTSUP, "tls-authz is not offered: client certificates are verified by their CA");
	if (!strcmp(name, "tls-creds") && strcmp(text, session.params.tls_creds ? session.params.tls_creds : "") &&
	    (r = tls_use(text, e)) != 0)
		return r;
	pthread_mutex_lock(&session.lock);
	r = prop_parse(p, &session.params, text, e);
	pthread_mutex_unlock(&session.lock);
	if (!r && !strcmp(name, "max-bandwidth"))
		__atomic_store_n(&session.limit.bytes_per_s, session.params.max_bandwidth, __ATOMIC_RELAXED);
	return r;
}
