/* vmmctl: from argv to a verb's function, and what is made of the verb table: help, completion, the manual page's data.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "config.h"
#include "ctl.h"
#include "vmm-config.h"

static const struct verb *const tables[] = {guest_verbs, config_verbs, image_verbs, cpu_verbs,
					    look_verbs,  raw_verbs,    help_verbs};

const struct verb *verb_at(size_t i)
{
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
		for (const struct verb *v = tables[t]; v->name; v++)
			if (!i--)
				return v;
	return NULL;
}

const struct verb *verb_find(const char *name)
{
	const struct verb *v;

	for (size_t i = 0; (v = verb_at(i)); i++)
		if (!strcmp(v->name, name))
			return v;
	return NULL;
}

/* Options of every verb. */
static const struct verb_option common[] = {
	{'h', "help", NULL, "print help and exit"},
	{0, "json", NULL, "print one JSON value: the result, or {\"error\": ...}"},
	{0, "color", "WHEN", "auto (on a terminal), always or never"},
	{0, "timeout", "SECONDS", "how long to wait for an answer of a guest (default 10)"},
	{0},
};
#define N_COMMON (ARRAY_SIZE(common) - 1)

static const char *const status_help[] = {
	[CTL_OK] = "done",
	[CTL_FAILED] = "vmm or the host refused; the message says why",
	[CTL_USAGE] = "wrong verb, option or argument",
	[CTL_NO_GUEST] = "no guest of that name is running",
	[CTL_NO_ANSWER] = "the guest's vmm does not answer, or ended in the middle of the command",
	[CTL_BAD_CONFIG] = "a mistake in a configuration file",
};

/* ---- errors and words ---- */

int ctl_fail(struct ctl *c, enum ctl_status status, const char *fmt, ...)
{
	char text[sizeof(c->err.msg)]; /* the arguments may point into c->err */
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_set(&c->err, c->err.code ? c->err.code : EINVAL, "%s", text);
	return status;
}

int ctl_errno(struct ctl *c, int code, const char *fmt, ...)
{
	char text[sizeof(c->err.msg)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_errno(&c->err, code, "%s", text);
	return CTL_FAILED;
}

static json_t *warnings;

void ctl_warn(struct ctl *c, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!c->json) {
		fprintf(stderr, "vmmctl: %s\n", text);
		return;
	}
	if (!warnings)
		warnings = json_array();
	json_array_append_new(warnings, json_string(text));
}

void ctl_say(struct ctl *c, const char *fmt, ...)
{
	va_list ap;

	if (c->json)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
}

const char *ctl_option(const struct ctl *c, const char *name)
{
	for (size_t i = 0; c->verb->options && c->verb->options[i].name; i++)
		if (!strcmp(c->verb->options[i].name, name))
			return c->option[i];
	abort(); /* a verb asks for an option that is not in its table */
}

int ctl_number(struct ctl *c, const char *what, const char *text, long min, long max, long *out)
{
	char *end;

	errno = 0;
	*out = strtol(text, &end, 10);
	if (!*text || *end || errno || *out < min || *out > max)
		return ctl_fail(c, CTL_USAGE, "%s: '%.80s' is no whole number from %ld to %ld", what, text, min, max);
	return CTL_OK;
}

/* ---- help ---- */

static void print_option(const struct verb_option *o, FILE *out)
{
	char left[64], letter[8] = "";

	if (o->letter)
		snprintf(letter, sizeof(letter), "-%c, ", o->letter);
	snprintf(left, sizeof(left), "%s--%s%s%s", o->letter ? letter : "    ", o->name, o->arg ? " " : "",
		 o->arg ? o->arg : "");
	fprintf(out, "  %-26s %s\n", left, o->help);
}

void verb_print_help(const struct verb *v, FILE *out)
{
	fprintf(out, "Usage: vmmctl %s%s%s%s\n\n%s.\n", v->name, v->options ? " [OPTION]..." : "", *v->args ? " " : "",
		v->args, v->summary);
	if (v->help)
		fprintf(out, "\n%s\n", v->help);
	fputs("\nOptions:\n", out);
	for (const struct verb_option *o = v->options; o && o->name; o++)
		print_option(o, out);
	for (const struct verb_option *o = common; o->name; o++)
		print_option(o, out);
	if (v->examples)
		fputs("\nExamples:\n", out);
	for (size_t i = 0; v->examples && v->examples[i]; i++)
		fprintf(out, "  %s\n", v->examples[i]);
}

static json_t *describe_options(const struct verb_option *o)
{
	json_t *list = json_array();

	for (; o && o->name; o++) {
		char letter[2] = {o->letter, 0};

		json_array_append_new(list, json_pack("{s:s, s:s, s:s?, s:s}", "letter", letter, "name", o->name, "arg",
						      o->arg, "help", o->help));
	}
	return list;
}

