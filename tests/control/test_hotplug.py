#!/usr/bin/env python3
"""device_add and device_del over QMP: typed and string arguments, QEMU's error classes and words, events, introspection."""

import unittest

from harness import Vmm, vmmtest
from test_qmp import Schema

EJECT = 0xAE08


class Hotplug(unittest.TestCase):
    """A machine with free slots and free CPU places; the guest's part is played over qtest."""

    def setUp(self):
        self.vmm = Vmm("-chardev", "null,id=c0", "-chardev", "null,id=c1", "-smp", "1,maxcpus=4,sockets=2,cores=2,threads=1", "-qtest", "unix:@DIR@/qtest,server=on,wait=off",
                       "-device", '{"driver":"VGA","id":"video0","vgamem_mb":16,"bus":"pci.0","addr":"0x2"}')
        self.addCleanup(self.vmm.close)
        self.qmp = self.vmm.qmp
        self.guest = self.vmm.qtest()

    def refused(self, pattern, command, **arguments):
        with self.assertRaisesRegex(vmmtest.QMPError, pattern) as caught:
            self.qmp.command(command, **arguments)
        return caught.exception.error_class

    def add(self, **arguments):
        self.qmp.execute("device_add", arguments)

    def test_a_device_comes_and_goes(self):
        self.add(driver="pvpanic-pci", id="p0", bus="pci.0", addr="0x5", events=1)
        self.qmp.command("device_del", id="p0")
        self.assertEqual(self.refused("Duplicate device ID 'p0'", "device_add", driver="pvpanic-pci", id="p0"), "GenericError")
        self.guest.ask(f"outl {EJECT:#x} {1 << 5:#x}")
        event = self.qmp.wait_event("DEVICE_DELETED")
        self.assertEqual(event["data"], {"device": "p0", "path": "/machine/peripheral/p0"})
        self.assertEqual(self.refused("Device 'p0' not found", "device_del", id="p0"), "DeviceNotFound")
        self.add(driver="pvpanic-pci", id="p0", addr="5", events="1")  # as old clients write numbers

    def test_arguments(self):
        self.assertEqual(self.refused("Parameter 'driver' is missing", "device_add", id="x"), "GenericError")
        self.refused("id", "device_add", driver="pvpanic-pci", id=7)
        self.refused("not a valid device model name", "device_add", driver="nonesuch")
        self.refused("Property 'pvpanic-pci.foo' not found", "device_add", driver="pvpanic-pci", foo=True)
        self.refused("events", "device_add", driver="pvpanic-pci", events="many")
        self.refused("events", "device_add", driver="pvpanic-pci", events=[1])
        self.refused("addr", "device_add", driver="pvpanic-pci", addr=True)
        self.refused("in use|taken", "device_add", driver="pvpanic-pci", addr="0x2")
        self.refused("does not support hotplugging", "device_del", id="video0")
        self.refused("Bus 'ide.0' does not support hotplugging", "device_add", driver="ide-cd", bus="ide.0", unit=0, id="cd")

    def test_back_ends_are_held_and_released(self):
        self.refused("Device 'r0' not found|'r0'", "device_add", driver="virtio-rng-pci", id="v", rng="r0")
        self.qmp.execute("object-add", {"qom-type": "rng-random", "id": "r0", "filename": "/dev/urandom"})
        self.add(driver="virtio-rng-pci", id="v", rng="r0", addr="8")
        self.refused("object 'r0' is in use", "object-del", id="r0")
        self.qmp.command("device_del", id="v")
        self.refused("object 'r0' is in use", "object-del", id="r0")
        self.guest.ask(f"outl {EJECT:#x} {1 << 8:#x}")
        self.assertEqual([self.qmp.wait_event("DEVICE_DELETED")["data"] for _ in range(2)],
                         [{"path": "/machine/peripheral/v/virtio-backend"}, {"device": "v", "path": "/machine/peripheral/v"}])
        self.qmp.command("object-del", id="r0")

    def test_ports_go_at_once_and_before_their_controller(self):
        self.add(driver="virtio-serial-pci", id="vs", addr="9")
        self.add(driver="virtserialport", bus="vs.0", id="p0", chardev="c0", name="org.x.0", nr=1)
        self.add(driver="virtserialport", bus="vs.0", id="p1", chardev="c1", name="org.x.1")
        self.refused("c0", "device_add", driver="virtserialport", bus="vs.0", id="p2", chardev="c0")
        self.refused("can't go on", "device_add", driver="pvpanic-pci", bus="vs.0", id="p2")
        self.qmp.command("device_del", id="p0")
        self.assertEqual(self.qmp.wait_event("DEVICE_DELETED")["data"]["device"], "p0")
        self.add(driver="virtserialport", bus="vs.0", id="p0", chardev="c0", name="org.x.0", nr=1)
        self.qmp.command("device_del", id="vs")
        self.guest.ask(f"outl {EJECT:#x} {1 << 9:#x}")
        gone = [self.qmp.wait_event("DEVICE_DELETED")["data"].get("device") for _ in range(4)]
        self.assertEqual(set(gone[:2]), {"p0", "p1"})
        self.assertEqual(gone[2:], [None, "vs"])    # the device behind the function, then the function
        self.refused("Bus 'vs.0' not found", "device_add", driver="virtserialport", bus="vs.0", id="p0", chardev="c0")
        self.add(driver="virtio-serial-pci", id="vs", addr="9")
        self.add(driver="virtserialport", bus="vs.0", id="p0", chardev="c0", name="org.x.0", nr=1)  # its chardev is free again

    def test_cpus(self):
        schema = Schema(self.qmp.command("query-qmp-schema"))
        cpus = self.qmp.command("query-hotpluggable-cpus")
        schema.check(schema.entries["query-hotpluggable-cpus"]["ret-type"], cpus, "query-hotpluggable-cpus")
        self.assertEqual([c["props"] for c in cpus], [{"socket-id": s, "core-id": c, "thread-id": 0}
                                                      for s, c in ((1, 1), (1, 0), (0, 1), (0, 0))])
        self.assertEqual([c.get("qom-path") for c in cpus], [None, None, None, "/machine/unattached/cpu[0]"])
        self.assertTrue(next(m for m in self.qmp.command("query-machines") if m["name"] != "none")["hotpluggable-cpus"])
        self.add(driver=cpus[1]["type"], id="vcpu2", **cpus[1]["props"])
        fast = self.qmp.command("query-cpus-fast")
        self.assertEqual([(c["cpu-index"], c["qom-path"]) for c in fast],
                         [(0, "/machine/unattached/cpu[0]"), (2, "/machine/peripheral/vcpu2")])
        self.assertEqual(self.qmp.command("query-hotpluggable-cpus")[1]["qom-path"], "/machine/peripheral/vcpu2")
        self.refused("CPU.2. with APIC ID 2 exists", "device_add", driver=cpus[1]["type"], id="again", socket_id="1", core_id="0",
                     thread_id="0")
        self.refused("not supported device type", "device_del", id="vcpu2")
        self.guest.ask("outl 0xaf00 0")
        self.qmp.command("device_del", id="vcpu2")
        self.guest.ask("outl 0xaf00 2")
        self.assertEqual(int(self.guest.ask("inb 0xaf04"), 16), 0x1 | 0x2 | 0x4)
        self.guest.ask("outb 0xaf04 8")
        self.assertEqual(self.qmp.wait_event("DEVICE_DELETED")["data"]["device"], "vcpu2")
        self.assertEqual(len(self.qmp.command("query-cpus-fast")), 1)

    def test_introspection(self):
        schema = self.qmp.command("query-qmp-schema")
        row = next(e for e in schema if e["name"] == "device_add")
        self.assertIn("json-cli-hotplug", row["features"])
        self.assertEqual(self.qmp.command("query-acpi-ospm-status"), [])

    def test_nothing_leaks(self):
        """500 devices, one after the other: descriptors and memory are as before."""
        def round_trip():
            self.add(driver="pvpanic-pci", id="p", addr="6")
            self.guest.ask(f"outl {EJECT:#x} {1 << 6:#x}")
            self.qmp.wait_event("DEVICE_DELETED")
        for _ in range(50):
            round_trip()
        fds, rss = self.vmm.fds(), self.vmm.rss()
        for _ in range(500):
            round_trip()
        self.assertEqual(self.vmm.fds(), fds)
        self.assertLess(self.vmm.rss(), rss + (1 << 20))


if __name__ == "__main__":
    vmmtest.main()
