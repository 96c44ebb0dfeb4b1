#!/usr/bin/env python3
"""What goes into a guest and comes out: keys, screen, VNC, serial lines, channels, packets, memory."""

import socket
import unittest

from exercise import Case, MIB, shows, vmmtest
from rfb import Rfb, RfbError


class Input(Case):
    """Keyboard and mouse; the observer prints what its controller gives it."""

    @shows("send-key", "input-send-event", "query-mice", "info mice")
    def test_keys_and_mouse(self):
        guest = self.start()
        guest.qmp.command("send-key", keys=[{"type": "qcode", "data": "b"}])
        guest.serial.wait_for(r"key 30\r\n(?s:.*)key b0\r", 20)     # set 1 of scan codes
        guest.qmp.command("input-send-event", events=[{"type": "key", "data": {"down": True, "key": {"type": "qcode", "data": "n"}}}])
        guest.serial.wait_for("key 31", 20)
        mouse = next(m for m in guest.qmp.command("query-mice") if m["current"])
        self.assertFalse(mouse["absolute"])
        self.assertIn(f"* Mouse #{mouse['index']}: {mouse['name']}", self.info(guest, "mice"))
        guest.qmp.command("input-send-event", events=[{"type": "rel", "data": {"axis": "x", "value": 5}},
                                                      {"type": "btn", "data": {"button": "left", "down": True}}])
        guest.serial.wait_for("mouse 9 5 0", 20)


class Screen(Case):
    """SeaBIOS writes on it."""

    @shows("screendump", "x-screen-text", "query-display-options")
    def test_pictures(self):
        guest = self.watch(self.guest("-boot", "menu=on", "-vga", "std", serial=0))
        screen = guest.wait_screen("SeaBIOS", 60)
        guest.qmp.command("stop")
        text = guest.qmp.command("x-screen-text")["text"]
        self.assertIn("SeaBIOS", screen)
        self.assertEqual((text.count("\n"), guest.qmp.command("query-display-options")), (25, {"type": "none"}))
        width, height, pixels = guest.screendump()
        self.assertEqual((width, height), (720, 400))
        rows = [pixels[y * width * 3:(y + 1) * width * 3] for y in range(height)]
        for row, line in enumerate(text.split("\n")[:25]):     # letters where there are letters, nothing where there are none
            lit = any(any(r) for r in rows[16 * row:16 * row + 13])
            self.assertEqual(lit, bool(line.strip()), (row, line))

    @unittest.skipUnless(vmmtest.has_module("vnc"), "built without VNC")
    @shows("query-vnc", "query-vnc-servers", "change-vnc-password", "set_password", "expire_password", "add_client", "getfd",
           "VNC_CONNECTED", "VNC_INITIALIZED", "VNC_DISCONNECTED", "info vnc")
    def test_vnc(self):
        """Nobody sees the screen without the password of the moment; keys typed there reach the guest."""
        path = self.path("vnc")
        guest = self.start("-vga", "std", "-vnc", f"unix:{path},password=on")
        qmp = guest.qmp
        with self.assertRaises(RfbError):
            Rfb(path, password="")
        qmp.command("change-vnc-password", password="first")
        viewer = Rfb(path, password="first")
        self.addCleanup(viewer.close)
        qmp.wait_event("VNC_CONNECTED")
        qmp.wait_event("VNC_INITIALIZED")
        self.assertEqual(len(qmp.command("query-vnc")["clients"]), 1)
        self.assertEqual([s["auth"] for s in qmp.command("query-vnc-servers")], ["vnc"])
        self.assertIn("Client:", self.info(guest, "vnc"))
        viewer.type("b")
        guest.serial.wait_for(r"key 30\r\n(?s:.*)key b0\r", 20)
        qmp.take_events("VNC_DISCONNECTED")
        viewer.close()
        qmp.wait_event("VNC_DISCONNECTED")
        vmmtest.poll(lambda: qmp.command("query-vnc")["clients"] == [], 20, "no client")
        qmp.command("set_password", protocol="vnc", password="second")
        with self.assertRaises(RfbError):
            Rfb(path, password="first")
        Rfb(path, password="second").close()
        qmp.command("expire_password", protocol="vnc", time="now")
        with self.assertRaises(RfbError):
            Rfb(path, password="second")
        ours, theirs = socket.socketpair()
        qmp.execute("getfd", {"fdname": "viewer"}, [theirs.fileno()])
        theirs.close()
        qmp.command("add_client", protocol="vnc", fdname="viewer", skipauth=True)
        self.addCleanup(ours.close)
        late = Rfb(ours)
        late.type("n")
        guest.serial.wait_for("key 31", 20)


