/*
 * virtio over PCI: VIRTIO 1.2 section 4.1. BAR 0 (I/O) is the legacy interface (4.1.4.10), BAR 1 holds MSI-X, BAR 4 the
 * modern structures, a page each:
 *
 *   0x0000 common configuration    0x1000 ISR status    0x2000 device configuration    0x3000 notifications, 4 bytes
 * per queue
 *
 * Offsets in BAR 4, the BAR numbers and the notification multiplier are those of QEMU; a driver finds them in the
 * capabilities.
 */
#include "virtio.h"

#include <errno.h>

enum { REGION_LEGACY, REGION_COMMON, REGION_ISR, REGION_DEVICE, REGION_NOTIFY };
#define PAGE_BYTES    0x1000
#define MODERN_BAR    4
#define MODERN_BYTES  (4 * PAGE_BYTES)
#define NOTIFY_STRIDE 4

/* Legacy registers (4.1.4.10) */
enum {
	LEGACY_HOST_FEATURES = 0,
	LEGACY_GUEST_FEATURES = 4,
	LEGACY_QUEUE_PFN = 8,
	LEGACY_QUEUE_SIZE = 12,
	LEGACY_QUEUE_SELECT = 14,
	LEGACY_QUEUE_NOTIFY = 16,
	LEGACY_STATUS = 18,
	LEGACY_ISR = 19,
	LEGACY_CONFIG = 20,        /* without MSI-X */
	LEGACY_CONFIG_VECTOR = 20, /* with MSI-X */
	LEGACY_QUEUE_VECTOR = 22,
	LEGACY_CONFIG_MSIX = 24,
};

/* Common configuration (4.1.4.3) */
enum {
	COMMON_DEVICE_SELECT = 0,
	COMMON_DEVICE_FEATURES = 4,
	COMMON_DRIVER_SELECT = 8,
	COMMON_DRIVER_FEATURES = 12,
	COMMON_CONFIG_VECTOR = 16,
	COMMON_QUEUES = 18,
	COMMON_STATUS = 20,
	COMMON_GENERATION = 21,
	COMMON_QUEUE_SELECT = 22,
	COMMON_QUEUE_SIZE = 24,
	COMMON_QUEUE_VECTOR = 26,
	COMMON_QUEUE_ENABLE = 28,
	COMMON_QUEUE_NOTIFY_OFF = 30,
	COMMON_QUEUE_DESC = 32,
	COMMON_QUEUE_DRIVER = 40,
	COMMON_QUEUE_DEVICE = 48,
};

/* Capabilities (4.1.4) */
enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI };
#define CAP_VENDOR     0x09
#define CAP_BAR        4
#define CAP_OFFSET     8
#define CAP_LENGTH     12
#define CAP_DATA       16 /* of CAP_PCI; CAP_NOTIFY's multiplier */
#define CAP_BYTES      16
#define CAP_BYTES_MORE 20

static struct virtio *virtio_of(struct device *dev)
{
	return container_of(dev, struct virtio, dev);
}

/* The queue the driver selected; NULL: there is none of this number. */
static struct virtq *selected(struct virtio *v)
{
	return v->queue_select < v->n_vq && v->vq[v->queue_select].max ? &v->vq[v->queue_select] : NULL;
}

/* ---- interrupts ---- */

void virtio_pci_update_intx(struct virtio *v)
{
	pci_set_intx(&v->dev, v->isr && !pci_msix_enabled(&v->dev));
}

void virtio_pci_interrupt(struct virtio *v, uint8_t isr_bit, uint16_t vector)
{
	v->isr |= isr_bit;
	if (!pci_msix_enabled(&v->dev))
		virtio_pci_update_intx(v);
	else if (vector != VIRTIO_NO_VECTOR)
		pci_msix_notify(&v->dev, vector);
}

/* 4.1.4.5: reading acknowledges. */
static uint8_t read_isr(struct virtio *v)
{
	uint8_t isr = v->isr;

	v->isr = 0;
	virtio_pci_update_intx(v);
	return isr;
}

/* 4.1.5.1.2: a vector that cannot be had reads back as none. */
static uint16_t vector_or_none(const struct virtio *v, uint32_t vector)
{
	return vector < v->dev.pci->msix_vectors ? (uint16_t)vector : VIRTIO_NO_VECTOR;
}

/* ---- device configuration ---- */

