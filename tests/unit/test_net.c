/* Networks without a board: the registry, links, flow control, statistics, announcements, and every socket back end. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "tests/lib/suite.h"
#include "vmm/bytes.h"
#include "vmm/clock.h"
#include "vmm/fdset.h"
#include "vmm/net.h"

#define FRAME 60

static struct err e;
static char events[1024], dir[64];

/* A NIC that records. */
static struct device_class fake_class = {.name = "fake"};
struct fake {
	struct device dev;
	struct nic nic;
	pthread_mutex_t lock;
	uint8_t mac[6], got[NET_PACKET_MAX + 64];
	size_t len, room;                                          /* of the last frame; room: buffer it offers */
	unsigned frames, link_changes, writable, announced, takes; /* takes: frames it wants, then it stops */
	bool link, errors;
};
static struct fake a, b;

static void fake_readable(struct nic *n, unsigned queue)
{
	struct fake *f = container_of(n, struct fake, nic);
	struct iovec iov[2] = {{f->got, MIN(f->room, (size_t)10)}, {f->got + 10, f->room > 10 ? f->room - 10 : 0}};
	ssize_t len;

	while (f->takes && (len = netdev_recv(n, queue, iov, 2))) {
		f->errors |= len == -EMSGSIZE;
		if (len < 0)
			continue;
		f->len = (size_t)len;
		f->frames++;
		f->takes--;
	}
	if (!f->takes)
		nic_want_packets(n, queue, false);
}
static void fake_writable(struct nic *n, unsigned queue)
{
	container_of(n, struct fake, nic)->writable++;
}
static void fake_link(struct nic *n, bool up)
{
	struct fake *f = container_of(n, struct fake, nic);

	f->link_changes++;
	f->link = up;
}
static bool fake_announce(struct nic *n)
{
	container_of(n, struct fake, nic)->announced++;
	return true;
}
static const struct nic_ops fake_ops = {
	.readable = fake_readable, .writable = fake_writable, .link_changed = fake_link, .announce = fake_announce};

static void on_event(void *opaque, const char *name, const char *data)
{
	size_t n = strlen(events);

	snprintf(events + n, sizeof(events) - n, "%s %s;", name, data);
}

static int attach(struct fake *f, const char *id, const char *netdev, unsigned queues)
{
	*f = (struct fake){.room = sizeof(f->got)};
	pthread_mutex_init(&f->lock, NULL);
	f->dev.class = &fake_class;
	f->dev.lock = &f->lock;
	snprintf(f->dev.id, sizeof(f->dev.id), "%s", id);
	return nic_attach(&f->nic, &f->dev, netdev, queues, f->mac, &fake_ops, &e);
}

static void want(struct fake *f, unsigned frames)
{
	pthread_mutex_lock(&f->lock);
	f->takes = frames;
	nic_want_packets(&f->nic, 0, true);
	pthread_mutex_unlock(&f->lock);
}

static bool send_frame(struct fake *f, size_t len, uint8_t fill)
{
	uint8_t frame[NET_PACKET_MAX + 100];
	struct iovec iov[3] = {{frame, 6}, {frame + 6, MIN(len - 6, (size_t)8)}, {frame + 14, len > 14 ? len - 14 : 0}};
	bool ok;

	memset(frame, fill, sizeof(frame));
	pthread_mutex_lock(&f->lock);
	ok = netdev_send(&f->nic, 0, iov, 3);
	pthread_mutex_unlock(&f->lock);
	return ok;
}

static struct net_stats stats(struct fake *f)
{
	struct net_stats s;

	nic_get_stats(&f->nic, &s);
	return s;
}

static void idle(void)
{
	while (loop_step(loop_main(), 0) > 0)
		continue;
}

