/*
 * Xen's configuration files of HVM guests, as xm and xl took them. xm's files were Python programs; nearly all are
 * assignments of constants, which is what is read here: strings ('..', "..", '''..''', r'..'; adjacent ones join),
 * whole numbers, True, False, None, lists, tuples, # comments, lines continued by a bracket or a backslash. Code is
 * refused with its place.
 *
 * References: xmdomain.cfg(5), xl.cfg(5), xl-disk-configuration(5), xl-network-configuration(5) of Xen 4.x.
 * Left out: += of xl, dictionaries, names of other settings as values.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "config.h"

enum xen_type { XEN_NONE, XEN_NUMBER, XEN_STRING, XEN_LIST };

struct xen_value {
	enum xen_type type;
	unsigned line, column;
	long long number;
	char *string;
	struct xen_value *items;
	size_t n;
};

struct xen {
	struct guest_config *c;
	struct notes *notes;
	const char *file, *s, *end;
	unsigned line, column, depth;
	/* what several settings say together */
	bool vnc, sdl, vnc_unused, vnc_seen;
	long long vnc_display;
	char *vnc_listen;
};

#define MAX_DEPTH 16

static int mistake_at(const struct xen *x, unsigned line, unsigned column, struct err *e, const char *fmt, ...)
	VMM_PRINTF(5, 6);
static int mistake_at(const struct xen *x, unsigned line, unsigned column, struct err *e, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(e, EINVAL, "%s:%u:%u: %s", x->file, line, column, text);
}
#define mistake(x, e, ...) mistake_at(x, (x)->line, (x)->column, e, __VA_ARGS__)

static void note(struct xen *x, const struct xen_value *v, const char *fmt, ...) VMM_PRINTF(3, 4);
static void note(struct xen *x, const struct xen_value *v, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	notes_add(x->notes, xasprintf("%s:%u:%u: %s", x->file, v->line, v->column, text));
}

/* ---- reading ---- */

static int peek(const struct xen *x)
{
	return x->s < x->end ? (unsigned char)*x->s : 0;
}

static int peek_at(const struct xen *x, ptrdiff_t i)
{
	return x->end - x->s > i ? (unsigned char)x->s[i] : 0;
}

static void step(struct xen *x)
{
	if (x->s == x->end)
		return;
	if (*x->s++ == '\n') {
		x->line++;
		x->column = 1;
	} else {
		x->column++;
	}
}

/* Blanks, comments and continued lines; within brackets also line ends. */
static void skip(struct xen *x, bool lines)
{
	for (;;) {
		int c = peek(x);

		if (c == '#') {
			while (x->s < x->end && *x->s != '\n')
				step(x);
		} else if (c == '\\' && (peek_at(x, 1) == '\n' || (peek_at(x, 1) == '\r' && peek_at(x, 2) == '\n'))) {
			while (peek(x) != '\n')
				step(x);
			step(x);
		} else if (c == ' ' || c == '\t' || c == '\r' || c == '\f' || (lines && c == '\n')) {
			step(x);
		} else {
			return;
		}
	}
}

static bool word_char(int c)
{
	return isalnum(c) || c == '_';
}

static char *take_word(struct xen *x)
{
	const char *start = x->s;

	while (word_char(peek(x)))
		step(x);
	return xstrndup(start, (size_t)(x->s - start));
}

static void value_free(struct xen_value *v)
{
	for (size_t i = 0; i < v->n; i++)
		value_free(&v->items[i]);
	free(v->items);
	free(v->string);
	*v = (struct xen_value){0};
}

static void append(struct xen_value *v, char c)
{
	size_t len = strlen(v->string);

	if (!(len & (len + 1))) /* doubles at 2^n - 1 */
		v->string = xrealloc(v->string, 2 * len + 3);
	v->string[len] = c;
	v->string[len + 1] = 0;
}

