/* QMP: screen, keyboard, mouse, VNC. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "commands.h"
#include "types.h"
#include "work.h"
#include "vmm/config.h"
#include "vmm/display.h"
#include "vmm/fdset.h"
#include "vmm/input.h"

/* ---- keys ---- */

#define KEYCODE_MAX 512

static const char *keycode_at(size_t i)
{
	return i + 1 < KEYCODE_MAX ? keycode_name((keycode_t)(i + 1)) : NULL;
}

const struct qmp_type qmp_keycode = {.name = "QKeyCode", .kind = QMP_KIND_ENUM, .value_at = keycode_at};
static const struct qmp_type key_kind = QMP_ENUM("KeyValueKind", "number", "qcode");
static const struct qmp_type key_value = {
	.name = "KeyValue",
	.kind = QMP_KIND_OBJECT,
	.members = QMP_MEMBERS(QMP_REQ("type", key_kind)),
	.tag = "type",
	.variants =
		(const struct qmp_variant[]){
			{"number", QMP_MEMBERS(QMP_REQ("data", qmp_int))},
			{"qcode", QMP_MEMBERS(QMP_REQ("data", qmp_keycode))},
			{NULL, NULL},
		},
};

static keycode_t key_of(const json_t *value)
{
	const json_t *data = json_object_get(value, "data");

	if (json_is_string(data))
		return keycode_from_name(json_string_value(data));
	return keycode_from_set1((uint16_t)json_integer_value(data));
}

#define MAX_KEYS 16

static json_t *send_key(struct qmp_call *call, struct err *e)
{
	json_t *list = json_object_get(call->args, "keys"), *v;
	int64_t hold = qmp_arg_int(call, "hold-time", 0);
	keycode_t keys[MAX_KEYS];
	size_t i;

	if (json_array_size(list) > MAX_KEYS)
		err_set(e, EINVAL, "Too many keys at once (at most %d)", MAX_KEYS);
	else if (hold < 0 || hold > 60000)
		err_set(e, EINVAL, "Parameter 'hold-time' expects 0 to 60000 milliseconds");
	if (e->code)
		return NULL;
	json_array_foreach(list, i, v)
	{
		keys[i] = key_of(v);
		if (!keys[i]) {
			err_set(e, EINVAL, "Parameter 'keys[%zu]' is not a key this keyboard has", i);
			return NULL;
		}
	}
	return input_send_keys(keys, json_array_size(list), (unsigned)hold, e) ? NULL : json_object();
}

/* ---- input-send-event ---- */

static const struct qmp_type button_type =
	QMP_ENUM("InputButton", "left", "middle", "right", "wheel-up", "wheel-down", "side", "extra");
static const struct qmp_type axis_type = QMP_ENUM("InputAxis", "x", "y");
static const struct qmp_type key_event =
	QMP_OBJECT("InputKeyEvent", QMP_REQ("key", key_value), QMP_REQ("down", qmp_bool));
static const struct qmp_type btn_event =
	QMP_OBJECT("InputBtnEvent", QMP_REQ("button", button_type), QMP_REQ("down", qmp_bool));
static const struct qmp_type move_event =
	QMP_OBJECT("InputMoveEvent", QMP_REQ("axis", axis_type), QMP_REQ("value", qmp_int));
static const struct qmp_type event_kind = QMP_ENUM("InputEventKind", "key", "btn", "rel", "abs");
static const struct qmp_type input_event = {
	.name = "InputEvent",
	.kind = QMP_KIND_OBJECT,
	.members = QMP_MEMBERS(QMP_REQ("type", event_kind)),
	.tag = "type",
	.variants =
		(const struct qmp_variant[]){
			{"key", QMP_MEMBERS(QMP_REQ("data", key_event))},
			{"btn", QMP_MEMBERS(QMP_REQ("data", btn_event))},
			{"rel", QMP_MEMBERS(QMP_REQ("data", move_event))},
			{"abs", QMP_MEMBERS(QMP_REQ("data", move_event))},
			{NULL, NULL},
		},
};

