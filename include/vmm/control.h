/* The control plane: QMP servers and the qtest server (src/control/). Main thread. */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include "vmm/device.h"

/* Open what -qmp, -qmp-pretty, -mon and -qtest ask for and serve it on the main loop. Before the machine starts. */
int control_start(struct board *board, struct err *e);
/* Close all monitors, flushing what they still have to send. NULL-safe, idempotent. */
void control_stop(void);

#endif
