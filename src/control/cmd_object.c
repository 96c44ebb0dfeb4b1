/* QMP: objects that devices refer to, and what there is of memory. */
#include <errno.h>
#include <stdlib.h>
#include "commands.h"
#include "json_opts.h"
#include "work.h"
#include "vmm/memory_backend.h"
#include "vmm/object.h"

static const char *type_name_at(size_t i)
{
	const struct object_type *t = object_type_at(i);

	return t ? t->name : NULL;
}

static const struct qmp_type object_type = {.name = "ObjectType", .kind = QMP_KIND_ENUM, .value_at = type_name_at};
static const struct qmp_type policy = QMP_ENUM("HostMemPolicy", "default", "preferred", "bind", "interleave");
static const struct qmp_type memdev = QMP_OBJECT(
	"Memdev", QMP_OPT("id", qmp_str), QMP_REQ("size", qmp_size), QMP_REQ("merge", qmp_bool),
	QMP_REQ("dump", qmp_bool), QMP_REQ("prealloc", qmp_bool), QMP_REQ("share", qmp_bool),
	QMP_OPT("reserve", qmp_bool), QMP_REQ("host-nodes", QMP_LIST_OF(qmp_int)), QMP_REQ("policy", policy));

/* ---- object-add ---- */

/* Memory that is to be there at once. */
struct populate {
	struct work work;
	struct memory_backend *memory;
	struct qmp_later *later;
	char *id;
	struct err e;
};

static void populate(struct work *w)
{
	struct populate *p = container_of(w, struct populate, work);

	memory_backend_populate(p->memory, &p->e);
}

static void populated(struct work *w)
{
	struct populate *p = container_of(w, struct populate, work);

	memory_backend_release(p->memory);
	if (p->e.code)
		object_del(p->id, NULL);
	qmp_later_finish(p->later, p->e.code ? NULL : json_object(), &p->e);
	free(p->id);
	free(p);
}

static json_t *populate_later(struct qmp_call *call, const char *id, struct memory_backend *m, struct err *e)
{
	struct populate *p = xzalloc(sizeof(*p));

	*p = (struct populate){.work = {.run = populate, .done = populated}, .memory = m, .id = xstrdup(id)};
	if (!work_start(&p->work, e)) {
		p->later = qmp_later(call);
		return NULL;
	}
	memory_backend_release(m);
	object_del(id, NULL);
	free(p->id);
	free(p);
	return NULL;
}

static json_t *run_object_add(struct qmp_call *call, struct err *e)
{
	const char *id = qmp_arg_str(call, "id");
	struct memory_backend *m;
	struct opts o;
	int r = json_to_opts(call->args, &o, e);

	if (r)
		return NULL;
	r = object_add(&o, e);
	opts_free(&o);
	if (r)
		return NULL;
	m = memory_backend_claim_sparse(id);
	return m ? populate_later(call, id, m, e) : json_object();
}

static json_t *run_object_del(struct qmp_call *call, struct err *e)
{
	return object_del(qmp_arg_str(call, "id"), e) ? NULL : json_object();
}

static json_t *describe_memdev(const char *id, const struct memory_backend_info *m)
{
	return json_pack("{s:s, s:I, s:b, s:b, s:b, s:b, s:b, s:[], s:s}", "id", id, "size", (json_int_t)m->size,
			 "merge", m->merge, "dump", m->dump, "prealloc", m->prealloc, "share", m->share, "reserve",
			 m->reserve, "host-nodes", "policy", "default");
}

static json_t *query_memdev(struct qmp_call *call, struct err *e)
{
	const struct config *c = machine_config(call->board);
	struct memory_backend_info m;
	json_t *list = json_array();

	for (struct object *o = object_next(NULL); o; o = object_next(o))
		if (memory_backend_info(o, &m))
			json_array_append_new(list, describe_memdev(o->id, &m));
	if (c->machine.memory_backend || c->mem_path || !strcmp(c->machine.type, "none"))
		return list;
	/* Guest RAM without an object of its own, as QEMU shows it. */
	m = (struct memory_backend_info){.size = c->memory.size,
					 .merge = c->machine.mem_merge,
					 .dump = c->machine.dump_guest_core,
					 .prealloc = c->mem_prealloc};
	json_array_append_new(list, describe_memdev(MACHINE_RAM_ID, &m));
	return list;
}

const struct qmp_command qmp_object_commands[] = {
	{"object-add", "Create an object; its properties follow.", "0.2",
	 QMP_MEMBERS(QMP_REQ("qom-type", object_type), QMP_REQ("id", qmp_str)), NULL, 0, QMP_OPEN_ARGS, run_object_add},
	{"object-del", "Delete an object that nothing uses.", "0.2", QMP_MEMBERS(QMP_REQ("id", qmp_str)), NULL, 0, 0,
	 run_object_del},
	{"query-memdev", "Memory back ends.", "0.2", NULL, &QMP_LIST_OF(memdev), 0, 0, query_memdev},
	{NULL},
};
