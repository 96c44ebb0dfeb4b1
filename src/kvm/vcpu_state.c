/*
 * The state of one vCPU: fetched from KVM into a struct vcpu_image, pushed back from one. The same image captured right
 * after creation is what reset pushes. Source: api.rst 4.11..4.22 (registers, MSRs, XSAVE), 4.31 (vCPU events), 4.38
 * (MP state), 4.57 (LAPIC); Intel SDM 3A 10.1.1 (state after reset).
 *
 * The order of pushing matters: CPUID was set at creation; SREGS brings the local APIC base and mode, so it precedes
 * LAPIC; XCR0 precedes XSAVE; MSRs precede LAPIC except TSC_DEADLINE, which arms the LAPIC's timer and comes last; MP
 * state precedes the events.
 */
#include "src/kvm/kvm_internal.h"

#include <stdlib.h>

#define CR0_WP              0x10000u
#define MSR_TSC             0x10
#define MSR_TSC_ADJUST      0x3b
#define MSR_TSC_DEADLINE    0x6e0
#define MSR_UCODE_REV       0x8b
#define MSR_PLATFORM_INFO   0xce
#define MSR_ARCH_CAPS       0x10a
#define MSR_PERF_CAPS       0x345
#define MSR_FEATURE_CONTROL 0x3a
#define MSR_MCG_STATUS      0x17a
#define MSR_MC0_CTL         0x400
#define MSR_MTRR_PHYSBASE0  0x200
#define MSR_MTRR_DEF_TYPE   0x2ff
#define MSR_PAT             0x277
#define MSR_VMX_BASIC       0x480
#define MSR_VMX_LAST        0x491
#define MSR_HYPERV_FIRST    0x40000000
#define MSR_HYPERV_LAST     0x400000ff
#define MSR_RECORD          12

/* ---- which MSRs ---- */

/* Descriptions of the host or of the CPU model rather than state: set at creation, the same after a load. */
static bool msr_is_constant(uint32_t index)
{
	return index == MSR_UCODE_REV || index == MSR_PLATFORM_INFO || index == MSR_ARCH_CAPS ||
	       index == MSR_PERF_CAPS || (index >= MSR_VMX_BASIC && index <= MSR_VMX_LAST) ||
	       (index >= MSR_HYPERV_FIRST && index <= MSR_HYPERV_LAST);
}

