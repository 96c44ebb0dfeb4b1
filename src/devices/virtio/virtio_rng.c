/*
 * virtio-rng: VIRTIO 1.2 section 5.4. One queue; every buffer comes back with random bytes from a host source, as soon
 * as there are any and the rate allows it.
 *
 * max-bytes and period limit the rate as in QEMU: at most max-bytes in each period milliseconds of guest time. The
 * device has no features of its own; nothing is left out.
 */
#include "virtio.h"

#include <errno.h>
#include "vmm/rng.h"

#define MAX_FILL (64 * KIB) /* per request */

struct virtio_rng {
	struct virtio v;
	struct virtq vq[1];
	char *rng_id;
	uint64_t max_bytes;
	uint32_t period_ms;

	uint64_t quota;      /* bytes left in this period */
	struct timer period; /* armed while a period is under way */

	struct rng *rng;
	struct rng_wait wait;
	struct bh ready_bh;
};

static struct virtio_rng *rng_of(struct virtio *v)
{
	return container_of(v, struct virtio_rng, v);
}

/* Bytes for one chain: 0 if the source has none now. A device may fill less than all of a buffer (5.4.6.1); nobody may
   keep the main loop busy with gigabytes. */
static uint32_t fill(struct virtio_rng *s, struct virtq_elem *el)
{
	uint8_t buf[4096];
	uint64_t want = MIN(MIN((uint64_t)el->in_len, s->quota), MAX_FILL);
	uint32_t done = 0;

	while (done < want) {
		size_t n = rng_read(s->rng, buf, MIN(sizeof(buf), want - done));

		if (!n || virtq_write(el, done, buf, n) != n)
			break;
		done += (uint32_t)n;
	}
	return done;
}

/* The first bytes of a period start it. */
static void spend(struct virtio_rng *s, uint32_t bytes)
{
	if (s->max_bytes == INT64_MAX)
		return;
	s->quota -= bytes;
	if (!timer_pending(&s->period))
		timer_arm(&s->period, clock_ns(VCLOCK_VIRTUAL) + s->period_ms * NS_PER_MS);
}

static void run(struct virtq *vq)
{
	struct virtio_rng *s = rng_of(vq->v);
	struct virtq_elem *el;

	while (s->quota && !s->wait.waiting && (el = virtq_pop(vq))) {
		uint32_t n;

		if (!el->in_len) { /* 5.4.6.1: a buffer is writable and not empty */
			virtq_drop(el);
			virtio_fail(vq->v, "a request without room for random bytes");
			return;
		}
		n = fill(s, el);
		if (!n) {
			virtq_unpop(el);
			rng_wait(s->rng, &s->wait);
			break;
		}
		spend(s, n);
		virtq_push(el, n);
	}
	virtq_notify(vq);
}

static void source_ready(void *opaque)
{
	struct virtio_rng *s = opaque;

	virtq_schedule(&s->vq[0]);
}

static void period_over(void *opaque)
{
	struct virtio_rng *s = opaque;

	s->quota = s->max_bytes;
	virtq_schedule(&s->vq[0]);
}

static const struct virtio_ops rng_ops = {.id = VIRTIO_ID_RNG};

static void rng_destroy_parts(struct virtio_rng *s)
{
	if (!s->rng)
		return;
	rng_wait_cancel(s->rng, &s->wait);
	rng_release(s->rng);
	s->rng = NULL;
}

static int create(struct device *dev, struct err *e)
{
	struct virtio_rng *s = DEVICE(dev, struct virtio_rng);
	int r;

	if (!s->period_ms)
		return err_set(e, EINVAL, "'period' parameter expects a positive integer");
	if (!s->max_bytes || s->max_bytes > INT64_MAX)
		return err_set(e, EINVAL, "'max-bytes' parameter must be positive, and less than 2^63");
	s->rng = s->rng_id ? rng_claim(s->rng_id, "virtio-rng-pci.rng", e) : rng_new_builtin();
	if (!s->rng)
		return -ENOENT;
	device_bh_init(dev, &s->ready_bh, source_ready);
	s->wait.bh = &s->ready_bh;
	device_timer_init(dev, &s->period, VCLOCK_VIRTUAL, period_over);
	virtio_init(&s->v, &rng_ops, s->vq, ARRAY_SIZE(s->vq));
	virtq_init(&s->vq[0], 8, run);
	s->quota = s->max_bytes;
	r = virtio_pci_create(&s->v, e);
	if (r)
		rng_destroy_parts(s);
	return r;
}

static void destroy(struct device *dev)
{
	struct virtio_rng *s = DEVICE(dev, struct virtio_rng);

	timer_cancel(&s->period);
	rng_destroy_parts(s);
	bh_cancel(&s->ready_bh);
	virtio_destroy(&s->v);
}

/* A guest cannot get around the limit by resetting the device: the period goes on. */
static void settle(struct device *dev)
{
	struct virtio_rng *s = DEVICE(dev, struct virtio_rng);

	timer_settle(&s->period);
	virtio_class_settle(dev);
}

static int post_load(void *obj, uint16_t version, struct err *e)
{
	struct virtio_rng *s = obj;

	s->quota = MIN(s->quota, s->max_bytes);
	if (s->quota < s->max_bytes && s->period.deadline == TIMER_NEVER)
		s->quota = s->max_bytes; /* else it would never be filled up again */
	return virtio_post_load(&s->v, e);
}

static const struct state_field fields[] = {
	VIRTIO_STATE(struct virtio_rng),
	STATE_U(struct virtio_rng, quota),
	STATE_T(struct virtio_rng, period),
	STATE_FIELDS_END,
};
static const struct state_table table = {
	.name = "virtio-rng", .version = 1, .oldest = 1, .fields = fields, .post_load = post_load};

static const struct prop props[] = {
	PROP_NAMED(struct virtio_rng, "rng", rng_id, PROP_STR,
		   .help = "id of the source, an -object rng-random or rng-builtin (default: its own rng-builtin)"),
	PROP_NAMED(struct virtio_rng, "max-bytes", max_bytes, PROP_U64, .def = INT64_MAX,
		   .help = "bytes the guest gets per period"),
	PROP_NAMED(struct virtio_rng, "period", period_ms, PROP_U32, .def = 65536, .help = "length of a period in ms"),
	VIRTIO_PROPS(struct virtio_rng, UINT32_MAX),
	PROP_END,
};

static const struct pci_identity identity = VIRTIO_IDENTITY(0x1005, VIRTIO_ID_RNG, 0x00ff00);

DEVICE_CLASS(virtio_rng) = {
	.name = "virtio-rng-pci",
	.alias = "virtio-rng-pci-transitional",
	.summary = "random numbers for the guest (virtio)",
	.category = "Misc",
	.size = sizeof(struct virtio_rng),
	VIRTIO_CLASS(identity),
	.props = props,
	.state = &table,
	.create = create,
	.destroy = destroy,
	.settle = settle,
};
