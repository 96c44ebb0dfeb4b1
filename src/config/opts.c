/* Option strings "a=b,c=d" and JSON objects as key/value lists: see vmm/prop.h. */
#include "vmm/prop.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static void append(struct opts *o, char *key, char *value)
{
	o->v = xrealloc(o->v, (o->n + 1) * sizeof(*o->v));
	o->v[o->n++] = (struct opt){.key = key, .value = value};
}

void opts_free(struct opts *o)
{
	for (size_t i = 0; i < o->n; i++) {
		free(o->v[i].key);
		free(o->v[i].value);
	}
	free(o->v);
	*o = (struct opts){0};
}

/* One value up to a single comma, with ",," turned into ",". *s is left at the comma or the end. */
static char *take_value(const char **s)
{
	char *out = xzalloc(strlen(*s) + 1), *to = out;

	while (**s && !(**s == ',' && (*s)[1] != ',')) {
		if (**s == ',')
			(*s)++;
		*to++ = *(*s)++;
	}
	return out;
}

static int parse_pairs(struct opts *o, const char *text, const char *implied_key, struct err *e)
{
	const char *s = text;
	bool first = true;

	while (*s) {
		size_t key_len = strcspn(s, "=,");

		if (s[key_len] == '=') {
			const char *value = s + key_len + 1;
			char *key = xstrndup(s, key_len);

			if (!key_len) {
				free(key);
				return err_set(e, EINVAL, "'%s': a parameter name is missing before '='", text);
			}
			append(o, key, take_value(&value));
			s = value;
		} else if (first && implied_key) {
			append(o, xstrdup(implied_key), take_value(&s));
		} else {
			char *word = take_value(&s);
			bool off = !strncmp(word, "no", 2) && word[2];

			if (!*word) {
				free(word);
				return err_set(e, EINVAL, "'%s': an empty parameter (a literal comma is written ',,')",
					       text);
			}
			append(o, xstrdup(off ? word + 2 : word), xstrdup(off ? "off" : "on"));
			free(word);
		}
		first = false;
		if (*s == ',')
			s++;
	}
	return 0;
}

#define JSON_MAX_DEPTH 16

static int flatten(struct opts *o, const char *prefix, json_t *v, unsigned depth, struct err *e)
{
	const char *key;
	json_t *item;
	size_t i;
	int r = 0;

	if (depth > JSON_MAX_DEPTH)
		return err_set(e, EINVAL, "the JSON value is nested too deeply");
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		json_object_foreach(v, key, item)
		{
			char *name = *prefix ? xasprintf("%s.%s", prefix, key) : xstrdup(key);

			r = flatten(o, name, item, depth + 1, e);
			free(name);
			if (r)
				return r;
		}
		return 0;
	case JSON_ARRAY:
		json_array_foreach(v, i, item)
		{
			char *name = xasprintf("%s.%zu", prefix, i);

			r = flatten(o, name, item, depth + 1, e);
			free(name);
			if (r)
				return r;
		}
		return 0;
	case JSON_STRING:
		append(o, xstrdup(prefix), xstrdup(json_string_value(v)));
		return 0;
	case JSON_INTEGER:
		append(o, xstrdup(prefix), xasprintf("%lld", (long long)json_integer_value(v)));
		return 0;
	case JSON_REAL:
		append(o, xstrdup(prefix), xasprintf("%g", json_real_value(v)));
		return 0;
	case JSON_TRUE:
	case JSON_FALSE:
		append(o, xstrdup(prefix), xstrdup(json_is_true(v) ? "on" : "off"));
		return 0;
	case JSON_NULL:
		append(o, xstrdup(prefix), xstrdup(""));
		return 0;
	}
	return 0;
}

static int parse_json(struct opts *o, const char *text, struct err *e)
{
	json_error_t je;
	json_t *v = json_loads(text, 0, &je);
	int r;

	if (!v)
		return err_set(e, EINVAL, "invalid JSON at column %d: %s", je.column, je.text);
	r = json_is_object(v) ? flatten(o, "", v, 0, e) : err_set(e, EINVAL, "a JSON object was expected");
	json_decref(v);
	return r;
}

int opts_parse(struct opts *o, const char *text, const char *implied_key, struct err *e)
{
	int r;

	*o = (struct opts){0};
	r = *text == '{' ? parse_json(o, text, e) : parse_pairs(o, text, implied_key, e);
	if (r)
		opts_free(o);
	return r;
}

const char *opts_get(struct opts *o, const char *key)
{
	const char *value = NULL;

	for (size_t i = 0; i < o->n; i++)
		if (!strcmp(o->v[i].key, key)) {
			o->v[i].used = true;
			value = o->v[i].value;
		}
	return value;
}

void opts_set(struct opts *o, const char *key, const char *value)
{
	opts_del(o, key);
	append(o, xstrdup(key), xstrdup(value));
}

void opts_add(struct opts *o, const char *key, const char *value)
{
	append(o, xstrdup(key), xstrdup(value));
}

void opts_del(struct opts *o, const char *key)
{
	size_t kept = 0;

	for (size_t i = 0; i < o->n; i++) {
		if (strcmp(o->v[i].key, key)) {
			o->v[kept++] = o->v[i];
			continue;
		}
		free(o->v[i].key);
		free(o->v[i].value);
	}
	o->n = kept;
}

char *opts_format(const struct opts *o)
{
	size_t len = 1;
	char *out, *to;

	for (size_t i = 0; i < o->n; i++)
		len += strlen(o->v[i].key) + 2 * strlen(o->v[i].value) + 2;
	out = to = xzalloc(len);
	for (size_t i = 0; i < o->n; i++) {
		to += sprintf(to, "%s%s=", i ? "," : "", o->v[i].key);
		for (const char *s = o->v[i].value; *s; s++) {
			if (*s == ',')
				*to++ = ',';
			*to++ = *s;
		}
	}
	return out;
}

int opts_apply(struct opts *o, const struct prop *table, void *obj, const char *owner, struct err *e)
{
	for (size_t i = 0; i < o->n; i++) {
		int r;

		if (o->v[i].used)
			continue;
		r = props_set(table, obj, owner, o->v[i].key, o->v[i].value, e);
		if (r)
			return r;
		o->v[i].used = true;
	}
	return 0;
}
