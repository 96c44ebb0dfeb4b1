/*
 * The KVM room on real KVM: exits, memory, pausing, interrupts. Suite "kvm"; skipped (77) with the reason when this
 * process cannot open /dev/kvm.
 */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kvm_guest.h"

/* ---- port and memory I/O ---- */

PROGRAM(pio, "movb $0x5a, %al; outb %al, $" PORT_DATA "\n"
	     "movw $0x1234, %ax; outw %ax, $" PORT_DATA "\n"
	     "movl $0xdeadbeef, %eax; outl %eax, $" PORT_DATA "\n"
	     "xorl %eax, %eax; inl $0x11, %eax; movl %eax, 0x5000\n"
	     "inb $0x11, %al; movb %al, 0x5004\n"
	     "movw %bx, 0x5006\n"
	     "outb %al, $" PORT_DONE "\n1: hlt; jmp 1b\n");

START_TEST(port_io)
{
	build(_i ? IRQCHIP_SPLIT : IRQCHIP_ON, 1);
	LOAD(pio);
	start();
	wait_for(&t.done, 1);
	kvm_vcpus_pause(t.vm);
	ck_assert_uint_eq(t.n_log, 5);
	const struct log_entry want[] = {
		{true, true, 0x10, 1, 1, 0x5a}, {true, true, 0x10, 2, 1, 0x1234}, {true, true, 0x10, 4, 1, 0xdeadbeef}};
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_uint_eq(t.log[i].addr, want[i].addr);
		ck_assert_uint_eq(t.log[i].size, want[i].size);
		ck_assert_uint_eq(t.log[i].value, want[i].value);
		ck_assert(t.log[i].write);
	}
	ck_assert_uint_eq(get_le32(t.ram + 0x5000), 0xa3a2a1a0);
	ck_assert_uint_eq(t.ram[0x5004], 0xa0);
	ck_assert_uint_eq(get_le16(t.ram + 0x5006), 0x1234); /* the boot state's BX */
	const char *names[N_EXIT_REASONS];
	uint64_t counts[N_EXIT_REASONS], io = 0;
	size_t n = kvm_exit_counts(kvm_vcpu_get(t.vm, 0), names, counts, N_EXIT_REASONS);
	for (size_t i = 0; i < n; i++)
		if (!strcmp(names[i], "io"))
			io = counts[i];
	ck_assert_uint_eq(io, 6);
	teardown();
}
END_TEST

PROGRAM(strings, "cld; movw $0x2000, %si; movw $300, %cx; movw $0x30, %dx\n"
		 "rep outsb\n"
		 "movw $0x3000, %di; movw $100, %cx; movw $0x11, %dx\n"
		 "rep insw\n"
		 "outb %al, $" PORT_DONE "\n1: hlt; jmp 1b\n");

START_TEST(string_io)
{
	uint32_t items = 0;

	build(IRQCHIP_ON, 1);
	LOAD(strings);
	for (unsigned i = 0; i < 300; i++)
		t.ram[0x2000 + i] = (uint8_t)(i * 7);
	start();
	wait_for(&t.done, 1);
	kvm_vcpus_pause(t.vm);
	ck_assert_uint_eq(t.n_strings, 300);
	ck_assert_mem_eq(t.strings, t.ram + 0x2000, 300);
	for (unsigned i = 0; i < t.n_log; i++)
		items += t.log[i].count;
	ck_assert_uint_eq(items, 100);                         /* REP INSW may come in chunks, none lost */
	ck_assert_uint_eq(t.ram[0x3000], (0xa0 + 300) & 0xff); /* what port 11h gave */
	teardown();
}
END_TEST

PROGRAM(mmio, "movw $0xd000, %ax; movw %ax, %ds\n"
	      "movb 0x10, %al; movw 0x20, %bx; movl 0x30, %ecx\n"
	      "movb $0x77, 0x40; movl $0x01020304, 0x44\n"
	      "movw $0xe000, %dx; movw %dx, %ds\n"
	      "movb 0x100, %dl; movb $0x99, 0x100\n"
	      "movw $0, %si; movw %si, %ds\n"
	      "movb %al, 0x5000; movw %bx, 0x5002; movl %ecx, 0x5004; movb %dl, 0x5008\n"
	      "outb %al, $" PORT_DONE "\n1: hlt; jmp 1b\n");

