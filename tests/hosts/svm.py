#!/usr/bin/env python3
"""A host with AMD's SVM, anywhere: Debian's kernel under QEMU's emulator, with this machine's files and a KVM of its own.

  svm.py [--memory MIB] [--cpus N] [--timeout SECONDS] [--] COMMAND...

runs the command there as root, in the current directory, and exits with its status. The emulator (TCG) knows SVM and nested page
tables, so kvm-amd drives them as on a real AMD processor, only ten to thirty times slower. For machines that have no /dev/kvm, and
for what a KVM without VMX and SVM cannot show: single steps of user code, hardware task switches, guest kernels at full speed. The
kernel has control groups version 2. What the emulator lacks: breakpoints and watchpoints of guests (assets.host_is_tcg).

The root file system is this machine's, read-only, under an overlay in memory: what the command writes is gone afterwards, but for
$SVM_OUT (a directory of the caller's, written through). /tmp is a real file system. VMM_TEST_SLOW is set for the emulator's speed.
Its own kernel comes from Debian's package, which is fetched once and unpacked in the test cache, not installed.
"""

import glob
import os
import subprocess
import sys
import tempfile

import host
from host import assets

FIRST = ("virtio_pci", "virtio_blk", "9p", "9pnet_virtio", "overlay", "ext4", "crc32c_generic", "kvm-amd")   # what init itself needs
QEMU = "qemu-system-x86_64"
SCRATCH = 8 << 30       # bytes of /tmp, sparse


def _kept():
    """The directories below this machine's /tmp that are there on the host as well, none in another."""
    paths = {os.path.realpath(path) for path in (os.path.join(host.HERE, "..", ".."), os.getcwd(), assets.CACHE)}
    if os.environ.get("VMM"):
        paths.add(os.path.dirname(os.path.dirname(os.path.realpath(os.environ["VMM"]))))    # src/vmm, modules/
    return [path for path in sorted(paths) if path.startswith("/tmp/") and not any(path.startswith(other + "/") for other in paths)]


def run(command, memory=4096, cpus=1, timeout=1800, out=None, stdout=None):
    """Run the command there; its status, or TOOK_TOO_LONG. out: the directory behind $SVM_OUT."""
    assets.need(QEMU, "qemu-system-x86")
    directory = host.kernel()
    initrd = host.initramfs(directory, os.path.join(host.HERE, "svm-init"), FIRST)
    with tempfile.TemporaryDirectory(prefix="vmm-svm-") as work:
        exchange = os.path.join(work, "exchange")
        os.mkdir(exchange)
        with open(os.path.join(exchange, "run"), "w", encoding="utf-8") as script:
            script.write(host.script(command))
        with open(os.path.join(exchange, "modules"), "w", encoding="utf-8") as path:
            path.write(os.path.dirname(host.modules(directory)))
        with open(os.path.join(exchange, "kept"), "w", encoding="utf-8") as kept:
            kept.writelines(path + "\n" for path in _kept())
        scratch = os.path.join(work, "scratch")
        with open(scratch, "wb") as disk:
            disk.truncate(SCRATCH)
        assets.run(assets.need("/sbin/mkfs.ext4", "e2fsprogs"), "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", "-O", "^has_journal", scratch)
        # It ends with this process, however that ends.
        argv = [assets.need("/usr/bin/setpriv", "util-linux"), "--pdeathsig", "KILL", QEMU,
                "-accel", "tcg,thread=multi", "-M", "q35", "-cpu", "EPYC,svm=on,npt=on", "-m", str(memory), "-smp", str(cpus),
                "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
                "-kernel", *glob.glob(os.path.join(directory, "boot", "vmlinuz-*")), "-initrd", initrd,
                "-append", "console=ttyS0 quiet panic=-1 mitigations=off",
                "-drive", f"file={scratch},format=raw,if=virtio,cache=unsafe",
                "-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
                "-virtfs", f"local,path={exchange},mount_tag=exchange,security_model=none"]
        if out:
            with open(os.path.join(exchange, "out"), "w", encoding="ascii"):
                pass    # tells init
            argv += ["-virtfs", f"local,path={out},mount_tag=out,security_model=none"]
        with open(os.path.join(work, "errors"), "w+", encoding="utf-8", errors="replace") as errors:
            with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=errors) as process:
                try:
                    process.wait(timeout)
                except subprocess.TimeoutExpired:
                    process.kill()
                    return host.TOOK_TOO_LONG
            try:
                with open(os.path.join(exchange, "status"), encoding="ascii") as status:
                    return int(status.read())
            except (OSError, ValueError):
                errors.seek(0)
                sys.stderr.writelines(line for line in errors if "TCG doesn't support requested feature" not in line)
                raise RuntimeError("the host ended without the command's status") from None




if __name__ == "__main__":
    host.main(__doc__, lambda command, **options: run(command, out=os.environ.get("SVM_OUT"), **options), memory=4096, cpus=1)
