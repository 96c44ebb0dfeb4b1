/*
 * What travels stays readable. golden/NAME.schema holds every state table as text: a change that nobody meant fails
 * here. A table that must change gets a higher version, new fields a `since`, and VMM_GOLDEN=write rewrites its file
 * (before 0.1.0 is released no stream of ours is out there: rewriting is all there is to do, also for a new table).
 * fixtures/ holds the description and the state of a machine for every released version: they load for ever (or until
 * their version is dropped, and CHANGELOG.md says so).
 */
#include <check.h>
#include <errno.h>
#include <libfdt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "../device/bench.h"
#include "vmm/kvm.h"
#include "vmm/pci.h"

#define FIXTURE "pc-1"

static bool writing(void)
{
	return getenv("VMM_GOLDEN") && !strcmp(getenv("VMM_GOLDEN"), "write");
}

static char *path_of(const char *dir, const char *name, const char *suffix)
{
	return xasprintf("%s/%s/%s.%s", TESTS_DIR, dir, name, suffix);
}

static void write_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "w");

	ck_assert_msg(f && fwrite(data, 1, len, f) == len && !fclose(f), "%s: %s", path, strerror(errno));
}

static uint8_t *read_file(const char *path, size_t *len)
{
	FILE *f = fopen(path, "r");
	uint8_t *data = malloc(1 << 20);

	if (!f) {
		free(data);
		return NULL;
	}
	*len = fread(data, 1, (1 << 20) - 1, f);
	data[*len] = 0;
	fclose(f);
	return data;
}

/* ---- schemas ---- */

static void check_schema(const struct state_table *t)
{
	char *now = state_schema(t), *path = path_of("golden", t->name, "schema"), *golden;
	size_t len;

	if (writing())
		write_file(path, now, strlen(now));
	golden = (char *)read_file(path, &len);
	ck_assert_msg(golden != NULL, "%s is missing: a new state table; VMM_GOLDEN=write makes it", path);
	ck_assert_msg(!strcmp(now, golden),
		      "the state table '%s' has changed. Streams and files of the last version must still load: raise "
		      "its version, mark "
		      "new fields with since, then VMM_GOLDEN=write. It was:\n%sand is:\n%s",
		      t->name, golden, now);
	free(now);
	free(golden);
	free(path);
}

START_TEST(schemas)
{
	check_schema(&pci_function_state);
	check_schema(&kvm_vcpu_state);
	check_schema(&machine_clock_state);
	for (const struct device_class *const *c = device_registry; *c; c++)
		if ((*c)->state)
			check_schema((*c)->state);
}
END_TEST

/* ---- n - 1 to n ---- */

struct thing {
	uint32_t a, b;
	uint8_t c[4];
};
static const struct state_field old_fields[] = {STATE_U(struct thing, a), STATE_BUF(struct thing, c), STATE_FIELDS_END};
static const struct state_field new_fields[] = {
	STATE_U(struct thing, a),
	STATE_U(struct thing, b, .since = 2),
	STATE_BUF(struct thing, c),
	STATE_FIELDS_END,
};
static const struct state_table old_table = {.name = "thing", .version = 1, .oldest = 1, .fields = old_fields};
static const struct state_table new_table = {.name = "thing", .version = 2, .oldest = 1, .fields = new_fields};
static const struct state_table newest_table = {.name = "thing", .version = 3, .oldest = 2, .fields = new_fields};

static int reload(const struct state_table *from, const struct state_table *to, struct thing *t, struct err *e)
{
	struct thing saved = {1, 2, "abc"};
	struct state_section s;
	struct state_buf buf = {0};
	size_t used;
	int r = state_save(&buf, "it", from, &saved, e);

	if (!r)
		r = state_section_parse(buf.data, buf.len, &s, &used, e);
	if (!r)
		r = state_load(&s, to, t, e);
	state_buf_free(&buf);
	return r;
}