static uint32_t config_get(struct virtio *v, uint64_t offset, unsigned size)
{
	uint8_t config[VIRTIO_CONFIG_MAX + 8] = {0};

	if (!v->ops->config_read || offset >= v->ops->config_size)
		return 0;
	v->ops->config_read(v, config);
	return (uint32_t)get_le(config + offset, size);
}

static void config_set(struct virtio *v, uint64_t offset, uint32_t value, unsigned size)
{
	if (v->ops->config_write && offset + size <= v->ops->config_size)
		v->ops->config_write(v, (unsigned)offset, value, size);
}

/* ---- doorbells ---- */

static void ring(struct virtio *v, uint64_t n)
{
	if (n < v->n_vq && v->vq[n].ready)
		virtq_schedule(&v->vq[n]);
}

void virtio_pci_attach_bell(struct virtq *vq)
{
	struct virtio *v = vq->v;

	if (v->modern) /* the place says which queue */
		doorbell_attach(&vq->bell, &v->dev.regions[REGION_NOTIFY], vq->index * NOTIFY_STRIDE, 0, false, 0);
	else
		doorbell_attach(&vq->bell, &v->dev.regions[REGION_LEGACY], LEGACY_QUEUE_NOTIFY, 2, true, vq->index);
}

/* ---- legacy interface ---- */

static uint32_t legacy_offered(const struct virtio *v)
{
	return (uint32_t)v->offered;
}

static uint32_t legacy_config(const struct virtio *v)
{
	return pci_msix_enabled(&v->dev) ? LEGACY_CONFIG_MSIX : LEGACY_CONFIG;
}

static uint64_t legacy_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct virtio *v = virtio_of(dev);
	struct virtq *vq = selected(v);

	if (offset >= legacy_config(v))
		return config_get(v, offset - legacy_config(v), size);
	switch (offset) {
	case LEGACY_HOST_FEATURES:
		return legacy_offered(v);
	case LEGACY_GUEST_FEATURES:
		return (uint32_t)v->driver_features;
	case LEGACY_QUEUE_PFN:
		return vq && vq->ready ? vq->desc >> 12 : 0;
	case LEGACY_QUEUE_SIZE:
		return vq ? vq->size : 0;
	case LEGACY_QUEUE_SELECT:
		return v->queue_select;
	case LEGACY_STATUS:
		return virtio_read_status(v);
	case LEGACY_ISR:
		return read_isr(v);
	case LEGACY_CONFIG_VECTOR:
		return v->config_vector;
	case LEGACY_QUEUE_VECTOR:
		return vq ? vq->vector : VIRTIO_NO_VECTOR;
	default:
		return 0;
	}
}

/* 2.7.2 (legacy): the three areas follow each other, the used ring on the next page. A page frame of 0 resets the
   device, as drivers before virtio 0.9 give a queue back. */
static void legacy_set_pfn(struct virtio *v, uint32_t pfn)
{
	struct virtq *vq = selected(v);

	if (!pfn) {
		virtio_driver_reset(v);
		return;
	}
	if (!vq || v->reset_from)
		return;
	v->modern = false;
	vq->desc = (uint64_t)pfn << 12;
	vq->avail = vq->desc + 16 * (uint64_t)vq->size;
	vq->used = ALIGN_UP(vq->avail + 6 + 2 * (uint64_t)vq->size, PAGE_BYTES);
	vq->ready = true;
	virtio_update_bells(v);
}

static void legacy_write_status(struct virtio *v, uint8_t value)
{
	/* Linux before 2.6.34 does not set the function's bus master bit. */
	if (value == (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER))
		pci_enable_bus_master(&v->dev);
	if (value)
		v->modern = false;
	virtio_write_status(v, value);
}

static void legacy_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct virtio *v = virtio_of(dev);
	struct virtq *vq = selected(v);

	if (offset >= legacy_config(v)) {
		config_set(v, offset - legacy_config(v), (uint32_t)value, size);
		return;
	}
	switch (offset) {
	case LEGACY_GUEST_FEATURES:
		if (!(v->status & VIRTIO_DRIVER_OK))
			v->driver_features = (uint32_t)value & legacy_offered(v);
		break;
	case LEGACY_QUEUE_PFN:
		legacy_set_pfn(v, (uint32_t)value);
		break;
	case LEGACY_QUEUE_SELECT:
		v->queue_select = (uint16_t)value;
		break;
	case LEGACY_QUEUE_NOTIFY:
		ring(v, value & 0xffff);
		break;
	case LEGACY_STATUS:
		legacy_write_status(v, (uint8_t)value);
		break;
	case LEGACY_CONFIG_VECTOR:
		v->config_vector = vector_or_none(v, (uint16_t)value);
		if (size == 4 && vq) /* both vectors at once */
			vq->vector = vector_or_none(v, (uint32_t)value >> 16);
		break;
	case LEGACY_QUEUE_VECTOR:
		if (vq)
			vq->vector = vector_or_none(v, (uint16_t)value);
		break;
	default:
		break;
	}
}

