#!/usr/bin/env python3
"""Every name under which something logs can be given to -d, and every name of -d logs something."""

import os
import re
import sys

root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CALL = re.compile(r'\blog_(?:error|warn|info|debug|guest|write|limited)\s*\((?:[^"();]*,)?\s*"([^"]*)"', re.S)

used = {}
for top in ("src", "modules"):
    for folder, _, files in os.walk(os.path.join(root, top)):
        for name in files:
            path = os.path.join(folder, name)
            if not name.endswith((".c", ".h")) or path.startswith(os.path.join(root, "src/ctl")):
                continue
            with open(path, encoding="utf-8") as stream:
                for room in CALL.findall(stream.read()):
                    used.setdefault(room, os.path.relpath(path, root))
with open(os.path.join(root, "src/base/log.c"), encoding="utf-8") as stream:
    table = stream.read().split("} rooms[] = {", 1)[1].split("};", 1)[0]
listed = re.findall(r'\{"([^"]+)", "[^"]+"\}', table)

problems = [f"{path}: logs as {room!r}, which is not in rooms[] of src/base/log.c"
            for room, path in sorted(used.items()) if room not in listed and "%" not in room]
problems += [f"src/base/log.c: nothing logs as {room!r}" for room in listed if room not in used]
if listed != sorted(listed):
    problems.append("src/base/log.c: rooms[] is not sorted")
print("\n".join(problems) or f"{len(listed)} rooms")
sys.exit(bool(problems))
