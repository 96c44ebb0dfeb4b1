/* The 82540EM as its drivers use it: set-up, rings, offloads, filters, interrupts, the link, and what hostile ones try.
 */
#include "net_frames.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SLOT (5u << 3)
#define BASE 0xe0000000ull
#define PORT 0xc000
#define GSI  11
#define DEV  "-m 16 -netdev bench,id=n -device e1000,addr=5,netdev=n,mac=" OWN_MAC_TEXT

enum {
	CTRL = 0x0,
	STATUS = 0x8,
	EECD = 0x10,
	EERD = 0x14,
	MDIC = 0x20,
	VET = 0x38,
	ICR = 0xc0,
	ITR = 0xc4,
	ICS = 0xc8,
	IMS = 0xd0,
	IMC = 0xd8,
	RCTL = 0x100,
	TCTL = 0x400,
	RDBAL = 0x2800,
	RDLEN = 0x2808,
	RDH = 0x2810,
	RDT = 0x2818,
	RDTR = 0x2820,
	RADV = 0x282c,
	TDBAL = 0x3800,
	TDLEN = 0x3808,
	TDH = 0x3810,
	TDT = 0x3818,
	TIDV = 0x3820,
	TADV = 0x382c,
	RXCSUM = 0x5000,
	MTA = 0x5200,
	RA = 0x5400,
	VFTA = 0x5600,
};
enum { TXDW = 1, TXQE = 2, LSC = 4, RXDMT0 = 0x10, RXO = 0x40, RXT0 = 0x80 };
enum { EN = 2, UPE = 8, MPE = 0x10, LPE = 0x20, BAM = 0x8000, VFE = 0x40000, SECRC = 0x4000000, BSIZE_256 = 0x30000 };
enum { EOP = 1, IFCS = 2, IC = 4, TSE = 4, RS = 8, DEXT = 0x20, VLE = 0x40, IDE = 0x80 };

#define RX_RING 0x100000ull
#define TX_RING 0x110000ull
#define RX_BUF  0x200000ull
#define TX_BUF  0x300000ull
#define N       8

static struct board *b;
static uint8_t frame[70000], got[70000];
static unsigned tx_tail;

static uint32_t in(unsigned reg)
{
	return bench_readl(b, BASE + reg);
}

static void out(unsigned reg, uint32_t v)
{
	bench_writel(b, BASE + reg, v);
}

static size_t receive(void)
{
	return bench_cable_recv(b, "n", 0, got, sizeof(got));
}

static void send_in(const void *f, size_t len)
{
	bench_cable_send(b, "n", 0, f, len);
}

static uint16_t phy_in(unsigned reg)
{
	out(MDIC, 2u << 26 | 1u << 21 | reg << 16);
	ck_assert_uint_eq(in(MDIC) >> 28, 1); /* ready, no error */
	return (uint16_t)in(MDIC);
}

static void phy_out(unsigned reg, uint16_t v)
{
	out(MDIC, 1u << 26 | 1u << 21 | reg << 16 | v);
}

static uint16_t eerd(unsigned word)
{
	out(EERD, word << 8 | 1);
	ck_assert(in(EERD)&0x10);
	return in(EERD) >> 16;
}

static void map(const char *options)
{
	b = bench_new(options);
	bench_pci_writeb(b, 1 << 3, 0x60, GSI); /* PIRQA */
	bench_pci_writel(b, SLOT, 0x10, (uint32_t)BASE);
	bench_pci_writel(b, SLOT, 0x14, PORT);
	bench_pci_writew(b, SLOT, 4, 7);
}

/* Rings of N descriptors with buffers of 2 KiB, all but one the device's; then on. */
static void rings(uint32_t rctl)
{
	out(RDBAL, (uint32_t)RX_RING);
	out(RDBAL + 4, 0);
	out(RDLEN, N * 16);
	out(RDH, 0);
	out(RDT, N - 1);
	for (unsigned i = 0; i < N; i++) {
		uint8_t d[16] = {0};

		put_le64(d, RX_BUF + i * 0x1000);
		bench_write(b, RX_RING + 16 * i, d, 16);
	}
	out(TDBAL, (uint32_t)TX_RING);
	out(TDBAL + 4, 0);
	out(TDLEN, N * 16);
	out(TDH, 0);
	out(TDT, 0);
	tx_tail = 0;
	out(RCTL, EN | rctl);
	out(TCTL, EN | 8);
}

static void start(uint32_t rctl)
{
	map(DEV);
	rings(rctl);
}

static void put_desc(uint64_t at, uint32_t low, uint32_t high)
{
	uint8_t d[16];

	put_le64(d, at);
	put_le32(d + 8, low);
	put_le32(d + 12, high);
	bench_write(b, TX_RING + 16 * tx_tail, d, 16);
	tx_tail = (tx_tail + 1) % N;
}

static void kick(void)
{
	out(TDT, tx_tail);
	bench_idle(b);
}

/* A legacy descriptor of len bytes at TX_BUF + offset. */
static void legacy(uint32_t offset, size_t len, unsigned cmd)
{
	put_desc(TX_BUF + offset, (uint32_t)len | cmd << 24, 0);
}

static void data(uint32_t offset, size_t len, unsigned cmd, unsigned popts)
{
	put_desc(TX_BUF + offset, (uint32_t)len | 1u << 20 | (cmd | DEXT) << 24, popts << 8);
}