#define WAIT(cond)                                                                        \
	do {                                                                              \
		time_t end_ = time(NULL) + 10;                                            \
		while (!(cond)) {                                                         \
			loop_step(loop_main(), 5);                                        \
			ck_assert_msg(time(NULL) < end_, "did not come true: %s", #cond); \
		}                                                                         \
	} while (0)

static struct netdev *open_dev(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static struct netdev *open_dev(const char *fmt, ...)
{
	struct netdev *d = NULL;
	struct opts o;
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	e = ERR_INIT;
	if (!opts_parse(&o, text, "type", &e)) {
		d = netdev_open(&o, &e);
		opts_free(&o);
	}
	return d;
}

#define OPEN(...) ck_assert_msg(open_dev(__VA_ARGS__) != NULL, "not opened: %s", e.msg)
#define REFUSED(text, ...)                                                                  \
	do {                                                                                \
		ck_assert_ptr_null(open_dev(__VA_ARGS__));                                  \
		ck_assert_msg(strstr(e.msg, text), "expected '%s', got '%s'", text, e.msg); \
	} while (0)

static void setup(void)
{
	ck_assert(!loop_init_main(&e));
	net_set_event_handler(on_event, NULL);
	strcpy(dir, "/tmp/vmm-net-XXXXXX");
	ck_assert(mkdtemp(dir) != NULL);
}

static void teardown(void)
{
	nic_detach(&a.nic);
	nic_detach(&b.nic);
	netdev_close_all();
	loop_free(loop_main());
	ck_assert_msg(!rmdir(dir), "a socket file was left in %s", dir);
}

/* A netdev over one end of a pair; the other end. */
static int pair_dev(const char *id, int type)
{
	int fd[2];

	ck_assert(!socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fd));
	OPEN("socket,id=%s,fd=%d", id, fd[0]);
	return fd[1];
}

/* ---- the registry ---- */

START_TEST(options_are_checked)
{
	REFUSED("Parameter 'type' is missing", "id=n");
	REFUSED("did you mean 'dgram'", "dgrm,id=n");
	REFUSED("not offered", "vde,id=n");
	REFUSED("Parameter 'id' is missing", "socket,listen=:1");
	REFUSED("expects an identifier", "socket,id=1,listen=:1");
	REFUSED("exactly one of", "socket,id=n");
	REFUSED("exactly one of", "socket,id=n,listen=:1,connect=:2");
	REFUSED("localaddr= is only valid", "socket,id=n,listen=:1,localaddr=1.1.1.1");
	REFUSED("localaddr= is mandatory", "socket,id=n,udp=127.0.0.1:1");
	REFUSED("not a multicast address", "socket,id=n,mcast=10.0.0.1:1");
	REFUSED("not HOST:PORT", "socket,id=n,connect=nowhere");
	REFUSED("is not an open file descriptor", "socket,id=n,fd=777");
	REFUSED("not found", "socket,id=n,fd=name");
	REFUSED("reconnect", "stream,id=n,addr.type=unix,addr.path=/x,reconnect=1");
	REFUSED("expects inet, unix or fd", "stream,id=n,addr.type=vsock");
	REFUSED("cannot connect to unix:/nowhere/x", "stream,id=n,addr.type=unix,addr.path=/nowhere/x");
	REFUSED("dgram requires remote=", "dgram,id=n,local.type=unix,local.path=/x");
	REFUSED("goes with local.path only", "dgram,id=n,local.type=unix,local.host=h,remote.type=unix,remote.path=/x");
	ck_assert_ptr_null(netdev_next(NULL));
}
END_TEST

START_TEST(netdevs_have_one_owner)
{
	int fd = pair_dev("n", SOCK_DGRAM);

	REFUSED("Duplicate ID 'n' for netdev", "socket,id=n,fd=%d", fd);
	ck_assert_int_eq(attach(&a, "nic0", "x", 1), -ENODEV);
	ck_assert_str_eq(e.msg, "Property 'fake.netdev' can't find value 'x'");
	ck_assert(!attach(&a, "nic0", "n", 1));
	ck_assert_int_eq(attach(&b, "nic1", "n", 1), -EBUSY);
	ck_assert_str_eq(e.msg, "Property 'fake.netdev' can't take value 'n', it's in use");
	nic_detach(&a.nic);
	nic_detach(&a.nic);
	ck_assert(!attach(&b, "nic1", "n", 1));
	ck_assert_ptr_eq(netdev_nic(netdev_find("n")), &b.nic);
	ck_assert_int_eq(netdev_remove("x", &e), -ENODEV);
	ck_assert_int_eq(e.class, ERR_DEVICE_NOT_FOUND);
	ck_assert(!netdev_remove("n", &e));
	ck_assert_uint_eq(b.link_changes, 1);
	ck_assert(!b.link && !nic_link_up(&b.nic));
	ck_assert(send_frame(&b, FRAME, 1)); /* into nothing */
	ck_assert_uint_eq(stats(&b).tx_dropped, 1);
	close(fd);
}
END_TEST

START_TEST(macs_are_numbered)
{
	static const uint8_t second[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x57};

	ck_assert(!attach(&a, "nic0", NULL, 1));
	ck_assert_uint_eq(a.mac[5], 0x56);
	ck_assert(!attach(&b, "nic1", NULL, 1));
	ck_assert(!memcmp(b.mac, second, 6));
	nic_detach(&a.nic);
	ck_assert(!attach(&a, "nic0", NULL, 1));
	ck_assert_uint_eq(a.mac[5], 0x56);
	ck_assert(!memcmp(a.nic.mac, a.mac, 6));
}
END_TEST

/* ---- links and flow ---- */

START_TEST(frames_go_both_ways)
{
	int fd = pair_dev("n", SOCK_DGRAM);
	uint8_t frame[2048];

	ck_assert(!attach(&a, "nic0", "n", 1));
	ck_assert(send_frame(&a, FRAME, 7));
	ck_assert_int_eq(recv(fd, frame, sizeof(frame), MSG_DONTWAIT), FRAME);
	ck_assert_uint_eq(frame[59], 7);
	memset(frame, 9, sizeof(frame));
	ck_assert_int_eq(send(fd, frame, 1514, 0), 1514);
	idle();
	ck_assert_uint_eq(a.frames, 0); /* not wanted: it stays where it is */
	want(&a, 5);
	idle();
	ck_assert_uint_eq(a.frames, 1);
	ck_assert_uint_eq(a.len, 1514);
	ck_assert_uint_eq(a.got[1513], 9);
	ck_assert_uint_eq(stats(&a).rx_packets, 1);
	ck_assert_uint_eq(stats(&a).rx_bytes, 1514);
	ck_assert_uint_eq(stats(&a).tx_packets, 1);
	ck_assert_uint_eq(stats(&a).tx_bytes, FRAME);
	close(fd);
}
END_TEST

START_TEST(odd_frames_are_dropped_and_counted)
{
	int fd = pair_dev("n", SOCK_DGRAM);
	uint8_t frame[2048] = {0};

	ck_assert(!attach(&a, "nic0", "n", 1));
	ck_assert(send_frame(&a, 13, 0));
	ck_assert(send_frame(&a, NET_PACKET_MAX + 1, 0));
	ck_assert_uint_eq(stats(&a).tx_dropped, 2);
	ck_assert_int_lt(recv(fd, frame, sizeof(frame), MSG_DONTWAIT), 0);
	send(fd, frame, 0, 0);
	send(fd, frame, 13, 0);
	send(fd, frame, 200, 0);
	send(fd, frame, FRAME, 0);
	a.room = 100;
	want(&a, 5);
	idle();
	ck_assert(a.errors); /* the 200 */
	ck_assert_uint_eq(a.frames, 1);
	ck_assert_uint_eq(a.len, FRAME);
	ck_assert_uint_eq(stats(&a).rx_dropped, 2);
	close(fd);
}
END_TEST

START_TEST(a_nic_without_room_is_left_alone)
{
	int fd = pair_dev("n", SOCK_DGRAM);
	uint8_t frame[FRAME] = {0};

	ck_assert(!attach(&a, "nic0", "n", 1));
	for (int i = 0; i < 5; i++)
		send(fd, frame, sizeof(frame), 0);
	want(&a, 2);
	idle();
	ck_assert_uint_eq(a.frames, 2);
	want(&a, 10);
	idle();
	ck_assert_uint_eq(a.frames, 5);
	net_guest_runs(false);
	send(fd, frame, sizeof(frame), 0);
	idle();
	ck_assert_uint_eq(a.frames, 5);
	net_guest_runs(true);
	idle();
	ck_assert_uint_eq(a.frames, 6);
	close(fd);
}
END_TEST

static void *want_from_a_vcpu(void *arg)
{
	want(&a, 1);
	return arg;
}

START_TEST(any_thread_may_want)
{
	int fd = pair_dev("n", SOCK_DGRAM);
	uint8_t frame[FRAME] = {0};
	pthread_t t;

	ck_assert(!attach(&a, "nic0", "n", 1));
	for (unsigned i = 1; i <= 50; i++) {
		send(fd, frame, sizeof(frame), 0);
		ck_assert(!pthread_create(&t, NULL, want_from_a_vcpu, NULL));
		WAIT(a.frames == i);
		pthread_join(t, NULL);
	}
	close(fd);
}
END_TEST

START_TEST(links_go_down_and_up)
{
	int fd = pair_dev("n", SOCK_DGRAM);
	uint8_t frame[FRAME] = {0};

	ck_assert_int_eq(net_set_link("nobody", true, &e), -ENODEV);
	ck_assert_str_eq(e.msg, "Device 'nobody' not found");
	ck_assert(!attach(&a, "nic0", "n", 1));
	ck_assert(nic_link_up(&a.nic));
	want(&a, 10);
	ck_assert(!net_set_link("nic0", false, &e));
	ck_assert(a.link_changes == 1 && !a.link);
	send(fd, frame, sizeof(frame), 0);
	idle();
	ck_assert(send_frame(&a, FRAME, 0));
	ck_assert_uint_eq(stats(&a).rx_dropped, 1);
	ck_assert_uint_eq(stats(&a).tx_dropped, 1);
	ck_assert(!net_set_link("nic0", true, &e));
	ck_assert(a.link_changes == 2 && a.link);
	idle();
	ck_assert_uint_eq(a.frames, 0); /* what came meanwhile is gone */
	ck_assert(!net_set_link("n", false, &e));
	ck_assert(a.link_changes == 3 && !a.link);
	ck_assert(!net_set_link("n", false, &e));
	ck_assert_uint_eq(a.link_changes, 3);
	ck_assert(!net_set_link("n", true, &e));
	send(fd, frame, sizeof(frame), 0);
	idle();
	ck_assert_uint_eq(a.frames, 1);
	close(fd);
}
END_TEST

START_TEST(a_full_network_holds_frames_back)
{
	int fd = pair_dev("n", SOCK_DGRAM), sent = 0, got = 0;
	uint8_t frame[2048];

	ck_assert(!attach(&a, "nic0", "n", 1));
	while (send_frame(&a, FRAME, 0) && sent < 100000)
		sent++;
	ck_assert_int_lt(sent, 100000);
	idle();
	ck_assert_uint_eq(a.writable, 0);
	while (recv(fd, frame, sizeof(frame), MSG_DONTWAIT) > 0)
		got++;
	ck_assert_int_eq(got, sent);
	WAIT(a.writable == 1);
	ck_assert(send_frame(&a, FRAME, 0));
	ck_assert_uint_eq(stats(&a).tx_dropped, 0);
	close(fd);
}
END_TEST

START_TEST(announcements_come_in_rounds)
{
	int fd = pair_dev("n", SOCK_DGRAM), rounds = 0;
	const char *const other[] = {"nic1", NULL}, *const ours[] = {"nic0", NULL};
	struct net_announce how = {.initial_ms = 1, .max_ms = 3, .step_ms = 5, .rounds = 4, .interfaces = ours};
	uint8_t frame[2048];

	ck_assert(!attach(&a, "nic0", "n", 1));
	ck_assert(!net_announce(&how, &e));
	ck_assert_uint_eq(a.announced, 1);
	WAIT(a.announced == 4);
	while (recv(fd, frame, sizeof(frame), MSG_DONTWAIT) == FRAME) {
		ck_assert_uint_eq(get_be32(frame), 0xffffffff);
		ck_assert_uint_eq(get_be16(frame + 12), 0x8035);
		ck_assert_uint_eq(get_be16(frame + 20), 3);
		ck_assert(!memcmp(frame + 6, a.mac, 6) && !memcmp(frame + 22, a.mac, 6) &&
			  !memcmp(frame + 32, a.mac, 6));
		rounds++;
	}
	ck_assert_int_eq(rounds, 4);
	how.interfaces = other;
	ck_assert(!net_announce(&how, &e));
	how.rounds = 0; /* takes the other's place */
	ck_assert(!net_announce(&how, &e));
	ck_assert_uint_eq(a.announced, 4);
	close(fd);
}
END_TEST

/* ---- streams ---- */

static void put_frame(int fd, uint32_t len, uint8_t fill)
{
	uint8_t buf[4 + 4096 + 65536];

	put_be32(buf, len);
	memset(buf + 4, fill, len);
	for (size_t done = 0; done < 4 + len;) {
		ssize_t n = send(fd, buf + done, 4 + len - done, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0)
			done += (size_t)n;
		else
			idle();
	}
}

START_TEST(streams_frame)
{
	int fd = pair_dev("n", SOCK_STREAM);
	uint8_t buf[4096];

	ck_assert(!attach(&a, "nic0", "n", 1));
	ck_assert(send_frame(&a, 100, 3));
	ck_assert_int_eq(recv(fd, buf, sizeof(buf), 0), 104);
	ck_assert_uint_eq(get_be32(buf), 100);
	ck_assert(buf[4] == 3 && buf[103] == 3);
	/* Byte by byte, and an empty frame in between. */
	put_be32(buf, 0);
	put_be32(buf + 4, 20);
	memset(buf + 8, 5, 20);
	want(&a, 100);
	for (int i = 0; i < 28; i++) {
		ck_assert_uint_eq(a.frames, 0);
		send(fd, buf + i, 1, 0);
		idle();
	}
	ck_assert_uint_eq(a.frames, 1);
	ck_assert_uint_eq(a.len, 20);
	close(fd);
}
END_TEST

START_TEST(streams_keep_what_nobody_wants_yet)
{
	int fd = pair_dev("n", SOCK_STREAM);

	ck_assert(!attach(&a, "nic0", "n", 1));
	for (int i = 0; i < 10; i++)
		put_frame(fd, 60 + (uint32_t)i, 1);
	for (unsigned i = 1; i <= 10; i++) { /* all are read at once, and handed out one by one */
		want(&a, 1);
		idle();
		ck_assert_uint_eq(a.frames, i);
		ck_assert_uint_eq(a.len, 59 + i);
	}
	close(fd);
}
END_TEST

START_TEST(streams_take_large_frames_and_refuse_absurd_ones)
{
	int fd = pair_dev("n", SOCK_STREAM);
	uint8_t absurd[4] = {0xff, 0xff, 0xff, 0xff};

	ck_assert(!attach(&a, "nic0", "n", 1));
	want(&a, 100);
	put_frame(fd, 4096 + 65536, 1); /* more than an Ethernet frame: passed over */
	put_frame(fd, NET_PACKET_MAX, 2);
	WAIT(a.frames == 1);
	ck_assert_uint_eq(a.len, NET_PACKET_MAX);
	ck_assert_uint_eq(stats(&a).rx_dropped, 1);
	send(fd, absurd, sizeof(absurd), 0);
	idle();
	ck_assert_int_eq(recv(fd, absurd, sizeof(absurd), 0), 0); /* hung up */
	ck_assert(send_frame(&a, FRAME, 0));
	ck_assert_uint_eq(stats(&a).tx_dropped, 1);
	close(fd);
}
END_TEST

START_TEST(a_peer_that_stalls_loses_frames_but_not_the_stream)
{
	int fd = pair_dev("n", SOCK_STREAM);
	uint8_t buf[8192];
	size_t in = 0;
	uint32_t len;

	ck_assert(!attach(&a, "nic0", "n", 1));
	while (send_frame(&a, 1500, 4))
		continue;
	WAIT(a.writable == 1); /* after 250 ms */
	ck_assert(send_frame(&a, 1500, 4));
	ck_assert_uint_eq(stats(&a).tx_dropped, 1);
	/* It reads on: whole frames. */
	for (;;) {
		ssize_t n = recv(fd, buf + in, sizeof(buf) - in, MSG_DONTWAIT);

		idle();
		if (n < 0)
			break;
		for (in += (size_t)n; in >= 1504; in -= 1504) {
			ck_assert_uint_eq(len = get_be32(buf), 1500);
			ck_assert_uint_eq(buf[1503], 4);
			memmove(buf, buf + 1504, in - 1504);
		}
	}
	ck_assert_uint_eq(in, 0);
	ck_assert(send_frame(&a, 1500, 4));
	ck_assert_int_eq(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), 1504);
	close(fd);
}
END_TEST

