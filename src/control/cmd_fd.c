/* QMP: file descriptors passed over the socket. */
#include <errno.h>
#include <unistd.h>
#include "commands.h"
#include "vmm/fdset.h"

static const struct qmp_type fd_info = QMP_OBJECT("FdsetFdInfo", QMP_REQ("fd", qmp_int), QMP_OPT("opaque", qmp_str));
static const struct qmp_type fdset_info =
	QMP_OBJECT("FdsetInfo", QMP_REQ("fdset-id", qmp_int), QMP_REQ("fds", QMP_LIST_OF(fd_info)));
static const struct qmp_type added_fd = QMP_OBJECT("AddfdInfo", QMP_REQ("fdset-id", qmp_int), QMP_REQ("fd", qmp_int));

static int take_fd(struct qmp_call *call, struct err *e)
{
	int fd = qmp_session_take_fd(call->session);

	return fd < 0 ? err_set(e, EBADF, "No file descriptor supplied via SCM_RIGHTS") : fd;
}

static json_t *getfd(struct qmp_call *call, struct err *e)
{
	int fd = take_fd(call, e);

	if (fd < 0)
		return NULL;
	if (fd_name_set(qmp_arg_str(call, "fdname"), fd, e)) {
		close(fd);
		return NULL;
	}
	return json_object();
}

static json_t *closefd(struct qmp_call *call, struct err *e)
{
	return fd_name_close(qmp_arg_str(call, "fdname"), e) ? NULL : json_object();
}

static json_t *add_fd(struct qmp_call *call, struct err *e)
{
	int fd = take_fd(call, e);
	int64_t set = qmp_arg_int(call, "fdset-id", -1);

	if (fd < 0)
		return NULL;
	if (qmp_has_arg(call, "fdset-id") && set < 0)
		err_set(e, EINVAL, "Parameter 'fdset-id' expects a non-negative value");
	else
		set = fdset_add(set, fd, qmp_arg_str(call, "opaque"), e);
	if (e->code) {
		close(fd);
		return NULL;
	}
	return json_pack("{s:I, s:i}", "fdset-id", (json_int_t)set, "fd", fd);
}

static json_t *remove_fd(struct qmp_call *call, struct err *e)
{
	int64_t fd = qmp_arg_int(call, "fd", -1);

	if (fd > INT32_MAX)
		fd = INT32_MAX;
	return fdset_remove(qmp_arg_int(call, "fdset-id", -1), (int)fd, e) ? NULL : json_object();
}

static json_t *query_fdsets(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array(), *fds = NULL, *o;
	struct fdset_member m;
	int64_t last = -1;

	for (size_t i = 0; fdset_at(i, &m); i++) {
		if (m.set != last) {
			fds = json_array();
			json_array_append_new(list, json_pack("{s:I, s:o}", "fdset-id", (json_int_t)m.set, "fds", fds));
			last = m.set;
		}
		o = json_pack("{s:i}", "fd", m.fd);
		if (m.opaque)
			json_object_set_new(o, "opaque", qmp_text(m.opaque));
		json_array_append_new(fds, o);
	}
	return list;
}

const struct qmp_command qmp_fd_commands[] = {
	{"getfd", "Keep the passed file descriptor under a name.", "0.1", QMP_MEMBERS(QMP_REQ("fdname", qmp_str)), NULL,
	 0, QMP_OOB, getfd},
	{"closefd", "Close a named file descriptor.", "0.1", QMP_MEMBERS(QMP_REQ("fdname", qmp_str)), NULL, 0, QMP_OOB,
	 closefd},
	{"add-fd", "Add the passed file descriptor to a set, for /dev/fdset/N.", "0.1",
	 QMP_MEMBERS(QMP_OPT("fdset-id", qmp_int), QMP_OPT("opaque", qmp_str)), &added_fd, 0, 0, add_fd},
	{"remove-fd", "Close one or all descriptors of a set.", "0.1",
	 QMP_MEMBERS(QMP_REQ("fdset-id", qmp_int), QMP_OPT("fd", qmp_int)), NULL, 0, 0, remove_fd},
	{"query-fdsets", "Sets of file descriptors.", "0.1", NULL, &QMP_LIST_OF(fdset_info), 0, 0, query_fdsets},
	{NULL},
};
