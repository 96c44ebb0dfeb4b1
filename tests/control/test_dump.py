#!/usr/bin/env python3
"""Guest memory into files: dump-guest-memory, memsave, pmemsave; read back with readelf and, under KVM, gdb."""

import array
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import unittest

import kdump
from harness import Vmm, vmmtest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "guest"))
import assets  # noqa: E402

MIB = 1 << 20


def loads(path):
    """PT_LOAD program headers: (virtual address, physical address, offset, size)."""
    with open(path, "rb") as core:
        head = core.read(64)
        assert head[:4] == b"\x7fELF"
        if head[4] == 2:
            offset, = struct.unpack_from("<Q", head, 32)
            count, = struct.unpack_from("<H", head, 56)
            core.seek(offset)
            found = []
            for _ in range(count):
                kind, _, at, virtual, physical, size, _, _ = struct.unpack("<IIQQQQQQ", core.read(56))
                if kind == 1:
                    found.append((virtual, physical, at, size))
            return found
        offset, = struct.unpack_from("<I", head, 28)
        count, = struct.unpack_from("<H", head, 44)
        core.seek(offset)
        return [(v, p, at, size) for kind, at, v, p, size, _, _, _ in
                (struct.unpack("<IIIIIIII", core.read(32)) for _ in range(count)) if kind == 1]


