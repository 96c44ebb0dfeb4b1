/*
 * Configuration files in our own syntax, vmm.conf(5): lines of `key = value`, `[section]` headings, and comments from a
 * # at the beginning of a line or behind a blank. A value is the rest of its line, or "quoted" with \" \\ \n \t. Keys
 * are written with - or
 * _. Nothing continues on a next line and nothing is evaluated.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "config.h"

struct parser {
	struct guest_config *c;
	const char *file;
	const struct config_section *section;
	void *object; /* what the section's properties live in */
	unsigned line;
	char *seen; /* one byte for each property of the section: given already */
};

static int mistake(struct parser *p, size_t column, struct err *e, const char *fmt, ...) VMM_PRINTF(4, 5);
static int mistake(struct parser *p, size_t column, struct err *e, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(e, EINVAL, "%s:%u:%zu: %s", p->file, p->line, column + 1, text);
}

static void enter(struct parser *p, const struct config_section *s)
{
	size_t n = 1;

	p->section = s;
	if (!*s->name)
		p->object = p->c;
	else if (s->props == disk_props)
		p->object = guest_config_add_disk(p->c);
	else if (s->props == serial_props)
		p->object = guest_config_add_serial(p->c);
	else if (s->props == nic_props)
		p->object = guest_config_add_nic(p->c);
	else
		p->object = guest_config_add_device(p->c);
	for (const struct prop *prop = s->props; prop && prop->name; prop++)
		n++;
	free(p->seen);
	p->seen = xzalloc(n);
}

static int take_heading(struct parser *p, const char *line, size_t at, struct err *e)
{
	size_t end = at + 1, n = 0;
	const char *names[8];
	char *name;
	const char *near;
	int r;

	while (line[end] && line[end] != ']')
		end++;
	if (!line[end])
		return mistake(p, end, e, "']' is missing");
	for (size_t i = end + 1; line[i] && line[i] != '#'; i++)
		if (!isblank((unsigned char)line[i]))
			return mistake(p, i, e, "nothing may follow a section's name");
	name = xstrndup(line + at + 1, end - at - 1);
	for (const struct config_section *s = config_sections + 1; s->name; s++) {
		if (!strcmp(s->name, name)) {
			free(name);
			enter(p, s);
			return 0;
		}
		names[n++] = s->name;
	}
	near = err_nearest(name, names, n);
	r = mistake(p, at + 1, e, "there is no section [%.80s]%s%s%s", name, near ? "; did you mean [" : "",
		    near ? near : ": disk, serial, nic and device are known", near ? "]?" : "");
	free(name);
	return r;
}

/* The value from line[at] on, unquoted; *end is where it stops. */
static int take_value(struct parser *p, const char *line, size_t at, char **out, struct err *e)
{
	char *value = xzalloc(strlen(line + at) + 1), *to = value;
	bool quoted = line[at] == '"';
	size_t i = at + quoted, last = 0;

	for (; line[i] && !(quoted && line[i] == '"'); i++) {
		char c = line[i];

		if (!quoted && c == '#' && (i == at || isblank((unsigned char)line[i - 1])))
			break;
		if (quoted && c == '\\') {
			static const char from[] = "\"\\nt", into[] = "\"\\\n\t";
			const char *which = line[i + 1] ? strchr(from, line[i + 1]) : NULL;

			if (!which) {
				free(value);
				return mistake(p, i, e, "after a backslash: \", \\, n or t");
			}
			c = into[which - from];
			i++;
		}
		*to++ = c;
		if (quoted || !isblank((unsigned char)c))
			last = (size_t)(to - value);
	}
	value[last] = 0;
	if (quoted && line[i] != '"') {
		free(value);
		return mistake(p, i, e, "the quote that begins in column %zu is not closed", at + 1);
	}
	for (i += quoted; quoted && line[i] && line[i] != '#'; i++)
		if (!isblank((unsigned char)line[i])) {
			free(value);
			return mistake(p, i, e, "nothing may follow a quoted value");
		}
	*out = value;
	return 0;
}

