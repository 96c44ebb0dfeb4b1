/*
 * virtio-balloon: VIRTIO 1.2 section 5.5. The guest gives pages to the balloon (inflate) and takes them back (deflate);
 * what lies in the balloon costs the host nothing: its memory is given back with a hole in the RAM file, and returns as
 * zeroes at the next touch.
 *
 * Queues: inflate, deflate, statistics and, with free-page-reporting=on, reporting. Linux numbers the queues that exist
 * without gaps, so reporting is queue 3. Left out: free page hints (VIRTIO_BALLOON_F_FREE_PAGE_HINT; nothing here would
 * use them) and MUST_TELL_HOST (a page may be used again without asking, as it simply comes back).
 *
 * Interrupts come by the pin, as with QEMU's, which has no MSI-X; vectors= adds it.
 *
 * The operator's target outlives a reset of the guest; what is in the balloon does not.
 */
#include "virtio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "vmm/balloon.h"

enum { F_STATS = 1, F_DEFLATE_ON_OOM = 2, F_PAGE_POISON = 4, F_REPORTING = 5 };
enum { Q_INFLATE, Q_DEFLATE, Q_STATS, Q_REPORTING, N_QUEUES };
enum { CONFIG_TARGET = 0, CONFIG_ACTUAL = 4, CONFIG_HINT_ID = 8, CONFIG_POISON = 12, CONFIG_SIZE = 16 };
#define BALLOON_PAGE 4096ull
#define PFN_SHIFT    12

/* Statistics (5.5.6.3): a tag and a value each, 10 bytes */
static const char *const stat_names[] = {
	"stat-swap-in",      "stat-swap-out",         "stat-major-faults", "stat-minor-faults", "stat-free-memory",
	"stat-total-memory", "stat-available-memory", "stat-disk-caches",  "stat-htlb-pgalloc", "stat-htlb-pgfail",
};
#define N_STATS   ARRAY_SIZE(stat_names)
#define STAT_SIZE 10

struct balloon {
	struct virtio v;
	struct virtq vq[N_QUEUES];
	bool deflate_on_oom, reporting, page_poison, page_hint;

	uint32_t target_pages; /* the driver shall put so many into the balloon */
	uint32_t actual_pages; /* it says there are */
	uint32_t told_pages;   /* the operator was told of so many */
	uint32_t poison;       /* what the driver fills free pages with */

	uint64_t stats[N_STATS]; /* UINT64_MAX: not told */
	uint64_t stats_time;     /* host's seconds, 0: never */
	uint32_t poll_s;         /* 0: no polling */
	struct timer poll;
	struct virtq_elem *stats_elem; /* the driver's buffer, kept until it shall fill it again */
};

static struct balloon *balloon_of(struct virtio *v)
{
	return container_of(v, struct balloon, v);
}

/* ---- giving memory back ---- */

/* Page numbers mostly come in rows, upwards or downwards: one hole for a row. */
struct row {
	uint64_t first, end;
};

static void discard(struct balloon *s, uint64_t addr, uint64_t len)
{
	if (dma_discard(&s->v.dev, addr, len))
		log_guest(&s->v.dev.guest_log, "virtio", "%s: 0x%llx of the balloon is not RAM", s->v.dev.id,
			  (unsigned long long)addr);
}

static void row_end(struct balloon *s, struct row *row)
{
	if (row->end > row->first)
		discard(s, row->first << PFN_SHIFT, (row->end - row->first) << PFN_SHIFT);
	*row = (struct row){0};
}

static void row_add(struct balloon *s, struct row *row, uint32_t pfn)
{
	if (row->end == row->first) {
		*row = (struct row){pfn, (uint64_t)pfn + 1};
	} else if (pfn == row->end) {
		row->end++;
	} else if ((uint64_t)pfn + 1 == row->first) {
		row->first--;
	} else {
		row_end(s, row);
		*row = (struct row){pfn, (uint64_t)pfn + 1};
	}
}

