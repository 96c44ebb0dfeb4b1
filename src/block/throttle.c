/*
 * I/O limits: leaky buckets for bytes and operations, in total or by direction, with bursts; the numbers mean what they
 * mean in QEMU (docs/throttle.txt there). A request that has to wait stays here, in order, and is passed on by a timer
 * of the main loop. Drives may share one group's buckets.
 *
 * A bucket holds what was done and has not yet "leaked" at the average rate. Without a burst rate it may hold a tenth
 * of a second's worth; with one, burst rate times burst length, and within that never more than the burst rate's own
 * tenth of a second.
 */
#include "src/block/block_private.h"

#include <errno.h>
#include <stdlib.h>

#define LIMIT_MAX 1000000000000000ull

struct bucket {
	double level, burst_level;
};

struct throttle_group {
	char *name;
	pthread_mutex_t lock;
	struct block_limits limits;
	struct bucket bucket[BLOCK_LIMIT_KINDS];
	uint64_t leaked_ns;
	bool enabled;                         /* atomic for those who look without the lock */
	struct block_req *head[2], **tail[2]; /* reads, writes */
	struct timer timer;
	struct throttle_group *next;
};

static struct throttle_group *groups; /* main thread; they stay until block_close_all() */

/* ---- the buckets; group locked ---- */

static bool is_write(const struct block_req *req)
{
	return req->op != BLOCK_READ;
}

/* The four kinds a request counts in. */
static const uint8_t kinds[2][4] = {{BLOCK_BPS, BLOCK_BPS_RD, BLOCK_IOPS, BLOCK_IOPS_RD},
				    {BLOCK_BPS, BLOCK_BPS_WR, BLOCK_IOPS, BLOCK_IOPS_WR}};

static void leak(struct throttle_group *g)
{
	uint64_t now = clock_ns(VCLOCK_REAL);
	double seconds = (double)(now - g->leaked_ns) / NS_PER_SEC;

	g->leaked_ns = now;
	for (unsigned k = 0; k < BLOCK_LIMIT_KINDS; k++) {
		g->bucket[k].level = MAX(0.0, g->bucket[k].level - (double)g->limits.avg[k] * seconds);
		g->bucket[k].burst_level = MAX(0.0, g->bucket[k].burst_level - (double)g->limits.max[k] * seconds);
	}
}

/* Seconds until bucket k takes something again. */
static double bucket_wait(const struct throttle_group *g, unsigned k)
{
	double avg = (double)g->limits.avg[k], max = (double)g->limits.max[k], extra;

	if (avg == 0)
		return 0;
	extra = g->bucket[k].level - (max > 0 ? max * (double)g->limits.max_length[k] : avg / 10);
	if (extra > 0)
		return extra / avg;
	extra = g->limits.max_length[k] > 1 ? g->bucket[k].burst_level - max / 10 : 0;
	return extra > 0 ? extra / max : 0;
}

static double direction_wait(const struct throttle_group *g, bool write)
{
	double wait = 0;

	for (size_t i = 0; i < 4; i++)
		wait = MAX(wait, bucket_wait(g, kinds[write][i]));
	return wait;
}

static void count(struct throttle_group *g, const struct block_req *req)
{
	uint64_t size = g->limits.iops_size;
	double ops = size && req->len > size ? (double)req->len / (double)size : 1;

	for (size_t i = 0; i < 4; i++) {
		struct bucket *b = &g->bucket[kinds[is_write(req)][i]];
		double amount = i < 2 ? (double)req->len : ops;

		b->level += amount;
		b->burst_level += amount;
	}
}

static void arm(struct throttle_group *g)
{
	uint64_t deadline = TIMER_NEVER;

	for (unsigned w = 0; w < 2; w++)
		if (g->head[w])
			deadline = MIN(deadline, g->leaked_ns + 1000 + (uint64_t)(direction_wait(g, w) * NS_PER_SEC));
	timer_arm(&g->timer, deadline);
}