class Lines(Case):
    """Serial ports and their character devices."""

    def content(self, path):
        with open(path, "rb") as stream:
            return stream.read()

    def labels(self, guest):
        return {c["label"]: c["filename"] for c in guest.qmp.command("query-chardev")}

    @shows("ringbuf-read", "ringbuf-write", "chardev-send-break", "query-chardev", "chardev-change", "info chardev")
    def test_serial(self):
        """A second port on a ring buffer, then on a file."""
        guest = self.start("-chardev", "ringbuf,id=ring,size=64", "-serial", "chardev:ring")
        guest.qmp.command("ringbuf-write", device="ring", data="Q")
        guest.serial.send("x 5\n")
        got = []
        vmmtest.poll(lambda: got.append(guest.qmp.command("ringbuf-read", device="ring", size=10)) or "5" in "".join(got), 20,
                     lambda: f"a 5 in {got}")
        self.assertEqual("".join(got), "Q5")
        guest.qmp.command("chardev-send-break", id="com0")
        guest.serial.wait_for("break", 20)
        out = self.path("out")
        guest.qmp.execute("chardev-change", {"id": "ring", "backend": {"type": "file", "data": {"out": out}}})
        self.assertIn("ring: filename=file\n", self.info(guest, "chardev"))
        guest.serial.send("x 7\n")
        vmmtest.poll(lambda: self.content(out) == b"7", 20, "the byte in the file")
        self.assertEqual(self.labels(guest)["ring"], "file")

    @shows("chardev-add", "chardev-remove", "query-chardev-backends", "VSERPORT_CHANGE", "device_add", "DEVICE_DELETED",
           "device_del")
    def test_channel(self):
        """A port of a virtio-serial bus that comes and goes, with a socket under it."""
        guest = self.start("-device", "virtio-serial-pci,id=bus")
        self.assertIn("socket", [b["name"] for b in guest.qmp.command("query-chardev-backends")])
        path = self.path("agent")
        guest.qmp.execute("chardev-add", {"id": "agent", "backend": {"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": path}}, "server": True, "wait": False}}})
        guest.qmp.command("device_add", driver="virtserialport", chardev="agent", id="ga", bus="bus.0", nr=1, name="org.agent")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            guest.serial.wait_for("host open", 20)
            guest.serial.send("o 1\n")
            self.assertEqual(guest.qmp.wait_event("VSERPORT_CHANGE")["data"], {"id": "ga", "open": True})
            guest.serial.send("o 0\n")
            guest.qmp.wait_event("VSERPORT_CHANGE", 20, lambda d: d == {"id": "ga", "open": False})
        guest.serial.wait_for("host closed", 20)
        with self.assertRaisesRegex(vmmtest.QMPError, "busy"):
            guest.qmp.command("chardev-remove", id="agent")
        guest.qmp.command("device_del", id="ga")
        guest.qmp.wait_event("DEVICE_DELETED", 20, lambda d: d.get("device") == "ga")
        guest.qmp.command("chardev-remove", id="agent")
        self.assertNotIn("agent", self.labels(guest))
        with socket.socket(socket.AF_UNIX) as late, self.assertRaises(OSError):
            late.connect(path)