static void add_msr(uint32_t *list, unsigned *n, uint32_t index)
{
	for (unsigned i = 0; i < *n; i++)
		if (list[i] == index)
			return;
	if (*n < VCPU_MSR_MAX && !msr_is_constant(index))
		list[(*n)++] = index;
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Kernels before 6.4 do not list the MTRRs although they hold them, and none lists the machine check banks. */
static void add_unlisted(struct kvm_vm *vm, uint32_t *list, unsigned *n)
{
	static const uint32_t fixed_mtrrs[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
					       0x26b, 0x26c, 0x26d, 0x26e, 0x26f};

	for (size_t i = 0; i < ARRAY_SIZE(fixed_mtrrs); i++)
		add_msr(list, n, fixed_mtrrs[i]);
	for (uint32_t i = 0; i < 16; i++)
		add_msr(list, n, MSR_MTRR_PHYSBASE0 + i);
	add_msr(list, n, MSR_MTRR_DEF_TYPE);
	add_msr(list, n, MSR_PAT);
	if (vm->caps.mce)
		for (uint32_t i = 0; i < 4 * 10; i++)
			add_msr(list, n, MSR_MC0_CTL + i);
}

/* Keep what can be read. KVM_GET_MSRS stops at the first it cannot. */
static unsigned filter_readable(struct kvm_vcpu *c, uint32_t *list, unsigned n)
{
	struct kvm_msrs *m = xzalloc(sizeof(*m) + n * sizeof(m->entries[0]));
	unsigned kept = 0;

	for (unsigned from = 0; from < n;) {
		int r;

		m->nmsrs = n - from;
		for (unsigned i = from; i < n; i++)
			m->entries[i - from].index = list[i];
		r = vcpu_ioctl(c, KVM_GET_MSRS, m);
		if (r < 0)
			break;
		for (int i = 0; i < r; i++)
			list[kept++] = list[from + (unsigned)i];
		from += (unsigned)r + 1;
	}
	free(m);
	return kept;
}

static int load_msr_list(struct kvm_vcpu *c, struct err *e)
{
	struct kvm_vm *vm = c->vm;
	struct kvm_msr_list *l = xzalloc(sizeof(*l) + 1024 * sizeof(uint32_t));
	uint32_t *list;
	unsigned n = 0;
	int r = 0;

	pthread_mutex_lock(&vm->run_lock); /* one of several vCPU threads at start-up makes the list for all */
	if (vm->msr_list)
		goto out;
	l->nmsrs = 1024;
	if (ioctl(vm->sys_fd, KVM_GET_MSR_INDEX_LIST, l) < 0) {
		r = err_errno(e, errno, "cannot read KVM's list of model-specific registers");
		goto out;
	}
	list = xcalloc(VCPU_MSR_MAX, sizeof(*list));
	for (unsigned i = 0; i < l->nmsrs; i++)
		add_msr(list, &n, l->indices[i]);
	add_unlisted(vm, list, &n);
	qsort(list, n, sizeof(*list), compare_u32);
	vm->n_msrs = filter_readable(c, list, n);
	vm->msr_list = list;
out:
	pthread_mutex_unlock(&vm->run_lock);
	free(l);
	return r;
}

static int fetch_msrs(struct kvm_vcpu *c, struct vcpu_image *m, struct err *e)
{
	struct kvm_vm *vm = c->vm;
	struct kvm_msrs *k;
	int r = load_msr_list(c, e);

	if (r < 0)
		return r;
	k = xzalloc(sizeof(*k) + vm->n_msrs * sizeof(k->entries[0]));
	k->nmsrs = vm->n_msrs;
	for (unsigned i = 0; i < vm->n_msrs; i++)
		k->entries[i].index = vm->msr_list[i];
	r = vcpu_ioctl(c, KVM_GET_MSRS, k);
	if (r != (int)vm->n_msrs) {
		free(k);
		return err_set(e, EIO, "CPU %u: KVM does not return model-specific register 0x%x", c->index,
			       r < 0 ? 0 : vm->msr_list[r]);
	}
	for (unsigned i = 0; i < vm->n_msrs; i++) {
		put_le32(m->msrs + i * MSR_RECORD, k->entries[i].index);
		put_le64(m->msrs + i * MSR_RECORD + 4, k->entries[i].data);
	}
	m->msrs_len = vm->n_msrs * MSR_RECORD;
	free(k);
	return 0;
}

/* Set n entries. One that KVM refuses is passed over if it is zero: not having the register and having it at rest are
   the same to the guest. */
static int set_msrs(struct kvm_vcpu *c, struct kvm_msrs *k, unsigned n, struct err *e)
{
	for (unsigned from = 0; from < n;) {
		int r;

		memmove(k->entries, k->entries + from, (n - from) * sizeof(k->entries[0]));
		n -= from;
		k->nmsrs = n;
		r = vcpu_ioctl(c, KVM_SET_MSRS, k);
		if (r == (int)n)
			break;
		if (r < 0)
			return err_errno(e, -r, "CPU %u: KVM does not take its model-specific registers", c->index);
		if (k->entries[r].data)
			return err_set(e, ENOTSUP,
				       "CPU %u: this host's KVM refuses 0x%llx in model-specific register 0x%x",
				       c->index, (unsigned long long)k->entries[r].data, k->entries[r].index);
		from = (unsigned)r + 1;
	}
	return 0;
}

static int push_msrs(struct kvm_vcpu *c, const struct vcpu_image *m, bool deadline, struct err *e)
{
	unsigned total = m->msrs_len / MSR_RECORD, n = 0;
	struct kvm_msrs *k = xzalloc(sizeof(*k) + (total + 1) * sizeof(k->entries[0]));
	int r;

	for (unsigned i = 0; i < total; i++) {
		uint32_t index = get_le32(m->msrs + i * MSR_RECORD);

		if ((index == MSR_TSC_DEADLINE) == deadline) {
			k->entries[n].index = index;
			k->entries[n++].data = get_le64(m->msrs + i * MSR_RECORD + 4);
		}
	}
	r = set_msrs(c, k, n, e);
	free(k);
	return r;
}

/* ---- registers ---- */

static void from_segment(struct segment_image *s, const struct kvm_segment *k)
{
	*s = (struct segment_image){.base = k->base,
				    .limit = k->limit,
				    .selector = k->selector,
				    .type = k->type,
				    .present = k->present,
				    .dpl = k->dpl,
				    .db = k->db,
				    .s = k->s,
				    .l = k->l,
				    .g = k->g,
				    .avl = k->avl,
				    .unusable = k->unusable};
}

static void to_segment(struct kvm_segment *k, const struct segment_image *s)
{
	*k = (struct kvm_segment){.base = s->base,
				  .limit = s->limit,
				  .selector = s->selector,
				  .type = s->type,
				  .present = s->present,
				  .dpl = s->dpl,
				  .db = s->db,
				  .s = s->s,
				  .l = s->l,
				  .g = s->g,
				  .avl = s->avl,
				  .unusable = s->unusable};
}

static void from_regs(struct vcpu_image *m, const struct kvm_regs *k)
{
	const uint64_t gpr[16] = {k->rax, k->rcx, k->rdx, k->rbx, k->rsp, k->rbp, k->rsi, k->rdi,
				  k->r8,  k->r9,  k->r10, k->r11, k->r12, k->r13, k->r14, k->r15};

	memcpy(m->gpr, gpr, sizeof(gpr));
	m->rip = k->rip;
	m->rflags = k->rflags;
}

static void to_regs(struct kvm_regs *k, const struct vcpu_image *m)
{
	const uint64_t *g = m->gpr;

	*k = (struct kvm_regs){.rax = g[0],
			       .rcx = g[1],
			       .rdx = g[2],
			       .rbx = g[3],
			       .rsp = g[4],
			       .rbp = g[5],
			       .rsi = g[6],
			       .rdi = g[7],
			       .r8 = g[8],
			       .r9 = g[9],
			       .r10 = g[10],
			       .r11 = g[11],
			       .r12 = g[12],
			       .r13 = g[13],
			       .r14 = g[14],
			       .r15 = g[15],
			       .rip = m->rip,
			       .rflags = m->rflags};
}

/* kvm_sregs and kvm_sregs2 share all fields but the last ones. */
#define SREGS_COMMON(X)   X(cr0) X(cr2) X(cr3) X(cr4) X(cr8) X(efer) X(apic_base)
#define SREGS_FROM(field) m->field = k.field;
#define SREGS_TO(field)   k.field = m->field;
#define SREGS_FETCH                                                                                            \
	do {                                                                                                   \
		const struct kvm_segment *segs[8] = {&k.es, &k.cs, &k.ss, &k.ds, &k.fs, &k.gs, &k.tr, &k.ldt}; \
		for (unsigned i = 0; i < 8; i++)                                                               \
			from_segment(&m->seg[i], segs[i]);                                                     \
		m->gdt_base = k.gdt.base, m->gdt_limit = k.gdt.limit;                                          \
		m->idt_base = k.idt.base, m->idt_limit = k.idt.limit;                                          \
		SREGS_COMMON(SREGS_FROM)                                                                       \
	} while (0)
#define SREGS_PUSH                                                                                       \
	do {                                                                                             \
		struct kvm_segment *segs[8] = {&k.es, &k.cs, &k.ss, &k.ds, &k.fs, &k.gs, &k.tr, &k.ldt}; \
		for (unsigned i = 0; i < 8; i++)                                                         \
			to_segment(segs[i], &m->seg[i]);                                                 \
		k.gdt.base = m->gdt_base, k.gdt.limit = m->gdt_limit;                                    \
		k.idt.base = m->idt_base, k.idt.limit = m->idt_limit;                                    \
		SREGS_COMMON(SREGS_TO)                                                                   \
	} while (0)

static int fetch_sregs(struct kvm_vcpu *c, struct vcpu_image *m)
{
	int r;

	m->pdptrs_valid = false;
	if (c->vm->caps.sregs2) {
		struct kvm_sregs2 k;

		r = vcpu_ioctl(c, KVM_GET_SREGS2, &k);
		if (r < 0)
			return r;
		SREGS_FETCH;
		m->pdptrs_valid = k.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID;
		for (unsigned i = 0; i < 4; i++)
			m->pdptrs[i] = m->pdptrs_valid ? k.pdptrs[i] : 0;
	} else {
		struct kvm_sregs k;

		r = vcpu_ioctl(c, KVM_GET_SREGS, &k);
		if (r < 0)
			return r;
		SREGS_FETCH;
	}
	return 0;
}

static int set_sregs(struct kvm_vcpu *c, const struct vcpu_image *m, uint64_t cr0_flip)
{
	if (c->vm->caps.sregs2) {
		struct kvm_sregs2 k = {.flags = m->pdptrs_valid ? KVM_SREGS2_FLAGS_PDPTRS_VALID : 0};

		SREGS_PUSH;
		k.cr0 ^= cr0_flip;
		memcpy(k.pdptrs, m->pdptrs, sizeof(m->pdptrs));
		return vcpu_ioctl(c, KVM_SET_SREGS2, &k);
	}
	struct kvm_sregs k = {0};

	SREGS_PUSH;
	k.cr0 ^= cr0_flip;
	return vcpu_ioctl(c, KVM_SET_SREGS, &k);
}

/*
 * The interrupt bitmap stays empty: what is being injected travels with the vCPU events.
 *
 * On AMD processors KVM clears a vCPU's control block (VMCB) at a triple fault, and with it the address of the nested
 * page tables, which it writes only when its MMU is made anew. Setting a CR0 that differs does that; without, a vCPU
 * whose paging was off would never find its memory again.
 */
int vcpu_push_sregs(struct kvm_vcpu *c, const struct vcpu_image *m)
{
	int r = c->shut_down ? set_sregs(c, m, CR0_WP) : 0;

	if (r == 0)
		r = set_sregs(c, m, 0);
	if (r == 0)
		c->shut_down = false;
	return r;
}

int vcpu_push_regs(struct kvm_vcpu *c, const struct vcpu_image *m)
{
	struct kvm_regs regs;

	to_regs(&regs, m);
	return vcpu_ioctl(c, KVM_SET_REGS, &regs);
}

int vcpu_fetch_core(struct kvm_vcpu *c, struct vcpu_image *m)
{
	struct kvm_regs regs;
	int r = vcpu_ioctl(c, KVM_GET_REGS, &regs);

	if (r == 0)
		r = fetch_sregs(c, m);
	if (r == 0)
		from_regs(m, &regs);
	return r;
}

/* ---- FPU ---- */

int vcpu_fetch_fpu(struct kvm_vcpu *c, struct vcpu_image *m)
{
	struct kvm_xcrs xcrs = {0};
	size_t size = c->vm->caps.xsave_size;
	int r = vcpu_ioctl(c, size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, m->xsave);

	if (r < 0)
		return r;
	m->xsave_len = (uint32_t)size;
	m->xcr0 = 1;
	if (!c->vm->caps.xcrs)
		return 0;
	r = vcpu_ioctl(c, KVM_GET_XCRS, &xcrs);
	if (r == 0 && xcrs.nr_xcrs > 0)
		m->xcr0 = xcrs.xcrs[0].value;
	return r;
}

int vcpu_push_fpu(struct kvm_vcpu *c, struct vcpu_image *m)
{
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = m->xcr0}}};
	int r = 0;

	if (c->vm->caps.xcrs)
		r = vcpu_ioctl(c, KVM_SET_XCRS, &xcrs);
	/* A CPU without XSAVE has no XCR0 to set. */
	if (r == -EINVAL && m->xcr0 <= 1)
		r = 0;
	return r < 0 ? r : vcpu_ioctl(c, KVM_SET_XSAVE, m->xsave);
}

