#!/usr/bin/env python3
"""Saved guests, checkpoints and live upgrades, side by side with QEMU.

A guest with FILL MiB of non-zero memory writes to 1 MiB of it all the time and prints a line after each round. Pauses are what vmm
tells and the largest gap the guest saw in its TSC. Restore times are from exec() to the first byte the guest prints; that
guest's round is 4 pages long, so that restore times say when the guest runs and not how fast it gets at its memory: a page that
KVM has to fetch costs it 20 us and more. vmm and QEMU take turns; the table shows medians. --check: exit status 1 if a
promise of docs/promises.md is missed.
"""

import argparse
import os
import re
import statistics
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
for room in ("lib", "guest", "migration"):
    sys.path.insert(0, os.path.join(HERE, "..", room))
sys.dont_write_bytecode = True
import assets  # noqa: E402
import vmmtest  # noqa: E402

QEMU = "qemu-system-x86_64"


def tsc_hz():
    """The TSC's frequency."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
        return float(re.search(r"cpu MHz\s*: ([\d.]+)", info.read())[1]) * 1e6


class Run:
    """One program under test; figures go into .figures[name]."""

    def __init__(self, program, fill, work):
        self.program, self.fill, self.work = program, fill, work
        self.qemu = "qemu" in program
        self.memory = fill + 74
        self.line = self.busy = f"start=32M size=1M fill={fill}M"
        self.short = f"start=32M size=16K fill={fill}M"
        self.figures = {}

    def add(self, name, value):
        """One measurement."""
        self.figures.setdefault(name, []).append(value)

    def guest(self, *args, start=True):
        """A guest of this program, with the machine spelled out."""
        vmmtest.VMM, vmmtest._is_qemu = self.program, self.qemu
        return vmmtest.Guest("-kernel", assets.payload("dirtier"), "-append", self.line, *args, memory=self.memory, start=start)

    def bare(self, *args):
        """vmm without a machine: that comes with the guest."""
        guest = self.guest(start=False)
        guest.argv = [self.program, "-chardev", f"socket,id=com0,path={guest.serial.path}", "-qmp",
                      f"unix:{guest.qmp_path},server=on,wait=off", "-display", "none", *args]
        guest.want_qmp = False
        return guest.start()

    def wait(self, guest):
        """Until the migration is over."""
        def over():
            info = guest.qmp.command("query-migrate")
            return info if info.get("status") in ("completed", "failed") else None
        info = vmmtest.poll(over, 120, "the migration", 0.005)
        assert info["status"] == "completed", info
        return info

    @staticmethod
    def first_byte(guest):
        """ms from exec to the first byte of the guest's."""
        with guest.serial.cond:
            assert guest.serial.cond.wait_for(lambda: guest.serial.data, 60)
        return (time.monotonic() - guest.started) * 1000

    @staticmethod
    def check(guest):
        """Every page is right; the longest gap since the last check, in ms."""
        guest.serial.send("x")
        match = guest.serial.wait_for(rb"(PASS dirtier rounds=\d+ gap=(\d+).*\r|FAIL.*\r)", 60)
        assert match[2], match[0]
        return int(match[2]) / tsc_hz() * 1000

    def save(self):
        """Files of a guest with a short round: stopped, and for vmm also running (.running)."""
        path = os.path.join(self.work, "qemu.save" if self.qemu else "vmm.save")
        with self.guest() as guest:
            guest.serial.wait_for("round 3\r", 120)
            if not self.qemu:
                self.checkpoint_to(guest, f"{path}.running")
            guest.qmp.command("stop")
            guest.qmp.execute("migrate-set-capabilities", {"capabilities": [{"capability": "background-snapshot", "state": False}]})
            if self.qemu:
                guest.qmp.execute("migrate-set-parameters", {"max-bandwidth": 1 << 40})
            begin = time.monotonic()
            guest.qmp.command("migrate", uri=f"exec:cat > {path}" if self.qemu else f"file:{path}")
            self.wait(guest)
            self.add("save", (time.monotonic() - begin) * 1000)
        return path

    def restores(self, path):
        """From that file, each way there is."""
        if self.qemu:
            with self.guest("-incoming", f"exec:cat {path}", start=False) as guest:
                guest.start()
                vmmtest.poll(lambda: guest.qmp.command("query-status")["status"] == "paused", 60, "the guest", 0.002)
                guest.qmp.command("cont")
                self.add("restore", self.first_byte(guest))
                self.check(guest)
            return
        for way, name in (("eager", "restore"), ("lazy", "restore_lazy"), ("private", "restore_private")):
            # A guest that was stopped when it was saved stays so.
            with self.bare("-incoming", f"file:{path}.running,map={way}") as guest:
                self.add(name, self.first_byte(guest))
                self.check(guest)

    def checkpoint_to(self, guest, path):
        """Save it while it runs."""
        guest.qmp.execute("migrate-set-capabilities", {"capabilities": [{"capability": "background-snapshot", "state": True}]})
        guest.qmp.command("migrate", uri=f"exec:cat > {path}" if self.qemu else f"file:{path}")
        return self.wait(guest)

    def checkpoint(self):
        """What the guest notices of it."""
        with self.guest() as guest:
            guest.serial.wait_for("round 3\r", 120)
            self.check(guest)
            info = self.checkpoint_to(guest, os.path.join(self.work, "checkpoint"))
            self.add("checkpoint_time", info["total-time"])
            if not self.qemu:
                self.add("checkpoint_pause", info["x-downtime"]["total-us"] / 1000)
            self.add("checkpoint_gap", self.check(guest))

    def upgrade(self):
        """To a new process, memory stays."""
        path = os.path.join(self.work, "m")
        with self.guest() as guest:
            guest.serial.wait_for("round 3\r", 120)
            with self.bare("-incoming", f"unix:{path}") as new:
                vmmtest.poll(lambda: os.path.exists(path), 20, "the new process", 0.002)
                self.check(guest)
                guest.qmp.command("migrate-set-parameters", mode="cpr-transfer")
                guest.qmp.command("migrate", uri=f"unix:{path}")
                info = self.wait(guest)
                self.add("upgrade_pause", info["x-downtime"]["total-us"] / 1000)
                self.add("upgrade_gap", self.check(new))

    def everything(self):
        """Each figure once."""
        self.line = self.short
        path = self.save()
        self.restores(path)
        self.line = self.busy
        try:
            self.checkpoint()
        except (vmmtest.QMPError, AssertionError) as error:
            if not self.qemu:
                raise
            print(f"QEMU: no checkpoint: {error}", file=sys.stderr)
        if not self.qemu:
            self.upgrade()


LIMITS = {"restore_lazy": 20, "restore_private": 20, "checkpoint_pause": 5, "upgrade_pause": 50}


def main():
    """Measure, print, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vmm", default=vmmtest.VMM)
    parser.add_argument("--qemu", default=QEMU, help="none: vmm alone")
    parser.add_argument("--fill", type=int, default=438, help="MiB of non-zero memory")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as work:
        runs = [Run(options.vmm, options.fill, work)]
        if options.qemu != "none":
            runs.append(Run(options.qemu, options.fill, work))
        for n in range(options.runs):
            for run in runs if n % 2 else runs[::-1]:
                run.everything()
    names = list(runs[0].figures)
    print(f"{'ms':<20}{'vmm':>10}{'QEMU':>10}   limit")
    for name in names:
        medians = [statistics.median(run.figures[name]) if name in run.figures else None for run in runs]
        bad = name in LIMITS and medians[0] > LIMITS[name]
        missed |= bad
        cells = "".join(f"{m:>10.1f}" if m is not None else f"{'-':>10}" for m in medians + [None] * (2 - len(medians)))
        print(f"{name:<20}{cells}   {LIMITS.get(name, '')}{'  MISSED' if bad else ''}")
    return 1 if missed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
