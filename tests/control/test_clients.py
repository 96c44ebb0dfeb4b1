#!/usr/bin/env python3
"""Many clients: nothing leaks, nobody is held up, framing and limits hold."""

import json
import os
import socket
import threading
import unittest

from harness import Vmm, vmmtest


class Clients(unittest.TestCase):
    """Connections that come and go."""

    def setUp(self):
        self.vmm = Vmm("-vga", "std", "-serial", "null")
        self.addCleanup(self.vmm.close)

    def counts(self):
        """Descriptors, threads; block workers may come and go."""
        counts = vmmtest.process_counts(self.vmm.pid)
        return counts["fds"]

    def test_200_connections(self):
        self.vmm.qmp.command("query-status")
        before, rss = self.counts(), self.vmm.rss()
        for i in range(200):
            sock = self.vmm.connect()
            if i % 4 == 1:  # in the middle of the greeting, of a request, of a large answer
                sock.sendall(b'{"execute":"qmp_capa')
            elif i % 4 == 2:
                sock.sendall(b'{"execute":"qmp_capabilities"}{"execute":"query-qmp-schema"}' * 3)
            elif i % 4 == 3:
                stream = sock.makefile("rwb")
                stream.readline()
                stream.write(b'{"execute":"qmp_capabilities"}')
                stream.flush()
                self.assertEqual(stream.readline(), b'{"return": {}}\r\n')
                stream.close()
            sock.close()
        vmmtest.poll(lambda: self.counts() == before, 20, "all connections to be gone")
        self.assertLess(self.vmm.rss() - rss, 4 << 20)

    def test_20_at_once(self):
        before, failures = self.counts(), []
        rounds = 30

        def work(number):
            try:
                client = self.vmm.client()
                for i in range(rounds):
                    self.assertTrue(client.command("query-status")["status"] in ("running", "paused"))
                    client.command("stop" if i % 2 else "cont")
                    self.assertGreater(len(client.command("query-qmp-schema")), 300)
                    if i % 10 == number % 10:
                        client.command("screendump", filename=self.vmm.path(f"shot{number}"))
                client.close()
            except Exception as error:  # pylint: disable=broad-except
                failures.append(f"{number}: {error!r}")

        threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120 * vmmtest.SLOW)
        self.assertEqual(failures, [])
        vmmtest.poll(lambda: self.counts() == before, 20, "all connections to be gone")
        # every event reached the client that was there all the time, in order
        with self.vmm.qmp.cond:
            names = [e["event"] for e in self.vmm.qmp.events if e["event"] in ("STOP", "RESUME")]
        self.assertEqual([n for n, m in zip(names, names[1:]) if n == m], [])

    def test_64_is_the_limit(self):
        socks = [self.vmm.connect() for _ in range(70)]
        greeted = 0
        for sock in socks:
            sock.settimeout(0.2 * vmmtest.SLOW if greeted >= 60 else 20)
            try:
                greeted += sock.recv(1 << 16).startswith(b'{"QMP"')
            except TimeoutError:
                pass
        self.assertEqual(greeted, 63)  # and our first one
        for sock in socks:
            sock.close()
        self.vmm.qmp.command("query-status")

    def ask(self, stream, data):
        stream.write(data)
        stream.flush()
        return json.loads(stream.readline())

    def raw(self):
        sock = self.vmm.connect()
        sock.settimeout(60 * vmmtest.SLOW)
        stream = sock.makefile("rwb")
        self.addCleanup(sock.close)
        self.addCleanup(stream.close)
        stream.readline()
        self.assertEqual(self.ask(stream, b'{"execute":"qmp_capabilities"}'), {"return": {}})
        return stream

    def test_framing(self):
        stream = self.raw()
        for request in (b'{"execute":"query-name","id":7}', b'{"execute":"query-name","id":7}\n',
                        b'\r\n\r\n {"execute"\r\n:"query-name" , "id":7}\r\n', b"{'execute':'query-name','id':7}"):
            for piece in (1, 7, 1000):
                for i in range(0, len(request), piece):
                    stream.write(request[i:i + piece])
                    stream.flush()
                line = stream.readline()
                self.assertTrue(line.endswith(b"\r\n"))
                self.assertEqual(json.loads(line), {"return": {}, "id": 7})
        for id_value in ("text", 1.5, None, [1, {"a": []}], {"deep": {"er": True}}, "ü€"):
            answer = self.ask(stream, json.dumps({"execute": "nonsense", "id": id_value}).encode())
            self.assertEqual((answer["id"], answer["error"]["class"]), (id_value, "CommandNotFound"))

    def test_pipelining(self):
        stream = self.raw()
        stream.write(b"".join(b'{"execute":"%s","id":%d}' % (b"query-status" if i % 3 else b"nonsense", i) for i in range(5000)))
        stream.flush()
        self.assertEqual([json.loads(stream.readline())["id"] for _ in range(5000)], list(range(5000)))

    def test_ten_mebibytes(self):
        stream = self.raw()
        rss = self.vmm.rss()
        for bad in (b"[" * (10 << 20), b'{"a":' * (2 << 20), b'"' + b"x" * (11 << 20) + b'"', b'{"id":"' + b"y" * (11 << 20) + b'"}'):
            answer = self.ask(stream, bad + b"\n")
            self.assertEqual(answer["error"]["class"], "GenericError")
            while "return" not in self.ask(stream, b'{"execute":"query-name"}\n'):
                pass
        almost = b'{"execute":"query-name","id":"' + b"z" * ((10 << 20) - 64) + b'"}'
        self.assertEqual(len(self.ask(stream, almost)["id"]), (10 << 20) - 64)
        self.assertLess(self.vmm.rss() - rss, 24 << 20)

    def test_descriptors_of_the_wrong_kind(self):
        """Whatever is passed can be kept and closed; what it is for refuses it."""
        stream_count = self.counts()
        folder = os.open("/", os.O_RDONLY)
        epoll = __import__("select").epoll()
        null = os.open("/dev/null", os.O_RDONLY)
        for fd in (folder, epoll.fileno(), null):
            sock = self.vmm.connect()
            stream = sock.makefile("rwb")
            stream.readline()
            self.assertEqual(self.ask(stream, b'{"execute":"qmp_capabilities"}'), {"return": {}})
            socket.send_fds(sock, [b'{"execute":"getfd","arguments":{"fdname":"it"}}'], [fd])
            self.assertEqual(json.loads(stream.readline()), {"return": {}})
            answer = self.ask(stream, b'{"execute":"dump-guest-memory","arguments":{"paging":false,"protocol":"fd:it"}}')
            while "event" in answer:
                answer = json.loads(stream.readline())
            self.assertEqual(answer["error"]["class"], "GenericError")
            stream.close()
            sock.close()
        for fd in (folder, null):
            os.close(fd)
        epoll.close()
        vmmtest.poll(lambda: self.counts() == stream_count, 20, "no descriptor to be left")
        self.assertTrue(self.vmm.qmp.command("query-status")["running"])


if __name__ == "__main__":
    vmmtest.main()
