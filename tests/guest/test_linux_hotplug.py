#!/usr/bin/env python3
"""
Linux sees PCI devices and vCPUs come and go. The kernel alone does this: it waits for a root file system that never comes, so
no user space is needed (where KVM emulates CPL 0 there may be none).
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets   # noqa: E402
import vmmtest  # noqa: E402

NEEDED = ("CONFIG_HOTPLUG_PCI_ACPI=y", "CONFIG_ACPI_HOTPLUG_CPU=y", "CONFIG_VIRTIO_PCI=y")


class LinuxHotplug(vmmtest.TestCase):
    """acpiphp and the processor driver at work."""

    def start(self, *args, **options):
        try:
            image = assets.vmlinux()
        except assets.Missing as error:
            self.skipTest(str(error))
        with open(os.path.join(os.path.dirname(image), "config"), encoding="ascii") as config:
            text = config.read()
        for option in NEEDED:
            if option not in text:
                self.skipTest(f"the guest kernel was built without {option}")
        guest = self.guest("-kernel", image, "-append", assets.CMDLINE + " root=/dev/none rootwait", *args, memory=128, **options)
        guest.serial.wait_for("Waiting for root device|Kernel panic.*", 240)
        return guest

    def deleted(self, guest, name):
        guest.qmp.wait_event("DEVICE_DELETED", 60, lambda data: data.get("device") == name)

    def test_pci(self):
        with self.start("-device", "virtio-rng-pci,id=cold,addr=0x12", cpus=1) as guest:
            for slot in (0x10, 0x1f, 0x10):
                guest.qmp.command("device_add", driver="virtio-rng-pci", id="hot", addr=hex(slot))
                guest.serial.wait_for(rf"pci 0000:00:{slot:02x}\.0: \[1af4:1005\]", 60)
                guest.serial.wait_for(rf"virtio-pci 0000:00:{slot:02x}\.0: enabling device", 60)
                guest.qmp.command("device_del", id="hot")
                self.deleted(guest, "hot")
            guest.qmp.command("device_del", id="cold")      # what was there at boot goes as well
            self.deleted(guest, "cold")
            self.assertEqual(guest.serial.count("Kernel panic|Oops|BUG:|Call Trace"), 0, guest.serial.text())

    def test_cpus(self):
        with self.start(cpus="1,maxcpus=4,sockets=4,cores=1,threads=1") as guest:
            for index, place in enumerate(guest.qmp.command("query-hotpluggable-cpus")[:2]):
                name = f"cpu{index}"
                guest.qmp.execute("device_add", {"driver": place["type"], "id": name, **place["props"]})
                guest.serial.wait_for(r"CPU\d+ has been hot-added", 60)
                event = guest.qmp.wait_event("ACPI_DEVICE_OST", 60)["data"]["info"]
                self.assertEqual((event["device"], event["source"], event["status"]), (name, 1, 0))
            self.assertEqual([c["cpu-index"] for c in guest.qmp.command("query-cpus-fast")], [0, 2, 3])
            for name in ("cpu0", "cpu1"):
                guest.qmp.command("device_del", id=name)
                self.deleted(guest, name)
            self.assertEqual([c["cpu-index"] for c in guest.qmp.command("query-cpus-fast")], [0])
            self.assertEqual(guest.serial.count("Kernel panic|Oops|BUG:|Call Trace"), 0, guest.serial.text())


if __name__ == "__main__":
    vmmtest.main()
