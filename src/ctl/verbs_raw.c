/* Verbs: keys, devices, and QMP as it is. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "look.h"
#include "vmm/prop.h"

#define NO_OPTIONS NULL
#define EXAMPLES(...)             \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}

/* ---- sysrq ---- */

static json_t *key(const char *name)
{
	return json_pack("{s:s, s:s}", "type", "qcode", "data", name);
}

static int do_sysrq(struct ctl *c)
{
	char letter[2] = {(char)tolower((unsigned char)c->argv[1][0]), 0};
	struct guest g;
	int r, fd;

	if (!isalnum((unsigned char)letter[0]) || c->argv[1][1])
		return ctl_fail(c, CTL_USAGE, "sysrq: one letter or digit was expected, not '%.20s'", c->argv[1]);
	r = guest_connect(c, c->argv[0], &g);
	if (r)
		return r;
	if (!ctl_option(c, "serial")) {
		r = guest_command(c, &g, "send-key",
				  json_pack("{s:[o, o, o]}", "keys", key("alt"), key("sysrq"), key(letter)));
	} else {
		/* Linux takes the letter from the terminal within five seconds of a break */
		r = console_is_free(c, &g, 0); /* else the letter would wait until it is */
		fd = r ? -1 : guest_socket(&g, "console.sock", &c->err);
		r = fd < 0 ? r ?: CTL_FAILED
			   : guest_command(c, &g, "chardev-send-break", json_pack("{s:s}", "id", "console0"));
		if (!r && write(fd, letter, 1) != 1)
			r = ctl_errno(c, errno, "%s: cannot write to the console", g.name);
		if (fd >= 0)
			close(fd);
	}
	guest_close(&g);
	return r;
}

/* ---- devices ---- */

/* Text as QMP wants it: numbers and switches are not strings there. */
static json_t *typed(const char *text)
{
	char *end;
	long long n = strtoll(text, &end, 0);

	if (*text && !*end)
		return json_integer(n);
	if (!strcmp(text, "on") || !strcmp(text, "true"))
		return json_true();
	if (!strcmp(text, "off") || !strcmp(text, "false"))
		return json_false();
	return json_string(text);
}

json_t *typed_object(const struct opts *o)
{
	json_t *args = json_object();

	for (size_t i = 0; i < o->n; i++) {
		static const char *const words[] = {"id",  "driver", "drive",   "netdev",
						    "mac", "type",   "chardev", "addr"};
		bool word = false;

		for (size_t k = 0; k < ARRAY_SIZE(words); k++)
			word |= !strcmp(o->v[i].key, words[k]);
		json_object_set_new(args, o->v[i].key, word ? json_string(o->v[i].value) : typed(o->v[i].value));
	}
	return args;
}

static int do_attach(struct ctl *c)
{
	struct opts o;
	struct guest g;
	const char *driver;
	int r;

	if (opts_parse(&o, c->argv[1], "driver", &c->err))
		return CTL_USAGE;
	driver = opts_get(&o, "driver");
	r = guest_connect(c, c->argv[0], &g);
	if (!r && driver && !strcmp(driver, "nic"))
		r = attach_nic(c, &g, &o);
	else if (!r)
		r = guest_command(c, &g, "device_add", typed_object(&o));
	opts_free(&o);
	guest_close(&g);
	return r;
}

/* The guest lets go of a device in its own time, and then there is an event. */
static int do_detach(struct ctl *c)
{
	const char *id = c->argv[1];
	struct guest g;
	int64_t deadline;
	bool gone = false;
	char *netdev;
	int r = guest_connect(c, c->argv[0], &g);

	if (r)
		return r;
	netdev = netdev_of(c, &g, id);
	r = guest_command(c, &g, "device_del", json_pack("{s:s}", "id", id));
	deadline = now_ms() + c->timeout_ms;
	while (!r && !gone) {
		json_t *event = qmp_event(g.qmp, (int)MAX(deadline - now_ms(), (int64_t)0));
		json_t *data = json_object_get(event, "data");
		const char *name = json_string_value(json_object_get(event, "event"));
		const char *device = json_string_value(json_object_get(data, "device"));
		bool ours = (device && !strcmp(device, id)) ||
			    (*id == '/' && !strcmp(id, json_string_value(json_object_get(data, "path")) ?: ""));

		if (!event)
			r = ctl_fail(c, CTL_NO_ANSWER, "%s: the guest has been asked, but does not let go of %s",
				     g.name, id);
		else if (ours && !strcmp(name, "DEVICE_UNPLUG_GUEST_ERROR"))
			r = ctl_fail(c, CTL_FAILED, "%s: the guest refuses to let go of %s", g.name, id);
		else
			gone = ours && !strcmp(name, "DEVICE_DELETED");
		json_decref(event);
	}
	if (!r && netdev) /* a card's network goes with it */
		r = guest_command(c, &g, "netdev_del", json_pack("{s:s}", "id", netdev));
	free(netdev);
	guest_close(&g);
	return r;
}

/* ---- QMP ---- */

