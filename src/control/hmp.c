/* The table of commands people type, and how their words become a QMP command's arguments. */
#include "hmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "commands.h"
#include "gdbstub.h"
#include "json_opts.h"
#include "vmm-config.h"
#include "vmm/chardev.h"
#include "vmm/net.h"
#include "vmm/input.h"

/*
 * args, one word each:
 *   name   required     name?    optional
 *   -f=name  a flag: name is true if -f is given
 *   :i integer   :m MiB   :b on or off   :s the rest of the line   :j JSON or text   :f a file   :o options "a=b,c=d"
 * that become arguments themselves name=text   always this
 */
struct verb {
	const char *name, *alias, *args, *help;
	const char *qmp;                                                /* NULL: run does it */
	void (*run)(struct hmp *h, const char *spec, const char *rest); /* spec: "/4xw" */
	enum hmp_ids ids;
};

/* ---- commands of our own ---- */

static void run_gdbserver(struct hmp *h, const char *spec, const char *device)
{
	struct err e = ERR_INIT;

	if (!*device)
		device = "tcp::1234";
	if (gdbstub_start(h->board, device, &e))
		fprintf(h->out, "Could not open gdbserver on device '%s': %s\r\n", device, e.msg);
	else if (!strcmp(device, "none"))
		fprintf(h->out, "Disabled gdbserver\r\n");
	else
		fprintf(h->out, "Waiting for gdb connection on device '%s'\r\n", device);
}

static void run_x(struct hmp *h, const char *spec, const char *rest)
{
	hmp_examine(h, spec, rest, false);
}

static void run_xp(struct hmp *h, const char *spec, const char *rest)
{
	hmp_examine(h, spec, rest, true);
}

static void run_print(struct hmp *h, const char *spec, const char *rest)
{
	hmp_print_value(h, spec, rest);
}

static void run_cpu(struct hmp *h, const char *spec, const char *rest)
{
	struct cpu_info info;
	char *end;
	unsigned long n = strtoul(rest, &end, 0);

	for (unsigned i = 0; !*end && end != rest && machine_cpu_info(h->board, i, &info); i++)
		if (info.index == n) {
			h->cpu = info.index;
			return;
		}
	fprintf(h->out, "invalid CPU index\r\n");
}

static void run_info_command(struct hmp *h, const char *spec, const char *rest);
static void run_help(struct hmp *h, const char *spec, const char *rest);

/* "ctrl-alt-f1 [hold time]" */
static void run_sendkey(struct hmp *h, const char *spec, const char *rest)
{
	size_t len = strcspn(rest, " ");
	char *names = xstrndup(rest, len), *save = NULL;
	long hold = strtol(rest + len, NULL, 0);
	keycode_t keys[16];
	struct err e = ERR_INIT;
	size_t n = 0;

	for (char *k = strtok_r(names, "-", &save); k && !e.code; k = strtok_r(NULL, "-", &save)) {
		keycode_t code = keycode_from_name(!strcmp(k, "<") ? "less" : k);

		if (!code && !strncmp(k, "0x", 2))
			code = keycode_from_set1((uint16_t)strtoul(k, NULL, 16));
		if (!code)
			err_set(&e, EINVAL, "invalid parameter: %s", k);
		else if (n == ARRAY_SIZE(keys))
			err_set(&e, EINVAL, "too many keys");
		else
			keys[n++] = code;
	}
	if (!e.code && !n)
		err_set(&e, EINVAL, "sendkey: keys are missing");
	if (!e.code)
		input_send_keys(keys, n, (unsigned)MIN(MAX(hold, 0l), 60000l), &e);
	if (e.code)
		fprintf(h->out, "%s\r\n", e.msg);
	free(names);
}

