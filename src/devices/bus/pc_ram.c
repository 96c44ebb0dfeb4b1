/*
 * Guest RAM of the PC board as two regions of one block: from 0 up to the PCI hole, and the rest from 4 GiB. The host
 * bridge overlays the windows of VGA memory, option ROMs and BIOS (priority above ours).
 */
#include "vmm/device.h"

enum { RAM_LOW, RAM_HIGH };

static const struct region_desc pc_ram_regions[] = {
	[RAM_LOW] = {.name = "low", .space = SPACE_MMIO, .kind = REGION_RAM, .bar = REGION_NOT_BAR, .priority = -10},
	[RAM_HIGH] = {.name = "high",
		      .space = SPACE_MMIO,
		      .kind = REGION_RAM,
		      .base = 4 * GIB,
		      .bar = REGION_NOT_BAR,
		      .priority = -10},
};

static int pc_ram_create(struct device *dev, struct err *e)
{
	struct board *b = dev->board;

	(void)e;
	dev->regions[RAM_LOW].size = board_ram_below_4g(b);
	dev->regions[RAM_LOW].ram = board_ram(b);
	dev->regions[RAM_HIGH].size = board_ram_above_4g(b);
	dev->regions[RAM_HIGH].ram = board_ram(b);
	dev->regions[RAM_HIGH].ram_offset = board_ram_below_4g(b);
	return 0;
}

DEVICE_CLASS(pc_ram) = {
	.name = "pc-ram",
	.summary = "guest RAM below and above the PCI hole",
	.bus = BUS_SYSTEM,
	.category = "Misc",
	.size = sizeof(struct device),
	.regions = pc_ram_regions,
	.n_regions = ARRAY_SIZE(pc_ram_regions),
	.stateless = "its contents travel as a RAM block; where it sits follows from the machine description",
	.create = pc_ram_create,
};
