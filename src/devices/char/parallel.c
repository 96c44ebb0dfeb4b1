/*
 * ISA parallel port: the PC/AT printer port with the PS/2 direction bit. IBM PC/AT Technical Reference, "Printer
 * Adapter"; IEEE 1284-2000, compatibility mode (clause 7) for the handshake.
 *
 * A character leaves on the falling edge of nStrobe (control bit 0 going 1) while the printer is selected. The printer
 * answers at once: Busy for the strobe, then nAck, which raises the interrupt if control bit 4 is set. Input goes the
 * other way only through the direction bit; nothing drives the lines then, so 0xff is read.
 * Left out, reads 0xff and ignores writes: EPP and ECP registers (QEMU's software port has none either).
 */
#include <errno.h>
#include "vmm/chardev.h"
#include "vmm/device.h"

#define MAX_PORTS 3
#define AUTO      UINT32_MAX

enum { REG_DATA, REG_STATUS, REG_CONTROL };
enum {
	STATUS_FIXED = 0x07,
	STATUS_NERROR = 0x08,
	STATUS_SELECT = 0x10,
	STATUS_PAPER_OUT = 0x20,
	STATUS_NACK = 0x40,
	STATUS_NBUSY = 0x80,
	STATUS_READY = STATUS_FIXED | STATUS_NERROR | STATUS_SELECT | STATUS_NACK | STATUS_NBUSY
};
enum {
	CONTROL_STROBE = 0x01,
	CONTROL_NINIT = 0x04,
	CONTROL_SELECT = 0x08,
	CONTROL_IRQ = 0x10,
	CONTROL_INPUT = 0x20,
	CONTROL_FIXED = 0xc0
};

struct isa_parallel {
	struct device dev;
	uint32_t index, iobase, irq;
	char *chardev;

	struct chardev *backend;
	uint8_t data, status, control;
	bool irq_pending;
	bool busy; /* the backend did not take `data` yet */
};

static const struct {
	uint16_t iobase;
	uint8_t irq;
} lpt_ports[MAX_PORTS] = {{0x378, 7}, {0x278, 5}, {0x3bc, 7}};

static void update_irq(struct isa_parallel *p)
{
	irq_set(&p->dev.irq[0], p->irq_pending && (p->control & CONTROL_IRQ));
}

/* The printer took the character: the handshake's Busy, nAck, ready are spread over the status reads that follow. */
static void acknowledged(struct isa_parallel *p)
{
	p->busy = false;
	if (p->control & CONTROL_IRQ)
		p->irq_pending = true;
}

static void send_data(struct isa_parallel *p)
{
	if (p->backend && !chardev_write(p->backend, &p->data, 1))
		p->busy = true; /* stays busy until the backend takes it */
}

static void control_write(struct isa_parallel *p, uint8_t value)
{
	uint8_t old = p->control;

	value |= CONTROL_FIXED;
	p->control = value;
	if (!(value & CONTROL_NINIT)) {
		p->status = STATUS_READY;
		p->busy = false;
	} else if (value & CONTROL_SELECT) {
		if (value & CONTROL_STROBE) {
			p->status &= (uint8_t)~STATUS_NBUSY;
			if (!(old & CONTROL_STROBE))
				send_data(p);
		} else if ((old & CONTROL_STROBE) && !p->busy) {
			acknowledged(p);
		}
	}
	update_irq(p);
}

static uint8_t status_read(struct isa_parallel *p)
{
	uint8_t value = p->status;

	p->irq_pending = false;
	if (!(p->status & STATUS_NBUSY) && !(p->control & CONTROL_STROBE) && !p->busy) {
		/* first the acknowledge pulse begins, then it ends together with Busy */
		if (p->status & STATUS_NACK)
			p->status &= (uint8_t)~STATUS_NACK;
		else
			p->status |= STATUS_NACK | STATUS_NBUSY;
	}
	update_irq(p);
	return value;
}

static uint64_t parallel_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct isa_parallel *p = DEVICE(dev, struct isa_parallel);

	switch (offset) {
	case REG_DATA:
		return p->control & CONTROL_INPUT ? 0xff : p->data;
	case REG_STATUS:
		return status_read(p);
	case REG_CONTROL:
		return p->control;
	default:
		return 0xff;
	}
}

static void parallel_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct isa_parallel *p = DEVICE(dev, struct isa_parallel);

	if (offset == REG_DATA && !p->busy)
		p->data = value;
	else if (offset == REG_CONTROL)
		control_write(p, value);
}

static const struct region_ops parallel_ops = {.read = parallel_read, .write = parallel_write, .max_access = 1};

static const struct region_desc parallel_regions[] = {
	{.name = "parallel", .space = SPACE_PIO, .base = 0x378, .size = 4, .bar = REGION_NOT_BAR, .ops = &parallel_ops},
};

/* ---- character device ---- */

static size_t can_receive(void *opaque)
{
	return 1; /* the port has no way in: what a peer sends is dropped */
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
}