/* With what migrations do; the words: network cards (default: all), a name for the announcement. */
static void run_announce_self(struct hmp *h, const char *spec, const char *rest)
{
	json_t *p = hmp_query(h->board, "query-migrate-parameters", NULL, NULL);
	char *words = xstrdup(rest), *save = NULL, *names = strtok_r(words, " ", &save),
	     *id = strtok_r(NULL, " ", &save);
	const char *interfaces[64 + 1] = {NULL};
	struct net_announce how = {
		.initial_ms = (uint32_t)json_integer_value(json_object_get(p, "announce-initial")),
		.max_ms = (uint32_t)json_integer_value(json_object_get(p, "announce-max")),
		.rounds = (uint32_t)json_integer_value(json_object_get(p, "announce-rounds")),
		.step_ms = (uint32_t)json_integer_value(json_object_get(p, "announce-step")),
		.id = id,
		.interfaces = names ? interfaces : NULL,
	};
	struct err e = ERR_INIT;
	size_t n = 0;

	for (char *name = names ? strtok_r(names, ",", &save) : NULL; name && n < ARRAY_SIZE(interfaces) - 1;
	     name = strtok_r(NULL, ",", &save))
		interfaces[n++] = name;
	if (net_announce(&how, &e))
		fprintf(h->out, "%s\r\n", e.msg);
	json_decref(p);
	free(words);
}

/* [ID] RULE. Outside QMP, as in QEMU. */
static void run_hostfwd(struct hmp *h, const char *words, bool add)
{
	size_t len = strcspn(words, " ");
	const char *second = words + len + strspn(words + len, " ");
	char *id = *second ? xstrndup(words, len) : NULL;
	struct err e = ERR_INIT;
	int r = net_user_forward(id, id ? second : words, add, &e);

	if (r)
		fprintf(h->out, "%s\r\n", e.msg);
	else if (!add)
		fprintf(h->out, "host forwarding rule for %s removed\r\n", id ? second : words);
	free(id);
}

static void run_hostfwd_add(struct hmp *h, const char *spec, const char *rest)
{
	run_hostfwd(h, rest, true);
}

static void run_hostfwd_remove(struct hmp *h, const char *spec, const char *rest)
{
	run_hostfwd(h, rest, false);
}

static void tell_error(void *opaque, json_t *result, const struct err *e)
{
	if (!result)
		fprintf(((struct hmp *)opaque)->out, "Error: %s\r\n", e->msg);
}

/* Two words; false, and says so: there are not two. */
static bool two_words(struct hmp *h, const char *rest, char **one, char **two)
{
	size_t n = strcspn(rest, " \t"), gap = strspn(rest + n, " \t");

	if (!n || !rest[n + gap]) {
		fprintf(h->out, "a name and a value expected\r\n");
		return false;
	}
	*one = xstrndup(rest, n);
	*two = xstrdup(rest + n + gap);
	return true;
}

static void run_set_capability(struct hmp *h, const char *spec, const char *rest)
{
	char *name, *state;
	json_t *args;

	if (!two_words(h, rest, &name, &state))
		return;
	if (strcmp(state, "on") && strcmp(state, "off")) {
		fprintf(h->out, "'%.100s': on or off expected\r\n", state);
	} else {
		args = json_pack("{s:[{s:o, s:b}]}", "capabilities", "capability", qmp_text(name), "state",
				 !strcmp(state, "on"));
		qmp_run(h->board, "migrate-set-capabilities", args, tell_error, h);
		json_decref(args);
	}
	free(name);
	free(state);
}

/* Numbers, on and off as such; everything else is text. */
static void run_set_parameter(struct hmp *h, const char *spec, const char *rest)
{
	char *name, *text, *end;
	json_t *args;
	long long number;

	if (!two_words(h, rest, &name, &text))
		return;
	number = strtoll(text, &end, 0);
	args = json_object();
	json_object_set_new(args, name,
			    *text && !*end                                ? json_integer(number)
			    : !strcmp(text, "on") || !strcmp(text, "off") ? json_boolean(!strcmp(text, "on"))
									  : qmp_text(text));
	qmp_run(h->board, "migrate-set-parameters", args, tell_error, h);
	json_decref(args);
	free(name);
	free(text);
}

