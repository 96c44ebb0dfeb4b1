#!/usr/bin/env python3
"""Every verb against guests that run: what an operator sees."""

import json
import os
import re
import shlex
import subprocess
import time
import unittest

import ctltest
from ctltest import BAD_CONFIG, FAILED, NO_GUEST, USAGE, vmmtest


class Lives(ctltest.Case):
    """create, list, pause, reboot, shutdown, destroy ..."""

    def test_create_and_destroy(self):
        self.assertEqual(self.ctl("list").split(), "NAME ID MEM/MiB VCPUS STATE TIME/s".split())
        self.create(memory=16, maxvcpus=2)
        row = self.json("list")[0]
        self.assertEqual((row["name"], row["state"], row["memory"], row["vcpus"]), ("web", "running", 16, 1))
        self.assertIn(row["id"], self.holders("web"))
        self.assertRegex(self.ctl("list", "web"), rf"web +{row['id']} +16 +1 +running +\d")
        self.assertEqual(set(os.listdir(f"{self.run_dir}/web")),
                         {"qmp.sock", "pid", "keeper", "config", "command", "console.sock", "console.log", "metrics.sock", "log"})
        with open(f"{self.run_dir}/web/command", encoding="utf-8") as stream:
            self.assertIn("-name web -machine pc", stream.read())
        self.refused(FAILED, r"a guest named web runs already", "create", "web.vmm")
        self.assertEqual(self.state(), "running")
        self.ctl("destroy", "web")
        self.assertEqual(self.names(), [])
        self.refused(NO_GUEST, "no guest 'web' is running", "destroy", "web")
        self.assertIn("host-qmp-quit", self.ctl("log", "web"))

    def test_pause_and_names(self):
        self.create()
        self.create("db", "-p")
        self.assertEqual(self.state("db"), "paused")
        self.ctl("unpause", "db")
        self.ctl("pause", "web", "db")
        self.assertEqual([r["state"] for r in self.json("list")], ["paused", "paused"])
        self.ctl("unpause", str(self.pid()))        # an id does as well
        self.assertEqual(self.state(), "running")
        self.assertEqual(self.ctl("domname", self.pid()), "web\n")
        self.refused(NO_GUEST, "did you mean 'web'", "pause", "webb")
        self.ctl("rename", "web", "www")
        self.assertEqual([r["name"] for r in self.json("list")], ["db", "www"])
        self.ctl("pause", "www")
        self.refused(FAILED, "a guest named db exists already", "rename", "www", "db")
        self.refused(USAGE, "cannot be a guest's name", "rename", "www", "../x")
        self.refused(USAGE, "cannot be a guest's name", "rename", "www", "x" * 65)
        self.ctl("rename", "www", "w" * 64)
        self.assertEqual(self.state("w" * 64), "paused")
        rows = self.json("uptime")
        self.assertEqual(len(rows), 2)
        self.assertTrue(all(0 <= row["uptime"] < 120 for row in rows), rows)
        self.ctl("destroy", "--all")
        self.assertEqual(self.names(), [])

    def test_rename_configuration(self):
        self.config(folder="etc", more="")
        self.ctl("autostart", "web", "on")
        self.ctl("create", "web")
        self.ctl("rename", "web", "www")
        self.assertEqual(sorted(os.listdir(self.path("etc"))), ["autostart", "www.vmm"])
        self.assertEqual(self.json("autostart"), [{"name": "www"}])
        self.ctl("destroy", "www")
        self.ctl("rename", "www", "web")
        self.assertEqual([(r["name"], r["state"]) for r in self.json("list", "--all")], [("web", "off")])

    def test_powered_off(self):
        """The guest ends itself: on-poweroff."""
        for policy, state in (("destroy", None), ("preserve", "shutdown"), ("restart", "running")):
            with self.subTest(policy=policy):
                self.create(on_poweroff=policy)
                pid = self.pid()
                self.power_off(self.board())
                if policy == "restart":
                    self.wait_restart(pid)
                elif state:
                    self.wait_state(state)
                if state:
                    self.ctl("destroy", "web")
                self.wait_gone()

    def test_reset_by_itself(self):
        """on-reboot"""
        for policy, state in (("destroy", None), ("preserve", "shutdown"), ("restart", "running")):
            with self.subTest(policy=policy):
                self.create(on_reboot=policy)
                pid, board = self.pid(), self.board()
                board.stream.write(b"outb 0xcf9 6\n")
                board.stream.flush()
                if state:
                    self.wait_state(state)
                    self.assertEqual(self.pid(), pid)
                    self.ctl("destroy", "web")
                self.wait_gone()

    def test_panics(self):
        """on-crash, with dumps"""
        for policy, state in (("destroy", None), ("preserve", "crashed"), ("restart", "running"),
                              ("coredump-destroy", None), ("coredump-restart", "running")):
            with self.subTest(policy=policy):
                self.create(on_crash=policy)
                pid, board = self.pid(), self.board()
                board.stream.write(b"outb 0x505 1\n")
                board.stream.flush()
                if "restart" in policy:
                    self.wait_restart(pid)
                elif state:
                    self.wait_state(state)
                if state:
                    self.ctl("destroy", "web")
                self.wait_gone()
                cores = [f for f in os.listdir(self.path("log")) if f.endswith(".core")]
                self.assertEqual(len(cores), int("coredump" in policy))
                for core in cores:
                    with open(self.path("log", core), "rb") as stream:
                        self.assertEqual(stream.read(4), b"\x7fELF")
                    os.unlink(self.path("log", core))

    def test_vmm_fails(self):
        """vmm itself is killed: a crash; not for ever."""
        self.create(on_crash="restart")
        for _ in range(8):
            pid = self.pid()
            os.kill(pid, 9)
            vmmtest.poll(lambda: "web" not in self.names() or self.row()[0] not in (None, pid), 20)
            if "web" not in self.names():
                break
        self.assertEqual(self.names(), [])
        self.assertIn("not started again", self.log())
        self.assertEqual(self.log().count("starting again"), 4)

    def test_reboot(self):
        self.create()
        with self.background("events", "-n", "1", "web", stdout=subprocess.PIPE) as events:
            vmmtest.poll(lambda: self.ctl("reboot", "--force", "web") == "" and events.poll() is not None, 20)
            event = json.loads(events.stdout.read())
        self.assertEqual((event["event"], event["guest"]), ("RESET", "web"))
        # The polite way: the button, and when the guest has gone down it starts again although on-poweroff is destroy.
        pid, board = self.pid(), self.board()
        self.ctl("reboot", "web")
        self.power_off(board)
        self.wait_restart(pid)
        # Only once: the next power-off is one.
        self.power_off(self.board())
        self.wait_gone()

    def test_shutdown(self):
        self.create()
        self.create("db")
        boards = [self.board(), self.board("db")]
        self.ctl("shutdown", "web", "db")
        self.assertTrue(all(map(self.button, boards)))
        self.refused(FAILED, "has not shut down within 1 s", "shutdown", "-w", "-t", "1", "--all")
        self.assertTrue(all(map(self.button, boards)))
        with self.background("shutdown", "--wait", "--all") as waiting:
            for board in boards:
                vmmtest.poll(lambda: self.button(board), 10, "the button")
                self.assertIsNone(waiting.poll())
                self.power_off(board)
            self.assertEqual(waiting.wait(20), 0)
        self.assertEqual(self.names(), [])
        self.refused(USAGE, "the name of a guest is missing", "shutdown")

    def test_foreground_service(self):
        """As systemd starts it: readiness, a clean stop, one that is not."""
        import socket
        config = self.config()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(self.path("notify"))
            notify.settimeout(20 * vmmtest.SLOW)
            env = dict(self.env, NOTIFY_SOCKET=self.path("notify"))
            with self.background("create", "--foreground", config, env=env) as service:
                self.assertEqual(notify.recv(64), b"READY=1")
                self.assertEqual(self.state(), "running")
                service.terminate()
                vmmtest.poll(lambda: "asking the guest" in self.log(), 10)
                self.power_off(self.board())
                self.assertEqual(notify.recv(64), b"EXTEND_TIMEOUT_USEC=110000000")
                self.assertEqual(notify.recv(64), b"STOPPING=1")
                self.assertEqual(service.wait(20), 0)
            self.assertEqual(self.names(), [])
            with self.background("create", "--foreground", config, env=env) as service:
                self.assertEqual(notify.recv(64), b"READY=1")
                service.terminate()
                vmmtest.poll(lambda: self.log().count("asking the guest") == 2, 10)
                service.terminate()                 # at once
                self.assertEqual(service.wait(20), 0)
        self.assertEqual(self.names(), [])


