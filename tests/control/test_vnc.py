#!/usr/bin/env python3
"""-vnc: the screen, keyboard and mouse over RFB, passwords, hostile clients. Without a CPU (-accel qtest): the test plays
the guest, and guest time moves when it says so."""

import os
import socket
import struct
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Vmm, run  # noqa: E402
from rfb import Rfb, RfbError  # noqa: E402
from test_qmp import Schema  # noqa: E402
import vmmtest  # noqa: E402

MS = 1000000


class Machine:
    """A vmm with a VGA, a VNC server and the test in the guest's place."""

    def __init__(self, options="", *more):
        self.vmm = Vmm(*more, "-vga", "std", "-vnc", "unix:@DIR@/vnc" + options, "-qtest", "unix:@DIR@/qtest,server=on,wait=off")
        self.board = self.vmm.qtest()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.board.close()
        self.vmm.close()

    def client(self, **options):
        return Rfb(self.vmm.path("vnc"), **options)

    def step(self, ms):
        self.board.ask(f"clock_step {ms * MS}")

    def graphics(self, width, height):
        """A 32-bit linear mode; pixels are written through the window at A0000h."""
        self.board.ask("inb 0x3da")
        self.board.ask("outb 0x3c2 0x63")
        self.board.ask("inb 0x3da")
        self.board.ask("outb 0x3c0 0x20")
        for index, value in ((4, 0), (1, width), (2, height), (3, 32), (4, 0x41)):
            self.board.ask(f"outw 0x1ce {index}")
            self.board.ask(f"outw 0x1cf {value}")

    def plot(self, x, y, width, color):
        self.board.ask(f"writel {0xa0000 + (y * width + x) * 4:#x} {color:#x}")

    def until(self, client, condition, what):
        """Let the screen refresh and the client look until it sees something."""
        def seen():
            self.step(50)
            client.update(patience=0.2)
            return condition()

        vmmtest.poll(seen, 20, what, 0.001)

    def scan_code(self, what="a byte from the 8042"):
        """The next byte at port 60h, and whether it is the mouse's."""
        status = []

        def ready():
            status[:] = [self.board.number("inb 0x64")]
            if not status[0] & 1:
                self.step(1)
            return status[0] & 1

        vmmtest.poll(ready, 20, what, 0.001)
        return self.board.number("inb 0x60"), bool(status[0] & 0x20)

    def scan_codes(self, count):
        return [self.scan_code()[0] for _ in range(count)]


