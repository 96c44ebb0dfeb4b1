#!/usr/bin/env python3
"""cpu-weight, cpu-cap and sched-credit, measured: guests that never rest (tests/payloads/dirtier.c), all on one processor of the host.

On the host's own control groups, of version 2 or 1. tests/hosts/test_sched_credit.py runs this where version 2 is certain.
"""

import os
import signal
import time
import unittest

import ctltest
import assets
from ctltest import USAGE, vmmtest

PROCESSOR = str(max(os.sched_getaffinity(0)))
TICK = os.sysconf("SC_CLK_TCK")


def used(pid):
    """Processor time of a process so far, all its threads, in seconds."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stream:
        fields = stream.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Shares(ctltest.Case):
    """Who gets how much."""

    @classmethod
    def setUpClass(cls):
        reason = vmmtest.why_no_vmm()
        if reason:
            raise unittest.SkipTest(reason)

    def setUp(self):
        super().setUp()
        if not ctltest.cpu_group(self):
            self.skipTest("no cpu controller, or no right to make a control group")

    def start(self, name, vcpus=1, more=""):
        """A busy guest on PROCESSOR; its vmm's process id."""
        path = self.write(f"{name}.vmm", f"memory = 64\nvnc = none\nvcpus = {vcpus}\ncpus = {PROCESSOR}\n"
                          f"kernel = {assets.payload('dirtier')}\n"
                          f"append = start=16M size=16M quiet=1 cpus={vcpus}\nextra = {os.environ.get('VMM_TEST_ARGS', '')}\n" + more)
        self.ctl("create", path)
        self.addCleanup(self.end, name)
        vmmtest.poll(lambda: "ready" in self.ctl("dmesg", name), 60, f"{name} to be busy")
        return self.pid(name)

    def end(self, name):
        """Destroy it; nothing is left of its group."""
        with open(f"/proc/{self.pid(name)}/cgroup", encoding="ascii") as stream:
            groups = [line.rstrip("\n").split(":", 2)[2] for line in stream]
        made = [root + group for group in groups if group.endswith(f"/vmm-{name}") for root in ("/sys/fs/cgroup/cpu", ctltest.V2_ROOT)]
        self.ctl("destroy", name)
        vmmtest.poll(lambda: not any(map(os.path.exists, made)), 20, f"{made} to be removed")

    def shares(self):
        """{name: (weight, cap)} of all guests, as programs are told; people are told the same."""
        rows = self.json("sched-credit")
        lines = [line.split() for line in self.ctl("sched-credit").splitlines()[1:]]
        self.assertEqual(lines, [[row["name"], str(row["id"]), str(row["weight"]), str(row["cap"])] for row in rows])
        return {row["name"]: (row["weight"], row["cap"]) for row in rows}

    def measure(self, *pids, seconds=3):
        """What each of the processes takes of a processor while they take so many seconds of it together."""
        start, before = time.monotonic(), [used(pid) for pid in pids]
        vmmtest.poll(lambda: sum(map(used, pids)) >= sum(before) + seconds, 60, "the guests to use processor time", interval=0.1)
        took = time.monotonic() - start
        return [(used(pid) - was) / took for pid, was in zip(pids, before)]

    def test_weight(self):
        """Two guests that want all share one processor as their weights say."""
        one, four = self.start("one", more="cpu-weight = 256\n"), self.start("four")
        self.ctl("sched-credit", "-d", "four", "-w", "1024")
        self.assertEqual(self.shares(), {"one": (256, 0), "four": (1024, 0)})
        small, large = self.measure(one, four)
        self.assertTrue(2.5 < large / small < 6.5, f"{large:.2f} and {small:.2f} of a processor for weights of 4 to 1")
        self.ctl("sched-credit", "--weight", "1024", "one")
        self.assertEqual(self.shares(), {"one": (1024, 0), "four": (1024, 0)})
        first, second = self.measure(one, four)
        self.assertTrue(0.5 < first / second < 2, f"{first:.2f} and {second:.2f} of a processor for equal weights")

    def test_weight_leaves_nothing_idle(self):
        """A small weight is no limit: who is alone gets all there is."""
        one = self.start("one", more="cpu-weight = 3\n")
        share, = self.measure(one, seconds=1)
        self.assertGreater(share, 0.5)

    def test_cap(self):
        """A cap holds for all of a guest's vCPUs together, though nobody else wants the processor, and not for others."""
        capped, free = self.start("capped", vcpus=2, more="cpu-cap = 25\n"), self.start("free")
        self.assertEqual(self.shares(), {"capped": (256, 25), "free": (256, 0)})
        self.ctl("pause", "free")
        share, = self.measure(capped, seconds=1)
        self.assertTrue(0.17 < share < 0.3, f"{share:.2f} of a processor with a cap of 25 %")
        self.ctl("sched-credit", "-d", "capped", "-c", "10")
        self.ctl("unpause", "free")
        small, rest = self.measure(capped, free)
        self.assertTrue(0.05 < small < 0.14, f"{small:.2f} of a processor with a cap of 10 %")
        self.assertGreater(rest, 4 * small)
        self.assertEqual(self.shares(), {"capped": (256, 10), "free": (256, 0)})
        self.ctl("pause", "free")
        self.ctl("sched-credit", "-d", "capped", "-c", "0")
        share, = self.measure(capped, seconds=2)
        self.assertGreater(share, 0.5, "without a cap")

    def test_started_again(self):
        """What was set stays when the keeper starts vmm again; the configuration's comes first."""
        first = self.start("one", more="cpu-weight = 512\non-crash = restart\n")
        self.ctl("sched-credit", "-d", "one", "-w", "100", "-c", "30")
        self.assertEqual(self.shares(), {"one": (100, 30)})
        os.kill(first, signal.SIGKILL)
        self.wait_restart(first, "one")
        self.assertEqual(self.shares(), {"one": (512, 30)})
        share, = self.measure(self.pid("one"), seconds=1)
        self.assertTrue(0.2 < share < 0.36, f"{share:.2f} of a processor with a cap of 30 %")

    def test_what_cannot_be(self):
        """Refused as what it is, and nothing changes."""
        self.start("one", more="cpu-weight = 512\ncpu-cap = 50\n")
        for words in (["-w", "0"], ["-w", "65536"], ["-c", "-1"], ["-c", "much"], ["-w", ""]):
            self.refused(USAGE, "--(weight|cap)", "sched-credit", "-d", "one", *words)
        self.assertEqual(self.shares(), {"one": (512, 50)})


if __name__ == "__main__":
    vmmtest.main()
