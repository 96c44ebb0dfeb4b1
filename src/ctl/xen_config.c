/*
 * Xen's configuration files of HVM guests, as xm and xl took them. xm's files were Python programs; nearly all are
 * assignments of constants, which is what is read here: strings ('..', "..", '''..''', r'..'; adjacent ones join),
 * whole numbers, True, False, None, lists, tuples, # comments, lines continued by a bracket or a backslash. Code is
 * refused with its place.
 *
 * References: xmdomain.cfg(5), xl.cfg(5), xl-disk-configuration(5), xl-network-configuration(5) of Xen 4.x.
 * Left out: += of xl, dictionaries, names of other settings as values.
 */
#include "xen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- values ---- */

const char *xen_type_name(enum xen_type t)
{
	static const char *const names[] = {"None", "a number", "a string", "a list"};

	return names[t];
}

/* As text; NULL for None, with a mistake for lists. Numbers are written out, as xl does. malloc'ed. */
int xen_text(struct xen *x, const char *key, const struct xen_value *v, char **out, struct err *e)
{
	*out = NULL;
	if (v->type == XEN_LIST)
		return xen_mistake_at(x, AT(v), e, "%s: a string was expected, not a list", key);
	if (v->type == XEN_STRING)
		*out = xstrdup(v->string);
	else if (v->type == XEN_NUMBER)
		*out = xasprintf("%lld", v->number);
	return 0;
}

/* xl takes numbers in quotes too. */
int xen_number(struct xen *x, const char *key, const struct xen_value *v, long long *out, struct err *e)
{
	char *end;

	*out = v->number;
	if (v->type == XEN_NUMBER)
		return 0;
	if (v->type == XEN_STRING) {
		*out = strtoll(v->string, &end, 0);
		if (*v->string && !*end)
			return 0;
	}
	return xen_mistake_at(x, AT(v), e, "%s: a number was expected, not %s%s%.80s%s", key, xen_type_name(v->type),
			      v->type == XEN_STRING ? " '" : "", v->type == XEN_STRING ? v->string : "",
			      v->type == XEN_STRING ? "'" : "");
}

int xen_set(struct xen *x, const char *key, const struct xen_value *v, const char *ours, const char *text,
	    struct err *e)
{
	struct err why = ERR_INIT;

	if (guest_config_set(x->c, ours, text, &why))
		return xen_mistake_at(x, AT(v), e, "%s: %.500s", key, why.msg);
	return 0;
}

/* ---- settings ---- */

static int as_text(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	char *text;
	int r = xen_text(x, s->name, v, &text, e);

	if (!r && text && *text)
		r = xen_set(x, s->name, v, s->ours, text, e);
	free(text);
	return r;
}

static int as_number(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	long long n;
	char text[24];
	int r = xen_number(x, s->name, v, &n, e);

	snprintf(text, sizeof(text), "%lld", n);
	return r ? r : xen_set(x, s->name, v, s->ours, text, e);
}

static int as_bool(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	long long n;
	int r = xen_number(x, s->name, v, &n, e);

	return r ? r : xen_set(x, s->name, v, s->ours, n ? "on" : "off", e);
}

static int as_kernel(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	const char *slash = v->type == XEN_STRING ? strrchr(v->string, '/') : NULL;

	if (v->type == XEN_STRING && strstr(slash ? slash : v->string, "hvmloader"))
		return 0; /* Xen's firmware: SeaBIOS takes its place */
	return as_text(x, s, v, e);
}

static int as_builder(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	if (v->type == XEN_STRING && !strcmp(v->string, "hvm"))
		return 0;
	return xen_mistake_at(x, AT(v), e, "%s='%.40s': a paravirtualized guest; vmm runs only complete PCs (hvm)",
			      s->name, v->type == XEN_STRING ? v->string : xen_type_name(v->type));
}

/* Two command-line settings of Linux: root= and extra. */
static int as_append(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	char *text, *before = x->c->append, *joined;
	int r = xen_text(x, s->name, v, &text, e);

	if (r || !text || !*text) {
		free(text);
		return r;
	}
	joined = xasprintf("%s%s%s%s", before ? before : "", before ? " " : "", !strcmp(s->name, "root") ? "root=" : "",
			   text);
	free(before);
	x->c->append = joined;
	free(text);
	return 0;
}

static int as_policy(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	if (v->type == XEN_STRING && !strcmp(v->string, "rename-restart")) {
		xen_note(x, v, "%s: rename-restart is taken as restart: the old guest is not kept", s->name);
		return xen_set(x, s->name, v, s->ours, "restart", e);
	}
	return as_text(x, s, v, e);
}

static int as_localtime(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	long long n;
	int r = xen_number(x, s->name, v, &n, e);

	return r ? r : xen_set(x, s->name, v, s->ours, n ? "localtime" : "utc", e);
}

/* boot="cda", or a list in old xl files */
static int as_boot(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	if (v->type == XEN_LIST)
		return xen_mistake_at(x, AT(v), e, "boot: letters of a, c, d and n were expected, such as \"dc\"");
	return as_text(x, s, v, e);
}

