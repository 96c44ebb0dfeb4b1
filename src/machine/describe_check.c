/*
 * Is a machine description that came from elsewhere the machine we are? Used by the destination of a migration whose
 * machine was given on its command line. The first difference is named. What belongs to the host may differ: backends
 * of drives, characters and networks, our version, and who emulates the interrupt controllers (their state is the
 * same).
 */
#include "board.h"

#include <errno.h>
#include <libfdt.h>
#include <stdlib.h>

struct pair {
	const void *theirs, *ours;
	struct err *e;
};

static const char *text_of(const void *fdt, int node, const char *name)
{
	int len;
	const char *p = fdt_getprop(fdt, node, name, &len);

	return p && len > 0 && !p[len - 1] ? p : NULL;
}

/* A property as text for a message: a string, or its bytes. */
static const char *show(const void *value, int len, char *buf, size_t size)
{
	const uint8_t *p = value;
	size_t at = 0;

	if (!p || len < 0)
		return "nothing";
	if (len > 1 && !p[len - 1] && strnlen(value, (size_t)len) == (size_t)len - 1) {
		snprintf(buf, size, "'%.100s'", (const char *)value);
		return buf;
	}
	buf[0] = 0;
	for (int i = 0; i < len && i < 32 && at + 3 < size; i++)
		at += (size_t)snprintf(buf + at, size - at, "%02x", p[i]);
	return *buf ? buf : "an empty value";
}

static int differs(struct pair *p, const char *where, const char *name, const void *a, int alen, const void *b,
		   int blen)
{
	char x[128], y[128];

	return err_set(p->e, EINVAL, "%s: '%s' is %s at the source and %s here", where, name,
		       show(a, alen, x, sizeof(x)), show(b, blen, y, sizeof(y)));
}

static int compare_prop(struct pair *p, const char *where, int t, int o, const char *name)
{
	int alen = -1, blen = -1;
	const void *a = fdt_getprop(p->theirs, t, name, &alen), *b = fdt_getprop(p->ours, o, name, &blen);

	if (alen == blen && (!a || !memcmp(a, b, (size_t)alen)))
		return 0;
	return differs(p, where, name, a, alen, b, blen);
}

/* ---- devices ---- */

static bool is_backend(const struct device_class *c, const char *name)
{
	const struct prop *p = c && c->props ? prop_find(c->props, name) : NULL;

	return p && (p->type == PROP_DRIVE || p->type == PROP_CHARDEV || p->type == PROP_NETDEV ||
		     !strcmp(name, "romfile") || !strcmp(name, "base")); /* the clock's first date */
}

static int compare_properties(struct pair *p, const char *id, const struct device_class *c, int t, int o)
{
	int tp = fdt_subnode_offset(p->theirs, t, "properties"), op = fdt_subnode_offset(p->ours, o, "properties"),
	    prop;
	char where[128];

	snprintf(where, sizeof(where), "device '%.64s'", id);
	for (prop = op < 0 ? -1 : fdt_first_property_offset(p->ours, op); prop >= 0;
	     prop = fdt_next_property_offset(p->ours, prop)) {
		const char *name;
		int len, r;

		if (!fdt_getprop_by_offset(p->ours, prop, &name, &len) || is_backend(c, name))
			continue;
		if (tp < 0)
			return differs(p, where, name, NULL, -1, fdt_getprop(p->ours, op, name, &len), len);
		r = compare_prop(p, where, tp, op, name);
		if (r)
			return r;
	}
	for (prop = tp < 0 ? -1 : fdt_first_property_offset(p->theirs, tp); prop >= 0;
	     prop = fdt_next_property_offset(p->theirs, prop)) {
		const char *name;
		int len;

		if (fdt_getprop_by_offset(p->theirs, prop, &name, &len) && !is_backend(c, name) &&
		    (op < 0 || !fdt_getprop(p->ours, op, name, NULL)))
			return differs(p, where, name, fdt_getprop(p->theirs, tp, name, &len), len, NULL, -1);
	}
	return 0;
}

static int compare_device(struct pair *p, const char *id, int t, int o)
{
	static const char *const facts[] = {"class", "bus", "parent", "addr", "unit", "interrupts"};
	const char *class = text_of(p->ours, o, "class");
	char where[128];

	snprintf(where, sizeof(where), "device '%.64s'", id);
	for (size_t i = 0; i < ARRAY_SIZE(facts); i++) {
		int r = compare_prop(p, where, t, o, facts[i]);

		if (r)
			return r;
	}
	return compare_properties(p, id, class ? device_class_find(class) : NULL, t, o);
}