static uint16_t free_port(int type)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, type, 0);

	ck_assert(!bind(fd, (struct sockaddr *)&sin, len) && !getsockname(fd, (struct sockaddr *)&sin, &len));
	close(fd);
	return ntohs(sin.sin_port);
}

static void talk(void)
{
	ck_assert(!attach(&a, "nic0", "s", 1));
	ck_assert(!attach(&b, "nic1", "c", 1));
	want(&a, 1000);
	want(&b, 1000);
	WAIT((send_frame(&b, FRAME, 1), a.got[20] == 1)); /* connected in both directions */
	WAIT((send_frame(&a, FRAME, 2), b.got[20] == 2)); /* a multicast group hears its own */
}

START_TEST(tcp_server_and_client)
{
	uint16_t port = free_port(SOCK_STREAM);

	OPEN("socket,id=s,listen=127.0.0.1:%u", port);
	OPEN("socket,id=c,connect=127.0.0.1:%u", port);
	talk();
	/* The client goes, another comes. */
	ck_assert(!netdev_remove("c", &e));
	nic_detach(&b.nic);
	OPEN("socket,id=c,connect=127.0.0.1:%u", port);
	ck_assert(!attach(&b, "nic1", "c", 1));
	a.frames = 0;
	want(&a, 1000);
	WAIT((send_frame(&b, FRAME, 1), a.frames > 0));
}
END_TEST

