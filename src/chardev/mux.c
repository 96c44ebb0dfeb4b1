/*
 * mux=on: one backend shared by several front ends, with escapes for the person at the terminal.
 *
 * Each front end has a port, a struct chardev without a backend of its own. All ports write to the terminal; one of
 * them, the focus, gets what is typed. Ctrl-A starts an escape (QEMU's letters): see mux_help.
 */
#include "backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/log.h"

#define ESCAPE 0x01 /* Ctrl-A */

struct mux {
	struct chardev *port[MUX_MAX_PORTS];
	bool claimed[MUX_MAX_PORTS];
	unsigned focus;
	bool escaped;
	bool timestamps, line_start;
	uint64_t timestamps_from;
};

static void (*quit_fn)(void *opaque);
static void *quit_opaque;

static const char mux_help[] = "\r\n"
			       "Ctrl-A h or ?  this help\r\n"
			       "Ctrl-A x       end the guest at once, like pulling the plug\r\n"
			       "Ctrl-A b       send a break\r\n"
			       "Ctrl-A c       switch to the next front end of this terminal\r\n"
			       "Ctrl-A t       timestamps on or off\r\n"
			       "Ctrl-A s       save -snapshot changes (see the answer)\r\n"
			       "Ctrl-A Ctrl-A  send Ctrl-A\r\n";

/* Ports have no backend: core never calls these for them. */
static const struct chardev_ops port_ops = {.name = "mux", .size = sizeof(struct chardev)};

void chardev_on_quit(void (*fn)(void *opaque), void *opaque)
{
	quit_fn = fn;
	quit_opaque = opaque;
}

int mux_create(struct chardev *base)
{
	base->mux = xzalloc(sizeof(*base->mux));
	base->mux->line_start = true;
	return 0;
}

void mux_destroy(struct chardev *base)
{
	for (unsigned i = 0; i < MUX_MAX_PORTS && base->mux->port[i]; i++)
		chardev_free(base->mux->port[i]);
	free(base->mux);
	base->mux = NULL;
}

struct chardev *mux_port(struct chardev *base, unsigned i)
{
	return i < MUX_MAX_PORTS ? base->mux->port[i] : NULL;
}

struct chardev *mux_claim(struct chardev *base, const char *owner, struct err *e)
{
	struct mux *m = base->mux;

	for (unsigned i = 0; i < MUX_MAX_PORTS; i++) {
		if (m->claimed[i])
			continue;
		if (!m->port[i]) {
			m->port[i] = chardev_new(&port_ops, NULL);
			m->port[i]->mux_base = base;
		}
		m->claimed[i] = true;
		m->port[i]->owner = xstrdup(owner);
		return m->port[i];
	}
	err_set(e, EBUSY, "%s: character device '%s' has all its %d front ends", owner, base->id, MUX_MAX_PORTS);
	return NULL;
}

void mux_release(struct chardev *port)
{
	struct mux *m = port->mux_base->mux;

	chardev_detach(port);
	free(port->owner);
	port->owner = NULL;
	for (unsigned i = 0; i < MUX_MAX_PORTS; i++)
		if (m->port[i] == port)
			m->claimed[i] = false;
}

struct chardev *mux_focus(struct chardev *base)
{
	struct mux *m = base->mux;

	for (unsigned i = 0; i < MUX_MAX_PORTS; i++) {
		unsigned at = (m->focus + i) % MUX_MAX_PORTS;

		if (m->port[at] && m->port[at]->attached)
			return m->port[at];
	}
	return NULL;
}

/* ---- output ---- */

static size_t put_timestamp_locked(struct chardev *base)
{
	uint64_t ms = (clock_ns(VCLOCK_REAL) - base->mux->timestamps_from) / NS_PER_MS;
	char text[40];
	int n = snprintf(text, sizeof(text), "[%02u:%02u:%02u.%03u] ", (unsigned)(ms / 3600000),
			 (unsigned)(ms / 60000 % 60), (unsigned)(ms / 1000 % 60), (unsigned)(ms % 1000));

	if (base->out.cap - base->out.len < (uint32_t)n && !base->stalled)
		return 0;
	return chardev_queue_locked(base, text, n);
}

size_t mux_write_locked(struct chardev *port, const uint8_t *buf, size_t len)
{
	struct chardev *base = port->mux_base;
	struct mux *m = base->mux;
	size_t done = 0;

	if (!m->timestamps)
		return chardev_queue_locked(base, buf, len);
	while (done < len) {
		const uint8_t *nl = memchr(buf + done, '\n', len - done);
		size_t n = nl ? (size_t)(nl + 1 - buf) - done : len - done;
		size_t put;

		if (m->line_start && !put_timestamp_locked(base))
			break;
		m->line_start = false;
		put = chardev_queue_locked(base, buf + done, n);
		done += put;
		if (put < n)
			break;
		m->line_start = nl != NULL;
	}
	return done;
}

static void say(struct chardev *base, const char *text)
{
	pthread_mutex_lock(&base->out_lock);
	chardev_queue_locked(base, text, strlen(text));
	pthread_mutex_unlock(&base->out_lock);
}

/* ---- input ---- */

static void toggle_timestamps(struct chardev *base)
{
	struct mux *m = base->mux;

	pthread_mutex_lock(&base->out_lock);
	m->timestamps = !m->timestamps;
	m->timestamps_from = clock_ns(VCLOCK_REAL);
	m->line_start = false;
	pthread_mutex_unlock(&base->out_lock);
}

static void next_focus(struct chardev *base)
{
	struct mux *m = base->mux;
	struct chardev *old = mux_focus(base), *new;
	char text[128];

	m->focus = (m->focus + 1) % MUX_MAX_PORTS;
	new = mux_focus(base);
	while (new && m->port[m->focus] != new)
		m->focus = (m->focus + 1) % MUX_MAX_PORTS;
	if (new == old) {
		say(base, "\r\nThere is nothing else on this terminal.\r\n");
		return;
	}
	snprintf(text, sizeof(text), "\r\nYou are talking to %s.\r\n", new->owner);
	say(base, text);
	chardev_event_to(new, CHARDEV_FOCUS);
}

static void quit(struct chardev *base)
{
	say(base, "\r\nvmm: ended by Ctrl-A x\r\n");
	chardev_flush(base);
	if (quit_fn)
		quit_fn(quit_opaque);
}

static void escape(struct chardev *base, uint8_t ch)
{
	switch (ch) {
	case 'h':
	case '?':
		say(base, mux_help);
		break;
	case 'x':
		quit(base);
		break;
	case 'b':
		chardev_break_received(base);
		break;
	case 'c':
		next_focus(base);
		break;
	case 't':
		toggle_timestamps(base);
		break;
	case 's':
		say(base, "\r\n-snapshot changes live in temporary storage and cannot be written back.\r\n");
		break;
	case ESCAPE:
		byte_ring_put(&base->in, &ch, 1);
		break;
	default: /* not an escape: swallowed, as QEMU does */
		break;
	}
}

void mux_input(struct chardev *base, const uint8_t *buf, size_t len)
{
	struct mux *m = base->mux;

	for (size_t i = 0; i < len; i++) {
		if (m->escaped) {
			m->escaped = false;
			escape(base, buf[i]);
		} else if (buf[i] == ESCAPE) {
			m->escaped = true;
		} else {
			byte_ring_put(&base->in, &buf[i], 1);
		}
	}
}
