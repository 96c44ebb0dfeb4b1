/*
 * PCI functions. The PCI bus (src/devices/bus/pci.c) keeps the 256-byte configuration space of each function: standard
 * header with write masks, BARs mapped as regions, capabilities, INTx through the PIRQ swizzle, MSI and MSI-X. Its
 * state travels in a section of its own ("ID.pci"), so a device's state table holds only what is behind the BARs.
 * Source: PCI Local Bus Specification 3.0, chapter 6.
 *
 * The bus is the host bridge device, class "i440FX-pcihost" (src/devices/bus/i440fx_pcihost.c): the `bus` argument
 * below.
 *
 * Locks: the bus's lock (the host bridge's device lock) guards the slot table and CONFIG_ADDRESS. A configuration cycle
 * comes in with the bus's lock held and takes the lock of the function it addresses. Order: lifecycle > host bridge >
 * function > leaf. No function ever calls the host bridge, so the order cannot turn around.
 *
 * Creation, by the device core: pci_attach(), class->create(), pci_realize(); then pci_function_reset() and
 * pci_function_settle() before the class's own reset and settle. On the way out pci_detach(), a grace period,
 * destroy(), pci_free().
 */
#ifndef VMM_PCI_H
#define VMM_PCI_H

#include "vmm/device.h"

enum pci_bar_kind { PCI_BAR_IO = 1, PCI_BAR_MEM32, PCI_BAR_MEM32_PREFETCH, PCI_BAR_MEM64_PREFETCH };

struct pci_bar_desc {
	enum pci_bar_kind kind; /* 0: no BAR; sizes come from the region with this .bar (rounded to a power of two) */
};

struct pci_identity {
	uint16_t vendor, device;
	uint16_t subsystem_vendor, subsystem;
	uint8_t revision;
	uint32_t class_code; /* 24 bits: class, subclass, prog-if */
	uint8_t int_pin;     /* 0 none, 1..4 = INTA..INTD */
	bool bridge_like;    /* no subsystem IDs (header type 0 all the same) */
	/* A region with .bar = n lies in BAR n at offset desc->base; the bus maps it, the device never enables it. */
	struct pci_bar_desc bar[6];
	bool rom_bar;         /* expansion ROM BAR, from string property "romfile" (NULL or "": no ROM) */
	uint8_t msix_vectors; /* 0 none; table and PBA live in BAR msix_bar, added by the bus */
	uint8_t msix_bar;
	bool msi;
};

struct pci_function {
	struct device *dev;
	uint8_t devfn; /* slot << 3 | function */
	uint8_t config[256];
	/* Writable and write-1-to-clear bits. A device adds its own registers (0x40 up start read-only) in create(). */
	uint8_t wmask[256];
	uint8_t w1cmask[256];
	/* After a configuration write took effect; lock held. The bus has handled BARs, command, MSI. Optional, set in
	 * create. */
	void (*config_written)(struct device *dev, unsigned offset, unsigned size);
	/* Before a read is answered (registers that change by themselves). Optional. */
	void (*config_read)(struct device *dev, unsigned offset, unsigned size);
	/* What the class's identity offers and this instance does without; create() may set them. */
	uint8_t absent_bars;  /* bit n: no BAR n */
	uint8_t msix_vectors; /* starts as the class's number; fewer, or 0: no MSI-X */
	void *bus_private;
};

/* Offsets a device looks at often */
enum { PCI_VENDOR = 0x00, PCI_COMMAND_REG = 0x04, PCI_STATUS_REG = 0x06, PCI_INT_LINE = 0x3c, PCI_INT_PIN = 0x3d };
enum { PCI_CMD_IO = 1, PCI_CMD_MEM = 2, PCI_CMD_MASTER = 4, PCI_CMD_INTX_OFF = 0x400 };

/* Command register bit 2. Any thread, no lock needed. */
bool pci_bus_master(const struct device *dev);
/* Set that bit on behalf of a guest whose driver forgot to. Device's lock held. */
void pci_enable_bus_master(struct device *dev);
/* Drive INTx of this function (dev->irq[0] is wired to it); honours command bit 10 and status bit 3. Leaf. */
void pci_set_intx(struct device *dev, bool level);
/* Add a capability of `len` bytes in create(): returns its offset, or -ENOSPC. */
int pci_add_capability(struct device *dev, uint8_t id, uint8_t len);
/* Send MSI-X vector / MSI (vector 0); nothing when disabled; a masked MSI-X vector becomes pending and is sent when
   it is unmasked. Device's lock held; otherwise leaf. */
void pci_msix_notify(struct device *dev, unsigned vector);
/* As the guest has set them. Device's lock held. */
bool pci_msix_enabled(const struct device *dev);
bool pci_msi_enabled(const struct device *dev);

/* ---- the bus's own interface to the machine, ACPI and hot-plug ---- */
/* Give a new BUS_PCI device its slot and configuration space (dev->pci), before create(). addr: device << 3 | function,
   or -1 for the first free device. Function 0 is marked multifunction while its device has other functions. Main
   thread, no device lock held. -EBUSY (message names the occupant), -EINVAL, -ENOSPC. */
int pci_attach(struct device *bus, struct device *dev, int32_t addr, struct err *e);
/* After create(): size the BARs, load the expansion ROM, keep the configuration space as the power-on values. */
int pci_realize(struct device *dev, struct err *e);
/* Unmap the BARs and leave the slot. dev->pci stays valid: a vCPU may still be inside a handler. Main thread, no lock.
 */
void pci_detach(struct device *dev);
/* After a grace period: release dev->pci. NULL-safe for a device that was never attached. */
void pci_free(struct device *dev);
/* Reset the configuration space to power-on values (BARs are unmapped by the settle that follows). Device's lock held.
 */
void pci_function_reset(struct device *dev);
/* After all devices were reset or loaded: map BARs as the command register says, drive INTx. Device's lock held. */
void pci_function_settle(struct device *dev);
extern const struct state_table pci_function_state;         /* obj: struct pci_function */
struct device *pci_find(struct device *bus, uint8_t devfn); /* NULL if empty; main thread or bus's lock held */
/* Configuration cycles: the host bridge's CONFIG_DATA port. Bus's lock held. Absent functions read as all ones. */
uint32_t pci_config_read(struct device *bus, uint8_t devfn, unsigned offset, unsigned size);
void pci_config_write(struct device *bus, uint8_t devfn, unsigned offset, uint32_t value, unsigned size);

#endif
