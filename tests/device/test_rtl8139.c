/* The RTL8139C+ as its drivers use it, in both modes: set-up, ring buffer and descriptors, offloads, filters, timer,
 * link, hostile drivers. */
#include "nic_test.h"
#include "src/devices/net/rtl8139.h"

#define DEV NIC_ON_A_CABLE("rtl8139")

#define RING    0x100000ull
#define RX_DESC 0x120000ull
#define TX_DESC 0x121000ull
#define HI_DESC 0x122000ull
#define RX_BUF  0x200000ull
#define TX_BUF  0x300000ull
#define N       4 /* C+ descriptors */

static uint32_t cur; /* where the driver reads next */

static uint32_t in32(unsigned r)
{
	return bench_readl(b, BASE + r);
}
static uint16_t in16(unsigned r)
{
	return bench_readw(b, BASE + r);
}
static uint8_t in8(unsigned r)
{
	return bench_readb(b, BASE + r);
}
static void out32(unsigned r, uint32_t v)
{
	bench_writel(b, BASE + r, v);
}
static void out16(unsigned r, uint16_t v)
{
	bench_writew(b, BASE + r, v);
}
static void out8(unsigned r, uint8_t v)
{
	bench_writeb(b, BASE + r, v);
}

static void power_on(void)
{
	plug_in(DEV, 1, 0);
}

/* As 8139too does it: an 8 KiB ring, or what rcr says. */
static void start(uint32_t rcr)
{
	power_on();
	out8(CR, CR_RST);
	ck_assert_uint_eq(in8(CR) & CR_RST, 0);
	out32(RBSTART, (uint32_t)RING);
	out8(CR, CR_RE | CR_TE);
	out32(RCR, rcr);
	out32(TCR, 0x03000600);
	for (unsigned i = 0; i < 4; i++)
		out32(TSAD + 4 * i, (uint32_t)TX_BUF + 0x1000 * i);
	out32(MPC, 0);
	out16(IMR, 0xe07f);
	cur = 0;
}

static void transmit(unsigned i, size_t len)
{
	out32(TSD + 4 * i, (uint32_t)len);
	bench_idle(b);
}

/* ---- finding and setting up ---- */

static unsigned ee_read(unsigned word, unsigned address_bits)
{
	unsigned command = 6u << address_bits | word, v = 0;

	out8(CR9346, 0x80);
	for (unsigned i = 3 + address_bits; i-- > 0;) {
		uint8_t di = command >> i & 1 ? 2 : 0;

		out8(CR9346, 0x88 | di);
		out8(CR9346, 0x8c | di);
	}
	out8(CR9346, 0x88);
	for (unsigned i = 0; i < 16; i++) {
		out8(CR9346, 0x8c);
		v = v << 1 | (in8(CR9346) & 1);
		out8(CR9346, 0x88);
	}
	out8(CR9346, 0);
	return v;
}

START_TEST(identity_and_eeprom)
{
	power_on();
	ck_assert_uint_eq(bench_pci_readl(b, SLOT, 0), 0x813910ec);
	ck_assert_uint_eq(bench_pci_readl(b, SLOT, 8), 0x02000020);
	ck_assert_uint_eq(in32(TCR) & 0x7cc00000, 0x74800000);
	ck_assert_uint_ne(ee_read(0, 8), 0x8129); /* how drivers tell it from a 93C56 */
	ck_assert_uint_eq(ee_read(0, 6), 0x8129);
	ck_assert_uint_eq(ee_read(7, 6), 0x5452);
	ck_assert_uint_eq(ee_read(9, 6), 0x3322);
	ck_assert_uint_eq(in32(IDR), 0x11005452);
	ck_assert_uint_eq(bench_inl(b, PORT), 0x11005452);
	ck_assert_uint_eq(bench_inw(b, PORT + 4), 0x3322);
	/* Configuration registers are behind a lock. */
	out8(CONFIG1, 0x31);
	ck_assert_uint_eq(in8(CONFIG1), 0x0c);
	out8(CR9346, 0xc0);
	out8(CONFIG1, 0x31);
	ck_assert_uint_eq(in8(CONFIG1), 0x3d & 0xfd);
	/* Auto-load brings the address back. */
	out32(IDR, 0x44332202);
	ck_assert_uint_eq(in32(IDR), 0x44332202);
	out8(CR9346, 0x40);
	ck_assert_uint_eq(in8(CR9346) & 0xc0, 0);
	ck_assert_uint_eq(in32(IDR), 0x11005452);
	bench_free(b);
}
END_TEST

