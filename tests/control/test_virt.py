#!/usr/bin/env python3
"""Real libvirt starts vmm: virt-qemu-run (package libvirt-daemon-driver-qemu) probes the binary and runs a domain.

Needs root, KVM and libvirt's packages; skipped without. LIBVIRT_DRIVER_DIR and LD_LIBRARY_PATH may point to unpacked ones.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

from harness import vmmtest

DOMAIN = """<domain type='kvm'>
  <name>vmm-test</name> <memory unit='MiB'>64</memory> <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os> <features><acpi/></features>
  <cpu mode='host-passthrough'/> <on_poweroff>destroy</on_poweroff>
  <devices>
    <emulator>{vmm}</emulator>
    <controller type='usb' model='none'/>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{folder}/disk'/>
      <target dev='hda' bus='ide'/></disk>
    <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='{folder}/disc'/>
      <target dev='hdc' bus='ide'/><readonly/></disk>
    <interface type='user'><mac address='52:54:00:00:00:21'/><model type='e1000'/></interface>
    <interface type='ethernet'><mac address='52:54:00:00:00:22'/><model type='virtio'/></interface>
    <serial type='file'><source path='{folder}/serial'/></serial>
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>
    <video><model type='vga' vram='16384'/></video>
    <memballoon model='virtio'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
</domain>
"""


def reason_to_skip():
    """Why this cannot be tested here, or None."""
    if not shutil.which("virt-qemu-run"):
        return "virt-qemu-run is not installed"
    if os.geteuid() or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "needs root and KVM"
    if subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        return "needs a mount namespace of its own"
    return None


def with_user(folder, command):
    """The command in a mount namespace where the user and the group libvirt-qemu exist: libvirt looks for them when it starts, and its
    driver's package alone does not create them."""
    script = 'mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group && shift && exec "$@"'
    for name, line in (("passwd", "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin\n"), ("group", "libvirt-qemu:x:64055:\n")):
        with open(f"/etc/{name}", encoding="utf-8") as real, open(f"{folder}/{name}", "w", encoding="utf-8") as ours:
            ours.writelines([text for text in real if not text.startswith("libvirt-qemu:")] + [line])
    return ["unshare", "-m", "sh", "-c", script, "sh", folder, *command]


@unittest.skipIf(reason_to_skip(), reason_to_skip())
class Libvirt(unittest.TestCase):
    """Probe, start, stop."""

    def assert_tap_of(self, root):
        """The guest's process holds the tap that libvirt made for the virtio card."""
        with open(root + "/run/qemu/vmm-test.pid", encoding="ascii") as file:
            folder = f"/proc/{file.read().strip()}/fd"
        taps = [fd for fd in os.listdir(folder) if os.readlink(f"{folder}/{fd}") == "/dev/net/tun"]
        self.assertEqual(len(taps), 1)

    def test_domain(self):
        with tempfile.TemporaryDirectory(prefix="vmm-virt-") as folder:
            for name in ("disk", "disc"):
                with open(f"{folder}/{name}", "wb") as image:
                    image.truncate(8 << 20)
            os.makedirs(folder + "/root/etc")
            with open(folder + "/root/etc/qemu.conf", "w", encoding="ascii") as conf:
                conf.write('user="root"\ngroup="root"\nsecurity_driver="none"\nnamespaces=[]\ncgroup_controllers=[]\n'
                           'stdio_handler="file"\nremember_owner=0\n')
            with open(folder + "/domain.xml", "w", encoding="ascii") as xml:
                xml.write(DOMAIN.format(vmm=os.path.realpath(vmmtest.VMM), folder=folder))
            process = subprocess.Popen(with_user(folder, ["virt-qemu-run", "-v", "-r", folder + "/root", folder + "/domain.xml"]),
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                       env={**os.environ, "LIBVIRT_LOG_FILTERS": "1:qemu.qemu_monitor 4:*",
                                            "LIBVIRT_LOG_OUTPUTS": f"1:file:{folder}/log"})
            text = ""
            try:
                for line in process.stdout:
                    text += line
                    if "guest running" in line:
                        break
                else:
                    self.fail(text)
                self.assert_tap_of(folder + "/root")
                process.send_signal(signal.SIGINT)
                text += process.communicate(timeout=60 * vmmtest.SLOW)[0]
            finally:
                process.kill()
                process.wait()
            self.assertIn("cleaned up", text)
            with open(folder + "/log", encoding="utf-8", errors="replace") as log:
                commands = set(re.findall(r'"execute":"([a-z_-]+)"', log.read()))
            self.assertLessEqual({"query-qmp-schema", "query-cpu-definitions", "query-block", "cont"}, commands)


if __name__ == "__main__":
    vmmtest.main()
