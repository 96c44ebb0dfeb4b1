/* From a request to a response: the envelope, negotiation, the command's row. QEMU's texts, because clients match them.
 */
#include "qmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/names.h"

const char *qmp_error_class_name(enum err_class c)
{
	static const char *const names[] = {
		[ERR_GENERIC] = "GenericError",
		[ERR_COMMAND_NOT_FOUND] = "CommandNotFound",
		[ERR_DEVICE_NOT_ACTIVE] = "DeviceNotActive",
		[ERR_DEVICE_NOT_FOUND] = "DeviceNotFound",
		[ERR_KVM_MISSING_CAP] = "KVMMissingCap",
	};

	return names[c];
}

json_t *qmp_error_response(json_t *id, const struct err *e)
{
	json_t *r =
		json_pack("{s:{s:s, s:o}}", "error", "class", qmp_error_class_name(e->class), "desc", qmp_text(e->msg));

	if (id)
		json_object_set(r, "id", id);
	return r;
}

const struct qmp_command *qmp_command_at(size_t i)
{
	for (const struct qmp_command *const *t = qmp_command_tables; *t; t++)
		for (const struct qmp_command *c = *t; c->name; c++)
			if (!i--)
				return c;
	return NULL;
}

const struct qmp_command *qmp_command_find(const char *name)
{
	for (const struct qmp_command *const *t = qmp_command_tables; *t; t++)
		for (const struct qmp_command *c = *t; c->name; c++)
			if (!strcmp(c->name, name))
				return c;
	return NULL;
}

/* ---- text ---- */

