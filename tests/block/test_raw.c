/* Raw images as a user opens them: what is accepted, what is refused and in which words, what is stored. */
#include "block_test.h"

#include "vmm/fdset.h"

START_TEST(opens_and_stores)
{
	const char *p = image("a.raw", 1 << 20);
	struct block *b = drive("file=%s,format=raw,id=d0,serial=S1", p);
	char out[1536], in[1536];

	ck_assert_uint_eq(block_size(b), 1 << 20);
	ck_assert(!block_readonly(b) && block_inserted(b) && !block_is_cdrom(b));
	ck_assert_str_eq(block_id(b), "d0");
	ck_assert_str_eq(block_serial(b), "S1");
	ck_assert_str_eq(block_filename(b), p);
	ck_assert_ptr_eq(block_find("d0"), b);
	memset(out, 0x5a, sizeof(out));
	ck_assert_int_eq(block_pwrite(b, 4096, out, sizeof(out)), 0);
	ck_assert_int_eq(block_pwrite(b, 10001, "hello", 5), 0);
	ck_assert_int_eq(block_flush_sync(b), 0);
	get_bytes(p, 4096, in, sizeof(in));
	ck_assert_mem_eq(in, out, sizeof(in));
	ck_assert_int_eq(block_pread(b, 10000, in, 7), 0);
	ck_assert_mem_eq(in, "\0hello\0", 7);
	ck_assert_int_eq(block_pread(b, (1 << 20) - 512, in, 1024), -EIO);
	ck_assert_int_eq(block_pwrite(b, 1ull << 40, out, 512), -EIO);
}
END_TEST

START_TEST(refuses_bad_images_in_one_sentence)
{
	refused("No such file or directory", "file=%s,format=raw", path("missing"));
	refused("regular file, not a directory", "file=%s,format=raw", scratch);
	refused("is empty (0 bytes)", "file=%s,format=raw", image("empty", 0));
	refused("requires", "file=%s,format=raw", "/dev/null");
	ck_assert_int_eq(mkfifo(path("fifo"), 0600), 0);
	refused("to be a regular file", "file=%s,format=raw", path("fifo"));
	refused("Unknown protocol 'foo'", "file=foo:bar,format=raw");
	refused("block device", "file.driver=host_device,file.filename=%s,format=raw", image("a", 512));
}
END_TEST

START_TEST(refuses_bad_options_by_name)
{
	const char *p = image("a", 4096);

	refused("Unknown driver 'xx'", "file=%s,format=xx", p);
	refused("'qcow2' is not supported", "file=%s,format=qcow2", p);
	refused("invalid cache option 'foo'", "file=%s,format=raw,cache=foo", p);
	refused("requires cache.direct=on", "file=%s,format=raw,aio=native", p);
	refused("same time", "file=%s,format=raw,bps=100,bps_rd=1", p);
	refused("fromat", "file=%s,fromat=raw", p);
	refused("werror", "file=%s,format=raw,werror=maybe", p);
	refused("detect-zeroes to unmap", "file=%s,format=raw,detect-zeroes=unmap", p);
	refused("index cannot be used", "file=%s,format=raw,index=1,unit=0", p);
	refused("unit 2 too big", "file=%s,format=raw,unit=2", p);
}
END_TEST

START_TEST(places_drives_like_qemu)
{
	struct block *a = drive("file=%s,format=raw", image("a", 512)), *b = drive("media=cdrom"),
		     *c = drive("media=cdrom,index=2"), *d = drive("if=floppy,index=1"), *e = drive("media=cdrom");

	ck_assert_str_eq(block_id(a), "ide0-hd0");
	ck_assert_str_eq(block_id(b), "ide0-cd1");
	ck_assert_str_eq(block_id(c), "ide1-cd0");
	ck_assert_str_eq(block_id(d), "floppy1");
	ck_assert_str_eq(block_id(e), "ide1-cd1");
	ck_assert(block_place(e).interface == BLOCK_IF_IDE && block_place(e).bus == 1 && block_place(e).unit == 1);
	ck_assert(!block_inserted(b));
	refused("drive with bus=1, unit=0 (index=2) exists", "index=2");
	refused("Duplicate ID 'ide0-hd0'", "if=none,id=ide0-hd0");
}
END_TEST

