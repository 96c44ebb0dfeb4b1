#!/usr/bin/env python3
"""What the operator asks about a guest and about vmm, against what the guest itself sees and what the test gave it."""

import os
import re
import socket
import threading

from exercise import Case, MIB, shows, vmmtest

UUID = "12345678-9abc-def0-1234-56789abcdef0"


class Server(Case):
    """Questions about vmm."""

    @shows("query-version", "query-target", "query-kvm", "query-commands", "query-events", "query-qmp-schema", "x-query-manual",
           "query-command-line-options", "human-monitor-command", "info version", "info kvm")
    def test_what_it_is(self):
        guest = self.start()
        ask = guest.qmp.command
        version = ask("query-version")
        self.assertEqual(version["qemu"], {"major": 7, "minor": 2, "micro": 0})
        self.assertEqual(self.info(guest, "version"), f"7.2.0{version['package']}\n")
        self.assertEqual(ask("query-target"), {"arch": "x86_64"})
        self.assertEqual(ask("query-kvm"), {"enabled": True, "present": True})
        self.assertEqual(self.info(guest, "kvm"), "kvm support: enabled\n")
        names = [c["name"] for c in ask("query-commands")]
        schema, manual = ask("query-qmp-schema"), ask("x-query-manual")
        self.assertEqual(sorted(names), sorted(e["name"] for e in schema if e["meta-type"] == "command"))
        self.assertEqual(names, [c["name"] for c in manual["commands"]])
        self.assertEqual(sorted(e["name"] for e in ask("query-events")),
                         sorted(e["name"] for e in schema if e["meta-type"] == "event"))
        for absent in ("savevm", "query-sev"):
            self.assertNotIn(absent, names)
            with self.assertRaises(vmmtest.QMPError) as caught:
                ask(absent)
            self.assertEqual(caught.exception.error_class, "CommandNotFound")
        used = {word[1:] for word in guest.argv[1:] if re.fullmatch(r"-[a-z]+", word)}
        renamed = {"smp": "smp-opts", "m": "memory"}
        options = {o["option"]: [p["name"] for p in o["parameters"]] for o in ask("query-command-line-options")}
        self.assertLessEqual({renamed.get(name, name) for name in used}, set(options))
        self.assertIn("maxcpus", options["smp-opts"])
        self.assertEqual(self.hmp(guest, "print (6*7)"), "0x2a\n")

    @shows("query-stats", "query-stats-schemas", "x-query-metrics")
    def test_counters(self):
        """They move while the guest runs, and stand while it stands; KVM and vmm say the same."""
        guest = self.start()
        qmp = guest.qmp
        if not qmp.command("query-stats", target="vcpu"):
            self.skipTest("this kernel has no binary statistics")
        schema = next(s for s in qmp.command("query-stats-schemas", provider="kvm") if s["target"] == "vcpu")
        self.assertIn({"name": "exits", "type": "cumulative", "exponent": 0}, schema["stats"])

        def exits():
            [one] = qmp.execute("query-stats", {"target": "vcpu", "providers": [{"provider": "kvm", "names": ["exits"]}]})
            return one["stats"][0]["value"]

        def io_exits():
            text = qmp.command("x-query-metrics")["text"]
            return int(re.search(r'^vmm_vcpu_exits_total\{vcpu="0",reason="io"\} (\d+)$', text, re.M)[1])

        first = exits(), io_exits()
        vmmtest.poll(lambda: exits() > first[0] + 100 and io_exits() > first[1] + 100, 20, "exits")
        qmp.command("stop")
        stopped = exits(), io_exits()
        [ours] = qmp.execute("query-stats", {"target": "vcpu", "providers": [{"provider": "x-vmm", "names": ["vcpu_exits_io"]}]})
        self.assertEqual(ours, {"provider": "x-vmm", "qom-path": "/machine/unattached/cpu[0]", "x-name": "0",
                                "stats": [{"name": "vcpu_exits_io", "value": stopped[1]}]})
        self.assertGreaterEqual(stopped[0], stopped[1])
        self.assertEqual((exits(), io_exits()), stopped)
        self.assertIn('vmm_guest_state{state="paused"} 1\n', qmp.command("x-query-metrics")["text"])

    @shows("getfd", "closefd")
    def test_descriptors(self):
        """vmm holds the other end of a pipe until it is told not to."""
        guest = self.start()
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.set_blocking(reader, False)
        guest.qmp.execute("getfd", {"fdname": "end"}, [writer])
        os.close(writer)
        with self.assertRaises(BlockingIOError):
            os.read(reader, 1)
        guest.qmp.command("closefd", fdname="end")
        self.assertEqual(os.read(reader, 1), b"")