class Network(Case):
    """The observer's virtio-net, or another card, on a cable whose other end the test holds."""

    MAC = "52:54:00:01:02:03"

    def plug(self, guest, name, card, **options):
        """A cable with a card before the guest runs; the network's end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(ours.close)
        ours.settimeout(30 * vmmtest.SLOW)
        guest.qmp.execute("getfd", {"fdname": name}, [theirs.fileno()])
        theirs.close()
        guest.qmp.execute("netdev_add", {"type": "dgram", "id": name, "local": {"type": "fd", "str": name}})
        guest.qmp.command("device_add", driver=card, netdev=name, id=f"card-{name}", **options)
        return ours

    def frame(self, ours, kind=b"\x88\xb5"):
        """The next frame of that Ethernet type."""
        while True:
            frame = ours.recv(2048)
            if frame[12:14] == kind:
                return frame

    @shows("netdev_add", "netdev_del", "set_link", "query-rx-filter", "NIC_RX_FILTER_CHANGED", "info network")
    def test_cable(self):
        """Packets, a cable that is pulled, a filter that opens."""
        guest = self.start("-S", "-nic", "none", wait=False)
        qmp = guest.qmp
        ours = self.plug(guest, "n0", "virtio-net-pci", mac=self.MAC)
        qmp.command("cont")
        self.ready(guest)
        self.assertRegex(self.info(guest, "network"), rf"card-n0: .*macaddr={self.MAC}\n \\ n0: index=0,type=dgram")
        guest.serial.send("s 1\n")
        self.assertEqual(self.frame(ours)[:12].hex(":"), "ff:ff:ff:ff:ff:ff:" + self.MAC)
        [before] = qmp.command("query-rx-filter", name="card-n0")
        self.assertEqual((before["promiscuous"], before["main-mac"]), (True, self.MAC))     # as after a reset
        guest.serial.send("f 0\n")
        self.assertEqual(qmp.wait_event("NIC_RX_FILTER_CHANGED")["data"], {"name": "card-n0", "path": "/machine/peripheral/card-n0"})
        self.assertFalse(qmp.command("query-rx-filter", name="card-n0")[0]["promiscuous"])
        [sent] = qmp.execute("query-stats", {"target": "x-nic", "providers": [
            {"provider": "x-vmm", "names": ["net_packets_transmit", "net_transferred_bytes_transmit", "net_link_up"]}]})
        self.assertEqual((sent["qom-path"], sent["x-name"]), ("/machine/peripheral/card-n0", "card-n0"))
        self.assertEqual({s["name"]: s["value"] for s in sent["stats"]},
                         {"net_packets_transmit": 1, "net_transferred_bytes_transmit": 64, "net_link_up": 1})
        qmp.command("set_link", name="card-n0", up=False)
        guest.serial.wait_for("link down", 20)
        guest.serial.send("s 5\n")     # lost
        qmp.command("set_link", name="card-n0", up=True)
        guest.serial.wait_for("link up", 20)
        self.assertIn("card-n0", self.info(guest, "network"))
        qmp.command("netdev_del", id="n0")
        guest.serial.wait_for("link down", 20)

    @shows("announce-self")
    def test_announcement(self):
        """A guest that can announces itself; for another card vmm does it."""
        guest = self.start("-S", wait=False)
        able, other = self.plug(guest, "n0", "virtio-net-pci", mac=self.MAC), self.plug(guest, "n1", "e1000", mac="52:54:00:01:02:04")
        guest.qmp.command("cont")
        self.ready(guest)
        guest.qmp.command("announce-self", initial=20, max=100, rounds=1, step=20)
        guest.serial.wait_for("announced", 20)
        self.assertEqual(self.frame(able)[6:12].hex(":"), self.MAC)
        self.assertEqual(self.frame(other, b"\x80\x35")[6:12].hex(":"), "52:54:00:01:02:04")     # RARP

    @shows("NETDEV_STREAM_CONNECTED", "NETDEV_STREAM_DISCONNECTED")
    def test_stream(self):
        path = self.path("stream")
        guest = self.start("-netdev", f"stream,id=n0,server=on,addr.type=unix,addr.path={path}", "-device",
                           f"virtio-net-pci,netdev=n0,mac={self.MAC}")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(30 * vmmtest.SLOW)
            peer.connect(path)
            self.assertEqual(guest.qmp.wait_event("NETDEV_STREAM_CONNECTED")["data"]["netdev-id"], "n0")
            guest.serial.send("s 1\n")
            frame = b""
            while len(frame) < 4 + 64:
                frame += peer.recv(100)
            self.assertEqual((frame[:4], frame[16:18]), (b"\0\0\0\x40", b"\x88\xb5"))
        self.assertEqual(guest.qmp.wait_event("NETDEV_STREAM_DISCONNECTED")["data"], {"netdev-id": "n0"})

    @unittest.skipUnless(vmmtest.has_module("slirp"), "built without libslirp")
    @shows("info usernet")
    def test_user(self):
        guest = self.start("-netdev", "user,id=u0,hostfwd=tcp:127.0.0.1:0-:22", "-device", "virtio-net-pci,netdev=u0")
        self.assertRegex(self.info(guest, "usernet"), r"Hub -1 \(u0\):\n(?s:.*)TCP\[HOST_FORWARD\] .* 22 ")


class Balloon(Case):
    """The observer gives pages away and takes them back."""

    @shows("balloon", "query-balloon", "BALLOON_CHANGE", "qom-set", "qom-get", "info balloon")
    def test_balloon(self):
        guest = self.start("-device", "virtio-balloon-pci,id=balloon")
        qmp, path = guest.qmp, "/machine/peripheral/balloon"
        self.assertEqual(qmp.command("query-balloon"), {"actual": 64 * MIB})
        before = self.resident(guest)
        self.hmp(guest, f"pmemsave {32 * MIB} {16 * MIB} {self.path('touch')}")     # the host has these pages now
        vmmtest.poll(lambda: self.resident(guest) >= before + 15 * MIB, 20, "the guest's memory to be there")
        full = self.resident(guest)
        qmp.command("balloon", value=48 * MIB)
        guest.serial.wait_for("balloon 4096", 60)
        self.assertEqual(qmp.wait_event("BALLOON_CHANGE", 20, lambda d: d["actual"] == 48 * MIB)["event"], "BALLOON_CHANGE")
        self.assertEqual(qmp.command("query-balloon"), {"actual": 48 * MIB})
        self.assertEqual(self.info(guest, "balloon"), "balloon: actual=48\n")
        vmmtest.poll(lambda: self.resident(guest) <= full - 15 * MIB, 20, "the host to have its memory back")
        qmp.command("balloon", value=64 * MIB)
        guest.serial.wait_for(r"balloon 0\r", 60)
        qmp.command("qom-set", path=path, property="guest-stats-polling-interval", value=1)

        def free():
            return qmp.command("qom-get", path=path, property="guest-stats")["stats"]["stat-free-memory"]

        vmmtest.poll(lambda: free() > 12345678, 20, "new statistics", 0.1)     # the guest raises it each time it is asked
        qmp.command("qom-set", path=path, property="guest-stats-polling-interval", value=0)

    def resident(self, guest):
        with open(f"/proc/{guest.pid}/status", encoding="ascii") as status:
            return sum(int(line.split()[1]) for line in status if line.startswith(("RssShmem", "RssAnon"))) * 1024


if __name__ == "__main__":
    vmmtest.main()
