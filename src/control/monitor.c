/*
 * QMP sessions: a client on a character device. Framing, greeting, replies, events, flow control.
 *
 * A client that does not read cannot cost us more than QUEUE_STOP bytes: beyond, its commands are left unread, and
 * events for it are dropped and counted. Replies to what it has already sent are kept.
 */
#include "qmp.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include "json_stream.h"
#include "vmm/chardev.h"
#include "vmm/clock.h"
#include "vmm/log.h"

#define QUEUE_STOP (256 * 1024)
#define HELD_MAX   8 /* commands that wait behind a slow one; more are left unread, as QEMU does */

struct qmp_session {
	struct board *board;
	struct chardev *c;
	struct qmp_client client;
	bool pretty, open;
	bool own_chardev; /* a peer of a listening socket: closed with the session */
	bool closing;
	struct json_stream in;
	char *out;
	size_t out_head, out_len, out_cap;
	uint64_t lost_events;
	struct qmp_later *waits_for; /* a command whose answer comes later; those behind it: */
	json_t *held;                /* array, in order */
	struct bh free_bh;
	struct qmp_session *next;
};

struct listener { /* context of chardev_serve() */
	struct board *board;
	struct chardev *c;
	bool pretty;
	struct listener *next;
};

static struct qmp_session *sessions;
static struct listener *listeners;

/* ---- output ---- */

static void flush(struct qmp_session *s)
{
	while (s->out_len) {
		size_t n = chardev_write(s->c, s->out + s->out_head, s->out_len);

		s->out_head += n;
		s->out_len -= n;
		if (!n)
			return;
	}
	s->out_head = 0;
	if (s->out_cap > QUEUE_STOP) { /* after a large reply; the allocator would keep it for the next one */
		free(s->out);
		malloc_trim(0);
		s->out = NULL;
		s->out_cap = 0;
	}
}

static void append(struct qmp_session *s, const char *data, size_t len)
{
	if (s->out_head + s->out_len + len > s->out_cap) {
		if (s->out_len)
			memmove(s->out, s->out + s->out_head, s->out_len);
		s->out_head = 0;
		if (s->out_len + len > s->out_cap) {
			s->out_cap = ALIGN_UP(s->out_len + len, (size_t)4096);
			s->out = xrealloc(s->out, s->out_cap);
		}
	}
	memcpy(s->out + s->out_head + s->out_len, data, len);
	s->out_len += len;
}

static void send_json(struct qmp_session *s, const json_t *v)
{
	char *text = json_dumps(v, JSON_ENSURE_ASCII | (s->pretty ? JSON_INDENT(4) : 0));

	if (!s->open || !text) {
		free(text);
		return;
	}
	append(s, text, strlen(text));
	append(s, "\r\n", 2); /* libvirt waits for CR LF */
	free(text);
	flush(s);
}

static void greet(struct qmp_session *s)
{
	json_t *v = json_pack("{s:{s:o, s:[s]}}", "QMP", "version", qmp_version(), "capabilities", "oob");

	send_json(s, v);
	json_decref(v);
}

/* ---- input ---- */

static void execute(struct qmp_session *s, json_t *request)
{
	json_t *response = qmp_dispatch(s->board, s, &s->client, request);

	if (response)
		send_json(s, response);
	json_decref(response);
}

static void got_value(void *opaque, json_t *request)
{
	struct qmp_session *s = opaque;
	bool oob = s->client.oob && json_object_get(request, "exec-oob");

	if (s->waits_for && !oob)
		json_array_append(s->held, request);
	else
		execute(s, request);
}

void qmp_session_wait(struct qmp_session *s, struct qmp_later *l)
{
	s->waits_for = l;
}

/* What was held back goes on, up to the next one that has to wait. */
static void run_held(struct qmp_session *s)
{
	while (!s->waits_for && json_array_size(s->held)) {
		json_t *request = json_incref(json_array_get(s->held, 0));

		json_array_remove(s->held, 0);
		execute(s, request);
		json_decref(request);
	}
}

void qmp_session_answer(struct qmp_session *s, json_t *response)
{
	s->waits_for = NULL;
	send_json(s, response);
	run_held(s);
	chardev_accept_input(s->c);
}

static void forget_requests(struct qmp_session *s)
{
	if (s->waits_for)
		qmp_later_forget(s->waits_for);
	s->waits_for = NULL;
	json_array_clear(s->held);
}

static void got_garbage(void *opaque, const char *text)
{
	struct err e = ERR_INIT;
	json_t *response;

	err_set(&e, EINVAL, "%s", text);
	response = qmp_error_response(NULL, &e);
	send_json(opaque, response);
	json_decref(response);
}

static size_t can_receive(void *opaque)
{
	const struct qmp_session *s = opaque;

	return s->out_len < QUEUE_STOP && json_array_size(s->held) < HELD_MAX ? 1024 : 0;
}

