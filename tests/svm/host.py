#!/usr/bin/env python3
"""A host with AMD's SVM, anywhere: Debian's kernel under QEMU's emulator, with this machine's files and a KVM of its own.

  host.py [--memory MIB] [--cpus N] [--timeout SECONDS] [--] COMMAND...

runs the command there as root, in the current directory, and exits with its status. The emulator (TCG) knows SVM and nested page
tables, so kvm-amd drives them as on a real AMD processor, only ten to thirty times slower. For machines that have no /dev/kvm, and
for what a KVM without VMX and SVM cannot show: single steps of user code, hardware task switches, guest kernels at full speed. The
kernel has control groups version 2. What the emulator lacks: breakpoints and watchpoints of guests (assets.host_is_tcg).

The root file system is this machine's, read-only, under an overlay in memory: what the command writes is gone afterwards, but for
$SVM_OUT (a directory of the caller's, written through). /tmp is a real file system. VMM_TEST_SLOW is set for the emulator's speed.
Its own kernel comes from Debian's package, which is fetched once and unpacked in the test cache, not installed.
"""

import argparse
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
for _folder in ("guest", "lib"):
    sys.path.insert(0, os.path.join(HERE, "..", _folder))
import assets   # noqa: E402

FIRST = ("virtio_pci", "virtio_blk", "9p", "9pnet_virtio", "overlay", "ext4", "crc32c_generic", "kvm-amd")   # what init itself needs
QEMU = "qemu-system-x86_64"
SCRATCH = 8 << 30       # bytes of /tmp, sparse
SLOW = "8"              # factor on every time-out


def _fetch(out):
    """Unpack the package of Debian's current kernel: boot/vmlinuz-* and lib/modules."""
    with tempfile.TemporaryDirectory() as work:
        try:
            depends = assets.run("apt-cache", "depends", "linux-image-amd64").decode()
            name = re.search(r"Depends: (linux-image-\S+)", depends)
            if not name:
                raise RuntimeError("apt knows none")
            assets.run("apt-get", "download", name[1], cwd=work)
        except RuntimeError as error:
            raise assets.Missing(f"Debian's linux-image-amd64 cannot be fetched (apt-get update?): {error}") from error
        assets.run("dpkg-deb", "-x", *glob.glob(os.path.join(work, "*.deb")), out)
    # Debian generates these when the package is installed.
    assets.run(assets.need(assets.BUSYBOX, "busybox-static"), "depmod", "-b", out, os.path.basename(modules(out)))


def modules(kernel):
    """The directory of a kernel's modules."""
    return glob.glob(os.path.join(kernel, "lib", "modules", "*"))[0]


def kernel():
    """Directory with boot/vmlinuz-VERSION and lib/modules/VERSION; fetched once."""
    for tool, package in (("apt-get", "apt"), ("dpkg-deb", "dpkg")):
        assets.need(tool, package)
    return assets.cached("svm-kernel", assets.digest(_fetch.__code__.co_code), _fetch)


def _with_needed(directory, names):
    """Paths of these modules and of those they need, in the order of loading."""
    depends = {}
    with open(os.path.join(directory, "modules.dep"), encoding="ascii") as stream:
        for line in stream:
            path, needed = line.split(":")
            depends[path] = needed.split()
    by_name = {os.path.basename(path)[:-len(".ko")]: path for path in depends}
    order = []

    def add(path):
        for needed in depends[path]:
            add(needed)
        if path not in order:
            order.append(path)

    for name in names:
        add(by_name[name])
    return [os.path.join(directory, path) for path in order]


def initramfs(kernel_directory):
    """busybox, the first modules, init."""
    init = os.path.join(HERE, "init")

    def build(out):
        with tempfile.TemporaryDirectory() as root:
            for directory in ("bin", "modules", "proc", "sys", "dev", "root", "lower", "upper"):
                os.mkdir(os.path.join(root, directory))
            shutil.copy2(assets.BUSYBOX, os.path.join(root, "bin", "busybox"))
            shutil.copy2(init, os.path.join(root, "init"))
            os.chmod(os.path.join(root, "init"), 0o755)
            paths = _with_needed(modules(kernel_directory), FIRST)
            for path in paths:
                shutil.copy2(path, os.path.join(root, "modules"))
            with open(os.path.join(root, "modules", "order"), "w", encoding="ascii") as order:
                order.writelines(os.path.basename(path) + "\n" for path in paths)
            assets.run("sh", "-c", f"cd {shlex.quote(root)} && find . | cpio -o -H newc --quiet >{shlex.quote(out)}")

    assets.need("cpio", "cpio")
    return assets.cached("svm-initramfs.cpio", assets.digest(init, assets.BUSYBOX, kernel_directory, *FIRST), build)


def _script(command):
    """What the host runs: the command, with the caller's directory and those variables that tests look at."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("VMM", "ASAN_", "UBSAN_", "TSAN_", "LSAN_"))}
    kept.setdefault("VMM_TEST_SLOW", SLOW)
    kept["VMM_TEST_CACHE"] = assets.CACHE
    kept["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    kept["HOME"] = os.path.expanduser("~")
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    lines = [f"export {name}={shlex.quote(value)}" for name, value in kept.items()]
    lines += [f"cd {shlex.quote(os.getcwd())}", shlex.join(command)]
    return "\n".join(lines) + "\n"


def _kept():
    """The directories below this machine's /tmp that are there on the host as well, none in another."""
    paths = {os.path.realpath(path) for path in (os.path.join(HERE, "..", ".."), os.getcwd(), assets.CACHE)}
    if os.environ.get("VMM"):
        paths.add(os.path.dirname(os.path.dirname(os.path.realpath(os.environ["VMM"]))))    # src/vmm, modules/
    return [path for path in sorted(paths) if path.startswith("/tmp/") and not any(path.startswith(other + "/") for other in paths)]


def run(command, memory=4096, cpus=1, timeout=1800, out=None, stdout=None):
    """Run the command there; its status, or 124 when it took too long. out: the directory behind $SVM_OUT."""
    assets.need(QEMU, "qemu-system-x86")
    directory = kernel()
    initrd = initramfs(directory)
    with tempfile.TemporaryDirectory(prefix="vmm-svm-") as work:
        exchange = os.path.join(work, "exchange")
        os.mkdir(exchange)
        with open(os.path.join(exchange, "run"), "w", encoding="utf-8") as script:
            script.write(_script(command))
        with open(os.path.join(exchange, "modules"), "w", encoding="utf-8") as path:
            path.write(os.path.dirname(modules(directory)))
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
                    return 124
            try:
                with open(os.path.join(exchange, "status"), encoding="ascii") as status:
                    return int(status.read())
            except (OSError, ValueError):
                errors.seek(0)
                sys.stderr.writelines(line for line in errors if "TCG doesn't support requested feature" not in line)
                raise RuntimeError("the host ended without the command's status") from None


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--memory", type=int, default=4096, help="MiB")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=3600, help="seconds")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        sys.exit(run(command or ["bash"], options.memory, options.cpus, options.timeout, os.environ.get("SVM_OUT")))
    except assets.Missing as reason:
        sys.exit(f"host.py: {reason}")


if __name__ == "__main__":
    main()
