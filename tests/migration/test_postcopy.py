"""Post-copy: the guest runs at the destination before its memory is there, and a broken connection is no end."""

import socket

import mig
import vmmtest

BUSY = dict(memory=192, size=128, start=40, quiet=1)    # as fast as it writes: it would not converge


class Postcopy(vmmtest.TestCase):
    """A guest that writes faster than the line carries."""

    def start(self, a, b, uri=None, bandwidth=32 << 20):
        """Migrate and switch to post-copy while most of the memory is still here."""
        for guest in (a, b):
            guest.caps(postcopy_ram=True, events=True)
        a.params(max_bandwidth=bandwidth, max_postcopy_bandwidth=bandwidth)
        a.qmp.command("migrate", uri=uri or b.address())
        a.migration("active", "failed")
        vmmtest.poll(lambda: a.info()["ram"]["transferred"] > 4 << 20, 30)
        a.qmp.command("migrate-start-postcopy")
        a.migration("postcopy-active", "completed", "failed")

    def test_all_memory_arrives(self):
        """It runs at the destination at once; every page is right, asked for or pushed."""
        with mig.Dirtier(**BUSY) as a:
            a.running()
            with mig.twin(a) as b:
                self.start(a, b)
                self.assertEqual(b.status(), "running")
                info = a.migration(timeout=120)
                self.assertEqual(info["status"], "completed", info)
                self.assertGreater(info["ram"]["postcopy-requests"], 0)
                self.assertGreater(info["ram"]["postcopy-bytes"], 16 << 20)
                self.assertEqual(a.status(), "postmigrate")
                b.migration("completed")
                b.alive()
                states = [e["data"]["status"] for e in a.qmp.take_events("MIGRATION")]
                self.assertEqual(states, ["setup", "active", "device", "postcopy-active", "completed"])

    def test_recovery(self):
        """The connection is cut twice: pause, recover at the old and at a new address, nothing is lost."""
        with mig.Dirtier(**BUSY) as a:
            a.running()
            with mig.twin(a) as b, mig.Proxy(b.address()) as p:
                self.start(a, b, p.uri, bandwidth=24 << 20)
                p.cut()
                a.migration("postcopy-paused")
                b.migration("postcopy-paused")
                self.assertEqual(b.status(), "running")
                self.assertEqual(a.status(), "finish-migrate")
                with self.assertRaisesRegex(vmmtest.QMPError, "too late"):
                    a.qmp.command("migrate_cancel")
                a.qmp.execute("migrate", {"uri": "tcp:127.0.0.1:1", "resume": True})      # nobody there: still paused
                a.migration("postcopy-paused")
                vmmtest.poll(lambda: "refused" in a.info().get("error-desc", ""), 20)
                a.qmp.execute("migrate", {"uri": b.address(), "resume": True})
                a.migration("postcopy-active", "completed")
                a.qmp.command("migrate-pause")
                a.migration("postcopy-paused")
                b.migration("postcopy-paused")
                b.qmp.command("migrate-recover", uri="tcp:127.0.0.1:0")
                a.params(max_postcopy_bandwidth=0)
                a.qmp.execute("migrate", {"uri": b.address(), "resume": True})
                info = a.migration(timeout=120)
                self.assertEqual(info["status"], "completed", info)
                b.migration("completed")
                b.alive()

    def test_half_open(self):
        """The source knows that the connection is gone, the destination does not: the source's coming back tells it."""
        with mig.Dirtier(**BUSY) as a:
            a.running()
            with mig.twin(a) as b, mig.Proxy(b.address()) as p:
                self.start(a, b, p.uri, bandwidth=24 << 20)
                p.hold_at = p.forwarded                 # nothing goes through any more, not even the end
                self.assertTrue(p.holding.wait(20))
                a.qmp.command("migrate-pause")
                a.migration("postcopy-paused")
                self.assertEqual(b.info()["status"], "postcopy-active")
                a.params(max_postcopy_bandwidth=0)
                a.qmp.execute("migrate", {"uri": b.address(), "resume": True})
                self.assertEqual(a.migration("completed", "postcopy-paused", timeout=120)["status"], "completed")
                b.migration("completed")
                b.alive()

    def test_main_loop_waits(self):
        """The destination's main thread itself waits for a page when the connection breaks: the recovery does not need it."""
        with mig.Dirtier(**BUSY) as a:
            a.running()
            with mig.twin(a) as b, mig.Proxy(b.address()) as p:
                address = b.address()
                self.start(a, b, p.uri, bandwidth=24 << 20)
                p.cut()
                a.migration("postcopy-paused")
                b.migration("postcopy-paused")
                last = (BUSY["start"] + BUSY["size"] << 20) - 4096
                b.qmp.send_raw(b'{"execute": "human-monitor-command", "id": 1, "arguments": {"command-line": "xp /1gx %d"}}\n' % last)
                b.qmp.sock.settimeout(1)
                with self.assertRaises(TimeoutError):
                    b.qmp.sock.recv(1, socket.MSG_PEEK)
                b.qmp.sock.settimeout(60)
                a.params(max_postcopy_bandwidth=0)
                a.qmp.execute("migrate", {"uri": address, "resume": True})
                self.assertEqual(a.migration("completed", "postcopy-paused", timeout=120)["status"], "completed")
                self.assertIn("return", b.qmp.receive())
                b.migration("completed")
                b.alive()

    def test_quit_while_pages_are_missing(self):
        """vmm ends at once, and nothing of the guest runs on with zeros in place of its memory."""
        with mig.Dirtier(**BUSY) as a:
            a.running()
            with mig.twin(a) as b, mig.Proxy(b.address()) as p:
                self.start(a, b, p.uri, bandwidth=8 << 20)
                p.cut()
                b.migration("postcopy-paused")
                b.qmp.command("quit")
                b.wait_exit(10)
                self.assertNotIn(b"FAIL", bytes(b.serial.data))

    def test_refusals(self):
        """Commands at the wrong time, a destination that was not told."""
        with mig.Dirtier(rate=16000) as a:
            a.running()
            with self.assertRaisesRegex(vmmtest.QMPError, "Enable postcopy"):
                a.qmp.command("migrate-start-postcopy")
            with self.assertRaisesRegex(vmmtest.QMPError, "postcopy-active"):
                a.qmp.command("migrate-pause")
            with self.assertRaisesRegex(vmmtest.QMPError, "postcopy is paused"):
                a.qmp.command("migrate-recover", uri="tcp:127.0.0.1:0")
            with self.assertRaisesRegex(vmmtest.QMPError, "no paused"):
                a.qmp.execute("migrate", {"uri": "tcp:127.0.0.1:1", "resume": True})
            a.caps(postcopy_ram=True)
            a.params(max_bandwidth=1 << 20)
            with mig.twin(a) as b:
                a.qmp.command("migrate", uri=b.address())
                a.migration("active")
                with self.assertRaisesRegex(vmmtest.QMPError, "destination cannot do post-copy"):
                    a.qmp.command("migrate-start-postcopy")
                a.qmp.command("migrate_cancel")
                mig.stayed(self, a)


if __name__ == "__main__":
    vmmtest.main()
