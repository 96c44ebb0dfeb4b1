/* QMP: device and CPU types, out of the registry and the CPU model table. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "commands.h"
#include "types.h"
#include "vmm/config.h"
#include "vmm/device.h"
#include "vmm/kvm.h"
#include "vmm/object.h"

static const struct qmp_type type_info = QMP_OBJECT("ObjectTypeInfo", QMP_REQ("name", qmp_str),
						    QMP_OPT("abstract", qmp_bool), QMP_OPT("parent", qmp_str));
const struct qmp_type qmp_property_info =
	QMP_OBJECT("ObjectPropertyInfo", QMP_REQ("name", qmp_str), QMP_REQ("type", qmp_str),
		   QMP_OPT("description", qmp_str), QMP_OPT("default-value", qmp_any));

/* ---- the type tree: object > device > BUS-device > class, and the CPU models ---- */

static const char *const bus_types[] = {
	[BUS_SYSTEM] = "sys-bus-device", [BUS_ISA] = "isa-device",
	[BUS_PCI] = "pci-device",        [BUS_IDE] = "ide-device",
	[BUS_FLOPPY] = "floppy-device",  [BUS_PS2] = "ps2-device",
	[BUS_SMBUS] = "smbus-device",    [BUS_VIRTIO_SERIAL] = "virtio-serial-port",
	[BUS_USB] = "usb-device",        [BUS_CPU] = "x86_64-cpu",
};

static const struct {
	const char *name, *parent;
} abstract_types[] = {
	{"object", NULL},
	{"device", "object"},
	{"sys-bus-device", "device"},
	{"isa-device", "device"},
	{"pci-device", "device"},
	{"ide-device", "device"},
	{"floppy-device", "device"},
	{"ps2-device", "device"},
	{"smbus-device", "device"},
	{"virtio-serial-port", "device"},
	{"usb-device", "device"},
	{"cpu", "device"},
	{"x86_64-cpu", "cpu"},
	{"accel", "object"},
	{"machine", "object"},
	{"memory-backend", "object"},
	{"rng-backend", "object"},
	{"secret_common", "object"},
	{"container", "object"},
};

static const char *parent_of_abstract(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(abstract_types); i++)
		if (!strcmp(abstract_types[i].name, name))
			return abstract_types[i].parent;
	return NULL;
}

/* `base`: the type itself or one it descends from; NULL: any. */
static bool implements(const char *name, const char *parent, const char *base)
{
	if (!base || !strcmp(name, base))
		return true;
	for (const char *p = parent; p; p = parent_of_abstract(p))
		if (!strcmp(p, base))
			return true;
	return false;
}

static void add_type(json_t *list, struct qmp_call *call, const char *name, const char *parent, bool abstract)
{
	json_t *o;

	if (!implements(name, parent, qmp_arg_str(call, "implements")) ||
	    (abstract && !qmp_arg_bool(call, "abstract", false)))
		return;
	o = json_pack("{s:s}", "name", name);
	if (abstract)
		json_object_set_new(o, "abstract", json_true());
	if (parent)
		json_object_set_new(o, "parent", json_string(parent));
	json_array_append_new(list, o);
}

static json_t *qom_list_types(struct qmp_call *call, struct err *e)
{
	json_t *list = json_array();
	const struct object_type *type;
	const char *model, *summary;
	char name[128];

	for (const struct device_class *const *c = device_registry; *c; c++)
		add_type(list, call, (*c)->name, bus_types[(*c)->bus], false);
	for (size_t i = 0; (model = kvm_cpu_model_name(i, &summary)); i++) {
		snprintf(name, sizeof(name), "%s-x86_64-cpu", model);
		add_type(list, call, name, "x86_64-cpu", false);
	}
	for (size_t i = 0; (type = object_type_at(i)); i++)
		add_type(list, call, type->name, type->parent, false);
	add_type(list, call, "kvm-accel", "accel", false);
	add_type(list, call, "pc-i440fx-7.2-machine", "machine", false);
	add_type(list, call, "none-machine", "machine", false);
	for (size_t i = 0; i < ARRAY_SIZE(abstract_types); i++)
		add_type(list, call, abstract_types[i].name, abstract_types[i].parent, true);
	return list;
}

/* ---- properties ---- */

static json_t *default_value(const struct prop *p)
{
	switch (p->type) {
	case PROP_BOOL:
		return json_boolean(p->def);
	case PROP_U8:
	case PROP_U16:
	case PROP_U32:
	case PROP_U64:
	case PROP_SIZE:
		return json_integer((json_int_t)p->def);
	case PROP_I32:
		return json_integer((int32_t)p->def);
	case PROP_ENUM:
		return json_string(p->values[p->def]);
	case PROP_ONOFFAUTO:
		return json_string(p->def == 0 ? "off" : p->def == 1 ? "on" : "auto");
	default:
		return p->def_str ? json_string(p->def_str) : NULL;
	}
}

static void add_property(json_t *list, const char *name, const char *type, const char *help, json_t *def)
{
	json_t *o = json_pack("{s:s, s:s}", "name", name, "type", type);

	if (help)
		json_object_set_new(o, "description", json_string(help));
	if (def)
		json_object_set_new(o, "default-value", def);
	json_array_append_new(list, o);
}

