#!/usr/bin/env python3
"""The object tree and CPU models over QMP: what libvirt reads when it probes a binary and when a guest starts."""

import os
import unittest

from harness import Vmm, vmmtest
from test_qmp import Schema


class Tree(unittest.TestCase):
    """Paths, properties and types."""

    def setUp(self):
        self.vmm = Vmm("-device", "VGA,id=video0,vgamem_mb=8,addr=0x5", "-device", "isa-serial", "-smp", "2")
        self.addCleanup(self.vmm.close)
        self.qmp = self.vmm.qmp

    def names(self, path):
        """What is below a path: name -> type."""
        return {entry["name"]: entry["type"] for entry in self.qmp.command("qom-list", path=path)}

    def get(self, path, name):
        return self.qmp.command("qom-get", path=path, property=name)

    def refused(self, pattern, command, **arguments):
        with self.assertRaisesRegex(vmmtest.QMPError, pattern) as caught:
            self.qmp.command(command, **arguments)
        return caught.exception.error_class

    def test_folders(self):
        self.assertEqual(self.names("/")["machine"], "child<pc-i440fx-7.2-machine>")
        self.assertEqual(self.names("/machine/peripheral"), {"type": "string", "video0": "child<VGA>"})
        self.assertEqual(self.names("/machine/peripheral-anon"), {"type": "string", "isa-serial": "child<isa-serial>"})
        board = self.names("/machine/unattached")
        self.assertIn("child<PIIX3>", board.values())
        self.assertNotIn("child<VGA>", board.values())
        self.assertIn("compat_monitor0", self.names("/chardevs"))
        self.assertEqual(self.get("/machine/rtc", "type"), "mc146818rtc")

    def test_every_listed_object_and_property_can_be_read(self):
        paths, seen = ["/"], 0
        while paths:
            path = paths.pop()
            for name, kind in self.names(path).items():
                try:
                    value = self.get(path, name)
                except vmmtest.QMPError as error:
                    self.assertIn("cannot be read", error.desc)
                    continue
                seen += 1
                if kind.startswith("child<"):
                    paths.append(value)
                elif kind == "bool":
                    self.assertIsInstance(value, bool, f"{path}.{name}")
                elif kind in ("int", "uint8", "uint16", "uint32", "int32", "uint64", "size"):
                    self.assertIsInstance(value, int, f"{path}.{name}")
        self.assertGreater(seen, 100)

    def test_device(self):
        path = "/machine/peripheral/video0"
        self.assertEqual(self.get(path, "vgamem_mb"), 8)
        self.assertEqual(self.get(path, "addr"), 5 << 3)
        self.assertEqual(self.get("video0", "type"), "VGA")
        self.assertTrue(self.get(path, "realized"))

    def test_vcpus(self):
        for cpu in self.qmp.command("query-cpus-fast"):
            self.assertEqual(self.get(cpu["qom-path"], "type"), "qemu64-x86_64-cpu")
            self.assertEqual(self.get(cpu["qom-path"], "socket-id"), cpu["props"]["socket-id"])

    def test_mistakes(self):
        self.assertEqual(self.refused("Device '/machine/nowhere' not found", "qom-list", path="/machine/nowhere"),
                         "DeviceNotFound")
        self.refused("Property 'VGA.colour' not found", "qom-get", path="video0", property="colour")
        self.refused("after it was realized", "qom-set", path="video0", property="vgamem_mb", value=4)
        self.refused("is read-only", "qom-set", path="video0", property="realized", value=False)
        self.refused("not found", "qom-set", path="/machine", property="colour", value=1)
        self.refused("can be set to 0 only", "qom-set", path="/machine/rtc", property="lost-ticks", value=7)
        self.qmp.command("rtc-reset-reinjection")
        self.assertEqual(self.get("/machine/rtc", "lost-ticks"), 0)

    def test_types(self):
        types = {t["name"]: t for t in self.qmp.command("qom-list-types", abstract=True)}
        for name in types:
            self.assertEqual(self.qmp.command("qom-list-properties", typename=name)[0]["name"], "type", name)
        devices = [t["name"] for t in self.qmp.command("qom-list-types", implements="device")]
        for name in devices:
            if name.endswith("-x86_64-cpu"):
                continue
            # what a device type lists is what its instances have
            listed = {p["name"] for p in self.qmp.command("device-list-properties", typename=name)}
            self.assertLessEqual(listed, {p["name"] for p in self.qmp.command("qom-list-properties", typename=name)})
        # libvirt ends with a NULL list if these are errors
        for name in ("memory-backend-file", "memory-backend-memfd", "none-machine"):
            self.assertIsInstance(self.qmp.command("qom-list-properties", typename=name), list)
        cpu = {p["name"] for p in self.qmp.command("qom-list-properties", typename="max-x86_64-cpu")}
        self.assertLessEqual({"unavailable-features", "migratable", "sse4.1", "aes"}, cpu)
        self.assertEqual(self.refused("not found", "qom-list-properties", typename="nothing"), "DeviceNotFound")

    def test_pci(self):
        schema = Schema(self.qmp.command("query-qmp-schema"))
        bus, = self.qmp.command("query-pci")
        schema.check(schema.entries["query-pci"]["ret-type"], [bus], "query-pci")
        functions = {(d["slot"], d["function"]): d for d in bus["devices"]}
        self.assertEqual(functions[(0, 0)]["class_info"], {"class": 0x600, "desc": "Host bridge"})
        self.assertEqual(functions[(1, 1)]["id"]["device"], 0x7010)
        video = functions[(5, 0)]
        self.assertEqual(video["qdev_id"], "video0")
        bars = {r["bar"]: r for r in video["regions"]}
        self.assertEqual((bars[0]["size"], bars[0]["type"], bars[0]["prefetch"]), (8 << 20, "memory", True))
        self.assertEqual(bars[0]["address"], -1, "nobody has programmed it")
        self.assertEqual([r["type"] for r in functions[(1, 1)]["regions"]], ["io"])

    def test_empty_lists(self):
        self.assertEqual(self.qmp.command("query-iothreads"), [])
        self.assertEqual(self.qmp.command("query-memory-devices"), [])
        self.assertEqual(self.qmp.command("query-current-machine"), {"wakeup-suspend-support": True})

    def test_models_without_kvm(self):
        models = {m["name"]: m for m in self.qmp.command("query-cpu-definitions")}
        self.assertEqual(models["Nehalem-IBRS"]["alias-of"], "Nehalem-v2")
        self.assertTrue(models["base"]["static"])
        self.assertFalse(models["host"]["migration-safe"])
        self.assertNotIn("unavailable-features", models["qemu64"])
        self.refused("without it", "query-cpu-model-expansion", type="static", model={"name": "host"})


