/*
 * What a guest payload may call; start.S explains how payloads run.
 */
#ifndef PAYLOAD_H
#define PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "ports.h"

/* The payload.  Its return value goes to payload_exit(). */
int payload_main(void);

/* Call fn(a, b) at CPL 0 and return its result.  Not from within such a function. */
long ring0(long (*fn)(long, long), long a, long b);

/* Run fn(arg) on the second processor (APIC id 1) at CPL 3. fn does not return, and uses no ports. Once. */
void start_cpu(void (*fn)(void *), void *arg);

/* Interrupt handlers, called at CPL 0 with the vector; NULL: report and stop.  Vectors 32..63. */
extern void (*irq_handler[64])(unsigned vector);

/* Where the boot loader says things are. */
extern const char *boot_cmdline;  /* never NULL */
extern uint64_t boot_module;      /* physical address of the first module (initrd), or 0 */
extern uint64_t boot_module_size; /* bytes */
extern uint64_t boot_rsdp;        /* physical address of the ACPI RSDP, or 0 (multiboot) */
extern bool boot_pvh;             /* PVH, else multiboot */

/* RAM range n of the boot loader's map; false behind the last. */
bool ram_range(unsigned n, uint64_t *start, uint64_t *size);

/* First byte behind the payload, page aligned: RAM from here on is free to use. */
uint64_t free_ram(void);

/* Value of "key=number" on the command line (0x for hexadecimal, suffix K, M or G), or fallback. */
uint64_t option(const char *key, uint64_t fallback);

/* Map 4 GiB..(4 + gib) GiB one to one, gib <= 60. */
void map_high(unsigned gib);

/* COM1. */
void put_char(char c);
void put_string(const char *s);
void put_hex(uint64_t value);
void put_dec(uint64_t value);
int get_char(void); /* -1: nothing received */

/* End the guest through isa-debug-exit at 0xf4 (exit status code << 1 | 1), or halt without one. */
void payload_exit(int code) __attribute__((noreturn));

/* PCI configuration space, mechanism 1; bdf = bus << 8 | device << 3 | function. */
uint32_t pci_read32(unsigned bdf, unsigned offset);
void pci_write32(unsigned bdf, unsigned offset, uint32_t value);
int pci_find(uint16_t vendor, uint16_t device, unsigned nth); /* bdf or -1, bus 0 only */

static inline uint64_t rdtsc(void)
{
	uint32_t low, high;
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

static inline void barrier(void)
{
	__asm__ volatile("" : : : "memory");
}

#endif
