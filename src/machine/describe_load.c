/*
 * From a machine description back to a configuration: what an incoming guest is built from when the command line does
 * not say it. See describe.c for the tree. Its bytes come from another host or a file: sizes, names and values are
 * checked, and what a property means is decided by the same rows that read the command line.
 */
#include "board.h"

#include <errno.h>
#include <libfdt.h>
#include <stdlib.h>

#define MAX_DEVICES 1024
#define MAX_FILES   4096
#define MAX_DEPTH   8

struct reader {
	const void *fdt;
	struct config *c;
	struct config_described *d;
};

static int bad(struct err *e, const char *what, const char *name)
{
	return err_set(e, EBADMSG, "the machine's description is damaged: %s '%.80s'", what, name);
}

/* A property that is one string; NULL if absent or not one. */
static const char *string_of(const void *fdt, int node, const char *name)
{
	int len;
	const char *s = fdt_getprop(fdt, node, name, &len);

	return s && len > 0 && memchr(s, 0, (size_t)len) == s + len - 1 ? s : NULL;
}

static bool cell_of(const void *fdt, int node, const char *name, uint32_t *value)
{
	int len;
	const fdt32_t *v = fdt_getprop(fdt, node, name, &len);

	if (!v || len != 4)
		return false;
	*value = fdt32_ld(v);
	return true;
}

static bool flag_of(const void *fdt, int node, const char *name)
{
	return fdt_getprop(fdt, node, name, NULL) != NULL;
}

static int child(const struct reader *r, const char *path, struct err *e)
{
	int node = fdt_path_offset(r->fdt, path);

	return node >= 0 ? node : bad(e, "there is no node", path);
}

/*
 * libfdt promises to survive any tree that fdt_check_full() has passed; the check itself (1.6.1) falls over trees of
 * versions before 16, whose properties it cannot find. Ours are of version 17.
 */
bool describe_is_tree(const void *fdt, size_t len)
{
	return len >= sizeof(struct fdt_header) && len <= INT32_MAX && fdt_version(fdt) >= FDT_LAST_SUPPORTED_VERSION &&
	       !fdt_check_full(fdt, len);
}

/* libfdt walks nodes iteratively, but a tree as deep as it is long makes its searches quadratic. */
static int check_tree(const void *fdt, size_t len, struct err *e)
{
	int node, depth = 0;

	if (!describe_is_tree(fdt, len))
		return err_set(e, EBADMSG, "the machine's description is damaged: it is no flattened device tree");
	for (node = fdt_next_node(fdt, -1, &depth); node >= 0; node = fdt_next_node(fdt, node, &depth))
		if (depth > MAX_DEPTH)
			return err_set(e, EBADMSG, "the machine's description is damaged: it is nested too deeply");
	return 0;
}

/* Every property of a node: name and text. */
static int each_text(const void *fdt, int node,
		     int (*fn)(void *opaque, const char *name, const char *text, struct err *e), void *opaque,
		     struct err *e)
{
	int p;

	fdt_for_each_property_offset(p, fdt, node)
	{
		const char *name, *value;
		int len, r;

		value = fdt_getprop_by_offset(fdt, p, &name, &len);
		if (!value || len <= 0 || memchr(value, 0, (size_t)len) != value + len - 1)
			return bad(e, "no text in property", name ? name : "?");
		r = fn(opaque, name, value, e);
		if (r)
			return r;
	}
	return 0;
}

/* ---- what the guest sees ---- */

static int take_string(const struct reader *r, int node, const char *name, char **to)
{
	const char *s = string_of(r->fdt, node, name);

	free(*to);
	*to = xstrdup(s);
	return 0;
}

static int take_list(const struct reader *r, int node, const char *name, struct err *e)
{
	int len;
	const char *s = fdt_getprop(r->fdt, node, name, &len);

	if (!s)
		return 0;
	if (len <= 0 || s[len - 1])
		return bad(e, "no text in property", name);
	for (const char *end = s + len; s < end; s += strlen(s) + 1) {
		int ret = config_add(r->c, name, s, e);

		if (ret)
			return ret < 0 ? ret : bad(e, "no value of option", name);
	}
	return 0;
}

struct group_target {
	const struct config_group *group;
	void *obj;
};