/* ---- events and debug registers ---- */

static int fetch_events(struct kvm_vcpu *c, struct vcpu_image *m)
{
	struct kvm_vcpu_events k = {0};
	int r = vcpu_ioctl(c, KVM_GET_VCPU_EVENTS, &k);

	if (r < 0)
		return r;
	m->exc_injected = k.exception.injected;
	m->exc_nr = k.exception.nr;
	m->exc_has_error = k.exception.has_error_code;
	m->exc_error = k.exception.error_code;
	m->exc_pending = c->vm->caps.exception_payload ? k.exception.pending : 0;
	m->exc_has_payload = c->vm->caps.exception_payload ? k.exception_has_payload : 0;
	m->exc_payload = c->vm->caps.exception_payload ? k.exception_payload : 0;
	m->int_injected = k.interrupt.injected;
	m->int_nr = k.interrupt.nr;
	m->int_soft = k.interrupt.soft;
	m->int_shadow = k.interrupt.shadow;
	m->nmi_injected = k.nmi.injected;
	m->nmi_pending = k.nmi.pending;
	m->nmi_masked = k.nmi.masked;
	m->sipi_vector = k.sipi_vector;
	m->smi_smm = k.smi.smm;
	m->smi_pending = k.smi.pending;
	m->smi_inside_nmi = k.smi.smm_inside_nmi;
	m->smi_latched_init = k.smi.latched_init;
	m->triple_fault = c->vm->caps.triple_fault_event ? k.triple_fault.pending : 0;
	return 0;
}

