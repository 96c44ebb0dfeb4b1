/* Drives: opening, requests and their completion, statistics, ownership. Media changes: media.c. */
#include "src/block/block_private.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "vmm/log.h"

static struct block *blocks; /* in order of opening; main thread */

static struct {
	pthread_mutex_t lock;
	struct block_req *head, **tail;
	struct bh bh;
	bool initialised;
} completions = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void (*event_fn)(void *opaque, const char *name, const char *data_json);
static void *event_opaque;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* ---- completion ---- */

/* As QEMU: a failed request is an error, not an operation, and its time counts only where asked for. */
static void account(struct block *b, const struct block_req *req)
{
	uint64_t now = now_ns(), ns = now - req->submit_ns;

	if (req->invalid) {
		__atomic_fetch_add(&b->stats.invalid[req->op], 1, __ATOMIC_RELAXED);
		if (b->opts.account_invalid)
			__atomic_store_n(&b->stats.last_access_ns, now, __ATOMIC_RELAXED);
		return;
	}
	if (req->ret) {
		__atomic_fetch_add(&b->stats.errors[req->op], 1, __ATOMIC_RELAXED);
	} else {
		__atomic_fetch_add(&b->stats.ops[req->op], 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&b->stats.bytes[req->op], req->len, __ATOMIC_RELAXED);
	}
	latency_account(b, req->op, ns);
	if (req->ret && !b->opts.account_failed)
		return;
	__atomic_fetch_add(&b->stats.time_ns[req->op], ns, __ATOMIC_RELAXED);
	__atomic_store_n(&b->stats.last_access_ns, now, __ATOMIC_RELAXED);
	if (ns > __atomic_load_n(&b->stats.max_ns[req->op], __ATOMIC_RELAXED))
		__atomic_store_n(&b->stats.max_ns[req->op], ns, __ATOMIC_RELAXED);
}