static const struct verb verbs[] = {
	{"help", "?", NULL, "this list, or one command's line", NULL, run_help},
	{"info", NULL, NULL, "what the machine is and does; \"info\" alone lists the subjects", NULL, run_info_command},
	{"announce_self", NULL, NULL, "network cards tell the switches where they are: announce_self [NIC,NIC...] [ID]",
	 NULL, run_announce_self},
	{"balloon", NULL, "value:m", "leave the guest this much memory (MiB)", "balloon"},
	{"block_resize", NULL, "device size:m", "give an image another size (MiB)", "block_resize", NULL, HMP_DRIVES},
	{"block_set_io_throttle", NULL, "device bps:i bps_rd:i bps_wr:i iops:i iops_rd:i iops_wr:i",
	 "limit a drive; 0: no limit", "block_set_io_throttle", NULL, HMP_DRIVES},
	{"change", NULL, "-f=force device filename format? read-only-mode?", "put another image into a drive",
	 "blockdev-change-medium", NULL, HMP_DRIVES},
	{"chardev-add", NULL, NULL, "add a character device, in the words of -chardev", NULL, hmp_chardev_add},
	{"chardev-change", NULL, NULL, "another back end for a character device: its id, then the words of -chardev",
	 NULL, hmp_chardev_change, HMP_CHARDEVS},
	{"chardev-remove", NULL, "id", "remove a character device", "chardev-remove", NULL, HMP_CHARDEVS},
	{"chardev-send-break", NULL, "id", "send a break to the guest's port", "chardev-send-break", NULL,
	 HMP_CHARDEVS},
	{"closefd", NULL, "fdname", "close a named file descriptor", "closefd"},
	{"cont", "c", "", "let the vCPUs run", "cont"},
	{"cpu", NULL, NULL, "whose registers and page tables x, print and info show", NULL, run_cpu},
	{"device_add", NULL, ":o driver", "add a device, as -device", "device_add"},
	{"device_del", NULL, "id", "remove a device", "device_del", NULL, HMP_DEVICES},
	{"dump-guest-memory", NULL,
	 "-p=paging -d=detach -z=kdump-zlib -l=kdump-lzo -s=kdump-snappy protocol:f begin?:i length?:i",
	 "write guest memory to a file: an ELF core, or kdump's format with zlib, LZO or snappy", "dump-guest-memory"},
	{"dumpdtb", NULL, "filename", "write the machine description to a file", "dumpdtb"},
	{"eject", NULL, "-f=force device", "take the medium out", "eject", NULL, HMP_DRIVES},
	{"expire_password", NULL, "protocol time", "when the VNC password stops to be valid", "expire_password"},
	{"gdbserver", NULL, NULL, "wait for gdb on tcp::1234 or another device; none: no more", NULL, run_gdbserver},
	{"gva2gpa", NULL, NULL, "the physical address of a linear one", NULL, hmp_print_physical},
	{"hostfwd_add", NULL, NULL,
	 "forward a port of the host to a guest behind -netdev user: [ID] [tcp|udp]:[HOSTADDR]:PORT-[GUESTADDR]:PORT",
	 NULL, run_hostfwd_add},
	{"hostfwd_remove", NULL, NULL, "forward it no more: [ID] [tcp|udp]:[HOSTADDR]:PORT", NULL, run_hostfwd_remove},
	{"i", NULL, NULL, "read a port: i /b 0x60 (b, h, w)", NULL, hmp_port_in},
	{"job_cancel", NULL, "id", "cancel a job", "job-cancel"},
	{"job_dismiss", NULL, "id", "forget a job that is over", "job-dismiss"},
	{"job_pause", NULL, "id", "pause a job", "job-pause"},
	{"job_resume", NULL, "id", "resume a job", "job-resume"},
	{"memsave", NULL, "val:i size:i filename", "write linear memory to a file", "memsave"},
	{"migrate", NULL, "-d=detach -b=blk -i=inc -r=resume uri", "move the guest to another process or host",
	 "migrate"},
	{"migrate_cancel", NULL, "", "stop the migration", "migrate_cancel"},
	{"migrate_continue", NULL, "state", "go on after pre-switchover", "migrate-continue"},
	{"migrate_incoming", NULL, "uri", "where to receive from, after -incoming defer", "migrate-incoming"},
	{"migrate_pause", NULL, "", "interrupt a post-copy", "migrate-pause"},
	{"migrate_recover", NULL, "uri", "wait there for the rest of an interrupted post-copy", "migrate-recover"},
	{"migrate_set_capability", NULL, NULL, "switch a capability of migrations: NAME on|off", NULL,
	 run_set_capability},
	{"migrate_set_parameter", NULL, NULL, "set a parameter of migrations: NAME VALUE", NULL, run_set_parameter},
	{"migrate_start_postcopy", NULL, "", "let the guest run at the destination now", "migrate-start-postcopy"},
	{"mouse_button", NULL, NULL, "hold mouse buttons: 1 left, 2 middle, 4 right; 0: none", NULL, hmp_mouse_button},
	{"mouse_move", NULL, NULL, "move the mouse: dx dy [dz]", NULL, hmp_mouse_move},
	{"netdev_add", NULL, ":o type", "add a network back end, as -netdev", "netdev_add"},
	{"netdev_del", NULL, "id", "remove a network back end", "netdev_del"},
	{"nmi", NULL, "", "send an NMI to the vCPUs", "inject-nmi"},
	{"o", NULL, NULL, "write a port: o /b 0x80 1 (b, h, w)", NULL, hmp_port_out},
	{"object_add", NULL, ":o qom-type", "add an object, as -object", "object-add"},
	{"object_del", NULL, "id", "remove an object", "object-del"},
	{"pmemsave", NULL, "val:i size:i filename", "write physical memory to a file", "pmemsave"},
	{"print", "p", NULL, "value of an expression: print /x $rsp+8", NULL, run_print},
	{"qom-get", NULL, "path property", "an object's property", "qom-get"},
	{"qom-list", NULL, "path", "an object's properties", "qom-list"},
	{"qom-set", NULL, "path property value:j", "set an object's property", "qom-set"},
	{"quit", "q", "", "end vmm at once", "quit"},
	{"ringbuf_read", NULL, "device size:i", "take bytes out of a ring buffer", "ringbuf-read", NULL, HMP_CHARDEVS},
	{"ringbuf_write", NULL, "device data:s", "put bytes into a ring buffer", "ringbuf-write", NULL, HMP_CHARDEVS},
	{"screendump", NULL, "filename format?", "write the screen to an image file (ppm, png)", "screendump"},
	{"sendkey", NULL, NULL, "press keys together: sendkey ctrl-alt-f1 [milliseconds]", NULL, run_sendkey},
	{"set_link", NULL, "name up:b", "plug or unplug a network cable: on, off", "set_link"},
	{"set_password", NULL, "protocol password connected?", "set the VNC password", "set_password"},
	{"stop", "s", "", "stop the vCPUs", "stop"},
	{"system_powerdown", NULL, "", "press the ACPI power button", "system_powerdown"},
	{"system_reset", NULL, "", "press the reset button", "system_reset"},
	{"system_wakeup", NULL, "", "wake the guest from S3", "system_wakeup"},
	{"watchdog_action", NULL, "action", "what the watchdog does", "watchdog-set-action"},
	{"x", NULL, NULL, "linear memory: x /4xw $rsp", NULL, run_x},
	{"xp", NULL, NULL, "physical memory: xp /2xg 0x1000", NULL, run_xp},
};

