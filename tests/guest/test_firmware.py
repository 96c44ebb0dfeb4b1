#!/usr/bin/env python3
"""The firmware alone: the BIOS prompt, resets, starts and quits, two guests at once."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import vmmtest  # noqa: E402

NO_DISK = "No bootable device"
SEABIOS_LOG = 0x402     # SeaBIOS writes its log to this port when something answers there


class Prompt(vmmtest.TestCase):
    """SeaBIOS finds nothing to boot and says so on the screen."""

    def prompt(self, **options):
        with self.guest(serial=0, debugcon=SEABIOS_LOG, **options) as guest:
            screen = guest.wait_screen(NO_DISK, 60)
            self.assertIn("SeaBIOS", screen)
            width, height, pixels = guest.screendump()
            self.assertEqual((width, height), (720, 400))
            self.assertGreater(len(set(pixels[i:i + 3] for i in range(0, len(pixels), 3))), 1,
                               "the screen is of one colour only")
            self.assertEqual(guest.debugcon.count(r"BUILD: "), 1)
            self.assertEqual(guest.quit(), 0)

    def test_irqchip_on(self):
        self.prompt(irqchip="on")

    def test_irqchip_split_two_cpus(self):
        self.prompt(irqchip="split", cpus=2)

    def test_two_guests_at_once(self):
        with self.guest(serial=0) as one, self.guest(serial=0, evidence=None) as two:
            one.wait_screen(NO_DISK, 90)
            two.wait_screen(NO_DISK, 90)
            self.assertEqual(one.quit(), 0)
            self.assertTrue(two.qmp.command("query-status")["running"])
            self.assertEqual(two.quit(), 0)


if __name__ == "__main__":
    vmmtest.main()
