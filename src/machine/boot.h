/* Direct kernel boot: -kernel without firmware (boot*.c). Private to the machine room. */
#ifndef VMM_MACHINE_BOOT_H
#define VMM_MACHINE_BOOT_H

#include "board.h"

/* Read and check the kernel and initrd while the file system is still open. 0 when there is no -kernel. */
int boot_direct_prepare(struct board *b, struct err *e);
/* At every reset, after the devices have settled and the vCPUs were reset: put the images, the boot structures and the ACPI tables
   into guest RAM and give the boot CPU its start state. 0 when there is no -kernel. */
int boot_direct_load(struct board *b, struct err *e);
void boot_direct_free(struct board *b);

#endif
