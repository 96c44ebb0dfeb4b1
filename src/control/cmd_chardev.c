/* QMP: character devices. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/base64.h"
#include "commands.h"
#include "vmm/chardev.h"
#include "vmm/loop.h"

static const struct qmp_type chardev_info = QMP_OBJECT(
	"ChardevInfo", QMP_REQ("label", qmp_str), QMP_REQ("filename", qmp_str), QMP_REQ("frontend-open", qmp_bool));
static const struct qmp_type backend_info = QMP_OBJECT("ChardevBackendInfo", QMP_REQ("name", qmp_str));
static const struct qmp_type data_format = QMP_ENUM("DataFormat", "utf8", "base64");

static json_t *query_chardev(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();

	for (struct chardev *c = chardev_next(NULL); c; c = chardev_next(c))
		json_array_append_new(list, json_pack("{s:o, s:o, s:b}", "label", qmp_text(chardev_id(c)), "filename",
						      qmp_text(chardev_filename(c)), "frontend-open",
						      chardev_frontend_open(c)));
	return list;
}

/* ---- chardev-add, chardev-remove ---- */

static const struct qmp_type address_kind = QMP_ENUM("SocketAddressType", "inet", "unix", "fd");
static const struct qmp_type backend_kind =
	QMP_ENUM("ChardevBackendKind", "file", "serial", "pipe", "socket", "pty", "null", "ringbuf", "memory");
#define LOG_ARGS QMP_OPT("logfile", qmp_str), QMP_OPT("logappend", qmp_bool)
static const struct qmp_type inet_address =
	QMP_OBJECT("InetSocketAddress", QMP_REQ("host", qmp_str), QMP_REQ("port", qmp_str), QMP_OPT("to", qmp_int),
		   QMP_OPT("ipv4", qmp_bool), QMP_OPT("ipv6", qmp_bool));
static const struct qmp_type unix_address = QMP_OBJECT("UnixSocketAddress", QMP_REQ("path", qmp_str),
						       QMP_OPT("abstract", qmp_bool), QMP_OPT("tight", qmp_bool));
static const struct qmp_type fd_address = QMP_OBJECT("FdSocketAddress", QMP_REQ("str", qmp_str));
static const struct qmp_type socket_address = {
	.name = "SocketAddressLegacy",
	.kind = QMP_KIND_OBJECT,
	.members = QMP_MEMBERS(QMP_REQ("type", address_kind)),
	.tag = "type",
	.variants =
		(const struct qmp_variant[]){
			{"inet", QMP_MEMBERS(QMP_REQ("data", inet_address))},
			{"unix", QMP_MEMBERS(QMP_REQ("data", unix_address))},
			{"fd", QMP_MEMBERS(QMP_REQ("data", fd_address))},
			{NULL, NULL},
		},
};
static const struct qmp_type common_data = QMP_OBJECT("ChardevCommon", LOG_ARGS);
static const struct qmp_type file_data =
	QMP_OBJECT("ChardevFile", QMP_REQ("out", qmp_str), QMP_OPT("append", qmp_bool), LOG_ARGS);
static const struct qmp_type host_data = QMP_OBJECT("ChardevHostdev", QMP_REQ("device", qmp_str), LOG_ARGS);
static const struct qmp_type ring_data = QMP_OBJECT("ChardevRingbuf", QMP_OPT("size", qmp_int), LOG_ARGS);
static const struct qmp_type socket_data = QMP_OBJECT(
	"ChardevSocket", QMP_REQ("addr", socket_address), QMP_OPT("server", qmp_bool), QMP_OPT("wait", qmp_bool),
	QMP_OPT("nodelay", qmp_bool), QMP_OPT("telnet", qmp_bool), QMP_OPT("reconnect", qmp_int), LOG_ARGS);
static const struct qmp_type backend = {
	.name = "ChardevBackend",
	.kind = QMP_KIND_OBJECT,
	.members = QMP_MEMBERS(QMP_REQ("type", backend_kind)),
	.tag = "type",
	.variants =
		(const struct qmp_variant[]){
			{"file", QMP_MEMBERS(QMP_REQ("data", file_data))},
			{"serial", QMP_MEMBERS(QMP_REQ("data", host_data))},
			{"pipe", QMP_MEMBERS(QMP_REQ("data", host_data))},
			{"socket", QMP_MEMBERS(QMP_REQ("data", socket_data))},
			{"pty", QMP_MEMBERS(QMP_REQ("data", common_data))},
			{"null", QMP_MEMBERS(QMP_REQ("data", common_data))},
			{"ringbuf", QMP_MEMBERS(QMP_REQ("data", ring_data))},
			{"memory", QMP_MEMBERS(QMP_REQ("data", ring_data))},
			{NULL, NULL},
		},
};
static const struct qmp_type chardev_return = QMP_OBJECT("ChardevReturn", QMP_OPT("pty", qmp_str));