/* ---- requests ---- */

static void pass_on(struct block_req *req)
{
	struct block_node *root = req->block->root;

	if (root)
		root->drv->submit(root, req);
	else
		block_req_complete(req, -ENOMEDIUM);
}

static void pass_on_list(struct block_req *list)
{
	while (list) {
		struct block_req *req = list;

		list = req->next;
		pass_on(req);
	}
}

static struct block_req *pop(struct throttle_group *g, unsigned w)
{
	struct block_req *req = g->head[w];

	g->head[w] = req->next;
	if (!g->head[w])
		g->tail[w] = &g->head[w];
	return req;
}

/* Main loop, group locked. */
static void on_timer(void *opaque)
{
	struct throttle_group *g = opaque;
	struct block_req *out = NULL, **tail = &out;

	leak(g);
	for (unsigned w = 0; w < 2; w++)
		while (g->head[w] && direction_wait(g, w) <= 0) {
			struct block_req *req = pop(g, w);

			count(g, req);
			req->next = NULL;
			*tail = req;
			tail = &req->next;
		}
	arm(g);
	pass_on_list(out);
}

bool throttle_hold(struct block *b, struct block_req *req)
{
	struct throttle_group *g = __atomic_load_n(&b->throttle, __ATOMIC_ACQUIRE);
	unsigned w = is_write(req);
	bool hold;

	if (!g || req->op == BLOCK_FLUSH || !__atomic_load_n(&g->enabled, __ATOMIC_ACQUIRE))
		return false;
	pthread_mutex_lock(&g->lock);
	leak(g);
	hold = g->head[w] || direction_wait(g, w) > 0;
	if (hold) {
		req->next = NULL;
		*g->tail[w] = req;
		g->tail[w] = &req->next;
		arm(g);
	} else {
		count(g, req);
	}
	pthread_mutex_unlock(&g->lock);
	return hold;
}

/* Take out of g what belongs to b (NULL: everything), in order. */
static struct block_req *take(struct throttle_group *g, const struct block *b, const struct block_req *only)
{
	struct block_req *out = NULL, **tail = &out;

	pthread_mutex_lock(&g->lock);
	for (unsigned w = 0; w < 2; w++) {
		struct block_req **p = &g->head[w];

		while (*p) {
			struct block_req *req = *p;

			if (only ? req != only : b && req->block != b) {
				p = &req->next;
				continue;
			}
			*p = req->next;
			req->next = NULL;
			*tail = req;
			tail = &req->next;
		}
		g->tail[w] = p;
	}
	pthread_mutex_unlock(&g->lock);
	return out;
}

void throttle_release(const struct block *b)
{
	for (struct throttle_group *g = groups; g; g = g->next)
		pass_on_list(take(g, b, NULL));
}

void block_release_throttled(void)
{
	throttle_release(NULL);
}

bool throttle_cancel(struct block *b, struct block_req *req)
{
	struct throttle_group *g = __atomic_load_n(&b->throttle, __ATOMIC_ACQUIRE);
	bool found = g && take(g, NULL, req);

	if (found)
		block_req_complete(req, -ECANCELED);
	return found;
}

/* ---- setting ---- */

