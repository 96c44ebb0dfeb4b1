/* QMP: the PCI bus as the guest has set it up. There is one bus, and no bridge to another. */
#include <string.h>
#include "commands.h"
#include "vmm/pci.h"

static const struct qmp_type device_class =
	QMP_OBJECT("PciDeviceClass", QMP_OPT("desc", qmp_str), QMP_REQ("class", qmp_int));
static const struct qmp_type device_id =
	QMP_OBJECT("PciDeviceId", QMP_REQ("device", qmp_int), QMP_REQ("vendor", qmp_int), QMP_OPT("subsystem", qmp_int),
		   QMP_OPT("subsystem-vendor", qmp_int));
static const struct qmp_type region =
	QMP_OBJECT("PciMemoryRegion", QMP_REQ("bar", qmp_int), QMP_REQ("type", qmp_str), QMP_REQ("address", qmp_int),
		   QMP_REQ("size", qmp_int), QMP_OPT("prefetch", qmp_bool), QMP_OPT("mem_type_64", qmp_bool));
static const struct qmp_type device_info =
	QMP_OBJECT("PciDeviceInfo", QMP_REQ("bus", qmp_int), QMP_REQ("slot", qmp_int), QMP_REQ("function", qmp_int),
		   QMP_REQ("class_info", device_class), QMP_REQ("id", device_id), QMP_OPT("irq", qmp_int),
		   QMP_REQ("irq_pin", qmp_int), QMP_REQ("qdev_id", qmp_str), QMP_REQ("regions", QMP_LIST_OF(region)));
static const struct qmp_type pci_info =
	QMP_OBJECT("PciInfo", QMP_REQ("bus", qmp_int), QMP_REQ("devices", QMP_LIST_OF(device_info)));

enum { CFG_CLASS = 0x0a, CFG_BAR0 = 0x10, CFG_SUBSYS_VENDOR = 0x2c, CFG_SUBSYS = 0x2e, CFG_ROM = 0x30 };
enum { BAR_IO = 1, BAR_64 = 4, BAR_PREFETCH = 8, ROM_BAR = 6 };

/* PCI Code and ID Assignment Specification, the classes this board can have. */
static const char *class_name(uint16_t class)
{
	static const struct {
		uint16_t class;
		const char *name;
	} names[] = {
		{0x0000, "Undefined"},
		{0x0100, "SCSI controller"},
		{0x0101, "IDE controller"},
		{0x0106, "SATA controller"},
		{0x0180, "Storage controller"},
		{0x0200, "Ethernet controller"},
		{0x0300, "VGA controller"},
		{0x0380, "Display controller"},
		{0x0401, "Audio controller"},
		{0x0403, "Audio controller"},
		{0x0500, "RAM controller"},
		{0x0600, "Host bridge"},
		{0x0601, "ISA bridge"},
		{0x0604, "PCI bridge"},
		{0x0680, "Bridge"},
		{0x0780, "Communication controller"},
		{0x0880, "System peripheral"},
		{0x0c03, "USB controller"},
		{0x0c05, "SMBus"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].class == class)
			return names[i].name;
	return NULL;
}

/* Size of a BAR out of the bits the guest can write; 0: there is none. */
static uint64_t bar_size(const struct pci_function *f, unsigned reg, bool wide)
{
	bool io = reg != CFG_ROM && f->config[reg] & BAR_IO;
	uint64_t mask = get_le32(f->wmask + reg) & (reg == CFG_ROM ? ~0x7ffu : io ? ~3u : ~0xfu);

	if (wide)
		mask |= (uint64_t)get_le32(f->wmask + reg + 4) << 32;
	else if (mask)
		mask |= 0xffffffffull << 32;
	return mask ? ~mask + 1 : 0;
}

