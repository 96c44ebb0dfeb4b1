/*
 * What the files of this room share. Nothing here leaves src/kvm/.
 *
 * Locks, each a leaf except where noted:
 *   vm->setup.lock    the set-up queue
 *   vm->slots_lock    memory slots and dirty logs
 *   vm->routing_lock  the GSI routing table
 *   vm->run_lock      pausing, parking; condition vm->parked
 *   vm->grace_lock    pending grace periods
 */
#ifndef VMM_KVM_INTERNAL_H
#define VMM_KVM_INTERNAL_H

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include "vmm/bytes.h"
#include "vmm/kvm.h"
#include "vmm/log.h"

#define KVM_MAX_VCPUS 255u /* APIC ids 0..254; 255 is the xAPIC broadcast id */
#define KVM_MAX_GSI   1024
#define IOAPIC_PINS   24

/* ---- CPUID (cpuid.c) ---- */
enum cpuid_reg { REG_EAX, REG_EBX, REG_ECX, REG_EDX };
enum feature_word {
	FEAT_1_EDX,
	FEAT_1_ECX,
	FEAT_7_0_EBX,
	FEAT_7_0_ECX,
	FEAT_7_0_EDX,
	FEAT_7_1_EAX,
	FEAT_8000_0001_EDX,
	FEAT_8000_0001_ECX,
	FEAT_8000_0007_EBX,
	FEAT_8000_0007_EDX,
	FEAT_8000_0008_EBX,
	FEAT_8000_000A_EDX,
	FEAT_8000_0021_EAX,
	FEAT_D_1_EAX,
	FEAT_6_EAX,
	FEAT_KVM,
	FEAT_KVM_HINTS,
	FEAT_ARCH_CAP, /* the MSR IA32_ARCH_CAPABILITIES, low half */
	FEAT_WORDS
};

/* The CPU as the guest shall see it. */
struct cpu_def {
	const char *model; /* name in cpu_models.c */
	char vendor[13];
	char model_id[49];
	uint32_t family, model_nr, stepping;
	uint32_t level, xlevel;
	uint32_t word[FEAT_WORDS];
	uint32_t phys_bits;
	bool expose_kvm, l3_cache, pmu, host_cache, cpuid_0xb;
	uint64_t tsc_hz;
	struct smp_opts smp;
};

/* cpu_features.c */
struct feature_word_info {
	uint32_t leaf, sub;
	enum cpuid_reg reg;
	const char *names; /* of the bits from bit 0 up, separated by blanks; "." is none */
};
extern const struct feature_word_info feature_words[FEAT_WORDS];
bool feature_mask(const char *name, uint32_t mask[FEAT_WORDS]); /* false: no such feature */
uint32_t feature_named_bits(enum feature_word w);               /* the rest is nobody's: never shown to a guest */
/* "a b -c": set and clear bits; false if a name is unknown. */
bool features_apply(uint32_t word[FEAT_WORDS], const char *list);
/* Clear features whose prerequisite is off. */
void features_drop_dependents(uint32_t word[FEAT_WORDS]);
char *features_names(const uint32_t mask[FEAT_WORDS]); /* separated by blanks; malloc'ed */
char *features_all_names(void);

/* cpu_models.c: one row per model; a row may add to (or, with '-', take from) an earlier one. */
struct cpu_model {
	const char *name, *version; /* "Haswell-noTSX", "Haswell-v2" */
	const char *base;
	uint8_t family, model, stepping;
	uint8_t level;
	uint32_t xlevel;
	const char *model_id;
	const char *features;
};
extern const struct cpu_model cpu_models[];
extern const size_t cpu_models_count;

/* ---- VM ---- */
struct caps {
	bool readonly_mem, split_irqchip, ioeventfd_any_length, sregs2, xcrs, debugregs, vcpu_events;
	bool tsc_deadline, get_tsc_khz, tsc_control, mce, triple_fault_event, exception_payload, tss_addr, identity_map;
	bool disable_exits;
	unsigned long dirty_protect; /* flags in use of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 */
	size_t xsave_size, nested_size;
	unsigned max_vcpus, max_vcpu_id, max_slots, adjust_clock;
};

struct slot {
	uint32_t id;
	uint32_t flags; /* KVM_MEM_* */
	uint64_t gpa, size;
	uint8_t *host;
	unsigned long *carry; /* dirty bits fetched for a range nobody asked for yet, or NULL */
	size_t carry_words;
};

