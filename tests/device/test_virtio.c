/*
 * The virtio core, seen through virtio-rng: both interfaces, negotiation, rings good and bad, interrupts, reset, save
 * and load, and the random source's own rules.
 */
#include "virtio_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm/bytes.h"
#include "vmm/object.h"

#define SLOT 5
#define RNG  "-m 16 -device virtio-rng-pci,addr=5,id=r"

enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
static const int kinds[] = {VD_LEGACY, VD_MODERN};

/* Offer one writable buffer and ring; the number of bytes that came back. */
static uint32_t ask(struct vd *d, uint64_t addr, uint32_t len)
{
	uint16_t head = vd_add(d, 0, &(struct vd_seg){addr, len, true}, 1);
	uint32_t got = 0;
	int used;

	vd_ring(d, 0);
	used = vd_used(d, 0, &got);
	if (used < 0)
		return 0;
	ck_assert_int_eq(used, head);
	return got;
}

static bool all_zero(struct board *b, uint64_t addr, size_t len)
{
	uint8_t *buf = malloc(len);
	bool zero = true;

	bench_read(b, addr, buf, len);
	for (size_t i = 0; i < len; i++)
		zero &= !buf[i];
	free(buf);
	return zero;
}

/* ---- identity ---- */

static unsigned find_cap(struct board *b, uint8_t type)
{
	for (unsigned cap = bench_pci_readb(b, SLOT << 3, 0x34); cap; cap = bench_pci_readb(b, SLOT << 3, cap + 1))
		if (bench_pci_readb(b, SLOT << 3, cap) == 9 && bench_pci_readb(b, SLOT << 3, cap + 3) == type)
			return cap;
	return 0;
}

START_TEST(a_transitional_function)
{
	struct board *b = bench_new(RNG);

	ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, 0), 0x10051af4);
	ck_assert_uint_eq(bench_pci_readb(b, SLOT << 3, 8), 0);
	ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, 0x2c), 0x00041af4);
	ck_assert_uint_eq(bench_pci_readb(b, SLOT << 3, 0x10) & 1, 1);     /* I/O */
	ck_assert_uint_eq(bench_pci_readb(b, SLOT << 3, 0x20) & 0xf, 0xc); /* 64-bit prefetchable */
	for (uint8_t type = 1; type <= 5; type++) {
		unsigned cap = find_cap(b, type);

		ck_assert_uint_ne(cap, 0);
		ck_assert_uint_eq(bench_pci_readb(b, SLOT << 3, cap + 2), type == 2 || type == 5 ? 20 : 16);
		if (type != 5)
			ck_assert_uint_eq(bench_pci_readb(b, SLOT << 3, cap + 4), 4);
	}
	ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, find_cap(b, 2) + 16), 4); /* notify_off_multiplier */
	bench_free(b);
}
END_TEST

START_TEST(a_modern_function)
{
	struct board *b = bench_new(RNG ",disable-legacy=on,vectors=0");

	ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, 0), 0x10441af4);
	ck_assert_uint_eq(bench_pci_readb(b, SLOT << 3, 8), 1);
	ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, 0x10), 0); /* no legacy interface */
	ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, 0x14), 0); /* no MSI-X */
	bench_free(b);
}
END_TEST

START_TEST(a_legacy_function)
{
	struct board *b = bench_new(RNG ",disable-modern=on");
	struct vd d;

	ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, 0), 0x10051af4);
	ck_assert_uint_eq(find_cap(b, 1), 0);
	ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, 0x20), 0);
	vd_start(&d, b, SLOT, VD_LEGACY, 0, 1);
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 16), 16);
	bench_free(b);
}
END_TEST

START_TEST(options_that_contradict)
{
	ck_assert_ptr_nonnull(
		strstr(bench_new_fails(RNG ",disable-legacy=on,disable-modern=on"), "neither modern nor legacy"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails(RNG ",vectors=100"), "at most 65"));
	ck_assert_ptr_nonnull(
		strstr(bench_new_fails(RNG ",period=0"), "'period' parameter expects a positive integer"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails(RNG ",max-bytes=0"), "'max-bytes' parameter must be positive"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails(RNG ",rng=none"), "'none' not found"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-object rng-builtin"), "Parameter 'id' is missing"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-object rng-bultin,id=a"), "did you mean 'rng-builtin'"));
	ck_assert_ptr_nonnull(
		strstr(bench_new_fails("-object rng-random,id=a,filename=/nonexistent"), "Could not open"));
	ck_assert_ptr_nonnull(
		strstr(bench_new_fails("-object rng-builtin,id=a -object rng-builtin,id=a"), "duplicate"));
}
END_TEST

