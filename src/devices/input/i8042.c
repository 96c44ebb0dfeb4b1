/*
 * 8042 keyboard controller with an auxiliary (mouse) port, as in the IBM PS/2 and every PC chip set since.
 *
 * Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller" (1988);
 * Intel UPI-41/42 data sheet.
 *
 * Left out: the keyboard password (A4 reports that none is installed; a password loaded with A5 is discarded), the
 * polling of the input port into the status register (C1, C2), and the A20 gate itself: KVM has no address wrap, so
 * bit 1 of the output port is a latch that reads back and A20 stays on.
 */
#include "src/devices/input/ps2.h"

#include <errno.h>
#include "vmm/input.h"

/* Status register, port 64h read */
enum {
	ST_OBF = 0x01,        /* output buffer full: a byte for the host is in port 60h */
	ST_SYS = 0x04,        /* system flag: follows CCB bit 2 */
	ST_CMD = 0x08,        /* last write went to port 64h */
	ST_NOT_LOCKED = 0x10, /* inhibit switch (key lock): open */
	ST_AUX = 0x20,        /* the byte came from the auxiliary port */
	ST_TIMEOUT = 0x40,    /* nothing answered on the port */
};

/* Controller command byte (CCB), RAM byte 0 */
enum {
	CCB_INT_KBD = 0x01,
	CCB_INT_AUX = 0x02,
	CCB_SYS = 0x04,
	CCB_OFF_KBD = 0x10,
	CCB_OFF_AUX = 0x20,
	CCB_XLATE = 0x40,
};

/* Output port */
enum { OUT_NOT_RESET = 0x01, OUT_A20 = 0x02, OUT_IRQ1 = 0x10, OUT_IRQ12 = 0x20, OUT_IDLE_HIGH = 0xcc };

/*
 * A byte takes the serial link about 1 ms. Some interrupt handlers read port 60h twice and rely on the second read
 * giving the same byte, so the next one must not be there at once; a fifth of the real time is enough for them and
 * keeps drivers that poll quick.
 */
#define BYTE_GAP_NS (200 * NS_PER_US)

struct i8042 {
	struct device dev;
	uint32_t kbd_irq, aux_irq;
	struct ps2_device *port[2];

	uint8_t ram[32];      /* [0] is the CCB */
	uint8_t obuf;         /* keeps its value after it was read */
	bool obf, obf_aux;    /* full; from the auxiliary port */
	bool command_written; /* ST_CMD */
	bool timeout;         /* ST_TIMEOUT */
	uint8_t outport;      /* what the host can write: bits 0 and 1 */
	uint8_t command;      /* waits for its data byte at port 60h; 0: none */
	bool answer, answer_aux;
	uint8_t answer_byte; /* the controller's own byte, waiting until obuf is read */
	bool break_prefix;   /* translation: F0 seen */
	struct timer gap;    /* the link is busy with the next byte */
};

static void update_irqs(struct i8042 *s)
{
	irq_set(&s->dev.irq[0], s->obf && !s->obf_aux && (s->ram[0] & CCB_INT_KBD));
	irq_set(&s->dev.irq[1], s->obf && s->obf_aux && (s->ram[0] & CCB_INT_AUX));
}

static void fill_obuf(struct i8042 *s, uint8_t byte, bool aux)
{
	s->obuf = byte;
	s->obf = true;
	s->obf_aux = aux;
	update_irqs(s);
}

/* Set 2 to set 1. False: byte swallowed (the F0 prefix becomes bit 7 of the next one). */
static bool translate(struct i8042 *s, uint8_t *byte)
{
	if (*byte == 0xf0) {
		s->break_prefix = true;
		return false;
	}
	*byte = keymap_set2_to_set1(*byte);
	if (s->break_prefix)
		*byte |= 0x80;
	s->break_prefix = false;
	return true;
}