static bool offered(const struct verb *v)
{
	return v->run || qmp_command_find(v->qmp);
}

static const struct verb *find_verb(const char *name, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		const struct verb *v = &verbs[i];

		if ((strlen(v->name) == len && !strncmp(v->name, name, len)) ||
		    (v->alias && strlen(v->alias) == len && !strncmp(v->alias, name, len)))
			return offered(v) ? v : NULL;
	}
	return NULL;
}

const char *hmp_command_at(size_t i)
{
	for (size_t k = 0; k < ARRAY_SIZE(verbs); k++)
		if (offered(&verbs[k]) && !i--)
			return verbs[k].name;
	return NULL;
}

enum hmp_ids hmp_completes(const char *command)
{
	const struct verb *v = find_verb(command, strlen(command));

	return v ? v->ids : HMP_NO_IDS;
}

/* ---- help ---- */

static void print_syntax(FILE *out, const struct verb *v)
{
	const char *p = v->args ? v->args : "";

	fprintf(out, "%s%s%s", v->name, v->alias ? "|" : "", v->alias ? v->alias : "");
	while (*p) {
		size_t n = strcspn(p, " "), name = strcspn(p, " :?=");

		if (*p == '-')
			fprintf(out, " [%.2s]", p);
		else if (*p == ':')
			fprintf(out, " options");
		else if (p[name] == '?')
			fprintf(out, " [%.*s]", (int)name, p);
		else if (strncmp(p, "driver", 6) && strncmp(p, "type", 4) && strncmp(p, "qom-type", 8))
			fprintf(out, " %.*s", (int)name, p);
		p += n + (p[n] == ' ');
	}
	fprintf(out, " -- %s\r\n", v->help);
}

