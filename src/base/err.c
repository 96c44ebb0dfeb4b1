/* Error records: see vmm/err.h. */
#include "vmm/err.h"

#include <errno.h>

#include <stdio.h>
#include <string.h>

static int record(struct err *e, enum err_class class, int code, const char *fmt, va_list ap)
{
	if (e) {
		e->code = code;
		e->class = class;
		vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
	}
	return -code;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	code = record(e, ERR_GENERIC, code, fmt, ap);
	va_end(ap);
	return code;
}

int err_set_class(struct err *e, enum err_class class, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	code = record(e, class, code, fmt, ap);
	va_end(ap);
	return code;
}

int err_errno(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;
	size_t used;

	va_start(ap, fmt);
	record(e, ERR_GENERIC, code, fmt, ap);
	va_end(ap);
	if (e) {
		used = strlen(e->msg);
		snprintf(e->msg + used, sizeof(e->msg) - used, ": %s", strerror(code));
	}
	return -code;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
	char head[512], tail[sizeof(e->msg)];
	va_list ap;

	if (!e)
		return -EINVAL; /* callers hand the result on: it must stay an error */
	va_start(ap, fmt);
	vsnprintf(head, sizeof(head), fmt, ap);
	va_end(ap);
	memcpy(tail, e->msg, sizeof(tail));
	if (snprintf(e->msg, sizeof(e->msg), "%s: %s", head, tail) >= (int)sizeof(e->msg))
		e->msg[sizeof(e->msg) - 1] = '\0';
	return -e->code;
}

#define NEAREST_MAX_WORD 48

/* Levenshtein distance with transpositions counted as two; words longer than NEAREST_MAX_WORD are "far". */
static size_t edit_distance(const char *a, const char *b)
{
	size_t row[NEAREST_MAX_WORD + 1], la = strlen(a), lb = strlen(b);

	if (la > NEAREST_MAX_WORD || lb > NEAREST_MAX_WORD)
		return NEAREST_MAX_WORD;
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);

			best = MIN(best, row[j] + 1);
			best = MIN(best, row[j - 1] + 1);
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[lb];
}

const char *err_nearest(const char *word, const char *const *names, size_t n)
{
	size_t best = strlen(word) / 2 + 1; /* farther than this is no help */
	const char *name = NULL;

	for (size_t i = 0; i < n; i++) {
		size_t d = edit_distance(word, names[i]);

		if (d < best) {
			best = d;
			name = names[i];
		}
	}
	return name;
}
