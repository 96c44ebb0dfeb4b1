/*
 * A guest that tells on COM1 what it notices of an operator's commands, and does what it is told there. It polls.
 *
 *   notices                      says
 *   a key, a mouse packet        key XX, mouse XX XX XX
 *   the power button             power button
 *   an NMI                       nmi
 *   a break on COM1              break
 *   a character on COM2          com2 C
 *   virtio-balloon's target      balloon PAGES (taken or given back)
 *   virtio-net's cable           link up, link down
 *   virtio-net's announcement    announced (it sent the frame and acknowledged)
 *   virtio-serial: host's end    host open, host closed
 *
 *   is told                      does, says
 *   r N, w N C                   reads, fills (with a digit) sector N of the disk: disk N: TEXT, wrote N; or ... error
 *   i                            IDENTIFY: disk has N sectors
 *   c N                          reads 2048 bytes of the CD: cd N: TEXT; cd N: sense KEY ASC
 *   l N                          locks (1) the CD tray, or unlocks it
 *   t YEAR                       sets the clock's year (two digits)
 *   j 1                          periodic clock interrupts, 64 Hz, never acknowledged: ticking
 *   j 0                          acknowledges them for one to two seconds of the clock: ticks N
 *   p N                          pvpanic's port: 1 panicked, 2 a crash kernel is loaded
 *   z TYPE                       SLP_TYP and SLP_EN
 *   b N                          the 6300ESB's watchdog, N ticks of a millisecond: armed
 *   f N                          virtio-net: promiscuous or not
 *   s N                          sends N frames
 *   o N                          opens or closes port 1 of the virtio-serial bus
 *   v                            the processor's identity: cpuid EAX ECX EDX (leaf 1, hexadecimal)
 *   x C                          writes C to COM2
 *   q                            ends
 *
 * `beat` counts all the time, `pattern` is for the operator to find: their addresses are said at the start.
 *
 * References: ACPI 6.3 section 4.8 (PM1); ATA/ATAPI-6; MMC-3; 6300ESB data sheet section 16; VIRTIO 1.2
 * sections 5.1, 5.3, 5.5; 16550A data sheet.
 */
#include "payload.h"
#include "virtio.h"

enum { PM_BASE = 0x600, PM1_STATUS = PM_BASE, PM1_CONTROL = PM_BASE + 4, PWRBTN = 1 << 8, SLP_EN = 1 << 13 };
enum { COM1 = 0x3f8, COM2 = 0x2f8, LSR = 5, LSR_READY = 1, LSR_BREAK = 0x10, LSR_EMPTY = 0x20 };
enum { BAR = 0xe0000000u, BAR_STEP = 0x10000 };

static volatile uint64_t beat;
static const char pattern[] = "the operator looks for this";

static void say(const char *what, uint64_t n, const char *more)
{
	put_string(what);
	put_dec(n);
	put_string(more);
}

static uint32_t next_bar(void)
{
	static uint32_t bar = BAR;

	return bar += BAR_STEP;
}

/* ---- the chips of every PC ---- */

enum { APIC_LINT1 = 0xfee00360u, APIC_SPURIOUS = 0xfee000f0u, LINT_NMI = 4 << 8 }; /* SDM 3A 11.5.1 */

static volatile bool nmi;

static void on_nmi(unsigned vector __attribute__((unused)))
{
	nmi = true;
}

static void start_chips(void)
{
	static const struct {
		uint8_t port, value;
	} i8042[] = {{0x64, 0xae}, {0x60, 0xf4}, {0x64, 0xa8}, {0x64, 0xd4}, {0x60, 0xf4}};

	irq_handler[2] = on_nmi;
	*(volatile uint32_t *)(uintptr_t)APIC_SPURIOUS = 0x1ff;
	*(volatile uint32_t *)(uintptr_t)APIC_LINT1 = LINT_NMI;
	pci_write32(1 << 3 | 3, 0x40, PM_BASE | 1);
	pci_write32(1 << 3 | 3, 0x80, 1);
	for (unsigned i = 0; i < sizeof(i8042) / sizeof(i8042[0]); i++) {
		while (inb(0x64) & 2)
			;
		outb(i8042[i].port, i8042[i].value);
		for (uint64_t since = rdtsc(); rdtsc() - since < 20000000;) /* the acknowledgement */
			if (inb(0x64) & 1)
				inb(0x60);
	}
}

