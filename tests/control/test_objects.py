#!/usr/bin/env python3
"""-object, object-add and object-del: memory back ends, secrets, random sources; QEMU's words, and nothing left behind."""

import mmap
import os
import unittest

from harness import Vmm, run, vmmtest
from test_qmp import Schema

MIB = 1 << 20


class Objects(unittest.TestCase):
    """Objects over QMP."""

    def setUp(self):
        self.vmm = Vmm()
        self.addCleanup(self.vmm.close)
        self.qmp = self.vmm.qmp

    def add(self, qom_type, name, **properties):
        self.qmp.execute("object-add", {"qom-type": qom_type, "id": name, **{k.replace("_", "-"): v for k, v in properties.items()}})

    def refused(self, pattern, qom_type, name, **properties):
        with self.assertRaisesRegex(vmmtest.QMPError, pattern):
            self.add(qom_type, name, **properties)

    def delete(self, name):
        self.qmp.execute("object-del", {"id": name})

    def memdev(self, name):
        return next((m for m in self.qmp.command("query-memdev") if m["id"] == name), None)

    def file(self, name, content):
        with open(self.vmm.path(name), "wb") as stream:
            stream.write(content)
        return self.vmm.path(name)

    def test_types(self):
        schema = self.qmp.command("query-qmp-schema")
        entries = {e["name"]: e for e in schema}
        member = next(m for m in entries[entries["object-add"]["arg-type"]]["members"] if m["name"] == "qom-type")
        for name in ("secret", "memory-backend-ram", "memory-backend-memfd", "memory-backend-file", "rng-random", "rng-builtin"):
            self.assertIn(name, entries[member["type"]]["values"])
            self.assertIn(name, [t["name"] for t in self.qmp.command("qom-list-types", abstract=False)])
        self.assertNotIn("iothread", entries[member["type"]]["values"])
        self.assertEqual(self.qmp.command("query-iothreads"), [])
        checker = Schema(schema)
        checker.check(entries["query-memdev"]["ret-type"], self.qmp.command("query-memdev"), "query-memdev")

    def test_bad_arguments(self):
        self.refused("does not accept value 'nonesuch'", "nonesuch", "x")
        self.refused("does not accept value 'iothread'", "iothread", "x")
        self.refused("Parameter 'size' is missing", "memory-backend-ram", "x")
        self.refused("'foo'|foo", "memory-backend-ram", "x", size=MIB, foo=1)
        self.refused("size", "memory-backend-ram", "x", size="lots")
        self.refused("size", "memory-backend-ram", "x", size=-1)
        self.refused("too much|cannot", "memory-backend-ram", "x", size=1 << 62)
        self.refused("expects an identifier", "memory-backend-ram", "m 2", size=MIB)
        self.refused("numactl", "memory-backend-ram", "x", size=MIB, policy="bind")
        self.refused("host-nodes", "memory-backend-ram", "x", size=MIB, host_nodes=[0])
        self.refused("hugetlb=on", "memory-backend-memfd", "x", size=MIB, hugetlbsize=2 * MIB)
        self.refused("Parameter 'mem-path' is missing", "memory-backend-file", "x", size=MIB)
        self.refused("can't open backing store", "memory-backend-file", "x", size=MIB, mem_path="/nonexistent/x", share=True)
        self.refused("share=on", "memory-backend-file", "x", size=MIB, mem_path=self.vmm.path("named"))
        self.refused("Either 'file' or 'data' must be provided", "secret", "x")
        self.refused("mutually exclusive", "secret", "x", data="a", file="/b")
        self.refused("Unable to read /nonexistent", "secret", "x", file="/nonexistent")
        self.refused("Unable to read .*directory", "secret", "x", file=self.vmm.dir)
        self.refused("at most 64 KiB", "secret", "x", file=self.file("big", b"x" * 70000))
        self.refused("Base64 data contains invalid characters", "secret", "x", data="!!!", format="base64")
        self.refused("keyid", "secret", "x", data="a", keyid="y", iv="z")
        self.refused("Could not open", "rng-random", "x", filename="/nonexistent")
        self.assertEqual([o["name"] for o in self.qmp.execute("qom-list", {"path": "/objects"}) if o["name"] == "x"], [])
        with self.assertRaisesRegex(vmmtest.QMPError, "object 'nope' not found"):
            self.delete("nope")

    def test_memory(self):
        fds = self.vmm.fds()
        self.assertEqual(self.memdev("pc.ram")["size"], 4 * MIB)
        self.add("memory-backend-ram", "m1", size=3 * MIB, prealloc=True)
        self.refused("attempt to add duplicate property 'm1'", "memory-backend-ram", "m1", size=MIB)
        self.add("memory-backend-memfd", "m2", size="5M", **{"x-use-canonical-path-for-ramblock-id": False})
        self.add("memory-backend-file", "m3", size=5000, mem_path=self.vmm.path("store"), share=True)
        self.assertEqual({(o["name"], o["type"]) for o in self.qmp.execute("qom-list", {"path": "/objects"}) if o["name"][0] == "m"},
                         {("m1", "child<memory-backend-ram>"), ("m2", "child<memory-backend-memfd>"),
                          ("m3", "child<memory-backend-file>")})
        self.assertEqual(self.qmp.execute("qom-get", {"path": "/objects/m2", "property": "size"}), 5 * MIB)
        self.add("memory-backend-file", "m4", size=MIB, mem_path=self.vmm.dir)
        self.assertEqual((self.memdev("m1")["size"], self.memdev("m1")["prealloc"], self.memdev("m1")["share"]), (3 * MIB, True, False))
        self.assertEqual((self.memdev("m2")["size"], self.memdev("m2")["share"]), (5 * MIB, True))
        self.assertEqual(os.stat(self.vmm.path("store")).st_size, 8192)
        self.assertEqual([f for f in os.listdir(self.vmm.dir) if f.startswith("vmm-memory")], [])   # it has no name
        for name in ("m1", "m2", "m3", "m4"):
            self.delete(name)
        self.assertEqual(self.vmm.fds(), fds)

    def test_secrets_stay_secret(self):
        self.add("secret", "s", data="correct horse")
        self.assertNotIn("horse", str(self.qmp.execute("qom-get", {"path": "/objects/s", "property": "data"})))

    def test_names_are_free_again(self):
        for _ in range(100):
            self.add("rng-random", "r", filename="/dev/urandom")
            self.add("secret", "s", data="bGV0bWVpbg==", format="base64")
            self.delete("r")
            self.delete("s")


