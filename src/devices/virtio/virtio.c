/*
 * The virtio core's life: status and feature negotiation (VIRTIO 1.2 sections 2.1, 2.2, 3.1), reset, running the queues
 * on the main loop, pause and state. See virtio.h.
 */
#include "virtio.h"

#include <errno.h>
#include <stdio.h>

/* ---- running the queues ---- */

static void run_queues(void *opaque)
{
	struct virtio *v = opaque;
	uint64_t todo = __atomic_exchange_n(&v->to_run, 0, __ATOMIC_ACQUIRE);

	for (; todo; todo &= todo - 1)
		virtq_run(&v->vq[__builtin_ctzll(todo)]);
}

void virtio_run_all(struct virtio *v)
{
	for (unsigned i = 0; i < v->n_vq; i++)
		if (v->vq[i].ready)
			virtq_schedule(&v->vq[i]);
}

bool virtio_running(const struct virtio *v)
{
	return v->status & VIRTIO_DRIVER_OK && !v->broken && (!v->modern || v->status & VIRTIO_FEATURES_OK);
}

/* ---- doorbells: opening one is the main thread's business ---- */

static void rang(void *opaque)
{
	virtq_run(opaque);
}

static bool wants_bell(const struct virtq *vq)
{
	const struct virtio *v = vq->v;

	return v->use_ioeventfd && vq->ready && !v->broken && (!v->modern || virtio_running(v));
}

static void update_bells(void *opaque)
{
	struct virtio *v = opaque;

	for (unsigned i = 0; i < v->n_vq; i++) {
		struct virtq *vq = &v->vq[i];

		if (wants_bell(vq) == doorbell_attached(&vq->bell))
			continue;
		if (!wants_bell(vq))
			doorbell_detach(&vq->bell);
		else if (vq->bell.dev || !doorbell_open(&vq->bell, &v->dev, loop_main(), rang, vq))
			virtio_pci_attach_bell(vq);
	}
}

void virtio_update_bells(struct virtio *v)
{
	bh_schedule(&v->bell_bh);
}

void virtio_drop_bells(struct virtio *v)
{
	for (unsigned i = 0; i < v->n_vq; i++)
		doorbell_detach(&v->vq[i].bell);
}

/* ---- telling the driver ---- */

void virtio_config_changed(struct virtio *v)
{
	v->generation++;
	if (v->status & VIRTIO_DRIVER_OK)
		virtio_pci_interrupt(v, 2, v->config_vector);
}

void virtio_fail(struct virtio *v, const char *fmt, ...)
{
	char text[160];
	va_list ap;

	if (v->broken)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_guest(&v->dev.guest_log, "virtio", "%s: %s; it stops until its driver resets it", v->dev.id, text);
	v->broken = true;
	virtio_update_bells(v);
	if (!v->modern)
		return;
	v->status |= VIRTIO_NEEDS_RESET;
	virtio_config_changed(v);
}

/* ---- reset ---- */

/* Own fields. Chains still in flight keep the status from reading 0. */
static void reset_fields(struct virtio *v)
{
	uint8_t before = v->status;

	if (v->ops->reset)
		v->ops->reset(v);
	v->epoch++;
	for (unsigned i = 0; i < v->n_vq; i++)
		virtq_reset(&v->vq[i]);
	__atomic_store_n(&v->to_run, 0, __ATOMIC_RELAXED);
	v->driver_features = 0;
	v->device_select = v->driver_select = 0;
	v->queue_select = 0;
	v->config_vector = VIRTIO_NO_VECTOR;
	v->status = v->isr = v->generation = 0;
	v->modern = v->broken = false;
	v->reset_from = v->popped ? before : 0;
}

void virtio_driver_reset(struct virtio *v)
{
	virtio_drop_bells(v);
	reset_fields(v);
	virtio_pci_update_intx(v);
}

void virtq_chain_gone(struct virtio *v)
{
	if (--v->popped)
		return;
	v->reset_from = 0;
	if (v->paused)
		device_quiesced(&v->dev);
}

/* ---- status ---- */

uint8_t virtio_read_status(const struct virtio *v)
{
	return v->status ? v->status : v->reset_from;
}

/* 3.1.1 step 5: a driver that accepts what was not offered, or speaks the new interface without VERSION_1, is not
 * taken. */
static bool features_acceptable(struct virtio *v)
{
	uint64_t refused = v->driver_features & ~v->offered;

	if (!refused && virtio_has(v, VIRTIO_F_VERSION_1))
		return true;
	log_guest(&v->dev.guest_log, "virtio", "%s: features 0x%llx are not acceptable, offered are 0x%llx", v->dev.id,
		  (unsigned long long)v->driver_features, (unsigned long long)v->offered);
	return false;
}

