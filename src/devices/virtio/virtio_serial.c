/*
 * virtio-serial, the console device: VIRTIO 1.2 section 5.3. A bus of up to 31 ports, each a pair of queues, and a pair
 * of control queues through which driver and device tell each other which ports there are and who has them open. The
 * ports are devices of their own (virtconsole, virtserialport: virtio_serial_port.c), plugged and unplugged while the
 * guest runs.
 *
 * A driver that does not know VIRTIO_CONSOLE_F_MULTIPORT sees port 0 only, which is a console's. Left out: the
 * console's size (VIRTIO_CONSOLE_F_SIZE; no back end knows one).
 */
#include "virtio_serial.h"

#include <errno.h>
#include <stdio.h>

enum { F_MULTIPORT = 1, F_EMERG_WRITE = 2 };
enum { CONFIG_COLS = 0, CONFIG_ROWS = 2, CONFIG_PORTS = 4, CONFIG_EMERG = 8, CONFIG_SIZE = 12 };
enum { Q_CONTROL_RX = 2, Q_CONTROL_TX = 3 };
#define CONTROL_SIZE 8 /* le32 port; le16 event; le16 value */

static struct vser *vser(struct virtio *v)
{
	return container_of(v, struct vser, v);
}

static bool multiport(const struct vser *s)
{
	return virtio_has(&s->v, F_MULTIPORT);
}

/* ---- queues: 0 and 1 are port 0's, 2 and 3 control, then those of port 1 ... ---- */

struct virtq *vser_rx(struct vser *s, unsigned nr)
{
	return &s->vq[nr ? 2 * nr + 2 : 0];
}

struct virtq *vser_tx(struct vser *s, unsigned nr)
{
	return vser_rx(s, nr) + 1;
}

static struct vser_port *port_of(struct virtq *vq)
{
	unsigned pair = vq->index / 2;

	return vser(vq->v)->port[pair ? pair - 1 : 0];
}

static void run_rx(struct virtq *vq)
{
	if (port_of(vq))
		vser_port_run_rx(port_of(vq));
}

/* What a driver sends to a port that does not exist goes nowhere. */
static void run_tx(struct virtq *vq)
{
	struct virtq_elem *el;

	if (port_of(vq)) {
		vser_port_run_tx(port_of(vq));
		return;
	}
	while ((el = virtq_pop(vq)))
		virtq_push(el, 0);
	virtq_notify(vq);
}

/* ---- control messages to the driver ---- */

static size_t message(struct vser *s, unsigned nr, enum vser_event ev, uint8_t *buf, size_t size)
{
	struct vser_port *p = s->port[nr];
	size_t len = CONTROL_SIZE;

	put_le32(buf, nr);
	put_le16(buf + 4, (uint16_t)ev);
	put_le16(buf + 6, 1);
	if (ev == VSER_PORT_OPEN) {
		put_le16(buf + 6, p && p->host_open);
		if (p)
			p->told_open = p->host_open;
	} else if (ev == VSER_PORT_NAME && p && p->name) { /* with its terminating zero, as QEMU sends it */
		len += (size_t)snprintf((char *)buf + len, size - len, "%s", p->name) + 1;
	}
	return MIN(len, size);
}

/* Each port's messages in the order in which they make sense. False: the driver has no buffer for more. */
static bool send_port(struct vser *s, unsigned nr)
{
	static const uint8_t order[] = {VSER_PORT_REMOVE, VSER_PORT_ADD, VSER_CONSOLE_PORT, VSER_PORT_NAME,
					VSER_PORT_OPEN};
	struct virtq *vq = &s->vq[Q_CONTROL_RX];

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		struct virtq_elem *el;
		uint8_t buf[CONTROL_SIZE + 256];

		if (!(s->todo[nr] & BIT(order[i])))
			continue;
		el = virtq_pop(vq);
		if (!el)
			return false;
		s->todo[nr] &= (uint8_t)~BIT(order[i]);
		virtq_push(el, (uint32_t)virtq_write(el, 0, buf, message(s, nr, order[i], buf, sizeof(buf))));
	}
	return true;
}

static void run_control_rx(struct virtq *vq)
{
	struct vser *s = vser(vq->v);
	bool room = s->driver_ready;

	for (unsigned nr = 0; room && nr < s->max_ports; nr++)
		room = !s->todo[nr] || send_port(s, nr);
	virtq_notify(vq);
}

void vser_tell(struct vser *s, unsigned nr, enum vser_event ev)
{
	if (!s->driver_ready)
		return; /* it learns what there is when it is */
	s->todo[nr] |= (uint8_t)BIT(ev);
	virtq_schedule(&s->vq[Q_CONTROL_RX]);
}

/* ---- control messages from the driver ---- */

static void driver_ready(struct vser *s, bool works)
{
	s->driver_ready = works;
	memset(s->todo, 0, sizeof(s->todo));
	if (!works)
		log_guest(&s->v.dev.guest_log, "virtio", "%s: its driver could not set itself up", s->v.dev.id);
	for (unsigned nr = 0; works && nr < s->max_ports; nr++)
		if (s->port[nr])
			vser_tell(s, nr, VSER_PORT_ADD);
}

