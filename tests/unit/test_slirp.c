/*
 * -netdev user as a guest sees it: Ethernet frames in and out, libslirp behind its ring and on its thread, under its
 * sandbox role. Peers are sockets of this program on loopback addresses; nothing else is contacted.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include "frames.h"
#include "local.h"
#include "tests/lib/suite.h"
#include "vmm/chardev.h"
#include "vmm/sandbox.h"

/* ---- set-up ---- */

static char dir[64];

/* With a name, and the wire plugged in. */
static struct netdev *open_user(const char *options)
{
	struct err e = ERR_INIT;
	char text[600];
	struct netdev *d;

	snprintf(text, sizeof(text), "user,id=u0%s%s", *options ? "," : "", options);
	d = try_open(text, &e);
	ck_assert_msg(d != NULL, "%s", e.msg);
	wire_attach("u0");
	return d;
}

/* tools/sanitize: a sanitizer's own system calls are in no filter. */
static bool unconfined(void)
{
	const char *args = getenv("VMM_TEST_ARGS");

	return args && strstr(args, "-sandbox off");
}

static void setup(void)
{
	ck_assert_int_eq(loop_init_main(NULL), 0);
	if (!unconfined())
		sandbox_enable(); /* the slirp thread then enters its role: a call it may not make ends the test */
	strcpy(dir, "/tmp/vmm-test-slirp-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void teardown(void)
{
	char command[128];

	if (wire.nic.ops)
		wire_detach();
	netdev_close_all();
	chardev_close_all();
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

/* Wait for fd while the loop runs. */
static bool wait_fd(int fd, short events)
{
	uint64_t end = clock_ns(VCLOCK_REAL) + WAIT_MS * NS_PER_MS;
	struct pollfd p = {fd, events, 0};

	while (poll(&p, 1, 5) <= 0) {
		if (clock_ns(VCLOCK_REAL) >= end)
			return false;
		loop_step(loop_main(), 5);
	}
	return true;
}

static int accept_one(int server)
{
	int fd;

	ck_assert(wait_fd(server, POLLIN));
	fd = accept4(server, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 7 + i / 251);
}

static void introduce(void)
{
	send_arp(1, GUEST_IP, ROUTER);
}

/* ---- ARP, ICMP, DHCP ---- */

static bool is_arp_reply(const struct frame *f)
{
	return f->len >= 42 && get_be16(f->b + 12) == 0x0806 && get_be16(f->b + 20) == 2;
}

static bool is_icmp(const struct frame *f)
{
	return protocol_of(f) == 1;
}

static void send_ping(uint32_t to, uint16_t sequence)
{
	struct frame f;

	put_ether(&f, (const uint8_t[]){0x52, 0x55, 10, 0, 2, 2}, 0x0800);
	f.b[34] = 8;
	put_be16(f.b + 40, sequence);
	memcpy(f.b + 42, "are you there?", 14);
	put_ip(&f, GUEST_IP, to, 1, 8 + 14);
	wire_send(f.b, f.len);
}

static void assert_answers(void)
{
	static uint16_t sequence = 100;
	struct frame *f;

	introduce();
	send_ping(ROUTER, ++sequence);
	do {
		f = wire_wait(is_icmp, WAIT_MS);
		ck_assert_msg(f != NULL, "10.0.2.2 does not answer an echo request");
	} while (f->b[34] != 0 || get_be16(f->b + 40) != sequence);
	ck_assert_mem_eq(f->b + 42, "are you there?", 14);
	ck_assert_uint_eq(get_be32(f->b + 26), ROUTER);
}

START_TEST(test_arp)
{
	static const uint8_t router_mac[] = {0x52, 0x55, 10, 0, 2, 2};
	struct frame *f;

	open_user("");
	introduce();
	f = wire_wait(is_arp_reply, WAIT_MS);
	ck_assert_ptr_nonnull(f);
	ck_assert_mem_eq(f->b + 22, router_mac, 6);
	ck_assert_uint_eq(get_be32(f->b + 28), ROUTER);
	ck_assert_mem_eq(f->b, guest_mac, 6);
}
END_TEST

START_TEST(test_ping)
{
	open_user("");
	assert_answers();
}
END_TEST

static bool is_dhcp(const struct frame *f)
{
	return protocol_of(f) == 17 && get_be16(f->b + 36) == 68;
}

static const uint8_t *dhcp_option(const struct frame *f, uint8_t code)
{
	for (size_t at = 42 + 240; at + 1 < f->len && f->b[at] != 255; at += f->b[at] ? 2u + f->b[at + 1] : 1)
		if (f->b[at] == code)
			return f->b + at + 1; /* its length, then it */
	return NULL;
}

static struct frame *ask_dhcp(uint8_t type, uint32_t wanted)
{
	uint8_t m[300] = {1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78};
	uint8_t *o = m + 240;
	struct frame *f;

	memcpy(m + 28, guest_mac, 6);
	put_be32(m + 236, 0x63825363);
	*o++ = 53, *o++ = 1, *o++ = type;
	if (wanted) {
		*o++ = 50, *o++ = 4;
		put_be32(o, wanted);
		o += 4;
	}
	*o = 255;
	send_udp(0, 68, 0xffffffff, 67, m, sizeof(m));
	f = wire_wait(is_dhcp, WAIT_MS);
	ck_assert_msg(f != NULL, "no answer to DHCP");
	return f;
}

static void assert_dhcp_ip(const struct frame *f, uint8_t code, uint32_t ip)
{
	const uint8_t *option = dhcp_option(f, code);

	ck_assert_msg(option && *option == 4 && get_be32(option + 1) == ip, "DHCP option %u", code);
}

static void assert_dhcp_text(const struct frame *f, uint8_t code, const char *text)
{
	const uint8_t *option = dhcp_option(f, code);

	ck_assert_msg(option && *option == strlen(text) && !memcmp(option + 1, text, *option),
		      "DHCP option %u is not '%s'", code, text);
}

START_TEST(test_dhcp)
{
	struct frame *f;

	open_user("hostname=pc,domainname=example.org,tftp-server-name=boot.example.org,bootfile=start.0,dnssearch=a."
		  "example,dnssearch=b."
		  "example");
	f = ask_dhcp(1, 0);
	ck_assert_uint_eq(get_be32(f->b + 42 + 16), GUEST_IP);
	ck_assert_uint_eq(dhcp_option(f, 53)[1], 2); /* OFFER */
	f = ask_dhcp(3, GUEST_IP);
	ck_assert_uint_eq(dhcp_option(f, 53)[1], 5); /* ACK */
	ck_assert_uint_eq(get_be32(f->b + 42 + 16), GUEST_IP);
	assert_dhcp_ip(f, 1, IP(255, 255, 255, 0));
	assert_dhcp_ip(f, 3, ROUTER);
	assert_dhcp_ip(f, 6, DNS);
	assert_dhcp_text(f, 12, "pc");
	assert_dhcp_text(f, 15, "example.org");
	assert_dhcp_text(f, 66, "boot.example.org");
	ck_assert_str_eq((const char *)f->b + 42 + 108, "start.0");
	/* RFC 3397: both domains, the second one's tail is a reference to the first */
	ck_assert_ptr_nonnull(dhcp_option(f, 119));
	ck_assert_ptr_nonnull(memmem(dhcp_option(f, 119), 30, "\1a\7example", 10));
	ck_assert_ptr_nonnull(memmem(dhcp_option(f, 119), 30, "\1b", 2));
}
END_TEST

START_TEST(test_own_network)
{
	struct frame *f;

	open_user("net=192.168.76.0/24,host=192.168.76.1,dns=192.168.76.9,dhcpstart=192.168.76.100");
	f = ask_dhcp(1, 0);
	ck_assert_uint_eq(get_be32(f->b + 42 + 16), IP(192, 168, 76, 100));
	assert_dhcp_ip(f, 3, IP(192, 168, 76, 1));
	assert_dhcp_ip(f, 6, IP(192, 168, 76, 9));
}
END_TEST

/* ---- connections ---- */

/* What the guest sends arrives at fd, and fd's answer at the guest: len bytes each way. */
static void assert_conversation(struct tcp *t, int fd, size_t len)
{
	uint8_t *back = malloc(len), data[FRAME_MAX], flags;
	size_t sent = 0, got = 0;

	for (size_t i = 0; i < len; i++)
		back[i] = pattern(i);
	tcp_send(t, TCP_ACK | TCP_PSH, "hello, host", 11);
	ck_assert(wait_fd(fd, POLLIN));
	ck_assert_int_eq(recv(fd, data, sizeof(data), 0), 11);
	ck_assert_mem_eq(data, "hello, host", 11);
	while (got < len) {
		ssize_t n = send(fd, back + sent, len - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
		int piece;

		sent += n > 0 ? (size_t)n : 0;
		piece = tcp_take(t, data, &flags, WAIT_MS);
		ck_assert_msg(piece >= 0, "%zu of %zu bytes came back", got, len);
		ck_assert(!t->reset && got + (size_t)piece <= len);
		ck_assert_mem_eq(data, back + got, (size_t)piece);
		got += (size_t)piece;
	}
	free(back);
}

/* The host closes, and the guest hears of it; then the other way round. */
static void assert_goodbye(struct tcp *t, int fd)
{
	uint8_t data[FRAME_MAX], flags;

	shutdown(fd, SHUT_WR);
	while (!t->closed)
		ck_assert_int_ge(tcp_take(t, data, &flags, WAIT_MS), 0);
	tcp_send(t, TCP_ACK | TCP_FIN, NULL, 0);
	ck_assert(wait_fd(fd, POLLIN));
	ck_assert_int_eq(recv(fd, data, 1, 0), 0);
	close(fd);
}

START_TEST(test_to_host)
{
	uint16_t port;
	int server = local_server(SOCK_STREAM, &port), fd;
	struct tcp t;

	open_user("");
	introduce();
	ck_assert(tcp_connect(&t, 4000, ROUTER, port, WAIT_MS));
	fd = accept_one(server);
	assert_conversation(&t, fd, 600000);
	assert_goodbye(&t, fd);
	close(server);
}
END_TEST

START_TEST(test_refused)
{
	struct tcp t;

	open_user("");
	introduce();
	ck_assert(!tcp_connect(&t, 4000, ROUTER, free_port(SOCK_STREAM), WAIT_MS));
	ck_assert_msg(t.reset, "no reset for a closed port");
}
END_TEST

START_TEST(test_hostfwd)
{
	uint16_t port = free_port(SOCK_STREAM);
	char options[100];
	struct tcp t;
	int fd;

	snprintf(options, sizeof(options), "hostfwd=tcp:127.0.0.1:%u-:7", port);
	open_user(options);
	introduce();
	fd = local_connect(port);
	ck_assert(tcp_accept(&t, 7));
	assert_conversation(&t, fd, 100000);
	assert_goodbye(&t, fd);
}
END_TEST

static bool is_udp_to_guest(const struct frame *f)
{
	return protocol_of(f) == 17 && get_be16(f->b + 36) != 68;
}

START_TEST(test_udp)
{
	uint16_t port, forwarded = free_port(SOCK_DGRAM);
	int server = local_server(SOCK_DGRAM, &port);
	struct sockaddr_in from, a = loopback(forwarded);
	socklen_t len = sizeof(from);
	char options[100], text[64] = "";
	struct frame *f;

	snprintf(options, sizeof(options), "hostfwd=udp:127.0.0.1:%u-10.0.2.15:9", forwarded);
	open_user(options);
	introduce();
	send_udp(GUEST_IP, 555, ROUTER, port, "question", 8);
	ck_assert(wait_fd(server, POLLIN));
	ck_assert_int_eq(recvfrom(server, text, sizeof(text), 0, (struct sockaddr *)&from, &len), 8);
	ck_assert_str_eq(text, "question");
	sendto(server, "answer", 6, 0, (struct sockaddr *)&from, len);
	f = wire_wait(is_udp_to_guest, WAIT_MS);
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(get_be16(f->b + 36), 555);
	ck_assert_mem_eq(f->b + 42, "answer", 6);

	sendto(server, "from outside", 12, 0, (struct sockaddr *)&a, sizeof(a));
	f = wire_wait(is_udp_to_guest, WAIT_MS);
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(get_be16(f->b + 36), 9);
	ck_assert_mem_eq(f->b + 42, "from outside", 12);
	close(server);
}
END_TEST

/* A piece of a UDP datagram, `at` bytes from its beginning. */
static void send_fragment(const uint8_t *piece, size_t at, size_t len, bool more)
{
	struct frame f;

	put_ether(&f, (const uint8_t[]){0x52, 0x55, 10, 0, 2, 2}, 0x0800);
	put_ip(&f, GUEST_IP, ROUTER, 17, len); /* its checksum of UDP is overwritten */
	memcpy(f.b + 34, piece, len);
	put_be16(f.b + 18, 77);
	put_be16(f.b + 20, (uint16_t)((more ? 0x2000 : 0) | at / 8));
	put_be16(f.b + 24, 0);
	put_be16(f.b + 24, fold(sum16(f.b + 14, 20, 0)));
	wire_send(f.b, f.len);
}

/* In any order, also the last first, which libslirp itself does not survive; overlaps are thrown away. */
START_TEST(test_fragments)
{
	static const size_t order[][3] = {{0, 1, 2}, {2, 1, 0}, {2, 0, 1}};
	static const size_t at[] = {0, 1480, 2960}, len[] = {1480, 1480, 48};
	uint8_t whole[3008], got[4000];
	uint16_t port;
	int server = local_server(SOCK_DGRAM, &port);

	open_user("");
	introduce();
	for (size_t i = 0; i < sizeof(whole); i++)
		whole[i] = pattern(i);
	put_be16(whole, 555);
	put_be16(whole + 2, port);
	put_be16(whole + 4, sizeof(whole));
	put_be16(whole + 6, 0); /* no checksum */
	for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
		for (unsigned k = 0; k < 3; k++)
			send_fragment(whole + at[order[i][k]], at[order[i][k]], len[order[i][k]], order[i][k] < 2);
		ck_assert_msg(wait_fd(server, POLLIN), "order %u", i);
		ck_assert_int_eq(recv(server, got, sizeof(got), 0), sizeof(whole) - 8);
		ck_assert_mem_eq(got, whole + 8, sizeof(whole) - 8);
	}
	for (unsigned i = 0; i < 100; i++) /* never finished, or not in one way */
		send_fragment(whole, (i * 1448) % 65536 & ~7u, 8 + i % 3 * 8, i & 1);
	assert_answers();
	ck_assert_int_eq(poll(&(struct pollfd){server, POLLIN, 0}, 1, 0), 0);
	close(server);
}
END_TEST

START_TEST(test_restrict)
{
	uint16_t port, forwarded = free_port(SOCK_STREAM);
	int server = local_server(SOCK_STREAM, &port), fd;
	char options[100];
	struct tcp t;

	snprintf(options, sizeof(options), "restrict=on,hostfwd=tcp:127.0.0.1:%u-:7", forwarded);
	open_user(options);
	introduce();
	tcp_connect(&t, 4000, ROUTER, port, 300);
	ck_assert_int_eq(poll(&(struct pollfd){server, POLLIN, 0}, 1, 0), 0);
	/* ... and yet the host may come in */
	fd = local_connect(forwarded);
	ck_assert(tcp_accept(&t, 7));
	assert_conversation(&t, fd, 1000);
	close(fd);
	close(server);
}
END_TEST

/* Rules that come and go while it runs. */
START_TEST(test_rules)
{
	uint16_t port = free_port(SOCK_STREAM);
	struct sockaddr_in a = loopback(port);
	struct err e = ERR_INIT;
	struct netdev *d = open_user("");
	char rule[64], *text;
	struct tcp t;
	int fd;

	assert_answers(); /* the thread runs */
	snprintf(rule, sizeof(rule), "tcp:127.0.0.1:%u-:7", port);
	ck_assert_msg(!net_user_forward("u0", rule, true, &e), "%s", e.msg);
	ck_assert_int_lt(net_user_forward("u0", rule, true, &e), 0);
	ck_assert_ptr_nonnull(strstr(e.msg, "Could not set up host forwarding rule"));
	text = net_user_connections(d);
	ck_assert_ptr_nonnull(strstr(text, "HOST_FORWARD"));
	free(text);
	fd = local_connect(port);
	ck_assert(tcp_accept(&t, 7));
	assert_conversation(&t, fd, 1000);
	close(fd);
	snprintf(rule, sizeof(rule), "tcp:127.0.0.1:%u", port);
	ck_assert_msg(!net_user_forward(NULL, rule, false, &e), "%s", e.msg);
	ck_assert_int_eq(net_user_forward(NULL, rule, false, &e), -ENOENT);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_lt(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	ck_assert_int_lt(net_user_forward("nobody", rule, false, &e), 0);
	ck_assert_str_eq(e.msg, "unrecognized netdev id 'nobody'");
}
END_TEST

START_TEST(test_guestfwd)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char options[200];
	struct tcp t;
	int fd;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/chardev", dir);
	snprintf(options, sizeof(options), "restrict=on,guestfwd=tcp:10.0.2.100:25-unix:%s,,server=on,,wait=off",
		 a.sun_path);
	open_user(options);
	introduce();
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	ck_assert(tcp_connect(&t, 4000, IP(10, 0, 2, 100), 25, WAIT_MS));
	assert_conversation(&t, fd, 200000);
	close(fd);
}
END_TEST

/* A guest that sends more than the device takes loses nothing. */
START_TEST(test_guestfwd_slow)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	const size_t total = 1050 * 1400; /* twice what waits at most between here and the device */
	char options[200];
	uint8_t data[1400], flags, got[4096];
	size_t sent = 0, received = 0;
	uint32_t acked = 0;
	struct tcp t;
	int fd;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/chardev", dir);
	snprintf(options, sizeof(options), "guestfwd=tcp:10.0.2.100:25-unix:%s,,server=on,,wait=off", a.sun_path);
	open_user(options);
	introduce();
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	ck_assert(tcp_connect(&t, 4000, IP(10, 0, 2, 100), 25, WAIT_MS));
	tcp_waiting = &t;
	acked = t.seq;
	while (received < total) {
		struct frame *f;
		ssize_t n;

		if (sent < total && t.seq - acked < 32768) {
			for (size_t i = 0; i < sizeof(data); i++)
				data[i] = pattern(sent + i);
			tcp_send(&t, TCP_ACK, data, sizeof(data));
			sent += sizeof(data);
		} else if ((f = wire_wait(is_for_tcp, sent < total ? WAIT_MS : 20))) {
			flags = f->b[47];
			ck_assert(!(flags & TCP_RST));
			acked = get_be32(f->b + 42);
		}
		loop_step(loop_main(), 0);
		n = recv(fd, got, sizeof(got), 0);
		for (ssize_t i = 0; i < n; i++)
			ck_assert_uint_eq(got[i], pattern(received + (size_t)i));
		received += n > 0 ? (size_t)n : 0;
	}
	close(fd);
}
END_TEST

/* ---- flow control and bounds ---- */

/* A guest that does not look at its network stops the sender, and finds everything when it looks. */
START_TEST(test_back_pressure)
{
	uint16_t port;
	int server = local_server(SOCK_STREAM, &port), fd;
	static uint8_t chunk[16384];
	const size_t total = 2 * MIB;
	size_t sent = 0, got = 0, stopped_at;
	int small = 32768; /* what the kernel keeps for the sender */
	uint8_t data[FRAME_MAX], flags;
	struct tcp t;

	open_user("");
	introduce();
	ck_assert(tcp_connect(&t, 4000, ROUTER, port, WAIT_MS));
	fd = accept_one(server);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	wire.hold = true;
	do { /* until nothing has gone for a while */
		ssize_t n;

		stopped_at = sent;
		for (int i = 0; i < 20 && sent < total; i++) {
			for (size_t k = 0; k < sizeof(chunk); k++)
				chunk[k] = pattern(sent + k);
			n = send(fd, chunk, MIN(sizeof(chunk), total - sent), MSG_NOSIGNAL);
			sent += n > 0 ? (size_t)n : 0;
			loop_step(loop_main(), 10);
		}
	} while (sent > stopped_at && sent < total);
	ck_assert_msg(sent < total, "nothing stops the sender");
	wire.hold = false;
	nic_want_packets(&wire.nic, 0, false);
	nic_want_packets(&wire.nic, 0, true);
	while (got < total) {
		int piece;

		for (size_t k = 0; k < sizeof(chunk); k++)
			chunk[k] = pattern(sent + k);
		if (sent < total) {
			ssize_t n = send(fd, chunk, MIN(sizeof(chunk), total - sent), MSG_NOSIGNAL);

			sent += n > 0 ? (size_t)n : 0;
		}
		piece = tcp_take(&t, data, &flags, WAIT_MS);
		ck_assert_msg(piece >= 0, "%zu of %zu bytes came", got, sent);
		for (int i = 0; i < piece; i++)
			ck_assert_uint_eq(data[i], pattern(got + (size_t)i));
		got += (size_t)piece;
	}
	close(fd);
	close(server);
}
END_TEST

/* A guest that opens connections without end leaves the process descriptors to live with. */
START_TEST(test_descriptors)
{
	struct rlimit files = {128, 128};
	uint16_t port;
	int server = local_server(SOCK_DGRAM, &port), fds[24];

	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &files), 0);
	open_user("");
	assert_answers();
	for (uint16_t i = 0; i < 1000; i++) {
		send_udp(GUEST_IP, (uint16_t)(2000 + i), ROUTER, port, "x", 1);
		loop_step(loop_main(), 0);
	}
	/* frames are taken in order: this one, of those that pass, is behind them all */
	introduce();
	ck_assert_ptr_nonnull(wire_wait(is_arp_reply, WAIT_MS));
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = open("/dev/null", O_RDONLY);
		ck_assert_msg(fds[i] >= 0, "the guest has used up the process's descriptors");
	}
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	close(server);
}
END_TEST

