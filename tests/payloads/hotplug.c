/*
 * The guest's side of hot-plug without an operating system: waits for general purpose events, handles them through the
 * ACPI register blocks as ACPI code does, starts the vCPUs that come and ejects what shall go. Says on COM1:
 *
 *   ready
 *   cpu N up                    its APIC id was read, INIT and SIPI sent, and it counts; _OST says success
 *   cpu N gone                  ejected, and it counts no more
 *   cpu N stays                 refused, as many as "refuse=" on the command line says; _OST says so
 *   slot N VVVV:DDDD reg R      a function appeared; its first register behind BAR 0
 *   slot N empty                ejected, and nothing answers
 *
 * It also answers to the machine's other operators, as a system does:
 *
 *   power button                pressed; it powers off
 *   key XX                      a byte of the keyboard, scan code set 1
 *   break                       on COM1
 *   balloon N                   so many pages of 4 KiB are asked for, whenever that changes
 *   char C                      received on COM1, if it is none of these:
 *     q ends it, p reports a panic to pvpanic, r resets the machine
 *
 * References: QEMU docs/specs/acpi_cpu_hotplug.rst, acpi_pci_hotplug.rst and pvpanic.txt; Intel SDM 3A 8.4.4; 82371AB
 * (PIIX4) 7.1 and 7.2; VIRTIO 1.2 4.1.4 and 5.5.4.
 */
#include "payload.h"

enum { GPE_STATUS = 0xafe0, GPE_PCI = 1 << 1, GPE_CPU = 1 << 2 };
enum { PCI_UP = 0xae00, PCI_DOWN = 0xae04, PCI_EJECT = 0xae08 };
enum { CPU_SELECTOR = 0xaf00, CPU_STATUS = 0xaf04, CPU_COMMAND = 0xaf05, CPU_DATA = 0xaf08 };
enum { CPU_INSERT = 2, CPU_REMOVE = 4, CPU_EJECT = 8, NEXT_EVENT = 0, OST_EVENT = 1, OST_STATUS = 2, ARCH_ID = 3 };
enum { PM_FUNCTION = 1 << 3 | 3, PM_BASE = 0x600, PM_STATUS = PM_BASE, PM_CONTROL = PM_BASE + 4 };
enum { POWER_BUTTON = 1 << 8, SLEEP = 1 << 13, PANIC_PORT = 0x505, RESET_PORT = 0xcf9 };
enum { VIRTIO = 0x1af4, BALLOON_OLD = 0x1002, BALLOON = 0x1045, CAP_VENDOR = 9, DEVICE_CFG = 4 };
enum { KEY_DATA = 0x60, KEY_STATUS = 0x64, KEY_COMMAND = 0x64, KEY_FULL = 1, KEY_BUSY = 2 };
enum { COM1_DATA = 0x3f8, COM1_STATUS = 0x3fd, COM1_READY = 1, COM1_BREAK = 0x10 };
enum { APIC_SPURIOUS = 0xf0, APIC_ICR_LOW = 0x300, APIC_ICR_HIGH = 0x310 };

#define TRAMPOLINE  0x8000
#define COUNTERS    0x9000 /* one for each APIC id */
#define BAR         0xfeb00000u
#define BALLOON_BAR 0xfea00000u
#define SECOND      3000000000ull /* of time stamp; more than enough, not exact */

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

/* _OST: 1 is a device check, 3 an eject request (ACPI 6.3 table 6-208); 0 success, 0x81 device in use. */
static void report(uint32_t event, uint32_t status)
{
	outb(CPU_COMMAND, OST_EVENT);
	outl(CPU_DATA, event);
	outb(CPU_COMMAND, OST_STATUS);
	outl(CPU_DATA, status);
}

static void wake_cpu(unsigned n)
{
	uint32_t id = arch_id();
	ipi(id, 0x4500);                    /* INIT, assert */
	ipi(id, 0x4600 | TRAMPOLINE >> 12); /* SIPI */
	say("cpu ", n, counts(id, 60 * SECOND) ? " up\n" : " does not start\n");
	report(1, 0);
}