START_TEST(unix_streams_tell_management)
{
	OPEN("stream,id=s,server=on,addr.type=unix,addr.path=%s/s", dir);
	REFUSED("is in use by another process", "stream,id=t,server=on,addr.type=unix,addr.path=%s/s", dir);
	OPEN("stream,id=c,addr.type=unix,addr.path=%s/s", dir);
	talk();
	ck_assert_msg(
		strstr(events,
		       "NETDEV_STREAM_CONNECTED {\"netdev-id\": \"c\", \"addr\": {\"type\": \"unix\", \"path\": "),
		"%s", events);
	ck_assert_ptr_nonnull(strstr(events, "NETDEV_STREAM_CONNECTED {\"netdev-id\": \"s\""));
	ck_assert(!netdev_remove("c", &e));
	WAIT(strstr(events, "NETDEV_STREAM_DISCONNECTED {\"netdev-id\": \"s\"}"));
}
END_TEST

START_TEST(a_guest_that_takes_nothing_does_not_keep_a_dead_peer)
{
	OPEN("stream,id=s,server=on,addr.type=unix,addr.path=%s/s", dir);
	OPEN("stream,id=c,addr.type=unix,addr.path=%s/s", dir);
	ck_assert(!attach(&a, "nic0", "s", 1));
	ck_assert(!attach(&b, "nic1", "c", 1));
	WAIT(strstr(events, "CONNECTED {\"netdev-id\": \"s\""));
	ck_assert(send_frame(&b, FRAME, 1));
	nic_detach(&b.nic);
	ck_assert(!netdev_remove("c", &e));
	WAIT(strstr(events, "DISCONNECTED {\"netdev-id\": \"s\""));
}
END_TEST

