/* virtio-balloon: memory really goes back to the host, nonsense does not; the operator's side; statistics; reporting.
 */
#include "virtio_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>
#include "vmm/balloon.h"
#include "vmm/bytes.h"
#include "vmm/ram.h"

#define SLOT    5
#define BALLOON "-m 16 -device virtio-balloon-pci,addr=5,id=bal"
#define RAM     (16 * MIB)
#define FULL    0x900000ull /* pages tests fill and give away start here */

enum { INFLATE, DEFLATE, STATS, REPORTING };
enum { TARGET = 0, ACTUAL = 4, POISON = 12 };
#define F_STATS     (1ull << 1)
#define F_OOM       (1ull << 2)
#define F_POISON    (1ull << 4)
#define F_REPORTING (1ull << 5)
static const int kinds[] = {VD_LEGACY, VD_MODERN};

static void fill(struct board *b, unsigned pages)
{
	uint8_t page[4096];

	memset(page, 0x5a, sizeof(page));
	for (unsigned i = 0; i < pages; i++)
		bench_write(b, FULL + i * 4096ull, page, sizeof(page));
}

static bool kept(struct board *b, unsigned page)
{
	return bench_readb(b, FULL + page * 4096ull + 17) == 0x5a;
}

static bool in_file(struct board *b, unsigned page)
{
	struct ram_view view;

	for (unsigned i = 0; machine_ram(b, i, &view); i++)
		if (view.main) {
			off_t at = (off_t)(FULL + page * 4096ull);

			return lseek(view.fd, at, SEEK_DATA) == at;
		}
	ck_abort_msg("no guest RAM");
	return false;
}

static void give(struct vd *d, unsigned queue, const uint32_t *pfns, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		bench_writel(d->b, VQ_BUFFERS + 4 * i, pfns[i]);
	vd_add(d, queue, &(struct vd_seg){VQ_BUFFERS, 4 * n, false}, 1);
	vd_ring(d, queue);
	ck_assert_int_ge(vd_used(d, queue, NULL), 0);
}

START_TEST(inflated_pages_go_back_to_the_host)
{
	struct board *b = bench_new(BALLOON);
	uint32_t base = FULL >> 12, up[] = {base, base + 1, base + 2},
		 mixed[] = {base + 9, base + 8, base + 7, base + 12};
	struct vd d;

	vd_start(&d, b, SLOT, kinds[_i], 0, 3);
	fill(b, 16);
	for (unsigned i = 0; i < 16; i++)
		ck_assert(in_file(b, i));
	give(&d, INFLATE, up, 3);
	give(&d, INFLATE, mixed, 4);
	for (unsigned i = 0; i < 16; i++) {
		bool given = i <= 2 || (i >= 7 && i <= 9) || i == 12;

		ck_assert_msg(in_file(b, i) == !given, "page %u", i);
	}
	for (unsigned i = 0; i < 16; i++)
		ck_assert_msg(kept(b, i) == !(i <= 2 || (i >= 7 && i <= 9) || i == 12), "page %u", i);
	/* Taken back: they work like any other. */
	give(&d, DEFLATE, up, 3);
	fill(b, 3);
	ck_assert(kept(b, 0) && kept(b, 2));
	bench_free(b);
}
END_TEST

START_TEST(page_numbers_that_are_no_ram)
{
	struct board *b = bench_new(BALLOON);
	static const uint32_t wrong[] = {0xffffffff, 0xfee00, 0xfffff, RAM >> 12, 0xa0, 0xc0, 0xf0, 0x80000000};
	uint32_t rows[] = {(RAM >> 12) - 1, RAM >> 12, (RAM >> 12) + 1};
	struct vd d;

	vd_start(&d, b, SLOT, VD_MODERN, 0, 3);
	fill(b, 16);
	bench_writeb(b, RAM - 1, 0x5a);
	give(&d, INFLATE, wrong, ARRAY_SIZE(wrong));
	give(&d, INFLATE, rows, 3); /* the valid part of a row may go, nothing else */
	for (unsigned i = 0; i < 16; i++)
		ck_assert(kept(b, i));
	/* An odd length, an empty list, a list in RAM that does not exist: no page numbers there. */
	vd_add(&d, INFLATE, &(struct vd_seg){VQ_BUFFERS, 7, false}, 1);
	vd_add(&d, INFLATE, &(struct vd_seg){VQ_BUFFERS, 4, true}, 1);
	vd_add(&d, INFLATE, &(struct vd_seg){1ull << 40, 4096, false}, 1);
	vd_ring(&d, INFLATE);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_ge(vd_used(&d, INFLATE, NULL), 0);
	ck_assert_uint_eq(vd_status(&d) & VD_NEEDS_RESET, 0);
	/* A list of 64 MiB made of the same page over and over ends. */
	static struct vd_seg many[100];
	for (unsigned i = 0; i < 100; i++)
		many[i] = (struct vd_seg){0x100000, 0xa00000, false};
	vd_add(&d, INFLATE, many, 100);
	vd_ring(&d, INFLATE);
	ck_assert_int_ge(vd_used(&d, INFLATE, NULL), 0);
	bench_free(b);
}
END_TEST

