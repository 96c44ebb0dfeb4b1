/*
 * 82441FX PMC, the function at 00:00.0: DRAM controller with the PAM and SMRAM windows.
 *
 * The seven PAM registers say for each of 13 segments between 0xC0000 and 0xFFFFF whether reads and writes go to DRAM
 * or to PCI. What lies on PCI there is the top of the firmware ROM (0xE0000 up) and nothing (below). A region per
 * segment shows the result; SeaBIOS copies itself into the DRAM underneath and then write-protects it.
 *
 * Source: Intel 82441FX data sheet (290549-001), section 3.2. Identity and subsystem as QEMU's pc.
 * Left out: SMM itself, because KVM need not offer it: SMRAM opens for everybody or for nobody, and D_CLS has no
 * effect; the USWC and cache timing registers (50-58, 70-71) hold what is written and change nothing; ECC and error
 * commands (90-91): there are no errors to report; the soft reset of TRC resets the whole board.
 */
#include "vmm/pci.h"

#include <errno.h>

enum {
	PMCCFG = 0x50,
	DETURBO = 0x52,
	DBC = 0x53,
	AXC = 0x54,
	DRT = 0x55,
	DRAMC = 0x57,
	DRAMT = 0x58,
	PAM0 = 0x59,
	PAM6 = 0x5f,
	DRB0 = 0x60,
	FDHC = 0x68,
	MTT = 0x70,
	CLT = 0x71,
	SMRAM = 0x72,
	ERRCMD = 0x90,
	ERRSTS = 0x91,
	TRC = 0x93,
};

#define PAM_RE 1
#define PAM_WE 2

#define SMRAM_D_OPEN  0x40
#define SMRAM_D_CLS   0x20
#define SMRAM_D_LCK   0x10
#define SMRAM_ENABLE  0x08
#define SMRAM_BASESEG 0x02

#define TRC_RCPU 0x04

#define DRB_ROWS 8
#define DRB_UNIT (8 * MIB)

#define PAM_REGISTERS (PAM6 - PAM0 + 1)
#define PAM_SEGMENTS  13
#define REGION_SMRAM  PAM_SEGMENTS

struct i440fx {
	struct device dev;
	uint8_t windows[PAM_REGISTERS]; /* copy of PAM0..6, which the chip keeps through S3 */
};

static uint64_t pam_read(struct device *dev, struct region *r, uint64_t offset, unsigned size)
{
	return UINT64_MAX; /* no one answers on PCI */
}

/* Segments whose reads come from PCI: see segment_update(). */
static void pam_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size);

/* The window itself: no DRAM at 0xA0000 for anybody, whether or not there is a VGA adapter in front. */
static void hole_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
}

static const struct region_ops hole_ops = {.read = pam_read, .write = hole_write, .max_access = 8};
static const struct region_ops pam_ops = {.read = pam_read, .write = pam_write, .max_access = 8};

#define PAM_REGION(nm, at, sz)                                                                                     \
	{                                                                                                          \
		.name = nm, .space = SPACE_MMIO, .kind = REGION_IO, .base = at, .size = sz, .bar = REGION_NOT_BAR, \
		.priority = 5, .ops = &pam_ops                                                                     \
	}
static const struct region_desc i440fx_regions[] = {
	PAM_REGION("pam-f0000", 0xf0000, 0x10000), /* PAM0, high nibble; its low nibble is reserved */
	PAM_REGION("pam-c0000", 0xc0000, 0x4000),
	PAM_REGION("pam-c4000", 0xc4000, 0x4000),
	PAM_REGION("pam-c8000", 0xc8000, 0x4000),
	PAM_REGION("pam-cc000", 0xcc000, 0x4000),
	PAM_REGION("pam-d0000", 0xd0000, 0x4000),
	PAM_REGION("pam-d4000", 0xd4000, 0x4000),
	PAM_REGION("pam-d8000", 0xd8000, 0x4000),
	PAM_REGION("pam-dc000", 0xdc000, 0x4000),
	PAM_REGION("pam-e0000", 0xe0000, 0x4000),
	PAM_REGION("pam-e4000", 0xe4000, 0x4000),
	PAM_REGION("pam-e8000", 0xe8000, 0x4000),
	PAM_REGION("pam-ec000", 0xec000, 0x4000),
	{.name = "smram",
	 .space = SPACE_MMIO,
	 .kind = REGION_RAM,
	 .base = 0xa0000,
	 .size = 0x20000,
	 .bar = REGION_NOT_BAR,
	 .priority = 5,
	 .disabled = true},
	{.name = "vga-window",
	 .space = SPACE_MMIO,
	 .kind = REGION_IO,
	 .base = 0xa0000,
	 .size = 0x20000,
	 .bar = REGION_NOT_BAR,
	 .priority = -5,
	 .ops = &hole_ops},
};

