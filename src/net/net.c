/*
 * Networks, the part between a NIC and a back end: who is plugged into whom, links, flow control, statistics.
 *
 * A back end reads only while somebody wants packets: a NIC with room for them whose link is up; or nobody at all, then
 * what comes is thrown away, so that neither a stream's peer is held up nor the guest finds old packets when its cable
 * is plugged in. A NIC without room leaves its packets to the kernel's queues, which know what to do when they are
 * full.
 *
 * NICs ask from vCPU threads, back ends run on the main loop: what a NIC wants is a word under its device's lock, and a
 * bottom half takes it to the back end.
 */
#include "netdev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/log.h"

#define DISCARD_AT_ONCE 64 /* packets in one turn of the loop */
#define SHORT_AT_ONCE   16

static const struct netdev_ops *const backends[] = {
	&netdev_bridge_ops, &netdev_dgram_ops, &netdev_socket_ops,
	&netdev_stream_ops, &netdev_tap_ops,   &netdev_user_ops,
};

static const struct netdev_ops *test_backend;
static struct netdev *all_netdevs, **netdevs_tail = &all_netdevs;
static struct nic *all_nics, **nics_tail = &all_nics;
static bool guest_paused;
static void (*event_fn)(void *opaque, const char *name, const char *data_json);
static void *event_opaque;
static uint8_t scratch[NET_FRAME_BUF]; /* main thread */

