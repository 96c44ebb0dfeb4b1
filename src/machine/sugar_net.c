/*
 * -netdev, and the short options for networks: -nic BACKEND,model=..,mac=.. is a netdev plus a network card, -net nic
 * with -net BACKEND the same in the spelling of old. Without any of them the guest has QEMU's default, an e1000 on a
 * `user` network; where that cannot be had (no libslirp) it has none. Left out: the hubs that -net makes of more than
 * one pair.
 */
#include "sugar.h"

#include <errno.h>
#include <stdlib.h>
#include "vmm/log.h"
#include "vmm/net.h"

#define DEFAULT_MODEL "e1000"
#define DEFAULT_ID    "net0"

static int code_of(const struct err *e)
{
	return e && e->code ? -e->code : -EINVAL;
}

static bool is_type(struct opt_item *i, const char *type)
{
	const char *t = opts_get(&i->opts, "type");

	return t && !strcmp(t, type);
}

/* What of a short option is the card's. */
static bool is_cards(const char *key)
{
	return !strcmp(key, "model") || !strcmp(key, "mac") || !strcmp(key, "macaddr");
}

/* The id of the netdev that -nic number n stands for. */
static char *nic_id(struct opt_item *i, unsigned n)
{
	const char *id = opts_get(&i->opts, "id");

	return id ? xstrdup(id) : xasprintf("nic%u", n);
}

static int open_for(struct opt_item *i, const char *option, const char *id, struct err *e)
{
	struct opts o = {0};
	struct netdev *d;

	for (size_t k = 0; k < i->opts.n; k++)
		if (!is_cards(i->opts.v[k].key) && strcmp(i->opts.v[k].key, "name") && strcmp(i->opts.v[k].key, "id"))
			opts_add(&o, i->opts.v[k].key, i->opts.v[k].value);
	opts_set(&o, "id", id);
	d = netdev_open(&o, e);
	opts_free(&o);
	if (d)
		return 0;
	err_prefix(e, "%s %s", option, i->text);
	return code_of(e);
}

/* -net: one card and one back end. */
static int find_pair(const struct config *c, struct opt_item **card, struct opt_item **backend, struct err *e)
{
	*card = *backend = NULL;
	for (struct opt_item *i = c->net.first; i; i = i->next) {
		struct opt_item **slot = is_type(i, "nic") ? card : backend;

		if (is_type(i, "none"))
			continue;
		if (*slot)
			return err_set(e, ENOTSUP,
				       "-net %s: a hub of several is not offered; give a -nic for each card", i->text);
		*slot = i;
	}
	if (*card && opts_get(&(*card)->opts, "netdev") && *backend)
		return err_set(e, EINVAL, "-net %s: netdev= and -net %s name two networks for one card", (*card)->text,
			       (*backend)->text);
	if (*backend && !*card)
		return err_set(e, EINVAL, "-net %s: -net nic is missing; -nic %s is both", (*backend)->text,
			       (*backend)->text);
	return 0;
}

static const char *net_id(struct opt_item *backend)
{
	const char *name = opts_get(&backend->opts, "id");

	if (!name)
		name = opts_get(&backend->opts, "name");
	return name ? name : DEFAULT_ID;
}

static bool by_default(const struct board *b)
{
	const struct config *c = b->config;

	return !c->nodefaults && !c->described && !c->netdev.first && !c->nic.first && !c->net.first;
}

static void open_default(void)
{
	struct opts o = {0};
	struct err e = ERR_INIT;

	if (opts_parse(&o, "user,id=" DEFAULT_ID, "type", &e) || !netdev_open(&o, &e))
		log_info("net", "the guest gets no network adapter: %s", e.msg);
	opts_free(&o);
}

int sugar_open_nets(struct board *b, struct err *e)
{
	const struct config *c = b->config;
	struct opt_item *card, *backend;
	unsigned n = 0;
	int r = 0;

	if (by_default(b))
		open_default();
	for (struct opt_item *i = c->netdev.first; !r && i; i = i->next)
		if (!netdev_open(&i->opts, e)) {
			err_prefix(e, "-netdev %s", i->text);
			r = code_of(e);
		}
	for (struct opt_item *i = c->nic.first; !r && i; i = i->next, n++) {
		char *id = nic_id(i, n);

		if (!is_type(i, "none"))
			r = open_for(i, "-nic", id, e);
		free(id);
	}
	if (!r)
		r = find_pair(c, &card, &backend, e);
	if (!r && backend)
		r = open_for(backend, "-net", net_id(backend), e);
	return r;
}

static int create_card(struct board *b, struct opt_item *i, const char *netdev, struct err *e)
{
	const char *model = opts_get(&i->opts, "model"), *mac = opts_get(&i->opts, "mac");
	const struct device_class *class;
	struct opts o = {0};
	struct device *dev;

	if (!mac)
		mac = opts_get(&i->opts, "macaddr");
	if (!model)
		model = DEFAULT_MODEL;
	class = device_class_find(!strcmp(model, "virtio") ? "virtio-net-pci" : model);
	if (!class || strcmp(class->category, "Network"))
		return err_set(e, EINVAL, "Unsupported NIC model: %s", model);
	if (netdev)
		opts_set(&o, "netdev", netdev);
	if (mac)
		opts_set(&o, "mac", mac);
	dev = device_create(b, class->name, NULL, &o, NULL, e);
	opts_free(&o);
	return dev ? 0 : code_of(e);
}

static int create_pair(struct board *b, struct err *e)
{
	static const char *const known[] = {"type", "model", "macaddr", "mac", "netdev", "name"};
	struct opt_item *card, *backend;
	int r = find_pair(b->config, &card, &backend, e);

	if (r || !card)
		return r;
	for (size_t k = 0; k < card->opts.n; k++) {
		bool found = false;

		for (size_t n = 0; n < ARRAY_SIZE(known); n++)
			found |= !strcmp(card->opts.v[k].key, known[n]);
		if (!found)
			return err_set(e, EINVAL, "-net %s: Invalid parameter '%s'", card->text, card->opts.v[k].key);
	}
	r = create_card(b, card, backend ? net_id(backend) : opts_get(&card->opts, "netdev"), e);
	return r ? err_prefix(e, "-net %s", card->text) : 0;
}

int sugar_create_nics(struct board *b, struct err *e)
{
	struct opt_item unsaid = {0};
	unsigned n = 0;
	int r = 0;

	if (by_default(b) && netdev_find(DEFAULT_ID))
		r = create_card(b, &unsaid, DEFAULT_ID, e);
	for (struct opt_item *i = b->config->nic.first; !r && i; i = i->next, n++) {
		char *id = nic_id(i, n);

		if (!is_type(i, "none") && create_card(b, i, id, e))
			r = err_prefix(e, "-nic %s", i->text);
		free(id);
	}
	return r ? r : create_pair(b, e);
}