class Ram(unittest.TestCase):
    """Guest RAM in an object, as libvirt asks for it."""

    def start(self, backend, *more):
        vmm = Vmm("-machine", "pc-i440fx-7.2,usb=off,dump-guest-core=off,memory-backend=pc.ram", "-object", backend, "-qtest",
                  "unix:@DIR@/qtest,server=on,wait=off", *more)
        self.addCleanup(vmm.close)
        return vmm

    def test_libvirt(self):
        vmm = self.start('{"qom-type":"memory-backend-ram","id":"pc.ram","size":4194304}')
        self.assertEqual([m["id"] for m in vmm.qmp.command("query-memdev")], ["pc.ram"])
        with self.assertRaisesRegex(vmmtest.QMPError, "object 'pc.ram' is in use"):
            vmm.qmp.command("object-del", id="pc.ram")

    def test_the_file_is_the_ram(self):
        vmm = self.start("memory-backend-file,id=pc.ram,size=4M,mem-path=@DIR@/ram,share=on")
        vmm.qtest().ask("writel 0x200010 0x12345678")
        with open(vmm.path("ram"), "rb") as stream, mmap.mmap(stream.fileno(), 4 * MIB, prot=mmap.PROT_READ) as ram:
            self.assertEqual(ram[0x200010:0x200014], bytes.fromhex("78563412"))

    def test_refusals(self):
        for option, pattern in (("memory-backend-ram,id=other,size=4M", "Memory backend 'pc.ram' not found"),
                                ("memory-backend-ram,id=pc.ram,size=8M", "has 8388608 bytes, -m asks for 4194304"),
                                ("rng-builtin,id=pc.ram", "'pc.ram' is a rng-builtin, not a memory-backend"),
                                ("memory-backend-ram,id=pc.ram,sise=4M", "sise"),
                                ("iothread,id=pc.ram", "iothread")):
            status, text = run("-accel", "qtest", "-display", "none", "-m", "4", "-machine", "memory-backend=pc.ram", "-object", option)
            self.assertEqual(status, 1)
            self.assertRegex(text, pattern)


if __name__ == "__main__":
    vmmtest.main()
