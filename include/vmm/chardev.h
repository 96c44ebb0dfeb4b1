/*
 * Character devices: stdio, pty, sockets, file, pipe, null, ring buffer, mux. Backends in src/chardev/, front ends are
 * UARTs, the parallel port, debugcon, the QMP server ... Backends run on the main loop.
 */
#ifndef VMM_CHARDEV_H
#define VMM_CHARDEV_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>
#include "vmm/err.h"
#include "vmm/prop.h"

struct chardev;

/* FOCUS: on a shared terminal, what is typed goes to this front end from now on. */
enum chardev_event { CHARDEV_OPENED, CHARDEV_CLOSED, CHARDEV_BREAK, CHARDEV_FOCUS };

/* Front-end callbacks; main thread, with `lock` held. Only receive is mandatory. */
struct chardev_frontend {
	size_t (*can_receive)(void *opaque);                           /* bytes it can take now; NULL: any number */
	void (*receive)(void *opaque, const uint8_t *buf, size_t len); /* 1 <= len <= can_receive */
	void (*event)(void *opaque, enum chardev_event ev);
	void (*writable)(void *opaque); /* after chardev_write() took less than asked */
	/*
	 * A protocol (QMP, qtest): output is never dropped, a short chardev_write() is retried from writable(); input
	 * left over when the peer goes is discarded. false, a wire (UART ...): a peer that reads nothing for
	 * CHARDEV_STALL_MS while the queue is full loses output from then on until it reads again, so that it cannot
	 * hold up the guest; what a peer sent before it went is still delivered.
	 */
	bool lossless;
	/* chardev_change(): from now on this one is its chardev, attached already; the old one is gone. NULL: cannot.
	 */
	void (*replaced)(void *opaque, struct chardev *by);
};
#define CHARDEV_STALL_MS   250
#define CHARDEV_QUEUE_SIZE (64 * 1024)

/*
 * Take a chardev for exclusive use by `owner` (shown in messages). A mux hands out a new port at each call, up to 4;
 * input goes to one of them (Ctrl-A c rotates), output comes from all. NULL with -ENOENT or -EBUSY in e->code. Main
 * thread. Release detaches and is NULL-safe.
 */
struct chardev *chardev_claim(const char *id, const char *owner, struct err *e);
void chardev_release(struct chardev *c);

/* Attach the front end of a claimed chardev. lock: taken around callbacks. If a peer is connected, event(OPENED)
 * follows from the main loop. Main thread. */
void chardev_attach(struct chardev *c, const struct chardev_frontend *fe, void *opaque, pthread_mutex_t *lock);
/* After return no callback runs. Main thread, front end's lock not held. */
void chardev_detach(struct chardev *c);
/* Send: returns how many bytes were accepted (0..len), never blocks, any thread with the front end's lock held. A
   disconnected socket or pty accepts and drops (but logs to logfile=). The bytes are queued (CHARDEV_QUEUE_SIZE) and
   written by the main loop, so a vCPU thread does no I/O. */
size_t chardev_write(struct chardev *c, const void *buf, size_t len);
/* Push queued output to the peer as far as it takes it without blocking. Main thread. */
void chardev_flush(struct chardev *c);
size_t chardev_queued(struct chardev *c); /* bytes of output still queued */
/* Have writable() called after the next attempt to send what is queued, although nothing was refused. Main thread. */
void chardev_ask_writable(struct chardev *c);
/* can_receive() grew: resume reading. Any thread, front end's lock held. */
void chardev_accept_input(struct chardev *c);
/* Line settings reach real serial ports; others ignore them. Any thread. */
struct chardev_line {
	uint32_t baud;
	uint8_t data_bits, stop_bits;
	char parity; /* N O E */
};
void chardev_set_line(struct chardev *c, const struct chardev_line *line);
/* The guest sends a break: real serial ports do; telnet peers see IAC BREAK. Any thread. */
void chardev_send_break(struct chardev *c);
/* The operator sends a break to the guest (QMP chardev-send-break): event(BREAK). Main thread. */
void chardev_inject_break(struct chardev *c);
void chardev_set_open(struct chardev *c, bool guest_open); /* virtio-serial ports; attach implies open */

