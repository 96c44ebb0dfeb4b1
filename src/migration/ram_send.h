/* Sending guest memory: rounds over dirty bitmaps, on one or several channels. The session's thread, unless said
 * otherwise. */
#ifndef VMM_MIGRATION_RAM_SEND_H
#define VMM_MIGRATION_RAM_SEND_H

#include "session.h"

/* Dirty logging is on. Channels for pages, if any, are connected: extra[0..n). They are freed by ram_send_end(). */
int ram_send_begin(struct channel **extra, unsigned n, struct err *e);
void ram_send_end(void);
/* Move the dirty log into the blocks' bitmaps; returns how many pages wait now. first: everything but holes. stable:
   the guest stands still, and so will it when they are sent. */
uint64_t ram_send_sync(bool first, bool stable);
/* How long pages have been logged since that, on average. Between rounds. */
uint64_t ram_send_logged_ns(void);
/* What the destination should prepare memory for. */
int ram_send_present(struct err *e);
/* Send what the bitmaps hold and close the round on every channel. stable: the guest stands still. Ends early with
   -EINTR and the rest left in the bitmaps if stop() says so; NULL: never. */
int ram_send_round(uint32_t round, bool stable, struct err *e);
uint64_t ram_send_pending(void); /* pages left in the bitmaps; any thread */
/* Totals; any thread. */
struct ram_send_stats {
	uint64_t zero_pages, data_pages, bytes, channel_bytes; /* channel_bytes: of bytes, on the channels for pages */
};
void ram_send_stats(struct ram_send_stats *s);
/*
 * Post-copy, one channel: take pages back into the bitmaps or out of them; from the first page again; another channel;
 * send at most `max` of what waits (their number, 0: nothing is left, or an error). Pages of blocks other than guest
 * RAM: see ram_send_sync().
 */
void ram_send_mark(unsigned block, uint64_t first, uint64_t count);
void ram_send_unmark(unsigned block, uint64_t first, uint64_t count);
void ram_send_rewind(void);
void ram_send_recount(void); /* after a recovery's marks: what waits now */
void ram_send_stop(void); /* any thread: end the round early, what it did not send stays in the bitmaps; until rewind */
void ram_send_use(struct channel *c);
void ram_send_retire(const struct channel *c); /* a main channel that broke: what it carried still counts */
int ram_send_some(uint32_t max, struct err *e);
/* A stable round of all blocks but guest RAM, which post-copy leaves for later. */
int ram_send_small_blocks(uint32_t round, struct err *e);
/* Pages given, as a batch on one channel: for post-copy's requests. */
int ram_send_pages(struct channel *c, unsigned block, uint64_t first, uint32_t count, struct err *e);

#endif
