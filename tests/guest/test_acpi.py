#!/usr/bin/env python3
"""ACPI end to end without an operating system: tables in memory, S3 and its wake-up, S5."""

import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets   # noqa: E402
import vmmtest  # noqa: E402

WAK_STS = 0x8000


class Sleep(vmmtest.TestCase):
    """The payload walks RSDP, RSDT and FADT, sleeps, is woken, and powers off."""

    def sleeps(self, **options):
        try:
            base = assets.acpi_hd()
        except assets.Missing as error:
            self.skipTest(str(error))
        with tempfile.TemporaryDirectory(prefix="vmm-acpi-") as work:
            image = assets.copy(base, work)
            with self.guest("-drive", f"file={image},format=raw,if=ide", **options) as guest:
                match = guest.serial.wait_for(r"sleep\r\n|FAIL .", 60)
                self.assertEqual(match[0], b"sleep\r\n", guest.serial.text())
                guest.qmp.wait_event("SUSPEND", 10)
                self.assertEqual(guest.qmp.command("query-status")["status"], "suspended")
                if vmmtest.is_qemu():
                    guest.qmp.command("system_wakeup")
                else:
                    guest.qmp.command("system_powerdown")   # the power button wakes it
                guest.qmp.wait_event("WAKEUP", 10)
                match = guest.serial.wait_for(r"woke ([0-9A-F]{4})\r\n|FAIL .", 60)
                self.assertTrue(match[1], guest.serial.text())
                self.assertTrue(int(match[1], 16) & WAK_STS, match[0])
                event = guest.qmp.wait_event("SHUTDOWN", 30)
                self.assertEqual(event["data"]["reason"], "guest-shutdown")
                self.assertEqual(guest.wait_exit(10), 0)

    def test_s3_and_s5_irqchip_on(self):
        self.sleeps(irqchip="on")

    def test_s3_and_s5_irqchip_split(self):
        self.sleeps(irqchip="split")


if __name__ == "__main__":
    vmmtest.main()
