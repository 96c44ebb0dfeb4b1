#!/usr/bin/env python3
"""Migration side by side with QEMU: how long it takes, how long the guest stands still, how much of the line is used.

  migration.py [--runs N] [--only NAME] [--vmm BINARY] [--qemu BINARY] [--json FILE] [--check]

The guest has 512 MiB of RAM, 438 of them not zero; it is tests/payloads/dirtier.c, halted (idle) or rewriting page after page at
a given rate. vmm and QEMU take turns on the loopback; the table shows medians. QEMU runs with max-bandwidth at its largest, all
else is each one's default. "gap" is the longest time between two pages that the guest itself saw (its TSC).

The line's own speed is measured in turn with them: by iperf3, as anybody would measure it (if it is installed; "iperf3-reno": with that
congestion control, where the system's own is another), and without any VMM and
without checksums by limits/rawsocket.c, which moves as much memory between two processes in the largest pieces: "warm" into memory that is there already, "hot" one buffer in the processor's caches again and again,
the others into memory that was never touched, as a destination's is, in the ways that there are ("best" of these). The host's memory
is warmed right before each migration: what its hypervisor has yet to find is no program's fault. --check compares with the limits (LIMITS) and
fails if one is missed; the throughput's is against iperf3 and "best".

"vmm+" and "qemu+" are the same with a destination that has reserved its memory before the guest came (-mem-prealloc). "source" and
"dest" are milliseconds of processor time that each side's process took for the migration.

  migration.py --still [--runs N] ...

The idle guest's part without /dev/kvm: RAM of the same size and share, filled by this program (random bytes in a shared file) before the
guest starts; vmm runs with -accel qtest, QEMU (which Debian builds without that) with -accel tcg -S. No processor runs at either end.

  migration.py --moves N [--busy K] [--runs N] ...

One guest of 64 MiB that writes 40 MB/s and five times a second to its IDE disk (cache=none) moves N times from process to process,
with K busy loops on the host beside it and as many writers that fsync(): the distribution of its pauses, as the program says and as
the guest saw them ("gap"; 26 ms of it are the guest's own pace).

  migration.py --rings [--runs N] [--vmm BINARY]

KVM's dirty log and its dirty rings (-accel kvm,dirty-ring-size=) in turn, for guests of several sizes with one and two vCPUs that write
1 or 16 MiB at a steady rate or as fast as they can: total time, pause, rounds, and how many pages a second the guest still writes while
its migration goes on (for which the line is so slow that it does not end; rounds are read once a second).
"""

import argparse
import functools
import json
import mmap
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
sys.path.insert(0, os.path.join(ROOT, "tests", "guest"))
import assets  # noqa: E402
import vmmtest  # noqa: E402

MEMORY, START, SIZE = 512, 40, 438
IPERF3_PORT = 5209
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


class Still(vmmtest.Guest):
    """A guest of either program whose processors never run, its RAM filled beforehand (file) or to be received."""

    def __init__(self, *args, file=None):
        vmmtest._is_qemu = None
        vmmtest.ACCEL = "tcg" if vmmtest.is_qemu() else "qtest"
        more = ("-S",) if vmmtest.is_qemu() else ()
        machine = ""
        if file:
            machine = "memory-backend=pc.ram"
            more += ("-object", f"memory-backend-file,id=pc.ram,size={MEMORY}M,mem-path={file},share=on")
        super().__init__(*more, *args, memory=MEMORY, machine=machine)


@functools.cache
def filled_file():
    """A file that is a guest's RAM: SIZE MiB from START on are random."""
    file = tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="vmm-bench-")     # pylint: disable=consider-using-with
    file.truncate(MEMORY << 20)
    for piece in range(START, START + SIZE):
        file.seek(piece << 20)
        file.write(os.urandom(1 << 20))
    file.flush()
    return file


def cpu_ms(guest):
    """Processor time of a process so far, its ended threads' too."""
    return time.clock_gettime(~guest.pid << 3 | 2) * 1000       # what clock_getcpuclockid(3) answers


