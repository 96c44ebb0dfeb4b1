/*
 * Character devices: stdio, pty, sockets, file, pipe, null, ring buffer, mux. Backends in src/chardev/, front ends are
 * UARTs, the parallel port, debugcon, the QMP server ... Backends run on the main loop.
 */
#ifndef VMM_CHARDEV_H
#define VMM_CHARDEV_H

#include <pthread.h>
#include <stdbool.h>
#include "vmm/err.h"
#include "vmm/prop.h"

struct chardev;

enum chardev_event { CHARDEV_OPENED, CHARDEV_CLOSED, CHARDEV_BREAK };

/* Front-end callbacks; main thread, with `lock` held. */
struct chardev_frontend {
	size_t (*can_receive)(void *opaque);                           /* bytes the front end can take now */
	void (*receive)(void *opaque, const uint8_t *buf, size_t len); /* len <= can_receive */
	void (*event)(void *opaque, enum chardev_event ev);
	void (*writable)(void *opaque); /* after chardev_write() took less than asked */
};

/* Attach the front end (one per chardev, or several to a mux). lock: taken around callbacks. */
void chardev_attach(struct chardev *c, const struct chardev_frontend *fe, void *opaque, pthread_mutex_t *lock);
void chardev_detach(struct chardev *c);
/* Send: returns how many bytes were accepted (0..len), never blocks, any thread with the front end's lock held. A
   disconnected socket, pty or full backlog of a `wait=off` backend without peer accepts and drops. The bytes are queued
   (bounded, 64 KiB) and written by the main loop, so a vCPU thread does no I/O. */
size_t chardev_write(struct chardev *c, const void *buf, size_t len);
/* can_receive() grew: resume reading. Any thread, front end's lock held. */
void chardev_accept_input(struct chardev *c);
/* Line settings and modem lines reach real serial ports and ptys; others ignore them. */
struct chardev_line {
	uint32_t baud;
	uint8_t data_bits, stop_bits;
	char parity; /* N O E */
};
void chardev_set_line(struct chardev *c, const struct chardev_line *line);
void chardev_send_break(struct chardev *c);
void chardev_set_open(struct chardev *c, bool guest_open); /* virtio-serial ports */

const char *chardev_id(const struct chardev *c);
const char *
chardev_filename(const struct chardev *c);     /* as query-chardev prints it: "pty:/dev/pts/3", "unix:...,server=on" */
bool chardev_is_open(const struct chardev *c); /* peer connected */
bool chardev_frontend_open(const struct chardev *c);

/* -chardev BACKEND,id=..,... and the old "-serial DEV" spellings (stdio, pty, unix:..., tcp:..., file:, pipe:, null,
 * none, ringbuf, vc refused, mon:stdio). */
struct chardev *chardev_open(struct opts *o, struct err *e); /* first option "backend" */
struct chardev *chardev_open_legacy(const char *id, const char *text, struct err *e);
void chardev_close(struct chardev *c); /* flushes bounded, NULL-safe */
struct chardev *chardev_find(const char *id);
struct chardev *chardev_next(struct chardev *prev);
/* Ring buffer access for QMP ringbuf-read/-write. */
size_t chardev_ring_read(struct chardev *c, void *buf, size_t len);
size_t chardev_ring_write(struct chardev *c, const void *buf, size_t len);
/* Restore the terminal; called on every exit path. Async-signal-safe. */
void chardev_restore_terminal(void);

/* For control sockets: fds received with SCM_RIGHTS since the last call (QMP getfd/add-fd); ownership passes to the
 * caller. */
int chardev_take_fds(struct chardev *c, int *fds, int max);
/* Kick the client out (QMP protocol violations). */
void chardev_disconnect(struct chardev *c);

#endif
