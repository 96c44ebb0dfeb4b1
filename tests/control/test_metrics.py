#!/usr/bin/env python3
"""Metrics: over HTTP in both formats, over QMP, and clients of every kind."""

import re
import shutil
import socket
import subprocess
import unittest

from harness import Vmm, run, vmmtest

SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)')
SUFFIXES = {"counter": {"_total"}, "gauge": {""}, "info": {"_info"}, "histogram": {"_bucket", "_sum", "_count"}}


def parse_openmetrics(text):
    """{family: {"type", "unit", "samples": {(name, labels): value}}}; AssertionError where OpenMetrics 1.0 is not kept."""
    families, name = {}, None
    lines = text.split("\n")
    assert lines[-2:] == ["# EOF", ""], lines[-3:]
    for line in lines[:-2]:
        if line.startswith("# "):
            word, family, rest = line[2:].split(" ", 2)
            assert word in ("TYPE", "UNIT", "HELP"), line
            if word == "TYPE":
                assert family not in families, f"{family} twice"
                assert rest in SUFFIXES, line
                name = family
                families[family] = {"type": rest, "unit": None, "samples": {}}
            assert family == name and not families[name]["samples"], f"out of place: {line}"
            if word == "UNIT":
                assert family.endswith("_" + rest), line
                families[family]["unit"] = rest
            continue
        match = SAMPLE.fullmatch(line)
        assert match, f"not a sample: {line!r}"
        assert match[1].startswith(name) and match[1][len(name):] in SUFFIXES[families[name]["type"]], line
        key = (match[1], match[2] or "")
        assert key not in families[name]["samples"], f"{key} twice"
        families[name]["samples"][key] = float(match[3])
    return families


def check_histograms(families):
    """Buckets rise, end in +Inf and agree with _count; returns how many histograms there were."""
    count = 0
    for name, family in families.items():
        if family["type"] != "histogram":
            continue
        series = {}
        for (sample, labels), value in family["samples"].items():
            if sample == name + "_bucket":
                rest, le = re.fullmatch(r'(.*?),?le="([^"]+)"', labels).groups()
                series.setdefault(rest, []).append((float(le.replace("+Inf", "inf")), value))
        for rest, buckets in series.items():
            assert buckets == sorted(buckets), (name, rest)
            assert buckets[-1][0] == float("inf"), (name, rest)
            assert family["samples"].get((name + "_count", rest), buckets[-1][1]) == buckets[-1][1]
            count += 1
    return count


