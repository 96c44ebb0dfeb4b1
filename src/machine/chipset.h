/* Direct kernel boot: the chip set as a BIOS would leave it (chipset.c). Private to the machine room. */
#ifndef VMM_MACHINE_CHIPSET_H
#define VMM_MACHINE_CHIPSET_H

#include "vmm/machine.h"

/*
 * Set up the chip set through its own registers: DRAM at 0xC0000-0xFFFFF, power management ports at 0x600, PCI
 * interrupt routing, IDE decoding, BARs and interrupt lines of every PCI function. Main thread, vCPUs paused, after the
 * devices have settled; no device lock held.
 */
void chipset_setup(struct board *board);

#endif
