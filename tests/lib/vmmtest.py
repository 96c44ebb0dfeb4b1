"""Start a guest, talk to it, look at it, and leave nothing behind.

The binary under test is $VMM; every test also runs with VMM=qemu-system-x86_64, because vmm takes
QEMU's options and answers QEMU's QMP: a guest that fails under vmm and passes there is our bug.

Environment
  VMM                 the binary (default: vmm in the build directory next to the sources)
  VMM_TEST_ACCEL      kvm (default) or tcg (QEMU only; for developing a guest)
  VMM_TEST_RESULTS    where evidence goes (screens, serial logs); default: a temporary directory
  VMM_TEST_SLOW       factor on every time-out, for slow hosts and sanitizer builds (default 1)
  VMM_TEST_CACHE      built kernels and images (default ~/.cache/vmm-tests)
  VMM_TEST_PREBUILT   set where nothing can be built: what is in the cache is right
  VMM_TEST_CPU        -cpu for the guests that need more than the default model
  VMM_TEST_HOST       bochs, where the host is that (tests/hosts/vmx.py)
  VMM_TEST_ARGS       extra arguments for every guest

A test file ends with `vmmtest.main()`: it prints `N passed, N failed, N skipped` and exits 0, 1, or
77 when everything was skipped.
"""

import atexit
import collections
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SLOW = float(os.environ.get("VMM_TEST_SLOW", "1"))
ACCEL = os.environ.get("VMM_TEST_ACCEL", "kvm")


def _find_vmm():
    if os.environ.get("VMM"):
        return os.environ["VMM"]
    for candidate in ("build/src/vmm", "build/vmm"):
        path = os.path.join(ROOT, candidate)
        if os.access(path, os.X_OK):
            return path
    return os.path.join(ROOT, "build/src/vmm")


VMM = _find_vmm()
_is_qemu = None


def has_module(name):
    """Whether the binary under test was built with a loadable part (png, vnc, tls ...)."""
    return os.path.exists(os.path.join(os.path.dirname(os.path.realpath(VMM)), "..", "modules", f"vmm-{name}.so"))


def lacks_module(text):
    """Whether it is for want of a part it was built without that something was refused."""
    found = re.search(r"the module vmm-(\S+)\.so is not installed", text)
    return bool(found) and not has_module(found[1])


def is_qemu():
    """Whether the binary under test is QEMU, the reference."""
    global _is_qemu
    if _is_qemu is None:
        out = subprocess.run([VMM, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, timeout=30 * SLOW, check=False).stdout
        _is_qemu = "QEMU" in out.split("\n", 1)[0]
    return _is_qemu


def why_no_vmm():
    """The reason why no guest can be started here, or None."""
    if not (shutil.which(VMM) or os.access(VMM, os.X_OK)):
        return f"{VMM} is not there: build it or set VMM"
    if ACCEL == "kvm":
        if not os.path.exists("/dev/kvm"):
            return "this host has no /dev/kvm"
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return "this user may not open /dev/kvm"
    return None


def results_dir():
    """The directory for evidence; a temporary one, removed at exit, unless $VMM_TEST_RESULTS."""
    path = os.environ.get("VMM_TEST_RESULTS")
    if not path:
        path = tempfile.mkdtemp(prefix="vmm-results-")
        os.environ["VMM_TEST_RESULTS"] = path
        atexit.register(shutil.rmtree, path, True)
    os.makedirs(path, exist_ok=True)
    return path


def cpu_model(cpus=1):
    """-cpu for guests that need more than the default one: the host's, as far as KVM lets it.

    With several processors the paravirtual calls by which they wait for each other are off: on
    hosts whose KVM emulates kernel code they can hang.
    """
    if os.environ.get("VMM_TEST_CPU"):
        return os.environ["VMM_TEST_CPU"]
    if ACCEL != "kvm":
        return None
    # QEMU sets a MSR for arch-capabilities that a host may refuse. KVM's emulator does not clear a segment's base when
    # the null selector is loaded, whatever the host's CPUID says; QEMU 7.2 does not know that feature.
    model = "host,-arch-capabilities" if is_qemu() else "host,-null-sel-clr-base"
    if cpus > 1:
        model += ",-kvm-pv-ipi,-kvm-pv-unhalt,-kvm-pv-tlb-flush,-kvm-pv-sched-yield"
    return model


def poll(condition, timeout, what="the condition", interval=0.02):
    """Call condition() until it returns something true; return that or raise TimeoutError. what may be a function: how things are
    when the time is over."""
    deadline = time.monotonic() + timeout * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout * SLOW:.0f} s for {what() if callable(what) else what}")
        time.sleep(interval)


