/*
 * 82441FX, its face towards the CPU: configuration mechanism #1. CONFIG_ADDRESS at port 0xCF8, CONFIG_DATA at 0xCFC.
 * It owns PCI bus 0 (src/devices/bus/pci.c); the chip's own configuration space is the function i440fx.c at 00:00.0.
 *
 * Source: Intel 82441FX data sheet (290549-001), section 3.1; PCI Local Bus Specification 3.0, section 3.2.2.3.
 * Left out: buses other than 0 (there is no bridge; their configuration reads are all ones) and special cycles (a write
 * with device 31, function 7, register 0 reaches no function: none may sit there and listen).
 */
#include "pci_bus.h"

#define CONFIG_ENABLE   0x80000000u
#define CONFIG_RESERVED 0x7f000003u

struct pcihost {
	struct pci_bus bus;
	uint32_t config_address;
};

/* Only a dword access reaches CONFIG_ADDRESS; smaller ones are ordinary port accesses (0xCF9 is the reset control). */
static uint64_t address_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct pcihost *h = DEVICE(dev, struct pcihost);
	if (size != 4 || offset != 0)
		return UINT64_MAX;
	return h->config_address;
}

static void address_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct pcihost *h = DEVICE(dev, struct pcihost);
	if (size == 4 && offset == 0)
		h->config_address = value & ~CONFIG_RESERVED;
}

/* The enable bit set and bus 0 addressed: *devfn and *reg say what. */
static bool decode(const struct pcihost *h, uint64_t offset, uint8_t *devfn, unsigned *reg)
{
	if (!(h->config_address & CONFIG_ENABLE) || (h->config_address >> 16 & 0xff) != 0)
		return false;
	*devfn = h->config_address >> 8;
	*reg = (h->config_address & 0xfc) + offset;
	return true;
}

static uint64_t data_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	struct pcihost *h = DEVICE(dev, struct pcihost);
	uint8_t devfn;
	unsigned reg;
	if (!decode(h, offset, &devfn, &reg))
		return UINT64_MAX;
	return pci_config_read(dev, devfn, reg, size);
}

static void data_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct pcihost *h = DEVICE(dev, struct pcihost);
	uint8_t devfn;
	unsigned reg;
	if (decode(h, offset, &devfn, &reg))
		pci_config_write(dev, devfn, reg, value, size);
}

static const struct region_ops address_ops = {.read = address_read, .write = address_write};
static const struct region_ops data_ops = {.read = data_read, .write = data_write};

static const struct region_desc pcihost_regions[] = {
	{.name = "pci-conf-idx",
	 .space = SPACE_PIO,
	 .base = 0xcf8,
	 .size = 4,
	 .bar = REGION_NOT_BAR,
	 .ops = &address_ops},
	{.name = "pci-conf-data",
	 .space = SPACE_PIO,
	 .base = 0xcfc,
	 .size = 4,
	 .bar = REGION_NOT_BAR,
	 .ops = &data_ops},
};

static void pcihost_reset(struct device *dev)
{
	DEVICE(dev, struct pcihost)->config_address = 0;
}

static const struct prop pcihost_props[] = {PROP_END};

static const struct state_field pcihost_fields[] = {
	STATE_U(struct pcihost, config_address),
	STATE_FIELDS_END,
};

static const struct state_table pcihost_state = {
	.name = "i440fx-pcihost",
	.version = 1,
	.oldest = 1,
	.fields = pcihost_fields,
};

DEVICE_CLASS(i440fx_pcihost) = {
	.name = "i440FX-pcihost",
	.summary = "82441FX host bridge: PCI configuration ports",
	.bus = BUS_SYSTEM,
	.category = "Controller/Bridge",
	.size = sizeof(struct pcihost),
	.props = pcihost_props,
	.regions = pcihost_regions,
	.n_regions = ARRAY_SIZE(pcihost_regions),
	.state = &pcihost_state,
	.reset = pcihost_reset,
};
