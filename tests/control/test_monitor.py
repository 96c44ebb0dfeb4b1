#!/usr/bin/env python3
"""The monitor for people: editing, history, completion; and that its commands do what QMP's do."""

import os
import re
import select
import time
import unittest

from harness import Vmm, vmmtest

PROMPT = b"(qemu) "


class Terminal:
    """What a person at a terminal sees of a monitor."""

    def __init__(self, sock):
        self.sock = sock
        self.seen = b""

    def wait_for(self, text, timeout=20):
        """Everything up to and including text; forgets it."""
        deadline = time.monotonic() + timeout * vmmtest.SLOW
        while text not in self.seen:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise TimeoutError(f"{text!r} did not appear in {self.seen!r}")
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError(f"closed after {self.seen!r}")
            self.seen += data
        head, _, self.seen = self.seen.partition(text)
        return (head + text).decode(errors="replace")

    def type(self, keys):
        """Press keys."""
        self.sock.sendall(keys.encode() if isinstance(keys, str) else keys)

    def command(self, line):
        """Run a line; what it printed."""
        self.type(line + "\r")
        self.wait_for(b"\r\n")  # the echo's end
        return self.wait_for(PROMPT)[:-len(PROMPT)].replace("\r", "")


class Readline(unittest.TestCase):
    """The line editor, on a unix socket."""

    def setUp(self):
        self.vmm = Vmm("-monitor", "unix:@DIR@/hmp,server=on,wait=off", "-vga", "std", "-device", "isa-serial,id=first",
                       "-drive", "if=none,id=cd0,media=cdrom", "-device", "ide-cd,drive=cd0,bus=ide.1", "-chardev",
                       "ringbuf,id=ring0,size=64")
        self.addCleanup(self.vmm.close)
        self.term = self.connect()

    def connect(self):
        term = Terminal(self.vmm.connect(self.vmm.path("hmp")))
        self.addCleanup(term.sock.close)
        self.assertIn("type 'help'", term.wait_for(PROMPT))
        return term

    def shown(self, keys):
        """The output of the line these keys make."""
        self.term.type(keys + b"\r")
        self.term.wait_for(b"\r\n")
        return self.term.wait_for(PROMPT)[:-len(PROMPT)]

    def test_editing(self):
        running = "VM status: running\r\n"
        for keys in (b"info status", b"infx\x7fo status", b"ifo\x1b[D\x1b[Dn\x05 status", b"status\x01info \x05",
                     b"junk\x15info status", b"info stattttt\x17status", b"xinfo status\x01\x04", b"xinfo status\x1b[1~\x1b[3~",
                     b"info status junk\x02\x02\x02\x02\x02\x0b", b"info\x1b[H\x1b[F status", b"nonsense\x03info status",
                     b"inf\x02\x06o status", b"info \x0cstatus", b"\x1b[Zinfo \x1bOHstatus\x1bOF\x01\x04\x04\x04\x04\x04\x04"
                     b"\x05 \x01info "):
            if b"\x03" in keys or b"\x0c" in keys:
                self.term.type(keys + b"\r")
                self.term.wait_for(running.encode())
                self.term.wait_for(PROMPT)
            elif b"OH" not in keys:
                self.assertEqual(self.shown(keys), running, keys)

    def test_history(self):
        self.term.command("info version")
        self.term.command("info status")
        self.assertIn("7.2.0", self.shown(b"\x1b[A\x1b[A"))
        self.assertIn("running", self.shown(b"\x10\x10"))
        self.assertEqual(self.shown(b"\x10\x10\x10\x10\x10\x10\x0e\x0e\x0e\x0e\x0e\x0einfo name"), "")
        text = self.term.command("info history")
        self.assertIn("0: 'info version'\n1: 'info status'\n", text)
        for i in range(100):
            self.term.command(f"help nonsense{i}")
        self.assertLessEqual(self.term.command("info history").count("\n"), 64)

    def test_completion(self):
        self.assertIn("VM status", self.shown(b"inf\tstatu\t"))
        self.term.type(b"system_\t")
        self.assertIn("system_powerdown\r\n", self.term.wait_for(PROMPT))
        self.term.wait_for(b"system_")
        self.term.type(b"\x15")
        self.assertEqual(self.shown(b"eject c\t"), "")                      # cd0
        self.assertIn("does not support hotplugging", self.shown(b"device_del fir\t"))
        self.assertEqual(self.shown(b"ringbuf_write r\thello"), "")
        self.assertEqual(self.term.command("ringbuf_read ring0 100"), "hello\n")

    def test_long_and_binary_lines(self):
        self.assertIn("unknown command", self.shown(b"x" * 5000))
        self.assertIn("unknown command", self.shown(bytes(range(128, 256))))
        for _ in range(20):
            self.term.type(bytes(b for b in os.urandom(2000) if b not in b"\r\nq"))
        self.term.type(b"\x1b\x03")
        self.term.type(b"\x03info status\r")
        self.term.wait_for(b"VM status: running")

    def test_commands(self):
        run = self.term.command
        self.assertEqual(run("stop"), "")
        self.assertEqual(run("info status"), "VM status: paused\n")
        self.assertEqual(run("c"), "")
        self.assertEqual(run(""), "")
        self.assertEqual(run("nonsense"), "unknown command: 'nonsense'\n")
        self.assertEqual(run("info nonsense"), "unknown command: 'info nonsense'\n")
        self.assertIn("parameter 'device' is missing", run("eject"))
        self.assertIn("extraneous characters", run("stop now"))
        self.assertIn("unsupported option -x", run("eject -x cd0"))
        self.assertEqual(run("eject -f cd0"), "")
        path = self.vmm.path("image with blank.iso")
        with open(path, "wb") as image:
            image.truncate(1 << 20)
        self.assertEqual(run(f'change cd0 "{path}" raw read-only'), "")
        self.assertIn("image with blank.iso", run("info block"))
        self.assertEqual(run(f"screendump {self.vmm.path('shot')}"), "")
        self.assertTrue(os.path.exists(self.vmm.path("shot")))
        self.assertIn("Error: ", run("screendump /nowhere/x"))
        self.assertEqual(run("sendkey ctrl-alt-delete 50"), "")
        self.assertIn("invalid parameter: zzz", run("sendkey ctrl-zzz"))
        self.assertEqual(run("print (1+2)*3 - 010"), "0x1\n")
        self.assertEqual(run("p /d -5"), "-5\n")
        for wrong in ("p 1/0", "p (1", "p 1 2", "p $rip", "p " + "(" * 300, "p", "x /4zz 0"):
            self.assertEqual(run(wrong).count("\n"), 1, wrong)
        self.assertEqual(run("o /b 0x71 0x55"), "")
        self.assertEqual(run("o /b 0x70 0x40"), "")
        self.assertEqual(run("o /b 0x71 0x5a"), "")
        self.assertEqual(run("i /b 0x71"), "portb[0x0071] = 0x5a\n")
        self.assertRegex(run("i /w 0xcf8"), r"^portl\[0x0cf8\] = 0x[0-9a-f]{8}\n$")
        for wrong in ("i", "i 0x10000", "i /w 0xfffe", "i /q 0", "o 0x80", "o 0x80 x", "mouse_move 1", "mouse_move 1 x",
                      "mouse_button 8", "migrate_set_capability xbzrle", "migrate_set_capability events maybe",
                      "migrate_set_parameter nosuch 1", "chardev-change nosuch null", "chardev-add socket,id=s,path=/x,server=on"):
            self.assertEqual(run(wrong).count("\n"), 1, wrong)
        self.assertEqual(run("mouse_move 10 -5"), "")
        self.assertEqual(run("mouse_button 5"), "")
        self.assertEqual(run("mouse_button 0"), "")
        self.assertEqual(run("migrate_set_capability events on"), "")
        self.assertEqual(run("migrate_set_parameter downtime-limit 77"), "")
        self.assertEqual(self.vmm.qmp.command("query-migrate-parameters")["downtime-limit"], 77)
        self.assertEqual(run("chardev-add ringbuf,id=ring,size=64"), "")
        self.assertEqual(run(f"chardev-change ring file,path={self.vmm.path('ring')}"), "")
        self.assertIn("ring: filename=file", run("info chardev"))
        self.assertEqual(run(f"dumpdtb {self.vmm.path('dtb')}"), "")
        self.assertEqual(run("info dump"), "Status: none\n")
        self.assertIn("no page tables", run("gva2gpa 0x1000"))
        self.assertEqual(run(f"pmemsave 0 16 {self.vmm.path('ram')}"), "")
        self.assertEqual(os.stat(self.vmm.path("ram")).st_size, 16)
        self.assertIn("0000000000100000: 0x00000000 0x00000000", run("xp /2xw 0x100000"))
        self.assertIn("Cannot access memory", run("xp /1xw 0x100000000000"))
        self.assertEqual(run("qom-get /machine/rtc type"), "mc146818rtc\n")
        self.assertIn("-- press the reset button", run("help system_reset"))
        self.assertIn("invalid CPU index", run("cpu 9"))
        self.assertEqual(run("cpu 0"), "")

    def test_every_listed_subject_and_command(self):
        text = self.term.command("help")
        subjects = re.findall(r"^info (\S+) --", text, re.M)
        self.assertGreater(len(subjects), 25)
        for subject in subjects:
            self.assertNotIn("unknown command", self.term.command(f"info {subject}"), subject)
        for name in re.findall(r"^([a-z_-]+)[ |]", text, re.M):
            self.assertIn(f"{name}", self.term.command(f"help {name}"))

    def test_several_people(self):
        others = [self.connect() for _ in range(5)]
        for term in others:
            self.assertIn("running", term.command("info status"))
            term.sock.close()
        self.assertIn("running", self.term.command("info status"))

    def test_peer_that_goes_in_mid_command(self):
        pipe = self.vmm.path("pipe")
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        other = self.connect()
        other.type(f"screendump {pipe}\rinfo status\r")
        select.select([reader], [], [], 60)
        other.sock.close()
        self.assertIn("running", self.term.command("info status"))
        os.close(reader)
        self.assertIn("running", self.term.command("info status"))

    def test_reader_that_does_not_read(self):
        other = self.connect()
        before = self.vmm.rss()
        other.sock.setblocking(False)
        try:
            for _ in range(10000):
                other.sock.send(b"info qtree\r" * 20)
        except BlockingIOError:
            pass
        self.assertIn("running", self.term.command("info status"))
        self.assertLess(self.vmm.rss() - before, 16 << 20)

    def test_quit(self):
        self.term.type("quit\r")
        self.assertEqual(self.vmm.wait_exit(), 0)


class Options(unittest.TestCase):
    """Where a monitor can be."""

    def test_mon(self):
        with Vmm("-chardev", "socket,id=c,path=@DIR@/hmp,server=on,wait=off", "-mon", "chardev=c,mode=readline") as vmm:
            term = Terminal(vmm.connect(vmm.path("hmp")))
            term.wait_for(PROMPT)
            self.assertIn("running", term.command("info status"))
            term.sock.close()


if __name__ == "__main__":
    vmmtest.main()
