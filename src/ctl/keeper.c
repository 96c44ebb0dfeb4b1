/*
 * The keeper: a small process of vmmctl that stays behind each guest. It starts vmm, applies what cannot be said on
 * vmm's command line, carries out on-poweroff, on-reboot and on-crash, bounds the console's log, and clears the run
 * directory away at the end. A guest outlives a keeper that is killed; it then ends as vmm by itself would have it.
 *
 * SIGTERM asks the guest to shut down, and ends it when it has not within its shutdown-timeout; a second one ends it at
 * once.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "config.h"
#include "ctl.h"

#define START_MS       (60 * 1000)
#define ANSWER_MS      (30 * 1000)
#define QUIT_MS        (10 * 1000)
#define DUMP_MS        (10 * 60 * 1000)
#define TRIM_MS        (10 * 1000)
#define LOG_KEEP       (256 * KIB) /* of the console's output and of vmm's log, at least */
#define RESTARTS       5           /* within RESTARTS_MS, then the guest stays down */
#define RESTARTS_MS    (60 * 1000)
#define RETRY_START_MS 10
#define MAX_DUMPS      5

struct life { /* of one vmm process */
	struct keeper *k;
	pid_t pid;
	int pidfd;
	struct qmp *qmp;
	const char *reason; /* of the SHUTDOWN event: a literal below, NULL: none came */
	bool panicked, stopping, quit_sent;
	int64_t kill_at_ms; /* 0: never */
};

static void say(const struct keeper *k, const char *fmt, ...) VMM_PRINTF(2, 3);
static void say(const struct keeper *k, const char *fmt, ...)
{
	char stamp[40], text[1200];
	time_t now = time(NULL);
	struct tm tm;
	va_list ap;

	gmtime_r(&now, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &tm);
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	dprintf(k->log, "%s keeper: %s\n", stamp, text);
}

/* ---- starting ---- */

static void exec_vmm(const struct keeper *k, char **argv, const sigset_t *signals)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (fchdir(k->dir) || null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(k->log, STDOUT_FILENO) < 0 ||
	    dup2(k->log, STDERR_FILENO) < 0)
		_exit(127);
	if (k->incoming_fd >= 0)
		fcntl(k->incoming_fd, F_SETFD, 0);
	sigprocmask(SIG_SETMASK, signals, NULL);
	execvp(argv[0], argv);
	dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

static int spawn(struct life *l, char **argv, struct err *e)
{
	sigset_t none;

	sigemptyset(&none);
	unlinkat(l->k->dir, "qmp.sock", 0);
	l->pid = fork();
	if (l->pid < 0)
		return err_errno(e, errno, "cannot start another process");
	if (!l->pid)
		exec_vmm(l->k, argv, &none);
	l->pidfd = (int)syscall(SYS_pidfd_open, l->pid, 0);
	if (l->pidfd < 0)
		return err_errno(e, errno, "cannot watch vmm");
	return 0;
}

static bool ended(const struct life *l, int timeout_ms)
{
	struct pollfd p = {l->pidfd, POLLIN, 0};

	return poll(&p, 1, timeout_ms) > 0;
}

/* vmm's own words on stderr are in the log behind `from`. */
static int say_why(struct keeper *k, off_t from, struct err *e)
{
	char text[900] = "", *line, *nl;
	ssize_t n;
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", k->log);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : pread(fd, text, sizeof(text) - 1, from);
	if (fd >= 0)
		close(fd);
	text[MAX(n, 0)] = 0;
	line = strstr(text, "vmm: ");
	line = line ? line + strlen("vmm: ") : text;
	nl = strchr(line, '\n');
	if (nl)
		*nl = 0;
	return err_set(e, EIO, "vmm did not start: %s", *line ? line : "it ended without a word");
}

static int connect_vmm(struct life *l, off_t log_from, struct err *e)
{
	int64_t deadline = now_ms() + START_MS;
	json_t *status = NULL;

	while (!l->qmp) {
		if (ended(l, RETRY_START_MS))
			return say_why(l->k, log_from, e);
		if (now_ms() > deadline)
			return err_set(e, ETIMEDOUT, "vmm did not open its control socket");
		l->qmp = qmp_open(l->k->dir, "qmp.sock", NULL);
	}
	status = qmp_run(l->qmp, "query-status", NULL, START_MS, e);
	if (!status && qmp_gone(l->qmp))
		return say_why(l->k, log_from, e);
	json_decref(status);
	return status ? 0 : -EIO;
}

