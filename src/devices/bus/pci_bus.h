/* What the host bridge and the bus share: the slot table. */
#ifndef BUS_PCI_BUS_H
#define BUS_PCI_BUS_H

#include "vmm/pci.h"

#define PCI_DEVFNS 256

/* First member of the host bridge's instance. `functions` is guarded by dev.lock. */
struct pci_bus {
	struct device dev;
	struct device *functions[PCI_DEVFNS];
};

#endif