/* Fill an empty output buffer from whoever has something: controller, keyboard, mouse. */
static void pump(struct i8042 *s)
{
	if (s->obf)
		return;
	if (s->answer) {
		s->answer = false;
		fill_obuf(s, s->answer_byte, s->answer_aux);
		return;
	}
	if (timer_pending(&s->gap))
		return;

	struct ps2_device *kbd = s->port[PS2_PORT_KBD], *aux = s->port[PS2_PORT_AUX];

	while (kbd && !(s->ram[0] & CCB_OFF_KBD) && ps2_pending(kbd)) {
		uint8_t byte = ps2_take(kbd);

		if (!(s->ram[0] & CCB_XLATE) || translate(s, &byte)) {
			fill_obuf(s, byte, false);
			return;
		}
	}
	if (aux && !(s->ram[0] & CCB_OFF_AUX) && ps2_pending(aux))
		fill_obuf(s, ps2_take(aux), true);
}

static void gap_over(void *opaque)
{
	pump(opaque);
}

static void child_ready(struct device *dev)
{
	pump(DEVICE(dev, struct i8042));
}

int i8042_attach(struct device *dev, unsigned port, struct ps2_device *child, struct err *e)
{
	extern const struct device_class device_class_i8042;
	struct i8042 *s = DEVICE(dev, struct i8042);

	if (!dev || dev->class != &device_class_i8042)
		return err_set(e, EINVAL, "%s: a PS/2 device needs an i8042 as its parent", child->dev.id);
	if (s->port[port])
		return err_set(e, EBUSY, "%s: the %s port of %s is taken by %s", child->dev.id,
			       port == PS2_PORT_KBD ? "keyboard" : "auxiliary", dev->id, s->port[port]->dev.id);
	s->port[port] = child;
	child->controller = dev;
	child->ready = child_ready;
	return 0;
}

/* A byte of the controller itself. One is remembered while the buffer is full; a later one replaces it. */
static void answer(struct i8042 *s, uint8_t byte, bool aux)
{
	s->answer = true;
	s->answer_byte = byte;
	s->answer_aux = aux;
	pump(s);
}

static void send_to_port(struct i8042 *s, unsigned port, uint8_t byte)
{
	struct ps2_device *child = s->port[port];

	/* Sending re-enables the interface: the clock line must be released to send. */
	s->ram[0] &= port == PS2_PORT_KBD ? (uint8_t)~CCB_OFF_KBD : (uint8_t)~CCB_OFF_AUX;
	if (!child) {
		s->timeout = true;
		answer(s, PS2_RESEND, port == PS2_PORT_AUX);
		return;
	}
	if (port == PS2_PORT_KBD)
		s->break_prefix = false;
	child->write(child, byte);
	pump(s);
}

static uint64_t data_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct i8042 *s = DEVICE(dev, struct i8042);

	if (!s->obf)
		return s->obuf;

	uint8_t byte = s->obuf;
	bool more = (s->port[0] && ps2_pending(s->port[0])) || (s->port[1] && ps2_pending(s->port[1]));

	s->obf = false;
	s->timeout = false;
	update_irqs(s); /* the line falls before the next byte raises it: the PIC wants an edge */
	if (more)
		timer_arm(&s->gap, clock_ns(VCLOCK_VIRTUAL) + BYTE_GAP_NS);
	pump(s);
	return byte;
}

static void write_outport(struct i8042 *s, uint8_t v)
{
	s->outport = v & (OUT_NOT_RESET | OUT_A20);
	if (!(v & OUT_NOT_RESET))
		machine_request_reset(s->dev.board, SHUTDOWN_GUEST_RESET);
}

static void write_ram(struct i8042 *s, unsigned n, uint8_t v)
{
	s->ram[n] = v;
	if (n == 0) {
		update_irqs(s);
		pump(s);
	}
}

static void data_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *s = DEVICE(dev, struct i8042);
	uint8_t v = (uint8_t)value, command = s->command;

	s->command_written = false;
	s->command = 0;
	switch (command) {
	case 0:
		send_to_port(s, PS2_PORT_KBD, v);
		break;
	case 0x60 ... 0x7f:
		write_ram(s, command & 0x1f, v);
		break;
	case 0xa5: /* the password ends with a zero byte */
		s->command = v ? command : 0;
		break;
	case 0xd1:
		write_outport(s, v);
		break;
	case 0xd2:
	case 0xd3:
		answer(s, v, command == 0xd3);
		break;
	case 0xd4:
		send_to_port(s, PS2_PORT_AUX, v);
		break;
	}
}