/* ---- the happy path, both interfaces ---- */

START_TEST(random_bytes_arrive)
{
	struct board *b = bench_new(RNG);
	struct vd d;

	vd_start(&d, b, SLOT, kinds[_i], 0, 1);
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 64), 64);
	ck_assert(!all_zero(b, VQ_BUFFERS, 64));
	ck_assert(all_zero(b, VQ_BUFFERS + 64, 64));
	/* More buffers than the ring has entries, one after the other. */
	for (unsigned i = 0; i < 40; i++)
		ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 3), 3);
	/* A long one, larger than the device's own buffer, in pieces across pages. */
	struct vd_seg pieces[] = {
		{VQ_BUFFERS + 0xffd, 6, true}, {VQ_BUFFERS + 0x3000, 10000, true}, {VQ_BUFFERS + 0x8000, 1, true}};
	uint32_t len;

	vd_add(&d, 0, pieces, 3);
	vd_ring(&d, 0);
	ck_assert_int_ge(vd_used(&d, 0, &len), 0);
	ck_assert_uint_eq(len, 10007);
	ck_assert(!all_zero(b, VQ_BUFFERS + 0x3000 + 9000, 1000));
	bench_free(b);
}
END_TEST

START_TEST(buffers_made_available_before_the_driver_is_ready)
{
	struct board *b = bench_new(RNG);
	struct vd d;

	vd_init(&d, b, SLOT, kinds[_i]);
	ck_assert(vd_negotiate(&d, 0));
	vd_queue(&d, 0, 0);
	vd_add(&d, 0, &(struct vd_seg){VQ_BUFFERS, 8, true}, 1);
	vd_ring(&d, 0);
	/* Legacy drivers rely on it; modern ones must not be served before DRIVER_OK. */
	ck_assert_int_eq(vd_used(&d, 0, NULL) >= 0, kinds[_i] == VD_LEGACY);
	vd_set_status(&d, vd_status(&d) | VD_OK);
	bench_idle(b);
	ck_assert_int_eq(vd_used(&d, 0, NULL) >= 0, kinds[_i] == VD_MODERN);
	bench_free(b);
}
END_TEST

START_TEST(indirect_descriptors)
{
	struct board *b = bench_new(RNG);
	uint64_t table = VQ_BUFFERS + 0x10000;
	uint8_t raw[32];
	uint32_t len;
	struct vd d;

	vd_start(&d, b, SLOT, kinds[_i], VD_INDIRECT, 1);
	ck_assert(d.features & VD_INDIRECT);
	put_le64(raw, VQ_BUFFERS);
	put_le32(raw + 8, 20);
	put_le16(raw + 12, WRITE | NEXT);
	put_le16(raw + 14, 1);
	put_le64(raw + 16, VQ_BUFFERS + 0x1000);
	put_le32(raw + 24, 30);
	put_le16(raw + 28, WRITE);
	put_le16(raw + 30, 0);
	bench_write(b, table, raw, sizeof(raw));
	vd_desc(&d, 0, 3, table, 32, INDIRECT, 0);
	vd_offer(&d, 0, 3);
	vd_ring(&d, 0);
	ck_assert_int_eq(vd_used(&d, 0, &len), 3);
	ck_assert_uint_eq(len, 50);
	ck_assert(!all_zero(b, VQ_BUFFERS + 0x1000, 30));
	bench_free(b);
}
END_TEST

/* ---- interrupts ---- */

static unsigned intx_gsi(struct board *b)
{
	/* PIIX3 routes PIRQA..D nowhere after reset: route all to IRQ 10. */
	for (unsigned i = 0; i < 4; i++)
		bench_pci_writeb(b, 1 << 3, 0x60 + i, 10);
	return 10;
}