/* One literal, appended to v->string. */
static int take_string(struct xen *x, struct xen_value *v, bool raw, struct err *e)
{
	unsigned line = x->line, column = x->column;
	int quote = peek(x);
	bool triple = peek_at(x, 1) == quote && peek_at(x, 2) == quote;

	for (int i = 0; i < (triple ? 3 : 1); i++)
		step(x);
	for (;;) {
		int c = peek(x);

		if (x->s == x->end || (c == '\n' && !triple))
			return mistake_at(x, line, column, e, "the string that begins here is not closed");
		if (!c)
			return mistake(x, e, "a zero byte: this is no text file");
		if (c == quote && (!triple || (peek_at(x, 1) == quote && peek_at(x, 2) == quote)))
			break;
		step(x);
		if (c == '\\' && !raw && x->s < x->end) {
			static const char from[] = "nt\\'\"", into[] = "\n\t\\'\"";
			const char *which = peek(x) ? strchr(from, peek(x)) : NULL;

			if (peek(x) == '\n') {
				step(x);
				continue;
			}
			if (which) {
				append(v, into[which - from]);
				step(x);
				continue;
			}
		}
		append(v, (char)c);
	}
	for (int i = 0; i < (triple ? 3 : 1); i++)
		step(x);
	return 0;
}

static int take_number(struct xen *x, struct xen_value *v, struct err *e)
{
	unsigned line = x->line, column = x->column;
	char *text, *end;

	if (peek(x) == '-' || peek(x) == '+') {
		bool minus = peek(x) == '-';

		step(x);
		text = take_word(x);
		v->number = strtoll(text, &end, 0) * (minus ? -1 : 1);
	} else {
		text = take_word(x);
		v->number = strtoll(text, &end, 0);
	}
	v->type = XEN_NUMBER;
	if (end == text || (*end && strcmp(end, "L") && strcmp(end, "l")) || peek(x) == '.') {
		int r = mistake_at(x, line, column, e, "'%.40s%s' is no whole number", text, peek(x) == '.' ? "." : "");

		free(text);
		return r;
	}
	free(text);
	return 0;
}

static int take_value(struct xen *x, struct xen_value *v, bool in_list, struct err *e);

static int take_list(struct xen *x, struct xen_value *v, struct err *e)
{
	int close = peek(x) == '[' ? ']' : ')', r = 0;

	v->type = XEN_LIST;
	if (++x->depth > MAX_DEPTH)
		return mistake(x, e, "lists are nested too deeply");
	step(x);
	for (;;) {
		struct xen_value item;

		skip(x, true);
		if (peek(x) == close)
			break;
		if (x->s == x->end)
			return mistake_at(x, v->line, v->column, e, "the list that begins here is not closed");
		r = take_value(x, &item, true, e);
		if (r) {
			value_free(&item);
			return r;
		}
		if (!(v->n & (v->n - 1)))
			v->items = xrealloc(v->items, (v->n ? v->n * 2 : 1) * sizeof(*v->items));
		v->items[v->n++] = item;
		skip(x, true);
		if (peek(x) == ',')
			step(x);
		else if (peek(x) != close && x->s < x->end)
			return mistake(x, e, "expected ',' or '%c' in the list", close);
	}
	step(x);
	x->depth--;
	return 0;
}

static int code(struct xen *x, unsigned line, unsigned column, const char *what, struct err *e)
{
	return mistake_at(x, line, column, e,
			  "this is Python code ('%.40s'): only constants are read; write the value out", what);
}

static int take_name(struct xen *x, struct xen_value *v, struct err *e)
{
	char *word = take_word(x);
	int r = 0;

	if ((!strcmp(word, "r") || !strcmp(word, "u")) && (peek(x) == '\'' || peek(x) == '"')) {
		v->type = XEN_STRING;
		v->string = v->string ? v->string : xzalloc(3);
		r = take_string(x, v, *word == 'r', e);
	} else if (!strcmp(word, "True") || !strcmp(word, "False")) {
		v->type = XEN_NUMBER;
		v->number = *word == 'T';
	} else if (strcmp(word, "None")) {
		r = code(x, v->line, v->column, word, e);
	}
	free(word);
	return r;
}

