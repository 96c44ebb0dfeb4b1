#!/usr/bin/env python3
"""The log of the real process: its options, and what a crash leaves behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import unittest

from harness import Vmm, run, vmmtest

SANITIZED = bool(os.environ.get("VMM_TEST_SANITIZED"))


class Options(unittest.TestCase):
    """-d, -D, -msg."""

    def test_help_and_mistakes(self):
        status, output = run("-d", "help")
        self.assertEqual(status, 0)
        self.assertIn("guest_errors", output)
        self.assertIn("block ", output)
        for args, text in ((("-d", "blokc"), "did you mean 'block'?"), (("-d", "block=loud"), "is not a level"),
                           (("-msg", "timestamp=maybe"), "expects 'on' or 'off'"), (("-msg", "colour=on"), "colour"),
                           (("-msg", "format=xml"), "'text' or 'json'"), (("-D", "/nonexistent/log"), "-D")):
            status, output = run(*args)
            self.assertEqual(status, 1, args)
            self.assertIn(text, output)

    def test_json_file(self):
        with Vmm("-msg", "format=json,guest-name=on", "-name", 'tw"in', "-D", "@DIR@/log", "-d", "all") as vmm:
            vmm.process.send_signal(signal.SIGTERM)
            self.assertEqual(vmm.wait_exit(), 0)
            with open(vmm.path("log"), encoding="ascii") as log:
                lines = [json.loads(line) for line in log]
        last = [line for line in lines if "terminating on signal 15" in line["text"]]
        self.assertEqual([(line["level"], line["room"], line["guest"]) for line in last], [("info", "main", 'tw"in')])
        self.assertRegex(last[0]["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")


@unittest.skipIf(SANITIZED, "the sanitizer reports crashes by itself")
class Crash(unittest.TestCase):
    """A process that is killed by a fault tells where it was."""

    def crash(self, number, *args):
        """Start, send the signal; returns what it said, after checking that it died of that signal."""
        with Vmm(*args) as vmm:
            vmm.process.send_signal(number)
            self.assertEqual(vmm.wait_exit(), -number)
            text = vmm.stderr()
            if "-D" in args:
                with open(vmm.path("log"), encoding="ascii") as log:
                    self.assertTrue(log.read().endswith(text.splitlines()[-1] + "\n"))
        return text

    def test_backtrace(self):
        for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
            for sandbox in ("on", "off"):
                text = self.crash(number, "-sandbox", sandbox)
                self.assertRegex(text, rf"vmm: crash: {signal.Signals(number).name} at address 0x[0-9a-f]+ in thread \d+ "
                                       r"\(main\)")
                frames = re.search(r"vmm: crash: backtrace:((?: \S+)+)", text)[1].split()
                self.assertGreater(len(frames), 3, text)
                ours = [frame.split("+")[1] for frame in frames if frame.startswith("vmm+")]
                self.assertGreater(len(ours), 2, text)
        if shutil.which("addr2line"):
            done = subprocess.run(["addr2line", "-f", "-e", vmmtest.VMM, *ours], stdout=subprocess.PIPE, text=True,
                                  check=True)
            self.assertIn("main\n", done.stdout)

    def test_log_file_and_json(self):
        text = self.crash(signal.SIGSEGV, "-D", "@DIR@/log", "-msg", "format=json")
        lines = [json.loads(line) for line in text.splitlines()]
        self.assertEqual({line["level"] for line in lines}, {"crash"})
        self.assertIn("SIGSEGV", lines[0]["text"])


if __name__ == "__main__":
    vmmtest.main()
