/*
 * Character backends: the inside of src/chardev/. One backend per file, one `struct chardev_ops` each; chardev.c owns
 * queues, logging, flow control and the front end, so that a backend only moves bytes.
 *
 * Everything here runs on the main thread unless it says otherwise.
 */
#ifndef VMM_CHARDEV_BACKEND_H
#define VMM_CHARDEV_BACKEND_H

#include <stdatomic.h>
#include "vmm/chardev.h"
#include "vmm/clock.h"

/* A byte queue that starts again at offset 0 whenever it runs empty, so that it touches few pages. */
struct byte_ring {
	uint8_t *data;
	uint32_t cap, head, len;
};
void byte_ring_init(struct byte_ring *r, uint32_t cap); /* memory is allocated by the first put */
void byte_ring_free(struct byte_ring *r);
uint32_t byte_ring_put(struct byte_ring *r, const void *buf, uint32_t len); /* returns what fitted */
/* First contiguous piece at `skip` bytes from the front; NULL and 0 when there is none. */
const uint8_t *byte_ring_peek(const struct byte_ring *r, uint32_t skip, uint32_t *len);
void byte_ring_drop(struct byte_ring *r, uint32_t len); /* len <= r->len */
uint32_t byte_ring_get(struct byte_ring *r, void *buf, uint32_t len);
void byte_ring_grow(struct byte_ring *r, uint32_t cap); /* cap >= r->cap */

struct chardev_ops {
	const char *name;
	const char *alias; /* second name accepted, or NULL */
	const char *help;
	const struct prop *props; /* of the instance, first CHARDEV_COMMON_PROPS */
	size_t size;              /* of the instance; struct chardev is its first member */

	/* Options are in place: open. Releases what it took on failure. Calls chardev_opened() if there is a peer. */
	int (*open)(struct chardev *c, struct err *e);
	void (*close)(struct chardev *c);
	/*
	 * Take up to len bytes without blocking: > 0 taken; 0 would block, and the backend calls chardev_output_ready()
	 * once it no longer does; < 0 the peer is gone or broken: core throws away what is queued, but for the log, and
	 * calls gone or disconnect. write itself never calls chardev_closed().
	 */
	ssize_t (*write)(struct chardev *c, const uint8_t *buf, size_t len);
	/* There is room for input (chardev_input_room() > 0), or no longer: start or stop reading. May be NULL. */
	void (*want_input)(struct chardev *c, bool on);
	/* Optional. */
	void (*set_line)(struct chardev *c, const struct chardev_line *line);
	void (*send_break)(struct chardev *c);
	void (*describe)(struct chardev *c, char *buf, size_t size); /* default: the backend's name */
	void (*gone)(struct chardev *c); /* writing failed; NULL: disconnect, else take what it still sent first */
	void (*disconnect)(struct chardev *c); /* drop the peer, wait for the next one */
	int (*take_fds)(struct chardev *c, int *fds, int max);
	bool (*connecting)(const struct chardev *c); /* the only attempt to reach the peer is under way */
	int (*serve)(struct chardev *c, unsigned max_peers, void (*on_peer)(void *, struct chardev *), void *opaque);
	bool discards; /* output goes nowhere: no need to queue it */
	bool no_mux;
};

#define MUX_MAX_PORTS 4

struct mux;

struct chardev {
	const struct chardev_ops *ops;
	/* Options common to all backends. */
	char *id, *logfile;
	bool mux_option, logappend;
	bool wants_monitor;

	struct chardev *next;
	bool listed;   /* in chardev_next()'s list */
	char *owner;   /* claimed by */
	char *options; /* as given */
	char description[512];

	/* Front end; of a mux: of each port. */
	struct chardev_frontend fe;
	void *fe_opaque;
	pthread_mutex_t *fe_lock;
	bool attached;
	atomic_bool fe_open;
	bool want_writable; /* under out_lock of the base */
	struct bh opened_bh;

	/* Output: any thread puts under out_lock, the main thread takes. */
	pthread_mutex_t out_lock;
	struct byte_ring out;
	uint32_t logged;  /* bytes at the front of `out` that are in the log file already */
	bool out_blocked; /* the backend said "would block" */
	bool stalled;     /* ... for too long: drop instead of refusing */
	uint64_t dropped;
	uint64_t dropped_log_ns;
	struct bh out_bh;
	struct timer stall_timer, flush_timer;
	uint64_t flushed_ns; /* VCLOCK_REAL time of the last flush */
	int log_fd;
	bool log_failed;

	/* Input: main thread only, but for the flag. */
	struct byte_ring in;
	atomic_bool in_pending; /* bytes wait in `in`, or reading is switched off */
	bool input_on, delivering;
	struct bh in_bh;

	atomic_bool open;                                     /* a peer is there */
	void (*connected)(void *opaque, const struct err *e); /* chardev_when_connected() */
	void *connected_opaque;

	struct chardev_line line; /* under out_lock: wanted line settings and break, carried out by out_bh */
	bool line_changed, break_wanted;

