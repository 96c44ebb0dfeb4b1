/*
 * Inside the block room: nodes, drivers, engines.
 *
 * A `struct block` (what a device uses) has a root node. A node is one layer: a protocol (file, host_device) at the
 * bottom, a format (raw) on it, and with snapshot=on a temporary overlay on top. A request walks down with submit();
 * the layer that carries it out calls block_req_complete() from whatever thread it is on. A layer that must act on
 * completion (overlay, later qcow2) sends requests of its own and finishes the original when the last one is done.
 *
 * The way of a request: submitter -> engine (worker thread or kernel) -> completion queue -> one bottom half on the
 * main loop -> done().
 */
#ifndef BLOCK_PRIVATE_H
#define BLOCK_PRIVATE_H

#include <string.h>

#include "vmm/block.h"
#include "vmm/clock.h"
#include "vmm/loop.h"

enum block_aio { AIO_THREADS, AIO_NATIVE, AIO_IO_URING };
enum block_detect_zeroes { DETECT_ZEROES_OFF, DETECT_ZEROES_ON, DETECT_ZEROES_UNMAP };
enum { TRI_OFF, TRI_ON, TRI_UNSET }; /* values of PROP_ONOFFAUTO */

struct throttle_group;

/* The options of -drive and -blockdev; rows in options.c. */
struct block_opts {
	char *id, *node_name;
	char *file; /* -drive: file name; -blockdev: node name */
	char *format, *driver;
	char *filename;                                     /* -blockdev driver=file|host_device */
	char *file_driver, *file_filename, *file_node_name; /* file.* */
	char *cache, *serial;
	bool account_invalid, account_failed;
	int interface, media, aio, file_aio, werror, rerror, discard, detect_zeroes;
	int32_t index, bus, unit;
	int direct, no_flush, writeback;                                /* cache.*: off, on, unset */
	int read_only, auto_read_only, locking, file_locking, snapshot; /* off, on, unset */
	bool copy_on_read, force_share;
	struct block_limits limits;
	char *throttle_group;
};

/* What opening a node chain needs, after -drive's and -blockdev's spellings were reconciled. */
struct node_config {
	const char *filename;
	const char *protocol;  /* "file", "host_device"; NULL: by file type */
	const char *format;    /* NULL: probe */
	const char *node_name; /* of the top node; NULL: generate */
	const char *file_node_name;
	bool readonly, auto_readonly, direct, no_flush, unmap, snapshot;
	bool lock;
	bool lock_required; /* locking=on: fail if the file system has no locks */
	int aio, detect_zeroes;
};

struct block_driver {
	const char *name;
	/* Carry out or pass on; any thread; must end in block_req_complete() exactly once. */
	void (*submit)(struct block_node *n, struct block_req *req);
	/* Nothing is in flight. */
	void (*close)(struct block_node *n);
	/* Nothing is in flight; node sizes follow. Optional. */
	int (*resize)(struct block_node *n, uint64_t size, struct err *e);
	/*
	 * Other flags for the same file: readonly, direct, no_flush, unmap, aio, detect_zeroes of c. Nothing is in
	 * flight and nobody submits; on failure all is as it was. Optional.
	 */
	int (*reopen)(struct block_node *n, const struct node_config *c, struct err *e);
	/* Take what excludes other processes, and forget what they may have changed; or release it. Optional. */
	int (*activate)(struct block_node *n, struct err *e);
	void (*inactivate)(struct block_node *n);
	/* See block_mark_all(). Optional, all or none. */
	void (*mark)(struct block_node *n, uint64_t mark, bool on);
	int (*check_lock)(struct block_node *n, uint64_t mark, struct err *e);
};

struct block_node {
	const struct block_driver *drv;
	char name[32];
	char *filename;
	struct block_node *file; /* the layer below, or NULL */
	unsigned refs;
	uint64_t size; /* bytes, a multiple of 512 */
	bool readonly, probed, no_flush, unmap, direct;
	int aio, detect_zeroes;
	uint32_t physical_sector;
	uint64_t written_end; /* atomic: end of the highest write, of the requests this node's engine carried out */
	/* Where a write sets off BLOCK_WRITE_THRESHOLD, once; atomic, 0: nowhere. */
	uint64_t write_threshold;
	char threshold_name[32]; /* node-name of the event; changes only while the threshold is 0 */
	uint64_t write_gen;      /* atomic: completed writes of the requests this node's engine carried out */
	void *priv;
	struct block_node *next; /* list of all nodes, for names */
};

/* node.c */
struct block_node *node_next(struct block_node *prev); /* all nodes, newest first; NULL starts */
struct block_node *node_open(const struct node_config *c, struct err *e);
struct block_node *node_new(const struct block_driver *drv, const char *name, struct err *e); /* one reference */
struct block_node *node_ref(struct block_node *n);
void node_unref(struct block_node *n); /* NULL-safe; the last one closes, top to bottom */
struct block_node *node_find(const char *name);
/* NULL if the name is known here; otherwise records why it cannot be used. */
int format_check_name(const char *format, struct err *e);

/* Drivers; main thread. Each returns a node with one reference. */
struct block_node *file_open(const struct node_config *c, struct err *e);
struct block_node *file_open_temporary(uint64_t size, struct err *e); /* unlinked, sparse, in TMPDIR */
struct block_node *raw_open(struct block_node *file, const char *name, bool probed, struct err *e); /* takes `file` */
struct block_node *overlay_open(struct block_node *base, const char *name, struct err *e);          /* takes `base` */