def warm_host():
    """The kernel hands out first what was freed last: memory that the host of this machine, if it is a virtual one, has as well.
    A balloon's driver that reports free pages (/sys/module/page_reporting) gives it back within seconds."""
    with mmap.mmap(-1, 3 * MEMORY << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area.madvise(mmap.MADV_HUGEPAGE)        # as both programs ask for it
        for at in range(0, len(area), mmap.PAGESIZE):
            area[at] = 1


def raw_figures(program, ways):
    """What the line does without a VMM, MB/s."""
    figures = {}
    for way in ways:
        warm_host()
        if way.startswith("iperf3"):
            if shutil.which("iperf3"):
                figures[way] = iperf3(way.partition("-")[2])
        else:
            figures.update(json.loads(subprocess.run([program, str(SIZE), way], stdout=subprocess.PIPE, check=True).stdout))
    figures["best"] = max(figures[way] for way in ways if way not in ("hot", "warm") and not way.startswith("iperf3"))
    return figures


def iperf3(congestion):
    """What the program that networks are measured with gets out of one connection, as much data as the guest's, MB/s."""
    more = ["-C", congestion] if congestion else []
    with subprocess.Popen(["iperf3", "-s", "-1", "-B", "127.0.0.1", "-p", str(IPERF3_PORT), "--forceflush"], stdout=subprocess.PIPE) as server:
        server.stdout.readline()
        server.stdout.readline()        # it listens
        done = subprocess.run(["iperf3", "-c", "127.0.0.1", "-p", str(IPERF3_PORT), "-n", f"{SIZE}M", "-J", *more], stdout=subprocess.PIPE, check=True)
        server.stdout.read()
    return json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 8 / MB


def both_ends(a, b, params=None):
    """The migration itself: query-migrate's answer, and the figures that do not depend on the guest."""
    if vmmtest.is_qemu():
        a.qmp.execute("migrate-set-parameters", {"max-bandwidth": (1 << 63) - 1})
    if params:
        a.qmp.execute("migrate-set-parameters", params)
    a.qmp.execute("migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": True}]})
    address = b.qmp.command("query-migrate")["socket-address"][0]
    warm_host()
    used = cpu_ms(a), cpu_ms(b)
    start = time.monotonic()
    a.qmp.command("migrate", uri=f"tcp:127.0.0.1:{address['port']}")
    # No asking meanwhile: on two processors that is a tenth of the work.
    a.qmp.wait_event("MIGRATION", 300, lambda data: data["status"] in ("completed", "failed"))
    seen = (time.monotonic() - start) * 1000
    info = a.qmp.command("query-migrate")
    if info["status"] != "completed":
        raise RuntimeError(info)
    while not info["total-time"]:           # QEMU says "completed" a moment before it knows how long it took
        info = a.qmp.command("query-migrate")
    figures = {"total_ms": info["total-time"], "downtime_ms": info["downtime"],
               "seen_ms": seen, "rounds": info["ram"]["dirty-sync-count"],
               "mb": info["ram"]["transferred"] / MB,
               "mb_per_s": info["ram"]["transferred"] / MB / (info["total-time"] / 1000),
               "source": cpu_ms(a) - used[0], "dest": cpu_ms(b) - used[1]}
    if "x-downtime" in info:
        figures["downtime_ms"] = info["x-downtime"]["total-us"] / 1000
        figures["parts_us"] = info["x-downtime"]
    return figures


def migrate_still(binary, incoming_args=None):
    """One migration of a guest without processors."""
    vmmtest.VMM = binary
    with Still(file=filled_file().name) as a, Still(*(incoming_args or ("-incoming", "tcp:127.0.0.1:0"))) as b:
        return both_ends(a, b)


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
            figures = both_ends(a, b, params)
            if rate and check:
                b.serial.send("x")
                match = b.serial.wait_for(r"(PASS dirtier rounds=\d+ gap=(\d+).*|FAIL.*)\r", 120)
                if not match[2]:
                    raise RuntimeError(match[0])
                figures["gap_ms"] = int(match[2]) / tsc_hz() * 1000
            return figures