START_TEST(the_operators_target)
{
	struct board *b = bench_new(BALLOON);
	struct err e = ERR_INIT;
	uint64_t bytes;
	struct vd d;

	vd_start(&d, b, SLOT, kinds[_i], 0, 3);
	ck_assert_int_eq(machine_balloon_get(b, &bytes, &e), 0);
	ck_assert_uint_eq(bytes, RAM);
	vd_isr(&d);
	ck_assert_int_eq(machine_balloon_set(b, 12 * MIB, &e), 0);
	ck_assert_uint_eq(vd_isr(&d), 2); /* configuration change */
	if (kinds[_i] == VD_MODERN)
		ck_assert_uint_eq(vd_generation(&d), 1);
	ck_assert_uint_eq(vd_config(&d, TARGET, 4), 1024);
	ck_assert_uint_eq(vd_config(&d, ACTUAL, 4), 0);
	vd_set_config(&d, ACTUAL, 600, 4);
	ck_assert_str_eq(bench_event(b, "BALLOON_CHANGE"), "{\"actual\": 14319616}");
	ck_assert_int_eq(machine_balloon_get(b, &bytes, &e), 0);
	ck_assert_uint_eq(bytes, RAM - 600 * 4096);
	/* More pages than there is RAM: the guest's word, but no nonsense from us. */
	vd_set_config(&d, ACTUAL, 0xffffffff, 4);
	ck_assert_str_eq(bench_event(b, "BALLOON_CHANGE"), "{\"actual\": 0}");
	vd_set_config(&d, TARGET, 5, 4); /* read-only */
	ck_assert_uint_eq(vd_config(&d, TARGET, 4), 1024);
	ck_assert_int_eq(machine_balloon_set(b, GIB, &e), 0);
	ck_assert_uint_eq(vd_config(&d, TARGET, 4), 0);
	ck_assert_int_eq(machine_balloon_set(b, 0, &e), -EINVAL);
	ck_assert_str_eq(e.msg, "Parameter 'target' expects a size");
	/* The target survives the guest's reset, the balloon's contents do not. */
	machine_balloon_set(b, 8 * MIB, &e);
	bench_reset(b);
	vd_init(&d, b, SLOT, kinds[_i]);
	ck_assert_uint_eq(vd_config(&d, TARGET, 4), 2048);
	ck_assert_int_eq(machine_balloon_get(b, &bytes, &e), 0);
	ck_assert_uint_eq(bytes, RAM);
	bench_free(b);
}
END_TEST

START_TEST(drivers_that_write_bytes)
{
	struct board *b = bench_new(BALLOON);
	struct vd d;

	vd_start(&d, b, SLOT, VD_LEGACY, 0, 3);
	vd_set_config(&d, ACTUAL, 0x10, 1);
	vd_set_config(&d, ACTUAL + 1, 0x02, 1);
	vd_set_config(&d, ACTUAL + 2, 0, 1);
	ck_assert_ptr_null(bench_event(b, "BALLOON_CHANGE"));
	vd_set_config(&d, ACTUAL + 3, 0, 1);
	ck_assert_uint_eq(vd_config(&d, ACTUAL, 4), 0x210);
	ck_assert_str_eq(bench_event(b, "BALLOON_CHANGE"), "{\"actual\": 14614528}");
	bench_free(b);
}
END_TEST

START_TEST(one_balloon_only)
{
	struct err e = ERR_INIT;
	uint64_t bytes;
	struct board *b;

	ck_assert_ptr_nonnull(
		strstr(bench_new_fails(BALLOON " -device virtio-balloon-pci"), "Only one balloon device"));
	ck_assert_ptr_nonnull(strstr(bench_new_fails(BALLOON ",free-page-hint=on"), "hints are not offered"));
	b = bench_new("-m 16");
	ck_assert_int_eq(machine_balloon_get(b, &bytes, &e), -ENODEV);
	ck_assert_int_eq(e.class, ERR_DEVICE_NOT_ACTIVE);
	ck_assert_str_eq(e.msg, "No balloon device has been activated");
	bench_free(b);
}
END_TEST

