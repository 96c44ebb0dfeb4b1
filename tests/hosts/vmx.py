#!/usr/bin/env python3
"""A host with Intel's VMX, anywhere: Debian's kernel under Bochs, with a KVM of its own and what the tests need of this machine's files.

  vmx.py [--memory MIB] [--timeout SECONDS] [--] COMMAND...

runs the command there as root, in the current directory, and exits with its status; what it writes is gone afterwards. Bochs is an
interpreter that knows VMX whole: extended page tables, unrestricted guests, and unlike QEMU's emulator of SVM (svm.py) also what
a debugger needs, #BP intercepts and debug registers that VMENTRY arms. It interprets some 60 million instructions a second, so that the
host takes two minutes to boot. Its clock counts instructions, so time-outs there are long ones for us. Two quirks of Bochs 2.7: an
instruction that an EPT violation ends in a single step leaves a #DB pending, so that such a step stands still; and after the first NMI
of any guest NMIs stay blocked, for other guests and in other processes as well.

It has no way to share files: the root file system is an image with the programs of PROGRAMS, busybox for all others, the tests, vmm, and
files that are words of the command, and the small ones of the guests that are in the test cache (build them before: assets.payload()).
"""

import contextlib
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import host
import vmmtest
from host import assets

CHECKS = ("test -w /dev/kvm", "test $(cat /sys/module/kvm_intel/parameters/ept) = Y")      # that it is what it should be
FIRST = ("ata_piix", "sd_mod", "ext4", "crc32c_generic", "kvm-intel", "tun")
PROGRAMS = ("/usr/bin/bash", "/usr/bin/gdb", "/usr/bin/nm", assets.BUSYBOX)
LARGE = 16 << 20        # bytes; a file of the cache that is not worth its way
ROOT = os.path.dirname(os.path.dirname(host.HERE))
DISK = 1 << 30          # bytes, sparse
# Names without directories: Bochs has little room for them.
CONFIG = """\
plugin_ctrl: unmapped=1, biosdev=1, extfpuirq=1, serial=1, speaker=0
config_interface: textconfig
display_library: rfb, options="timeout=0"
memory: host={memory}, guest={memory}
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
cpu: model=corei7_haswell_4770, count=1, ips=200000000, reset_on_triple_fault=0
clock: sync=none, time0=utc
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=boot, status=inserted
ata0-slave: type=disk, path=disk, mode=flat, cylinders=0
boot: cdrom
com1: enabled=1, mode=file, dev=console
com2: enabled=1, mode=file, dev=output
log: log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""
GRUB = """\
insmod linux
linux /boot/vmlinuz console=ttyS0,115200 quiet mitigations=off nokaslr panic=-1
initrd /boot/initrd
boot
"""


def _boot_cd(directory):
    """A CD with GRUB, the kernel and the first file system."""
    initrd = host.initramfs(directory, os.path.join(host.HERE, "vmx-init"), FIRST)
    image = glob.glob(os.path.join(directory, "boot", "vmlinuz-*"))[0]

    def build(out):
        with tempfile.TemporaryDirectory() as root:
            assets.grub_modules(os.path.join(root, "boot", "grub", "i386-pc"))
            shutil.copy(image, os.path.join(root, "boot", "vmlinuz"))
            shutil.copy(initrd, os.path.join(root, "boot", "initrd"))
            with open(os.path.join(root, "boot", "grub", "grub.cfg"), "w", encoding="ascii") as menu:
                menu.write(GRUB)
            assets.grub_core(os.path.join(root, "boot", "eltorito.img"), "i386-pc-eltorito", "(cd)/boot/grub", "iso9660")
            assets.iso(root, "boot/eltorito.img", 4, out)

    return assets.cached("vmx-boot.iso", assets.digest(GRUB, image, initrd), build)


class Root:
    """The directory that becomes the root file system."""

    def __init__(self, path):
        self.path = path
        for directory in ("usr/bin", "usr/lib", "usr/lib64", "etc", "dev", "proc", "root", "run", "sys", "tmp"):
            os.makedirs(os.path.join(path, directory))
        for name, target in {"bin": "usr/bin", "sbin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "usr/sbin": "bin"}.items():
            os.symlink(target, os.path.join(path, name))
        with open(os.path.join(path, "etc", "passwd"), "w", encoding="ascii") as passwd:
            passwd.write("root:x:0:0:root:/root:/bin/bash\n")

    def add(self, path):
        """A file."""
        target = self.path + path
        os.makedirs(os.path.realpath(os.path.dirname(target)), exist_ok=True)
        if not os.path.lexists(target):
            shutil.copy2(path, target)

    def add_program(self, path):
        """A program or a shared object, with those it is linked with."""
        self.add(path)
        linked = subprocess.run(["ldd", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
        for needed in re.findall(r"(/\S+) \(", linked):
            self.add(needed)

    def add_tree(self, path, *without):
        """A directory, without files of these names."""
        shutil.copytree(path, self.path + path, ignore=shutil.ignore_patterns("__pycache__", *without), ignore_dangling_symlinks=True,
                        dirs_exist_ok=True)

    def add_python(self):
        """Debian's, without what tests of others do not use."""
        program = os.path.realpath("/usr/bin/python3")
        library = f"/usr/lib/{os.path.basename(program)}"
        self.add_program(program)
        os.symlink(os.path.basename(program), os.path.join(self.path, "usr/bin/python3"))
        self.add_tree(library, "test", "idlelib", "tkinter", "ensurepip", "lib2to3")
        for extension in glob.glob(f"{library}/lib-dynload/*.so"):
            self.add_program(extension)

    def add_applets(self):
        """busybox for the names that nothing else has."""
        for name in assets.run(assets.BUSYBOX, "--list").decode().split():
            with contextlib.suppress(FileExistsError):
                os.symlink(assets.BUSYBOX, os.path.join(self.path, "usr/bin", name))


