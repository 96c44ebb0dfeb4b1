/*
 * 82093AA I/O advanced programmable interrupt controller: 24 inputs, each with an entry in the redirection table that
 * says which message goes to the local APICs.
 *
 * Sources: Intel 82093AA data sheet (290566-001), called DS; version 0x20 with its EOI register as in the ICH families.
 *
 * A level in the interrupt fabric means "asserted": the board's wiring takes care of the polarity. The polarity bit of
 * an entry is therefore kept and read back but does not invert, as in KVM and QEMU. The delivery status bit reads as
 * idle because messages are delivered at once. Left out: the APIC serial bus and its arbitration (the arbitration
 * ID follows the ID).
 *
 * With kernel-irqchip=on the chip lives in KVM: nothing is mapped here and the same state goes to and comes from KVM.
 * Lock: the fabric's, so that any device may drive a pin (vmm/irq.h).
 */
#include "vmm/device.h"

#include <errno.h>

enum { PINS = 24 };
enum { REG_IOREGSEL = 0x00, REG_IOWIN = 0x10, REG_EOI = 0x40 };
enum { IOAPICID = 0x00, IOAPICVER = 0x01, IOAPICARB = 0x02, IOREDTBL = 0x10 };

/* Redirection table entry, DS 3.2.4 */
#define RTE_VECTOR         0xffull
#define RTE_DELIVERY_SHIFT 8
#define RTE_DELIVERY       (7ull << RTE_DELIVERY_SHIFT)
#define RTE_LOGICAL        BIT64(11)
#define RTE_STATUS         BIT64(12)
#define RTE_REMOTE_IRR     BIT64(14)
#define RTE_LEVEL          BIT64(15)
#define RTE_MASKED         BIT64(16)
#define RTE_DEST_SHIFT     56
#define RTE_WRITABLE       (0x1afffull | 0xffull << RTE_DEST_SHIFT)

#define MSI_BASE         0xfee00000u
#define MSI_DEST_SHIFT   12
#define MSI_LOGICAL      BIT(2)
#define MSI_LEVEL        BIT(15)
#define MSI_LEVEL_ASSERT BIT(14)

/*
 * A driver that does not silence its device before the EOI would be interrupted again at once, for ever. Real chips
 * take time to resend, in which the guest makes progress; after so many resends in a row ours waits a little too.
 */
enum { STORM_LIMIT = 10000 };
#define STORM_DELAY_NS (10 * NS_PER_MS)

struct ioapic {
	struct device dev;
	uint8_t version; /* option */
	struct ioapic_state s;
	uint32_t inputs; /* levels of the pins as last driven: wires, not reset */
	uint32_t resends[PINS];
	struct timer storm_timer;
	bool in_kernel;
};

static bool pin_is_level(const struct ioapic *c, unsigned pin)
{
	return c->s.redirtbl[pin] & RTE_LEVEL;
}

static void pin_message(uint64_t rte, uint64_t *address, uint32_t *data)
{
	*address =
		MSI_BASE | (uint32_t)(rte >> RTE_DEST_SHIFT) << MSI_DEST_SHIFT | (rte & RTE_LOGICAL ? MSI_LOGICAL : 0);
	*data = (uint32_t)(rte & (RTE_VECTOR | RTE_DELIVERY)) | (rte & RTE_LEVEL ? MSI_LEVEL | MSI_LEVEL_ASSERT : 0);
}

static void pin_route(struct ioapic *c, unsigned pin)
{
	uint64_t address;
	uint32_t data;

	pin_message(c->s.redirtbl[pin], &address, &data);
	irq_ioapic_route(&c->dev, pin, address, data, c->s.redirtbl[pin] & RTE_MASKED, pin_is_level(c, pin));
}

/* Send what the pin requests, if its entry allows. */
static void pin_service(struct ioapic *c, unsigned pin)
{
	uint64_t *rte = &c->s.redirtbl[pin], address;
	uint32_t data;

	if (!(c->s.irr & BIT(pin)) || *rte & RTE_MASKED)
		return;
	if (*rte & RTE_LEVEL) {
		if (*rte & RTE_REMOTE_IRR) /* the local APIC has it and has not answered with an EOI */
			return;
		*rte |= RTE_REMOTE_IRR;
	} else {
		c->s.irr &= ~BIT(pin);
	}
	pin_message(*rte, &address, &data);
	irq_ioapic_send(&c->dev, address, data);
}

