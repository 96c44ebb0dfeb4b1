#!/usr/bin/env python3
"""Write vmmctl(1) and vmm.conf(5): prose around the tables that `vmmctl --json help` prints, so that they cannot differ.

gen-ctl-man.py VMMCTL vmmctl.1|vmm.conf.5 OUTPUT
"""

import json
import subprocess
import sys

FILES = r"""
.SH FILES
Each directory may be set by an environment variable; users other than root have their own below
.IR $XDG_RUNTIME_DIR ", " $XDG_CONFIG_HOME " and " $XDG_STATE_HOME .
.TP
.IR /run/vmm/NAME " (" VMM_RUN_DIR )
one directory for each guest:
.RS
.TP
.I qmp.sock
vmm's control socket, QMP
.TP
.IR pid ", " keeper
process ids; each process holds a lock on its file as long as it lives, and these locks, not the files, say who does
.TP
.I config
the configuration as started, in the syntax of
.BR vmm.conf (5)
.TP
.I command
the command line of vmm
.TP
.IR console.sock ", " console1.sock " ..."
serial ports
.TP
.IR console.log " ..."
what the guest wrote to them; old parts become holes, so it takes 512 KiB at most
.TP
.I metrics.sock
OpenMetrics text, where vmm offers it
.TP
.I log
link to the log
.TP
.I reboot
there while a reboot that
.B vmmctl reboot
asked for is under way
.RE
.TP
.IR /etc/vmm/NAME.vmm " (" VMM_CONFIG_DIR )
configurations,
.BR vmm.conf (5);
.I autostart/NAME.vmm
are links to those that start with the host
.TP
.IR /var/log/vmm/NAME.log " (" VMM_LOG_DIR )
what vmm and keeper said, also of guests that have ended; dumps of guests that crashed
.SH ENVIRONMENT
.TP
.B VMM
the vmm to run; without it the one beside vmmctl
.TP
.B VNC_VIEWER
what
.B vmmctl console \-\-graphical
starts
.TP
.BR VISUAL ", " EDITOR
what
.B vmmctl edit
starts
.TP
.B NO_COLOR
no colour on terminals
"""
KEEPER = r"""
.SH GUESTS, KEEPERS, SERVICES
There is no daemon. A guest is one process of
.BR vmm (1)
with a small keeper process, also of vmmctl, behind it. The keeper starts vmm, applies processors, shares and the password before the
guest's first instruction, and does what on\-poweroff, on\-reboot and on\-crash say. A guest that starts five times within a minute
stays down. SIGTERM asks a keeper to shut its guest down, and to end it when its
shutdown\-timeout is over; a second one, or SIGINT, ends it at once. A guest lives on when its keeper is killed.
.PP
Under systemd,
.B vmm@NAME.service
is the guest of
.IR /etc/vmm/NAME.vmm ,
and
.B vmm\-guests.service
starts those of
.B vmmctl autostart
with the host. When the host shuts down, the guests do before it, those of
.B vmmctl create
as well: root's have a scope of their own,
.BR vmm\-NAME.scope .
Services and scopes are in
.BR machine.slice ,
where their weights count against each other's.
A service has failed when its guest panicked, when vmm ended as it should not, and when there were too many starts.
"""


def escape(text):
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return "\n".join(r"\&" + line if line.startswith((".", "\\(aq")) else line for line in text.split("\n"))


def options(rows):
    for row in rows:
        letter = rf"\fB\-{row['letter']}\fR, " if row["letter"] else ""
        arg = rf" \fI{escape(row['arg'])}\fR" if row["arg"] else ""
        yield f".TP\n{letter}\\fB\\-\\-{escape(row['name'])}\\fR{arg}\n{escape(row['help'])}"


def vmmctl(about):
    yield f'.TH VMMCTL 1 "" "vmm {about["version"]}" "User Commands"'
    yield r""".SH NAME
vmmctl \- control vmm's guests
.SH SYNOPSIS
.B vmmctl
\fIVERB\fR [\fIOPTION\fR]... [\fIARGUMENT\fR]...
.SH DESCRIPTION
.B vmmctl
starts guests from configuration files and does to them what an operator wishes. It finds them by the sockets in a run directory. The
verbs are those of Xen's
.BR xm ,
and some more. What it prints is for people; with
.B \-\-json
it is one JSON value for programs; what goes on (
.BR console ,
.BR events ,
.B qmp
without a command, and logs with
.BR \-\-follow )
is one JSON value in each line.
.SH OPTIONS OF EVERY VERB"""
    yield from options(about["options"])
    yield ".SH VERBS"
    for verb in about["verbs"]:
        some = r" [\fIOPTION\fR]..." if verb["options"] else ""
        yield f'.SS "{escape(verb["name"])}"'
        yield rf"\fBvmmctl {escape(verb['name'])}\fR{some} {escape(verb['args'])}"
        yield f".PP\n{escape(verb['summary'])}."
        if verb["help"]:
            yield escape(verb["help"])
        yield from options(verb["options"])
        if verb["examples"]:
            yield ".PP\n.EX"
            yield from map(escape, verb["examples"])
            yield ".EE"
    yield KEEPER
    yield ".SH EXIT STATUS"
    for status, text in enumerate(about["status"]):
        yield f".TP\n.B {status}\n{escape(text)}"
    yield FILES
    yield ".SH SEE ALSO\n.BR vmm (1),\n.BR vmm.conf (5)"


