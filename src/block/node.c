/* Nodes: names, references, and opening a chain from the protocol up. */
#include "src/block/block_private.h"

#include <errno.h>
#include <stdlib.h>

#include "vmm/log.h"

static struct block_node *nodes;
static unsigned next_number = 1;

struct block_node *node_find(const char *name)
{
	for (struct block_node *n = nodes; n; n = n->next)
		if (!strcmp(n->name, name))
			return n;
	return NULL;
}

struct block_node *node_next(struct block_node *prev)
{
	return prev ? prev->next : nodes;
}

struct block_node *node_new(const struct block_driver *drv, const char *name, struct err *e)
{
	struct block_node *n;

	if (name && (!block_id_wellformed(name) || strlen(name) >= sizeof(n->name))) {
		err_set(e, EINVAL,
			"Invalid node-name: '%s' (a letter, then letters, digits, '-', '.', '_'; at most 31)", name);
		return NULL;
	}
	if (name && node_find(name)) {
		err_set(e, EEXIST, "Duplicate nodes with node-name='%s'", name);
		return NULL;
	}
	n = xzalloc(sizeof(*n));
	n->drv = drv;
	n->refs = 1;
	if (name)
		snprintf(n->name, sizeof(n->name), "%s", name);
	else
		snprintf(n->name, sizeof(n->name), "#block%03u", next_number++);
	n->next = nodes;
	nodes = n;
	return n;
}

struct block_node *node_ref(struct block_node *n)
{
	n->refs++;
	return n;
}

void node_unref(struct block_node *n)
{
	struct block_node **p, *below;

	if (!n || --n->refs)
		return;
	for (p = &nodes; *p != n; p = &(*p)->next)
		;
	*p = n->next;
	below = n->file;
	n->drv->close(n);
	free(n->filename);
	free(n);
	node_unref(below);
}

/* Synchronous read through a node that no device uses yet. */
struct head_read {
	struct block_req req;
	bool done;
};

static void head_read_done(struct block_req *req, int ret)
{
	container_of(req, struct head_read, req)->done = true;
}

static int read_head(struct block_node *n, uint8_t *buf, size_t len)
{
	struct iovec iov = {buf, len};
	struct head_read h = {
		.req = {.op = BLOCK_READ, .len = len, .iov = &iov, .n_iov = 1, .done = head_read_done},
	};

	n->drv->submit(n, &h.req);
	while (!h.done)
		loop_step(loop_main(), -1);
	return h.req.ret;
}

/* Find out the format, or check the one given. *probed: raw was only guessed. */
static int settle_format(struct block_node *file, const char *format, bool *probed, struct err *e)
{
	uint8_t head[512] = {0};
	const char *found;
	int r;

	*probed = false;
	if (format)
		return format_check_name(format, e);
	r = read_head(file, head, MIN(sizeof(head), file->size));
	if (r)
		return err_errno(e, -r, "Could not read image '%s' for determining its format", file->filename);
	found = probe_format(head, sizeof(head));
	if (found)
		return err_set(e, ENOTSUP,
			       "Image '%s' is in format '%s', which this version cannot use: convert it (qemu-img "
			       "convert -O raw), or say format=raw to use its bytes as they are",
			       file->filename, found);
	*probed = !file->readonly;
	if (*probed)
		log_warn("block",
			 "Image format was not specified for '%s' and probing guessed raw. Automatically detecting the "
			 "format is dangerous for raw images, write operations on block 0 will be restricted. Specify "
			 "the 'raw' format explicitly to remove the restrictions.",
			 file->filename);
	return 0;
}

struct block_node *node_open(const struct node_config *c, struct err *e)
{
	struct node_config base = *c;
	struct block_node *file, *n;
	bool probed;

	if (c->format && format_check_name(c->format, e))
		return NULL;
	if (c->snapshot)
		base.readonly = true;
	file = file_open(&base, e);
	if (!file)
		return NULL;
	if (settle_format(file, c->format, &probed, e)) {
		node_unref(file);
		return NULL;
	}
	n = raw_open(file, c->snapshot ? NULL : c->node_name, probed, e);
	if (n && c->snapshot)
		n = overlay_open(n, c->node_name, e);
	return n;
}