START_TEST(intx_until_isr_is_read)
{
	struct board *b = bench_new(RNG);
	unsigned gsi = intx_gsi(b);
	struct vd d;

	vd_start(&d, b, SLOT, kinds[_i], 0, 1);
	ck_assert(!bench_gsi(b, gsi));
	ask(&d, VQ_BUFFERS, 4);
	ck_assert(bench_gsi(b, gsi));
	ck_assert_uint_eq(vd_isr(&d), 1);
	ck_assert(!bench_gsi(b, gsi));
	ck_assert_uint_eq(vd_isr(&d), 0);
	/* VRING_AVAIL_F_NO_INTERRUPT */
	bench_writew(b, d.q[0].avail, 1);
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 4), 4);
	ck_assert(!bench_gsi(b, gsi));
	bench_free(b);
}
END_TEST

START_TEST(msix_vectors_per_queue)
{
	struct board *b = bench_new(RNG);
	unsigned gsi = intx_gsi(b);
	uint32_t data;
	struct vd d;

	vd_init(&d, b, SLOT, kinds[_i]);
	ck_assert(vd_negotiate(&d, 0));
	vd_msix(&d, 2);
	vd_queue(&d, 0, 0);
	vd_set_status(&d, vd_status(&d) | VD_OK);
	bench_msis(b, NULL);
	ask(&d, VQ_BUFFERS, 4);
	ck_assert_uint_eq(bench_msis(b, &data), 1);
	ck_assert_uint_eq(data, 1); /* queue 0 has vector 1 */
	ck_assert(!bench_gsi(b, gsi));
	/* Masked: pending until it is unmasked. */
	bench_writel(b, d.msix + 16 + 12, 1);
	ask(&d, VQ_BUFFERS, 4);
	ck_assert_uint_eq(bench_msis(b, NULL), 0);
	ck_assert_uint_eq(bench_readl(b, d.msix + 0x800) & 2, 2);
	bench_writel(b, d.msix + 16 + 12, 0);
	ck_assert_uint_eq(bench_msis(b, &data), 1);
	ck_assert_uint_eq(bench_readl(b, d.msix + 0x800), 0);
	/* A vector that does not exist reads back as none, and nothing is sent. */
	if (kinds[_i] == VD_MODERN) {
		bench_writew(b, d.bar + 22, 0);
		bench_writew(b, d.bar + 26, 2);
		ck_assert_uint_eq(bench_readw(b, d.bar + 26), 0xffff);
	} else {
		bench_outw(b, d.io + 14, 0);
		bench_outw(b, d.io + 22, 2);
		ck_assert_uint_eq(bench_inw(b, d.io + 22), 0xffff);
	}
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 4), 4);
	ck_assert_uint_eq(bench_msis(b, NULL), 0);
	bench_free(b);
}
END_TEST

START_TEST(event_index_holds_interrupts_back)
{
	struct board *b = bench_new(RNG);
	unsigned gsi = intx_gsi(b);
	uint64_t used_event, avail_event;
	struct vd d;

	vd_start(&d, b, SLOT, kinds[_i], VD_EVENT_IDX, 1);
	ck_assert(d.features & VD_EVENT_IDX);
	used_event = d.q[0].avail + 4 + 2ull * d.q[0].size;
	avail_event = d.q[0].used + 4 + 8ull * d.q[0].size;
	bench_writew(b, used_event, 2); /* wake me when entry 2 has been used, the third */
	for (unsigned i = 0; i < 3; i++) {
		if (i)
			ck_assert_msg(!bench_gsi(b, gsi) || i == 1, "interrupt before entry 2");
		vd_isr(&d);
		ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 4), 4);
		/* The device asks to be rung for the next one. */
		ck_assert_uint_eq(bench_readw(b, avail_event), i + 1);
	}
	ck_assert(bench_gsi(b, gsi));
	vd_isr(&d);
	ask(&d, VQ_BUFFERS, 4);
	ck_assert(!bench_gsi(b, gsi));
	bench_free(b);
}
END_TEST

/* ---- negotiation ---- */

