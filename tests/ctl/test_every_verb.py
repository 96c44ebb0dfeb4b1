#!/usr/bin/env python3
"""Every verb against a guest that runs on real KVM and answers: one test for each, for people and with --json.

The guest is tests/payloads/hotplug.c: it reacts to the power button, the keyboard, breaks, devices and vCPUs that come and go, as a
system does. A verb of `vmmctl help` without a test here, or whose test does not run it both ways, is a failure.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
import unittest

import ctltest
import assets
from ctltest import FAILED, NO_ANSWER, NO_GUEST, OK, USAGE, vmmtest

# Who needs no guest that runs, so says nothing of one that does not. For the others the status is NO_GUEST.
NO_GUEST_NEEDED = {"create", "clone", "edit", "autostart", "restore", "log", "info", "help", "completion", "complete"}
# What is known without asking a guest's vmm: files, /proc, control groups; or is said of each guest ("?").
ANSWERS_ALONE = NO_GUEST_NEEDED | {"list", "domid", "domname", "rename", "uptime", "dmesg", "sched-credit", "top", "mem-max"}
# Arguments, where a verb wants more than a guest.
ARGUMENTS = {"rename": ["www"], "save": ["file"], "restore": [], "migrate": ["localhost"], "screenshot": ["x.png"], "mem-set": ["16"],
             "mem-max": ["32"], "vcpu-pin": ["all", "all"], "vcpu-set": ["1"], "sysrq": ["h"], "attach": ["pvpanic-pci"],
             "detach": ["x"], "qmp": ["query-status"], "events": ["-n", "1"], "top": ["-n", "1"], "dump-core": ["x.core"]}


def need_kvm():
    reason = vmmtest.why_no_vmm()
    if reason:
        raise unittest.SkipTest(reason)


class Guest(ctltest.Case):
    """With a guest named web, of a payload."""

    @classmethod
    def setUpClass(cls):
        need_kvm()

    def payload(self, name="web", folder="", more="", payload="hotplug", **keys):
        """Its configuration file."""
        keys = dict({"memory": 64, "maxvcpus": 2, "vnc": "none", "kernel": assets.payload(payload),
                     "extra": os.environ.get("VMM_TEST_ARGS", "")}, **keys)
        return self.write(f"{name}.vmm", "".join(f"{key} = {value}\n" for key, value in keys.items()) + more, folder)

    def start(self, name="web", *args, **options):
        self.ctl("create", self.payload(name, **options), *args)
        if "-p" not in args:
            self.said("ready", name)

    def console(self, name="web"):
        """All it wrote to its console."""
        return self.ctl("dmesg", name)

    def said(self, pattern, name="web", times=1):
        """Wait for it."""
        def text():
            return f"{pattern!r} on the console; there is {self.console(name)[-500:]!r}"
        vmmtest.poll(lambda: len(re.findall(pattern, self.console(name))) >= times, 60, text)

    def type(self, text, name="web"):
        """At its serial terminal."""
        return self.ctl("console", name, stdin=text)

    def read_until(self, fd, pattern):
        """From a terminal, until that was seen."""
        seen = b""
        os.set_blocking(fd, False)

        def more():
            nonlocal seen
            try:
                seen += os.read(fd, 4096)
            except BlockingIOError:
                pass
            return re.search(pattern.encode(), seen)
        vmmtest.poll(more, 30, lambda: f"{pattern!r} on the terminal; there is {seen!r}")

    def gone(self, name="web"):
        self.wait_gone(name)
        self.assertIsNone(self.state(name))


class Verbs(Guest):
    """test_VERB, with - as _."""

    def setUp(self):
        super().setUp()
        self.verb = self._testMethodName.removeprefix("test_").replace("_", "-")
        self.ways = set()

    def tearDown(self):
        if self._outcome.success:       # neither failed nor skipped
            self.assertEqual(self.ways, {"people", "json"}, f"{self.verb} was not shown both ways")

    def note(self, args):
        words = [str(arg) for arg in args]
        if next((word for word in words if not word.startswith("-")), None) == self.verb:
            self.ways.add("json" if "--json" in words else "people")

    def ctl(self, *args, status=OK, **options):
        out = super().ctl(*args, status=status, **options)
        if status == OK:
            self.note(args)
        return out

    @contextlib.contextmanager
    def background(self, *args, **options):
        with super().background(*args, **options) as process:
            yield process
        if not process.returncode:      # 0: it ended well; a negative one: the test let it go
            self.note(args)

    # ---- the life of a guest

    def test_create(self):
        path = self.payload()
        line = self.ctl("create", "-n", path)
        self.assertEqual(self.json("create", "-n", path)["command"], shlex.split(line))
        made = self.json("create", path)
        self.assertEqual(made, {"name": "web", "id": self.pid()})
        self.said("ready")
        self.payload("db", folder="etc")
        self.assertEqual(self.ctl("create", "db"), "")
        self.said("ready", "db")
        # -c: its terminal, at once
        self.payload("c", folder="etc")
        self.assertIn("char x", self.ctl("create", "-c", "c", stdin="x"))

    def test_list(self):
        self.start()
        row, = self.json("list")
        self.assertEqual((row["name"], row["memory"], row["vcpus"], row["state"]), ("web", 64, 1, "running"))
        vmmtest.poll(lambda: self.json("list")[0]["time"] > row["time"], 20, "processor time to pass")
        title, line = self.ctl("list", "web").splitlines()
        self.assertEqual(title.split(), ["NAME", "ID", "MEM/MiB", "VCPUS", "STATE", "TIME/s"])
        self.assertEqual(line.split()[:5], ["web", str(row["id"]), "64", "1", "running"])

    def test_destroy(self):
        for option in ((), ("--json",)):
            self.start()
            pid = self.pid()
            out = self.ctl(*option, "destroy", "web")
            self.assertEqual(out.strip(), "{}" if option else "")
            self.assertFalse(os.path.exists(f"/proc/{pid}/exe"))
            self.gone()

    def test_shutdown(self):
        self.start()
        with self.background("shutdown", "-w", "web", stdout=subprocess.PIPE) as waiting:
            self.assertEqual(waiting.wait(60), 0)
            self.gone()
        self.assertIn("guest-shutdown", self.ctl("log", "web"))
        self.start()
        self.assertEqual(self.json("shutdown", "--wait", "--limit", "60", "--all"), {})
        self.gone()

    def test_reboot(self):
        self.start()
        pid = self.pid()
        self.ctl("reboot", "web")               # the button; its keeper starts it again
        self.wait_restart(pid)
        self.said("ready")
        pid = self.pid()
        self.assertEqual(self.json("reboot", "--force", "web"), {})
        self.said("ready", times=2)             # the same vmm
        self.assertEqual(self.pid(), pid)

    def test_pause(self):
        self.start()
        for option in ((), ("--json",)):
            self.ctl(*option, "pause", "web")
            self.assertEqual(self.state(), "paused")
            before = self.console()
            thread = self.json("vcpu-list", "web")[0]["time"]
            self.ctl("sysrq", "web", "h")
            self.assertEqual(self.console(), before)
            self.assertEqual(self.json("vcpu-list", "web")[0]["time"], thread)  # no processor time at all
            self.ctl("unpause", "web")

    def test_unpause(self):
        self.start("web", "-p")
        self.assertEqual((self.state(), self.console()), ("paused", ""))
        self.ctl("unpause", "web")
        self.said("ready")
        self.ctl("pause", "web")
        self.assertEqual(self.json("unpause", "web"), {})
        self.assertEqual(self.state(), "running")
        self.assertIn("char x", self.type("x"))

    # ---- names

    def test_domid(self):
        self.start()
        pid = int(self.ctl("domid", "web"))
        self.assertEqual(os.path.realpath(f"/proc/{pid}/exe"), os.path.realpath(vmmtest.VMM))
        self.assertEqual(self.json("domid", "web"), pid)
        self.refused(NO_GUEST, "no guest", "domid", "nobody")

    def test_domname(self):
        self.start()
        self.assertEqual(self.ctl("domname", self.pid()), "web\n")
        self.assertEqual(self.json("domname", self.pid()), "web")
        self.refused(NO_GUEST, "no guest", "domname", os.getpid())

    def test_rename(self):
        self.start()
        pid = self.pid()
        self.ctl("rename", "web", "www")
        self.assertEqual(self.row("www"), (pid, "running"))
        self.assertEqual(self.json("rename", "www", "web"), {})
        self.assertEqual(self.row("web"), (pid, "running"))
        self.assertIn("char x", self.type("x"))

    def test_uptime(self):
        self.start()
        row, = self.json("uptime", "web")
        vmmtest.poll(lambda: self.json("uptime")[0]["uptime"] > row["uptime"], 20, "time to pass")
        self.assertRegex(self.ctl("uptime"), rf"web +{row['id']} +00:0\d:\d\d\n")

    # ---- configurations

    def test_clone(self):
        self.payload(folder="etc", more=f"[disk]\nfile = {self.write('web.img', 'x' * 512)}\nformat = raw\n")
        self.assertEqual(self.ctl("clone", "web", "web2").strip(), self.path("etc/web2.vmm"))
        self.assertEqual(self.json("clone", "web", "web3"), {"name": "web3", "config": self.path("etc/web3.vmm")})
        uuids = set()
        for name in ("web", "web2", "web3"):    # all at once
            self.ctl("create", name)
            self.said("ready", name)
            uuids.add(self.json("qmp", name, "query-uuid")["UUID"])
            block, = [b for b in self.json("qmp", name, "query-block") if b.get("inserted")]
            self.assertEqual(block["inserted"]["file"], self.path(f"{name}.img"))
        self.assertEqual(len(uuids), 3)

    def test_edit(self):
        self.payload(folder="etc")
        self.ctl("edit", "web", env={"EDITOR": "sed -i s/memory.*/memory=48/", "VISUAL": ""})
        self.ctl("create", "web")
        self.assertEqual(self.json("list")[0]["memory"], 48)
        self.assertEqual(self.json("edit", "web", env={"EDITOR": "sed -i s/memory.*/memory=32/", "VISUAL": ""}), {})
        self.assertEqual(self.json("list")[0]["memory"], 48)
        self.ctl("destroy", "web")
        self.ctl("create", "web")
        self.assertEqual(self.json("list")[0]["memory"], 32)

    def test_autostart(self):
        self.payload(folder="etc")
        self.payload("db", folder="etc")
        self.ctl("autostart", "web", "on")
        self.assertEqual(self.json("autostart"), [{"name": "web"}])
        self.assertEqual(self.ctl("autostart"), "NAME\nweb\n")
        self.ctl("autostart", "--start")
        self.said("ready")
        self.assertEqual([row["name"] for row in self.json("list")], ["web"])
        self.assertEqual(self.json("autostart", "web", "off"), {})
        self.assertEqual(self.json("autostart"), [])

    # ---- state

    def test_save(self):
        self.start()
        out = self.ctl("save", "--checkpoint", "web", "point")
        self.assertRegex(out, r"^web: .* in [\d.]+ s, stopped for \d+ ms\n$")
        self.assertIn("char x", self.type("x"))
        info = self.json("save", "web", "end")
        self.assertEqual(info["status"], "completed")
        self.assertGreaterEqual(info["downtime"], 0)
        self.gone()
        self.ctl("restore", "end")
        self.assertIn("char y", self.type("y"))

    def test_restore(self):
        self.start()
        self.type("x")
        self.ctl("save", "web", "file")
        self.ctl("restore", "file")
        self.assertIn("char y", self.type("y"))
        self.ctl("save", "web", "again")
        self.assertEqual(self.json("restore", "--paused", "again")["name"], "web")
        self.assertEqual(self.state(), "paused")
        self.ctl("unpause", "web")
        self.assertIn("char z", self.type("z"))

    def test_migrate(self):
        here, there = self.run_dir, self.path("there")
        for option, source, target in (((), here, there), (("--json",), there, here)):
            self.run_dir = self.env["VMM_RUN_DIR"] = source
            if not option:
                self.start()
            port = str(ctltest.free_port())
            self.ctl("create", "--incoming", f"tcp:127.0.0.1:{port}", "web.vmm", env={"VMM_RUN_DIR": target})
            out = self.ctl(*option, "migrate", "--live", "-p", port, "web", "127.0.0.1")
            if option:
                self.assertEqual(json.loads(out)["status"], "completed")
            else:
                self.assertRegex(out, r"^web: .* in [\d.]+ s, stopped for \d+ ms\n$")
            self.assertEqual(self.names(), [])
            self.run_dir = self.env["VMM_RUN_DIR"] = target
            self.wait_state("running")
            self.assertIn("char x", self.type("x"))

    def test_dump_core(self):
        self.start()
        self.ctl("dump-core", "web", "a.core")
        self.assertIn("char x", self.type("x"))     # it goes on
        made = self.json("dump-core", "--crash", "web")
        self.gone()
        for path in (self.path("a.core"), made["file"]):
            head = subprocess.run(["readelf", "-hl", path], stdout=subprocess.PIPE, text=True, check=True).stdout
            self.assertIn("CORE (Core file)", head)
            with open(path, "rb") as stream:        # the guest's memory: the payload's own words
                self.assertIn(b" does not start\n", stream.read())

    def test_screenshot(self):
        self.start()
        self.ctl("screenshot", "web", "a.ppm")
        self.assertEqual(self.json("screenshot", "web", "b.ppm"), {})
        for name in ("a.ppm", "b.ppm"):
            with open(self.path(name), "rb") as stream:
                size = re.match(rb"P6\n(\d+) (\d+)\n255\n", stream.read())
            self.assertTrue(int(size[1]) >= 640 and int(size[2]) >= 350, size)
        if vmmtest.has_module("png"):
            self.ctl("screenshot", "web", "a.png")
            with open(self.path("a.png"), "rb") as stream:
                self.assertEqual(stream.read(8), b"\x89PNG\r\n\x1a\n")

    # ---- memory and processors

    def test_mem_set(self):
        """The wish reaches the balloon; that a driver makes it true is in tests/guest/test_linux_ctl.py."""
        self.start()
        self.ctl("mem-set", "web", "48")
        self.said("balloon 4096\n")                 # pages it is to give
        self.assertEqual(self.json("mem-set", "web", "32M"), {})
        self.said("balloon 8192\n")
        self.ctl("mem-set", "web", "64")
        self.said("balloon 0\n")
        self.refused(FAILED, "was started with 64 MiB", "mem-max", "web", "65")
        self.assertIn("char x", self.type("x"))

    def test_mem_max(self):
        self.start()
        self.ctl("mem-max", "web", "48")
        self.refused(FAILED, "at most 48 MiB", "mem-set", "web", "56")
        self.assertEqual(self.json("mem-max", "web", "56"), {})
        self.ctl("mem-set", "web", "56")

    def test_vcpu_list(self):
        self.start()
        row, = self.json("vcpu-list", "web")
        with open(f"/proc/{self.pid()}/task/{row['thread']}/comm", encoding="ascii") as stream:
            self.assertEqual(stream.read(), "CPU 0/KVM\n")
        self.assertEqual((row["vcpu"], row["affinity"]), (0, "all"))
        line = self.ctl("vcpu-list").splitlines()[1].split()
        self.assertEqual(line[0], "web")
        vmmtest.poll(lambda: self.json("vcpu-list")[0]["time"] > row["time"], 20, "the vCPU to use processor time")

    def test_vcpu_pin(self):
        self.start()
        last = max(os.sched_getaffinity(0))
        thread = self.json("vcpu-list", "web")[0]["thread"]
        self.ctl("vcpu-pin", "web", "0", last)
        self.assertEqual(os.sched_getaffinity(thread), {last})
        vmmtest.poll(lambda: self.json("vcpu-list")[0]["cpu"] == last, 20, "the vCPU to run there")
        self.assertEqual(self.json("vcpu-pin", "web", "all", "all"), {})
        self.assertGreaterEqual(os.sched_getaffinity(thread), os.sched_getaffinity(0))

    def test_vcpu_set(self):
        self.start()
        self.ctl("vcpu-set", "web", "2")
        self.said("cpu 1 up")
        self.assertEqual(len(self.json("vcpu-list", "web")), 2)
        self.assertEqual(self.json("vcpu-set", "web", "1"), {})
        self.said("cpu 1 gone")
        self.assertEqual(self.json("list")[0]["vcpus"], 1)

    def test_sched_credit(self):
        """A guest that never rests gets what it may, and no more. (All combinations: test_verbs.py.)"""
        group = ctltest.cpu_group(self)
        if not group:
            self.skipTest("no cpu controller, or no right to make a control group")
        self.start()
        for pid in self.holders("web"):
            with open(f"{group}/cgroup.procs", "w", encoding="ascii") as procs:
                procs.write(str(pid))
        row, = self.json("sched-credit", "web")
        self.assertEqual((row["name"], row["id"], row["cap"]), ("web", self.pid(), 0))
        self.ctl("sched-credit", "-d", "web", "-w", "512", "-c", "20")
        self.assertRegex(self.ctl("sched-credit"), rf"web +{row['id']} +512 +20\n")
        used = self.json("list")[0]["time"]
        start = time.monotonic()
        vmmtest.poll(lambda: self.json("list")[0]["time"] > used + 0.3, 60, "the guest to use processor time")
        self.assertGreater(time.monotonic() - start, 0.9)   # 0.3 s at 20% are 1.5 s; without the cap 0.3
        self.assertEqual(self.json("sched-credit", "--cap", "0", "web"), [])
        self.assertEqual([(r["weight"], r["cap"]) for r in self.json("sched-credit")], [(512, 0)])

    # ---- looks

    def test_console(self):
        self.start()
        self.assertIn("char x", self.ctl("console", "web", stdin="x"))
        lines = self.ctl("--json", "console", "web", stdin="y").splitlines()
        self.assertIn("char y", "".join(json.loads(line)["text"] for line in lines))
        master, slave = os.openpty()                # a terminal: what is typed goes there, Ctrl-] leaves
        with self.background("console", "web", stdin=slave, stdout=slave, stderr=slave) as console:
            os.close(slave)
            self.read_until(master, "Ctrl-\\] leaves")
            os.write(master, b"z\x03")              # no signal: the guest's own
            self.read_until(master, "char z\r\nchar \x03")
            os.write(master, b"v\x1dw")
            self.assertEqual(console.wait(20), 0)
        os.close(master)
        self.said("char v")
        self.assertNotIn("char w", self.console())
        self.assertEqual(self.state(), "running")

    @unittest.skipUnless(vmmtest.has_module("vnc"), "built without VNC")
    def test_console_graphical(self):
        """A viewer is started, and finds the guest's screen."""
        self.verb = "console"
        self.start(vnc="127.0.0.1:90,to=99")
        viewer = self.write("viewer", "#!/bin/bash\nexec 3<>/dev/tcp/${1%%::*}/${1##*::} && head -c 12 <&3 >seen\n")
        os.chmod(viewer, 0o755)
        address = self.json("console", "--print", "web")["address"]
        self.assertEqual(self.ctl("console", "--print", "web").strip(), address)
        self.ctl("console", "--graphical", "web", env={"VNC_VIEWER": viewer})
        with open(self.path("seen"), "rb") as stream:
            self.assertEqual(stream.read(), b"RFB 003.008\n")
        self.refused(FAILED, "no VNC viewer found|cannot", "console", "-g", "web", env={"VNC_VIEWER": "/nowhere/viewer"})

    def test_dmesg(self):
        self.start()
        self.type("x")
        self.assertEqual(self.ctl("dmesg", "web"), "ready\nchar x\n")
        self.assertEqual(self.ctl("dmesg", "-n", "1", "web"), "char x\n")
        self.assertEqual(self.json("dmesg", "--lines", "1", "web"), {"text": "char x\r\n"})
        for option in ((), ("--json",)):
            with self.background(*option, "dmesg", "-f", "-n", "0", "web", stdout=subprocess.PIPE, text=True) as follow:
                time.sleep(0)
                vmmtest.poll(lambda: self.type("y") and os.get_blocking(follow.stdout.fileno()), 10)
                line = follow.stdout.readline()
                self.assertEqual(json.loads(line)["text"].split("\r\n")[0] if option else line.rstrip(), "char y")

    def test_log(self):
        self.start()
        text = self.ctl("log", "web")
        self.assertIn(f"vmm runs as process {self.pid()}", text)
        self.assertEqual(self.json("log", "web")["text"], text)
        self.ctl("destroy", "web")
        self.assertIn("vmm ended with status 0", self.ctl("log", "-n", "1", "web"))     # also of one that ended

    def test_top(self):
        disk = self.write("disk.img", "\0" * 65536)
        with open("/proc/cpuinfo", encoding="ascii") as stream:
            tsc = int(float(re.search(r"cpu MHz\s*: ([\d.]+)", stream.read())[1]) * 1e6)
        self.start(payload="dirtier", append=f"start={16 << 20} size={1 << 20} rate=20000 tsc={tsc} disk=1",
                   more=f"[disk]\nfile = {disk}\nformat = raw\n")
        row, = self.json("top", "-n", "3", "-d", "0.3", "web")
        self.assertEqual((row["name"], row["id"], row["state"]), ("web", self.pid(), "running"))
        self.assertGreater(row["cpu"], 1, row)
        self.assertGreater(row["exits"], 10, row)
        self.assertGreater(row["read"], 0, row)     # its disk
        self.assertGreater(row["written"], 0, row)
        self.assertTrue(row["reason"] and set(row["history"]) <= set("▁▂▃▄▅▆▇█"), row)
        out = self.ctl("top", "-b", "-n", "2", "-d", "0.3")
        self.assertRegex(out.splitlines()[-1], r"^web +running +[\d.]+ ")
        master, slave = os.openpty()                # live, on a terminal; q leaves
        with self.background("top", "-d", "0.1", env=dict(self.env, TERM="xterm"), stdin=slave, stdout=slave, stderr=slave) as top:
            os.close(slave)
            self.read_until(master, "▂|▃|▄|▅|▆|▇|█")
            os.write(master, b"q")
            self.assertEqual(top.wait(20), 0)
        os.close(master)

    def test_events(self):
        self.start()
        for option in ((), ("--json",)):
            with self.background(*option, "events", "-n", "2", "web", stdout=subprocess.PIPE, text=True) as events:
                vmmtest.poll(lambda: self.sockets(events.pid), 10, "events to be connected")
                vmmtest.poll(lambda: self.ctl("pause", "web") + self.ctl("unpause", "web") == "" and events.poll() is not None, 20)
                got = [json.loads(line) for line in events.stdout]
            self.assertEqual([e["event"] for e in got], ["STOP", "RESUME"])
            self.assertTrue(all(e["guest"] == "web" and abs(e["timestamp"]["seconds"] - time.time()) < 60 for e in got), got)

    def sockets(self, pid):
        try:
            return [fd for fd in os.listdir(f"/proc/{pid}/fd") if "socket:" in os.readlink(f"/proc/{pid}/fd/{fd}")]
        except OSError:
            return []

    @unittest.skipUnless(vmmtest.has_module("slirp"), "built without libslirp")
    def test_vnet_list(self):
        self.start(more="[nic]\nmac = 52:54:00:00:00:07\nmodel = virtio\n")
        row, = self.json("vnet-list")
        self.assertEqual((row["guest"], row["nic"], row["mac"], row["type"], row["link"]),
                         ("web", "nic0", "52:54:00:00:00:07", "user", "up"))
        self.assertRegex(self.ctl("vnet-list", "web"), r"\n10\.0\.2\.0 +user +- +web +nic0 .*52:54:00:00:00:07")

    def test_info(self):
        info = self.json("info")
        self.assertEqual((info["nr_cpus"], info["host"], info["release"], info["kvm"]),
                         (os.cpu_count(), os.uname().nodename, os.uname().release, 12))
        with open("/proc/meminfo", encoding="ascii") as stream:
            total = int(re.search(r"MemTotal: *(\d+)", stream.read())[1]) // 1024
        self.assertEqual(info["total_memory"], total)
        self.assertIn("irqfd", info["kvm_caps"])
        text = self.ctl("info")
        for key, value in info.items():
            if not key.startswith("free"):
                self.assertRegex(text, rf"(?m)^{key} *: {re.escape(str(value))}$")

    # ---- hands on

    def test_sysrq(self):
        self.start()
        for option in ((), ("--json",)):
            before = self.console().count("key b8")
            self.ctl(*option, "sysrq", "web", "h")
            self.said("key b8", times=before + 1)   # Alt is up again: all of it has come
            self.assertRegex(self.console(), r"key 38\nkey 54\nkey 23\n(key (23|a3|d4|b8)\n)*key b8\n\Z")
            self.ctl(*option, "sysrq", "--serial", "web", "T")
            self.said(r"break\nchar t", times=2 if option else 1)
        # The letter needs the console: somebody else's is not interrupted.
        with self.background("console", "web", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL):
            vmmtest.poll(lambda: "disconnected" not in next(c for c in self.json("qmp", "web", "query-chardev")
                                                            if c["label"] == "console0")["filename"], 10)
            self.refused(FAILED, "console 0 is in use", "sysrq", "--serial", "web", "x")
        self.assertEqual(self.console().count("break"), 2)

    def test_attach(self):
        self.start()
        self.assertEqual(self.ctl("attach", "web", "pvpanic-pci,id=a,addr=9"), "")
        self.said("slot 9 1b36:11")
        self.assertEqual(self.json("attach", "web", "pvpanic-pci,id=b,addr=a"), {})
        self.said("slot 10 1b36:11")
        if vmmtest.has_module("slirp"):
            self.assertEqual(self.ctl("attach", "web", "nic,model=virtio").strip(), "nic0")
            self.said("slot 3 1af4:|slot 4 1af4:|slot 5 1af4:|slot 6 1af4:")

    def test_detach(self):
        self.start()
        for number, option in ((9, ()), (10, ("--json",))):
            self.ctl("attach", "web", f"pvpanic-pci,id=d,addr={number:x}")
            self.said(f"slot {number} 1b36")
            self.assertEqual(self.ctl(*option, "detach", "web", "d").strip(), "{}" if option else "")
            self.said(f"slot {number} empty")
        self.refused(FAILED, "not found", "detach", "web", "d")

    def test_qmp(self):
        self.start()
        self.assertEqual(json.loads(self.ctl("qmp", "web", "query-status")), self.json("qmp", "web", "query-status"))
        self.assertEqual(self.json("qmp", "web", "query-status")["status"], "running")
        # Its memory, as the guest has it.
        self.ctl("qmp", "web", "pmemsave", "val=0x100000", "size=65536", f"filename={self.path('memory')}")
        with open(self.path("memory"), "rb") as stream:
            self.assertIn(b"power button\n", stream.read())
        line, = self.ctl("--json", "qmp", "web", stdin='{"execute": "stop", "id": "a"}\n').splitlines()
        self.assertEqual((json.loads(line), self.state()), ({"return": {}, "id": "a"}, "paused"))

    # ---- about itself

    def test_help(self):
        self.assertEqual(self.json("help", "list"), next(v for v in self.json("help")["verbs"] if v["name"] == "list"))
        for verb in self.json("help")["verbs"]:
            text = self.ctl("help", verb["name"])
            self.assertIn(verb["summary"], text)
            self.assertEqual(self.json(verb["name"], "--help"), verb)
        self.refused(USAGE, "no verb", "help", "nonsense")

    def test_completion(self):
        script = self.ctl("completion")
        self.assertEqual(self.json("completion"), script)
        self.assertEqual(subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode, 0)

    def test_complete(self):
        self.start()
        self.assertEqual(self.ctl("complete", "--", "pause", "w"), "web\n")
        self.assertEqual(self.json("complete", "--", "pause", ""), ["web"])