/* What one command's events add up to: moves and buttons take effect together, as one report of the mouse. */
struct pointer {
	int dx, dy, dz;
	int64_t x, y;
	bool rel, abs, button;
};
static unsigned buttons_held;
static uint16_t abs_x, abs_y;

static void flush_pointer(struct pointer *p)
{
	if (p->abs)
		input_abs(abs_x, abs_y, p->dz, buttons_held);
	else if (p->rel || p->button)
		input_rel(p->dx, p->dy, p->dz, buttons_held);
	*p = (struct pointer){0};
}

static void button(struct pointer *p, const json_t *data)
{
	static const struct {
		const char *name;
		unsigned bit;
		int dz;
	} map[] = {
		{"left", BUTTON_LEFT, 0}, {"middle", BUTTON_MIDDLE, 0}, {"right", BUTTON_RIGHT, 0}, {"wheel-up", 0, -1},
		{"wheel-down", 0, 1},     {"side", BUTTON_SIDE, 0},     {"extra", BUTTON_EXTRA, 0},
	};
	const char *name = json_string_value(json_object_get(data, "button"));
	bool down = json_is_true(json_object_get(data, "down"));

	for (size_t i = 0; i < ARRAY_SIZE(map); i++) {
		if (strcmp(map[i].name, name))
			continue;
		buttons_held = down ? buttons_held | map[i].bit : buttons_held & ~map[i].bit;
		p->dz += down ? map[i].dz : 0;
	}
	p->button = true;
}

static void move(struct pointer *p, const char *type, const json_t *data)
{
	int64_t value = json_integer_value(json_object_get(data, "value"));
	bool x = json_string_value(json_object_get(data, "axis"))[0] == 'x';

	if (!strcmp(type, "abs")) {
		*(x ? &abs_x : &abs_y) = (uint16_t)MAX(MIN(value, (int64_t)0x7fff), (int64_t)0);
		p->abs = true;
	} else {
		*(x ? &p->dx : &p->dy) += (int)MAX(MIN(value, (int64_t)32767), (int64_t)-32768);
		p->rel = true;
	}
}

/* device= and head= name a screen; there is one, of the graphics adapter. */
static bool is_the_screen(struct qmp_call *call, struct err *e)
{
	const char *name = qmp_arg_str(call, "device");
	const struct device *dev = name ? device_find(call->board, name) : NULL;

	if (name && !dev)
		err_set_class(e, ERR_DEVICE_NOT_FOUND, ENODEV, "Device '%.200s' not found", name);
	else if (dev && strcmp(dev->class->category, "Display"))
		err_set(e, EINVAL, "Device '%s' is not a display", name);
	else if (qmp_arg_int(call, "head", 0))
		err_set(e, EINVAL, "There is no head %lld: the adapter has one screen, head 0",
			(long long)qmp_arg_int(call, "head", 0));
	return !e->code;
}

static json_t *input_send_event(struct qmp_call *call, struct err *e)
{
	json_t *list = json_object_get(call->args, "events"), *v;
	struct pointer p = {0};
	size_t i;

	if (!is_the_screen(call, e))
		return NULL;
	json_array_foreach(list, i, v)
	{
		const char *type = json_string_value(json_object_get(v, "type"));
		const json_t *data = json_object_get(v, "data");

		if (!strcmp(type, "btn")) {
			button(&p, data);
		} else if (strcmp(type, "key")) {
			move(&p, type, data);
		} else {
			keycode_t key = key_of(json_object_get(data, "key"));

			flush_pointer(&p); /* keep the order */
			if (key)
				input_key(key, json_is_true(json_object_get(data, "down")));
		}
	}
	flush_pointer(&p);
	return json_object();
}

static const struct qmp_type mouse_info = QMP_OBJECT("MouseInfo", QMP_REQ("name", qmp_str), QMP_REQ("index", qmp_int),
						     QMP_REQ("current", qmp_bool), QMP_REQ("absolute", qmp_bool));

