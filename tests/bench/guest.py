"""One guest process under measurement: start it, watch its debug console, read its /proc."""

import os
import select
import signal
import subprocess
import tempfile
import time

MIB = 1 << 20


class GuestError(Exception):
    """The guest did not do what the benchmark needs; the text says what, with its stderr."""


class Guest:
    """A command whose stdout carries what the guest says. Use as a context manager."""

    def __init__(self, command, timeout=60):
        self.command = command
        self.output = b""
        self.first_byte_ns = None
        self.stderr = tempfile.TemporaryFile()
        self.deadline = time.monotonic() + timeout
        self.started_ns = time.monotonic_ns()
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.stderr.close()

    def fail(self, what):
        self.stderr.seek(0)
        stderr = self.stderr.read().decode(errors="replace").strip()
        said = self.output[-300:].decode(errors="replace")
        raise GuestError(f"{what}: {' '.join(self.command)}\n  stderr: {stderr}\n  guest: {said}")

    def _read(self):
        """Take what the guest said since; False at its end."""
        left = self.deadline - time.monotonic()
        if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
            self.fail("timed out")
        data = os.read(self.process.stdout.fileno(), 65536)
        if data and self.first_byte_ns is None:
            self.first_byte_ns = time.monotonic_ns()
        self.output += data
        return bool(data)

    def wait_first_byte_ms(self):
        """Milliseconds from exec() to the guest's first byte."""
        while self.first_byte_ns is None:
            if not self._read():
                self.fail("ended without a word")
        return (self.first_byte_ns - self.started_ns) / 1e6

    def wait_text_ms(self, text):
        """Milliseconds from exec() until the guest has said `text`."""
        while text not in self.output:
            if not self._read():
                self.fail(f"ended without saying {text.decode()!r}")
        return (time.monotonic_ns() - self.started_ns) / 1e6

    def wait_exit_ms(self, status=None):
        """Milliseconds from exec() to the process's end; `status` is checked if given."""
        while self._read():
            pass
        try:
            got = self.process.wait(max(0.1, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.fail("does not end")
        ended = time.monotonic_ns()
        if status is not None and got != status:
            self.fail(f"exit status {got} where {status} is due")
        return (ended - self.started_ns) / 1e6

    def cpu_seconds(self):
        """Processor time of all its threads; in nanoseconds where the kernel counts them."""
        tasks = f"/proc/{self.process.pid}/task"
        try:
            total = 0
            for task in os.listdir(tasks):
                with open(f"{tasks}/{task}/schedstat") as file:
                    total += int(file.read().split()[0])
            if total:
                return total / 1e9
        except FileNotFoundError:
            pass
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_beyond_ram(self, ram):
        """(private, Pss) in bytes of everything but the guest's `ram` bytes of RAM."""
        mappings = read_smaps(self.process.pid)
        others = [m for m in mappings if not is_guest_ram(m, mappings, ram)]
        if len(others) == len(mappings):
            self.fail(f"no mapping of {ram // MIB} MiB found that could be guest RAM")
        return sum(m["private"] for m in others), sum(m["pss"] for m in others)


def read_smaps(pid):
    """The mappings of a process: size, offset, path, inode, private and Pss, in bytes."""
    mappings = []
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            head, _, rest = line.partition(" ")
            if not head.endswith(":"):
                start, end = (int(x, 16) for x in head.split("-"))
                fields = rest.split(None, 4)
                mappings.append({
                    "size": end - start, "offset": int(fields[1], 16), "inode": int(fields[3]),
                    "path": fields[4].strip() if len(fields) > 4 else "", "private": 0, "pss": 0})
            elif head in ("Private_Clean:", "Private_Dirty:"):
                mappings[-1]["private"] += int(rest.split()[0]) * 1024
            elif head == "Pss:":
                mappings[-1]["pss"] = int(rest.split()[0]) * 1024
    return mappings


def is_guest_ram(mapping, mappings, ram):
    """Guest RAM is one anonymous mapping of its size, or the first `ram` bytes of a memfd."""
    if not mapping["path"]:
        return ram <= mapping["size"] < ram + 2 * MIB
    if not mapping["path"].startswith("/memfd:"):
        return False
    file = [m for m in mappings if m["inode"] == mapping["inode"]]
    reach = max(m["offset"] + m["size"] for m in file)
    return reach >= ram and mapping["offset"] + mapping["size"] <= ram
