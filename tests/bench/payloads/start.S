/*
 * From the reset vector to C in 32-bit protected mode with flat segments:
 * what every ROM payload but first.S begins with.
 */
	.code16
	.section .reset, "ax"
	.globl reset_vector
reset_vector:
	jmp start16

	.section .text.start, "ax"
start16:
	cli
	cld
	movl $(gdt_pointer - 0xffff0000), %ebx
	lgdtl %cs:(%ebx)
	movl %cr0, %eax
	andl $0x9fffffff, %eax		/* caches on: CD and NW are set by reset */
	orl $1, %eax			/* protected mode */
	movl %eax, %cr0
	ljmpl $8, $start32

	.code32
start32:
	movl $16, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %eax, %fs
	movl %eax, %gs
	movl $0x10000, %esp		/* grows down, below the variables */
	call payload_main
	movl $0x501, %edx		/* isa-debug-exit ends the VMM */
	outb %al, %dx
1:	hlt
	jmp 1b

	.balign 8
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff	/* 0x08: code, 0..4 GiB, 32-bit */
	.quad 0x00cf93000000ffff	/* 0x10: data, 0..4 GiB */
gdt_pointer:
	.word gdt_pointer - gdt - 1
	.long gdt
