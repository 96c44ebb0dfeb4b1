#!/usr/bin/env python3
"""Write vmm-qmp(7) from what the server itself says of its commands, events and types, and from the examples beside this file.

gen-qmp-man.py VMM EXAMPLES OUTPUT
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

HEAD = r""".TH VMM-QMP 7 "" "vmm @VERSION@" "Miscellaneous"
.SH NAME
vmm-qmp \- the machine protocol of vmm
.SH DESCRIPTION
.BR vmm (1)
is controlled over QMP, QEMU's machine protocol: JSON objects over a socket opened with
.B \-qmp
or
.BR \-mon .
Names, arguments, results, events and error classes are those of QEMU 7.2 where QEMU has them; what is vmm's own starts with x\-.
.PP
The server greets; the client leaves negotiation with
.BR qmp_capabilities .
A request is
.PP
.nf
  {"execute": NAME, "arguments": {...}, "id": ANYTHING}
.fi
.PP
and is answered by {"return": ...} or {"error": {"class": ..., "desc": ...}}, with its id. Requests may be sent without waiting;
answers come in their order. A command marked OOB may be sent with "exec\-oob" instead (after enabling oob) and overtakes others.
Lines end in CR LF. A request is at most 10 MiB, 1024 levels deep. A client that does not read loses events, which are counted in
the log; up to 64 clients share a listening socket. File descriptors are passed with SCM_RIGHTS in the message of
.B getfd
or
.BR add-fd .
.PP
Work that takes long is answered when it is done, while other clients are served, or is a job: see
.BR query-jobs .
"""
TAIL = r""".SH SEE ALSO
.BR vmm (1),
.BR vmmctl (1)
"""


def quote(text):
    """Text for roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


def connect(path, process):
    """To the server's socket, once it is there."""
    sock = socket.socket(socket.AF_UNIX)
    while process.poll() is None:
        try:
            sock.connect(path)
            return sock
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.005)
    raise ConnectionError(f"vmm ended with {process.returncode}")


def ask(vmm):
    """The server's own words: version, manual, schema."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [vmm, "-accel", "qtest", "-machine", "none", "-display", "none", "-nodefaults", "-S", "-sandbox", "off", "-qmp",
                f"unix:{folder}/qmp,server=on,wait=off"]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process, connect(folder + "/qmp", process) as sock:
            sock.settimeout(60)
            results = []
            with sock.makefile("rw") as stream:
                for name in ("qmp_capabilities", "query-version", "x-query-manual", "query-qmp-schema", "quit"):
                    stream.write(json.dumps({"execute": name}) + "\n")
                    stream.flush()
                    while name != "quit":
                        answer = json.loads(stream.readline())
                        if "return" in answer:
                            results.append(answer["return"])
                            break
            process.wait(60)
    return results[1], results[2], {e["name"]: e for e in results[3]}


def read_examples(path):
    """Command -> lines of its example."""
    examples, name = {}, None
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            line = line.rstrip("\n")
            if line.startswith("= "):
                name = line[2:]
                examples[name] = []
            elif line[:3] in ("-> ", "<- "):
                examples[name].append(line)
    return examples


def read_left_out(path):
    """(reason, names), in the order of the file."""
    groups = []
    with open(path, encoding="ascii") as stream:
        for line in stream:
            if line.startswith("= "):
                groups.append((line[2:].strip(), []))
            elif line.strip() and not line.startswith("#"):
                groups[-1][1].extend(line.split())
    return groups


def type_text(schema, name):
    """A type in a word or two."""
    entry = schema.get(name, {})
    kind = entry.get("meta-type")
    if kind == "array":
        return "list of " + type_text(schema, entry["element-type"])
    if kind == "enum":
        values = entry["values"]
        return name if len(values) > 12 else " | ".join(values)
    if kind == "builtin":
        return {"str": "string", "int": "integer", "bool": "boolean", "any": "any"}.get(name, name)
    return name


def members(schema, entry, out):
    """The members of an object type as a list."""
    for member in entry.get("members", []):
        optional = " (optional)" if "default" in member else ""
        out.append(".TP\n.B " + quote(member["name"]))
        out.append(quote(type_text(schema, member["type"])) + optional)


def main(vmm, examples, output):
    version, manual, schema = ask(vmm)
    left_out = read_left_out(os.path.join(os.path.dirname(examples), "qmp-left-out.txt"))
    examples = read_examples(examples)
    out = [HEAD.replace("@VERSION@", re.sub("^vmm-", "", version["package"])), ".SH COMMANDS"]
    for command in sorted(manual["commands"], key=lambda c: c["name"].lower()):
        entry = schema[command["name"]]
        out.append(".SS " + quote(command["name"]))
        out.append(quote(command["help"]))
        members(schema, schema[entry["arg-type"]], out)
        out.append(".PP")
        if entry["ret-type"] != "q_empty":
            out.append("Returns " + quote(type_text(schema, entry["ret-type"])) + ".")
        if entry.get("allow-oob"):
            out.append("OOB.")
        out.append("Since " + command["since"] + ".")
        if command["name"] in examples:
            out.append(".PP\n.nf")
            out += [quote(line) for line in examples[command["name"]]]
            out.append(".fi")
    out.append(".SH EVENTS")
    for event in sorted(manual["events"], key=lambda e: e["name"]):
        out.append(".SS " + quote(event["name"]))
        out.append(quote(event["help"]))
        members(schema, schema[schema[event["name"]]["arg-type"]], out)
    out.append(".SH TYPES")
    for entry in sorted(schema.values(), key=lambda e: e["name"]):
        if entry["meta-type"] == "object" and not entry["name"].startswith("q_") and entry["name"] not in manual["commands"]:
            out.append(".SS " + quote(entry["name"]))
            members(schema, entry, out)
            for variant in entry.get("variants", []):
                out.append(".TP\n.B " + quote(f"{entry['tag']} = {variant['case']}"))
                out.append("as well: " + quote(", ".join(m["name"] for m in schema[variant["type"]]["members"]) or "nothing"))
        elif entry["meta-type"] == "enum" and len(entry["values"]) > 12:
            out.append(".SS " + quote(entry["name"]))
            out.append(quote(", ".join(entry["values"])))
    out.append('.SH "LEFT OUT"\nOf QEMU 7.2: commands, arguments as COMMAND.ARGUMENT, events. The command is then not found, the argument')
    out.append("refused by name.")
    for reason, names in left_out:
        out.append(".PP\n" + quote(reason))
        for title, events in (("", False), ("Events: ", True)):
            words = [n.removeprefix("event:") for n in names if n.startswith("event:") == events]
            if words:
                out.append(".br\n" + title + quote(" ".join(words)))
    out.append(TAIL)
    with open(output, "w", encoding="utf-8") as stream:
        stream.write("\n".join(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
