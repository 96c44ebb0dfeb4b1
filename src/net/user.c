/*
 * -netdev user: the guest reaches the network by the sockets of this process, without privileges. The work is done by
 * libslirp in the module vmm-slirp.so (slirp.h), which is loaded here; slirp.c says what is left out.
 */
#include "netdev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "slirp.h"
#include "vmm/loop.h"
#include "vmm/module.h"

struct user_netdev {
	struct netdev dev;
	struct user_options o;
	char *smb, *smbserver, *ip;
	char *hostfwd, *guestfwd, *dnssearch; /* a line for each that was given; o's lists point into them */
	struct user_stack *stack;
	struct bh readable, writable;
};

static const struct slirp_module *module;

#define U                        struct user_netdev
#define TEXT(name, member, text) PROP_NAMED(U, name, member, PROP_STR, .help = text)
static const struct prop user_props[] = {
	NETDEV_COMMON_PROPS,
	PROP_NAMED(U, "ipv4", o.ipv4, PROP_ONOFFAUTO, .def = 2, .help = "IPv4; ipv6=on alone turns it off"),
	PROP_NAMED(U, "ipv6", o.ipv6, PROP_ONOFFAUTO, .def = 2, .help = "IPv6; ipv4=on alone turns it off"),
	PROP_NAMED(U, "restrict", o.restricted, PROP_BOOL,
		   .help = "no way out: only hostfwd and guestfwd, DHCP and TFTP"),
	TEXT("net", o.net, "the guest's network, ADDRESS[/BITS or /MASK]; 10.0.2.0/24 if not given"),
	TEXT("ip", ip, "old name of net"),
	TEXT("host", o.host, "the host's address in it; the second one if not given"),
	TEXT("hostname", o.hostname, "name that DHCP gives to the guest"),
	TEXT("dhcpstart", o.dhcpstart, "first of 16 addresses that DHCP gives; the 15th if not given"),
	TEXT("dns", o.dns, "address of the name server in it; the third one if not given"),
	TEXT("dnssearch", dnssearch, "domain to complete names with; can be repeated"),
	TEXT("domainname", o.domainname, "domain that DHCP gives to the guest"),
	TEXT("ipv6-net", o.ipv6_net, "prefix and length in one, ADDRESS/BITS"),
	TEXT("ipv6-prefix", o.ipv6_prefix, "the guest's IPv6 prefix; fec0:: if not given"),
	PROP_NAMED(U, "ipv6-prefixlen", o.ipv6_prefixlen, PROP_U32, .help = "its length in bits; 0: 64"),
	TEXT("ipv6-host", o.ipv6_host, "the host's IPv6 address; PREFIX2 if not given"),
	TEXT("ipv6-dns", o.ipv6_dns, "IPv6 address of the name server; PREFIX3 if not given"),
	TEXT("tftp", o.tftp, "directory whose files the guest reads by TFTP"),
	TEXT("tftp-server-name", o.tftp_server_name, "name of the TFTP server that DHCP gives (RFC 2132, 66)"),
	TEXT("bootfile", o.bootfile, "file to boot from that DHCP gives"),
	TEXT("hostfwd", hostfwd, "[tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT; can be repeated"),
	TEXT("guestfwd", guestfwd, "[tcp]:SERVER:PORT-CHARDEV; can be repeated"),
	TEXT("smb", smb, "refused: a file server is a program, which vmm does not start"),
	TEXT("smbserver", smbserver, "refused, as smb"),
	PROP_END,
};
#undef TEXT
#undef U

/* ---- lists ---- */

/* "hostfwd", or "hostfwd.0.str" as JSON's lists of {"str": ..} are flattened */
static bool names(const char *key, const char *list)
{
	size_t n = strlen(list);

	if (strncmp(key, list, n))
		return false;
	if (!key[n])
		return true;
	if (key[n] != '.')
		return false;
	key += n + 1;
	n = strspn(key, "0123456789");
	return n && (!key[n] || !strcmp(key + n, ".str"));
}

/* All of a list's values in one property, a line each. */
static void take_list(struct opts *o, const char *name, char **to)
{
	for (size_t i = 0; i < o->n; i++) {
		char *before = *to;

		if (o->v[i].used || !names(o->v[i].key, name))
			continue;
		*to = xasprintf("%s%s%s", before ? before : "", before ? "\n" : "", o->v[i].value);
		free(before);
		o->v[i].used = true;
	}
}

static void user_take_options(struct netdev *d, struct opts *opts)
{
	struct user_netdev *u = container_of(d, struct user_netdev, dev);

	take_list(opts, "hostfwd", &u->hostfwd);
	take_list(opts, "guestfwd", &u->guestfwd);
	take_list(opts, "dnssearch", &u->dnssearch);
}

/* Cuts text. */
static int split_list(char *text, const char *name, struct user_list *list, struct err *e)
{
	char *save = NULL;

	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		if (list->n == USER_MAX_RULES)
			return err_set(e, E2BIG, "%s: more than %d are not taken", name, USER_MAX_RULES);
		list->v[list->n++] = line;
	}
	return 0;
}

