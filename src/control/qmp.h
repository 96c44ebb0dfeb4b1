/*
 * QMP, the machine protocol: types, commands and events as data. One row says everything about a command; dispatch,
 * argument checks, query-commands, query-qmp-schema, the manual and the tests read the row.
 *
 * Names, arguments, results and error classes are QEMU's (docs/interop/qmp-spec, qapi/ *.json of QEMU 7.2); what is our
 * own starts with "x-". Everything here runs on the main thread.
 */
#ifndef VMM_CONTROL_QMP_H
#define VMM_CONTROL_QMP_H

#include <jansson.h>
#include <stdbool.h>
#include "vmm/err.h"
#include "vmm/machine.h"

/* ---- types ---- */

enum qmp_kind {
	QMP_KIND_STR,
	QMP_KIND_INT,
	QMP_KIND_SIZE, /* an int that is not negative */
	QMP_KIND_NUMBER,
	QMP_KIND_BOOL,
	QMP_KIND_NULL,
	QMP_KIND_ANY,
	QMP_KIND_ENUM,
	QMP_KIND_OBJECT,
	QMP_KIND_ARRAY,
	QMP_KIND_ALTERNATE
};

struct qmp_type;

struct qmp_member {
	const char *name; /* NULL ends a list */
	const struct qmp_type *type;
	bool optional;
};

struct qmp_variant {
	const char *value;                /* of the tag; NULL ends a list */
	const struct qmp_member *members; /* NULL: none besides the common ones */
};

struct qmp_type {
	const char *name; /* of enums and objects; unique */
	enum qmp_kind kind;
	const char *const *values;         /* ENUM, NULL-terminated */
	const char *(*value_at)(size_t i); /* ENUM that is a table elsewhere; NULL past the end */
	const struct qmp_member *members;  /* OBJECT */
	bool open;                         /* OBJECT: may have more members, which the command checks itself */
	const char *tag;                   /* OBJECT: the enum member that selects a variant */
	const struct qmp_variant *variants;
	const struct qmp_type *element;        /* ARRAY */
	const struct qmp_type *const *choices; /* ALTERNATE, NULL-terminated, told apart by JSON type */
};

extern const struct qmp_type qmp_str, qmp_int, qmp_size, qmp_number, qmp_bool, qmp_null, qmp_any;

#define QMP_REQ(n, t)                     \
	{                                 \
		.name = (n), .type = &(t) \
	}
#define QMP_OPT(n, t)                                       \
	{                                                   \
		.name = (n), .type = &(t), .optional = true \
	}
#define QMP_MEMBERS(...) ((const struct qmp_member[]){__VA_ARGS__, {.name = NULL}})
#define QMP_LIST_OF(t)   ((const struct qmp_type){.kind = QMP_KIND_ARRAY, .element = &(t)})
#define QMP_ENUM(n, ...)                                                            \
	{                                                                           \
		.name = (n), .kind = QMP_KIND_ENUM, .values = (const char *const[]) \
		{                                                                   \
			__VA_ARGS__, NULL                                           \
		}                                                                   \
	}
#define QMP_OBJECT(n, ...)                                                                \
	{                                                                                 \
		.name = (n), .kind = QMP_KIND_OBJECT, .members = QMP_MEMBERS(__VA_ARGS__) \
	}

/* Check a value against a type and, for objects, refuse members it does not have. path: for messages, "" at the top. */
int qmp_check(const struct qmp_type *t, const json_t *value, const char *path, struct err *e);
int qmp_check_members(const struct qmp_member *members, const json_t *object, const char *path, struct err *e);

/* ---- commands ---- */

struct chardev;
struct qmp_later;
struct qmp_session;

/* What a client agreed to in qmp_capabilities. */
struct qmp_client {
	bool negotiated;
	bool oob;
};

struct qmp_call {
	const struct qmp_command *command;
	struct board *board;         /* NULL only in tests */
	struct qmp_session *session; /* NULL in tests */
	struct qmp_client *client;   /* NULL when it runs again */
	json_t *args;                /* object, checked against command->args */
	/* private to dispatch.c */
	json_t *id;
	struct qmp_later *later;   /* from qmp_later(), while it runs */
	struct qmp_later *resumed; /* the answer is late already: it waited for a host's name */
	void (*done)(void *opaque, json_t *result, const struct err *e);
	void *opaque;
};

