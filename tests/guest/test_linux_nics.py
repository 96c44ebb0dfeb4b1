#!/usr/bin/env python3
"""Linux's own drivers against the e1000 and the rtl8139 (8139cp: the C+ mode).

One boot per kind of interrupt chips.  Each card has a network of its own with the host's TCP behind it: ping, a
transfer that comes back and is compared, the cable pulled and plugged in, and a card that comes while Linux runs.
"""

import os
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets       # noqa: E402
import test_linux   # noqa: E402
import vmmtest      # noqa: E402

BOOT = 300          # seconds to a shell on the slowest host
WAIT = 60           # seconds for what takes one on an idle host
KIB = 128           # of a transfer
CARDS = (("e1000", "e1000", "52:54:00:00:00:0a", 2), ("rtl8139", "8139cp", "52:54:00:00:00:0b", 3))


class Echo:
    """A TCP server that sends back what it gets."""

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self):
        try:
            while True:
                peer, _ = self.listener.accept()
                with peer:
                    while data := peer.recv(65536):
                        peer.sendall(data)
        except OSError:
            pass    # closed

    def __exit__(self, *_):
        self.listener.close()


class Nics(test_linux.LinuxCase):
    """Both cards in one guest."""

    def interface(self, guest, mac):
        """The name of the interface that has this address; empty if there is none."""
        return self.shell(guest, "for i in /sys/class/net/eth*; do read a <$i/address; "
                                 f"[ $a = {mac} ] && echo ${{i##*/}}; done; true").strip()

    def carrier(self, guest, name, want):
        vmmtest.poll(lambda: self.shell(guest, f"cat /sys/class/net/{name}/carrier").strip() == want, WAIT,
                     f"carrier {want} on {name}", interval=0.5)

    def up(self, guest, mac, driver, net):
        name = vmmtest.poll(lambda: self.interface(guest, mac), WAIT, f"the interface of {driver}", interval=0.5)
        self.assertIn(driver, self.shell(guest, f"readlink /sys/class/net/{name}/device/driver"))
        self.shell(guest, f"ifconfig {name} 10.0.{net}.15 netmask 255.255.255.0 up")
        self.carrier(guest, name, "1")
        return name

    def pings(self, guest, net):
        self.shell(guest, f"ping -c 2 -W 20 10.0.{net}.2")

    def transfers(self, guest, net, port):
        """There and back: what comes is what went."""
        self.shell(guest, f"nc 10.0.{net}.2 {port} </random >/back")
        self.shell(guest, "cmp /random /back")

    def works(self, guest, card, port):
        kind, driver, mac, net = card
        name = self.up(guest, mac, driver, net)
        self.pings(guest, net)
        self.transfers(guest, net, port)
        self.assertRegex(self.shell(guest, f"grep {name} /proc/interrupts"), r"\s[1-9]\d*\s")
        guest.qmp.execute("set_link", {"name": kind, "up": False})
        self.carrier(guest, name, "0")
        guest.qmp.execute("set_link", {"name": kind, "up": True})
        self.carrier(guest, name, "1")
        self.pings(guest, net)
        for counter in ("rx_errors", "tx_errors", "rx_dropped", "tx_dropped"):
            self.assertEqual(self.shell(guest, f"cat /sys/class/net/{name}/statistics/{counter}").strip(), "0", counter)

    def boot(self, irqchip):
        options = []
        for kind, _, mac, net in CARDS:
            options += ["-netdev", f"user,id=net{net},net=10.0.{net}.0/24",
                        "-device", f"{kind},id={kind},netdev=net{net},mac={mac}"]
        return self.guest("-kernel", assets.vmlinux(), "-initrd", assets.initramfs(), "-append", assets.CMDLINE,
                          *options, memory=128, irqchip=irqchip, cpu=vmmtest.cpu_model())

    def both(self, irqchip):
        with Echo() as echo, self.boot(irqchip) as guest:
            guest.serial.wait_for("guest# ", BOOT)
            if not self.shell(guest, "ls /sys/class/net").split():
                self.skipTest("this kernel has no network drivers")
            self.shell(guest, f"dd if=/dev/urandom of=/random bs=1024 count={KIB} 2>/dev/null")
            for card in CARDS:
                self.works(guest, card, echo.port)
            self.no_trouble(guest)

    def test_kernel_irqchip(self):
        self.both("on")

    def test_split_irqchip(self):
        self.both("split")


if __name__ == "__main__":
    vmmtest.main()