static uint64_t status_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct i8042 *s = DEVICE(dev, struct i8042);
	uint64_t st = ST_NOT_LOCKED;

	/* A polling guest gets its byte when it is due, not when the main loop gets round to the timer. */
	if (timer_pending(&s->gap) && clock_ns(VCLOCK_VIRTUAL) >= s->gap.deadline) {
		timer_cancel(&s->gap);
		pump(s);
	}
	if (s->obf)
		st |= ST_OBF;
	if (s->obf && s->obf_aux)
		st |= ST_AUX;
	if (s->ram[0] & CCB_SYS)
		st |= ST_SYS;
	if (s->command_written)
		st |= ST_CMD;
	if (s->timeout)
		st |= ST_TIMEOUT;
	return st;
}

static uint8_t read_outport(const struct i8042 *s)
{
	uint8_t v = s->outport | OUT_IDLE_HIGH;

	if (s->obf)
		v |= s->obf_aux ? OUT_IRQ12 : OUT_IRQ1;
	return v;
}

static void set_ccb(struct i8042 *s, uint8_t clear, uint8_t set)
{
	write_ram(s, 0, (uint8_t)((s->ram[0] & ~clear) | set));
}

static void command_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct i8042 *s = DEVICE(dev, struct i8042);
	uint8_t cmd = (uint8_t)value;

	s->command_written = true;
	s->command = 0;
	switch (cmd) {
	case 0x20 ... 0x3f: /* read RAM */
		answer(s, s->ram[cmd & 0x1f], false);
		break;
	case 0x60 ... 0x7f: /* write RAM */
	case 0xa5:          /* load password */
	case 0xd1:          /* write output port */
	case 0xd2:          /* write keyboard output buffer */
	case 0xd3:          /* write auxiliary output buffer */
	case 0xd4:          /* write to the auxiliary device */
		s->command = cmd;
		break;
	case 0xa4: /* test password: none installed */
		answer(s, 0xf1, false);
		break;
	case 0xa6: /* enable password: without one, nothing happens */
		break;
	case 0xa7:
		set_ccb(s, 0, CCB_OFF_AUX);
		break;
	case 0xa8:
		set_ccb(s, CCB_OFF_AUX, 0);
		break;
	case 0xa9: /* auxiliary interface test: lines are fine */
	case 0xab: /* keyboard interface test */
		answer(s, 0x00, false);
		break;
	case 0xaa: /* self test passed */
		s->ram[0] |= CCB_SYS;
		answer(s, 0x55, false);
		break;
	case 0xad:
		set_ccb(s, 0, CCB_OFF_KBD);
		break;
	case 0xae:
		set_ccb(s, CCB_OFF_KBD, 0);
		break;
	case 0xc0: /* input port: keyboard not inhibited, colour display */
		answer(s, 0x80, false);
		break;
	case 0xd0:
		answer(s, read_outport(s), false);
		break;
	case 0xdd: /* A20 off and on, as many chip sets have it */
		s->outport &= (uint8_t)~OUT_A20;
		break;
	case 0xdf:
		s->outport |= OUT_A20;
		break;
	case 0xe0: /* test inputs: a clock line is low while its interface is off */
		answer(s, (uint8_t)((s->ram[0] & CCB_OFF_KBD ? 0 : 1) | (s->ram[0] & CCB_OFF_AUX ? 0 : 2)), false);
		break;
	case 0xf0 ... 0xff: /* pulse the output port bits that are 0 here; bit 0 resets the CPU */
		if (!(cmd & OUT_NOT_RESET))
			machine_request_reset(dev->board, SHUTDOWN_GUEST_RESET);
		break;
	default:
		log_guest(&dev->guest_log, "input", "%s: unknown controller command %02x ignored", dev->id, cmd);
	}
}

