"""What the tests of this directory share: each shows commands, events and subjects of `info` on a guest that runs on KVM.

`@shows("stop", "STOP", "info status")` over a test says what it shows: commands and subjects as they are, events in capitals. After the
test the decorator looks whether that is so: the commands were answered without an error, the events came, and the subjects were
printed, in this test and by its guests. refuses: commands that have nothing to do here and were refused. What is shown by
nobody is found by test_complete.py, which holds the claims of all files against the server's own lists.
"""

import functools
import os
import re
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("lib", "guest", "migration", "control"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))
import assets  # noqa: E402
import vmmtest  # noqa: E402

MIB = 1 << 20
EXIT = ("-device", "isa-debug-exit,iobase=0xf4,iosize=4")
ENDED = 0x10 << 1 | 1   # a payload that ended well
CLAIMS = {}     # name -> the tests that show it
REFUSED = {}    # the same, of commands that can only be refused


def shows(*names, refuses=()):
    """See above."""
    def decorate(test):
        for name in names:
            CLAIMS.setdefault(name, []).append(test.__qualname__)
        for name in refuses:
            REFUSED.setdefault(name, []).append(test.__qualname__)

        @functools.wraps(test)
        def run(self):
            test(self)
            done, refused = self.subjects.copy(), set()
            for client in self.clients:
                done |= client.answered | client.told
                refused |= client.refused
            self.assertEqual(sorted(set(names) - done), [], "said to be shown")
            self.assertEqual(sorted(set(refuses) - refused), [], "said to be refused")
        return run
    return decorate


class Case(vmmtest.TestCase):
    """A test whose guests are remembered."""

    def setUp(self):
        self.clients, self.subjects = [], set()

    def watch(self, guest):
        """This guest counts, and ends with the test."""
        self.addCleanup(guest.close)
        self.clients.append(guest.qmp)
        self.assertEqual(guest.qmp.command("query-kvm"), {"enabled": True, "present": True})
        guest.qmp.answered.clear()
        return guest

    def start(self, *args, payload="observer", wait=True, **options):
        """A running payload; without wait it may not run yet."""
        options.setdefault("memory", 64)
        guest = self.watch(self.guest("-kernel", assets.payload(payload), *EXIT, *args, **options))
        return self.ready(guest) if wait else guest

    def ready(self, guest):
        """The payload runs."""
        match = guest.serial.wait_for(r"(?:beat at (\w+), pattern at (\w+)\r\n)?ready\r", 60)
        if match[1]:
            guest.beat_at, guest.pattern_at = (int(address, 16) for address in match.groups())
        return guest

    def client(self, guest):
        """One more client of the guest."""
        client = guest.connect_qmp()
        self.addCleanup(client.close)
        self.clients.append(client)
        return client

    def hmp(self, guest, line):
        """A line of the human monitor; what it prints, with simple line ends."""
        return guest.qmp.execute("human-monitor-command", {"command-line": line}).replace("\r", "")

    def info(self, guest, subject):
        """The same of `info`."""
        text = self.hmp(guest, "info " + subject)
        self.assertNotIn("unknown command", text)
        self.subjects.add("info " + subject)
        return text

    def image(self, name, size=MIB, text=""):
        """The path of an image whose every 2048 bytes begin with text."""
        path = os.path.join(self.folder(), name)
        with open(path, "wb") as image:
            for at in range(0, size, 2048 if text else MIB):
                image.seek(at)
                image.write(text.encode())
            image.truncate(size)
        return path

    def folder(self):
        """For this test's files."""
        if not hasattr(self, "_folder"):
            self._folder = tempfile.TemporaryDirectory(prefix="vmm-commands-")
            self.addCleanup(self._folder.cleanup)
        return self._folder.name

    def path(self, name):
        """A file there."""
        return os.path.join(self.folder(), name)

    def does(self, guest, order, answer, timeout=30):
        """Tell the observer (payloads/observer.c) and wait for what it says."""
        guest.serial.send(order + "\n")
        return guest.serial.wait_for(answer, timeout)

    def beat(self, guest):
        """The observer's counter, which moves as long as the guest runs."""
        text = self.hmp(guest, f"xp /1xg {guest.beat_at:#x}")
        return int(re.search(r": 0x(\w+)", text)[1], 16)
