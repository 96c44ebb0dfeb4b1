#!/usr/bin/env python3
"""A few tests of the other directories on a host with SVM (svm.py), in every run: vmm works where kvm-amd does."""

import os
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, HERE)
import inside   # noqa: E402
import svm      # noqa: E402
import vmmtest  # noqa: E402

TESTS = {"commands/test_look.py": ("Machine.test_processor", "Machine.test_processor_and_chips_at_work", "Server.test_counters"),
         "commands/test_life.py": ("Life.test_stop_and_cont", "Life.test_power_button_and_nmi", "Life.test_clock_is_set")}


class Smoke(unittest.TestCase):
    """One start of the host for all."""

    def test_on_svm(self):
        inside.pass_all(self, svm, TESTS, ["test -w /dev/kvm", "test $(cat /sys/module/kvm_amd/parameters/npt) = Y"], 300)


if __name__ == "__main__":
    vmmtest.main()
