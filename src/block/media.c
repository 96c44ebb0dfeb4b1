/*
 * Removable media: the operator's commands (eject, change, open and close the tray) against the device's callbacks.
 * Semantics and error texts are those of QEMU's blockdev commands, which management software matches.
 */
#include "src/block/block_private.h"

#include <errno.h>
#include <stdlib.h>

void block_set_media_ops(struct block *b, const struct block_media_ops *ops, void *opaque, pthread_mutex_t *lock,
			 const char *qdev_id)
{
	b->media = ops;
	b->media_opaque = opaque;
	b->media_lock = lock;
	snprintf(b->qdev_id, sizeof(b->qdev_id), "%s", qdev_id ? qdev_id : "");
}

static void lock(struct block *b)
{
	if (b->media_lock)
		pthread_mutex_lock(b->media_lock);
}

static void unlock(struct block *b)
{
	if (b->media_lock)
		pthread_mutex_unlock(b->media_lock);
}

bool block_is_removable(const struct block *b)
{
	return (b->media && b->media->changed) || (!b->owner && (b->opts.media == 1 || !b->root));
}

bool block_has_tray(const struct block *b)
{
	return b->media && b->media->set_tray;
}

bool block_tray_is_open(const struct block *b)
{
	bool open = false;

	if (b->media && b->media->tray_open) {
		lock((struct block *)b);
		open = b->media->tray_open(b->media_opaque);
		unlock((struct block *)b);
	}
	return open;
}

bool block_is_locked(const struct block *b)
{
	bool locked = false;

	if (b->media && b->media->tray_locked) {
		lock((struct block *)b);
		locked = b->media->tray_locked(b->media_opaque);
		unlock((struct block *)b);
	}
	return locked;
}

const char *block_qdev_id(const struct block *b)
{
	return b->qdev_id;
}

void block_tray_moved(struct block *b, bool open)
{
	const char *device = *b->qdev_id ? b->qdev_id : b->owner ? b->owner : "";
	char json[256];

	snprintf(json, sizeof(json), "{\"device\": \"%s\", \"id\": \"%s\", \"tray-open\": %s}", b->id, device,
		 open ? "true" : "false");
	block_emit("DEVICE_TRAY_MOVED", json);
}

static const char *shown_name(const struct block *b)
{
	return *b->id ? b->id : *b->qdev_id ? b->qdev_id : block_id(b);
}

/* 0: open; -ENOSYS: there is no tray to open; else the reason. */
static int open_tray(struct block *b, bool force, struct err *e)
{
	bool locked;

	if (!block_is_removable(b))
		return err_set(e, ENOTSUP, "Device '%s' is not removable", shown_name(b));
	if (!block_has_tray(b))
		return err_set(e, ENOSYS, "Device '%s' does not have a tray", shown_name(b));
	if (block_tray_is_open(b))
		return 0;
	lock(b);
	locked = b->media->tray_locked && b->media->tray_locked(b->media_opaque);
	if (locked && b->media->eject_request)
		b->media->eject_request(b->media_opaque, force);
	if (!locked || force)
		b->media->set_tray(b->media_opaque, true);
	unlock(b);
	if (locked && !force)
		return err_set(e, EINPROGRESS,
			       "Device '%s' is locked and force was not specified, wait for tray to open and try again",
			       shown_name(b));
	return 0;
}

/* With the device looking away, take the old medium out (new_root NULL) or put another one in; node: whose it is. */
static void swap_medium(struct block *b, struct block_node *new_root, struct block *node)
{
	struct block_node *old;

	lock(b);
	old = b->root;
	b->root = NULL; /* from here on requests find no medium */
	unlock(b);
	block_drain(b);
	node_unref(old);
	block_set_medium(b, node);
	lock(b);
	b->root = new_root;
	if (b->media && b->media->changed && (old || new_root))
		b->media->changed(b->media_opaque, new_root);
	unlock(b);
}