static void ioapic_set_input(struct device *chip, unsigned pin, bool level)
{
	struct ioapic *c = DEVICE(chip, struct ioapic);
	uint32_t bit;

	if (pin >= PINS)
		return;
	bit = BIT(pin);
	if (!level) {
		c->inputs &= ~bit;
		c->s.irr &= ~bit;
		c->resends[pin] = 0;
		return;
	}
	if (!pin_is_level(c, pin)) {
		/* DS 3.2.4, interrupt mask: edges on a masked pin are lost. */
		if (!(c->inputs & bit) && !(c->s.redirtbl[pin] & RTE_MASKED))
			c->s.irr |= bit;
	} else {
		c->s.irr |= bit;
	}
	c->inputs |= bit;
	pin_service(c, pin);
}

static void pin_resend(struct ioapic *c, unsigned pin)
{
	if (!(c->s.irr & BIT(pin)) || c->s.redirtbl[pin] & RTE_MASKED)
		return;
	if (++c->resends[pin] < STORM_LIMIT) {
		pin_service(c, pin);
		return;
	}
	c->resends[pin] = 0;
	if (!timer_pending(&c->storm_timer))
		timer_arm(&c->storm_timer, clock_ns(VCLOCK_VIRTUAL) + STORM_DELAY_NS);
}

static void storm_over(void *opaque)
{
	struct ioapic *c = opaque;

	for (unsigned pin = 0; pin < PINS; pin++)
		if (pin_is_level(c, pin))
			pin_service(c, pin);
}

static void ioapic_eoi(struct device *chip, uint8_t vector)
{
	struct ioapic *c = DEVICE(chip, struct ioapic);

	for (unsigned pin = 0; pin < PINS; pin++) {
		uint64_t *rte = &c->s.redirtbl[pin];

		if ((*rte & RTE_VECTOR) != vector || !(*rte & RTE_LEVEL) || !(*rte & RTE_REMOTE_IRR))
			continue;
		*rte &= ~RTE_REMOTE_IRR;
		pin_resend(c, pin);
	}
}

static uint32_t register_read(struct ioapic *c)
{
	uint32_t index = c->s.ioregsel & 0xff;
	uint64_t rte;

	switch (index) {
	case IOAPICID:
	case IOAPICARB:
		return c->s.id << 24;
	case IOAPICVER:
		return c->version | (PINS - 1) << 16;
	}
	if (index < IOREDTBL || index >= IOREDTBL + 2 * PINS)
		return 0;
	rte = c->s.redirtbl[(index - IOREDTBL) / 2];
	return (uint32_t)(index & 1 ? rte >> 32 : rte);
}

static void register_write(struct ioapic *c, uint32_t value)
{
	uint32_t index = c->s.ioregsel & 0xff;
	unsigned pin;
	uint64_t *rte, v;

	if (index == IOAPICID)
		c->s.id = value >> 24 & 0xf;
	if (index < IOREDTBL || index >= IOREDTBL + 2 * PINS)
		return;
	pin = (index - IOREDTBL) / 2;
	rte = &c->s.redirtbl[pin];
	v = index & 1 ? (*rte & 0xffffffff) | (uint64_t)value << 32 : (*rte & ~0xffffffffull) | value;
	*rte = (v & RTE_WRITABLE) | (*rte & RTE_REMOTE_IRR);
	if (!(*rte & RTE_LEVEL)) /* what chips do in practice, and Linux relies on to clear a stuck remote IRR */
		*rte &= ~RTE_REMOTE_IRR;
	else
		c->s.irr = (c->s.irr & ~BIT(pin)) | (c->inputs & BIT(pin));
	pin_route(c, pin);
	pin_service(c, pin);
}

static uint64_t ioapic_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct ioapic *c = DEVICE(dev, struct ioapic);

	if (offset == REG_IOREGSEL)
		return c->s.ioregsel;
	if (offset == REG_IOWIN && size == 4)
		return register_read(c);
	return 0;
}

static void ioapic_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct ioapic *c = DEVICE(dev, struct ioapic);

	if (offset == REG_IOREGSEL)
		c->s.ioregsel = (uint8_t)value;
	else if (offset == REG_IOWIN && size == 4)
		register_write(c, (uint32_t)value);
	else if (offset == REG_EOI && size == 4 && c->version >= 0x20)
		ioapic_eoi(dev, (uint8_t)value);
	else
		log_guest(&dev->guest_log, "ioapic", "%u-byte write to offset %#lx: there is no such register", size,
			  (unsigned long)offset);
}

static void ioapic_reset(struct device *dev)
{
	struct ioapic *c = DEVICE(dev, struct ioapic);

	c->s = (struct ioapic_state){.base_address = dev->regions[0].desc->base};
	for (unsigned pin = 0; pin < PINS; pin++)
		c->s.redirtbl[pin] = RTE_MASKED;
	memset(c->resends, 0, sizeof(c->resends));
	timer_cancel(&c->storm_timer);
}