static void inflate_chain(struct balloon *s, const struct virtq_elem *el)
{
	struct row row = {0};
	uint8_t pfns[1024];
	size_t offset = 0, n;

	/* A list longer than all of RAM repeats itself. */
	while (offset < 4 * (board_ram_below_4g(s->v.dev.board) + board_ram_above_4g(s->v.dev.board)) / BALLOON_PAGE &&
	       (n = virtq_read(el, offset, pfns, sizeof(pfns))) >= 4) {
		for (size_t i = 0; i + 4 <= n; i += 4)
			row_add(s, &row, get_le32(pfns + i));
		offset += n & ~(size_t)3;
	}
	row_end(s, &row);
}

static void run_inflate(struct virtq *vq)
{
	struct virtq_elem *el;

	while ((el = virtq_pop(vq))) {
		inflate_chain(balloon_of(vq->v), el);
		virtq_push(el, 0);
	}
	virtq_notify(vq);
}

/* The pages come back when they are touched. */
static void run_deflate(struct virtq *vq)
{
	struct virtq_elem *el;

	while ((el = virtq_pop(vq)))
		virtq_push(el, 0);
	virtq_notify(vq);
}

/* 5.5.6.7: the buffers are the free pages themselves. A page has to come back as it was left or, when the driver fills
   free pages with something else than zeroes, with that: then nothing can be given back. */
static void run_reporting(struct virtq *vq)
{
	struct balloon *s = balloon_of(vq->v);
	struct virtq_elem *el;

	while ((el = virtq_pop(vq))) {
		for (unsigned i = 0; i < el->n_in && !s->poison; i++)
			discard(s, el->seg[el->n_out + i].addr, el->seg[el->n_out + i].len);
		virtq_push(el, 0);
	}
	virtq_notify(vq);
}

/* ---- statistics: the driver's one buffer goes back and forth ---- */

static void forget_stats(struct balloon *s)
{
	for (size_t i = 0; i < N_STATS; i++)
		s->stats[i] = UINT64_MAX;
}

static void poll_again(struct balloon *s)
{
	timer_arm(&s->poll, s->poll_s ? clock_ns(VCLOCK_VIRTUAL) + s->poll_s * NS_PER_SEC : TIMER_NEVER);
}

static void take_stats(struct balloon *s, const struct virtq_elem *el)
{
	uint8_t entry[STAT_SIZE];

	forget_stats(s);
	for (size_t i = 0; i < 4 * N_STATS && virtq_read(el, i * STAT_SIZE, entry, STAT_SIZE) == STAT_SIZE; i++)
		if (get_le16(entry) < N_STATS)
			s->stats[get_le16(entry)] = get_le64(entry + 2);
	s->stats_time = clock_ns(VCLOCK_HOST) / NS_PER_SEC;
}

static void run_stats(struct virtq *vq)
{
	struct balloon *s = balloon_of(vq->v);
	struct virtq_elem *el;

	while ((el = virtq_pop(vq))) {
		take_stats(s, el);
		if (s->stats_elem) /* one is all the driver may offer */
			virtq_push(s->stats_elem, 0);
		s->stats_elem = el;
		if (!timer_pending(&s->poll))
			poll_again(s);
	}
	virtq_notify(vq);
}

static void poll_stats(void *opaque)
{
	struct balloon *s = opaque;

	if (s->stats_elem && virtio_running(&s->v) && !s->v.paused) {
		virtq_push(s->stats_elem, 0);
		s->stats_elem = NULL;
		virtq_notify(&s->vq[Q_STATS]);
	}
	poll_again(s);
}

/* ---- the core's calls ---- */

static uint64_t features(const struct virtio *v)
{
	const struct balloon *s = container_of(v, struct balloon, v);

	return BIT64(F_STATS) | (s->deflate_on_oom ? BIT64(F_DEFLATE_ON_OOM) : 0) |
	       (s->page_poison ? BIT64(F_PAGE_POISON) : 0) | (s->reporting ? BIT64(F_REPORTING) : 0);
}