START_TEST(memory_io_and_rom)
{
	build(IRQCHIP_ON, 1);
	LOAD(mmio);
	t.rom[0x100] = 0x42;
	start();
	wait_for(&t.done, 1);
	kvm_vcpus_pause(t.vm);
	ck_assert_uint_eq(t.ram[0x5000], 0x11);
	ck_assert_uint_eq(get_le16(t.ram + 0x5002), 0x2211);
	ck_assert_uint_eq(get_le32(t.ram + 0x5004), 0x44332211);
	ck_assert_uint_eq(t.ram[0x5008], 0x42);
	ck_assert_uint_eq(t.rom[0x100], 0x42); /* the write did not reach the ROM ... */
	ck_assert_uint_eq(t.n_log, 6);
	ck_assert_uint_eq(t.log[3].addr, MMIO_BASE + 0x40);
	ck_assert_uint_eq(t.log[3].value, 0x77);
	ck_assert_uint_eq(t.log[4].value, 0x01020304);
	ck_assert_uint_eq(t.log[5].addr, ROM_BASE + 0x100); /* ... but was reported */
	ck_assert(t.log[5].write);
	ck_assert_uint_eq(t.log[5].value, 0x99);
	teardown();
}
END_TEST

/* ---- memory slots ---- */

/* Copies the byte at 80000h to port 20h again and again. */
PROGRAM(watch, "movw $0x8000, %ax; movw %ax, %ds\n"
	       "1: movb 0, %al; outb %al, $" PORT_DONE "; jmp 1b\n");

START_TEST(slot_swap)
{
	build(IRQCHIP_ON, 1);
	LOAD(watch);
	t.page[0][0] = 0x11;
	t.page[1][0] = 0x22;
	start();
	for (unsigned round = 1; round <= 20; round++) {
		unsigned seen;

		wait_for(&t.done, now(&t.done) + 2);
		kvm_vcpus_pause(t.vm);
		ck_assert_uint_eq(t.done_value, round % 2 ? 0x11 : 0x22);
		set_memory(round % 2, false);
		seen = t.done;
		kvm_vcpus_resume(t.vm);
		wait_for(&t.done, seen + 2);
	}
	teardown();
}
END_TEST

/* Writes one byte to pages 2 and 66 of RAM when told to by port 11h reading odd. */
PROGRAM(dirty, "1: movw $0x200, %ax; movw %ax, %ds; movb $1, 0\n"
	       "movw $0x4200, %ax; movw %ax, %ds; movb $1, 0\n"
	       "outb %al, $" PORT_DONE "\n"
	       "jmp 1b\n");

/* Let the program run three more rounds, then stand. */
static void write_more(void)
{
	unsigned seen = t.done;

	kvm_vcpus_resume(t.vm);
	wait_for(&t.done, seen + 3);
	kvm_vcpus_pause(t.vm);
}

START_TEST(dirty_log)
{
	unsigned long map[4] = {0}, low = 0;

	build(IRQCHIP_ON, 1);
	LOAD(dirty);
	start();
	wait_for(&t.done, 1);
	set_memory(0, true); /* while it runs */
	kvm_vcpus_pause(t.vm);
	ck_assert_int_eq(kvm_get_dirty(t.vm, 0, 0x80000, map), 0); /* may report all */
	memset(map, 0, sizeof(map));
	ck_assert_int_eq(kvm_get_dirty(t.vm, 0, 0x80000, map), 0);
	ck_assert_uint_eq(map[0] | map[1], 0);
	write_more();
	/* Asking for a part must not lose the rest. */
	ck_assert_int_eq(kvm_get_dirty(t.vm, 0, 0x10000, &low), 0);
	ck_assert_uint_eq(low, 1ul << 2);
	ck_assert_int_eq(kvm_get_dirty(t.vm, 0x1000, 0x7f000, map), 0);
	ck_assert_uint_eq(map[0], 0);
	ck_assert_uint_eq(map[1], 1ul << (66 - 1 - 64));
	set_memory(0, false);
	memset(map, 0, sizeof(map));
	ck_assert_int_eq(kvm_get_dirty(t.vm, 0, 0x80000, map), 0);
	ck_assert_uint_eq(map[0] | map[1], 0);
	teardown();
}
END_TEST

