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
#include <sys/types.h>
#include <sys/uio.h>
#include "vmm/err.h"
#include "vmm/prop.h"

struct block;
struct block_node;
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
	/* private to src/block; need no initialisation */
	struct block *block;     /* whose statistics it counts in; NULL: a driver's own request */
	struct block_node *node; /* whose engine holds it */
	struct block_req *next;
	int ret;
	bool invalid; /* refused before it was tried */
	bool stable;  /* durable when done: fua, or the write cache is off */
	uint64_t submit_ns;
	uint64_t scratch[8]; /* an engine's control block */
};

/* Start a request. It stays the caller's, who keeps it and its iov until done(). */
void block_submit(struct block *b, struct block_req *req);
/* Try to cancel: a request not yet started completes with -ECANCELED, others as usual. Any thread. */
void block_cancel(struct block *b, struct block_req *req);
/* Synchronous helpers for start-up, tests and tools: main thread only, no device lock held, run the loop until done.
   Any offset and length inside the image. */
int block_pread(struct block *b, uint64_t offset, void *buf, size_t len);
int block_pwrite(struct block *b, uint64_t offset, const void *buf, size_t len);
int block_flush_sync(struct block *b);

/* Geometry and properties. Size in bytes; that of an odd-sized image is rounded up to 512, as QEMU does: the rest of
   the last sector reads as zeroes, and writing it grows the file. 0 without medium. */
uint64_t block_size(const struct block *b);
bool block_readonly(const struct block *b);            /* the image was opened so */
bool block_inserted(const struct block *b);            /* a medium is present */
const char *block_id(const struct block *b);           /* drive id ("ide0-hd0") or node name */
const char *block_filename(const struct block *b);     /* "" when empty */
bool block_is_cdrom(const struct block *b);            /* media=cdrom */
uint32_t block_physical_sector(const struct block *b); /* 512 or 4096 */
bool block_write_cache(const struct block *b);         /* writeback: guest must flush */
void block_set_write_cache(struct block *b, bool on);  /* any thread, device's lock held; later writes are durable */
bool block_discard_enabled(const struct block *b);     /* discard=unmap */
const char *block_serial(const struct block *b);       /* -drive serial=, for devices without one; NULL: none */
unsigned block_inflight(const struct block *b);        /* requests submitted and not done; any thread */

/* Error policy as given by werror=/rerror= (QEMU's names; default report, werror: enospc). */
enum block_on_error { BLOCK_ERR_REPORT, BLOCK_ERR_IGNORE, BLOCK_ERR_STOP, BLOCK_ERR_ENOSPC };
enum block_error_action { BLOCK_ACTION_REPORT, BLOCK_ACTION_IGNORE, BLOCK_ACTION_STOP };
/* The policy in force. Any thread. */
enum block_on_error block_on_read_error(const struct block *b);
enum block_on_error block_on_write_error(const struct block *b);
/* werror= and rerror= of the device, which go before the drive's. Main thread, in create(). */
void block_set_on_error(struct block *b, enum block_on_error read, enum block_on_error write);
/* What the last failed request that stopped the guest left behind: 0 ok, 1 failed, 2 no space; cleared when it goes on.
 */
unsigned block_io_status(const struct block *b);
void block_reset_io_status(void); /* of all drives: the guest goes on. Main thread */
/* What the device does with a failed request (err_no > 0): STOP means keep the request, ask
   machine_request_stop_on_io_error(), retry in resume(). Emits the BLOCK_IO_ERROR event. Leaf. */
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
	void (*set_tray)(void *opaque, bool open); /* operator moves the tray; NULL for all three: no tray (floppy) */
	/* The image has another size now (block_resize). Optional; a device with `changed` NULL is not removable. */
	void (*resized)(void *opaque);
};
/* In create(). qdev_id: the device's id as the user gave it, or "": names the drive in QMP and events; copied. ops and
   opaque stay the device's, until block_release(). */
void block_set_media_ops(struct block *b, const struct block_media_ops *ops, void *opaque, pthread_mutex_t *lock,
			 const char *qdev_id);
/* Operator's side (control room). QEMU's semantics and error texts. Main thread. */
int block_eject(struct block *b, bool force, struct err *e);
/* blockdev-change-medium: opens the image first, so that on failure the old medium stays. read_only_mode: "retain"
   (or NULL), "read-only", "read-write"; format NULL: that of -drive, else probed. */
int block_change_medium(struct block *b, const char *filename, const char *format, const char *read_only_mode,
			bool force, struct err *e);
