#!/usr/bin/env python3
"""Linux moved to and fro while it works: $VMM_TEST_MOVES times (default 20) between two vmm processes on this host.

It writes files on its IDE disk and checks them, sends numbered lines over a virtio console, and counts timer ticks. Afterwards
no line is missing or there twice, every file is as it was written, the file system is clean, and both clocks are right.
"""

import os
import re
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("lib", "guest"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))
import assets       # noqa: E402
import test_linux as linux  # noqa: E402
import vmmtest      # noqa: E402

MOVES = int(os.environ.get("VMM_TEST_MOVES", "20"))
WAIT = 120


def word_file(n):
    """Round n's file, as work.c writes it."""
    return struct.pack("<8192I", *(((n << 16 ^ i) * 2654435761) & 0xffffffff for i in range(8192)))


class Moving(linux.LinuxCase):
    """One guest, many processes."""

    def start(self, number, *more):
        console = vmmtest.Console(os.path.join(self.work.name, f"hvc{number}"))
        self.addCleanup(console.close)
        guest = self.guest(
            *more, "-kernel", assets.vmlinux(), "-append", assets.CMDLINE + " root=/dev/sda1 ro rootfstype=ext2",
            "-drive", f"file={self.image},format=raw,if=ide,index=0,cache=none",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=hvc,path={console.path}", "-device", "virtconsole,chardev=hvc",
            memory=96, cpus=self.cpus, irqchip=self.irqchip, cpu=vmmtest.cpu_model(self.cpus))
        self.addCleanup(guest.close)
        guest.console = console
        return guest

    def move(self, guest, number):
        """To a new process; returns that."""
        dest = self.start(number, "-incoming", "tcp:127.0.0.1:0")
        address = dest.qmp.command("query-migrate")["socket-address"][0]
        guest.qmp.command("migrate", uri=f"tcp:{address['host']}:{address['port']}")

        def ended():
            info = guest.qmp.command("query-migrate")
            return info if info.get("status") in ("completed", "failed", "cancelled") else None

        info = vmmtest.poll(ended, WAIT, "the migration to end")
        self.assertEqual(info["status"], "completed", info)
        vmmtest.poll(lambda: dest.qmp.command("query-status")["running"], WAIT, "the guest to run at the destination")
        self.assertEqual(guest.quit(), 0)
        return dest, info

    def uptime(self, guest):
        return float(self.shell(guest, "cat /proc/uptime").split()[0])

    def test_under_load(self):
        self.cpus, self.irqchip = 1, "on"
        self.image = assets.copy(assets.linux_disk(), self.work.name, "disk.img")
        guest = self.start(0)
        self.reaches_user_space(guest, "/dev/root")
        self.shell(guest, "mount -t tmpfs t /tmp && mount -o remount,rw /")
        before, started = self.uptime(guest), time.monotonic()
        guest.serial.send("work /work /dev/hvc0 /tmp/stop &\n")
        lines, downtimes = "", []
        for number in range(1, MOVES + 1):
            guest.console.wait_for(r"line \d+\r?\n[\s\S]*line \d+\r?\n", WAIT)      # it works here
            source = guest
            guest, info = self.move(source, number)
            lines += source.console.text()
            downtimes.append(info["downtime"])
            self.assertNotRegex(guest.serial.text(), linux.TROUBLE)
        print(f"[{MOVES} moves, downtimes {sorted(downtimes)} ms]", end=" ", file=sys.stderr, flush=True)
        self.shell(guest, "touch /tmp/stop")
        guest.console.wait_for("line end", WAIT)
        self.shell(guest, "mount -o remount,ro /")
        lines += guest.console.text()
        self.assertNotIn("BAD", lines)
        numbers = [int(n) for n in re.findall(r"^line (\d+)\r?$", lines, re.M)]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        self.assertGreater(len(numbers), 2 * MOVES)
        # The clocks: wall clock and monotonic clock, and the timer still ticks.
        passed, real = self.uptime(guest) - before, time.monotonic() - started
        self.assertLess(abs(real - passed), 5 + 0.02 * real)
        self.clock(guest)
        self.no_trouble(guest)
        self.powers_off(guest)
        self.clean_disk(len(numbers))

    def clean_disk(self, last):
        """e2fsck has nothing to mend, and the files are those of the last rounds."""
        part = os.path.join(self.work.name, "part.img")
        with open(self.image, "rb") as disk, open(part, "wb") as out:
            disk.seek(2048 * 512)
            out.write(disk.read())
        tools = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"}
        done = subprocess.run(["e2fsck", "-fn", part], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=tools,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        for n in range(max(1, last - 15), last + 1):
            data = subprocess.run(["debugfs", "-R", f"cat /work/{n % 16}", part], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  env=tools, check=True).stdout
            self.assertEqual(data, word_file(n), f"round {n}")


if __name__ == "__main__":
    vmmtest.main()
