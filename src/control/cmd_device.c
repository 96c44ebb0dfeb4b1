/* QMP: device and CPU types, out of the registry and the CPU model table. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "commands.h"
#include "vmm/device.h"
#include "vmm/kvm.h"

static const struct qmp_type type_info = QMP_OBJECT("ObjectTypeInfo", QMP_REQ("name", qmp_str),
						    QMP_OPT("abstract", qmp_bool), QMP_OPT("parent", qmp_str));
static const struct qmp_type property_info =
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
	const char *model, *summary;
	char name[128];

	for (const struct device_class *const *c = device_registry; *c; c++)
		add_type(list, call, (*c)->name, bus_types[(*c)->bus], false);
	for (size_t i = 0; (model = kvm_cpu_model_name(i, &summary)); i++) {
		snprintf(name, sizeof(name), "%s-x86_64-cpu", model);
		add_type(list, call, name, "x86_64-cpu", false);
	}
	add_type(list, call, "kvm-accel", "accel", false);
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
	for (const struct prop *p = c->props; p && p->name; p++) {
		json_t *o, *def = default_value(p);

		if (p->internal) {
			json_decref(def);
			continue;
		}
		o = json_pack("{s:s, s:s}", "name", p->name, "type", prop_type_name(p));
		if (p->help)
			json_object_set_new(o, "description", json_string(p->help));
		if (def)
			json_object_set_new(o, "default-value", def);
		json_array_append_new(list, o);
	}
	return list;
}

const struct qmp_command qmp_device_commands[] = {
	{"qom-list-types", "Types of devices, CPUs and accelerators.", "0.1",
	 QMP_MEMBERS(QMP_OPT("implements", qmp_str), QMP_OPT("abstract", qmp_bool)), &QMP_LIST_OF(type_info), 0, 0,
	 qom_list_types},
	{"device-list-properties", "Properties of a device type.", "0.1", QMP_MEMBERS(QMP_REQ("typename", qmp_str)),
	 &QMP_LIST_OF(property_info), 0, 0, device_list_properties},
	{NULL},
};
