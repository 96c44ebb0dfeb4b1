/* A guest's configuration: the tables of its keys, and the command line that comes of it. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *const policy_names[] = {"destroy",          "restart",          "preserve",
					   "coredump-destroy", "coredump-restart", NULL};
static const char *const plain_policies[] = {"destroy", "restart", "preserve", NULL};
static const char *const rtc_names[] = {"utc", "localtime", NULL};
static const char *const media_names[] = {"disk", "cdrom", "floppy", NULL};

#define G struct guest_config
const struct prop guest_props[] = {
	PROP(G, name, PROP_STR, .help = "name of the guest; without it, that of the file up to its last dot"),
	PROP(G, description, PROP_STR, .help = "text for people"),
	PROP(G, uuid, PROP_UUID, .help = "UUID, shown to the guest in SMBIOS"),
	PROP(G, memory, PROP_SIZE, .def = 128 * MIB, .min = MIB, .max = TIB,
	     .help = "RAM; a number without suffix counts MiB"),
	PROP(G, maxmem, PROP_SIZE, .max = TIB, .help = "most that mem-set may give; without it, memory"),
	PROP(G, vcpus, PROP_U32, .def = 1, .min = 1, .max = 255, .help = "processors at start"),
	PROP(G, maxvcpus, PROP_U32, .max = 255, .help = "processors after vcpu-set; without it, vcpus"),
	PROP(G, cpu, PROP_STR, .help = "CPU model and features, as vmm -cpu takes them"),
	PROP(G, cpus, PROP_STR, .help = "host processors the vCPUs may use: 0-3,^1 or all"),
	PROP_NAMED(G, "cpu-weight", cpu_weight, PROP_U32, .max = 65535,
		   .help = "share of the processors; 256 is one share, 0 leaves the host's default"),
	PROP_NAMED(G, "cpu-cap", cpu_cap, PROP_U32, .max = 102400,
		   .help = "most processor time, in per cent of one; 0 is no limit"),
	PROP(G, machine, PROP_STR, .help = "further -machine properties, such as kernel-irqchip=split"),
	PROP(G, boot, PROP_STR, .help = "boot order: letters of a (floppy), c (disk), d (CD-ROM), n (network)"),
	PROP(G, bios, PROP_STR, .help = "firmware image"),
	PROP(G, kernel, PROP_STR, .help = "boot this kernel directly"),
	PROP(G, initrd, PROP_STR, .help = "initial RAM disk for kernel"),
	PROP(G, append, PROP_STR, .help = "command line for kernel"),
	PROP(G, acpi, PROP_BOOL, .def = 1, .help = "ACPI tables; shutdown needs them"),
	PROP(G, rtc, PROP_ENUM, .values = rtc_names, .help = "what the guest's clock shows at start"),
	PROP(G, vga, PROP_STR, .def_str = "std", .help = "graphics adapter: std or none"),
	PROP(G, vnc, PROP_STR, .def_str = HAVE_VNC ? "127.0.0.1:0,to=99" : "none",
	     .help = "where the screen is served, as vmm -vnc takes it, or none"),
	PROP_NAMED(G, "vnc-password", vnc_password, PROP_STR, .help = "password of the screen, 8 characters at most"),
	PROP(G, pvpanic, PROP_BOOL, .def = 1, .help = "a device by which the guest reports a panic, for on-crash"),
	PROP(G, balloon, PROP_BOOL, .def = 1, .help = "a memory balloon, for mem-set"),
	PROP(G, metrics, PROP_BOOL, .def = 1, .help = "OpenMetrics text on metrics.sock in the run directory"),
	PROP_NAMED(G, "shutdown-timeout", shutdown_timeout, PROP_U32, .def = 90, .min = 1, .max = 3600,
		   .help = "seconds its keeper gives the guest to shut down, when service or host are stopped"),
	PROP_NAMED(G, "on-poweroff", on_poweroff, PROP_ENUM, .values = plain_policies,
		   .help = "when the guest powers off"),
	PROP_NAMED(G, "on-reboot", on_reboot, PROP_ENUM, .values = plain_policies, .def = POLICY_RESTART,
		   .help = "when the guest reboots"),
	PROP_NAMED(G, "on-crash", on_crash, PROP_ENUM, .values = policy_names,
		   .help = "when the guest reports a panic, or vmm fails; coredump-* first write a dump"),
	PROP(G, sandbox, PROP_BOOL, .def = 1, .help = "seccomp filters; off is for debugging"),
	PROP(G, runas, PROP_STR, .help = "user vmm runs as, once it has opened its files"),
	PROP(G, extra, PROP_STR, .help = "further words for vmm's command line, quoted as in a shell"),
	PROP_END,
};
#undef G
const struct prop disk_props[] = {
	PROP(struct disk_config, file, PROP_STR, .help = "image or block device; none: an empty drive (cdrom, floppy)"),
	PROP(struct disk_config, target, PROP_STR,
	     .help = "hda to hdd, fda or fdb; without it, the first free of its kind"),
	PROP(struct disk_config, media, PROP_ENUM, .values = media_names, .help = "what kind of drive"),
	PROP(struct disk_config, format, PROP_STR, .help = "image format; without it vmm looks"),
	PROP(struct disk_config, readonly, PROP_BOOL, .help = "refuse to write"),
	PROP(struct disk_config, shared, PROP_BOOL, .help = "other guests may use the image at the same time"),
	PROP(struct disk_config, cache, PROP_STR, .help = "cache mode, as vmm -drive takes it"),
	PROP(struct disk_config, aio, PROP_STR, .help = "engine: threads, native or io_uring"),
	PROP_END,
};
const struct prop serial_props[] = {
	PROP(struct serial_config, type, PROP_STR, .def_str = "console",
	     .help = "console (for vmmctl console and dmesg), pty, none, or what vmm -serial takes"),
	PROP_END,
};
const struct prop nic_props[] = {
	PROP(struct nic_config, mac, PROP_STR,
	     .help = "address, as 52:54:00:12:34:56; without it, one that follows from the guest's uuid or name"),
	PROP(struct nic_config, model, PROP_STR,
	     .help = "kind of card, as vmm -device has them; without it e1000, which most systems know"),
	PROP(struct nic_config, bridge, PROP_STR, .help = "the host's bridge it joins"),
	PROP(struct nic_config, forward, PROP_STR,
	     .help = "without bridge: ports of the host that lead to the guest, such as tcp:127.0.0.1:2222-:22"),
	PROP(struct nic_config, netdev, PROP_STR,
	     .help = "another kind of network, as vmm -netdev takes it but for the id"),
	PROP(struct nic_config, helper, PROP_STR, .help = "program that makes a tap on the bridge"),
	PROP_END,
};
const struct config_section config_sections[] = {
	{"", "The guest itself; these keys stand before the first section.", guest_props},
	{"disk", "A drive. One section for each.", disk_props},
	{"serial", "A serial port. Without any section there is one of type console.", serial_props},
	{"nic",
	 "A network card. Without bridge= and netdev= the guest has a network of its own and reaches others as a "
	 "program of the host "
	 "would, through NAT. With bridge= it has a tap there, for which root, or a service with CAP_NET_ADMIN, needs "
	 "no more; other users need "
	 "Debian's qemu-system-common, whose bridge helper reads /etc/qemu/bridge.conf.",
	 nic_props},
	{"device", "A further device; driver= and its properties go to vmm -device as they are.", NULL},
	{NULL},
};

/* ---- life ---- */

