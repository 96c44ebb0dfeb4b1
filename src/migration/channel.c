/* Channels: see channel.h. */
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "tls.h"

#define SLICE    (256u << 10) /* what goes out between two looks at the bandwidth limit */
#define MAX_IOV  64
#define BURST_NS 10000000ull  /* a limited line may run so far behind and catch up */
#define READ_MIN (512u << 10) /* while more than this is to come: what is worth waking up for */

uint64_t mono_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

struct channel *channel_new(int fd, int cancel_fd, const char *peer)
{
	struct channel *c = xzalloc(sizeof(*c));
	struct stat st;
	int domain = 0;
	socklen_t domain_len = sizeof(domain);

	c->fd = fd;
	c->cancel_fd = cancel_fd;
	c->socket = !fstat(fd, &st) && S_ISSOCK(st.st_mode);
	c->local = c->socket && !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_len) && domain == AF_UNIX;
	snprintf(c->peer, sizeof(c->peer), "%s", peer);
	pthread_mutex_init(&c->out_lock, NULL);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	return c;
}

void channel_free(struct channel *c)
{
	if (!c)
		return;
	tls_stream_free(c->tls);
	close(c->fd);
	pthread_mutex_destroy(&c->out_lock);
	free(c);
}

void channel_shutdown(struct channel *c)
{
	if (c->socket)
		shutdown(c->fd, SHUT_RDWR);
}

void channel_stop_reading(struct channel *c)
{
	if (c->socket)
		shutdown(c->fd, SHUT_RD);
}

/* ---- waiting ---- */

static int cancelled(struct channel *c, struct err *e)
{
	return err_set(e, ECANCELED, "%s: cancelled", c->peer);
}

static int gone(struct channel *c, int err, struct err *e)
{
	if (err == EFAULT) /* what we read into: a back end's file system is full, a limit was reached */
		return err_set(e, ENOMEM, "%s: there is no memory for the guest's pages (is its back end full?)",
			       c->peer);
	if (!err || err == EPIPE || err == ECONNRESET)
		return err_set(e, EPIPE, "%s: the other side closed the connection", c->peer);
	if (c->tls && err == EPERM)
		return err_set(e, EPERM, "%s: the other side refuses our TLS credentials", c->peer);
	return err_errno(e, err, "%s", c->peer);
}

/* 1: ready, 0: timeout_ms passed. */
static int wait_for(struct channel *c, short events, int timeout_ms, struct err *e)
{
	struct pollfd p[2] = {{.fd = c->fd, .events = (short)(events == POLLOUT ? POLLOUT | POLLRDHUP : events)},
			      {.fd = c->cancel_fd, .events = POLLIN}};
	int r;

	do
		r = poll(p, 2, timeout_ms);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return err_errno(e, errno, "%s: poll", c->peer);
	if (p[1].revents)
		return cancelled(c, e);
	/* The other side has hung up and takes no more: without this we would wait for room for ever. */
	if (events == POLLOUT && p[0].revents & POLLRDHUP && !(p[0].revents & POLLOUT))
		return gone(c, 0, e);
	return r > 0;
}

static int wait_progress(struct channel *c, short events, struct err *e)
{
	int timeout = c->stall_ms ? (int)c->stall_ms : -1, r;
	bool hurry = false;

	if (c->deadline_ns) {
		uint64_t now = mono_ns(), left = c->deadline_ns > now ? (c->deadline_ns - now) / 1000000 : 0;

		hurry = timeout < 0 || left < (uint64_t)timeout;
		timeout = hurry ? (int)left : timeout;
	}
	r = wait_for(c, events, timeout, e);
	if (r == 0 && hurry)
		return err_set(e, ETIMEDOUT, "%s: it took too long to introduce itself", c->peer);
	if (r == 0)
		return err_set(e, ETIMEDOUT, "%s: nothing moved for %u ms; the connection is taken for dead", c->peer,
			       c->stall_ms);
	return r < 0 ? r : 0;
}

/* Be readable only when so many bytes are there: each time the reader wakes costs both sides. */
static void set_low_water(struct channel *c, size_t bytes)
{
	int value = (int)bytes;

	if (!c->socket || c->tls || bytes == c->low_water)
		return;
	c->low_water = bytes;
	setsockopt(c->fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value));
}

/* Something moved, or more than `left` bytes are to come and it is time to look. */
static int wait_bytes(struct channel *c, size_t left, struct err *e)
{
	struct err ignored = ERR_INIT;
	int r;

	set_low_water(c, MIN(left, (size_t)READ_MIN));
	r = wait_progress(c, POLLIN, e);
	if (r != -ETIMEDOUT || c->low_water <= 1 || (c->deadline_ns && mono_ns() >= c->deadline_ns))
		return r;
	set_low_water(c, 1); /* on a slow line something may have come */
	return wait_for(c, POLLIN, 0, &ignored) > 0 ? 0 : r;
}

