/* The KVM room on real KVM: the state of vCPUs and of KVM's chips, out and in again. Suite "kvm", as test_kvm.c. */
#include <stdlib.h>

#include "kvm_guest.h"
#include "vmm/cpu_regs.h"

/* ---- save, load, reset ---- */

/* MSR 0x10, the TSC, runs on while the vCPU is paused: not compared. */
static void blank_tsc(struct vcpu_image *m)
{
	for (uint32_t i = 0; i < m->msrs_len; i += 12)
		if (get_le32(m->msrs + i) == 0x10)
			put_le64(m->msrs + i + 4, 0);
}

PROGRAM(count,
	"movl $0x12345678, %edx; movl $0x174, %ecx; pushl %edx; xorl %edx, %edx; movl $0x77, %eax; wrmsr; popl %edx\n"
	"fninit; xorl %ecx, %ecx\n"
	"1: incl %ecx; movl %ecx, 0x5000; movl %edx, 0x5004; inb $0x11, %al; outb %al, $0x60; jmp 1b\n");

START_TEST(state_round_trip)
{
	struct kvm_vcpu *c;
	struct vcpu_image *first = malloc(sizeof(*first)), *second = malloc(sizeof(*second));
	struct err e = ERR_INIT;

	build(_i ? IRQCHIP_SPLIT : IRQCHIP_ON, 1);
	c = kvm_vcpu_get(t.vm, 0);
	LOAD(count);
	start();
	wait_for(&t.done, 5);
	kvm_vcpus_pause(t.vm);
	ck_assert_msg(kvm_vcpu_state.pre_save(c, &e) == 0, "%s", e.msg);
	*first = c->image;
	ck_assert_uint_eq(first->gpr[2], 0x12345678);
	uint32_t count = (uint32_t)first->gpr[1];

	kvm_vcpu_reset(c);
	ck_assert_int_eq(kvm_vcpu_state.pre_save(c, &e), 0);
	ck_assert_uint_eq(c->image.rip, 0xfff0);
	ck_assert_uint_eq(c->image.seg[1].base, 0xffff0000);
	ck_assert_uint_eq(c->image.cr0 & ~0x10u, 0x60000000);
	ck_assert_uint_eq(c->image.gpr[2], cpuid_signature(&t.vm->cpu));

	c->image = *first;
	ck_assert_msg(kvm_vcpu_state.post_load(c, 1, &e) == 0, "%s", e.msg);
	ck_assert_msg(kvm_vcpu_settle(c, &e) == 0, "%s", e.msg);
	ck_assert_int_eq(kvm_vcpu_state.pre_save(c, &e), 0);
	*second = c->image;
	blank_tsc(first);
	blank_tsc(second);
	ck_assert_mem_eq(first, second, sizeof(*first));

	put_le32(t.ram + 0x5004, 0);
	unsigned seen = t.done;
	kvm_vcpus_resume(t.vm);
	wait_for(&t.done, seen + 2);
	kvm_vcpus_pause(t.vm);
	ck_assert_uint_gt(get_le32(t.ram + 0x5000), count);
	ck_assert_uint_lt(get_le32(t.ram + 0x5000), count + 1000000);
	ck_assert_uint_eq(get_le32(t.ram + 0x5004), 0x12345678);
	teardown();
	free(first);
	free(second);
}
END_TEST

START_TEST(state_refused)
{
	struct kvm_vcpu *c;
	struct err e = ERR_INIT;

	build(IRQCHIP_ON, 1);
	c = kvm_vcpu_get(t.vm, 0);
	ck_assert_int_eq(kvm_vcpu_state.pre_save(c, &e), 0);
	uint32_t len = c->image.msrs_len;
	c->image.msrs_len = len - 1;
	ck_assert_int_lt(kvm_vcpu_state.post_load(c, 1, &e), 0);
	c->image.msrs_len = len;
	put_le32(c->image.msrs + 12, get_le32(c->image.msrs));
	ck_assert_int_lt(kvm_vcpu_state.post_load(c, 1, &e), 0);
	ck_assert_int_eq(kvm_vcpu_state.pre_save(c, &e), 0);
	c->image.xsave_len = 100;
	ck_assert_int_lt(kvm_vcpu_state.post_load(c, 1, &e), 0);
	ck_assert(strstr(e.msg, "extended state"));
	/* A register this KVM does not know, with a value: named. */
	ck_assert_int_eq(kvm_vcpu_state.pre_save(c, &e), 0);
	put_le32(c->image.msrs + len - 12, 0xdeadbeef);
	put_le64(c->image.msrs + len - 8, 1);
	ck_assert_int_eq(kvm_vcpu_state.post_load(c, 1, &e), 0);
	ck_assert_int_lt(kvm_vcpu_settle(c, &e), 0);
	ck_assert_msg(strstr(e.msg, "0xdeadbeef"), "%s", e.msg);
	/* Random bytes never crash and leave a vCPU that can be reset. */
	srand(1);
	for (unsigned round = 0; round < 50; round++) {
		ck_assert_int_eq(kvm_vcpu_state.pre_save(c, &e), 0);
		for (unsigned i = 0; i < 200; i++)
			((uint8_t *)&c->image)[(unsigned)rand() % sizeof(c->image)] = (uint8_t)rand();
		if (kvm_vcpu_state.post_load(c, 1, &e) == 0)
			kvm_vcpu_settle(c, &e);
		kvm_vcpu_reset(c);
	}
	kvm_vm_free(t.vm);
}
END_TEST