START_TEST(odd_size_is_filled_up_with_zeroes)
{
	const char *p = image("odd", 1000);
	struct block *b = drive("file=%s,format=raw", p);
	char buf[512], want[512] = {0};
	struct stat st;

	put_bytes(p, 990, "0123456789", 10);
	ck_assert_uint_eq(block_size(b), 1024);
	ck_assert_int_eq(block_pread(b, 512, buf, 512), 0);
	memcpy(want + 990 - 512, "0123456789", 10);
	ck_assert_mem_eq(buf, want, 512);
	memset(buf, 7, 512);
	ck_assert_int_eq(block_pwrite(b, 512, buf, 512), 0);
	ck_assert_int_eq(stat(p, &st), 0);
	ck_assert_int_eq(st.st_size, 1024);
}
END_TEST

START_TEST(shrunk_image_fails_reads_instead_of_inventing_zeroes)
{
	const char *p = image("s", 65536);
	struct block *b = drive("file=%s,format=raw", p);
	char buf[4096];

	log_open("/dev/null", NULL);
	ck_assert_int_eq(truncate(p, 8192), 0);
	ck_assert_int_eq(block_pread(b, 0, buf, 4096), 0);
	ck_assert_int_eq(block_pread(b, 8192, buf, 4096), -EIO);
	ck_assert_int_eq(block_pread(b, 6144, buf, 4096), -EIO);
}
END_TEST

START_TEST(probed_raw_protects_block_0)
{
	const char *p = image("p", 8192);
	struct block *b;
	char boot[512] = {0};
	struct err e;

	log_open("/dev/null", NULL);
	b = try_drive(&e, "file=%s", p);
	ck_assert_ptr_nonnull(b);
	memcpy(boot, "QFI\xfb\0\0\0\3", 8);
	ck_assert_int_eq(block_pwrite(b, 0, boot, 512), -EPERM);
	ck_assert_int_eq(block_pwrite(b, 512, boot, 512), 0);
	memcpy(boot, "\xeb\x3c\x90MSDOS5.0", 11);
	ck_assert_int_eq(block_pwrite(b, 0, boot, 512), 0);
	block_close(b);
	memcpy(boot, "QFI\xfb\0\0\0\3", 8);
	b = drive("file=%s,format=raw", p);
	ck_assert_int_eq(block_pwrite(b, 0, boot, 512), 0);
	block_close(b);
	refused("is in format 'qcow2'", "file=%s", p);
}
END_TEST

START_TEST(readonly_means_readonly)
{
	const char *p = image("r", 4096);
	struct block *b = drive("file=%s,format=raw,readonly=on,id=x", p);

	ck_assert(block_readonly(b));
	ck_assert_int_eq(block_pwrite(b, 0, "x", 1), -EPERM);
	block_close(b);
	b = drive("file=%s,format=raw,media=cdrom,id=y", p);
	ck_assert(block_readonly(b) && block_is_cdrom(b));
}
END_TEST

START_TEST(cache_modes)
{
	static const struct {
		const char *mode;
		bool writeback, direct, no_flush;
	} t[] = {
		{"writeback", true, false, false},     {"none", true, true, false},
		{"writethrough", false, false, false}, {"directsync", false, true, false},
		{"unsafe", true, false, true},
	};
	const char *p = image("c", 65536);

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct block *b = drive("file=%s,format=raw,cache=%s", p, t[i].mode);
		struct block_info info;
		char buf[1024];

		block_get_info(b, &info);
		ck_assert_int_eq(info.writeback, t[i].writeback);
		ck_assert_int_eq(info.direct, t[i].direct);
		ck_assert_int_eq(info.no_flush, t[i].no_flush);
		ck_assert_int_eq(block_pwrite(b, 512, "abc", 3), 0);
		ck_assert_int_eq(block_flush_sync(b), 0);
		ck_assert_int_eq(block_pread(b, 512, buf, 3), 0);
		ck_assert_mem_eq(buf, "abc", 3);
		block_close(b);
	}
}
END_TEST