/* TCP or UDP over IPv4 behind an Ethernet header. */
static void context(unsigned cmd, uint32_t paylen, unsigned header, unsigned mss, bool udp)
{
	uint64_t low = 14 | 24u << 8 | 33u << 16 | (uint64_t)34 << 32 | (uint64_t)(34 + (udp ? 6 : 16)) << 40;

	put_desc(low, paylen | (cmd | DEXT | 2 /* IPv4 */ | (udp ? 0 : 1)) << 24, header << 8 | mss << 16);
}

static uint8_t tx_status(unsigned i)
{
	return bench_readb(b, TX_RING + 16 * i + 12);
}

/* ---- finding and setting up ---- */

START_TEST(identity_and_eeprom)
{
	uint16_t sum = 0;

	map(DEV);
	ck_assert_uint_eq(bench_pci_readl(b, SLOT, 0), 0x100e8086);
	ck_assert_uint_eq(bench_pci_readl(b, SLOT, 8) >> 8, 0x020000);
	ck_assert_uint_eq(bench_pci_readb(b, SLOT, 0x3d), 1);
	for (unsigned i = 0; i < 64; i++)
		sum += eerd(i);
	ck_assert_uint_eq(sum, 0xbaba);
	ck_assert_uint_eq(eerd(0), 0x5452);
	ck_assert_uint_eq(eerd(2), 0x3322);
	ck_assert_uint_eq(in(RA), 0x11005452);
	ck_assert_uint_eq(in(RA + 4), 0x80003322);
	/* The same through the I/O BAR. */
	bench_outl(b, PORT, RA);
	ck_assert_uint_eq(bench_inl(b, PORT + 4), 0x11005452);
	bench_outl(b, PORT, VET);
	bench_outl(b, PORT + 4, 0x88a8);
	ck_assert_uint_eq(in(VET), 0x88a8);
	bench_outl(b, PORT, 0xffffffff);
	ck_assert_uint_eq(bench_inl(b, PORT + 4), 0);
	bench_free(b);
}
END_TEST

enum { EE_SK = 1, EE_CS = 2, EE_DI = 4, EE_DO = 8, EE_REQ = 0x40, EE_GNT = 0x80 };

static void ee_clock(bool di)
{
	out(EECD, EE_REQ | EE_CS | (di ? EE_DI : 0));
	out(EECD, EE_REQ | EE_CS | EE_SK | (di ? EE_DI : 0));
}

static void ee_out(unsigned v, unsigned bits)
{
	while (bits-- > 0)
		ee_clock(v >> bits & 1);
}

static uint16_t ee_in(void)
{
	uint16_t v = 0;

	for (unsigned i = 0; i < 16; i++) {
		ee_clock(false);
		v = (uint16_t)(v << 1 | (in(EECD)&EE_DO ? 1 : 0));
	}
	return v;
}

static void ee_end(void)
{
	out(EECD, EE_REQ);
	out(EECD, EE_REQ | EE_CS);
}

START_TEST(eeprom_by_hand)
{
	map(DEV);
	out(EECD, EE_REQ);
	ck_assert(in(EECD)&EE_GNT);
	ee_end();
	ee_out(6 << 6 | 0, 9); /* READ 0, and the next word behind it */
	ck_assert(!(in(EECD)&EE_DO));
	ck_assert_uint_eq(ee_in(), 0x5452);
	ck_assert_uint_eq(ee_in(), 0x1100);
	ee_end();
	ee_out(5 << 6 | 0x30, 9); /* WRITE without EWEN does nothing */
	ee_out(0xabcd, 16);
	ee_end();
	ck_assert_uint_eq(eerd(0x30), 0);
	ee_out(4 << 6 | 3 << 4, 9); /* EWEN */
	ee_end();
	ee_out(5 << 6 | 0x30, 9);
	ee_out(0xabcd, 16);
	b = bench_save_load(b); /* all bits are there; programming starts when CS goes low */
	ck_assert_uint_eq(eerd(0x30), 0);
	ee_end();
	ck_assert_uint_eq(eerd(0x30), 0xabcd);
	ee_out(7 << 6 | 0x30, 9); /* ERASE */
	ee_end();
	ck_assert_uint_eq(eerd(0x30), 0xffff);
	ee_out(4 << 6, 9); /* EWDS */
	ee_end();
	ee_out(4 << 6 | 1 << 4, 9); /* WRAL */
	ee_out(0, 16);
	ee_end();
	ck_assert_uint_eq(eerd(0x30), 0xffff);
	bench_reset(b); /* not volatile */
	bench_pci_writel(b, SLOT, 0x10, (uint32_t)BASE);
	bench_pci_writew(b, SLOT, 4, 7);
	ck_assert_uint_eq(eerd(0x30), 0xffff);
	bench_free(b);
}
END_TEST

START_TEST(software_reset)
{
	start(BAM);
	out(RA, 0);
	out(MTA + 8, 5);
	out(IMS, 0xff);
	out(CTRL, in(CTRL) | 1u << 26);
	ck_assert_uint_eq(in(CTRL) >> 26 & 1, 0);
	ck_assert_uint_eq(in(RCTL), 0);
	ck_assert_uint_eq(in(RDT), 0);
	ck_assert_uint_eq(in(IMS), 0);
	ck_assert_uint_eq(in(MTA + 8), 0);
	ck_assert_uint_eq(in(RA), 0x11005452);
	ck_assert_uint_eq(in(VET), 0x8100);
	ck_assert(!bench_cable_state("n").reading[0]);
	bench_free(b);
}
END_TEST

