#!/bin/sh
# Build a guest payload: build.sh [-m] SOURCE.c OUT.elf
#
# Without -m a PVH ELF, with -m a multiboot 1 ELF; see start.S.
set -eu

here=$(dirname "$0")
format=pvh
if [ "$1" = -m ]; then format=multiboot; shift; fi
source=$1
out=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cflags="-O2 -g -std=gnu17 -Wall -Wextra -Werror -ffreestanding -fno-pic -no-pie -mcmodel=small
    -mno-red-zone -mgeneral-regs-only -fno-stack-protector -fcf-protection=none
    -fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns -I$here"
define=
[ $format = pvh ] || define=-DMULTIBOOT
gcc $define -c -o "$work/start.o" "$here/start.S"
gcc $cflags -c -o "$work/runtime.o" "$here/runtime.c"
gcc $cflags -c -o "$work/payload.o" "$source"
ld -static -nostdlib -z noexecstack -z max-page-size=4096 --no-warn-rwx-segments --build-id=none \
    -T "$here/payload.ld" -o "$work/payload.elf" \
    "$work/start.o" "$work/runtime.o" "$work/payload.o"
if [ $format = multiboot ]; then
    objcopy -O elf32-i386 "$work/payload.elf" "$work/payload32.elf"
    mv "$work/payload32.elf" "$work/payload.elf"
fi
mv "$work/payload.elf" "$out"
