/*
 * blockdev-reopen: other options for nodes that stay open: read-only or not, the host's page cache, the engine. Which
 * file it is and how it is locked cannot change. A format node on a node of its own name has nothing but read-only to
 * change.
 */
#include "src/block/block_private.h"

#include <errno.h>
#include <stdlib.h>

static bool is_above(const struct block_node *top, const struct block_node *n)
{
	while (top && top != n)
		top = top->file;
	return top;
}

static void drain_users(const struct block_node *n)
{
	for (struct block *b = block_next(NULL); b; b = block_next(b))
		if (is_above(b->root, n))
			block_drain(b);
}

/* A device writes to it, or may. Drives with a tray never do. */
static bool has_writer(const struct block_node *n)
{
	for (struct block *b = block_next(NULL); b; b = block_next(b))
		if (b->owner && is_above(b->root, n) && !block_readonly(b) && !block_has_tray(b))
			return true;
	return false;
}

static int check_writers(const struct block_node *n, bool readonly, struct err *e)
{
	if (!readonly || n->readonly || !has_writer(n))
		return 0;
	return err_set(e, EPERM, "Read-only block node '%s' cannot support read-write users", n->name);
}

/* opts_get() would take it from those that options_parse() sees. */
static const char *value_of(const struct opts *o, const char *key)
{
	const char *value = NULL;

	for (size_t i = 0; i < o->n; i++)
		if (!strcmp(o->v[i].key, key))
			value = o->v[i].value;
	return value;
}

static struct block *find_node(struct opts *o, struct err *e)
{
	const char *name = value_of(o, "node-name");
	struct block *b = name ? block_find(name) : NULL;

	if (!name)
		err_set(e, EINVAL, "node-name not specified");
	else if (!b && !node_find(name))
		err_set(e, ENOENT, "Failed to find node with node-name='%.200s'", name);
	else if (!b || !block_is_node(b) || strcmp(b->opts.node_name, name))
		err_set(e, EPERM, "Node '%s' is not owned by the monitor: only nodes of -blockdev can be reopened",
			name);
	else
		return b;
	return NULL;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static int check_same(const struct block_opts *was, const struct block_opts *is, struct err *e)
{
	const struct {
		const char *name;
		bool same;
	} fixed[] = {
		{"driver", same_text(was->driver, is->driver)},
		{"filename", same_text(was->filename, is->filename)},
		{"file", same_text(was->file, is->file)},
		{"file.driver", same_text(was->file_driver, is->file_driver)},
		{"file.filename", same_text(was->file_filename, is->file_filename)},
		{"file.node-name", same_text(was->file_node_name, is->file_node_name)},
		{"locking", was->locking == is->locking},
		{"file.locking", was->file_locking == is->file_locking},
		{"force-share", was->force_share == is->force_share},
	};

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (!fixed[i].same)
			return err_set(e, EINVAL, "Cannot change the option '%s'", fixed[i].name);
	return 0;
}

/* A format on a node of its own name, which decides whether writing is possible. */
static int reopen_on_node(struct block *b, const struct node_config *c, struct err *e)
{
	bool readonly = c->readonly || b->root->file->readonly;
	int r = check_writers(b->root, readonly, e);

	if (!r)
		b->root->readonly = readonly;
	return r;
}

static int reopen_file(struct block *b, const struct node_config *c, struct err *e)
{
	struct block_node *bottom = b->root;
	int r;

	while (bottom->file)
		bottom = bottom->file;
	if (!bottom->drv->reopen)
		return err_set(e, ENOTSUP, "Block format '%s' used by node '%s' does not support reopening files",
			       bottom->drv->name, bottom->name);
	r = check_writers(bottom, c->readonly, e);
	if (r)
		return r;
	drain_users(bottom);
	return bottom->drv->reopen(bottom, c, e);
}

/* A format node that says itself that it is for reading only. */
static bool wants_readonly(const struct block_node *n)
{
	for (struct block *b = block_next(NULL); b; b = block_next(b))
		if (b->root == n && block_is_node(b))
			return b->opts.read_only == TRI_ON;
	return false;
}

/* What the nodes above took over from it when they were opened. */
static void tell_above(const struct block_node *n)
{
	for (struct block_node *above = node_next(NULL); above; above = node_next(above)) {
		if (above->file != n)
			continue;
		above->readonly = n->readonly || wants_readonly(above);
		above->no_flush = n->no_flush;
		above->unmap = n->unmap;
		above->direct = n->direct;
		above->aio = n->aio;
		above->detect_zeroes = n->detect_zeroes;
		tell_above(above);
	}
}

static void take_options(struct block *b, struct block_opts *bo, struct opts *o)
{
	struct block_node *bottom = b->root;

	bo->account_invalid = b->opts.account_invalid;
	bo->account_failed = b->opts.account_failed;
	options_free(&b->opts);
	b->opts = *bo;
	free(b->options);
	b->options = opts_format(o);
	while (bottom->file)
		bottom = bottom->file;
	tell_above(b->opts.file ? b->root : bottom);
}

static int reopen_one(struct opts *o, struct err *e)
{
	struct block *b = find_node(o, e);
	struct block_opts bo = {0};
	struct node_config c;
	int r;

	if (!b)
		return e && e->code ? -e->code : -EINVAL;
	r = options_parse(&bo, o, false, e);
	if (r)
		return r;
	r = options_node_config(&bo, false, &c, e);
	if (!r)
		r = check_same(&b->opts, &bo, e);
	if (!r)
		r = bo.file ? reopen_on_node(b, &c, e) : reopen_file(b, &c, e);
	if (r)
		options_free(&bo);
	else
		take_options(b, &bo, o);
	return r;
}

/* The text that opens the node as it is now. */
static char *present_options(struct opts *o)
{
	const char *name = value_of(o, "node-name");
	const struct block *b = name ? block_find(name) : NULL;

	return b && b->options ? xstrdup(b->options) : NULL;
}

static void undo(char *options)
{
	struct err e = ERR_INIT;
	struct opts o = {0};

	if (options && !opts_parse(&o, options, NULL, &e))
		reopen_one(&o, &e); /* it was so a moment ago */
	opts_free(&o);
}

/* Protocols come first, whatever the order they were given in: formats above are no more writable than they. */
int block_reopen(struct opts *o, size_t n, struct err *e)
{
	char **was = xcalloc(n + 1, sizeof(*was));
	size_t done = 0;
	int r = 0;

	for (size_t i = 0; !r && i < 2 * n; i++) {
		struct opts *one = &o[i % n];

		if ((i < n) == (value_of(one, "file") != NULL))
			continue;
		was[done] = present_options(one);
		r = reopen_one(one, e);
		done += !r;
		if (r)
			free(was[done]);
	}
	for (size_t i = done; i-- > 0; free(was[i]))
		if (r)
			undo(was[i]);
	free(was);
	return r;
}
