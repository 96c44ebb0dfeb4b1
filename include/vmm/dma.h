/*
 * DMA: the only door from a device to guest RAM. Every access is bounds-checked against RAM (never MMIO: DMA to a
 * device's registers is refused), and written pages are marked dirty because KVM's log cannot see our own writes. Any
 * thread. Addresses are guest physical. PCI devices: refused while the command register's bus-master bit is clear.
 */
#ifndef VMM_DMA_H
#define VMM_DMA_H

#include <stdbool.h>
#include <sys/uio.h>
#include "vmm/err.h"

struct device;

/* Copy. Returns 0, or -EFAULT if any part of the range is not RAM (reads: buf is then filled with 0xff from there on).
 */
int dma_read(struct device *dev, uint64_t addr, void *buf, size_t len);
int dma_write(struct device *dev, uint64_t addr, const void *buf, size_t len);

enum dma_dir { DMA_TO_DEVICE /* we read guest RAM */, DMA_FROM_DEVICE /* we write guest RAM */ };

/*
 * Host pointers for [addr, addr+len), for zero-copy I/O: fills up to max_iov entries, returns their number or
 * -EFAULT/-E2BIG. Pointers stay valid until dma_unmap(): RAM is never unmapped while mappings are held. Nothing the
 * guest can change is interpreted through them: descriptors are copied with dma_read() first.
 */
int dma_map(struct device *dev, uint64_t addr, size_t len, enum dma_dir dir, struct iovec *iov, int max_iov);
/* `done` bytes were transferred: for DMA_FROM_DEVICE the pages of the first `done` bytes become dirty. */
void dma_unmap(struct device *dev, enum dma_dir dir, const struct iovec *iov, int n_iov, size_t done);

/* The guest does not need what is in [addr, addr+len), whole pages of its RAM: the host gets the memory back, and the
   guest reads zeroes from now on. Where somebody counts on the pages (a migration, machine_hold_discards()) or RAM is a
   private mapping of a saved guest they stay as they are. Main thread: a system call. -EFAULT if it is not all guest
   RAM proper, -EINVAL if not aligned. */
int dma_discard(struct device *dev, uint64_t addr, uint64_t len);

#endif
