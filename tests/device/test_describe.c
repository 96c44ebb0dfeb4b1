/* The machine description, read back through libfdt. */
#include <check.h>
#include <libfdt.h>
#include <stdlib.h>
#include "bench.h"

static void *describe(struct board *b, size_t *len)
{
	struct err e = ERR_INIT;
	void *fdt = NULL;

	ck_assert_msg(machine_describe(b, &fdt, len, &e) == 0, "%s", e.msg);
	ck_assert_int_eq(fdt_check_full(fdt, *len), 0);
	return fdt;
}

static const char *string_at(const void *fdt, const char *path, const char *property)
{
	int node = fdt_path_offset(fdt, path);

	ck_assert_msg(node >= 0, "no node %s", path);
	const char *s = fdt_getprop(fdt, node, property, NULL);
	ck_assert_msg(s != NULL, "%s has no %s", path, property);
	return s;
}

static uint64_t u64_at(const void *fdt, const char *path, const char *property, unsigned i)
{
	int len, node = fdt_path_offset(fdt, path);
	const fdt64_t *v;

	ck_assert_msg(node >= 0, "no node %s", path);
	v = fdt_getprop(fdt, node, property, &len);
	ck_assert_msg(v && (size_t)len >= (i + 1) * 8, "%s has no %s[%u]", path, property, i);
	return fdt64_ld(&v[i]);
}

static uint32_t u32_at(const void *fdt, const char *path, const char *property, unsigned i)
{
	int len, node = fdt_path_offset(fdt, path);
	const fdt32_t *v;

	ck_assert_msg(node >= 0, "no node %s", path);
	v = fdt_getprop(fdt, node, property, &len);
	ck_assert_msg(v && (size_t)len >= (i + 1) * 4, "%s has no %s[%u]", path, property, i);
	return fdt32_ld(&v[i]);
}

START_TEST(board_and_memory)
{
	struct board *b = bench_new("-m 64 -smp 4,cores=2,threads=2");
	size_t len;
	void *fdt = describe(b, &len);

	ck_assert_str_eq(string_at(fdt, "/", "compatible"), "vmm,pc");
	ck_assert_str_eq(string_at(fdt, "/", "model"), "pc-i440fx-7.2");
	ck_assert_uint_eq(u64_at(fdt, "/memory@0", "reg", 0), 0);
	ck_assert_uint_eq(u64_at(fdt, "/memory@0", "reg", 1), 64 * MIB);
	ck_assert_uint_eq(u32_at(fdt, "/cpus/cpu@3", "reg", 0), 3);
	ck_assert_uint_eq(u32_at(fdt, "/cpus/cpu@3", "vmm,topology", 1), 1);
	ck_assert_uint_eq(u32_at(fdt, "/cpus/cpu@3", "vmm,topology", 2), 1);
	ck_assert_int_lt(fdt_path_offset(fdt, "/cpus/cpu@4"), 0);
	free(fdt);
	bench_free(b);
}
END_TEST

START_TEST(devices)
{
	struct board *b = bench_new("-m 16 -serial null -device isa-debug-exit,id=leave,iobase=0x504");
	size_t len;
	void *fdt = describe(b, &len);
	int node, found = 0;

	ck_assert_str_eq(string_at(fdt, "/devices/leave", "class"), "isa-debug-exit");
	ck_assert_str_eq(string_at(fdt, "/devices/leave", "bus"), "isa");
	ck_assert_uint_eq(strtoul(string_at(fdt, "/devices/leave/properties", "iobase"), NULL, 0), 0x504);
	/* The serial port: class, ports and interrupt line, under whatever id the board gave it. */
	fdt_for_each_subnode(node, fdt, fdt_path_offset(fdt, "/devices"))
	{
		char path[256];
		const char *class = fdt_getprop(fdt, node, "class", NULL);

		ck_assert(class && device_class_find(class));
		if (strcmp(class, "isa-serial"))
			continue;
		found++;
		ck_assert_int_eq(fdt_get_path(fdt, node, path, sizeof(path)), 0);
		ck_assert_uint_eq(u32_at(fdt, path, "interrupts", 0), IRQ_GSI);
		ck_assert_uint_eq(u32_at(fdt, path, "interrupts", 1), 4);
	}
	ck_assert_int_eq(found, 1);
	free(fdt);
	bench_free(b);
}
END_TEST

START_TEST(same_configuration_same_bytes)
{
	struct board *b = bench_new("-m 16");
	size_t len[2];
	void *fdt[2];

	fdt[0] = describe(b, &len[0]);
	/* What the guest does makes no difference: a BAR moves. */
	bench_pci_writel(b, 1 << 3 | 1, 0x20, 0xc001);
	bench_pci_writew(b, 1 << 3 | 1, 4, 1);
	fdt[1] = describe(b, &len[1]);
	ck_assert_uint_eq(len[0], len[1]);
	ck_assert_mem_eq(fdt[0], fdt[1], len[0]);
	free(fdt[0]);
	free(fdt[1]);
	bench_free(b);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("describe");
	TCase *c = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_test(c, board_and_memory);
	tcase_add_test(c, devices);
	tcase_add_test(c, same_configuration_same_bytes);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
