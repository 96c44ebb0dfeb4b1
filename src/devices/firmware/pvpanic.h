/* What the ISA and the PCI face of pvpanic share: the event bits. */
#ifndef FIRMWARE_PVPANIC_H
#define FIRMWARE_PVPANIC_H

#include "vmm/device.h"

#define PVPANIC_PANICKED    0x01
#define PVPANIC_CRASHLOADED 0x02
#define PVPANIC_EVENTS      (PVPANIC_PANICKED | PVPANIC_CRASHLOADED)

/* The guest reports `bits`; `offered` are those the device told it about. */
static inline void pvpanic_report(struct device *dev, uint8_t offered, uint8_t bits)
{
	if (bits & ~offered)
		log_guest(&dev->guest_log, "pvpanic", "event bits 0x%x are not offered", bits & ~offered);
	if (bits & offered & PVPANIC_PANICKED)
		machine_guest_panicked(dev->board, NULL);
	else if (bits & offered & PVPANIC_CRASHLOADED)
		machine_guest_crashloaded(dev->board);
}

#endif
