/* The syntax of Xen's configuration files: see xen_config.c. Every mistake has its line and column. */
#include "xen.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 16

int xen_mistake_at(const struct xen *x, unsigned line, unsigned column, struct err *e, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(e, EINVAL, "%s:%u:%u: %s", x->file, line, column, text);
}

void xen_note(struct xen *x, const struct xen_value *v, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	notes_add(x->notes, xasprintf("%s:%u:%u: %s", x->file, v->line, v->column, text));
}

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

void xen_value_free(struct xen_value *v)
{
	for (size_t i = 0; i < v->n; i++)
		xen_value_free(&v->items[i]);
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
			return xen_mistake_at(x, line, column, e, "the string that begins here is not closed");
		if (!c)
			return xen_mistake(x, e, "a zero byte: this is no text file");
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
		int r = xen_mistake_at(x, line, column, e, "'%.40s%s' is no whole number", text,
				       peek(x) == '.' ? "." : "");

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
		return xen_mistake(x, e, "lists are nested too deeply");
	step(x);
	for (;;) {
		struct xen_value item;

		skip(x, true);
		if (peek(x) == close)
			break;
		if (x->s == x->end)
			return xen_mistake_at(x, v->line, v->column, e, "the list that begins here is not closed");
		r = take_value(x, &item, true, e);
		if (r) {
			xen_value_free(&item);
			return r;
		}
		if (!(v->n & (v->n - 1)))
			v->items = xrealloc(v->items, (v->n ? v->n * 2 : 1) * sizeof(*v->items));
		v->items[v->n++] = item;
		skip(x, true);
		if (peek(x) == ',')
			step(x);
		else if (peek(x) != close && x->s < x->end)
			return xen_mistake(x, e, "expected ',' or '%c' in the list", close);
	}
	step(x);
	x->depth--;
	return 0;
}

static int code(struct xen *x, unsigned line, unsigned column, const char *what, struct err *e)
{
	return xen_mistake_at(x, line, column, e,
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
		return xen_mistake(x, e, "a value is missing: a string, a number or a list");
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

int xen_read_statement(struct xen *x, char **name_out, struct xen_value *v, struct err *e)
{
	unsigned line = x->line, column = x->column;
	char *name;
	int r = 0, c;

	*name_out = NULL;
	if (!isalpha(peek(x)) && peek(x) != '_')
		return xen_mistake(x, e, "expected NAME = VALUE");
	name = *name_out = take_word(x);
	skip(x, false);
	c = peek(x);
	if (c != '=' || peek_at(x, 1) == '=') {
		r = isalpha(c) || c == '(' || c == ':' || c == '.' || c == '\'' || c == '"'
			    ? code(x, line, column, name, e)
			    : xen_mistake(x, e, "'=' is missing after '%.40s'", name);
	} else {
		step(x);
		skip(x, false);
		r = take_value(x, v, false, e);
	}
	if (!r) {
		skip(x, false);
		c = peek(x);
		if (c == ';')
			step(x);
		else if (c == '+' || c == '%' || c == '(' || c == '.' || c == '*')
			r = code(x, x->line, x->column, (char[2]){(char)c, 0}, e);
		else if (c != '\n' && x->s < x->end)
			r = xen_mistake(x, e, "expected the end of the line after the value of %.40s%s", name,
					c == '=' ? "" : "; a file of our own syntax ends in .vmm");
	}
	return r;
}

void xen_skip_lines(struct xen *x)
{
	skip(x, true);
}
