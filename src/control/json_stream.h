/*
 * Cut a byte stream into JSON values: what a QMP client sends may come in any pieces, several at once, or be no JSON at
 * all. Bounded in bytes, depth and elements. Strings may be in single quotes, which QEMU accepts and people type.
 */
#ifndef VMM_CONTROL_JSON_STREAM_H
#define VMM_CONTROL_JSON_STREAM_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_STREAM_MAX_BYTES    (10u * 1024 * 1024)
#define JSON_STREAM_MAX_DEPTH    1024
#define JSON_STREAM_MAX_ELEMENTS (512u * 1024) /* bounds what a value costs once it is parsed */

struct json_stream {
	/* A whole value; borrowed. */
	void (*value)(void *opaque, json_t *value);
	/* Something that is none: QEMU's words where it has them. */
	void (*error)(void *opaque, const char *text);
	void *opaque;

	/* private */
	char *buf; /* the value so far, single quotes made double */
	size_t len, cap;
	uint32_t depth, elements;
	char quote; /* inside a string: its quotation mark */
	bool escaped;
	bool skipping; /* after an error: up to the end of the line */
};

void json_stream_init(struct json_stream *s, void (*value)(void *, json_t *), void (*error)(void *, const char *),
		      void *opaque);
/* The callbacks may call json_stream_reset(), not json_stream_free(). */
void json_stream_feed(struct json_stream *s, const void *data, size_t len);
void json_stream_reset(struct json_stream *s); /* forget a half value */
void json_stream_free(struct json_stream *s);

#endif
