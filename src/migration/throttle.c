/*
 * Auto-converge: vCPUs sleep a part of their time, so that they write less than the line carries. A thread sends each
 * vCPU to sleep once per period; between two naps it runs undisturbed for RUN_MS.
 *
 * Where KVM tells which vCPU wrote what (dirty rings) each sleeps in proportion to what it wrote in the last round, the
 * busiest the whole time: one that writes little is left alone. Without rings all sleep alike.
 */
#include "source.h"

#include "vmm/clock.h"
#include "vmm/log.h"

#define RUN_MS     10
#define MEASURABLE 256 /* pages of the busiest in a round; a round with fewer tells nothing new */
#define NEGLIGIBLE 10  /* percent of the busiest one's pages: not worth a nap */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	pthread_t thread;
	bool runs;
	unsigned percent;               /* lock; of the vCPU that writes most */
	uint64_t pages[THROTTLED_CPUS]; /* written up to the last round; session's thread */
	uint8_t share[THROTTLED_CPUS];  /* lock; of percent, in percent */
} throttle = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

static uint64_t nap_of(unsigned percent)
{
	return RUN_MS * NS_PER_MS * percent / (100 - percent);
}

/* What each wrote since the last call. */
static void measure(void)
{
	uint64_t wrote[THROTTLED_CPUS], most = 0;
	bool known[THROTTLED_CPUS], any = false;

	for (unsigned i = 0; i < THROTTLED_CPUS; i++) {
		uint64_t now;

		known[i] = machine_cpu_dirty(session.board, i, &now);
		wrote[i] = known[i] ? now - throttle.pages[i] : 0;
		throttle.pages[i] = known[i] ? now : 0;
		most = MAX(most, wrote[i]);
		any |= known[i];
	}
	pthread_mutex_lock(&throttle.lock);
	for (unsigned i = 0; i < THROTTLED_CPUS && (!any || most >= MEASURABLE); i++) {
		uint64_t share = known[i] ? wrote[i] * 100 / most : 100;

		throttle.share[i] = (uint8_t)(share < NEGLIGIBLE ? 0 : share);
	}
	pthread_mutex_unlock(&throttle.lock);
}

unsigned source_throttle_of(unsigned cpu)
{
	unsigned percent;

	pthread_mutex_lock(&throttle.lock);
	percent = throttle.percent * (cpu < THROTTLED_CPUS ? throttle.share[cpu] : 100) / 100;
	pthread_mutex_unlock(&throttle.lock);
	return percent;
}

static void *throttle_thread(void *arg)
{
	(void)arg;
	session_confine();
	pthread_mutex_lock(&throttle.lock);
	while (throttle.percent) {
		uint64_t period = RUN_MS * NS_PER_MS + nap_of(throttle.percent);

		for (unsigned i = 0;; i++) {
			unsigned percent = throttle.percent * (i < THROTTLED_CPUS ? throttle.share[i] : 100) / 100;

			if (!machine_cpu_doze(session.board, i, period * percent / 100))
				break;
		}
		session_cond_wait(&throttle.cond, &throttle.lock, period);
	}
	pthread_mutex_unlock(&throttle.lock);
	return NULL;
}

void source_throttle(unsigned percent)
{
	struct err e = ERR_INIT;
	bool changed;

	measure();
	pthread_mutex_lock(&throttle.lock);
	changed = throttle.percent != percent;
	throttle.percent = percent;
	pthread_cond_signal(&throttle.cond);
	pthread_mutex_unlock(&throttle.lock);
	if (changed && percent)
		log_info("migration", "vCPUs sleep %u%% of their time", percent);
	if (percent && !throttle.runs) {
		throttle.runs = !session_thread(&throttle.thread, "migrate/nap", throttle_thread, NULL, &e);
		if (!throttle.runs)
			log_warn("migration", "%s", e.msg);
	} else if (!percent && throttle.runs) {
		pthread_join(throttle.thread, NULL);
		throttle.runs = false;
	}
}
