"""Tests of the other directories, run on an emulated host (svm.py, vmx.py), none of them skipped."""

import os
import re
import tempfile

import vmmtest
from host import TOOK_TOO_LONG, assets

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def says(case, host, command, timeout=900, **options):
    """What the command says there, with status 0. Skips the case where there can be no such host.

    On a busy machine the emulated kernel stands still now and then, and no time-out there ends that: such a host is started once more.
    """
    for _ in range(2):
        with tempfile.TemporaryFile() as output:
            try:
                status = host.run(command, timeout=timeout * vmmtest.SLOW, stdout=output, **options)
            except assets.Missing as reason:
                case.skipTest(str(reason))
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
        if status != TOOK_TOO_LONG:
            break
        print(f"the host stood still after:\n{text}")
    case.assertEqual(status, 0, text)
    return text


def pass_all(case, host, tests, checks=(), timeout=900, **options):
    """These tests pass there, in one start of the host. tests: files below tests/, each with the names of its tests (none: all); checks:
    what a shell finds true before; options are the host's."""
    lines = [*checks] + [" ".join(["python3", os.path.join(TESTS, file), *names]) for file, names in tests.items()]
    text = says(case, host, ["sh", "-ec", "\n".join(lines)], timeout, **options)
    totals = re.findall(r"(?m)^([1-9]\d*) passed, 0 failed, 0 skipped\s*$", text)
    case.assertEqual(len(totals), len(tests), text)
    for names, passed in zip(tests.values(), totals):
        case.assertIn(int(passed), (len(names),) if names else range(1, 1000), text)
    print(*re.findall(r"(?m)^\d+ passed.*", text))
