/*
 * vmcoreinfo: the fw_cfg file "etc/vmcoreinfo", into which a guest writes where its ELF note for dumps is. The file is
 * published with the firmware's; this device is the wish to have it.
 *
 * Source: QEMU docs/specs/vmcoreinfo.rst. Left out: nothing.
 */
#include "vmm/vmcoreinfo.h"

#include <errno.h>
#include "vmm/device.h"
#include "vmm/fw_cfg.h"

enum { GUEST_FORMAT = 2, SIZE = 4, ADDR = 8 }; /* offsets in the file, little-endian; 0: the host's format */

struct vmcoreinfo_device {
	struct device dev;
};

struct vmcoreinfo vmcoreinfo_get(struct board *board)
{
	uint8_t file[VMCOREINFO_SIZE];

	if (fw_cfg_read_file(board, VMCOREINFO_FILE, file, sizeof(file)) != sizeof(file))
		return (struct vmcoreinfo){.format = VMCOREINFO_NONE};
	return (struct vmcoreinfo){
		.format = get_le16(file + GUEST_FORMAT), .size = get_le32(file + SIZE), .addr = get_le64(file + ADDR)};
}

static int vmcoreinfo_create(struct device *dev, struct err *e)
{
	if (!device_find_class(dev->board, "fw_cfg_io"))
		return err_set(e, ENODEV, "vmcoreinfo device requires fw_cfg with DMA");
	for (struct device *d = NULL; (d = device_next(dev->board, d));)
		if (d != dev && d->class == dev->class)
			return err_set(e, EEXIST, "at most one vmcoreinfo device is permitted");
	return 0;
}

static const struct prop vmcoreinfo_props[] = {PROP_END};

DEVICE_CLASS(vmcoreinfo) = {
	.name = "vmcoreinfo",
	.summary = "lets the guest's kernel add its note to memory dumps",
	.bus = BUS_SYSTEM,
	.category = "Misc",
	.size = sizeof(struct vmcoreinfo_device),
	.user_creatable = true,
	.props = vmcoreinfo_props,
	.create = vmcoreinfo_create,
	.stateless = "what the guest writes is a file of fw_cfg's and travels with it",
};
