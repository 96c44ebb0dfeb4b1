/* fw_cfg: ports, DMA and the items the board publishes. */
#include "fwcfg_client.h"
#include "vmm/fw_cfg.h"
#include "vmm/vmcoreinfo.h"

#include <unistd.h>

START_TEST(signature_and_features)
{
	struct board *b = bench_new("-m 16");
	uint8_t v[6];

	fw_read_key(b, 0, v, 6);
	ck_assert_mem_eq(v, "QEMU\0\0", 6); /* zeros behind the end */
	fw_read_key(b, 1, v, 4);
	ck_assert_uint_eq(get_le32(v), 3);
	ck_assert_uint_eq(bench_inl(b, 0x514), get_le32("QEMU"));
	ck_assert_uint_eq(bench_inl(b, 0x518), get_le32(" CFG"));
	fw_read_key(b, 0x3fff, v, 4); /* no such item */
	ck_assert_mem_eq(v, "\0\0\0\0", 4);
	bench_free(b);
}
END_TEST

START_TEST(items_tell_ram_cpus_and_menu)
{
	struct board *b = bench_new("-m 5G -smp 2,maxcpus=4 -boot menu=on,splash-time=300,reboot-timeout=7000 "
				    "-uuid 00112233-4455-6677-8899-aabbccddeeff");
	uint8_t v[16];
	uint32_t len;

	fw_read_key(b, 3, v, 8);
	ck_assert_uint_eq(get_le64(v), 5 * GIB);
	fw_read_key(b, 5, v, 2);
	ck_assert_uint_eq(get_le16(v), 2);
	fw_read_key(b, 0xf, v, 2);
	ck_assert_uint_eq(get_le16(v), 4);
	fw_read_key(b, 0xe, v, 2);
	ck_assert_uint_eq(get_le16(v), 1);
	fw_read_key(b, 0x8002, v, 4);
	ck_assert_uint_eq(get_le32(v), 1);
	fw_read_key(b, 2, v, 16);
	ck_assert_mem_eq(v, "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff", 16);
	uint8_t *f = fw_file(b, "etc/boot-menu-wait", &len);
	ck_assert_uint_eq(len, 2);
	ck_assert_uint_eq(get_le16(f), 300);
	free(f);
	f = fw_file(b, "etc/boot-fail-wait", &len);
	ck_assert_uint_eq(get_le32(f), 7000);
	free(f);
	f = fw_file(b, "etc/e820", &len);
	ck_assert_uint_eq(len, 40);
	ck_assert_uint_eq(get_le64(f) + get_le64(f + 8), board_ram_below_4g(b));
	ck_assert_uint_eq(get_le64(f + 20), 4 * GIB);
	ck_assert_uint_eq(get_le64(f + 28), 5 * GIB - board_ram_below_4g(b));
	free(f);
	bench_free(b);
}
END_TEST

START_TEST(directory_is_sorted)
{
	struct board *b = bench_new("-m 16 -fw_cfg name=opt/z,string=1 -fw_cfg name=opt/a,string=2");
	uint8_t count[4], entry[64];
	char last[56] = "";

	fw_read_key(b, 0x19, count, 4);
	ck_assert_uint_gt(get_be32(count), 5);
	for (uint32_t i = 0; i < get_be32(count); i++) {
		for (unsigned j = 0; j < 64; j++)
			entry[j] = bench_inb(b, 0x511);
		ck_assert_msg(strcmp(last, (char *)entry + 8) < 0, "%s before %s", last, (char *)entry + 8);
		strcpy(last, (char *)entry + 8);
		ck_assert_uint_eq(get_be16(entry + 4), 0x20 + i);
	}
	bench_free(b);
}
END_TEST

START_TEST(user_files_are_seen)
{
	struct board *b = bench_new("-m 16 -fw_cfg name=opt/org.test/text,string=hello -fw_cfg opt/short,string=x,,y");
	uint32_t len;
	uint8_t *f = fw_file(b, "opt/org.test/text", &len);

	ck_assert_uint_eq(len, 5);
	ck_assert_str_eq((char *)f, "hello");
	free(f);
	f = fw_file(b, "opt/short", &len);
	ck_assert_str_eq((char *)f, "x,y");
	free(f);
	bench_free(b);
}
END_TEST

