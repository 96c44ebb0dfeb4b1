/*
 * What KVM_RUN returns with: decode, count, pass to the machine. Source: api.rst 5 (The kvm_run structure).
 */
#include "src/kvm/kvm_internal.h"

#include <stdio.h>
#include "vmm/crash.h"

static const char *const exit_names[N_EXIT_REASONS] = {
	[KVM_EXIT_UNKNOWN] = "unknown",
	[KVM_EXIT_IO] = "io",
	[KVM_EXIT_HYPERCALL] = "hypercall",
	[KVM_EXIT_DEBUG] = "debug",
	[KVM_EXIT_HLT] = "hlt",
	[KVM_EXIT_MMIO] = "mmio",
	[KVM_EXIT_IRQ_WINDOW_OPEN] = "irq-window-open",
	[KVM_EXIT_SHUTDOWN] = "shutdown",
	[KVM_EXIT_FAIL_ENTRY] = "fail-entry",
	[KVM_EXIT_INTR] = "intr",
	[KVM_EXIT_SET_TPR] = "set-tpr",
	[KVM_EXIT_TPR_ACCESS] = "tpr-access",
	[KVM_EXIT_NMI] = "nmi",
	[KVM_EXIT_INTERNAL_ERROR] = "internal-error",
	[KVM_EXIT_SYSTEM_EVENT] = "system-event",
	[KVM_EXIT_IOAPIC_EOI] = "ioapic-eoi",
	[KVM_EXIT_DIRTY_RING_FULL] = "dirty-ring-full",
	[KVM_EXIT_X86_BUS_LOCK] = "bus-lock",
	[39] = "memory-fault", /* KVM_EXIT_MEMORY_FAULT, Linux 6.8 */
};

const char *vcpu_exit_name(unsigned reason)
{
	return reason < N_EXIT_REASONS ? exit_names[reason] : NULL;
}

/* The bytes at CS:RIP, as the CPU would fetch them; 0 if the page is not RAM. */
static size_t fetch_code(struct kvm_vcpu *c, uint64_t linear, uint8_t *buf, size_t len)
{
	struct kvm_translation t = {.linear_address = linear};
	size_t n = MIN(len, (size_t)(4096 - linear % 4096));
	void *p;

	if (vcpu_ioctl(c, KVM_TRANSLATE, &t) < 0 || !t.valid)
		return 0;
	p = slots_host(c->vm, t.physical_address, n);
	if (!p)
		return 0;
	memcpy(buf, p, n);
	return n;
}

static size_t append_code(struct kvm_vcpu *c, uint64_t linear, char *text, size_t size)
{
	uint8_t code[15];
	size_t n = fetch_code(c, linear, code, sizeof(code)), at = 0;

	for (size_t i = 0; i < n && at + 4 < size; i++)
		at += (size_t)snprintf(text + at, size - at, " %02x", code[i]);
	return at;
}

void vcpu_internal_error(struct kvm_vcpu *c, const char *what)
{
	struct kvm_regs regs;
	struct kvm_sregs s;
	char text[512], code[64] = " unreadable";
	const char *mode;

	if (vcpu_ioctl(c, KVM_GET_REGS, &regs) < 0 || vcpu_ioctl(c, KVM_GET_SREGS, &s) < 0) {
		c->vm->ops->internal_error(c->vm->opaque, c->index, what);
		return;
	}
	append_code(c, s.cs.l ? regs.rip : s.cs.base + regs.rip, code, sizeof(code));
	mode = !(s.cr0 & 1) ? "real mode" : s.cs.l ? "64-bit" : s.cs.db ? "32-bit" : "16-bit protected mode";
	snprintf(text, sizeof(text), "%s at %04x:%llx (%s, CPL %u, CR0 %llx, CR3 %llx), code:%s", what, s.cs.selector,
		 (unsigned long long)regs.rip, mode, s.ss.dpl, (unsigned long long)s.cr0, (unsigned long long)s.cr3,
		 code);
	c->vm->ops->internal_error(c->vm->opaque, c->index, text);
}

/* A KVM that emulates kernel code may not know int3: at a debugger's breakpoint that is what was wanted. */
static bool is_breakpoint(struct kvm_vcpu *c)
{
	struct kvm_regs regs;
	struct kvm_sregs s;
	struct kvm_trap trap = {.exception = 3};

	if (c->run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION || !c->vm->ops->debug ||
	    vcpu_ioctl(c, KVM_GET_REGS, &regs) < 0 || vcpu_ioctl(c, KVM_GET_SREGS, &s) < 0)
		return false;
	trap.pc = s.cs.l ? regs.rip : s.cs.base + regs.rip;
	return c->trapped = c->vm->ops->debug(c->vm->opaque, c->index, &trap);
}

