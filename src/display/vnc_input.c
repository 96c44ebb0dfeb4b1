/*
 * VNC input: keysyms to keys of a US keyboard, pointer positions to movements. Main thread.
 *
 * RFB sends what a key means, the guest wants to know which key it is. A character is typed with the Shift state a US
 * keyboard needs for it, whatever the state of the client's Shift key is, so that text arrives as text.
 */
#include "src/display/vnc.h"

#include "vmm/input.h"
#include "vmm/util.h"

#define HELD_MAX 32
#define LED_CAPS 4

static struct {
	uint32_t sym;
	keycode_t key;
} held[HELD_MAX];
static unsigned n_held;
static bool shift_pressed; /* by us, for the character that is down */
static bool pointer_known;
static int last_x, last_y;
static unsigned last_mask;

static bool key_is_held(const char *name)
{
	keycode_t k = keycode_from_name(name);

	for (unsigned i = 0; i < n_held; i++)
		if (held[i].key == k)
			return true;
	return false;
}

static bool is_letter(uint32_t sym)
{
	return (sym >= 'a' && sym <= 'z') || (sym >= 'A' && sym <= 'Z');
}

static void set_shift(bool down)
{
	keycode_t left = keycode_from_name("shift"), right = keycode_from_name("shift_r");

	if (down) {
		input_key(left, true);
		return;
	}
	input_key(left, false);
	if (key_is_held("shift_r"))
		input_key(right, false);
}

static void press(uint32_t sym, keycode_t key, bool needs_shift)
{
	bool printable = sym >= 0x21 && sym <= 0x7e;
	bool have_shift = key_is_held("shift") || key_is_held("shift_r");
	bool chord = key_is_held("ctrl") || key_is_held("ctrl_r") || key_is_held("alt");
	bool wants = needs_shift;

	if (is_letter(sym) && (input_leds() & LED_CAPS))
		wants = !wants;
	/* Ctrl and Alt combinations mean keys, not characters. */
	if (!printable || chord || wants == have_shift) {
		input_key(key, true);
	} else if (wants) {
		set_shift(true);
		shift_pressed = true;
		input_key(key, true);
	} else {
		set_shift(false);
		input_key(key, true);
		input_key(key, false);
		set_shift(true);
		return; /* typed: the key must not stay down without its Shift */
	}
	if (n_held < HELD_MAX) {
		held[n_held].sym = sym;
		held[n_held++].key = key;
	}
}

static void release(keycode_t key)
{
	for (unsigned i = 0; i < n_held; i++)
		if (held[i].key == key) {
			held[i] = held[--n_held];
			input_key(key, false);
			break;
		}
	if (shift_pressed) {
		shift_pressed = false;
		if (!key_is_held("shift"))
			input_key(keycode_from_name("shift"), false);
	}
}

void vnc_input_key(uint32_t sym, bool down)
{
	bool needs_shift;
	keycode_t key = keycode_from_keysym(sym, &needs_shift);

	if (!key)
		return;
	if (!down) {
		release(key);
		return;
	}
	for (unsigned i = 0; i < n_held; i++)
		if (held[i].key == key) {
			input_key(key, true); /* the client's repetition */
			return;
		}
	press(sym, key, needs_shift);
}

void vnc_input_release_all(void)
{
	while (n_held)
		release(held[n_held - 1].key);
	if (last_mask) {
		last_mask = 0;
		input_rel(0, 0, 0, 0);
	}
	pointer_known = false;
}

/* RFB's button mask: left, middle, right, wheel up, wheel down, (left, right,) back, forward. */
static unsigned buttons_of(unsigned mask)
{
	return (mask & 1 ? BUTTON_LEFT : 0) | (mask & 2 ? BUTTON_MIDDLE : 0) | (mask & 4 ? BUTTON_RIGHT : 0) |
	       (mask & 0x80 ? BUTTON_SIDE : 0);
}

void vnc_input_pointer(unsigned mask, int x, int y, uint32_t width, uint32_t height)
{
	unsigned pressed = mask & ~last_mask;
	/* A PS/2 wheel counts down towards the user. */
	int dz = (pressed & 0x10 ? 1 : 0) - (pressed & 0x08 ? 1 : 0);

	if (input_wants_abs()) {
		input_abs((uint16_t)(MIN((uint64_t)MAX(x, 0) * 32767 / MAX(width - 1, 1u), 32767ul)),
			  (uint16_t)(MIN((uint64_t)MAX(y, 0) * 32767 / MAX(height - 1, 1u), 32767ul)), dz,
			  buttons_of(mask));
	} else if (pointer_known) {
		if (x != last_x || y != last_y || dz || mask != last_mask)
			input_rel(x - last_x, y - last_y, dz, buttons_of(mask));
	} else if (mask) {
		input_rel(0, 0, dz, buttons_of(mask));
	}
	pointer_known = true;
	last_x = x;
	last_y = y;
	last_mask = mask;
}
