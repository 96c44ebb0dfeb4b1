#!/usr/bin/env python3
"""Writes to planar VGA memory arrive in order, and on the screen, although they may come late (tests/payloads/planar.c)."""

import os
import re
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets  # noqa: E402
import vmmtest  # noqa: E402


class Planar(vmmtest.TestCase):
    """One guest that draws."""

    def draw(self, **options):
        with self.guest("-kernel", assets.payload("planar"), memory=64, **options) as guest:
            guest.serial.wait_for(r"PASS order writes=\d+\s|FAIL.*\n", 60)
            text = guest.serial.text()
            self.assertNotIn("FAIL", text)
            writes = int(re.search(r"writes=(\d+)", text)[1])

            def line(y):
                width, height, pixels = guest.screendump()
                self.assertEqual((width, height), (640, 480))
                return [tuple(pixels[(y * 640 + x) * 3:(y * 640 + x) * 3 + 3]) for x in range(0, 640, 8)]

            stripes = [tuple(v << 2 | v >> 4 for v in (c * 4 & 63, c * 2, c)) for c in range(16)]
            self.assertEqual(line(3), [stripes[x // 5] for x in range(80)])
            exits = {stat["name"]: stat["value"] for stat in guest.qmp.command("query-stats", target="vcpu")[0]["stats"]
                     } if not vmmtest.is_qemu() else {}
            if exits.get("mmio_exits") is not None and not vmmtest.is_qemu():
                counted = guest.qmp.command("x-query-metrics")["text"]
                mmio = int(re.search(r'vmm_vcpu_exits_total\{vcpu="0",reason="mmio"\} (\d+)', counted)[1])
                # every read is an exit, most writes are none
                self.assertLess(mmio, writes // 2 + writes // 4, f"{mmio} exits for {writes} writes")
            guest.serial.send("x")
            white = [stripes[15]] * 40
            vmmtest.poll(lambda: line(4)[:40] == white, 20, "the last line, drawn without an exit")
            self.assertEqual(guest.quit(), 0)

    def test_kernel_irqchip(self):
        self.draw(irqchip="on")

    def test_split(self):
        self.draw(irqchip="split")


if __name__ == "__main__":
    vmmtest.main()
