/*
 * The driver that the tests of virtio-net share, with a datagram socket for a cable: the test holds its other end.
 */
#ifndef VMM_TEST_VIRTIO_NET_H
#define VMM_TEST_VIRTIO_NET_H

#include "virtio_driver.h"
#include "virtio_net_features.h"

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

static inline void lay_cable(void)
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

static inline const char *options(const char *more)
{
	static char text[600];

	snprintf(text, sizeof(text),
		 "-m 16 -netdev dgram,id=n,local.type=unix,local.path=%s,remote.type=unix,remote.path=%s "
		 "-device virtio-net-pci,netdev=n,id=nic,addr=5,mac=" MAC "%s",
		 there, here, more);
	return text;
}

static inline void set_up(const char *more)
{
	lay_cable();
	b = bench_new(options(more));
	next_buffer = VQ_BUFFERS;
}

static inline void tear_down(void)
{
	bench_free(b);
	close(cable);
	unlink(here);
	unlink(there);
	*strrchr(here, '/') = '\0';
	rmdir(here);
}

/* The board, a driver of this kind and nothing received yet. */
static inline void drive(int kind, uint64_t features)
{
	vd_start(&d, b, SLOT, kind, features, features & F_CTRL_VQ ? 3 : 2);
}

static inline void save_load(void)
{
	b = bench_save_load(b);
	vd_moved(&d, b);
	bench_idle(b);
}

static inline unsigned header(void)
{
	return d.kind == VD_MODERN || d.features & F_MRG_RXBUF ? 12 : 10;
}

static inline size_t make_frame(uint8_t *f, const uint8_t to[6], size_t len, uint8_t seed)
{
	memcpy(f, to, 6);
	memcpy(f + 6, "\x02\x00\x00\x00\x00\x01\x08\x00", 8);
	for (size_t i = 14; i < len; i++)
		f[i] = (uint8_t)(seed + i * 7);
	return len;
}

/* A frame comes in; `tag` is in its contents. */
static inline void from_cable(const uint8_t *f, size_t len)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", there);
	ck_assert_int_eq(sendto(cable, f, len, 0, (struct sockaddr *)&a, sizeof(a)), (ssize_t)len);
	bench_idle(b);
}

static inline void frame_comes(const uint8_t to[6], size_t len, uint8_t seed)
{
	static uint8_t f[65536];

	from_cable(f, make_frame(f, to, len, seed));
}

/* What went out; -1: nothing. */
static inline ssize_t to_cable(uint8_t *f, size_t size)
{
	ssize_t len = recv(cable, f, size, 0);

	return len < 0 && errno == EAGAIN ? -1 : len;
}

/* A receive buffer in one piece, without ringing; where it is. */
static inline uint64_t give(uint32_t len)
{
	uint64_t at = next_buffer;

	vd_add(&d, RX, &(struct vd_seg){at, len, true}, 1);
	next_buffer += ALIGN_UP(len, 64u) + 64;
	return at;
}

/* The next received frame is this one, at `at` in one buffer. */
static inline void expect_frame(uint64_t at, const uint8_t to[6], size_t len, uint8_t seed)
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
static inline bool comes_through(const uint8_t to[6])
{
	give(1600);
	vd_ring(&d, RX);
	frame_comes(to, 64, 9);
	return vd_used(&d, RX, NULL) >= 0;
}

/* A frame to be sent, header and all in one descriptor, without ringing. */
static inline void post(const uint8_t *h, size_t len, uint8_t seed)
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

static inline void expect_sent(size_t len, uint8_t seed)
{
	static uint8_t want[65536], got[65536];

	ck_assert_int_eq(to_cable(got, sizeof(got)), (ssize_t)len);
	make_frame(want, other, len, seed);
	ck_assert_int_eq(memcmp(got, want, len), 0);
}

static inline unsigned used_count(unsigned q)
{
	unsigned n = 0;

	while (vd_used(&d, q, NULL) >= 0)
		n++;
	return n;
}

/* A control command; its result. */
static inline int control(unsigned q, uint8_t class, uint8_t command, const void *data, uint32_t len)
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

#endif
