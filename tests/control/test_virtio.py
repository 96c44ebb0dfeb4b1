#!/usr/bin/env python3
"""Virtio devices from the operator's side: balloon, statistics, random sources."""

import unittest

from harness import Vmm, vmmtest


class Balloon(unittest.TestCase):
    """No guest drives it here: what can be asked, and how it is refused."""

    def test_target_and_size(self):
        with Vmm("-m", "64", "-device", "virtio-balloon-pci,id=b") as vmm:
            self.assertEqual(vmm.qmp.command("query-balloon"), {"actual": 64 << 20})
            vmm.qmp.command("balloon", value=32 << 20)
            self.assertEqual(vmm.qmp.command("query-balloon"), {"actual": 64 << 20})  # no driver yet
            for value in (0, -1):
                with self.assertRaisesRegex(vmmtest.QMPError, "Parameter 'target' expects a size"):
                    vmm.qmp.command("balloon", value=value)
            text = vmm.qmp.execute("human-monitor-command", {"command-line": "info balloon"})
            self.assertEqual(text.strip(), "balloon: actual=64")

    def test_there_is_none(self):
        with Vmm() as vmm:
            for name, arguments in (("query-balloon", {}), ("balloon", {"value": 1 << 20})):
                with self.assertRaisesRegex(vmmtest.QMPError, "No balloon device has been activated") as caught:
                    vmm.qmp.command(name, **arguments)
                self.assertEqual(caught.exception.error_class, "DeviceNotActive")

    def test_statistics(self):
        with Vmm("-device", "virtio-balloon-pci,id=b") as vmm:
            path = "/machine/peripheral/b"
            stats = vmm.qmp.command("qom-get", path=path, property="guest-stats")
            self.assertEqual(stats["last-update"], 0)
            self.assertEqual(stats["stats"]["stat-free-memory"], -1)
            self.assertEqual(vmm.qmp.command("qom-get", path=path, property="guest-stats-polling-interval"), 0)
            vmm.qmp.command("qom-set", path=path + "/virtio-backend", property="guest-stats-polling-interval", value=5)
            self.assertEqual(vmm.qmp.command("qom-get", path=path, property="guest-stats-polling-interval"), 5)
            with self.assertRaisesRegex(vmmtest.QMPError, "greater than zero"):
                vmm.qmp.command("qom-set", path=path, property="guest-stats-polling-interval", value=-3)


class Random(unittest.TestCase):
    """Sources come and go with object-add and object-del."""

    def test_a_source_in_use_stays(self):
        with Vmm("-object", "rng-random,id=r,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=r,id=d") as vmm:
            with self.assertRaisesRegex(vmmtest.QMPError, "object 'r' is in use, can not be deleted"):
                vmm.qmp.execute("object-del", {"id": "r"})
            vmm.qmp.execute("object-add", {"qom-type": "rng-builtin", "id": "spare"})
            vmm.qmp.execute("object-del", {"id": "spare"})
            vmm.qmp.execute("object-add", {"qom-type": "rng-builtin", "id": "hot"})
            vmm.qmp.execute("device_add", {"driver": "virtio-rng-pci", "id": "e", "rng": "hot"})
            with self.assertRaisesRegex(vmmtest.QMPError, "in use"):
                vmm.qmp.execute("object-del", {"id": "hot"})


if __name__ == "__main__":
    unittest.main()