START_TEST(bad_user_files_are_refused)
{
	static const struct {
		const char *option, *says;
	} bad[] = {
		{"-fw_cfg string=x", "name="},
		{"-fw_cfg name=opt/a", "file=FILE"},
		{"-fw_cfg name=opt/a,string=x,file=/dev/null", "one of"},
		{"-fw_cfg name=opt/a,strin=x", "'string'"},
		{"-fw_cfg name=opt/a,file=/nonexistent", "/nonexistent"},
		{"-fw_cfg name=opt/a,file=/tmp", "regular file"},
		{"-fw_cfg name=opt/a,string=x -fw_cfg name=opt/a,string=y", "already"},
		{"-fw_cfg name=opt/a123456789b123456789c123456789d123456789e123456789f1,string=x", "characters"},
	};
	char options[256];

	snprintf(options, sizeof(options), "-m 16 %s", bad[_i].option);
	const char *msg = bench_new_fails(options);
	ck_assert_msg(strstr(msg, bad[_i].says), "'%s' does not say '%s'", msg, bad[_i].says);
}
END_TEST

START_TEST(dma_selects_reads_and_skips)
{
	struct board *b = bench_new("-m 16 -fw_cfg name=opt/t,string=0123456789");
	uint16_t key;
	uint32_t len;
	char buf[16];

	ck_assert(fw_find(b, "opt/t", &key, &len));
	memset(buf, 'x', sizeof(buf));
	bench_write(b, 0x8000, buf, sizeof(buf));
	ck_assert_uint_eq(fw_dma(b, (uint32_t)key << 16 | FW_SELECT | FW_SKIP, 3, 0), 0);
	ck_assert_uint_eq(fw_dma(b, FW_READ, 4, 0x8000), 0);
	bench_read(b, 0x8000, buf, 8);
	ck_assert_mem_eq(buf, "3456xxxx", 8);
	ck_assert_uint_eq(bench_inb(b, 0x511), '7'); /* one position for both ways */
	ck_assert_uint_eq(fw_dma(b, FW_READ, 8, 0x8000), 0);
	bench_read(b, 0x8000, buf, 10);
	ck_assert_mem_eq(buf, "89\0\0\0\0\0\0xx", 10); /* zeros behind the end */
	ck_assert_uint_eq(fw_dma(b, (uint32_t)key << 16 | FW_SELECT, 0, 0), 0);
	ck_assert_uint_eq(bench_inb(b, 0x511), '0');
	bench_free(b);
}
END_TEST

START_TEST(dma_errors_are_reported)
{
	struct board *b = bench_new("-m 16 -fw_cfg name=opt/t,string=0123456789");
	uint16_t key;
	uint32_t len;

	ck_assert(fw_find(b, "opt/t", &key, &len));
	uint32_t select = (uint32_t)key << 16 | FW_SELECT;
	ck_assert_uint_eq(fw_dma(b, select | FW_READ, 4, 0x123456789000), FW_ERROR);
	ck_assert_uint_eq(fw_dma(b, select | FW_READ, 4, 16 * MIB - 2), FW_ERROR);
	ck_assert_uint_eq(fw_dma(b, select | FW_READ, 0xffffffff, 0x8000), FW_ERROR);
	ck_assert_uint_eq(fw_dma(b, select | FW_WRITE, 4, 0x8000), FW_ERROR); /* read-only */
	/* A descriptor that is nowhere: nothing happens, and the next request works */
	bench_outl(b, 0x514, 0xffffffff);
	bench_outl(b, 0x518, 0xffffffff);
	ck_assert_uint_eq(fw_dma(b, select | FW_READ, 4, 0x8000), 0);
	ck_assert_uint_eq(bench_readl(b, 0x8000), get_le32("0123"));
	bench_free(b);
}
END_TEST

