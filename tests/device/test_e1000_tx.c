/* The 82540EM sends: both kinds of descriptors, checksums, segmentation, VLAN tags, a busy network, and drivers that
 * ask for too much. */
#include "e1000_test.h"

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

/* ---- hostile drivers ---- */

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

int main(void)
{
	TCase *tx = tcase_create("sending"), *hostile = tcase_create("hostile");

	tcase_add_test(tx, sends_legacy_frames);
	tcase_add_loop_test(tx, inserts_checksums, 0, 2);
	tcase_add_loop_test(tx, segments_large_packets, 0, 2);
	tcase_add_test(tx, segments_udp_and_ipv6);
	tcase_add_test(tx, tags_vlans);
	tcase_add_test(tx, busy_network);
	tcase_add_test(hostile, much_ado);
	return run_suite("e1000-tx", (TCase *[]){tx, hostile, NULL});
}