@unittest.skipUnless(os.access("/dev/kvm", os.R_OK | os.W_OK), "needs KVM")
class Models(unittest.TestCase):
    """CPU models against this host's KVM; no guest runs."""

    def setUp(self):
        self.vmm = Vmm("-accel", "kvm", "-machine", "none", "-S")
        self.addCleanup(self.vmm.close)
        self.qmp = self.vmm.qmp

    def expand(self, kind, name, **props):
        return self.qmp.command("query-cpu-model-expansion", type=kind, model={"name": name, "props": props})["model"]

    def test_definitions(self):
        models = {m["name"]: m for m in self.qmp.command("query-cpu-definitions")}
        self.assertEqual(models["host"]["unavailable-features"], [])
        for name in ("qemu64", "Skylake-Server", "EPYC-Milan"):
            missing = set(models[name]["unavailable-features"])
            has = {k for k, v in self.expand("full", name)["props"].items() if v is True}
            self.assertFalse(missing & has, "what the host lacks no guest gets")

    def test_expansion(self):
        static = self.expand("static", "host")
        self.assertEqual(static["name"], "base")
        self.assertTrue(static["props"]["fpu"])
        # the static form means the same CPU as the name it came from
        again = self.expand("static", "base", **{k: v for k, v in static["props"].items()})
        self.assertEqual(again["props"], static["props"])
        full = self.expand("full", "qemu64", **{"model-id": "mine", "x2apic": False})
        self.assertEqual((full["name"], full["props"]["model-id"], full["props"]["x2apic"]), ("qemu64", "mine", False))

    def test_mistakes(self):
        for pattern, model in (("no such CPU model", {"name": "Z80"}), ("no feature", {"name": "host", "props": {"warp": True}}),
                               ("expected: object", {"name": "host", "props": [1]}), ("not known", {"name": "host,aes=on"}),
                               ("model.props.aes", {"name": "host", "props": {"aes": None}})):
            with self.assertRaisesRegex(vmmtest.QMPError, pattern):
                self.qmp.command("query-cpu-model-expansion", type="full", model=model)


if __name__ == "__main__":
    vmmtest.main()
