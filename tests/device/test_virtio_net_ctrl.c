/* virtio-net's control queue: receive modes, address tables, VLANs, the card's own address, commands that are refused.
 */
#include "virtio_net_test.h"

static int rx_mode(uint8_t command, uint8_t on)
{
	return control(CTRL, 0, command, &on, 1);
}

START_TEST(receive_modes)
{
	set_up("");
	drive(kinds[_i], CTRL_FEATURES);
	ck_assert(comes_through(other)); /* promiscuous */
	ck_assert_int_eq(rx_mode(0, 0), OK);
	ck_assert(!comes_through(other));
	ck_assert(comes_through(own));
	ck_assert(comes_through(broadcast));
	ck_assert(!comes_through(multicast));
	ck_assert_int_eq(rx_mode(1, 1), OK); /* allmulti */
	ck_assert(comes_through(multicast));
	ck_assert_int_eq(rx_mode(3, 1), OK); /* nomulti */
	ck_assert(!comes_through(multicast));
	ck_assert(comes_through(broadcast));
	ck_assert_int_eq(rx_mode(2, 1), OK); /* alluni */
	ck_assert(comes_through(other));
	ck_assert_int_eq(rx_mode(4, 1), OK); /* nouni */
	ck_assert(!comes_through(own));
	ck_assert_int_eq(rx_mode(5, 1), OK); /* nobcast */
	ck_assert(!comes_through(broadcast));
	save_load();
	ck_assert(!comes_through(broadcast));
	ck_assert(!comes_through(own));
	ck_assert_int_eq(rx_mode(0, 1), OK);
	ck_assert(comes_through(own));
	/* A reset takes all of it back. */
	drive(kinds[_i], CTRL_FEATURES);
	ck_assert(comes_through(multicast));
	ck_assert_int_eq(rx_mode(0, 0), OK);
	ck_assert(comes_through(broadcast));
	tear_down();
}
END_TEST

static int set_macs(unsigned n_uni, unsigned n_multi, int more)
{
	static uint8_t data[4 + 100 * 6 + 4 + 100 * 6 + 10];
	uint8_t *p = data;

	put_le32(p, n_uni);
	p += 4;
	for (unsigned i = 0; i < n_uni; i++, p += 6)
		memcpy(p, (const uint8_t[]){0x02, 0, 0, 0, 0, (uint8_t)i}, 6);
	put_le32(p, n_multi);
	p += 4;
	for (unsigned i = 0; i < n_multi; i++, p += 6)
		memcpy(p, (const uint8_t[]){0x01, 0, 0, 0, 0, (uint8_t)i}, 6);
	return control(CTRL, 1, 0, data, (uint32_t)(p - data + more));
}

START_TEST(address_tables)
{
	const uint8_t uni[6] = {0x02, 0, 0, 0, 0, 3}, multi[6] = {0x01, 0, 0, 0, 0, 3}, no[6] = {0x02, 0, 0, 0, 0, 200},
		      no_multi[6] = {0x01, 0, 0, 0, 0, 200};
	struct nic_rx_filter f;

	set_up("");
	drive(VD_MODERN, CTRL_FEATURES);
	rx_mode(0, 0);
	ck_assert_int_eq(set_macs(4, 4, 0), OK);
	ck_assert(comes_through(uni) && comes_through(multi) && comes_through(own));
	ck_assert(!comes_through(no) && !comes_through(no_multi));
	save_load();
	ck_assert(comes_through(uni) && comes_through(multi));
	ck_assert(!comes_through(no) && !comes_through(no_multi));
	memset(&f, 0, sizeof(f));
	nic_next(NULL)->ops->rx_filter(nic_next(NULL), &f);
	ck_assert_uint_eq(f.n_unicast, 4);
	ck_assert_uint_eq(f.n_multicast, 4);
	ck_assert_int_eq(memcmp(f.unicast_table[3], uni, 6), 0);
	ck_assert_int_eq(memcmp(f.multicast_table[3], multi, 6), 0);
	ck_assert_int_eq(memcmp(f.main_mac, own, 6), 0);
	ck_assert(!f.promiscuous && f.broadcast_allowed && !f.unicast_overflow && !f.multicast_overflow);
	ck_assert_int_eq(f.unicast, NIC_RX_NORMAL);
	ck_assert_int_eq(f.vlan, NIC_RX_NONE);
	/* Tables that are too long let everything of their kind in. */
	ck_assert_int_eq(set_macs(64, 0, 0), OK);
	ck_assert(comes_through(uni) && !comes_through(no) && !comes_through(multi));
	ck_assert_int_eq(set_macs(60, 5, 0), OK);
	ck_assert(comes_through(no_multi) && comes_through(multi) && !comes_through(no));
	ck_assert_int_eq(set_macs(65, 4, 0), OK);
	ck_assert(comes_through(no) && comes_through(multi) && !comes_through(no_multi));
	/* Commands that are cut off or have too much. */
	ck_assert_int_eq(set_macs(4, 4, -1), ERR);
	ck_assert_int_eq(set_macs(4, 4, -25), ERR);
	ck_assert_int_eq(set_macs(4, 0, -4), ERR);
	ck_assert_int_eq(set_macs(4, 4, 1), ERR);
	ck_assert_int_eq(control(CTRL, 1, 0, "\xff\xff\xff\xff\xff\xff\xff\xff", 8), ERR);
	ck_assert(!comes_through(no) && !comes_through(uni) && comes_through(own));
	tear_down();
}
END_TEST

