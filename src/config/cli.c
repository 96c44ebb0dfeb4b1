/*
 * The command line: one table row per option. Names and syntax are QEMU's; both "-opt" and "--opt" are accepted. A row
 * says where the argument goes; what needs thought has a function. Unknown options are refused with the nearest valid
 * one.
 */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- typed sub-options ---- */

static const char *const accel_names[] = {"kvm", "qtest", NULL};
static const char *const irqchip_names[] = {"on", "split", NULL};
static const char *const rtc_clock_names[] = {"host", "rt", "vm", NULL};
static const char *const driftfix_names[] = {"none", "slew", NULL};
static const char *const reboot_names[] = {"reset", "shutdown", NULL};
static const char *const shutdown_names[] = {"poweroff", "pause", NULL};
const char *const watchdog_action_names[] = {"reset", "shutdown", "poweroff",   "pause",
					     "debug", "none",     "inject-nmi", NULL};
static const char *const panic_names[] = {"shutdown", "pause", "exit-failure", "none", NULL};

const struct prop machine_props[] = {
	PROP(struct machine_opts, type, PROP_STR, .def_str = "pc", .help = "machine name, see -machine help"),
	PROP(struct machine_opts, accel, PROP_ENUM, .values = accel_names, .help = "what runs the guest"),
	PROP_NAMED(struct machine_opts, "kernel-irqchip", kernel_irqchip, PROP_ENUM, .values = irqchip_names,
		   .help = "PIC, IOAPIC and PIT in KVM (on) or our own (split)"),
	PROP_NAMED(struct machine_opts, "dirty-ring-size", dirty_ring_size, PROP_U32, .max = 1u << 20,
		   .help = "entries of each vCPU's ring of written pages, a power of 2; 0: a bitmap"),
	PROP(struct machine_opts, dumpdtb, PROP_STR, .help = "write the machine description to this file and exit"),
	PROP_NAMED(struct machine_opts, "dump-guest-core", dump_guest_core, PROP_BOOL,
		   .help = "include guest RAM in a core dump of vmm"),
	PROP_NAMED(struct machine_opts, "mem-merge", mem_merge, PROP_BOOL, .help = "let KSM merge guest pages"),
	PROP(struct machine_opts, usb, PROP_BOOL, .help = "USB controller (refused: arrives with USB support)"),
	PROP(struct machine_opts, graphics, PROP_BOOL, .def = 1, .help = "firmware may use the screen"),
	PROP(struct machine_opts, vmport, PROP_ONOFFAUTO, .def = 2, .help = "VMware back door (only off)"),
	PROP(struct machine_opts, hpet, PROP_ONOFFAUTO, .def = 2, .help = "HPET (only off)"),
	PROP(struct machine_opts, acpi, PROP_ONOFFAUTO, .def = 2, .help = "ACPI tables and power management"),
	PROP(struct machine_opts, smm, PROP_ONOFFAUTO, .def = 2, .help = "system management mode (only off)"),
	PROP(struct machine_opts, pit, PROP_ONOFFAUTO, .def = 2, .help = "i8254 timer (always on)"),
	PROP(struct machine_opts, i8042, PROP_ONOFFAUTO, .def = 2, .help = "PS/2 keyboard and mouse controller"),
	PROP_NAMED(struct machine_opts, "memory-backend", memory_backend, PROP_STR,
		   .help = "id of the memory backend object"),
	PROP_NAMED(struct machine_opts, "max-ram-below-4g", max_ram_below_4g, PROP_SIZE, .max = 0xe0000000,
		   .help = "guest RAM below the PCI hole (0: chosen by size)"),
	PROP_END,
};
const struct prop smp_props[] = {
	PROP(struct smp_opts, cpus, PROP_U32, .help = "vCPUs at start"),
	PROP(struct smp_opts, maxcpus, PROP_U32, .help = "vCPUs after hotplug"),
	PROP(struct smp_opts, sockets, PROP_U32, .help = "sockets"),
	PROP(struct smp_opts, dies, PROP_U32, .help = "dies per socket (only 1)"),
	PROP(struct smp_opts, cores, PROP_U32, .help = "cores per socket"),
	PROP(struct smp_opts, threads, PROP_U32, .help = "threads per core"),
	PROP_END,
};
const struct prop memory_props[] = {
	PROP(struct memory_opts, size, PROP_SIZE, .help = "guest RAM; a bare number means MiB"),
	PROP(struct memory_opts, maxmem, PROP_SIZE, .help = "RAM after hotplug"),
	PROP(struct memory_opts, slots, PROP_U32, .help = "slots for memory hotplug"),
	PROP_END,
};
const struct prop boot_props[] = {
	PROP(struct boot_opts, order, PROP_STR,
	     .help = "a floppy, c hard disk, d CD-ROM, n network, tried in this order"),
	PROP(struct boot_opts, once, PROP_STR, .help = "order for the first boot only"),
	PROP(struct boot_opts, splash, PROP_STR, .help = "boot picture (JPEG or BMP file)"),
	PROP(struct boot_opts, menu, PROP_BOOL, .help = "firmware's boot menu"),
	PROP(struct boot_opts, strict, PROP_BOOL, .help = "boot only from devices with a bootindex"),
	PROP_NAMED(struct boot_opts, "splash-time", splash_time, PROP_U32, .max = 0xffff,
		   .help = "ms to wait at the menu"),
	PROP_NAMED(struct boot_opts, "reboot-timeout", reboot_timeout, PROP_I32, .def = (uint64_t)-1,
		   .min = (uint64_t)-1, .max = 0xffff, .help = "ms until a failed boot is tried again; -1: never"),
	PROP_END,
};
const struct prop rtc_props[] = {
	PROP(struct rtc_opts, base, PROP_STR, .def_str = "utc",
	     .help = "utc, localtime or a date (2026-11-20T23:44:08)"),
	PROP(struct rtc_opts, clock, PROP_ENUM, .values = rtc_clock_names, .help = "what drives the clock"),
	PROP(struct rtc_opts, driftfix, PROP_ENUM, .values = driftfix_names, .help = "slew: replay lost ticks"),
	PROP_END,
};
const struct prop action_props[] = {
	PROP(struct config, reboot, PROP_ENUM, .values = reboot_names, .help = "when the guest reboots"),
	PROP(struct config, shutdown, PROP_ENUM, .values = shutdown_names, .help = "when the guest powers off"),
	PROP(struct config, panic, PROP_ENUM, .values = panic_names, .help = "when the guest reports a panic"),
	PROP(struct config, watchdog, PROP_ENUM, .values = watchdog_action_names, .help = "when a watchdog fires"),
	PROP_END,
};

