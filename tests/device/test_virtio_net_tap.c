/*
 * virtio-net on a real tap, in a network namespace of its own: unfinished packets both ways, what the driver switches
 * off, several queue pairs, a driver of one pair on a card of several. Skipped where no namespace or tap can be had.
 */
#include "virtio_driver.h"
#include "virtio_net_features.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "vmm/bytes.h"
#include "vmm/net.h"

#define SLOT 5
#define TAP  "vmmtest0"

#define ALWAYS \
	(F_CSUM | F_GUEST_CSUM | F_GUEST_TSO4 | F_GUEST_TSO6 | F_GUEST_ECN | F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN)
#define GSO     1448
#define BUFFERS 60
#define BUFFER  1600u

static struct board *b;
static struct vd d;
static int host; /* a packet socket on the interface, with virtio's header */

/* ---- the host's side ---- */

static bool can_have_taps(void)
{
	int fd, r = unshare(CLONE_NEWNET);

	if (r && errno == EPERM)
		r = unshare(CLONE_NEWUSER | CLONE_NEWNET);
	fd = r ? -1 : open("/dev/net/tun", O_RDWR);
	if (fd < 0) {
		fprintf(stderr, "skipped: no network namespace or tap here: %s\n", strerror(errno));
		return false;
	}
	close(fd);
	fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY);
	if (fd >= 0) {
		ck_assert_int_eq(write(fd, "1", 1), 1);
		close(fd);
	}
	return true;
}

static void bring_up(void)
{
	struct ifreq ifr = {.ifr_name = TAP, .ifr_flags = IFF_UP};
	struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int on = 1;

	host = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(host, 0);
	ck_assert_int_eq(ioctl(host, SIOCSIFFLAGS, &ifr), 0);
	a.sll_ifindex = (int)if_nametoindex(TAP);
	ck_assert_int_eq(setsockopt(host, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)), 0);
	ck_assert_int_eq(setsockopt(host, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)), 0);
	ck_assert_int_eq(bind(host, (struct sockaddr *)&a, sizeof(a)), 0);
}

static bool set_up(const char *netdev, const char *device)
{
	char options[300];

	if (!can_have_taps())
		return false;
	snprintf(options, sizeof(options),
		 "-m 16 -netdev tap,id=n,ifname=" TAP
		 ",script=no,downscript=no%s -device virtio-net-pci,netdev=n,addr=5%s",
		 netdev, device);
	b = bench_new(options);
	bring_up();
	return true;
}

static void tear_down(void)
{
	close(host);
	bench_free(b);
}

/* TCP/IPv4 of `len` bytes with frame header, checksum left to others; the port tells flows apart. */
static void make_tcp(uint8_t *f, size_t len, uint16_t port)
{
	memset(f, 0, 54);
	memcpy(f, "\x52\x54\x00\x12\x34\x56\x02\x00\x00\x00\x00\x01\x08\x00\x45", 15);
	put_be16(f + 16, (uint16_t)(len - 14));
	f[22] = 64;
	f[23] = 6;
	memcpy(f + 26, "\x0a\0\0\1\x0a\0\0\2", 8);
	put_be16(f + 34, port);
	put_be16(f + 36, 80);
	f[46] = 0x50;
	f[47] = 0x10;
	for (size_t i = 54; i < len; i++)
		f[i] = (uint8_t)(i * 3 + i / 256);
	/* The pseudo header's sum stands where the checksum will be. */
	uint32_t sum = 0x0a00 + 1 + 0x0a00 + 2 + 6 + (uint32_t)(len - 34);
	put_be16(f + 50, (uint16_t)(sum + (sum >> 16)));
	/* IPv4 header's own */
	sum = 0;
	for (unsigned i = 14; i < 34; i += 2)
		sum += get_be16(f + i);
	sum = (sum & 0xffff) + (sum >> 16);
	put_be16(f + 24, (uint16_t) ~(sum + (sum >> 16)));
}