static int take_value(struct xen *x, struct xen_value *v, bool in_list, struct err *e)
{
	int c, r = 0;

	*v = (struct xen_value){.line = x->line, .column = x->column};
	c = peek(x);
	if (c == '\'' || c == '"') {
		v->type = XEN_STRING;
		v->string = xzalloc(3);
		r = take_string(x, v, false, e);
	} else if (isdigit(c) || c == '-' || c == '+') {
		r = take_number(x, v, e);
	} else if (c == '[' || c == '(') {
		r = take_list(x, v, e);
	} else if (isalpha(c) || c == '_') {
		r = take_name(x, v, e);
	} else {
		return mistake(x, e, "a value is missing: a string, a number or a list");
	}
	while (!r && v->type == XEN_STRING) { /* adjacent strings join */
		bool raw;

		skip(x, in_list);
		raw = peek(x) == 'r' && (peek_at(x, 1) == '\'' || peek_at(x, 1) == '"');
		if (raw)
			step(x);
		else if (peek(x) != '\'' && peek(x) != '"')
			break;
		r = take_string(x, v, raw, e);
	}
	return r;
}

/* ---- values ---- */

static const char *type_name(enum xen_type t)
{
	static const char *const names[] = {"None", "a number", "a string", "a list"};

	return names[t];
}

#define AT(v) (v)->line, (v)->column

/* As text; NULL for None, with a mistake for lists. Numbers are written out, as xl does. malloc'ed. */
static int text_of(struct xen *x, const char *key, const struct xen_value *v, char **out, struct err *e)
{
	*out = NULL;
	if (v->type == XEN_LIST)
		return mistake_at(x, AT(v), e, "%s: a string was expected, not a list", key);
	if (v->type == XEN_STRING)
		*out = xstrdup(v->string);
	else if (v->type == XEN_NUMBER)
		*out = xasprintf("%lld", v->number);
	return 0;
}

/* xl takes numbers in quotes too. */
static int number_of(struct xen *x, const char *key, const struct xen_value *v, long long *out, struct err *e)
{
	char *end;

	*out = v->number;
	if (v->type == XEN_NUMBER)
		return 0;
	if (v->type == XEN_STRING) {
		*out = strtoll(v->string, &end, 0);
		if (*v->string && !*end)
			return 0;
	}
	return mistake_at(x, AT(v), e, "%s: a number was expected, not %s%s%.80s%s", key, type_name(v->type),
			  v->type == XEN_STRING ? " '" : "", v->type == XEN_STRING ? v->string : "",
			  v->type == XEN_STRING ? "'" : "");
}

static int set(struct xen *x, const char *key, const struct xen_value *v, const char *ours, const char *text,
	       struct err *e)
{
	struct err why = ERR_INIT;

	if (guest_config_set(x->c, ours, text, &why))
		return mistake_at(x, AT(v), e, "%s: %.500s", key, why.msg);
	return 0;
}

/* ---- settings ---- */

struct setting {
	const char *name;
	const char *ours; /* for handlers that need no more than a name */
	int (*take)(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e);
	const char *why; /* ignored: the reason */
};

static int as_text(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	char *text;
	int r = text_of(x, s->name, v, &text, e);

	if (!r && text && *text)
		r = set(x, s->name, v, s->ours, text, e);
	free(text);
	return r;
}

static int as_number(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	long long n;
	char text[24];
	int r = number_of(x, s->name, v, &n, e);

	snprintf(text, sizeof(text), "%lld", n);
	return r ? r : set(x, s->name, v, s->ours, text, e);
}

static int as_bool(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	long long n;
	int r = number_of(x, s->name, v, &n, e);

	return r ? r : set(x, s->name, v, s->ours, n ? "on" : "off", e);
}

static int as_kernel(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	const char *slash = v->type == XEN_STRING ? strrchr(v->string, '/') : NULL;

	if (v->type == XEN_STRING && strstr(slash ? slash : v->string, "hvmloader"))
		return 0; /* Xen's firmware: SeaBIOS takes its place */
	return as_text(x, s, v, e);
}

static int as_builder(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	if (v->type == XEN_STRING && !strcmp(v->string, "hvm"))
		return 0;
	return mistake_at(x, AT(v), e, "%s='%.40s': a paravirtualized guest; vmm runs only complete PCs (hvm)", s->name,
			  v->type == XEN_STRING ? v->string : type_name(v->type));
}

