"""Tests of the other directories, run on a host with SVM (host.py), none of them skipped."""

import os
import re
import tempfile

import host
import vmmtest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def says(case, command, timeout=900):
    """What the command says there, with status 0. Skips the case where there can be no such host."""
    with tempfile.TemporaryFile() as output:
        try:
            status = host.run(command, timeout=timeout * vmmtest.SLOW, stdout=output)
        except host.assets.Missing as reason:
            case.skipTest(str(reason))
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    case.assertEqual(status, 0, text)
    return text


def passes(case, file, *names):
    """These tests (by default all) of a file below tests/ pass there."""
    text = says(case, ["python3", os.path.join(TESTS, file), *names])
    case.assertRegex(text, r"(?m)^[1-9]\d* passed, 0 failed, 0 skipped\s*$")
    print(*re.findall(r"(?m)^\d+ passed.*", text))
