; Boot sector that walks the ACPI tables as the firmware left them in memory and uses what they name: turns ACPI on, sleeps
; in S3 with a waking vector, and after the wake-up powers off through S5.
;
; COM1 shows "tables", "sleep", "woke XXXX" (the PM1 status) and "off", or "FAIL n".

bits 16
org 0x7c00

%define PM1_EVT  0x600                  ; what was found, in low memory
%define PM1_CNT  0x604
%define SMI_CMD  0x608
%define ENABLE   0x60c
%define MARK     0x610

    jmp 0:start
start:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    mov ax, 0x0201                      ; the second sector, behind this one
    mov cx, 2
    xor dh, dh
    mov bx, 0x7e00
    int 0x13
    call flat

    mov bl, '1'                         ; RSDP between 0xE0000 and 1 MiB
    mov esi, 0xe0000
.rsdp:
    cmp dword [fs:esi], 'RSD '
    jne .next
    cmp dword [fs:esi + 4], 'PTR '
    je .found
.next:
    add esi, 16
    cmp esi, 0x100000
    jb .rsdp
    jmp fail
.found:
    mov ecx, 20
    call sum
    mov bl, '2'                         ; RSDT with a right checksum
    mov edi, [fs:esi + 16]
    cmp dword [fs:edi], 'RSDT'
    jne fail
    mov esi, edi
    mov ecx, [fs:edi + 4]
    call sum

    mov bl, '3'                         ; every table's checksum; the FADT
    lea ebp, [edi + 36]
    add edi, [fs:edi + 4]
.table:
    cmp ebp, edi
    jae fail
    mov esi, [fs:ebp]
    mov ecx, [fs:esi + 4]
    call sum
    add ebp, 4
    cmp dword [fs:esi], 'FACP'
    jne .table

    mov eax, [fs:esi + 56]
    mov [PM1_EVT], eax
    mov eax, [fs:esi + 64]
    mov [PM1_CNT], eax
    mov eax, [fs:esi + 48]
    mov [SMI_CMD], eax
    mov al, [fs:esi + 52]
    mov [ENABLE], al
    mov bl, '4'
    mov edi, [fs:esi + 40]
    cmp dword [fs:edi], 'DSDT'
    jne fail
    mov edi, [fs:esi + 36]
    cmp dword [fs:edi], 'FACS'
    jne fail
    mov dword [fs:edi + 12], resume     ; real mode: segment = address / 16
    mov dword [MARK], 0x13572468
    mov si, tables
    call print

    mov bl, '5'
    call acpi_on
    mov si, sleep
    call print
    mov dx, [PM1_CNT]
    mov ax, 0x2401                      ; SLP_EN, type 1 (_S3), SCI_EN
    out dx, ax
stop:
    hlt
    jmp stop

    align 16
resume:
    jmp 0:.here
.here:
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7c00
    mov bl, '6'                         ; RAM was kept
    cmp dword [MARK], 0x13572468
    jne fail
    mov si, woke
    call print
    mov dx, [PM1_EVT]
    in ax, dx
    mov cx, 4
.digit:
    rol ax, 4
    push ax
    and al, 15
    cmp al, 10
    sbb al, 0x69
    das                                 ; hexadecimal digit
    call putc
    pop ax
    loop .digit
    mov bl, '7'
    call acpi_on
    mov si, off
    call print
    mov dx, [PM1_CNT]
    mov ax, 0x2001                      ; type 0 (_S5)
    out dx, ax
    jmp stop

; SCI_EN is set when the command has taken effect.
acpi_on:
    mov dx, [SMI_CMD]
    mov al, [ENABLE]
    out dx, al
    mov dx, [PM1_CNT]
    in ax, dx
    test al, 1
    jz fail
    ret

; ecx bytes at esi must add up to 0. Keeps esi.
sum:
    push esi
    xor al, al
.byte:
    add al, [fs:esi]
    inc esi
    dec ecx
    jnz .byte
    pop esi
    test al, al
    jnz fail
    ret

fail:
    mov si, failed
    call print
    mov al, bl
    call putc
    jmp stop

print:
    lodsb
    test al, al
    jz .done
    call putc
    jmp print
.done:
    ret

putc:
    push dx
    push ax
    mov dx, 0x3fd
.wait:
    in al, dx
    test al, 0x20
    jz .wait
    pop ax
    mov dl, 0xf8
    out dx, al
    pop dx
    ret

    times 510 - ($ - $$) db 0
    dw 0xaa55

; Unreal mode: FS reaches 4 GiB.
flat:
    cli
    lgdt [gdt_pointer]
    mov eax, cr0
    inc ax
    mov cr0, eax
    mov cx, 8
    mov fs, cx
    dec ax
    mov cr0, eax
    ret

gdt_pointer:
    dw 15
    dd gdt
gdt:
    dq 0
    dq 0x008f92000000ffff

tables: db 'tables', 13, 10, 0
sleep:  db 'sleep', 13, 10, 0
woke:   db 'woke ', 0
off:    db 13, 10, 'off', 13, 10, 0
failed: db 'FAIL ', 0

    times 1024 - ($ - $$) db 0
