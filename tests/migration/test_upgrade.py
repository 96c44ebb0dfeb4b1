"""Live upgrade: the guest goes on in another vmm on this host, in the same memory."""

import os
import socket
import tempfile

import mig
import vmmtest
from test_described import Bare


class Upgrade(vmmtest.TestCase):
    """mode=cpr-transfer over a unix socket."""

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.path = os.path.join(self.dir.name, "m")

    def hand_over(self, a, b):
        """From a to b, which waits; query-migrate's answer."""
        vmmtest.poll(lambda: os.path.exists(self.path), 20, "the destination to listen")
        a.params(mode="cpr-transfer")
        a.qmp.command("migrate", uri=f"unix:{self.path}")
        if not b.qmp:
            b.meet()
        return mig.moved(self, a, b)

    def test_new_binary_same_memory(self):
        """A machine on the command line or from the description; no page is sent; back again."""
        disk = os.path.join(self.dir.name, "disk")
        with open(disk, "wb") as f:
            f.truncate(1 << 20)
        with mig.Dirtier("-drive", f"file={disk},format=raw,if=ide,index=0", cpus=2, memory=512, size=256) as a:
            a.running()
            with Bare(f"unix:{self.path}", like=a) as b:
                info = self.hand_over(a, b)
                self.assertEqual(info["ram"]["transferred"], 0)
                # The old one has nothing of it any more: neither cont nor a reset there reaches the guest.
                with self.assertRaisesRegex(vmmtest.QMPError, "another process"):
                    a.qmp.command("cont")
                a.qmp.command("system_reset")
                b.alive()
                a.quit()
                b.alive()
                with Bare(f"unix:{self.path}", "-accel", "kvm,kernel-irqchip=split", like=a) as c:
                    self.hand_over(b, c)
                    b.quit()
                    c.alive()

    def test_passed_socket(self):
        """The management connects, and hands both ends over."""
        with mig.Dirtier(rate=16000) as a:
            a.running()
            with mig.twin(a, incoming="defer") as b:
                ours, theirs = socket.socketpair()
                mig.pass_fd(a, "up", ours.fileno())
                mig.pass_fd(b, "in", theirs.fileno())
                ours.close()
                theirs.close()
                b.qmp.command("migrate-incoming", uri="fd:in")
                a.params(mode="cpr-transfer")
                a.qmp.command("migrate", uri="fd:up")
                self.assertEqual(mig.moved(self, a, b)["ram"]["transferred"], 0)

    def test_destination_dies(self):
        """The new one ends before it said it was ready: the guest goes on in the old one, its memory untouched."""
        with mig.Dirtier(rate=16000) as a:
            a.running()
            a.caps(pause_before_switchover=True)
            with mig.twin(a, incoming=f"unix:{self.path}") as b:
                a.params(mode="cpr-transfer")
                a.qmp.command("migrate", uri=f"unix:{self.path}")
                a.migration("pre-switchover")
                b.process.kill()
                b.wait_exit()
                a.qmp.command("migrate-continue", state="pre-switchover")
                mig.stayed(self, a)

    def test_refused(self):
        """Memory cannot go over TCP, and a template's is no memory of its own."""
        with mig.Dirtier(rate=16000) as a:
            a.running()
            a.params(mode="cpr-transfer")
            with self.assertRaisesRegex(vmmtest.QMPError, "unix:PATH"):
                a.qmp.command("migrate", uri="tcp:127.0.0.1:1")
            ours, theirs = os.pipe()
            mig.pass_fd(a, "pipe", theirs)
            with self.assertRaisesRegex(vmmtest.QMPError, "needs a unix socket"):
                a.qmp.command("migrate", uri="fd:pipe")
            os.close(ours)
            os.close(theirs)
            a.caps(multifd=True)
            with self.assertRaisesRegex(vmmtest.QMPError, "switch multifd off"):
                a.qmp.command("migrate", uri=f"unix:{self.path}")
            a.caps(multifd=False)
            with self.assertRaisesRegex(vmmtest.QMPError, "cpr-reboot"):
                a.params(mode="cpr-reboot")
            a.params(mode="normal")
            image = os.path.join(self.dir.name, "image")
            a.qmp.command("migrate", uri=f"file:{image}")
            a.migration("completed")
            with Bare(f"file:{image},map=private", like=a) as b:
                b.meet()
                b.migration("completed")
                b.params(mode="cpr-transfer")
                with mig.twin(a, incoming=f"unix:{self.path}"):
                    b.qmp.command("migrate", uri=f"unix:{self.path}")
                    info = mig.stayed(self, b)
                    self.assertIn("private mapping", info["error-desc"])


if __name__ == "__main__":
    vmmtest.main()
