/*
 * The smallest kernel: one byte to the first serial port, then the end by
 * isa-debug-exit. Built twice, once for each way to start a kernel that is
 * not Linux's own:
 *
 * -DPVH        Xen's PVH entry: an ELF note names the 32-bit entry point
 *              (Xen docs/misc/pvh.pandoc; elfnote.h type 18)
 * -DMULTIBOOT  multiboot 1 header (Multiboot Specification 0.6.96, 3.1)
 *
 * Both enter in 32-bit protected mode with flat segments and paging off.
 */
#ifdef PVH
	.section .note.pvh, "a", @note
	.long 4, 4, 18
	.asciz "Xen"
	.long kernel_entry
#endif

	.code32
	.section .text.start, "ax"
#ifdef MULTIBOOT
	.balign 4
	.long 0x1badb002, 0, -0x1badb002
#endif
	.globl kernel_entry
kernel_entry:
	movw $0x3f8, %dx
	movb $'K', %al
	outb %al, %dx
	movw $0x501, %dx
	movb $0, %al
	outb %al, %dx
1:	hlt
	jmp 1b
