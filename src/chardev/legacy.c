/* The old spellings of -serial, -parallel, -qmp and friends, translated into -chardev options. */
#include "backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* "HOST:PORT[,opts]", "[::1]:PORT", ":PORT" -> host=, port= in o, which holds the options after the comma already. */
static int set_host_port(struct opts *o, const char *address, struct err *e)
{
	const char *colon = strrchr(address, ':');
	char *host;

	if (!colon || !colon[1])
		return err_set(e, EINVAL, "%s: a port is missing (HOST:PORT)", address);
	host = xstrndup(address, colon - address);
	if (host[0] == '[' && host[strlen(host) - 1] == ']') {
		host[strlen(host) - 1] = 0;
		opts_set(o, "host", host + 1);
	} else {
		opts_set(o, "host", host);
	}
	opts_set(o, "port", colon + 1);
	free(host);
	return 0;
}

/* text: what follows "unix:" or "tcp:": an address, then options. */
static int parse_socket(struct opts *o, const char *text, bool is_unix, bool telnet, struct err *e)
{
	int ret = opts_parse(o, text, "address", e);
	const char *address;
	char *copy;

	if (ret)
		return ret;
	address = opts_get(o, "address");
	if (!address || !*address)
		return err_set(e, EINVAL, "%s is missing after the colon", is_unix ? "the socket's path" : "HOST:PORT");
	copy = xstrdup(address);
	opts_del(o, "address");
	if (is_unix)
		opts_set(o, "path", copy);
	else
		ret = set_host_port(o, copy, e);
	free(copy);
	if (telnet)
		opts_set(o, "telnet", "on");
	opts_set(o, "backend", "socket");
	return ret;
}

static const char *after(const char *text, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(text, prefix, n) ? NULL : text + n;
}

static int parse_path(struct opts *o, const char *backend, const char *path, struct err *e)
{
	opts_set(o, "backend", backend);
	opts_set(o, "path", path);
	return *path ? 0 : err_set(e, EINVAL, "a path is missing after '%s:'", backend);
}

static int translate(struct opts *o, const char *text, struct err *e)
{
	static const char *const plain[] = {"stdio", "pty", "null", "ringbuf"};
	const char *rest;

	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		if (strcmp(text, plain[i]))
			continue;
		opts_set(o, "backend", plain[i]);
		return 0;
	}
	if ((rest = after(text, "unix:")))
		return parse_socket(o, rest, true, false, e);
	if ((rest = after(text, "tcp:")))
		return parse_socket(o, rest, false, false, e);
	if ((rest = after(text, "telnet:")))
		return parse_socket(o, rest, false, true, e);
	if ((rest = after(text, "file:")))
		return parse_path(o, "file", rest, e);
	if ((rest = after(text, "pipe:")))
		return parse_path(o, "pipe", rest, e);
	if (after(text, "/dev/parport"))
		return err_set(e, EINVAL, "a host parallel port cannot be passed on; use file: or pipe:");
	if (after(text, "/dev/"))
		return parse_path(o, "serial", text, e);
	if (!strcmp(text, "vc") || after(text, "vc:"))
		return err_set(e, EINVAL, "there are no text consoles inside the display; use stdio, pty or unix:PATH");
	return err_set(e, EINVAL,
		       "not known; use stdio, mon:stdio, pty, unix:PATH, tcp:HOST:PORT, telnet:HOST:PORT, file:PATH, "
		       "pipe:PATH, /dev/ttyN, null, none or chardev:ID");
}

struct chardev *chardev_open_legacy(const char *id, const char *text, struct err *e)
{
	const char *name, *rest;
	struct opts o = {0};
	struct chardev *c = NULL;

	if (!strcmp(text, "none"))
		return NULL;
	name = after(text, "chardev:");
	if (name) {
		c = chardev_find(name);
		if (!c)
			err_set(e, ENOENT, "chardev:%s: there is no character device '%s'", name, name);
		return c;
	}
	rest = after(text, "mon:");
	if (translate(&o, rest ? rest : text, e) == 0) {
		if (rest) {
			opts_set(&o, "mux", "on");
			/* as QEMU: on a monitor's terminal the guest gets Ctrl-C */
			if (!strcmp(rest, "stdio"))
				opts_set(&o, "signal", "off");
		}
		opts_set(&o, "id", id);
		c = chardev_open(&o, e);
		if (c && rest)
			c->wants_monitor = true;
	} else {
		err_prefix(e, "'%s'", text);
	}
	opts_free(&o);
	return c;
}