static void poll_keyboard(void)
{
	static uint8_t packet[3];
	static unsigned n;
	uint8_t status = inb(0x64);

	if (!(status & 1))
		return;
	uint8_t byte = inb(0x60);
	if (!(status & 0x20)) {
		put_string("key ");
		put_hex(byte);
		put_string("\n");
		return;
	}
	packet[n++] = byte;
	if (n < 3)
		return;
	n = 0;
	put_string("mouse");
	for (unsigned i = 0; i < 3; i++) {
		put_string(" ");
		put_hex(packet[i]);
	}
	put_string("\n");
}

static void poll_chips(void)
{
	poll_keyboard();
	if (inw(PM1_STATUS) & PWRBTN) {
		outw(PM1_STATUS, PWRBTN);
		put_string("power button\n");
	}
	if (nmi) {
		nmi = false;
		put_string("nmi\n");
	}
	uint8_t status = inb(COM2 + LSR);
	if (status != 0xff && status & LSR_READY) {
		char text[] = "com2 ?\n";
		text[5] = (char)inb(COM2);
		put_string(text);
	}
}

/* ---- IDE: a disk as primary master, a CD as secondary master ---- */

enum { DATA = 0, COUNT = 2, LBA_LOW = 3, LBA_MID = 4, LBA_HIGH = 5, DEVICE = 6, COMMAND = 7 };
enum { READ = 0x20, WRITE = 0x30, IDENTIFY = 0xec, PACKET = 0xa0, BUSY = 0x80, DRQ = 8, BAD = 1 };
enum { DISK = 0x1f0, CD = 0x170 };

/* Not busy, and asks for data or has failed. */
static bool wants_data(uint16_t ide)
{
	uint8_t status;

	do
		status = inb(ide + COMMAND);
	while (status & BUSY || !(status & (DRQ | BAD)));
	return !(status & BAD);
}

static bool disk(uint8_t command, uint64_t sector, uint16_t data[256])
{
	outb(DISK + DEVICE, (uint8_t)(0xe0 | sector >> 24));
	outb(DISK + COUNT, 1);
	outb(DISK + LBA_LOW, (uint8_t)sector);
	outb(DISK + LBA_MID, (uint8_t)(sector >> 8));
	outb(DISK + LBA_HIGH, (uint8_t)(sector >> 16));
	outb(DISK + COMMAND, command);
	if (!wants_data(DISK))
		return false;
	for (unsigned i = 0; i < 256; i++)
		if (command == WRITE)
			outw(DISK + DATA, data[i]);
		else
			data[i] = inw(DISK + DATA);
	while (inb(DISK + COMMAND) & BUSY)
		;
	return !(inb(DISK + COMMAND) & BAD);
}

static void put_text(const char *what, uint64_t n, const void *data)
{
	char text[17] = "";

	for (unsigned i = 0; i < 16; i++)
		text[i] = ((const char *)data)[i];
	say(what, n, ": ");
	put_string(text);
	put_string("\n");
}

static void disk_command(char what, uint64_t n, uint64_t value)
{
	static uint16_t data[256];

	if (what == 'r') {
		if (disk(READ, n, data))
			put_text("disk ", n, data);
		else
			say("disk ", n, " error\n");
	} else if (what == 'w') {
		for (unsigned i = 0; i < 256; i++)
			data[i] = (uint16_t)(('0' + value) * 0x101);
		say("wrote ", n, disk(WRITE, n, data) ? "\n" : " error\n");
	} else if (disk(IDENTIFY, 0, data)) {
		say("disk has ", (uint32_t)data[61] << 16 | data[60], " sectors\n");
	}
}

/* A packet command; the bytes it returned, or -1. */
static int packet(const uint8_t cdb[12], uint16_t *data, unsigned size)
{
	unsigned n = 0;

	outb(CD + DEVICE, 0xa0);
	outb(CD + 1, 0);
	outb(CD + LBA_MID, (uint8_t)size);
	outb(CD + LBA_HIGH, (uint8_t)(size >> 8));
	outb(CD + COMMAND, PACKET);
	if (!wants_data(CD))
		return -1;
	for (unsigned i = 0; i < 6; i++)
		outw(CD + DATA, (uint16_t)(cdb[2 * i] | cdb[2 * i + 1] << 8));
	for (;;) {
		uint8_t status;

		do
			status = inb(CD + COMMAND);
		while (status & BUSY);
		if (status & BAD)
			return -1;
		if (!(status & DRQ))
			return (int)n;
		unsigned count = inb(CD + LBA_MID) | inb(CD + LBA_HIGH) << 8;
		for (unsigned i = 0; i < count; i += 2, n += 2)
			if (n < size)
				data[n / 2] = inw(CD + DATA);
			else
				inw(CD + DATA);
	}
}

