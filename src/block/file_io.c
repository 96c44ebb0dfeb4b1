/* Requests on a file or block device, carried out with blocking system calls on a worker thread. */
#include "src/block/file_private.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/log.h"

enum { SLICE = 64 };
static const uint64_t bounce_size = 256 * 1024;

bool file_aligned(const struct image_file *f, const struct block_req *req)
{
	uint64_t mask = f->align - 1, mem_mask = f->mem_align - 1;

	if (f->align == 1)
		return true;
	if ((req->offset | req->len) & mask)
		return false;
	for (int i = 0; i < req->n_iov; i++)
		if ((uintptr_t)req->iov[i].iov_base & mem_mask || req->iov[i].iov_len & mask)
			return false;
	return true;
}

/*
 * End of file inside the image. Past the size it had when opened that is the rest of an odd-sized image's last sector;
 * before it the file was truncated under us: the guest's data is gone, and it must learn that.
 */
static int read_past_end(struct block_node *n, uint64_t pos, const struct iovec *iov, int n_iov, uint64_t skip,
			 uint64_t len)
{
	struct image_file *f = n->priv;
	struct stat st;

	if (pos >= f->bytes) {
		iov_zero(iov, n_iov, skip, len);
		return 0;
	}
	if (!__atomic_exchange_n(&f->shrink_logged, true, __ATOMIC_RELAXED) && !fstat(f->fd, &st))
		log_error("block", "image '%s' shrank from %llu to %llu bytes while in use; reads beyond its end fail",
			  n->filename, (unsigned long long)f->bytes, (unsigned long long)st.st_size);
	return -EIO;
}

/* One system call: bytes moved, 0: the end of the file (reading), or -errno. */
static ssize_t move_once(struct image_file *f, bool write, bool stable, const struct iovec *iov, int n_iov, uint64_t at)
{
	ssize_t r;

	do
		r = write ? pwritev2(f->fd, iov, n_iov, (off_t)at, stable ? RWF_DSYNC : 0)
			  : preadv(f->fd, iov, n_iov, (off_t)at);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	return !r && write ? -ENOSPC : r;
}

/* Transfer all of req->iov as it is, continuing after short transfers. */
static int transfer(struct block_node *n, struct block_req *req)
{
	struct image_file *f = n->priv;
	bool write = req->op == BLOCK_WRITE;
	uint64_t pos = 0;

	while (pos < req->len) {
		struct iovec part[SLICE], *iov = req->iov;
		int n_iov = req->n_iov;
		uint64_t got;
		ssize_t r;

		if (pos || n_iov > SLICE) {
			n_iov = iov_slice(part, SLICE, req->iov, req->n_iov, pos, req->len - pos, &got);
			iov = part;
		}
		r = move_once(f, write, req->stable, iov, n_iov, req->offset + pos);
		if (r < 0)
			return (int)r;
		if (!r)
			return read_past_end(n, req->offset + pos, req->iov, req->n_iov, pos, req->len - pos);
		pos += (uint64_t)r;
	}
	return 0;
}

bool file_read_cached(struct block_node *n, struct block_req *req)
{
	struct image_file *f = n->priv;

	return preadv2(f->fd, req->iov, req->n_iov, (off_t)req->offset, RWF_NOWAIT) == (ssize_t)req->len;
}

/* One aligned window [start, start + len) of the file through buf; short reads only at the end of the file. */
static int window_io(struct image_file *f, bool write, bool stable, char *buf, size_t len, uint64_t start, size_t *got)
{
	size_t done = 0;

	while (done < len) {
		struct iovec iov = {buf + done, len - done};
		ssize_t r = move_once(f, write, stable, &iov, 1, start + done);

		if (r < 0)
			return (int)r;
		if (!r)
			break;
		done += (size_t)r;
		if (!write && done & (f->align - 1)) /* the end, in the middle of a block */
			break;
	}
	*got = done;
	return 0;
}

