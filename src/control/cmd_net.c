/* QMP: networks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "commands.h"
#include "json_opts.h"
#include "vmm/net.h"

static const char *driver_at(size_t i)
{
	return netdev_backend_at(i, NULL, NULL);
}

static const struct qmp_type client_driver = {.name = "NetClientDriver", .kind = QMP_KIND_ENUM, .value_at = driver_at};
static const struct qmp_type rx_state = QMP_ENUM("RxState", "normal", "none", "all");
static const struct qmp_type rx_filter = QMP_OBJECT(
	"RxFilterInfo", QMP_REQ("name", qmp_str), QMP_REQ("promiscuous", qmp_bool), QMP_REQ("multicast", rx_state),
	QMP_REQ("unicast", rx_state), QMP_REQ("vlan", rx_state), QMP_REQ("broadcast-allowed", qmp_bool),
	QMP_REQ("multicast-overflow", qmp_bool), QMP_REQ("unicast-overflow", qmp_bool), QMP_REQ("main-mac", qmp_str),
	QMP_REQ("vlan-table", QMP_LIST_OF(qmp_int)), QMP_REQ("unicast-table", QMP_LIST_OF(qmp_str)),
	QMP_REQ("multicast-table", QMP_LIST_OF(qmp_str)));

static json_t *netdev_add(struct qmp_call *call, struct err *e)
{
	struct netdev *d;
	struct opts o;

	if (json_to_opts(call->args, &o, e))
		return NULL;
	d = netdev_open(&o, e);
	opts_free(&o);
	return d ? json_object() : NULL;
}

static json_t *netdev_del(struct qmp_call *call, struct err *e)
{
	return netdev_remove(qmp_arg_str(call, "id"), e) ? NULL : json_object();
}

static json_t *set_link(struct qmp_call *call, struct err *e)
{
	return net_set_link(qmp_arg_str(call, "name"), qmp_arg_bool(call, "up", true), e) ? NULL : json_object();
}

/* ---- query-rx-filter ---- */

static json_t *mac_text(const uint8_t mac[6])
{
	return json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

static json_t *mac_table(const uint8_t (*table)[6], unsigned n)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(list, mac_text(table[i]));
	return list;
}

static json_t *describe_filter(const struct nic *n, const struct nic_rx_filter *f)
{
	static const char *const states[] = {[NIC_RX_NORMAL] = "normal", [NIC_RX_NONE] = "none", [NIC_RX_ALL] = "all"};
	json_t *vlans = json_array();

	for (unsigned i = 0; i < f->n_vlan; i++)
		json_array_append_new(vlans, json_integer(f->vlan_table[i]));
	return json_pack("{s:s, s:b, s:s, s:s, s:s, s:b, s:b, s:b, s:o, s:o, s:o, s:o}", "name", nic_name(n),
			 "promiscuous", f->promiscuous, "multicast", states[f->multicast], "unicast",
			 states[f->unicast], "vlan", states[f->vlan], "broadcast-allowed", f->broadcast_allowed,
			 "multicast-overflow", f->multicast_overflow, "unicast-overflow", f->unicast_overflow,
			 "main-mac", mac_text(f->main_mac), "vlan-table", vlans, "unicast-table",
			 mac_table(f->unicast_table, f->n_unicast), "multicast-table",
			 mac_table(f->multicast_table, f->n_multicast));
}

static json_t *query_rx_filter(struct qmp_call *call, struct err *e)
{
	const char *name = qmp_arg_str(call, "name");
	json_t *list = json_array();
	bool found = !name;

	for (struct nic *n = nic_next(NULL); n; n = nic_next(n)) {
		struct nic_rx_filter f;

		if (name && strcmp(name, nic_name(n)))
			continue;
		found = true;
		nic_lock(n);
		if (nic_get_rx_filter(n, &f))
			json_array_append_new(list, describe_filter(n, &f));
		else if (name)
			err_set(e, ENOTSUP, "net client(%s) doesn't support rx-filter querying", name);
		nic_unlock(n);
	}
	if (!found && netdev_find(name))
		err_set(e, EINVAL, "net client(%s) isn't a NIC", name);
	else if (!found)
		err_set(e, ENODEV, "invalid net client name: %.200s", name);
	if (!e->code)
		return list;
	json_decref(list);
	return NULL;
}

/* ---- announce-self ---- */

static json_t *announce_self(struct qmp_call *call, struct err *e)
{
	json_t *list = json_object_get(call->args, "interfaces"), *item;
	const char **interfaces = list ? xcalloc(json_array_size(list) + 1, sizeof(*interfaces)) : NULL;
	const struct {
		const char *name;
		int64_t value, max;
	} args[] = {{"initial", qmp_arg_int(call, "initial", 0), 100000},
		    {"max", qmp_arg_int(call, "max", 0), 100000},
		    {"rounds", qmp_arg_int(call, "rounds", 0), 1000},
		    {"step", qmp_arg_int(call, "step", 0), 10000}};
	struct net_announce how = {.initial_ms = (uint32_t)args[0].value,
				   .max_ms = (uint32_t)args[1].value,
				   .rounds = (uint32_t)args[2].value,
				   .step_ms = (uint32_t)args[3].value,
				   .id = qmp_arg_str(call, "id"),
				   .interfaces = interfaces};
	size_t i;

	json_array_foreach(list, i, item) interfaces[i] = json_string_value(item);
	for (i = 0; i < ARRAY_SIZE(args); i++)
		if (args[i].value < 0 || args[i].value > args[i].max)
			err_set(e, EINVAL, "Parameter '%s' expects a value between 0 and %lld", args[i].name,
				(long long)args[i].max);
	if (!e->code)
		net_announce(&how, e);
	free(interfaces);
	return e->code ? NULL : json_object();
}

const struct qmp_command qmp_net_commands[] = {
	{"netdev_add", "Add a network back end; what it takes besides type and id is what -netdev takes.", "0.3",
	 QMP_MEMBERS(QMP_REQ("type", client_driver), QMP_REQ("id", qmp_str)), NULL, 0, QMP_OPEN_ARGS, netdev_add},
	{"netdev_del", "Remove a network back end; a card that uses it sees its cable unplugged.", "0.3",
	 QMP_MEMBERS(QMP_REQ("id", qmp_str)), NULL, 0, 0, netdev_del},
	{"set_link", "Plug or unplug the cable of a network card or back end.", "0.3",
	 QMP_MEMBERS(QMP_REQ("name", qmp_str), QMP_REQ("up", qmp_bool)), NULL, 0, 0, set_link},
	{"query-rx-filter", "What network cards let through to the guest.", "0.3",
	 QMP_MEMBERS(QMP_OPT("name", qmp_str)), &QMP_LIST_OF(rx_filter), 0, 0, query_rx_filter},
	{"announce-self", "Let network cards tell the switches where they are.", "0.2",
	 QMP_MEMBERS(QMP_REQ("initial", qmp_int), QMP_REQ("max", qmp_int), QMP_REQ("rounds", qmp_int),
		     QMP_REQ("step", qmp_int), QMP_OPT("interfaces", QMP_LIST_OF(qmp_str)), QMP_OPT("id", qmp_str)),
	 NULL, 0, 0, announce_self},
	{NULL},
};
