/*
 * Nodes and the devices that use them. A -blockdev node stays the operator's: a device gets a drive of its own on it,
 * so that the medium can be taken out and the node deleted while the device lives on, as libvirt does.
 */
#include "src/block/block_private.h"

#include <errno.h>
#include <stdlib.h>

bool block_is_node(const struct block *b)
{
	return !b->from_drive && !b->anonymous && !b->device_owned;
}

static int use_node(struct block *node, const char *user, struct err *e)
{
	if (node->owner || node->user)
		return err_set(e, EBUSY, "Drive '%s' is already in use by '%s'", block_id(node),
			       node->user ? node->user : node->owner);
	node->user = xstrdup(user);
	return 0;
}

int block_use_node(struct block *node, const char *user, struct err *e)
{
	return use_node(node, user, e);
}

void block_unuse_node(struct block *node)
{
	if (!node)
		return;
	free(node->user);
	node->user = NULL;
}

struct block *block_attach(const char *id, const char *owner, struct err *e)
{
	struct block *node = block_find(id), *b;

	if (!node) {
		err_set(e, ENOENT, "can't find value '%s'", id);
		return NULL;
	}
	if (!block_is_node(node))
		return block_claim(node, owner, e) ? NULL : node;
	if (use_node(node, owner, e))
		return NULL;
	b = block_new_anonymous(owner);
	b->opts.discard = node->opts.discard;
	b->opts.detect_zeroes = node->opts.detect_zeroes;
	b->write_cache = node->write_cache;
	b->root = node_ref(node->root);
	b->medium = node;
	return b;
}

/* What the drive has in it from now on; the node of the old medium is free for others. */
void block_set_medium(struct block *b, struct block *node)
{
	block_unuse_node(b->medium);
	b->medium = node;
}

void block_forget_medium(struct block *node)
{
	for (struct block *b = block_next(NULL); b; b = block_next(b))
		if (b->medium == node)
			b->medium = NULL;
}

int block_delete_node(const char *name, struct err *e)
{
	struct block *b = block_find(name);

	if (b && !strcmp(b->id, name))
		b = NULL; /* a drive of that name */
	if (!b && node_find(name))
		return err_set(e, EPERM, "Node %s is not owned by the monitor", name);
	if (!b)
		return err_set(e, ENOENT, "Failed to find node with node-name='%.200s'", name);
	if (b->owner || b->user || (b->root && b->root->refs > 1))
		return err_set(e, EBUSY, "Block device %s is in use", name);
	block_close(b);
	return 0;
}

struct block *block_find_node(const char *name)
{
	struct block *found = block_find(name);

	for (struct block *b = block_next(NULL); b && !found; b = block_next(b))
		if (b->root && !strcmp(b->root->name, name))
			found = b;
	return found;
}

static void node_info(const struct block_node *n, struct block_info *info)
{
	const struct block_node *bottom = n;

	while (bottom->file)
		bottom = bottom->file;
	*info = (struct block_info){
		.node_name = n->name,
		.driver = n->drv->name,
		.protocol = bottom->drv->name,
		.filename = n->filename,
		.parent_name = n->file ? n->file->name : NULL,
		.detect_zeroes = options_detect_zeroes_name(bottom->detect_zeroes),
		.aio = options_aio_name(bottom->aio),
		.readonly = n->readonly,
		.direct = bottom->direct,
		.no_flush = bottom->no_flush,
		.writeback = true,
		.snapshot = !strcmp(n->drv->name, "overlay"),
		.size = n->size,
		.written_end = __atomic_load_n(&bottom->written_end, __ATOMIC_RELAXED),
		.write_threshold = __atomic_load_n(&bottom->write_threshold, __ATOMIC_RELAXED),
	};
}

bool block_node_at(size_t i, struct block_info *info)
{
	for (struct block_node *n = node_next(NULL); n; n = node_next(n))
		if (!i--) {
			node_info(n, info);
			return true;
		}
	return false;
}

int block_set_write_threshold(const char *node_name, uint64_t bytes, struct err *e)
{
	struct block_node *n = node_find(node_name);

	if (!n)
		return err_set_class(e, ERR_GENERIC, ENOENT, "Device '%.200s' not found", node_name);
	while (n->file) /* where writes end up */
		n = n->file;
	__atomic_store_n(&n->write_threshold, 0, __ATOMIC_RELEASE);
	snprintf(n->threshold_name, sizeof(n->threshold_name), "%s", node_name);
	__atomic_store_n(&n->write_threshold, bytes, __ATOMIC_RELEASE);
	return 0;
}

/* ---- size ---- */

static int resize_file(struct block_node *bottom, uint64_t size, struct err *e)
{
	if (!bottom->drv->resize)
		return err_set(e, ENOTSUP, "Image format driver does not support resize");
	return bottom->drv->resize(bottom, size, e);
}

int block_resize(struct block *b, uint64_t size, struct err *e)
{
	struct block_node *bottom = b->root;
	int r;

	if (!bottom)
		return err_set_class(e, ERR_GENERIC, ENOMEDIUM, "Device '%s' has no medium", block_id(b));
	if (bottom->readonly)
		return err_set(e, EACCES, "Image is read-only");
	if (!strcmp(bottom->drv->name, "overlay"))
		return err_set(e, ENOTSUP, "A drive with snapshot=on cannot be resized");
	if (size % 512)
		return err_set(e, EINVAL, "The new size must be a multiple of 512");
	for (struct block *other = block_next(NULL); other; other = block_next(other))
		if (other->root == b->root)
			block_drain(other);
	while (bottom->file)
		bottom = bottom->file;
	r = resize_file(bottom, size, e);
	if (r)
		return r;
	for (struct block_node *n = node_next(NULL); n; n = node_next(n))
		if (n == bottom || n->file == bottom)
			__atomic_store_n(&n->size, size, __ATOMIC_RELEASE);
	for (struct block *other = block_next(NULL); other; other = block_next(other)) {
		if (!other->media || !other->media->resized || !other->root ||
		    (other->root != bottom && other->root->file != bottom))
			continue;
		if (other->media_lock)
			pthread_mutex_lock(other->media_lock);
		other->media->resized(other->media_opaque);
		if (other->media_lock)
			pthread_mutex_unlock(other->media_lock);
	}
	return 0;
}
