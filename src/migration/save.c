/*
 * Saving a guest to a file. Two ways, the same file (image.h):
 *
 *   save         rounds over the dirty log while the guest runs, each page at its place in the file, so that the file
 * never grows; when what is left is little the guest stops, the rest and the device state follow, and it is over.
 *   checkpoint   (capability background-snapshot) the guest stops for the time of saving its devices and goes on; its
 * memory is write-protected (userfaultfd) and each page goes to the file before its first write. The file holds the
 * moment of the stop.
 *
 * A checkpoint's pause must not depend on the size of memory. So everything is write-protected before, while the guest
 * runs: a write then only sets a bit and lifts the protection of its page. In the pause only those pages are protected
 * again.
 *
 * The file is written under a temporary name and renamed when it is complete and on stable storage.
 */
#include "save.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "faults.h"
#include "image.h"
#include "present.h"
#include "vmm/log.h"

#define MAX_WRITERS   4
#define MAX_ROUNDS    6
#define PROTECT_CHUNK (16ull << 20)
#define WORD_PAGES    64
#define RETRY_MS      10

struct save_start {
	char path[512], temporary[600];
	int fd, uffd; /* uffd -1: not a checkpoint */
	int quit_fd[2];
	unsigned writers;
	void *description;
	size_t description_len;
	uint8_t *drives;
	size_t drives_len;
};

struct save {
	struct save_start *start;
	struct image *im;
	struct switchover *sw;
	bool logging;
	/* writers */
	uint32_t next_leaf; /* atomic */
	pthread_mutex_t lock;
	int result;
	struct err err;
	/* checkpoint */
	bool registered, fault_runs;
	bool after; /* lock: the moment has passed */
	pthread_t fault_thread;
	unsigned long *touched[MAX_BLOCKS]; /* written between protection and the moment */
	unsigned long *claimed[MAX_BLOCKS]; /* after it: somebody writes or wrote it to the file */
	unsigned long *data[MAX_BLOCKS];    /* pages that have memory: the rest is zero */
	uint64_t pause_ns;
};

static void save_failed(struct save *s, int r, const struct err *e)
{
	pthread_mutex_lock(&s->lock);
	if (!s->result) {
		s->result = r;
		s->err = *e;
	}
	pthread_mutex_unlock(&s->lock);
}

static bool is_failed(struct save *s)
{
	bool f;

	pthread_mutex_lock(&s->lock);
	f = s->result != 0;
	pthread_mutex_unlock(&s->lock);
	return f || session_cancelled();
}

/* ---- writers ---- */

struct claim {
	unsigned block;
	uint64_t first, pages;
};

static bool next_claim(struct save *s, struct claim *c)
{
	uint32_t leaf = __atomic_fetch_add(&s->next_leaf, 1, __ATOMIC_RELAXED);

	for (unsigned i = 0; i < s->im->n_blocks; i++) {
		const struct image_block *b = &s->im->block[i];

		if (leaf >= b->first_leaf + b->leaves)
			continue;
		c->block = i;
		c->first = (uint64_t)(leaf - b->first_leaf) * LEAF_PAGES;
		c->pages = MIN((uint64_t)LEAF_PAGES, b->pages - c->first);
		return true;
	}
	return false;
}

/* The pages of a claim whose bit is set in bitmap, in runs; done() after each run. */
static int write_runs(struct save *s, unsigned block, uint64_t first, const unsigned long *bits, uint64_t pages,
		      void (*done)(struct save *s, unsigned block, uint64_t first, uint64_t n), struct err *e)
{
	for (uint64_t i = 0, run; i < pages; i += run) {
		bool set = bits[i / 64] >> (i % 64) & 1;
		int r = 0;

		for (run = 1; i + run < pages && (bits[(i + run) / 64] >> ((i + run) % 64) & 1) == set; run++)
			;
		if (set)
			r = image_put(s->im, block, first + i, run,
				      session.block[block].v.host + (first + i) * WIRE_PAGE, e);
		if (r)
			return r;
		if (set && done)
			done(s, block, first + i, run);
	}
	return 0;
}

static void *round_writer(void *arg)
{
	struct save *s = arg;
	struct claim c;

	session_confine();
	while (!is_failed(s) && next_claim(s, &c)) {
		unsigned long *bits = &session.block[c.block].bitmap[c.first / 64];
		struct err e = ERR_INIT;
		int r = write_runs(s, c.block, c.first, bits, c.pages, NULL, &e);

		memset(bits, 0, (c.pages + 63) / 64 * 8);
		if (r)
			save_failed(s, r, &e);
	}
	return NULL;
}

