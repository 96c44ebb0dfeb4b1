/*
 * Character devices, the part between a front end and a backend: queues, flow control, log files, the list.
 *
 * Output. chardev_write() puts bytes into a queue under a leaf lock, from any thread; a bottom half on the main loop
 * hands them to the backend: the first byte at once, a wire's further ones at most every millisecond, so that a guest
 * that prints byte by byte does not wake the main loop for each. When the queue is full the front end is told to wait;
 * a wire-like front end (not `lossless`) waits at most CHARDEV_STALL_MS for a peer that reads nothing, then its output
 * is dropped until the peer reads again: a real UART does not stop for a terminal that hangs either.
 *
 * Input. Backends read only while there is room in a small queue; the front end takes from it as it can.
 */
#include "backend.h"
#include "vmm/fdset.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm/log.h"

#define FLUSH_NS             NS_PER_MS
#define INPUT_QUEUE_SIZE     4096
#define MUX_INPUT_QUEUE_SIZE (64 * 1024)  /* typed ahead while the guest boots */
#define INPUT_QUEUE_MAX      (256 * 1024) /* what a socket can hold after its peer closed it */

static const struct chardev_ops *const backends[] = {
	&chardev_file_ops,    &chardev_null_ops,   &chardev_pipe_ops,   &chardev_pty_ops,
	&chardev_ringbuf_ops, &chardev_serial_ops, &chardev_socket_ops, &chardev_stdio_ops,
};

static struct chardev *all_chardevs, **all_tail = &all_chardevs;

/* ---- byte ring ---- */

void byte_ring_init(struct byte_ring *r, uint32_t cap)
{
	*r = (struct byte_ring){.cap = cap};
}

void byte_ring_free(struct byte_ring *r)
{
	free(r->data);
	*r = (struct byte_ring){0};
}

uint32_t byte_ring_put(struct byte_ring *r, const void *buf, uint32_t len)
{
	uint32_t tail, first;

	len = MIN(len, r->cap - r->len);
	if (!len)
		return 0;
	if (!r->data)
		r->data = xrealloc(NULL, r->cap);
	tail = (r->head + r->len) % r->cap;
	first = MIN(len, r->cap - tail);
	memcpy(r->data + tail, buf, first);
	memcpy(r->data, (const uint8_t *)buf + first, len - first);
	r->len += len;
	return len;
}

const uint8_t *byte_ring_peek(const struct byte_ring *r, uint32_t skip, uint32_t *len)
{
	uint32_t at;

	if (skip >= r->len) {
		*len = 0;
		return NULL;
	}
	at = (r->head + skip) % r->cap;
	*len = MIN(r->len - skip, r->cap - at);
	return r->data + at;
}

void byte_ring_drop(struct byte_ring *r, uint32_t len)
{
	r->len -= len;
	r->head = r->len ? (r->head + len) % r->cap : 0;
}

uint32_t byte_ring_get(struct byte_ring *r, void *buf, uint32_t len)
{
	uint32_t done = 0, n;
	const uint8_t *p;

	while (done < len && (p = byte_ring_peek(r, 0, &n))) {
		n = MIN(n, len - done);
		memcpy((uint8_t *)buf + done, p, n);
		byte_ring_drop(r, n);
		done += n;
	}
	return done;
}

void byte_ring_grow(struct byte_ring *r, uint32_t cap)
{
	struct byte_ring bigger;
	const uint8_t *p;
	uint32_t n;

	byte_ring_init(&bigger, cap);
	while ((p = byte_ring_peek(r, 0, &n))) {
		byte_ring_put(&bigger, p, n);
		byte_ring_drop(r, n);
	}
	byte_ring_free(r);
	*r = bigger;
}

/* ---- front end callbacks ---- */

void chardev_fe_lock(struct chardev *c)
{
	if (c->fe_lock)
		pthread_mutex_lock(c->fe_lock);
}

void chardev_fe_unlock(struct chardev *c)
{
	if (c->fe_lock)
		pthread_mutex_unlock(c->fe_lock);
}