class Screen(unittest.TestCase):
    """What clients see."""

    def test_size_and_pixels_follow_the_guest(self):
        with Machine() as machine:
            client = machine.client()
            self.assertEqual((client.width, client.height), (640, 400))
            machine.graphics(160, 100)
            machine.plot(3, 5, 160, 0x123456)
            machine.until(client, lambda: client.width == 160 and client.pixel(3, 5) == 0x123456, "the first picture")
            self.assertEqual(client.height, 100)
            machine.plot(159, 77, 160, 0xabcdef)
            machine.until(client, lambda: client.pixel(159, 77) == 0xabcdef, "the second pixel")
            self.assertEqual(client.pixel(3, 5), 0x123456)
            self.assertEqual(client.pixel(4, 5), 0)
            # A client that comes later sees the same.
            late = machine.client()
            machine.until(late, lambda: late.pixel(159, 77) == 0xabcdef, "the picture of a late client")
            late.close()
            machine.graphics(320, 200)
            machine.until(client, lambda: (client.width, client.height) == (320, 200), "the new size")

    def test_size_changes_while_a_client_introduces_itself(self):
        """After ServerInit told it the old size and before it says that it understands new ones."""
        with Machine() as machine:
            other = machine.client()

            def change():
                machine.graphics(160, 100)
                machine.plot(3, 5, 160, 0x123456)
                machine.until(other, lambda: other.width == 160 and other.pixel(3, 5) == 0x123456, "the picture")

            client = machine.client(before_encodings=change)
            self.assertEqual((client.width, client.height), (640, 400))
            machine.until(client, lambda: client.width == 160 and client.pixel(3, 5) == 0x123456, "the new size")

    def test_encodings(self):
        """Compressed encodings work, also inside the sandbox of the server's thread."""
        with Machine() as machine:
            machine.graphics(160, 104)
            for i in range(160):
                machine.plot(i, i % 100, 160, i * 0x10305)
            raw = machine.client()
            machine.until(raw, lambda: raw.width == 160 and raw.pixel(159, 59) == 159 * 0x10305, "the picture")
            for encoding in (1, 2, 4, 5, 6, 7, 8, 9, 16, 17):
                client = machine.client()
                client.sock.sendall(struct.pack(">BxHiii", 2, 3, encoding, -24, -250))   # with JPEG, compression 6
                client.request(False)
                kind, count = struct.unpack(">BxH", client.read(4))
                self.assertEqual(kind, 0)
                self.assertGreater(count, 0)
                x, y, width, height, used = struct.unpack(">HHHHi", client.read(12))
                self.assertLessEqual(x + width, 160)
                self.assertLessEqual(y + height, 104)
                self.assertIn(used, (encoding, 0))
                client.close()
            self.assertEqual(len([name for name in self.threads(machine) if name == "vnc"]), 1)

    def threads(self, machine):
        """Name of each thread; the server's must have a filter of its own on top of the main thread's."""
        names = []
        for task in os.listdir(f"/proc/{machine.vmm.pid}/task"):
            with open(f"/proc/{machine.vmm.pid}/task/{task}/status", encoding="ascii") as stream:
                status = dict(line.split(":\t", 1) for line in stream.read().splitlines() if ":\t" in line)
            names.append(status["Name"])
            if status["Name"] == "vnc" and int(status.get("Seccomp_filters", 0)):
                self.assertEqual(int(status["Seccomp_filters"]), 2)
        return names

    def test_exclusive_client_ends_the_others(self):
        with Machine() as machine:
            first, second = machine.client(), machine.client()
            first.update(False)
            second.update(False)
            third = machine.client(shared=False)
            third.update(False)
            for client in (first, second):
                with self.assertRaises((RfbError, ConnectionError)):
                    for _ in range(10):
                        client.update(False)
        with Machine(",share=force-shared") as machine:
            first, second = machine.client(), machine.client(shared=False)
            second.update(False)
            first.update(False)

    def test_no_client_no_rendering_and_no_descriptors_left(self):
        with Machine() as machine:
            machine.client().close()
            vmmtest.poll(lambda: not machine.vmm.qmp.command("query-vnc")["clients"], 10, "the client to be gone")
            before = machine.vmm.fds()
            for _ in range(20):
                client = machine.client()
                client.update(False)
                client.close()
            vmmtest.poll(lambda: machine.vmm.fds() <= before and
                         not machine.vmm.qmp.command("query-vnc")["clients"], 10, "all clients to be gone")