static void receive(void *opaque, const uint8_t *buf, size_t len)
{
	struct qmp_session *s = opaque;

	json_stream_feed(&s->in, buf, len);
}

static void writable(void *opaque)
{
	struct qmp_session *s = opaque;

	flush(s);
	if (s->out_len < QUEUE_STOP)
		chardev_accept_input(s->c);
	if (!s->out_len && s->lost_events) {
		log_warn("control", "a QMP client of %s did not read, %llu events for it were dropped",
			 chardev_id(s->c), (unsigned long long)s->lost_events);
		s->lost_events = 0;
	}
}

int qmp_session_take_fd(struct qmp_session *s)
{
	int fd = -1;

	return s && chardev_take_fds(s->c, &fd, 1) == 1 ? fd : -1;
}

/* ---- coming and going ---- */

static void session_free(struct qmp_session *s)
{
	for (struct qmp_session **p = &sessions; *p; p = &(*p)->next)
		if (*p == s) {
			*p = s->next;
			break;
		}
	bh_cancel(&s->free_bh);
	if (s->own_chardev)
		chardev_close(s->c);
	else
		chardev_release(s->c);
	forget_requests(s);
	json_decref(s->held);
	json_stream_free(&s->in);
	free(s->out);
	free(s);
}

static void session_free_later(void *opaque)
{
	session_free(opaque);
}

static void event(void *opaque, enum chardev_event ev)
{
	struct qmp_session *s = opaque;

	if (ev == CHARDEV_OPENED && !s->open) {
		s->open = true;
		greet(s);
	} else if (ev == CHARDEV_CLOSED) {
		s->open = false;
		s->client = (struct qmp_client){0};
		forget_requests(s);
		s->out_head = s->out_len = 0;
		json_stream_reset(&s->in);
		s->in.skipping = false;
		if (s->own_chardev && !s->closing) {
			s->closing = true;
			bh_schedule(&s->free_bh);
		}
	}
}

static const struct chardev_frontend frontend = {
	.can_receive = can_receive,
	.receive = receive,
	.event = event,
	.writable = writable,
	.lossless = true,
};

static struct qmp_session *session_new(struct board *board, struct chardev *c, bool pretty, bool own_chardev)
{
	struct qmp_session *s = xzalloc(sizeof(*s));

	*s = (struct qmp_session){
		.board = board, .c = c, .pretty = pretty, .own_chardev = own_chardev, .next = sessions};
	sessions = s;
	bh_init(&s->free_bh, loop_main(), NULL, session_free_later, s);
	s->held = json_array();
	json_stream_init(&s->in, got_value, got_garbage, s);
	chardev_attach(c, &frontend, s, NULL);
	return s;
}

static void on_peer(void *opaque, struct chardev *peer)
{
	struct listener *l = opaque;

	session_new(l->board, peer, l->pretty, true);
}

int qmp_monitor_add(struct board *board, struct chardev *c, bool pretty, struct err *e)
{
	struct listener *l = xzalloc(sizeof(*l));

	*l = (struct listener){.board = board, .c = c, .pretty = pretty, .next = listeners};
	if (chardev_serve(c, QMP_MAX_CLIENTS, on_peer, l) == 0) {
		listeners = l;
		return 0;
	}
	free(l);
	session_new(board, c, pretty, false);
	return 0;
}

static bool anything_queued(void)
{
	for (struct qmp_session *s = sessions; s; s = s->next) {
		flush(s);
		chardev_flush(s->c);
		if (s->open && (s->out_len || chardev_queued(s->c)))
			return true;
	}
	return false;
}

void qmp_monitors_close(unsigned wait_ms)
{
	uint64_t until = clock_ns(VCLOCK_REAL) + wait_ms * NS_PER_MS;

	/* The last words (SHUTDOWN, the reply to quit) matter: management tells an orderly end from a crash by them. */
	while (anything_queued() && clock_ns(VCLOCK_REAL) < until && !clock_is_manual())
		loop_step(loop_main(), 10);
	while (sessions)
		session_free(sessions);
	while (listeners) {
		struct listener *l = listeners;

		listeners = l->next;
		chardev_release(l->c);
		free(l);
	}
}

/* ---- events ---- */

static json_t *timestamp(void)
{
	struct timeval tv;

	gettimeofday(&tv, NULL);
	return json_pack("{s:I, s:I}", "seconds", (json_int_t)tv.tv_sec, "microseconds", (json_int_t)tv.tv_usec);
}

void qmp_emit(const char *name, const json_t *data)
{
	json_t *v = json_pack("{s:o, s:s}", "timestamp", timestamp(), "event", name);

	if (data)
		json_object_set(v, "data", (json_t *)data);
	for (struct qmp_session *s = sessions; s; s = s->next) {
		if (!s->open || !s->client.negotiated)
			continue;
		if (s->out_len < QUEUE_STOP)
			send_json(s, v);
		else
			s->lost_events++;
	}
	json_decref(v);
}
