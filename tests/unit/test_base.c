/* The base room: nearest names, event loop, clocks and timers. */
#include <stdlib.h>
#include <unistd.h>
#include "tests/lib/suite.h"
#include "vmm/clock.h"
#include "vmm/err.h"

START_TEST(nearest_name_is_suggested)
{
	static const char *const names[] = {"-machine", "-memory", "-monitor"};

	ck_assert_str_eq(err_nearest("-machin", names, 3), "-machine");
	ck_assert_ptr_null(err_nearest("zzzzzzz", names, 3));
}
END_TEST

START_TEST(error_carries_context_and_code)
{
	struct err e = ERR_INIT;

	ck_assert_int_eq(err_set(&e, 22, "size %d is odd", 3), -22);
	err_prefix(&e, "-drive %s", "a.img");
	ck_assert_str_eq(e.msg, "-drive a.img: size 3 is odd");
	ck_assert_int_eq(err_set(NULL, 5, "no one reads this"), -5);
}
END_TEST

static char order[16];
static size_t n_order;

static void note(void *opaque)
{
	order[n_order++] = *(char *)opaque;
	order[n_order] = '\0';
}

static void on_read(void *opaque, int fd, unsigned events)
{
	char c;

	ck_assert(events & LOOP_READ);
	ck_assert_int_eq(read(fd, &c, 1), 1);
	note(&c);
	loop_stop(opaque);
}

START_TEST(loop_runs_posts_bottom_halves_and_watches)
{
	struct loop *loop = loop_new(NULL);
	struct bh bh, cancelled;
	int fds[2];
	struct watch *w;

	n_order = 0;
	ck_assert_int_eq(pipe(fds), 0);
	w = loop_watch(loop, fds[0], LOOP_READ, NULL, on_read, loop, NULL);
	ck_assert_ptr_nonnull(w);
	bh_init(&bh, loop, NULL, note, "b");
	bh_init(&cancelled, loop, NULL, note, "X");
	bh_schedule(&cancelled);
	bh_schedule(&bh);
	bh_schedule(&bh); /* pending already: runs once */
	bh_cancel(&cancelled);
	loop_post(loop, NULL, note, "p");
	while (loop_step(loop, 0) > 0)
		;
	ck_assert_str_eq(order, "bp");
	ck_assert_int_eq(write(fds[1], "w", 1), 1);
	loop_run(loop);
	ck_assert_str_eq(order, "bpw");
	loop_unwatch(w);
	ck_assert_int_eq(write(fds[1], "w", 1), 1);
	loop_step(loop, 0);
	ck_assert_str_eq(order, "bpw");
	loop_free(loop);
}
END_TEST

static struct timer ta, tb;
static uint64_t fired_at;

static void fire_a(void *opaque)
{
	fired_at = clock_ns(VCLOCK_VIRTUAL);
	note("a");
	if (n_order < 3)
		timer_arm(&ta, fired_at + 100);
	timer_cancel(&tb);
	(void)opaque;
}

/* A handler that runs the loop until another thread has posted, in a step that has just taken a wake-up. */
struct nested {
	struct bh bh;
	bool posted;
};

static void nested_posted(void *opaque)
{
	((struct nested *)opaque)->posted = true;
}

static void *post_from_elsewhere(void *opaque)
{
	bh_schedule(&((struct nested *)opaque)->bh);
	return NULL;
}

static void wait_inside(void *opaque, int fd, unsigned events)
{
	struct nested *n = opaque;
	pthread_t t;
	char c;

	ck_assert_int_eq(read(fd, &c, 1), 1);
	pthread_create(&t, NULL, post_from_elsewhere, n);
	pthread_join(t, NULL);
	while (!n->posted)
		loop_step(loop_main(), -1); /* hangs if the wake-up got lost */
}

static void nothing(void *opaque)
{
}

START_TEST(nested_loop_gets_its_wake_up)
{
	struct err e = ERR_INIT;
	struct nested n = {.posted = false};
	struct watch *w;
	int fds[2];

	ck_assert_int_eq(loop_init_main(&e), 0);
	ck_assert_int_eq(pipe(fds), 0);
	bh_init(&n.bh, loop_main(), NULL, nested_posted, &n);
	w = loop_watch(loop_main(), fds[0], LOOP_READ, NULL, wait_inside, &n, &e);
	loop_post(loop_main(), NULL, nothing, NULL); /* the wake-up comes first, then the pipe: one step sees both */
	ck_assert_int_eq(write(fds[1], "x", 1), 1);
	loop_step(loop_main(), -1);
	ck_assert(n.posted);
	loop_unwatch(w);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

START_TEST(manual_clock_fires_in_order_at_the_deadline)
{
	ck_assert_int_eq(loop_init_main(NULL), 0);
	clock_use_manual(1000);
	n_order = 0;
	timer_init(&ta, loop_main(), VCLOCK_VIRTUAL, NULL, fire_a, NULL);
	timer_init(&tb, loop_main(), VCLOCK_VIRTUAL, NULL, note, "b");
	timer_arm(&ta, 100);
	timer_arm(&tb, 150);
	ck_assert_uint_eq(clock_next_deadline(), 100);
	ck_assert_uint_eq(clock_manual_step(99), 99);
	ck_assert_uint_eq(n_order, 0);
	clock_manual_step(1000);
	ck_assert_str_eq(order, "aaa"); /* b was cancelled by the first a */
	ck_assert_uint_eq(fired_at, 300);
	ck_assert_uint_eq(clock_ns(VCLOCK_HOST), 1099 + 1000);
	ck_assert(!timer_pending(&ta));
	loop_free(loop_main());
}
END_TEST

static void stop_loop(void *opaque)
{
	fired_at = clock_ns(VCLOCK_VIRTUAL);
	loop_stop(opaque);
}

START_TEST(virtual_clock_stands_still_while_stopped)
{
	uint64_t before;

	ck_assert_int_eq(loop_init_main(NULL), 0);
	before = clock_ns(VCLOCK_VIRTUAL);
	usleep(2000);
	ck_assert_uint_eq(clock_ns(VCLOCK_VIRTUAL), before);
	timer_init(&ta, loop_main(), VCLOCK_VIRTUAL, NULL, stop_loop, loop_main());
	timer_arm(&ta, before + NS_PER_MS);
	loop_step(loop_main(), 5); /* stopped: must not fire */
	ck_assert(timer_pending(&ta));
	clock_virtual_start();
	loop_run(loop_main());
	ck_assert_uint_ge(fired_at, before + NS_PER_MS);
	clock_virtual_stop();
	clock_virtual_set(77);
	ck_assert_uint_eq(clock_ns(VCLOCK_VIRTUAL), 77);
	loop_free(loop_main());
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("base");

	tcase_add_test(t, nearest_name_is_suggested);
	tcase_add_test(t, error_carries_context_and_code);
	tcase_add_test(t, loop_runs_posts_bottom_halves_and_watches);
	tcase_add_test(t, nested_loop_gets_its_wake_up);
	tcase_add_test(t, manual_clock_fires_in_order_at_the_deadline);
	tcase_add_test(t, virtual_clock_stands_still_while_stopped);
	return run_suite("base", (TCase *[]){t, NULL});
}
