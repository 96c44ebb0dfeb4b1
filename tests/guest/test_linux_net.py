#!/usr/bin/env python3
"""Linux's virtio-net driver: pings and TCP through `-netdev user` and through a tap.

One boot for the new interface with MSI-X and KVM's interrupt controllers, one for the legacy one with the pin and ours, one
on a tap, where checksums and segmentation are left undone in both directions (needs root: a network namespace of its own).
"""

import hashlib
import os
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets       # noqa: E402
import test_linux   # noqa: E402
import vmmtest      # noqa: E402

KIB = 1 << 10
MAC = "52:54:00:ab:cd:ef"
WAIT = 60           # seconds for what takes one on an idle host
TRANSFER = 300 * KIB


class Echo:
    """A server that takes what one client sends until it is done, sends the same back, and keeps it."""

    def __init__(self, address):
        self.received = b""
        self.listener = socket.create_server((address, 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        peer = self.listener.accept()[0]
        with peer, self.listener:
            while data := peer.recv(65536):
                self.received += data
            peer.sendall(self.received)


class Net(test_linux.LinuxCase):
    """A guest with one network card; every test drives it."""

    def boot(self, irqchip, netdev, device=""):
        return self.guest(
            "-kernel", assets.vmlinux(), "-initrd", assets.initramfs(), "-append", assets.CMDLINE + " net.ifnames=0",
            "-netdev", netdev, "-device", f"virtio-net-pci,netdev=net0,id=nic,mac={MAC},speed=10000,duplex=full,romfile={device}",
            memory=128, irqchip=irqchip, cpu=vmmtest.cpu_model())

    def configures(self, guest, address, gateway, speed):
        """The card is there, with its address, and comes up; the filter shows what the driver asked for."""
        self.assertEqual(self.shell(guest, "cat /sys/class/net/eth0/address").strip(), MAC)
        self.shell(guest, f"ifconfig eth0 {address} netmask 255.255.255.0 up && route add default gw {gateway}")
        self.assertEqual(self.shell(guest, "cat /sys/class/net/eth0/carrier").strip(), "1")
        self.assertEqual(self.shell(guest, "cat /sys/class/net/eth0/speed").strip(), speed)
        info = vmmtest.poll(lambda: [f for f in guest.qmp.execute("query-rx-filter", {"name": "nic"}) if not f["promiscuous"]],
                            WAIT, "the driver to set its filter")[0]
        self.assertEqual(info["main-mac"], MAC)
        self.assertEqual(info["unicast"], "normal")

    def pings(self, guest, address):
        self.assertRegex(self.shell(guest, f"ping -c 3 -W 10 {address}"), r"3 packets received, 0% packet loss")
        self.assertRegex(self.shell(guest, f"ping -c 2 -s 1400 -W 10 {address}"), r"2 packets received")

    def transfers(self, guest, address, server):
        """As many bytes to the host and back."""
        self.shell(guest, f"dd if=/dev/urandom of=/tmp/sent bs=1k count={TRANSFER // KIB} 2>/dev/null")
        self.shell(guest, f"nc {address} {server.port} </tmp/sent >/tmp/back")
        sums = [line.split()[0] for line in self.shell(guest, "sha256sum /tmp/sent /tmp/back").splitlines()]
        self.assertEqual(len(server.received), TRANSFER)
        self.assertEqual(sums, [hashlib.sha256(server.received).hexdigest()] * 2)

    def link(self, guest):
        """The cable is pulled and plugged in again."""
        for up in (False, True):
            guest.qmp.execute("set_link", {"name": "nic", "up": up})
            vmmtest.poll(lambda up=up: self.shell(guest, "cat /sys/class/net/eth0/carrier").strip() == str(int(up)), WAIT,
                         f"the carrier to be {up}", 1)

    def everything(self, guest, address, peer, listen, speed="10000"):
        self.reaches_user_space(guest, "rootfs")
        self.configures(guest, address, peer, speed)
        self.pings(guest, peer)
        self.transfers(guest, peer, Echo(listen))
        self.link(guest)
        self.pings(guest, peer)
        self.no_trouble(guest)

    def test_modern_msix(self):
        with self.boot("on", "user,id=net0") as guest:
            self.everything(guest, "10.0.2.15", "10.0.2.2", "127.0.0.1")
            self.assertRegex(self.shell(guest, "grep virtio /proc/interrupts"), r"\s[1-9]\d*\s+PCI-MSI\s.*virtio0-input")
            self.powers_off(guest)

    def test_legacy_intx(self):
        with self.boot("split", "user,id=net0", ",disable-modern=on,vectors=0") as guest:
            # The legacy interface has 32 feature bits; the speed's is beyond.
            self.everything(guest, "10.0.2.15", "10.0.2.2", "127.0.0.1", speed="-1")
            self.assertRegex(self.shell(guest, "grep virtio /proc/interrupts"), r"\s[1-9]\d*\s+IO-APIC\s.*virtio")
            self.powers_off(guest)

    def test_tap(self):
        self.own_network("tuntap add dev tap0 mode tap vnet_hdr", "addr add 10.9.0.1/24 dev tap0", "link set tap0 up")
        with self.boot("on", "tap,id=net0,ifname=tap0,script=no,downscript=no") as guest:
            self.everything(guest, "10.9.0.2", "10.9.0.1", "10.9.0.1")
            self.powers_off(guest)


if __name__ == "__main__":
    vmmtest.main()