/* The patterns of Linux' `ethtool -t`. */
START_TEST(register_bits)
{
	static const struct {
		uint16_t reg;
		uint32_t mask;
	} r[] = {{0x28, ~0u},         {0x2c, 0xffff},        {0x30, 0xffff},    {0x38, 0xffff},   {RDTR, 0xffff},
		 {RDBAL + 4, ~0u},    {RDLEN, 0xfff80},      {RDH, 0xffff},     {RDT, 0xffff},    {0x2168, 0xfff8},
		 {0x170, 0xffff},     {0x410, 0x3fffffff},   {TDBAL + 4, ~0u},  {TDLEN, 0xfff80}, {RDBAL, 0xfffffff0},
		 {TDBAL, 0xfffffff0}, {RA + 12, 0x8003ffff}, {MTA + 0x1fc, ~0u}};
	static const uint32_t pattern[] = {0x5a5a5a5a, 0xa5a5a5a5, 0, 0xffffffff};

	map(DEV);
	for (unsigned i = 0; i < ARRAY_SIZE(r); i++)
		for (unsigned k = 0; k < ARRAY_SIZE(pattern); k++) {
			out(r[i].reg, pattern[k] & r[i].mask);
			ck_assert_uint_eq(in(r[i].reg), pattern[k] & r[i].mask);
		}
	out(RCTL, ~0u & ~(uint32_t)EN);
	ck_assert_uint_eq(in(RCTL), 0x06dfb3fcu);
	/* The 82542's places. */
	out(0x420, 0x12340);
	ck_assert_uint_eq(in(TDBAL), 0x12340);
	out(0x40, 0x01020304);
	ck_assert_uint_eq(in(RA), 0x01020304);
	bench_free(b);
}
END_TEST

START_TEST(refused_options)
{
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-device e1000,extra_mac_registers=off"), "extra_mac_registers"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-device e1000,netdev=none"), "none"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-device e1000,failover_pair_id=x"), "failover_pair_id"));
	b = bench_new("-device e1000-82540em,id=a -device e1000,id=b,init-vet=off"); /* no network at all */
	bench_free(b);
}
END_TEST

START_TEST(option_rom)
{
	static const uint8_t image[] = {0x55, 0xaa, 1, 0xcb};
	char path[] = "/tmp/vmm-rom-XXXXXX", options[128];
	int fd = mkstemp(path);

	ck_assert(fd >= 0 && write(fd, image, sizeof(image)) == sizeof(image));
	close(fd);
	snprintf(options, sizeof(options), "-m 16 -device e1000,addr=5,romfile=%s", path);
	b = bench_new(options);
	unlink(path);
	bench_pci_writel(b, SLOT, 0x30, ~0u);
	ck_assert_uint_eq(bench_pci_readl(b, SLOT, 0x30), 0xfffff001);
	bench_pci_writel(b, SLOT, 0x30, 0xe1000001);
	bench_pci_writew(b, SLOT, 4, 2);
	ck_assert_uint_eq(bench_readl(b, 0xe1000000), 0xcb01aa55);
	bench_free(b);
}
END_TEST

/* ---- the link ---- */

START_TEST(link_and_phy)
{
	map(DEV);
	ck_assert_uint_eq(in(STATUS)&0x3c3, 0x283); /* up, full duplex, 1000 */
	ck_assert_uint_eq(phy_in(2), 0x0141);
	ck_assert_uint_eq(phy_in(3) & 0xfff0, 0x0c20);
	ck_assert_uint_eq(phy_in(1) & 0x24, 0x24);
	out(MDIC, 2u << 26 | 2u << 21 | 2u << 16); /* nobody there */
	ck_assert(in(MDIC)&1u << 30);
	out(IMS, LSC);
	in(ICR);
	ck_assert_int_eq(net_set_link("n", false, NULL), 0);
	ck_assert(bench_gsi(b, GSI));
	ck_assert_uint_eq(in(ICR), LSC);
	ck_assert(!bench_gsi(b, GSI));
	ck_assert(!(in(STATUS)&2));
	ck_assert_int_eq(net_set_link("n", true, NULL), 0);
	ck_assert(!(in(STATUS)&2)); /* negotiating */
	b = bench_save_load(b);
	bench_step(b, 101 * NS_PER_MS);
	ck_assert(in(STATUS)&2);
	ck_assert_uint_eq(in(ICR), LSC);
	ck_assert(!(phy_in(1) & 4)); /* it was down since the last look */
	ck_assert(phy_in(1) & 4);
	phy_out(0, 0x8000);
	ck_assert(!(phy_in(0) & 0x8000));
	bench_step(b, 101 * NS_PER_MS);
	ck_assert_uint_eq(in(ICR), LSC);
	phy_out(9, 0); /* no gigabit */
	phy_out(0, 0x1200);
	bench_step(b, 101 * NS_PER_MS);
	ck_assert_uint_eq(in(STATUS)&0xc3, 0x43); /* 100, full duplex */
	phy_out(0, 0x0800);                       /* power down */
	ck_assert(!(in(STATUS)&2));
	bench_free(b);
	map(DEV ",autonegotiation=off");
	phy_out(0, 0x1200);
	ck_assert(in(STATUS)&2);
	bench_free(b);
}
END_TEST

/* ---- sending ---- */

