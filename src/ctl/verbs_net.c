/* Network cards of running guests, and the networks they are on. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "config.h"
#include "look.h"

#define QEMU_HELPER "/usr/lib/qemu/qemu-bridge-helper"

/* ---- a tap from the helper ---- */

/* As vmm does it before its sandbox closes. The tap's descriptor, or -1. */
static int tap_on_bridge(struct ctl *c, const struct nic_config *n)
{
	const char *helper = n->helper ? n->helper : bridge_helper() ?: QEMU_HELPER;
	char *bridge = xasprintf("--br=%s", n->bridge);
	int pair[2], fd = -1, status = -1;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		free(bridge);
		return ctl_errno(c, errno, "cannot make a socket"), -1;
	}
	fflush(NULL);
	pid = fork();
	if (!pid) {
		if (pair[1] == 3) {
			fcntl(3, F_SETFD, 0);
		} else if (dup2(pair[1], 3) < 0) {
			_exit(127);
		}
		execl(helper, helper, "--use-vnet", "--fd=3", bridge, (char *)NULL);
		fprintf(stderr, "vmmctl: cannot execute %s: %s\n", helper, strerror(errno));
		_exit(127);
	}
	close(pair[1]);
	if (pid > 0)
		fd = fd_receive(pair[0]);
	close(pair[0]);
	free(bridge);
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || status || fd < 0) {
		if (fd >= 0)
			close(fd);
		ctl_fail(c, CTL_FAILED, "%s could not make a tap on the bridge %s", helper, n->bridge);
		return -1;
	}
	return fd;
}

/* ---- attach ---- */

/* The lowest nicN that is free: the one this guest's configuration would give next. */
static char *free_id(struct ctl *c, struct guest *g, unsigned *number, int *status)
{
	json_t *list = guest_query(c, g, "qom-list", json_pack("{s:s}", "path", "/machine/peripheral"), status), *item;
	size_t i;

	for (*number = 0; list; ++*number) {
		char *id = xasprintf("nic%u", *number);
		bool taken = false;

		json_array_foreach(list, i, item)
		{
			const char *name = json_string_value(json_object_get(item, "name"));

			taken |= name && !strcmp(name, id);
		}
		if (!taken) {
			json_decref(list);
			return id;
		}
		free(id);
	}
	return NULL;
}

/* hostfwd=, guestfwd= and dnssearch= are lists of {"str": TEXT}. */
static json_t *netdev_arguments(const struct opts *o)
{
	json_t *args = typed_object(o);

	for (size_t i = 0; i < o->n; i++) {
		static const char *const lists[] = {"hostfwd", "guestfwd", "dnssearch"};

		for (size_t k = 0; k < ARRAY_SIZE(lists); k++) {
			json_t *list = json_object_get(args, lists[k]);

			if (strcmp(o->v[i].key, lists[k]))
				continue;
			if (!json_is_array(list))
				json_object_set_new(args, lists[k], list = json_array());
			json_array_append_new(list, json_pack("{s:s}", "str", o->v[i].value));
		}
	}
	return args;
}

static int add_netdev(struct ctl *c, struct guest *g, const struct nic_config *n, const struct opts *netdev)
{
	const char *id = NULL;
	json_t *answer;
	int fd, r;

	for (size_t i = 0; i < netdev->n; i++)
		if (!strcmp(netdev->v[i].key, "id"))
			id = netdev->v[i].value;
	if (!n->bridge)
		return guest_command(c, g, "netdev_add", netdev_arguments(netdev));
	fd = tap_on_bridge(c, n);
	if (fd < 0)
		return CTL_FAILED;
	answer = qmp_run_fd(g->qmp, "getfd", json_pack("{s:s}", "fdname", id), fd, c->timeout_ms, &c->err);
	close(fd);
	if (!answer)
		return ctl_fail(c, CTL_FAILED, "%s: getfd: %s", g->name, c->err.msg);
	json_decref(answer);
	r = guest_command(c, g, "netdev_add", json_pack("{s:s, s:s, s:s}", "type", "tap", "id", id, "fd", id));
	return r;
}

int attach_nic(struct ctl *c, struct guest *g, struct opts *o)
{
	struct guest_config *scratch = guest_config_new();
	struct nic_config *n = guest_config_add_nic(scratch);
	const char *given = opts_get(o, "id");
	struct opts netdev = {0}, device = {0};
	unsigned number = 0;
	char *id = NULL;
	int r = CTL_OK;

	opts_get(o, "driver");
	if (opts_apply(o, nic_props, n, "nic", &c->err) || nic_check(n, &c->err))
		r = CTL_USAGE;
	if (!r)
		id = free_id(c, g, &number, &r);
	if (!r && given) {
		free(id);
		id = xstrdup(given);
	}
	if (!r && nic_command_line(n, id, g->name, number, &netdev, &device, &c->err))
		r = CTL_USAGE;
	if (!r)
		r = add_netdev(c, g, n, &netdev);
	if (!r) {
		r = guest_command(c, g, "device_add", typed_object(&device));
		if (r) {
			struct err why = c->err;

			guest_command(c, g, "netdev_del", json_pack("{s:s}", "id", opts_get(&netdev, "id")));
			c->err = why;
		}
	}
	if (!r) {
		ctl_say(c, "%s\n", id);
		c->result = json_pack("{s:s, s:s}", "id", id, "mac", opts_get(&device, "mac"));
	}
	opts_free(&netdev);
	opts_free(&device);
	free(id);
	guest_config_free(scratch);
	return r;
}

/* ---- detach ---- */

