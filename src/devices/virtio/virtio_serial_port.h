/* The two classes of ports differ in one bit. */
#ifndef VMM_DEVICES_VIRTIO_SERIAL_PORT_H
#define VMM_DEVICES_VIRTIO_SERIAL_PORT_H

#include "virtio_serial.h"

extern const struct prop vser_port_props[];
extern const struct state_table vser_port_state;
int vser_port_create_console(struct device *dev, struct err *e);
int vser_port_create_channel(struct device *dev, struct err *e);
void vser_port_destroy(struct device *dev);
void vser_port_reset(struct device *dev);
void vser_port_settle(struct device *dev);
void vser_port_quiesce(struct device *dev);

#define VSER_PORT_CLASS(is_console)                                                                                 \
	.bus = BUS_VIRTIO_SERIAL, .category = "Input", .size = sizeof(struct vser_port), .user_creatable = true,    \
	.hotpluggable = true, .props = vser_port_props, .state = &vser_port_state,                                  \
	.create = (is_console) ? vser_port_create_console : vser_port_create_channel, .destroy = vser_port_destroy, \
	.reset = vser_port_reset, .settle = vser_port_settle, .quiesce = vser_port_quiesce
#endif
