#!/usr/bin/env python3
"""Guests that run on real KVM: saved, restored, checkpointed, migrated, looked at while they work."""

import os
import re
import signal
import socket

import ctltest
import assets
from ctltest import FAILED, vmmtest


class Moving(ctltest.Case):
    """The guest checks its own memory (tests/payloads/dirtier.c): what is lost on the way shows."""

    @classmethod
    def setUpClass(cls):
        reason = vmmtest.why_no_vmm()
        if reason:
            raise ctltest.unittest.SkipTest(reason)

    def start(self, name="web", *args):
        """A guest that writes 8 MiB over and over."""
        kernel = assets.payload("dirtier")
        with open("/proc/cpuinfo", encoding="ascii") as stream:
            tsc = int(float(re.search(r"cpu MHz\s*: ([\d.]+)", stream.read())[1]) * 1e6)
        text = (f"memory = 48\nvnc = none\nkernel = {kernel}\n"
                f"append = start={16 << 20} size={8 << 20} rate=4000 tsc={tsc}\n"
                f"extra = {os.environ.get('VMM_TEST_ARGS', '')}\n")
        self.ctl("create", self.write(f"{name}.vmm", text), *args)

    def rounds(self, name="web"):
        """Rounds the guest has done, all of them right."""
        text = self.ctl("dmesg", name)
        self.assertNotIn("FAIL", text)
        found = re.findall(r"^round (\d+)", text, re.M)
        return int(found[-1]) if found else 0

    def goes_on(self, beyond, name="web"):
        """It does further rounds, and its memory is whole."""
        vmmtest.poll(lambda: self.rounds(name) > beyond + 1, 60, "further rounds", 0.1)
        with self.background("console", name, stdin=ctltest.subprocess.PIPE, stdout=ctltest.subprocess.DEVNULL) as console:
            console.stdin.write(b"x")
            console.stdin.flush()
            vmmtest.poll(lambda: "PASS dirtier" in self.ctl("dmesg", name), 60, "PASS", 0.1)

    def test_save_and_restore(self):
        self.start()
        vmmtest.poll(lambda: self.rounds() > 1, 60, "rounds", 0.1)
        checkpoint = self.path("point")
        out = self.ctl("save", "--checkpoint", "web", "point")
        self.assertRegex(out, r"web: .* in [\d.]+ s, stopped for \d+ ms")
        self.assertEqual(self.state(), "running")
        first = self.rounds()
        vmmtest.poll(lambda: self.rounds() > first, 60, "further rounds", 0.1)
        last = self.rounds()
        info = self.json("save", "web", self.path("end"))
        self.assertEqual(info["status"], "completed")
        self.assertEqual(self.names(), [])
        self.assertEqual(sorted(f for f in os.listdir(self.dir) if f.startswith(("point", "end"))),
                         ["end", "end.vmm", "point", "point.vmm"])
        self.ctl("restore", "end")
        self.assertEqual(self.state(), "running")
        self.goes_on(last)
        self.refused(FAILED, "a guest named web runs already", "restore", checkpoint)
        self.ctl("destroy", "web")
        self.ctl("restore", "--paused", checkpoint)
        self.assertEqual(self.state(), "paused")
        self.ctl("unpause", "web")
        self.goes_on(0)
        self.ctl("destroy", "web")
        self.ctl("restore", "--lazy", checkpoint)
        self.goes_on(0)

    def test_dies_while_it_moves(self):
        """That is said at once; neither host keeps anything of it."""
        port = ctltest.free_port()
        self.start()
        vmmtest.poll(lambda: self.rounds() > 1, 60, "rounds", 0.1)
        there = {"VMM_RUN_DIR": self.path("there")}
        self.ctl("create", "--incoming", f"tcp:127.0.0.1:{port}", "web.vmm", env=there)
        self.ctl("qmp", "web", "migrate-set-parameters", '{"max-bandwidth": 1048576}')
        with self.background("migrate", "--live", "-p", port, "web", "127.0.0.1", stderr=ctltest.subprocess.PIPE) as move:
            vmmtest.poll(lambda: self.json("qmp", "web", "query-migrate").get("status") == "active", 30, "the move to be under way")
            os.kill(self.pid(), signal.SIGKILL)
            self.assertEqual(move.wait(30), ctltest.NO_ANSWER)
            self.assertIn(b"web: the guest ended before it answered", move.stderr.read())
        self.wait_gone()
        vmmtest.poll(lambda: not os.listdir(self.path("there")), 30, "the other side to give up")

    def test_save_fails(self):
        self.start()
        self.refused(FAILED, "cannot", "save", "web", "/nowhere/file")
        self.assertEqual(self.state(), "running")
        self.refused(FAILED, "cannot read", "restore", "nothing")
        self.write("torn", "this is no guest")
        self.write("torn.vmm", "name = other\nmemory = 48\nvnc = none\n")
        self.ctl("restore", "torn", status=FAILED)
        self.assertEqual(self.names(), ["web"])

    def at_work(self):
        """A guest that writes; how far it is."""
        self.start()
        vmmtest.poll(lambda: self.rounds() > 1, 60, "rounds", 0.1)
        return self.rounds()

    def test_migrate(self):
        """To another run directory, as if it were another host."""
        port, last = ctltest.free_port(), self.at_work()
        self.refused(FAILED, "migrating failed", "migrate", "--live", "web", f"tcp:127.0.0.1:{port}")
        self.assertEqual(self.state(), "running")
        there = {"VMM_RUN_DIR": self.path("there")}
        self.ctl("create", "--incoming", f"tcp:127.0.0.1:{port}", "web.vmm", env=there)
        self.assertIn("inmigrate", self.ctl("list", env=there))
        out = self.ctl("migrate", "--live", "-p", port, "web", "127.0.0.1")
        self.assertRegex(out, r"web: .* in [\d.]+ s, stopped for \d+ ms")
        self.assertEqual(self.names(), [])
        self.run_dir = self.env["VMM_RUN_DIR"] = self.path("there")
        self.wait_state("running")
        self.goes_on(last if self.rounds() else 0)

    def test_progress(self):
        """On a terminal: a bar, how much of how much, the rate and the time that is left; Ctrl-C takes the guest back."""
        port, last = ctltest.free_port(), self.at_work()
        self.ctl("create", "--incoming", f"tcp:127.0.0.1:{port}", "web.vmm", env={"VMM_RUN_DIR": self.path("there")})
        self.ctl("qmp", "web", "migrate-set-parameters", '{"max-bandwidth": 1048576}')
        master, slave = os.openpty()
        with self.background("migrate", "--live", "-p", port, "web", "127.0.0.1", stdin=slave, stdout=slave, stderr=slave) as move:
            os.close(slave)
            seen = b""
            while not re.search(rb"migrating \[#*-*\] +\d+%  [\d.]+ \wi?B of [\d.]+ \wi?B  [\d.]+ \wi?B/s  [1-9]\d* s left", seen):
                self.assertIsNone(move.poll(), seen)
                seen += os.read(master, 4096)
            move.send_signal(signal.SIGINT)
            vmmtest.poll(lambda: move.poll() is not None, 60, "vmmctl to end")
            self.assertNotEqual(move.returncode, 0)
        os.close(master)
        self.assertEqual(self.state(), "running")
        self.goes_on(last)

    def test_seen_at_work(self):
        self.start()
        vmmtest.poll(lambda: self.rounds() > 1, 60, "rounds", 0.1)
        row = self.json("top", "-n", "3", "-d", "0.5", "web")[0]
        self.assertGreater(row["cpu"], 1, row)
        self.assertGreaterEqual(row["exits"], 0, row)
        self.assertTrue(row["reason"], row)
        self.assertTrue(set(row["history"]) <= set("▁▂▃▄▅▆▇█") and row["history"], row)
        self.ctl("vcpu-pin", "web", "0", "0")
        alone = "all" if os.sysconf("SC_NPROCESSORS_CONF") == 1 else "0"       # a host's one processor is all of them
        self.assertEqual(self.json("vcpu-list", "web")[0]["affinity"], alone)
        self.ctl("vcpu-pin", "web", "all", "all")
        self.assertEqual(self.json("vcpu-list", "web")[0]["affinity"], "all")
        self.ctl("pause", "web")
        vmmtest.poll(lambda: self.json("vcpu-list", "web")[0]["state"] == "b", 20, "the vCPU's thread to sleep", 0.05)
        with socket.socket(socket.AF_UNIX) as metrics:
            metrics.connect(f"{self.run_dir}/web/metrics.sock")
            metrics.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            self.assertIn(b"200", metrics.recv(100))


if __name__ == "__main__":
    vmmtest.main()
