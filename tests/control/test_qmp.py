#!/usr/bin/env python3
"""QMP against the real binary: every client behaviour a control socket must survive, and every query against its schema."""

import base64
import json
import os
import select
import signal
import socket
import subprocess
import threading
import unittest

from harness import Vmm, run, send_with_fds, vmmtest


def read_lines(sock, count):
    """`count` lines as bytes, ends included."""
    data = b""
    while data.count(b"\n") < count:
        part = sock.recv(65536)
        if not part:
            raise ConnectionError(f"closed after {data!r}")
        data += part
    return data.splitlines(keepends=True)


class Schema:
    """Checks values against query-qmp-schema."""

    def __init__(self, entries):
        self.entries = {entry["name"]: entry for entry in entries}

    def check(self, type_name, value, where):
        """Raise AssertionError unless value has the type."""
        entry = self.entries[type_name]
        getattr(self, "_" + entry["meta-type"])(entry, value, where)

    def _builtin(self, entry, value, where):
        kinds = {"string": str, "int": int, "number": (int, float), "boolean": bool, "null": type(None),
                 "value": object}
        kind = kinds[entry["json-type"]]
        if not isinstance(value, kind) or (entry["json-type"] == "int" and isinstance(value, bool)):
            raise AssertionError(f"{where}: {value!r} is not {entry['json-type']}")

    def _enum(self, entry, value, where):
        if value not in entry["values"]:
            raise AssertionError(f"{where}: {value!r} is not in {entry['name']}")

    def _array(self, entry, value, where):
        if not isinstance(value, list):
            raise AssertionError(f"{where}: {value!r} is no list")
        for index, item in enumerate(value):
            self.check(entry["element-type"], item, f"{where}[{index}]")

    def _object(self, entry, value, where):
        members = {member["name"]: member for member in entry["members"]}
        for variant in entry.get("variants", []):
            if value.get(entry["tag"]) == variant["case"]:
                members.update({m["name"]: m for m in self.entries[variant["type"]]["members"]})
        for name, member in members.items():
            if name in value:
                self.check(member["type"], value[name], f"{where}.{name}")
            elif "default" not in member:
                raise AssertionError(f"{where}: {name} is missing")
        for name in value:
            if name not in members:
                raise AssertionError(f"{where}: {name} is not in the schema")