/* Processors, shares and the password: while the guest does not run yet. Only a wish: the guest starts without it. */
static void apply(struct life *l)
{
	const struct guest_config *c = l->k->config;
	struct err e = ERR_INIT;
	struct cpu_mask mask;
	json_t *list, *cpu;
	size_t i;

	if (c->vnc_password && c->vnc && strcmp(c->vnc, "none")) {
		json_t *args = json_pack("{s:s, s:s}", "protocol", "vnc", "password", c->vnc_password);
		json_t *done = qmp_run(l->qmp, "set_password", args, ANSWER_MS, &e);

		if (!done)
			done = qmp_run(l->qmp, "change-vnc-password", json_pack("{s:s}", "password", c->vnc_password),
				       ANSWER_MS, &e);
		if (!done)
			say(l->k, "vnc-password: %s", e.msg);
		json_decref(done);
	}
	if (c->cpus && !cpu_mask_parse(c->cpus, &mask, &e)) {
		list = qmp_run(l->qmp, "query-cpus-fast", NULL, ANSWER_MS, &e);
		json_array_foreach(list, i, cpu)
		{
			pid_t thread = (pid_t)json_integer_value(json_object_get(cpu, "thread-id"));
			int r = thread > 0 ? cpu_mask_apply(thread, &mask) : 0;

			if (r)
				say(l->k, "cpus = %s: vCPU %zu: %s", c->cpus, i, strerror(-r));
		}
		json_decref(list);
	}
	if ((c->cpu_weight || c->cpu_cap) && sched_set(l->pid, l->k->name, c->cpu_weight ? (long)c->cpu_weight : -1,
						       c->cpu_cap ? (long)c->cpu_cap : -1, &e))
		say(l->k, "cpu-weight, cpu-cap: %s", e.msg);
}

/* systemd's readiness protocol, sd_notify(3): a datagram. */
static void notify_systemd(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	size_t len = path ? strlen(path) : 0;
	int fd;

	if (!len || len >= sizeof(to.sun_path))
		return;
	memcpy(to.sun_path, path, len);
	if (*path == '@')
		to.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&to,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0) {
		/* nobody listens: systemd will say that the service is late */
	}
	close(fd);
}

/* ---- while it runs ---- */

static void quit(struct life *l)
{
	if (l->quit_sent)
		return;
	l->quit_sent = true;
	l->kill_at_ms = now_ms() + QUIT_MS;
	if (l->qmp)
		qmp_queue(l->qmp, "quit", NULL, -1);
}

static enum guest_policy policy_of(const struct life *l)
{
	const struct guest_config *c = l->k->config;

	if (l->stopping)
		return POLICY_DESTROY;
	if (l->panicked)
		return c->on_crash;
	if (l->reason && !strcmp(l->reason, "guest-reset"))
		return c->on_reboot;
	if (l->reason && !strcmp(l->reason, "guest-shutdown"))
		return faccessat(l->k->dir, "reboot", F_OK, 0) ? c->on_poweroff : c->on_reboot;
	return POLICY_DESTROY;
}

/* A guest that panics again and again does not fill the disk. */
static unsigned count_dumps(const char *dir, const char *name)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	size_t len = strlen(name);
	unsigned n = 0;

	while (d && (entry = readdir(d)))
		n += !strncmp(entry->d_name, name, len) && entry->d_name[len] == '-' && strstr(entry->d_name, ".core");
	if (d)
		closedir(d);
	return n;
}

static void dump_core(struct life *l)
{
	struct err e = ERR_INIT;
	char *dir = log_directory(&e), stamp[32], *path;
	time_t now = time(NULL);
	json_t *answer = NULL, *event = NULL;
	struct tm tm;
	int fd;

	if (!dir)
		return say(l->k, "no dump: %s", e.msg);
	if (count_dumps(dir, l->k->name) >= MAX_DUMPS) {
		say(l->k, "no dump: %d of this guest lie in %s already", MAX_DUMPS, dir);
		free(dir);
		return;
	}
	gmtime_r(&now, &tm);
	strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &tm);
	path = xasprintf("%s/%s-%s.core", dir, l->k->name, stamp);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		err_errno(&e, errno, "%s", path);
	else
		answer = qmp_run_fd(l->qmp, "getfd", json_pack("{s:s}", "fdname", "core"), fd, ANSWER_MS, &e);
	if (answer) {
		json_decref(answer);
		answer = qmp_run(l->qmp, "dump-guest-memory",
				 json_pack("{s:b, s:s, s:b}", "paging", 0, "protocol", "fd:core", "detach", 1), DUMP_MS,
				 &e);
	}
	while (answer && (event = qmp_event(l->qmp, DUMP_MS)) &&
	       strcmp(json_string_value(json_object_get(event, "event")), "DUMP_COMPLETED"))
		json_decref(event);
	if (event) {
		say(l->k, "dump written to %s", path);
	} else {
		say(l->k, "no dump: %s", e.msg);
		if (fd >= 0)
			unlink(path);
	}
	json_decref(event);
	json_decref(answer);
	if (fd >= 0)
		close(fd);
	free(path);
	free(dir);
}