static int as_cpus(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	if (v->type != XEN_LIST)
		return as_text(x, s, v, e);
	xen_note(x, v, "cpus: a list pins each vCPU by itself, which is ignored; use vmmctl vcpu-pin");
	return 0;
}

static int as_serial(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	size_t n = v->type == XEN_LIST ? v->n : 1;

	for (size_t i = 0; i < n; i++) {
		const struct xen_value *item = v->type == XEN_LIST ? &v->items[i] : v;
		struct serial_config *port;
		char *text;
		int r = xen_text(x, s->name, item, &text, e);

		if (r)
			return r;
		if (!text || !*text) {
			free(text);
			continue;
		}
		/* xm console reached a pty; here vmmctl console reaches a socket */
		port = guest_config_add_serial(x->c);
		free(port->type);
		port->type = !strcmp(text, "pty") ? xstrdup("console") : xstrdup(text);
		free(text);
	}
	return 0;
}

static int as_screen(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	long long n = 0;
	int r;

	if (!strcmp(s->name, "vnclisten")) {
		free(x->vnc_listen);
		return xen_text(x, s->name, v, &x->vnc_listen, e);
	}
	r = xen_number(x, s->name, v, &n, e);
	if (r)
		return r;
	if (!strcmp(s->name, "vnc"))
		x->vnc = n, x->vnc_seen = true;
	else if (!strcmp(s->name, "vncunused"))
		x->vnc_unused = n;
	else if (!strcmp(s->name, "vncdisplay"))
		x->vnc_display = n;
	if (!strcmp(s->name, "sdl") && n)
		xen_note(x, v, "sdl: ignored, vmm has no window of its own; use vnc=1 and vmmctl console --graphical");
	if (!strcmp(s->name, "vncdisplay") && (n < 0 || n > 9999))
		return xen_mistake_at(x, AT(v), e, "vncdisplay: 0 to 9999 was expected");
	return 0;
}

static int as_stdvga(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	long long n;
	int r = xen_number(x, s->name, v, &n, e);

	if (!r && !n)
		xen_note(x, v, "stdvga=0: vmm has the standard adapter only, not Cirrus'");
	return r;
}

static int as_vga(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	char *text;
	int r = xen_text(x, s->name, v, &text, e);

	if (!r && text && !strcmp(text, "none"))
		r = xen_set(x, s->name, v, "vga", "none", e);
	else if (!r && text && strcmp(text, "stdvga"))
		xen_note(x, v, "vga='%.40s': vmm has the standard adapter only", text);
	free(text);
	return r;
}

static bool is_on(const struct xen_value *v)
{
	return v->type == XEN_LIST     ? v->n > 0
	       : v->type == XEN_STRING ? *v->string && strcmp(v->string, "0")
				       : v->number != 0;
}

/* Ignored, with a word if it asks for anything. */
static int as_ignored(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	if (s->why && is_on(v))
		xen_note(x, v, "%s: ignored, %s", s->name, s->why);
	return 0;
}

/* ---- the table ---- */

#define NO_XEN   "there is no Xen below"
#define NO_AUDIO "vmm has no sound card"
#define NO_USB   "vmm has no USB controller; the mouse is PS/2"
#define NO_PCI   "PCI devices of the host are not handed on"
#define SET(name, ours, how)          \
	{                             \
		name, ours, how, NULL \
	}
#define IGNORED(name, why)                  \
	{                                   \
		name, NULL, as_ignored, why \
	}
