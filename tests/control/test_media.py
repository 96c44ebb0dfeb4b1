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


if __name__ == "__main__":
    vmmtest.main()
