#!/usr/bin/env python3
"""Measure vmm side by side with QEMU and with the limit of bare KVM.

Every run takes vmm, QEMU and the limit program in turn, in alternating order, so that a noisy
machine disturbs all alike; the table shows medians. Figures are compared with the promises in
docs/promises.md: "ok" keeps the promise, "even" misses QEMU's figure by less than two runs of the
same QEMU differ, "MISSED" does not. The exit status is 1 if a measurement failed, or with --check
if a promise is missed; 77 if this host cannot run it.
"""

import argparse
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from guest import MIB, Guest, GuestError

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
RAM = 512 * MIB
IMAGE_SIZE = 64 * MIB
PROMPT = b"No bootable device"

# How much one QEMU differs from itself in turn (bench.py --vmm QEMU shows it), as a share.
NOISE = {"exits": 0.1, "start": 0.1, "prompt": 0.05, "tick": 0.05, "disks": 0.2}


class Metric:
    """A figure: unit, probe that measures it, and its limits.

    A limit is (kind, number): `max` absolute, `qemu` times QEMU's median, `limit` times the limit
    program's, `limit+` that plus a number. Where more is better the limits are minima.
    """

    def __init__(self, name, unit, probe, *limits, more_is_better=False, about=""):
        self.name, self.unit, self.probe = name, unit, probe
        self.limits, self.more_is_better, self.about = limits, more_is_better, about

    def verdict(self, value, bounds):
        """"ok", "even" or "MISSED" for a value against its bounds."""
        verdict = "ok"
        for bound, kind, _ in bounds:
            short = (bound - value if self.more_is_better else value - bound) / bound
            if short > (NOISE.get(self.probe, 0) if kind == "qemu" else 0):
                return "MISSED"
            if short > 0:
                verdict = "even"
        return verdict

    def bounds(self, qemu, limit):
        """The limits that can be computed, as (value, kind, text)."""
        bases = {"max": 1, "qemu": qemu, "limit": limit, "limit+": limit}
        for kind, number in self.limits:
            if bases[kind] is None:
                continue
            value = limit + number if kind == "limit+" else bases[kind] * number
            yield value, kind, {"max": "", "qemu": f"{number:g} x QEMU", "limit": f"{number:g} x raw",
                                "limit+": f"smallest VM + {number:g}"}[kind]


METRICS = [
    Metric("pio_out", "us", "exits", ("limit", 1.1), about="exit round trip, OUT to port 0x80"),
    Metric("pio_in", "us", "exits", ("limit", 1.1), about="exit round trip, IN from debugcon"),
    Metric("mmio_write", "us", "exits", ("limit", 1.1), about="write to an empty PCI hole"),
    Metric("mmio_read", "us", "exits", ("limit", 1.1), about="read of the VGA window"),
    Metric("vga_write", "us", "exits", about="write to the VGA window (QEMU: coalesced)"),
    Metric("nop", "us", "exits", about="one instruction without an exit"),
    Metric("first_instruction", "ms", "start", ("qemu", 0.4), ("limit+", 6),
           about="exec() to the first guest instruction, from a ROM"),
    Metric("start_and_quit", "ms", "start", about="exec() to the end of the process"),
    Metric("pvh_serial", "ms", "kernel", ("max", 50), about="exec() to a PVH kernel's first byte"),
    Metric("multiboot_serial", "ms", "kernel", ("max", 50), about="the same for multiboot"),
    Metric("bios_boot", "ms", "prompt", ("qemu", 1.0), about="exec() to SeaBIOS's last message"),
    Metric("memory_private", "MiB", "prompt", ("max", 4), about="beyond guest RAM, at the prompt"),
    Metric("memory_pss", "MiB", "prompt", ("max", 6), about="beyond guest RAM, at the prompt"),
    Metric("idle_cpu", "%", "prompt", ("max", 0.3), about="of one core, at the prompt"),
    Metric("tick_cpu", "%", "tick", ("qemu", 1.0),
           about="of one core, for the prompt's timer interrupts alone"),
    Metric("ata_dma_read", "MB/s", "disks", ("qemu", 1.0), more_is_better=True),
    Metric("ata_dma_read_irq", "MB/s", "disks", ("qemu", 1.0), more_is_better=True),
    Metric("ata_dma_write", "MB/s", "disks", ("qemu", 1.0), more_is_better=True),
    Metric("ata_pio_read", "MB/s", "disks", ("qemu", 1.0), more_is_better=True),
    Metric("ata_multiple_read", "MB/s", "disks", ("qemu", 1.0), more_is_better=True),
    Metric("ata_multiple_write", "MB/s", "disks", ("qemu", 1.0), more_is_better=True),
    Metric("atapi_dma_read", "MB/s", "disks", ("qemu", 1.0), more_is_better=True),
    Metric("atapi_dma_read_irq", "MB/s", "disks", ("qemu", 1.0), more_is_better=True),
    Metric("atapi_pio_read", "MB/s", "disks", ("qemu", 1.0), more_is_better=True),
    Metric("stripped_size", "MiB", "size", ("max", 2), about="of the program file"),
]

