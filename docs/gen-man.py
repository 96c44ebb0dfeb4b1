#!/usr/bin/env python3
"""Write vmm(1): the prose below around the option table that `vmm --help` prints, so that the two cannot differ."""

import re
import subprocess
import sys

HEAD = r""".TH VMM 1 "" "vmm @VERSION@" "User Commands"
.SH NAME
vmm \- run an unmodified PC guest on KVM
.SH SYNOPSIS
.B vmm
[\fIOPTION\fR]... [\fIDISK-IMAGE\fR]
.SH DESCRIPTION
.B vmm
runs one guest per process: a complete i440FX PC on the Linux kernel's KVM, for operating systems that know nothing of it: DOS, Windows,
any Linux. Option names and their syntax are those of QEMU; each may be written with one dash or two. Lists of properties are
written NAME=VALUE,NAME=VALUE; a comma within a value is doubled. Where QEMU takes JSON, so does vmm.
.PP
A guest needs read and write access to
.I /dev/kvm
(group kvm). Everything else may be dropped:
.B \-runas
and
.B \-chroot
give up root, and each thread runs behind a seccomp filter unless
.B \-sandbox off
is given.
"""
TAIL = r"""
.SH KEYS
On the terminal of
.B \-nographic
and of a chardev with mux=on, Ctrl-A is the escape:
.TP
.B Ctrl-A h
help
.TP
.B Ctrl-A x
end the guest
.TP
.B Ctrl-A b
send a break
.TP
.B Ctrl-A c
the monitor ("help" lists its commands), and back
.TP
.B Ctrl-A Ctrl-A
send Ctrl-A
.SH EXIT STATUS
.TP
.B 0
the guest powered off, or vmm was told to quit
.TP
.B 1
vmm could not start, or gave up; standard error says why
.TP
.B 159
a thread broke the rules of the sandbox; standard error names it
.TP
.I other
what the guest wrote to an isa-debug-exit device, times two plus one
.SH EXAMPLES
Install from a CD image:
.PP
.EX
vmm -m 512 -disk win.img -cdrom xp.iso -boot d -vnc 127.0.0.1:1
.EE
.PP
With a network card on a tap of the host, and one on a cable to another guest:
.PP
.EX
vmm -m 512 -disk disk.img -nic tap,ifname=tap0,script=no,downscript=no,model=virtio \
    -netdev stream,id=n1,addr.type=unix,addr.path=/run/cable -device e1000,netdev=n1
.EE
.PP
A Linux kernel on the terminal, without firmware:
.PP
.EX
vmm -nographic -m 256 -kernel bzImage -initrd initrd -append console=ttyS0
.EE
.PP
A guest controlled by scripts, in the background:
.PP
.EX
vmm -m 256 -drive file=disk.img,format=raw -display none -daemonize -pidfile /run/vm.pid \
    -qmp unix:/run/vm.sock,server=on,wait=off
.EE
.SH FILES
.TP
.I /usr/share/seabios
BIOS and VGA BIOS images (package seabios);
.B \-L
and
.B \-bios
choose others
.SH SEE ALSO
.BR qemu-system-x86_64 (1)
"""


def escape(text):
    return text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")


def options(text):
    out = [".SH OPTIONS"]
    for line in text.split("\n"):
        if re.match(r"^[A-Z].*:$", line) and not line.startswith("Usage"):
            out.append(f'.SS "{line[:-1]}"')
        elif line.startswith("  -"):
            name, _, arg = line.strip().partition(" ")
            out.append(f".TP\n.B {escape(name)} \\fI{escape(arg)}\\fR" if arg else f".TP\n.B {escape(name)}")
        elif line.startswith("          "):
            out.append(escape(line.strip()))
    return "\n".join(out)


def main():
    vmm, target = sys.argv[1:3]
    text = subprocess.run([vmm, "--help"], check=True, capture_output=True, text=True).stdout
    version = subprocess.run([vmm, "--version"], check=True, capture_output=True, text=True).stdout.split()[2]
    with open(target, "w") as f:
        f.write(HEAD.replace("@VERSION@", version) + options(text) + TAIL)


if __name__ == "__main__":
    main()
