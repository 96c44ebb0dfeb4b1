/*
 * Convergence. Each round sends what was written during the one before; if the line is faster than the guest writes,
 * rounds get shorter by that ratio. The guest is stopped when what is left fits the downtime limit AND one more round
 * would not make the pause much shorter: rounds are cheap, the guest's pause is not.
 *
 * If rounds do not get shorter, auto-converge slows the vCPUs down step by step; without it the operator is told once.
 */
#include "converge.h"

#include "vmm/util.h"

#define GOOD_MS     1.0  /* a pause for pages that is not worth another round */
#define WORTH       0.75 /* another round must cut the pause to this part of it */
#define MAX_EXTRA   30
#define FLAT_ROUNDS 4

static double smooth(double old, double now)
{
	return old > 0 ? old * 0.4 + now * 0.6 : now;
}

double converge_expected_ms(const struct converge *c, uint64_t pending_bytes)
{
	return c->bytes_per_s > 0 ? (double)pending_bytes * 1000 / c->bytes_per_s : 0;
}

static enum converge_verdict slow_down(struct converge *c)
{
	unsigned step = c->throttle ? c->increment : c->initial;

	if (c->tailslow && c->throttle) { /* the closer to a standstill, the smaller the step */
		unsigned left = 100 - c->throttle;

		step = MIN(step, MAX(left / 4, 1u));
	}
	if (c->throttle >= c->max)
		return CONVERGE_STALLED;
	c->throttle = MIN(c->throttle + step, c->max);
	return CONVERGE_THROTTLE;
}

enum converge_verdict converge_decide(struct converge *c, const struct converge_round *r)
{
	double pause, next;

	c->rounds++;
	/* A round of a few pages measures the round trip, not the line. */
	if (r->sent_ns && (r->sent_bytes >= 4 * MIB || c->bytes_per_s == 0)) {
		c->bytes_per_s = smooth(c->bytes_per_s, (double)r->sent_bytes * 1e9 / (double)r->sent_ns);
		c->line_bytes_per_s = smooth(c->line_bytes_per_s, (double)r->line_bytes * 1e9 / (double)r->sent_ns);
	}
	if (r->dirty_ns)
		c->dirty_bytes_per_s =
			smooth(c->dirty_bytes_per_s, (double)r->pending_bytes * 1e9 / (double)r->dirty_ns);
	if (c->rounds == 1 || r->pending_bytes < c->best_pending - c->best_pending / 16) {
		c->best_pending = r->pending_bytes;
		c->flat = 0;
	} else {
		c->flat++;
	}
	c->last_pending = r->pending_bytes;
	pause = converge_expected_ms(c, r->pending_bytes);
	if (pause <= (double)c->downtime_limit_ms) {
		/* While this is sent the guest writes so much again: */
		next = converge_expected_ms(c, (uint64_t)(c->dirty_bytes_per_s * pause / 1000));
		if (pause <= GOOD_MS || next > pause * WORTH || c->flat >= 3 || ++c->extra > MAX_EXTRA)
			return CONVERGE_SWITCH;
		return CONVERGE_AGAIN;
	}
	if (c->auto_converge && c->rounds >= 2 && r->pending_bytes > r->sent_bytes / 100 * c->trigger)
		return slow_down(c);
	if (c->flat >= FLAT_ROUNDS && c->flat % FLAT_ROUNDS == 0)
		return CONVERGE_STALLED;
	return CONVERGE_AGAIN;
}