START_TEST(features_that_were_not_offered_are_refused)
{
	struct board *b = bench_new(RNG ",indirect_desc=off");
	struct vd d;

	vd_init(&d, b, SLOT, VD_MODERN);
	ck_assert(!(vd_offered(&d) & VD_INDIRECT));
	ck_assert(vd_offered(&d) & VD_VERSION_1);
	bench_writel(b, d.bar + 8, 0);
	bench_writel(b, d.bar + 12, (uint32_t)VD_INDIRECT);
	bench_writel(b, d.bar + 8, 1);
	bench_writel(b, d.bar + 12, 1);
	vd_set_status(&d, VD_ACK | VD_DRIVER | VD_FEATURES_OK);
	ck_assert_uint_eq(vd_status(&d), VD_ACK | VD_DRIVER);
	/* VERSION_1 is not optional on this interface. */
	bench_writel(b, d.bar + 12, 0);
	bench_writel(b, d.bar + 8, 0);
	bench_writel(b, d.bar + 12, 0);
	vd_set_status(&d, VD_ACK | VD_DRIVER | VD_FEATURES_OK);
	ck_assert_uint_eq(vd_status(&d), VD_ACK | VD_DRIVER);
	bench_writel(b, d.bar + 8, 1);
	bench_writel(b, d.bar + 12, 1);
	vd_set_status(&d, VD_ACK | VD_DRIVER | VD_FEATURES_OK);
	ck_assert_uint_eq(vd_status(&d), VD_ACK | VD_DRIVER | VD_FEATURES_OK);
	/* Settled. */
	bench_writel(b, d.bar + 12, 0);
	ck_assert_uint_eq(bench_readl(b, d.bar + 12), 1);
	/* Status bits only go up until a reset. */
	vd_set_status(&d, VD_ACK);
	ck_assert_uint_eq(vd_status(&d), VD_ACK | VD_DRIVER | VD_FEATURES_OK);
	vd_set_status(&d, 0);
	ck_assert_uint_eq(vd_status(&d), 0);
	ck_assert_uint_eq(bench_readl(b, d.bar + 12), 0);
	bench_free(b);
}
END_TEST

START_TEST(legacy_drivers_see_32_features_and_a_page_frame)
{
	struct board *b = bench_new(RNG);
	struct vd d;

	vd_init(&d, b, SLOT, VD_LEGACY);
	ck_assert_uint_eq(vd_offered(&d) >> 32, 0);
	ck_assert(vd_offered(&d) & VD_INDIRECT);
	vd_negotiate(&d, 0);
	vd_queue(&d, 0, 0);
	ck_assert_uint_eq(bench_inl(b, d.io + 8), VQ_BASE >> 12);
	bench_outw(b, d.io + 14, 7); /* no such queue */
	ck_assert_uint_eq(bench_inw(b, d.io + 12), 0);
	ck_assert_uint_eq(bench_inl(b, d.io + 8), 0);
	/* Giving a page frame of 0 is how they give up. */
	bench_outw(b, d.io + 14, 0);
	bench_outl(b, d.io + 8, 0);
	ck_assert_uint_eq(vd_status(&d), 0);
	ck_assert_uint_eq(bench_inl(b, d.io + 8), 0);
	bench_free(b);
}
END_TEST

START_TEST(drivers_that_forget_bus_mastering)
{
	struct board *b = bench_new(RNG);
	struct vd d;

	vd_init(&d, b, SLOT, VD_LEGACY);
	bench_pci_writew(b, SLOT << 3, 4, 3);
	vd_set_status(&d, 0);
	vd_set_status(&d, VD_ACK);
	vd_set_status(&d, VD_ACK | VD_DRIVER);
	ck_assert_uint_eq(bench_pci_readw(b, SLOT << 3, 4) & 4, 4);
	/* A modern driver is held to the rules: no DMA, but nothing breaks either. */
	vd_start(&d, b, SLOT, VD_MODERN, 0, 1);
	bench_pci_writew(b, SLOT << 3, 4, 3);
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 4), 0);
	ck_assert_uint_eq(vd_status(&d) & VD_NEEDS_RESET, 0);
	bench_pci_writew(b, SLOT << 3, 4, 7);
	bench_idle(b);
	ck_assert_int_ge(vd_used(&d, 0, NULL), 0);
	bench_free(b);
}
END_TEST