START_TEST(sends_legacy_frames)
{
	start(0);
	memcpy(frame,
	       PEER OWN_MAC "\x88\xb5"
			    "abcdefgh",
	       22);
	bench_write(b, TX_BUF, frame, 22);
	legacy(0, 10, 0); /* in two pieces, padded */
	legacy(10, 12, EOP | IFCS | RS);
	kick();
	ck_assert_uint_eq(receive(), 60);
	ck_assert(!memcmp(got, frame, 22) && !got[22] && !got[59]);
	ck_assert_uint_eq(tx_status(0), 0);
	ck_assert_uint_eq(tx_status(1), 1);
	ck_assert_uint_eq(in(TDH), 2);
	ck_assert_uint_eq(in(ICR) & (TXDW | TXQE), TXDW | TXQE);
	/* With a checksum over the payload. */
	bench_write(b, TX_BUF + 14, "\0\0abcdefgh", 10);
	put_desc(TX_BUF, 24 | 14u << 16 | (EOP | IFCS | IC) << 24, 14u << 8);
	kick();
	ck_assert_uint_eq(receive(), 60);
	ck_assert_uint_eq(test_sum(got + 14, 10, 0), 0xffff);
	ck_assert_uint_eq(tx_status(2), 0); /* no report was asked for */
	/* The driver's own FCS stays here. */
	memset(frame + 22, 0, 60);
	put_le32(frame + 60, test_crc(frame, 60));
	bench_write(b, TX_BUF, frame, 64);
	legacy(0, 64, EOP);
	kick();
	ck_assert_uint_eq(receive(), 60);
	/* The end without data. */
	legacy(0, 60, 0);
	legacy(0, 0, EOP | IFCS | RS);
	kick();
	ck_assert_uint_eq(receive(), 60);
	ck_assert_uint_eq(in(0x4080), 4); /* GPTC */
	ck_assert_uint_eq(in(0x4080), 0);
	ck_assert_uint_eq(in(0x4090), 4 * 64); /* GOTC */
	ck_assert_uint_eq(in(0x4094), 0);
	ck_assert_uint_eq(in(0x4090), 0);
	ck_assert_uint_eq(in(0x40d8), 4); /* PTC64 */
	bench_free(b);
}
END_TEST

START_TEST(inserts_checksums)
{
	bool udp = _i;
	size_t len;

	start(0);
	len = make_ip(frame, PEER, udp ? 17 : 6, 1001, 3);
	put_be16(frame + L4 + (udp ? 6 : 16), pseudo_sum(frame, (uint32_t)len - L4));
	bench_write(b, TX_BUF, frame, len);
	context(0, 0, 0, 0, udp);
	data(0, 100, 0, 3);
	data(100, len - 100, EOP | IFCS | RS, 0);
	kick();
	ck_assert_uint_eq(receive(), len);
	check_sums_of(got);
	ck_assert(!memcmp(got + L4 + 20, frame + L4 + 20, len - L4 - 20));
	/* The context stays. */
	data(0, len, EOP | IFCS | RS, 3);
	kick();
	ck_assert_uint_eq(receive(), len);
	check_sums_of(got);
	bench_free(b);
}
END_TEST

/* A large packet in three pieces over two descriptors; or the network is busy from the start, and the guest moves. */
START_TEST(segments_large_packets)
{
	const size_t payload = 2500, mss = 1000;
	size_t len;

	start(0);
	len = make_ip(frame, PEER, 6, payload, 9);
	bench_write(b, TX_BUF, frame, len);
	bench_writew(b, TX_BUF + L3 + 2, 0);
	put_be16(got, pseudo_sum(frame, 0)); /* without the length */
	bench_write(b, TX_BUF + L4 + 16, got, 2);
	context(TSE | RS, (uint32_t)payload, TCP_HEADERS, (unsigned)mss, false);
	data(0, 30, TSE, 3);
	data(30, 1300, TSE, 0);
	data(1330, len - 1330, TSE | EOP | IFCS | RS, 0);
	if (_i) {
		bench_cable_block(b, "n", true);
		kick();
		ck_assert_uint_eq(receive(), 0);
		ck_assert_uint_eq(in(TDH), 2);
		b = bench_save_load(b);
		ck_assert_uint_eq(in(TDH), 2);
		bench_cable_block(b, "n", false);
	} else {
		kick();
	}
	for (unsigned i = 0; i < 3; i++) {
		size_t n = receive();

		check_segment(got, n, frame, i, mss, i < 2 ? mss : 500, i == 2);
	}
	ck_assert_uint_eq(receive(), 0);
	ck_assert_uint_eq(tx_status(3), 1);
	ck_assert_uint_eq(in(TDH), 4);
	ck_assert_uint_eq(in(0x40f8), 1); /* TSCTC */
	bench_free(b);
}
END_TEST

START_TEST(segments_udp_and_ipv6)
{
	size_t len = make_ip(frame, PEER, 17, 1500, 9);

	start(0);
	put_be16(frame + L4 + 6, pseudo_sum(frame, 0));
	bench_write(b, TX_BUF, frame, len);
	context(TSE, 1500, L4 + 8, 1000, true);
	data(0, len, TSE | EOP | IFCS | RS, 3);
	kick();
	ck_assert_uint_eq(receive(), L4 + 8 + 1000);
	ck_assert_uint_eq(get_be16(got + L4 + 4), 1008);
	check_sums_of(got);
	ck_assert_uint_eq(receive(), L4 + 8 + 500);
	ck_assert_uint_eq(get_be16(got + L4 + 4), 508);
	check_sums_of(got);
	/* IPv6: the payload length and TCP's sequence number follow. */
	memset(frame, 0, 74);
	frame[14] = 0x60;
	frame[20] = 6;
	frame[54 + 12] = 0x50;
	frame[54 + 13] = 0x18;
	bench_write(b, TX_BUF, frame, 74 + 150);
	put_desc(14 | 24 << 8 | (uint64_t)54 << 32 | (uint64_t)70 << 40, 150 | (DEXT | TSE | 1) << 24,
		 74 << 8 | 100u << 16);
	data(0, 224, TSE | EOP | IFCS, 2);
	kick();
	ck_assert_uint_eq(receive(), 174);
	ck_assert_uint_eq(get_be16(got + 18), 120);
	ck_assert_uint_eq(got[54 + 13], 0x10);
	ck_assert_uint_eq(receive(), 124);
	ck_assert_uint_eq(get_be16(got + 18), 70);
	ck_assert_uint_eq(get_be32(got + 58), 100);
	ck_assert_uint_eq(got[54 + 13], 0x18);
	bench_free(b);
}
END_TEST

