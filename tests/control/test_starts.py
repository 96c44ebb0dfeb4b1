#!/usr/bin/env python3
"""Fifty starts and ends under the address, leak and undefined-behaviour sanitizers: `tools/check long`.

Uses the build in $VMM_ASAN_BUILD (default build-asan next to the sources), which it configures and brings up to date.
"""

import os
import re
import subprocess
import sys
import unittest

os.environ["VMM_TEST_SANITIZED"] = "1"
os.environ["VMM_TEST_ARGS"] = "-sandbox off"        # the leak check needs more system calls
os.environ.setdefault("VMM_TEST_SLOW", "4")
os.environ["ASAN_OPTIONS"] = "detect_leaks=1:halt_on_error=1"
os.environ["UBSAN_OPTIONS"] = "print_stacktrace=1:halt_on_error=1"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("VMM_ASAN_BUILD", os.path.join(ROOT, "build-asan"))
os.environ["VMM"] = os.path.join(BUILD, "src/vmm")
os.environ["VMM_MODULE_DIR"] = os.path.join(BUILD, "modules")

from harness import Vmm, vmmtest  # noqa: E402

sys.path.insert(0, os.path.join(ROOT, "tests", "guest"))
import assets  # noqa: E402

REPORT = re.compile("Sanitizer|runtime error")


def setUpModule():      # pylint: disable=invalid-name
    """Bring the sanitized build up to date."""
    if not os.path.exists(os.path.join(BUILD, "build.ninja")):
        subprocess.run(["meson", "setup", BUILD, ROOT, "-Db_sanitize=address,undefined"], check=True)
    subprocess.run(["ninja", "-C", BUILD, "src/vmm"], check=True)


class Starts(unittest.TestCase):
    """Each way to begin, each way to end, and nothing left."""

    def end(self, vmm, how):
        """End the process in one of three ways; no sanitizer may have complained."""
        if how % 3 == 0:
            vmm.qmp.command("quit")
        elif how % 3 == 1:
            vmm.process.terminate()
        else:
            vmm.qmp.command("system_reset")
            vmm.qmp.command("quit")
        status = vmm.wait_exit(120)
        text = vmm.stderr()
        self.assertIsNone(REPORT.search(text), text)
        self.assertEqual(status, 0, text)

    def test_without_cpu(self):
        def images(folder):
            for name in ("disk", "cd", "floppy"):
                with open(os.path.join(folder, name), "wb") as stream:
                    stream.truncate(1474560)

        for i in range(40):
            with Vmm("-hda", "@DIR@/disk", "-cdrom", "@DIR@/cd", "-fda", "@DIR@/floppy", "-snapshot", "-serial", "null",
                     "-device", "pvpanic", "-metrics", "unix:@DIR@/metrics", "-qtest", "unix:@DIR@/qtest,server=on,wait=off",
                     "-msg", "format=json", prepare=images) as vmm:
                vmm.qmp.command("query-blockstats")
                vmm.qmp.command("x-query-metrics")
                vmm.qmp.command("query-qmp-schema")
                vmm.qmp.command("blockdev-change-medium", device="ide1-cd0", filename=vmm.path("floppy"))
                half_open = vmm.connect(vmm.path("metrics"))
                half_open.sendall(b"GET ")
                self.end(vmm, i)
                half_open.close()

    def test_with_kvm(self):
        reason = vmmtest.why_no_vmm()
        if reason:
            self.skipTest(reason)
        for i in range(10):
            with vmmtest.Guest("-kernel", assets.payload("debug"), "-sandbox", "off", memory=64, cpus=2,
                               irqchip=("on", "split")[i % 2]) as guest:
                guest.serial.wait_for("round 64", 120)
                guest.qmp.command("x-gdbserver", device=f"unix:{guest.dir}/gdb")
                guest.qmp.command("query-stats", target="vcpu")
                guest.qmp.command("stop")
                if i % 3:
                    guest.qmp.command("cont")
                self.assertEqual(guest.quit(120), 0, guest.stderr())
                self.assertIsNone(REPORT.search(guest.stderr()), guest.stderr())


if __name__ == "__main__":
    vmmtest.main()
