#!/usr/bin/env python3
"""virtio-net side by side with QEMU: packets and bits per second, sent and received.

  net.py [--runs N] [--only NAME] [--check] [--vmm BINARY] [--qemu BINARY] [--json FILE]

The guest is tests/payloads/netload.c, which drives virtio-net in poll mode at CPL 3, with doorbells as the device asks for them. What it
sends goes into a tap that nobody listens to, or over a stream socket to a process that reads it; what it receives comes from netgen through
the tap, or over the socket. Both programs have the same tap, without vhost, and take turns; the table shows medians. Needs root: it
runs in a network namespace of its own.

"bells" are the guest's doorbells per 1000 packets. With --check the exit status is 1 if vmm moves less than QEMU by more than QEMU
differs from itself.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
sys.path.insert(0, os.path.join(ROOT, "tests", "guest"))
import assets  # noqa: E402
import vmmtest  # noqa: E402
from migration import tsc_hz  # noqa: E402

TAP = "bench0"
NOISE = 0.15
SECOND = 1.5            # about so long a measurement takes
GSO = 1448
IN_NAMESPACE = "VMM_BENCH_NAMESPACE"

# name: netdev, receive?, bytes of a frame, cut into, packets per second to start from
CASES = {
    "tap tx 64": ("tap", False, 64, 0, 300000),
    "tap tx 1500": ("tap", False, 1514, 0, 250000),
    "tap tx 64K gso": ("tap", False, 64000, GSO, 30000),
    "tap rx 64": ("tap", True, 64, 0, 200000),
    "tap rx 1500": ("tap", True, 1514, 0, 150000),
    "tap rx 64K gso": ("tap", True, 64000, GSO, 15000),
    "stream tx 64": ("stream", False, 64, 0, 200000),
    "stream tx 1500": ("stream", False, 1514, 0, 150000),
    "stream rx 64": ("stream", True, 64, 0, 300000),
    "stream rx 1500": ("stream", True, 1514, 0, 200000),
}


def enter_namespace():
    """Start again in a network namespace of our own; what is made there goes with it."""
    if os.environ.get(IN_NAMESPACE):
        return
    os.environ[IN_NAMESPACE] = "1"
    os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])


class Stream:
    """The other end of a stream netdev: takes all that comes, or sends frames as fast as they are taken."""

    def __init__(self, directory, receive, size):
        self.path = os.path.join(directory, "stream")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        frame = bytes.fromhex("020000000002020000000001 88b5") + bytes(size - 14)
        self.blob = (size.to_bytes(4, "big") + frame) * ((1 << 20) // (size + 4)) if receive else None
        self.go = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        try:
            peer = self.listener.accept()[0]
            self.go.wait()
            buffer = bytearray(1 << 20)
            while self.blob or peer.recv_into(buffer):
                if self.blob:
                    peer.sendall(self.blob)
        except OSError:
            pass

    def close(self):
        """Ends with the guest's end."""
        self.listener.close()
        os.unlink(self.path)


def measure(binary, case, netgen, seconds=SECOND):
    """One guest; packets/s, Gbit/s and doorbells per 1000 packets."""
    kind, receive, size, gso, guess = case
    vmmtest.VMM, vmmtest._is_qemu = binary, None
    count = int(guess * seconds)
    # Linux's buffers grow with what comes, up to a page.
    line = f"mode={int(receive)} size={size} gso={gso} count={count} warm={count // 5} buffer={4096 if gso else 1536}"
    with tempfile.TemporaryDirectory(prefix="vmm-bench-") as directory:
        stream = load = None
        if kind == "tap":
            netdev = f"tap,id=n,ifname={TAP},script=no,downscript=no"
        else:
            stream = Stream(directory, receive, size)
            netdev = f"stream,id=n,server=off,addr.type=unix,addr.path={stream.path}"
        try:
            with vmmtest.Guest("-kernel", assets.payload("netload"), "-append", line, "-netdev", netdev, "-device",
                               "virtio-net-pci,netdev=n,romfile=", memory=128) as guest:
                guest.serial.wait_for("ready", 60)
                if stream:
                    stream.go.set()
                elif receive:
                    load = subprocess.Popen([netgen, TAP, str(size), *([str(gso)] if gso else [])])
                said = guest.serial.wait_for(r"(PASS netload packets=(\d+) bytes=(\d+) ticks=(\d+) bells=(\d+)|FAIL.*)\r?\n", 120)
                if not said[2]:
                    raise RuntimeError(said[0])
        finally:
            if load:
                load.kill()
                load.wait()
            if stream:
                stream.close()
    packets, octets, ticks, bells = (int(said[i]) for i in range(2, 6))
    took = ticks / tsc_hz()
    return {"kpps": packets / took / 1e3, "gbit": octets * 8 / took / 1e9, "bells": bells * 1000 / packets}


def make_tap():
    """With what every user of taps has: a header for unfinished packets, and no traffic of the host's own."""
    for command in (["ip", "tuntap", "add", "dev", TAP, "mode", "tap", "vnet_hdr"],
                    ["sysctl", "-qw", f"net.ipv6.conf.{TAP}.disable_ipv6=1"],
                    ["ip", "link", "set", TAP, "up"]):
        if subprocess.run(command, check=False).returncode:
            print(f"net: skipped: '{' '.join(command)}' does not work here")
            sys.exit(77)


def main():
    """Take turns, show medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", help="cases whose name contains this")
    parser.add_argument("--check", action="store_true", help="fail if vmm moves less than QEMU")
    parser.add_argument("--vmm", default=vmmtest.VMM)
    parser.add_argument("--qemu", default="qemu-system-x86_64")
    parser.add_argument("--no-qemu", action="store_true")
    parser.add_argument("--netgen", default=os.path.join(ROOT, "build", "tests", "bench", "netgen"))
    parser.add_argument("--json")
    args = parser.parse_args()
    enter_namespace()
    make_tap()
    programs = {"vmm": args.vmm} if args.no_qemu else {"vmm": args.vmm, "qemu": args.qemu}
    results, missed = {}, False
    print(f"{'':16}" + "".join(f"{who + ' kpkt/s':>14}{'Gbit/s':>8}{'bells':>8}" for who in programs) +
          (f"{'vmm/QEMU':>10}" if len(programs) > 1 else ""), flush=True)
    for name, case in CASES.items():
        if args.only and args.only not in name:
            continue
        runs = {who: [] for who in programs}
        for run in range(args.runs):
            for who in programs if run % 2 else reversed(programs):
                runs[who].append(measure(programs[who], case, args.netgen))
        results[name] = runs
        shown = {who: {key: statistics.median(r[key] for r in taken) for key in taken[0]} for who, taken in runs.items()}
        line = f"{name:16}" + "".join(f"{s['kpps']:14.1f}{s['gbit']:8.2f}{s['bells']:8.1f}" for s in shown.values())
        if len(programs) > 1:
            ratio = shown["vmm"]["kpps"] / shown["qemu"]["kpps"]
            less = ratio < 1 - NOISE
            missed |= less
            line += f"{ratio:10.2f}" + ("  MISSED" if less else "")
        print(line, flush=True)
    if args.json:
        with open(args.json, "w", encoding="ascii") as file:
            json.dump(results, file, indent=1)
    return 1 if args.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