static void config_read(struct virtio *v, uint8_t *config)
{
	struct balloon *s = balloon_of(v);

	put_le32(config + CONFIG_TARGET, s->target_pages);
	put_le32(config + CONFIG_ACTUAL, s->actual_pages);
	put_le32(config + CONFIG_HINT_ID, 0);
	put_le32(config + CONFIG_POISON, s->poison);
}

static uint64_t ram_size(const struct balloon *s)
{
	return board_ram_below_4g(s->v.dev.board) + board_ram_above_4g(s->v.dev.board);
}

static uint64_t actual_bytes(const struct balloon *s)
{
	return ram_size(s) - MIN(ram_size(s), (uint64_t)s->actual_pages << PFN_SHIFT);
}

static void config_write(struct virtio *v, unsigned offset, uint32_t value, unsigned size)
{
	struct balloon *s = balloon_of(v);
	char data[64];

	/* Drivers of the time before 1.0 write byte by byte. */
	if (offset >= CONFIG_POISON) {
		uint8_t raw[4];

		put_le32(raw, s->poison);
		put_le(raw + (offset - CONFIG_POISON), value, size);
		if (virtio_has(v, F_PAGE_POISON))
			s->poison = get_le32(raw);
	} else if (offset >= CONFIG_ACTUAL && offset + size <= CONFIG_ACTUAL + 4) {
		uint8_t raw[4];

		put_le32(raw, s->actual_pages);
		put_le(raw + (offset - CONFIG_ACTUAL), value, size);
		s->actual_pages = get_le32(raw);
		if (s->actual_pages == s->told_pages || offset + size != CONFIG_ACTUAL + 4)
			return; /* nothing new, or the rest follows */
		s->told_pages = s->actual_pages;
		snprintf(data, sizeof(data), "{\"actual\": %llu}", (unsigned long long)actual_bytes(s));
		machine_event(v->dev.board, "BALLOON_CHANGE", data);
	}
}

static void reset(struct virtio *v)
{
	struct balloon *s = balloon_of(v);

	if (s->stats_elem)
		virtq_drop(s->stats_elem);
	s->stats_elem = NULL;
	s->actual_pages = s->told_pages = s->poison = 0;
	forget_stats(s);
}

static void pause_stats(struct virtio *v)
{
	struct balloon *s = balloon_of(v);

	if (s->stats_elem)
		virtq_unpop(s->stats_elem);
	s->stats_elem = NULL;
}

static const struct virtio_ops ops = {
	.id = VIRTIO_ID_BALLOON,
	.config_size = CONFIG_SIZE,
	.features = features,
	.config_read = config_read,
	.config_write = config_write,
	.reset = reset,
	.pause = pause_stats,
};

/* ---- the operator ---- */

static void set_target(struct device *dev, uint64_t bytes)
{
	struct balloon *s = DEVICE(dev, struct balloon);

	s->target_pages = (uint32_t)((ram_size(s) - bytes) >> PFN_SHIFT);
	virtio_config_changed(&s->v);
}

static uint64_t get_actual(struct device *dev)
{
	return actual_bytes(DEVICE(dev, struct balloon));
}

static const struct balloon_ops balloon_ops = {.set_target = set_target, .actual = get_actual};

/* QEMU shows a value that was not told as 2^64 - 1; JSON here has signed 64 bits: -1. */
static char *get_stats(struct device *dev)
{
	struct balloon *s = DEVICE(dev, struct balloon);
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return NULL;
	fprintf(out, "{\"stats\": {");
	for (size_t i = 0; i < N_STATS; i++)
		fprintf(out, "%s\"%s\": %lld", i ? ", " : "", stat_names[i], (long long)s->stats[i]);
	fprintf(out, "}, \"last-update\": %llu}", (unsigned long long)s->stats_time);
	fclose(out);
	return text;
}

static char *get_poll(struct device *dev)
{
	return xasprintf("%u", DEVICE(dev, struct balloon)->poll_s);
}

