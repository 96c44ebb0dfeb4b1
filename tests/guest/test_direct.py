#!/usr/bin/env python3
"""-kernel: payloads of our own over PVH and multiboot, and memtest86+ to its running screen."""

import os
import re
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets   # noqa: E402
import vmmtest  # noqa: E402

EXIT = "isa-debug-exit,iobase=0xf4,iosize=4"


class Payload(vmmtest.TestCase):
    """What the loader hands over, as the payload prints it."""

    def hello(self, multiboot, memory, **options):
        elf = assets.payload("hello", multiboot)
        words = "alpha=1 beta=0x2 " + "x" * 200
        initrd = bytes(range(251)) * 4099           # 1 MiB and odd: no sum by accident
        total = 0
        for byte in initrd[:100003]:
            total = (total * 31 + byte) & 0xffffffff
        with tempfile.NamedTemporaryFile() as module:
            module.write(initrd[:100003])
            module.flush()
            with self.guest("-kernel", elf, "-append", words, "-initrd", module.name,
                            "-device", EXIT, memory=memory, **options) as guest:
                guest.serial.wait_for("PASS hello|FAIL.*", 30)
                self.assertEqual(guest.wait_exit(10), 0x10 << 1 | 1)
                text = guest.serial.text().replace("\r", "")
        self.assertIn("hello from " + ("multiboot" if multiboot else "PVH"), text)
        line = re.search(r"^cmdline: (.*)$", text, re.M)[1]
        self.assertTrue(line.endswith(words), line)     # multiboot puts the file name first
        self.assertIn(f"module: 100003 sum {total:x}\n", text)
        ranges = [(int(start, 16), int(size, 16))
                  for start, size in re.findall(r"^ram: ([0-9a-f]+) \+ ([0-9a-f]+)$", text, re.M)]
        ram = sum(size for start, size in ranges)
        self.assertLessEqual(ram, memory << 20)
        self.assertGreater(ram, (memory << 20) - (1 << 20))
        self.assertEqual(ranges[0][0], 0)
        self.assertIn(0x100000, [start for start, size in ranges])
        self.assertIn("PASS hello", text)
        return text

    def test_pvh(self):
        text = self.hello(False, 128, irqchip="on")
        self.assertRegex(text, r"rsdp: [0-9a-f]{2,}")

    def test_pvh_split_above_4g(self):
        """RAM on both sides of the hole below 4 GiB; a host that has not so much gets a bigger hole."""
        if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") > 6 << 30:
            text = self.hello(False, 5120, irqchip="split", cpus=2)
        else:
            text = self.hello(False, 1536, irqchip="split", cpus=2, machine="max-ram-below-4g=1G")
        self.assertRegex(text, r"(?m)^ram: 0*100000000 \+ ")

    def test_multiboot(self):
        self.hello(True, 64, irqchip="on")

    def test_dirtier(self):
        """The memory dirtier finds every page as it left it."""
        elf = assets.payload("dirtier")
        with self.guest("-kernel", elf, "-append", "start=32M size=16M", memory=64) as guest:
            guest.serial.wait_for("round 3", 60)
            guest.serial.send("x")
            guest.serial.wait_for(r"PASS dirtier rounds=\d+", 60)
            self.assertEqual(guest.serial.count("FAIL"), 0)
            self.assertEqual(guest.quit(), 0)


class Memtest(vmmtest.TestCase):
    """memtest86+ runs its first tests on the serial console and on the screen."""

    def test_memtest86(self):
        try:
            image = assets.memtest()
        except assets.Missing as error:
            self.skipTest(str(error))
        # An AMD model has a thermometer, which memtest86+ reads with x87 arithmetic as well.
        with self.guest("-kernel", image, "-append", assets.memtest_options(), memory=64,
                        irqchip="on", cpu="qemu64,-cx16") as guest:
            guest.serial.wait_for(r"Memtest86\+", 60)
            # Its serial copy of the screen lags by minutes where KVM emulates it, so look at the screen itself.
            guest.wait_screen(r"#\d+ +\[", 120)
            guest.wait_screen(r"Time: +0:\d\d:(0[1-9]|[1-5]\d)", 60)     # it runs: its clock does
            self.assertIn("Errors: 0", guest.screen_text())
            guest.screendump()
            self.assertEqual(guest.quit(), 0)


if __name__ == "__main__":
    vmmtest.main()
