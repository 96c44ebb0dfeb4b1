/* Names of hosts, looked up on threads of their own; see names.h. */
#include "vmm/names.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "vmm/loop.h"
#include "vmm/util.h"

#define LOOKUPS_MAX 80  /* at once: a command of each client */
#define STACK_SIZE  MIB /* the host's name services are not ours, and may want more than little */

/* The thread writes code and list, and says with `over` that it has; the rest is the main thread's. */
struct lookup {
	char *host, *port;
	struct addrinfo hints, *list;
	int code;
	pthread_t thread;
	bool over, done;     /* over: finished() has been posted; done: and has run */
	bool left;           /* nobody waits for the thread: it releases this */
	struct names *names; /* NULL: forgotten */
	struct lookup *next; /* of its names */
	struct lookup *next_under_way;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of over and left */
static _Thread_local struct names *current;              /* other threads than main wait for what they ask */
static struct lookup *under_way;                         /* threads */
static unsigned n_under_way;
static bool stopped;

/* ---- lists ---- */

struct node {
	struct addrinfo ai;
	struct sockaddr_storage address;
};

void names_free(struct addrinfo *list)
{
	while (list) {
		struct addrinfo *next = list->ai_next;

		free(container_of(list, struct node, ai));
		list = next;
	}
}

static struct addrinfo *copy(const struct addrinfo *list)
{
	struct addrinfo *first = NULL, **tail = &first;

	for (; list; list = list->ai_next) {
		struct node *n;

		if (list->ai_addrlen > sizeof(n->address))
			continue;
		n = xzalloc(sizeof(*n));
		n->ai = (struct addrinfo){.ai_family = list->ai_family,
					  .ai_socktype = list->ai_socktype,
					  .ai_protocol = list->ai_protocol,
					  .ai_addrlen = list->ai_addrlen,
					  .ai_addr = (struct sockaddr *)&n->address};
		memcpy(&n->address, list->ai_addr, list->ai_addrlen);
		*tail = &n->ai;
		tail = &n->ai.ai_next;
	}
	return first;
}

static int find_now(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out)
{
	struct addrinfo *list = NULL;
	int code = getaddrinfo(host, port, hints, &list);

	*out = code ? NULL : copy(list);
	if (!code)
		freeaddrinfo(list);
	return code || *out ? code : EAI_NONAME;
}

/* ---- lookups ---- */

static void lookup_free(struct lookup *l)
{
	names_free(l->list);
	free(l->host);
	free(l->port);
	free(l);
}

static void finished(void *opaque)
{
	struct lookup *l = opaque;

	pthread_join(l->thread, NULL);
	for (struct lookup **p = &under_way; *p; p = &(*p)->next_under_way)
		if (*p == l) {
			*p = l->next_under_way;
			break;
		}
	n_under_way--;
	l->done = true;
	if (!l->names)
		lookup_free(l);
	else
		l->names->again(l->names, false);
}

static void *thread(void *opaque)
{
	struct lookup *l = opaque;

	pthread_setname_np(pthread_self(), "names");
	l->code = find_now(l->host, l->port, &l->hints, &l->list);
	pthread_mutex_lock(&lock);
	l->over = true;
	if (l->left)
		lookup_free(l);
	else
		loop_post(loop_main(), NULL, finished, l);
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* No filter of its own: the thread has the one of the main thread, which starts it. */
static int start(struct lookup *l)
{
	pthread_attr_t attr;
	int r;

	if (n_under_way >= LOOKUPS_MAX || stopped)
		return EAI_AGAIN;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	r = pthread_create(&l->thread, &attr, thread, l);
	pthread_attr_destroy(&attr);
	if (r)
		return EAI_MEMORY;
	l->next_under_way = under_way;
	under_way = l;
	n_under_way++;
	return 0;
}

static bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static struct lookup *known(const struct names *n, const char *host, const char *port, const struct addrinfo *hints)
{
	struct lookup *l = n->lookups;

	while (l && !(same(l->host, host) && same(l->port, port) && l->hints.ai_family == hints->ai_family &&
		      l->hints.ai_socktype == hints->ai_socktype && l->hints.ai_flags == hints->ai_flags))
		l = l->next;
	return l;
}

int names_find(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out)
{
	struct addrinfo numbers = *hints;
	struct lookup *l;
	int code;

	numbers.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
	code = find_now(host, port, &numbers, out);
	if (code != EAI_NONAME)
		return code;
	if (!current)
		return find_now(host, port, hints, out);
	l = known(current, host, port, hints);
	if (l && l->done) {
		*out = copy(l->list);
		return l->code;
	}
	if (l)
		return EAI_INPROGRESS;
	l = xzalloc(sizeof(*l));
	l->host = xstrdup(host);
	l->port = xstrdup(port);
	l->hints = *hints;
	code = start(l);
	if (code) {
		lookup_free(l);
		return code;
	}
	l->names = current;
	l->next = current->lookups;
	current->lookups = l;
	return EAI_INPROGRESS;
}

/* ---- commands ---- */

void names_begin(struct names *n)
{
	n->outer = current;
	current = n;
}

bool names_end(struct names *n)
{
	current = n->outer;
	for (const struct lookup *l = n->lookups; l; l = l->next)
		if (!l->done)
			return true;
	return false;
}

void names_forget(struct names *n)
{
	struct lookup *next;

	for (struct lookup *l = n->lookups; l; l = next) {
		next = l->next;
		l->names = NULL; /* finished() is still to come */
		if (l->done)
			lookup_free(l);
	}
	n->lookups = NULL;
}

/* A thread cannot be called back from a name server: it is left behind, and the process's end is its end. */
static void leave(struct lookup *l)
{
	pthread_mutex_lock(&lock);
	if (!l->over) {
		l->left = true;
		pthread_detach(l->thread);
	}
	pthread_mutex_unlock(&lock);
}

void names_stop(void)
{
	struct lookup *l = under_way, *next;

	stopped = true;
	while (l) { /* each command's end forgets its lookups */
		if (l->names)
			l->names->again(l->names, true);
		l = l->next_under_way;
	}
	for (l = under_way; l; l = next) {
		next = l->next_under_way;
		leave(l);
	}
}
