/* The 82540EM receives: buffers, filters, VLANs, checksums, a full ring, loopback, what it tells of its filter. */
#include "e1000_test.h"

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

int main(void)
{
	TCase *rx = tcase_create("receiving");

	tcase_add_test(rx, receives);
	tcase_add_test(rx, filters);
	tcase_add_test(rx, vlan_filter_and_strip);
	tcase_add_test(rx, checks_checksums);
	tcase_add_test(rx, full_ring_waits);
	tcase_add_test(rx, loops_back);
	tcase_add_test(rx, shows_its_filter);
	return run_suite("e1000-rx", (TCase *[]){rx, NULL});
}
