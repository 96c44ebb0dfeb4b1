; El Torito boot image (no emulation) and test of INT 13h on an ATAPI CD-ROM.
;
; xorriso patches the boot information table at offset 8; its file address tells where on the
; disc this image lies.  The image is CODE_SECTORS of 2048 bytes (loaded by the BIOS), then
; PATTERN_SECTORS of 2048 bytes with the pattern of report.inc, counted in 512-byte sectors from
; the start of the image.

%include "report.mac"

bits 16
org 0x7c00

CODE_SECTORS    equ 2
PATTERN_SECTORS equ 96

    jmp short entry
    times 8 - ($ - $$) db 0
bi_pvd      dd 0                    ; boot information table
bi_file     dd 0
bi_length   dd 0
bi_csum     dd 0
    times 64 - ($ - $$) db 0
entry:
    ENTRY main

%include "report.inc"

main:
    mov [drive], dl
    mov si, msg_start
    call puts

    STEP 0x01                       ; the whole program was loaded
    cmp dword [loaded_mark], KEY
    FAIL_IF ne

    STEP 0x02                       ; boot drive: no emulation, and the drive we came from
    mov ax, 0x4b01
    mov dl, [drive]
    mov si, packet
    int 0x13
    FAIL_IF c
    test byte [packet + 1], 0x0f
    FAIL_IF nz
    mov al, [drive]
    cmp [packet + 2], al
    FAIL_IF ne

    STEP 0x03                       ; extensions
    mov ah, 0x41
    mov bx, 0x55aa
    mov dl, [drive]
    int 0x13
    FAIL_IF c
    cmp bx, 0xaa55
    FAIL_IF ne

    STEP 0x04                       ; 2048-byte sectors
    mov word [params], 26
    mov ah, 0x48
    mov dl, [drive]
    mov si, params
    int 0x13
    FAIL_IF c
    cmp word [params + 24], 2048
    FAIL_IF ne

    mov ax, 0x1000
    mov es, ax

    STEP 0x10                       ; the primary volume descriptor
    mov dword [lba], 16
    mov cx, 1
    mov ah, 0x42
    call lba_op
    FAIL_IF c
    cmp dword [es:0], 0x30444301    ; 01 'CD0'
    FAIL_IF ne

    STEP 0x11                       ; one sector of the pattern, the first and the last
    mov cx, 1
    mov dword [index], CODE_SECTORS
    call read_and_check
    mov dword [index], CODE_SECTORS + PATTERN_SECTORS - 1
    call read_and_check

    STEP 0x12                       ; 2, 7, 31 sectors in one request
    mov dword [index], CODE_SECTORS + 5
    mov cx, 2
    call read_and_check
    mov cx, 7
    call read_and_check
    mov cx, 31
    call read_and_check

    STEP 0x13                       ; every sector on its own
    mov dword [index], CODE_SECTORS
    mov cx, 1
    mov bp, PATTERN_SECTORS
.each:
    call read_and_check
    inc dword [index]
    dec bp
    jnz .each

    STEP 0x20                       ; far beyond the end
    mov dword [lba], 0x01000000
    mov cx, 1
    mov ah, 0x42
    call lba_op
    FAIL_IF nc

    STEP 0x21                       ; a CD-ROM takes no writes
    mov eax, [bi_file]
    mov [lba], eax
    mov cx, 1
    mov ah, 0x43
    call lba_op
    FAIL_IF nc

    STEP 0x22                       ; and reads go on working
    mov dword [index], CODE_SECTORS + 9
    mov cx, 4
    call read_and_check

    mov si, msg_pass
    call puts
    jmp stop

; Read CX sectors from the image's sector [index] to ES:0 and compare.
read_and_check:
    pushad
    mov eax, [bi_file]
    add eax, [index]
    mov [lba], eax
    mov dword [es:0], 0xeeeeeeee
    mov ah, 0x42
    call lba_op
    FAIL_IF c
    popad
    pushad
    mov eax, [index]
    shl eax, 2
    shl cx, 2
    xor ebx, ebx
    call check_sectors
    popad
    ret

msg_start   db 'int13-cd', 13, 10, 0
msg_pass    db 'PASS int13-cd', 13, 10, 0
            align 4, db 0
index       dd 0
packet      db 0x13
            times 31 db 0
params      times 32 db 0

    times CODE_SECTORS * 2048 - 4 - ($ - $$) db 0
loaded_mark dd KEY