/* RE and WE of segment n: PAM0's high nibble, then PAM1..6, low nibble first. */
static unsigned segment_attr(const struct device *dev, unsigned n)
{
	unsigned nibble = n + 1;
	uint8_t v = dev->pci->config[PAM0 + nibble / 2];
	return (nibble & 1 ? v >> 4 : v) & (PAM_RE | PAM_WE);
}

static void pam_write(struct device *dev, struct region *r, uint64_t offset, uint64_t value, unsigned size)
{
	struct ram_block *ram = board_ram(dev->board);
	if (!(segment_attr(dev, r - dev->regions) & PAM_WE))
		return; /* the ROM does not listen */
	put_le((uint8_t *)ram_block_ptr(ram) + r->base + offset, value, size);
	ram_block_mark_dirty(ram, r->base + offset, size);
}

/* Reads of the segment come from PCI: the firmware ROM's top 128 KiB, or nothing. */
static void segment_show_pci(struct region *r)
{
	struct ram_block *rom = board_firmware(r->dev->board);
	uint64_t from_top = MIB - r->base;
	if (rom && r->base >= 0xe0000 && ram_block_size(rom) >= from_top)
		region_set_kind(r, REGION_ROM, rom, ram_block_size(rom) - from_top);
	else
		region_set_kind(r, REGION_IO, NULL, 0);
}

static void segment_update(struct device *dev, unsigned n)
{
	struct region *r = &dev->regions[n];
	struct ram_block *ram = board_ram(dev->board);
	switch (segment_attr(dev, n)) {
	case PAM_RE | PAM_WE:
		region_set_kind(r, REGION_RAM, ram, r->base);
		break;
	case PAM_RE:
		region_set_kind(r, REGION_ROM, ram, r->base);
		break;
	default: /* write-only and disabled differ in pam_write() */
		segment_show_pci(r);
		break;
	}
	region_enable(r, true);
}

static void windows_update(struct device *dev)
{
	uint8_t smram = dev->pci->config[SMRAM];
	memcpy(DEVICE(dev, struct i440fx)->windows, dev->pci->config + PAM0, PAM_REGISTERS);
	region_batch_begin(dev);
	for (unsigned n = 0; n < PAM_SEGMENTS; n++)
		segment_update(dev, n);
	region_set_kind(&dev->regions[REGION_SMRAM], REGION_RAM, board_ram(dev->board), 0xa0000);
	region_enable(&dev->regions[REGION_SMRAM],
		      (smram & (SMRAM_ENABLE | SMRAM_D_OPEN)) == (SMRAM_ENABLE | SMRAM_D_OPEN));
	region_batch_end(dev);
}

/* D_LCK closes SMRAM and makes the register read-only until the next reset. */
static void smram_lock(struct device *dev)
{
	uint8_t *smram = &dev->pci->config[SMRAM];
	bool locked = *smram & SMRAM_D_LCK;
	if (locked)
		*smram &= ~SMRAM_D_OPEN;
	dev->pci->wmask[SMRAM] = locked ? 0 : SMRAM_D_OPEN | SMRAM_D_CLS | SMRAM_D_LCK | SMRAM_ENABLE;
}

