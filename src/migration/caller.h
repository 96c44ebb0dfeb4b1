/*
 * Somebody who has connected and not yet said all of who he is: his preamble and the machine he brings are read as they
 * come, and nobody waits for him.
 */
#ifndef VMM_MIGRATION_CALLER_H
#define VMM_MIGRATION_CALLER_H

#include "session.h"

struct caller {
	struct channel *channel; /* non-blocking */
	uint64_t until;          /* monotonic ns; UINT64_MAX: he may take his time */
	enum { CALLER_PREAMBLE, CALLER_HEADER, CALLER_DESCRIPTION, CALLER_LEAVING } stage;
	size_t have; /* bytes of this stage */
	uint8_t head[WIRE_PREAMBLE];
	struct wire_record rec;
	struct wire_preamble preamble;
	uint32_t features; /* both have */
	uint8_t *description;
	size_t room; /* of description: grows as it comes */
};

/* Takes the channel. */
void caller_begin(struct caller *c, struct channel *channel, uint64_t until);
/* Read what there is, a bounded part of it. 1: introduced, the description is whole (rec.length bytes); 0: more is to
   come; else why he is not wanted. */
int caller_advance(struct caller *c, struct err *e);
/* Tell him why not, without waiting; he may read it until `until`, see caller_gone(). */
void caller_refuse(struct caller *c, const char *why);
/* He is leaving: whether he has hung up; wait until he has, or his time is over. */
bool caller_gone(struct caller *c);
void caller_linger(struct caller *c);
/* Closes the connection, if it was not taken. */
void caller_end(struct caller *c);

#endif
