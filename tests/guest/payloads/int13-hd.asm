; Hard-disk boot sector and test of INT 13h on an ATA disk.
;
; Sector 0 loads the rest of this program (itself the first test), which then checks geometry,
; CHS and LBA reads, writes with read-back, verify, and refused requests.  Sectors from
; PATTERN_START on hold the pattern of report.inc; the host checks what was written afterwards:
; WRITE_LBA (16 sectors, LBA) and WRITE_CHS (3 sectors) hold the inverted pattern.
;
; -DSECTORS=n: the size of the disk.

%include "report.mac"

bits 16
org 0x7c00

PATTERN_START   equ 64
WRITE_LBA       equ 2000
WRITE_CHS       equ 3000
CODE_SECTORS    equ 7

    ENTRY start
start:
    LOAD_REST CODE_SECTORS

    times 446 - ($ - $$) db 0
    ; one partition, so that a BIOS that wants a valid table is content
    db 0x80, 0, 2, 0, 0x0c, 254, 63, 0
    dd PATTERN_START, SECTORS - PATTERN_START
    times 510 - ($ - $$) db 0
    dw 0xaa55

%include "report.inc"

main:
    mov [drive], dl
    mov si, msg_start
    call puts

    STEP 0x02                       ; reset
    mov ah, 0
    mov dl, [drive]
    int 0x13
    FAIL_IF c

    STEP 0x03                       ; extensions present
    mov ah, 0x41
    mov bx, 0x55aa
    mov dl, [drive]
    int 0x13
    FAIL_IF c
    cmp bx, 0xaa55
    FAIL_IF ne
    test cl, 1
    FAIL_IF z

    STEP 0x04                       ; drive parameters
    mov word [params], 26
    mov ah, 0x48
    mov dl, [drive]
    mov si, params
    int 0x13
    FAIL_IF c
    cmp dword [params + 16], SECTORS
    FAIL_IF ne
    cmp dword [params + 20], 0
    FAIL_IF ne
    cmp word [params + 24], 512
    FAIL_IF ne

    STEP 0x05                       ; geometry
    mov ah, 0x08
    mov dl, [drive]
    xor di, di
    mov es, di
    int 0x13
    FAIL_IF c
    test dl, dl
    FAIL_IF z
    mov al, cl
    and ax, 63
    FAIL_IF z
    mov [spt], ax
    movzx ax, dh
    inc ax
    mov [heads], ax
    mov al, ch
    mov ah, cl
    shr ah, 6
    inc ax                          ; cylinders
    mul word [heads]
    push dx
    push ax
    pop eax
    movzx ebx, word [spt]
    mul ebx
    test eax, eax
    FAIL_IF z
    cmp eax, SECTORS
    FAIL_IF a

    STEP 0x06                       ; type: fixed disk, CX:DX sectors
    mov ah, 0x15
    mov dl, [drive]
    int 0x13
    FAIL_IF c
    cmp ah, 3
    FAIL_IF ne
    push cx
    push dx
    pop eax
    cmp eax, SECTORS
    FAIL_IF a
    cmp eax, SECTORS / 2            ; CHS may hide a part of the disk, not most of it
    FAIL_IF b

    STEP 0x07                       ; ready
    mov ah, 0x10
    mov dl, [drive]
    int 0x13
    FAIL_IF c

    mov ax, 0x1000                  ; the buffer: 1000:0000
    mov es, ax

    STEP 0x10                       ; one sector, CHS
    mov dword [lba], PATTERN_START
    mov cx, 1
    call chs_read_and_check

    STEP 0x11                       ; a whole track, CHS
    movzx eax, word [spt]
    mul word [heads]                ; cylinder 1, head 0
    mov [lba], eax
    mov cx, [spt]
    call chs_read_and_check

    STEP 0x12                       ; first, last and some in between, LBA
    mov cx, 1
    mov dword [lba], PATTERN_START
    call lba_read_and_check
    mov dword [lba], SECTORS - 1
    call lba_read_and_check
    mov dword [lba], SECTORS / 2
    call lba_read_and_check

    STEP 0x13                       ; 2, 3, 64, 127 sectors in one request
    mov dword [lba], 1001
    mov cx, 2
    call lba_read_and_check
    mov cx, 3
    call lba_read_and_check
    mov cx, 64
    call lba_read_and_check
    mov cx, 127
    call lba_read_and_check
    mov dword [lba], SECTORS - 127
    call lba_read_and_check

    STEP 0x14                       ; many small requests
    mov dword [lba], 5000
    mov bp, 64
    mov cx, 1
