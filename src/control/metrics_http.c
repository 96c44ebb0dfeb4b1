/*
 * GET /metrics: as much HTTP/1.1 (RFC 9110, 9112) as a scraper needs. One request per connection, which is closed
 * behind the answer. A client gets CLIENT_MS for all of it, then it is dropped; what it may make us keep is one request
 * and one answer.
 *
 * The format is OpenMetrics 1.0 unless the client accepts only text/plain, Prometheus' older format.
 */
#include "metrics.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "host_stats.h"
#include "vmm/chardev.h"
#include "vmm/clock.h"
#include "vmm/loop.h"

#define MAX_CLIENTS 16u
#define CLIENT_MS   10000u
#define LINGER_MS   1000u

struct client {
	struct chardev *c;
	struct timer timer;
	struct bh end;
	char in[HTTP_MAX_REQUEST];
	size_t in_len;
	char *out;
	size_t out_head, out_len;
	bool answered, closing;
	struct client *next;
};

static struct board *the_board;
static struct chardev *listener;
static struct client *clients;

/* ---- the request ---- */

/* Case-insensitive search within len bytes. */
static bool contains(const char *text, size_t len, const char *word)
{
	size_t n = strlen(word);

	for (size_t i = 0; i + n <= len; i++)
		if (!strncasecmp(text + i, word, n))
			return true;
	return false;
}

/* The format for the Accept header of the lines from p on. */
static enum metric_format wanted_format(const char *p, const char *end)
{
	while (p < end) {
		const char *line_end = memchr(p, '\n', (size_t)(end - p));
		size_t len = (size_t)((line_end ? line_end : end) - p);

		if (len > 7 && !strncasecmp(p, "accept:", 7) && contains(p, len, "text/plain") &&
		    !contains(p, len, "openmetrics"))
			return METRICS_PROMETHEUS;
		p += len + 1;
	}
	return METRICS_OPENMETRICS;
}

/* Where the header ends: behind an empty line, with or without CR; NULL: not yet. */
static const char *header_end(const char *buf, size_t len)
{
	for (size_t i = 0; i + 1 < len; i++)
		if (buf[i] == '\n' && (buf[i + 1] == '\n' || (i + 2 < len && buf[i + 1] == '\r' && buf[i + 2] == '\n')))
			return buf + i + 1;
	return NULL;
}

static bool word_is(const char *p, size_t len, const char *word)
{
	return len == strlen(word) && !memcmp(p, word, len);
}

struct http_answer http_parse(const char *buf, size_t len)
{
	const char *end = header_end(buf, len), *line_end, *target, *version;
	struct http_answer a = {0};

	if (!end) {
		a.status = len >= HTTP_MAX_REQUEST ? 431 : 0;
		return a;
	}
	line_end = memchr(buf, '\n', (size_t)(end - buf));
	if (line_end > buf && line_end[-1] == '\r')
		line_end--;
	target = memchr(buf, ' ', (size_t)(line_end - buf));
	version = target ? memchr(target + 1, ' ', (size_t)(line_end - target - 1)) : NULL;
	if (!version || line_end - version != 9 || memcmp(version, " HTTP/1.", 8) != 0) {
		a.status = 400;
		return a;
	}
	a.head = word_is(buf, (size_t)(target - buf), "HEAD");
	if (!a.head && !word_is(buf, (size_t)(target - buf), "GET")) {
		a.status = 405;
		return a;
	}
	target++;
	if (memchr(target, '?', (size_t)(version - target)))
		a.status = word_is(target, strcspn(target, "?"), "/metrics") ? 200 : 404;
	else
		a.status = word_is(target, (size_t)(version - target), "/metrics") ? 200 : 404;
	a.format = wanted_format(line_end, end);
	return a;
}

/* ---- clients ---- */

static void client_free(void *opaque)
{
	struct client *cl = opaque;

	for (struct client **p = &clients; *p; p = &(*p)->next)
		if (*p == cl) {
			*p = cl->next;
			break;
		}
	cl->closing = true;
	timer_cancel(&cl->timer);
	bh_cancel(&cl->end);
	chardev_close(cl->c);
	free(cl->out);
	free(cl);
}

/* Not from inside a callback of its own chardev. */
static void client_close(struct client *cl)
{
	if (cl->closing) /* also the event that closing itself causes */
		return;
	cl->closing = true;
	bh_schedule(&cl->end);
}

static void client_late(void *opaque)
{
	client_close(opaque);
}