START_TEST(queue_sizes)
{
	struct board *b = bench_new(RNG);
	struct vd d;

	vd_init(&d, b, SLOT, VD_MODERN);
	vd_negotiate(&d, 0);
	ck_assert_uint_eq(bench_readw(b, d.bar + 18), 1);
	bench_writew(b, d.bar + 22, 0);
	ck_assert_uint_eq(bench_readw(b, d.bar + 24), 8);
	static const uint16_t bad[] = {0, 3, 16, 0x8000};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		bench_writew(b, d.bar + 24, bad[i]);
		ck_assert_uint_eq(bench_readw(b, d.bar + 24), 8);
	}
	vd_queue(&d, 0, 4);
	ck_assert_uint_eq(d.q[0].size, 4);
	bench_writew(b, d.bar + 24, 8); /* too late */
	ck_assert_uint_eq(bench_readw(b, d.bar + 24), 4);
	vd_set_status(&d, vd_status(&d) | VD_OK);
	for (unsigned i = 0; i < 10; i++)
		ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 5), 5);
	bench_free(b);
}
END_TEST

START_TEST(bar_4_through_configuration_space)
{
	struct board *b = bench_new(RNG);
	unsigned cap = find_cap(b, 5);

	/* Memory decoding is off: this is for firmware that cannot map the BAR. */
	bench_pci_writeb(b, SLOT << 3, cap + 4, 4);
	bench_pci_writel(b, SLOT << 3, cap + 8, 20);
	bench_pci_writel(b, SLOT << 3, cap + 12, 1);
	bench_pci_writeb(b, SLOT << 3, cap + 16, VD_ACK);
	ck_assert_uint_eq(bench_pci_readb(b, SLOT << 3, cap + 16), VD_ACK);
	bench_pci_writel(b, SLOT << 3, cap + 8, 18);
	bench_pci_writel(b, SLOT << 3, cap + 12, 2);
	ck_assert_uint_eq(bench_pci_readw(b, SLOT << 3, cap + 16), 1); /* one queue */
	/* Nonsense reaches nothing. */
	static const uint32_t bad[][3] = {{4, 0x4000, 4}, {4, 0xffffffff, 4}, {4, 17, 2},
					  {4, 0, 3},      {1, 0, 4},          {0, 18, 1}};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		bench_pci_writeb(b, SLOT << 3, cap + 4, (uint8_t)bad[i][0]);
		bench_pci_writel(b, SLOT << 3, cap + 8, bad[i][1]);
		bench_pci_writel(b, SLOT << 3, cap + 12, bad[i][2]);
		bench_pci_writel(b, SLOT << 3, cap + 16, 0);
		ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, cap + 16), 0);
	}
	bench_pci_writeb(b, SLOT << 3, cap + 4, 4);
	bench_pci_writel(b, SLOT << 3, cap + 8, 20);
	bench_pci_writel(b, SLOT << 3, cap + 12, 1);
	ck_assert_uint_eq(bench_pci_readb(b, SLOT << 3, cap + 16), VD_ACK);
	bench_free(b);
}
END_TEST

/* ---- rings no sane driver would write ---- */

static void indirect_entry(struct board *b, uint64_t at, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	uint8_t raw[16];

	put_le64(raw, addr);
	put_le32(raw + 8, len);
	put_le16(raw + 12, flags);
	put_le16(raw + 14, next);
	bench_write(b, at, raw, sizeof(raw));
}

