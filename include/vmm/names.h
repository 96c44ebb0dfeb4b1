/*
 * Addresses of hosts by name. A name server may take its time, and the main loop has none: a command that needs an
 * address is given up, the name looked up on a thread, and the command run again from its beginning once the answer is
 * there. That is for those who run commands (control); whoever opens something only calls names_find() and passes its
 * error on, having left nothing behind, as after any other error.
 */
#ifndef VMM_NAMES_H
#define VMM_NAMES_H

#include <netdb.h>
#include <stdbool.h>

struct lookup;

/* What one command asks for. Zeroed to begin with, and where it is until it has ended. */
struct names {
	/* Main thread, from the loop. Lookups are over: run it again. cancelled: the process ends instead. */
	void (*again)(struct names *n, bool cancelled);
	/* private */
	struct lookup *lookups;
	struct names *outer;
};

/*
 * As getaddrinfo(), and its results: family, type, protocol and address of each. Numbers are told at once. Names are
 * waited for, but within names_begin() and names_end(): there EAI_INPROGRESS is the answer until it is known.
 */
int names_find(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out);
/* The same for another thread than main, which waits; EAI_CANCELED once cancel_fd can be read. */
int names_wait(const char *host, const char *port, const struct addrinfo *hints, int cancel_fd, struct addrinfo **out);
void names_free(struct addrinfo *list); /* NULL-safe */

/* Around a command. Main thread; pairs may be nested. */
void names_begin(struct names *n);
/* True: a lookup is under way, and again() will be called unless names_forget() is. */
bool names_end(struct names *n);
/* It has ended: its answers are not needed any more, those that are still to come neither. */
void names_forget(struct names *n);

/* The process ends: who waits is told so, and from now on nothing is looked up for commands. */
void names_stop(void);

#endif
