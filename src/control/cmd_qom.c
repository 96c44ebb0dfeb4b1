/* QMP: the object tree. See qom.h for what is where. */
#include "qom.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "commands.h"
#include "types.h"
#include "vmm/chardev.h"
#include "vmm/config.h"
#include "vmm/kvm.h"
#include "vmm/object.h"
#include "vmm/pci.h"

/* ---- nodes ---- */

enum node_kind { NODE_ROOT, NODE_MACHINE, NODE_FOLDER, NODE_DEVICE, NODE_BACKEND, NODE_CPU, NODE_OBJECT, NODE_CHARDEV };
enum folder { FOLDER_PERIPHERAL, FOLDER_ANON, FOLDER_UNATTACHED, FOLDER_OBJECTS, FOLDER_CHARDEVS };

struct node {
	enum node_kind kind;
	enum folder folder;
	struct device *dev;
	struct cpu_info cpu;
	struct object *object;
	struct chardev *chardev;
};

static const struct {
	const char *path;
	enum node_kind kind;
	enum folder folder;
} fixed_nodes[] = {
	{"/", NODE_ROOT, 0},
	{"/machine", NODE_MACHINE, 0},
	{"/machine/peripheral", NODE_FOLDER, FOLDER_PERIPHERAL},
	{"/machine/peripheral-anon", NODE_FOLDER, FOLDER_ANON},
	{"/machine/unattached", NODE_FOLDER, FOLDER_UNATTACHED},
	{"/objects", NODE_FOLDER, FOLDER_OBJECTS},
	{"/chardevs", NODE_FOLDER, FOLDER_CHARDEVS},
};

static enum folder folder_of(const struct device *dev)
{
	return !dev->user_made ? FOLDER_UNATTACHED : dev->user_id ? FOLDER_PERIPHERAL : FOLDER_ANON;
}

void qom_device_path(const struct device *dev, char path[QOM_PATH_MAX])
{
	static const char *const folders[] = {"peripheral", "peripheral-anon", "unattached"};

	snprintf(path, QOM_PATH_MAX, "/machine/%s/%s", folders[folder_of(dev)], dev->id);
}

/* A virtio PCI function and the virtio device behind it are two objects in QEMU, whose names clients use. */
static bool has_virtio_backend(const struct device *dev)
{
	return dev->class->bus == BUS_PCI && !strncmp(dev->class->name, "virtio-", 7);
}

static bool find_device(struct board *board, const char *path, struct node *n)
{
	for (struct device *d = device_next(board, NULL); d; d = device_next(board, d)) {
		char mine[QOM_PATH_MAX];
		size_t len;

		qom_device_path(d, mine);
		len = strlen(mine);
		if (strncmp(path, mine, len))
			continue;
		n->dev = d;
		n->kind = path[len] ? NODE_BACKEND : NODE_DEVICE;
		if (!path[len] || (has_virtio_backend(d) && !strcmp(path + len, "/virtio-backend")))
			return true;
	}
	return false;
}

static bool find_cpu(struct board *board, const char *path, struct node *n)
{
	n->kind = NODE_CPU;
	for (unsigned i = 0; machine_cpu_info(board, i, &n->cpu); i++)
		if (!strcmp(path, n->cpu.path))
			return true;
	return false;
}

static bool find_object(const char *path, struct node *n)
{
	static const char folder[] = "/objects/";

	n->kind = NODE_OBJECT;
	n->object = strncmp(path, folder, sizeof(folder) - 1) ? NULL : object_find(path + sizeof(folder) - 1);
	return n->object != NULL;
}

static bool find_chardev(const char *path, struct node *n)
{
	static const char folder[] = "/chardevs/";

	n->kind = NODE_CHARDEV;
	n->chardev = strncmp(path, folder, sizeof(folder) - 1) ? NULL : chardev_find(path + sizeof(folder) - 1);
	return n->chardev != NULL;
}

static bool find_node(struct board *board, const char *path, struct node *n, struct err *e)
{
	char full[QOM_PATH_MAX];
	bool found;

	*n = (struct node){.kind = NODE_ROOT};
	if (*path != '/') { /* QEMU takes the last parts of a path where they are unique; ids are */
		snprintf(full, sizeof(full), "/machine/peripheral/%.100s", path);
		path = full;
	}
	for (size_t i = 0; i < ARRAY_SIZE(fixed_nodes); i++)
		if (!strcmp(path, fixed_nodes[i].path)) {
			n->kind = fixed_nodes[i].kind;
			n->folder = fixed_nodes[i].folder;
			return true;
		}
	if (!strcmp(path, "/machine/rtc")) { /* what RTC_CHANGE names */
		n->kind = NODE_DEVICE;
		n->dev = device_find_class(board, "mc146818rtc");
		if (n->dev)
			return true;
	}
	found = find_device(board, path, n) || find_cpu(board, path, n) || find_chardev(path, n) ||
		find_object(path, n);
	if (!found)
		err_set_class(e, ERR_DEVICE_NOT_FOUND, ENODEV, "Device '%.200s' not found", path);
	return found;
}

