/* The memory map of the board. Source: ACPI 6.3, chapter 15 (the types); QEMU docs/specs/fw_cfg.rst (etc/e820). */
#include "e820.h"
#include "vmm/kvm.h"

static size_t add(struct e820_entry *out, size_t n, size_t max, uint64_t address, uint64_t length, enum e820_type type)
{
	if (length && n < max)
		out[n++] = (struct e820_entry){htole64(address), htole64(length), htole32(type)};
	return n;
}

size_t e820_build(const struct board *board, struct e820_entry *out, size_t max)
{
	size_t n = add(out, 0, max, 0, board_ram_below_4g(board), E820_RAM);
	if (machine_config(board)->machine.accel == ACCEL_KVM)
		n = add(out, n, max, KVM_RESERVED_GPA, KVM_RESERVED_SIZE, E820_RESERVED);
	return add(out, n, max, 4 * GIB, board_ram_above_4g(board), E820_RAM);
}

size_t e820_build_booted(const struct board *board, uint64_t tables_base, struct e820_entry *out, size_t max)
{
	struct e820_entry plain[4];
	size_t n_plain = e820_build(board, plain, ARRAY_SIZE(plain)), n = 0;
	uint64_t low = board_ram_below_4g(board);

	n = add(out, n, max, 0, 0x9fc00, E820_RAM);
	n = add(out, n, max, 0x9fc00, 0x400, E820_RESERVED); /* extended BIOS data area */
	n = add(out, n, max, 0xe0000, 0x20000, E820_RESERVED);
	n = add(out, n, max, MIB, tables_base - MIB, E820_RAM);
	n = add(out, n, max, tables_base, low - tables_base, E820_RESERVED);
	for (size_t i = 1; i < n_plain && n < max; i++) /* the first is low RAM */
		out[n++] = plain[i];
	return n;
}
