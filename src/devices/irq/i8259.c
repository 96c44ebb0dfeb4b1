/*
 * The two cascaded 8259A programmable interrupt controllers of a PC, with the edge/level control registers of the
 * PIIX3, as one device.
 *
 * Sources: Intel 8259A data sheet (231468-003), called DS below; Intel 82371SB (PIIX3) data sheet, section 2.5.
 *
 * Modes: fixed and rotating priority, special mask, special fully nested, automatic EOI, poll.
 * Left out, because the PIIX3 has no pins or uses for them: the MCS-80/85 call mode (ICW4 bit 0 is taken as 1), the
 * buffered mode, ICW3 wirings other than the PC's (slave on IR2), ICW1's LTIM bit (replaced by the ELCR).
 *
 * Like KVM's chips, an edge once latched stays requested when the line falls again before the acknowledge; the slave's
 * request latched by the master does too, which yields the spurious IRQ 15 of the data sheet.
 *
 * With kernel-irqchip=on the chips live in KVM: nothing is mapped here and the same state goes to and comes from KVM.
 * Lock: the fabric's, so that any device may drive a line (vmm/irq.h).
 */
#include "vmm/device.h"

#include <errno.h>

enum { MASTER, SLAVE };
enum { CASCADE = 2 }; /* the master's input that the slave drives */

/* ICW1, OCW2, OCW3 share the even port (DS "Initialization command words", figures 7 and 8). */
enum { ICW1_IC4 = 0x01, ICW1_SNGL = 0x02, ICW1_SELECT = 0x10 };
enum { ICW4_AEOI = 0x02, ICW4_SFNM = 0x10 };
enum { OCW3_SELECT = 0x08, OCW3_RIS = 0x01, OCW3_RR = 0x02, OCW3_POLL = 0x04, OCW3_SMM = 0x20, OCW3_ESMM = 0x40 };
enum ocw2_command {
	OCW2_ROTATE_AEOI_CLEAR,
	OCW2_EOI,
	OCW2_NOP,
	OCW2_SPECIFIC_EOI,
	OCW2_ROTATE_AEOI_SET,
	OCW2_ROTATE_EOI,
	OCW2_SET_PRIORITY,
	OCW2_ROTATE_SPECIFIC_EOI
};
/* pic_state.init_state: which word the odd port takes next */
enum { INIT_DONE, INIT_ICW2, INIT_ICW3, INIT_ICW4 };

struct i8259 {
	struct device dev;
	struct pic_state pic[2];
	uint16_t inputs; /* levels of the 16 lines as last driven: wires, so neither reset nor saved */
	bool intr;       /* the INTR output as last driven */
	bool in_kernel;
};

/* The ELCR bits a PIIX3 has: not IRQ 0, 1, 2, 8 and 13, which are always edge triggered. */
static const uint8_t elcr_mask[2] = {0xf8, 0xde};

/* Distance of the highest-priority set bit of mask from the top of the priority order; 8: none. */
static unsigned priority_of(const struct pic_state *s, uint8_t mask)
{
	unsigned p = 0;

	if (!mask)
		return 8;
	while (!(mask & (1u << ((p + s->priority_add) & 7))))
		p++;
	return p;
}

/* The input to be served next, or -1. */
static int pic_request(const struct i8259 *c, unsigned which)
{
	const struct pic_state *s = &c->pic[which];
	unsigned requested = priority_of(s, s->irr & ~s->imr);
	uint8_t in_service = s->isr;

	if (requested == 8)
		return -1;
	if (s->special_mask) /* DS "Special mask mode": a masked level no longer holds off lower ones */
		in_service &= ~s->imr;
	/* DS "Special fully nested mode": the slave in service may interrupt again through the same input */
	if (s->special_fully_nested_mode && which == MASTER)
		in_service &= ~(1u << CASCADE);
	if (requested >= priority_of(s, in_service))
		return -1;
	return (int)((requested + s->priority_add) & 7);
}

static void pic_latch(struct pic_state *s, unsigned pin, bool level)
{
	uint8_t bit = (uint8_t)(1u << pin);

	if (s->elcr & bit)
		s->irr = (uint8_t)(level ? s->irr | bit : s->irr & ~bit);
	else if (level && !(s->last_irr & bit))
		s->irr |= bit;
	s->last_irr = (uint8_t)(level ? s->last_irr | bit : s->last_irr & ~bit);
}

