/* From the short options (-drive, -serial, -vga ...) to back ends and devices. Private to the machine room. */
#ifndef VMM_MACHINE_SUGAR_H
#define VMM_MACHINE_SUGAR_H

#include "board.h"

/* Open what devices will claim: -add-fd, -chardev, -netdev, -blockdev, -drive. */
/* -object: before anything that may refer to one. */
int sugar_create_objects(struct board *b, struct err *e);
int sugar_open_backends(struct board *b, struct err *e);
/* -netdev, and what -nic and -net stand for (sugar_net.c). */
int sugar_open_nets(struct board *b, struct err *e);
int sugar_create_nics(struct board *b, struct err *e);
/* Options of the floppy controller: its drives. */
void sugar_fdc_options(struct board *b, struct opts *o);
/* -rtc as options of the clock. */
void sugar_rtc_options(struct board *b, struct opts *o);
/* Create the devices short options and defaults stand for. */
int sugar_create(struct board *b, struct err *e);

#endif
