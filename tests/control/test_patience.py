#!/usr/bin/env python3
"""No command holds up the others, whatever it is pointed at: pipes that nobody reads, hosts that do not answer, work that takes long,
descriptors of every kind but the right one."""

import json
import os
import select
import socket
import threading
import unittest

from harness import Vmm, vmmtest

MACHINE = ("-vga", "std", "-drive", "if=none,id=cd,media=cdrom", "-device", "ide-cd,drive=cd,bus=ide.1", "-chardev", "null,id=line",
           "-serial", "chardev:line")


class Mute:
    """A TCP port whose queue is full: who connects waits."""

    def __init__(self):
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(0)
        self.first = socket.create_connection(self.listener.getsockname())
        # Only now is it full: as long as the first has not got there, the kernel says yes to whoever comes next.
        if not select.select([self.listener], [], [], 20)[0]:
            raise TimeoutError("waited 20 s for a connection of our own")
        self.port = str(self.listener.getsockname()[1])

    def close(self):
        self.first.close()
        self.listener.close()


class Patience(unittest.TestCase):
    """One client's command is under way or refused; another client is answered."""

    def setUp(self):
        self.vmm = Vmm(*MACHINE)
        self.addCleanup(self.vmm.close)
        self.mute = Mute()
        self.addCleanup(self.mute.close)

    def start(self, command, arguments):
        """Send it from a client of its own."""
        client = self.vmm.client()
        client.send_raw(json.dumps({"execute": command, "arguments": arguments}).encode())
        return client

    def others_go_on(self):
        for _ in range(3):
            self.assertTrue(self.vmm.qmp.command("query-status")["running"])

    def fifo(self, name):
        path = self.vmm.path(name)
        if not os.path.exists(path):
            os.mkfifo(path)
        return path

    def test_pipes_without_a_reader(self):
        """Each is refused at once."""
        pipe = self.fifo("pipe")
        for command, arguments in (
                ("screendump", {"filename": pipe}), ("dumpdtb", {"filename": pipe}),
                ("pmemsave", {"val": 0, "size": 100000, "filename": pipe}),
                ("dump-guest-memory", {"paging": False, "protocol": f"file:{pipe}"}),
                ("blockdev-create", {"job-id": "j", "options": {"driver": "file", "filename": pipe, "size": 1 << 20}}),
                ("blockdev-add", {"node-name": "n", "driver": "file", "filename": pipe}),
                ("blockdev-change-medium", {"device": "cd", "filename": pipe}),
                ("chardev-add", {"id": "c", "backend": {"type": "file", "data": {"out": pipe}}}),
                ("chardev-add", {"id": "c", "backend": {"type": "serial", "data": {"device": pipe}}}),
                ("chardev-change", {"id": "line", "backend": {"type": "file", "data": {"out": pipe}}}),
                ("object-add", {"qom-type": "secret", "id": "s", "file": pipe}),
                ("object-add", {"qom-type": "memory-backend-file", "id": "m", "size": 1 << 20, "mem-path": pipe, "share": True}),
                ("device_add", {"driver": "e1000", "id": "d", "romfile": pipe})):
            with self.subTest(command):
                client = self.start(command, arguments)
                self.others_go_on()
                self.assertEqual(client.receive()["error"]["class"], "GenericError")

    def test_pipe_that_is_read_late(self):
        """What fits in it is written; what does not is refused, or waited for by nobody else."""
        for command, arguments in (("dumpdtb", {}), ("screendump", {}), ("pmemsave", {"val": 0, "size": 1 << 20})):
            with self.subTest(command):
                pipe = self.fifo(command)
                reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
                client = self.start(command, {**arguments, "filename": pipe})
                self.others_go_on()
                got = 0
                while not client.replies:
                    if select.select([reader], [], [], 0.05)[0]:
                        got += len(os.read(reader, 1 << 16))
                self.assertIn("return", client.receive())
                os.set_blocking(reader, True)
                while part := os.read(reader, 1 << 16):
                    got += len(part)
                self.assertGreater(got, 1000)
                os.close(reader)

    def test_hosts_that_do_not_answer(self):
        for command, arguments in (
                ("chardev-add", {"id": "c", "backend": {"type": "socket", "data": {
                    "addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": self.mute.port}}, "server": False}}}),
                ("chardev-change", {"id": "line", "backend": {"type": "socket", "data": {
                    "addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": self.mute.port}}, "server": False}}}),
                ("netdev_add", {"type": "stream", "id": "n", "addr": {"type": "inet", "host": "127.0.0.1", "port": self.mute.port}}),
                ("netdev_add", {"type": "socket", "id": "s", "connect": f"127.0.0.1:{self.mute.port}"}),
                ("migrate", {"uri": f"tcp:127.0.0.1:{self.mute.port}"})):
            with self.subTest(command):
                self.start(command, arguments)
                self.others_go_on()

    def test_connection_that_comes_late(self):
        """chardev-add answers when it is there; when it is refused, or the device removed meanwhile, it says so."""
        def add(name, port):
            return self.start("chardev-add", {"id": name, "backend": {"type": "socket", "data": {
                "addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": str(port)}}, "server": False}}})

        def known():
            return {c["label"]: c for c in self.vmm.qmp.command("query-chardev")}

        late, removed = add("late", self.mute.port), add("removed", self.mute.port)
        vmmtest.poll(lambda: {"late", "removed"} <= set(known()), 20, "both")
        self.assertFalse(late.replies or removed.replies)
        self.vmm.qmp.command("chardev-remove", id="removed")
        self.assertIn("removed before it was connected", removed.receive()["error"]["desc"])
        accepted = []

        def accept():
            if select.select([self.mute.listener], [], [], 0.05)[0]:
                accepted.append(self.mute.listener.accept()[0])
            return late.replies

        vmmtest.poll(accept, 60, "the connection", 0.01)      # the kernel tries again after a second
        self.assertEqual(late.receive(), {"return": {}})
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            refused = add("refused", free.getsockname()[1]).receive()
        self.assertIn("Connection refused", refused["error"]["desc"])
        self.assertEqual(set(known()) & {"late", "removed", "refused"}, {"late"})
        for sock in accepted:
            sock.close()

    def test_memory_that_is_touched(self):
        client = self.start("object-add", {"qom-type": "memory-backend-ram", "id": "m", "size": 1 << 30, "prealloc": True})
        before = 0
        while not client.replies:
            self.others_go_on()
            before += 1
            if before == 1:
                with self.assertRaisesRegex(vmmtest.QMPError, "in use|not found"):
                    self.vmm.qmp.command("object-del", id="m")
        self.assertEqual(client.receive(), {"return": {}})
        self.assertGreater(before, 0)
        self.assertGreater(vmmtest.process_counts(self.vmm.pid)["rss"], 1 << 30)
        self.vmm.qmp.command("object-del", id="m")
        self.assertEqual(self.vmm.qmp.execute("query-memdev")[0]["id"], "pc.ram")

    def test_flood(self):
        """Ten clients that ask for what takes longest do not keep an eleventh waiting for them."""
        busy = [self.vmm.client() for _ in range(10)]
        for client in busy:
            client.send_raw(b'{"execute":"query-qmp-schema"}' * 30)
        self.others_go_on()
        self.assertTrue(any(len(client.replies) < 30 for client in busy))
        for client in busy:
            vmmtest.poll(lambda client=client: len(client.replies) == 30, 60, "all answers")


