#!/usr/bin/env python3
"""The terminal: stdio and its mux as a person at the keyboard meets them, and what is left of the terminal after."""

import os
import pty
import select
import shlex
import signal
import subprocess
import termios
import time
import unittest

from harness import Vmm, vmmtest


class Terminal:
    """vmm on a pseudo terminal."""

    def __init__(self, *args):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        argv = [vmmtest.VMM, "-accel", "qtest", "-m", "4", "-nodefaults"]
        argv += shlex.split(os.environ.get("VMM_TEST_ARGS", ""))
        self.process = subprocess.Popen(argv + list(args), stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                        start_new_session=True)
        self.seen = b""

    def settings(self):
        """Of the terminal, now."""
        return termios.tcgetattr(self.slave)

    def type(self, keys):
        """Send keys."""
        os.write(self.master, keys)

    def wait_for(self, text, timeout=15):
        """Read until text appears."""
        deadline = time.monotonic() + timeout * vmmtest.SLOW
        while text not in self.seen:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise TimeoutError(f"{text!r} did not appear in {self.seen!r}")
            self.seen += os.read(self.master, 4096)

    def raw_mode(self):
        """Wait until the terminal is raw."""
        vmmtest.poll(lambda: not self.settings()[3] & (termios.ICANON | termios.ECHO), 15, "raw mode")

    def close(self):
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


class Console(unittest.TestCase):
    """-nographic, -serial stdio and mon:stdio."""

    def terminal(self, *args):
        term = Terminal(*args)
        self.addCleanup(term.close)
        term.raw_mode()
        return term

    def assert_restored(self, term):
        self.assertEqual(term.settings(), term.before)

    def test_escapes(self):
        for options in (["-nographic", "-serial", "mon:stdio"], ["-display", "none", "-serial", "mon:stdio"],
                        ["-display", "none", "-chardev", "stdio,id=c,mux=on,signal=off", "-serial", "chardev:c"]):
            with self.subTest(options=options):
                term = self.terminal(*options)
                self.assertFalse(term.settings()[3] & termios.ISIG)  # Ctrl-C is the guest's
                term.type(b"\x01h")
                term.wait_for(b"Ctrl-A x")
                term.type(b"\x01c")
                term.wait_for(b"nothing else" if "-chardev" in options else b"(qemu) ")
                if "-chardev" not in options:
                    term.type(b"info status\r")
                    term.wait_for(b"VM status: running")
                    term.type(b"\x01c")
                term.type(b"\x03\x1a\x1c")
                term.type(b"\x01x")
                self.assertEqual(term.process.wait(15), 0)
                self.assert_restored(term)

    def test_guest_that_takes_nothing(self):
        term = self.terminal("-display", "none", "-serial", "mon:stdio")
        for _ in range(100):
            term.type(b"k" * 1000)  # no guest runs: nobody reads them
        term.type(b"\x01x")
        self.assertEqual(term.process.wait(15), 0)
        self.assert_restored(term)

    def test_signals_restore_the_terminal(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            term = self.terminal("-display", "none", "-serial", "stdio")
            self.assertTrue(term.settings()[3] & termios.ISIG)
            os.kill(term.process.pid, number)
            self.assertEqual(term.process.wait(15), 0)
            self.assert_restored(term)

    def test_failed_start_restores_the_terminal(self):
        term = Terminal("-display", "none", "-serial", "stdio", "-qmp", "unix:/nonexistent/x,server=on,wait=off")
        self.addCleanup(term.close)
        self.assertEqual(term.process.wait(15), 1)
        self.assert_restored(term)
        term.wait_for(b"/nonexistent/x")

    def test_output_reaches_the_terminal(self):
        with Vmm(qmp=False) as probe:
            path = probe.path("q")
            term = self.terminal("-display", "none", "-serial", "mon:stdio", "-qtest", f"unix:{path},server=on,wait=off")
            board = probe.qtest(path)
            for char in b"Hello\r\n":
                board.ask(f"outb 0x3f8 {char}")
            term.wait_for(b"Hello\r\r\n")
            term.type(b"k")
            vmmtest.poll(lambda: board.number("inb 0x3fd") & 1, 10, "the key")
            self.assertEqual(board.number("inb 0x3f8"), ord("k"))
            term.type(b"\x01b")
            vmmtest.poll(lambda: board.number("inb 0x3fd") & 0x10, 10, "the break")
            board.close()
            self.assertEqual(term.process.wait(15), 0)
            self.assert_restored(term)

    def test_stdin_from_a_file_or_nowhere(self):
        with Vmm(qmp=False) as probe:
            with open(probe.path("input"), "wb") as stream:
                stream.write(b"typed in advance")
            for source in (probe.path("input"), "/dev/null"):
                path = probe.path("q" + str(len(source)))
                with open(source, "rb") as stdin:
                    with Vmm("-serial", "stdio", "-qtest", f"unix:{path},server=on,wait=off", qmp=False, stdin=stdin) as vmm:
                        board = vmm.qtest(path)
                        got = b""
                        if source != "/dev/null":
                            while len(got) < 16:
                                vmmtest.poll(lambda: board.number("inb 0x3fd") & 1, 10, "input")
                                got += bytes([board.number("inb 0x3f8")])
                            self.assertEqual(got, b"typed in advance")
                        board.ask("outb 0x3f8 0x21")
                        vmmtest.poll(lambda: vmm.stderr().endswith("!"), 10, "output")  # both go to one file
                        busy = vmm.cpu_ticks()
                        time.sleep(0.2)
                        self.assertLessEqual(vmm.cpu_ticks() - busy, 2)  # end of input does not spin
                        board.close()

    def test_stdio_twice_is_refused(self):
        term = Terminal("-display", "none", "-serial", "stdio", "-serial", "stdio")
        self.addCleanup(term.close)
        self.assertEqual(term.process.wait(15), 1)
        term.wait_for(b"mux=on")
        self.assert_restored(term)


if __name__ == "__main__":
    vmmtest.main()