/* Length of the UTF-8 sequence at p (RFC 3629, no overlong forms, no surrogates), 0 if there is none. */
static size_t utf8_length(const unsigned char *p, size_t left)
{
	size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : 4;

	if ((p[0] >= 0x80 && p[0] < 0xc2) || p[0] > 0xf4 || n > left)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
	    (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

json_t *qmp_text_n(const char *text, size_t len)
{
	json_t *v = json_stringn(text, len);
	char *clean, *to;

	if (v)
		return v;
	clean = to = xzalloc(len * 3 + 1);
	for (size_t i = 0; i < len;) {
		size_t n = utf8_length((const unsigned char *)text + i, len - i);

		if (n) {
			memcpy(to, text + i, n);
			to += n;
			i += n;
		} else {
			memcpy(to, "\xef\xbf\xbd", 3);
			to += 3;
			i++;
		}
	}
	v = json_stringn(clean, to - clean);
	free(clean);
	return v;
}

json_t *qmp_text(const char *text)
{
	return text ? qmp_text_n(text, strlen(text)) : json_null();
}

/* ---- arguments ---- */

const char *qmp_arg_str(const struct qmp_call *call, const char *name)
{
	return json_string_value(json_object_get(call->args, name));
}

bool qmp_arg_bool(const struct qmp_call *call, const char *name, bool absent)
{
	json_t *v = json_object_get(call->args, name);

	return v ? json_is_true(v) : absent;
}

int64_t qmp_arg_int(const struct qmp_call *call, const char *name, int64_t absent)
{
	json_t *v = json_object_get(call->args, name);

	return v ? json_integer_value(v) : absent;
}

bool qmp_has_arg(const struct qmp_call *call, const char *name)
{
	return json_object_get(call->args, name) != NULL;
}

/* ---- the envelope ---- */

struct request {
	const char *name;
	json_t *args, *id;
	bool oob;
};

static int check_envelope_member(struct request *r, const char *key, json_t *value, struct err *e)
{
	if (!strcmp(key, "id"))
		return 0;
	if (!strcmp(key, "execute") || !strcmp(key, "exec-oob")) {
		if (!json_is_string(value))
			return err_set(e, EINVAL, "QMP input member '%s' must be a string", key);
		if (r->name)
			return err_set(e, EINVAL, "QMP input member 'execute' clashes with 'exec-oob'");
		r->name = json_string_value(value);
		r->oob = key[4] == '-';
		return 0;
	}
	if (!strcmp(key, "arguments")) {
		if (!json_is_object(value))
			return err_set(e, EINVAL, "QMP input member 'arguments' must be an object");
		r->args = value;
		return 0;
	}
	return err_set(e, EINVAL, "QMP input member '%.200s' is unexpected", key);
}

static int parse_request(json_t *json, struct request *r, struct err *e)
{
	const char *key;
	json_t *value;

	if (!json_is_object(json))
		return err_set(e, EINVAL, "QMP input must be a JSON object");
	r->id = json_object_get(json, "id");
	json_object_foreach(json, key, value)
	{
		int ret = check_envelope_member(r, key, value, e);

		if (ret)
			return ret;
	}
	return r->name ? 0 : err_set(e, EINVAL, "QMP input lacks member 'execute'");
}

/* The guest's state may have changed while a name was looked up: asked again then. */
static int check_state(const struct qmp_command *c, struct board *board, struct err *e)
{
	if (c->states && board && !(c->states & QMP_STATE(machine_run_state(board))))
		return err_set(e, EPERM, "The command %s is not allowed while the guest is '%s'", c->name,
			       run_state_name(machine_run_state(board)));
	return 0;
}

static int check_allowed(const struct qmp_command *c, const struct request *r, struct board *board,
			 const struct qmp_client *client, struct err *e)
{
	if (!client->negotiated && !(c && (c->flags & QMP_NEGOTIATION)))
		return err_set_class(e, ERR_COMMAND_NOT_FOUND, ENOENT,
				     "Expecting capabilities negotiation with 'qmp_capabilities'");
	if (!c)
		return err_set_class(e, ERR_COMMAND_NOT_FOUND, ENOENT, "The command %.200s has not been found",
				     r->name);
	if (client->negotiated && (c->flags & QMP_NEGOTIATION))
		return err_set_class(e, ERR_COMMAND_NOT_FOUND, ENOENT,
				     "Capabilities negotiation is already complete, command ignored");
	if (r->oob && !client->oob)
		return err_set(e, EINVAL, "QMP input member 'exec-oob' is unexpected");
	if (r->oob && !(c->flags & QMP_OOB))
		return err_set(e, EINVAL, "The command %s does not support OOB", r->name);
	return check_state(c, board, e);
}

/* What the row lists must fit; whether anything else may be there is the row's word, too. */
static int check_args(const struct qmp_command *c, json_t *args, struct err *e)
{
	static const struct qmp_member no_args[] = {{.name = NULL}};
	const struct qmp_member *members = c->args ? c->args : no_args;
	json_t *listed;
	int r;

	if (!(c->flags & QMP_OPEN_ARGS))
		return qmp_check_members(members, args, "", e);
	listed = json_object();
	for (const struct qmp_member *m = members; m->name; m++)
		if (json_object_get(args, m->name))
			json_object_set(listed, m->name, json_object_get(args, m->name));
	r = qmp_check_members(members, listed, "", e);
	json_decref(listed);
	return r;
}

/* Takes result. */
static json_t *response_to(json_t *id, json_t *result, const struct err *e)
{
	json_t *response;

	if (!result)
		return qmp_error_response(id, e);
	response = json_pack("{s:o}", "return", result);
	if (id)
		json_object_set(response, "id", id);
	return response;
}

/* ---- answers that come later, and commands from inside ---- */

struct qmp_later {
	struct qmp_session *session; /* NULL: gone, or there never was one */
	json_t *id;
	void (*done)(void *opaque, json_t *result, const struct err *e);
	void *opaque;
};

struct qmp_later *qmp_later(struct qmp_call *call)
{
	struct qmp_later *l = call->resumed;

	if (!l) {
		l = xzalloc(sizeof(*l));
		*l = (struct qmp_later){.session = call->session,
					.id = json_incref(call->id),
					.done = call->done,
					.opaque = call->opaque};
		if (l->session)
			qmp_session_wait(l->session, l);
	}
	call->later = l;
	return l;
}

void qmp_later_forget(struct qmp_later *l)
{
	l->session = NULL;
}

void qmp_later_finish(struct qmp_later *l, json_t *result, const struct err *e)
{
	if (l->done)
		l->done(l->opaque, result, e);
	if (l->session) {
		json_t *response = response_to(l->id, json_incref(result), e);

		qmp_session_answer(l->session, response);
		json_decref(response);
	}
	json_decref(result);
	json_decref(l->id);
	free(l);
}

/* A command, from its first run to its last. */
struct attempt {
	struct qmp_call call;
	struct names names;
};

static void attempt_end(struct attempt *a)
{
	names_forget(&a->names);
	if (a->call.resumed)
		json_decref(a->call.args);
	free(a);
}

/* The result; NULL: e says why, or nothing: the answer comes later. The end of a, unless it is to run again. */
static json_t *run_attempt(struct attempt *a, struct err *e)
{
	struct qmp_call *call = &a->call;
	json_t *result;

	call->later = NULL;
	names_begin(&a->names);
	result = call->command->run(call, e);
	if (names_end(&a->names) && !result && e->code) {
		if (!call->resumed)
			json_incref(call->args);
		call->resumed = qmp_later(call);
		call->client = NULL;
		*e = ERR_INIT;
		return NULL;
	}
	if (!result && !e->code && !call->later)
		err_set(e, EIO, "The command %s failed", call->command->name);
	attempt_end(a);
	return result;
}

static void run_again(struct names *n, bool cancelled)
{
	struct attempt *a = container_of(n, struct attempt, names);
	struct qmp_later *l = a->call.resumed;
	struct err e = ERR_INIT;
	json_t *result = NULL;

	a->call.session = l->session;
	if (cancelled)
		err_set(&e, ECANCELED, "The command %s was given up: vmm ends", a->call.command->name);
	else
		check_state(a->call.command, a->call.board, &e);
	if (e.code)
		attempt_end(a);
	else
		result = run_attempt(a, &e);
	if (result || e.code)
		qmp_later_finish(l, result, &e);
}

static json_t *run_command(const struct qmp_call *call, struct err *e)
{
	struct attempt *a = xzalloc(sizeof(*a));

	*a = (struct attempt){.call = *call, .names.again = run_again};
	return run_attempt(a, e);
}

void qmp_run(struct board *board, const char *name, json_t *args,
	     void (*done)(void *opaque, json_t *result, const struct err *e), void *opaque)
{
	struct qmp_client client = {.negotiated = true};
	const struct qmp_command *c = qmp_command_find(name);
	struct request r = {.name = name};
	struct qmp_call call = {
		.command = c, .board = board, .client = &client, .args = args, .done = done, .opaque = opaque};
	struct err e = ERR_INIT;
	json_t *result = NULL;

	if (!check_allowed(c, &r, board, &client, &e) && !check_args(c, args, &e))
		result = run_command(&call, &e);
	if (result || e.code)
		done(opaque, result, &e);
	json_decref(result);
}

json_t *qmp_dispatch(struct board *board, struct qmp_session *session, struct qmp_client *client, json_t *json)
{
	struct request r = {0};
	struct err e = ERR_INIT;
	const struct qmp_command *c;
	json_t *result = NULL, *empty = json_object();

	if (!parse_request(json, &r, &e)) {
		c = qmp_command_find(r.name);
		r.args = r.args ? r.args : empty;
		if (!check_allowed(c, &r, board, client, &e) && !check_args(c, r.args, &e)) {
			struct qmp_call call = {.command = c,
						.board = board,
						.session = session,
						.client = client,
						.args = r.args,
						.id = r.id};

			result = run_command(&call, &e);
		}
	}
	json_decref(empty);
	return result || e.code ? response_to(r.id, result, &e) : NULL;
}