class Looks(ctltest.Case):
    """What shows something, and what drives the hardware."""

    def test_console_and_dmesg(self):
        self.create()
        board = self.board()
        with self.background("console", "web", stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as console:
            console.stdin.write(b"x")
            console.stdin.flush()
            vmmtest.poll(lambda: board.number("inb 0x3fd") & 1, 10, "a character")
            self.assertEqual(board.number("inb 0x3f8"), ord("x"))
            self.refused(FAILED, "in use", "console", "web")
            for char in b"one\ntwo\x1b[31m\n":
                board.ask(f"outb 0x3f8 {char}")
                board.ask("clock_step 1000000")
            self.assertEqual(console.stdout.read(9), b"one\ntwo\x1b[")
            console.stdin.close()
            self.assertEqual(console.wait(10), 0)
        # A terminal: Ctrl-] leaves.
        master, slave = os.openpty()
        with self.background("console", "web", stdin=slave, stdout=slave,
                              stderr=slave) as console:
            os.close(slave)
            self.assertIn(b"Ctrl-]", os.read(master, 100))
            os.write(master, b"\x1d")
            self.assertEqual(console.wait(10), 0)
        os.close(master)
        self.assertEqual(self.ctl("dmesg", "web"), "one\ntwo?[31m\n")   # nothing that moves a terminal
        self.assertEqual(self.ctl("dmesg", "--raw", "-n", "1", "web"), "two\x1b[31m\n")
        self.assertEqual(self.json("dmesg", "-n", "2", "web")["text"], "one\ntwo\x1b[31m\n")
        self.refused(FAILED, "no console 2", "console", "-n", "2", "web")
        with self.background("dmesg", "-f", "-n", "0", "web", stdout=subprocess.PIPE) as follow:
            while True:
                board.ask("outb 0x3f8 33")
                board.ask("clock_step 1000000")
                if follow.poll() is None and os.get_blocking(follow.stdout.fileno()):
                    os.set_blocking(follow.stdout.fileno(), False)
                if follow.stdout.read(1) == b"!":
                    break
                time.sleep(0.05)
            self.ctl("destroy", "web")
            self.assertEqual(follow.wait(10), 0)    # the guest's end is its end

    def test_qmp(self):
        self.create()
        self.assertEqual(json.loads(self.ctl("qmp", "web", "query-name")), {"name": "web"})
        self.assertEqual(self.json("qmp", "web", "query-status")["status"], "running")
        self.assertEqual(json.loads(self.ctl("qmp", "web", "qom-get", "path=/machine", "property=type")), "pc-i440fx-7.2-machine")
        self.assertEqual(json.loads(self.ctl("qmp", "web", "qom-get", '{"path": "/machine", "property": "type"}')),
                         "pc-i440fx-7.2-machine")
        self.refused(FAILED, "has not been found", "qmp", "web", "frobnicate")
        self.assertEqual(self.json("qmp", "web", "frobnicate", status=FAILED)["error"]["class"], "CommandNotFound")
        self.refused(USAGE, "invalid JSON at column", "qmp", "web", "stop", "{]")
        lines = self.ctl("qmp", "web", stdin='{"execute": "stop", "id": 7}\n\n{"execute": "nope"}\n').splitlines()
        self.assertEqual(json.loads(lines[0]), {"return": {}, "id": 7})
        self.assertIn("error", json.loads(lines[1]))
        self.refused(USAGE, "a line", "qmp", "web", stdin="hello\n")

    def test_sysrq(self):
        self.create()
        board = self.board()
        self.ctl("sysrq", "web", "b")
        self.refused(USAGE, "one letter", "sysrq", "web", "bb")
        self.ctl("sysrq", "--serial", "web", "h")
        board.ask("clock_step 100000000")
        lines = [board.number("inb 0x3fd")]
        board.number("inb 0x3f8")
        board.ask("clock_step 100000000")
        lines.append(board.number("inb 0x3fd"))
        self.assertTrue(lines[0] & 0x10, lines)     # a break
        self.assertEqual(board.number("inb 0x3f8"), ord("h"))

    def test_screenshot_and_dump(self):
        self.create()
        self.ctl("screenshot", "web", self.path("a.ppm"))
        if vmmtest.has_module("png"):
            self.ctl("screenshot", "web", "a.png")
            with open(self.path("a.png"), "rb") as stream:
                self.assertEqual(stream.read(4), b"\x89PNG")
        with open(self.path("a.ppm"), "rb") as stream:
            self.assertEqual(stream.read(2), b"P6")
        self.ctl("dump-core", "web", "a.core")
        out = subprocess.run(["readelf", "-hl", self.path("a.core")], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.assertIn("CORE", out)
        self.refused(FAILED, "File exists", "dump-core", "web", "a.core")
        path = self.ctl("dump-core", "--crash", "web").strip()
        self.assertTrue(os.path.getsize(path) > 4 << 20, path)
        self.assertEqual(self.names(), [])

    def test_top_and_info(self):
        self.create(more=f"[disk]\nfile = {self.write('disk.img', 'x' * 65536)}\nformat = raw\n")
        self.create("db")
        out = self.ctl("top", "-b", "-n", "3", "-d", "0.1")
        self.assertEqual(out.count("NAME"), 3)
        self.assertRegex(out, r"web +running +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ +\d+ +0.0 +0.0 ")
        rows = self.json("top", "-n", "2", "-d", "0.1", "web")
        self.assertEqual(len(rows), 1)
        self.assertLess(rows[0]["cpu"], 100)
        self.assertEqual(rows[0]["read"], 0)
        self.refused(USAGE, "--delay", "top", "-d", "0")
        info = self.json("info")
        self.assertEqual(info["nr_cpus"], os.cpu_count())
        self.assertGreater(info["total_memory"], 100)
        self.assertEqual(info["run_directory"], self.run_dir)

    def test_top_on_a_terminal(self):
        self.create()
        master, slave = os.openpty()
        with self.background("top", "-d", "0.1", env=dict(self.env, TERM="xterm"), stdin=slave, stdout=slave,
                              stderr=slave) as top:
            os.close(slave)
            seen = b""
            while "▁".encode() not in seen:
                seen += os.read(master, 4096)
            os.write(master, b"q")
            try:
                while True:
                    seen += os.read(master, 4096)
            except OSError:
                pass                    # the terminal is closed
            self.assertEqual(top.wait(10), 0)
        os.close(master)
        self.assertIn(b"\x1b[32mrunning", seen)
        self.assertTrue(seen.endswith(b"\x1b[?1049l"), seen[-40:])

    def test_logs_and_errors_as_json(self):
        self.assertEqual(self.json("pause", "nobody", status=NO_GUEST)["error"]["status"], NO_GUEST)
        self.assertEqual(self.json("frobnicate", status=USAGE)["error"]["status"], USAGE)
        self.refused(FAILED, "cannot read .*nobody.log", "log", "nobody")
        self.refused(USAGE, "cannot be a guest's name", "log", "../../etc/passwd")


class Resources(ctltest.Case):
    """Processors and memory."""

    def test_vcpus(self):
        self.create(vcpus=1, maxvcpus=3)
        self.ctl("vcpu-set", "web", "3")
        self.assertEqual(self.json("list")[0]["vcpus"], 3)
        self.assertEqual(len(self.json("vcpu-list", "web")), 3)
        self.refused(FAILED, "no place for a further vCPU", "vcpu-set", "web", "4")
        board = self.board()
        board.ask("outl 0xaf00 0")                  # as the DSDT does: the registers of today, not the old bitmap
        with self.background("vcpu-set", "web", "1") as vcpu_set:
            for number in (2, 1):                   # the guest's part: it ejects what it is asked for
                def asked():
                    board.ask(f"outl 0xaf00 {number}")
                    return board.number("inb 0xaf04") & 4
                vmmtest.poll(asked, 10, "the guest to be asked")
                board.ask("outb 0xaf04 8")
            self.assertEqual(vcpu_set.wait(20), 0)
        self.assertEqual(self.json("list")[0]["vcpus"], 1)
        self.refused(USAGE, "whole number", "vcpu-set", "web", "many")
        self.refused(USAGE, "no list of processors", "vcpu-pin", "web", "0", "0-")
        self.refused(USAGE, "this host has processors 0 to", "vcpu-pin", "web", "0", "100000")
        self.refused(USAGE, "leaves no processor", "vcpu-pin", "web", "0", "0,^0")
        self.refused(FAILED, "has no vCPU 9", "vcpu-pin", "web", "9", "0")

    def test_memory(self):
        self.create(memory=64)
        self.ctl("mem-max", "web", "32")
        self.refused(FAILED, "at most 32 MiB", "mem-set", "web", "48M")
        self.refused(FAILED, "was started with 64 MiB", "mem-max", "web", "128")
        self.refused(USAGE, "memory", "mem-set", "web", "lots")
        self.ctl("mem-set", "web", "24")            # a wish: without a driver nothing comes of it
        self.assertEqual(self.json("list")[0]["memory"], 64)

    def test_shares(self):
        """Against a tree that looks like a control group's."""
        self.create()
        with open(f"/proc/{self.pid()}/cgroup", encoding="ascii") as stream:
            group = re.search(r"0::(.*)", stream.read())
        if not group:
            self.skipTest("no cgroup v2")
        tree = self.path("cgroup") + group[1].rstrip("/")
        own = os.path.join(tree, "vmm-web")
        os.makedirs(own)
        for path in (tree, own):
            for file in ("cgroup.procs", "cgroup.subtree_control", "cpu.weight", "cpu.max"):
                with open(os.path.join(path, file), "w", encoding="ascii") as stream:
                    stream.write("1\n2\n3\n" if file == "cgroup.procs" else "")
        env = {"VMM_CGROUP_ROOT": self.path("cgroup")}
        self.ctl("sched-credit", "-d", "web", "-w", "512", "-c", "50", env=env)
        written = {}
        for file in ("cgroup.procs", "cpu.weight", "cpu.max"):
            with open(os.path.join(own, file), encoding="ascii") as stream:
                written[file] = stream.read()
        self.assertEqual(written["cpu.weight"], "200")
        self.assertEqual(written["cpu.max"], "50000 100000")
        self.assertTrue(written["cgroup.procs"].startswith(str(self.pid())), written)
        self.refused(USAGE, "which guest", "sched-credit", "-w", "1")
        self.refused(FAILED, "web: .*(Delegate=cpu|no control groups)", "sched-credit", "web", "-w", "512",
                     env={"VMM_CGROUP_ROOT": self.path("nowhere")})

    def test_shares_of_the_host(self):
        """What this host really has, in a group of the test's own."""
        parent = ctltest.cpu_group(self)
        if not parent:
            self.skipTest("no cpu controller, or no right to make a control group")
        v2 = os.path.exists(parent + "/cpu.weight")
        join = f"echo $$ > {parent}/cgroup.procs && exec "
        config = self.config(cpu_weight=128, cpu_cap=25)
        subprocess.run(["sh", "-c", join + shlex.join([ctltest.VMMCTL, "create", config])], env=self.env, check=True, stdout=subprocess.DEVNULL)
        # Version 2 lets no group with processes be divided but the root.
        with open(f"/proc/{self.pid()}/cgroup", encoding="ascii") as stream:
            line = next(line for line in stream if (line.startswith("0::") if v2 else "cpu" in line.split(":")[1].split(",")))
        own = (ctltest.V2_ROOT if v2 else "/sys/fs/cgroup/cpu") + line.rstrip("\n").split(":", 2)[2]
        self.assertTrue(own.endswith("/vmm-web"), own)

        def value(file):
            with open(f"{own}/{file}", encoding="ascii") as stream:
                return stream.read().strip()

        def shares():
            return (value("cpu.weight"), value("cpu.max")) if v2 else (
                value("cpu.shares"), value("cpu.cfs_quota_us") + " " + value("cpu.cfs_period_us"))

        self.assertIn(str(self.pid()), value("cgroup.procs").split())
        self.assertEqual(shares(), ("50" if v2 else "512", "25000 100000"))
        self.assertEqual(self.json("sched-credit"), [{"name": "web", "id": self.pid(), "weight": 128, "cap": 25}])
        self.ctl("sched-credit", "-d", "web", "-w", "512", "-c", "0")
        self.assertEqual(shares(), ("200", "max 100000") if v2 else ("2048", "-1 100000"))
        self.assertEqual(self.json("sched-credit")[0]["cap"], 0)
        self.ctl("sched-credit", "-d", "web", "-w", "1")
        self.assertEqual(self.json("sched-credit")[0]["cap"], 0)
        self.ctl("destroy", "web")
        vmmtest.poll(lambda: not os.path.exists(own), 20, "the guest's group to be removed")

    def test_devices(self):
        self.create()
        self.refused(FAILED, "device_add: .*nosuch", "attach", "web", "nosuch,id=a")
        self.refused(FAILED, "device_del: Device 'a' not found", "detach", "web", "a")
        self.ctl("attach", "web", "pvpanic-pci,id=panic,addr=5")
        self.assertIn("panic", self.ctl("qmp", "web", "qom-list", "path=/machine/peripheral"))
        # Nobody in this guest lets go of it; then somebody does, as Linux would: PCI slot 5 is ejected.
        self.refused(ctltest.NO_ANSWER, "does not let go of panic", "detach", "--timeout", "1", "web", "panic")
        board = self.board()
        self.ctl("attach", "web", "pvpanic-pci,id=second,addr=6")
        with self.background("detach", "web", "second") as detach:
            vmmtest.poll(lambda: board.number("inl 0xae04") & 1 << 6, 10, "the guest to be asked")
            self.assertIsNone(detach.poll())
            board.ask(f"outl 0xae08 {1 << 6:#x}")
            self.assertEqual(detach.wait(20), 0)
        self.assertNotIn("second", self.ctl("qmp", "web", "qom-list", "path=/machine/peripheral"))

    @unittest.skipUnless(vmmtest.has_module("vnc"), "built without VNC")
    def test_screen(self):
        self.refused(BAD_CONFIG, "8 characters", "create", self.config(vnc_password="123456789"))
        self.create(vnc="127.0.0.1:90,to=99", vnc_password="oP3n-s3s")
        address = self.ctl("console", "--print", "web").strip()
        self.assertRegex(address, r"^127\.0\.0\.1::59\d\d$")
        viewer = self.write("viewer", f"#!/bin/sh\necho seen $1 > {self.path('seen')}\n")
        os.chmod(viewer, 0o755)
        self.ctl("console", "-g", "web", env={"VNC_VIEWER": viewer})
        with open(self.path("seen"), encoding="ascii") as stream:
            self.assertEqual(stream.read(), f"seen {address}\n")
        with open(f"{self.run_dir}/web/command", encoding="utf-8") as stream:
            self.assertNotIn("oP3n-s3s", stream.read())   # for every process list to see
        self.assertNotIn("oP3n-s3s", subprocess.run(["ps", "ax"], stdout=subprocess.PIPE, text=True, check=True).stdout)


if __name__ == "__main__":
    vmmtest.main()