static int i8042_create(struct device *dev, struct err *e)
{
	struct i8042 *s = DEVICE(dev, struct i8042);

	device_timer_init(dev, &s->gap, VCLOCK_VIRTUAL, gap_over);
	return 0;
}

static void i8042_destroy(struct device *dev)
{
	timer_cancel(&DEVICE(dev, struct i8042)->gap);
}

static void i8042_reset(struct device *dev)
{
	struct i8042 *s = DEVICE(dev, struct i8042);

	memset(s->ram, 0, sizeof(s->ram));
	/* As firmware leaves it, for kernels that are booted without one; firmware itself programs all of it. */
	s->ram[0] = CCB_XLATE | CCB_INT_KBD | CCB_INT_AUX;
	s->outport = OUT_NOT_RESET | OUT_A20;
	s->obuf = 0;
	s->obf = s->obf_aux = s->command_written = s->timeout = s->answer = s->answer_aux = s->break_prefix = false;
	s->command = s->answer_byte = 0;
	timer_cancel(&s->gap);
}

static void i8042_settle(struct device *dev)
{
	struct i8042 *s = DEVICE(dev, struct i8042);

	timer_settle(&s->gap);
	update_irqs(s);
}

static int i8042_post_load(void *obj, uint16_t version, struct err *e)
{
	const struct i8042 *s = obj;
	uint8_t c = s->command;

	if (c && !(c >= 0x60 && c <= 0x7f) && c != 0xa5 && !(c >= 0xd1 && c <= 0xd4))
		return err_set(e, EINVAL, "controller command %02x takes no data byte", c);
	return 0;
}

static const struct state_field i8042_fields[] = {
	STATE_BUF(struct i8042, ram),
	STATE_U(struct i8042, obuf),
	STATE_B(struct i8042, obf),
	STATE_B(struct i8042, obf_aux),
	STATE_B(struct i8042, command_written),
	STATE_B(struct i8042, timeout),
	STATE_U_MAX(struct i8042, outport, 3),
	STATE_U(struct i8042, command),
	STATE_B(struct i8042, answer),
	STATE_B(struct i8042, answer_aux),
	STATE_U(struct i8042, answer_byte),
	STATE_B(struct i8042, break_prefix),
	STATE_T(struct i8042, gap),
	STATE_FIELDS_END,
};
static const struct state_table i8042_state = {
	.name = "i8042", .version = 1, .oldest = 1, .fields = i8042_fields, .post_load = i8042_post_load};

static const struct region_ops data_ops = {.read = data_read, .write = data_write, .max_access = 1};
static const struct region_ops command_ops = {.read = status_read, .write = command_write, .max_access = 1};
static const struct region_desc i8042_regions[] = {
	{.name = "i8042-data", .space = SPACE_PIO, .base = 0x60, .size = 1, .bar = REGION_NOT_BAR, .ops = &data_ops},
	{.name = "i8042-cmd", .space = SPACE_PIO, .base = 0x64, .size = 1, .bar = REGION_NOT_BAR, .ops = &command_ops},
};

static const struct prop i8042_props[] = {
	PROP_NAMED(struct i8042, "kbd-irq", kbd_irq, PROP_U32, .def = 1, .max = 15, .help = "interrupt of the keyboard",
		   .internal = true),
	PROP_NAMED(struct i8042, "mouse-irq", aux_irq, PROP_U32, .def = 12, .max = 15, .help = "interrupt of the mouse",
		   .internal = true),
	PROP_END,
};

DEVICE_CLASS(i8042) = {
	.name = "i8042",
	.summary = "PS/2 keyboard and mouse controller (8042)",
	.bus = BUS_ISA,
	.category = "Input",
	.size = sizeof(struct i8042),
	.props = i8042_props,
	.regions = i8042_regions,
	.n_regions = ARRAY_SIZE(i8042_regions),
	.irq_prop = {"kbd-irq", "mouse-irq"},
	.n_irqs = 2,
	.state = &i8042_state,
	.create = i8042_create,
	.destroy = i8042_destroy,
	.reset = i8042_reset,
	.settle = i8042_settle,
};