/* "{...}" as it is, else key=value words. */
static json_t *arguments(struct ctl *c)
{
	json_t *args = json_object();

	if (c->argc > 2 && *c->argv[2] == '{') {
		json_error_t je;

		json_decref(args);
		args = json_loads(c->argv[2], 0, &je);
		if (!args)
			ctl_fail(c, CTL_USAGE, "qmp: invalid JSON at column %d: %s", je.column, je.text);
		return args;
	}
	for (int i = 2; i < c->argc; i++) {
		char *equal = strchr(c->argv[i], '='), *name;

		if (!equal) {
			json_decref(args);
			ctl_fail(c, CTL_USAGE, "qmp: '%.80s': KEY=VALUE or a JSON object was expected", c->argv[i]);
			return NULL;
		}
		name = xstrndup(c->argv[i], (size_t)(equal - c->argv[i]));
		json_object_set_new(args, name, typed(equal + 1));
		free(name);
	}
	return args;
}

/* Lines of {"execute": ..., "arguments": ...} from standard input; one reply line for each. */
static int converse(struct ctl *c, struct guest *g)
{
	char *line = NULL;
	size_t size = 0;
	int r = CTL_OK;

	while (r == CTL_OK && getline(&line, &size, stdin) > 0) {
		json_error_t je;
		json_t *request = json_loads(line, 0, &je), *answer, *id = json_object_get(request, "id"), *reply;
		const char *command = json_string_value(json_object_get(request, "execute"));
		int status;

		if (!line[strspn(line, " \t\r\n")]) {
			json_decref(request);
			continue;
		}
		if (!command) {
			r = ctl_fail(c, CTL_USAGE, "qmp: a line {\"execute\": \"COMMAND\"} was expected%s%s",
				     request ? "" : ": ", request ? "" : je.text);
			json_decref(request);
			break;
		}
		answer = guest_query(c, g, command, json_incref(json_object_get(request, "arguments")), &status);
		reply = answer ? json_pack("{s:o}", "return", answer)
			       : json_pack("{s:{s:s}}", "error", "desc", c->err.msg);
		if (id)
			json_object_set(reply, "id", id);
		json_dumpf(reply, stdout, JSON_COMPACT);
		putchar('\n');
		r = status == CTL_NO_ANSWER || fflush(stdout) ? CTL_NO_ANSWER : CTL_OK;
		json_decref(reply);
		json_decref(request);
	}
	free(line);
	c->json = r != CTL_OK && c->json;
	return r;
}

static int do_qmp(struct ctl *c)
{
	struct guest g;
	json_t *args = c->argc > 1 ? arguments(c) : NULL;
	int r;

	if (c->argc > 1 && !args)
		return CTL_USAGE;
	r = guest_connect(c, c->argv[0], &g);
	if (r) {
		json_decref(args);
		return r;
	}
	if (c->argc == 1) {
		r = converse(c, &g);
	} else {
		c->result = guest_query(c, &g, c->argv[1], args, &r);
		if (c->result && !c->json) {
			json_dumpf(c->result, stdout, JSON_ENCODE_ANY | JSON_INDENT(2));
			putchar('\n');
		}
	}
	guest_close(&g);
	return r;
}

/* ---- the table ---- */

static const struct verb_option sysrq_options[] = {{'s', "serial", NULL, "by a break on the first serial port"}, {0}};

const struct verb raw_verbs[] = {
	{"sysrq", "GUEST KEY", "Press Alt-SysRq-KEY in a guest", NULL, sysrq_options, 2, 2, WORDS_GUEST, do_sysrq,
	 EXAMPLES("vmmctl sysrq web h", "vmmctl sysrq --serial web h")},
	{"attach", "GUEST DRIVER[,PROPERTY=VALUE]...", "Add a device to a running guest",
	 "The device is written as for vmm -device; with id=NAME it can be detached. DRIVER nic is a network card with "
	 "its network, "
	 "written with the keys of [nic] in vmm.conf(5): nic,bridge=br0,model=virtio-net-pci; its id is printed.",
	 NO_OPTIONS, 2, 2, WORDS_GUEST, do_attach,
	 EXAMPLES("vmmctl attach web virtio-rng-pci,id=rng0", "vmmctl attach web nic,model=virtio")},
	{"detach", "GUEST ID", "Take a device from a running guest",
	 "Waits (--timeout) until the guest has let go of it. A card's network goes with it.", NO_OPTIONS, 2, 2,
	 WORDS_GUEST, do_detach, EXAMPLES("vmmctl detach web rng0")},
	{"qmp", "GUEST [COMMAND [KEY=VALUE]...|{JSON}]", "Send QMP commands as they are",
	 "Without a command, lines {\"execute\": COMMAND, \"arguments\": {...}} are read from standard input, and one "
	 "line is answered "
	 "to each. Options stand before the guest.",
	 NO_OPTIONS, 1, -1, WORDS_GUEST, do_qmp,
	 EXAMPLES("vmmctl qmp web query-status", "vmmctl qmp web human-monitor-command 'command-line=info status'",
		  "echo '{\"execute\": \"query-name\"}' | vmmctl qmp web")},
	{NULL},
};