class Input(unittest.TestCase):
    """What the guest gets. Scan codes are set 1 (translated)."""

    def test_text_arrives_as_text(self):
        with Machine() as machine:
            client = machine.client()
            client.type("a")
            self.assertEqual(machine.scan_codes(2), [0x1e, 0x9e])
            client.type("A")  # no Shift key from the client: it is pressed around the letter
            self.assertEqual(machine.scan_codes(4), [0x2a, 0x1e, 0x9e, 0xaa])
            client.key(0xffe1, 1)
            client.type("A")
            client.key(0xffe1, 0)
            self.assertEqual(machine.scan_codes(4), [0x2a, 0x1e, 0x9e, 0xaa])
            client.key(0xffe1, 1)  # a German keyboard's Shift and 7
            client.type("/")
            client.key(0xffe1, 0)
            self.assertEqual(machine.scan_codes(6), [0x2a, 0xaa, 0x35, 0xb5, 0x2a, 0xaa])
            client.key(0xffe3, 1)
            client.type("c")
            client.key(0xffe3, 0)
            self.assertEqual(machine.scan_codes(4), [0x1d, 0x2e, 0xae, 0x9d])
            client.key(0xff52, 1)
            client.key(0xff52, 0)
            self.assertEqual(machine.scan_codes(4), [0xe0, 0x48, 0xe0, 0xc8])

    def test_keys_are_released_when_the_client_leaves(self):
        with Machine() as machine:
            client = machine.client()
            client.key(0xffe3, 1)
            self.assertEqual(machine.scan_codes(1), [0x1d])
            client.close()
            self.assertEqual(machine.scan_codes(1), [0x9d])

    def test_pointer_moves_the_ps2_mouse(self):
        with Machine() as machine:
            board = machine.board
            board.ask("outb 0x64 0xd4")
            board.ask("outb 0x60 0xf4")
            self.assertEqual(machine.scan_code(), (0xfa, True))
            client = machine.client()
            client.pointer(100, 100)
            client.pointer(107, 95, 1)
            self.assertEqual([machine.scan_code() for _ in range(3)], [(0x09, True), (7, True), (5, True)])
            client.pointer(107, 95, 0)
            self.assertEqual(machine.scan_codes(3), [0x08, 0, 0])


class Access(unittest.TestCase):
    """Passwords."""

    def refused(self, machine, password):
        with self.assertRaises(RfbError):
            machine.client(password=password)

    def test_password(self):
        with Machine(",password=on") as machine:
            qmp = machine.vmm.qmp
            self.assertEqual(qmp.command("query-vnc")["auth"], "vnc")
            one, (server,) = qmp.command("query-vnc"), qmp.command("query-vnc-servers")
            self.assertEqual((server["auth"], server["clients"]), (one["auth"], one["clients"]))
            self.assertEqual([(a["host"], a["service"]) for a in server["server"]], [(one["host"], one["service"])])
            self.refused(machine, "")  # none is set yet: nobody comes in
            qmp.command("set_password", protocol="vnc", password="secret")
            self.refused(machine, "wrong")
            client = machine.client(password="secret")
            self.assertEqual(client.security, [2])
            client.update(False)
            self.assertEqual(len(qmp.command("query-vnc")["clients"]), 1)
            qmp.command("expire_password", protocol="vnc", time="now")
            self.refused(machine, "secret")
            client.update(False)  # who is in stays in
            qmp.command("expire_password", protocol="vnc", time="+60")
            machine.client(password="secret").close()
            qmp.command("change-vnc-password", password="longer than eight")
            machine.client(password="longer t").close()
            with self.assertRaises(vmmtest.QMPError):
                qmp.command("expire_password", protocol="vnc", time="soon")

    def test_password_of_a_secret(self):
        secret = ["-object", '{"qom-type":"secret","id":"pw","data":"b3BlbiBzZXNhbWU=","format":"base64"}']
        with Machine(",password-secret=pw", *secret) as machine:
            self.refused(machine, "wrong")
            machine.client(password="open ses").close()
            self.assertEqual(machine.vmm.qmp.command("query-vnc")["auth"], "vnc")
        with self.assertRaises(ConnectionError) as caught:
            Machine(",password-secret=nope", *secret)
        self.assertIn("No secret with id 'nope'", str(caught.exception))

    def test_without_password(self):
        with Machine() as machine:
            self.assertEqual(machine.client().security, [1])
            with self.assertRaises(vmmtest.QMPError) as caught:
                machine.vmm.qmp.command("set_password", protocol="vnc", password="x")
            self.assertIn("password=on", str(caught.exception))