static void bad_head(struct vd *d)
{
	vd_offer(d, 0, 8);
}
static void bad_next(struct vd *d)
{
	vd_desc(d, 0, 0, VQ_BUFFERS, 4, WRITE | NEXT, 200);
	vd_offer(d, 0, 0);
}
static void loop_of_one(struct vd *d)
{
	vd_desc(d, 0, 0, VQ_BUFFERS, 4, WRITE | NEXT, 0);
	vd_offer(d, 0, 0);
}
static void loop_of_two(struct vd *d)
{
	vd_desc(d, 0, 0, VQ_BUFFERS, 4, WRITE | NEXT, 1);
	vd_desc(d, 0, 1, VQ_BUFFERS, 4, WRITE | NEXT, 0);
	vd_offer(d, 0, 0);
}
static void loop_of_empty_ones(struct vd *d)
{
	vd_desc(d, 0, 0, VQ_BUFFERS, 0, WRITE | NEXT, 1);
	vd_desc(d, 0, 1, VQ_BUFFERS, 0, WRITE | NEXT, 0);
	vd_offer(d, 0, 0);
}
static void index_ran_away(struct vd *d)
{
	bench_writew(d->b, d->q[0].avail + 2, 9);
}
static void out_behind_in(struct vd *d)
{
	vd_add(d, 0, (struct vd_seg[]){{VQ_BUFFERS, 4, true}, {VQ_BUFFERS, 4, false}}, 2);
}
static void more_than_4_gib(struct vd *d)
{
	vd_add(d, 0, (struct vd_seg[]){{VQ_BUFFERS, 0xffffffff, true}, {VQ_BUFFERS, 2, true}}, 2);
}
static void no_room(struct vd *d)
{
	vd_add(d, 0, &(struct vd_seg){VQ_BUFFERS, 4, false}, 1);
}
static void indirect_odd_length(struct vd *d)
{
	vd_desc(d, 0, 0, VQ_BUFFERS, 17, INDIRECT, 0);
	vd_offer(d, 0, 0);
}
static void indirect_empty(struct vd *d)
{
	vd_desc(d, 0, 0, VQ_BUFFERS, 0, INDIRECT, 0);
	vd_offer(d, 0, 0);
}
static void indirect_with_next(struct vd *d)
{
	indirect_entry(d->b, VQ_BUFFERS, VQ_BUFFERS + 0x1000, 4, WRITE, 0);
	vd_desc(d, 0, 0, VQ_BUFFERS, 16, INDIRECT | NEXT, 1);
	vd_offer(d, 0, 0);
}
static void indirect_nested(struct vd *d)
{
	indirect_entry(d->b, VQ_BUFFERS, VQ_BUFFERS, 16, INDIRECT, 0);
	vd_desc(d, 0, 0, VQ_BUFFERS, 16, INDIRECT, 0);
	vd_offer(d, 0, 0);
}
static void indirect_loop(struct vd *d)
{
	indirect_entry(d->b, VQ_BUFFERS, VQ_BUFFERS + 0x1000, 4, WRITE | NEXT, 1);
	indirect_entry(d->b, VQ_BUFFERS + 16, VQ_BUFFERS + 0x1000, 4, WRITE | NEXT, 0);
	vd_desc(d, 0, 0, VQ_BUFFERS, 32, INDIRECT, 0);
	vd_offer(d, 0, 0);
}
static void indirect_outside_ram(struct vd *d)
{
	vd_desc(d, 0, 0, 1ull << 40, 16, INDIRECT, 0);
	vd_offer(d, 0, 0);
}
static void indirect_wraps(struct vd *d)
{
	vd_desc(d, 0, 0, UINT64_MAX - 7, 16, INDIRECT, 0);
	vd_offer(d, 0, 0);
}
static void indirect_huge(struct vd *d)
{
	for (unsigned i = 0; i < 2000; i++)
		indirect_entry(d->b, VQ_BUFFERS + 16 * i, VQ_BUFFERS + 0x100000, 1, WRITE | NEXT, (uint16_t)(i + 1));
	vd_desc(d, 0, 0, VQ_BUFFERS, 16 * 2001, INDIRECT, 0);
	vd_offer(d, 0, 0);
}

static void (*const bad_rings[])(struct vd *d) = {
	bad_head,       bad_next,           loop_of_one,     loop_of_two,   loop_of_empty_ones,
	index_ran_away, out_behind_in,      more_than_4_gib, no_room,       indirect_odd_length,
	indirect_empty, indirect_with_next, indirect_nested, indirect_loop, indirect_outside_ram,
	indirect_wraps, indirect_huge,
};

