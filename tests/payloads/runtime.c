/*
 * The payloads' run-time library; payload.h documents it.
 *
 * References: Xen public/arch-x86/hvm/start_info.h (layout of hvm_start_info); Multiboot
 * Specification 0.6.96 section 3.3; NS16550A data sheet; PCI Local Bus Specification 3.0 section
 * 3.2.2.3.2.
 */
#include "payload.h"

#define COM1            0x3f8
#define LSR             (COM1 + 5)
#define LSR_DR          0x01
#define LSR_THRE        0x20
#define DEBUG_EXIT      0xf4
#define MULTIBOOT_MAGIC 0x2badb002
#define PVH_MAGIC       0x336ec578
#define MEMORY_RAM      1
#define PAGE_PWU        0x07
#define PAGE_LARGE      0x80

struct pvh_info {
	uint32_t magic, version, flags, module_count;
	uint64_t modules, cmdline, rsdp, memory_map;
	uint32_t memory_map_entries, reserved;
};

struct pvh_module {
	uint64_t address, size, cmdline, reserved;
};

struct pvh_range {
	uint64_t start, size;
	uint32_t type, reserved;
};

struct multiboot_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, module_count, modules;
	uint32_t syms[4];
	uint32_t mmap_length, mmap;
};

struct multiboot_module {
	uint32_t start, end, string, reserved;
};

struct multiboot_range {
	uint32_t size;
	uint64_t start, length;
	uint32_t type;
} __attribute__((packed));

extern uint32_t boot_magic, boot_info;
extern char payload_end[];
extern uint64_t pdpt[];
void payload_start(void);
void payload_interrupt(uint64_t *frame);

void (*irq_handler[64])(unsigned vector);
const char *boot_cmdline = "";
uint64_t boot_module, boot_module_size, boot_rsdp;
bool boot_pvh;

/* The address 0..4 GiB as a pointer; GCC takes small constants for NULL otherwise. */
static void *at(uint64_t address)
{
	__asm__("" : "+r"(address));
	return (void *)address;
}

void *memset(void *to, int value, size_t count);
void *memcpy(void *to, const void *from, size_t count);

void *memset(void *to, int value, size_t count)
{
	void *start = to;
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
	return start;
}

void *memcpy(void *to, const void *from, size_t count)
{
	void *start = to;
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
	return start;
}

void put_char(char c)
{
	while (!(inb(LSR) & LSR_THRE))
		;
	outb(COM1, (uint8_t)c);
}

void put_string(const char *s)
{
	for (; *s; s++) {
		if (*s == '\n')
			put_char('\r');
		put_char(*s);
	}
}

