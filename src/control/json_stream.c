/* See json_stream.h. The grammar is checked by jansson; here only quotes, brackets and limits count. */
#include "json_stream.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/util.h"

void json_stream_init(struct json_stream *s, void (*value)(void *, json_t *), void (*error)(void *, const char *),
		      void *opaque)
{
	*s = (struct json_stream){.value = value, .error = error, .opaque = opaque};
}

void json_stream_free(struct json_stream *s)
{
	free(s->buf);
	s->buf = NULL;
}

void json_stream_reset(struct json_stream *s)
{
	if (s->cap > 64 * KIB) { /* do not keep what one large message needed */
		free(s->buf);
		s->buf = NULL;
		s->cap = 0;
	}
	s->len = s->depth = s->elements = 0;
	s->quote = 0;
	s->escaped = false;
}

static void fail(struct json_stream *s, const char *text)
{
	json_stream_reset(s);
	s->skipping = true;
	s->error(s->opaque, text);
}

static bool add(struct json_stream *s, char ch)
{
	if (s->len >= JSON_STREAM_MAX_BYTES) {
		fail(s, "JSON token size limit exceeded");
		return false;
	}
	if (s->len + 1 >= s->cap) {
		s->cap = s->cap ? s->cap * 2 : 256;
		s->buf = xrealloc(s->buf, s->cap);
	}
	s->buf[s->len++] = ch;
	return true;
}

/* QEMU's words for the mistakes people make; jansson's, which say more, for the rest. */
static void describe(const char *text, size_t len, const json_error_t *je, char *out, size_t size)
{
	if (len && (text[0] | 0x20) >= 'a' && (text[0] | 0x20) <= 'z')
		snprintf(out, size, "JSON parse error, invalid keyword '%.*s'", (int)MIN(len, (size_t)64), text);
	else
		snprintf(out, size, "JSON parse error, %s", je->text);
}

static void finish(struct json_stream *s)
{
	char text[JSON_ERROR_TEXT_LENGTH + 100];
	json_error_t je;
	bool large = s->len > MIB;
	json_t *v = json_loadb(s->buf, s->len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);

	if (!v)
		describe(s->buf, s->len, &je, text, sizeof(text));
	json_stream_reset(s);
	if (v)
		s->value(s->opaque, v);
	else
		s->error(s->opaque, text);
	json_decref(v);
	if (large) /* the allocator would keep it for the next one, which may never come */
		malloc_trim(0);
}

static void stray(struct json_stream *s, unsigned char ch)
{
	char text[64];

	if (ch >= 0x80)
		snprintf(text, sizeof(text), "JSON parse error, stray '\xef\xbf\xbd'");
	else
		snprintf(text, sizeof(text), "JSON parse error, stray '%c'", ch);
	fail(s, text);
	s->skipping = ch != '\n'; /* a line that ends inside a string ends the mistake, too */
}

static void in_string(struct json_stream *s, unsigned char ch)
{
	if (ch < 0x20 || ch >= 0xfe) { /* not in JSON, not in UTF-8: the client starts anew */
		stray(s, ch);
		return;
	}
	if (s->escaped) {
		s->escaped = false;
		if (ch == '\'') /* \' is QEMU's own */
			add(s, '\'');
		else if (add(s, '\\'))
			add(s, (char)ch);
	} else if (ch == '\\') {
		s->escaped = true;
	} else if (ch == (unsigned char)s->quote) {
		s->quote = 0;
		if (add(s, '"') && !s->depth)
			finish(s);
	} else if (ch == '"') { /* inside single quotes */
		if (add(s, '\\'))
			add(s, '"');
	} else {
		add(s, (char)ch);
	}
}

static bool is_space(unsigned char ch)
{
	return ch == ' ' || ch == '\t' || ch == '\r' || ch == '\n';
}

static void open_bracket(struct json_stream *s, unsigned char ch)
{
	if (!s->depth && s->len) /* a bare word before it */
		finish(s);
	if (++s->depth > JSON_STREAM_MAX_DEPTH)
		fail(s, "JSON nesting depth limit exceeded");
	else
		add(s, (char)ch);
}

static void close_bracket(struct json_stream *s, unsigned char ch)
{
	if (!s->depth) {
		if (s->len)
			finish(s);
		s->error(s->opaque, "JSON parse error, expecting value");
		return;
	}
	if (add(s, (char)ch) && !--s->depth)
		finish(s);
}

static void outside_string(struct json_stream *s, unsigned char ch)
{
	if (is_space(ch)) {
		if (!s->depth && s->len)
			finish(s);
		else if (s->depth)
			add(s, ' ');
		return;
	}
	if (ch < 0x20 || ch >= 0x7f) {
		stray(s, ch);
		return;
	}
	if ((ch == ',' || ch == ':') && ++s->elements > JSON_STREAM_MAX_ELEMENTS) {
		fail(s, "JSON token count limit exceeded");
		return;
	}
	if (ch == '{' || ch == '[') {
		open_bracket(s, ch);
	} else if (ch == '}' || ch == ']') {
		close_bracket(s, ch);
	} else if (ch == '"' || ch == '\'') {
		if (!s->depth && s->len)
			finish(s);
		s->quote = (char)ch;
		add(s, '"');
	} else {
		add(s, (char)ch);
	}
}

void json_stream_feed(struct json_stream *s, const void *data, size_t len)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++) {
		if (s->skipping)
			s->skipping = p[i] != '\n';
		else if (s->quote)
			in_string(s, p[i]);
		else
			outside_string(s, p[i]);
	}
}