/* QMP's structure as -chardev's options: the same words, but for these. */
static void add_data(struct opts *o, const json_t *data)
{
	static const char *const renamed[][2] = {{"out", "path"}, {"device", "path"}, {"str", "fd"}};
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)data, key, v)
	{
		char number[32];
		const char *name = key;

		for (size_t i = 0; i < ARRAY_SIZE(renamed); i++)
			if (!strcmp(key, renamed[i][0]))
				name = renamed[i][1];
		snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(v));
		if (!strcmp(key, "addr"))
			add_data(o, json_object_get(v, "data"));
		else if (json_is_object(v))
			add_data(o, v);
		else
			opts_set(o, name,
				 json_is_string(v)    ? json_string_value(v)
				 : json_is_integer(v) ? number
				 : json_is_true(v)    ? "on"
						      : "off");
	}
}

/* A client's socket that is still being connected: the answer waits for what becomes of it. */
struct connecting {
	struct qmp_later *later;
	char *id; /* to be removed when nothing comes of it; NULL: it is in use already */
	struct bh over;
	struct err e;
};

static void connecting_over(void *opaque)
{
	struct connecting *w = opaque;

	if (w->e.code && w->e.code != ECANCELED && w->id)
		chardev_remove(w->id, NULL);
	qmp_later_finish(w->later, w->e.code ? NULL : json_object(), &w->e);
	free(w->id);
	free(w);
}

static void connected(void *opaque, const struct err *e)
{
	struct connecting *w = opaque;

	if (e)
		w->e = *e;
	bh_schedule(&w->over);
}

static bool answer_when_connected(struct qmp_call *call, struct chardev *c, bool new)
{
	struct connecting *w = xzalloc(sizeof(*w));

	if (!chardev_when_connected(c, connected, w)) {
		free(w);
		return false;
	}
	bh_init(&w->over, loop_main(), NULL, connecting_over, w);
	w->id = new ? xstrdup(chardev_id(c)) : NULL;
	w->later = qmp_later(call);
	return true;
}

/* chardev-add and chardev-change take the same. */
static json_t *open_backend(struct qmp_call *call, struct chardev *(*open)(struct opts *o, struct err *e),
			    struct err *e)
{
	const json_t *b = json_object_get(call->args, "backend"), *data = json_object_get(b, "data");
	const char *type = json_string_value(json_object_get(b, "type"));
	bool is_socket = !strcmp(type, "socket");
	const json_t *server = json_object_get(data, "server"), *wait = json_object_get(data, "wait");
	struct opts o = {0};
	struct chardev *c;

	if (is_socket && json_is_true(wait)) {
		err_set(e, EINVAL, "'wait' would hold up the guest: it is for the command line");
		return NULL;
	}
	opts_set(&o, "backend", type);
	add_data(&o, data);
	opts_set(&o, "id", qmp_arg_str(call, "id"));
	if (is_socket && !json_is_false(server)) { /* QMP's default is to listen */
		opts_set(&o, "server", "on");
		opts_set(&o, "wait", "off");
	}
	c = open(&o, e);
	opts_free(&o);
	if (!c || answer_when_connected(call, c, open == chardev_open))
		return NULL;
	if (!strcmp(type, "pty") && !strncmp(chardev_filename(c), "pty:", 4))
		return json_pack("{s:o}", "pty", qmp_text(chardev_filename(c) + 4));
	return json_object();
}

static json_t *chardev_add(struct qmp_call *call, struct err *e)
{
	return open_backend(call, chardev_open, e);
}

static json_t *chardev_change_command(struct qmp_call *call, struct err *e)
{
	return open_backend(call, chardev_change, e);
}

static json_t *chardev_remove_command(struct qmp_call *call, struct err *e)
{
	return chardev_remove(qmp_arg_str(call, "id"), e) ? NULL : json_object();
}

static json_t *query_chardev_backends(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();
	const char *name;

	for (size_t i = 0; (name = chardev_backend_at(i, NULL, NULL)); i++)
		json_array_append_new(list, json_pack("{s:s}", "name", name));
	return list;
}

