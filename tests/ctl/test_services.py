#!/usr/bin/env python3
"""The services under a real systemd: process 1 of namespaces of its own, with the units as they are installed.

Guests start with the host, are shut down with it, and what goes wrong with them is systemd's to know. Needs root, namespaces, a
version 2 of control groups and systemd; the guest is tests/payloads/hotplug.c, which reacts to its power button, or dirtier.c, which
does not.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import ctltest
import assets
from ctltest import BUILD, vmmtest

SYSTEMD = "/lib/systemd/systemd"
UNITS = "/usr/lib/systemd/system"
# What of systemd's own this host is made of.
OF_SYSTEMD = ["basic.target", "sysinit.target", "multi-user.target", "shutdown.target", "umount.target", "final.target",
              "poweroff.target", "systemd-poweroff.service", "network.target", "local-fs.target", "remote-fs.target", "sockets.target",
              "timers.target", "paths.target", "slices.target", "systemd-journald.service", "systemd-journald.socket",
              "systemd-journald-dev-log.socket"]
# $1: an empty directory, $2: what belongs in the host's root
SETUP = r"""
set -e
root=$1
mount -t tmpfs -o mode=755 none "$root"
mkdir -p "$root"/proc "$root"/sys "$root"/dev "$root"/run "$root"/tmp "$root"/usr "$root"/etc/systemd/system "$root"/var/log "$root"/srv
mount --bind /usr "$root/usr"
mount --bind "$2/usr/local" "$root/usr/local"
cp -r "$2/srv" "$2/units" "$root"
for lasts in etc var/log; do mount --bind "$2/$lasts" "$root/$lasts"; done
for link in bin sbin lib lib64; do ln -s usr/$link "$root/$link"; done
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
while grep -qx 0 "$root/sys/fs/cgroup/cgroup.procs"; do sleep 0.05; done     # who is not of this host leaves its group: Host.boot()
mount -t tmpfs -o mode=755 none "$root/dev"
for node in null zero full random urandom tty kvm net/tun; do
	[ -e "/dev/$node" ] || continue
	mkdir -p "$(dirname "$root/dev/$node")"
	touch "$root/dev/$node"
	mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs none "$root/dev/shm"
mount -t tmpfs -o mode=755 none "$root/run"
ip link set lo up 2>/dev/null || true
cd "$root"
pivot_root . usr/../tmp 2>/dev/null || mount --move . /
exec chroot . /usr/bin/env -i container=vmm-test PATH=/usr/local/bin:/usr/bin:/usr/sbin \
	SYSTEMD_UNIT_PATH=/etc/systemd/system:/usr/local/lib/systemd/system:/units SYSTEMD_LOG_TARGET=journal \
	/lib/systemd/systemd --unit=multi-user.target --show-status=0
