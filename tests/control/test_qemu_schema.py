#!/usr/bin/env python3
"""Against QEMU 7.2: what it has and we have not stands in docs/qmp-left-out.txt with the reason, and nothing else does."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

from harness import Vmm, vmmtest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FIXTURE = os.path.join(ROOT, "tests", "fixtures", "qemu-7.2-qmp.txt")
LEFT_OUT = os.path.join(ROOT, "docs", "qmp-left-out.txt")


def interface(schema):
    """{"stop": {}, "balloon": {"value": True}, "event:RESET": {"guest": True ...}}; True: must be given."""
    entries = {e["name"]: e for e in schema}

    def members(name, prefix="", above=()):
        entry = entries[name]
        if entry["meta-type"] == "array":
            return members(entry["element-type"], prefix, above)
        found = {}
        if entry["meta-type"] == "object" and name not in above:
            for member in entry["members"]:
                path = prefix + member["name"]
                found[path] = "default" not in member
                found |= members(member["type"], path + ".", above + (name,))
        return found

    return {("event:" if e["meta-type"] == "event" else "") + e["name"]: members(e["arg-type"])
            for e in schema if e["meta-type"] in ("command", "event")}


def read_fixture():
    """The same from the file."""
    found = {}
    with open(FIXTURE, encoding="ascii") as lines:
        for line in lines:
            if not line.startswith("#"):
                kind, name, *args = line.split()
                found[("event:" if kind == "event" else "") + name] = {a.rstrip("?"): not a.endswith("?") for a in args}
    return found


def read_left_out():
    """The names in the list; each has a reason above it."""
    names, reason = [], None
    with open(LEFT_OUT, encoding="ascii") as lines:
        for line in lines:
            if line.startswith("= "):
                reason = line[2:].strip()
            elif line.strip() and not line.startswith("#"):
                assert reason and re.fullmatch(r"[A-Z].*[.]", reason), line
                names += line.split()
    assert len(set(names)) == len(names), "nothing twice"
    return set(names)


class AgainstQemu(unittest.TestCase):
    """The three: QEMU's interface, ours, and the list of differences."""

    @classmethod
    def setUpClass(cls):
        with Vmm() as vmm:
            cls.ours = interface(vmm.qmp.command("query-qmp-schema"))
        cls.theirs = read_fixture()
        cls.left_out = read_left_out()

    def test_what_is_missing_is_listed(self):
        missing = set()
        for name, args in self.theirs.items():
            if name not in self.ours:
                missing.add(name)
            else:
                lacks = {arg for arg in args if arg not in self.ours[name]}
                missing |= {f"{name}.{arg}" for arg in lacks if arg.rpartition(".")[0] not in lacks}
        self.assertEqual(sorted(missing - self.left_out), [], "QEMU has it: implement it, or say in docs/qmp-left-out.txt why not")
        self.assertEqual(sorted(self.left_out - missing), [], "it is there now: take it out of docs/qmp-left-out.txt")

    def test_nothing_more_is_demanded(self):
        """A request that QEMU takes has all that we ask for."""
        for name, args in self.theirs.items():
            demanded = {a for a, needed in self.ours.get(name, {}).items() if needed and "." not in a}
            self.assertLessEqual(demanded, {a for a, needed in args.items() if needed}, name)

    def test_our_own_are_marked(self):
        # QEMU had query-events until 6.0.
        self.assertEqual([n for n in self.ours if n not in self.theirs and not n.startswith(("x-", "event:X_"))], ["query-events"])

    def test_what_is_refused_is_named(self):
        with Vmm() as vmm:
            for name in ("query-sev", "drive-mirror", "nosuch"):
                with self.assertRaises(vmmtest.QMPError) as caught:
                    vmm.qmp.execute(name)
                self.assertEqual(caught.exception.error_class, "CommandNotFound")
                self.assertIn(name, caught.exception.desc)

    def test_the_manual_shows_it(self):
        with tempfile.TemporaryDirectory() as folder:
            page = folder + "/vmm-qmp.7"
            subprocess.run([sys.executable, os.path.join(ROOT, "docs", "gen-qmp-man.py"), vmmtest.VMM,
                            os.path.join(ROOT, "docs", "qmp-examples.txt"), page], check=True)
            with open(page, encoding="utf-8") as stream:
                text = re.sub(r"\\([-&])", lambda m: "-" if m[1] == "-" else "", stream.read())
        section = text.split('.SH "LEFT OUT"')[1].split(".SH ")[0].split()
        for name in self.left_out:
            self.assertIn(name.removeprefix("event:"), section)

    def test_the_file_is_qemus(self):
        qemu = shutil.which("qemu-system-x86_64")
        version = qemu and subprocess.run([qemu, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
        if not version or "version 7.2" not in version:
            self.skipTest("QEMU 7.2 is not installed")
        with tempfile.TemporaryDirectory() as folder:
            process = subprocess.Popen([qemu, "-S", "-accel", "tcg", "-m", "16", "-nodefaults", "-display", "none", "-qmp",
                                        f"unix:{folder}/qmp,server=on,wait=off"])
            try:
                vmmtest.poll(lambda: os.path.exists(folder + "/qmp"), 30, "QEMU's socket")
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(folder + "/qmp")
                    theirs = interface(vmmtest.QMP(sock).command("query-qmp-schema"))
            finally:
                process.kill()
                process.wait()
        for name in self.theirs:  # another build may have more
            self.assertEqual(self.theirs[name], theirs.get(name), name)


if __name__ == "__main__":
    vmmtest.main()
