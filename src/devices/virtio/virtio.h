/*
 * The virtio core: what all virtio devices share, from the rings to the PCI function. A device is one more file that
 * says which queues it has, what its configuration space shows and what to do with the buffers the driver offers.
 *
 * Source: OASIS Virtual I/O Device (VIRTIO) 1.2, sections 2 (basic facilities), 4.1 (PCI transport) and the legacy
 * interface parts of both; for what drivers before 1.0 really do: the legacy sections of 1.2 and Rusty Russell's virtio
 * 0.9.5. Every device is transitional unless disable-legacy=on or disable-modern=on: Windows XP, old Linux and firmware
 * use BAR 0 (I/O ports), newer drivers BAR 4. Left out: packed rings, notification data, queue reset, an IOMMU in front
 * of the device (VIRTIO_F_ACCESS_PLATFORM), SR-IOV, shared memory regions; none of them is offered.
 *
 *   virtq.c       split rings: taking chains, giving them back, who has to be told
 *   virtio.c      status, features, reset, life cycle, state
 *   virtio_pci.c  the PCI function: identity, capabilities, registers of both interfaces, interrupts, doorbells
 *
 * ---- A device, complete ----
 *
 *   struct echo {
 *           struct virtio v;      // first: struct device is its first member
 *           struct virtq vq[1];   // as many as it has; their state is a table of the device's own
 *   };
 *
 *   static void echo_run(struct virtq *vq)                // the driver rang, or there may be something to do
 *   {
 *           struct virtq_elem *el;
 *
 *           while ((el = virtq_pop(vq))) {                 // NULL: empty, out of budget, or the ring is broken
 *                   uint8_t buf[512];
 *                   size_t n = virtq_read(el, 0, buf, sizeof(buf));
 *
 *                   n = virtq_write(el, 0, buf, n);
 *                   virtq_push(el, n);                     // el is gone
 *           }
 *           virtq_notify(vq);                              // once for all of them
 *   }
 *
 *   static int echo_create(struct device *dev, struct err *e)
 *   {
 *           struct echo *s = DEVICE(dev, struct echo);
 *
 *           virtio_init(&s->v, &echo_ops, s->vq, ARRAY_SIZE(s->vq));
 *           virtq_init(&s->vq[0], 128, echo_run);
 *           return virtio_pci_create(&s->v, e);
 *   }
 *
 *   DEVICE_CLASS(virtio_echo) = {
 *           ..., .props = { VIRTIO_PROPS(struct echo, UINT32_MAX), ..., PROP_END }, VIRTIO_CLASS(echo_identity),
 * .create = echo_create, .destroy = echo_destroy (calls virtio_destroy), .state = a table that starts with
 * VIRTIO_STATE(struct echo)
 *   };
 *
 * ---- Rules ----
 *
 * Threads and locks: everything here is called with the device's lock held. run() is called on the main loop only,
 * never on a vCPU thread, so that it may do what a vCPU must not (system calls, files). Registers are served on vCPU
 * threads.
 *
 * Buffers: a chain taken with virtq_pop() is the device's until virtq_push(), virtq_unpop() or virtq_drop(); it holds
 * copies of the descriptors, so the guest cannot change what was checked. Addresses are only followed by dma_*(), which
 * checks them and marks pages dirty.
 *
 * Guests lie. What a driver may get wrong in a ring (an index that ran away, a head or next outside the table, loops,
 * chains beyond VIRTQ_MAX_SEGS, indirect tables inside indirect tables, rings outside RAM) ends in virtio_fail(): the
 * device stops, says DEVICE_NEEDS_RESET and does nothing until the driver resets it. Work per turn of the main loop is
 * bounded by the queue's size.
 *
 * Reset: ops->reset gives up what the device holds (virtq_drop()). A request that cannot be stopped (a host read into
 * guest RAM) stays popped; until its virtq_push() the status register does not read 0, which is how the driver knows
 * when its memory is its own again (2.1.2, 2.4.2).
 *
 * Save: quiesce calls ops->pause, where the device gives back waiting chains with virtq_unpop() in the reverse order of
 * taking them; requests in flight are waited for. Afterwards the rings in guest RAM and the indices in the state say
 * everything.
 */