static int push_events(struct kvm_vcpu *c, const struct vcpu_image *m)
{
	struct kvm_vcpu_events k = {
		.exception = {.injected = m->exc_injected,
			      .nr = m->exc_nr,
			      .has_error_code = m->exc_has_error,
			      .pending = m->exc_pending,
			      .error_code = m->exc_error},
		.exception_has_payload = m->exc_has_payload,
		.exception_payload = m->exc_payload,
		.interrupt = {.injected = m->int_injected,
			      .nr = m->int_nr,
			      .soft = m->int_soft,
			      .shadow = m->int_shadow},
		.nmi = {.injected = m->nmi_injected, .pending = m->nmi_pending, .masked = m->nmi_masked},
		.sipi_vector = m->sipi_vector,
		.smi = {.smm = m->smi_smm,
			.pending = m->smi_pending,
			.smm_inside_nmi = m->smi_inside_nmi,
			.latched_init = m->smi_latched_init},
		.triple_fault.pending = m->triple_fault,
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR | KVM_VCPUEVENT_VALID_SHADOW,
	};

	if (c->vm->caps.exception_payload)
		k.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	if (c->vm->caps.triple_fault_event)
		k.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	if (m->smi_smm || m->smi_pending || m->smi_latched_init)
		k.flags |= KVM_VCPUEVENT_VALID_SMM;
	return vcpu_ioctl(c, KVM_SET_VCPU_EVENTS, &k);
}