START_TEST(fdset_paths)
{
	const char *p = image("f", 4096);
	int fd = open(p, O_RDWR);
	struct block *b;
	struct err e;

	ck_assert_int_eq(fdset_add(7, fd, NULL, NULL), 7);
	b = drive("file=/dev/fdset/7,format=raw,id=z");
	ck_assert_int_eq(block_pwrite(b, 0, "fdset", 5), 0);
	block_close(b);
	ck_assert_ptr_null(try_drive(&e, "file=/dev/fdset/8,format=raw"));
	ck_assert_ptr_nonnull(strstr(e.msg, "/dev/fdset/8"));
}
END_TEST

static struct block *try_blockdev(const char *text, struct err *e)
{
	struct opts o = {0};
	struct block *b;

	ck_assert_int_eq(opts_parse(&o, text, "driver", e), 0);
	b = block_open_blockdev(&o, e);
	opts_free(&o);
	return b;
}

START_TEST(blockdev_as_libvirt_writes_it)
{
	struct err e = ERR_INIT;
	char text[512], buf[4];
	struct block *f, *r;

	snprintf(text, sizeof(text),
		 "{\"driver\":\"file\",\"filename\":\"%s\",\"node-name\":\"libvirt-1-storage\","
		 "\"auto-read-only\":true,\"discard\":\"unmap\"}",
		 image("l", 65536));
	f = try_blockdev(text, &e);
	ck_assert_msg(f != NULL, "%s", e.msg);
	r = try_blockdev("{\"node-name\":\"libvirt-1-format\",\"read-only\":false,\"discard\":\"unmap\","
			 "\"driver\":\"raw\",\"file\":\"libvirt-1-storage\"}",
			 &e);
	ck_assert_msg(r != NULL, "%s", e.msg);
	ck_assert_ptr_eq(block_find("libvirt-1-format"), r);
	ck_assert_uint_eq(block_size(r), 65536);
	ck_assert(block_discard_enabled(r));
	ck_assert_int_eq(block_pwrite(r, 0, "raw", 4), 0);
	ck_assert_int_eq(block_pread(f, 0, buf, 4), 0);
	ck_assert_str_eq(buf, "raw");
	ck_assert_int_eq(block_claim(f, "dev", &e), -EBUSY);
	ck_assert_ptr_null(try_blockdev("driver=raw,node-name=x,file=nothing", &e));
	ck_assert_ptr_nonnull(strstr(e.msg, "Cannot find node 'nothing'"));
	ck_assert_ptr_null(try_blockdev("driver=raw,node-name=libvirt-1-format,file=nothing", &e));
	ck_assert_ptr_nonnull(strstr(e.msg, "Duplicate nodes"));
	block_close(r);
	ck_assert_int_eq(block_claim(f, "dev", &e), 0);
}
END_TEST

START_TEST(exclusive_to_one_device)
{
	struct block *b = drive("file=%s,format=raw,id=d", image("a", 512));
	struct err e = ERR_INIT;

	ck_assert_int_eq(block_claim(b, "ide0", NULL), 0);
	ck_assert_int_eq(block_claim(b, "ide1", &e), -EBUSY);
	ck_assert_ptr_nonnull(strstr(e.msg, "'ide0'"));
	block_release(b);
	ck_assert_int_eq(block_claim(b, "ide1", NULL), 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		opens_and_stores,
		refuses_bad_images_in_one_sentence,
		refuses_bad_options_by_name,
		places_drives_like_qemu,
		odd_size_is_filled_up_with_zeroes,
		shrunk_image_fails_reads_instead_of_inventing_zeroes,
		probed_raw_protects_block_0,
		readonly_means_readonly,
		cache_modes,
		fdset_paths,
		blockdev_as_libvirt_writes_it,
		exclusive_to_one_device,
	};

	return run_tests("raw", tests, ARRAY_SIZE(tests));
}
