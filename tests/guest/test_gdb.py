#!/usr/bin/env python3
"""The gdb stub: real gdb and raw packets against a guest that goes round and round (tests/payloads/debug.c).

On a KVM that emulates kernel code and runs user code natively without debug support, only breakpoints at CPL 0 trap, and
watchpoints do not; those parts are skipped there (QEMU's stub cannot do them there either). On a host that is QEMU's emulator single
steps trap, whatever the code, and nothing else does (assets.host_is_tcg). All of it runs under Bochs (tests/hosts/test_vmx.py).
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets  # noqa: E402
import vmmtest  # noqa: E402

EMULATES = assets.kvm_emulates()
TCG = assets.host_is_tcg()
BOCHS = os.environ.get("VMM_TEST_HOST") == "bochs"     # a step stands still there when it is the first to touch a page
NO_TRAPS = "this host is an emulator that tells KVM of no breakpoints"
RAX, RDI, RIP, CS = 0, 5, 16, 18    # their numbers in target.xml


class Stub:
    """A client of the remote protocol that knows nothing but packets."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        vmmtest.poll(lambda: self.sock.connect_ex(path) == 0, 10, "the stub's socket")
        self.sock.settimeout(30 * vmmtest.SLOW)
        self.buffer = b""

    def send(self, packet):
        """Send a packet."""
        data = packet.encode("latin1")
        self.sock.sendall(b"$" + data + b"#%02x" % (sum(data) & 255))

    def receive(self):
        """The next packet from the stub."""
        while True:
            match = re.search(rb"\$([^#]*)#[0-9a-f]{2}", self.buffer)
            if match:
                self.buffer = self.buffer[match.end():]
                self.sock.sendall(b"+")
                return match[1].decode("latin1")
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("the stub hung up")
            self.buffer += data

    def ask(self, packet):
        """Send a packet, return the answer."""
        self.send(packet)
        return self.receive()

    def interrupt(self):
        """Ctrl-C; returns the stop reply."""
        self.sock.sendall(b"\x03")
        return self.receive()

    def register(self, number):
        """A register as a number."""
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}")), "little")

    def memory(self, address, length):
        """Bytes of memory."""
        return bytes.fromhex(self.ask(f"m{address:x},{length:x}"))

    def close(self):
        """Hang up."""
        self.sock.close()