/* Work queued until kvm_vm_ready(). */
struct setup_job {
	int (*fn)(struct kvm_vm *vm, void *arg, struct err *e);
	void *arg;
	struct setup_job *next;
};
struct setup {
	pthread_mutex_t lock;
	pthread_cond_t idle;
	pthread_t thread;
	bool started, ended, done; /* done: nothing is queued any more, calls work at once */
	struct setup_job *first, **last;
	unsigned pending; /* queued or running */
	struct err err;   /* of the first job that failed */
};

/* coalesced.c */
#define COALESCED_ZONES 16u
struct coalesced_zone {
	uint64_t addr;
	uint32_t size;
	bool pio;
};
struct coalesced {
	unsigned ring_page;                   /* of the mapping of struct kvm_run; 0: KVM has none */
	bool pio;                             /* ports, too */
	struct kvm_coalesced_mmio_ring *ring; /* in the first vCPU's mapping, which stays until the VM ends */
	pthread_mutex_t drain_lock;           /* before device locks */
	pthread_mutex_t zone_lock;            /* leaf */
	struct coalesced_zone zone[COALESCED_ZONES];
	unsigned n_zones, n_registered;
};

/* stats.c: what a statistics file holds; read on first use */
struct stats_layout {
	struct kvm_stat *stat;
	size_t n;
	uint64_t data_offset, data_size;
};

struct kvm_vm {
	int sys_fd, fd;
	const struct kvm_exit_ops *ops;
	void *opaque;
	struct caps caps;
	size_t run_size; /* of the mapping of struct kvm_run */
	struct setup setup;

	pthread_mutex_t slots_lock;
	struct slot *slots; /* sorted by gpa */
	size_t n_slots;
	uint32_t next_slot_id, *free_ids;
	size_t n_free_ids;
	uint32_t ring_entries; /* of each vCPU's dirty ring; 0: a bitmap for each slot */

	enum irqchip_mode irqchip;
	bool irqchip_created;
	atomic_bool pic_level; /* split: the 8259's INTR */
	pthread_mutex_t routing_lock;
	struct kvm_irq_routing_entry *routes; /* by GSI for MSIs; see routing.c */
	unsigned n_routes;
	uint64_t gsi_used[KVM_MAX_GSI / 64];
	atomic_bool routes_dirty;

	uint64_t ram_end; /* highest guest address RAM can have, to choose the CPU's address width */
	struct cpu_def cpu;
	bool cpu_ready;
	uint32_t cpu_missing[FEAT_WORDS]; /* features of the model that this host lacks */
	struct kvm_cpuid2 *supported;     /* KVM_GET_SUPPORTED_CPUID, fetched once */
	uint32_t *msr_list;               /* what kvm_vcpu_state saves; see vcpu_state.c */
	unsigned n_msrs;

	/* By index; NULL: never created. Written by the main thread under run_lock and grace_lock; entries stay. */
	struct kvm_vcpu *vcpus[KVM_MAX_VCPUS];
	unsigned n_vcpus; /* one more than the highest index used */
	pthread_mutex_t run_lock;
	pthread_cond_t parked, resumed;
	bool paused, stopping, held;
	void (*thread_hook)(void); /* called on each vCPU thread before its first KVM_RUN */

	int stats_fd; /* KVM's statistics; -1: none */
	struct coalesced coalesced;
	struct stats_layout stats[2]; /* of the VM, of its vCPUs; main thread */

	pthread_mutex_t grace_lock;
	struct grace *graces;
};

int vm_ioctl(struct kvm_vm *vm, unsigned long req, void *arg); /* -errno */
int vm_check_extension(struct kvm_vm *vm, int cap);
/* Run fn on the helper thread while set-up lasts, else at once. arg is freed with free(). replaces: takes the place of
   the same fn if that is last in the queue and not begun. */
int setup_submit(struct kvm_vm *vm, int (*fn)(struct kvm_vm *, void *, struct err *), void *arg, bool replaces,
		 struct err *e);