static json_t *describe_key(const struct prop *p)
{
	json_t *o = json_pack("{s:s, s:s, s:s, s:s?}", "name", p->name, "type", prop_type_name(p), "help", p->help,
			      "default", p->def_str);

	if (p->type == PROP_BOOL)
		json_object_set_new(o, "default", json_string(p->def ? "on" : "off"));
	else if (p->type == PROP_SIZE && p->def)
		json_object_set_new(o, "default", json_integer((json_int_t)(p->def / MIB)));
	else if (p->type == PROP_U32 && p->def)
		json_object_set_new(o, "default", json_integer((json_int_t)p->def));
	else if (p->type == PROP_ENUM)
		json_object_set_new(o, "default", json_string(p->values[p->def]));
	for (size_t i = 0; p->type == PROP_ENUM && p->values[i]; i++) {
		if (!i)
			json_object_set_new(o, "values", json_array());
		json_array_append_new(json_object_get(o, "values"), json_string(p->values[i]));
	}
	return o;
}

static json_t *describe_config(void)
{
	json_t *sections = json_array();

	for (const struct config_section *s = config_sections; s->name; s++) {
		json_t *keys = json_array();

		for (const struct prop *p = s->props; p && p->name; p++)
			json_array_append_new(keys, describe_key(p));
		json_array_append_new(sections,
				      json_pack("{s:s, s:s, s:o}", "name", s->name, "help", s->help, "keys", keys));
	}
	return sections;
}

static json_t *describe_xen(void)
{
	const char *name, *ours, *why;
	json_t *settings = json_array();

	for (size_t i = 0; (name = xen_setting_at(i, &ours, &why)); i++)
		json_array_append_new(settings,
				      json_pack("{s:s, s:s?, s:s?}", "name", name, "ours", ours, "ignored", why));
	return settings;
}

json_t *verb_describe(const struct verb *v)
{
	json_t *examples = json_array();

	for (size_t k = 0; v->examples && v->examples[k]; k++)
		json_array_append_new(examples, json_string(v->examples[k]));
	return json_pack("{s:s, s:s, s:s, s:s?, s:o, s:o}", "name", v->name, "args", v->args, "summary", v->summary,
			 "help", v->help, "options", describe_options(v->options), "examples", examples);
}

json_t *verb_describe_all(void)
{
	json_t *verbs = json_array(), *statuses = json_array();
	const struct verb *v;

	for (size_t i = 0; (v = verb_at(i)); i++)
		json_array_append_new(verbs, verb_describe(v));
	for (size_t i = 0; i < ARRAY_SIZE(status_help); i++)
		json_array_append_new(statuses, json_string(status_help[i]));
	return json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "version", VMM_VERSION, "verbs", verbs, "options",
			 describe_options(common), "status", statuses, "config", describe_config(), "xen",
			 describe_xen());
}

/* ---- arguments ---- */

#define FIRST_LONG 256 /* getopt's value of the option in row i: FIRST_LONG + i */

struct parsed {
	const struct verb_option *row[VERB_MAX_OPTIONS + N_COMMON];
	struct option longs[VERB_MAX_OPTIONS + N_COMMON + 1];
	char shorts[2 * (VERB_MAX_OPTIONS + N_COMMON) + 3];
	size_t n;
};

static void add_option(struct parsed *p, const struct verb_option *o)
{
	size_t len = strlen(p->shorts);

	p->row[p->n] = o;
	p->longs[p->n] =
		(struct option){o->name, o->arg ? required_argument : no_argument, NULL, FIRST_LONG + (int)p->n};
	if (o->letter)
		snprintf(p->shorts + len, sizeof(p->shorts) - len, "%c%s", o->letter, o->arg ? ":" : "");
	p->n++;
}

static int take_common(struct ctl *c, size_t which, const char *value)
{
	long seconds;
	int r;

	switch (which) {
	case 0:
		return -1;
	case 1:
		c->json = true;
		return CTL_OK;
	case 2:
		if (strcmp(value, "auto") && strcmp(value, "always") && strcmp(value, "never"))
			return ctl_fail(c, CTL_USAGE, "--color %.40s: auto, always and never are known", value);
		c->color = !strcmp(value, "always") || (!strcmp(value, "auto") && c->color);
		return CTL_OK;
	default:
		r = ctl_number(c, "--timeout", value, 1, 86400, &seconds);
		c->timeout_ms = (int)seconds * 1000;
		return r;
	}
}

static int bad_option(struct ctl *c, const struct parsed *p, const char *word, int opt)
{
	const char *names[VERB_MAX_OPTIONS + N_COMMON], *near;

	if (opt == ':')
		return ctl_fail(c, CTL_USAGE, "%s: %s wants a value", c->verb->name, word);
	if (strncmp(word, "--", 2))
		return ctl_fail(c, CTL_USAGE, "%s: unknown option -%c; see `vmmctl help %s`", c->verb->name, optopt,
				c->verb->name);
	for (size_t i = 0; i < p->n; i++)
		names[i] = p->row[i]->name;
	near = err_nearest(word + 2, names, p->n);
	return ctl_fail(c, CTL_USAGE, "%s: unknown option %.80s%s%s; see `vmmctl help %s`", c->verb->name, word,
			near ? "; did you mean --" : "", near ? near : "", c->verb->name);
}

