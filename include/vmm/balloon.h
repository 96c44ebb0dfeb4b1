/*
 * The memory balloon: what QMP's balloon and query-balloon ask of the device that has one (virtio-balloon). One per
 * machine, as in QEMU. Main thread.
 */
#ifndef VMM_BALLOON_H
#define VMM_BALLOON_H

#include "vmm/device.h"

/* The device's side; its lock is held. */
struct balloon_ops {
	void (*set_target)(struct device *dev, uint64_t bytes); /* what the guest should have; 1 .. all of its RAM */
	uint64_t (*actual)(struct device *dev);                 /* what it has, in bytes */
};
/* In create(); -EBUSY if there is another. */
int machine_register_balloon(struct device *dev, const struct balloon_ops *ops, struct err *e);
void machine_unregister_balloon(struct device *dev); /* in destroy() */

/* What the guest should have and what it has left itself, in bytes. -ENODEV (DeviceNotActive) without a balloon. More
   than the guest's RAM means all of it. */
int machine_balloon_set(struct board *b, uint64_t bytes, struct err *e);
int machine_balloon_get(struct board *b, uint64_t *bytes, struct err *e);

#endif
