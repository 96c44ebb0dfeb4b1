/*
 * What the ROM payloads share: port and PCI access, the time stamp counter,
 * and the report channel, which is the debug console at port 0x402 (one line
 * per figure). payload_main() returns the value for isa-debug-exit: 0 when
 * everything was measured.
 *
 * Reports carry raw TSC ticks. The host knows the TSC frequency (KVM_GET_TSC_KHZ)
 * and does the arithmetic.
 */
#ifndef BENCH_PAYLOAD_H
#define BENCH_PAYLOAD_H

#include <stdbool.h>
#include <stdint.h>
#include "../../payloads/ports.h"

enum { PORT_DEBUGCON = 0x402 };

static inline void insw(uint16_t port, void *to, uint32_t words)
{
	__asm__ volatile("rep insw" : "+D"(to), "+c"(words) : "d"(port) : "memory");
}

static inline void outsw(uint16_t port, const void *from, uint32_t words)
{
	__asm__ volatile("rep outsw" : "+S"(from), "+c"(words) : "d"(port) : "memory");
}

static inline uint64_t rdtsc(void)
{
	uint64_t ticks;
	__asm__ volatile("rdtsc" : "=A"(ticks) : : "memory");
	return ticks;
}

static inline uint32_t pci_address(unsigned device, unsigned function, unsigned reg)
{
	return 0x80000000u | device << 11 | function << 8 | (reg & 0xfc);
}

static inline uint32_t pci_read(unsigned device, unsigned function, unsigned reg)
{
	outl(0xcf8, pci_address(device, function, reg));
	return inl(0xcfc);
}

static inline void pci_write(unsigned device, unsigned function, unsigned reg, uint32_t value)
{
	outl(0xcf8, pci_address(device, function, reg));
	outl(0xcfc, value);
}

static inline void put_text(const char *text)
{
	while (*text)
		outb(PORT_DEBUGCON, (uint8_t)*text++);
}

static inline void put_hex(uint64_t value)
{
	bool started = false;
	for (int shift = 60; shift >= 0; shift -= 4) {
		unsigned digit = (unsigned)(value >> shift) & 15;
		started = started || digit || !shift;
		if (started)
			outb(PORT_DEBUGCON, (uint8_t)(digit < 10 ? '0' + digit : 'a' + digit - 10));
	}
}

/* One line: NAME AMOUNT TICKS, both numbers hexadecimal. */
static inline void report(const char *name, uint32_t amount, uint64_t ticks)
{
	put_text(name);
	put_text(" ");
	put_hex(amount);
	put_text(" ");
	put_hex(ticks);
	put_text("\n");
}

/* One line: error WHAT VALUE; the driver fails the run and shows it. */
static inline void report_error(const char *what, uint32_t value)
{
	put_text("error ");
	put_text(what);
	put_text(" 0x");
	put_hex(value);
	put_text("\n");
}

int payload_main(void);

#endif
