/*
 * The registers of one vCPU as a debugger, a dump or a person wants to see them: architectural values, no KVM types.
 * Complete state for saving is elsewhere (kvm_vcpu_state). Intel SDM 1, chapters 3, 8 and 10; 3A, 2.1.
 */
#ifndef VMM_CPU_REGS_H
#define VMM_CPU_REGS_H

#include <stdbool.h>
#include <stdint.h>

enum { CPU_RAX, CPU_RCX, CPU_RDX, CPU_RBX, CPU_RSP, CPU_RBP, CPU_RSI, CPU_RDI, CPU_R8 }; /* order of encoding */
enum { CPU_ES, CPU_CS, CPU_SS, CPU_DS, CPU_FS, CPU_GS, CPU_TR, CPU_LDTR, CPU_SEGMENTS };

#define CPU_CR0_PE    (1u << 0)
#define CPU_CR0_PG    (1u << 31)
#define CPU_CR4_PSE   (1u << 4)
#define CPU_CR4_PAE   (1u << 5)
#define CPU_CR4_LA57  (1u << 12)
#define CPU_EFER_LMA  (1u << 10)
#define CPU_RFLAGS_VM (1u << 17)

struct cpu_segment {
	uint64_t base;
	uint32_t limit; /* in bytes, whatever g says */
	uint16_t selector;
	uint8_t type, present, dpl, db, s, l, g, avl, unusable;
};

struct cpu_regs {
	uint64_t gpr[16];
	uint64_t rip, rflags;
	struct cpu_segment seg[CPU_SEGMENTS];
	uint64_t gdt_base, idt_base;
	uint16_t gdt_limit, idt_limit;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer;
	uint64_t kernel_gs_base;
	uint64_t dr[4], dr6, dr7;
	uint8_t st[8][16]; /* ST(0)..ST(7), 10 bytes each */
	uint8_t xmm[16][16];
	uint16_t fcw, fsw, fop;
	uint8_t ftw; /* abridged, as FXSAVE: bit i set: physical register i is in use */
	uint64_t fip, fdp;
	uint32_t mxcsr;
	bool halted; /* waits in HLT, or an AP for its start-up IPI */
};

/* 64-bit code or compatibility mode. */
static inline bool cpu_in_long_mode(const struct cpu_regs *r)
{
	return r->efer & CPU_EFER_LMA;
}

#endif