static int compare_devices(struct pair *p)
{
	int td = fdt_path_offset(p->theirs, "/devices"), od = fdt_path_offset(p->ours, "/devices"), n;

	if (td < 0 || od < 0)
		return err_set(p->e, EBADMSG, "the machine description has no devices");
	fdt_for_each_subnode(n, p->theirs, td)
	{
		const char *name = fdt_get_name(p->theirs, n, NULL);
		int mine = name ? fdt_subnode_offset(p->ours, od, name) : -1, r;

		if (mine < 0) {
			const char *class = text_of(p->theirs, n, "class");

			return err_set(p->e, ENODEV, "the source has a device '%s' (%s), this machine has not",
				       name ? name : "?", class ? class : "?");
		}
		r = compare_device(p, name, n, mine);
		if (r)
			return r;
	}
	fdt_for_each_subnode(n, p->ours, od)
	{
		const char *name = fdt_get_name(p->ours, n, NULL), *class = text_of(p->ours, n, "class");

		if (name && fdt_subnode_offset(p->theirs, td, name) < 0)
			return err_set(p->e, ENODEV, "this machine has a device '%s' (%s), the source has not", name,
				       class ? class : "?");
	}
	return 0;
}

/* ---- processors ---- */

static bool has_word(const char *list, const char *word, size_t len)
{
	for (const char *p = list; (p = strstr(p, word)) != NULL; p++)
		if ((p == list || p[-1] == ' ') && (!p[len] || p[len] == ' '))
			return true;
	return false;
}

/* Names in a that b lacks. */
static void missing_words(const char *a, const char *b, char *out, size_t size)
{
	size_t at = 0;

	out[0] = 0;
	while (*a) {
		size_t len = strcspn(a, " ");
		char word[64];

		if (len && len < sizeof(word)) {
			memcpy(word, a, len);
			word[len] = 0;
			if (!has_word(b, word, len) && at + len + 2 < size)
				at += (size_t)snprintf(out + at, size - at, "%s%s", at ? ", " : "", word);
		}
		a += len;
		a += *a == ' ';
	}
}

static int compare_features(struct pair *p, int t, int o)
{
	const char *a = text_of(p->theirs, t, "vmm,features"), *b = text_of(p->ours, o, "vmm,features");
	char list[512];

	if (!a || !b)
		return 0; /* no KVM: there are no processors */
	missing_words(a, b, list, sizeof(list));
	if (*list)
		return err_set(
			p->e, ENOTSUP,
			"the guest's CPU has features that it has not here: %s (use a -cpu model both hosts can offer)",
			list);
	missing_words(b, a, list, sizeof(list));
	if (*list)
		return err_set(p->e, EINVAL,
			       "the guest's CPU lacks features that it has here: %s (give both the same -cpu)", list);
	return 0;
}

/* What KVM must hold of the vCPUs' state. A source that does not tell is found out when the state is loaded. */
static int compare_kvm(struct pair *p, int t, int o)
{
	const char *theirs = text_of(p->theirs, t, "vmm,kvm-state"), *ours = text_of(p->ours, o, "vmm,kvm-state");
	const char *lacking = theirs ? kvm_state_lacks(theirs, ours ? ours : "") : NULL;

	if (!lacking)
		return 0;
	return err_set(p->e, ENOTSUP,
		       "this host's KVM cannot hold the state of the guest's vCPUs: it needs %.*s, here is: %s",
		       (int)MIN(strcspn(lacking, " "), (size_t)64), lacking, ours ? ours : "nothing");
}

/* Under -accel qtest processors have no state: there is nothing for KVM's to begin with, and the other way round. */
static int compare_accelerators(struct pair *p, int t, int o)
{
	bool theirs = text_of(p->theirs, t, "vmm,features"), ours = text_of(p->ours, o, "vmm,features");

	if (theirs == ours)
		return 0;
	return err_set(
		p->e, EINVAL,
		"the source runs with -accel %s, this machine with -accel %s: a guest moves between two of a kind",
		theirs ? "kvm" : "qtest", ours ? "kvm" : "qtest");
}