class Gdb(vmmtest.TestCase):
    """A stopped guest, its symbols, and clients."""

    def start(self, *args, **options):
        """A guest that waits for gdb; sets .guest, .elf, .symbols, .path."""
        self.elf = assets.payload("debug")
        lines = subprocess.run(["nm", self.elf], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        self.symbols = {name: int(value, 16) for value, _, name in (line.split() for line in lines)}
        self.path = os.path.join(vmmtest.results_dir(), f"gdb-{os.getpid()}-{id(self)}")
        self.addCleanup(lambda: os.path.exists(self.path) and os.unlink(self.path))
        return self.guest("-kernel", self.elf, "-S", "-gdb", f"unix:{self.path},server=on,wait=off", "-device",
                          "isa-debug-exit,iobase=0xf4,iosize=4", memory=64, **options)

    def gdb(self, *commands, symbols=True):
        """Run gdb with these commands on the stub; returns what it printed."""
        argv = ["gdb", "-nx", "-batch", "-ex", "set confirm off", "-ex", "set pagination off",
                "-ex", f"target remote {self.path}"]
        for command in commands:
            argv += ["-ex", command]
        done = subprocess.run(argv + ([self.elf] if symbols else []), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=90 * vmmtest.SLOW, check=False)
        return done.stdout

    def test_gdb_session(self):
        """What a person does: look, break, step, change, let go."""
        if TCG:
            self.skipTest(NO_TRAPS)
        if not shutil.which("gdb"):
            self.skipTest("apt install gdb")
        with self.start(cpus=2) as guest:
            text = self.gdb("info threads", "break at_kernel", "continue", "backtrace 1", "print n", "print $cs & 3",
                            "print/x $efer & 0x400", "x/i $pc", "stepi", "stepi", "print $pc - (long)at_kernel > 0",
                            "continue", "print rounds", "delete", "hbreak at_kernel", "continue", "print rounds",
                            "set var rounds = 1000", "print rounds", "print $mxcsr", "p/x $cr3 & ~0xfff", "p/x &pml4",
                            "monitor info status", "detach")
            self.assertRegex(text, r"(?s)Thread 1.*CPU#0.*Thread 1\.2.*CPU#1")
            self.assertEqual(len(re.findall(r"Breakpoint 1, at_kernel \(n=\d", text)), 2, text)
            self.assertRegex(text, r"at_kernel \(n=1, more=1\)")
            values = re.findall(r"^\$\d+ = (.*)$", text, re.M)
            self.assertEqual(values[:5], ["1", "0", "0x400", "1", "2"], text)
            self.assertEqual(values[5:7], ["3", "1000"], text)
            self.assertEqual(values[8], values[9], text)
            self.assertIn("VM status: paused", text)
            guest.serial.wait_for(r"round 1024", 30)        # it went on from where it was set to
            guest.serial.send("x")
            guest.serial.wait_for(r"PASS debug", 30)
            self.assertEqual(guest.wait_exit(10), 0x10 << 1 | 1)

    def test_32_bit_cpu(self):
        """A CPU without long mode has gdb's i386 registers; a selector that cannot be loaded changes nothing."""
        if not shutil.which("gdb"):
            self.skipTest("apt install gdb")
        if vmmtest.is_qemu():
            self.skipTest("QEMU describes every CPU as x86-64")
        with self.start(cpu="qemu32") as guest:
            text = self.gdb("show architecture", "set var $ds = 0x1234", "print/x $ds", "set var $ds = 0", "print/x $ds", "print $eip > 0", "print $xmm7.uint128",
                            "monitor info registers", "kill", symbols=False)
            self.assertIn('"i386"', text)
            self.assertEqual(re.findall(r"^\$\d+ = (.*)$", text, re.M), ["0x18", "0x0", "1", "0"], text)
            self.assertEqual(guest.wait_exit(20), 0)

    def test_user_code_and_watchpoints(self):
        """What needs debug registers while the guest runs by itself."""
        if EMULATES or TCG:
            self.skipTest(NO_TRAPS if TCG else "this host's KVM has no debug support for code it does not emulate")
        with self.start() as guest:
            stub = Stub(self.path)
            for kind in "01":
                address = self.symbols["at_user"]
                self.assertEqual(stub.ask(f"Z{kind},{address:x},1"), "OK")
                self.assertRegex(stub.ask("c"), "^T05")
                self.assertEqual(stub.register(RIP), address)
                self.assertEqual(stub.ask(f"z{kind},{address:x},1"), "OK")
            for kind, name in ("2", "watch"), ("4", "awatch"):
                address = self.symbols["watched"]
                self.assertEqual(stub.ask(f"Z{kind},{address:x},8"), "OK")
                self.assertRegex(stub.ask("c"), f"^T05{name}:{address:x};")
                self.assertEqual(stub.ask(f"z{kind},{address:x},8"), "OK")
            stub.close()
            guest.quit()

    def test_own_int3(self):
        """An int3 of the guest's own reaches the guest, breakpoints or not."""
        if EMULATES or TCG:
            self.skipTest(NO_TRAPS if TCG else "this host's KVM does not emulate int3")
        with self.start("-append", "int3=1") as guest:
            stub = Stub(self.path)
            self.assertEqual(stub.ask(f"Z0,{self.symbols['at_user']:x},1"), "OK")
            self.assertRegex(stub.ask("c"), "^T05")
            self.assertRegex(stub.ask("c"), "^T05")
            self.assertEqual(stub.ask("D"), "OK")
            guest.serial.send("x")
            guest.serial.wait_for(r"PASS debug", 30)

    def test_steps_and_memory(self):
        """Packets: single steps at the guest's first instructions, memory both ways, the byte under a breakpoint."""
        with self.start() as guest:
            stub = Stub(self.path)
            self.assertRegex(stub.ask("?"), "^T05")
            start = stub.register(RIP)
            seen = [0]
            for _ in range(8):
                self.assertRegex(stub.ask("vCont;s:1"), "^T05")
                seen.append(stub.register(RIP) - start)
                if BOCHS and seen[-1] == seen[-2]:
                    seen.pop()
                if len(seen) == 5:
                    break
            self.assertEqual(seen, [0, 1, 2, 7, 13])        # cli, cld, two moves of 5 and 6 bytes
            stub.send("c")                                  # into long mode
            guest.serial.wait_for("ready", 30)
            self.assertRegex(stub.interrupt(), "^T02")
            address = self.symbols["at_kernel"]
            before = stub.memory(address, 8)
            self.assertEqual(stub.ask(f"Z0,{address:x},1"), "OK")
            self.assertEqual(stub.memory(address, 8), before)
            self.assertEqual(stub.memory(address - 4, 12)[4:], before)
            self.assertEqual(stub.ask(f"z0,{address:x},1"), "OK")
            never = self.symbols["never_written"]
            self.assertEqual(stub.memory(never, 8)[::-1].hex(), "1122334455667788")
            self.assertEqual(stub.ask(f"M{never:x},2:abcd"), "OK")
            self.assertEqual(stub.ask("Qqemu.PhyMemMode:1"), "OK")      # mapped one to one
            self.assertEqual(stub.memory(never, 4).hex(), "abcd6655")
            self.assertEqual(stub.ask("m7fffffff0000,4"), "E0e")
            self.assertEqual(stub.ask("Qqemu.PhyMemMode:0"), "OK")
            self.assertEqual(stub.ask("m200000000000,4"), "E0e")        # no page there
            self.assertEqual(stub.ask(f"P{RIP:x}=" + address.to_bytes(8, "little").hex()), "OK")
            self.assertEqual(stub.register(RIP), address)
            stub.close()

    def test_breakpoint(self):
        """Packets: at its address the guest stands, and memory does not show it."""
        if TCG:
            self.skipTest(NO_TRAPS)
        with self.start() as guest:
            stub = Stub(self.path)
            address = self.symbols["at_kernel"]
            before = stub.memory(address, 8)
            self.assertEqual(stub.ask(f"Z0,{address:x},1"), "OK")
            self.assertRegex(stub.ask("c"), "^T05")
            self.assertEqual(stub.register(RIP), address)
            self.assertEqual(guest.qmp.command("query-status")["status"], "debug")
            self.assertEqual(stub.memory(address - 4, 12)[4:], before)
            self.assertEqual(stub.ask(f"z0,{address:x},1"), "OK")
            stub.close()

    def user_function(self, stub):
        """Steps of code at CPL 3 until at_user() begins; False if they leave it before."""
        for _ in range(500):
            if stub.register(CS) & 3 != 3:
                return False
            if stub.register(RIP) == self.symbols["at_user"]:
                return True
            self.assertRegex(stub.ask("vCont;s:1"), "^T05")
        self.fail("500 steps, and no round of the guest's begins")

    def test_steps_of_user_code(self):
        """Instruction by instruction through a function at CPL 3, with what it is given and what it returns."""
        if EMULATES:
            self.skipTest("this host's KVM has no debug support for code it does not emulate")
        with self.start() as guest:
            stub = Stub(self.path)
            stub.send("c")
            guest.serial.wait_for("round 64", 30)
            for _ in range(50):
                self.assertRegex(stub.interrupt(), "^T02")
                if self.user_function(stub):
                    break
                stub.send("c")
            else:
                self.fail("interrupted 50 times, and never before at_user()")
            given = stub.register(RDI)
            self.assertEqual(given, int.from_bytes(stub.memory(self.symbols["rounds"], 8), "little"))
            for _ in range(20):
                if stub.memory(stub.register(RIP), 1) == b"\xc3":       # ret
                    break
                self.assertRegex(stub.ask("vCont;s:1"), "^T05")
            self.assertEqual(stub.register(RAX), given * 3 + 1)
            self.assertEqual(stub.register(CS), 0x33)
            self.assertEqual(stub.ask("D"), "OK")
            guest.serial.send("x")
            guest.serial.wait_for("PASS debug", 30)
            stub.close()

    def test_running_and_stopping(self):
        """Ctrl-C, QMP's stop and cont, coming and going, killing."""
        with self.start() as guest:
            stub = Stub(self.path)
            stub.send("c")
            guest.serial.wait_for("round 64", 30)
            self.assertRegex(stub.interrupt(), "^T02")
            self.assertEqual(guest.qmp.command("query-status")["status"], "paused")
            stub.send("c")
            vmmtest.poll(lambda: guest.qmp.command("query-status")["running"], 10)
            guest.qmp.command("stop")
            self.assertRegex(stub.receive(), "^T02")
            guest.qmp.command("cont")                       # behind its back: the next packet stops it
            self.assertRegex(stub.ask("qC"), "^QC")
            self.assertFalse(guest.qmp.command("query-status")["running"])
            # a client that just goes takes its breakpoints along
            address = self.symbols["at_kernel"]
            before = stub.memory(address, 1)
            self.assertEqual(stub.ask(f"Z0,{address:x},1"), "OK")
            stub.close()
            again = Stub(self.path)
            self.assertEqual(again.memory(address, 1), before)
            self.assertEqual(again.ask("D"), "OK")
            vmmtest.poll(lambda: guest.qmp.command("query-status")["running"], 10)
            guest.serial.wait_for("round 128", 30)
            again.close()
            last = Stub(self.path)
            last.send("k")
            self.assertEqual(guest.wait_exit(10), 0)

    def test_reset(self):
        """A breakpoint in code that a reset loads again is there again."""
        if TCG:
            self.skipTest(NO_TRAPS)
        with self.start() as guest:
            stub = Stub(self.path)
            address = self.symbols["at_kernel"]
            self.assertEqual(stub.ask(f"Z0,{address:x},1"), "OK")
            self.assertRegex(stub.ask("c"), "^T05")
            self.assertGreater(int.from_bytes(stub.memory(self.symbols["rounds"], 8), "little"), 0)
            guest.qmp.command("system_reset")
            self.assertRegex(stub.ask("c"), "^T05")
            self.assertEqual(stub.register(RIP), address)
            self.assertEqual(int.from_bytes(stub.memory(self.symbols["rounds"], 8), "little"), 1)
            stub.close()

    def test_attach_at_run_time(self):
        """gdbserver in the monitor; none ends it; bad devices are refused."""
        if vmmtest.is_qemu():
            self.skipTest("x-gdbserver is vmm's")
        elf = assets.payload("debug")
        path = os.path.join(vmmtest.results_dir(), f"gdb-late-{os.getpid()}")
        with self.guest("-kernel", elf, memory=64) as guest:
            guest.serial.wait_for("round 64", 30)
            with self.assertRaises(vmmtest.QMPError):
                guest.qmp.command("x-gdbserver", device="nonsense:1")
            for _ in range(3):
                guest.qmp.command("x-gdbserver", device=f"unix:{path}")
                stub = Stub(path)
                self.assertRegex(stub.ask("?"), "^T")
                self.assertFalse(guest.qmp.command("query-status")["running"])
                self.assertEqual(stub.ask("D"), "OK")
                guest.qmp.command("x-gdbserver", device="none")
                with self.assertRaises(OSError):
                    socket.socket(socket.AF_UNIX).connect(path)
                stub.close()
            self.assertTrue(guest.qmp.command("query-status")["running"])
            self.assertEqual(guest.quit(), 0)


if __name__ == "__main__":
    vmmtest.main()