static void eject_cpu(unsigned n)
{
	static uint64_t refused;
	if (refused < option("refuse", 0)) {
		refused++;
		report(3, 0x81);
		say("cpu ", n, " stays\n");
		return;
	}
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

static void key_write(uint16_t port, uint8_t value)
{
	while (inb(KEY_STATUS) & KEY_BUSY)
		;
	outb(port, value);
}

/* The power management's registers where firmware would have put them; a keyboard that talks set 1. */
static void operators(void)
{
	pci_write32(PM_FUNCTION, 0x40, PM_BASE | 1);
	pci_write32(PM_FUNCTION, 0x80, 1);
	key_write(KEY_COMMAND, 0x60);
	key_write(KEY_DATA, 0x40);
	key_write(KEY_DATA, 0xf4); /* enable scanning */
	while (!(inb(KEY_STATUS) & KEY_FULL))
		;
	inb(KEY_DATA); /* its acknowledge */
}

/* num_pages of the balloon's configuration: its own structure, in the BAR that a capability names. NULL: no balloon. */
static volatile uint32_t *find_balloon(void)
{
	int bdf = pci_find(VIRTIO, BALLOON_OLD, 0);

	if (bdf < 0)
		bdf = pci_find(VIRTIO, BALLOON, 0);
	for (unsigned at = bdf < 0 ? 0 : pci_read32(bdf, 0x34) & 0xfc; at; at = pci_read32(bdf, at) >> 8 & 0xfc) {
		uint32_t head = pci_read32(bdf, at), bar = 0x10 + 4 * (pci_read32(bdf, at + 4) & 7);

		if ((head & 0xff) != CAP_VENDOR || head >> 24 != DEVICE_CFG)
			continue;
		if (pci_read32(bdf, bar) & 4)
			pci_write32(bdf, bar + 4, 0);
		pci_write32(bdf, bar, BALLOON_BAR);
		pci_write32(bdf, 4, 2);
		return (volatile uint32_t *)(uintptr_t)(BALLOON_BAR + pci_read32(bdf, at + 8));
	}
	return NULL;
}

static void look_at_balloon(volatile uint32_t *num_pages)
{
	static uint32_t last;
	uint32_t now = num_pages ? *num_pages : 0;

	if (now != last)
		say("balloon ", last = now, "\n");
}

static void buttons(void)
{
	if (inb(KEY_STATUS) & KEY_FULL) {
		put_string("key ");
		put_hex(inb(KEY_DATA));
		put_string("\n");
	}
	if (inw(PM_STATUS) & POWER_BUTTON) {
		put_string("power button\n");
		outw(PM_CONTROL, SLEEP);
	}
}

/* What COM1 has; false: it is the end. */
static bool serial(void)
{
	uint8_t status = inb(COM1_STATUS);
	char c = status & (COM1_READY | COM1_BREAK) ? (char)inb(COM1_DATA) : 0;

	if (status & COM1_BREAK) {
		put_string("break\n");
	} else if (c == 'p') {
		outb(PANIC_PORT, 1);
	} else if (c == 'r') {
		outb(RESET_PORT, 6);
	} else if (c && c != 'q') {
		put_string("char ");
		put_char(c);
		put_string("\n");
	}
	return c != 'q';
}

int payload_main(void)
{
	for (const char *from = trampoline; from < trampoline_end; from++)
		*(volatile char *)(uintptr_t)(TRAMPOLINE + (from - trampoline)) = *from;
	*apic(APIC_SPURIOUS) = 0x1ff;
	outl(CPU_SELECTOR, 0);
	operators();
	volatile uint32_t *balloon = find_balloon();
	put_string("ready\n");
	while (serial()) {
		buttons();
		look_at_balloon(balloon);
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
