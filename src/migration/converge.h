/*
 * When to stop the guest: a decision after each round, from measured numbers alone. No I/O, no clock; unit tests drive
 * it.
 */
#ifndef VMM_MIGRATION_CONVERGE_H
#define VMM_MIGRATION_CONVERGE_H

#include <stdbool.h>
#include <stdint.h>

struct converge {
	/* settings */
	uint64_t downtime_limit_ms;
	bool auto_converge;
	unsigned trigger, initial, increment, max, tailslow; /* percent */
	/* measured, smoothed */
	double bytes_per_s, dirty_bytes_per_s; /* of memory */
	double line_bytes_per_s;
	/* history */
	uint64_t last_pending, best_pending;
	unsigned rounds, extra, flat; /* rounds since it got better */
	unsigned throttle;            /* percent the vCPUs sleep now */
};

struct converge_round {
	uint64_t sent_bytes;    /* memory the round carried, as much as it is unpacked */
	uint64_t line_bytes;    /* what that was on the line: fewer if it was compressed */
	uint64_t sent_ns;       /* until the destination had it */
	uint64_t pending_bytes; /* written meanwhile */
	uint64_t dirty_ns;      /* in this time */
};

enum converge_verdict {
	CONVERGE_AGAIN,    /* another round */
	CONVERGE_SWITCH,   /* stop the guest now: the pause is as short as it gets */
	CONVERGE_THROTTLE, /* another round, with c->throttle */
	CONVERGE_STALLED,  /* another round, but it does not get better and nothing is left to try: said once */
};
enum converge_verdict converge_decide(struct converge *c, const struct converge_round *r);
/* Milliseconds the guest would stand still for what waits now. */
double converge_expected_ms(const struct converge *c, uint64_t pending_bytes);

#endif
