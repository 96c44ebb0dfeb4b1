/* Active and inactive images: see vmm/block.h. The locks of lock.c decide who may write; this file takes and drops them
 * together. */
#include "src/block/block_private.h"

static bool inactive;

void block_start_inactive(void)
{
	inactive = true;
}

bool block_active(void)
{
	return !inactive;
}

void block_inactivate_all(void)
{
	inactive = true;
	for (struct block_node *n = node_next(NULL); n; n = node_next(n))
		if (n->drv->inactivate)
			n->drv->inactivate(n);
}

int block_activate_all(struct err *e)
{
	int r = 0;

	if (!inactive)
		return 0;
	inactive = false; /* from here on locks are taken */
	for (struct block_node *n = node_next(NULL); !r && n; n = node_next(n))
		if (n->drv->activate)
			r = n->drv->activate(n, e);
	if (r)
		block_inactivate_all();
	return r;
}

void block_mark_all(uint64_t mark, bool on)
{
	for (struct block_node *n = node_next(NULL); n; n = node_next(n))
		if (n->drv->mark)
			n->drv->mark(n, mark, on);
}

int block_check_locks(uint64_t mark, struct err *e)
{
	int r = 0;

	for (struct block_node *n = node_next(NULL); inactive && !r && n; n = node_next(n))
		if (n->drv->check_lock)
			r = n->drv->check_lock(n, mark, e);
	return r;
}