"""


def make_group():
    """A control group for the host; None where that cannot be."""
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        path = os.path.join(root, f"vmm-host-{os.getpid()}")
        if os.path.exists(root + "/cgroup.procs") and os.access(root, os.W_OK):
            try:
                with open(root + "/cgroup.controllers", encoding="ascii") as have, \
                        open(root + "/cgroup.subtree_control", "w", encoding="ascii") as control:
                    if "cpu" in have.read().split():
                        control.write("+cpu")
                os.mkdir(path)
                return path
            except OSError:
                pass
    return None


class Host:
    """A host: boot(), power_off(), and boot() again, with the same /etc and /var/log. Ends with its context at the latest."""

    def __init__(self, files):
        self.dir = tempfile.mkdtemp(prefix="vmm-host-")
        self.group = make_group()
        if not self.group:
            raise unittest.SkipTest("no right to make a control group of version 2")
        self.unshare = None
        self.make_root(files)

    def boot(self):
        # The namespace of control groups is to begin at its group, so the process enters that first.
        enter = f'echo $$ >{self.group}/cgroup.procs; exec "$@"'
        with open(self.dir + "/stderr", "ab") as err:
            self.unshare = subprocess.Popen(
                ["sh", "-c", enter, "sh", "unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net",
                 "--cgroup", "--propagation", "private", "sh", "-c", SETUP, "sh", self.dir + "/root", self.dir + "/files"],
                stdin=subprocess.DEVNULL, stdout=err, stderr=err)
        # Its parent does not belong there: systemd could not divide the group.
        vmmtest.poll(lambda: self.unshare.poll() is not None or self.children(), 20, "the host's namespaces")
        if self.unshare.poll() is None:
            with open(os.path.dirname(self.group) + "/cgroup.procs", "w", encoding="ascii") as procs:
                procs.write(str(self.unshare.pid))
        vmmtest.poll(self.up, 60, self.why)

    def power_off(self):
        """As a person does it; returns when nothing is left."""
        self.run("systemctl", "poweroff", check=False)
        vmmtest.poll(lambda: self.unshare.poll() is not None, 60, "the host to be off")
        # systemd divided the group among controllers: no process may enter it any more.
        vmmtest.poll(self.remove_group, 20, "the host's control group to be empty")
        self.group = make_group()

    def make_root(self, files):
        """files: {path: text}"""
        for folder in ("root", "files/etc/vmm", "files/etc/systemd/system", "files/var/log", "files/srv", "files/units/sysinit.target.wants"):
            os.makedirs(os.path.join(self.dir, folder))
        subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", self.dir + "/files"], check=True,
                       stdout=subprocess.DEVNULL)
        for unit in OF_SYSTEMD:
            shutil.copy(os.path.join(UNITS, unit), self.dir + "/files/units")
        os.symlink("../systemd-journald.service", self.dir + "/files/units/sysinit.target.wants/systemd-journald.service")
        for name in ("hotplug", "dirtier"):
            shutil.copy(assets.payload(name), f"{self.dir}/files/srv/{name}")
        common = {"/etc/passwd": "root:x:0:0::/:/bin/sh\n", "/etc/group": "root:x:0:\n", "/etc/machine-id": "1" * 32 + "\n",
                  "/etc/os-release": "ID=test\n", "/etc/systemd/journald.conf": "[Journal]\nStorage=volatile\n"}
        for path, text in {**common, **files}.items():
            self.write(path, text)

    def why(self):
        with open(self.dir + "/stderr", encoding="utf-8", errors="replace") as stream:
            return "systemd to start: " + stream.read()[-2000:]

    def children(self):
        """Of unshare, as words: process 1 of the host, once it is there."""
        with open(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children", encoding="ascii") as stream:
            return stream.read().split()

    def pid(self):
        """Process 1 of the host, as seen from here; None before and after."""
        try:
            child = self.children()
            return int(child[0]) if child and os.readlink(f"/proc/{child[0]}/exe").endswith("systemd/systemd") else None
        except OSError:
            return None

    def up(self):
        if self.unshare.poll() is not None:
            raise unittest.SkipTest(f"no namespaces for another systemd here: {self.why()}")
        return self.pid() and self.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")

    def run(self, *words, check=True):
        """A command on the host."""
        enter = ["nsenter", "--target", str(self.pid()), "--all", "--root", "--wd", "env", "-i", "PATH=/usr/local/bin:/usr/bin:/usr/sbin",
                 "SYSTEMD_UNIT_PATH=/etc/systemd/system:/usr/local/lib/systemd/system:/units"]
        done = subprocess.run(enter + [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=150 * vmmtest.SLOW, check=False)
        if check and done.returncode:
            raise AssertionError(f"{words}: status {done.returncode}: {done.stdout}")
        return done

    def property(self, unit, name):
        """What systemd knows."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()

    def states(self, unit):
        return tuple(self.property(unit, name) for name in ("ActiveState", "SubState", "Result"))

    def read(self, path):
        """A file of the host's that lasts, also when it is off."""
        with open(self.dir + "/files" + path, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def write(self, path, text):
        path = self.dir + "/files" + path
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)

    def close(self):
        pid = self.unshare and self.pid()
        if pid:
            os.kill(pid, signal.SIGKILL)        # and all of its processes
        elif self.unshare and self.unshare.poll() is None:
            self.unshare.kill()
        if self.unshare:
            self.unshare.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
        self.remove_group()

    def remove_group(self):
        """The host's control group and those in it; False while there are processes."""
        for folder, _, _ in sorted(os.walk(self.group), reverse=True):
            try:
                os.rmdir(folder)
            except OSError:
                pass
        return not os.path.exists(self.group)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


GUEST = "memory = 64\nvnc = none\nkernel = /srv/hotplug\n"
DEAF = "memory = 64\nvnc = none\nkernel = /srv/dirtier\nappend = start=16M size=64K halt=1\n"      # to its power button


