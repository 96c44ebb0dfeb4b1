/*
 * Restoring a saved guest from a file (image.h). Three ways to its memory:
 *
 *   eager    read all of it, check all of it, then run
 *   lazy     run at once; memory is empty, and a page is read and checked when it is touched (userfaultfd), while
 * helpers read the rest private  run at once on a private mapping of the file: what the guest does not write is shared
 * with everybody else who started from this file (a template). Helpers check it meanwhile.
 *
 * With eager a damaged file is refused before anything runs. With the others damage in a page shows when the page is
 * needed: then the guest stops with an internal error, which says so, instead of seeing wrong data. Everything but
 * pages (machine, devices, the checksums' tree) is checked before.
 */
#include "save.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "faults.h"
#include "image.h"
#include "ram_recv.h"
#include "vmm/block.h"
#include "vmm/log.h"

#define MAX_READERS   4
#define HEAD_START_MS 100
#define AROUND        16u
#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

static struct restore {
	struct image *im;
	int map;
	int uffd, quit_fd[2];
	unsigned readers;
	pthread_t thread, fault_thread;
	bool thread_runs, fault_runs, registered;
	uint32_t next_leaf; /* atomic */
	bool quit;          /* atomic */
	pthread_mutex_t lock;
	int result;
	struct err err;
	uint8_t *state;
	struct switchover sw;
	uint64_t fault_hash[LEAF_PAGES];
	uint32_t fault_leaf;
	uint8_t fault_pages[AROUND * WIRE_PAGE];
} rs = {.uffd = -1, .quit_fd = {-1, -1}, .lock = PTHREAD_MUTEX_INITIALIZER};

static bool stopped(void)
{
	return __atomic_load_n(&rs.quit, __ATOMIC_RELAXED) || __atomic_load_n(&rs.result, __ATOMIC_RELAXED);
}

