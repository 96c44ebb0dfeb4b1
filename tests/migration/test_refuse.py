"""What does not fit is refused with one clear reason at both ends, and the guest is unharmed."""

import contextlib
import os
import re
import socket
import struct
import tempfile
import threading

import mig
import vmmtest


def disk(directory, name, size=1 << 20):
    """A raw image."""
    path = os.path.join(directory, name)
    with open(path, "wb") as file:
        file.truncate(size)
    return path


class Refuse(vmmtest.TestCase):
    """One source for all: a refusal must not hurt it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.dir = tempfile.mkdtemp()
        cls.disk = disk(cls.dir, "disk")
        cls.source = mig.Dirtier("-drive", f"file={cls.disk},format=raw", rate=16000).running()

    @classmethod
    def tearDownClass(cls):
        cls.source.close()

    def refused(self, pattern, *args, drive=True, **changes):
        """The destination with these changes says no before a page is sent; both ends say why; it still waits for another."""
        a = self.source
        if drive:
            args += ("-drive", f"file={self.disk},format=raw")
        with mig.twin(a, *args, **changes) as b:
            a.qmp.command("migrate", uri=b.address())
            info = mig.stayed(self, a, ["failed"])
            self.assertRegex(info["error-desc"], pattern)
            vmmtest.poll(lambda: re.search(pattern, b.stderr()), 10, f"{pattern} in {b.stderr()}")
            self.assertEqual(info["ram"]["normal"], 0)
            self.assertEqual(b.status(), "inmigrate")

    def test_memory(self):
        """Less and more RAM."""
        self.refused(r"64 MiB of memory at the source and 48 MiB here", memory=48)
        self.refused(r"64 MiB of memory at the source and 80 MiB here", memory=80)

    def test_processors(self):
        """Another number of vCPUs, another model, a feature more or less."""
        self.refused(r"1 vCPUs, this machine has 2|maximum", cpus=2)
        self.refused(r"vmm,model|CPU", cpu="Westmere")
        self.refused(r"features that it has not here: .*cx16", cpu="qemu64,-cx16")

    def test_devices(self):
        """A device more, a device less, a device with other properties."""
        self.refused(r"this machine has a device '.*' \(isa-debug-exit\), the source has not", "-device", "isa-debug-exit")
        self.refused(r"the source has a device '.*' \(ide-hd\), this machine has not", drive=False)
        self.refused(r"property|serial", "-drive", f"file={self.disk},format=raw,if=none,id=d", "-device",
                     "ide-hd,drive=d,serial=other", drive=False)

    def test_disk(self):
        """Another size; read-only; in use by somebody else."""
        small = disk(self.dir, "small", 1 << 19)
        self.refused(r"has 524288 bytes, at the source it has 1048576", "-drive", f"file={small},format=raw", drive=False)
        copy = disk(self.dir, "copy")
        with mig.vmmtest.Guest("-drive", f"file={copy},format=raw", "-S", memory=16):
            self.refused(r"Is another process using the image", "-drive", f"file={copy},format=raw", drive=False)

    def test_addresses(self):
        """Nobody there, no such host, no such protocol, a path too long."""
        a = self.source
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        for uri, pattern in ((f"tcp:127.0.0.1:{port}", "Connection refused"), ("unix:/nonexistent/x", "No such file"),
                             ("tcp:host.invalid:1", "not known|resol|failure")):
            a.qmp.command("migrate", uri=uri)
            self.assertRegex(mig.stayed(self, a, ["failed"])["error-desc"], pattern)
        for uri, pattern in (("rdma:x:1", "unknown migration protocol"), ("tcp:1234", "HOST:PORT"), ("fd:nothing", "not found"),
                             ("tcp:::1:80", "brackets")):
            with self.assertRaisesRegex(vmmtest.QMPError, pattern):
                a.qmp.command("migrate", uri=uri)
        a.alive()

    def test_garbage(self):
        """A peer that is none of ours is told so, and the next one is served."""
        a = self.source
        future = mig.MAGIC + struct.pack("<HHBBHQI", 9, 8, 0, 0, 0, 1, 0)
        with mig.twin(a, "-drive", f"file={self.disk},format=raw") as b:
            port = int(b.address().rsplit(":", 1)[1])
            for data, reason in ((b"GET / HTTP/1.0\r\n\r\n" + b"x" * 64, "magic number"), (mig.MAGIC + b"\0" * 24, "checksum"),
                                 (future + b"\0\0\0\0", "checksum")):
                with socket.create_connection(("127.0.0.1", port)) as s:
                    s.sendall(data)
                    vmmtest.poll(lambda: reason in b.stderr(), 10, reason)
            self.assertEqual(b.status(), "inmigrate")
            a.caps(events=False)

    def test_newer_version(self):
        """A stream that says it cannot be read by this version, and an answer that says so: both versions are named."""
        head = mig.preamble(9, 8)
        if not head:
            self.skipTest("no libxxhash")
        a = self.source
        with mig.twin(a, "-drive", f"file={self.disk},format=raw") as b:
            with socket.create_connection(("127.0.0.1", int(b.address().rsplit(":", 1)[1]))) as s:
                s.sendall(head)
                s.settimeout(10)
                told = b""
                while data := s.recv(4096):
                    told += data
            vmmtest.poll(lambda: "version" in b.stderr(), 10, "the reason")
            self.assertRegex(b.stderr(), r"version.*8")
            self.assertRegex(told, rb"version.*8")
            self.assertEqual(b.status(), "inmigrate")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            a.qmp.command("migrate", uri=f"tcp:127.0.0.1:{listener.getsockname()[1]}")
            with listener.accept()[0] as peer:
                peer.sendall(head)
                self.assertRegex(mig.stayed(self, a, ["failed"])["error-desc"], r"version.*8")

    def test_mute_peers(self):
        """Who says nothing, or one byte a second, is told after ten seconds and let go, at either end; cancel ends it at once."""
        a = self.source
        with socket.create_server(("127.0.0.1", 0)) as listener:
            uri = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
            a.qmp.command("migrate", uri=uri)
            a.migration("setup")
            a.qmp.command("migrate_cancel")
            mig.stayed(self, a, ["cancelled"])
            a.qmp.command("migrate", uri=uri)
            with mig.twin(a, "-drive", f"file={self.disk},format=raw") as b:
                port = int(b.address().rsplit(":", 1)[1])
                with socket.create_connection(("127.0.0.1", port)) as mute, socket.create_connection(("127.0.0.1", port)) as slow:
                    told, rest = b"", iter(mig.MAGIC + bytes(24))

                    def dribble():
                        try:
                            slow.send(bytes([next(rest, 0)]))
                        except OSError:
                            pass
                        return b.stderr().count("took too long to introduce itself") == 2
                    vmmtest.poll(dribble, 30, "both to be refused", interval=1)
                    mute.settimeout(10)
                    with contextlib.suppress(OSError):
                        while data := mute.recv(4096):
                            told += data
                    self.assertIn(b"took too long", told)
                self.assertEqual(b.status(), "inmigrate")
                info = mig.stayed(self, a, ["failed"])
                self.assertIn("took too long to introduce itself", info["error-desc"])

    def test_cancel_in_each_phase(self):
        """The guest goes on here, the destination says that it will not come; after the hand-over it is too late, and said."""
        a = self.source
        args = ("-drive", f"file={self.disk},format=raw")
        with mig.twin(a, *args) as b:
            a.params(max_bandwidth=1 << 20)
            a.qmp.command("migrate", uri=b.address())
            a.migration("active")
            a.qmp.command("migrate_cancel")
            mig.stayed(self, a, ["cancelled"])
            self.assertEqual(b.wait_exit(), 1)
            self.assertRegex(b.stderr(), "incoming migration failed: .*(closed|gave up)")
            a.params(max_bandwidth=0)
        for state in ("pre-switchover", "device"):
            with self.subTest(state=state), mig.twin(a, *args) as b, mig.Proxy(b.address()) as p:
                a.caps(pause_before_switchover=True)
                a.params(x_switchover_timeout=60000)
                a.qmp.command("migrate", uri=p.uri)
                a.migration("pre-switchover")
                if state == "device":
                    p.hold_at = p.forwarded
                    a.qmp.command("migrate-continue", state="pre-switchover")
                    self.assertTrue(p.holding.wait(20))
                    a.migration("device")
                a.qmp.command("migrate_cancel")
                mig.stayed(self, a, ["cancelled"])
                p.close()
                self.assertEqual(b.wait_exit(), 1)
                a.caps(pause_before_switchover=False)
                a.params(x_switchover_timeout=1000)
        with mig.twin(a, *args) as b, mig.Proxy(b.address()) as p:
            for guest in (a, b):
                guest.caps(postcopy_ram=True)
            a.params(max_bandwidth=8 << 20, max_postcopy_bandwidth=1 << 20)
            a.qmp.command("migrate", uri=p.uri)
            a.migration("active")
            a.qmp.command("migrate-start-postcopy")
            a.migration("postcopy-active")
            with self.assertRaisesRegex(vmmtest.QMPError, "too late to cancel"):
                a.qmp.command("migrate_cancel")
            a.params(max_postcopy_bandwidth=0)
            a.migration("completed")
            b.alive()
        type(self).source.close()       # it has gone: the tests after this one get another
        type(self).source = mig.Dirtier(*args, rate=16000).running()

    def test_hostile_destination(self):
        """One that closes, one that talks rubbish, one that sends back what it gets: the guest stays, and the reason is told."""
        a = self.source

        def serve(listener, behave):
            peer, _ = listener.accept()
            with peer:
                behave(peer)

        def echo(peer):
            try:
                while data := peer.recv(65536):
                    peer.sendall(data)
            except OSError:
                pass

        for behave, pattern in ((lambda peer: None, "closed|reset"), (lambda peer: peer.sendall(b"x" * 64), "magic number|reset"),
                                (lambda peer: peer.sendall(mig.MAGIC + bytes(56)), "checksum|reset"),
                                (echo, "answered 'machine description' instead of 'accept'|damaged|65536")):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                thread = threading.Thread(target=serve, args=(listener, behave))
                thread.start()
                a.qmp.command("migrate", uri=f"tcp:127.0.0.1:{listener.getsockname()[1]}")
                self.assertRegex(mig.stayed(self, a, ["failed"])["error-desc"], pattern)
                thread.join(20)

    def test_dawdlers(self):
        """Connections that say nothing, dribble, or stop in the middle of a right beginning keep nobody out, however many they are."""
        description = struct.pack("<HHIIIQ", 1, 0, 1 << 20, 1 << 20, 0, 0)
        with mig.Dirtier(rate=16000) as a:
            a.running()
            with mig.twin(a) as b:
                port = int(b.address().rsplit(":", 1)[1])
                slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
                for s, said in zip(slow[10:], [mig.MAGIC[:3], (mig.preamble(1, 1) or b"") + description + bytes(1000)] * 25):
                    with contextlib.suppress(OSError):      # sent away already
                        s.sendall(said)
                a.qmp.command("migrate", uri=b.address())
                info = mig.moved(self, a, b)
                self.assertLess(info["setup-time"], 5000)   # each of them has ten seconds
                self.assertIn("others came while it dawdled", b.stderr())
                for s in slow:
                    s.close()

    def test_allow(self):
        """-migration-allow keeps strangers out and lets the listed in."""
        a = self.source
        args = ("-drive", f"file={self.disk},format=raw")
        with mig.twin(a, *args, "-migration-allow", "10.0.0.0/8,fd00::/8") as b:
            a.qmp.command("migrate", uri=b.address())
            self.assertRegex(mig.stayed(self, a, ["failed"])["error-desc"], "closed the connection")
            self.assertIn("-migration-allow does not list it", b.stderr())
        for networks in ("127.0.0.0/8", "::1,127.0.0.1/32", "0.0.0.0/0"):
            with mig.twin(a, *args, "-migration-allow", networks) as b:
                a.caps(pause_before_switchover=True)
                a.qmp.command("migrate", uri=b.address())
                a.migration("pre-switchover")
                a.qmp.command("migrate_cancel")
                mig.stayed(self, a, ["cancelled"])
                a.caps(pause_before_switchover=False)

    def test_two_at_once(self):
        """A second migrate, a second source, migrate while incoming, commands in the wrong state."""
        a = self.source
        with mig.twin(a, "-drive", f"file={self.disk},format=raw") as b, mig.Dirtier(rate=8000, size=4) as c:
            with self.assertRaisesRegex(vmmtest.QMPError, "waiting for an incoming"):
                b.qmp.command("migrate", uri="tcp:127.0.0.1:1")
            with self.assertRaisesRegex(vmmtest.QMPError, "already been started"):
                b.qmp.command("migrate-incoming", uri="tcp:127.0.0.1:0")
            with self.assertRaisesRegex(vmmtest.QMPError, "incoming"):
                b.qmp.command("cont")
            a.params(max_bandwidth=1 << 20)
            a.qmp.command("migrate", uri=b.address())
            a.migration("active")
            with self.assertRaisesRegex(vmmtest.QMPError, "in progress"):
                a.qmp.command("migrate", uri=b.address())
            with self.assertRaisesRegex(vmmtest.QMPError, "in progress"):
                a.caps(multifd=True)
            with self.assertRaisesRegex(vmmtest.QMPError, "while migrating"):
                a.qmp.command("device_add", driver="isa-debug-exit")
            c.running()
            c.qmp.command("migrate", uri=b.address())
            self.assertRegex(mig.stayed(self, c, ["failed"])["error-desc"], "another migration is coming in")
            a.qmp.command("migrate_cancel")
            a.params(max_bandwidth=0)
            mig.stayed(self, a, ["cancelled"])
            with self.assertRaisesRegex(vmmtest.QMPError, "-incoming"):
                a.qmp.command("migrate-incoming", uri="tcp:127.0.0.1:0")
            with self.assertRaisesRegex(vmmtest.QMPError, "expected state"):
                a.qmp.command("migrate-continue", state="pre-switchover")

    def test_capabilities(self):
        """What we have not is refused by name, what QEMU has not is unknown."""
        a = self.source
        with self.assertRaisesRegex(vmmtest.QMPError, "'xbzrle' is not offered: "):
            a.caps(xbzrle=True)
        a.caps(xbzrle=False)
        listed = {c["capability"] for c in a.qmp.command("query-migrate-capabilities")}
        self.assertLessEqual({"events", "pause-before-switchover", "late-block-activate", "return-path", "auto-converge",
                              "multifd", "postcopy-ram"}, listed)
        params = a.qmp.command("query-migrate-parameters")
        self.assertEqual(params["downtime-limit"], 300)
        a.params(**params)
        with self.assertRaises(vmmtest.QMPError):
            a.params(max_cpu_throttle=100)


if __name__ == "__main__":
    vmmtest.main()
