/*
 * A virtio driver for the device bench: sets up a function through either interface, offers buffers, rings, and sees
 * what came back, all through registers and guest RAM as a guest would.
 *
 * Guest memory: queue n has its rings at VQ_BASE + n * VQ_STRIDE; tests put buffers above VQ_BUFFERS (needs -m 16).
 */
#ifndef VMM_TEST_VIRTIO_DRIVER_H
#define VMM_TEST_VIRTIO_DRIVER_H

#include "bench.h"

#define VQ_BASE    0x200000ull
#define VQ_STRIDE  0x8000ull
#define VQ_BUFFERS 0x800000ull

enum { VD_LEGACY, VD_MODERN };
enum { VD_ACK = 1, VD_DRIVER = 2, VD_OK = 4, VD_FEATURES_OK = 8, VD_NEEDS_RESET = 64, VD_FAILED = 128 };
#define VD_INDIRECT  (1ull << 28)
#define VD_EVENT_IDX (1ull << 29)
#define VD_VERSION_1 (1ull << 32)

struct vd_queue {
	uint64_t desc, avail, used;
	uint16_t size, next_desc, avail_idx, last_used;
};

struct vd {
	struct board *b;
	unsigned devfn;
	int kind;
	uint16_t io;       /* BAR 0, 0: none */
	uint64_t msix;     /* BAR 1 */
	uint64_t bar;      /* BAR 4 */
	uint64_t features; /* negotiated */
	bool msix_on;
	struct vd_queue q[64];
};

struct vd_seg {
	uint64_t addr;
	uint32_t len;
	bool in; /* the device writes */
};

/* BARs, command register, reset, ACKNOWLEDGE, DRIVER. */
void vd_init(struct vd *d, struct board *b, unsigned slot, int kind);
uint64_t vd_offered(struct vd *d);
/* Accept wanted & offered (and VERSION_1 on the modern interface), FEATURES_OK. Returns whether the device agreed. */
bool vd_negotiate(struct vd *d, uint64_t wanted);
/* Set up queue n with `size` entries (0, and always legacy: what the device says). */
void vd_queue(struct vd *d, unsigned n, uint16_t size);
/* The same numbers again, after the board was rebuilt from saved state. */
void vd_moved(struct vd *d, struct board *b);
/* All at once: init, negotiate everything in `features`, queues 0 .. n - 1, DRIVER_OK. */
void vd_start(struct vd *d, struct board *b, unsigned slot, int kind, uint64_t features, unsigned n);
uint8_t vd_status(struct vd *d);
void vd_set_status(struct vd *d, uint8_t status); /* as is, not ORed */
uint8_t vd_isr(struct vd *d);
uint32_t vd_config(struct vd *d, unsigned offset, unsigned size);
void vd_set_config(struct vd *d, unsigned offset, uint32_t value, unsigned size);
uint8_t vd_generation(struct vd *d); /* modern */
/* Switch MSI-X on: vector n sends data n. Call before vd_queue(); queue n gets vector n + 1, the configuration 0. */
void vd_msix(struct vd *d, unsigned vectors);

/* Put a chain into the available ring without ringing; returns its head. */
uint16_t vd_add(struct vd *d, unsigned n, const struct vd_seg *seg, unsigned n_seg);
/* Write one descriptor as given. */
void vd_desc(struct vd *d, unsigned n, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next);
void vd_offer(struct vd *d, unsigned n, uint16_t head); /* into the available ring */
void vd_ring(struct vd *d, unsigned n);                 /* doorbell; then lets the device work */
/* Next used entry: its head and length, or -1. */
int vd_used(struct vd *d, unsigned n, uint32_t *len);

#endif
