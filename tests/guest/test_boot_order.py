#!/usr/bin/env python3
"""Which device the firmware boots: bootindex, -boot order, the boot menu."""

import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import vmmtest  # noqa: E402

SEABIOS_LOG = 0x402     # SeaBIOS writes its log to this port when something answers there


def boot_sector(letter):
    """Code that sends its letter to COM1 and halts."""
    code = (b"\xba\xf8\x03"                     # mov dx, 0x3f8
            b"\xb0" + letter.encode() +         # mov al, letter
            b"\xee"                             # out dx, al
            b"\xf4\xeb\xfd")                    # hlt; jmp to it
    return code.ljust(510, b"\0") + b"\x55\xaa"


class BootOrder(vmmtest.TestCase):
    """Every medium says its name."""

    def setUp(self):
        self.work = tempfile.TemporaryDirectory(prefix="vmm-boot-")
        self.addCleanup(self.work.cleanup)

    def image(self, letter, size=1 << 20):
        path = os.path.join(self.work.name, letter)
        with open(path, "wb") as stream:
            stream.write(boot_sector(letter).ljust(size, b"\0"))
        return path

    def disk(self, letter, *properties):
        return ["-drive", f"if=none,id={letter},file={self.image(letter)},format=raw",
                "-device", ",".join(["ide-hd", f"drive={letter}", *properties])]

    def floppy(self, letter):
        return ["-drive", f"if=floppy,file={self.image(letter, 1440 << 10)},format=raw"]

    def boots(self, letter, *args, **options):
        with self.guest("-nodefaults", "-vga", "std", *args, **options) as guest:
            self.assertEqual(guest.serial.wait_for("[A-Z]", 60)[0].decode(), letter)
            self.assertEqual(guest.quit(), 0)

    def test_first_disk_without_options(self):
        self.boots("A", *self.disk("A", "bus=ide.0"), *self.disk("B", "bus=ide.1"))

    def test_smallest_bootindex_wins(self):
        self.boots("B", *self.disk("A", "bus=ide.0", "bootindex=7"),
                   *self.disk("B", "bus=ide.1", "unit=1", "bootindex=2"))

    def test_order_puts_the_floppy_first(self):
        self.boots("F", *self.disk("A"), *self.floppy("F"), "-boot", "order=ac", irqchip="split")

    def test_order_puts_the_disk_first(self):
        self.boots("A", *self.disk("A"), *self.floppy("F"), "-boot", "order=ca")

    def test_once_is_for_the_first_boot(self):
        with self.guest("-nodefaults", "-vga", "std", *self.disk("A"), *self.floppy("F"), "-boot", "order=ca,once=ac",
                        irqchip="split") as guest:
            guest.serial.wait_for("F", 60)
            for times in (1, 2):
                guest.qmp.command("system_reset")
                vmmtest.poll(lambda: guest.serial.count("A") == times, 60, "the disk to boot")   # pylint: disable=cell-var-from-loop
            self.assertEqual(guest.serial.count("F"), 1)
            self.assertEqual(guest.quit(), 0)

    def test_menu_offers_a_choice(self):
        with self.guest("-nodefaults", "-vga", "std", *self.disk("A", "bus=ide.0"),
                        *self.disk("B", "bus=ide.1"), "-boot", "menu=on,splash-time=30000",
                        debugcon=SEABIOS_LOG) as guest:
            guest.debugcon.wait_for("Press ESC for boot menu", 60)
            guest.send_keys("esc")
            guest.debugcon.wait_for("Select boot device", 30)
            guest.wait_screen(r"1\. .*\n2\. ", 30)
            guest.screendump()
            guest.send_keys("2")
            self.assertEqual(guest.serial.wait_for("[A-Z]", 60)[0], b"B")
            self.assertEqual(guest.quit(), 0)


if __name__ == "__main__":
    vmmtest.main()