class Statuses(Guest):
    """The documented ones, of each verb."""

    def verbs(self):
        return [verb["name"] for verb in self.json("help")["verbs"]]

    def test_none_is_missing(self):
        """Each verb has its test; no test is for a verb that there is not."""
        tests = {name.removeprefix("test_").replace("_", "-") for name in dir(Verbs) if name.startswith("test_")}
        self.assertEqual(tests - {"console-graphical"}, set(self.verbs()))

    def test_usage(self):
        for verb in self.verbs():
            with self.subTest(verb=verb):
                self.refused(USAGE, f"{verb}: unknown option --frobnicate", verb, "--frobnicate")
                self.assertEqual(self.json(verb, "--frobnicate", status=USAGE)["error"]["status"], USAGE)

    def test_no_guest(self):
        for verb in sorted(set(self.verbs()) - NO_GUEST_NEEDED):
            with self.subTest(verb=verb):
                name = "4194303" if verb == "domname" else "nobody"
                words = [verb, name, *ARGUMENTS.get(verb, [])]
                if verb in ("events", "top", "qmp"):
                    words = [verb, *ARGUMENTS[verb], name] if verb != "qmp" else words
                self.refused(NO_GUEST, f"no guest '{name}' is running", *words)
                self.assertEqual(self.json(*words, status=NO_GUEST)["error"]["status"], NO_GUEST)

    def test_no_answer(self):
        """vmm is stopped: nobody waits for ever, and what needs its answer says so."""
        self.start()
        os.kill(self.pid(), signal.SIGSTOP)
        asked = set(self.verbs()) - ANSWERS_ALONE - {"destroy", "vcpu-list", "vnet-list", "events"}
        with contextlib.ExitStack() as stack:       # all at once
            running = {verb: stack.enter_context(self.background("--timeout", "1", verb, "web", *ARGUMENTS.get(verb, []),
                                                                 stderr=subprocess.PIPE, text=True)) for verb in sorted(asked)}
            for verb, process in running.items():
                with self.subTest(verb=verb):
                    self.assertEqual(process.wait(30 * vmmtest.SLOW), NO_ANSWER)
                    self.assertIn("web: no answer to ", process.stderr.read())
        self.assertGreater(len(running), 12)
        for words in (["list"], ["top", "-n", "1"], ["vcpu-list"], ["vnet-list"], ["uptime"], ["sched-credit"], ["dmesg", "web"],
                      ["log", "web"], ["domid", "web"]):
            with self.subTest(words=words):
                self.ctl("--timeout", "1", *words, status=None)
        self.assertEqual(self.state(), "?")
        self.ctl("destroy", "web")
        self.assertEqual(self.names(), [])


if __name__ == "__main__":
    vmmtest.main()