const struct config_group config_groups[] = {
	{"machine", machine_props, offsetof(struct config, machine)},
	{"smp", smp_props, offsetof(struct config, smp)},
	{"memory", memory_props, offsetof(struct config, memory)},
	{"boot", boot_props, offsetof(struct config, boot)},
	{"rtc", rtc_props, offsetof(struct config, rtc)},
	{NULL, NULL, 0},
};

/* ---- option functions ---- */

static bool is_help(const char *arg)
{
	return !strcmp(arg, "help") || !strcmp(arg, "?");
}

/* "NAME,help" */
static bool asks_for_help(struct opts *o)
{
	return opts_get(o, "help") || opts_get(o, "?");
}

static int set_string(char **to, const char *text)
{
	free(*to);
	*to = xstrdup(text);
	return 0;
}

static int list_add(struct opt_list *list, const char *text, const char *implied_key, struct err *e)
{
	struct opt_item *item = xzalloc(sizeof(*item));
	int r = opts_parse(&item->opts, text, implied_key, e);

	if (r) {
		free(item);
		return r;
	}
	item->text = xstrdup(text);
	if (!list->last)
		list->last = &list->first;
	*list->last = item;
	list->last = &item->next;
	return 0;
}

static int apply_text(const struct prop *table, void *obj, const char *text, const char *implied, const char *owner,
		      struct err *e)
{
	struct opts o;
	int r = opts_parse(&o, text, implied, e);

	if (!r)
		r = opts_apply(&o, table, obj, owner, e);
	opts_free(&o);
	return r;
}

/* "kvm:tcg": a list in order of preference; the first we have is taken. */
static int set_accel(struct config *c, const char *list, struct err *e)
{
	char *copy = xstrdup(list), *save = NULL;

	for (char *name = strtok_r(copy, ":", &save); name; name = strtok_r(NULL, ":", &save))
		for (int i = 0; accel_names[i]; i++)
			if (!strcmp(name, accel_names[i])) {
				c->machine.accel = i;
				free(copy);
				return 0;
			}
	free(copy);
	return err_set(e, EINVAL, "invalid accelerator '%s': vmm has kvm and qtest", list);
}

static int opt_machine(struct config *c, const char *arg, struct err *e)
{
	struct opts o;
	const char *accel;
	int r;

	if (is_help(arg))
		return cli_machine_help();
	r = opts_parse(&o, arg, "type", e);
	if (r)
		return r;
	if (asks_for_help(&o)) {
		opts_free(&o);
		return cli_props_help("machine", machine_props);
	}
	accel = opts_get(&o, "accel");
	if (accel)
		r = set_accel(c, accel, e);
	if (!r)
		r = opts_apply(&o, machine_props, &c->machine, "machine", e);
	opts_free(&o);
	return r;
}

static int opt_accel(struct config *c, const char *arg, struct err *e)
{
	struct opts o;
	const char *name;
	int r = opts_parse(&o, arg, "accel", e);

	if (r)
		return r;
	name = opts_get(&o, "accel");
	r = name ? set_accel(c, name, e) : err_set(e, EINVAL, "a name is missing (kvm or qtest)");
	name = opts_get(&o, "kernel-irqchip");
	if (!r && name)
		r = props_set(machine_props, &c->machine, "accel", "kernel-irqchip", name, e);
	name = opts_get(&o, "dirty-ring-size");
	if (!r && name)
		r = props_set(machine_props, &c->machine, "accel", "dirty-ring-size", name, e);
	if (!r && c->machine.dirty_ring_size & (c->machine.dirty_ring_size - 1))
		r = err_set(e, EINVAL, "dirty-ring-size must be a power of two.");
	for (size_t i = 0; !r && i < o.n; i++)
		if (!o.v[i].used)
			r = err_set(e, EINVAL, "Property 'accel.%s' not found", o.v[i].key);
	opts_free(&o);
	return r;
}

static int opt_enable_kvm(struct config *c, const char *arg, struct err *e)
{
	(void)arg;
	(void)e;
	c->machine.accel = ACCEL_KVM;
	return 0;
}