START_TEST(link_and_phy)
{
	power_on();
	out16(IMR, INT_LINK);
	ck_assert_uint_eq(in16(BMSR), 0x782d);
	ck_assert_uint_eq(in8(MSR) & 0x0c, 0);
	ck_assert_int_eq(net_set_link("n", false, NULL), 0);
	ck_assert(bench_gsi(b, GSI));
	out16(ISR, INT_LINK);
	ck_assert(!bench_gsi(b, GSI));
	ck_assert_uint_eq(in8(MSR) & 4, 4);
	ck_assert_int_eq(net_set_link("n", true, NULL), 0);
	ck_assert(bench_gsi(b, GSI));
	ck_assert_uint_eq(in8(MSR) & 4, 0);
	b = bench_save_load(b);
	ck_assert(!(in16(BMSR) & 4)); /* it was down since the last look */
	ck_assert(in16(BMSR) & 4);
	ck_assert_uint_eq(in16(BMCR), 0x3100);
	out16(BMCR, 0x0000); /* locked: speed, negotiation and duplex stay */
	ck_assert_uint_eq(in16(BMCR), 0x3100);
	out8(CR9346, 0xc0);
	out16(BMCR, 0x0800); /* power down */
	ck_assert(!(in16(BMSR) & 4));
	out16(BMCR, 0x8000);
	ck_assert_uint_eq(in16(BMCR), 0x3100);
	bench_free(b);
}
END_TEST

START_TEST(timer_interrupt)
{
	power_on();
	out16(IMR, INT_TIMEOUT);
	out32(TIMER_INT, 33000); /* 1 ms */
	out32(TCTR, 0);
	bench_step(b, 500 * NS_PER_US);
	ck_assert_uint_eq(in32(TCTR), 16500);
	ck_assert(!bench_gsi(b, GSI));
	b = bench_save_load(b);
	bench_step(b, 501 * NS_PER_US);
	ck_assert(bench_gsi(b, GSI));
	out16(ISR, INT_TIMEOUT);
	bench_step(b, 10 * NS_PER_MS); /* once, until TCTR has come around */
	ck_assert(!bench_gsi(b, GSI));
	bench_step(b, 130200 * NS_PER_MS);
	ck_assert(bench_gsi(b, GSI));
	out16(ISR, 0xffff);
	out32(TIMER_INT, 0);
	out32(TCTR, 0);
	bench_step(b, 2 * NS_PER_MS);
	ck_assert(!bench_gsi(b, GSI));
	bench_free(b);
}
END_TEST

/* ---- C mode ---- */

START_TEST(c_sends)
{
	start(RCR_APM);
	for (unsigned i = 0; i < 6; i++) {
		make_plain(PEER, 100 + i);
		bench_write(b, TX_BUF + 0x1000 * (i % 4), frame, 100 + i);
		transmit(i % 4, 100 + i);
		ck_assert_uint_eq(receive(), 100 + i);
		ck_assert(!memcmp(got, frame, 100 + i));
		ck_assert_uint_eq(in32(TSD + 4 * (i % 4)) & 0xe000, 0xa000); /* ours again, and fine */
		ck_assert(bench_gsi(b, GSI));
		out16(ISR, INT_TOK);
		ck_assert(!bench_gsi(b, GSI));
	}
	ck_assert_uint_eq(in16(TSAD_SUMMARY), 0xf00f);
	transmit(2, 20); /* padded */
	ck_assert_uint_eq(receive(), 60);
	/* Too long, too short, not in memory. */
	out16(ISR, 0xffff);
	transmit(3, 1793);
	ck_assert_uint_eq(in32(TSD + 12) & 0x40002000, 0x40002000);
	ck_assert_uint_eq(in16(ISR), INT_TER);
	transmit(0, 0);
	out32(TSAD + 4, 0x80000000);
	transmit(1, 1000);
	ck_assert_uint_eq(receive(), 0);
	/* In turn: the fourth is not looked at before the third. */
	transmit(3, 60);
	ck_assert_uint_eq(receive(), 0);
	ck_assert_uint_eq(in16(TSAD_SUMMARY) & 8, 0);
	transmit(2, 61);
	ck_assert_uint_eq(receive(), 61);
	ck_assert_uint_eq(receive(), 60);
	bench_free(b);
}
END_TEST