class Protocol(unittest.TestCase):
    """The wire."""

    def test_greeting_and_line_ends(self):
        with Vmm() as vmm:
            sock = vmm.connect()
            greeting = read_lines(sock, 1)[0]
            self.assertTrue(greeting.endswith(b"\r\n"))  # libvirt hangs on a bare LF
            version = json.loads(greeting)["QMP"]["version"]
            self.assertEqual(version["qemu"], {"major": 7, "minor": 2, "micro": 0})
            self.assertTrue(version["package"].startswith("vmm-"))
            sock.sendall(b'{"execute":"query-status"}\n')
            self.assertIn(b"Expecting capabilities negotiation", read_lines(sock, 1)[0])
            sock.sendall(b'{"execute":"qmp_capabilities","id":"x"}{"execute":"query-status","id":[1,{"a":null}]}')
            first, second = read_lines(sock, 2)
            self.assertEqual(json.loads(first), {"return": {}, "id": "x"})
            self.assertEqual(json.loads(second)["id"], [1, {"a": None}])
            self.assertTrue(second.endswith(b"\r\n"))
            sock.close()

    def test_pretty(self):
        with Vmm("-qmp-pretty", "unix:@DIR@/pretty,server=on,wait=off") as vmm:
            sock = vmm.connect(vmm.path("pretty"))
            data = b""
            while data.count(b"{") == 0 or data.count(b"{") != data.count(b"}"):
                data += sock.recv(4096)
            self.assertIn(b'    "QMP": {', data)
            sock.close()

    def test_garbage(self):
        with Vmm() as vmm:
            sock = vmm.connect()
            read_lines(sock, 1)
            for garbage, answer in ((b"foo\n", b"invalid keyword 'foo'"), (b"\xff\n", b"JSON parse error"),
                                    (b"}\n", b"expecting value"), (b'{"a":\n]\n', b"JSON parse error"),
                                    (b"[1]\n", b"must be a JSON object"), (os.urandom(64).replace(b"\n", b"") + b"\x01\n",
                                                                           b"error")):
                sock.sendall(garbage)
                self.assertIn(answer, read_lines(sock, 1)[0])
            sock.close()
            # random bytes bring some answers, never silence for good
            client = vmm.client(negotiate=False)
            client.send_raw(os.urandom(100000) + b'\n"\n\n{"execute":"qmp_capabilities","id":"after"}\n')
            vmmtest.poll(lambda: any(reply.get("id") == "after" for reply in client.replies), 20, "an answer")
            self.assertEqual(vmm.qmp.command("query-status")["status"], "running")

    def test_half_a_message_then_gone(self):
        with Vmm() as vmm:
            for _ in range(20):
                sock = vmm.connect()
                read_lines(sock, 1)
                sock.sendall(b'{"execute": "qu')
                sock.close()
            self.assertTrue(vmm.qmp.command("query-status")["running"])

    def test_ten_mebibytes(self):
        with Vmm() as vmm:
            client = vmm.client(negotiate=False)
            before = vmm.rss()
            client.send_raw(b'{"execute":"qmp_capabilities","id":"' + b"x" * (11 << 20) + b'"}\n')
            self.assertIn("size limit", client.receive()["error"]["desc"])
            client.send_raw(b"[" * (10 << 20) + b"\n")
            self.assertIn("nesting depth", client.receive()["error"]["desc"])
            client.send_raw(b'{"execute":"qmp_capabilities","id":1}\n')
            self.assertEqual(client.receive()["return"], {})
            client.send_raw(b'{"execute":"qmp_capabilities","id":"' + b"x" * (9 << 20) + b'"}\n')
            self.assertIn("already complete", client.receive()["error"]["desc"])
            self.assertLess(vmm.rss() - before, 4 << 20)  # nothing is kept

    def test_twenty_clients_at_once(self):
        with Vmm() as vmm:
            vmm.qmp.command("query-status")
            before = vmm.fds()
            clients = [vmm.client() for _ in range(20)]
            errors = []

            def work(number, client):
                try:
                    for index in range(100):
                        client.send_raw(json.dumps({"execute": "query-commands", "id": [number, index]}).encode())
                    for index in range(100):
                        if client.receive()["id"] != [number, index]:
                            raise AssertionError("replies out of order")
                except BaseException as error:  # pylint: disable=broad-except
                    errors.append(error)

            threads = [threading.Thread(target=work, args=pair) for pair in enumerate(clients)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(errors, [])
            vmm.qmp.command("stop")
            for client in clients:
                client.wait_event("STOP")
            for client in clients:
                client.close()
            vmmtest.poll(lambda: vmm.fds() == before, 10, "the descriptors to be closed")

    def test_connects_leak_nothing(self):
        with Vmm() as vmm:
            vmm.qmp.command("query-status")
            fds, threads = vmm.fds(), vmmtest.process_counts(vmm.pid)["threads"]
            for index in range(200):
                sock = vmm.connect()
                if index % 2:
                    read_lines(sock, 1)
                    sock.sendall(b'{"execute":"qmp_capabilities"}')
                sock.close()
            vmmtest.poll(lambda: vmm.fds() == fds, 10, "the descriptors to be closed")
            self.assertEqual(vmmtest.process_counts(vmm.pid)["threads"], threads)

    def test_client_that_reads_nothing(self):
        with Vmm() as vmm:
            before = vmm.rss()
            sock = vmm.connect()
            sock.sendall(b'{"execute":"qmp_capabilities"}')
            sock.setblocking(False)
            request = b'{"execute":"query-qmp-schema"}\n' * 1000
            sent = 0
            # Push until it takes no more: its own answers must stop it.
            while select.select([], [sock], [], 0.3)[1]:
                sent += sock.send(request)
                self.assertLess(sent, 50 << 20)
            for _ in range(3000):  # events for it pile up as well
                vmm.qmp.send_raw(b'{"execute":"stop"}{"execute":"cont"}')
            self.assertTrue(vmm.qmp.command("query-name") == {})
            self.assertLess(vmm.rss() - before, 24 << 20)
            sock.close()
            self.assertTrue(vmm.qmp.command("query-status")["running"])

    def test_unix_path_in_use(self):
        with Vmm() as vmm:
            status, text = run("-qmp", f"unix:{vmm.qmp_path},server=on,wait=off")
            self.assertEqual(status, 1)
            self.assertIn("is in use", text)
            self.assertEqual(text.count("\n"), 1)
            self.assertTrue(vmm.qmp.command("query-status")["running"])  # the first one is not disturbed
            os.kill(vmm.pid, signal.SIGKILL)
            vmm.process.wait()
            with Vmm("-qmp", f"unix:{vmm.qmp_path},server=on,wait=off") as heir:  # a stale one is replaced
                self.assertTrue(heir.client(vmm.qmp_path).command("query-status")["running"])


class Monitors(unittest.TestCase):
    """Ways to get one."""

    def test_inherited_listening_socket(self):
        listener = socket.socket(socket.AF_UNIX)
        with Vmm(qmp=False) as probe:
            path = probe.path("listen")
            listener.bind(path)
            listener.listen(5)
            listener.setblocking(False)
            fd = listener.fileno()
            with Vmm("-chardev", f"socket,id=charmonitor,fd={fd},server=on,wait=off", "-mon",
                     "chardev=charmonitor,id=monitor,mode=control", qmp=False, pass_fds=[fd]) as vmm:
                listener.close()
                for _ in range(3):  # libvirtd restarts
                    client = vmm.client(path)
                    labels = {c["label"]: c for c in client.command("query-chardev")}
                    self.assertTrue(labels["charmonitor"]["frontend-open"])
                    client.close()

    def test_tcp(self):
        with Vmm("-chardev", "socket,id=m,host=127.0.0.1,port=0,server=on,wait=off", "-mon", "m,mode=control") as vmm:
            name = {c["label"]: c["filename"] for c in vmm.qmp.command("query-chardev")}["m"]
            port = int(name.rsplit(":", 1)[1].split(",")[0])
            with socket.create_connection(("127.0.0.1", port)) as sock:
                self.assertIn(b"QMP", read_lines(sock, 1)[0])

    def test_pipe(self):
        with Vmm(qmp=False) as probe:
            os.mkfifo(probe.path("m.in"))
            os.mkfifo(probe.path("m.out"))
            with Vmm("-qmp", f"pipe:{probe.path('m')}") as vmm:
                with open(probe.path("m.in"), "wb", 0) as out, open(probe.path("m.out"), "rb", 0) as replies:
                    self.assertIn(b"QMP", replies.readline())
                    out.write(b'{"execute":"qmp_capabilities"}')
                    self.assertIn(b"return", replies.readline())
                self.assertTrue(vmm.qmp.command("query-status")["running"])

    def test_wait_on(self):
        with Vmm(qmp=False) as probe:
            path = probe.path("wait")
            with Vmm("-qmp", f"unix:{path},server=on", qmp=False) as vmm:  # wait=on is the default
                vmmtest.poll(lambda: "waiting for a connection" in vmm.stderr(), 10, "the word")
                client = vmm.client(path)
                self.assertTrue(client.command("query-status")["running"])
                self.assertTrue(vmm.client(path).command("query-status")["running"])

    def test_refused(self):
        for args, word in ((["-monitor", "nonsense"], "nonsense"), (["-mon", "chardev=x,mode=control"], "'x'"),
                           (["-chardev", "null,id=n", "-mon", "n,mode=contrl"], "mode"),
                           (["-chardev", "null,id=n", "-mon", "n,mode=control", "-serial", "chardev:n"], "in use"),
                           (["-qmp", "unix:/nonexistent/dir/s,server=on,wait=off"], "/nonexistent/dir/s"),
                           (["-qmp", "nonsense"], "nonsense")):
            status, text = run(*args)
            self.assertEqual(status, 1, text)
            self.assertIn(word, text)
            self.assertEqual(text.count("\n"), 1, text)
        with Vmm("-monitor", "none") as vmm:
            vmm.qmp.command("query-status")


class Commands(unittest.TestCase):
    """What the tables promise."""

    def test_every_query_matches_its_schema(self):
        with Vmm("-serial", "null", "-device", "virtio-balloon-pci", "-chardev", "ringbuf,id=r", "-name", "Gästchen", "-uuid",
                 "12345678-9abc-def0-1234-56789abcdef0") as vmm:
            schema = Schema(vmm.qmp.command("query-qmp-schema"))
            commands = [c["name"] for c in vmm.qmp.command("query-commands")]
            in_schema = [e["name"] for e in schema.entries.values() if e["meta-type"] == "command"]
            self.assertEqual(sorted(commands), sorted(in_schema))
            events = [e["name"] for e in schema.entries.values() if e["meta-type"] == "event"]
            self.assertEqual(sorted(events), sorted(e["name"] for e in vmm.qmp.command("query-events")))
            ran = 0
            for name in commands:
                required = [m for m in schema.entries[schema.entries[name]["arg-type"]]["members"] if "default" not in m]
                if (name.startswith("query-") and not required) or name == "qom-list-types":
                    schema.check(schema.entries[name]["ret-type"], vmm.qmp.command(name), name)
                    ran += 1
                elif required:  # each refuses to go without what it needs
                    with self.assertRaisesRegex(vmmtest.QMPError, f"Parameter '{required[0]['name']}' is missing"):
                        vmm.qmp.command(name)
                if name != "qmp_capabilities":
                    with self.assertRaisesRegex(vmmtest.QMPError, "'x-nonsense' is unexpected|is missing"):
                        vmm.qmp.execute(name, {"x-nonsense": 1})
            self.assertGreater(ran, 20)
            self.assertEqual(vmm.qmp.command("query-name"), {"name": "Gästchen"})
            self.assertEqual(vmm.qmp.command("query-uuid")["UUID"], "12345678-9abc-def0-1234-56789abcdef0")

    def test_devices_and_options_are_listed(self):
        with Vmm() as vmm:
            types = {t["name"]: t for t in vmm.qmp.command("qom-list-types")}
            self.assertEqual(types["isa-serial"]["parent"], "isa-device")
            self.assertIn("qemu64-x86_64-cpu", types)
            self.assertNotIn("isa-device", types)  # abstract
            isa = {t["name"] for t in vmm.qmp.command("qom-list-types", implements="isa-device", abstract=True)}
            self.assertIn("isa-device", isa)
            self.assertNotIn("qemu64-x86_64-cpu", isa)
            help_text = subprocess.run([vmmtest.VMM, "-device", "help"], stdout=subprocess.PIPE, text=True,
                                       check=True).stdout
            for name in {t["name"] for t in vmm.qmp.command("qom-list-types", implements="device")}:
                if types[name]["parent"] != "x86_64-cpu":
                    properties = vmm.qmp.command("device-list-properties", typename=name)
                    self.assertEqual(len(properties), len({p["name"] for p in properties}))
            self.assertIn("isa-serial", help_text)
            with self.assertRaises(vmmtest.QMPError) as caught:
                vmm.qmp.command("device-list-properties", typename="nope")
            self.assertEqual(caught.exception.error_class, "DeviceNotFound")
            options = {o["option"]: o for o in vmm.qmp.command("query-command-line-options")}
            usage = subprocess.run([vmmtest.VMM, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
            listed = {line.split()[0][1:] for line in usage.splitlines() if line.startswith("  -")}
            renamed = {"smp": "smp-opts", "m": "memory", "boot": "boot-opts"}
            self.assertEqual({renamed.get(o, o) for o in listed}, set(options))
            self.assertIn("server", {p["name"] for p in options["chardev"]["parameters"]})
            one = vmm.qmp.command("query-command-line-options", option="machine")
            self.assertEqual(one, [options["machine"]])

    def test_life_cycle(self):
        with Vmm("-S") as vmm:
            qmp = vmm.qmp
            self.assertEqual(qmp.command("query-status"), {"status": "prelaunch", "running": False, "singlestep": False})
            qmp.command("cont")
            stamp = qmp.wait_event("RESUME")["timestamp"]
            self.assertLess(abs(stamp["seconds"] - __import__("time").time()), 60)
            self.assertLess(stamp["microseconds"], 1000000)
            qmp.command("stop")
            qmp.wait_event("STOP")
            self.assertEqual(qmp.command("query-status")["status"], "paused")
            qmp.command("stop")  # once is enough
            self.assertEqual(qmp.take_events("STOP"), [])
            qmp.command("system_reset")
            self.assertEqual(qmp.wait_event("RESET")["data"], {"guest": False, "reason": "host-qmp-system-reset"})
            qmp.command("cont")
            qmp.command("system_powerdown")
            qmp.wait_event("POWERDOWN")
            qmp.command("inject-nmi")
            qmp.command("set-action", reboot="shutdown", shutdown="pause", panic="none")
            qmp.send_raw(b'{"execute":"quit","id":"bye"}')
            self.assertEqual(qmp.wait_event("SHUTDOWN")["data"], {"guest": False, "reason": "host-qmp-quit"})
            self.assertEqual(qmp.receive()["id"], "bye")
            self.assertEqual(vmm.wait_exit(), 0)

    def test_sigterm_is_announced(self):
        with Vmm() as vmm:
            os.kill(vmm.pid, signal.SIGTERM)
            self.assertEqual(vmm.qmp.wait_event("SHUTDOWN")["data"], {"guest": False, "reason": "host-signal"})
            self.assertEqual(vmm.wait_exit(), 0)
            self.assertFalse(os.path.exists(vmm.qmp_path))

    def test_file_descriptors(self):
        with Vmm() as vmm:
            sock = vmm.connect()
            read_lines(sock, 1)
            sock.sendall(b'{"execute":"qmp_capabilities"}')
            read_lines(sock, 1)

            def ask(request, fds=()):
                send_with_fds(sock, json.dumps(request).encode(), fds) if fds else sock.sendall(
                    json.dumps(request).encode())
                return json.loads(read_lines(sock, 1)[0])

            count = vmm.fds()
            reader, writer = os.pipe()
            self.assertEqual(ask({"execute": "getfd", "arguments": {"fdname": "p"}}, [writer]), {"return": {}})
            self.assertIn("No file descriptor supplied",
                          ask({"execute": "getfd", "arguments": {"fdname": "q"}})["error"]["desc"])
            self.assertIn("not starting with a digit",
                          ask({"execute": "getfd", "arguments": {"fdname": "1q"}}, [writer])["error"]["desc"])
            added = ask({"execute": "add-fd", "arguments": {"fdset-id": 7, "opaque": "a log"}}, [writer])["return"]
            self.assertEqual(added["fdset-id"], 7)
            self.assertEqual(ask({"execute": "query-fdsets"})["return"],
                             [{"fdset-id": 7, "fds": [{"fd": added["fd"], "opaque": "a log"}]}])
            self.assertEqual(ask({"execute": "closefd", "arguments": {"fdname": "p"}}), {"return": {}})
            self.assertIn("'p' not found", ask({"execute": "closefd", "arguments": {"fdname": "p"}})["error"]["desc"])
            self.assertEqual(ask({"execute": "remove-fd", "arguments": {"fdset-id": 7}}), {"return": {}})
            self.assertEqual(vmm.fds(), count)
            os.close(writer)
            self.assertEqual(os.read(reader, 1), b"")  # vmm holds no copy of the writing end
            os.close(reader)
            sock.close()

    def test_ring_buffer(self):
        with Vmm("-chardev", "ringbuf,id=r,size=16", "-chardev", "null,id=n") as vmm:
            def read(size, **more):
                return vmm.qmp.command("ringbuf-read", device="r", size=size, **more)
            vmm.qmp.command("ringbuf-write", device="r", data="héllo")
            self.assertEqual(read(100), "héllo")
            vmm.qmp.command("ringbuf-write", device="r", data=base64.b64encode(b"\x00\xff\x01z").decode(), format="base64")
            self.assertEqual(base64.b64decode(read(2, format="base64")), b"\x00\xff")
            self.assertEqual(read(100), "\x01z")
            for data in ("!!!!", "abc", "ab=c", "===="):
                with self.assertRaisesRegex(vmmtest.QMPError, "not valid"):
                    vmm.qmp.command("ringbuf-write", device="r", data=data, format="base64")
            with self.assertRaisesRegex(vmmtest.QMPError, "n is not a ringbuf device"):
                vmm.qmp.command("ringbuf-read", device="n", size=1)
            with self.assertRaisesRegex(vmmtest.QMPError, "greater than zero"):
                read(-1)

    def test_keys_reach_the_keyboard(self):
        with Vmm("-qtest", "unix:@DIR@/qtest,server=on,wait=off") as vmm:
            board = vmm.qtest()

            def pop():
                codes = []
                while board.number("inb 0x64") & 1:
                    codes.append(board.number("inb 0x60"))
                    board.ask("clock_step 1000000")
                return codes

            board.ask("outb 0x64 0xae")
            board.ask("outb 0x60 0xf4")
            board.ask("clock_step 1000000")
            self.assertIn(0xfa, pop())
            vmm.qmp.command("input-send-event", events=[
                {"type": "key", "data": {"down": True, "key": {"type": "qcode", "data": "b"}}},
                {"type": "key", "data": {"down": False, "key": {"type": "number", "data": 0x30}}}])
            board.ask("clock_step 1000000")
            codes = pop()
            self.assertTrue(codes in ([0x32, 0xf0, 0x32], [0x30, 0xb0]), codes)
            vmm.qmp.command("send-key", keys=[{"type": "qcode", "data": "shift"}, {"type": "qcode", "data": "a"}])
            board.ask("clock_step 200000000")
            self.assertEqual(len(pop()), len(codes) * 2)
            for keys, word in (([{"type": "qcode", "data": "zzz"}], "'zzz'"), ([{"type": "number", "data": 9999}], "key"),
                               ([{"type": "qcode"}], "keys\\[0\\].data"), ([{"type": "qcode", "data": "a"}] * 17, "Too many")):
                with self.assertRaisesRegex(vmmtest.QMPError, word):
                    vmm.qmp.command("send-key", keys=keys)
            with self.assertRaisesRegex(vmmtest.QMPError, "hold-time"):
                vmm.qmp.execute("send-key", {"keys": [{"type": "qcode", "data": "a"}], "hold-time": -1})
            board.close()

    def test_human_monitor(self):
        with Vmm("-serial", "null") as vmm:
            def info(subject):
                return vmm.qmp.execute("human-monitor-command", {"command-line": subject})
            self.assertEqual(info("info status"), "VM status: running\r\n")
            self.assertIn("serial0: filename=null", info("info chardev"))
            self.assertIn("CPU #0", info("info cpus"))
            self.assertIn("isa-serial", info("info qtree"))
            self.assertIn("serial", info("info mtree"))
            self.assertIn("irr", info("info pic"))
            self.assertEqual(info("info nonsense"), "unknown command: 'info nonsense'\r\n")
            self.assertEqual(info("savevm x"), "unknown command: 'savevm x'\r\n")

    def test_screen(self):
        with Vmm("-vga", "std") as vmm:
            path = vmm.path("screen")
            vmm.qmp.command("screendump", filename=path)
            with open(path, "rb") as image:
                self.assertEqual(image.read(2), b"P6")
            with self.assertRaisesRegex(vmmtest.QMPError, "/nonexistent"):
                vmm.qmp.command("screendump", filename="/nonexistent/x")
            with self.assertRaisesRegex(vmmtest.QMPError, "does not accept value 'gif'"):
                vmm.qmp.command("screendump", filename=path, format="gif")
        with Vmm() as vmm:
            with self.assertRaisesRegex(vmmtest.QMPError, "no console"):
                vmm.qmp.command("x-screen-text")


if __name__ == "__main__":
    vmmtest.main()
