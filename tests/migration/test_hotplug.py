#!/usr/bin/env python3
"""What was plugged before a migration is there behind it, and can be unplugged there; requests on their way arrive."""

import mig
import vmmtest
from test_described import Bare

SMP = "1,maxcpus=4,sockets=1,cores=2,threads=2"


class Moved(vmmtest.TestCase):
    """tests/payloads/hotplug.c moves to a vmm that knows nothing but where to listen."""

    def source(self):
        guest = self.guest("-kernel", mig.assets.payload("hotplug"), "-device", "isa-debug-exit,iobase=0xf4,iosize=4", cpus=SMP,
                           memory=64)
        guest.serial.wait_for("ready", 60)
        self.add_cpu(guest, 3, "late")
        guest.serial.wait_for("cpu 3 up", 60)
        guest.qmp.command("device_add", driver="pvpanic-pci", id="p", addr="0x9")
        guest.serial.wait_for("slot 9 1b36:11", 60)
        return guest

    def add_cpu(self, guest, index, name):
        place = next(c for c in guest.qmp.command("query-hotpluggable-cpus")
                     if c["props"]["core-id"] * 2 + c["props"]["thread-id"] == index)
        guest.qmp.execute("device_add", {"driver": place["type"], "id": name, **place["props"]})

    def refused_meanwhile(self, source):
        """The machine stays what its description says."""
        for command, arguments in (("device_add", {"driver": "pvpanic-pci"}), ("device_del", {"id": "late"})):
            with self.assertRaisesRegex(vmmtest.QMPError, f"{command} not allowed while migrating"):
                source.qmp.command(command, **arguments)

    def move(self, source):
        """The guest at its new place."""
        source.qmp.execute("migrate-set-capabilities", {"capabilities": [{"capability": "pause-before-switchover", "state": True}]})
        uri = f"unix:{source.dir}/stream"
        dest = Bare(uri)
        self.addCleanup(dest.close)
        vmmtest.poll(lambda: mig.os.path.exists(uri[5:]), 20, "the destination to listen", 0.005)
        source.qmp.command("migrate", uri=uri)
        vmmtest.poll(lambda: source.qmp.command("query-migrate").get("status") in ("pre-switchover", *mig.ENDED), 60, "the switchover")
        self.assertEqual(source.qmp.command("query-migrate")["status"], "pre-switchover", source.qmp.command("query-migrate"))
        self.refused_meanwhile(source)
        source.qmp.command("migrate-continue", state="pre-switchover")
        vmmtest.poll(lambda: source.qmp.command("query-migrate").get("status") in mig.ENDED, 60, "the migration")
        self.assertEqual(source.qmp.command("query-migrate")["status"], "completed")
        return dest.meet()

    def finish(self, dest):
        """Everything goes at the destination, and something new comes."""
        dest.qmp.command("device_del", id="late")
        dest.serial.wait_for("cpu 3 gone", 60)
        dest.qmp.wait_event("DEVICE_DELETED", 30, lambda data: data["device"] == "late")
        dest.qmp.command("device_del", id="p")
        dest.serial.wait_for("slot 9 empty", 60)
        dest.qmp.wait_event("DEVICE_DELETED", 30, lambda data: data["device"] == "p")
        self.add_cpu(dest, 1, "new")
        dest.serial.wait_for("cpu 1 up", 60)

    def test_plugged_before(self):
        dest = self.move(self.source())
        vmmtest.poll(lambda: dest.qmp.command("query-migrate")["status"] == "completed", 20, "the guest to have arrived")
        self.assertEqual(dest.qmp.command("query-status")["status"], "running")
        self.assertEqual([(c["cpu-index"], c["qom-path"]) for c in dest.qmp.command("query-cpus-fast")],
                         [(0, "/machine/unattached/cpu[0]"), (3, "/machine/peripheral/late")])
        self.finish(dest)

    def test_requests_on_their_way(self):
        source = self.source()
        source.qmp.command("stop")
        source.qmp.command("device_add", driver="pvpanic-pci", id="q", addr="0x10", events=2)
        self.add_cpu(source, 2, "c2")
        source.qmp.command("device_del", id="p")
        dest = self.move(source)
        dest.qmp.command("cont")
        dest.serial.wait_for("slot 9 empty", 60)
        dest.serial.wait_for("slot 16 1b36:11 reg 2", 60)
        dest.serial.wait_for("cpu 2 up", 60)


if __name__ == "__main__":
    vmmtest.main()