/* Two command-line settings of Linux: root= and extra. */
static int as_append(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	char *text, *before = x->c->append, *joined;
	int r = text_of(x, s->name, v, &text, e);

	if (r || !text || !*text) {
		free(text);
		return r;
	}
	joined = xasprintf("%s%s%s%s", before ? before : "", before ? " " : "", !strcmp(s->name, "root") ? "root=" : "",
			   text);
	free(before);
	x->c->append = joined;
	free(text);
	return 0;
}

static int as_policy(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	if (v->type == XEN_STRING && !strcmp(v->string, "rename-restart")) {
		note(x, v, "%s: rename-restart is taken as restart: the old guest is not kept", s->name);
		return set(x, s->name, v, s->ours, "restart", e);
	}
	return as_text(x, s, v, e);
}

static int as_localtime(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	long long n;
	int r = number_of(x, s->name, v, &n, e);

	return r ? r : set(x, s->name, v, s->ours, n ? "localtime" : "utc", e);
}

/* boot="cda", or a list in old xl files */
static int as_boot(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	if (v->type == XEN_LIST)
		return mistake_at(x, AT(v), e, "boot: letters of a, c, d and n were expected, such as \"dc\"");
	return as_text(x, s, v, e);
}

static int as_cpus(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	if (v->type != XEN_LIST)
		return as_text(x, s, v, e);
	note(x, v, "cpus: a list pins each vCPU by itself, which is ignored; use vmmctl vcpu-pin");
	return 0;
}

static int as_serial(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	size_t n = v->type == XEN_LIST ? v->n : 1;

	for (size_t i = 0; i < n; i++) {
		const struct xen_value *item = v->type == XEN_LIST ? &v->items[i] : v;
		struct serial_config *port;
		char *text;
		int r = text_of(x, s->name, item, &text, e);

		if (r)
			return r;
		if (!text || !*text) {
			free(text);
			continue;
		}
		/* xm console reached a pty; here vmmctl console reaches a socket */
		port = guest_config_add_serial(x->c);
		free(port->type);
		port->type = !strcmp(text, "pty") ? xstrdup("console") : xstrdup(text);
		free(text);
	}
	return 0;
}

static int as_screen(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	long long n = 0;
	int r;

	if (!strcmp(s->name, "vnclisten")) {
		free(x->vnc_listen);
		return text_of(x, s->name, v, &x->vnc_listen, e);
	}
	r = number_of(x, s->name, v, &n, e);
	if (r)
		return r;
	if (!strcmp(s->name, "vnc"))
		x->vnc = n, x->vnc_seen = true;
	else if (!strcmp(s->name, "vncunused"))
		x->vnc_unused = n;
	else if (!strcmp(s->name, "vncdisplay"))
		x->vnc_display = n;
	if (!strcmp(s->name, "sdl") && n)
		note(x, v, "sdl: ignored, vmm has no window of its own; use vnc=1 and vmmctl console --graphical");
	if (!strcmp(s->name, "vncdisplay") && (n < 0 || n > 9999))
		return mistake_at(x, AT(v), e, "vncdisplay: 0 to 9999 was expected");
	return 0;
}

static int as_stdvga(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	long long n;
	int r = number_of(x, s->name, v, &n, e);

	if (!r && !n)
		note(x, v, "stdvga=0: vmm has the standard adapter only, not Cirrus'");
	return r;
}

static int as_vga(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	char *text;
	int r = text_of(x, s->name, v, &text, e);

	if (!r && text && !strcmp(text, "none"))
		r = set(x, s->name, v, "vga", "none", e);
	else if (!r && text && strcmp(text, "stdvga"))
		note(x, v, "vga='%.40s': vmm has the standard adapter only", text);
	free(text);
	return r;
}

static bool is_on(const struct xen_value *v)
{
	return v->type == XEN_LIST     ? v->n > 0
	       : v->type == XEN_STRING ? *v->string && strcmp(v->string, "0")
				       : v->number != 0;
}

/* Ignored, with a word if it asks for anything. */
static int as_ignored(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	if (s->why && is_on(v))
		note(x, v, "%s: ignored, %s", s->name, s->why);
	return 0;
}

/* ---- disks ---- */

/* The next comma-separated part, trimmed; NULL at the end. */
static char *next_part(const char **s)
{
	size_t n;
	char *part;

	if (!*s)
		return NULL;
	*s += strspn(*s, " \t");
	n = strcspn(*s, ",");
	part = xstrndup(*s, n);
	*s = (*s)[n] ? *s + n + 1 : NULL;
	for (n = strlen(part); n && isblank((unsigned char)part[n - 1]); n--)
		part[n - 1] = 0;
	return part;
}

