#!/bin/sh
# Build the guest tests' Linux from Debian's source package.
#
#   build-kernel.sh SOURCE.tar.xz OUTDIR CONFIG
#
# Leaves OUTDIR/bzImage (Linux boot protocol), OUTDIR/vmlinux (PVH ELF, stripped),
# OUTDIR/vmlinux.debug (the same with symbols and types, for gdb and crash) and OUTDIR/config.  The caller owns caching; see assets.py.  KEEP_SOURCE=DIR unpacks and builds
# there and leaves it for a faster next build.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
source=$1
out=$2
config=$3
work=${KEEP_SOURCE:-$out/work}
mkdir -p "$out" "$work"

if [ ! -e "$work/.unpacked" ]; then
    tar -xJf "$source" -C "$work" --strip-components=1 \
        --exclude='*/drivers/gpu/drm/amd/include' --exclude='*/tools/testing'
    patch -d "$work" -p1 -s -F3 <"$here/emulated-cpl0.patch"
    touch "$work/.unpacked"
fi

cc=gcc
if command -v ccache >/dev/null; then cc="ccache gcc"; fi
export CCACHE_NOHASHDIR=1   # the directory has another name each time
export KBUILD_BUILD_TIMESTAMP='1970-01-01' KBUILD_BUILD_USER=vmm KBUILD_BUILD_HOST=test
make="make -C $work ARCH=x86"

$make tinyconfig >/dev/null
cat "$config" >>"$work/.config"
$make CC="$cc" olddefconfig >/dev/null 2>&1

# A symbol that a dependency dropped would show up minutes later as a device that is missing.
missing=$(cat "$config" | grep -E "^CONFIG_[A-Z0-9_]+=y" | while read -r line; do
    grep -qx "$line" "$work/.config" || echo "  $line"
done)
if [ -n "$missing" ]; then
    printf 'build-kernel: these options did not survive olddefconfig:\n%s\n' "$missing" >&2
    exit 1
fi

# Debug information by a compiler option: CONFIG_DEBUG_INFO needs CONFIG_DEBUG_KERNEL, which slows the guest down.
$make CC="$cc" KCFLAGS=-gdwarf-4 -j"$(nproc)" bzImage
cp "$work/arch/x86/boot/bzImage" "$out/bzImage"
strip -s -o "$out/vmlinux" "$work/vmlinux"
cp "$work/vmlinux" "$out/vmlinux.debug"
cp "$work/.config" "$out/config"
[ -n "${KEEP_SOURCE:-}" ] || rm -rf "$work"