MACHINE = ["-M", "pc", "-accel", "kvm", "-m", str(RAM // MIB), "-display", "none",
           "-monitor", "none"]
DEBUGCON = ["-serial", "none", "-chardev", "stdio,id=debug",
            "-device", "isa-debugcon,iobase=0x402,chardev=debug"]
# Without drives: SeaBIOS gives an empty floppy drive five seconds where its IRQ is slow to come.
DISKLESS = ["-nodefaults", "-vga", "std"]
DEBUG_EXIT = ["-device", "isa-debug-exit,iobase=0x501,iosize=2"]


class Context:
    """What the probes need: payloads, images, the TSC frequency, options."""

    def __init__(self, payloads, scratch, idle_seconds):
        self.payloads, self.scratch, self.idle_seconds = payloads, scratch, idle_seconds
        self._tsc_khz = None

    def payload(self, name):
        return os.path.join(self.payloads, name)

    def raw_loop(self):
        output = subprocess.run([self.payload("rawloop"), self.payload("exits.rom")],
                                check=True, capture_output=True, timeout=60).stdout
        rounds = json.loads(output)
        self._tsc_khz = rounds.pop("tsc_khz")
        return {name: min(values) / 1e3 for name, values in rounds.items()}

    def tsc_khz(self):
        if self._tsc_khz is None:
            self.raw_loop()
        return self._tsc_khz

    def image(self, name, block_size):
        """A warm image whose blocks begin with their number, as disks.c expects."""
        path = os.path.join(self.scratch, name)
        if not os.path.exists(path):
            padding = bytes(block_size - 4)
            with open(path, "wb") as file:
                file.write(b"".join(struct.pack("<I", i) + padding
                                    for i in range(IMAGE_SIZE // block_size)))
        return path


def parse_report(guest):
    """The payload's lines, NAME AMOUNT TICKS, as {name: [(amount, ticks), ...]}."""
    figures = {}
    for line in guest.output.decode(errors="replace").splitlines():
        fields = line.split()
        if fields[:1] == ["error"]:
            guest.fail("the payload reports " + line)
        if len(fields) == 3:
            figures.setdefault(fields[0], []).append((int(fields[1], 16), int(fields[2], 16)))
    return figures


def run_rom(command, rom, *more):
    """Run a ROM payload to its end and return its report."""
    with Guest(command + MACHINE + DEBUGCON + DEBUG_EXIT + ["-bios", rom, *more]) as guest:
        guest.wait_exit_ms(status=1)
        return parse_report(guest)


def probe_exits(command, context):
    """The best of the payload's rounds: noise only ever adds."""
    per_us = context.tsc_khz() / 1e3
    report = run_rom(command, context.payload("exits.rom"))
    return {name: min(ticks / amount for amount, ticks in rounds) / per_us
            for name, rounds in report.items()}


def probe_start(command, context):
    arguments = MACHINE + DEBUGCON + DEBUG_EXIT + ["-bios", context.payload("first.rom")]
    with Guest(command + arguments) as guest:
        return {"first_instruction": guest.wait_first_byte_ms(),
                "start_and_quit": guest.wait_exit_ms(status=2 * ord("F") + 1)}


def limit_start(context):
    command = [context.payload("smallestvm"), "--marker", context.payload("first.rom")]
    with Guest(command) as guest:
        return {"first_instruction": guest.wait_first_byte_ms(),
                "start_and_quit": guest.wait_exit_ms(status=0)}


def probe_kernel(command, context):
    figures = {}
    for kind in ("pvh", "multiboot"):
        arguments = ["-serial", "stdio", *DEBUG_EXIT, "-kernel", context.payload(kind + ".elf")]
        with Guest(command + MACHINE + arguments) as guest:
            figures[kind + "_serial"] = guest.wait_first_byte_ms()
            guest.wait_exit_ms(status=1)
            if guest.output != b"K":
                guest.fail("the kernel's one byte is not what came")
    return figures


def idle_percent(guest, context):
    time.sleep(0.5)  # let the last message's work end: what follows is to be idle
    cpu, start = guest.cpu_seconds(), time.monotonic()
    time.sleep(context.idle_seconds)
    return (guest.cpu_seconds() - cpu) / (time.monotonic() - start) * 100


def probe_prompt(command, context):
    with Guest(command + MACHINE + DEBUGCON + DISKLESS) as guest:
        boot = guest.wait_text_ms(PROMPT)
        idle = idle_percent(guest, context)
        private, pss = guest.memory_beyond_ram(RAM)
    return {"bios_boot": boot, "idle_cpu": idle,
            "memory_private": private / MIB, "memory_pss": pss / MIB}


def probe_tick(command, context):
    with Guest(command + MACHINE + DEBUGCON + DISKLESS +
               ["-bios", context.payload("tick.rom")]) as guest:
        guest.wait_first_byte_ms()
        return {"tick_cpu": idle_percent(guest, context)}


def limit_tick(context):
    output = subprocess.run(
        [context.payload("tickloop"), context.payload("tick.rom"), str(context.idle_seconds)],
        check=True, capture_output=True, timeout=60 + context.idle_seconds).stdout
    return {"tick_cpu": json.loads(output)["cpu_percent"]}


def probe_disks(command, context):
    report = run_rom(
        command, context.payload("disks.rom"),
        "-drive", f"file={context.image('disk.img', 512)},format=raw,if=ide,index=0",
        "-drive", f"file={context.image('cd.iso', 2048)},format=raw,if=ide,index=2,media=cdrom")
    hertz = context.tsc_khz() * 1e3
    return {name: amount / (ticks / hertz) / 1e6 for name, [(amount, ticks)] in report.items()}


def probe_size(command, context):
    path = os.path.join(context.scratch, "stripped")
    subprocess.run(["strip", "-o", path, shutil.which(command[0])], check=True)
    return {"stripped_size": os.path.getsize(path) / MIB}


PROBES = {"exits": probe_exits, "start": probe_start, "kernel": probe_kernel,
          "prompt": probe_prompt, "tick": probe_tick, "disks": probe_disks, "size": probe_size}
LIMITS = {"exits": Context.raw_loop, "start": limit_start, "tick": limit_tick}


class Results:
    """Every sample by subject and metric, and the errors met on the way."""

    def __init__(self):
        self.samples, self.errors = {}, []

    def take(self, subject, measure):
        try:
            for name, value in measure().items():
                self.samples.setdefault((subject, name), []).append(value)
        except (GuestError, subprocess.SubprocessError, OSError) as error:
            self.errors.append(f"{subject}: {error}")
            print(f"error: {subject}: {error}", file=sys.stderr)

    def median(self, subject, name):
        values = self.samples.get((subject, name))
        return statistics.median(values) if values else None


def measure(probes, subjects, context, runs):
    results = Results()
    for run in range(runs):
        for probe in probes:
            if probe == "size" and run:
                continue
            turns = [(name, lambda command=command: PROBES[probe](command, context))
                     for name, command in subjects.items()]
            if probe in LIMITS:
                turns.append(("limit", lambda: LIMITS[probe](context)))
            for subject, turn in turns if run % 2 == 0 else reversed(turns):
                results.take(subject, turn)
    return results


def judge(metric, results):
    """One row of the table, as a dictionary."""
    vmm, qemu, limit = (results.median(subject, metric.name)
                        for subject in ("vmm", "qemu", "limit"))
    bounds = list(metric.bounds(qemu, limit))
    return {"metric": metric.name, "unit": metric.unit, "about": metric.about,
            "vmm": vmm, "qemu": qemu, "limit_program": limit,
            "ratio": vmm / qemu if vmm is not None and qemu else None,
            "limits": [{"value": value, "why": why} for value, _, why in bounds],
            "verdict": metric.verdict(vmm, bounds) if vmm is not None and bounds else None,
            "samples": {subject: results.samples.get((subject, metric.name), [])
                        for subject in ("vmm", "qemu", "limit")}}


def figure(value):
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def print_table(rows):
    heads = ["metric", "unit", "vmm", "QEMU", "vmm/QEMU", "bare KVM", "limit", ""]
    lines = [heads]
    for row in rows:
        sign = ">=" if row["unit"] == "MB/s" else "<="
        limits = ", ".join(f"{sign} {figure(bound['value'])}" +
                           (f" ({bound['why']})" if bound["why"] else "")
                           for bound in row["limits"])
        lines.append([row["metric"], row["unit"], figure(row["vmm"]), figure(row["qemu"]),
                      figure(row["ratio"]), figure(row["limit_program"]), limits,
                      row["verdict"] or ""])
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for line in lines:
        cells = [text.ljust(width) if i in (0, 1, 6, 7) else text.rjust(width)
                 for i, (text, width) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())


def host_facts(build):
    facts = {"kernel": os.uname().release, "cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    try:
        with open(os.path.join(build, "meson-info", "intro-buildoptions.json")) as file:
            options = {option["name"]: option["value"] for option in json.load(file)}
        facts["buildtype"], facts["sanitize"] = options["buildtype"], options["b_sanitize"]
    except (OSError, KeyError):
        pass
    return facts


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="metrics: " + ", ".join(
        f"{metric.name} ({metric.probe})" for metric in METRICS))
    parser.add_argument("metric", nargs="*", help="metrics or probes to measure (default: all)")
    parser.add_argument("-n", "--runs", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--quick", action="store_true", help="one short run of each, for CI")
    parser.add_argument("--check", action="store_true", help="fail if a promise is missed")
    parser.add_argument("--json", metavar="FILE", help="write every sample to FILE (- is stdout)")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"), help="build directory")
    parser.add_argument("--vmm", default=os.environ.get("VMM"),
                        help="vmm to measure (default $VMM or BUILD/src/vmm; 'none' leaves it out)")
    parser.add_argument("--qemu", default=os.environ.get("QEMU", "qemu-system-x86_64"),
                        help="QEMU to compare with ('none' leaves it out)")
    parser.add_argument("--options", default="", metavar="'-OPT VALUE...'",
                        help="more options for both, such as '-machine kernel-irqchip=split'")
    parser.add_argument("--idle", type=float, metavar="SECONDS", default=10,
                        help="how long to watch the idle guest (default 10)")
    arguments = parser.parse_args()
    known = {metric.name for metric in METRICS} | set(PROBES)
    for name in arguments.metric:
        if name not in known:
            parser.error(f"there is no metric or probe named {name}")
    if arguments.quick:
        arguments.runs, arguments.idle = 1, min(arguments.idle, 1)
    arguments.vmm = arguments.vmm or os.path.join(arguments.build, "src", "vmm")
    return arguments


def find_subjects(arguments):
    """{name: command} of what can be measured here."""
    subjects, more = {}, arguments.options.split()
    if arguments.vmm != "none":
        if not shutil.which(arguments.vmm):
            sys.exit(f"bench: no program at {arguments.vmm}; build it, or set VMM or --vmm")
        subjects["vmm"] = [arguments.vmm, *more]
    if arguments.qemu != "none":
        if shutil.which(arguments.qemu):
            subjects["qemu"] = [arguments.qemu, "-nic", "none", *more]
        else:
            print(f"bench: no {arguments.qemu} here: its column stays empty", file=sys.stderr)
    return subjects


def main():
    arguments = parse_arguments()
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("bench: skipped: /dev/kvm is missing or may not be opened")
        sys.exit(77)
    subjects = find_subjects(arguments)
    wanted = [metric for metric in METRICS if not arguments.metric
              or metric.name in arguments.metric or metric.probe in arguments.metric]
    probes = list(dict.fromkeys(metric.probe for metric in wanted))
    payloads = os.path.join(arguments.build, "tests", "bench")
    with tempfile.TemporaryDirectory(prefix="vmm-bench-") as scratch:
        context = Context(payloads, scratch, arguments.idle)
        results = measure(probes, subjects, context, arguments.runs)
    rows = [judge(metric, results) for metric in wanted]
    facts = host_facts(arguments.build)
    if arguments.json != "-":
        print(f"{arguments.runs} runs, medians; " + ", ".join(f"{k} {v}" for k, v in facts.items()))
        print_table(rows)
    if arguments.json:
        document = json.dumps({"host": facts, "runs": arguments.runs, "metrics": rows,
                               "errors": results.errors}, indent=1)
        if arguments.json == "-":
            print(document)
        else:
            with open(arguments.json, "w") as file:
                file.write(document + "\n")
    missed = arguments.check and any(row["verdict"] == "MISSED" for row in rows)
    sys.exit(1 if results.errors or missed else 0)


if __name__ == "__main__":
    main()
