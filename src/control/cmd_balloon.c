/* QMP: the memory balloon. */
#include "commands.h"
#include "types.h"
#include "vmm/balloon.h"

#include <errno.h>

static const struct qmp_type balloon_info = QMP_OBJECT("BalloonInfo", QMP_REQ("actual", qmp_int));

static json_t *balloon(struct qmp_call *call, struct err *e)
{
	int64_t value = qmp_arg_int(call, "value", 0);

	return machine_balloon_set(call->board, value > 0 ? (uint64_t)value : 0, e) ? NULL : json_object();
}

static json_t *query_balloon(struct qmp_call *call, struct err *e)
{
	uint64_t bytes;

	if (machine_balloon_get(call->board, &bytes, e))
		return NULL;
	return json_pack("{s:I}", "actual", (json_int_t)bytes);
}

const struct qmp_command qmp_balloon_commands[] = {
	{"balloon", "Ask the guest to make do with so many bytes of RAM.", "0.2",
	 QMP_MEMBERS(QMP_REQ("value", qmp_int)), NULL, 0, 0, balloon},
	{"query-balloon", "The RAM the guest has at present, in bytes.", "0.2", NULL, &balloon_info, 0, 0,
	 query_balloon},
	{NULL},
};
