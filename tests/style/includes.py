#!/usr/bin/env python3
"""The rooms' dependencies point one way: checks every #include, and that every public header compiles alone."""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# What a room may include besides its own folder and include/vmm/. Kernel and library headers that belong to one room only.
PRIVATE = {
    r"linux/kvm\.h": {"kvm", "sandbox", "ctl"},
    r"sys/epoll\.h": {"base"},
    r"libaio\.h|liburing\.h": {"block"},
    r"libfdt\.h": {"machine"},
    r"seccomp\.h|linux/seccomp\.h|linux/filter\.h": {"sandbox"},
    r"rfb/.*": {"display"},
    r"(n?curses|ncursesw/.*)\.h": {"display"},
    r"png\.h": {"display"},
    r"gnutls/.*": {"migration"},
    r"slirp/libslirp\.h": {"net"},
    r"jansson\.h": {"config", "control", "migration", "net", "ctl"},
}
# Public headers by the room that implements them, in the order of dependency.
ORDER = ["base", "config", "kvm", "block", "chardev", "net", "display", "devices", "machine", "migration", "control", "main"]
IMPLEMENTED_BY = {
    "machine.h": "machine", "kvm.h": "kvm", "control.h": "control", "block.h": "block", "chardev.h": "chardev", "net.h": "net",
    "display.h": "display", "input.h": "display", "config.h": "config", "prop.h": "config",
}
# Who may use the services of these headers.
USERS = {
    "machine.h": {"machine", "migration", "control", "main", "config"},
    "kvm.h": {"kvm", "machine", "migration", "control", "config"},
    "control.h": {"control", "main"}, "migration.h": {"migration", "control", "main", "devices", "machine"}, "ram.h": {"machine", "migration"},
}


def sources():
    for folder, _, files in os.walk(os.path.join(ROOT, "src")):
        for name in files:
            if name.endswith((".c", ".h")):
                yield os.path.join(folder, name)


def room_of(path):
    parts = os.path.relpath(path, os.path.join(ROOT, "src")).split(os.sep)
    return parts[0] if len(parts) > 1 else "main"


def check_file(path):
    room = room_of(path)
    rel = os.path.relpath(path, ROOT)
    for number, line in enumerate(open(path), 1):
        m = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
        if not m:
            continue
        header = m.group(1)
        for pattern, rooms in PRIVATE.items():
            if re.fullmatch(pattern, header) and room not in rooms:
                yield f"{rel}:{number}: <{header}> belongs to {', '.join(sorted(rooms))}"
        if header.startswith("vmm/"):
            allowed = USERS.get(header[4:])
            if allowed and room not in allowed:
                yield f"{rel}:{number}: {header} is not for {room}/"
            if room == "devices" and header in ("vmm/machine.h", "vmm/kvm.h", "vmm/control.h"):
                yield f"{rel}:{number}: a device includes {header}"
        elif header.startswith("src/"):
            other = header.split("/")[1]
            if other != room:
                yield f"{rel}:{number}: {room}/ includes a private header of {other}/"


def check_headers():
    folder = os.path.join(ROOT, "include", "vmm")
    for name in sorted(os.listdir(folder)):
        r = subprocess.run(
            ["cc", "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", os.path.join(ROOT, "include"),
             "-x", "c", "-"], input=f'#include "vmm/{name}"\n', text=True, capture_output=True)
        if r.returncode:
            yield f"include/vmm/{name} does not compile alone:\n{r.stderr}"


def main():
    faults = [f for path in sources() for f in check_file(path)] + list(check_headers())
    print("\n".join(faults) if faults else "includes point one way; headers compile alone")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
