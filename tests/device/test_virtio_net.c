/*
 * virtio-net as its drivers see it, with a datagram socket for a cable: features and configuration, headers old and
 * new, receiving into buffers of all sizes, the filter and its control queue, a cable that is full or unplugged, rings
 * no driver would write, save and load in the middle.
 */
#include "virtio_driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "vmm/bytes.h"
#include "vmm/net.h"

#define SLOT 5
#define MAC  "52:54:00:aa:bb:cc"

enum {
	F_CSUM = 1 << 0,
	F_GUEST_CSUM = 1 << 1,
	F_CTRL_GUEST_OFFLOADS = 1 << 2,
	F_MTU = 1 << 3,
	F_MAC = 1 << 5,
	F_HOST_TSO4 = 1 << 11,
	F_MRG_RXBUF = 1 << 15,
	F_STATUS = 1 << 16,
	F_CTRL_VQ = 1 << 17,
	F_CTRL_RX = 1 << 18,
	F_CTRL_VLAN = 1 << 19,
	F_CTRL_RX_EXTRA = 1 << 20,
	F_GUEST_ANNOUNCE = 1 << 21,
	F_MQ = 1 << 22,
	F_CTRL_MAC_ADDR = 1 << 23,
};
#define F_SPEED_DUPLEX (1ull << 63)
#define CTRL_FEATURES                                                                                            \
	(F_CTRL_VQ | F_CTRL_RX | F_CTRL_VLAN | F_CTRL_RX_EXTRA | F_GUEST_ANNOUNCE | F_CTRL_MAC_ADDR | F_STATUS | \
	 F_CTRL_GUEST_OFFLOADS)
enum { RX, TX, CTRL };
enum { OK, ERR };

static const int kinds[] = {VD_LEGACY, VD_MODERN};
static const uint8_t own[6] = {0x52, 0x54, 0x00, 0xaa, 0xbb, 0xcc}, other[6] = {0x52, 0x54, 0x00, 1, 2, 3},
		     broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, multicast[6] = {0x01, 0x00, 0x5e, 1, 2, 3};

/* ---- the cable: the test holds its other end ---- */

static struct board *b;
static struct vd d;
static int cable = -1;
static char here[64], there[64];
static uint64_t next_buffer;

static void lay_cable(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	char dir[] = "/tmp/vmm-net-XXXXXX";

	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(here, sizeof(here), "%s/test", dir);
	snprintf(there, sizeof(there), "%s/vmm", dir);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", here);
	cable = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(cable, (struct sockaddr *)&a, sizeof(a)), 0);
}

static const char *options(const char *more)
{
	static char text[600];

	snprintf(text, sizeof(text),
		 "-m 16 -netdev dgram,id=n,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s "
		 "-device virtio-net-pci,netdev=n,id=nic,addr=5,mac=" MAC "%s",
		 there, here, more);
	return text;
}

static void set_up(const char *more)
{
	lay_cable();
	b = bench_new(options(more));
	next_buffer = VQ_BUFFERS;
}

static void tear_down(void)
{
	bench_free(b);
	close(cable);
	unlink(here);
	unlink(there);
	*strrchr(here, '/') = '\0';
	rmdir(here);
}

/* The board, a driver of this kind and nothing received yet. */
static void drive(int kind, uint64_t features)
{
	vd_start(&d, b, SLOT, kind, features, features & F_CTRL_VQ ? 3 : 2);
}

static void save_load(void)
{
	b = bench_save_load(b);
	vd_moved(&d, b);
	bench_idle(b);
}

static unsigned header(void)
{
	return d.kind == VD_MODERN || d.features & F_MRG_RXBUF ? 12 : 10;
}

static size_t make_frame(uint8_t *f, const uint8_t to[6], size_t len, uint8_t seed)
{
	memcpy(f, to, 6);
	memcpy(f + 6, "\x02\x00\x00\x00\x00\x01\x08\x00", 8);
	for (size_t i = 14; i < len; i++)
		f[i] = (uint8_t)(seed + i * 7);
	return len;
}

/* A frame comes in; `tag` is in its contents. */
static void from_cable(const uint8_t *f, size_t len)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", there);
	ck_assert_int_eq(sendto(cable, f, len, 0, (struct sockaddr *)&a, sizeof(a)), (ssize_t)len);
	bench_idle(b);
}

static void frame_comes(const uint8_t to[6], size_t len, uint8_t seed)
{
	static uint8_t f[65536];

	from_cable(f, make_frame(f, to, len, seed));
}

/* What went out; -1: nothing. */
static ssize_t to_cable(uint8_t *f, size_t size)
{
	ssize_t len = recv(cable, f, size, 0);

	return len < 0 && errno == EAGAIN ? -1 : len;
}

/* A receive buffer in one piece, without ringing; where it is. */
static uint64_t give(uint32_t len)
{
	uint64_t at = next_buffer;

	vd_add(&d, RX, &(struct vd_seg){at, len, true}, 1);
	next_buffer += ALIGN_UP(len, 64u) + 64;
	return at;
}

/* The next received frame is this one, at `at` in one buffer. */
static void expect_frame(uint64_t at, const uint8_t to[6], size_t len, uint8_t seed)
{
	static uint8_t want[65536], got[65536];
	uint32_t used;

	ck_assert_int_ge(vd_used(&d, RX, &used), 0);
	ck_assert_uint_eq(used, header() + len);
	bench_read(b, at, got, header() + len);
	for (unsigned i = 0; i < 10; i++)
		ck_assert_uint_eq(got[i], 0);
	if (header() == 12)
		ck_assert_uint_eq(get_le16(got + 10), 1);
	make_frame(want, to, len, seed);
	ck_assert_int_eq(memcmp(got + header(), want, len), 0);
}

/* If not, the buffer is there for the next one. */
static bool comes_through(const uint8_t to[6])
{
	give(1600);
	vd_ring(&d, RX);
	frame_comes(to, 64, 9);
	return vd_used(&d, RX, NULL) >= 0;
}

/* A frame to be sent, header and all in one descriptor, without ringing. */
static void post(const uint8_t *h, size_t len, uint8_t seed)
{
	static uint8_t buf[12 + 65536];
	uint64_t at = next_buffer;

	memset(buf, 0, 12);
	if (h)
		memcpy(buf, h, 10);
	make_frame(buf + header(), other, len, seed);
	bench_write(b, at, buf, header() + len);
	vd_add(&d, TX, &(struct vd_seg){at, (uint32_t)(header() + len), false}, 1);
	next_buffer += ALIGN_UP(header() + len, 64u);
	if (next_buffer > VQ_BUFFERS + 6 * MIB)
		next_buffer = VQ_BUFFERS;
}

