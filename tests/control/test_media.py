#!/usr/bin/env python3
"""Drives over QMP: what is shown, and changing media, with QEMU's semantics and words."""

import os
import unittest

from harness import Vmm, vmmtest
from test_qmp import Schema


class Media(unittest.TestCase):
    """A disk, a CD-ROM drive, and images to put in."""

    def setUp(self):
        self.vmm = Vmm("-drive", "file=@DIR@/disk,format=raw,if=ide", "-drive",
                       "file=@DIR@/first.iso,format=raw,if=ide,media=cdrom,index=2,id=cd", "-drive",
                       "if=none,id=empty,media=cdrom", "-device", "ide-cd,drive=empty,id=cd2,bus=ide.1,unit=1", "-blockdev",
                       '{"driver":"raw","node-name":"spare","read-only":true,"file":{"driver":"file","filename":"@DIR@/spare.iso"}}',
                       prepare=self.make_images)
        self.addCleanup(self.vmm.close)
        self.qmp = self.vmm.qmp

    @staticmethod
    def make_images(folder):
        for name in ("disk", "first.iso", "second.iso", "spare.iso"):
            with open(os.path.join(folder, name), "wb") as image:
                image.write(name.encode().ljust(2048, b"\0") * 64)

    def drive(self, name):
        """The entry of query-block."""
        return {d["device"] or d["qdev"]: d for d in self.qmp.command("query-block")}[name]

    def medium(self, name):
        """The image in a drive, or None."""
        inserted = self.drive(name).get("inserted")
        return inserted and os.path.basename(inserted["image"]["filename"])

    def refused(self, pattern, command, **arguments):
        with self.assertRaisesRegex(vmmtest.QMPError, pattern) as caught:
            self.qmp.command(command, **arguments)
        return caught.exception.error_class

    def test_queries(self):
        schema = Schema(self.qmp.command("query-qmp-schema"))
        for name in ("query-block", "query-blockstats", "query-named-block-nodes"):
            schema.check(schema.entries[name]["ret-type"], self.qmp.command(name), name)
        disk = self.drive("ide0-hd0")
        self.assertFalse(disk["removable"])
        self.assertEqual(disk["inserted"]["image"]["virtual-size"], 64 * 2048)
        self.assertFalse(disk["inserted"]["ro"])
        cd = self.drive("cd")
        self.assertTrue(cd["removable"] and cd["inserted"]["ro"])
        self.assertEqual((cd["tray_open"], cd["locked"]), (False, False))
        self.assertNotIn("inserted", self.drive("empty"))
        self.assertEqual(self.drive("empty")["qdev"], "cd2")
        nodes = {n["node-name"] for n in self.qmp.command("query-named-block-nodes")}
        self.assertIn("spare", nodes)
        stats = {s["device"]: s for s in self.qmp.command("query-blockstats")}
        self.assertEqual(stats["cd"]["stats"]["wr_operations"], 0)
        self.assertIn("spare", {s["node-name"] for s in self.qmp.command("query-blockstats", query_nodes=True)})

    def test_eject_and_change(self):
        self.qmp.command("eject", device="cd")
        moved = self.qmp.wait_event("DEVICE_TRAY_MOVED")["data"]
        self.assertEqual((moved["device"], moved["tray-open"]), ("cd", True))
        self.assertTrue(moved["id"])
        self.assertIsNone(self.medium("cd"))
        self.qmp.command("eject", device="cd")  # nothing in it: fine
        self.qmp.command("blockdev-change-medium", device="cd", filename=self.vmm.path("second.iso"), format="raw")
        self.assertFalse(self.qmp.wait_event("DEVICE_TRAY_MOVED")["data"]["tray-open"])
        self.assertEqual(self.medium("cd"), "second.iso")
        # an image that cannot be opened leaves the old one in
        self.refused("/nonexistent", "blockdev-change-medium", device="cd", filename="/nonexistent/x.iso")
        self.assertEqual(self.medium("cd"), "second.iso")
        self.assertFalse(self.drive("cd")["tray_open"])

    def test_steps(self):
        qmp = self.qmp
        self.refused("Tray of device '.*' is not open", "blockdev-remove-medium", id="cd2")
        qmp.command("blockdev-open-tray", id="cd2")
        self.assertTrue(self.drive("empty")["tray_open"])
        qmp.command("blockdev-open-tray", id="cd2")
        self.refused("Node 'nope' not found", "blockdev-insert-medium", id="cd2", node_name="nope")
        qmp.command("blockdev-insert-medium", id="cd2", node_name="spare")
        self.assertEqual(self.medium("empty"), "spare.iso")
        self.refused("already", "blockdev-insert-medium", id="cd2", node_name="spare")
        qmp.command("blockdev-close-tray", id="cd2")
        self.assertFalse(self.drive("empty")["tray_open"])
        qmp.command("blockdev-open-tray", id="cd2")
        qmp.command("blockdev-remove-medium", id="cd2")
        self.assertIsNone(self.medium("empty"))

    def test_refused(self):
        self.assertEqual(self.refused("Device 'nope' not found", "eject", device="nope"), "DeviceNotFound")
        self.assertEqual(self.refused("Device 'nope' not found", "eject", id="nope"), "DeviceNotFound")
        self.refused("exactly one of 'device' and 'id'", "eject")
        self.refused("exactly one of 'device' and 'id'", "eject", device="cd", id="cd2")
        for command in ("eject", "blockdev-open-tray", "blockdev-close-tray"):
            self.refused("Device 'ide0-hd0' is not removable", command, device="ide0-hd0")
        self.refused("does not accept value 'rw'", "blockdev-change-medium", device="cd", filename="x", read_only_mode="rw")
        self.assertEqual(self.medium("cd"), "first.iso")


