/* The guest in numbers: one table of metrics (metrics.c), served as text over HTTP (metrics_http.c). Main thread. */
#ifndef VMM_CONTROL_METRICS_H
#define VMM_CONTROL_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include "vmm/err.h"

struct board;

enum metric_format {
	METRICS_OPENMETRICS, /* OpenMetrics 1.0 */
	METRICS_PROMETHEUS,  /* text format 0.0.4 */
};
/* One sample of a family of ours ("vmm_..."), for query-stats. Valid during the call. */
struct metric_sample {
	const char *family;
	enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_INFO } type;
	const char *unit;          /* "seconds", "bytes", "ratio" or NULL */
	const char *const *labels; /* name, value ... NULL */
	const uint64_t *values;    /* in units of 10^exponent; a histogram: [0], [1], [2..3], [4..7] ... */
	unsigned n;
	int exponent;
};
void metrics_samples(struct board *b, void (*fn)(void *opaque, const struct metric_sample *m), void *opaque);

/* Everything; malloc'ed. */
char *metrics_text(struct board *b, enum metric_format format, size_t *len);

/* -metrics unix:PATH|tcp:HOST:PORT */
int metrics_start(struct board *b, const char *address, struct err *e);
void metrics_stop(void);

/* ---- HTTP (metrics_http.c), without a socket: for tests and the fuzzer ---- */
#define HTTP_MAX_REQUEST 8192u
struct http_answer {
	int status; /* 0: the request is not complete */
	bool head;  /* no body wanted */
	enum metric_format format;
};
/* What to answer to the bytes received so far. */
struct http_answer http_parse(const char *buf, size_t len);

#endif
