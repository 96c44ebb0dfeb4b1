#!/usr/bin/env python3
"""Linux from outside: gdb on the running kernel with its symbols, and dumps that gdb and crash read.

The kernel is the same as in the other Linux tests; vmlinux.debug has its symbols and types.
"""

import os
import re
import shutil
import struct
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import assets       # noqa: E402
import test_linux   # noqa: E402
import vmmtest      # noqa: E402

GDB = 120           # seconds for a session: gdb reads the symbols first


class Inside(test_linux.LinuxCase):
    """A guest with two vCPUs, its kernel's symbols, and debuggers."""

    def start(self, *tools, cpus=2):
        for tool in tools:
            if not shutil.which(tool):
                self.skipTest(f"apt install {tool}")
        self.symbols = assets.vmlinux_debug()
        self.path = os.path.join(self.work.name, "gdb.sock")
        self.core = os.path.join(self.work.name, "core")
        return self.guest("-kernel", assets.vmlinux(), "-initrd", assets.initramfs(), "-append", assets.CMDLINE,
                          "-device", "vmcoreinfo", "-gdb", f"unix:{self.path},server=on,wait=off",
                          memory=128, cpus=cpus, irqchip="on", cpu=vmmtest.cpu_model(cpus))

    def gdb(self, guest, *commands, core=False, meanwhile=None):
        """Run gdb with these commands on the stub (or the core); `meanwhile` is typed once the guest goes on."""
        target = f"core-file {self.core}" if core else f"target remote {self.path}"
        argv = ["gdb", "-nx", "-batch", "-ex", "set confirm off", "-ex", "set pagination off", "-ex", f"file {self.symbols}",
                "-ex", target]
        for command in commands:
            argv += ["-ex", command]
        out = ""
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True) as process:
            killer = threading.Timer(GDB * vmmtest.SLOW, process.kill)
            killer.start()
            for line in process.stdout:
                out += line
                if meanwhile and "goes on now" in line:
                    guest.serial.send(meanwhile)
            killer.cancel()
        return out

    def debugs(self, guest):
        """What a person does: look around, break in a system call, see who called, step, let go."""
        text = self.gdb(guest,
                        "info threads", "print nr_cpu_ids", "print init_uts_ns.name.nodename", "hbreak ksys_sync",
                        "echo goes on now\\n", "continue", "backtrace", "print $cs & 3", "stepi", "stepi",
                        "print $pc > (long)ksys_sync && $pc < (long)ksys_sync + 64", "delete", "break ksys_sync",
                        "echo goes on now\\n", "continue", "next", "print system_state", "delete", "detach", meanwhile="sync\n")
        self.assertRegex(text, r"(?s)Thread 1.*CPU#0.*Thread 1\.2.*CPU#1")
        self.assertRegex(text, r"\$1 = 2\n\$2 = \"guest\"", text)
        self.assertRegex(text, r"Breakpoint 1, ksys_sync \(\) at fs/sync.c", text)
        # By the system call's entry, or where KVM emulates by the page fault that it makes of it.
        self.assertRegex(text, r"(?s)#1 .*sys_sync.*#\d+ .*(do_syscall_64|syscall_stayed_at_cpl3|exc_page_fault)", text)
        self.assertRegex(text, r"(?s)\$3 = 0\n.*\$4 = 1\n.*Breakpoint 2, ksys_sync \(\) at.*\$5 = SYSTEM_RUNNING", text)
        self.assertIn("detached", text)
        self.assertEqual(self.shell(guest, "nproc").strip(), "2")       # it goes on

    def dump(self, guest, paging):
        guest.qmp.command("dump-guest-memory", paging=paging, protocol=f"file:{self.core}")
        guest.qmp.wait_event("DUMP_COMPLETED")

    def crash(self, *commands):
        """What crash says to these commands about the dump."""
        script = os.path.join(self.work.name, "crash")
        with open(script, "w", encoding="ascii") as out:
            out.write("\n".join((*commands, "quit", "")))
        return subprocess.run(["crash", "-s", "-i", script, self.symbols, self.core], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=GDB * vmmtest.SLOW, check=False).stdout

    def dumps(self, guest):
        """crash finds kernel, processes and log through VMCOREINFO; gdb the CPUs' stacks."""
        self.dump(guest, False)
        notes = subprocess.run(["readelf", "-n", self.core], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.assertIn("VMCOREINFO", notes)
        # Processes by their list: `ps` of crash 8.0.2 shows the idle tasks only, under QEMU too. Debian's 6.1 has the later kernels' struct
        # pid, whose numbers[1] has become numbers[]; crash reads sizeof(struct pid), which now ends before the namespace it looks for.
        text = self.crash("sys", "list task_struct.tasks -s task_struct.comm,pid -h init_task", "log")
        self.assertRegex(text, r"NODENAME: guest\n", text)
        self.assertRegex(text, r"CPUS: 2\n")
        self.assertRegex(text, r'comm = "init\\000.*\n\s*pid = 1,')
        self.assertRegex(text, r'comm = "kthreadd')
        self.assertIn("Linux version 6.1", text)
        self.dump(guest, True)
        text = self.gdb(guest, "info threads", "thread 2", "backtrace", "print init_uts_ns.name.nodename", core=True)
        self.assertRegex(text, r"(?s)LWP 1\b.*LWP 2\b")
        self.assertRegex(text, r"(?s)#\d+ .*cpu_startup_entry.*\$1 = \"guest\"", text)

    def panics(self, guest):
        """The dump of a guest that has panicked, in an interrupt of its idle task, says so and who called panic."""
        self.shell(guest, "echo 0 >/proc/sys/kernel/panic")      # it stays as it is
        guest.qmp.command("send-key", keys=[{"type": "qcode", "data": key} for key in ("alt", "sysrq", "c")])
        guest.serial.wait_for("end Kernel panic - not syncing: sysrq triggered crash", test_linux.COMMAND)
        self.dump(guest, False)
        text = self.crash("sys", "bt", "log")
        self.assertIn('PANIC: "Kernel panic - not syncing: sysrq triggered crash"', text)
        self.assertRegex(text, r"(?s)COMMAND: \"swapper/\d\".* panic at .* sysrq_handle_crash at .* i8042_interrupt at ")
        self.assertRegex(text, r"sysrq: Trigger a crash")

    def watches(self, guest):
        """The kernel where it counts its ticks, by the variable that it changes."""
        text = self.gdb(guest, "watch jiffies_64", "continue", "backtrace 12", "delete", "detach")
        match = re.search(r"Hardware watchpoint 1: jiffies_64\n\nOld value = (\d+)\nNew value = (\d+)\n", text)
        self.assertTrue(match, text)
        self.assertGreater(int(match[2]), int(match[1]))
        self.assertRegex(text, r"#\d .*tick_\w+", text)

    def debugs_a_program(self, guest):
        """From its first instruction: breakpoints of both kinds in a process, with its own page tables, and steps."""
        with open(assets.work(), "rb") as program:
            entry = struct.unpack_from("<Q", program.read(64), 24)[0]
        text = self.gdb(guest, f"hbreak *{entry}", "echo goes on now\\n", "continue", f"print $pc == {entry}", "print $cs & 3", "delete",
                        "stepi", "stepi", "set $there = $pc", f"set $pc = {entry}", "break *$there", "continue", "print $pc == $there",
                        f"print $there > {entry}", "delete", "detach", meanwhile="work /tmp /dev/null /; echo back-''again\n")
        self.assertEqual(re.findall(r"(?m)^\$\d+ = (.*)$", text), ["1", "3", "1", "1"], text)
        guest.serial.wait_for("back-again", test_linux.COMMAND)

    def test_gdb(self):
        if assets.host_is_tcg():
            self.skipTest("this host is an emulator that tells KVM of no breakpoints")
        with self.start("gdb") as guest:
            self.reaches_user_space(guest, "rootfs")
            self.debugs(guest)
            if not assets.kvm_emulates():   # else there is no debug support for code that it does not emulate
                self.watches(guest)
                self.debugs_a_program(guest)
            self.no_trouble(guest)
            self.assertEqual(guest.quit(), 0)

    def test_dumps(self):
        with self.start("gdb", "crash") as guest:
            self.reaches_user_space(guest, "rootfs")
            self.dumps(guest)
            self.no_trouble(guest)
            self.panics(guest)
            self.assertEqual(guest.quit(), 0)


if __name__ == "__main__":
    vmmtest.main()