static void pic_update(struct i8259 *c)
{
	bool intr;

	if (pic_request(c, SLAVE) >= 0) {
		pic_latch(&c->pic[MASTER], CASCADE, true);
		pic_latch(&c->pic[MASTER], CASCADE, false);
	}
	intr = pic_request(c, MASTER) >= 0;
	if (intr != c->intr) {
		c->intr = intr;
		irq_pic_output(&c->dev, intr);
	}
}

/* The CPU (or a poll) takes input `pin`: DS "Interrupt sequence". */
static void pic_take(struct pic_state *s, unsigned pin)
{
	uint8_t bit = (uint8_t)(1u << pin);

	if (!s->auto_eoi)
		s->isr |= bit;
	else if (s->rotate_on_auto_eoi)
		s->priority_add = (pin + 1) & 7;
	if (!(s->elcr & bit))
		s->irr &= (uint8_t)~bit;
}

static void i8259_set_input(struct device *chip, unsigned pin, bool level)
{
	struct i8259 *c = DEVICE(chip, struct i8259);

	if (pin > 15 || pin == CASCADE)
		return;
	c->inputs = (uint16_t)(level ? c->inputs | BIT(pin) : c->inputs & ~BIT(pin));
	pic_latch(&c->pic[pin >> 3], pin & 7, level);
	pic_update(c);
}

static uint8_t i8259_ack(struct device *chip)
{
	struct i8259 *c = DEVICE(chip, struct i8259);
	struct pic_state *m = &c->pic[MASTER], *s = &c->pic[SLAVE];
	int pin = pic_request(c, MASTER);
	uint8_t vector;

	if (pin < 0) { /* the request went away: DS "default IR7"; no bit is set in ISR */
		vector = m->irq_base + 7;
	} else if (pin == CASCADE) {
		pic_take(m, CASCADE);
		pin = pic_request(c, SLAVE);
		if (pin >= 0)
			pic_take(s, (unsigned)pin);
		else
			pin = 7;
		vector = (uint8_t)(s->irq_base + pin);
	} else {
		pic_take(m, (unsigned)pin);
		vector = (uint8_t)(m->irq_base + pin);
	}
	pic_update(c);
	return vector;
}

static void pic_icw1(struct pic_state *s, uint8_t value)
{
	/* DS "Initialization command words 1 and 2": the edge sense circuit, mask, priorities and modes are reset. */
	s->last_irr = 0;
	s->irr &= s->elcr;
	s->imr = 0;
	s->isr = 0;
	s->priority_add = 0;
	s->special_mask = 0;
	s->read_reg_select = 0;
	s->poll = 0;
	s->init4 = value & ICW1_IC4;
	if (!s->init4) {
		s->auto_eoi = 0;
		s->special_fully_nested_mode = 0;
	}
	s->rotate_on_auto_eoi = 0;
	s->init_state = INIT_ICW2;
}

static void pic_ocw2(struct pic_state *s, uint8_t value)
{
	unsigned level = value & 7, p;
	uint8_t in_service = s->isr;

	switch ((enum ocw2_command)(value >> 5)) {
	case OCW2_ROTATE_AEOI_CLEAR:
		s->rotate_on_auto_eoi = 0;
		break;
	case OCW2_ROTATE_AEOI_SET:
		s->rotate_on_auto_eoi = 1;
		break;
	case OCW2_EOI:
	case OCW2_ROTATE_EOI:
		if (s->special_mask) /* DS "End of interrupt": masked levels are left alone in special mask mode */
			in_service &= ~s->imr;
		p = priority_of(s, in_service);
		if (p == 8)
			break;
		level = (p + s->priority_add) & 7;
		s->isr &= (uint8_t) ~(1u << level);
		if (value >> 5 == OCW2_ROTATE_EOI)
			s->priority_add = (level + 1) & 7;
		break;
	case OCW2_SPECIFIC_EOI:
		s->isr &= (uint8_t) ~(1u << level);
		break;
	case OCW2_ROTATE_SPECIFIC_EOI:
		s->isr &= (uint8_t) ~(1u << level);
		s->priority_add = (level + 1) & 7;
		break;
	case OCW2_SET_PRIORITY:
		s->priority_add = (level + 1) & 7;
		break;
	case OCW2_NOP:
		break;
	}
}

