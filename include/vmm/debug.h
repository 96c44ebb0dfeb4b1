/*
 * What a debugger asks of the machine. One debugger at a time. Main thread unless said otherwise. Implementation:
 * src/machine/debug.c.
 */
#ifndef VMM_DEBUG_H
#define VMM_DEBUG_H

#include "vmm/cpu_regs.h"
#include "vmm/kvm.h"
#include "vmm/machine.h"

struct machine_debugger {
	/* vCPU thread. True: the trap is the debugger's, and the machine stops in RUN_DEBUG. */
	bool (*trapped)(void *opaque, unsigned cpu, const struct kvm_trap *trap);
	/* The machine was reset: RAM may hold other code. vCPUs paused. */
	void (*reset)(void *opaque);
};
void machine_set_debugger(struct board *b, const struct machine_debugger *d, void *opaque); /* NULL: none */

unsigned machine_cpu_count(struct board *b);         /* one more than the highest index in use; 0 without KVM */
bool machine_has_cpu(struct board *b, unsigned cpu); /* there may be holes below the count */
/* 0 or -errno; the machine is not running. */
int machine_get_cpu_regs(struct board *b, unsigned cpu, struct cpu_regs *r);
int machine_set_cpu_regs(struct board *b, unsigned cpu, const struct cpu_regs *r);
/* Traps and freezing of one vCPU; the machine may be running, it then pauses for a moment. */
int machine_set_cpu_debug(struct board *b, unsigned cpu, const struct kvm_debug *d, bool frozen);
bool machine_cpu_has_long_mode(struct board *b);     /* as CPUID tells the guest */
bool machine_can_step_without_irqs(struct board *b); /* kvm_debug.block_irqs works here */

/* Guest physical memory. Reads reach devices as an access of the CPU would; writes change ROM, too. Returns how many
   bytes were done before something that is not there: 0..len. */
size_t machine_debug_read(struct board *b, uint64_t addr, void *buf, size_t len);
size_t machine_debug_write(struct board *b, uint64_t addr, const void *buf, size_t len);

/* The guest's own page tables: linear to physical, as r's control registers have it. False: not mapped. Access rights
   are not looked at. read: physical memory, as machine_debug_read(). */
typedef size_t cpu_read_fn(void *opaque, uint64_t addr, void *buf, size_t len);
bool cpu_translate(const struct cpu_regs *r, uint64_t linear, uint64_t *physical, cpu_read_fn *read, void *opaque);

#endif