#ifndef VMM_DEVICES_VIRTIO_H
#define VMM_DEVICES_VIRTIO_H

#include "vmm/device.h"
#include "vmm/doorbell.h"
#include "vmm/pci.h"

struct virtio;
struct virtq;

/* Device types (section 5) */
enum virtio_id {
	VIRTIO_ID_NET = 1,
	VIRTIO_ID_BLOCK = 2,
	VIRTIO_ID_CONSOLE = 3,
	VIRTIO_ID_RNG = 4,
	VIRTIO_ID_BALLOON = 5,
	VIRTIO_ID_SCSI = 8,
};

/* Device status (2.1) */
enum virtio_status {
	VIRTIO_ACKNOWLEDGE = 1,
	VIRTIO_DRIVER = 2,
	VIRTIO_DRIVER_OK = 4,
	VIRTIO_FEATURES_OK = 8,
	VIRTIO_NEEDS_RESET = 64,
	VIRTIO_FAILED = 128,
};

/* Feature bits of the core (6); 0 to 23 and 50 to 127 are the devices' */
#define VIRTIO_F_NOTIFY_ON_EMPTY 24 /* legacy only */
#define VIRTIO_F_ANY_LAYOUT      27 /* legacy only */
#define VIRTIO_F_INDIRECT_DESC   28
#define VIRTIO_F_EVENT_IDX       29
#define VIRTIO_F_VERSION_1       32

#define VIRTIO_NO_VECTOR  0xffff
#define VIRTIO_CONFIG_MAX 256
#define VIRTIO_MAX_QUEUES 64
#define VIRTQ_MAX_SIZE    1024 /* entries of a ring */
#define VIRTQ_MAX_SEGS    1024 /* descriptors of a chain, an indirect table's included */

/* ---- what a device says about itself ---- */

struct virtio_ops {
	uint16_t id;          /* enum virtio_id */
	uint16_t config_size; /* of its configuration space, <= VIRTIO_CONFIG_MAX */
	/* Features of the device type to offer, from its options; asked once. NULL: none. */
	uint64_t (*features)(const struct virtio *v);
	/* What the driver sees now: all config_size bytes, little-endian. */
	void (*config_read)(struct virtio *v, uint8_t *config);
	/* A write of 1, 2 or 4 bytes, within config_size. NULL: nothing can be written. */
	void (*config_write)(struct virtio *v, unsigned offset, uint32_t value, unsigned size);
	/* The driver is ready: status went to DRIVER_OK (also on load, before the queues are run). Optional. */
	void (*start)(struct virtio *v);
	/* Back to power-on state, own fields and chains only (class->reset's rules). Also for a driver's reset.
	 * Optional. */
	void (*reset)(struct virtio *v);
	/* Give back waiting chains; nothing may be popped until the queues run again. Optional. */
	void (*pause)(struct virtio *v);
};

/* ---- a device ---- */

struct virtio {
	struct device dev;
	const struct virtio_ops *ops;
	struct virtq *vq;
	unsigned n_vq;
	uint64_t offered; /* features, both interfaces together */

	/* options */
	int disable_legacy;
	bool disable_modern, use_ioeventfd, use_indirect, use_event_idx, use_any_layout, use_notify_on_empty;
	uint32_t vectors;

	/* state */
	uint64_t driver_features;
	uint32_t device_select, driver_select;
	uint16_t queue_select, config_vector;
	uint8_t status, isr, generation;
	bool modern; /* the driver uses the interface of 1.0 */
	bool broken; /* until reset */

	/* run time */
	bool paused;        /* quiesced: queues do not run */
	unsigned popped;    /* chains in the device's hands */
	unsigned epoch;     /* counts resets: what was popped before is stale */
	uint8_t reset_from; /* status the driver keeps seeing until stale chains came back; 0: none */
	uint64_t to_run;    /* bit n: queue n */
	struct bh run_bh, bell_bh;
	unsigned cfg_access; /* offset of the PCI configuration access capability; 0: none */
};

