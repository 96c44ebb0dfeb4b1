#!/usr/bin/env python3
"""Character devices that come and go over QMP."""

import os
import socket
import unittest

from harness import Vmm, vmmtest


class Hotplug(unittest.TestCase):
    """chardev-add and chardev-remove."""

    def setUp(self):
        self.vmm = Vmm("-chardev", "null,id=used", "-serial", "chardev:used", "-chardev", "null,id=shared,mux=on", "-mon",
                       "chardev=shared,mode=readline")
        self.addCleanup(self.vmm.close)
        self.qmp = self.vmm.qmp

    def add(self, name, kind, **data):
        return self.qmp.execute("chardev-add", {"id": name, "backend": {"type": kind, "data": data}})

    def filename(self, name):
        return {c["label"]: c["filename"] for c in self.qmp.command("query-chardev")}.get(name)

    def refused(self, pattern, command, arguments):
        with self.assertRaisesRegex(vmmtest.QMPError, pattern):
            self.qmp.execute(command, arguments)

    def test_every_kind(self):
        before = self.vmm.fds()
        path = self.vmm.path("sock")
        os.mkfifo(self.vmm.path("fifo"))
        master, slave = os.openpty()
        for kind, data, shown in (("null", {}, "null"), ("ringbuf", {"size": 128}, "ringbuf"),
                                  ("file", {"out": self.vmm.path("out"), "append": True}, "file"),
                                  ("pipe", {"device": self.vmm.path("fifo")}, "pipe"),
                                  ("serial", {"device": os.ttyname(slave)}, "serial"),
                                  ("pty", {}, "pty:/dev/pts/"),
                                  ("socket", {"addr": {"type": "unix", "data": {"path": path}}, "wait": False}, path),
                                  ("socket", {"addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}},
                                              "server": True, "telnet": True}, "127.0.0.1")):
            with self.subTest(kind):
                answer = self.add("new", kind, **data)
                self.assertIn(shown, self.filename("new"))
                if kind == "pty":
                    self.assertTrue(os.path.exists(answer["pty"]))
                if data.get("addr", {}).get("type") == "unix":
                    with socket.socket(socket.AF_UNIX) as client:
                        client.connect(path)
                self.qmp.execute("chardev-remove", {"id": "new"})
                self.assertIsNone(self.filename("new"))
        os.close(master)
        os.close(slave)
        vmmtest.poll(lambda: self.vmm.fds() == before, 20, "no descriptor to be left")

    def test_it_works(self):
        self.add("log", "ringbuf", size=64)
        self.qmp.command("ringbuf-write", device="log", data="hello")
        self.assertEqual(self.qmp.command("ringbuf-read", device="log", size=10), "hello")

    def test_break(self):
        """A break sets BI in the line status register."""
        with Vmm("-chardev", "null,id=line", "-serial", "chardev:line", "-qtest", "unix:@DIR@/qtest,server=on,wait=off") as vmm:
            board = vmm.qtest()
            self.assertFalse(board.number("inb 0x3fd") & 0x10)
            vmm.qmp.execute("chardev-send-break", {"id": "line"})
            self.assertTrue(board.number("inb 0x3fd") & 0x10)
            with self.assertRaisesRegex(vmmtest.QMPError, "'nosuch' not found"):
                vmm.qmp.execute("chardev-send-break", {"id": "nosuch"})
            board.close()

    def test_mistakes(self):
        self.refused("'nosuch' not found", "chardev-remove", {"id": "nosuch"})
        for name in ("used", "shared", "compat_monitor0"):
            self.refused(f"'{name}' is busy", "chardev-remove", {"id": name})
        for pattern, name, kind, data in (("used", "used", "null", {}), ("does not accept value 'warp'", "x", "warp", {}),
                                          ("out' is missing", "x", "file", {}), ("/nowhere/x", "x", "file", {"out": "/nowhere/x"}),
                                          ("on the command line|command line", "x", "socket",
                                           {"addr": {"type": "unix", "data": {"path": "/x"}}, "wait": True}),
                                          ("/nowhere", "x", "socket", {"addr": {"type": "unix", "data": {"path": "/nowhere/x"}}}),
                                          ("nofd", "x", "socket", {"addr": {"type": "fd", "data": {"str": "nofd"}}}),
                                          ("unexpected", "x", "null", {"size": 5})):
            self.refused(pattern, "chardev-add", {"id": name, "backend": {"type": kind, "data": data}})
        self.assertIsNone(self.filename("x"))


if __name__ == "__main__":
    vmmtest.main()
