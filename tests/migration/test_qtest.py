"""Machines without processors (-accel qtest) move, too: RAM, devices, files, memory reserved in advance. Needs no /dev/kvm."""

import os
import re
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "control"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import harness  # noqa: E402
import mig  # noqa: E402
import vmmtest  # noqa: E402

MIB = 1 << 20
MEMORY = 64
ENDED = ("completed", "failed", "cancelled")


class Board(harness.Vmm):
    """A machine whose memory and ports the test reads and writes."""

    def __init__(self, *args, memory=MEMORY):
        super().__init__("-m", memory, "-qtest", "unix:@DIR@/qtest,server=on,wait=off", *args)
        self.board = self.qtest()

    def close(self):
        """End it, and its client."""
        if hasattr(self, "board"):
            self.board.close()
        super().close()

    def put(self, address, data):
        """Write memory."""
        self.board.ask(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def get(self, address, size):
        """Read memory."""
        return bytes.fromhex(self.board.ask(f"read {address:#x} {size:#x}")[2:])

    def set_cmos(self, index, value):
        """A byte of CMOS."""
        self.board.ask(f"outb 0x70 {index:#x}")
        self.board.ask(f"outb 0x71 {value:#x}")

    def cmos(self, index):
        """The same, read."""
        self.board.ask(f"outb 0x70 {index:#x}")
        return self.board.number("inb 0x71")

    def migration(self, *wanted):
        """query-migrate's answer, once it has one of these states."""
        return vmmtest.poll(lambda: (lambda i: i if i.get("status") in (wanted or ENDED) else None)(self.qmp.command("query-migrate")), 60,
                            lambda: f"{wanted}, it is {self.qmp.command('query-migrate')}")

    def migrate(self, uri):
        """To there; query-migrate's last answer."""
        self.qmp.command("migrate", uri=uri)
        return self.migration()

    def address(self):
        """Where it listens."""
        return "unix:" + self.qmp.command("query-migrate")["socket-address"][0]["path"]

    def faults(self):
        """Page faults so far: what was not there when it was touched."""
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as stat:
            return int(stat.read().rsplit(")", 1)[1].split()[7])

    def caps(self, *names):
        """Switch these on."""
        self.qmp.command("migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in names])

    def allocated(self):
        """MiB of guest RAM that the process has mapped and the host has given, as its page tables say."""
        with open(f"/proc/{self.pid}/smaps", encoding="ascii") as smaps:
            areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", smaps.read(), flags=re.M)
        return sum(int(re.search(r"^Rss: +(\d+) kB", area, re.M)[1]) for area in areas
                   if re.match(r"\S+ rw-s ", area) and re.search(rf"^Size: +{MEMORY << 10} kB", area, re.M)) >> 10


class Bare(Board):
    """Only these options; the machine comes with the guest, its sockets with that."""

    def __init__(self, *args):      # pylint: disable=super-init-not-called
        harness.Vmm.__init__(self, *args, qmp=False, bare=True)


class Qtest(unittest.TestCase):
    """From process to process and through files."""

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.path = os.path.join(self.dir.name, "guest")

    def source(self, *args, **options):
        """A machine with something in it; .pages are the addresses of its data, the rest is zero."""
        a = Board(*args, **options)
        self.addCleanup(a.close)
        a.pages = {page << 12: os.urandom(256) for page in (256, 257, 300, 5000, (MEMORY << 8) - 1)}
        for address, data in a.pages.items():
            a.put(address, data)
        a.put(6 * MIB, b"gone")
        a.put(6 * MIB, bytes(4))        # a page that is there, and all zeros
        a.set_cmos(0x55, 0xa7)
        a.board.ask("outb 0x21 0x5b")   # the interrupt controller's mask
        a.board.ask("clock_step 1234567")
        return a

    def destination(self, *args, incoming=None, **options):
        """One that waits."""
        b = Board("-incoming", incoming or f"unix:{self.path}", *args, **options)
        self.addCleanup(b.close)
        return b

    def same(self, a, b):
        """All that was in a is in b and nothing else."""
        self.assertEqual(b.qmp.command("query-status")["status"], "running")
        for address, data in a.pages.items():
            self.assertEqual(b.get(address, len(data)), data, hex(address))
        for address in (0x80000, MIB + 3 * 4096, 5 * MIB, 6 * MIB, 40 * MIB, (MEMORY - 2) * MIB):
            self.assertEqual(b.get(address, 4096), bytes(4096), hex(address))
        self.assertEqual(b.cmos(0x55), 0xa7)
        self.assertEqual(b.board.number("inb 0x21"), 0x5b)
        self.assertEqual(b.board.number("clock_step 0"), 1234567)

    def moved(self, a, b):
        """a moves to b."""
        info = a.migrate(b.address())
        self.assertEqual(info["status"], "completed", info)
        self.assertEqual(a.qmp.command("query-status")["status"], "postmigrate")
        b.migration("completed")
        self.same(a, b)
        return info

    def test_move(self):
        """Memory, devices, time; pages of zeros are not sent."""
        info = self.moved(self.source(), self.destination())
        self.assertLess(info["ram"]["normal"], 300)         # firmware, and our five pages
        self.assertGreater(info["ram"]["duplicate"], (MEMORY - 2) * 256)

    def test_there_and_back_with_channels(self):
        """Twice, with channels for pages of their own."""
        a, b = self.source(), self.destination()
        for vmm in (a, b):
            vmm.caps("multifd")
        self.moved(a, b)
        self.path += "2"
        c = self.destination()
        c.caps("multifd")
        b.pages = a.pages
        self.moved(b, c)

    def test_written_on_the_way(self):
        """What devices and debuggers write while it moves arrives."""
        a, b = self.source(), self.destination()
        a.qmp.command("migrate-set-parameters", **{"max-bandwidth": 200000})
        a.qmp.command("migrate", uri=b.address())
        a.migration("active")
        for page in (256, 700, 5000):
            a.pages[page << 12] = os.urandom(64)
            a.put(page << 12, a.pages[page << 12])
        a.qmp.command("migrate-set-parameters", **{"max-bandwidth": 0})
        self.assertEqual(a.migration()["status"], "completed")
        b.migration("completed")
        self.same(a, b)

    def test_damaged(self):
        """A bit that flips on the way is found, and the machine stays where it was."""
        for args in ((), ("-mem-prealloc",)):
            a, b = self.source(), self.destination(*args, incoming="tcp:127.0.0.1:0")
            port = b.qmp.command("query-migrate")["socket-address"][0]["port"]
            with self.subTest(args), mig.Proxy(f"tcp:127.0.0.1:{port}", flip_at=150000) as line:
                info = a.migrate(line.uri)
                self.assertEqual((info["status"], b.wait_exit()), ("failed", 1))
                self.assertRegex(info["error-desc"], "checksum")
                self.same(a, a)

    def test_cancel(self):
        """The machine stays, whole; the next attempt succeeds."""
        a, b = self.source(), self.destination()
        a.qmp.command("migrate-set-parameters", **{"max-bandwidth": 200000})
        a.qmp.command("migrate", uri=b.address())
        a.migration("active")
        a.qmp.command("migrate_cancel")
        a.migration("cancelled")
        self.assertEqual(b.wait_exit(), 1)
        self.same(a, a)
        a.qmp.command("migrate-set-parameters", **{"max-bandwidth": 0})
        self.path += "2"
        self.moved(a, self.destination())

    def test_postcopy(self):
        """It runs there before its memory is."""
        a, b = self.source(), self.destination()
        for vmm in (a, b):
            try:
                vmm.caps("postcopy-ram")
            except vmmtest.QMPError as error:
                self.skipTest(error.desc)
        a.qmp.command("migrate-set-parameters", **{"max-bandwidth": 200000})
        a.qmp.command("migrate", uri=b.address())
        a.migration("active")
        a.qmp.command("migrate-start-postcopy")
        self.assertEqual(a.migration()["status"], "completed")
        b.migration("completed")
        self.same(a, b)

    def test_files(self):
        """Saved, and restored in every way."""
        a = self.source()
        self.assertEqual(a.migrate(f"file:{self.path}")["status"], "completed")
        for way, args in (("", ()), (",map=eager", ("-mem-prealloc",)), (",map=lazy", ()), (",map=private", ()), (",map=lazy", ("-mem-prealloc",))):
            with self.subTest(way=way, args=args):
                b = self.destination(*args, incoming=f"file:{self.path}{way}")
                b.migration("completed")
                self.same(a, b)
                if args and "eager" in way:
                    self.assertEqual(b.allocated(), MEMORY)

    def test_mapped_ram(self):
        """QEMU's capability for files that are mapped."""
        a = self.source()
        self.assertEqual(a.migrate(f"file:{self.path}")["status"], "completed")
        b = self.destination(incoming="defer")
        b.caps("mapped-ram")
        b.qmp.command("migrate-incoming", uri=f"file:{self.path}")
        b.migration("completed")
        self.same(a, b)

    # -- memory that is reserved before the guest comes

    def reserved(self, *args, **options):
        """A destination whose memory is there before anybody connects."""
        b = self.destination(*args, **options)
        self.assertEqual(b.allocated(), MEMORY)
        return b

    def test_reserved(self):
        """-mem-prealloc and back ends with prealloc=on, listening or deferred: memory stays."""
        back_end = ("-machine", "memory-backend=m", "-object")
        for args in (("-mem-prealloc",), (*back_end, f"memory-backend-memfd,id=m,size={MEMORY}M,prealloc=on"),
                     ("-mem-prealloc", *back_end, f"memory-backend-ram,id=m,size={MEMORY}M"),
                     ("-mem-prealloc", "-mem-path", "/dev/shm")):
            with self.subTest(args):
                a, b = self.source(), self.reserved(*args)
                faults = b.faults()
                self.moved(a, b)
                self.assertEqual(b.allocated(), MEMORY)
                self.assertLess(b.faults() - faults, MEMORY * 256 / 4)      # the same pages
                b.close()
        b = self.reserved("-mem-prealloc", incoming="defer")
        b.qmp.command("migrate-incoming", uri=f"unix:{self.path}")
        self.moved(self.source(), b)

    def test_not_reserved(self):
        """Without it, memory comes with the guest."""
        b = self.destination()
        self.assertEqual(b.allocated(), 0)
        self.moved(self.source(), b)
        self.assertLess(b.allocated(), MEMORY)

    def test_reserved_and_written(self):
        """What was written to memory before the guest came, or is in a back end's file, is not in it afterwards."""
        for args in (("-mem-prealloc",), ("-machine", "memory-backend=m", "-object",
                                          f"memory-backend-file,id=m,size={MEMORY}M,mem-path={self.path}.ram,share=on,prealloc=on")):
            with self.subTest(args):
                with open(self.path + ".ram", "wb") as file:
                    file.write(b"old" * MIB)
                b = self.destination(*args)
                for page in () if "-object" in args else (256, 258, 1280, 5000, 10240):
                    b.put(page << 12, os.urandom(512))
                self.moved(self.source(), b)
                self.assertEqual(b.allocated(), MEMORY)
                b.close()

    def test_second_guest(self):
        """The first one that comes does not fit and is refused: memory waits on for the next."""
        b = self.reserved("-mem-prealloc")
        small = Board(memory=32)
        self.addCleanup(small.close)
        self.assertRegex(small.migrate(b.address())["error-desc"], "32 MiB.*64 MiB")
        self.assertEqual(b.allocated(), MEMORY)
        self.moved(self.source(), b)
        self.assertEqual(b.allocated(), MEMORY)

    def test_live_upgrade(self):
        """Memory that comes by descriptor takes the place of what was reserved."""
        a, b = self.source(), self.reserved("-mem-prealloc")
        a.qmp.command("migrate-set-parameters", mode="cpr-transfer")
        self.moved(a, b)

    def test_machine_from_the_stream(self):
        """A destination that knows nothing but to reserve memory, and that no processors are there, builds the machine from what comes."""
        a = self.source()
        b = Bare("-mem-prealloc", "-incoming", f"unix:{self.path}", "-qmp", "unix:@DIR@/qmp,server=on,wait=off", "-qtest",
                 "unix:@DIR@/qtest,server=on,wait=off")
        self.addCleanup(b.close)
        vmmtest.poll(lambda: os.path.exists(self.path), 20, "the destination to listen")
        self.assertEqual(a.migrate(f"unix:{self.path}")["status"], "completed")
        b.qmp, b.board = b.client(), b.qtest()
        b.migration("completed")
        self.same(a, b)
        self.assertEqual(b.allocated(), MEMORY)

    # -- the options

    def test_options(self):
        """What cannot be given is refused with a reason."""
        object_of = ["-object", "memory-backend-ram,id=m,size=4M", "-machine", "memory-backend=m"]
        with open(self.path, "wb"):
            pass
        too_much = 2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
        for args, why in ((["-m", f"{too_much}M", "-mem-prealloc"], rf"-mem-prealloc: .*cannot provide {too_much} MiB now \(\d+ MiB are available\)"),
                          (["-mem-path", self.path], "-mem-path .*: only a directory .*share=on"),
                          (["-mem-path", "/nonexistent/x"], "can't open backing store /nonexistent/x for guest RAM: No such file"),
                          (["-mem-path", "/dev/shm", *object_of], "'-mem-path' can't be used together with '-machine memory-backend'")):
            with self.subTest(args):
                status, said = harness.run(*args)
                self.assertEqual(status, 1, said)
                self.assertRegex(said, why)

    def test_memdevs(self):
        """query-memdev shows what the options made, as QEMU does; objects that are added later are allocated as well."""
        for args in (["-mem-prealloc"], ["-mem-prealloc", "-mem-path", "/dev/shm"]):
            with self.subTest(args), Board(*args) as a:
                a.qmp.execute("object-add", {"qom-type": "memory-backend-ram", "id": "later", "size": MIB})
                a.qmp.execute("object-add", {"qom-type": "memory-backend-ram", "id": "not", "size": MIB, "prealloc": False})
                self.assertEqual({m["id"]: (m["prealloc"], m["share"], m["size"]) for m in a.qmp.command("query-memdev")},
                                 {"pc.ram": (True, False, MEMORY * MIB), "later": (True, False, MIB), "not": (False, False, MIB)})

    @unittest.skipUnless(os.access("/dev/kvm", os.R_OK | os.W_OK), "needs /dev/kvm")
    def test_other_accelerator(self):
        """A machine with processors is no place for one without."""
        b = harness.Vmm("-m", MEMORY, "-incoming", f"unix:{self.path}", "-accel", "kvm")
        self.addCleanup(b.close)
        self.assertRegex(self.source().migrate(f"unix:{self.path}")["error-desc"], "-accel qtest.*-accel kvm")


if __name__ == "__main__":
    vmmtest.main()
