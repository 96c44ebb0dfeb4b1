/*
 * Interrupt controllers as KVM has them.
 *
 *   on     KVM emulates both 8259As, the IOAPIC, the local APICs and the 8254. The PIT is created without
 *          KVM_PIT_SPEAKER_DUMMY: port 61h is our own device.
 *   split  KVM emulates the local APICs only (KVM_CAP_SPLIT_IRQCHIP). Our i8259 raises INTR through kvm_pic_output()
 * and its vector is injected as ExtINT by the boot CPU's thread (vcpu.c); our IOAPIC sends MSIs and learns of EOIs
 *          through KVM_EXIT_IOAPIC_EOI for the vectors its routes name (routing.c).
 *
 * Source: api.rst 4.24..4.27 (irqchip), 4.71 (KVM_CREATE_PIT2), 7.5 (KVM_CAP_SPLIT_IRQCHIP).
 */
#include "src/kvm/kvm_internal.h"

#include "vmm/clock.h"
#include <time.h>

static int create_on(struct kvm_vm *vm, struct err *e)
{
	struct kvm_pit_config pit = {.flags = 0};
	int r = vm_ioctl(vm, KVM_CREATE_IRQCHIP, NULL);

	if (r < 0)
		return err_errno(e, -r, "KVM cannot create its interrupt controllers (try kernel-irqchip=split)");
	r = vm_ioctl(vm, KVM_CREATE_PIT2, &pit);
	if (r < 0)
		return err_errno(e, -r, "KVM cannot create its timer chip (try kernel-irqchip=split)");
	return 0;
}

static int create_split(struct kvm_vm *vm, struct err *e)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {IOAPIC_PINS}};
	int r = vm_ioctl(vm, KVM_ENABLE_CAP, &cap);

	if (r < 0)
		return err_errno(e, -r, "KVM cannot create local APICs for kernel-irqchip=split");
	return 0;
}

/* On the set-up thread. */
static int create_chips(struct kvm_vm *vm, void *arg, struct err *e)
{
	uint64_t identity = KVM_RESERVED_GPA;
	int r = 0;

	/* VMX without unrestricted guest: real mode runs in a VM86 task with these pages. Before the first vCPU. */
	if (vm->caps.identity_map)
		r = vm_ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity);
	if (r == 0 && vm->caps.tss_addr)
		r = vm_ioctl(vm, KVM_SET_TSS_ADDR, (void *)(uintptr_t)(KVM_RESERVED_GPA + 0x1000));
	if (r < 0)
		return err_errno(e, -r, "KVM refuses its reserved pages at 0x%llx", KVM_RESERVED_GPA);
	return vm->irqchip == IRQCHIP_SPLIT ? create_split(vm, e) : create_on(vm, e);
}

int kvm_irqchip_create(struct kvm_vm *vm, enum irqchip_mode mode, struct err *e)
{
	if (mode == IRQCHIP_SPLIT && !vm->caps.split_irqchip)
		return err_set_class(e, ERR_KVM_MISSING_CAP, ENOTSUP,
				     "kernel-irqchip=split needs KVM_CAP_SPLIT_IRQCHIP, which this kernel lacks: use "
				     "kernel-irqchip=on");
	vm->irqchip = mode;
	vm->irqchip_created = true;
	return setup_submit(vm, create_chips, NULL, false, e);
}

int kvm_irq_line(struct kvm_vm *vm, unsigned gsi, bool level)
{
	struct kvm_irq_level l = {.irq = gsi, .level = level};
	int r;

	r = vm_ioctl(vm, KVM_IRQ_LINE, &l);
	return r < 0 ? r : 0;
}

/* ---- 8259A ---- */

int kvm_get_pic(struct kvm_vm *vm, unsigned which, struct pic_state *s)
{
	struct kvm_irqchip chip = {.chip_id = which ? KVM_IRQCHIP_PIC_SLAVE : KVM_IRQCHIP_PIC_MASTER};
	int r = vm_ioctl(vm, KVM_GET_IRQCHIP, &chip);
	const struct kvm_pic_state *k = &chip.chip.pic;

	if (r < 0)
		return r;
	*s = (struct pic_state){
		.last_irr = k->last_irr,
		.irr = k->irr,
		.imr = k->imr,
		.isr = k->isr,
		.priority_add = k->priority_add,
		.irq_base = k->irq_base,
		.read_reg_select = k->read_reg_select,
		.poll = k->poll,
		.special_mask = k->special_mask,
		.init_state = k->init_state,
		.auto_eoi = k->auto_eoi,
		.rotate_on_auto_eoi = k->rotate_on_auto_eoi,
		.special_fully_nested_mode = k->special_fully_nested_mode,
		.init4 = k->init4,
		.elcr = k->elcr,
		.elcr_mask = k->elcr_mask,
	};
	return 0;
}