class Roamer(vmmtest.Guest):
    """A guest with a disk that can be moved."""

    LINE = "start=32M size=8M quiet=1 disk=1 rate=10000"

    def __init__(self, binary, image, *args):
        vmmtest.VMM, vmmtest._is_qemu = binary, None
        super().__init__("-kernel", assets.payload("dirtier"), "-append", f"{self.LINE} tsc={tsc_hz()}", "-drive",
                         f"file={image},format=raw,if=ide,index=0,cache=none", *args, memory=64)

    def check(self):
        """All is right; the longest gap since the last check, in ms."""
        self.serial.send("x")
        match = self.serial.wait_for(r"(PASS dirtier rounds=\d+ gap=(\d+).*|FAIL.*)\r", 120)
        if not match[2]:
            raise RuntimeError(match[0])
        return int(match[2]) / tsc_hz() * 1000

    def move(self, binary, image):
        """To a new process: that, and query-migrate's answer."""
        dest = Roamer(binary, image, "-incoming", "tcp:127.0.0.1:0")
        try:
            address = dest.qmp.command("query-migrate")["socket-address"][0]
            self.check()
            self.qmp.command("migrate", uri=f"tcp:127.0.0.1:{address['port']}")
            info = vmmtest.poll(lambda: (lambda i: i if i["status"] in ("completed", "failed") else None)(
                self.qmp.command("query-migrate")), 120)
            if info["status"] != "completed":
                raise RuntimeError(info)
            return dest, self.qmp.command("query-migrate")
        except BaseException:
            dest.close()
            raise


def host_load(busy, directory):
    """Processes that keep the host at work; their pids."""
    pids = []
    for number in range(2 * busy):
        pid = os.fork()
        if not pid:
            with open(os.path.join(directory, f"load{number}"), "wb", buffering=0) as file:
                while True:
                    if number < busy:
                        sum(range(100000))
                        continue
                    file.seek(0)
                    file.write(bytes(4 << 20))
                    os.fsync(file.fileno())
        pids.append(pid)
    return pids


def roam(binary, moves, directory):
    """The pauses of so many moves: what the program says, what the guest saw, and the program's parts."""
    image = os.path.join(directory, "disk")
    with open(image, "wb") as file:
        file.truncate(1 << 20)
    guest, pauses, gaps, parts = Roamer(binary, image), [], [], []
    try:
        guest.serial.wait_for("ready", 60)
        for _ in range(moves):
            old = guest
            guest, info = old.move(binary, image)
            old.close()
            gaps.append(guest.check())
            part = info.get("x-downtime", {})
            pauses.append(part["total-us"] / 1000 if part else info["downtime"])
            parts.append(part)
    finally:
        guest.close()
    return pauses, gaps, parts


def show_moves(args):
    """--moves: the programs take turns."""
    programs = [("vmm", args.vmm)] + ([] if args.no_qemu else [("qemu", args.qemu)])
    results = {who: ([], [], []) for who, _ in programs}
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        pids = host_load(args.busy, directory)
        try:
            for run in range(args.runs):
                for who, binary in programs if run % 2 else reversed(programs):
                    for all_runs, one in zip(results[who], roam(binary, args.moves, directory)):
                        all_runs += one
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    for who, (pauses, gaps, parts) in results.items():
        for what, values in (("pause", pauses), ("gap", gaps)):
            values = sorted(values)
            print(f"{who:5}{what:6}{len(values):4} moves, ms: " + "  ".join(
                f"{name} {values[min(len(values) - 1, int(len(values) * part))]:.1f}"
                for name, part in (("least", 0), ("median", .5), ("90%", .9), ("99%", .99), ("most", 1))))
        worst = sorted(zip(pauses, parts), key=lambda pair: -pair[0])[:5]
        for pause, part in worst if parts[0] else ():
            print(f"     {pause:8.1f}  " + "  ".join(f"{name} {value}" for name, value in part.items()))
    if args.json:
        with open(args.json, "w", encoding="ascii") as file:
            json.dump(results, file, indent=1)
    return 0