START_TEST(tags_vlans)
{
	start(0);
	out(CTRL, in(CTRL) | 1u << 30);
	memcpy(frame, PEER OWN_MAC "\x88\xb5", 14);
	bench_write(b, TX_BUF, frame, 60);
	put_desc(TX_BUF, 60 | (EOP | IFCS | VLE) << 24, 0x2345u << 16);
	kick();
	ck_assert_uint_eq(receive(), 64);
	ck_assert(!memcmp(got, frame, 12) && get_be32(got + 12) == 0x81002345 && got[16] == 0x88);
	/* All segments of a large packet, though only its first descriptor says so. */
	bench_write(b, TX_BUF, frame, make_ip(frame, PEER, 6, 2000, 1));
	context(TSE, 2000, TCP_HEADERS, 1000, false);
	put_desc(TX_BUF, 100 | 1u << 20 | (TSE | DEXT | VLE) << 24, 3u << 8 | 0x2345u << 16);
	data(100, TCP_HEADERS + 1900 - 46, TSE, 0);
	data(TCP_HEADERS + 1954, 46, TSE | EOP | IFCS, 0);
	kick();
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_uint_eq(receive(), TCP_HEADERS + 1004);
		ck_assert_uint_eq(get_be32(got + 12), 0x81002345);
	}
	ck_assert_uint_eq(receive(), 0);
	bench_free(b);
}
END_TEST

/* ---- receiving ---- */

struct rx {
	uint16_t len, sum, special;
	uint8_t status, errors;
};

static struct rx rx_desc(unsigned i)
{
	uint8_t d[16];

	bench_read(b, RX_RING + 16 * i, d, 16);
	return (struct rx){get_le16(d + 8), get_le16(d + 10), get_le16(d + 14), d[12], d[13]};
}

static size_t make_plain(const char *to, size_t len)
{
	memcpy(frame, to, 6);
	memcpy(frame + 6, PEER "\x88\xb5", 8);
	for (size_t i = 14; i < len; i++)
		frame[i] = (uint8_t)(i * 3);
	return len;
}

START_TEST(receives)
{
	struct rx d;

	start(0);
	ck_assert(bench_cable_state("n").reading[0]);
	send_in(frame, make_plain(OWN_MAC, 100));
	d = rx_desc(0);
	ck_assert_uint_eq(d.status, 0x07); /* DD, EOP, checksums are not looked at */
	ck_assert_uint_eq(d.len, 104);
	bench_read(b, RX_BUF, got, 104);
	ck_assert(!memcmp(got, frame, 100));
	ck_assert_uint_eq(get_le32(got + 100), test_crc(frame, 100));
	ck_assert_uint_eq(d.sum, test_sum(frame, 100, 0));
	ck_assert_uint_eq(in(RDH), 1);
	ck_assert_uint_eq(in(ICR), RXT0);
	/* A short one comes padded; without FCS. */
	out(RCTL, EN | SECRC);
	send_in(frame, make_plain(OWN_MAC, 20));
	ck_assert_uint_eq(rx_desc(1).len, 60);
	/* Several buffers. */
	out(RCTL, EN | SECRC | BSIZE_256);
	send_in(frame, make_plain(OWN_MAC, 600));
	ck_assert_uint_eq(rx_desc(2).status, 1);
	ck_assert_uint_eq(rx_desc(3).status, 1);
	ck_assert_uint_eq(rx_desc(4).status, 7);
	ck_assert_uint_eq(rx_desc(4).len, 88);
	bench_read(b, RX_BUF + 0x3000, got, 256);
	ck_assert(!memcmp(got, frame + 256, 256));
	/* Long packets only on request. */
	out(RCTL, EN | SECRC);
	send_in(frame, make_plain(OWN_MAC, 1519));
	ck_assert_uint_eq(rx_desc(5).status, 0);
	ck_assert_uint_eq(in(0x40ac), 1); /* ROC */
	out(RCTL, EN | SECRC | LPE);
	send_in(frame, make_plain(OWN_MAC, 4000));
	ck_assert_uint_eq(rx_desc(5).len, 2048);
	ck_assert_uint_eq(rx_desc(6).len, 1952);
	ck_assert_uint_eq(in(0x4074), 4); /* GPRC */
	ck_assert_uint_eq(in(0x40d0), 5); /* TPR */
	bench_free(b);
}
END_TEST

