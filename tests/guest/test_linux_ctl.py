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


class Managed(ctltest.Case):
    """A guest from a configuration file."""

    shell = test_linux.LinuxCase.shell

    def setUp(self):
        reason = vmmtest.why_no_vmm()
        if reason:
            self.skipTest(reason)
        super().setUp()

    def boot(self, **keys):
        try:
            keys.update(kernel=assets.vmlinux(), initrd=assets.initramfs())
        except assets.Missing as error:
            self.skipTest(str(error))
        terminal = Terminal(self.path("serial"))
        self.addCleanup(terminal.serial.close)
        keys.update(memory=128, vnc="none", vga="none", cpu=vmmtest.cpu_model(2), append=assets.CMDLINE)
        text = "".join(f"{key} = {value}\n" for key, value in keys.items())
        self.ctl("create", self.write("web.vmm", text + f"[serial]\ntype = unix:{terminal.serial.path}\n"))
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


if __name__ == "__main__":
    vmmtest.main()
