; Hard-disk boot sector for the screen, keyboard and mouse: obeys keys that arrive through INT 16h.
;
;   1  text mode 3 and a line of text          2  mode 13h: byte (x + y) in every pixel of 320 x 200
;   3  mode 12h: colour 10 at (100, 200)       4  VBE 640 x 480 x 8: colour 12 at (100, 400), in bank 3
;   m  enable the mouse (INT 15h AH=C2h)       s  show status, X and Y of the last mouse packet
; Any other character is echoed.

bits 16
org 0x7c00

start:
    cli
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    sti
    cld
    mov si, msg_ready
    call puts
next:
    xor ah, ah
    int 0x16
    cmp al, '1'
    je text
    cmp al, '2'
    je chain4
    cmp al, '3'
    je planar
    cmp al, '4'
    je vesa
    cmp al, 'm'
    je mouse
    cmp al, 's'
    je show
    call putc
    jmp next

text:
    mov ax, 0x0003
    int 0x10
    mov si, msg_text
    call puts
    jmp next

chain4:
    mov ax, 0x0013
    int 0x10
    mov ax, 0xa000
    mov es, ax
    xor di, di
    xor dx, dx                      ; y
.line:
    mov al, dl
    mov cx, 320
.dot:
    stosb
    inc ax
    loop .dot
    inc dx
    cmp dx, 200
    jb .line
    jmp next

planar:
    mov ax, 0x0012
    int 0x10
    mov ax, 0x0c0a
    xor bx, bx
    mov cx, 100
    mov dx, 200
    int 0x10
    jmp next

vesa:
    mov ax, 0x4f02
    mov bx, 0x0101
    int 0x10
    cmp ax, 0x004f
    jne failed
    mov ax, 0x4f05
    xor bx, bx
    mov dx, 3                       ; (400 * 640 + 100) / 65536
    int 0x10
    mov ax, 0xa000
    mov es, ax
    mov byte [es:400 * 640 + 100 - 3 * 65536], 12
    jmp next

mouse:
    push ds
    pop es
    mov ax, 0xc205                  ; initialise, packets of three bytes
    mov bh, 3
    int 0x15
    jc failed
    xor ax, ax
    mov es, ax
    mov ax, 0xc207
    mov bx, packet
    int 0x15
    jc failed
    mov ax, 0xc200
    mov bh, 1
    int 0x15
    jc failed
    mov si, msg_mouse
    call puts
    jmp next

packet:                             ; far call: Z, Y, X, status above the return address
    push bp
    mov bp, sp
    push ax
    mov al, [bp + 12]
    mov [cs:seen], al
    mov al, [bp + 10]
    mov [cs:seen + 1], al
    mov al, [bp + 8]
    mov [cs:seen + 2], al
    pop ax
    pop bp
    retf

show:
    mov al, '<'
    call putc
    mov si, seen
    mov cx, 3
.byte:
    lodsb
    mov ah, al
    shr al, 4
    call digit
    mov al, ah
    and al, 15
    call digit
    loop .byte
    mov al, '>'
    call putc
    jmp next

failed:
    mov si, msg_failed
    call puts
    jmp next

digit:
    add al, '0'
    cmp al, '9'
    jbe putc
    add al, 'a' - '9' - 1
putc:
    push ax
    mov ah, 0x0e
    mov bx, 7
    int 0x10
    pop ax
    ret
puts:
    lodsb
    test al, al
    jz .end
    call putc
    jmp puts
.end:
    ret

seen        db 0, 0, 0
msg_ready   db "screen test ready", 13, 10, 0
msg_text    db "text mode", 13, 10, 0
msg_mouse   db "mouse on", 13, 10, 0
msg_failed  db "FAILED", 13, 10, 0

    times 446 - ($ - $$) db 0
    db 0x80, 0, 2, 0, 0x0c, 0, 3, 0, 1, 0, 0, 0, 63, 0, 0, 0
    times 510 - ($ - $$) db 0
    dw 0xaa55
