#!/usr/bin/env python3
"""The documentation tells the truth: each example is executed, the pages have everything, the services are well-formed."""

import os
import re
import shutil
import subprocess
import sys
import unittest

import ctltest
import assets
from ctltest import BUILD, vmmtest

# What the README tells to type, and no test types.
README_EXCUSED = {
    "tools/quickstart": "installs packages, and ends when somebody types Ctrl-A x",
    "tools/check": "it is what runs this test",
    "tools/packages && meson setup build && ninja -C build && ninja -C build install": "how this program came to be",
}
XEN = "builder = 'hvm'\nname = 'winxp'\nmemory = 128\ndisk = [ 'file:/srv/xp.img,hda,w' ]\n"


def readme_lines():
    """Lines of the README that are commands."""
    with open(os.path.join(vmmtest.ROOT, "README.md"), encoding="utf-8") as stream:
        return [line for line in stream if line.startswith("    ")]


class Examples(ctltest.Case):
    """Of the verbs, as help and vmmctl(1) print them, and of the README."""

    def setUp(self):
        super().setUp()
        self.port = ctltest.free_port()
        self.there = self.path("host2")         # the other host: a run directory of its own

    def setting(self):
        """What the examples speak of."""
        reason = vmmtest.why_no_vmm()
        if reason:
            self.skipTest(reason)
        self.config("db", folder="etc", more=f"[disk]\nfile = {self.write('db.img', 'x' * 512)}\nformat = raw\n")
        self.config("web2")
        self.write("winxp.hvm", XEN)
        # A real processor and a guest that reacts, but none that takes more memory than an example leaves it.
        self.write("web.vmm", f"memory = 16\nmaxvcpus = 2\nkernel = {assets.payload('hotplug')}\n"
                              f"extra = {os.environ.get('VMM_TEST_ARGS', '')}\n")

    def ready(self):
        """The guest web runs."""
        if not self.row("web")[0]:
            self.ctl("create", "web.vmm")
            vmmtest.poll(lambda: "ready" in self.ctl("dmesg", "web"), 60, "the guest to be ready")

    def why_not(self, example):
        """Why this one cannot be executed here, or None. There is no other reason than these."""
        if "sched-credit -d" in example and not self.group:
            return "no cpu controller, or no right to make a control group"
        if "vmmctl console --print" in example and not vmmtest.has_module("vnc"):
            return "built without VNC"
        if "screenshot" in example and not vmmtest.has_module("png"):
            return "built without libpng"
        if "nic," in example and not vmmtest.has_module("slirp"):
            return "built without libslirp"
        return None

    def execute(self, example):
        """As an operator types it; host2 is here."""
        env = dict(self.env, EDITOR="true")
        command = example.replace("tcp:0:4444", f"tcp:127.0.0.1:{self.port}").replace(" web host2", f" -p {self.port} web 127.0.0.1")
        if "--incoming" in example:
            env["VMM_RUN_DIR"] = self.there
        elif "vmmctl create web.vmm" not in example:
            self.ready()
        if "sched-credit -d" in example:
            for pid in self.holders("web"):
                with open(f"{self.group}/cgroup.procs", "w", encoding="ascii") as procs:
                    procs.write(str(pid))
        run = subprocess.run(["bash", "-c", command], env=env, cwd=self.dir, text=True, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60 * vmmtest.SLOW, check=False)
        self.assertEqual(run.returncode, 0, run.stdout)
        if re.search("vmmctl (shutdown|destroy web$)", example):
            self.wait_gone()

    def all_of(self, examples):
        """Execute them, one after the other, in one setting."""
        self.setting()
        self.group = ctltest.cpu_group(self)
        for example in examples:
            with self.subTest(example=example):
                reason = self.why_not(example)
                if reason:
                    print(f"not executed: {example}: {reason}", file=sys.stderr)
                else:
                    self.execute(example)

    def test_every_example(self):
        verbs = self.json("help")["verbs"]
        for verb in verbs:
            self.assertTrue(verb["examples"], f"{verb['name']} has no example")
            for example in verb["examples"]:
                self.assertIn(f"vmmctl {verb['name']}", example.replace("--json ", ""))
        self.all_of([example for verb in verbs for example in verb["examples"]])

    def test_readme(self):
        """Its lines with vmmctl; those with vmm are tests/control/test_manual.py's."""
        lines = [re.sub(r"\s+#.*", "", line).strip() for line in readme_lines()]
        for line in lines:
            self.assertTrue(line.startswith(("vmm ", "vmmctl ")) or line in README_EXCUSED, f"nobody executes {line!r}")
        self.assertEqual(set(README_EXCUSED) - set(lines), set())
        ours = [line for line in lines if line.startswith("vmmctl ")]
        self.assertGreaterEqual(len(ours), 4)
        self.all_of(ours)

    def test_configuration_examples(self):
        """Understood without a warning; tests/ctl/test_nics.py starts them, on a host with the bridge they name."""
        ours, xen = ctltest.manual_examples("vmm.conf.5")
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
        shown = ctltest.manual_examples("vmmctl.1")
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
