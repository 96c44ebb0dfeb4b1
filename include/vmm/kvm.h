/*
 * Everything that issues a KVM ioctl is behind this header (src/kvm/). It knows neither devices nor the board: exits
 * come back through struct kvm_exit_ops. Source: Linux Documentation/virt/kvm/api.rst. Capabilities are checked at run
 * time.
 */
#ifndef VMM_KVM_H
#define VMM_KVM_H

#include <stdbool.h>
#include <stdio.h>
#include "vmm/config.h"
#include "vmm/err.h"
#include "vmm/irq.h"
#include "vmm/state.h"

struct cpu_regs;
struct kvm_vm;
struct kvm_vcpu;

struct kvm_trap {
	uint32_t exception; /* 1 #DB, 3 #BP */
	uint64_t pc;        /* linear; of #BP the int3 itself */
	uint64_t dr6;
};

/* vCPU thread calls. `opaque` is what kvm_vm_new() got. */
struct kvm_exit_ops {
	/* Port I/O: `count` items of `size` bytes at data (string I/O: count > 1). */
	void (*pio)(void *opaque, uint16_t port, bool write, void *data, unsigned size, uint32_t count);
	void (*mmio)(void *opaque, uint64_t addr, bool write, void *data, unsigned len);
	/* Split irqchip */
	void (*ioapic_eoi)(void *opaque, uint8_t vector);
	uint8_t (*pic_ack)(void *opaque); /* the vector of the pending PIC interrupt */
	/* Triple fault, KVM_EXIT_SHUTDOWN; system events. */
	void (*triple_fault)(void *opaque, unsigned cpu);
	/* Emulation failure or KVM_RUN error: text says what (RIP, bytes). The vCPU stays stopped; RUN_STATE
	 * internal-error. */
	void (*internal_error)(void *opaque, unsigned cpu, const char *text);
	/* A trap that kvm_vcpu_set_debug() made possible. True: the debugger's; the vCPU stays put until the next
	 * resume. False: the guest's own, it gets the exception. NULL: all are the guest's. */
	bool (*debug)(void *opaque, unsigned cpu, const struct kvm_trap *trap);
};

/* ---- VM ---- */
/* Open /dev/kvm, check the API and required capabilities, create the VM. Messages tell what to do when /dev/kvm is
   missing (module, BIOS setting) or not permitted (group kvm). */
struct kvm_vm *kvm_vm_new(const struct config *c, const struct kvm_exit_ops *ops, void *opaque, struct err *e);
void kvm_vm_free(struct kvm_vm *vm); /* NULL-safe; stops and joins vCPUs, closes everything */
/*
 * Until the first kvm_vcpus_resume() the calls kvm_irqchip_create() and kvm_set_memory() only queue their work to a
 * helper thread: each costs the kernel several milliseconds of RCU grace periods, which overlap with building the
 * devices and loading the firmware. kvm_vm_ready() waits for that thread, ends it and returns its first error. Call it
 * once before the first kvm_vcpus_resume(); afterwards everything is done at once.
 */
int kvm_vm_ready(struct kvm_vm *vm, struct err *e);
/* 1 if this process could run KVM guests now; else 0 and the reason in e. */
int kvm_available(struct err *e);
/* Guest physical address width limit, memory slot limit. */
uint64_t kvm_max_gpa(struct kvm_vm *vm);

/* Memory slots: the complete wanted list, sorted by gpa, non-overlapping, page-aligned; the room computes the
   difference and keeps KVM in step, deleting before creating. While slots go away all vCPUs are held out of the guest,
   so that none finds a gap; switching log_dirty alone holds nobody. Host memory must stay mapped while its slot exists.
   The dirty bits of a slot that goes away are lost: fetch them first. Any thread, also from an exit handler. */
