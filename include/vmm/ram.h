/*
 * Guest memory as migration and saving see it: blocks with a name, and which of their pages were written.
 * Implementation: src/machine/dirty.c. No block may be added or removed while dirty logging is on.
 */
#ifndef VMM_RAM_H
#define VMM_RAM_H

#include <stdbool.h>
#include "vmm/err.h"

struct board;

#define RAM_PAGE 4096ull

struct ram_view {
	const char *name; /* unique, the same in every process that has this machine: "pc.ram", "VGA/vram" */
	uint8_t *host;    /* a shared mapping of fd from offset 0 */
	uint64_t size;    /* bytes, a multiple of RAM_PAGE */
	int fd;           /* memfd; the board's; -1: a private mapping, see machine_ram_map_private() */
	bool main;        /* guest RAM proper */
	bool reserved;    /* allocated in advance on purpose (prealloc): stays allocated */
};
/* Block i in order of creation; false past the end. Any thread while no device comes or goes. */
bool machine_ram(struct board *b, unsigned i, struct ram_view *out);

/*
 * A reserved block that is known to be empty: nothing was written to it, by whatever way, since it was allocated. True
 * once: whoever asks is about to fill it. Main thread.
 */
bool machine_ram_take_untouched(struct board *b, unsigned i);

/* Let block `name` be a private mapping of fd from offset on: what is written stays here. fd of its view is -1 from
   then on. Before the guest runs. Main thread. */
int machine_ram_map_private(struct board *b, const char *name, int fd, uint64_t offset, struct err *e);
/* Let block `name` be this memfd, which is taken: what another process had as its memory. Before the guest runs. Main
 * thread. */
int machine_ram_adopt(struct board *b, const char *name, int fd, struct err *e);

/* A piece of the guest's address space that is RAM or ROM: `size` bytes of block `block` from `offset` on. */
struct machine_window {
	uint64_t gpa, size, offset; /* multiples of RAM_PAGE */
	uint16_t block;             /* machine_ram()'s number */
	bool readonly, log_dirty;   /* log_dirty: even without a migration, see region.log_dirty */
};
#define MACHINE_WINDOWS 128
/* What the guest has mapped now, by address; the first MACHINE_WINDOWS of them. Returns how many. Any thread while no
   device comes or goes. */
unsigned machine_windows(struct board *b, struct machine_window out[MACHINE_WINDOWS]);
/* A guest that will arrive has these: KVM gets them now, and has nothing to do when the state is loaded. They may come
   from a stranger; -EINVAL if they are not in our blocks, unsorted or overlap. Main thread, before the state. */
int machine_expect_windows(struct board *b, const struct machine_window *w, unsigned n, struct err *e);

/* While on, no page of RAM is given back to the host (dma_discard()): pages may be missing that come when they are
   touched. Any thread. */
void machine_hold_discards(struct board *b, bool on);

/* Another process goes on with this memory: let go of it. What is there reads as zeros from then on, and writes stay
 * here. */
void machine_ram_forget(struct board *b);

/*
 * Which pages were written: by vCPUs (KVM's log), by devices and by ourselves. While it is on each block has a bitmap
 * that collects; everything counts as written at first.
 */
/* Main thread. stop: also when it is not on. */
int machine_dirty_start(struct board *b, struct err *e);
void machine_dirty_stop(struct board *b);
/* Move KVM's logs into the bitmaps, and with them what the log holds back until then: call before machine_dirty_take().
   look: KVM's log is only read. Its pages are told again, and what a vCPU writes to them is not noticed, until they are
   cleared: which must be done before they are read, and best shortly before. Any thread, vCPUs may run. */
void machine_dirty_sync(struct board *b, bool look);
/* Clear those of block i's pages [first, first + n) that are set in map (bit 0: page `first`). false: they had been
   cleared when they were looked at. Any thread. */
bool machine_dirty_clear(struct board *b, unsigned i, uint64_t first, uint64_t n, const unsigned long *map);
/* OR block i's bits into bitmap (bit n: page n), clear them; returns how many bits were set. Any thread. */
uint64_t machine_dirty_take(struct board *b, unsigned i, unsigned long *bitmap);

#endif
