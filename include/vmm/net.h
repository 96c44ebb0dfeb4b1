/*
 * Networks: a netdev (-netdev TYPE,id=..) is the host's end of a cable, a NIC (a device with a `netdev` property) the
 * guest's. Back ends are in src/net/: tap, user (libslirp), socket, stream, dgram; the NICs in src/devices/net/ and
 * virtio/.
 *
 * Packets are pulled: a back end says that there is something to read and the NIC fetches it when, and where, it wants
 * it: with tap straight into the guest's buffers. Nothing is queued between the two, so a guest that does not look at
 * its network costs no memory, and the network's own flow control works.
 *
 * A packet is an Ethernet frame without FCS, 14 to NET_PACKET_MAX bytes; anything else is dropped and counted. A NIC
 * that needs 60 bytes pads. With a vnet header (nic_set_vnet_header) a struct virtio_net_hdr of the length that was set
 * stands before the frame, in both directions.
 *
 * Threads and locks: netdev_send(), netdev_recv() and the callbacks run on the main loop only, with the device's lock
 * held; a NIC whose doorbell is a register schedules a bottom half. A back end whose library blocks or needs system
 * calls that the main thread may not make has a thread of its own behind this interface. Everything else: main thread.
 */
#ifndef VMM_NET_H
#define VMM_NET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "vmm/device.h"
#include "vmm/err.h"
#include "vmm/prop.h"

#define NET_PACKET_MAX (65535 + 18) /* Ethernet and VLAN header before a full IP packet (segmentation offload) */
#define NET_HEADER_MAX 12           /* struct virtio_net_hdr_v1 */
#define NET_MAX_QUEUES 16

struct netdev;
struct nic;

/* What a NIC lets through, for query-rx-filter; its fields are QEMU's RxFilterInfo. */
enum nic_rx_state { NIC_RX_NORMAL, NIC_RX_NONE, NIC_RX_ALL };
struct nic_rx_filter {
	bool promiscuous, broadcast_allowed, unicast_overflow, multicast_overflow;
	enum nic_rx_state unicast, multicast, vlan;
	uint8_t main_mac[6];
	/* At most this many; the NIC's own memory, valid until the next call. */
	unsigned n_unicast, n_multicast, n_vlan;
	const uint8_t (*unicast_table)[6], (*multicast_table)[6];
	const uint16_t *vlan_table;
};

/* The NIC's side; main loop, device's lock held. */
struct nic_ops {
	/* There may be packets for netdev_recv(). Called again in later turns of the loop until it returned 0 or
	 * nic_want_packets(false). */
	void (*readable)(struct nic *n, unsigned queue);
	/* After netdev_send() returned 0: try again. */
	void (*writable)(struct nic *n, unsigned queue);
	/* The cable was plugged in or out (set_link, the netdev went or came back). Not called for the state at
	 * nic_attach(). */
	void (*link_changed)(struct nic *n, bool up);
	/* Optional. */
	void (*rx_filter)(struct nic *n, struct nic_rx_filter *f);
	/* Ask the guest's driver to announce itself after a migration (virtio's GUEST_ANNOUNCE). Optional; false: it
	 * cannot. */
	bool (*announce)(struct nic *n);
};

/* Counted since the NIC was made. rx: towards the guest. */
struct net_stats {
	uint64_t rx_packets, rx_bytes, rx_dropped, tx_packets, tx_bytes, tx_dropped;
};

/* In the NIC's device struct. */
struct nic {
	struct device *dev;
	const struct nic_ops *ops;
	uint8_t mac[6]; /* what the guest's driver uses now: for announcements and query-rx-filter; the NIC keeps it up
			   to date */
	/* private to src/net/ */
	struct netdev *netdev; /* NULL: no cable */
	unsigned queues, active;
	uint32_t want;  /* queues with room for packets; device's lock */
	bool link_down; /* set_link on the NIC; device's lock */
	bool filter_told;
	uint8_t own_mac[6]; /* of the adapter, not its driver's */
	struct bh want_bh;
	struct net_stats stats; /* atomically */
	struct nic *next;
};

/*
 * In create(). netdev_id: from the `netdev` property, NULL for a NIC without a cable. queues: pairs the device has;
 * fewer than the netdev's are refused, more are without a cable. mac: the property's value; all zeroes picks the next
 * free one of 52:54:00:12:34:56 ... and writes it back to the property. Fails with QEMU's texts (-ENODEV, -EBUSY: in
 * use).
 */
int nic_attach(struct nic *n, struct device *dev, const char *netdev_id, unsigned queues, uint8_t mac[6],
	       const struct nic_ops *ops, struct err *e);
void nic_detach(struct nic *n); /* in destroy(), or when create() fails later; zeroed or detached ones are fine. The
				   netdev stays and can be used again */
bool nic_link_up(const struct nic *n); /* cable, netdev and set_link */

/* The NIC has (no) room for packets of this queue: readable() is called or not. Off after nic_attach(). Leaf, any
   thread with the device's lock held. */
void nic_want_packets(struct nic *n, unsigned queue, bool on);
/*
 * Fetch one packet. Returns its length including a vnet header; 0: none now; -EMSGSIZE: it was larger than iov and is
 * lost (counted as dropped; iov's contents are undefined). Never blocks.
 */