static int set_poll(struct device *dev, const char *json, struct err *e)
{
	struct balloon *s = DEVICE(dev, struct balloon);
	char *end;
	long long value = strtoll(json, &end, 10);

	if (*end || end == json)
		return err_set(e, EINVAL,
			       "Invalid parameter type for 'guest-stats-polling-interval', expected: integer");
	if (value < 0)
		return err_set(e, EINVAL, "timer value must be greater than zero");
	if (value > UINT32_MAX)
		return err_set(e, EINVAL, "timer value is too big");
	s->poll_s = (uint32_t)value;
	poll_again(s);
	return 0;
}

static const struct device_property properties[] = {
	{"guest-stats", "guest statistics", get_stats, NULL},
	{"guest-stats-polling-interval", "int", get_poll, set_poll},
	{NULL},
};

/* ---- the class ---- */

static int create(struct device *dev, struct err *e)
{
	struct balloon *s = DEVICE(dev, struct balloon);
	int r;

	if (s->page_hint)
		return err_set(e, ENOTSUP, "free-page-hint=on: hints are not offered, migration does not use them");
	r = machine_register_balloon(dev, &balloon_ops, e);
	if (r)
		return r;
	device_timer_init(dev, &s->poll, VCLOCK_VIRTUAL, poll_stats);
	virtio_init(&s->v, &ops, s->vq, s->reporting ? N_QUEUES : Q_REPORTING);
	virtq_init(&s->vq[Q_INFLATE], 128, run_inflate);
	virtq_init(&s->vq[Q_DEFLATE], 128, run_deflate);
	virtq_init(&s->vq[Q_STATS], 128, run_stats);
	if (s->reporting)
		virtq_init(&s->vq[Q_REPORTING], 32, run_reporting);
	forget_stats(s);
	r = virtio_pci_create(&s->v, e);
	if (r)
		machine_unregister_balloon(dev);
	return r;
}

static void destroy(struct device *dev)
{
	struct balloon *s = DEVICE(dev, struct balloon);

	timer_cancel(&s->poll);
	if (s->stats_elem)
		virtq_drop(s->stats_elem);
	machine_unregister_balloon(dev);
	virtio_destroy(&s->v);
}

static int post_load(void *obj, uint16_t version, struct err *e)
{
	struct balloon *s = obj;

	s->told_pages = s->actual_pages;
	return virtio_post_load(&s->v, e);
}

static const struct state_field fields[] = {
	VIRTIO_STATE(struct balloon),
	STATE_U(struct balloon, target_pages),
	STATE_U(struct balloon, actual_pages),
	STATE_U(struct balloon, poison),
	STATE_FIELDS_END,
};
static const struct state_table table = {
	.name = "virtio-balloon", .version = 1, .oldest = 1, .fields = fields, .post_load = post_load};

static const struct prop props[] = {
	PROP_NAMED(struct balloon, "deflate-on-oom", deflate_on_oom, PROP_BOOL,
		   .help = "let the guest take pages back when it runs out of memory"),
	PROP_NAMED(struct balloon, "free-page-reporting", reporting, PROP_BOOL,
		   .help = "take back memory that the guest reports free"),
	PROP_NAMED(struct balloon, "free-page-hint", page_hint, PROP_BOOL, .help = "hints for migration (only off)"),
	PROP_NAMED(struct balloon, "page-poison", page_poison, PROP_BOOL, .def = 1,
		   .help = "let the guest say what it fills free pages with"),
	VIRTIO_PROPS(struct balloon, 0),
	PROP_END,
};

static const struct pci_identity identity = VIRTIO_IDENTITY(0x1002, VIRTIO_ID_BALLOON, 0x00ff00);

DEVICE_CLASS(virtio_balloon) = {
	.name = "virtio-balloon-pci",
	.alias = "virtio-balloon-pci-transitional",
	.summary = "takes RAM from the guest and gives it back (virtio)",
	.category = "Misc",
	.size = sizeof(struct balloon),
	VIRTIO_CLASS(identity),
	.props = props,
	.properties = properties,
	.state = &table,
	.create = create,
	.destroy = destroy,
};