/* A busy network: frames stay the guest's until they are out, here or where it moved. */
START_TEST(c_waits_for_the_network)
{
	start(RCR_APM);
	bench_cable_block(b, "n", true);
	for (unsigned i = 0; i < 3; i++) {
		make_plain(PEER, 100);
		bench_write(b, TX_BUF + 0x1000 * i, frame, 100);
		transmit(i, 100 + i);
	}
	ck_assert_uint_eq(in16(TSAD_SUMMARY), 8);
	b = bench_save_load(b);
	ck_assert_uint_eq(in16(TSAD_SUMMARY), 8);
	bench_cable_block(b, "n", false);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(receive(), 100 + i);
	ck_assert_uint_eq(receive(), 0);
	ck_assert_uint_eq(in16(TSAD_SUMMARY), 0x700f);
	bench_free(b);
}
END_TEST

/* Take the frame at the driver's place out of a ring of `size`; its length, 0: there is none. */
static size_t ring_take(uint32_t size, bool wrap, uint16_t *status)
{
	uint8_t header[4];
	uint32_t at = cur % size;
	size_t len;

	if (in8(CR) & CR_BUFE)
		return 0;
	bench_read(b, RING + at, header, 4);
	*status = get_le16(header);
	len = get_le16(header + 2);
	ck_assert_uint_ge(len, 64);
	for (size_t i = 0; i < len; i++)
		got[i] = bench_readb(b, RING + (wrap ? at + 4 + i : (at + 4 + i) % size));
	cur = (uint32_t)((cur + len + 4 + 3) & ~3u);
	out16(CAPR, (uint16_t)(cur - 16));
	return len;
}

START_TEST(c_receives_around_the_ring)
{
	bool wrap = _i & 1;
	unsigned size_bits = (unsigned)_i >> 1;
	uint32_t size = 8192u << size_bits;
	uint16_t status;

	start(RCR_APM | RCR_AB | size_bits << 11 | (wrap ? RCR_WRAP : 0));
	if (size == 65536)
		wrap = false;
	for (unsigned i = 0; i < 100; i++) {
		size_t len = make_plain(i % 5 ? OWN_MAC : BROADCAST, 60 + i * 14);

		send_in(frame, len);
		ck_assert(bench_gsi(b, GSI));
		out16(ISR, INT_ROK);
		ck_assert_uint_eq(ring_take(size, wrap, &status), len + 4);
		ck_assert_uint_eq(status, i % 5 ? 0x4001 : 0x2001);
		ck_assert(!memcmp(got, frame, len));
		ck_assert_uint_eq(get_le32(got + len), test_crc(frame, len));
		ck_assert_uint_eq(in16(CBR), cur % size);
		ck_assert(in8(CR) & CR_BUFE);
		if (i % 33 == 32)
			b = bench_save_load(b);
	}
	bench_free(b);
}
END_TEST

/* A full ring holds up the network; nothing is lost. */
START_TEST(c_full_ring_waits)
{
	uint16_t status;
	unsigned seen = 0;

	start(RCR_APM);
	for (unsigned i = 0; i < 20; i++) {
		make_plain(OWN_MAC, 1000);
		frame[100] = (uint8_t)i;
		send_in(frame, 1000);
	}
	ck_assert(!bench_cable_state("n").reading[0]);
	b = bench_save_load(b);
	while (ring_take(8192, false, &status)) {
		ck_assert_uint_eq(got[100], seen++);
		bench_idle(b);
	}
	ck_assert_uint_eq(seen, 20);
	ck_assert_uint_eq(in32(MPC), 0);
	ck_assert_uint_eq(in16(ISR) & INT_RXOVW, 0);
	/* The receiver off and on: the ring starts anew. */
	send_in(frame, 1000);
	out8(CR, CR_TE);
	out8(CR, CR_TE | CR_RE);
	ck_assert_uint_eq(in16(CBR), 0);
	ck_assert(in8(CR) & CR_BUFE);
	bench_free(b);
}
END_TEST