/*
 * An answer that comes later: run() calls qmp_later(), starts the work (work.h) and returns NULL without an error.
 * Meanwhile the session's other commands wait, out-of-band ones and other clients' do not. One that meets a host's name
 * (names.h) fails, and is run again when the name server has answered; the client knows nothing of that.
 */
struct qmp_later *qmp_later(struct qmp_call *call);
void qmp_later_finish(struct qmp_later *l, json_t *result, const struct err *e); /* takes result; NULL: e says why */

#define QMP_STATE(s) (1u << (s))

enum qmp_command_flags {
	QMP_OOB = 1,         /* may be executed out of band: does not wait for anything */
	QMP_NEGOTIATION = 2, /* qmp_capabilities */
	QMP_OPEN_ARGS = 4,   /* takes more arguments than its row lists: a device's properties */
};

struct qmp_command {
	const char *name, *help, *since; /* since: our version */
	const struct qmp_member *args;   /* NULL: none */
	const struct qmp_type *result;   /* NULL: an empty object */
	uint32_t states;                 /* QMP_STATE() bits in which it is allowed; 0: all */
	unsigned flags;
	json_t *(*run)(struct qmp_call *call, struct err *e); /* new reference; NULL: e says why */
	const char *const
		*features; /* query-qmp-schema's, NULL-terminated, for clients that look for them; NULL: none */
};

/* One table per command file, listed in commands.c; {0} ends it. */
extern const struct qmp_command *const qmp_command_tables[];
const struct qmp_command *qmp_command_find(const char *name);
/* In the order of the tables; NULL past the end. */
const struct qmp_command *qmp_command_at(size_t i);

/* What a client sent -> what it gets (new reference): greeting and sessions aside, all of QMP. session may be NULL.
   NULL: the answer comes later, through qmp_session_answer(). */
json_t *qmp_dispatch(struct board *board, struct qmp_session *session, struct qmp_client *client, json_t *request);
json_t *qmp_error_response(json_t *id, const struct err *e);
const char *qmp_error_class_name(enum err_class c);

/* A JSON string of text that may not be UTF-8 (file names, guest output): what is not becomes U+FFFD. NULL: null. */
json_t *qmp_text(const char *text);
json_t *qmp_text_n(const char *text, size_t len);

/* Run a command from inside; done gets the result (borrowed; NULL: e says why), now or later. */
void qmp_run(struct board *board, const char *name, json_t *args,
	     void (*done)(void *opaque, json_t *result, const struct err *e), void *opaque);

/* Arguments, already checked. */
const char *qmp_arg_str(const struct qmp_call *call, const char *name); /* NULL: absent */
bool qmp_arg_bool(const struct qmp_call *call, const char *name, bool absent);
int64_t qmp_arg_int(const struct qmp_call *call, const char *name, int64_t absent);
bool qmp_has_arg(const struct qmp_call *call, const char *name);

/* ---- events ---- */

struct qmp_event {
	const char *name, *help;
	const struct qmp_member *data; /* NULL: none */
	uint32_t rate_ms;              /* at most one in this time; the last one of a burst is sent at its end */
	const char *key;               /* rate limit per value of this member; NULL: for all together */
};
const struct qmp_event *qmp_event_at(size_t i); /* NULL past the end */
const struct qmp_event *qmp_event_find(const char *name);

/* ---- introspection ---- */
json_t *qmp_schema(void);  /* query-qmp-schema's result, new reference */
json_t *qmp_version(void); /* query-version's result */

/* ---- sessions (monitor.c) ---- */

/* One QMP monitor on a claimed chardev; a listening socket serves QMP_MAX_CLIENTS at once. board may be NULL. */
#define QMP_MAX_CLIENTS 64
int qmp_monitor_add(struct board *board, struct chardev *c, bool pretty, struct err *e);
/* Flush what clients take without blocking (at most wait_ms) and close all. */
void qmp_monitors_close(unsigned wait_ms);
/* To every client that finished negotiation. data: borrowed, may be NULL. */
void qmp_emit(const char *name, const json_t *data);
/* The answer to the command that the session waits for (l); borrowed. The session waits from qmp_session_wait() on. */
void qmp_session_wait(struct qmp_session *s, struct qmp_later *l);
void qmp_session_answer(struct qmp_session *s, json_t *response);
void qmp_later_forget(struct qmp_later *l); /* the session has gone */
/* An fd the client passed with the current message, the caller's now; -1: none. */
int qmp_session_take_fd(struct qmp_session *s);

#endif
