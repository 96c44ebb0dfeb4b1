/*
 * Regions: what sits where in port and memory space.
 *
 * A device class lists its regions; an instance has one `struct region` for each, in the same order. Enabled regions
 * are visible to vCPUs. Where regions of the memory space overlap the higher priority wins, piecewise (PAM and SMRAM
 * windows over VGA over RAM ...); the map (src/machine/) keeps the flattened result: a sorted immutable array for MMIO
 * dispatch, a 64 K index for ports, and the list of KVM memory slots for RAM and ROM pieces.
 *
 * A handler runs with the device's lock held, on a vCPU thread or the main thread. The map has already bounded the
 * access: offset + size <= region size, size is 1, 2, 4 or 8 and within min_access..max_access (other accesses are
 * split or, if smaller than min_access, widened on reads and done read-modify-write-free as zero-extended writes never
 * happen: they are dropped with a guest log). A handler must not block, sleep or do I/O.
 */
#ifndef VMM_REGION_H
#define VMM_REGION_H

#include <stdbool.h>
#include "vmm/err.h"

struct device;
struct region;
struct ram_block;

enum region_space { SPACE_PIO, SPACE_MMIO };
enum region_kind {
	REGION_IO,  /* every access calls ops */
	REGION_RAM, /* backed by a RAM block: guest reads and writes without an exit */
	REGION_ROM, /* backed by a RAM block, read-only to the guest; writes go to ops->write if set, else ignored */
};

struct region_ops {
	/* Value in the low `size` bytes. Unimplemented bits read as the data sheet says. */
	uint64_t (*read)(struct device *dev, struct region *r, uint64_t offset, unsigned size);
	void (*write)(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size);
	/*
	 * Optional, string I/O on ports (REP INS/OUTS): transfer up to `count` items of `size` bytes at `offset` from
	 * or to buf; returns how many it took (0: use the single handlers for one item, then ask again).
	 */
	uint32_t (*read_string)(struct device *dev, struct region *r, uint64_t offset, void *buf, unsigned size,
				uint32_t count);
	uint32_t (*write_string)(struct device *dev, struct region *r, uint64_t offset, const void *buf, unsigned size,
				 uint32_t count);
	uint8_t min_access; /* 0 = 1 */
	uint8_t max_access; /* 0 = 4 */
};

/* Class side: describes a region. */
struct region_desc {
	const char *name;
	enum region_space space;
	enum region_kind kind;
	uint64_t base;         /* where it sits by default; ignored for BARs */
	uint64_t size;         /* bytes; 0: the instance sets region->size in create (e.g. VRAM size option) */
	const char *base_prop; /* name of an integer property that gives the base ("iobase"); NULL: base */
	uint32_t base_offset;  /* added to base_prop's value */
	int bar;               /* 0..5: a PCI BAR; REGION_NOT_BAR otherwise */
	int priority;          /* 0 for devices, 1 overlays; guest RAM is -10; RAM windows of the host bridge 5 */
	bool disabled;         /* not mapped at settle; the device maps it with region_enable() */
	/* Writes to the first so many bytes may come late, as long as they come before any other access of the same
	   vCPU: they need no exit. For what has no effect that the guest could wait for. region_hurry_writes() where
	   somebody else looks. */
	uint32_t coalesced;
	const struct region_ops *ops;
};
#define REGION_NOT_BAR (-1)

/* Instance side. Fields are private to the map except where noted. */
struct region {
	const struct region_desc *desc;
	struct device *dev;
	uint64_t base; /* read-only for devices; use region_move() */
	uint64_t size; /* a device may set it in create */
	bool enabled;
	struct ram_block *ram; /* REGION_RAM / REGION_ROM: set in create */
	uint64_t ram_offset;   /* of the region's first byte in the block */
	bool log_dirty;        /* RAM: track writes (ram_dirty_*), e.g. a frame buffer */
	enum region_kind kind; /* starts as desc->kind; region_set_kind() */
};

/* Map changes: take effect for all vCPUs before they run the guest again... the calling vCPU at once. Any thread,
   called with the device's lock held (the map's lock is a leaf below device locks). Cheap when nothing changes. */
void region_enable(struct region *r, bool on);
void region_move(struct region *r, uint64_t base);
/* Have late writes delivered soon; they may still be on their way on return. Leaf, any thread. */
void region_hurry_writes(struct device *dev);
/* IO <-> RAM <-> ROM with a window into a block (PAM, VGA chain-4, ROM shadowing). */
void region_set_kind(struct region *r, enum region_kind kind, struct ram_block *ram, uint64_t ram_offset);
/* Bracket several changes so that the map is rebuilt once. Nestable. */
void region_batch_begin(struct device *dev);
void region_batch_end(struct device *dev);

/*
 * RAM blocks: guest RAM, VRAM, ROM images. memfd-backed, zero-filled, part of the migration stream (by name).
 * `size` is rounded up to the page size.
 */
/* In create(); the board's, which frees it with the device. NULL with a message. */
struct ram_block *ram_block_new(struct device *dev, const char *name, uint64_t size, struct err *e);
void *ram_block_ptr(struct ram_block *rb);           /* host address, for as long as the block is there */
uint64_t ram_block_size(const struct ram_block *rb); /* bytes, rounded up */
/*
 * Pages written since the last call, by guest or device, for blocks with log_dirty regions (frame buffers):
 * sets bit n of bitmap for page n of [offset, offset+len) and clears the log. Main thread.
 */
void ram_block_fetch_dirty(struct ram_block *rb, uint64_t offset, uint64_t len, unsigned long *bitmap);
/* The device itself wrote to the block. Leaf, any thread. */
void ram_block_mark_dirty(struct ram_block *rb, uint64_t offset, uint64_t len);

#endif
