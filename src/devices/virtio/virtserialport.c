/*
 * Ports of a virtio-serial bus: virtserialport, a channel for agents in the guest (org.qemu.guest_agent.0 and the
 * like). The console kind, virtconsole, is the same port said to be a console: see virtconsole.c and
 * virtio_serial_port.c.
 */
#include "virtio_serial_port.h"

DEVICE_CLASS(virtserialport) = {
	VSER_PORT_CLASS(false),
	.name = "virtserialport",
	.summary = "port of a virtio-serial bus: a channel for an agent in the guest",
};