START_TEST(test_malformed)
{
	struct frame f;

	open_user("");
	introduce();
	for (unsigned i = 0; i < 4000; i++) {
		uint32_t r = i * 2654435761u;

		put_ether(&f, (const uint8_t[]){0x52, 0x55, 10, 0, 2, 2},
			  i % 4 == 0   ? 0x0806
			  : i % 4 == 1 ? 0x86dd
				       : 0x0800);
		for (size_t k = 14; k < 80; k++)
			f.b[k] = (uint8_t)(r >> (k % 24)) ^ (uint8_t)(k * i);
		if (i % 4 > 1) { /* IPv4 with a good header and bad everything else */
			put_ip(&f, GUEST_IP, i & 8 ? ROUTER : IP(10, 0, 2, 255),
			       (const uint8_t[]){1, 17, 6, 1}[i / 4 % 4], i % 46);
			f.b[14] = (uint8_t)(0x40 | (i % 16));
			put_be16(f.b + 16, (uint16_t)(i * 13));
			put_be16(f.b + 20, (uint16_t)r & 0x2fff);
		}
		f.len = 14 + i % 66;
		wire_send(f.b, f.len);
	}
	assert_answers();
}
END_TEST

/* ---- files ---- */

static bool is_tftp(const struct frame *f)
{
	return protocol_of(f) == 17 && get_be16(f->b + 36) == 1069;
}