static const struct device_property *property(struct board *b, const char *name)
{
	for (const struct device_property *p = device_find(b, "bal")->class->properties; p->name; p++)
		if (!strcmp(p->name, name))
			return p;
	return NULL;
}

static char *stats(struct board *b)
{
	return property(b, "guest-stats")->get(device_find(b, "bal"));
}

static void set_polling(struct board *b, const char *json, bool good)
{
	struct err e = ERR_INIT;

	ck_assert_int_eq(property(b, "guest-stats-polling-interval")->set(device_find(b, "bal"), json, &e) == 0, good);
}

static void put_stat(struct board *b, unsigned i, uint16_t tag, uint64_t value)
{
	uint8_t raw[10];

	put_le16(raw, tag);
	put_le64(raw + 2, value);
	bench_write(b, VQ_BUFFERS + 10 * i, raw, 10);
}

START_TEST(statistics_are_polled)
{
	struct board *b = bench_new(BALLOON);
	struct vd d;
	char *text;

	vd_start(&d, b, SLOT, VD_MODERN, F_STATS, 3);
	ck_assert(d.features & F_STATS);
	text = stats(b);
	ck_assert_ptr_nonnull(strstr(text, "\"stat-free-memory\": -1"));
	ck_assert_ptr_nonnull(strstr(text, "\"last-update\": 0"));
	free(text);
	put_stat(b, 0, 4, 1234567);
	put_stat(b, 1, 5, 16777216);
	put_stat(b, 2, 77, 1); /* of a later specification */
	vd_add(&d, STATS, &(struct vd_seg){VQ_BUFFERS, 30, false}, 1);
	vd_ring(&d, STATS);
	ck_assert_int_lt(vd_used(&d, STATS, NULL), 0); /* kept until new ones are wanted */
	text = stats(b);
	ck_assert_ptr_nonnull(strstr(text, "\"stat-free-memory\": 1234567,"));
	ck_assert_ptr_nonnull(strstr(text, "\"stat-total-memory\": 16777216,"));
	ck_assert_ptr_nonnull(strstr(text, "\"stat-swap-in\": -1,"));
	ck_assert_ptr_null(strstr(text, "\"last-update\": 0"));
	free(text);
	bench_step(b, NS_PER_SEC / 2);
	ck_assert_int_lt(vd_used(&d, STATS, NULL), 0); /* nobody asked for polling */
	set_polling(b, "-1", false);
	set_polling(b, "4294967296", false);
	set_polling(b, "\"2\"", false);
	set_polling(b, "1", true);
	bench_step(b, 999 * NS_PER_MS);
	ck_assert_int_lt(vd_used(&d, STATS, NULL), 0);
	bench_step(b, NS_PER_MS);
	ck_assert_int_ge(vd_used(&d, STATS, NULL), 0);
	/* The driver is slow: nothing to give back meanwhile. */
	bench_step(b, NS_PER_SEC / 2);
	ck_assert_int_lt(vd_used(&d, STATS, NULL), 0);
	put_stat(b, 0, 4, 7);
	vd_add(&d, STATS, &(struct vd_seg){VQ_BUFFERS, 10, false}, 1);
	vd_ring(&d, STATS);
	text = stats(b);
	ck_assert_ptr_nonnull(strstr(text, "\"stat-free-memory\": 7,"));
	ck_assert_ptr_nonnull(strstr(text, "\"stat-total-memory\": -1,"));
	free(text);
	/* The buffer we hold is the driver's again after a load, and comes back with the next poll. */
	b = bench_save_load(b);
	vd_moved(&d, b);
	bench_idle(b);
	set_polling(b, "1", true);
	bench_step(b, NS_PER_SEC);
	ck_assert_int_ge(vd_used(&d, STATS, NULL), 0);
	bench_free(b);
}
END_TEST

