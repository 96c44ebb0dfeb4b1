/* A guest that was met before there was a machine for it: meet.c reads its description, destination.c goes on. */
#ifndef VMM_MIGRATION_MEET_H
#define VMM_MIGRATION_MEET_H

#include "session.h"

#define MEET_LISTEN 8

struct migration_meeting {
	struct address address;
	int listen_fd[MEET_LISTEN];
	unsigned n_listen;
	char bound[320];
	struct channel *channel; /* introduced, its description read; NULL: a saved file */
	bool only;               /* fd:, exec: nobody else will come */
	struct wire_preamble preamble;
	uint32_t features;
	uint8_t *description;
	size_t description_len;
};

/* destination.c: what it offers; take over a meeting (the channel, the listening sockets). */
uint32_t destination_features(const struct channel *c);
void destination_over(void); /* the guest is here: nobody is waited for; main thread, as is the next */
bool destination_is_over(void);
int destination_resume(struct migration_meeting *m, struct err *e);
/* Tell the peer why not and let it read that. */
void destination_refuse(struct channel *c, const char *why);

#endif
