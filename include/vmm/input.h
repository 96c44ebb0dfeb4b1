/*
 * Input: front ends (VNC, curses, QMP send-key) produce events, devices (PS/2 keyboard and mouse, later USB) consume
 * them. Keys are QEMU's QKeyCode names ("a", "ret", "ctrl", "kp_enter"). Main thread; handlers run with `lock` held.
 */
#ifndef VMM_INPUT_H
#define VMM_INPUT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "vmm/err.h"

/* Index into the table of src/display/keymap.c; values are stable only within one build: use names outside. */
typedef uint16_t keycode_t;
keycode_t keycode_from_name(const char *qcode); /* 0: unknown */
const char *keycode_name(keycode_t k);          /* 0: "unmapped"; NULL beyond the last key */
/* Scan codes, set 1 as PC/AT "raw": 0x00..0x7f, | 0x100 for the 0xE0 prefix; 0: none. Set 2 likewise; set 3 has no
 * prefixes. Pause, PrtSc: see the PS/2 device. */
uint16_t keycode_set1(keycode_t k);
uint16_t keycode_set2(keycode_t k);
uint16_t keycode_set3(keycode_t k);
/* One byte of set 2 as the 8042 translates it to set 1 (bytes from 0x85 up pass unchanged); F0 is the caller's. */
uint8_t keymap_set2_to_set1(uint8_t code);
keycode_t keycode_from_set1(uint16_t set1);                      /* QMP {"type":"number"} */
keycode_t keycode_from_keysym(uint32_t x11_keysym, bool *shift); /* US layout */
keycode_t keycode_from_ascii(unsigned char c, bool *shift, bool *ctrl);

enum input_button {
	BUTTON_LEFT = 1,
	BUTTON_RIGHT = 2,
	BUTTON_MIDDLE = 4,
	BUTTON_WHEEL_UP = 8,
	BUTTON_WHEEL_DOWN = 16,
	BUTTON_SIDE = 32,
	BUTTON_EXTRA = 64
};

struct input_handler {
	const char *name; /* "QEMU PS/2 Keyboard" as query-mice shows it */
	void (*key)(void *opaque, keycode_t key, bool down);
	void (*rel)(void *opaque, int dx, int dy, int dz,
		    unsigned buttons); /* relative pointer: delta + all buttons held */
	void (*abs)(void *opaque, uint16_t x, uint16_t y, int dz, unsigned buttons); /* 0..32767 of the surface */
	void *opaque;
	pthread_mutex_t *lock;
	struct input_handler *next;
};
void input_register(struct input_handler *h);   /* newest with a given callback wins */
void input_unregister(struct input_handler *h); /* in destroy(): no callback runs afterwards */
/* The current handler comes first; NULL starts, NULL ends. For query-mice. */
const struct input_handler *input_next(const struct input_handler *prev);
void input_activate(struct input_handler *h); /* make it the current one (guest enabled the device) */

/* Events for the current handler of that kind; lost without one. Units as above. */
void input_key(keycode_t key, bool down);
void input_rel(int dx, int dy, int dz, unsigned buttons);
void input_abs(uint16_t x, uint16_t y, int dz, unsigned buttons);
bool input_wants_abs(void); /* the current pointer takes input_abs(). Any thread */
/* Press the keys in order, hold them hold_ms (0: 100), release in reverse order (QMP send-key). Queues behind earlier
 * ones. */
int input_send_keys(const keycode_t *keys, size_t n, unsigned hold_ms, struct err *e);
/* Keyboard LEDs changed (bit 0 scroll, 1 num, 2 caps): sinks may show it. Leaf. */
void input_set_leds(unsigned leds);
unsigned input_leds(void); /* as they were set last. Any thread */
#endif