class QMPError(Exception):
    """A QMP command was answered with an error; .error_class is QMP's class."""

    def __init__(self, command, error):
        super().__init__(f"{command}: {error.get('class')}: {error.get('desc')}")
        self.error_class = error.get("class")
        self.desc = error.get("desc")


class QMP:
    """A QMP client over a connected stream socket.  Events are kept until asked for."""

    def __init__(self, sock, timeout=60, negotiate=True):
        self.sock = sock
        self.timeout = timeout * SLOW
        self.cond = threading.Condition()
        self.events = []
        self.replies = collections.deque()
        self.greeting = None
        self.closed = False
        self.why = ""           # it is closed, if the peer did not simply go
        self.answered = set()   # commands that succeeded
        self.refused = set()    # commands that were there and answered with an error
        self.told = set()       # events that came
        self._next_id = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="qmp", daemon=True)
        self._thread.start()
        if negotiate:
            with self.cond:
                if not self.cond.wait_for(lambda: self.greeting or self.closed, self.timeout):
                    raise TimeoutError("no QMP greeting")
            if self.greeting is None:
                raise ConnectionError("QMP closed before its greeting")
            self.command("qmp_capabilities")

    def _read(self):
        buffer = b""
        while True:
            try:
                data = self.sock.recv(65536)
            except OSError as error:
                self.why = f": {error!r}"
                data = b""
            if not data:
                break
            buffer += data
            *lines, buffer = buffer.split(b"\n")
            with self.cond:
                for line in lines:
                    if line.strip():
                        self._dispatch(json.loads(line))
                self.cond.notify_all()
        with self.cond:
            self.closed = True
            self.cond.notify_all()

    def _dispatch(self, message):
        if "QMP" in message:
            self.greeting = message["QMP"]
        elif "event" in message:
            self.events.append(message)
            self.told.add(message["event"])
        else:
            self.replies.append(message)

    def send_raw(self, data):
        """Send bytes as they are."""
        self.sock.sendall(data)

    def receive(self, timeout=None):
        """The next reply (not event), as a dictionary."""
        with self.cond:
            self.cond.wait_for(lambda: self.replies or self.closed,
                               self.timeout if timeout is None else timeout * SLOW)
            if self.replies:
                return self.replies.popleft()
            if self.closed:
                raise ConnectionError("QMP connection closed" + self.why)
            raise TimeoutError("no QMP reply")

    def command(self, name, /, **arguments):
        """Run a command and return its result; `_` in argument names stands for `-`."""
        return self.execute(name, {key.replace("_", "-"): value
                                   for key, value in arguments.items()})

    def execute(self, name, arguments=None, fds=()):
        """Run a command with a ready-made argument dictionary and return its result. fds go along."""
        with self._lock:
            self._next_id += 1
            message = {"execute": name, "id": self._next_id}
            if arguments:
                message["arguments"] = arguments
            data = json.dumps(message).encode() + b"\n"
            if fds:
                socket.send_fds(self.sock, [data], fds)
            else:
                self.send_raw(data)
            while True:
                reply = self.receive()
                if reply.get("id") == self._next_id:
                    break
        if "error" in reply:
            if reply["error"]["class"] != "CommandNotFound":
                self.refused.add(name)
            raise QMPError(name, reply["error"])
        self.answered.add(name)
        return reply["return"]

    def wait_event(self, name, timeout=60, where=None):
        """Wait for an event, take it off the list and return it.  where(data) may choose one."""
        found = []

        def look():
            for event in self.events:
                if event["event"] == name and (where is None or where(event.get("data", {}))):
                    found.append(event)
                    return True
            return self.closed

        with self.cond:
            if not self.cond.wait_for(look, timeout * SLOW):
                raise TimeoutError(f"no event {name} in {timeout * SLOW:.0f} s; "
                                   f"seen: {[e['event'] for e in self.events]}")
            if not found:
                raise ConnectionError(f"QMP closed without event {name}; "
                                      f"seen: {[e['event'] for e in self.events]}")
            self.events.remove(found[0])
            return found[0]

    def take_events(self, name):
        """Take and return all events of that name received so far."""
        with self.cond:
            taken = [e for e in self.events if e["event"] == name]
            self.events = [e for e in self.events if e["event"] != name]
        return taken

    def close(self):
        """Close the connection; the guest goes on."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join(5)  # first: it would read from whoever is given this file descriptor next
        self.sock.close()


class Console:
    """A character stream: everything received is kept; wait_for() looks at what is new.

    Listens on a unix socket that the VMM connects to, so that not one byte is lost.
    """

    def __init__(self, path, log_path=None):
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.cond = threading.Condition()
        self.data = b""
        self.position = 0
        self.closed = False
        self.sock = None
        self.log = open(log_path, "wb") if log_path else None
        self._thread = threading.Thread(target=self._read, name="console", daemon=True)
        self._thread.start()

    def _read(self):
        try:
            self.sock, _ = self.listener.accept()
            with self.cond:
                self.cond.notify_all()
            while True:
                data = self.sock.recv(65536)
                if not data:
                    break
                if self.log:
                    self.log.write(data)
                    self.log.flush()
                with self.cond:
                    self.data += data
                    self.cond.notify_all()
        except OSError:
            pass
        with self.cond:
            self.closed = True
            self.cond.notify_all()

    def text(self):
        """Everything received so far, as text."""
        with self.cond:
            return self.data.decode("utf-8", "replace")

    def wait_for(self, pattern, timeout=60):
        """Wait until the regular expression matches what came after the last match; return it."""
        regex = re.compile(pattern.encode() if isinstance(pattern, str) else pattern, re.M)
        match = []

        def look():
            found = regex.search(self.data, self.position)
            if found:
                match.append(found)
            return found or self.closed

        with self.cond:
            self.cond.wait_for(look, timeout * SLOW)
            if match:
                self.position = match[0].end()
                return match[0]
            tail = self.data[-800:].decode("utf-8", "replace")
            why = "the stream ended" if self.closed else f"{timeout * SLOW:.0f} s passed"
        raise TimeoutError(f"{why} without {pattern!r}; the last of it:\n{tail}")

    def count(self, pattern):
        """How often the regular expression matches in everything received."""
        with self.cond:
            return len(re.findall(pattern.encode(), self.data))

    def send(self, text):
        """Send text to the guest."""
        with self.cond:
            self.cond.wait_for(lambda: self.sock or self.closed, 10 * SLOW)
        if self.sock is None:
            raise ConnectionError("nothing connected to the console")
        self.sock.sendall(text.encode() if isinstance(text, str) else text)

    def close(self):
        """Close both ends."""
        for sock in (self.sock, self.listener):
            if sock:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self._thread.join(5)    # first, as in QMP.close()
        for sock in (self.sock, self.listener):
            if sock:
                sock.close()
        if self.log:
            self.log.close()


def process_counts(pid):
    """What a process holds now: fds, threads, and resident bytes (rss, and rss_anon alone)."""
    counts = {"fds": len(os.listdir(f"/proc/{pid}/fd"))}
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        for line in status:
            key, _, value = line.partition(":")
            if key == "Threads":
                counts["threads"] = int(value)
            elif key == "VmRSS":
                counts["rss"] = int(value.split()[0]) * 1024
            elif key == "RssAnon":
                counts["rss_anon"] = int(value.split()[0]) * 1024
    return counts


_live = set()


@atexit.register
def _kill_all():
    for guest in list(_live):
        guest.close()


class Guest:
    """One running VMM.  Use as a context manager; close() always ends the process.

    args       extra command line arguments
    memory     MiB
    cpus       the argument of -smp
    irqchip    None, "on" or "split" (ignored without KVM)
    cpu        the argument of -cpu, None for the default
    serial     number of serial ports, each a Console in .serials; .serial is the first
    debugcon   I/O port of a debug console collected in .debugcon, or None
    qmp        whether to open a control socket, connected as .qmp
    machine    further -machine properties, as "key=value,..."
    evidence   file name stem for what is left in the results directory
    """

    def __init__(self, *args, memory=128, cpus=1, irqchip=None, cpu=None, serial=1, debugcon=None,
                 qmp=True, machine="", evidence=None, start=True):
        self.dir = tempfile.mkdtemp(prefix="vmm-test-")
        self.evidence = evidence
        self.process = None
        self.qmp = None
        self.serials = []
        self.debugcon = None
        self.started = None
        self.argv = [VMM, "-display", "none", "-m", str(memory), "-smp", str(cpus)]
        options = "pc" + ("," + machine if machine else "")
        if irqchip and ACCEL == "kvm":
            options += f",kernel-irqchip={irqchip}"
        self.argv += ["-machine", options, "-accel", ACCEL]
        if is_qemu():
            self.argv += ["-nic", "none"]
        if cpu:
            self.argv += ["-cpu", cpu]
        for index in range(serial):
            console = self._console(f"serial{index}")
            self.serials.append(console)
            self.argv += ["-chardev", f"socket,id=com{index},path={console.path}",
                          "-serial", f"chardev:com{index}"]
        if not serial:
            self.argv += ["-serial", "none"]
        self.argv += ["-parallel", "none", "-monitor", "none"]
        self.serial = self.serials[0] if serial else None
        if debugcon:
            self.debugcon = self._console("debugcon")
            self.argv += ["-chardev", f"socket,id=dbg,path={self.debugcon.path}",
                          "-device", f"isa-debugcon,iobase={debugcon:#x},chardev=dbg"]
        self.qmp_path = os.path.join(self.dir, "qmp")
        if qmp:
            self.argv += ["-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
        self.argv += shlex.split(os.environ.get("VMM_TEST_ARGS", ""))
        self.argv += [str(arg) for arg in args]
        self.want_qmp = qmp
        if start:
            try:
                self.start()
            except BaseException:
                self.close()
                raise

    def _console(self, name):
        log = None
        if self.evidence:
            log = os.path.join(results_dir(), f"{self.evidence}.{name}.log")
        return Console(os.path.join(self.dir, name), log)

    def start(self):
        """Run the process and connect to its control socket."""
        self.stderr_path = os.path.join(self.dir, "stderr")
        _live.add(self)
        self.started = time.monotonic()
        with open(self.stderr_path, "wb") as stderr:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL,
                                            stdout=stderr, stderr=stderr, close_fds=True)
        if self.want_qmp:
            self.qmp = self.connect_qmp()
        return self

    def connect_qmp(self):
        """A new connection to the control socket."""
        sock = socket.socket(socket.AF_UNIX)

        def died():
            return ConnectionError(f"{VMM} exited with {self.process.returncode}:\n"
                                   f"{shlex.join(self.argv)}\n{self.stderr()}")

        def connected():
            if self.process.poll() is not None:
                raise died()
            try:
                sock.connect(self.qmp_path)
                return True
            except (FileNotFoundError, ConnectionRefusedError):
                return False

        try:
            poll(connected, 30, "the QMP socket", 0.005)
            return QMP(sock)
        except ConnectionError:
            sock.close()
            self.wait_exit(5)
            raise died() from None
        except BaseException:
            sock.close()
            raise

    def stderr(self):
        """What the process wrote to stdout and stderr so far."""
        with open(self.stderr_path, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    @property
    def pid(self):
        return self.process.pid

    def counts(self):
        """See process_counts()."""
        return process_counts(self.process.pid)

    def seconds(self):
        """Seconds since the process was started."""
        return time.monotonic() - self.started

    def wait_exit(self, timeout=30):
        """Wait for the process to end by itself; return its exit status."""
        try:
            return self.process.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the process did not exit in {timeout * SLOW:.0f} s") from None

    def quit(self, timeout=30):
        """Ask it to quit; return its exit status."""
        try:
            self.qmp.command("quit")
        except ConnectionError:
            pass                # it may close the socket before its reply is read
        return self.wait_exit(timeout)

    # -- the screen ----------------------------------------------------------------------

    def screen_text(self):
        """The text screen, as a string of lines; empty in a graphics mode (as after reset)."""
        if is_qemu():
            return self._screen_from_memory()
        try:
            return self.qmp.command("x-screen-text")["text"]
        except QMPError as error:
            if "graphics mode" in error.desc:
                return ""
            raise

    def _hmp(self, line):
        return self.qmp.execute("human-monitor-command", {"command-line": line})

    def _screen_from_memory(self):
        def crtc(index):
            self._hmp(f"o /b 0x3d4 {index:#x}")
            return int(self._hmp("i /b 0x3d5").split("=")[1].split()[0], 16)
        start = (crtc(0x0c) << 8 | crtc(0x0d)) * 2 & 0x7fff
        dump = self._hmp(f"xp /2000xh {0xb8000 + start:#x}")
        cells = []
        for row in dump.splitlines():
            cells += [int(word, 16) & 0xff for word in row.split(":", 1)[1].split()]
        text = bytes(cells).decode("cp437").replace("\0", " ")
        return "\n".join(text[i:i + 80].rstrip() for i in range(0, 2000, 80))

    def wait_screen(self, pattern, timeout=60):
        """Wait until the text screen matches the regular expression; return the screen."""
        regex = re.compile(pattern, re.M)
        text = [""]

        def look():
            try:
                text[0] = self.screen_text()
            except QMPError as error:
                if "graphics mode" not in str(error):
                    raise
                text[0] = "(a graphics mode)"
            return regex.search(text[0])

        try:
            poll(look, timeout, f"{pattern!r} on the screen", 0.25)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; the screen shows:\n{text[0].strip()}") from None
        return text[0]

    def send_keys(self, *keys):
        """Press keys (QEMU's names), one after the other."""
        for key in keys:
            self.qmp.execute("send-key", {"keys": [{"type": "qcode", "data": part}
                                                   for part in key.split("+")]})
            time.sleep(0.02)    # QEMU's i8042 holds 16 bytes and drops what does not fit

    def type_text(self, text):
        """Type on the PS/2 keyboard (US layout)."""
        names = {" ": "spc", "\n": "ret", "-": "minus", "/": "slash", ".": "dot", ",": "comma",
                 "=": "equal", ";": "semicolon", "_": "shift+minus", "(": "shift+9",
                 ")": "shift+0", ">": "shift+dot", "|": "shift+backslash", "'": "apostrophe"}
        for char in text:
            if char in names:
                self.send_keys(names[char])
            elif char.isupper():
                self.send_keys("shift+" + char.lower())
            else:
                self.send_keys(char)

    def screendump(self, name=None):
        """Save the screen as evidence (PPM) and return (width, height, pixels)."""
        stem = name or self.evidence or "screen"
        path = os.path.join(results_dir(), f"{stem}.ppm")
        self.qmp.command("screendump", filename=path)
        with open(path, "rb") as stream:
            data = stream.read()
        match = re.match(rb"P6\s+(?:#.*\n)?(\d+)\s+(\d+)\s+255\s", data)
        if not match:
            raise ValueError(f"{path} is no PPM: {data[:20]!r}")
        width, height = int(match[1]), int(match[2])
        pixels = data[match.end():]
        if len(pixels) != width * height * 3:
            raise ValueError(f"{path}: {width}x{height} with {len(pixels)} bytes")
        return width, height, pixels

    # -- the end -------------------------------------------------------------------------

    def close(self):
        """End the process whatever it does, close everything, remove the directory."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5 * SLOW)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        _live.discard(self)
        if self.qmp:
            self.qmp.close()
            self.qmp = None
        for console in self.serials + ([self.debugcon] if self.debugcon else []):
            console.close()
        self.serials = []
        self.debugcon = None
        shutil.rmtree(self.dir, True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if value is not None and self.process and not isinstance(value, unittest.SkipTest):
            self._explain()
        self.close()

    def _explain(self):
        """A test failed: say on stderr what the guest looked like."""
        say = lambda text: print(text, file=sys.stderr)
        say(f"\n--- {shlex.join(self.argv)}")
        say(f"--- exit status {self.process.poll()}; its stderr:\n{self.stderr()[-4000:]}")
        if self.qmp and self.process.poll() is None:
            try:
                say(f"--- status: {self.qmp.command('query-status')}")
                say("--- screen:\n" + self.screen_text().strip())
            except Exception as error:   # evidence only; the test's own error is what counts
                say(f"--- no screen: {error}")
        if self.serial:
            say("--- serial:\n" + self.serial.text()[-3000:])


class TestCase(unittest.TestCase):
    """Skips where no guest can run; names evidence after the test."""

    @classmethod
    def setUpClass(cls):
        reason = why_no_vmm()
        if reason:
            raise unittest.SkipTest(reason)

    def evidence(self):
        """A file name stem for this test."""
        return self.id().split(".", 1)[1].replace(".", "-")

    def guest(self, *args, **options):
        """A Guest that ends with this test at the latest."""
        options.setdefault("evidence", self.evidence())
        return Guest(*args, **options)


class _Result(unittest.TextTestResult):
    """Counts passes and prints how long each test took."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passed = 0
        self._t0 = 0.0

    def startTest(self, test):
        self._t0 = time.monotonic()
        super().startTest(test)

    def addSuccess(self, test):
        self.passed += 1
        self.stream.write(f"[{time.monotonic() - self._t0:.1f} s] ")
        super().addSuccess(test)


def main():
    """Run the calling file's tests; see the module's head."""
    program = unittest.main(module="__main__", exit=False, verbosity=2,
                            testRunner=unittest.TextTestRunner(resultclass=_Result, verbosity=2))
    result = program.result
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    print(f"{result.passed} passed, {failed} failed, {len(result.skipped)} skipped", flush=True)
    if failed:
        sys.exit(1)
    sys.exit(77 if result.skipped and not result.passed else 0)
