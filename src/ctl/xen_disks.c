/* Disks, diskettes and network cards of Xen's configuration files: see xen_config.c. */
#include "xen.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- disks ---- */

/* The next comma-separated part, trimmed; NULL at the end. */
static char *next_part(const char **s)
{
	size_t n;
	char *part;

	if (!*s)
		return NULL;
	*s += strspn(*s, " \t");
	n = strcspn(*s, ",");
	part = xstrndup(*s, n);
	*s = (*s)[n] ? *s + n + 1 : NULL;
	for (n = strlen(part); n && isblank((unsigned char)part[n - 1]); n--)
		part[n - 1] = 0;
	return part;
}

static const char *after(const char *text, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(text, prefix, n) ? NULL : text + n;
}

static bool known_format(const char *word)
{
	static const char *const formats[] = {"raw", "qcow", "qcow2", "vhd", "vdi", "vmdk", "qed"};

	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (!strcmp(formats[i], word))
			return true;
	return false;
}

static void replace(char **to, const char *text)
{
	free(*to);
	*to = xstrdup(text);
}

/* "file:/x", "phy:sda1", "tap:aio:/x", "tap2:qcow2:/x", "raw:/x" -> path, format and engine of the disk */
static const char *take_prefixes(struct disk_config *d, const char *target, char **owned)
{
	static const char *const plain[] = {"file:", "tap2:", "tap:", "phy:", "raw:", "aio:", "tapdisk:", "qdisk:"};
	static const char *const formats[] = {"qcow2:", "qcow:", "vhd:", "vmdk:"};
	bool device = false, again = true;

	while (again) {
		const char *rest;

		again = false;
		for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
			if ((rest = after(target, plain[i]))) {
				device |= !strcmp(plain[i], "phy:");
				if (strcmp(plain[i], "phy:"))
					replace(&d->format, "raw");
				target = rest;
				again = true;
			}
		for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
			if ((rest = after(target, formats[i]))) {
				char *name = xstrndup(formats[i], strlen(formats[i]) - 1);

				replace(&d->format, name);
				free(name);
				target = rest;
				again = true;
			}
	}
	if (device && *target && *target != '/') /* phy: names are below /dev */
		return *owned = xasprintf("/dev/%s", target);
	return target;
}

static void set_target(struct disk_config *d, const char *target)
{
	char *owned = NULL;
	const char *path = take_prefixes(d, target, &owned);

	replace(&d->file, path);
	free(owned);
	if (after(d->file, "/dev/") && !d->format)
		replace(&d->format, "raw");
}

/* "hdc:cdrom", "ioemu:hda", "xvda:disk" */
static void set_vdev(struct disk_config *d, const char *text)
{
	const char *rest = after(text, "ioemu:");
	char *copy = xstrdup(rest ? rest : text), *colon = strchr(copy, ':');

	if (colon) {
		*colon = 0;
		if (!strcmp(colon + 1, "cdrom"))
			d->media = 1;
	}
	replace(&d->target, copy);
	free(copy);
}

static int set_access(struct xen *x, const struct xen_value *v, struct disk_config *d, const char *mode, struct err *e)
{
	static const char *const reads[] = {"r", "ro"}, *const writes[] = {"w", "rw", "w!", "rw!", "!"};

	for (size_t i = 0; i < ARRAY_SIZE(reads); i++)
		if (!strcmp(mode, reads[i])) {
			d->readonly = true;
			return 0;
		}
	for (size_t i = 0; i < ARRAY_SIZE(writes); i++)
		if (!strcmp(mode, writes[i])) {
			d->shared = strchr(mode, '!') != NULL;
			return 0;
		}
	return xen_mistake_at(x, AT(v), e, "disk: access '%.40s': r, ro, w, rw and w! are known", mode);
}

/* key=value of xl; *rest is what follows, which target= takes whole. 0 taken, 1 not one of these, -EINVAL */
static int disk_key(struct xen *x, const struct xen_value *v, struct disk_config *d, const char *part,
		    const char **rest, struct err *e)
{
	const char *value;

	if ((value = after(part, "format="))) {
		replace(&d->format, value);
	} else if ((value = after(part, "vdev="))) {
		set_vdev(d, value);
	} else if ((value = after(part, "access="))) {
		return set_access(x, v, d, value, e);
	} else if ((value = after(part, "target="))) {
		char *whole = *rest ? xasprintf("%s,%s", value, *rest) : xstrdup(value);

		set_target(d, whole);
		free(whole);
		*rest = NULL;
	} else if ((value = after(part, "devtype="))) {
		d->media = !strcmp(value, "cdrom");
	} else if (!strcmp(part, "cdrom")) {
		d->media = 1;
	} else if ((value = after(part, "script=")) || (value = after(part, "backend="))) {
		xen_note(x, v, "disk: '%.80s' is ignored: images are opened by vmm itself", part);
	} else if (!after(part, "backendtype=") && strcmp(part, "direct-io-safe") && strcmp(part, "discard") &&
		   strcmp(part, "no-discard")) {
		return 1;
	}
	return 0;
}