struct kvm_memory {
	uint64_t gpa, size;
	void *host;
	bool readonly, log_dirty;
};
int kvm_set_memory(struct kvm_vm *vm, const struct kvm_memory *list, size_t n, struct err *e);
/* Writes of the guest to this range may reach exit_ops late: before any other exit of the same vCPU is handled, before
   a pause has come to its end, or when they were hurried. Idempotent, for good. Any thread; leaf. */
void kvm_coalesce_writes(struct kvm_vm *vm, bool pio, uint64_t addr, uint32_t size);
/* Have what is waiting delivered soon. Any thread; leaf. */
void kvm_hurry_coalesced(struct kvm_vm *vm);
bool kvm_coalesced_waiting(struct kvm_vm *vm); /* something waits. Any thread; leaf */
/* ORs into bitmap the pages (bit 0: the one at gpa) of [gpa, gpa+size) that the guest wrote since the last call and
   clears KVM's log for them. Page-aligned. Slots without log_dirty and holes contribute nothing. The first call after
   log_dirty was switched on may report every page (KVM_DIRTY_LOG_INITIALLY_SET: nothing was write-protected yet). Any
   thread, vCPUs may run. */
int kvm_get_dirty(struct kvm_vm *vm, uint64_t gpa, uint64_t size, unsigned long *bitmap);
/* The same in two steps. The first only looks: what it reports is reported again, and what the guest writes to those
   pages is not noticed, until kvm_clear_dirty() was called for them (whose bit `first` is the page at gpa). A page must
   be cleared before it is read. Where KVM cannot do it in two (no KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, dirty rings) the
   first clears and the second does nothing and returns 0, else 1. Any thread, vCPUs may run. */
int kvm_look_dirty(struct kvm_vm *vm, uint64_t gpa, uint64_t size, unsigned long *bitmap);
int kvm_clear_dirty(struct kvm_vm *vm, uint64_t gpa, uint64_t size, const unsigned long *bitmap, uint64_t first);
/* How many pages this vCPU was seen to write so far, up to the last kvm_get_dirty(): only with dirty rings, else false.
   Any thread. */
bool kvm_vcpu_dirty_pages(struct kvm_vcpu *c, uint64_t *pages);
/* Four pages KVM itself uses on VMX without unrestricted guest (identity map, TSS): reserve them in e820. */
#define KVM_RESERVED_GPA  0xfeffc000ull
#define KVM_RESERVED_SIZE 0x4000ull

/* ---- interrupt controllers ---- */
/* Before the first vCPU and before interrupts are used, best after the first kvm_set_memory(): a slot added after the
   chips waits for the RCU callbacks their creation leaves. Queued, see kvm_vm_ready(). */
int kvm_irqchip_create(struct kvm_vm *vm, enum irqchip_mode mode, struct err *e);
int kvm_irq_line(struct kvm_vm *vm, unsigned gsi, bool level); /* mode ON. Any thread; leaf. 0 or -errno */
/* Deliver an MSI at once, after route changes that wait. Any thread; leaf. 0 or -errno. */
int kvm_signal_msi(struct kvm_vm *vm, uint64_t address, uint32_t data);
/* Split: the route of an IOAPIC pin, so that KVM tells us of EOIs. A masked pin keeps its last route: an interrupt
   already delivered still wants its EOI. Route changes (these and MSI routes) are batched until the next vCPU entry or
   kvm_signal_msi(). Any thread; leaf. */
int kvm_ioapic_route(struct kvm_vm *vm, unsigned pin, uint64_t address, uint32_t data, bool masked, bool level_trig);
/* Split: the i8259's INTR output, to LINT0 of the boot CPU. Any thread. While it is high and the CPU can take it (IF,
   LINT0 unmasked as ExtINT, as KVM tells), the vCPU thread calls exit_ops.pic_ack() and injects the vector. */