class Reopen(unittest.TestCase):
    """blockdev-reopen: what the kernel says of the open file is what counts."""

    def setUp(self):
        self.vmm = Vmm("-blockdev", "driver=file,node-name=file,filename=@DIR@/disk", "-blockdev", "driver=raw,node-name=raw,file=file",
                       "-blockdev", "driver=file,node-name=cdfile,filename=@DIR@/first.iso,read-only=on",
                       "-blockdev", "driver=raw,node-name=cdraw,file=cdfile,read-only=on",
                       "-drive", "file=@DIR@/second.iso,format=raw,if=none,id=drive,node-name=drive-node",
                       "-device", "ide-cd,drive=cdraw,id=cd", prepare=Media.make_images)
        self.addCleanup(self.vmm.close)
        self.qmp = self.vmm.qmp

    def node(self, name, file, **more):
        more = {key.replace("_", "-"): value for key, value in more.items()}
        return {"driver": "file", "node-name": name, "filename": self.vmm.path(file), **more}

    def reopen(self, *options):
        self.qmp.execute("blockdev-reopen", {"options": options})

    def flags(self, file):
        """Of the open file: O_RDONLY, O_RDWR, O_DIRECT."""
        fds = f"/proc/{self.vmm.pid}/fd"
        found = [fd for fd in os.listdir(fds) if os.path.realpath(f"{fds}/{fd}") == os.path.realpath(self.vmm.path(file))]
        self.assertEqual(len(found), 1, found)
        with open(f"/proc/{self.vmm.pid}/fdinfo/{found[0]}", encoding="ascii") as info:
            return int(next(line.split()[1] for line in info if line.startswith("flags:")), 8)

    def read_only(self, name):
        return next(n["ro"] for n in self.qmp.command("query-named-block-nodes") if n["node-name"] == name)

    def locked_against_writers(self, file):
        """Would another vmm get it for writing?"""
        with Vmm() as other:
            try:
                other.qmp.execute("blockdev-add", self.node("x", file) | {"filename": self.vmm.path(file)})
                return False
            except vmmtest.QMPError as error:
                self.assertIn("lock", error.desc)
                return True

    def readable_for_others(self, file):
        with Vmm() as other:
            try:
                other.qmp.execute("blockdev-add", self.node("x", file, read_only=True))
                return True
            except vmmtest.QMPError:
                return False

    def test_read_only_and_back(self):
        self.assertEqual(self.flags("disk") & os.O_ACCMODE, os.O_RDWR)
        self.assertFalse(self.readable_for_others("disk"))
        self.reopen(self.node("file", "disk", read_only=True))
        self.assertEqual(self.flags("disk") & os.O_ACCMODE, os.O_RDONLY)
        self.assertTrue(self.read_only("file") and self.read_only("raw"), "the format on it is no better")
        self.assertTrue(self.readable_for_others("disk"), "the lock has become a reader's")
        self.assertTrue(self.locked_against_writers("disk"))
        self.reopen(self.node("file", "disk"))
        self.assertEqual(self.flags("disk") & os.O_ACCMODE, os.O_RDWR)
        self.assertFalse(self.read_only("file") or self.read_only("raw"))
        self.assertFalse(self.readable_for_others("disk"))

    def test_somebody_else_reads(self):
        """Going back to writing fails while there is another reader, and all stays as it was."""
        self.reopen(self.node("file", "disk", read_only=True))
        with Vmm() as other:
            other.qmp.execute("blockdev-add", self.node("x", "disk", read_only=True))
            with self.assertRaisesRegex(vmmtest.QMPError, 'Failed to get .*"write" lock'):
                self.reopen(self.node("file", "disk"))
            self.assertEqual(self.flags("disk") & os.O_ACCMODE, os.O_RDONLY)
            self.assertTrue(self.locked_against_writers("disk"), "our own lock is there again")
        self.reopen(self.node("file", "disk"))

    def test_cache_and_engine(self):
        try:
            self.reopen(self.node("file", "disk", cache={"direct": True}, aio="native"))
        except vmmtest.QMPError as error:
            self.assertIn("does not support O_DIRECT", error.desc)
            self.skipTest("no O_DIRECT here")
        self.assertTrue(self.flags("disk") & os.O_DIRECT)
        nodes = {n["node-name"]: n for n in self.qmp.command("query-named-block-nodes")}
        self.assertTrue(nodes["file"]["cache"]["direct"] and nodes["raw"]["cache"]["direct"])
        self.reopen(self.node("file", "disk", cache={"no-flush": True}))
        self.assertFalse(self.flags("disk") & os.O_DIRECT, "what is not given goes back to its default")
        nodes = {n["node-name"]: n for n in self.qmp.command("query-named-block-nodes")}
        self.assertEqual(nodes["file"]["cache"], {"writeback": True, "direct": False, "no-flush": True})

    def test_a_writer_and_a_reader_on_top(self):
        # A CD-ROM drive does not mind.
        self.reopen({"driver": "raw", "node-name": "cdraw", "file": "cdfile"}, self.node("cdfile", "first.iso"))
        self.assertFalse(self.read_only("cdraw"))
        self.reopen(self.node("cdfile", "first.iso", read_only=True))
        with Vmm("-blockdev", "driver=file,node-name=file,filename=@DIR@/disk", "-blockdev", "driver=raw,node-name=raw,file=file",
                 "-device", "ide-hd,drive=raw", prepare=Media.make_images) as vmm:
            for name, options in (("file", {"driver": "file", "node-name": "file", "filename": vmm.path("disk"), "read-only": True}),
                                  ("raw", {"driver": "raw", "node-name": "raw", "file": "file", "read-only": True})):
                with self.assertRaisesRegex(vmmtest.QMPError,
                                            f"Read-only block node '{name}' cannot support read-write users"):
                    vmm.qmp.execute("blockdev-reopen", {"options": [options]})

    def test_all_or_none(self):
        with self.assertRaisesRegex(vmmtest.QMPError, "Failed to find node with node-name='nope'"):
            self.reopen(self.node("file", "disk", read_only=True), self.node("cdfile", "first.iso"), self.node("nope", "disk"))
        self.assertFalse(self.read_only("file"))
        self.assertTrue(self.read_only("cdfile"))
        self.assertEqual(self.flags("first.iso") & os.O_ACCMODE, os.O_RDONLY)
        self.reopen()

    def test_mistakes(self):
        before = self.vmm.fds()
        os.rename(self.vmm.path("first.iso"), self.vmm.path("gone.iso"))
        for pattern, options in (
                ("node-name not specified", {"driver": "file", "filename": self.vmm.path("disk")}),
                ("Cannot change the option 'filename'", self.node("file", "second.iso")),
                ("Cannot change the option 'driver'", {**self.node("file", "disk"), "driver": "host_device"}),
                ("Cannot change the option 'locking'", self.node("file", "disk", locking="off")),
                ("Cannot change the option 'file'", {"driver": "raw", "node-name": "raw", "file": "cdfile"}),
                ("'file' is missing", {"driver": "raw", "node-name": "raw"}),
                ("requires cache.direct=on", self.node("file", "disk", aio="native")),
                ("detect-zeroes to unmap is not allowed", self.node("file", "disk", detect_zeroes="unmap")),
                ("not owned by the monitor", {"driver": "raw", "node-name": "drive-node", "file": "x"}),
                ("Invalid parameter type for 'options.0.', expected: object", 5),
                ("No such file", self.node("cdfile", "first.iso")),
                ("bogus", self.node("file", "disk", bogus=1))):
            with self.subTest(pattern), self.assertRaisesRegex(vmmtest.QMPError, pattern):
                self.reopen(options)
        with open(self.vmm.path("first.iso"), "wb") as another:
            another.write(bytes(4096))
        with self.assertRaisesRegex(vmmtest.QMPError, "another file than the one that is open"):
            self.reopen(self.node("cdfile", "first.iso"))
        os.rename(self.vmm.path("gone.iso"), self.vmm.path("first.iso"))
        self.assertEqual(self.vmm.fds(), before)


if __name__ == "__main__":
    vmmtest.main()