/* A number without suffix is MiB, here and only here. */
static int opt_memory(struct config *c, const char *arg, struct err *e)
{
	static const char *const sizes[] = {"size", "maxmem"};
	struct opts o;
	int r = opts_parse(&o, arg, "size", e);

	if (r)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		const char *v = opts_get(&o, sizes[i]);
		char *text;

		if (!v)
			continue;
		text = xasprintf("%s%s", v, *v && strspn(v, "0123456789") == strlen(v) ? "M" : "");
		r = r ? r : props_set(memory_props, &c->memory, "memory", sizes[i], text, e);
		free(text);
	}
	if (!r)
		r = opts_apply(&o, memory_props, &c->memory, "memory", e);
	opts_free(&o);
	return r;
}

static int opt_smp(struct config *c, const char *arg, struct err *e)
{
	memset(&c->smp, 0, sizeof(c->smp));
	return apply_text(smp_props, &c->smp, arg, "cpus", "smp", e);
}

static int opt_boot(struct config *c, const char *arg, struct err *e)
{
	return apply_text(boot_props, &c->boot, arg, "order", "boot", e);
}

static int opt_rtc(struct config *c, const char *arg, struct err *e)
{
	return apply_text(rtc_props, &c->rtc, arg, "base", "rtc", e);
}

static int opt_action(struct config *c, const char *arg, struct err *e)
{
	return apply_text(action_props, c, arg, NULL, "action", e);
}

static int opt_watchdog(struct config *c, const char *arg, struct err *e)
{
	return props_set(action_props, c, "action", "watchdog", arg, e);
}

static int opt_name(struct config *c, const char *arg, struct err *e)
{
	struct opts o;
	const char *v;
	int r = opts_parse(&o, arg, "guest", e);

	if (r)
		return r;
	v = opts_get(&o, "guest");
	if (v)
		set_string(&c->name, v);
	v = opts_get(&o, "debug-threads");
	c->debug_threads = v && !strcmp(v, "on");
	if (opts_get(&o, "process")) {
		/* the process keeps its own name: management tools find it by pid file */
	}
	for (size_t i = 0; !r && i < o.n; i++)
		if (!o.v[i].used)
			r = err_set(e, EINVAL, "Invalid parameter '%s': guest, process and debug-threads are known",
				    o.v[i].key);
	opts_free(&o);
	return r;
}

static int opt_uuid(struct config *c, const char *arg, struct err *e)
{
	static const struct prop uuid = PROP(struct config, uuid, PROP_UUID);

	c->uuid_set = true;
	return prop_parse(&uuid, c, arg, e);
}

static int opt_cpu(struct config *c, const char *arg, struct err *e)
{
	(void)e;
	if (is_help(arg))
		return cli_cpu_help();
	return set_string(&c->cpu, arg);
}

static int opt_device(struct config *c, const char *arg, struct err *e)
{
	struct opt_item *item;
	int r;

	if (is_help(arg))
		return cli_device_help(NULL, e);
	r = list_add(&c->device, arg, "driver", e);
	if (r)
		return r;
	item = container_of(c->device.last, struct opt_item, next);
	if (asks_for_help(&item->opts))
		return cli_device_help(opts_get(&item->opts, "driver"), e);
	return 0;
}

/* Also the long form, driver=DRIVER,property=PROP,value=VALUE. What is kept is one pair: DRIVER.PROP and its value. */
static int opt_global(struct config *c, const char *arg, struct err *e)
{
	const char *driver, *property, *value;
	struct opts o, one = {0};
	char *key, *text;
	int r = opts_parse(&o, arg, NULL, e);

	if (r)
		return r;
	driver = opts_get(&o, "driver");
	property = opts_get(&o, "property");
	value = opts_get(&o, "value");
	if (driver && property && value && o.n == 3)
		key = xasprintf("%s.%s", driver, property);
	else
		key = xstrdup(o.n == 1 ? o.v[0].key : "");
	opts_set(&one, key, o.n == 1 ? o.v[0].value : value ? value : "");
	text = opts_format(&one);
	r = strspn(key, ".") || !strchr(key, '.') || !strchr(key, '.')[1]
		    ? err_set(e, EINVAL, "expected DRIVER.PROPERTY=VALUE")
		    : list_add(&c->global, text, NULL, e);
	free(text);
	free(key);
	opts_free(&one);
	opts_free(&o);
	return r;
}

static int opt_object(struct config *c, const char *arg, struct err *e)
{
	struct opt_item *item;
	int r;

	if (is_help(arg))
		return cli_object_help(NULL, e);
	r = list_add(&c->object, arg, "qom-type", e);
	if (r)
		return r;
	item = container_of(c->object.last, struct opt_item, next);
	if (asks_for_help(&item->opts))
		return cli_object_help(opts_get(&item->opts, "qom-type"), e);
	return 0;
}

static int opt_netdev(struct config *c, const char *arg, struct err *e)
{
	struct opt_item *item;
	int r;

	if (is_help(arg))
		return cli_netdev_help(NULL, e);
	r = list_add(&c->netdev, arg, "type", e);
	if (r)
		return r;
	item = container_of(c->netdev.last, struct opt_item, next);
	if (asks_for_help(&item->opts))
		return cli_netdev_help(opts_get(&item->opts, "type"), e);
	return 0;
}