static int run_writers(struct save *s, void *(*fn)(void *), struct err *e)
{
	pthread_t t[MAX_WRITERS];
	unsigned n = 0;

	s->next_leaf = 0;
	while (n < s->start->writers && !session_thread(&t[n], "migrate/save", fn, s, e))
		n++;
	for (unsigned i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	if (!n)
		return -e->code;
	if (s->result)
		*e = s->err;
	return s->result ? s->result : session_cancelled() ? err_set(e, ECANCELED, "cancelled") : 0;
}

/* ---- save ---- */

static void start_logging(struct main_call *c)
{
	main_call_done(c, machine_dirty_start(session.board, &c->err));
}

static void stop_logging(struct main_call *c)
{
	machine_dirty_stop(session.board);
	main_call_done(c, 0);
}

/* What was written since the last look goes into the bitmaps; returns how many pages are to be saved. */
static uint64_t collect(bool first)
{
	uint64_t n = 0;

	machine_dirty_sync(session.board, false);
	for (unsigned i = 0; i < session.n_blocks; i++) {
		struct mig_block *b = &session.block[i];

		n += machine_dirty_take(session.board, i, b->bitmap);
		if (first) /* everything counts as written: what has no memory needs no look */
			present_pages(b, b->bitmap);
	}
	return n;
}

static int rounds(struct save *s, struct err *e)
{
	uint64_t last = UINT64_MAX, pending = collect(true);
	int r = 0;

	session_status(MIGRATION_ACTIVE);
	for (unsigned round = 1; !r && round <= MAX_ROUNDS; round++) {
		session_pass(round);
		r = run_writers(s, round_writer, e);
		pending = collect(false);
		/* Standing still is no harm here: no more rounds than bring something. */
		if (pending * WIRE_PAGE < LEAF_BYTES * 8 || pending > last / 2)
			break;
		last = pending;
	}
	return r;
}

static int finish_save(struct save *s, struct err *e)
{
	int r;

	session.stopped_ns = mono_ns();
	r = main_call(switchover_stop, s->sw, e);
	if (r)
		return r;
	session_status(MIGRATION_DEVICE);
	r = main_call(switchover_save, s->sw, e);
	collect(false);
	if (!r)
		r = run_writers(s, round_writer, e);
	if (!r)
		r = image_finish(s->im, &s->sw->state, switchover_state_to_send(s->sw), e);
	return r;
}

/* ---- checkpoint: protection ---- */

static int protect(int uffd, const struct mig_block *b, uint64_t first, uint64_t n, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = {.start = (uintptr_t)b->v.host + first * WIRE_PAGE, .len = n * WIRE_PAGE},
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0};
	int r;

	do
		r = ioctl(uffd, UFFDIO_WRITEPROTECT, &wp);
	while (r && errno == EAGAIN);
	return r ? -errno : 0;
}

static void release_run(struct save *s, unsigned block, uint64_t first, uint64_t n)
{
	protect(s->start->uffd, &session.block[block], first, n, false);
}

/* A write to a protected page. Before the moment it is only noted; after it the page goes to the file first. */
static void on_write(void *opaque, uint64_t address)
{
	struct save *s = opaque;
	struct err e = ERR_INIT;
	unsigned i = 0;
	uint64_t page;
	unsigned long bit;
	int r = 0;

	while (i < session.n_blocks && address - (uintptr_t)session.block[i].v.host >= session.block[i].v.size)
		i++;
	if (i == session.n_blocks)
		return;
	page = (address - (uintptr_t)session.block[i].v.host) / WIRE_PAGE;
	bit = 1ul << (page % 64);
	pthread_mutex_lock(&s->lock);
	if (!s->after) {
		s->touched[i][page / 64] |= bit;
		protect(s->start->uffd, &session.block[i], page, 1, false);
		pthread_mutex_unlock(&s->lock);
		return;
	}
	pthread_mutex_unlock(&s->lock);
	/* If a writer has it, that one lifts the protection, which wakes whoever waits. */
	if (__atomic_fetch_or(&s->claimed[i][page / 64], bit, __ATOMIC_ACQ_REL) & bit)
		return;
	if (s->data[i][page / 64] & bit)
		r = image_put(s->im, i, page, 1, session.block[i].v.host + page * WIRE_PAGE, &e);
	if (r)
		save_failed(s, r, &e);
	protect(s->start->uffd, &session.block[i], page, 1, false);
}