/* In create(), before anything else. vq: n queues that live as long as the device. */
void virtio_init(struct virtio *v, const struct virtio_ops *ops, struct virtq *vq, unsigned n);
/* After the queues' virtq_init(): the PCI function as the options want it. */
int virtio_pci_create(struct virtio *v, struct err *e);
void virtio_destroy(struct virtio *v); /* in destroy() */

static inline bool virtio_has(const struct virtio *v, unsigned feature)
{
	return v->driver_features & BIT64(feature);
}
/* The driver is there and the device not broken: queues run. */
bool virtio_running(const struct virtio *v);
/* What config_read() shows has changed: new generation, configuration interrupt. Leaf. */
void virtio_config_changed(struct virtio *v);
/* The driver broke the rules: stop until it resets the device. */
void virtio_fail(struct virtio *v, const char *fmt, ...) VMM_PRINTF(2, 3);

/* ---- queues ---- */

struct virtq {
	struct virtio *v;
	void (*run)(struct virtq *vq);
	uint16_t index, max;
	void *opaque; /* the device's */

	/* state */
	uint16_t size, vector;
	bool ready;
	uint64_t desc, avail, used; /* guest physical */
	uint16_t last_avail;        /* next to be taken */
	uint16_t used_idx;
	uint16_t signalled_used; /* used_idx when the driver was told last */
	bool signalled;          /* ... if it ever was since the queue was set up */
	bool quiet;              /* the driver was asked not to ring */

	/* run time */
	uint16_t seen_avail; /* copy of the driver's index */
	uint16_t budget;
	bool news; /* pushed and not yet told */
	bool in_run;
	struct doorbell bell;
};

struct virtq_seg {
	uint64_t addr;
	uint32_t len;
};
/* A chain: the parts the device reads come first, then those it writes. */
struct virtq_elem {
	struct virtq *vq;
	unsigned epoch;
	uint16_t head;
	uint16_t n_out, n_in;
	uint32_t out_len, in_len; /* bytes; a chain of 4 GiB or more is refused */
	void *opaque;             /* the device's */
	struct virtq_seg seg[];
};

/* size: entries, a power of two. run is called when the driver rang and after virtq_schedule(). */
void virtq_init(struct virtq *vq, uint16_t size, void (*run)(struct virtq *vq));
/* The next chain, or NULL: none, the queue is not running, this turn's budget is used up (run() is called again by
   itself), or the ring is broken. */
struct virtq_elem *virtq_pop(struct virtq *vq);
bool virtq_empty(struct virtq *vq); /* nothing to pop; true also while the queue does not run */
/* Done with a chain; `written` bytes from the start of its in-part are valid. Frees it. */
void virtq_push(struct virtq_elem *el, uint32_t written);
/* Put the chain taken last back as if it never had been. Frees it. */
void virtq_unpop(struct virtq_elem *el);
/* Forget a chain without telling the driver (its reset). Frees it. */
void virtq_drop(struct virtq_elem *el);
/* Interrupt the driver if it wants to know about what was pushed. */
void virtq_notify(struct virtq *vq);
/* Run the queue soon (a back end got data, room, ...). Any thread. */
void virtq_schedule(struct virtq *vq);
/* Ask the driver (not) to ring. After switching on look once more: a chain may have come meanwhile. Rings are hints. */
void virtq_want_rings(struct virtq *vq, bool on);

/* Copy between a chain and buf: bytes from `offset` of its out-part, or to its in-part. Returns bytes copied, less than
   len at the part's end or where memory ends. */
size_t virtq_read(const struct virtq_elem *el, size_t offset, void *buf, size_t len);
size_t virtq_write(const struct virtq_elem *el, size_t offset, const void *buf, size_t len);
/* Host pointers for [offset, offset + len) of a part (DMA_TO_DEVICE: out): fills up to max, returns their number,
   -EFAULT or -E2BIG. Release with dma_unmap() before virtq_push(). */
int virtq_map(const struct virtq_elem *el, enum dma_dir dir, size_t offset, size_t len, struct iovec *iov, int max);

/* ---- class and state boiler plate ---- */

extern const struct state_table virtio_state, virtq_state;
int virtio_post_load(struct virtio *v,
		     struct err *e); /* call in the table's post_load, the device's fields are loaded */

