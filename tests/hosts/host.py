"""What the emulated hosts (svm.py, vmx.py) have in common: Debian's kernel, an initramfs for it, the command that runs there."""

import argparse
import glob
import os
import re
import shlex
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
for _folder in ("guest", "lib"):
    sys.path.insert(0, os.path.join(HERE, "..", _folder))
import assets   # noqa: E402

SLOW = "8"      # factor on every time-out there
TOOK_TOO_LONG = 124     # what run() returns then, as timeout(1) does


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
    return assets.cached("host-kernel", assets.digest(_fetch.__code__.co_code), _fetch)


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


def initramfs(kernel_directory, init, first):
    """busybox, the first modules (names), init (a script)."""

    def build(out):
        with tempfile.TemporaryDirectory() as root:
            for directory in ("bin", "modules", "proc", "sys", "dev", "root", "lower", "upper"):
                os.mkdir(os.path.join(root, directory))
            shutil.copy2(assets.BUSYBOX, os.path.join(root, "bin", "busybox"))
            shutil.copy2(init, os.path.join(root, "init"))
            os.chmod(os.path.join(root, "init"), 0o755)
            paths = _with_needed(modules(kernel_directory), first)
            for path in paths:
                shutil.copy2(path, os.path.join(root, "modules"))
            with open(os.path.join(root, "modules", "order"), "w", encoding="ascii") as order:
                order.writelines(os.path.basename(path) + "\n" for path in paths)
            assets.run("sh", "-c", f"cd {shlex.quote(root)} && find . | cpio -o -H newc --quiet >{shlex.quote(out)}")

    assets.need("cpio", "cpio")
    return assets.cached(os.path.basename(init).replace("-init", "-initramfs.cpio"), assets.digest(init, assets.BUSYBOX, kernel_directory, *first), build)


def script(command, **more):
    """What the host runs: the command, with the caller's directory and those variables that tests look at, and more."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("VMM", "ASAN_", "UBSAN_", "TSAN_", "LSAN_"))}
    kept.setdefault("VMM_TEST_SLOW", SLOW)
    kept.update(more)
    kept["VMM_TEST_CACHE"] = assets.CACHE
    kept["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    kept["HOME"] = os.path.expanduser("~")
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    lines = [f"export {name}={shlex.quote(value)}" for name, value in kept.items()]
    lines += [f"cd {shlex.quote(os.getcwd())}", shlex.join(command)]
    return "\n".join(lines) + "\n"


def main(text, run, memory, **more):
    """The command line of a host: text is its module's docstring; more are further options, integers with their defaults."""
    parser = argparse.ArgumentParser(description=text.split("\n", 1)[0])
    for name, default in {"memory": memory, "timeout": 3600, **more}.items():
        parser.add_argument(f"--{name}", type=int, default=default, help={"memory": "MiB", "timeout": "seconds"}.get(name))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = vars(parser.parse_args())
    command = options.pop("command")
    try:
        sys.exit(run(command[1:] if command[:1] == ["--"] else command, **options))
    except assets.Missing as reason:
        sys.exit(f"{parser.prog}: {reason}")