class Descriptors(unittest.TestCase):
    """Every kind of descriptor for every use there is: taken or refused, never the end, never kept."""

    def kinds(self):
        """(name, descriptor): all closed at the end."""
        folder = self.vmm.dir
        reader, _ = self.pipe()
        read, writer = self.pipe()
        threading.Thread(target=self.drain, args=(os.dup(read),), daemon=True).start()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(folder + "/listening")
        listener.listen(1)
        stream, peer = socket.socketpair()
        peer.close()
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        epoll = select.epoll()
        with open(folder + "/empty", "wb"):
            pass
        kinds = {"pipe's reading end": os.dup(reader), "pipe's writing end": os.dup(writer), "directory": os.open("/", os.O_RDONLY), "path": os.open(folder + "/empty", os.O_PATH),
                 "null": os.open("/dev/null", os.O_RDWR), "empty file": os.open(folder + "/empty", os.O_RDONLY),
                 "listening socket": listener.detach(),
                 "socket without a peer": stream.detach(), "datagram socket": datagram.detach(),
                 "epoll": os.dup(epoll.fileno()), "eventfd": os.eventfd(0), "memory": os.memfd_create("m"),
                 "kvm": os.open("/dev/kvm", os.O_RDWR) if os.access("/dev/kvm", os.R_OK | os.W_OK) else os.eventfd(0)}
        epoll.close()
        for fd in kinds.values():
            self.addCleanup(os.close, fd)
        return kinds

    def pipe(self):
        ends = os.pipe()
        for end in ends:
            self.addCleanup(os.close, end)
        return ends

    def drain(self, fd):
        while os.read(fd, 1 << 16):
            pass
        os.close(fd)

    def uses(self, number):
        """(command, arguments, what takes it back): by name, "it", or as member of a set."""
        path = f"/dev/fdset/{number}"
        yield "chardev-add", {"id": "c", "backend": {"type": "socket", "data": {
            "addr": {"type": "fd", "data": {"str": "it"}}, "server": False}}}, ("chardev-remove", {"id": "c"})
        yield "chardev-add", {"id": "c", "backend": {"type": "socket", "data": {
            "addr": {"type": "fd", "data": {"str": "it"}}, "server": True, "wait": False}}}, ("chardev-remove", {"id": "c"})
        yield "chardev-add", {"id": "c", "backend": {"type": "file", "data": {"out": path}}}, ("chardev-remove", {"id": "c"})
        for kind in ("dgram", "stream"):
            where = {"local" if kind == "dgram" else "addr": {"type": "fd", "str": "it"}}
            yield "netdev_add", {"type": kind, "id": "n", **where}, ("netdev_del", {"id": "n"})
        yield "netdev_add", {"type": "tap", "id": "n", "fd": "it"}, ("netdev_del", {"id": "n"})
        yield "netdev_add", {"type": "socket", "id": "n", "fd": "it"}, ("netdev_del", {"id": "n"})
        yield "blockdev-add", {"node-name": "b", "driver": "file", "filename": path}, ("blockdev-del", {"node-name": "b"})
        yield "blockdev-change-medium", {"device": "cd", "filename": path, "format": "raw"}, ("eject", {"device": "cd"})
        yield "screendump", {"filename": path}, None
        yield "pmemsave", {"val": 0, "size": 4096, "filename": path}, None
        yield "dump-guest-memory", {"paging": False, "protocol": "fd:it"}, None
        yield "migrate", {"uri": "fd:it"}, ("migrate_cancel", {})
        if vmmtest.has_module("vnc"):
            yield "add_client", {"protocol": "vnc", "fdname": "it"}, None

    def test_all(self):
        vnc = ("-vnc", "unix:@DIR@/vnc") if vmmtest.has_module("vnc") else ()
        self.vmm = Vmm(*MACHINE, *vnc)
        self.addCleanup(self.vmm.close)
        qmp = self.vmm.qmp
        qmp.timeout = 20 * vmmtest.SLOW
        kinds, before = self.kinds(), None
        for _ in range(2):     # the first round starts what stays: threads, modules
            for name, fd in kinds.items():
                self.one_kind(qmp, name, fd)
            vmmtest.poll(lambda: qmp.command("query-migrate").get("status") in (None, "failed", "cancelled", "completed"), 20, "its end")
            if before is not None:
                vmmtest.poll(lambda: self.vmm.fds() == before, 20, lambda: f"{before} descriptors, not {self.vmm.fds()}")
            before = self.vmm.fds()
        self.assertTrue(qmp.command("query-status")["status"] in ("running", "paused", "postmigrate"))

    def one_kind(self, qmp, name, fd):
        number = qmp.execute("add-fd", {}, [fd])["fdset-id"]
        taken = 0
        for command, arguments, undo in self.uses(number):
            with self.subTest(f"{name}: {command}"):
                qmp.execute("getfd", {"fdname": "it"}, [fd])
                try:
                    qmp.execute(command, arguments)
                    taken += 1
                    if undo:
                        self.undo(qmp, *undo)
                except vmmtest.QMPError as error:
                    self.assertEqual(error.error_class, "GenericError")
                    self.assertGreater(len(error.desc), 10)
                try:
                    qmp.command("closefd", fdname="it")
                except vmmtest.QMPError:
                    pass    # it was taken
        self.assertLess(taken, 12, name)
        qmp.command("remove-fd", fdset_id=number)

    def undo(self, qmp, command, arguments):
        try:
            qmp.execute(command, arguments)
        except vmmtest.QMPError:
            self.assertEqual(command, "migrate_cancel")    # it has failed already

    def test_strays(self):
        """Descriptors that come with a command that wants none, in the middle of one, and more than a message may have."""
        self.vmm = Vmm(*MACHINE)
        self.addCleanup(self.vmm.close)
        self.vmm.qmp.command("query-status")
        before = self.vmm.fds()
        reader, writer = os.pipe()
        sock = self.vmm.connect()
        stream = sock.makefile("rwb")
        stream.readline()
        for part in (b'{"execute":"qmp_', b'capabilities"}', b'{"execute":"query-name","id":1}\n'):
            socket.send_fds(sock, [part], [writer] * 3)
        for wanted in ({"return": {}}, {"return": {}, "id": 1}):
            self.assertEqual(json.loads(stream.readline()), wanted)
        for _ in range(20):
            socket.send_fds(sock, [b" "], [writer] * 30)
        socket.send_fds(sock, [b'{"execute":"query-name","id":2}'], [writer])
        self.assertEqual(json.loads(stream.readline())["id"], 2)
        stream.close()
        sock.close()
        os.close(writer)
        vmmtest.poll(lambda: self.vmm.fds() == before, 20, "no descriptor to be left")
        self.assertEqual(os.read(reader, 1), b"")
        os.close(reader)


if __name__ == "__main__":
    vmmtest.main()