struct guest_config *guest_config_new(void)
{
	struct guest_config *c = xzalloc(sizeof(*c));

	props_default(guest_props, c);
	return c;
}

#define ADD(kind, props)                                                      \
	struct kind##_config *guest_config_add_##kind(struct guest_config *c) \
	{                                                                     \
		struct kind##_config *new = xzalloc(sizeof(*new)), **at;      \
                                                                              \
		for (at = &c->kind##s; *at; at = &(*at)->next) {              \
		}                                                             \
		*at = new;                                                    \
		props_default(props, new);                                    \
		return new;                                                   \
	}
static const struct prop no_props[] = {PROP_END}; /* a device's belong to vmm */
ADD(disk, disk_props)
ADD(serial, serial_props)
ADD(nic, nic_props)
ADD(device, no_props)

#define DROP(list, props)                             \
	while (list) {                                \
		__typeof__(list) next = (list)->next; \
                                                      \
		props_free(props, list);              \
		free(list);                           \
		list = next;                          \
	}

void guest_config_free(struct guest_config *c)
{
	if (!c)
		return;
	DROP(c->disks, disk_props);
	DROP(c->serials, serial_props);
	DROP(c->nics, nic_props);
	while (c->devices) {
		struct device_config *next = c->devices->next;

		opts_free(&c->devices->opts);
		free(c->devices);
		c->devices = next;
	}
	props_free(guest_props, c);
	free(c);
}

