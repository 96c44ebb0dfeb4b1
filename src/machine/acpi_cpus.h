/* Processors in the SSDT (acpi_cpus.c). Private to the machine room. */
#ifndef VMM_MACHINE_ACPI_CPUS_H
#define VMM_MACHINE_ACPI_CPUS_H

#include "blob.h"
#include "vmm/device.h"

/* Append an object for each possible CPU; where some can be plugged (maxcpus above cpus), with what the OS needs for
 * it. */
void acpi_cpus_build(struct blob *t, struct board *board);
/* The MADT's entry for a CPU, as the MADT and _MAT have it; returns its length: 8 or 16. */
unsigned acpi_madt_cpu(uint8_t entry[16], unsigned index, uint32_t apic_id, bool enabled);

#endif