static int take_options(struct ctl *c, int argc, char **argv)
{
	struct parsed p = {.shorts = "+:"};
	size_t own = 0;
	int opt, r = CTL_OK;

	/* qmp and attach hand words on: only what stands before the first argument is an option there */
	if (strcmp(c->verb->name, "qmp"))
		strcpy(p.shorts, ":");
	for (const struct verb_option *o = c->verb->options; o && o->name; o++, own++)
		add_option(&p, o);
	for (const struct verb_option *o = common; o->name; o++)
		add_option(&p, o);
	optind = 0;
	opterr = 0;
	while (r == CTL_OK && (opt = getopt_long(argc, argv, p.shorts, p.longs, NULL)) != -1) {
		size_t row = 0;

		if (opt == '?' || opt == ':')
			return bad_option(c, &p, argv[optind - 1], opt);
		if (opt >= FIRST_LONG)
			row = (size_t)opt - FIRST_LONG;
		else
			while (p.row[row]->letter != opt)
				row++;
		if (row < own)
			c->option[row] = optarg ? optarg : "";
		else
			r = take_common(c, row - own, optarg);
	}
	c->argc = argc - optind;
	c->argv = argv + optind;
	if (r == CTL_OK && (c->argc < c->verb->min_args || (c->verb->max_args >= 0 && c->argc > c->verb->max_args)))
		r = ctl_fail(c, CTL_USAGE, "%s: %s; usage: vmmctl %s %s", c->verb->name,
			     c->argc < c->verb->min_args ? "an argument is missing" : "too many arguments",
			     c->verb->name, c->verb->args);
	return r;
}

static int unknown_verb(struct ctl *c, const char *word)
{
	const char *names[128], *near;
	const struct verb *v;
	size_t n = 0;

	for (; n < ARRAY_SIZE(names) && (v = verb_at(n)); n++)
		names[n] = v->name;
	near = err_nearest(word, names, n);
	return ctl_fail(c, CTL_USAGE, "'%.80s' is no verb%s%s%s", word,
			near ? "; did you mean '" : ": vmmctl help lists them", near ? near : "", near ? "'?" : "");
}

/* Common options may stand before the verb as well: they are moved behind it. */
static int run(struct ctl *c, int argc, char **argv)
{
	int at = 1, r;

	while (at < argc && argv[at][0] == '-') {
		bool value = !strcmp(argv[at], "--color") || !strcmp(argv[at], "--timeout");

		c->json |= !strcmp(argv[at], "--json"); /* for the error that may come first */
		at += value ? 2 : 1;
	}
	if (at < argc) {
		char *verb = argv[at];

		memmove(argv + 2, argv + 1, (size_t)(at - 1) * sizeof(*argv));
		argv[1] = verb;
		c->verb = verb_find(verb);
		if (!c->verb)
			return unknown_verb(c, verb);
	} else if (argc > 1 && !strcmp(argv[1], "--version")) {
		puts("vmmctl " VMM_VERSION);
		return CTL_OK;
	} else if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		c->verb = verb_find("help");
		return c->verb->run(c);
	} else {
		return ctl_fail(c, CTL_USAGE, "a verb is missing: vmmctl help lists them");
	}
	r = take_options(c, argc - 1, argv + 1);
	if (r < 0 && c->json)
		c->result = verb_describe(c->verb);
	else if (r < 0)
		verb_print_help(c->verb, stdout);
	if (r)
		return r < 0 ? CTL_OK : r;
	return c->verb->run(c);
}

static void print_result(struct ctl *c, int status)
{
	static const char *const classes[] = {[ERR_GENERIC] = "GenericError",
					      [ERR_COMMAND_NOT_FOUND] = "CommandNotFound",
					      [ERR_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
					      [ERR_DEVICE_NOT_FOUND] = "DeviceNotFound",
					      [ERR_KVM_MISSING_CAP] = "KVMMissingCap"};

	if (status && !c->json) {
		fprintf(stderr, "vmmctl: %s\n", *c->err.msg ? c->err.msg : status_help[status]);
		return;
	}
	if (!c->json)
		return;
	if (status) {
		json_decref(c->result);
		c->result = json_pack("{s:{s:s, s:s, s:i}}", "error", "class", classes[c->err.class], "desc",
				      c->err.msg, "status", status);
	} else if (!c->result) {
		c->result = json_object();
	}
	if (warnings && json_is_object(c->result))
		json_object_set(c->result, "warnings", warnings);
	json_dumpf(c->result, stdout, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9) | JSON_INDENT(2));
	putchar('\n');
}

int main(int argc, char **argv)
{
	struct ctl c = {.timeout_ms = 10 * 1000, .color = isatty(STDOUT_FILENO) && !getenv("NO_COLOR")};
	int status;

	signal(SIGPIPE, SIG_IGN);
	status = run(&c, argc, argv);
	print_result(&c, status);
	json_decref(c.result);
	json_decref(warnings);
	if (fflush(stdout) && status == CTL_OK)
		status = CTL_FAILED; /* nobody reads, or the disk is full */
	return status;
}
