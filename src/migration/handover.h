/* Live upgrade on one host: memory goes by descriptor. See handover.c. */
#ifndef VMM_MIGRATION_HANDOVER_H
#define VMM_MIGRATION_HANDOVER_H

#include "session.h"

int handover_send(struct channel *c, struct err *e); /* source's thread, after ACCEPT */
void handover_done(struct main_call *c);             /* source: the guest runs elsewhere, in this memory */
/* destination's thread: WIRE_MEMORY came; the descriptors follow. */
int handover_receive(struct channel *c, const uint8_t *payload, size_t len, struct err *e);

#endif
