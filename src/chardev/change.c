/*
 * Another back end under a front end that goes on: a serial port moves from a pty to a socket without the guest
 * noticing. The new back end is opened first, so that a mistake costs nothing. The front end changes hands under its
 * own lock: vCPUs that write hold it, and find either the old one or the new one.
 */
#include "backend.h"

#include <errno.h>
#include <stdlib.h>

static int check_change(const struct chardev *c, const char *id, struct err *e)
{
	if (!c)
		return err_set(e, ENOENT, "Chardev '%.200s' does not exist", id);
	if (c->mux)
		return err_set(e, ENOTSUP, "Mux device hotswap not supported yet");
	if (c->owner && !(c->attached && c->fe.replaced))
		return err_set(e, ENOTSUP, "Chardev user does not support chardev hotswap");
	return 0;
}

/* The bytes on their way in one direction. What the new one has is newer. */
static void move_bytes(struct byte_ring *from, struct byte_ring *to)
{
	struct byte_ring both;
	const uint8_t *p;
	uint32_t n;

	if (!from->len)
		return;
	byte_ring_init(&both, to->cap + from->len); /* no less room than the back end was promised */
	for (; (p = byte_ring_peek(from, 0, &n)); byte_ring_drop(from, n))
		byte_ring_put(&both, p, n);
	for (; (p = byte_ring_peek(to, 0, &n)); byte_ring_drop(to, n))
		byte_ring_put(&both, p, n);
	byte_ring_free(to);
	*to = both;
}

/* Front end's lock held; nobody else can see `to` yet. */
static void hand_over(struct chardev *from, struct chardev *to)
{
	to->owner = from->owner;
	from->owner = NULL;
	to->fe = from->fe;
	to->fe_opaque = from->fe_opaque;
	to->fe_lock = from->fe_lock;
	to->fe_open = from->fe_open;
	pthread_mutex_lock(&from->out_lock);
	to->want_writable = from->want_writable;
	to->dropped = from->dropped;
	to->dropped_log_ns = from->dropped_log_ns;
	move_bytes(&from->out, &to->out);
	from->logged = 0;
	pthread_mutex_unlock(&from->out_lock);
	move_bytes(&from->in, &to->in);
	to->in_pending = to->in.len > 0;
	to->attached = true;
	from->attached = false;
	to->fe.replaced(to->fe_opaque, to);
}

static void swap(struct chardev *old, struct chardev *new)
{
	pthread_mutex_t *lock = old->fe_lock;
	bool was_open = old->open;

	chardev_flush(old);
	if (lock)
		pthread_mutex_lock(lock);
	hand_over(old, new);
	if (lock)
		pthread_mutex_unlock(lock);
	if (was_open && !new->open)
		chardev_event_to(new, CHARDEV_CLOSED);
	else if (new->open)
		bh_schedule(&new->opened_bh);
	bh_schedule(&new->in_bh);
	bh_schedule(&new->out_bh);
}

struct chardev *chardev_change(struct opts *o, struct err *e)
{
	const char *id = opts_get(o, "id");
	struct chardev *old = id ? chardev_find(id) : NULL, *new;

	if (check_change(old, id ? id : "", e))
		return NULL;
	new = chardev_make(o, e);
	if (!new)
		return NULL;
	if (new->mux) {
		chardev_close(new);
		err_set(e, ENOTSUP, "Mux device hotswap not supported yet");
		return NULL;
	}
	if (old->attached)
		swap(old, new);
	chardev_unlist(old);
	chardev_list(new);
	chardev_close(old);
	return new;
}
