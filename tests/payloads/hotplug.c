/*
 * The guest's side of hot-plug without an operating system: waits for general purpose events, handles them through the
 * ACPI register blocks as ACPI code does, starts the vCPUs that come and ejects what shall go. Says on COM1:
 *
 *   ready
 *   cpu N up                    its APIC id was read, INIT and SIPI sent, and it counts
 *   cpu N gone                  ejected, and it counts no more
 *   slot N VVVV:DDDD reg R      a function appeared; its first register behind BAR 0
 *   slot N empty                ejected, and nothing answers
 *
 * "q" received ends it. References: QEMU docs/specs/acpi_cpu_hotplug.rst and acpi_pci_hotplug.rst; Intel SDM 3A 8.4.4.
 */
#include "payload.h"

enum { GPE_STATUS = 0xafe0, GPE_PCI = 1 << 1, GPE_CPU = 1 << 2 };
enum { PCI_UP = 0xae00, PCI_DOWN = 0xae04, PCI_EJECT = 0xae08 };
enum { CPU_SELECTOR = 0xaf00, CPU_STATUS = 0xaf04, CPU_COMMAND = 0xaf05, CPU_DATA = 0xaf08 };
enum { CPU_INSERT = 2, CPU_REMOVE = 4, CPU_EJECT = 8, NEXT_EVENT = 0, ARCH_ID = 3 };
enum { APIC_SPURIOUS = 0xf0, APIC_ICR_LOW = 0x300, APIC_ICR_HIGH = 0x310 };

#define TRAMPOLINE 0x8000
#define COUNTERS   0x9000 /* one for each APIC id */
#define BAR        0xfeb00000u
#define SECOND     3000000000ull /* of time stamp; more than enough, not exact */

/* Real mode, CS:IP = 0800:0000. */
extern const char trampoline[], trampoline_end[];
__asm__(".pushsection .rodata\n"
	".code16\n"
	"trampoline:\n"
	"    cli\n"
	"    xorw %ax, %ax\n"
	"    movw %ax, %ds\n"
	"    movl $1, %eax\n"
	"    cpuid\n"
	"    shrl $24, %ebx\n"
	"    shlw $2, %bx\n"
	"1:  incl 0x9000(%bx)\n"
	"    jmp 1b\n"
	"trampoline_end:\n"
	".code64\n"
	".popsection\n");

static volatile uint32_t *apic(unsigned offset)
{
	return (volatile uint32_t *)(uintptr_t)(0xfee00000u + offset);
}

static volatile uint32_t *counter(uint32_t apic_id)
{
	return (volatile uint32_t *)(uintptr_t)(COUNTERS + 4 * apic_id);
}

/* Does the counter move within the time given? */
static bool counts(uint32_t apic_id, uint64_t time)
{
	uint32_t before = *counter(apic_id);
	for (uint64_t start = rdtsc(); rdtsc() - start < time;)
		if (*counter(apic_id) != before)
			return true;
	return false;
}

static void ipi(uint32_t apic_id, uint32_t command)
{
	*apic(APIC_ICR_HIGH) = apic_id << 24;
	*apic(APIC_ICR_LOW) = command;
	while (*apic(APIC_ICR_LOW) & 1 << 12)
		;
}

static void say(const char *what, unsigned n, const char *how)
{
	put_string(what);
	put_dec(n);
	put_string(how);
}

static uint32_t arch_id(void)
{
	outb(CPU_COMMAND, ARCH_ID);
	return inl(CPU_DATA);
}

static void wake_cpu(unsigned n)
{
	uint32_t id = arch_id();
	ipi(id, 0x4500);                    /* INIT, assert */
	ipi(id, 0x4600 | TRAMPOLINE >> 12); /* SIPI */
	say("cpu ", n, counts(id, 60 * SECOND) ? " up\n" : " does not start\n");
}

static void eject_cpu(unsigned n)
{
	uint32_t id = arch_id();
	outb(CPU_STATUS, CPU_EJECT);
	if (inb(CPU_STATUS) & 1)
		say("cpu ", n, " still there\n");
	/* It may go on for a moment, until the machine has stopped it. */
	bool runs = true;
	for (uint64_t start = rdtsc(); runs && rdtsc() - start < 20 * SECOND;)
		runs = counts(id, SECOND / 10);
	say("cpu ", n, runs ? " still counts\n" : " gone\n");
}

static void cpu_events(void)
{
	for (;;) {
		outb(CPU_COMMAND, NEXT_EVENT);
		uint32_t n = inl(CPU_DATA);
		uint8_t status = inb(CPU_STATUS);
		outl(CPU_SELECTOR, n);
		if (status & CPU_INSERT) {
			outb(CPU_STATUS, CPU_INSERT);
			wake_cpu(n);
		} else if (status & CPU_REMOVE) {
			outb(CPU_STATUS, CPU_REMOVE);
			eject_cpu(n);
		} else {
			return;
		}
	}
}

static void fill_slot(unsigned slot)
{
	uint32_t id = pci_read32(slot << 3, 0);
	say("slot ", slot, " ");
	put_hex(id & 0xffff);
	put_string(":");
	put_hex(id >> 16);
	pci_write32(slot << 3, 0x10, BAR);
	pci_write32(slot << 3, 4, 2);
	put_string(" reg ");
	put_hex(*(volatile uint8_t *)(uintptr_t)BAR);
	put_string("\n");
}

static void empty_slot(unsigned slot)
{
	outl(PCI_EJECT, 1u << slot);
	say("slot ", slot, pci_read32(slot << 3, 0) == 0xffffffff ? " empty\n" : " still full\n");
}

static void pci_events(void)
{
	uint32_t up = inl(PCI_UP), down = inl(PCI_DOWN);
	for (unsigned slot = 0; slot < 32; slot++) {
		if (up & 1u << slot)
			fill_slot(slot);
		if (down & 1u << slot)
			empty_slot(slot);
	}
}

int payload_main(void)
{
	for (const char *from = trampoline; from < trampoline_end; from++)
		*(volatile char *)(uintptr_t)(TRAMPOLINE + (from - trampoline)) = *from;
	*apic(APIC_SPURIOUS) = 0x1ff;
	outl(CPU_SELECTOR, 0);
	put_string("ready\n");
	while (get_char() != 'q') {
		uint16_t events = inw(GPE_STATUS);
		outw(GPE_STATUS, events);
		if (events & GPE_PCI)
			pci_events();
		if (events & GPE_CPU)
			cpu_events();
	}
	put_string("PASS hotplug\n");
	return 0x10;
}
