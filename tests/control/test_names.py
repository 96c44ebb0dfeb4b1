#!/usr/bin/env python3
"""Names of hosts, looked up in the sandbox: in /etc/hosts and by DNS, whatever else the host's /etc/nsswitch.conf lists.

Runs again in network and mount namespaces of its own, with a name server in them and a name service that does what no filter lets it;
needs root for that.
"""

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import unittest

from harness import Vmm, vmmtest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "migration"))
import mig  # noqa: E402

ALONE = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", r'''
set -e
ip link set lo up
printf 'nameserver 127.0.0.1\noptions timeout:30 attempts:1\n' >"$1/resolv.conf"
printf 'hosts: vmmtest files dns\n' >"$1/nsswitch.conf"
printf '127.0.0.1 localhost listed.example\n' >"$1/hosts"
for f in resolv.conf nsswitch.conf hosts; do mount --bind "$1/$f" "/etc/$f"; done
shift
VMM_TEST_NAMES=1 exec "$@"''', "sh"]

SANDBOX = "off" if os.environ.get("VMM_TEST_SANITIZED") else "on"     # harness.py says why

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
    """Knows the address of there.example, and that nowhere.example does not exist. Of slow*.example it says nothing before it is told to
    tell()."""

    SERVER_FAILURE = 2
    NO_SUCH_NAME = 3
    one = None

    @classmethod
    def the_one(cls):
        cls.one = cls.one or cls()
        return cls.one

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        self.asked = set()
        self.lock = threading.Lock()
        self.answers = {"there.example": 0, "nowhere.example": self.NO_SUCH_NAME}
        self.unanswered = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            query, client = self.socket.recvfrom(512)
            end = query.index(0, 12)
            name, at = [], 12
            while at < end:
                name.append(query[at + 1:at + 1 + query[at]].decode())
                at += 1 + query[at]
            name = ".".join(name)
            with self.lock:
                self.asked.add(name)
                if name.startswith("slow") and name not in self.answers:
                    self.unanswered.append((name, query, client))
                else:
                    self.answer(name, query, client)

    def answer(self, name, query, client):
        end = query.index(0, 12)
        kind, = struct.unpack_from(">H", query, end + 1)
        code = self.answers.get(name, self.NO_SUCH_NAME)
        address = code == 0 and kind == 1
        answer = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, int(address), 0, 0) + query[12:end + 5]
        if address:
            answer += b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton("127.0.0.1")
        self.socket.sendto(answer, client)

    def waiting(self, name):
        """How many wait for its answer; each has a socket of its own."""
        with self.lock:
            return len({q[2] for q in self.unanswered if q[0] == name})

    def tell(self, name, code=0):
        with self.lock:
            self.answers[name] = code
            for query in [q for q in self.unanswered if q[0] == name]:
                self.answer(*query)
            self.unanswered = [q for q in self.unanswered if q[0] != name]


@unittest.skipUnless(os.environ.get("VMM_TEST_NAMES"), "needs root, and namespaces")
class Names(unittest.TestCase):
    """A guest whose sandbox is closed."""

    @classmethod
    def setUpClass(cls):
        cls.server = NameServer.the_one()

    def setUp(self):
        self.vmm = Vmm("-sandbox", SANDBOX)
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


@unittest.skipUnless(os.environ.get("VMM_TEST_NAMES"), "needs root, and namespaces")
class Silence(unittest.TestCase):
    """A name server that says nothing for a long time: whoever needs it waits, and nobody else."""

    count = 0

    @classmethod
    def setUpClass(cls):
        cls.server = NameServer.the_one()

    def setUp(self):
        self.vmm = Vmm("-sandbox", SANDBOX, "-S", "-chardev", "null,id=line", "-serial", "chardev:line", "-qtest",
                       "unix:@DIR@/qtest,server=on,wait=off")
        self.addCleanup(self.vmm.close)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.listener.settimeout(20)
        self.port = str(self.listener.getsockname()[1])
        Silence.count += 1
        self.name = f"slow{self.count}.example"

    def start(self, command, **arguments):
        """Send it from a client of its own."""
        client = self.vmm.client()
        client.send_raw(json.dumps({"execute": command, "arguments": arguments}).encode())
        return client

    def backend(self, name=None, **options):
        return {"type": "socket", "data": {
            "addr": {"type": "inet", "data": {"host": name or self.name, "port": self.port}}, "server": False, **options}}

    def waits(self, client, name=None, lookups=1):
        """The name server was asked on its behalf, and others are answered meanwhile."""
        vmmtest.poll(lambda: self.server.waiting(name or self.name) == lookups, 20, f"the name server to be asked {lookups} times")
        for _ in range(3):
            self.assertEqual(self.vmm.qmp.command("query-name"), {})
        self.assertFalse(client.replies)

    def chardevs(self):
        return {c["label"] for c in self.vmm.qmp.command("query-chardev")}

    def commands(self):
        """(command, arguments), each with names of its own: slowN.example, and slowN-also.example where it has two."""
        inet = {"type": "inet", "port": self.port}
        yield "chardev-add", lambda name: {"id": "c", "backend": self.backend(name)}
        yield "chardev-add", lambda name: {"id": "r", "backend": self.backend(name, reconnect=1)}
        yield "chardev-add", lambda name: {"id": "s", "backend": {"type": "socket", "data": {
            "addr": {"type": "inet", "data": {"host": name, "port": "0"}}}}}
        yield "chardev-change", lambda name: {"id": "line", "backend": self.backend(name)}
        yield "netdev_add", lambda name: {"type": "stream", "id": "st", "addr": {**inet, "host": name}}
        yield "netdev_add", lambda name: {"type": "stream", "id": "sv", "server": True, "addr": {"type": "inet", "host": name, "port": "0"}}
        yield "netdev_add", lambda name: {"type": "socket", "id": "so", "connect": f"{name}:{self.port}"}
        yield "netdev_add", lambda name: {"type": "dgram", "id": "dg", "remote": {**inet, "host": name},
                                          "local": {"type": "inet", "host": name.replace(".", "-also."), "port": "0"}}
        yield "human-monitor-command", lambda name: {"command-line": f"chardev-add socket,id=h,host={name},port={self.port}"}
        yield "human-monitor-command", lambda name: {"command-line": f"netdev_add socket,id=hn,connect={name}:{self.port}"}
        yield "migrate-incoming", lambda name: {"uri": f"tcp:{name}:0"}

    def test_commands(self):
        """Each of them waits alone, and is carried out when the name server speaks."""
        for number, (command, arguments) in enumerate(self.commands()):
            name = f"slow{self.count}x{number}.example"
            arguments = arguments(name)
            with self.subTest(command, **arguments):
                client = self.start(command, **arguments)
                self.waits(client, name)
                self.server.tell(name)
                if "also" in json.dumps(arguments):
                    name = name.replace(".", "-also.")
                    self.waits(client, name)
                    self.server.tell(name)
                self.assertEqual(client.receive(), {"return": "" if command == "human-monitor-command" else {}})
        self.assertLessEqual({"c", "r", "s", "h", "line"}, self.chardevs())
        network = self.vmm.qmp.command("human-monitor-command", command_line="info network")
        for one in ("st", "sv", "so", "dg", "hn"):
            self.assertIn(f"{one}:", network)
        self.assertEqual(self.vmm.qmp.command("query-migrate")["status"], "setup")

    def test_failure(self):
        """Who asked is told of which host, and why; nothing is left of what was to be."""
        client = self.start("chardev-add", id="c", backend=self.backend())
        self.waits(client)
        self.server.tell(self.name, NameServer.SERVER_FAILURE)
        self.assertEqual(client.receive()["error"], {"class": "GenericError", "desc":
                         f"-chardev socket,id=c: cannot resolve {self.name}:{self.port}: Temporary failure in name resolution"})
        self.assertEqual(self.chardevs() & {"c"}, set())
        client = self.start("migrate-incoming", uri=f"tcp:slow-in{self.count}.example:0")
        self.waits(client, f"slow-in{self.count}.example")
        self.server.tell(f"slow-in{self.count}.example", NameServer.NO_SUCH_NAME)
        self.assertIn(f"tcp:slow-in{self.count}.example:0: ", client.receive()["error"]["desc"])
        self.vmm.qmp.command("migrate-incoming", uri="tcp:127.0.0.1:0")

    def test_meanwhile(self):
        """What has changed by the time of the answer: the command is judged by what is there then."""
        self.vmm.qmp.command("chardev-add", id="gone", backend={"type": "null", "data": {}})
        clients = [self.start("chardev-change", id="gone", backend=self.backend()),
                   self.start("chardev-add", id="taken", backend=self.backend()),
                   self.start("netdev_add", type="socket", id="taken", connect=f"{self.name}:{self.port}")]
        for client in clients:
            self.waits(client, lookups=len(clients))
        with self.assertRaisesRegex(vmmtest.QMPError, "not found"):
            self.vmm.qmp.command("chardev-remove", id="taken")
        with self.assertRaisesRegex(vmmtest.QMPError, "not found"):
            self.vmm.qmp.command("netdev_del", id="taken")
        self.vmm.qmp.command("chardev-remove", id="gone")
        self.vmm.qmp.command("chardev-add", id="taken", backend={"type": "null", "data": {}})
        self.vmm.qmp.command("netdev_add", type="socket", id="taken", listen="127.0.0.1:0")
        self.server.tell(self.name)
        for client, why in zip(clients, ("does not exist", "already", "Duplicate ID"), strict=True):
            self.assertRegex(client.receive()["error"]["desc"], why)

    def test_order(self):
        """A client's own commands wait behind it."""
        client = self.start("chardev-add", id="c", backend=self.backend())
        client.send_raw(b'{"execute": "query-chardev"}')
        self.waits(client)
        self.server.tell(self.name)
        self.assertEqual(client.receive(), {"return": {}})
        self.assertIn("c", {c["label"] for c in client.receive()["return"]})

    def test_client_that_leaves(self):
        """Its command is carried out all the same, as any other that it sent."""
        client = self.start("chardev-add", id="c", backend=self.backend())
        self.waits(client)
        before = self.vmm.fds()
        client.close()
        vmmtest.poll(lambda: self.vmm.fds() < before, 20, "the client to be gone")
        self.server.tell(self.name)
        self.listener.accept()[0].close()
        vmmtest.poll(lambda: "c" in self.chardevs(), 20, "the device")

    def test_reconnection(self):
        """The name server is not needed for it."""
        client = self.start("chardev-add", id="c", backend=self.backend(reconnect=1))
        self.waits(client)
        self.server.tell(self.name)
        self.assertEqual(client.receive(), {"return": {}})
        with self.server.lock:
            self.server.answers.pop(self.name)
            self.server.asked.clear()
        self.listener.accept()[0].close()
        vmmtest.poll(lambda: "disconnected:" in str(self.vmm.qmp.command("query-chardev")), 20, "the end of the connection")
        self.vmm.qtest().ask("clock_step 1000000000")
        self.listener.accept()[0].close()
        self.assertEqual(self.server.asked, set())

    def test_migration(self):
        """Neither its end nor the guest's waits for the other host's name."""
        def state():
            return self.vmm.qmp.command("query-migrate")["status"]

        for lookups in (1, 2):
            self.vmm.qmp.command("migrate", uri=f"tcp:{self.name}:{self.port}")
            vmmtest.poll(lambda lookups=lookups: self.server.waiting(self.name) == lookups, 20, "the name server to be asked")
            self.assertEqual(state(), "setup")
            if lookups == 1:
                self.vmm.qmp.command("migrate_cancel")
                vmmtest.poll(lambda: state() == "cancelled", 20, "the migration to be cancelled")
        self.vmm.qmp.command("quit")
        status = self.vmm.wait_exit()
        if not os.environ.get("VMM_TEST_SANITIZED"):      # which calls what the migration's thread had to say to nobody a leak
            self.assertEqual(status, 0)

    def test_end(self):
        """vmm does not wait for it either; who does is told."""
        clients = [self.start("chardev-add", id="c", backend=self.backend()), self.start("migrate-incoming", uri=f"tcp:{self.name}:0"),
                   self.start("human-monitor-command", **{"command-line": f"chardev-add socket,id=d,host={self.name},port={self.port}"})]
        for client in clients:
            self.waits(client, lookups=len(clients))
        self.vmm.qmp.command("quit")
        for client in clients[:2]:
            self.assertIn("was given up: vmm ends", client.receive()["error"]["desc"])
        self.assertIn("given up, vmm ends", clients[2].receive()["return"])
        self.assertEqual(self.vmm.wait_exit(), 0)


@unittest.skipUnless(os.environ.get("VMM_TEST_NAMES"), "needs root, and namespaces")
class Recovery(vmmtest.TestCase):
    """migrate-recover with a name, and a name server that says nothing for a long time. Needs KVM."""

    count = 0

    def setUp(self):
        self.server = NameServer.the_one()
        Recovery.count += 1
        self.name = f"slow-recovery{self.count}.example"

    @contextlib.contextmanager
    def broken(self):
        """A post-copy whose connection broke: source and destination; the guest runs there, without most of its memory."""
        with mig.Dirtier("-sandbox", SANDBOX, quiet=1) as a, mig.twin(a, "-sandbox", SANDBOX) as b, mig.Proxy(b.address()) as p:
            a.running()
            for guest in (a, b):
                guest.caps(postcopy_ram=True)
            a.params(max_bandwidth=8 << 20, max_postcopy_bandwidth=1 << 20)
            a.qmp.command("migrate", uri=p.uri)
            vmmtest.poll(lambda: a.info().get("status") == "active" and a.info()["ram"]["transferred"] > 1 << 20, 30, "some memory to move")
            a.qmp.command("migrate-start-postcopy")
            a.migration("postcopy-active")
            p.cut()
            for guest in (a, b):
                guest.migration("postcopy-paused")
            yield a, b

    def recover(self, guest, name):
        """A client of its own that waits for the name; others are answered meanwhile."""
        client = guest.connect_qmp()
        self.addCleanup(client.close)
        client.send_raw(json.dumps({"execute": "migrate-recover", "arguments": {"uri": f"tcp:{name}:0"}}).encode())
        vmmtest.poll(lambda: self.server.waiting(name) == 1, 20, "the name server to be asked")
        for _ in range(3):
            self.assertEqual(guest.status(), "running")
            self.assertEqual(guest.info()["status"], "postcopy-paused")
        self.assertFalse(client.replies)
        return client

    def resume(self, a, b, uri):
        """The source comes back, and the guest has all its memory."""
        a.params(max_postcopy_bandwidth=0)
        a.qmp.execute("migrate", {"uri": uri, "resume": True})
        self.assertEqual(a.migration("completed", "postcopy-paused")["status"], "completed", a.info())
        b.migration("completed")
        b.alive()

    def test_new_address(self):
        """It is listened on when the name server speaks."""
        with self.broken() as (a, b):
            old = b.address()
            client = self.recover(b, self.name)
            self.server.tell(self.name)
            self.assertEqual(client.receive(), {"return": {}})
            self.assertNotEqual(b.address(), old)
            self.resume(a, b, b.address())

    def test_old_address(self):
        """It is good until there is a new one: when the name is nobody's, and while nobody knows; the command comes too late then."""
        with self.broken() as (a, b):
            client = self.recover(b, self.name)
            self.server.tell(self.name, NameServer.NO_SUCH_NAME)
            self.assertIn(f"tcp:{self.name}:0: ", client.receive()["error"]["desc"])
            client = self.recover(b, self.name.replace(".", "-again."))
            self.resume(a, b, b.address())
            self.server.tell(self.name.replace(".", "-again."))
            self.assertIn("when postcopy is paused", client.receive()["error"]["desc"])

    def test_end(self):
        """Neither end waits for it, and who does is told."""
        with self.broken() as (a, b):
            client = self.recover(b, self.name)
            b.qmp.command("quit")
            self.assertIn("was given up: vmm ends", client.receive()["error"]["desc"])
            b.wait_exit(10)
            name = self.name.replace(".", "-source.")
            a.qmp.execute("migrate", {"uri": f"tcp:{name}:1", "resume": True})
            vmmtest.poll(lambda: self.server.waiting(name) == 1, 20, "the name server to be asked")
            self.assertEqual(a.status(), "finish-migrate")
            a.qmp.command("quit")
            a.wait_exit(10)


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