static void expect_sent(size_t len, uint8_t seed)
{
	static uint8_t want[65536], got[65536];

	ck_assert_int_eq(to_cable(got, sizeof(got)), (ssize_t)len);
	make_frame(want, other, len, seed);
	ck_assert_int_eq(memcmp(got, want, len), 0);
}

static unsigned used_count(unsigned q)
{
	unsigned n = 0;

	while (vd_used(&d, q, NULL) >= 0)
		n++;
	return n;
}

/* A control command; its result. */
static int control(unsigned q, uint8_t class, uint8_t command, const void *data, uint32_t len)
{
	const uint64_t at = VQ_BUFFERS - 0x4000, ack = VQ_BUFFERS - 0x1000;
	uint8_t what[2] = {class, command};

	bench_write(b, at, what, 2);
	if (len)
		bench_write(b, at + 2, data, len);
	bench_writeb(b, ack, 0x55);
	vd_add(&d, q, (struct vd_seg[]){{at, 2 + len, false}, {ack, 1, true}}, 2);
	vd_ring(&d, q);
	ck_assert_int_ge(vd_used(&d, q, NULL), 0);
	return bench_readb(b, ack);
}

static int rx_mode(uint8_t command, uint8_t on)
{
	return control(CTRL, 0, command, &on, 1);
}

/* ---- who it is and what it offers ---- */

START_TEST(a_network_card)
{
	set_up("");
	ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, 0), 0x10001af4);
	ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, 8) >> 8, 0x020000);
	ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, 0x2c), 0x00011af4);
	tear_down();
	set_up(",disable-legacy=on");
	ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, 0), 0x10411af4);
	tear_down();
}
END_TEST

/* An option ROM for the modern IDs, as Debian's iPXE is, fits a transitional card too; its sum stays right. */
START_TEST(an_option_rom)
{
	static const uint16_t ids[] = {0x1041, 0x1000};
	uint8_t rom[2048] = {0x55, 0xaa, 4}, got[2048], sum = 0;
	char path[] = "/tmp/vmm-rom-XXXXXX", text[160];
	int fd = mkstemp(path);

	rom[0x18] = 0x1c;
	memcpy(rom + 0x1c, "PCIR\xf4\x1a\x41\x10", 8);
	for (unsigned i = 0; i < sizeof(rom) - 1; i++)
		sum = (uint8_t)(sum + rom[i]);
	rom[sizeof(rom) - 1] = (uint8_t)-sum;
	ck_assert_int_eq(write(fd, rom, sizeof(rom)), sizeof(rom));
	for (unsigned k = 0; k < 2; k++) {
		snprintf(text, sizeof(text), "-m 16 -device virtio-net-pci,addr=5,romfile=%s,disable-legacy=%s", path,
			 k ? "off" : "on");
		b = bench_new(text);
		bench_pci_writel(b, SLOT << 3, 0x30, 0xfe000001);
		bench_pci_writew(b, SLOT << 3, 4, 2);
		bench_read(b, 0xfe000000, got, sizeof(got));
		ck_assert_uint_eq(get_le16(got + 0x22), ids[k]);
		sum = 0;
		for (unsigned i = 0; i < sizeof(got); i++)
			sum = (uint8_t)(sum + got[i]);
		ck_assert_uint_eq(sum, 0);
		bench_free(b);
	}
	close(fd);
	unlink(path);
}
END_TEST

START_TEST(without_a_cable)
{
	b = bench_new("-m 16 -device virtio-net-pci,addr=5");
	next_buffer = VQ_BUFFERS;
	drive(VD_MODERN, F_STATUS | F_MAC);
	ck_assert_uint_eq(vd_config(&d, 6, 2), 0);          /* no link */
	ck_assert_uint_eq(vd_config(&d, 0, 4), 0x12005452); /* 52:54:00:12:34:56 */
	ck_assert_uint_eq(vd_config(&d, 4, 2), 0x5634);
	post(NULL, 60, 0);
	vd_ring(&d, TX);
	ck_assert_uint_eq(used_count(TX), 1);
	bench_free(b);
}
END_TEST

START_TEST(features_of_a_plain_netdev)
{
	uint64_t offered;

	set_up("");
	vd_init(&d, b, SLOT, VD_MODERN);
	offered = vd_offered(&d);
	ck_assert_uint_eq(offered & 0xffffff, F_MAC | F_MRG_RXBUF | CTRL_FEATURES);
	ck_assert_uint_eq(offered & F_SPEED_DUPLEX, 0);
	tear_down();
	set_up(",ctrl_vq=off,mrg_rxbuf=off,mq=on,host_mtu=9000,speed=10000,duplex=full");
	vd_init(&d, b, SLOT, VD_MODERN);
	offered = vd_offered(&d);
	ck_assert_uint_eq(offered & 0xffffff, F_MAC | F_STATUS | F_MTU);
	ck_assert_uint_eq(offered & F_SPEED_DUPLEX, F_SPEED_DUPLEX);
	ck_assert_uint_eq(vd_config(&d, 10, 2), 9000);
	ck_assert_uint_eq(vd_config(&d, 12, 4), 10000);
	ck_assert_uint_eq(vd_config(&d, 16, 1), 1);
	tear_down();
	set_up(",mq=on,ctrl_rx=off,status=off");
	vd_init(&d, b, SLOT, VD_MODERN);
	ck_assert_uint_eq(vd_offered(&d) & 0xffffff, F_MAC | F_MRG_RXBUF | F_MQ | F_CTRL_VQ | F_CTRL_VLAN |
							     F_CTRL_MAC_ADDR | F_CTRL_GUEST_OFFLOADS);
	ck_assert_uint_eq(vd_config(&d, 8, 2), 1); /* pairs */
	ck_assert_uint_eq(vd_config(&d, 12, 4), UINT32_MAX);
	ck_assert_uint_eq(vd_config(&d, 16, 1), 0xff);
	tear_down();
}
END_TEST

