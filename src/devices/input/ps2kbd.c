/*
 * PS/2 keyboard, 101/102 keys: scan code sets 1, 2 and 3, typematic repeat, LEDs.
 *
 * Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)"; Microsoft, "Keyboard Scan
 * Code Specification", revision 1.3a.
 *
 * Left out: the shift codes that sets 1 and 2 put around the cursor block while Shift or Num Lock is down. They exist
 * for software of 1984 that does not know the E0 prefix.
 */
#include "src/devices/input/ps2.h"

#include <errno.h>
#include "vmm/input.h"

/* Keys by their set 1 code (| 0x100 for E0), which is stable for ever and so can be saved. */
enum {
	KEY_CTRL = 0x1d,
	KEY_LSHIFT = 0x2a,
	KEY_RSHIFT = 0x36,
	KEY_ALT = 0x38,
	KEY_SYSRQ = 0x54,
	KEY_PRINT = 0x137,
	KEY_PAUSE = 0x146,
	KEY_E0 = 0x100,
};

/* Set 3: what each key sends, by set 3 code */
enum { MODE_BREAK = 1, MODE_TYPEMATIC = 2 };

struct ps2_kbd {
	struct ps2_device ps2;
	struct input_handler handler;
	struct timer repeat; /* typematic */
	struct timer bat;    /* self test after a reset */

	uint8_t command; /* waits for its parameter; 0: none */
	uint8_t scan_set;
	bool enabled;
	uint8_t leds;
	uint8_t typematic;     /* F3's parameter */
	uint8_t modes[256];    /* set 3 */
	uint8_t held[512 / 8]; /* keys that are down */
	uint16_t repeat_key;   /* the last key pressed; 0: none */
};

static bool is_held(const struct ps2_kbd *k, unsigned key)
{
	return k->held[key / 8] & 1u << key % 8;
}

static bool ctrl_held(const struct ps2_kbd *k)
{
	return is_held(k, KEY_CTRL) || is_held(k, KEY_CTRL | KEY_E0);
}

static void default_modes(struct ps2_kbd *k)
{
	/* 101-key keyboard, "Scan Code Set 3": what is not listed repeats and has no break code. */
	static const uint8_t make_break[] = {0x11, 0x12, 0x14, 0x19, 0x59};
	static const uint8_t make_only[] = {0x07, 0x08, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x39, 0x3f,
					    0x47, 0x4f, 0x56, 0x57, 0x58, 0x5e, 0x5f, 0x62, 0x65, 0x67,
					    0x69, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0x73,
					    0x74, 0x75, 0x76, 0x77, 0x79, 0x7a, 0x7d, 0x7e, 0x84};

	memset(k->modes, MODE_TYPEMATIC, sizeof(k->modes));
	for (unsigned i = 0; i < sizeof(make_break); i++)
		k->modes[make_break[i]] = MODE_BREAK;
	for (unsigned i = 0; i < sizeof(make_only); i++)
		k->modes[make_only[i]] = 0;
}

/* F6 and the values after a reset. */
static void set_defaults(struct ps2_kbd *k)
{
	k->scan_set = 2;
	k->typematic = 0x2b; /* 500 ms, 10.9 per second */
	k->repeat_key = 0;
	default_modes(k);
	ps2_clear_data(&k->ps2);
}

static void set_leds(struct ps2_kbd *k, uint8_t leds)
{
	k->leds = leds & 7;
	input_set_leds(k->leds);
}

static uint64_t repeat_delay_ns(const struct ps2_kbd *k)
{
	return ((k->typematic >> 5 & 3) + 1u) * 250 * NS_PER_MS;
}

/* (8 + bits 2-0) * 2^(bits 4-3) * 4.17 ms */
static uint64_t repeat_period_ns(const struct ps2_kbd *k)
{
	return ((8u + (k->typematic & 7)) << (k->typematic >> 3 & 3)) * 4170 * NS_PER_US;
}

