/*
 * aio=io_uring. liburing is loaded when the first image asks for it, so that a machine without it pays nothing. The
 * ring belongs to the main loop: submitters queue, one bottom half fills the ring and enters the kernel once. Works
 * with and without O_DIRECT.
 *
 * Set up at the first open with aio=io_uring, before the sandbox closes io_uring_setup(2); io_uring_enter(2) stays
 * allowed for the main thread.
 */
#include "src/block/block_private.h"

#include <errno.h>

#include "vmm-config.h"

#if HAVE_IO_URING

#include <dlfcn.h>
#include <liburing.h>
#include <linux/fs.h>

enum { ENTRIES = 256 };

static struct {
	pthread_mutex_t lock; /* of the waiting list */
	void *library;
	int (*queue_init)(unsigned entries, struct io_uring *ring, unsigned flags);
	void (*queue_exit)(struct io_uring *ring);
	int (*submit)(struct io_uring *ring);
	struct io_uring ring;
	bool ready;
	struct watch *watch;
	struct bh bh;
	struct block_req *head, **tail;
	unsigned inflight; /* main thread; at most ENTRIES, so the completion ring cannot overflow */
} uring = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct block_req *take_waiting(void)
{
	struct block_req *req;

	pthread_mutex_lock(&uring.lock);
	req = uring.head;
	if (req) {
		uring.head = req->next;
		if (!uring.head)
			uring.tail = &uring.head;
	}
	pthread_mutex_unlock(&uring.lock);
	return req;
}

static void prepare(struct io_uring_sqe *sqe, struct block_req *req)
{
	int fd = (int)req->scratch[1];

	if (req->op == BLOCK_READ)
		io_uring_prep_readv(sqe, fd, req->iov, req->n_iov, req->offset);
	else
		io_uring_prep_writev2(sqe, fd, req->iov, req->n_iov, req->offset, req->stable ? RWF_DSYNC : 0);
	io_uring_sqe_set_data(sqe, req);
}

static void submit_waiting(void *unused)
{
	bool any = false;

	while (uring.inflight < ENTRIES) {
		struct io_uring_sqe *sqe;
		struct block_req *req = take_waiting();

		if (!req)
			break;
		sqe = io_uring_get_sqe(&uring.ring);
		if (!sqe) { /* left over from a submission the kernel refused for lack of memory */
			file_retry(req);
			break;
		}
		prepare(sqe, req);
		uring.inflight++;
		any = true;
	}
	/* On -EAGAIN or -EBUSY the entries stay in the ring: try again in the next turn of the loop. */
	if ((any || io_uring_sq_ready(&uring.ring)) && uring.submit(&uring.ring) < 0)
		bh_schedule(&uring.bh);
}

static void complete(struct block_req *req, int res)
{
	uring.inflight--;
	if (res >= 0 && (uint64_t)res == req->len)
		block_req_finish(req, 0);
	else if (res >= 0 || res == -EAGAIN || res == -EINTR || res == -EOPNOTSUPP)
		file_retry(req);
	else
		block_req_finish(req, res);
}

static void on_event(void *unused, int fd, unsigned events)
{
	struct io_uring_cqe *cqe;
	unsigned head;

	for (;;) {
		struct block_req *req = NULL;
		int res = 0;

		io_uring_for_each_cqe(&uring.ring, head, cqe)
		{
			req = io_uring_cqe_get_data(cqe);
			res = cqe->res;
			break;
		}
		if (!req)
			break;
		io_uring_cq_advance(&uring.ring, 1); /* done() may submit and complete more */
		complete(req, res);
	}
	submit_waiting(NULL);
}

static int load_library(struct err *e)
{
	if (uring.library)
		return 0;
	uring.library = dlopen("liburing.so.2", RTLD_NOW | RTLD_LOCAL);
	if (!uring.library)
		return err_set(e, ENOSYS, "aio=io_uring: %s (install liburing2, or use aio=threads)", dlerror());
	uring.queue_init = (int (*)(unsigned, struct io_uring *, unsigned))dlsym(uring.library, "io_uring_queue_init");
	uring.queue_exit = (void (*)(struct io_uring *))dlsym(uring.library, "io_uring_queue_exit");
	uring.submit = (int (*)(struct io_uring *))dlsym(uring.library, "io_uring_submit");
	if (!uring.queue_init || !uring.queue_exit || !uring.submit)
		return err_set(e, ENOSYS, "aio=io_uring: liburing.so.2 lacks a function we need");
	return 0;
}

static int uring_start(struct err *e)
{
	int r;

	if (uring.ready)
		return 0;
	r = load_library(e);
	if (r)
		return r;
	r = uring.queue_init(ENTRIES, &uring.ring, 0);
	if (r)
		return err_errno(e, -r,
				 "aio=io_uring: cannot set up a ring (kernel.io_uring_disabled? use aio=threads)");
	uring.tail = &uring.head;
	bh_init(&uring.bh, loop_main(), NULL, submit_waiting, NULL);
	uring.watch = loop_watch(loop_main(), uring.ring.ring_fd, LOOP_READ, NULL, on_event, NULL, e);
	if (!uring.watch) {
		uring.queue_exit(&uring.ring);
		return -ENOMEM;
	}
	uring.ready = true;
	return 0;
}

static void uring_stop(void)
{
	if (!uring.ready)
		return;
	loop_unwatch(uring.watch);
	bh_cancel(&uring.bh);
	uring.queue_exit(&uring.ring);
	uring.ready = false;
}

static void uring_submit(struct block_node *n, struct block_req *req, int fd)
{
	req->node = n;
	req->next = NULL;
	req->scratch[1] = (uint64_t)fd;
	pthread_mutex_lock(&uring.lock);
	*uring.tail = req;
	uring.tail = &req->next;
	pthread_mutex_unlock(&uring.lock);
	bh_schedule(&uring.bh);
}

static bool uring_cancel(struct block_req *req)
{
	struct block_req **p;
	bool found = false;

	pthread_mutex_lock(&uring.lock);
	for (p = &uring.head; *p && *p != req; p = &(*p)->next)
		;
	if (*p) {
		*p = req->next;
		if (!*p)
			uring.tail = p;
		found = true;
	}
	pthread_mutex_unlock(&uring.lock);
	if (found)
		block_req_complete(req, -ECANCELED);
	return found;
}

#else /* built without liburing */

static int uring_start(struct err *e)
{
	return err_set(e, ENOSYS, "aio=io_uring: this vmm was built without liburing; use aio=threads or aio=native");
}

static void uring_stop(void)
{
}

/* Not reached: no image opens without a started engine. */
static void uring_submit(struct block_node *n, struct block_req *req, int fd)
{
	block_req_complete(req, -ENOSYS);
}

static bool uring_cancel(struct block_req *req)
{
	return false;
}

#endif

const struct block_engine engine_io_uring = {
	.name = "io_uring",
	.start = uring_start,
	.submit = uring_submit,
	.cancel = uring_cancel,
	.stop = uring_stop,
};
