/*
 * A QMP client that never waits for one guest while another has something to say: connecting, sending and receiving go
 * on for a whole list at once, under one deadline. Left out: JSON that spans lines (vmm's -qmp sends one line per
 * message).
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "ctl.h"

#define MAX_MESSAGE (64 * MIB)
#define RETRY_MS    10 /* a full backlog cannot be polled for */

struct fd_mark { /* fd that travels with the byte at `at` of out */
	size_t at;
	int fd;
};

struct qmp {
	int fd;
	bool connecting, gone;
	struct sockaddr_un address;
	int path_dir; /* keeps /proc/self/fd/N in the address valid while connecting */
	char *in, *out;
	size_t in_len, in_cap, in_seen, out_len;
	struct fd_mark mark;
	unsigned next_id, unanswered;
	json_t *answers; /* id -> message */
	json_t *events;
};

int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* 0, or -errno when there is no hope. */
static int try_connect(struct qmp *q)
{
	if (!connect(q->fd, (struct sockaddr *)&q->address, sizeof(q->address))) {
		q->connecting = false;
		return 0;
	}
	return errno == EAGAIN || errno == EINTR || errno == EALREADY ? 0 : -errno;
}

struct qmp *qmp_open(int dir, const char *file, struct err *e)
{
	struct qmp *q = xzalloc(sizeof(*q));
	int r;

	/* The way through /proc is short whatever the run directory is called, and cannot be led elsewhere by a rename.
	 */
	q->address.sun_family = AF_UNIX;
	snprintf(q->address.sun_path, sizeof(q->address.sun_path), "/proc/self/fd/%d/%s", dir, file);
	q->mark.fd = -1;
	q->connecting = true;
	q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	r = q->fd < 0 ? -errno : try_connect(q);
	if (r) {
		err_errno(e, -r, "cannot connect to its control socket");
		qmp_close(q);
		return NULL;
	}
	q->answers = json_object();
	q->events = json_array();
	qmp_queue(q, "qmp_capabilities", NULL, -1);
	return q;
}

void qmp_close(struct qmp *q)
{
	if (!q)
		return;
	if (q->fd >= 0)
		close(q->fd);
	free(q->in);
	free(q->out);
	json_decref(q->answers);
	json_decref(q->events);
	free(q);
}

int qmp_fd(const struct qmp *q)
{
	return q->fd;
}

bool qmp_gone(const struct qmp *q)
{
	return q->gone;
}

unsigned qmp_queue(struct qmp *q, const char *command, json_t *args, int fd)
{
	unsigned id = q->next_id++;
	json_t *message = json_pack("{s:s, s:i}", "execute", command, "id", (int)id);
	char *text;
	size_t len;

	if (args)
		json_object_set_new(message, "arguments", args);
	text = json_dumps(message, JSON_COMPACT);
	json_decref(message);
	len = strlen(text);
	if (fd >= 0)
		q->mark = (struct fd_mark){q->out_len, fd};
	q->out = xrealloc(q->out, q->out_len + len + 1);
	memcpy(q->out + q->out_len, text, len);
	q->out[q->out_len + len] = '\n';
	q->out_len += len + 1;
	q->unanswered++;
	free(text);
	return id;
}

static ssize_t send_with_fd(struct qmp *q)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec iov = {q->out, q->out_len};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	if (q->mark.fd >= 0 && q->mark.at) { /* what stands before it goes alone */
		iov.iov_len = q->mark.at;
	} else if (q->mark.fd >= 0) {
		struct cmsghdr *cm = &control.align;

		message.msg_control = &control;
		message.msg_controllen = sizeof(control.space);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cm), &q->mark.fd, sizeof(int));
	}
	return sendmsg(q->fd, &message, MSG_NOSIGNAL);
}

static void send_some(struct qmp *q)
{
	while (q->out_len) {
		ssize_t n = send_with_fd(q);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			q->gone |= errno != EAGAIN;
			return;
		}
		if (q->mark.fd >= 0 && !q->mark.at)
			q->mark.fd = -1;
		else if (q->mark.fd >= 0)
			q->mark.at -= (size_t)n;
		q->out_len -= (size_t)n;
		memmove(q->out, q->out + n, q->out_len);
	}
}

static void take_message(struct qmp *q, const char *text, size_t len)
{
	json_t *m = json_loadb(text, len, 0, NULL), *id = json_object_get(m, "id");
	char key[24];

	if (json_object_get(m, "event")) {
		json_array_append(q->events, m);
	} else if (json_is_integer(id) && q->unanswered) {
		snprintf(key, sizeof(key), "%lld", (long long)json_integer_value(id));
		json_object_set(q->answers, key, m);
		q->unanswered--;
	}
	/* the greeting needs no attention; what is not JSON cannot be ours */
	json_decref(m);
}

