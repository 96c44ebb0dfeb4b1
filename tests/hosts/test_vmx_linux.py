#!/usr/bin/env python3
"""Linux under real gdb on a host with VMX (vmx.py): watchpoints on its data, breakpoints of both kinds and steps in a program of its."""

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


class Vmx(unittest.TestCase):
    """The kernel comes along: it takes minutes to build."""

    def test_gdb(self):
        try:
            linux = [assets.kernel(), assets.initramfs(), assets.work()]
        except assets.Missing as reason:
            self.skipTest(str(reason))
        inside.pass_all(self, vmx, {"guest/test_linux_inside.py": ("Inside.test_gdb",)}, vmx.CHECKS, 1500, files=linux)


if __name__ == "__main__":
    vmmtest.main()
