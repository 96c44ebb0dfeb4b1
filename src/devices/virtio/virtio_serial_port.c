/*
 * What the ports of a virtio-serial bus do: bytes between a chardev and a pair of queues, with flow control both ways.
 * Towards the guest the chardev is asked for no more than the driver has room for, and for nothing while nobody has the
 * port open. From the guest a chain stays under way until the chardev took all of it; a console that nobody reads loses
 * output instead, so that a guest does not hang in printk.
 *
 * A port is linked to its bus when it is settled first and unlinked when it quiesces on its way out: both with the
 * bus's lock held.
 */
#include "virtio_serial_port.h"

#include <errno.h>
#include <stdio.h>

#define CHUNK 4096

bool vser_port_connected(const struct vser_port *p)
{
	return p->bus && p->guest_open && virtio_running(&p->bus->v) && !p->bus->v.paused;
}

/* ---- from the guest ---- */

/* Write what is left of a chain; true: all of it. */
static bool write_chain(struct vser_port *p)
{
	uint8_t buf[CHUNK];

	while (p->tx_offset < p->tx->out_len) {
		size_t n = virtq_read(p->tx, p->tx_offset, buf, sizeof(buf)), took;

		if (!n)
			break; /* not RAM: nothing to write */
		took = p->chr ? chardev_write(p->chr, buf, n) : n;
		p->tx_offset += (uint32_t)took;
		if (took < n)
			return false;
	}
	p->tx_offset = 0;
	return true;
}

void vser_port_run_tx(struct vser_port *p)
{
	struct virtq *vq = vser_tx(p->bus, p->nr);

	for (;;) {
		if (!p->tx)
			p->tx = virtq_pop(vq);
		if (!p->tx || !write_chain(p))
			break;
		virtq_push(p->tx, 0);
		p->tx = NULL;
	}
	virtq_notify(vq);
}

void vser_port_emergency(struct vser_port *p, uint8_t byte)
{
	if (p->chr)
		chardev_write(p->chr, &byte, 1);
}

/* ---- to the guest ---- */

static size_t can_receive(void *opaque)
{
	struct vser_port *p = opaque;

	if (!vser_port_connected(p))
		return 0;
	if (!p->rx)
		p->rx = virtq_pop(vser_rx(p->bus, p->nr));
	if (p->rx && !p->rx->in_len) {
		virtq_drop(p->rx);
		p->rx = NULL;
		virtio_fail(&p->bus->v, "port %u: a receive buffer without room", p->nr);
	}
	return p->rx ? p->rx->in_len : 0;
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct vser_port *p = opaque;

	while (len && can_receive(p)) {
		size_t part = MIN(len, (size_t)p->rx->in_len);

		virtq_push(p->rx, (uint32_t)virtq_write(p->rx, 0, buf, part));
		p->rx = NULL;
		buf += part;
		len -= part;
	}
	if (p->bus)
		virtq_notify(vser_rx(p->bus, p->nr));
}

void vser_port_run_rx(struct vser_port *p)
{
	if (p->chr && vser_port_connected(p))
		chardev_accept_input(p->chr);
}

/* ---- open and closed ---- */

static void peer_event(void *opaque, enum chardev_event ev)
{
	struct vser_port *p = opaque;

	if (ev == CHARDEV_BREAK)
		return;
	p->host_open = ev == CHARDEV_OPENED;
	if (p->bus && p->ready)
		vser_tell(p->bus, p->nr, VSER_PORT_OPEN);
}

static void writable(void *opaque)
{
	struct vser_port *p = opaque;

	if (p->bus)
		virtq_schedule(vser_tx(p->bus, p->nr));
}

static void replaced(void *opaque, struct chardev *by)
{
	struct vser_port *p = opaque;

	device_replace_chardev(&p->dev, p->chr, by);
	p->chr = by;
}

void vser_port_ready(struct vser_port *p)
{
	p->ready = true;
	if (p->console)
		vser_tell(p->bus, p->nr, VSER_CONSOLE_PORT);
	if (p->name)
		vser_tell(p->bus, p->nr, VSER_PORT_NAME);
	if (p->host_open)
		vser_tell(p->bus, p->nr, VSER_PORT_OPEN);
}

static void guest_open_changed(struct vser_port *p)
{
	char data[128];

	if (p->console)
		return;
	if (p->chr)
		chardev_set_open(p->chr, p->guest_open);
	if (!p->dev.user_id)
		return; /* nobody could tell which one */
	snprintf(data, sizeof(data), "{\"id\": \"%s\", \"open\": %s}", p->dev.id, p->guest_open ? "true" : "false");
	machine_event(p->dev.board, "VSERPORT_CHANGE", data);
}

void vser_port_guest_open(struct vser_port *p, bool open)
{
	if (p->guest_open == open)
		return;
	p->guest_open = open;
	guest_open_changed(p);
	vser_port_run_rx(p);
}

/* ---- life ---- */

void vser_port_drop(struct vser_port *p)
{
	if (p->rx)
		virtq_drop(p->rx);
	if (p->tx)
		virtq_drop(p->tx);
	p->rx = p->tx = NULL;
	p->tx_offset = 0;
	p->ready = p->told_open = false;
	vser_port_guest_open(p, false);
}

void vser_port_pause(struct vser_port *p)
{
	if (p->rx)
		virtq_unpop(p->rx);
	if (p->tx)
		virtq_unpop(p->tx); /* tx_offset remembers what is written */
	p->rx = p->tx = NULL;
}

void vser_port_reset(struct device *dev)
{
	struct vser_port *p = DEVICE(dev, struct vser_port);

	p->ready = p->guest_open = p->told_open = false;
	p->tx_offset = 0;
}