static void control(struct vser *s, uint32_t nr, uint16_t event, uint16_t value)
{
	struct vser_port *p;

	if (event == VSER_DEVICE_READY) {
		driver_ready(s, value);
		return;
	}
	p = nr < s->max_ports ? s->port[nr] : NULL;
	if (!p || (event == VSER_PORT_READY && !value)) {
		log_guest(&s->v.dev.guest_log, "virtio", "%s: the driver says %u about port %u, which %s", s->v.dev.id,
			  event, nr, p ? "it cannot use" : "does not exist");
		return;
	}
	if (event == VSER_PORT_READY)
		vser_port_ready(p);
	else if (event == VSER_PORT_OPEN)
		vser_port_guest_open(p, value);
}

static void run_control_tx(struct virtq *vq)
{
	struct virtq_elem *el;

	while ((el = virtq_pop(vq))) {
		uint8_t raw[CONTROL_SIZE];

		if (virtq_read(el, 0, raw, sizeof(raw)) == sizeof(raw))
			control(vser(vq->v), get_le32(raw), get_le16(raw + 4), get_le16(raw + 6));
		virtq_push(el, 0);
	}
	virtq_notify(vq);
}

/* ---- the core's calls ---- */

static uint64_t features(const struct virtio *v)
{
	const struct vser *s = container_of(v, struct vser, v);

	return (s->max_ports > 1 ? BIT64(F_MULTIPORT) : 0) | (s->emergency_write ? BIT64(F_EMERG_WRITE) : 0);
}

static void config_read(struct virtio *v, uint8_t *config)
{
	put_le16(config + CONFIG_COLS, 0);
	put_le16(config + CONFIG_ROWS, 0);
	put_le32(config + CONFIG_PORTS, vser(v)->max_ports);
	put_le32(config + CONFIG_EMERG, 0);
}

/* 5.3.5: a character for the console without any queue, for early messages and crashes; also before negotiation. */
static void config_write(struct virtio *v, unsigned offset, uint32_t value, unsigned size)
{
	struct vser *s = vser(v);

	if (offset != CONFIG_EMERG || !s->emergency_write)
		return;
	for (unsigned nr = 0; nr < s->max_ports; nr++)
		if (s->port[nr] && s->port[nr]->console) {
			vser_port_emergency(s->port[nr], (uint8_t)value);
			return;
		}
}

/* A driver without control queues has its one port open. */
static void start(struct virtio *v)
{
	struct vser *s = vser(v);

	if (!multiport(s) && s->port[0] && !s->port[0]->guest_open)
		vser_port_guest_open(s->port[0], true);
}

static void reset(struct virtio *v)
{
	struct vser *s = vser(v);

	s->driver_ready = false;
	memset(s->todo, 0, sizeof(s->todo));
	for (unsigned nr = 0; nr < s->max_ports; nr++)
		if (s->port[nr])
			vser_port_drop(s->port[nr]);
}

static void pause_ports(struct virtio *v)
{
	struct vser *s = vser(v);

	for (unsigned nr = 0; nr < s->max_ports; nr++)
		if (s->port[nr])
			vser_port_pause(s->port[nr]);
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_CONSOLE,
	.config_size = CONFIG_SIZE,
	.features = features,
	.config_read = config_read,
	.config_write = config_write,
	.start = start,
	.reset = reset,
	.pause = pause_ports,
};

/* ---- the class ---- */

static int create(struct device *dev, struct err *e)
{
	struct vser *s = DEVICE(dev, struct vser);
	unsigned n = 2 * (s->max_ports + 1);

	virtio_init(&s->v, &ops, s->vq, n);
	for (unsigned i = 0; i < n; i += 2) {
		bool is_control = i == Q_CONTROL_RX;

		virtq_init(&s->vq[i], is_control ? 32 : 128, is_control ? run_control_rx : run_rx);
		virtq_init(&s->vq[i + 1], is_control ? 32 : 128, is_control ? run_control_tx : run_tx);
	}
	return virtio_pci_create(&s->v, e);
}

static void destroy(struct device *dev)
{
	virtio_destroy(&DEVICE(dev, struct vser)->v);
}

static int post_load(void *obj, uint16_t version, struct err *e)
{
	return virtio_post_load(&((struct vser *)obj)->v, e);
}

static const struct state_field fields[] = {
	VIRTIO_STATE(struct vser),
	STATE_B(struct vser, driver_ready),
	STATE_UA(struct vser, todo),
	STATE_FIELDS_END,
};
static const struct state_table table = {
	.name = "virtio-serial", .version = 1, .oldest = 1, .fields = fields, .post_load = post_load};

static const struct prop props[] = {
	PROP_NAMED(struct vser, "max_ports", max_ports, PROP_U32, .def = VSER_MAX_PORTS, .min = 1,
		   .max = VSER_MAX_PORTS, .help = "ports it can have"),
	PROP_NAMED(struct vser, "emergency-write", emergency_write, PROP_BOOL, .def = 1,
		   .help = "offer a register that writes to the console"),
	VIRTIO_PROPS(struct vser, 2),
	PROP_END,
};

static const struct pci_identity identity = VIRTIO_IDENTITY(0x1003, VIRTIO_ID_CONSOLE, 0x078000);

DEVICE_CLASS(virtio_serial) = {
	.name = "virtio-serial-pci",
	.alias = "virtio-serial-pci-transitional",
	.summary = "bus of consoles and serial ports (virtio)",
	.category = "Input",
	.size = sizeof(struct vser),
	VIRTIO_CLASS(identity),
	.props = props,
	.state = &table,
	.create = create,
	.destroy = destroy,
};

struct vser *vser_of(struct device *dev)
{
	return dev && dev->class == &device_class_virtio_serial ? DEVICE(dev, struct vser) : NULL;
}
