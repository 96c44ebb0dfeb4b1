/*
 * A ring of bytes between two threads, and of frames within it (each with its length in front). Bounded; a frame goes
 * in or out whole. Any thread; each call takes the ring's own lock, a leaf.
 */
#ifndef NET_SLIRP_RING_H
#define NET_SLIRP_RING_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct ring {
	pthread_mutex_t lock;
	uint8_t *data;
	size_t size, head, used;
	bool refused; /* a put found no room and nothing was taken out since */
};

void ring_init(struct ring *r, size_t size);
void ring_destroy(struct ring *r);
size_t ring_used(struct ring *r);
size_t ring_room(struct ring *r);

/* As much as fits; returns it. */
size_t ring_put(struct ring *r, const void *buf, size_t len);
size_t ring_get(struct ring *r, void *buf, size_t len);

/* len: of the frame, the sum of iov. False: no room. *first: the ring was empty. */
bool ring_put_frame(struct ring *r, const struct iovec *iov, int n, size_t len, bool *first);
/*
 * The length of the frame taken out; 0: none; -EMSGSIZE: it did not fit and is gone. *was_full: a put had been refused
 * since the last get, and may be tried again.
 */
ssize_t ring_get_frame(struct ring *r, const struct iovec *iov, int n, bool *was_full);

#endif
