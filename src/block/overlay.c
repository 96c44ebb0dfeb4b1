/*
 * snapshot=on: a temporary copy-on-write layer. Writes go to an unlinked sparse file in TMPDIR (/var/tmp without it),
 * of the image's size and at the same offsets; a bitmap in memory says for each 512-byte sector whether the overlay or
 * the image holds it. Everything is gone when vmm ends. The bitmap is an untouched mapping until written to: 1 KiB of
 * memory per 4 MiB of written disk area, nothing for the rest.
 *
 * Guests write whole sectors, so no sector is ever copied. The image below is opened read-only.
 */
#include "src/block/block_private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { SECTOR_SHIFT = 9, WORD_BITS = 64 };

struct overlay {
	struct block_node *top; /* the temporary file; node->file is the base */
	uint64_t *map;          /* accessed atomically: submitters read while the main loop sets */
	size_t map_bytes;
};

/* A request split into parts for the two layers. */
struct overlay_op {
	struct block_node *node;
	struct block_req *parent;
	unsigned pending;
	int ret;
	struct part {
		struct block_req req;
		struct iovec *iov; /* of this part; NULL: the parent's */
		struct overlay_op *op;
	} parts[];
};

static bool sector_is_ours(const struct overlay *o, uint64_t sector)
{
	return __atomic_load_n(&o->map[sector / WORD_BITS], __ATOMIC_ACQUIRE) >> (sector % WORD_BITS) & 1;
}

/* How many sectors from `sector` on, below `end`, are in the same layer. */
static uint64_t run_length(const struct overlay *o, uint64_t sector, uint64_t end, bool ours)
{
	uint64_t at = sector;

	while (at < end) {
		uint64_t word = __atomic_load_n(&o->map[at / WORD_BITS], __ATOMIC_ACQUIRE);

		if (at % WORD_BITS == 0 && end - at >= WORD_BITS && word == (ours ? UINT64_MAX : 0))
			at += WORD_BITS;
		else if ((word >> (at % WORD_BITS) & 1) == ours)
			at++;
		else
			break;
	}
	return at - sector;
}

static void mark_ours(struct overlay *o, uint64_t sector, uint64_t n)
{
	while (n) {
		uint64_t bit = sector % WORD_BITS, take = MIN(n, WORD_BITS - bit);
		uint64_t mask = take == WORD_BITS ? UINT64_MAX : ((1ull << take) - 1) << bit;

		__atomic_fetch_or(&o->map[sector / WORD_BITS], mask, __ATOMIC_RELEASE);
		sector += take;
		n -= take;
	}
}

static void free_op(struct overlay_op *op, unsigned n_parts)
{
	for (unsigned i = 0; i < n_parts; i++)
		free(op->parts[i].iov);
	free(op);
}

static struct overlay_op *new_op(struct block_node *n, struct block_req *parent, unsigned n_parts)
{
	struct overlay_op *op = calloc(1, sizeof(*op) + n_parts * sizeof(op->parts[0]));

	if (!op)
		return NULL;
	op->node = n;
	op->parent = parent;
	op->pending = n_parts;
	return op;
}

/* Main loop. */
static void part_done(struct block_req *req, int ret)
{
	struct part *part = container_of(req, struct part, req);
	struct overlay_op *op = part->op;

	if (ret && !op->ret)
		op->ret = ret;
	if (!ret && req->op != BLOCK_READ)
		mark_ours(op->node->priv, req->offset >> SECTOR_SHIFT, req->len >> SECTOR_SHIFT);
	free(part->iov);
	if (--op->pending)
		return;
	block_req_finish(op->parent, op->ret);
	free(op);
}

static void start_part(struct overlay_op *op, struct part *part, struct block_node *layer)
{
	part->op = op;
	part->req.done = part_done;
	layer->drv->submit(layer, &part->req);
}

/* WRITE, WRITE_ZEROES and DISCARD (which reads as zeroes afterwards) all go to the overlay as one part. */
static void submit_write(struct block_node *n, struct block_req *req)
{
	struct overlay *o = n->priv;
	struct overlay_op *op;

	if ((req->offset | req->len) & 511) {
		block_req_complete(req, -EINVAL);
		return;
	}
	op = new_op(n, req, 1);
	if (!op) {
		block_req_complete(req, -ENOMEM);
		return;
	}
	op->parts[0].req = (struct block_req){
		.op = req->op == BLOCK_DISCARD ? BLOCK_WRITE_ZEROES : req->op,
		.offset = req->offset,
		.len = req->len,
		.iov = req->iov,
		.n_iov = req->n_iov,
	};
	start_part(op, &op->parts[0], o->top);
}