int kvm_set_pic(struct kvm_vm *vm, unsigned which, const struct pic_state *s)
{
	struct kvm_irqchip chip = {.chip_id = which ? KVM_IRQCHIP_PIC_SLAVE : KVM_IRQCHIP_PIC_MASTER};
	int r;

	chip.chip.pic = (struct kvm_pic_state){
		.last_irr = s->last_irr,
		.irr = s->irr,
		.imr = s->imr,
		.isr = s->isr,
		.priority_add = s->priority_add,
		.irq_base = s->irq_base,
		.read_reg_select = s->read_reg_select,
		.poll = s->poll,
		.special_mask = s->special_mask,
		.init_state = s->init_state,
		.auto_eoi = s->auto_eoi,
		.rotate_on_auto_eoi = s->rotate_on_auto_eoi,
		.special_fully_nested_mode = s->special_fully_nested_mode,
		.init4 = s->init4,
		.elcr = s->elcr,
		.elcr_mask = s->elcr_mask,
	};
	r = vm_ioctl(vm, KVM_SET_IRQCHIP, &chip);
	return r < 0 ? r : 0;
}

/* ---- IOAPIC ---- */

int kvm_get_ioapic(struct kvm_vm *vm, struct ioapic_state *s)
{
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
	int r = vm_ioctl(vm, KVM_GET_IRQCHIP, &chip);
	const struct kvm_ioapic_state *k = &chip.chip.ioapic;

	if (r < 0)
		return r;
	*s = (struct ioapic_state){
		.id = k->id, .ioregsel = k->ioregsel, .irr = k->irr, .base_address = k->base_address};
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		s->redirtbl[i] = k->redirtbl[i].bits;
	return 0;
}

int kvm_set_ioapic(struct kvm_vm *vm, const struct ioapic_state *s)
{
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
	struct kvm_ioapic_state *k = &chip.chip.ioapic;
	int r;

	k->id = s->id;
	k->ioregsel = s->ioregsel;
	k->irr = s->irr;
	k->base_address = s->base_address;
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		k->redirtbl[i].bits = s->redirtbl[i];
	r = vm_ioctl(vm, KVM_SET_IRQCHIP, &chip);
	return r < 0 ? r : 0;
}

/* ---- 8254 ---- */

static int64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * (int64_t)NS_PER_SEC + t.tv_nsec;
}

int kvm_get_pit(struct kvm_vm *vm, struct pit_channel_state ch[3])
{
	struct kvm_pit_state2 pit;
	int64_t offset;
	int r = vm_ioctl(vm, KVM_GET_PIT2, &pit);

	if (r < 0)
		return r;
	offset = (int64_t)clock_ns(VCLOCK_VIRTUAL) - monotonic_ns();
	for (unsigned i = 0; i < 3; i++) {
		const struct kvm_pit_channel_state *k = &pit.channels[i];

		ch[i] = (struct pit_channel_state){
			.count = k->count ? k->count : 0x10000,
			.latched_count = k->latched_count,
			.count_latched = k->count_latched,
			.status_latched = k->status_latched,
			.status = k->status,
			.read_state = k->read_state,
			.write_state = k->write_state,
			.write_latch = k->write_latch,
			.rw_mode = k->rw_mode,
			.mode = k->mode,
			.bcd = k->bcd,
			.gate = k->gate,
			.count_load_ns = k->count_load_time + offset,
		};
	}
	return 0;
}

int kvm_set_pit(struct kvm_vm *vm, const struct pit_channel_state ch[3])
{
	struct kvm_pit_state2 pit = {.flags = 0};
	int64_t offset = monotonic_ns() - (int64_t)clock_ns(VCLOCK_VIRTUAL);
	int r;

	for (unsigned i = 0; i < 3; i++)
		pit.channels[i] = (struct kvm_pit_channel_state){
			.count = ch[i].count,
			.latched_count = ch[i].latched_count,
			.count_latched = ch[i].count_latched,
			.status_latched = ch[i].status_latched,
			.status = ch[i].status,
			.read_state = ch[i].read_state,
			.write_state = ch[i].write_state,
			.write_latch = ch[i].write_latch,
			.rw_mode = ch[i].rw_mode,
			.mode = ch[i].mode,
			.bcd = ch[i].bcd,
			.gate = ch[i].gate,
			.count_load_time = ch[i].count_load_ns + offset,
		};
	r = vm_ioctl(vm, KVM_SET_PIT2, &pit);
	return r < 0 ? r : 0;
}

int kvm_pit_reinject(struct kvm_vm *vm, bool on)
{
	struct kvm_reinject_control control = {.pit_reinject = on};
	int r = vm_ioctl(vm, KVM_REINJECT_CONTROL, &control);

	return r < 0 ? r : 0;
}
