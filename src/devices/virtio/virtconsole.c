/* The console kind of a virtio-serial port: /dev/hvc0 in Linux. See virtio_serial_port.c. */
#include "virtio_serial_port.h"

DEVICE_CLASS(virtconsole) = {
	VSER_PORT_CLASS(true),
	.name = "virtconsole",
	.summary = "port of a virtio-serial bus: a console of the guest",
};