/* Looked at, then cleared: what is not cleared is told again, what is cleared is told when it is written again. */
START_TEST(dirty_log_in_two_steps)
{
	unsigned long map[4] = {0}, clear[4] = {0};

	build(IRQCHIP_ON, 1);
	if (!t.vm->caps.dirty_protect) { /* it is one step there */
		teardown();
		return;
	}
	LOAD(dirty);
	start();
	wait_for(&t.done, 1);
	set_memory(0, true);
	kvm_vcpus_pause(t.vm);
	ck_assert_int_eq(kvm_get_dirty(t.vm, 0, 0x80000, map), 0);
	write_more();
	for (int i = 0; i < 2; i++) {
		memset(map, 0, sizeof(map));
		ck_assert_int_eq(kvm_look_dirty(t.vm, 0, 0x80000, map), 0);
		ck_assert_uint_eq(map[0], 1ul << 2);
		ck_assert_uint_eq(map[1], 1ul << (66 - 64));
	}
	/* Page 66 by a range that begins in the middle of a word of the log; page 67, which is in it too, was not
	 * written. */
	clear[0] = 1ul << (66 - 65) | 1ul << (67 - 65);
	ck_assert_int_eq(kvm_clear_dirty(t.vm, 65 * 0x1000, 0x10000, clear, 0), 1);
	memset(map, 0, sizeof(map));
	ck_assert_int_eq(kvm_look_dirty(t.vm, 0, 0x80000, map), 0);
	ck_assert_uint_eq(map[0], 1ul << 2);
	ck_assert_uint_eq(map[1], 0);
	write_more();
	ck_assert_int_eq(kvm_look_dirty(t.vm, 0, 0x80000, map), 0);
	ck_assert_uint_eq(map[1], 1ul << (66 - 64));
	teardown();
}
END_TEST

START_TEST(bad_memory)
{
	struct err e = ERR_INIT;

	build(IRQCHIP_ON, 1);
	ck_assert_int_eq(kvm_vm_ready(t.vm, &e), 0);
	const struct kvm_memory overlap[] = {{0, 0x2000, t.ram, false, false}, {0x1000, 0x1000, t.ram, false, false}};
	ck_assert_int_eq(kvm_set_memory(t.vm, overlap, 2, &e), -EINVAL);
	const struct kvm_memory odd[] = {{0, 0x1800, t.ram, false, false}};
	ck_assert_int_eq(kvm_set_memory(t.vm, odd, 1, &e), -EINVAL);
	ck_assert(strstr(e.msg, "0x0"));
	kvm_vm_free(t.vm);
}
END_TEST

/* ---- two CPUs, pause and resume ---- */

/* The boot CPU starts the other one through the x2APIC, then both count, at 5000h and 5010h, with I/O in between. */
PROGRAM(two,
	"movl $0x1b, %ecx; rdmsr; orl $0xc00, %eax; wrmsr\n"
	"movl $0x830, %ecx; xorl %edx, %edx; movl $0xc4500, %eax; wrmsr\n"
	"movl $0xc4602, %eax; wrmsr\n"
	"1: incl 0x5000; movl 0x5000, %eax; movl %eax, 0x5004; inb $0x11, %al; incl 0x5008; outb %al, $0x60; jmp 1b\n");
PROGRAM(ap, "1: incl %cs:0x3010-0x2000; movl %cs:0x1010, %eax; movl %eax, %cs:0x1014; outb %al, $0x70; jmp 1b\n");

