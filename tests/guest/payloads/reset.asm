; A 64 KiB BIOS that resets the machine by each of the PC's ways in turn, COUNT times in all:
; keyboard controller (0x64 <- 0xFE), port 92h bit 0, PIIX3 0xCF9, triple fault.
;
; RAM keeps its contents over these resets, so the count lives in RAM.  Every start reports on port
; 0xE9 the way it is about to go, k p c t, and at last "DONE".  A "+" before a letter: the PMC was not
; reset, PAM1 still holds what the last run set (as under QEMU).  "BAD m": not in real mode.
;
; Every other round of the four ways leaves PAM1 alone: then a reset changes nothing in the map of memory, and KVM has no reason but
; the reset itself to find the guest's memory anew.

bits 16
org 0

COUNT   equ 52
MAGIC   equ 0x52455345
STATE   equ 0x500                   ; magic, then the number of starts
PAM1    equ 0x8000005a & ~3         ; bus 0 device 0, dword of register 0x5A

start:
    cli
    cld
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x1000

    mov bl, 'm'
    mov eax, cr0
    test al, 1                      ; real mode
    jnz bad
    mov dx, 0xcf8
    mov eax, PAM1
    out dx, eax
    mov dx, 0xcfe
    in al, dx
    test al, al                     ; PAM1 as after power-on
    jz .fresh
    mov al, '+'
    out 0xe9, al
.fresh:
    cmp dword [STATE], MAGIC
    je .counted
    mov dword [STATE], MAGIC
    mov dword [STATE + 4], 0
.counted:
    mov eax, [STATE + 4]
    test al, 4
    jnz .untouched
    mov al, 0x33
    out dx, al
    mov eax, [STATE + 4]
.untouched:
    cmp eax, COUNT
    jae done
    inc dword [STATE + 4]
    and eax, 3
    jz keyboard
    dec eax
    jz port92
    dec eax
    jz cf9

triple_fault:
    mov al, 't'
    out 0xe9, al
    lgdt [cs:gdt_pointer]
    lidt [cs:idt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 8:(0xf0000 + .protected)
bits 32
.protected:
    mov eax, 0x18                   ; behind the GDT: #GP, and no handler for it or what follows
    mov ds, eax
    jmp $
bits 16

keyboard:
    mov al, 'k'
    out 0xe9, al
.wait:
    in al, 0x64
    test al, 2
    jnz .wait
    mov al, 0xfe
    out 0x64, al
    jmp $

port92:
    mov al, 'p'
    out 0xe9, al
    in al, 0x92
    and al, 0xfe
    out 0x92, al
    or al, 1
    out 0x92, al
    jmp $

cf9:
    mov al, 'c'
    out 0xe9, al
    mov dx, 0xcf9
    mov al, 0x02
    out dx, al
    mov al, 0x06
    out dx, al
    jmp $

bad:
    mov si, msg_bad
    call puts
    mov al, bl
    out 0xe9, al
    jmp stop
done:
    mov si, msg_done
    call puts
stop:
    cli
    hlt
    jmp stop

puts:
    cs lodsb
    test al, al
    jz .end
    out 0xe9, al
    jmp puts
.end:
    ret

msg_done    db 'DONE', 10, 0
msg_bad     db 'BAD ', 0
    align 8, db 0
gdt         dq 0, 0x00cf9b000000ffff
gdt_pointer dw 15
            dd 0xf0000 + gdt
idt_pointer dw 0
            dd 0

    times 0xfff0 - ($ - $$) db 0
    jmp 0xf000:start
    times 0x10000 - ($ - $$) db 0
