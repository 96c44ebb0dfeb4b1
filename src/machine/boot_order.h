/* Boot order by bootindex= (boot_order.c). Private to the machine room. */
#ifndef VMM_MACHINE_BOOT_ORDER_H
#define VMM_MACHINE_BOOT_ORDER_H

#include "blob.h"
#include "vmm/machine.h"

/* The contents of fw_cfg's "bootorder": one OpenFirmware path per line, smallest bootindex first, "HALT" at the end
   when strict, then a NUL; empty when no device has a bootindex and not strict. Two devices with one index are refused.
 */
int boot_order_build(struct board *board, bool strict, struct blob *out, struct err *e);

#endif
