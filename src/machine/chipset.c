/*
 * What a BIOS does to the chip set before it starts an operating system, for the boot that has no BIOS. A kernel relies
 * on it: ACPI tables name the power management ports, and Linux assigns only what it finds unassigned.
 *
 * Same values as SeaBIOS (src/fw/pciinit.c): PIRQA, B to IRQ 10, PIRQC, D to IRQ 11, I/O from 0xC000, memory from the
 * top of the largest low RAM. Bus 0 only: there are no bridges.
 */
#include "chipset.h"
#include "acpi.h"

enum {
	PIIX3 = 1 << 3,
	PIIX3_IDE = 1 << 3 | 1,
	PIIX4_PM = 1 << 3 | 3,
	CFG_COMMAND = 0x04,
	CFG_HEADER = 0x0e,
	CFG_BAR0 = 0x10,
	CFG_ROM = 0x30,
	CFG_INT_LINE = 0x3c,
	CFG_INT_PIN = 0x3d,
	PAM0 = 0x59,
	PIRQRC = 0x60,
	IDETIM = 0x40,
	PMBASE = 0x40,
	PMREGMISC = 0x80,
};

#define CMD_IO     1u
#define CMD_MEM    2u
#define IDE_DECODE 0x8000u
#define ELCR       0x4d0
#define IO_FIRST   0xc000u
#define IO_END     0x10000u
#define MEM_FIRST  0xe0000000u
#define MEM_END    0xfec00000u
#define SCI_IRQ    9

static const uint8_t pirq_irq[4] = {10, 10, 11, 11};

struct windows {
	uint64_t io, mem; /* next free address */
};

static uint16_t config_port(struct board *b, unsigned devfn, unsigned reg)
{
	map_pio_write(b, 0xcf8, 0x80000000u | devfn << 8 | (reg & 0xfc), 4);
	return 0xcfc + (reg & 3);
}

static uint32_t config_get(struct board *b, unsigned devfn, unsigned reg, unsigned size)
{
	return map_pio_read(b, config_port(b, devfn, reg), size);
}

static void config_set(struct board *b, unsigned devfn, unsigned reg, uint32_t value, unsigned size)
{
	map_pio_write(b, config_port(b, devfn, reg), value, size);
}

/* Give the BAR at reg an address; returns the command bit it needs, or 0 if it is absent or does not fit. */
static unsigned assign_bar(struct board *b, unsigned devfn, unsigned reg, struct windows *w, bool *is_64)
{
	config_set(b, devfn, reg, 0xffffffff, 4);
	uint32_t probe = config_get(b, devfn, reg, 4);
	bool io = probe & 1;
	uint64_t size = io ? (~(probe & ~3u) + 1) & 0xffff : ~(probe & ~0xfu) + 1;
	uint64_t *next = io ? &w->io : &w->mem;
	uint64_t at = size ? ALIGN_UP(*next, size) : 0;
	*is_64 = !io && (probe & 6) == 4;
	if (*is_64) {
		config_set(b, devfn, reg + 4, 0xffffffff, 4);
		if (config_get(b, devfn, reg + 4, 4) != 0xffffffff)
			size = 0; /* 4 GiB and more: left to the kernel */
		config_set(b, devfn, reg + 4, 0, 4);
	}
	if (!probe || !size || at + size > (io ? IO_END : MEM_END)) {
		config_set(b, devfn, reg, 0, 4);
		return 0;
	}
	*next = at + size;
	config_set(b, devfn, reg, at, 4);
	return io ? CMD_IO : CMD_MEM;
}

static void setup_function(struct board *b, unsigned devfn, struct windows *w)
{
	unsigned command = 0;
	for (unsigned reg = CFG_BAR0; reg < CFG_BAR0 + 24; reg += 4) {
		bool is_64;
		command |= assign_bar(b, devfn, reg, w, &is_64);
		if (is_64)
			reg += 4;
	}
	unsigned pin = config_get(b, devfn, CFG_INT_PIN, 1);
	if (devfn == PIIX4_PM)
		config_set(b, devfn, CFG_INT_LINE, SCI_IRQ, 1);
	else if (pin)
		config_set(b, devfn, CFG_INT_LINE, pirq_irq[(pin - 1 + (devfn >> 3) - 1) & 3], 1);
	config_set(b, devfn, CFG_COMMAND, config_get(b, devfn, CFG_COMMAND, 2) | command, 2);
}

static void setup_bridges(struct board *b)
{
	config_set(b, 0, PAM0, 0x30, 1);
	for (unsigned reg = PAM0 + 1; reg < PAM0 + 7; reg++)
		config_set(b, 0, reg, 0x33, 1);
	uint16_t level = 0;
	for (unsigned i = 0; i < 4; i++) {
		config_set(b, PIIX3, PIRQRC + i, pirq_irq[i], 1);
		level |= 1 << pirq_irq[i];
	}
	map_pio_write(b, ELCR, level & 0xff, 1);
	map_pio_write(b, ELCR + 1, level >> 8, 1);
	config_set(b, PIIX3_IDE, IDETIM, IDE_DECODE, 2);
	config_set(b, PIIX3_IDE, IDETIM + 2, IDE_DECODE, 2);
	config_set(b, PIIX3_IDE, CFG_COMMAND, CMD_IO, 2);
	config_set(b, PIIX4_PM, PMBASE, ACPI_PM_BASE | 1, 4);
	config_set(b, PIIX4_PM, PMREGMISC, 1, 1);
	config_set(b, PIIX4_PM, CFG_COMMAND, CMD_IO, 2);
}

void chipset_setup(struct board *b)
{
	struct windows w = {.io = IO_FIRST, .mem = MEM_FIRST};
	setup_bridges(b);
	for (unsigned devfn = 0; devfn < 256; devfn++) {
		if (config_get(b, devfn, 0, 2) == 0xffff) {
			devfn |= devfn % 8 ? 0 : 7;
			continue;
		}
		setup_function(b, devfn, &w);
		if (devfn % 8 == 0 && !(config_get(b, devfn, CFG_HEADER, 1) & 0x80))
			devfn |= 7;
	}
}