int channel_wait(struct channel *c, int timeout_ms, struct err *e)
{
	if (c->tls && tls_pending(c->tls))
		return 1;
	set_low_water(c, 1);
	return wait_for(c, POLLIN, timeout_ms, e);
}

/* What the line may carry, bytes/s; 0: all it can. The main thread changes it on the way. */
static uint64_t limit_of(const struct channel *c)
{
	return c->limit ? __atomic_load_n(&c->limit->bytes_per_s, __ATOMIC_RELAXED) : 0;
}

/* Account for `len` bytes about to go out; sleep until the line is free. */
static int throttle(struct channel *c, size_t len, struct err *e)
{
	uint64_t rate = limit_of(c), now, at;
	struct pollfd p = {.fd = c->cancel_fd, .events = POLLIN};

	if (!rate)
		return 0;
	now = mono_ns();
	pthread_mutex_lock(&c->limit->lock);
	at = MAX(c->limit->ready_ns, now - BURST_NS);
	c->limit->ready_ns = at + (uint64_t)((double)len * 1e9 / (double)rate);
	pthread_mutex_unlock(&c->limit->lock);
	while (at > now) {
		struct timespec ts = {.tv_sec = (time_t)((at - now) / 1000000000ull),
				      .tv_nsec = (long)((at - now) % 1000000000ull)};

		if (ppoll(&p, 1, &ts, NULL) > 0)
			return cancelled(c, e);
		now = mono_ns();
	}
	return 0;
}

/* ---- bytes ---- */

static ssize_t send_some(struct channel *c, const struct iovec *iov, int n)
{
	struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n};

	if (c->tls)
		return tls_send(c->tls, iov[0].iov_base, iov[0].iov_len);
	return c->socket ? sendmsg(c->fd, &m, MSG_NOSIGNAL) : writev(c->fd, iov, n);
}

static ssize_t recv_some(struct channel *c, const struct iovec *iov, int n)
{
	if (c->tls)
		return tls_recv(c->tls, iov[0].iov_base, iov[0].iov_len);
	return readv(c->fd, iov, n);
}

/* The next at most `max` bytes of the vector from (*i, *skip) on. */
static int next_part(const struct iovec *iov, int n, int i, size_t skip, struct iovec *out, size_t max)
{
	int k = 0;

	for (; i < n && k < MAX_IOV && max; i++, skip = 0) {
		size_t len = MIN(iov[i].iov_len - skip, max);

		if (len)
			out[k++] = (struct iovec){(uint8_t *)iov[i].iov_base + skip, len};
		max -= len;
	}
	return k;
}

static void advance(const struct iovec *iov, int n, int *i, size_t *skip, size_t done)
{
	while (*i < n && done >= iov[*i].iov_len - *skip) {
		done -= iov[*i].iov_len - *skip;
		*skip = 0;
		++*i;
	}
	*skip += done;
}

int channel_send(struct channel *c, const struct iovec *iov, int n, struct err *e)
{
	struct iovec part[MAX_IOV];
	size_t skip = 0, paid = 0;
	int i = 0, r;

	advance(iov, n, &i, &skip, 0);
	while (i < n) {
		int k = next_part(iov, n, i, skip, part, limit_of(c) ? SLICE : SIZE_MAX);
		ssize_t done;

		if (!paid) {
			for (int p = 0; p < k; p++)
				paid += part[p].iov_len;
			r = throttle(c, paid, e);
			if (r)
				return r;
		}
		done = send_some(c, part, k);
		if (done < 0) {
			if (errno == EINTR)
				continue;
			if (errno != EAGAIN && errno != EWOULDBLOCK)
				return gone(c, errno, e);
			r = wait_progress(c, POLLOUT, e);
			if (r)
				return r;
			continue;
		}
		__atomic_fetch_add(&c->sent, (uint64_t)done, __ATOMIC_RELAXED);
		paid -= MIN(paid, (size_t)done);
		advance(iov, n, &i, &skip, (size_t)done);
	}
	return 0;
}

