/*
 * Boot order: devices with bootindex=N, as the OpenFirmware device paths by which SeaBIOS recognises them.
 *
 * Source: SeaBIOS src/boot.c (the paths it builds); IEEE 1275 PCI and ISA bindings.
 */
#include "boot_order.h"
#include "vmm/pci.h"

#include <errno.h>
#include <stdio.h>

#define MAX_BOOT_DEVICES 64

struct boot_device {
	int32_t index;
	const struct device *dev;
	unsigned unit; /* of a floppy controller's own bootindexA/B */
};

static int32_t index_of(const struct device *dev, const char *name)
{
	const struct prop *p = dev->class->props ? prop_find(dev->class->props, name) : NULL;
	return p && p->type == PROP_I32 ? *(const int32_t *)((const char *)dev + p->offset) : -1;
}

/* Node name of a PCI function: by class where the binding names one, else by its ids. */
static char *pci_node(const struct device *dev)
{
	static const struct {
		uint16_t class;
		const char *name;
	} names[] = {{0x0100, "scsi"},     {0x0101, "ide"},     {0x0102, "fdc"}, {0x0106, "sata"}, {0x0108, "nvme"},
		     {0x0200, "ethernet"}, {0x0300, "display"}, {0x0601, "isa"}, {0x0c03, "usb"}};
	const uint8_t *cfg = dev->pci->config;
	uint16_t class = get_le16(cfg + 0x0a);
	unsigned slot = dev->pci->devfn >> 3, fn = dev->pci->devfn & 7;
	char function[8] = "", other[16];
	const char *name = other;
	if (fn)
		snprintf(function, sizeof(function), ",%x", fn);
	snprintf(other, sizeof(other), "pci%04x,%04x", get_le16(cfg), get_le16(cfg + 2));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].class == class)
			name = names[i].name;
	return xasprintf("/pci@i0cf8/%s@%x%s", name, slot, function);
}

/* NULL: a device no firmware boots from. */
static char *path_of(const struct boot_device *bd)
{
	const struct device *dev = bd->dev;
	char *node, *path;
	const char *dot = dev->bus_id ? strrchr(dev->bus_id, '.') : NULL;
	unsigned bus = dot && !strcmp(dot, ".1");
	unsigned unit = dev->unit > 0 ? dev->unit : 0;
	switch (dev->class->bus) {
	case BUS_IDE:
		node = dev->parent && dev->parent->pci ? pci_node(dev->parent) : xstrdup("/pci@i0cf8/ide@1,1");
		path = xasprintf("%s/drive@%x/disk@%x", node, bus, unit);
		break;
	case BUS_FLOPPY:
		return xasprintf("/pci@i0cf8/isa@1/fdc@03f0/floppy@%x", unit);
	case BUS_ISA:
	case BUS_SYSTEM:
		return xasprintf("/pci@i0cf8/isa@1/fdc@03f0/floppy@%x", bd->unit);
	case BUS_PCI:
		node = pci_node(dev);
		path = xasprintf("%s%s", node,
				 strstr(node, "/ethernet@") ? "/ethernet-phy@0"
				 : strstr(node, "/scsi@")   ? "/disk@0,0"
							    : "");
		break;
	default:
		return NULL;
	}
	free(node);
	return path;
}

static int insert(struct boot_device *list, unsigned *n, struct boot_device bd, struct err *e)
{
	unsigned at = *n;
	if (bd.index < 0)
		return 0;
	if (*n == MAX_BOOT_DEVICES)
		return err_set(e, ENOSPC, "device '%s': more than %d devices have a bootindex", bd.dev->id,
			       MAX_BOOT_DEVICES);
	while (at > 0 && list[at - 1].index > bd.index)
		at--;
	if (at > 0 && list[at - 1].index == bd.index)
		return err_set(e, EINVAL, "device '%s': bootindex=%d is taken by device '%s'", bd.dev->id, bd.index,
			       list[at - 1].dev->id);
	memmove(&list[at + 1], &list[at], (*n - at) * sizeof(*list));
	list[at] = bd;
	++*n;
	return 0;
}

int boot_order_build(struct board *board, bool strict, struct blob *out, struct err *e)
{
	struct boot_device list[MAX_BOOT_DEVICES];
	unsigned n = 0;
	int ret = 0;
	*out = (struct blob){0};
	for (const struct device *d = device_next(board, NULL); d && ret == 0;
	     d = device_next(board, (struct device *)d)) {
		ret = insert(list, &n, (struct boot_device){index_of(d, "bootindex"), d, 0}, e);
		if (ret == 0)
			ret = insert(list, &n, (struct boot_device){index_of(d, "bootindexA"), d, 0}, e);
		if (ret == 0)
			ret = insert(list, &n, (struct boot_device){index_of(d, "bootindexB"), d, 1}, e);
	}
	for (unsigned i = 0; i < n && ret == 0; i++) {
		char *path = path_of(&list[i]);
		if (path && out->len)
			blob_add(out, "\n", 1);
		if (path)
			blob_add(out, path, strlen(path));
		free(path);
	}
	if (ret == 0 && strict)
		blob_add(out, out->len ? "\nHALT" : "HALT", out->len ? 5 : 4);
	if (ret == 0 && out->len)
		blob_add(out, NULL, 1);
	return ret;
}