/* Drive shorthands become -drive items: -hda FILE is file=FILE,if=ide,index=0,media=disk. */
static int add_drive(struct config *c, const char *file, const char *rest, struct err *e)
{
	struct opts o = {0};
	char *text, *full;
	int r;

	opts_set(&o, "file", file);
	text = opts_format(&o);
	full = xasprintf("%s,%s", text, rest);
	r = list_add(&c->drive, full, NULL, e);
	free(full);
	free(text);
	opts_free(&o);
	return r;
}

static int opt_hda(struct config *c, const char *arg, struct err *e)
{
	return add_drive(c, arg, "if=ide,index=0,media=disk", e);
}
static int opt_hdb(struct config *c, const char *arg, struct err *e)
{
	return add_drive(c, arg, "if=ide,index=1,media=disk", e);
}
static int opt_hdc(struct config *c, const char *arg, struct err *e)
{
	return add_drive(c, arg, "if=ide,index=2,media=disk", e);
}
static int opt_hdd(struct config *c, const char *arg, struct err *e)
{
	return add_drive(c, arg, "if=ide,index=3,media=disk", e);
}
static int opt_disk(struct config *c, const char *arg, struct err *e)
{
	return add_drive(c, arg, "if=ide,media=disk", e);
}
static int opt_cdrom(struct config *c, const char *arg, struct err *e)
{
	return add_drive(c, arg, "if=ide,index=2,media=cdrom", e);
}
static int opt_fda(struct config *c, const char *arg, struct err *e)
{
	return add_drive(c, arg, "if=floppy,index=0", e);
}
static int opt_fdb(struct config *c, const char *arg, struct err *e)
{
	return add_drive(c, arg, "if=floppy,index=1", e);
}

static int opt_no_reboot(struct config *c, const char *arg, struct err *e)
{
	(void)arg;
	(void)e;
	c->reboot = REBOOT_SHUTDOWN;
	return 0;
}

static int opt_no_shutdown(struct config *c, const char *arg, struct err *e)
{
	(void)arg;
	(void)e;
	c->shutdown = SHUTDOWN_PAUSE;
	return 0;
}

static int opt_sandbox(struct config *c, const char *arg, struct err *e)
{
	struct opts o;
	const char *v;
	int r = opts_parse(&o, arg, "enable", e);

	if (r)
		return r;
	v = opts_get(&o, "enable");
	if (!v || (strcmp(v, "on") && strcmp(v, "off")))
		r = err_set(e, EINVAL, "Parameter 'enable' expects 'on' or 'off'");
	else
		c->sandbox = !strcmp(v, "on");
	/* QEMU's sub-options ask for less than what we always do: accepted when they ask for denial. */
	for (size_t i = 0; !r && i < o.n; i++) {
		static const char *const known[] = {"obsolete", "elevateprivileges", "spawn", "resourcecontrol"};
		bool found = o.v[i].used;

		for (size_t k = 0; k < ARRAY_SIZE(known); k++)
			found |= !strcmp(o.v[i].key, known[k]);
		if (!found)
			r = err_set(e, EINVAL, "Invalid parameter '%s'", o.v[i].key);
		else if (!o.v[i].used && strcmp(o.v[i].value, "deny"))
			r = err_set(e, EINVAL,
				    "%s=%s: vmm's sandbox always denies this; use -sandbox off for debugging",
				    o.v[i].key, o.v[i].value);
	}
	opts_free(&o);
	return r;
}

static int opt_no_acpi(struct config *c, const char *arg, struct err *e)
{
	(void)arg;
	(void)e;
	c->machine.acpi = 0;
	return 0;
}

static int opt_no_hpet(struct config *c, const char *arg, struct err *e)
{
	(void)arg;
	(void)e;
	c->machine.hpet = 0;
	return 0;
}

static int opt_usb(struct config *c, const char *arg, struct err *e)
{
	(void)arg;
	(void)e;
	c->machine.usb = true;
	return 0;
}

static int opt_gdb_short(struct config *c, const char *arg, struct err *e)
{
	(void)arg;
	(void)e;
	return set_string(&c->gdb, "tcp::1234");
}

static int opt_d(struct config *c, const char *arg, struct err *e)
{
	(void)e;
	if (is_help(arg))
		return cli_log_help();
	return set_string(&c->log_filter, arg);
}

static int opt_overcommit(struct config *c, const char *arg, struct err *e)
{
	struct opts o;
	const char *v;
	int r = opts_parse(&o, arg, NULL, e);

	if (r)
		return r;
	v = opts_get(&o, "mem-lock");
	if (v && strcmp(v, "off") && strcmp(v, "on"))
		r = err_set(e, EINVAL, "Parameter 'mem-lock' expects 'on' or 'off'");
	c->mem_lock = v && !strcmp(v, "on");
	v = opts_get(&o, "cpu-pm");
	if (!r && v && strcmp(v, "off"))
		r = err_set(e, EINVAL, "cpu-pm=%s: CPU power management pass-through is not offered", v);
	for (size_t i = 0; !r && i < o.n; i++)
		if (!o.v[i].used)
			r = err_set(e, EINVAL, "Invalid parameter '%s'", o.v[i].key);
	opts_free(&o);
	return r;
}

static int opt_nic(struct config *c, const char *arg, struct err *e)
{
	struct opt_item *item;
	const char *model;
	int r = list_add(&c->nic, arg, "type", e);

	if (r)
		return r;
	item = container_of(c->nic.last, struct opt_item, next);
	model = opts_get(&item->opts, "model");
	if (is_help(arg))
		return cli_netdev_help(NULL, e);
	if (model && is_help(model))
		return cli_nic_help();
	return opts_get(&item->opts, "type") ? 0 : err_set(e, EINVAL, "Parameter 'type' is missing");
}

