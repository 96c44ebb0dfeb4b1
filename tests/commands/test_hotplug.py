#!/usr/bin/env python3
"""Devices, vCPUs and objects that come and go under the payload that plays the guest's ACPI code (payloads/hotplug.c)."""

import os

from exercise import Case, ENDED, MIB, shows, vmmtest

SMP = "1,maxcpus=4,sockets=1,cores=2,threads=2"


class Hotplug(Case):
    """What the guest says, and what the operator sees."""

    def running(self, *args, **options):
        return self.start(*args, payload="hotplug", cpus=SMP, **options)

    def gone(self, guest, name):
        self.assertEqual(guest.qmp.wait_event("DEVICE_DELETED", 60, lambda d: d.get("device") == name)["data"]["path"],
                         f"/machine/peripheral/{name}")

    def pci(self, guest):
        """Slots in use."""
        return [d["slot"] for d in guest.qmp.command("query-pci")[0]["devices"]]

    @shows("device_add", "device_del", "DEVICE_DELETED", "query-pci", "qom-list", "device-list-properties", "info pci", "info qtree",
           "info qom-tree")
    def test_pci(self):
        guest = self.running()
        qmp = guest.qmp
        self.assertIn("events", [p["name"] for p in qmp.command("device-list-properties", typename="pvpanic-pci")])
        self.assertNotIn(9, self.pci(guest))
        qmp.command("device_add", driver="pvpanic-pci", id="p", addr="9", events=1)
        guest.serial.wait_for("slot 9 1b36:11 reg 1", 60)
        self.assertIn(9, self.pci(guest))
        self.assertIn("Bus  0, device   9, function 0:", self.info(guest, "pci"))
        self.assertIn('dev: pvpanic-pci, id "p"', self.info(guest, "qtree"))
        self.assertIn("/p (pvpanic-pci)", self.info(guest, "qom-tree"))
        self.assertIn("p", [o["name"] for o in qmp.command("qom-list", path="/machine/peripheral")])
        qmp.command("device_del", id="p")
        self.gone(guest, "p")
        guest.serial.wait_for("slot 9 empty", 60)
        self.assertNotIn(9, self.pci(guest))
        guest.serial.send("q")
        self.assertEqual(guest.wait_exit(), ENDED)

    @shows("query-hotpluggable-cpus", "query-cpus-fast", "query-acpi-ospm-status", "ACPI_DEVICE_OST", "DEVICE_UNPLUG_GUEST_ERROR",
           "info hotpluggable-cpus", "info cpus")
    def test_cpus(self):
        """A vCPU comes; the guest does not want it to go, then it lets it."""
        guest = self.running("-append", "refuse=1")
        qmp = guest.qmp

        def threads():
            found = {c["cpu-index"]: c["thread-id"] for c in qmp.command("query-cpus-fast")}
            self.assertTrue(all(os.path.isdir(f"/proc/{guest.pid}/task/{t}") for t in found.values()))
            return found

        place = next(c for c in qmp.command("query-hotpluggable-cpus") if "qom-path" not in c and c["props"]["thread-id"] == 1
                     and c["props"]["core-id"] == 0)
        self.assertEqual(self.info(guest, "hotpluggable-cpus").count("qom_path:"), 1)
        qmp.execute("device_add", {"driver": place["type"], "id": "more", **place["props"]})
        guest.serial.wait_for("cpu 1 up", 60)
        told = {"device": "more", "slot": "1", "slot-type": "CPU", "source": 1, "status": 0}
        self.assertEqual(qmp.wait_event("ACPI_DEVICE_OST")["data"]["info"], told)
        self.assertEqual([s for s in qmp.command("query-acpi-ospm-status") if s["source"]], [told])
        self.assertEqual(len(qmp.command("query-acpi-ospm-status")), 4)
        self.assertEqual(sorted(threads()), [0, 1])
        self.assertIn(f"CPU #1: thread_id={threads()[1]}", self.info(guest, "cpus"))
        qmp.command("device_del", id="more")
        guest.serial.wait_for("cpu 1 stays", 60)
        self.assertEqual(qmp.wait_event("DEVICE_UNPLUG_GUEST_ERROR")["data"], {"device": "more", "path": "/machine/peripheral/more"})
        self.assertEqual([s["status"] for s in qmp.command("query-acpi-ospm-status") if s["source"]], [0x81])
        self.assertEqual(sorted(threads()), [0, 1])
        qmp.command("device_del", id="more")
        self.gone(guest, "more")
        guest.serial.wait_for("cpu 1 gone", 60)
        self.assertEqual(sorted(threads()), [0])

    @shows("object-add", "object-del", "query-memdev", "qom-list-types", "qom-list-properties", "info memdev")
    def test_objects(self):
        """A source of random numbers under a device that the guest sees; memory that shows up as an object."""
        guest = self.running()
        qmp = guest.qmp
        self.assertIn("rng-builtin", [t["name"] for t in qmp.command("qom-list-types", implements="rng-backend")])
        self.assertIn("size", [p["name"] for p in qmp.command("qom-list-properties", typename="memory-backend-ram")])
        qmp.execute("object-add", {"qom-type": "rng-builtin", "id": "r"})
        qmp.command("device_add", driver="virtio-rng-pci", id="rng", rng="r", addr="8")
        guest.serial.wait_for("slot 8 1af4:1005", 60)
        with self.assertRaisesRegex(vmmtest.QMPError, "in use"):
            qmp.command("object-del", id="r")
        qmp.command("device_del", id="rng")
        self.gone(guest, "rng")
        qmp.command("object-del", id="r")
        qmp.execute("object-add", {"qom-type": "memory-backend-ram", "id": "m", "size": 3 * MIB})
        self.assertEqual({m["id"]: m["size"] for m in qmp.command("query-memdev")}, {"pc.ram": 64 * MIB, "m": 3 * MIB})
        self.assertIn("memory backend: m\n", self.info(guest, "memdev"))
        qmp.command("object-del", id="m")
        self.assertNotIn("memory backend: m\n", self.info(guest, "memdev"))


if __name__ == "__main__":
    vmmtest.main()
