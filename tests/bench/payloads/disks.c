/*
 * Throughput of the PIIX3 IDE controller as a driver of its day programs it,
 * from CPL 0: an ATA disk (primary master, LBA28) and an ATAPI CD-ROM
 * (secondary master), bus-master DMA and PIO. (ATA/ATAPI-4; Intel 82371SB
 * data sheet, 2.5 and 3.3; SFF-8090 for the packet commands.)
 *
 * Completion is polled, so that a figure does not depend on how fast the host
 * wakes a halted vCPU; the tests named _irq halt and wait for IRQ 14 and 15, as
 * an operating system does.
 *
 * Both images carry stamps: the first four bytes of every block hold its
 * number. Every test reads a range of its own and checks the stamps of its last
 * command, so data that never moved shows up as an error line.
 */
#include "payload.h"

enum {
	/* Register offsets from a channel's command block. */
	REG_DATA = 0,
	REG_FEATURES = 1,
	REG_ERROR = 1,
	REG_COUNT = 2,
	REG_LBA_LOW = 3,
	REG_LBA_MID = 4,
	REG_LBA_HIGH = 5,
	REG_DEVICE = 6,
	REG_STATUS = 7,
	REG_COMMAND = 7,

	STATUS_BSY = 0x80,
	STATUS_DF = 0x20,
	STATUS_DRQ = 0x08,
	STATUS_ERR = 0x01,

	CMD_READ_SECTORS = 0x20,
	CMD_PACKET = 0xa0,
	CMD_READ_MULTIPLE = 0xc4,
	CMD_WRITE_MULTIPLE = 0xc5,
	CMD_SET_MULTIPLE = 0xc6,
	CMD_READ_DMA = 0xc8,
	CMD_WRITE_DMA = 0xca,
	CMD_SET_FEATURES = 0xef,
	PACKET_TEST_UNIT_READY = 0x00,
	PACKET_READ_10 = 0x28,

	/* Bus master registers, offsets from a channel's half. */
	BM_COMMAND = 0,
	BM_STATUS = 2,
	BM_TABLE = 4,
	BM_START = 0x01,
	BM_TO_MEMORY = 0x08,
	BM_STATUS_ERROR = 0x02,
	BM_STATUS_INTERRUPT = 0x04,

	IDE_DEVICE = 1,
	IDE_FUNCTION = 1,
	BM_BASE = 0xc000,

	SECTOR = 512,
	CD_BLOCK = 2048,
	ATA_SECTORS = 256,       /* per command: 128 KiB, the most LBA28 can say */
	CD_BLOCKS = 32,          /* per command: 64 KiB */
	MULTIPLE = 16,           /* sectors per DRQ block */
	PIO_BYTE_COUNT = 0xf800, /* ATAPI: 31 blocks per DRQ block */
};

#define BUFFER        ((uint8_t *)0x1000000) /* 16 MiB, 64 KiB aligned as the PRD wants */
#define TIMEOUT_TICKS (1ull << 34)

struct channel {
	uint16_t command;
	uint16_t bus_master;
};

struct prd {
	uint32_t address;
	uint16_t bytes; /* 0 is 64 KiB */
	uint16_t flags; /* 0x8000: the last one */
};

static const struct channel disk = {0x1f0, BM_BASE};
static const struct channel cdrom = {0x170, BM_BASE + 8};
static struct prd prds[2] __attribute__((aligned(16)));
static bool failed;
static uint8_t last_command;
static bool by_interrupt; /* how the running test waits for DMA */
static volatile bool interrupted __attribute__((used));

/*
 * IRQ 14 and 15: both channels are on the slave PIC. Returns by RET with interrupts still off:
 * it only ever interrupts the HLT below, and KVM's emulator has no IRET in protected mode.
 */
static __attribute__((naked)) void on_interrupt(void)
{
	__asm__("pushl %eax\n\t"
		"movb $1, interrupted\n\t"
		"movb $0x20, %al\n\t"
		"outb %al, $0xa0\n\t"
		"outb %al, $0x20\n\t"
		"popl %eax\n\t"
		"ret $8");
}

/*
 * Both PICs at vectors 0x20 and 0x28, everything but the two IDE lines masked (8259A data sheet);
 * the local APIC on, its LINT0 passing the PIC through, as firmware leaves it (Intel SDM 3, 11.5.1).
 */
