#!/usr/bin/env python3
"""The qtest protocol, as QEMU's own device tests speak it."""

import base64
import os
import socket
import unittest

from harness import Qtest, Vmm, run, vmmtest


class Protocol(unittest.TestCase):
    """Every request on the real board."""

    def setUp(self):
        self.vmm = Vmm("-qtest", "unix:@DIR@/qtest,server=on,wait=off", "-qtest-log", "@DIR@/log", qmp=False)
        self.addCleanup(self.vmm.close)
        self.board = self.vmm.qtest()
        self.addCleanup(self.board.close)

    def test_ports(self):
        self.board.ask("outb 0x70 0x0f")
        self.board.ask("outb 0x71 0xa5")
        self.board.ask("outb 0x70 0x0f")
        self.assertEqual(self.board.ask("inb 0x71"), "0x00a5")
        self.board.ask("outl 0xcf8 0x80000000")
        self.assertEqual(self.board.number("inl 0xcfc"), 0x12378086)
        self.assertEqual(self.board.number("inw 0xcfe"), 0x1237)

    def test_memory(self):
        ask = self.board.ask
        ask("writeq 0x1000 0x1122334455667788")
        self.assertEqual(ask("readb 0x1000"), "0x0000000000000088")
        self.assertEqual(self.board.number("readw 0x1001"), 0x6677)
        self.assertEqual(self.board.number("readl 0x1004"), 0x11223344)
        self.assertEqual(self.board.number("readq 0x1000"), 0x1122334455667788)
        ask("write 0x2000 6 0x0102fFfe")  # too short: zeroes follow
        self.assertEqual(ask("read 0x2000 6"), "0x0102fffe0000")
        self.assertEqual(base64.b64decode(ask("b64read 0x2000 5")), b"\1\2\xff\xfe\0")
        data = os.urandom(5000)
        ask(f"b64write 0x3000 5000 {base64.b64encode(data).decode()}")
        self.assertEqual(ask("read 0x3000 5000"), "0x" + data.hex())
        ask("memset 0x3000 4096 0x5a")
        self.assertEqual(ask("read 0x3ffe 4"), "0x5a5a" + data[4096:4098].hex())
        big = os.urandom(1 << 20)
        ask("write 0x100000 0x100000 0x" + big.hex())
        self.assertEqual(ask("read 0x100000 1048576"), "0x" + big.hex())
        self.assertEqual(ask("endianness"), "little")

    def test_interrupts_and_clock(self):
        board = self.board
        board.ask("irq_intercept_in ioapic")
        board.ask("irq_intercept_in /machine/unattached/ioapic")  # the same again is fine
        self.assertEqual(board.raw("irq_intercept_out i8259"), "FAIL IRQ intercept already enabled")
        board.ask("outb 0x43 0x30")  # PIT channel 0, interrupt on terminal count
        board.ask("outb 0x40 0xa9")
        board.ask("outb 0x40 0x04")  # 1193 ticks: 1 ms
        board.irqs.clear()
        self.assertEqual(board.ask("clock_step 900000"), "900000")
        self.assertEqual(board.irqs, [])
        now = int(board.ask("clock_step"))  # to the next timer
        while (0, True) not in board.irqs and now < 2000000:
            now = int(board.ask("clock_step"))
        self.assertIn((0, True), board.irqs)
        self.assertAlmostEqual(now, 1000000, delta=5000)
        self.assertEqual(board.ask("clock_set 5000000"), "5000000")
        self.assertEqual(board.ask("clock_set 1"), "5000000")  # never backwards
        board.irqs.clear()
        board.ask("set_irq_in ioapic unnamed-gpio-in 9 1")
        board.ask("set_irq_in ioapic unnamed-gpio-in 9 1")
        board.ask("set_irq_in ioapic unnamed-gpio-in 9 0")
        self.assertEqual(board.irqs, [(9, True), (9, False)])

    def test_pic_output(self):
        board = self.board
        board.ask("irq_intercept_out i8259")
        for port, value in ((0x20, 0x11), (0x21, 8), (0x21, 4), (0x21, 1), (0x21, 0)):
            board.ask(f"outb {port} {value}")
        board.irqs.clear()
        board.ask("set_irq_in i8259 unnamed-gpio-in 5 1")
        self.assertEqual(board.irqs, [(0, True)])

    def test_mistakes(self):
        for request in ("foo", "inb", "inb x", "inb 0x10000", "outb 0x70", "outb 0x70 zz", "read 0 0", "read 0 -1",
                        "read 0 0x7fffffff", "write 0 4 deadbeef", "b64write 0 4 !!!!", "memset 0 4 256",
                        "clock_step x", "clock_step -1", "clock_set", "clock_set 99999999999999999999",
                        "irq_intercept_in nothing", "irq_intercept_out ioapic", "set_irq_in ioapic x 24 1",
                        "set_irq_in i8259 x 16 1", "set_irq_in nothing x 1 1", "rtas foo 0 0 0 0", "inb " + "9" * 100,
                        "\x01\x02", "inb \xff"):
            self.assertTrue(self.board.raw(request).startswith("FAIL "), request)
        self.board.stream.write(b"\n\n  \nmodule_load hw- foo\n")
        self.board.stream.flush()
        self.assertEqual(self.board.line(), "OK")  # empty lines are no requests

    def test_log(self):
        self.board.ask("endianness")
        with open(self.vmm.path("log"), encoding="ascii") as log:
            lines = log.read().splitlines()
        self.assertRegex(lines[0], r"^\[I \+\d+\.\d{6}\] OPENED$")
        self.assertRegex(lines[1], r"^\[R \+\d+\.\d{6}\] endianness$")
        self.assertRegex(lines[2], r"^\[S \+\d+\.\d{6}\] OK little$")

    def test_end(self):
        self.board.close()
        self.assertEqual(self.vmm.wait_exit(), 0)


class Connection(unittest.TestCase):
    """Ways to connect."""

    def test_vmm_connects_to_the_test(self):
        with Vmm(qmp=False) as probe:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(probe.path("q"))
                listener.listen(1)
                listener.settimeout(20)
                with Vmm("-qtest", f"unix:{probe.path('q')}", qmp=False) as vmm:
                    board = Qtest(listener.accept()[0])
                    self.assertEqual(board.ask("endianness"), "little")
                    board.close()
                    self.assertEqual(vmm.wait_exit(), 0)

    def test_on_a_chardev(self):
        with Vmm("-chardev", "socket,id=q,path=@DIR@/q,server=on,wait=off", "-qtest", "chardev:q") as vmm:
            board = vmm.qtest(vmm.path("q"))
            self.assertEqual(board.ask("endianness"), "little")
            board.close()

    def test_refused(self):
        for args, word in ((["-qtest", "nonsense"], "nonsense"), (["-qtest", "chardev:x"], "'x'"),
                           (["-qtest", "null", "-qtest-log", "/nonexistent/log"], "/nonexistent/log")):
            status, text = run(*args)
            self.assertEqual(status, 1, text)
            self.assertIn(word, text)


if __name__ == "__main__":
    vmmtest.main()