static void run_help(struct hmp *h, const char *spec, const char *rest)
{
	const struct verb *one = *rest ? find_verb(rest, strlen(rest)) : NULL;
	const char *name, *help;

	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (offered(&verbs[i]) && (!*rest || one == &verbs[i]))
			print_syntax(h->out, &verbs[i]);
	for (size_t i = 0; (!*rest || !strcmp(rest, "info")) && (name = hmp_info_at(i, &help)); i++)
		if (help)
			fprintf(h->out, "info %s -- %s\r\n", name, help);
}

static void run_info_command(struct hmp *h, const char *spec, const char *rest)
{
	if (!*rest)
		run_help(h, spec, "info");
	else if (!hmp_info(h, rest))
		fprintf(h->out, "unknown command: 'info %.200s'\r\n", rest);
}

/* ---- words to arguments ---- */

/* The next word of *p: quoted or up to a blank; malloc'ed, NULL at the end. */
static char *next_word(const char **p)
{
	const char *s = *p + strspn(*p, " \t");
	char *word, *to;
	char quote = 0;

	if (!*s)
		return NULL;
	word = to = xzalloc(strlen(s) + 1);
	for (; *s && (quote || (*s != ' ' && *s != '\t')); s++) {
		if (*s == '"' && (!quote || quote == '"'))
			quote = quote ? 0 : '"';
		else if (*s == '\\' && quote && s[1])
			*to++ = *++s;
		else
			*to++ = *s;
	}
	*p = s;
	return word;
}

static json_t *typed(const char *text, char type, struct err *e)
{
	char *end;
	long long v;

	switch (type) {
	case 'b':
		if (strcmp(text, "on") && strcmp(text, "off"))
			err_set(e, EINVAL, "'%.100s': on or off expected", text);
		return json_boolean(!strcmp(text, "on"));
	case 'i':
	case 'm':
		v = strtoll(text, &end, 0);
		if (end == text || *end)
			err_set(e, EINVAL, "'%.100s': a number expected", text);
		if (type == 'm' && (v < 0 || v > INT64_MAX >> 20))
			err_set(e, EINVAL, "'%.100s': too large", text);
		return json_integer(e->code ? 0 : type == 'm' ? v << 20 : v);
	case 'j': {
		json_t *any = json_loads(text, JSON_DECODE_ANY, NULL);

		return any ? any : qmp_text(text);
	}
	case 'f':
		if (!strncmp(text, "file:", 5) || !strncmp(text, "fd:", 3))
			return json_string(text);
		return json_sprintf("file:%s", text);
	default:
		return qmp_text(text);
	}
}

