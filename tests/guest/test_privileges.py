#!/usr/bin/env python3
"""vmm needs no privileges but /dev/kvm, gives up those it has, and confines every thread."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets   # noqa: E402
import vmmtest  # noqa: E402


def threads(pid):
    """The fields of /proc/PID/task/*/status, by the thread's name."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as status:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
        found[f"{fields['Name']} {task}"] = fields
    return found


@unittest.skipIf(vmmtest.is_qemu(), "vmm's own")
class Privileges(vmmtest.TestCase):
    """The hotplug payload: a vCPU of the first hour, one that comes later, a VNC server."""

    def run_guest(self, *options, prefix=()):
        """Start, use, and give back what each thread may do."""
        with self.guest("-kernel", assets.payload("hotplug"), "-vnc", f"unix:{self.folder.name}/vnc", *options, memory=64,
                        cpus="1,maxcpus=2", evidence=None, start=False) as guest:
            guest.argv = [*prefix, *guest.argv]
            guest.start()
            guest.serial.wait_for("ready", 60)
            place = next(c for c in guest.qmp.command("query-hotpluggable-cpus") if "qom-path" not in c)
            guest.qmp.execute("device_add", {"driver": place["type"], "id": "late", **place["props"]})
            guest.serial.wait_for("cpu 1 up", 60)
            found = threads(guest.pid)
            self.assertEqual(sum("CPU" in name for name in found), 2, found.keys())
            self.assertEqual(guest.quit(), 0, guest.stderr())
        return found

    def setUp(self):
        super().setUp()
        self.folder = tempfile.TemporaryDirectory(prefix="vmm-test-")
        self.addCleanup(self.folder.cleanup)

    def assert_confined(self, found):
        for name, fields in found.items():
            with self.subTest(name):
                self.assertEqual((fields["NoNewPrivs"], fields["Seccomp"]), ("1", "2"))

    @unittest.skipUnless(all(map(vmmtest.has_module, ("png", "kdump-zlib", "slirp"))), "built without some of these modules")
    def test_features_behind_a_chroot(self):
        """What is loaded when it is used, where its files are out of reach and there is no /dev."""
        os.chmod(self.folder.name, 0o777)
        with self.guest("-chroot", self.folder.name, "-kernel", assets.payload("hotplug"), memory=64, evidence=None) as guest:
            guest.serial.wait_for("ready", 60)
            guest.qmp.command("screendump", filename="/screen.png", format="png")
            with open(f"{self.folder.name}/screen.png", "rb") as stream:
                self.assertEqual(stream.read(4), b"\x89PNG")
            formats = guest.qmp.command("query-dump-guest-memory-capability")["formats"]
            for name in formats:
                guest.qmp.execute("dump-guest-memory", {"paging": False, "protocol": f"file:/{name}", "format": name})
                self.assertGreater(os.path.getsize(f"{self.folder.name}/{name}"), 4096)
            self.assertIn("kdump-zlib", formats)
            guest.qmp.command("netdev_add", type="user", id="late")
            guest.qmp.command("device_add", driver="e1000", netdev="late", id="card")
            guest.serial.wait_for("slot [0-9]+ 8086:100e", 60)
            self.assertEqual(guest.quit(), 0, guest.stderr())

    def test_every_thread_is_confined(self):
        self.assert_confined(self.run_guest())

    @unittest.skipUnless(shutil.which("setpriv"), "needs setpriv")
    def test_without_capabilities(self):
        """As a user of the group kvm has it: only who may not gain privileges may set up a filter."""
        found = self.run_guest(prefix=["setpriv", "--bounding-set=-all", "--inh-caps=-all"])
        self.assert_confined(found)
        self.assertEqual({int(fields["CapEff"], 16) for fields in found.values()}, {0})

    @unittest.skipUnless(os.geteuid() == 0, "only root can become somebody else")
    def test_runas(self):
        nobody = pwd.getpwnam("nobody")
        for who, gid in (("nobody", nobody.pw_gid), ("12345:54321", 54321)):
            with self.subTest(who):
                found = self.run_guest("-runas", who, "-chroot", self.folder.name)
                self.assert_confined(found)
                uid = nobody.pw_uid if who == "nobody" else 12345
                self.assertEqual({fields["Uid"] for fields in found.values()}, {"\t".join([str(uid)] * 4)})
                self.assertEqual({fields["Gid"] for fields in found.values()}, {"\t".join([str(gid)] * 4)})
                self.assertEqual({int(fields["CapEff"], 16) for fields in found.values()}, {0})


@unittest.skipIf(vmmtest.is_qemu(), "vmm's own")
@unittest.skipUnless(os.geteuid() == 0 and shutil.which("unshare") and shutil.which("setpriv"), "needs root, unshare and setpriv")
class Unusable(unittest.TestCase):
    """Where KVM is not to be had, vmm says what to do; in a mount namespace with a /dev of its own."""

    def says(self, setup, *prefix):
        run = subprocess.run(["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none /dev && {setup} && exec "$@"', "sh", *prefix,
                              os.path.abspath(vmmtest.VMM), "-m", "16", "-display", "none"], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
        if "mount:" in run.stdout or "unshare:" in run.stdout:
            self.skipTest(run.stdout.strip())
        self.assertEqual((run.returncode, run.stdout.count("\n")), (1, 1), run.stdout)
        return run.stdout

    def test_no_device(self):
        self.assertRegex(self.says("true"), "vmm: /dev/kvm is missing.*(BIOS|modprobe|module)")

    def test_no_right(self):
        said = self.says("mknod -m 600 /dev/kvm c 10 232", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        self.assertRegex(said, "vmm: no permission to open /dev/kvm: .*group kvm")


if __name__ == "__main__":
    vmmtest.main()