void kvm_pic_output(struct kvm_vm *vm, bool level);
/* Raise LINT1 of CPU `cpu` (-1: all), which the guest has to have programmed for NMI delivery. Any thread. */
void kvm_inject_nmi(struct kvm_vm *vm, int cpu);
/* irqfd/ioeventfd for virtio, MSI routes (allocated GSI numbers above 24: a number, or -ENOSPC). Any thread; leaf. */
int kvm_msi_route_alloc(struct kvm_vm *vm, struct err *e);
int kvm_msi_route_set(struct kvm_vm *vm, int gsi, uint64_t address, uint32_t data);
void kvm_msi_route_free(struct kvm_vm *vm, int gsi);
/* resample_fd: -1, or the eventfd KVM signals at EOI of a level interrupt. */
int kvm_irqfd(struct kvm_vm *vm, int gsi, int fd, int resample_fd, bool assign);
/* len 1, 2, 4, 8, or 0 for any length (then match is ignored). Every queue_index style address gets its own. */
int kvm_ioeventfd(struct kvm_vm *vm, bool pio, uint64_t addr, unsigned len, bool match, uint64_t value, int fd,
		  bool assign);
/* Chip state, mode ON (conversion to the architected structures). PIT: KVM counts host monotonic time, the state counts
   VCLOCK_VIRTUAL; converted at the moment of the call, so get right after pausing and set right before resuming. */
int kvm_get_pic(struct kvm_vm *vm, unsigned which, struct pic_state *s);
int kvm_set_pic(struct kvm_vm *vm, unsigned which, const struct pic_state *s);
int kvm_get_ioapic(struct kvm_vm *vm, struct ioapic_state *s);
int kvm_set_ioapic(struct kvm_vm *vm, const struct ioapic_state *s);
int kvm_get_pit(struct kvm_vm *vm, struct pit_channel_state ch[3]);
int kvm_set_pit(struct kvm_vm *vm, const struct pit_channel_state ch[3]);
int kvm_pit_reinject(struct kvm_vm *vm, bool on); /* lost ticks: again (KVM's default) or dropped */
/* kvmclock: its own state section, saved while stopped. */
int kvm_clock_get(struct kvm_vm *vm, uint64_t *ns);
int kvm_clock_set(struct kvm_vm *vm, uint64_t ns);

/* ---- CPU models (src/kvm/cpuid.c, cpu_models.c) ---- */
/* -cpu help: models with their summaries, then feature names. */
void kvm_cpu_print_help(FILE *out);
/* Check -cpu MODEL[,+feat,-feat,feat=on|off] against KVM_GET_SUPPORTED_CPUID: an unknown model or feature is refused
   with the nearest name, a feature the host lacks is refused by name when asked explicitly (models: missing features
   are listed and refused with `enforce`, else masked with a warning). migratable=on|off etc. accepted as QEMU does. */
int kvm_cpu_setup(struct kvm_vm *vm, const char *text, const struct smp_opts *smp, struct err *e);
/* The same for a guest that has been elsewhere: of the features it gets none but these (kvm_cpu_features() there; NULL:
   whatever text says). Whether it has them all is for the caller to compare. */
int kvm_cpu_setup_limited(struct kvm_vm *vm, const char *text, const char *features, const struct smp_opts *smp,
			  struct err *e);
const char *kvm_cpu_model(struct kvm_vm *vm); /* "qemu64" ... */
/* Features the guest sees as QEMU's names, separated by spaces; malloc'ed. */
char *kvm_cpu_features(struct kvm_vm *vm);
/* What another host's KVM must be able to hold for the state of these vCPUs (kvm_vcpu_state) to fit: names and
   NAME=BYTES, separated by spaces; malloc'ed. */
char *kvm_state_needs(struct kvm_vm *vm);
/* Of two hosts' kvm_state_needs(): the first word of needs that has does not meet, or NULL. Both may come from outside.
 */