static int set_group(void *opaque, const char *name, const char *text, struct err *e)
{
	static const char *const host[] = {"type",    "accel",           "kernel-irqchip", "dirty-ring-size",
					   "dumpdtb", "dump-guest-core", "mem-merge",      "memory-backend"};
	const struct group_target *t = opaque;

	for (size_t i = 0; i < ARRAY_SIZE(host); i++)
		if (!strcmp(t->group->name, "machine") && !strcmp(name, host[i]))
			return bad(e, "not for another host: property", name);
	return props_set(t->group->props, t->obj, t->group->name, name, text, e);
}

static int load_groups(const struct reader *r, int configuration, struct err *e)
{
	for (const struct config_group *g = config_groups; g->name; g++) {
		struct group_target t = {g, (uint8_t *)r->c + g->offset};
		int node = fdt_subnode_offset(r->fdt, configuration, g->name), ret;

		if (node < 0)
			return bad(e, "there is no group", g->name);
		ret = each_text(r->fdt, node, set_group, &t, e);
		if (ret)
			return ret;
	}
	return 0;
}

static int load_configuration(struct reader *r, struct err *e)
{
	static const char *const lists[] = {"global", "smbios", "acpitable", "fw_cfg"};
	static const struct prop uuid = PROP(struct config, uuid, PROP_UUID);
	int node = child(r, "/configuration", e), ret;
	struct config *c = r->c;
	const char *s;
	uint32_t kind;

	if (node < 0)
		return node;
	if (!c->name)
		take_string(r, node, "name", &c->name);
	s = string_of(r->fdt, node, "uuid");
	if (s && !c->uuid_set) {
		ret = prop_parse(&uuid, c, s, e);
		if (ret)
			return ret;
		c->uuid_set = true;
	}
	take_string(r, node, "cpu", &c->cpu);
	take_string(r, node, "bios", &c->bios);
	take_string(r, node, "kernel", &c->kernel);
	take_string(r, node, "initrd", &c->initrd);
	take_string(r, node, "append", &c->append);
	r->d->boot_kind = -1;
	if (cell_of(r->fdt, node, "kernel-kind", &kind))
		r->d->boot_kind = (int)(kind & 0xff);
	c->nographic = flag_of(r->fdt, node, "nographic");
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		ret = take_list(r, node, lists[i], e);
		if (ret)
			return ret;
	}
	return load_groups(r, node, e);
}

static int load_files(struct reader *r, struct err *e)
{
	struct described_file **tail = &r->d->files;
	int parent = child(r, "/files", e), node, n = 0;

	if (parent < 0)
		return parent;
	fdt_for_each_subnode(node, r->fdt, parent)
	{
		const char *name = string_of(r->fdt, node, "name");
		int len;
		const void *data = fdt_getprop(r->fdt, node, "data", &len);
		int size_len;
		const fdt64_t *size = fdt_getprop(r->fdt, node, "size", &size_len);
		struct described_file *f;

		if (!name || !size || size_len != 8 || (data && (uint64_t)len != fdt64_ld(size)) || ++n > MAX_FILES)
			return bad(e, "file", name ? name : "?");
		f = xzalloc(sizeof(*f));
		f->name = xstrdup(name);
		f->size = fdt64_ld(size);
		if (data) {
			f->data = malloc((size_t)len + 1);
			if (f->data)
				memcpy(f->data, data, (size_t)len);
		}
		*tail = f;
		tail = &f->next;
		if (data && !f->data)
			return err_errno(e, ENOMEM, "the machine's description: file '%s'", name);
	}
	return 0;
}

static int load_cpus(struct reader *r, struct err *e)
{
	int parent = child(r, "/cpus", e), node;
	const char *features;

	if (parent < 0)
		return parent;
	features = string_of(r->fdt, parent, "vmm,features");
	r->d->cpu_features = features ? xstrdup(features) : NULL;
	fdt_for_each_subnode(node, r->fdt, parent)
	{
		const char *id = string_of(r->fdt, node, "vmm,id");
		uint32_t index;

		if (!cell_of(r->fdt, node, "vmm,index", &index) || index >= r->c->smp.maxcpus ||
		    index >= MACHINE_MAX_CPUS || (id && (!device_id_valid(id) || r->d->cpu_id[index])))
			return bad(e, "CPU", fdt_get_name(r->fdt, node, NULL));
		r->d->cpus[index / 64] |= BIT64(index % 64);
		if (id)
			r->d->cpu_id[index] = xstrdup(id);
	}
	return r->d->cpus[0] & 1 ? 0 : bad(e, "there is no boot CPU in", "/cpus");
}

