/* The driver that the tests of the e1000 share: registers, rings and descriptors as Intel's manual has them. */
#ifndef VMM_TEST_E1000_H
#define VMM_TEST_E1000_H

#include "nic_test.h"

#define DEV NIC_ON_A_CABLE("e1000")

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

static unsigned tx_tail;

static inline uint32_t in(unsigned reg)
{
	return bench_readl(b, BASE + reg);
}

static inline void out(unsigned reg, uint32_t v)
{
	bench_writel(b, BASE + reg, v);
}

static inline uint16_t phy_in(unsigned reg)
{
	out(MDIC, 2u << 26 | 1u << 21 | reg << 16);
	ck_assert_uint_eq(in(MDIC) >> 28, 1); /* ready, no error */
	return (uint16_t)in(MDIC);
}

static inline void phy_out(unsigned reg, uint16_t v)
{
	out(MDIC, 1u << 26 | 1u << 21 | reg << 16 | v);
}

static inline void map(const char *options)
{
	plug_in(options, 0, 1);
}

/* Rings of N descriptors with buffers of 2 KiB, all but one the device's; then on. */
static inline void rings(uint32_t rctl)
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

static inline void start(uint32_t rctl)
{
	map(DEV);
	rings(rctl);
}

static inline void put_desc(uint64_t at, uint32_t low, uint32_t high)
{
	uint8_t d[16];

	put_le64(d, at);
	put_le32(d + 8, low);
	put_le32(d + 12, high);
	bench_write(b, TX_RING + 16 * tx_tail, d, 16);
	tx_tail = (tx_tail + 1) % N;
}

static inline void kick(void)
{
	out(TDT, tx_tail);
	bench_idle(b);
}

/* A legacy descriptor of len bytes at TX_BUF + offset. */
static inline void legacy(uint32_t offset, size_t len, unsigned cmd)
{
	put_desc(TX_BUF + offset, (uint32_t)len | cmd << 24, 0);
}

static inline void data(uint32_t offset, size_t len, unsigned cmd, unsigned popts)
{
	put_desc(TX_BUF + offset, (uint32_t)len | 1u << 20 | (cmd | DEXT) << 24, popts << 8);
}

/* TCP or UDP over IPv4 behind an Ethernet header. */
static inline void context(unsigned cmd, uint32_t paylen, unsigned header, unsigned mss, bool udp)
{
	uint64_t low = 14 | 24u << 8 | 33u << 16 | (uint64_t)34 << 32 | (uint64_t)(34 + (udp ? 6 : 16)) << 40;

	put_desc(low, paylen | (cmd | DEXT | 2 /* IPv4 */ | (udp ? 0 : 1)) << 24, header << 8 | mss << 16);
}

static inline uint8_t tx_status(unsigned i)
{
	return bench_readb(b, TX_RING + 16 * i + 12);
}

struct rx {
	uint16_t len, sum, special;
	uint8_t status, errors;
};

static inline struct rx rx_desc(unsigned i)
{
	uint8_t d[16];

	bench_read(b, RX_RING + 16 * i, d, 16);
	return (struct rx){get_le16(d + 8), get_le16(d + 10), get_le16(d + 14), d[12], d[13]};
}

#endif