static void *fault_loop(void *arg)
{
	struct save *s = arg;

	faults_serve(s->start->uffd, s->start->quit_fd[0], on_write, s);
	return NULL;
}

static void *checkpoint_writer(void *arg)
{
	struct save *s = arg;
	struct claim c;

	session_confine();
	session_stand_back();
	while (!is_failed(s) && next_claim(s, &c))
		for (uint64_t at = 0; at < c.pages && !is_failed(s); at += WORD_PAGES) {
			uint64_t word = (c.first + at) / 64, n = MIN((uint64_t)WORD_PAGES, c.pages - at);
			unsigned long want = s->data[c.block][word], mine;
			struct err e = ERR_INIT;
			int r;

			if (!want)
				continue;
			mine = want & ~__atomic_fetch_or(&s->claimed[c.block][word], want, __ATOMIC_ACQ_REL);
			r = write_runs(s, c.block, c.first + at, &mine, n, release_run, &e);
			if (r) {
				save_failed(s, r, &e);
				release_run(s, c.block, c.first + at, n);
			}
		}
	return NULL;
}

static int register_memory(struct save *s, struct err *e)
{
	for (unsigned i = 0; i < session.n_blocks; i++) {
		const struct mig_block *b = &session.block[i];
		struct uffdio_register reg = {.range = {.start = (uintptr_t)b->v.host, .len = b->v.size},
					      .mode = UFFDIO_REGISTER_MODE_WP};
		size_t words = b->pages / 64 + 1;

		if (ioctl(s->start->uffd, UFFDIO_REGISTER, &reg))
			return err_errno(e, errno, "memory block '%s' cannot be write-protected", b->name);
		s->registered = true;
		s->touched[i] = calloc(words, 8);
		s->claimed[i] = calloc(words, 8);
		s->data[i] = calloc(words, 8);
		if (!s->touched[i] || !s->claimed[i] || !s->data[i])
			return err_errno(e, ENOMEM, "page bitmap of '%s'", b->name);
	}
	return 0;
}

static int protect_all(struct save *s, struct err *e)
{
	for (unsigned i = 0; i < session.n_blocks; i++) {
		const struct mig_block *b = &session.block[i];

		for (uint64_t at = 0; at < b->pages; at += PROTECT_CHUNK / WIRE_PAGE) {
			int r = protect(s->start->uffd, b, at, MIN(PROTECT_CHUNK / WIRE_PAGE, b->pages - at), true);

			if (r)
				return err_errno(e, -r, "memory block '%s' cannot be write-protected", b->name);
		}
		/* What gets memory from now on is written, so it is in `touched`. */
		present_pages(b, s->data[i]);
	}
	return 0;
}

/* In the pause: what was written since protect_all() again. Nobody writes now. */
static int protect_touched(struct save *s, struct err *e)
{
	for (unsigned i = 0; i < session.n_blocks; i++) {
		const struct mig_block *b = &session.block[i];

		for (uint64_t word = 0; word <= b->pages / 64; word++) {
			unsigned long bits = s->touched[i][word];

			s->data[i][word] |= bits;
			while (bits) {
				unsigned from = (unsigned)__builtin_ctzl(bits);
				unsigned long rest = ~(bits >> from);
				unsigned n = rest ? (unsigned)__builtin_ctzl(rest) : 64;
				int r = protect(s->start->uffd, b, word * 64 + from, n, true);

				if (r)
					return err_errno(e, -r, "memory block '%s' cannot be write-protected", b->name);
				bits &= n + from >= 64 ? 0 : ~0ul << (from + n);
			}
		}
	}
	return 0;
}

/* ---- checkpoint: the moment ---- */

struct moment {
	struct save *s;
	struct main_call *call;
	enum run_state before;
	uint64_t since;
};

static void moment_quiesced(void *opaque)
{
	struct moment *m = opaque;
	struct save *s = m->s;
	struct main_call *c = m->call;
	int r;

	r = machine_save_state(session.board, &s->sw->state, &c->err);
	pthread_mutex_lock(&s->lock);
	if (!r)
		r = protect_touched(s, &c->err);
	s->after = !r;
	pthread_mutex_unlock(&s->lock);
	if (machine_migration_return(session.board, m->before, r ? NULL : &c->err) && !r)
		r = -c->err.code;
	s->pause_ns = mono_ns() - m->since;
	free(m);
	main_call_done(c, r);
}