static void hammer(enum irqchip_mode mode)
{
	uint32_t cpu1 = 0;

	build(mode, 2);
	LOAD(two);
	memcpy(t.ram + 0x2000, prog_ap, (size_t)(prog_ap_end - prog_ap));
	start();
	wait_for(&t.done, 50);
	for (unsigned i = 0; i < 300; i++) {
		uint32_t a[3], b;

		kvm_vcpus_pause(t.vm);
		memcpy(a, t.ram + 0x5000, 12);
		b = get_le32(t.ram + 0x3010);
		sched_yield();
		/* Nobody runs. */
		ck_assert_mem_eq(a, t.ram + 0x5000, 12);
		ck_assert_uint_eq(b, get_le32(t.ram + 0x3010));
		ck_assert_uint_le(a[0] - a[1], 1);
		cpu1 = b;
		kvm_vcpus_resume(t.vm);
		if (i % 16 == 0)
			wait_for(&t.done, now(&t.done) + 2);
	}
	ck_assert_uint_gt(cpu1, 0);
	ck_assert_uint_eq(t.errors, 0);
	teardown();
}

START_TEST(pause_hammer)
{
	hammer(_i ? IRQCHIP_SPLIT : IRQCHIP_ON);
}
END_TEST

static void release(void *arg)
{
	__atomic_store_n((bool *)arg, true, __ATOMIC_SEQ_CST);
}

START_TEST(grace_period)
{
	static bool called;
	bool at_once = false;

	called = false;
	build(IRQCHIP_ON, 1);
	kvm_call_after_grace(t.vm, release, &at_once); /* paused: nobody to wait for */
	ck_assert(at_once);
	LOAD(watch);
	pthread_mutex_lock(&t.lock);
	t.block = true;
	pthread_mutex_unlock(&t.lock);
	start();
	pthread_mutex_lock(&t.lock);
	while (!t.blocked)
		pthread_cond_wait(&t.changed, &t.lock);
	pthread_mutex_unlock(&t.lock);
	kvm_call_after_grace(t.vm, release, &called);
	ck_assert(!__atomic_load_n(&called, __ATOMIC_SEQ_CST)); /* the vCPU is inside its handler */
	pthread_mutex_lock(&t.lock);
	t.block = false;
	unsigned seen = t.done;
	pthread_cond_broadcast(&t.changed);
	pthread_mutex_unlock(&t.lock);
	wait_for(&t.done, seen + 2);
	ck_assert(__atomic_load_n(&called, __ATOMIC_SEQ_CST));
	teardown();
}
END_TEST

/* ---- interrupts ---- */

/* The port access after the EOI is for hosts whose KVM emulates all of CPL 0 in one go: there the EOI's exit comes with
   the next one. */
/* Interrupt 25h counts at 5000h and says so at port 70h; x2APIC's EOI for 35h; NMI counts at 5008h. */
PROGRAM(irq,
	"jmp 1f\n"
	"2: incl 0x5000; pushw %ax; movb $0x20, %al; outb %al, $0xa0; outb %al, $0x20; outb %al, $0x70; popw %ax; "
	"iretw\n"
	"3: incl 0x5004; pushal; movl $0x80b, %ecx; xorl %eax, %eax; xorl %edx, %edx; wrmsr; popal; outb %al, $0x31; "
	"iretw\n"
	"4: incl 0x5008; pushw %ax; outb %al, $0x70; popw %ax; iretw\n"
	"1: movw $(2b - prog_irq + 0x1000), 0x25*4; movw %cs, 0x25*4+2\n"
	"movw $(3b - prog_irq + 0x1000), 0x35*4; movw %cs, 0x35*4+2\n"
	"movw $(4b - prog_irq + 0x1000), 2*4; movw %cs, 2*4+2\n"
	/* 8259A: ICW1..4, vectors 20h and 28h, only IRQ 5 unmasked */
	"movb $0x11, %al; outb %al, $0x20; outb %al, $0xa0; movb $0x20, %al; outb %al, $0x21; movb $0x28, %al\n"
	"outb %al, $0xa1; movb $4, %al; outb %al, $0x21; movb $2, %al; outb %al, $0xa1; movb $1, %al; outb %al, $0x21\n"
	"outb %al, $0xa1; movb $0xdf, %al; outb %al, $0x21; movb $0xff, %al; outb %al, $0xa1\n"
	/* x2APIC on, software-enabled, LINT1 = NMI */
	"movl $0x1b, %ecx; rdmsr; orl $0xc00, %eax; wrmsr\n"
	"movl $0x80f, %ecx; xorl %edx, %edx; movl $0x1ff, %eax; wrmsr\n"
	"movl $0x836, %ecx; movl $0x400, %eax; wrmsr\n"
	"outb %al, $0x30; sti\n"
	"5: hlt; jmp 5b\n");