.many:
    call lba_read_and_check
    add dword [lba], 97
    dec bp
    jnz .many

    STEP 0x20                       ; beyond the end
    mov dword [lba], SECTORS
    mov cx, 1
    mov ah, 0x42
    call lba_op
    FAIL_IF nc
    test ah, ah
    FAIL_IF z
    mov dword [lba], SECTORS - 1
    mov cx, 2
    mov ah, 0x42
    call lba_op
    FAIL_IF nc

    STEP 0x21                       ; and the disk works afterwards
    mov dword [lba], SECTORS - 1
    mov cx, 1
    call lba_read_and_check

    STEP 0x22                       ; no sectors, and a head the disk has not
    mov ax, 0x0200
    mov cx, 0x0001
    mov dh, 0
    mov dl, [drive]
    xor bx, bx
    int 0x13
    FAIL_IF nc
    mov ax, 0x0201
    mov cx, 0x0001
    mov dh, 255
    mov dl, [drive]
    int 0x13
    FAIL_IF nc

    STEP 0x30                       ; verify
    mov dword [lba], 1000
    mov cx, 16
    mov ah, 0x44
    call lba_op
    FAIL_IF c
    mov ax, 0x0404
    call chs_op
    FAIL_IF c

    STEP 0x40                       ; write 16 sectors by LBA
    mov dword [lba], WRITE_LBA
    mov cx, 16
    call invert
    mov ah, 0x43
    call lba_op
    FAIL_IF c
    STEP 0x41
    call wipe
    mov cx, 16
    mov ah, 0x42
    call lba_op
    FAIL_IF c
    mov eax, WRITE_LBA
    mov ebx, 0xffffffff
    call check_sectors

    STEP 0x42                       ; the neighbours are as they were
    mov cx, 1
    mov dword [lba], WRITE_LBA - 1
    call lba_read_and_check
    mov dword [lba], WRITE_LBA + 16
    call lba_read_and_check

    STEP 0x50                       ; write 3 sectors by CHS
    mov dword [lba], WRITE_CHS
    mov cx, 3
    call invert
    mov ax, 0x0303
    call chs_op
    FAIL_IF c
    STEP 0x51
    call wipe
    mov ax, 0x0203
    call chs_op
    FAIL_IF c
    mov cx, 3
    mov eax, WRITE_CHS
    mov ebx, 0xffffffff
    call check_sectors
    STEP 0x52
    mov cx, 1
    mov dword [lba], WRITE_CHS - 1
    call lba_read_and_check
    mov dword [lba], WRITE_CHS + 3
    call lba_read_and_check

    mov si, msg_pass
    call puts
    jmp stop

; Read CX sectors from [lba] to ES:0 and compare.
lba_read_and_check:
    pushad
    call wipe
    mov ah, 0x42
    call lba_op
    FAIL_IF c
    popad
    pushad
    xor ebx, ebx
    mov eax, [lba]
    call check_sectors
    popad
    ret

; CX sectors of the inverted pattern of [lba] at ES:0.
invert:
    pushad
    mov eax, [lba]
    mov ebx, 0xffffffff
    call fill_sectors
    popad
    ret

msg_start   db 'int13-hd', 13, 10, 0
msg_pass    db 'PASS int13-hd', 13, 10, 0
            align 4, db 0
params      times 32 db 0

    times (CODE_SECTORS + 1) * 512 - 4 - ($ - $$) db 0
loaded_mark dd KEY