class Dump(unittest.TestCase):
    """A machine without CPU, its memory written through qtest."""

    def setUp(self):
        self.vmm = Vmm("-qtest", "unix:@DIR@/qtest,server=on,wait=off", "-m", "8")
        self.addCleanup(self.vmm.close)
        self.qmp = self.vmm.qmp
        self.core = self.vmm.path("core")
        board = self.vmm.qtest()
        board.ask("write 0x200000 0x4 0xdeadbeef")
        board.ask("write 0x7ffffc 0x4 0x01020304")
        self.addCleanup(board.close)

    def memory(self, physical, size):
        for _, start, offset, length in loads(self.core):
            if start <= physical < start + length:
                with open(self.core, "rb") as core:
                    core.seek(offset + physical - start)
                    return core.read(size)
        return None

    def refused(self, pattern, command, **arguments):
        with self.assertRaisesRegex(vmmtest.QMPError, pattern):
            self.qmp.command(command, **arguments)

    def test_whole(self):
        self.qmp.command("dump-guest-memory", paging=False, protocol=f"file:{self.core}")
        self.assertEqual(self.memory(0x200000, 4), b"\xde\xad\xbe\xef")
        self.assertEqual(self.memory(0x7ffffc, 8), b"\x01\x02\x03\x04")
        self.assertEqual(sum(size for _, _, _, size in loads(self.core)), 8 * MIB)
        self.assertEqual(self.qmp.wait_event("DUMP_COMPLETED")["data"],
                         {"result": {"status": "completed", "completed": 8 * MIB, "total": 8 * MIB}})
        self.assertLess(os.stat(self.core).st_blocks * 512, 4 * MIB, "zeroes became holes")
        self.assertEqual(os.stat(self.core).st_mode & 0o077, 0, "a guest's memory is nobody else's business")

    def test_readelf(self):
        self.qmp.command("dump-guest-memory", paging=False, protocol=f"file:{self.core}")
        text = subprocess.run(["readelf", "-hlnW", self.core], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=True).stdout
        self.assertIn("CORE (Core file)", text)
        self.assertNotIn("arning", text)

    def test_part(self):
        self.qmp.command("dump-guest-memory", paging=False, protocol=f"file:{self.core}", begin=0x1ff000, length=0x2000)
        (_, physical, _, size), = loads(self.core)
        self.assertEqual((physical, size), (0x1ff000, 0x2000))
        self.assertEqual(self.memory(0x200000, 4), b"\xde\xad\xbe\xef")

    def test_guest_note(self):
        """The guest's kernel tells of its note through fw_cfg; nonsense is left out with a word in the log."""
        vmm = Vmm("-qtest", "unix:@DIR@/qtest,server=on,wait=off", "-m", "8", "-device", "vmcoreinfo")
        self.addCleanup(vmm.close)
        board = vmm.qtest()
        self.addCleanup(board.close)

        def tell(guest_format, size, address):
            board.ask("outw 0x510 0x19")
            names = bytes(int(board.ask("inb 0x511").split()[-1], 16) for _ in range(4 + 64 * 30))
            at = names.index(b"etc/vmcoreinfo\0") - 8
            key = int.from_bytes(names[at + 4:at + 6], "big")
            board.ask("write 0x8000 0x10 0x" + struct.pack("<HHIQ", 0, guest_format, size, address).hex())
            board.ask("write 0x7000 0x10 0x" + struct.pack(">IIQ", key << 16 | 0x18, 16, 0x8000).hex())
            board.ask("outl 0x514 0x0")
            board.ask("outl 0x518 0x00700000")

        def notes():
            path = vmm.path("core")
            vmm.qmp.command("dump-guest-memory", paging=False, protocol=f"file:{path}")
            return subprocess.run(["readelf", "-n", path], stdout=subprocess.PIPE, text=True, check=True).stdout

        note = struct.pack("<III12s", 11, 8, 0, b"VMCOREINFO") + b"OSREL=1\n"
        board.ask(f"write 0x300000 {len(note):#x} 0x{note.hex()}")
        self.assertNotIn("VMCOREINFO", notes())
        tell(1, len(note), 0x300000)
        self.assertIn("VMCOREINFO", notes())
        for bad in ((2, len(note), 0x300000), (1, 0, 0x300000), (1, len(note) - 1, 0x300000), (1, 0xffffffff, 0x300000),
                    (1, 64, 0x7ffff0), (1, 64, 1 << 60)):
            tell(*bad)
            self.assertNotIn("VMCOREINFO", notes(), bad)
        self.assertIn("the guest's note is left out", vmm.stderr())

    def test_running_guest_goes_on(self):
        self.qmp.command("dump-guest-memory", paging=False, protocol=f"file:{self.core}")
        self.qmp.wait_event("STOP")
        self.qmp.wait_event("DUMP_COMPLETED")
        self.qmp.wait_event("RESUME")
        self.assertTrue(self.qmp.command("query-status")["running"])
        self.qmp.command("stop")
        self.qmp.command("dump-guest-memory", paging=False, protocol=f"file:{self.core}")
        self.assertEqual(self.qmp.command("query-status")["status"], "paused")

    def getfd(self, name, fd):
        """Pass a descriptor on a connection of its own."""
        sock = self.vmm.connect()
        stream = sock.makefile("rb")
        stream.readline()
        for request, fds in (({"execute": "qmp_capabilities"}, []), ({"execute": "getfd", "arguments": {"fdname": name}}, [fd])):
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            sock.sendmsg([json.dumps(request).encode()], rights)
            self.assertEqual(json.loads(stream.readline()), {"return": {}})
        stream.close()
        sock.close()

    def test_detached_into_a_slow_pipe(self):
        reader, writer = os.pipe()
        self.getfd("dump", writer)
        os.close(writer)
        self.assertEqual(self.qmp.command("query-dump"), {"status": "none", "completed": 0, "total": 0})
        self.qmp.command("dump-guest-memory", paging=False, protocol="fd:dump", detach=True)
        status = self.qmp.command("query-dump")
        self.assertEqual((status["status"], status["total"]), ("active", 8 * MIB))
        self.assertEqual(self.qmp.command("query-status")["status"], "save-vm")
        self.refused("dump in process", "dump-guest-memory", paging=False, protocol=f"file:{self.core}")
        self.refused("dump in process", "cont")
        with open(self.core, "wb") as core:
            while data := os.read(reader, MIB):
                core.write(data)
        os.close(reader)
        self.qmp.wait_event("DUMP_COMPLETED")
        self.qmp.wait_event("RESUME")
        self.assertEqual(self.memory(0x200000, 4), b"\xde\xad\xbe\xef")
        self.assertEqual(self.qmp.command("query-dump")["status"], "completed")

    def test_stop_during_a_dump_lasts(self):
        reader, writer = os.pipe()
        self.getfd("dump", writer)
        os.close(writer)
        self.qmp.command("dump-guest-memory", paging=False, protocol="fd:dump", detach=True)
        self.qmp.command("stop")
        os.close(reader)  # and the reader goes: the dump fails
        event = self.qmp.wait_event("DUMP_COMPLETED")["data"]
        self.assertEqual(event["result"]["status"], "failed")
        self.assertIn("Broken pipe", event["error"])
        self.assertEqual(self.qmp.command("query-dump")["status"], "failed")
        self.assertEqual(self.qmp.command("query-status")["status"], "paused")

    def test_quit_during_a_dump(self):
        reader, writer = os.pipe()
        self.getfd("dump", writer)
        self.qmp.command("dump-guest-memory", paging=False, protocol="fd:dump", detach=True)
        self.qmp.command("quit")
        self.assertEqual(self.vmm.wait_exit(), 0)
        os.close(reader)
        os.close(writer)

    def test_mistakes(self):
        before = self.vmm.fds()
        self.refused("'length' is missing", "dump-guest-memory", paging=False, protocol="file:x", begin=0)
        self.refused("'begin' is missing", "dump-guest-memory", paging=False, protocol="file:x", length=1)
        self.refused("no memory", "dump-guest-memory", paging=False, protocol="file:x", begin=1 << 40, length=4096)
        self.refused("Invalid parameter 'length'", "dump-guest-memory", paging=False, protocol="file:x", begin=0, length=0)
        self.refused("Invalid parameter 'protocol'", "dump-guest-memory", paging=False, protocol="ftp://x")
        self.refused("nosuch", "dump-guest-memory", paging=False, protocol="fd:nosuch")
        self.refused("/nowhere", "dump-guest-memory", paging=False, protocol="file:/nowhere/x")
        self.refused("win-dmp is not available now", "dump-guest-memory", paging=False, protocol="file:x", format="win-dmp")
        for argument in ({"paging": True}, {"begin": 0, "length": 4096}, {"begin": 0}):
            self.refused("kdump-compressed format doesn't support paging or filter", "dump-guest-memory",
                         **{"paging": False, "protocol": "file:x", "format": "kdump-zlib", **argument})
        self.refused("No space left", "dump-guest-memory", paging=False, protocol="file:/dev/full")
        self.assertIn("elf", self.formats())
        self.assertTrue(self.qmp.command("query-status")["running"])
        self.assertEqual(self.vmm.fds(), before)

    def formats(self):
        return self.qmp.command("query-dump-guest-memory-capability")["formats"]

    def test_kdump(self):
        """Every format that is offered, read back by hand."""
        for name in self.formats():
            if not name.startswith("kdump-"):
                continue
            with self.subTest(name):
                self.qmp.command("dump-guest-memory", paging=False, protocol=f"file:{self.core}", format=name)
                dump = kdump.Kdump(self.core)
                self.assertEqual(dump.page(0x200), b"\xde\xad\xbe\xef" + bytes(4092))
                self.assertEqual(dump.page(0x7ff)[-4:], b"\x01\x02\x03\x04")
                self.assertEqual(dump.page(0), bytes(4096))
                self.assertIsNone(dump.page(0x800), "there is no memory")
                self.assertEqual(sum(dump.page(n) is not None for n in range(0x800)), 0x800)
                self.assertLess(os.stat(self.core).st_size, MIB // 2, "zeroes are stored once")
                self.assertEqual(self.qmp.wait_event("DUMP_COMPLETED")["data"]["result"],
                                 {"status": "completed", "completed": 8 * MIB, "total": 8 * MIB})

    def test_kdump_formats(self):
        """Those whose compressor is installed; a dump in another one is refused by name."""
        with Vmm(env={"VMM_MODULE_DIR": "/nonexistent"}) as bare:
            self.assertEqual(bare.qmp.command("query-dump-guest-memory-capability"), {"formats": ["elf"]})
            with self.assertRaisesRegex(vmmtest.QMPError, "kdump-lzo is not available now"):
                bare.qmp.command("dump-guest-memory", paging=False, protocol="file:/tmp/x", format="kdump-lzo")

    def test_kdump_into_a_pipe(self):
        """It never seeks, so a reader on the other side of a pipe will do."""
        if "kdump-zlib" not in self.formats():
            self.skipTest("built without zlib")
        reader, writer = os.pipe()
        self.getfd("dump", writer)
        os.close(writer)
        self.qmp.command("dump-guest-memory", paging=False, protocol="fd:dump", detach=True, format="kdump-zlib")
        with open(self.core, "wb") as core:
            while data := os.read(reader, MIB):
                core.write(data)
        os.close(reader)
        self.qmp.wait_event("DUMP_COMPLETED")
        self.assertEqual(kdump.Kdump(self.core).page(0x200)[:4], b"\xde\xad\xbe\xef")

    def test_kdump_by_the_monitor(self):
        if "kdump-zlib" not in self.formats():
            self.skipTest("built without zlib")
        self.assertEqual(self.qmp.command("human-monitor-command", command_line=f"dump-guest-memory -z {self.core}"), "")
        self.assertEqual(kdump.Kdump(self.core).page(0x200)[:4], b"\xde\xad\xbe\xef")

    def test_makedumpfile(self):
        """What Linux' own tool makes of it."""
        tool = shutil.which("makedumpfile")
        if not tool or "kdump-zlib" not in self.formats():
            self.skipTest("makedumpfile is not installed, or built without zlib")
        self.qmp.command("dump-guest-memory", paging=False, protocol=f"file:{self.core}", format="kdump-zlib")
        flat = self.vmm.path("flat")
        with open(self.core, "rb") as core:
            subprocess.run([tool, "-R", flat], stdin=core, stdout=subprocess.DEVNULL, check=True)
        with open(flat, "rb") as laid_out:
            self.assertEqual(laid_out.read(8), b"KDUMP   ")
        self.assertEqual(kdump.Kdump(flat).page(0x7ff)[-4:], b"\x01\x02\x03\x04")

    def test_pmemsave(self):
        path = self.vmm.path("memory")
        self.qmp.command("pmemsave", val=0x1ffffe, size=8, filename=path)
        with open(path, "rb") as saved:
            self.assertEqual(saved.read(), b"\0\0\xde\xad\xbe\xef\0\0")
        self.qmp.command("pmemsave", val=0, size=8 * MIB, filename=path)
        self.assertEqual(os.stat(path).st_size, 8 * MIB)
        self.refused("Invalid addr", "pmemsave", val=8 * MIB - 4, size=8, filename=path)
        self.refused("Invalid addr", "pmemsave", val=-1, size=1 << 60, filename=path)
        self.refused("/nowhere", "pmemsave", val=0, size=1, filename="/nowhere/x")
        self.refused("CPU 0", "memsave", val=0, size=1, filename=path)


@unittest.skipUnless(os.access("/dev/kvm", os.R_OK | os.W_OK), "needs KVM")
class Running(unittest.TestCase):
    """A guest in long mode at privilege level 3, seen by gdb through its own page tables."""

    def setUp(self):
        elf = assets.payload("dirtier")
        self.elf = elf
        self.vmm = Vmm("-accel", "kvm", "-m", "64", "-smp", "2", "-kernel", elf, "-append", "start=32M size=16M",
                       "-serial", "file:@DIR@/serial")
        self.addCleanup(self.vmm.close)
        self.qmp = self.vmm.qmp

        def rounds():
            with open(self.vmm.path("serial"), "rb") as serial:
                return b"round 2" in serial.read()

        vmmtest.poll(rounds, 60, "the guest to run")

    def test_gdb_reads_it(self):
        gdb = shutil.which("gdb")
        if not gdb:
            self.skipTest("gdb is not installed")
        core = self.vmm.path("core")
        self.qmp.command("stop")
        self.qmp.command("dump-guest-memory", paging=True, protocol=f"file:{core}")
        text = subprocess.run([gdb, "-nx", "-batch", "-ex", "info threads", "-ex", "info registers rip cs ss",
                               "-ex", "x/2i $rip", "-ex", "x/s boot_cmdline", self.elf, core], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=True).stdout
        self.assertRegex(text, r"cs +0x33 ")
        self.assertRegex(text, r"ss +0x2b ")
        self.assertIn("start=32M size=16M", text)
        self.assertRegex(text, r"  2 +.*")  # the second vCPU is a thread
        self.assertNotIn("Cannot access", text)
        notes = subprocess.run(["readelf", "-n", core], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.assertEqual(notes.count("NT_PRSTATUS"), 2)
        self.assertEqual(notes.count("QEMU"), 2)

    def test_memsave_goes_through_page_tables(self):
        path, physical = self.vmm.path("linear"), self.vmm.path("physical")
        self.qmp.command("memsave", val=0x100000, size=0x3000, filename=path)  # while it runs
        self.qmp.command("pmemsave", val=0x100000, size=0x3000, filename=physical)
        with open(path, "rb") as one, open(physical, "rb") as two:
            self.assertEqual(one.read(0x1000), two.read(0x1000), "identity mapped code")
        ask = lambda line: self.qmp.command("human-monitor-command", command_line=line)
        self.assertEqual(ask("gva2gpa 0x100123"), "gpa: 0x100123\r\n")
        self.assertEqual(ask("gva2gpa 0xffff800000000000"), "Unmapped\r\n")
        with self.assertRaisesRegex(vmmtest.QMPError, "Invalid addr 0xffff800000000000/size 16"):
            self.qmp.command("memsave", val=-(1 << 47), size=16, filename=path)
        with self.assertRaisesRegex(vmmtest.QMPError, "no CPU 7"):
            self.qmp.command("memsave", val=0, size=16, filename=path, cpu_index=7)
        self.assertTrue(self.qmp.command("query-status")["running"])


if __name__ == "__main__":
    vmmtest.main()