static void wait_ready(void)
{
	wait_for(&t.n_strings, 1); /* port 30h */
}

START_TEST(irqchip_on_delivers)
{
	build(IRQCHIP_ON, 1);
	LOAD(irq);
	start();
	wait_ready();
	for (unsigned i = 1; i <= 20; i++) {
		ck_assert_int_eq(kvm_irq_line(t.vm, 5, true), 0);
		ck_assert_int_eq(kvm_irq_line(t.vm, 5, false), 0);
		wait_for(&t.done, i);
	}
	/* An MSI through an allocated route and an irqfd. */
	struct err e = ERR_INIT;
	int gsi = kvm_msi_route_alloc(t.vm, &e), fd = eventfd(0, EFD_CLOEXEC);
	uint64_t one = 1;

	ck_assert_int_ge(gsi, 24);
	ck_assert_int_eq(kvm_msi_route_set(t.vm, gsi, 0xfee00000, 0x25), 0);
	ck_assert_int_eq(kvm_irqfd(t.vm, gsi, fd, -1, true), 0);
	ck_assert_int_eq(write(fd, &one, 8), 8);
	wait_for(&t.done, 21);
	ck_assert_int_eq(kvm_irqfd(t.vm, gsi, fd, -1, false), 0);
	kvm_msi_route_free(t.vm, gsi);
	close(fd);
	/* The board's own routes survived the new table. */
	struct kvm_lapic_state lapic;
	kvm_vcpus_pause(t.vm);
	ck_assert_int_eq(vcpu_ioctl(kvm_vcpu_get(t.vm, 0), KVM_GET_LAPIC, &lapic), 0);
	put_le32(lapic.regs + 0x110,
		 0); /* the MSI's handler gave the 8259 its EOI, not the APIC: done here (ISR 20h-3fh) */
	ck_assert_int_eq(vcpu_ioctl(kvm_vcpu_get(t.vm, 0), KVM_SET_LAPIC, &lapic), 0);
	kvm_vcpus_resume(t.vm);
	kvm_irq_line(t.vm, 5, true);
	kvm_irq_line(t.vm, 5, false);
	wait_for(&t.done, 22);
	kvm_vcpus_pause(t.vm);
	ck_assert_uint_eq(get_le32(t.ram + 0x5000), 22);
	teardown();
}
END_TEST

static void pulse_pic(void)
{
	pthread_mutex_lock(&t.lock);
	t.pic_level = true;
	pthread_mutex_unlock(&t.lock);
	kvm_pic_output(t.vm, true);
}

START_TEST(split_delivers)
{
	build(IRQCHIP_SPLIT, 1);
	LOAD(irq);
	start();
	wait_ready();
	unsigned base = now(&t.done);
	for (unsigned i = 1; i <= 20; i++) {
		pulse_pic();
		wait_for(&t.done, base + i);
	}
	ck_assert_uint_eq(now(&t.acks), 20);
	/* A level interrupt of the IOAPIC: its EOI comes back to us; an edge's does not. */
	ck_assert_int_eq(kvm_ioapic_route(t.vm, 9, 0xfee00000, 0x35 | BIT(15) | BIT(14), false, true), 0);
	ck_assert_int_eq(kvm_signal_msi(t.vm, 0xfee00000, 0x35 | BIT(15) | BIT(14)), 0);
	wait_for(&t.eois, 1);
	pthread_mutex_lock(&t.lock);
	ck_assert_uint_eq(t.last_eoi, 0x35);
	pthread_mutex_unlock(&t.lock);
	/* Masked: an interrupt that is already under way still has its EOI reported. */
	ck_assert_int_eq(kvm_ioapic_route(t.vm, 9, 0xfee00000, 0x35 | BIT(15) | BIT(14), true, true), 0);
	ck_assert_int_eq(kvm_signal_msi(t.vm, 0xfee00000, 0x35 | BIT(15) | BIT(14)), 0);
	wait_for(&t.eois, 2);
	teardown();
}
END_TEST

