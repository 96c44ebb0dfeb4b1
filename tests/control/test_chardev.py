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


class Change(unittest.TestCase):
    """chardev-change: another back end under a device that does not notice."""

    DATA, STATUS = 0x3f8, 0x3fd

    def setUp(self):
        self.vmm = Vmm("-chardev", "ringbuf,id=line,size=64", "-serial", "chardev:line", "-chardev", "null,id=free",
                       "-chardev", "null,id=shared,mux=on", "-chardev", "socket,id=mon,path=@DIR@/mon,server=on,wait=off",
                       "-mon", "chardev=mon,mode=control", "-qtest", "unix:@DIR@/qtest,server=on,wait=off")
        self.addCleanup(self.vmm.close)
        self.qmp = self.vmm.qmp
        self.board = self.vmm.qtest()
        self.addCleanup(self.board.close)

    def change(self, name, kind, **data):
        return self.qmp.execute("chardev-change", {"id": name, "backend": {"type": kind, "data": data}})

    def info(self, name):
        return {c["label"]: c for c in self.qmp.command("query-chardev")}.get(name)

    def send(self, text):
        for byte in text.encode():
            self.board.ask(f"outb {self.DATA} {byte}")

    def read_file(self, name, text):
        def there():
            with open(self.vmm.path(name), encoding="ascii") as file:
                return file.read() == text
        vmmtest.poll(there, 20, f"{text!r} in {name}")

    def test_output_goes_on_elsewhere(self):
        self.send("one")
        self.assertEqual(self.qmp.command("ringbuf-read", device="line", size=10), "one")
        self.change("line", "file", out=self.vmm.path("first"))
        self.assertEqual(self.info("line")["filename"], "file")
        self.assertTrue(self.info("line")["frontend-open"])
        self.send("two")
        self.read_file("first", "two")
        self.change("line", "file", out=self.vmm.path("second"))
        self.send("three")
        self.read_file("second", "three")
        self.read_file("first", "two")
        with self.assertRaisesRegex(vmmtest.QMPError, "'line' is busy"):
            self.qmp.execute("chardev-remove", {"id": "line"})

    def test_input_comes_from_there(self):
        path = self.vmm.path("peer")
        self.change("line", "socket", addr={"type": "unix", "data": {"path": path}}, wait=False)
        with self.vmm.connect(path) as peer:
            peer.send(b"A")
            vmmtest.poll(lambda: self.board.number(f"inb {self.STATUS}") & 1, 20, "a character")
            self.assertEqual(self.board.number(f"inb {self.DATA}"), ord("A"))
            self.send("B")
            self.assertEqual(peer.recv(1), b"B")
            # What the guest has not read yet is not lost with the connection it came through.
            peer.send(b"xyz" * 20)
            vmmtest.poll(lambda: self.board.number(f"inb {self.STATUS}") & 1, 20, "a character")
            self.qmp.command("query-status")
            self.change("line", "null")
            self.assertEqual(peer.recv(1), b"", "the old peer is sent away")
        self.assertFalse(os.path.exists(path), "and its socket removed")
        taken = ""
        while self.board.number(f"inb {self.STATUS}") & 1:
            taken += chr(self.board.number(f"inb {self.DATA}"))
        self.assertEqual(taken, "xyz" * 20)

    def test_a_pty_is_named(self):
        pty = self.change("line", "pty")["pty"]
        self.assertEqual(self.info("line")["filename"], f"pty:{pty}")

    def test_one_that_nobody_uses(self):
        self.change("free", "ringbuf", size=16)
        self.qmp.command("ringbuf-write", device="free", data="hello")
        self.assertEqual(self.qmp.command("ringbuf-read", device="free", size=10), "hello")
        self.qmp.execute("chardev-remove", {"id": "free"})

    def test_mistakes_cost_nothing(self):
        self.board.number(f"inb {self.STATUS}")  # the connection is accepted
        before = self.vmm.fds()
        for pattern, name, kind, data in (("Chardev 'nosuch' does not exist", "nosuch", "null", {}),
                                          ("Mux device hotswap not supported yet", "shared", "null", {}),
                                          ("Chardev user does not support chardev hotswap", "mon", "null", {}),
                                          ("/nowhere/x", "line", "file", {"out": "/nowhere/x"}),
                                          ("does not accept value 'warp'", "line", "warp", {})):
            with self.subTest(pattern), self.assertRaisesRegex(vmmtest.QMPError, pattern):
                self.change(name, kind, **data)
        self.assertEqual(self.vmm.fds(), before)
        self.send("still")
        self.assertEqual(self.qmp.command("ringbuf-read", device="line", size=10), "still")

    def test_a_hundred_times(self):
        self.board.number(f"inb {self.STATUS}")  # the connection is accepted
        before = self.vmm.fds()
        for i in range(50):
            self.change("line", "pty")
            self.change("line", "socket", addr={"type": "unix", "data": {"path": self.vmm.path("peer")}}, wait=False)
            self.send("x")
        self.change("line", "ringbuf", size=64)
        vmmtest.poll(lambda: self.vmm.fds() == before, 20, "no descriptor to be left")


class AgentChannel(unittest.TestCase):
    """A port of virtio-serial changes hands, too."""

    def test_change(self):
        with Vmm("-device", "virtio-serial-pci", "-chardev", "null,id=agent",
                 "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0,id=port") as vmm:
            path = vmm.path("agent")
            vmm.qmp.execute("chardev-change", {"id": "agent", "backend": {"type": "socket", "data": {
                "addr": {"type": "unix", "data": {"path": path}}, "wait": False}}})
            vmm.connect(path).close()
            info = {c["label"]: c for c in vmm.qmp.command("query-chardev")}["agent"]
            self.assertFalse(info["frontend-open"], "the guest has not opened it")
            vmm.qmp.command("device_del", id="port")
            vmm.qmp.wait_event("DEVICE_DELETED")
            vmm.qmp.execute("chardev-remove", {"id": "agent"})


if __name__ == "__main__":
    vmmtest.main()
