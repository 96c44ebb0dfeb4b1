/*
 * -netdev tap and bridge: a network interface of the host (Documentation/networking/tuntap.rst). Frames go straight
 * between the device's file and the NIC's buffers, several queues for a NIC that has them, unfinished frames
 * (checksums, segmentation) behind a virtio_net_hdr where the NIC asks for them.
 *
 * The tap is ours (ifname=, script=; bridge: br=), a helper's that adds it to a bridge (helper=, br=), or somebody's
 * who passes it (fd=, fds=).
 *
 * Left out: vhost. vhost=on is taken where the kernel has it, because libvirt asks for it by default, and has no
 * effect: packets go through this process. vhostforce=on is refused.
 */
#include "netdev.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "vmm/bridge.h"
#include "vmm/fdset.h"
#include "vmm/log.h"

#define DEFAULT_SCRIPT     "/etc/qemu-ifup"
#define DEFAULT_DOWNSCRIPT "/etc/qemu-ifdown"
#define DEFAULT_HELPER     "/usr/lib/qemu/qemu-bridge-helper"
#ifndef TUN_F_USO4 /* Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

struct tap_queue {
	struct tap_netdev *tap;
	unsigned n;
	int fd;
	struct watch *watch;
	struct bh gone; /* the interface has: frames that wait for room wait no more */
	bool in_on, out_on, broken;
};

struct tap_netdev {
	struct netdev d;
	/* options */
	char *ifname, *fd_name, *fd_names, *script, *downscript, *br, *helper, *vhostfd, *vhostfds;
	uint64_t sndbuf;
	uint32_t n_queues, poll_us;
	int vnet_hdr, vhost; /* ONOFFAUTO */
	bool vhostforce;

	struct tap_queue queue[NET_MAX_QUEUES];
	char name[IFNAMSIZ];
	unsigned host_header; /* bytes the kernel puts before each frame; 0: none */
	unsigned header;      /* those the NIC knows of */
	unsigned offloads;    /* what the kernel can */
	int goodbye_fd;       /* downscript, -1: none */
};
#define TAP(x) ((struct tap_netdev *)(x))

static const struct prop tap_props[] = {
	NETDEV_COMMON_PROPS,
	PROP(struct tap_netdev, ifname, PROP_STR, .help = "interface (default: the next free tapN)"),
	PROP_NAMED(struct tap_netdev, "fd", fd_name, PROP_STR,
		   .help = "an open tap: number or name of a passed descriptor"),
	PROP_NAMED(struct tap_netdev, "fds", fd_names, PROP_STR, .help = "one open tap per queue: FD:FD:..."),
	PROP_NAMED(struct tap_netdev, "queues", n_queues, PROP_U32, .min = 1, .def = 1, .max = NET_MAX_QUEUES,
		   .help = "queue pairs"),
	PROP(struct tap_netdev, script, PROP_STR,
	     .help = "program that sets the interface up, or no (default " DEFAULT_SCRIPT ")"),
	PROP(struct tap_netdev, downscript, PROP_STR,
	     .help = "program for the end, or no (default " DEFAULT_DOWNSCRIPT ")"),
	PROP(struct tap_netdev, br, PROP_STR, .help = "bridge for the helper (default br0)"),
	PROP(struct tap_netdev, helper, PROP_STR, .help = "program that makes a tap on a bridge"),
	PROP(struct tap_netdev, sndbuf, PROP_SIZE,
	     .help = "frames under way from the guest, in bytes (default: no limit)"),
	PROP(struct tap_netdev, vnet_hdr, PROP_ONOFFAUTO, .def = 2,
	     .help = "unfinished frames (default: where the kernel can)"),
	PROP(struct tap_netdev, vhost, PROP_ONOFFAUTO, .def = 2,
	     .help = "taken where the kernel has vhost-net; without effect"),
	PROP(struct tap_netdev, vhostfd, PROP_STR, .help = "as vhost"),
	PROP(struct tap_netdev, vhostfds, PROP_STR, .help = "as vhost"),
	PROP(struct tap_netdev, vhostforce, PROP_BOOL, .help = "refused: there is no vhost"),
	PROP_NAMED(struct tap_netdev, "poll-us", poll_us, PROP_U32, .help = "as vhost"),
	PROP_END,
};

static const struct prop bridge_props[] = {
	NETDEV_COMMON_PROPS,
	PROP(struct tap_netdev, br, PROP_STR, .help = "bridge (default br0)"),
	PROP(struct tap_netdev, helper, PROP_STR,
	     .help = "program that makes a tap on it (default: vmm itself, or " DEFAULT_HELPER " where it may not)"),
	PROP_END,
};