static json_t *query_mice(struct qmp_call *call, struct err *e)
{
	const struct input_handler *h = NULL;
	json_t *list = json_array();
	int index = 0;

	while ((h = input_next(h))) {
		if (!h->rel && !h->abs)
			continue;
		json_array_append_new(list, json_pack("{s:s, s:i, s:b, s:b}", "name", h->name, "index", index,
						      "current", index == 0, "absolute", h->abs != NULL));
		index++;
	}
	return list;
}

/* ---- screen ---- */

static const struct qmp_type image_format = QMP_ENUM("ImageFormat", "ppm", "png");
static const struct qmp_type screen_text = QMP_OBJECT("XScreenText", QMP_REQ("text", qmp_str));
static const struct qmp_type display_type = QMP_ENUM("DisplayType", "none", "curses", "vnc", "default");
static const struct qmp_type display_options = QMP_OBJECT("DisplayOptions", QMP_REQ("type", display_type));

static struct console *need_console(struct err *e)
{
	struct console *c = console_first();

	if (!c)
		err_set(e, ENODEV, "There is no console to take a screendump from");
	return c;
}

/* Encoding and writing take their time: on a thread of their own, the answer comes when the file is complete. */
struct dump {
	struct work work;
	struct screenshot *shot;
	struct qmp_later *later;
	char *path;
	int fd;
	bool regular;
	struct err e;
	int ret;
};

static void write_screen(struct work *w)
{
	struct dump *d = container_of(w, struct dump, work);
	char *data = NULL;
	size_t len = 0;

	d->ret = screenshot_encode(d->shot, &data, &len, &d->e);
	if (!d->ret) {
		d->ret = work_write(w, d->fd, data, len);
		if (d->ret)
			err_errno(&d->e, -d->ret, "screendump '%s': cannot write", d->path);
	}
	free(data);
}

static void screen_written(struct work *w)
{
	struct dump *d = container_of(w, struct dump, work);

	close(d->fd);
	if (d->ret && d->regular)
		unlink(d->path); /* half a picture is worth nothing; a device or pipe is not ours to remove */
	if (d->later)
		qmp_later_finish(d->later, d->ret ? NULL : json_object(), &d->e);
	screenshot_free(d->shot);
	free(d->path);
	free(d);
}

static json_t *screendump(struct qmp_call *call, struct err *e)
{
	const char *path = qmp_arg_str(call, "filename"), *format = qmp_arg_str(call, "format");
	struct screenshot *shot;
	struct console *c;
	bool regular;
	struct dump *d;
	int fd;

	if (!is_the_screen(call, e))
		return NULL;
	c = need_console(e);
	machine_settle_writes(call->board);
	shot = c ? screenshot_take(c, format ? format : "ppm", e) : NULL;
	if (!shot)
		return NULL;
	fd = screenshot_create(path, &regular, e);
	if (fd < 0) {
		screenshot_free(shot);
		return NULL;
	}
	work_prepare_fd(fd);
	d = xzalloc(sizeof(*d));
	*d = (struct dump){.work = {.run = write_screen, .done = screen_written},
			   .shot = shot,
			   .path = xstrdup(path),
			   .fd = fd,
			   .regular = regular};
	if (work_start(&d->work, e)) {
		d->ret = -EBUSY;
		screen_written(&d->work);
		return NULL;
	}
	d->later = qmp_later(call);
	return NULL;
}

static json_t *x_screen_text(struct qmp_call *call, struct err *e)
{
	struct console *c = need_console(e);
	char *text = c ? console_text_utf8(c) : NULL;
	json_t *v;

	if (c && !text)
		err_set(e, EINVAL, "The screen is in a graphics mode: there is no text on it");
	if (!text)
		return NULL;
	v = json_pack("{s:o}", "text", qmp_text(text));
	free(text);
	return v;
}