static const char *after(const char *text, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(text, prefix, n) ? NULL : text + n;
}

static bool known_format(const char *word)
{
	static const char *const formats[] = {"raw", "qcow", "qcow2", "vhd", "vdi", "vmdk", "qed"};

	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (!strcmp(formats[i], word))
			return true;
	return false;
}

static void replace(char **to, const char *text)
{
	free(*to);
	*to = xstrdup(text);
}

/* "file:/x", "phy:sda1", "tap:aio:/x", "tap2:qcow2:/x", "raw:/x" -> path, format and engine of the disk */
static const char *take_prefixes(struct disk_config *d, const char *target, char **owned)
{
	static const char *const plain[] = {"file:", "tap2:", "tap:", "phy:", "raw:", "aio:", "tapdisk:", "qdisk:"};
	static const char *const formats[] = {"qcow2:", "qcow:", "vhd:", "vmdk:"};
	bool device = false, again = true;

	while (again) {
		const char *rest;

		again = false;
		for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
			if ((rest = after(target, plain[i]))) {
				device |= !strcmp(plain[i], "phy:");
				if (strcmp(plain[i], "phy:"))
					replace(&d->format, "raw");
				target = rest;
				again = true;
			}
		for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
			if ((rest = after(target, formats[i]))) {
				char *name = xstrndup(formats[i], strlen(formats[i]) - 1);

				replace(&d->format, name);
				free(name);
				target = rest;
				again = true;
			}
	}
	if (device && *target && *target != '/') /* phy: names are below /dev */
		return *owned = xasprintf("/dev/%s", target);
	return target;
}

static void set_target(struct disk_config *d, const char *target)
{
	char *owned = NULL;
	const char *path = take_prefixes(d, target, &owned);

	replace(&d->file, path);
	free(owned);
	if (after(d->file, "/dev/") && !d->format)
		replace(&d->format, "raw");
}

/* "hdc:cdrom", "ioemu:hda", "xvda:disk" */
static void set_vdev(struct disk_config *d, const char *text)
{
	const char *rest = after(text, "ioemu:");
	char *copy = xstrdup(rest ? rest : text), *colon = strchr(copy, ':');

	if (colon) {
		*colon = 0;
		if (!strcmp(colon + 1, "cdrom"))
			d->media = 1;
	}
	replace(&d->target, copy);
	free(copy);
}

static int set_access(struct xen *x, const struct xen_value *v, struct disk_config *d, const char *mode, struct err *e)
{
	static const char *const reads[] = {"r", "ro"}, *const writes[] = {"w", "rw", "w!", "rw!", "!"};

	for (size_t i = 0; i < ARRAY_SIZE(reads); i++)
		if (!strcmp(mode, reads[i])) {
			d->readonly = true;
			return 0;
		}
	for (size_t i = 0; i < ARRAY_SIZE(writes); i++)
		if (!strcmp(mode, writes[i])) {
			d->shared = strchr(mode, '!') != NULL;
			return 0;
		}
	return mistake_at(x, AT(v), e, "disk: access '%.40s': r, ro, w, rw and w! are known", mode);
}

/* key=value of xl; *rest is what follows, which target= takes whole. 0 taken, 1 not one of these, -EINVAL */
static int disk_key(struct xen *x, const struct xen_value *v, struct disk_config *d, const char *part,
		    const char **rest, struct err *e)
{
	const char *value;

	if ((value = after(part, "format="))) {
		replace(&d->format, value);
	} else if ((value = after(part, "vdev="))) {
		set_vdev(d, value);
	} else if ((value = after(part, "access="))) {
		return set_access(x, v, d, value, e);
	} else if ((value = after(part, "target="))) {
		char *whole = *rest ? xasprintf("%s,%s", value, *rest) : xstrdup(value);

		set_target(d, whole);
		free(whole);
		*rest = NULL;
	} else if ((value = after(part, "devtype="))) {
		d->media = !strcmp(value, "cdrom");
	} else if (!strcmp(part, "cdrom")) {
		d->media = 1;
	} else if ((value = after(part, "script=")) || (value = after(part, "backend="))) {
		note(x, v, "disk: '%.80s' is ignored: images are opened by vmm itself", part);
	} else if (!after(part, "backendtype=") && strcmp(part, "direct-io-safe") && strcmp(part, "discard") &&
		   strcmp(part, "no-discard")) {
		return 1;
	}
	return 0;
}

