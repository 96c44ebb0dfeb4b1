/*
 * The firmware ROM: mapped read-only so that its last byte is at 4 GiB - 1, where the CPU's reset vector is. The host
 * bridge shows its top 128 KiB below 1 MiB as well (PAM). Flash programming is left out: writes are ignored, as by a
 * write-protected part.
 */
#include "vmm/device.h"

static const struct region_desc pc_firmware_regions[] = {
	{.name = "rom", .space = SPACE_MMIO, .kind = REGION_ROM, .bar = REGION_NOT_BAR, .priority = 0},
};

static int pc_firmware_create(struct device *dev, struct err *e)
{
	struct ram_block *rom = board_firmware(dev->board);

	if (!rom)
		return err_set(e, 2, "this board has no firmware image");
	dev->regions[0].ram = rom;
	dev->regions[0].size = ram_block_size(rom);
	dev->regions[0].base = 4 * GIB - ram_block_size(rom);
	return 0;
}

DEVICE_CLASS(pc_firmware) = {
	.name = "pc-firmware",
	.summary = "system firmware ROM below 4 GiB",
	.bus = BUS_SYSTEM,
	.category = "Misc",
	.size = sizeof(struct device),
	.regions = pc_firmware_regions,
	.n_regions = ARRAY_SIZE(pc_firmware_regions),
	.stateless = "read-only; its contents travel as a RAM block",
	.create = pc_firmware_create,
};