START_TEST(bad_rings_stop_the_device_until_reset)
{
	struct board *b = bench_new(RNG);
	unsigned gsi = intx_gsi(b);
	struct vd d;

	for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++) {
		vd_start(&d, b, SLOT, kinds[k], VD_INDIRECT, 1);
		vd_isr(&d);
		bad_rings[_i](&d);
		vd_ring(&d, 0);
		ck_assert_int_lt(vd_used(&d, 0, NULL), 0);
		ck_assert_int_eq(vd_status(&d) & VD_NEEDS_RESET, kinds[k] == VD_MODERN ? VD_NEEDS_RESET : 0);
		if (kinds[k] == VD_MODERN) { /* told with a configuration interrupt */
			ck_assert(bench_gsi(b, gsi));
			ck_assert_uint_eq(vd_isr(&d), 2);
		}
		/* Good requests are not served either ... */
		vd_queue(&d, 0, 0);
		ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 4), 0);
		/* ... until the driver starts over. */
		vd_start(&d, b, SLOT, kinds[k], 0, 1);
		ck_assert_uint_eq(vd_status(&d) & VD_NEEDS_RESET, 0);
		ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 4), 4);
	}
	bench_free(b);
}
END_TEST

START_TEST(rings_outside_ram)
{
	struct board *b = bench_new(RNG);
	static const uint64_t places[] = {0xfee00000, 0xe0580000, 1ull << 52, UINT64_MAX & ~0xfffull};
	struct vd d;

	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
		vd_init(&d, b, SLOT, VD_MODERN);
		vd_negotiate(&d, 0);
		bench_writew(b, d.bar + 22, 0);
		for (unsigned r = 32; r < 56; r += 8) {
			bench_writel(b, d.bar + r, (uint32_t)places[i]);
			bench_writel(b, d.bar + r + 4, (uint32_t)(places[i] >> 32));
		}
		bench_writew(b, d.bar + 28, 1);
		vd_set_status(&d, vd_status(&d) | VD_OK);
		bench_writew(b, d.bar + 0x3000, 0);
		bench_idle(b);
		ck_assert_uint_eq(vd_status(&d) & VD_NEEDS_RESET, VD_NEEDS_RESET);
	}
	/* A buffer outside RAM costs the driver its data, not the device its life. */
	vd_start(&d, b, SLOT, VD_MODERN, 0, 1);
	vd_add(&d, 0, &(struct vd_seg){0xfee00000, 4, true}, 1);
	vd_ring(&d, 0);
	bench_idle(b);
	bench_free(b);
}
END_TEST

/* ---- reset, save and load ---- */

START_TEST(a_machine_reset_starts_afresh)
{
	struct board *b = bench_new(RNG);
	struct vd d;

	vd_start(&d, b, SLOT, kinds[_i], 0, 1);
	ask(&d, VQ_BUFFERS, 4);
	bench_reset(b);
	vd_init(&d, b, SLOT, kinds[_i]);
	ck_assert_uint_eq(vd_status(&d), VD_ACK | VD_DRIVER);
	vd_start(&d, b, SLOT, kinds[_i], 0, 1);
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 4), 4);
	bench_free(b);
}
END_TEST

START_TEST(save_and_load)
{
	struct board *b = bench_new(RNG);
	unsigned gsi = intx_gsi(b);
	struct vd d;

	vd_start(&d, b, SLOT, kinds[_i], VD_EVENT_IDX | VD_INDIRECT, 1);
	for (unsigned i = 0; i < 11; i++)
		ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 4), 4);
	bench_writew(b, d.q[0].avail + 4 + 2ull * d.q[0].size, 11); /* used_event: tell me about the next */
	vd_isr(&d);
	/* A ring that has not been looked at travels as well. */
	vd_add(&d, 0, &(struct vd_seg){VQ_BUFFERS, 4, true}, 1);
	b = bench_save_load(b);
	vd_moved(&d, b);
	bench_idle(b);
	ck_assert_int_ge(vd_used(&d, 0, NULL), 0);
	ck_assert(bench_gsi(b, gsi));
	ck_assert_uint_eq(vd_isr(&d), 1);
	for (unsigned i = 0; i < 11; i++)
		ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 4), 4);
	ck_assert_uint_eq(vd_status(&d) & VD_OK, VD_OK);
	bench_free(b);
}
END_TEST

/* ---- virtio-rng's own ---- */