void vser_port_settle(struct device *dev)
{
	struct vser_port *p = DEVICE(dev, struct vser_port);

	if (!p->bus) {
		p->bus = vser_of(dev->parent);
		p->bus->port[p->nr] = p;
		if (machine_started(dev->board))
			vser_tell(p->bus, p->nr, VSER_PORT_ADD);
	}
	if (p->chr && !p->console)
		chardev_set_open(p->chr, p->guest_open);
	if (p->ready && p->told_open != p->host_open) /* loaded where the peer is not what it was */
		vser_tell(p->bus, p->nr, VSER_PORT_OPEN);
}

static void unlink_port(struct vser_port *p)
{
	struct vser *s = p->bus;

	if (!s)
		return;
	vser_port_pause(p);
	p->tx_offset = 0;
	p->bus = NULL;
	s->port[p->nr] = NULL;
	s->todo[p->nr] = 0;
	vser_tell(s, p->nr, VSER_PORT_REMOVE);
}

void vser_port_quiesce(struct device *dev)
{
	struct vser_port *p = DEVICE(dev, struct vser_port);

	if (dev->leaving)
		unlink_port(p);
	device_quiesced(dev);
}

/* ---- creation ---- */

static int choose_number(struct vser_port *p, struct vser *s, struct err *e)
{
	if (p->nr == VSER_NO_PORT && p->console && !(s->taken & 1)) {
		p->nr = 0;
	} else if (p->nr == VSER_NO_PORT) { /* port 0 is kept for a console: drivers without multiport know no other */
		for (p->nr = 1; p->nr < s->max_ports && s->taken & BIT(p->nr);)
			p->nr++;
		if (p->nr == s->max_ports)
			return err_set(e, ENOSPC, "virtio-serial-bus: Maximum port limit for this device reached");
	}
	if (!p->nr && !p->console)
		return err_set(e, EINVAL,
			       "Port number 0 on virtio-serial devices reserved for virtconsole devices for backward "
			       "compatibility.");
	if (p->nr >= s->max_ports)
		return err_set(e, EINVAL, "virtio-serial-bus: Out-of-range port id specified, max. allowed: %u",
			       s->max_ports - 1);
	if (s->taken & BIT(p->nr))
		return err_set(e, EEXIST, "virtio-serial-bus: A port already exists at id %u", p->nr);
	return 0;
}

static int create(struct device *dev, bool console, struct err *e)
{
	static const struct chardev_frontend lossless = {.can_receive = can_receive,
							 .receive = receive,
							 .event = peer_event,
							 .writable = writable,
							 .replaced = replaced,
							 .lossless = true};
	static const struct chardev_frontend wire = {.can_receive = can_receive,
						     .receive = receive,
						     .event = peer_event,
						     .writable = writable,
						     .replaced = replaced};
	struct vser_port *p = DEVICE(dev, struct vser_port);
	struct vser *s = vser_of(dev->parent);
	int r;

	p->console = console;
	if (!s)
		return err_set(e, EINVAL, "No 'virtio-serial-bus' bus found for device '%s'", dev->class->name);
	if (p->name && strlen(p->name) > 200)
		return err_set(e, EINVAL, "Parameter 'name' expects at most 200 characters");
	if (p->name && !console)
		for (struct device *d = device_next(dev->board, NULL); d; d = device_next(dev->board, d)) {
			struct vser_port *other = DEVICE(d, struct vser_port);

			if (d->parent == dev->parent && d != dev && d->class->bus == BUS_VIRTIO_SERIAL && other->name &&
			    !strcmp(other->name, p->name))
				return err_set(e, EEXIST, "virtio-serial-bus: A port already exists by name %s",
					       p->name);
		}
	r = choose_number(p, s, e);
	if (r)
		return r;
	if (p->chardev_id) {
		p->chr = device_claim_chardev(dev, p->chardev_id, e);
		if (!p->chr)
			return -ENOENT;
		chardev_attach(p->chr, console ? &wire : &lossless, p, dev->lock);
		if (!console)
			chardev_set_open(p->chr, false);
	}
	s->taken |= BIT(p->nr);
	return 0;
}

int vser_port_create_console(struct device *dev, struct err *e)
{
	return create(dev, true, e);
}

int vser_port_create_channel(struct device *dev, struct err *e)
{
	return create(dev, false, e);
}

void vser_port_destroy(struct device *dev)
{
	struct vser_port *p = DEVICE(dev, struct vser_port);
	struct vser *s = vser_of(dev->parent);

	unlink_port(p); /* where the whole machine stands still it was not asked to quiesce */
	if (p->chr)
		chardev_detach(p->chr);
	s->taken &= ~BIT(p->nr);
}

static const struct state_field fields[] = {
	STATE_B(struct vser_port, ready),
	STATE_B(struct vser_port, guest_open),
	STATE_B(struct vser_port, told_open),
	STATE_U(struct vser_port, tx_offset),
	STATE_FIELDS_END,
};
const struct state_table vser_port_state = {.name = "virtio-serial-port", .version = 1, .oldest = 1, .fields = fields};

const struct prop vser_port_props[] = {
	PROP_NAMED(struct vser_port, "chardev", chardev_id, PROP_CHARDEV,
		   .help = "where the bytes go to and come from"),
	PROP(struct vser_port, name, PROP_STR, .help = "what the guest finds it by, \"org.qemu.guest_agent.0\""),
	PROP(struct vser_port, nr, PROP_U32, .def = VSER_NO_PORT, .help = "port number (default: the next free one)"),
	PROP_END,
};
