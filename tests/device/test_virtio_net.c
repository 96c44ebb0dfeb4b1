/*
 * virtio-net as its drivers find it: features, configuration and options, the link and the announcement, interrupts,
 * reset, rings no driver would write. Packets are in test_virtio_net_io.c, the control queue and the filter in
 * test_virtio_net_ctrl.c; test_virtio_net_tap.c has a real tap.
 */
#include "virtio_net_test.h"

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
	TCase *what = tcase_create("what"), *link = tcase_create("link"), *life = tcase_create("life");

	tcase_add_test(what, a_network_card);
	tcase_add_test(what, an_option_rom);
	tcase_add_test(what, without_a_cable);
	tcase_add_test(what, features_of_a_plain_netdev);
	tcase_add_test(what, options_that_are_refused);
	tcase_add_test(what, queue_sizes_as_asked);
	tcase_add_loop_test(link, unplugging_the_cable, 0, 2);
	tcase_add_test(link, unplugged_while_the_cable_is_full);
	tcase_add_test(link, arriving_without_a_cable);
	tcase_add_test(link, the_driver_announces_itself);
	tcase_add_test(link, the_netdev_goes_away);
	tcase_add_loop_test(life, bad_chains_stop_the_device_until_reset, 0, ARRAY_SIZE(bad));
	tcase_add_test(life, one_interrupt_for_many_packets);
	tcase_add_loop_test(life, buffers_before_the_driver_is_ready, 0, 2);
	tcase_add_test(life, a_machine_reset_in_the_middle);
	return run_suite("virtio-net", (TCase *const[]){what, link, life, NULL});
}