static void went_wrong(int r, const struct err *e)
{
	pthread_mutex_lock(&rs.lock);
	if (!rs.result) {
		rs.err = *e;
		__atomic_store_n(&rs.result, r, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&rs.lock);
}

/* 0, or what went_wrong() first; readers and the fault thread may just be finding it. */
static int what_went_wrong(struct err *e)
{
	int r;

	pthread_mutex_lock(&rs.lock);
	r = rs.result;
	if (r && e)
		*e = rs.err;
	pthread_mutex_unlock(&rs.lock);
	return r;
}

/* ---- opening ---- */

int restore_open(const char *uri_path, int *fd, struct err *e)
{
	char path[512];
	int r;

	snprintf(path, sizeof(path), "%s", uri_path);
	r = image_path(path, &rs.map, e);
	if (r)
		return r;
	*fd = open(path, O_RDONLY | O_CLOEXEC);
	if (*fd < 0)
		return err_errno(e, errno, "cannot open %s", path);
	r = image_open(*fd, path, &rs.im, e);
	return r;
}

void restore_description(const void **fdt, size_t *len)
{
	*fdt = rs.im->description;
	*len = rs.im->description_len;
}

/* ---- reading everything ---- */

static bool next_leaf(unsigned *block, uint64_t *first, uint64_t *pages, uint32_t *leaf)
{
	*leaf = __atomic_fetch_add(&rs.next_leaf, 1, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < rs.im->n_blocks; i++) {
		const struct image_block *b = &rs.im->block[i];

		if (*leaf >= b->first_leaf + b->leaves)
			continue;
		*block = i;
		*first = (uint64_t)(*leaf - b->first_leaf) * LEAF_PAGES;
		*pages = MIN((uint64_t)LEAF_PAGES, b->pages - *first);
		return true;
	}
	return false;
}

/* Put n pages where the guest does not have them yet. */
static int place(unsigned block, uint64_t first, uint64_t n, const uint8_t *data, struct err *e)
{
	uint8_t *host = session.block[block].v.host + first * WIRE_PAGE;

	for (uint64_t i = 0; i < n;) {
		struct uffdio_copy copy = {.dst = (uintptr_t)host + i * WIRE_PAGE,
					   .src = (uintptr_t)data + i * WIRE_PAGE,
					   .len = (n - i) * WIRE_PAGE};

		if (!ioctl(rs.uffd, UFFDIO_COPY, &copy))
			return 0;
		if (copy.copy > 0)
			i += (uint64_t)copy.copy / WIRE_PAGE;
		else if (errno == EEXIST) /* it was touched: the guest's own by now */
			i++;
		else if (errno != EAGAIN)
			return err_errno(e, errno, "cannot place memory of %s", rs.im->path);
	}
	return 0;
}

static int place_zero(unsigned block, uint64_t first, uint64_t n, struct err *e)
{
	for (uint64_t i = 0; i < n; i++) {
		struct uffdio_zeropage zero = {
			.range = {.start = (uintptr_t)session.block[block].v.host + (first + i) * WIRE_PAGE,
				  .len = WIRE_PAGE}};

		while (ioctl(rs.uffd, UFFDIO_ZEROPAGE, &zero) && errno == EAGAIN)
			;
		if (zero.zeropage < 0 && zero.zeropage != -EEXIST)
			return err_errno(e, (int)-zero.zeropage, "cannot place memory of %s", rs.im->path);
	}
	return 0;
}

/* Into the memfd: a write needs no fault and no zeroing for each page, and the buffer is still in the cache. */
static int fill(unsigned block, uint64_t first, uint64_t pages, const uint64_t *hash, const uint8_t *buf, struct err *e)
{
	const struct mig_block *b = &session.block[block];

	for (uint64_t i = 0, run; i < pages; i += run) {
		ssize_t len, done;

		for (run = 1; i + run < pages && !hash[i] == !hash[i + run]; run++)
			;
		len = hash[i] ? (ssize_t)(run * WIRE_PAGE) : 0;
		for (ssize_t at = 0; at < len; at += done) {
			done = pwrite(b->v.fd, buf + i * WIRE_PAGE + at, (size_t)(len - at),
				      (off_t)((first + i) * WIRE_PAGE) + at);
			if (done < 0 && errno == EINTR)
				done = 0;
			else if (done <= 0)
				return err_errno(e, errno, "cannot fill memory block '%s'", b->name);
		}
	}
	return 0;
}

/* One leaf, the way rs.map says. Zero pages stay holes: a lazy guest gets them by touching them. */
static int read_leaf(unsigned block, uint64_t first, uint64_t pages, uint32_t leaf, uint8_t *buf, struct err *e)
{
	uint64_t hash[LEAF_PAGES];
	int r = image_leaf(rs.im, leaf, hash, e);

	if (!r && rs.map == MAP_EAGER)
		r = image_get(rs.im, block, first, pages, hash, true, buf, e);
	if (rs.map == MAP_EAGER)
		return r ? r : fill(block, first, pages, hash, buf, e);
	if (!r && rs.map == MAP_COPY_ON_WRITE)
		return image_verify(rs.im, block, first, pages, hash, buf, e);
	if (!r)
		r = image_get(rs.im, block, first, pages, hash, true, buf, e);
	for (uint64_t i = 0, run; !r && rs.map == MAP_LAZY && i < pages; i += run) {
		for (run = 1; i + run < pages && !hash[i] == !hash[i + run]; run++)
			;
		if (hash[i])
			r = place(block, first + i, run, buf + i * WIRE_PAGE, e);
	}
	return r;
}

static void *reader(void *arg)
{
	uint8_t *buf = malloc(LEAF_BYTES);
	uint64_t first, pages;
	unsigned block;
	uint32_t leaf;

	(void)arg;
	session_confine();
	if (rs.map != MAP_EAGER)
		session_stand_back();
	while (!stopped() && next_leaf(&block, &first, &pages, &leaf)) {
		struct err e = ERR_INIT;
		int r = buf ? read_leaf(block, first, pages, leaf, buf, &e) : err_errno(&e, ENOMEM, "restore buffer");

		if (r)
			went_wrong(r, &e);
	}
	free(buf);
	return NULL;
}

static int read_all(struct err *e)
{
	pthread_t t[MAX_READERS];
	unsigned n = 0;
	int r;

	rs.next_leaf = 0;
	while (n < rs.readers && !session_thread(&t[n], "migrate/load", reader, NULL, e))
		n++;
	for (unsigned i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	if (!n)
		return -e->code;
	r = what_went_wrong(e);
	return r ? r : stopped() ? err_set(e, ECANCELED, "vmm ends") : 0;
}

/* ---- pages on demand ---- */

/*
 * A page that cannot be had: whoever touches it gets a bus error, a vCPU an internal error. Linux has poisoned pages
 * since 6.6; before, the page is out of everybody's reach, which to KVM is the same, and those who wait for it are
 * woken.
 */
static void poison(unsigned block, uint64_t page)
{
	uint8_t *host = session.block[block].v.host + page * WIRE_PAGE;
	struct uffdio_poison p = {.range = {.start = (uintptr_t)host, .len = WIRE_PAGE}};

	if (!ioctl(rs.uffd, UFFDIO_POISON, &p) || errno == EEXIST)
		return;
	if (mprotect(host, WIRE_PAGE, PROT_NONE) || ioctl(rs.uffd, UFFDIO_WAKE, &p.range)) {
		log_error("migration", "the guest ends: it touched memory that is damaged in %s", rs.im->path);
		abort(); /* no other way to keep wrong data from the guest */
	}
}

/* The page, and with it its neighbours: a guest that just came touches many, and each fault has its price. */
static int bring(unsigned block, uint64_t page, uint32_t leaf, struct err *e)
{
	uint64_t first = page & ~(uint64_t)(AROUND - 1), n = MIN((uint64_t)AROUND, rs.im->block[block].pages - first);
	const uint64_t *hash = rs.fault_hash + first % LEAF_PAGES;
	int r = 0;

	if (leaf != rs.fault_leaf)
		r = image_leaf(rs.im, leaf, rs.fault_hash, e);
	rs.fault_leaf = r ? UINT32_MAX : leaf;
	if (r || !rs.fault_hash[page % LEAF_PAGES])
		return r ? r : place_zero(block, page, 1, e);
	if (image_get(rs.im, block, first, n, rs.fault_hash, true, rs.fault_pages,
		      NULL)) { /* one of them is damaged: this one? */
		r = image_get(rs.im, block, page, 1, rs.fault_hash, false, rs.fault_pages, e);
		return r ? r : place(block, page, 1, rs.fault_pages, e);
	}
	for (uint64_t i = 0, run; !r && i < n; i += run) {
		for (run = 1; i + run < n && !hash[i] == !hash[i + run]; run++)
			;
		if (hash[i])
			r = place(block, first + i, run, rs.fault_pages + i * WIRE_PAGE, e);
	}
	return r;
}

static void on_touch(void *opaque, uint64_t address)
{
	struct err e = ERR_INIT;
	unsigned i = 0;
	uint64_t page;
	int r;

	while (i < session.n_blocks && address - (uintptr_t)session.block[i].v.host >= session.block[i].v.size)
		i++;
	if (i == session.n_blocks)
		return;
	page = (address - (uintptr_t)session.block[i].v.host) / WIRE_PAGE;
	r = bring(i, page, rs.im->block[i].first_leaf + (uint32_t)(page / LEAF_PAGES), &e);
	if (r) {
		went_wrong(r, &e);
		poison(i, page);
	}
}

static void *fault_loop(void *arg)
{
	faults_serve(rs.uffd, rs.quit_fd[0], on_touch, NULL);
	return NULL;
}

static int begin_lazy(struct err *e)
{
	int r = 0;

	for (unsigned i = 0; !r && i < session.n_blocks; i++) {
		struct uffdio_register reg = {
			.range = {.start = (uintptr_t)session.block[i].v.host, .len = session.block[i].v.size},
			.mode = UFFDIO_REGISTER_MODE_MISSING};

		machine_hold_discards(session.board, true);
		if (ioctl(rs.uffd, UFFDIO_REGISTER, &reg))
			r = err_errno(e, errno, "memory block '%s' cannot be filled on demand", session.block[i].name);
		rs.registered = true;
	}
	rs.fault_leaf = UINT32_MAX;
	if (!r)
		r = session_thread(&rs.fault_thread, "migrate/faults", fault_loop, NULL, e);
	rs.fault_runs = !r;
	return r;
}

static void end_lazy(void)
{
	for (unsigned i = 0; rs.registered && i < session.n_blocks; i++) {
		struct uffdio_range range = {.start = (uintptr_t)session.block[i].v.host,
					     .len = session.block[i].v.size};

		ioctl(rs.uffd, UFFDIO_UNREGISTER, &range);
	}
	if (rs.registered)
		machine_hold_discards(session.board, false);
	rs.registered = false;
	if (rs.fault_runs) {
		if (write(rs.quit_fd[1], "", 1) < 0) {
			/* the thread has ended by itself */
		}
		pthread_join(rs.fault_thread, NULL);
	}
	rs.fault_runs = false;
}

/* ---- on the main thread ---- */

/* Does it fit the machine? Then its memory is emptied (of firmware and the like), or replaced. What was reserved and is
 * empty stays, unless pages are to come when they are missed. */
static void prepare(struct main_call *c)
{
	int r = 0;

	/* A machine built from this description may differ where the operator said so (a template's clone: -set,
	 * -uuid), but not in what this host's processors lack. */
	r = (machine_config(session.board)->described ? machine_check_processors : machine_check_description)(
		session.board, rs.im->description, rs.im->description_len, &c->err);
	if (!r)
		r = check_layout(rs.im->layout, rs.im->layout_len, &c->err);
	if (!r)
		r = check_drives(rs.im->drives, rs.im->drives_len, &c->err);
	if (!r && rs.im->n_blocks != session.n_blocks)
		r = err_set(&c->err, EBADMSG, "%s is damaged: it has %u memory blocks", rs.im->path, rs.im->n_blocks);
	for (unsigned i = 0; !r && i < session.n_blocks; i++) {
		struct mig_block *b = &session.block[i];

		if (rs.map == MAP_COPY_ON_WRITE && b->v.main)
			r = machine_ram_map_private(session.board, b->name, rs.im->fd, rs.im->block[i].offset, &c->err);
		else if (!(rs.map == MAP_EAGER && machine_ram_take_untouched(session.board, i)) &&
			 fallocate(b->v.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)b->v.size))
			r = err_errno(&c->err, errno, "cannot empty memory block '%s'", b->name);
	}
	main_call_done(c, r);
}

static void complete(void *opaque)
{
	(void)opaque;
	session.running = false;
	pthread_mutex_lock(&session.lock);
	session_free_blocks();
	session.info.total_time_ms = (mono_ns() - session.start_ns) / 1000000;
	pthread_mutex_unlock(&session.lock);
	session_status(MIGRATION_COMPLETED);
}

static void announce(void *opaque)
{
	(void)opaque;
	destination_over();
	migration_announce((uint32_t)session.params.announce_initial, (uint32_t)session.params.announce_max,
			   (uint32_t)session.params.announce_rounds, (uint32_t)session.params.announce_step);
}

static void fail(const struct err *e)
{
	pthread_mutex_lock(&session.lock);
	session.err = *e;
	pthread_mutex_unlock(&session.lock);
	session_status(MIGRATION_FAILED);
}

static void refused(void *opaque)
{
	struct err *e = opaque;

	session.running = false;
	fail(e);
	machine_request_exit(session.board, 1);
	free(e);
}

/* The guest runs, and its memory turns out to be damaged. */
static void damaged(void *opaque)
{
	struct err *e = opaque;

	session.running = false;
	fail(e);
	machine_stop(session.board, RUN_INTERNAL_ERROR);
	free(e);
}

/* ---- the way of a restore ---- */

/* Blocks other than guest RAM are small: they are there before the guest runs, also with a private mapping. */
static int read_small_blocks(struct err *e)
{
	int r = 0;

	for (unsigned i = 0; !r && i < session.n_blocks; i++)
		for (uint64_t at = 0; !r && !session.block[i].v.main && at < rs.im->block[i].pages; at += LEAF_PAGES) {
			uint64_t hash[LEAF_PAGES], n = MIN((uint64_t)LEAF_PAGES, rs.im->block[i].pages - at);

			r = image_leaf(rs.im, rs.im->block[i].first_leaf + (uint32_t)(at / LEAF_PAGES), hash, e);
			if (!r)
				r = image_get(rs.im, i, at, n, hash, true, session.block[i].v.host + at * WIRE_PAGE, e);
		}
	return r;
}

static void reserve_again(void)
{
	for (unsigned i = 0; i < session.n_blocks; i++)
		if (session.block[i].v.reserved)
			ram_recv_populate(&session.block[i]);
}

static int bring_memory(struct err *e)
{
	switch (rs.map) {
	case MAP_LAZY:
		return begin_lazy(e);
	case MAP_COPY_ON_WRITE:
		return read_small_blocks(e);
	default:
		reserve_again();
		return read_all(e);
	}
}

static int run_guest(struct err *e)
{
	int r = image_state(rs.im, &rs.state, e);

	if (r)
		return r;
	session_status(MIGRATION_DEVICE);
	rs.sw = (struct switchover){.data = rs.state, .len = rs.im->state_len};
	snprintf(rs.sw.run_state, sizeof(rs.sw.run_state), "%s", rs.im->run_state);
	rs.sw.activate = !machine_config(session.board)->stopped || !cap_is_on(caps_now(), CAP_LATE_BLOCK_ACTIVATE);
	r = main_call(switchover_load, &rs.sw, e);
	if (!r)
		r = main_call(switchover_run, &rs.sw, e);
	if (!r)
		loop_post(loop_main(), NULL, announce, NULL);
	return r;
}

static void *restore_thread(void *arg)
{
	struct err e = ERR_INIT;
	bool runs = false;
	int r;

	(void)arg;
	session_confine();
	r = main_call(prepare, NULL, &e);
	if (!r) {
		session_status(MIGRATION_ACTIVE);
		r = bring_memory(&e);
	}
	if (!r)
		r = run_guest(&e);
	runs = !r;
	if (!r && rs.map != MAP_EAGER) {
		session_status(MIGRATION_POSTCOPY_ACTIVE);
		/* The guest first: it has its own pages to wait for. One helper leaves it the other processors. */
		for (int ms = 0; ms < HEAD_START_MS && !stopped(); ms += 10)
			poll(NULL, 0, 10);
		rs.readers = 1;
		r = read_all(&e);
	}
	if (!r || !runs)
		end_lazy();
	free(rs.state);
	rs.state = NULL;
	if (stopped() && !what_went_wrong(NULL))
		return NULL; /* vmm ends */
	if (r) {
		log_error("migration", "%s", e.msg);
		loop_post(loop_main(), NULL, runs ? damaged : refused, xmemdup(&e, sizeof(e)));
	} else {
		loop_post(loop_main(), NULL, complete, NULL);
	}
	return NULL;
}

int restore_start(struct err *e)
{
	int r;

	rs.readers = (unsigned)MIN(MAX(sysconf(_SC_NPROCESSORS_ONLN), 1l), (long)MAX_READERS);
	if (rs.map < 0)
		rs.map = cap_is_on(caps_now(), CAP_MAPPED_RAM) ? MAP_LAZY : MAP_EAGER;
	if (rs.map == MAP_LAZY && (rs.uffd = faults_open(UFFD_FEATURE_MISSING_SHMEM)) < 0) {
		log_warn("migration",
			 "memory cannot come on demand (userfaultfd: %s): it is read before the guest runs",
			 strerror(-rs.uffd));
		rs.uffd = -1;
		rs.map = MAP_EAGER;
	}
	if (rs.uffd >= 0 && pipe2(rs.quit_fd, O_CLOEXEC))
		return err_errno(e, errno, "pipe");
	session.outgoing = false;
	session.running = true;
	session.caps = caps_now();
	session.start_ns = mono_ns();
	session_status(MIGRATION_SETUP);
	r = session_thread(&rs.thread, "migration", restore_thread, NULL, e);
	rs.thread_runs = !r;
	session.running = !r;
	return r;
}

void restore_stop(void)
{
	__atomic_store_n(&rs.quit, true, __ATOMIC_RELAXED);
	if (rs.thread_runs)
		pthread_join(rs.thread, NULL);
	rs.thread_runs = false;
	if (rs.registered) { /* the guest must not see empty pages where its memory has not come yet */
		if (machine_running(session.board))
			machine_stop(session.board, RUN_PAUSED);
		for (struct block *b = block_next(NULL); b; b = block_next(b))
			block_drain(b);
	}
	end_lazy();
	image_free(rs.im);
	rs.im = NULL;
	for (unsigned i = 0; i < 2; i++)
		if (rs.quit_fd[i] >= 0)
			close(rs.quit_fd[i]);
	if (rs.uffd >= 0)
		close(rs.uffd);
	rs.uffd = rs.quit_fd[0] = rs.quit_fd[1] = -1;
}