static int bounce_read(struct block_node *n, struct block_req *req, char *buf)
{
	struct image_file *f = n->priv;
	uint64_t pos = 0;

	while (pos < req->len) {
		uint64_t at = req->offset + pos, start = ALIGN_DOWN(at, (uint64_t)f->align);
		uint64_t want = MIN(ALIGN_UP(req->offset + req->len, (uint64_t)f->align) - start, bounce_size);
		size_t skip = at - start, got, use;
		int r = window_io(f, false, false, buf, want, start, &got);

		if (r)
			return r;
		if (got <= skip)
			return read_past_end(n, at, req->iov, req->n_iov, pos, req->len - pos);
		use = MIN(got - skip, req->len - pos);
		iov_from_buf(req->iov, req->n_iov, pos, buf + skip, use);
		pos += use;
	}
	return 0;
}

/* Fill in what a partly written block holds now; beyond the end of the file that is zeroes. */
static int fetch_block(struct image_file *f, char *block, uint64_t start)
{
	size_t got;
	int r = window_io(f, false, false, block, f->align, start, &got);

	if (!r && got < f->align)
		memset(block + got, 0, f->align - got);
	return r;
}

static int bounce_write(struct block_node *n, struct block_req *req, char *buf)
{
	struct image_file *f = n->priv;
	uint64_t pos = 0, end = req->offset + req->len;

	while (pos < req->len) {
		uint64_t at = req->offset + pos, start = ALIGN_DOWN(at, (uint64_t)f->align);
		uint64_t stop = MIN(start + bounce_size, ALIGN_UP(end, (uint64_t)f->align));
		size_t skip = at - start, use = MIN(stop, end) - at, got;
		int r = 0;

		if (skip)
			r = fetch_block(f, buf, start);
		if (!r && at + use < stop && !(skip && stop - start == f->align))
			r = fetch_block(f, buf + (stop - start - f->align), stop - f->align);
		if (r)
			return r;
		iov_to_buf(req->iov, req->n_iov, pos, buf + skip, use);
		r = window_io(f, true, req->stable, buf, stop - start, start, &got);
		if (r)
			return r;
		pos += use;
	}
	return 0;
}

/* O_DIRECT with buffers, offset or length the device cannot take: through an aligned buffer. */
static int bounced(struct block_node *n, struct block_req *req)
{
	struct image_file *f = n->priv;
	void *buf;
	int r;

	if (posix_memalign(&buf, MAX(f->mem_align, 4096u), bounce_size))
		return -ENOMEM;
	if (req->op == BLOCK_READ)
		r = bounce_read(n, req, buf);
	else
		r = bounce_write(n, req, buf);
	free(buf);
	return r;
}

static bool unsupported(int err)
{
	return err == EOPNOTSUPP || err == ENOSYS || err == ENOTTY || err == EINVAL || err == ENODEV;
}

static int write_zero_buffers(struct block_node *n, struct block_req *req)
{
	static const char zeroes[64 * 1024] __attribute__((aligned(4096)));
	uint64_t end = req->offset + req->len;
	int r = 0;

	for (uint64_t at = req->offset; at < end && !r;) {
		struct iovec iov = {(void *)zeroes, MIN(end - at, sizeof(zeroes))};
		struct block_req part = {
			.op = BLOCK_WRITE,
			.offset = at,
			.len = iov.iov_len,
			.iov = &iov,
			.n_iov = 1,
			.stable = req->stable,
		};

		r = file_aligned(n->priv, &part) ? transfer(n, &part) : bounced(n, &part);
		at += iov.iov_len;
	}
	return r;
}

static int block_device_ioctl(struct image_file *f, unsigned long request, uint64_t offset, uint64_t len)
{
	uint64_t range[2] = {offset, len};

	return ioctl(f->fd, request, range) ? -errno : 0;
}

/* Deallocate: the range reads as zeroes and the image stays (or becomes) sparse. */
static int punch(struct image_file *f, uint64_t offset, uint64_t len)
{
	int r;

	if (f->no_punch)
		return -EOPNOTSUPP;
	do
		r = fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len);
	while (r && errno == EINTR);
	if (!r)
		return 0;
	if (!unsupported(errno))
		return -errno;
	__atomic_store_n(&f->no_punch, true, __ATOMIC_RELAXED);
	return -EOPNOTSUPP;
}

