/*
 * QMP: the whole of what a client can send, on a machine without a CPU. Every response must be valid JSON that says
 * return or error, and every return value must match the command's row. The input is cut into pieces by its first byte.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "fuzz_board.h"
#include "src/control/json_stream.h"
#include "src/control/qmp.h"
#include "vmm/chardev.h"

static struct config config;
static struct board *board;
static struct qmp_client client;

static void start(void)
{
	static char *argv[] = {"vmm",         "-accel",       "qtest", "-m",      "2",
			       "-nodefaults", "-display",     "none",  "-serial", "null",
			       "-chardev",    "ringbuf,id=r", "-vga",  "std",     NULL};

	log_set_level(LOG_ERROR);
	board = fuzz_board(&config, ARRAY_SIZE(argv) - 1, argv);
}

/* Commands that touch files named by the input, or end the process. */
static bool forbidden(const char *name)
{
	/* What writes files, opens sockets or takes as long as it likes. */
	static const char *const names[] = {"quit",
					    "screendump",
					    "blockdev-change-medium",
					    "blockdev-add",
					    "block_resize",
					    "blockdev-create",
					    "memsave",
					    "pmemsave",
					    "dump-guest-memory",
					    "x-gdbserver",
					    "migrate",
					    "migrate-incoming",
					    "migrate-recover",
					    "chardev-add",
					    "chardev-change"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

/* Objects that are files, or all of the host's memory. */
static bool forbidden_object(const char *name, const json_t *arguments)
{
	static const char *const members[] = {"file", "filename", "mem-path", "prealloc"};

	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		if (!strcmp(name, "object-add") && json_object_get(arguments, members[i]))
			return true;
	return false;
}

/* Of the commands for people: those that only look. */
static bool forbidden_line(const char *name, const json_t *arguments)
{
	static const char *const fine[] = {"info ", "p ", "print", "xp", "x ", "x/", "help", "cpu", "qom-"};
	const char *line = json_string_value(json_object_get(arguments, "command-line"));

	if (strcmp(name, "human-monitor-command") || !line)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(fine); i++)
		if (!strncmp(line, fine[i], strlen(fine[i])))
			return false;
	return true;
}

static void check_response(const char *name, const json_t *response)
{
	const struct qmp_command *c = name ? qmp_command_find(name) : NULL;
	json_t *value = json_object_get(response, "return");
	char *text = json_dumps(response, JSON_ENSURE_ASCII);
	struct err e = ERR_INIT;

	if (!text || !value == !json_object_get(response, "error"))
		abort();
	free(text);
	if (value && (!c || (c->result ? qmp_check(c->result, value, name, &e) != 0 : json_object_size(value) > 0))) {
		fprintf(stderr, "%s: result does not match: %s\n", name, e.msg);
		abort();
	}
}

static void on_value(void *opaque, json_t *v)
{
	const char *name = json_string_value(json_object_get(v, "execute"));
	json_t *response;

	if (!name)
		name = json_string_value(json_object_get(v, "exec-oob"));
	if (name && (forbidden(name) || forbidden_line(name, json_object_get(v, "arguments")) ||
		     forbidden_object(name, json_object_get(v, "arguments"))))
		return;
	response = qmp_dispatch(board, NULL, &client, v);
	if (response) /* else it comes later */
		check_response(name, response);
	json_decref(response);
	for (int i = 0; i < 20 && loop_step(loop_main(), 0); i++)
		continue;
}

static void on_error(void *opaque, const char *text)
{
	if (!*text)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json_stream in;
	size_t piece;

	if (!board)
		start();
	if (!size)
		return 0;
	piece = (size_t)data[0] + 1;
	data++;
	size--;
	client = (struct qmp_client){.negotiated = true, .oob = true};
	json_stream_init(&in, on_value, on_error, NULL);
	for (size_t n; size; data += n, size -= n) {
		n = MIN(piece, size);
		json_stream_feed(&in, data, n);
	}
	json_stream_free(&in);
	return 0;
}
