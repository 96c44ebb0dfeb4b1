#!/usr/bin/env python3
"""Events a guest causes, made with port writes, against the schema; and what -no-reboot and set-action turn them into."""

import unittest

from harness import Vmm, vmmtest
from test_qmp import Schema


class Events(unittest.TestCase):
    """Each on a fresh machine."""

    def start(self, *args):
        vmm = Vmm("-qtest", "unix:@DIR@/qtest,server=on,wait=off", *args)
        self.addCleanup(vmm.close)
        board = vmm.qtest()
        self.addCleanup(board.close)
        self.schema = Schema(vmm.qmp.command("query-qmp-schema"))
        return vmm, board

    def expect(self, vmm, name, **data):
        """The event comes, as the schema says, with these members among its data."""
        event = vmm.qmp.wait_event(name, 15)
        entry = self.schema.entries[name]
        self.schema.check(entry["arg-type"], event.get("data", {}), name)
        for key, value in data.items():
            self.assertEqual(event["data"][key.replace("_", "-")], value, name)
        return event

    def power_off(self, board, sleep_type):
        """PM1 control of the PIIX4 at its usual address, with the SLP_TYP of our DSDT."""
        board.ask("outl 0xcf8 0x80000b40")
        board.ask("outl 0xcfc 0x600")
        board.ask("outl 0xcf8 0x80000b80")
        board.ask("outb 0xcfc 1")
        board.ask(f"outw 0x604 {sleep_type << 10 | 1 << 13:#x}")

    def test_reset(self):
        vmm, board = self.start()
        board.ask("outb 0xcf9 6")
        self.expect(vmm, "RESET", guest=True, reason="guest-reset")
        self.assertEqual(vmm.qmp.command("query-status")["status"], "running")

    def test_no_reboot(self):
        vmm, board = self.start("-no-reboot")
        board.ask("outb 0x64 0xfe")
        self.expect(vmm, "SHUTDOWN", guest=True, reason="guest-reset")
        self.assertEqual(vmm.wait_exit(), 0)

    def test_power_off(self):
        vmm, board = self.start()
        self.power_off(board, 0)
        self.expect(vmm, "SHUTDOWN", guest=True, reason="guest-shutdown")
        self.assertEqual(vmm.wait_exit(), 0)

    def test_no_shutdown(self):
        vmm, board = self.start("-no-shutdown")
        self.power_off(board, 0)
        self.expect(vmm, "SHUTDOWN", guest=True, reason="guest-shutdown")
        self.expect(vmm, "STOP")
        self.assertEqual(vmm.qmp.command("query-status")["status"], "shutdown")
        with self.assertRaises(vmmtest.QMPError):
            vmm.qmp.command("cont")
        vmm.qmp.command("system_reset")
        vmm.qmp.command("cont")
        self.expect(vmm, "RESUME")

    def test_set_action_at_run_time(self):
        vmm, board = self.start()
        vmm.qmp.command("set-action", shutdown="pause")
        self.power_off(board, 0)
        self.expect(vmm, "STOP")
        self.assertEqual(vmm.qmp.command("query-status")["status"], "shutdown")

    def test_panic(self):
        for action, said, status in (("pause", "pause", "guest-panicked"), ("none", "run", "running")):
            vmm, board = self.start("-device", "pvpanic", "-action", f"panic={action}")
            self.assertEqual(board.number("inb 0x505") & 3, 3)
            board.ask("outb 0x505 1")
            self.expect(vmm, "GUEST_PANICKED", action=said)
            vmmtest.poll(lambda vmm=vmm, status=status: vmm.qmp.command("query-status")["status"] == status, 10, status)
            board.ask("outb 0x505 2")
            self.expect(vmm, "GUEST_CRASHLOADED", action="run")
        vmm, board = self.start("-device", "pvpanic")
        board.ask("outb 0x505 1")
        self.expect(vmm, "GUEST_PANICKED", action="poweroff")
        self.expect(vmm, "SHUTDOWN", guest=True, reason="guest-panic")
        self.assertEqual(vmm.wait_exit(), 0)

    def test_rtc(self):
        vmm, board = self.start()
        board.ask("outb 0x70 0x09")
        year = board.number("inb 0x71")
        board.ask(f"outb 0x71 {(year & 0x0f) + 0x30:#x}")
        self.expect(vmm, "RTC_CHANGE")


if __name__ == "__main__":
    vmmtest.main()