/* "e1000,id=x,mac=..": the first word is the value of `implied`. */
static void add_options(json_t *args, const char *text, const char *implied, struct err *e)
{
	struct opts o = {0};

	if (opts_parse(&o, text, implied, e))
		return;
	for (size_t i = 0; i < o.n; i++)
		json_object_set_new(args, o.v[i].key, qmp_text(o.v[i].value));
	opts_free(&o);
}

/* One word of the table; false: no more input is needed. */
static void take_argument(json_t *args, const char *name, size_t len, const char **rest, struct err *e)
{
	size_t n = strcspn(name, " :?=");
	char key[64], type = name[n + (name[n] == '?')] == ':' ? name[n + (name[n] == '?') + 1] : 0;
	char *word;

	snprintf(key, sizeof(key), "%.*s", (int)n, name);
	if (type == 's') {
		*rest += strspn(*rest, " \t");
		word = **rest ? xstrdup(*rest) : NULL;
		*rest += strlen(*rest);
	} else {
		word = next_word(rest);
	}
	if (word)
		json_object_set_new(args, key, typed(word, type, e));
	else if (name[n] != '?')
		err_set(e, EINVAL, "parameter '%s' is missing", key);
	free(word);
}

/* -f and the like, in any order, before the words. */
static void take_flags(json_t *args, const char *spec, const char **rest, struct err *e)
{
	for (;;) {
		const char *p = *rest + strspn(*rest, " \t"), *flag;
		char name[64], text[4];

		if (*p != '-' || !p[1] || (p[2] && p[2] != ' '))
			return;
		snprintf(text, sizeof(text), "%.2s=", p);
		flag = strstr(spec, text);
		if (!flag) {
			if (strchr("0123456789", p[1]))
				return;
			err_set(e, EINVAL, "unsupported option %.2s", p);
			return;
		}
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(flag + 3, " "), flag + 3);
		json_object_set_new(args, name, json_true());
		*rest = p + 2;
	}
}

static json_t *arguments(const struct verb *v, const char *rest, struct err *e)
{
	json_t *args = json_object();

	if (*v->args == ':') {
		add_options(args, rest, v->args + 3, e);
		return args;
	}
	take_flags(args, v->args, &rest, e);
	for (const char *p = v->args; *p && !e->code;) {
		size_t n = strcspn(p, " ");

		if (*p != '-')
			take_argument(args, p, n, &rest, e);
		p += n + (p[n] == ' ');
	}
	rest += strspn(rest, " \t");
	if (!e->code && *rest)
		err_set(e, EINVAL, "extraneous characters at the end of line: '%.100s'", rest);
	return args;
}

/* ---- running ---- */

static void finish(struct hmp *h)
{
	void (*done)(struct hmp * h, const char *text) = h->done;
	char *text;

	fclose(h->out);
	text = h->text;
	done(h, text ? text : "");
	free(text);
}

static void print_result(FILE *out, const json_t *result)
{
	char *text = json_dumps(result, JSON_INDENT(4) | JSON_ENCODE_ANY);

	for (const char *p = text ? text : ""; *p; p++)
		fprintf(out, *p == '\n' ? "\r\n" : "%c", *p);
	fprintf(out, "\r\n");
	free(text);
}

static void answered(void *opaque, json_t *result, const struct err *e)
{
	struct hmp *h = opaque;

	if (!result)
		fprintf(h->out, "Error: %s\r\n", e->msg);
	else if (json_is_string(result))
		fprintf(h->out, "%s\r\n", json_string_value(result));
	else if (!json_is_object(result) || json_object_size(result))
		print_result(h->out, result);
	finish(h);
}