/* The first block of a file, or an error packet. */
static struct frame *tftp_get(const char *name)
{
	uint8_t m[200] = {0, 1};
	size_t len = strlen(name);
	struct frame *f;

	memcpy(m + 2, name, len + 1);
	memcpy(m + 3 + len, "octet", 6);
	send_udp(GUEST_IP, 1069, ROUTER, 69, m, len + 9);
	f = wire_wait(is_tftp, WAIT_MS);
	ck_assert_msg(f != NULL, "no answer to TFTP");
	return f;
}

static void write_file(const char *name, const char *text)
{
	char path[200];
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	out = fopen(path, "w");
	ck_assert_ptr_nonnull(out);
	fputs(text, out);
	fclose(out);
}

START_TEST(test_tftp)
{
	char options[200], path[200];
	struct frame *f;

	snprintf(path, sizeof(path), "%s/public", dir);
	mkdir(path, 0755);
	write_file("public/boot", "the boot file");
	write_file("secret", "not for guests");
	snprintf(path, sizeof(path), "%s/public/link", dir);
	ck_assert_int_eq(symlink("../secret", path), 0);
	snprintf(options, sizeof(options), "tftp=%s/public", dir);
	open_user(options);
	introduce();
	f = tftp_get("/boot");
	ck_assert_uint_eq(get_be16(f->b + 42), 3); /* DATA */
	ck_assert_mem_eq(f->b + 46, "the boot file", 13);
	f = tftp_get("/../secret");
	ck_assert_uint_eq(get_be16(f->b + 42), 5); /* ERROR */
	f = tftp_get("/nothing");
	ck_assert_uint_eq(get_be16(f->b + 42), 5);
	f = tftp_get("/link"); /* where the kernel has Landlock, it does not lead out */
	ck_assert_uint_eq(get_be16(f->b + 42), 5);
}
END_TEST