static unsigned written_calls;
static void written(void *opaque, const uint8_t *data, size_t len)
{
	written_calls++;
	memcpy(opaque, data, len);
}

START_TEST(writable_file_takes_dma_writes)
{
	struct board *b = bench_new("-m 16");
	uint8_t got[8] = {0};
	uint16_t key;
	uint32_t len;

	ck_assert_int_eq(fw_cfg_add_writable(b, "etc/test", "abcdefgh", 8, written, got, NULL), 0);
	ck_assert(fw_find(b, "etc/test", &key, &len));
	bench_write(b, 0x8000, "WXYZ", 4);
	ck_assert_uint_eq(fw_dma(b, (uint32_t)key << 16 | FW_SELECT | FW_SKIP, 2, 0), 0);
	ck_assert_uint_eq(fw_dma(b, FW_WRITE, 4, 0x8000), 0);
	ck_assert_uint_eq(written_calls, 1);
	ck_assert_mem_eq(got, "abWXYZgh", 8);
	ck_assert_uint_eq(fw_dma(b, FW_WRITE, 4, 0x8000), FW_ERROR); /* would reach beyond the end */
	ck_assert_uint_eq(written_calls, 1);
	fw_read_key(b, key, got, 8);
	ck_assert_mem_eq(got, "abWXYZgh", 8);
	bench_free(b);
}
END_TEST

/* The guest's kernel tells where its note is; that travels, and a reset forgets it. */
START_TEST(vmcoreinfo_is_the_guests_to_write)
{
	struct board *b = bench_new("-m 16 -device vmcoreinfo");
	static const uint8_t told[] = {0, 0, 1, 0, 0, 2, 0, 0, 0, 0x50, 0x34, 0x12, 0, 0, 0, 0};
	uint8_t file[VMCOREINFO_SIZE];
	uint16_t key;
	uint32_t len;

	ck_assert_uint_eq(vmcoreinfo_get(b).format, VMCOREINFO_NONE);
	ck_assert(fw_find(b, "etc/vmcoreinfo", &key, &len));
	ck_assert_uint_eq(len, VMCOREINFO_SIZE);
	fw_read_key(b, key, file, len);
	ck_assert_mem_eq(file, "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", len);
	bench_write(b, 0x8000, told, sizeof(told));
	ck_assert_uint_eq(fw_dma(b, (uint32_t)key << 16 | FW_SELECT | FW_WRITE, sizeof(told), 0x8000), 0);
	for (int i = 0; i < 2; i++) {
		struct vmcoreinfo v = vmcoreinfo_get(b);
		ck_assert_uint_eq(v.format, VMCOREINFO_ELF);
		ck_assert_uint_eq(v.size, 0x200);
		ck_assert_uint_eq(v.addr, 0x12345000);
		b = bench_save_load(b);
	}
	bench_reset(b);
	ck_assert_uint_eq(vmcoreinfo_get(b).format, VMCOREINFO_NONE);
	fw_read_key(b, key, file, len);
	ck_assert_mem_eq(file, "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", len);
	bench_free(b);
	b = bench_new("-m 16");
	ck_assert(!fw_find(b, "etc/vmcoreinfo", &key, &len));
	ck_assert_uint_eq(vmcoreinfo_get(b).format, VMCOREINFO_NONE);
	bench_free(b);
	ck_assert_ptr_nonnull(strstr(bench_new_fails("-m 16 -device vmcoreinfo -device vmcoreinfo"), "at most one"));
}
END_TEST

START_TEST(update_replaces_contents)
{
	struct board *b = bench_new("-m 16 -fw_cfg name=opt/t,string=old");
	struct err e = ERR_INIT;
	uint32_t len;

	ck_assert_int_eq(fw_cfg_update(b, "opt/t", "newer", 5, &e), 0);
	uint8_t *f = fw_file(b, "opt/t", &len);
	ck_assert_str_eq((char *)f, "newer");
	free(f);
	ck_assert_int_lt(fw_cfg_update(b, "opt/none", "x", 1, &e), 0);
	ck_assert_int_lt(fw_cfg_add_item(b, 0, "x", 1, &e), 0);
	bench_free(b);
}
END_TEST