/* What dump-guest-memory's flags mean: one is an argument's value, and one has no default. */
static void finish_dump_arguments(json_t *args)
{
	static const char *const formats[] = {"kdump-zlib", "kdump-lzo", "kdump-snappy"};

	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (!json_object_del(args, formats[i]))
			json_object_set_new(args, "format", json_string(formats[i]));
	if (!json_object_get(args, "paging"))
		json_object_set_new(args, "paging", json_false());
}

static void run_qmp(struct hmp *h, const struct verb *v, const char *rest)
{
	struct err e = ERR_INIT;
	json_t *args = arguments(v, rest, &e);

	if (!strcmp(v->qmp, "dump-guest-memory"))
		finish_dump_arguments(args);
	if (e.code) {
		fprintf(h->out, "%s: %s\r\n", v->name, e.msg);
		finish(h);
	} else {
		qmp_run(h->board, v->qmp, args, answered, h);
	}
	json_decref(args);
}

/* A command of our own: what it says about a name that is being looked up is not for people. */
static void run_own(struct hmp *h)
{
	names_begin(&h->names);
	h->verb->run(h, h->spec, h->rest);
	if (names_end(&h->names))
		return;
	names_forget(&h->names);
	free(h->rest);
	finish(h);
}

static void start_text(struct hmp *h)
{
	h->text = NULL;
	h->size = 0;
	h->out = open_memstream(&h->text, &h->size);
}

static void run_again(struct names *n, bool cancelled)
{
	struct hmp *h = container_of(n, struct hmp, names);

	fclose(h->out);
	free(h->text);
	start_text(h);
	if (!cancelled) {
		run_own(h);
		return;
	}
	names_forget(n);
	free(h->rest);
	fprintf(h->out, "%s: given up, vmm ends\r\n", h->verb->name);
	finish(h);
}

void hmp_run(struct hmp *h, const char *line)
{
	const char *p = line + strspn(line, " \t");
	char *text = xstrndup(p, strcspn(p, "\r\n")), *rest; /* one command */
	size_t len = strcspn(text, " \t/"), end = strlen(text);

	while (end && (text[end - 1] == ' ' || text[end - 1] == '\t'))
		text[--end] = 0;
	start_text(h);
	h->names = (struct names){.again = run_again};
	h->verb = find_verb(text, len);
	*h->spec = 0;
	rest = text + len + strspn(text + len, " \t");
	if (h->verb && h->verb->run && *rest == '/') { /* a format: "x/4xw" or "x /4xw" */
		size_t n = strcspn(rest + 1, " \t");

		snprintf(h->spec, sizeof(h->spec), "%.*s", (int)n, rest + 1);
		rest += 1 + n;
		rest += strspn(rest, " \t");
	}
	if (h->verb && h->verb->qmp) {
		run_qmp(h, h->verb, rest);
	} else if (h->verb) {
		h->rest = xstrdup(rest);
		run_own(h);
	} else {
		if (*text)
			fprintf(h->out, "unknown command: '%.200s'\r\n", text);
		finish(h);
	}
	free(text);
}

/* ---- for those who want the text ---- */

struct text_run {
	struct hmp h;
	char *text;
	bool left; /* the caller has gone, the answer comes too late */
};

static void keep_text(struct hmp *h, const char *text)
{
	struct text_run *r = container_of(h, struct text_run, h);

	r->text = xstrdup(text);
	if (r->left) {
		free(r->text);
		free(r);
	}
}

char *hmp_run_text(struct board *board, const char *line)
{
	struct text_run *r = xzalloc(sizeof(*r));
	char *text;

	r->h.board = board;
	r->h.done = keep_text;
	hmp_run(&r->h, line);
	if (!r->text) {
		r->left = true;
		return xstrdup("started\r\n");
	}
	text = r->text;
	free(r);
	return text;
}