/* blockdev-open-tray and -close-tray. A locked tray is asked to open, and opens at once with force. */
int block_open_tray(struct block *b, bool force, struct err *e);
int block_close_tray(struct block *b, struct err *e);
int block_remove_medium(struct block *b, struct err *e); /* blockdev-remove-medium: the tray must be open */
/* blockdev-insert-medium: a -blockdev node that nobody uses, into an empty drive with its tray open. */
int block_insert_medium(struct block *b, const char *node_name, struct err *e);
bool block_is_removable(const struct block *b);   /* its device takes media out, or it has none and media=cdrom */
bool block_has_tray(const struct block *b);       /* floppy drives have none */
bool block_tray_is_open(const struct block *b);   /* false without a tray */
bool block_is_locked(const struct block *b);      /* the guest locked the tray */
const char *block_qdev_id(const struct block *b); /* of the device that registered media operations, or "" */
/* The front end moved its tray: emits DEVICE_TRAY_MOVED. Leaf. */
void block_tray_moved(struct block *b, bool open);

/*
 * Opening. `o` holds the options of one -drive; see block_drive_props for the rows. An empty file gives an empty
 * removable drive. Images are locked (OFD locks at the same bytes as QEMU's raw driver, so that a QEMU and a vmm
 * exclude each other too: a second writer is refused by name). The machine's -snapshot is snapshot=on in `o`. NULL with
 * a message. Main thread.
 */
struct block *block_open(struct opts *o, struct err *e);
/* The same for -blockdev and QMP blockdev-add (block_blockdev_props): "driver" names a format or a protocol, "file" is
   another node's name or file.driver, file.filename ... of one to be made. */
struct block *block_open_blockdev(struct opts *o, struct err *e);
extern const struct prop block_drive_props[], block_blockdev_props[];
/* The option text that opens it again, with its name, place and present medium spelled out; *drive: for -drive, else
   for -blockdev. malloc'ed; NULL: a device made it for itself. */
char *block_describe(const struct block *b, bool *drive);
/* A CD-ROM drive without name or medium, for a device that was given none (-device ide-cd): claimed by `owner`, whose
   id names it in QMP; the device closes it. Main thread. */
struct block *block_open_empty_cdrom(const char *owner);
/*
 * I/O limits, as QEMU's throttling.*: averages per second, burst rates with their lengths in seconds, and how large an
 * operation counts as one (0: any). Drives of one group share them; group NULL: the drive's own, or the one it is in.
 */
enum { BLOCK_BPS, BLOCK_BPS_RD, BLOCK_BPS_WR, BLOCK_IOPS, BLOCK_IOPS_RD, BLOCK_IOPS_WR, BLOCK_LIMIT_KINDS };
struct block_limits {
	uint64_t avg[BLOCK_LIMIT_KINDS], max[BLOCK_LIMIT_KINDS],
		max_length[BLOCK_LIMIT_KINDS]; /* max_length: at least 1 */
	uint64_t iops_size;
};
int block_set_limits(struct block *b, const struct block_limits *l, const char *group,
		     struct err *e);                                                    /* QEMU's texts */
const struct block_limits *block_get_limits(const struct block *b, const char **group); /* NULL: never had any */
bool block_limits_any(const struct block_limits *l);                                    /* they limit something */
/* Pass on at once what waits because of limits: somebody waits for all requests to end. Main thread. */
void block_release_throttled(void);

/* What device_claim_block() does: a drive for `owner`'s use. A -blockdev node gets a drive of its own, which
   block_release() closes; the node stays the operator's. */
struct block *block_attach(const char *id, const char *owner, struct err *e);
/* QMP blockdev-del: close a -blockdev node that nobody uses. QEMU's texts. */
int block_delete_node(const char *name, struct err *e);
/*
 * QMP blockdev-reopen: other options for n nodes of -blockdev, all or none. o[i] as for block_open_blockdev(); what is
 * not given goes back to its default. The guest must not run meanwhile. QEMU's texts.
 */
int block_reopen(struct opts *o, size_t n, struct err *e);
bool block_is_node(const struct block *b); /* a -blockdev node, not a drive */
/* QMP block_resize: a regular file grows or shrinks, a block device must have the size already. A multiple of 512. */
int block_resize(struct block *b, uint64_t size, struct err *e);
/* QMP block-set-write-threshold: BLOCK_WRITE_THRESHOLD once a write ends beyond that many bytes; 0: never. */
int block_set_write_threshold(const char *node_name, uint64_t bytes, struct err *e);
/* An empty file for a new image: its fd, locked against other users of the image; one that exists is cut to nothing.
   Path as fdset_open(). */
int block_create_file(const char *path, struct err *e);
void block_close(struct block *b);               /* waits for what is in flight, releases locks; NULL-safe */
int block_drain(struct block *b);                /* main thread: run the loop until nothing is in flight */
struct block *block_find(const char *id);        /* by drive id or node name; NULL */
struct block *block_find_node(const char *name); /* also by the name of the node in it */
struct block *block_next(struct block *prev);    /* iterate over all in order of opening; NULL starts */
void block_close_all(void);                      /* at exit, after the machine has gone; ends the worker threads */

