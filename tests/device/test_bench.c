/* The board as a whole: what every device has to keep, whatever it does. */
#include "bench.h"
#include <stdlib.h>
#include <string.h>

START_TEST(board_builds_resets_and_saves)
{
	struct board *b = bench_new("-m 16");

	bench_reset(b);
	b = bench_save_load(b);
	bench_free(b);
}
END_TEST

START_TEST(memory_is_ram_and_holes_float)
{
	struct board *b = bench_new("-m 16");

	bench_writel(b, 0x1000, 0x12345678);
	ck_assert_uint_eq(bench_readl(b, 0x1000), 0x12345678);
	ck_assert_uint_eq(bench_readl(b, 64 * MIB), 0xffffffff);
	ck_assert_uint_eq(bench_inb(b, 0x2345), 0xff);
	bench_free(b);
}
END_TEST

/* Every class says how its state travels, or why it does not. */
START_TEST(each_class_keeps_the_contract)
{
	for (const struct device_class *const *c = device_registry; *c; c++) {
		ck_assert_msg(((*c)->state != NULL) != ((*c)->stateless != NULL),
			      "%s: a state table or a reason for none", (*c)->name);
		ck_assert_msg((*c)->summary && *(*c)->summary, "%s has no summary", (*c)->name);
		ck_assert_msg((*c)->category, "%s has no category", (*c)->name);
		ck_assert_ptr_eq(device_class_find((*c)->name), *c);
		for (const struct prop *p = (*c)->props; p && p->name; p++)
			ck_assert_msg(p->internal || p->help, "%s.%s has no help", (*c)->name, p->name);
	}
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("board");

	tcase_add_test(t, board_builds_resets_and_saves);
	tcase_add_test(t, memory_is_ram_and_holes_float);
	tcase_add_test(t, each_class_keeps_the_contract);
	return run_suite("bench", (TCase *[]){t, NULL});
}
