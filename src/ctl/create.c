/* Starting a guest: its run directory, its keeper, and the word when it runs. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "config.h"
#include "ctl.h"

const char *vmm_binary(void)
{
	static char path[4096 + 8];
	const char *set = getenv("VMM");
	ssize_t n;

	if (set && *set)
		return set;
	n = readlink("/proc/self/exe", path, 4096);
	if (n > 0) {
		path[n] = 0;
		strcpy(strrchr(path, '/') + 1, "vmm");
		if (!access(path, X_OK))
			return path;
	}
	return "vmm";
}

/* ---- the directory ---- */

/* Lock the keeper's file; whoever holds it keeps a guest of that name. */
static int take_lock(int dir, const char *name, struct err *e)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = openat(dir, "keeper", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), holder;

	if (fd < 0)
		return err_errno(e, errno, "cannot write to the run directory of %s", name);
	if (fcntl(fd, F_SETLK, &lock)) {
		fcntl(fd, F_GETLK, &lock);
		close(fd);
		return err_set(e, EEXIST, "a guest named %s runs already (its keeper is process %d)", name,
			       (int)lock.l_pid);
	}
	holder = guest_lock_holder(dir, "pid");
	if (holder > 0) {
		close(fd);
		return err_set(e, EEXIST, "a guest named %s runs already (process %d)", name, holder);
	}
	if (ftruncate(fd, 0) || dprintf(fd, "%d\n", (int)getpid()) < 0) {
		int code = errno;

		close(fd);
		return err_errno(e, code, "cannot write to the run directory of %s", name);
	}
	return fd; /* stays open: the lock says that we live */
}

static void clear_leftovers(int dir)
{
	static const char *const files[] = {"qmp.sock",     "pid",           "config",        "command",
					    "console.sock", "console1.sock", "console2.sock", "console3.sock",
					    "console.log",  "console1.log",  "console2.log",  "console3.log",
					    "metrics.sock", "log",           "reboot"};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		unlinkat(dir, files[i], 0);
}

/* The guest's directory, made or taken over from one that crashed, and locked. */
static int take_directory(const char *run, const char *name, int *lock, struct err *e)
{
	char *path = xasprintf("%s/%s", run, name);
	struct stat before, now;
	int dir = -1, r = make_directories(run, 0755, e);

	for (int tries = 0; !r && tries < 10; tries++) {
		if (mkdir(path, 0700) && errno != EEXIST) {
			r = err_errno(e, errno, "cannot create %s", path);
			break;
		}
		dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (dir < 0 && errno != ENOENT) {
			r = err_errno(e, errno, "cannot open %s", path);
			break;
		}
		*lock = dir < 0 ? -1 : take_lock(dir, name, e);
		if (*lock < 0 && dir >= 0)
			r = *lock;
		/* between the two steps another keeper may have removed it at its end */
		if (*lock >= 0 && !fstat(*lock, &before) && before.st_nlink && !stat(path, &now) &&
		    !fstat(dir, &before) && now.st_ino == before.st_ino && now.st_dev == before.st_dev)
			break;
		if (*lock >= 0)
			close(*lock);
		if (dir >= 0)
			close(dir);
		dir = -1;
		*lock = -1;
	}
	free(path);
	if (!r && dir < 0)
		r = err_set(e, EBUSY, "the run directory of %s comes and goes", name);
	if (!r)
		clear_leftovers(dir);
	return r ? r : dir;
}

#define LOG_ROTATE MIB

/* Append to NAME.log; beyond a size the old one becomes NAME.log.1. Linked from the run directory. */
static int open_log(int dir, const char *name, struct err *e)
{
	char *where = log_directory(e), *path, *old;
	struct stat st;
	int fd = -1;

	if (!where || make_directories(where, 0700, e)) {
		free(where);
		return -1;
	}
	path = xasprintf("%s/%s.log", where, name);
	old = xasprintf("%s.1", path);
	if (!stat(path, &st) && (uint64_t)st.st_size > LOG_ROTATE)
		rename(path, old);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		err_errno(e, errno, "cannot write the log %s", path);
	else if (symlinkat(path, dir, "log"))
		err_errno(e, errno, "cannot link the log"), close(fd), fd = -1;
	free(old);
	free(path);
	free(where);
	return fd;
}

static int write_files(int dir, const struct guest_config *c, const struct argv *argv, struct err *e)
{
	char *text = config_format(c), *command = argv_quote(argv), *line = xasprintf("%s\n", command);
	int r = guest_write_file(dir, "config", text, strlen(text), 0600);

	if (!r)
		r = guest_write_file(dir, "command", line, strlen(line), 0600);
	if (r)
		err_errno(e, -r, "cannot write to the run directory of %s", c->name);
	free(line);
	free(command);
	free(text);
	return r;
}

/* ---- the keeper's process ---- */

