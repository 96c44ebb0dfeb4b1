"""Two vmm processes and a guest that checks its own memory: what the migration tests share.

The guest is tests/payloads/dirtier.c: it writes page after page, each with its number and generation, and checks every one
before it writes it again. A page that was lost, stale, torn or swapped makes it print FAIL and stop.
"""

import ctypes
import ctypes.util
import os
import socket
import struct
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "guest"))
import assets  # noqa: E402
import vmmtest  # noqa: E402

ENDED = ("completed", "failed", "cancelled")
MAGIC = b"\x89VMM\r\n\x1a\n"


def tsc_hz():
    """The TSC's frequency as the payload needs it, measured once."""
    if not hasattr(tsc_hz, "value"):
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
            mhz = [float(line.split(":")[1]) for line in info if line.startswith("cpu MHz")]
        tsc_hz.value = int(mhz[0] * 1e6) if mhz else 2000000000
    return tsc_hz.value


def scaled(rate):
    """Pages a second that stand to what a slow host's migration carries as `rate` to another's; 0 stays: as fast as it goes."""
    return rate and max(1, int(rate / vmmtest.SLOW))


class Dirtier(vmmtest.Guest):
    """A guest that dirties `size` MiB from `start` on, `rate` pages a second (0: as fast as it can; less on slow hosts), with all its
    vCPUs; disk: and checks and writes sectors of the first disk."""

    def __init__(self, *args, memory=64, size=16, start=32, rate=0, quiet=0, disk=0, idle2=0, **options):
        line = f"start={start}M size={size}M rate={scaled(rate)} tsc={tsc_hz()} quiet={quiet} disk={disk} idle2={idle2} cpus={options.get('cpus', 1)}"
        self.options = dict(memory=memory, size=size, start=start, rate=rate, quiet=quiet, disk=disk, idle2=idle2, **options)
        super().__init__("-kernel", assets.payload("dirtier"), "-append", line, *args, memory=memory, **options)

    pages = second_pages = 0    # written, at the last check

    def running(self):
        """Wait until it dirties."""
        self.serial.wait_for("round 2\r" if not self.options["quiet"] else "ready", 60)
        return self

    def check(self, timeout=60):
        """Every page is as it was left: (rounds, longest gap in TSC ticks)."""
        self.serial.send("x")
        match = self.serial.wait_for(rb"(PASS dirtier rounds=(\d+) gap=(\d+) pages=(\d+)(?: second=(\d+))?\r|FAIL.*\r)", timeout)
        if not match[2]:
            raise AssertionError(match[0].decode())
        if self.options.get("cpus", 1) > 1:
            assert self.idle or int(match[5]) > self.second_pages, "the second vCPU stands still"
            self.second_pages = int(match[5])
        self.pages = int(match[4])
        return int(match[2]), int(match[3])

    idle = False

    def pace(self, rate):
        """From now on so many pages a second; 0: as fast as it goes; None: none at all."""
        self.serial.send("i" if rate is None else f"{scaled(rate)}\n")
        self.serial.wait_for("idle\r" if rate is None else f"rate {scaled(rate)}\r", 60)
        self.idle = rate is None

    def writes_on(self, so_far):
        """All its memory is right, and it writes more than it had."""
        def more():
            self.check()
            return self.pages > so_far
        vmmtest.poll(more, 60, lambda: f"more than {so_far} pages to be written")

    def alive(self):
        """It goes on, for two more rounds if it tells them, and all its memory is right."""
        if self.options["quiet"]:
            self.check()
            self.writes_on(self.pages)
        else:
            self.serial.wait_for(r"round \d+\r", 60)
            self.serial.wait_for(r"round \d+\r", 60)
            self.check()

    def status(self):
        """query-status' status."""
        return self.qmp.command("query-status")["status"]

    def caps(self, **caps):
        """migrate-set-capabilities; `_` stands for `-`."""
        self.qmp.execute("migrate-set-capabilities", {"capabilities": [
            {"capability": name.replace("_", "-"), "state": on} for name, on in caps.items()]})

    def params(self, **params):
        """migrate-set-parameters."""
        self.qmp.command("migrate-set-parameters", **params)

    def info(self):
        """query-migrate."""
        return self.qmp.command("query-migrate")

    def migration(self, *wanted, timeout=60):
        """Wait until the migration has one of these states; query-migrate's answer."""
        wanted = wanted or ENDED
        return vmmtest.poll(lambda: (lambda i: i if i.get("status") in wanted else None)(self.info()), timeout,
                            lambda: f"migration status {wanted}, it is {self.info()}")

    def address(self):
        """Where an incoming vmm listens, as migrate's uri."""
        address = self.info()["socket-address"][0]
        if address["type"] == "unix":
            return "unix:" + address["path"]
        return f"tcp:{address['host']}:{address['port']}"


def xxh3(data, seed=0):
    """XXH3-64, the checksum of streams and saved guests; None without the library that counts it."""
    name = ctypes.util.find_library("xxhash")
    if not name:
        return None
    count = ctypes.CDLL(name).XXH3_64bits_withSeed
    count.restype = ctypes.c_uint64
    return count(data, ctypes.c_size_t(len(data)), ctypes.c_uint64(seed))