START_TEST(stale_socket_files_are_replaced)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s/s", dir);
	ck_assert(!bind(fd, (struct sockaddr *)&un, sizeof(un)));
	close(fd);
	OPEN("stream,id=s,server=on,addr.type=unix,addr.path=%s/s", dir);
	ck_assert(!netdev_remove("s", &e));
	fd = open(un.sun_path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	REFUSED("is not a socket", "stream,id=s,server=on,addr.type=unix,addr.path=%s/s", dir);
	unlink(un.sun_path);
}
END_TEST

/* ---- datagrams ---- */

START_TEST(udp_tunnel)
{
	uint16_t p = free_port(SOCK_DGRAM), q = free_port(SOCK_DGRAM);

	OPEN("socket,id=s,udp=127.0.0.1:%u,localaddr=127.0.0.1:%u", p, q);
	OPEN("dgram,id=c,remote.type=inet,remote.host=127.0.0.1,remote.port=%u,local.type=inet,local.host=127.0.0.1,"
	     "local.port=%u",
	     q, p);
	talk();
}
END_TEST

START_TEST(unix_datagrams)
{
	int sent = 0;

	OPEN("dgram,id=s,local.type=unix,local.path=%s/a,remote.type=unix,remote.path=%s/b", dir, dir);
	ck_assert(!attach(&a, "nic0", "s", 1));
	ck_assert(send_frame(&a, FRAME, 0)); /* nobody there yet */
	ck_assert_uint_eq(stats(&a).tx_dropped, 1);
	nic_detach(&a.nic);
	OPEN("dgram,id=c,local.type=unix,local.path=%s/b,remote.type=unix,remote.path=%s/a", dir, dir);
	talk();
	nic_detach(&b.nic);
	net_guest_runs(false);
	ck_assert(!attach(&b, "nic1", "c", 1));
	while (send_frame(&a, FRAME, 0) && sent < 100000)
		sent++;
	ck_assert_int_lt(sent, 100000);
	net_guest_runs(true);
	want(&b, 1000000);
	WAIT(a.writable);
	ck_assert_uint_gt(b.frames, 0);
}
END_TEST