class Writer(vmmtest.Guest):
    """A guest with much or little memory that writes a small part of it."""

    def __init__(self, binary, memory_mib, size, cpus, rate, ring, *args):
        vmmtest.VMM, vmmtest._is_qemu = binary, None
        super().__init__("-kernel", assets.payload("dirtier"), "-append",
                         f"start=32M size={size}M quiet=1 rate={rate} cpus={cpus} tsc={tsc_hz()}",
                         *(["-accel", f"kvm,dirty-ring-size={ring}"] if ring else []), *args, memory=memory_mib, cpus=cpus)

    def pages(self):
        """All is right; how many pages were written so far, and when."""
        self.serial.send("x")
        match = self.serial.wait_for(r"(PASS dirtier rounds=\d+ gap=\d+ pages=(\d+).*|FAIL.*)\r", 120)
        if not match[2]:
            raise RuntimeError(match[0])
        return int(match[2]), time.monotonic()


def ring_figures(binary, *shape):
    """One guest: what it writes while its migration cannot end, then the migration."""
    with Writer(binary, *shape) as a, Writer(binary, *shape, "-incoming", "tcp:127.0.0.1:0") as b:
        a.serial.wait_for("ready", 60)
        (p0, t0), _ = a.pages(), time.sleep(1)
        (p1, t1) = a.pages()
        size = shape[1]
        a.qmp.execute("migrate-set-parameters", {"max-bandwidth": size << 20, "downtime-limit": 1})     # a round in a second
        address = b.qmp.command("query-migrate")["socket-address"][0]
        a.qmp.command("migrate", uri=f"tcp:127.0.0.1:{address['port']}")
        vmmtest.poll(lambda: a.qmp.command("query-migrate").get("ram", {}).get("dirty-sync-count", 0) >= 2, 60)
        (p2, t2), _ = a.pages(), time.sleep(3)
        (p3, t3) = a.pages()
        rounds = a.qmp.command("query-migrate")["ram"]["dirty-sync-count"]
        a.qmp.execute("migrate-set-parameters", {"max-bandwidth": 0, "downtime-limit": 300})
        start = time.monotonic()
        info = vmmtest.poll(lambda: (lambda i: i if i["status"] in ("completed", "failed") else None)(a.qmp.command("query-migrate")),
                            120, interval=0.005)
        if info["status"] != "completed":
            raise RuntimeError(info)
        b.pages()
        return {"free_pages_s": (p1 - p0) / (t1 - t0), "pages_s": (p3 - p2) / (t3 - t2), "end_ms": (time.monotonic() - start) * 1000,
                "pause_ms": info["x-downtime"]["total-us"] / 1000, "final_ms": info["x-downtime"]["final-pages-us"] / 1000,
                "rounds": info["ram"]["dirty-sync-count"] - rounds}


def show_rings(args):
    """--rings: log and rings take turns."""
    ways = {"log": 0, "ring 4096": 4096, "ring 65536": 65536}
    results = {}
    for memory_mib in (64, 512, 4096):
        for size in (1, 16):
            for cpus in (1, 2):
                for rate in (5000, 0):
                    shape = f"{memory_mib} MiB, {size} MiB written, {cpus} vCPU, {rate or 'max'} pages/s"
                    for run in range(args.runs):
                        for way, ring in ways.items() if run % 2 else reversed(ways.items()):
                            results.setdefault(shape, {}).setdefault(way, []).append(
                                ring_figures(args.vmm, memory_mib, size, cpus, rate, ring))
                    print(shape)
                    for way in ways:
                        runs = results[shape][way]
                        print(f"  {way:10}" + "  ".join(f"{key} {statistics.median(r[key] for r in runs):9.1f}" for key in runs[0]), flush=True)
    if args.json:
        with open(args.json, "w", encoding="ascii") as file:
            json.dump(results, file, indent=1)
    return 0


CASES = {
    "idle": {},
    "dirty 20 MB/s": {"rate": 5000},
    "dirty 200 MB/s": {"rate": 50000},
}