void chardev_event_to(struct chardev *port, enum chardev_event ev)
{
	if (!port || !port->attached || !port->fe.event)
		return;
	chardev_fe_lock(port);
	port->fe.event(port->fe_opaque, ev);
	chardev_fe_unlock(port);
}

static void event_to_all(struct chardev *c, enum chardev_event ev)
{
	struct chardev *port;

	if (!c->mux) {
		chardev_event_to(c, ev);
		return;
	}
	for (unsigned i = 0; (port = mux_port(c, i)); i++)
		chardev_event_to(port, ev);
}

static void tell_writable(struct chardev *base, struct chardev *port)
{
	bool tell;

	pthread_mutex_lock(&base->out_lock);
	tell = port->want_writable;
	port->want_writable = false;
	pthread_mutex_unlock(&base->out_lock);
	if (!tell || !port->attached || !port->fe.writable)
		return;
	chardev_fe_lock(port);
	port->fe.writable(port->fe_opaque);
	chardev_fe_unlock(port);
}

static void tell_all_writable(struct chardev *base)
{
	struct chardev *port;

	if (!base->mux) {
		tell_writable(base, base);
		return;
	}
	for (unsigned i = 0; (port = mux_port(base, i)); i++)
		tell_writable(base, port);
}

static void opened_bh(void *opaque)
{
	struct chardev *c = opaque;
	struct chardev *base = c->mux_base ? c->mux_base : c;

	if (base->open)
		chardev_event_to(c, CHARDEV_OPENED);
}

void chardev_attach(struct chardev *c, const struct chardev_frontend *fe, void *opaque, pthread_mutex_t *lock)
{
	struct chardev *base = c->mux_base ? c->mux_base : c;

	c->fe = *fe;
	c->fe_opaque = opaque;
	c->fe_lock = lock;
	c->attached = true;
	c->fe_open = true;
	if (base->open)
		bh_schedule(&c->opened_bh);
	bh_schedule(&base->in_bh);
}

void chardev_detach(struct chardev *c)
{
	struct chardev *base = c->mux_base ? c->mux_base : c;

	bh_cancel(&c->opened_bh);
	pthread_mutex_lock(&base->out_lock);
	c->want_writable = false;
	pthread_mutex_unlock(&base->out_lock);
	c->attached = false;
	c->fe_open = false;
	c->fe_lock = NULL;
	c->fe = (struct chardev_frontend){0};
}

/* ---- output ---- */

static bool is_lossless(const struct chardev *c)
{
	return c->attached && c->fe.lossless;
}

/* Hand over what is queued: now, or together with what else comes within FLUSH_NS of the last time. */
static void schedule_flush_locked(struct chardev *base)
{
	uint64_t now;

	if (base->out.len >= base->out.cap / 2 || is_lossless(base) || clock_is_manual()) {
		bh_schedule(&base->out_bh);
		return;
	}
	if (timer_pending(&base->flush_timer))
		return;
	now = clock_ns(VCLOCK_REAL);
	if (now - base->flushed_ns >= FLUSH_NS)
		bh_schedule(&base->out_bh);
	else
		timer_arm(&base->flush_timer, base->flushed_ns + FLUSH_NS);
}

/* out_lock held (the timer's lock). */
static void flush_timer_fired(void *opaque)
{
	bh_schedule(&((struct chardev *)opaque)->out_bh);
}

/* Queue what fits; with a peer that hangs, say yes to the rest and drop it. */
size_t chardev_queue_locked(struct chardev *base, const void *buf, size_t len)
{
	size_t n = byte_ring_put(&base->out, buf, MIN(len, (size_t)UINT32_MAX));

	if (n && !base->out_blocked)
		schedule_flush_locked(base);
	if (n < len && base->stalled) {
		base->dropped += len - n;
		n = len;
	}
	return n;
}

void chardev_schedule_flush(struct chardev *base)
{
	bh_schedule(&base->out_bh);
}

