/*
 * What one exit to the VMM costs, from CPL 0: PIO out and in, MMIO write and
 * read. The same ROM runs under vmm, QEMU and the raw KVM_RUN loop
 * (tests/bench/limits/rawloop.c), so the difference is the VMM's own share.
 *
 * pio_out    port 0x80, the POST code port (a register of the DMA page file)
 * pio_in     port 0x402, the debug console's presence byte
 * mmio_read  0xa0000, the VGA window: a device's handler runs
 * mmio_write 0xe0000000, in the PCI hole with nothing behind it
 * vga_write  0xa0000; QEMU lets KVM coalesce these, so it is no exit there
 * nop        no exit at all: the cost of an instruction, which on hosts that
 *            emulate CPL 0 is part of the figures above
 */
#include "payload.h"

enum {
	UNROLL = 16,
	LOOPS = 32,
	ROUNDS = 8,
};

#define MEASURE(name, instruction, ...)                                                         \
	do {                                                                                    \
		uint32_t loops = LOOPS;                                                         \
		uint64_t start = rdtsc();                                                       \
		__asm__ volatile("1: .rept 16\n\t" instruction "\n\t.endr\n\tdecl %0\n\tjnz 1b" \
				 : "+c"(loops)                                                  \
				 : __VA_ARGS__                                                  \
				 : "eax", "memory");                                            \
		uint64_t ticks = rdtsc() - start;                                               \
		report(name, LOOPS *UNROLL, ticks);                                             \
	} while (0)

static void measure_all(void)
{
	volatile uint32_t *const vga = (volatile uint32_t *)0xa0000;
	volatile uint32_t *const hole = (volatile uint32_t *)0xe0000000;

	MEASURE("nop", "nop", "d"(0));
	MEASURE("pio_out", "outb %%al, $0x80", "d"(0));
	MEASURE("pio_in", "inb %%dx, %%al", "d"(PORT_DEBUGCON));
	MEASURE("mmio_write", "movl %%eax, (%1)", "D"(hole));
	MEASURE("mmio_read", "movl (%1), %%eax", "D"(vga));
	MEASURE("vga_write", "movl %%eax, (%1)", "D"(vga));
}

/* A board may decode the VGA window only with memory space enabled; firmware would do this. */
static void enable_vga(void)
{
	for (unsigned device = 0; device < 32; device++)
		if (pci_read(device, 0, 8) >> 16 == 0x0300)
			pci_write(device, 0, 4, pci_read(device, 0, 4) | 3);
}

int payload_main(void)
{
	enable_vga();
	for (int round = 0; round < ROUNDS; round++)
		measure_all();
	return 0;
}