static int as_one_disk(struct xen *x, const struct xen_value *v, struct err *e)
{
	struct disk_config *d = guest_config_add_disk(x->c);
	const char *rest = v->string;
	char *part;
	int r = 0;

	for (int position = 0; !r && (part = next_part(&rest)); free(part)) {
		r = disk_key(x, v, d, part, &rest, e);
		if (r <= 0)
			continue;
		r = 0;
		if (strchr(part, '=') && position && !d->file)
			r = xen_mistake_at(x, AT(v), e, "disk: '%.80s' is not known", part);
		else if (position == 0)
			set_target(d, part);
		else if (position == 1 && known_format(part) && rest)
			replace(&d->format, part), position--; /* xl: target, format, vdev, access */
		else if (position == 1 && !*part && rest && rest[strspn(rest, " ")] != 'r' &&
			 rest[strspn(rest, " ")] != 'w')
			position--; /* an empty format */
		else if (position == 1)
			set_vdev(d, part);
		else if (position == 2)
			r = set_access(x, v, d, *part ? part : "rw", e);
		else if (*part)
			r = xen_mistake_at(x, AT(v), e, "disk: '%.80s' is one word too many", part);
		position++;
	}
	if (!r && !d->target)
		r = xen_mistake_at(x, AT(v), e, "disk '%.80s': the drive's name (hda, hdc:cdrom) is missing",
				   v->string);
	if (d->format && strcmp(d->format, "raw") && !r)
		xen_note(x, v, "disk: format %.20s goes to vmm, which may not know it", d->format);
	return r;
}

int xen_as_disks(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	if (v->type == XEN_NONE)
		return 0;
	if (v->type != XEN_LIST)
		return xen_mistake_at(x, AT(v), e, "disk: a list was expected: disk = [ 'file:/path,hda,w' ]");
	for (size_t i = 0; i < v->n; i++) {
		int r = v->items[i].type == XEN_STRING
				? as_one_disk(x, &v->items[i], e)
				: xen_mistake_at(x, AT(&v->items[i]), e, "disk: a string was expected, not %s",
						 xen_type_name(v->items[i].type));

		if (r)
			return r;
	}
	return 0;
}

int xen_as_cdrom(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	struct disk_config *d;
	char *text;
	int r = xen_text(x, s->name, v, &text, e);

	if (!r && text && *text) {
		d = guest_config_add_disk(x->c);
		d->media = 1;
		set_target(d, text);
		d->target = xstrdup("hdc");
	}
	free(text);
	return r;
}

int xen_as_floppy(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	struct disk_config *d;
	char *text;
	int r = xen_text(x, s->name, v, &text, e);

	if (!r && text && *text) {
		d = guest_config_add_disk(x->c);
		d->media = 2;
		set_target(d, text);
		d->target = xstrdup(s->name);
	}
	free(text);
	return r;
}

/* ---- network ---- */

/* Cards of Xen's device model that vmm does not have: the guest gets the one most systems know. */
static void set_model(struct xen *x, const struct xen_value *v, struct nic_config *n, const char *model)
{
	static const char *const known[] = {"e1000", "rtl8139", "virtio", "virtio-net", "virtio-net-pci"};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(model, known[i])) {
			replace(&n->model, model);
			return;
		}
	xen_note(x, v, "vif: model=%.40s: vmm has no such card; the guest gets an e1000", model);
}

/* xl-network-configuration(5), and xm's words */
static int vif_key(struct xen *x, const struct xen_value *v, struct nic_config *n, const char *part, struct err *e)
{
	static const struct {
		const char *key, *why;
	} ignored[] = {
		{"script=", "the card joins bridge= without a script"},
		{"ip=", "addresses are the guest's affair"},
		{"vifname=", "the kernel names the tap"},
		{"backend=", "vmm is the back end"},
		{"rate=", "limit it on the host, with tc(8)"},
		{"gatewaydev=", "routed networks are set up on the host"},
		{"accel=", "it is Xen's own"},
		{"devid=", ""},
		{"type=", ""}, /* ioemu, vif: there are only emulated cards */
	};
	const char *value;

	if ((value = after(part, "mac="))) {
		replace(&n->mac, value);
		return nic_check(n, e) ? xen_mistake_at(x, AT(v), e, "vif: mac='%.40s' is no address of a card", value)
				       : 0;
	}
	if ((value = after(part, "bridge="))) {
		replace(&n->bridge, value);
		return 0;
	}
	if ((value = after(part, "model="))) {
		set_model(x, v, n, value);
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		if (after(part, ignored[i].key)) {
			if (*ignored[i].why)
				xen_note(x, v, "vif: '%.80s' is ignored: %s", part, ignored[i].why);
			return 0;
		}
	if (!*part)
		return 0;
	if (!strchr(part, '='))
		return xen_mistake_at(x, AT(v), e, "vif: '%.80s': key=value was expected", part);
	xen_note(x, v, "vif: '%.80s' is ignored: not known", part);
	return 0;
}

static int as_one_vif(struct xen *x, const struct xen_value *v, struct err *e)
{
	struct nic_config *n = guest_config_add_nic(x->c);
	const char *rest = v->string;
	char *part;
	int r = 0;

	for (; !r && (part = next_part(&rest)); free(part))
		r = vif_key(x, v, n, part, e);
	if (!r && !n->bridge)
		n->bridge = xstrdup("xenbr0"); /* xl's default */
	return r;
}

int xen_as_vifs(struct xen *x, const struct xen_setting *s, const struct xen_value *v, struct err *e)
{
	if (v->type == XEN_NONE)
		return 0;
	if (v->type != XEN_LIST)
		return xen_mistake_at(x, AT(v), e, "vif: a list was expected: vif = [ 'mac=..., bridge=...' ]");
	for (size_t i = 0; i < v->n; i++) {
		int r = v->items[i].type == XEN_STRING
				? as_one_vif(x, &v->items[i], e)
				: xen_mistake_at(x, AT(&v->items[i]), e, "vif: a string was expected, not %s",
						 xen_type_name(v->items[i].type));

		if (r)
			return r;
	}
	return 0;
}
