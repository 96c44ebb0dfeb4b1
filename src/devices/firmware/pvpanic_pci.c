/*
 * pvpanic, PCI: the same register as pvpanic.c in memory BAR 0 of 1b36:0011.
 *
 * Source: QEMU docs/specs/pvpanic.txt, "PCI Interface". Nothing is left out.
 */
#include "pvpanic.h"
#include "vmm/pci.h"

struct pvpanic_pci {
	struct device dev;
	uint8_t events;
};

static uint64_t pvpanic_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return offset == 0 ? DEVICE(dev, struct pvpanic_pci)->events : 0;
}

static void pvpanic_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	if (offset == 0)
		pvpanic_report(dev, DEVICE(dev, struct pvpanic_pci)->events, value);
}

static const struct region_ops pvpanic_ops = {.read = pvpanic_read, .write = pvpanic_write, .max_access = 1};
static const struct region_desc pvpanic_regions[] = {
	{.name = "pvpanic", .space = SPACE_MMIO, .bar = 0, .size = 2, .ops = &pvpanic_ops},
};

static const struct prop pvpanic_props[] = {
	PROP(struct pvpanic_pci, events, PROP_U8, .def = PVPANIC_EVENTS, .max = PVPANIC_EVENTS,
	     .help = "events offered: 1 panicked, 2 crash loaded"),
	PROP_END,
};

static const struct pci_identity pvpanic_identity = {
	.vendor = 0x1b36,
	.device = 0x0011,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.revision = 1,
	.class_code = 0x088000,
	.bar = {{PCI_BAR_MEM32}},
};

DEVICE_CLASS(pvpanic_pci) = {
	.name = "pvpanic-pci",
	.summary = "lets the guest report a panic (PCI)",
	.bus = BUS_PCI,
	.category = "Misc",
	.size = sizeof(struct pvpanic_pci),
	.user_creatable = true,
	.hotpluggable = true,
	.props = pvpanic_props,
	.regions = pvpanic_regions,
	.n_regions = ARRAY_SIZE(pvpanic_regions),
	.pci = &pvpanic_identity,
	.stateless = "it has no registers of its own: an event is reported at once",
};
