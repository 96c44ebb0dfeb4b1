/* A guest's end of a cable, for tests of network back ends: a NIC that keeps what comes, and frames of a few protocols.
 */
#ifndef TEST_FRAMES_H
#define TEST_FRAMES_H

#include <arpa/inet.h>
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/bytes.h"
#include "vmm/clock.h"
#include "vmm/loop.h"
#include "vmm/net.h"

#define WAIT_MS   20000 /* for what must come, on a busy machine */
#define FRAME_MAX 2048

struct frame {
	uint8_t b[FRAME_MAX];
	size_t len;
};

static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56}, broadcast[6] = {255, 255, 255, 255, 255, 255};
static const struct device_class wire_class = {.name = "wire"};

static struct {
	struct device dev;
	struct nic nic;
	struct frame in[512];
	unsigned n_in;
	bool hold;     /* leave packets where they are */
	bool writable; /* told */
} wire;

static void wire_readable(struct nic *n, unsigned queue)
{
	while (!wire.hold && wire.n_in < ARRAY_SIZE(wire.in)) {
		struct frame *f = &wire.in[wire.n_in];
		struct iovec iov = {f->b, sizeof(f->b)};
		ssize_t len = netdev_recv(n, queue, &iov, 1);

		if (len <= 0)
			break;
		f->len = (size_t)len;
		wire.n_in++;
	}
}

static void wire_writable(struct nic *n, unsigned queue)
{
	wire.writable = true;
}

static void wire_link(struct nic *n, bool up)
{
}

/* Plug the wire into netdev `id`. */
static void wire_attach(const char *id)
{
	static const struct nic_ops ops = {wire_readable, wire_writable, wire_link, NULL, NULL};
	uint8_t mac[6];
	struct err e = ERR_INIT;

	memcpy(mac, guest_mac, 6);
	wire.dev.class = &wire_class;
	strcpy(wire.dev.id, "wire");
	pthread_mutex_init(&wire.dev.own_lock, NULL);
	wire.dev.lock = &wire.dev.own_lock;
	ck_assert_msg(!nic_attach(&wire.nic, &wire.dev, id, 1, mac, &ops, &e), "%s", e.msg);
	pthread_mutex_lock(wire.dev.lock);
	nic_want_packets(&wire.nic, 0, true);
	pthread_mutex_unlock(wire.dev.lock);
}

static void wire_detach(void)
{
	pthread_mutex_lock(wire.dev.lock);
	nic_detach(&wire.nic);
	pthread_mutex_unlock(wire.dev.lock);
}

/* False: busy. */
static bool wire_try(const void *buf, size_t len)
{
	struct iovec iov[2] = {{(void *)(uintptr_t)buf, MIN(len, (size_t)20)},
			       {(uint8_t *)(uintptr_t)buf + 20, len - MIN(len, (size_t)20)}};
	bool taken;

	pthread_mutex_lock(wire.dev.lock);
	taken = netdev_send(&wire.nic, 0, iov, len > 20 ? 2 : 1);
	pthread_mutex_unlock(wire.dev.lock);
	return taken;
}

static void wire_send(const void *buf, size_t len)
{
	uint64_t end = clock_ns(VCLOCK_REAL) + WAIT_MS * NS_PER_MS;

	while (!wire_try(buf, len)) {
		ck_assert_msg(clock_ns(VCLOCK_REAL) < end, "the back end stays busy");
		loop_step(loop_main(), 10);
	}
}

/* The first frame that fn likes, taken out; NULL if none comes in time. Valid until the next call. */
static struct frame *wire_wait(bool (*fn)(const struct frame *f), int ms)
{
	static struct frame found;
	uint64_t end = clock_ns(VCLOCK_REAL) + (uint64_t)ms * NS_PER_MS;

	for (;;) {
		for (unsigned i = 0; i < wire.n_in; i++)
			if (fn(&wire.in[i])) {
				found = wire.in[i];
				memmove(&wire.in[i], &wire.in[i + 1], (--wire.n_in - i) * sizeof(wire.in[0]));
				return &found;
			}
		if (wire.n_in == ARRAY_SIZE(wire.in))
			wire.n_in = 0; /* nobody wants those */
		if (clock_ns(VCLOCK_REAL) >= end)
			return NULL;
		loop_step(loop_main(), 5);
	}
}

/* ---- frames ---- */

