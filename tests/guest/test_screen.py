#!/usr/bin/env python3
"""Screen, keyboard and mouse through the BIOS of a running guest: video modes by INT 10h, keys by INT 16h, mouse packets by
INT 15h. The payload obeys the keys that the test sends."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets   # noqa: E402
import vmmtest  # noqa: E402


class Screen(vmmtest.TestCase):
    """One boot sector, see payloads/screen-hd.asm."""

    def boot(self, **options):
        try:
            image = assets.screen_hd()
        except assets.Missing as error:
            self.skipTest(str(error))
        guest = self.guest("-drive", f"file={image},format=raw,if=ide,snapshot=on", **options)
        guest.wait_screen("screen test ready", 60)
        return guest

    def wait_pixels(self, guest, size, condition, name):
        """Wait for a mode of this size whose picture satisfies condition(pixel), pixel(x, y) giving (r, g, b)."""
        last = [None]

        def look():
            width, height, pixels = guest.screendump(f"{self.evidence()}-{name}")
            last[0] = (width, height)
            return (width, height) == size and condition(
                lambda x, y: tuple(pixels[(y * width + x) * 3:(y * width + x) * 3 + 3]))

        try:
            vmmtest.poll(look, 30, f"the picture of {name}", 0.1)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; the screen is {last[0]}") from None

    def modes(self, **options):
        """Text, chain-4, planar and VBE modes and back, with keys pressed in each."""
        with self.boot(**options) as guest:
            guest.send_keys("2")
            if vmmtest.is_qemu():   # scans out 320 x 200 twice in each direction, too
                self.skipTest("for vmm")
            # The BIOS palette: 16 EGA colours, 16 greys (entry 31 is white), then hues.
            self.wait_pixels(guest, (640, 400), lambda at: at(0, 0) == (0, 0, 0) and at(2 * 15, 0) == (255, 255, 255) and
                             at(2 * 10, 2 * 5) == (255, 255, 255) and at(2 * 4, 0) == (170, 0, 0) and
                             at(2 * (319 - 256 - 60), 2 * 1) == (170, 0, 0) and at(2 * 319, 2 * 193) == at(2 * 0, 2 * 0),
                             "mode 13h")
            guest.send_keys("3")
            self.wait_pixels(guest, (640, 480), lambda at: at(100, 200) == (85, 255, 85) and at(101, 200) == (0, 0, 0) and
                             at(100, 199) == (0, 0, 0), "mode 12h")
            guest.send_keys("4")
            self.wait_pixels(guest, (640, 480), lambda at: at(100, 400) == (255, 85, 85) and at(100, 200) == (0, 0, 0),
                             "VBE mode 101h")
            guest.send_keys("1")
            guest.wait_screen("^text mode$", 30)
            guest.type_text("Echo")
            guest.wait_screen("Echo", 30)
            self.assertEqual(guest.quit(), 0)

    def test_modes_irqchip_on(self):
        self.modes(irqchip="on")

    def test_modes_irqchip_split(self):
        self.modes(irqchip="split")

    def mouse(self, **options):
        """A movement arrives at the BIOS mouse handler through IRQ 12."""
        with self.boot(**options) as guest:
            guest.send_keys("m")
            guest.wait_screen("mouse on", 30)
            guest.qmp.execute("input-send-event", {"events": [
                {"type": "rel", "data": {"axis": "x", "value": 5}}, {"type": "rel", "data": {"axis": "y", "value": 3}},
                {"type": "btn", "data": {"button": "left", "down": True}}]})

            def arrived():
                guest.send_keys("s")
                return "<2905fd>" in guest.screen_text()

            vmmtest.poll(arrived, 30, "the mouse packet", 0.2)
            self.assertEqual(guest.quit(), 0)

    def test_mouse_irqchip_on(self):
        self.mouse(irqchip="on")

    def test_mouse_irqchip_split(self):
        self.mouse(irqchip="split")


if __name__ == "__main__":
    vmmtest.main()
