/*
 * Devices and vCPUs that come and go while the guest runs: what ties the board (src/machine/hotplug.c, cpus.c) to the
 * device that tells the guest, the ACPI power management (src/devices/bus/piix4_pm.c).
 *
 * A device that left (device_del of a PCI function after the guest's eject, of anything else at once) goes in four
 * steps, none of which waits: unmapped and off its bus; a grace period, after which no vCPU can be inside one of its
 * handlers; quiesced, after which nothing is in flight; destroyed, its back ends released, DEVICE_DELETED.
 */
#ifndef VMM_HOTPLUG_H
#define VMM_HOTPLUG_H

#include "vmm/device.h"

/* The notifying device's side. Main thread, with that device's lock held; leaf. */
struct hotplug_ops {
	bool (*pci_offered)(struct device *dev); /* slots of the root bus can be (un)plugged */
	void (*pci_inserted)(struct device *dev, unsigned slot);
	void (*pci_remove)(struct device *dev, unsigned slot); /* ask the guest to eject it */
	uint32_t (*pci_take_pending)(struct device *dev);      /* slots asked for and not ejected yet; forget them */
	void (*pci_gone)(struct device *dev, uint32_t slots);  /* what was ejected is no longer there */
	void (*cpu_inserted)(struct device *dev, unsigned index);
	int (*cpu_remove)(struct device *dev, unsigned index, struct err *e);
	bool (*cpu_take_pending)(struct device *dev, unsigned index);
	void (*cpu_gone)(struct device *dev, unsigned index);
	/* What the guest's last _OST said of a vCPU (0, 0: nothing); false: its ACPI code does not report. */
	bool (*cpu_ost)(struct device *dev, unsigned index, uint32_t *event, uint32_t *status);
};
/* In wire(). */
void machine_register_hotplug(struct device *dev, const struct hotplug_ops *ops);

/* ---- what the notifying device asks of the board: any thread, its lock held; leaf ---- */
/* The guest ejects a slot: its functions disappear from the bus at once and are destroyed by the main loop. */
void machine_eject_pci(struct board *board, unsigned slot);
uint32_t machine_removable_slots(const struct board *board); /* bit n: nothing in slot n is fixed to the board */
/* The guest ejects a vCPU: gone for the guest at once, stopped by the main loop. */
void machine_eject_cpu(struct board *board, unsigned index);
bool machine_cpu_present(const struct board *board, unsigned index);     /* for the guest: not ejected */
uint32_t machine_cpu_apic_id(const struct board *board, unsigned index); /* also of CPUs that are not present */
/* ACPI _OST for a CPU: ACPI_DEVICE_OST, and DEVICE_UNPLUG_GUEST_ERROR where it refuses an eject. */
void machine_cpu_ost(struct board *board, unsigned index, uint32_t event, uint32_t status);

/*
 * While on, what the guest ejects is gone for the guest but stays with the machine: somebody (a migration) counts on
 * its memory and its place in the description. It goes when the hold ends, or behind a migration at the destination.
 * Any thread.
 */
void machine_hold_devices(struct board *board, bool on);

/* True while a slot's functions wait for their destruction: configuration cycles find nothing there. Any thread. */
bool machine_slot_ejected(const struct board *board, unsigned slot);

#endif