static int opt_net(struct config *c, const char *arg, struct err *e)
{
	struct opt_item *item;
	int r = list_add(&c->net, arg, "type", e);

	if (r)
		return r;
	item = container_of(c->net.last, struct opt_item, next);
	return opts_get(&item->opts, "type") ? 0 : err_set(e, EINVAL, "Parameter 'type' is missing");
}

/* VNC clients send key symbols, which we take for those of this layout. */
static int opt_k(struct config *c, const char *arg, struct err *e)
{
	(void)c;
	return strcmp(arg, "en-us") ? err_set(e, ENOTSUP, "keyboard layout '%s' is not offered; vmm has en-us", arg)
				    : 0;
}

static int opt_help(struct config *c, const char *arg, struct err *e)
{
	(void)c;
	(void)arg;
	(void)e;
	return cli_help();
}

static int opt_version(struct config *c, const char *arg, struct err *e)
{
	(void)c;
	(void)arg;
	(void)e;
	return cli_version();
}

/* ---- the table ---- */

enum row_kind { ROW_FN, ROW_FLAG, ROW_STRING, ROW_LIST, ROW_REFUSED };

struct row {
	struct option_desc d;
	enum row_kind kind;
	size_t offset;
	const char *implied;
	int (*fn)(struct config *c, const char *arg, struct err *e);
};

#define STD  "Standard options"
#define BLK  "Drives and block devices"
#define DSP  "Display and input"
#define CHR  "Consoles, serial and control"
#define NET  "Network"
#define BOOT "Boot and firmware"
#define RUN  "Running, stopping and privileges"
#define DBG  "Debugging"
#define FN(nm, ah, grp, hlp, f, pr)                                                \
	{                                                                          \
		.d = {nm, (ah) != NULL, ah, hlp, grp, pr}, .kind = ROW_FN, .fn = f \
	}
#define FLAG(nm, grp, hlp, member)                                                                                  \
	{                                                                                                           \
		.d = {nm, false, NULL, hlp, grp, NULL}, .kind = ROW_FLAG, .offset = offsetof(struct config, member) \
	}
#define STRING(nm, ah, grp, hlp, member)                                                                           \
	{                                                                                                          \
		.d = {nm, true, ah, hlp, grp, NULL}, .kind = ROW_STRING, .offset = offsetof(struct config, member) \
	}
#define LIST(nm, ah, grp, hlp, member, imp)                                                                       \
	{                                                                                                         \
		.d = {nm, true, ah, hlp, grp, NULL}, .kind = ROW_LIST, .offset = offsetof(struct config, member), \
		.implied = imp                                                                                    \
	}

/* Options of QEMU's that ask for what is not there: the help does not list them, who uses them is told. */
#define REFUSED(nm, why)                                                     \
	{                                                                    \
		.d = {nm, true, "...", why, NULL, NULL}, .kind = ROW_REFUSED \
	}

