#!/usr/bin/env python3
"""Linux 6.1 to user space and to its power-off, once: the part of the Linux tests that every run of tools/check has.

The PVH kernel with one processor is the quickest of them. Process 1 is the shell itself, so that its prompt needs no other process.
"""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets       # noqa: E402
import test_linux   # noqa: E402
import vmmtest      # noqa: E402

# A host whose KVM emulates CPL 0 now and then gives a process of the guest the memory of another one: it crashes, and with
# process 1 goes the guest. QEMU has that there as well. It shows as these words; then, and only then, there is a second try.
HOSTS_FAULT = r"Attempted to kill init|segfault at|traps: .*(?:protection|invalid opcode)"


class Smoke(test_linux.LinuxCase):
    """One boot."""

    def boot(self):
        """None, or what Linux said when the host lost a process's memory."""
        with self.guest("-kernel", assets.vmlinux(), "-initrd", assets.initramfs(), "-append",
                        assets.CMDLINE + " rdinit=/bin/sh", "-no-reboot",
                        memory=128, cpu=vmmtest.cpu_model()) as guest:
            try:
                guest.serial.wait_for("/ # ", test_linux.BOOT)
                print(f"[user space after {guest.seconds():.1f} s]", end=" ", file=sys.stderr, flush=True)
                self.shell(guest, "mount -t proc proc /proc")
                self.assertIn("Linux version 6.1", self.shell(guest, "cat /proc/version"))
                self.processors(guest, 1)
                self.no_trouble(guest)
                self.powers_off(guest)
            except (AssertionError, ConnectionError, TimeoutError):
                fault = re.search(f".*(?:{HOSTS_FAULT}).*", guest.serial.text())
                if fault:
                    return fault[0]
                raise
        return None

    def test_user_space_and_power_off(self):
        fault = self.boot()
        if fault:
            print(f"[a second try, because of: {fault.strip()}]", end=" ", file=sys.stderr, flush=True)
            fault = self.boot()
        self.assertIsNone(fault)


if __name__ == "__main__":
    vmmtest.main()