/* ---- common configuration ---- */

static uint32_t half(uint64_t features, uint32_t select)
{
	return select > 1 ? 0 : (uint32_t)(features >> (32 * select));
}

/* What drivers of the new interface are offered: not the bits that mean something to old ones only. */
static uint64_t modern_offered(const struct virtio *v)
{
	return v->offered & ~(BIT64(VIRTIO_F_NOTIFY_ON_EMPTY) | BIT64(VIRTIO_F_ANY_LAYOUT));
}

static uint64_t queue_read(const struct virtq *vq, uint64_t offset)
{
	switch (offset) {
	case COMMON_QUEUE_SIZE:
		return vq->size;
	case COMMON_QUEUE_VECTOR:
		return vq->vector;
	case COMMON_QUEUE_ENABLE:
		return vq->ready;
	case COMMON_QUEUE_NOTIFY_OFF:
		return vq->index;
	case COMMON_QUEUE_DESC:
		return (uint32_t)vq->desc;
	case COMMON_QUEUE_DESC + 4:
		return vq->desc >> 32;
	case COMMON_QUEUE_DRIVER:
		return (uint32_t)vq->avail;
	case COMMON_QUEUE_DRIVER + 4:
		return vq->avail >> 32;
	case COMMON_QUEUE_DEVICE:
		return (uint32_t)vq->used;
	case COMMON_QUEUE_DEVICE + 4:
		return vq->used >> 32;
	default:
		return 0;
	}
}

static uint64_t common_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct virtio *v = virtio_of(dev);
	struct virtq *vq = selected(v);

	switch (offset) {
	case COMMON_DEVICE_SELECT:
		return v->device_select;
	case COMMON_DEVICE_FEATURES:
		return half(modern_offered(v), v->device_select);
	case COMMON_DRIVER_SELECT:
		return v->driver_select;
	case COMMON_DRIVER_FEATURES:
		return half(v->driver_features, v->driver_select);
	case COMMON_CONFIG_VECTOR:
		return v->config_vector;
	case COMMON_QUEUES:
		return v->n_vq;
	case COMMON_STATUS:
		return virtio_read_status(v);
	case COMMON_GENERATION:
		return v->generation;
	case COMMON_QUEUE_SELECT:
		return v->queue_select;
	default:
		return vq ? queue_read(vq, offset) : 0;
	}
}

static void set_half(uint64_t *value, bool high, uint32_t half_value)
{
	*value = high ? (*value & UINT32_MAX) | (uint64_t)half_value << 32
		      : (*value & ~(uint64_t)UINT32_MAX) | half_value;
}

/* 4.1.4.3.2: the driver writes these before it enables the queue, and enables it once. */
static void queue_write(struct virtq *vq, uint64_t offset, uint32_t value)
{
	struct virtio *v = vq->v;
	bool high = offset & 4;

	if (offset == COMMON_QUEUE_VECTOR) {
		vq->vector = vector_or_none(v, value);
		return;
	}
	if (vq->ready) {
		log_guest(&v->dev.guest_log, "virtio", "%s: queue %u is changed while it is enabled", v->dev.id,
			  vq->index);
		return;
	}
	switch (offset) {
	case COMMON_QUEUE_SIZE:
		if (value && value <= vq->max && !(value & (value - 1)))
			vq->size = (uint16_t)value;
		else
			log_guest(&v->dev.guest_log, "virtio", "%s: queue %u cannot have %u entries", v->dev.id,
				  vq->index, value);
		break;
	case COMMON_QUEUE_ENABLE:
		vq->ready = value == 1;
		virtio_update_bells(v);
		break;
	case COMMON_QUEUE_DESC:
	case COMMON_QUEUE_DESC + 4:
		set_half(&vq->desc, high, value);
		break;
	case COMMON_QUEUE_DRIVER:
	case COMMON_QUEUE_DRIVER + 4:
		set_half(&vq->avail, high, value);
		break;
	case COMMON_QUEUE_DEVICE:
	case COMMON_QUEUE_DEVICE + 4:
		set_half(&vq->used, high, value);
		break;
	default:
		break;
	}
}

