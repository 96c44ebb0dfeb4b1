/* Entering the sandbox: see vmm/sandbox.h. seccomp(2), Documentation/userspace-api/seccomp_filter.rst. */
#include "vmm/sandbox.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <nss.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "src/sandbox/sandbox_profiles.inc"
#include "vmm/crash.h"
#include "vmm/log.h"

#define EXIT_VIOLATION (128 + SIGSYS)

static const struct {
	const char *name;
	const uint64_t *insn;
	size_t n;
} roles[SANDBOX_N_ROLES] = {
	[SANDBOX_MAIN] = {"main", profile_main, ARRAY_SIZE(profile_main)},
	[SANDBOX_VCPU] = {"vcpu", profile_vcpu, ARRAY_SIZE(profile_vcpu)},
	[SANDBOX_IO] = {"io", profile_io, ARRAY_SIZE(profile_io)},
	[SANDBOX_VNC] = {"vnc", profile_vnc, ARRAY_SIZE(profile_vnc)},
	[SANDBOX_MIGRATION] = {"migration", profile_migration, ARRAY_SIZE(profile_migration)},
	[SANDBOX_SLIRP] = {"slirp", profile_slirp, ARRAY_SIZE(profile_slirp)},
};

static bool enabled;
static _Thread_local const char *thread_role = "unconfined";

const char *sandbox_role_name(enum sandbox_role role)
{
	return roles[role].name;
}

/* Async-signal-safe: the process may be in any state. rt_sigaction is not on any list, so this handler cannot be
 * replaced. */
static void on_violation(int sig, siginfo_t *si, void *context)
{
	char text[160];
	int n = 0, nr = si->si_syscall;
	char digits[12];
	int d = 0;

	(void)sig;
	(void)context;
	for (const char *s = "vmm: sandbox: a thread of role "; *s; s++)
		text[n++] = *s;
	for (const char *s = thread_role; *s; s++)
		text[n++] = *s;
	for (const char *s = " called forbidden system call "; *s; s++)
		text[n++] = *s;
	do
		digits[d++] = (char)('0' + nr % 10);
	while ((nr /= 10) && d < 11);
	while (d)
		text[n++] = digits[--d];
	for (const char *s = "; the process ends (please report this; -sandbox off to go on)\n"; *s; s++)
		text[n++] = *s;
	if (write(STDERR_FILENO, text, (size_t)n) < 0) {
		/* nothing left to tell it to */
	}
	crash_report("SIGSYS", (uintptr_t)si->si_call_addr);
	_exit(EXIT_VIOLATION);
}

int sandbox_enter(enum sandbox_role role, struct err *e)
{
	struct sock_fprog prog = {.len = (unsigned short)roles[role].n,
				  .filter = (struct sock_filter *)(uintptr_t)roles[role].insn};

	if (!enabled)
		sandbox_enable();
	/* Each thread for itself: vCPUs' are older than the main thread's promise, and without it only root may filter.
	 */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return err_errno(e, errno, "cannot give up gaining new privileges");
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog))
		return err_errno(
			e, errno,
			"cannot enter the sandbox (a kernel with CONFIG_SECCOMP_FILTER is needed, or -sandbox off)");
	thread_role = roles[role].name;
	return 0;
}

void sandbox_enable(void)
{
	struct sigaction sa = {.sa_sigaction = on_violation, .sa_flags = SA_SIGINFO | SA_NODEFER};

	sigaction(SIGSYS, &sa, NULL);
	/* Names are looked up in /etc/hosts and by DNS from here on: the filters know what libc does for that, and not
	   what the host's other name services (nss-resolve, nss-myhostname, nss-mdns ...) may want of the kernel. */
	__nss_configure_lookup("hosts", "files dns");
	enabled = true;
}

static void enter_or_exit(enum sandbox_role role)
{
	struct err e = ERR_INIT;

	if (!enabled)
		return;
	if (sandbox_enter(role, &e)) {
		log_error("sandbox", "%s", e.msg);
		_exit(1);
	}
}

void sandbox_thread_vcpu(void)
{
	enter_or_exit(SANDBOX_VCPU);
}

void sandbox_thread_io(void)
{
	enter_or_exit(SANDBOX_IO);
}

void sandbox_thread_vnc(void)
{
	enter_or_exit(SANDBOX_VNC);
}

void sandbox_thread_migration(void)
{
	enter_or_exit(SANDBOX_MIGRATION);
}

void sandbox_thread_slirp(void)
{
	enter_or_exit(SANDBOX_SLIRP);
}