/* probe.c: the format a header's magic shows ("qcow2"), or NULL when nothing claims it (raw). */
const char *probe_format(const uint8_t *head, size_t len);

/* lock.c: QEMU's image locks on fd. wait-free; -EAGAIN with a message naming the image; -ENOLCK: no locks here. */
int image_lock(int fd, bool write, const char *path, struct err *e);
void image_unlock(int fd);
int image_lock_test(int fd, bool write, const char *path, struct err *e); /* could it be locked? takes nothing */
int image_mark(int fd, uint64_t mark); /* be recognized by who knows the number; -errno */
bool image_is_marked(int fd, uint64_t mark);
void image_unmark(int fd, uint64_t mark);

/* block.c */
/* A request is done; any thread. Its done() runs later on the main loop. */
void block_req_complete(struct block_req *req, int ret);
/* The same from the main loop, at once. */
void block_req_finish(struct block_req *req, int ret);
void completions_init(void);
/* "letters, digits, '-', '.', '_', first a letter", as QEMU's ids. */
bool block_id_wellformed(const char *id);

struct block *block_new_anonymous(const char *owner);

/* attach.c */
int block_use_node(struct block *node, const char *user, struct err *e); /* -EBUSY: somebody else does */
void block_unuse_node(struct block *node);
void block_set_medium(struct block *b, struct block *node); /* the node's user is this drive; NULL: none, or no node */
void block_forget_medium(struct block *node);               /* it is about to be closed */

/* throttle.c */
bool throttle_hold(struct block *b, struct block_req *req); /* true: it waits, and is passed on later */
bool throttle_cancel(struct block *b, struct block_req *req);
void throttle_release(const struct block *b); /* NULL: all drives */
void throttle_close_all(void);

/* engine_threads.c: run work(node, req) on a worker; its result completes the request. Any thread. */
typedef int block_work_fn(struct block_node *n, struct block_req *req);
void pool_submit(struct block_node *n, struct block_req *req, block_work_fn *work);
bool pool_cancel(struct block_req *req); /* true: it was still queued, and is completed with -ECANCELED */
void pool_shutdown(void);                /* main thread, nothing queued: waits until all workers are gone */

/* The kernel's asynchronous engines: aligned READ and WRITE only, anything else goes to the pool. */
struct block_engine {
	const char *name;
	int (*start)(struct err *e); /* main thread; idempotent */
	void (*submit)(struct block_node *n, struct block_req *req, int fd);
	bool (*cancel)(struct block_req *req);
	void (*stop)(void); /* main thread, nothing in flight */
};
extern const struct block_engine engine_aio, engine_io_uring;
/* An engine could not finish a request the short way (short transfer): carry it out synchronously on a worker. */
void file_retry(struct block_req *req);

/* iov.c: the part of src from `skip` on, at most `len` bytes and `max` entries; returns entries, *got their bytes. */
int iov_slice(struct iovec *dst, int max, const struct iovec *src, int n, uint64_t skip, uint64_t len, uint64_t *got);
uint64_t iov_bytes(const struct iovec *iov, int n);
void iov_from_buf(const struct iovec *iov, int n, uint64_t skip, const void *buf, size_t len);
void iov_to_buf(const struct iovec *iov, int n, uint64_t skip, void *buf, size_t len);
void iov_zero(const struct iovec *iov, int n, uint64_t skip, uint64_t len);
bool iov_is_zero(const struct iovec *iov, int n);

/* options.c */
int options_parse(struct block_opts *bo, struct opts *o, bool drive, struct err *e);
void options_free(struct block_opts *bo);
int options_node_config(const struct block_opts *bo, bool drive, struct node_config *c, struct err *e);
bool options_writeback(const struct block_opts *bo);
const char *options_aio_name(int aio);
const char *options_detect_zeroes_name(int v);

/* The device's side of a drive. */
struct block {
	char id[64]; /* "" for -blockdev */
	struct block_node *root;
	struct block_opts opts;
	char *options; /* as given; NULL: a device made it for itself */
	bool from_drive, removable_hint;
	unsigned io_status;              /* atomic */
	struct throttle_group *throttle; /* atomic: set by the main thread */
	bool device_owned;               /* as anonymous, but its device closes it */
	bool anonymous;                  /* a device's own drive, without name: on a -blockdev node, or empty */
	struct block *medium;            /* whose node root is, if a -blockdev's */
	char *user;                      /* of a -blockdev node: the node above or the device; NULL: free */
	struct block_place place;
	char *owner;
	bool write_cache; /* changed under the device's lock */
	unsigned inflight;
	struct block_stats stats;
	struct { /* completions are on the main loop, as are those who ask */
		size_t n;
		uint64_t *boundary, *bin;
	} histogram[BLOCK_FLUSH + 1];
	const struct block_media_ops *media;
	void *media_opaque;
	pthread_mutex_t *media_lock;
	char qdev_id[64];
	struct block *next;
};
/* latency.c */
void latency_account(struct block *b, enum block_op op, uint64_t ns);
void latency_free(struct block *b);
void block_emit(const char *name, const char *json);

#endif