/* ---- properties ---- */

/* What a visitor of an object's properties is told; value: new reference or NULL (a link or a write-only property). */
struct visit {
	json_t *list;       /* qom-list: collects names and types */
	const char *wanted; /* qom-get: the one to find */
	json_t *value;
	bool found;
};

static bool visits(struct visit *v, const char *name, const char *type)
{
	if (v->list) {
		json_array_append_new(v->list, json_pack("{s:s, s:s}", "name", name, "type", type));
		return false;
	}
	if (v->found || strcmp(v->wanted, name))
		return false;
	v->found = true;
	return true;
}

static json_t *prop_value(const struct prop *p, const void *obj)
{
	char *text = prop_format(p, obj);
	json_t *v;

	switch (p->type) {
	case PROP_BOOL:
		v = json_boolean(*(const bool *)((const char *)obj + p->offset));
		break;
	case PROP_U8:
	case PROP_U16:
	case PROP_U32:
	case PROP_U64:
	case PROP_I32:
		v = json_integer(text ? strtoll(text, NULL, 0) : 0);
		break;
	case PROP_SIZE:
		v = json_integer((json_int_t)(*(const uint64_t *)((const char *)obj + p->offset)));
		break;
	default:
		v = json_string(text ? text : "");
	}
	free(text);
	return v ? v : json_string("");
}

static void visit_props(struct visit *v, const struct prop *p, const void *obj)
{
	for (; p && p->name; p++)
		if (!p->internal && strcmp(p->name, "type") && visits(v, p->name, prop_type_name(p)))
			v->value = prop_value(p, obj);
}

static void visit_type(struct visit *v, const char *type)
{
	if (visits(v, "type", "string"))
		v->value = json_string(type);
}

static void visit_bool(struct visit *v, const char *name, bool value)
{
	if (visits(v, name, "bool"))
		v->value = json_boolean(value);
}

static void visit_int(struct visit *v, const char *name, int64_t value)
{
	if (visits(v, name, "int"))
		v->value = json_integer(value);
}

static void visit_string(struct visit *v, const char *name, const char *value)
{
	if (visits(v, name, "string"))
		v->value = qmp_text(value ? value : "");
}

static void visit_child(struct visit *v, const char *name, const char *type, const char *path)
{
	char child[QOM_PATH_MAX + 16];

	snprintf(child, sizeof(child), "child<%s>", type);
	if (visits(v, name, child))
		v->value = json_string(path);
}

static void visit_running(struct visit *v, struct device *dev, const struct device_property *p)
{
	char *json;

	for (; p && p->name; p++) {
		if (!visits(v, p->name, p->type) || !p->get)
			continue;
		pthread_mutex_lock(dev->lock);
		json = p->get(dev);
		pthread_mutex_unlock(dev->lock);
		v->value = json ? json_loads(json, JSON_DECODE_ANY, NULL) : NULL;
		free(json);
	}
}

static void visit_device(struct visit *v, struct device *dev)
{
	char path[QOM_PATH_MAX];

	visit_type(v, dev->class->name);
	visit_bool(v, "realized", true);
	visit_bool(v, "hotpluggable", dev->class->hotpluggable);
	if (dev->parent && visits(v, "parent_bus", "link<bus>")) {
		qom_device_path(dev->parent, path);
		v->value = json_string(path);
	}
	if (dev->pci)
		visit_int(v, "addr", dev->pci->devfn);
	visit_props(v, dev->class->props, dev);
	visit_running(v, dev, dev->class->properties);
	if (has_virtio_backend(dev)) {
		char type[QOM_PATH_MAX];

		qom_device_path(dev, path);
		strncat(path, "/virtio-backend", sizeof(path) - strlen(path) - 1);
		snprintf(type, sizeof(type), "%.*s-device", (int)strlen(dev->class->name) - 4, dev->class->name);
		visit_child(v, "virtio-backend", type, path);
	}
}

