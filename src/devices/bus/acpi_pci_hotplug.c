/*
 * The registers through which the guest's ACPI code learns of PCI slots that were filled or shall be emptied: up, down,
 * eject, removability and the bus selector, 32 bits each.
 *
 * Source: QEMU docs/specs/acpi_pci_hotplug.rst. Left out: buses behind bridges (there are no bridges: selector 0 is
 * the root bus, another reads zeros) and the acpi-index register (reads as zero, "no index").
 */
#include "acpi_pci_hotplug.h"

enum { REG_UP = 0x00, REG_DOWN = 0x04, REG_EJECT = 0x08, REG_REMOVABLE = 0x0c, REG_SELECTOR = 0x10 };

void pci_hotplug_reset(struct pci_hotplug *h)
{
	h->up = h->down = h->selector = 0; /* what was ejected stays so */
}

void pci_hotplug_settle(struct pci_hotplug *h)
{
	for (unsigned slot = 0; slot < 32; slot++)
		if (h->ejected & BIT(slot))
			machine_eject_pci(h->board, slot);
}

uint32_t pci_hotplug_read(struct pci_hotplug *h, unsigned offset)
{
	uint32_t v;

	if (h->selector)
		return offset == REG_SELECTOR ? h->selector : 0;
	switch (offset) {
	case REG_UP:
		v = h->up;
		if (!h->legacy)
			h->up = 0;
		return v;
	case REG_DOWN:
		return h->down;
	case REG_REMOVABLE:
		return machine_removable_slots(h->board);
	default: /* REG_EJECT: no optional features */
		return 0;
	}
}

static void eject(struct pci_hotplug *h, uint32_t slots)
{
	unsigned slot;

	if (!slots)
		return;
	slot = (unsigned)__builtin_ctz(slots); /* one at a time, as _EJ0 asks */
	h->up &= ~BIT(slot);
	h->down &= ~BIT(slot);
	h->ejected |= BIT(slot) & machine_removable_slots(h->board);
	machine_eject_pci(h->board, slot);
}

void pci_hotplug_write(struct pci_hotplug *h, unsigned offset, uint32_t value)
{
	if (offset == REG_SELECTOR && !h->legacy)
		h->selector = value;
	else if (offset == REG_EJECT && !h->selector)
		eject(h, value);
}

static const struct state_field fields[] = {
	STATE_U(struct pci_hotplug, up),
	STATE_U(struct pci_hotplug, down),
	STATE_U(struct pci_hotplug, selector),
	STATE_U(struct pci_hotplug, ejected),
	STATE_FIELDS_END,
};

const struct state_table pci_hotplug_state = {.name = "acpi_pci_hotplug", .version = 1, .oldest = 1, .fields = fields};