static void add_options(json_t *list, const struct prop *p)
{
	for (; p && p->name; p++)
		if (!p->internal && strcmp(p->name, "type"))
			add_property(list, p->name, prop_type_name(p), p->help, default_value(p));
}

/* What a device has besides its class's own options. */
static void add_bus_options(json_t *list, const struct device_class *c)
{
	if (c->bus != BUS_PCI)
		return;
	add_property(list, "addr", "int32", "Slot and optional function number, example: 06.0 or 06", json_integer(-1));
	add_property(list, "multifunction", "bool", "on/off", json_false());
}

static void add_device_properties(json_t *list, const struct device_class *c)
{
	add_bus_options(list, c);
	add_options(list, c->props);
	for (const struct device_property *p = c->properties; p && p->name; p++)
		add_property(list, p->name, p->type, NULL, NULL);
}

static json_t *device_list_properties(struct qmp_call *call, struct err *e)
{
	const char *name = qmp_arg_str(call, "typename");
	const struct device_class *c = device_class_find(name);
	json_t *list;

	if (!c) {
		err_set_class(e, ERR_DEVICE_NOT_FOUND, ENODEV, "Device '%.200s' not found", name);
		return NULL;
	}
	list = json_array();
	add_device_properties(list, c);
	return list;
}

static bool is_cpu_type(const char *name)
{
	static const char suffix[] = "-x86_64-cpu";
	size_t len = strlen(name), tail = sizeof(suffix) - 1;
	const char *model, *summary;

	if (len <= tail || strcmp(name + len - tail, suffix))
		return false;
	for (size_t i = 0; (model = kvm_cpu_model_name(i, &summary)); i++)
		if (strlen(model) == len - tail && !strncmp(model, name, len - tail))
			return true;
	return false;
}

static void add_cpu_properties(json_t *list)
{
	static const char *const ints[] = {"family", "model", "stepping", "level", "xlevel", "phys-bits"};
	static const char *const switches[] = {"check", "enforce", "migratable", "host-phys-bits",
					       "kvm",   "pmu",     "l3-cache",   "host-cache-info"};
	char *names = kvm_feature_names();
	json_t *features = qmp_words(names), *f;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ints); i++)
		add_property(list, ints[i], "int", NULL, NULL);
	for (i = 0; i < ARRAY_SIZE(switches); i++)
		add_property(list, switches[i], "bool", NULL, NULL);
	add_property(list, "vendor", "string", NULL, NULL);
	add_property(list, "model-id", "string", NULL, NULL);
	add_property(list, "unavailable-features", "strList", NULL, NULL);
	json_array_foreach(features, i, f)
	{
		add_property(list, json_string_value(f), "bool", NULL, NULL);
	}
	json_decref(features);
	free(names);
}

/* libvirt takes a type it asks for unconditionally as known, and dies of an error: these have no properties here. */
static bool is_asked_anyway(const char *name)
{
	return parent_of_abstract(name) || !strcmp(name, "object") || !strcmp(name, "kvm-accel");
}

static json_t *qom_list_properties(struct qmp_call *call, struct err *e)
{
	const char *name = qmp_arg_str(call, "typename");
	const struct device_class *c = device_class_find(name);
	const struct option_desc *d;
	json_t *list = json_array();

	add_property(list, "type", "string", NULL, NULL);
	if (c) {
		add_property(list, "realized", "bool", NULL, NULL);
		add_property(list, "hotpluggable", "bool", NULL, NULL);
		add_device_properties(list, c);
	} else if (is_cpu_type(name)) {
		add_property(list, "realized", "bool", NULL, NULL);
		add_cpu_properties(list);
	} else if (!strcmp(name, "none-machine") || !strcmp(name, "pc-i440fx-7.2-machine")) {
		for (size_t i = 0; (d = config_option(i)); i++)
			if (!strcmp(d->name, "machine"))
				add_options(list, d->props);
	} else if (object_type_find(name)) {
		add_options(list, object_type_find(name)->props);
	} else if (!is_asked_anyway(name)) {
		json_decref(list);
		err_set_class(e, ERR_DEVICE_NOT_FOUND, ENODEV, "Class '%.200s' not found", name);
		return NULL;
	}
	return list;
}

const struct qmp_command qmp_device_commands[] = {
	{"qom-list-types", "Types of devices, CPUs and accelerators.", "0.1",
	 QMP_MEMBERS(QMP_OPT("implements", qmp_str), QMP_OPT("abstract", qmp_bool)), &QMP_LIST_OF(type_info), 0, 0,
	 qom_list_types},
	{"device-list-properties", "Properties of a device type.", "0.1", QMP_MEMBERS(QMP_REQ("typename", qmp_str)),
	 &QMP_LIST_OF(qmp_property_info), 0, 0, device_list_properties},
	{"qom-list-properties", "Properties of a type.", "0.2", QMP_MEMBERS(QMP_REQ("typename", qmp_str)),
	 &QMP_LIST_OF(qmp_property_info), 0, 0, qom_list_properties},
	{NULL},
};
