/* DMA: see vmm/dma.h. */
#include "board.h"

#include <errno.h>
#include <fcntl.h>
#include "vmm/pci.h"
#include "vmm/ram.h"

static bool may_master(const struct device *dev)
{
	return !dev->pci || (dev->pci->config[PCI_COMMAND_REG] & PCI_CMD_MASTER);
}

int dma_read(struct device *dev, uint64_t addr, void *buf, size_t len)
{
	uint8_t *to = buf;

	if (!may_master(dev)) {
		memset(buf, 0xff, len);
		return -EFAULT;
	}
	while (len) {
		struct ram_block *rb;
		uint64_t avail, off;
		void *host = map_ram_ptr(dev->board, addr, false, &avail, &rb, &off);

		if (!host) {
			memset(to, 0xff, len);
			return -EFAULT;
		}
		avail = MIN(avail, len);
		memcpy(to, host, avail);
		addr += avail;
		to += avail;
		len -= avail;
	}
	return 0;
}

int dma_write(struct device *dev, uint64_t addr, const void *buf, size_t len)
{
	const uint8_t *from = buf;

	if (!may_master(dev))
		return -EFAULT;
	while (len) {
		struct ram_block *rb;
		uint64_t avail, off;
		void *host = map_ram_ptr(dev->board, addr, true, &avail, &rb, &off);

		if (!host)
			return -EFAULT;
		avail = MIN(avail, len);
		memcpy(host, from, avail);
		ram_block_mark_dirty(rb, off, avail);
		addr += avail;
		from += avail;
		len -= avail;
	}
	return 0;
}

int dma_map(struct device *dev, uint64_t addr, size_t len, enum dma_dir dir, struct iovec *iov, int max_iov)
{
	int n = 0;

	if (!may_master(dev))
		return -EFAULT;
	while (len) {
		struct ram_block *rb;
		uint64_t avail, off;
		void *host = map_ram_ptr(dev->board, addr, dir == DMA_FROM_DEVICE, &avail, &rb, &off);

		if (!host)
			return -EFAULT;
		avail = MIN(avail, len);
		if (n && (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == host) {
			iov[n - 1].iov_len += avail;
		} else {
			if (n == max_iov)
				return -E2BIG;
			iov[n++] = (struct iovec){host, avail};
		}
		addr += avail;
		len -= avail;
	}
	return n;
}

void machine_hold_discards(struct board *b, bool on)
{
	__atomic_store_n(&b->discards_held, on, __ATOMIC_RELEASE);
}

/* A page that is not there yet, or whose old contents are still wanted, must not be replaced by a hole. */
static bool may_discard(const struct board *b, const struct ram_block *rb)
{
	return rb->fd >= 0 && !__atomic_load_n(&b->discards_held, __ATOMIC_ACQUIRE) &&
	       !__atomic_load_n(&b->devices_held, __ATOMIC_ACQUIRE);
}

int dma_discard(struct device *dev, uint64_t addr, uint64_t len)
{
	struct board *b = dev->board;

	if (addr % RAM_PAGE || len % RAM_PAGE)
		return -EINVAL;
	while (len) {
		struct ram_block *rb;
		uint64_t avail, off;
		void *host = map_ram_ptr(b, addr, true, &avail, &rb, &off);

		if (!host || rb != b->ram)
			return -EFAULT;
		avail = MIN(ALIGN_DOWN(avail, RAM_PAGE), len);
		if (!avail)
			return -EFAULT;
		if (may_discard(b, rb) &&
		    fallocate(rb->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)avail))
			return -EFAULT;
		ram_block_mark_dirty(rb, off, avail); /* zeroes are other contents */
		addr += avail;
		len -= avail;
	}
	return 0;
}

/* Which block a host pointer from dma_map() lies in. */
static struct ram_block *block_of(struct board *b, const void *host)
{
	const uint8_t *p = host;

	for (struct ram_block *rb = b->blocks; rb; rb = rb->next)
		if (p >= rb->host && p < rb->host + rb->size)
			return rb;
	return NULL;
}

void dma_unmap(struct device *dev, enum dma_dir dir, const struct iovec *iov, int n_iov, size_t done)
{
	if (dir != DMA_FROM_DEVICE)
		return;
	for (int i = 0; i < n_iov && done; i++) {
		struct ram_block *rb = block_of(dev->board, iov[i].iov_base);
		size_t part = MIN(done, iov[i].iov_len);

		if (rb)
			ram_block_mark_dirty(rb, (uint64_t)((uint8_t *)iov[i].iov_base - rb->host), part);
		done -= part;
	}
}
