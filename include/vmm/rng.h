/*
 * Sources of random bytes for devices: objects of parent "rng-backend" (-object rng-random, rng-builtin). Several
 * devices may use one. Implementation: src/machine/rng.c. Main loop's thread, except rng_wait_init().
 */
#ifndef VMM_RNG_H
#define VMM_RNG_H

#include "vmm/object.h"
#include "vmm/loop.h"

struct rng;

/* NULL with a message. Release with rng_release(). */
struct rng *rng_claim(const char *id, const char *owner_property, struct err *e);
/* Its own rng-builtin, for a device whose user named none. */
struct rng *rng_new_builtin(void);
void rng_release(struct rng *r); /* NULL-safe */

/* Up to len bytes; never blocks. 0: none at the moment, see rng_wait(). */
size_t rng_read(struct rng *r, void *buf, size_t len);

/* Somebody who found no bytes: bh is scheduled once when there may be some. w is its owner's, zeroed at first, and
   cancelled before it goes; both functions may be called at any time. */
struct rng_wait {
	struct bh *bh;
	struct rng_wait *next;
	bool waiting;
};
void rng_wait(struct rng *r, struct rng_wait *w);
void rng_wait_cancel(struct rng *r, struct rng_wait *w);

#endif