/* The codes of one event: a key of sets 1 and 2, without the special ones. */
static unsigned plain_codes(const struct ps2_kbd *k, unsigned key, bool down, uint8_t *out)
{
	unsigned n = 0;

	if (key & KEY_E0)
		out[n++] = 0xe0;
	if (k->scan_set == 1) {
		out[n++] = (uint8_t)(key | (down ? 0 : 0x80));
	} else {
		if (!down)
			out[n++] = 0xf0;
		out[n++] = (uint8_t)keycode_set2(keycode_from_set1((uint16_t)key));
	}
	return n;
}

static unsigned copy_codes(uint8_t *out, const char *codes, unsigned n)
{
	memcpy(out, codes, n);
	return n;
}

/* Pause sends its break code with the make code and never repeats; with Ctrl it is Break. */
static unsigned pause_codes(const struct ps2_kbd *k, bool down, uint8_t *out)
{
	if (!down)
		return 0;
	if (k->scan_set == 1)
		return ctrl_held(k) ? copy_codes(out, "\xe0\x46\xe0\xc6", 4)
				    : copy_codes(out, "\xe1\x1d\x45\xe1\x9d\xc5", 6);
	return ctrl_held(k) ? copy_codes(out, "\xe0\x7e\xe0\xf0\x7e", 5)
			    : copy_codes(out, "\xe1\x14\x77\xe1\xf0\x14\xf0\x77", 8);
}

/* Print Screen is Shift and keypad * to old software; with Alt it is SysRq; with Ctrl or Shift it stands alone. */
static unsigned print_codes(const struct ps2_kbd *k, bool down, uint8_t *out)
{
	bool alone = ctrl_held(k) || is_held(k, KEY_LSHIFT) || is_held(k, KEY_RSHIFT);

	if (is_held(k, KEY_ALT) || is_held(k, KEY_ALT | KEY_E0))
		return plain_codes(k, KEY_SYSRQ, down, out);
	if (alone)
		return plain_codes(k, KEY_PRINT, down, out);
	if (k->scan_set == 1)
		return copy_codes(out, down ? "\xe0\x2a\xe0\x37" : "\xe0\xb7\xe0\xaa", 4);
	return down ? copy_codes(out, "\xe0\x12\xe0\x7c", 4) : copy_codes(out, "\xe0\xf0\x7c\xe0\xf0\x12", 6);
}

static unsigned set3_codes(const struct ps2_kbd *k, unsigned key, bool down, uint8_t *out)
{
	uint8_t code = (uint8_t)keycode_set3(keycode_from_set1((uint16_t)key));
	unsigned n = 0;

	if (!code || (!down && !(k->modes[code] & MODE_BREAK)))
		return 0;
	if (!down)
		out[n++] = 0xf0;
	out[n++] = code;
	return n;
}

static void send_key(struct ps2_kbd *k, unsigned key, bool down)
{
	uint8_t codes[8];
	unsigned n;

	if (!k->enabled)
		return;
	if (k->scan_set == 3)
		n = set3_codes(k, key, down, codes);
	else if (key == KEY_PAUSE)
		n = pause_codes(k, down, codes);
	else if (key == KEY_PRINT || key == KEY_SYSRQ)
		n = print_codes(k, down, codes);
	else
		n = plain_codes(k, key, down, codes);
	if (!n || ps2_send(&k->ps2, codes, n, 1))
		return;
	/* Full: the last byte of the queue is kept for the overrun code, FF in set 1 and 00 in the others. */
	codes[0] = k->scan_set == 1 ? 0xff : 0x00;
	if (k->ps2.data_len && k->ps2.data[k->ps2.data_len - 1] != codes[0])
		ps2_send(&k->ps2, codes, 1, 0);
}

static bool repeats(const struct ps2_kbd *k, unsigned key)
{
	if (k->scan_set == 3)
		return k->modes[(uint8_t)keycode_set3(keycode_from_set1((uint16_t)key))] & MODE_TYPEMATIC;
	return key != KEY_PAUSE;
}