static void common_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct virtio *v = virtio_of(dev);
	struct virtq *vq = selected(v);

	switch (offset) {
	case COMMON_DEVICE_SELECT:
		v->device_select = (uint32_t)value;
		break;
	case COMMON_DRIVER_SELECT:
		v->driver_select = (uint32_t)value;
		break;
	case COMMON_DRIVER_FEATURES:
		if (v->driver_select < 2 && !(v->status & VIRTIO_FEATURES_OK))
			set_half(&v->driver_features, v->driver_select, (uint32_t)value);
		break;
	case COMMON_CONFIG_VECTOR:
		v->config_vector = vector_or_none(v, (uint16_t)value);
		break;
	case COMMON_STATUS:
		if (value & 0xff)
			v->modern = true;
		virtio_write_status(v, (uint8_t)value);
		break;
	case COMMON_QUEUE_SELECT:
		v->queue_select = (uint16_t)value;
		break;
	default:
		if (vq)
			queue_write(vq, offset, (uint32_t)value);
		break;
	}
}

/* ---- the other structures ---- */

static uint64_t isr_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return offset == 0 ? read_isr(virtio_of(dev)) : 0;
}

static uint64_t device_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return config_get(virtio_of(dev), offset, size);
}

static void device_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	config_set(virtio_of(dev), offset, (uint32_t)value, size);
}

static void notify_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	ring(virtio_of(dev), offset / NOTIFY_STRIDE);
}

static const struct region_ops legacy_ops = {.read = legacy_read, .write = legacy_write};
static const struct region_ops common_ops = {.read = common_read, .write = common_write};
static const struct region_ops isr_ops = {.read = isr_read};
static const struct region_ops device_ops = {.read = device_read, .write = device_write};
static const struct region_ops notify_ops = {.write = notify_write};

#define MODERN(nm, n, o)                                                                                        \
	{                                                                                                       \
		.name = nm, .space = SPACE_MMIO, .bar = MODERN_BAR, .base = (n)*PAGE_BYTES, .size = PAGE_BYTES, \
		.ops = &(o)                                                                                     \
	}
const struct region_desc virtio_pci_regions[VIRTIO_REGIONS] = {
	[REGION_LEGACY] = {.name = "virtio-legacy", .space = SPACE_PIO, .bar = 0, .ops = &legacy_ops},
	[REGION_COMMON] = MODERN("virtio-common", 0, common_ops),
	[REGION_ISR] = MODERN("virtio-isr", 1, isr_ops),
	[REGION_DEVICE] = MODERN("virtio-device", 2, device_ops),
	[REGION_NOTIFY] = MODERN("virtio-notify", 3, notify_ops),
};

/* ---- configuration space ---- */

/* 4.1.4.9: firmware that cannot map BAR 4 reaches it through a window in configuration space. */
static bool window(const struct virtio *v, uint64_t *offset, unsigned *size)
{
	const uint8_t *cap = v->dev.pci->config + v->cfg_access;

	*offset = get_le32(cap + CAP_OFFSET);
	*size = get_le32(cap + CAP_LENGTH);
	return cap[CAP_BAR] == MODERN_BAR && (*size == 1 || *size == 2 || *size == 4) && *offset % *size == 0 &&
	       *offset + *size <= MODERN_BYTES;
}

static struct region *region_at(struct virtio *v, uint64_t *offset)
{
	struct region *r = &v->dev.regions[REGION_COMMON + *offset / PAGE_BYTES];

	*offset %= PAGE_BYTES;
	return r;
}

static bool touches_data(const struct virtio *v, unsigned offset, unsigned size)
{
	return v->cfg_access && offset + size > v->cfg_access + CAP_DATA && offset < v->cfg_access + CAP_BYTES_MORE;
}