/* ---- frames ---- */

static void set_events(struct tap_queue *q)
{
	if (!q->broken)
		loop_watch_set(q->watch, (q->in_on ? LOOP_READ : 0) | (q->out_on ? LOOP_WRITE : 0));
}

static void tap_ready(void *opaque, int fd, unsigned events)
{
	struct tap_queue *q = opaque;

	if ((events & LOOP_WRITE) && q->out_on) {
		q->out_on = false;
		set_events(q);
		netdev_writable(&q->tap->d, q->n);
	}
	if ((events & LOOP_READ) && q->in_on)
		netdev_readable(&q->tap->d, q->n);
}

static void interface_gone(struct tap_queue *q)
{
	log_warn("net", "%s: the interface %s has gone: %s", netdev_id(&q->tap->d), q->tap->name, strerror(errno));
	loop_watch_set(q->watch, 0);
	q->broken = true;
	bh_schedule(&q->gone);
}

static void gone_bh(void *opaque)
{
	struct tap_queue *q = opaque;

	netdev_writable(&q->tap->d, q->n);
}

static bool tap_send(struct netdev *d, unsigned queue, const struct iovec *iov, int n)
{
	static const uint8_t no_header[NET_HEADER_MAX];
	struct tap_netdev *t = TAP(d);
	struct tap_queue *q = &t->queue[queue];
	struct iovec all[NET_MAX_IOV + 1];
	ssize_t done;

	if (t->host_header && !t->header) {
		all[0] = (struct iovec){.iov_base = (void *)no_header, .iov_len = t->host_header};
		memcpy(all + 1, iov, (size_t)n * sizeof(*iov));
		iov = all;
		n++;
	}
	do {
		done = writev(q->fd, iov, n);
	} while (done < 0 && errno == EINTR);
	if (done >= 0)
		return true;
	if (errno == EAGAIN && !q->broken) {
		q->out_on = true;
		set_events(q);
		return false;
	}
	log_debug("net", "%s: a frame was not sent: %s", netdev_id(d),
		  strerror(errno)); /* the interface is down, or a bad header */
	netdev_tx_lost(d);
	return true;
}

/* The kernel cuts off what does not fit and does not say so: one more buffer behind the NIC's shows it. */
static ssize_t tap_recv(struct netdev *d, unsigned queue, const struct iovec *iov, int n)
{
	static uint8_t spill[NET_FRAME_BUF];
	struct tap_netdev *t = TAP(d);
	struct tap_queue *q = &t->queue[queue];
	unsigned skip = t->header ? 0 : t->host_header;
	struct iovec all[NET_MAX_IOV + 2];
	uint8_t header[NET_HEADER_MAX];
	size_t room = net_iov_len(iov, n);
	ssize_t len;
	int k = 0;

	if (skip)
		all[k++] = (struct iovec){.iov_base = header, .iov_len = skip};
	memcpy(all + k, iov, (size_t)n * sizeof(*iov));
	k += n;
	all[k++] = (struct iovec){.iov_base = spill, .iov_len = sizeof(spill)};
	do {
		len = readv(q->fd, all, k);
	} while (len < 0 && errno == EINTR);
	if (len < 0) {
		if (errno != EAGAIN && !q->broken)
			interface_gone(q);
		return 0;
	}
	len -= skip;
	return len > (ssize_t)room ? -EMSGSIZE : MAX(len, (ssize_t)1);
}

static void tap_want(struct netdev *d, unsigned queue, bool on)
{
	TAP(d)->queue[queue].in_on = on;
	set_events(&TAP(d)->queue[queue]);
}

/* ---- unfinished frames, queues ---- */

static unsigned tap_offloads(const struct netdev *d)
{
	return ((const struct tap_netdev *)d)->offloads;
}

static void set_kernel_offloads(struct tap_netdev *t, unsigned offloads)
{
	static const struct {
		unsigned ours, theirs;
	} map[] = {{NET_CSUM, TUN_F_CSUM}, {NET_TSO4, TUN_F_TSO4}, {NET_TSO6, TUN_F_TSO6}, {NET_ECN, TUN_F_TSO_ECN},
		   {NET_UFO, TUN_F_UFO},   {NET_USO4, TUN_F_USO4}, {NET_USO6, TUN_F_USO6}};
	unsigned long bits = 0;

	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (offloads & map[i].ours)
			bits |= map[i].theirs;
	if (!(bits & TUN_F_CSUM))
		bits = 0;
	if (ioctl(t->queue[0].fd, TUNSETOFFLOAD, bits))
		log_warn("net", "%s: TUNSETOFFLOAD %#lx: %s", netdev_id(&t->d), bits, strerror(errno));
}