/* The operator wanted to know when the image is that full: once. */
static void check_threshold(struct block_node *n, uint64_t end)
{
	uint64_t threshold = __atomic_load_n(&n->write_threshold, __ATOMIC_ACQUIRE);
	char json[160];

	if (!threshold || end <= threshold ||
	    !__atomic_compare_exchange_n(&n->write_threshold, &threshold, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		return;
	snprintf(json, sizeof(json), "{\"node-name\": \"%s\", \"amount-exceeded\": %llu, \"write-threshold\": %llu}",
		 n->threshold_name, (unsigned long long)(end - threshold), (unsigned long long)threshold);
	block_emit("BLOCK_WRITE_THRESHOLD", json);
}

static void note_written(const struct block_req *req)
{
	uint64_t end = req->offset + req->len, old;

	if (!req->node || req->ret || (req->op != BLOCK_WRITE && req->op != BLOCK_WRITE_ZEROES))
		return;
	old = __atomic_load_n(&req->node->written_end, __ATOMIC_RELAXED);
	while (old < end && !__atomic_compare_exchange_n(&req->node->written_end, &old, end, true, __ATOMIC_RELAXED,
							 __ATOMIC_RELAXED))
		continue;
	check_threshold(req->node, end);
}

void block_req_finish(struct block_req *req, int ret)
{
	struct block *b = req->block;
	pthread_mutex_t *lock = req->lock;

	req->ret = ret;
	if (req->node && req->op != BLOCK_READ && req->op != BLOCK_FLUSH)
		__atomic_fetch_add(&req->node->write_gen, 1, __ATOMIC_ACQ_REL);
	if (b) {
		account(b, req);
		note_written(req);
		__atomic_fetch_sub(&b->inflight, 1, __ATOMIC_ACQ_REL);
	}
	if (lock)
		pthread_mutex_lock(lock);
	req->done(req, ret); /* req may be gone afterwards */
	if (lock)
		pthread_mutex_unlock(lock);
}

/* One at a time: done() may run the loop again (synchronous helpers). Bounded, so that others get their turn. */
static void run_completions(void *unused)
{
	for (int i = 0; i < 128; i++) {
		struct block_req *req;

		pthread_mutex_lock(&completions.lock);
		req = completions.head;
		if (req) {
			completions.head = req->next;
			if (!completions.head)
				completions.tail = &completions.head;
		}
		pthread_mutex_unlock(&completions.lock);
		if (!req)
			return;
		block_req_finish(req, req->ret);
	}
	bh_schedule(&completions.bh);
}

void completions_init(void)
{
	if (completions.initialised)
		return;
	completions.tail = &completions.head;
	bh_init(&completions.bh, loop_main(), NULL, run_completions, NULL);
	completions.initialised = true;
}

void block_req_complete(struct block_req *req, int ret)
{
	bool first;

	req->ret = ret;
	req->next = NULL;
	pthread_mutex_lock(&completions.lock);
	first = !completions.head;
	*completions.tail = req;
	completions.tail = &req->next;
	pthread_mutex_unlock(&completions.lock);
	if (first)
		bh_schedule(&completions.bh);
}

/* ---- submission ---- */

static int check_request(const struct block *b, const struct block_req *req)
{
	const struct block_node *root = b->root;

	if (!root)
		return -ENOMEDIUM;
	if (req->op == BLOCK_FLUSH)
		return 0;
	if ((root->readonly || !block_active()) && req->op != BLOCK_READ)
		return -EPERM;
	if (req->offset > root->size || req->len > root->size - req->offset)
		return -EIO;
	if ((req->op == BLOCK_READ || req->op == BLOCK_WRITE) && iov_bytes(req->iov, req->n_iov) != req->len)
		return -EINVAL;
	return 0;
}

void block_submit(struct block *b, struct block_req *req)
{
	int r = check_request(b, req);

	req->block = b;
	req->invalid = r != 0;
	req->node = NULL;
	req->submit_ns = now_ns();
	req->stable = req->op != BLOCK_READ && req->op != BLOCK_FLUSH && (req->fua || !b->write_cache) && b->root &&
		      !b->root->no_flush;
	__atomic_fetch_add(&b->inflight, 1, __ATOMIC_ACQ_REL);
	if (r || (req->op != BLOCK_FLUSH && !req->len))
		block_req_complete(req, r);
	else if (!throttle_hold(b, req))
		b->root->drv->submit(b->root, req);
}

void block_cancel(struct block *b, struct block_req *req)
{
	if (!throttle_cancel(b, req) && !pool_cancel(req) && !engine_aio.cancel(req))
		engine_io_uring.cancel(req);
}

struct sync_req {
	struct block_req req;
	bool done;
};

static void sync_done(struct block_req *req, int ret)
{
	container_of(req, struct sync_req, req)->done = true;
}

static int run_sync(struct block *b, enum block_op op, uint64_t offset, void *buf, size_t len)
{
	struct iovec iov = {buf, len};
	struct sync_req s = {
		.req = {.op = op, .offset = offset, .len = len, .iov = &iov, .n_iov = 1, .done = sync_done},
	};

	block_submit(b, &s.req);
	while (!s.done)
		loop_step(loop_main(), -1);
	return s.req.ret;
}

int block_pread(struct block *b, uint64_t offset, void *buf, size_t len)
{
	return run_sync(b, BLOCK_READ, offset, buf, len);
}

/* Layers above raw take whole sectors: fill up the first and the last one. */
int block_pwrite(struct block *b, uint64_t offset, const void *buf, size_t len)
{
	uint64_t start = ALIGN_DOWN(offset, 512ull), end = ALIGN_UP(offset + len, 512ull);
	uint8_t *whole;
	int r = 0;

	if (start == offset && end == offset + len)
		return run_sync(b, BLOCK_WRITE, offset, (void *)buf, len);
	whole = malloc(end - start);
	if (!whole)
		return -ENOMEM;
	r = block_pread(b, start, whole, end - start);
	if (!r) {
		memcpy(whole + (offset - start), buf, len);
		r = run_sync(b, BLOCK_WRITE, start, whole, end - start);
	}
	free(whole);
	return r;
}

int block_flush_sync(struct block *b)
{
	return run_sync(b, BLOCK_FLUSH, 0, NULL, 0);
}

int block_drain(struct block *b)
{
	throttle_release(b);
	while (block_inflight(b))
		loop_step(loop_main(), -1);
	return 0;
}

/* ---- properties ---- */

uint64_t block_size(const struct block *b)
{
	return b->root ? b->root->size : 0;
}

bool block_readonly(const struct block *b)
{
	return b->root ? b->root->readonly : b->opts.read_only == TRI_ON || b->opts.media == 1;
}

bool block_inserted(const struct block *b)
{
	return b->root;
}

const char *block_id(const struct block *b)
{
	return *b->id ? b->id : b->opts.node_name ? b->opts.node_name : "";
}

const char *block_filename(const struct block *b)
{
	return b->root ? b->root->filename : "";
}

bool block_is_cdrom(const struct block *b)
{
	return b->opts.media == 1;
}

uint32_t block_physical_sector(const struct block *b)
{
	return b->root ? b->root->physical_sector : 512;
}

bool block_write_cache(const struct block *b)
{
	return b->write_cache;
}

void block_set_write_cache(struct block *b, bool on)
{
	b->write_cache = on;
}

bool block_discard_enabled(const struct block *b)
{
	return b->root && b->root->unmap;
}

const char *block_serial(const struct block *b)
{
	return b->opts.serial;
}

unsigned block_inflight(const struct block *b)
{
	return __atomic_load_n(&b->inflight, __ATOMIC_ACQUIRE);
}

void block_get_stats(const struct block *b, struct block_stats *s)
{
	for (int i = 0; i < 5; i++) {
		s->ops[i] = __atomic_load_n(&b->stats.ops[i], __ATOMIC_RELAXED);
		s->bytes[i] = __atomic_load_n(&b->stats.bytes[i], __ATOMIC_RELAXED);
		s->errors[i] = __atomic_load_n(&b->stats.errors[i], __ATOMIC_RELAXED);
		s->invalid[i] = __atomic_load_n(&b->stats.invalid[i], __ATOMIC_RELAXED);
		s->time_ns[i] = __atomic_load_n(&b->stats.time_ns[i], __ATOMIC_RELAXED);
		s->max_ns[i] = __atomic_load_n(&b->stats.max_ns[i], __ATOMIC_RELAXED);
		for (int k = 0; k < BLOCK_LATENCY_BINS; k++)
			s->latency[i][k] = __atomic_load_n(&b->stats.latency[i][k], __ATOMIC_RELAXED);
	}
	s->last_access_ns = __atomic_load_n(&b->stats.last_access_ns, __ATOMIC_RELAXED);
	s->account_failed = b->opts.account_failed;
	s->account_invalid = b->opts.account_invalid;
}

struct block_place block_place(const struct block *b)
{
	return b->place;
}

void block_get_info(const struct block *b, struct block_info *info)
{
	const struct block_node *n = b->root, *bottom = n;
	bool snapshot = false;

	*info = (struct block_info){
		.node_name = "",
		.driver = "",
		.protocol = "",
		.filename = "",
		.detect_zeroes = options_detect_zeroes_name(b->opts.detect_zeroes),
		.aio = options_aio_name(b->opts.aio),
		.readonly = block_readonly(b),
		.writeback = b->write_cache,
		.is_drive = b->from_drive,
	};
	if (!n)
		return;
	info->node_name = n->name;
	info->filename = n->filename;
	info->size = n->size;
	snapshot = !strcmp(n->drv->name, "overlay");
	info->driver = snapshot ? n->file->drv->name : n->drv->name;
	while (bottom->file)
		bottom = bottom->file;
	info->protocol = bottom->drv->name;
	info->aio = options_aio_name(bottom->aio);
	info->detect_zeroes = options_detect_zeroes_name(bottom->detect_zeroes);
	info->direct = bottom->direct;
	info->no_flush = bottom->no_flush;
	info->snapshot = snapshot;
	info->parent_name = n->file ? n->file->name : NULL;
	info->written_end = __atomic_load_n(&bottom->written_end, __ATOMIC_RELAXED);
	info->write_threshold = __atomic_load_n(&bottom->write_threshold, __ATOMIC_RELAXED);
}

/* ---- errors and events ---- */

void block_set_event_handler(void (*fn)(void *opaque, const char *name, const char *data_json), void *opaque)
{
	event_fn = fn;
	event_opaque = opaque;
}

void block_emit(const char *name, const char *json)
{
	if (event_fn)
		event_fn(event_opaque, name, json);
}

enum block_on_error block_on_read_error(const struct block *b)
{
	return (enum block_on_error)b->opts.rerror;
}

enum block_on_error block_on_write_error(const struct block *b)
{
	return (enum block_on_error)b->opts.werror;
}

void block_set_on_error(struct block *b, enum block_on_error read, enum block_on_error write)
{
	b->opts.rerror = read;
	b->opts.werror = write;
}

enum block_error_action block_error_action(struct block *b, enum block_op op, int err_no)
{
	static const char *const names[] = {"report", "ignore", "stop"};
	enum block_on_error policy = op == BLOCK_READ ? block_on_read_error(b) : block_on_write_error(b);
	enum block_error_action action = BLOCK_ACTION_REPORT;
	char json[512];

	if (policy == BLOCK_ERR_IGNORE)
		action = BLOCK_ACTION_IGNORE;
	else if (policy == BLOCK_ERR_STOP || (policy == BLOCK_ERR_ENOSPC && err_no == ENOSPC))
		action = BLOCK_ACTION_STOP;
	if (action == BLOCK_ACTION_STOP)
		__atomic_store_n(&b->io_status, err_no == ENOSPC ? 2 : 1, __ATOMIC_RELAXED);
	snprintf(json, sizeof(json),
		 "{\"device\": \"%s\", \"node-name\": \"%s\", \"operation\": \"%s\", \"action\": \"%s\", "
		 "\"nospace\": %s, \"reason\": \"%s\"}",
		 b->id, b->root ? b->root->name : "", op == BLOCK_READ ? "read" : "write", names[action],
		 err_no == ENOSPC ? "true" : "false", strerror(err_no));
	block_emit("BLOCK_IO_ERROR", json);
	return action;
}

unsigned block_io_status(const struct block *b)
{
	return __atomic_load_n(&b->io_status, __ATOMIC_RELAXED);
}

void block_reset_io_status(void)
{
	for (struct block *b = blocks; b; b = b->next)
		__atomic_store_n(&b->io_status, 0, __ATOMIC_RELAXED);
}

/* ---- names, lists, owners ---- */

bool block_id_wellformed(const char *id)
{
	if (!isalpha((unsigned char)*id))
		return false;
	for (; *id; id++)
		if (!isalnum((unsigned char)*id) && !strchr("-._", *id))
			return false;
	return true;
}

struct block *block_next(struct block *prev)
{
	return prev ? prev->next : blocks;
}

struct block *block_find(const char *id)
{
	if (!*id)
		return NULL;
	for (struct block *b = blocks; b; b = b->next)
		if (!strcmp(b->id, id))
			return b;
	for (struct block *b = blocks; b; b = b->next)
		if (b->opts.node_name && !strcmp(b->opts.node_name, id))
			return b;
	return NULL;
}

int block_claim(struct block *b, const char *owner, struct err *e)
{
	if (b->owner || b->user)
		return err_set(e, EBUSY, "Drive '%s' is already in use by '%s'", block_id(b),
			       b->owner ? b->owner : b->user);
	b->owner = xstrdup(owner);
	return 0;
}

void block_release(struct block *b)
{
	if (!b)
		return;
	free(b->owner);
	b->owner = NULL;
	b->media = NULL;
	b->qdev_id[0] = '\0';
	if (b->anonymous)
		block_close(b);
}

const char *block_owner(const struct block *b)
{
	return b->owner;
}

/* ---- opening ---- */

static const int units_per_bus[] = {[BLOCK_IF_IDE] = 2, [BLOCK_IF_SCSI] = 7, [BLOCK_IF_XEN] = 0};
static const char *const if_prefix[] = {"none", "ide", "scsi", "floppy", "pflash", "mtd", "sd", "virtio", "xen"};

static bool place_taken(int interface, int bus, int unit)
{
	for (struct block *b = blocks; b; b = b->next)
		if (b->from_drive && b->place.interface == interface && b->place.bus == bus && b->place.unit == unit)
			return true;
	return false;
}

/* Bus and unit as QEMU derives them: from index, or bus and unit, or the first free unit. */
static int resolve_place(struct block *b, struct err *e)
{
	const struct block_opts *bo = &b->opts;
	int max = units_per_bus[bo->interface];
	int bus = MAX(bo->bus, 0), unit = bo->unit;

	if (bo->index >= 0) {
		if (bo->bus >= 0 || bo->unit >= 0)
			return err_set(e, EINVAL, "-drive: index cannot be used with bus and unit");
		bus = max ? bo->index / max : 0;
		unit = max ? bo->index % max : bo->index;
	}
	if (unit < 0) {
		for (unit = 0; place_taken(bo->interface, bus, unit); unit++)
			if (max && unit + 1 >= max) {
				unit = -1;
				bus++;
			}
	}
	if (max && unit >= max)
		return err_set(e, EINVAL, "-drive: unit %d too big (max is %d)", unit, max - 1);
	if (bo->interface != BLOCK_IF_NONE && place_taken(bo->interface, bus, unit))
		return err_set(e, EEXIST, "drive with bus=%d, unit=%d (index=%d) exists", bus, unit,
			       max ? bus * max + unit : unit);
	b->place = (struct block_place){.interface = bo->interface, .bus = bus, .unit = unit};
	return 0;
}

static int name_drive(struct block *b, struct err *e)
{
	const struct block_opts *bo = &b->opts;
	int max = units_per_bus[bo->interface];
	const char *media =
		bo->interface == BLOCK_IF_IDE || bo->interface == BLOCK_IF_SCSI ? (bo->media == 1 ? "-cd" : "-hd") : "";

	if (bo->id) {
		if (!block_id_wellformed(bo->id) || strlen(bo->id) >= sizeof(b->id))
			return err_set(e, EINVAL,
				       "-drive: id '%s': a letter, then letters, digits, '-', '.', '_' (at most 63)",
				       bo->id);
		snprintf(b->id, sizeof(b->id), "%s", bo->id);
	} else if (max) {
		snprintf(b->id, sizeof(b->id), "%s%d%s%d", if_prefix[bo->interface], b->place.bus, media,
			 b->place.unit);
	} else {
		snprintf(b->id, sizeof(b->id), "%s%s%d", if_prefix[bo->interface], media, b->place.unit);
	}
	if (block_find(b->id))
		return err_set(e, EEXIST, "Duplicate ID '%s' for drive", b->id);
	return 0;
}

static void free_block(struct block *b)
{
	latency_free(b);
	options_free(&b->opts);
	free(b->options);
	free(b->owner);
	free(b->user);
	free(b);
}

static void add_to_list(struct block *b)
{
	struct block **p = &blocks;

	while (*p)
		p = &(*p)->next;
	*p = b;
}

static int open_drive(struct block *b, struct opts *o, struct err *e)
{
	struct node_config c;
	int r = options_parse(&b->opts, o, true, e);

	b->from_drive = true;
	if (!r)
		r = resolve_place(b, e);
	if (!r)
		r = name_drive(b, e);
	if (!r)
		r = options_node_config(&b->opts, true, &c, e);
	if (r)
		return r;
	b->write_cache = options_writeback(&b->opts);
	r = block_set_limits(b, &b->opts.limits, b->opts.throttle_group, e);
	if (r)
		return r;
	if (!c.filename || !*c.filename)
		return 0; /* empty */
	b->root = node_open(&c, e);
	return b->root ? 0 : -1;
}

/* "file" names a node made before, which then belongs to this one. */
static int open_on_node(struct block *b, const struct node_config *c, struct err *e)
{
	struct block *below = block_find(b->opts.file);
	int r;

	if (!below || !below->root)
		return err_set(e, ENOENT, "Cannot find node '%s' for 'file' of '%s'", b->opts.file, b->opts.node_name);
	r = block_use_node(below, b->opts.node_name, e);
	if (r)
		return r;
	if (b->opts.read_only == TRI_OFF && below->root->readonly && !c->auto_readonly) {
		block_unuse_node(below);
		return err_set(e, EPERM, "Block node '%s' is read-only", b->opts.file);
	}
	b->root = raw_open(node_ref(below->root), b->opts.node_name, false, e);
	if (!b->root) {
		block_unuse_node(below);
		return -1;
	}
	b->root->readonly |= c->readonly;
	return 0;
}

static int open_blockdev(struct block *b, struct opts *o, struct err *e)
{
	struct node_config c;
	int r = options_parse(&b->opts, o, false, e);

	if (!r)
		r = options_node_config(&b->opts, false, &c, e);
	if (r)
		return r;
	if (block_find(b->opts.node_name))
		return err_set(e, EEXIST, "Duplicate nodes with node-name='%s'", b->opts.node_name);
	b->opts.account_invalid = b->opts.account_failed = true;
	b->write_cache = true;
	b->place.interface = BLOCK_IF_NONE;
	if (b->opts.file)
		return open_on_node(b, &c, e);
	if (c.format) {
		b->root = node_open(&c, e);
	} else {
		c.file_node_name = c.node_name;
		b->root = file_open(&c, e);
	}
	return b->root ? 0 : -1;
}

static struct block *open_any(struct opts *o, int (*how)(struct block *, struct opts *, struct err *), struct err *e)
{
	struct block *b = xzalloc(sizeof(*b));

	completions_init();
	if (how(b, o, e)) {
		free_block(b);
		return NULL;
	}
	b->options = opts_format(o);
	add_to_list(b);
	return b;
}

char *block_describe(const struct block *b, bool *drive)
{
	static const char *const places[] = {"index", "bus", "unit", "id"}, *const images[] = {"file", "file.filename"};
	struct opts o;
	char *text;

	*drive = b->from_drive;
	if (!b->options || opts_parse(&o, b->options, NULL, NULL))
		return NULL;
	if (b->from_drive) { /* with the place it was given, and the medium it has now */
		for (size_t i = 0; i < ARRAY_SIZE(places); i++)
			opts_del(&o, places[i]);
		for (size_t i = 0; i < ARRAY_SIZE(images); i++)
			opts_del(&o, images[i]);
		opts_set(&o, "id", b->id);
		if (b->place.interface != BLOCK_IF_NONE) {
			char number[16];

			snprintf(number, sizeof(number), "%d", b->place.bus);
			opts_set(&o, "bus", number);
			snprintf(number, sizeof(number), "%d", b->place.unit);
			opts_set(&o, "unit", number);
		}
		if (b->root)
			opts_set(&o, "file", block_filename(b));
	}
	text = opts_format(&o);
	opts_free(&o);
	return text;
}

struct block *block_open(struct opts *o, struct err *e)
{
	return open_any(o, open_drive, e);
}

struct block *block_open_blockdev(struct opts *o, struct err *e)
{
	return open_any(o, open_blockdev, e);
}

struct block *block_new_anonymous(const char *owner)
{
	struct block *b = xzalloc(sizeof(*b));

	completions_init();
	props_default(block_drive_props, &b->opts);
	b->anonymous = true;
	b->write_cache = true;
	b->place.interface = BLOCK_IF_NONE;
	b->owner = xstrdup(owner);
	add_to_list(b);
	return b;
}

struct block *block_open_empty_cdrom(const char *owner)
{
	struct block *b = block_new_anonymous(owner);

	b->anonymous = false; /* its device closes it */
	b->device_owned = true;
	b->opts.media = 1;
	return b;
}

void block_close(struct block *b)
{
	struct block **p;

	if (!b)
		return;
	block_drain(b);
	for (p = &blocks; *p != b; p = &(*p)->next)
		;
	*p = b->next;
	if (!b->from_drive && b->opts.file && b->opts.node_name) {
		struct block *below = block_find(b->opts.file);

		if (below && below->user && !strcmp(below->user, b->opts.node_name))
			block_unuse_node(below);
	}
	block_set_medium(b, NULL);
	block_forget_medium(b);
	node_unref(b->root);
	free_block(b);
}

void block_close_all(void)
{
	while (blocks)
		block_close(blocks);
	throttle_close_all();
	pool_shutdown();
	engine_aio.stop();
	engine_io_uring.stop();
	if (completions.initialised)
		bh_cancel(&completions.bh);
	completions.initialised = false; /* the next open may be on another main loop */
}