static bool tcp_checksum_good(const uint8_t *f, size_t len)
{
	uint32_t sum = 6 + (uint32_t)(len - 34);

	for (size_t i = 26; i < len; i += 2)
		sum += i + 1 < len ? get_be16(f + i) : (uint32_t)f[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

static const struct virtio_net_hdr unfinished = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
						 .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
						 .hdr_len = 54,
						 .gso_size = GSO,
						 .csum_start = 34,
						 .csum_offset = 16};

static void host_sends(const struct virtio_net_hdr *h, size_t len, uint16_t port)
{
	static uint8_t buf[sizeof(*h) + 65536];

	memcpy(buf, h, sizeof(*h));
	make_tcp(buf + sizeof(*h), len, port);
	ck_assert_int_eq(send(host, buf, sizeof(*h) + len, 0), (ssize_t)(sizeof(*h) + len));
	bench_idle(b);
}

/* ---- the guest's side ---- */

static void offer_buffers(unsigned q)
{
	for (unsigned i = 0; i < BUFFERS; i++)
		vd_add(&d, q, &(struct vd_seg){VQ_BUFFERS + q * 0x40000 + i * 2048, BUFFER, true}, 1);
	vd_ring(&d, q);
}

static void drive(int kind, uint64_t features, unsigned queues)
{
	vd_start(&d, b, SLOT, kind, features, queues);
	offer_buffers(0);
}

/* The next packet of a receive queue, over as many buffers as it takes: its length with header; 0: none. */
static size_t received(unsigned q, uint8_t *buf)
{
	size_t done = 0;
	unsigned n = 1;

	for (unsigned i = 0; i < n; i++) {
		uint32_t len;
		int id = vd_used(&d, q, &len);

		if (id < 0 && !i)
			return 0;
		ck_assert_int_ge(id, 0);
		bench_read(b, VQ_BUFFERS + q * 0x40000 + (unsigned)id * 2048, buf + done, len);
		done += len;
		if (!i && d.features & F_MRG_RXBUF)
			n = get_le16(buf + 10);
	}
	return done;
}

static void guest_sends(unsigned q, const struct virtio_net_hdr *h, size_t len, uint16_t port)
{
	static uint8_t buf[12 + 65536];
	uint64_t at = VQ_BUFFERS + 0x400000;

	memset(buf, 0, 12);
	memcpy(buf, h, sizeof(*h));
	make_tcp(buf + 12, len, port);
	bench_write(b, at, buf, 12 + len);
	vd_add(&d, q, &(struct vd_seg){at, (uint32_t)(12 + len), false}, 1);
	vd_ring(&d, q);
	ck_assert_int_ge(vd_used(&d, q, NULL), 0);
}

static int control(unsigned q, uint8_t class, uint8_t command, const void *data, uint32_t len)
{
	const uint64_t at = VQ_BUFFERS - 0x4000, ack = VQ_BUFFERS - 0x1000;
	uint8_t what[2] = {class, command};

	bench_write(b, at, what, 2);
	bench_write(b, at + 2, data, len);
	vd_add(&d, q, (struct vd_seg[]){{at, 2 + len, false}, {ack, 1, true}}, 2);
	vd_ring(&d, q);
	ck_assert_int_ge(vd_used(&d, q, NULL), 0);
	return bench_readb(b, ack);
}

/* ---- tests ---- */

START_TEST(a_tap_offers_more)
{
	if (!set_up("", ""))
		return;
	vd_init(&d, b, SLOT, VD_MODERN);
	ck_assert_uint_eq(vd_offered(&d) & ALWAYS, ALWAYS);
	ck_assert_uint_eq(vd_offered(&d) & F_MQ, 0);
	tear_down();
	if (!set_up(",vnet_hdr=off", ""))
		return;
	vd_init(&d, b, SLOT, VD_MODERN);
	ck_assert_uint_eq(vd_offered(&d) & (ALWAYS | F_GSO), 0);
	tear_down();
	if (!set_up("", ",csum=off,guest_tso4=off"))
		return;
	vd_init(&d, b, SLOT, VD_MODERN);
	ck_assert_uint_eq(vd_offered(&d) & (ALWAYS | F_GSO), F_GUEST_CSUM | F_GUEST_TSO6);
	tear_down();
}
END_TEST

/* A large packet leaves as it is, its header with it. */
START_TEST(unfinished_packets_go_out)
{
	static uint8_t got[70000], want[65536];
	struct virtio_net_hdr h;
	ssize_t n;

	if (!set_up("", ""))
		return;
	drive(VD_MODERN, ALWAYS, 2);
	guest_sends(1, &unfinished, 30000, 7);
	n = recv(host, got, sizeof(got), 0);
	ck_assert_int_eq(n, (ssize_t)sizeof(h) + 30000);
	memcpy(&h, got, sizeof(h));
	ck_assert_uint_eq(h.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
	ck_assert_uint_eq(h.gso_size, GSO);
	ck_assert_uint_eq(h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	make_tcp(want, 30000, 7);
	ck_assert_int_eq(memcmp(got + sizeof(h), want, 30000), 0);
	tear_down();
}
END_TEST

/* Nonsense does not get to the host's stack, and does no harm to what follows. */
START_TEST(headers_that_make_no_sense)
{
	static const struct virtio_net_hdr bad[] = {
		{.flags = 1, .csum_start = 990, .csum_offset = 16},
		{.flags = 1, .csum_start = 0xffff, .csum_offset = 0xffff},
		{.flags = 1, .gso_type = 1, .gso_size = 0, .csum_start = 34, .csum_offset = 16},
		{.flags = 1, .gso_type = 2, .gso_size = 100, .csum_start = 34, .csum_offset = 16},
		{.flags = 1, .gso_type = 4, .gso_size = 100, .csum_start = 34, .csum_offset = 16}, /* not negotiated */
		{.flags = 1, .gso_type = 0x81, .gso_size = 100, .csum_start = 34, .csum_offset = 16},
	};
	static uint8_t got[70000];
	struct net_stats stats;

	if (!set_up("", ""))
		return;
	drive(VD_MODERN, F_CSUM | F_HOST_TSO4, 2);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		guest_sends(1, &bad[i], 1000, 1);
	nic_get_stats(nic_next(NULL), &stats);
	ck_assert_uint_eq(stats.tx_dropped, ARRAY_SIZE(bad));
	ck_assert_int_lt(recv(host, got, sizeof(got), 0), 0);
	/* A hint that is too large is put right. */
	guest_sends(1, &(struct virtio_net_hdr){.hdr_len = 0xffff}, 1000, 1);
	ck_assert_int_eq(recv(host, got, sizeof(got), 0), (ssize_t)sizeof(struct virtio_net_hdr) + 1000);
	tear_down();
}
END_TEST

/* Who takes them gets large packets whole; for others the host cuts and sums them. */
START_TEST(unfinished_packets_come_in)
{
	static uint8_t got[70000], want[65536];
	const uint64_t off = htole64(F_GUEST_CSUM);
	size_t len, sum = 0;

	if (!set_up("", ""))
		return;
	drive(VD_MODERN, F_MRG_RXBUF | F_GUEST_CSUM | F_GUEST_TSO4 | F_CTRL_VQ | F_CTRL_GUEST_OFFLOADS, 3);
	host_sends(&unfinished, 30000, 7);
	ck_assert_uint_eq(received(0, got), 12 + 30000);
	ck_assert_uint_eq(got[1], VIRTIO_NET_HDR_GSO_TCPV4);
	ck_assert_uint_eq(get_le16(got + 4), GSO);
	ck_assert_uint_eq(got[0] & 1, 1);
	ck_assert_uint_eq(get_le16(got + 10), (12 + 30000 + BUFFER - 1) / BUFFER);
	make_tcp(want, 30000, 7);
	ck_assert_int_eq(memcmp(got + 12, want, 30000), 0);
	offer_buffers(0);
	/* The driver changes its mind. */
	ck_assert_int_eq(control(2, 5, 0, &off, 8), 0);
	host_sends(&unfinished, 30000, 7);
	while ((len = received(0, got))) {
		ck_assert_uint_eq(got[1], 0);
		ck_assert_uint_le(len, 12 + 54 + GSO);
		sum += len - 12 - 54;
	}
	ck_assert_uint_eq(sum, 30000 - 54);
	/* One that never took any gets finished ones, also behind the short header. */
	drive(VD_LEGACY, 0, 2);
	host_sends(&unfinished, 54 + 2 * GSO, 7);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_uint_eq(received(0, got), 10 + 54 + GSO);
		ck_assert_uint_eq(got[0] & 1, 0);
		ck_assert_uint_eq(got[1], 0);
		ck_assert(tcp_checksum_good(got + 10, 54 + GSO));
	}
	tear_down();
}
END_TEST

/* A DHCP server's answer gets its checksum here, as old clients look at it; anything else is left to the driver. */
START_TEST(dhcp_is_finished)
{
	static uint8_t buf[10 + 300], got[70000];
	const struct virtio_net_hdr h = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6};
	uint32_t sum;

	if (!set_up("", ""))
		return;
	drive(VD_MODERN, F_GUEST_CSUM, 2);
	for (uint16_t port = 67; port <= 68; port++) {
		uint8_t *f = buf + sizeof(h);

		memcpy(buf, &h, sizeof(h));
		make_tcp(f, 299, port);
		f[23] = 17;
		put_be16(f + 38, 299 - 34);
		put_be16(f + 40, (uint16_t)(0x0a00 + 1 + 0x0a00 + 2 + 17 + 299 - 34));
		ck_assert_int_eq(send(host, buf, sizeof(h) + 299, 0), (ssize_t)sizeof(h) + 299);
		bench_idle(b);
		ck_assert_uint_eq(received(0, got), 12 + 299);
		ck_assert_uint_eq(got[0], port == 67 ? 0 : 1);
		sum = 17 + 299 - 34;
		for (unsigned i = 26; i < 299; i += 2)
			sum += i + 1 < 299 ? get_be16(got + 12 + i) : (uint32_t)got[12 + i] << 8;
		while (sum >> 16)
			sum = (sum & 0xffff) + (sum >> 16);
		ck_assert_int_eq(sum == 0xffff, port == 67);
	}
	tear_down();
}
END_TEST

/* In another process the netdev is told again what the driver takes. */
START_TEST(offloads_after_save_and_load)
{
	static uint8_t got[70000];

	if (!set_up("", ""))
		return;
	drive(VD_MODERN, F_MRG_RXBUF | F_GUEST_CSUM | F_GUEST_TSO4, 2);
	close(host);
	b = bench_save_load(b);
	vd_moved(&d, b);
	bring_up();
	bench_idle(b);
	host_sends(&unfinished, 30000, 7);
	ck_assert_uint_eq(received(0, got), 12 + 30000);
	ck_assert_uint_eq(get_le16(got + 4), GSO);
	tear_down();
}
END_TEST

static unsigned count_received(unsigned q)
{
	static uint8_t got[70000];
	unsigned n = 0;

	while (received(q, got))
		n++;
	return n;
}

START_TEST(two_pairs)
{
	static uint8_t got[70000];
	const struct virtio_net_hdr plain = {0};
	unsigned first, second;

	if (!set_up(",queues=2", ",mq=on"))
		return;
	drive(VD_MODERN, F_MQ | F_CTRL_VQ, 5);
	offer_buffers(2);
	ck_assert_uint_eq(vd_config(&d, 8, 2), 2);
	/* One pair until the driver asks for more. */
	for (uint16_t port = 1; port <= 20; port++)
		host_sends(&plain, 100, port);
	ck_assert_uint_eq(count_received(0), 20);
	ck_assert_uint_eq(count_received(2), 0);
	ck_assert_int_eq(control(4, 4, 0, "\x03\x00", 2), 1);
	ck_assert_int_eq(control(4, 4, 0, "\x02\x00", 2), 0);
	if (_i) {
		close(host);
		b = bench_save_load(b);
		vd_moved(&d, b);
		bring_up();
		bench_idle(b);
	}
	/* Flows are spread, and both queues send. */
	for (uint16_t port = 1; port <= 20; port++)
		host_sends(&plain, 100, port);
	first = count_received(0);
	second = count_received(2);
	ck_assert_uint_eq(first + second, 20);
	ck_assert_uint_gt(first, 0);
	ck_assert_uint_gt(second, 0);
	guest_sends(1, &plain, 100, 30);
	guest_sends(3, &plain, 101, 31);
	ck_assert_int_eq(recv(host, got, sizeof(got), 0), (ssize_t)sizeof(plain) + 100);
	ck_assert_int_eq(recv(host, got, sizeof(got), 0), (ssize_t)sizeof(plain) + 101);
	/* Back to one. */
	ck_assert_int_eq(control(4, 4, 0, "\x01\x00", 2), 0);
	for (uint16_t port = 40; port <= 50; port++)
		host_sends(&plain, 100, port);
	ck_assert_uint_eq(count_received(0), 11);
	tear_down();
}
END_TEST

START_TEST(a_driver_of_one_pair_on_a_card_of_two)
{
	const struct virtio_net_hdr plain = {0};

	if (!set_up(",queues=2", _i ? ",mq=on" : ""))
		return;
	drive(VD_MODERN, F_CTRL_VQ, 3);
	for (uint16_t port = 1; port <= 10; port++)
		host_sends(&plain, 100, port);
	ck_assert_uint_eq(count_received(0), 10);
	ck_assert_int_eq(control(2, 4, 0, "\x02\x00", 2), 1);
	tear_down();
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("tap");

	tcase_add_test(t, a_tap_offers_more);
	tcase_add_test(t, unfinished_packets_go_out);
	tcase_add_test(t, headers_that_make_no_sense);
	tcase_add_test(t, unfinished_packets_come_in);
	tcase_add_test(t, dhcp_is_finished);
	tcase_add_test(t, offloads_after_save_and_load);
	tcase_add_loop_test(t, two_pairs, 0, 2);
	tcase_add_loop_test(t, a_driver_of_one_pair_on_a_card_of_two, 0, 2);
	return run_suite("virtio-net-tap", (TCase *const[]){t, NULL});
}