static json_t *query_display_options(struct qmp_call *call, struct err *e)
{
	const char *kind = machine_config(call->board)->display;

	if (!kind)
		kind = machine_config(call->board)->vnc.first ? "vnc" : "none";
	return json_pack("{s:s}", "type",
			 !strcmp(kind, "curses")    ? "curses"
			 : !strncmp(kind, "vnc", 3) ? "vnc"
						    : "none");
}

/* ---- VNC ---- */

static const struct qmp_type family = QMP_ENUM("NetworkAddressFamily", "ipv4", "ipv6", "unix", "vsock", "unknown");
static const struct qmp_type client_info =
	QMP_OBJECT("VncClientInfo", QMP_REQ("host", qmp_str), QMP_REQ("service", qmp_str), QMP_REQ("family", family),
		   QMP_REQ("websocket", qmp_bool));
static const struct qmp_type vnc_info =
	QMP_OBJECT("VncInfo", QMP_REQ("enabled", qmp_bool), QMP_OPT("host", qmp_str), QMP_OPT("family", family),
		   QMP_OPT("service", qmp_str), QMP_OPT("auth", qmp_str), QMP_OPT("clients", QMP_LIST_OF(client_info)));
static const struct qmp_type vnc_auth = QMP_ENUM("VncPrimaryAuth", "none", "vnc");
static const struct qmp_type vnc_address =
	QMP_OBJECT("VncServerInfo2", QMP_REQ("host", qmp_str), QMP_REQ("service", qmp_str), QMP_REQ("family", family),
		   QMP_REQ("websocket", qmp_bool), QMP_REQ("auth", vnc_auth));
static const struct qmp_type vnc_server =
	QMP_OBJECT("VncInfo2", QMP_REQ("id", qmp_str), QMP_REQ("server", QMP_LIST_OF(vnc_address)),
		   QMP_REQ("clients", QMP_LIST_OF(client_info)), QMP_REQ("auth", vnc_auth));
static const struct qmp_type protocol = QMP_ENUM("DisplayProtocol", "vnc", "spice");
static const struct qmp_type password_action = QMP_ENUM("SetPasswordAction", "keep", "fail", "disconnect");

static json_t *query_vnc(struct qmp_call *call, struct err *e)
{
	char *text = vnc_query();
	json_t *v = text ? json_loads(text, 0, NULL) : NULL;

	free(text);
	return v ? v : json_pack("{s:b}", "enabled", 0);
}

/* The same in the shape of several servers. */
static json_t *query_vnc_servers(struct qmp_call *call, struct err *e)
{
	json_t *one = query_vnc(call, e), *auth = json_object_get(one, "auth"), *list = json_array(), *server;

	if (json_is_true(json_object_get(one, "enabled"))) {
		server = json_pack("{s:O?, s:O?, s:O?, s:b, s:O?}", "host", json_object_get(one, "host"), "service",
				   json_object_get(one, "service"), "family", json_object_get(one, "family"),
				   "websocket", 0, "auth", auth);
		json_array_append_new(list, json_pack("{s:s, s:[o], s:O?, s:O?}", "id", "default", "server", server,
						      "clients", json_object_get(one, "clients"), "auth", auth));
	}
	json_decref(one);
	return list;
}

static bool is_vnc(struct qmp_call *call, struct err *e)
{
	if (!strcmp(qmp_arg_str(call, "protocol"), "vnc"))
		return true;
	err_set_class(e, ERR_DEVICE_NOT_ACTIVE, ENODEV, "spice is not in use");
	return false;
}

static json_t *set_vnc_password(const char *password, struct err *e)
{
	return vnc_set_password(password, e) ? NULL : json_object();
}

static json_t *set_password(struct qmp_call *call, struct err *e)
{
	const char *connected = qmp_arg_str(call, "connected");

	if (!is_vnc(call, e))
		return NULL;
	if (connected && strcmp(connected, "keep")) {
		err_set(e, EINVAL, "parameter 'connected' must be 'keep' when 'protocol' is 'vnc'");
		return NULL;
	}
	return set_vnc_password(qmp_arg_str(call, "password"), e);
}

