/*
 * What the two ends compare before a page is sent, besides the machine description: memory blocks and disks. Each
 * refusal names the thing, what the source has and what is here.
 *
 * Disks must be there, of the same size, and such that nobody but the source can be using them: it has marked the
 * images it has locked with the session's number (block_mark_all()), so that they are recognized whatever their path is
 * here, on this host or another one. The locks themselves change hands at the switch-over.
 */
#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/block.h"
#include "vmm/bytes.h"

enum { DRIVE_INSERTED = 1, DRIVE_READONLY = 2 };
#define MAX_DRIVES 256

static void put(struct state_buf *b, const void *data, size_t len)
{
	if (b->len + len > b->cap) {
		b->cap = b->cap * 2 + len + 256;
		b->data = xrealloc(b->data, b->cap);
	}
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

static void put_name(struct state_buf *b, const char *name)
{
	uint8_t len = (uint8_t)MIN(strlen(name), (size_t)255);

	put(b, &len, 1);
	put(b, name, len);
}

struct reader {
	const uint8_t *p, *end;
};

static bool take(struct reader *r, void *out, size_t len)
{
	if ((size_t)(r->end - r->p) < len)
		return false;
	memcpy(out, r->p, len);
	r->p += len;
	return true;
}

static bool take_name(struct reader *r, char out[256])
{
	uint8_t len;

	if (!take(r, &len, 1) || !take(r, out, len))
		return false;
	out[len] = 0;
	for (unsigned i = 0; i < len; i++)
		if ((uint8_t)out[i] < 0x20 || out[i] == 0x7f)
			return false;
	return true;
}

static int damaged(const char *what, struct err *e)
{
	return err_set(e, EBADMSG, "the stream is damaged: its list of %s cannot be read", what);
}

/* ---- memory ---- */

int describe_layout(uint8_t **out, size_t *len, struct err *e)
{
	struct state_buf b = {0};
	uint8_t raw[8];
	int r = session_take_blocks(e);

	if (r)
		return r;
	put_le16(raw, (uint16_t)session.n_blocks);
	put(&b, raw, 2);
	for (unsigned i = 0; i < session.n_blocks; i++) {
		put_le64(raw, session.block[i].v.size);
		put(&b, raw, 8);
		put_name(&b, session.block[i].name);
	}
	*out = b.data;
	*len = b.len;
	return 0;
}

/* The source's order becomes ours: batches name blocks by their number. */
int check_layout(const uint8_t *data, size_t len, struct err *e)
{
	struct reader r = {data, data + len};
	uint8_t raw[8];
	unsigned n;

	if (session_take_blocks(e))
		return -e->code;
	if (!take(&r, raw, 2))
		return damaged("memory blocks", e);
	n = get_le16(raw);
	for (unsigned i = 0; i < n; i++) {
		struct mig_block swap;
		uint64_t size;
		char name[256];
		unsigned k;

		if (!take(&r, raw, 8) || !take_name(&r, name))
			return damaged("memory blocks", e);
		size = get_le64(raw);
		for (k = i; k < session.n_blocks && strcmp(session.block[k].name, name); k++)
			;
		if (k >= session.n_blocks)
			return err_set(e, ENODEV, "the source has the memory block '%s', this machine has not", name);
		if (session.block[k].v.size != size)
			return err_set(e, EINVAL, "memory block '%s' has %llu KiB at the source and %llu KiB here%s",
				       name, (unsigned long long)(size / KIB),
				       (unsigned long long)(session.block[k].v.size / KIB),
				       session.block[k].v.main ? " (-m)" : "");
		swap = session.block[i];
		session.block[i] = session.block[k];
		session.block[k] = swap;
	}
	if (n < session.n_blocks)
		return err_set(e, ENODEV, "this machine has the memory block '%s', the source has not",
			       session.block[n].name);
	return r.p == r.end ? 0 : damaged("memory blocks", e);
}

/* ---- disks ---- */

/* Known by the device that uses it: -drive ids may differ from host to host. */
int describe_drives(uint8_t **out, size_t *len, struct err *e)
{
	struct state_buf buf = {0};
	uint8_t raw[8];
	uint16_t n = 0;

	put(&buf, "\0", 2);
	for (struct block *b = block_next(NULL); b; b = block_next(b)) {
		struct block_info info;
		uint8_t flags = 0;

		if (!block_owner(b))
			continue;
		block_get_info(b, &info);
		if (info.snapshot) {
			free(buf.data);
			return err_set(e, ENOTSUP,
				       "drive '%s' writes to a temporary overlay (snapshot=on), which the destination "
				       "cannot see",
				       block_id(b));
		}
		flags = (uint8_t)((block_inserted(b) ? DRIVE_INSERTED : 0) | (block_readonly(b) ? DRIVE_READONLY : 0));
		put_le64(raw, block_size(b));
		put(&buf, raw, 8);
		put(&buf, &flags, 1);
		put_name(&buf, block_owner(b));
		if (++n == MAX_DRIVES)
			break;
	}
	put_le16(buf.data, n);
	*out = buf.data;
	*len = buf.len;
	return 0;
}

static struct block *drive_of(const char *owner)
{
	for (struct block *b = block_next(NULL); b; b = block_next(b))
		if (block_owner(b) && !strcmp(block_owner(b), owner))
			return b;
	return NULL;
}

static int check_drive(const char *owner, uint64_t size, uint8_t flags, struct err *e)
{
	struct block *b = drive_of(owner);

	if (!b)
		return err_set(e, ENODEV, "the source has a drive at '%s', here is none (-drive, -blockdev)", owner);
	if (!(flags & DRIVE_INSERTED))
		return block_inserted(b) ? err_set(e, EINVAL, "drive '%s' is empty at the source, here it holds '%s'",
						   owner, block_filename(b))
					 : 0;
	if (!block_inserted(b))
		return err_set(e, ENOMEDIUM, "drive '%s' is empty here, at the source it holds a medium of %llu bytes",
			       owner, (unsigned long long)size);
	if (block_size(b) != size)
		return err_set(e, EINVAL, "drive '%s': '%s' has %llu bytes, at the source it has %llu", owner,
			       block_filename(b), (unsigned long long)block_size(b), (unsigned long long)size);
	if (block_readonly(b) && !(flags & DRIVE_READONLY))
		return err_set(e, EROFS, "drive '%s': '%s' is read-only here and writable at the source", owner,
			       block_filename(b));
	return 0;
}

int check_drives(const uint8_t *data, size_t len, struct err *e)
{
	struct reader r = {data, data + len};
	uint8_t raw[8], flags;
	char owner[256];
	unsigned n;
	int ret;

	if (!take(&r, raw, 2))
		return damaged("drives", e);
	n = get_le16(raw);
	for (unsigned i = 0; i < n; i++) {
		if (!take(&r, raw, 8) || !take(&r, &flags, 1) || !take_name(&r, owner))
			return damaged("drives", e);
		ret = check_drive(owner, get_le64(raw), flags, e);
		if (ret)
			return ret;
	}
	if (r.p != r.end)
		return damaged("drives", e);
	ret = block_check_locks(session.id, e);
	return ret ? err_prefix(e, "the guest's disks") : 0;
}