size_t chardev_write(struct chardev *c, const void *buf, size_t len)
{
	struct chardev *base = c->mux_base ? c->mux_base : c;
	size_t n;

	if (base->log_fd < 0 && (base->ops->discards || !base->open))
		return len;
	pthread_mutex_lock(&base->out_lock);
	n = c->mux_base ? mux_write_locked(c, buf, len) : chardev_queue_locked(base, buf, len);
	if (n < len) {
		c->want_writable = true;
		if (!is_lossless(c) && !timer_pending(&base->stall_timer))
			timer_arm(&base->stall_timer, clock_ns(VCLOCK_REAL) + CHARDEV_STALL_MS * NS_PER_MS);
	}
	pthread_mutex_unlock(&base->out_lock);
	return n;
}

/* out_lock held (the timer's lock). */
static void stall_timer_fired(void *opaque)
{
	struct chardev *c = opaque;

	c->stalled = true;
	bh_schedule(&c->out_bh);
}

static void made_progress(struct chardev *c)
{
	uint64_t lost = 0, now;

	pthread_mutex_lock(&c->out_lock);
	if (timer_pending(&c->stall_timer))
		timer_cancel(&c->stall_timer);
	c->out_blocked = false;
	c->stalled = false;
	if (c->dropped && (now = clock_ns(VCLOCK_REAL)) >= c->dropped_log_ns) {
		lost = c->dropped;
		c->dropped = 0;
		c->dropped_log_ns = now + NS_PER_SEC;
	}
	pthread_mutex_unlock(&c->out_lock);
	if (lost)
		log_warn("chardev", "%s: its reader was too slow, %llu bytes of output were dropped", c->id,
			 (unsigned long long)lost);
}

static void write_log(struct chardev *c, const uint8_t *p, uint32_t n)
{
	while (n && !c->log_failed) {
		ssize_t done = write(c->log_fd, p, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0) {
			c->log_failed = true;
			log_warn("chardev", "%s: cannot write %s: %s; the log ends here", c->id, c->logfile,
				 strerror(errno));
			return;
		}
		p += done;
		n -= done;
	}
}

/* Hand one piece to log and backend. Returns bytes done with, 0: it would block, -errno: the peer is lost. */
static ssize_t flush_piece(struct chardev *c, const uint8_t *p, uint32_t n, uint32_t *logged)
{

	if (c->log_fd >= 0 && *logged < n) {
		write_log(c, p + *logged, n - *logged);
		*logged = n;
	}
	if (c->ops->discards || !c->open)
		return n;
	return c->ops->write(c, p, n);
}

/* The peer is lost, and what is queued with it; but all of it goes to the log. */
static void drop_queued(struct chardev *c)
{
	uint32_t left, n, logged;
	const uint8_t *p;

	pthread_mutex_lock(&c->out_lock);
	for (left = c->out.len; left && (p = byte_ring_peek(&c->out, 0, &n)); left -= n) {
		n = MIN(n, left);
		logged = MIN(c->logged, n);
		pthread_mutex_unlock(&c->out_lock); /* as in chardev_flush(): producers only append */
		if (c->log_fd >= 0)
			write_log(c, p + logged, n - logged);
		pthread_mutex_lock(&c->out_lock);
		byte_ring_drop(&c->out, n);
		c->logged -= logged;
	}
	c->out_blocked = false;
	pthread_mutex_unlock(&c->out_lock);
}

static void carry_out_line_requests(struct chardev *c)
{
	struct chardev_line line;
	bool changed, brk;

	pthread_mutex_lock(&c->out_lock);
	line = c->line;
	changed = c->line_changed;
	brk = c->break_wanted;
	c->line_changed = c->break_wanted = false;
	pthread_mutex_unlock(&c->out_lock);
	if (changed && c->ops->set_line)
		c->ops->set_line(c, &line);
	if (brk && c->ops->send_break)
		c->ops->send_break(c);
}

