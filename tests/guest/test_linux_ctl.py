#!/usr/bin/env python3
"""vmmctl and a Linux guest: memory and processors are taken and given while it runs, and it is shut down by its power button."""

import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("lib", "ctl", "control", "guest"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))
import assets       # noqa: E402
import ctltest      # noqa: E402
import test_linux   # noqa: E402
import vmmtest      # noqa: E402

WAIT = 120          # seconds for what takes two on an idle host


class Terminal:
    """The part of a vmmtest.Guest that LinuxCase's helpers use: its serial console."""

    def __init__(self, path):
        self.serial = vmmtest.Console(path)
        self.seconds = lambda: 0.0


class Console:
    """The same through vmmctl, for who wants the console to be free between two commands."""

    def __init__(self, case):
        self.case, self.at = case, 0

    def text(self):
        return self.case.ctl("dmesg", "--raw", "web")

    def send(self, text):
        self.case.ctl("console", "web", stdin=text)

    def wait_for(self, pattern, timeout):
        pattern = re.compile(pattern if isinstance(pattern, bytes) else pattern.encode())
        found = vmmtest.poll(lambda: pattern.search(self.text().encode(), self.at), timeout,
                             lambda: f"{pattern.pattern!r}; the console says {self.text()[-1000:]!r}", 0.2)
        self.at = found.end()
        return found


class Managed(ctltest.Case):
    """A guest from a configuration file."""

    shell = test_linux.LinuxCase.shell

    def setUp(self):
        reason = vmmtest.why_no_vmm()
        if reason:
            self.skipTest(reason)
        super().setUp()

    def boot(self, own_terminal=True, **keys):
        try:
            keys.update(kernel=assets.vmlinux(), initrd=assets.initramfs())
        except assets.Missing as error:
            self.skipTest(str(error))
        terminal = Terminal(self.path("serial"))
        self.addCleanup(terminal.serial.close)
        serial = f"[serial]\ntype = unix:{terminal.serial.path}\n"
        if not own_terminal:
            terminal.serial, serial = Console(self), ""
        keys.update(memory=128, vnc="none", vga="none", cpu=vmmtest.cpu_model(2), append=assets.CMDLINE)
        text = "".join(f"{key} = {value}\n" for key, value in keys.items())
        self.ctl("create", self.write("web.vmm", text + serial))
        terminal.serial.wait_for("guest# ", test_linux.BOOT * 2)
        return terminal

    def free(self, guest):
        """MiB. (With deflate-on-oom, which vmmctl's balloons have, MemTotal stays.)"""
        return int(self.shell(guest, "sed -n 's/MemFree: *//p' /proc/meminfo").split()[0]) // 1024

    def test_memory_and_processors(self):
        guest = self.boot(vcpus=1, maxvcpus=2)
        before = self.free(guest)
        self.ctl("mem-set", "web", "104")
        vmmtest.poll(lambda: self.json("list")[0]["memory"] == 104, WAIT, "the balloon to fill")
        self.assertLess(self.free(guest), before - 18)
        self.ctl("mem-set", "web", "128")
        vmmtest.poll(lambda: self.json("list")[0]["memory"] == 128, WAIT, "the balloon to empty")
        self.assertGreater(self.free(guest), before - 6)

        for _ in range(2):
            self.assertEqual(self.shell(guest, "nproc").strip(), "1")
            self.ctl("vcpu-set", "web", "2")
            vmmtest.poll(lambda: self.shell(guest, "cat /sys/devices/system/cpu/present").strip() == "0-1", WAIT,
                         "Linux to see the processor")
            self.shell(guest, "echo 1 >/sys/devices/system/cpu/cpu1/online")
            self.assertEqual(self.shell(guest, "nproc").strip(), "2")
            self.ctl("--timeout", WAIT, "vcpu-set", "web", "1", timeout=WAIT + 10)      # Linux takes it off line and ejects it
            self.assertEqual(self.json("list")[0]["vcpus"], 1)
        self.assertEqual(self.shell(guest, "nproc").strip(), "1")
        self.assertIsNone(re.search(test_linux.TROUBLE, guest.serial.text()))
        guest.serial.send("poweroff -f\n")
        self.wait_gone(timeout=WAIT)

    def helps(self, guest, *options):
        """sysrq h: Linux prints its keys, once, and the shell does not get the letter."""
        before = guest.serial.text().count("sysrq: HELP")
        self.ctl("sysrq", *options, "web", "h")
        guest.serial.wait_for(r"sysrq: HELP : loglevel\(0-9\) reboot\(b\)", WAIT)
        self.assertEqual(self.shell(guest, "nproc").strip(), "1")       # and not "hecho: not found"
        self.assertEqual(guest.serial.text().count("sysrq: HELP"), before + 1)

    def test_keys_and_buttons(self):
        """Linux obeys sysrq as Alt-SysRq-H of its keyboard and as a break and a letter on its serial port, each without the other; the
        power button is an event on which it goes down."""
        guest = self.boot(own_terminal=False)
        port = "grep ^0: /proc/tty/driver/serial"
        keyboard = "grep -m 1 i8042 /proc/interrupts"
        before = self.shell(guest, keyboard)
        self.helps(guest)
        pressed = self.shell(guest, keyboard)
        self.assertNotEqual(pressed, before)
        self.assertNotIn("brk:", self.shell(guest, port))

        self.helps(guest, "--serial")
        self.assertIn("brk:1", self.shell(guest, port))
        self.assertEqual(self.shell(guest, keyboard), pressed)

        self.shell(guest, "cd /sys/class/input; for e in event*; do grep -q 'Power Button' $e/device/name && break; done; cd /")
        self.shell(guest, "(head -c 48 /dev/input/$e >/tmp/events; poweroff -f) & true")
        self.ctl("shutdown", "--wait", "--limit", WAIT, "web", timeout=WAIT + 10)
        self.assertEqual(self.names(), [])
        self.assertIn("the guest ends: guest-shutdown", self.log())


if __name__ == "__main__":
    vmmtest.main()