/* ---- frames ---- */

static ssize_t user_recv(struct netdev *d, unsigned queue, const struct iovec *iov, int n)
{
	return module->recv(container_of(d, struct user_netdev, dev)->stack, iov, n);
}

static bool user_send(struct netdev *d, unsigned queue, const struct iovec *iov, int n)
{
	return module->send(container_of(d, struct user_netdev, dev)->stack, iov, n);
}

/* slirp thread */
static void on_readable(void *opaque)
{
	bh_schedule(&((struct user_netdev *)opaque)->readable);
}

/* slirp thread */
static void on_writable(void *opaque)
{
	bh_schedule(&((struct user_netdev *)opaque)->writable);
}

static const struct user_events events = {on_readable, on_writable};

/* Main loop, once per turn as long as there is something and the NIC takes it. */
static void do_readable(void *opaque)
{
	struct user_netdev *u = opaque;

	if (!netdev_wants(&u->dev, 0) || !module->pending(u->stack))
		return;
	netdev_readable(&u->dev, 0);
	bh_schedule(&u->readable);
}

static void do_writable(void *opaque)
{
	netdev_writable(&((struct user_netdev *)opaque)->dev, 0);
}

static void user_want_packets(struct netdev *d, unsigned queue, bool on)
{
	struct user_netdev *u = container_of(d, struct user_netdev, dev);

	if (on)
		bh_schedule(&u->readable);
}

/* ---- open and close ---- */

static int user_open(struct netdev *d, struct err *e)
{
	struct user_netdev *u = container_of(d, struct user_netdev, dev);

	if (u->smb || u->smbserver)
		return err_set(e, ENOTSUP,
			       "smb=: a file server is a program of its own (smbd), and vmm starts none: run one on "
			       "the host, which the "
			       "guest reaches at 10.0.2.2, or give files by tftp=");
	if (u->ip && u->o.net)
		return err_set(e, EINVAL, "ip= is the old name of net=: give one of them");
	if (u->ip) {
		u->o.net = u->ip;
		u->ip = NULL;
	}
	if (split_list(u->hostfwd, "hostfwd", &u->o.hostfwd, e) ||
	    split_list(u->guestfwd, "guestfwd", &u->o.guestfwd, e) ||
	    split_list(u->dnssearch, "dnssearch", &u->o.dnssearch, e))
		return -e->code;
	module = module ? module : module_load("slirp", "vmm_module_slirp", e);
	if (!module)
		return -ENOENT;
	bh_init(&u->readable, loop_main(), NULL, do_readable, u);
	bh_init(&u->writable, loop_main(), NULL, do_writable, u);
	u->stack = module->open(d->id, &u->o, &events, u, e);
	return u->stack ? 0 : -e->code;
}

static void user_close(struct netdev *d)
{
	struct user_netdev *u = container_of(d, struct user_netdev, dev);

	module->close(u->stack);
	bh_cancel(&u->readable);
	bh_cancel(&u->writable);
}

static void user_describe(struct netdev *d, char *buf, size_t size)
{
	struct user_netdev *u = container_of(d, struct user_netdev, dev);

	snprintf(buf, size, "net=%s,restrict=%s", module->network(u->stack), u->o.restricted ? "on" : "off");
}

const struct netdev_ops netdev_user_ops = {
	.name = "user",
	.help = "a network of the guest's own, out through this process's sockets (libslirp)",
	.props = user_props,
	.size = sizeof(struct user_netdev),
	.take_options = user_take_options,
	.open = user_open,
	.close = user_close,
	.send = user_send,
	.recv = user_recv,
	.want_packets = user_want_packets,
	.describe = user_describe,
};

/* ---- the operator's side ---- */

/* id NULL: the only one. */
static struct user_netdev *find(const char *id, struct err *e)
{
	struct user_netdev *found = NULL;

	for (struct netdev *d = netdev_next(NULL); d; d = netdev_next(d)) {
		if (id && strcmp(d->id, id))
			continue;
		if (d->ops == &netdev_user_ops)
			found = container_of(d, struct user_netdev, dev);
		else if (id)
			return err_set(e, EINVAL, "invalid netdev id '%s': not a user mode network", id), NULL;
		if (found)
			return found;
	}
	if (id)
		err_set(e, ENOENT, "unrecognized netdev id '%s'", id);
	else
		err_set(e, ENOENT, "user mode network stack not in use");
	return NULL;
}

int net_user_forward(const char *id, const char *rule, bool add, struct err *e)
{
	struct user_netdev *u = find(id, e);

	if (!u)
		return -e->code;
	return add ? module->hostfwd_add(u->stack, rule, e) : module->hostfwd_remove(u->stack, rule, e);
}

char *net_user_connections(const struct netdev *d)
{
	return d->ops == &netdev_user_ops ? module->connections(container_of(d, struct user_netdev, dev)->stack) : NULL;
}
