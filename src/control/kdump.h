/*
 * A guest's memory as Linux' crash tools store it: the kdump-compressed format, header version 6 (makedumpfile's
 * IMPLEMENTATION and diskdump_mod.h, crash's diskdump.h), in makedumpfile's flattened form, which needs no seeking.
 * crash reads it as it is, `makedumpfile -R` lays it out flat.
 *
 * Pages of zeroes are stored once. Left out: VMCOREINFO (the guest does not tell us where its is).
 */
#ifndef VMM_CONTROL_KDUMP_H
#define VMM_CONTROL_KDUMP_H

#include "dump.h"

#define KDUMP_BOUND 8192 /* no compressor makes more of a page */

/* A compressor; each is a module, vmm-kdump-NAME.so, loaded with the first dump that wants it. */
struct kdump_codec {
	const char *name;
	uint32_t flag;                /* DUMP_DH_COMPRESSED_* */
	void *(*create)(void);        /* NULL: no memory */
	void (*destroy)(void *state); /* NULL-safe */
	/* One page into out (KDUMP_BOUND bytes); 0: it cannot be compressed. */
	size_t (*compress)(void *state, const uint8_t page[4096], uint8_t *out);
};
#define KDUMP_ZLIB   1
#define KDUMP_LZO    2
#define KDUMP_SNAPPY 4

/* All of d's memory to fd, in order: a pipe will do. 0, -ECANCELED or -errno with e. Any thread. */
int kdump_write(struct dump *d, struct work *w, int fd, const struct kdump_codec *codec, struct err *e);

#endif