/* A second netdev with a directory of its own, while the thread of the first one runs. */
START_TEST(test_tftp_later)
{
	struct err e = ERR_INIT;
	char text[200];
	struct frame *f;

	open_user("");
	assert_answers();
	write_file("boot", "the boot file");
	wire_detach();
	snprintf(text, sizeof(text), "user,id=u1,tftp=%s", dir);
	ck_assert_msg(try_open(text, &e) != NULL, "%s", e.msg);
	wire_attach("u1");
	introduce();
	f = tftp_get("/boot");
	ck_assert_uint_eq(get_be16(f->b + 42), 3);
	ck_assert_int_eq(netdev_remove("u0", &e), 0);
	assert_answers();
}
END_TEST

/* ---- the name server, in a network of its own ---- */

static bool is_dns(const struct frame *f)
{
	return (protocol_of(f) == 17 && get_be16(f->b + 36) == 5353) || (is_icmp(f) && f->b[34] == 3);
}

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return ok;
}

/* Only lo, and an /etc/resolv.conf that names it. False where that is not allowed. */
static bool own_network(void)
{
	struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	char path[100], map[40];
	unsigned uid = getuid();
	int fd;

	snprintf(path, sizeof(path), "%s/resolv.conf", dir);
	if (!write_text(path, "nameserver 127.0.0.1\n") || unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS))
		return false;
	snprintf(map, sizeof(map), "0 %u 1\n", uid);
	if (!write_text("/proc/self/uid_map", map) || mount(path, "/etc/resolv.conf", NULL, MS_BIND, NULL))
		return false;
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	return fd >= 0 && !ioctl(fd, SIOCSIFFLAGS, &up) && !close(fd);
}