/* Exclusive use by one device; owner: its id, shown in messages. */
int block_claim(struct block *b, const char *owner, struct err *e);
void block_release(struct block *b);            /* also forgets the media operations; NULL-safe */
const char *block_owner(const struct block *b); /* NULL: nobody's */

/* Where -drive wants it (if=, index=, bus=, unit=), resolved as QEMU does: for the board's sugar. */
enum block_interface {
	BLOCK_IF_NONE,
	BLOCK_IF_IDE,
	BLOCK_IF_SCSI,
	BLOCK_IF_FLOPPY,
	BLOCK_IF_PFLASH,
	BLOCK_IF_MTD,
	BLOCK_IF_SD,
	BLOCK_IF_VIRTIO,
	BLOCK_IF_XEN
};
struct block_place {
	int interface; /* enum block_interface; NONE for -blockdev */
	int32_t bus, unit;
};
struct block_place block_place(const struct block *b);

/* For query-block and query-named-block-nodes. Strings live as long as the medium is in. */
struct block_info {
	const char *node_name; /* "#block001" when generated; "" without medium */
	const char *driver;    /* format: "raw" */
	const char *protocol;  /* "file" | "host_device" */
	const char *filename;
	const char *detect_zeroes; /* "off" | "on" | "unmap" */
	const char *aio;           /* "threads" | "native" | "io_uring" */
	bool readonly, direct, no_flush, writeback, snapshot;
	bool is_drive;           /* from -drive; false: -blockdev */
	const char *parent_name; /* nodes: the one below; NULL: none */
	uint64_t size;
	uint64_t written_end; /* nodes and drives: end of the highest write so far */
	uint64_t write_threshold;
};
void block_get_info(const struct block *b, struct block_info *info);
bool block_node_at(size_t i, struct block_info *info); /* every node, also those without a name of their own */

/*
 * Handing images over to another process (migration). Inactive images are open but not locked, and writes to them fail
 * with -EPERM: of two processes only one can be active, whatever they believe. Main thread, nothing in flight.
 */
void block_start_inactive(void); /* before the first image is opened: a guest is yet to arrive */
bool block_active(void);         /* the images are ours to write */
/* Take every lock (and look at the sizes again: somebody else has written meanwhile). On failure all stay released,
   with the image named. Does nothing if active. */
int block_activate_all(struct err *e);
void block_inactivate_all(void); /* release every lock; flush first */
/*
 * Before a hand-over: could the other process take the locks? The one that has them marks its images with a number that
 * only the two know; the other then asks whether each of its (inactive) images is marked so, or else could be locked
 * now. -EAGAIN, the image named: somebody else has it. Images on file systems without locks and with locking=off pass.
 */
void block_mark_all(uint64_t mark, bool on);
int block_check_locks(uint64_t mark, struct err *e);

/* BLOCK_IO_ERROR and DEVICE_TRAY_MOVED go here (data: JSON object). The machine registers once; fn may be called on any
   thread under device locks: a leaf. */
void block_set_event_handler(void (*fn)(void *opaque, const char *name, const char *data_json), void *opaque);
/* Called first on every worker thread: the sandbox applies the io profile. Set before the first request. */
void block_set_thread_hook(void (*fn)(void));

/* Bin i holds latencies up to 2^(10 + i) ns, the last one the rest. */
#define BLOCK_LATENCY_BINS 24
/*
 * Indexed by enum block_op. ops: that succeeded; errors: that failed on the medium; invalid: refused before they were
 * tried. time_ns is the sum of latencies from submit to done, of the successful and, with account_failed, the failed
 * ones.
 */
struct block_stats {
	uint64_t ops[5], bytes[5], errors[5], invalid[5], time_ns[5], max_ns[5];
	uint64_t latency[5][BLOCK_LATENCY_BINS];
	uint64_t last_access_ns; /* CLOCK_MONOTONIC; 0: never used */
	bool account_failed, account_invalid;
};
/* Any thread; each number is consistent in itself. */
void block_get_stats(const struct block *b, struct block_stats *s);

/* The histogram an operator asked for (QMP block-latency-histogram-set): bin i counts what took less than boundary[i]
   ns and not less than the one before. Only reads, writes and flushes have one. Main thread. */
struct block_histogram {
	size_t n; /* boundaries; n + 1 bins. 0: not asked for */
	const uint64_t *boundary, *bin;
};
struct block_histogram block_get_histogram(const struct block *b, enum block_op op);
/* n rising boundaries above 0; 0 takes it away. Counts start again. */
void block_set_histogram(struct block *b, enum block_op op, const uint64_t *boundary, size_t n);

#endif