int block_open_tray(struct block *b, bool force, struct err *e)
{
	int r = open_tray(b, force, e);

	if (r == -ENOSYS || r == -EINPROGRESS) { /* both are fine for blockdev-open-tray */
		if (e)
			*e = ERR_INIT;
		return 0;
	}
	return r;
}

int block_close_tray(struct block *b, struct err *e)
{
	if (!block_is_removable(b))
		return err_set(e, ENOTSUP, "Device '%s' is not removable", shown_name(b));
	if (!block_has_tray(b) || !block_tray_is_open(b))
		return 0;
	lock(b);
	b->media->set_tray(b->media_opaque, false);
	unlock(b);
	return 0;
}

int block_remove_medium(struct block *b, struct err *e)
{
	if (!block_is_removable(b))
		return err_set(e, ENOTSUP, "Device '%s' is not removable", shown_name(b));
	if (block_has_tray(b) && !block_tray_is_open(b))
		return err_set(e, EINVAL, "Tray of device '%s' is not open", shown_name(b));
	if (b->root)
		swap_medium(b, NULL, NULL);
	return 0;
}

int block_insert_medium(struct block *b, const char *node_name, struct err *e)
{
	struct block_node *n = node_find(node_name);
	struct block *holder = n ? block_find(node_name) : NULL;
	int r;

	if (!n)
		return err_set(e, ENOENT, "Node '%.200s' not found", node_name);
	if (holder && (holder->owner || holder->user || !block_is_node(holder)))
		return err_set(e, EBUSY, "Node '%s' is already in use", node_name);
	if (!block_is_removable(b))
		return err_set(e, ENOTSUP, "Device '%s' is not removable", shown_name(b));
	if (block_has_tray(b) && !block_tray_is_open(b))
		return err_set(e, EINVAL, "Tray of device '%s' is not open", shown_name(b));
	if (b->root)
		return err_set(e, EBUSY, "There already is a medium in device '%s'", shown_name(b));
	r = holder ? block_use_node(holder, shown_name(b), e) : 0;
	if (r)
		return r;
	swap_medium(b, node_ref(n), holder);
	return 0;
}

int block_eject(struct block *b, bool force, struct err *e)
{
	struct err scratch = ERR_INIT;
	int r = open_tray(b, force, &scratch);

	if (r && r != -ENOSYS) {
		if (e)
			*e = scratch;
		return r;
	}
	return block_remove_medium(b, e);
}

static int medium_config(struct block *b, const char *filename, const char *format, const char *mode,
			 struct node_config *c, struct err *e)
{
	int r = options_node_config(&b->opts, true, c, e);

	if (r)
		return r;
	c->filename = filename;
	c->node_name = c->file_node_name = NULL;
	if (format)
		c->format = format;
	if (!mode || !strcmp(mode, "retain"))
		c->readonly = block_readonly(b);
	else if (!strcmp(mode, "read-only"))
		c->readonly = true;
	else if (!strcmp(mode, "read-write"))
		c->readonly = false;
	else
		return err_set(e, EINVAL, "Parameter 'read-only-mode' does not accept value '%s'", mode);
	return 0;
}

int block_change_medium(struct block *b, const char *filename, const char *format, const char *read_only_mode,
			bool force, struct err *e)
{
	struct err scratch = ERR_INIT;
	struct node_config c;
	struct block_node *n;
	int r;

	if (!block_is_removable(b))
		return err_set(e, ENOTSUP, "Device '%s' is not removable", shown_name(b));
	if (medium_config(b, filename, format, read_only_mode, &c, e))
		return -EINVAL;
	n = node_open(&c, e);
	if (!n)
		return e && e->code ? -e->code : -EIO;
	r = open_tray(b, force, &scratch);
	if (r && r != -ENOSYS) {
		node_unref(n);
		if (e)
			*e = scratch;
		return r;
	}
	if (b->root)
		swap_medium(b, NULL, NULL);
	swap_medium(b, n, NULL);
	return block_close_tray(b, e);
}