START_TEST(options_that_are_refused)
{
	static const struct {
		const char *option, *message;
	} bad[] = {
		{"rx_queue_size=100", "Invalid rx_queue_size (= 100), must be a power of 2 between 256 and 1024."},
		{"tx_queue_size=2048", "Invalid tx_queue_size (= 2048), must be a power of 2 between 256 and 1024."},
		{"duplex=most", "'duplex' must be 'half' or 'full'"},
		{"speed=-5", "'speed' must be between 0 and INT_MAX"},
		{"rss=on", "rss=on"},
		{"hash=on", "hash=on"},
		{"guest_rsc_ext=on", "guest_rsc_ext=on"},
		{"failover=on", "failover=on"},
		{"tx=timer", "tx=timer"},
		{"host_mtu=60", "host_mtu=60"},
		{"netdev=none", "can't find value 'none'"},
		{"mac=01:00:00:00:00:01", "multicast"},
	};
	char text[200];

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *message;

		snprintf(text, sizeof(text), "-m 16 -device virtio-net-pci,%s", bad[i].option);
		message = bench_new_fails(text);
		ck_assert_msg(strstr(message, bad[i].message), "%s: %s", bad[i].option, message);
	}
}
END_TEST

START_TEST(queue_sizes_as_asked)
{
	set_up(",rx_queue_size=1024,tx_queue_size=512");
	drive(VD_LEGACY, CTRL_FEATURES);
	ck_assert_uint_eq(d.q[RX].size, 1024);
	ck_assert_uint_eq(d.q[TX].size, 512);
	ck_assert_uint_eq(d.q[CTRL].size, 64);
	tear_down();
}
END_TEST

/* ---- sending ---- */

START_TEST(frames_go_out)
{
	uint8_t got[2048], want[2048];

	set_up("");
	drive(kinds[_i % 2], _i / 2 ? F_MRG_RXBUF : 0);
	for (unsigned len = 14; len < 1600; len += 300) {
		post(NULL, len, (uint8_t)len);
		vd_ring(&d, TX);
		expect_sent(len, (uint8_t)len);
		ck_assert_int_ge(vd_used(&d, TX, NULL), 0);
	}
	/* As old drivers build them: the header for itself; and in crumbs. */
	make_frame(want, other, 100, 3);
	bench_write(b, next_buffer + 64, want, 100);
	vd_add(&d, TX, (struct vd_seg[]){{next_buffer, header(), false}, {next_buffer + 64, 100, false}}, 2);
	vd_add(&d, TX,
	       (struct vd_seg[]){{next_buffer, 5, false},
				 {next_buffer, header() - 5, false},
				 {next_buffer + 64, 1, false},
				 {next_buffer + 65, 13, false},
				 {next_buffer + 78, 86, false}},
	       5);
	vd_ring(&d, TX);
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(to_cable(got, sizeof(got)), 100);
		ck_assert_int_eq(memcmp(got, want, 100), 0);
	}
	ck_assert_uint_eq(used_count(TX), 2);
	tear_down();
}
END_TEST

START_TEST(a_frame_in_hundreds_of_pieces)
{
	struct vd_seg seg[256];
	uint8_t got[2048], want[2048];

	set_up(",tx_queue_size=1024");
	drive(VD_MODERN, 0);
	make_frame(want, other, 243 * 4, 3);
	seg[0] = (struct vd_seg){next_buffer, 12, false};
	for (unsigned i = 0; i < 243; i++) {
		bench_write(b, next_buffer + 64 + 8 * i, want + 4 * i, 4);
		seg[1 + i] = (struct vd_seg){next_buffer + 64 + 8 * i, 4, false};
	}
	vd_add(&d, TX, seg, 244);
	vd_ring(&d, TX);
	ck_assert_int_eq(to_cable(got, sizeof(got)), 243 * 4);
	ck_assert_int_eq(memcmp(got, want, 243 * 4), 0);
	/* More pieces than are mapped at once. */
	for (unsigned i = 0; i < 600; i++)
		vd_desc(&d, TX, (uint16_t)i, i ? VQ_BUFFERS + 0x10000 + i : next_buffer, i ? 1 : 12, i < 599,
			(uint16_t)(i + 1));
	bench_write(b, VQ_BUFFERS + 0x10001, want, 599);
	vd_offer(&d, TX, 0);
	vd_ring(&d, TX);
	ck_assert_int_eq(to_cable(got, sizeof(got)), 599);
	ck_assert_int_eq(memcmp(got, want, 599), 0);
	tear_down();
}
END_TEST

START_TEST(what_is_no_frame_is_lost)
{
	uint8_t got[64];
	struct net_stats stats;

	set_up("");
	drive(VD_MODERN, 0);
	post(NULL, 13, 0); /* shorter than an Ethernet header */
	vd_add(&d, TX, (struct vd_seg[]){{next_buffer, 12, false}, {0xfee00000, 100, false}}, 2); /* not RAM */
	vd_add(&d, TX, (struct vd_seg[]){{next_buffer, 12, false}, {0, 0xffff0000, false}}, 2);
	vd_add(&d, TX, (struct vd_seg[]){{next_buffer, 12, false}, {0x100000, 80000, false}}, 2); /* too long */
	post(NULL, 60, 7);
	vd_ring(&d, TX);
	expect_sent(60, 7);
	ck_assert_int_eq(to_cable(got, sizeof(got)), -1);
	ck_assert_uint_eq(used_count(TX), 5);
	nic_get_stats(nic_next(NULL), &stats);
	ck_assert_uint_eq(stats.tx_packets, 1);
	ck_assert_uint_eq(stats.tx_bytes, 60);
	ck_assert_uint_eq(stats.tx_dropped, 4);
	tear_down();
}
END_TEST