static unsigned hash_of(const char *mac)
{
	uint32_t crc = UINT32_MAX;

	/* The other way round than the FCS: most significant bit first, as drivers compute it. */
	for (unsigned i = 0; i < 48; i++) {
		unsigned bit = ((uint8_t)mac[i / 8] >> (i % 8) & 1) ^ crc >> 31;

		crc = crc << 1 ^ (bit ? 0x04c11db7u : 0);
	}
	return crc >> 26;
}

START_TEST(filters)
{
	static const char *const multicast[] = {"\x01\x00\x5e\x00\x00\x01", "\x33\x33\x00\x00\x00\xfb",
						"\x01\x80\xc2\x00\x00\x0e"};
	uint16_t status;
	struct nic_rx_filter f;

	start(RCR_APM);
	send_in(frame, make_plain("\x52\x54\x00\x11\x22\x34", 60));
	send_in(frame, make_plain(BROADCAST, 60));
	send_in(frame, make_plain(multicast[0], 60));
	ck_assert(in8(CR) & CR_BUFE);
	out32(RCR, RCR_AM);
	for (unsigned i = 0; i < ARRAY_SIZE(multicast); i++) {
		unsigned h = hash_of(multicast[i]);

		send_in(frame, make_plain(multicast[i], 60));
		ck_assert(in8(CR) & CR_BUFE);
		out32(MAR + 4 * (h >> 5), 1u << (h & 31));
		send_in(frame, make_plain(multicast[i], 60));
		ck_assert_uint_eq(ring_take(8192, false, &status), 64);
		ck_assert_uint_eq(status, 0x8001);
		out32(MAR, 0);
		out32(MAR + 4, 0);
	}
	send_in(frame, make_plain(OWN_MAC, 60));
	ck_assert(in8(CR) & CR_BUFE);
	out32(RCR, RCR_AAP);
	send_in(frame, make_plain("\x52\x54\x00\x11\x22\x34", 60));
	ck_assert_uint_eq(ring_take(8192, false, &status), 64);
	ck_assert_uint_eq(status, 0x0001);
	nic_lock(nic_next(NULL));
	ck_assert(nic_get_rx_filter(nic_next(NULL), &f));
	ck_assert(f.unicast == NIC_RX_ALL && f.multicast == NIC_RX_NONE && !f.broadcast_allowed);
	nic_unlock(nic_next(NULL));
	bench_free(b);
}
END_TEST

START_TEST(loops_back)
{
	uint16_t status;

	start(RCR_APM);
	out32(TCR, 0x03060600);
	make_plain(OWN_MAC, 80);
	bench_write(b, TX_BUF, frame, 80);
	transmit(0, 80);
	ck_assert_uint_eq(receive(), 0);
	ck_assert_uint_eq(ring_take(8192, false, &status), 84);
	ck_assert(!memcmp(got, frame, 80));
	/* Nobody reads: now frames are lost, and that is counted. */
	for (unsigned i = 0; i < 12; i++) {
		bench_write(b, TX_BUF + 0x1000 * ((1 + i) & 3), frame, 80);
		transmit((1 + i) & 3, 1500);
	}
	ck_assert_uint_gt(in32(MPC), 0);
	ck_assert(in16(ISR) & INT_RXOVW);
	out32(MPC, 0);
	ck_assert_uint_eq(in32(MPC), 0);
	bench_free(b);
}
END_TEST

/* ---- C+ mode ---- */

static unsigned rx_next, tx_next;

static void give(unsigned i, uint32_t size)
{
	uint8_t d[16] = {0};

	put_le32(d, DESC_OWN | (i == N - 1 ? DESC_EOR : 0) | size);
	put_le64(d + 8, RX_BUF + i * 0x1000);
	bench_write(b, RX_DESC + 16 * i, d, 16);
}

/* As 8139cp does it. */
static void start_cplus(uint16_t cpcr, uint32_t rcr)
{
	power_on();
	out8(CR, CR_RST);
	out16(CPCR, cpcr | 3);
	for (unsigned i = 0; i < N; i++) {
		give(i, 1536);
		bench_writel(b, TX_DESC + 16 * i, 0);
	}
	out32(THPDS, (uint32_t)HI_DESC);
	out32(THPDS + 4, 0);
	out32(RDSAR, (uint32_t)RX_DESC);
	out32(RDSAR + 4, 0);
	out32(TNPDS, (uint32_t)TX_DESC);
	out32(TNPDS + 4, 0);
	out8(CR, CR_RE | CR_TE);
	out32(RCR, rcr);
	out32(TCR, 0x03000600);
	out16(IMR, 0x80ff);
	rx_next = tx_next = 0;
}