START_TEST(test_dns)
{
	static const uint8_t query[] = {0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 0, 0, 1, 0, 1};
	struct sockaddr_in from, a = loopback(53);
	socklen_t len = sizeof(from);
	uint8_t data[100];
	struct frame *f;
	int server;

	if (!own_network()) {
		printf("test_dns skipped: no network namespace of our own\n");
		return;
	}
	open_user("");
	introduce();
	send_udp(GUEST_IP, 5353, DNS, 53, query, sizeof(query));
	f = wire_wait(is_dns, WAIT_MS); /* nobody listens: port unreachable */
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(protocol_of(f), 1);
	ck_assert_uint_eq(f->b[34], 3);

	server = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(server, (struct sockaddr *)&a, sizeof(a)), 0);
	send_udp(GUEST_IP, 5353, DNS, 53, query, sizeof(query));
	ck_assert(wait_fd(server, POLLIN));
	ck_assert_int_eq(recvfrom(server, data, sizeof(data), 0, (struct sockaddr *)&from, &len), sizeof(query));
	ck_assert_mem_eq(data, query, sizeof(query));
	data[2] |= 0x80;
	sendto(server, data, sizeof(query), 0, (struct sockaddr *)&from, len);
	f = wire_wait(is_dns, WAIT_MS);
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(protocol_of(f), 17);
	ck_assert_uint_eq(get_be32(f->b + 26), DNS);
	ck_assert_mem_eq(f->b + 42, data, sizeof(query));
	close(server);
}
END_TEST