/* Every acknowledged vector is handled exactly once, however often the vCPU is stopped in between. */
START_TEST(split_loses_nothing)
{
	struct kvm_vcpu *c;
	struct err e = ERR_INIT;

	build(IRQCHIP_SPLIT, 1);
	c = kvm_vcpu_get(t.vm, 0);
	LOAD(irq);
	start();
	wait_ready();
	for (unsigned i = 1; i <= 1000; i++) {
		pulse_pic();
		kvm_vcpus_pause(t.vm);
		if (i % 8 == 0) { /* through a save and a load */
			ck_assert_int_eq(kvm_vcpu_state.pre_save(c, &e), 0);
			struct vcpu_image *m = malloc(sizeof(*m));

			*m = c->image;
			kvm_vcpu_reset(c);
			c->image = *m;
			free(m);
			ck_assert_int_eq(kvm_vcpu_settle(c, &e), 0);
		}
		kvm_vcpus_resume(t.vm);
		wait_for(&t.done, i);
	}
	kvm_vcpus_pause(t.vm);
	ck_assert_uint_eq(t.acks, 1000);
	ck_assert_uint_eq(get_le32(t.ram + 0x5000), 1000);
	teardown();
}
END_TEST

START_TEST(nmi_through_lint1)
{
	build(_i ? IRQCHIP_SPLIT : IRQCHIP_ON, 1);
	LOAD(irq);
	start();
	wait_ready();
	unsigned base = now(&t.done);
	kvm_inject_nmi(t.vm, -1);
	wait_for(&t.done, base + 1);
	kvm_vcpus_pause(t.vm);
	ck_assert_uint_eq(get_le32(t.ram + 0x5008), 1);
	/* LINT1 masked, as after reset: nothing arrives. */
	kvm_vcpu_reset(kvm_vcpu_get(t.vm, 0));
	kvm_inject_nmi(t.vm, 0);
	LOAD(watch);
	start();
	base = now(&t.done);
	wait_for(&t.done, base + 3);
	kvm_vcpus_pause(t.vm);
	ck_assert_uint_eq(get_le32(t.ram + 0x5008), 1);
	teardown();
}
END_TEST

PROGRAM(doorbell, "movw $0x50, %dx; movl $7, %eax; outl %eax, %dx; movl $8, %eax; outl %eax, %dx\n"
		  "outb %al, $" PORT_DONE "\n1: hlt; jmp 1b\n");

START_TEST(ioeventfd)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t n = 0;

	build(IRQCHIP_ON, 1);
	LOAD(doorbell);
	ck_assert_int_eq(kvm_ioeventfd(t.vm, true, 0x50, 4, true, 7, fd, true), 0);
	start();
	wait_for(&t.done, 1);
	ck_assert_int_eq(read(fd, &n, 8), 8);
	ck_assert_uint_eq(n, 1);
	ck_assert_uint_eq(t.n_log, 1); /* the other value came the long way */
	ck_assert_uint_eq(t.log[0].value, 8);
	ck_assert_int_eq(kvm_ioeventfd(t.vm, true, 0x50, 4, true, 7, fd, false), 0);
	teardown();
	close(fd);
}
END_TEST

/* ---- ends ---- */

PROGRAM(triple, "movw $0x5000, %bx; lidtw (%bx); movl %cr0, %eax; orb $1, %al; movl %eax, %cr0; ud2\n1: jmp 1b\n");

START_TEST(triple_fault_then_reset)
{
	build(IRQCHIP_ON, 1);
	LOAD(triple);
	start();
	wait_for(&t.triple, 1);
	kvm_vcpus_pause(t.vm);
	kvm_vcpus_resume(t.vm); /* it stays put */
	kvm_vcpus_pause(t.vm);
	ck_assert_uint_eq(t.triple, 1);
	LOAD(pio);
	start();
	wait_for(&t.done, 1);
	teardown();
}
END_TEST

/* Jump to where no memory is: KVM cannot fetch, so it cannot emulate. */
PROGRAM(lost, "ljmpw $0xd000, $0x123\n");

START_TEST(internal_error_tells_where)
{
	build(IRQCHIP_ON, 1);
	LOAD(lost);
	start();
	wait_for(&t.errors, 1);
	ck_assert_msg(strstr(t.error, "d000:123"), "%s", t.error);
	ck_assert_msg(strstr(t.error, "real mode"), "%s", t.error);
	kvm_vcpus_pause(t.vm);
	ck_assert_uint_eq(t.errors, 1);
	teardown();
}
END_TEST