static void desc(uint32_t offset, size_t len, uint32_t opts1, uint32_t opts2)
{
	uint8_t d[16];

	put_le32(d, opts1 | DESC_OWN | (tx_next == N - 1 ? DESC_EOR : 0) | (uint32_t)len);
	put_le32(d + 4, opts2);
	put_le64(d + 8, TX_BUF + offset);
	bench_write(b, TX_DESC + 16 * tx_next, d, 16);
	tx_next = (tx_next + 1) % N;
}

static void poll_tx(void)
{
	out8(TPPOLL, 0x40);
	bench_idle(b);
}

START_TEST(cplus_sends)
{
	start_cplus(0, RCR_APM);
	for (unsigned i = 0; i < 5; i++) {
		uint32_t status;

		make_plain(PEER, 200);
		bench_write(b, TX_BUF, frame, 200);
		desc(0, 50, DESC_FS, 0);
		desc(50, 150, DESC_LS, 0);
		poll_tx();
		ck_assert_uint_eq(receive(), 200);
		ck_assert(!memcmp(got, frame, 200));
		ck_assert_uint_eq(in16(ISR), INT_TOK | INT_TDU);
		out16(ISR, INT_TOK | INT_TDU);
		status = bench_readl(b, TX_DESC + 16 * ((tx_next + N - 1) % N));
		ck_assert_uint_eq(status & (DESC_OWN | DESC_LS | 0xffff), DESC_LS | 150);
		ck_assert_uint_eq(status & 0x0fff0000, 0);
	}
	/* VLAN tag; a packet whose end is not there yet. */
	desc(0, 60, DESC_FS | DESC_LS, 0x20000 | 0x4523);
	desc(0, 60, DESC_FS, 0);
	poll_tx();
	ck_assert_uint_eq(receive(), 64);
	ck_assert_uint_eq(get_be32(got + 12), 0x81002345);
	ck_assert_uint_eq(receive(), 0);
	desc(60, 40, DESC_LS, 0);
	poll_tx();
	ck_assert_uint_eq(receive(), 100);
	/* High priority goes first. */
	bench_writel(b, HI_DESC + 8, (uint32_t)TX_BUF);
	bench_writel(b, HI_DESC, DESC_OWN | DESC_EOR | DESC_FS | DESC_LS | 77);
	desc(0, 88, DESC_FS | DESC_LS, 0);
	out8(TPPOLL, 0xc1);
	bench_idle(b);
	ck_assert_uint_eq(receive(), 77);
	ck_assert_uint_eq(receive(), 88);
	ck_assert(in16(ISR) & INT_SOFT);
	bench_free(b);
}
END_TEST

START_TEST(cplus_checksums)
{
	bool udp = _i;
	size_t len = make_ip(frame, PEER, udp ? 17 : 6, 777, 3);

	start_cplus(0, RCR_APM);
	put_be16(frame + L4 + (udp ? 6 : 16), 0x5a5a); /* whatever stands there */
	bench_write(b, TX_BUF, frame, len);
	desc(0, len, DESC_FS | DESC_LS | 0x40000 | (udp ? 0x20000 : 0x10000), 0);
	poll_tx();
	ck_assert_uint_eq(receive(), len);
	check_sums_of(got);
	bench_free(b);
}
END_TEST

START_TEST(cplus_large_send)
{
	const size_t payload = 60000, mss = 1460;
	size_t len = make_ip(frame, PEER, 6, payload, 5);
	uint32_t large = 0x8000000 | (uint32_t)mss << 16;

	start_cplus(0, RCR_APM);
	bench_write(b, TX_BUF, frame, len);
	desc(0, 100, DESC_FS | large, 0);
	desc(100, len - 100, DESC_LS | large, 0);
	if (_i) {
		out8(TPPOLL, 0x40);
		loop_step(loop_main(), 0);
		bench_cable_block(b, "n", true);
		b = bench_save_load(b);
		bench_cable_block(b, "n", false);
	} else {
		poll_tx();
	}
	for (unsigned i = 0; i * mss < payload; i++) {
		size_t n = receive(), want = MIN(mss, payload - i * mss);

		check_segment(got, n, frame, i, mss, want, (i + 1) * mss >= payload);
	}
	ck_assert_uint_eq(receive(), 0);
	ck_assert_uint_eq(bench_readl(b, TX_DESC + 16) & 0x8fff0000, 0);
	bench_free(b);
}
END_TEST

