/*
 * Auto-converge: vCPUs sleep a part of their time, so that they write less than the line carries. A thread sends each vCPU to
 * sleep once per period; between two naps it runs undisturbed for RUN_MS.
 */
#include "source.h"

#include <time.h>
#include "vmm/clock.h"
#include "vmm/log.h"

#define RUN_MS 10

static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	pthread_t thread;
	bool runs;
	unsigned percent; /* lock */
} throttle = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

static void *throttle_thread(void *arg)
{
	(void)arg;
	session_confine();
	pthread_mutex_lock(&throttle.lock);
	while (throttle.percent) {
		uint64_t nap = RUN_MS * NS_PER_MS * throttle.percent / (100 - throttle.percent);
		uint64_t period = nap + RUN_MS * NS_PER_MS;
		struct timespec until;

		for (unsigned i = 0; machine_cpu_doze(session.board, i, nap); i++)
			;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += (long)(period % NS_PER_SEC);
		until.tv_sec += (time_t)(period / NS_PER_SEC) + until.tv_nsec / (long)NS_PER_SEC;
		until.tv_nsec %= (long)NS_PER_SEC;
		pthread_cond_timedwait(&throttle.cond, &throttle.lock, &until);
	}
	pthread_mutex_unlock(&throttle.lock);
	return NULL;
}

void source_throttle(unsigned percent)
{
	struct err e = ERR_INIT;
	bool changed;

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
