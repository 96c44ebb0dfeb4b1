/*
 * For debuggers: registers one by one, KVM_SET_GUEST_DEBUG, and whose a trap is. Source: api.rst 4.87
 * (KVM_SET_GUEST_DEBUG), 4.31 (vCPU events); Intel SDM 3B, 17.2 (debug registers).
 *
 * A trap that the debugger did not ask for is the guest's own and is given back to it as the exception it was.
 */
#include "src/kvm/kvm_internal.h"

#include <stdlib.h>
#include "vmm/cpu_regs.h"

#define MSR_KERNEL_GS_BASE 0xc0000102u

#ifndef KVM_GUESTDBG_BLOCKIRQ
#define KVM_GUESTDBG_BLOCKIRQ 0x00100000
#endif

/* ---- registers ---- */

/* KVM_GET_MSRS or KVM_SET_MSRS of one register. */
static int kernel_gs_base(struct kvm_vcpu *c, unsigned long request, uint64_t *value)
{
	struct kvm_msrs *m = xzalloc(sizeof(*m) + sizeof(m->entries[0]));
	int r;

	m->nmsrs = 1;
	m->entries[0].index = MSR_KERNEL_GS_BASE;
	m->entries[0].data = *value;
	r = vcpu_ioctl(c, request, m);
	if (r == 1)
		*value = m->entries[0].data;
	free(m);
	return r == 1 ? 0 : r < 0 ? r : -EINVAL;
}

/*
 * The legacy region of the XSAVE area, SDM 1, 10.5.1 and 13.4.1. Not KVM_GET_FPU and KVM_SET_FPU: they leave MXCSR out,
 * and what they set is lost where the processor's state is still its first one (XSTATE_BV's bit is clear).
 */
enum {
	XSAVE_FCW = 0,
	XSAVE_FSW = 2,
	XSAVE_FTW = 4,
	XSAVE_FOP = 6,
	XSAVE_FIP = 8,
	XSAVE_FDP = 16,
	XSAVE_MXCSR = 24,
	XSAVE_ST = 32,
	XSAVE_XMM = 160,
	XSAVE_XSTATE_BV = 512,
	XSTATE_X87 = 1,
	XSTATE_SSE = 2,
};

static void fpu_from_xsave(struct cpu_regs *r, const uint8_t *x)
{
	memcpy(r->st, x + XSAVE_ST, sizeof(r->st));
	memcpy(r->xmm, x + XSAVE_XMM, sizeof(r->xmm));
	r->fcw = get_le16(x + XSAVE_FCW);
	r->fsw = get_le16(x + XSAVE_FSW);
	r->ftw = x[XSAVE_FTW];
	r->fop = get_le16(x + XSAVE_FOP);
	r->fip = get_le64(x + XSAVE_FIP);
	r->fdp = get_le64(x + XSAVE_FDP);
	r->mxcsr = get_le32(x + XSAVE_MXCSR);
}

static void fpu_to_xsave(const struct cpu_regs *r, uint8_t *x)
{
	memcpy(x + XSAVE_ST, r->st, sizeof(r->st));
	memcpy(x + XSAVE_XMM, r->xmm, sizeof(r->xmm));
	put_le16(x + XSAVE_FCW, r->fcw);
	put_le16(x + XSAVE_FSW, r->fsw);
	x[XSAVE_FTW] = r->ftw;
	put_le16(x + XSAVE_FOP, r->fop);
	put_le64(x + XSAVE_FIP, r->fip);
	put_le64(x + XSAVE_FDP, r->fdp);
	put_le32(x + XSAVE_MXCSR, r->mxcsr);
	x[XSAVE_XSTATE_BV] |= XSTATE_X87 | XSTATE_SSE;
}

