/* ACPI PCI hot-plug registers of the root bus (acpi_pci_hotplug.c), inside the power management function. */
#ifndef VMM_DEVICES_ACPI_PCI_HOTPLUG_H
#define VMM_DEVICES_ACPI_PCI_HOTPLUG_H

#include "vmm/hotplug.h"

#define PCI_HOTPLUG_BASE  0xae00
#define PCI_HOTPLUG_PORTS 0x18

struct pci_hotplug {
	struct board *board;
	bool legacy; /* acpi-pci-hotplug-with-bridge-support=off: no bus selector, "up" is not cleared by reading */
	/* guest-visible */
	uint32_t up, down; /* a bit per slot: inserted, to be ejected */
	uint32_t selector;
	uint32_t ejected; /* slots the guest gave up whose functions are still to go */
};

extern const struct state_table pci_hotplug_state;

void pci_hotplug_reset(struct pci_hotplug *h);
void pci_hotplug_settle(struct pci_hotplug *h); /* after a load: ejections the source had not carried out */
uint32_t pci_hotplug_read(struct pci_hotplug *h, unsigned offset);
void pci_hotplug_write(struct pci_hotplug *h, unsigned offset, uint32_t value);

#endif