def _image(work, command, files):
    """The disk with the root file system."""
    root = Root(os.path.join(work, "root"))
    root.add_python()
    programs = [assets.need(path, "gdb" if "gdb" in path else "binutils" if "nm" in path else "bash") for path in PROGRAMS]
    build = os.path.dirname(os.path.dirname(vmmtest.VMM))
    programs += [vmmtest.VMM, os.path.join(build, "src", "ctl", "vmmctl"), *glob.glob(os.path.join(build, "modules", "*.so"))]
    for path in [*programs, *(os.path.abspath(word) for word in (*command, *files) if os.path.isfile(word))]:
        root.add_program(path)
    for path in ("/usr/share/gdb", "/usr/share/seabios", os.path.join(ROOT, "tests"), os.path.join(ROOT, "firmware"), *filter(os.path.isdir, files)):
        root.add_tree(path)
    for path in glob.glob(os.path.join(assets.CACHE, "*")):
        if os.path.isfile(path) and os.path.getsize(path) < LARGE:
            root.add(path)
    root.add_applets()
    with open(os.path.join(root.path, "command"), "w", encoding="utf-8") as script:
        script.write(host.script(command, VMM_TEST_HOST="bochs", VMM_TEST_PREBUILT="1"))
    disk = os.path.join(work, "disk")
    with open(disk, "wb") as file:
        file.truncate(DISK)
    assets.run(assets.need("/sbin/mkfs.ext4", "e2fsprogs"), "-q", "-F", "-O", "^has_journal", "-d", root.path, disk)
    shutil.rmtree(root.path)


def _start(work, memory):
    """The emulator, on its way. In a network of its own: Bochs shows its screen on a port, and there is no leaving that out."""
    with open(os.path.join(work, "config"), "w", encoding="ascii") as config:
        config.write(CONFIG.format(memory=memory))
    with open(os.path.join(work, "go"), "w", encoding="ascii") as debugger:
        debugger.write("c\n")       # Debian's is built with its debugger, which asks what to do
    argv = ["/usr/bin/setpriv", "--pdeathsig", "KILL", "nice", "-n", "19", "bochs", "-q", "-f", "config", "-rc", "go"]
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if not subprocess.run([*alone, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        argv = alone + argv
    with open(os.path.join(work, "said"), "wb") as said:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=work)


def _left(work, name):
    """What the emulator left in a file, if it came to that."""
    try:
        with open(os.path.join(work, name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def run(command, memory=1024, timeout=3600, stdout=None, files=()):
    """Run the command there; its status, or TOOK_TOO_LONG. files: programs and directories that it needs, too."""
    for path, package in (("bochs", "bochs"), ("/usr/share/bochs/BIOS-bochs-latest", "bochsbios"), ("/usr/share/vgabios/vgabios.bin", "vgabios"),
                          ("/usr/bin/python3", "python3")):
        assets.need(path, package)
    boot = _boot_cd(host.kernel())
    with tempfile.TemporaryDirectory(prefix="vmm-vmx-") as work:
        os.symlink(boot, os.path.join(work, "boot"))
        _image(work, command, files)
        with _start(work, memory) as process:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
        (stdout or sys.stdout.buffer).write(_left(work, "output"))
        console = _left(work, "console")
        status = re.search(rb"(?m)^status of the command: (\d+)", console)
        if status:
            return int(status[1])
        if process.returncode == -signal.SIGKILL:
            return host.TOOK_TOO_LONG
        for text in console, _left(work, "said"), _left(work, "log"):
            sys.stderr.write(text.decode("utf-8", "replace")[-2000:])
        raise RuntimeError("the host ended without the command's status")


if __name__ == "__main__":
    host.main(__doc__, run, memory=1024)