static void pic_ocw3(struct pic_state *s, uint8_t value)
{
	if (value & OCW3_POLL)
		s->poll = 1;
	if (value & OCW3_RR)
		s->read_reg_select = value & OCW3_RIS;
	if (value & OCW3_ESMM)
		s->special_mask = !!(value & OCW3_SMM);
}

static void pic_write_odd(struct pic_state *s, uint8_t value)
{
	switch (s->init_state) {
	case INIT_DONE:
		s->imr = value;
		break;
	case INIT_ICW2:
		s->irq_base = value & 0xf8;
		s->init_state = INIT_ICW3; /* the PC always cascades: ICW1's SNGL is not honoured by the PIIX3 either */
		break;
	case INIT_ICW3:
		s->init_state = s->init4 ? INIT_ICW4 : INIT_DONE;
		break;
	case INIT_ICW4:
		s->special_fully_nested_mode = !!(value & ICW4_SFNM);
		s->auto_eoi = !!(value & ICW4_AEOI);
		s->init_state = INIT_DONE;
		break;
	}
}

static void i8259_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8259 *c = DEVICE(dev, struct i8259);
	struct pic_state *s = &c->pic[r == &dev->regions[SLAVE] ? SLAVE : MASTER];
	uint8_t v = (uint8_t)value;

	if (offset & 1)
		pic_write_odd(s, v);
	else if (v & ICW1_SELECT)
		pic_icw1(s, v);
	else if (v & OCW3_SELECT)
		pic_ocw3(s, v);
	else
		pic_ocw2(s, v);
	pic_update(c);
}

static uint64_t i8259_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct i8259 *c = DEVICE(dev, struct i8259);
	unsigned which = r == &dev->regions[SLAVE] ? SLAVE : MASTER;
	struct pic_state *s = &c->pic[which];
	int pin;

	if (s->poll) { /* DS "Poll command": the next read from either port acknowledges */
		s->poll = 0;
		pin = pic_request(c, which);
		if (pin < 0)
			return 0;
		pic_take(s, (unsigned)pin);
		if (which == SLAVE) /* its INT output falls with the acknowledge */
			c->pic[MASTER].irr &= (uint8_t) ~(1u << CASCADE);
		pic_update(c);
		return 0x80u | (unsigned)pin;
	}
	if (offset & 1)
		return s->imr;
	return s->read_reg_select ? s->isr : s->irr;
}

static uint64_t elcr_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return DEVICE(dev, struct i8259)->pic[offset].elcr;
}

static void elcr_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8259 *c = DEVICE(dev, struct i8259);
	struct pic_state *s = &c->pic[offset];
	uint8_t old = s->elcr, level = (uint8_t)(c->inputs >> (8 * offset));

	s->elcr = (uint8_t)value & elcr_mask[offset];
	/* An input that becomes level triggered requests exactly while its line is high. */
	s->irr = (uint8_t)((s->irr & ~(s->elcr & ~old)) | (level & s->elcr & ~old));
	pic_update(c);
}

static void i8259_reset(struct device *dev)
{
	struct i8259 *c = DEVICE(dev, struct i8259);

	for (unsigned i = 0; i < 2; i++)
		c->pic[i] = (struct pic_state){.elcr_mask = elcr_mask[i]};
}

static void i8259_settle(struct device *dev)
{
	struct i8259 *c = DEVICE(dev, struct i8259);
	int ret;

	if (!c->in_kernel) {
		/* Disabled by default: in KVM's mode they are not ours. */
		for (unsigned i = 0; i < dev->class->n_regions; i++)
			region_enable(&dev->regions[i], true);
		pic_update(c);
		irq_pic_output(dev, c->intr); /* a chip just loaded or reset has to say so even if nothing changed */
		return;
	}
	for (unsigned i = 0; i < 2; i++) {
		ret = irq_kernel_set_pic(dev, i, &c->pic[i]);
		if (ret < 0)
			log_error("i8259", "%s: KVM refused the state of PIC %u: %s", dev->id, i, strerror(-ret));
	}
}

