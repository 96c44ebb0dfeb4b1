"""A destination that knows nothing but where to listen: its machine is built from the stream."""

import contextlib
import os
import shlex
import socket
import struct
import tempfile
import unittest

import mig
import vmmtest


class Bare(mig.Dirtier):
    """vmm -incoming URI, and where this host's sockets are; the machine comes with the guest."""

    def __init__(self, uri, *args, like=None):
        self.options = dict(like.options) if like else {"quiet": 0}
        vmmtest.Guest.__init__(self, start=False)
        self.argv = [vmmtest.VMM, "-incoming", uri, "-chardev", f"socket,id=com0,path={self.serial.path}", "-qmp",
                     f"unix:{self.qmp_path},server=on,wait=off", "-display", "none", *shlex.split(os.environ.get("VMM_TEST_ARGS", "")), *args]
        self.want_qmp = False
        self.start()

    def meet(self):
        """The guest has introduced itself: the control socket is there."""
        self.qmp = self.connect_qmp()
        return self


class Described(vmmtest.TestCase):
    """The source's command line is enough for both."""

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.path = os.path.join(self.dir.name, "m")

    def file(self, name, size):
        """A file full of zeros."""
        path = os.path.join(self.dir.name, name)
        with open(path, "wb") as f:
            f.truncate(size)
        return path

    def listening(self):
        """Until a bare destination can be connected to."""
        vmmtest.poll(lambda: os.path.exists(self.path), 20, "the destination to listen")

    def test_seen_is_listening(self):
        """A unix socket listens before it has its name; one that was left behind is replaced, anything else is left alone."""
        for _ in range(5):
            with Bare(f"unix:{self.path}") as b:
                while not os.path.exists(self.path):
                    self.assertIsNone(b.process.poll(), b.stderr())
                with socket.socket(socket.AF_UNIX) as s:
                    s.connect(self.path)
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.path + "2")
        with Bare(f"unix:{self.path}2"):
            vmmtest.poll(lambda: self.takes_callers(self.path + "2"), 20, "the destination to listen")
        with Bare(f"unix:{self.file('kept', 1)}") as b:
            self.assertEqual(b.wait_exit(), 1)
            self.assertRegex(b.stderr(), "cannot listen.*in use")
        self.assertEqual(sorted(os.listdir(self.dir.name)), ["kept"])

    @staticmethod
    def takes_callers(path):
        """Whether somebody listens there."""
        with socket.socket(socket.AF_UNIX) as s:
            return not s.connect_ex(path)

    def test_mute_callers(self):
        """Some connect and say nothing, or three bytes: the guest that comes after them is listened to at once."""
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        with mig.Dirtier(memory=64, rate=16000) as a:
            a.running()
            with Bare(f"tcp:127.0.0.1:{port}", like=a) as b:
                mute = [vmmtest.poll(lambda: self.call(port), 20, "the destination to listen") for _ in range(4)]
                for s in mute[2:]:
                    s.sendall(b"\x89VM")
                a.qmp.command("migrate", uri=f"tcp:127.0.0.1:{port}")
                b.meet()
                info = mig.moved(self, a, b)
                self.assertLess(info["setup-time"], 5000)       # each of them has ten seconds
                for s in mute:
                    s.settimeout(10)
                    self.assertIn(b"another migration", s.recv(4096))
                    s.close()

    def test_dribbled_descriptions(self):
        """More than may wait introduce themselves rightly and then dribble a description of 60 MiB: the guest is listened to at once."""
        head = mig.preamble(1, 1)
        if not head:
            self.skipTest("no libxxhash")
        head += struct.pack("<HHIIIQ", 1, 0, 60 << 20, 60 << 20, 0, 0)
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        with mig.Dirtier(memory=64, rate=16000) as a:
            a.running()
            with Bare(f"tcp:127.0.0.1:{port}", like=a) as b:
                slow = []
                for _ in range(24):
                    slow.append(vmmtest.poll(lambda: self.call(port), 20, "the destination to listen"))
                    slow[-1].sendall(head)
                    slow[-1].settimeout(10)
                self.assertEqual(len(slow[-1].recv(32)), 32)    # the last one is listened to, though the others are not through
                slow[-1].sendall(bytes(100 << 10))
                self.assertIn(b"others came while it dawdled", slow[0].recv(4096) + slow[0].recv(4096))
                a.qmp.command("migrate", uri=f"tcp:127.0.0.1:{port}")
                b.meet()
                info = mig.moved(self, a, b)
                self.assertLess(info["setup-time"], 5000)       # each of them has ten seconds
                self.assertIn(b"another migration", slow[-1].recv(4096))
                for s in slow:
                    s.close()

    def test_too_much_at_once(self):
        """Callers cannot fill memory together: the largest is sent away, and told."""
        head = mig.preamble(1, 1)
        if not head:
            self.skipTest("no libxxhash")
        head += struct.pack("<HHIIIQ", 1, 0, 60 << 20, 60 << 20, 0, 0)
        like = mig.Dirtier(memory=64, start=32, size=16)
        like.close()
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        with Bare(f"tcp:127.0.0.1:{port}", like=like) as b:
            callers = [vmmtest.poll(lambda: self.call(port), 20, "the destination to listen") for _ in range(3)]
            for s in callers:
                s.settimeout(20)
                with contextlib.suppress(OSError):              # the last one may be sent away while it sends
                    s.sendall(head + bytes(40 << 20))
            vmmtest.poll(lambda: "too large while others wait" in b.stderr(), 10, lambda: b.stderr())
            if not os.environ.get("VMM_TEST_SANITIZED"):
                self.assertLess(b.counts()["rss_anon"], 80 << 20)
            for s in callers:
                s.close()

    @staticmethod
    def call(port):
        """A connection, or None."""
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            return None

    def test_network_cards_announce_themselves(self):
        """The netdev is this host's; from its cable the card says five times where the guest is now."""
        here, there, switch = (os.path.join(self.dir.name, name) for name in ("here", "there", "switch"))
        mac = "52:54:00:aa:bb:cc"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as cable:
            cable.bind(switch)
            cable.settimeout(60)
            netdev = f"dgram,id=n,local.type=unix,local.path=%s,remote.type=unix,remote.path={switch}"
            with mig.Dirtier("-netdev", netdev % here, "-device", f"virtio-net-pci,netdev=n,mac={mac},addr=0x7", memory=64) as a:
                a.running()
                with Bare(f"unix:{self.path}", "-netdev", netdev % there, like=a) as b:
                    self.listening()
                    a.qmp.command("migrate", uri=f"unix:{self.path}")
                    b.meet()
                    for _ in range(5):
                        frame, sender = cable.recvfrom(2048)
                        self.assertEqual(sender, there)
                        self.assertEqual(frame[:14], b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) + b"\x80\x35")
                    cable.setblocking(False)
                    self.assertRaises(BlockingIOError, cable.recv, 2048)

    def test_same_machine(self):
        """With disks, CPUs and devices of all kinds; the description of both is the same."""
        disk, other = self.file("a.img", 1 << 20), self.file("b.img", 1 << 20)
        args = ["-drive", f"file={disk},format=raw,if=ide,index=0", "-device", "pvpanic,id=panic", "-uuid",
                "01234567-89ab-cdef-0123-456789abcdef", "-name", "wanderer", "-smbios", "type=1,product=Thing",
                "-fw_cfg", f"opt/f,file={self.file('fw', 100)}", "-device", "VGA,id=screen,addr=0x6"]
        with mig.Dirtier(*args, cpus=2, memory=96, rate=16000) as a:
            a.running()
            with Bare(f"unix:{self.path}", "-drive", f"id=ide0-hd0,file={other}", like=a) as b:
                self.listening()
                os.unlink(os.path.join(self.dir.name, "fw"))
                a.qmp.command("migrate", uri=f"unix:{self.path}")
                b.meet()
                mig.moved(self, a, b)
                self.assertEqual(b.qmp.command("query-name")["name"], "wanderer")
                self.assertEqual(len(b.qmp.command("query-cpus-fast")), 2)
                self.assertEqual(b.qmp.command("query-block")[0]["inserted"]["file"], other)
                # It came without a kernel file, and can be reset all the same.
                b.qmp.command("system_reset")
                b.serial.wait_for("ready", 60)

    @unittest.skipUnless(vmmtest.has_module("vnc"), "built without VNC")
    def test_its_own_screen(self):
        """VNC and the sockets of character devices are where this host's command line says, not where the source had them."""
        here, there = os.path.join(self.dir.name, "here"), os.path.join(self.dir.name, "there")
        args = ["-device", "VGA,addr=0x6", "-vnc", f"unix:{here}.vnc", "-chardev",
                f"socket,id=agent,path={here}.agent,server=on,wait=off", "-device", "virtio-serial-pci", "-device",
                "virtserialport,chardev=agent,name=agent"]
        with mig.Dirtier(*args, rate=16000) as a:
            a.running()
            with Bare(f"unix:{self.path}", "-vnc", f"unix:{there}.vnc", "-chardev",
                      f"socket,id=agent,path={there}.agent,server=on,wait=off", like=a) as b:
                self.listening()
                a.qmp.command("migrate", uri=f"unix:{self.path}")
                b.meet()
                mig.moved(self, a, b)
                self.assertEqual(b.qmp.command("query-vnc")["service"], f"{there}.vnc")
                for path, greeting in ((f"{there}.vnc", b"RFB 003."), (f"{there}.agent", b"")):
                    with socket.socket(socket.AF_UNIX) as s:
                        s.settimeout(20)
                        s.connect(path)
                        self.assertEqual(s.recv(8) if greeting else b"", greeting)

    def test_and_on(self):
        """From a described machine to a described machine, a second time."""
        with mig.Dirtier(rate=16000) as a:
            a.running()
            with Bare(f"unix:{self.path}", like=a) as b:
                self.listening()
                a.qmp.command("migrate", uri=f"unix:{self.path}")
                mig.moved(self, a, b.meet())
                self.path += "2"
                with Bare(f"unix:{self.path}", "-accel", "kvm,kernel-irqchip=split", like=a) as c:
                    self.listening()
                    b.qmp.command("migrate", uri=f"unix:{self.path}")
                    mig.moved(self, b, c.meet())

    def test_impossible(self):
        """A disk that is not there: the destination says so at both ends, the guest stays."""
        disk = self.file("a.img", 1 << 20)
        with mig.Dirtier("-drive", f"file={disk},format=raw,if=ide,index=0", rate=16000) as a:
            a.running()
            with Bare(f"unix:{self.path}", "-drive", f"id=ide0-hd0,file={disk}.gone", like=a) as b:
                self.listening()
                a.qmp.command("migrate", uri=f"unix:{self.path}")
                info = mig.stayed(self, a)
                self.assertIn(".gone", info["error-desc"])
                self.assertEqual(b.wait_exit(), 1)
                self.assertIn(".gone", b.stderr())

    def test_strangers(self):
        """What is no guest is turned away, and the wait goes on; a signal ends it."""
        with Bare(f"unix:{self.path}") as b:
            self.listening()
            for greeting in (b"", b"GET / HTTP/1.0\r\n\r\n" + b"x" * 100, b"\x89VMM\r\n\x1a\n"):
                with vmmtest.socket.socket(vmmtest.socket.AF_UNIX) as s:
                    s.connect(self.path)
                    s.sendall(greeting)
                    s.shutdown(vmmtest.socket.SHUT_WR)
                    s.settimeout(20)
                    try:
                        while s.recv(4096):
                            pass
                    except ConnectionError:
                        pass
            self.assertIsNone(b.process.poll())
            b.process.terminate()
            self.assertEqual(b.wait_exit(), 1)
            self.assertIn("magic", b.stderr())


if __name__ == "__main__":
    vmmtest.main()