static void moment(struct main_call *c)
{
	struct save *s = c->arg;
	struct moment *m;

	if (!machine_quiet(session.board)) { /* a reset or power-off is due: it happens first */
		main_call_done(c, -EAGAIN);
		return;
	}
	m = xzalloc(sizeof(*m));
	m->s = s;
	m->call = c;
	m->since = mono_ns();
	m->before = machine_migration_stop(session.board);
	s->sw->before = m->before;
	machine_quiesce(session.board, moment_quiesced, m);
}

/*
 * Nothing is protected any more; whoever waits goes on. First the thread that serves faults comes to its end: it may be
 * about to write the last page, which the guest must not change before, and which belongs into the file before that is
 * finished.
 */
static void end_protection(struct save *s)
{
	if (s->fault_runs) {
		if (write(s->start->quit_fd[1], "", 1) < 0) {
			/* the thread has ended by itself */
		}
		pthread_join(s->fault_thread, NULL);
	}
	s->fault_runs = false;
	for (unsigned i = 0; s->registered && i < session.n_blocks; i++) {
		struct uffdio_range range = {.start = (uintptr_t)session.block[i].v.host,
					     .len = session.block[i].v.size};

		ioctl(s->start->uffd, UFFDIO_UNREGISTER, &range);
	}
	s->registered = false;
}

static int checkpoint(struct save *s, struct err *e)
{
	int r = register_memory(s, e);

	if (!r)
		r = session_thread(&s->fault_thread, "migrate/faults", fault_loop, s, e);
	s->fault_runs = !r;
	if (!r)
		r = protect_all(s, e);
	if (r)
		return r;
	session_status(MIGRATION_ACTIVE);
	while ((r = main_call(moment, s, e)) == -EAGAIN && !session_cancelled())
		poll(NULL, 0, RETRY_MS);
	if (!r)
		r = run_writers(s, checkpoint_writer, e);
	end_protection(s);
	if (!r && s->result) { /* of the last page, after the writers had ended */
		*e = s->err;
		r = s->result;
	}
	if (!r)
		r = image_finish(s->im, &s->sw->state, switchover_state_to_send(s->sw), e);
	pthread_mutex_lock(&session.lock);
	session.info.downtime_us = s->pause_ns / 1000;
	session.info.downtime_ms = (s->pause_ns + 500000) / 1000000;
	pthread_mutex_unlock(&session.lock);
	return r;
}

static void end_checkpoint(struct save *s)
{
	end_protection(s);
	for (unsigned i = 0; i < MAX_BLOCKS; i++) {
		free(s->touched[i]);
		free(s->claimed[i]);
		free(s->data[i]);
	}
}

/* ---- the way of a save ---- */

static void put_in_place(struct main_call *c)
{
	struct save_start *st = c->arg;

	if (rename(st->temporary, st->path))
		main_call_done(c, err_errno(&c->err, errno, "cannot rename %s to %s", st->temporary, st->path));
	else
		main_call_done(c, 0);
}

static void remove_temporary(struct main_call *c)
{
	struct save_start *st = c->arg;

	unlink(st->temporary);
	main_call_done(c, 0);
}

static void free_start(struct save_start *st)
{
	if (st->fd >= 0)
		close(st->fd);
	if (st->uffd >= 0)
		close(st->uffd);
	for (unsigned i = 0; i < 2; i++)
		if (st->quit_fd[i] >= 0)
			close(st->quit_fd[i]);
	free(st->description);
	free(st->drives);
	free(st);
}

static int set_up(struct save *s, struct err *e)
{
	struct save_start *st = s->start;
	uint8_t *layout = NULL;
	size_t len;
	int r = describe_layout(&layout, &len, e);

	if (r)
		return r;
	s->im = image_create(st->fd, st->path, st->description, st->description_len, layout, len, st->drives,
			     st->drives_len, e);
	free(layout);
	if (!s->im)
		return -ENOMEM;
	st->fd = -1;
	if (st->uffd < 0) {
		r = main_call(start_logging, NULL, e);
		s->logging = !r;
	}
	pthread_mutex_lock(&session.lock);
	session.info.setup_time_ms = (mono_ns() - session.start_ns) / 1000000;
	pthread_mutex_unlock(&session.lock);
	return r;
}

