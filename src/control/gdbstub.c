/*
 * The gdb stub's socket. One client at a time; the next one waits in the listening socket's queue. A client's arrival
 * stops the guest, as in QEMU; when it goes without a word its breakpoints go with it and the guest stays as it is.
 */
#include "gdbstub.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "gdb_target.h"
#include "vmm/chardev.h"
#include "vmm/log.h"
#include "vmm/loop.h"

#define PENDING_STOP 65536 /* output that a client has not taken: its input waits */

static struct stub {
	struct board *board;
	struct chardev *listener; /* or the only one */
	struct chardev *peer;     /* NULL: nobody */
	bool serves;              /* listener hands out peers */
	bool busy;                /* inside the protocol: no further input */
	struct gdb_machine *machine;
	struct gdb_target target;
	struct gdb gdb;
	char *pending;
	size_t pending_len;
} * stub;

/* ---- output ---- */

static void flush(struct stub *s)
{
	size_t n;

	if (!s->pending_len)
		return;
	n = chardev_write(s->peer, s->pending, s->pending_len);
	s->pending_len -= n;
	memmove(s->pending, s->pending + n, s->pending_len);
}

static void send(void *opaque, const char *data, size_t len)
{
	struct stub *s = opaque;

	if (!s->peer)
		return;
	s->pending = xrealloc(s->pending, s->pending_len + len);
	memcpy(s->pending + s->pending_len, data, len);
	s->pending_len += len;
	flush(s);
}

/* ---- input ---- */

/* Stopping the guest may run the main loop (disks are flushed): nothing else may come in meanwhile. */
static size_t can_receive(void *opaque)
{
	const struct stub *s = opaque;

	return s->busy || s->pending_len > PENDING_STOP ? 0 : 4096;
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct stub *s = opaque;

	s->busy = true;
	gdb_feed(&s->gdb, buf, len);
	s->busy = false;
	if (s->peer)
		chardev_accept_input(s->peer);
}

static void writable(void *opaque)
{
	struct stub *s = opaque;

	flush(s);
	if (s->pending_len <= PENDING_STOP)
		chardev_accept_input(s->peer);
}

/* ---- coming and going ---- */

static void arrived(struct stub *s)
{
	s->pending_len = 0;
	s->gdb.wide = gdb_machine_is_wide(s->machine);
	gdb_reset(&s->gdb);
	s->busy = true;
	if (machine_running(s->board))
		machine_stop(s->board, RUN_PAUSED);
	s->busy = false;
}

static void left(struct stub *s)
{
	s->pending_len = 0;
	gdb_reset(&s->gdb);
	s->target.clear_points(s->machine);
}

static void close_peer(void *opaque)
{
	chardev_close(opaque);
}

static void event(void *opaque, enum chardev_event ev)
{
	struct stub *s = opaque;

	if (ev == CHARDEV_OPENED) {
		arrived(s);
	} else if (ev == CHARDEV_CLOSED && s->peer) {
		left(s);
		if (s->serves) {
			loop_post(loop_main(), NULL, close_peer, s->peer);
			s->peer = NULL;
		}
	}
}

static const struct chardev_frontend frontend = {
	.can_receive = can_receive,
	.receive = receive,
	.event = event,
	.writable = writable,
	.lossless = true,
};

static void on_peer(void *opaque, struct chardev *peer)
{
	struct stub *s = opaque;

	s->peer = peer;
	chardev_attach(peer, &frontend, s, NULL);
}

void gdbstub_on_stop(void)
{
	struct gdb_stop why;

	if (!stub || !stub->peer)
		return;
	why = gdb_machine_why(stub->machine, machine_run_state(stub->board), stub->gdb.c_cpu);
	gdb_stopped(&stub->gdb, &why);
}

static struct chardev *open_device(const char *device, struct err *e)
{
	bool socket = !strncmp(device, "tcp:", 4) || !strncmp(device, "unix:", 5);
	char *text = xasprintf("%s%s", device, socket && !strstr(device, ",server") ? ",server=on,wait=off" : "");
	struct chardev *c = chardev_open_legacy("gdb", text, e);

	free(text);
	return c ? chardev_claim(chardev_id(c), "gdb", e) : NULL;
}

void gdbstub_stop(void)
{
	struct stub *s = stub;
	bool ours;

	if (!s)
		return;
	stub = NULL;
	if (s->serves && s->peer)
		chardev_close(s->peer);
	ours = !strcmp(chardev_id(s->listener), "gdb");
	chardev_release(s->listener);
	if (ours)
		chardev_close(s->listener);
	gdb_machine_free(s->machine);
	gdb_free(&s->gdb);
	free(s->pending);
	free(s);
}

int gdbstub_start(struct board *b, const char *device, struct err *e)
{
	struct chardev *c;
	struct stub *s;

	if (stub && stub->busy)
		return err_set(e, EBUSY, "gdbserver: this is its own client speaking");
	gdbstub_stop();
	if (!strcmp(device, "none"))
		return 0;
	if (!machine_cpu_count(b))
		return err_set(e, ENOTSUP, "gdbserver: this machine has no CPU");
	c = open_device(device, e);
	if (!c)
		return e && e->code ? -e->code : -EINVAL;
	s = xzalloc(sizeof(*s));
	s->board = b;
	s->listener = c;
	s->machine = gdb_machine_new(b);
	s->target = gdb_machine_target(s->machine);
	gdb_init(&s->gdb, &s->target, s->machine, gdb_machine_is_wide(s->machine), send, s);
	stub = s;
	s->serves = chardev_serve(c, 1, on_peer, s) == 0;
	if (!s->serves)
		on_peer(s, c);
	return 0;
}
