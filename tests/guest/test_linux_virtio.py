#!/usr/bin/env python3
"""Linux's own drivers against the virtio devices and the watchdog.

One boot per interface: the new one with MSI-X, the legacy one with the pin.  Each drives everything:
random numbers, balloon, statistics, free pages, console, agent channel, ports that come and go, and
at last the watchdog.
"""

import os
import re
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets       # noqa: E402
import test_linux   # noqa: E402
import vmmtest      # noqa: E402

MIB = 1 << 20
RAM = 128
BOOT = 300          # seconds to a shell on the slowest host
WAIT = 60           # seconds for what takes one on an idle host
REPORTED_ORDER = 6  # 256 KiB: the smallest blocks of free pages that are reported
AGENT = "org.qemu.guest_agent.0"


class Virtio(test_linux.LinuxCase):
    """All of virtio in one guest."""

    def boot(self, irqchip, options):
        """A guest with every virtio device, each with these options."""
        self.agent_path = os.path.join(self.work.name, "agent.sock")
        balloon = options.replace(",vectors=0", "")   # has no MSI-X
        return self.guest(
            "-kernel", assets.vmlinux(), "-initrd", assets.initramfs(),
            "-append", assets.CMDLINE + " i6300esb.heartbeat=4",
            "-device", f"virtio-rng-pci,id=rng{options}",
            "-device", f"virtio-balloon-pci,id=balloon,free-page-reporting=on{balloon}",
            "-device", f"virtio-serial-pci,id=serial{options}",
            "-chardev", "ringbuf,id=console,size=4096", "-device", "virtconsole,chardev=console",
            "-chardev", f"socket,id=agent,path={self.agent_path},server=on,wait=off",
            "-device", f"virtserialport,chardev=agent,name={AGENT},id=ga",
            "-device", "i6300esb", "-action", "watchdog=pause",
            memory=RAM, irqchip=irqchip, cpu=vmmtest.cpu_model())

    def random_numbers(self, guest):
        self.assertEqual(self.shell(guest, "cat /sys/class/misc/hw_random/rng_current").strip(), "virtio_rng.0")
        read = "dd if=/dev/hwrng bs=64 count=2 2>/dev/null | sha256sum"
        first, second = self.shell(guest, read), self.shell(guest, read)
        self.assertNotEqual(first, second)
        self.assertEqual(len(first.split()[0]), 64)

    def total_memory(self, guest):
        return int(self.shell(guest, "sed -n 's/MemTotal: *//p' /proc/meminfo").split()[0]) * 1024

    def balloon(self, guest):
        before = self.total_memory(guest)
        self.assertEqual(guest.qmp.command("query-balloon"), {"actual": RAM * MIB})
        target = 96 * MIB
        guest.qmp.command("balloon", value=target)
        guest.qmp.wait_event("BALLOON_CHANGE", WAIT, lambda d: d["actual"] == target)
        self.assertEqual(guest.qmp.command("query-balloon"), {"actual": target})
        self.assertEqual(before - self.total_memory(guest), RAM * MIB - target)
        guest.qmp.command("balloon", value=RAM * MIB)
        guest.qmp.wait_event("BALLOON_CHANGE", WAIT, lambda d: d["actual"] == RAM * MIB)
        self.assertEqual(self.total_memory(guest), before)

    def statistics(self, guest):
        path = "/machine/peripheral/balloon"
        guest.qmp.command("qom-set", path=path, property="guest-stats-polling-interval", value=1)

        def told():
            stats = guest.qmp.command("qom-get", path=path, property="guest-stats")
            return stats["stats"] if stats["stats"]["stat-total-memory"] == total else None

        total = self.total_memory(guest)    # the first statistics are of the time when the driver started
        stats = vmmtest.poll(told, WAIT, "statistics of the guest")
        self.assertLess(stats["stat-free-memory"], stats["stat-total-memory"])
        guest.qmp.command("qom-set", path=path, property="guest-stats-polling-interval", value=0)

    def free_pages(self, guest):
        """What the guest frees the host has again soon."""
        def resident():
            with open(f"/proc/{guest.pid}/status", encoding="ascii") as status:
                return sum(int(kib) for kib in re.findall(r"^Rss(?:Anon|Shmem):\s*(\d+) kB", status.read(), re.M)) * 1024

        # Linux reports blocks of 4 MiB, and none while it has fewer than 32 of them free, which in this guest is always.
        self.shell(guest, f"echo {REPORTED_ORDER} >/sys/module/page_reporting/parameters/page_reporting_order")
        self.shell(guest, "mkdir -p /t && mount -t tmpfs t /t && dd if=/dev/zero of=/t/f bs=64k count=512 2>/dev/null")
        full = resident()
        self.shell(guest, "rm /t/f; umount /t")
        vmmtest.poll(lambda: resident() < full - 24 * MIB, WAIT, lambda: f"the host to get freed memory back: {full} bytes "
                     f"were resident, {resident()} are")

    def console(self, guest):
        self.shell(guest, "echo to-the-''console >/dev/hvc0")
        vmmtest.poll(lambda: "to-the-console" in guest.qmp.command("ringbuf-read", device="console", size=4096),
                     WAIT, "text on the console")

    def port_of(self, guest, name):
        return self.shell(guest, f"cd /sys/class/virtio-ports; for p in *; do [ \"$(cat $p/name 2>&1)\" = {name} ] && "
                                 "echo $p; done; cd /").strip()

    def channel(self, guest):
        port = self.port_of(guest, AGENT)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(WAIT)
            peer.connect(self.agent_path)
            self.shell(guest, f"(exec 3<>/dev/{port}; read line <&3; echo got $line >&3; sleep 1) & true")
            event = guest.qmp.wait_event("VSERPORT_CHANGE", WAIT, lambda d: d["open"])
            self.assertEqual(event["data"]["id"], "ga")
            peer.sendall(b"ping\n")
            answer = b""
            while not answer.endswith(b"\n"):
                answer += peer.recv(100)
            self.assertEqual(answer, b"got ping\n")
            guest.qmp.wait_event("VSERPORT_CHANGE", WAIT, lambda d: not d["open"])

    def ports_come_and_go(self, guest):
        guest.qmp.execute("chardev-add", {"id": "hot", "backend": {"type": "ringbuf", "data": {}}})
        guest.qmp.execute("device_add", {"driver": "virtserialport", "chardev": "hot", "name": "hot.0", "id": "hot0"})
        port = vmmtest.poll(lambda: self.port_of(guest, "hot.0"), WAIT, "a hot-plugged port")
        self.shell(guest, f"echo through-''it >/dev/{port}")
        vmmtest.poll(lambda: "through-it" in guest.qmp.command("ringbuf-read", device="hot", size=100), WAIT, "its text")
        guest.qmp.execute("device_del", {"id": "hot0"})
        guest.qmp.wait_event("DEVICE_DELETED", WAIT, lambda d: d.get("device") == "hot0")
        vmmtest.poll(lambda: not self.port_of(guest, "hot.0"), WAIT, "the port to go")
        guest.qmp.execute("chardev-remove", {"id": "hot"})

    def watchdog(self, guest):
        """Opened and never fed: the machine stops for the operator to look."""
        guest.serial.send("exec 4>/dev/watchdog; echo >&4\n")
        event = guest.qmp.wait_event("WATCHDOG", WAIT)
        self.assertEqual(event["data"], {"action": "pause"})
        vmmtest.poll(lambda: guest.qmp.command("query-status")["status"] == "watchdog", WAIT, "the guest to stop")

    def everything(self, guest):
        guest.serial.wait_for("guest# ", BOOT)
        self.random_numbers(guest)
        self.console(guest)
        self.channel(guest)
        self.ports_come_and_go(guest)
        self.balloon(guest)
        self.statistics(guest)
        self.free_pages(guest)
        self.no_trouble(guest)

    def test_modern_msix(self):
        with self.boot("on", "") as guest:
            self.everything(guest)
            interrupts = self.shell(guest, "grep virtio /proc/interrupts")
            self.assertRegex(interrupts, r"\s[1-9]\d*\s+PCI-MSI\s.*virtio\d-input")
            self.assertRegex(interrupts, r"\s[1-9]\d*\s+IO-APIC\s.*virtio\d")   # the balloon
            self.watchdog(guest)

    def test_legacy_intx(self):
        with self.boot("split", ",disable-modern=on,vectors=0") as guest:
            self.everything(guest)
            interrupts = self.shell(guest, "grep virtio /proc/interrupts")
            self.assertNotIn("MSI", interrupts)
            self.assertRegex(interrupts, r"\s[1-9]\d*\s+IO-APIC\s.*virtio")
            self.watchdog(guest)


if __name__ == "__main__":
    vmmtest.main()