int setup_wait(struct kvm_vm *vm, struct err *e); /* until the queue is empty; its first error */
void coalesced_init(struct kvm_vm *vm);
void coalesced_free(struct kvm_vm *vm);
void coalesced_map(struct kvm_vm *vm, struct kvm_run *run);
void coalesced_register(struct kvm_vm *vm); /* zones that KVM does not know yet */
/* Deliver what is in the ring. vCPU threads in an exit handler, without device locks. */
void coalesced_drain(struct kvm_vm *vm);
int stats_open(int fd); /* of a VM or vCPU; -1: not offered */
void stats_free(struct kvm_vm *vm);
void slots_free(struct kvm_vm *vm);
int slot_carry(struct slot *s); /* have the bitmap; -ENOMEM */
/* dirty_ring.c. enable: before the first vCPU; without KVM's ability a warning. full: KVM_EXIT_DIRTY_RING_FULL. */
int ring_enable(struct kvm_vm *vm, uint32_t entries, struct err *e);
int ring_map(struct kvm_vcpu *c, struct err *e);
void ring_unmap(struct kvm_vcpu *c);
void ring_reap_locked(struct kvm_vm *vm); /* slots_lock is held */
void ring_full(struct kvm_vcpu *c);
/* Host address of guest physical RAM/ROM, for diagnostics; NULL if there is none or fewer than len bytes. */
void *slots_host(struct kvm_vm *vm, uint64_t gpa, size_t len);
void routing_init(struct kvm_vm *vm);
void routing_free(struct kvm_vm *vm);
int routing_flush(struct kvm_vm *vm); /* hand pending changes to KVM */

/* ---- vCPU ---- */
/* word: bit 0: the thread is outside exit handlers (guest or parked); the others ask it to do something. */
#define VCPU_OUTSIDE   BIT(0)
#define VCPU_REQ_PAUSE BIT(1) /* vm->paused or vm->stopping is set */
#define VCPU_REQ_GRACE BIT(2)
#define VCPU_REQ_NMI   BIT(3)
#define VCPU_REQ_INTR  BIT(4) /* split: look at vm->pic_level */
#define VCPU_REQ_HOLD  BIT(5) /* vm->held is set: stay out of the guest until it is not */
#define VCPU_REQ_DOZE  BIT(6) /* doze_ns is set: sleep so long before the next entry */
#define VCPU_REQUESTS  (~VCPU_OUTSIDE)

#define VCPU_XSAVE_MAX  16384 /* AMX needs 11008 */
#define VCPU_MSR_MAX    384
#define VCPU_NESTED_MAX 16384

struct segment_image {
	uint64_t base;
	uint32_t limit;
	uint16_t selector;
	uint8_t type, present, dpl, db, s, l, g, avl, unusable;
};
/* One vCPU's state outside KVM; see vcpu_state.c. */
struct vcpu_image {
	uint64_t gpr[16]; /* rax rcx rdx rbx rsp rbp rsi rdi r8..r15: the encoding's order */
	uint64_t rip, rflags;
	struct segment_image seg[8]; /* es cs ss ds fs gs tr ldt */
	uint64_t gdt_base, idt_base;
	uint16_t gdt_limit, idt_limit;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base;
	bool pdptrs_valid;
	uint64_t pdptrs[4];
	uint64_t xcr0;
	uint64_t db[4], dr6, dr7;
	uint32_t mp_state;
	bool exc_injected, exc_pending, exc_has_error, exc_has_payload;
	uint8_t exc_nr;
	uint32_t exc_error;
	uint64_t exc_payload;
	bool int_injected, int_soft;
	uint8_t int_nr, int_shadow;
	bool extint_held; /* kvm_vcpu.held_vector */
	uint8_t extint_vector;
	bool nmi_injected, nmi_masked;
	uint8_t nmi_pending;
	uint32_t sipi_vector;
	bool smi_smm, smi_pending, smi_inside_nmi, smi_latched_init;
	bool triple_fault;
	uint32_t tsc_khz;
	uint8_t lapic[1024];
	uint32_t xsave_len, msrs_len, nested_len;
	uint8_t xsave[VCPU_XSAVE_MAX];
	uint8_t msrs[VCPU_MSR_MAX * 12]; /* {u32 index, u64 value}, ascending by index */
	uint8_t nested[VCPU_NESTED_MAX];
};

#define N_EXIT_REASONS 48
#define EXIT_RING      32u

/* What a vCPU left the guest for, kept for a crash report. */
struct exit_record {
	uint64_t address; /* port or address */
	uint32_t data;    /* written: the first bytes */
	uint8_t reason, size;
	bool write;
};