static int compare_cpus(struct pair *p)
{
	int t = fdt_path_offset(p->theirs, "/cpus"), o = fdt_path_offset(p->ours, "/cpus"), n, theirs = 0, ours = 0, r;

	if (t < 0 || o < 0)
		return err_set(p->e, EBADMSG, "the machine description has no processors");
	r = compare_accelerators(p, t, o);
	if (r)
		return r;
	fdt_for_each_subnode(n, p->theirs, t) theirs++;
	fdt_for_each_subnode(n, p->ours, o) ours++;
	if (theirs != ours)
		return err_set(p->e, EINVAL, "the source has %d vCPUs, this machine has %d (-smp)", theirs, ours);
	r = compare_prop(p, "the processors", t, o, "vmm,maximum");
	if (!r)
		r = compare_prop(p, "the processors (-cpu)", t, o, "vmm,model");
	if (!r)
		r = compare_features(p, t, o);
	if (!r)
		r = compare_kvm(p, t, o);
	fdt_for_each_subnode(n, p->theirs, t)
	{
		const char *name = fdt_get_name(p->theirs, n, NULL);
		int mine = name ? fdt_subnode_offset(p->ours, o, name) : -1;

		if (!r && mine < 0)
			return err_set(p->e, EINVAL, "the source has a processor '%s', this machine has not (-smp)",
				       name ? name : "?");
		if (!r)
			r = compare_prop(p, name, n, mine, "vmm,topology");
	}
	return r;
}

static uint64_t memory_size(const void *fdt)
{
	uint64_t sum = 0;
	int n;

	fdt_for_each_subnode(n, fdt, 0)
	{
		const char *name = fdt_get_name(fdt, n, NULL);
		int len;
		const void *reg = name && !strncmp(name, "memory@", 7) ? fdt_getprop(fdt, n, "reg", &len) : NULL;

		if (reg && len == 16)
			sum += fdt64_ld((const fdt64_t *)reg + 1);
	}
	return sum;
}

/* ---- options ---- */

/* /configuration/GROUP: what is no property of a device. Checked where the source tells it. */
static int compare_groups(struct pair *p)
{
	for (const struct config_group *g = config_groups; g->name; g++) {
		char path[64], where[64];
		int t, o, prop;

		snprintf(path, sizeof(path), "/configuration/%s", g->name);
		snprintf(where, sizeof(where), "-%s", strcmp(g->name, "memory") ? g->name : "m");
		t = fdt_path_offset(p->theirs, path);
		o = fdt_path_offset(p->ours, path);
		for (prop = t < 0 || o < 0 ? -1 : fdt_first_property_offset(p->ours, o); prop >= 0;
		     prop = fdt_next_property_offset(p->ours, prop)) {
			const char *name;
			int len, r;

			if (!fdt_getprop_by_offset(p->ours, prop, &name, &len) || !strcmp(name, "base") ||
			    !strcmp(name, "splash"))
				continue;
			r = compare_prop(p, where, t, o, name);
			if (r)
				return r;
		}
	}
	return 0;
}

static int compare_all(struct pair *p)
{
	uint64_t theirs = memory_size(p->theirs), ours = memory_size(p->ours);
	int r = compare_prop(p, "the machine", 0, 0, "compatible");

	if (!r)
		r = compare_prop(p, "the machine (-machine)", 0, 0, "model");
	if (!r && theirs != ours)
		r = err_set(p->e, EINVAL, "the guest has %llu MiB of memory at the source and %llu MiB here (-m)",
			    (unsigned long long)(theirs / MIB), (unsigned long long)(ours / MIB));
	if (!r)
		r = compare_cpus(p);
	if (!r)
		r = compare_devices(p);
	if (!r)
		r = compare_groups(p);
	return r;
}

static int check(struct board *b, const void *fdt, size_t len, int (*compare)(struct pair *p), struct err *e)
{
	struct pair p = {.theirs = fdt, .e = e};
	void *own = NULL;
	size_t own_len;
	int r;

	if (!describe_is_tree(fdt, len))
		return err_set(e, EBADMSG, "the stream is damaged: its machine description is no device tree");
	r = machine_describe(b, &own, &own_len, e);
	if (r)
		return r;
	p.ours = own;
	r = compare(&p);
	free(own);
	return r;
}

int machine_check_description(struct board *b, const void *fdt, size_t len, struct err *e)
{
	return check(b, fdt, len, compare_all, e);
}

int machine_check_processors(struct board *b, const void *fdt, size_t len, struct err *e)
{
	return check(b, fdt, len, compare_cpus, e);
}