struct guest_config *guest_config_copy(const struct guest_config *c)
{
	struct guest_config *copy = guest_config_new();
	char *text = config_format(c);

	config_parse_native(copy, "", text, strlen(text), NULL);
	free(text);
	return copy;
}

int guest_config_set(struct guest_config *c, const char *key, const char *value, struct err *e)
{
	bool mib = (!strcmp(key, "memory") || !strcmp(key, "maxmem")) && *value &&
		   strspn(value, "0123456789") == strlen(value);
	char *text = xasprintf("%s%s", value, mib ? "M" : "");
	int r = props_set(guest_props, c, "guest", key, text, e);

	c->memory = ALIGN_DOWN(c->memory, KIB);
	c->maxmem = ALIGN_DOWN(c->maxmem, KIB);
	free(text);
	return r;
}

void notes_add(struct notes *n, char *text)
{
	n->v = xrealloc(n->v, (n->n + 1) * sizeof(*n->v));
	n->v[n->n++] = text;
}

void notes_free(struct notes *n)
{
	for (size_t i = 0; i < n->n; i++)
		free(n->v[i]);
	free(n->v);
	*n = (struct notes){0};
}

/* ---- checks ---- */

static void make_absolute(char **path, const char *dir)
{
	char *full;

	if (!*path || !**path || **path == '/' || !dir)
		return;
	full = xasprintf("%s/%s", dir, *path);
	free(*path);
	*path = full;
}

#define IDE_PLACES 4
#define FD_PLACES  2

/* hda..hdd, fda, fdb; Xen's names of the same drives count as well. The place, or -1. */
static int place_of(const char *target, bool *floppy)
{
	static const char *const prefixes[] = {"hd", "xvd", "sd", "vd", "fd"};

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		size_t n = strlen(prefixes[i]);
		int place = strncmp(target, prefixes[i], n) ? -1 : target[n] - 'a';

		*floppy = i == ARRAY_SIZE(prefixes) - 1;
		if (place >= 0 && place < (*floppy ? FD_PLACES : IDE_PLACES) && !target[n + 1])
			return place;
	}
	return -1;
}

