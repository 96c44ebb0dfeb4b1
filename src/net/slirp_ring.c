/* See slirp_ring.h. An empty ring starts over at its beginning, so that one that is drained in time stays in the cache.
 */
#include "slirp_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/util.h"

void ring_init(struct ring *r, size_t size)
{
	*r = (struct ring){.size = size, .data = xzalloc(size)};
	pthread_mutex_init(&r->lock, NULL);
}

void ring_destroy(struct ring *r)
{
	if (!r->data)
		return;
	pthread_mutex_destroy(&r->lock);
	free(r->data);
	r->data = NULL;
}

static void append(struct ring *r, const void *buf, size_t len)
{
	size_t at = (r->head + r->used) % r->size, piece = MIN(len, r->size - at);

	if (!len)
		return;
	memcpy(r->data + at, buf, piece);
	memcpy(r->data, (const uint8_t *)buf + piece, len - piece);
	r->used += len;
}

/* buf NULL: drop. */
static void take(struct ring *r, void *buf, size_t len)
{
	size_t piece = MIN(len, r->size - r->head);

	if (buf && len) {
		memcpy(buf, r->data + r->head, piece);
		memcpy((uint8_t *)buf + piece, r->data, len - piece);
	}
	r->used -= len;
	r->head = r->used ? (r->head + len) % r->size : 0;
}

size_t ring_used(struct ring *r)
{
	size_t used;

	pthread_mutex_lock(&r->lock);
	used = r->used;
	pthread_mutex_unlock(&r->lock);
	return used;
}

size_t ring_room(struct ring *r)
{
	return r->size - ring_used(r);
}

size_t ring_put(struct ring *r, const void *buf, size_t len)
{
	pthread_mutex_lock(&r->lock);
	len = MIN(len, r->size - r->used);
	append(r, buf, len);
	pthread_mutex_unlock(&r->lock);
	return len;
}

size_t ring_get(struct ring *r, void *buf, size_t len)
{
	pthread_mutex_lock(&r->lock);
	len = MIN(len, r->used);
	take(r, buf, len);
	pthread_mutex_unlock(&r->lock);
	return len;
}

bool ring_put_frame(struct ring *r, const struct iovec *iov, int n, size_t len, bool *first)
{
	uint32_t header = (uint32_t)len;
	bool fits;

	pthread_mutex_lock(&r->lock);
	fits = r->size - r->used >= sizeof(header) + len;
	*first = !r->used;
	r->refused |= !fits;
	if (fits) {
		append(r, &header, sizeof(header));
		for (int i = 0; i < n; i++)
			append(r, iov[i].iov_base, iov[i].iov_len);
	}
	pthread_mutex_unlock(&r->lock);
	return fits;
}

ssize_t ring_get_frame(struct ring *r, const struct iovec *iov, int n, bool *was_full)
{
	uint32_t left = 0;
	ssize_t len = 0;

	pthread_mutex_lock(&r->lock);
	*was_full = false;
	if (r->used) {
		take(r, &left, sizeof(left));
		len = (ssize_t)left;
		for (int i = 0; i < n && left; i++) {
			size_t piece = MIN((size_t)left, iov[i].iov_len);

			take(r, iov[i].iov_base, piece);
			left -= (uint32_t)piece;
		}
		take(r, NULL, left);
		*was_full = r->refused;
		r->refused = false;
	}
	pthread_mutex_unlock(&r->lock);
	return left ? -EMSGSIZE : len;
}