static const char *const shutdown_reasons[] = {"guest-shutdown", "guest-reset", "guest-panic"};

static void on_event(struct life *l, json_t *event)
{
	const char *name = json_string_value(json_object_get(event, "event"));
	json_t *data = json_object_get(event, "data");
	const char *reason = json_string_value(json_object_get(data, "reason"));
	enum guest_policy policy;

	if (!name)
		return;
	if (!strcmp(name, "SHUTDOWN")) {
		for (size_t i = 0; i < ARRAY_SIZE(shutdown_reasons); i++)
			if (reason && !strcmp(reason, shutdown_reasons[i]))
				l->reason = shutdown_reasons[i];
		say(l->k, "the guest ends: %s", reason ? reason : "no reason given");
	} else if (!strcmp(name, "GUEST_PANICKED")) {
		l->panicked = true;
		say(l->k, "the guest reports a panic");
	} else if (!strcmp(name, "RESET")) {
		unlinkat(l->k->dir, "reboot", 0);
		return;
	} else {
		return;
	}
	policy = policy_of(l);
	if (policy == POLICY_PRESERVE) {
		say(l->k, "preserved as it is; vmmctl destroy ends it");
		return;
	}
	if (!strcmp(name, "GUEST_PANICKED") && policy >= POLICY_COREDUMP_DESTROY && !l->quit_sent)
		dump_core(l);
	quit(l);
}

/* Old parts of a log become holes: its size grows, what it takes does not. */
static void trim(int fd)
{
	struct stat st;

	if (!fstat(fd, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size > 2 * LOG_KEEP &&
	    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		      (off_t)ALIGN_DOWN((uint64_t)st.st_size - LOG_KEEP, 4096))) {
		/* a file system without holes: the log stays whole */
	}
}

static void trim_logs(const struct keeper *k)
{
	int fd = openat(k->dir, "console.log", O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd >= 0) {
		trim(fd);
		close(fd);
	}
	trim(k->log);
}

static void on_signal(struct life *l, int signals)
{
	struct signalfd_siginfo si;
	char more[48];

	while (read(signals, &si, sizeof(si)) == sizeof(si)) {
		if (l->stopping || !l->qmp) {
			l->stopping = true;
			quit(l);
			continue;
		}
		say(l->k, "signal %u: asking the guest to shut down", si.ssi_signo);
		l->stopping = true;
		l->kill_at_ms = now_ms() + l->k->config->shutdown_timeout * 1000ll;
		snprintf(more, sizeof(more), "EXTEND_TIMEOUT_USEC=%llu",
			 (l->k->config->shutdown_timeout * 1000ull + 2 * QUIT_MS) * 1000);
		notify_systemd(more); /* the unit's TimeoutStopSec may be less */
		qmp_queue(l->qmp, "system_powerdown", NULL, -1);
	}
}

/* Time is over: first politely, then not. */
static void on_deadline(struct life *l)
{
	if (!l->quit_sent) {
		quit(l);
		return;
	}
	say(l->k, "vmm does not end: killed");
	kill(l->pid, SIGKILL);
	l->kill_at_ms = now_ms() + QUIT_MS;
}

