#!/usr/bin/env python3
"""Linux moved to and fro while it works: $VMM_TEST_MOVES times (default 20) between two vmm processes on this host.

It writes files on its IDE disk and checks them, sends numbered lines over a virtio console, counts timer ticks, and holds a TCP
connection through a virtio-net card: each process has a tap of its own on one bridge. Afterwards no line and no byte is missing
or there twice, every file is as it was written, the file system is clean, and both clocks are right. The taps need root; without
them the rest is tested, and the test counts as skipped.
"""

import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
for folder in ("lib", "guest"):
    sys.path.insert(0, os.path.join(HERE, "..", folder))
import assets       # noqa: E402
import test_linux as linux  # noqa: E402
import vmmtest      # noqa: E402

MOVES = int(os.environ.get("VMM_TEST_MOVES", "20"))
WAIT = 120
STARVED = " rcupdate.rcu_cpu_stall_timeout=100"      # one of two processors on a crowded host
MAC = "52:54:00:4d:0f:e5"
HOST, GUEST = "10.9.0.1", "10.9.0.2"
BRIDGE = ("link set lo up", "link add br0 type bridge stp_state 0 forward_delay 0", f"addr add {HOST}/24 dev br0",
          "link set br0 up",
          *(command for n in (0, 1) for command in (f"tuntap add dev tap{n} mode tap vnet_hdr", f"link set tap{n} master br0 up")))
ETH_P_RARP = 0x8035


def word_file(n):
    """Round n's file, as work.c writes it."""
    return struct.pack("<8192I", *(((n << 16 ^ i) * 2654435761) & 0xffffffff for i in range(8192)))


class Bridge:
    """What the bridge knows and what is announced on it."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_RARP))
        self.sock.bind(("br0", ETH_P_RARP))
        self.sock.setblocking(False)

    def announced(self):
        """Whether a reverse ARP request came from the guest's address since the last look."""
        try:
            frame = self.sock.recv(2048)
        except BlockingIOError:
            return False
        return frame[6:12] == bytes.fromhex(MAC.replace(":", ""))

    def forget(self):
        """Announcements so far do not count."""
        while self.announced():
            pass

    @staticmethod
    def port():
        """Where the guest is, as the bridge sees it."""
        table = json.loads(subprocess.run(["bridge", "-j", "fdb", "show", "br", "br0"], check=True, stdout=subprocess.PIPE).stdout)
        return next((entry["ifname"] for entry in table if entry["mac"] == MAC), None)


