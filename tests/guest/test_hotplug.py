#!/usr/bin/env python3
"""PCI devices and vCPUs that come and go under a running guest: device_add, ACPI events, ejection, reset, SeaBIOS."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets   # noqa: E402
import vmmtest  # noqa: E402

EXIT = "isa-debug-exit,iobase=0xf4,iosize=4"
SMP = "1,maxcpus=4,sockets=1,cores=2,threads=2"


class Hotplug(vmmtest.TestCase):
    """The payload plays the OS: see payloads/hotplug.c."""

    def start(self, **options):
        elf = assets.payload("hotplug")
        guest = self.guest("-kernel", elf, "-device", EXIT, cpus=SMP, memory=64, **options)
        guest.serial.wait_for("ready", 60)
        return guest

    def says(self, guest, text, times=1):
        """The payload says so, for the times-th time."""
        vmmtest.poll(lambda: guest.serial.count(text) >= times or guest.serial.count("FAIL|still|not start"), 120,
                     f"{text!r} from the guest")
        self.assertGreaterEqual(guest.serial.count(text), times, guest.serial.text())

    def add_cpu(self, guest, index, name):
        place = next(c for c in guest.qmp.command("query-hotpluggable-cpus")
                     if c["props"]["core-id"] * 2 + c["props"]["thread-id"] == index)
        self.assertNotIn("qom-path", place)
        guest.qmp.execute("device_add", {"driver": place["type"], "id": name, **place["props"]})

    def remove(self, guest, name):
        guest.qmp.command("device_del", id=name)
        self.assertEqual(guest.qmp.wait_event("DEVICE_DELETED", 120, lambda data: data.get("device") == name)["data"]["path"],
                         f"/machine/peripheral/{name}")

    def cpus(self, guest):
        fast = guest.qmp.command("query-cpus-fast")
        threads = [c["thread-id"] for c in fast]
        self.assertEqual(len(set(threads)), len(threads))
        for thread in threads:
            self.assertTrue(os.path.isdir(f"/proc/{guest.pid}/task/{thread}"))
        return sorted(c["cpu-index"] for c in fast)

    def cpus_come_and_go(self, irqchip):
        with self.start(irqchip=irqchip) as guest:
            self.add_cpu(guest, 3, "late")
            self.says(guest, "cpu 3 up")
            self.add_cpu(guest, 1, "early")
            self.says(guest, "cpu 1 up")
            self.assertEqual(self.cpus(guest), [0, 1, 3])
            guest.qmp.command("stop")       # a changed set stops and goes on
            guest.qmp.command("cont")
            self.remove(guest, "late")
            self.says(guest, "cpu 3 gone")
            self.assertEqual(self.cpus(guest), [0, 1])
            self.add_cpu(guest, 3, "again")     # KVM's vCPU of before
            self.says(guest, "cpu 3 up", 2)
            self.remove(guest, "again")
            self.says(guest, "cpu 3 gone", 2)
            self.remove(guest, "early")
            self.says(guest, "cpu 1 gone")
            self.assertEqual(self.cpus(guest), [0])
            guest.serial.send("q")
            self.assertEqual(guest.wait_exit(30), 0x10 << 1 | 1)

    def test_cpus_irqchip_on(self):
        self.cpus_come_and_go("on")

    def test_cpus_irqchip_split(self):
        self.cpus_come_and_go("split")

    def test_slots(self):
        with self.start() as guest:
            for i in range(1, 6):
                guest.qmp.command("device_add", driver="pvpanic-pci", id="p", addr=f"{i + 4:#x}", events=1)
                self.says(guest, f"slot {i + 4} 1b36:11 reg 1")
                self.remove(guest, "p")
                self.says(guest, f"slot {i + 4} empty")
            # Both at once, and while the guest is stopped.
            guest.qmp.command("stop")
            guest.qmp.command("device_add", driver="pvpanic-pci", id="p", addr="0x10", events=2)
            self.add_cpu(guest, 2, "c")
            guest.qmp.command("cont")
            self.says(guest, "slot 16 1b36:11 reg 2")
            self.says(guest, "cpu 2 up")
            guest.serial.send("q")
            self.assertEqual(guest.wait_exit(30), 0x10 << 1 | 1)


class Firmware(vmmtest.TestCase):
    """SeaBIOS starts as many vCPUs as there are at the reset, and finds the devices there are."""

    def test_seabios_counts_again(self):
        with self.guest("-boot", "menu=off", cpus=SMP, memory=32, serial=0, debugcon=0x402) as guest:
            guest.debugcon.wait_for(rb"Found 1 cpu\(s\) max supported 4 cpu\(s\)", 60)
            guest.qmp.execute("device_add", {"driver": guest.qmp.command("query-hotpluggable-cpus")[0]["type"], "id": "c",
                                             "socket-id": 0, "core-id": 1, "thread-id": 0})
            guest.qmp.command("device_add", driver="pvpanic-pci", addr="0x1c")
            guest.qmp.command("system_reset")
            guest.debugcon.wait_for(rb"Found 2 cpu\(s\) max supported 4 cpu\(s\)", 60)
            self.assertEqual(guest.debugcon.count(r"bdf=00:1c\.0 id=1b36:0011"), 1)   # before, in the same boot


if __name__ == "__main__":
    vmmtest.main()
