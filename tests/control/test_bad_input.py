#!/usr/bin/env python3
"""What an operator gets wrong: each mistake gets one clear sentence that names it, exit status 1, and harms nothing."""

import os
import socket
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402
import vmmtest  # noqa: E402

BASE = [vmmtest.VMM, "-accel", "qtest", "-display", "none", "-nodefaults"]

# (arguments, words the message must contain)
MISTAKES = [
    (["-m", "0"], ["-m", "too little"]),
    (["-m", "100T"], ["-m", "1 TiB"]),
    (["-m", "512Q"], ["-m", "512Q"]),
    (["-smp", "0"], ["-smp", "at least one"]),
    (["-smp", "10000"], ["10000", "255"]),
    (["-smp", "4,sockets=3"], ["-smp", "sockets"]),
    (["-hda", "@DIR@/missing.img"], ["missing.img", "No such file"]),
    (["-hda", "@DIR@"], ["directory"]),
    (["-hda", "@DIR@/empty.img"], ["empty.img"]),
    (["-drive", "file=@DIR@/disk.img,format=qcow9"], ["qcow9"]),
    (["-drive", "file=@DIR@/disk.img,format=raw,cache=maybe"], ["cache", "maybe"]),
    (["-drive", "file=@DIR@/disk.img,format=raw,aio=native"], ["aio=native"]),
    (["-drive", "file=@DIR@/disk.img,format=raw,if=virtio"], ["if=ide"]),
    (["-drive", "fil=@DIR@/disk.img"], ["fil"]),
    (["-drive", "file=@DIR@/disk.img,format=raw,index=4"], ["-drive", "if=ide,bus=2,unit=0"]),
    (["-drive", "file=@DIR@/disk.img,format=raw,if=floppy,index=2"], ["-drive", "floppy", "unit"]),
    (["-drive", "file=@DIR@/disk.img,format=raw,bus=0,unit=2"], ["-drive", "unit"]),
    (["-drive", "file=@DIR@/disk.img,format=raw,readonly=on"], ["ide0-hd0", "read-only"]),
    (["-hda", "@DIR@/disk.img", "-hdb", "@DIR@/disk.img"], ["write", "lock"]),
    (["-kernel", "@DIR@/disk.img"], ["disk.img", "no kernel"]),
    (["-kernel", "@DIR@/missing"], ["missing"]),
    (["-initrd", "@DIR@/disk.img"], ["-initrd", "-kernel"]),
    (["-append", "quiet"], ["-append", "-kernel"]),
    (["-bios", "@DIR@/missing.bin"], ["missing.bin"]),
    (["-bios", "@DIR@/odd.img"], ["odd.img"]),
    (["-machine", "q35"], ["q35"]),
    (["-machine", "pc,hpet=on"], ["hpet"]),
    (["-machine", "pc,kernl-irqchip=on"], ["kernl-irqchip", "kernel-irqchip"]),
    (["-machine", "pc,max-ram-below-4g=1"], ["max-ram-below-4g=1", "1 MiB"]),
    (["-device", "ide-hdd"], ["ide-hdd", "ide-hd"]),
    (["-device", "isa-debugcon,chardv=x"], ["chardv", "chardev"]),
    (["-device", "ide-hd,drive=nothing"], ["nothing"]),
    (["-device", "isa-debugcon,chardev=nobody"], ["nobody"]),
    (["-machne", "pc"], ["-machne", "-machine"]),
    (["-sandbox", "perhaps"], ["sandbox"]),
    (["-rtc", "base=yesterday"], ["yesterday"]),
    (["-uuid", "1234"], ["-uuid", "1234"]),
    (["-vga", "voodoo"], ["voodoo"]),
    (["-monitor", "nonsense"], ["-monitor", "nonsense"]),
    (["-serial", "nonsense:1"], ["nonsense"]),
    (["-qmp", "unix:@DIR@/busy,server=on,wait=off"], ["busy"]),
    (["-serial", "tcp:127.0.0.1:99999,server=on,wait=off"], ["-serial", "99999", "65535"]),
    (["-serial", "tcp:127.0.0.1:-1,server=on,wait=off"], ["-serial", "-1"]),
    (["-netdev", "stream,id=n,server=on,addr.type=inet,addr.host=127.0.0.1,addr.port=70000"], ["-netdev", "70000"]),
    (["-qmp", "tcp:127.0.0.1:@PORT@,server=on,wait=off"], ["@PORT@"]),
    (["-pidfile", "@DIR@/no/such/dir"], ["-pidfile"]),
    (["-runas", "nobody-at-all"], ["-runas", "nobody-at-all"]),
    (["-D", "@DIR@/no/such/log"], ["-D"]),
    (["-cdrom"], ["-cdrom", "argument"]),
    (["-smbios", "type=1,manufactrer=x"], ["manufactrer"]),
    (["-fw_cfg", "name=opt/x,file=@DIR@/missing"], ["missing"]),
    (["-boot", "ordr=c"], ["ordr", "order"]),
    (["-boot", "once=x"], ["-boot", "'x'"]),
    (["-boot", "cdna"], ["Too many boot devices"]),
    (["-boot", "cdc"], ["'c'", "twice"]),
    (["-global", "isa-fdc"], ["-global", "DRIVER.PROPERTY"]),
    (["-global", "driver=isa-fdc,property=driveA"], ["-global", "DRIVER.PROPERTY"]),
    (["-global", "isa-fdc.drivA=x"], ["-global", "drivA", "driveA"]),
    (["-global", "isa-debugcon.iobsae=1"], ["-global", "iobsae", "iobase"]),
]


