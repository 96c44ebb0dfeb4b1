"""A vmm without a CPU (-accel qtest): starts in milliseconds and needs no KVM, so it is what the control tests drive.

For a build with address sanitizer: VMM_TEST_ARGS="-sandbox off" (its leak check needs more system calls) and
VMM_TEST_SANITIZED=1 (its memory says nothing about ours).
"""

import array
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import vmmtest  # noqa: E402


class Vmm:
    """One process; .qmp is a negotiated client of its first monitor.  Context manager: always ends the process."""

    def __init__(self, *args, qmp=True, pass_fds=(), stdin=subprocess.DEVNULL, stdout=None, prepare=None, env=None, defaults=False, bare=False):
        self.dir = tempfile.mkdtemp(prefix="vmm-control-")
        self.qmp_path = os.path.join(self.dir, "qmp")
        self.stderr_path = os.path.join(self.dir, "stderr")
        self.clients = []
        if prepare:
            prepare(self.dir)
        self.argv = [vmmtest.VMM, "-accel", "qtest", "-display", "none"]
        if not bare:
            self.argv += ["-m", "4", *([] if defaults else ["-nodefaults"])]
        if qmp:
            self.argv += ["-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
        self.argv += shlex.split(os.environ.get("VMM_TEST_ARGS", ""))
        self.argv += [str(arg).replace("@DIR@", self.dir) for arg in args]
        with open(self.stderr_path, "wb") as stderr:
            self.process = subprocess.Popen(self.argv, stdin=stdin, stdout=stdout or stderr, stderr=stderr, pass_fds=pass_fds,
                                            env={**os.environ, **(env or {})})
        self.pid = self.process.pid
        try:
            self.qmp = self.client() if qmp else None
        except BaseException:
            self.close()
            raise

    def path(self, name):
        """A file in the test's own directory; "@DIR@/name" in arguments."""
        return os.path.join(self.dir, name)

    def connect(self, path=None):
        """A raw connection to a unix socket of the process, waited for."""
        sock = socket.socket(socket.AF_UNIX)

        def connected():
            if self.process.poll() is not None:
                raise ConnectionError(f"{shlex.join(self.argv)}\nexited with {self.process.returncode}: "
                                      f"{self.stderr()}")
            try:
                sock.connect(path or self.qmp_path)
                return True
            except (FileNotFoundError, ConnectionRefusedError):
                return False

        vmmtest.poll(connected, 20, "a socket to connect to", 0.002)
        sock.settimeout(30 * vmmtest.SLOW)
        return sock

    def client(self, path=None, negotiate=True):
        """A QMP client."""
        sock = self.connect(path)
        sock.settimeout(None)  # before there is a reader: one that comes in the middle of this sees EAGAIN
        client = vmmtest.QMP(sock, negotiate=negotiate)
        self.clients.append(client)
        return client

    def qtest(self, path=None):
        """A qtest client."""
        return Qtest(self.connect(path or self.path("qtest")))

    def stderr(self):
        """What it said."""
        with open(self.stderr_path, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def wait_exit(self, timeout=20):
        """Its exit status, once it has ended by itself."""
        return self.process.wait(timeout * vmmtest.SLOW)

    def fds(self):
        """How many file descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_ticks(self):
        """Processor time used, in clock ticks (10 ms)."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def rss(self):
        """Resident bytes; 0 where that number means nothing."""
        return 0 if os.environ.get("VMM_TEST_SANITIZED") else vmmtest.process_counts(self.pid)["rss"]

    def close(self):
        """End it."""
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Qtest:
    """A client of the qtest protocol; interrupts that were reported are collected in .irqs as (number, level)."""

    def __init__(self, sock):
        self.stream = sock.makefile("rwb")
        self.sock = sock
        self.irqs = []

    def line(self):
        """The next line."""
        text = self.stream.readline()
        if not text:
            raise ConnectionError("qtest connection closed")
        return text.decode().rstrip("\n")

    def raw(self, request):
        """Send a request, return its answer line."""
        self.stream.write(request.encode() + b"\n")
        self.stream.flush()
        while True:
            answer = self.line()
            if not answer.startswith("IRQ "):
                return answer
            _, edge, number = answer.split()
            self.irqs.append((int(number), edge == "raise"))

    def ask(self, request):
        """Send a request that must succeed, return what follows OK."""
        answer = self.raw(request)
        if not answer.startswith("OK"):
            raise AssertionError(f"{request}: {answer}")
        return answer[3:]

    def number(self, request):
        """The same, as a number."""
        return int(self.ask(request), 0)

    def close(self):
        """Close the connection."""
        self.stream.close()
        self.sock.close()


def send_with_fds(sock, data, fds):
    """Send bytes and file descriptors in one message."""
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def free_port():
    """A TCP port of this host that nobody uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def run(*args):
    """Run vmm to its end: (status, output).  For command lines that must be refused."""
    done = subprocess.run([vmmtest.VMM, "-accel", "qtest", "-display", "none", "-m", "4", "-nodefaults", *args],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=20 * vmmtest.SLOW, check=False)
    return done.returncode, done.stdout