CONF_HEAD = r""".SH NAME
vmm.conf \- configuration of a guest for vmmctl
.SH SYNOPSIS
.I /etc/vmm/NAME.vmm
.SH DESCRIPTION
One file describes one guest. Its name ends in
.IR .vmm .
.PP
Lines are
.IB key " = " value
or
.BI [ section ]\fR.
A # at the beginning of a line or behind a blank begins a comment. A value is the rest of its line without blanks at its ends, or stands in
double quotes, within which \e" \e\e \en and \et are written for a quote, a backslash, a line end and a tab. In keys, - and _ are the same. Nothing
continues on the next line. A key may be given once in a section. A mistake is reported with its line and column, an unknown key with
the nearest there is.
.PP
Relative paths begin at the directory of the file.
.SH EXAMPLE
.EX
@EXAMPLE@
.EE
"""
EXAMPLE = """# A web server.
name = web
memory = 512        # MiB
vcpus = 2
maxvcpus = 4
boot = c
vnc = 127.0.0.1:5
on-crash = coredump-restart

[disk]
file = web.img
format = raw
cache = none

[disk]
media = cdrom

[nic]
model = virtio-net-pci
bridge = br0

[nic]                   # a network of its own, through NAT
forward = tcp:127.0.0.1:2222-:22

[serial]
type = console"""
CONF_XEN = r""".SH XEN'S FILES
Files with any other name are read as those of Xen's xm and xl for HVM guests. The Python of xm's files is read as far as it is
assignments of constants: strings, numbers, True, False, None and lists of these; comments; lines continued by a bracket or a backslash. Code is
refused with its place. Settings that are ignored are said, if they ask for anything.
.PP
.EX
@EXAMPLE@
.EE
.PP
Disks are written in any of these ways:
.IR file:/path,hda,w ", " phy:sda5,hdb,w ", " tap:aio:/path,hda,w ", " /path,raw,hda,rw ,
.IR "format=raw, vdev=hda, access=rw, target=/path" ", " ,hdc:cdrom,r .
The letter of xvda, sda and ioemu:hda says which IDE drive it is. Access
.I w!
allows several guests to write at once.
"""
XEN_EXAMPLE = """builder = 'hvm'
name = 'winxp'
memory = 512
vcpus = 1
disk = [ 'file:/srv/winxp.img,hda,w',
         'file:/srv/winxp.iso,hdc:cdrom,r' ]
boot = 'dc'
vnc = 1
vnclisten = '127.0.0.1'
localtime = 1
on_reboot = 'restart'"""


def keys(section):
    for key in section["keys"]:
        default = f" (default {key['default']})" if key.get("default") not in (None, "") else ""
        kind = ", ".join(key["values"]) if "values" in key else key["type"]
        yield f".TP\n\\fB{escape(key['name'])}\\fR = \\fI{escape(kind)}\\fR\n{escape(key['help'] + default)}"


def vmm_conf(about):
    yield f'.TH VMM.CONF 5 "" "vmm {about["version"]}" "File Formats"'
    yield CONF_HEAD.replace("@EXAMPLE@", escape(EXAMPLE))
    yield ".SH KEYS"
    for section in about["config"]:
        yield f'.SS "{escape("[" + section["name"] + "]" if section["name"] else "The guest")}"'
        yield escape(section["help"])
        yield from keys(section)
    yield CONF_XEN.replace("@EXAMPLE@", escape(XEN_EXAMPLE))
    same = [s["name"] for s in about["xen"] if s["ignored"] is None]
    silent = [s["name"] for s in about["xen"] if s["ignored"] == ""]
    yield ".PP\nSettings that count: " + escape(", ".join(same)) + "."
    yield ".PP\nIgnored, because a PC of vmm has it or has no use for it: " + escape(", ".join(silent)) + "."
    yield ".PP\nIgnored with a word:"
    for setting in about["xen"]:
        if setting["ignored"]:
            yield f".TP\n.B {escape(setting['name'])}\n{escape(setting['ignored'])}"
    yield ".SH SEE ALSO\n.BR vmmctl (1),\n.BR vmm (1)"


def main():
    program, page, target = sys.argv[1:4]
    about = json.loads(subprocess.run([program, "--json", "help"], check=True, capture_output=True, text=True).stdout)
    text = {"vmmctl.1": vmmctl, "vmm.conf.5": vmm_conf}[page](about)
    with open(target, "w", encoding="utf-8") as f:
        f.write("\n".join(part.strip("\n") for part in text) + "\n")


if __name__ == "__main__":
    main()
