/* When to stop the guest: simulated guests and lines, no time passes. */
#include "src/migration/converge.h"
#include "tests/lib/suite.h"
#include "vmm/util.h"

struct world {
	double line, rate; /* bytes/s */
	double ram, set;   /* bytes; what the guest rewrites again and again */
	struct converge c;
	unsigned rounds, throttles, stalls;
	double pause_ms, seconds;
};

/* Run until the verdict is to switch, at most `max` rounds. */
static bool run(struct world *w, unsigned max)
{
	double pending = w->ram;

	while (w->rounds++ < max) {
		double t = pending / w->line + 0.0002, speed = w->rate * (100 - w->c.throttle) / 100;
		double dirty = MIN(speed * t, w->set);
		struct converge_round r = {.sent_bytes = (uint64_t)pending,
					   .sent_ns = (uint64_t)(t * 1e9),
					   .pending_bytes = (uint64_t)dirty,
					   .dirty_ns = (uint64_t)(t * 1e9)};

		w->seconds += t;
		switch (converge_decide(&w->c, &r)) {
		case CONVERGE_SWITCH:
			w->pause_ms = dirty / w->line * 1e3;
			return true;
		case CONVERGE_THROTTLE:
			w->throttles++;
			break;
		case CONVERGE_STALLED:
			w->stalls++;
			break;
		case CONVERGE_AGAIN:
			break;
		}
		pending = dirty;
	}
	return false;
}

static struct world world(double line, double rate, double ram, double set)
{
	return (struct world){
		.line = line,
		.rate = rate,
		.ram = ram,
		.set = set,
		.c = {.downtime_limit_ms = 300, .trigger = 50, .initial = 20, .increment = 10, .max = 99}};
}

START_TEST(idle)
{
	struct world w = world(2e9, 1e4, 512e6, 1e6);

	ck_assert(run(&w, 5));
	ck_assert_uint_le(w.rounds, 3);
	ck_assert(w.pause_ms < 1);
}
END_TEST

/* A guest at a tenth of the line: the limit of 300 ms would be met after one round, but the pause goes on shrinking. */
START_TEST(spends_rounds_on_a_shorter_pause)
{
	struct world w = world(2e9, 200e6, 512e6, 256e6);

	ck_assert(run(&w, 20));
	ck_assert(w.pause_ms < 2);
	ck_assert(w.seconds < 0.35);
}
END_TEST

/* Nothing shrinks: then within the limit is good enough, and it does not go on for ever. */
START_TEST(takes_what_the_limit_allows)
{
	struct world w = world(1e9, 5e9, 512e6, 100e6);

	ck_assert(run(&w, 12));
	ck_assert(w.pause_ms <= 300);
}
END_TEST

START_TEST(throttles_until_it_converges)
{
	struct world w = world(100e6, 300e6, 512e6, 256e6);

	w.c.auto_converge = true;
	ck_assert(run(&w, 60));
	ck_assert_uint_gt(w.throttles, 3);
	ck_assert_uint_le(w.c.throttle, 99);
	ck_assert(w.pause_ms <= 300);
}
END_TEST

START_TEST(says_when_it_stalls)
{
	struct world w = world(100e6, 300e6, 512e6, 256e6);

	ck_assert(!run(&w, 40));
	ck_assert_uint_ge(w.stalls, 1);
	ck_assert_uint_eq(w.throttles, 0);
}
END_TEST

START_TEST(throttle_has_a_limit)
{
	struct world w = world(1e6, 3e9, 512e6, 256e6);

	w.c.auto_converge = true;
	w.c.max = 40;
	ck_assert(!run(&w, 40));
	ck_assert_uint_eq(w.c.throttle, 40);
	ck_assert_uint_ge(w.stalls, 1);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("converge");

	tcase_add_test(t, idle);
	tcase_add_test(t, spends_rounds_on_a_shorter_pause);
	tcase_add_test(t, takes_what_the_limit_allows);
	tcase_add_test(t, throttles_until_it_converges);
	tcase_add_test(t, says_when_it_stalls);
	tcase_add_test(t, throttle_has_a_limit);
	return run_suite("converge", (TCase *[]){t, NULL});
}
