/*
 * What a boot loader hands over, printed: command line, memory map, module, and that CPL 3 code,
 * the ring 0 gate and faults work.  Ends with status 0x21 (isa-debug-exit code 0x10).
 */
#include "payload.h"

static long privilege(long a, long b)
{
	uint16_t cs;
	__asm__ volatile("mov %%cs, %0" : "=r"(cs));
	return (cs & 3) == 0 ? a + b : -1;
}

int payload_main(void)
{
	uint64_t start, size;
	uint16_t cs;

	put_string(boot_pvh ? "hello from PVH\n" : "hello from multiboot\n");
	put_string("cmdline: ");
	put_string(boot_cmdline);
	put_string("\n");
	for (unsigned n = 0; ram_range(n, &start, &size); n++) {
		put_string("ram: ");
		put_hex(start);
		put_string(" + ");
		put_hex(size);
		put_string("\n");
	}
	if (boot_module) {
		uint32_t sum = 0;
		for (uint64_t i = 0; i < boot_module_size; i++)
			sum = sum * 31 + ((uint8_t *)boot_module)[i];
		put_string("module: ");
		put_dec(boot_module_size);
		put_string(" sum ");
		put_hex(sum);
		put_string("\n");
	}
	if (boot_pvh) {
		put_string("rsdp: ");
		put_hex(boot_rsdp);
		put_string("\n");
	}
	__asm__ volatile("mov %%cs, %0" : "=r"(cs));
	if ((cs & 3) != 3 || ring0(privilege, 40, 2) != 42 || ring0(privilege, 40, 3) != 43) {
		put_string("FAIL hello\n");
		return 0x11;
	}
	put_string("PASS hello\n");
	return 0x10;
}
