/*
 * ISA DMA as a device on the bus sees it: request lines, and data moved when the controller grants them. Used by the
 * floppy disk controller.
 *
 * Threads and locks: any thread, with the caller's own device lock held. The channel state has a leaf mutex of its own
 * (taken inside, held while guest RAM is copied), so no device ever needs another one's lock.
 */
#ifndef VMM_DEVICES_I8237_H
#define VMM_DEVICES_I8237_H

#include "vmm/device.h"

struct i8237;

/* The board's DMA controllers, or NULL. In wire() only; the pointer stays valid as long as the board. */
struct i8237 *i8237_find(struct board *board);

/*
 * Take channel 0..3 (bytes) or 5..7 (16-bit words). `ready`, the caller's, is scheduled whenever the guest makes the
 * channel able to transfer while its request is up. -EINVAL: no such channel; -EBUSY: another device has it.
 */
int i8237_connect(struct i8237 *dma, unsigned channel, struct device *dev, struct bh *ready, struct err *e);
void i8237_disconnect(struct i8237 *dma, unsigned channel);

/* DREQ: shows in the status register and lets `ready` come. It does not start a transfer by itself. */
void i8237_set_request(struct i8237 *dma, unsigned channel, bool on);

/*
 * Move up to len bytes to or from guest memory as the guest has programmed the channel; returns how many (0: masked or
 * disabled; try again when `ready` comes). Fewer than len: terminal count was reached, then *tc is set. A channel
 * programmed for verify, or for the other direction, counts without touching memory; i8237_from_memory() then gives
 * 0xff. len is even on channels 5..7.
 */
size_t i8237_to_memory(struct i8237 *dma, unsigned channel, const void *buf, size_t len, bool *tc);
size_t i8237_from_memory(struct i8237 *dma, unsigned channel, void *buf, size_t len, bool *tc);

#endif
