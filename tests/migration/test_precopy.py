"""A running guest moves and loses nothing: channels, irqchips, vCPUs, rates, options."""

import contextlib
import os
import re
import socket
import sys
import tempfile
import threading
import time
import unittest

import mig
import vmmtest

LONG = bool(os.environ.get("VMM_TEST_LONG"))


class Precopy(vmmtest.TestCase):
    """The default way: memory while the guest runs, a short pause, and on it goes."""

    def move(self, source_options, dest_options=None, caps=None, params=None, uri=None, incoming="tcp:127.0.0.1:0"):
        """Migrate once; returns query-migrate's last answer."""
        args = source_options.pop("args", ())
        with mig.Dirtier(*args, **source_options) as a:
            a.running()
            with mig.twin(a, incoming=incoming, **(dest_options or {})) as b:
                a.caps(events=True, **(caps or {}))
                b.caps(events=True, **(caps or {}))
                params = {"downtime-limit": 300, **(params or {})}
                params["downtime-limit"] = int(params["downtime-limit"] * vmmtest.SLOW)
                a.params(**params)
                a.qmp.command("migrate", uri=uri or b.address())
                info = mig.moved(self, a, b)
                states = [e["data"]["status"] for e in a.qmp.take_events("MIGRATION")]
                self.assertEqual(states, ["setup", "active", "device", "completed"])
                self.assertTrue(a.qmp.take_events("MIGRATION_PASS"))
                self.assertTrue(a.qmp.take_events("STOP"))
                b.qmp.wait_event("RESUME", 10)
                b.qmp.wait_event("MIGRATION", 10, lambda data: data["status"] == "completed")  # like QEMU's: after RESUME
                return info

    def test_tcp(self):
        """Over TCP; the answer has QEMU's fields and the pause's parts."""
        info = self.move({"rate": 16000})
        for field in ("transferred", "remaining", "total", "duplicate", "normal", "normal-bytes", "mbps", "dirty-sync-count",
                      "page-size"):
            self.assertIn(field, info["ram"])
        self.assertGreaterEqual(info["ram"]["normal"], 16 * 256)
        self.assertGreaterEqual(info["ram"]["duplicate"], 32 * 256)     # zero pages cost nothing
        self.assertLess(info["ram"]["transferred"], info["ram"]["normal-bytes"] + (1 << 20))
        self.assertEqual(info["ram"]["remaining"], 0)
        self.assertGreater(info["x-downtime"]["total-us"], 0)
        self.assertLessEqual(info["x-downtime"]["load-us"], info["x-downtime"]["total-us"])

    def test_unix_split_to_on_two_cpus(self):
        """Over a unix socket, as fast as it writes, from our interrupt chips to KVM's."""
        path = os.path.join(tempfile.mkdtemp(), "m")
        self.move({"irqchip": "split", "cpus": 2}, {"irqchip": "on"}, incoming=f"unix:{path}")

    def test_on_to_split(self):
        """And from KVM's chips to ours."""
        self.move({"irqchip": "on", "rate": 20000}, {"irqchip": "split"})

    def test_channels_and_zstd(self):
        """Several channels for pages, compressed."""
        info = self.move({}, caps={"multifd": True}, params={"multifd-channels": 3, "multifd-compression": "zstd"})
        self.assertLess(info["ram"]["transferred"], info["ram"]["normal-bytes"] / 2)

    def test_channels(self):
        """Several channels, not compressed."""
        info = self.move({}, caps={"multifd": True}, params={"multifd-channels": 2})
        self.assertGreater(info["ram"]["multifd-bytes"], info["ram"]["transferred"] / 2)

    def test_own_channels(self):
        """Two channels without being told to, and one through a relay that serves one connection only, whatever becomes of the others."""
        if os.cpu_count() < 2:
            self.skipTest("one processor: pages go over the main channel")
        info = self.move({"rate": 16000})
        self.assertGreater(info["ram"]["multifd-bytes"], info["ram"]["transferred"] / 2)
        for others in ("refused", "dropped", "unserved"):
            with self.subTest(others=others), mig.Dirtier(rate=16000) as a:
                a.running()
                with mig.twin(a) as b, mig.Proxy(b.address(), others=others) as relay:
                    a.qmp.command("migrate", uri=relay.uri)
                    info = mig.moved(self, a, b)
                    self.assertEqual(info["ram"]["multifd-bytes"], 0)
                    self.assertGreater(relay.forwarded, info["ram"]["normal-bytes"])
                    self.assertLess(info["total-time"], 8000 * vmmtest.SLOW)      # not the connect's or the peer's long time-out

    def test_written_before_it_is_sent(self):
        """What the guest wrote before its turn in the first round came is not sent again."""
        size = 64
        with mig.Dirtier(memory=128, size=size) as a:
            a.running()
            with mig.twin(a) as b:
                a.params(max_bandwidth=8 << 20)
                a.qmp.command("migrate", uri=b.address())
                vmmtest.poll(lambda: a.info().get("ram", {}).get("transferred", 0) > 1 << 20, 20)
                a.check()
                a.writes_on(a.pages + size * 256)       # each page at least once
                a.pace(None)
                early = a.info()["ram"]["transferred"]
                a.params(max_bandwidth=0)
                info = a.migration()
                self.assertEqual(info["status"], "completed", info)
                vmmtest.poll(lambda: b.status() == "running", 20)
                b.check()
        self.assertLess(early, 16 << 20)
        self.assertLess(info["ram"]["normal-bytes"], (size + 16 << 20) + early)     # KVM's log is cleared 16 MiB at a time

    def test_huge_pages(self):
        """What the source fills wholly gets huge pages at the destination; not where post-copy may have to take single ones away."""
        with open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", encoding="ascii") as setting:
            if "[never]" not in setting.read():
                self.skipTest("this host has another rule for huge pages of shared memory than Linux' own")
        if tuple(map(int, re.match(r"(\d+)\.(\d+)", os.uname().release).groups())) < (6, 1):
            self.skipTest("MADV_COLLAPSE came with Linux 6.1")
        for postcopy in (False, True):
            with self.subTest(postcopy=postcopy), mig.Dirtier(rate=16000) as a:
                a.running()
                with mig.twin(a) as b:
                    for guest in (a, b):
                        guest.caps(postcopy_ram=postcopy)
                    a.qmp.command("migrate", uri=b.address())
                    mig.moved(self, a, b)
                    with open(f"/proc/{b.pid}/smaps", encoding="ascii") as smaps:
                        huge = sum(int(line.split()[1]) for line in smaps if line.startswith("ShmemPmdMapped"))
                    if postcopy:
                        self.assertEqual(huge, 0)
                    else:
                        self.assertGreaterEqual(huge, 2048)

    def test_given_connection(self):
        """The destination was given its connection: a second would reach nobody who takes it."""
        with mig.Dirtier(rate=16000) as a, socket.create_server(("127.0.0.1", 0)) as listener:
            a.running()
            with mig.twin(a, incoming="defer") as b:
                a.qmp.command("migrate", uri=f"tcp:127.0.0.1:{listener.getsockname()[1]}")
                theirs, _ = listener.accept()
                mig.pass_fd(b, "in", theirs.fileno())
                theirs.close()
                b.qmp.command("migrate-incoming", uri="fd:in")
                info = mig.moved(self, a, b)
                self.assertEqual(info["ram"]["multifd-bytes"], 0)

    def test_bandwidth_limit(self):
        """max-bandwidth holds, and can be raised on the way."""
        with mig.Dirtier(rate=16000) as a:
            a.running()
            with mig.twin(a) as b:
                a.params(max_bandwidth=4 << 20)
                a.qmp.command("migrate", uri=b.address())
                info = vmmtest.poll(lambda: (lambda i: i if i.get("total-time", 0) > 1000 else None)(a.info()), 20)
                self.assertEqual(info["status"], "active")
                self.assertLess(info["ram"]["transferred"], (4 << 20) * (info["total-time"] / 1000 + 1) * 1.2)
                a.params(max_bandwidth=0)
                mig.moved(self, a, b)

    def test_fd_socket(self):
        """libvirt's way: it connects, we get the socket."""
        with mig.Dirtier(rate=16000) as a:
            a.running()
            with mig.twin(a, incoming="defer") as b:
                ours, theirs = socket.socketpair()
                mig.pass_fd(a, "migrate", ours.fileno())
                mig.pass_fd(b, "in", theirs.fileno())
                ours.close()
                theirs.close()
                b.qmp.command("migrate-incoming", uri="fd:in")
                a.qmp.command("migrate", uri="fd:migrate")
                mig.moved(self, a, b)

    def test_pipe(self):
        """A pipe has no way back: the source cannot be told, the destination finds out by itself."""
        with mig.Dirtier(rate=16000) as a:
            a.running()
            with mig.twin(a, incoming="defer") as b:
                read, write = os.pipe()
                mig.pass_fd(a, "migrate", write)
                mig.pass_fd(b, "in", read)
                os.close(read)
                os.close(write)
                b.qmp.command("migrate-incoming", uri="fd:in")
                a.qmp.command("migrate", uri="fd:migrate")
                mig.moved(self, a, b)

    def test_save_and_restore_as_libvirt_does(self):
        """Stopped, into a file through a pipe; then from the file, with -S and cont."""
        with tempfile.TemporaryFile() as file:
            with mig.Dirtier() as a:
                a.running()
                a.qmp.command("stop")
                read, write = os.pipe()

                def pump():
                    while data := os.read(read, 1 << 20):
                        file.write(data)
                pump_thread = threading.Thread(target=pump)
                pump_thread.start()
                mig.pass_fd(a, "migrate", write)
                os.close(write)
                a.qmp.command("migrate", uri="fd:migrate")
                self.assertEqual(a.migration()["status"], "completed")
                pump_thread.join(60)
                options = a.options
            file.flush()
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            with mig.Dirtier("-S", "-incoming", "defer", **options) as b:
                mig.pass_fd(b, "in", file.fileno())
                b.qmp.command("migrate-incoming", uri="fd:in")
                b.migration("completed")
                self.assertEqual(b.status(), "paused")
                b.qmp.command("cont")
                b.alive()

    def test_pause_before_switchover(self):
        """The guest stands still and waits for migrate-continue; a cancel there takes it back."""
        with mig.Dirtier(rate=16000) as a:
            a.running()
            with mig.twin(a) as b:
                a.caps(pause_before_switchover=True, events=True)
                uri = b.address()
                a.qmp.command("migrate", uri=uri)
                a.migration("pre-switchover")
                self.assertEqual(a.status(), "finish-migrate")
                a.qmp.command("migrate_cancel")
                mig.stayed(self, a, ["cancelled"])
                self.assertEqual(b.wait_exit(), 1)
            with mig.twin(a) as b:
                a.qmp.command("migrate", uri=b.address())
                a.migration("pre-switchover")
                a.qmp.command("migrate-continue", state="pre-switchover")
                mig.moved(self, a, b)

    def test_exec(self):
        """Through a command at both ends (which the sandbox forbids at the source)."""
        path = os.path.join(tempfile.mkdtemp(), "stream")
        with mig.Dirtier("-sandbox", "off", rate=16000) as a:
            a.running()
            a.qmp.command("stop")
            a.qmp.command("migrate", uri=f"exec:gzip -1 > {path}.tmp && mv {path}.tmp {path}")
            self.assertEqual(a.migration()["status"], "completed")
            vmmtest.poll(lambda: os.path.exists(path), 60, "gzip to end")
            with mig.twin(a, incoming=f"exec:gzip -dc {path}") as b:
                vmmtest.poll(lambda: b.status() == "paused", 60, "the guest to arrive")
                b.qmp.command("cont")
                b.alive()
        if "-sandbox" in os.environ.get("VMM_TEST_ARGS", ""):
            return
        with mig.Dirtier(rate=16000) as a:
            a.running()
            with self.assertRaisesRegex(vmmtest.QMPError, "sandbox"):
                a.qmp.command("migrate", uri="exec:cat")
            a.alive()

    def test_some_sizes_and_rates(self):
        """A corner and the middle of the matrix."""
        for memory, size, rate in ((64, 16, 4000), (256, 64, 0)):
            for cpus in (1, 2):
                with self.subTest(memory=memory, size=size, rate=rate, cpus=cpus):
                    self.move({"memory": memory, "size": size, "rate": rate, "cpus": cpus},
                              params={"downtime-limit": 3000} if not rate else None)

    def tour(self, rates, **options):
        """One guest moves on from process to process, at another rate each time, and is checked in each; seconds per move."""
        size, took = options["size"], []
        with contextlib.ExitStack() as stack:
            a = stack.enter_context(mig.Dirtier(quiet=1, **options))
            a.serial.wait_for("ready", 30 + size / 20)          # the host may find it hard to get so much memory
            for rate in rates:
                start = time.monotonic()
                a.pace(rate)
                a.writes_on(a.pages if rate is not None else -1)
                b = stack.enter_context(mig.twin(a))
                b.idle = a.idle
                a.params(**{"downtime-limit": int((3000 if rate == 0 else 300) * vmmtest.SLOW)})
                a.qmp.command("migrate", uri=b.address())
                info = a.migration(timeout=60 + size / 5)
                self.assertEqual(info["status"], "completed", info)
                self.assertEqual(a.status(), "postmigrate")
                self.assertGreaterEqual(info["ram"]["normal"], size * 256)
                vmmtest.poll(lambda: b.status() == "running", 20, "the guest to run at the destination")
                a.close()
                b.writes_on(a.pages if rate is not None else a.pages - 1)
                a = b
                took.append((rate, round(time.monotonic() - start, 1), info["ram"]["dirty-sync-count"], info["downtime"]))
        return took

    @unittest.skipUnless(LONG, "VMM_TEST_LONG=1")
    def test_sizes_and_rates(self):
        """64 MiB to 4 GiB of RAM, working sets of 16 MiB to 1 GiB below and above the PCI hole; from idle to as fast as it goes."""
        for memory, size, start in ((64, 16, 32), (512, 64, 32), (512, 256, 128), (1536, 1024, 256), (4096, 16, 4200),
                                    (4096, 512, 2500), (4096, 1024, 4096)):
            for cpus in (1, 2):
                with self.subTest(memory=memory, size=size, cpus=cpus):
                    took = self.tour((None, size * 32, 40000, 0), memory=memory, size=size, start=start, cpus=cpus)
                    print(f"\n{memory} MiB, {size} MiB written, {cpus} vCPUs: " + ", ".join(
                        f"{'idle' if rate is None else rate or 'max'}: {seconds} s, {rounds} rounds, {down} ms"
                        for rate, seconds, rounds, down in took), file=sys.stderr, flush=True)

    def test_windows_are_there_before(self):
        """What waits for the host is done while the guest runs: KVM's memory slots do not change any more when its state comes."""
        with mig.Dirtier(rate=16000) as a:
            a.running()
            with mig.twin(a, "-d", "kvm,migration") as b:
                a.qmp.command("migrate", uri=b.address())
                mig.moved(self, a, b)
                before, after = b.stderr().split("the guest stands")
                self.assertRegex(before, r"memory slot \d+: 256 KiB at 0xc0000")
                self.assertNotIn("memory slot", after)

    def test_disks_are_flushed_before(self):
        """What the host has to write back does not hold up the pause."""
        with tempfile.NamedTemporaryFile() as image:
            image.truncate(160 << 20)
            drive = ("-drive", f"file={image.name},format=raw,if=ide,index=0")
            with mig.Dirtier(*drive, "-d", "migration", rate=40000, disk=1) as a, mig.twin(a, *drive) as b:
                a.running()
                image.seek(1 << 20)         # the image's pages in the host's cache, as if the guest had written them
                for _ in range(128):
                    image.write(os.urandom(1 << 20))
                image.flush()
                a.qmp.command("migrate", uri=b.address())
                info = mig.moved(self, a, b)
                log = a.stderr()
            first = float(re.search(r"disks flushed in ([\d.]+) ms", log)[1])
            if first < 50:
                self.skipTest(f"128 MiB are written back in {first} ms here")
            self.assertLess(info["x-downtime"]["flush-us"] / 1000, first / 2, log)

    def test_dirty_ring(self):
        """KVM's other way of telling what was written: rings so small that they overflow all the time, and frame buffers beside."""
        self.move({"cpus": 2, "args": ("-accel", "kvm,dirty-ring-size=1024")})
        with mig.Dirtier("-accel", "kvm,dirty-ring-size=65536", memory=96, size=48, rate=40000) as a:
            a.running()
            with mig.twin(a) as b:
                a.qmp.command("migrate", uri=b.address())
                mig.moved(self, a, b)
        for size, why in (("1000", "power of two"), ("1048576", "too big"), ("16", "minimum value is 1024")):
            with self.assertRaisesRegex(Exception, why):
                vmmtest.Guest("-accel", f"kvm,dirty-ring-size={size}", memory=16).close()


if __name__ == "__main__":
    vmmtest.main()
