/* What the files of vmm-slirp.so share; see slirp.h. */
#ifndef NET_SLIRP_PRIVATE_H
#define NET_SLIRP_PRIVATE_H

#include <netinet/in.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <stdatomic.h>
#include "slirp.h"
#include "slirp_ring.h"
#include "vmm/chardev.h"
#include "vmm/loop.h"

/* ---- slirp_options.c ---- */

struct forward {
	bool udp;
	struct in_addr host, guest;
	uint16_t host_port, guest_port;
};
/* Check the options and fill libslirp's; its strings are o's. search: room for the list of search domains. */
int slirp_config_from(const struct user_options *o, SlirpConfig *c, const char **search, struct err *e);
int slirp_parse_hostfwd(const char *rule, struct forward *f, struct err *e);
/* The short form that hostfwd_remove takes. */
int slirp_parse_hostfwd_key(const char *rule, struct forward *f);
/* "[tcp]:SERVER:PORT-DEV"; *dev points into rule. */
int slirp_parse_guestfwd(const char *rule, struct in_addr *server, uint16_t *port, const char **dev, struct err *e);

/* ---- slirp_thread.c ---- */

/* Run fn on the slirp thread, between two of its turns, and wait until it has. Main thread. */
void slirp_thread_call(void (*fn)(void *opaque), void *opaque);
/* One more, or one less, instance needs the thread: it begins when the main loop runs, and ends with the last. */
void slirp_thread_hold(void);
void slirp_thread_release(void);
void slirp_thread_wake(void); /* any thread: there is work in a ring */
/* One turn. Also for tests, without waiting, where slirp_thread_by_hand says that no thread is to begin. */
extern bool slirp_thread_by_hand;
void slirp_thread_turn(bool wait);
bool slirp_thread_may_open(void); /* slirp thread: one more socket; false: the process's descriptors run low */
/* A name or directory the thread reads files from (name server, tftp=). Before slirp_thread_hold(); later ones are not
 * added. */
void slirp_thread_may_read(const char *path);

/* ---- slirp_guestfwd.c ---- */

struct guestfwd;
/* Main thread. NULL with the reason. The chardev opens now; libslirp hears of it by guestfwd_add(). */
struct guestfwd *guestfwd_open(const char *id, unsigned n, const char *rule, struct err *e);
void guestfwd_close(struct guestfwd *f); /* main thread, after libslirp has forgotten it */
/* slirp thread */
bool guestfwd_add(struct guestfwd *f, Slirp *slirp);
bool guestfwd_has_room(struct guestfwd *f); /* for what one frame of the guest can bring */
void guestfwd_pump(struct guestfwd *f, Slirp *slirp);

/* ---- slirp_fragments.c; slirp thread ---- */

struct fragments; /* NULL: none yet */
void fragments_free(struct fragments *t);
bool fragments_is_one(const uint8_t *frame, size_t len);
/* Takes the fragment; the frame it completes goes to `whole` (NET_PACKET_MAX bytes). Its length; 0: none, the fragment
 * waits or is lost. */
size_t fragments_add(struct fragments **table, const uint8_t *frame, size_t len, uint8_t *whole);

/* ---- slirp.c ---- */

struct slirp_timer {
	SlirpTimerId id;
	void *cb_opaque;
	int64_t deadline_ms; /* of the guest's clock; INT64_MAX: none */
	struct slirp_timer *next;
};

struct user_stack {
	Slirp *slirp;
	const struct user_events *events;
	void *opaque;
	struct ring to_guest, from_guest;
	struct in_addr network;
	char network_text[INET_ADDRSTRLEN];
	SlirpConfig config;
	const char *search[USER_MAX_RULES + 1];
	struct guestfwd *guestfwd[USER_MAX_RULES];
	unsigned n_guestfwd;
	/* slirp thread */
	struct slirp_timer *timers;
	bool polled; /* its descriptors are in this turn's list */
	struct fragments *fragments;
	_Atomic uint64_t lost_to_guest, lost_from_guest;
	struct user_stack *next; /* the thread's list */
};
/* The thread's list; slirp thread only. */
extern struct user_stack *slirp_stacks;

/* slirp thread, in this order. Frames from the guest; true: there are more. */
bool stack_input(struct user_stack *s);
/* Lower *timeout_ms to the next timer. */
void stack_timers(struct user_stack *s, uint32_t *timeout_ms);
bool stack_wants_poll(struct user_stack *s); /* the guest takes what would come in */

#endif
