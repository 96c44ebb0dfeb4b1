/*
 * PS/2 mouse with wheel: the standard mouse (ID 0), IntelliMouse (3) and IntelliMouse Explorer with five buttons (4).
 *
 * Source: IBM PS/2 Hardware Interface Technical Reference, "Auxiliary Device/Mouse"; Adam Chapweske, "The PS/2 Mouse
 * Interface"; Microsoft, "Windows and the 5-Button Wheel Mouse" (the sample rate sequences 200, 100, 80 and 200, 200,
 * 80 that change the ID).
 *
 * Left out: the resolution's effect. It is stored and reported; one count is always one pixel of the front end.
 */
#include "src/devices/input/ps2.h"

#include <errno.h>
#include <stdlib.h>
#include "vmm/input.h"

enum { PS2_MOUSE_ERROR = 0xfc };

struct ps2_mouse {
	struct ps2_device ps2;
	struct input_handler handler;
	struct timer sample; /* armed: the next packet has to wait for the sampling rate */
	struct timer bat;

	uint8_t command; /* E8 or F3, waits for its parameter; 0: none */
	uint8_t id;
	uint8_t rate; /* samples per second */
	uint8_t resolution;
	uint8_t rates[3]; /* the last ones set, oldest first: the key to IDs 3 and 4 */
	bool enabled, remote, wrap, scaling;
	bool rejected;        /* the last byte was answered with Resend */
	uint8_t buttons;      /* bits 0-4: left, right, middle, side, extra */
	uint8_t sent_buttons; /* in the last packet */
	/* Movement not yet sent, int32_t as bits; y counts up. */
	uint32_t dx, dy, dz;
};

#define COUNTER_MAX 32767

static uint32_t add_counter(uint32_t counter, int delta)
{
	int64_t sum = (int64_t)(int32_t)counter + delta;

	return (uint32_t)(int32_t)MAX(-COUNTER_MAX, MIN(sum, COUNTER_MAX));
}

static bool counter_valid(uint32_t counter)
{
	return (int32_t)counter >= -COUNTER_MAX && (int32_t)counter <= COUNTER_MAX;
}

static void clear_counters(struct ps2_mouse *m)
{
	m->dx = m->dy = m->dz = 0;
}

static bool has_news(const struct ps2_mouse *m)
{
	uint8_t seen = m->id == 4 ? 0x1f : 0x07;

	return m->dx || m->dy || (m->id && m->dz) || ((m->buttons ^ m->sent_buttons) & seen);
}

/* Up to 255 counts of *counter; what is above goes into the next packet, so that the overflow bits are never needed. */
static int take_counter(uint32_t *counter, int limit)
{
	int v = (int32_t)*counter, part = MAX(-limit, MIN(v, limit));

	*counter = (uint32_t)(v - part);
	return part;
}

/* Scaling 2:1, stream mode only */
static int scale(int v)
{
	static const int table[] = {0, 1, 1, 3, 6, 9};
	int n = abs(v);
	int scaled = n < 6 ? table[n] : 2 * n;

	scaled = MIN(scaled, 255);
	return v < 0 ? -scaled : scaled;
}

static unsigned make_packet(struct ps2_mouse *m, bool scaled, uint8_t packet[4])
{
	int dx = take_counter(&m->dx, 255), dy = take_counter(&m->dy, 255);
	unsigned n = 3;

	if (scaled) {
		dx = scale(dx);
		dy = scale(dy);
	}
	packet[0] = (uint8_t)(0x08 | (m->buttons & 7) | (dx < 0) << 4 | (dy < 0) << 5);
	packet[1] = (uint8_t)dx;
	packet[2] = (uint8_t)dy;
	if (m->id == 3)
		packet[n++] = (uint8_t)take_counter(&m->dz, 127);
	else if (m->id == 4)
		packet[n++] = (uint8_t)((take_counter(&m->dz, 7) & 0x0f) | (m->buttons & 0x18) << 1);
	else
		m->dz = 0;
	m->sent_buttons = m->buttons;
	return n;
}

static void report(struct ps2_mouse *m)
{
	uint8_t packet[4];

	if (!m->enabled || m->remote || m->wrap || timer_pending(&m->sample) || !has_news(m))
		return;
	/* A guest that reads slowly gets the movement in fewer, larger packets: never more than two are waiting. */
	if (m->ps2.data_len <= sizeof(packet)) {
		unsigned n = make_packet(m, m->scaling, packet);

		ps2_send(&m->ps2, packet, n, 0);
	}
	timer_arm(&m->sample, clock_ns(VCLOCK_VIRTUAL) + NS_PER_SEC / m->rate);
}

static void on_sample(void *opaque)
{
	report(opaque);
}