static void cd_read(uint64_t n)
{
	static uint16_t data[1024];
	const uint8_t read10[12] = {0x28, 0, 0, 0, (uint8_t)(n >> 8), (uint8_t)n, 0, 0, 1};
	const uint8_t request_sense[12] = {3, 0, 0, 0, 18};

	if (packet(read10, data, 2048) == 2048) {
		put_text("cd ", n, data);
		return;
	}
	packet(request_sense, data, 18);
	say("cd ", n, ": sense ");
	put_hex(data[1] & 15);
	put_string(" ");
	put_hex(data[6] & 0xff);
	put_string("\n");
}

static void cd_lock(uint64_t on)
{
	const uint8_t prevent[12] = {0x1e, 0, 0, 0, (uint8_t)on};

	packet(prevent, NULL, 0);
	put_string(on ? "locked\n" : "unlocked\n");
}

/* ---- the watchdog ---- */

static void arm_watchdog(uint64_t ticks)
{
	int bdf = pci_find(0x8086, 0x25ab, 0);
	uintptr_t base = next_bar();

	if (bdf < 0)
		return;
	pci_write32((unsigned)bdf, 0x10, (uint32_t)base);
	pci_write32((unsigned)bdf, 4, 2);
	pci_write32((unsigned)bdf, 0x60, 3); /* no interrupt, ticks of a millisecond */
	for (unsigned i = 0; i < 3; i++) {   /* two preloads, then the reload, each behind the unlocking sequence */
		*(volatile uint16_t *)(base + 12) = 0x80;
		*(volatile uint16_t *)(base + 12) = 0x86;
		if (i < 2)
			*(volatile uint32_t *)(base + 4 * i) = (uint32_t)ticks;
		else
			*(volatile uint16_t *)(base + 12) = 0x100;
	}
	pci_write32((unsigned)bdf, 0x68, 2);
	put_string("armed\n");
}

/* ---- virtio-balloon ---- */

static struct virtio balloon, net, serial;

enum { STATS_VQ = 1, BALLOON_FIRST = 0x2000, BALLOON_MOST = 8192, BALLOON_CHUNK = 256 };

struct stat {
	uint16_t tag;
	uint64_t value;
} __attribute__((packed));

static struct stat stats[2] = {{4, 12345678}, {5, 64 << 20}}; /* free, total memory */

static void start_balloon(void)
{
	int bdf = pci_find(0x1af4, 0x1002, 0);

	if (bdf < 0 || !virtio_find(&balloon, (unsigned)bdf, next_bar()))
		return;
	virtio_start(&balloon, 1ull << 32 | 1u << STATS_VQ, 3);
	virtio_put(&balloon, 2, 0, &(struct virtq_buffer){(uintptr_t)stats, sizeof(stats), 0, 0}, 1);
}

static void poll_balloon(void)
{
	static uint32_t pfn[BALLOON_CHUNK], taken;

	if (!balloon.common)
		return;
	uint32_t target = *(volatile uint32_t *)balloon.config, before = taken;
	if (target > BALLOON_MOST)
		target = BALLOON_MOST;
	while (taken != target) {
		bool more = taken < target;
		uint32_t n = more ? target - taken : taken - target;
		if (n > BALLOON_CHUNK)
			n = BALLOON_CHUNK;
		for (uint32_t i = 0; i < n; i++)
			pfn[i] = BALLOON_FIRST + (more ? taken + i : taken - 1 - i);
		virtio_do(&balloon, more ? 0 : 1, &(struct virtq_buffer){(uintptr_t)pfn, 4 * n, 0, 0}, 1);
		taken = more ? taken + n : taken - n;
		*(volatile uint32_t *)(balloon.config + 4) = taken;
	}
	if (taken != before)
		say("balloon ", taken, "\n");
	if (virtio_get(&balloon, 2) >= 0) { /* the host wants them again */
		stats[0].value++;
		virtio_put(&balloon, 2, 0, &(struct virtq_buffer){(uintptr_t)stats, sizeof(stats), 0, 0}, 1);
	}
}