START_TEST(cplus_receives)
{
	size_t len;
	uint32_t s;

	start_cplus(0x60, RCR_APM | RCR_AB); /* checksums, VLANs */
	len = make_ip(frame, OWN_MAC, 6, 100, 1);
	set_sums(frame);
	send_in(frame, len);
	s = bench_readl(b, RX_DESC);
	ck_assert_uint_eq(s, DESC_FS | DESC_LS | 0x02000000 | 0x10000 | (uint32_t)(len + 4));
	bench_read(b, RX_BUF, got, len + 4);
	ck_assert(!memcmp(got, frame, len) && get_le32(got + len) == test_crc(frame, len));
	ck_assert_uint_eq(in16(ISR), INT_ROK);
	frame[len - 1] ^= 1;
	send_in(frame, len);
	ck_assert_uint_eq(bench_readl(b, RX_DESC + 16) & 0x3e000, 0x12000); /* TCP, bad */
	len = make_ip(frame, BROADCAST, 17, 100, 1);
	set_sums(frame);
	frame[L3 + 8]--;
	send_in(frame, len);
	ck_assert_uint_eq(bench_readl(b, RX_DESC + 32) & 0x0103e000,
			  0x01028000 & 0x0103e000); /* UDP is fine, IP is not */
	make_plain(OWN_MAC, 80);
	put_be32(frame + 12, 0x81002345);
	send_in(frame, 80);
	ck_assert_uint_eq(bench_readl(b, RX_DESC + 48), DESC_EOR | DESC_FS | DESC_LS | 0x02000000 | 80);
	ck_assert_uint_eq(bench_readl(b, RX_DESC + 52), 0x10000 | 0x4523);
	/* None left: it is told, and the frame waits. */
	out16(ISR, 0xffff);
	make_plain(OWN_MAC, 1400);
	send_in(frame, 1400);
	ck_assert_uint_eq(in16(ISR), INT_RXOVW);
	give(0, 1000);
	b = bench_save_load(b);
	bench_step(b, 2 * NS_PER_MS);                                /* nobody tells that there is room */
	ck_assert_uint_eq(bench_readl(b, RX_DESC), DESC_OWN | 1000); /* and there is too little */
	give(1, 1000);
	out16(IMR, 0x80ff);
	bench_idle(b);
	ck_assert_uint_eq(bench_readl(b, RX_DESC), DESC_FS | 1000);
	ck_assert_uint_eq(bench_readl(b, RX_DESC + 16) & 0x30001fff, DESC_LS | 1404);
	/* More than the whole ring. */
	for (unsigned i = 0; i < N; i++)
		give(i, 100);
	send_in(frame, make_plain(OWN_MAC, 1400));
	ck_assert_uint_eq(in32(MPC), 1);
	bench_free(b);
}
END_TEST

START_TEST(cplus_counters)
{
	uint8_t t[64];

	start_cplus(0, RCR_APM | RCR_AB);
	send_in(frame, make_plain(OWN_MAC, 80));
	send_in(frame, make_plain(BROADCAST, 80));
	bench_write(b, TX_BUF, frame, 80);
	desc(0, 80, DESC_FS | DESC_LS, 0);
	poll_tx();
	out32(DTCCR + 4, 0);
	out32(DTCCR, 0x130000 | 8);
	ck_assert_uint_eq(in32(DTCCR) & 8, 0);
	bench_read(b, 0x130000, t, 64);
	ck_assert_uint_eq(get_le64(t), 1);
	ck_assert_uint_eq(get_le64(t + 8), 2);
	ck_assert_uint_eq(get_le64(t + 40), 1);
	ck_assert_uint_eq(get_le64(t + 48), 1);
	bench_free(b);
}
END_TEST

/* ---- hostile drivers ---- */