static json_t *chardev_send_break_command(struct qmp_call *call, struct err *e)
{
	struct chardev *c = chardev_find(qmp_arg_str(call, "id"));

	if (!c) {
		err_set(e, ENOENT, "Chardev '%.200s' not found", qmp_arg_str(call, "id"));
		return NULL;
	}
	chardev_inject_break(c);
	return json_object();
}

/* ---- ring buffers ---- */

#define RING_READ_MAX (1024 * 1024) /* in one reply */

static struct chardev *find_ring(struct qmp_call *call, struct err *e)
{
	const char *id = qmp_arg_str(call, "device");
	struct chardev *c = chardev_find(id);

	if (!c)
		err_set(e, ENOENT, "Device '%.200s' not found", id);
	else if (strcmp(chardev_backend_name(c), "ringbuf"))
		err_set(e, EINVAL, "%s is not a ringbuf device", id);
	return e->code ? NULL : c;
}

static bool is_base64(struct qmp_call *call)
{
	const char *format = qmp_arg_str(call, "format");

	return format && !strcmp(format, "base64");
}

static json_t *ringbuf_read(struct qmp_call *call, struct err *e)
{
	struct chardev *c = find_ring(call, e);
	int64_t size = qmp_arg_int(call, "size", 0);
	json_t *v;
	char *buf, *text;
	ssize_t n;

	if (!c)
		return NULL;
	if (size <= 0) {
		err_set(e, EINVAL, "size must be greater than zero");
		return NULL;
	}
	size = MIN(size, (int64_t)RING_READ_MAX);
	buf = xzalloc((size_t)size);
	n = chardev_ring_read(c, buf, (size_t)size);
	if (is_base64(call)) {
		text = base64_encode(buf, (size_t)n);
		v = json_string(text);
		free(text);
	} else {
		v = qmp_text_n(buf, (size_t)n);
	}
	free(buf);
	return v;
}

static json_t *ringbuf_write(struct qmp_call *call, struct err *e)
{
	struct chardev *c = find_ring(call, e);
	json_t *data = json_object_get(call->args, "data");
	ssize_t len = (ssize_t)json_string_length(data);
	char *text;

	if (!c)
		return NULL;
	text = xmemdup(json_string_value(data), (size_t)len + 1);
	if (is_base64(call))
		len = base64_decode(text);
	if (len < 0)
		err_set(e, EINVAL, "Base64 data '%.200s' is not valid", text);
	else
		chardev_ring_write(c, text, (size_t)len);
	free(text);
	return e->code ? NULL : json_object();
}

const struct qmp_command qmp_chardev_commands[] = {
	{"query-chardev", "Character devices and where they go.", "0.1", NULL, &QMP_LIST_OF(chardev_info), 0, 0,
	 query_chardev},
	{"query-chardev-backends", "Kinds of character devices.", "0.1", NULL, &QMP_LIST_OF(backend_info), 0, 0,
	 query_chardev_backends},
	{"chardev-add", "Add a character device; a socket listens unless server is false.", "0.2",
	 QMP_MEMBERS(QMP_REQ("id", qmp_str), QMP_REQ("backend", backend)), &chardev_return, 0, 0, chardev_add},
	{"chardev-change", "Put another back end under the front end that uses this character device.", "0.2",
	 QMP_MEMBERS(QMP_REQ("id", qmp_str), QMP_REQ("backend", backend)), &chardev_return, 0, 0,
	 chardev_change_command},
	{"chardev-remove", "Remove a character device that nothing uses.", "0.2", QMP_MEMBERS(QMP_REQ("id", qmp_str)),
	 NULL, 0, 0, chardev_remove_command},
	{"chardev-send-break", "Send a break to the guest's serial port.", "0.1", QMP_MEMBERS(QMP_REQ("id", qmp_str)),
	 NULL, 0, 0, chardev_send_break_command},
	{"ringbuf-read", "Take bytes out of a ring buffer, at most 1 MiB at once.", "0.1",
	 QMP_MEMBERS(QMP_REQ("device", qmp_str), QMP_REQ("size", qmp_int), QMP_OPT("format", data_format)), &qmp_str, 0,
	 0, ringbuf_read},
	{"ringbuf-write", "Put bytes into a ring buffer.", "0.1",
	 QMP_MEMBERS(QMP_REQ("device", qmp_str), QMP_REQ("data", qmp_str), QMP_OPT("format", data_format)), NULL, 0, 0,
	 ringbuf_write},
	{NULL},
};