static int as_one_disk(struct xen *x, const struct xen_value *v, struct err *e)
{
	struct disk_config *d = guest_config_add_disk(x->c);
	const char *rest = v->string;
	char *part;
	int r = 0;

	for (int position = 0; !r && (part = next_part(&rest)); free(part)) {
		r = disk_key(x, v, d, part, &rest, e);
		if (r <= 0)
			continue;
		r = 0;
		if (strchr(part, '=') && position && !d->file)
			r = mistake_at(x, AT(v), e, "disk: '%.80s' is not known", part);
		else if (position == 0)
			set_target(d, part);
		else if (position == 1 && known_format(part) && rest)
			replace(&d->format, part), position--; /* xl: target, format, vdev, access */
		else if (position == 1 && !*part && rest && rest[strspn(rest, " ")] != 'r' &&
			 rest[strspn(rest, " ")] != 'w')
			position--; /* an empty format */
		else if (position == 1)
			set_vdev(d, part);
		else if (position == 2)
			r = set_access(x, v, d, *part ? part : "rw", e);
		else if (*part)
			r = mistake_at(x, AT(v), e, "disk: '%.80s' is one word too many", part);
		position++;
	}
	if (!r && !d->target)
		r = mistake_at(x, AT(v), e, "disk '%.80s': the drive's name (hda, hdc:cdrom) is missing", v->string);
	if (d->format && strcmp(d->format, "raw") && !r)
		note(x, v, "disk: format %.20s goes to vmm, which may not know it", d->format);
	return r;
}

static int as_disks(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	if (v->type == XEN_NONE)
		return 0;
	if (v->type != XEN_LIST)
		return mistake_at(x, AT(v), e, "disk: a list was expected: disk = [ 'file:/path,hda,w' ]");
	for (size_t i = 0; i < v->n; i++) {
		int r = v->items[i].type == XEN_STRING
				? as_one_disk(x, &v->items[i], e)
				: mistake_at(x, AT(&v->items[i]), e, "disk: a string was expected, not %s",
					     type_name(v->items[i].type));

		if (r)
			return r;
	}
	return 0;
}

static int as_cdrom(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	struct disk_config *d;
	char *text;
	int r = text_of(x, s->name, v, &text, e);

	if (!r && text && *text) {
		d = guest_config_add_disk(x->c);
		d->media = 1;
		set_target(d, text);
		d->target = xstrdup("hdc");
	}
	free(text);
	return r;
}

static int as_floppy(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	struct disk_config *d;
	char *text;
	int r = text_of(x, s->name, v, &text, e);

	if (!r && text && *text) {
		d = guest_config_add_disk(x->c);
		d->media = 2;
		set_target(d, text);
		d->target = xstrdup(s->name);
	}
	free(text);
	return r;
}

/* ---- network ---- */

static int as_one_vif(struct xen *x, const struct xen_value *v, struct err *e)
{
	struct nic_config *n = guest_config_add_nic(x->c);
	const char *rest = v->string, *value;
	char *part;

	for (; (part = next_part(&rest)); free(part)) {
		if ((value = after(part, "mac=")))
			replace(&n->mac, value);
		else if ((value = after(part, "bridge=")))
			replace(&n->bridge, value);
		else if ((value = after(part, "model=")))
			replace(&n->model, value);
		else if (*part && !strchr(part, '=')) {
			int r = mistake_at(x, AT(v), e, "vif: '%.80s': key=value was expected", part);

			free(part);
			return r;
		}
	}
	return 0;
}

