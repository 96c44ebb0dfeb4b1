; Floppy boot sector and test of INT 13h on an 82077AA with a 1.44 MB medium.
;
; Track 0 side 0 holds this program; every other sector holds the pattern of report.inc.  After
; its checks the program asks for another medium ("CHANGE"), sees the change line, reads the new
; medium (the inverted pattern) and is refused a write, because the host inserted it read-only.
; The host checks afterwards that the first image has: the inverted pattern on cylinder 79 side 1
; (18 sectors), 0xF6 on cylinder 78 side 0 (formatted), all else untouched.

%include "report.mac"

bits 16
org 0x7c00

CODE_SECTORS    equ 9
SPT             equ 18
DIR             equ 0x3f7           ; 82077AA digital input register; bit 7: disk change

    jmp short boot
    nop
    times 0x3e - ($ - $$) db 0      ; room for a BIOS parameter block
boot:
    ENTRY start
start:
    LOAD_REST (CODE_SECTORS - 1)
    times 510 - ($ - $$) db 0
    dw 0xaa55

%include "report.inc"

main:
    mov [drive], dl
    mov si, msg_start
    call puts
    mov word [spt], SPT
    mov word [heads], 2

    STEP 0x02                       ; reset
    mov ah, 0
    mov dl, [drive]
    int 0x13
    FAIL_IF c

    STEP 0x03                       ; geometry: 80 cylinders, 2 heads, 18 sectors, type 4
    mov ah, 0x08
    mov dl, [drive]
    xor di, di
    mov es, di
    int 0x13
    FAIL_IF c
    cmp cx, 79 << 8 | SPT
    FAIL_IF ne
    cmp dh, 1
    FAIL_IF ne
    cmp bl, 4
    FAIL_IF ne

    STEP 0x04                       ; type: floppy
    mov ah, 0x15
    mov dl, [drive]
    int 0x13
    FAIL_IF c
    dec ah
    cmp ah, 1                       ; 1 or 2
    FAIL_IF a

    mov ax, 0x1000                  ; does not cross a 64 KiB DMA boundary
    mov es, ax

    STEP 0x10                       ; one sector on side 1
    mov dword [lba], SPT
    mov cx, 1
    call chs_read_and_check
    STEP 0x11                       ; in the middle of a track
    mov dword [lba], 40 * 2 * SPT + 7
    mov cx, 5
    call chs_read_and_check

    STEP 0x12                       ; whole tracks, back and forth over the disk
    mov cx, SPT
    mov si, tracks
.track:
    lodsw
    cmp ax, 0xffff
    je .tracks_done
    imul ax, SPT
    movzx eax, ax
    mov [lba], eax
    call chs_read_and_check
    jmp .track
.tracks_done:

    STEP 0x13                       ; every sector of a track, in reverse
    mov dword [lba], 21 * SPT + SPT - 1
    mov cx, 1
    mov bp, SPT
.reverse:
    call chs_read_and_check
    dec dword [lba]
    dec bp
    jnz .reverse

    STEP 0x14                       ; a buffer that ends at a 64 KiB boundary
    mov ax, 0x2000 - SPT * 512 / 16
    mov es, ax
    mov dword [lba], 50 * SPT
    mov cx, SPT
    call chs_read_and_check
    mov ax, 0x1000
    mov es, ax

    STEP 0x20                       ; a sector the track has not
    mov ax, 0x0201
    mov cx, 10 << 8 | 30
    mov dh, 0
    mov dl, [drive]
    xor bx, bx
    int 0x13
    FAIL_IF nc
    STEP 0x21                       ; recovers
    mov ah, 0
    mov dl, [drive]
    int 0x13
    FAIL_IF c
    mov dword [lba], 20 * SPT
    mov cx, SPT
    call chs_read_and_check

    STEP 0x30                       ; verify
    mov ax, 0x0400 | SPT
    call chs_op
    FAIL_IF c

    STEP 0x40                       ; write a track and read it back
    mov dword [lba], 159 * SPT
    mov eax, [lba]
    mov ebx, 0xffffffff
    mov cx, SPT
    call fill_sectors
    mov ax, 0x0300 | SPT
    call chs_op
    FAIL_IF c
    STEP 0x41
    call wipe
    mov ax, 0x0200 | SPT
    call chs_op
    FAIL_IF c
    mov eax, 159 * SPT
    mov ebx, 0xffffffff
    mov cx, SPT
    call check_sectors
    STEP 0x42                       ; the other side is as it was
    mov dword [lba], 158 * SPT
    mov cx, SPT
    call chs_read_and_check

    STEP 0x50                       ; format a track
    mov cx, SPT
    xor di, di
    mov al, 1
.field:
    mov byte [es:di], 78            ; C, H, R, N
    mov byte [es:di + 1], 0
    mov [es:di + 2], al
    mov byte [es:di + 3], 2
    add di, 4
    inc al
    loop .field
    mov dword [lba], 156 * SPT
    mov ax, 0x0500 | SPT
    call chs_op
    FAIL_IF c
    STEP 0x51
    call wipe
    mov ax, 0x0200 | SPT
    call chs_op
    FAIL_IF c
    mov si, msg_fill                ; 0xF6F6F6F6; the host checks it (QEMU formats nothing)
    call puts
    mov eax, [es:0]
    call put_hex32
    mov si, msg_eol
    call puts

    STEP 0x60                       ; another medium
    mov si, msg_change
    call puts
.unchanged:
    mov dx, 0x3f2                   ; DOR: drive A selected, its motor on
    mov al, 0x1c
    out dx, al
    mov dx, DIR
    in al, dx
    test al, 0x80
    jz .unchanged
    mov bp, 4                       ; the BIOS may report the change once or twice
.retry:
    mov ah, 0
    mov dl, [drive]
    int 0x13
    mov dword [lba], 40 * SPT
    mov ax, 0x0200 | SPT
    call chs_op
    jnc .read
    dec bp
    jnz .retry
    jmp fail
.read:
    STEP 0x61
    mov eax, 40 * SPT
    mov ebx, 0xffffffff
    mov cx, SPT
    call check_sectors
    STEP 0x62                       ; the change line went out with the seek
    mov dx, DIR
    in al, dx
    test al, 0x80
    FAIL_IF nz
    STEP 0x63                       ; write protected
    mov ax, 0x0301
    call chs_op
    FAIL_IF nc
    cmp ah, 3
    FAIL_IF ne

    mov si, msg_pass
    call puts
    jmp stop

tracks      dw 1, 2, 3, 4, 5, 158, 159, 80, 81, 1, 120, 40, 157, 156, 0xffff
msg_start   db 'int13-floppy', 13, 10, 0
msg_fill    db 'FILL ', 0
msg_change  db 'CHANGE', 13, 10, 0
msg_pass    db 'PASS int13-floppy', 13, 10, 0

    times CODE_SECTORS * 512 - 4 - ($ - $$) db 0
loaded_mark dd KEY