static void count(uint64_t *counter, uint64_t n)
{
	/* One writer, many readers. */
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

/* ---- who wants packets ---- */

static bool link_up(const struct netdev *d)
{
	return d->nic && !d->link_down && !d->nic->link_down;
}

static bool wants(const struct netdev *d, unsigned queue)
{
	if (d->nic && queue >= d->nic->active)
		return false;
	if (!link_up(d))
		return true; /* to throw them away */
	return !guest_paused && (d->nic->want & BIT(queue));
}

/* Main thread, NIC's lock held if there is one. */
static void update_reading(struct netdev *d)
{
	for (unsigned q = 0; q < d->queues; q++) {
		bool on = d->open && wants(d, q);

		if (on == netdev_wants(d, q))
			continue;
		d->reading ^= BIT(q);
		d->ops->want_packets(d, q, on);
	}
}

static void want_bh(void *opaque)
{
	struct nic *n = opaque;

	if (n->netdev)
		update_reading(n->netdev);
}

void nic_want_packets(struct nic *n, unsigned queue, bool on)
{
	uint32_t want = on ? n->want | BIT(queue) : n->want & ~BIT(queue);

	if (want == n->want)
		return;
	n->want = want;
	if (!n->netdev || queue >= n->netdev->queues)
		return;
	if (loop_is_current(loop_main()))
		update_reading(n->netdev);
	else
		bh_schedule(&n->want_bh);
}

void nic_lock(struct nic *n)
{
	pthread_mutex_lock(n->dev->lock);
}

void nic_unlock(struct nic *n)
{
	pthread_mutex_unlock(n->dev->lock);
}

void net_guest_runs(bool runs)
{
	if (guest_paused == !runs)
		return;
	guest_paused = !runs;
	for (struct nic *n = all_nics; n; n = n->next) {
		nic_lock(n);
		want_bh(n);
		nic_unlock(n);
	}
}

/* ---- a packet's way ---- */

static void discard(struct netdev *d, unsigned queue)
{
	const struct iovec iov = {.iov_base = scratch, .iov_len = sizeof(scratch)};

	for (int i = 0; i < DISCARD_AT_ONCE; i++) {
		if (d->ops->recv(d, queue, &iov, 1) == 0)
			break;
		if (d->nic)
			count(&d->nic->stats.rx_dropped, 1);
	}
}

void netdev_readable(struct netdev *d, unsigned queue)
{
	struct nic *n = d->nic;

	if (!n) {
		discard(d, queue);
		return;
	}
	nic_lock(n);
	if (!link_up(d))
		discard(d, queue);
	else if (wants(d, queue))
		n->ops->readable(n, queue);
	nic_unlock(n);
}

void netdev_writable(struct netdev *d, unsigned queue)
{
	struct nic *n = d->nic;
	bool tell = d->blocked & BIT(queue);

	d->blocked &= ~BIT(queue);
	if (!n || !tell)
		return;
	nic_lock(n);
	n->ops->writable(n, queue);
	nic_unlock(n);
}

void netdev_tx_lost(struct netdev *d)
{
	if (d->nic)
		count(&d->nic->stats.tx_dropped, 1);
}

ssize_t netdev_recv(struct nic *n, unsigned queue, const struct iovec *iov, int n_iov)
{
	struct netdev *d = n->netdev;
	ssize_t len;

	if (!d || queue >= d->queues || queue >= n->active || !link_up(d) || guest_paused || n_iov > NET_MAX_IOV)
		return 0;
	for (int i = 0; i < SHORT_AT_ONCE; i++) {
		len = d->ops->recv(d, queue, iov, n_iov);
		if (len == 0)
			return 0;
		if (len >= (ssize_t)(d->vnet_len + NET_FRAME_MIN)) {
			count(&n->stats.rx_packets, 1);
			count(&n->stats.rx_bytes, (uint64_t)len - d->vnet_len);
			return len;
		}
		count(&n->stats.rx_dropped, 1);
		if (len == -EMSGSIZE)
			return len;
	}
	return 0;
}

bool netdev_send(struct nic *n, unsigned queue, const struct iovec *iov, int n_iov)
{
	struct netdev *d = n->netdev;
	size_t len = net_iov_len(iov, n_iov), header = d ? d->vnet_len : 0;
	uint64_t lost = n->stats.tx_dropped;
	struct iovec one;

	if (!d || queue >= d->queues || queue >= n->active || !link_up(d) || len < header + NET_FRAME_MIN ||
	    len > header + NET_PACKET_MAX) {
		count(&n->stats.tx_dropped, 1);
		return true;
	}
	if (d->blocked & BIT(queue))
		return false;
	if (n_iov > NET_MAX_IOV) { /* a guest that builds frames of crumbs */
		one = (struct iovec){.iov_base = scratch, .iov_len = net_iov_get(iov, n_iov, 0, scratch, len)};
		iov = &one;
		n_iov = 1;
	}
	if (!d->ops->send(d, queue, iov, n_iov)) {
		d->blocked |= BIT(queue);
		return false;
	}
	if (n->stats.tx_dropped == lost) {
		count(&n->stats.tx_packets, 1);
		count(&n->stats.tx_bytes, len - header);
	}
	return true;
}

/* ---- NICs ---- */

static bool mac_in_use(const uint8_t mac[6])
{
	for (struct nic *n = all_nics; n; n = n->next)
		if (!memcmp(n->own_mac, mac, 6))
			return true;
	return false;
}

/* As QEMU numbers them, so that a guest finds the adapter it knew. */
static int choose_mac(uint8_t mac[6], struct err *e)
{
	static const uint8_t none[6], base[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};

	if (memcmp(mac, none, 6)) {
		if (mac[0] & 1)
			return err_set(
				e, EINVAL,
				"mac=%02x:%02x:%02x:%02x:%02x:%02x is a multicast address, which no adapter can have",
				mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
		return 0;
	}
	for (unsigned last = base[5]; last <= 0xff; last++) {
		memcpy(mac, base, 5);
		mac[5] = (uint8_t)last;
		if (!mac_in_use(mac))
			return 0;
	}
	memset(mac, 0, 6);
	return err_set(e, ENOSPC, "all automatic MAC addresses are used: give mac=");
}

static int plug(struct nic *n, const char *id, struct err *e)
{
	struct netdev *d = netdev_find(id);
	const char *class = n->dev->class->name;

	if (!d)
		return err_set(e, ENODEV, "Property '%s.netdev' can't find value '%s'", class, id);
	if (d->nic)
		return err_set(e, EBUSY, "Property '%s.netdev' can't take value '%s', it's in use", class, id);
	if (d->queues > n->queues)
		return err_set(e, EINVAL, "Property '%s.netdev': '%s' has %u queue pairs, the adapter takes %u", class,
			       id, d->queues, n->queues);
	n->netdev = d;
	d->nic = n;
	return 0;
}

int nic_attach(struct nic *n, struct device *dev, const char *netdev_id, unsigned queues, uint8_t mac[6],
	       const struct nic_ops *ops, struct err *e)
{
	int r;

	*n = (struct nic){.dev = dev, .ops = ops, .queues = queues, .active = queues};
	r = choose_mac(mac, e);
	if (!r && netdev_id && *netdev_id)
		r = plug(n, netdev_id, e);
	if (r) {
		n->ops = NULL;
		return r;
	}
	memcpy(n->mac, mac, 6);
	memcpy(n->own_mac, mac, 6);
	bh_init(&n->want_bh, loop_main(), dev->lock, want_bh, n);
	*nics_tail = n;
	nics_tail = &n->next;
	if (n->netdev)
		update_reading(n->netdev);
	return 0;
}

static void unplug(struct nic *n)
{
	struct netdev *d = n->netdev;

	if (!d)
		return;
	nic_set_vnet_header(n, 0);
	d->nic = NULL;
	d->blocked = 0;
	n->netdev = NULL;
	if (d->ops->set_queues)
		d->ops->set_queues(d, d->queues);
	update_reading(d);
}

void nic_detach(struct nic *n)
{
	if (!n->ops)
		return;
	bh_cancel(&n->want_bh);
	unplug(n);
	for (struct nic **p = &all_nics; *p; p = &(*p)->next)
		if (*p == n) {
			*p = n->next;
			if (nics_tail == &n->next)
				nics_tail = p;
			break;
		}
	n->ops = NULL;
}

struct nic *nic_next(struct nic *prev)
{
	return prev ? prev->next : all_nics;
}

const char *nic_name(const struct nic *n)
{
	return n->dev->id;
}

bool nic_link_up(const struct nic *n)
{
	return n->netdev && link_up(n->netdev);
}

void nic_get_stats(const struct nic *n, struct net_stats *s)
{
	const uint64_t *from = (const uint64_t *)&n->stats;
	uint64_t *to = (uint64_t *)s;

	for (size_t i = 0; i < sizeof(*s) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

/* ---- unfinished frames ---- */

unsigned nic_offloads(const struct nic *n)
{
	return n->netdev && n->netdev->ops->offloads ? n->netdev->ops->offloads(n->netdev) : 0;
}

int nic_set_vnet_header(struct nic *n, unsigned len)
{
	struct netdev *d = n->netdev;
	int r = 0;

	if (!d || !d->ops->set_vnet_header)
		return len ? -ENOTSUP : 0;
	if (d->vnet_len == len)
		return 0;
	r = d->ops->set_vnet_header(d, len);
	if (!r)
		d->vnet_len = len;
	return r;
}

void nic_set_offloads(struct nic *n, unsigned offloads)
{
	if (n->netdev && n->netdev->ops->set_offloads)
		n->netdev->ops->set_offloads(n->netdev, offloads & nic_offloads(n));
}

void nic_set_queues(struct nic *n, unsigned active)
{
	n->active = MIN(active, n->queues);
	if (!n->netdev)
		return;
	if (n->netdev->ops->set_queues)
		n->netdev->ops->set_queues(n->netdev, MIN(n->active, n->netdev->queues));
	update_reading(n->netdev);
}

/* ---- netdevs ---- */

static const struct netdev_ops *find_backend(const char *type, struct err *e)
{
	const char *names[ARRAY_SIZE(backends)], *near;

	if (test_backend && !strcmp(type, test_backend->name))
		return test_backend;
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
		names[i] = backends[i]->name;
		if (!strcmp(type, names[i]))
			return backends[i];
	}
	if (!strcmp(type, "vde") || !strcmp(type, "hubport") || !strcmp(type, "l2tpv3") || !strcmp(type, "netmap") ||
	    !strncmp(type, "vhost-", 6) || !strncmp(type, "vmnet-", 6))
		err_set(e, ENOTSUP, "network back end '%s' is not offered; -netdev help lists those that are", type);
	else if ((near = err_nearest(type, names, ARRAY_SIZE(names))))
		err_set(e, EINVAL, "Parameter 'type' expects a network back end: '%s' is none; did you mean '%s'?",
			type, near);
	else
		err_set(e, EINVAL, "Parameter 'type' expects a network back end: '%s' is none; -netdev help lists them",
			type);
	return NULL;
}

void netdev_set_test_backend(const struct netdev_ops *ops)
{
	test_backend = ops;
}

static void free_netdev(struct netdev *d)
{
	props_free(d->ops->props, d);
	free(d->options);
	free(d);
}

static bool valid_id(const char *id)
{
	if (!((*id >= 'a' && *id <= 'z') || (*id >= 'A' && *id <= 'Z')))
		return false;
	return id[strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")] == '\0' &&
	       strlen(id) < 128;
}

struct netdev *netdev_open(struct opts *o, struct err *e)
{
	const char *type = opts_get(o, "type"), *id = opts_get(o, "id");
	const struct netdev_ops *ops = type ? find_backend(type, e) : NULL;
	struct netdev *d;

	if (!type)
		err_set(e, EINVAL, "Parameter 'type' is missing");
	else if (ops && (!id || !*id))
		err_set(e, EINVAL, "Parameter 'id' is missing");
	else if (ops && !valid_id(id))
		err_set(e, EINVAL, "Parameter 'id' expects an identifier");
	else if (ops && netdev_find(id))
		err_set(e, EEXIST, "Duplicate ID '%s' for netdev", id);
	if (!ops || !id || !valid_id(id) || netdev_find(id))
		return NULL;
	d = xzalloc(ops->size);
	d->ops = ops;
	d->queues = 1;
	props_default(ops->props, d);
	free(d->id);
	d->id = xstrdup(id); /* opts_get() above marked it used, so opts_apply() leaves it alone */
	if (ops->take_options)
		ops->take_options(d, o);
	if (opts_apply(o, ops->props, d, type, e) || ops->open(d, e)) {
		free_netdev(d);
		return NULL;
	}
	d->open = true;
	d->options = opts_format(o);
	*netdevs_tail = d;
	netdevs_tail = &d->next;
	update_reading(d);
	return d;
}

/* Frames that wait for room would wait for ever: let them be dropped. NIC's lock held. */
static void tell_writable(struct nic *n, uint32_t queues)
{
	for (unsigned q = 0; q < NET_MAX_QUEUES; q++)
		if (queues & BIT(q))
			n->ops->writable(n, q);
}

static void close_netdev(struct netdev *d)
{
	struct nic *n = d->nic;

	if (n) {
		bool was_up = link_up(d);
		uint32_t blocked = d->blocked;

		nic_lock(n);
		unplug(n);
		if (was_up)
			n->ops->link_changed(n, false);
		tell_writable(n, blocked);
		nic_unlock(n);
	}
	d->open = false;
	update_reading(d);
	for (struct netdev **p = &all_netdevs; *p; p = &(*p)->next)
		if (*p == d) {
			*p = d->next;
			if (netdevs_tail == &d->next)
				netdevs_tail = p;
			break;
		}
	d->ops->close(d);
	free_netdev(d);
}

int netdev_remove(const char *id, struct err *e)
{
	struct netdev *d = netdev_find(id);

	if (!d)
		return err_set_class(e, ERR_DEVICE_NOT_FOUND, ENODEV, "Device '%.200s' not found", id);
	close_netdev(d);
	return 0;
}

void netdev_close_all(void)
{
	net_announce_stop();
	while (all_netdevs)
		close_netdev(all_netdevs);
}

static struct nic *find_nic(const char *name)
{
	struct nic *n = all_nics;

	while (n && strcmp(nic_name(n), name))
		n = n->next;
	return n;
}

int net_set_link(const char *name, bool up, struct err *e)
{
	struct netdev *d = netdev_find(name);
	struct nic *n = d ? d->nic : find_nic(name);
	bool was_up;

	if (!d && !n)
		return err_set_class(e, ERR_DEVICE_NOT_FOUND, ENODEV, "Device '%.200s' not found", name);
	if (d && !n) {
		d->link_down = !up;
		return 0;
	}
	nic_lock(n);
	was_up = nic_link_up(n);
	if (d)
		d->link_down = !up;
	n->link_down = !up;
	want_bh(n);
	if (nic_link_up(n) != was_up)
		n->ops->link_changed(n, !was_up);
	if (was_up && !up && n->netdev) {
		uint32_t blocked = n->netdev->blocked;

		n->netdev->blocked = 0;
		tell_writable(n, blocked);
	}
	nic_unlock(n);
	return 0;
}

struct netdev *netdev_find(const char *id)
{
	for (struct netdev *d = all_netdevs; d; d = d->next)
		if (!strcmp(d->id, id))
			return d;
	return NULL;
}

struct netdev *netdev_next(struct netdev *prev)
{
	return prev ? prev->next : all_netdevs;
}

const char *netdev_id(const struct netdev *d)
{
	return d->id;
}

const char *netdev_type(const struct netdev *d)
{
	return d->ops->name;
}

struct nic *netdev_nic(const struct netdev *d)
{
	return d->nic;
}

unsigned netdev_queues(const struct netdev *d)
{
	return d->queues;
}

const char *netdev_options(const struct netdev *d)
{
	return d->options;
}

char *netdev_info(const struct netdev *d)
{
	char text[1024] = "";

	if (d->ops->describe)
		d->ops->describe((struct netdev *)d, text, sizeof(text));
	return *text ? xasprintf("%s,%s", d->ops->name, text) : xstrdup(d->ops->name);
}

const char *netdev_backend_at(size_t i, const char **help, const struct prop **props)
{
	if (i >= ARRAY_SIZE(backends))
		return NULL;
	if (help)
		*help = backends[i]->help;
	if (props)
		*props = backends[i]->props;
	return backends[i]->name;
}

/* ---- events ---- */

void net_set_event_handler(void (*fn)(void *opaque, const char *name, const char *data_json), void *opaque)
{
	event_fn = fn;
	event_opaque = opaque;
}

void netdev_event(const char *name, const char *data_json)
{
	if (event_fn)
		event_fn(event_opaque, name, data_json);
}

void nic_rx_filter_changed(struct nic *n)
{
	const struct device *dev = n->dev;
	char *data;

	if (n->filter_told || !n->ops)
		return;
	n->filter_told = true;
	if (dev->user_id)
		data = xasprintf("{\"name\": \"%s\", \"path\": \"/machine/peripheral/%s\"}", dev->id, dev->id);
	else
		data = xasprintf("{\"path\": \"/machine/peripheral-anon/%s\"}", dev->id);
	netdev_event("NIC_RX_FILTER_CHANGED", data);
	free(data);
}

bool nic_get_rx_filter(struct nic *n, struct nic_rx_filter *f)
{
	n->filter_told = false;
	if (!n->ops->rx_filter)
		return false;
	*f = (struct nic_rx_filter){0};
	n->ops->rx_filter(n, f);
	return true;
}