START_TEST(free_pages_are_reported)
{
	struct board *b = bench_new(BALLOON ",free-page-reporting=on,deflate-on-oom=on");
	struct vd d;

	vd_start(&d, b, SLOT, VD_MODERN, F_STATS | F_REPORTING | F_OOM, 4);
	ck_assert_uint_eq(d.features & (F_REPORTING | F_OOM), F_REPORTING | F_OOM);
	fill(b, 16);
	struct vd_seg report[] = {
		{FULL, 4 * 4096, true}, {FULL + 8 * 4096, 4096, true}, {FULL + 10 * 4096 + 1, 4096, true}};
	vd_add(&d, REPORTING, report, 3);
	vd_ring(&d, REPORTING);
	ck_assert_int_ge(vd_used(&d, REPORTING, NULL), 0);
	for (unsigned i = 0; i < 16; i++)
		ck_assert_msg(in_file(b, i) == !(i < 4 || i == 8), "page %u", i);
	bench_free(b);
}
END_TEST

START_TEST(poisoned_pages_keep_their_poison)
{
	struct board *b = bench_new(BALLOON ",free-page-reporting=on");
	struct vd d;

	vd_start(&d, b, SLOT, VD_MODERN, F_STATS | F_REPORTING | F_POISON, 4);
	ck_assert(d.features & F_POISON);
	vd_set_config(&d, POISON, 0xaaaaaaaa, 4);
	ck_assert_uint_eq(vd_config(&d, POISON, 4), 0xaaaaaaaa);
	fill(b, 1);
	vd_add(&d, REPORTING, &(struct vd_seg){FULL, 4096, true}, 1);
	vd_ring(&d, REPORTING);
	ck_assert_int_ge(vd_used(&d, REPORTING, NULL), 0);
	ck_assert(kept(b, 0));
	bench_free(b);
}
END_TEST

START_TEST(not_offered_unless_asked_for)
{
	struct board *b = bench_new(BALLOON);
	struct vd d;

	vd_init(&d, b, SLOT, VD_MODERN);
	ck_assert_uint_eq(vd_offered(&d) & (F_REPORTING | F_OOM | 8 | 1), 0);
	ck_assert_uint_eq(bench_readw(b, d.bar + 18), 3);
	bench_free(b);
}
END_TEST

START_TEST(save_and_load)
{
	struct board *b = bench_new(BALLOON);
	struct err e = ERR_INIT;
	uint64_t bytes;
	struct vd d;

	vd_start(&d, b, SLOT, VD_MODERN, F_STATS, 3);
	machine_balloon_set(b, 10 * MIB, &e);
	vd_set_config(&d, ACTUAL, 100, 4);
	b = bench_save_load(b);
	vd_moved(&d, b);
	ck_assert_uint_eq(vd_config(&d, TARGET, 4), 1536);
	ck_assert_int_eq(machine_balloon_get(b, &bytes, &e), 0);
	ck_assert_uint_eq(bytes, RAM - 100 * 4096);
	bench_free(b);
}
END_TEST

/* As QEMU's balloon is: without MSI-X and its BAR, unless asked for. */
START_TEST(interrupts_by_pin)
{
	struct board *b = bench_new(BALLOON);
	struct err e = ERR_INIT;
	struct vd d;

	bench_pci_writel(b, SLOT << 3, 0x14, ~0u);
	ck_assert_uint_eq(bench_pci_readl(b, SLOT << 3, 0x14), 0);
	bench_free(b);
	b = bench_new(BALLOON ",vectors=4");
	vd_init(&d, b, SLOT, VD_MODERN);
	vd_negotiate(&d, 0);
	vd_msix(&d, 4);
	for (unsigned q = 0; q < 3; q++)
		vd_queue(&d, q, 0);
	vd_set_status(&d, vd_status(&d) | VD_OK);
	bench_msis(b, NULL);
	ck_assert_int_eq(machine_balloon_set(b, 12 * MIB, &e), 0);
	ck_assert_uint_eq(bench_msis(b, NULL), 1);
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *all = tcase_create("balloon");

	tcase_set_timeout(all, 30);
	tcase_add_loop_test(all, inflated_pages_go_back_to_the_host, 0, 2);
	tcase_add_test(all, page_numbers_that_are_no_ram);
	tcase_add_loop_test(all, the_operators_target, 0, 2);
	tcase_add_test(all, drivers_that_write_bytes);
	tcase_add_test(all, one_balloon_only);
	tcase_add_test(all, statistics_are_polled);
	tcase_add_test(all, free_pages_are_reported);
	tcase_add_test(all, poisoned_pages_keep_their_poison);
	tcase_add_test(all, not_offered_unless_asked_for);
	tcase_add_test(all, save_and_load);
	tcase_add_test(all, interrupts_by_pin);
	return run_suite("virtio-balloon", (TCase *const[]){all, NULL});
}
