/* The gdb stub: -gdb DEV, -s, and at run time. Main thread. */
#ifndef VMM_CONTROL_GDBSTUB_H
#define VMM_CONTROL_GDBSTUB_H

#include "vmm/err.h"

struct board;

/* Serve gdb on a character device as -gdb names it ("tcp::1234", "unix:PATH", "chardev:ID"); "none": stop serving. An
   earlier one is replaced. */
int gdbstub_start(struct board *b, const char *device, struct err *e);
void gdbstub_stop(void);
/* The machine stopped; from the STOP event. */
void gdbstub_on_stop(void);

#endif