static int fetch_debug(struct kvm_vcpu *c, struct vcpu_image *m)
{
	struct kvm_debugregs k = {0};
	int r = c->vm->caps.debugregs ? vcpu_ioctl(c, KVM_GET_DEBUGREGS, &k) : 0;

	for (unsigned i = 0; i < 4; i++)
		m->db[i] = k.db[i];
	m->dr6 = k.dr6;
	m->dr7 = k.dr7;
	return r;
}

static int push_debug(struct kvm_vcpu *c, const struct vcpu_image *m)
{
	struct kvm_debugregs k = {.db = {m->db[0], m->db[1], m->db[2], m->db[3]}, .dr6 = m->dr6, .dr7 = m->dr7};

	return c->vm->caps.debugregs ? vcpu_ioctl(c, KVM_SET_DEBUGREGS, &k) : 0;
}

/* ---- nested guests ---- */

static int fetch_nested(struct kvm_vcpu *c, struct vcpu_image *m)
{
	struct kvm_nested_state *k = (void *)m->nested;
	int r;

	m->nested_len = 0;
	if (!kvm_can_nest(c->vm))
		return 0;
	k->size = (uint32_t)c->vm->caps.nested_size;
	r = vcpu_ioctl(c, KVM_GET_NESTED_STATE, k);
	if (r == 0)
		m->nested_len = MIN(k->size, (uint32_t)VCPU_NESTED_MAX);
	return r;
}

static int push_nested(struct kvm_vcpu *c, struct vcpu_image *m)
{
	return m->nested_len && c->vm->caps.nested_size ? vcpu_ioctl(c, KVM_SET_NESTED_STATE, m->nested) : 0;
}

/* ---- the whole ---- */

static int fetch_failed(struct kvm_vcpu *c, int r, const char *what, struct err *e)
{
	return err_errno(e, -r, "CPU %u: KVM does not return its %s", c->index, what);
}

int vcpu_fetch(struct kvm_vcpu *c, struct vcpu_image *m, struct err *e)
{
	struct kvm_regs regs;
	struct kvm_mp_state mp;
	struct kvm_lapic_state lapic;
	int r;

	memset(m, 0, sizeof(*m));
	/* MP state first: asking for it lets KVM take pending INIT and SIPI events into account. */
	if ((r = vcpu_ioctl(c, KVM_GET_MP_STATE, &mp)) < 0)
		return fetch_failed(c, r, "MP state", e);
	m->mp_state = mp.mp_state;
	if ((r = vcpu_ioctl(c, KVM_GET_REGS, &regs)) < 0 || (r = fetch_sregs(c, m)) < 0)
		return fetch_failed(c, r, "registers", e);
	from_regs(m, &regs);
	if ((r = vcpu_fetch_fpu(c, m)) < 0)
		return fetch_failed(c, r, "FPU state", e);
	if ((r = fetch_msrs(c, m, e)) < 0)
		return r;
	if ((r = vcpu_ioctl(c, KVM_GET_LAPIC, &lapic)) < 0)
		return fetch_failed(c, r, "local APIC", e);
	memcpy(m->lapic, lapic.regs, sizeof(m->lapic));
	if ((r = fetch_nested(c, m)) < 0)
		return fetch_failed(c, r, "nested state", e);
	if ((r = fetch_events(c, m)) < 0)
		return fetch_failed(c, r, "events", e);
	if ((r = fetch_debug(c, m)) < 0)
		return fetch_failed(c, r, "debug registers", e);
	r = c->vm->caps.get_tsc_khz ? vcpu_ioctl(c, KVM_GET_TSC_KHZ, NULL) : 0;
	m->tsc_khz = r > 0 ? (uint32_t)r : 0;
	m->extint_held = c->held_vector >= 0;
	m->extint_vector = m->extint_held ? (uint8_t)c->held_vector : 0;
	return 0;
}

static int push_failed(struct kvm_vcpu *c, int r, const char *what, struct err *e)
{
	return err_errno(e, -r, "CPU %u: this host's KVM does not accept its %s", c->index, what);
}

