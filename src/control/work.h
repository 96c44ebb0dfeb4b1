/*
 * Work that takes longer than the main loop may: one thread for each, in the sandbox role of block workers (transfers
 * on descriptors that are already open; no opening, no sockets).
 */
#ifndef VMM_CONTROL_WORK_H
#define VMM_CONTROL_WORK_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include "vmm/err.h"

#define WORK_MAX 80 /* at once: one for each client, and jobs */

struct work {
	void (*run)(struct work *w);  /* on the thread of its own */
	void (*done)(struct work *w); /* afterwards, on the main thread; may free w */
	/* private */
	bool cancelled;
	pthread_t thread;
	struct work *next;
};

/* run and done are set. Main thread. On failure nothing will be called. */
int work_start(struct work *w, struct err *e);
/* Ask it to end early; done still comes. Main thread. */
void work_cancel(struct work *w);
bool work_cancelled(const struct work *w); /* any thread */
/* At the end of the process: cancel all and call their done. One that hangs in the kernel is left behind. */
void work_stop_all(void);

/*
 * Write all of it to fd: 0, -ECANCELED or -errno. A pipe or socket whose reader is slow is waited for in a way that
 * can be cancelled, if work_prepare_fd() was called for it on the main thread before.
 */
int work_write(struct work *w, int fd, const void *data, size_t len);
void work_prepare_fd(int fd);

#endif