const char *chardev_id(const struct chardev *c);           /* a mux port has its mux' */
const char *chardev_options(const struct chardev *c);      /* the -chardev text that opens it again */
const char *chardev_backend_name(const struct chardev *c); /* "socket", "pty", ... */
/* As query-chardev prints it: "pty:/dev/pts/3", "unix:/x,server=on", "disconnected:unix:/x,server=on". Valid until the
   next call for the same chardev. Main thread. */
const char *chardev_filename(struct chardev *c);
bool chardev_is_shared(const struct chardev *c);     /* a port of a mux: others write to the same terminal */
bool chardev_wants_monitor(const struct chardev *c); /* "mon:..." in the old spelling: a monitor is to share it */
bool chardev_is_open(const struct chardev *c);       /* peer connected */
bool chardev_frontend_open(const struct chardev *c); /* the front end is there: attached, and not closed by the guest */

/*
 * -chardev BACKEND,id=..,... (first option: "backend"). May block only for server sockets with wait=on, which is what
 * wait=on asks for. NULL with a message.
 */
struct chardev *chardev_open(struct opts *o, struct err *e);
/*
 * The old "-serial DEV" spellings: stdio, mon:DEV, pty, unix:PATH[,server=on][,wait=off], tcp:[HOST]:PORT[,...],
 * telnet:HOST:PORT[,...], file:PATH, pipe:PATH, null, /dev/ttyS0; "chardev:ID" gives the existing one. "none" returns
 * NULL and records no error.
 */
struct chardev *chardev_open_legacy(const char *id, const char *text, struct err *e);
void chardev_close(struct chardev *c); /* flushes what goes without blocking; NULL-safe; not while claimed */
void chardev_close_all(void);          /* at exit, after the machine has gone */
/* QMP chardev-remove: QEMU's texts. */
int chardev_remove(const char *id, struct err *e);
/*
 * QMP chardev-change: another back end for the same id, under the front end that uses it, which must have `replaced`.
 * What was not sent or not received yet goes over to the new one. On failure the old one stays. QEMU's texts.
 */
struct chardev *chardev_change(struct opts *o, struct err *e);
struct chardev *chardev_find(const char *id);       /* NULL: none. Main thread */
struct chardev *chardev_next(struct chardev *prev); /* iterate; NULL starts; mux ports are not listed */
/* Backends by name, for query-chardev-backends and -chardev help: NULL past the end. */
const char *chardev_backend_at(size_t i, const char **help, const struct prop **props);

/* Ring buffer (-chardev ringbuf) for QMP ringbuf-read/-write; -EINVAL if c is none. Main thread. Read: oldest first,
   takes them out. Write: as if the guest had, the oldest are overwritten. Return bytes. */
ssize_t chardev_ring_read(struct chardev *c, void *buf, size_t len);
ssize_t chardev_ring_write(struct chardev *c, const void *buf, size_t len);

/* Restore the terminal; called on every exit path. Async-signal-safe, idempotent. */
void chardev_restore_terminal(void);
/* Ctrl-A x on a mux: what the owner of the machine does. Main thread. */
void chardev_on_quit(void (*fn)(void *opaque), void *opaque);

/* ---- control sockets ---- */
/* fds received with SCM_RIGHTS since the last call (QMP getfd/add-fd); ownership passes to the caller. Returns count.
 */
int chardev_take_fds(struct chardev *c, int *fds, int max);
/*
 * A client's socket that is opened once the main loop runs connects meanwhile. fn is called once: e NULL, connected;
 * else why not, and c has no peer (fn may close it), or that c was closed (ECANCELED). False: c is not connecting.
 */
bool chardev_when_connected(struct chardev *c, void (*fn)(void *opaque, const struct err *e), void *opaque);
/* Kick the peer out (protocol violations). A server socket then listens again. Main thread. */
void chardev_disconnect(struct chardev *c);
/*
 * A listening socket serves several peers at once: each accepted connection becomes a chardev of its own, handed to
 * on_peer, already claimed; the callee attaches and calls chardev_close() after the CLOSED event (not from inside a
 * callback: post it). At most max_peers at a time, others wait in the kernel's queue. -ENOTSUP if c does not listen.
 */
int chardev_serve(struct chardev *c, unsigned max_peers, void (*on_peer)(void *opaque, struct chardev *peer),
		  void *opaque);

#endif