class Services(unittest.TestCase):
    """vmm@.service and vmm-guests.service"""

    @classmethod
    def setUpClass(cls):
        reason = vmmtest.why_no_vmm()
        if not reason and os.geteuid():
            reason = "needs root"
        if not reason and not os.path.exists(SYSTEMD):
            reason = "no systemd is installed"
        if not reason and not (shutil.which("meson") and shutil.which("nsenter")):
            reason = "no meson or nsenter"
        if reason:
            raise unittest.SkipTest(reason)

    def setUp(self):
        extra = os.environ.get("VMM_TEST_ARGS", "")
        extra = f"extra = {extra}\n" if extra else ""
        self.host = Host({"/etc/vmm/web.vmm": GUEST + extra, "/etc/vmm/deaf.vmm": DEAF + extra + "shutdown-timeout = 2\n",
                          "/etc/vmm/bad.vmm": "memory = 64\nmemroy = 3\n", "/srv/db.vmm": GUEST + extra})
        self.addCleanup(self.host.close)
        self.host.boot()

    def list(self):
        return json.loads(self.host.run("vmmctl", "--json", "list").stdout)

    def said(self, pattern, name):
        """Wait until the guest did, on its console."""
        vmmtest.poll(lambda: re.search(pattern, self.host.run("vmmctl", "dmesg", name).stdout), 60, f"{pattern!r} of {name}")

    def test_with_the_host(self):
        """Enabled, it starts with the host; it is shut down with it, and so is one that root started by hand."""
        host = self.host
        self.assertEqual(self.list(), [])
        host.run("systemctl", "enable", "vmm-guests.service")
        host.run("vmmctl", "autostart", "web", "on")
        host.power_off()

        host.boot()
        vmmtest.poll(lambda: host.states("vmm@web.service") == ("active", "running", "success"), 60,
                     lambda: f"the guest to run: {host.states('vmm@web.service')}")
        self.assertEqual([(row["name"], row["state"]) for row in self.list()], [("web", "running")])
        self.assertEqual(host.states("vmm-guests.service"), ("active", "exited", "success"))
        # From a session: its processes are in a scope, as logind makes them.
        host.run("systemd-run", "--scope", "--quiet", "--unit=session-1", "vmmctl", "create", "/srv/db.vmm")
        self.assertEqual({row["name"] for row in self.list()}, {"web", "db"})
        for name in ("web", "db"):
            self.said("ready", name)
        self.assertEqual(host.property("vmm-db.scope", "ActiveState"), "active")
        host.power_off()
        for name in ("web", "db"):
            log = host.read(f"/var/log/vmm/{name}.log")
            self.assertIn("the guest ends: guest-shutdown", log)    # by itself, because it was asked
            self.assertIn("vmm ended with status 0", log)

        # Off again: it stays down.
        host.boot()
        host.run("vmmctl", "autostart", "web", "off")
        host.run("systemctl", "stop", "vmm@web.service")
        host.power_off()
        host.boot()
        vmmtest.poll(lambda: host.states("vmm-guests.service") == ("active", "exited", "success"), 60)
        self.assertEqual(self.list(), [])

    def test_start_and_stop(self):
        host = self.host
        host.run("systemctl", "start", "vmm@web.service")       # returns when it runs
        row, = self.list()
        self.assertEqual((row["name"], row["state"]), ("web", "running"))
        self.said("ready", "web")
        self.assertIn("vmm@web.service", host.run("cat", f"/proc/{row['id']}/cgroup").stdout)
        host.run("systemctl", "stop", "vmm@web.service")
        self.assertEqual(host.states("vmm@web.service"), ("inactive", "dead", "success"))
        self.assertIn("the guest ends: guest-shutdown", host.read("/var/log/vmm/web.log"))
        self.assertEqual(self.list(), [])
        # A guest that goes by itself is no failure, nor is one that is destroyed.
        for words in (["shutdown"], ["destroy"]):
            host.run("systemctl", "start", "vmm@web.service")
            self.said("ready", "web")
            host.run("vmmctl", *words, "web")
            vmmtest.poll(lambda: host.states("vmm@web.service") == ("inactive", "dead", "success"), 30,
                         lambda: f"{words}: {host.states('vmm@web.service')}")

    def test_deaf_guest(self):
        """It has its time, and then it ends."""
        host = self.host
        host.run("systemctl", "start", "vmm@deaf.service")
        start = time.monotonic()
        host.run("systemctl", "stop", "vmm@deaf.service")
        self.assertTrue(1.9 <= time.monotonic() - start < 2 + 6 * vmmtest.SLOW, time.monotonic() - start)
        self.assertEqual(host.states("vmm@deaf.service"), ("inactive", "dead", "success"))
        self.assertIn("the guest ends: host-qmp-quit", host.read("/var/log/vmm/deaf.log"))
        # And one whose vmm hangs: it is killed, before systemd would have to.
        host.run("systemctl", "start", "vmm@deaf.service")
        host.run("sh", "-c", "kill -STOP $(cat /run/vmm/deaf/pid)")
        host.run("systemctl", "stop", "vmm@deaf.service")
        self.assertEqual(host.states("vmm@deaf.service"), ("inactive", "dead", "success"))
        self.assertIn("vmm does not end: killed", host.read("/var/log/vmm/deaf.log"))
        self.assertEqual(self.list(), [])

    def test_failures(self):
        host = self.host
        self.assertNotEqual(host.run("systemctl", "start", "vmm@bad.service", check=False).returncode, 0)
        self.assertEqual(host.states("vmm@bad.service"), ("failed", "failed", "exit-code"))
        self.assertEqual(host.property("vmm@bad.service", "ExecMainStatus"), "5")
        vmmtest.poll(lambda: re.search("bad.vmm:2:1: .*'guest.memroy' not found",
                                       host.run("journalctl", "--no-pager", "-u", "vmm@bad.service", check=False).stdout), 30,
                     "the place of the mistake in the journal")
        self.assertNotEqual(host.run("systemctl", "start", "vmm@nobody.service", check=False).returncode, 0)
        # vmm is killed: on-crash is destroy.
        host.run("systemctl", "start", "vmm@web.service")
        host.run("sh", "-c", "kill -KILL $(cat /run/vmm/web/pid)")
        vmmtest.poll(lambda: host.states("vmm@web.service") == ("failed", "failed", "exit-code"), 30,
                     lambda: str(host.states("vmm@web.service")))
        self.assertIn("vmm@web.service", host.run("systemctl", "--failed", "--plain", "--no-legend").stdout)
        # With restart the service goes on, with another vmm.
        host.write("/etc/vmm/web.vmm", host.read("/etc/vmm/web.vmm") + "on-crash = restart\n")
        host.run("systemctl", "start", "vmm@web.service")
        first = self.list()[0]["id"]
        host.run("kill", "-KILL", str(first))
        vmmtest.poll(lambda: [row["id"] for row in self.list() if row["state"] == "running"] not in ([], [first]), 30)
        self.assertEqual(host.states("vmm@web.service"), ("active", "running", "success"))

    def test_shares(self):
        """cpu-weight and cpu-cap in the service's control group, sched-credit there."""
        host = self.host
        if "cpu" not in host.run("cat", "/sys/fs/cgroup/cgroup.controllers").stdout.split():
            self.skipTest("this host's cpu controller is not in version 2 of control groups")
        host.write("/etc/vmm/web.vmm", host.read("/etc/vmm/web.vmm") + "cpu-weight = 512\ncpu-cap = 30\n")
        host.run("systemctl", "start", "vmm@web.service")
        group = "/sys/fs/cgroup" + host.property("vmm@web.service", "ControlGroup")
        read = lambda file: host.run("cat", f"{group}/{file}").stdout.strip()
        self.assertEqual((read("cpu.weight"), read("cpu.max")), ("200", "30000 100000"))
        host.run("vmmctl", "sched-credit", "-d", "web", "-w", "128", "-c", "0")
        self.assertEqual((read("cpu.weight"), read("cpu.max")), ("50", "max 100000"))
        # Also when vmm has helpers there, such as a downscript's.
        host.run("sh", "-c", f"setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >{group}/cgroup.procs")
        host.run("vmmctl", "sched-credit", "-d", "web", "-w", "256", "-c", "70")
        self.assertEqual((read("cpu.weight"), read("cpu.max")), ("100", "70000 100000"))
        host.run("vmmctl", "sched-credit", "-d", "web", "-w", "128", "-c", "0")
        # Started by hand: in its scope.
        host.run("systemd-run", "--scope", "--quiet", "--unit=session-1", "vmmctl", "create", "/srv/db.vmm")
        host.run("vmmctl", "sched-credit", "-d", "db", "-w", "1024", "-c", "40")
        group = "/sys/fs/cgroup" + host.property("vmm-db.scope", "ControlGroup")
        self.assertEqual((read("cpu.weight"), read("cpu.max")), ("400", "40000 100000"))
        # Weights count among siblings, which all guests are.
        parents = {os.path.dirname(host.property(unit, "ControlGroup")) for unit in ("vmm@web.service", "vmm-db.scope")}
        self.assertEqual({os.path.basename(parent) for parent in parents}, {"machine.slice"})
        self.assertEqual(len(parents), 1)
        rows = json.loads(host.run("vmmctl", "--json", "sched-credit").stdout)
        self.assertEqual({row["name"]: (row["weight"], row["cap"]) for row in rows}, {"db": (1024, 40), "web": (128, 0)})


if __name__ == "__main__":
    vmmtest.main()
