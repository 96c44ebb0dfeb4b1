/*
 * Network back ends: the inside of src/net/. One back end per file, one `struct netdev_ops` each; net.c owns the list,
 * flow control, links, statistics and the NIC's lock, so that a back end only moves frames.
 *
 * Everything here runs on the main thread. While a NIC is attached its device's lock is held around send, recv,
 * want_packets and the vnet header's functions; netdev_readable() and netdev_writable() take it themselves and must be
 * called without it: from a watch, a timer or a bottom half of the back end's own.
 */
#ifndef VMM_NET_NETDEV_H
#define VMM_NET_NETDEV_H

#include "vmm/net.h"

#define NET_FRAME_MIN 14
#define NET_FRAME_BUF (NET_HEADER_MAX + NET_PACKET_MAX)

struct netdev_ops {
	const char *name;
	const char *help;
	const struct prop *props; /* of the instance, first NETDEV_COMMON_PROPS */
	size_t size;              /* of the instance; struct netdev is its first member */

	/* Optional, before the properties are set: take options that props cannot say (lists) into the instance, and
	 * mark them used. */
	void (*take_options)(struct netdev *d, struct opts *o);
	/*
	 * Options are in place: open, and set d->queues if there is more than one pair. No packets are to be reported
	 * until want_packets() asks for them. Releases what it took on failure. The message needs no prefix.
	 */
	int (*open)(struct netdev *d, struct err *e);
	void (*close)(struct netdev *d);
	/*
	 * One frame (vnet header first, if one was set) of a length that net.c has checked, in at most NET_MAX_IOV
	 * pieces, which may be guest memory. True: taken, or lost and counted with netdev_tx_lost(). False: would
	 * block; netdev_writable() follows.
	 */
	bool (*send)(struct netdev *d, unsigned queue, const struct iovec *iov, int n_iov);
	/* One frame into iov (at most NET_MAX_IOV pieces): its length; 0: none; -EMSGSIZE: too large for iov, it is
	 * lost. */
	ssize_t (*recv)(struct netdev *d, unsigned queue, const struct iovec *iov, int n_iov);
	/*
	 * Call netdev_readable() as long as recv() may find something, at most once per turn of the loop; or stop that.
	 * It is off after open. Only called when it changes.
	 */
	void (*want_packets)(struct netdev *d, unsigned queue, bool on);
	/* Optional; all or none: what vmm/net.h says of the NIC's side. len: 0, 10 or 12. */
	unsigned (*offloads)(const struct netdev *d);
	int (*set_vnet_header)(struct netdev *d, unsigned len);
	void (*set_offloads)(struct netdev *d, unsigned offloads);
	/* Optional: the first `active` of d->queues are in use. */
	void (*set_queues)(struct netdev *d, unsigned active);
	/* For `info network`, behind "TYPE,": options and where they led. Optional: the options as they were given. */
	void (*describe)(struct netdev *d, char *buf, size_t size);
};

struct netdev {
	const struct netdev_ops *ops;
	char *id;
	/* set by open */
	unsigned queues;
	/* private to net.c */
	char *options; /* as given */
	struct nic *nic;
	struct netdev *next;
	unsigned vnet_len;
	uint32_t reading; /* queues whose want_packets is on */
	uint32_t blocked; /* queues whose send would have blocked */
	bool link_down, open;
};

#define NETDEV_COMMON_PROPS                                                            \
	{                                                                              \
		.name = "id", .type = PROP_STR, .offset = offsetof(struct netdev, id), \
		.help = "name for -device ...,netdev=ID"                               \
	}

/* ---- net.c, called by back ends ---- */
/* recv() may find packets: the NIC fetches them; if there is none, or its link is down, they are thrown away. */
void netdev_readable(struct netdev *d, unsigned queue);
/* After send() returned false. */
void netdev_writable(struct netdev *d, unsigned queue);
/* A frame that send() took is lost. */
void netdev_tx_lost(struct netdev *d);
/* Is reading on? */
static inline bool netdev_wants(const struct netdev *d, unsigned queue)
{
	return d->reading & BIT(queue);
}
/* An event for management (JSON object), e.g. NETDEV_STREAM_CONNECTED. */
void netdev_event(const char *name, const char *data_json);

/* One more back end, a test bench's. */
void netdev_set_test_backend(const struct netdev_ops *ops);

/* ---- announce.c ---- */
void net_announce_stop(void); /* all of them */

/* ---- iov.c ---- */
#define NET_MAX_IOV 512
size_t net_iov_len(const struct iovec *iov, int n);
/* Copy between iov and a buffer, at most len bytes from offset `skip` of iov; returns bytes copied. */
size_t net_iov_get(const struct iovec *iov, int n, size_t skip, void *buf, size_t len);
size_t net_iov_put(const struct iovec *iov, int n, size_t skip, const void *buf, size_t len);