# case, what, the limit, and how the figure comes from the medians
LIMITS = (
    ("idle", "total / QEMU's", 0.8, lambda m: m["vmm"]["total_ms"] / m["qemu"]["total_ms"]),
    ("idle", "iperf3 / throughput", 1 / 0.8, lambda m: m["raw"]["iperf3"] / m["vmm"]["mb_per_s"]),
    ("idle", "iperf3 / throughput, reserved", 1 / 0.8, lambda m: m["raw"]["iperf3"] / m["vmm+"]["mb_per_s"]),
    ("idle", "best socket / throughput", 1 / 0.8, lambda m: m["raw"]["best"] / m["vmm"]["mb_per_s"]),
    ("idle", "downtime ms", 10, lambda m: m["vmm"]["downtime_ms"]),
    ("dirty 20 MB/s", "total / QEMU's", 0.8, lambda m: m["vmm"]["total_ms"] / m["qemu"]["total_ms"]),
    ("dirty 200 MB/s", "total / QEMU's", 0.8, lambda m: m["vmm"]["total_ms"] / m["qemu"]["total_ms"]),
    ("dirty 200 MB/s", "downtime ms", 30, lambda m: m["vmm"]["downtime_ms"]),
)


def check_limits(medians):
    """Print each limit with its figure; how many were missed."""
    missed = 0
    for case, what, limit, figure in LIMITS:
        if case not in medians or ("QEMU" in what and "qemu" not in medians[case]):
            continue
        if "iperf3" in what and "iperf3" not in medians[case]["raw"]:
            print(f"{case + ': ' + what:40} not measured: iperf3 is not installed")
            continue
        value = figure(medians[case])
        missed += value > limit
        print(f"{case + ': ' + what:40} {value:8.2f}  limit {limit:6.2f}  {'MISSED' if value > limit else 'ok'}")
    return missed


def main():
    """Take turns, show medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only")
    parser.add_argument("--vmm", default=vmmtest.VMM)
    parser.add_argument("--qemu", default="qemu-system-x86_64")
    parser.add_argument("--rawsocket", default=os.path.join(ROOT, "build", "tests", "bench", "rawsocket"))
    parser.add_argument("--ways", default="iperf3,iperf3-reno,hot,warm,touched,prepared,mapped,written,spliced",
                        help="those of rawsocket to measure, and iperf3")
    parser.add_argument("--no-qemu", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--check", action="store_true", help="fail if a limit is missed")
    parser.add_argument("--moves", type=int, help="the pauses of many moves of one guest instead")
    parser.add_argument("--busy", type=int, default=0, help="for --moves: busy loops, and as many writers, on the host")
    parser.add_argument("--rings", action="store_true", help="dirty log and dirty rings in turn instead")
    parser.add_argument("--still", action="store_true", help="without /dev/kvm: a guest without processors")
    parser.add_argument("--dir", help="for --moves: where the guest's disk and the writers' files are")
    args = parser.parse_args()
    if args.rings:
        return show_rings(args)
    if args.moves:
        return show_moves(args)
    results, medians = {}, {}
    programs = [("vmm", args.vmm)] + ([] if args.no_qemu else [("qemu", args.qemu)])
    programs += [(who + "+", binary) for who, binary in programs]
    for name, case in CASES.items():
        if (args.only and args.only not in name) or (args.still and name != "idle"):
            continue
        for run in range(args.runs):
            for who, binary in programs if run % 2 else reversed(programs):
                incoming = ("-incoming", "tcp:127.0.0.1:0", *(["-mem-prealloc"] if "+" in who else []))
                results.setdefault(name, {}).setdefault(who, []).append(
                    migrate_still(binary, incoming) if args.still else migrate(binary, **case, incoming_args=incoming))
            if name == "idle":
                results[name].setdefault("raw", []).append(raw_figures(args.rawsocket, args.ways.split(",")))
    for name, sides in results.items():
        print(f"{name}:")
        for who, runs in sorted(sides.items()):
            shown = {key: statistics.median(r[key] for r in runs) for key in runs[0] if key != "parts_us"}
            medians.setdefault(name, {})[who] = shown
            print(f"  {who:5}" + "  ".join(f"{key} {value:8.1f}" for key, value in shown.items()))
            if "parts_us" in runs[0]:
                print("       " + "  ".join(f"{key} {statistics.median(r['parts_us'][key] for r in runs):.0f}"
                                            for key in runs[0]["parts_us"]))
    if args.json:
        with open(args.json, "w", encoding="ascii") as file:
            json.dump(results, file, indent=1)
    return 1 if args.check and check_limits(medians) else 0


if __name__ == "__main__":
    sys.exit(main())
