#!/usr/bin/env python3
"""The documentation tells the truth: each example is executed, the pages have everything, the services are well-formed."""

import os
import re
import shutil
import subprocess
import unittest

import ctltest
from ctltest import vmmtest

BUILD = os.path.dirname(os.path.dirname(os.path.dirname(ctltest.VMMCTL)))
XEN = "builder = 'hvm'\nname = 'winxp'\nmemory = 128\ndisk = [ 'file:/srv/xp.img,hda,w' ]\n"


class Examples(ctltest.Case):
    """Of the verbs, as help and vmmctl(1) print them."""

    @unittest.skipIf(vmmtest.why_no_vmm(), vmmtest.why_no_vmm())
    def test_every_example(self):
        self.config("db", folder="etc", more=f"[disk]\nfile = {self.write('db.img', 'x' * 512)}\nformat = raw\n")
        self.config("web2")
        self.write("winxp.hvm", XEN)
        done = 0
        for verb in self.json("help")["verbs"]:
            for example in verb["examples"]:
                with self.subTest(example=example):
                    self.assertIn(f"vmmctl {verb['name']}", example.replace("--json ", ""))
                    if not self.row("web")[0]:
                        # A real processor, for those who look at its thread; paused, because it has nothing to do.
                        self.ctl("create", "-p", self.write("web.vmm", "memory = 16\nmaxvcpus = 2\n" +
                                                        f"extra = {os.environ.get('VMM_TEST_ARGS', '')}\n"))
                    run = subprocess.run(["bash", "-c", example], env=dict(self.env, EDITOR="true"), cwd=self.dir, text=True,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                         timeout=60 * vmmtest.SLOW, check=False)
                    if run.returncode and (vmmtest.lacks_module(run.stdout) or
                                           ("no screen on VNC" in run.stdout and not vmmtest.has_module("vnc"))):
                        continue
                    self.assertEqual(run.returncode, 0, run.stdout)
                    done += 1
        self.assertGreater(done, 40)

    def blocks(self, page):
        """The example blocks of a page, as they are read."""
        with open(os.path.join(BUILD, "docs", page), encoding="utf-8") as stream:
            text = stream.read()
        plain = lambda t: t.replace(r"\(aq", "'").replace(r"\-", "-").replace(r"\&", "").replace(r"\e", "\\")
        return [plain(block) for block in re.findall(r"^\.EX\n(.*?)\n\.EE", text, re.S | re.M)]

    def test_configuration_examples(self):
        ours, xen = self.blocks("vmm.conf.5")
        line = self.ctl("create", "-n", self.write("x.vmm", ours))
        self.assertIn("-name web", line)
        self.assertEqual(self.stderr, "")
        line = self.ctl("create", "-n", self.write("x.hvm", xen))
        self.assertIn("-name winxp", line)
        self.assertEqual(self.stderr, "")

    def test_pages_have_everything(self):
        about = self.json("help")
        for page in ("vmmctl.1", "vmm.conf.5"):
            if shutil.which("man"):
                done = subprocess.run(["man", "-l", "--warnings", os.path.join(BUILD, "docs", page)], stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, env=dict(os.environ, MANWIDTH="200", MANPAGER="cat"), check=False)
                self.assertEqual((done.returncode, done.stderr), (0, b""))
        with open(os.path.join(BUILD, "docs", "vmmctl.1"), encoding="utf-8") as stream:
            page = stream.read().replace(r"\-", "-")
        for verb in about["verbs"]:
            self.assertIn(f'.SS "{verb["name"]}"', page)
            for option in verb["options"]:
                self.assertIn(f"--{option['name']}", page)
        shown = self.blocks("vmmctl.1")
        examples = [e for verb in about["verbs"] for e in verb["examples"]]
        self.assertEqual("\n".join(shown).split("\n"), examples)
        with open(os.path.join(BUILD, "docs", "vmm.conf.5"), encoding="utf-8") as stream:
            page = stream.read().replace(r"\-", "-")
        for section in about["config"]:
            for key in section["keys"]:
                self.assertIn(f"\\fB{key['name']}\\fR =", page)

    def test_files_of_the_run_directory(self):
        """What is there is documented, and nothing else."""
        self.create()
        with open(os.path.join(BUILD, "docs", "vmmctl.1"), encoding="utf-8") as stream:
            page = stream.read()
        for name in os.listdir(f"{self.run_dir}/web"):
            self.assertRegex(page, rf"\.IR? .*{re.escape(name)}")


class Services(ctltest.Case):
    """The systemd units."""

    @unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze")
    def test_units(self):
        paths = []
        for unit in ("vmm@.service", "vmm-guests.service"):
            with open(os.path.join(BUILD, "src/ctl", unit), encoding="utf-8") as stream:
                text = stream.read()
            command = re.search(r"ExecStart=(\S+)/vmmctl ", text)
            self.assertTrue(command, text)
            paths.append(self.write(unit, text.replace(command[1] + "/vmmctl", ctltest.VMMCTL)))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", *paths], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=60 * vmmtest.SLOW, check=False)
        ours = [line for line in done.stdout.splitlines() if "vmm" in line]
        self.assertEqual(ours, [])


if __name__ == "__main__":
    vmmtest.main()
