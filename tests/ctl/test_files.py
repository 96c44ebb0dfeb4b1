#!/usr/bin/env python3
"""Verbs that work on files: create from each syntax, clone, edit, autostart, completion; what help and exit statuses say."""

import json
import os
import re
import subprocess
import unittest

import ctltest
from ctltest import BAD_CONFIG, FAILED, USAGE, vmmtest

XM = """# a file of xm's
kernel = '/usr/lib/xen/boot/hvmloader'
builder = 'hvm'
memory = 4
name = 'winxp'
disk = [ 'file:@DIR@/xp.img,hda,w', ',hdc:cdrom,r' ]
vif = [ 'type=ioemu, bridge=xenbr0' ]
vnc = 0
serial = 'pty'
usb = 1
on_reboot = 'destroy'
"""


class Create(ctltest.Case):
    """From a file to a command line."""

    def test_dry_run(self):
        path = self.config(boot="cd", more="[disk]\nfile = my disk.img\n[nic]\nmac = 52:54:00:00:00:01\n")
        line = self.ctl("create", "-n", path)
        self.assertIn(f"-drive 'file={os.path.realpath(self.dir)}/my disk.img,if=ide,index=0,media=disk'", line)
        self.assertIn("-device e1000,id=nic0,netdev=nic0-net,mac=52:54:00:00:00:01 ", line)
        words = self.json("create", "-n", path)
        self.assertEqual(words["command"][0], vmmtest.VMM)
        self.assertNotIn("warnings", words)
        self.assertEqual(self.names(), [])
        self.assertIn("-m size=8192K", self.ctl("create", "-n", path, "memory=8", "maxvcpus=3"))
        self.refused(BAD_CONFIG, "'guest.max-vcpus' not found", "create", "-n", path, "max_vcpus=3")
        self.refused(USAGE, "KEY=VALUE was expected", "create", "-n", path, "memory")

    def test_command_line_is_what_vmm_takes(self):
        """Not only words: vmm starts with every key there is."""
        disk = self.write("d.img", "x" * 65536)
        self.create(uuid="12345678-1234-1234-1234-123456789abc", vcpus=2, maxvcpus=4, cpu="qemu64", machine="kernel-irqchip=split",
                    boot="dc", acpi="on", rtc="localtime", description='"a guest"', on_crash="preserve", cpus="0", vga="none",
                    more=f"[disk]\nfile = {disk}\nformat = raw\ncache = writeback\naio = threads\n"
                         "target = hdb\n[disk]\nmedia = cdrom\n[disk]\nmedia=floppy\n"
                         "[serial]\n[serial]\ntype = pty\n[device]\ndriver = pvpanic-pci\naddr = 6\n")
        self.assertEqual(json.loads(self.ctl("qmp", "web", "query-uuid"))["UUID"], "12345678-1234-1234-1234-123456789abc")
        drives = json.loads(self.ctl("qmp", "web", "query-block"))
        self.assertEqual({d["device"]: d.get("inserted", {}).get("ro") for d in drives},
                         {"ide0-hd1": False, "ide1-cd0": None, "floppy0": None})
        # What runs can be looked at and started again as it is.
        self.ctl("create", "-n", "--format", "vmm", f"{self.run_dir}/web/config")

    def test_xen(self):
        self.write("xp.img", "x" * 65536)
        path = self.write("winxp.hvm", XM.replace("@DIR@", self.dir))
        line = self.ctl("create", "-n", path)
        self.assertIn("-name winxp", line)
        self.assertRegex(self.stderr, r"winxp.hvm:10:7: usb: ignored")
        self.assertIn("-netdev bridge,br=xenbr0,", line)
        path = self.write("winxp.hvm", XM.replace("@DIR@", self.dir).replace("vif =", "nics ="))    # there is no such bridge here
        self.ctl("create", path, "extra=-accel qtest " + os.environ.get("VMM_TEST_ARGS", ""))
        self.assertEqual(self.state("winxp"), "running")
        self.refused(BAD_CONFIG, r"code.py:1:1: this is Python code \('import'\)", "create",
                     self.write("code.py", "import os\n"))

    def test_mistakes(self):
        self.refused(BAD_CONFIG, r"bad.vmm:2:1: .*'guest.memroy' not found", "create", self.write("bad.vmm", "\nmemroy = 3\n"))
        self.refused(BAD_CONFIG, "there is no file nobody, and no configuration", "create", "nobody")
        self.refused(BAD_CONFIG, "is a directory", "create", self.dir)
        self.refused(BAD_CONFIG, "cannot be a guest's name", "create", self.config(), "name=../../etc")
        self.refused(BAD_CONFIG, "format 'toml'", "create", "--format", "toml", self.config())
        self.refused(BAD_CONFIG, "longer than 1 MiB", "create", self.write("big.vmm", "#" * (1 << 20) + "\n"))
        self.assertEqual(self.names(), [])
        # vmm's own word, when it is vmm that refuses
        self.refused(FAILED, "vmm did not start: .*nosuch", "create", self.config(more="[disk]\nfile = nosuch.img\n"))
        self.refused(FAILED, "vmm did not start: .*--nosuch", "create", self.config(extra="--nosuch"))
        self.refused(FAILED, "cannot run /nowhere/vmm|vmm did not start", "create", self.config(), env={"VMM": "/nowhere/vmm"})
        self.assertEqual(self.names(), [])

    def test_every_key_refuses_nonsense(self):
        """Each key with a type of its own, with the place of the value."""
        done = 0
        for section in self.json("help")["config"]:
            for key in section["keys"]:
                if key["type"] == "str":
                    continue
                text = f"# a line\n[{section['name']}]\n" if section["name"] else "# a line\n\n"
                path = self.write("x.vmm", f"{text}\t{key['name']} = nonsense\n")
                with self.subTest(key=key["name"]):
                    self.refused(BAD_CONFIG, rf"x\.vmm:3:{len(key['name']) + 5}: ", "create", "-n", path)
                done += 1
        self.assertGreater(done, 15)

    def test_names_in_the_configuration_directory(self):
        self.config(name="db", folder="etc")
        self.ctl("create", "db")
        self.assertEqual(self.state("db"), "running")


