/*
 * virtio-net's packets: headers old and new, buffers of all sizes and pieces, a cable that is full, packets that are
 * none; save and load in the middle.
 */
#include "virtio_net_test.h"

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

int main(void)
{
	TCase *tx = tcase_create("tx"), *rx = tcase_create("rx");

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
	return run_suite("virtio-net-io", (TCase *const[]){tx, rx, NULL});
}