class Load(Case):
    """Many clients of a guest that is at work."""

    def test_clients_under_load(self):
        """20 ask and stop and go on, 200 come and go meanwhile; the guest runs, everybody is answered, nothing is left."""
        guest = self.start("-nic", "none")
        vmmtest.poll(lambda: self.beat(guest) > 100, 20, "the guest to run")
        before, failures = guest.counts(), []

        def ask(number):
            try:
                client = guest.connect_qmp()
                for n in range(15):
                    self.assertIn(client.command("query-status")["status"], ("running", "paused"))
                    client.command("stop" if n % 2 else "cont")
                    self.assertEqual(len(client.command("query-cpus-fast")), 1)
                    client.command("query-stats", target="vcpu")
                    if n % 5 == number % 5:
                        client.command("pmemsave", val=0, size=MIB, filename=self.path(f"ram{number}"))
                client.close()
            except Exception as error:  # pylint: disable=broad-except
                failures.append(f"{number}: {error!r}")

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for n in range(200):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(guest.qmp_path)
                if n % 2:
                    sock.sendall(b'{"execute":"qmp_capabilities"}{"execute":"query-block"}' if n % 4 == 1 else b'{"execute":"qmp_ca')
        for thread in threads:
            thread.join(120 * vmmtest.SLOW)
        self.assertEqual(failures, [])
        guest.qmp.command("cont")
        beat = self.beat(guest)
        vmmtest.poll(lambda: self.beat(guest) > beat, 20, "the guest to run on")
        vmmtest.poll(lambda: all(guest.counts()[what] == before[what] for what in ("fds", "threads")), 20,
                     lambda: f"{before}, not {guest.counts()}")
        if not os.environ.get("VMM_TEST_SANITIZED"):
            self.assertLess(guest.counts()["rss_anon"] - before["rss_anon"], 8 * MIB)