static void set_up_interrupts(void)
{
	static uint64_t idt[0x30];
	static struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) idtr;
	static const uint8_t words[][2] = {
		{0x20, 0x11}, {0x21, 0x20}, {0x21, 0x04}, {0x21, 0x01}, {0x21, 0xfb},
		{0xa0, 0x11}, {0xa1, 0x28}, {0xa1, 0x02}, {0xa1, 0x01}, {0xa1, 0x3f},
	};
	volatile uint32_t *const local_apic = (volatile uint32_t *)0xfee00000;
	uint32_t handler = (uintptr_t)on_interrupt;

	idt[0x2e] = idt[0x2f] = (uint64_t)(handler >> 16) << 48 | 0x8e00ull << 32 | 8u << 16 | (handler & 0xffff);
	idtr.limit = sizeof(idt) - 1;
	idtr.base = (uintptr_t)idt;
	__asm__ volatile("lidt %0" : : "m"(idtr));
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		outb(words[i][0], words[i][1]);
	local_apic[0xf0 / 4] = 0x1ff;  /* spurious vector register: enable */
	local_apic[0x350 / 4] = 0x700; /* LINT0: ExtINT */
}

/* Halt until an interrupt came; one that never comes shows as the driver's timeout. */
static void wait_interrupt(void)
{
	while (!interrupted)
		__asm__ volatile("sti\n\thlt\n\tcli" : : : "cc", "memory");
}

static bool fail(const char *what, uint32_t value)
{
	report_error(what, value);
	failed = true;
	return false;
}

/* Status, Error and last command register in one value, for the report. */
static uint32_t evidence(const struct channel *ch, uint8_t status)
{
	return status | (uint32_t)inb(ch->command + REG_ERROR) << 8 | (uint32_t)last_command << 16;
}

/* Wait until the device is not busy; true if it wants what `want` says (DRQ or nothing). */
static bool wait_status(const struct channel *ch, uint8_t want)
{
	uint64_t end = rdtsc() + TIMEOUT_TICKS;
	uint8_t status;
	do {
		status = inb(ch->command + REG_STATUS);
		if (!(status & STATUS_BSY))
			return (status & (STATUS_DRQ | STATUS_ERR | STATUS_DF)) == want ||
			       fail("status", evidence(ch, status));
	} while (rdtsc() < end);
	return fail("busy", evidence(ch, status));
}

static void ata_command(const struct channel *ch, uint32_t lba, uint8_t count, uint8_t command)
{
	outb(ch->command + REG_DEVICE, (uint8_t)(0xe0 | lba >> 24));
	outb(ch->command + REG_COUNT, count);
	outb(ch->command + REG_LBA_LOW, (uint8_t)lba);
	outb(ch->command + REG_LBA_MID, (uint8_t)(lba >> 8));
	outb(ch->command + REG_LBA_HIGH, (uint8_t)(lba >> 16));
	last_command = command;
	outb(ch->command + REG_COMMAND, command);
}

/* Send a packet command; byte_count 0 means DMA. */
static bool send_packet(const struct channel *ch, uint8_t operation, uint32_t lba, uint8_t blocks, uint16_t byte_count)
{
	const uint8_t packet[12] = {
		operation, 0,      (uint8_t)(lba >> 24), (uint8_t)(lba >> 16), (uint8_t)(lba >> 8), (uint8_t)lba, 0,
		0,         blocks,
	};
	outb(ch->command + REG_FEATURES, byte_count ? 0 : 1);
	outb(ch->command + REG_LBA_MID, (uint8_t)byte_count);
	outb(ch->command + REG_LBA_HIGH, (uint8_t)(byte_count >> 8));
	last_command = CMD_PACKET;
	outb(ch->command + REG_COMMAND, CMD_PACKET);
	if (!wait_status(ch, STATUS_DRQ))
		return false;
	outsw(ch->command + REG_DATA, packet, sizeof(packet) / 2);
	return true;
}

static void prepare_dma(const struct channel *ch, uint32_t bytes, uint8_t direction)
{
	uint32_t first = bytes < 0x10000 ? bytes : 0x10000;
	prds[0] = (struct prd){(uintptr_t)BUFFER, (uint16_t)first, bytes == first ? 0x8000 : 0};
	prds[1] = (struct prd){(uintptr_t)BUFFER + first, (uint16_t)(bytes - first), 0x8000};
	outl(ch->bus_master + BM_TABLE, (uintptr_t)prds);
	outb(ch->bus_master + BM_COMMAND, direction);
	outb(ch->bus_master + BM_STATUS, BM_STATUS_ERROR | BM_STATUS_INTERRUPT);
}