static const struct row rows[] = {
	FN("h", NULL, STD, "print this help and exit", opt_help, NULL),
	FN("help", NULL, STD, "print this help and exit", opt_help, NULL),
	FN("version", NULL, STD, "print the version and exit", opt_version, NULL),
	FN("machine", "[type=]NAME[,PROP=VALUE...]", STD, "machine type and its properties; -machine help lists them",
	   opt_machine, machine_props),
	FN("M", "NAME", STD, "same as -machine", opt_machine, NULL),
	FN("accel", "kvm|qtest[,kernel-irqchip=on|split][,dirty-ring-size=N]", STD, "what runs the guest", opt_accel,
	   NULL),
	FN("enable-kvm", NULL, STD, "same as -accel kvm, the default", opt_enable_kvm, NULL),
	FN("cpu", "MODEL[,+FEATURE|-FEATURE...]", STD, "CPU model; -cpu help lists models and features", opt_cpu, NULL),
	FN("smp", "[cpus=]N[,maxcpus=][,sockets=][,cores=][,threads=]", STD, "number and topology of vCPUs", opt_smp,
	   smp_props),
	FN("m", "[size=]MIB[,slots=N,maxmem=SIZE]", STD, "guest RAM (default 128 MiB); suffixes M, G and T", opt_memory,
	   memory_props),
	STRING("mem-path", "DIR", STD, "guest RAM in a file without a name there (a hugetlbfs for huge pages, say)",
	       mem_path),
	FLAG("mem-prealloc", STD,
	     "allocate all guest RAM before the guest starts; with -incoming: before it comes, which makes its "
	     "migration "
	     "faster",
	     mem_prealloc),
	FN("name", "NAME[,debug-threads=on]", STD, "name of the guest", opt_name, NULL),
	FN("uuid", "UUID", STD, "UUID of the guest, shown in SMBIOS", opt_uuid, NULL),
	FN("rtc", "[base=utc|localtime|DATE][,clock=host|rt|vm][,driftfix=none|slew]", STD, "real-time clock", opt_rtc,
	   rtc_props),
	LIST("device", "DRIVER[,PROP=VALUE...]", STD,
	     "add a device; -device help lists them, -device NAME,help its properties", device, "driver"),
	LIST("set", "device.ID.PROP=VALUE", STD, "another value for a property of one device", set, NULL),
	FN("global", "DRIVER.PROP=VALUE|driver=DRIVER,property=PROP,value=VALUE", STD,
	   "default for a property of all devices of a kind", opt_global, NULL),
	FN("object", "TYPE,id=ID[,PROP=VALUE...]", STD,
	   "create an object that devices refer to; -object help lists the types, -object TYPE,help their properties",
	   opt_object, NULL),
	FN("overcommit", "[mem-lock=on|off][,cpu-pm=off]", STD,
	   "mem-lock=on: keep all memory of vmm and guest out of swap", opt_overcommit, NULL),
	FN("netdev", "TYPE,id=ID[,PROP=VALUE...]", NET,
	   "network back end; -netdev help lists them, -netdev TYPE,help their properties", opt_netdev, NULL),
	FN("nic", "TYPE[,model=MODEL][,mac=MAC][,PROP=VALUE...]|none", NET,
	   "network back end and card in one; -nic model=help lists the cards (default: e1000; without -nic, -net and "
	   "-netdev: user)",
	   opt_nic, NULL),
	FN("net", "nic[,model=MODEL][,macaddr=MAC][,netdev=ID]|TYPE[,PROP=VALUE...]|none", NET,
	   "network card and back end as two options: one of each", opt_net, NULL),

	FN("disk", "FILE", BLK, "hard disk on the next free IDE position", opt_disk, NULL),
	FN("cdrom", "FILE", BLK, "CD-ROM image (second IDE channel, master)", opt_cdrom, NULL),
	FN("hda", "FILE", BLK, "hard disk: first IDE channel, master (also -hdb, -hdc, -hdd)", opt_hda, NULL),
	FN("hdb", "FILE", BLK, "hard disk: first IDE channel, slave", opt_hdb, NULL),
	FN("hdc", "FILE", BLK, "hard disk: second IDE channel, master", opt_hdc, NULL),
	FN("hdd", "FILE", BLK, "hard disk: second IDE channel, slave", opt_hdd, NULL),
	FN("fda", "FILE", BLK, "floppy disk A (also -fdb)", opt_fda, NULL),
	FN("fdb", "FILE", BLK, "floppy disk B", opt_fdb, NULL),
	LIST("drive",
	     "file=FILE[,if=ide|floppy|none][,index=N][,media=disk|cdrom][,format=raw][,cache=MODE][,aio=ENGINE]...",
	     BLK, "a drive and its image", drive, NULL),
	LIST("blockdev", "DRIVER[,node-name=NAME][,PROP=VALUE...]", BLK, "a block back end without a device", blockdev,
	     "driver"),
	FLAG("snapshot", BLK, "write to temporary files instead of the images", snapshot),
	LIST("add-fd", "fd=FD,set=SET[,opaque=TEXT]", BLK, "add an inherited file descriptor to /dev/fdset/SET", add_fd,
	     NULL),

	STRING("display", "none|curses|vnc=SPEC", DSP, "the screen; default: VNC on 127.0.0.1:0 if built in", display),
	FLAG("nographic", DSP, "no screen; serial port and monitor keys on the terminal", nographic),
	LIST("vnc", "HOST:N|unix:PATH|none[,password=on][,to=N]...", DSP, "serve the screen over VNC", vnc, "vnc"),
	FN("k", "en-us", DSP, "keyboard layout of VNC clients (only en-us)", opt_k, NULL),
	STRING("vga", "std|none", DSP, "graphics adapter", vga),
	LIST("audiodev", "none,id=ID", DSP, "audio back end (only none)", audiodev, "driver"),

	LIST("serial", "CHARDEV", CHR,
	     "serial port: stdio, pty, unix:PATH, tcp:HOST:PORT, file:PATH, null, mon:stdio ...", serial, NULL),
	LIST("parallel", "CHARDEV", CHR, "parallel port, as -serial", parallel, NULL),
	LIST("debugcon", "CHARDEV", CHR, "debug console at port 0xe9", debugcon, NULL),
	LIST("chardev", "BACKEND,id=ID[,PROP=VALUE...]", CHR, "character back end; -chardev help lists them", chardev,
	     "backend"),
	LIST("qmp", "CHARDEV", CHR, "QMP control socket: unix:PATH,server=on,wait=off or tcp:...", qmp, NULL),
	LIST("qmp-pretty", "CHARDEV", CHR, "as -qmp, with indented replies", qmp_pretty, NULL),
	LIST("mon", "[chardev=]ID[,mode=readline|control][,pretty=on]", CHR,
	     "a monitor on a chardev; mode=control: QMP", mon, "chardev"),
	STRING("metrics", "unix:PATH|tcp:HOST:PORT", CHR,
	       "serve the guest's metrics over HTTP at /metrics (OpenMetrics)", metrics),
	LIST("monitor", "DEV", CHR, "the monitor for people: stdio, pty, unix:PATH,server=on,wait=off ...; or none",
	     monitor, NULL),

	STRING("bios", "FILE", BOOT, "firmware image (default: SeaBIOS of the distribution)", bios),
	STRING("L", "DIR", BOOT, "directory to look for firmware first", firmware_dir),
	STRING("kernel", "FILE", BOOT, "boot this kernel directly: bzImage, PVH ELF or multiboot", kernel),
	STRING("initrd", "FILE", BOOT, "initial RAM disk (multiboot: \"module args,module2\")", initrd),
	STRING("append", "TEXT", BOOT, "kernel command line", append),
	FN("boot", "[order=]DRIVES[,once=][,menu=on][,strict=on][,splash-time=MS][,reboot-timeout=MS]", BOOT,
	   "boot order and menu", opt_boot, boot_props),
	LIST("smbios", "type=N[,FIELD=VALUE...]|file=FILE", BOOT, "SMBIOS fields", smbios, NULL),
	LIST("acpitable", "file=FILE|data=FILE[,sig=...]", BOOT, "add an ACPI table", acpitable, NULL),
	LIST("fw_cfg", "[name=]NAME,file=FILE|string=TEXT", BOOT, "add a file for the firmware and guest", fw_cfg,
	     "name"),
	FN("no-acpi", NULL, BOOT, "no ACPI tables", opt_no_acpi, NULL),
	FN("no-hpet", NULL, BOOT, "no HPET (there is none anyway)", opt_no_hpet, NULL),
	FN("usb", NULL, BOOT, "USB controller", opt_usb, NULL),

	FLAG("S", RUN, "do not start the vCPUs (QMP cont does)", stopped),
	FN("no-reboot", NULL, RUN, "exit instead of rebooting", opt_no_reboot, NULL),
	FN("no-shutdown", NULL, RUN, "stop instead of exiting when the guest powers off", opt_no_shutdown, NULL),
	FN("action",
	   "reboot=reset|shutdown,shutdown=poweroff|pause,panic=shutdown|pause|exit-failure|none,watchdog=...", RUN,
	   "what to do when the guest reboots, powers off, panics or hangs (see -watchdog-action)", opt_action,
	   action_props),
	STRING("incoming", "defer|tcp:[HOST]:PORT|unix:PATH|fd:N|exec:COMMAND", RUN,
	       "wait for a guest that migrates here", incoming),
	STRING("migration-allow", "NETWORK[,NETWORK...]", RUN,
	       "only these networks may send guests (10.0.0.0/8,fd00::/8)", migration_allow),
	STRING("loadvm", "NAME", RUN, "start from an internal snapshot", loadvm),
	FN("watchdog-action", "reset|shutdown|poweroff|pause|debug|none|inject-nmi", RUN,
	   "what to do when a watchdog (-device i6300esb) fires", opt_watchdog, NULL),
	FLAG("daemonize", RUN, "run in the background once everything is ready", daemonize),
	STRING("pidfile", "FILE", RUN, "write the process id to FILE and lock it", pidfile),
	STRING("runas", "USER|UID:GID", RUN, "drop root privileges to this user", runas),
	STRING("chroot", "DIR", RUN, "enter DIR before running the guest", chroot),
	FN("sandbox", "on|off", RUN, "seccomp filter per thread (default on; off is for debugging)", opt_sandbox, NULL),
	FLAG("nodefaults", RUN, "create no default devices", nodefaults),
	FLAG("no-user-config", RUN, "accepted for compatibility: there is no user configuration", no_user_config),

	STRING("D", "FILE", DBG, "write the log to FILE", log_file),
	FN("d", "ITEM[=LEVEL][,ITEM...]", DBG, "log more, or less: rooms, guest_errors, all; -d help lists them", opt_d,
	   NULL),
	LIST("msg", "[timestamp=on|off][,guest-name=on|off][,format=text|json]", DBG,
	     "time stamps, the guest's name, JSON lines in messages", msg, "timestamp"),
	STRING("qtest", "CHARDEV", DBG, "serve the qtest protocol (with -accel qtest)", qtest),
	STRING("qtest-log", "FILE", DBG, "log the qtest protocol", qtest_log),
	STRING("gdb", "DEV", DBG, "serve the gdb remote protocol", gdb),
	FN("s", NULL, DBG, "same as -gdb tcp::1234", opt_gdb_short, NULL),

	/* last: config_option() ends here */
	REFUSED("numa", "NUMA nodes are not offered: guest memory is one node"),
	REFUSED("spice", "SPICE is not offered: use -vnc"),
	REFUSED("fsdev", "shared folders are not offered"),
	REFUSED("virtfs", "shared folders are not offered"),
	REFUSED("tpmdev", "TPMs are not offered"),
};

