/*
 * Post-copy at the destination, with userfaultfd(2) on guest RAM: whoever touches a page that is not there (a vCPU in
 * KVM, a device, the kernel on behalf of either) stops until it is. The fault thread asks the source for it; the
 * receiving thread puts what arrives in place with UFFDIO_COPY, which makes a page appear whole.
 *
 * A page that is a hole and not missing is zero at the source as well: the fault thread fills it at once. Neither
 * thread may touch guest RAM through its mapping. Blocks other than guest RAM came complete before the guest ran.
 */
#include "postcopy_destination.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "faults.h"
#include "ram_recv.h"
#include "vmm/bytes.h"
#include "vmm/log.h"

static struct {
	int uffd;
	int stop_fd;
	pthread_t thread;
	bool on;
	pthread_mutex_t lock;
	struct channel *channel;                                /* lock; NULL while the connection is broken */
	unsigned long *missing[MAX_BLOCKS], *asked[MAX_BLOCKS]; /* lock */
	uint64_t left;                                          /* atomic */
} post = {.uffd = -1, .stop_fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

bool postcopy_on(void)
{
	return post.on;
}

uint64_t postcopy_left(void)
{
	return __atomic_load_n(&post.left, __ATOMIC_RELAXED);
}

/* ---- the descriptor ---- */

bool postcopy_available(void)
{
	if (post.uffd >= 0)
		return true;
	post.uffd = faults_open(UFFD_FEATURE_MISSING_SHMEM);
	if (post.uffd < 0) {
		log_warn("migration",
			 "post-copy is not possible: userfaultfd: %s (vm.unprivileged_userfaultfd=1 allows it)",
			 strerror(-post.uffd));
		post.uffd = -1;
		return false;
	}
	if (post.stop_fd < 0)
		post.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return true;
}

static bool bit(const unsigned long *map, uint64_t n)
{
	return map[n / 64] >> n % 64 & 1;
}

/* ---- faults ---- */

static int fill_zero(uint8_t *host)
{
	struct uffdio_zeropage z = {.range = {.start = (uintptr_t)host, .len = WIRE_PAGE}};

	if (!ioctl(post.uffd, UFFDIO_ZEROPAGE, &z) || errno == EEXIST)
		return 0;
	return -errno;
}

static int request(struct channel *c, unsigned block, uint64_t page, struct err *e)
{
	uint8_t raw[14];

	put_le16(raw, (uint16_t)block);
	put_le64(raw + 2, page);
	put_le32(raw + 10, 1);
	return channel_put(c, WIRE_REQUEST, 0, raw, sizeof(raw), e);
}

/* post.lock is held. */
static void serve_fault(uint64_t address)
{
	struct err e = ERR_INIT;

	for (unsigned i = 0; i < session.n_blocks; i++) {
		struct mig_block *b = &session.block[i];
		uint64_t at = address - (uintptr_t)b->v.host, page = at / WIRE_PAGE;

		if (!post.missing[i] || address < (uintptr_t)b->v.host || at >= b->v.size)
			continue;
		if (!bit(post.missing[i], page)) {
			fill_zero(b->v.host + page * WIRE_PAGE);
		} else if (!bit(post.asked[i], page)) {
			post.asked[i][page / 64] |= 1ul << page % 64;
			/* A failure shows at the receiving end as well: it is asked again after the recovery. */
			if (post.channel && request(post.channel, i, page, &e))
				log_debug("migration", "request: %s", e.msg);
		}
		return;
	}
}

static void on_touch(void *opaque, uint64_t address)
{
	(void)opaque;
	pthread_mutex_lock(&post.lock);
	serve_fault(address);
	pthread_mutex_unlock(&post.lock);
}

static void *fault_thread(void *arg)
{
	faults_serve(post.uffd, post.stop_fd, on_touch, arg);
	return NULL;
}

/* ---- pages ---- */

int postcopy_place(unsigned block, uint64_t page, const uint8_t *data, uint32_t n, struct err *e)
{
	struct mig_block *b = &session.block[block];
	uint8_t *host = b->v.host + page * WIRE_PAGE;
	struct uffdio_copy c = {.dst = (uintptr_t)host, .src = (uintptr_t)data, .len = WIRE_PAGE};
	int r = 0;

	(void)n;
	if (!post.missing[block])
		return err_set(e, EBADMSG, "the stream is damaged: late pages of '%s'", b->name);
	pthread_mutex_lock(&post.lock);
	if (bit(post.missing[block], page)) {
		if (!data)
			r = fill_zero(host);
		else if (ioctl(post.uffd, UFFDIO_COPY, &c) && errno != EEXIST)
			r = -errno;
		if (!r) {
			post.missing[block][page / 64] &= ~(1ul << page % 64);
			__atomic_sub_fetch(&post.left, 1, __ATOMIC_RELAXED);
		}
	} /* else: it was asked for and pushed as well; the guest may have written to it since */
	pthread_mutex_unlock(&post.lock);
	return r ? err_errno(e, -r, "a page of '%s' cannot be put in place", b->name) : 0;
}

/* ---- begin ---- */

static int begin(struct err *e)
{
	int r;

	if (post.uffd < 0)
		return err_set(e, EBADMSG, "the stream wants post-copy, which was not offered");
	ram_recv_stop_helper();
	r = session_thread(&post.thread, "migrate/faults", fault_thread, NULL, e);
	post.on = !r;
	return r;
}

/* Who holds on to a huge page keeps it from being split: then its part is only zeroed, and nothing would be missed. */
static bool is_hole(int fd, off_t at, off_t len)
{
	off_t data = lseek(fd, at, SEEK_DATA);

	return data < 0 ? errno == ENXIO : data >= at + len;
}

int postcopy_missing(struct channel *c, const uint8_t *payload, size_t len, struct err *e)
{
	struct uffdio_register reg;
	struct wire_run_reader rd;
	uint64_t first, count;
	struct mig_block *b;
	unsigned block;
	int r;

	if (len < 2 || (block = get_le16(payload)) >= session.n_blocks || !session.block[block].v.main ||
	    post.missing[block])
		return err_set(e, EBADMSG, "the stream is damaged: missing pages of an unknown memory block");
	b = &session.block[block];
	if (!post.on && (r = begin(e)) != 0)
		return r;
	pthread_mutex_lock(&post.lock); /* the fault thread serves another block already */
	post.channel = c;
	post.asked[block] = calloc(b->pages / 64 + 1, sizeof(unsigned long));
	post.missing[block] = calloc(b->pages / 64 + 1, sizeof(unsigned long));
	r = post.asked[block] && post.missing[block] ? 0 : err_errno(e, ENOMEM, "page bitmap of '%s'", b->name);
	pthread_mutex_unlock(&post.lock);
	if (r)
		return r;
	rd = (struct wire_run_reader){.p = payload + 2, .end = payload + len, .limit = b->pages};
	while ((r = wire_runs_next(&rd, &first, &count, e)) > 0) {
		if (fallocate(b->v.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(first * WIRE_PAGE),
			      (off_t)(count * WIRE_PAGE)))
			return err_errno(e, errno, "cannot empty memory block '%s'", b->name);
		if (!is_hole(b->v.fd, (off_t)(first * WIRE_PAGE), (off_t)(count * WIRE_PAGE)))
			return err_set(e, EBUSY, "cannot empty memory block '%s': a huge page stays in one piece",
				       b->name);
		__atomic_add_fetch(&post.left, count, __ATOMIC_RELAXED);
		ram_recv_forget(block, first, count);
		pthread_mutex_lock(&post.lock); /* nothing faults before UFFDIO_REGISTER, but that is no order that a
						   compiler knows */
		for (; count; first++, count--)
			post.missing[block][first / 64] |= 1ul << first % 64;
		pthread_mutex_unlock(&post.lock);
	}
	if (r)
		return r;
	reg = (struct uffdio_register){.range = {.start = (uintptr_t)b->v.host, .len = b->v.size},
				       .mode = UFFDIO_REGISTER_MODE_MISSING};
	machine_hold_discards(session.board, true);
	if (ioctl(post.uffd, UFFDIO_REGISTER, &reg))
		return err_errno(e, errno, "userfaultfd does not take memory block '%s'", b->name);
	ram_recv_place = postcopy_place;
	return 0;
}

/* ---- broken connections ---- */

void postcopy_detach(void)
{
	pthread_mutex_lock(&post.lock);
	post.channel = NULL;
	pthread_mutex_unlock(&post.lock);
}

int postcopy_reattach(struct channel *c, struct err *e)
{
	int r = 0;

	pthread_mutex_lock(&post.lock);
	for (unsigned i = 0; !r && i < session.n_blocks; i++) {
		struct wire_runs w = {0};
		uint8_t *payload;

		if (!post.missing[i])
			continue;
		wire_runs_add_bitmap(&w, post.missing[i], session.block[i].pages);
		payload = xzalloc(w.len + 2);
		put_le16(payload, (uint16_t)i);
		if (w.len)
			memcpy(payload + 2, w.data, w.len);
		r = channel_put(c, WIRE_HAVE, 0, payload, (uint32_t)w.len + 2, e);
		free(payload);
		free(w.data);
	}
	if (!r)
		r = channel_put(c, WIRE_BEGIN, 0, NULL, 0, e);
	for (unsigned i = 0; !r && i < session.n_blocks; i++)
		for (uint64_t page = 0; !r && post.missing[i] && page < session.block[i].pages; page++)
			if (bit(post.missing[i], page) && bit(post.asked[i], page))
				r = request(c, i, page, e);
	if (!r)
		post.channel = c;
	pthread_mutex_unlock(&post.lock);
	return r;
}

/* ---- the end ---- */

void postcopy_end(void)
{
	const uint64_t one = 1;

	if (post.on) {
		machine_hold_discards(session.board, false);
		for (unsigned i = 0; i < session.n_blocks; i++) {
			struct uffdio_range range = {.start = (uintptr_t)session.block[i].v.host,
						     .len = session.block[i].v.size};

			if (post.missing[i])
				ioctl(post.uffd, UFFDIO_UNREGISTER, &range);
		}
		if (write(post.stop_fd, &one, sizeof(one)) < 0)
			log_warn("migration", "post-copy: the fault thread cannot be told to end");
		pthread_join(post.thread, NULL);
	}
	if (post.stop_fd >= 0)
		close(post.stop_fd);
	post.stop_fd = -1;
	if (post.uffd >= 0)
		close(post.uffd);
	for (unsigned i = 0; i < MAX_BLOCKS; i++) {
		free(post.missing[i]);
		free(post.asked[i]);
		post.missing[i] = post.asked[i] = NULL;
	}
	post.uffd = -1;
	post.on = false;
	post.channel = NULL;
	post.left = 0;
}
