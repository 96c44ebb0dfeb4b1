/* The process around the guest: see vmm/process.h. */
#include "vmm/process.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int ready_fd = -1; /* pipe to the -daemonize parent */
static char *pidfile;
static int pidfile_fd = -1;

int process_daemonize(const struct config *c, struct err *e)
{
	int fds[2];
	pid_t pid;
	char byte;

	if (!c->daemonize)
		return 0;
	if (pipe2(fds, O_CLOEXEC))
		return err_errno(e, errno, "-daemonize: cannot create a pipe");
	pid = fork();
	if (pid < 0)
		return err_errno(e, errno, "-daemonize: cannot fork");
	if (pid > 0) {
		close(fds[1]);
		/* EOF without a byte: the child failed and has said why on our stderr */
		_exit(read(fds[0], &byte, 1) == 1 ? 0 : 1);
	}
	close(fds[0]);
	ready_fd = fds[1];
	setsid();
	umask(027);
	return 0;
}

void process_ready(void)
{
	int null;

	if (ready_fd < 0)
		return;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		close(null);
	}
	if (write(ready_fd, "", 1) < 0) {
		/* the parent was killed: nobody waits */
	}
	close(ready_fd);
	ready_fd = -1;
}

static int write_pidfile(const char *path, struct err *e)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char text[32];
	int n, fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0)
		return err_errno(e, errno, "-pidfile %s: cannot create", path);
	if (fcntl(fd, F_SETLK, &lock)) {
		close(fd);
		return err_set(e, EBUSY, "-pidfile %s: another process holds it", path);
	}
	n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n) {
		int err = errno;

		close(fd);
		return err_errno(e, err, "-pidfile %s: cannot write", path);
	}
	pidfile = realpath(path, NULL);
	pidfile_fd = fd; /* stays open: the lock says that we live */
	return 0;
}

void process_cleanup(void)
{
	if (pidfile)
		unlink(pidfile);
	if (pidfile_fd >= 0)
		close(pidfile_fd);
	free(pidfile);
	pidfile = NULL;
	pidfile_fd = -1;
}

struct identity {
	uid_t uid;
	gid_t gid;
	const char *user; /* for the supplementary groups; NULL with UID:GID */
};

static int find_user(const char *text, struct identity *id, struct err *e)
{
	struct passwd *pw = getpwnam(text);
	unsigned long uid, gid;
	char *end;

	if (pw) {
		*id = (struct identity){pw->pw_uid, pw->pw_gid, text};
		return 0;
	}
	uid = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end != ':' || !isdigit((unsigned char)end[1]))
		return err_set(e, ENOENT, "-runas %s: no such user, and not of the form UID:GID", text);
	gid = strtoul(end + 1, &end, 10);
	if (*end || uid > UINT32_MAX - 1 || gid > UINT32_MAX - 1)
		return err_set(e, EINVAL, "-runas %s: not of the form UID:GID", text);
	*id = (struct identity){(uid_t)uid, (gid_t)gid, NULL};
	return 0;
}

static int become(const char *text, const struct identity *id, struct err *e)
{
	if (setgid(id->gid))
		return err_errno(e, errno, "-runas %s: cannot set the group", text);
	if (id->user ? initgroups(id->user, id->gid) : setgroups(1, &id->gid))
		return err_errno(e, errno, "-runas %s: cannot set the supplementary groups", text);
	if (setuid(id->uid))
		return err_errno(e, errno, "-runas %s: cannot set the user", text);
	if (id->uid && setuid(0) == 0)
		return err_set(e, EPERM, "-runas %s: root privileges could be regained; refusing to go on", text);
	return 0;
}

int process_drop_privileges(const struct config *c, struct err *e)
{
	struct identity id;
	int r = c->pidfile ? write_pidfile(c->pidfile, e) : 0;

	if (!r && c->runas)
		r = find_user(c->runas, &id, e);
	if (r)
		return r;
	if (c->chroot && (chroot(c->chroot) || chdir("/")))
		return err_errno(e, errno, "-chroot %s", c->chroot);
	if (c->runas)
		r = become(c->runas, &id, e);
	if (!r && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		r = err_errno(e, errno, "cannot give up gaining new privileges");
	return r;
}
