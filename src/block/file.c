/*
 * Protocol drivers `file` (regular files) and `host_device` (block devices): opening with all its error cases, sizes,
 * alignments, locks, and the choice of engine for each request. Paths may be /dev/fdset/N.
 */
#include "src/block/file_private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/fdset.h"
#include "vmm/log.h"

/*
 * A lone read whose data is in the page cache is answered by the main loop itself: one thread switch less than through
 * a worker, which is a third of an IDE command's latency. More than one at a time, large ones, and files whose data was
 * not there lately take the ordinary way, so that the loop is never held up for long.
 */
enum { QUICK_BYTES = 256 * 1024, QUICK_IOV = 64 };

static struct {
	struct block_req *req; /* atomic; NULL: free */
	struct bh bh;
} quick;

static void quick_read(void *unused)
{
	struct block_req *req = __atomic_load_n(&quick.req, __ATOMIC_ACQUIRE);
	struct image_file *f = req->node->priv;
	bool done = file_read_cached(req->node, req);
	unsigned misses = done ? 0 : MIN(__atomic_load_n(&f->misses, __ATOMIC_RELAXED) + 1, 8u);

	__atomic_store_n(&f->misses, misses, __ATOMIC_RELAXED);
	__atomic_store_n(&f->skip, misses > 1 ? 1u << misses : 0, __ATOMIC_RELAXED);
	__atomic_store_n(&quick.req, NULL, __ATOMIC_RELEASE);
	if (done)
		block_req_finish(req, 0);
	else
		file_retry(req);
}

