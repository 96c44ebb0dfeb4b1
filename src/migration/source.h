/* The source's files: source.c (the way of a migration), postcopy_source.c, throttle.c. */
#ifndef VMM_MIGRATION_SOURCE_H
#define VMM_MIGRATION_SOURCE_H

#include "converge.h"
#include "ram_send.h"
#include "session.h"
#include "tls.h"

struct source {
	struct source_start *start;
	struct channel *main, *extra[MAX_CHANNELS];
	unsigned n_extra;
	struct switchover *sw;
	struct converge converge;
	uint32_t round;
	unsigned flushes; /* of the disks, before the guest was stopped */
	uint64_t timeout_s;
	bool timeout_force, postcopy, stall_told;
	bool logging, sending;
	bool gone;       /* GO was said */
	bool postcopied; /* SWITCH asked for post-copy: requests are answered from now on */
};

/* Connect (fd: -1) within timeout_ms or take fd, with TLS if asked for. NULL with the reason. */
struct channel *source_connect(const struct address *a, int fd, int timeout_ms, struct err *e);
/* Close the main channel, which broke. */
void source_drop_main(struct source *s);

/* postcopy_source.c. missing: tell which pages will come later. request: true if the record was a request, now
   answered. postcopy: after GO, until the destination has everything; broken: the connection was lost before RUNNING (e
   says why). resume: main thread; where a recovery goes to. */
int source_postcopy_missing(struct source *s, struct err *e);
bool source_postcopy_request(struct source *s, uint16_t type, const uint8_t *payload, size_t len, int *result,
			     struct err *e);
int source_postcopy(struct source *s, bool broken, struct err *e);
int source_resume(const struct address *a, int fd, struct err *e);

/* throttle.c. After each round: let the vCPU that writes most sleep so many percent of its time, the others less; see
 * there. */
#define THROTTLED_CPUS MIGRATION_CPUS
void source_throttle(unsigned percent);
unsigned source_throttle_of(unsigned cpu); /* what that means for this one */

#endif
