/* Post-copy at the destination: pages come when the guest touches them. */
#ifndef VMM_MIGRATION_POSTCOPY_DESTINATION_H
#define VMM_MIGRATION_POSTCOPY_DESTINATION_H

#include "session.h"

/* Before the sandbox: may this process use userfaultfd? Keeps the descriptor. */
bool postcopy_available(void);
/* A block's missing pages: empty them here, watch them from now on. */
int postcopy_missing(struct channel *c, const uint8_t *payload, size_t len, struct err *e);
/* From the first postcopy_missing() on until the end, batches go through this (ram_recv_place). */
int postcopy_place(unsigned block, uint64_t page, const uint8_t *data, uint32_t n, struct err *e);
bool postcopy_on(void);
uint64_t postcopy_left(void); /* pages still missing */
/* Every page is there: the guest's memory is ordinary again. Ends the fault thread. */
void postcopy_end(void);
/* The connection broke / a new one is there: tell the source what is missing and ask again for what is waited for. */
void postcopy_detach(void);
int postcopy_reattach(struct channel *c, struct err *e);

#endif
