/* What the firmware is told through fw_cfg (firmware_items.c). Private to the machine room. */
#ifndef VMM_MACHINE_FIRMWARE_ITEMS_H
#define VMM_MACHINE_FIRMWARE_ITEMS_H

#include "board.h"

/* Publish RAM size, CPU counts, e820, boot order, ACPI and SMBIOS tables and -fw_cfg files. After all devices exist. */
int firmware_publish(struct board *b, struct err *e);
/* At a reset after devices or vCPUs came or went: what depends on them, for the firmware to find. */
int firmware_refresh(struct board *b, struct err *e);

#endif
