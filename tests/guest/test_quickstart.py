#!/usr/bin/env python3
"""The README's first command as a new user types it: a shell on the terminal that answers; Ctrl-A x ends it."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import test_linux           # noqa: E402
import test_linux_smoke     # noqa: E402
import vmmtest              # noqa: E402


class Terminal:
    """A program on a pseudo terminal."""

    def __init__(self, *argv, env):
        self.text, self.seen = "", 0
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=env)
        os.close(slave)

    def type(self, text):
        os.write(self.master, text.encode())

    def wait_for(self, pattern, timeout):
        """Until it stands in what came since the last time."""
        end = time.monotonic() + timeout * vmmtest.SLOW
        while not (found := re.search(pattern, self.text[self.seen:])):
            if not select.select([self.master], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError(f"{timeout} s passed without {pattern!r}:\n{self.text[-2000:]}")
            try:
                self.text += os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:
                raise EOFError(f"it ended without {pattern!r}:\n{self.text[-2000:]}") from None
        self.seen += found.end()

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)


class Quickstart(vmmtest.TestCase):
    """With what is installed and built already."""

    def try_it(self):
        build = os.path.dirname(os.path.dirname(os.path.abspath(vmmtest.VMM)))
        terminal = Terminal(os.path.join(vmmtest.ROOT, "tools", "quickstart"), env=dict(os.environ, VMM_BUILD_DIR=build))
        try:
            terminal.wait_for("booting; Ctrl-A x ends the guest", 600)
            terminal.wait_for("guest# ", test_linux.BOOT)
            terminal.type("uname -s; echo $((6*7))\n")
            terminal.wait_for(r"Linux\s+42\s", 60)
            terminal.type("\x01x")
            self.assertEqual(terminal.process.wait(20 * vmmtest.SLOW), 0)
        except (AssertionError, TimeoutError, EOFError):
            fault = re.search(f".*(?:{test_linux_smoke.HOSTS_FAULT}).*", terminal.text)
            if not fault:
                raise
            return fault[0]
        finally:
            terminal.close()
        return None

    def test_a_shell_on_the_terminal(self):
        fault = self.try_it()
        if fault:
            print(f"[a second try, because of: {fault.strip()}]", end=" ", file=sys.stderr, flush=True)
            fault = self.try_it()
        self.assertIsNone(fault)


if __name__ == "__main__":
    vmmtest.main()
