/*
 * The process around the guest: -daemonize, -pidfile, -runas, -chroot. Main thread, in the order of the functions
 * below.
 */
#ifndef VMM_PROCESS_H
#define VMM_PROCESS_H

#include "vmm/config.h"
#include "vmm/err.h"

/*
 * -daemonize: fork; the parent waits until process_ready() or the child's end and exits with 0 or 1 accordingly, so
 * that whoever started us knows that sockets listen and the pid file is written. Returns in the child. Before any
 * thread or loop exists. 0 without -daemonize.
 */
int process_daemonize(const struct config *c, struct err *e);
/* -pidfile (written and locked: a second vmm with the same file is refused), -chroot, -runas, no new privileges. After
   everything that needs the file system or root was opened. Resolves the user before entering the chroot. */
int process_drop_privileges(const struct config *c, struct err *e);
/* Everything is up: release the -daemonize parent and detach from its terminal. */
void process_ready(void);
/* Remove the pid file (if still ours and reachable). */
void process_cleanup(void);

#endif
