#!/usr/bin/env python3
"""vmm on a host with VMX (vmx.py), in every run: what a processor tells KVM of, and no other machine without one does.

The whole of test_gdb.py: breakpoints and watchpoints in code at CPL 3, an int3 of the guest's own, single steps.
"""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("../lib", "../guest", "."):
    sys.path.insert(0, os.path.join(HERE, folder))
import assets   # noqa: E402
import inside   # noqa: E402
import vmmtest  # noqa: E402
import vmx      # noqa: E402

TESTS = {"guest/test_gdb.py": (),
         "commands/test_life.py": ("Life.test_stop_and_cont", "Life.test_power_button_and_nmi")}


class Vmx(unittest.TestCase):
    """One start of the host for all."""

    def test_on_vmx(self):
        try:
            for name in ("debug", "observer"):      # there is no compiler there
                assets.payload(name)
        except assets.Missing as reason:
            self.skipTest(str(reason))
        inside.pass_all(self, vmx, TESTS, vmx.CHECKS, 800)


if __name__ == "__main__":
    vmmtest.main()
