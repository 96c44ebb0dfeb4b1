#!/usr/bin/env python3
"""Everything the guest tests boot: built on first use, cached by the hash of what went into it.

  assets.py            build all, print name and path of each
  assets.py NAME...    build these

Artefacts live in $VMM_TEST_CACHE (default ~/.cache/vmm-tests).  They are never changed after they
were built: tests take a copy() of what they write to.  Only Debian packages are used; Missing is
raised with the package's name when one is not there.
"""

import array
import ctypes
import fcntl
import glob
import hashlib
import itertools
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
CACHE = os.environ.get("VMM_TEST_CACHE") or os.path.expanduser("~/.cache/vmm-tests")
LINUX_SOURCE = "/usr/src/linux-source-6.1.tar.xz"
GRUB = "/usr/lib/grub/i386-pc"
BUSYBOX = "/bin/busybox"
MEMTEST = "/boot/memtest86+x64.bin"

# What Linux needs on hosts whose KVM emulates kernel code and lacks some instructions.
# ERMS and FSRM go because an emulated `rep stosb` takes a turn for every byte; replacing the lock
# prefixes for one processor takes seconds.
CMDLINE = ("mitigations=off noreplace-smp noxsave nofsgsbase noinvpcid nopcid "
           "clearcpuid=cx16,erms,fsrm,smap,smep,rdrand,rdseed,popcnt,umip,rdpid rodata=off "
           "reboot=k panic=-1 console=ttyS0,115200")

SECTOR = 512
HD_SECTORS = 40000
KEY = 0x5aa5c33c


class Missing(Exception):
    """A package or tool that an asset needs is not installed."""


def need(path, package):
    """path, if it exists; or the reason to skip."""
    if not os.path.exists(path) and not shutil.which(path):
        raise Missing(f"{path} is missing: apt install {package}")
    return path


def run(*argv, **options):
    """Run a tool; its output is shown only when it fails."""
    done = subprocess.run([str(arg) for arg in argv], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, **options)
    if done.returncode:
        sys.stderr.write(done.stdout.decode("utf-8", "replace")[-4000:])
        raise RuntimeError(f"{argv[0]} failed with {done.returncode}")
    return done.stdout


def digest(*parts):
    """Hash of strings, bytes and files (a str that names a file stands for its contents)."""
    state = hashlib.sha256()
    for part in parts:
        if isinstance(part, str) and os.path.isfile(part):
            with open(part, "rb") as stream:
                part = stream.read()
        elif isinstance(part, str):
            part = part.encode()
        state.update(len(part).to_bytes(8, "little") + part)
    return state.hexdigest()[:16]