/* ---- devices ---- */

struct device_target {
	const struct device_class *class;
	struct opts *o;
	void *defaults;
};

/* Values that are the default anyway are left out: not every default is one that may be asked for. */
static int set_device_property(void *opaque, const char *name, const char *text, struct err *e)
{
	struct device_target *t = opaque;
	const struct prop *p = t->class->props ? prop_find(t->class->props, name) : NULL;
	char *normal;
	bool same;

	if (!p)
		return err_set(e, EINVAL, "this vmm's '%s' has no property '%s' (%s)", t->class->name, name, text);
	if (p->internal)
		return bad(e, "not to be set: property", name);
	normal = prop_format(p, t->defaults);
	same = !strcmp(normal, text);
	if (same && (p->type == PROP_STR || p->type == PROP_DRIVE || p->type == PROP_CHARDEV || p->type == PROP_NETDEV))
		same = *(char **)((uint8_t *)t->defaults + p->offset) != NULL; /* "" is not the same as not given */
	free(normal);
	if (!same)
		opts_set(t->o, name, text);
	return 0;
}

static int load_properties(const struct reader *r, int node, const struct device_class *class, struct opts *o,
			   struct err *e)
{
	struct device_target t = {class, o, xzalloc(class->size)};
	int properties = fdt_subnode_offset(r->fdt, node, "properties"), ret = 0;

	if (class->props)
		props_default(class->props, t.defaults);
	if (properties >= 0)
		ret = each_text(r->fdt, properties, set_device_property, &t, e);
	if (class->props)
		props_free(class->props, t.defaults);
	free(t.defaults);
	return ret;
}

static int load_place(const struct reader *r, int node, const struct device_class *class, struct opts *o, struct err *e)
{
	const char *bus = string_of(r->fdt, node, "bus-id");
	uint32_t v;
	char text[16];

	if (bus)
		opts_set(o, "bus", bus);
	if (class->bus == BUS_PCI) {
		if (!cell_of(r->fdt, node, "addr", &v) || v > 255)
			return bad(e, "no address of device", fdt_get_name(r->fdt, node, NULL));
		snprintf(text, sizeof(text), "%x.%x", v >> 3, v & 7);
		opts_set(o, "addr", text);
	} else if (cell_of(r->fdt, node, "unit", &v)) {
		snprintf(text, sizeof(text), "%u", v);
		opts_set(o, "unit", text);
	}
	return 0;
}

static int load_device(const struct reader *r, int node, struct described_device *d, struct err *e)
{
	const char *class_name = string_of(r->fdt, node, "class"), *id = fdt_get_name(r->fdt, node, NULL);
	const struct device_class *class = class_name ? device_class_find(class_name) : NULL;
	int ret;

	if (!id || !device_id_valid(id))
		return bad(e, "device", id ? id : "?");
	if (!class)
		return err_set(e, ENODEV, "the described machine has a device '%s' (%s), which this vmm does not offer",
			       id, class_name ? class_name : "?");
	d->id = xstrdup(id);
	d->class = xstrdup(class->name);
	d->user_id = flag_of(r->fdt, node, "vmm,user-id");
	d->user_made = flag_of(r->fdt, node, "vmm,user-made");
	ret = load_place(r, node, class, &d->opts, e);
	if (!ret)
		ret = load_properties(r, node, class, &d->opts, e);
	return ret && e && strncmp(e->msg, "the machine's", 13) ? err_prefix(e, "the described device '%s'", id) : ret;
}

static int load_devices(struct reader *r, struct err *e)
{
	struct described_device **tail = &r->d->devices;
	int parent = child(r, "/devices", e), node, n = 0, ret;

	if (parent < 0)
		return parent;
	fdt_for_each_subnode(node, r->fdt, parent)
	{
		if (++n > MAX_DEVICES)
			return bad(e, "more devices than it can have:", "/devices");
		*tail = xzalloc(sizeof(**tail));
		ret = load_device(r, node, *tail, e);
		if (ret)
			return ret;
		tail = &(*tail)->next;
	}
	return 0;
}