void virtio_write_status(struct virtio *v, uint8_t value)
{
	uint8_t before = v->status;

	if (!value) {
		virtio_driver_reset(v);
		return;
	}
	if (v->reset_from)
		return; /* the driver has to wait until the reset is complete */
	/* Bits go up only; NEEDS_RESET is ours. */
	value |= before;
	value = (uint8_t)((value & ~VIRTIO_NEEDS_RESET) | (before & VIRTIO_NEEDS_RESET));
	if (v->modern && value & ~before & VIRTIO_FEATURES_OK && !features_acceptable(v))
		value &= (uint8_t)~VIRTIO_FEATURES_OK;
	v->status = value;
	if (!virtio_running(v) || before & VIRTIO_DRIVER_OK)
		return;
	if (v->ops->start)
		v->ops->start(v);
	virtio_update_bells(v);
	virtio_run_all(v); /* what was made available before */
}

/* ---- class functions ---- */

void virtio_class_reset(struct device *dev)
{
	struct virtio *v = container_of(dev, struct virtio, dev);

	reset_fields(v);
}

void virtio_class_settle(struct device *dev)
{
	struct virtio *v = container_of(dev, struct virtio, dev);

	virtio_pci_update_intx(v);
	virtio_update_bells(v);
	if (v->popped) /* a damaged state may ask for anything; what is in flight has been waited for */
		log_error("virtio", "%s: settles with %u requests in flight", dev->id, v->popped);
	if (virtio_running(v) && v->ops->start)
		v->ops->start(v);
}

void virtio_class_quiesce(struct device *dev)
{
	struct virtio *v = container_of(dev, struct virtio, dev);

	v->paused = true;
	if (v->ops->pause)
		v->ops->pause(v);
	if (!v->popped)
		device_quiesced(dev);
}

void virtio_class_resume(struct device *dev)
{
	struct virtio *v = container_of(dev, struct virtio, dev);

	v->paused = false;
	virtio_run_all(v);
}

/* ---- creation ---- */

void virtio_init(struct virtio *v, const struct virtio_ops *ops, struct virtq *vq, unsigned n)
{
	v->ops = ops;
	v->vq = vq;
	v->n_vq = n;
	for (unsigned i = 0; i < n; i++) {
		vq[i].v = v;
		vq[i].index = (uint16_t)i;
	}
	device_bh_init(&v->dev, &v->run_bh, run_queues);
	device_bh_init(&v->dev, &v->bell_bh, update_bells);
	v->offered = ops->features ? ops->features(v) : 0;
	v->offered |= (v->use_notify_on_empty ? BIT64(VIRTIO_F_NOTIFY_ON_EMPTY) : 0) |
		      (v->use_any_layout ? BIT64(VIRTIO_F_ANY_LAYOUT) : 0) |
		      (v->use_indirect ? BIT64(VIRTIO_F_INDIRECT_DESC) : 0) |
		      (v->use_event_idx ? BIT64(VIRTIO_F_EVENT_IDX) : 0) |
		      (v->disable_modern ? 0 : BIT64(VIRTIO_F_VERSION_1));
}

void virtio_destroy(struct virtio *v)
{
	bh_cancel(&v->run_bh);
	bh_cancel(&v->bell_bh);
	for (unsigned i = 0; i < v->n_vq; i++)
		doorbell_close(&v->vq[i].bell);
}

/* ---- state ---- */

int virtio_post_load(struct virtio *v, struct err *e)
{
	uint64_t strange = v->driver_features & ~v->offered;

	if (strange && (!v->modern || v->status & VIRTIO_FEATURES_OK))
		return err_set(e, ENOTSUP,
			       "device '%s': the guest uses features 0x%llx that this device does not offer", v->dev.id,
			       (unsigned long long)strange);
	if (v->config_vector != VIRTIO_NO_VECTOR && v->config_vector >= v->dev.pci->msix_vectors)
		return err_set(e, ERANGE, "device '%s': configuration vector %u does not exist", v->dev.id,
			       v->config_vector);
	for (unsigned i = 0; i < v->n_vq; i++)
		if (v->vq[i].vector != VIRTIO_NO_VECTOR && v->vq[i].vector >= v->dev.pci->msix_vectors)
			return err_set(e, ERANGE, "device '%s': vector %u of queue %u does not exist", v->dev.id,
				       v->vq[i].vector, i);
	return 0;
}

static const struct state_field fields[] = {
	STATE_U(struct virtio, driver_features),
	STATE_U(struct virtio, device_select),
	STATE_U(struct virtio, driver_select),
	STATE_U(struct virtio, queue_select),
	STATE_U(struct virtio, config_vector),
	STATE_U(struct virtio, status),
	STATE_U(struct virtio, isr),
	STATE_U(struct virtio, generation),
	STATE_B(struct virtio, modern),
	STATE_B(struct virtio, broken),
	STATE_FIELDS_END,
};

const struct state_table virtio_state = {.name = "virtio", .version = 1, .oldest = 1, .fields = fields};