/* The first two fields of every device's table. */
#define VIRTIO_STATE(S) STATE_SUB(S, v, &virtio_state), STATE_SUBA(S, vq, &virtq_state)

#define VIRTIO_REGIONS 5
extern const struct region_desc virtio_pci_regions[VIRTIO_REGIONS];
void virtio_class_reset(struct device *dev);
void virtio_class_settle(struct device *dev);
void virtio_class_quiesce(struct device *dev);
void virtio_class_resume(struct device *dev);

#define VIRTIO_CLASS(identity)                                                                                \
	.bus = BUS_PCI, .user_creatable = true, .hotpluggable = true, .pci = &(identity),                     \
	.regions = virtio_pci_regions, .n_regions = VIRTIO_REGIONS, .n_irqs = 1, .reset = virtio_class_reset, \
	.settle = virtio_class_settle, .quiesce = virtio_class_quiesce, .resume = virtio_class_resume

/* Identity of a transitional function, and more members of it; virtio_pci_create() adapts it. */
#define VIRTIO_IDENTITY(transitional_id, type, pci_class, ...)                                                  \
	{                                                                                                       \
		.vendor = 0x1af4, .device = (transitional_id), .subsystem_vendor = 0x1af4, .subsystem = (type), \
		.class_code = (pci_class), .int_pin = 1, .msix_vectors = VIRTIO_MAX_QUEUES + 1, .msix_bar = 1,  \
		.bar =                                                                                          \
			{                                                                                       \
				[0] = {PCI_BAR_IO},                                                             \
				[1] = {PCI_BAR_MEM32},                                                          \
				[4] = {PCI_BAR_MEM64_PREFETCH},                                                 \
			},                                                                                      \
		__VA_ARGS__                                                                                     \
	}

/* vectors_default: UINT32_MAX for one per queue and one for the configuration */
#define VIRTIO_PROPS(S, vectors_default)                                                                            \
	PROP_NAMED(S, "disable-legacy", v.disable_legacy, PROP_ONOFFAUTO, .def = 2,                                 \
		   .help = "no interface for drivers before virtio 1.0"),                                           \
		PROP_NAMED(S, "disable-modern", v.disable_modern, PROP_BOOL, .help = "no interface of virtio 1.0"), \
		PROP_NAMED(S, "vectors", v.vectors, PROP_U32, .def = (vectors_default),                             \
			   .help = "MSI-X vectors; 0: none; 4294967295: one per queue and one"),                    \
		PROP_NAMED(S, "ioeventfd", v.use_ioeventfd, PROP_BOOL, .def = 1,                                    \
			   .help = "doorbells wake the device without leaving KVM"),                                \
		PROP_NAMED(S, "indirect_desc", v.use_indirect, PROP_BOOL, .def = 1,                                 \
			   .help = "offer indirect descriptors"),                                                   \
		PROP_NAMED(S, "event_idx", v.use_event_idx, PROP_BOOL, .def = 1,                                    \
			   .help = "offer interrupt and doorbell suppression by index"),                            \
		PROP_NAMED(S, "any_layout", v.use_any_layout, PROP_BOOL, .def = 1,                                  \
			   .help = "legacy: take any framing of buffers"),                                          \
		PROP_NAMED(S, "notify_on_empty", v.use_notify_on_empty, PROP_BOOL, .def = 1,                        \
			   .help = "legacy: offer an interrupt when a queue runs empty")

/* ---- between the core's files ---- */
void virtio_write_status(struct virtio *v, uint8_t value);
uint8_t virtio_read_status(const struct virtio *v);
void virtio_driver_reset(struct virtio *v);
void virtio_run_all(struct virtio *v);
void virtio_update_bells(struct virtio *v); /* soon, on the main loop */
void virtio_drop_bells(struct virtio *v);   /* at once */
void virtio_pci_attach_bell(struct virtq *vq);
void virtio_pci_interrupt(struct virtio *v, uint8_t isr_bit, uint16_t vector);
void virtio_pci_update_intx(struct virtio *v);
void virtq_reset(struct virtq *vq);
void virtq_run(struct virtq *vq);
void virtq_chain_gone(struct virtio *v); /* one of v's chains was freed */

#endif
