#!/usr/bin/env python3
"""Network cards: from files to vmm, attached and detached, the networks they are on, what they move.

Where root allows it the tests run in network and mount namespaces of their own, with a bridge in them.
"""

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import unittest

import ctltest
from ctltest import FAILED, USAGE, vmmtest

QEMU_HELPER = "/usr/lib/qemu/qemu-bridge-helper"
HELPER = os.path.join(os.path.dirname(ctltest.VMMCTL), "vmm-bridge-helper")
MODULES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(ctltest.VMMCTL))), "modules")
MAC = r"52:54:00:[0-9a-f:]{8}"
SETUP = """mount -t sysfs none /sys && ip link set lo up && ip link add br0 type bridge && ip link set br0 up || exit 77
exec "$@"
"""


def own_network():
    """Run again in namespaces; returns where that cannot be."""
    if os.geteuid() or "VMM_TEST_BRIDGE" in os.environ:
        return
    alone = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", SETUP, "sh"]
    if subprocess.run(alone + ["true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
        return
    os.environ["VMM_TEST_BRIDGE"] = "br0"
    os.execvp(alone[0], alone + [sys.executable, *sys.argv])


class Case(ctltest.Case):
    def networks(self, *guests):
        """{(guest, nic): row}"""
        return {(row["guest"], row["nic"]): row for row in self.json("vnet-list", *guests)}

    def info(self, subject, name="web"):
        return self.ctl("qmp", name, "human-monitor-command", f"command-line=info {subject}")


@unittest.skipUnless(os.path.exists(os.path.join(MODULES, "vmm-slirp.so")), "built without libslirp")
class User(Case):
    """A network of the guest's own."""

    def test_from_a_file(self):
        port = ctltest.free_port()
        self.create(more=f"[nic]\nforward = tcp:127.0.0.1:{port}-:22\n[nic]\nmodel = virtio\nmac = 52:54:00:00:00:07\n")
        rows = self.networks()
        self.assertEqual(set(rows), {("web", "nic0"), ("web", "nic1")})
        first = rows["web", "nic0"]
        self.assertEqual((first["network"], first["type"], first["link"]), ("10.0.2.0", "user", "up"))
        self.assertRegex(first["mac"], MAC)
        self.assertEqual(rows["web", "nic1"]["mac"], "52:54:00:00:00:07")
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass
        self.assertIn("HOST_FORWARD", self.info("usernet"))
        # The same address at each start, another one for another guest.
        self.create("db", more="[nic]\n")
        self.ctl("destroy", "web")
        self.wait_gone("web")
        self.create(more="[nic]\n")
        again = self.networks()
        self.assertEqual(again["web", "nic0"]["mac"], first["mac"])
        self.assertNotEqual(again["db", "nic0"]["mac"], first["mac"])
        self.assertEqual(set(self.networks("db")), {("db", "nic0")})
        self.assertRegex(self.ctl("vnet-list"), r"NETWORK +TYPE .*\n10\.0\.2\.0 +user +- +db +nic0 ")

    def test_none(self):
        self.create()
        self.assertEqual(self.networks(), {})
        self.assertNotIn("type=", self.info("network"))

    def test_rates(self):
        self.create(more="[nic]\n")
        self.create("db")
        rows = {row["name"]: row for row in self.json("top", "--count", "2", "--delay", "0.1")}
        self.assertEqual((rows["web"]["received"], rows["web"]["sent"]), (0, 0))
        self.assertNotIn("received", rows["db"])
        self.assertRegex(self.ctl("top", "--batch", "--count", "2", "--delay", "0.1"), "RX/KiB +TX/KiB")

    def test_attach_and_detach(self):
        self.create(more="[nic]\n")
        port = ctltest.free_port()
        self.refused(USAGE, "forward= is for a card without", "attach", "web", f"nic,forward=tcp::{port}-:22,bridge=br0")
        self.refused(USAGE, "not found", "attach", "web", "nic,speed=10")
        self.refused(FAILED, "nosuch", "attach", "web", "nic,model=nosuch")
        self.assertNotIn("nic1", self.info("network"))    # and its network is gone again
        nic = self.json("attach", "web", f"nic,model=virtio,forward=tcp:127.0.0.1:{port}-:22")
        self.assertEqual(nic["id"], "nic1")
        row = self.networks()["web", "nic1"]
        self.assertEqual((row["type"], row["mac"]), ("user", nic["mac"]))
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass
        self.assertEqual(self.ctl("attach", "web", "nic,id=spare").strip(), "spare")
        self.eject("nic1")
        self.assertNotIn(("web", "nic1"), self.networks())
        self.assertNotIn("nic1", self.info("network"))
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)
        # its name is free again
        self.assertEqual(self.ctl("attach", "web", "nic").strip(), "nic1")

    def eject(self, nic):
        """Detach, with a guest that lets go as Linux would: of whatever slot it is asked for."""
        board = self.board()
        with self.background("detach", "web", nic) as detach:
            asked = vmmtest.poll(lambda: board.number("inl 0xae04"), 10, "the guest to be asked")
            board.ask(f"outl 0xae08 {asked:#x}")
            self.assertEqual(detach.wait(20), 0)

    def test_clone(self):
        self.config("db", folder="etc", more="[nic]\nmac = 52:54:00:00:00:01\nmodel = virtio\n[nic]\n")
        self.ctl("clone", "db", "db2")
        lines = [self.ctl("create", "-n", name) for name in ("db", "db2")]
        macs = [re.findall(f"mac=({MAC})", line) for line in lines]
        self.assertEqual([len(m) for m in macs], [2, 2])
        self.assertEqual(macs[0][0], "52:54:00:00:00:01")
        self.assertEqual(len(set(macs[0] + macs[1])), 4)

    def test_bad(self):
        self.refused(FAILED, "vmm did not start: .*Invalid host forwarding rule", "create",
                     self.config(more="[nic]\nforward = tcp:x:1-:2\n"))
        self.assertEqual(self.names(), [])


@unittest.skipUnless(os.environ.get("VMM_TEST_BRIDGE"), "needs root, and network namespaces")
class Bridge(Case):
    """A tap on a bridge of the host."""

    def ports(self):
        return set(os.listdir("/sys/class/net/br0/brif"))

    def test_from_files(self):
        self.create(more="[nic]\nbridge = br0\n")
        row = self.networks()["web", "nic0"]
        self.assertEqual((row["network"], row["type"]), ("br0", "bridge"))
        self.assertEqual({row["interface"]}, self.ports())
        with open(f"/sys/class/net/{row['interface']}/address", encoding="ascii") as stream:
            self.assertTrue(stream.read().startswith("fe:"))    # the bridge keeps its own
        xen = self.write("xp.hvm", "builder = 'hvm'\nname = 'xp'\nmemory = 4\nvnc = 0\nvif = [ 'type=ioemu, bridge=br0' ]\n")
        self.ctl("create", xen, "extra=-accel qtest " + os.environ.get("VMM_TEST_ARGS", ""))
        self.assertEqual(len(self.ports()), 2)
        self.assertEqual({key for key, r in self.networks().items() if r["network"] == "br0"}, {("web", "nic0"), ("xp", "nic0")})
        # The tap goes with the guest.
        for name in ("web", "xp"):
            self.ctl("destroy", name)
            self.wait_gone(name)
        vmmtest.poll(lambda: not self.ports(), 10, "the taps to go")

    def test_attach(self):
        self.create()
        self.assertEqual(self.ctl("attach", "web", "nic,bridge=br0,model=virtio").strip(), "nic0")
        row = self.networks()["web", "nic0"]
        self.assertEqual((row["network"], {row["interface"]}), ("br0", self.ports()))
        self.refused(FAILED, "there is no bridge nosuch|could not make a tap on the bridge nosuch", "attach", "web",
                     "nic,bridge=nosuch")
        self.assertEqual(set(self.networks()), {("web", "nic0")})
        board = self.board()
        with self.background("detach", "web", "nic0") as detach:
            asked = vmmtest.poll(lambda: board.number("inl 0xae04"), 10, "the guest to be asked")
            board.ask(f"outl 0xae08 {asked:#x}")
            self.assertEqual(detach.wait(20), 0)
        vmmtest.poll(lambda: not self.ports(), 10, "the tap to go")

    @unittest.skipUnless(vmmtest.has_module("slirp") and vmmtest.has_module("vnc"), "built without libslirp or VNC")
    def test_examples_of_the_manual(self):
        """vmm.conf(5)'s files, as they are but for the directory: on this host everything they name is there."""
        ours, xen = ctltest.manual_examples("vmm.conf.5")
        for name in ("web.img", "winxp.img", "winxp.iso"):
            with open(self.path(name), "wb") as image:
                image.truncate(1 << 20)
        qtest = "extra=-accel qtest " + os.environ.get("VMM_TEST_ARGS", "")
        self.ctl("create", self.write("web.vmm", ours), qtest)
        self.ctl("create", self.write("winxp.hvm", xen.replace("/srv/", self.path(""))), qtest)
        rows = {row["name"]: row for row in self.json("list")}
        self.assertEqual([(rows[name]["memory"], rows[name]["vcpus"], rows[name]["state"]) for name in ("web", "winxp")],
                         [(512, 2, "running"), (512, 1, "running")])
        self.assertEqual({key: row["network"] for key, row in self.networks("web").items()},
                         {("web", "nic0"): "br0", ("web", "nic1"): "10.0.2.0"})
        self.assertEqual(self.ctl("console", "--print", "web"), "127.0.0.1::5905\n")
        with socket.create_connection(("127.0.0.1", 2222), timeout=10):
            pass
        self.assertIn("winxp.img", self.info("block", "winxp"))

    @unittest.skipUnless(os.path.exists(QEMU_HELPER) and shutil.which("runuser"), "no qemu-bridge-helper, or no runuser")
    def test_ordinary_user(self):
        """Who may make no taps has them from QEMU's helper, set-uid as an administrator makes it, if its list allows the bridge."""
        # A host as Debian's, in this mount namespace: the helper set-uid, its list, and everybody may open /dev/net/tun.
        etc = self.path("etc.overlay")
        for folder in ("", "/upper", "/work", "/upper/qemu"):
            os.mkdir(etc + folder)
        self.write("bridge.conf", "allow br1\n", "etc.overlay/upper/qemu")
        shutil.copy(QEMU_HELPER, self.path("helper"))
        os.chmod(self.path("helper"), 0o4755)
        os.mknod(self.path("tun"), stat.S_IFCHR | 0o666, os.stat("/dev/net/tun").st_rdev)
        os.chmod(self.path("tun"), 0o666)
        for words in (["--bind", self.path("helper"), QEMU_HELPER], ["--bind", self.path("tun"), "/dev/net/tun"],
                      ["-t", "overlay", "-o", f"lowerdir=/etc,upperdir={etc}/upper,workdir={etc}/work", "none", "/etc"]):
            if subprocess.run(["mount", *words], check=False).returncode:
                self.skipTest(f"cannot mount {words[-1]}")
            self.addCleanup(subprocess.run, ["umount", "-l", words[-1]], check=True)
        os.chmod(self.dir, 0o755)
        for folder in ("run", "log"):
            os.mkdir(self.path(folder))
        self.config(more="[nic]\nbridge = br0\n")
        for path, folders, _ in os.walk(self.dir):
            for name in [""] + [folder for folder in folders if "etc" not in path + folder]:
                shutil.chown(os.path.join(path, name), "nobody")
        if subprocess.run(["runuser", "-u", "nobody", "--", ctltest.VMMCTL, "--version"], stdout=subprocess.DEVNULL, check=False).returncode:
            self.skipTest("nobody cannot reach the build directory")

        def user(*args):
            return subprocess.run(["runuser", "-u", "nobody", "--", ctltest.VMMCTL, *args], env=self.env, cwd=self.dir, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60 * vmmtest.SLOW, check=False)

        done = user("create", "web.vmm")
        self.assertEqual(done.returncode, FAILED, done.stderr)
        self.assertRegex(done.stderr, "vmm did not start: .*bridge helper failed")
        self.assertIn("access denied by acl file", self.log())       # in its own words
        self.write("bridge.conf", "allow br0\n", "etc.overlay/upper/qemu")
        done = user("create", "web.vmm")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotEqual(os.stat(f"/proc/{self.pid()}").st_uid, 0)
        row = self.networks()["web", "nic0"]
        self.assertEqual((row["network"], {row["interface"]}), ("br0", self.ports()))
        done = user("attach", "web", "nic,bridge=br0")
        self.assertEqual((done.returncode, done.stdout), (0, "nic1\n"), done.stderr)
        self.assertEqual({r["interface"] for r in self.networks().values()}, self.ports())
        self.assertEqual(len(self.ports()), 2)
        self.assertEqual(user("destroy", "web").returncode, 0)
        vmmtest.poll(lambda: not self.ports(), 10, "the taps to go")

    def test_no_bridge(self):
        self.refused(FAILED, "vmm did not start: .*nosuch", "create", self.config(more="[nic]\nbridge = nosuch\n"))
        self.assertEqual(self.names(), [])

    def test_helper_refuses(self):
        for words in ([], ["--br=br0"], ["--br=br0", "--fd=2"], ["--br=" + "x" * 20, "--fd=3"], ["--br=br0", "--fd=3", "--what"]):
            done = subprocess.run([HELPER, *words], stderr=subprocess.PIPE, text=True, check=False)
            self.assertEqual(done.returncode, 2, words)
            self.assertIn("usage:", done.stderr)


if __name__ == "__main__":
    own_network()
    vmmtest.main()
