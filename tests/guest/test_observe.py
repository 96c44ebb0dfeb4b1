#!/usr/bin/env python3
"""Counters of a running guest: KVM's statistics, our own, and that they say the same."""

import os
import re
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets  # noqa: E402
import vmmtest  # noqa: E402


class Observe(vmmtest.TestCase):
    """A guest that prints, and so exits, all the time."""

    def start(self, *args, **options):
        """A running guest."""
        guest = self.guest("-kernel", assets.payload("debug"), *args, memory=64, **options)
        guest.serial.wait_for("round 64", 30)
        return guest

    def samples(self, guest):
        """{name{labels}: value} of all metrics."""
        text = guest.qmp.command("x-query-metrics")["text"]
        return {name: float(value) for name, value in re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", text, re.M)}

    def split(self, results):
        """query-stats' results: KVM's, and ours."""
        return [[r for r in results if r["provider"] == provider] for provider in ("kvm", "x-vmm")]

    def test_query_stats(self):
        with self.start(cpus=2) as guest:
            schemas = {s["target"]: {v["name"]: v for v in s["stats"]}
                       for s in guest.qmp.command("query-stats-schemas", provider="kvm")}
            if not schemas.get("vcpu"):
                self.skipTest("this kernel has no binary statistics")
            self.assertEqual(schemas["vcpu"]["exits"]["type"], "cumulative")
            cpus = guest.qmp.command("query-cpus-fast")
            results, ours = self.split(guest.qmp.command("query-stats", target="vcpu"))
            self.assertEqual([r["qom-path"] for r in ours], [r["qom-path"] for r in results])
            self.assertEqual([r["qom-path"] for r in results], [c["qom-path"] for c in cpus])
            for result in results + self.split(guest.qmp.command("query-stats", target="vm"))[0]:
                schema = schemas["vcpu" if "qom-path" in result else "vm"]
                self.assertEqual({s["name"] for s in result["stats"]}, set(schema))
                for stat in result["stats"]:
                    kind = schema[stat["name"]]
                    self.assertIsInstance(stat["value"], list if "histogram" in kind["type"]
                                          else bool if kind.get("unit") == "boolean" else int)

            def exits(index):
                one = guest.qmp.execute("query-stats", {"target": "vcpu", "vcpus": [cpus[index]["qom-path"]],
                                                        "providers": [{"provider": "kvm", "names": ["exits"]}]})
                self.assertEqual([s["name"] for s in one[0]["stats"]], ["exits"])
                return one[0]["stats"][0]["value"]

            before = exits(0)
            vmmtest.poll(lambda: exits(0) > before, 20, "exits to be counted")
            self.assertEqual(guest.qmp.execute("query-stats", {"target": "vcpu", "vcpus": ["/machine/none"]}), [])
            self.assertEqual(guest.qmp.execute("query-stats", {"target": "vm", "providers": [
                {"provider": "kvm", "names": ["no_such"]}]}), [])

    def test_vcpu_metrics(self):
        with self.start(cpus=2) as guest:
            first = self.samples(guest)
            vmmtest.poll(lambda: guest.serial.count("round") > 8, 30)
            guest.qmp.command("stop")
            second = self.samples(guest)

            def grown(name):
                return second[name] - first[name]

            self.assertGreater(grown('vmm_vcpu_exits_total{vcpu="0",reason="io"}'), 0)
            self.assertEqual(second['vmm_vcpu_exits_total{vcpu="1",reason="io"}'], 0)
            self.assertGreater(grown('vmm_guest_time_seconds_total'), 0)
            self.assertGreater(grown('vmm_vcpu_cpu_seconds_total{vcpu="0",mode="host"}')
                               + grown('vmm_vcpu_cpu_seconds_total{vcpu="0",mode="guest"}'), 0)
            self.assertIn('vmm_vcpu_steal_seconds_total{vcpu="1"}', second)
            self.assertEqual(second['vmm_guest_state{state="paused"}'], 1)
            # what a stopped guest counts stands still
            third = self.samples(guest)
            for name in second:
                if name.startswith(("vmm_vcpu_exits", "vmm_guest_time")):
                    self.assertEqual(second[name], third[name], name)

    @unittest.skipIf(os.environ.get("VMM_TEST_SANITIZED"), "the sanitizer reports crashes by itself")
    def test_crash_tells_the_last_exits(self):
        """Killed on a vCPU's thread: the report names the thread, and what the guest did last."""
        with self.start(cpus=2) as guest:
            thread = guest.qmp.command("query-cpus-fast")[0]["thread-id"]
            subprocess.run(["python3", "-c", "import ctypes,sys; "
                            "sys.exit(ctypes.CDLL(None).syscall(234, *map(int, sys.argv[1:])) != 0)",     # tgkill
                            str(guest.pid), str(thread), str(int(signal.SIGSEGV))], check=True)
            self.assertEqual(guest.wait_exit(20), -signal.SIGSEGV)
            text = guest.stderr()
        self.assertIn(f"SIGSEGV at address 0x0 in thread {thread}", text)
        self.assertRegex(text, r"vmm: crash: backtrace: \S+")
        exits = re.search(rf"CPU 0 \(thread {thread}\) last exits, newest first:(.*)", text)[1].split(";")[:-1]
        self.assertEqual(len(exits), 32)
        for one in exits:
            self.assertRegex(one, r"^ (io read 0x3fd/1|io write 0x3f8/1=0x[0-9a-f]{1,2}|mmio .*|intr|irq-window-open)$")


if __name__ == "__main__":
    vmmtest.main()