class Files(ctltest.Case):
    """clone, edit, autostart"""

    def test_clone(self):
        size = 64 << 20
        image = self.path("db.img")
        with open(image, "wb") as stream:
            stream.truncate(size)
            for at in (0, 20 << 20, size - 4096):
                stream.seek(at)
                stream.write(os.urandom(4096))
        self.write("x.iso", "iso")
        self.config(name="db", folder="etc", uuid="12345678-1234-1234-1234-123456789abc",
                    more=f"[disk]\nfile = {image}\nformat = raw\n[disk]\nfile = {self.path('x.iso')}\nmedia = cdrom\n"
                         "[nic]\nmac = 52:54:00:00:00:01\n")
        path = self.ctl("clone", "db", "db2").strip()
        self.assertEqual(path, self.path("etc", "db2.vmm"))
        copy = self.path("db2.img")
        with open(image, "rb") as a, open(copy, "rb") as b:
            self.assertEqual(a.read(), b.read())
        self.assertLess(os.stat(copy).st_blocks * 512, 1 << 20)
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        self.assertIn(f"file = {copy}\n", text)
        self.assertIn(f"file = {self.path('x.iso')}\n", text)
        self.assertIn("name = db2\n", text)
        for old, pattern in (("12345678-1234", r"uuid = [0-9a-f-]{14}4[0-9a-f]{3}-[89ab]"), ("00:00:01", r"mac = 52:54:00:..:..:..")):
            self.assertNotIn(old, text)
            self.assertRegex(text, pattern)
        self.refused(FAILED, "db2.vmm exists already", "clone", "db", "db2")
        os.unlink(path)
        self.refused(FAILED, "cannot create .*db2.img: File exists", "clone", "db", "db2")
        os.mkdir(self.path("other"))
        self.ctl("clone", "-d", self.path("other"), "db", "db2")
        self.assertEqual(os.listdir(self.path("other")), ["db2.img"])
        if vmmtest.has_module("slirp"):  # its card is on the user network
            self.ctl("create", "db")
            self.refused(FAILED, "db runs: its disks are not at rest", "clone", "db", "db3")
        self.refused(USAGE, "cannot be a guest's name", "clone", "db", "../db3")

    def test_clone_leaves_nothing_behind(self):
        """The second image cannot be copied: the first copy goes as well."""
        self.config(name="db", folder="etc", more=f"[disk]\nfile = {self.write('a.img', 'a')}\n[disk]\nfile = /dev/null\n")
        self.refused(FAILED, "/dev/null is no file", "clone", "db", "db2")
        self.assertEqual([f for f in os.listdir(self.dir) if "db2" in f], [])
        self.assertEqual(os.listdir(self.path("etc")), ["db.vmm"])

    def test_edit(self):
        path = self.config(name="db", folder="etc")
        os.chmod(path, 0o640)
        self.ctl("edit", "db", env={"EDITOR": "sed -i s/memory.*/memory=12/", "VISUAL": ""})
        with open(path, encoding="utf-8") as stream:
            good = stream.read()
        self.assertIn("memory=12", good)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o640)
        self.refused(BAD_CONFIG, r"db.vmm.new:1:1: ", "edit", "db", env={"EDITOR": "sed -i s/memory/memroy/"})
        self.refused(FAILED, "the editor failed", "edit", "db", env={"EDITOR": "false"})
        with open(path, encoding="utf-8") as stream:
            self.assertEqual(stream.read(), good)
        self.assertEqual(os.listdir(self.path("etc")), ["db.vmm"])

    def test_autostart(self):
        for name in ("a", "b", "c"):
            self.config(name=name, folder="etc")
        self.ctl("autostart", "a", "on")
        self.ctl("autostart", "c", "on")
        self.ctl("autostart", "c", "on")
        self.assertEqual(sorted(r["name"] for r in self.json("autostart")), ["a", "c"])
        self.ctl("autostart", "--start")
        self.assertEqual([r["name"] for r in self.json("list")], ["a", "c"])
        self.ctl("autostart", "a", "off")
        self.assertEqual(self.ctl("autostart"), "NAME\nc\n")
        self.refused(BAD_CONFIG, "there is no .*/d.vmm", "autostart", "d", "on")
        self.refused(USAGE, "on or off", "autostart", "c", "maybe")
        self.refused(USAGE, "cannot be a guest's name", "autostart", "../c", "on")
        self.assertIn("a  ", self.ctl("list", "--all"))