static int as_vifs(struct xen *x, const struct setting *s, const struct xen_value *v, struct err *e)
{
	if (v->type == XEN_NONE)
		return 0;
	if (v->type != XEN_LIST)
		return mistake_at(x, AT(v), e, "vif: a list was expected: vif = [ 'mac=..., bridge=...' ]");
	for (size_t i = 0; i < v->n; i++) {
		int r = v->items[i].type == XEN_STRING
				? as_one_vif(x, &v->items[i], e)
				: mistake_at(x, AT(&v->items[i]), e, "vif: a string was expected, not %s",
					     type_name(v->items[i].type));

		if (r)
			return r;
	}
	return 0;
}

/* ---- the table ---- */

#define NO_XEN   "there is no Xen below"
#define NO_AUDIO "vmm has no sound card"
#define NO_USB   "vmm has no USB controller; the mouse is PS/2"
#define NO_PCI   "PCI devices of the host are not handed on"
#define SET(name, ours, how)          \
	{                             \
		name, ours, how, NULL \
	}
#define IGNORED(name, why)                  \
	{                                   \
		name, NULL, as_ignored, why \
	}
static const struct setting settings[] = {
	SET("name", "name", as_text),
	SET("uuid", "uuid", as_text),
	SET("memory", "memory", as_number),
	SET("maxmem", "maxmem", as_number),
	SET("vcpus", "vcpus", as_number),
	SET("maxvcpus", "maxvcpus", as_number),
	SET("cpus", "cpus", as_cpus),
	SET("cpu_weight", "cpu-weight", as_number),
	SET("cpu_cap", "cpu-cap", as_number),
	SET("builder", NULL, as_builder),
	SET("type", NULL, as_builder),
	SET("kernel", "kernel", as_kernel),
	SET("ramdisk", "initrd", as_text),
	SET("root", "append", as_append),
	SET("extra", "append", as_append),
	SET("cmdline", "append", as_append),
	SET("bios_override", "bios", as_text),
	SET("boot", "boot", as_boot),
	SET("acpi", "acpi", as_bool),
	SET("localtime", "rtc", as_localtime),
	SET("on_poweroff", "on-poweroff", as_policy),
	SET("on_reboot", "on-reboot", as_policy),
	SET("on_crash", "on-crash", as_policy),
	SET("disk", NULL, as_disks),
	SET("cdrom", NULL, as_cdrom),
	SET("fda", NULL, as_floppy),
	SET("fdb", NULL, as_floppy),
	SET("vif", NULL, as_vifs),
	SET("serial", NULL, as_serial),
	SET("vnc", NULL, as_screen),
	SET("vncdisplay", NULL, as_screen),
	SET("vncunused", NULL, as_screen),
	SET("vnclisten", NULL, as_screen),
	SET("vncpasswd", "vnc-password", as_text),
	SET("sdl", NULL, as_screen),
	SET("stdvga", NULL, as_stdvga),
	SET("vga", NULL, as_vga),
	IGNORED("apic", NULL), /* always there */
	IGNORED("pae", NULL),
	IGNORED("nx", NULL),
	IGNORED("hap", NULL),
	IGNORED("shadow_memory", NULL),
	IGNORED("device_model", NULL),
	IGNORED("device_model_version", NULL),
	IGNORED("device_model_override", NULL),
	IGNORED("vncconsole", NULL),
	IGNORED("xauthority", NULL),
	IGNORED("nographic", NULL),
	IGNORED("timer_mode", NULL),
	IGNORED("acpi_s3", NULL),
	IGNORED("acpi_s4", NULL),
	IGNORED("bios", NULL),
	IGNORED("keymap", "keys reach the guest by their place on the keyboard"),
	IGNORED("monitor", "control is by vmmctl qmp"),
	IGNORED("hpet", "vmm has no HPET"),
	IGNORED("viridian", "Hyper-V's interface is chosen by cpu= in vmm.conf"),
	IGNORED("xen_platform_pci", NO_XEN),
	IGNORED("vfb", "vnc= says where the screen goes"),
	IGNORED("rtc_timeoffset", "the clock starts at the host's time"),
	IGNORED("videoram", "the adapter has 16 MiB"),
	IGNORED("cpuid", "CPU features are chosen by cpu= in vmm.conf"),
	IGNORED("pool", NO_XEN),
	IGNORED("xsm_label", NO_XEN),
	IGNORED("seclabel", NO_XEN),
	IGNORED("driver_domain", NO_XEN),
	IGNORED("usb", NO_USB),
	IGNORED("usbdevice", NO_USB),
	IGNORED("soundhw", NO_AUDIO),
	IGNORED("audio", NO_AUDIO),
	IGNORED("pci", NO_PCI),
	IGNORED("gfx_passthru", NO_PCI),
	IGNORED("nics", "vif= counts"),
	IGNORED("opengl", NULL),
	IGNORED("bootloader", "the firmware boots the guest"),
	IGNORED("features", NULL),
	IGNORED("memory_dynamic_min", NULL),
};

