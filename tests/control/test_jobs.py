#!/usr/bin/env python3
"""Long work: answers that come later, in order and without holding up others; jobs with their states and verbs."""

import json
import os
import select
import unittest

from harness import Vmm, vmmtest


class Later(unittest.TestCase):
    """A screenshot into a pipe that nobody reads yet takes as long as the test likes."""

    def setUp(self):
        self.vmm = Vmm("-vga", "std")
        self.addCleanup(self.vmm.close)
        self.pipe = self.vmm.path("pipe")
        os.mkfifo(self.pipe)
        self.reader = os.open(self.pipe, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(lambda: os.close(self.reader))

    def raw_client(self, *enable):
        sock = self.vmm.connect()
        stream = sock.makefile("rwb")
        stream.readline()
        stream.write(json.dumps({"execute": "qmp_capabilities", "arguments": {"enable": list(enable)}}).encode())
        stream.flush()
        self.assertEqual(json.loads(stream.readline()), {"return": {}})
        self.addCleanup(sock.close)
        self.addCleanup(stream.close)
        return sock, stream

    def start_screendump(self, stream, *more):
        requests = [{"execute": "screendump", "arguments": {"filename": self.pipe}, "id": "slow"}, *more]
        stream.write(b"".join(json.dumps(r).encode() + b"\r\n" for r in requests))
        stream.flush()

    def drain(self):
        """Read the picture, so that the command can end."""
        os.set_blocking(self.reader, True)
        total = b""
        while len(total) < 15 or len(total) < self.picture_size(total):
            total += os.read(self.reader, 1 << 20)
        return total

    @staticmethod
    def picture_size(head):
        width, height = map(int, head.split(b"\n")[1].split())
        return len(b"P6\n%d %d\n255\n" % (width, height)) + width * height * 3

    def test_order_and_other_clients(self):
        sock, stream = self.raw_client()
        self.start_screendump(stream, {"execute": "query-status", "id": 1}, {"execute": "nonsense", "id": 2},
                              {"execute": "query-name", "id": 3})
        self.assertIn("running", self.vmm.qmp.command("query-status"))  # another client is not held up
        sock.settimeout(0.1)
        with self.assertRaises(TimeoutError):
            sock.recv(1)
        sock.settimeout(60)
        self.assertTrue(self.drain().startswith(b"P6\n"))
        answers = [json.loads(stream.readline()) for _ in range(4)]
        self.assertEqual([a["id"] for a in answers], ["slow", 1, 2, 3])
        self.assertEqual([next(iter(a)) for a in answers], ["return", "return", "error", "return"])

    def test_out_of_band_overtakes(self):
        _, stream = self.raw_client("oob")
        self.start_screendump(stream, {"execute": "query-status", "id": "behind"},
                              {"exec-oob": "closefd", "arguments": {"fdname": "none"}, "id": "oob"})
        self.assertEqual(json.loads(stream.readline())["id"], "oob")
        self.drain()
        self.assertEqual([json.loads(stream.readline())["id"] for _ in range(2)], ["slow", "behind"])

    def test_flood_behind_a_slow_command(self):
        sock, stream = self.raw_client()
        self.start_screendump(stream)
        before = self.vmm.rss()
        sock.setblocking(False)
        request, sent = b'{"execute":"query-commands"}' * 100, 0
        try:
            while sent < 64 << 20:
                sent += sock.send(request)
        except BlockingIOError:
            pass
        self.assertLess(sent, 8 << 20, "it stopped to read")
        self.vmm.qmp.command("query-status")
        self.assertLess(self.vmm.rss() - before, 8 << 20)
        sock.close()  # the answer finds nobody
        self.drain()
        self.vmm.qmp.command("query-status")

    def test_client_goes_before_the_answer(self):
        for _ in range(3):
            sock, stream = self.raw_client()
            self.start_screendump(stream)
            stream.close()
            sock.close()
            self.vmm.qmp.command("query-status")
            self.drain()
        self.vmm.qmp.command("query-status")

    def test_end_of_the_process_while_one_is_stuck(self):
        _, stream = self.raw_client()
        self.start_screendump(stream)
        select.select([self.reader], [], [], 60)  # it has begun to write
        self.vmm.qmp.command("quit")
        self.assertEqual(self.vmm.wait_exit(), 0)


class Jobs(unittest.TestCase):
    """blockdev-create, which is work of any length wanted."""

    def setUp(self):
        self.vmm = Vmm()
        self.addCleanup(self.vmm.close)
        self.qmp = self.vmm.qmp
        self.image = self.vmm.path("image")

    def create(self, job, size, **options):
        self.qmp.execute("blockdev-create", {"job-id": job, "options": {
            "driver": "file", "filename": self.image, "size": size, **options}})

    def states(self, job, last):
        """The job's states up to `last`."""
        seen = []
        while not seen or seen[-1] != last:
            seen.append(self.qmp.wait_event("JOB_STATUS_CHANGE", where=lambda d: d["id"] == job)["data"]["status"])
        return seen

    def refused(self, pattern, command, **arguments):
        with self.assertRaisesRegex(vmmtest.QMPError, pattern):
            self.qmp.command(command, **arguments)

    def test_life_of_a_job(self):
        for mode in ("off", "falloc", "full"):
            with self.subTest(mode):
                self.create("j1", 3 << 20, preallocation=mode)
                self.assertEqual(self.states("j1", "concluded"), ["created", "running", "waiting", "pending", "concluded"])
                job, = self.qmp.command("query-jobs")
                self.assertEqual((job["id"], job["type"], job["status"]), ("j1", "create", "concluded"))
                self.assertEqual(job["current-progress"], job["total-progress"])
                self.assertNotIn("error", job)
                stat = os.stat(self.image)
                self.assertEqual(stat.st_size, 3 << 20)
                self.assertEqual(stat.st_blocks >= 3 << 11, mode != "off")
                self.refused("Job ID 'j1' already in use", "blockdev-create", job_id="j1",
                             options={"driver": "file", "filename": self.image, "size": 1})
                self.assertEqual(os.stat(self.image).st_size, 3 << 20, "not touched by what was refused")
                self.refused("in state 'concluded' cannot accept command verb 'cancel'", "job-cancel", id="j1")
                self.qmp.command("job-dismiss", id="j1")
                self.assertEqual(self.states("j1", "null"), ["null"])
                self.assertEqual(self.qmp.command("query-jobs"), [])

    def test_pause_resume_cancel(self):
        self.create("long", 1 << 40, preallocation="full")
        self.qmp.command("job-pause", id="long")
        self.refused("already paused", "job-pause", id="long")
        progress = lambda: self.qmp.command("query-jobs")[0]["current-progress"]  # noqa: E731
        last = [-1]

        def stands_still():
            previous, last[0] = last[0], progress()
            return previous == last[0]

        vmmtest.poll(stands_still, 20, "the job to stop")
        self.assertEqual(self.qmp.command("query-jobs")[0]["status"], "paused")
        self.qmp.command("job-resume", id="long")
        self.refused("was not paused", "job-resume", id="long")
        vmmtest.poll(lambda: progress() > last[0], 20, "the job to go on")
        for verb in ("complete", "finalize", "dismiss"):
            self.refused(f"cannot accept command verb '{verb}'", f"job-{verb}", id="long")
        self.qmp.command("job-pause", id="long")
        self.qmp.command("job-cancel", id="long")
        self.assertEqual(self.states("long", "concluded")[-2:], ["aborting", "concluded"])
        self.assertEqual(self.qmp.command("query-jobs")[0]["error"], "Operation canceled")
        self.assertFalse(os.path.exists(self.image), "half an image is none")
        self.qmp.command("job-dismiss", id="long")

    def test_quit_during_a_job(self):
        self.create("long", 1 << 40, preallocation="full")
        self.qmp.command("quit")
        self.assertEqual(self.vmm.wait_exit(), 0)

    def test_mistakes(self):
        self.refused("Job not found", "job-cancel", id="nobody")
        for job in ("", "1st", "a/b", "x" * 200):
            self.refused("Invalid job ID", "blockdev-create", job_id=job,
                         options={"driver": "file", "filename": self.image, "size": 1})
        self.refused("does not support blockdev-create", "blockdev-create", job_id="j", options={"driver": "raw"})
        self.refused("nowhere", "blockdev-create", job_id="j",
                     options={"driver": "file", "filename": "/nowhere/x", "size": 1})
        self.refused("metadata", "blockdev-create", job_id="j",
                     options={"driver": "file", "filename": self.image, "size": 1, "preallocation": "metadata"})
        self.refused("not a regular file", "blockdev-create", job_id="j",
                     options={"driver": "file", "filename": "/dev/null", "size": 1})
        self.assertEqual(self.qmp.command("query-jobs"), [])

    def test_image_in_use_is_not_cut_down(self):
        with open(self.image, "wb") as image:
            image.truncate(1 << 20)
        with Vmm("-drive", f"file={self.image},format=raw,if=ide"):
            self.refused("lock", "blockdev-create", job_id="j",
                         options={"driver": "file", "filename": self.image, "size": 1})
        self.assertEqual(os.stat(self.image).st_size, 1 << 20)


if __name__ == "__main__":
    vmmtest.main()