static int store(struct parser *p, const char *key, size_t key_at, const char *value, size_t value_at, struct err *e)
{
	const struct prop *props = p->section->props, *prop = props ? prop_find(props, key) : NULL;
	struct err why = ERR_INIT;

	if (!props) {
		struct opts *o = &((struct device_config *)p->object)->opts;

		if (!o->n && strcmp(key, "driver"))
			return mistake(p, key_at, e, "driver comes first in a [device]");
		if (opts_get(o, key))
			return mistake(p, key_at, e, "'%s' is given twice", key);
		opts_set(o, key, value);
		return 0;
	}
	if (prop && p->seen[prop - props])
		return mistake(p, key_at, e, "'%s' is given twice", key);
	if (*p->section->name ? props_set(props, p->object, p->section->name, key, value, &why)
			      : guest_config_set(p->c, key, value, &why))
		return mistake(p, prop ? value_at : key_at, e, "%.500s", why.msg);
	p->seen[prop - props] = 1;
	return 0;
}

static int take_assignment(struct parser *p, const char *line, size_t at, struct err *e)
{
	size_t end = at, value_at;
	char *key, *value = NULL;
	int r;

	while (isalnum((unsigned char)line[end]) || line[end] == '-' || line[end] == '_' || line[end] == '.')
		end++;
	value_at = end + strspn(line + end, " \t");
	if (end == at || line[value_at] != '=')
		return mistake(p, end == at ? at : value_at, e, "expected key = value or [section]");
	value_at += 1 + strspn(line + value_at + 1, " \t");
	r = take_value(p, line, value_at, &value, e);
	if (r)
		return r;
	key = xstrndup(line + at, end - at);
	for (char *s = key; p->section->props && *s; s++)
		if (*s == '_')
			*s = '-';
	r = store(p, key, at, value, value_at, e);
	free(key);
	free(value);
	return r;
}

static int take_line(struct parser *p, const char *line, struct err *e)
{
	size_t at = strspn(line, " \t");

	for (size_t i = 0; line[i]; i++)
		if (((unsigned char)line[i] < ' ' && line[i] != '\t') || line[i] == 0x7f)
			return mistake(p, i, e, "a control character (0x%02x)", (unsigned char)line[i]);
	if (!line[at] || line[at] == '#')
		return 0;
	return line[at] == '[' ? take_heading(p, line, at, e) : take_assignment(p, line, at, e);
}

int config_parse_native(struct guest_config *c, const char *file, const char *text, size_t len, struct err *e)
{
	struct parser p = {.c = c, .file = file};
	int r = 0;

	enter(&p, &config_sections[0]);
	for (size_t at = 0; !r && at < len;) {
		const char *end = memchr(text + at, '\n', len - at);
		size_t n = end ? (size_t)(end - text) - at : len - at;
		char *line = xzalloc(n + 1);

		memcpy(line, text + at, n);
		p.line++;
		if (n && line[n - 1] == '\r')
			line[n - 1] = 0, n--;
		if (strlen(line) != n)
			r = mistake(&p, strlen(line), e, "a zero byte: this is no text file");
		else
			r = take_line(&p, line, e);
		free(line);
		at += (size_t)(end ? end - (text + at) + 1 : (ptrdiff_t)(len - at));
	}
	free(p.seen);
	return r;
}

/* ---- writing ---- */

static void write_value(FILE *f, const char *key, const char *value)
{
	fprintf(f, "%s = ", key);
	if (*value && !strpbrk(value, "#\"\\\n\t") && *value != ' ' && value[strlen(value) - 1] != ' ') {
		fprintf(f, "%s\n", value);
		return;
	}
	fputc('"', f);
	for (; *value; value++) {
		if (*value == '\n' || *value == '\t')
			fputs(*value == '\n' ? "\\n" : "\\t", f);
		else
			fprintf(f, "%s%c", *value == '"' || *value == '\\' ? "\\" : "", *value);
	}
	fputs("\"\n", f);
}

static void write_size(FILE *f, const char *key, unsigned long long bytes)
{
	if (bytes % MIB)
		fprintf(f, "%s = %lluK\n", key, bytes / (unsigned long long)KIB);
	else
		fprintf(f, "%s = %lluM\n", key, bytes / (unsigned long long)MIB);
}