class Management(unittest.TestCase):
    """What QMP shows of the server and its clients."""

    def test_events_and_query(self):
        with Machine() as m:
            qmp = m.vmm.qmp
            info = qmp.command("query-vnc")
            self.assertEqual((info["enabled"], info["family"], info["service"], info["auth"], info["clients"]),
                             (True, "unix", m.vmm.path("vnc"), "none", []))
            schema = Schema(qmp.command("query-qmp-schema"))
            client = m.client()
            for name in ("VNC_CONNECTED", "VNC_INITIALIZED"):
                event = qmp.wait_event(name, 10)
                schema.check(schema.entries[name]["arg-type"], event["data"], name)
                self.assertEqual(event["data"]["server"]["service"], m.vmm.path("vnc"))
            self.assertEqual(len(qmp.command("query-vnc")["clients"]), 1)
            client.close()
            qmp.wait_event("VNC_DISCONNECTED", 10)
            vmmtest.poll(lambda: not qmp.command("query-vnc")["clients"], 10, "the client to be forgotten")

    def hand_over(self, machine, fd, **options):
        """Pass a descriptor with getfd and have it served."""
        sock = machine.vmm.connect()
        stream = sock.makefile("rwb")
        stream.readline()
        stream.write(b'{"execute":"qmp_capabilities"}')
        stream.flush()
        stream.readline()
        socket.send_fds(sock, [b'{"execute":"getfd","arguments":{"fdname":"graphicsfd"}}'], [fd])
        self.assertIn(b"return", stream.readline())
        stream.close()
        sock.close()
        return machine.vmm.qmp.command("add_client", fdname="graphicsfd", **options)

    def test_add_client(self):
        with Machine(",password=on") as m:
            m.vmm.qmp.command("set_password", protocol="vnc", password="sesame")
            for password, skip in (("sesame", False), (None, True)):
                ours, theirs = socket.socketpair()
                self.hand_over(m, theirs.fileno(), protocol="vnc", skipauth=skip)
                theirs.close()
                client = Rfb(ours, password=password)
                self.assertEqual(client.security, [1] if skip else [2])
                m.vmm.qmp.wait_event("VNC_INITIALIZED", 10)
                client.close()
                m.vmm.qmp.wait_event("VNC_DISCONNECTED", 10)
            before = m.vmm.fds()
            reader, writer = os.pipe()
            for fd, options in ((reader, {"protocol": "vnc"}), (reader, {"protocol": "spice"})):
                with self.assertRaises(vmmtest.QMPError):
                    self.hand_over(m, fd, **options)
            with self.assertRaisesRegex(vmmtest.QMPError, "nosuch"):
                m.vmm.qmp.command("add_client", protocol="vnc", fdname="nosuch")
            os.close(reader)
            os.close(writer)
            vmmtest.poll(lambda: m.vmm.fds() == before, 10, "no descriptor to be left")

    def test_wrong_password_never_initializes(self):
        with Machine(",password=on") as m:
            m.vmm.qmp.command("set_password", protocol="vnc", password="right")
            with self.assertRaises(RfbError):
                m.client(password="wrong")
            m.vmm.qmp.wait_event("VNC_DISCONNECTED", 10)
            self.assertEqual(len(m.vmm.qmp.take_events("VNC_CONNECTED")), 1)
            self.assertEqual(m.vmm.qmp.take_events("VNC_INITIALIZED"), [])


