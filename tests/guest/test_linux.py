#!/usr/bin/env python3
"""Linux 6.1 to a shell in user space: by -kernel and by GRUB from disk and CD.

One boot takes 10-60 s where KVM emulates kernel code, so every boot checks several things: what
the firmware or loader handed over, the root file system, the CD, both consoles, the clock, and
the way out through ACPI.
"""

import ctypes
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets   # noqa: E402
import vmmtest  # noqa: E402

BOOT = 300      # seconds to user space on the slowest host
COMMAND = 60    # for one shell command
CLONE_NEWNET = 0x40000000
TROUBLE = r"Call Trace|BUG:|Oops|nobody cared|lost interrupt|ata\d.*(exception|timeout|failed)" \
          r"|soft lockup|rcu.*stall|ACPI (BIOS )?Error|Kernel panic"


class LinuxCase(vmmtest.TestCase):
    """What the Linux tests share."""

    def setUp(self):
        self.work = tempfile.TemporaryDirectory(prefix="vmm-linux-")
        self.addCleanup(self.work.cleanup)
        try:
            self.kernel_dir = assets.kernel()
        except assets.Missing as error:
            self.skipTest(str(error))

    def own_network(self, *commands):
        """A network namespace for this thread and what it starts, until the test ends, set up with these commands of ip(8)."""
        libc = ctypes.CDLL(None, use_errno=True)
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.addCleanup(os.close, before)
        if libc.unshare(CLONE_NEWNET):
            self.skipTest(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        self.addCleanup(libc.setns, before, CLONE_NEWNET)
        for command in commands:
            if subprocess.run(["ip", *command.split()], check=False).returncode:
                self.skipTest(f"'ip {command}' does not work here")

    def disk(self):
        """-drive with a copy of the test disk."""
        self.disk_path = assets.copy(assets.linux_disk(), self.work.name, "disk.img")
        return ["-drive", f"file={self.disk_path},format=raw,if=ide,index=0"]

    def shell(self, guest, command):
        """Type a command at the serial console; return its output."""
        self.assertLess(len(command), 200)      # the guest's line discipline has its limit
        guest.serial.send(f"echo '<''<'; {command}; echo '>''>'$?\n")
        match = guest.serial.wait_for(rb"<<\r?\n([\s\S]*?)>>(\d+)\r?\n", COMMAND)
        output = match[1].decode("utf-8", "replace").replace("\r", "")
        output = re.sub(r"(?m)^\[ *\d+\.\d+\] .*\n", "", output)      # the kernel talks meanwhile: a busy host's clock ...
        self.assertEqual(match[2], b"0", f"{command}: {output}")
        return output

    def reaches_user_space(self, guest, root):
        """Wait for the shell; root is a part of the root file system's name in /proc/mounts."""
        match = guest.serial.wait_for(r"VMM-TEST user space, root on (\S+)[\r\n]|Kernel panic.*", BOOT)
        self.assertTrue(match[1], guest.serial.text()[-3000:])
        self.assertIn(root, match[1].decode())
        guest.serial.wait_for("guest# ", COMMAND)
        print(f"[user space after {guest.seconds():.1f} s]", end=" ", file=sys.stderr, flush=True)

    def processors(self, guest, count):
        self.assertEqual(self.shell(guest, "nproc").strip(), str(count))

    def reads_cd(self, guest):
        expected = hashlib.sha256(assets.cd_file_contents()).hexdigest()
        output = self.shell(guest, f"mount -t iso9660 -o ro /dev/sr0 /mnt && "
                                   f"sha256sum /mnt/{assets.CD_FILE}")
        self.assertIn(expected, output)

    def reads_disk(self, guest):
        self.assertEqual(self.shell(guest, "cat /etc/issue-of-the-disk").strip(),
                         "read from the root file system")

    def writes_disk(self, guest):
        """Write through the file system; the host finds the bytes in the image afterwards."""
        self.shell(guest, "mount -o remount,rw / && echo written-by-''the-guest >/mark && "
                          "sync && mount -o remount,ro /")

    def wrote_disk(self):
        with open(self.disk_path, "rb") as stream:
            self.assertIn(b"written-by-the-guest\n", stream.read())

    def keyboard(self, guest):
        """Type at the PS/2 keyboard; the shell on tty1 answers over the serial port."""
        guest.type_text("echo keys-a1-Z >/dev/ttyS0\n")
        guest.serial.wait_for("keys-a1-Z", COMMAND)

    def screen(self, guest):
        """What was typed is on the VGA text screen (PVH tells Linux of no VGA, BIOS boots do)."""
        self.assertIn("guest# echo keys-a1-Z", guest.wait_screen("keys-a1-Z", 30))
        guest.screendump()

    def clock(self, guest):
        """The RTC was read as UTC."""
        seconds = int(self.shell(guest, "date -u +%s"))
        self.assertLess(abs(seconds - time.time()), 30)

    def no_trouble(self, guest):
        self.assertIsNone(re.search(TROUBLE, guest.serial.text()),
                          re.findall(f".*(?:{TROUBLE}).*", guest.serial.text()))

    def powers_off(self, guest):
        """`poweroff -f`: ACPI S5 ends the VMM with status 0."""
        guest.serial.send("poweroff -f\n")
        event = guest.qmp.wait_event("SHUTDOWN", 60)
        self.assertEqual(event["data"], {"guest": True, "reason": "guest-shutdown"})
        self.assertEqual(guest.wait_exit(30), 0)

    def power_button(self, guest):
        """system_powerdown presses the ACPI power button: Linux counts the event of its interrupt."""
        count = "read -r n rest </sys/firmware/acpi/interrupts/ff_pwr_btn; echo $n"
        self.assertEqual(self.shell(guest, count).strip(), "0")
        guest.qmp.command("system_powerdown")
        guest.qmp.wait_event("POWERDOWN", 10)
        vmmtest.poll(lambda: self.shell(guest, count).strip() == "1", COMMAND, "the power button's event")


class Kernel(LinuxCase):
    """-kernel, without GRUB."""

    def test_pvh_initramfs(self):
        """PVH ELF and initramfs; one processor; kernel-irqchip=on."""
        with self.guest("-kernel", assets.vmlinux(), "-initrd", assets.initramfs(),
                        "-append", assets.CMDLINE, "-cdrom", assets.linux_iso(),
                        irqchip="on", cpu=vmmtest.cpu_model()) as guest:
            self.reaches_user_space(guest, "rootfs")
            self.processors(guest, 1)
            self.reads_cd(guest)
            self.clock(guest)
            self.keyboard(guest)
            self.power_button(guest)
            self.no_trouble(guest)
            self.powers_off(guest)

    def test_bzimage_disk_root(self):
        """bzImage with its root on the disk; two processors; kernel-irqchip=split."""
        with self.guest("-kernel", assets.bzimage(), *self.disk(), "-cdrom", assets.linux_iso(),
                        "-append", assets.CMDLINE + " root=/dev/sda1 ro rootfstype=ext2",
                        cpus=2, irqchip="split", cpu=vmmtest.cpu_model(2)) as guest:
            self.reaches_user_space(guest, "/dev/root")
            self.processors(guest, 2)
            self.reads_disk(guest)
            self.reads_cd(guest)
            self.writes_disk(guest)
            self.no_trouble(guest)
            self.powers_off(guest)
        self.wrote_disk()


class Grub(LinuxCase):
    """GRUB to its menu, its command line, and on to Linux."""

    def menu(self, guest):
        guest.serial.wait_for("GNU GRUB", 150)
        guest.serial.wait_for("vmm test: Linux", 60)
        self.assertIn("vmm test: Linux", guest.wait_screen("vmm test: Linux", 30))
        print(f"[menu after {guest.seconds():.1f} s]", end=" ", file=sys.stderr, flush=True)

    def from_disk(self, cpus, irqchip):
        with self.guest(*self.disk(), "-cdrom", assets.linux_iso(), "-boot", "c", cpus=cpus,
                        irqchip=irqchip, cpu=vmmtest.cpu_model(cpus)) as guest:
            self.menu(guest)
            guest.serial.send("c")
            guest.serial.wait_for("grub> ", 60)
            guest.serial.send("echo vmm-$grub_platform\r")
            guest.serial.wait_for("vmm-pc", 60)
            guest.screendump(self.evidence() + "-grub")
            guest.serial.send("\x1b")
            guest.serial.wait_for("vmm test: Linux", 60)
            guest.serial.send("\r")
            self.reaches_user_space(guest, "/dev/root")
            self.processors(guest, cpus)
            self.reads_disk(guest)
            self.reads_cd(guest)
            self.writes_disk(guest)
            self.keyboard(guest)
            self.screen(guest)
            self.no_trouble(guest)
            self.powers_off(guest)
        self.wrote_disk()

    def test_disk_two_cpus_irqchip_on(self):
        self.from_disk(2, "on")

    def test_disk_one_cpu_irqchip_split(self):
        self.from_disk(1, "split")

    def test_cd(self):
        """From the CD; the command is typed on the PS/2 keyboard and answered on the screen."""
        with self.guest("-cdrom", assets.linux_iso(), "-boot", "d",
                        irqchip="split") as guest:
            self.menu(guest)
            guest.send_keys("c")
            guest.wait_screen("grub>", 60)
            guest.type_text("ls (cd)/\n")
            guest.wait_screen(assets.CD_FILE, 60)
            guest.screendump()
            self.assertEqual(guest.quit(), 0)


if __name__ == "__main__":
    vmmtest.main()
