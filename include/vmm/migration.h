/*
 * Live migration: the operator's side. Everything here runs on the main thread and returns at once; the work is done by
 * threads of its own. Protocol and state machines: docs/migration.md. Implementation: src/migration/.
 */
#ifndef VMM_MIGRATION_H
#define VMM_MIGRATION_H

#include <stdbool.h>
#include <stdint.h>
#include "vmm/err.h"
#include "vmm/prop.h"

struct board;

/* QEMU's MigrationStatus. */
enum migration_status {
	MIGRATION_NONE,
	MIGRATION_SETUP,
	MIGRATION_CANCELLING,
	MIGRATION_CANCELLED,
	MIGRATION_ACTIVE,
	MIGRATION_POSTCOPY_ACTIVE,
	MIGRATION_POSTCOPY_PAUSED,
	MIGRATION_POSTCOPY_RECOVER,
	MIGRATION_COMPLETED,
	MIGRATION_FAILED,
	MIGRATION_COLO,
	MIGRATION_PRE_SWITCHOVER,
	MIGRATION_DEVICE,
	MIGRATION_WAIT_UNPLUG,
	MIGRATION_N_STATUS
};
const char *migration_status_name(enum migration_status s); /* "postcopy-active", ... */

/* Once, before the first command can arrive. */
void migration_init(struct board *b);
/* At exit: ends whatever is going on and joins its threads; a guest that is not handed over stays ours. */
void migration_shutdown(void);
/* After that: the guest ran here by post-copy, and a part of its memory never came. Nothing of it may run on, not even
   for the moment it takes to be stopped. */
bool migration_guest_torn(void);

/* migrate: uri is tcp:HOST:PORT, unix:PATH, fd:NAME-OR-NUMBER or exec:COMMAND. resume: go on with a post-copy whose
   connection broke. */
int migration_start(const char *uri, bool resume, struct err *e);
/* migrate_cancel: asks; the status tells when it is over. Without a migration nothing happens; refused once the guest
   may run at the destination. */
int migration_cancel(struct err *e);
/* migrate-continue: from `state`, which is MIGRATION_PRE_SWITCHOVER and has to be the present one. */
int migration_continue(enum migration_status state, struct err *e);
/* migrate-start-postcopy: asks; with the capability, while the status is active. */
int migration_start_postcopy(struct err *e);
/* migrate-pause: breaks the connection of a post-copy, on either side. */
int migration_pause(struct err *e);
/* -incoming URI and migrate-incoming; "defer" waits for the latter. */
int migration_incoming(const char *uri, struct err *e);
/*
 * The same when the command line does not say what machine it is. meet waits on the main thread until a guest has
 * introduced itself, or signal_fd is readable; listening() is called when peers may connect. The description is valid
 * until the meeting ends. Once the machine is there resume takes the meeting over; end (also after an error) tells the
 * peer why not.
 */
struct migration_meeting;
int migration_meet(const char *uri, const char *allow, int signal_fd, void (*listening)(void),
		   struct migration_meeting **out, const void **fdt, size_t *len, struct err *e);
int migration_meeting_resume(struct migration_meeting *m, struct err *e);
void migration_meeting_end(struct migration_meeting *m, const char *why); /* NULL-safe */
/* migrate-recover, at the destination of a post-copy whose connection broke: listen again. */
int migration_recover(const char *uri, struct err *e);
/* -migration-allow: only peers from these networks ("10.0.0.0/8,192.168.1.7,fd00::/8"); unix and fd are always allowed.
 */
int migration_allow(const char *list, struct err *e);
/* A migration is going on, either way: what may not change meanwhile (devices, media) is refused. */
bool migration_busy(void);
bool migration_is_incoming(void); /* a guest is awaited or arriving */

/* Capabilities by index: name NULL past the end. */
const char *migration_capability(size_t i, bool *on);
/* -EBUSY while a migration is going on; unknown ones, and those of QEMU's that are not offered, are refused by name. */
int migration_set_capability(const char *name, bool on, struct err *e);
/* Parameters: a property table over one object. Set through migration_set_parameter(), which checks what is going on.
 */
extern const struct prop migration_parameter_props[];
void *migration_parameters(void);
int migration_set_parameter(const char *name, const char *text, struct err *e);

/* What query-migrate tells. Times in the units their names say; a value that does not apply is 0. */
#define MIGRATION_CPUS 255
struct migration_info {
	enum migration_status status;
	bool outgoing; /* the RAM numbers apply */
	uint64_t total_time_ms, setup_time_ms, downtime_ms, expected_downtime_ms;
	/* The downtime's parts, in the order they happen. final_pages overlaps with flush (requests in flight end,
	   disks are flushed) and state. */
	uint64_t stop_us, final_pages_us, flush_us, state_us, load_us, resume_us, downtime_us;
	uint64_t transferred, remaining, total, zero_pages, normal_pages, dirty_pages_rate, sync_count, downtime_bytes,
		precopy_bytes, postcopy_bytes, postcopy_requests, multifd_bytes, pages_per_second;
	double mbps;
	unsigned throttle_percent;
	/* vCPUs are slowed down by what each writes: how many are listed (0: all alike), percent by index. */
	unsigned n_throttled;
	uint8_t throttle_of[MIGRATION_CPUS];
	char error[1024];  /* why it failed; "" */
	char address[320]; /* incoming: where we listen, "tcp:HOST:PORT" or "unix:PATH"; "" */
};
void migration_query(struct migration_info *out); /* of the present or the last one */

/* A guest arrived here, or HMP's announce_self: its network cards tell the switches, see net_announce(). */
void migration_announce(uint32_t initial_ms, uint32_t max_ms, uint32_t rounds, uint32_t step_ms);

#endif