const char *kvm_state_lacks(const char *needs, const char *has);
unsigned kvm_cpu_phys_bits(struct kvm_vm *vm); /* physical address bits, as CPUID tells the guest */
bool kvm_cpu_has_long_mode(struct kvm_vm *vm); /* likewise */
/* What management asks about CPU models (cpu_query.c). Strings of features are separated by blanks. */
struct kvm_cpu_view {
	char vendor[13], model_id[49];
	uint32_t family, model, stepping, level, xlevel, phys_bits;
	char *features, *missing; /* what the guest sees; what the model has and this host lacks */
};
/* What -cpu TEXT would give a guest. Release with kvm_cpu_view_free(). */
int kvm_cpu_expand(struct kvm_vm *vm, const char *text, struct kvm_cpu_view *out, struct err *e);
int kvm_cpu_current(struct kvm_vm *vm, struct kvm_cpu_view *out); /* the CPU of this guest */
void kvm_cpu_view_free(struct kvm_cpu_view *v);                   /* its strings */
char *kvm_feature_names(void);                                    /* every feature there is; malloc'ed */
const char *kvm_cpu_model_alias(const char *name);                /* "Nehalem" -> "Nehalem-v1"; NULL: not an alias */
/* Models by index for query-cpu-definitions; NULL after the last. */
const char *kvm_cpu_model_name(size_t i, const char **summary);

/* ---- vCPUs ---- */
/* Create vCPU `index` with its APIC id and thread, "CPU 0/KVM". Any order, also while others run: it then waits for
   INIT and SIPI. One that was retired comes back in its power-on state. Main thread. */
struct kvm_vcpu *kvm_vcpu_new(struct kvm_vm *vm, unsigned index, struct err *e);
/* Unplug: returns when it has left the guest and its exit handler; its state is lost and it does not run until
   kvm_vcpu_new(). Never the boot CPU. Main thread, no device lock held. */
void kvm_vcpu_retire(struct kvm_vcpu *c);
/* fn is called on each vCPU thread before it enters the guest for the first time (the sandbox). Before the first
 * resume. */
void kvm_set_thread_hook(struct kvm_vm *vm, void (*fn)(void));
unsigned kvm_vcpu_count(struct kvm_vm *vm); /* one more than the highest index in use; there may be holes below */
struct kvm_vcpu *kvm_vcpu_get(struct kvm_vm *vm, unsigned index); /* NULL: there is no such vCPU */
uint32_t kvm_vcpu_apic_id(const struct kvm_vcpu *c);              /* xAPIC id */
/* The APIC id CPU `index` has in this topology (for MADT and -device; also for CPUs not created). */
uint32_t kvm_apic_id(const struct smp_opts *smp, unsigned index);
int kvm_vcpu_thread_id(const struct kvm_vcpu *c); /* gettid() of the thread */
/* Power-on/INIT state (APs wait for SIPI). vCPUs paused. */
void kvm_vcpu_reset(struct kvm_vcpu *c);
/* Direct boot: start state other than the reset vector; except in real mode with memory types (MTRRs) set, as by a
 * BIOS. */
struct kvm_boot_state {
	enum {
		KVM_BOOT_PROTECTED32,
		KVM_BOOT_LONG64,
		KVM_BOOT_REAL
	} mode; /* flat segments; LONG64: paging with cr3 given */
	uint64_t rip, rsp, rbx, rsi, rbp, rdi, rax, cr3;
	uint64_t gdt_base;
	uint16_t gdt_limit; /* the GDT we left in guest RAM */
	uint16_t cs, ds;
};
/* After kvm_vcpu_reset(), paused. 0 or -errno. */
int kvm_vcpu_set_boot_state(struct kvm_vcpu *c, const struct kvm_boot_state *b);
/* Run control: main thread, no device lock held. pause returns when every vCPU has left the guest and finished its exit
   handler, with any half-done I/O instruction completed. A vCPU that met a triple fault or an internal error stays put
   until it is reset or loaded. */
void kvm_vcpus_resume(struct kvm_vm *vm);
void kvm_vcpus_pause(struct kvm_vm *vm);
void kvm_vcpus_stop(struct kvm_vm *vm); /* end and join all threads */
/* Keep the vCPU out of the guest for ns, once, for auto-converge; a pause or any other request ends the nap. Any
 * thread. */