/* ---- life ---- */

/* Under the main thread's filter as well, which the slirp thread inherits. */
START_TEST(test_confined)
{
	uint16_t port;
	int server = local_server(SOCK_STREAM, &port), status;
	struct tcp t;
	pid_t pid = fork();

	if (!pid) {
		open_user("tftp=/nonexistent");
		if (!unconfined() && sandbox_enter(SANDBOX_MAIN, NULL))
			_exit(98);
		assert_answers();
		if (!tcp_connect(&t, 4000, ROUTER, port, WAIT_MS))
			_exit(97);
		assert_conversation(&t, accept_one(server), 1000);
		_exit(96);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 96);
	close(server);
}
END_TEST

/* Nothing is left of a netdev that goes with connections open, and the next one works. */
START_TEST(test_comes_and_goes)
{
	uint16_t port;
	int server = local_server(SOCK_STREAM, &port), fd;
	struct tcp t;
	struct err e = ERR_INIT;
	char byte;

	for (int i = 0; i < 5; i++) {
		open_user("");
		introduce();
		ck_assert(tcp_connect(&t, (uint16_t)(4000 + i), ROUTER, port, WAIT_MS));
		fd = accept_one(server);
		ck_assert_int_eq(netdev_remove("u0", &e), 0); /* a NIC uses it */
		ck_assert(!nic_link_up(&wire.nic));
		ck_assert(wait_fd(fd, POLLIN));
		ck_assert_int_le(recv(fd, &byte, 1, 0), 0);
		close(fd);
		wire_detach();
		wire.n_in = 0;
	}
	close(server);
}
END_TEST