static bool run_dma(const struct channel *ch, uint8_t direction)
{
	uint64_t end = rdtsc() + TIMEOUT_TICKS;
	uint8_t status;

	interrupted = false;
	outb(ch->bus_master + BM_COMMAND, direction | BM_START);
	if (by_interrupt)
		wait_interrupt();
	do
		status = inb(ch->bus_master + BM_STATUS);
	while (!(status & BM_STATUS_INTERRUPT) && rdtsc() < end);
	outb(ch->bus_master + BM_COMMAND, direction);
	if (!(status & BM_STATUS_INTERRUPT) || status & BM_STATUS_ERROR)
		return fail("bus-master", status);
	return wait_status(ch, 0);
}

/* --- one command each: lba is in blocks of the medium; false ends the test --- */

static bool ata_dma_read(uint32_t lba)
{
	prepare_dma(&disk, ATA_SECTORS * SECTOR, BM_TO_MEMORY);
	ata_command(&disk, lba, (uint8_t)ATA_SECTORS, CMD_READ_DMA);
	return run_dma(&disk, BM_TO_MEMORY);
}

static bool ata_dma_write(uint32_t lba)
{
	prepare_dma(&disk, ATA_SECTORS * SECTOR, 0);
	ata_command(&disk, lba, (uint8_t)ATA_SECTORS, CMD_WRITE_DMA);
	return run_dma(&disk, 0);
}

static bool ata_pio(uint32_t lba, uint8_t command, unsigned sectors_per_block)
{
	ata_command(&disk, lba, (uint8_t)ATA_SECTORS, command);
	for (unsigned done = 0; done < ATA_SECTORS; done += sectors_per_block) {
		if (!wait_status(&disk, STATUS_DRQ))
			return false;
		uint8_t *buffer = BUFFER + done * SECTOR;
		if (command == CMD_WRITE_MULTIPLE)
			outsw(disk.command + REG_DATA, buffer, sectors_per_block * SECTOR / 2);
		else
			insw(disk.command + REG_DATA, buffer, sectors_per_block * SECTOR / 2);
	}
	return wait_status(&disk, 0);
}

static bool ata_pio_read(uint32_t lba)
{
	return ata_pio(lba, CMD_READ_SECTORS, 1);
}

static bool ata_multiple_read(uint32_t lba)
{
	return ata_pio(lba, CMD_READ_MULTIPLE, MULTIPLE);
}

static bool ata_multiple_write(uint32_t lba)
{
	return ata_pio(lba, CMD_WRITE_MULTIPLE, MULTIPLE);
}

static bool atapi_dma_read(uint32_t lba)
{
	prepare_dma(&cdrom, CD_BLOCKS * CD_BLOCK, BM_TO_MEMORY);
	return send_packet(&cdrom, PACKET_READ_10, lba, CD_BLOCKS, 0) && run_dma(&cdrom, BM_TO_MEMORY);
}

static bool atapi_pio_read(uint32_t lba)
{
	uint32_t left = CD_BLOCKS * CD_BLOCK;
	uint8_t *buffer = BUFFER;

	if (!send_packet(&cdrom, PACKET_READ_10, lba, CD_BLOCKS, PIO_BYTE_COUNT))
		return false;
	while (left) {
		if (!wait_status(&cdrom, STATUS_DRQ))
			return false;
		uint32_t bytes = inb(cdrom.command + REG_LBA_MID) | (uint32_t)inb(cdrom.command + REG_LBA_HIGH) << 8;
		if (!bytes || bytes % 2 || bytes > left)
			return fail("byte-count", bytes);
		insw(cdrom.command + REG_DATA, buffer, bytes / 2);
		buffer += bytes;
		left -= bytes;
	}
	return wait_status(&cdrom, 0);
}

/* --- set-up, the tests and their check --- */

static void set_up_controller(void)
{
	pci_write(IDE_DEVICE, IDE_FUNCTION, 0x20, BM_BASE | 1);
	pci_write(IDE_DEVICE, IDE_FUNCTION, 0x40, 0x80008000); /* IDETIM: both channels decode */
	pci_write(IDE_DEVICE, IDE_FUNCTION, 0x04, 0x05);       /* I/O space, bus master */
}

