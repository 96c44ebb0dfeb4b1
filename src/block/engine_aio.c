/*
 * aio=native: Linux asynchronous I/O (io_submit(2)), for files opened with O_DIRECT. Requests of all images are
 * gathered while the main loop is busy and handed to the kernel in one system call; completions arrive on an eventfd.
 * The system calls are made directly: libaio adds only their names.
 *
 * Set up at the first open with aio=native, before the sandbox closes io_setup(2).
 */
#include "src/block/block_private.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <assert.h>

enum { DEPTH = 512, BATCH = 64 };

static struct {
	pthread_mutex_t lock; /* of the waiting list */
	aio_context_t ctx;
	int event_fd;
	struct watch *watch;
	struct bh submit;
	struct block_req *head, **tail;
	unsigned inflight; /* main thread */
} aio = {.lock = PTHREAD_MUTEX_INITIALIZER, .event_fd = -1};

static_assert(sizeof(struct iocb) <= sizeof(((struct block_req *)0)->scratch), "an iocb lives in the request");

static struct iocb *iocb_of(struct block_req *req)
{
	return (struct iocb *)req->scratch;
}

static struct block_req *take_waiting(void)
{
	struct block_req *req;

	pthread_mutex_lock(&aio.lock);
	req = aio.head;
	if (req) {
		aio.head = req->next;
		if (!aio.head)
			aio.tail = &aio.head;
	}
	pthread_mutex_unlock(&aio.lock);
	return req;
}

/* Put those the kernel did not take back in front, in their order. */
static void put_back(struct iocb **cbs, int n)
{
	pthread_mutex_lock(&aio.lock);
	while (n--) {
		struct block_req *req = (struct block_req *)(uintptr_t)cbs[n]->aio_data;

		req->next = aio.head;
		if (!aio.head)
			aio.tail = &req->next;
		aio.head = req;
	}
	pthread_mutex_unlock(&aio.lock);
}

static void submit_waiting(void *unused)
{
	struct iocb *cbs[BATCH];
	struct block_req *req;

	for (;;) {
		int n = 0;
		long r;

		while (n < BATCH && aio.inflight + n < DEPTH && (req = take_waiting()))
			cbs[n++] = iocb_of(req);
		if (!n)
			return;
		r = syscall(SYS_io_submit, aio.ctx, (long)n, cbs);
		if (r < 0 && errno == EAGAIN && aio.inflight) {
			put_back(cbs, n); /* a completion tries again */
			return;
		}
		if (r <=
		    0) { /* the first one is to blame, or the kernel has no room at all: the slow way always works */
			file_retry((struct block_req *)(uintptr_t)cbs[0]->aio_data);
			put_back(cbs + 1, n - 1);
			continue;
		}
		aio.inflight += r;
		put_back(cbs + r, n - (int)r);
	}
}

static void complete(const struct io_event *ev)
{
	struct block_req *req = (struct block_req *)(uintptr_t)ev->data;

	aio.inflight--;
	if (ev->res == (int64_t)req->len)
		block_req_finish(req, 0);
	else if (ev->res >= 0) /* short: end of file, or the device gave up half way */
		file_retry(req);
	else
		block_req_finish(req, (int)ev->res);
}

static void on_event(void *unused, int fd, unsigned events)
{
	struct io_event ev[BATCH];
	struct timespec zero = {0};
	uint64_t count;
	long n;

	if (read(fd, &count, sizeof(count)) < 0)
		return;
	while ((n = syscall(SYS_io_getevents, aio.ctx, 0L, (long)BATCH, ev, &zero)) > 0)
		for (long i = 0; i < n; i++)
			complete(&ev[i]);
	submit_waiting(NULL);
}

static void aio_engine_stop(void)
{
	loop_unwatch(aio.watch);
	aio.watch = NULL;
	if (aio.event_fd >= 0) {
		bh_cancel(&aio.submit);
		close(aio.event_fd);
	}
	aio.event_fd = -1;
	if (aio.ctx)
		syscall(SYS_io_destroy, aio.ctx);
	aio.ctx = 0;
}

static int aio_engine_start(struct err *e)
{
	int r;

	if (aio.ctx)
		return 0;
	if (syscall(SYS_io_setup, (long)DEPTH, &aio.ctx))
		return err_errno(e, errno, "aio=native: io_setup failed (limit: /proc/sys/fs/aio-max-nr)");
	aio.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (aio.event_fd < 0) {
		r = err_errno(e, errno, "aio=native: cannot create an eventfd");
		aio_engine_stop();
		return r;
	}
	aio.tail = &aio.head;
	bh_init(&aio.submit, loop_main(), NULL, submit_waiting, NULL);
	aio.watch = loop_watch(loop_main(), aio.event_fd, LOOP_READ, NULL, on_event, NULL, e);
	if (!aio.watch) {
		aio_engine_stop();
		return -ENOMEM;
	}
	return 0;
}

static void aio_engine_submit(struct block_node *n, struct block_req *req, int fd)
{
	struct iocb *cb = iocb_of(req);

	*cb = (struct iocb){
		.aio_data = (uintptr_t)req,
		.aio_lio_opcode = req->op == BLOCK_READ ? IOCB_CMD_PREADV : IOCB_CMD_PWRITEV,
		.aio_fildes = fd,
		.aio_buf = (uintptr_t)req->iov,
		.aio_nbytes = req->n_iov,
		.aio_offset = (int64_t)req->offset,
		.aio_flags = IOCB_FLAG_RESFD,
		.aio_resfd = aio.event_fd,
		.aio_rw_flags = req->stable ? RWF_DSYNC : 0,
	};
	req->node = n;
	req->next = NULL;
	pthread_mutex_lock(&aio.lock);
	*aio.tail = req;
	aio.tail = &req->next;
	pthread_mutex_unlock(&aio.lock);
	bh_schedule(&aio.submit);
}

static bool aio_engine_cancel(struct block_req *req)
{
	struct block_req **p;
	bool found = false;

	pthread_mutex_lock(&aio.lock);
	for (p = &aio.head; *p && *p != req; p = &(*p)->next)
		;
	if (*p) {
		*p = req->next;
		if (!*p)
			aio.tail = p;
		found = true;
	}
	pthread_mutex_unlock(&aio.lock);
	if (found)
		block_req_complete(req, -ECANCELED);
	return found;
}

const struct block_engine engine_aio = {
	.name = "native",
	.start = aio_engine_start,
	.submit = aio_engine_submit,
	.cancel = aio_engine_cancel,
	.stop = aio_engine_stop,
};
