/*
 * 82371SB PIIX3, function 0: PCI-to-ISA bridge. Routes PIRQA-D to ISA interrupts and resets the board through port
 * 0xCF9. The ISA chips it contains (8259s with ELCR, 8237s, 8254, port 61h) are devices of their own, as is the IDE
 * function.
 *
 * Source: Intel 82371FB/82371SB data sheet (290550-002), sections 2.2 and 2.5.
 * Left out: the decode enables (XBCS, PCSC, MBIRQ, MBDMA, TOM) and the SMI generator keep what is written without
 * effect: the ISA ports are always decoded, and there is no SMM. Port 0xF0 (FERR# acknowledge) is not decoded because
 * KVM reports x87 errors to the guest as exceptions only, so IRQ 13 never rises. A soft reset (SRST = 0) resets the
 * whole board.
 */
#include "vmm/pci.h"

enum {
	IORT = 0x4c,
	XBCS = 0x4e,
	PIRQRC = 0x60,
	TOM = 0x69,
	MSTAT = 0x6a,
	MBIRQ0 = 0x70,
	MBIRQ1 = 0x71,
	MBDMA = 0x76,
	PCSC = 0x78,
	APICBASE = 0x80,
	DLC = 0x82,
	SMICNTL = 0xa0,
	SMIEN = 0xa2,
	SEE = 0xa4,
	FTMR = 0xa8,
	SMIREQ = 0xaa,
	CTLTMR = 0xac,
	CTHTMR = 0xae,
};

#define PIRQ_DISABLED 0x80
#define PIRQ_IRQ      0x0f
/* IRQs a PIRQ may be routed to: 3-7, 9-12, 14, 15 (290550-002, PIRQRC) */
#define PIRQ_ALLOWED 0xdef8

#define RCR_SRST 0x02
#define RCR_RCPU 0x04

struct piix3 {
	struct device dev;
	uint8_t rcr;
};

static uint64_t rcr_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return DEVICE(dev, struct piix3)->rcr;
}

/* RCPU going from 0 to 1 resets; the bit itself never reads back as 1 because the chip is reset too. */
static void rcr_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	DEVICE(dev, struct piix3)->rcr = value & RCR_SRST;
	if (value & RCR_RCPU)
		machine_request_reset(dev->board, SHUTDOWN_GUEST_RESET);
}

static const struct region_ops rcr_ops = {.read = rcr_read, .write = rcr_write, .max_access = 1};

/* Inside the host bridge's dword port 0xCF8, which only decodes dwords. */
static const struct region_desc piix3_regions[] = {
	{.name = "reset-control",
	 .space = SPACE_PIO,
	 .base = 0xcf9,
	 .size = 1,
	 .bar = REGION_NOT_BAR,
	 .priority = 1,
	 .ops = &rcr_ops},
};

static void route(struct device *dev)
{
	for (unsigned pirq = 0; pirq < 4; pirq++) {
		uint8_t v = dev->pci->config[PIRQRC + pirq];
		int irq = v & PIRQ_IRQ;
		irq_route_pirq(dev, pirq, v & PIRQ_DISABLED || !(PIRQ_ALLOWED & BIT(irq)) ? -1 : irq);
	}
}

static void config_written(struct device *dev, unsigned offset, unsigned size)
{
	if (offset < PIRQRC + 4 && offset + size > PIRQRC)
		route(dev);
}

static int piix3_create(struct device *dev, struct err *e)
{
	struct pci_function *f = dev->pci;
	static const struct {
		uint8_t reg, value, wmask;
	} init[] = {
		{PCI_COMMAND_REG, 0x07, 0x08}, /* I/O, memory and mastering are always on; special cycles selectable */
		{PCI_COMMAND_REG + 1, 0x00, 0x00},
		{PCI_STATUS_REG, 0x00, 0x00},
		{PCI_STATUS_REG + 1, 0x02, 0x00},
		{IORT, 0x4d, 0x7f},
		{XBCS, 0x03, 0xff},
		{XBCS + 1, 0x00, 0x03},
		{PIRQRC + 0, PIRQ_DISABLED, 0x8f},
		{PIRQRC + 1, PIRQ_DISABLED, 0x8f},
		{PIRQRC + 2, PIRQ_DISABLED, 0x8f},
		{PIRQRC + 3, PIRQ_DISABLED, 0x8f},
		{TOM, 0x02, 0xfe},
		{MSTAT, 0x00, 0x00},
		{MSTAT + 1, 0x00, 0x80},
		{MBIRQ0, 0x80, 0xef},
		{MBIRQ1, 0x80, 0xef},
		{MBDMA, 0x0c, 0x8f},
		{MBDMA + 1, 0x0c, 0x8f},
		{PCSC, 0x02, 0xff},
		{PCSC + 1, 0x00, 0xff},
		{APICBASE, 0x00, 0x7f},
		{DLC, 0x00, 0x0f},
		{SMICNTL, 0x08, 0x1f},
		{SMIEN, 0x00, 0xff},
		{SMIEN + 1, 0x00, 0x01},
		{SEE, 0x00, 0xff},
		{SEE + 1, 0x00, 0xff},
		{SEE + 2, 0x00, 0x00},
		{SEE + 3, 0x00, 0xe0},
		{FTMR, 0x0f, 0xff},
		{SMIREQ, 0x00, 0xff},
		{SMIREQ + 1, 0x00, 0x01},
		{CTLTMR, 0x00, 0xff},
		{CTHTMR, 0x00, 0xff},
	};
	for (unsigned i = 0; i < ARRAY_SIZE(init); i++) {
		f->config[init[i].reg] = init[i].value;
		f->wmask[init[i].reg] = init[i].wmask;
	}
	f->wmask[PCI_INT_LINE] = 0;
	f->config_written = config_written;
	return 0;
}

static void piix3_reset(struct device *dev)
{
	DEVICE(dev, struct piix3)->rcr = 0;
}

static const struct prop piix3_props[] = {PROP_END};

static const struct state_field piix3_fields[] = {
	STATE_U_MAX(struct piix3, rcr, RCR_SRST),
	STATE_FIELDS_END,
};

static const struct state_table piix3_state = {
	.name = "piix3",
	.version = 1,
	.oldest = 1,
	.fields = piix3_fields,
};

static const struct pci_identity piix3_pci = {
	.vendor = 0x8086,
	.device = 0x7000,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.class_code = 0x060100,
};

DEVICE_CLASS(piix3) = {
	.name = "PIIX3",
	.summary = "82371SB PCI-to-ISA bridge: PIRQ routing, reset control",
	.bus = BUS_PCI,
	.category = "Controller/Bridge",
	.size = sizeof(struct piix3),
	.props = piix3_props,
	.regions = piix3_regions,
	.n_regions = ARRAY_SIZE(piix3_regions),
	.pci = &piix3_pci,
	.state = &piix3_state,
	.create = piix3_create,
	.reset = piix3_reset,
	.settle = route,
};
