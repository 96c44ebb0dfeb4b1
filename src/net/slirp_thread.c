/*
 * The thread that libslirp lives on: one turn after the other, each of them a pass over all instances: frames from the
 * guests, timers, sockets that are ready. Nothing in it waits but poll().
 *
 * It has a role of its own in the sandbox, and Landlock (Documentation/userspace-api/landlock.rst) below it: libslirp
 * reads /etc/resolv.conf for the name server, anew when it changes, and the files of tftp=. A filter for system calls
 * cannot tell one file from another; Landlock can, and holds symbolic links as well. Where the kernel has none, only
 * the first of the two holds.
 */
#include "slirp_private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "vmm/crash.h"
#include "vmm/log.h"
#include "vmm/sandbox.h"

#define PATHS_MAX          32
#define DESCRIPTORS_MAX    4096
#define LIBRARY_LONGEST_MS 1000u
#define FULL_RETRY_MS      100u /* a listening socket that cannot be accepted from would be ready for ever */

static struct {
	/* main thread */
	unsigned holders;
	bool runs, stale; /* stale: it may not read a path that was added since it began */
	pthread_t thread;
	char *paths[PATHS_MAX];
	unsigned n_paths;

	int wake_fd;
	atomic_bool work, asleep, stop;

	/* lock: the call */
	pthread_mutex_t lock;
	pthread_cond_t done;
	void (*call)(void *opaque);
	void *call_opaque;

	/* slirp thread */
	struct pollfd *fds;
	size_t n_fds, room;
	long descriptors; /* that libslirp may still open in this turn */
	bool skipped;     /* a listening socket, see add_poll() */
} t = {.wake_fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

bool slirp_thread_by_hand;

/* ---- one turn ---- */

static void run_call(void)
{
	pthread_mutex_lock(&t.lock);
	if (t.call) {
		t.call(t.call_opaque);
		t.call = NULL;
		pthread_cond_signal(&t.done);
	}
	pthread_mutex_unlock(&t.lock);
}

/*
 * libslirp does not tell all its sockets, so look where the next descriptor would be. The rest of what the process may
 * open stays for control sockets, disks and consoles.
 */
static long free_descriptors(void)
{
	static rlim_t limit;
	int next;

	if (!limit) {
		struct rlimit files = {.rlim_cur = 1024};

		getrlimit(RLIMIT_NOFILE, &files);
		limit = MIN(files.rlim_cur / 4 * 3, (rlim_t)DESCRIPTORS_MAX);
	}
	next = fcntl(t.wake_fd, F_DUPFD_CLOEXEC, 0);
	if (next >= 0)
		close(next);
	return next < 0 ? 0 : (long)limit - next;
}

bool slirp_thread_may_open(void)
{
	return t.descriptors-- > 0;
}

static bool is_listening(int fd)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) && on;
}

static int add_poll(int fd, int events, void *opaque)
{
	static const struct {
		int theirs;
		short ours;
	} bits[] = {{SLIRP_POLL_IN, POLLIN}, {SLIRP_POLL_OUT, POLLOUT}, {SLIRP_POLL_PRI, POLLPRI}};
	struct pollfd p = {.fd = fd};

	if (t.descriptors <= 0 && is_listening(fd)) {
		t.skipped = true;
		return -1;
	}
	for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
		if (events & bits[i].theirs)
			p.events |= bits[i].ours;
	if (t.n_fds == t.room) {
		t.room = t.room ? t.room * 2 : 16;
		t.fds = xrealloc(t.fds, t.room * sizeof(*t.fds));
	}
	t.fds[t.n_fds] = p;
	return (int)t.n_fds++;
}

static int get_revents(int index, void *opaque)
{
	static const struct {
		short ours;
		int theirs;
	} bits[] = {{POLLIN, SLIRP_POLL_IN},
		    {POLLOUT, SLIRP_POLL_OUT},
		    {POLLPRI, SLIRP_POLL_PRI},
		    {POLLERR, SLIRP_POLL_ERR},
		    {POLLHUP, SLIRP_POLL_HUP}};
	int events = 0;

	if (index < 0 || (size_t)index >= t.n_fds)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
		if (t.fds[index].revents & bits[i].ours)
			events |= bits[i].theirs;
	return events;
}

/*
 * What a stack waits for; how long at most, UINT32_MAX: no limit. The library lets nobody sleep for more than a second,
 * whether or not anything will be due; less, where sockets or fragments have something that ages. Timers it asks for
 * are ours (stack_timers()), so without a socket a second means for ever, and an idle guest's network costs nothing.
 */
static uint32_t fill(struct user_stack *s)
{
	uint32_t timeout = UINT32_MAX;
	size_t before = t.n_fds;

	slirp_pollfds_fill(s->slirp, &timeout, add_poll, NULL);
	return timeout >= LIBRARY_LONGEST_MS && t.n_fds == before ? UINT32_MAX : timeout;
}

/* What is there to do at once, and what to wait for: the time in ms, UINT32_MAX: no limit. */
static uint32_t prepare(void)
{
	uint32_t timeout = UINT32_MAX;

	t.n_fds = 0;
	t.skipped = false;
	t.descriptors = free_descriptors();
	add_poll(t.wake_fd, SLIRP_POLL_IN, NULL);
	for (struct user_stack *s = slirp_stacks; s; s = s->next) {
		if (stack_input(s))
			timeout = 0;
		for (unsigned i = 0; i < s->n_guestfwd; i++)
			guestfwd_pump(s->guestfwd[i], s->slirp);
		stack_timers(s, &timeout);
		s->polled = stack_wants_poll(s);
		if (s->polled)
			timeout = MIN(timeout, fill(s));
	}
	return t.skipped ? MIN(timeout, FULL_RETRY_MS) : timeout;
}