static const struct xen_setting settings[] = {
	SET("name", "name", as_text),
	SET("uuid", "uuid", as_text),
	SET("memory", "memory", as_number),
	SET("maxmem", "maxmem", as_number),
	SET("vcpus", "vcpus", as_number),
	SET("maxvcpus", "maxvcpus", as_number),
	SET("cpus", "cpus", as_cpus),
	SET("cpu_weight", "cpu-weight", as_number),
	SET("cpu_cap", "cpu-cap", as_number),
	SET("builder", NULL, as_builder),
	SET("type", NULL, as_builder),
	SET("kernel", "kernel", as_kernel),
	SET("ramdisk", "initrd", as_text),
	SET("root", "append", as_append),
	SET("extra", "append", as_append),
	SET("cmdline", "append", as_append),
	SET("bios_override", "bios", as_text),
	SET("boot", "boot", as_boot),
	SET("acpi", "acpi", as_bool),
	SET("localtime", "rtc", as_localtime),
	SET("on_poweroff", "on-poweroff", as_policy),
	SET("on_reboot", "on-reboot", as_policy),
	SET("on_crash", "on-crash", as_policy),
	SET("disk", NULL, xen_as_disks),
	SET("cdrom", NULL, xen_as_cdrom),
	SET("fda", NULL, xen_as_floppy),
	SET("fdb", NULL, xen_as_floppy),
	SET("vif", NULL, xen_as_vifs),
	SET("serial", NULL, as_serial),
	SET("vnc", NULL, as_screen),
	SET("vncdisplay", NULL, as_screen),
	SET("vncunused", NULL, as_screen),
	SET("vnclisten", NULL, as_screen),
	SET("vncpasswd", "vnc-password", as_text),
	SET("sdl", NULL, as_screen),
	SET("stdvga", NULL, as_stdvga),
	SET("vga", NULL, as_vga),
	IGNORED("apic", NULL), /* always there */
	IGNORED("pae", NULL),
	IGNORED("nx", NULL),
	IGNORED("hap", NULL),
	IGNORED("shadow_memory", NULL),
	IGNORED("device_model", NULL),
	IGNORED("device_model_version", NULL),
	IGNORED("device_model_override", NULL),
	IGNORED("vncconsole", NULL),
	IGNORED("xauthority", NULL),
	IGNORED("nographic", NULL),
	IGNORED("timer_mode", NULL),
	IGNORED("acpi_s3", NULL),
	IGNORED("acpi_s4", NULL),
	IGNORED("bios", NULL),
	IGNORED("keymap", "keys reach the guest by their place on the keyboard"),
	IGNORED("monitor", "control is by vmmctl qmp"),
	IGNORED("hpet", "vmm has no HPET"),
	IGNORED("viridian", "Hyper-V's interface is chosen by cpu= in vmm.conf"),
	IGNORED("xen_platform_pci", NO_XEN),
	IGNORED("vfb", "vnc= says where the screen goes"),
	IGNORED("rtc_timeoffset", "the clock starts at the host's time"),
	IGNORED("videoram", "the adapter has 16 MiB"),
	IGNORED("cpuid", "CPU features are chosen by cpu= in vmm.conf"),
	IGNORED("pool", NO_XEN),
	IGNORED("xsm_label", NO_XEN),
	IGNORED("seclabel", NO_XEN),
	IGNORED("driver_domain", NO_XEN),
	IGNORED("usb", NO_USB),
	IGNORED("usbdevice", NO_USB),
	IGNORED("soundhw", NO_AUDIO),
	IGNORED("audio", NO_AUDIO),
	IGNORED("pci", NO_PCI),
	IGNORED("gfx_passthru", NO_PCI),
	IGNORED("nics", "vif= counts"),
	IGNORED("opengl", NULL),
	IGNORED("bootloader", "the firmware boots the guest"),
	IGNORED("features", NULL),
	IGNORED("memory_dynamic_min", NULL),
};

const char *xen_setting_at(size_t i, const char **ours, const char **why)
{
	if (i >= ARRAY_SIZE(settings))
		return NULL;
	*ours = settings[i].ours;
	*why = settings[i].take != as_ignored ? NULL : settings[i].why ? settings[i].why : "";
	return settings[i].name;
}

static int take_setting(struct xen *x, const char *name, const struct xen_value *v, unsigned line, unsigned column,
			struct err *e)
{
	const char *names[ARRAY_SIZE(settings)], *near;
	struct xen_value at = {.line = line, .column = column};

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		if (!strcmp(settings[i].name, name))
			return settings[i].take(x, &settings[i], v, e);
		names[i] = settings[i].name;
	}
	/* Python files have variables of their own; only what looks like a slip deserves more than a word. */
	near = err_nearest(name, names, ARRAY_SIZE(names));
	xen_note(x, &at, "%.80s: ignored, not a setting%s%s%s", name, near ? "; did you mean '" : "", near ? near : "",
		 near ? "'?" : "");
	return 0;
}

static int take_statement(struct xen *x, struct err *e)
{
	unsigned line = x->line, column = x->column;
	struct xen_value v = {0};
	char *name;
	int r = xen_read_statement(x, &name, &v, e);

	if (!r)
		r = take_setting(x, name, &v, line, column, e);
	xen_value_free(&v);
	free(name);
	return r;
}

/* vnc, vncdisplay, vnclisten and vncunused together. */
static void finish_screen(struct xen *x)
{
	const char *listen = x->vnc_listen && *x->vnc_listen ? x->vnc_listen : "127.0.0.1";
	bool brackets = strchr(listen, ':') != NULL;

	free(x->c->vnc);
	if (x->vnc_seen ? !x->vnc : !HAVE_VNC && !x->vnc_listen && !x->vnc_display) {
		x->c->vnc = xstrdup("none");
		return;
	}
	x->c->vnc = xasprintf("%s%s%s:%lld%s", brackets ? "[" : "", listen, brackets ? "]" : "", x->vnc_display,
			      x->vnc_unused ? ",to=99" : "");
}

int config_parse_xen(struct guest_config *c, const char *file, const char *text, size_t len, struct notes *notes,
		     struct err *e)
{
	struct notes unread = {0};
	struct xen x = {.c = c,
			.notes = notes ? notes : &unread,
			.file = file,
			.s = text,
			.end = text + len,
			.line = 1,
			.column = 1,
			.vnc_unused = true};
	int r = 0;

	for (xen_skip_lines(&x); !r && x.s < x.end; xen_skip_lines(&x))
		r = take_statement(&x, e);
	if (!r)
		finish_screen(&x);
	free(x.vnc_listen);
	notes_free(&unread);
	return r;
}