static struct opts *find_device(struct config *c, const char *id)
{
	for (struct described_device *d = c->described->devices; d; d = d->next)
		if (!strcmp(d->id, id))
			return &d->opts;
	return NULL;
}

/* ---- the host's side ---- */

/* What an option of the command line replaces: the option with the same id, node name or place. */
static bool same_place(struct opts *mine, struct opts *theirs)
{
	static const char *const keys[] = {"if", "bus", "unit"};
	const char *index = opts_get(mine, "index"), *kind = opts_get(mine, "if"), *bus = opts_get(theirs, "bus"),
		   *unit = opts_get(theirs, "unit"), *their_kind = opts_get(theirs, "if");

	if (strcmp(kind ? kind : "ide", their_kind ? their_kind : "ide") || !bus || !unit)
		return false;
	if (index) {
		int per_bus = !strcmp(kind ? kind : "ide", "ide") ? 2 : 1000;

		return atoi(index) == atoi(bus) * per_bus + atoi(unit);
	}
	for (size_t i = 1; i < ARRAY_SIZE(keys); i++) {
		const char *a = opts_get(mine, keys[i]);

		if (!a || strcmp(a, i == 1 ? bus : unit))
			return false;
	}
	return true;
}

static bool is_same(const char *option, struct opts *mine, struct opts *theirs)
{
	const char *key = !strcmp(option, "blockdev") ? "node-name" : "id";
	const char *a = opts_get(mine, key), *b = opts_get(theirs, key);

	if (a)
		return b && !strcmp(a, b);
	return !strcmp(option, "drive") && same_place(mine, theirs);
}

/* The first drive without a name or place ("-disk FILE") is the first IDE disk without an override. */
static bool is_nameless(struct opts *o)
{
	static const char *const keys[] = {"id", "index", "bus", "unit"};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (opts_get(o, keys[i]))
			return false;
	return true;
}

struct override {
	struct opt_list mine; /* of the command line, not yet used */
	const char *option;
};

/* The item to use, taken out of the list; NULL. */
static struct opt_item *find_override(struct override *o, struct opts *theirs)
{
	const char *media = opts_get(theirs, "media");

	for (struct opt_item **p = &o->mine.first; *p; p = &(*p)->next) {
		struct opt_item *i = *p;

		if (!is_same(o->option, &i->opts, theirs) &&
		    !(!strcmp(o->option, "drive") && is_nameless(&i->opts) && !(media && !strcmp(media, "cdrom"))))
			continue;
		*p = i->next;
		i->next = NULL;
		return i;
	}
	return NULL;
}

/* Options of the place stay, those of the host's side are replaced. */
static void merge(const char *option, struct opts *theirs, struct opts *mine)
{
	static const char *const place[] = {"id", "if", "bus", "unit", "index", "media", "node-name"};

	/* Another back end has other options. */
	if (!strcmp(option, "netdev") || (!strcmp(option, "chardev") && opts_get(mine, "backend"))) {
		static const char *const stay[] = {"id", "mux"};
		struct opts kept = {0};

		for (size_t i = 0; i < ARRAY_SIZE(stay); i++)
			if (opts_get(theirs, stay[i]))
				opts_set(&kept, stay[i], opts_get(theirs, stay[i]));
		opts_free(theirs);
		*theirs = kept;
	}
	for (size_t i = 0; i < mine->n; i++) {
		bool fixed = false;

		for (size_t k = 0; k < ARRAY_SIZE(place); k++)
			fixed |= !strcmp(place[k], mine->v[i].key);
		if (!fixed)
			opts_set(theirs, mine->v[i].key, mine->v[i].value);
	}
}

static void free_item(struct opt_item *i)
{
	if (!i)
		return;
	opts_free(&i->opts);
	free(i->text);
	free(i);
}

