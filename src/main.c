/*
 * vmm: argv -> configuration -> machine -> run. The only file that may exit.
 *
 * Order matters: everything that needs the file system or privileges happens before they are given up, the sandbox
 * closes before the first guest instruction, and a -daemonize parent exits only when the sockets listen and the pid
 * file is written.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include "vmm/block.h"
#include "vmm/chardev.h"
#include "vmm/control.h"
#include "vmm/crash.h"
#include "vmm/display.h"
#include "vmm/machine.h"
#include "vmm/migration.h"
#include "vmm/module.h"
#include "vmm/net.h"
#include "vmm/process.h"
#include "vmm/sandbox.h"

struct run {
	struct config config;
	struct board *board;
	int signal_fd;
	struct watch *signal_watch;
	struct migration_meeting *meeting; /* a guest that came before its machine */
};

static void on_signal(void *opaque, int fd, unsigned events)
{
	struct run *run = opaque;
	struct signalfd_siginfo si;

	(void)events;
	while (read(fd, &si, sizeof(si)) == sizeof(si)) {
		log_info("main", "terminating on signal %u from pid %u", si.ssi_signo, si.ssi_pid);
		machine_quit(run->board, SHUTDOWN_HOST_SIGNAL);
	}
}

/* SIGINT, SIGTERM and SIGHUP end the guest in order; they arrive through the loop, never in the middle of something. */
static int take_signals(struct run *run, struct err *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a file that must not grow (ulimit -f) is a disk's error, not the guest's end */
	run->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (run->signal_fd < 0)
		return err_errno(e, errno, "cannot receive signals");
	run->signal_watch = loop_watch(loop_main(), run->signal_fd, LOOP_READ, NULL, on_signal, run, e);
	return run->signal_watch ? 0 : -ENOMEM;
}

static int set_on_off(const char *key, const char *value, void (*set)(bool on), struct err *e)
{
	if (strcmp(value, "on") && strcmp(value, "off"))
		return err_set(e, EINVAL, "-msg: Parameter '%s' expects 'on' or 'off'", key);
	set(!strcmp(value, "on"));
	return 0;
}

static int set_message_format(const struct config *c, struct opts *o, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < o->n && !r; i++) {
		const char *key = o->v[i].key, *value = o->v[i].value;

		if (!strcmp(key, "timestamp"))
			r = set_on_off(key, value, log_set_timestamp, e);
		else if (!strcmp(key, "guest-name"))
			log_set_guest_name(!strcmp(value, "on") ? c->name : NULL);
		else if (strcmp(key, "format"))
			r = err_set(e, EINVAL,
				    "-msg: Invalid parameter '%s'; there are timestamp, guest-name and format", key);
		else if (strcmp(value, "text") && strcmp(value, "json"))
			r = err_set(e, EINVAL, "-msg: Parameter 'format' expects 'text' or 'json'");
		else
			log_set_json(!strcmp(value, "json"));
	}
	return r;
}

static int set_up_log(const struct config *c, struct err *e)
{
	for (struct opt_item *i = c->msg.first; i; i = i->next)
		if (set_message_format(c, &i->opts, e))
			return -EINVAL;
	if (c->log_filter && log_set_filter(c->log_filter, e)) {
		err_prefix(e, "-d %s", c->log_filter);
		return -EINVAL;
	}
	return c->log_file ? log_open(c->log_file, e) : 0;
}

/* The screen: -display, -vnc and -nographic. */
static int start_displays(const struct config *c, struct err *e)
{
	int r = 0;

	for (struct opt_item *i = c->vnc.first; !r && i; i = i->next)
		r = vnc_start(i->text, e);
	if (!r && c->display)
		r = display_start(c->display, e);
	else if (!r && !c->nographic && !c->nodefaults && !c->vnc.first && c->machine.accel != ACCEL_QTEST)
		r = display_start(NULL, e);
	return r;
}

/* -machine dumpdtb=FILE */
static int write_description(struct board *b, const char *path, struct err *e)
{
	void *fdt = NULL;
	size_t len = 0;
	int r = machine_describe(b, &fdt, &len, e);
	FILE *f = r ? NULL : fopen(path, "we");

	if (!r && (!f || fwrite(fdt, 1, len, f) != len || fclose(f)))
		r = err_errno(e, errno, "-machine dumpdtb=%s: cannot write", path);
	free(fdt);
	return r;
}

