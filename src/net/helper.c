/*
 * Other programs that set up a tap: interface scripts, and the set-uid helper that adds a tap to a bridge. They run
 * while vmm starts; once the sandbox is closed nothing can be executed. A script for the end is therefore started at
 * the beginning, as a shell that waits until we hang up, or are killed.
 */
#include "netdev.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "vmm/log.h"

#define GOODBYE_MS 10000 /* for a script at the end */

static bool forbidden;

void net_forbid_helpers(void)
{
	forbidden = true;
}

/* In the child: fd, if any, becomes descriptor `to`, all others but the standard ones are closed. */
static void run(char *const argv[], int fd, int to)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGXFSZ, SIG_DFL);
	if (fd >= 0 && dup2(fd, to) < 0)
		_exit(127);
	close_range(MAX(to + 1, 3), ~0u, 0);
	execv(argv[0], argv);
	fprintf(stderr, "vmm: cannot execute %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

static int check_allowed(const char *what, const char *path, struct err *e)
{
	if (!forbidden)
		return 0;
	return err_set(e, EPERM,
		       "%s=%s cannot be run any more: the sandbox is closed; give %s=no, or hand over the tap with fd=",
		       what, path, what);
}

static int wait_for(pid_t pid, const char *what, struct err *e)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return err_errno(e, errno, "cannot wait for %s", what);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	return err_set(e, EIO, "%s failed with %s %d", what, WIFEXITED(status) ? "status" : "signal",
		       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

int net_run_script(const char *script, const char *ifname, struct err *e)
{
	char *argv[] = {(char *)script, (char *)ifname, NULL}, what[256];
	int r = check_allowed("script", script, e);
	pid_t pid;

	if (r)
		return r;
	if (access(script, X_OK))
		return err_errno(e, errno, "script=%s (script=no runs none)", script);
	pid = fork();
	if (pid < 0)
		return err_errno(e, errno, "cannot start %s", script);
	if (pid == 0)
		run(argv, -1, 2);
	snprintf(what, sizeof(what), "network script %.200s", script);
	return wait_for(pid, what, e);
}

int net_script_at_end(const char *script, const char *ifname, struct err *e)
{
	/* The shell keeps its end until the script is done. */
	char *argv[] = {(char *)"/bin/sh", (char *)"-c",   (char *)"read line; \"$0\" \"$1\" </dev/null",
			(char *)script,    (char *)ifname, NULL};
	int r = check_allowed("downscript", script, e), pair[2];
	pid_t pid;

	if (r)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_errno(e, errno, "downscript=%s: cannot make a socket", script);
	pid = fork();
	if (pid == 0) {
		pid_t keeper = fork(); /* nobody's child: we could not wait for it later */

		if (keeper == 0) {
			setsid(); /* Ctrl-C at our terminal is not for it */
			run(argv, pair[1], 0);
		}
		_exit(keeper < 0);
	}
	close(pair[1]);
	r = pid < 0 ? err_errno(e, errno, "downscript=%s: cannot start a process", script)
		    : wait_for(pid, "downscript's keeper", e);
	if (!r)
		return pair[0];
	close(pair[0]);
	return r;
}

void net_run_script_at_end(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (fd < 0)
		return;
	shutdown(fd, SHUT_WR);
	if (poll(&p, 1, GOODBYE_MS) == 0)
		log_warn("net", "a downscript takes longer than %d s: it goes on alone", GOODBYE_MS / 1000);
	close(fd);
}

int net_bridge_helper(const char *helper, const char *bridge, struct err *e)
{
	char *fd_arg, *br_arg = xasprintf("--br=%s", bridge), *command = NULL;
	int r = check_allowed("helper", helper, e), pair[2] = {-1, -1}, fd;
	pid_t pid;

	if (!r && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		r = err_errno(e, errno, "helper=%s: cannot make a socket", helper);
	if (r) {
		free(br_arg);
		return r;
	}
	fd_arg = xasprintf("--fd=%d", 3);
	pid = fork();
	if (pid == 0) {
		char *direct[] = {(char *)helper, (char *)"--use-vnet", fd_arg, br_arg, NULL};
		char *shell[] = {(char *)"/bin/sh", (char *)"-c", NULL, NULL};

		if (strpbrk(helper, " \t")) /* a command: QEMU passes it to the shell */
			shell[2] = command = xasprintf("%s --use-vnet %s %s", helper, fd_arg, br_arg);
		run(command ? shell : direct, pair[1], 3);
	}
	close(pair[1]);
	fd = pid < 0 ? err_errno(e, errno, "cannot start %s", helper) : fd_receive(pair[0]);
	if (pid > 0 && fd < 0)
		fd = err_set(e, EPROTO, "the helper passed no tap");
	close(pair[0]);
	if (pid > 0) {
		struct err why = ERR_INIT;

		if (wait_for(pid, "bridge helper", &why) && fd >= 0) {
			close(fd);
			fd = err_set(e, EIO, "%s", why.msg);
		} else if (fd < 0 && why.code) {
			fd = err_set(e, EIO, "helper=%s: %s", helper, why.msg);
		}
	}
	free(fd_arg);
	free(br_arg);
	return fd;
}