/* -serial, -parallel and -debugcon name the back ends of the ports by position: sugar_open_backends() opens them. */
static bool is_port_of_ours(const struct config *c, const char *id)
{
	const struct {
		const char *prefix;
		const struct opt_list *list;
	} kinds[] = {{"serial", &c->serial}, {"parallel", &c->parallel}, {"debugcon", &c->debugcon}};

	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		size_t len = strlen(kinds[k].prefix);
		int n = strcmp(id, "debugcon") ? atoi(id + MIN(len, strlen(id))) : 0;

		if (strncmp(id, kinds[k].prefix, len))
			continue;
		for (struct opt_item *i = kinds[k].list->first; i; i = i->next)
			if (n-- == 0)
				return true;
	}
	return false;
}

/* Whoever sends a guest chooses neither what is executed here nor which of our descriptors is taken. */
static int check_foreign(const char *option, struct opts *o, struct err *e)
{
	static const struct {
		const char *option, *key, *what;
	} refused[] = {
		{"netdev", "script", "a program"},      {"netdev", "downscript", "a program"},
		{"netdev", "helper", "a program"},      {"netdev", "fd", "a descriptor"},
		{"netdev", "fds", "descriptors"},       {"netdev", "local.str", "a descriptor"},
		{"netdev", "addr.str", "a descriptor"}, {"netdev", "vhostfd", "a descriptor"},
		{"netdev", "vhostfds", "descriptors"},  {"chardev", "fd", "a descriptor"},
	};
	const char *id = opts_get(o, "id");

	for (size_t i = 0; i < o->n; i++)
		for (size_t k = 0; k < ARRAY_SIZE(refused); k++)
			if (!strcmp(option, refused[k].option) && !strcmp(o->v[i].key, refused[k].key) &&
			    *o->v[i].value && strcmp(o->v[i].value, "no"))
				return err_set(
					e, EPERM,
					"the machine's description names %s for the %s '%.64s' (%s=%.200s): give a -%s "
					"with this id here",
					refused[k].what, option, id ? id : "?", refused[k].key, o->v[i].value, option);
	return 0;
}

static int add_backend(const struct reader *r, struct override *o, const char *text, struct err *e)
{
	struct opts theirs;
	struct opt_item *mine;
	char *merged;
	int ret = opts_parse(&theirs, text,
			     !strcmp(o->option, "drive")     ? NULL
			     : !strcmp(o->option, "chardev") ? "backend"
			     : !strcmp(o->option, "netdev")  ? "type"
							     : "driver",
			     e);

	if (ret)
		return err_prefix(e, "the machine's description: %s '%.80s'", o->option, text);
	if (!strcmp(o->option, "chardev") && opts_get(&theirs, "id") &&
	    is_port_of_ours(r->c, opts_get(&theirs, "id"))) {
		opts_free(&theirs);
		return 0;
	}
	mine = find_override(o, &theirs);
	if (!mine && check_foreign(o->option, &theirs, e)) {
		opts_free(&theirs);
		return -EPERM;
	}
	if (mine)
		merge(o->option, &theirs, &mine->opts);
	free_item(mine);
	merged = opts_format(&theirs);
	ret = config_add(r->c, o->option, merged, e);
	free(merged);
	opts_free(&theirs);
	return ret;
}

static void detach_list(struct config *c, const char *option, struct override *o)
{
	struct opt_list *list = config_list(c, option);

	o->option = option;
	o->mine.first = list->first;
	list->first = NULL;
	list->last = NULL;
}

static int leftover(struct override *o, struct err *e)
{
	int r = 0;

	if (o->mine.first && strcmp(o->option, "chardev")) /* a chardev may be for -mon */
		r = err_set(e, EINVAL, "-%s %s: the described machine has nothing of this name or in this place",
			    o->option, o->mine.first->text);
	return r;
}

