/* The ACPI tables of the board (acpi.c). Private to the machine room. */
#ifndef VMM_MACHINE_ACPI_H
#define VMM_MACHINE_ACPI_H

#include "blob.h"
#include "vmm/machine.h"

#define ACPI_TABLES_FILE "etc/acpi/tables"
#define ACPI_RSDP_FILE   "etc/acpi/rsdp"
#define ACPI_LOADER_FILE "etc/table-loader"
#define ACPI_RSDP_SIZE   20

/*
 * Tables with addresses and checksums still open, and the script that says how to place and link them: 128-byte entries
 * as in QEMU's docs/specs/acpi_... "linker/loader" (struct acpi_loader_entry). SeaBIOS runs the script; direct boot
 * runs it against guest RAM.
 */
struct acpi_blobs {
	struct blob tables;
	uint8_t rsdp[ACPI_RSDP_SIZE];
	struct blob loader;
};

enum acpi_loader_command {
	ACPI_LOADER_ALLOCATE = 1, /* put file at an address aligned to .align; zone 1: anywhere, 2: 0xe0000-0xfffff */
	ACPI_LOADER_ADD_POINTER = 2, /* at offset in dest, size bytes, add the address of file src */
	ACPI_LOADER_ADD_CHECKSUM = 3 /* byte at offset of file makes [start, start+length) sum to 0 */
};
struct acpi_loader_entry {
	uint32_t command; /* all little-endian */
	union {
		struct __attribute__((packed)) {
			char file[56];
			uint32_t align;
			uint8_t zone;
		} alloc;
		struct __attribute__((packed)) {
			char dest[56], src[56];
			uint32_t offset;
			uint8_t size;
		} pointer;
		struct __attribute__((packed)) {
			char file[56];
			uint32_t offset, start, length;
		} checksum;
		uint8_t pad[124];
	};
} __attribute__((packed));

/* After all devices exist. The tables describe what is on the board now. Release with acpi_blobs_free(). */
int acpi_build(struct board *board, struct acpi_blobs *out, struct err *e);
void acpi_blobs_free(struct acpi_blobs *blobs);

/* Ports of the power management, where every BIOS of this board puts them (SeaBIOS: PORT_ACPI_PM_BASE). */
#define ACPI_PM_BASE 0x600

#endif
