/*
 * A port that ends the process: for guests that are tests. A write of v ends vmm with exit status (v << 1) | 1, so that
 * 0 stays the mark of an ordinary end.
 *
 * Source: QEMU's isa-debug-exit. Nothing is left out.
 */
#include "vmm/device.h"

#include <errno.h>

struct debugexit {
	struct device dev;
	uint32_t iobase, iosize;
};

static uint64_t debugexit_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return 0;
}

static void debugexit_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	machine_request_exit(dev->board, ((uint32_t)value << 1 | 1) & 0xff);
}

static const struct region_ops debugexit_ops = {.read = debugexit_read, .write = debugexit_write};
static const struct region_desc debugexit_regions[] = {
	{.name = "debug-exit", .space = SPACE_PIO, .base_prop = "iobase", .bar = REGION_NOT_BAR, .ops = &debugexit_ops},
};

static int debugexit_create(struct device *dev, struct err *e)
{
	struct debugexit *d = DEVICE(dev, struct debugexit);
	if (d->iobase + d->iosize > 0x10000)
		return err_set(e, EINVAL, "isa-debug-exit: iobase=0x%x and iosize=%u reach beyond port 0xffff",
			       d->iobase, d->iosize);
	dev->regions[0].size = d->iosize;
	return 0;
}

static const struct prop debugexit_props[] = {
	PROP(struct debugexit, iobase, PROP_U32, .def = 0x501, .max = 0xffff, .help = "first port"),
	PROP(struct debugexit, iosize, PROP_U32, .def = 2, .min = 1, .max = 16, .help = "number of ports"),
	PROP_END,
};

DEVICE_CLASS(debugexit) = {
	.name = "isa-debug-exit",
	.summary = "a port that ends the process with a status",
	.bus = BUS_ISA,
	.category = "Misc",
	.size = sizeof(struct debugexit),
	.user_creatable = true,
	.props = debugexit_props,
	.regions = debugexit_regions,
	.n_regions = ARRAY_SIZE(debugexit_regions),
	.stateless = "it has no registers: a write ends the process",
	.create = debugexit_create,
};
