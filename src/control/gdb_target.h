/* The running machine as a struct gdb_target. */
#ifndef VMM_CONTROL_GDB_TARGET_H
#define VMM_CONTROL_GDB_TARGET_H

#include "gdb_private.h"
#include "vmm/debug.h"

struct gdb_machine;

struct gdb_machine *gdb_machine_new(struct board *b);
void gdb_machine_free(struct gdb_machine *m); /* removes every breakpoint; NULL-safe */
struct gdb_target gdb_machine_target(struct gdb_machine *m);
bool gdb_machine_is_wide(struct gdb_machine *m); /* its CPUs have long mode */
/* Why the machine has stopped in this state. */
struct gdb_stop gdb_machine_why(struct gdb_machine *m, enum run_state s, unsigned cpu);

#endif