static int i8259_create(struct device *dev, struct err *e)
{
	static const struct irq_chip_ops ops = {.set_input = i8259_set_input, .ack = i8259_ack};
	struct i8259 *c = DEVICE(dev, struct i8259);

	c->in_kernel = irq_chips_in_kernel(dev);
	if (!c->in_kernel)
		irq_attach_chip(dev, IRQ_CHIP_PIC, &ops);
	return 0;
}

static int i8259_pre_save(void *obj, struct err *e)
{
	struct i8259 *c = obj;
	int ret;

	for (unsigned i = 0; c->in_kernel && i < 2; i++) {
		ret = irq_kernel_get_pic(&c->dev, i, &c->pic[i]);
		if (ret < 0)
			return err_errno(e, -ret, "%s: cannot read PIC %u from KVM", c->dev.id, i);
	}
	return 0;
}

static int i8259_post_load(void *obj, uint16_t version, struct err *e)
{
	struct i8259 *c = obj;

	for (unsigned i = 0; i < 2; i++) {
		c->pic[i].elcr_mask = elcr_mask[i];
		if (c->pic[i].elcr & ~elcr_mask[i])
			return err_set(e, EINVAL, "%s: ELCR %u is %#x: bits outside %#x cannot be set", c->dev.id, i,
				       c->pic[i].elcr, elcr_mask[i]);
		if (c->pic[i].irq_base & 7)
			return err_set(e, EINVAL, "%s: vector base %u is %#x: not a multiple of 8", c->dev.id, i,
				       c->pic[i].irq_base);
	}
	c->inputs = (uint16_t)(c->pic[MASTER].last_irr | c->pic[SLAVE].last_irr << 8);
	return 0;
}

static const struct state_field pic_fields[] = {
	STATE_U(struct pic_state, last_irr),
	STATE_U(struct pic_state, irr),
	STATE_U(struct pic_state, imr),
	STATE_U(struct pic_state, isr),
	STATE_U_MAX(struct pic_state, priority_add, 7),
	STATE_U(struct pic_state, irq_base),
	STATE_U_MAX(struct pic_state, read_reg_select, 1),
	STATE_U_MAX(struct pic_state, poll, 1),
	STATE_U_MAX(struct pic_state, special_mask, 1),
	STATE_U_MAX(struct pic_state, init_state, INIT_ICW4),
	STATE_U_MAX(struct pic_state, auto_eoi, 1),
	STATE_U_MAX(struct pic_state, rotate_on_auto_eoi, 1),
	STATE_U_MAX(struct pic_state, special_fully_nested_mode, 1),
	STATE_U_MAX(struct pic_state, init4, 1),
	STATE_U(struct pic_state, elcr),
	STATE_FIELDS_END,
};
static const struct state_table pic_table = {.name = "pic", .version = 1, .oldest = 1, .fields = pic_fields};

static const struct state_field i8259_fields[] = {
	STATE_SUBA(struct i8259, pic, &pic_table),
	STATE_FIELDS_END,
};
static const struct state_table i8259_state = {
	.name = "i8259",
	.version = 1,
	.oldest = 1,
	.fields = i8259_fields,
	.pre_save = i8259_pre_save,
	.post_load = i8259_post_load,
};

static const struct region_ops i8259_ops = {.read = i8259_read, .write = i8259_write, .max_access = 1};
static const struct region_ops elcr_ops = {.read = elcr_read, .write = elcr_write, .max_access = 1};
static const struct region_desc i8259_regions[] = {
	{.name = "pic-master", .base = 0x20, .size = 2, .bar = REGION_NOT_BAR, .disabled = true, .ops = &i8259_ops},
	{.name = "pic-slave", .base = 0xa0, .size = 2, .bar = REGION_NOT_BAR, .disabled = true, .ops = &i8259_ops},
	{.name = "elcr", .base = 0x4d0, .size = 2, .bar = REGION_NOT_BAR, .disabled = true, .ops = &elcr_ops},
};

DEVICE_CLASS(i8259) = {
	.name = "isa-i8259",
	.alias = "kvm-i8259",
	.summary = "Pair of 8259A interrupt controllers",
	.bus = BUS_SYSTEM,
	.category = "Misc",
	.size = sizeof(struct i8259),
	.lock_is_fabric = true,
	.regions = i8259_regions,
	.n_regions = ARRAY_SIZE(i8259_regions),
	.state = &i8259_state,
	.create = i8259_create,
	.reset = i8259_reset,
	.settle = i8259_settle,
};
