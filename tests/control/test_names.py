#!/usr/bin/env python3
"""Names of hosts, looked up in the sandbox: in /etc/hosts and by DNS, whatever else the host's /etc/nsswitch.conf lists.

Runs again in network and mount namespaces of its own, with a name server in them and a name service that does what no filter lets it;
needs root for that.
"""

import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

from harness import Vmm, vmmtest

ALONE = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", r'''
set -e
ip link set lo up
printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' >"$1/resolv.conf"
printf 'hosts: vmmtest files dns\n' >"$1/nsswitch.conf"
printf '127.0.0.1 localhost listed.example\n' >"$1/hosts"
for f in resolv.conf nsswitch.conf hosts; do mount --bind "$1/$f" "/etc/$f"; done
shift
VMM_TEST_NAMES=1 exec "$@"''', "sh"]

# Any call will do that no thread of vmm may make.
SERVICE = r'''
#define _GNU_SOURCE
#include <nss.h>
#include <sys/syscall.h>
#include <unistd.h>

enum nss_status _nss_vmmtest_gethostbyname4_r(void) { syscall(SYS_personality, -1l); return NSS_STATUS_NOTFOUND; }
enum nss_status _nss_vmmtest_gethostbyname3_r(void) { syscall(SYS_personality, -1l); return NSS_STATUS_NOTFOUND; }
enum nss_status _nss_vmmtest_gethostbyname2_r(void) { syscall(SYS_personality, -1l); return NSS_STATUS_NOTFOUND; }
'''


class NameServer:
    """Knows the address of there.example, and that nowhere.example does not exist."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        self.asked = set()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            query, client = self.socket.recvfrom(512)
            end = query.index(0, 12)
            name, at = [], 12
            while at < end:
                name.append(query[at + 1:at + 1 + query[at]].decode())
                at += 1 + query[at]
            kind, = struct.unpack_from(">H", query, end + 1)
            self.asked.add(".".join(name))
            known, address = name == ["there", "example"], kind == 1
            answer = query[:2] + struct.pack(">HHHHH", 0x8180 | (0 if known else 3), 1, int(known and address), 0, 0) + query[12:end + 5]
            if known and address:
                answer += b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton("127.0.0.1")
            self.socket.sendto(answer, client)


@unittest.skipUnless(os.environ.get("VMM_TEST_NAMES"), "needs root, and namespaces")
class Names(unittest.TestCase):
    """A guest whose sandbox is closed."""

    @classmethod
    def setUpClass(cls):
        cls.server = NameServer()

    def setUp(self):
        self.vmm = Vmm("-sandbox", "on")
        self.addCleanup(self.vmm.close)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.port = str(self.listener.getsockname()[1])

    def add(self, host):
        self.vmm.qmp.command("chardev-add", id=host.replace(".", "-"), backend={"type": "socket", "data": {
            "addr": {"type": "inet", "data": {"host": host, "port": self.port}}, "server": False}})

    def test_character_devices(self):
        for host in ("localhost", "listed.example", "there.example"):
            with self.subTest(host):
                self.add(host)
                self.listener.settimeout(20)
                self.listener.accept()[0].close()
        with self.assertRaisesRegex(vmmtest.QMPError, "cannot resolve nowhere.example"):
            self.add("nowhere.example")
        self.assertEqual(self.server.asked & {"listed.example", "there.example", "nowhere.example"}, {"there.example", "nowhere.example"})

    def test_networks(self):
        self.vmm.qmp.command("netdev_add", type="stream", id="n", addr={"type": "inet", "host": "there.example", "port": self.port})
        self.listener.settimeout(20)
        self.listener.accept()[0].close()
        with self.assertRaisesRegex(vmmtest.QMPError, "cannot resolve nowhere.example"):
            self.vmm.qmp.command("netdev_add", type="stream", id="m", addr={"type": "inet", "host": "nowhere.example", "port": self.port})

    def test_migration(self):
        """The guest stays where the other host has no address."""
        self.vmm.qmp.command("migrate", uri=f"tcp:nowhere.example:{self.port}")
        vmmtest.poll(lambda: self.vmm.qmp.command("query-migrate")["status"] == "failed", 20, "the migration to fail")
        self.assertIn("nowhere.example", self.vmm.qmp.command("query-migrate")["error-desc"])
        self.assertTrue(self.vmm.qmp.command("query-status")["running"])
        self.vmm.qmp.command("migrate", uri=f"tcp:there.example:{self.port}")
        self.listener.settimeout(20)
        self.listener.accept()[0].close()


def alone():
    """Run again in namespaces; returns where that cannot be."""
    if os.environ.get("VMM_TEST_NAMES") or os.geteuid() != 0:
        return
    with tempfile.TemporaryDirectory(prefix="vmm-names-") as folder:
        subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", f"{folder}/libnss_vmmtest.so.2"], input=SERVICE, text=True,
                       check=True)
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join([folder, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
        if subprocess.run([*ALONE, folder, "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            sys.exit(subprocess.run([*ALONE, folder, sys.executable, os.path.abspath(__file__)], check=False).returncode)


if __name__ == "__main__":
    alone()
    vmmtest.main()
