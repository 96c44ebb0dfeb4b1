#!/usr/bin/env python3
"""Migration side by side with QEMU: how long it takes, how long the guest stands still, how much of the line is used.

  migration.py [--runs N] [--only NAME] [--vmm BINARY] [--qemu BINARY] [--json FILE]

The guest has 512 MiB of RAM, 438 of them not zero; it is tests/payloads/dirtier.c, halted (idle) or rewriting page after page at
a given rate. vmm and QEMU take turns on the loopback; the table shows medians. QEMU runs with max-bandwidth at its largest, all
else is each one's default. "gap" is the longest time between two pages that the guest itself saw (its TSC).
"""

import argparse
import json
import os
import socket
import statistics
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
sys.path.insert(0, os.path.join(ROOT, "tests", "guest"))
import assets  # noqa: E402
import vmmtest  # noqa: E402

MEMORY, START, SIZE = 512, 40, 438
MB = 1e6


def tsc_hz():
    """From the kernel's calibration."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
        return int(float([line for line in info if line.startswith("cpu MHz")][0].split(":")[1]) * 1e6)


class Peer(vmmtest.Guest):
    """A guest of either program."""

    def __init__(self, line, *args):
        vmmtest._is_qemu = None
        super().__init__("-kernel", assets.payload("dirtier"), "-append", line, *args, memory=MEMORY)


def raw_loopback(total=438 << 20):
    """Bytes per second of a plain socket between two threads of two processes."""
    listener = socket.create_server(("127.0.0.1", 0))
    pid = os.fork()
    if not pid:
        peer, _ = listener.accept()
        buffer = bytearray(1 << 20)
        while peer.recv_into(buffer):
            pass
        os._exit(0)
    data = os.urandom(1 << 20)
    sock = socket.create_connection(listener.getsockname())
    start = time.monotonic()
    for _ in range(total >> 20):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    os.waitpid(pid, 0)
    return total / (time.monotonic() - start)


def migrate(binary, rate=None, params=None, check=True, incoming_args=None):
    """One migration; the figures as a dictionary. rate: pages/s, None: halted."""
    vmmtest.VMM = binary
    line = f"start={START}M size={SIZE}M quiet=1 " + (f"rate={rate} tsc={tsc_hz()}" if rate else "halt=1")
    with Peer(line) as a:
        a.serial.wait_for("ready", 120)
        if rate:
            a.serial.send("x")
            a.serial.wait_for(r"PASS.*\r", 120)       # warm, and the longest gap starts anew
        with Peer(line, *(incoming_args or ("-incoming", "tcp:127.0.0.1:0"))) as b:
            if vmmtest.is_qemu():
                a.qmp.execute("migrate-set-parameters", {"max-bandwidth": (1 << 63) - 1})
            if params:
                a.qmp.execute("migrate-set-parameters", params)
            address = b.qmp.command("query-migrate")["socket-address"][0]
            start = time.monotonic()
            a.qmp.command("migrate", uri=f"tcp:127.0.0.1:{address['port']}")
            info = vmmtest.poll(lambda: (lambda i: i if i["status"] in ("completed", "failed") else None)(
                a.qmp.command("query-migrate")), 300, interval=0.005)
            if info["status"] != "completed":
                raise RuntimeError(info)
            while not info["total-time"]:           # QEMU says "completed" a moment before it knows how long it took
                info = a.qmp.command("query-migrate")
            figures = {"total_ms": info["total-time"], "downtime_ms": info["downtime"],
                       "seen_ms": (time.monotonic() - start) * 1000, "rounds": info["ram"]["dirty-sync-count"],
                       "mb": info["ram"]["transferred"] / MB,
                       "mb_per_s": info["ram"]["transferred"] / MB / (info["total-time"] / 1000)}
            if "x-downtime" in info:
                figures["downtime_ms"] = info["x-downtime"]["total-us"] / 1000
                figures["parts_us"] = info["x-downtime"]
            if rate and check:
                b.serial.send("x")
                match = b.serial.wait_for(r"(PASS dirtier rounds=\d+ gap=(\d+)|FAIL.*)\r", 120)
                if not match[2]:
                    raise RuntimeError(match[0])
                figures["gap_ms"] = int(match[2]) / tsc_hz() * 1000
            return figures


CASES = {
    "idle": {},
    "dirty 20 MB/s": {"rate": 5000},
    "dirty 200 MB/s": {"rate": 50000},
}


def main():
    """Take turns, show medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only")
    parser.add_argument("--vmm", default=vmmtest.VMM)
    parser.add_argument("--qemu", default="qemu-system-x86_64")
    parser.add_argument("--no-qemu", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    results = {}
    for name, case in CASES.items():
        if args.only and args.only not in name:
            continue
        for run in range(args.runs):
            programs = [("vmm", args.vmm)] + ([] if args.no_qemu else [("qemu", args.qemu)])
            for who, binary in programs if run % 2 else reversed(programs):
                results.setdefault(name, {}).setdefault(who, []).append(migrate(binary, **case))
            results[name].setdefault("raw", []).append({"mb_per_s": raw_loopback() / MB})
    for name, sides in results.items():
        print(f"{name}:")
        for who, runs in sides.items():
            shown = {key: statistics.median(r[key] for r in runs) for key in runs[0] if key != "parts_us"}
            print(f"  {who:5}" + "  ".join(f"{key} {value:8.1f}" for key, value in shown.items()))
            if "parts_us" in runs[0]:
                print("       " + "  ".join(f"{key} {statistics.median(r['parts_us'][key] for r in runs):.0f}"
                                            for key in runs[0]["parts_us"]))
    if args.json:
        with open(args.json, "w", encoding="ascii") as file:
            json.dump(results, file, indent=1)
    return 0


if __name__ == "__main__":
    assert threading
    sys.exit(main())