static void visit_features(struct visit *v, const struct kvm_cpu_view *view)
{
	json_t *all = qmp_cpu_features(view), *on;
	const char *name;

	json_object_foreach(all, name, on)
	{
		visit_bool(v, name, json_is_true(on));
	}
	json_decref(all);
}

static void visit_cpu(struct visit *v, struct board *board, const struct cpu_info *cpu)
{
	struct kvm_vm *vm = machine_kvm(board);
	struct kvm_cpu_view view;

	visit_type(v, machine_cpu_type(board));
	visit_bool(v, "realized", true);
	visit_bool(v, "hotpluggable", true);
	visit_bool(v, "hotplugged", cpu->id != NULL);
	visit_bool(v, "start-powered-off", false);
	visit_int(v, "apic-id", cpu->apic_id);
	visit_int(v, "socket-id", cpu->socket);
	visit_int(v, "core-id", cpu->core);
	visit_int(v, "thread-id", cpu->thread);
	if (!vm || kvm_cpu_current(vm, &view))
		return;
	visit_int(v, "family", view.family);
	visit_int(v, "model", view.model);
	visit_int(v, "stepping", view.stepping);
	visit_string(v, "vendor", view.vendor);
	visit_string(v, "model-id", view.model_id);
	visit_features(v, &view);
	if (visits(v, "unavailable-features", "strList"))
		v->value = qmp_words(view.missing);
	kvm_cpu_view_free(&view);
}

static const struct option_desc *machine_option(void)
{
	const struct option_desc *d;

	for (size_t i = 0; (d = config_option(i)); i++)
		if (!strcmp(d->name, "machine"))
			return d;
	return NULL;
}

static const char *machine_type_name(struct board *board)
{
	return strcmp(machine_config(board)->machine.type, "none") ? "pc-i440fx-7.2-machine" : "none-machine";
}

/* The clock's property "date" has a second name here, as in QEMU. */
static void visit_clock(struct visit *v, struct device *rtc)
{
	const struct device_property *p = rtc->class->properties;
	struct device_property date;

	if (visits(v, "rtc", "link<mc146818rtc>"))
		v->value = json_string("/machine/rtc");
	while (p->name && strcmp(p->name, "date"))
		p++;
	date = *p;
	date.name = date.name ? "rtc-time" : NULL;
	visit_running(v, rtc, (const struct device_property[]){date, {NULL}});
}

static void visit_machine(struct visit *v, struct board *board)
{
	struct device *rtc = device_find_class(board, "mc146818rtc");

	visit_type(v, machine_type_name(board));
	visit_child(v, "peripheral", "container", "/machine/peripheral");
	visit_child(v, "peripheral-anon", "container", "/machine/peripheral-anon");
	visit_child(v, "unattached", "container", "/machine/unattached");
	if (rtc)
		visit_clock(v, rtc);
	if (machine_option())
		visit_props(v, machine_option()->props, &machine_config(board)->machine);
}

static void visit_folder(struct visit *v, struct board *board, enum folder folder)
{
	char path[QOM_PATH_MAX], name[QOM_PATH_MAX];
	struct cpu_info cpu;

	visit_type(v, "container");
	for (struct device *d = device_next(board, NULL); d; d = device_next(board, d)) {
		if (folder_of(d) != folder)
			continue;
		qom_device_path(d, path);
		visit_child(v, d->id, d->class->name, path);
	}
	for (unsigned i = 0; machine_cpu_info(board, i, &cpu); i++) {
		if (folder != (cpu.id ? FOLDER_PERIPHERAL : FOLDER_UNATTACHED))
			continue;
		visit_child(v, strrchr(cpu.path, '/') + 1, machine_cpu_type(board), cpu.path);
	}
	for (struct object *o = object_next(NULL); folder == FOLDER_OBJECTS && o; o = object_next(o)) {
		snprintf(path, sizeof(path), "/objects/%.100s", o->id);
		visit_child(v, o->id, o->type->name, path);
	}
	for (struct chardev *c = chardev_next(NULL); folder == FOLDER_CHARDEVS && c; c = chardev_next(c)) {
		snprintf(path, sizeof(path), "/chardevs/%.100s", chardev_id(c));
		snprintf(name, sizeof(name), "chardev-%.60s", chardev_backend_name(c));
		visit_child(v, chardev_id(c), name, path);
	}
}