/* -incoming: a peer may connect from now on; it is served once the loop runs. */
static int start_migration(struct run *run, struct err *e)
{
	const struct config *c = &run->config;
	int r = 0;

	migration_init(run->board);
	if (c->migration_allow)
		r = migration_allow(c->migration_allow, e);
	if (!r && run->meeting) {
		r = migration_meeting_resume(run->meeting, e);
		if (!r)
			run->meeting = NULL;
	} else if (!r && c->incoming && migration_incoming(c->incoming, e)) {
		r = err_prefix(e, "-incoming %s", c->incoming);
	}
	return r;
}

/* -incoming and nothing that says what machine it is: that comes with the guest. */
static int meet_guest(struct run *run, struct err *e)
{
	struct config *c = &run->config;
	const void *fdt;
	size_t len;
	int r;

	if (!c->incoming || c->guest_option || !strcmp(c->incoming, "defer"))
		return 0;
	r = migration_meet(c->incoming, c->migration_allow, run->signal_fd, process_ready, &run->meeting, &fdt, &len,
			   e);
	return r ? err_prefix(e, "-incoming %s", c->incoming) : machine_config_from_description(c, fdt, len, e);
}

static int start(struct run *run, struct err *e)
{
	struct config *c = &run->config;
	int r = set_up_log(c, e);

	crash_set_cleanup(chardev_restore_terminal);
	crash_init();

	if (!r)
		r = process_daemonize(c, e);
	if (!r)
		r = loop_init_main(e);
	if (!r && c->machine.accel == ACCEL_QTEST)
		clock_use_manual((uint64_t)time(NULL) * NS_PER_SEC);
	if (!r)
		r = take_signals(run, e);
	if (!r)
		r = meet_guest(run, e);
	if (r)
		return r;
	block_set_thread_hook(sandbox_thread_io);
	if (c->incoming)
		block_start_inactive(); /* the guest that comes still has its disks */
	run->board = machine_new(c, e);
	if (!run->board)
		return e->code ? -e->code : -EINVAL;
	if (c->mem_lock && mlockall(MCL_CURRENT | MCL_FUTURE))
		return err_errno(e, errno, "-overcommit mem-lock=on: cannot lock memory (ulimit -l, or CAP_IPC_LOCK)");
	if (c->machine.dumpdtb)
		return write_description(run->board, c->machine.dumpdtb, e);
	r = start_displays(c, e);
	if (!r)
		r = start_migration(run, e);
	if (!r)
		r = control_start(run->board, e);
	if (!r && c->chroot)
		module_preload();
	if (!r)
		r = process_drop_privileges(c, e);
	if (c->sandbox)
		net_forbid_helpers();
	if (!r && c->sandbox)
		r = sandbox_enter(SANDBOX_MAIN, e);
	if (!r)
		r = machine_start(run->board, e);
	if (!r)
		process_ready();
	return r;
}

static void stop(struct run *run)
{
	control_stop(); /* first: no command may find a machine half gone */
	migration_shutdown();
	if (migration_guest_torn()) {
		/* Threads wait for pages that nobody brings. Only the process's end keeps them from going on with zeros
		   in their place, and from writing those to the guest's disks. */
		chardev_close_all();
		chardev_restore_terminal();
		process_cleanup();
		_exit(machine_exit_status(run->board));
	}
	machine_free(run->board);
	display_stop();
	netdev_close_all();
	block_close_all();
	chardev_close_all();
	chardev_restore_terminal();
	loop_unwatch(run->signal_watch);
	if (run->signal_fd >= 0)
		close(run->signal_fd);
	loop_free(loop_main());
	process_cleanup();
	log_set_guest_name(NULL);
	config_free(&run->config);
}

int main(int argc, char **argv)
{
	struct run run = {.signal_fd = -1};
	struct err e = ERR_INIT;
	int r, status = 0;

	/* One heap for all threads: libc opens a file before it shrinks another thread's, which no sandbox role but
	   main may. It costs less memory, too, and nothing allocates where locks would count. */
	mallopt(M_ARENA_MAX, 1);
	r = config_parse(&run.config, argc, argv, &e);
	if (r > 0) {
		config_free(&run.config);
		return fflush(stdout) ? 1 : 0;
	}
	if (!r)
		r = start(&run, &e);
	migration_meeting_end(run.meeting, e.msg); /* the guest is told why it cannot come */
	if (r) {
		chardev_restore_terminal();
		fprintf(stderr, "vmm: %s\n", e.msg);
		status = 1;
	} else if (!run.config.machine.dumpdtb) {
		loop_run(loop_main());
		status = machine_exit_status(run.board);
	}
	stop(&run);
	return status;
}