static void on_rel(void *opaque, int dx, int dy, int dz, unsigned buttons)
{
	struct ps2_mouse *m = opaque;

	m->dx = add_counter(m->dx, dx);
	m->dy = add_counter(m->dy, -dy);
	m->dz = add_counter(m->dz, dz);
	m->buttons = (uint8_t)((buttons & BUTTON_LEFT ? 1 : 0) | (buttons & BUTTON_RIGHT ? 2 : 0) |
			       (buttons & BUTTON_MIDDLE ? 4 : 0) | (buttons & BUTTON_SIDE ? 8 : 0) |
			       (buttons & BUTTON_EXTRA ? 16 : 0));
	if (!m->enabled && !m->remote)
		clear_counters(m);
	report(m);
}

static void set_defaults(struct ps2_mouse *m)
{
	m->rate = 100;
	m->resolution = 2; /* 4 counts per mm */
	m->scaling = m->remote = m->enabled = false;
	clear_counters(m);
	ps2_clear_data(&m->ps2);
}

static void on_bat(void *opaque)
{
	struct ps2_mouse *m = opaque;

	ps2_reply(&m->ps2, PS2_BAT_OK);
	ps2_reply(&m->ps2, m->id);
}

static void power_on_values(struct ps2_mouse *m)
{
	set_defaults(m);
	m->id = 0;
	m->wrap = m->rejected = false;
	m->command = 0;
	memset(m->rates, 0, sizeof(m->rates));
}

static void set_rate(struct ps2_mouse *m, uint8_t rate)
{
	m->rate = rate;
	m->rates[0] = m->rates[1];
	m->rates[1] = m->rates[2];
	m->rates[2] = rate;
	if (m->rates[0] == 200 && m->rates[1] == 100 && rate == 80)
		m->id = 3;
	else if (m->rates[0] == 200 && m->rates[1] == 200 && rate == 80)
		m->id = 4;
}

static void reply_status(struct ps2_mouse *m)
{
	/* Buttons stand in another order here than in packets: left, middle, right from bit 2 down. */
	uint8_t buttons = (uint8_t)((m->buttons & 1) << 2 | (m->buttons & 4) >> 1 | (m->buttons & 2) >> 1);

	ps2_reply(&m->ps2, (uint8_t)(buttons | m->scaling << 4 | m->enabled << 5 | m->remote << 6));
	ps2_reply(&m->ps2, m->resolution);
	ps2_reply(&m->ps2, m->rate);
}

/* A wrong byte is answered with Resend, the second in a row with Error. */
static void reject(struct ps2_mouse *m)
{
	ps2_reply(&m->ps2, m->rejected ? PS2_MOUSE_ERROR : PS2_RESEND);
	m->rejected = !m->rejected;
}

static void write_parameter(struct ps2_mouse *m, uint8_t v)
{
	uint8_t command = m->command;

	if (command == 0xe8 ? v > 3 : v == 0) {
		if (m->rejected)
			m->command = 0;
		reject(m);
		return;
	}
	m->command = 0;
	m->rejected = false;
	if (command == 0xe8)
		m->resolution = v;
	else
		set_rate(m, v);
	ps2_reply(&m->ps2, PS2_ACK);
}

/* Read data: in remote mode how the host gets its packets */
static void reply_packet(struct ps2_mouse *m)
{
	uint8_t packet[4];
	unsigned n = make_packet(m, false, packet);

	ps2_reply(&m->ps2, PS2_ACK);
	for (unsigned i = 0; i < n; i++)
		ps2_reply(&m->ps2, packet[i]);
}

static void set_mode(struct ps2_mouse *m, bool remote)
{
	m->remote = remote;
	clear_counters(m);
	ps2_clear_data(&m->ps2);
}

/* False: not a command */
static bool write_setting(struct ps2_mouse *m, uint8_t v)
{
	switch (v) {
	case 0xe6:
	case 0xe7:
		m->scaling = v == 0xe7;
		break;
	case 0xe8:
	case 0xf3:
		m->command = v;
		break;
	case 0xea:
	case 0xf0:
		set_mode(m, v == 0xf0);
		break;
	case 0xec: /* leave wrap mode; nothing to do outside it */
		break;
	case 0xee:
		m->wrap = true;
		ps2_clear_data(&m->ps2);
		break;
	case 0xf4:
		m->enabled = true;
		clear_counters(m);
		input_activate(&m->handler);
		break;
	case 0xf5:
		m->enabled = false;
		clear_counters(m);
		ps2_clear_data(&m->ps2);
		break;
	case 0xf6:
		set_defaults(m);
		break;
	default:
		return false;
	}
	ps2_reply(&m->ps2, PS2_ACK);
	return true;
}

static void write_command(struct ps2_mouse *m, uint8_t v)
{
	m->command = 0;
	switch (v) {
	case 0xe9:
		ps2_reply(&m->ps2, PS2_ACK);
		reply_status(m);
		break;
	case 0xeb:
		reply_packet(m);
		break;
	case 0xf2:
		ps2_reply(&m->ps2, PS2_ACK);
		ps2_reply(&m->ps2, m->id);
		break;
	case 0xfe:
		ps2_reply(&m->ps2, m->ps2.last);
		break;
	case 0xff:
		power_on_values(m);
		ps2_clear(&m->ps2);
		ps2_reply(&m->ps2, PS2_ACK);
		timer_arm(&m->bat, clock_ns(VCLOCK_VIRTUAL) + PS2_BAT_NS);
		break;
	default:
		if (!write_setting(m, v)) {
			reject(m);
			return;
		}
	}
	m->rejected = false;
}