class BadInput(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="vmm-bad-")
        self.addCleanup(self.dir.cleanup)
        for name, size in (("disk.img", 1 << 20), ("odd.img", 1000), ("empty.img", 0)):
            with open(self.path(name), "wb") as stream:
                stream.truncate(size)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        busy = socket.socket(socket.AF_UNIX)
        busy.bind(self.path("busy"))
        busy.listen()
        self.addCleanup(busy.close)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def fill(self, text):
        return text.replace("@DIR@", self.dir.name).replace("@PORT@", str(self.listener.getsockname()[1]))

    def run_vmm(self, args):
        return subprocess.run(BASE + [self.fill(a) for a in args], capture_output=True, text=True, timeout=30,
                              stdin=subprocess.DEVNULL)

    def test_each_mistake_gets_one_sentence(self):
        for args, words in MISTAKES:
            with self.subTest(" ".join(args)):
                result = self.run_vmm(args)
                lines = [line for line in result.stderr.splitlines() if "warning" not in line]
                self.assertEqual(result.returncode, 1, result.stderr)
                self.assertEqual(len(lines), 1, result.stderr)
                self.assertTrue(lines[0].startswith("vmm: "), lines[0])
                for word in words:
                    self.assertIn(self.fill(word), lines[0])

    def test_images_keep_their_contents(self):
        with open(self.path("disk.img"), "r+b") as stream:
            stream.write(b"precious")
        self.run_vmm(["-hda", self.path("disk.img"), "-smp", "0"])
        self.run_vmm(["-hda", self.path("disk.img"), "-hdb", self.path("disk.img")])
        with open(self.path("disk.img"), "rb") as stream:
            self.assertEqual(stream.read(8), b"precious")
        self.assertEqual(os.path.getsize(self.path("disk.img")), 1 << 20)

    def test_globals(self):
        """Both spellings reach a device of a short option; one that can have no effect gets a warning, as in QEMU."""
        for spelling in ("isa-debugcon.iobase=0x402", "driver=isa-debugcon,property=iobase,value=0x402"):
            with self.subTest(spelling), harness.Vmm("-debugcon", "file:@DIR@/log", "-global", spelling, "-qtest",
                                                     "unix:@DIR@/qtest,server=on,wait=off") as vmm:
                qtest = vmm.qtest()
                qtest.ask("outb 0x402 0x41")
                qtest.close()
                with open(vmm.path("log"), encoding="ascii") as stream:
                    vmmtest.poll(lambda: stream.read() == "A", 10, "the byte in the log")    # pylint: disable=cell-var-from-loop
                self.assertEqual(vmm.stderr(), "")
        for option, words in (("isa-debugcn.iobase=1", ["isa-debugcn.iobase=1", "isa-debugcon"]),
                              ("isa-debugcon.iobase=1", ["has no isa-debugcon"])):
            with self.subTest(option), harness.Vmm("-global", option) as vmm:
                for word in ["warning", *words]:
                    self.assertIn(word, vmm.stderr())
        with harness.Vmm("-global", "pvpanic-pci.events=1") as vmm:     # one may be plugged in
            self.assertEqual(vmm.stderr(), "")

    def test_odd_memory_sizes_work(self):
        for size in ("1", "63", "3583", "3584", "4095", "5000", "1T"):
            with self.subTest(size), harness.Vmm("-m", size) as vmm:
                self.assertEqual(vmm.qmp.execute("query-status")["status"], "running")

    @unittest.skipUnless(os.access("/dev/kvm", os.R_OK | os.W_OK), "no usable /dev/kvm")
    def test_more_memory_than_the_host_has_is_refused(self):
        result = subprocess.run([vmmtest.VMM, "-nodefaults", "-display", "none", "-m", "1T"], capture_output=True, text=True,
                                timeout=30)
        self.assertEqual(result.returncode, 1)
        self.assertIn("more than this host has", result.stderr)

    def test_help_texts_are_complete(self):
        for args, words in (
                (["--help"], ["-machine", "-qmp", "-sandbox"]), (["--version"], ["vmm version"]),
                (["-device", "help"], ["ide-hd", "VGA", "isa-serial"]), (["-machine", "help"], ["pc-i440fx-7.2"]),
                (["-machine", "pc,help"], ["kernel-irqchip", "dumpdtb"]), (["-accel", "help"], ["kvm"]),
                (["-cpu", "help"], ["qemu64", "Nehalem", "pentium3"]), (["-cpu", "?"], ["qemu64"]),
                (["-device", "ide-hd,help"], ["serial", "drive"]), (["-device", "ide-hd,?"], ["serial", "drive"]),
                (["-chardev", "help"], ["stdio", "pty", "socket", "file", "pipe", "null", "ringbuf", "serial"]),
                (["-chardev", "socket,help"], ["path", "wait"]), (["-netdev", "user,?"], ["hostfwd"]),
                (["-smp", "help"], ["maxcpus", "threads"]), (["-m", "?"], ["slots"]), (["-rtc", "help"], ["driftfix"]),
                (["-boot", "help"], ["strict", "once"]), (["-action", "help"], ["watchdog"]), (["-vga", "help"], ["std"]),
                (["-display", "help"], ["curses", "vnc"]), (["-d", "help"], ["guest_errors"])):
            with self.subTest(" ".join(args)):
                result = subprocess.run([vmmtest.VMM] + args, capture_output=True, text=True, timeout=30)
                self.assertEqual(result.returncode, 0, result.stderr)
                for word in words:
                    self.assertIn(word, result.stdout)


if __name__ == "__main__":
    unittest.main()