void put_hex(uint64_t value)
{
	int shift = 60;
	while (shift && !(value >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		put_char("0123456789abcdef"[value >> shift & 15]);
}

void put_dec(uint64_t value)
{
	char digits[20];
	int n = 0;
	do
		digits[n++] = (char)('0' + value % 10);
	while (value /= 10);
	while (n)
		put_char(digits[--n]);
}

int get_char(void)
{
	return inb(LSR) & LSR_DR ? inb(COM1) : -1;
}

static __attribute__((noreturn)) long halt(long a, long b)
{
	(void)a;
	(void)b;
	for (;;)
		__asm__ volatile("cli; hlt");
}

void payload_exit(int code)
{
	outb(DEBUG_EXIT, (uint8_t)code);
	for (;;)
		ring0(halt, 0, 0);
}

/* At CPL 0: an interrupt, or an exception that nobody wanted. */
void payload_interrupt(uint64_t *frame)
{
	unsigned vector = (unsigned)frame[15];
	if (vector < 64 && irq_handler[vector]) {
		irq_handler[vector](vector);
		return;
	}
	put_string("\nFAIL exception ");
	put_dec(vector);
	put_string(" error ");
	put_hex(frame[16]);
	put_string(" rip ");
	put_hex(frame[17]);
	put_string("\n");
	outb(DEBUG_EXIT, 0x7f);
	halt(0, 0);
}

static struct pvh_info *pvh(void)
{
	return at(boot_info);
}

static struct multiboot_info *multiboot(void)
{
	return at(boot_info);
}

bool ram_range(unsigned n, uint64_t *start, uint64_t *size)
{
	if (boot_pvh) {
		struct pvh_range *range = at(pvh()->memory_map);
		for (uint32_t i = 0; i < pvh()->memory_map_entries; i++)
			if (range[i].type == MEMORY_RAM && !n--) {
				*start = range[i].start;
				*size = range[i].size;
				return true;
			}
		return false;
	}
	uint64_t end = multiboot()->mmap + (uint64_t)multiboot()->mmap_length;
	for (uint64_t p = multiboot()->mmap; p < end;) {
		struct multiboot_range *range = at(p);
		if (range->type == MEMORY_RAM && !n--) {
			*start = range->start;
			*size = range->length;
			return true;
		}
		p += range->size + 4;
	}
	return false;
}

uint64_t free_ram(void)
{
	uint64_t end = (uint64_t)payload_end;
	uint64_t module_end = boot_module + boot_module_size;
	if (boot_module >= 0x100000 && boot_module < 0x1000000 && module_end > end)
		end = module_end;
	return (end + 4095) & ~4095ull;
}

static uint64_t number(const char *s)
{
	uint64_t value = 0;
	unsigned base = 10;
	if (s[0] == '0' && s[1] == 'x') {
		base = 16;
		s += 2;
	}
	for (;; s++) {
		unsigned digit;
		if (*s >= '0' && *s <= '9')
			digit = (unsigned)(*s - '0');
		else if (base == 16 && *s >= 'a' && *s <= 'f')
			digit = (unsigned)(*s - 'a' + 10);
		else
			break;
		value = value * base + digit;
	}
	return *s == 'K' ? value << 10 : *s == 'M' ? value << 20 : *s == 'G' ? value << 30 : value;
}

uint64_t option(const char *key, uint64_t fallback)
{
	for (const char *word = boot_cmdline; *word; word++) {
		const char *k = key, *p = word;
		if (word != boot_cmdline && word[-1] != ' ')
			continue;
		while (*k && *p == *k) {
			p++;
			k++;
		}
		if (!*k && *p == '=')
			return number(p + 1);
	}
	return fallback;
}

static long map_high_ring0(long gib, long unused)
{
	static uint64_t tables[60][512] __attribute__((aligned(4096)));
	(void)unused;
	for (long table = 0; table < gib; table++) {
		for (uint64_t i = 0; i < 512; i++)
			tables[table][i] = ((uint64_t)(table + 4) << 30 | i << 21) + PAGE_PWU + PAGE_LARGE;
		pdpt[table + 4] = (uint64_t)tables[table] + PAGE_PWU;
	}
	return 0;
}

void map_high(unsigned gib)
{
	ring0(map_high_ring0, gib > 60 ? 60 : gib, 0);
}

static void pci_select(unsigned bdf, unsigned offset)
{
	outl(0xcf8, 0x80000000u | bdf << 8 | (offset & 0xfc));
}

uint32_t pci_read32(unsigned bdf, unsigned offset)
{
	pci_select(bdf, offset);
	return inl(0xcfc);
}

void pci_write32(unsigned bdf, unsigned offset, uint32_t value)
{
	pci_select(bdf, offset);
	outl(0xcfc, value);
}

int pci_find(uint16_t vendor, uint16_t device, unsigned nth)
{
	for (unsigned bdf = 0; bdf < 256; bdf++)
		if (pci_read32(bdf, 0) == ((uint32_t)device << 16 | vendor) && !nth--)
			return (int)bdf;
	return -1;
}

/* The first C code, at CPL 3. */
void payload_start(void)
{
	boot_pvh = boot_magic != MULTIBOOT_MAGIC;
	if (boot_pvh) {
		if (pvh()->magic != PVH_MAGIC) {
			put_string("FAIL neither PVH nor multiboot\n");
			payload_exit(0x7e);
		}
		if (pvh()->cmdline)
			boot_cmdline = at(pvh()->cmdline);
		if (pvh()->module_count) {
			struct pvh_module *module = at(pvh()->modules);
			boot_module = module->address;
			boot_module_size = module->size;
		}
		boot_rsdp = pvh()->rsdp;
	} else {
		if (multiboot()->flags & 4)
			boot_cmdline = at(multiboot()->cmdline);
		if (multiboot()->flags & 8 && multiboot()->module_count) {
			struct multiboot_module *module = at(multiboot()->modules);
			boot_module = module->start;
			boot_module_size = module->end - module->start;
		}
	}
	payload_exit(payload_main());
}

/* ---- the second processor ---- */

#define TRAMPOLINE 0x8000
#define APIC_SVR   0xfee000f0ul
#define APIC_ICR   0xfee00300ul

extern const char ap_start[], ap_end[];
extern void (*ap_function)(void *);
extern void *ap_argument;

static void ipi(uint32_t apic_id, uint32_t command)
{
	*(volatile uint32_t *)(APIC_ICR + 0x10) = apic_id << 24;
	*(volatile uint32_t *)APIC_ICR = command;
	while (*(volatile uint32_t *)APIC_ICR & 1 << 12)
		;
}

void start_cpu(void (*fn)(void *), void *arg)
{
	volatile char *to = (volatile char *)TRAMPOLINE;

	ap_function = fn;
	ap_argument = arg;
	for (size_t i = 0; i < (size_t)(ap_end - ap_start); i++)
		to[i] = ap_start[i];
	*(volatile uint32_t *)APIC_SVR = 0x1ff; /* software enable */
	ipi(1, 0x4500);                         /* INIT, assert */
	ipi(1, 0x4600 | TRAMPOLINE >> 12);      /* SIPI */
}
