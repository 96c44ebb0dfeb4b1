"""Whatever breaks, the guest is alive exactly once afterwards, or paused at both ends and both said so.

The moments are random but printed: VMM_TEST_SEED=N repeats a run, VMM_TEST_FAULTS=N says how many of each kind.
"""

import os
import random
import re
import signal
import tempfile
import unittest

import mig
import vmmtest

COUNT = int(os.environ.get("VMM_TEST_FAULTS", "3"))
SEED = int(os.environ.get("VMM_TEST_SEED", str(random.randrange(1 << 30))))


class Faults(unittest.TestCase):
    """A source with a disk; after a fault that it survives it is used again."""

    def setUp(self):
        self.random = random.Random(f"{SEED} {self.id()}")
        self.dir = tempfile.mkdtemp()
        self.disk = os.path.join(self.dir, "disk")
        with open(self.disk, "wb") as file:
            file.truncate(1 << 20)
        self.drive = ("-drive", f"file={self.disk},format=raw")
        self.source = None
        self.addCleanup(lambda: self.source and self.source.close())

    def fresh(self):
        """A running source; the old one if it still is."""
        if self.source and self.source.process.poll() is None and self.source.status() == "running":
            return self.source
        if self.source:
            self.source.close()
        self.source = mig.Dirtier(*self.drive, rate=40000).running()
        return self.source

    def settle(self, a, b):
        """After a fault: where the guest is. Fails if it runs twice, or nowhere without anybody saying why."""
        info = a.migration(timeout=30)

        def dest_decided():
            try:
                status = b.status()
                if status == "inmigrate" and b.info().get("status") == "setup":
                    return "waiting"
            except OSError:
                b.wait_exit(10)
            if b.process.poll() is not None:
                return "gone"
            return status if status in ("running", "paused") else None
        where = vmmtest.poll(dest_decided, 30, f"the destination to decide; source {info}")
        if info["status"] == "completed":
            self.assertEqual(a.status(), "postmigrate")
            self.assertEqual(where, "running")
            b.alive()
            return "there"
        here = a.status()
        if here == "running":
            self.assertIn(where, ("gone", "waiting", "paused"), info)
            a.alive()
            if where == "paused":       # it has all, but nobody said go: the disk's lock keeps it from running
                with self.assertRaisesRegex(vmmtest.QMPError, "lock"):
                    b.qmp.command("cont")
            return "here"
        self.assertEqual(here, "paused", info)
        self.assertIn("may run at the destination", info["error-desc"])
        if where == "running":
            b.alive()
            with self.assertRaisesRegex(vmmtest.QMPError, "lock"):
                a.qmp.command("cont")
            return "there"
        if where == "paused":
            self.assertIn("paused here", b.stderr())
        a.qmp.command("cont")
        a.alive()
        return "both paused"

    def test_cut(self):
        """The connection ends after so many bytes."""
        for i in range(COUNT * 2):
            a = self.fresh()
            cut = self.random.randrange(25 << 20) if i % 2 else self.random.randrange(40000)
            with self.subTest(seed=SEED, cut=cut), mig.twin(a, *self.drive) as b, mig.Proxy(b.address(), cut_at=cut) as p:
                a.qmp.command("migrate", uri=p.uri)
                self.settle(a, b)

    def test_cut_at_the_end(self):
        """The connection ends around READY and GO, in either direction: the moments that matter most."""
        seen = set()
        for back in (0, 32, 60, 110, 140, 160, 180, 200, 230):
            a = self.fresh()
            with self.subTest(back=back), mig.twin(a, *self.drive) as b, mig.Proxy(b.address(), cut_back_at=back) as p:
                a.qmp.command("migrate", uri=p.uri)
                seen.add(self.settle(a, b))
        self.assertIn("here", seen)

    def test_flipped_bits(self):
        """A damaged byte anywhere: the stream is refused, the guest goes on here, or the page came again."""
        for i in range(COUNT * 2):
            a = self.fresh()
            at = self.random.randrange(17 << 20) if i % 2 else self.random.randrange(30000)
            with self.subTest(seed=SEED, at=at), mig.twin(a, *self.drive) as b, mig.Proxy(b.address(), flip_at=at) as p:
                a.qmp.command("migrate", uri=p.uri)
                where = self.settle(a, b)
                if where == "here":
                    self.assertRegex(a.info()["error-desc"], r"damaged|checksum|magic|closed|version|unexpected|nothing moved")

    def test_destination_killed(self):
        """kill -9 of the destination: the source's guest goes on within the second."""
        for _ in range(COUNT):
            a = self.fresh()
            with mig.twin(a, *self.drive) as b:
                a.qmp.command("migrate", uri=b.address())
                delay = self.random.random() * 0.1
                mig.sleep_a_little(delay)
                b.process.send_signal(signal.SIGKILL)
                b.process.wait()
                info = a.migration()
                if info["status"] == "failed" and a.status() == "running":
                    a.alive()

    def test_source_killed(self):
        """kill -9 of the source: the destination never runs half a guest."""
        for _ in range(COUNT):
            a = self.fresh()
            with mig.twin(a, *self.drive) as b:
                a.qmp.command("migrate", uri=b.address())
                mig.sleep_a_little(self.random.random() * 0.1)
                a.process.send_signal(signal.SIGKILL)
                a.process.wait()

                def decided():
                    try:
                        return b.status() in ("running", "paused") or b.info().get("status") == "setup"
                    except OSError:
                        b.wait_exit(10)
                        return True
                vmmtest.poll(decided, 20)
                if b.process.poll() is None and b.status() == "running":
                    b.alive()
                elif b.process.poll() is not None:
                    self.assertEqual(b.process.returncode, 1)
                    self.assertRegex(b.stderr(), "closed the connection|reset")

    def test_cancel(self):
        """migrate_cancel at any moment: the guest is here, or it was too late and it is there."""
        for _ in range(COUNT * 2):
            a = self.fresh()
            with mig.twin(a, *self.drive) as b:
                a.qmp.command("migrate", uri=b.address())
                mig.sleep_a_little(self.random.random() * 0.08)
                try:
                    a.qmp.command("migrate_cancel")
                except vmmtest.QMPError as error:
                    self.assertIn("too late", error.desc)
                info = a.migration()
                if info["status"] == "cancelled":
                    mig.stayed(self, a)
                else:
                    mig.moved(self, a, b)

    def test_stalled_switch(self):
        """The line goes silent while the guest stands still: it is taken back after x-switchover-timeout."""
        a = self.fresh()
        a.params(x_switchover_timeout=500)
        total = None
        with mig.twin(a, *self.drive) as b, mig.Proxy(b.address()) as p:
            a.caps(pause_before_switchover=True, events=True)
            a.qmp.command("migrate", uri=p.uri)
            a.migration("pre-switchover")
            p.hold_at = p.forwarded
            a.qmp.command("migrate-continue", state="pre-switchover")
            info = mig.stayed(self, a, ["failed"])
            self.assertRegex(info["error-desc"], "nothing moved for 500 ms")
            total = p.forwarded
        self.assertGreater(total, 16 << 20)

    def test_out_of_memory(self):
        """A destination that cannot have the memory says so before it is too late."""
        a = self.fresh()
        with mig.twin(a, *self.drive) as b:
            with open(f"/proc/{b.pid}/limits", encoding="ascii") as limits:
                self.assertIn("Max address space", limits.read())
            os.system(f"prlimit --pid {b.pid} --as=1 2>/dev/null")
            a.qmp.command("migrate", uri=b.address())
            where = self.settle(a, b)
            self.assertIn(where, ("here", "there"))


if __name__ == "__main__":
    print(f"VMM_TEST_SEED={SEED}")
    assert re
    vmmtest.main()