/* Closing on bytes that were not read would turn into a reset, which takes the answer back: a client that sends too
   much is left to close first. */
static void answered(struct client *cl)
{
	if (cl->in_len < sizeof(cl->in))
		client_close(cl);
	else
		timer_arm(&cl->timer, clock_ns(VCLOCK_REAL) + LINGER_MS * NS_PER_MS);
}

static void push(struct client *cl)
{
	size_t n = chardev_write(cl->c, cl->out + cl->out_head, cl->out_len - cl->out_head);

	cl->out_head += n;
	if (cl->out_head == cl->out_len && !chardev_queued(cl->c))
		answered(cl);
	else
		chardev_ask_writable(cl->c);
}

static void answer(struct client *cl, struct http_answer a)
{
	static const char *const types[] = {
		[METRICS_OPENMETRICS] = "application/openmetrics-text; version=1.0.0; charset=utf-8",
		[METRICS_PROMETHEUS] = "text/plain; version=0.0.4; charset=utf-8",
	};
	static const struct {
		int status;
		const char *text;
	} texts[] = {{200, "OK"},
		     {400, "Bad Request"},
		     {404, "Not Found"},
		     {405, "Method Not Allowed"},
		     {431, "Request Header Fields Too Large"}};
	const char *text = "";
	char *body, *head;
	size_t len, head_len;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (texts[i].status == a.status)
			text = texts[i].text;
	if (a.status == 200) {
		body = metrics_text(the_board, a.format, &len);
	} else {
		body = xasprintf("%d %s; the metrics are at /metrics\n", a.status, text);
		len = strlen(body);
	}
	head = xasprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%sConnection: close\r\n\r\n",
			 a.status, text, a.status == 200 ? types[a.format] : "text/plain; charset=utf-8", len,
			 a.status == 405 ? "Allow: GET, HEAD\r\n" : "");
	head_len = strlen(head);
	if (a.head)
		len = 0;
	cl->out = xrealloc(head, head_len + len);
	memcpy(cl->out + head_len, body, len);
	cl->out_len = head_len + len;
	free(body);
	cl->answered = true;
	push(cl);
}

/* Past the answer everything is read and forgotten. */
static void receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct client *cl = opaque;
	struct http_answer a;
	size_t part = MIN(len, sizeof(cl->in) - cl->in_len);

	if (cl->answered)
		return;
	memcpy(cl->in + cl->in_len, buf, part);
	cl->in_len += part;
	a = http_parse(cl->in, cl->in_len);
	if (a.status)
		answer(cl, a);
}

static void writable(void *opaque)
{
	struct client *cl = opaque;

	if (cl->answered && !cl->closing)
		push(cl);
}

static void event(void *opaque, enum chardev_event ev)
{
	if (ev == CHARDEV_CLOSED)
		client_close(opaque);
}

static const struct chardev_frontend frontend = {
	.receive = receive,
	.event = event,
	.writable = writable,
	.lossless = true,
};

static void on_peer(void *opaque, struct chardev *peer)
{
	struct client *cl = xzalloc(sizeof(*cl));

	cl->c = peer;
	cl->next = clients;
	clients = cl;
	bh_init(&cl->end, loop_main(), NULL, client_free, cl);
	timer_init(&cl->timer, loop_main(), VCLOCK_REAL, NULL, client_late, cl);
	timer_arm(&cl->timer, clock_ns(VCLOCK_REAL) + CLIENT_MS * NS_PER_MS);
	chardev_attach(peer, &frontend, cl, NULL);
}

/* ---- life ---- */

int metrics_start(struct board *b, const char *address, struct err *e)
{
	bool known = !strncmp(address, "unix:", 5) || !strncmp(address, "tcp:", 4);
	char *text;
	struct chardev *c;

	if (!known || strstr(address, ",server=off"))
		return err_set(e, EINVAL, "unix:PATH or tcp:HOST:PORT is expected");
	text = xasprintf("%s%s", address, strstr(address, ",server") ? "" : ",server=on,wait=off");
	c = chardev_open_legacy("metrics", text, e);
	free(text);
	if (!c || !chardev_claim("metrics", "-metrics", e))
		return e && e->code ? -e->code : -EINVAL;
	the_board = b;
	listener = c;
	return chardev_serve(c, MAX_CLIENTS, on_peer, NULL);
}

void metrics_stop(void)
{
	while (clients)
		client_free(clients);
	if (listener) {
		chardev_release(listener);
		listener = NULL;
	}
}
