#!/usr/bin/env python3
"""vmm-qmp(7) tells the truth: its examples run, and every command and event is in it."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import unittest

from harness import Vmm, free_port, vmmtest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "guest"))
import assets  # noqa: E402
EXAMPLES = os.path.join(ROOT, "docs", "qmp-examples.txt")
sys.path.insert(0, os.path.join(ROOT, "docs"))


def matches(wanted, got):
    """What an example names must be there; "..." is anything."""
    if wanted == "...":
        return True
    if isinstance(wanted, dict):
        return isinstance(got, dict) and all(key in got and matches(wanted[key], got[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(got, list) and len(wanted) == len(got) and all(map(matches, wanted, got))
    return wanted == got


class CommandLine(unittest.TestCase):
    """The examples of vmm(1) and the README start, without a CPU."""

    def examples(self):
        with tempfile.TemporaryDirectory() as folder:
            page = folder + "/vmm.1"
            subprocess.run([sys.executable, os.path.join(ROOT, "docs", "gen-man.py"), vmmtest.VMM, page], check=True)
            with open(page, encoding="utf-8") as stream:
                text = stream.read()
        return [block.replace("\\\n", " ").replace("\\", "") for block in re.findall(r"^\.EX\n(.*?)^\.EE", text, re.M | re.S)]

    def readme(self):
        """The lines with vmm (tests/ctl/test_docs.py has the others), and the commands in its sentences."""
        with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as stream:
            text = stream.read()
        lines = re.findall(r"^    (vmm .*?)(?:\s+#.*)?$", text, re.M)
        return [line.replace(" ...", "") for line in lines], re.findall(r"`(vmm -[^`]*)`", text)

    def test_examples(self):
        examples, (lines, _) = self.examples(), self.readme()
        self.assertGreaterEqual(len(examples), 4)
        self.assertGreaterEqual(len(lines), 8)
        for example in examples + lines:
            with self.subTest(example):
                self.run_example(example)

    def test_lists(self):
        """`vmm -device help` and the like, as the README names them."""
        commands = self.readme()[1]
        self.assertGreaterEqual(len(commands), 1)
        for command in commands:
            with self.subTest(command):
                done = subprocess.run([vmmtest.VMM, *shlex.split(command)[1:]], stdout=subprocess.PIPE, text=True, check=True,
                                      stdin=subprocess.DEVNULL, timeout=60 * vmmtest.SLOW)
                self.assertGreater(len(done.stdout.splitlines()), 5)

    def run_example(self, example):
        """Files and sockets are the test's own; a tap that cannot be had is said to be missing."""
        def prepare(folder):
            for name in ("win.img", "disk.img", "xp.iso", "install.iso", "dos.img"):
                with open(f"{folder}/{name}", "wb") as image:
                    image.truncate(1 << 20)
            with open(f"{folder}/initrd", "wb") as initrd:
                initrd.write(b"x")
            if "bzImage" in example:
                os.symlink(assets.payload("hello"), folder + "/bzImage")
            self.cable = socket.socket(socket.AF_UNIX)
            self.cable.bind(folder + "/cable")
            self.cable.listen(1)

        words = shlex.split(example)
        self.assertEqual(words.pop(0), "vmm")
        words = [re.sub(r"(^|=|unix:)(?:/run/|/tmp/)?"
                        r"(win\.img|disk\.img|dos\.img|xp\.iso|install\.iso|bzImage|initrd|cable|vm\.pid|vm\.sock|qmp)(?=$|,)",
                        r"\1@DIR@/\2", word) for word in words]
        words = [re.sub(r"^127\.0\.0\.1:1$", "unix:@DIR@/vnc", word) for word in words]
        words = [re.sub(r"tcp:(127\.0\.0\.1:2222|0:4444)", f"tcp:127.0.0.1:{free_port()}", word) for word in words]
        for word, module in (("-vnc", "vnc"), ("curses", "curses"), ("user,", "slirp")):
            if any(word in w for w in words) and not vmmtest.has_module(module):
                self.skipTest(f"built without {module}")
        if "-incoming" in words and vmmtest.why_no_vmm():
            self.skipTest(vmmtest.why_no_vmm())     # what arrives wants a real processor
        try:
            with Vmm(*words, "-accel", "kvm" if "-incoming" in words else "qtest", "-qmp", "unix:@DIR@/test,server=on,wait=off", qmp=False, prepare=prepare,
                     defaults=True, **self.terminal("curses" in words)) as vmm:
                client = vmm.client(vmm.path("test")) if "-daemonize" not in words else self.daemon(vmm)
                self.assertEqual(client.command("query-status")["status"], "inmigrate" if "-incoming" in words else "running")
                client.command("quit")
        except ConnectionError as error:
            if "tap0" not in example or not re.search("tap.*(not permitted|denied|No such file)", str(error).rsplit("exited with", 1)[-1]):
                raise
            self.skipTest("no right to make a tap, or no /dev/net/tun")
        finally:
            self.cable.close()

    def terminal(self, needed):
        """Further arguments for one that wants a terminal."""
        if not needed:
            return {}
        master, slave = os.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        return {"stdin": slave, "stdout": slave, "env": {"TERM": "xterm"}}

    def daemon(self, vmm):
        """Its parent has gone; it answers where it said, and left its number."""
        self.assertEqual(vmm.wait_exit(), 0, vmm.stderr())
        with open(vmm.path("vm.pid"), encoding="ascii") as number:
            self.assertGreater(int(number.read()), 1)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(vmm.path("vm.sock"))
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.connect(vmm.path("test"))
        return vmmtest.QMP(sock)