const struct option_desc *config_option(size_t i)
{
	return i < ARRAY_SIZE(rows) && rows[i].kind != ROW_REFUSED ? &rows[i].d : NULL;
}

static int unknown_option(const char *arg, struct err *e)
{
	const char *names[ARRAY_SIZE(rows)], *near;
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (strlen(rows[i].d.name) > 1)
			names[n++] = rows[i].d.name;
	near = err_nearest(arg + strspn(arg, "-"), names, n);
	if (near)
		return err_set(e, EINVAL, "%s: invalid option; did you mean -%s?", arg, near);
	return err_set(e, EINVAL, "%s: invalid option; vmm --help lists all", arg);
}

static int take(struct config *c, const struct row *row, const char *arg, struct err *e)
{
	void *member = (uint8_t *)c + row->offset;

	switch (row->kind) {
	case ROW_REFUSED:
		return err_set(e, ENOTSUP, "%s", row->d.help);
	case ROW_FLAG:
		*(bool *)member = true;
		return 0;
	case ROW_STRING:
		return set_string(member, arg);
	case ROW_LIST:
		if (row->offset == offsetof(struct config, device))
			return opt_device(c, arg, e);
		/* -serial, -qmp ... take chardev specifications, which are not key=value lists */
		if (!strcmp(row->d.group, CHR) && !row->implied) {
			struct opt_list *list = member;
			struct opt_item *item = xzalloc(sizeof(*item));

			item->text = xstrdup(arg);
			if (!list->last)
				list->last = &list->first;
			*list->last = item;
			list->last = &item->next;
			return 0;
		}
		return list_add(member, arg, row->implied, e);
	case ROW_FN:
		return row->fn(c, arg, e);
	}
	return 0;
}

