#!/usr/bin/env python3
"""Networks over QMP and on the command line: back ends and cards that come and go, links, announcements, events, numbers."""

import array
import os
import re
import shutil
import socket
import struct
import subprocess
import unittest

from harness import Vmm, vmmtest

EJECT = 0xAE08
MAC = "52:54:00:01:02:03"
CARD = "virtio-net-pci"


class Cable:
    """A pair of sockets: .theirs goes to vmm, .ours is the network."""

    def __init__(self, kind=socket.SOCK_DGRAM):
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, kind)
        self.ours.settimeout(30)

    def close(self):
        self.ours.close()
        self.theirs.close()


def run(*arguments):
    r = subprocess.run([vmmtest.VMM, "-accel", "qtest", "-display", "none", "-nodefaults", *arguments], stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, timeout=60)
    return r.returncode, r.stdout


class Net(unittest.TestCase):

    def cable(self, kind=socket.SOCK_DGRAM):
        cable = Cable(kind)
        self.addCleanup(cable.close)
        return cable

    def start(self, *args, cables=()):
        vmm = Vmm("-qtest", "unix:@DIR@/qtest,server=on,wait=off", *args, pass_fds=[c.theirs.fileno() for c in cables])
        self.addCleanup(vmm.close)
        return vmm

    def refused(self, vmm, pattern, command, **arguments):
        with self.assertRaisesRegex(vmmtest.QMPError, pattern) as caught:
            vmm.qmp.execute(command, {k.replace("_", "-"): v for k, v in arguments.items()})
        return caught.exception.error_class

    def getfd(self, vmm, name, fd):
        """As libvirt hands a tap over; .client() of the harness speaks on."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(vmm.qmp_path)
            stream = sock.makefile("rwb")
            stream.readline()
            for line, rights in ((b'{"execute":"qmp_capabilities"}', []),
                                 (b'{"execute":"getfd","arguments":{"fdname":"%s"}}' % name.encode(), [fd])):
                sock.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", rights))] if rights else [])
                self.assertIn(b"return", stream.readline())

    def test_a_card_comes_and_goes_as_libvirt_does_it(self):
        cable = self.cable()
        vmm = self.start()
        guest, qmp = vmm.qtest(), vmm.qmp
        before = None
        for _ in range(3):
            self.getfd(vmm, "fd-net0", cable.theirs.fileno())
            qmp.execute("netdev_add", {"type": "dgram", "id": "hostnet0", "local": {"type": "fd", "str": "fd-net0"}})
            qmp.execute("device_add", {"driver": CARD, "netdev": "hostnet0", "id": "net0", "mac": MAC, "bus": "pci.0", "addr": "0x5"})
            self.refused(vmm, f"Property '{CARD}.netdev' can't take value 'hostnet0', it's in use", "device_add", driver=CARD,
                         netdev="hostnet0", id="other")
            info = qmp.execute("human-monitor-command", {"command-line": "info network"})
            self.assertRegex(info, rf"net0: index=0,type=nic,model={CARD},macaddr={MAC}\r?\n \\ hostnet0: index=0,type=dgram,fd=")
            self.assertEqual([f["main-mac"] for f in qmp.command("query-rx-filter")], [MAC])
            qmp.command("device_del", id="net0")
            guest.ask(f"outl {EJECT:#x} {1 << 5:#x}")
            qmp.wait_event("DEVICE_DELETED", where=lambda data: data.get("device") == "net0")
            qmp.command("netdev_del", id="hostnet0")
            before = before or vmmtest.process_counts(vmm.pid)["fds"]
            vmmtest.poll(lambda: vmmtest.process_counts(vmm.pid)["fds"] <= before, 30, "everything is given back")
        self.assertEqual(self.refused(vmm, "Device 'hostnet0' not found", "netdev_del", id="hostnet0"), "DeviceNotFound")

    def test_arguments(self):
        vmm = self.start()
        self.refused(vmm, "Parameter 'type' is missing", "netdev_add", id="n")
        self.refused(vmm, "'id' is missing", "netdev_add", type="socket")
        self.refused(vmm, "does not accept value 'nonesuch'|expects|'nonesuch'", "netdev_add", type="nonesuch", id="n")
        self.refused(vmm, "foo", "netdev_add", type="socket", id="n", foo=1, listen="127.0.0.1:0")
        self.refused(vmm, "Device 'x' not found", "set_link", name="x", up=True)
        self.refused(vmm, "invalid net client name: x", "query-rx-filter", name="x")
        self.refused(vmm, "'rounds' expects", "announce-self", initial=1, max=1, rounds=5000, step=1)
        if not os.environ.get("VMM_TEST_SANITIZED"):  # then the sandbox is off
            self.refused(vmm, "sandbox is closed|could not open /dev/net/tun|Operation not permitted|script=", "netdev_add",
                         type="tap", id="t", script="/bin/true")
        vmm.qmp.execute("netdev_add", {"type": "stream", "id": "n", "server": True,
                                       "addr": {"type": "inet", "host": "127.0.0.1", "port": "0"}})
        self.refused(vmm, "Duplicate ID 'n' for netdev", "netdev_add", type="socket", id="n", listen="127.0.0.1:0")
        self.refused(vmm, r"net client\(n\) isn't a NIC", "query-rx-filter", name="n")
        self.refused(vmm, "can't find value 'm'", "device_add", driver=CARD, netdev="m", id="x")
        schema = {e["name"]: e for e in vmm.qmp.command("query-qmp-schema")}
        kinds = {m["name"]: m["type"] for m in schema[schema["netdev_add"]["arg-type"]]["members"]}
        self.assertIn("dgram", schema[kinds["type"]]["values"])     # libvirt then writes -netdev as JSON

    def test_links_and_announcements(self):
        cable = self.cable()
        vmm = self.start("-netdev", f"socket,id=n0,fd={cable.theirs.fileno()}", "-device", f"{CARD},netdev=n0,id=net0,mac={MAC}",
                         cables=[cable])
        guest = vmm.qtest()
        vmm.qmp.execute("announce-self", {"initial": 1, "max": 5, "rounds": 3, "step": 1})
        rarp = bytes.fromhex("ffffffffffff") + bytes.fromhex(MAC.replace(":", "")) + b"\x80\x35\x00\x01\x08\x00\x06\x04\x00\x03"
        for _ in range(3):
            frame = cable.ours.recv(2048)
            self.assertEqual((frame[:22], len(frame)), (rarp, 60))
            guest.ask("clock_step 5000000")
        vmm.qmp.execute("set_link", {"name": "net0", "up": False})
        info = vmm.qmp.execute("human-monitor-command", {"command-line": "info network"})
        self.assertIn("link=down", info)
        self.assertEqual(vmm.qmp.execute("human-monitor-command", {"command-line": "announce_self net0"}), "")
        vmm.qmp.execute("human-monitor-command", {"command-line": "set_link net0 on"})
        vmm.qmp.execute("announce-self", {"initial": 1, "max": 5, "rounds": 1, "step": 1, "interfaces": ["nobody"]})
        vmm.qmp.execute("announce-self", {"initial": 1, "max": 5, "rounds": 1, "step": 1, "interfaces": ["net0"], "id": "x"})
        self.assertEqual(cable.ours.recv(2048)[:22], rarp)
        text = vmm.qmp.command("x-query-metrics")["text"]
        self.assertRegex(text, r'vmm_net_packets_total\{nic="net0",direction="transmit"\} [4-9]\n')
        self.assertRegex(text, r'vmm_net_dropped_total\{nic="net0",direction="transmit"\} [1-9]\n')
        self.assertIn('vmm_net_link_up{nic="net0"} 1\n', text)

    def test_streams_speak_qemus_framing_and_tell(self):
        vmm = self.start("-netdev", '{"type":"stream","id":"s","server":true,"addr":{"type":"unix","path":"@DIR@/net"}}', "-device",
                         f"{CARD},netdev=s,id=net0,mac={MAC}")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(vmm.path("net"))
            event = vmm.qmp.wait_event("NETDEV_STREAM_CONNECTED")
            self.assertEqual(event["data"]["netdev-id"], "s")
            self.assertEqual(event["data"]["addr"]["type"], "unix")
            vmm.qmp.execute("announce-self", {"initial": 1, "max": 5, "rounds": 1, "step": 1})
            peer.settimeout(30)
            data = b""
            while len(data) < 64:
                data += peer.recv(64 - len(data))
            self.assertEqual(data[:4], struct.pack(">I", 60))
            self.assertEqual(data[4:10], b"\xff" * 6)
        self.assertEqual(vmm.qmp.wait_event("NETDEV_STREAM_DISCONNECTED")["data"], {"netdev-id": "s"})

    def test_short_options(self):
        cable = self.cable()
        fd = cable.theirs.fileno()
        vmm = self.start("-nic", f"socket,fd={fd},model=virtio,mac={MAC}", cables=[cable])
        info = vmm.qmp.execute("human-monitor-command", {"command-line": "info network"})
        self.assertRegex(info, rf"^{CARD}\S*: index=0,type=nic,model={CARD},macaddr={MAC}\r?\n \\ nic0: index=0,type=socket,fd={fd}")
        vmm = self.start("-net", f"nic,model={CARD}", "-net", f"socket,fd={fd},name=old", cables=[cable])
        info = vmm.qmp.execute("human-monitor-command", {"command-line": "info network"})
        self.assertRegex(info, r"macaddr=52:54:00:12:34:56\r?\n \\ old: ")
        for arguments, pattern in ((("-nic", "none"), None), (("-net", "none"), None),
                                   (("-nic", "socket,listen=127.0.0.1:0,model=nonesuch"), "Unsupported NIC model: nonesuch"),
                                   (("-nic", "nonesuch"), "-nic nonesuch: Parameter 'type' expects"),
                                   (("-net", "nic", "-net", "nic"), "a hub of several is not offered"),
                                   (("-net", "socket,listen=127.0.0.1:0"), "-net nic is missing"),
                                   (("-net", "nic,foo=1"), "Invalid parameter 'foo'"),
                                   (("-netdev", "socket,id=n"), "-netdev socket,id=n: exactly one of"),
                                   (("-netdev", "socket,fd=1"), "Parameter 'id' is missing"),
                                   (("-device", f"{CARD},netdev=x"), f"Property '{CARD}.netdev' can't find value 'x'"),
                                   (("-device", f"{CARD},mac=01:00:00:00:00:00"), "multicast")):
            if not pattern:
                self.start(*arguments)
                continue
            status, text = run(*arguments)
            self.assertEqual(status, 1, arguments)
            self.assertIn(pattern, text)
        status, text = run("-netdev", "help")
        self.assertEqual(status, 0)
        self.assertRegex(text, r"Available netdev backend types:\n(?s:.*)\ntap +a network interface")
        self.assertIn(CARD, run("-nic", "socket,model=help")[1])

    @unittest.skipUnless(shutil.which("qemu-system-x86_64"), "no qemu-system-x86_64")
    def test_a_cable_to_qemu(self):
        """Frames over TCP in both directions: QEMU's dump of its end shows ours; what it announces is read (and thrown away: our
        cable is unplugged at the card)."""
        vmm = self.start("-netdev", "socket,id=n0,listen=127.0.0.1:0", "-device", f"{CARD},netdev=n0,id=net0,mac={MAC}")
        vmm.qmp.execute("set_link", {"name": "net0", "up": False})
        info = vmm.qmp.execute("human-monitor-command", {"command-line": "info network"})
        address = re.search(r"wait from (127\.0\.0\.1:\d+)", info).group(1)
        dump = vmm.path("dump.pcap")
        qemu = subprocess.Popen(["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-display", "none", "-m", "16", "-netdev",
                                 f"socket,id=n,connect={address}", "-device", "e1000,netdev=n,id=card", "-object",
                                 f"filter-dump,id=f,netdev=n,file={dump}", "-qmp", f"unix:{vmm.path('qemu')},server=on,wait=off"])
        self.addCleanup(qemu.wait)
        self.addCleanup(qemu.kill)

        peer = vmm.client(vmm.path("qemu"))
        metric = r'vmm_net_dropped_total\{nic="net0",direction="receive"\} (\d+)'
        peer.execute("announce-self", {"initial": 10, "max": 10, "rounds": 3, "step": 1})
        vmmtest.poll(lambda: int(re.search(metric, vmm.qmp.command("x-query-metrics")["text"]).group(1)) >= 3, 60, "QEMU's frames")
        vmm.qmp.execute("set_link", {"name": "net0", "up": True})
        vmm.qmp.execute("announce-self", {"initial": 1, "max": 5, "rounds": 1, "step": 1})
        ours = b"\xff" * 6 + bytes.fromhex(MAC.replace(":", "")) + b"\x80\x35"

        def dumped():
            with open(dump, "rb") as stream:
                return ours in stream.read()

        vmmtest.poll(dumped, 60, "our frame in QEMU's dump")

    def test_default(self):
        """A guest whose command line says nothing of networks has QEMU's: an e1000 on `user`."""
        if not vmmtest.has_module("slirp"):
            self.skipTest("built without libslirp")

        def cards(*arguments, **options):
            with Vmm(*arguments, **options) as vmm:
                return vmm.qmp.execute("human-monitor-command", {"command-line": "info network"})
        self.assertRegex(cards(defaults=True), r"^e1000: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\r\n \\ net0: index=0,type=user")
        for arguments in (["-nic", "none"], ["-net", "none"]):
            self.assertEqual(cards(*arguments, defaults=True), "")
        self.assertNotIn("e1000", cards("-netdev", "user,id=other", defaults=True))
        self.assertEqual(cards(), "")

    @unittest.skipUnless(os.access("/dev/net/tun", os.R_OK | os.W_OK), "no /dev/net/tun")
    def test_bridge_helper(self):
        """A helper of our own, which passes a tap as qemu-bridge-helper(8) does."""
        def prepare(folder):
            path = os.path.join(folder, "helper")
            with open(path, "w", encoding="ascii") as stream:
                stream.write("#!/usr/bin/env python3\nimport array, fcntl, os, socket, struct, sys\n"
                             "fd = int([a for a in sys.argv if a.startswith('--fd=')][0][5:])\n"
                             "if '--br=vbr7' not in sys.argv or '--use-vnet' not in sys.argv: sys.exit(3)\n"
                             "tun = os.open('/dev/net/tun', os.O_RDWR)\n"
                             "fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH22x', b'', 0x5002))\n"
                             "s = socket.socket(fileno=fd)\n"
                             "s.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [tun]))])\n")
            os.chmod(path, 0o700)
        try:
            vmm = Vmm("-netdev", "bridge,id=n,br=vbr7,helper=@DIR@/helper", "-device", f"{CARD},netdev=n,id=net0", prepare=prepare)
        except ConnectionError as error:
            if "passed no tap" in str(error) or "failed with status 1" in str(error):
                self.skipTest(f"no tap can be made here: {error}")
            raise
        with vmm:
            self.assertIn("type=bridge", vmm.qmp.execute("human-monitor-command", {"command-line": "info network"}))
        with self.assertRaisesRegex(ConnectionError, "bridge helper failed with status 3"):
            Vmm("-netdev", "bridge,id=n,br=other,helper=@DIR@/helper", prepare=prepare)


if __name__ == "__main__":
    vmmtest.main()
