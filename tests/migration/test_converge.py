"""A guest that writes faster than the line carries: throttled, given up after a time, or moved by force; and said so."""

import mig
import vmmtest

BUSY = dict(memory=192, size=128, start=40, quiet=1)
FEW = dict(memory=96, size=16, start=40, quiet=1)       # for 8 MiB/s: a guest that has a twentieth of a processor writes faster
# For 24 MiB/s: a fifth of a processor writes faster, whatever a fault for the dirty log costs (5 to 26 us), and a hundredth does not.
SOME = dict(memory=128, size=64, start=40, quiet=1)


class Converge(vmmtest.TestCase):
    """The line is limited to a fraction of what the guest writes."""

    def test_1_timeout_gives_up(self):
        """x-timeout: the guest stays, the reason has both rates."""
        with mig.Dirtier(**BUSY) as a, mig.twin(a) as b:
            a.running()
            a.params(max_bandwidth=64 << 20, x_timeout=2)
            a.qmp.command("migrate", uri=b.address())
            info = mig.stayed(self, a, ["failed"])
            self.assertRegex(info["error-desc"], r"not finished after 2 s .*the guest writes \d+ MB/s, the connection carries \d+ MB/s")
            self.assertEqual(b.wait_exit(), 1)

    def test_2_stall_is_told(self):
        """Rounds that do not shrink are noticed and said once; a cancel ends it."""
        with mig.Dirtier(**FEW) as a, mig.twin(a) as b:
            a.running()
            a.params(max_bandwidth=8 << 20, downtime_limit=50)
            a.qmp.command("migrate", uri=b.address())
            vmmtest.poll(lambda: "does not converge" in a.stderr(), 60, "the warning")
            self.assertEqual(a.info()["status"], "active")
            a.qmp.command("migrate_cancel")
            mig.stayed(self, a, ["cancelled"])
            self.assertEqual(a.stderr().count("does not converge"), 1)

    def test_3_auto_converge(self):
        """auto-converge slows the vCPU down until it fits, and lets it go afterwards."""
        with mig.Dirtier(**SOME) as a, mig.twin(a) as b:
            a.running()
            a.caps(auto_converge=True)
            a.params(max_bandwidth=24 << 20, downtime_limit=400, cpu_throttle_initial=50, cpu_throttle_increment=20)
            a.qmp.command("migrate", uri=b.address())
            vmmtest.poll(lambda: a.info().get("cpu-throttle-percentage", 0) >= 50 or a.info()["status"] != "active", 60)
            info = mig.moved(self, a, b)
            self.assertGreaterEqual(info.get("cpu-throttle-percentage", 0), 50)
            self.assertLessEqual(info["downtime"], 6000)

    def test_5_only_who_writes(self):
        """With dirty rings auto-converge slows down the vCPU that writes, not the one beside it."""
        with mig.Dirtier("-accel", "kvm,dirty-ring-size=4096", cpus=2, idle2=1, **BUSY) as a, mig.twin(a) as b:
            a.running()
            a.caps(auto_converge=True)
            a.params(max_bandwidth=int((48 << 20) / vmmtest.SLOW), downtime_limit=400, cpu_throttle_initial=50, cpu_throttle_increment=20)
            a.qmp.command("migrate", uri=b.address())
            vmmtest.poll(lambda: a.info().get("cpu-throttle-percentage", 0) >= 50 or a.info()["status"] in mig.ENDED, 60)
            info = a.migration()
            self.assertEqual(info["status"], "completed", info)
            b.migration("completed")
            b.check()
            b.check()
            busy, idle = info["x-cpu-throttle-percentages"]
            self.assertGreaterEqual(busy, 50)
            self.assertEqual(busy, info["cpu-throttle-percentage"])
            self.assertEqual(idle, 0)

    def test_6_compressed(self):
        """What is compressed fits a line that is much too slow for it as it is: nobody is told otherwise."""
        with mig.Dirtier(**FEW) as a, mig.twin(a) as b:
            a.running()
            for guest in (a, b):
                guest.caps(multifd=True)
                guest.params(multifd_compression="zstd")
            a.params(max_bandwidth=1 << 20, downtime_limit=2000)
            a.qmp.command("migrate", uri=b.address())
            mig.moved(self, a, b)
            self.assertNotIn("does not converge", a.stderr())

    def test_4_forced(self):
        """x-timeout-action=force: stop it, whatever the pause."""
        with mig.Dirtier(**BUSY) as a, mig.twin(a) as b:
            a.running()
            a.params(max_bandwidth=48 << 20, downtime_limit=100, x_timeout=2)
            a.params(x_timeout_action="force")
            a.qmp.command("migrate", uri=b.address())
            mig.moved(self, a, b)
            self.assertIn("x-timeout-action=force", a.stderr())


if __name__ == "__main__":
    vmmtest.main()