START_TEST(the_rate_is_limited)
{
	struct board *b = bench_new(RNG ",max-bytes=100,period=1000");
	struct vd d;

	vd_start(&d, b, SLOT, VD_MODERN, 0, 1);
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 64), 64);
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 64), 36);
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 64), 0);
	bench_step(b, 999 * NS_PER_MS);
	ck_assert_int_lt(vd_used(&d, 0, NULL), 0);
	b = bench_save_load(b); /* the period and what is left of it travel */
	vd_moved(&d, b);
	bench_idle(b);
	ck_assert_int_lt(vd_used(&d, 0, NULL), 0);
	/* Starting over does not help. */
	vd_start(&d, b, SLOT, VD_MODERN, 0, 1);
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 64), 0);
	bench_step(b, NS_PER_MS);
	uint32_t len;
	ck_assert_int_ge(vd_used(&d, 0, &len), 0);
	ck_assert_uint_eq(len, 64);
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 64), 36);
	bench_free(b);
}
END_TEST

START_TEST(bytes_of_a_file)
{
	char path[] = "/tmp/vmm-rng-XXXXXX", options[160], got[32];
	int fd = mkstemp(path);
	struct board *b;
	struct vd d;

	ck_assert_int_eq(write(fd, "not so random", 13), 13);
	snprintf(options, sizeof(options),
		 "-m 16 -object rng-random,id=f,filename=%s -device virtio-rng-pci,addr=5,rng=f", path);
	b = bench_new(options);
	vd_start(&d, b, SLOT, VD_MODERN, 0, 1);
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 8), 8);
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS + 8, 24), 5);
	bench_read(b, VQ_BUFFERS, got, 13);
	ck_assert_int_eq(memcmp(got, "not so random", 13), 0);
	/* The file has ended: the request waits, and is served when there is more. */
	ck_assert_uint_eq(ask(&d, VQ_BUFFERS, 4), 0);
	ck_assert_int_eq(write(fd, "more", 4), 4);
	for (unsigned i = 0; i < 10; i++)
		bench_step(b, 10 * NS_PER_MS);
	uint32_t len;
	ck_assert_int_ge(vd_used(&d, 0, &len), 0);
	ck_assert_uint_eq(len, 4);
	/* In use. */
	struct err e = ERR_INIT;
	ck_assert_int_lt(object_del("f", &e), 0);
	ck_assert_ptr_nonnull(strstr(e.msg, "is in use"));
	bench_free(b);
	close(fd);
	unlink(path);
}
END_TEST

int main(void)
{
	TCase *identity = tcase_create("identity"), *work = tcase_create("work"), *bad = tcase_create("bad"),
	      *life = tcase_create("life"), *rng = tcase_create("rng");

	tcase_add_test(identity, a_transitional_function);
	tcase_add_test(identity, a_modern_function);
	tcase_add_test(identity, a_legacy_function);
	tcase_add_test(identity, options_that_contradict);
	tcase_add_loop_test(work, random_bytes_arrive, 0, 2);
	tcase_add_loop_test(work, buffers_made_available_before_the_driver_is_ready, 0, 2);
	tcase_add_loop_test(work, indirect_descriptors, 0, 2);
	tcase_add_loop_test(work, intx_until_isr_is_read, 0, 2);
	tcase_add_loop_test(work, msix_vectors_per_queue, 0, 2);
	tcase_add_loop_test(work, event_index_holds_interrupts_back, 0, 2);
	tcase_add_test(work, features_that_were_not_offered_are_refused);
	tcase_add_test(work, legacy_drivers_see_32_features_and_a_page_frame);
	tcase_add_test(work, drivers_that_forget_bus_mastering);
	tcase_add_test(work, queue_sizes);
	tcase_add_test(work, bar_4_through_configuration_space);
	tcase_add_loop_test(bad, bad_rings_stop_the_device_until_reset, 0, ARRAY_SIZE(bad_rings));
	tcase_add_test(bad, rings_outside_ram);
	tcase_add_loop_test(life, a_machine_reset_starts_afresh, 0, 2);
	tcase_add_loop_test(life, save_and_load, 0, 2);
	tcase_add_test(rng, the_rate_is_limited);
	tcase_add_test(rng, bytes_of_a_file);
	return run_suite("virtio", (TCase *const[]){identity, work, bad, life, rng, NULL});
}