static int check_limits(const struct block_limits *l, struct err *e)
{
	static const uint8_t totals[2][3] = {{BLOCK_BPS, BLOCK_BPS_RD, BLOCK_BPS_WR},
					     {BLOCK_IOPS, BLOCK_IOPS_RD, BLOCK_IOPS_WR}};
	bool iops = l->avg[BLOCK_IOPS] || l->avg[BLOCK_IOPS_RD] || l->avg[BLOCK_IOPS_WR];

	for (size_t i = 0; i < 2; i++) {
		const uint8_t *k = totals[i];

		if ((l->avg[k[0]] && (l->avg[k[1]] || l->avg[k[2]])) ||
		    (l->max[k[0]] && (l->max[k[1]] || l->max[k[2]])))
			return err_set(
				e, EINVAL,
				"bps/iops/max total values and read/write values cannot be used at the same time");
	}
	if (l->iops_size && !iops)
		return err_set(e, EINVAL, "iops size requires an iops value to be set");
	for (unsigned k = 0; k < BLOCK_LIMIT_KINDS; k++) {
		if (l->avg[k] > LIMIT_MAX || l->max[k] > LIMIT_MAX)
			return err_set(e, EINVAL, "bps/iops/max values must be within [0, %llu]", LIMIT_MAX);
		if (!l->max_length[k])
			return err_set(e, EINVAL, "the burst length cannot be 0");
		if (l->max_length[k] > 1 && !l->max[k])
			return err_set(e, EINVAL, "burst length set without burst rate");
		if (l->max[k] && !l->avg[k])
			return err_set(e, EINVAL, "bps_max/iops_max require corresponding bps/iops values");
		if (l->max[k] && l->max[k] < l->avg[k])
			return err_set(e, EINVAL, "bps_max/iops_max cannot be lower than bps/iops");
		if (l->max[k] && l->max_length[k] > LIMIT_MAX / l->max[k])
			return err_set(e, EINVAL, "burst length too high for this burst rate");
	}
	return 0;
}

static struct throttle_group *get_group(const char *name)
{
	struct throttle_group *g = groups;

	while (g && strcmp(g->name, name))
		g = g->next;
	if (g)
		return g;
	g = xzalloc(sizeof(*g));
	g->name = xstrdup(name);
	pthread_mutex_init(&g->lock, NULL);
	for (unsigned w = 0; w < 2; w++)
		g->tail[w] = &g->head[w];
	for (unsigned k = 0; k < BLOCK_LIMIT_KINDS; k++)
		g->limits.max_length[k] = 1;
	g->leaked_ns = clock_ns(VCLOCK_REAL);
	timer_init(&g->timer, loop_main(), VCLOCK_REAL, &g->lock, on_timer, g);
	g->next = groups;
	groups = g;
	return g;
}

bool block_limits_any(const struct block_limits *l)
{
	bool any = false;

	for (unsigned k = 0; k < BLOCK_LIMIT_KINDS; k++)
		any |= l->avg[k] != 0;
	return any;
}

int block_set_limits(struct block *b, const struct block_limits *l, const char *group, struct err *e)
{
	struct throttle_group *g, *old = b->throttle;
	const char *own = *b->id ? b->id : b->owner ? b->owner : block_id(b);
	int r = check_limits(l, e);

	if (r)
		return r;
	if (!group && !old && !block_limits_any(l))
		return 0;
	g = get_group(group ? group : old ? old->name : own);
	pthread_mutex_lock(&g->lock);
	leak(g);
	g->limits = *l;
	memset(g->bucket, 0, sizeof(g->bucket));
	__atomic_store_n(&g->enabled, block_limits_any(l), __ATOMIC_RELEASE);
	arm(g);
	pthread_mutex_unlock(&g->lock);
	__atomic_store_n(&b->throttle, g, __ATOMIC_RELEASE);
	if (old && old != g)
		pass_on_list(take(old, b, NULL));
	if (!g->enabled)
		pass_on_list(take(g, NULL, NULL));
	return 0;
}

const struct block_limits *block_get_limits(const struct block *b, const char **group)
{
	if (group)
		*group = b->throttle && b->throttle->enabled ? b->throttle->name : NULL;
	return b->throttle ? &b->throttle->limits : NULL;
}

void throttle_close_all(void)
{
	while (groups) {
		struct throttle_group *g = groups;

		groups = g->next;
		pthread_mutex_lock(&g->lock);
		timer_cancel(&g->timer);
		pthread_mutex_unlock(&g->lock);
		pthread_mutex_destroy(&g->lock);
		free(g->name);
		free(g);
	}
}