class Machine(Case):
    """Questions about the guest."""

    @shows("query-name", "query-uuid", "query-memory-size-summary", "query-machines", "query-current-machine", "info name", "info uuid",
           "info memory_size_summary", "info mtree")
    def test_what_it_has(self):
        guest = self.start("-name", "Gästchen", "-uuid", UUID, "-global", "PIIX4_PM.disable_s3=1")
        ask = guest.qmp.command
        self.assertEqual(ask("query-name"), {"name": "Gästchen"})
        self.assertEqual(self.info(guest, "name"), "Gästchen\n")
        self.assertEqual(ask("query-uuid"), {"UUID": UUID})
        self.assertEqual(self.info(guest, "uuid"), UUID + "\n")
        self.assertEqual(ask("query-memory-size-summary"), {"base-memory": 64 * MIB})
        self.assertEqual(self.info(guest, "memory_size_summary"), f"base memory: {64 * MIB}\n")
        self.assertRegex(self.info(guest, "mtree"), r"0000000000100000-0000000003ffffff ram(?s:.*)ports:(?s:.*)02f8-02ff|03f8-03ff")
        default = next(m for m in ask("query-machines") if m.get("is-default"))
        self.assertEqual(default["name"] + "-machine", ask("qom-get", path="/machine", property="type"))
        self.assertEqual(ask("query-current-machine"), {"wakeup-suspend-support": False})
        self.assertEqual(self.start().qmp.command("query-current-machine"), {"wakeup-suspend-support": True})

    @shows("query-iothreads", "query-memory-devices", "query-tpm", "query-tpm-models", "query-tpm-types", "info iothreads",
           "info memory-devices", "info tpm", "info usb", "info snapshots")
    def test_what_it_has_not(self):
        """Nothing of this is there; that it is said and not refused is what clients wait for."""
        guest = self.start()
        for name in ("query-iothreads", "query-memory-devices", "query-tpm", "query-tpm-models", "query-tpm-types"):
            self.assertEqual(guest.qmp.command(name), [], name)
        for subject, text in (("iothreads", ""), ("memory-devices", ""), ("tpm", "TPM device not supported\n"),
                              ("usb", "USB support not enabled\n"), ("snapshots", "There is no snapshot available.\n")):
            self.assertEqual(self.info(guest, subject), text)

    @shows("query-cpu-definitions", "query-cpu-model-expansion")
    def test_processor(self):
        """What the guest's CPUID says is what the model's expansion said."""
        model = {"name": "qemu64", "props": {"cx16": False, "model": 15, "stepping": 3}}
        guest = self.start(cpu="qemu64,cx16=off,model=15,stepping=3")
        known = {d["name"]: d for d in guest.qmp.command("query-cpu-definitions")}
        self.assertEqual(known["qemu64"]["typename"], "qemu64-x86_64-cpu")
        self.assertEqual(guest.qmp.command("qom-get", path="/machine/unattached/cpu[0]", property="type"), "qemu64-x86_64-cpu")
        props = guest.qmp.command("query-cpu-model-expansion", type="full", model=model)["model"]["props"]
        eax, ecx, edx = (int(word, 16) for word in self.does(guest, "v", r"cpuid (\w+) (\w+) (\w+)\r").groups())
        self.assertEqual((eax & 15, eax >> 4 & 15 | eax >> 12 & 0xf0, props["model"]), (3, 15, 15))
        # A KVM without VMX and SVM lets some more of the host's own bits through.
        for name, register, bit in (("cx16", ecx, 13), ("fpu", edx, 0), ("sse2", edx, 26), ("acpi", edx, 22)):
            self.assertEqual(bool(register >> bit & 1), props[name], name)
        self.assertFalse(props["cx16"])
        model["props"]["cx16"] = True
        self.assertTrue(guest.qmp.command("query-cpu-model-expansion", type="full", model=model)["model"]["props"]["cx16"])

    @shows("info registers", "info mem", "info irq", "info pic")
    def test_processor_and_chips_at_work(self):
        guest = self.start()
        guest.qmp.command("stop")
        registers = self.info(guest, "registers")
        self.assertIn(" CPL=3 ", registers)
        rip = int(re.search(r"RIP=(\w+)", registers)[1], 16)
        self.assertTrue(0x100000 <= rip < guest.pattern_at + MIB, hex(rip))
        mapped = re.findall(r"^(\w+)-(\w+) \w+ at (\w+)$", self.info(guest, "mem"), re.M)
        self.assertTrue(any(int(a, 16) <= rip < int(b, 16) and a.strip("0") == c.strip("0") for a, b, c in mapped), mapped)
        self.assertEqual(self.info(guest, "irq"), "")
        self.hmp(guest, "o /b 0x3fc 8")     # OUT2 opens the UART's way to IRQ 4, and its transmitter is empty
        self.hmp(guest, "o /b 0x3f9 2")
        self.assertEqual(self.info(guest, "irq"), "GSI 4: high\n")
        self.assertTrue(int(re.search(r'"irr": (\d+)', self.info(guest, "pic"))[1]) & 1 << 4)
        self.hmp(guest, "o /b 0x3f9 0")
        self.assertEqual(self.info(guest, "irq"), "")

    @shows("dumpdtb")
    def test_description(self):
        """The machine, in a form that another vmm takes."""
        guest = self.start("-device", "pvpanic-pci,id=p,addr=9")
        path = self.path("machine.dtb")
        guest.qmp.command("dumpdtb", filename=path)
        with open(path, "rb") as tree:
            text = tree.read()
        self.assertEqual((text[:4], int.from_bytes(text[4:8], "big")), (b"\xd0\x0d\xfe\xed", len(text)))
        self.assertIn(b"pvpanic-pci\0", text)

    @shows("x-gdbserver")
    def test_debugger(self):
        """It comes at run time, stops the guest, reads its memory and goes."""
        guest = self.start()
        path = self.path("gdb")
        guest.qmp.command("x-gdbserver", device=f"unix:{path},server=on,wait=off")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.settimeout(30 * vmmtest.SLOW)
            stream = sock.makefile("rwb")
            self.assertTrue(self.packet(stream, b"?").startswith((b"T", b"S")))
            self.assertEqual(guest.qmp.command("query-status")["status"], "paused")
            self.assertEqual(bytes.fromhex(self.packet(stream, b"m%x,c" % guest.pattern_at).decode()), b"the operator")
            self.assertEqual(self.packet(stream, b"D"), b"OK")
            stream.close()
        self.assertEqual(guest.qmp.command("query-status")["status"], "running")
        guest.qmp.command("x-gdbserver", device="none")
        with socket.socket(socket.AF_UNIX) as sock, self.assertRaises(OSError):
            sock.connect(path)

    def packet(self, stream, data):
        """Send a packet of the remote protocol, return the answer."""
        stream.write(b"$" + data + b"#%02x" % (sum(data) & 255))
        stream.flush()
        text = b""
        while not re.search(rb"\$[^#]*#..$", text):
            text += stream.read(1)
        stream.write(b"+")
        stream.flush()
        return re.search(rb"\$([^#]*)#", text)[1]


if __name__ == "__main__":
    vmmtest.main()