static void internal_exit(struct kvm_vcpu *c)
{
	static const char *const suberrors[] = {
		[KVM_INTERNAL_ERROR_EMULATION] = "KVM cannot emulate an instruction",
		[KVM_INTERNAL_ERROR_SIMUL_EX] = "KVM met simultaneous exceptions",
		[KVM_INTERNAL_ERROR_DELIVERY_EV] = "KVM failed to deliver an event",
		[KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "KVM met an exit it does not know",
	};
	uint32_t sub = c->run->internal.suberror;
	char text[64];

	if (sub < ARRAY_SIZE(suberrors) && suberrors[sub])
		snprintf(text, sizeof(text), "%s", suberrors[sub]);
	else
		snprintf(text, sizeof(text), "KVM internal error %u", sub);
	vcpu_internal_error(c, text);
}

static bool system_event(struct kvm_vcpu *c)
{
	char text[64];

	switch (c->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
	case KVM_SYSTEM_EVENT_RESET:
		c->vm->ops->triple_fault(c->vm->opaque, c->index);
		return false;
	default:
		snprintf(text, sizeof(text), "KVM system event %u", c->run->system_event.type);
		vcpu_internal_error(c, text);
		return false;
	}
}

static bool unexpected(struct kvm_vcpu *c)
{
	uint32_t reason = c->run->exit_reason;
	const char *name = vcpu_exit_name(reason);
	char text[96];

	if (reason == KVM_EXIT_FAIL_ENTRY)
		snprintf(text, sizeof(text), "the host CPU refused to enter the guest (reason 0x%llx)",
			 (unsigned long long)c->run->fail_entry.hardware_entry_failure_reason);
	else
		snprintf(text, sizeof(text), "unexpected KVM exit %u (%s)", reason, name ? name : "unknown");
	vcpu_internal_error(c, text);
	return false;
}

/* ---- the last exits ---- */

static void remember(struct kvm_vcpu *c, const struct kvm_run *run, uint32_t reason)
{
	struct exit_record *r = &c->recent[c->n_recent++ % EXIT_RING];

	r->reason = (uint8_t)reason;
	if (reason == KVM_EXIT_IO) {
		r->address = run->io.port;
		r->size = run->io.size;
		r->write = run->io.direction == KVM_EXIT_IO_OUT;
		memcpy(&r->data, (const uint8_t *)run + run->io.data_offset, sizeof(r->data));
	} else if (reason == KVM_EXIT_MMIO) {
		r->address = run->mmio.phys_addr;
		r->size = (uint8_t)run->mmio.len;
		r->write = run->mmio.is_write;
		memcpy(&r->data, run->mmio.data, sizeof(r->data));
	}
}

static void dump_record(const struct exit_record *r)
{
	uint32_t mask = r->size >= 4 ? ~0u : (1u << 8 * r->size) - 1;
	const char *name = vcpu_exit_name(r->reason);

	crash_text(" ");
	if (name)
		crash_text(name);
	else
		crash_dec(r->reason);
	if (r->reason == KVM_EXIT_IO || r->reason == KVM_EXIT_MMIO) {
		crash_text(r->write ? " write " : " read ");
		crash_hex(r->address);
		crash_text("/");
		crash_dec(r->size);
		if (r->write) {
			crash_text("=");
			crash_hex(r->data & mask);
		}
	}
	crash_text(";");
}

void vcpu_dump_exits(void *opaque)
{
	struct kvm_vm *vm = opaque;

	for (unsigned i = 0; i < vm->n_vcpus; i++) {
		const struct kvm_vcpu *c = vm->vcpus[i];

		if (!c || !c->n_recent)
			continue;
		crash_line();
		crash_text("CPU ");
		crash_dec(i);
		crash_text(" (thread ");
		crash_dec((unsigned)atomic_load(&c->tid));
		crash_text(") last exits, newest first:");
		for (uint32_t n = c->n_recent; n && c->n_recent - n < EXIT_RING; n--)
			dump_record(&c->recent[(n - 1) % EXIT_RING]);
	}
}

bool vcpu_handle_exit(struct kvm_vcpu *c)
{
	struct kvm_run *run = c->run;
	const struct kvm_exit_ops *ops = c->vm->ops;
	void *opaque = c->vm->opaque;
	uint32_t reason = run->exit_reason;

	if (reason < N_EXIT_REASONS) /* only this thread writes it */
		atomic_store_explicit(&c->exits[reason],
				      atomic_load_explicit(&c->exits[reason], memory_order_relaxed) + 1,
				      memory_order_relaxed);
	remember(c, run, reason);
	coalesced_drain(c->vm); /* the guest wrote that before it left */
	switch (reason) {
	case KVM_EXIT_IO:
		c->pending_io = true;
		ops->pio(opaque, run->io.port, run->io.direction == KVM_EXIT_IO_OUT,
			 (uint8_t *)run + run->io.data_offset, run->io.size, run->io.count);
		return true;
	case KVM_EXIT_MMIO:
		c->pending_io = true;
		ops->mmio(opaque, run->mmio.phys_addr, run->mmio.is_write, run->mmio.data, run->mmio.len);
		return true;
	case KVM_EXIT_IRQ_WINDOW_OPEN: /* offer_extint() comes before the next entry */
	case KVM_EXIT_INTR:
	case KVM_EXIT_NMI:
	case KVM_EXIT_HLT: /* only without an in-kernel local APIC, which every vCPU here has */
	case KVM_EXIT_X86_BUS_LOCK:
		return true;
	case KVM_EXIT_DIRTY_RING_FULL:
		ring_full(c);
		return true;
	case KVM_EXIT_IOAPIC_EOI:
		ops->ioapic_eoi(opaque, run->eoi.vector);
		return true;
	case KVM_EXIT_SHUTDOWN:
		c->shut_down = true;
		ops->triple_fault(opaque, c->index);
		return false;
	case KVM_EXIT_SYSTEM_EVENT:
		return system_event(c);
	case KVM_EXIT_DEBUG:
		return vcpu_debug_exit(c);
	case KVM_EXIT_INTERNAL_ERROR:
		if (!is_breakpoint(c))
			internal_exit(c);
		return false;
	default:
		return unexpected(c);
	}
}