static void ioapic_settle(struct device *dev)
{
	struct ioapic *c = DEVICE(dev, struct ioapic);
	int ret;

	if (c->in_kernel) {
		ret = irq_kernel_set_ioapic(dev, &c->s);
		if (ret < 0)
			log_error("ioapic", "%s: KVM refused the state of the IOAPIC: %s", dev->id, strerror(-ret));
		return;
	}
	region_enable(&dev->regions[0], true); /* disabled by default: in KVM's mode it is not ours */
	for (unsigned pin = 0; pin < PINS; pin++) {
		pin_route(c, pin);
		pin_service(c, pin);
	}
	timer_settle(&c->storm_timer);
}

static int ioapic_create(struct device *dev, struct err *e)
{
	static const struct irq_chip_ops ops = {.set_input = ioapic_set_input, .eoi = ioapic_eoi};
	struct ioapic *c = DEVICE(dev, struct ioapic);

	if (c->version != 0x11 && c->version != 0x20)
		return err_set(e, EINVAL, "%s: version=%#x is not an IOAPIC version we have; use 0x11 or 0x20", dev->id,
			       c->version);
	c->in_kernel = irq_chips_in_kernel(dev);
	device_timer_init(dev, &c->storm_timer, VCLOCK_VIRTUAL, storm_over);
	if (!c->in_kernel)
		irq_attach_chip(dev, IRQ_CHIP_IOAPIC, &ops);
	return 0;
}

static void ioapic_destroy(struct device *dev)
{
	timer_cancel(&DEVICE(dev, struct ioapic)->storm_timer);
}

static int ioapic_pre_save(void *obj, struct err *e)
{
	struct ioapic *c = obj;
	int ret;

	if (!c->in_kernel)
		return 0;
	c->inputs = 0;
	ret = irq_kernel_get_ioapic(&c->dev, &c->s);
	return ret < 0 ? err_errno(e, -ret, "%s: cannot read the IOAPIC from KVM", c->dev.id) : 0;
}

static int ioapic_post_load(void *obj, uint16_t version, struct err *e)
{
	struct ioapic *c = obj;

	for (unsigned pin = 0; pin < PINS; pin++) {
		c->s.redirtbl[pin] &= RTE_WRITABLE | RTE_REMOTE_IRR;
		c->resends[pin] = 0;
	}
	c->s.base_address = c->dev.regions[0].desc->base;
	return 0;
}

static const struct state_field redirection_fields[] = {
	STATE_U_MAX(struct ioapic_state, id, 15),
	STATE_U_MAX(struct ioapic_state, ioregsel, 255),
	STATE_U_MAX(struct ioapic_state, irr, 0xffffff),
	STATE_UA(struct ioapic_state, redirtbl),
	STATE_FIELDS_END,
};
static const struct state_table redirection_table = {
	.name = "ioapic-registers", .version = 1, .oldest = 1, .fields = redirection_fields};

static const struct state_field ioapic_fields[] = {
	STATE_SUB(struct ioapic, s, &redirection_table),
	STATE_U_MAX(struct ioapic, inputs, 0xffffff),
	STATE_T(struct ioapic, storm_timer),
	STATE_FIELDS_END,
};
static const struct state_table ioapic_state = {
	.name = "ioapic",
	.version = 1,
	.oldest = 1,
	.fields = ioapic_fields,
	.pre_save = ioapic_pre_save,
	.post_load = ioapic_post_load,
};

static const struct prop ioapic_props[] = {
	PROP(struct ioapic, version, PROP_U8, .def = 0x11,
	     .help = "0x11 (82093AA, as KVM's) or 0x20 (with EOI register)"),
	PROP_END,
};

/* DS 3.1: both registers are accessed by 32 bits; IOREGSEL by 8 as well. */
static const struct region_ops ioapic_ops = {.read = ioapic_read, .write = ioapic_write, .max_access = 4};
static const struct region_desc ioapic_regions[] = {
	{
		.name = "ioapic",
		.space = SPACE_MMIO,
		.base = 0xfec00000,
		.size = 0x1000,
		.bar = REGION_NOT_BAR,
		.disabled = true,
		.ops = &ioapic_ops,
	},
};

DEVICE_CLASS(ioapic) = {
	.name = "ioapic",
	.alias = "kvm-ioapic",
	.summary = "82093AA I/O interrupt controller",
	.bus = BUS_SYSTEM,
	.category = "Misc",
	.size = sizeof(struct ioapic),
	.lock_is_fabric = true,
	.props = ioapic_props,
	.regions = ioapic_regions,
	.n_regions = ARRAY_SIZE(ioapic_regions),
	.state = &ioapic_state,
	.create = ioapic_create,
	.destroy = ioapic_destroy,
	.reset = ioapic_reset,
	.settle = ioapic_settle,
};