START_TEST(filters)
{
	static const char multicast[] = "\x01\x00\x5e\x12\x34\x56";
	const unsigned hash = 0x5634 >> 4; /* bits 47:36 of the address */
	unsigned i = 0;

	start(0);
	send_in(frame, make_plain("\x52\x54\x00\x11\x22\x34", 60));
	send_in(frame, make_plain(BROADCAST, 60));
	send_in(frame, make_plain(multicast, 60));
	ck_assert_uint_eq(rx_desc(0).status, 0);
	out(RCTL, EN | BAM);
	send_in(frame, make_plain(BROADCAST, 60));
	ck_assert_uint_eq(rx_desc(i++).status & 0x83, 3);
	out(MTA + 4 * (hash >> 5), 1u << (hash & 31));
	send_in(frame, make_plain(multicast, 60));
	ck_assert_uint_eq(rx_desc(i++).status & 0x83, 0x83); /* by the hash */
	out(MTA + 4 * (hash >> 5), 0);
	out(RCTL, EN | MPE);
	send_in(frame, make_plain(multicast, 60));
	ck_assert_uint_eq(rx_desc(i++).status & 0x83, 3);
	out(RCTL, EN | UPE);
	send_in(frame, make_plain("\x52\x54\x00\x11\x22\x34", 60));
	ck_assert_uint_eq(rx_desc(i++).status & 0x83, 3);
	out(RCTL, EN);
	out(RA + 8, 0x11005452); /* a second address of ours */
	out(RA + 12, 0x80003422);
	send_in(frame, make_plain("\x52\x54\x00\x11\x22\x34", 60));
	ck_assert_uint_eq(rx_desc(i++).status & 0x83, 3);
	ck_assert_uint_eq(in(0x4078), 1); /* BPRC */
	ck_assert_uint_eq(in(0x407c), 2); /* MPRC */
	bench_free(b);
}
END_TEST

START_TEST(vlan_filter_and_strip)
{
	start(VFE | SECRC);
	make_plain(OWN_MAC, 64);
	put_be32(frame + 12, 0x81006064);
	put_be16(frame + 16, 0x88b5);
	send_in(frame, 64);
	ck_assert_uint_eq(rx_desc(0).status, 0);
	out(VFTA + 4 * (0x64 >> 5), 1u << (0x64 & 31));
	send_in(frame, 64);
	ck_assert_uint_eq(rx_desc(0).status & 8, 0);
	ck_assert_uint_eq(rx_desc(0).len, 64);
	out(CTRL, in(CTRL) | 1u << 30);
	send_in(frame, 64);
	ck_assert_uint_eq(rx_desc(1).status & 8, 8);
	ck_assert_uint_eq(rx_desc(1).special, 0x6064);
	ck_assert_uint_eq(rx_desc(1).len, 60);
	bench_read(b, RX_BUF + 0x1000, got, 60);
	ck_assert(!memcmp(got, frame, 12) && !memcmp(got + 12, frame + 16, 48));
	bench_free(b);
}
END_TEST

START_TEST(checks_checksums)
{
	size_t len;

	start(0);
	out(RXCSUM, 0x300 | 14);
	len = make_ip(frame, OWN_MAC, 6, 333, 1);
	set_sums(frame);
	send_in(frame, len);
	ck_assert_uint_eq(rx_desc(0).status, 0x63); /* IPCS, TCPCS */
	ck_assert_uint_eq(rx_desc(0).errors, 0);
	ck_assert_uint_eq(rx_desc(0).sum, test_sum(frame + 14, len - 14, 0));
	frame[len - 1] ^= 1;
	send_in(frame, len);
	ck_assert_uint_eq(rx_desc(1).errors, 0x20);
	frame[L3 + 8]--;
	send_in(frame, len);
	ck_assert_uint_eq(rx_desc(2).errors, 0x60);
	put_be16(frame + L3 + 6, 0x2000); /* a fragment: IP only */
	put_be16(frame + L3 + 10, 0);
	put_be16(frame + L3 + 10, (uint16_t)~test_sum(frame + L3, 20, 0));
	send_in(frame, len);
	ck_assert_uint_eq(rx_desc(3).status, 0x43);
	ck_assert_uint_eq(rx_desc(3).errors, 0);
	len = make_ip(frame, OWN_MAC, 17, 64, 1);
	set_sums(frame);
	put_be16(frame + L4 + 6, 0); /* UDP without */
	send_in(frame, len);
	ck_assert_uint_eq(rx_desc(4).status, 0x43);
	bench_free(b);
}
END_TEST

/* Nothing is lost when the ring is full: the network waits. */
START_TEST(full_ring_waits)
{
	start(0);
	out(IMS, RXDMT0);
	for (unsigned i = 0; i < 10; i++) {
		make_plain(OWN_MAC, 60);
		frame[20] = (uint8_t)i;
		send_in(frame, 60);
		ck_assert_uint_eq(bench_gsi(b, GSI), i >= 2); /* half of the ring, four, are left */
	}
	ck_assert_uint_eq(in(RDH), 7);
	ck_assert(!bench_cable_state("n").reading[0]);
	out(RDT, 6); /* seven more */
	bench_idle(b);
	ck_assert_uint_eq(in(RDH), 2);
	for (unsigned i = 0; i < 2; i++)
		ck_assert_uint_eq(bench_readb(b, RX_BUF + 0x1000 * i + 20), 8 + i);
	/* One that needs three buffers where there are two: it waits, also in another process. */
	out(RCTL, EN | BSIZE_256);
	out(RDT, 4);
	send_in(frame, make_plain(OWN_MAC, 600));
	ck_assert_uint_eq(in(RDH), 2);
	b = bench_save_load(b);
	ck_assert_uint_eq(in(RDH), 2);
	out(RDT, 5);
	bench_idle(b);
	ck_assert_uint_eq(in(RDH), 5);
	/* More than the whole ring can take. */
	out(RCTL, EN | BSIZE_256 | LPE);
	out(RDT, 4);
	in(ICR);
	send_in(frame, make_plain(OWN_MAC, 2000));
	ck_assert_uint_eq(in(ICR), RXO);
	ck_assert_uint_eq(in(0x4010), 1);
	send_in(frame, make_plain(OWN_MAC, 60));
	ck_assert_uint_eq(in(RDH), 6);
	bench_free(b);
}
END_TEST