static uint32_t sum16(const uint8_t *p, size_t len, uint32_t sum)
{
	for (size_t i = 0; i + 1 < len; i += 2)
		sum += get_be16(p + i);
	return len & 1 ? sum + ((uint32_t)p[len - 1] << 8) : sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

#define IP(a, b, c, d) ((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d))
#define GUEST_IP       IP(10, 0, 2, 15)
#define ROUTER         IP(10, 0, 2, 2)
#define DNS            IP(10, 0, 2, 3)

static void put_ether(struct frame *f, const uint8_t *to, uint16_t type)
{
	memset(f, 0, sizeof(*f));
	memcpy(f->b, to, 6);
	memcpy(f->b + 6, guest_mac, 6);
	put_be16(f->b + 12, type);
	f->len = 14;
}

/* An IPv4 header for a payload of len bytes that is in place at offset 34; completes UDP's, TCP's and ICMP's checksums.
 */
static void put_ip(struct frame *f, uint32_t from, uint32_t to, uint8_t protocol, size_t len)
{
	uint8_t *ip = f->b + 14, *payload = f->b + 34;
	static const uint8_t at[] = {[1] = 2, [6] = 16, [17] = 6};
	uint32_t sum = 0;

	ip[0] = 0x45;
	put_be16(ip + 2, (uint16_t)(20 + len));
	ip[8] = 64;
	ip[9] = protocol;
	put_be32(ip + 12, from);
	put_be32(ip + 16, to);
	put_be16(ip + 10, 0);
	put_be16(ip + 10, fold(sum16(ip, 20, 0)));
	if (protocol != 1)
		sum = sum16(ip + 12, 8, protocol + (uint32_t)len);
	put_be16(payload + at[protocol], 0);
	put_be16(payload + at[protocol], fold(sum16(payload, len, sum)));
	f->len = 34 + len;
}

static void send_udp(uint32_t from, uint16_t sport, uint32_t to, uint16_t dport, const void *data, size_t len)
{
	struct frame f;

	put_ether(&f, to == 0xffffffff ? broadcast : (const uint8_t[]){0x52, 0x55, 10, 0, 2, 2}, 0x0800);
	put_be16(f.b + 34, sport);
	put_be16(f.b + 36, dport);
	put_be16(f.b + 38, (uint16_t)(8 + len));
	memcpy(f.b + 42, data, len);
	put_ip(&f, from, to, 17, 8 + len);
	wire_send(f.b, f.len);
}

static uint8_t protocol_of(const struct frame *f)
{
	return f->len >= 34 && get_be16(f->b + 12) == 0x0800 ? f->b[23] : 0;
}

/* Answer what the router asks, so that it knows where the guest is. */
static void send_arp(uint16_t operation, uint32_t from, uint32_t to)
{
	struct frame f;

	put_ether(&f, broadcast, 0x0806);
	put_be16(f.b + 14, 1);
	put_be16(f.b + 16, 0x0800);
	f.b[18] = 6;
	f.b[19] = 4;
	put_be16(f.b + 20, operation);
	memcpy(f.b + 22, guest_mac, 6);
	put_be32(f.b + 28, from);
	put_be32(f.b + 38, to);
	f.len = 42;
	wire_send(f.b, f.len);
}

/* ---- TCP ---- */

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16 };
struct tcp {
	uint32_t peer;
	uint16_t port, peer_port;
	uint32_t seq, ack; /* next to send, next expected */
	bool closed, reset;
};
static struct tcp *tcp_waiting;

static bool is_for_tcp(const struct frame *f)
{
	return protocol_of(f) == 6 && f->len >= 54 && get_be16(f->b + 36) == tcp_waiting->port &&
	       (!tcp_waiting->peer_port || get_be16(f->b + 34) == tcp_waiting->peer_port);
}

static void tcp_send(struct tcp *t, uint8_t flags, const void *data, size_t len)
{
	struct frame f;

	put_ether(&f, (const uint8_t[]){0x52, 0x55, 10, 0, 2, 2}, 0x0800);
	put_be16(f.b + 34, t->port);
	put_be16(f.b + 36, t->peer_port);
	put_be32(f.b + 38, t->seq);
	put_be32(f.b + 42, flags & TCP_ACK ? t->ack : 0);
	f.b[46] = 5 << 4;
	f.b[47] = flags;
	put_be16(f.b + 48, 32768);
	if (len)
		memcpy(f.b + 54, data, len);
	put_ip(&f, GUEST_IP, t->peer, 6, 20 + len);
	wire_send(f.b, f.len);
	t->seq += (uint32_t)len + !!(flags & (TCP_SYN | TCP_FIN));
}

/* The next segment in order: its payload's length (-1: none in time), acknowledged. */
static int tcp_take(struct tcp *t, uint8_t *data, uint8_t *flags, int ms)
{
	tcp_waiting = t;
	for (;;) {
		struct frame *f = wire_wait(is_for_tcp, ms);
		size_t header, len;
		uint32_t seq;

		if (!f)
			return -1;
		header = (f->b[46] >> 4) * 4u;
		len = get_be16(f->b + 16) - 20u - header;
		ck_assert_uint_ge(f->len, 34 + header + len);
		seq = get_be32(f->b + 38);
		*flags = f->b[47];
		t->reset |= *flags & TCP_RST;
		if (*flags & TCP_RST)
			return 0;
		if (*flags & TCP_SYN) {
			t->peer_port = get_be16(f->b + 34);
			t->peer = get_be32(f->b + 26);
			t->ack = seq + 1;
			return 0;
		}
		if (seq != t->ack) { /* sent again */
			tcp_send(t, TCP_ACK, NULL, 0);
			continue;
		}
		if (data)
			memcpy(data, f->b + 34 + header, len);
		else
			ck_assert_uint_eq(len, 0); /* who connects takes no bytes */
		t->ack += (uint32_t)len + !!(*flags & TCP_FIN);
		t->closed |= *flags & TCP_FIN;
		if (len || *flags & TCP_FIN)
			tcp_send(t, TCP_ACK, NULL, 0);
		return (int)len;
	}
}

/* Connect from the guest. False: reset, or no answer in ms. */
static bool tcp_connect(struct tcp *t, uint16_t port, uint32_t peer, uint16_t peer_port, int ms)
{
	uint8_t flags;

	*t = (struct tcp){.port = port, .peer = peer, .peer_port = peer_port, .seq = 1000};
	tcp_send(t, TCP_SYN, NULL, 0);
	if (tcp_take(t, NULL, &flags, ms) < 0 || t->reset)
		return false;
	ck_assert_uint_eq(flags, TCP_SYN | TCP_ACK);
	tcp_send(t, TCP_ACK, NULL, 0);
	return true;
}

/* The guest listens: wait for a connection to `port`. */
static bool tcp_accept(struct tcp *t, uint16_t port)
{
	uint8_t flags;

	*t = (struct tcp){.port = port, .seq = 5000};
	if (tcp_take(t, NULL, &flags, WAIT_MS) < 0 || flags != TCP_SYN)
		return false;
	tcp_send(t, TCP_SYN | TCP_ACK, NULL, 0);
	return true;
}

#endif