START_TEST(own_address)
{
	struct nic_rx_filter f = {0};

	set_up("");
	drive(VD_MODERN, CTRL_FEATURES);
	rx_mode(0, 0);
	ck_assert_int_eq(control(CTRL, 1, 1, other, 6), OK);
	ck_assert(comes_through(other) && !comes_through(own));
	ck_assert_uint_eq(vd_config(&d, 0, 4), get_le32(other));
	ck_assert_int_eq(control(CTRL, 1, 1, own, 5), ERR);
	ck_assert_int_eq(control(CTRL, 1, 2, own, 6), ERR);
	vd_set_config(&d, 0, 0x11, 1); /* by command only */
	ck_assert_uint_eq(vd_config(&d, 0, 4), get_le32(other));
	save_load();
	ck_assert(comes_through(other) && !comes_through(own));
	ck_assert_int_eq(memcmp(nic_next(NULL)->mac, other, 6), 0);
	/* The card's own comes back. Old drivers write it byte by byte. */
	drive(VD_LEGACY, F_MAC | F_CTRL_VQ | F_CTRL_RX);
	ck_assert_uint_eq(vd_config(&d, 0, 4), get_le32(own));
	for (unsigned i = 0; i < 6; i++)
		vd_set_config(&d, i, other[i], 1);
	rx_mode(0, 0);
	ck_assert(comes_through(other) && !comes_through(own));
	nic_next(NULL)->ops->rx_filter(nic_next(NULL), &f);
	ck_assert_int_eq(memcmp(f.main_mac, other, 6), 0);
	ck_assert_int_eq(f.vlan, NIC_RX_ALL);
	tear_down();
}
END_TEST

static bool vlan_comes_through(uint16_t id)
{
	uint8_t f[64];

	give(1600);
	vd_ring(&d, RX);
	make_frame(f, own, sizeof(f), 0);
	put_be16(f + 12, 0x8100);
	put_be16(f + 14, (uint16_t)(0xe000 | id));
	from_cable(f, sizeof(f));
	return vd_used(&d, RX, NULL) >= 0;
}

static int vlan(uint8_t command, uint16_t id)
{
	return control(CTRL, 2, command, &(uint16_t){htole16(id)}, 2);
}