static void config_written(struct device *dev, unsigned offset, unsigned size)
{
	unsigned end = offset + size;
	if (offset <= SMRAM && end > SMRAM)
		smram_lock(dev);
	if ((offset <= PAM6 && end > PAM0) || (offset <= SMRAM && end > SMRAM))
		windows_update(dev);
	if (offset <= TRC && end > TRC && dev->pci->config[TRC] & TRC_RCPU)
		machine_request_reset(dev->board, SHUTDOWN_GUEST_RESET);
}

/* DRAM row boundaries in units of 8 MiB: the RAM below the hole, spread over the rows, as far as 8 bits count. */
static void rows_init(struct device *dev)
{
	uint64_t units = MIN(board_ram_below_4g(dev->board) / DRB_UNIT, 255ull);
	for (unsigned row = 0; row < DRB_ROWS; row++)
		dev->pci->config[DRB0 + row] = MAX(units * (row + 1) / DRB_ROWS, 1ull);
}

static int i440fx_create(struct device *dev, struct err *e)
{
	struct pci_function *f = dev->pci;
	static const struct {
		uint8_t reg, value, wmask;
	} init[] = {
		{PCI_COMMAND_REG, 0x06, 0x40}, /* memory and mastering are always on */
		{PCI_COMMAND_REG + 1, 0x00, 0x01},
		{PCI_STATUS_REG, 0x80, 0x00},
		{PCI_STATUS_REG + 1, 0x02, 0x00},
		{PMCCFG, 0x00, 0xfe},
		{PMCCFG + 1, 0x00, 0x5f},
		{DETURBO, 0x00, 0xff},
		{DBC, 0x80, 0x83},
		{AXC, 0x82, 0xf2},
		{DRT, 0x00, 0xff},
		{DRT + 1, 0x00, 0xff},
		{DRAMC, 0x01, 0xff},
		{DRAMT, 0x10, 0x7f},
		{FDHC, 0x00, 0xc0},
		{MTT, 0x20, 0xf8},
		{CLT, 0x10, 0xf8},
		{SMRAM, SMRAM_BASESEG, SMRAM_D_OPEN | SMRAM_D_CLS | SMRAM_D_LCK | SMRAM_ENABLE},
		{ERRCMD, 0x00, 0xff},
		{TRC, 0x00, 0x07},
	};
	for (unsigned i = 0; i < ARRAY_SIZE(init); i++) {
		f->config[init[i].reg] = init[i].value;
		f->wmask[init[i].reg] = init[i].wmask;
	}
	f->wmask[PAM0] = 0x30;
	for (unsigned reg = PAM0 + 1; reg <= PAM6; reg++)
		f->wmask[reg] = 0x33;
	for (unsigned row = 0; row < DRB_ROWS; row++)
		f->wmask[DRB0 + row] = 0xff;
	f->w1cmask[ERRSTS] = 0x11;
	f->wmask[PCI_INT_LINE] = 0;
	f->config_written = config_written;
	rows_init(dev);
	return 0;
}

/*
 * DRAM and what decodes it stay powered in S3: the firmware finds itself in the shadow RAM, which is how it tells a
 * resume from a start.
 */
static void i440fx_reset(struct device *dev)
{
	if (machine_waking(dev->board))
		memcpy(dev->pci->config + PAM0, DEVICE(dev, struct i440fx)->windows, PAM_REGISTERS);
	smram_lock(dev);
}

static void i440fx_settle(struct device *dev)
{
	smram_lock(dev);
	windows_update(dev);
}

static const struct prop i440fx_props[] = {PROP_END};

static const struct pci_identity i440fx_pci = {
	.vendor = 0x8086,
	.device = 0x1237,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.revision = 2,
	.class_code = 0x060000,
};

DEVICE_CLASS(i440fx) = {
	.name = "i440FX",
	.summary = "82441FX memory controller: PAM and SMRAM windows",
	.bus = BUS_PCI,
	.category = "Controller/Bridge",
	.size = sizeof(struct i440fx),
	.props = i440fx_props,
	.regions = i440fx_regions,
	.n_regions = ARRAY_SIZE(i440fx_regions),
	.pci = &i440fx_pci,
	.stateless = "all registers are configuration space, which the PCI bus saves",
	.create = i440fx_create,
	.reset = i440fx_reset,
	.settle = i440fx_settle,
};