START_TEST(last_version_loads)
{
	struct thing t = {0, 77, ""};
	struct err e = ERR_INIT;

	ck_assert_msg(!reload(&old_table, &new_table, &t, &e), "%s", e.msg);
	ck_assert_uint_eq(t.a, 1);
	ck_assert_uint_eq(t.b, 77); /* the old one had none: what reset gave it */
	ck_assert_str_eq((char *)t.c, "abc");
	/* Too new, too old: refused with both versions. */
	ck_assert_int_lt(reload(&new_table, &old_table, &t, &e), 0);
	ck_assert_msg(strstr(e.msg, "'it'") && strstr(e.msg, "2") && strstr(e.msg, "1"), "said: %s", e.msg);
	ck_assert_int_lt(reload(&old_table, &newest_table, &t, &e), 0);
}
END_TEST

/* ---- a kept machine ---- */

static struct board *make_machine(void)
{
	struct board *b =
		bench_new("-m 4 -serial null -parallel null -vga std -device pvpanic -device ide-cd,bus=ide.1,unit=0");

	bench_outb(b, 0x43, 0x34); /* PIT: a divisor */
	bench_outb(b, 0x40, 0x9c);
	bench_outb(b, 0x40, 0x2e);
	bench_outb(b, 0x70, 0x40); /* a CMOS byte */
	bench_outb(b, 0x71, 0xa7);
	bench_outb(b, 0x3ff, 0x5e); /* UART scratch */
	bench_outb(b, 0x21, 0xb8);  /* PIC mask */
	bench_pci_writel(b, 1 << 3 | 1, 0x20, 0xc001);
	bench_outw(b, 0x510, 0x19);
	bench_inb(b, 0x511);
	bench_step(b, 12345678);
	return b;
}

static void check_machine(struct board *b)
{
	bench_outb(b, 0x70, 0x40);
	ck_assert_uint_eq(bench_inb(b, 0x71), 0xa7);
	ck_assert_uint_eq(bench_inb(b, 0x3ff), 0x5e);
	ck_assert_uint_eq(bench_inb(b, 0x21), 0xb8);
	ck_assert_uint_eq(bench_pci_readl(b, 1 << 3 | 1, 0x20), 0xc001);
	ck_assert_uint_eq(bench_inb(b, 0x511), 0); /* the directory's count: its second byte */
	bench_outb(b, 0x43, 0xe2);                 /* read-back: status of channel 0 */
	ck_assert_uint_eq(bench_inb(b, 0x40) & 0x3f, 0x34);
}

START_TEST(fixture_loads)
{
	char *dtb = path_of("fixtures", FIXTURE, "dtb"), *state = path_of("fixtures", FIXTURE, "state");
	struct err e = ERR_INIT;
	uint8_t *fdt, *data;
	size_t fdt_len, len;
	struct board *b;

	if (writing()) {
		struct state_buf buf = {0};
		void *out;

		b = make_machine();
		ck_assert(!machine_describe(b, &out, &len, &e) && !machine_save_state(b, &buf, &e));
		write_file(dtb, out, len);
		write_file(state, buf.data, buf.len);
		free(out);
		state_buf_free(&buf);
		bench_free(b);
	}
	fdt = read_file(dtb, &fdt_len);
	data = read_file(state, &len);
	ck_assert_msg(fdt && data, "%s or %s is missing", dtb, state);
	b = bench_new_described("", fdt, fdt_len);
	ck_assert_msg(!machine_load_state(b, data, len, &e), "the state of an older version does not load: %s", e.msg);
	check_machine(b);
	bench_free(b);
	free(fdt);
	free(data);
	free(dtb);
	free(state);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("golden");

	tcase_add_test(c, schemas);
	tcase_add_test(c, last_version_loads);
	tcase_add_test(c, fixture_loads);
	return run_suite("golden", (TCase *[]){c, NULL});
}
