/* Pieces of memory that make one frame. */
#include "netdev.h"

#include <string.h>

size_t net_iov_len(const struct iovec *iov, int n)
{
	size_t len = 0;

	for (int i = 0; i < n; i++)
		len += iov[i].iov_len;
	return len;
}

size_t net_iov_get(const struct iovec *iov, int n, size_t skip, void *buf, size_t len)
{
	uint8_t *to = buf;

	for (int i = 0; i < n && len; i++) {
		size_t piece = iov[i].iov_len;

		if (skip >= piece) {
			skip -= piece;
			continue;
		}
		piece = MIN(piece - skip, len);
		memcpy(to, (const uint8_t *)iov[i].iov_base + skip, piece);
		skip = 0;
		to += piece;
		len -= piece;
	}
	return (size_t)(to - (uint8_t *)buf);
}

size_t net_iov_put(const struct iovec *iov, int n, size_t skip, const void *buf, size_t len)
{
	const uint8_t *from = buf;

	for (int i = 0; i < n && len; i++) {
		size_t piece = iov[i].iov_len;

		if (skip >= piece) {
			skip -= piece;
			continue;
		}
		piece = MIN(piece - skip, len);
		memcpy((uint8_t *)iov[i].iov_base + skip, from, piece);
		skip = 0;
		from += piece;
		len -= piece;
	}
	return (size_t)(from - (const uint8_t *)buf);
}