void chardev_flush(struct chardev *c)
{
	uint32_t n, logged;
	ssize_t done = 0;
	const uint8_t *p;

	if (c->mux_base)
		c = c->mux_base;
	carry_out_line_requests(c);
	for (;;) {
		pthread_mutex_lock(&c->out_lock);
		p = byte_ring_peek(&c->out, 0, &n);
		logged = MIN(c->logged, n);
		pthread_mutex_unlock(&c->out_lock);
		if (!p)
			break;
		/* Producers only append, so the piece stays put without the lock. */
		done = flush_piece(c, p, n, &logged);
		n = done > 0 ? (uint32_t)done : 0;
		pthread_mutex_lock(&c->out_lock);
		byte_ring_drop(&c->out, n);
		c->logged = logged > n ? logged - n : 0;
		c->out_blocked = done == 0;
		pthread_mutex_unlock(&c->out_lock);
		if (done < 0)
			drop_queued(c);
		if (done <= 0)
			break;
		made_progress(c);
	}
	pthread_mutex_lock(&c->out_lock);
	c->flushed_ns = clock_ns(VCLOCK_REAL);
	pthread_mutex_unlock(&c->out_lock);
	if (done < 0 && c->ops->gone)
		c->ops->gone(c);
	else if (done < 0 && c->ops->disconnect)
		c->ops->disconnect(c);
	tell_all_writable(c);
}

void chardev_ask_writable(struct chardev *c)
{
	struct chardev *base = c->mux_base ? c->mux_base : c;

	pthread_mutex_lock(&base->out_lock);
	c->want_writable = true;
	pthread_mutex_unlock(&base->out_lock);
}

size_t chardev_queued(struct chardev *c)
{
	size_t n;

	if (c->mux_base)
		c = c->mux_base;
	pthread_mutex_lock(&c->out_lock);
	n = c->out.len;
	pthread_mutex_unlock(&c->out_lock);
	return n;
}

static void out_bh(void *opaque)
{
	chardev_flush(opaque);
}

void chardev_output_ready(struct chardev *c)
{
	chardev_flush(c);
}

void chardev_set_line(struct chardev *c, const struct chardev_line *line)
{
	if (c->mux_base || !c->ops->set_line)
		return;
	pthread_mutex_lock(&c->out_lock);
	c->line = *line;
	c->line_changed = true;
	pthread_mutex_unlock(&c->out_lock);
	bh_schedule(&c->out_bh);
}

void chardev_send_break(struct chardev *c)
{
	if (c->mux_base)
		c = c->mux_base;
	if (!c->ops->send_break)
		return;
	pthread_mutex_lock(&c->out_lock);
	c->break_wanted = true;
	pthread_mutex_unlock(&c->out_lock);
	bh_schedule(&c->out_bh);
}

void chardev_set_open(struct chardev *c, bool guest_open)
{
	c->fe_open = guest_open;
}

/* ---- input ---- */

size_t chardev_input_room(const struct chardev *c)
{
	/* A mux always reads, and drops what does not fit: its operator must be able to type Ctrl-A x at a guest that
	   takes no input. */
	return c->mux ? INPUT_QUEUE_SIZE : c->in.cap - c->in.len;
}

static void update_want_input(struct chardev *c)
{
	bool on = chardev_input_room(c) > 0;

	c->in_pending = c->in.len || !on;
	if (on == c->input_on)
		return;
	c->input_on = on;
	if (c->ops->want_input)
		c->ops->want_input(c, on);
}

static void deliver(struct chardev *c)
{
	struct chardev *port = c->mux ? mux_focus(c) : c;
	uint8_t buf[1024];
	size_t n;

	if (c->delivering)
		return;
	c->delivering = true;
	while (port && port->attached && c->in.len) {
		chardev_fe_lock(port);
		n = port->fe.can_receive ? port->fe.can_receive(port->fe_opaque) : sizeof(buf);
		n = byte_ring_get(&c->in, buf, MIN(n, sizeof(buf)));
		if (n)
			port->fe.receive(port->fe_opaque, buf, n);
		chardev_fe_unlock(port);
		if (!n)
			break;
		if (c->mux)
			port = mux_focus(c);
	}
	c->delivering = false;
	update_want_input(c);
}

static void in_bh(void *opaque)
{
	deliver(opaque);
}

