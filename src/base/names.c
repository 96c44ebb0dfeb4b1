/* Names of hosts, looked up on threads of their own; see names.h. */
#include "vmm/names.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/loop.h"
#include "vmm/util.h"

#define LOOKUPS_MAX 80  /* at once: a command of each client */
#define STACK_SIZE  MIB /* the host's name services are not ours, and may want more than little */

/* The thread writes code and list, and says with `over` that it has; the rest belongs to who started it. */
struct lookup {
	char *host, *port;
	struct addrinfo hints, *list;
	int code;
	pthread_t thread;
	int wake_fd; /* of the thread that waits for it; -1: the main thread, to which finished() is posted */
	bool over;
	bool left;           /* nobody waits for the thread: it releases this */
	bool done;           /* finished() has run */
	struct names *names; /* NULL: forgotten */
	struct lookup *next; /* of its names */
	struct lookup *next_under_way;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of over, left and the number of threads */
static unsigned n_threads;
static _Thread_local struct names *current; /* other threads than main wait for what they ask */
static struct lookup *under_way;            /* of commands */
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

static struct lookup *lookup_new(const char *host, const char *port, const struct addrinfo *hints)
{
	struct lookup *l = xzalloc(sizeof(*l));

	*l = (struct lookup){.host = xstrdup(host), .port = xstrdup(port), .hints = *hints, .wake_fd = -1};
	return l;
}

static void lookup_free(struct lookup *l)
{
	if (l->wake_fd >= 0)
		close(l->wake_fd);
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
	l->done = true;
	if (!l->names)
		lookup_free(l);
	else
		l->names->again(l->names, false);
}

static void *thread(void *opaque)
{
	struct lookup *l = opaque;
	uint64_t one = 1;

	pthread_setname_np(pthread_self(), "names");
	l->code = find_now(l->host, l->port, &l->hints, &l->list);
	pthread_mutex_lock(&lock);
	n_threads--;
	l->over = true;
	if (l->left)
		lookup_free(l);
	else if (l->wake_fd < 0)
		loop_post(loop_main(), NULL, finished, l);
	else if (write(l->wake_fd, &one, sizeof(one)) < 0)
		abort(); /* of an eventfd that nobody else has */
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* No filter of its own: the thread has the one of the thread that starts it. */
static int start(struct lookup *l)
{
	pthread_attr_t attr;
	int r = EAGAIN;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_mutex_lock(&lock);
	if (n_threads < LOOKUPS_MAX) {
		r = pthread_create(&l->thread, &attr, thread, l);
		n_threads += !r;
	}
	pthread_mutex_unlock(&lock);
	pthread_attr_destroy(&attr);
	return r ? EAI_AGAIN : 0;
}

/* A thread cannot be called back from a name server: it is left behind. False: it has ended, or is about to. */
static bool leave(struct lookup *l)
{
	bool left;

	pthread_mutex_lock(&lock);
	left = l->left = !l->over;
	if (left)
		pthread_detach(l->thread);
	pthread_mutex_unlock(&lock);
	return left;
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

static int find_numbers(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out)
{
	struct addrinfo numbers = *hints;

	numbers.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
	return find_now(host, port, &numbers, out);
}

int names_find(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out)
{
	struct lookup *l;
	int code = find_numbers(host, port, hints, out);

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
	l = lookup_new(host, port, hints);
	code = stopped ? EAI_AGAIN : start(l);
	if (code) {
		lookup_free(l);
		return code;
	}
	l->next_under_way = under_way;
	under_way = l;
	l->names = current;
	l->next = current->lookups;
	current->lookups = l;
	return EAI_INPROGRESS;
}

int names_wait(const char *host, const char *port, const struct addrinfo *hints, int cancel_fd, struct addrinfo **out)
{
	int code = find_numbers(host, port, hints, out);
	struct pollfd p[2] = {{.events = POLLIN}, {.fd = cancel_fd, .events = POLLIN}};
	struct lookup *l;

	if (code != EAI_NONAME)
		return code;
	l = lookup_new(host, port, hints);
	p[0].fd = l->wake_fd = eventfd(0, EFD_CLOEXEC);
	code = l->wake_fd < 0 ? EAI_AGAIN : start(l);
	if (!code) {
		while (poll(p, 2, -1) < 0 && errno == EINTR)
			continue;
		if (leave(l))
			return EAI_CANCELED;
		pthread_join(l->thread, NULL);
		code = l->code;
		*out = l->list;
		l->list = NULL;
	}
	lookup_free(l);
	return code;
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