/* Give every drive a place of its own, in the order of the file. */
static int place_disks(struct guest_config *c, struct err *e)
{
	bool taken[2][IDE_PLACES] = {0};
	int n = 0, place;

	for (struct disk_config *d = c->disks; d; d = d->next) {
		bool floppy;

		if (!d->target)
			continue;
		place = place_of(d->target, &floppy);
		if (place < 0)
			return err_set(e, EINVAL, "disk target '%s': the places are hda to hdd, fda and fdb",
				       d->target);
		if (floppy != (d->media == 2) && d->media) /* fda says enough without media=floppy */
			return err_set(e, EINVAL, "disk target '%s' does not fit media=%s", d->target,
				       media_names[d->media]);
		if (floppy)
			d->media = 2;
		if (taken[floppy][place])
			return err_set(e, EINVAL, "two disks have the place %s", d->target);
		taken[floppy][place] = true;
		free(d->target);
		d->target = xasprintf("%sd%c", floppy ? "f" : "h", 'a' + place);
	}
	for (struct disk_config *d = c->disks; d; d = d->next, n++) {
		bool floppy = d->media == 2;
		/* a CD-ROM goes where PCs have it */
		place = d->media == 1 ? 2 : 0;
		if (!d->media && !d->file)
			return err_set(e, EINVAL, "disk %d: file= is missing", n + 1);
		if (d->target)
			continue;
		while (place < (floppy ? FD_PLACES : IDE_PLACES) && taken[floppy][place])
			place++;
		if (place == (floppy ? FD_PLACES : IDE_PLACES))
			return err_set(e, EINVAL, "disk %d: no place is free for a further %s", n + 1,
				       media_names[d->media]);
		taken[floppy][place] = true;
		d->target = xasprintf("%sd%c", floppy ? "f" : "h", 'a' + place);
	}
	return 0;
}

int guest_config_complete(struct guest_config *c, const char *dir, const char *default_name, struct err *e)
{
	char **const paths[] = {&c->kernel, &c->initrd};
	int r;

	if (!c->name || !*c->name) {
		free(c->name);
		c->name = xstrdup(default_name);
	}
	if (c->maxmem && c->maxmem < c->memory)
		return err_set(e, EINVAL, "maxmem is less than memory");
	if (c->maxvcpus && c->maxvcpus < c->vcpus)
		return err_set(e, EINVAL, "maxvcpus=%u is less than vcpus=%u", c->maxvcpus, c->vcpus);
	if (c->vnc_password && strlen(c->vnc_password) > 8)
		return err_set(e, EINVAL, "vnc-password: VNC takes 8 characters at most");
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		make_absolute(paths[i], dir);
	if (c->bios && strchr(c->bios, '/'))
		make_absolute(&c->bios, dir);
	for (struct disk_config *d = c->disks; d; d = d->next) {
		if (d->file && !*d->file) {
			free(d->file);
			d->file = NULL;
		}
		make_absolute(&d->file, dir);
	}
	r = place_disks(c, e);
	for (struct nic_config *n = c->nics; !r && n; n = n->next)
		r = nic_check(n, e);
	for (struct device_config *d = c->devices; !r && d; d = d->next)
		if (!opts_get(&d->opts, "driver"))
			r = err_set(e, EINVAL, "a [device] without driver=");
	return r;
}

/* ---- command line ---- */

void argv_add(struct argv *a, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	if (fmt) {
		va_start(ap, fmt);
		if (vasprintf(&text, fmt, ap) < 0)
			abort();
		va_end(ap);
	}
	a->v = xrealloc(a->v, (a->n + 2) * sizeof(*a->v));
	a->v[a->n++] = text;
	a->v[a->n] = NULL;
}

void argv_free(struct argv *a)
{
	for (size_t i = 0; i < a->n; i++)
		free(a->v[i]);
	free(a->v);
	*a = (struct argv){0};
}

char *argv_quote(const struct argv *a)
{
	size_t len = 1;
	char *out, *to;

	for (size_t i = 0; i < a->n; i++)
		len += strlen(a->v[i]) * 4 + 3;
	out = to = xzalloc(len);
	for (size_t i = 0; i < a->n; i++) {
		const char *s = a->v[i];
		bool plain =
			*s && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:@%") ==
				      strlen(s);

		if (i)
			*to++ = ' ';
		if (plain) {
			to = stpcpy(to, s);
			continue;
		}
		*to++ = '\'';
		for (; *s; s++) {
			if (*s == '\'')
				to = stpcpy(to, "'\\''");
			else
				*to++ = *s;
		}
		*to++ = '\'';
	}
	*to = 0;
	return out;
}

