/*
 * Memory that objects hold: memory-backend-ram, -memfd and -file (src/machine/memory_backend.c). Guest RAM lies in one
 * with -machine memory-backend=ID. Main thread.
 */
#ifndef VMM_MEMORY_BACKEND_H
#define VMM_MEMORY_BACKEND_H

#include "vmm/object.h"

struct memory_backend;

#define MACHINE_RAM_ID "pc.ram" /* guest RAM, and the object that -mem-path makes for it */

/* For the user `owner_property`; NULL with a message. A back end has one user. */
struct memory_backend *memory_backend_claim(const char *id, const char *owner_property, struct err *e);
void memory_backend_release(struct memory_backend *m);        /* the user lets go of it */
void *memory_backend_host(const struct memory_backend *m);    /* where it is mapped, until it is released */
uint64_t memory_backend_size(const struct memory_backend *m); /* bytes, whole pages */
int memory_backend_fd(const struct memory_backend *m);        /* mapped shared from offset 0 */

/*
 * Once the main loop runs, prealloc=on is left to who added the object, because it takes seconds: claim it if there is
 * something to do (else NULL), have a thread of its own populate it, release it; remove the object if that failed.
 */
struct memory_backend *memory_backend_claim_sparse(const char *id);
int memory_backend_populate(struct memory_backend *m, struct err *e); /* any thread */

/*
 * Allocate all of this mapping now. -ENOMEM where the host has not got so much, before anything is taken: the kernel
 * would rather end a process than refuse it memory. fd: its file, which nobody else writes to yet. Any thread.
 */
int memory_populate(int fd, void *host, uint64_t size, struct err *e);
bool memory_backend_prealloc(const struct memory_backend *m); /* allocated in advance */
/* Nobody else can have written to it, and it was made empty: not so for files with a name. */
bool memory_backend_is_ours(const struct memory_backend *m);

/* For query-memdev. */
struct memory_backend_info {
	uint64_t size;
	bool merge, dump, prealloc, share, reserve;
};
/* False: o is no memory back end. */
bool memory_backend_info(const struct object *o, struct memory_backend_info *out);

#endif