void kvm_vcpu_doze(struct kvm_vcpu *c, uint64_t ns);
/*
 * Grace period for data that exit handlers read without a lock (the region map): call fn(arg) once every vCPU thread
 * that is inside an exit handler NOW has left it. vCPUs in the guest or paused hold no references and are not waited
 * for. fn runs at once on the caller's thread, or on the vCPU thread that is the last to pass; it must not block (free
 * memory). Publish the replacement before calling. Callers on vCPU threads are waited for, too: fn then runs after
 * their own handler has returned. Any thread; leaf.
 */
void kvm_call_after_grace(struct kvm_vm *vm, void (*fn)(void *arg), void *arg);
bool kvm_vcpu_is_self(void); /* the calling thread is a vCPU thread */
/* State of one vCPU: registers, FPU/XSAVE, MSRs, LAPIC, events, MP state; obj: struct kvm_vcpu. Paused. */
extern const struct state_table kvm_vcpu_state;
/* Put a loaded state into KVM. After ALL vCPUs and kvmclock are loaded, still paused. A register this host's KVM
   refuses is named. */
int kvm_vcpu_settle(struct kvm_vcpu *c, struct err *e);

/* ---- debugging (src/kvm/vcpu_debug.c) ---- */
/* Registers; 0 or -errno. Paused. Setting changes only what differs. */
int kvm_vcpu_get_regs(struct kvm_vcpu *c, struct cpu_regs *r);
int kvm_vcpu_set_regs(struct kvm_vcpu *c, const struct cpu_regs *r);
#define KVM_DEBUG_HW 4
struct kvm_debug {
	bool software;         /* int3 comes to exit_ops.debug */
	bool step, block_irqs; /* one instruction; without interrupts, if kvm_can_block_irqs() */
	unsigned n_hw;
	struct {
		uint64_t addr; /* linear, aligned to len */
		uint8_t type;  /* DR7 R/W: 0 execute (len 1), 1 write, 3 access */
		uint8_t len;   /* 1, 2, 4, 8 */
	} hw[KVM_DEBUG_HW];
};
/* What traps from now on; all zero: nothing. Paused (it would wait for a vCPU in the guest). -errno. */
int kvm_vcpu_set_debug(struct kvm_vcpu *c, const struct kvm_debug *d);
bool kvm_can_block_irqs(struct kvm_vm *vm); /* KVM_GUESTDBG_BLOCKIRQ */
/* A frozen vCPU stays parked when the others are resumed. Paused. */
void kvm_vcpu_freeze(struct kvm_vcpu *c, bool frozen);

/* ---- KVM's own counters (src/kvm/stats.c) ---- */
enum kvm_stat_type {
	KVM_STAT_CUMULATIVE,
	KVM_STAT_INSTANT,
	KVM_STAT_PEAK,
	KVM_STAT_LINEAR_HISTOGRAM,
	KVM_STAT_LOG2_HISTOGRAM
};
enum kvm_stat_unit { KVM_STAT_NO_UNIT, KVM_STAT_BYTES, KVM_STAT_SECONDS, KVM_STAT_CYCLES, KVM_STAT_BOOLEAN };
struct kvm_stat {
	char name[64];
	enum kvm_stat_type type;
	enum kvm_stat_unit unit;
	unsigned base; /* a value counts units of base^exponent */
	int exponent;
	unsigned size, bucket_size; /* numbers, and of a linear histogram their width */
	uint32_t offset;            /* private */
};
/* Those of a vCPU, or of the VM with -1: their number, or -errno (-ENOTSUP: this kernel has none). *stats belongs to
   the VM. values, unless NULL: `size` numbers of each, one after the other; free() it. Main thread; vCPUs may run. */
int kvm_stats_get(struct kvm_vm *vm, int vcpu, const struct kvm_stat **stats, uint64_t **values);
/* Exits by reason, for metrics; returns number of reasons filled. */
size_t kvm_exit_counts(struct kvm_vcpu *c, const char **names, uint64_t *counts, size_t max);

#endif
