/* The memory map as firmware and kernels get it (e820.c). Private to the machine room. */
#ifndef VMM_MACHINE_E820_H
#define VMM_MACHINE_E820_H

#include "vmm/machine.h"

enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3, E820_NVS = 4 };

/* As INT 15h AX=E820h returns it and etc/e820 holds it, little-endian. */
struct e820_entry {
	uint64_t address, length;
	uint32_t type;
} __attribute__((packed));

/* The board's RAM and what the hypervisor reserves, sorted by address, without holes for the BIOS area below 1 MiB:
   that is the firmware's to carve. Fills at most max entries and returns their number (3 are enough). */
size_t e820_build(const struct board *board, struct e820_entry *out, size_t max);

/* The same as a kernel without firmware gets it: with the BIOS area below 1 MiB carved out, and low RAM from
   tables_base up reserved. At most 7 entries. */
size_t e820_build_booted(const struct board *board, uint64_t tables_base, struct e820_entry *out, size_t max);

#endif
