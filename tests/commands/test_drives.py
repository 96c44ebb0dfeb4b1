#!/usr/bin/env python3
"""Disks, CDs and images: what the guest reads and writes, and what the operator sees and changes of it."""

import os
import resource
import time

from exercise import Case, MIB, shows, vmmtest


class Disk(Case):
    """The observer's first disk is an image."""

    def with_disk(self, *args, size=MIB, options="", **more):
        self.disk = self.image("disk", size, text="first disk")
        return self.start("-drive", f"file={self.disk},format=raw,if=ide,id=disk{options}", *args, **more)

    def drive(self, guest, name="disk"):
        return next(d for d in guest.qmp.command("query-block") if d["device"] == name)

    def stats(self, guest):
        return next(d for d in guest.qmp.command("query-blockstats") if d["device"] == "disk")["stats"]

    @shows("query-block", "query-blockstats", "query-named-block-nodes", "block-latency-histogram-set", "info block",
           "info blockstats")
    def test_reads_and_writes_are_counted(self):
        guest = self.with_disk()
        self.assertEqual(self.drive(guest)["inserted"]["image"]["filename"], self.disk)
        node = self.drive(guest)["inserted"]["node-name"]
        named = {n["node-name"]: n for n in guest.qmp.command("query-named-block-nodes")}
        self.assertEqual(named[node]["image"]["virtual-size"], MIB)
        self.assertIn(self.disk, self.info(guest, "block"))
        guest.qmp.command("block-latency-histogram-set", id="disk", boundaries=[1000, 1000000000])
        before = self.stats(guest)
        for n in range(3):
            self.does(guest, f"r {4 * n}", f"disk {4 * n}: first disk")
        self.does(guest, "w 1 7", "wrote 1")
        after = self.stats(guest)
        self.assertEqual([after[k] - before[k] for k in ("rd_operations", "rd_bytes", "wr_operations", "wr_bytes")],
                         [3, 3 * 512, 1, 512])
        self.assertEqual(sum(after["rd_latency_histogram"]["bins"]), 3)
        self.assertEqual(after["wr_latency_histogram"]["bins"][0], 0)   # no disk answers in a microsecond
        self.assertEqual(sum(after["wr_latency_histogram"]["bins"]), 1)
        ours = next(r for r in guest.qmp.command("query-stats", target="x-drive") if r["x-name"] == "disk")
        ours = {s["name"]: s["value"] for s in ours["stats"]}
        self.assertEqual((ours["block_operations_read"], ours["block_transferred_bytes_write"], ours["block_queue_depth"]),
                         (after["rd_operations"], after["wr_bytes"], 0))
        self.assertEqual(sum(ours["block_latency_seconds_read"]), after["rd_operations"])
        self.assertIn(f"rd_operations={after['rd_operations']}", self.info(guest, "blockstats"))
        with open(self.disk, "rb") as image:
            self.assertEqual(image.read(1024)[512:], b"7" * 512)

    @shows("block_set_io_throttle")
    def test_throttle(self):
        """So slow that the guest waits."""
        guest = self.with_disk()
        self.does(guest, "r 0", "disk 0: first disk")
        guest.qmp.execute("block_set_io_throttle", {"device": "disk", "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 4, "iops_rd": 0,
                                                    "iops_wr": 0})
        self.assertEqual(self.drive(guest)["inserted"]["iops"], 4)
        start = time.monotonic()
        for n in range(6):
            self.does(guest, f"r {4 * n}", f"disk {4 * n}: first disk")
        self.assertGreater(time.monotonic() - start, 1.0)

    @shows("block_resize")
    def test_resize(self):
        guest = self.with_disk()
        self.does(guest, "i", "disk has 2048 sectors")
        guest.qmp.command("block_resize", device="disk", size=2 * MIB)
        self.does(guest, "i", "disk has 4096 sectors")
        self.does(guest, "w 4095 1", "wrote 4095\r")
        self.assertEqual(os.path.getsize(self.disk), 2 * MIB)

    @shows("block-set-write-threshold", "BLOCK_WRITE_THRESHOLD")
    def test_write_threshold(self):
        guest = self.with_disk()
        node = self.drive(guest)["inserted"]["node-name"]
        guest.qmp.command("block-set-write-threshold", node_name=node, write_threshold=MIB // 2)
        self.does(guest, "w 1 1", "wrote 1\r")
        self.does(guest, "w 1500 1", "wrote 1500")
        told = guest.qmp.wait_event("BLOCK_WRITE_THRESHOLD")["data"]
        self.assertEqual(told, {"node-name": node, "amount-exceeded": 1501 * 512 - MIB // 2, "write-threshold": MIB // 2})
        self.assertEqual(len(guest.qmp.take_events("BLOCK_WRITE_THRESHOLD")), 0)

    @shows("BLOCK_IO_ERROR")
    def test_error_stops_the_guest(self):
        """The host lets it write no further; once it does, the guest's write is done again and the guest knows nothing."""
        guest = self.with_disk(options=",werror=stop")
        limit = resource.prlimit(guest.pid, resource.RLIMIT_FSIZE, (MIB // 2, resource.RLIM_INFINITY))
        guest.serial.send("w 1500 5\n")
        told = guest.qmp.wait_event("BLOCK_IO_ERROR")["data"]
        self.assertEqual((told["device"], told["operation"], told["action"]), ("disk", "write", "stop"))
        vmmtest.poll(lambda: guest.qmp.command("query-status")["status"] == "io-error", 20, "the stop")
        resource.prlimit(guest.pid, resource.RLIMIT_FSIZE, limit)
        guest.qmp.command("cont")
        guest.serial.wait_for("wrote 1500\r", 30)
        self.does(guest, "r 1500", "disk 1500: 5555555555555555")


class Compact(Case):
    """The observer's CD drive."""

    def with_cd(self, *args):
        self.first, self.second = (self.image(name, 64 << 10, text=name) for name in ("first-cd", "second-cd"))
        return self.start("-drive", f"file={self.first},format=raw,if=ide,media=cdrom,index=2,id=cd", *args)

    def reads(self, guest, text):
        """Once it knows that the medium is another one."""
        vmmtest.poll(lambda: self.does(guest, "c 0", r"cd 0: ([^\r]*)\r")[1].decode().startswith(text), 30, text, 0.01)

    def moved(self, guest):
        data = guest.qmp.wait_event("DEVICE_TRAY_MOVED")["data"]
        self.assertEqual(data["device"], "cd")
        return "open" if data["tray-open"] else "closed"

    NO_MEDIUM = "sense 2 3a"

    @shows("blockdev-open-tray", "blockdev-close-tray", "blockdev-remove-medium", "blockdev-insert-medium", "blockdev-add",
           "blockdev-del", "DEVICE_TRAY_MOVED")
    def test_tray(self):
        """Each step by itself, with a node from blockdev-add."""
        guest = self.with_cd()
        qdev = guest.qmp.command("query-block")[0]["qdev"]
        self.reads(guest, "first-cd")
        guest.qmp.command("blockdev-open-tray", id=qdev)
        self.assertEqual(self.moved(guest), "open")
        self.reads(guest, self.NO_MEDIUM)
        guest.qmp.command("blockdev-remove-medium", id=qdev)
        guest.qmp.execute("blockdev-add", {"node-name": "next", "driver": "raw", "read-only": True,
                                           "file": {"driver": "file", "filename": self.second}})
        guest.qmp.command("blockdev-insert-medium", id=qdev, node_name="next")
        guest.qmp.command("blockdev-close-tray", id=qdev)
        self.assertEqual(self.moved(guest), "closed")
        self.reads(guest, "second-cd")
        with self.assertRaisesRegex(vmmtest.QMPError, "in use|busy"):
            guest.qmp.command("blockdev-del", node_name="next")
        guest.qmp.command("blockdev-open-tray", id=qdev)
        guest.qmp.command("blockdev-remove-medium", id=qdev)
        guest.qmp.command("blockdev-del", node_name="next")
        self.assertNotIn("next", [n["node-name"] for n in guest.qmp.command("query-named-block-nodes")])

    @shows("eject", "blockdev-change-medium")
    def test_change(self):
        guest = self.with_cd()
        guest.qmp.command("blockdev-change-medium", device="cd", filename=self.second, format="raw")
        self.reads(guest, "second-cd")
        self.does(guest, "l 1", "locked")
        with self.assertRaisesRegex(vmmtest.QMPError, "locked"):
            guest.qmp.command("eject", device="cd")
        self.reads(guest, "second-cd")
        guest.qmp.command("eject", device="cd", force=True)
        self.reads(guest, self.NO_MEDIUM)

    @shows("add-fd", "query-fdsets", "remove-fd")
    def test_image_by_descriptor(self):
        """The guest reads an image of which vmm knows no name."""
        guest = self.with_cd()
        fd = os.open(self.second, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        number = guest.qmp.execute("add-fd", {"opaque": "the second"}, [fd])["fdset-id"]
        os.unlink(self.second)
        guest.qmp.command("blockdev-change-medium", device="cd", filename=f"/dev/fdset/{number}", format="raw",
                          read_only_mode="read-only")
        self.reads(guest, "second-cd")
        sets = guest.qmp.command("query-fdsets")
        self.assertEqual([(s["fdset-id"], f["opaque"]) for s in sets for f in s["fds"]], [(number, "the second")])
        guest.qmp.command("remove-fd", fdset_id=number)
        self.assertEqual(guest.qmp.command("query-fdsets"), [])
        self.reads(guest, "second-cd")      # what is open stays open


class Images(Case):
    """Images that are made and changed while a guest runs."""

    @shows("blockdev-create", "query-jobs", "job-pause", "job-resume", "job-cancel", "job-dismiss", "query-block-jobs",
           "JOB_STATUS_CHANGE", "info jobs", "info block-jobs", refuses=("job-complete", "job-finalize"))
    def test_jobs(self):
        """One that is finished, one that is given up; no job of ours has a second part to complete or finalize."""
        guest = self.start()

        def job():
            return next((j for j in guest.qmp.command("query-jobs")), None)

        def create(name, size, **more):
            guest.qmp.execute("blockdev-create", {"job-id": name, "options": {
                "driver": "file", "filename": self.path(name), "size": size, **more}})

        def ended(name):
            guest.qmp.wait_event("JOB_STATUS_CHANGE", 60, lambda d: d == {"id": name, "status": "concluded"})

        create("good", 3 * MIB)
        ended("good")
        self.assertEqual((job()["status"], job().get("error")), ("concluded", None))
        self.assertEqual(os.path.getsize(self.path("good")), 3 * MIB)
        for verb in ("complete", "finalize"):
            with self.assertRaisesRegex(vmmtest.QMPError, f"'good' in state 'concluded' cannot accept command verb '{verb}'"):
                guest.qmp.command(f"job-{verb}", id="good")
        self.assertIn("good: create, concluded", self.info(guest, "jobs"))
        self.assertEqual(self.info(guest, "block-jobs"), "No active jobs\n")
        self.assertEqual(guest.qmp.command("query-block-jobs"), [])
        guest.qmp.command("job-dismiss", id="good")
        self.assertIsNone(job())

        create("bad", 4096 * MIB, preallocation="full")
        guest.qmp.command("job-pause", id="bad")
        self.assertEqual(job()["status"], "paused")
        vmmtest.poll(lambda: job()["current-progress"] == job()["current-progress"], 20, "a step's end", 0.1)
        self.assertLess(job()["current-progress"], 4096 * MIB)
        guest.qmp.command("job-resume", id="bad")
        self.assertEqual(job()["status"], "running")
        guest.qmp.command("job-cancel", id="bad")
        ended("bad")
        self.assertEqual(job()["error"], "Operation canceled")
        self.assertFalse(os.path.exists(self.path("bad")))
        guest.qmp.command("job-dismiss", id="bad")
        self.assertEqual(guest.qmp.command("query-status")["status"], "running")

    @shows("blockdev-reopen")
    def test_reopen(self):
        """A disk that may not be written to, until it may."""
        disk = self.image("disk", text="first disk")
        guest = self.start("-blockdev", f"driver=file,node-name=file,filename={disk}",
                           "-blockdev", "driver=raw,node-name=raw,file=file", "-device", "ide-hd,drive=raw,bus=ide.0")
        self.does(guest, "w 1 1", "wrote 1\r")
        flags = self.open_flags(guest, disk)
        guest.qmp.execute("blockdev-reopen", {"options": [{"driver": "file", "node-name": "file", "filename": disk,
                                                           "cache": {"direct": True}}]})
        self.assertEqual(self.open_flags(guest, disk) ^ flags, os.O_DIRECT)
        self.does(guest, "r 1", "disk 1: 1111111111111111")
        self.does(guest, "w 1 2", "wrote 1\r")

    def open_flags(self, guest, path):
        """How the process has the file open."""
        folder = f"/proc/{guest.pid}/fd"
        fd = next(fd for fd in os.listdir(folder) if os.readlink(f"{folder}/{fd}") == path)
        with open(f"/proc/{guest.pid}/fdinfo/{fd}", encoding="ascii") as info:
            return int(next(line.split()[1] for line in info if line.startswith("flags:")), 8)


if __name__ == "__main__":
    vmmtest.main()