class Manual(unittest.TestCase):
    """The page and the server."""

    def test_examples(self):
        with Vmm("-m", "8", "-vga", "std", "-drive", "if=none,id=cd0,media=cdrom", "-device",
                 "ide-cd,drive=cd0,id=cd,bus=ide.1", "-device", "isa-serial,id=com1", "-chardev", "ringbuf,id=log,size=64",
                 "-name", "example", "-uuid", "00000000-0000-0000-0000-000000000001") as vmm:
            sock = vmm.connect()
            stream = sock.makefile("rwb")
            self.assertIn("QMP", json.loads(stream.readline()))
            sent, wanted = None, []
            ran = 0

            def check():
                """Answers and events of one request, in any order: events are posted."""
                got = [json.loads(stream.readline()) for _ in wanted]
                for line in wanted:
                    self.assertTrue(any(matches(line, g) for g in got), f"{sent}\nwanted {line}\ngot    {got}")

            with open(EXAMPLES, encoding="utf-8") as examples:
                for line in examples:
                    kind, text = line[:3], line[3:].replace("@DIR@", vmm.dir)
                    if not vmmtest.has_module("png"):
                        text = text.replace('"format": "png"', '"format": "ppm"')
                    if kind == "-> ":
                        check()
                        sent, wanted = text, []
                        stream.write(text.encode())
                        stream.flush()
                        ran += 1
                    elif kind == "<- ":
                        wanted.append(json.loads(text))
                check()
            self.assertGreater(ran, 25)
            stream.close()
            sock.close()
            self.assertEqual(vmm.wait_exit(), 0)
            with open(vmm.path("machine.dtb"), "rb") as tree:
                self.assertEqual(tree.read(4), b"\xd0\x0d\xfe\xed")

    def test_page(self):
        with Vmm() as vmm, tempfile.TemporaryDirectory() as folder:
            page = folder + "/vmm-qmp.7"
            subprocess.run([sys.executable, os.path.join(ROOT, "docs", "gen-qmp-man.py"), vmmtest.VMM, EXAMPLES, page], check=True)
            with open(page, encoding="utf-8") as stream:
                text = stream.read().replace("\\-", "-").replace("\\&", "")
            manual = vmm.qmp.command("x-query-manual")
            self.assertEqual([c["name"] for c in manual["commands"]], [c["name"] for c in vmm.qmp.command("query-commands")])
            self.assertEqual([c["name"] for c in manual["events"]], [c["name"] for c in vmm.qmp.command("query-events")])
            for entry in manual["commands"] + manual["events"]:
                self.assertIn(f"\n.SS {entry['name']}\n", text)
                self.assertRegex(entry["help"], r"^[A-Zv].{6,}[.]$", entry["name"])
            with open(EXAMPLES, encoding="utf-8") as stream:
                for name in re.findall(r"^= (\S+)$", stream.read(), re.M):
                    self.assertIn(name, [c["name"] for c in manual["commands"]])

    def test_commands_that_have_nothing_to_do(self):
        with Vmm() as vmm:
            for name, arguments in (("job-complete", {"id": "x"}), ("job-finalize", {"id": "x"}), ("migrate-start-postcopy", {}),
                                    ("migrate-pause", {}), ("migrate-recover", {"uri": "tcp:127.0.0.1:1"})):
                with self.assertRaises(vmmtest.QMPError) as caught:
                    vmm.qmp.execute(name, arguments)
                self.assertEqual(caught.exception.error_class, "GenericError")
            self.assertEqual(vmm.qmp.execute("watchdog-set-action", {"action": "pause"}), {})
            with self.assertRaisesRegex(vmmtest.QMPError, "does not accept value 'dance'"):
                vmm.qmp.execute("watchdog-set-action", {"action": "dance"})
            self.assertEqual(vmm.qmp.execute("announce-self", {"initial": 50, "max": 550, "rounds": 1, "step": 50}), {})


if __name__ == "__main__":
    vmmtest.main()