static void writable(void *opaque)
{
	struct isa_parallel *p = opaque;

	if (!p->busy)
		return;
	p->busy = false;
	send_data(p);
	if (!p->busy && !(p->control & CONTROL_STROBE))
		acknowledged(p);
	update_irq(p);
}

static void replaced(void *opaque, struct chardev *by)
{
	struct isa_parallel *p = opaque;

	device_replace_chardev(&p->dev, p->backend, by);
	p->backend = by;
}

static const struct chardev_frontend parallel_frontend = {
	.can_receive = can_receive,
	.receive = receive,
	.writable = writable,
	.replaced = replaced,
};

/* ---- life cycle ---- */

static bool index_taken(const struct isa_parallel *p, uint32_t index)
{
	struct device *other = NULL;

	while ((other = device_next(p->dev.board, other)))
		if (other != &p->dev && other->class == p->dev.class &&
		    DEVICE(other, struct isa_parallel)->index == index)
			return true;
	return false;
}

static int choose_port(struct isa_parallel *p, struct err *e)
{
	if (p->index == AUTO)
		for (p->index = 0; p->index < MAX_PORTS && index_taken(p, p->index);)
			p->index++;
	if (p->index >= MAX_PORTS)
		return err_set(e, EINVAL, "isa-parallel: at most %d ports are supported (index=0..%d)", MAX_PORTS,
			       MAX_PORTS - 1);
	if (p->iobase == AUTO)
		p->iobase = lpt_ports[p->index].iobase;
	if (p->irq == AUTO)
		p->irq = lpt_ports[p->index].irq;
	if (p->iobase > 0x10000 - 4)
		return err_set(e, EINVAL, "isa-parallel: iobase=0x%x is beyond the port space", p->iobase);
	if (p->irq > 15)
		return err_set(e, EINVAL, "isa-parallel: irq=%u does not exist (0..15)", p->irq);
	return 0;
}

static int parallel_create(struct device *dev, struct err *e)
{
	struct isa_parallel *p = DEVICE(dev, struct isa_parallel);
	int ret = choose_port(p, e);

	if (ret)
		return ret;
	if (p->chardev) {
		p->backend = device_claim_chardev(dev, p->chardev, e);
		if (!p->backend)
			return -ENOENT;
		chardev_attach(p->backend, &parallel_frontend, p, dev->lock);
	}
	region_move(&dev->regions[0], p->iobase);
	dev->irq[0].kind = IRQ_GSI;
	dev->irq[0].input = (uint8_t)p->irq;
	return 0;
}

static void parallel_destroy(struct device *dev)
{
	struct isa_parallel *p = DEVICE(dev, struct isa_parallel);

	if (p->backend)
		chardev_detach(p->backend);
}

static void parallel_reset(struct device *dev)
{
	struct isa_parallel *p = DEVICE(dev, struct isa_parallel);

	p->data = 0xff;
	p->status = STATUS_READY;
	p->control = CONTROL_FIXED | CONTROL_SELECT | CONTROL_NINIT;
	p->irq_pending = p->busy = false;
}

static void parallel_settle(struct device *dev)
{
	struct isa_parallel *p = DEVICE(dev, struct isa_parallel);

	if (p->busy)
		writable(p);
	update_irq(p);
}

static const struct prop parallel_props[] = {
	PROP(struct isa_parallel, index, PROP_U32, .def = AUTO,
	     .help = "0..2 for LPT1..LPT3; default: the first free one"),
	PROP(struct isa_parallel, iobase, PROP_U32, .def = AUTO, .help = "port address; default: by index"),
	PROP(struct isa_parallel, irq, PROP_U32, .def = AUTO, .help = "ISA interrupt; default: by index"),
	PROP(struct isa_parallel, chardev, PROP_CHARDEV, .help = "where the output goes; default: nowhere"),
	PROP_END,
};

static const struct state_field parallel_fields[] = {
	STATE_U(struct isa_parallel, data),    STATE_U(struct isa_parallel, status),
	STATE_U(struct isa_parallel, control), STATE_B(struct isa_parallel, irq_pending),
	STATE_B(struct isa_parallel, busy),    STATE_FIELDS_END,
};
static const struct state_table parallel_state = {
	.name = "isa-parallel", .version = 1, .oldest = 1, .fields = parallel_fields};

DEVICE_CLASS(parallel) = {
	.name = "isa-parallel",
	.summary = "parallel (printer) port",
	.bus = BUS_ISA,
	.category = "Input",
	.size = sizeof(struct isa_parallel),
	.user_creatable = true,
	.props = parallel_props,
	.regions = parallel_regions,
	.n_regions = ARRAY_SIZE(parallel_regions),
	.n_irqs = 1,
	.state = &parallel_state,
	.create = parallel_create,
	.destroy = parallel_destroy,
	.reset = parallel_reset,
	.settle = parallel_settle,
};