/* "-OPTION help" of those that do not look for it themselves; 1: it was printed. */
static int option_help(const struct row *row, const char *arg)
{
	const char *name = row->d.name;

	if (!arg || !is_help(arg))
		return 0;
	if (row->d.props && row->fn != opt_machine)
		return cli_props_help(name, row->d.props);
	if (!strcmp(name, "chardev"))
		return cli_chardev_help(NULL);
	if (!strcmp(name, "accel"))
		return cli_list_help("Accelerators", accel_names);
	if (!strcmp(name, "display"))
		return cli_list_help("Displays", (const char *const[]){"none", "curses", "vnc=HOST:N", NULL});
	if (!strcmp(name, "vga"))
		return cli_list_help("Graphics adapters", (const char *const[]){"std", "none", NULL});
	return 0;
}

/* The same for "-chardev BACKEND,help". */
static int backend_help(const struct config *c, const struct row *row)
{
	struct opt_item *item;

	if (row->kind != ROW_LIST || row->offset != offsetof(struct config, chardev))
		return 0;
	item = container_of(c->chardev.last, struct opt_item, next);
	return asks_for_help(&item->opts) ? cli_chardev_help(opts_get(&item->opts, "backend")) : 0;
}

static const struct row *find_row(const char *name)
{
	for (size_t k = 0; k < ARRAY_SIZE(rows); k++)
		if (!strcmp(rows[k].d.name, name))
			return &rows[k];
	return NULL;
}

int config_add(struct config *c, const char *option, const char *arg, struct err *e)
{
	const struct row *row = find_row(option);
	struct opt_list *list = config_list(c, option);
	int r;

	if (!row || !list || !strcmp(option, "device"))
		return err_set(e, EINVAL, "-%s is not an option with a list", option);
	/* The functions of -object and -netdev look for "help" as well, which prints. */
	r = row->kind == ROW_LIST || list == &c->global
		    ? take(c, row, arg, e)
		    : list_add(list, arg, strcmp(option, "netdev") ? "qom-type" : "type", e);
	return r ? err_prefix(e, "-%s %s", option, arg) : 0;
}

struct opt_list *config_list(struct config *c, const char *option)
{
	const struct row *row = find_row(option);

	if (!strcmp(option, "global"))
		return &c->global;
	if (!strcmp(option, "object"))
		return &c->object;
	if (!strcmp(option, "netdev"))
		return &c->netdev;
	return row && row->kind == ROW_LIST ? (struct opt_list *)((uint8_t *)c + row->offset) : NULL;
}

/* -machine with nothing but what KVM and the host do. */
static bool is_host_machine(const char *arg)
{
	static const char *const host[] = {"accel", "kernel-irqchip", "dirty-ring-size", "dump-guest-core",
					   "mem-merge"};
	struct opts o;
	bool all = true;

	if (opts_parse(&o, arg, "type", NULL))
		return false;
	for (size_t i = 0; i < o.n; i++) {
		bool known = false;

		for (size_t k = 0; k < ARRAY_SIZE(host); k++)
			known |= !strcmp(o.v[i].key, host[k]);
		all &= known;
	}
	opts_free(&o);
	return all;
}

/* Options that say what machine it is; without any, -incoming builds what arrives. */
static bool guest_sees(const char *name, const char *arg)
{
	static const char *const names[] = {"machine", "M",      "cpu",        "smp",      "m",         "rtc",
					    "device",  "global", "object",     "vga",      "bios",      "kernel",
					    "initrd",  "append", "boot",       "smbios",   "acpitable", "fw_cfg",
					    "no-acpi", "usb",    "nodefaults", "nographic"};

	if (!strcmp(name, "nic") || !strcmp(name, "net"))
		return strcmp(arg, "none");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i]))
			return i > 1 || !is_host_machine(arg);
	return false;
}

int config_parse(struct config *c, int argc, char **argv, struct err *e)
{
	config_defaults(c);
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i], *name = word + (word[0] == '-') + (word[0] == '-' && word[1] == '-');
		const struct row *row;
		int r;

		if (*word != '-' || !*name) {
			/* QEMU takes a bare word as the first hard disk */
			r = opt_hda(c, word, e);
			if (r)
				return r;
			continue;
		}
		row = find_row(name);
		if (!row)
			return unknown_option(word, e);
		if (row->d.has_arg && i + 1 >= argc)
			return err_set(e, EINVAL, "%s: requires an argument (%s)", word, row->d.arg_help);
		if (!c->guest_option && guest_sees(row->d.name, argv[i + row->d.has_arg]))
			c->guest_option = row->d.name;
		r = option_help(row, argv[i + row->d.has_arg]);
		if (!r)
			r = take(c, row, row->d.has_arg ? argv[++i] : NULL, e);
		if (!r)
			r = backend_help(c, row);
		if (r > 0)
			return r;
		if (r) {
			if (row->d.has_arg)
				err_prefix(e, "-%s %s", row->d.name, argv[i]);
			return r;
		}
	}
	return config_complete(c, e);
}