START_TEST(position_survives_save)
{
	struct board *b = bench_new("-m 16");

	bench_outw(b, 0x510, 0);
	bench_inb(b, 0x511);
	b = bench_save_load(b);
	ck_assert_uint_eq(bench_inb(b, 0x511), 'E');
	bench_reset(b);
	ck_assert_uint_eq(bench_inb(b, 0x511), 'Q');
	bench_free(b);
}
END_TEST

START_TEST(boot_order_names_devices)
{
	struct board *b = bench_new("-m 16 -global isa-fdc.bootindexB=5 -global isa-fdc.bootindexA=7 -boot strict=on");
	uint32_t len;
	uint8_t *f = fw_file(b, "bootorder", &len);

	ck_assert_str_eq((char *)f, "/pci@i0cf8/isa@1/fdc@03f0/floppy@1\n/pci@i0cf8/isa@1/fdc@03f0/floppy@0\nHALT");
	free(f);
	bench_free(b);
}
END_TEST

START_TEST(boot_order_finds_ide_drives)
{
	char path[] = "/tmp/vmm-boot-XXXXXX", options[512];
	int fd = mkstemp(path);
	uint32_t len;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, MIB), 0);
	close(fd);
	snprintf(options, sizeof(options),
		 "-m 16 -drive if=none,id=a,file=%s,format=raw,readonly=on -drive "
		 "if=none,id=b,file=%s,format=raw,readonly=on "
		 "-device ide-cd,bus=ide.1,unit=1,drive=a,bootindex=3,id=cd -device ide-cd,drive=b,bootindex=1",
		 path, path);
	struct board *b = bench_new(options);
	uint8_t *f = fw_file(b, "bootorder", &len);
	ck_assert_str_eq((char *)f, "/pci@i0cf8/ide@1,1/drive@0/disk@0\n/pci@i0cf8/ide@1,1/drive@1/disk@1");
	free(f);
	bench_free(b);
	unlink(path);
}
END_TEST

START_TEST(one_bootindex_for_two_devices_is_refused)
{
	const char *msg = bench_new_fails("-m 16 -global isa-fdc.bootindexA=5 -global isa-fdc.bootindexB=5");

	ck_assert_ptr_nonnull(strstr(msg, "bootindex=5"));
}
END_TEST

START_TEST(system_states_follow_the_options)
{
	struct board *b = bench_new("-m 16 -global PIIX4_PM.disable_s3=1");
	uint32_t len;
	uint8_t *f = fw_file(b, "etc/system-states", &len);

	ck_assert_uint_eq(len, 6);
	ck_assert_uint_eq(f[3], 0x01);
	ck_assert_uint_eq(f[4], 0x82);
	free(f);
	bench_free(b);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("fw_cfg");

	tcase_add_test(t, signature_and_features);
	tcase_add_test(t, items_tell_ram_cpus_and_menu);
	tcase_add_test(t, directory_is_sorted);
	tcase_add_test(t, user_files_are_seen);
	tcase_add_loop_test(t, bad_user_files_are_refused, 0, 8);
	tcase_add_test(t, dma_selects_reads_and_skips);
	tcase_add_test(t, dma_errors_are_reported);
	tcase_add_test(t, writable_file_takes_dma_writes);
	tcase_add_test(t, vmcoreinfo_is_the_guests_to_write);
	tcase_add_test(t, update_replaces_contents);
	tcase_add_test(t, position_survives_save);
	tcase_add_test(t, boot_order_names_devices);
	tcase_add_test(t, boot_order_finds_ide_drives);
	tcase_add_test(t, one_bootindex_for_two_devices_is_refused);
	tcase_add_test(t, system_states_follow_the_options);
	return run_suite("fw_cfg", (TCase *[]){t, NULL});
}
