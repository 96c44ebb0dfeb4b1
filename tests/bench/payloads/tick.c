/*
 * A guest that does nothing but tick, as SeaBIOS does at its prompt: HLT between the 18.2 interrupts a second of the
 * 8254's channel 0, and for each of them about as much work as SeaBIOS's handler and wait loop do: 620 instructions
 * in all (counted with KVM's trace point kvm_emulate_insn), among them an end of interrupt and two reads of ports
 * that KVM leaves to the VMM: 92h and 70h.
 *
 * The same ROM runs under vmm, QEMU and bare KVM (tests/bench/limits/tickloop.c): what bare KVM needs for it no VMM
 * can go below.
 */
#include "payload.h"

enum {
	PIC_MASTER = 0x20,
	PIC_SLAVE = 0xa0,
	PIT_CHANNEL0 = 0x40,
	PIT_MODE = 0x43,
	PORT_A = 0x92,
	CMOS_INDEX = 0x70,

	IRQ_BASE = 0x20, /* vector of IRQ 0 */
	CODE = 0x08,     /* start.S's selector */
	IDT = 0x2000,
	BUFFER = 0x3000,
	COPIES = 2,
	COPIED = 50, /* bytes; 6 instructions for each */
};

struct gate {
	uint16_t offset_low, selector, flags, offset_high;
};

extern void tick_entry(void);

/* Never inlined: the calls are part of the work. */
__attribute__((noinline)) static void copy_bytes(uint32_t to, uint32_t from)
{
	uint32_t n = COPIED;

	__asm__ volatile("1: movb (%1), %%al\n\tmovb %%al, (%0)\n\tincl %0\n\tincl %1\n\tdecl %2\n\tjnz 1b"
			 : "+r"(to), "+r"(from), "+r"(n)
			 :
			 : "eax", "memory", "cc");
}

__attribute__((used)) void tick(void)
{
	outb(PIC_MASTER, 0x20);
	(void)inb(PORT_A);
	(void)inb(CMOS_INDEX);
	for (uint32_t i = 0; i < COPIES; i++)
		copy_bytes(BUFFER, BUFFER + 0x100);
}

/* Leaves the interrupt by waiting for the next one: KVM's emulator, which runs CPL 0 on some hosts, has no IRET for
 * protected mode. */
__asm__(".globl tick_entry\n"
	"tick_entry:\n"
	"	pusha\n"
	"	call tick\n"
	"	popa\n"
	"	addl $12, %esp\n"
	"1:	sti\n"
	"	hlt\n"
	"	jmp 1b\n");

static void init_pics(void)
{
	outb(PIC_MASTER, 0x11); /* ICW1: edge, cascade, ICW4 follows */
	outb(PIC_MASTER + 1, IRQ_BASE);
	outb(PIC_MASTER + 1, 0x04);
	outb(PIC_MASTER + 1, 0x01);
	outb(PIC_SLAVE, 0x11);
	outb(PIC_SLAVE + 1, IRQ_BASE + 8);
	outb(PIC_SLAVE + 1, 0x02);
	outb(PIC_SLAVE + 1, 0x01);
	outb(PIC_SLAVE + 1, 0xff);
	outb(PIC_MASTER + 1, 0xfe); /* IRQ 0 alone */
}

/* Virtual wire mode (MultiProcessor Specification 1.4, 3.6.2.2): the 8259s' output reaches the processor through LINT0.
 */
static void init_apic(void)
{
	*(volatile uint32_t *)0xfee000f0 = 0x1ff; /* spurious interrupt vector register: on */
	*(volatile uint32_t *)0xfee00350 = 0x700; /* LINT0: ExtINT */
}

static void init_idt(void)
{
	struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) idtr = {(IRQ_BASE + 1) * sizeof(struct gate) - 1, IDT};
	volatile struct gate *g = (struct gate *)IDT + IRQ_BASE;
	uint32_t entry = (uint32_t)tick_entry;

	g->offset_low = (uint16_t)entry;
	g->selector = CODE;
	g->flags = 0x8e00; /* present, 32-bit interrupt gate */
	g->offset_high = (uint16_t)(entry >> 16);
	__asm__ volatile("lidt %0" : : "m"(idtr) : "memory");
}

int payload_main(void)
{
	init_idt();
	init_pics();
	init_apic();
	outb(PIT_MODE, 0x34); /* channel 0, both bytes, mode 2 */
	outb(PIT_CHANNEL0, 0);
	outb(PIT_CHANNEL0, 0);
	put_text("T");
	for (;;)
		__asm__ volatile("sti\n\thlt" : : : "memory");
}