def preamble(version, oldest, kind=0, session=1):
    """The first bytes of a stream, with their checksum; None without the library that counts it."""
    head = MAGIC + struct.pack("<HHBBHQI", version, oldest, kind, 0, 0, session, 0)
    checksum = xxh3(head)
    return None if checksum is None else head + struct.pack("<I", checksum & 0xffffffff)


def redescribe(data, old, new):
    """A saved guest (or a stream) whose machine description says something else of the same length, with the right checksum."""
    start = data.index(b"\xd0\x0d\xfe\xed")
    header = data[start - 24:start - 8]
    end = start + struct.unpack("<I", header[4:8])[0]
    assert old in data[start:end] and len(old) == len(new)
    said = data[start:end].replace(old, new)
    return data[:start - 8] + struct.pack("<Q", xxh3(said, xxh3(header))) + said + data[end:]


def twin(source, *args, incoming="tcp:127.0.0.1:0", **changes):
    """A destination with the source's machine, but for changes."""
    options = dict(source.options, **changes)
    return Dirtier(*args, "-incoming", incoming, **options)


def pass_fd(guest, name, fd):
    """getfd."""
    socket.send_fds(guest.qmp.sock, [b'{"execute": "getfd", "arguments": {"fdname": "%s"}, "id": "fd"}\n' % name.encode()],
                    [fd])
    reply = guest.qmp.receive()
    assert "return" in reply, reply


def moved(test, source, dest):
    """After a migration: it completed, the guest runs at one place only and has all its memory."""
    info = source.migration()
    test.assertEqual(info["status"], "completed", info)
    test.assertEqual(source.status(), "postmigrate")
    vmmtest.poll(lambda: dest.status() == "running", 20, "the guest to run at the destination")
    dest.alive()
    return info


def stayed(test, source, status=("failed", "cancelled")):
    """After a migration that did not happen: the guest runs at the source and has all its memory."""
    info = source.migration()
    test.assertIn(info["status"], status, info)
    vmmtest.poll(lambda: source.status() == "running", 20, "the guest to run at the source")
    source.alive()
    return info


def sleep_a_little(seconds):
    """Let a random moment of the migration come."""
    time.sleep(seconds)


def reset(*sockets):
    """End connections, and what they carry with them."""
    for sock in sockets:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Proxy:
    """Between source and destination: counts what goes forward and can cut, damage or hold it at a given byte.

    others: what becomes of all connections but the first: None (served too), "refused", "dropped" (as a firewall does) or "unserved".
    """

    def __init__(self, target, cut_at=None, flip_at=None, hold_at=None, cut_back_at=None, others=None):
        self.cut_at, self.flip_at, self.hold_at, self.cut_back_at, self.others = cut_at, flip_at, hold_at, cut_back_at, others
        host, port = target[len("tcp:"):].rsplit(":", 1)
        self.target = (host.strip("[]"), int(port))
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=0 if others == "dropped" else 16)
        self.uri = f"tcp:127.0.0.1:{self.listener.getsockname()[1]}"
        self.forwarded = 0
        self.sockets = []
        self.lock = threading.Lock()
        self.holding = threading.Event()
        self.release = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                inner, _ = self.listener.accept()
                outer = socket.create_connection(self.target)
            except OSError:
                return
            self.sockets += [inner, outer]
            if self.others == "refused":
                self.listener.close()
            if self.others == "dropped":        # what its queue has no place for
                self.sockets += [socket.create_connection(self.listener.getsockname())]
            threading.Thread(target=self._forward, args=(inner, outer), daemon=True).start()
            threading.Thread(target=self._back, args=(outer, inner), daemon=True).start()
            if self.others:
                return

    def _forward(self, source, sink):
        try:
            while data := source.recv(65536):
                with self.lock:         # several connections count together
                    start = self.forwarded
                    end = self.forwarded = start + len(data)
                if self.flip_at is not None and start <= self.flip_at < end:
                    data = bytearray(data)
                    data[self.flip_at - start] ^= 0x10
                if self.cut_at is not None and end > self.cut_at:
                    sink.sendall(data[:max(0, self.cut_at - start)])
                    self.cut()
                    return
                if self.hold_at is not None and end > self.hold_at and not self.release.is_set():
                    sink.sendall(data[:max(0, self.hold_at - start)])
                    data = data[max(0, self.hold_at - start):]
                    self.holding.set()
                    self.release.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            reset(source, sink)

    def _back(self, source, sink):
        seen = 0
        try:
            while data := source.recv(65536):
                if self.cut_back_at is not None and seen + len(data) > self.cut_back_at:
                    self.cut()
                    return
                seen += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            reset(source, sink)

    def cut(self):
        """End every connection, as a firewall that was told to."""
        reset(*self.sockets)

    def close(self):
        """No more connections."""
        self.release.set()
        self.listener.close()
        self.cut()
        for sock in self.sockets:
            sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