class Table(ctltest.Case):
    """What is made of the verb table."""

    def complete(self, *words):
        """What bash offers for the last word."""
        script = ('source <(vmmctl completion); COMP_WORDS=(vmmctl "$@"); COMP_CWORD=$#; _vmmctl; printf "%s\\n" "${COMPREPLY[@]}"')
        done = subprocess.run(["bash", "-c", script, "bash", *words], env=self.env, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.split()

    def test_completion(self):
        self.create("web")
        self.create("webber")
        self.config(name="db", folder="etc")
        self.assertEqual(self.complete("vcpu-"), ["vcpu-list", "vcpu-pin", "vcpu-set"])
        self.assertEqual(self.complete("pause", "we"), ["web", "webber"])
        self.assertEqual(self.complete("pause", "web", "webb"), ["webber"])
        self.assertEqual(self.complete("qmp", "web", "we"), [])
        self.assertEqual(self.complete("create", "d"), ["db"])
        self.assertEqual(self.complete("migrate", "--l"), ["--live"])
        self.assertEqual(self.complete("help", "scr"), ["screenshot"])
        self.assertIn("list", self.complete(""))

    def test_help(self):
        out = self.ctl("help")
        about = self.json("help")
        for verb in about["verbs"]:
            self.assertIn(f"\n  {verb['name']} ", out)
            text = self.ctl(verb["name"], "--help")
            self.assertEqual(text, self.ctl("help", verb["name"]))
            self.assertIn(f"Usage: vmmctl {verb['name']}", text)
            for option in verb["options"]:
                self.assertIn(f"--{option['name']}", text)
            self.assertTrue(max(map(len, verb["summary"].split("\n"))) < 80)
        self.assertEqual(self.ctl("--version").split()[0], "vmmctl")
        self.refused(USAGE, "a verb is missing")
        self.refused(USAGE, "did you mean 'list'", "lits")
        self.refused(USAGE, "did you mean --force", "reboot", "--forec")
        self.refused(USAGE, "wants a value", "create", "--format")
        self.refused(USAGE, "unknown option -Z", "list", "-Z")
        self.refused(USAGE, "too many arguments", "domid", "a", "b")
        self.refused(USAGE, "an argument is missing", "rename", "a")
        self.refused(USAGE, "--color", "list", "--color", "blue")
        self.ctl("list", "--color", "always")

    def test_every_verb_of_xm(self):
        xm = ("console create destroy domid domname dump-core list mem-set mem-max migrate pause unpause reboot rename restore save "
              "shutdown sysrq top uptime vcpu-list vcpu-pin vcpu-set dmesg info log sched-credit vnet-list").split()
        ours = [v["name"] for v in self.json("help")["verbs"]]
        self.assertEqual(set(xm) - set(ours), set())
        self.assertEqual(len(ours), len(set(ours)))

    def test_links_no_device_code(self):
        names = subprocess.run(["nm", ctltest.VMMCTL], stdout=subprocess.PIPE, text=True, check=True).stdout
        found = re.findall(r" [tTdDrR] ((?:machine|device|kvm|block|chardev|loop)_\w+)", names)
        self.assertEqual(found, [])


if __name__ == "__main__":
    vmmtest.main()
