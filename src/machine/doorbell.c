/*
 * Doorbells: see vmm/doorbell.h. The list and what KVM knows are guarded by the map's lock, because the map tells us
 * when a region moves.
 */
#include "board.h"
#include "vmm/doorbell.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int ioeventfd(struct doorbell *d, uint64_t addr, bool assign)
{
	struct kvm_vm *vm = d->dev->board->kvm;
	bool pio = d->region->desc->space == SPACE_PIO;
	int r = kvm_ioeventfd(vm, pio, addr, d->len, d->match, d->value, d->fd, assign);

	if (r == -ENOTSUP && assign) { /* any length: drivers write 16 bits */
		d->len = 2;
		r = kvm_ioeventfd(vm, pio, addr, d->len, d->match, d->value, d->fd, assign);
	}
	return r;
}

/* Make KVM's idea of d that of the map. Map's lock held. */
static void follow(struct doorbell *d)
{
	bool want = d->attached && d->region->enabled;
	uint64_t addr = d->region ? d->region->base + d->offset : 0;

	if (d->armed && (!want || addr != d->armed_at)) {
		ioeventfd(d, d->armed_at, false);
		d->armed = false;
	}
	if (want && !d->armed && !ioeventfd(d, addr, true)) {
		d->armed = true;
		d->armed_at = addr;
	}
}

void doorbells_follow(struct board *b, const struct region *r)
{
	for (struct doorbell *d = b->doorbells; d; d = d->next)
		if (d->region == r)
			follow(d);
}

static void rang(void *opaque, int fd, unsigned events)
{
	struct doorbell *d = opaque;
	uint64_t count;

	if (read(fd, &count, sizeof(count)) == sizeof(count))
		d->ring(d->opaque);
}

int doorbell_open(struct doorbell *d, struct device *dev, struct loop *loop, void (*ring)(void *opaque), void *opaque)
{
	if (!dev->board->kvm)
		return -ENOTSUP;
	*d = (struct doorbell){
		.dev = dev, .ring = ring, .opaque = opaque, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	if (d->fd < 0) {
		d->dev = NULL;
		return -errno;
	}
	d->watch = loop_watch(loop, d->fd, LOOP_READ, dev->lock, rang, d, NULL);
	if (!d->watch) {
		close(d->fd);
		d->dev = NULL;
		return -ENOMEM;
	}
	return 0;
}

void doorbell_attach(struct doorbell *d, struct region *r, uint64_t offset, unsigned len, bool match, uint64_t value)
{
	struct board *b;

	if (!d->dev)
		return;
	doorbell_detach(d);
	b = d->dev->board;
	pthread_mutex_lock(&b->map.lock);
	d->region = r;
	d->offset = offset;
	d->len = (uint8_t)len;
	d->match = match;
	d->value = value;
	d->attached = true;
	d->next = b->doorbells;
	b->doorbells = d;
	follow(d);
	pthread_mutex_unlock(&b->map.lock);
}

void doorbell_detach(struct doorbell *d)
{
	struct board *b;

	if (!d->dev || !d->attached)
		return;
	b = d->dev->board;
	pthread_mutex_lock(&b->map.lock);
	d->attached = false;
	follow(d);
	for (struct doorbell **p = &b->doorbells; *p; p = &(*p)->next)
		if (*p == d) {
			*p = d->next;
			break;
		}
	pthread_mutex_unlock(&b->map.lock);
}

bool doorbell_attached(const struct doorbell *d)
{
	return d->attached;
}

void doorbell_close(struct doorbell *d)
{
	if (!d->dev)
		return;
	doorbell_detach(d);
	loop_unwatch(d->watch);
	close(d->fd);
	*d = (struct doorbell){0};
}