static void on_key(void *opaque, keycode_t keycode, bool down)
{
	struct ps2_kbd *k = opaque;
	unsigned key = keycode_set1(keycode);

	/* A front end's own repetition of a key that is down: the keyboard repeats by itself. */
	if (!key || is_held(k, key) == down)
		return;
	/* Break codes of modified Print Screen depend on the modifiers at that moment, as on the real keyboard. */
	k->held[key / 8] ^= (uint8_t)(1u << key % 8);
	send_key(k, key, down);
	if (down && k->enabled && repeats(k, key)) {
		k->repeat_key = (uint16_t)key;
		timer_arm(&k->repeat, clock_ns(VCLOCK_VIRTUAL) + repeat_delay_ns(k));
	} else if (down || key == k->repeat_key) {
		k->repeat_key = 0;
		timer_cancel(&k->repeat);
	}
}

static void on_repeat(void *opaque)
{
	struct ps2_kbd *k = opaque;

	if (!k->repeat_key || !k->enabled)
		return;
	/* A guest that does not keep up gets fewer repetitions, not a full queue. */
	if (!k->ps2.data_len)
		send_key(k, k->repeat_key, true);
	timer_arm(&k->repeat, clock_ns(VCLOCK_VIRTUAL) + repeat_period_ns(k));
}

static void on_bat(void *opaque)
{
	struct ps2_kbd *k = opaque;

	k->enabled = true;
	ps2_reply(&k->ps2, PS2_BAT_OK);
}

static void start_reset(struct ps2_kbd *k)
{
	set_defaults(k);
	set_leds(k, 0);
	k->enabled = false;
	ps2_clear(&k->ps2);
	ps2_reply(&k->ps2, PS2_ACK);
	timer_arm(&k->bat, clock_ns(VCLOCK_VIRTUAL) + PS2_BAT_NS);
}

/* The parameter of k->command. FB to FD take any number of keys, until the next command. */
static void write_parameter(struct ps2_kbd *k, uint8_t v)
{
	uint8_t command = k->command;

	if (command < 0xfb)
		k->command = 0;
	switch (command) {
	case 0xed:
		set_leds(k, v);
		break;
	case 0xf0:
		if (v > 3) {
			ps2_reply(&k->ps2, PS2_RESEND);
			return;
		}
		ps2_reply(&k->ps2, PS2_ACK);
		if (v)
			k->scan_set = v;
		else
			ps2_reply(&k->ps2, k->scan_set);
		return;
	case 0xf3:
		k->typematic = v & 0x7f;
		break;
	case 0xfb:
		k->modes[v] = MODE_TYPEMATIC;
		break;
	case 0xfc:
		k->modes[v] = MODE_BREAK;
		break;
	case 0xfd:
		k->modes[v] = 0;
		break;
	}
	ps2_reply(&k->ps2, PS2_ACK);
}

static void set_all_modes(struct ps2_kbd *k, uint8_t mode)
{
	ps2_clear_data(&k->ps2);
	memset(k->modes, mode, sizeof(k->modes));
}

static void write_command(struct ps2_kbd *k, uint8_t v)
{
	k->command = 0;
	switch (v) {
	case 0xee: /* echo */
		ps2_reply(&k->ps2, 0xee);
		return;
	case 0xfe:
		ps2_reply(&k->ps2, k->ps2.last);
		return;
	case 0xff:
		start_reset(k);
		return;
	case 0xf2:
		ps2_reply(&k->ps2, PS2_ACK);
		ps2_reply(&k->ps2, 0xab);
		ps2_reply(&k->ps2, 0x83);
		return;
	case 0xed:
	case 0xf0:
	case 0xf3:
	case 0xfb:
	case 0xfc:
	case 0xfd:
		k->command = v;
		break;
	case 0xf4:
		k->enabled = true;
		ps2_clear_data(&k->ps2);
		break;
	case 0xf5:
	case 0xf6:
		set_defaults(k);
		k->enabled = v == 0xf6;
		break;
	case 0xf7:
		set_all_modes(k, MODE_TYPEMATIC);
		break;
	case 0xf8:
		set_all_modes(k, MODE_BREAK);
		break;
	case 0xf9:
		set_all_modes(k, 0);
		break;
	case 0xfa:
		set_all_modes(k, MODE_TYPEMATIC | MODE_BREAK);
		break;
	default: /* not a command: ask for it again */
		ps2_reply(&k->ps2, PS2_RESEND);
		return;
	}
	ps2_reply(&k->ps2, PS2_ACK);
}