START_TEST(vlans)
{
	struct nic_rx_filter f = {0};

	set_up("");
	drive(VD_MODERN, CTRL_FEATURES);
	ck_assert(vlan_comes_through(5)); /* promiscuous */
	rx_mode(0, 0);
	ck_assert(!vlan_comes_through(5));
	ck_assert(comes_through(own));
	ck_assert_int_eq(vlan(0, 5), OK);
	ck_assert_int_eq(vlan(0, 4095), OK);
	ck_assert(vlan_comes_through(5) && vlan_comes_through(4095) && !vlan_comes_through(6));
	nic_next(NULL)->ops->rx_filter(nic_next(NULL), &f);
	ck_assert_int_eq(f.vlan, NIC_RX_NORMAL);
	ck_assert_uint_eq(f.n_vlan, 2);
	ck_assert_uint_eq(f.vlan_table[0], 5);
	ck_assert_uint_eq(f.vlan_table[1], 4095);
	save_load();
	ck_assert(vlan_comes_through(5));
	ck_assert_int_eq(vlan(1, 5), OK);
	ck_assert(!vlan_comes_through(5));
	ck_assert_int_eq(vlan(0, 4096), ERR);
	ck_assert_int_eq(vlan(2, 5), ERR);
	ck_assert_int_eq(control(CTRL, 2, 0, "\x05", 1), ERR);
	/* A driver that cannot filter VLANs gets all of them. */
	drive(VD_MODERN, F_CTRL_VQ | F_CTRL_RX);
	rx_mode(0, 0);
	ck_assert(vlan_comes_through(5));
	ck_assert_int_eq(vlan(0, 5), ERR);
	tear_down();
}
END_TEST

START_TEST(commands_that_are_refused)
{
	set_up("");
	drive(kinds[_i], CTRL_FEATURES);
	ck_assert_int_eq(control(CTRL, 0, 0, NULL, 0), ERR); /* no data */
	ck_assert_int_eq(rx_mode(6, 1), ERR);
	ck_assert_int_eq(control(CTRL, 3, 0, NULL, 0), ERR);                 /* nothing was to be announced */
	ck_assert_int_eq(control(CTRL, 4, 0, "\x01\x00", 2), ERR);           /* no MQ */
	ck_assert_int_eq(control(CTRL, 5, 0, "\x02\0\0\0\0\0\0\0", 8), ERR); /* guest checksums were not negotiated */
	ck_assert_int_eq(control(CTRL, 5, 0, "\0\0\0\0\0\0\0\0", 8), OK);
	ck_assert_int_eq(control(CTRL, 5, 0, "\0\0\0\0", 4), ERR);
	ck_assert_int_eq(control(CTRL, 5, 1, "\0\0\0\0\0\0\0\0", 8), ERR);
	ck_assert_int_eq(control(CTRL, 6, 0, NULL, 0), ERR);
	ck_assert_int_eq(control(CTRL, 255, 255, "abc", 3), ERR);
	/* What was not negotiated. */
	drive(kinds[_i], F_CTRL_VQ);
	ck_assert_int_eq(rx_mode(0, 0), ERR);
	ck_assert_int_eq(rx_mode(2, 0), ERR);
	ck_assert_int_eq(set_macs(1, 1, 0), ERR);
	ck_assert_int_eq(control(CTRL, 1, 1, own, 6), ERR);
	ck_assert_int_eq(control(CTRL, 5, 0, "\0\0\0\0\0\0\0\0", 8), ERR);
	ck_assert(comes_through(other));
	tear_down();
}
END_TEST

START_TEST(one_pair_of_queues)
{
	set_up(",mq=on");
	drive(VD_MODERN, CTRL_FEATURES | F_MQ);
	ck_assert_int_eq(control(CTRL, 4, 0, "\x01\x00", 2), OK);
	ck_assert_int_eq(control(CTRL, 4, 0, "\x00\x00", 2), ERR);
	ck_assert_int_eq(control(CTRL, 4, 0, "\x02\x00", 2), ERR);
	ck_assert_int_eq(control(CTRL, 4, 0, "\x01", 1), ERR);
	ck_assert_int_eq(control(CTRL, 4, 1, "\x01\x00", 2), ERR);
	ck_assert(comes_through(own));
	tear_down();
}
END_TEST

int main(void)
{
	TCase *filter = tcase_create("filter");

	tcase_add_loop_test(filter, receive_modes, 0, 2);
	tcase_add_test(filter, address_tables);
	tcase_add_test(filter, own_address);
	tcase_add_test(filter, vlans);
	tcase_add_loop_test(filter, commands_that_are_refused, 0, 2);
	tcase_add_test(filter, one_pair_of_queues);
	return run_suite("virtio-net-ctrl", (TCase *const[]){filter, NULL});
}