/* A debugger's view of the FPU's control words, which KVM hands out in two places. */
START_TEST(fpu_control_words)
{
	struct cpu_regs r, back;
	struct kvm_vcpu *c;

	build(IRQCHIP_ON, 1);
	c = kvm_vcpu_get(t.vm, 0);
	ck_assert_int_eq(kvm_vcpu_get_regs(c, &r), 0);
	ck_assert_uint_eq(r.mxcsr, 0x1f80);
	ck_assert_uint_eq(r.fcw, 0x37f);
	r.mxcsr = 0x7fa0;
	r.fcw = 0x27f;
	r.xmm[5][3] = 0x55;
	ck_assert_int_eq(kvm_vcpu_set_regs(c, &r), 0);
	ck_assert_int_eq(kvm_vcpu_get_regs(c, &back), 0);
	ck_assert_uint_eq(back.mxcsr, 0x7fa0);
	ck_assert_uint_eq(back.fcw, 0x27f);
	ck_assert_uint_eq(back.xmm[5][3], 0x55);
	kvm_vcpu_reset(c);
	ck_assert_int_eq(kvm_vcpu_get_regs(c, &back), 0);
	ck_assert_uint_eq(back.mxcsr, 0x1f80);
	ck_assert_uint_eq(back.fcw, 0x37f);
	teardown();
}
END_TEST

START_TEST(another_hosts_needs)
{
	static const struct {
		const char *needs, *has, *lacking;
	} cases[] = {
		{"xsave=4096 xcrs", "xsave=4096 debugregs xcrs", NULL},
		{"xsave=4096", "xsave=11008", NULL},
		{"xsave=11008 xcrs", "xsave=4096 xcrs", "xsave=11008 xcrs"},
		{"xsave=4096 nested=4224", "xsave=4096", "nested=4224"},
		{"xcrs debugregs", "xcrs", "debugregs"},
		{"xcr", "xcrs", "xcr"},
		{"xsave=1", "xsave", "xsave=1"},
		{"=5 ", "xsave=9", "=5 "},
		{"", "", NULL},
		{"xsave=99999999999999999999999", "xsave=4096", "xsave=99999999999999999999999"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *lacking = kvm_state_lacks(cases[i].needs, cases[i].has);

		ck_assert_msg(!lacking == !cases[i].lacking && (!lacking || !strcmp(lacking, cases[i].lacking)),
			      "%zu: %s", i, lacking);
	}
}
END_TEST

/* What a description tells of it; nothing of nested guests for a processor that cannot have them. */
START_TEST(needs_of_the_state)
{
	char *needs;

	build_cpu(IRQCHIP_ON, 1, "qemu64,-svm");
	needs = kvm_state_needs(t.vm);
	ck_assert_msg(strstr(needs, "xsave=") && strtoul(strstr(needs, "xsave=") + 6, NULL, 10) >= 4096, "%s", needs);
	ck_assert_msg(!strstr(needs, "nested"), "%s", needs);
	ck_assert_ptr_null(kvm_state_lacks(needs, needs));
	free(needs);
	teardown();
}
END_TEST

START_TEST(clock_and_chips)
{
	uint64_t ns = 0;
	struct pic_state pic, back;
	struct ioapic_state io, io2;

	build(IRQCHIP_ON, 1);
	ck_assert_int_eq(kvm_clock_set(t.vm, 123456789000ull), 0);
	ck_assert_int_eq(kvm_clock_get(t.vm, &ns), 0);
	ck_assert_uint_ge(ns, 123456789000ull);
	ck_assert_uint_lt(ns, 123456789000ull + 10000000000ull);
	ck_assert_int_eq(kvm_get_pic(t.vm, 1, &pic), 0);
	pic.imr = 0xa5;
	pic.irq_base = 0x70;
	ck_assert_int_eq(kvm_set_pic(t.vm, 1, &pic), 0);
	ck_assert_int_eq(kvm_get_pic(t.vm, 1, &back), 0);
	ck_assert_mem_eq(&pic, &back, sizeof(pic));
	ck_assert_int_eq(kvm_get_ioapic(t.vm, &io), 0);
	ck_assert_uint_eq(io.base_address, 0xfec00000);
	io.redirtbl[3] = 0x10033;
	ck_assert_int_eq(kvm_set_ioapic(t.vm, &io), 0);
	ck_assert_int_eq(kvm_get_ioapic(t.vm, &io2), 0);
	ck_assert_uint_eq(io2.redirtbl[3], 0x10033);
	kvm_vm_free(t.vm);
}
END_TEST

int main(void)
{
	const struct kvm_test tests[] = {
		KVM_TEST(state_round_trip, 2),   KVM_TEST(state_refused, 1),       KVM_TEST(fpu_control_words, 1),
		KVM_TEST(needs_of_the_state, 1), KVM_TEST(another_hosts_needs, 1), KVM_TEST(clock_and_chips, 1),
	};

	return kvm_tests("kvm_state", tests, ARRAY_SIZE(tests));
}