/* ---- virtio-net ---- */

enum { NET_MAC = 5, NET_STATUS = 16, NET_CTRL_VQ = 17, NET_CTRL_RX = 18, NET_ANNOUNCE = 21 };
enum { LINK_UP = 1, ANNOUNCE = 2, TRANSMIT = 1, CONTROL = 2 };

static uint16_t net_status(void)
{
	return *(volatile uint16_t *)(net.config + 6);
}

static void net_control(uint8_t class, uint8_t command, uint8_t *data, uint32_t len)
{
	uint8_t head[2] = {class, command}, ack = 0xff;

	struct virtq_buffer pieces[3] = {{(uintptr_t)head, 2, 0, 0}};
	unsigned n = 1;
	if (len)
		pieces[n++] = (struct virtq_buffer){(uintptr_t)data, len, 0, 0};
	pieces[n++] = (struct virtq_buffer){(uintptr_t)&ack, 1, VIRTQ_WRITABLE, 0};
	virtio_do(&net, CONTROL, pieces, n);
	put_string(*(volatile uint8_t *)&ack == 0 ? "" : "FAIL net control\n");
}

/* A broadcast of the experimental type; virtio_net_hdr is 12 zeroes. */
static void net_send(uint64_t n)
{
	static uint8_t frame[12 + 64];

	for (unsigned i = 0; i < 6; i++) {
		frame[12 + i] = 0xff;
		frame[18 + i] = net.config[i];
	}
	frame[24] = 0x88;
	frame[25] = 0xb5;
	while (n--)
		virtio_do(&net, TRANSMIT, &(struct virtq_buffer){(uintptr_t)frame, sizeof(frame), 0, 0}, 1);
}

static void start_net(void)
{
	int bdf = pci_find(0x1af4, 0x1000, 0);

	if (bdf >= 0 && virtio_find(&net, (unsigned)bdf, next_bar()))
		virtio_start(&net,
			     1ull << 32 | 1u << NET_MAC | 1u << NET_STATUS | 1u << NET_CTRL_VQ | 1u << NET_CTRL_RX |
				     1u << NET_ANNOUNCE,
			     3);
}

static void poll_net(void)
{
	static uint16_t before = LINK_UP;

	if (!net.common)
		return;
	uint16_t status = net_status();
	if ((status ^ before) & LINK_UP)
		put_string(status & LINK_UP ? "link up\n" : "link down\n");
	if (status & ANNOUNCE) {
		net_send(1);
		net_control(3, 0, NULL, 0);
		put_string("announced\n");
	}
	before = status;
}

/* ---- virtio-serial ---- */

enum { MULTIPORT = 1, CONTROL_IN = 2, CONTROL_OUT = 3 };
enum { DEVICE_READY = 0, PORT_ADD = 1, PORT_READY = 3, PORT_OPEN = 6, PORT = 1 };

struct control {
	uint32_t id;
	uint16_t event, value;
	char more[24];
};

static struct control messages[VIRTQ_SIZE];

static void tell(uint32_t id, uint16_t event, uint16_t value)
{
	struct control c = {.id = id, .event = event, .value = value};

	virtio_do(&serial, CONTROL_OUT, &(struct virtq_buffer){(uintptr_t)&c, 8, 0, 0}, 1);
}

static void offer(unsigned i)
{
	virtio_put(&serial, CONTROL_IN, i,
		   &(struct virtq_buffer){(uintptr_t)&messages[i], sizeof(messages[i]), VIRTQ_WRITABLE, 0}, 1);
}

static void start_serial(void)
{
	int bdf = pci_find(0x1af4, 0x1003, 0);

	if (bdf < 0 || !virtio_find(&serial, (unsigned)bdf, next_bar()))
		return;
	virtio_start(&serial, 1ull << 32 | 1u << MULTIPORT, 6);
	for (unsigned i = 0; i < VIRTQ_SIZE; i++)
		offer(i);
	tell(0xffffffff, DEVICE_READY, 1);
}