int channel_recv(struct channel *c, const struct iovec *iov, int n, struct err *e)
{
	struct iovec part[MAX_IOV];
	size_t skip = 0, left = 0;
	int i = 0, r;

	for (int k = 0; k < n; k++)
		left += iov[k].iov_len;
	advance(iov, n, &i, &skip, 0);
	while (i < n) {
		int k = next_part(iov, n, i, skip, part, SIZE_MAX);
		ssize_t done = recv_some(c, part, k);

		if (done == 0)
			return gone(c, 0, e);
		if (done < 0) {
			if (errno == EINTR)
				continue;
			if (errno != EAGAIN && errno != EWOULDBLOCK)
				return gone(c, errno, e);
			r = wait_bytes(c, left, e);
			if (r)
				return r;
			continue;
		}
		__atomic_fetch_add(&c->received, (uint64_t)done, __ATOMIC_RELAXED);
		left -= (size_t)done;
		advance(iov, n, &i, &skip, (size_t)done);
	}
	return 0;
}

int channel_send_file(struct channel *c, int fd, uint64_t offset, size_t len, struct err *e)
{
	off_t at = (off_t)offset;

	while (len) {
		size_t part = limit_of(c) ? MIN(len, (size_t)SLICE) : len;
		int r = throttle(c, part, e);

		while (!r && part) {
			ssize_t done = sendfile(c->fd, fd, &at, part);

			if (done > 0) {
				__atomic_fetch_add(&c->sent, (uint64_t)done, __ATOMIC_RELAXED);
				part -= (size_t)done;
				len -= (size_t)done;
			} else if (done == 0) {
				r = err_set(e, EIO, "%s: guest memory ended early", c->peer);
			} else if (errno == EAGAIN) {
				r = wait_progress(c, POLLOUT, e);
			} else if (errno != EINTR) {
				r = gone(c, errno, e);
			}
		}
		if (r)
			return r;
	}
	return 0;
}

/* ---- records ---- */

int channel_put(struct channel *c, enum wire_type type, uint16_t flags, const void *payload, uint32_t length,
		struct err *e)
{
	uint8_t head[WIRE_HEADER];
	struct iovec iov[2] = {{head, sizeof(head)}, {(void *)(uintptr_t)payload, length}};
	int r;

	pthread_mutex_lock(&c->out_lock);
	wire_put_header(head, (uint16_t)type, flags, length, c->seq_out++, payload, length);
	r = channel_send(c, iov, length ? 2 : 1, e);
	pthread_mutex_unlock(&c->out_lock);
	return r;
}

int channel_put_text(struct channel *c, enum wire_type type, const char *text, struct err *e)
{
	return channel_put(c, type, 0, text, (uint32_t)strlen(text), e);
}

int channel_get_header(struct channel *c, struct wire_record *r, uint8_t raw[WIRE_HEADER], struct err *e)
{
	struct iovec iov = {raw, WIRE_HEADER};
	int ret;

	for (;;) {
		ret = channel_recv(c, &iov, 1, e);
		if (!ret)
			ret = wire_get_header(raw, c->seq_in, r, e);
		if (ret)
			return ret;
		c->seq_in++;
		if (r->type != WIRE_PING)
			return 0;
		if (r->length)
			return err_set(e, EBADMSG, "the stream is damaged: a ping with a payload");
		ret = wire_check(raw, r, NULL, e);
		if (ret)
			return ret;
	}
}

int channel_get_payload(struct channel *c, const struct wire_record *r, const uint8_t raw[WIRE_HEADER], uint32_t max,
			uint8_t **payload, struct err *e)
{
	struct iovec iov;
	int ret;

	*payload = NULL;
	if (r->length > max)
		return err_set(e, EBADMSG, "the stream is damaged: a record '%s' of %u bytes, at most %u are allowed",
			       wire_type_name(r->type), r->length, max);
	*payload = malloc((size_t)r->hashed + 1);
	if (!*payload)
		return err_errno(e, ENOMEM, "a record of %u bytes", r->hashed);
	(*payload)[r->hashed] = 0;
	iov = (struct iovec){*payload, r->hashed};
	ret = channel_recv(c, &iov, 1, e);
	if (!ret)
		ret = wire_check(raw, r, *payload, e);
	if (ret) {
		free(*payload);
		*payload = NULL;
	}
	return ret;
}

int channel_send_preamble(struct channel *c, const struct wire_preamble *p, struct err *e)
{
	uint8_t raw[WIRE_PREAMBLE];
	struct iovec iov = {raw, sizeof(raw)};

	wire_put_preamble(raw, p);
	return channel_send(c, &iov, 1, e);
}

int channel_recv_preamble(struct channel *c, struct wire_preamble *p, struct err *e)
{
	uint8_t raw[WIRE_PREAMBLE];
	struct iovec iov = {raw, sizeof(raw)};
	int r = channel_recv(c, &iov, 1, e);

	return r ? r : wire_get_preamble(raw, p, e);
}
