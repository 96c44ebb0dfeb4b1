#!/usr/bin/env python3
"""INT 13h from boot sectors of our own: hard disk, El Torito CD-ROM and floppy."""

import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets   # noqa: E402
import vmmtest  # noqa: E402

SECTOR = 512


class Int13(vmmtest.TestCase):
    """The payloads report PASS, or FAIL with the number of the step; see payloads/."""

    def setUp(self):
        self.work = tempfile.TemporaryDirectory(prefix="vmm-int13-")
        self.addCleanup(self.work.cleanup)

    def asset(self, function):
        try:
            return function()
        except assets.Missing as error:
            self.skipTest(str(error))

    def passes(self, guest, timeout=60):
        match = guest.serial.wait_for(r"(PASS|FAIL|!).*\n", timeout)
        self.assertTrue(match[0].startswith(b"PASS"), guest.serial.text())
        screen = guest.wait_screen("PASS int13", 10)
        guest.screendump()
        return screen

    def assert_image(self, path, base, changed):
        """The image is base, apart from the sectors {first: bytes} in changed."""
        with open(base, "rb") as stream:
            expected = bytearray(stream.read())
        for first, data in changed.items():
            expected[first * SECTOR:first * SECTOR + len(data)] = data
        with open(path, "rb") as stream:
            found = stream.read()
        self.assertEqual(len(found), len(expected))
        wrong = [n for n in range(len(found) // SECTOR)
                 if found[n * SECTOR:(n + 1) * SECTOR] != expected[n * SECTOR:(n + 1) * SECTOR]]
        self.assertEqual(wrong, [], "sectors that differ")

    def hard_disk(self, **options):
        base = self.asset(assets.int13_hd)
        image = assets.copy(base, self.work.name)
        with self.guest("-drive", f"file={image},format=raw,if=ide", **options) as guest:
            self.passes(guest)
            self.assertEqual(guest.quit(), 0)
        self.assert_image(image, base, {2000: assets.pattern(2000, 16, invert=True),
                                        3000: assets.pattern(3000, 3, invert=True)})

    def test_hard_disk_irqchip_on(self):
        self.hard_disk(irqchip="on")

    def test_hard_disk_irqchip_split(self):
        self.hard_disk(irqchip="split")

    def cd_rom(self, **options):
        image = self.asset(assets.int13_cd)
        with self.guest("-cdrom", image, "-boot", "d", **options) as guest:
            self.passes(guest)
            self.assertEqual(guest.quit(), 0)

    def test_cd_rom_irqchip_on(self):
        self.cd_rom(irqchip="on")

    def test_cd_rom_irqchip_split(self):
        self.cd_rom(irqchip="split")

    def floppy(self, *args, **options):
        base = self.asset(assets.int13_floppy)
        other = self.asset(assets.other_floppy)
        image = assets.copy(base, self.work.name)
        with self.guest("-drive", f"file={image},format=raw,if=floppy,id=floppy0", "-boot", "a",
                        *args, **options) as guest:
            found = guest.serial.wait_for(r"CHANGE|FAIL.*\n|!", 240)[0]
            self.assertEqual(found, b"CHANGE", guest.serial.text())
            guest.qmp.execute("blockdev-change-medium",
                              {"device": "floppy0", "filename": other, "format": "raw",
                               "read-only-mode": "read-only"})
            self.passes(guest)
            self.assertEqual(guest.quit(), 0)
            formatted = {}
            if not vmmtest.is_qemu():       # QEMU's FORMAT TRACK with DMA writes nothing
                self.assertIn("FILL F6F6F6F6", guest.serial.text())
                formatted = {156 * 18: b"\xf6" * (18 * SECTOR)}
        self.assert_image(image, base, {159 * 18: assets.pattern(159 * 18, 18, invert=True),
                                        **formatted})

    def test_floppy_irqchip_split(self):
        self.floppy(irqchip="split")

    def test_floppy_irqchip_on(self):
        # Where KVM emulates CPL 0 the guest cannot keep up with the timer: KVM's PIT hands it the
        # ticks it missed at once, IRQ 0 stays pending and IRQ 6 behind it never has its turn.
        options = []
        if vmmtest.ACCEL == "kvm" and assets.kvm_emulates():
            options = ["-global", "kvm-pit.lost_tick_policy=discard"]
        self.floppy(*options, irqchip="on")


if __name__ == "__main__":
    vmmtest.main()
