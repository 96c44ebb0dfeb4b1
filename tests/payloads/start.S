/*
 * Guest payloads: small 64-bit programs that run without an operating system.
 *
 * A payload is one C file with `int payload_main(void)` (payload.h has what it may call), linked
 * with this file and runtime.c by build.sh into an ELF that boots with `-kernel`:
 *
 *   build.sh hello.c hello.elf            PVH (64-bit ELF with the Xen note)
 *   build.sh -m hello.c hello.mb.elf      multiboot 1 (32-bit ELF with the same 64-bit code)
 *
 * payload_main() runs at CPL 3 with CS 0x33 and SS 0x2b, the first 4 GiB mapped one to one, all
 * pages user-accessible, all I/O ports allowed, interrupts off.  Why CPL 3 and these selectors:
 * on the software KVM of the test hosts only such code runs natively, everything else in KVM's
 * instruction emulator at 4 million instructions/s; so the loop of a benchmark or a memory dirtier
 * belongs there.  On VMX and SVM it makes no difference.  Rules learned from that KVM:
 *
 *   - IRETQ loses IOPL, so ports are granted by the TSS I/O bitmap (and by IOPL for QEMU's emulator as a host
 *     with SVM: it looks at no bitmap of a TSS that is marked busy, as KVM always gives it after a migration);
 *   - `int n` from CPL 3 raises #UD and SYSCALL stays at CPL 3, so the way to CPL 0 is a real
 *     fault: ring0(fn, a, b) executes ud2 with a magic number, see vec_6;
 *   - exits cost 10 us from CPL 0 and 60-70 us from CPL 3.
 *
 * Interrupts: ring0() a function that programs the controller, set irq_handler[vector], then `sti`
 * by returning with interrupts_on set (see runtime.c); handlers run at CPL 0.
 *
 * References: Xen PVH direct boot ABI (start of day in 32-bit mode, EBX = hvm_start_info);
 * Multiboot Specification 0.6.96; Intel SDM vol. 3 sections 4.5, 6.14, 8.7.
 */

#define CR0_PE          0x00000001
#define CR0_PG          0x80000000
#define CR4_PAE         0x00000020
#define MSR_EFER        0xc0000080
#define EFER_LME        0x00000100
#define PAGE_PWU        0x07            /* present, writable, user */
#define PAGE_LARGE      0x80
#define GATE_MAGIC      0x52494e4730    /* "RING0": in R11 at a ud2 that is a call */

#ifdef MULTIBOOT
        .section .multiboot, "a"
        .balign 4
        .long 0x1badb002, 0x00000003, -(0x1badb002 + 0x00000003)
#else
        .section .note.Xen, "a", @note
        .balign 4
        .long 4, 4, 18                  /* name size, value size, XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz "Xen"
        .long start32
#endif

        .section .text.start, "ax"
        .code32
        .globl start32
start32:
        cli
        cld
        movl %eax, boot_magic
        movl %ebx, boot_info
        movl $stack0_top, %esp

        /* 4 GiB in 2 MiB pages: four page directories behind one pointer table */
        movl $pml4, %edi
        movl $pdpt + PAGE_PWU, (%edi)
        movl $pdpt, %edi
        movl $pd + PAGE_PWU, %eax
        movl $4, %ecx
1:      movl %eax, (%edi)
        addl $8, %edi
        addl $4096, %eax
        loop 1b
        movl $pd, %edi
        movl $PAGE_PWU | PAGE_LARGE, %eax
        movl $2048, %ecx
2:      movl %eax, (%edi)
        addl $8, %edi
        addl $0x200000, %eax
        loop 2b

        movl %cr4, %eax
        orl $CR4_PAE, %eax
        movl %eax, %cr4
        movl $pml4, %eax
        movl %eax, %cr3
        movl $MSR_EFER, %ecx
        rdmsr
        orl $EFER_LME, %eax
        wrmsr
        movl %cr0, %eax
        orl $CR0_PG | CR0_PE, %eax
        movl %eax, %cr0
        lgdt gdt_pointer
        ljmp $0x10, $start64

        .code64
start64:
        movl $0x18, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        xorl %eax, %eax
        movl %eax, %fs
        movl %eax, %gs
        movq $stack0_top, %rsp

        /* the TSS: its address into the GDT, its bitmap's last byte all ones */
        movl $tss, %eax
        movw %ax, gdt_tss + 2
        shrl $16, %eax
        movb %al, gdt_tss + 4
        movb %ah, gdt_tss + 7
        movq $stack0_top, tss + 4       /* RSP0 */
        movw $104, tss + 102            /* I/O bitmap base */
        movb $0xff, tss + 104 + 8192
        movl $0x38, %eax
        ltr %ax

        /* IDT: vectors 0..63 */
        movl $idt, %edi
        movl $vectors, %eax
        movl $64, %ecx
3:      movw %ax, (%rdi)
        movw $0x10, 2(%rdi)
        movw $0x8e00, 4(%rdi)
        movl %eax, %edx
        shrl $16, %edx
        movw %dx, 6(%rdi)
        addl $16, %edi
        addl $16, %eax
        loop 3b
        lidt idt_pointer

        /* to CPL 3 */
        movl $0x2b, %eax
        movl %eax, %ds
        movl %eax, %es
        pushq $0x2b
        pushq $stack3_top - 8
        pushq $0x3002                   /* IOPL 3 */
        pushq $0x33
        pushq $payload_start
        iretq