START_TEST(multicast_bus)
{
	uint16_t port = free_port(SOCK_DGRAM);

	/* Only where the loopback interface does multicast. */
	if (!open_dev("socket,id=s,mcast=239.66.66.66:%u,localaddr=127.0.0.1", port))
		return;
	OPEN("dgram,id=c,remote.type=inet,remote.host=239.66.66.66,remote.port=%u,local.type=inet,local.host=127.0.0.1",
	     port);
	talk();
}
END_TEST

START_TEST(passed_descriptors)
{
	int fd[2];

	ck_assert(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fd));
	ck_assert(!fd_name_set("cable", fd[0], &e));
	REFUSED("is not a stream socket", "stream,id=n,addr.type=fd,addr.str=%d", dup(fd[1]));
	OPEN("dgram,id=n,local.type=fd,local.str=cable");
	ck_assert_str_eq(netdev_type(netdev_find("n")), "dgram");
	ck_assert_str_eq(netdev_options(netdev_find("n")), "type=dgram,id=n,local.type=fd,local.str=cable");
	close(fd[1]);
}
END_TEST

/* ---- taps: in a network namespace of the test's own ---- */

static bool in_namespace(void)
{
	static bool told;
	int fd;

	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET)) {
		if (!told)
			fprintf(stderr, "tap tests skipped: no network namespace: %s\n", strerror(errno));
		told = true;
		return false;
	}
	fd = open("/dev/net/tun", O_RDWR);
	if (fd < 0) {
		fprintf(stderr, "tap tests skipped: /dev/net/tun: %s\n", strerror(errno));
		return false;
	}
	close(fd);
	return true;
}

/* The host's side of the interface: up, and a packet socket on it. */
static int host_side(const char *name)
{
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_ll sll = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	ck_assert(!ioctl(fd, SIOCGIFINDEX, &ifr));
	sll.sll_ifindex = ifr.ifr_ifindex;
	ifr.ifr_flags = IFF_UP;
	ck_assert(!ioctl(fd, SIOCSIFFLAGS, &ifr));
	ck_assert(!bind(fd, (struct sockaddr *)&sll, sizeof(sll)));
	return fd;
}