def http(path, request, chunk=None):
    """Send bytes to the unix socket, return status, headers and body."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30 * vmmtest.SLOW)
        sock.connect(path)
        for i in range(0, len(request), chunk or len(request)):
            sock.sendall(request[i:i + (chunk or len(request))])
        data = b""
        while not re.match(rb"HTTP/1.1 431 (?s:.)*/metrics\n\Z", data):     # there it is for the client to hang up first
            part = sock.recv(65536)
            if not part:
                break
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in headers)
    return int(status.split()[1]), headers, body.decode()


GET = b"GET /metrics HTTP/1.1\r\nHost: guest\r\n\r\n"


class Metrics(unittest.TestCase):
    """A machine with a drive, and its metrics socket."""

    def setUp(self):
        def image(folder):
            with open(folder + "/disk", "wb") as stream:
                stream.truncate(1 << 20)

        self.vmm = Vmm("-metrics", "unix:@DIR@/metrics", "-drive", "file=@DIR@/disk,format=raw,if=ide,id=one", "-name",
                       'a"b\\c', prepare=image)
        self.addCleanup(self.vmm.close)
        self.path = self.vmm.path("metrics")

    def test_openmetrics(self):
        status, headers, body = http(self.path, GET)
        self.assertEqual(status, 200)
        self.assertEqual(headers["Content-Type"], "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.assertEqual(int(headers["Content-Length"]), len(body))
        families = parse_openmetrics(body)
        self.assertGreater(check_histograms(families), 4)
        self.assertEqual(families["process_resident_memory_bytes"]["unit"], "bytes")
        drives = families["vmm_block_size_bytes"]["samples"]
        self.assertEqual(drives, {("vmm_block_size_bytes", 'drive="one"'): 1 << 20})
        reads = families["vmm_block_operations"]["samples"][("vmm_block_operations_total",
                                                              'drive="one",operation="read"')]
        latency = families["vmm_block_latency_seconds"]["samples"]
        self.assertEqual(latency[("vmm_block_latency_seconds_count", 'drive="one",operation="read"')], reads)
        states = {labels: value for (_, labels), value in families["vmm_guest_state"]["samples"].items()}
        self.assertEqual([labels for labels, value in states.items() if value], ['state="running"'])
        self.assertEqual(families["vmm_migration_active"]["samples"], {("vmm_migration_active", ""): 0})
        self.assertNotIn("vmm_guest_memory_actual_bytes", families)      # no balloon
        self.assertIn('name="a\\"b\\\\c"', body)
        self.vmm.qmp.command("stop")
        text = self.vmm.qmp.command("x-query-metrics")["text"]
        self.assertIn('vmm_guest_state{state="paused"} 1\n', text)
        self.assertEqual(parse_openmetrics(text).keys(), families.keys())

    def test_prometheus_format(self):
        """The older format, as Prometheus' own checker sees it."""
        status, headers, body = http(self.path, GET[:-2] + b"Accept: text/plain;version=0.0.4, */*;q=0.1\r\n\r\n")
        self.assertEqual((status, headers["Content-Type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        self.assertNotIn("# EOF", body)
        both = GET[:-2] + b"accept: application/openmetrics-text;version=1.0.0, text/plain;q=0.5\r\n\r\n"
        self.assertIn("openmetrics", http(self.path, both)[1]["Content-Type"])
        if not shutil.which("promtool"):
            self.skipTest("apt install prometheus")
        done = subprocess.run(["promtool", "check", "metrics"], input=body, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=60 * vmmtest.SLOW, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_requests(self):
        for request, expected in (
                (b"GET / HTTP/1.1\r\n\r\n", 404), (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", 200),
                (b"GET /metricsx HTTP/1.1\r\n\r\n", 404), (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
                (b"GET /metrics\r\n\r\n", 400), (b"\r\n\r\n", 400), (b"GET /metrics SPDY/1.1\r\n\r\n", 400),
                (b"\0\xff\xfe \x01 \n\n", 400), (b"GET /metrics HTTP/1.1\nHost: x\n\n", 200),
                (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 9000, 431)):
            status, headers, body = http(self.path, request)
            self.assertEqual(status, expected, request)
            self.assertEqual(int(headers["Content-Length"]), len(body), request)
        status, headers, body = http(self.path, GET.replace(b"GET", b"HEAD"))
        self.assertEqual((status, body), (200, ""))
        self.assertGreater(int(headers["Content-Length"]), 1000)
        self.assertEqual(http(self.path, GET, chunk=1)[0], 200)

    def test_many_clients(self):
        """More at once than are served, some that never speak or never read; nothing is left behind."""
        http(self.path, GET)
        fds = self.vmm.fds()
        silent = [self.vmm.connect(self.path) for _ in range(6)]
        deaf = [self.vmm.connect(self.path) for _ in range(6)]
        for sock in deaf:
            sock.sendall(GET)
        waiting = [self.vmm.connect(self.path) for _ in range(12)]
        for sock in waiting:
            sock.sendall(GET)
        for _ in range(50):
            self.vmm.qmp.command("query-status")        # the rest of the world goes on
        for sock in silent:
            sock.close()
        for sock in waiting:
            data = b""
            while b"# EOF\n" not in data:
                part = sock.recv(65536)
                self.assertTrue(part)
                data += part
            sock.close()
        for sock in deaf:
            sock.close()
        vmmtest.poll(lambda: self.vmm.fds() == fds, 20, "the clients' descriptors to go")

    def test_request_in_two_parts(self):
        """One client's pause is not another's."""
        sock = self.vmm.connect(self.path)
        sock.sendall(b"GET /met")
        self.assertEqual(http(self.path, GET)[0], 200)
        sock.sendall(b"rics HTTP/1.1\r\n\r\n")
        self.assertTrue(sock.recv(16).startswith(b"HTTP/1.1 200"))
        sock.close()

    def test_bad_addresses(self):
        for address in ("nonsense", "unix:", "tcp:1.2.3.4:notaport", "unix:/nonexistent/x", "unix:/x,server=off"):
            status, output = run("-metrics", address)
            self.assertEqual(status, 1, output)
            self.assertIn("-metrics", output)

    def test_latency_histograms(self):
        """block-latency-histogram-set as QEMU has it."""
        qmp = self.vmm.qmp

        def stats():
            return qmp.command("query-blockstats")[0]["stats"]

        self.assertNotIn("rd_latency_histogram", stats())
        qmp.command("block-latency-histogram-set", id="one", boundaries=[10, 50, 100], boundaries_flush=[7])
        self.assertEqual(stats()["rd_latency_histogram"], {"boundaries": [10, 50, 100], "bins": [0, 0, 0, 0]})
        self.assertEqual(stats()["wr_latency_histogram"]["boundaries"], [10, 50, 100])
        self.assertEqual(stats()["flush_latency_histogram"], {"boundaries": [7], "bins": [0, 0]})
        for bad in ([0], [5, 5], [9, 3]):
            with self.assertRaises(vmmtest.QMPError):
                qmp.command("block-latency-histogram-set", id="one", boundaries_read=bad)
        with self.assertRaises(vmmtest.QMPError) as caught:
            qmp.command("block-latency-histogram-set", id="none", boundaries=[1])
        self.assertEqual(caught.exception.error_class, "DeviceNotFound")
        qmp.command("block-latency-histogram-set", id="one", boundaries_write=[1])
        self.assertEqual(stats()["wr_latency_histogram"]["boundaries"], [1])
        self.assertEqual(stats()["rd_latency_histogram"]["boundaries"], [10, 50, 100])
        qmp.command("block-latency-histogram-set", id="one")
        self.assertFalse([key for key in stats() if key.endswith("_histogram")])

    def test_query_stats_without_kvm(self):
        """What KVM counts is not there; all metrics are."""
        self.assertEqual(self.vmm.qmp.execute("query-stats", {"target": "vm", "providers": [{"provider": "kvm"}]}), [])
        self.assertEqual(self.vmm.qmp.command("query-stats-schemas", provider="kvm"), [])
        schemas = {s["target"]: {v["name"]: v for v in s["stats"]} for s in self.vmm.qmp.command("query-stats-schemas")}
        self.assertEqual(schemas["x-drive"]["block_transferred_bytes_read"],
                         {"name": "block_transferred_bytes_read", "type": "cumulative", "unit": "bytes", "exponent": 0})
        self.assertEqual(schemas["x-drive"]["block_latency_seconds_write"],
                         {"name": "block_latency_seconds_write", "type": "log2-histogram", "unit": "seconds", "base": 10,
                          "exponent": -9})
        for target in ("vm", "x-drive"):
            [result] = self.vmm.qmp.command("query-stats", target=target)
            self.assertEqual({s["name"] for s in result["stats"]}, set(schemas[target]))
            if target == "x-drive":
                self.assertEqual((result["provider"], result["x-name"]), ("x-vmm", "one"))
                self.assertEqual(self.vmm.qmp.command("qom-get", path=result["qom-path"], property="type"), "ide-hd")
        self.assertEqual(self.vmm.qmp.command("query-stats", target="x-nic"), [])
        # each sample of the text is there, under its name and with its value
        text = self.vmm.qmp.command("x-query-metrics")["text"]
        stats = {s["name"]: s["value"] for s in self.vmm.qmp.command("query-stats", target="x-drive")[0]["stats"]}
        found = 0
        for family, operation, value in re.findall(r'^vmm_(block_\w+?)(?:_total)?\{drive="one"(?:,operation="(\w+)")?\} (\d+)$', text, re.M):
            if not family.endswith("_count"):
                self.assertEqual(stats[family + ("_" + operation if operation else "")], int(value), family)
                found += 1
        self.assertGreater(found, 20)
        with self.assertRaises(vmmtest.QMPError) as caught:
            self.vmm.qmp.command("query-stats", target="vm", vcpus=["/machine/x"])
        self.assertIn("Parameter 'vcpus' is unexpected", caught.exception.desc)


if __name__ == "__main__":
    vmmtest.main()
