/*
 * A connection of a migration: bytes, records, deadlines, and a way to wake whoever waits. Used by migration threads,
 * which may wait; never by the main loop. One thread writes and one (maybe another) reads at a time.
 *
 * The descriptor is a stream socket, a pipe or a file, non-blocking where it can be; waiting is poll() on it and on the
 * session's cancel descriptor, so that a cancel ends every wait at once, also on a pipe.
 */
#ifndef VMM_MIGRATION_CHANNEL_H
#define VMM_MIGRATION_CHANNEL_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/uio.h>
#include "wire.h"

struct tls_stream;

/* Bandwidth limit, shared by the channels of a session. */
struct limiter {
	pthread_mutex_t lock;
	uint64_t bytes_per_s; /* atomic; 0: none */
	uint64_t ready_ns;    /* when the line is free again */
};

struct channel {
	int fd;
	int cancel_fd; /* an eventfd, readable: give up with -ECANCELED; borrowed */
	bool socket, one_way;
	bool only;         /* the destination was given it, it did not accept it: there can be no second */
	bool by_reference; /* channel_send_file() is cheaper than a copy: another host */
	bool local;        /* a unix socket: descriptors can be passed */
	struct tls_stream *tls;
	struct limiter *limit; /* NULL: none; borrowed */
	unsigned stall_ms;     /* no progress for so long is an error; 0: wait for ever */
	uint64_t deadline_ns;  /* whatever progress there is: give up then (monotonic); 0: never */
	uint32_t seq_out, seq_in;
	size_t low_water;         /* the socket's SO_RCVLOWAT, the reader's; 0: as it was made */
	uint64_t sent, received;  /* atomic */
	char peer[320];           /* for messages: "tcp:10.0.0.2:4444" */
	pthread_mutex_t out_lock; /* records written by several threads (answers) go out whole */
};

/* Takes fd. */
struct channel *channel_new(int fd, int cancel_fd, const char *peer);
void channel_free(struct channel *c); /* closes; NULL-safe */
/* End both directions now, from any thread: waits on it fail. The descriptor stays open until channel_free(). */
void channel_shutdown(struct channel *c);
void channel_stop_reading(struct channel *c); /* the same for reads only: what is wrong can still be said */

/* All or an error: -ECANCELED, -ETIMEDOUT, -EPIPE (the peer has gone) ... with a message that names the peer. */
int channel_send(struct channel *c, const struct iovec *iov, int n, struct err *e);
int channel_recv(struct channel *c, const struct iovec *iov, int n, struct err *e);
/* [offset, offset + len) of a memfd, without copying where the kernel can. */
int channel_send_file(struct channel *c, int fd, uint64_t offset, size_t len, struct err *e);
/* Wait until something can be read: 1, 0 after timeout_ms (-1: for ever), or an error. */
int channel_wait(struct channel *c, int timeout_ms, struct err *e);

/* Records. payload may be NULL with length 0. */
int channel_put(struct channel *c, enum wire_type type, uint16_t flags, const void *payload, uint32_t length,
		struct err *e);
int channel_put_text(struct channel *c, enum wire_type type, const char *text, struct err *e);
/* The next record's header; raw keeps its bytes for wire_check(). PINGs are swallowed. */
int channel_get_header(struct channel *c, struct wire_record *r, uint8_t raw[WIRE_HEADER], struct err *e);
/* Read r->hashed bytes of payload into a malloc'ed buffer (a zero byte behind it) and check them. max bounds r->length.
 */
int channel_get_payload(struct channel *c, const struct wire_record *r, const uint8_t raw[WIRE_HEADER], uint32_t max,
			uint8_t **payload, struct err *e);
int channel_send_preamble(struct channel *c, const struct wire_preamble *p, struct err *e);
int channel_recv_preamble(struct channel *c, struct wire_preamble *p, struct err *e);

uint64_t mono_ns(void);

#endif