static void config_written(struct device *dev, unsigned offset, unsigned size)
{
	struct virtio *v = virtio_of(dev);
	uint8_t *data = dev->pci->config + v->cfg_access + CAP_DATA;
	uint64_t at;
	unsigned n;

	if (touches_data(v, offset, size) && window(v, &at, &n)) {
		struct region *r = region_at(v, &at);

		if (r->desc->ops->write)
			r->desc->ops->write(dev, r, at, get_le(data, n), n);
	}
	/* MSI-X went on or off, or the function became a bus master and may look at its rings again. */
	virtio_pci_update_intx(v);
	if (offset <= PCI_COMMAND_REG && offset + size > PCI_COMMAND_REG && pci_bus_master(dev))
		virtio_run_all(v);
}

static void config_read(struct device *dev, unsigned offset, unsigned size)
{
	struct virtio *v = virtio_of(dev);
	uint8_t *data = dev->pci->config + v->cfg_access + CAP_DATA;
	uint64_t at;
	unsigned n;

	if (touches_data(v, offset, size) && window(v, &at, &n)) {
		struct region *r = region_at(v, &at);

		put_le(data, r->desc->ops->read ? r->desc->ops->read(dev, r, at, n) : 0, n);
	}
}

/* ---- creation ---- */

static int add_cap(struct virtio *v, uint8_t type, uint8_t len, uint32_t offset, uint32_t length)
{
	int at = pci_add_capability(&v->dev, CAP_VENDOR, len);
	uint8_t *cap = v->dev.pci->config + at;

	if (at < 0)
		return at;
	cap[2] = len;
	cap[3] = type;
	cap[CAP_BAR] = type == CAP_PCI ? 0 : MODERN_BAR;
	put_le32(cap + CAP_OFFSET, offset);
	put_le32(cap + CAP_LENGTH, length);
	return at;
}

static int add_modern_caps(struct virtio *v)
{
	uint8_t *wmask = v->dev.pci->wmask;
	int notify, access, r = 0;

	r |= add_cap(v, CAP_COMMON, CAP_BYTES, 0, PAGE_BYTES);
	r |= add_cap(v, CAP_ISR, CAP_BYTES, PAGE_BYTES, PAGE_BYTES);
	r |= add_cap(v, CAP_DEVICE, CAP_BYTES, 2 * PAGE_BYTES, PAGE_BYTES);
	r |= notify = add_cap(v, CAP_NOTIFY, CAP_BYTES_MORE, 3 * PAGE_BYTES, PAGE_BYTES);
	r |= access = add_cap(v, CAP_PCI, CAP_BYTES_MORE, 0, 0);
	if (r < 0)
		return r;
	put_le32(v->dev.pci->config + notify + CAP_DATA, NOTIFY_STRIDE);
	v->cfg_access = (unsigned)access;
	wmask[access + CAP_BAR] = 0xff;
	put_le32(wmask + access + CAP_OFFSET, UINT32_MAX);
	put_le32(wmask + access + CAP_LENGTH, UINT32_MAX);
	put_le32(wmask + access + CAP_DATA, UINT32_MAX);
	return 0;
}

int virtio_pci_create(struct virtio *v, struct err *e)
{
	struct pci_function *f = v->dev.pci;
	bool legacy = v->disable_legacy != 1;

	if (!legacy && v->disable_modern)
		return err_set(e, EINVAL,
			       "device cannot work as neither modern nor legacy mode is enabled: set disable-legacy "
			       "or disable-modern to off");
	if (v->vectors == UINT32_MAX)
		v->vectors = v->n_vq + 1;
	if (v->vectors > v->dev.class->pci->msix_vectors)
		return err_set(e, EINVAL, "vectors=%u: this device can use at most %u", v->vectors,
			       v->dev.class->pci->msix_vectors);
	f->msix_vectors = (uint8_t)v->vectors;
	f->absent_bars =
		(uint8_t)((legacy ? 0 : BIT(0)) | (v->vectors ? 0 : BIT(1)) | (v->disable_modern ? BIT(4) : 0));
	f->config_written = config_written;
	f->config_read = config_read;
	v->dev.regions[REGION_LEGACY].size = LEGACY_CONFIG_MSIX + v->ops->config_size;
	if (!legacy) { /* 4.1.2.1: no transitional driver shall bind */
		put_le16(f->config + 0x02, 0x1040 + v->ops->id);
		f->config[0x08] = 1;
		put_le16(f->config + 0x2e, 0x1100);
	}
	if (!v->disable_modern && add_modern_caps(v) < 0)
		return err_set(e, ENOSPC, "device '%s': no room for its PCI capabilities", v->dev.id);
	return 0;
}
