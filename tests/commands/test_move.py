#!/usr/bin/env python3
"""Guests that move, and memory that is written out: the payload of the migration tests checks all it has (payloads/dirtier.c)."""

import struct

from exercise import Case, MIB, shows, vmmtest
import mig

# Rewritten so fast that a move over the line below never ends by itself.
BUSY = dict(memory=96, size=48, start=40, quiet=1)
SLOW = 16 * MIB


class Move(Case):
    """From one process to another."""

    def pair(self, *, incoming="tcp:127.0.0.1:0", **options):
        source = self.watch(mig.Dirtier(**(options or BUSY))).running()
        return source, self.watch(mig.twin(source, incoming=incoming))

    def moved(self, source, dest):
        """It runs there, with all its memory."""
        self.assertEqual(source.status(), "postmigrate")
        dest.migration("completed")
        self.assertEqual(dest.status(), "running")
        dest.check()

    @shows("migrate", "migrate-incoming", "migrate-set-capabilities", "migrate-set-parameters", "migrate-continue", "query-migrate",
           "query-migrate-capabilities", "query-migrate-parameters", "MIGRATION", "MIGRATION_PASS", "info migrate",
           "info migrate_capabilities", "info migrate_parameters")
    def test_move(self):
        """With a stop before the last step, and the numbers of all of it."""
        source, dest = self.pair(incoming="defer", memory=64, size=16, rate=2000, quiet=1)
        dest.qmp.command("migrate-incoming", uri="tcp:127.0.0.1:0")
        for guest in (source, dest):
            guest.caps(events=True, pause_before_switchover=True)
        self.assertIn({"capability": "events", "state": True}, source.qmp.command("query-migrate-capabilities"))
        self.assertIn("pause-before-switchover: on\n", self.info(source, "migrate_capabilities"))
        source.params(downtime_limit=77)
        self.assertEqual(source.qmp.command("query-migrate-parameters")["downtime-limit"], 77)
        self.assertIn("downtime-limit: 77\n", self.info(source, "migrate_parameters"))
        self.assertEqual(self.info(source, "migrate"), "Migration status: none\n")
        source.qmp.command("migrate", uri=dest.address())
        source.qmp.wait_event("MIGRATION", 60, lambda d: d["status"] == "pre-switchover")
        self.assertGreaterEqual(len(source.qmp.take_events("MIGRATION_PASS")), 1)
        self.assertEqual(dest.status(), "inmigrate")
        source.qmp.command("migrate-continue", state="pre-switchover")
        source.qmp.wait_event("MIGRATION", 60, lambda d: d["status"] == "completed")
        info = source.qmp.command("query-migrate")
        self.assertGreater(info["ram"]["transferred"], 16 * MIB // 4096 * 8)
        self.assertIn("Migration status: completed\n", self.info(source, "migrate"))
        self.assertIn(f"transferred ram: {info['ram']['transferred'] // 1024} kbytes\n", self.info(source, "migrate"))
        self.moved(source, dest)

    @shows("migrate_cancel")
    def test_cancel(self):
        """It stays, and all its memory is right."""
        source, dest = self.pair()
        source.params(max_bandwidth=SLOW)
        source.qmp.command("migrate", uri=dest.address())
        source.migration("active")
        source.qmp.command("migrate_cancel")
        self.assertEqual(source.migration()["status"], "cancelled")
        self.assertEqual(source.status(), "running")
        source.check()

    @shows("migrate-start-postcopy", "migrate-pause", "migrate-recover")
    def test_postcopy(self):
        """It runs at the destination before its memory is there; the line is interrupted, and taken up again elsewhere."""
        source, dest = self.pair()
        for guest in (source, dest):
            guest.caps(postcopy_ram=True)
        source.params(max_bandwidth=SLOW, max_postcopy_bandwidth=SLOW)
        source.qmp.command("migrate", uri=dest.address())
        vmmtest.poll(lambda: source.info().get("ram", {}).get("transferred", 0) > MIB, 30, "the first of it")
        source.qmp.command("migrate-start-postcopy")
        source.migration("postcopy-active")
        self.assertEqual(dest.status(), "running")
        source.qmp.command("migrate-pause")
        for guest in (source, dest):
            guest.migration("postcopy-paused")
        dest.qmp.command("migrate-recover", uri="tcp:127.0.0.1:0")
        source.params(max_postcopy_bandwidth=0)
        source.qmp.execute("migrate", {"uri": dest.address(), "resume": True})
        self.assertEqual(source.migration(timeout=120)["status"], "completed")
        self.moved(source, dest)


class Memory(Case):
    """The observer's pattern is found in what is written out."""

    PATTERN = b"the operator looks for this"

    @shows("memsave", "pmemsave", "query-cpus-fast")
    def test_saved_memory(self):
        """By physical and by linear address."""
        guest = self.start()
        for name, arguments in (("pmemsave", {}), ("memsave", {"cpu-index": guest.qmp.command("query-cpus-fast")[0]["cpu-index"]})):
            path = self.path(name)
            guest.qmp.execute(name, {"val": guest.pattern_at, "size": 27, "filename": path, **arguments})
            with open(path, "rb") as stream:
                self.assertEqual(stream.read(), self.PATTERN)

    @shows("dump-guest-memory", "query-dump", "query-dump-guest-memory-capability", "DUMP_COMPLETED", "info dump")
    def test_dump(self):
        """An ELF core, in the background, with the pattern where the guest has it."""
        guest = self.start()
        self.assertEqual(self.info(guest, "dump"), "Status: none\n")
        self.assertIn("elf", guest.qmp.command("query-dump-guest-memory-capability")["formats"])
        path = self.path("core")
        guest.qmp.command("dump-guest-memory", paging=False, protocol=f"file:{path}", detach=True)
        result = guest.qmp.wait_event("DUMP_COMPLETED")["data"]["result"]
        self.assertEqual(result["status"], "completed")
        self.assertEqual(guest.qmp.command("query-dump"), result)
        self.assertEqual(self.info(guest, "dump"), "Status: completed\n")
        self.assertEqual(self.at(path, guest.pattern_at, len(self.PATTERN)), self.PATTERN)
        self.assertEqual(guest.qmp.command("query-status")["status"], "running")

    def at(self, path, address, size):
        """Bytes of a core by physical address."""
        with open(path, "rb") as core:
            data = core.read(64)
            self.assertEqual(data[:5], b"\x7fELF\x02")
            offset, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
            for n in range(count):
                core.seek(offset + 56 * n)
                kind, _, where, _, start, length = struct.unpack("<IIQQQQ", core.read(40))
                if kind == 1 and start <= address < start + length:
                    core.seek(where + address - start)
                    return core.read(size)
        raise AssertionError(f"{address:#x} is not in the core")


if __name__ == "__main__":
    vmmtest.main()
