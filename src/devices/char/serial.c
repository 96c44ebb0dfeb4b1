/* ISA serial port (COM1 to COM4): a 16550A at the PC/AT's addresses. See uart16550.c. */
#include <errno.h>
#include "uart16550.h"

#define MAX_PORTS 4
#define AUTO      UINT32_MAX

struct isa_serial {
	struct device dev;
	struct uart16550 uart;
	uint32_t index, iobase, irq;
	char *chardev;
};

static const struct {
	uint16_t iobase;
	uint8_t irq;
} com_ports[MAX_PORTS] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};

static uint64_t serial_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return uart16550_read(&DEVICE(dev, struct isa_serial)->uart, offset);
}

static void serial_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	uart16550_write(&DEVICE(dev, struct isa_serial)->uart, offset, value);
}

static uint32_t serial_write_string(struct device *dev, struct region *r, uint64_t offset, const void *buf,
				    unsigned size, uint32_t count)
{
	return offset || size != 1 ? 0 : uart16550_write_string(&DEVICE(dev, struct isa_serial)->uart, buf, count);
}

static const struct region_ops serial_ops = {
	.read = serial_read,
	.write = serial_write,
	.write_string = serial_write_string,
	.max_access = 1,
};

static const struct region_desc serial_regions[] = {
	{.name = "serial",
	 .space = SPACE_PIO,
	 .base = 0x3f8,
	 .size = UART_REGISTERS,
	 .bar = REGION_NOT_BAR,
	 .ops = &serial_ops},
};

static bool index_taken(const struct isa_serial *s, uint32_t index)
{
	struct device *other = NULL;

	while ((other = device_next(s->dev.board, other)))
		if (other != &s->dev && other->class == s->dev.class &&
		    DEVICE(other, struct isa_serial)->index == index)
			return true;
	return false;
}

static int choose_port(struct isa_serial *s, struct err *e)
{
	if (s->index == AUTO)
		for (s->index = 0; s->index < MAX_PORTS && index_taken(s, s->index);)
			s->index++;
	if (s->index >= MAX_PORTS)
		return err_set(e, EINVAL, "isa-serial: at most %d ports are supported (index=0..%d)", MAX_PORTS,
			       MAX_PORTS - 1);
	if (s->iobase == AUTO)
		s->iobase = com_ports[s->index].iobase;
	if (s->irq == AUTO)
		s->irq = com_ports[s->index].irq;
	if (s->iobase > 0x10000 - UART_REGISTERS)
		return err_set(e, EINVAL, "isa-serial: iobase=0x%x is beyond the port space", s->iobase);
	if (s->irq > 15)
		return err_set(e, EINVAL, "isa-serial: irq=%u does not exist (0..15)", s->irq);
	return 0;
}

static int serial_create(struct device *dev, struct err *e)
{
	struct isa_serial *s = DEVICE(dev, struct isa_serial);
	struct chardev *chardev = NULL;
	int ret = choose_port(s, e);

	if (ret)
		return ret;
	if (s->chardev) {
		chardev = device_claim_chardev(dev, s->chardev, e);
		if (!chardev)
			return -ENOENT;
	}
	region_move(&dev->regions[0], s->iobase);
	dev->irq[0].kind = IRQ_GSI;
	dev->irq[0].input = (uint8_t)s->irq;
	uart16550_init(&s->uart, dev, &dev->irq[0], chardev);
	return 0;
}

static void serial_destroy(struct device *dev)
{
	struct isa_serial *s = DEVICE(dev, struct isa_serial);

	timer_cancel(&s->uart.timeout);
	if (s->uart.chardev)
		chardev_detach(s->uart.chardev);
}

static void serial_reset(struct device *dev)
{
	uart16550_reset(&DEVICE(dev, struct isa_serial)->uart);
}

static void serial_settle(struct device *dev)
{
	uart16550_settle(&DEVICE(dev, struct isa_serial)->uart);
}

static const struct prop serial_props[] = {
	PROP(struct isa_serial, index, PROP_U32, .def = AUTO,
	     .help = "0..3 for COM1..COM4; default: the first free one"),
	PROP(struct isa_serial, iobase, PROP_U32, .def = AUTO, .help = "port address; default: by index"),
	PROP(struct isa_serial, irq, PROP_U32, .def = AUTO, .help = "ISA interrupt; default: by index"),
	PROP(struct isa_serial, chardev, PROP_CHARDEV, .help = "what it is connected to; default: nothing"),
	PROP_END,
};

static const struct state_field serial_fields[] = {
	STATE_SUB(struct isa_serial, uart, &uart16550_state),
	STATE_FIELDS_END,
};
static const struct state_table serial_state = {
	.name = "isa-serial", .version = 1, .oldest = 1, .fields = serial_fields};

DEVICE_CLASS(serial) = {
	.name = "isa-serial",
	.summary = "serial port (16550A)",
	.bus = BUS_ISA,
	.category = "Input",
	.size = sizeof(struct isa_serial),
	.user_creatable = true,
	.props = serial_props,
	.regions = serial_regions,
	.n_regions = ARRAY_SIZE(serial_regions),
	.n_irqs = 1,
	.state = &serial_state,
	.create = serial_create,
	.destroy = serial_destroy,
	.reset = serial_reset,
	.settle = serial_settle,
};
