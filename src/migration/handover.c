/*
 * Live upgrade: the guest moves to another vmm on the same host (parameter mode=cpr-transfer, over unix:PATH), and its
 * memory stays where it is. The memory blocks' descriptors go over the socket; what is sent is the device state. The
 * two phases of a migration hold here as well: until GO the destination has the memory mapped but touches none of it,
 * so the source can go on; after RUNNING the source lets go of it, so that nothing there, not even a reset, can reach
 * the guest any more.
 */
#include "handover.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/bytes.h"

static int transfer(struct channel *c, bool out, int *fds, unsigned n, struct err *e)
{
	union {
		char raw[CMSG_SPACE(MAX_BLOCKS * sizeof(int))];
		struct cmsghdr align;
	} control = {{0}};
	char byte = 0;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.raw,
			   .msg_controllen = CMSG_SPACE(n * sizeof(int))};
	struct cmsghdr *h;
	ssize_t done;

	if (out) {
		h = CMSG_FIRSTHDR(&m);
		*h = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(n * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(h), fds, n * sizeof(int));
	}
	do {
		done = out ? sendmsg(c->fd, &m, MSG_NOSIGNAL) : recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC);
		if (done < 0 && errno == EAGAIN && !out && channel_wait(c, HANDSHAKE_MS, e) > 0)
			errno = EINTR;
	} while (done < 0 && errno == EINTR);
	if (done != 1)
		return err_errno(e, done < 0 ? errno : EPIPE, "%s: the memory's descriptors", c->peer);
	h = out ? NULL : CMSG_FIRSTHDR(&m);
	if (out)
		return 0;
	if (!h || h->cmsg_type != SCM_RIGHTS || h->cmsg_level != SOL_SOCKET || h->cmsg_len < CMSG_LEN(sizeof(int)))
		return err_set(e, EBADMSG, "%s: no descriptors came with the guest's memory", c->peer);
	memcpy(fds, CMSG_DATA(h), MIN((size_t)h->cmsg_len - CMSG_LEN(0), n * sizeof(int)));
	if (h->cmsg_len == CMSG_LEN(n * sizeof(int)) && !(m.msg_flags & MSG_CTRUNC))
		return 0;
	for (size_t i = 0; i < ((size_t)h->cmsg_len - CMSG_LEN(0)) / sizeof(int) && i < n; i++)
		close(fds[i]);
	return err_set(e, EBADMSG, "%s: not as many descriptors as memory blocks", c->peer);
}

/* ---- the source ---- */

int handover_send(struct channel *c, struct err *e)
{
	int fds[MAX_BLOCKS], r;
	uint8_t n[2];

	for (unsigned i = 0; i < session.n_blocks; i++) {
		fds[i] = session.block[i].v.fd;
		if (fds[i] < 0)
			return err_set(e, ENOTSUP,
				       "memory block '%s' is a private mapping of a file and cannot be handed over; "
				       "migrate with "
				       "mode=normal",
				       session.block[i].name);
	}
	put_le16(n, (uint16_t)session.n_blocks);
	r = channel_put(c, WIRE_MEMORY, 0, n, sizeof(n), e);
	return r ? r : transfer(c, true, fds, session.n_blocks, e);
}

void handover_done(struct main_call *c)
{
	machine_ram_forget(session.board);
	switchover_done(c);
}

/* ---- the destination ---- */

struct taken {
	int fd[MAX_BLOCKS];
	unsigned n;
};

static void adopt(struct main_call *c)
{
	struct taken *t = c->arg;
	int r = 0;

	for (unsigned i = 0; i < t->n; i++) {
		if (!r)
			r = machine_ram_adopt(session.board, session.block[i].name, t->fd[i], &c->err);
		if (r)
			close(t->fd[i]);
	}
	main_call_done(c, r);
}

int handover_receive(struct channel *c, const uint8_t *payload, size_t len, struct err *e)
{
	struct taken t = {.n = session.n_blocks};
	int r;

	if (!(session.features & WIRE_F_MEMORY) || len != 2 || get_le16(payload) != t.n)
		return err_set(e, EBADMSG, "the stream is damaged: memory by descriptor, but not for every block");
	r = transfer(c, false, t.fd, t.n, e);
	return r ? r : main_call(adopt, &t, e);
}