/* What asks for something that was not offered is not sent. */
START_TEST(headers_that_make_no_sense)
{
	static const uint8_t bad[][10] = {
		{1, 0, 0, 0, 0, 0, 14, 0, 6, 0},      /* checksum: not negotiated */
		{0, 1, 0, 0, 0x64, 0, 0, 0, 0, 0},    /* TCPv4 segmentation: not negotiated */
		{1, 4, 54, 0, 0x64, 0, 34, 0, 16, 0}, /* TCPv6 */
		{0, 3, 0, 0, 0x64, 0, 0, 0, 0, 0},    /* UDP */
		{0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0},    /* ECN of nothing */
		{0, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0},
	};
	uint8_t got[64];

	set_up("");
	drive(kinds[_i], 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		post(bad[i], 60, 1);
	/* Hints that are wrong and flags of the other direction do no harm. */
	post((const uint8_t[]){2 | 4, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, 60, 7);
	vd_ring(&d, TX);
	expect_sent(60, 7);
	ck_assert_int_eq(to_cable(got, sizeof(got)), -1);
	ck_assert_uint_eq(used_count(TX), ARRAY_SIZE(bad) + 1);
	tear_down();
}
END_TEST

/* The cable takes a few datagrams; the rest waits in the ring, and is there in another process. */
START_TEST(a_cable_that_is_full)
{
	unsigned done, total = 0;

	set_up("");
	drive(kinds[_i / 2], 0);
	for (unsigned i = 0; i < 64; i++)
		post(NULL, 60 + i, (uint8_t)i);
	vd_ring(&d, TX);
	done = used_count(TX);
	ck_assert_uint_gt(done, 0);
	ck_assert_uint_lt(done, 64);
	/* Ringing does not help, and is asked not to be done. */
	ck_assert_uint_eq(bench_readw(b, d.q[TX].used) & 1, 1);
	vd_ring(&d, TX);
	ck_assert_uint_eq(used_count(TX), 0);
	if (_i % 2)
		save_load();
	while (total < 64) {
		expect_sent(60 + total, (uint8_t)total);
		total++;
		for (unsigned i = 0; i < 3; i++)
			bench_step(b, 10 * NS_PER_MS);
		done += used_count(TX);
		ck_assert_uint_ge(done, total);
	}
	ck_assert_uint_eq(done, 64);
	ck_assert_uint_eq(bench_readw(b, d.q[TX].used) & 1, 0);
	tear_down();
}
END_TEST

/* ---- receiving ---- */

START_TEST(frames_come_in)
{
	uint64_t at[4];

	set_up("");
	drive(kinds[_i % 2], _i / 2 ? F_MRG_RXBUF : 0);
	for (unsigned i = 0; i < 4; i++)
		at[i] = give(1600);
	vd_ring(&d, RX);
	frame_comes(own, 60, 1);
	expect_frame(at[0], own, 60, 1);
	frame_comes(broadcast, 14, 2);
	frame_comes(other, 1514, 3);
	expect_frame(at[1], broadcast, 14, 2);
	expect_frame(at[2], other, 1514, 3); /* promiscuous until told otherwise */
	ck_assert_int_lt(vd_used(&d, RX, NULL), 0);
	tear_down();
}
END_TEST

START_TEST(into_buffers_in_pieces)
{
	uint8_t got[200], want[200];
	uint32_t used;
	uint64_t at;

	set_up("");
	drive(kinds[_i], 0);
	at = next_buffer;
	vd_add(&d, RX,
	       (struct vd_seg[]){{at, 3, true},
				 {at + 16, header() - 3, true},
				 {at + 32, 1, true},
				 {at + 0xfff, 2, true},
				 {at + 0x2000, 2000, true}},
	       5);
	vd_ring(&d, RX);
	frame_comes(own, 100, 5);
	ck_assert_int_ge(vd_used(&d, RX, &used), 0);
	ck_assert_uint_eq(used, header() + 100);
	make_frame(want, own, 100, 5);
	bench_read(b, at + 32, got, 1);
	bench_read(b, at + 0xfff, got + 1, 2);
	bench_read(b, at + 0x2000, got + 3, 97);
	ck_assert_int_eq(memcmp(got, want, 100), 0);
	tear_down();
}
END_TEST

/* One frame over several buffers; the header says over how many. */
START_TEST(over_merged_buffers)
{
	static uint8_t want[65536], got[65536];
	const size_t lengths[] = {2000, 60, 2000, 9000, 500, 30000, 64};
	uint64_t at[600];
	unsigned next = 0, given = 0;

	set_up(",rx_queue_size=256");
	drive(kinds[_i], F_MRG_RXBUF);
	for (size_t k = 0; k < ARRAY_SIZE(lengths); k++) {
		size_t len = lengths[k], done = 0;
		unsigned n = 0, buffers;
		uint32_t used;

		while (given - next < 250)
			at[given++] = give(256);
		vd_ring(&d, RX);
		frame_comes(own, len, (uint8_t)k);
		buffers = bench_readw(b, at[next] + 10);
		ck_assert_uint_eq(buffers, (12 + len + 255) / 256);
		while (vd_used(&d, RX, &used) >= 0) {
			bench_read(b, at[next++], got + done, used);
			ck_assert_uint_eq(used, MIN(12 + len - done, (size_t)256));
			done += used;
			n++;
		}
		ck_assert_uint_eq(n, buffers);
		ck_assert_uint_eq(done, 12 + len);
		make_frame(want, own, len, (uint8_t)k);
		ck_assert_int_eq(memcmp(got + 12, want, len), 0);
		if (next_buffer > VQ_BUFFERS + 4 * MIB)
			next_buffer = VQ_BUFFERS;
	}
	tear_down();
}
END_TEST

START_TEST(a_frame_that_is_too_long_is_lost)
{
	uint64_t at;

	set_up("");
	drive(kinds[_i], 0);
	at = give(header() + 100);
	vd_ring(&d, RX);
	frame_comes(own, 101, 1);
	ck_assert_int_lt(vd_used(&d, RX, NULL), 0);
	frame_comes(own, 100, 2);
	expect_frame(at, own, 100, 2);
	tear_down();
}
END_TEST

START_TEST(without_buffers_frames_wait_in_the_cable)
{
	uint64_t at[2];

	set_up("");
	drive(kinds[_i], 0);
	ck_assert_uint_eq(bench_readw(b, d.q[RX].used) & 1, 0); /* ring when there are some */
	frame_comes(own, 60, 1);
	frame_comes(own, 61, 2);
	at[0] = give(1600);
	vd_ring(&d, RX);
	expect_frame(at[0], own, 60, 1);
	ck_assert_int_lt(vd_used(&d, RX, NULL), 0);
	at[0] = give(1600);
	at[1] = give(1600);
	vd_ring(&d, RX);
	expect_frame(at[0], own, 61, 2);
	ck_assert_uint_eq(bench_readw(b, d.q[RX].used) & 1, 1); /* enough: more need no ringing */
	frame_comes(own, 62, 3);
	expect_frame(at[1], own, 62, 3);
	tear_down();
}
END_TEST

/* Fewer merged buffers than a frame needs: it waits for the rest; if all there can be are too few it makes way. */
START_TEST(a_frame_waits_for_more_buffers)
{
	static uint8_t want[4096], got[4096];
	uint64_t at[20];
	uint32_t used;

	set_up("");
	drive(kinds[_i], F_MRG_RXBUF | (_i ? VD_EVENT_IDX : 0));
	for (unsigned i = 0; i < 3; i++)
		at[i] = give(256);
	vd_ring(&d, RX);
	frame_comes(own, 3000, 1);
	frame_comes(own, 60, 2);
	ck_assert_int_lt(vd_used(&d, RX, NULL), 0);
	if (_i) /* the driver is to ring for the next buffer, not for one that is there */
		ck_assert_uint_eq(bench_readw(b, d.q[RX].used + 4 + 8ull * d.q[RX].size), 3);
	else
		ck_assert_uint_eq(bench_readw(b, d.q[RX].used) & 1, 0);
	for (unsigned i = 3; i < 14; i++)
		at[i] = give(256);
	vd_ring(&d, RX);
	for (unsigned i = 0; i < 12; i++) {
		ck_assert_int_ge(vd_used(&d, RX, &used), 0);
		bench_read(b, at[i], got + 256 * i, used);
	}
	ck_assert_uint_eq(get_le16(got + 10), 12);
	make_frame(want, own, 3000, 1);
	ck_assert_int_eq(memcmp(got + 12, want, 3000), 0);
	expect_frame(at[12], own, 60, 2);
	/* Saved while one waits: it is lost, the buffers are not. */
	frame_comes(own, 3000, 3);
	ck_assert_int_lt(vd_used(&d, RX, NULL), 0);
	save_load();
	frame_comes(own, 61, 4);
	expect_frame(at[13], own, 61, 4);
	tear_down();
}
END_TEST

START_TEST(a_frame_that_no_ring_could_hold)
{
	set_up(",rx_queue_size=256");
	drive(VD_MODERN, F_MRG_RXBUF);
	for (unsigned i = 0; i < 256; i++)
		give(16);
	vd_ring(&d, RX);
	frame_comes(own, 5000, 1);
	ck_assert_int_lt(vd_used(&d, RX, NULL), 0);
	frame_comes(own, 20, 2);
	ck_assert_uint_eq(used_count(RX), 2);
	tear_down();
}
END_TEST

/* ---- the filter ---- */

START_TEST(receive_modes)
{
	set_up("");
	drive(kinds[_i], CTRL_FEATURES);
	ck_assert(comes_through(other)); /* promiscuous */
	ck_assert_int_eq(rx_mode(0, 0), OK);
	ck_assert(!comes_through(other));
	ck_assert(comes_through(own));
	ck_assert(comes_through(broadcast));
	ck_assert(!comes_through(multicast));
	ck_assert_int_eq(rx_mode(1, 1), OK); /* allmulti */
	ck_assert(comes_through(multicast));
	ck_assert_int_eq(rx_mode(3, 1), OK); /* nomulti */
	ck_assert(!comes_through(multicast));
	ck_assert(comes_through(broadcast));
	ck_assert_int_eq(rx_mode(2, 1), OK); /* alluni */
	ck_assert(comes_through(other));
	ck_assert_int_eq(rx_mode(4, 1), OK); /* nouni */
	ck_assert(!comes_through(own));
	ck_assert_int_eq(rx_mode(5, 1), OK); /* nobcast */
	ck_assert(!comes_through(broadcast));
	save_load();
	ck_assert(!comes_through(broadcast));
	ck_assert(!comes_through(own));
	ck_assert_int_eq(rx_mode(0, 1), OK);
	ck_assert(comes_through(own));
	/* A reset takes all of it back. */
	drive(kinds[_i], CTRL_FEATURES);
	ck_assert(comes_through(multicast));
	ck_assert_int_eq(rx_mode(0, 0), OK);
	ck_assert(comes_through(broadcast));
	tear_down();
}
END_TEST

static int set_macs(unsigned n_uni, unsigned n_multi, int more)
{
	static uint8_t data[4 + 100 * 6 + 4 + 100 * 6 + 10];
	uint8_t *p = data;

	put_le32(p, n_uni);
	p += 4;
	for (unsigned i = 0; i < n_uni; i++, p += 6)
		memcpy(p, (const uint8_t[]){0x02, 0, 0, 0, 0, (uint8_t)i}, 6);
	put_le32(p, n_multi);
	p += 4;
	for (unsigned i = 0; i < n_multi; i++, p += 6)
		memcpy(p, (const uint8_t[]){0x01, 0, 0, 0, 0, (uint8_t)i}, 6);
	return control(CTRL, 1, 0, data, (uint32_t)(p - data + more));
}

START_TEST(address_tables)
{
	const uint8_t uni[6] = {0x02, 0, 0, 0, 0, 3}, multi[6] = {0x01, 0, 0, 0, 0, 3}, no[6] = {0x02, 0, 0, 0, 0, 200},
		      no_multi[6] = {0x01, 0, 0, 0, 0, 200};
	struct nic_rx_filter f;

	set_up("");
	drive(VD_MODERN, CTRL_FEATURES);
	rx_mode(0, 0);
	ck_assert_int_eq(set_macs(4, 4, 0), OK);
	ck_assert(comes_through(uni) && comes_through(multi) && comes_through(own));
	ck_assert(!comes_through(no) && !comes_through(no_multi));
	save_load();
	ck_assert(comes_through(uni) && comes_through(multi));
	ck_assert(!comes_through(no) && !comes_through(no_multi));
	memset(&f, 0, sizeof(f));
	nic_next(NULL)->ops->rx_filter(nic_next(NULL), &f);
	ck_assert_uint_eq(f.n_unicast, 4);
	ck_assert_uint_eq(f.n_multicast, 4);
	ck_assert_int_eq(memcmp(f.unicast_table[3], uni, 6), 0);
	ck_assert_int_eq(memcmp(f.multicast_table[3], multi, 6), 0);
	ck_assert_int_eq(memcmp(f.main_mac, own, 6), 0);
	ck_assert(!f.promiscuous && f.broadcast_allowed && !f.unicast_overflow && !f.multicast_overflow);
	ck_assert_int_eq(f.unicast, NIC_RX_NORMAL);
	ck_assert_int_eq(f.vlan, NIC_RX_NONE);
	/* Tables that are too long let everything of their kind in. */
	ck_assert_int_eq(set_macs(64, 0, 0), OK);
	ck_assert(comes_through(uni) && !comes_through(no) && !comes_through(multi));
	ck_assert_int_eq(set_macs(60, 5, 0), OK);
	ck_assert(comes_through(no_multi) && comes_through(multi) && !comes_through(no));
	ck_assert_int_eq(set_macs(65, 4, 0), OK);
	ck_assert(comes_through(no) && comes_through(multi) && !comes_through(no_multi));
	/* Commands that are cut off or have too much. */
	ck_assert_int_eq(set_macs(4, 4, -1), ERR);
	ck_assert_int_eq(set_macs(4, 4, -25), ERR);
	ck_assert_int_eq(set_macs(4, 0, -4), ERR);
	ck_assert_int_eq(set_macs(4, 4, 1), ERR);
	ck_assert_int_eq(control(CTRL, 1, 0, "\xff\xff\xff\xff\xff\xff\xff\xff", 8), ERR);
	ck_assert(!comes_through(no) && !comes_through(uni) && comes_through(own));
	tear_down();
}
END_TEST

START_TEST(own_address)
{
	struct nic_rx_filter f = {0};

	set_up("");
	drive(VD_MODERN, CTRL_FEATURES);
	rx_mode(0, 0);
	ck_assert_int_eq(control(CTRL, 1, 1, other, 6), OK);
	ck_assert(comes_through(other) && !comes_through(own));
	ck_assert_uint_eq(vd_config(&d, 0, 4), get_le32(other));
	ck_assert_int_eq(control(CTRL, 1, 1, own, 5), ERR);
	ck_assert_int_eq(control(CTRL, 1, 2, own, 6), ERR);
	vd_set_config(&d, 0, 0x11, 1); /* by command only */
	ck_assert_uint_eq(vd_config(&d, 0, 4), get_le32(other));
	save_load();
	ck_assert(comes_through(other) && !comes_through(own));
	ck_assert_int_eq(memcmp(nic_next(NULL)->mac, other, 6), 0);
	/* The card's own comes back. Old drivers write it byte by byte. */
	drive(VD_LEGACY, F_MAC | F_CTRL_VQ | F_CTRL_RX);
	ck_assert_uint_eq(vd_config(&d, 0, 4), get_le32(own));
	for (unsigned i = 0; i < 6; i++)
		vd_set_config(&d, i, other[i], 1);
	rx_mode(0, 0);
	ck_assert(comes_through(other) && !comes_through(own));
	nic_next(NULL)->ops->rx_filter(nic_next(NULL), &f);
	ck_assert_int_eq(memcmp(f.main_mac, other, 6), 0);
	ck_assert_int_eq(f.vlan, NIC_RX_ALL);
	tear_down();
}
END_TEST

static bool vlan_comes_through(uint16_t id)
{
	uint8_t f[64];

	give(1600);
	vd_ring(&d, RX);
	make_frame(f, own, sizeof(f), 0);
	put_be16(f + 12, 0x8100);
	put_be16(f + 14, (uint16_t)(0xe000 | id));
	from_cable(f, sizeof(f));
	return vd_used(&d, RX, NULL) >= 0;
}

static int vlan(uint8_t command, uint16_t id)
{
	return control(CTRL, 2, command, &(uint16_t){htole16(id)}, 2);
}

START_TEST(vlans)
{
	struct nic_rx_filter f = {0};

	set_up("");
	drive(VD_MODERN, CTRL_FEATURES);
	ck_assert(vlan_comes_through(5)); /* promiscuous */
	rx_mode(0, 0);
	ck_assert(!vlan_comes_through(5));
	ck_assert(comes_through(own));
	ck_assert_int_eq(vlan(0, 5), OK);
	ck_assert_int_eq(vlan(0, 4095), OK);
	ck_assert(vlan_comes_through(5) && vlan_comes_through(4095) && !vlan_comes_through(6));
	nic_next(NULL)->ops->rx_filter(nic_next(NULL), &f);
	ck_assert_int_eq(f.vlan, NIC_RX_NORMAL);
	ck_assert_uint_eq(f.n_vlan, 2);
	ck_assert_uint_eq(f.vlan_table[0], 5);
	ck_assert_uint_eq(f.vlan_table[1], 4095);
	save_load();
	ck_assert(vlan_comes_through(5));
	ck_assert_int_eq(vlan(1, 5), OK);
	ck_assert(!vlan_comes_through(5));
	ck_assert_int_eq(vlan(0, 4096), ERR);
	ck_assert_int_eq(vlan(2, 5), ERR);
	ck_assert_int_eq(control(CTRL, 2, 0, "\x05", 1), ERR);
	/* A driver that cannot filter VLANs gets all of them. */
	drive(VD_MODERN, F_CTRL_VQ | F_CTRL_RX);
	rx_mode(0, 0);
	ck_assert(vlan_comes_through(5));
	ck_assert_int_eq(vlan(0, 5), ERR);
	tear_down();
}
END_TEST

START_TEST(commands_that_are_refused)
{
	set_up("");
	drive(kinds[_i], CTRL_FEATURES);
	ck_assert_int_eq(control(CTRL, 0, 0, NULL, 0), ERR); /* no data */
	ck_assert_int_eq(rx_mode(6, 1), ERR);
	ck_assert_int_eq(control(CTRL, 3, 0, NULL, 0), ERR);                 /* nothing was to be announced */
	ck_assert_int_eq(control(CTRL, 4, 0, "\x01\x00", 2), ERR);           /* no MQ */
	ck_assert_int_eq(control(CTRL, 5, 0, "\x02\0\0\0\0\0\0\0", 8), ERR); /* guest checksums were not negotiated */
	ck_assert_int_eq(control(CTRL, 5, 0, "\0\0\0\0\0\0\0\0", 8), OK);
	ck_assert_int_eq(control(CTRL, 5, 0, "\0\0\0\0", 4), ERR);
	ck_assert_int_eq(control(CTRL, 5, 1, "\0\0\0\0\0\0\0\0", 8), ERR);
	ck_assert_int_eq(control(CTRL, 6, 0, NULL, 0), ERR);
	ck_assert_int_eq(control(CTRL, 255, 255, "abc", 3), ERR);
	/* What was not negotiated. */
	drive(kinds[_i], F_CTRL_VQ);
	ck_assert_int_eq(rx_mode(0, 0), ERR);
	ck_assert_int_eq(rx_mode(2, 0), ERR);
	ck_assert_int_eq(set_macs(1, 1, 0), ERR);
	ck_assert_int_eq(control(CTRL, 1, 1, own, 6), ERR);
	ck_assert_int_eq(control(CTRL, 5, 0, "\0\0\0\0\0\0\0\0", 8), ERR);
	ck_assert(comes_through(other));
	tear_down();
}
END_TEST

START_TEST(one_pair_of_queues)
{
	set_up(",mq=on");
	drive(VD_MODERN, CTRL_FEATURES | F_MQ);
	ck_assert_int_eq(control(CTRL, 4, 0, "\x01\x00", 2), OK);
	ck_assert_int_eq(control(CTRL, 4, 0, "\x00\x00", 2), ERR);
	ck_assert_int_eq(control(CTRL, 4, 0, "\x02\x00", 2), ERR);
	ck_assert_int_eq(control(CTRL, 4, 0, "\x01", 1), ERR);
	ck_assert_int_eq(control(CTRL, 4, 1, "\x01\x00", 2), ERR);
	ck_assert(comes_through(own));
	tear_down();
}
END_TEST

/* ---- link ---- */

static void set_link(const char *name, bool up)
{
	struct err e = ERR_INIT;

	ck_assert_msg(!net_set_link(name, up, &e), "%s", e.msg);
	bench_idle(b);
}

START_TEST(unplugging_the_cable)
{
	uint8_t generation, got[64];
	uint64_t at;

	set_up("");
	drive(VD_MODERN, F_STATUS);
	ck_assert_uint_eq(vd_config(&d, 6, 2), 1);
	at = give(1600);
	vd_ring(&d, RX);
	vd_isr(&d);
	generation = vd_generation(&d);
	set_link(_i ? "n" : "nic", false);
	ck_assert_uint_eq(vd_config(&d, 6, 2), 0);
	ck_assert_uint_eq(vd_isr(&d), 2);
	ck_assert_uint_ne(vd_generation(&d), generation);
	/* Nothing comes and nothing goes, but the driver is not held up. */
	frame_comes(own, 60, 1);
	ck_assert_int_lt(vd_used(&d, RX, NULL), 0);
	post(NULL, 60, 1);
	vd_ring(&d, TX);
	ck_assert_uint_eq(used_count(TX), 1);
	ck_assert_int_eq(to_cable(got, sizeof(got)), -1);
	set_link(_i ? "n" : "nic", true);
	ck_assert_uint_eq(vd_config(&d, 6, 2), 1);
	ck_assert_uint_eq(vd_isr(&d) & 2, 2);
	frame_comes(own, 60, 2);
	expect_frame(at, own, 60, 2);
	post(NULL, 60, 3);
	vd_ring(&d, TX);
	expect_sent(60, 3);
	tear_down();
}
END_TEST

START_TEST(unplugged_while_the_cable_is_full)
{
	unsigned done;

	set_up("");
	drive(VD_MODERN, F_STATUS);
	for (unsigned i = 0; i < 64; i++)
		post(NULL, 60, (uint8_t)i);
	vd_ring(&d, TX);
	done = used_count(TX);
	ck_assert_uint_lt(done, 64);
	set_link("nic", false);
	ck_assert_uint_eq(done + used_count(TX), 64);
	tear_down();
}
END_TEST

/* The link is what it is where the guest arrives. */
START_TEST(arriving_without_a_cable)
{
	set_up("");
	drive(VD_MODERN, F_STATUS);
	set_link("nic", false);
	ck_assert_uint_eq(vd_config(&d, 6, 2), 0);
	vd_isr(&d);
	save_load();
	ck_assert_uint_eq(vd_config(&d, 6, 2), 1);
	ck_assert_uint_eq(vd_isr(&d), 2);
	tear_down();
}
END_TEST

START_TEST(the_driver_announces_itself)
{
	const struct nic_ops *ops;

	set_up("");
	ops = nic_next(NULL)->ops;
	ck_assert(!ops->announce(nic_next(NULL))); /* no driver yet */
	drive(VD_MODERN, F_STATUS | F_CTRL_VQ);
	ck_assert(!ops->announce(nic_next(NULL)));
	drive(VD_MODERN, CTRL_FEATURES);
	vd_isr(&d);
	ck_assert(ops->announce(nic_next(NULL)));
	ck_assert_uint_eq(vd_config(&d, 6, 2), 3);
	ck_assert_uint_eq(vd_isr(&d), 2);
	save_load();
	ck_assert_uint_eq(vd_config(&d, 6, 2), 3);
	ck_assert_int_eq(control(CTRL, 3, 1, NULL, 0), ERR);
	ck_assert_int_eq(control(CTRL, 3, 0, NULL, 0), OK);
	ck_assert_uint_eq(vd_config(&d, 6, 2), 1);
	ck_assert_int_eq(control(CTRL, 3, 0, NULL, 0), ERR);
	tear_down();
}
END_TEST

START_TEST(the_netdev_goes_away)
{
	struct err e = ERR_INIT;

	set_up("");
	drive(VD_MODERN, F_STATUS);
	give(1600);
	vd_ring(&d, RX);
	ck_assert_msg(!netdev_remove("n", &e), "%s", e.msg);
	bench_idle(b);
	ck_assert_uint_eq(vd_config(&d, 6, 2), 0);
	post(NULL, 60, 1);
	vd_ring(&d, TX);
	ck_assert_uint_eq(used_count(TX), 1);
	bench_reset(b);
	drive(VD_MODERN, F_STATUS);
	ck_assert_uint_eq(vd_config(&d, 6, 2), 0);
	tear_down();
}
END_TEST

/* ---- hostile drivers ---- */

static void tx_without_header(void)
{
	vd_add(&d, TX, &(struct vd_seg){VQ_BUFFERS, header() - 1, false}, 1);
	vd_ring(&d, TX);
}
static void tx_writable(void)
{
	vd_add(&d, TX, &(struct vd_seg){VQ_BUFFERS, 100, true}, 1);
	vd_ring(&d, TX);
}
static void rx_readable(void)
{
	vd_add(&d, RX, &(struct vd_seg){VQ_BUFFERS, 100, false}, 1);
	vd_ring(&d, RX);
	frame_comes(own, 60, 0);
}
static void rx_smaller_than_header(void)
{
	give(header() - 1);
	vd_ring(&d, RX);
	frame_comes(own, 60, 0);
}
static void rx_outside_ram(void)
{
	vd_add(&d, RX, &(struct vd_seg){0xfee00000, 2000, true}, 1);
	vd_ring(&d, RX);
	frame_comes(own, 60, 0);
}
static void rx_loop(void)
{
	vd_desc(&d, RX, 0, VQ_BUFFERS, 4, 3, 0);
	vd_offer(&d, RX, 0);
	vd_ring(&d, RX);
	frame_comes(own, 60, 0);
}
static void ctrl_without_head(void)
{
	vd_add(&d, CTRL, (struct vd_seg[]){{VQ_BUFFERS, 1, false}, {VQ_BUFFERS, 1, true}}, 2);
	vd_ring(&d, CTRL);
}
static void ctrl_without_ack(void)
{
	vd_add(&d, CTRL, &(struct vd_seg){VQ_BUFFERS, 3, false}, 1);
	vd_ring(&d, CTRL);
}

static void (*const bad[])(void) = {tx_without_header, tx_writable, rx_readable,       rx_smaller_than_header,
				    rx_outside_ram,    rx_loop,     ctrl_without_head, ctrl_without_ack};

START_TEST(bad_chains_stop_the_device_until_reset)
{
	set_up("");
	for (unsigned k = 0; k < 4; k++) {
		drive(kinds[k % 2], CTRL_FEATURES | (k / 2 ? F_MRG_RXBUF : 0));
		bad[_i]();
		ck_assert_int_eq(vd_status(&d) & VD_NEEDS_RESET, d.kind == VD_MODERN ? VD_NEEDS_RESET : 0);
		ck_assert_uint_eq(used_count(RX) + used_count(TX) + used_count(CTRL), 0);
		vd_queue(&d, TX, 0);
		post(NULL, 60, 1);
		vd_ring(&d, TX);
		ck_assert_uint_eq(used_count(TX), 0);
		drive(kinds[k % 2], CTRL_FEATURES);
		ck_assert(comes_through(own));
		post(NULL, 60, 1);
		vd_ring(&d, TX);
		expect_sent(60, 1);
	}
	tear_down();
}
END_TEST

/* ---- interrupts ---- */

START_TEST(one_interrupt_for_many_packets)
{
	set_up("");
	vd_init(&d, b, SLOT, VD_MODERN);
	vd_negotiate(&d, 0);
	vd_msix(&d, 3);
	vd_queue(&d, RX, 0);
	vd_queue(&d, TX, 0);
	vd_set_status(&d, vd_status(&d) | VD_OK);
	bench_idle(b);
	bench_msis(b, NULL);
	for (unsigned i = 0; i < 5; i++)
		post(NULL, 60, 1);
	vd_ring(&d, TX);
	uint32_t data;
	ck_assert_uint_eq(bench_msis(b, &data), 1);
	ck_assert_uint_eq(data, 2);
	give(1600);
	vd_ring(&d, RX);
	ck_assert_uint_eq(bench_msis(b, &data), 0);
	frame_comes(own, 60, 1);
	ck_assert_uint_eq(bench_msis(b, &data), 1);
	ck_assert_uint_eq(data, 1);
	tear_down();
}
END_TEST

/* Linux before 4.0 has its receive buffers in the ring before it is ready. */
START_TEST(buffers_before_the_driver_is_ready)
{
	uint64_t at;

	set_up("");
	vd_init(&d, b, SLOT, kinds[_i]);
	vd_negotiate(&d, 0);
	vd_queue(&d, RX, 0);
	vd_queue(&d, TX, 0);
	at = give(1600);
	vd_ring(&d, RX);
	frame_comes(own, 60, 1);
	ck_assert_int_lt(vd_used(&d, RX, NULL), 0);
	vd_set_status(&d, vd_status(&d) | VD_OK);
	bench_idle(b);
	expect_frame(at, own, 60, 1);
	tear_down();
}
END_TEST

START_TEST(a_machine_reset_in_the_middle)
{
	set_up("");
	drive(VD_MODERN, F_MRG_RXBUF);
	give(64);
	vd_ring(&d, RX);
	frame_comes(own, 300, 1); /* waits for buffers */
	for (unsigned i = 0; i < 64; i++)
		post(NULL, 60, (uint8_t)i);
	vd_ring(&d, TX); /* waits for the cable */
	bench_reset(b);
	drive(VD_MODERN, 0);
	ck_assert(comes_through(own));
	while (to_cable((uint8_t[100]){0}, 100) >= 0)
		bench_idle(b);
	post(NULL, 60, 5);
	vd_ring(&d, TX);
	bench_step(b, 50 * NS_PER_MS);
	expect_sent(60, 5);
	tear_down();
}
END_TEST

int main(void)
{
	TCase *what = tcase_create("what"), *tx = tcase_create("tx"), *rx = tcase_create("rx"),
	      *filter = tcase_create("filter"), *link = tcase_create("link"), *life = tcase_create("life");

	tcase_add_test(what, a_network_card);
	tcase_add_test(what, an_option_rom);
	tcase_add_test(what, without_a_cable);
	tcase_add_test(what, features_of_a_plain_netdev);
	tcase_add_test(what, options_that_are_refused);
	tcase_add_test(what, queue_sizes_as_asked);
	tcase_add_loop_test(tx, frames_go_out, 0, 4);
	tcase_add_test(tx, a_frame_in_hundreds_of_pieces);
	tcase_add_test(tx, what_is_no_frame_is_lost);
	tcase_add_loop_test(tx, headers_that_make_no_sense, 0, 2);
	tcase_add_loop_test(tx, a_cable_that_is_full, 0, 4);
	tcase_add_loop_test(rx, frames_come_in, 0, 4);
	tcase_add_loop_test(rx, into_buffers_in_pieces, 0, 2);
	tcase_add_loop_test(rx, over_merged_buffers, 0, 2);
	tcase_add_loop_test(rx, a_frame_that_is_too_long_is_lost, 0, 2);
	tcase_add_loop_test(rx, without_buffers_frames_wait_in_the_cable, 0, 2);
	tcase_add_loop_test(rx, a_frame_waits_for_more_buffers, 0, 2);
	tcase_add_test(rx, a_frame_that_no_ring_could_hold);
	tcase_add_loop_test(filter, receive_modes, 0, 2);
	tcase_add_test(filter, address_tables);
	tcase_add_test(filter, own_address);
	tcase_add_test(filter, vlans);
	tcase_add_loop_test(filter, commands_that_are_refused, 0, 2);
	tcase_add_test(filter, one_pair_of_queues);
	tcase_add_loop_test(link, unplugging_the_cable, 0, 2);
	tcase_add_test(link, unplugged_while_the_cable_is_full);
	tcase_add_test(link, arriving_without_a_cable);
	tcase_add_test(link, the_driver_announces_itself);
	tcase_add_test(link, the_netdev_goes_away);
	tcase_add_loop_test(life, bad_chains_stop_the_device_until_reset, 0, ARRAY_SIZE(bad));
	tcase_add_test(life, one_interrupt_for_many_packets);
	tcase_add_loop_test(life, buffers_before_the_driver_is_ready, 0, 2);
	tcase_add_test(life, a_machine_reset_in_the_middle);
	return bench_run("virtio-net", (TCase *const[]){what, tx, rx, filter, link, life, NULL});
}