/* As after a migration: another process, which knows of nothing. */
START_TEST(test_begins_anew)
{
	uint16_t port;
	int server = local_server(SOCK_STREAM, &port);
	uint8_t data[FRAME_MAX], flags;
	struct err e = ERR_INIT;
	struct frame *f;
	struct tcp t;

	open_user("");
	ask_dhcp(1, 0);
	ask_dhcp(3, GUEST_IP);
	introduce();
	ck_assert(tcp_connect(&t, 4000, ROUTER, port, WAIT_MS));
	wire_detach();
	ck_assert_int_eq(netdev_remove("u0", &e), 0);
	wire.n_in = 0;
	open_user("");
	introduce();
	tcp_send(&t, TCP_ACK | TCP_PSH, "still there?", 12);
	ck_assert_int_eq(tcp_take(&t, data, &flags, WAIT_MS), 0);
	ck_assert_msg(t.reset, "the guest is left waiting");
	f = ask_dhcp(3, GUEST_IP);
	ck_assert_uint_eq(dhcp_option(f, 53)[1], 5); /* ACK: its address stays */
	ck_assert_uint_eq(get_be32(f->b + 42 + 16), GUEST_IP);
	ck_assert(tcp_connect(&t, 4001, ROUTER, port, WAIT_MS));
	close(server);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("user");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 120);
	tcase_add_test(c, test_arp);
	tcase_add_test(c, test_ping);
	tcase_add_test(c, test_dhcp);
	tcase_add_test(c, test_own_network);
	tcase_add_test(c, test_to_host);
	tcase_add_test(c, test_refused);
	tcase_add_test(c, test_hostfwd);
	tcase_add_test(c, test_udp);
	tcase_add_test(c, test_fragments);
	tcase_add_test(c, test_restrict);
	tcase_add_test(c, test_rules);
	tcase_add_test(c, test_guestfwd);
	tcase_add_test(c, test_guestfwd_slow);
	tcase_add_test(c, test_back_pressure);
	tcase_add_test(c, test_descriptors);
	tcase_add_test(c, test_malformed);
	tcase_add_test(c, test_tftp);
	tcase_add_test(c, test_tftp_later);
	tcase_add_test(c, test_dns);
	tcase_add_test(c, test_confined);
	tcase_add_test(c, test_comes_and_goes);
	tcase_add_test(c, test_begins_anew);
	return run_suite("slirp", (TCase *[]){c, NULL});
}