/* ---- address.c ---- */
/* A QEMU SocketAddress as options: PREFIX.type=inet|unix|fd and what belongs to it. */
struct net_where {
	char *type, *host, *port, *path, *str;
	int ipv4, ipv6; /* ONOFFAUTO */
	bool abstract, tight, keep_alive;
};
#define NET_WHERE_PROPS(S, m, prefix)                                                                                \
	PROP_NAMED(S, prefix ".type", m.type, PROP_STR, .help = "inet, unix or fd"),                                 \
		PROP_NAMED(S, prefix ".host", m.host, PROP_STR, .help = "inet: host name or address"),               \
		PROP_NAMED(S, prefix ".port", m.port, PROP_STR, .help = "inet: port"),                               \
		PROP_NAMED(S, prefix ".ipv4", m.ipv4, PROP_ONOFFAUTO, .def = 2, .help = "inet: use IPv4"),           \
		PROP_NAMED(S, prefix ".ipv6", m.ipv6, PROP_ONOFFAUTO, .def = 2, .help = "inet: use IPv6"),           \
		PROP_NAMED(S, prefix ".path", m.path, PROP_STR, .help = "unix: name of the socket"),                 \
		PROP_NAMED(S, prefix ".abstract", m.abstract, PROP_BOOL, .help = "unix: in the abstract namespace"), \
		PROP_NAMED(S, prefix ".tight", m.tight, PROP_BOOL, .def = 1,                                         \
			   .help = "unix: abstract without padding"),                                                \
		PROP_NAMED(S, prefix ".str", m.str, PROP_STR,                                                        \
			   .help = "fd: number of an inherited, or name of a passed one")

struct net_address {
	_Alignas(8) uint8_t bytes[128]; /* struct sockaddr_storage */
	uint32_t len;                   /* 0: none */
};
/* inet and unix only. passive: to be bound to. Resolving may block. name: of the option, for messages. */
int net_where_resolve(const struct net_where *w, const char *name, int socktype, bool passive, struct net_address *out,
		      struct err *e);
/* "HOST:PORT", "[HOST]:PORT", ":PORT". */
int net_parse_address(const char *text, int socktype, bool passive, struct net_address *out, struct err *e);
int net_address_family(const struct net_address *a);
bool net_address_is_multicast(const struct net_address *a);
/* "10.0.0.1:22", "[::1]:22", "unix:/x". */
void net_address_print(const struct net_address *a, char *buf, size_t size);
/* QMP's SocketAddress. malloc'ed. */
char *net_address_json(const struct net_address *a);
char *net_fd_json(const char *name);
/* A new non-blocking socket bound to a. A socket file that nobody listens on any more is replaced. */
int net_bind(const struct net_address *a, int socktype, bool share_port, struct err *e);
/* Remove the file of a unix socket that net_bind() made. */
void net_unbind(const struct net_address *a);

/* ---- datagrams.c: one socket, a frame per datagram ---- */
struct net_datagrams {
	struct netdev *d;
	unsigned queue;
	int fd;                /* -1: not started */
	struct net_address to; /* len 0: connected */
	struct watch *watch;
	struct timer retry; /* unix: nobody tells when the receiver of an unconnected socket has room */
	bool in_on, out_on, broken;
};
/* Takes fd over, also on failure. */
int net_datagrams_start(struct net_datagrams *g, struct netdev *d, unsigned queue, int fd, const struct net_address *to,
			struct err *e);
void net_datagrams_stop(struct net_datagrams *g);
bool net_datagrams_send(struct net_datagrams *g, const struct iovec *iov, int n);
ssize_t net_datagrams_recv(struct net_datagrams *g, const struct iovec *iov, int n);
void net_datagrams_want(struct net_datagrams *g, bool on);
/* Join the group `to` is and send to it. local: the interface's address, len 0: the system's choice. */
int net_multicast_socket(const struct net_address *group, const struct net_address *local, struct err *e);

/* ---- frames.c: a stream socket, each frame behind its length in four bytes, big-endian ---- */
struct net_stream {
	struct netdev *d;
	bool events, keep_alive; /* tell management; SO_KEEPALIVE */
	int listen_fd, fd;       /* -1: none */
	bool connecting, in_on, out_on, gone, stalled;
	struct watch *listen_watch, *watch;
	struct net_address peer;
	char *fd_name; /* of an inherited connection, for the event */
	uint8_t *in;
	uint32_t in_head, in_len;
	uint8_t *out; /* the rest of a frame that was sent in part */
	uint32_t out_head, out_len;
	struct bh bh;       /* frames left in `in`, or the peer has gone */
	struct timer stall; /* a peer that reads nothing cannot hold up the guest */
	struct timer accept_later;
};
void net_stream_init(struct net_stream *s, struct netdev *d);
/* Each takes fd over, also on failure. connected: fd is a stream socket with a peer. */
int net_stream_connected(struct net_stream *s, int fd, struct err *e);
int net_stream_listen(struct net_stream *s, int fd, struct err *e);
/* Start connecting; what fails at once is an error, what fails later is logged. */
int net_stream_connect(struct net_stream *s, const struct net_address *to, struct err *e);
void net_stream_stop(struct net_stream *s); /* initialised ones only */
bool net_stream_send(struct net_stream *s, const struct iovec *iov, int n);
ssize_t net_stream_recv(struct net_stream *s, const struct iovec *iov, int n);
void net_stream_want(struct net_stream *s, bool on);
void net_stream_describe(const struct net_stream *s, char *buf, size_t size);

/* ---- helper.c ---- */
/* Run script with the interface's name and wait. */
int net_run_script(const char *script, const char *ifname, struct err *e);
/* Prepare a script to be run later: a descriptor for net_run_script_at_end(), or -errno. */
int net_script_at_end(const char *script, const char *ifname, struct err *e);
void net_run_script_at_end(int fd); /* and wait, but not for ever; -1 is fine */
/* A tap that the helper has put on the bridge, or -errno. */
int net_bridge_helper(const char *helper, const char *bridge, struct err *e);

extern const struct netdev_ops netdev_tap_ops, netdev_bridge_ops, netdev_socket_ops, netdev_dgram_ops,
	netdev_stream_ops, netdev_user_ops;

#endif
