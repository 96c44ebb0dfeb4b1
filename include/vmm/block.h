/*
 * Block backends behind one request interface. A `struct block` is an opened image or device (a chain of format and
 * protocol later). Devices, control and migration use this header; implementation in src/block/.
 *
 * Threads: block_submit() from any thread, never blocks, does no file I/O on the caller's thread. `done` runs on the
 * main loop with req->lock held (the device's mutex). Every submitted request completes exactly once, also on errors
 * and close.
 */
#ifndef VMM_BLOCK_H
#define VMM_BLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/uio.h>
#include "vmm/err.h"
#include "vmm/prop.h"

struct block;
struct block_req;

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

struct block_req {
	enum block_op op;
	uint64_t offset;   /* bytes; multiples of 512 for guests; any for the format layers */
	uint64_t len;      /* bytes; must equal the sum of iov for READ/WRITE */
	struct iovec *iov; /* caller's, valid until done */
	int n_iov;
	bool fua; /* WRITE: stable when done */
	pthread_mutex_t *lock;
	/* ret: 0 or -errno (short transfers are completed or turned into errors by the backend) */
	void (*done)(struct block_req *req, int ret);
	void *opaque;
	/* private to the backend */
	struct block_req *next;
	void *engine;
	uint64_t submit_ns;
	uint64_t scratch[8];
};

void block_submit(struct block *b, struct block_req *req);
/* Try to cancel; the request still completes (maybe with -ECANCELED). */
void block_cancel(struct block *b, struct block_req *req);
/* Synchronous helpers for start-up, tests and tools: main thread only, run the loop until done. */
int block_pread(struct block *b, uint64_t offset, void *buf, size_t len);
int block_pwrite(struct block *b, uint64_t offset, const void *buf, size_t len);
int block_flush_sync(struct block *b);

/* Geometry and properties. size in bytes, rounded down to 512. */
uint64_t block_size(const struct block *b);
bool block_readonly(const struct block *b);
bool block_inserted(const struct block *b);            /* a medium is present */
const char *block_id(const struct block *b);           /* drive id ("ide0-hd0") or node name */
const char *block_filename(const struct block *b);     /* "" when empty */
bool block_is_cdrom(const struct block *b);            /* media=cdrom */
uint32_t block_physical_sector(const struct block *b); /* 512 or 4096 */
bool block_write_cache(const struct block *b);         /* writeback: guest must flush */
void block_set_write_cache(struct block *b, bool on);
unsigned block_inflight(const struct block *b);

/* Error policy as given by werror=/rerror= (QEMU's names; default report, werror: enospc). */
enum block_on_error { BLOCK_ERR_REPORT, BLOCK_ERR_IGNORE, BLOCK_ERR_STOP, BLOCK_ERR_ENOSPC };
enum block_error_action { BLOCK_ACTION_REPORT, BLOCK_ACTION_IGNORE, BLOCK_ACTION_STOP };
/* What the device does with a failed request: STOP means keep the request, ask machine_request_stop_on_io_error(),
   retry in resume(). Emits the BLOCK_IO_ERROR event. Leaf. */
enum block_error_action block_error_action(struct block *b, enum block_op op, int err_no);

/*
 * Removable media. The device registers its callbacks in create(); called on the main thread with `lock` held.
 * The front end owns the tray and the lock state.
 */
struct block_media_ops {
	void (*changed)(void *opaque, bool inserted);    /* after a medium was inserted or taken out */
	void (*eject_request)(void *opaque, bool force); /* operator asks a locked tray to open */
	bool (*tray_locked)(void *opaque);
	bool (*tray_open)(void *opaque);
	void (*set_tray)(void *opaque, bool open);
};
void block_set_media_ops(struct block *b, const struct block_media_ops *ops, void *opaque, pthread_mutex_t *lock,
			 const char *qdev_id);
/* Operator's side (control room). QEMU's semantics and error texts. Main thread. */
int block_eject(struct block *b, bool force, struct err *e);
int block_change_medium(struct block *b, const char *filename, const char *format, const char *read_only_mode,
			bool force, struct err *e);
int block_open_tray(struct block *b, bool force, struct err *e);
int block_close_tray(struct block *b, struct err *e);
/* The front end moved its tray: emits DEVICE_TRAY_MOVED. Leaf. */
void block_tray_moved(struct block *b, bool open);

/* Opening. `o` holds -drive/-blockdev options: file=, format=, cache=, aio=, readonly=, snapshot=, media=, id=, werror=
   ...; an empty file gives an empty removable drive. Images are locked (OFD locks as QEMU's raw driver: a second writer
   is refused by name). */
struct block *block_open(struct opts *o, struct err *e);
void block_close(struct block *b);            /* waits for what is in flight, releases locks; NULL-safe */
int block_drain(struct block *b);             /* main thread: run the loop until nothing is in flight */
struct block *block_find(const char *id);     /* by drive id or node name; NULL */
struct block *block_next(struct block *prev); /* iterate over all; NULL starts */

/* Exclusive use by one device; owner: its id, shown in messages. */
int block_claim(struct block *b, const char *owner, struct err *e);
void block_release(struct block *b);

struct block_stats {
	uint64_t ops[5], bytes[5], errors[5], time_ns[5];
};
void block_get_stats(const struct block *b, struct block_stats *s);

#endif
