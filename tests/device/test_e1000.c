/*
 * The 82540EM as its drivers find and set it up: EEPROM, reset, register bits, the link, interrupts, and rings no
 * driver would set up. Packets are in test_e1000_rx.c and test_e1000_tx.c.
 */
#include "e1000_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- finding and setting up ---- */

static uint16_t eerd(unsigned word)
{
	out(EERD, word << 8 | 1);
	ck_assert(in(EERD)&0x10);
	return in(EERD) >> 16;
}

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

int main(void)
{
	TCase *set_up = tcase_create("set-up"), *irq = tcase_create("interrupts"), *hostile = tcase_create("hostile");

	tcase_add_test(set_up, identity_and_eeprom);
	tcase_add_test(set_up, eeprom_by_hand);
	tcase_add_test(set_up, software_reset);
	tcase_add_test(set_up, register_bits);
	tcase_add_test(set_up, refused_options);
	tcase_add_test(set_up, option_rom);
	tcase_add_test(set_up, link_and_phy);
	tcase_add_test(irq, causes_and_masks);
	tcase_add_loop_test(irq, throttles, 0, 2);
	tcase_add_test(irq, delays);
	tcase_add_test(hostile, strange_rings);
	return run_suite("e1000", (TCase *[]){set_up, irq, hostile, NULL});
}