/* The kernel announces itself on a new interface as well: only frames of our own type count. */
static void fill_frame(uint8_t *frame, size_t len, uint8_t fill)
{
	memset(frame, fill, len);
	memset(frame, 0xff, 6);
	put_be16(frame + 12, 0x88b5);
}

static bool host_gets(int fd, uint8_t fill)
{
	uint8_t buf[4096];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
		if (n >= FRAME && buf[13] == fill && buf[n - 1] == fill)
			return true;
	return false;
}

START_TEST(tap_frames)
{
	uint8_t frame[1514];
	int fd;

	if (!in_namespace())
		return;
	OPEN("tap,id=n,ifname=vt0,script=no,downscript=no");
	fd = host_side("vt0");
	ck_assert(!attach(&a, "nic0", "n", 1));
	want(&a, 1000);
	fill_frame(frame, sizeof(frame), 5);
	ck_assert_int_eq(send(fd, frame, sizeof(frame), 0), sizeof(frame));
	WAIT(a.len == sizeof(frame));
	ck_assert(!memcmp(a.got, frame, sizeof(frame)));
	ck_assert(send_frame(&a, FRAME, 7));
	WAIT(host_gets(fd, 7));
	a.room = 200;
	a.errors = false;
	send(fd, frame, sizeof(frame), 0);
	WAIT(a.errors);
	ck_assert_uint_ge(stats(&a).rx_dropped, 1);
	/* vnet headers: the NIC sees them from here on. */
	a.room = sizeof(a.got);
	ck_assert_uint_eq(nic_offloads(&a.nic) & NET_CSUM, NET_CSUM);
	ck_assert(!nic_set_vnet_header(&a.nic, 12));
	nic_set_offloads(&a.nic, NET_CSUM | NET_TSO4);
	send(fd, frame, sizeof(frame), 0);
	WAIT(a.len == sizeof(frame) + 12);
	ck_assert(!memcmp(a.got + 12, frame, sizeof(frame)));
	nic_detach(&a.nic);
	ck_assert(!attach(&a, "nic0", "n", 1)); /* another NIC that knows no headers */
	want(&a, 1000);
	send(fd, frame, sizeof(frame), 0);
	WAIT(a.len == sizeof(frame));
	close(fd);
}
END_TEST

START_TEST(tap_queues)
{
	struct iovec iov = {.iov_base = a.got, .iov_len = FRAME};
	int fd;

	if (!in_namespace())
		return;
	REFUSED("invalid with fd=", "tap,id=n,fd=3,ifname=x");
	REFUSED("vhostforce=on", "tap,id=n,script=no,vhostforce=on");
	OPEN("tap,id=n,ifname=vt0,script=no,downscript=no,queues=2");
	ck_assert_int_eq(attach(&a, "nic0", "n", 1), -EINVAL);
	ck_assert_ptr_nonnull(strstr(e.msg, "2 queue pairs"));
	ck_assert(!attach(&a, "nic0", "n", 4));
	fd = host_side("vt0");
	fill_frame(a.got, FRAME, 9);
	a.got[13] = 9;
	for (unsigned q = 0; q < 4; q++)
		ck_assert(netdev_send(&a.nic, q, &iov, 1));
	ck_assert_uint_eq(stats(&a).tx_packets, 2); /* the others have no cable */
	ck_assert(host_gets(fd, 9) && host_gets(fd, 9) && !host_gets(fd, 9));
	nic_set_queues(&a.nic, 1);
	ck_assert(netdev_send(&a.nic, 1, &iov, 1));
	ck_assert_uint_eq(stats(&a).tx_packets, 2);
	nic_set_queues(&a.nic, 2);
	ck_assert(netdev_send(&a.nic, 1, &iov, 1));
	ck_assert_uint_eq(stats(&a).tx_packets, 3);
	idle();
	close(fd);
}
END_TEST

START_TEST(tap_scripts)
{
	char path[128], made[160];
	FILE *f;

	if (!in_namespace())
		return;
	snprintf(path, sizeof(path), "%s/script", dir);
	REFUSED("script=no runs none", "tap,id=n,script=%s,downscript=no", path);
	f = fopen(path, "w");
	fprintf(f, "#!/bin/sh\nip link show $1 >/dev/null && touch %s/$1.0\n",
		dir); /* the interface is there, also at the end */
	fclose(f);
	chmod(path, 0700);
	OPEN("tap,id=n,ifname=vt0,script=%s,downscript=%s", path, path);
	snprintf(made, sizeof(made), "%s/vt0.0", dir);
	ck_assert(!unlink(made));
	ck_assert(!netdev_remove("n", &e)); /* waits for the second */
	ck_assert(!unlink(made));
	f = fopen(path, "w");
	fprintf(f, "#!/bin/sh\nexit 3\n");
	fclose(f);
	REFUSED("failed with status 3", "tap,id=n,ifname=vt0,script=%s", path);
	net_forbid_helpers();
	REFUSED("the sandbox is closed", "tap,id=n,ifname=vt0,script=%s", path);
	unlink(path);
}
END_TEST

