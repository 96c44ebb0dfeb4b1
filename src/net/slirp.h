/*
 * The module vmm-slirp.so, which holds libslirp: slirp.c (instances and what libslirp calls), slirp_thread.c (the
 * thread), slirp_options.c (addresses and forwarding rules), slirp_guestfwd.c (guestfwd=), slirp_ring.c (queues between
 * threads). user.c in the executable is the netdev in front of it and loads it when the first `-netdev user` is opened.
 *
 * Threads. libslirp opens, connects and reads sockets for the guest, and parses what the guest and the network send: it
 * has a thread of its own, "slirp", for all instances together, because the library has variables of the process (its
 * clock, the name server). Frames cross in bounded rings. Until the main loop runs, and the thread with it, the main
 * thread takes the thread's place.
 */
#ifndef NET_SLIRP_H
#define NET_SLIRP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "vmm/err.h"

#define USER_MAX_RULES 64

struct user_list {
	char *v[USER_MAX_RULES];
	unsigned n;
};

/* -netdev user's options as text; NULL: not given. */
struct user_options {
	int ipv4, ipv6; /* 0 off, 1 on, 2 not said */
	bool restricted;
	char *net, *host, *hostname, *dhcpstart, *dns, *domainname, *tftp, *tftp_server_name, *bootfile;
	char *ipv6_net, *ipv6_prefix, *ipv6_host, *ipv6_dns;
	uint32_t ipv6_prefixlen; /* 0: not given */
	struct user_list hostfwd, guestfwd, dnssearch;
};

/* slirp thread; must not wait: schedule bottom halves. */
struct user_events {
	void (*readable)(void *opaque); /* the first frame for the guest after recv() found none */
	void (*writable)(void *opaque); /* after send() returned false */
};

struct user_stack;

/* Main thread. */
struct slirp_module {
	/* id: of the netdev; options are not needed afterwards. NULL with QEMU's message. */
	struct user_stack *(*open)(const char *id, const struct user_options *o, const struct user_events *events,
				   void *opaque, struct err *e);
	/* No event comes after return. */
	void (*close)(struct user_stack *s);
	/* As struct netdev_ops has them; pending: recv() will find something. */
	bool (*pending)(struct user_stack *s);
	ssize_t (*recv)(struct user_stack *s, const struct iovec *iov, int n);
	bool (*send)(struct user_stack *s, const struct iovec *iov, int n);
	/* rule: "tcp:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT"; to remove: "tcp:[HOSTADDR]:HOSTPORT". -ENOENT: there
	 * is no such rule */
	int (*hostfwd_add)(struct user_stack *s, const char *rule, struct err *e);
	int (*hostfwd_remove)(struct user_stack *s, const char *rule, struct err *e);
	char *(*connections)(struct user_stack *s);         /* libslirp's own table; malloc'ed */
	const char *(*network)(const struct user_stack *s); /* "10.0.2.0" */
};
extern const struct slirp_module vmm_module_slirp;

#endif
