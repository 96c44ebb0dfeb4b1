/*
 * A ROM whose first three instructions send a byte to the debug console
 * (port 0x402) and whose next two end the VMM (isa-debug-exit, port 0x501):
 * the time from exec() to that byte is a VMM's start-up time.
 */
	.code16
	.section .reset, "ax"
	.globl reset_vector
reset_vector:
	movw $0x402, %dx
	movb $'F', %al
	outb %al, %dx
	movw $0x501, %dx
	outb %al, %dx
1:	hlt
	jmp 1b