static void kbd_write(struct ps2_device *p, uint8_t v)
{
	struct ps2_kbd *k = container_of(p, struct ps2_kbd, ps2);

	/* Anything the host sends ends a self test in progress and what was being said. */
	timer_cancel(&k->bat);
	ps2_clear_replies(p);
	if (k->command && v < 0xed)
		write_parameter(k, v);
	else
		write_command(k, v);
}

static int kbd_create(struct device *dev, struct err *e)
{
	struct ps2_kbd *k = DEVICE(dev, struct ps2_kbd);

	k->ps2.write = kbd_write;
	device_timer_init(dev, &k->repeat, VCLOCK_VIRTUAL, on_repeat);
	device_timer_init(dev, &k->bat, VCLOCK_VIRTUAL, on_bat);
	k->handler =
		(struct input_handler){.name = "QEMU PS/2 Keyboard", .key = on_key, .opaque = k, .lock = dev->lock};
	input_register(&k->handler);
	return 0;
}

static void kbd_destroy(struct device *dev)
{
	struct ps2_kbd *k = DEVICE(dev, struct ps2_kbd);

	input_unregister(&k->handler);
	timer_cancel(&k->repeat);
	timer_cancel(&k->bat);
}

static int kbd_wire(struct device *dev, struct err *e)
{
	return i8042_attach(dev->parent, PS2_PORT_KBD, &DEVICE(dev, struct ps2_kbd)->ps2, e);
}

static void kbd_reset(struct device *dev)
{
	struct ps2_kbd *k = DEVICE(dev, struct ps2_kbd);

	/* `held` stays: the user's fingers are not reset, and the break code must come when he lets go. */
	k->ps2.data_len = k->ps2.reply_len = 0;
	k->ps2.last = PS2_BAT_OK;
	k->command = 0;
	k->enabled = true;
	set_defaults(k);
	set_leds(k, 0);
	timer_cancel(&k->repeat);
	timer_cancel(&k->bat);
}

static void kbd_settle(struct device *dev)
{
	struct ps2_kbd *k = DEVICE(dev, struct ps2_kbd);

	timer_settle(&k->repeat);
	timer_settle(&k->bat);
	input_set_leds(k->leds);
}

static int kbd_post_load(void *obj, uint16_t version, struct err *e)
{
	const struct ps2_kbd *k = obj;
	uint8_t c = k->command;

	if (c && c != 0xed && c != 0xf0 && c != 0xf3 && !(c >= 0xfb && c <= 0xfd))
		return err_set(e, EINVAL, "keyboard command %02x takes no parameter", c);
	return 0;
}

static const struct state_field kbd_fields[] = {
	STATE_SUB(struct ps2_kbd, ps2, &ps2_queue_state),
	STATE_T(struct ps2_kbd, repeat),
	STATE_T(struct ps2_kbd, bat),
	STATE_U(struct ps2_kbd, command),
	STATE_U(struct ps2_kbd, scan_set, .min = 1, .max = 3),
	STATE_B(struct ps2_kbd, enabled),
	STATE_U_MAX(struct ps2_kbd, leds, 7),
	STATE_U_MAX(struct ps2_kbd, typematic, 0x7f),
	STATE_BUF(struct ps2_kbd, modes),
	STATE_BUF(struct ps2_kbd, held),
	STATE_U_MAX(struct ps2_kbd, repeat_key, 0x1ff),
	STATE_FIELDS_END,
};
static const struct state_table kbd_state = {
	.name = "ps2-kbd", .version = 1, .oldest = 1, .fields = kbd_fields, .post_load = kbd_post_load};

DEVICE_CLASS(ps2kbd) = {
	.name = "ps2-kbd",
	.summary = "PS/2 keyboard",
	.bus = BUS_PS2,
	.category = "Input",
	.size = sizeof(struct ps2_kbd),
	.state = &kbd_state,
	.create = kbd_create,
	.destroy = kbd_destroy,
	.wire = kbd_wire,
	.reset = kbd_reset,
	.settle = kbd_settle,
};
