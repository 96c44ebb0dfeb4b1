/* QMP: character devices. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/base64.h"
#include "commands.h"
#include "vmm/chardev.h"

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
