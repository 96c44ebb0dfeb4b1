/*
 * guestfwd=tcp:SERVER:PORT-DEV: connections of the guest to an address of its network end in a character device.
 *
 * Bytes cross between the slirp thread and the main loop, where chardevs live, in a ring for each direction. libslirp
 * acknowledges to the guest what it hands over here, whatever becomes of it: so no frame is taken from the guest while
 * the ring has no room for all that one can bring.
 */
#include "slirp_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/log.h"
#include "vmm/net.h"

/* A frame can complete a whole receive window of segments that came out of order (128 KiB), and has a payload itself.
 */
#define FRAME_BRINGS (128 * 1024 + NET_PACKET_MAX)
#define OUT_SIZE     (512 * 1024)
#define IN_SIZE      (64 * 1024)
#define PIECE        4096

struct guestfwd {
	char *rule;
	struct in_addr server;
	uint16_t port;
	struct ring out, in; /* from and to the guest */
	struct chardev *chardev;
	bool ours;            /* opened for this rule */
	pthread_mutex_t lock; /* the front end's */
	struct bh drain;
	/* main thread */
	uint8_t pending[PIECE];
	size_t pending_at, pending_len;
};

/* ---- main thread ---- */

static size_t can_receive(void *opaque)
{
	struct guestfwd *f = opaque;

	return ring_room(&f->in);
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct guestfwd *f = opaque;

	ring_put(&f->in, buf, len);
	slirp_thread_wake();
}

/* The front end's lock is held. */
static void drain(void *opaque)
{
	struct guestfwd *f = opaque;

	for (;;) {
		if (f->pending_at == f->pending_len) {
			f->pending_at = 0;
			f->pending_len = ring_get(&f->out, f->pending, sizeof(f->pending));
			if (!f->pending_len)
				break;
		}
		f->pending_at += chardev_write(f->chardev, f->pending + f->pending_at, f->pending_len - f->pending_at);
		if (f->pending_at < f->pending_len)
			break; /* writable() follows */
	}
	chardev_accept_input(f->chardev);
	slirp_thread_wake();
}

struct guestfwd *guestfwd_open(const char *id, unsigned n, const char *rule, struct err *e)
{
	static const struct chardev_frontend frontend = {
		.can_receive = can_receive, .receive = receive, .writable = drain};
	struct guestfwd *f;
	struct in_addr server;
	uint16_t port;
	const char *dev;
	char *name;

	if (slirp_parse_guestfwd(rule, &server, &port, &dev, e))
		return NULL;
	f = xzalloc(sizeof(*f));
	f->server = server;
	f->port = port;
	f->ours = strncmp(dev, "chardev:", 8) != 0;
	name = f->ours ? xasprintf("%s.guestfwd%u", id, n) : xstrdup(dev + 8);
	if (!f->ours || chardev_open_legacy(name, dev, e))
		f->chardev = chardev_claim(name, id, e);
	else if (!e->code)
		err_set(e, EINVAL, "Could not open guest forwarding device '%s'", name);
	free(name);
	if (!f->chardev) {
		free(f);
		return NULL;
	}
	f->rule = xstrdup(rule);
	pthread_mutex_init(&f->lock, NULL);
	ring_init(&f->out, OUT_SIZE);
	ring_init(&f->in, IN_SIZE);
	bh_init(&f->drain, loop_main(), &f->lock, drain, f);
	chardev_attach(f->chardev, &frontend, f, &f->lock);
	return f;
}

void guestfwd_close(struct guestfwd *f)
{
	bh_cancel(&f->drain);
	chardev_detach(f->chardev);
	if (f->ours) {
		struct chardev *c = f->chardev;

		chardev_release(c);
		chardev_close(c);
	} else {
		chardev_release(f->chardev);
	}
	ring_destroy(&f->out);
	ring_destroy(&f->in);
	pthread_mutex_destroy(&f->lock);
	free(f->rule);
	free(f);
}

/* ---- slirp thread ---- */

static ssize_t from_guest(const void *buf, size_t len, void *opaque)
{
	struct guestfwd *f = opaque;

	if (ring_put(&f->out, buf, len) < len)
		log_warn("net", "guestfwd=%s: bytes are lost", f->rule);
	bh_schedule(&f->drain);
	return (ssize_t)len;
}

bool guestfwd_add(struct guestfwd *f, Slirp *slirp)
{
	return !slirp_add_guestfwd(slirp, from_guest, f, &f->server, f->port);
}

bool guestfwd_has_room(struct guestfwd *f)
{
	return ring_room(&f->out) >= FRAME_BRINGS;
}

/* The device's bytes to the guest, as far as its connection takes them. */
void guestfwd_pump(struct guestfwd *f, Slirp *slirp)
{
	uint8_t piece[PIECE];
	bool moved = false;

	while (ring_used(&f->in)) {
		size_t room = slirp_socket_can_recv(slirp, f->server, f->port);
		size_t len = ring_get(&f->in, piece, MIN(room, sizeof(piece)));

		if (!len)
			break;
		slirp_socket_recv(slirp, f->server, f->port, piece, (int)len);
		moved = true;
	}
	if (moved)
		bh_schedule(&f->drain); /* the device may send more */
}