START_TEST(strange_rings)
{
	start(RCR_AAP | 3 << 11);
	make_plain(OWN_MAC, 1000);
	out32(RBSTART, 0x80000000); /* not in memory */
	for (unsigned i = 0; i < 100; i++) {
		send_in(frame, 1000);
		out16(CAPR, (uint16_t)(i * 4099));
	}
	bench_idle(b);
	bench_free(b);
	/* Chains without an end, rings without memory, empty descriptors everywhere. */
	start_cplus(0, RCR_AAP);
	for (unsigned i = 0; i < 64; i++) {
		bench_writel(b, TX_DESC + 16 * i, DESC_OWN);
		bench_writel(b, RX_DESC + 16 * i, DESC_OWN);
	}
	poll_tx();
	send_in(frame, 1000);
	bench_step(b, 5 * NS_PER_MS);
	out32(TNPDS, 0x80000000);
	out32(TNPDS + 4, 0xffffffff);
	poll_tx();
	out32(RDSAR + 4, 0xffffffff);
	send_in(frame, 1000);
	bench_step(b, 5 * NS_PER_MS);
	ck_assert_uint_eq(receive(), 0);
	bench_free(b);
	/* Descriptors that the device cannot but take as one packet of 4 MiB, and ones without a start. */
	start_cplus(0, RCR_AAP);
	for (unsigned i = 0; i < 64; i++)
		bench_writel(b, TX_DESC + 16 * i, DESC_OWN | (i == 0 ? DESC_FS : i == 63 ? DESC_LS : 0) | 0xffff);
	poll_tx();
	ck_assert_uint_eq(receive(), 0);
	ck_assert_uint_eq(bench_readl(b, TX_DESC) & (DESC_OWN | 0x800000), 0x800000); /* given back, with an error */
	bench_writel(b, TX_DESC, DESC_OWN | DESC_LS | DESC_EOR | 60);
	poll_tx();
	ck_assert_uint_eq(receive(), 0);
	ck_assert(in16(ISR) & INT_TER);
	bench_free(b);
}
END_TEST

/* Large sends in a ring that is always full: each turn of the main loop does a bounded part. */
START_TEST(much_ado)
{
	size_t len = make_ip(frame, PEER, 6, 60000, 5);

	start_cplus(0, RCR_AAP);
	bench_write(b, TX_BUF, frame, len);
	for (unsigned i = 0; i < N; i++)
		desc(0, len, DESC_FS | DESC_LS | 0x8000000 | 1 << 16, 0); /* 60,000 segments each */
	out8(TPPOLL, 0x40);
	loop_step(loop_main(), 0);
	ck_assert_uint_eq(bench_readl(b, TX_DESC) >> 31, 1);
	out8(CR, CR_RST);
	bench_idle(b);
	bench_free(b);
	/* Headers that lie. */
	start_cplus(0, RCR_AAP);
	for (unsigned i = 0; i < 60; i++) {
		make_ip(frame, PEER, 6, 100, 5);
		frame[14 + i] = 0xff;
		bench_write(b, TX_BUF, frame, 154);
		desc(0, 154, DESC_FS | DESC_LS | 0x8000000 | 50 << 16, 0);
		poll_tx();
		while (receive())
			;
		send_in(frame, 154);
		give(rx_next++ % N, 1536);
	}
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *set_up = tcase_create("set-up"), *c = tcase_create("C mode"), *cp = tcase_create("C+ mode"),
	      *hostile = tcase_create("hostile");

	tcase_add_test(set_up, identity_and_eeprom);
	tcase_add_test(set_up, link_and_phy);
	tcase_add_test(set_up, timer_interrupt);
	tcase_add_test(c, c_sends);
	tcase_add_test(c, c_waits_for_the_network);
	tcase_add_loop_test(c, c_receives_around_the_ring, 0, 8);
	tcase_add_test(c, c_full_ring_waits);
	tcase_add_test(c, filters);
	tcase_add_test(c, loops_back);
	tcase_add_test(cp, cplus_sends);
	tcase_add_loop_test(cp, cplus_checksums, 0, 2);
	tcase_add_loop_test(cp, cplus_large_send, 0, 2);
	tcase_add_test(cp, cplus_receives);
	tcase_add_test(cp, cplus_counters);
	tcase_add_test(hostile, strange_rings);
	tcase_add_test(hostile, much_ado);
	return run_suite("rtl8139", (TCase *[]){set_up, c, cp, hostile, NULL});
}
