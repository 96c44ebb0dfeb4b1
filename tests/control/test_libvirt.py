#!/usr/bin/env python3
"""What libvirt 9.0 says to an emulator, in its order: probe, start of a domain, life cycle, screenshot, dump, CD-ROM change.

Recorded between libvirtd and QEMU 7.2; the checks are what libvirt needs of the answers (without it a probe or start fails).
"""

import array
import json
import os
import signal
import socket
import subprocess
import tempfile
import unittest

from harness import Vmm, vmmtest

KVM = os.access("/dev/kvm", os.R_OK | os.W_OK)
SANDBOX = "off," if os.environ.get("VMM_TEST_SANITIZED") else "on,"


def names(entries):
    return [entry["name"] for entry in entries]


@unittest.skipUnless(KVM, "needs KVM")
class Probe(unittest.TestCase):
    """The daemon that libvirt starts once per binary to learn what it can do."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="vmm-probe-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        monitor, self.pidfile = self.folder + "/qmp.monitor", self.folder + "/qmp.pid"
        done = subprocess.run([vmmtest.VMM, "-S", "-no-user-config", "-nodefaults", "-nographic", "-machine",
                               "none,accel=kvm:tcg", "-qmp", f"unix:{monitor},server=on,wait=off", "-pidfile", self.pidfile,
                               "-daemonize"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        with open(self.pidfile, encoding="ascii") as pidfile:  # both are there when the parent exits
            self.pid = int(pidfile.read())
        self.addCleanup(self.end)
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(monitor)
        self.qmp = vmmtest.QMP(sock)
        self.addCleanup(self.qmp.close)

    def end(self):
        os.kill(self.pid, signal.SIGTERM)
        vmmtest.poll(lambda: not os.path.exists(f"/proc/{self.pid}") or
                     open(f"/proc/{self.pid}/stat", encoding="ascii").read().split()[2] == "Z", 20, "its end")

    def test_probe(self):
        ask = self.qmp.command
        version = ask("query-version")
        self.assertGreaterEqual((version["qemu"]["major"], version["qemu"]["minor"]), (4, 2))
        self.assertIsInstance(version["package"], str)
        self.assertEqual(ask("query-target"), {"arch": "x86_64"})
        schema = ask("query-qmp-schema")
        commands = names(ask("query-commands"))
        self.assertLess(len(json.dumps(schema)), 10 << 20)
        self.assertEqual(ask("query-kvm"), {"enabled": True, "present": True})
        types = names(ask("qom-list-types"))
        self.assertLessEqual({"isa-serial", "VGA", "ide-hd", "ide-cd", "max-x86_64-cpu"}, set(types))
        self.assertFalse({"tcg-accel", "sev-guest", "sgx-epc", "intel-iommu", "cirrus-vga"} & set(types), "not real")
        for name in ("virtio-blk-pci", "virtio-net-pci", "virtio-scsi-pci", "virtio-net-ccw", "vfio-pci", "scsi-hd", "ide-hd",
                     "PIIX4_PM", "usb-redir", "usb-storage", "kvm-pit", "VGA", "vmware-svga", "qxl", "virtio-gpu-pci",
                     "ICH9-LPC", "virtio-balloon-pci", "intel-iommu", "mch", "nvdimm", "pcie-root-port", "usb-host"):
            try:
                self.assertIsInstance(ask("device-list-properties", typename=name), list)
            except vmmtest.QMPError as error:
                self.assertEqual(error.error_class, "DeviceNotFound")
        for name in ("memory-backend-file", "memory-backend-memfd", "max-x86_64-cpu", "none-machine"):
            properties = ask("qom-list-properties", typename=name)
            self.assertIsInstance(properties, list)
            if name == "max-x86_64-cpu":
                self.assertLessEqual({"unavailable-features", "migratable"}, set(names(properties)))
        machines = {m["name"]: m for m in ask("query-machines")}
        self.assertEqual(machines["pc-i440fx-7.2"]["alias"], "pc")
        self.assertTrue(machines["pc-i440fx-7.2"]["is-default"])
        models = {m["name"]: m for m in ask("query-cpu-definitions")}
        self.assertEqual(models["max"]["unavailable-features"], [])
        for name in ("query-tpm-models", "query-tpm-types"):
            self.assertEqual(ask(name), [])
        options = {o["option"]: o for o in ask("query-command-line-options")}
        self.assertLessEqual({"machine", "chardev", "drive"}, set(options))
        capabilities = {c["capability"] for c in ask("query-migrate-capabilities")}
        self.assertLessEqual({"events", "pause-before-switchover", "late-block-activate", "return-path"}, capabilities)
        host = ask("query-cpu-model-expansion", type="static", model={"name": "host"})["model"]
        self.assertTrue(host["props"]["fpu"])
        ask("query-cpu-model-expansion", type="static", model={"name": "host", "props": {"migratable": False}})
        with self.assertRaises(vmmtest.QMPError) as caught:  # libvirt takes this as "no Hyper-V here"
            ask("query-cpu-model-expansion", type="full", model={"name": "host", "props": {"hv-passthrough": True}})
        self.assertEqual(caught.exception.error_class, "GenericError")
        # libvirt asks these only if they are listed, and then they must work
        for name in ("query-sev-capabilities", "query-sgx-capabilities"):
            self.assertNotIn(name, commands)


class Domain(unittest.TestCase):
    """A domain with a disk, a CD-ROM drive, a serial port and a screen, over an inherited listening socket."""

    def setUp(self):
        self.listener = socket.socket(socket.AF_UNIX)
        folder = tempfile.TemporaryDirectory(prefix="vmm-domain-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.images = {name: os.path.join(self.folder, name) for name in ("d1.raw", "cd1.iso", "cd2.iso")}
        for name, path in self.images.items():
            with open(path, "wb") as image:
                image.write(name.encode().ljust(2048, b"\0") * 175)
        with open(self.folder + "/key", "wb") as key:
            key.write(bytes(32))
        self.monitor = self.folder + "/monitor.sock"
        self.listener.bind(self.monitor)
        self.listener.listen(1)
        fd = self.listener.fileno()
        self.vmm = Vmm(
            "-name", "guest=d1,debug-threads=on", "-S",
            "-object", json.dumps({"qom-type": "secret", "id": "masterKey0", "format": "raw", "file": self.folder + "/key"}),
            "-machine", "pc-i440fx-7.2,usb=off,dump-guest-core=off", "-accel", "kvm" if KVM else "qtest", "-cpu", "qemu64",
            "-m", "32", "-overcommit", "mem-lock=off", "-smp", "1,sockets=1,cores=1,threads=1",
            "-uuid", "aaaaaaaa-0000-0000-0000-000000000001", "-no-user-config", "-nodefaults",
            "-chardev", f"socket,id=charmonitor,fd={fd},server=on,wait=off",
            "-mon", "chardev=charmonitor,id=monitor,mode=control", "-rtc", "base=utc", "-no-shutdown", "-boot", "strict=on",
            "-blockdev", json.dumps({"driver": "file", "filename": self.images["d1.raw"], "node-name": "libvirt-2-storage",
                                     "auto-read-only": True, "discard": "unmap"}),
            "-blockdev", json.dumps({"node-name": "libvirt-2-format", "read-only": False, "driver": "raw",
                                     "file": "libvirt-2-storage"}),
            "-device", json.dumps({"driver": "ide-hd", "bus": "ide.0", "unit": 0, "drive": "libvirt-2-format",
                                   "id": "ide0-0-0", "bootindex": 1}),
            "-blockdev", json.dumps({"driver": "file", "filename": self.images["cd1.iso"], "node-name": "libvirt-1-storage",
                                     "auto-read-only": True, "discard": "unmap"}),
            "-blockdev", json.dumps({"node-name": "libvirt-1-format", "read-only": True, "driver": "raw",
                                     "file": "libvirt-1-storage"}),
            "-device", json.dumps({"driver": "ide-cd", "bus": "ide.1", "unit": 0, "drive": "libvirt-1-format",
                                   "id": "ide0-1-0"}),
            "-chardev", "pty,id=charserial0",
            "-device", json.dumps({"driver": "isa-serial", "chardev": "charserial0", "id": "serial0", "index": 0}),
            "-audiodev", json.dumps({"id": "audio1", "driver": "none"}),
            "-device", json.dumps({"driver": "VGA", "id": "video0", "vgamem_mb": 16, "bus": "pci.0", "addr": "0x2"}),
            "-sandbox", SANDBOX + "obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", "-msg", "timestamp=on",
            qmp=False, pass_fds=[fd])
        self.addCleanup(self.vmm.close)
        self.listener.close()  # else a connection would succeed even if there is no vmm
        self.qmp = self.vmm.client(self.monitor)

    def start(self):
        """qemuProcessLaunch up to cont."""
        ask = self.qmp.command
        ask("query-migrate-capabilities")
        ask("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        chardevs = {c["label"]: c for c in ask("query-chardev")}
        self.assertTrue(chardevs["charserial0"]["filename"].startswith("pty:/dev/pts/"))
        cpu, = ask("query-hotpluggable-cpus")
        self.assertEqual(cpu["vcpus-count"], 1)
        cpus = ask("query-cpus-fast")
        self.assertEqual(len({c["thread-id"] for c in cpus}), len(cpus))
        bools = 0
        for entry in ask("qom-list", path=cpus[0]["qom-path"]):
            if entry["type"] == "bool":
                self.assertIsInstance(ask("qom-get", path=cpus[0]["qom-path"], property=entry["name"]), bool)
                bools += 1
        if KVM:
            self.assertGreater(bools, 150)
            self.assertIsInstance(ask("qom-get", path=cpus[0]["qom-path"], property="unavailable-features"), list)
        self.assertEqual(ask("query-iothreads"), [])
        nodes = {n["node-name"]: n for n in ask("query-named-block-nodes", flat=True)}
        for name in ("libvirt-1-format", "libvirt-1-storage", "libvirt-2-format", "libvirt-2-storage"):
            self.assertEqual(nodes[name]["image"]["virtual-size"], 358400)
        self.assertEqual(nodes["libvirt-1-storage"]["drv"], "file")
        devices = {d["name"]: d["type"] for d in ask("qom-list", path="/machine/peripheral")}
        self.assertEqual(devices, {"type": "string", "ide0-1-0": "child<ide-cd>", "ide0-0-0": "child<ide-hd>",
                                   "video0": "child<VGA>", "serial0": "child<isa-serial>"})
        self.assertEqual(ask("qom-get", path="/machine/peripheral/video0", property="vgamem_mb"), 16)
        drives = {d["qdev"]: d for d in ask("query-block")}
        self.assertEqual(set(drives), {"ide0-0-0", "ide0-1-0"})
        self.assertEqual(drives["ide0-0-0"]["device"], "")
        self.assertEqual(drives["ide0-0-0"]["io-status"], "ok")
        self.assertEqual(drives["ide0-0-0"]["inserted"]["node-name"], "libvirt-2-format")
        self.assertFalse(drives["ide0-0-0"]["removable"])
        self.assertTrue(drives["ide0-1-0"]["removable"])
        self.assertFalse(drives["ide0-1-0"]["tray_open"])
        ask("cont")
        self.qmp.wait_event("RESUME")

    def getfd(self, name, fd):
        """On the monitor itself, as libvirt does."""
        request = json.dumps({"execute": "getfd", "arguments": {"fdname": name}, "id": "fd"}).encode()
        self.qmp.sock.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        self.assertEqual(self.qmp.receive(), {"return": {}, "id": "fd"})

    def test_life_cycle(self):
        self.start()
        ask = self.qmp.command
        ask("stop")
        self.qmp.wait_event("STOP")
        self.assertEqual(ask("query-status"), {"status": "paused", "singlestep": False, "running": False})
        ask("cont")
        ask("system_reset")
        self.assertEqual(self.qmp.wait_event("RESET")["data"], {"guest": False, "reason": "host-qmp-system-reset"})
        ask("system_powerdown")
        self.qmp.wait_event("POWERDOWN")
        ask("set-action", reboot="shutdown")
        ask("inject-nmi")
        ask("send-key", keys=[{"type": "qcode", "data": "ctrl"}], hold_time=10)
        # libvirtd restarts: the monitor takes the next connection, and everything is as it was
        self.qmp.close()
        self.qmp = self.vmm.client(self.monitor)
        self.assertEqual(self.qmp.command("query-status")["status"], "running")
        self.assertEqual(self.qmp.command("query-jobs"), [])
        self.assertEqual(len(self.qmp.command("query-block")), 2)
        os.kill(self.vmm.pid, signal.SIGTERM)
        self.assertEqual(self.qmp.wait_event("SHUTDOWN")["data"], {"guest": False, "reason": "host-signal"})
        self.assertEqual(self.vmm.wait_exit(), 0)

    @unittest.skipUnless(vmmtest.has_module("png"), "built without PNG")
    def test_screenshot_and_dump(self):
        self.start()
        ask, shot, core = self.qmp.command, self.folder + "/shot", self.folder + "/core"
        with open(shot, "wb"):
            pass  # libvirt creates it
        ask("screendump", filename=shot, format="png")
        with open(shot, "rb") as picture:
            self.assertEqual(picture.read(8), b"\x89PNG\r\n\x1a\n")
        ask("stop")
        with open(core, "wb") as target:
            self.getfd("dump", target.fileno())
        ask("dump-guest-memory", paging=False, protocol="fd:dump", detach=True)
        self.assertIn(ask("query-dump")["status"], ("active", "completed"))
        self.assertEqual(self.qmp.wait_event("DUMP_COMPLETED")["data"]["result"]["status"], "completed")
        ask("cont")
        self.assertGreaterEqual(os.stat(core).st_size, 32 << 20)

    def open_tray(self):
        """A running BIOS may hold the drive for a moment."""
        self.qmp.command("blockdev-open-tray", id="ide0-1-0", force=False)
        return self.qmp.wait_event("DEVICE_TRAY_MOVED")["data"]

    def test_change_media(self):
        self.start()
        ask = self.qmp.command
        self.assertEqual(self.open_tray(), {"device": "", "tray-open": True, "id": "ide0-1-0"})
        ask("blockdev-remove-medium", id="ide0-1-0")
        for name in ("libvirt-2-format", "libvirt-1-storage"):
            with self.assertRaisesRegex(vmmtest.QMPError, f"Block device {name} is in use"):
                ask("blockdev-del", node_name=name)
        ask("blockdev-del", node_name="libvirt-1-format")
        ask("blockdev-del", node_name="libvirt-1-storage")
        ask("blockdev-close-tray", id="ide0-1-0")
        self.assertFalse(self.qmp.wait_event("DEVICE_TRAY_MOVED")["data"]["tray-open"])
        for number, image in ((5, "cd2.iso"), (6, "cd1.iso")):
            self.open_tray()
            ask("blockdev-remove-medium", id="ide0-1-0")
            self.qmp.execute("blockdev-add", {"driver": "file", "filename": self.images[image], "node-name":
                                              f"libvirt-{number}-storage", "auto-read-only": True, "discard": "unmap"})
            self.qmp.execute("blockdev-add", {"node-name": f"libvirt-{number}-format", "read-only": True, "driver": "raw",
                                              "file": f"libvirt-{number}-storage"})
            ask("blockdev-insert-medium", id="ide0-1-0", node_name=f"libvirt-{number}-format")
            ask("blockdev-close-tray", id="ide0-1-0")
            self.qmp.wait_event("DEVICE_TRAY_MOVED")
            drive = {d["qdev"]: d for d in ask("query-block")}["ide0-1-0"]
            self.assertEqual(drive["inserted"]["image"]["filename"], self.images[image])
            if number == 5:
                self.open_tray()
                ask("blockdev-remove-medium", id="ide0-1-0")
                ask("blockdev-del", node_name="libvirt-5-format")
                ask("blockdev-del", node_name="libvirt-5-storage")
                ask("blockdev-close-tray", id="ide0-1-0")
                self.qmp.wait_event("DEVICE_TRAY_MOVED")
        with self.assertRaisesRegex(vmmtest.QMPError, "Failed to find node"):
            ask("blockdev-del", node_name="libvirt-5-format")
        with self.assertRaisesRegex(vmmtest.QMPError, "Duplicate"):
            self.qmp.execute("blockdev-add", {"driver": "file", "filename": self.images["cd2.iso"],
                                              "node-name": "libvirt-6-storage"})

    def test_stats_and_resize(self):
        self.start()
        ask = self.qmp.command
        stats = {s["qdev"]: s for s in ask("query-blockstats")}
        self.assertEqual(stats["ide0-0-0"]["node-name"], "libvirt-2-format")
        self.assertIn("rd_bytes", stats["ide0-0-0"]["stats"])
        by_node = {s["node-name"]: s for s in ask("query-blockstats", query_nodes=True)}
        self.assertEqual(by_node["libvirt-2-storage"]["stats"]["wr_highest_offset"], 0)
        for size in (96 << 20, 1 << 20):
            ask("block_resize", node_name="libvirt-2-format", size=size)
            self.assertEqual(os.stat(self.images["d1.raw"]).st_size, size)
            nodes = {n["node-name"]: n for n in ask("query-named-block-nodes", flat=True)}
            self.assertEqual([nodes[f"libvirt-2-{part}"]["image"]["virtual-size"] for part in ("format", "storage")], [size] * 2)
        tune = {"id": "ide0-0-0", "bps": 100000000, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0,
                "bps_max": 0, "bps_rd_max": 0, "bps_wr_max": 0, "iops_max": 0, "iops_rd_max": 0, "iops_wr_max": 0,
                "iops_size": 0}
        self.qmp.execute("block_set_io_throttle", tune)
        drive = {d["qdev"]: d for d in ask("query-block")}["ide0-0-0"]["inserted"]
        self.assertEqual((drive["bps"], drive["iops"], drive["group"]), (100000000, 0, "ide0-0-0"))
        with self.assertRaisesRegex(vmmtest.QMPError, "cannot be used at the same time"):
            self.qmp.execute("block_set_io_throttle", {**tune, "bps_rd": 5})
        with self.assertRaisesRegex(vmmtest.QMPError, "must be within"):
            self.qmp.execute("block_set_io_throttle", {**tune, "bps": -5})
        self.qmp.execute("block_set_io_throttle", {**tune, "bps": 0})
        self.assertNotIn("group", {d["qdev"]: d for d in ask("query-block")}["ide0-0-0"]["inserted"])
        for pattern, arguments in (("Image is read-only", {"node-name": "libvirt-1-format", "size": 512}),
                                   ("nor node-name='x'", {"node-name": "x", "size": 512}),
                                   ("exactly one", {"size": 512}), ("multiple of 512", {"node-name": "libvirt-2-format", "size": 5}),
                                   ("non-negative", {"node-name": "libvirt-2-format", "size": -512})):
            with self.assertRaisesRegex(vmmtest.QMPError, pattern):
                self.qmp.execute("block_resize", arguments)


if __name__ == "__main__":
    vmmtest.main()
