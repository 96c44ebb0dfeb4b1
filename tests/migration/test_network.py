"""Two hosts: network namespaces with a shaped link between them. Needs root, iproute2 and the kernel's veth and tbf."""

import os
import shutil
import subprocess
import tempfile
import unittest

import mig
import vmmtest

NAME = f"vmm{os.getpid() % 100000}"
NET = f"10.99.{os.getpid() % 200 + 1}"


def ip(*args):
    """One ip or tc command."""
    subprocess.run(args, check=True, capture_output=True)


class Network(vmmtest.TestCase):
    """1 Gbit/s, as between two real machines: pages go by reference here."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if os.geteuid() or not shutil.which("ip") or not shutil.which("tc"):
            raise unittest.SkipTest("needs root, ip and tc")
        cls.dir = tempfile.mkdtemp()
        try:
            ip("ip", "netns", "add", NAME)
            ip("ip", "link", "add", f"{NAME}a", "type", "veth", "peer", "name", f"{NAME}b")
            ip("ip", "link", "set", f"{NAME}b", "netns", NAME)
            ip("ip", "addr", "add", f"{NET}.1/24", "dev", f"{NAME}a")
            ip("ip", "link", "set", f"{NAME}a", "up")
            ip("ip", "netns", "exec", NAME, "ip", "addr", "add", f"{NET}.2/24", "dev", f"{NAME}b")
            ip("ip", "netns", "exec", NAME, "ip", "link", "set", f"{NAME}b", "up")
            ip("tc", "qdisc", "add", "dev", f"{NAME}a", "root", "tbf", "rate", "1gbit", "burst", "256k", "latency", "50ms")
        except subprocess.CalledProcessError as error:
            cls.tearDownClass()
            raise unittest.SkipTest(f"no network namespaces here: {error.stderr}") from None
        cls.vmm = os.path.join(cls.dir, "vmm")
        with open(cls.vmm, "w", encoding="ascii") as file:
            file.write(f'#!/bin/sh\nexec ip netns exec {NAME} {os.path.abspath(vmmtest.VMM)} "$@"\n')
        os.chmod(cls.vmm, 0o755)

    @classmethod
    def tearDownClass(cls):
        subprocess.run(["ip", "link", "del", f"{NAME}a"], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", NAME], check=False, capture_output=True)

    def far_twin(self, a):
        """The destination, in the other namespace."""
        here, vmmtest.VMM = vmmtest.VMM, self.vmm
        try:
            return mig.twin(a, incoming=f"tcp:{NET}.2:4444")
        finally:
            vmmtest.VMM = here

    def test_shaped_link(self):
        """A guest that writes moves over the line, whole, and both ends warn of clear text."""
        with mig.Dirtier(memory=112, size=48, start=40, rate=16000) as a:
            a.running()
            with self.far_twin(a) as b:
                a.qmp.command("migrate", uri=f"tcp:{NET}.2:4444")
                info = mig.moved(self, a, b)
                self.assertGreater(info["ram"]["transferred"], 45 << 20)
                for guest in (a, b):
                    self.assertIn("clear text", guest.stderr())

    def test_line_goes_dead(self):
        """Every packet is lost while the guest stands still: the source takes it back, the destination does not run."""
        with mig.Dirtier(rate=16000) as a:
            a.running()
            with self.far_twin(a) as b:
                a.caps(pause_before_switchover=True)
                a.qmp.command("migrate", uri=f"tcp:{NET}.2:4444")
                a.migration("pre-switchover")
                ip("ip", "link", "set", f"{NAME}a", "down")
                a.qmp.command("migrate-continue", state="pre-switchover")
                info = mig.stayed(self, a, ["failed"])
                self.assertRegex(info["error-desc"], "nothing moved for 1000 ms|unreachable")
                self.assertNotEqual(b.status(), "running")
                ip("ip", "link", "set", f"{NAME}a", "up")


if __name__ == "__main__":
    vmmtest.main()