void chardev_accept_input(struct chardev *c)
{
	if (c->mux_base)
		c = c->mux_base;
	if (c->in_pending)
		bh_schedule(&c->in_bh);
}

bool chardev_input_grow(struct chardev *c)
{
	if (is_lossless(c) || c->in.cap >= INPUT_QUEUE_MAX)
		return false;
	byte_ring_grow(&c->in, c->in.cap * 2);
	return true;
}

void chardev_input(struct chardev *c, const uint8_t *buf, size_t len)
{
	c->in_pending = true; /* before can_receive() is asked: see chardev_accept_input() */
	if (c->mux)
		mux_input(c, buf, len);
	else
		byte_ring_put(&c->in, buf, len);
	deliver(c);
}

void chardev_break_received(struct chardev *c)
{
	chardev_event_to(c->mux ? mux_focus(c) : c, CHARDEV_BREAK);
}

void chardev_inject_break(struct chardev *c)
{
	chardev_break_received(c->mux_base ? c->mux_base : c);
}

bool chardev_is_shared(const struct chardev *c)
{
	return c->mux_base;
}

bool chardev_wants_monitor(const struct chardev *c)
{
	return c->wants_monitor;
}

/* ---- peers ---- */

void chardev_opened(struct chardev *c)
{
	if (c->open)
		return;
	c->open = true;
	event_to_all(c, CHARDEV_OPENED);
}

void chardev_closed(struct chardev *c)
{
	if (!c->open)
		return;
	c->open = false;
	if (is_lossless(c))
		byte_ring_drop(&c->in, c->in.len);
	made_progress(c);
	chardev_flush(c); /* throws away what is queued */
	event_to_all(c, CHARDEV_CLOSED);
}

/* ---- making and finding ---- */

struct chardev *chardev_new(const struct chardev_ops *ops, const char *id)
{
	struct chardev *c = xzalloc(ops->size);

	c->ops = ops;
	c->id = xstrdup(id);
	c->log_fd = -1;
	c->input_on = true;
	pthread_mutex_init(&c->out_lock, NULL);
	byte_ring_init(&c->out, CHARDEV_QUEUE_SIZE);
	byte_ring_init(&c->in, INPUT_QUEUE_SIZE);
	bh_init(&c->out_bh, loop_main(), NULL, out_bh, c);
	bh_init(&c->in_bh, loop_main(), NULL, in_bh, c);
	bh_init(&c->opened_bh, loop_main(), NULL, opened_bh, c);
	timer_init(&c->flush_timer, loop_main(), VCLOCK_REAL, &c->out_lock, flush_timer_fired, c);
	timer_init(&c->stall_timer, loop_main(), VCLOCK_REAL, &c->out_lock, stall_timer_fired, c);
	return c;
}

void chardev_free(struct chardev *c)
{
	pthread_mutex_lock(&c->out_lock);
	timer_cancel(&c->stall_timer);
	timer_cancel(&c->flush_timer);
	pthread_mutex_unlock(&c->out_lock);
	bh_cancel(&c->out_bh);
	bh_cancel(&c->in_bh);
	bh_cancel(&c->opened_bh);
	if (c->log_fd >= 0)
		close(c->log_fd);
	if (c->mux)
		mux_destroy(c);
	byte_ring_free(&c->out);
	byte_ring_free(&c->in);
	pthread_mutex_destroy(&c->out_lock);
	free(c->owner);
	free(c->options);
	if (c->ops->props)
		props_free(c->ops->props, c);
	else
		free(c->id);
	free(c);
}

void chardev_list(struct chardev *c)
{
	c->listed = true;
	*all_tail = c;
	all_tail = &c->next;
}

void chardev_unlist(struct chardev *c)
{
	for (struct chardev **p = &all_chardevs; *p; p = &(*p)->next) {
		if (*p != c)
			continue;
		*p = c->next;
		if (all_tail == &c->next)
			all_tail = p;
		c->next = NULL;
		c->listed = false;
		return;
	}
}