static bool set_up_disk(void)
{
	outb(disk.command + REG_DEVICE, 0xe0);
	if (!wait_status(&disk, 0))
		return false;
	ata_command(&disk, 0, MULTIPLE, CMD_SET_MULTIPLE);
	if (!wait_status(&disk, 0))
		return false;
	outb(disk.command + REG_FEATURES, 0x03);       /* transfer mode: */
	ata_command(&disk, 0, 0x22, CMD_SET_FEATURES); /* multiword DMA 2 */
	return wait_status(&disk, 0);
}

/* The first command after power-on reports UNIT ATTENTION; ask until the medium is there. */
static bool set_up_cdrom(void)
{
	outb(cdrom.command + REG_DEVICE, 0xa0);
	for (int attempt = 0; attempt < 5; attempt++) {
		if (!send_packet(&cdrom, PACKET_TEST_UNIT_READY, 0, 0, PIO_BYTE_COUNT))
			return false;
		uint8_t status;
		do
			status = inb(cdrom.command + REG_STATUS);
		while (status & STATUS_BSY);
		if (!(status & STATUS_ERR))
			return true;
	}
	return fail("cdrom-not-ready", 0);
}

static bool check_stamps(uint32_t first, unsigned blocks, unsigned block_size)
{
	for (unsigned i = 0; i < blocks; i++) {
		uint32_t stamp = *(volatile uint32_t *)(BUFFER + i * block_size);
		if (stamp != first + i)
			return fail("stamp", stamp);
	}
	return true;
}

static void fill_stamps(uint32_t first)
{
	for (unsigned i = 0; i < ATA_SECTORS; i++)
		*(volatile uint32_t *)(BUFFER + i * SECTOR) = first + i;
}

struct test {
	const char *name;
	bool (*command)(uint32_t lba);
	uint32_t first; /* block, a range of its own in the 64 MiB images */
	uint32_t commands;
	uint32_t blocks; /* per command */
	uint32_t block_size;
	bool write;
	bool by_interrupt;
};

static const struct test tests[] = {
	{"ata_dma_read", ata_dma_read, 0, 128, ATA_SECTORS, SECTOR, false, false},
	{"ata_dma_read_irq", ata_dma_read, 32768, 128, ATA_SECTORS, SECTOR, false, true},
	{"ata_dma_write", ata_dma_write, 65536, 128, ATA_SECTORS, SECTOR, true, false},
	{"ata_pio_read", ata_pio_read, 98304, 4, ATA_SECTORS, SECTOR, false, false},
	{"ata_multiple_read", ata_multiple_read, 100352, 6, ATA_SECTORS, SECTOR, false, false},
	{"ata_multiple_write", ata_multiple_write, 102400, 1, ATA_SECTORS, SECTOR, true, false},
	{"atapi_dma_read", atapi_dma_read, 0, 240, CD_BLOCKS, CD_BLOCK, false, false},
	{"atapi_dma_read_irq", atapi_dma_read, 8192, 240, CD_BLOCKS, CD_BLOCK, false, true},
	{"atapi_pio_read", atapi_pio_read, 16384, 32, CD_BLOCKS, CD_BLOCK, false, false},
};

/* Written data is stamped like block 0 onwards; it is read back by another way than it went. */
static bool check(const struct test *test, uint32_t last)
{
	if (!test->write)
		return check_stamps(last, test->blocks, test->block_size);
	fill_stamps(0xffff0000);
	bool read = test->command == ata_dma_write ? ata_multiple_read(last) : ata_dma_read(last);
	return read && check_stamps(0, test->blocks, test->block_size);
}

static void run(const struct test *test)
{
	uint32_t lba = test->first;
	fill_stamps(test->write ? 0 : 0xffff0000);
	by_interrupt = test->by_interrupt;
	uint64_t start = rdtsc();
	for (uint32_t i = 0; i < test->commands; i++, lba += test->blocks)
		if (!test->command(lba))
			return;
	uint64_t ticks = rdtsc() - start;
	if (check(test, lba - test->blocks))
		report(test->name, test->commands * test->blocks * test->block_size, ticks);
}

int payload_main(void)
{
	set_up_interrupts();
	set_up_controller();
	if (!set_up_disk() || !set_up_cdrom())
		return 1;
	for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]) && !failed; i++)
		run(&tests[i]);
	return failed;
}
