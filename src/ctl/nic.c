/*
 * Network cards of vmm.conf(5): [nic] becomes a -netdev and a -device.
 *
 * A card on a bridge has a tap that a helper makes when the guest starts, as QEMU's bridge helper does
 * (qemu-bridge-helper(8)); then vmm itself needs no privileges. For root it is our own, vmm-bridge-helper; everybody
 * else needs one that is set-uid, QEMU's, which vmm runs by default and which asks /etc/qemu/bridge.conf.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "config.h"
#include "vmm-config.h"

#define DEFAULT_MODEL "e1000"

const char *bridge_helper(void)
{
	static char path[4096 + 32];
	const char *set = getenv("VMM_BRIDGE_HELPER");
	ssize_t n;

	if (set && *set)
		return set;
	if (geteuid())
		return NULL;
	n = readlink("/proc/self/exe", path, 4096);
	if (n > 0) {
		path[n] = 0;
		strcpy(strrchr(path, '/') + 1, "vmm-bridge-helper"); /* a build tree */
		if (!access(path, X_OK))
			return path;
	}
	return VMM_LIBEXECDIR "/vmm-bridge-helper";
}

int nic_check(const struct nic_config *n, struct err *e)
{
	struct mac {
		uint8_t b[6];
	} mac;
	static const struct prop mac_prop[] = {PROP_NAMED(struct mac, "mac", b, PROP_MAC), PROP_END};

	if (n->mac && prop_parse(mac_prop, &mac, n->mac, e))
		return -EINVAL;
	if (n->mac && mac.b[0] & 1)
		return err_set(e, EINVAL, "mac=%s is a multicast address, which no card can have", n->mac);
	if (n->bridge && n->netdev)
		return err_set(e, EINVAL, "nic: bridge= and netdev= both say where it leads: give one of them");
	if (n->forward && (n->bridge || n->netdev))
		return err_set(e, EINVAL, "nic: forward= is for a card without bridge= and netdev=");
	if (n->helper && !n->bridge)
		return err_set(e, EINVAL, "nic: helper= is for a card with bridge=");
	return 0;
}

/* FNV-1a; the same guest has the same addresses each time it starts. */
static void own_mac(const char *seed, unsigned number, char *out, size_t size)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (const char *s = seed; *s; s++)
		hash = (hash ^ (unsigned char)*s) * 0x100000001b3;
	hash = (hash ^ number) * 0x100000001b3;
	hash ^= hash >> 32;
	snprintf(out, size, "52:54:00:%02x:%02x:%02x", (unsigned)(hash & 0xff), (unsigned)(hash >> 8 & 0xff),
		 (unsigned)(hash >> 16 & 0xff));
}

static const char *model_of(const struct nic_config *n)
{
	if (!n->model || !*n->model)
		return DEFAULT_MODEL;
	if (!strcmp(n->model, "virtio") || !strcmp(n->model, "virtio-net"))
		return "virtio-net-pci";
	return n->model;
}

static int netdev_options(const struct nic_config *n, struct opts *o, struct err *e)
{
	const char *helper = n->helper ? n->helper : bridge_helper();
	char *rules, *save = NULL;

	if (n->netdev)
		return opts_parse(o, n->netdev, "type", e);
	opts_set(o, "type", n->bridge ? "bridge" : "user");
	if (n->bridge) {
		opts_set(o, "br", n->bridge);
		if (helper)
			opts_set(o, "helper", helper);
	}
	rules = xstrdup(n->forward ? n->forward : "");
	for (char *rule = strtok_r(rules, " \t\n", &save); rule; rule = strtok_r(NULL, " \t\n", &save)) {
		o->v = xrealloc(o->v, (o->n + 1) * sizeof(*o->v)); /* opts_set() would keep one */
		o->v[o->n++] = (struct opt){.key = xstrdup("hostfwd"), .value = xstrdup(rule)};
	}
	free(rules);
	return 0;
}

int nic_command_line(const struct nic_config *n, const char *id, const char *seed, unsigned number, struct opts *netdev,
		     struct opts *device, struct err *e)
{
	char mac[18], *netdev_id = xasprintf("%s-net", id);
	int r = netdev_options(n, netdev, e);

	own_mac(seed, number, mac, sizeof(mac));
	opts_set(netdev, "id", netdev_id);
	opts_set(device, "driver", model_of(n));
	opts_set(device, "id", id);
	opts_set(device, "netdev", netdev_id);
	opts_set(device, "mac", n->mac ? n->mac : mac);
	free(netdev_id);
	return r;
}