static int fetch_rest(struct kvm_vcpu *c, struct vcpu_image *m, struct cpu_regs *r)
{
	struct kvm_debugregs d = {0};
	struct kvm_mp_state mp = {0};
	int ret = vcpu_fetch_fpu(c, m);

	if (ret < 0)
		return ret;
	fpu_from_xsave(r, m->xsave);
	kernel_gs_base(c, KVM_GET_MSRS, &r->kernel_gs_base); /* fails on CPUs without long mode: 0 */
	if (c->vm->caps.debugregs && vcpu_ioctl(c, KVM_GET_DEBUGREGS, &d) == 0) {
		memcpy(r->dr, d.db, sizeof(r->dr));
		r->dr6 = d.dr6;
		r->dr7 = d.dr7;
	}
	if (vcpu_ioctl(c, KVM_GET_MP_STATE, &mp) == 0)
		r->halted = mp.mp_state != KVM_MP_STATE_RUNNABLE;
	return 0;
}

#define COPY_SEGMENT(to, from)                                                                             \
	do {                                                                                               \
		(to)->base = (from)->base, (to)->limit = (from)->limit, (to)->selector = (from)->selector; \
		(to)->type = (from)->type, (to)->present = (from)->present, (to)->dpl = (from)->dpl;       \
		(to)->db = (from)->db, (to)->s = (from)->s, (to)->l = (from)->l, (to)->g = (from)->g;      \
		(to)->avl = (from)->avl, (to)->unusable = (from)->unusable;                                \
	} while (0)
#define CONTROL_REGISTERS(X) \
	X(gdt_base) X(idt_base) X(gdt_limit) X(idt_limit) X(cr0) X(cr2) X(cr3) X(cr4) X(cr8) X(efer)

static int get_regs(struct kvm_vcpu *c, struct vcpu_image *m, struct cpu_regs *r)
{
	int ret = vcpu_fetch_core(c, m);

	if (ret < 0)
		return ret;
	*r = (struct cpu_regs){.rip = m->rip, .rflags = m->rflags};
	memcpy(r->gpr, m->gpr, sizeof(r->gpr));
	for (unsigned i = 0; i < CPU_SEGMENTS; i++)
		COPY_SEGMENT(&r->seg[i], &m->seg[i]);
#define GET(field) r->field = m->field;
	CONTROL_REGISTERS(GET)
#undef GET
	return fetch_rest(c, m, r);
}

int kvm_vcpu_get_regs(struct kvm_vcpu *c, struct cpu_regs *r)
{
	struct vcpu_image *m = xzalloc(sizeof(*m));
	int ret = get_regs(c, m, r);

	free(m);
	return ret;
}

static bool core_differs(const struct cpu_regs *a, const struct cpu_regs *b)
{
	return memcmp(a->gpr, b->gpr, sizeof(a->gpr)) != 0 || a->rip != b->rip || a->rflags != b->rflags;
}

static bool system_differs(const struct cpu_regs *a, const struct cpu_regs *b)
{
	bool differs = memcmp(a->seg, b->seg, sizeof(a->seg)) != 0;

#define DIFFERS(field) differs |= a->field != b->field;
	CONTROL_REGISTERS(DIFFERS)
#undef DIFFERS
	return differs;
}

static bool fpu_differs(const struct cpu_regs *a, const struct cpu_regs *b)
{
	return memcmp(a->st, b->st, sizeof(a->st)) != 0 || memcmp(a->xmm, b->xmm, sizeof(a->xmm)) != 0 ||
	       a->fcw != b->fcw || a->fsw != b->fsw || a->ftw != b->ftw || a->fop != b->fop || a->fip != b->fip ||
	       a->fdp != b->fdp || a->mxcsr != b->mxcsr;
}