static void mouse_write(struct ps2_device *p, uint8_t v)
{
	struct ps2_mouse *m = container_of(p, struct ps2_mouse, ps2);

	timer_cancel(&m->bat);
	ps2_clear_replies(p);
	if (m->wrap && v != 0xff && v != 0xec) {
		ps2_reply(p, v);
		return;
	}
	m->wrap = false;
	if (m->command && v < 0xe6)
		write_parameter(m, v);
	else
		write_command(m, v);
}

static int mouse_create(struct device *dev, struct err *e)
{
	struct ps2_mouse *m = DEVICE(dev, struct ps2_mouse);

	m->ps2.write = mouse_write;
	device_timer_init(dev, &m->sample, VCLOCK_VIRTUAL, on_sample);
	device_timer_init(dev, &m->bat, VCLOCK_VIRTUAL, on_bat);
	m->handler = (struct input_handler){.name = "QEMU PS/2 Mouse", .rel = on_rel, .opaque = m, .lock = dev->lock};
	input_register(&m->handler);
	return 0;
}

static void mouse_destroy(struct device *dev)
{
	struct ps2_mouse *m = DEVICE(dev, struct ps2_mouse);

	input_unregister(&m->handler);
	timer_cancel(&m->sample);
	timer_cancel(&m->bat);
}

static int mouse_wire(struct device *dev, struct err *e)
{
	return i8042_attach(dev->parent, PS2_PORT_AUX, &DEVICE(dev, struct ps2_mouse)->ps2, e);
}

static void mouse_reset(struct device *dev)
{
	struct ps2_mouse *m = DEVICE(dev, struct ps2_mouse);

	m->ps2.data_len = m->ps2.reply_len = 0;
	m->ps2.last = PS2_BAT_OK;
	m->buttons = m->sent_buttons = 0;
	power_on_values(m);
	timer_cancel(&m->sample);
	timer_cancel(&m->bat);
}

static void mouse_settle(struct device *dev)
{
	struct ps2_mouse *m = DEVICE(dev, struct ps2_mouse);

	timer_settle(&m->sample);
	timer_settle(&m->bat);
}

static int mouse_post_load(void *obj, uint16_t version, struct err *e)
{
	const struct ps2_mouse *m = obj;

	if (m->command && m->command != 0xe8 && m->command != 0xf3)
		return err_set(e, EINVAL, "mouse command %02x takes no parameter", m->command);
	if (m->id != 0 && m->id != 3 && m->id != 4)
		return err_set(e, EINVAL, "mouse ID %u does not exist", m->id);
	if (!counter_valid(m->dx) || !counter_valid(m->dy) || !counter_valid(m->dz))
		return err_set(e, EINVAL, "mouse movement out of range");
	return 0;
}

static const struct state_field mouse_fields[] = {
	STATE_SUB(struct ps2_mouse, ps2, &ps2_queue_state),
	STATE_T(struct ps2_mouse, sample),
	STATE_T(struct ps2_mouse, bat),
	STATE_U(struct ps2_mouse, command),
	STATE_U_MAX(struct ps2_mouse, id, 4),
	STATE_U(struct ps2_mouse, rate, .min = 1, .max = 255),
	STATE_U_MAX(struct ps2_mouse, resolution, 3),
	STATE_BUF(struct ps2_mouse, rates),
	STATE_B(struct ps2_mouse, enabled),
	STATE_B(struct ps2_mouse, remote),
	STATE_B(struct ps2_mouse, wrap),
	STATE_B(struct ps2_mouse, scaling),
	STATE_B(struct ps2_mouse, rejected),
	STATE_U_MAX(struct ps2_mouse, buttons, 0x1f),
	STATE_U_MAX(struct ps2_mouse, sent_buttons, 0x1f),
	STATE_U(struct ps2_mouse, dx),
	STATE_U(struct ps2_mouse, dy),
	STATE_U(struct ps2_mouse, dz),
	STATE_FIELDS_END,
};
static const struct state_table mouse_state = {
	.name = "ps2-mouse", .version = 1, .oldest = 1, .fields = mouse_fields, .post_load = mouse_post_load};

DEVICE_CLASS(ps2mouse) = {
	.name = "ps2-mouse",
	.summary = "PS/2 mouse with wheel and five buttons",
	.bus = BUS_PS2,
	.category = "Input",
	.size = sizeof(struct ps2_mouse),
	.state = &mouse_state,
	.create = mouse_create,
	.destroy = mouse_destroy,
	.wire = mouse_wire,
	.reset = mouse_reset,
	.settle = mouse_settle,
};