static void visit_node(struct visit *v, struct board *board, const struct node *n)
{
	switch (n->kind) {
	case NODE_ROOT:
		visit_type(v, "container");
		visit_child(v, "machine", machine_type_name(board), "/machine");
		visit_child(v, "objects", "container", "/objects");
		visit_child(v, "chardevs", "container", "/chardevs");
		break;
	case NODE_MACHINE:
		visit_machine(v, board);
		break;
	case NODE_FOLDER:
		visit_folder(v, board, n->folder);
		break;
	case NODE_DEVICE:
	case NODE_BACKEND:
		visit_device(v, n->dev);
		break;
	case NODE_CPU:
		visit_cpu(v, board, &n->cpu);
		break;
	case NODE_OBJECT:
		visit_type(v, n->object->type->name);
		if (n->object->type->props)
			visit_props(v, n->object->type->props, n->object);
		break;
	case NODE_CHARDEV:
		visit_type(v, chardev_backend_name(n->chardev));
		visit_bool(v, "connected", chardev_is_open(n->chardev));
		visit_string(v, "addr", chardev_filename(n->chardev));
		break;
	}
}

/* ---- the commands ---- */

static json_t *qom_list(struct qmp_call *call, struct err *e)
{
	struct visit v = {0};
	struct node n;

	if (!find_node(call->board, qmp_arg_str(call, "path"), &n, e))
		return NULL;
	v.list = json_array();
	visit_node(&v, call->board, &n);
	return v.list;
}

static json_t *type_of(struct qmp_call *call, const struct node *n)
{
	struct visit v = {.wanted = "type"};

	visit_node(&v, call->board, n);
	return v.value;
}

static void no_property(struct qmp_call *call, const struct node *n, const char *name, struct err *e)
{
	json_t *type = type_of(call, n);

	err_set(e, ENOENT, "Property '%s.%.200s' not found", json_string_value(type), name);
	json_decref(type);
}

static json_t *qom_get(struct qmp_call *call, struct err *e)
{
	const char *name = qmp_arg_str(call, "property");
	struct visit v = {.wanted = name};
	struct node n;

	if (!find_node(call->board, qmp_arg_str(call, "path"), &n, e))
		return NULL;
	visit_node(&v, call->board, &n);
	if (!v.found)
		no_property(call, &n, name, e);
	else if (!v.value)
		err_set(e, EACCES, "Property '%.200s' cannot be read", name);
	return v.value;
}

static const struct device_property *find_running(const struct node *n, const char *name)
{
	const struct device_property *p = n->dev ? n->dev->class->properties : NULL;

	for (; p && p->name; p++)
		if (!strcmp(p->name, name))
			return p;
	return NULL;
}

static json_t *qom_set(struct qmp_call *call, struct err *e)
{
	const char *path = qmp_arg_str(call, "path"), *name = qmp_arg_str(call, "property");
	struct visit v = {.wanted = name};
	const struct device_property *p;
	struct node n;
	char *json;

	if (!find_node(call->board, path, &n, e))
		return NULL;
	p = find_running(&n, name);
	if (p && p->set) {
		json = json_dumps(json_object_get(call->args, "value"), JSON_ENCODE_ANY);
		pthread_mutex_lock(n.dev->lock);
		p->set(n.dev, json, e);
		pthread_mutex_unlock(n.dev->lock);
		free(json);
		return e->code ? NULL : json_object();
	}
	visit_node(&v, call->board, &n);
	json_decref(v.value);
	if (!v.found)
		no_property(call, &n, name, e);
	else if (n.dev && !p && prop_find(n.dev->class->props ? n.dev->class->props : &(struct prop)PROP_END, name))
		err_set(e, EBUSY, "Attempt to set property '%s' on device '%s' (type '%s') after it was realized", name,
			n.dev->id, n.dev->class->name);
	else
		err_set(e, EACCES, "Property '%.200s' is read-only", name);
	return NULL;
}

const struct qmp_command qmp_qom_commands[] = {
	{"qom-list", "Properties and children of an object.", "0.2", QMP_MEMBERS(QMP_REQ("path", qmp_str)),
	 &QMP_LIST_OF(qmp_property_info), 0, 0, qom_list},
	{"qom-get", "A property's value.", "0.2", QMP_MEMBERS(QMP_REQ("path", qmp_str), QMP_REQ("property", qmp_str)),
	 &qmp_any, 0, 0, qom_get},
	{"qom-set", "Set a property, where it can be set at run time.", "0.2",
	 QMP_MEMBERS(QMP_REQ("path", qmp_str), QMP_REQ("property", qmp_str), QMP_REQ("value", qmp_any)), NULL, 0, 0,
	 qom_set},
	{NULL},
};
