/*
 * The stream framing of -netdev socket and stream, from a hostile peer: the input is a program that sends bytes in
 * pieces, lets the NIC take frames, has it send some, and reads or does not read them. What the NIC gets must be what a
 * plain reader of the same bytes finds.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "fuzz.h"
#include "vmm/net.h"

#define MAX_SENT   (256 * 1024)
#define LENGTH_MAX (4096 + 65536)

static struct {
	uint8_t data[MAX_SENT];
	size_t len, pos; /* pos: of the next frame */
} sent;
static struct {
	struct device dev;
	struct nic nic;
	pthread_mutex_t lock;
	uint8_t mac[6], buf[NET_PACKET_MAX];
	unsigned takes;
	size_t room;
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER};
static const struct device_class fake_class = {.name = "fake"};

/* The next frame of the reference, -1: the stream is over or incomplete. */
static ssize_t next_frame(const uint8_t **frame)
{
	uint32_t len;

	if (sent.len - sent.pos < 4)
		return -1;
	len = get_be32(sent.data + sent.pos);
	if (len > LENGTH_MAX || sent.len - sent.pos - 4 < len)
		return -1;
	*frame = sent.data + sent.pos + 4;
	sent.pos += 4 + len;
	return len;
}

static void check(const uint8_t *got, ssize_t len)
{
	const uint8_t *frame = NULL;
	ssize_t n;

	do {
		n = next_frame(&frame);
		if (n < 0)
			abort();                     /* a frame nobody sent */
	} while (n < 14 && n <= (ssize_t)fake.room); /* not worth telling the NIC */
	if (len == -EMSGSIZE ? n <= (ssize_t)fake.room : n != len || memcmp(frame, got, (size_t)len) != 0)
		abort();
}

static void readable(struct nic *n, unsigned queue)
{
	struct iovec iov[2] = {{fake.buf, MIN(fake.room, (size_t)7)},
			       {fake.buf + 7, fake.room > 7 ? fake.room - 7 : 0}};
	ssize_t len;

	while (fake.takes && (len = netdev_recv(n, queue, iov, 2))) {
		check(fake.buf, len);
		fake.takes--;
	}
	if (!fake.takes)
		nic_want_packets(n, queue, false);
}
static void writable(struct nic *n, unsigned queue)
{
}
static void link_changed(struct nic *n, bool up)
{
}
static const struct nic_ops ops = {.readable = readable, .writable = writable, .link_changed = link_changed};

static void idle(void)
{
	for (int i = 0; i < 1000 && loop_step(loop_main(), 0) > 0; i++)
		continue;
}

static void send_piece(int fd, struct input *in, bool make_length)
{
	size_t n = MIN(make_length ? 4 : (size_t)take(in, 2), MAX_SENT - sent.len);
	uint8_t *at = sent.data + sent.len;
	ssize_t done;

	if (make_length && n == 4) { /* mostly sensible ones, or the stream is over at once */
		put_be32(at, (uint32_t)take(in, take(in, 1) & 7 ? 2 : 4));
	} else {
		memset(at, (int)take(in, 1), n);
		memcpy(at, in->p, MIN(n, in->left));
	}
	done = send(fd, at, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	sent.len += done > 0 ? (size_t)done : 0;
}

static void run(struct input *in, int fd)
{
	struct iovec iov = {.iov_base = fake.buf, .iov_len = 0};
	static uint8_t sink[65536];

	while (in->left) {
		switch (take(in, 1) % 6) {
		case 0:
			send_piece(fd, in, true);
			break;
		case 1:
			send_piece(fd, in, false);
			break;
		case 2:
			fake.takes = (unsigned)take(in, 1);
			pthread_mutex_lock(&fake.lock);
			nic_want_packets(&fake.nic, 0, fake.takes > 0);
			pthread_mutex_unlock(&fake.lock);
			break;
		case 3:
			iov.iov_len = 14 + take(in, 2) % (NET_PACKET_MAX - 14);
			pthread_mutex_lock(&fake.lock);
			netdev_send(&fake.nic, 0, &iov, 1);
			pthread_mutex_unlock(&fake.lock);
			break;
		case 4:
			(void)!recv(fd, sink, 1 + take(in, 2) % sizeof(sink), MSG_DONTWAIT);
			break;
		case 5:
			idle();
			fake.room = take(in, 1) & 1 ? sizeof(fake.buf) : 200;
			break;
		}
		idle();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct err e = ERR_INIT;
	struct opts o;
	char text[64];
	int fd[2];

	if (loop_init_main(&e) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
		abort();
	sent.len = sent.pos = 0;
	snprintf(text, sizeof(text), "socket,id=n,fd=%d", fd[0]);
	fake.dev.class = &fake_class;
	fake.dev.lock = &fake.lock;
	fake.takes = 0;
	fake.room = sizeof(fake.buf);
	if (opts_parse(&o, text, "type", &e) || !netdev_open(&o, &e) ||
	    nic_attach(&fake.nic, &fake.dev, "n", 1, fake.mac, &ops, &e))
		abort();
	opts_free(&o);
	run(&in, fd[1]);
	nic_detach(&fake.nic);
	netdev_close_all();
	loop_free(loop_main());
	close(fd[1]);
	return 0;
}
