/*
 * The least a program must do to run a ROM under KVM: what the limits in this
 * folder share. No devices, no dispatch, no second thread.
 */
#ifndef BENCH_SMALLVM_H
#define BENCH_SMALLVM_H

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PORT_DEBUGCON = 0x402,
	PORT_DEBUG_EXIT = 0x501,
};

struct smallvm {
	int kvm;
	int vm;
	int vcpu;
	struct kvm_run *run;
};

/*
 * Build a VM with ram_size bytes of RAM (more than 1 MiB) and the ROM file so that it ends
 * at 4 GiB; its one vCPU stands at the reset vector. Ends the program with a
 * sentence on stderr if that fails.
 */
void smallvm_create(struct smallvm *vm, const char *rom_path, size_t ram_size);

/* The same with KVM's interrupt controllers and 8254. */
void smallvm_create_pc(struct smallvm *vm, const char *rom_path, size_t ram_size);

/* Monotonic host time in nanoseconds. */
uint64_t now_ns(void);

/* Print "PROGRAM: WHAT: strerror(errno)" and exit(1). */
_Noreturn void die(const char *what);

#endif