/* Split as a shell does: blanks, '...', "..." with \, and \ before anything. */
static int add_words(struct argv *a, const char *s, struct err *e)
{
	char *word = xzalloc(strlen(s) + 1);
	int r = 0;

	while (*(s += strspn(s, " \t\n")) && !r) {
		size_t n = 0;

		while (*s && !strchr(" \t\n", *s)) {
			char quote = *s == '\'' || *s == '"' ? *s++ : 0;

			if (!quote) {
				if (*s == '\\' && s[1])
					s++;
				word[n++] = *s++;
				continue;
			}
			while (*s && *s != quote) {
				if (quote == '"' && *s == '\\' && s[1])
					s++;
				word[n++] = *s++;
			}
			if (!*s) {
				r = err_set(e, EINVAL, "extra: a quote is not closed");
				break;
			}
			s++;
		}
		word[n] = 0;
		if (!r)
			argv_add(a, "%s", word);
	}
	free(word);
	return r;
}

static void add_drive(struct argv *a, const struct disk_config *d)
{
	bool floppy = d->target[0] == 'f';
	struct opts o = {0};
	char index[2] = {'0' + (d->target[2] - 'a'), 0}, *text;

	if (d->file)
		opts_set(&o, "file", d->file);
	opts_set(&o, "if", floppy ? "floppy" : "ide");
	opts_set(&o, "index", index);
	if (!floppy)
		opts_set(&o, "media", d->media == 1 ? "cdrom" : "disk");
	if (d->format && d->file)
		opts_set(&o, "format", d->format);
	if (d->readonly && d->media != 1)
		opts_set(&o, "readonly", "on");
	if (d->shared)
		opts_set(&o, "file.locking", "off");
	if (d->cache)
		opts_set(&o, "cache", d->cache);
	if (d->aio)
		opts_set(&o, "aio", d->aio);
	text = opts_format(&o);
	argv_add(a, "-drive");
	argv_add(a, "%s", text);
	free(text);
	opts_free(&o);
}

static void add_options(struct argv *a, const char *option, const struct opts *o, const char *first)
{
	char *text = opts_format(o);

	argv_add(a, "%s", option);
	argv_add(a, "%s", strncmp(text, first, strlen(first)) ? text : text + strlen(first));
	free(text);
}

static int add_nics(struct argv *a, const struct guest_config *c, struct err *e)
{
	static const uint8_t no_uuid[16];
	char *uuid = prop_format(prop_find(guest_props, "uuid"), c);
	unsigned number = 0;
	int r = 0;

	for (const struct nic_config *n = c->nics; !r && n; n = n->next, number++) {
		struct opts netdev = {0}, device = {0};
		char id[16];

		snprintf(id, sizeof(id), "nic%u", number);
		r = nic_command_line(n, id, memcmp(c->uuid, no_uuid, 16) ? uuid : c->name, number, &netdev, &device, e);
		if (!r) {
			add_options(a, "-netdev", &netdev, "type=");
			add_options(a, "-device", &device, "driver=");
		}
		opts_free(&netdev);
		opts_free(&device);
	}
	if (!number) {
		argv_add(a, "-nic");
		argv_add(a, "none");
	}
	free(uuid);
	return r;
}

static void add_serial(struct argv *a, unsigned n, const char *type)
{
	char number[12] = "";

	if (n)
		snprintf(number, sizeof(number), "%u", n);
	if (strcmp(type, "console")) {
		argv_add(a, "-serial");
		argv_add(a, "%s", type);
		return;
	}
	argv_add(a, "-chardev");
	argv_add(a, "socket,id=console%u,path=console%s.sock,server=on,wait=off,logfile=console%s.log,logappend=on", n,
		 number, number);
	argv_add(a, "-serial");
	argv_add(a, "chardev:console%u", n);
}