static int load_backends(struct reader *r, int host, struct err *e)
{
	struct override drive, blockdev, chardev, netdev, object;
	int node, ret = 0;

	detach_list(r->c, "drive", &drive);
	detach_list(r->c, "blockdev", &blockdev);
	detach_list(r->c, "chardev", &chardev);
	detach_list(r->c, "netdev", &netdev);
	detach_list(r->c, "object", &object);
	fdt_for_each_subnode(node, r->fdt, host)
	{
		const char *name = fdt_get_name(r->fdt, node, NULL), *text = string_of(r->fdt, node, "text");
		const char *option = string_of(r->fdt, node, "option");
		struct override *o = &chardev;

		if (name && !strncmp(name, "block@", 6))
			o = option && !strcmp(option, "drive") ? &drive : &blockdev;
		else if (name && !strncmp(name, "object@", 7))
			o = &object;
		else if (name && !strncmp(name, "netdev@", 7))
			o = &netdev;
		else if (!name || strncmp(name, "chardev@", 8))
			text = NULL;
		ret = text ? add_backend(r, o, text, e) : bad(e, "host node", name ? name : "?");
		if (ret)
			break;
	}
	if (!ret)
		ret = leftover(&drive, e);
	if (!ret)
		ret = leftover(&blockdev, e);
	if (!ret)
		ret = leftover(&netdev, e);
	for (struct opt_item *i = chardev.mine.first; !ret && i; i = i->next)
		ret = config_add(r->c, "chardev", i->text, e);
	for (struct opt_item *i = object.mine.first; !ret && i; i = i->next)
		ret = config_add(r->c, "object", i->text, e);
	config_list_free(&object.mine);
	config_list_free(&drive.mine);
	config_list_free(&blockdev.mine);
	config_list_free(&chardev.mine);
	config_list_free(&netdev.mine);
	return ret;
}

static int index_of(const char *const *names, const char *text)
{
	for (int i = 0; text && names[i]; i++)
		if (!strcmp(names[i], text))
			return i;
	return -1;
}

static int load_host(struct reader *r, struct err *e)
{
	static const char *const reboot[] = {"reset", "shutdown", NULL},
				 *const shutdown[] = {"poweroff", "pause", NULL},
				 *const panic[] = {"shutdown", "pause", "exit-failure", "none", NULL};
	int host = child(r, "/host", e), ret = 0, i;
	struct config *c = r->c;
	bool screen = c->display || c->vnc.first, control = c->qmp.first || c->qmp_pretty.first || c->mon.first;

	if (host < 0)
		return host;
	c->nodefaults = !flag_of(r->fdt, host, "default-screen");
	if (!screen) {
		take_string(r, host, "display", &c->display);
		ret = take_list(r, host, "vnc", e);
	}
	for (i = 0; !ret && !control && i < 3; i++) {
		static const char *const lists[] = {"qmp", "qmp-pretty", "mon"};

		ret = take_list(r, host, lists[i], e);
	}
	if (!ret && !c->monitor.first)
		ret = take_list(r, host, "monitor", e);
	if (!c->reboot && (i = index_of(reboot, string_of(r->fdt, host, "reboot"))) >= 0)
		c->reboot = i;
	if (!c->shutdown && (i = index_of(shutdown, string_of(r->fdt, host, "shutdown"))) >= 0)
		c->shutdown = i;
	if (!c->panic && (i = index_of(panic, string_of(r->fdt, host, "panic"))) >= 0)
		c->panic = i;
	return ret ? ret : load_backends(r, host, e);
}

/* ---- all of it ---- */

static int load_root(struct reader *r, struct err *e)
{
	const char *compatible = string_of(r->fdt, 0, "compatible"), *model = string_of(r->fdt, 0, "model");

	if (!compatible || strcmp(compatible, "vmm,pc") || !model)
		return err_set(e, EINVAL, "the description is of another kind of machine ('%.40s')",
			       compatible ? compatible : "?");
	free(r->c->machine.type);
	r->c->machine.type = xstrdup(model);
	return 0;
}

int machine_config_from_description(struct config *c, const void *fdt, size_t len, struct err *e)
{
	struct reader r = {.fdt = fdt, .c = c};
	int ret = check_tree(fdt, len, e);

	if (c->guest_option)
		return err_set(e, EINVAL,
			       "-%s: the machine comes from its description; only the host's side can be set here",
			       c->guest_option);
	if (ret)
		return ret;
	r.d = c->described = xzalloc(sizeof(*c->described));
	ret = load_root(&r, e);
	if (!ret)
		ret = load_configuration(&r, e);
	if (!ret)
		ret = config_complete(c, e);
	if (!ret)
		ret = load_cpus(&r, e);
	if (!ret)
		ret = load_files(&r, e);
	if (!ret)
		ret = load_devices(&r, e);
	if (!ret)
		ret = config_each_set(c, find_device, e);
	if (!ret)
		ret = load_host(&r, e);
	return ret;
}