char *netdev_of(struct ctl *c, struct guest *g, const char *id)
{
	char *path = *id == '/' ? xstrdup(id) : xasprintf("/machine/peripheral/%s", id), *name = NULL;
	struct err before = c->err;
	int status;
	json_t *answer =
		guest_query(c, g, "qom-get", json_pack("{s:s, s:s}", "path", path, "property", "netdev"), &status);

	if (json_is_string(answer) && *json_string_value(answer))
		name = xstrdup(json_string_value(answer));
	json_decref(answer);
	c->err = before;
	free(path);
	return name;
}

/* ---- vnet-list ---- */

/* "a=b,c=d": the value of key, cut at the comma. malloc'ed or NULL. */
static char *value_of(const char *list, const char *key)
{
	size_t n = strlen(key);

	while (list) {
		if (!strncmp(list, key, n) && list[n] == '=')
			return xstrndup(list + n + 1, strcspn(list + n + 1, ",\r"));
		list = strchr(list, ',');
		list += list != NULL;
	}
	return NULL;
}

/* The bridge that an interface of the host is a port of; malloc'ed or NULL. */
static char *bridge_of(const char *interface)
{
	char *path = strchr(interface, '/') ? NULL : xasprintf("/sys/class/net/%s/master", interface);
	char target[256];
	ssize_t n = path ? readlink(path, target, sizeof(target) - 1) : -1;

	free(path);
	if (n <= 0)
		return NULL;
	target[n] = 0;
	return xstrdup(strrchr(target, '/') ? strrchr(target, '/') + 1 : target);
}

/* The second line of a card, " \ ID: index=0,type=tap,ifname=...", into its row. */
static void add_network(json_t *row, const char *line)
{
	char *type = value_of(line, "type"), *interface = value_of(line, "ifname"), *net = value_of(line, "net");
	char *bridge = interface ? bridge_of(interface) : NULL;
	const char *network = bridge ? bridge : net ? net : interface ? interface : type;

	json_object_set_new(row, "network", network ? json_string(network) : json_null());
	json_object_set_new(row, "type", type ? json_string(bridge ? "bridge" : type) : json_null());
	json_object_set_new(row, "interface", interface ? json_string(interface) : json_null());
	free(type);
	free(interface);
	free(net);
	free(bridge);
}

/* QMP tells of no networks, QEMU's neither: "info network" does. */
static void take_networks(json_t *rows, const char *guest, const char *text)
{
	char *copy = xstrdup(text), *save = NULL;
	json_t *row = NULL;

	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *colon = strstr(line, ": index="), *list = colon ? strchr(colon, ',') : NULL, *mac, *link;
		bool below = !strncmp(line, " \\ ", 3);

		if (!list)
			continue;
		list++;
		if (below && row)
			add_network(row, list);
		row = NULL;
		if (below || strncmp(list, "type=nic", 8))
			continue;
		*colon = 0;
		mac = value_of(list, "macaddr");
		link = value_of(list, "link");
		row = json_pack("{s:n, s:n, s:n, s:s, s:s, s:s, s:s}", "network", "type", "interface", "guest", guest,
				"nic", line, "mac", mac ? mac : "?", "link", link ? link : "up");
		json_array_append_new(rows, row);
		free(mac);
		free(link);
	}
	free(copy);
}

static int by_network(const void *a, const void *b)
{
	const json_t *one = *(json_t *const *)a, *two = *(json_t *const *)b;
	const char *first = json_string_value(json_object_get(one, "network")),
		   *second = json_string_value(json_object_get(two, "network"));

	return strcmp(first ? first : "~", second ? second : "~");
}

static json_t *sorted(json_t *rows)
{
	size_t n = json_array_size(rows);
	json_t **v = xcalloc(n + 1, sizeof(*v)), *out = json_array();

	for (size_t i = 0; i < n; i++)
		v[i] = json_array_get(rows, i);
	qsort(v, n, sizeof(*v), by_network);
	for (size_t i = 0; i < n; i++)
		json_array_append(out, v[i]);
	free(v);
	json_decref(rows);
	return out;
}

int do_vnet_list(struct ctl *c)
{
	static const struct column columns[] = {
		{"NETWORK", "network"}, {"TYPE", "type"}, {"INTERFACE", "interface"}, {"GUEST", "guest"},
		{"NIC", "nic"},         {"MAC", "mac"},   {"LINK", "link"},           {NULL}};
	struct guest_list list;
	struct qmp **sessions;
	json_t *rows;
	unsigned *asked;
	int r = guest_all(c, c->argv, c->argc, &list);

	if (r)
		return r;
	sessions = xcalloc(list.n + 1, sizeof(*sessions));
	asked = xcalloc(list.n + 1, sizeof(*asked));
	for (size_t i = 0; i < list.n; i++) {
		if (list.v[i].pid && !list.v[i].qmp)
			list.v[i].qmp = qmp_open(list.v[i].dir, "qmp.sock", NULL);
		sessions[i] = list.v[i].qmp;
		if (sessions[i])
			asked[i] = qmp_queue(sessions[i], "human-monitor-command",
					     json_pack("{s:s}", "command-line", "info network"), -1);
	}
	qmp_gather(sessions, list.n, c->timeout_ms);
	rows = json_array();
	for (size_t i = 0; i < list.n; i++) {
		struct err e = ERR_INIT;
		json_t *answer = sessions[i] ? qmp_answer(sessions[i], asked[i], &e) : NULL;

		if (json_is_string(answer))
			take_networks(rows, list.v[i].name, json_string_value(answer));
		else if (sessions[i])
			ctl_warn(c, "%s: %s", list.v[i].name, e.msg);
		json_decref(answer);
	}
	c->result = sorted(rows);
	table_print(c, columns, c->result);
	free(asked);
	free(sessions);
	guest_list_free(&list);
	return CTL_OK;
}