static void take_lines(struct qmp *q)
{
	size_t start = 0;

	for (size_t i = q->in_seen; i < q->in_len; i++)
		if (q->in[i] == '\n') {
			take_message(q, q->in + start, i - start);
			start = i + 1;
		}
	q->in_len -= start;
	if (start)
		memmove(q->in, q->in + start, q->in_len);
	q->in_seen = q->in_len;
}

static void receive_some(struct qmp *q)
{
	ssize_t n = 1;

	while (n > 0) {
		if (q->in_cap - q->in_len < 4096)
			q->in = xrealloc(q->in, q->in_cap = q->in_cap * 2 + 8192);
		n = recv(q->fd, q->in + q->in_len, q->in_cap - q->in_len, 0);
		if (n < 0 && errno == EINTR) {
			n = 1;
			continue;
		}
		if (n > 0)
			q->in_len += (size_t)n;
		else if (n == 0 || errno != EAGAIN)
			q->gone = true;
		if (q->in_len > MAX_MESSAGE)
			q->gone = true, n = 0;
		else
			take_lines(q);
	}
}

static bool wants_more(const struct qmp *q, bool event)
{
	return q && !q->gone && (event ? !json_array_size(q->events) : q->unanswered > 0);
}

/* Until nobody wants more, or the deadline. */
static void pump(struct qmp *const *list, size_t n, int64_t deadline, bool event)
{
	struct pollfd *fds = xcalloc(n, sizeof(*fds));

	for (;;) {
		int64_t left = deadline < 0 ? 3600 * 1000 : deadline - now_ms();
		bool any = false;

		for (size_t i = 0; i < n; i++) {
			struct qmp *q = list[i];

			fds[i] = (struct pollfd){.fd = -1};
			if (!wants_more(q, event))
				continue;
			if (q->connecting && try_connect(q)) {
				q->gone = true;
				continue;
			}
			any = true;
			if (q->connecting)
				left = MIN(left, (int64_t)RETRY_MS);
			else
				fds[i] = (struct pollfd){q->fd, POLLIN | (q->out_len ? POLLOUT : 0), 0};
		}
		if (!any || left < 0 || (left == 0 && deadline >= 0 && now_ms() > deadline))
			break;
		if (poll(fds, n, (int)left) < 0 && errno != EINTR)
			break;
		for (size_t i = 0; i < n; i++) {
			if (fds[i].revents & POLLOUT)
				send_some(list[i]);
			if (fds[i].revents & (POLLIN | POLLHUP | POLLERR))
				receive_some(list[i]);
		}
	}
	free(fds);
}

void qmp_gather(struct qmp *const *list, size_t n, int timeout_ms)
{
	pump(list, n, now_ms() + timeout_ms, false);
}

static enum err_class class_of(const char *name)
{
	if (name && !strcmp(name, "CommandNotFound"))
		return ERR_COMMAND_NOT_FOUND;
	if (name && !strcmp(name, "DeviceNotFound"))
		return ERR_DEVICE_NOT_FOUND;
	if (name && !strcmp(name, "DeviceNotActive"))
		return ERR_DEVICE_NOT_ACTIVE;
	return ERR_GENERIC;
}

json_t *qmp_answer(struct qmp *q, unsigned id, struct err *e)
{
	json_t *m, *error, *value;
	const char *text;
	char key[24];

	snprintf(key, sizeof(key), "%u", id);
	m = json_object_get(q->answers, key);
	if (!m) {
		if (q->gone)
			err_set(e, EPIPE, "vmm closed the connection before it answered");
		else
			err_set(e, ETIMEDOUT, "vmm does not answer");
		return NULL;
	}
	json_incref(m);
	json_object_del(q->answers, key);
	value = json_incref(json_object_get(m, "return"));
	error = json_object_get(m, "error");
	if (!value) {
		text = json_string_value(json_object_get(error, "desc"));
		err_set_class(e, class_of(json_string_value(json_object_get(error, "class"))), EIO, "%s",
			      text ? text : "an error without a description");
	}
	json_decref(m);
	return value;
}

json_t *qmp_run_fd(struct qmp *q, const char *command, json_t *args, int fd, int timeout_ms, struct err *e)
{
	unsigned id = qmp_queue(q, command, args, fd);

	qmp_gather(&q, 1, timeout_ms);
	return qmp_answer(q, id, e);
}

json_t *qmp_run(struct qmp *q, const char *command, json_t *args, int timeout_ms, struct err *e)
{
	return qmp_run_fd(q, command, args, -1, timeout_ms, e);
}

json_t *qmp_event(struct qmp *q, int timeout_ms)
{
	json_t *m;

	pump(&q, 1, timeout_ms < 0 ? -1 : now_ms() + timeout_ms, true);
	m = json_incref(json_array_get(q->events, 0));
	if (m)
		json_array_remove(q->events, 0);
	return m;
}
