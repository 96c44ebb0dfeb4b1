/* Receiving guest memory: batches straight into RAM, checked page by page. Destination threads. */
#ifndef VMM_MIGRATION_RAM_RECV_H
#define VMM_MIGRATION_RAM_RECV_H

#include "session.h"

/* Empty every block (an empty machine's firmware and kernel are in it) and forget what was received. Reserved RAM that
   is empty keeps its pages. Main thread or while nobody receives. */
int ram_recv_begin(struct err *e);
/* Allocate what was reserved and had to be emptied. Takes as long as that: the session's thread. */
void ram_recv_reserve(void);
/* Allocate all of a block; a warning if the host cannot: it works without. Any thread. */
void ram_recv_populate(const struct mig_block *b);
void ram_recv_end(void);
/* Prepare memory ahead of what a WIRE_PRESENT announced; a helper thread does it. */
int ram_recv_present(const uint8_t *payload, size_t len, struct err *e);

void ram_recv_stop_helper(void);
/* These pages come again for certain (post-copy): what was wrong with them does not matter. */
void ram_recv_forget(unsigned block, uint64_t first, uint64_t count);

/* Per receiving thread. */
struct receiver;
struct receiver *receiver_new(struct channel *c);
void receiver_free(struct receiver *r);
/* A batch whose header was read. */
int receiver_batch(struct receiver *r, const struct wire_record *rec, const uint8_t raw[WIRE_HEADER], struct err *e);

/* Every page must be whole now: pages that changed on their way and did not come again are damage. */
int ram_recv_check(struct err *e);
uint64_t ram_recv_torn(void);
struct ram_recv_stats {
	uint64_t zero_pages, data_pages;
};
void ram_recv_stats(struct ram_recv_stats *s);
/* Post-copy puts pages through this instead of writing to RAM; NULL: write. */
extern int (*ram_recv_place)(unsigned block, uint64_t page, const uint8_t *data, uint32_t n, struct err *e);

#endif