ssize_t netdev_recv(struct nic *n, unsigned queue, const struct iovec *iov, int n_iov);
/*
 * Send one packet: true when it was taken, or dropped and counted because it cannot be sent (link down, malformed, an
 * error of the host); false: busy, keep it until writable(). Never blocks. iov may be guest memory that changes
 * meanwhile: a back end copies before it looks.
 */
bool netdev_send(struct nic *n, unsigned queue, const struct iovec *iov, int n_iov);

/* ---- what virtio-net asks of a tap ---- */

enum net_offload {
	NET_CSUM = 1,
	NET_TSO4 = 2,
	NET_TSO6 = 4,
	NET_ECN = 8,
	NET_UFO = 16,
	NET_USO4 = 32,
	NET_USO6 = 64,
};
/* What the netdev can take from, and give to, a NIC in unfinished form; 0 without vnet header support. */
unsigned nic_offloads(const struct nic *n);
/* Use a vnet header of len (10 or 12) bytes from now on; 0: none. -ENOTSUP if the netdev has none. nic_detach() takes
 * it back. */
int nic_set_vnet_header(struct nic *n, unsigned len);
/* The guest takes packets that are unfinished in these ways (enum net_offload). With a vnet header only. */
void nic_set_offloads(struct nic *n, unsigned offloads);
/* Queue pairs in use by the guest; the others neither send nor receive. */
void nic_set_queues(struct nic *n, unsigned active);

/* ---- the operator's side ---- */

/* -netdev / netdev_add (first option: "type"). NULL with QEMU's message. */
struct netdev *netdev_open(struct opts *o, struct err *e);
/* netdev_del: also while a NIC uses it, which then sees its link go down, as QEMU does. */
int netdev_remove(const char *id, struct err *e);
/* The sandbox is about to close: scripts and helpers of taps opened later are refused. */
void net_forbid_helpers(void);
void netdev_close_all(void); /* at exit, after the machine has gone */
/* set_link: name is a netdev, which takes its NIC's link along, or a NIC. -ENODEV. */
int net_set_link(const char *name, bool up, struct err *e);

struct netdev *netdev_find(const char *id);      /* NULL: none */
struct netdev *netdev_next(struct netdev *prev); /* iterate in order of creation; NULL starts */
const char *netdev_id(const struct netdev *d);
const char *netdev_type(const struct netdev *d); /* "tap", ... */
struct nic *netdev_nic(const struct netdev *d);  /* NULL: nobody's */
unsigned netdev_queues(const struct netdev *d);  /* queue pairs it has, 1 .. NET_MAX_QUEUES */
/* The -netdev text that opens it again, for the machine description. Valid as long as the netdev. */
const char *netdev_options(const struct netdev *d);
/* As `info network` prints it: "tap,ifname=tap0,script=no,..." malloc'ed. */
char *netdev_info(const struct netdev *d);
struct nic *nic_next(struct nic *prev);    /* all NICs in order of creation; NULL starts */
const char *nic_name(const struct nic *n); /* the device's id */
/* Back ends by name, sorted, for -netdev help and introspection: NULL past the end. */
const char *netdev_backend_at(size_t i, const char **help, const struct prop **props);

/*
 * Forwarding rules of -netdev user (hostfwd_add, hostfwd_remove):
 * "[tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT", to remove one only what stands before the dash. id NULL: the
 * first such netdev. -ENOENT: no such netdev or rule; QEMU's texts.
 */
int net_user_forward(const char *id, const char *rule, bool add, struct err *e);
/* libslirp's table of connections, for `info usernet`; malloc'ed, NULL for other netdevs. */
char *net_user_connections(const struct netdev *d);

/* Any thread; each number is consistent in itself. */
void nic_get_stats(const struct nic *n, struct net_stats *s);

/*
 * Tell the network where the guest is now: a RARP frame from each NIC, and its driver's own announcement where it can,
 * `rounds` times, the first at once, the next after initial_ms, then step_ms more each time, at most max_ms (QMP
 * announce-self, and after an incoming migration). id (NULL: "") names the announcement: a newer one of the same name
 * replaces it. interfaces: NULL-terminated ids of NICs, copied; NULL: all. Returns at once; -EMFILE: too many
 * announcements are under way.
 */
struct net_announce {
	uint32_t initial_ms, max_ms, rounds, step_ms;
	const char *id;
	const char *const *interfaces;
};
#define NET_ANNOUNCE_DEFAULT                                                 \
	{                                                                    \
		.initial_ms = 50, .max_ms = 550, .rounds = 5, .step_ms = 100 \
	}
int net_announce(const struct net_announce *how, struct err *e);

/* The guest runs, or is paused: then no NIC is told of packets. The life cycle calls it; at first it runs. */
void net_guest_runs(bool runs);

/* Events NIC_RX_FILTER_CHANGED, NETDEV_STREAM_CONNECTED, NETDEV_STREAM_DISCONNECTED go here (data: JSON object). */
void net_set_event_handler(void (*fn)(void *opaque, const char *name, const char *data_json), void *opaque);
/* query-rx-filter will show something new. Leaf, any thread with the device's lock held; told once until somebody
 * looks. */
void nic_rx_filter_changed(struct nic *n);
/* query-rx-filter looks: false if the NIC has no filter to show. f's tables are valid until the NIC's lock is released:
   main thread, between nic_lock() and nic_unlock(). */
bool nic_get_rx_filter(struct nic *n, struct nic_rx_filter *f);
void nic_lock(struct nic *n);
void nic_unlock(struct nic *n);

#endif
