#!/usr/bin/env python3
"""-netdev user in the real binary, sandboxed: short options, the monitor's commands, a netdev that comes later."""

import os
import socket
import unittest

from harness import Vmm, free_port, vmmtest

MODULES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(vmmtest.VMM))), "modules")


@unittest.skipUnless(os.path.exists(os.path.join(MODULES, "vmm-slirp.so")), "built without libslirp")
class Usernet(unittest.TestCase):

    def start(self, *args):
        vmm = Vmm("-qtest", "unix:@DIR@/qtest,server=on,wait=off", *args)
        self.addCleanup(vmm.close)
        return vmm

    def hmp(self, vmm, line):
        return vmm.qmp.execute("human-monitor-command", {"command-line": line}).replace("\r\n", "\n")

    def assert_open(self, port, is_open=True):
        with socket.socket() as sock:
            self.assertEqual(sock.connect_ex(("127.0.0.1", port)) == 0, is_open)

    def threads(self, vmm):
        """Directories in /proc by the threads' names."""
        names = {}
        for task in os.listdir(f"/proc/{vmm.process.pid}/task"):
            path = f"/proc/{vmm.process.pid}/task/{task}"
            with open(os.path.join(path, "comm"), encoding="ascii") as stream:
                names[stream.read().strip()] = path
        return names

    def test_nic(self):
        """-nic takes lists too."""
        ports = [free_port(), free_port()]
        vmm = self.start("-nic", "user,model=virtio-net-pci," + ",".join(f"hostfwd=tcp:127.0.0.1:{p}-:22" for p in ports))
        for port in ports:
            self.assert_open(port)
        self.assertEqual(self.hmp(vmm, "info usernet").count("TCP[HOST_FORWARD]"), 2)

    def test_rules(self):
        """hostfwd_add and hostfwd_remove, in QEMU's words."""
        vmm = self.start("-netdev", "user,id=first", "-netdev", "user,id=u0", "-netdev", "socket,id=s0,udp=127.0.0.1:9,localaddr=127.0.0.1:0")
        port = free_port()
        rule = f"tcp:127.0.0.1:{port}"
        self.assertEqual(self.hmp(vmm, f"hostfwd_add u0 {rule}-:22"), "")
        self.assert_open(port)
        self.assertRegex(self.hmp(vmm, "info usernet"), r"Hub -1 \(first\):\n +Protocol.*\nHub -1 \(u0\):\n +Protocol[^H]*\n +TCP\[HOST_FORWARD\]")
        self.assertEqual(self.hmp(vmm, f"hostfwd_add {rule}-:22"), f"Could not set up host forwarding rule '{rule}-:22'\n")
        self.assertEqual(self.hmp(vmm, f"hostfwd_remove {rule}"), f"host forwarding rule for {rule} not found\n")
        self.assertEqual(self.hmp(vmm, f"hostfwd_remove u0 {rule}"), f"host forwarding rule for {rule} removed\n")
        self.assert_open(port, False)
        self.assertEqual(self.hmp(vmm, "hostfwd_remove u0 xx"), "invalid format\n")
        self.assertEqual(self.hmp(vmm, "hostfwd_add foo"), "Invalid host forwarding rule 'foo' (No : separators)\n")
        self.assertEqual(self.hmp(vmm, "hostfwd_add zz tcp::1-:2"), "unrecognized netdev id 'zz'\n")

    def test_none(self):
        vmm = self.start("-nic", "none")
        self.assertEqual(self.hmp(vmm, "hostfwd_add tcp::1-:2"), "user mode network stack not in use\n")
        self.assertEqual(self.hmp(vmm, "info usernet"), "")
        self.assertNotIn("slirp", self.threads(vmm))

    def test_comes_later(self):
        """The module is loaded and its thread begins when all threads are confined."""
        vmm = self.start("-nic", "none")
        for _ in range(2):
            port = free_port()
            vmm.qmp.execute("netdev_add", {"type": "user", "id": "u0", "hostfwd": [{"str": f"tcp:127.0.0.1:{port}-:22"}]})
            self.assert_open(port)
            vmmtest.poll(lambda: "slirp" in self.threads(vmm), 10, "the thread")
            vmm.qmp.execute("netdev_del", {"id": "u0"})
            self.assert_open(port, False)
            self.assertNotIn("slirp", self.threads(vmm))

    @unittest.skipUnless(os.uname().machine == "x86_64", "poll() has another number")
    def test_sleeps(self):
        """Without a connection nothing is due, and the thread sleeps for as long as a router is silent: minutes."""
        vmm = self.start("-nic", "user,model=e1000")
        vmmtest.poll(lambda: "slirp" in self.threads(vmm), 10, "the thread")

        def sleeps():
            with open(os.path.join(self.threads(vmm)["slirp"], "syscall"), encoding="ascii") as stream:
                words = stream.read().split()
            return words[0] == "7" and int(words[3], 16) > 60000  # poll(fds, n, milliseconds)

        vmmtest.poll(sleeps, 10, "a long sleep")
        self.assertEqual(self.hmp(vmm, f"hostfwd_add tcp:127.0.0.1:{free_port()}-:22"), "")  # it can be woken

    def test_refused(self):
        vmm = self.start("-nic", "none")
        for arguments, message in (
                ({"smb": "/srv"}, "smb=: a file server is a program of its own"),
                ({"hostfwd": [{"str": "x"}]}, r"Invalid host forwarding rule 'x' \(No : separators\)"),
                ({"guestfwd": [{"str": "tcp:10.0.2.9:1-cmd:cat"}]}, "vmm starts no programs"),
                ({"nonsense": "1"}, "nonsense")):
            with self.assertRaisesRegex(vmmtest.QMPError, message):
                vmm.qmp.execute("netdev_add", dict({"type": "user", "id": "u0"}, **arguments))
        self.assertNotIn("slirp", self.threads(vmm))


if __name__ == "__main__":
    vmmtest.main()
