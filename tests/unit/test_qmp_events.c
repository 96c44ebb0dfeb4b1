/* QMP events: the table and its rate limits. */
#include <stdlib.h>
#include <string.h>
#include "src/control/events.h"
#include "src/control/qmp.h"
#include "tests/lib/suite.h"
#include "vmm/clock.h"

static int sent;
static int last_offset;
static uint64_t last_ns;

/* Stands in for the sessions. */
void qmp_emit(const char *name, const json_t *data)
{
	sent++;
	last_ns = clock_ns(VCLOCK_REAL);
	last_offset = (int)json_integer_value(json_object_get(data, "offset"));
}

/* No commands, no machine: keeps the rest of vmm out of this program. */
const struct qmp_command *const qmp_command_tables[] = {NULL};
enum run_state machine_run_state(const struct board *b)
{
	return RUN_RUNNING;
}
void qmp_session_wait(struct qmp_session *s, struct qmp_later *l)
{
}
void qmp_session_answer(struct qmp_session *s, json_t *response)
{
}
const char *run_state_name(enum run_state s)
{
	return "running";
}

static void rtc_change(int offset)
{
	char text[80];

	snprintf(text, sizeof(text), "{\"offset\": %d, \"qom-path\": \"/machine/rtc\"}", offset);
	events_emit("RTC_CHANGE", text);
}

static void setup(void)
{
	struct err e = ERR_INIT;

	ck_assert_int_eq(loop_init_main(&e), 0);
	sent = 0;
}

static void teardown(void)
{
	events_stop();
	loop_free(loop_main());
}

START_TEST(a_burst_is_its_first_and_last)
{
	uint64_t start = clock_ns(VCLOCK_REAL);

	for (int i = 0; i < 1000; i++)
		rtc_change(i);
	ck_assert_int_eq(sent, 1);
	ck_assert_int_eq(last_offset, 0);
	while (sent < 2 && clock_ns(VCLOCK_REAL) - start < 5 * NS_PER_SEC)
		loop_step(loop_main(), 100);
	ck_assert_int_eq(sent, 2);
	ck_assert_int_eq(last_offset, 999); /* the state a client ends with is the true one */
	ck_assert_uint_ge(last_ns - start, 900 * NS_PER_MS);
	rtc_change(7); /* still within the second after that */
	ck_assert_int_eq(sent, 2);
	while (sent < 3 && clock_ns(VCLOCK_REAL) - start < 5 * NS_PER_SEC)
		loop_step(loop_main(), 100);
	ck_assert_int_eq(last_offset, 7);
}
END_TEST

START_TEST(life_cycle_is_never_held_back)
{
	for (int i = 0; i < 100; i++) {
		events_emit("STOP", NULL);
		events_emit("RESUME", NULL);
	}
	ck_assert_int_eq(sent, 200);
}
END_TEST

START_TEST(waiting_events_are_dropped_at_the_end)
{
	rtc_change(1);
	rtc_change(2);
	events_stop();
	ck_assert_int_eq(sent, 1);
}
END_TEST

START_TEST(table_is_sorted_and_complete)
{
	const struct qmp_event *ev;
	const char *last = "";

	for (size_t i = 0; (ev = qmp_event_at(i)); i++) {
		ck_assert_str_lt(last, ev->name);
		last = ev->name;
		ck_assert_ptr_eq(qmp_event_find(ev->name), ev);
		ck_assert_uint_gt(strlen(ev->help), 10);
	}
	ck_assert_ptr_null(qmp_event_find("NO_SUCH_EVENT"));
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("qmp_events");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 20);
	tcase_add_test(t, a_burst_is_its_first_and_last);
	tcase_add_test(t, life_cycle_is_never_held_back);
	tcase_add_test(t, waiting_events_are_dropped_at_the_end);
	tcase_add_test(t, table_is_sorted_and_complete);
	return run_suite("qmp_events", (TCase *[]){t, NULL});
}