void slirp_thread_turn(bool wait)
{
	uint32_t timeout;
	uint64_t count;
	int n;

	timeout = prepare();
	/* Who adds work from here on sees that we sleep and writes to wake_fd; what came before is seen here. */
	t.asleep = true;
	if (t.work || !wait)
		timeout = 0;
	n = poll(t.fds, t.n_fds, timeout == UINT32_MAX ? -1 : (int)MIN(timeout, (uint32_t)INT32_MAX));
	t.asleep = false;
	if (n > 0 && t.fds[0].revents && read(t.wake_fd, &count, sizeof(count)) < 0)
		log_debug("net", "slirp: eventfd: %s", strerror(errno));
	t.work = false; /* before all looks at what it stands for: the call, t.stop, and what prepare() sees */
	for (struct user_stack *s = slirp_stacks; s; s = s->next)
		if (s->polled)
			slirp_pollfds_poll(s->slirp, n < 0, get_revents, NULL);
	run_call();
}

/* ---- what it may read ---- */

#define READ_RIGHTS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define ALL_RIGHTS  ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1) /* of the first version of the interface */

static void allow_reading(int rules, const char *path)
{
	struct landlock_path_beneath_attr beneath = {.allowed_access = READ_RIGHTS};
	struct stat st;

	beneath.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (beneath.parent_fd < 0 || fstat(beneath.parent_fd, &st)) {
		log_debug("net", "slirp: %s: %s", path, strerror(errno));
		return;
	}
	if (!S_ISDIR(st.st_mode))
		beneath.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE;
	if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0))
		log_debug("net", "slirp: Landlock: %s: %s", path, strerror(errno));
	close(beneath.parent_fd);
}

static void restrict_files(void)
{
	struct landlock_ruleset_attr attr = {.handled_access_fs = ALL_RIGHTS};
	int rules = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);

	if (rules < 0) {
		log_debug("net", "slirp: no Landlock: %s", strerror(errno));
		return;
	}
	for (unsigned i = 0; i < t.n_paths; i++)
		allow_reading(rules, t.paths[i]);
	if (syscall(SYS_landlock_restrict_self, rules, 0))
		log_debug("net", "slirp: Landlock: %s", strerror(errno));
	close(rules);
}

void slirp_thread_may_read(const char *path)
{
	char *real = realpath(path, NULL);

	for (unsigned i = 0; real && i < t.n_paths; i++)
		if (!strcmp(t.paths[i], real)) {
			free(real);
			return;
		}
	if (real && t.n_paths < PATHS_MAX) {
		t.paths[t.n_paths++] = real;
		t.stale = true;
	} else {
		free(real);
	}
}

/* The directory, for the file is replaced when the host's network changes; and where a link leads. */
static void may_read_resolv_conf(void)
{
	char *real = realpath("/etc/resolv.conf", NULL), *slash = real ? strrchr(real, '/') : NULL;

	slirp_thread_may_read("/etc");
	if (slash && slash != real) {
		*slash = 0;
		slirp_thread_may_read(real);
	}
	free(real);
	slirp_thread_may_read("/dev/urandom"); /* seeds the library's own generator */
}

/* ---- begin and end ---- */

static void *slirp_thread(void *opaque)
{
	pthread_setname_np(pthread_self(), "slirp");
	restrict_files();
	sandbox_thread_slirp();
	while (!t.stop)
		slirp_thread_turn(true);
	return NULL;
}

/* Not before the main loop runs: by then the process has dropped its privileges and entered its sandbox. */
static void begin(void *opaque)
{
	sigset_t all, old;
	int rc;

	if (!t.holders || t.runs)
		return;
	t.stop = false;
	t.stale = false;
	sigfillset(&all);
	crash_unblock(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	rc = pthread_create(&t.thread, NULL, slirp_thread, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	t.runs = !rc;
	if (rc)
		log_error("net", "-netdev user does not run: cannot create its thread: %s", strerror(rc));
}

static void end(void)
{
	if (!t.runs)
		return;
	t.stop = true;
	slirp_thread_wake();
	pthread_join(t.thread, NULL);
	t.runs = false;
}

void slirp_thread_hold(void)
{
	if (!t.holders++) {
		t.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		may_read_resolv_conf();
	}
	/* What it may read is settled when it begins. */
	if (t.runs && t.stale)
		end();
	if (!t.runs && !slirp_thread_by_hand)
		loop_post(loop_main(), NULL, begin, NULL);
}

void slirp_thread_release(void)
{
	if (--t.holders)
		return;
	end();
	close(t.wake_fd);
	t.wake_fd = -1;
	free(t.fds);
	t.fds = NULL;
	t.room = t.n_fds = 0;
	while (t.n_paths)
		free(t.paths[--t.n_paths]);
}

void slirp_thread_wake(void)
{
	uint64_t one = 1;

	t.work = true;
	if (atomic_exchange(&t.asleep, false))
		if (write(t.wake_fd, &one, sizeof(one)) < 0)
			log_debug("net", "slirp: eventfd: %s", strerror(errno));
}

void slirp_thread_call(void (*fn)(void *opaque), void *opaque)
{
	if (!t.runs) {
		fn(opaque);
		return;
	}
	pthread_mutex_lock(&t.lock);
	t.call = fn;
	t.call_opaque = opaque;
	slirp_thread_wake();
	while (t.call)
		pthread_cond_wait(&t.done, &t.lock);
	pthread_mutex_unlock(&t.lock);
}
