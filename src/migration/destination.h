/*
 * The destination's files: destination.c (the way of a migration), destination_listen.c (who comes),
 * destination_pages.c (the session's channels), destination_recovery.c (a post-copy whose connection broke),
 * postcopy_destination.c (userfaultfd).
 */
#ifndef VMM_MIGRATION_DESTINATION_H
#define VMM_MIGRATION_DESTINATION_H

#include "meet.h"
#include "ram_recv.h"
#include "session.h"
#include "tls.h"
#include "vmm/block.h"

/* A guest on its way here; its session's thread. */
struct incoming {
	struct channel *c, *first; /* first: its greeter frees it */
	struct receiver *rv;
	struct state_buf state;
	struct switchover sw;
	uint32_t round;
	uint64_t load_ns, resume_ns;
	bool ready, loaded, gone;
	bool ended; /* END came while the guest was being started */
};

/*
 * destination_pages.c. claim: the first that has introduced itself becomes the session; release ends its page channels.
 * serve: a page channel until its end; takes c. reason: why a page channel failed, if one did. close waits until none
 * is served.
 */
bool pages_claim(struct channel *c, const struct wire_preamble *p);
bool pages_claimed(void);
#define DESTINATION_BUSY "another migration is coming in already"
void pages_release(void);
void pages_serve(struct channel *c, const struct wire_preamble *p);
void pages_expect(unsigned channels);
/* The source has made so many of the expected connections, all or none; they may still be on their way. agreed: they,
   or 0 because they do not come: then none is used. Main channel's thread. */
int pages_settle(unsigned connected, unsigned *agreed, struct err *e);
int pages_wait_round(uint32_t round, struct err *e);
void pages_over(void); /* a channel that ends from here on is no failure */
bool pages_reason(struct err *e);
void pages_close(void);
void pages_quit(void); /* vmm ends */

/*
 * destination_recovery.c. possible: a post-copy runs, its source may come back. wait: the connection broke; until there
 * is a new one, or vmm ends (-ECANCELED). offer: a peer says that it goes on with this session; true: c is taken.
 */
void recovery_possible(bool yes);
int recovery_wait(struct incoming *in, struct err *e);
bool recovery_offer(struct channel *c, const struct wire_preamble *p, struct err *e);
void recovery_quit(void); /* vmm ends */

/* destination_listen.c. The accept is the main loop's; while the guest's missing pages may hold that, the session's
   thread looks as well: poll waits at most timeout_ms. */
void destination_poll(int timeout_ms);
void destination_stop_listening(void); /* main thread */
/* Whoever is at the other end has said all of who he is: he is not sent away any more when too many come. */
void destination_introduced(const struct channel *c);
/* Refuse or abort, and let the peer read the reason before the connection goes. */
void destination_say_no(struct channel *c, enum wire_type type, const char *why);

/* destination.c: the whole of an incoming migration on its main channel. 0, or why the peer was refused. */
int destination_serve(struct channel *c, const struct wire_preamble *p, const struct migration_meeting *met,
		      struct err *e);
void destination_failed_exit(void *err); /* main thread: status, then the end; frees err */

#endif