class Talk:
    """The host's end of a TCP connection: numbered words for the guest, which sends back every byte."""

    CHUNK, WINDOW, PACE = 512, 4096, 0.02

    def __init__(self):
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        self.sent = self.received = 0
        self.wrong = None
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @staticmethod
    def words(start, length):
        """length bytes from the start'th on of all the words there are."""
        first = start // 4
        return struct.pack(f"<{length // 4 + 2}I", *range(first, first + length // 4 + 2))[start % 4:start % 4 + length]

    def _talk(self, peer):
        while self.received < self.sent or not self.ending.is_set():
            if self.sent - self.received < self.WINDOW and not self.ending.wait(self.PACE):
                peer.sendall(self.words(self.sent, self.CHUNK))
                self.sent += self.CHUNK
            if self.received == self.sent:
                continue
            data = peer.recv(65536)
            if not data or data != self.words(self.received, len(data)):
                raise ValueError(f"after {self.received} bytes came {data[:32].hex(' ') or 'the end'}")
            self.received += len(data)
        peer.shutdown(socket.SHUT_WR)
        if data := peer.recv(65536):
            raise ValueError(f"{len(data)} bytes too many")

    def _run(self):
        try:
            with self.listener, self.listener.accept()[0] as peer:
                peer.settimeout(WAIT)
                self._talk(peer)
        except (OSError, ValueError) as error:
            self.wrong = error

    def goes_on(self):
        """Bytes sent from now on come back."""
        goal = self.sent + self.CHUNK
        vmmtest.poll(lambda: self.wrong or self.received >= goal, WAIT, lambda: f"byte {goal} to come back, {self.received} did")

    def end(self):
        """Everything has come back, and no more."""
        self.ending.set()
        self.thread.join(WAIT)
        return not self.thread.is_alive() and not self.wrong


class Moving(linux.LinuxCase):
    """One guest, many processes."""

    def network(self):
        """A bridge and its taps, if they can be had."""
        self.bridge = self.talk = self.no_network = None
        try:
            self.own_network(*BRIDGE)
            self.bridge = Bridge()
            self.addCleanup(self.bridge.sock.close)
            self.bridge.port()
        except (unittest.SkipTest, OSError) as reason:
            self.bridge, self.no_network = None, str(reason)

    def card(self, number):
        """The network card, on this process's tap."""
        if not self.bridge:
            return []
        return ["-netdev", f"tap,id=net0,ifname=tap{number % 2},script=no,downscript=no",
                "-device", f"virtio-net-pci,netdev=net0,mac={MAC},romfile="]

    def start(self, number, *more):
        console = vmmtest.Console(os.path.join(self.work.name, f"hvc{number}"))
        self.addCleanup(console.close)
        guest = self.guest(
            *more, "-kernel", assets.vmlinux(), "-append", assets.CMDLINE + " root=/dev/sda1 ro rootfstype=ext2" + STARVED,
            "-drive", f"file={self.image},format=raw,if=ide,index=0,cache=none",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=hvc,path={console.path}", "-device", "virtconsole,chardev=hvc",
            *self.card(number), memory=96, cpus=self.cpus, irqchip=self.irqchip, cpu=vmmtest.cpu_model(self.cpus))
        self.addCleanup(guest.close)
        guest.console = console
        return guest

    def move(self, guest, number):
        """To a new process; returns that."""
        dest = self.start(number, "-incoming", "tcp:127.0.0.1:0")
        address = dest.qmp.command("query-migrate")["socket-address"][0]
        if self.bridge:
            self.bridge.forget()
        guest.qmp.command("migrate", uri=f"tcp:{address['host']}:{address['port']}")

        def ended():
            info = guest.qmp.command("query-migrate")
            return info if info.get("status") in ("completed", "failed", "cancelled") else None

        info = vmmtest.poll(ended, WAIT, "the migration to end")
        self.assertEqual(info["status"], "completed", info)
        vmmtest.poll(lambda: dest.qmp.command("query-status")["running"], WAIT, "the guest to run at the destination")
        if self.bridge:     # the source still has its tap
            vmmtest.poll(self.bridge.announced, WAIT, "the guest's card to be announced")
            vmmtest.poll(lambda: self.bridge.port() == f"tap{number % 2}", WAIT, "the bridge to know where the guest is")
        self.assertEqual(guest.quit(), 0)
        return dest, info

    def uptime(self, guest):
        return float(self.shell(guest, "cat /proc/uptime").split()[0])

    def connects(self, guest):
        """The guest sends back what it gets."""
        if self.bridge:
            self.talk = Talk()
            self.shell(guest, f"ifconfig eth0 {GUEST} netmask 255.255.255.0 up")
            guest.serial.send(f"nc {HOST} {self.talk.port} -e cat &\n")
            self.talk.goes_on()

    def works(self, guest):
        """Disk, console and network all get on in this process."""
        guest.console.wait_for(r"line \d+\r?\n[\s\S]*line \d+\r?\n", WAIT)
        if self.talk:
            self.talk.goes_on()
            self.assertIsNone(self.talk.wrong)

    def hangs_up(self):
        """Not a byte is missing or there twice."""
        if self.talk:
            self.assertTrue(self.talk.end(), f"{self.talk.wrong}; {self.talk.received} of {self.talk.sent} bytes came back")
            print(f"[{self.talk.received} bytes there and back]", end=" ", file=sys.stderr, flush=True)

    def test_under_load(self):
        """One processor, kernel-irqchip=on."""
        self.moves(1, "on", MOVES)

    def test_two_processors(self):
        """kernel-irqchip=split, a part of the moves."""
        self.moves(2, "split", (MOVES + 4) // 5)

    def moves(self, cpus, irqchip, moves):
        """Everything."""
        self.cpus, self.irqchip = cpus, irqchip
        self.network()
        self.image = assets.copy(assets.linux_disk(), self.work.name, "disk.img")
        guest = self.start(0)
        self.reaches_user_space(guest, "/dev/root")
        self.shell(guest, "mount -t tmpfs t /tmp && mount -o remount,rw /")
        before, started = self.uptime(guest), time.monotonic()
        guest.serial.send("work /work /dev/hvc0 /tmp/stop &\n")
        self.connects(guest)
        lines, downtimes = "", []
        for number in range(1, moves + 1):
            self.works(guest)
            source = guest
            guest, info = self.move(source, number)
            lines += source.console.text()
            downtimes.append(info["downtime"])
            self.assertNotRegex(guest.serial.text(), linux.TROUBLE)
        print(f"[{moves} moves, downtimes {sorted(downtimes)} ms]", end=" ", file=sys.stderr, flush=True)
        self.works(guest)
        self.hangs_up()
        self.shell(guest, "touch /tmp/stop")
        guest.console.wait_for("line end", WAIT)
        self.shell(guest, "mount -o remount,ro /")
        lines += guest.console.text()
        self.assertNotIn("BAD", lines)
        numbers = [int(n) for n in re.findall(r"^line (\d+)\r?$", lines, re.M)]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        self.assertGreater(len(numbers), 2 * moves)
        # The clocks: wall clock and monotonic clock, and the timer still ticks.
        passed, real = self.uptime(guest) - before, time.monotonic() - started
        self.assertLess(abs(real - passed), 5 + 0.02 * real)
        self.clock(guest)
        self.no_trouble(guest)
        self.powers_off(guest)
        self.clean_disk(len(numbers))
        if self.no_network:
            self.skipTest(f"all but the TCP connection was tested: {self.no_network}")

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
