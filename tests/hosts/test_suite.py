#!/usr/bin/env python3
"""A suite of the others on a host with SVM: test_suite.py BUILD SUITE. What it says is said on, and its log is left in the results."""

import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import svm      # noqa: E402


def main():
    """Run it; 77 when there can be no such host here."""
    build, suite = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="vmm-svm-test-") as work:
        out = os.environ.get("VMM_TEST_RESULTS", work)
        # What takes minutes to build is built here, where it takes minutes.
        svm.assets.run(sys.executable, os.path.join(HERE, "..", "guest", "assets.py"))
        command = f"meson test -C {build} --no-rebuild --print-errorlogs -t {svm.host.SLOW} --suite {suite} 2>&1 | cat; status=$?\n" \
                  f"cp {build}/meson-logs/testlog.txt $SVM_OUT/svm-{suite}.txt; exit $status"
        try:
            sys.exit(svm.run(["bash", "-o", "pipefail", "-c", command], timeout=4 * 3600, out=out))
        except svm.assets.Missing as reason:
            print(f"skipped: {reason}\n0 passed, 0 failed, 1 skipped")
            sys.exit(77)


if __name__ == "__main__":
    main()
