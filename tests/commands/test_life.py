#!/usr/bin/env python3
"""A guest's life: stopped, reset, powered off, woken, watched; what the operator does and what the guest notices, and the reverse."""

import socket

from exercise import Case, assets, shows, vmmtest


class Life(Case):
    """Mostly the observer's: it tells what it notices."""

    def status(self, guest):
        return guest.qmp.command("query-status")["status"]

    def becomes(self, guest, status):
        vmmtest.poll(lambda: self.status(guest) == status, 20, status)

    @shows("stop", "cont", "query-status", "STOP", "RESUME", "info status")
    def test_stop_and_cont(self):
        guest = self.start()
        first = self.beat(guest)
        vmmtest.poll(lambda: self.beat(guest) > first, 20, "the guest to run")
        guest.qmp.command("stop")
        guest.qmp.wait_event("STOP")
        self.assertEqual(self.status(guest), "paused")
        self.assertEqual(self.info(guest, "status"), "VM status: paused\n")
        stopped = self.beat(guest)
        self.assertEqual(self.beat(guest), stopped)
        guest.qmp.command("cont")
        guest.qmp.wait_event("RESUME")
        self.assertEqual(self.status(guest), "running")
        vmmtest.poll(lambda: self.beat(guest) > stopped, 20, "the guest to run on")

    @shows("system_reset", "RESET")
    def test_reset(self):
        guest = self.start()
        guest.qmp.command("system_reset")
        self.assertEqual(guest.qmp.wait_event("RESET")["data"], {"guest": False, "reason": "host-qmp-system-reset"})
        guest.serial.wait_for("ready", 30)

    @shows("system_powerdown", "POWERDOWN", "inject-nmi")
    def test_power_button_and_nmi(self):
        guest = self.start()
        guest.qmp.command("system_powerdown")
        guest.qmp.wait_event("POWERDOWN")
        guest.serial.wait_for("power button", 30)
        guest.qmp.command("inject-nmi")
        guest.serial.wait_for("nmi", 30)
        self.assertEqual(self.status(guest), "running")

    @shows("set-action", "SHUTDOWN")
    def test_set_action(self):
        """What a power-off of the guest leads to, and a reset."""
        guest = self.start()
        guest.qmp.command("set-action", shutdown="pause")
        guest.serial.send("z 0\n")
        self.assertEqual(guest.qmp.wait_event("SHUTDOWN")["data"], {"guest": True, "reason": "guest-shutdown"})
        self.becomes(guest, "shutdown")
        self.assertIsNone(guest.process.poll())
        guest.qmp.command("set-action", shutdown="poweroff")
        guest.qmp.command("system_reset")
        guest.qmp.command("cont")
        guest.serial.wait_for("ready", 30)
        guest.serial.send("z 0\n")
        self.assertEqual(guest.wait_exit(), 0)

    @shows("quit", "qmp_capabilities")
    def test_quit(self):
        """A client that has not agreed to anything may not do it; one that has may."""
        guest = self.start()
        client = vmmtest.QMP(self.socket(guest), negotiate=False)
        self.addCleanup(client.close)
        self.clients.append(client)
        with self.assertRaisesRegex(vmmtest.QMPError, "Expecting capabilities negotiation"):
            client.command("quit")
        client.execute("qmp_capabilities", {"enable": ["oob"]})
        with self.assertRaisesRegex(vmmtest.QMPError, "already complete"):
            client.command("qmp_capabilities")
        client.command("quit")
        self.assertEqual(client.wait_event("SHUTDOWN")["data"], {"guest": False, "reason": "host-qmp-quit"})
        self.assertEqual(guest.wait_exit(), 0)

    @shows("system_wakeup", "SUSPEND", "WAKEUP")
    def test_sleep(self):
        """S3 and out of it, through SeaBIOS."""
        try:
            base = assets.acpi_hd()
        except assets.Missing as error:
            self.skipTest(str(error))
        image = assets.copy(base, self.folder())
        guest = self.watch(self.guest("-drive", f"file={image},format=raw,if=ide"))
        with self.assertRaisesRegex(vmmtest.QMPError, "not in suspended state"):
            guest.qmp.command("system_wakeup")
        guest.serial.wait_for(r"sleep\r\n", 60)
        guest.qmp.wait_event("SUSPEND")
        self.assertEqual(self.status(guest), "suspended")
        guest.qmp.command("system_wakeup")
        guest.qmp.wait_event("WAKEUP")
        guest.serial.wait_for(r"woke [0-9A-F]{4}\r\n", 60)

    @shows("SUSPEND_DISK")
    def test_sleep_on_disk(self):
        guest = self.start()
        guest.serial.send("z 2\n")
        guest.qmp.wait_event("SUSPEND_DISK")
        guest.qmp.wait_event("SHUTDOWN")
        self.assertEqual(guest.wait_exit(), 0)

    @shows("GUEST_PANICKED", "GUEST_CRASHLOADED")
    def test_panic(self):
        guest = self.start("-device", "pvpanic", "-action", "panic=pause")
        guest.serial.send("p 2\n")
        self.assertEqual(guest.qmp.wait_event("GUEST_CRASHLOADED")["data"], {"action": "run"})
        self.assertEqual(self.status(guest), "running")
        guest.serial.send("p 1\n")
        self.assertEqual(guest.qmp.wait_event("GUEST_PANICKED")["data"], {"action": "pause"})
        self.becomes(guest, "guest-panicked")

    @shows("watchdog-set-action", "WATCHDOG")
    def test_watchdog(self):
        """It would reset the guest; told at run time it stops it."""
        guest = self.start("-device", "i6300esb")
        guest.qmp.command("watchdog-set-action", action="pause")
        self.does(guest, "b 10", "armed")
        self.assertEqual(guest.qmp.wait_event("WATCHDOG")["data"], {"action": "pause"})
        self.becomes(guest, "watchdog")
        beat = self.beat(guest)
        self.assertEqual(self.beat(guest), beat)

    @shows("RTC_CHANGE", "qom-get")
    def test_clock_is_set(self):
        guest = self.start("-rtc", "base=2020-02-03T04:05:06")
        guest.serial.send("t 30\n")
        offset = guest.qmp.wait_event("RTC_CHANGE")["data"]["offset"]
        ten_years = 3653 * 86400    # three leap days: 2020, 2024, 2028
        self.assertLess(abs(offset - ten_years), 120)
        date = guest.qmp.command("qom-get", path="/machine", property="rtc-time")
        self.assertEqual((date["tm_year"], date["tm_mon"], date["tm_mday"]), (130, 1, 3))

    @shows("rtc-reset-reinjection")
    def test_missed_ticks(self):
        """What a guest that was late is owed is forgotten: it gets a second's ticks in a second, and no more."""
        guest = self.start("-rtc", "driftfix=slew")
        lost = lambda: guest.qmp.command("qom-get", path="/machine/rtc", property="lost-ticks")
        self.does(guest, "j 1", "ticking")
        vmmtest.poll(lambda: lost() > 140, 20, "two seconds to pass", 0.1)
        guest.qmp.command("stop")
        self.assertGreater(lost(), 140)
        guest.qmp.command("rtc-reset-reinjection")
        self.assertEqual(lost(), 0)
        guest.qmp.command("cont")
        ticks = int(self.does(guest, "j 0", r"ticks (\d+)\r")[1])
        self.assertTrue(0 < ticks < 165, ticks)     # of the two seconds that it takes at most: 128

    def socket(self, guest):
        """A connection to the guest's QMP socket."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(guest.qmp_path)
        return sock


if __name__ == "__main__":
    vmmtest.main()
