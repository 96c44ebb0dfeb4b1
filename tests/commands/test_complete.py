#!/usr/bin/env python3
"""Every command, event and subject of `info` that this server has is shown by a test of this directory, and only those."""

import glob
import importlib.util
import os
import re

from exercise import CLAIMS, REFUSED, HERE, Case, vmmtest


class Complete(Case):
    """The claims of all files against the lists of a running guest."""

    maxDiff = None

    def test_all_are_shown(self):
        for path in sorted(glob.glob(os.path.join(HERE, "test_*.py"))):
            if path != os.path.realpath(__file__):
                spec = importlib.util.spec_from_file_location("shows_" + os.path.basename(path)[:-3], path)
                spec.loader.exec_module(importlib.util.module_from_spec(spec))
        guest = self.start()
        schema = guest.qmp.command("query-qmp-schema")
        there = {e["name"] for e in schema if e["meta-type"] in ("command", "event")}
        there |= {"info " + s for s in re.findall(r"^info (\S+) --", self.hmp(guest, "help info"), re.M)}
        self.assertGreater(len(there), 180)
        self.assertEqual(sorted(there - set(CLAIMS) - set(REFUSED)), [], "shown by no test")
        self.assertEqual(sorted((set(CLAIMS) | set(REFUSED)) - there), [], "shown, but not there")
        self.assertEqual(sorted(set(CLAIMS) & set(REFUSED)), [], "shown and refused")


if __name__ == "__main__":
    vmmtest.main()
