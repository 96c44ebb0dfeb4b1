#!/usr/bin/env python3
"""Shares of the processors on control groups of version 2, where vmmctl itself makes the groups and where systemd does."""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("../lib", "../guest", "."):
    sys.path.insert(0, os.path.join(HERE, folder))
import assets   # noqa: E402
import inside   # noqa: E402
import svm      # noqa: E402
import vmmtest  # noqa: E402


class SchedCredit(unittest.TestCase):
    """The host starts for each anew."""

    def setUp(self):
        for name in ("dirtier", "hotplug"):     # built here, where it is quick
            assets.payload(name)

    def test_measured(self):
        inside.pass_all(self, svm, {"ctl/test_shares.py": ()})

    def test_of_systemd(self):
        if not os.path.exists("/lib/systemd/systemd"):
            self.skipTest("no systemd is installed")
        inside.pass_all(self, svm, {"ctl/test_services.py": ("Services.test_shares",)})


if __name__ == "__main__":
    vmmtest.main()
