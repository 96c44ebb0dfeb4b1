/* The protocol drivers `file` and `host_device`: what file.c (opening, dispatch) and file_io.c (system calls) share. */
#ifndef FILE_PRIVATE_H
#define FILE_PRIVATE_H

#include "src/block/block_private.h"

struct image_file {
	int fd;
	bool is_block;
	bool lock, lock_required;          /* as node_config */
	uint64_t bytes;                    /* exact size when opened */
	uint32_t align;                    /* O_DIRECT: offsets and lengths must be multiples; 1 without */
	uint32_t mem_align;                /* O_DIRECT: so must buffer addresses */
	const struct block_engine *engine; /* NULL: worker threads */
	/* Read-modify-write of parts of an `align` block (writers lock it) against plain writes (readers). Only when
	   align > 512, for which all writes go through the workers. */
	pthread_rwlock_t rmw_lock;
	uint64_t flushed_gen; /* atomic: node's write_gen at the last flush; without a write since, a flush is free */
	int flush_error;      /* atomic; sticky: after a failed fdatasync the page cache cannot be trusted */
	bool no_punch, no_zero_range; /* the file system refused */
	bool shrink_logged;
	/* Reads answered from the page cache at once; atomic. After misses the next `skip` reads do not try. */
	unsigned misses, skip;
};

/* Carry out req with system calls; 0 or -errno. Worker threads. */
int file_execute(struct block_node *n, struct block_req *req);
/* Read req without waiting for the disk. false: it must go the ordinary way. */
bool file_read_cached(struct block_node *n, struct block_req *req);
/* Can req go to the kernel as it is? */
bool file_aligned(const struct image_file *f, const struct block_req *req);

#endif