static json_t *add_client(struct qmp_call *call, struct err *e)
{
	int fd = fd_name_take(qmp_arg_str(call, "fdname"), e);

	if (fd < 0)
		return NULL;
	if (strcmp(qmp_arg_str(call, "protocol"), "vnc")) {
		close(fd);
		err_set(e, EINVAL, "protocol '%.100s' is invalid", qmp_arg_str(call, "protocol"));
		return NULL;
	}
	return vnc_add_client(fd, qmp_arg_bool(call, "skipauth", false), e) ? NULL : json_object();
}

static json_t *change_vnc_password(struct qmp_call *call, struct err *e)
{
	return set_vnc_password(qmp_arg_str(call, "password"), e);
}

static json_t *expire_password(struct qmp_call *call, struct err *e)
{
	if (!is_vnc(call, e) || vnc_expire_password(qmp_arg_str(call, "time"), e))
		return NULL;
	return json_object();
}

const struct qmp_command qmp_ui_commands[] = {
	{"send-key", "Press keys together, hold them, release them.", "0.1",
	 QMP_MEMBERS(QMP_REQ("keys", QMP_LIST_OF(key_value)), QMP_OPT("hold-time", qmp_int)), NULL, 0, 0, send_key},
	{"input-send-event", "Key, button and pointer events.", "0.1",
	 QMP_MEMBERS(QMP_OPT("device", qmp_str), QMP_OPT("head", qmp_int), QMP_REQ("events", QMP_LIST_OF(input_event))),
	 NULL, 0, 0, input_send_event},
	{"query-mice", "Pointing devices.", "0.1", NULL, &QMP_LIST_OF(mouse_info), 0, 0, query_mice},
	{"screendump", "Write the screen to an image file.", "0.1",
	 QMP_MEMBERS(QMP_REQ("filename", qmp_str), QMP_OPT("device", qmp_str), QMP_OPT("head", qmp_int),
		     QMP_OPT("format", image_format)),
	 NULL, 0, 0, screendump},
	{"x-screen-text", "The text screen as UTF-8 lines; an error in graphics modes.", "0.1", NULL, &screen_text, 0,
	 0, x_screen_text},
	{"query-display-options", "The display chosen with -display.", "0.1", NULL, &display_options, 0, 0,
	 query_display_options},
	{"query-vnc", "The VNC server and its clients.", "0.1", NULL, &vnc_info, 0, 0, query_vnc},
	{"query-vnc-servers", "The VNC server, in a list: there is one at most.", "0.2", NULL, &QMP_LIST_OF(vnc_server),
	 0, 0, query_vnc_servers},
	{"set_password", "Set the VNC password.", "0.1",
	 QMP_MEMBERS(QMP_REQ("protocol", protocol), QMP_REQ("password", qmp_str), QMP_OPT("connected", password_action),
		     QMP_OPT("display", qmp_str)),
	 NULL, 0, 0, set_password},
	{"expire_password", "When the VNC password stops to be valid.", "0.1",
	 QMP_MEMBERS(QMP_REQ("protocol", protocol), QMP_REQ("time", qmp_str), QMP_OPT("display", qmp_str)), NULL, 0, 0,
	 expire_password},
	{"add_client", "Serve a socket passed with getfd as a VNC client; skipauth: without a password.", "0.2",
	 QMP_MEMBERS(QMP_REQ("protocol", qmp_str), QMP_REQ("fdname", qmp_str), QMP_OPT("skipauth", qmp_bool),
		     QMP_OPT("tls", qmp_bool)),
	 NULL, 0, 0, add_client},
	{"change-vnc-password", "Set the VNC password.", "0.1", QMP_MEMBERS(QMP_REQ("password", qmp_str)), NULL, 0, 0,
	 change_vnc_password},
	{NULL},
};
