/*
 * Random number sources for guests: rng-builtin asks the host kernel's generator (getrandom), rng-random reads a file,
 * normally /dev/urandom or /dev/hwrng. Left out: rng-egd (an EGD server on a chardev).
 *
 * rng-random never blocks: the file is opened non-blocking, and who found it empty is woken when epoll says so; a file
 * that epoll does not take (hwrng has no poll) is looked at again every RETRY_MS while somebody waits.
 */
#include "vmm/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>
#include "vmm/clock.h"
#include "vmm/log.h"

#define RETRY_MS 20

struct rng {
	struct object object;
	struct rng_wait *waiters;
	/* rng-random */
	char *filename;
	int fd;
	struct watch *watch; /* NULL: not pollable */
	struct timer retry;
	bool end_told;
	bool own; /* rng_new_builtin() */
};

struct rng_ops {
	size_t (*read)(struct rng *r, void *buf, size_t len);
	void (*arm)(struct rng *r, bool on); /* somebody waits, or nobody any more */
};

static const struct rng_ops *ops_of(const struct rng *r)
{
	return r->object.type->ops;
}

/* ---- users ---- */

struct rng *rng_claim(const char *id, const char *owner_property, struct err *e)
{
	struct object *o = object_claim(id, "rng-backend", owner_property, e);

	return o ? container_of(o, struct rng, object) : NULL;
}

void rng_release(struct rng *r)
{
	if (r && r->own)
		free(r);
	else if (r)
		object_release(&r->object);
}

size_t rng_read(struct rng *r, void *buf, size_t len)
{
	return ops_of(r)->read(r, buf, len);
}

void rng_wait(struct rng *r, struct rng_wait *w)
{
	if (w->waiting)
		return;
	w->waiting = true;
	w->next = r->waiters;
	r->waiters = w;
	if (ops_of(r)->arm)
		ops_of(r)->arm(r, true);
}

void rng_wait_cancel(struct rng *r, struct rng_wait *w)
{
	for (struct rng_wait **p = &r->waiters; w->waiting && *p; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			w->waiting = false;
			break;
		}
	if (!r->waiters && ops_of(r)->arm)
		ops_of(r)->arm(r, false);
}

static void wake(struct rng *r)
{
	while (r->waiters) {
		struct rng_wait *w = r->waiters;

		r->waiters = w->next;
		w->waiting = false;
		bh_schedule(w->bh);
	}
	if (ops_of(r)->arm)
		ops_of(r)->arm(r, false);
}

/* ---- rng-builtin ---- */

static size_t builtin_read(struct rng *r, void *buf, size_t len)
{
	ssize_t n;

	do
		n = getrandom(buf, MIN(len, (size_t)256 * KIB), 0);
	while (n < 0 && errno == EINTR);
	return n > 0 ? (size_t)n : 0;
}

static const struct rng_ops builtin_ops = {.read = builtin_read};

const struct object_type rng_builtin_type = {
	.name = "rng-builtin",
	.parent = "rng-backend",
	.summary = "random bytes from the host kernel's generator",
	.size = sizeof(struct rng),
	.ops = &builtin_ops,
};

struct rng *rng_new_builtin(void)
{
	struct rng *r = xzalloc(sizeof(*r));

	r->object.type = &rng_builtin_type;
	r->own = true;
	return r;
}

/* ---- rng-random ---- */

static size_t file_read(struct rng *r, void *buf, size_t len)
{
	ssize_t n;

	do
		n = read(r->fd, buf, len);
	while (n < 0 && errno == EINTR);
	if (n == 0 && !r->end_told) {
		r->end_told = true;
		log_warn("machine", "object '%s': %s has come to its end; the guest waits for random bytes",
			 r->object.id, r->filename);
	}
	return n > 0 ? (size_t)n : 0;
}

static void file_arm(struct rng *r, bool on)
{
	if (r->watch)
		loop_watch_set(r->watch, on ? LOOP_READ : 0);
	else
		timer_arm(&r->retry, on ? clock_ns(VCLOCK_REAL) + RETRY_MS * NS_PER_MS : TIMER_NEVER);
}

static void file_readable(void *opaque, int fd, unsigned events)
{
	wake(opaque);
}

static void file_retry(void *opaque)
{
	wake(opaque);
}

static int file_create(struct object *o, struct err *e)
{
	struct rng *r = container_of(o, struct rng, object);

	if (!r->filename || !*r->filename)
		return err_set(e, EINVAL, "Parameter 'filename' expects a valid filename");
	r->fd = open(r->filename, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (r->fd < 0)
		return err_errno(e, errno, "Could not open '%s'", r->filename);
	timer_init(&r->retry, loop_main(), VCLOCK_REAL, NULL, file_retry, r);
	r->watch = loop_watch(loop_main(), r->fd, 0, NULL, file_readable, r, NULL);
	return 0;
}

static void file_destroy(struct object *o)
{
	struct rng *r = container_of(o, struct rng, object);

	timer_cancel(&r->retry);
	loop_unwatch(r->watch);
	close(r->fd);
}

static const struct rng_ops file_ops = {.read = file_read, .arm = file_arm};

static const struct prop file_props[] = {
	PROP(struct rng, filename, PROP_STR, .def_str = "/dev/urandom", .help = "file the random bytes come from"),
	PROP_END,
};

const struct object_type rng_random_type = {
	.name = "rng-random",
	.parent = "rng-backend",
	.summary = "random bytes from a file",
	.size = sizeof(struct rng),
	.props = file_props,
	.create = file_create,
	.destroy = file_destroy,
	.ops = &file_ops,
};