static void tap_set_offloads(struct netdev *d, unsigned offloads)
{
	if (TAP(d)->header)
		set_kernel_offloads(TAP(d), offloads);
}

static int set_header_size(struct tap_netdev *t, unsigned len)
{
	int size = (int)len;

	for (unsigned q = 0; q < t->d.queues; q++)
		if (ioctl(t->queue[q].fd, TUNSETVNETHDRSZ, &size))
			return -errno;
	t->host_header = len;
	return 0;
}

static int tap_set_vnet_header(struct netdev *d, unsigned len)
{
	struct tap_netdev *t = TAP(d);
	int r = 0;

	if (!t->host_header)
		return len ? -ENOTSUP : 0;
	if (!len)
		set_kernel_offloads(t, 0); /* what comes must be finished again */
	else if (len != t->host_header)
		r = set_header_size(t, len);
	if (!r)
		t->header = len;
	return r;
}

static void tap_set_queues(struct netdev *d, unsigned active)
{
	for (unsigned i = 0; d->queues > 1 && i < d->queues; i++) {
		struct ifreq ifr = {.ifr_flags = i < active ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

		/* Fails when it is as wanted already. */
		if (ioctl(TAP(d)->queue[i].fd, TUNSETQUEUE, &ifr) && errno != EINVAL)
			log_warn("net", "%s: queue %u: TUNSETQUEUE: %s", netdev_id(d), i, strerror(errno));
	}
}

static void find_offloads(struct tap_netdev *t)
{
	static const struct {
		unsigned long theirs;
		unsigned ours;
	} more[] = {{TUN_F_CSUM | TUN_F_UFO, NET_UFO}, {TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6, NET_USO4 | NET_USO6}};
	int fd = t->queue[0].fd;

	if (!t->host_header)
		return;
	if (!ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN))
		t->offloads = NET_CSUM | NET_TSO4 | NET_TSO6 | NET_ECN;
	for (size_t i = 0; t->offloads && i < ARRAY_SIZE(more); i++)
		if (!ioctl(fd, TUNSETOFFLOAD, more[i].theirs))
			t->offloads |= more[i].ours;
	set_kernel_offloads(t, 0);
}

/* ---- opening ---- */

/* A tap of ours or somebody's: what it is, and into the loop. Takes fd over. */
static int add_queue(struct tap_netdev *t, int fd, const char *what, struct err *e)
{
	struct tap_queue *q = &t->queue[t->d.queues];
	struct ifreq ifr = {0};
	bool header;

	*q = (struct tap_queue){.tap = t, .n = t->d.queues, .fd = fd};
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	t->d.queues++;
	bh_init(&q->gone, loop_main(), NULL, gone_bh, q);
	if (ioctl(fd, TUNGETIFF, &ifr) || !(ifr.ifr_flags & IFF_TAP))
		return err_set(e, EINVAL, "%s is not a tap", what);
	header = ifr.ifr_flags & IFF_VNET_HDR;
	if (!(ifr.ifr_flags & IFF_NO_PI))
		return err_set(e, EINVAL, "%s: the tap was made without IFF_NO_PI", what);
	if (q->n == 0) {
		memcpy(t->name, ifr.ifr_name, sizeof(t->name));
		t->host_header = header ? 10 : 0;
	} else if (header != (t->host_header != 0)) {
		return err_set(e, EINVAL, "%s: vnet_hdr not consistent across given tap fds", what);
	}
	q->watch = loop_watch(loop_main(), fd, 0, NULL, tap_ready, q, e);
	return q->watch ? 0 : -EIO;
}

static int open_inherited(struct tap_netdev *t, const char *name, struct err *e)
{
	char what[64];
	int fd = fd_name_take(name, e);

	snprintf(what, sizeof(what), "fd %.40s", name);
	return fd < 0 ? fd : add_queue(t, fd, what, e);
}

static int open_list(struct tap_netdev *t, struct err *e)
{
	char *copy = xstrdup(t->fd_names), *save = NULL;
	int r = 0;

	for (char *name = strtok_r(copy, ":", &save); !r && name; name = strtok_r(NULL, ":", &save))
		r = t->d.queues >= NET_MAX_QUEUES
			    ? err_set(e, E2BIG, "fds: at most %d queues are supported", NET_MAX_QUEUES)
			    : open_inherited(t, name, e);
	if (!r && !t->d.queues)
		r = err_set(e, EINVAL, "fds= is empty");
	free(copy);
	return r;
}

