/* The 6300ESB's watchdog: two stages, the unlock sequence, the lock, what a time-out does, and that it is remembered.
 */
#include "bench.h"

#include <stdio.h>
#include <string.h>
#include "vmm/bytes.h"

#define ESB  (5u << 3)
#define BASE 0xe0000000ull
#define DEV  "-m 16 -device i6300esb,addr=5"
#define TICK 992970ull /* ns of a preload of 1 at 1 kHz: 2^15 PCI clocks */
enum { PRELOAD1 = 0, PRELOAD2 = 4, STATUS = 8, RELOAD = 12 };
enum { CONFIG = 0x60, LOCK = 0x68 };

static struct board *set_up(const char *options)
{
	struct board *b = bench_new(options);

	bench_pci_writel(b, ESB, 0x10, (uint32_t)BASE);
	bench_pci_writew(b, ESB, 4, 2);
	return b;
}

static void unlock(struct board *b)
{
	bench_writew(b, BASE + RELOAD, 0x80);
	bench_writew(b, BASE + RELOAD, 0x86);
}

static void preload(struct board *b, unsigned reg, uint32_t value)
{
	unlock(b);
	bench_writel(b, BASE + reg, value);
}

static void reload(struct board *b)
{
	unlock(b);
	bench_writew(b, BASE + RELOAD, 0x100);
}

/* As Linux's i6300esb driver does it: half of the time in each stage. */
static void start(struct board *b, uint32_t ticks, uint8_t lock)
{
	bench_pci_writew(b, ESB, CONFIG, 3); /* no interrupt */
	preload(b, PRELOAD1, ticks);
	preload(b, PRELOAD2, ticks);
	reload(b);
	bench_pci_writeb(b, ESB, LOCK, lock);
}

static const char *fired(struct board *b)
{
	return bench_event(b, "WATCHDOG");
}

START_TEST(identity)
{
	struct board *b = set_up(DEV);

	ck_assert_uint_eq(bench_pci_readl(b, ESB, 0), 0x25ab8086);
	ck_assert_uint_eq(bench_pci_readl(b, ESB, 8) >> 8, 0x088000);
	ck_assert_uint_eq(bench_readw(b, BASE + RELOAD), 0);
	/* Enabled as it is after reset it takes 2 x 1041 s. */
	bench_pci_writeb(b, ESB, LOCK, 2);
	bench_step(b, 2082 * NS_PER_SEC);
	ck_assert_ptr_null(fired(b));
	bench_step(b, NS_PER_SEC);
	ck_assert_ptr_nonnull(fired(b));
	bench_free(b);
}
END_TEST

START_TEST(two_stages_then_the_reset)
{
	struct board *b = set_up(DEV);

	start(b, 1000, 2);
	bench_step(b, 1000 * TICK - NS_PER_MS);
	ck_assert_uint_eq(bench_readl(b, BASE + STATUS), 0);
	bench_step(b, 2 * NS_PER_MS);
	ck_assert_uint_eq(bench_readl(b, BASE + STATUS), 1); /* end of stage 1 */
	bench_writel(b, BASE + STATUS, 1);
	ck_assert_uint_eq(bench_readl(b, BASE + STATUS), 0);
	bench_step(b, 1000 * TICK - 3 * NS_PER_MS);
	ck_assert_ptr_null(fired(b));
	bench_step(b, 4 * NS_PER_MS);
	ck_assert_str_eq(fired(b), "{\"action\": \"reset\"}");
	ck_assert_ptr_nonnull(strstr(bench_event(b, "RESET"), "\"guest\": true"));
	/* The next life can tell why, until it has seen it. */
	bench_pci_writel(b, ESB, 0x10, (uint32_t)BASE);
	bench_pci_writew(b, ESB, 4, 2);
	ck_assert_uint_eq(bench_readw(b, BASE + RELOAD), 0x200);
	ck_assert_uint_eq(bench_pci_readb(b, ESB, LOCK), 0);
	bench_writew(b, BASE + RELOAD, 0x200); /* locked */
	ck_assert_uint_eq(bench_readw(b, BASE + RELOAD), 0x200);
	unlock(b);
	bench_writew(b, BASE + RELOAD, 0x200);
	ck_assert_uint_eq(bench_readw(b, BASE + RELOAD), 0);
	bench_step(b, 10 * NS_PER_SEC);
	ck_assert_ptr_null(fired(b));
	bench_free(b);
}
END_TEST

