/* Scatter lists: slices, copies, zero tests. */
#include "src/block/block_private.h"

#include <string.h>

int iov_slice(struct iovec *dst, int max, const struct iovec *src, int n, uint64_t skip, uint64_t len, uint64_t *got)
{
	int out = 0;

	*got = 0;
	for (int i = 0; i < n && out < max && len; i++) {
		uint64_t take;

		if (skip >= src[i].iov_len) {
			skip -= src[i].iov_len;
			continue;
		}
		take = MIN(src[i].iov_len - skip, len);
		dst[out].iov_base = (char *)src[i].iov_base + skip;
		dst[out++].iov_len = take;
		skip = 0;
		len -= take;
		*got += take;
	}
	return out;
}

uint64_t iov_bytes(const struct iovec *iov, int n)
{
	uint64_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* Calls fn for each contiguous piece of [skip, skip+len). */
typedef void piece_fn(void *p, size_t len, char *cursor);

static void each_piece(const struct iovec *iov, int n, uint64_t skip, uint64_t len, char *cursor, piece_fn *fn)
{
	for (int i = 0; i < n && len; i++) {
		uint64_t take;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		take = MIN(iov[i].iov_len - skip, len);
		fn((char *)iov[i].iov_base + skip, take, cursor);
		if (cursor)
			cursor += take;
		skip = 0;
		len -= take;
	}
}

static void copy_in(void *p, size_t len, char *cursor)
{
	memcpy(p, cursor, len);
}

static void copy_out(void *p, size_t len, char *cursor)
{
	memcpy(cursor, p, len);
}

static void fill_zero(void *p, size_t len, char *cursor)
{
	memset(p, 0, len);
}

void iov_from_buf(const struct iovec *iov, int n, uint64_t skip, const void *buf, size_t len)
{
	each_piece(iov, n, skip, len, (char *)buf, copy_in);
}

void iov_to_buf(const struct iovec *iov, int n, uint64_t skip, void *buf, size_t len)
{
	each_piece(iov, n, skip, len, buf, copy_out);
}

void iov_zero(const struct iovec *iov, int n, uint64_t skip, uint64_t len)
{
	each_piece(iov, n, skip, len, NULL, fill_zero);
}

bool iov_is_zero(const struct iovec *iov, int n)
{
	for (int i = 0; i < n; i++) {
		const char *p = iov[i].iov_base;
		size_t len = iov[i].iov_len;

		/* A block equals itself shifted by one and starts with 0: all of it is 0. */
		if (len && (p[0] || memcmp(p, p + 1, len - 1)))
			return false;
	}
	return true;
}