static int open_device(struct tap_netdev *t, struct err *e)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	unsigned features = 0;
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), r;

	if (fd < 0)
		return err_errno(e, errno, "could not open /dev/net/tun");
	if (ioctl(fd, TUNGETFEATURES, &features))
		features = 0;
	if (t->n_queues > 1)
		ifr.ifr_flags |= IFF_MULTI_QUEUE;
	if (t->vnet_hdr != 0 && (features & IFF_VNET_HDR))
		ifr.ifr_flags |= IFF_VNET_HDR;
	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", *t->name ? t->name : t->ifname ? t->ifname : "tap%d");
	if (t->vnet_hdr == 1 && !(features & IFF_VNET_HDR)) {
		close(fd);
		return err_set(e, ENOTSUP, "vnet_hdr=on requested, but no kernel support for IFF_VNET_HDR available");
	}
	if (ioctl(fd, TUNSETIFF, &ifr)) {
		r = err_errno(e, errno, "could not configure /dev/net/tun (%s)", ifr.ifr_name);
		close(fd);
		return r;
	}
	return add_queue(t, fd, ifr.ifr_name, e);
}

static int open_own(struct tap_netdev *t, struct err *e)
{
	const char *up = t->script ? t->script : DEFAULT_SCRIPT,
		   *down = t->downscript ? t->downscript : DEFAULT_DOWNSCRIPT;
	bool has_down = *down && strcmp(down, "no") && (t->downscript || !access(down, X_OK));
	int r = 0;

	if (t->ifname && strlen(t->ifname) >= IFNAMSIZ)
		return err_set(e, EINVAL, "ifname=%s is too long for an interface", t->ifname);
	for (unsigned q = 0; !r && q < t->n_queues; q++)
		r = open_device(t, e);
	if (!r && *up && strcmp(up, "no"))
		r = net_run_script(up, t->name, e);
	if (!r && has_down) {
		t->goodbye_fd = net_script_at_end(down, t->name, e);
		r = MIN(t->goodbye_fd, 0);
	}
	return r;
}

static int open_bridge(struct tap_netdev *t, const char *helper, struct err *e)
{
	int fd = net_bridge_helper(helper, t->br ? t->br : "br0", e);

	return fd < 0 ? fd : add_queue(t, fd, "the helper's descriptor", e);
}

/* With the right to do so no helper is needed, neither one that is installed nor a door in the sandbox. */
static int open_on_bridge(struct tap_netdev *t, const char *bridge, struct err *e)
{
	int r = open_device(t, e);

	return r ? r : bridge_add_tap(t->name, bridge, e);
}

/* Descriptors for the kernel's vhost-net come with the command line whether we use them or not. */
static int drop_vhost(struct tap_netdev *t, struct err *e)
{
	char *copy, *save = NULL;
	int r = 0;

	if (t->vhostforce)
		return err_set(e, ENOTSUP, "vhostforce=on: vmm does not use vhost-net");
	if (t->vhost == 1 && !t->vhostfd && !t->vhostfds && access("/dev/vhost-net", F_OK))
		return err_set(e, ENOENT,
			       "vhost=on: this host has no /dev/vhost-net, and vmm does not use it: leave it away");
	copy = xstrdup(t->vhostfds ? t->vhostfds : t->vhostfd ? t->vhostfd : "");
	for (char *name = strtok_r(copy, ":", &save); !r && name; name = strtok_r(NULL, ":", &save)) {
		int fd = fd_name_take(name, e);

		r = MIN(fd, 0);
		if (!r)
			close(fd);
	}
	free(copy);
	if (!r && (t->vhost == 1 || t->vhostfd || t->vhostfds))
		log_info("net", "%s: vhost=on has no effect: packets go through vmm", netdev_id(&t->d));
	return r;
}

static int check_options(const struct tap_netdev *t, struct err *e)
{
	bool own = t->ifname || t->script || t->downscript || t->vnet_hdr != 2 || t->n_queues != 1;

	if (t->fd_name && (own || t->helper || t->fd_names || t->vhostfds))
		return err_set(e, EINVAL,
			       "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= are "
			       "invalid with fd=");
	if (t->fd_names && (own || t->helper || t->vhostfd))
		return err_set(e, EINVAL,
			       "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are invalid "
			       "with fds=");
	if (t->helper && (own || t->vhostfds))
		return err_set(
			e, EINVAL,
			"ifname=, script=, downscript=, vnet_hdr=, queues=, and vhostfds= are invalid with helper=");
	if (t->br && !t->helper)
		return err_set(e, EINVAL, "br= goes with helper=");
	return 0;
}

