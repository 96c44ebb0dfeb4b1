/*
 * The object tree of qom-list and qom-get, computed from what there is: nothing is stored twice.
 *
 *   /machine                          the machine's own options
 *   /machine/peripheral/ID            devices with an id: -device, device_add
 *   /machine/peripheral-anon/NAME     those without, under the name they have in logs
 *   /machine/unattached/NAME          what the board has by itself; vCPUs are .../cpu[N]
 *   /objects/ID                       -object, object-add
 *   /chardevs/ID                      character devices
 */
#ifndef VMM_CONTROL_QOM_H
#define VMM_CONTROL_QOM_H

#include "qmp.h"

#define QOM_PATH_MAX 160

/* The path of a device, as query-block and events show it. */
void qom_device_path(const struct device *dev, char path[QOM_PATH_MAX]);

#endif