def cached(name, key, build):
    """The path of an artefact; build(path) makes it (a file or a directory) if it is not there."""
    os.makedirs(CACHE, exist_ok=True)
    path = os.path.join(CACHE, f"{name}-{key}")
    with open(os.path.join(CACHE, f".{name}.lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            work = tempfile.mkdtemp(prefix=f".{name}-", dir=CACHE)
            try:
                build(os.path.join(work, "out"))
                os.rename(os.path.join(work, "out"), path)
            finally:
                shutil.rmtree(work, True)
            versions = sorted(glob.glob(os.path.join(CACHE, f"{name}-" + "[0-9a-f]" * 16)),
                              key=os.path.getmtime)
            for old in versions[:-3]:
                shutil.rmtree(old) if os.path.isdir(old) else os.unlink(old)
    return path


def prebuilt(name):
    """The newest of that name in the cache, where nothing can be built: VMM_TEST_PREBUILT is set. Else None."""
    if not os.environ.get("VMM_TEST_PREBUILT"):
        return None
    versions = glob.glob(os.path.join(CACHE, f"{name}-" + "[0-9a-f]" * 16))
    if not versions:
        raise Missing(f"{name} was not built before")
    return max(versions, key=os.path.getmtime)


def copy(path, directory, name=None):
    """A sparse copy that a guest may write to."""
    target = os.path.join(directory, name or os.path.basename(path))
    run("cp", "--sparse=always", "--reflink=auto", path, target)
    return target


# -- Linux -----------------------------------------------------------------------------------

def kernel():
    """Directory with bzImage, vmlinux (PVH) and vmlinux.debug."""
    built = prebuilt("linux")
    if built:
        return built
    need(LINUX_SOURCE, "linux-source-6.1")
    for tool, package in (("flex", "flex"), ("bison", "bison"), ("bc", "bc"), ("lz4", "lz4"), ("patch", "patch")):
        need(tool, package)
    script, patch, config = (os.path.join(HERE, "linux", name)
                             for name in ("build-kernel.sh", "emulated-cpl0.patch", "kernel.config"))
    version = run("dpkg-query", "-W", "-f", "${Version}", "linux-source-6.1").decode() \
        if shutil.which("dpkg-query") else ""
    with open(config, encoding="ascii") as stream:
        options = [line for line in stream if line.startswith("CONFIG") or line.endswith(" is not set\n")]

    def build(out):
        print("building Linux 6.1 for the guest tests: some minutes, once ...", file=sys.stderr, flush=True)
        run(script, LINUX_SOURCE, out, config)

    return cached("linux", digest("".join(options), script, patch, f"{version} {os.stat(LINUX_SOURCE).st_size}"), build)


def bzimage():
    """The kernel in Linux boot protocol format."""
    return os.path.join(kernel(), "bzImage")


def vmlinux():
    """The kernel as a PVH ELF."""
    return os.path.join(kernel(), "vmlinux")


def vmlinux_debug():
    """The same kernel with its symbols and types, for gdb and crash."""
    return os.path.join(kernel(), "vmlinux.debug")


def _busybox_applets():
    need(BUSYBOX, "busybox-static")
    return run(BUSYBOX, "--list").decode().split()


def work():
    """The program that works and checks its work (linux/work.c), static."""
    built = prebuilt("work")
    if built:
        return built
    source = os.path.join(HERE, "linux", "work.c")
    need("gcc", "gcc")
    return cached("work", digest(source), lambda out: run("gcc", "-O2", "-s", "-static", "-o", out, source))


def root_tree(root):
    """The root file system as a directory: busybox, init, the program `work`, empty mount points."""
    for directory in ("bin", "sbin", "dev", "proc", "sys", "mnt", "tmp", "etc"):
        os.makedirs(os.path.join(root, directory))
    shutil.copy2(BUSYBOX, os.path.join(root, "bin", "busybox"))
    for applet in _busybox_applets():
        if applet != "busybox":
            os.symlink("busybox", os.path.join(root, "bin", applet))
    shutil.copy2(work(), os.path.join(root, "bin", "work"))
    shutil.copy2(os.path.join(HERE, "linux", "init"), os.path.join(root, "sbin", "init"))
    os.chmod(os.path.join(root, "sbin", "init"), 0o755)
    with open(os.path.join(root, "etc", "issue-of-the-disk"), "w", encoding="ascii") as stream:
        stream.write("read from the root file system\n")


def initramfs():
    """The root file system as an uncompressed cpio archive."""
    built = prebuilt("initramfs.cpio")
    if built:
        return built
    inodes = itertools.count(1)

    def entry(name, mode, data=b"", rdev=(0, 0)):
        name = name.encode() + b"\0"
        fields = (next(inodes), mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(name), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        header += b"\0" * (-len(header) % 4)
        return header + data + b"\0" * (-len(data) % 4)

    def build(out):
        with tempfile.TemporaryDirectory() as root, open(out, "wb") as archive:
            root_tree(root)
            for directory, subdirectories, files in sorted(os.walk(root)):
                for name in sorted(subdirectories + files):
                    path = os.path.join(directory, name)
                    inside = os.path.relpath(path, root)
                    if os.path.islink(path):
                        archive.write(entry(inside, 0o120777, os.readlink(path).encode()))
                    elif os.path.isdir(path):
                        archive.write(entry(inside, 0o040755))
                    else:
                        with open(path, "rb") as stream:
                            archive.write(entry(inside, 0o100755, stream.read()))
            archive.write(entry("init", 0o120777, b"sbin/init"))
            archive.write(entry("dev/console", 0o020600, rdev=(5, 1)))
            archive.write(entry("TRAILER!!!", 0))

    need(BUSYBOX, "busybox-static")
    return cached("initramfs.cpio",
                  digest(BUSYBOX, work(), os.path.join(HERE, "linux", "init"), __file__), build)


def grub_config():
    """The text of GRUB's menu."""
    with open(os.path.join(HERE, "linux", "grub.cfg"), encoding="ascii") as stream:
        return stream.read().replace("@CMDLINE@", CMDLINE)


GRUB_MODULES = ("normal", "linux", "serial", "terminal", "echo", "ls")


def grub_modules(directory):
    """Copy GRUB_MODULES and what they depend on to a boot/grub/i386-pc directory."""
    with open(os.path.join(need(GRUB, "grub-pc-bin"), "moddep.lst"), encoding="ascii") as stream:
        depends = {name: needed.split() for name, needed in
                   (line.split(":", 1) for line in stream if ":" in line)}
    wanted = list(GRUB_MODULES)
    for name in wanted:             # grows while it is walked
        wanted += [other for other in depends.get(name, []) if other not in wanted]
    os.makedirs(directory)
    for name in wanted:
        shutil.copy(os.path.join(GRUB, f"{name}.mod"), directory)


def grub_core(out, image_format, prefix, *modules):
    """GRUB's core image: what it takes to read modules and menu from the disk.

    Only that, because the core is LZMA, which takes 100 instructions a byte in an emulator.
    """
    need("grub-mkimage", "grub-common")
    need(GRUB, "grub-pc-bin")
    run("grub-mkimage", "-d", GRUB, "-O", image_format, "-p", prefix, "-o", out, "biosdisk",
        *modules)


def linux_disk():
    """Hard disk: GRUB, and an ext2 partition with the root file system and the kernel."""
    config = grub_config()
    image = bzimage()

    def build(out):
        with tempfile.TemporaryDirectory() as work:
            root = os.path.join(work, "root")
            os.makedirs(root)
            root_tree(root)
            grub_modules(os.path.join(root, "boot", "grub", "i386-pc"))
            shutil.copy(image, os.path.join(root, "boot", "bzImage"))
            with open(os.path.join(root, "boot", "grub", "grub.cfg"), "w",
                      encoding="ascii") as stream:
                stream.write(config)
            core_path = os.path.join(work, "core.img")
            grub_core(core_path, "i386-pc", "(hd0,msdos1)/boot/grub", "part_msdos", "ext2")
            partition = os.path.join(work, "ext2.img")
            run("mke2fs", "-q", "-t", "ext2", "-m", "0", "-E", "root_owner=0:0", "-d", root,
                partition, "32M", env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"})
            with open(partition, "rb") as stream:
                filesystem = stream.read()
            with open(out, "wb") as disk:
                disk.write(_grub_mbr(core_path, len(filesystem) // SECTOR))
                disk.seek(2048 * SECTOR)
                disk.write(filesystem)

    need("mke2fs", "e2fsprogs")
    return cached("linux-disk.img", digest(image, BUSYBOX, work(), config,
                                           os.path.join(HERE, "linux", "init"), __file__), build)


def _grub_mbr(core_path, partition_sectors):
    """Sectors 0 and following: boot.img with a partition table, then core.img.

    What grub-bios-setup does, without a block device: boot.img jumps to the sector in its field at
    0x5c; the first sector of core.img loads the rest by the block list at its end.
    """
    with open(os.path.join(GRUB, "boot.img"), "rb") as stream:
        boot = bytearray(stream.read())
    with open(core_path, "rb") as stream:
        core = bytearray(stream.read())
    core += bytes(-len(core) % SECTOR)
    if len(core) > 2047 * SECTOR:
        raise RuntimeError("GRUB's core image does not fit before the first partition")
    struct.pack_into("<Q", boot, 0x5c, 1)
    struct.pack_into("<H", boot, 0x66, 0x9090)      # take the BIOS's drive number as it is
    struct.pack_into("<QHH", core, SECTOR - 12, 2, len(core) // SECTOR - 1, 0x820)
    struct.pack_into("<BBBBBBBBII", boot, 446, 0x80, 32, 33, 0, 0x83, 254, 255, 255,
                     2048, partition_sectors)
    boot[462:510] = bytes(48)
    boot[510:512] = b"\x55\xaa"
    return bytes(boot + core)


CD_FILE = "pattern.bin"


def cd_file_contents():
    """The known file on the test CD: 1 MiB."""
    return pattern(0, 2048)


def linux_iso():
    """CD-ROM: boots GRUB to its menu; holds the known file CD_FILE."""
    config = grub_config()

    def build(out):
        with tempfile.TemporaryDirectory() as root:
            grub_modules(os.path.join(root, "boot", "grub", "i386-pc"))
            with open(os.path.join(root, CD_FILE), "wb") as stream:
                stream.write(cd_file_contents())
            with open(os.path.join(root, "boot", "grub", "grub.cfg"), "w",
                      encoding="ascii") as stream:
                stream.write(config)
            grub_core(os.path.join(root, "boot", "eltorito.img"), "i386-pc-eltorito",
                      "(cd)/boot/grub", "iso9660")
            iso(root, "boot/eltorito.img", 4, out)

    return cached("linux.iso", digest(config, __file__), build)


def iso(root, boot_file, load_sectors, out):
    """A CD that boots boot_file."""
    need("xorriso", "xorriso")
    run("xorriso", "-as", "mkisofs", "-quiet", "-R", "-V", "VMMTEST", "-o", out, "-b", boot_file,
        "-no-emul-boot", "-boot-load-size", load_sectors, "-boot-info-table", root)


# -- our own payloads --------------------------------------------------------------------------

def pattern(first, count, invert=False):
    """Sectors first..first+count of the test pattern (see payloads/report.mac)."""
    key = KEY ^ (0xffffffff if invert else 0)
    return array.array("I", [word ^ key
                             for word in range(first << 7, (first + count) << 7)]).tobytes()


def _nasm(source, *defines):
    need("nasm", "nasm")
    with tempfile.TemporaryDirectory() as work:
        out = os.path.join(work, "out")
        run("nasm", "-f", "bin", f"-I{HERE}/payloads/", *defines, "-o", out,
            os.path.join(HERE, "payloads", source))
        with open(out, "rb") as stream:
            return stream.read()


def _sources():
    return [os.path.join(HERE, "payloads", name)
            for name in sorted(os.listdir(os.path.join(HERE, "payloads")))]


def int13_hd():
    """Hard disk of HD_SECTORS whose boot sector tests INT 13h."""
    def build(out):
        code = _nasm("int13-hd.asm", f"-DSECTORS={HD_SECTORS}")
        with open(out, "wb") as stream:
            stream.write(code.ljust(64 * SECTOR, b"\0") + pattern(64, HD_SECTORS - 64))

    return cached("int13-hd.img", digest(*_sources(), __file__), build)


def int13_cd():
    """CD-ROM whose boot image tests INT 13h."""
    def build(out):
        code = _nasm("int13-cd.asm")
        with tempfile.TemporaryDirectory() as root:
            with open(os.path.join(root, "boot.bin"), "wb") as stream:
                stream.write(code + pattern(len(code) // SECTOR, 96 * 4))
            iso(root, "boot.bin", len(code) // SECTOR, out)

    return cached("int13-cd.iso", digest(*_sources(), __file__), build)


def int13_floppy():
    """1.44 MB floppy whose boot sector tests INT 13h on the floppy controller."""
    def build(out):
        with open(out, "wb") as stream:
            stream.write(_nasm("int13-floppy.asm").ljust(18 * SECTOR, b"\0")
                         + pattern(18, 2880 - 18))

    return cached("int13-floppy.img", digest(*_sources(), __file__), build)


def other_floppy():
    """1.44 MB floppy with the inverted pattern: the medium that is changed to."""
    def build(out):
        with open(out, "wb") as stream:
            stream.write(pattern(0, 2880, invert=True))

    return cached("other-floppy.img", digest(__file__), build)


def acpi_hd():
    """Hard disk whose boot sector uses the ACPI tables; see payloads/acpi-hd.asm."""
    def build(out):
        with open(out, "wb") as stream:
            stream.write(_nasm("acpi-hd.asm").ljust(64 * SECTOR, b"\0"))

    return cached("acpi-hd.img", digest(*_sources(), __file__), build)


def reset_rom():
    """A 128 KiB BIOS that resets the machine again and again; see payloads/reset.asm."""
    def build(out):
        with open(out, "wb") as stream:
            stream.write(_nasm("reset.asm"))

    return cached("reset.rom", digest(*_sources()), build)


def screen_hd():
    """Hard disk whose boot sector shows modes and obeys the keyboard; see payloads/screen-hd.asm."""
    def build(out):
        with open(out, "wb") as stream:
            stream.write(_nasm("screen-hd.asm").ljust(64 * SECTOR, b"\0"))

    return cached("screen-hd.img", digest(*_sources()), build)


def payload(name, multiboot=False):
    """A payload of tests/payloads as an ELF for -kernel."""
    file = f"{name}{'.mb' if multiboot else ''}.elf"
    built = prebuilt(file)
    if built:
        return built
    directory = os.path.join(TESTS, "payloads")
    sources = [os.path.join(directory, file) for file in sorted(os.listdir(directory))]
    options = ["-m"] if multiboot else []

    need("gcc", "gcc")

    def build(out):
        run(os.path.join(directory, "build.sh"), *options,
            os.path.join(directory, f"{name}.c"), out)

    return cached(file, digest(*sources), build)


def kvm_emulates():
    """Whether this host's KVM has neither VMX nor SVM and emulates CPL 0 code."""
    return not any(os.path.exists(f"/sys/module/{module}") for module in ("kvm_intel", "kvm_amd"))


def host_is_tcg():
    """Whether this host is QEMU's emulator (tests/hosts/svm.py), as CPUID says.

    KVM gets less there than from a processor: no #BP of an int3, which TCG does not intercept, and no #DB of debug registers,
    which VMRUN loads but does not arm. A single step is one.
    """
    code = b"\x53\xb8\x00\x00\x00\x40\x0f\xa2\x89\x1f\x89\x4f\x04\x89\x57\x08\x5b\xc3"     # EBX, ECX, EDX of leaf 0x40000000 to RDI
    with open("/proc/cpuinfo", encoding="ascii") as stream:
        if " hypervisor " not in stream.read():
            return False
    said = ctypes.create_string_buffer(12)
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))(ctypes.addressof(said))
    return said.raw == b"TCGTCGTCGTCG"


def memtest():
    """memtest86+, which has the Linux boot protocol.

    A KVM that emulates CPL 0 code knows no FWAIT; there FINIT becomes NOP and FNINIT, which is the
    same before the first FPU instruction.
    """
    need(MEMTEST, "memtest86+")
    if not kvm_emulates():
        return MEMTEST

    def build(out):
        with open(MEMTEST, "rb") as source, open(out, "wb") as target:
            target.write(source.read().replace(b"\x9b\xdb\xe3", b"\x90\xdb\xe3"))

    return cached("memtest.bin", digest(MEMTEST), build)


def memtest_options():
    """Its command line: the serial console, and no floating point where that is not emulated.

    vmm's memory modules answer on the SMBus, and memtest86+ prints their timings with x87
    arithmetic; `nosm` leaves that out.
    """
    return "console=ttyS0,115200" + (" nosm" if kvm_emulates() else "")


ALL = {
    "linux": kernel, "initramfs": initramfs, "linux-disk": linux_disk, "linux-iso": linux_iso,
    "int13-hd": int13_hd, "int13-cd": int13_cd, "int13-floppy": int13_floppy,
    "other-floppy": other_floppy, "reset-rom": reset_rom, "screen-hd": screen_hd,
    "hello": lambda: payload("hello"), "hello-multiboot": lambda: payload("hello", True),
    "dirtier": lambda: payload("dirtier"), "debug": lambda: payload("debug"), "planar": lambda: payload("planar"), "hotplug": lambda: payload("hotplug"),
    "memtest": memtest,
}


def main():
    """Build what the command line names, or all; a missing package is no failure."""
    missing = 0
    names = sys.argv[1:] or list(ALL)
    for name in names:
        if name not in ALL:
            sys.exit(f"assets.py: no asset {name!r}; there are {', '.join(ALL)}")
        try:
            print(name, ALL[name](), flush=True)
        except Missing as error:
            print(name, "skipped:", error, flush=True)
            missing += 1
    print(f"{len(names) - missing} passed, 0 failed, {missing} skipped")
    sys.exit(77 if missing == len(names) else 0)


if __name__ == "__main__":
    main()