static int finish_open(struct tap_netdev *t, struct err *e)
{
	int size = t->sndbuf ? (int)MIN(t->sndbuf, (uint64_t)INT32_MAX) : INT32_MAX;

	if (ioctl(t->queue[0].fd, TUNSETSNDBUF, &size) && t->sndbuf)
		return err_errno(e, errno, "sndbuf=%llu: TUNSETSNDBUF", (unsigned long long)t->sndbuf);
	if (t->host_header && set_header_size(t, 10))
		return err_set(e, EINVAL, "the kernel refuses the size of the vnet header");
	find_offloads(t);
	return 0;
}

static void tap_close(struct netdev *d)
{
	struct tap_netdev *t = TAP(d);

	net_run_script_at_end(t->goodbye_fd);
	for (unsigned q = 0; q < d->queues; q++) {
		loop_unwatch(t->queue[q].watch);
		bh_cancel(&t->queue[q].gone);
		close(t->queue[q].fd);
	}
}

static int tap_open(struct netdev *d, struct err *e)
{
	struct tap_netdev *t = TAP(d);
	int r;

	d->queues = 0;
	t->goodbye_fd = -1;
	r = check_options(t, e);
	if (!r)
		r = drop_vhost(t, e);
	if (!r && t->fd_name)
		r = open_inherited(t, t->fd_name, e);
	else if (!r && t->fd_names)
		r = open_list(t, e);
	else if (!r && t->helper)
		r = open_bridge(t, t->helper, e);
	else if (!r)
		r = open_own(t, e);
	if (!r)
		r = finish_open(t, e);
	if (r)
		tap_close(d);
	return r;
}

static int bridge_open(struct netdev *d, struct err *e)
{
	struct tap_netdev *t = TAP(d);
	const char *bridge = t->br ? t->br : "br0";
	int r = -EPERM;

	d->queues = 0;
	t->goodbye_fd = -1;
	t->n_queues = 1;
	t->vnet_hdr = 2;
	if (strlen(bridge) >= IFNAMSIZ)
		return err_set(e, EINVAL, "br=%s is too long for a bridge", bridge);
	if (!t->helper)
		r = open_on_bridge(t, bridge, e);
	if (t->helper || ((r == -EPERM || r == -EACCES) && !d->queues))
		r = open_bridge(t, t->helper ? t->helper : DEFAULT_HELPER, e);
	if (!r)
		r = finish_open(t, e);
	if (r)
		tap_close(d);
	return r;
}

static void tap_describe(struct netdev *d, char *buf, size_t size)
{
	struct tap_netdev *t = TAP(d);

	if (t->fd_name || t->fd_names)
		snprintf(buf, size, "fd%s=%s,ifname=%s", t->fd_names ? "s" : "", t->fd_names ? t->fd_names : t->fd_name,
			 t->name);
	else if (t->helper || d->ops == &netdev_bridge_ops)
		snprintf(buf, size, "%s%s%sbr=%s,ifname=%s", t->helper ? "helper=" : "", t->helper ? t->helper : "",
			 t->helper ? "," : "", t->br ? t->br : "br0", t->name);
	else
		snprintf(buf, size, "ifname=%s,script=%s,downscript=%s", t->name,
			 t->script ? t->script : DEFAULT_SCRIPT, t->downscript ? t->downscript : DEFAULT_DOWNSCRIPT);
}

#define TAP_OPS                                                                                     \
	.size = sizeof(struct tap_netdev), .close = tap_close, .send = tap_send, .recv = tap_recv,  \
	.want_packets = tap_want, .offloads = tap_offloads, .set_vnet_header = tap_set_vnet_header, \
	.set_offloads = tap_set_offloads, .set_queues = tap_set_queues, .describe = tap_describe

const struct netdev_ops netdev_tap_ops = {
	.name = "tap", .help = "a network interface of the host", .props = tap_props, .open = tap_open, TAP_OPS};

const struct netdev_ops netdev_bridge_ops = {.name = "bridge",
					     .help = "a tap on a bridge, made by a helper",
					     .props = bridge_props,
					     .open = bridge_open,
					     TAP_OPS};