static void *save_thread(void *arg)
{
	struct save s = {.start = arg, .sw = xzalloc(sizeof(*s.sw)), .lock = PTHREAD_MUTEX_INITIALIZER};
	struct err e = ERR_INIT, back = ERR_INIT;
	bool live = s.start->uffd >= 0;
	int r;

	session_confine();
	r = set_up(&s, &e);
	if (!r && !live)
		r = rounds(&s, &e);
	if (!r)
		r = live ? checkpoint(&s, &e) : finish_save(&s, &e);
	if (live)
		end_checkpoint(&s);
	if (!r)
		r = main_call(put_in_place, s.start, &e);
	if (r)
		main_call(remove_temporary, s.start, NULL);
	pthread_mutex_lock(&session.lock);
	if (!live && !r) {
		session.info.downtime_us = (mono_ns() - session.stopped_ns) / 1000;
		session.info.downtime_ms = session.info.downtime_us / 1000;
	}
	session.info.transferred = image_bytes();
	session.info.normal_pages = image_bytes() / WIRE_PAGE;
	session.info.total_time_ms = (mono_ns() - session.start_ns) / 1000000;
	pthread_mutex_unlock(&session.lock);
	if (s.logging)
		main_call(stop_logging, NULL, NULL);
	if (!live && !r)
		r = main_call(switchover_done, NULL, &e);
	else if (!live && main_call(switchover_take_back, s.sw, &back))
		err_set(&e, e.code ? e.code : EIO, "%.400s; %.500s", e.msg, back.msg);
	image_free(s.im);
	state_buf_free(&s.sw->state);
	free(s.sw);
	free_start(s.start);
	session_free_blocks();
	session_end(r ? MIGRATION_FAILED : MIGRATION_COMPLETED, r ? &e : NULL);
	return NULL;
}

/* ---- main thread ---- */

/* Write protection of shared memory, also where there is no page yet. */
static int open_userfaultfd(struct err *e)
{
	int fd = faults_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM);

	if (fd == -EINVAL)
		return err_set(e, ENOTSUP,
			       "background-snapshot: this kernel cannot write-protect shared memory (Linux 5.19 can)");
	if (fd < 0)
		return err_errno(e, -fd,
				 "background-snapshot needs userfaultfd (vm.unprivileged_userfaultfd, or root)");
	return fd;
}

/* userfaultfd protects anonymous and shared memory, not private pages of a file. */
static int check_protectable(struct err *e)
{
	struct ram_view v;

	for (unsigned i = 0; machine_ram(session.board, i, &v); i++)
		if (v.fd < 0)
			return err_set(e, ENOTSUP,
				       "background-snapshot: memory block '%s' is a private mapping of a file "
				       "(map=private), which cannot be write-protected; save the guest without it, or "
				       "migrate it first: then its memory is its own",
				       v.name);
	return 0;
}

static int open_file(struct save_start *st, struct err *e)
{
	snprintf(st->temporary, sizeof(st->temporary), "%s.vmm-%d.part", st->path, (int)getpid());
	st->fd = open(st->temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	return st->fd < 0 ? err_errno(e, errno, "cannot create %s", st->temporary) : 0;
}

int save_start(const char *path, bool live, struct err *e)
{
	struct save_start *st = xzalloc(sizeof(*st));
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int r, map;

	st->fd = st->uffd = st->quit_fd[0] = st->quit_fd[1] = -1;
	st->writers = (unsigned)MIN(MAX(cpus, 1l), (long)MAX_WRITERS);
	snprintf(st->path, sizeof(st->path), "%s", path);
	r = image_path(st->path, &map, e);
	if (!r && map >= 0)
		r = err_set(e, EINVAL, "file:%s: map= is for -incoming", path);
	if (!r)
		r = machine_describe(session.board, &st->description, &st->description_len, e);
	if (!r)
		r = describe_drives(&st->drives, &st->drives_len, e);
	if (!r && live)
		r = check_protectable(e);
	if (!r && live) {
		st->uffd = open_userfaultfd(e);
		r = MIN(st->uffd, 0);
		if (!r && pipe2(st->quit_fd, O_CLOEXEC))
			r = err_errno(e, errno, "pipe");
	}
	if (!r)
		r = open_file(st, e);
	if (!r) {
		session_begin_outgoing();
		r = session_thread(&session.thread, "migration", save_thread, st, e);
		session.running = !r;
		if (r)
			unlink(st->temporary);
	}
	if (r)
		free_start(st);
	return r;
}