/*
 * Another processor, from its start-up IPI (real mode, CS:IP = 0800:0000, this code copied to 0x8000) to fn(arg) at CPL 3; see
 * start_cpu() in runtime.c. It has no TSS: it takes no exceptions and has no ports.
 */
        .globl ap_start, ap_end, ap_function, ap_argument
        .code16
ap_start:
        cli
        xorw %ax, %ax
        movw %ax, %ds
        lgdtl 0x8000 + ap_gdt_pointer - ap_start
        movl $CR0_PE, %eax
        movl %eax, %cr0
        ljmpl $0x08, $ap32
        .balign 4
ap_gdt_pointer:
        .word 0x3f
        .long gdt
ap_end:
        .code32
ap32:
        movl $0x18, %eax
        movl %eax, %ds
        movl %eax, %ss
        movl $ap_stack0_top, %esp
        movl %cr4, %eax
        orl $CR4_PAE, %eax
        movl %eax, %cr4
        movl $pml4, %eax
        movl %eax, %cr3
        movl $MSR_EFER, %ecx
        rdmsr
        orl $EFER_LME, %eax
        wrmsr
        movl %cr0, %eax
        orl $CR0_PG | CR0_PE, %eax
        movl %eax, %cr0
        lgdt gdt_pointer
        ljmp $0x10, $ap64
        .code64
ap64:
        movq $ap_stack0_top, %rsp
        lidt idt_pointer
        movl $0x2b, %eax
        movl %eax, %ds
        movl %eax, %es
        movq ap_argument, %rdi
        pushq $0x2b
        pushq $ap_stack3_top - 8
        pushq $0x002
        pushq $0x33
        pushq ap_function
        iretq

/*
 * Interrupt entry: 16 bytes per vector, then one common frame.  Vectors 8, 10-14 and 17 come with
 * an error code; the others get a 0.
 */
        .balign 16
vectors:
        vector = 0
        .rept 64
        .balign 16
        .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17
        .else
        pushq $0
        .endif
        pushq $vector
        jmp common
        vector = vector + 1
        .endr
        .balign 16

common:
        pushq %rax
        pushq %rbx
        pushq %rcx
        pushq %rdx
        pushq %rsi
        pushq %rdi
        pushq %rbp
        pushq %r8
        pushq %r9
        pushq %r10
        pushq %r11
        pushq %r12
        pushq %r13
        pushq %r14
        pushq %r15
        cmpl $6, 120(%rsp)              /* #UD with the magic number: a call from CPL 3 */
        jne 1f
        movabsq $GATE_MAGIC, %rcx
        cmpq %rcx, %r11
        jne 1f
        addq $2, 136(%rsp)              /* return behind the ud2 */
        movq 72(%rsp), %rdi             /* the call's RDI and RSI; its function in RAX */
        movq 80(%rsp), %rsi
        movq %rsp, %rbp
        andq $-16, %rsp
        call *%rax
        movq %rbp, %rsp
        movq %rax, 112(%rsp)
        jmp 2f
1:      movq %rsp, %rdi
        movq %rsp, %rbp
        andq $-16, %rsp
        call payload_interrupt
        movq %rbp, %rsp
2:      popq %r15
        popq %r14
        popq %r13
        popq %r12
        popq %r11
        popq %r10
        popq %r9
        popq %r8
        popq %rbp
        popq %rdi
        popq %rsi
        popq %rdx
        popq %rcx
        popq %rbx
        popq %rax
        addq $16, %rsp
        iretq

/* long ring0(long (*fn)(long, long), long a, long b): call fn(a, b) at CPL 0. */
        .globl ring0
ring0:
        movq %rdi, %rax
        movq %rsi, %rdi
        movq %rdx, %rsi
        movabsq $GATE_MAGIC, %r11
        ud2
        ret

        .data
        .balign 16
gdt:    .quad 0
        .quad 0x00cf9b000000ffff        /* 0x08 CPL 0 code, 32 bits */
        .quad 0x00af9b000000ffff        /* 0x10 CPL 0 code, 64 bits */
        .quad 0x00cf93000000ffff        /* 0x18 CPL 0 data */
        .quad 0x00cffb000000ffff        /* 0x23 CPL 3 code, 32 bits */
        .quad 0x00cff3000000ffff        /* 0x2b CPL 3 data */
        .quad 0x00affb000000ffff        /* 0x33 CPL 3 code, 64 bits */
gdt_tss:
        .word 104 + 8192                /* 0x38 TSS with the whole I/O bitmap */
        .word 0
        .byte 0, 0x89, 0, 0
        .quad 0
gdt_pointer:
        .word . - gdt - 1
        .quad gdt
idt_pointer:
        .word 64 * 16 - 1
        .quad idt
        .globl boot_magic, boot_info
boot_magic:
        .long 0
boot_info:
        .long 0

        .bss
        .balign 4096
        .globl pml4
pml4:   .skip 4096
        .globl pdpt
pdpt:   .skip 4096
pd:     .skip 4 * 4096
idt:    .skip 64 * 16
        .balign 16
tss:    .skip 104 + 8192 + 8
        .balign 16
stack0: .skip 16384
stack0_top:
stack3: .skip 65536
stack3_top:
        .skip 4096
ap_stack0_top:
        .skip 16384
ap_stack3_top:
ap_function:
        .skip 8
ap_argument:
        .skip 8

        .section .note.GNU-stack, "", @progbits
