/*
 * Format `raw`: the guest's bytes are the file's. If raw was only guessed, a guest could write the header of another
 * format into block 0 and have the next start open whatever that header points to; such writes are refused, as QEMU
 * does.
 */
#include "src/block/block_private.h"

#include <errno.h>

enum { PROBE_BYTES = 512 };

static bool writes_other_format(const struct block_req *req)
{
	uint8_t head[PROBE_BYTES];
	size_t len = MIN(req->len, sizeof(head));

	iov_to_buf(req->iov, req->n_iov, 0, head, len);
	return probe_format(head, len) != NULL;
}

static void raw_submit(struct block_node *n, struct block_req *req)
{
	/* Guests write whole sectors, so only offset 0 can touch the magic; format layers do not sit on raw. */
	if (n->probed && req->op == BLOCK_WRITE && req->offset < PROBE_BYTES &&
	    (req->offset || writes_other_format(req)))
		block_req_complete(req, -EPERM);
	else
		n->file->drv->submit(n->file, req);
}

static void raw_close(struct block_node *n)
{
}

static const struct block_driver driver_raw = {.name = "raw", .submit = raw_submit, .close = raw_close};

struct block_node *raw_open(struct block_node *file, const char *name, bool probed, struct err *e)
{
	struct block_node *n = node_new(&driver_raw, name, e);

	if (!n) {
		node_unref(file);
		return NULL;
	}
	n->file = file;
	n->filename = xstrdup(file->filename);
	n->size = file->size;
	n->readonly = file->readonly;
	n->probed = probed;
	n->no_flush = file->no_flush;
	n->unmap = file->unmap;
	n->direct = file->direct;
	n->aio = file->aio;
	n->detect_zeroes = file->detect_zeroes;
	n->physical_sector = file->physical_sector;
	return n;
}
