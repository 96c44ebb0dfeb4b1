/*
 * pvpanic, ISA: one port through which a guest says that it panicked (bit 0) or that a crash kernel took over (bit 1).
 * Reading tells which events are known. ACPI announces it as QEMU0001.
 *
 * Source: QEMU docs/specs/pvpanic.txt. Nothing is left out.
 */
#include "pvpanic.h"

struct pvpanic {
	struct device dev;
	uint16_t ioport;
	uint8_t events;
};

static uint64_t pvpanic_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return DEVICE(dev, struct pvpanic)->events;
}

static void pvpanic_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	pvpanic_report(dev, DEVICE(dev, struct pvpanic)->events, value);
}

static const struct region_ops pvpanic_ops = {.read = pvpanic_read, .write = pvpanic_write, .max_access = 1};
static const struct region_desc pvpanic_regions[] = {
	{.name = "pvpanic",
	 .space = SPACE_PIO,
	 .base_prop = "ioport",
	 .size = 1,
	 .bar = REGION_NOT_BAR,
	 .ops = &pvpanic_ops},
};

static const struct prop pvpanic_props[] = {
	PROP(struct pvpanic, ioport, PROP_U16, .def = 0x505, .help = "port"),
	PROP(struct pvpanic, events, PROP_U8, .def = PVPANIC_EVENTS, .max = PVPANIC_EVENTS,
	     .help = "events offered: 1 panicked, 2 crash loaded"),
	PROP_END,
};

DEVICE_CLASS(pvpanic) = {
	.name = "pvpanic",
	.summary = "lets the guest report a panic (ISA)",
	.bus = BUS_ISA,
	.category = "Misc",
	.size = sizeof(struct pvpanic),
	.user_creatable = true,
	.props = pvpanic_props,
	.regions = pvpanic_regions,
	.n_regions = ARRAY_SIZE(pvpanic_regions),
	.stateless = "it has no registers: an event is reported at once",
};