static uint64_t bar_address(const struct pci_function *f, unsigned reg, bool wide)
{
	uint16_t command = get_le16(f->config + PCI_COMMAND_REG);
	uint32_t low = get_le32(f->config + reg);
	uint64_t addr;

	if (reg == CFG_ROM)
		return command & PCI_CMD_MEM && low & 1 ? low & ~0x7ffu : UINT64_MAX;
	if (low & BAR_IO)
		return command & PCI_CMD_IO ? low & ~3u : UINT64_MAX;
	addr = (low & ~0xfu) | (wide ? (uint64_t)get_le32(f->config + reg + 4) << 32 : 0);
	return command & PCI_CMD_MEM ? addr : UINT64_MAX;
}

static json_t *describe_bars(const struct pci_function *f)
{
	json_t *list = json_array();

	for (unsigned n = 0; n <= ROM_BAR; n++) {
		unsigned reg = n == ROM_BAR ? CFG_ROM : CFG_BAR0 + 4 * n;
		bool io = n != ROM_BAR && f->config[reg] & BAR_IO;
		bool wide = n != ROM_BAR && !io && f->config[reg] & BAR_64;
		uint64_t size = bar_size(f, reg, wide);
		json_t *o;

		if (!size)
			continue;
		o = json_pack("{s:i, s:s, s:I, s:I}", "bar", (int)n, "type", io ? "io" : "memory", "address",
			      (json_int_t)bar_address(f, reg, wide), "size", (json_int_t)size);
		if (!io) {
			json_object_set_new(o, "prefetch", json_boolean(n != ROM_BAR && f->config[reg] & BAR_PREFETCH));
			json_object_set_new(o, "mem_type_64", json_boolean(wide));
		}
		json_array_append_new(list, o);
		n += wide;
	}
	return list;
}

static json_t *describe_function(struct device *dev)
{
	const struct pci_function *f = dev->pci;
	uint16_t class = get_le16(f->config + CFG_CLASS);
	json_t *o = json_pack("{s:i, s:i, s:i, s:{s:i}, s:{s:i, s:i}, s:i, s:o, s:o}", "bus", 0, "slot", f->devfn >> 3,
			      "function", f->devfn & 7, "class_info", "class", class, "id", "device",
			      get_le16(f->config + 2), "vendor", get_le16(f->config), "irq_pin", f->config[PCI_INT_PIN],
			      "qdev_id", qmp_text(dev->user_id ? dev->id : ""), "regions", describe_bars(f));

	if (class_name(class))
		json_object_set_new(json_object_get(o, "class_info"), "desc", json_string(class_name(class)));
	if (get_le16(f->config + CFG_SUBSYS_VENDOR)) {
		json_t *id = json_object_get(o, "id");

		json_object_set_new(id, "subsystem", json_integer(get_le16(f->config + CFG_SUBSYS)));
		json_object_set_new(id, "subsystem-vendor", json_integer(get_le16(f->config + CFG_SUBSYS_VENDOR)));
	}
	if (f->config[PCI_INT_PIN])
		json_object_set_new(o, "irq", json_integer(f->config[PCI_INT_LINE]));
	return o;
}

static json_t *query_pci(struct qmp_call *call, struct err *e)
{
	struct device *bus = device_find_class(call->board, "i440FX-pcihost");
	json_t *list = json_array();

	if (!bus)
		return list;
	for (unsigned devfn = 0; devfn < 256; devfn++) {
		struct device *dev = pci_find(bus, (uint8_t)devfn);

		if (!dev)
			continue;
		pthread_mutex_lock(dev->lock);
		json_array_append_new(list, describe_function(dev));
		pthread_mutex_unlock(dev->lock);
	}
	return json_pack("[{s:i, s:o}]", "bus", 0, "devices", list);
}

const struct qmp_command qmp_pci_commands[] = {
	{"query-pci", "PCI functions with their addresses as the guest has set them.", "0.2", NULL,
	 &QMP_LIST_OF(pci_info), 0, 0, query_pci},
	{NULL},
};
