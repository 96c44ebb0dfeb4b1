/*
 * The PS/2 link between the 8042 and its keyboard or mouse. A PS/2 device is a child of the controller and shares its
 * lock; all functions here are called with it held.
 *
 * A device has two queues: replies to commands go first, so that an ACK is not stuck behind key strokes, and a new
 * command discards replies to the old one (IBM PS/2 Technical Reference, "Keyboard": the output buffer does not hold
 * responses).
 */
#ifndef DEVICES_INPUT_PS2_H
#define DEVICES_INPUT_PS2_H

#include "vmm/device.h"

enum {
	PS2_ACK = 0xfa,
	PS2_BAT_OK = 0xaa,
	PS2_RESEND = 0xfe,
};

#define PS2_PORT_KBD 0
#define PS2_PORT_AUX 1

/* A real keyboard holds 16 bytes and loses the rest; ours holds the strokes of a fast (or programmed) typist. */
#define PS2_DATA_MAX  64
#define PS2_REPLY_MAX 16

/* How long a reset takes until the device reports that its self test passed. Real ones need 300-500 ms; the specified
   maximum is what drivers wait for, so shorter is safe and keeps the BIOS quick. */
#define PS2_BAT_NS (2 * NS_PER_MS)

struct ps2_device {
	struct device dev;
	struct device *controller; /* NULL until wired */
	void (*ready)(struct device *controller);
	/* A byte from the host. */
	void (*write)(struct ps2_device *p, uint8_t byte);
	uint32_t reply_len, data_len;
	uint8_t reply[PS2_REPLY_MAX];
	uint8_t data[PS2_DATA_MAX];
	uint8_t last; /* sent last, for Resend */
};

extern const struct state_table ps2_queue_state; /* obj: struct ps2_device */

/* Connect child to port 0 (keyboard) or 1 (auxiliary) of an i8042; refused if something else is there. */
int i8042_attach(struct device *i8042, unsigned port, struct ps2_device *child, struct err *e);

bool ps2_pending(const struct ps2_device *p);
uint8_t ps2_take(struct ps2_device *p); /* the next byte; ps2_pending() must be true */
void ps2_clear(struct ps2_device *p);   /* both queues */
void ps2_clear_data(struct ps2_device *p);
void ps2_clear_replies(struct ps2_device *p);
void ps2_reply(struct ps2_device *p, uint8_t byte);
/* Queue all n bytes of one event, or none if they do not fit and leave `reserve` bytes free. */
bool ps2_send(struct ps2_device *p, const uint8_t *bytes, unsigned n, unsigned reserve);

#endif