int vcpu_push(struct kvm_vcpu *c, const struct vcpu_image *image, struct err *e)
{
	struct vcpu_image *m = (struct vcpu_image *)image; /* ioctl arguments are not const */
	struct kvm_mp_state mp = {.mp_state = m->mp_state};
	struct kvm_lapic_state lapic;
	struct kvm_regs regs;
	int r;

	to_regs(&regs, m);
	if ((r = vcpu_push_sregs(c, m)) < 0 || (r = vcpu_ioctl(c, KVM_SET_REGS, &regs)) < 0)
		return push_failed(c, r, "registers", e);
	if ((r = vcpu_push_fpu(c, m)) < 0)
		return push_failed(c, r, "FPU state", e);
	if ((r = push_msrs(c, m, false, e)) < 0)
		return r;
	memcpy(lapic.regs, m->lapic, sizeof(m->lapic));
	if ((r = vcpu_ioctl(c, KVM_SET_LAPIC, &lapic)) < 0)
		return push_failed(c, r, "local APIC", e);
	if ((r = push_msrs(c, m, true, e)) < 0)
		return r;
	if ((r = push_nested(c, m)) < 0)
		return push_failed(c, r, "nested state", e);
	if ((r = vcpu_ioctl(c, KVM_SET_MP_STATE, &mp)) < 0)
		return push_failed(c, r, "MP state", e);
	if ((r = push_events(c, m)) < 0)
		return push_failed(c, r, "events", e);
	if ((r = push_debug(c, m)) < 0)
		return push_failed(c, r, "debug registers", e);
	c->held_vector = m->extint_held ? m->extint_vector : -1;
	c->ready_stale = true;
	c->touched = true;
	return 0;
}

int vcpu_capture_poweron(struct kvm_vcpu *c, struct err *e)
{
	struct vcpu_image *m = xzalloc(sizeof(*m));
	int r = vcpu_fetch(c, m, e);

	if (r < 0) {
		free(m);
		return r;
	}
	for (unsigned i = 0; i < m->msrs_len / MSR_RECORD; i++) {
		uint32_t index = get_le32(m->msrs + i * MSR_RECORD);

		if (index == MSR_TSC || index == MSR_TSC_ADJUST || index == MSR_TSC_DEADLINE)
			put_le64(m->msrs + i * MSR_RECORD + 4, 0);
	}
	m->gpr[2] = cpuid_signature(&c->vm->cpu); /* EDX after reset */
	c->poweron = m;
	return 0;
}

void vcpu_wait_parked(struct kvm_vcpu *c)
{
	pthread_mutex_lock(&c->vm->run_lock);
	while (!c->parked)
		pthread_cond_wait(&c->vm->parked, &c->vm->run_lock);
	pthread_mutex_unlock(&c->vm->run_lock);
}

static void unstick(struct kvm_vcpu *c)
{
	pthread_mutex_lock(&c->vm->run_lock);
	c->stuck = false;
	pthread_mutex_unlock(&c->vm->run_lock);
}

void kvm_vcpu_reset(struct kvm_vcpu *c)
{
	struct err e = ERR_INIT;

	vcpu_wait_parked(c);
	if (c->touched && c->poweron && vcpu_push(c, c->poweron, &e) < 0)
		log_error("kvm", "reset: %s", e.msg);
	unstick(c);
}

/* ---- direct boot ---- */

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool long64)
{
	return (struct kvm_segment){.limit = 0xffffffff,
				    .selector = selector,
				    .type = type,
				    .present = 1,
				    .db = !long64,
				    .s = 1,
				    .l = long64,
				    .g = 1};
}

static void real_segment(struct kvm_segment *s, uint16_t selector)
{
	s->selector = selector;
	s->base = (uint64_t)selector << 4;
}

/*
 * Memory types as a BIOS leaves them: write-back, except the VGA window and everything from 3.5 GiB to 4 GiB. Without
 * it Linux takes MTRRs and PAT for switched off. A KVM that refuses one has no use for it: no error. Intel SDM
 * 3A, 12.11.
 */