/* Consecutive sectors in the same layer. */
struct run {
	uint64_t stop; /* first sector behind it */
	bool ours;
};

/*
 * One pass over the map, each sector looked at once: the map may gain bits meanwhile (another request's write
 * completes), and whichever layer a sector is then read from is what a guest racing with itself may see. Returns the
 * number of runs, or -ENOMEM; *runs is malloc'ed.
 */
static int find_runs(const struct overlay *o, uint64_t sector, uint64_t end, struct run **runs)
{
	size_t n = 0, cap = 0;

	*runs = NULL;
	while (sector < end) {
		bool ours = sector_is_ours(o, sector);

		sector += MAX(run_length(o, sector, end, ours), 1ull);
		if (n == cap) {
			struct run *bigger = realloc(*runs, (cap = cap ? cap * 2 : 8) * sizeof(**runs));

			if (!bigger)
				return -ENOMEM;
			*runs = bigger;
		}
		(*runs)[n++] = (struct run){sector, ours};
	}
	return (int)n;
}

static int prepare_parts(struct overlay_op *op, const struct run *runs, unsigned n)
{
	struct block_req *req = op->parent;
	uint64_t at = req->offset, end = req->offset + req->len, got;

	for (unsigned i = 0; i < n; i++) {
		struct part *part = &op->parts[i];
		uint64_t stop = MIN(runs[i].stop << SECTOR_SHIFT, end);

		part->iov = calloc((size_t)req->n_iov, sizeof(struct iovec));
		if (!part->iov)
			return -ENOMEM;
		part->req = (struct block_req){.op = BLOCK_READ, .offset = at, .len = stop - at, .iov = part->iov};
		part->req.n_iov =
			iov_slice(part->iov, req->n_iov, req->iov, req->n_iov, at - req->offset, stop - at, &got);
		at = stop;
	}
	return 0;
}

static void submit_read(struct block_node *n, struct block_req *req)
{
	struct overlay *o = n->priv;
	uint64_t first = req->offset >> SECTOR_SHIFT, end = (req->offset + req->len + 511) >> SECTOR_SHIFT;
	struct overlay_op *op = NULL;
	struct run *runs;
	int n_runs = find_runs(o, first, end, &runs);

	if (n_runs == 1) {
		struct block_node *layer = runs[0].ours ? o->top : n->file;

		layer->drv->submit(layer, req);
		free(runs);
		return;
	}
	if (n_runs > 0)
		op = new_op(n, req, (unsigned)n_runs);
	if (!op || prepare_parts(op, runs, (unsigned)n_runs)) {
		if (op)
			free_op(op, (unsigned)n_runs);
		block_req_complete(req, -ENOMEM);
	} else {
		for (int i = 0; i < n_runs; i++) /* op is gone once the last one is done */
			start_part(op, &op->parts[i], runs[i].ours ? o->top : n->file);
	}
	free(runs);
}

static void overlay_submit(struct block_node *n, struct block_req *req)
{
	if (req->op == BLOCK_FLUSH)
		block_req_complete(req, 0); /* nothing here outlives the process */
	else if (req->op == BLOCK_READ)
		submit_read(n, req);
	else
		submit_write(n, req);
}

static void overlay_close(struct block_node *n)
{
	struct overlay *o = n->priv;

	node_unref(o->top);
	munmap(o->map, o->map_bytes);
	free(o);
}

static const struct block_driver driver_overlay = {
	.name = "overlay",
	.submit = overlay_submit,
	.close = overlay_close,
};

struct block_node *overlay_open(struct block_node *base, const char *name, struct err *e)
{
	struct block_node *n = NULL, *top = file_open_temporary(base->size, e);
	size_t bytes = ALIGN_UP((base->size >> SECTOR_SHIFT) / 8 + 8, 4096ull);
	struct overlay *o;
	void *map;

	map = top ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
		  : MAP_FAILED;
	if (top && map == MAP_FAILED)
		err_errno(e, errno, "Could not map the block map of a temporary overlay");
	else if (top)
		n = node_new(&driver_overlay, name, e);
	if (!n) {
		if (map != MAP_FAILED)
			munmap(map, bytes);
		node_unref(top);
		node_unref(base);
		return NULL;
	}
	o = xzalloc(sizeof(*o));
	*o = (struct overlay){.top = top, .map = map, .map_bytes = bytes};
	n->priv = o;
	n->file = base;
	n->filename = xstrdup(base->filename);
	n->size = base->size;
	n->no_flush = true;
	n->aio = base->aio;
	n->physical_sector = 512;
	return n;
}
