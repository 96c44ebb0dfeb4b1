/*
 * Doorbells: a guest's write to a fixed place in a region that only says "look here". With KVM the write signals an
 * eventfd inside the kernel (ioeventfd) and the vCPU goes on; without KVM, or while KVM has no room for another, the
 * region's own write handler is called as for any register, so a device that has one handles both.
 *
 * A doorbell follows its region: where the guest moves the BAR, there it rings; while the region is disabled it does
 * not. Implementation: src/machine/doorbell.c.
 */
#ifndef VMM_DOORBELL_H
#define VMM_DOORBELL_H

#include <stdbool.h>
#include "vmm/loop.h"
#include "vmm/region.h"

struct doorbell {
	struct device *dev;
	void (*ring)(void *opaque);
	void *opaque;
	/* private */
	int fd;
	struct watch *watch;
	struct region *region;
	uint64_t offset, value, armed_at;
	uint8_t len;
	bool attached, match, armed;
	struct doorbell *next;
};

/* Prepare d: ring(opaque) will run on `loop` with the device's lock held. Main thread. -ENOTSUP without KVM. */
int doorbell_open(struct doorbell *d, struct device *dev, struct loop *loop, void (*ring)(void *opaque), void *opaque);
/* Ring on writes of `len` bytes (1, 2, 4, 8; 0: any length, where KVM can, else 2 bytes) at offset; match: only of this
   value. Attaching an attached doorbell moves it. Device's lock held; any thread. */
void doorbell_attach(struct doorbell *d, struct region *r, uint64_t offset, unsigned len, bool match, uint64_t value);
/* From now on the region's handler is called. Device's lock held; any thread. */
void doorbell_detach(struct doorbell *d);
bool doorbell_attached(const struct doorbell *d); /* device's lock held */
void doorbell_close(struct doorbell *d);          /* main thread; zeroed or closed ones are fine */

#endif