START_TEST(a_guest_that_lives_reloads)
{
	struct board *b = set_up(DEV);

	start(b, 500, 2);
	for (unsigned i = 0; i < 20; i++) {
		bench_step(b, 900 * TICK);
		reload(b);
	}
	ck_assert_ptr_null(fired(b));
	/* Without the sequence nothing is reloaded; a wrong step starts it over. */
	bench_writew(b, BASE + RELOAD, 0x100);
	bench_writew(b, BASE + RELOAD, 0x80);
	bench_writew(b, BASE + RELOAD, 0x80);
	bench_writew(b, BASE + RELOAD, 0x86);
	bench_writew(b, BASE + RELOAD, 0x100);
	bench_step(b, 1001 * TICK);
	ck_assert_ptr_nonnull(fired(b));
	bench_free(b);
}
END_TEST

START_TEST(disabling_and_locking)
{
	struct board *b = set_up(DEV ",id=w -action watchdog=none");

	start(b, 100, 2);
	bench_pci_writeb(b, ESB, LOCK, 0); /* not locked: off again */
	bench_step(b, NS_PER_SEC);
	ck_assert_ptr_null(fired(b));
	start(b, 100, 3);
	bench_pci_writeb(b, ESB, LOCK, 0);
	ck_assert_uint_eq(bench_pci_readb(b, ESB, LOCK), 3);
	bench_step(b, NS_PER_SEC);
	ck_assert_str_eq(fired(b), "{\"action\": \"none\"}");
	bench_step(b, NS_PER_SEC); /* once */
	ck_assert_ptr_null(fired(b));
	/* Free running: again and again. */
	start(b, 100, 6);
	for (unsigned i = 0; i < 3; i++) {
		bench_step(b, 201 * TICK);
		ck_assert_ptr_nonnull(fired(b));
	}
	/* WDT_OUTPUT off: counts, does nothing. */
	bench_pci_writew(b, ESB, CONFIG, 0x23);
	bench_step(b, 2 * 201 * TICK);
	ck_assert_ptr_null(fired(b));
	bench_free(b);
}
END_TEST

START_TEST(the_fast_scale)
{
	struct board *b = set_up(DEV " -watchdog-action none");

	bench_pci_writew(b, ESB, CONFIG, 7);
	preload(b, PRELOAD1, 1000);
	preload(b, PRELOAD2, 1000);
	bench_pci_writeb(b, ESB, LOCK, 2);
	bench_step(b, 1900 * 1000);
	ck_assert_ptr_null(fired(b));
	bench_step(b, 100 * 1000);
	ck_assert_ptr_nonnull(fired(b));
	bench_free(b);
}
END_TEST

START_TEST(actions)
{
	static const char *const names[] = {"pause", "shutdown", "debug", "inject-nmi"};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		char options[128], data[64];
		struct board *b;

		snprintf(options, sizeof(options), DEV " -watchdog-action %s", names[i]);
		snprintf(data, sizeof(data), "{\"action\": \"%s\"}", names[i]);
		b = set_up(options);
		start(b, 10, 2);
		bench_step(b, NS_PER_SEC);
		ck_assert_str_eq(fired(b), data);
		ck_assert_int_eq(machine_run_state(b), i == 0 ? RUN_WATCHDOG : RUN_RUNNING);
		ck_assert_int_eq(bench_event(b, "POWERDOWN") != NULL, i == 1);
		bench_free(b);
	}
	ck_assert_ptr_nonnull(strstr(bench_new_fails(DEV " -watchdog-action explode"), "explode"));
}
END_TEST

START_TEST(save_and_load)
{
	struct board *b = set_up(DEV " -watchdog-action none");

	start(b, 1000, 3);
	bench_step(b, 1200 * TICK); /* in stage 2 */
	b = bench_save_load(b);
	ck_assert_uint_eq(bench_readl(b, BASE + STATUS), 1);
	bench_pci_writeb(b, ESB, LOCK, 0); /* still locked */
	bench_step(b, 790 * TICK);
	ck_assert_ptr_null(fired(b));
	bench_step(b, 20 * TICK);
	ck_assert_ptr_nonnull(fired(b));
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *all = tcase_create("i6300esb");

	tcase_add_test(all, identity);
	tcase_add_test(all, two_stages_then_the_reset);
	tcase_add_test(all, a_guest_that_lives_reloads);
	tcase_add_test(all, disabling_and_locking);
	tcase_add_test(all, the_fast_scale);
	tcase_add_test(all, actions);
	tcase_add_test(all, save_and_load);
	return run_suite("i6300esb", (TCase *const[]){all, NULL});
}