static const struct chardev_ops *find_backend(const char *name, struct err *e)
{
	const char *names[ARRAY_SIZE(backends)];
	const char *near;

	for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
		names[i] = backends[i]->name;
		if (!strcmp(name, backends[i]->name) || (backends[i]->alias && !strcmp(name, backends[i]->alias)))
			return backends[i];
	}
	if (!strcmp(name, "parport") || !strcmp(name, "parallel"))
		err_set(e, EINVAL, "-chardev %s: a host parallel port cannot be passed on; use file or pipe", name);
	else if (!strcmp(name, "vc"))
		err_set(e, EINVAL,
			"-chardev vc: there are no text consoles inside the display; use stdio, pty or socket");
	else if ((near = err_nearest(name, names, ARRAY_SIZE(names))))
		err_set(e, EINVAL, "-chardev %s: no such backend; did you mean '%s'?", name, near);
	else
		err_set(e, EINVAL, "-chardev %s: no such backend; -chardev help lists them", name);
	return NULL;
}

static int open_log(struct chardev *c, struct err *e)
{
	int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (c->logappend ? O_APPEND : O_TRUNC);

	if (!c->logfile)
		return 0;
	c->log_fd = fdset_open(c->logfile, flags, 0666, e);
	return c->log_fd < 0 ? err_prefix(e, "-chardev %s: logfile", c->id) : 0;
}

static int open_configured(struct chardev *c, struct err *e)
{
	int ret = open_log(c, e);

	if (ret)
		return ret;
	if (c->mux_option) {
		if (c->ops->no_mux)
			return err_set(e, EINVAL, "-chardev %s,id=%s: mux=on makes no sense there", c->ops->name,
				       c->id);
		byte_ring_init(&c->in, MUX_INPUT_QUEUE_SIZE);
		mux_create(c);
	}
	ret = c->ops->open(c, e);
	return ret ? err_prefix(e, "-chardev %s,id=%s", c->ops->name, c->id) : 0;
}

struct chardev *chardev_make(struct opts *o, struct err *e)
{
	const char *backend = opts_get(o, "backend");
	const char *id = opts_get(o, "id");
	const struct chardev_ops *ops;
	struct chardev *c;

	if (!backend) {
		err_set(e, EINVAL, "-chardev: the backend is missing; -chardev help lists them");
		return NULL;
	}
	ops = find_backend(backend, e);
	if (!ops)
		return NULL;
	if (!id || !*id) {
		err_set(e, EINVAL, "-chardev %s: id= is missing", backend);
		return NULL;
	}
	c = chardev_new(ops, NULL);
	props_default(ops->props, c);
	if (opts_apply(o, ops->props, c, backend, e)) {
		err_prefix(e, "-chardev");
		chardev_free(c);
		return NULL;
	}
	/* opts_get() above marked it used, so opts_apply() left it alone. */
	if (!c->id)
		c->id = xstrdup(id);
	if (open_configured(c, e)) {
		chardev_free(c);
		return NULL;
	}
	c->options = opts_format(o);
	return c;
}

struct chardev *chardev_open(struct opts *o, struct err *e)
{
	const char *id = opts_get(o, "id");
	struct chardev *c;

	if (id && chardev_find(id)) {
		err_set(e, EEXIST, "-chardev %s: there is already a character device with id '%s'",
			opts_get(o, "backend") ?: "", id);
		return NULL;
	}
	c = chardev_make(o, e);
	if (c)
		chardev_list(c);
	return c;
}

const char *chardev_options(const struct chardev *c)
{
	return c->options;
}

void chardev_close(struct chardev *c)
{
	if (!c)
		return;
	if (c->mux_base) {
		mux_release(c);
		return;
	}
	chardev_detach(c);
	chardev_flush(c);
	c->ops->close(c);
	if (c->listed)
		chardev_unlist(c);
	if (c->connected) {
		struct err e = {0};

		err_set(&e, ECANCELED, "Chardev '%s' was removed before it was connected", c->id);
		chardev_connected(c, &e);
	}
	chardev_free(c);
}