static int zero_range(struct image_file *f, uint64_t offset, uint64_t len)
{
	int r;

	if (f->no_zero_range)
		return -EOPNOTSUPP;
	if (f->is_block) {
		r = block_device_ioctl(f, BLKZEROOUT, offset, len);
	} else {
		do
			r = fallocate(f->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len);
		while (r && errno == EINTR);
		r = r ? -errno : 0;
	}
	if (!r || !unsupported(-r))
		return r;
	__atomic_store_n(&f->no_zero_range, true, __ATOMIC_RELAXED);
	return -EOPNOTSUPP;
}

static int do_write_zeroes(struct block_node *n, struct block_req *req, bool unmap)
{
	struct image_file *f = n->priv;
	int r = -EOPNOTSUPP;

	if (unmap && !f->is_block)
		r = punch(f, req->offset, req->len);
	if (r == -EOPNOTSUPP)
		r = zero_range(f, req->offset, req->len);
	if (r == -EOPNOTSUPP)
		return write_zero_buffers(n, req);
	if (!r && req->stable && fdatasync(f->fd))
		r = -errno;
	return r;
}

/* A hint: failing to deallocate is no error, and without discard=unmap nothing is done. */
static int do_discard(struct block_node *n, struct block_req *req)
{
	struct image_file *f = n->priv;
	int r;

	if (!n->unmap)
		return 0;
	r = f->is_block ? block_device_ioctl(f, BLKDISCARD, req->offset, req->len) : punch(f, req->offset, req->len);
	return r && unsupported(-r) ? 0 : r;
}

static int do_flush(struct block_node *n)
{
	struct image_file *f = n->priv;
	uint64_t gen = __atomic_load_n(&n->write_gen, __ATOMIC_ACQUIRE);
	int r = __atomic_load_n(&f->flush_error, __ATOMIC_RELAXED);

	if (r)
		return r;
	if (__atomic_load_n(&f->flushed_gen, __ATOMIC_ACQUIRE) == gen)
		return 0;
	if (fdatasync(f->fd)) {
		r = -errno;
		if (!n->direct) {
			__atomic_store_n(&f->flush_error, r, __ATOMIC_RELAXED);
			log_error("block",
				  "image '%s': writing back cached data failed (%s); data may be lost, so every flush "
				  "fails from now on",
				  n->filename, strerror(-r));
		}
		return r;
	}
	__atomic_store_n(&f->flushed_gen, gen, __ATOMIC_RELEASE);
	return 0;
}

static int do_write(struct block_node *n, struct block_req *req)
{
	struct image_file *f = n->priv;
	bool aligned = file_aligned(f, req);
	int r;

	if (n->detect_zeroes && iov_is_zero(req->iov, req->n_iov))
		return do_write_zeroes(n, req, n->detect_zeroes == DETECT_ZEROES_UNMAP && n->unmap);
	if (f->align <= 512)
		return aligned ? transfer(n, req) : bounced(n, req);
	if (aligned)
		pthread_rwlock_rdlock(&f->rmw_lock);
	else
		pthread_rwlock_wrlock(&f->rmw_lock);
	r = aligned ? transfer(n, req) : bounced(n, req);
	pthread_rwlock_unlock(&f->rmw_lock);
	return r;
}

int file_execute(struct block_node *n, struct block_req *req)
{
	struct image_file *f = n->priv;

	switch (req->op) {
	case BLOCK_READ:
		return file_aligned(f, req) ? transfer(n, req) : bounced(n, req);
	case BLOCK_WRITE:
		return do_write(n, req);
	case BLOCK_WRITE_ZEROES:
		return do_write_zeroes(n, req, n->unmap);
	case BLOCK_DISCARD:
		return do_discard(n, req);
	case BLOCK_FLUSH:
		return do_flush(n);
	}
	return -EINVAL;
}