class Hostile(unittest.TestCase):
    """Clients that do not behave stop nobody but themselves."""

    def alive(self, machine):
        start = time.monotonic()
        machine.vmm.qmp.command("query-status")
        machine.step(10)
        self.assertLess(time.monotonic() - start, 1 * vmmtest.SLOW)

    def test_client_that_does_not_read(self):
        with Machine() as machine:
            machine.graphics(1024, 768)
            good, bad = machine.client(), machine.client()
            machine.until(bad, lambda: bad.width == 1024, "the size")
            for _ in range(30):  # 3 MiB each, and nobody takes them
                bad.request(False)
            for _ in range(20):
                self.alive(machine)
                time.sleep(0.01)
            machine.plot(1, 1, 1024, 0x00ff00)
            machine.until(good, lambda: good.width == 1024 and good.pixel(1, 1) == 0x00ff00, "the picture")
            vmmtest.poll(lambda: len(machine.vmm.qmp.command("query-vnc")["clients"]) == 1, 20,
                         "the client that does not read to be dropped")

    def test_half_messages_and_garbage(self):
        with Machine() as machine:
            half = machine.client()
            half.sock.sendall(b"\4\1")  # a quarter of a key event
            self.alive(machine)
            silent = socket.socket(socket.AF_UNIX)
            silent.connect(machine.vmm.path("vnc"))
            garbage = socket.socket(socket.AF_UNIX)
            garbage.connect(machine.vmm.path("vnc"))
            garbage.sendall(os.urandom(4096))
            cut = machine.client()
            cut.sock.sendall(b"\6\0\0\0\x7f\xff\xff\xff" + b"x" * 1000)  # clipboard of 2 GiB
            huge = machine.client()
            huge.sock.sendall(b"\2\0\xff\xff" + b"\0" * 100)  # 65535 encodings
            self.alive(machine)
            good = machine.client(timeout=30)
            good.update(False)
            for sock in (silent, garbage, half.sock, cut.sock, huge.sock):
                sock.close()

    def test_many_clients(self):
        with Machine() as machine:
            clients = []
            for _ in range(40):
                try:
                    clients.append(machine.client())
                except (RfbError, ConnectionError):
                    break
            self.assertGreaterEqual(len(clients), 8)
            self.assertLess(len(clients), 40)
            self.alive(machine)
            for client in clients:
                client.close()
            vmmtest.poll(lambda: not machine.vmm.qmp.command("query-vnc")["clients"], 20, "all clients to be gone")
            machine.client().close()


class Options(unittest.TestCase):
    """-vnc's argument."""

    def test_tcp_and_to(self):
        with Vmm("-vga", "std", "-vnc", "127.0.0.1:70,to=99") as one, Vmm("-vga", "std", "-vnc", "127.0.0.1:70,to=99") as two:
            services = {int(vmm.qmp.command("query-vnc")["service"]) for vmm in (one, two)}
            self.assertEqual(len(services), 2)
            for service in services:
                client = Rfb(("127.0.0.1", service))
                client.update(False)
                client.close()
            status, text = run("-vga", "std", "-vnc", f"127.0.0.1:{min(services) - 5900}")
            self.assertEqual(status, 1)
            self.assertIn("in use", text)

    def test_refused(self):
        for spec, word in (("here", "HOST:N"), ("127.0.0.1:x", "display number"), ("127.0.0.1:60000", "59635"),
                           (":1,websocket=on", "websocket"), (":1,tls-creds=t", "tls-creds"), (":1,reverse=on", "reverse"),
                           (":1,colour=on", "colour"), (":1,share=some", "share"), ("unix:/nonexistent/x", "/nonexistent/x"),
                           ("unix:" + "x" * 200, "characters"), ("no-such-host.invalid:1", "no-such-host")):
            status, text = run("-vga", "std", "-vnc", spec)
            self.assertEqual(status, 1, text)
            self.assertIn(word, text)
            self.assertEqual(len(text.strip().splitlines()), 1, text)

    def test_unix_socket_of_a_dead_process_is_taken_over(self):
        with Machine() as machine:
            path = machine.vmm.path("vnc")
            status, text = run("-vga", "std", "-vnc", f"unix:{path}")
            self.assertEqual(status, 1)
            self.assertIn("in use", text)
            machine.vmm.process.kill()
            machine.vmm.process.wait()
            self.assertTrue(os.path.exists(path))
            with Vmm("-vga", "std", "-vnc", f"unix:{path}"):
                Rfb(path).close()
            self.assertFalse(os.path.exists(path))

    def test_without_a_graphics_adapter(self):
        with Vmm("-vga", "none", "-vnc", "unix:@DIR@/vnc") as vmm:
            client = Rfb(vmm.path("vnc"))
            client.update(False)
            self.assertEqual((client.width, client.height), (640, 400))


if __name__ == "__main__":
    vmmtest.main()
