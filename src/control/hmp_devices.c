/* Commands for people that reach devices and back ends without a QMP command of the same shape: ports, the mouse,
 * -chardev. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "hmp.h"
#include "vmm/chardev.h"
#include "vmm/input.h"

/* ---- ports ---- */

/* "/b", "/h", "/w" (or "/4xw": what x takes); 0: wrong. */
static unsigned port_size(const char *spec)
{
	unsigned size = 1;

	for (; *spec; spec++) {
		if (*spec == 'b')
			size = 1;
		else if (*spec == 'h')
			size = 2;
		else if (*spec == 'w')
			size = 4;
		else if (*spec != 'x')
			return 0;
	}
	return size;
}

static bool parse_port(struct hmp *h, const char *spec, const char **text, uint16_t *port, unsigned *size)
{
	char *end;
	unsigned long v = strtoul(*text, &end, 0);

	*size = port_size(spec);
	if (!*size)
		fprintf(h->out, "invalid format '%s': b, h or w\r\n", spec);
	else if (end == *text || v > 0xffff || v + *size > 0x10000)
		fprintf(h->out, "a port from 0 to 0xffff expected\r\n");
	else {
		*port = (uint16_t)v;
		*text = end + strspn(end, " \t");
		return true;
	}
	return false;
}

void hmp_port_in(struct hmp *h, const char *spec, const char *rest)
{
	unsigned size;
	uint16_t port;

	if (parse_port(h, spec, &rest, &port, &size))
		fprintf(h->out, "port%c[0x%04x] = 0x%0*" PRIx64 "\r\n", "?bw?l"[size], port, (int)(2 * size),
			map_pio_read(h->board, port, size));
}

void hmp_port_out(struct hmp *h, const char *spec, const char *rest)
{
	unsigned size;
	uint16_t port;
	char *end;
	uint64_t value;

	if (!parse_port(h, spec, &rest, &port, &size))
		return;
	value = strtoull(rest, &end, 0);
	if (end == rest || *end)
		fprintf(h->out, "a value expected\r\n");
	else
		map_pio_write(h->board, port,
			      size == 4   ? (uint32_t)value
			      : size == 2 ? (uint16_t)value
					  : (uint8_t)value,
			      size);
}

/* ---- the mouse ---- */

static unsigned buttons; /* held by mouse_button */

static int clamped(long v)
{
	return (int)MIN(MAX(v, -32768l), 32767l);
}

/* "dx dy [dz]", relative; dz: steps of the wheel */
void hmp_mouse_move(struct hmp *h, const char *spec, const char *rest)
{
	long v[3] = {0};
	unsigned n = 0;
	char *end;

	for (; n < 3 && *rest; n++, rest = end + strspn(end, " \t")) {
		v[n] = strtol(rest, &end, 0);
		if (end == rest)
			break;
	}
	if (n < 2 || *rest)
		fprintf(h->out, "mouse_move: dx and dy expected, and perhaps dz\r\n");
	else
		input_rel(clamped(v[0]), clamped(v[1]), clamped(v[2]), buttons);
}

/* A mask as QEMU's: 1 left, 2 middle, 4 right. */
void hmp_mouse_button(struct hmp *h, const char *spec, const char *rest)
{
	char *end;
	unsigned long state = strtoul(rest, &end, 0);

	if (end == rest || *end || state > 7) {
		fprintf(h->out, "mouse_button: a mask expected: 1 left, 2 middle, 4 right\r\n");
		return;
	}
	buttons = (state & 1 ? BUTTON_LEFT : 0) | (state & 2 ? BUTTON_MIDDLE : 0) | (state & 4 ? BUTTON_RIGHT : 0);
	input_rel(0, 0, 0, buttons);
}

/* ---- character devices, in the words of -chardev ---- */

static void open_chardev(struct hmp *h, const char *text, const char *id,
			 struct chardev *(*open)(struct opts *o, struct err *e))
{
	struct err e = ERR_INIT;
	struct opts o = {0};

	if (!opts_parse(&o, text, "backend", &e)) {
		const char *wait = opts_get(&o, "wait"), *server = opts_get(&o, "server");

		if (id)
			opts_set(&o, "id", id);
		if (server && strcmp(server, "off") && (!wait || strcmp(wait, "off")))
			err_set(&e, EINVAL, "wait=off is needed: a server that waits would hold up the guest");
		else
			open(&o, &e);
	}
	opts_free(&o);
	if (e.code)
		fprintf(h->out, "Error: %s\r\n", e.msg);
}

void hmp_chardev_add(struct hmp *h, const char *spec, const char *rest)
{
	open_chardev(h, rest, NULL, chardev_open);
}

void hmp_chardev_change(struct hmp *h, const char *spec, const char *rest)
{
	size_t n = strcspn(rest, " \t");
	char *id = xstrndup(rest, n);

	open_chardev(h, rest + n + strspn(rest + n, " \t"), id, chardev_change);
	free(id);
}