/* Where the keeper must decide what becomes of the guest, vmm only stops. */
static void add_actions(struct argv *a, const struct guest_config *c)
{
	bool stop = c->on_poweroff == POLICY_PRESERVE || c->on_reboot == POLICY_PRESERVE;

	argv_add(a, "-action");
	argv_add(a, "reboot=%s,shutdown=%s,panic=pause", c->on_reboot == POLICY_RESTART ? "reset" : "shutdown",
		 stop ? "pause" : "poweroff");
}

static void add_machine(struct argv *a, const struct guest_config *c)
{
	argv_add(a, "-machine");
	argv_add(a, "pc%s%s%s", c->acpi ? "" : ",acpi=off", c->machine ? "," : "", c->machine ? c->machine : "");
	argv_add(a, "-m");
	argv_add(a, "size=%lluK", (unsigned long long)(c->memory / KIB));
	argv_add(a, "-smp");
	argv_add(a, "%u,maxcpus=%u", c->vcpus, MAX(c->vcpus, c->maxvcpus));
	if (c->rtc) {
		argv_add(a, "-rtc");
		argv_add(a, "base=%s", rtc_names[c->rtc]);
	}
}

static void add_strings(struct argv *a, const struct guest_config *c)
{
	const struct {
		const char *option, *value;
	} plain[] = {{"-cpu", c->cpu},       {"-boot", c->boot},     {"-bios", c->bios}, {"-kernel", c->kernel},
		     {"-initrd", c->initrd}, {"-append", c->append}, {"-vga", c->vga},   {"-runas", c->runas}};

	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		if (plain[i].value) {
			argv_add(a, "%s", plain[i].option);
			argv_add(a, "%s", plain[i].value);
		}
}

static void add_screen(struct argv *a, const struct guest_config *c)
{
	if (!c->vnc || !strcmp(c->vnc, "none")) {
		argv_add(a, "-display");
		argv_add(a, "none");
		return;
	}
	argv_add(a, "-vnc");
	argv_add(a, "%s%s", c->vnc, c->vnc_password ? ",password=on" : "");
}

int config_command_line(const struct guest_config *c, const char *vmm, struct argv *out, struct err *e)
{
	static const uint8_t no_uuid[16];
	unsigned n = 0;

	argv_add(out, "%s", vmm);
	argv_add(out, "-name");
	argv_add(out, "%s", c->name);
	add_machine(out, c);
	if (memcmp(c->uuid, no_uuid, sizeof(no_uuid))) {
		char *uuid = prop_format(prop_find(guest_props, "uuid"), c);

		argv_add(out, "-uuid");
		argv_add(out, "%s", uuid);
		free(uuid);
	}
	add_strings(out, c);
	for (const struct disk_config *d = c->disks; d; d = d->next)
		add_drive(out, d);
	for (const struct serial_config *s = c->serials; s; s = s->next)
		add_serial(out, n++, s->type);
	if (!c->serials)
		add_serial(out, 0, "console");
	argv_add(out, "-parallel");
	argv_add(out, "none");
	add_screen(out, c);
	if (c->pvpanic) {
		argv_add(out, "-device");
		argv_add(out, "pvpanic");
	}
	if (c->balloon) {
		argv_add(out, "-device");
		argv_add(out, "virtio-balloon-pci,deflate-on-oom=on");
	}
	if (add_nics(out, c, e))
		return -EINVAL;
	for (const struct device_config *d = c->devices; d; d = d->next)
		add_options(out, "-device", &d->opts, "driver=");
	add_actions(out, c);
	if (!c->sandbox) {
		argv_add(out, "-sandbox");
		argv_add(out, "off");
	}
	if (c->metrics) {
		argv_add(out, "-metrics");
		argv_add(out, "unix:metrics.sock");
	}
	for (const char *const *w = (const char *const[]){"-msg", "timestamp=on", "-qmp",
							  "unix:qmp.sock,server=on,wait=off", "-pidfile", "pid", NULL};
	     *w; w++)
		argv_add(out, "%s", *w);
	return c->extra ? add_words(out, c->extra, e) : 0;
}
