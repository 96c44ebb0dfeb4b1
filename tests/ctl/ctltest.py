"""vmmctl with directories of its own, so that a test sees its guests only.

Guests without a CPU (-accel qtest) start in milliseconds; their registers are reached through .board(name), so a test can power
them off, reset them or let them panic when it wants.
"""

import contextlib
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("lib", "control", "guest"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))
import harness  # noqa: E402
import vmmtest  # noqa: E402
from harness import free_port  # noqa: E402,F401

VMMCTL = os.environ.get("VMMCTL") or os.path.join(vmmtest.ROOT, "build/src/ctl/vmmctl")
BUILD = os.path.dirname(os.path.dirname(os.path.dirname(VMMCTL)))
OK, FAILED, USAGE, NO_GUEST, NO_ANSWER, BAD_CONFIG = range(6)


def manual_examples(page):
    """The example blocks of a manual page, as they are read."""
    with open(os.path.join(BUILD, "docs", page), encoding="utf-8") as stream:
        text = stream.read()
    plain = lambda t: t.replace(r"\(aq", "'").replace(r"\-", "-").replace(r"\&", "").replace(r"\e", "\\")
    return [plain(block) for block in re.findall(r"^\.EX\n(.*?)\n\.EE", text, re.S | re.M)]


V2_ROOT = next((root for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified") if os.path.exists(root + "/cgroup.controllers")), "")


def cpu_group(case):
    """A control group with the cpu controller, made for this test, empty; None where that cannot be.

    Of version 2 where the controller is there, else of version 1: below the group this process is in, or, as its processes are in
    the way of that in version 2, below the root.
    """
    with open("/proc/self/cgroup", encoding="ascii") as lines:
        groups = dict(line.rstrip("\n").split(":", 2)[1:] for line in lines)
    v1 = next((path for names, path in groups.items() if "cpu" in names.split(",")), None)
    places = ["/sys/fs/cgroup/cpu" + v1] if v1 else []
    try:
        with open(V2_ROOT + "/cgroup.controllers", encoding="ascii") as stream:
            if "cpu" in stream.read().split():
                places += [V2_ROOT + groups.get("", "/"), V2_ROOT]
                with open(V2_ROOT + "/cgroup.subtree_control", "w", encoding="ascii") as control:
                    control.write("+cpu")       # usually it is there
    except OSError:
        pass
    for place in places:
        path = os.path.join(place, f"vmm-test-{os.getpid()}")
        try:
            os.mkdir(path)
        except OSError:
            continue

        def gone():
            try:
                os.rmdir(path)              # once the keeper, which is in it, has ended
                return True
            except OSError:
                return False

        if os.path.exists(path + "/cpu.shares") or os.path.exists(path + "/cpu.weight"):
            case.addCleanup(vmmtest.poll, gone, 20, "the test's control group to be empty")
            case.addCleanup(case.clean_up)
            return path
        gone()
    return None


class Case(unittest.TestCase):
    """Each test has a run, a configuration and a log directory; what it leaves running is ended."""

    maxDiff = None

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="vmm-ctl-")
        self.run_dir = self.path("run")
        self.env = dict(os.environ, VMM=vmmtest.VMM, VMM_RUN_DIR=self.run_dir, VMM_CONFIG_DIR=self.path("etc"),
                        VMM_LOG_DIR=self.path("log"), PATH=os.path.dirname(VMMCTL) + ":" + os.environ["PATH"])
        os.mkdir(self.path("etc"))
        self.addCleanup(self.clean_up)

    def clean_up(self):
        """End every guest, of every run directory in the test's own, by the locks on their files and whatever state they are in."""
        for folder in {os.path.dirname(file) for name in ("keeper", "pid") for file in glob.glob(self.path("**", name), recursive=True)}:
            for pid in self.holders(folder):
                for what in (signal.SIGCONT, signal.SIGKILL):
                    try:
                        os.kill(pid, what)
                    except ProcessLookupError:
                        pass
        shutil.rmtree(self.dir, ignore_errors=True)

    def names(self):
        """The directories in the run directory."""
        return sorted(os.listdir(self.run_dir)) if os.path.isdir(self.run_dir) else []

    def holders(self, name):
        """Process ids of the keeper and vmm of a guest, by name or directory, as their files say, if these processes are ours."""
        pids = []
        for file in ("keeper", "pid"):
            try:
                with open(os.path.join(self.run_dir, name, file), encoding="ascii") as stream:
                    pid = int(stream.read())
                exe = os.readlink(f"/proc/{pid}/exe")
                if os.path.basename(exe) in ("vmmctl", "vmm", "qemu-system-x86_64"):
                    pids.append(pid)
            except (OSError, ValueError):
                pass
        return pids

    def path(self, *parts):
        """A path in the test's directory."""
        return os.path.join(self.dir, *parts)

    def write(self, name, text, folder=""):
        """A file; its path."""
        path = self.path(folder, name)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
        return path

    def ctl(self, *args, status=OK, stdin="", timeout=60, env=None):
        """Run vmmctl; its standard output. The status must be the expected one (None: any of its own); standard error is in
        .stderr."""
        done = subprocess.run([VMMCTL, *map(str, args)], input=stdin, env=dict(self.env, **(env or {})), cwd=self.dir, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout * vmmtest.SLOW, check=False)
        self.stderr = done.stderr
        if status is None:
            self.assertIn(done.returncode, range(6), f"vmmctl {args}: {done.stdout}{done.stderr}")
            return done.stdout
        self.assertEqual(done.returncode, status, f"vmmctl {args}: {done.stdout}{done.stderr}")
        if status != OK and "--json" not in args:
            self.assertRegex(done.stderr, r"\Avmmctl: |\n?vmmctl: ")
        return done.stdout

    @contextlib.contextmanager
    def background(self, *args, **options):
        """vmmctl as a process; killed at the end, whatever happens."""
        with subprocess.Popen([VMMCTL, *map(str, args)], **dict({"env": self.env}, **options)) as process:
            try:
                yield process
            finally:
                process.kill()

    def json(self, *args, **options):
        """The same with --json, decoded."""
        return json.loads(self.ctl("--json", *args, **options))

    def refused(self, status, pattern, *args, **options):
        """The command fails with this status and such a message."""
        self.ctl(*args, status=status, **options)
        self.assertRegex(self.stderr, pattern)

    def config(self, name="web", more="", extra="", folder="", **keys):
        """A configuration file for a guest without a CPU; its path."""
        text = "".join(f"{key} = {value}\n" for key, value in dict({"memory": 4, "vnc": "none"}, **keys).items())
        sandbox = os.environ.get("VMM_TEST_ARGS", "")
        text += f"extra = -accel qtest -qtest unix:{self.path(name)}.board,server=on,wait=off {sandbox} {extra}\n"
        return self.write(f"{name}.vmm", text + more, folder)

    def create(self, name="web", *args, **options):
        """Start such a guest."""
        self.ctl("create", self.config(name, **options), *args)
        return name

    def board(self, name="web"):
        """The guest's hardware, over the qtest protocol."""
        sock = socket.socket(socket.AF_UNIX)
        vmmtest.poll(lambda: not sock.connect_ex(self.path(f"{name}.board")), 10, "the board's socket")
        board = harness.Qtest(sock)
        self.addCleanup(board.close)
        return board

    def pm_base(self, board):
        """Registers of the PIIX4's power management at 0x600, as the firmware has them."""
        for request in ("outl 0xcf8 0x80000b40", "outl 0xcfc 0x600", "outl 0xcf8 0x80000b80", "outb 0xcfc 1"):
            board.ask(request)

    def power_off(self, board):
        """S5 through PM1 control. The answer may not come: vmm ends."""
        self.pm_base(board)
        board.stream.write(b"outw 0x604 0x2000\n")
        board.stream.flush()

    def button(self, board):
        """Whether the power button was pressed; it is no more afterwards."""
        self.pm_base(board)
        pressed = board.number("inw 0x600") & 0x100
        if pressed:         # else it might be pressed just now
            board.ask("outw 0x600 0x100")
        return pressed

    def row(self, name="web"):
        """(id, state) as list says at one moment; (None, None) if there is no such guest."""
        for row in self.json("list"):
            if row["name"] == name:
                return row["id"], row["state"]
        return None, None

    def wait_restart(self, pid, name="web"):
        """Wait until it runs as another process."""
        vmmtest.poll(lambda: self.row(name)[0] not in (None, pid) and self.row(name)[1] == "running", 20, "a second start")

    def state(self, name="web"):
        """What list says of a guest; None if there is none."""
        for row in self.json("list"):
            if row["name"] == name:
                return row["state"]
        return None

    def wait_state(self, state, name="web", timeout=20):
        """Wait until list says so."""
        vmmtest.poll(lambda: self.state(name) == state, timeout, f"{name} to be {state} (it is {self.state(name)})")

    def wait_gone(self, name="web", timeout=20):
        """Wait until its directory is gone."""
        vmmtest.poll(lambda: name not in self.names(), timeout, f"{name} to be gone")

    def pid(self, name="web"):
        """Process id of its vmm."""
        return int(self.ctl("domid", name))

    def log(self, name="web"):
        """Its log."""
        with open(self.path("log", f"{name}.log"), encoding="utf-8", errors="replace") as stream:
            return stream.read()
