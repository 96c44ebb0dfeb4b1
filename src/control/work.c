/* Threads for long work; see work.h. */
#include "work.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vmm/clock.h"
#include "vmm/loop.h"
#include "vmm/sandbox.h"

#define STACK_SIZE (256 * KIB)
#define LOOK_MS    100 /* how long a stalled writer takes to notice that it was cancelled */
#define STOP_MS    2000
#define WRITE_MAX  (4 * MIB)

static struct work *all;
static unsigned count;

static void finished(void *opaque)
{
	struct work *w = opaque;

	pthread_join(w->thread, NULL);
	for (struct work **p = &all; *p; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			break;
		}
	count--;
	w->done(w);
}

static void *thread(void *opaque)
{
	struct work *w = opaque;

	sandbox_thread_io();
	w->run(w);
	loop_post(loop_main(), NULL, finished, w);
	return NULL;
}

int work_start(struct work *w, struct err *e)
{
	pthread_attr_t attr;
	int r;

	if (count >= WORK_MAX)
		return err_set(e, EBUSY, "Too many operations are in progress");
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	w->cancelled = false;
	r = pthread_create(&w->thread, &attr, thread, w);
	pthread_attr_destroy(&attr);
	if (r)
		return err_errno(e, r, "Cannot start a thread");
	pthread_setname_np(w->thread, "worker");
	w->next = all;
	all = w;
	count++;
	return 0;
}

void work_cancel(struct work *w)
{
	__atomic_store_n(&w->cancelled, true, __ATOMIC_RELEASE);
}

bool work_cancelled(const struct work *w)
{
	return __atomic_load_n(&w->cancelled, __ATOMIC_ACQUIRE);
}

void work_stop_all(void)
{
	uint64_t until = clock_ns(VCLOCK_REAL) + STOP_MS * NS_PER_MS;
	bool manual = clock_is_manual();

	for (struct work *w = all; w; w = w->next)
		work_cancel(w);
	for (unsigned i = 0; all && (manual ? i < STOP_MS / 10 : clock_ns(VCLOCK_REAL) < until); i++)
		loop_step(loop_main(), 10);
}

void work_prepare_fd(int fd)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	if (flags >= 0 && !fstat(fd, &st) && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

int work_write(struct work *w, int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n;

		if (work_cancelled(w))
			return -ECANCELED;
		n = write(fd, p, MIN(len, WRITE_MAX));
		if (n > 0) {
			p += n;
			len -= (size_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, LOOK_MS);
		} else if (n == 0 || errno != EINTR) {
			return n ? -errno : -ENOSPC;
		}
	}
	return 0;
}
