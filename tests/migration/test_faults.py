"""Whatever breaks, the guest is alive exactly once afterwards, or paused at both ends and both said so.

The moments are random but printed: VMM_TEST_SEED=N repeats a run, VMM_TEST_FAULTS=N says how many moments in all. The guest
checks every page and every sector before it writes it again, so memory that was lost or a disk two of it wrote to shows.
"""

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time

import mig
import vmmtest

COUNT = int(os.environ.get("VMM_TEST_FAULTS", "22"))
SEED = int(os.environ.get("VMM_TEST_SEED", str(random.randrange(1 << 30))))
KINDS = 11      # tests that take a share of them
SHARE = -(-COUNT // KINDS)


class Faults(vmmtest.TestCase):
    """A source with a disk; whoever has the guest after a fault is the next source."""

    def setUp(self):
        self.random = random.Random(f"{SEED} {self.id()}")
        self.dir = tempfile.mkdtemp()
        self.disk = os.path.join(self.dir, "disk")
        self.drive = ("-drive", f"file={self.disk},format=raw")
        self.source = None
        self.addCleanup(lambda: self.source and self.source.close())

    def fresh(self):
        """A running source; the one that has the guest if it still runs."""
        a = self.source
        if a and a.process.poll() is None and a.status() == "running" and a.info().get("status") != "postcopy-active":
            a.params(max_bandwidth=0, max_postcopy_bandwidth=0)
            return a
        if a:
            a.close()
        with open(self.disk, "wb") as file:
            file.truncate(1 << 20)
        self.source = mig.Dirtier(*self.drive, rate=40000, disk=1, cpus=2).running()
        return self.source

    @contextlib.contextmanager
    def pair(self, *args, **proxy):
        """Source, destination, and what is between them. A destination that has the guest at the end is the next source."""
        a = self.fresh()
        b = mig.twin(a, *self.drive, *args)
        try:
            with mig.Proxy(b.address(), **proxy) as p:
                yield a, b, p
            with contextlib.suppress(OSError):          # it may just be ending
                if b.status() == "running" and b.info().get("status") == "completed" and not args:
                    self.source = b
                    a.close()
        finally:
            if self.source is not b:
                b.close()

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

    # ---- pre-copy ----

    def test_cut(self):
        """The connection ends after so many bytes."""
        for i in range(SHARE):
            cut = self.random.randrange(25 << 20) if i % 2 else self.random.randrange(40000)
            with self.subTest(seed=SEED, cut=cut), self.pair(cut_at=cut) as (a, b, p):
                a.qmp.command("migrate", uri=p.uri)
                self.settle(a, b)

    def test_cut_at_the_end(self):
        """The connection ends around READY and GO, in either direction: the moments that matter most."""
        seen = set()
        for back in (0, 32, 60, 110, 140, 160, 180, 200, 230):
            with self.subTest(back=back), self.pair(cut_back_at=back) as (a, b, p):
                a.qmp.command("migrate", uri=p.uri)
                seen.add(self.settle(a, b))
        self.assertIn("here", seen)

    def test_flipped_bits(self):
        """A damaged byte anywhere: the stream is refused, the guest goes on here, or the page came again."""
        for i in range(SHARE):
            at = self.random.randrange(17 << 20) if i % 2 else self.random.randrange(30000)
            with self.subTest(seed=SEED, at=at), self.pair(flip_at=at) as (a, b, p):
                a.qmp.command("migrate", uri=p.uri)
                if self.settle(a, b) == "here":
                    self.assertRegex(a.info()["error-desc"], r"damaged|checksum|magic|closed|version|unexpected|nothing moved")

    def test_destination_killed(self):
        """kill -9 of the destination: the source's guest goes on within the second."""
        for _ in range(SHARE):
            with self.subTest(seed=SEED), self.pair() as (a, b, _p):
                a.qmp.command("migrate", uri=b.address())
                mig.sleep_a_little(self.random.random() * 0.1)
                b.process.send_signal(signal.SIGKILL)
                b.process.wait()
                info = a.migration()
                if info["status"] == "failed":
                    self.assertIn(a.status(), ("running", "paused"))
                    if a.status() == "paused":
                        self.assertIn("may run at the destination", info["error-desc"])
                        a.qmp.command("cont")
                    a.alive()

    def test_source_killed(self):
        """kill -9 of the source: the destination never runs half a guest."""
        for _ in range(SHARE):
            with self.subTest(seed=SEED), self.pair() as (a, b, _p):
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
                if b.process.poll() is not None:
                    self.assertEqual(b.process.returncode, 1)
                    self.assertRegex(b.stderr(), "closed the connection|reset")
                elif b.status() == "paused":        # complete, and nobody else has it
                    b.qmp.command("cont")
                    b.alive()
                elif b.status() == "running":
                    b.alive()

    def test_cancel(self):
        """migrate_cancel at any moment: the guest is here, or it was too late and it is there."""
        for _ in range(SHARE):
            with self.subTest(seed=SEED), self.pair() as (a, b, _p):
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
        with self.pair() as (a, _b, p):
            a.params(x_switchover_timeout=500)
            a.caps(pause_before_switchover=True, events=True)
            a.qmp.command("migrate", uri=p.uri)
            a.migration("pre-switchover")
            p.hold_at = p.forwarded
            a.qmp.command("migrate-continue", state="pre-switchover")
            info = mig.stayed(self, a, ["failed"])
            self.assertRegex(info["error-desc"], "nothing moved for 500 ms")
            self.assertGreater(p.forwarded, 16 << 20)

    def test_back_within_the_second(self):
        """What ends a hand-over before GO, at its latest moment: the guest goes on within the second, as the operator sees it."""
        def kill(a, b, p):
            b.process.send_signal(signal.SIGKILL)

        def cut(a, b, p):
            p.cut()

        def cancel(a, b, p):
            a.qmp.command("migrate_cancel")

        for fault in (kill, cut, cancel):
            with self.subTest(fault=fault.__name__), self.pair(cut_back_at=None) as (a, b, p):
                a.caps(pause_before_switchover=True)
                a.params(x_switchover_timeout=60000)
                a.qmp.command("migrate", uri=p.uri)
                a.migration("pre-switchover")
                p.hold_at = p.forwarded                 # the destination never has all of the state
                a.qmp.command("migrate-continue", state="pre-switchover")
                self.assertTrue(p.holding.wait(20))
                a.migration("device")
                began = time.monotonic()
                fault(a, b, p)
                vmmtest.poll(lambda a=a: a.status() == "running", 20, "the guest to run at the source", interval=0.005)
                self.assertLess(time.monotonic() - began, vmmtest.SLOW)
                self.assertIn(a.migration()["status"], ("failed", "cancelled"))
                a.caps(pause_before_switchover=False)
                a.params(x_switchover_timeout=1000)
                a.alive()
                p.close()

    # ---- resources ----

    @contextlib.contextmanager
    def small_file_system(self, size):
        """A directory with room for so many bytes."""
        path = tempfile.mkdtemp()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size >> 10}k", "none", path], check=False,
                          stderr=subprocess.DEVNULL).returncode:
            self.skipTest("no right to mount a small file system")
        try:
            yield path
        finally:
            subprocess.run(["umount", "-l", path], check=True)
            os.rmdir(path)

    def test_out_of_memory(self):
        """A destination whose memory ends early says so, and the guest stays. Before and after the switch to post-copy."""
        for i in range(SHARE):
            room = self.random.randrange(1 << 20, 15 << 20)
            with self.subTest(seed=SEED, room=room), self.small_file_system(room) as path:
                memory = ("-object", f"memory-backend-file,id=pc.ram,size=64M,mem-path={path}/ram,share=on",
                          "-machine", "memory-backend=pc.ram")
                with self.pair(*memory) as (a, b, p):
                    if i % 2:
                        self.switch_to_postcopy(a, b, p.uri)
                        self.assertIn(a.migration("failed", "postcopy-paused")["status"], ("failed", "postcopy-paused"))
                        continue
                    a.qmp.command("migrate", uri=p.uri)
                    self.assertEqual(self.settle(a, b), "here")
                    self.assertIn("memory", a.info()["error-desc"])

    def test_out_of_disk(self):
        """A save that the file system has no room for leaves the guest running and no file."""
        for _ in range(SHARE):
            room = self.random.randrange(64 << 10, 15 << 20)
            with self.subTest(seed=SEED, room=room), self.small_file_system(room) as path:
                a = self.fresh()
                a.caps(background_snapshot=self.random.random() < 0.5)
                a.qmp.command("migrate", uri=f"file:{path}/guest")
                info = mig.stayed(self, a, ["failed"])
                self.assertRegex(info["error-desc"], "No space left")
                self.assertEqual(os.listdir(path), [])

    # ---- post-copy ----

    def switch_to_postcopy(self, a, b, uri):
        """Start, and switch over after a moment; the rest takes about a second."""
        a.caps(postcopy_ram=True)
        b.caps(postcopy_ram=True)
        a.params(max_bandwidth=32 << 20, max_postcopy_bandwidth=16 << 20)
        a.qmp.command("migrate", uri=uri)
        a.migration("active", "failed")
        mig.sleep_a_little(self.random.random() * 0.1)
        with contextlib.suppress(vmmtest.QMPError):     # it may have failed by now
            a.qmp.command("migrate-start-postcopy")

    def settle_postcopy(self, a, b):
        """The connection broke. The guest is here if the destination never ran it; else it is there, after a recovery."""
        def stands():
            info = a.info()
            return info if info["status"] in mig.ENDED + ("postcopy-paused",) else None
        info = vmmtest.poll(stands, 60, lambda: f"the source to stand: {a.info()}")
        if info["status"] in ("failed", "completed"):
            return self.settle(a, b)

        def dest_stands():
            try:
                return b.info().get("status") if b.info().get("status") in ("completed", "postcopy-paused") else None
            except OSError:
                b.wait_exit(10)
                return "gone"
        there = vmmtest.poll(dest_stands, 60, lambda: f"the destination to stand: {b.info()}; source {a.info()}")
        if there == "gone":                             # GO did not arrive
            self.assertIn("may run at the destination", a.stderr())
            a.qmp.command("migrate_cancel")
            a.migration("cancelled")
            self.assertEqual(a.status(), "paused")
            a.qmp.command("cont")
            a.alive()
            return "here"
        if there == "postcopy-paused":
            a.params(max_postcopy_bandwidth=0)
            a.qmp.execute("migrate", {"uri": b.address(), "resume": True})
            self.assertEqual(a.migration("completed", "postcopy-paused")["status"], "completed", b.stderr())
            b.migration("completed")
            b.alive()
            return "recovered"
        self.assertIn("every page was sent", a.stderr())
        b.alive()
        return "there"

    def test_postcopy_cut(self):
        """The connection is cut at any time after the start of post-copy."""
        for _ in range(SHARE):
            with self.subTest(seed=SEED), self.pair() as (a, b, p):
                self.switch_to_postcopy(a, b, p.uri)
                mig.sleep_a_little(self.random.random() * 1.3)
                p.cut()
                self.settle_postcopy(a, b)

    def test_postcopy_cut_at_the_end(self):
        """The connection ends around READY, GO and RUNNING of a post-copy."""
        seen = set()
        for back in range(80, 240, 20):
            with self.subTest(back=back), self.pair(cut_back_at=back) as (a, b, p):
                self.switch_to_postcopy(a, b, p.uri)
                seen.add(self.settle_postcopy(a, b))
        self.assertLessEqual({"here", "recovered"}, seen)

    def test_postcopy_flipped_bits(self):
        """A damaged byte after the start of post-copy is found; nothing is lost."""
        for _ in range(SHARE):
            with self.subTest(seed=SEED), self.pair() as (a, b, p):
                self.switch_to_postcopy(a, b, p.uri)
                p.flip_at = p.forwarded + self.random.randrange(12 << 20)
                self.settle_postcopy(a, b)

    def test_postcopy_killed(self):
        """Either end is killed in post-copy: the guest is lost or whole, never half, and never runs twice."""
        for i in range(SHARE):
            with self.subTest(seed=SEED), self.pair() as (a, b, p):
                self.switch_to_postcopy(a, b, p.uri)
                mig.sleep_a_little(self.random.random() * 0.6)
                if i % 2:
                    self.kill_source(a, b)
                else:
                    self.kill_destination(a, b)

    def kill_destination(self, a, b):
        """The source says what it knows; a guest that did not run there is here."""
        b.process.send_signal(signal.SIGKILL)
        b.process.wait()
        info = a.migration(*mig.ENDED, "postcopy-paused")
        if info["status"] == "postcopy-paused":
            self.assertEqual(a.status(), "finish-migrate")
            if "may run at the destination" in a.stderr():
                a.qmp.command("migrate_cancel")
                a.migration("cancelled")
                self.assertEqual(a.status(), "paused")
            else:
                with self.assertRaisesRegex(vmmtest.QMPError, "too late"):
                    a.qmp.command("migrate_cancel")
        elif info["status"] == "failed" and a.status() == "running":
            a.alive()

    def kill_source(self, a, b):
        """The destination ends, is whole, or waits, and can be ended at once."""
        a.process.send_signal(signal.SIGKILL)
        a.process.wait()

        def stands():
            try:
                return b.info()["status"] in ("completed", "postcopy-paused")
            except OSError:
                self.assertEqual(b.wait_exit(10), 1)
                return True
        vmmtest.poll(stands, 30)
        if b.process.poll() is not None:
            return
        if b.info()["status"] == "completed":
            b.alive()
            return
        self.assertRegex(b.stderr(), r"[1-9]\d* pages are missing")
        b.qmp.command("quit")
        began = time.monotonic()
        b.wait_exit(20)
        self.assertLess(time.monotonic() - began, 10)


if __name__ == "__main__":
    print(f"VMM_TEST_SEED={SEED}", flush=True)
    vmmtest.main()