/* Every property that differs from its default. */
static void write_object(FILE *f, const struct prop *props, const void *object, size_t size)
{
	void *fresh = xzalloc(size);

	props_default(props, fresh);
	for (const struct prop *p = props; p->name; p++) {
		char *now = prop_format(p, object), *before = prop_format(p, fresh);

		if (now && (!before || strcmp(now, before))) {
			if (p->type == PROP_SIZE) /* a bare number would count MiB */
				write_size(f, p->name, strtoull(now, NULL, 10));
			else
				write_value(f, p->name, now);
		}
		free(now);
		free(before);
	}
	props_free(props, fresh);
	free(fresh);
}

char *config_format(const struct guest_config *c)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		abort();
	write_object(f, guest_props, c, sizeof(*c));
	for (const struct disk_config *d = c->disks; d; d = d->next) {
		fputs("\n[disk]\n", f);
		write_object(f, disk_props, d, sizeof(*d));
	}
	for (const struct serial_config *s = c->serials; s; s = s->next) {
		fputs("\n[serial]\n", f);
		write_object(f, serial_props, s, sizeof(*s));
	}
	for (const struct nic_config *n = c->nics; n; n = n->next) {
		fputs("\n[nic]\n", f);
		write_object(f, nic_props, n, sizeof(*n));
	}
	for (const struct device_config *d = c->devices; d; d = d->next) {
		fputs("\n[device]\n", f);
		for (size_t i = 0; i < d->opts.n; i++)
			write_value(f, d->opts.v[i].key, d->opts.v[i].value);
	}
	fclose(f);
	return text;
}

/* ---- files ---- */

#define MAX_FILE MIB

static char *read_file(const char *path, size_t *len, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	char *text = NULL;
	struct stat st;
	ssize_t n = 0;

	if (fd < 0 || fstat(fd, &st)) {
		err_errno(e, errno, "cannot read %s", path);
	} else if (S_ISDIR(st.st_mode)) {
		err_set(e, EISDIR, "%s is a directory, not a configuration file", path);
	} else {
		text = xzalloc(MAX_FILE + 1);
		for (*len = 0; (n = read(fd, text + *len, MAX_FILE + 1 - *len)) > 0; *len += (size_t)n) {
		}
		if (n < 0)
			err_errno(e, errno, "cannot read %s", path);
		else if (*len > MAX_FILE)
			err_set(e, EFBIG, "%s: longer than 1 MiB; this is no configuration file", path);
		if (n < 0 || *len > MAX_FILE) {
			free(text);
			text = NULL;
		}
	}
	if (fd >= 0)
		close(fd);
	return text;
}

static bool ends_with(const char *text, const char *end)
{
	size_t a = strlen(text), b = strlen(end);

	return a >= b && !strcmp(text + a - b, end);
}

int config_load(struct guest_config *c, const char *path, const char *format, struct notes *notes, struct err *e)
{
	bool native = format ? !strcmp(format, "vmm") : ends_with(path, ".vmm");
	char *real, *slash, *dot, *text;
	size_t len = 0;
	int r;

	if (format && !native && strcmp(format, "xen"))
		return err_set(e, EINVAL, "format '%s': vmm and xen are known", format);
	text = read_file(path, &len, e);
	if (!text)
		return -(e && e->code ? e->code : EIO);
	r = native ? config_parse_native(c, path, text, len, e) : config_parse_xen(c, path, text, len, notes, e);
	free(text);
	real = r ? NULL : realpath(path, NULL);
	if (!r && !real)
		r = err_errno(e, errno, "cannot resolve %s", path);
	if (!r) {
		slash = strrchr(real, '/');
		*slash = 0;
		dot = strrchr(slash + 1, '.');
		if (dot && dot != slash + 1)
			*dot = 0;
		r = guest_config_complete(c, *real ? real : "/", slash + 1, e);
		if (r)
			err_prefix(e, "%s", path);
	}
	free(real);
	return r;
}