START_TEST(tap_passed_and_lost)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	int fd, ctl;

	if (!in_namespace())
		return;
	fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	REFUSED("is not a tap", "tap,id=n,fd=%d", dup(fd));
	strcpy(ifr.ifr_name, "vt0");
	ck_assert(!ioctl(fd, TUNSETIFF, &ifr));
	ck_assert(!fd_name_set("passed", fd, &e));
	OPEN("tap,id=n,fd=passed,vhost=off");
	ck_assert(!attach(&a, "nic0", "n", 1));
	ck_assert_uint_eq(nic_offloads(&a.nic), 0);
	ck_assert_int_eq(nic_set_vnet_header(&a.nic, 10), -ENOTSUP);
	want(&a, 1000);
	ctl = host_side("vt0");
	ck_assert(send_frame(&a, FRAME, 3));
	WAIT(host_gets(ctl, 3));
	/* Somebody deletes the interface: one warning, no busy loop. */
	ck_assert_int_eq(system("ip link del vt0"), 0);
	idle();
	ck_assert_int_eq(loop_step(loop_main(), 0), 0);
	ck_assert(send_frame(&a, FRAME, 3));
	close(ctl);
}
END_TEST

START_TEST(tap_on_a_bridge)
{
	uint8_t frame[FRAME];
	struct iovec iov = {frame, FRAME};
	int fd;

	if (!in_namespace())
		return;
	REFUSED("cannot add tap0 to the bridge vbr7: No such device", "bridge,id=n,br=vbr7");
	if (system("ip link add vbr7 type bridge 2>/dev/null && ip link set vbr7 mtu 1400 up")) {
		fprintf(stderr, "bridge test skipped: this kernel has no bridges\n");
		return;
	}
	OPEN("bridge,id=n,br=vbr7");
	ck_assert_int_eq(system("ip -o link show master vbr7 | grep -q 'tap0.*UP.*mtu 1400.*fe:'"), 0);
	ck_assert(!attach(&a, "nic0", "n", 1));
	ck_assert_uint_eq(nic_offloads(&a.nic) & NET_TSO4, NET_TSO4);
	want(&a, 1000);
	fd = host_side("vbr7");
	fill_frame(frame, sizeof(frame), 5);
	WAIT((send(fd, frame, sizeof(frame), 0), idle(), a.len == FRAME && !memcmp(a.got, frame, FRAME)));
	fill_frame(frame, sizeof(frame), 6); /* an even source: bridges drop others */
	frame[13] = 6;
	WAIT((netdev_send(&a.nic, 0, &iov, 1), host_gets(fd, 6)));
	close(fd);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("net");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 30);
	tcase_add_test(t, options_are_checked);
	tcase_add_test(t, netdevs_have_one_owner);
	tcase_add_test(t, macs_are_numbered);
	tcase_add_test(t, frames_go_both_ways);
	tcase_add_test(t, odd_frames_are_dropped_and_counted);
	tcase_add_test(t, a_nic_without_room_is_left_alone);
	tcase_add_test(t, any_thread_may_want);
	tcase_add_test(t, links_go_down_and_up);
	tcase_add_test(t, a_full_network_holds_frames_back);
	tcase_add_test(t, announcements_come_in_rounds);
	tcase_add_test(t, streams_frame);
	tcase_add_test(t, streams_keep_what_nobody_wants_yet);
	tcase_add_test(t, streams_take_large_frames_and_refuse_absurd_ones);
	tcase_add_test(t, a_peer_that_stalls_loses_frames_but_not_the_stream);
	tcase_add_test(t, tcp_server_and_client);
	tcase_add_test(t, unix_streams_tell_management);
	tcase_add_test(t, a_guest_that_takes_nothing_does_not_keep_a_dead_peer);
	tcase_add_test(t, stale_socket_files_are_replaced);
	tcase_add_test(t, udp_tunnel);
	tcase_add_test(t, unix_datagrams);
	tcase_add_test(t, multicast_bus);
	tcase_add_test(t, passed_descriptors);
	tcase_add_test(t, tap_frames);
	tcase_add_test(t, tap_queues);
	tcase_add_test(t, tap_scripts);
	tcase_add_test(t, tap_passed_and_lost);
	tcase_add_test(t, tap_on_a_bridge);
	return run_suite("net", (TCase *[]){t, NULL});
}