static void set_memory_types(struct kvm_vcpu *c)
{
	static const uint32_t write_back[] = {0x250, 0x258, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
	const struct cpu_def *d = &c->vm->cpu;
	uint64_t phys_mask = (1ull << d->phys_bits) - 1;
	struct kvm_msrs *k;
	unsigned n = 0;

	if (!(d->word[FEAT_1_EDX] & BIT(12)))
		return;
	k = xzalloc(sizeof(*k) + 16 * sizeof(k->entries[0]));
	for (; n < ARRAY_SIZE(write_back); n++)
		k->entries[n] = (struct kvm_msr_entry){.index = write_back[n], .data = 0x0606060606060606ull};
	k->entries[n++] = (struct kvm_msr_entry){.index = MSR_MTRR_PHYSBASE0, .data = 0xe0000000};
	k->entries[n++] =
		(struct kvm_msr_entry){.index = MSR_MTRR_PHYSBASE0 + 1, .data = (phys_mask & ~0x1fffffffull) | 0x800};
	k->entries[n++] = (struct kvm_msr_entry){.index = MSR_MTRR_DEF_TYPE, .data = 0xc06};
	k->nmsrs = n;
	vcpu_ioctl(c, KVM_SET_MSRS, k);
	free(k);
}

int kvm_vcpu_set_boot_state(struct kvm_vcpu *c, const struct kvm_boot_state *b)
{
	struct kvm_regs regs = {.rip = b->rip,
				.rsp = b->rsp,
				.rbx = b->rbx,
				.rsi = b->rsi,
				.rbp = b->rbp,
				.rdi = b->rdi,
				.rax = b->rax,
				.rflags = 2};
	struct kvm_sregs s;
	bool long64 = b->mode == KVM_BOOT_LONG64;
	int r;

	vcpu_wait_parked(c);
	r = vcpu_ioctl(c, KVM_GET_SREGS, &s);
	if (r < 0)
		return r;
	if (b->mode == KVM_BOOT_REAL) {
		real_segment(&s.cs, b->cs);
		real_segment(&s.ds, b->ds);
		real_segment(&s.es, b->ds);
		real_segment(&s.fs, b->ds);
		real_segment(&s.gs, b->ds);
		real_segment(&s.ss, b->ds);
	} else {
		s.cs = flat_segment(b->cs, 0xb, long64);
		s.ds = s.es = s.fs = s.gs = s.ss = flat_segment(b->ds, 0x3, false);
		s.cr0 = 0x11; /* PE, ET */
		s.gdt.base = b->gdt_base;
		s.gdt.limit = b->gdt_limit;
		set_memory_types(c);
	}
	if (long64) {
		s.cr0 |= 1u << 31;
		s.cr3 = b->cr3;
		s.cr4 |= 1u << 5;             /* PAE */
		s.efer |= 1u << 8 | 1u << 10; /* LME, LMA */
	}
	r = vcpu_ioctl(c, KVM_SET_SREGS, &s);
	if (r == 0)
		r = vcpu_ioctl(c, KVM_SET_REGS, &regs);
	c->touched = c->ready_stale = true;
	return r;
}

/* ---- save and load ---- */

static int pre_save(void *obj, struct err *e)
{
	struct kvm_vcpu *c = obj;

	vcpu_wait_parked(c);
	return vcpu_fetch(c, &c->image, e);
}

static int post_load(void *obj, uint16_t version, struct err *e)
{
	struct kvm_vcpu *c = obj;
	struct vcpu_image *m = &c->image;

	(void)version;
	if (m->msrs_len % MSR_RECORD)
		return err_set(e, EINVAL, "CPU %u: its list of model-specific registers is cut off", c->index);
	for (unsigned i = 0; i < m->msrs_len; i += MSR_RECORD) {
		uint32_t index = get_le32(m->msrs + i);

		if (msr_is_constant(index) || (i && index <= get_le32(m->msrs + i - MSR_RECORD)))
			return err_set(e, EINVAL, "CPU %u: model-specific register 0x%x is out of place", c->index,
				       index);
	}
	/* Bytes beyond a smaller sender's area are zero: components it did not have are in their initial state. */
	if (m->xsave_len < sizeof(struct kvm_xsave) || m->xsave_len > c->vm->caps.xsave_size)
		return err_set(e, ENOTSUP, "CPU %u: its extended state has %u bytes, this host holds %zu", c->index,
			       m->xsave_len, c->vm->caps.xsave_size);
	memset(m->xsave + m->xsave_len, 0, sizeof(m->xsave) - m->xsave_len);
	if (m->nested_len > c->vm->caps.nested_size ||
	    (m->nested_len && m->nested_len < sizeof(struct kvm_nested_state)))
		return err_set(e, ENOTSUP, "CPU %u: its nested state has %u bytes, this host holds %zu", c->index,
			       m->nested_len, c->vm->caps.nested_size);
	if (m->nested_len && get_le32(m->nested + offsetof(struct kvm_nested_state, size)) > m->nested_len)
		return err_set(e, EINVAL, "CPU %u: its nested state is cut off", c->index);
	return 0;
}

int kvm_vcpu_settle(struct kvm_vcpu *c, struct err *e)
{
	struct kvm_vm *vm = c->vm;
	int khz, r;

	vcpu_wait_parked(c);
	khz = vm->caps.get_tsc_khz ? vcpu_ioctl(c, KVM_GET_TSC_KHZ, NULL) : 0;
	if (c->image.tsc_khz && khz > 0 && vm->caps.tsc_control && (uint32_t)khz != c->image.tsc_khz) {
		r = vcpu_ioctl(c, KVM_SET_TSC_KHZ, (void *)(uintptr_t)c->image.tsc_khz);
		if (r < 0)
			return push_failed(c, r, "TSC frequency", e);
	}
	r = vcpu_push(c, &c->image, e);
	if (r == 0)
		unstick(c);
	return r;
}

#define SEGMENT_U(m) STATE_U(struct segment_image, m)
static const struct state_table segment_table = {
	.name = "segment",
	.version = 1,
	.oldest = 1,
	.fields =
		(const struct state_field[]){
			SEGMENT_U(base),
			SEGMENT_U(limit),
			SEGMENT_U(selector),
			STATE_U_MAX(struct segment_image, type, 15),
			STATE_U_MAX(struct segment_image, present, 1),
			STATE_U_MAX(struct segment_image, dpl, 3),
			STATE_U_MAX(struct segment_image, db, 1),
			STATE_U_MAX(struct segment_image, s, 1),
			STATE_U_MAX(struct segment_image, l, 1),
			STATE_U_MAX(struct segment_image, g, 1),
			STATE_U_MAX(struct segment_image, avl, 1),
			STATE_U_MAX(struct segment_image, unusable, 1),
			STATE_FIELDS_END,
		},
};

#define CPU_FIELD(m, ty, ...)                                                                                   \
	{                                                                                                       \
		.name = #m, .type = (ty), .since = 1, .offset = offsetof(struct kvm_vcpu, image.m), .count = 1, \
		.size = sizeof(((struct kvm_vcpu *)0)->image.m), __VA_ARGS__                                    \
	}
#define CPU_U(m)      CPU_FIELD(m, STATE_UINT)
#define CPU_MAX(m, x) CPU_FIELD(m, STATE_UINT, .max = (x))
#define CPU_B(m)      CPU_FIELD(m, STATE_BOOL)
#define CPU_VBUF(m)   CPU_FIELD(m, STATE_VBYTES, .count_offset = offsetof(struct kvm_vcpu, image.m##_len))
#define CPU_ARRAY(m, ty, ...)                                                                       \
	{                                                                                           \
		.name = #m, .type = (ty), .since = 1, .offset = offsetof(struct kvm_vcpu, image.m), \
		.count = ARRAY_SIZE(((struct kvm_vcpu *)0)->image.m),                               \
		.size = sizeof(((struct kvm_vcpu *)0)->image.m[0]), __VA_ARGS__                     \
	}

const struct state_table kvm_vcpu_state = {
	.name = "cpu",
	.version = 1,
	.oldest = 1,
	.pre_save = pre_save,
	.post_load = post_load,
	.fields =
		(const struct state_field[]){
			CPU_ARRAY(gpr, STATE_UINT),
			CPU_U(rip),
			CPU_U(rflags),
			CPU_ARRAY(seg, STATE_STRUCT, .sub = &segment_table),
			CPU_U(gdt_base),
			CPU_U(idt_base),
			CPU_U(gdt_limit),
			CPU_U(idt_limit),
			CPU_U(cr0),
			CPU_U(cr2),
			CPU_U(cr3),
			CPU_U(cr4),
			CPU_MAX(cr8, 15),
			CPU_U(efer),
			CPU_U(apic_base),
			CPU_B(pdptrs_valid),
			CPU_ARRAY(pdptrs, STATE_UINT),
			CPU_U(xcr0),
			CPU_ARRAY(db, STATE_UINT),
			CPU_U(dr6),
			CPU_U(dr7),
			CPU_MAX(mp_state, KVM_MP_STATE_SIPI_RECEIVED),
			CPU_B(exc_injected),
			CPU_B(exc_pending),
			CPU_B(exc_has_error),
			CPU_B(exc_has_payload),
			CPU_MAX(exc_nr, 31),
			CPU_U(exc_error),
			CPU_U(exc_payload),
			CPU_B(int_injected),
			CPU_B(int_soft),
			CPU_U(int_nr),
			CPU_U(int_shadow),
			CPU_B(extint_held),
			CPU_U(extint_vector),
			CPU_B(nmi_injected),
			CPU_B(nmi_masked),
			CPU_U(nmi_pending),
			CPU_U(sipi_vector),
			CPU_B(smi_smm),
			CPU_B(smi_pending),
			CPU_B(smi_inside_nmi),
			CPU_B(smi_latched_init),
			CPU_B(triple_fault),
			CPU_U(tsc_khz),
			CPU_FIELD(lapic, STATE_BYTES),
			CPU_VBUF(xsave),
			CPU_VBUF(msrs),
			CPU_VBUF(nested),
			STATE_FIELDS_END,
		},
};