START_TEST(start_and_free)
{
	for (unsigned i = 0; i < 10; i++) {
		build(i % 2 ? IRQCHIP_SPLIT : IRQCHIP_ON, 2);
		ck_assert_int_gt(kvm_vcpu_thread_id(kvm_vcpu_get(t.vm, 1)), 0);
		kvm_vm_free(t.vm);
		munmap(t.ram, RAM_SIZE);
		munmap(t.rom, 0x10000);
		munmap(t.page[0], 0x1000);
		munmap(t.page[1], 0x1000);
	}
	kvm_vm_free(NULL);
}
END_TEST

/* ---- what counting costs ---- */

PROGRAM(many_exits, "movw $20000, %cx\n1: outb %al, $" PORT_DATA "\nloop 1b\n"
		    "outb %al, $" PORT_DONE "\n2: hlt; jmp 2b\n");

static void no_pio(void *opaque, uint16_t port, bool write, void *data, unsigned size, uint32_t count)
{
}

static uint64_t ns_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Counting an exit, remembering it and finding its handler, against an exit: the best of a few runs of each. */
START_TEST(counting_costs_less_than_a_hundredth)
{
	static const struct kvm_exit_ops quiet = {.pio = no_pio};
	static struct kvm_vm vm = {.ops = &quiet};
	static struct kvm_vcpu vcpu = {.vm = &vm};
	static union {
		struct kvm_run run;
		uint8_t page[4096];
	} shared;
	double exit_ns = 1e9, counting_ns = 1e9;
	const unsigned n = 20000;

	build(IRQCHIP_ON, 1);
	LOAD(many_exits);
	for (unsigned i = 1; i <= 3; i++) {
		uint64_t begin = ns_now();

		kvm_vcpus_pause(t.vm);
		start();
		wait_for(&t.done, i);
		exit_ns = MIN(exit_ns, (double)(ns_now() - begin) / n);
	}
	teardown();
	vcpu.run = &shared.run;
	shared.run.exit_reason = KVM_EXIT_IO;
	shared.run.io.direction = KVM_EXIT_IO_OUT;
	shared.run.io.size = 1;
	shared.run.io.count = 1;
	shared.run.io.data_offset = 2048;
	for (unsigned i = 0; i < 10; i++) {
		uint64_t begin = ns_now();

		for (unsigned k = 0; k < n; k++)
			vcpu_handle_exit(&vcpu);
		counting_ns = MIN(counting_ns, (double)(ns_now() - begin) / n);
	}
	printf("an exit: %.0f ns, of which counting: %.1f ns\n", exit_ns, counting_ns);
	ck_assert_uint_eq(atomic_load(&vcpu.exits[KVM_EXIT_IO]), 10 * n);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	ck_assert_msg(counting_ns < exit_ns / 100, "%.1f ns of %.0f ns", counting_ns, exit_ns);
#endif
}
END_TEST

int main(void)
{
	const struct kvm_test tests[] = {
		KVM_TEST(port_io, 2),
		KVM_TEST(string_io, 1),
		KVM_TEST(memory_io_and_rom, 1),
		KVM_TEST(slot_swap, 1),
		KVM_TEST(dirty_log, 1),
		KVM_TEST(dirty_log_in_two_steps, 1),
		KVM_TEST(bad_memory, 1),
		KVM_TEST(pause_hammer, 2),
		KVM_TEST(grace_period, 1),
		KVM_TEST(irqchip_on_delivers, 1),
		KVM_TEST(split_delivers, 1),
		KVM_TEST(split_loses_nothing, 1),
		KVM_TEST(nmi_through_lint1, 2),
		KVM_TEST(ioeventfd, 1),
		KVM_TEST(triple_fault_then_reset, 1),
		KVM_TEST(internal_error_tells_where, 1),
		KVM_TEST(start_and_free, 1),
		KVM_TEST(counting_costs_less_than_a_hundredth, 1),
	};

	return kvm_tests("kvm", tests, ARRAY_SIZE(tests));
}
