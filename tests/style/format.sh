#!/bin/sh
# Every C file in the tree is formatted as .clang-format says. The reference version is Debian 12's; others differ in details.
set -eu
cd "$(dirname "$0")/../.."
command -v clang-format >/dev/null || { echo "clang-format is not installed"; exit 77; }
clang-format --version | grep -q 'version 14\.' || { echo "needs clang-format 14 (Debian 12)"; exit 77; }
git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror
