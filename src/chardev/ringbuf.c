/* -chardev ringbuf: output goes to a ring in memory; QMP ringbuf-read takes it out. The oldest bytes are overwritten.
 */
#include "backend.h"

#include <errno.h>

struct ringbuf {
	struct chardev c;
	uint64_t size;
	struct byte_ring ring;
};

static const struct prop ringbuf_props[] = {
	CHARDEV_COMMON_PROPS,
	PROP(struct ringbuf, size, PROP_SIZE, .def = 64 * KIB, .min = 1, .max = 64 * MIB,
	     .help = "bytes kept, a power of two"),
	PROP_END,
};

static int ringbuf_open(struct chardev *c, struct err *e)
{
	struct ringbuf *r = (struct ringbuf *)c;

	if (r->size & (r->size - 1))
		return err_set(e, EINVAL, "size=%llu is not a power of two", (unsigned long long)r->size);
	byte_ring_init(&r->ring, r->size);
	chardev_opened(c);
	return 0;
}

static void ringbuf_close(struct chardev *c)
{
	byte_ring_free(&((struct ringbuf *)c)->ring);
}

static ssize_t ringbuf_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	struct byte_ring *ring = &((struct ringbuf *)c)->ring;
	uint32_t keep = MIN(len, (size_t)ring->cap);

	if (ring->cap - ring->len < keep)
		byte_ring_drop(ring, keep - (ring->cap - ring->len));
	byte_ring_put(ring, buf + len - keep, keep);
	return len;
}

const struct chardev_ops chardev_ringbuf_ops = {
	.name = "ringbuf",
	.alias = "memory",
	.help = "output is kept in memory for QMP ringbuf-read",
	.props = ringbuf_props,
	.size = sizeof(struct ringbuf),
	.open = ringbuf_open,
	.close = ringbuf_close,
	.write = ringbuf_write,
};

ssize_t chardev_ring_read(struct chardev *c, void *buf, size_t len)
{
	if (c->ops != &chardev_ringbuf_ops)
		return -EINVAL;
	chardev_flush(c);
	return byte_ring_get(&((struct ringbuf *)c)->ring, buf, MIN(len, (size_t)UINT32_MAX));
}

ssize_t chardev_ring_write(struct chardev *c, const void *buf, size_t len)
{
	if (c->ops != &chardev_ringbuf_ops)
		return -EINVAL;
	chardev_flush(c);
	return ringbuf_write(c, buf, len);
}