START_TEST(loops_back)
{
	start(SECRC);
	phy_out(0, 0x4140);
	make_plain(OWN_MAC, 80);
	bench_write(b, TX_BUF, frame, 80);
	legacy(0, 80, EOP | IFCS);
	kick();
	ck_assert_uint_eq(receive(), 0);
	ck_assert_uint_eq(rx_desc(0).len, 80);
	bench_free(b);
}
END_TEST

START_TEST(shows_its_filter)
{
	struct nic_rx_filter f;
	struct nic *n;

	start(BAM);
	n = nic_next(NULL);
	nic_lock(n);
	ck_assert(nic_get_rx_filter(n, &f));
	ck_assert(f.broadcast_allowed && !f.promiscuous && f.multicast == NIC_RX_NONE && f.vlan == NIC_RX_ALL);
	ck_assert(!memcmp(f.main_mac, OWN_MAC, 6));
	nic_unlock(n);
	out(RA, 0x44332202);
	out(RA + 4, 0x80006655);
	out(RA + 8, 0x005e0001);
	out(RA + 12, 0x80000100);
	out(VFTA, 4);
	out(RCTL, EN | VFE | UPE);
	ck_assert_ptr_nonnull(bench_event(b, "NIC_RX_FILTER_CHANGED"));
	nic_lock(n);
	ck_assert(nic_get_rx_filter(n, &f));
	ck_assert(f.unicast == NIC_RX_ALL && f.n_multicast == 1 && f.n_vlan == 1 && f.vlan_table[0] == 2);
	ck_assert(!memcmp(f.main_mac, "\x02\x22\x33\x44\x55\x66", 6));
	nic_unlock(n);
	bench_free(b);
}
END_TEST

/* ---- interrupts ---- */

START_TEST(causes_and_masks)
{
	start(0);
	out(ICS, TXDW | RXT0);
	ck_assert(!bench_gsi(b, GSI));
	out(IMS, RXT0);
	ck_assert(bench_gsi(b, GSI));
	out(IMC, RXT0);
	ck_assert(!bench_gsi(b, GSI));
	out(IMS, RXT0 | TXDW);
	out(ICR, RXT0); /* writing clears, too */
	ck_assert(bench_gsi(b, GSI));
	ck_assert_uint_eq(in(ICR), TXDW);
	ck_assert(!bench_gsi(b, GSI));
	ck_assert_uint_eq(in(ICR), 0);
	bench_free(b);
}
END_TEST

START_TEST(throttles)
{
	bool off = _i;

	map(off ? DEV ",mitigation=off" : DEV);
	rings(0);
	bench_step(b, NS_PER_SEC);
	out(ITR, 1000); /* 256 us */
	out(IMS, TXDW);
	out(ICS, TXDW);
	ck_assert(bench_gsi(b, GSI));
	in(ICR);
	bench_step(b, 100 * NS_PER_US);
	out(ICS, TXDW);
	ck_assert_uint_eq(bench_gsi(b, GSI), off);
	b = bench_save_load(b);
	bench_step(b, 150 * NS_PER_US);
	ck_assert_uint_eq(bench_gsi(b, GSI), off);
	bench_step(b, 7 * NS_PER_US);
	ck_assert(bench_gsi(b, GSI));
	bench_free(b);
}
END_TEST

START_TEST(delays)
{
	start(0);
	out(IMS, RXT0 | TXDW);
	out(RDTR, 100); /* 102.4 us behind the last frame, */
	out(RADV, 150); /* 153.6 us behind the first */
	make_plain(OWN_MAC, 60);
	send_in(frame, 60);
	bench_step(b, 90 * NS_PER_US);
	send_in(frame, 60);
	bench_step(b, 60 * NS_PER_US);
	ck_assert(!bench_gsi(b, GSI));
	bench_step(b, 4 * NS_PER_US);
	ck_assert_uint_eq(in(ICR), RXT0);
	send_in(frame, 60);
	ck_assert(!bench_gsi(b, GSI));
	out(RDTR, 100 | 1u << 31); /* flush */
	ck_assert_uint_eq(in(ICR), RXT0 | RXDMT0);
	out(TIDV, 50);
	out(TADV, 80);
	bench_write(b, TX_BUF, frame, 60);
	legacy(0, 60, EOP | IFCS | RS | IDE);
	kick();
	ck_assert_uint_eq(tx_status(0), 1);
	ck_assert(!bench_gsi(b, GSI));
	bench_step(b, 50 * NS_PER_US);
	ck_assert(!bench_gsi(b, GSI));
	bench_step(b, 2 * NS_PER_US);
	ck_assert(bench_gsi(b, GSI));
	bench_free(b);
}
END_TEST

/* ---- hostile drivers ---- */

