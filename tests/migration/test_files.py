"""Saved guests: to a file and back, while the guest runs, many from one; and files that were damaged."""

import argparse
import lzma
import os
import re
import shutil
import subprocess
import tempfile
import unittest
import unittest.mock

import mig
import vmmtest
from test_described import Bare


RELEASED = ("0.1",)         # a fixture each of a saved guest and of a stream
IOPL = 0x3000
TRAVELLER = {"memory": 16, "start": 8, "size": 2, "cpus": 2, "quiet": 0}


class Files(vmmtest.TestCase):
    """migrate file:PATH and -incoming file:PATH."""

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.path = os.path.join(self.dir.name, "guest.vmm")

    def saved(self, **options):
        """Save a dirtier; its options."""
        with mig.Dirtier(**options) as a:
            a.running()
            a.qmp.command("migrate", uri=f"file:{self.path}")
            self.assertEqual(a.migration()["status"], "completed")
            self.assertEqual(a.status(), "postmigrate")
            self.assertEqual(os.listdir(self.dir.name), ["guest.vmm"])
            return a

    def restored(self, uri, *args, like):
        """A bare vmm from the file."""
        b = Bare(uri, *args, like=like)
        try:
            b.meet()
            vmmtest.poll(lambda: b.status() == "running", 20, "the guest to run")
        except BaseException:
            b.close()
            raise
        return b

    def test_save_and_restore(self):
        """Every way of mapping; zero pages take no room in the file."""
        like = self.saved(memory=256, size=16)
        stat = os.stat(self.path)
        self.assertGreater(stat.st_size, 256 << 20)
        self.assertLess(stat.st_blocks * 512, 40 << 20)
        for way in ("", ",map=eager", ",map=lazy", ",map=private"):
            with self.subTest(way=way), self.restored(f"file:{self.path}{way}", like=like) as b:
                b.alive()
                self.assertEqual(b.migration("completed")["status"], "completed")
                b.alive()

    def test_command_line_and_lazily(self):
        """With the machine on the command line, deferred, mapped-ram for pages on demand; and saved once more."""
        like = self.saved(cpus=2)
        with mig.twin(like, incoming="defer", irqchip="split") as b:
            b.caps(mapped_ram=True)
            b.qmp.command("migrate-incoming", uri=f"file:{self.path}")
            b.migration("completed")
            b.alive()
            b.qmp.command("migrate", uri=f"file:{self.path}2")
            self.assertEqual(b.migration()["status"], "completed")
        with self.restored(f"file:{self.path}2", like=like) as c:
            c.alive()

    def test_other_machine(self):
        """Another machine is refused by name."""
        like = self.saved()
        with mig.twin(like, incoming="defer", memory=96) as b:
            b.qmp.command("migrate-incoming", uri=f"file:{self.path}")
            self.assertEqual(b.wait_exit(), 1)
            self.assertIn("64 MiB", b.stderr())

    def test_other_processors(self):
        """The guest keeps the features it had, and does not run where one of them is missing."""
        if mig.xxh3(b"") is None:
            self.skipTest("no libxxhash")
        like = self.saved(memory=16, size=2, start=8)
        with open(self.path, "rb") as f:
            whole = f.read()
        for feature, other in (("cx16", "    "), ("cx16", "ia64")):       # no KVM offers a guest the latter
            with open(self.path, "wb") as f:
                f.write(mig.redescribe(whole, f" {feature} ".encode(), f" {other} ".encode()))
            for way in ("eager", "lazy"):
                uri = f"file:{self.path},map={way}"
                with self.subTest(way=way, other=other):
                    if other.strip():
                        with Bare(uri, like=like) as b:
                            self.assertEqual(b.wait_exit(), 1)
                            self.assertRegex(b.stderr(), f"features that it has not here: {other}")
                        continue
                    with self.restored(uri, like=like) as b:
                        b.alive()
                        b.migration("completed")
                        b.qmp.command("migrate", uri=f"file:{self.path}2")
                        self.assertEqual(b.migration()["status"], "completed")
                    with open(f"{self.path}2", "rb") as f:
                        head = f.read(1 << 16)
                    self.assertIn(b" sse2 ", head)
                    self.assertNotIn(feature.encode(), head)

    def test_checkpoint(self):
        """The guest goes on; each file holds its moment, whole."""
        with mig.Dirtier(cpus=2, memory=96, size=32) as a:
            a.running()
            a.caps(background_snapshot=True, events=True)
            for n in range(3):
                a.qmp.command("migrate", uri=f"file:{self.path}{n}")
                info = a.migration()
                self.assertEqual(info["status"], "completed", info)
                self.assertEqual(a.status(), "running")
            a.alive()
            last = 0
            for n in range(3):
                with self.restored(f"file:{self.path}{n}", like=a) as b:
                    rounds = int(b.serial.wait_for(r"round (\d+)\r", 60)[1])
                    self.assertGreaterEqual(rounds, last)
                    last = rounds
                    b.check()

    def test_template(self):
        """Two at a time from one file, each with memory of its own."""
        with mig.Dirtier("-device", "isa-debug-exit,id=leave,iobase=0x504", memory=128, size=16) as like:
            like.running()
            like.qmp.command("migrate", uri=f"file:{self.path}")
            like.migration("completed")
        with self.restored(f"file:{self.path},map=private", "-name", "one", "-set", "device.leave.iobase=0x508",
                           like=like) as b, \
                self.restored(f"file:{self.path},map=private", "-name", "two", "-uuid",
                              "11111111-2222-3333-4444-555555555555", like=like) as c:
            self.assertEqual(b.qmp.command("query-name")["name"], "one")
            self.assertEqual(b.qmp.command("qom-get", path="/machine/peripheral/leave", property="iobase"), 0x508)
            self.assertEqual(c.qmp.command("query-uuid")["UUID"], "11111111-2222-3333-4444-555555555555")
            b.alive()
            c.alive()
            self.assertEqual(b.migration("completed")["status"], "completed")
            with Bare(f"file:{self.path}", "-set", "device.nobody.iobase=1", like=like) as nobody:
                self.assertEqual(nobody.wait_exit(), 1)
                self.assertIn("no device 'nobody'", nobody.stderr())
            b.caps(background_snapshot=True)
            with self.assertRaisesRegex(vmmtest.QMPError, "map=private.*migrate it first"):
                b.qmp.command("migrate", uri=f"file:{self.path}-b")
            b.caps(background_snapshot=False)
            # And one moves on: then its memory is its own, and a checkpoint is possible.
            listen = os.path.join(self.dir.name, "m")
            with Bare(f"unix:{listen}", like=like) as d:
                vmmtest.poll(lambda: os.path.exists(listen), 20)
                b.qmp.command("migrate", uri=f"unix:{listen}")
                mig.moved(self, b, d.meet())
                d.migration("completed")        # it runs; its last step may still be ahead
                d.caps(background_snapshot=True)
                d.qmp.command("migrate", uri=f"file:{self.path}-d")
                self.assertEqual(d.migration("completed", "failed")["status"], "completed")
                d.alive()
            c.alive()

    @unittest.skipUnless(os.environ.get("VMM_TEST_LONG"), "VMM_TEST_LONG=1")
    def test_firmware_in_mid_boot(self):
        """SeaBIOS, saved while it boots: it goes on with the ROMs it had, from the file, on demand; and after a reset."""
        with vmmtest.Guest("-vga", "std", memory=64) as a:
            vmmtest.poll(lambda: "SeaBIOS" in a.screen_text(), 60, "the firmware's first words")
            a.qmp.execute("migrate-set-capabilities", {"capabilities": [{"capability": "background-snapshot", "state": True}]})
            a.qmp.command("migrate", uri=f"file:{self.path}")
            vmmtest.poll(lambda: a.qmp.command("query-migrate")["status"] == "completed", 60, "the checkpoint")
            a.options = {}
            with Bare(f"file:{self.path},map=lazy", "-L", "/nonexistent", like=a) as b:
                b.meet()
                vmmtest.poll(lambda: "No bootable device" in b.screen_text(), 60, "the end of the boot")
                b.qmp.command("system_reset")
                vmmtest.poll(lambda: "No bootable device" not in b.screen_text(), 60, "the reset")
                vmmtest.poll(lambda: "No bootable device" in b.screen_text(), 60, "the end of the next boot")
            vmmtest.poll(lambda: "No bootable device" in a.screen_text(), 60, "the original's boot")

    def test_damaged(self):
        """A cut file and flipped bits: refused, or (lazily) the guest stops before it sees them."""
        like = self.saved(memory=32, size=8, start=16)
        size = os.path.getsize(self.path)
        with open(self.path, "rb") as f:
            whole = f.read()
        bad = self.path + ".bad"
        memory = next(at for at in range(20 << 20, size) if whole[at])  # zero pages may hold anything
        for name, change in (
                ("empty", lambda d: b""),
                ("no guest", lambda d: b"\x7fELF" + d[4:]),
                ("head cut", lambda d: d[:1000]),
                ("cut", lambda d: d[:-1]),
                ("longer", lambda d: d + b"x"),
                ("description", lambda d: d[:200] + bytes([d[200] ^ 1]) + d[201:]),
                ("memory", lambda d: d[:memory] + bytes([d[memory] ^ 1]) + d[memory + 1:]),
                ("state", lambda d: d[:-50] + bytes([d[-50] ^ 4]) + d[-49:])):
            with self.subTest(name=name):
                with open(bad, "wb") as f:
                    f.write(change(whole))
                with Bare(f"file:{bad}", like=like) as b:
                    self.assertEqual(b.wait_exit(), 1)
                    self.assertRegex(b.stderr(), "damaged|cut off|magic")
        with open(bad, "wb") as f:
            f.write(whole[:memory] + bytes([whole[memory] ^ 1]) + whole[memory + 1:])
        for way in ("lazy", "private"):
            with self.subTest(name=way), Bare(f"file:{bad},map={way}", like=like) as b:
                b.meet()
                vmmtest.poll(lambda: b.status() == "internal-error", 20, "the guest to stop")
                vmmtest.poll(lambda: "damaged" in b.info().get("error-desc", ""), 20, "the reason")
                if way == "lazy":
                    self.assertNotIn("FAIL", b.serial.text())

    def released(self, name):
        """A fixture, unpacked; VMM_GOLDEN=write makes one that is not there yet, from a guest of this version."""
        path = os.path.join(mig.HERE, "fixtures", f"{name}.xz")
        if os.environ.get("VMM_GOLDEN") == "write" and not os.path.exists(path):
            kernel = os.path.join(self.dir.name, "dirtier")     # without the names of this host's directories
            subprocess.run(["strip", "-o", kernel, mig.assets.payload("dirtier")], check=True)
            with unittest.mock.patch.object(mig.assets, "payload", lambda name: kernel), \
                    mig.Dirtier("-sandbox", "off", **TRAVELLER) as a:
                a.running()
                a.qmp.command("stop")
                a.qmp.command("migrate", uri=f"file:{self.path}" if name.startswith("saved") else f"exec:cat > {self.path}")
                self.assertEqual(a.migration()["status"], "completed")
                vmmtest.poll(lambda: os.path.getsize(self.path), 20)
            with open(self.path, "rb") as made, lzma.open(path, "wb", preset=9) as out:
                shutil.copyfileobj(made, out)
        with lzma.open(path) as packed, open(self.path, "wb") as out:
            shutil.copyfileobj(packed, out)

    def test_released_versions(self):
        """Saved guests and streams of earlier versions arrive whole, and go on."""
        names = sorted({f"{kind}-{version}" for kind in ("saved", "stream") for version in RELEASED})
        for name in names:
            with self.subTest(name=name):
                self.released(name)
                with Bare(f"file:{self.path}", like=argparse.Namespace(options=TRAVELLER)) as b:
                    b.meet()
                    b.migration("completed")
                    self.assertEqual(b.status(), "paused")
                    # QEMU's emulator gives CPL 3 its ports by IOPL alone after a migration (start.S); guests of 0.1 had IOPL 0.
                    registers = b.qmp.execute("human-monitor-command", {"command-line": "info registers -a"})
                    flags = [int(f, 16) for f in re.findall(r"RFL=(\w+) CPL=3", registers)]
                    if mig.assets.host_is_tcg() and not all(f & IOPL for f in flags):
                        self.skipTest("the guest has arrived, but QEMU's emulator takes its ports away")
                    b.qmp.command("cont")
                    b.alive()

    def test_nowhere(self):
        """A file that cannot be written: the guest stays, nothing is left behind."""
        with mig.Dirtier(rate=16000) as a:
            a.running()
            with self.assertRaisesRegex(vmmtest.QMPError, "cannot create"):
                a.qmp.command("migrate", uri=f"file:{self.dir.name}/no/where")
            for live in (False, True):
                a.caps(background_snapshot=live)
                os.mkdir(self.path)
                a.qmp.command("migrate", uri=f"file:{self.path}")
                info = mig.stayed(self, a)
                self.assertIn("rename", info["error-desc"])
                os.rmdir(self.path)
            self.assertEqual(os.listdir(self.dir.name), [])


if __name__ == "__main__":
    vmmtest.main()
