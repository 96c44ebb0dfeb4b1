#!/usr/bin/env python3
"""-display curses in a tmux terminal: text, colours, keys, sizes, and the terminal afterwards. Without a CPU
(-accel qtest): the test plays the guest."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Qtest, run  # noqa: E402
import vmmtest  # noqa: E402

MS = 1000000
MODE_3 = {"misc": 0x67, "sr": [3, 0, 3, 0, 2],
          "cr": [0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0, 0x9c, 0x0e, 0x8f, 0x28,
                 0x1f, 0x96, 0xb9, 0xa3, 0xff],
          "gr": [0, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff]}


@unittest.skipUnless(shutil.which("tmux"), "tmux is not installed")
class Curses(unittest.TestCase):
    """One vmm in one terminal of 90 x 30."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="vmm-curses-")
        self.tmux_socket = os.path.join(self.dir, "tmux")
        vmm = shlex.join([vmmtest.VMM, "-accel", "qtest", "-display", "curses", "-m", "4", "-nodefaults", "-vga", "std",
                          "-qtest", f"unix:{self.dir}/qtest,server=on,wait=off", "-pidfile", f"{self.dir}/pid",
                          *shlex.split(os.environ.get("VMM_TEST_ARGS", ""))])
        script = (f"stty -g > {self.dir}/before; {vmm} 2> {self.dir}/stderr; echo $? > {self.dir}/status; "
                  f"stty -g > {self.dir}/after; sleep 60")
        self.tmux("new-session", "-d", "-x", "90", "-y", "30", f"env LC_ALL=C.UTF-8 sh -c {shlex.quote(script)}")
        self.addCleanup(self.close)
        self.board = self.connect()
        self.board.ask(f"outb 0x3c2 {MODE_3['misc']}")
        for port, values in ((0x3c4, MODE_3["sr"]), (0x3d4, [0] * 0x11 + [0]), (0x3d4, MODE_3["cr"]), (0x3ce, MODE_3["gr"])):
            for index, value in enumerate(values):
                self.board.ask(f"outw {port:#x} {value << 8 | index:#x}")
        for y in range(25):
            self.write(0, y, " " * 80)

    def close(self):
        if not os.path.exists(f"{self.dir}/status"):
            self.kill(signal.SIGKILL)
        self.tmux("kill-server", check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    def tmux(self, *args, check=True):
        return subprocess.run(["tmux", "-S", self.tmux_socket, "-f", "/dev/null", *args], check=check, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout

    def file(self, name):
        with open(os.path.join(self.dir, name), encoding="utf-8") as stream:
            return stream.read().strip()

    def connect(self):
        sock = socket.socket(socket.AF_UNIX)

        def connected():
            try:
                sock.connect(f"{self.dir}/qtest")
                return True
            except (FileNotFoundError, ConnectionRefusedError):
                return False

        vmmtest.poll(connected, 20, "vmm in the terminal to start")
        sock.settimeout(20)
        return Qtest(sock)

    def kill(self, sig):
        try:
            os.kill(int(self.file("pid")), sig)
        except (FileNotFoundError, ProcessLookupError, ValueError):
            pass

    def write(self, x, y, text, attribute=0x07):
        data = b"".join(bytes([c, attribute]) for c in text.encode("cp437"))
        self.board.ask(f"write {0xb8000 + 2 * (80 * y + x):#x} {len(data)} 0x{data.hex()}")

    def step(self, ms):
        self.board.ask(f"clock_step {ms * MS}")

    def wait_screen(self, condition, what, *options):
        def look():
            self.step(250)
            return condition(self.tmux("capture-pane", "-p", *options))

        vmmtest.poll(look, 20, what, 0.02)

    def scan_codes(self, count):
        codes = []

        def more():
            if self.board.number("inb 0x64") & 1:
                codes.append(self.board.number("inb 0x60"))
            else:
                self.step(1)
            return len(codes) == count

        vmmtest.poll(more, 20, f"{count} scan codes (have {[hex(c) for c in codes]})", 0.001)
        return codes

    def ended(self):
        vmmtest.poll(lambda: os.path.exists(f"{self.dir}/after") and self.file("after"), 20, "vmm to end")
        self.assertEqual(self.file("before"), self.file("after"))
        return self.file("status")

    def test_text_and_colours(self):
        self.write(0, 0, "╔══ Käse ══╗")
        self.write(3, 2, "white on blue", 0x17)
        self.board.ask("outw 0x3d4 0x000e")
        self.board.ask(f"outw 0x3d4 {(80 * 2 + 71) << 8 | 0x0f:#x}")
        self.wait_screen(lambda text: text.startswith("╔══ Käse ══╗\n\n   white on blue"), "the text")
        self.wait_screen(lambda text: text.startswith("\x1b[37m\x1b[40m") and "\x1b[44mwhite on blue\x1b[40m" in text,
                         "the colours", "-e")
        self.wait_screen(lambda text: self.tmux("display-message", "-p", "#{cursor_x},#{cursor_y}").strip() == "71,2",
                         "the cursor")

    def test_keys(self):
        for keys, codes in ((["a"], [0x1e, 0x9e]), (["A"], [0x2a, 0x1e, 0x9e, 0xaa]), (["Enter"], [0x1c, 0x9c]),
                            (["F1"], [0x3b, 0xbb]), (["F12"], [0x58, 0xd8]), (["Up"], [0xe0, 0x48, 0xe0, 0xc8]),
                            (["PageDown"], [0xe0, 0x51, 0xe0, 0xd1]), (["C-c"], [0x1d, 0x2e, 0xae, 0x9d]),
                            (["Escape"], [0x01, 0x81]), (["M-x"], [0x38, 0x2d, 0xad, 0xb8]), (["BSpace"], [0x0e, 0x8e]),
                            (["C-a", "C-a"], [0x1d, 0x1e, 0x9e, 0x9d]),
                            (["C-a", "d"], [0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d])):
            self.tmux("send-keys", *keys)
            self.assertEqual(self.scan_codes(len(codes)), codes, keys)

    def test_sizes_help_and_graphics(self):
        self.write(0, 0, "top")
        self.write(0, 24, "bottom")
        self.wait_screen(lambda text: "top" in text and "bottom" in text, "the whole screen")
        self.tmux("resize-window", "-x", "40", "-y", "10")
        self.wait_screen(lambda text: "top" in text and "bottom" not in text, "the upper part in a small terminal")
        self.board.ask("outw 0x3d4 0x070e")
        self.board.ask("outw 0x3d4 0x800f")  # the cursor goes to line 24: 0x780
        self.wait_screen(lambda text: "bottom" in text and "top" not in text, "the part with the cursor")
        self.tmux("resize-window", "-x", "90", "-y", "30")
        self.wait_screen(lambda text: "top" in text and "bottom" in text, "the whole screen again")
        self.tmux("send-keys", "C-a", "h")
        self.wait_screen(lambda text: "Ctrl-A x" in text, "the help line")
        for index, value in ((1, 320), (2, 200), (3, 32), (4, 0xc1)):
            self.board.ask(f"outw 0x1ce {index}")
            self.board.ask(f"outw 0x1cf {value}")
        self.board.ask("inb 0x3da")
        self.board.ask("outb 0x3c0 0x20")
        self.wait_screen(lambda text: "320 x 200 graphics mode" in text and "top" not in text, "the graphics note")
        self.board.ask("outw 0x1ce 4")
        self.board.ask("outw 0x1cf 0")
        self.wait_screen(lambda text: "graphics" not in text and "bottom" in text, "text again")

    def test_escape_x_ends(self):
        self.tmux("send-keys", "C-a", "x")
        self.ended()

    def test_sigterm_restores_the_terminal(self):
        self.wait_screen(lambda text: True, "the first picture")
        self.kill(signal.SIGTERM)
        self.ended()

    def test_guest_power_off_restores_the_terminal(self):
        self.board.close()
        self.assertEqual(self.ended(), "0")


class Refused(unittest.TestCase):
    """Where curses cannot work."""

    def test_not_a_terminal(self):
        status, text = run("-display", "curses", "-vga", "std")
        self.assertEqual(status, 1)
        self.assertIn("terminal", text)

    def test_unknown_display(self):
        for kind, word in (("gtk", "not available"), ("foo", "not known")):
            status, text = run("-display", kind)
            self.assertEqual(status, 1)
            self.assertIn(word, text)


if __name__ == "__main__":
    vmmtest.main()