START_TEST(strange_rings)
{
	start(UPE);
	make_plain(OWN_MAC, 60);
	bench_write(b, TX_BUF, frame, 60);
	legacy(0, 60, EOP | IFCS | RS);
	out(TDT, N); /* outside: never reached */
	bench_idle(b);
	ck_assert_uint_eq(receive(), 0);
	out(TDH, 0xffff);
	out(TDT, 3);
	out(RDT, 0xffff);
	bench_idle(b);
	send_in(frame, 60);
	out(RDT, N - 1);
	out(RDLEN, 0);
	bench_idle(b);
	ck_assert_uint_eq(in(RDH), 0);
	/* Rings and buffers where there is no memory. */
	out(RDLEN, N * 16);
	out(RDBAL + 4, 0xffffffff);
	bench_idle(b);
	out(TDH, 0);
	out(TDBAL + 4, 0x80000000);
	out(TDT, 5);
	bench_idle(b);
	ck_assert_uint_eq(receive(), 0);
	out(TDBAL + 4, 0);
	put_desc(0xfffffffffffff000ull, 1000u | (EOP | IFCS | RS) << 24, 0);
	out(TDT, 2);
	bench_idle(b);
	ck_assert_uint_eq(receive(), 60); /* the first one */
	ck_assert_uint_eq(receive(), 1000);
	/* A ring in the registers themselves: DMA does not reach them. */
	out(TDBAL, (uint32_t)BASE);
	out(TDT, 4);
	bench_idle(b);
	bench_free(b);
}
END_TEST

/* All descriptors are used for as much work as they can ask for: it ends, in turns of bounded length. */
START_TEST(much_ado)
{
	start(0);
	for (unsigned i = 0; i < 4; i++) {
		context(TSE, 0xfffff, 255, 0, false); /* no progress */
		data(0, 0xfffff, TSE | EOP | IFCS | RS, 3);
		kick();
		context(TSE, 0xfffff, 255, 0xffff, false); /* longer than any frame */
		data(0, 0xfffff, TSE | EOP | IFCS | RS, 3);
		kick();
		data(0, 0xfffff, EOP | IFCS | RS, 3);
		kick();
	}
	ck_assert_uint_eq(receive(), 0);
	ck_assert_uint_eq(in(TDH), in(TDT));
	/* A header grows while its packet is being read. */
	context(TSE, 3000, 200, 1000, false);
	data(0, 150, TSE, 3);
	kick();
	context(TSE, 3000, 100, 1000, false);
	data(0, 3000, TSE | EOP | IFCS | RS, 3);
	kick();
	ck_assert_uint_eq(receive(), 0);
	ck_assert_uint_eq(in(TDH), in(TDT));
	/* 100,000 frames of one byte each: not in one turn. */
	context(TSE, 100000, 54, 1, false);
	data(0, 100000, TSE | EOP | IFCS | RS, 3);
	out(TDT, tx_tail);
	loop_step(loop_main(), 0);
	ck_assert_uint_ne(in(TDH), in(TDT));
	out(TCTL, 0);
	bench_free(b);
}
END_TEST

/* The tail moves while a frame waits for the network: it is sent once and whole. */
START_TEST(busy_network)
{
	start(0);
	make_plain(PEER, 60);
	bench_write(b, TX_BUF, frame, 60);
	bench_cable_block(b, "n", true);
	legacy(0, 60, EOP | IFCS | RS);
	kick();
	legacy(0, 60, EOP | IFCS | RS);
	kick();
	ck_assert_uint_eq(in(TDH), 0);
	bench_cable_block(b, "n", false);
	ck_assert_uint_eq(in(TDH), 2);
	ck_assert_uint_eq(receive(), 60);
	ck_assert_uint_eq(receive(), 60);
	ck_assert_uint_eq(receive(), 0);
	/* The cable is pulled meanwhile: frames go nowhere, and the ring goes on. */
	bench_cable_block(b, "n", true);
	legacy(0, 60, EOP | IFCS | RS);
	kick();
	ck_assert_int_eq(net_set_link("n", false, NULL), 0);
	bench_idle(b);
	ck_assert_uint_eq(in(TDH), 3);
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *set_up = tcase_create("set-up"), *tx = tcase_create("sending"), *rx = tcase_create("receiving"),
	      *irq = tcase_create("interrupts"), *hostile = tcase_create("hostile");

	tcase_add_test(set_up, identity_and_eeprom);
	tcase_add_test(set_up, eeprom_by_hand);
	tcase_add_test(set_up, software_reset);
	tcase_add_test(set_up, register_bits);
	tcase_add_test(set_up, refused_options);
	tcase_add_test(set_up, option_rom);
	tcase_add_test(set_up, link_and_phy);
	tcase_add_test(tx, sends_legacy_frames);
	tcase_add_loop_test(tx, inserts_checksums, 0, 2);
	tcase_add_loop_test(tx, segments_large_packets, 0, 2);
	tcase_add_test(tx, segments_udp_and_ipv6);
	tcase_add_test(tx, tags_vlans);
	tcase_add_test(rx, receives);
	tcase_add_test(rx, filters);
	tcase_add_test(rx, vlan_filter_and_strip);
	tcase_add_test(rx, checks_checksums);
	tcase_add_test(rx, full_ring_waits);
	tcase_add_test(rx, loops_back);
	tcase_add_test(rx, shows_its_filter);
	tcase_add_test(irq, causes_and_masks);
	tcase_add_loop_test(irq, throttles, 0, 2);
	tcase_add_test(irq, delays);
	tcase_add_test(hostile, strange_rings);
	tcase_add_test(hostile, much_ado);
	tcase_add_test(hostile, busy_network);
	return bench_run("e1000", (TCase *[]){set_up, tx, rx, irq, hostile, NULL});
}