static int keep(const struct start *s, int ready, struct err *e)
{
	const char *name = s->config->name;
	struct argv argv = {0}, again = {0};
	struct keeper k = {.config = s->config,
			   .name = name,
			   .dir = -1,
			   .log = -1,
			   .paused = s->paused,
			   .incoming_fd = s->incoming_fd,
			   .ready = ready};
	char *run = run_directory(e);
	int lock = -1, r = run ? 0 : -ENOENT;

	if (!r)
		r = config_command_line(s->config, s->vmm, &argv, e);
	if (!r)
		r = config_command_line(s->config, s->vmm, &again, e);
	if (!r)
		k.dir = r = take_directory(run, name, &lock, e);
	if (r >= 0) {
		argv_add(&again, "-S"); /* until the keeper has applied its part */
		if (!s->incoming || s->paused)
			argv_add(&argv, "-S");
		if (s->incoming) {
			argv_add(&argv, "-incoming");
			argv_add(&argv, "%s", s->incoming);
		}
		k.paused |= s->incoming != NULL;
		k.log = open_log(k.dir, name, e);
		r = k.log < 0 ? -EIO : write_files(k.dir, s->config, &argv, e);
	}
	if (r >= 0) {
		k.argv = argv.v;
		k.argv_again = again.v;
		r = keeper_run(&k);
		*e = ERR_INIT; /* said already */
	}
	if (k.dir >= 0)
		guest_remove_directory(k.dir, run);
	if (lock >= 0)
		close(lock);
	if (k.log >= 0)
		close(k.log);
	if (k.dir >= 0)
		close(k.dir);
	argv_free(&argv);
	argv_free(&again);
	free(run);
	return r;
}

/* Where systemd runs the host: a scope for the guest. Else it would be a part of the session it was started from, whose
 * processes all get a SIGTERM when the host shuts down; so vmm-guests.service goes before, and asks the guest. The
 * scope's control group is also ours to set shares in, beside those of vmm@.service: weights count among siblings. Only
 * a wish. */
static void enter_scope(const char *name)
{
	static const char join[] = "echo $1 >/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/cgroup.procs";
	char *unit = xasprintf("--unit=vmm-%s", name), *pid = xasprintf("%d", (int)getpid());
	pid_t child = -1;

	if (!geteuid() && !getenv("VMM_RUN_DIR") && !access("/run/systemd/system", F_OK) &&
	    !access("/sys/fs/cgroup/cgroup.procs", F_OK))
		child = fork();
	if (!child) {
		execlp("systemd-run", "systemd-run", "--scope", "--slice=machine.slice", "--quiet", "--collect", unit,
		       "--property=Delegate=cpu", "--property=Before=vmm-guests.service", "sh", "-c", join, "sh", pid,
		       (char *)NULL);
		_exit(127);
	}
	if (child > 0)
		waitpid(child, NULL, 0);
	free(unit);
	free(pid);
}

/* In the child: let go of the terminal and of what the caller had open. */
static void detach(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	if (chdir("/")) {
		/* stays where it is */
	}
	umask(077);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
	}
}

static int run_keeper(const struct start *s, int ready)
{
	struct err e = ERR_INIT;
	int r = keep(s, ready, &e);

	if (r < 0) {
		dprintf(ready, "-%s", e.msg);
		return CTL_FAILED;
	}
	return r;
}

/* What the keeper said: "+" it runs, "-reason", or nothing when it died. */
static int hear(struct ctl *c, int fd)
{
	char text[1100];
	size_t n = 0;
	ssize_t got;

	while (n < sizeof(text) - 1 && (got = read(fd, text + n, sizeof(text) - 1 - n)) != 0) {
		if (got < 0 && errno != EINTR)
			break;
		n += (size_t)MAX(got, 0);
		if (text[0] == '+')
			break;
	}
	text[n] = 0;
	if (*text == '+')
		return CTL_OK;
	return ctl_fail(c, CTL_FAILED, "%s", *text == '-' ? text + 1 : "the keeper ended without a word");
}

int guest_start(struct ctl *c, const struct start *s)
{
	int fds[2], r;
	pid_t pid;

	if (!guest_name_valid(s->config->name, &c->err))
		return CTL_BAD_CONFIG;
	if (pipe2(fds, O_CLOEXEC))
		return ctl_errno(c, errno, "cannot create a pipe");
	if (s->foreground) {
		r = run_keeper(s, fds[1]);
		close(fds[1]);
		/* hear() finds "+" when it ran and ended */
		if (hear(c, fds[0]))
			r = CTL_FAILED;
		else if (r)
			ctl_fail(c, CTL_FAILED, "%s ended as it should not; see `vmmctl log %s`", s->config->name,
				 s->config->name);
		close(fds[0]);
		return r;
	}
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return ctl_errno(c, errno, "cannot start another process");
	if (!pid) {
		close(fds[0]);
		detach();
		enter_scope(s->config->name);
		_exit(run_keeper(s, fds[1]));
	}
	close(fds[1]);
	r = hear(c, fds[0]);
	close(fds[0]);
	if (r)
		waitpid(pid, NULL, 0); /* its directory is gone when the reason is printed */
	return r;
}