/* Only what differs is handed to KVM: each of these calls has side effects on what it sets. */
int kvm_vcpu_set_regs(struct kvm_vcpu *c, const struct cpu_regs *r)
{
	struct vcpu_image *m = xzalloc(sizeof(*m));
	struct cpu_regs old;
	int ret;

	vcpu_wait_parked(c);
	ret = get_regs(c, m, &old);
	if (ret == 0 && system_differs(&old, r)) {
		for (unsigned i = 0; i < CPU_SEGMENTS; i++)
			COPY_SEGMENT(&m->seg[i], &r->seg[i]);
#define PUT(field) m->field = r->field;
		CONTROL_REGISTERS(PUT)
#undef PUT
		ret = vcpu_push_sregs(c, m);
	}
	if (ret >= 0 && core_differs(&old, r)) {
		memcpy(m->gpr, r->gpr, sizeof(m->gpr));
		m->rip = r->rip;
		m->rflags = r->rflags;
		ret = vcpu_push_regs(c, m);
	}
	if (ret >= 0 && fpu_differs(&old, r)) {
		fpu_to_xsave(r, m->xsave);
		ret = vcpu_push_fpu(c, m);
	}
	if (ret >= 0 && old.kernel_gs_base != r->kernel_gs_base)
		ret = kernel_gs_base(c, KVM_SET_MSRS, &(uint64_t){r->kernel_gs_base});
	c->touched = c->ready_stale = true;
	free(m);
	return MIN(ret, 0);
}

/* ---- traps ---- */

bool kvm_cpu_has_long_mode(struct kvm_vm *vm)
{
	return vm->cpu.word[FEAT_8000_0001_EDX] & BIT(29);
}

bool kvm_can_block_irqs(struct kvm_vm *vm)
{
	return vm_check_extension(vm, KVM_CAP_SET_GUEST_DEBUG2) & KVM_GUESTDBG_BLOCKIRQ;
}

int kvm_vcpu_set_debug(struct kvm_vcpu *c, const struct kvm_debug *d)
{
	static const uint8_t len_bits[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2}; /* SDM 3B, table 17-2 */
	struct kvm_guest_debug g = {0};

	if (d->n_hw > KVM_DEBUG_HW)
		return -EINVAL;
	if (d->software)
		g.control |= KVM_GUESTDBG_USE_SW_BP;
	if (d->step)
		g.control |= KVM_GUESTDBG_SINGLESTEP | (d->block_irqs ? KVM_GUESTDBG_BLOCKIRQ : 0);
	if (d->n_hw) {
		g.control |= KVM_GUESTDBG_USE_HW_BP;
		g.arch.debugreg[7] = 0x400 | 0x200; /* bit 10 reads as one; GE: exact */
	}
	for (unsigned i = 0; i < d->n_hw; i++) {
		g.arch.debugreg[i] = d->hw[i].addr;
		g.arch.debugreg[7] |= 2u << (2 * i) | (uint64_t)d->hw[i].type << (16 + 4 * i) |
				      (uint64_t)len_bits[d->hw[i].len & 15] << (18 + 4 * i);
	}
	if (g.control)
		g.control |= KVM_GUESTDBG_ENABLE;
	return vcpu_ioctl(c, KVM_SET_GUEST_DEBUG, &g);
}

void kvm_vcpu_freeze(struct kvm_vcpu *c, bool frozen)
{
	pthread_mutex_lock(&c->vm->run_lock);
	c->frozen = frozen;
	pthread_mutex_unlock(&c->vm->run_lock);
}

/* #DB and #BP as the guest would have got them without us. */
static void give_back(struct kvm_vcpu *c, const struct kvm_debug_exit_arch *a)
{
	struct kvm_vcpu_events v;

	if (vcpu_ioctl(c, KVM_GET_VCPU_EVENTS, &v) < 0)
		return;
	v.exception.nr = (uint8_t)a->exception;
	v.exception.has_error_code = 0;
	if (c->vm->caps.exception_payload) {
		v.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
		v.exception.pending = 1;
		v.exception_has_payload = a->exception == 1;
		v.exception_payload = a->exception == 1 ? a->dr6 : 0;
	} else {
		v.exception.injected = 1;
	}
	vcpu_ioctl(c, KVM_SET_VCPU_EVENTS, &v);
}

bool vcpu_debug_exit(struct kvm_vcpu *c)
{
	const struct kvm_debug_exit_arch *a = &c->run->debug.arch;
	struct kvm_trap trap = {.exception = a->exception, .pc = a->pc, .dr6 = a->dr6};

	if (c->vm->ops->debug && c->vm->ops->debug(c->vm->opaque, c->index, &trap)) {
		c->trapped = true;
		return false;
	}
	give_back(c, a);
	return true;
}
