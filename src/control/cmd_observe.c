/* QMP: seeing inside a guest. */
#include <errno.h>
#include "commands.h"
#include "gdbstub.h"

static json_t *gdbserver(struct qmp_call *call, struct err *e)
{
	const char *device = qmp_arg_str(call, "device");

	return gdbstub_start(call->board, device ? device : "tcp::1234", e) ? NULL : json_object();
}

const struct qmp_command qmp_observe_commands[] = {
	{"x-gdbserver", "Serve gdb on a character device (default tcp::1234); none: end that.", "0.2",
	 QMP_MEMBERS(QMP_OPT("device", qmp_str)), NULL, 0, 0, gdbserver},
	{NULL},
};
