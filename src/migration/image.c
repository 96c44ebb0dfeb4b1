/* Saved guests: see image.h. */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vmm/bytes.h"

#define BLOCK_ALIGN 65536ull
#define INDEX_FIXED (5 * 8 + 32 + 2 * 4)
#define MAX_STATE   (256ull << 20)

static uint64_t written; /* atomic */

uint64_t image_bytes(void)
{
	return __atomic_load_n(&written, __ATOMIC_RELAXED);
}

static int write_at(struct image *im, const void *data, size_t len, uint64_t offset, struct err *e)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = pwrite(im->fd, p, MIN(len, (size_t)GIB), (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_errno(e, n ? errno : ENOSPC, "cannot write %s", im->path);
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int read_at(struct image *im, void *data, size_t len, uint64_t offset, struct err *e)
{
	uint8_t *p = data;

	while (len) {
		ssize_t n = pread(im->fd, p, MIN(len, (size_t)GIB), (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, errno, "cannot read %s", im->path);
		if (n == 0)
			return err_set(e, EBADMSG, "%s is cut off: it ends before its byte %llu", im->path,
				       (unsigned long long)offset);
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* ---- writing ---- */

static size_t index_len(const struct image *im)
{
	return INDEX_FIXED + im->n_blocks * 8 + (size_t)im->leaves * 8;
}

/* Where everything goes; sizes are known from the start but for the state's. */
static void lay_out(struct image *im)
{
	uint64_t at;

	im->head_len =
		WIRE_PREAMBLE + 4 * WIRE_HEADER + im->description_len + im->layout_len + im->drives_len + index_len(im);
	at = im->head_len;
	for (unsigned i = 0; i < im->n_blocks; i++) {
		im->block[i].offset = at = ALIGN_UP(at, BLOCK_ALIGN);
		at += im->block[i].pages * WIRE_PAGE;
	}
	im->hash_offset = ALIGN_UP(at, BLOCK_ALIGN);
	im->state_offset = im->hash_offset + (uint64_t)im->leaves * LEAF_PAGES * 8;
}

static void count_leaves(struct image *im)
{
	im->leaves = 0;
	for (unsigned i = 0; i < im->n_blocks; i++) {
		struct image_block *b = &im->block[i];

		b->first_leaf = im->leaves;
		b->leaves = (uint32_t)((b->pages + LEAF_PAGES - 1) / LEAF_PAGES);
		im->leaves += b->leaves;
	}
}

struct image *image_create(int fd, const char *path, const void *description, size_t description_len,
			   const void *layout, size_t layout_len, const void *drives, size_t drives_len, struct err *e)
{
	struct image *im = xzalloc(sizeof(*im));

	im->fd = fd;
	snprintf(im->path, sizeof(im->path), "%s", path);
	im->description = xmemdup(description, description_len);
	im->description_len = description_len;
	im->layout = xmemdup(layout, layout_len);
	im->layout_len = layout_len;
	im->drives = xmemdup(drives, drives_len);
	im->drives_len = drives_len;
	im->n_blocks = session.n_blocks;
	for (unsigned i = 0; i < im->n_blocks; i++)
		im->block[i].pages = session.block[i].pages;
	count_leaves(im);
	lay_out(im);
	im->leaf_hash = calloc(im->leaves + 1, 8);
	im->hash = mmap(NULL, (size_t)im->leaves * LEAF_PAGES * 8 + 8, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (im->hash == MAP_FAILED)
		im->hash = NULL;
	__atomic_store_n(&written, 0, __ATOMIC_RELAXED);
	if (!im->leaf_hash || !im->hash || index_len(im) > WIRE_MAX_PAYLOAD) {
		err_set(e, ENOMEM, "%s: no memory for the index of so large a guest", path);
		image_free(im);
		return NULL;
	}
	return im;
}

static int put_run(struct image *im, unsigned block, uint64_t first, uint64_t n, const uint8_t *data, struct err *e)
{
	__atomic_fetch_add(&written, n * WIRE_PAGE, __ATOMIC_RELAXED);
	return n ? write_at(im, data, n * WIRE_PAGE, im->block[block].offset + first * WIRE_PAGE, e) : 0;
}

int image_put(struct image *im, unsigned block, uint64_t first, uint64_t n, const uint8_t *data, struct err *e)
{
	static const uint8_t zeros[WIRE_PAGE];
	uint64_t *hash = im->hash + (uint64_t)im->block[block].first_leaf * LEAF_PAGES + first, start = 0;
	int r = 0;

	for (uint64_t i = 0; !r && i < n; i++) {
		const uint8_t *page = data + i * WIRE_PAGE;

		if (!wire_page_is_zero(page)) {
			hash[i] = wire_page_hash(page);
			continue;
		}
		r = put_run(im, block, first + start, i - start, data + start * WIRE_PAGE, e);
		if (!r && hash[i]) /* it was written in an earlier round; a private mapping shows what is there */
			r = write_at(im, zeros, sizeof(zeros), im->block[block].offset + (first + i) * WIRE_PAGE, e);
		hash[i] = 0;
		start = i + 1;
	}
	return r ? r : put_run(im, block, first + start, n - start, data + start * WIRE_PAGE, e);
}

static size_t put_record(uint8_t *at, enum wire_type type, uint32_t sequence, const void *payload, size_t len)
{
	wire_put_header(at, (uint16_t)type, 0, (uint32_t)len, sequence, payload, (uint32_t)len);
	memcpy(at + WIRE_HEADER, payload, len);
	return WIRE_HEADER + len;
}

static void put_index(struct image *im, uint8_t *p)
{
	put_le64(p, im->size);
	put_le64(p + 8, im->hash_offset);
	put_le64(p + 16, im->state_offset);
	put_le64(p + 24, im->state_len);
	put_le64(p + 32, im->state_hash);
	memcpy(p + 40, im->run_state, sizeof(im->run_state));
	put_le32(p + 72, im->n_blocks);
	put_le32(p + 76, im->leaves);
	p += INDEX_FIXED;
	for (unsigned i = 0; i < im->n_blocks; i++, p += 8)
		put_le64(p, im->block[i].offset);
	for (uint32_t i = 0; i < im->leaves; i++, p += 8)
		put_le64(p, im->leaf_hash[i]);
}

static int write_head(struct image *im, struct err *e)
{
	struct wire_preamble p = {.kind = WIRE_FILE, .flags = WIRE_ONE_WAY, .session = session.id};
	uint8_t *head = malloc(im->head_len), *index = malloc(index_len(im));
	size_t at = WIRE_PREAMBLE;
	int r;

	if (!head || !index) {
		free(head);
		free(index);
		return err_errno(e, ENOMEM, "%s", im->path);
	}
	put_index(im, index);
	wire_put_preamble(head, &p);
	at += put_record(head + at, WIRE_DESCRIPTION, 0, im->description, im->description_len);
	at += put_record(head + at, WIRE_LAYOUT, 1, im->layout, im->layout_len);
	at += put_record(head + at, WIRE_DRIVES, 2, im->drives, im->drives_len);
	at += put_record(head + at, WIRE_INDEX, 3, index, index_len(im));
	r = write_at(im, head, at, 0, e);
	free(head);
	free(index);
	return r;
}

/* Leaves of zero pages only stay holes. */
static int write_hashes(struct image *im, struct err *e)
{
	static const uint64_t zeros[LEAF_PAGES];
	int r = 0;

	for (uint32_t i = 0; !r && i < im->leaves; i++) {
		const uint64_t *leaf = im->hash + (uint64_t)i * LEAF_PAGES;

		im->leaf_hash[i] = wire_hash(leaf, sizeof(zeros));
		if (memcmp(leaf, zeros, sizeof(zeros)))
			r = write_at(im, leaf, sizeof(zeros), im->hash_offset + (uint64_t)i * sizeof(zeros), e);
	}
	return r;
}

int image_finish(struct image *im, const struct state_buf *state, const char *run_state, struct err *e)
{
	int r = write_hashes(im, e);

	im->state_len = state->len;
	im->state_hash = wire_hash(state->data, state->len);
	im->size = im->state_offset + im->state_len;
	memset(im->run_state, 0, sizeof(im->run_state));
	snprintf(im->run_state, sizeof(im->run_state), "%s", run_state);
	if (!r)
		r = write_at(im, state->data, state->len, im->state_offset, e);
	if (!r)
		r = write_head(im, e);
	if (!r && ftruncate(im->fd, (off_t)im->size))
		r = err_errno(e, errno, "cannot write %s", im->path);
	if (!r && fsync(im->fd))
		r = err_errno(e, errno, "cannot bring %s to stable storage", im->path);
	return r;
}

/* ---- reading ---- */

static int damaged(struct image *im, const char *what, struct err *e)
{
	return err_set(e, EBADMSG, "%s is damaged: %s", im->path, what);
}

static int read_record(struct image *im, enum wire_type type, uint32_t sequence, uint64_t *at, uint8_t **out,
		       size_t *len, struct err *e)
{
	uint8_t raw[WIRE_HEADER];
	struct wire_record rec;
	int r = read_at(im, raw, sizeof(raw), *at, e);

	if (!r)
		r = wire_get_header(raw, sequence, &rec, e);
	if (!r && (rec.type != type || rec.hashed != rec.length))
		r = damaged(im, "its head does not have the records it should", e);
	if (r)
		return r;
	*out = malloc((size_t)rec.length + 1);
	if (!*out)
		return err_errno(e, ENOMEM, "%s", im->path);
	r = read_at(im, *out, rec.length, *at + WIRE_HEADER, e);
	if (!r)
		r = wire_check(raw, &rec, *out, e);
	*at += WIRE_HEADER + rec.length;
	*len = rec.length;
	return r;
}

/* The blocks' sizes are in the layout, which the handshake compares with the machine; here only what this file needs of
 * it. */
static int parse_layout(struct image *im, struct err *e)
{
	const uint8_t *p = im->layout, *end = p + im->layout_len;

	if (im->layout_len < 2 || get_le16(p) > MAX_BLOCKS)
		return damaged(im, "its list of memory blocks", e);
	im->n_blocks = get_le16(p);
	p += 2;
	for (unsigned i = 0; i < im->n_blocks; i++) {
		if (end - p < 9 || end - p - 9 < p[8] || get_le64(p) % WIRE_PAGE || get_le64(p) > 64 * TIB)
			return damaged(im, "its list of memory blocks", e);
		im->block[i].pages = get_le64(p) / WIRE_PAGE;
		p += 9 + p[8];
	}
	count_leaves(im);
	return 0;
}

static bool inside(const struct image *im, uint64_t offset, uint64_t len)
{
	return offset <= im->size && len <= im->size - offset;
}

static int parse_index(struct image *im, const uint8_t *p, size_t len, struct err *e)
{
	struct stat st;
	int r = parse_layout(im, e);

	if (r)
		return r;
	if (len != index_len(im) || get_le32(p + 72) != im->n_blocks || get_le32(p + 76) != im->leaves)
		return damaged(im, "its index does not fit its memory blocks", e);
	im->size = get_le64(p);
	im->hash_offset = get_le64(p + 8);
	im->state_offset = get_le64(p + 16);
	im->state_len = get_le64(p + 24);
	im->state_hash = get_le64(p + 32);
	memcpy(im->run_state, p + 40, sizeof(im->run_state));
	im->run_state[sizeof(im->run_state) - 1] = 0;
	if (fstat(im->fd, &st))
		return err_errno(e, errno, "%s", im->path);
	if (S_ISREG(st.st_mode) && (uint64_t)st.st_size != im->size)
		return err_set(e, EBADMSG, "%s is cut off: it has %lld of %llu bytes", im->path, (long long)st.st_size,
			       (unsigned long long)im->size);
	if (!inside(im, im->hash_offset, (uint64_t)im->leaves * LEAF_PAGES * 8) ||
	    !inside(im, im->state_offset, im->state_len) || im->state_len > MAX_STATE)
		return damaged(im, "its index points outside of the file", e);
	p += INDEX_FIXED;
	for (unsigned i = 0; i < im->n_blocks; i++, p += 8) {
		im->block[i].offset = get_le64(p);
		if (im->block[i].offset % WIRE_PAGE || !inside(im, im->block[i].offset, im->block[i].pages * WIRE_PAGE))
			return damaged(im, "its index points outside of the file", e);
	}
	im->leaf_hash = malloc((size_t)im->leaves * 8 + 8);
	if (!im->leaf_hash)
		return err_errno(e, ENOMEM, "%s", im->path);
	for (uint32_t i = 0; i < im->leaves; i++, p += 8)
		im->leaf_hash[i] = get_le64(p);
	return 0;
}

static int read_head(struct image *im, struct err *e)
{
	uint64_t at = WIRE_PREAMBLE;
	uint8_t *index = NULL;
	size_t len;
	int r = read_record(im, WIRE_DESCRIPTION, 0, &at, &im->description, &im->description_len, e);

	if (!r)
		r = read_record(im, WIRE_LAYOUT, 1, &at, &im->layout, &im->layout_len, e);
	if (!r)
		r = read_record(im, WIRE_DRIVES, 2, &at, &im->drives, &im->drives_len, e);
	if (!r)
		r = read_record(im, WIRE_INDEX, 3, &at, &index, &len, e);
	if (!r)
		r = parse_index(im, index, len, e);
	free(index);
	return r;
}

int image_open(int fd, const char *path, struct image **out, struct err *e)
{
	struct image *im = xzalloc(sizeof(*im));
	uint8_t raw[WIRE_PREAMBLE];
	struct wire_preamble p;
	int r;

	*out = NULL;
	im->fd = fd;
	snprintf(im->path, sizeof(im->path), "%s", path);
	r = read_at(im, raw, sizeof(raw), 0, e);
	if (!r)
		r = wire_get_preamble(raw, &p, e);
	if (r)
		err_prefix(e, "%s", path);
	if (!r && p.kind == WIRE_MAIN) {
		im->fd = -1;
		image_free(im);
		return 1;
	}
	if (!r && p.kind != WIRE_FILE)
		r = damaged(im, "its kind is unknown", e);
	if (!r && (r = read_head(im, e)) && strncmp(e->msg, path, strlen(path)))
		err_prefix(e, "%s", path);
	if (r) {
		image_free(im);
		return r;
	}
	*out = im;
	return 0;
}

int image_leaf(struct image *im, uint32_t leaf, uint64_t hash[LEAF_PAGES], struct err *e)
{
	int r = read_at(im, hash, LEAF_PAGES * 8, im->hash_offset + (uint64_t)leaf * LEAF_PAGES * 8, e);

	if (!r && wire_hash(hash, LEAF_PAGES * 8) != im->leaf_hash[leaf])
		r = damaged(im, "the checksums of its memory are wrong", e);
	return r;
}

int image_get(struct image *im, unsigned block, uint64_t first, uint64_t n, const uint64_t *hash, bool skip_zero,
	      uint8_t *buf, struct err *e)
{
	hash += first % LEAF_PAGES;
	for (uint64_t i = 0, run; i < n; i += run) {
		int r = 0;

		for (run = 1; i + run < n && !hash[i] == !hash[i + run]; run++)
			;
		if (hash[i])
			r = read_at(im, buf + i * WIRE_PAGE, run * WIRE_PAGE,
				    im->block[block].offset + (first + i) * WIRE_PAGE, e);
		else if (!skip_zero)
			memset(buf + i * WIRE_PAGE, 0, run * WIRE_PAGE);
		if (r)
			return r;
		for (uint64_t k = i; hash[i] && k < i + run; k++)
			if (wire_page_hash(buf + k * WIRE_PAGE) != hash[k])
				return err_set(e, EBADMSG,
					       "%s is damaged: memory page %llu of block %u has a wrong checksum",
					       im->path, (unsigned long long)(first + k), block);
	}
	return 0;
}

int image_verify(struct image *im, unsigned block, uint64_t first, uint64_t n, const uint64_t *hash, uint8_t *buf,
		 struct err *e)
{
	int r = read_at(im, buf, n * WIRE_PAGE, im->block[block].offset + first * WIRE_PAGE, e);

	for (uint64_t i = 0; !r && i < n; i++)
		if (hash[i] ? wire_page_hash(buf + i * WIRE_PAGE) != hash[i] : !wire_page_is_zero(buf + i * WIRE_PAGE))
			r = err_set(e, EBADMSG, "%s is damaged: memory page %llu of block %u has a wrong checksum",
				    im->path, (unsigned long long)(first + i), block);
	return r;
}

int image_state(struct image *im, uint8_t **state, struct err *e)
{
	int r;

	*state = malloc(im->state_len + 1);
	if (!*state)
		return err_errno(e, ENOMEM, "%s", im->path);
	r = read_at(im, *state, im->state_len, im->state_offset, e);
	if (!r && wire_hash(*state, im->state_len) != im->state_hash)
		r = damaged(im, "its device state has a wrong checksum", e);
	if (r) {
		free(*state);
		*state = NULL;
	}
	return r;
}

void image_free(struct image *im)
{
	if (!im)
		return;
	if (im->fd >= 0)
		close(im->fd);
	if (im->hash)
		munmap(im->hash, (size_t)im->leaves * LEAF_PAGES * 8 + 8);
	free(im->leaf_hash);
	free(im->description);
	free(im->layout);
	free(im->drives);
	free(im);
}

int image_path(char *path, int *map, struct err *e)
{
	static const char *const modes[] = {"eager", "lazy", "private"};
	char *comma = strrchr(path, ',');

	*map = -1;
	if (!comma || strncmp(comma, ",map=", 5))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		if (!strcmp(comma + 5, modes[i]))
			*map = (int)i;
	if (*map < 0)
		return err_set(e, EINVAL, "file:%s: map= is eager, lazy or private", path);
	*comma = 0;
	return 0;
}