	struct mux *mux;          /* base of a mux */
	struct chardev *mux_base; /* port of a mux */
};

#define CHARDEV_COMMON_PROPS                                                                           \
	{.name = "id",                                                                                 \
	 .type = PROP_STR,                                                                             \
	 .offset = offsetof(struct chardev, id),                                                       \
	 .help = "name for -serial chardev:ID, -device ...,chardev=ID"},                               \
		{.name = "mux",                                                                        \
		 .type = PROP_BOOL,                                                                    \
		 .offset = offsetof(struct chardev, mux_option),                                       \
		 .help = "share between several front ends, with Ctrl-A escapes"},                     \
		{.name = "logfile",                                                                    \
		 .type = PROP_STR,                                                                     \
		 .offset = offsetof(struct chardev, logfile),                                          \
		 .help = "copy of all output"},                                                        \
	{                                                                                              \
		.name = "logappend", .type = PROP_BOOL, .offset = offsetof(struct chardev, logappend), \
		.help = "append to the log file instead of replacing it"                               \
	}

/* ---- core, called by backends ---- */
/* Peer came or went. Closed: queued output is thrown away. */
void chardev_opened(struct chardev *c);
/* What became of an attempt to connect, e: it failed. c may be closed when this returns. */
void chardev_connected(struct chardev *c, const struct err *e);
void chardev_closed(struct chardev *c);
/* Bytes from the peer; len <= chardev_input_room(). */
void chardev_input(struct chardev *c, const uint8_t *buf, size_t len);
size_t chardev_input_room(const struct chardev *c);
/* The peer has gone and what it sent is still in the kernel: room for more, bounded; false if it cannot grow. */
bool chardev_input_grow(struct chardev *c);
void chardev_break_received(struct chardev *c);
void chardev_output_ready(struct chardev *c);

/* ---- core, called by change.c ---- */
/* As chardev_open(), but not in the list, and its id may be taken. */
struct chardev *chardev_make(struct opts *o, struct err *e);
void chardev_list(struct chardev *c);
void chardev_unlist(struct chardev *c);
void chardev_fe_lock(struct chardev *c); /* the front end's, if it has one */
void chardev_fe_unlock(struct chardev *c);

/* ---- core, called by mux.c ---- */
size_t chardev_queue_locked(struct chardev *base, const void *buf, size_t len); /* out_lock held */
void chardev_schedule_flush(struct chardev *base);
void chardev_event_to(struct chardev *port, enum chardev_event ev);
/* For serve(): a chardev that is not listed and was made by a backend. */
struct chardev *chardev_new(const struct chardev_ops *ops, const char *id);
void chardev_free(struct chardev *c);

/* ---- mux.c ---- */
int mux_create(struct chardev *base);
void mux_destroy(struct chardev *base);
struct chardev *mux_claim(struct chardev *base, const char *owner, struct err *e);
void mux_release(struct chardev *port);
/* Filter escapes out of input; appends the rest to base->in. */
void mux_input(struct chardev *base, const uint8_t *buf, size_t len);
struct chardev *mux_focus(struct chardev *base);                               /* the port input goes to, or NULL */
struct chardev *mux_port(struct chardev *base, unsigned i);                    /* attached or not; NULL past the end */
size_t mux_write_locked(struct chardev *port, const uint8_t *buf, size_t len); /* base's out_lock held */

/* ---- fdio.c: one or two descriptors as a backend ---- */
struct fdio {
	struct chardev *c;
	int in_fd, out_fd; /* may be equal; -1: none */
	struct watch *in_watch, *out_watch;
	struct bh in_bh; /* regular files, which epoll refuses */
	bool in_on, out_on, in_regular;
	/* End of input; input is off already. With in_fd == out_fd it must call fdio_stop(). May be NULL otherwise. */
	void (*eof)(struct chardev *c);
};
/* The fds must be non-blocking (or regular files) and stay the caller's to close, after fdio_stop(). */
int fdio_start(struct fdio *f, struct chardev *c, int in_fd, int out_fd, void (*eof)(struct chardev *), struct err *e);
void fdio_stop(struct fdio *f);
void fdio_want_input(struct fdio *f, bool on);
ssize_t fdio_write(struct fdio *f, const uint8_t *buf, size_t len);

/* ---- tty.c ---- */
struct termios;
void tty_make_raw(struct termios *t, bool keep_output_processing);
int tty_set_line(int fd, const struct chardev_line *line);

/* ---- telnet.c: RFC 854 as far as a terminal server needs it ---- */
struct telnet {
	uint8_t state;
	uint8_t command;
};
extern const uint8_t telnet_greeting[];
extern const size_t telnet_greeting_len;
/* Remove commands from buf in place; returns what is left. *brk: a break was among them. */
size_t telnet_filter(struct telnet *t, uint8_t *buf, size_t len, bool *brk);

extern const struct chardev_ops chardev_null_ops, chardev_ringbuf_ops, chardev_file_ops, chardev_pipe_ops,
	chardev_stdio_ops, chardev_pty_ops, chardev_socket_ops, chardev_serial_ops;

#endif