const char *xen_setting_at(size_t i, const char **ours, const char **why)
{
	if (i >= ARRAY_SIZE(settings))
		return NULL;
	*ours = settings[i].ours;
	*why = settings[i].take != as_ignored ? NULL : settings[i].why ? settings[i].why : "";
	return settings[i].name;
}

static int take_setting(struct xen *x, const char *name, const struct xen_value *v, unsigned line, unsigned column,
			struct err *e)
{
	const char *names[ARRAY_SIZE(settings)], *near;
	struct xen_value at = {.line = line, .column = column};

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		if (!strcmp(settings[i].name, name))
			return settings[i].take(x, &settings[i], v, e);
		names[i] = settings[i].name;
	}
	/* Python files have variables of their own; only what looks like a slip deserves more than a word. */
	near = err_nearest(name, names, ARRAY_SIZE(names));
	note(x, &at, "%.80s: ignored, not a setting%s%s%s", name, near ? "; did you mean '" : "", near ? near : "",
	     near ? "'?" : "");
	return 0;
}

static int take_statement(struct xen *x, struct err *e)
{
	unsigned line = x->line, column = x->column;
	struct xen_value v = {0};
	char *name;
	int r = 0, c;

	if (!isalpha(peek(x)) && peek(x) != '_')
		return mistake(x, e, "expected NAME = VALUE");
	name = take_word(x);
	skip(x, false);
	c = peek(x);
	if (c != '=' || peek_at(x, 1) == '=') {
		r = isalpha(c) || c == '(' || c == ':' || c == '.' || c == '\'' || c == '"'
			    ? code(x, line, column, name, e)
			    : mistake(x, e, "'=' is missing after '%.40s'", name);
	} else {
		step(x);
		skip(x, false);
		r = take_value(x, &v, false, e);
	}
	if (!r) {
		skip(x, false);
		c = peek(x);
		if (c == ';')
			step(x);
		else if (c == '+' || c == '%' || c == '(' || c == '.' || c == '*')
			r = code(x, x->line, x->column, (char[2]){(char)c, 0}, e);
		else if (c != '\n' && x->s < x->end)
			r = mistake(x, e, "expected the end of the line after the value of %.40s%s", name,
				    c == '=' ? "" : "; a file of our own syntax ends in .vmm");
	}
	if (!r)
		r = take_setting(x, name, &v, line, column, e);
	value_free(&v);
	free(name);
	return r;
}

/* vnc, vncdisplay, vnclisten and vncunused together. */
static void finish_screen(struct xen *x)
{
	const char *listen = x->vnc_listen && *x->vnc_listen ? x->vnc_listen : "127.0.0.1";
	bool brackets = strchr(listen, ':') != NULL;

	free(x->c->vnc);
	if (x->vnc_seen && !x->vnc) {
		x->c->vnc = xstrdup("none");
		return;
	}
	x->c->vnc = xasprintf("%s%s%s:%lld%s", brackets ? "[" : "", listen, brackets ? "]" : "", x->vnc_display,
			      x->vnc_unused ? ",to=99" : "");
}

int config_parse_xen(struct guest_config *c, const char *file, const char *text, size_t len, struct notes *notes,
		     struct err *e)
{
	struct notes unread = {0};
	struct xen x = {.c = c,
			.notes = notes ? notes : &unread,
			.file = file,
			.s = text,
			.end = text + len,
			.line = 1,
			.column = 1,
			.vnc_unused = true};
	int r = 0;

	for (skip(&x, true); !r && x.s < x.end; skip(&x, true))
		r = take_statement(&x, e);
	if (!r)
		finish_screen(&x);
	free(x.vnc_listen);
	notes_free(&unread);
	return r;
}