static void watch(struct life *l, int signals)
{
	int64_t trim_at = now_ms() + TRIM_MS;

	for (;;) {
		int64_t now = now_ms(), next = trim_at;
		struct pollfd p[3] = {
			{l->pidfd, POLLIN, 0}, {l->qmp ? qmp_fd(l->qmp) : -1, POLLIN, 0}, {signals, POLLIN, 0}};
		json_t *event;

		if (l->kill_at_ms)
			next = MIN(next, l->kill_at_ms);
		if (poll(p, 3, (int)MAX(next - now, (int64_t)0)) < 0 && errno != EINTR)
			return;
		if (p[2].revents)
			on_signal(l, signals);
		if (l->kill_at_ms && now_ms() >= l->kill_at_ms && !p[0].revents)
			on_deadline(l);
		/* also sends what was queued; the last words of a vmm that has gone are still there */
		while (l->qmp && (event = qmp_event(l->qmp, 0))) {
			on_event(l, event);
			json_decref(event);
		}
		if (p[0].revents)
			return;
		if (l->qmp && qmp_gone(l->qmp)) {
			qmp_close(l->qmp);
			l->qmp = NULL;
		}
		if (now_ms() >= trim_at) {
			trim_logs(l->k);
			trim_at = now_ms() + TRIM_MS;
		}
	}
}

/* ---- from start to end ---- */

/* Whether to start it once more. */
static bool again(struct life *l, int status)
{
	bool failed = WIFSIGNALED(status) || (WEXITSTATUS(status) && !l->reason && !l->quit_sent);
	enum guest_policy policy = policy_of(l);

	if (WIFSIGNALED(status))
		say(l->k, "vmm was killed by signal %d", WTERMSIG(status));
	else
		say(l->k, "vmm ended with status %d", WEXITSTATUS(status));
	if (failed && !l->stopping && !l->panicked)
		policy = l->k->config->on_crash;
	l->k->failed = !l->stopping && (failed || l->panicked);
	return policy == POLICY_RESTART || policy == POLICY_COREDUMP_RESTART;
}

/* starts: when the latest were, the last one now. */
static bool too_often(int64_t starts[RESTARTS + 1])
{
	memmove(starts, starts + 1, RESTARTS * sizeof(*starts));
	starts[RESTARTS] = now_ms();
	return starts[0] && starts[RESTARTS] - starts[0] < RESTARTS_MS;
}

/* 1: start again; 0: over; -errno: it did not start. */
static int live(struct keeper *k, char **argv, int signals, bool first, struct err *e)
{
	struct life l = {.k = k, .pidfd = -1};
	off_t log_from = lseek(k->log, 0, SEEK_END);
	int r = spawn(&l, argv, e), status = 0;

	if (!r)
		r = connect_vmm(&l, log_from, e);
	if (!r) {
		if (!first)
			sched_rejoin(l.pid, k->name);
		apply(&l);
		if (!k->paused || !first)
			json_decref(qmp_run(l.qmp, "cont", NULL, ANSWER_MS, e));
		unlinkat(k->dir, "reboot", 0);
		if (first) {
			if (write(k->ready, "+", 1) < 0) {
				/* whoever waited has gone */
			}
			close(k->ready);
			k->ready = -1;
			notify_systemd("READY=1");
			say(k, "vmm runs as process %d", (int)l.pid);
		}
		watch(&l, signals);
	}
	if (r && l.pid > 0)
		kill(l.pid, SIGKILL);
	if (l.pid > 0)
		waitpid(l.pid, &status, 0);
	if (!r)
		r = again(&l, status);
	qmp_close(l.qmp);
	if (l.pidfd >= 0)
		close(l.pidfd);
	return r;
}

int keeper_run(struct keeper *k)
{
	int64_t starts[RESTARTS + 1] = {0};
	struct err e = ERR_INIT;
	sigset_t set;
	int signals, r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGHUP, SIG_IGN); /* the terminal it was started from may go */
	signal(SIGPIPE, SIG_IGN);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	too_often(starts);
	r = live(k, k->argv, signals, true, &e);
	while (r > 0) {
		if (too_often(starts)) {
			say(k, "%d starts within %d s: not started again", RESTARTS, RESTARTS_MS / 1000);
			k->failed = true;
			break;
		}
		say(k, "starting again");
		r = live(k, k->argv_again, signals, false, &e);
		if (r < 0) {
			enum guest_policy policy = k->config->on_crash;

			say(k, "%s", e.msg);
			if (policy == POLICY_RESTART || policy == POLICY_COREDUMP_RESTART)
				r = 1;
		}
	}
	if (r < 0 && k->ready >= 0) {
		dprintf(k->ready, "-%s", e.msg);
		close(k->ready);
	}
	sched_forget(k->name);
	notify_systemd("STOPPING=1");
	close(signals);
	return r < 0 || k->failed ? CTL_FAILED : CTL_OK;
}