static bool try_quick(struct image_file *f, struct block_req *req)
{
	struct block_req *none = NULL;
	unsigned skip = __atomic_load_n(&f->skip, __ATOMIC_RELAXED);

	if (req->len > QUICK_BYTES || req->n_iov > QUICK_IOV)
		return false;
	if (skip) {
		__atomic_store_n(&f->skip, skip - 1, __ATOMIC_RELAXED);
		return false;
	}
	if (!__atomic_compare_exchange_n(&quick.req, &none, req, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		return false;
	bh_schedule(&quick.bh);
	return true;
}

static void file_submit(struct block_node *n, struct block_req *req)
{
	struct image_file *f = n->priv;
	bool transfer = req->op == BLOCK_READ || (req->op == BLOCK_WRITE && !n->detect_zeroes && f->align <= 512);

	req->node = n;
	if (req->op == BLOCK_FLUSH && n->no_flush)
		block_req_complete(req, 0);
	else if (req->op == BLOCK_READ && !f->engine && !n->direct && try_quick(f, req))
		return;
	else if (f->engine && transfer && req->n_iov <= 1024 && file_aligned(f, req))
		f->engine->submit(n, req, f->fd);
	else
		pool_submit(n, req, file_execute);
}

void file_retry(struct block_req *req)
{
	pool_submit(req->node, req, file_execute);
}

static void file_close(struct block_node *n)
{
	struct image_file *f = n->priv;

	if (f->fd >= 0)
		close(f->fd); /* releases the locks */
	pthread_rwlock_destroy(&f->rmw_lock);
	free(f);
}

static int file_reopen(struct block_node *n, const struct node_config *c, struct err *e);
static int file_activate(struct block_node *n, struct err *e);
static void file_inactivate(struct block_node *n);
static void file_mark(struct block_node *n, uint64_t mark, bool on);
static int file_check_lock(struct block_node *n, uint64_t mark, struct err *e);

static int file_resize(struct block_node *n, uint64_t size, struct err *e)
{
	struct image_file *f = n->priv;

	if (ftruncate(f->fd, (off_t)size))
		return err_errno(e, errno, "Failed to resize '%s'", n->filename);
	f->bytes = size;
	return 0;
}

/* A block device is as large as it is; the operator tells when it has changed. */
static int device_resize(struct block_node *n, uint64_t size, struct err *e)
{
	struct image_file *f = n->priv;
	uint64_t now;

	if (ioctl(f->fd, BLKGETSIZE64, &now))
		return err_errno(e, errno, "Could not get the size of '%s'", n->filename);
	if (size > now)
		return err_set(e, EINVAL, "Cannot grow device files");
	f->bytes = size;
	return 0;
}

static const struct block_driver driver_file = {
	.name = "file",
	.resize = file_resize,
	.submit = file_submit,
	.close = file_close,
	.reopen = file_reopen,
	.activate = file_activate,
	.inactivate = file_inactivate,
	.mark = file_mark,
	.check_lock = file_check_lock,
};
static const struct block_driver driver_host_device = {
	.name = "host_device",
	.resize = device_resize,
	.submit = file_submit,
	.close = file_close,
	.reopen = file_reopen,
	.activate = file_activate,
	.inactivate = file_inactivate,
	.mark = file_mark,
	.check_lock = file_check_lock,
};

/* Refuse what is neither a file nor a block device; before open(2), which would block on a FIFO. */
static int check_type(const char *path, const char *protocol, mode_t mode, struct err *e)
{
	if (protocol && !strcmp(protocol, "host_device") && !S_ISBLK(mode))
		return err_set(e, EINVAL, "'host_device' driver requires '%s' to be a block device", path);
	if (S_ISREG(mode) || (S_ISBLK(mode) && (!protocol || !strcmp(protocol, "host_device"))))
		return 0;
	return err_set(e, S_ISDIR(mode) ? EISDIR : EINVAL, "'file' driver requires '%s' to be a regular file%s", path,
		       S_ISDIR(mode) ? ", not a directory" : "");
}

static int open_fd(const struct node_config *c, bool readonly, struct err *e)
{
	int flags = (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | (c->direct ? O_DIRECT : 0);
	bool fdset = !strncmp(c->filename, "/dev/fdset/", 11);
	struct stat st;
	int fd;

	if (!fdset) {
		if (stat(c->filename, &st))
			return err_errno(e, errno, "Could not open '%s'", c->filename);
		if (check_type(c->filename, c->protocol, st.st_mode, e))
			return -e->code;
		fd = open(c->filename, flags);
		if (fd < 0)
			fd = -errno;
	} else {
		fd = fdset_open(c->filename, flags, 0, e);
		if (fd < 0)
			return fd;
	}
	if (fd == -EINVAL && c->direct)
		return err_set(e, EINVAL,
			       "Could not open '%s': its file system does not support O_DIRECT (cache.direct=on)",
			       c->filename);
	if ((fd == -EACCES || fd == -EROFS || fd == -EPERM) && !readonly)
		return err_errno(e, -fd, "Could not open '%s' for writing (read-only=on opens it for reading only)",
				 c->filename);
	return fd < 0 ? err_errno(e, -fd, "Could not open '%s'", c->filename) : fd;
}

static int get_sizes(struct block_node *n, const struct stat *st, struct err *e)
{
	struct image_file *f = n->priv;
	unsigned phys = 512;

	n->physical_sector = 512;
	if (!f->is_block) {
		f->bytes = (uint64_t)st->st_size;
	} else {
		if (ioctl(f->fd, BLKGETSIZE64, &f->bytes))
			return err_errno(e, errno, "Could not get the size of '%s'", n->filename);
		if (!ioctl(f->fd, BLKPBSZGET, &phys) && phys >= 512 && phys <= 65536 && !(phys & (phys - 1)))
			n->physical_sector = phys;
	}
	if (!f->bytes)
		return err_set(e, EINVAL, "Image '%s' is empty (0 bytes)", n->filename);
	if (f->bytes > INT64_MAX - 511)
		return err_set(e, EFBIG, "Image '%s' is too large", n->filename);
	if (f->bytes % 512)
		log_warn("block",
			 "image '%s' has %llu bytes, which is no multiple of 512: the last sector is filled up with "
			 "zeroes",
			 n->filename, (unsigned long long)f->bytes);
	n->size = ALIGN_UP(f->bytes, 512ull);
	return 0;
}

/* Ask the kernel (statx, Linux 6.1), then the block device, then the file itself by reading. */
static void get_alignment(struct block_node *n)
{
	struct image_file *f = n->priv;
	struct statx sx;
	int logical;
	void *buf;

	f->align = f->mem_align = 1;
	if (!n->direct)
		return;
#ifdef STATX_DIOALIGN
	if (!statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) && sx.stx_mask & STATX_DIOALIGN &&
	    sx.stx_dio_offset_align) {
		f->align = MAX(sx.stx_dio_offset_align, 512u);
		f->mem_align = MAX(sx.stx_dio_mem_align, 1u);
		return;
	}
#endif
	f->align = f->mem_align = 4096;
	if (f->is_block && !ioctl(f->fd, BLKSSZGET, &logical) && logical >= 512 && logical <= 65536) {
		f->align = f->mem_align = (uint32_t)logical;
	} else if (!posix_memalign(&buf, 4096, 4096)) {
		if (pread(f->fd, buf, 512, 0) >= 0 && pread(f->fd, (char *)buf + 512, 512, 0) >= 0)
			f->align = f->mem_align = 512;
		free(buf);
	}
}

static int choose_engine(struct image_file *f, int aio, struct err *e)
{
	const struct block_engine *engine = aio == AIO_NATIVE     ? &engine_aio
					    : aio == AIO_IO_URING ? &engine_io_uring
								  : NULL;
	int r = engine ? engine->start(e) : 0;

	if (!r)
		f->engine = engine;
	return r;
}

static int lock_fd(struct block_node *n, int fd, bool readonly, struct err *e)
{
	struct image_file *f = n->priv;
	int r;

	if (!f->lock || !block_active())
		return 0;
	r = image_lock(fd, !readonly, n->filename, e);
	if (r != -ENOLCK || f->lock_required)
		return r;
	log_warn("block", "%s: this file system has no locks; nothing keeps another process from using the image",
		 n->filename);
	return 0;
}

static int lock_image(struct block_node *n, struct err *e)
{
	const struct image_file *f = n->priv;

	return lock_fd(n, f->fd, n->readonly, e);
}

/* Another process wrote to the image since it was opened: its size must be what the guest was told. */
static int check_size(const struct block_node *n, struct err *e)
{
	const struct image_file *f = n->priv;
	uint64_t now = 0;
	struct stat st;
	int r = f->is_block ? ioctl(f->fd, BLKGETSIZE64, &now) : fstat(f->fd, &st);

	if (r)
		return err_errno(e, errno, "Could not get the size of '%s'", n->filename);
	if (!f->is_block)
		now = (uint64_t)st.st_size;
	if (now < f->bytes)
		return err_set(e, EIO, "Image '%s' shrank from %llu to %llu bytes", n->filename,
			       (unsigned long long)f->bytes, (unsigned long long)now);
	return 0;
}

static int file_activate(struct block_node *n, struct err *e)
{
	struct image_file *f = n->priv;
	int r = lock_image(n, e);

	if (!r)
		r = check_size(n, e);
	if (!r && !n->direct)
		posix_fadvise(f->fd, 0, 0,
			      POSIX_FADV_DONTNEED); /* what a network file system cached before the other's writes */
	return r;
}

static void file_inactivate(struct block_node *n)
{
	struct image_file *f = n->priv;

	if (f->lock)
		image_unlock(f->fd);
}

static void file_mark(struct block_node *n, uint64_t mark, bool on)
{
	struct image_file *f = n->priv;

	if (!f->lock)
		return;
	if (!on)
		image_unmark(f->fd, mark);
	else if (image_mark(f->fd, mark))
		log_debug("block", "%s: cannot be marked", n->filename); /* no locks here: nobody misses it */
}

static int file_check_lock(struct block_node *n, uint64_t mark, struct err *e)
{
	struct image_file *f = n->priv;

	if (!f->lock || image_is_marked(f->fd, mark))
		return 0;
	return image_lock_test(f->fd, !n->readonly, n->filename, e) == -EAGAIN ? -EAGAIN : 0;
}

static int open_image(struct block_node *n, const struct node_config *c, struct err *e)
{
	struct image_file *f = n->priv;
	struct stat st;
	int r;

	n->readonly = c->readonly;
	f->fd = open_fd(c, c->readonly, e);
	if ((f->fd == -EACCES || f->fd == -EROFS || f->fd == -EPERM) && c->auto_readonly && !c->readonly) {
		n->readonly = true;
		f->fd = open_fd(c, true, e);
	}
	if (f->fd < 0)
		return f->fd;
	if (fstat(f->fd, &st))
		return err_errno(e, errno, "Could not open '%s'", c->filename);
	r = check_type(c->filename, c->protocol, st.st_mode, e);
	if (r)
		return r;
	f->is_block = S_ISBLK(st.st_mode);
	n->drv = f->is_block ? &driver_host_device : &driver_file;
	r = get_sizes(n, &st, e);
	if (r)
		return r;
	get_alignment(n);
	f->lock = c->lock;
	f->lock_required = c->lock_required;
	r = lock_image(n, e);
	return r ? r : choose_engine(f, c->aio, e);
}

/* ---- other flags for an open image ---- */

static int open_again(const struct block_node *n, const struct node_config *c, bool *readonly, struct err *e)
{
	const struct image_file *f = n->priv;
	struct stat was, is;
	int fd = open_fd(c, c->readonly, e);

	*readonly = c->readonly;
	if ((fd == -EACCES || fd == -EROFS || fd == -EPERM) && c->auto_readonly && !c->readonly) {
		*readonly = true;
		fd = open_fd(c, true, e);
	}
	if (fd < 0)
		return fd;
	if (fstat(f->fd, &was) || fstat(fd, &is) || was.st_dev != is.st_dev || was.st_ino != is.st_ino) {
		close(fd);
		return err_set(e, ESTALE, "'%s' is another file than the one that is open", n->filename);
	}
	return fd;
}

/* The new open file takes the old one's number, so that nobody is left with a closed one. */
static int replace_fd(struct block_node *n, int fd, bool readonly, struct err *e)
{
	struct image_file *f = n->priv;
	struct err ignored = ERR_INIT;
	int r;

	if (f->lock)
		image_unlock(f->fd);
	r = lock_fd(n, fd, readonly, e);
	if (!r && dup3(fd, f->fd, O_CLOEXEC) < 0)
		r = err_errno(e, errno, "Could not reopen '%s'", n->filename);
	if (r) {
		if (f->lock)
			image_unlock(fd);
		if (lock_fd(n, f->fd, n->readonly, &ignored))
			log_warn("block", "%s: its lock could not be taken back: %s", n->filename, ignored.msg);
	}
	close(fd);
	return r;
}

static int file_reopen(struct block_node *n, const struct node_config *c, struct err *e)
{
	struct image_file *f = n->priv;
	const struct block_engine *engine = f->engine;
	bool readonly = n->readonly;
	int r = choose_engine(f, c->aio, e), fd;

	if (!r && (c->readonly != n->readonly || c->direct != n->direct)) {
		fd = open_again(n, c, &readonly, e);
		r = fd < 0 ? fd : replace_fd(n, fd, readonly, e);
	}
	if (r) {
		f->engine = engine;
		return r;
	}
	n->readonly = readonly;
	n->direct = c->direct;
	n->no_flush = c->no_flush;
	n->unmap = c->unmap;
	n->aio = c->aio;
	n->detect_zeroes = c->detect_zeroes;
	get_alignment(n);
	return 0;
}

static struct block_node *file_node_new(const char *name, const char *filename, struct err *e)
{
	struct block_node *n = node_new(&driver_file, name, e);
	struct image_file *f;

	if (!n)
		return NULL;
	f = xzalloc(sizeof(*f));
	f->fd = -1;
	if (quick.bh.loop != loop_main())
		bh_init(&quick.bh, loop_main(), NULL, quick_read, NULL);
	pthread_rwlock_init(&f->rmw_lock, NULL);
	n->priv = f;
	n->filename = xstrdup(filename);
	return n;
}

struct block_node *file_open(const struct node_config *c, struct err *e)
{
	struct block_node *n = file_node_new(c->file_node_name, c->filename, e);

	if (!n)
		return NULL;
	n->no_flush = c->no_flush;
	n->unmap = c->unmap;
	n->direct = c->direct;
	n->aio = c->aio;
	n->detect_zeroes = c->detect_zeroes;
	if (open_image(n, c, e)) {
		node_unref(n);
		return NULL;
	}
	return n;
}

struct block_node *file_open_temporary(uint64_t size, struct err *e)
{
	const char *dir = getenv("TMPDIR") ? getenv("TMPDIR") : "/var/tmp";
	char *path = xasprintf("%s/vmm-overlay-XXXXXX", dir);
	struct block_node *n = file_node_new(NULL, path, e);
	struct image_file *f;

	if (!n)
		goto out;
	f = n->priv;
	f->align = f->mem_align = 1;
	f->bytes = n->size = size;
	n->no_flush = n->unmap = true;
	n->physical_sector = 512;
	f->fd = mkostemp(path, O_CLOEXEC);
	if (f->fd < 0) {
		err_errno(e, errno, "Could not create a temporary overlay in '%s' (TMPDIR chooses another directory)",
			  dir);
	} else {
		unlink(path);
		if (ftruncate(f->fd, (off_t)size))
			err_errno(e, errno, "Could not make a sparse temporary overlay of %llu bytes in '%s'",
				  (unsigned long long)size, dir);
		else
			goto out;
	}
	node_unref(n);
	n = NULL;
out:
	free(path);
	return n;
}
