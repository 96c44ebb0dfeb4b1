#!/usr/bin/env python3
"""
The command lines that libvirt writes (tests/fixtures/libvirt-argv.txt): each is taken whole, or refused with the sentence the
fixture gives. What is a file, socket or fd of the recorded host is replaced; nothing else is.
"""

import fcntl
import os
import re
import socket
import struct
import subprocess
import unittest

from harness import Vmm, run, vmmtest

FIXTURE = os.path.join(vmmtest.ROOT, "tests", "fixtures", "libvirt-argv.txt")
DISK = 1 << 20
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454ca, 0x0002, 0x1000, 0x4000
# The least a multiboot kernel can be: magic, flags (addresses follow), checksum; header, start, end, bss, entry
MULTIBOOT = struct.pack("<8I", 0x1badb002, 0x10000, 0xe4514ffe, 0x100000, 0x100000, 0, 0, 0x100000)
FILES = {"/var/lib/libvirt/qemu/domain--1-x/master-key.aes": b"k" * 32, "/a.raw": bytes(DISK), "/u.raw": bytes(DISK),
         "/a.img": bytes(1474560), "/k": MULTIBOOT, "/i": b"initrd", "/srv/lab/p": None}


def sections():
    """[(name, options, replaced options, pattern of the refusal or None)], BASE first."""
    found = []
    with open(FIXTURE, encoding="utf-8") as stream:
        for line in stream.read().splitlines():
            if line.startswith("## "):
                found.append([line[3:], [], [], None])
            elif line.startswith("(instead of) "):
                found[-1][2].append(line[len("(instead of) "):])
            elif line.startswith("! "):
                found[-1][3] = line[2:]
            elif line and not line.startswith("#"):
                found[-1][1].append(line)
    return found


class CommandLines(unittest.TestCase):
    """One machine for each section; all that is wrong is told at once."""

    def setUp(self):
        self.peer = socket.create_server(("127.0.0.1", 0))     # for those who connect
        self.addCleanup(self.peer.close)
        master, self.terminal = os.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, self.terminal)

    def prepare(self, folder):
        self.daemon = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.daemon.close)
        self.daemon.bind(os.path.join(folder, "fs0-fs.sock"))
        self.daemon.listen()
        for name, content in FILES.items():
            path = os.path.join(folder, name.strip("/").replace("/", "_"))
            if content is None:
                os.mkfifo(path)
                continue
            with open(path, "wb") as stream:
                stream.write(content)

    def tap(self, match):
        """A tap as libvirt opens it for virtio: the number of its descriptor; of nothing at all where none can be made."""
        try:
            fd = os.open("/dev/net/tun", os.O_RDWR)
            self.taps.append(fd)
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        except OSError as error:
            self.not_here = f"taps: {error}"
            return match.group()
        return f'"fd":"{fd}"'

    def local(self, option):
        """An option of the recorded host as one of ours."""
        option = re.sub(r'"fd":"\d+"', self.tap, option)
        for name in FILES:
            option = re.sub(rf'(["=]){re.escape(name)}(?=["]|$)', rf'\1@DIR@/{name.strip("/").replace("/", "_")}', option)
        option = re.sub(r"path=/\S*?/([^/,]+)(?=,|$)", r"path=@DIR@/\1", option)
        option = re.sub(r"logfile=/[a-z/]*/([a-z0-9.]+)", r"logfile=@DIR@/\1", option)
        option = re.sub(r"^(-[ki]\w+) /(\w)$", r"\1 @DIR@/\2", option)
        option = option.replace("-accel kvm", "-accel qtest")
        option = re.sub(r"-vnc (\d+\.){3}\d+:\d+", "-vnc unix:@DIR@/vnc", option)
        option = re.sub(r"vnc=unix:/\S+?(?=,)", "vnc=unix:@DIR@/vnc", option)
        option = option.replace("port=4555", "port=0" if "server=on" in option else f"port={self.peer.getsockname()[1]}")
        option = option.replace('path=@DIR@/ttyS0', f"path={os.ttyname(self.terminal)}").replace('"/a.qcow2"', '"@DIR@/a.raw"')
        return option.replace('"aio":"native",', "").replace('"direct":true', '"direct":false')  # what /tmp may not have

    def expected(self, note):
        """(pattern of the refusal or None, whether it may be taken as well) out of the fixture's note."""
        if not note:
            return None, True
        if note.startswith("may say "):
            return note[len("may say "):], True
        kind, _, name = note.rpartition(" ")
        if kind == "no driver":
            return (None, True) if name in self.drivers else (f"'{name}' is not a valid device model name", False)
        return (name, True) if kind == "no blockdev" else (note, False)

    def start(self, options):
        """None, or why it does not start."""
        words, self.taps, self.not_here = [], [], None
        for option in options:
            words += self.local(option).split(" ", 1)
        try:
            with Vmm(*words, prepare=self.prepare, pass_fds=self.taps) as vmm:
                status = vmm.qmp.command("query-status")["status"]
                return None if status == "prelaunch" else f"it is {status}"
        except ConnectionError as error:
            if vmmtest.lacks_module(str(error)):
                self.not_here = "built without that part"
            return str(error).rsplit("exited with ", 1)[-1].strip()
        finally:
            for fd in self.taps:
                os.close(fd)

    def test_all(self):
        base, *rest = sections()
        wrong, refused = [], []
        help_text = subprocess.run([vmmtest.VMM, "-device", "help"], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.drivers = set(re.findall(r'^name "([^"]+)"', help_text, re.M)) | set(re.findall(r'alias "([^"]+)"', help_text))
        self.assertIsNone(self.start(base[1]))
        for name, added, replaced, note in rest:
            pattern, may_start = self.expected(note)
            missing = [r for r in replaced if r not in base[1]]
            self.assertEqual(missing, [], f"{name}: BASE has no such option")
            why = self.start([o for o in base[1] if o not in replaced] + added)
            if self.not_here:
                refused.append(f"  {name}: not tried here: {self.not_here}")
            elif why and pattern and re.search(pattern, why):
                refused.append(f"  {name}: {why}")
            elif why or not may_start:
                wrong.append(f"{name}: {why or 'starts, but the fixture says it is refused: ' + pattern}")
        print(f"{len(rest) - len(refused) - len(wrong)} command lines taken, {len(refused)} refused:", *refused, sep="\n")
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))

    def test_what_is_not_there_is_told(self):
        for arguments, pattern in ((("-nic", "vde"), "network back end 'vde' is not offered"),
                                   (("-netdev", "vde,id=n"), "network back end 'vde' is not offered"),
                                   (("-k", "de"), "keyboard layout 'de' is not offered"),
                                   (("-spice", "port=1"), "SPICE is not offered: use -vnc"),
                                   (("-overcommit", "mem-lock=perhaps"), "expects 'on' or 'off'"),
                                   (("-usb",), "USB controllers are not offered")):
            status, text = run(*arguments)
            self.assertEqual(status, 1, arguments)
            self.assertIn(pattern, text)
        with Vmm("-nic", "none", "-k", "en-us", "-vnc", "none,audiodev=a", "-audiodev", "none,id=a") as vmm:
            options = [o["option"] for o in vmm.qmp.command("query-command-line-options")]
            self.assertIn("netdev", options)        # clients take what is listed for offered
            self.assertNotIn("spice", options)


if __name__ == "__main__":
    vmmtest.main()