struct kvm_vcpu {
	struct kvm_vm *vm;
	unsigned index;
	uint32_t apic_id;
	int fd;
	struct kvm_run *run;
	int stats_fd;
	atomic_uint word;
	pthread_t thread;
	atomic_int tid;
	bool thread_started;
	bool parked;       /* run_lock */
	bool retired;      /* unplugged: stays parked until it is plugged again; run_lock */
	bool memory_error; /* it touched memory that cannot be had; its own signal handler */
	bool stuck;        /* triple fault or internal error: not to be run before reset; vCPU thread, or paused */
	bool trapped;      /* stuck by a debugger's trap: the next resume ends it; as stuck */
	bool shut_down;    /* after a triple fault KVM's MMU is to be made anew, see vcpu_push_sregs(); as stuck */
	bool frozen;       /* kvm_vcpu_freeze(); run_lock */
	bool pending_io;   /* KVM has an I/O instruction to complete; vCPU thread */
	bool extint;       /* KVM_INTERRUPT was used since the last flush_extint(); vCPU thread */
	bool ready_stale;  /* run->ready_for_interrupt_injection is of a state that was replaced; as held_vector */
	int held_vector;   /* acknowledged, but KVM has not taken it yet; -1: none; vCPU thread, or paused */
	bool touched;      /* has run or was set: reset has something to undo */
	bool poweron_valid;
	struct vcpu_image *poweron; /* as KVM created it, for reset */
	struct vcpu_image image;    /* kvm_vcpu_state's object part */
	atomic_ullong exits[N_EXIT_REASONS];
	struct exit_record recent[EXIT_RING]; /* vCPU thread; read by nobody but a crash */
	uint32_t n_recent;
	atomic_ullong doze_ns;
	struct kvm_dirty_gfn *ring; /* NULL: none */
	uint32_t ring_next;         /* the next entry; slots_lock */
	atomic_ullong ring_pages;   /* taken from it so far */
};

int vcpu_ioctl(struct kvm_vcpu *c, unsigned long req, void *arg); /* -errno */
/* cpuid.c: the CPUID table of this vCPU to KVM. */
int cpuid_apply(struct kvm_vcpu *c, struct err *e);
/* What -cpu TEXT means on this host: the CPU in d, and what it would have on a better host in lacking. */
int cpu_resolve(struct kvm_vm *vm, const char *text, const struct smp_opts *smp, struct cpu_def *d,
		uint32_t lacking[FEAT_WORDS], struct err *e);
uint32_t cpuid_signature(const struct cpu_def *d); /* leaf 1 EAX, EDX at reset */
const struct kvm_cpuid_entry2 *cpuid_supported(struct kvm_vm *vm, uint32_t leaf, uint32_t sub);
/* The guest's table for one vCPU: up to max entries; returns their number. Pure; for tests. */
size_t cpuid_build(struct kvm_vm *vm, uint32_t apic_id, unsigned index, struct kvm_cpuid_entry2 *out, size_t max);
/* vcpu_state.c */
int vcpu_capture_poweron(struct kvm_vcpu *c, struct err *e);
/* Until the thread has captured the power-on state and waits. */
void vcpu_wait_parked(struct kvm_vcpu *c);
/* The guest may run guests, and KVM tells their state. */
bool kvm_can_nest(const struct kvm_vm *vm);
int vcpu_fetch(struct kvm_vcpu *c, struct vcpu_image *m, struct err *e);
int vcpu_push(struct kvm_vcpu *c, const struct vcpu_image *m, struct err *e);
int vcpu_fetch_core(struct kvm_vcpu *c, struct vcpu_image *m); /* general and system registers only; -errno */
int vcpu_push_regs(struct kvm_vcpu *c, const struct vcpu_image *m);
int vcpu_fetch_fpu(struct kvm_vcpu *c, struct vcpu_image *m); /* XCR0 and the XSAVE area only; -errno */
int vcpu_push_fpu(struct kvm_vcpu *c, struct vcpu_image *m);
int vcpu_push_sregs(struct kvm_vcpu *c, const struct vcpu_image *m);
/* vcpu_debug.c: KVM_EXIT_DEBUG. False: the debugger's, the vCPU stops. */
bool vcpu_debug_exit(struct kvm_vcpu *c);
/* vcpu.c: the thread's exits by number */
const char *vcpu_exit_name(unsigned reason);
void vcpu_dump_exits(void *vm); /* for a crash report */
/* vcpu_exit.c: handle what KVM_RUN returned with. False: this vCPU must not go on. */
bool vcpu_handle_exit(struct kvm_vcpu *c);
void vcpu_internal_error(struct kvm_vcpu *c, const char *what);

/*
 * Keep every vCPU out of the guest while memory slots are replaced: one that touched a page in between would find
 * nothing there, and an instruction fetch from nothing cannot be retried. Exit handlers go on. Any thread, also a
 * vCPU's own handler (which is not in the guest); callers take turns (slots_lock).
 */
void vcpus_hold(struct kvm_vm *vm);
void vcpus_release(struct kvm_vm *vm);

#endif