int chardev_remove(const char *id, struct err *e)
{
	struct chardev *c = chardev_find(id);
	bool used;

	if (!c)
		return err_set(e, ENOENT, "Chardev '%.200s' not found", id);
	used = c->owner || c->attached;
	for (unsigned i = 0; c->mux && mux_port(c, i); i++)
		used |= mux_port(c, i)->owner != NULL;
	if (used)
		return err_set(e, EBUSY, "Chardev '%s' is busy", id);
	chardev_close(c);
	return 0;
}

void chardev_close_all(void)
{
	while (all_chardevs)
		chardev_close(all_chardevs);
	chardev_restore_terminal();
}

struct chardev *chardev_find(const char *id)
{
	for (struct chardev *c = all_chardevs; c; c = c->next)
		if (!strcmp(c->id, id))
			return c;
	return NULL;
}

struct chardev *chardev_next(struct chardev *prev)
{
	return prev ? prev->next : all_chardevs;
}

struct chardev *chardev_claim(const char *id, const char *owner, struct err *e)
{
	struct chardev *c = chardev_find(id);

	if (!c) {
		err_set(e, ENOENT, "%s: there is no character device '%s'", owner, id);
		return NULL;
	}
	if (c->mux)
		return mux_claim(c, owner, e);
	if (c->owner) {
		err_set(e, EBUSY, "%s: character device '%s' is in use by %s", owner, id, c->owner);
		return NULL;
	}
	c->owner = xstrdup(owner);
	return c;
}

void chardev_release(struct chardev *c)
{
	if (!c)
		return;
	if (c->mux_base) {
		mux_release(c);
		return;
	}
	chardev_detach(c);
	free(c->owner);
	c->owner = NULL;
}

const char *chardev_id(const struct chardev *c)
{
	return c->mux_base ? c->mux_base->id : c->id;
}

const char *chardev_backend_name(const struct chardev *c)
{
	return c->mux_base ? c->mux_base->ops->name : c->ops->name;
}

const char *chardev_filename(struct chardev *c)
{
	if (c->mux_base)
		c = c->mux_base;
	if (c->ops->describe)
		c->ops->describe(c, c->description, sizeof(c->description));
	else
		snprintf(c->description, sizeof(c->description), "%s", c->ops->name);
	return c->description;
}

bool chardev_is_open(const struct chardev *c)
{
	return c->mux_base ? c->mux_base->open : c->open;
}

bool chardev_frontend_open(const struct chardev *c)
{
	struct chardev *port;

	if (!c->mux)
		return c->fe_open;
	for (unsigned i = 0; (port = mux_port((struct chardev *)c, i)); i++)
		if (port->fe_open)
			return true;
	return false;
}

int chardev_take_fds(struct chardev *c, int *fds, int max)
{
	return c->ops->take_fds ? c->ops->take_fds(c, fds, max) : 0;
}

bool chardev_when_connected(struct chardev *c, void (*fn)(void *opaque, const struct err *e), void *opaque)
{
	if (!c->ops->connecting || !c->ops->connecting(c))
		return false;
	c->connected = fn;
	c->connected_opaque = opaque;
	return true;
}

void chardev_connected(struct chardev *c, const struct err *e)
{
	void (*fn)(void *opaque, const struct err *e) = c->connected;

	c->connected = NULL;
	if (fn)
		fn(c->connected_opaque, e);
	else if (e)
		log_warn("chardev", "%s: %s", c->id, e->msg);
}

void chardev_disconnect(struct chardev *c)
{
	if (c->ops->disconnect)
		c->ops->disconnect(c);
}

int chardev_serve(struct chardev *c, unsigned max_peers, void (*on_peer)(void *, struct chardev *), void *opaque)
{
	int ret = c->ops->serve ? c->ops->serve(c, max_peers, on_peer, opaque) : -ENOTSUP;

	if (!ret)
		c->fe_open = true;
	return ret;
}

const char *chardev_backend_at(size_t i, const char **help, const struct prop **props)
{
	if (i >= ARRAY_SIZE(backends))
		return NULL;
	if (help)
		*help = backends[i]->help;
	if (props)
		*props = backends[i]->props;
	return backends[i]->name;
}
