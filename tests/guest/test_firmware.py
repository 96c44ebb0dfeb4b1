#!/usr/bin/env python3
"""The firmware alone: the BIOS prompt, resets, starts and quits, two guests at once."""

import os
import re
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets   # noqa: E402
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
            self.assertEqual(guest.debugcon.count(r"\nBUILD: "), 1)
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


class Lost(vmmtest.TestCase):
    """An instruction KVM would have to emulate and cannot: the guest stops there, and a reset gets it out."""

    # mov ax, 0xa000; mov ds, ax; pcmpeqb mm0, [0]: MMX on addresses where no memory is
    PROGRAM = bytes.fromhex("b800a0 8ed8 0f74060000 f4")
    RESET_VECTOR = bytes.fromhex("ea000000f0")

    def test_stops_and_says_where(self):
        rom = bytearray(65536)
        rom[:len(self.PROGRAM)] = self.PROGRAM
        rom[0xfff0:0xfff0 + len(self.RESET_VECTOR)] = self.RESET_VECTOR
        with tempfile.NamedTemporaryFile(suffix=".rom") as bios:
            bios.write(rom)
            bios.flush()
            with self.guest("-S", "-vga", "none", "-bios", bios.name, serial=0, memory=16) as guest:
                for round_ in range(1, 3):
                    guest.qmp.command("cont")
                    guest.qmp.wait_event("STOP", 30)
                    status = guest.qmp.command("query-status")
                    self.assertEqual((status["status"], status["running"]), ("internal-error", False))
                    if not vmmtest.is_qemu():       # where, and the bytes that are there
                        said = re.findall("CPU 0: .* at f000:5 .*real mode.* 0f 74 06 00 00 f4", guest.stderr())
                        self.assertEqual(len(said), round_, guest.stderr())
                        self.assertNotIn("CPU 0: CPU 0", guest.stderr())
                    with self.assertRaisesRegex(vmmtest.QMPError, "Resetting the Virtual Machine is required"):
                        guest.qmp.command("cont")
                    guest.qmp.command("system_reset")
                    guest.qmp.wait_event("RESET", 30)
                    vmmtest.poll(lambda: guest.qmp.command("query-status")["status"] in ("prelaunch", "paused"), 20,
                                 "the reset to be over")
                self.assertEqual(guest.quit(), 0)


MEBIBYTE = 1 << 20


class Again(vmmtest.TestCase):
    """The same thing fifty times leaves nothing behind."""

    def assert_same(self, before, after):
        for what in ("fds", "threads"):
            self.assertEqual(before[what], after[what], f"{what}: {before} -> {after}")
        allowed = 4 if vmmtest.is_qemu() else 1     # QEMU's figure includes guest memory
        self.assertLess(after["rss_anon"] - before["rss_anon"], allowed * MEBIBYTE,
                        f"memory: {before} -> {after}")

    def test_fifty_resets_by_the_guest(self):
        rom = assets.reset_rom()
        for irqchip in ("on", "split"):
            with self.subTest(irqchip=irqchip), \
                    self.guest("-S", "-bios", rom, serial=0, debugcon=0xe9, memory=16,
                               irqchip=irqchip) as guest:
                guest.qmp.command("cont")           # now that no event can be missed
                guest.debugcon.wait_for("DONE|BAD.", 60)
                log = guest.debugcon.text()
                if vmmtest.is_qemu():
                    log = log.replace("+", "")      # its reset leaves the PAM registers
                self.assertEqual(log.strip(), "kpct" * 13 + "DONE")
                vmmtest.poll(lambda: sum(e["event"] == "RESET" for e in guest.qmp.events) >= 52,
                             10, "52 RESET events")
                resets = guest.qmp.take_events("RESET")
                self.assertEqual(len(resets), 52)
                self.assertEqual({(e["data"]["guest"], e["data"]["reason"]) for e in resets},
                                 {(True, "guest-reset")})
                self.assertEqual(guest.quit(), 0)

    def test_fifty_resets_by_qmp(self):
        with self.guest(serial=0, debugcon=SEABIOS_LOG, irqchip="on") as guest:
            guest.wait_screen(NO_DISK, 60)
            # QEMU leaves the shadow RAM on, so the firmware must have come past its own copying.
            started = "Relocating init" if vmmtest.is_qemu() else r"\nBUILD: "
            guest.debugcon.wait_for(started, 1)
            before = guest.counts()
            for _ in range(50):
                guest.qmp.command("system_reset")
                guest.qmp.wait_event("RESET", 30, lambda data: not data["guest"] and
                                     data["reason"] == "host-qmp-system-reset")
                guest.debugcon.wait_for(started, 30)
            guest.wait_screen(NO_DISK, 60)
            self.assert_same(before, guest.counts())
            guest.screendump()
            self.assertEqual(guest.quit(), 0)

    def test_fifty_starts_and_quits(self):
        shared_before = set(os.listdir("/dev/shm"))
        own_before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            with self.guest(evidence=None, debugcon=SEABIOS_LOG) as guest:
                self.assertTrue(guest.qmp.command("query-status")["running"])
                self.assertEqual(guest.quit(), 0)   # also LeakSanitizer's verdict, if built so
                if not vmmtest.is_qemu():
                    self.assertEqual(guest.stderr(), "")
                self.assertEqual(sorted(os.listdir(guest.dir)), ["debugcon", "serial0", "stderr"],
                                 "files left behind")
                self.assertEqual(_children_of(os.getpid()), [])
        self.assertEqual(set(os.listdir("/dev/shm")) - shared_before, set())
        self.assertEqual(len(os.listdir("/proc/self/fd")), own_before)

    def test_fifty_control_connections(self):
        with self.guest(serial=0) as guest:
            for count in range(50):
                guest.qmp.close()                   # one client at a time, as in QEMU
                guest.qmp = guest.connect_qmp()
                self.assertTrue(guest.qmp.command("query-status")["running"])
                if count == 5:
                    before = guest.counts()
            self.assert_same(before, guest.counts())
            self.assertEqual(guest.quit(), 0)


def _children_of(pid):
    """Processes whose parent is pid."""
    children = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stream:
                    if int(stream.read().rsplit(")", 1)[1].split()[1]) == pid:
                        children.append(int(entry))
            except (OSError, IndexError):
                pass                                # it has just ended
    return children


if __name__ == "__main__":
    vmmtest.main()