static void poll_serial(void)
{
	if (!serial.common)
		return;
	int i = virtio_get(&serial, CONTROL_IN);
	if (i < 0)
		return;
	const struct control c = messages[i];
	offer((unsigned)i);
	if (c.event == PORT_ADD)
		tell(c.id, PORT_READY, 1);
	else if (c.event == PORT_OPEN)
		put_string(c.value ? "host open\n" : "host closed\n");
}

/* ---- the clock ---- */

enum { RTC_A = 10, RTC_B = 11, RTC_C = 12, RATE_64 = 0x2a, PERIODIC = 0x40, HOURS_24 = 2 };

static uint8_t clock_read(uint8_t reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void clock_write(uint8_t reg, uint8_t value)
{
	outb(0x70, reg);
	outb(0x71, value);
}

static void clock_ticks(bool begin)
{
	uint64_t ticks = 0;

	if (begin) {
		clock_write(RTC_A, RATE_64);
		clock_write(RTC_B, PERIODIC | HOURS_24);
		put_string("ticking\n");
		return;
	}
	for (unsigned edges = 0; edges < 2; edges++)
		for (uint8_t second = clock_read(0); clock_read(0) == second;)
			ticks += clock_read(RTC_C) >> 6 & 1;
	clock_write(RTC_B, HOURS_24);
	say("ticks ", ticks, "\n");
}

/* At CPL 0: a KVM without VMX and SVM sees what user mode asks only on hosts that let CPUID fault. */
static long cpuid_1(long registers, long unused)
{
	uint32_t *to = (uint32_t *)registers; /* EAX, EBX, ECX, EDX */

	(void)unused;
	to[0] = 1;
	to[2] = 0;
	__asm__ volatile("cpuid" : "+a"(to[0]), "=b"(to[1]), "+c"(to[2]), "=d"(to[3]));
	return 0;
}

static void processor(void)
{
	uint32_t registers[4];

	ring0(cpuid_1, (long)registers, 0);
	put_string("cpuid ");
	put_hex(registers[0]);
	put_string(" ");
	put_hex(registers[2]);
	put_string(" ");
	put_hex(registers[3]);
	put_string("\n");
}

/* ---- what it is told ---- */

static void obey(char what, uint64_t n, uint64_t value)
{
	uint8_t byte = (uint8_t)n;

	if (what == 'r' || what == 'w' || what == 'i')
		disk_command(what, n, value);
	else if (what == 'c')
		cd_read(n);
	else if (what == 'l')
		cd_lock(n);
	else if (what == 't')
		clock_write(9, (uint8_t)(n / 10 << 4 | n % 10));
	else if (what == 'j')
		clock_ticks(n);
	else if (what == 'v')
		processor();
	else if (what == 'p')
		outb(0x505, byte);
	else if (what == 'z')
		outw(PM1_CONTROL, (uint16_t)(n << 10 | SLP_EN));
	else if (what == 'b')
		arm_watchdog(n);
	else if (what == 'f')
		net_control(0, 0, &byte, 1);
	else if (what == 's')
		net_send(n);
	else if (what == 'o')
		tell(PORT, PORT_OPEN, (uint16_t)n);
	else if (what == 'x')
		outb(COM2, (uint8_t)('0' + n));
}

/* A letter and at most two numbers; obeyed at the line's end. false: the end. */
static bool poll_com1(void)
{
	static char what;
	static uint64_t number[2];
	static unsigned words;
	uint8_t status = inb(COM1 + LSR);

	if (!(status & LSR_READY))
		return true;
	char c = (char)inb(COM1);
	if (status & LSR_BREAK) {
		put_string("break\n");
	} else if (c == '\n') {
		if (what == 'q')
			return false;
		obey(what, number[0], number[1]);
		what = 0;
		number[0] = number[1] = words = 0;
	} else if (c == ' ') {
		words++;
	} else if (c >= '0' && c <= '9') {
		uint64_t *n = &number[words > 1];
		*n = *n * 10 + (uint64_t)(c - '0');
	} else {
		what = c;
	}
	return true;
}

int payload_main(void)
{
	start_chips();
	start_balloon();
	start_net();
	start_serial();
	put_string("beat at ");
	put_hex((uintptr_t)&beat);
	put_string(", pattern at ");
	put_hex((uintptr_t)pattern);
	put_string("\nready\n");
	while (poll_com1()) {
		beat++;
		poll_chips();
		poll_balloon();
		poll_net();
		poll_serial();
	}
	put_string("PASS observer\n");
	return 0x10;
}
