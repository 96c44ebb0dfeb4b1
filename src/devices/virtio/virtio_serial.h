/* The virtio-serial bus and its ports: what virtio_serial.c and virtio_serial_port.c share. One lock for all of it: the
 * bus's. */
#ifndef VMM_DEVICES_VIRTIO_SERIAL_H
#define VMM_DEVICES_VIRTIO_SERIAL_H

#include "virtio.h"
#include "vmm/chardev.h"

#define VSER_MAX_PORTS 31
#define VSER_NO_PORT   UINT32_MAX

/* Control events (5.3.6.2) */
enum vser_event {
	VSER_DEVICE_READY,
	VSER_PORT_ADD,
	VSER_PORT_REMOVE,
	VSER_PORT_READY,
	VSER_CONSOLE_PORT,
	VSER_RESIZE,
	VSER_PORT_OPEN,
	VSER_PORT_NAME,
};

struct vser_port;

struct vser {
	struct virtio v;
	struct virtq vq[2 * (VSER_MAX_PORTS + 1)];
	uint32_t max_ports;
	bool emergency_write;
	uint32_t taken;                         /* bit n: port n; main thread, create and destroy */
	struct vser_port *port[VSER_MAX_PORTS]; /* those the guest may see */

	/* state */
	bool driver_ready;            /* it takes control messages */
	uint8_t todo[VSER_MAX_PORTS]; /* control messages not sent yet, BIT(enum vser_event) */
};

struct vser_port {
	struct device dev;
	struct vser *bus; /* NULL: not linked yet, or unplugged */
	bool console;
	uint32_t nr;
	char *chardev_id, *name;
	struct chardev *chr;
	bool host_open;             /* the chardev's peer is there */
	struct virtq_elem *rx, *tx; /* under way; at most one each */

	/* state */
	bool ready;         /* the driver has set it up */
	bool guest_open;    /* somebody in the guest has it open */
	bool told_open;     /* what the guest knows of host_open */
	uint32_t tx_offset; /* bytes of the oldest chain that are already written */
};

struct vser *vser_of(struct device *dev); /* NULL: not a virtio-serial device */
struct virtq *vser_rx(struct vser *s, unsigned nr);
struct virtq *vser_tx(struct vser *s, unsigned nr);
/* Have a control message about port nr sent. */
void vser_tell(struct vser *s, unsigned nr, enum vser_event ev);
bool vser_port_connected(const struct vser_port *p); /* data may flow to the guest */

/* The port's side, called by the bus with the lock held. */
void vser_port_run_rx(struct vser_port *p);
void vser_port_run_tx(struct vser_port *p);
void vser_port_ready(struct vser_port *p);
void vser_port_guest_open(struct vser_port *p, bool open);
void vser_port_drop(struct vser_port *p);  /* the driver's reset */
void vser_port_pause(struct vser_port *p); /* give chains back */
void vser_port_emergency(struct vser_port *p, uint8_t byte);

#endif
