/* SMBIOS tables as a guest's dmidecode parses them. */
#include "fwcfg_client.h"

#include <stdio.h>
#include <unistd.h>

struct tables {
	uint8_t *data;
	uint32_t len;
};

static struct tables load(struct board *b)
{
	struct tables t;
	uint32_t anchor_len;
	uint8_t *a = fw_file(b, "etc/smbios/smbios-anchor", &anchor_len);

	t.data = fw_file(b, "etc/smbios/smbios-tables", &t.len);
	ck_assert_uint_eq(anchor_len, 31);
	ck_assert_mem_eq(a, "_SM_", 4);
	ck_assert_mem_eq(a + 16, "_DMI_", 5);
	ck_assert_uint_eq(get_le16(a + 22), t.len);
	/* As many structures as the entry point says, the last one of type 127, none longer than announced */
	uint32_t at = 0, n = 0;
	uint8_t type = 0;
	while (at < t.len) {
		uint32_t start = at;
		type = t.data[at];
		ck_assert_uint_ge(t.data[at + 1], 4);
		at += t.data[at + 1];
		while (t.data[at] || t.data[at + 1])
			at++;
		at += 2;
		ck_assert_uint_le(at - start, get_le16(a + 8));
		n++;
	}
	ck_assert_uint_eq(at, t.len);
	ck_assert_uint_eq(n, get_le16(a + 28));
	ck_assert_uint_eq(type, 127);
	free(a);
	return t;
}

/* The n-th structure of this type, or NULL. */
static const uint8_t *structure(const struct tables *t, uint8_t type, unsigned n)
{
	for (uint32_t at = 0; at < t->len;) {
		if (t->data[at] == type && n-- == 0)
			return t->data + at;
		at += t->data[at + 1];
		while (t->data[at] || t->data[at + 1])
			at++;
		at += 2;
	}
	return NULL;
}

/* The string whose number is at offset; "" if it has none. */
static const char *text(const uint8_t *s, unsigned offset)
{
	const char *p = (const char *)s + s[1];

	if (!s[offset])
		return "";
	for (unsigned i = 1; i < s[offset]; i++)
		p += strlen(p) + 1;
	return p;
}

START_TEST(defaults_describe_the_machine)
{
	struct board *b = bench_new("-m 512 -smp 4,sockets=2,cores=2 -uuid 00112233-4455-6677-8899-aabbccddeeff");
	struct tables t = load(b);
	const uint8_t *s = structure(&t, 1, 0);

	ck_assert_str_eq(text(s, 4), "QEMU");
	ck_assert_str_eq(text(s, 6), "pc-i440fx-7.2");
	ck_assert_mem_eq(s + 8, "\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff", 16);
	ck_assert_ptr_null(structure(&t, 0, 0)); /* SeaBIOS has its own */
	ck_assert_ptr_null(structure(&t, 2, 0));
	ck_assert_ptr_nonnull(structure(&t, 3, 0));
	ck_assert_ptr_nonnull(structure(&t, 4, 1));
	ck_assert_ptr_null(structure(&t, 4, 2));
	s = structure(&t, 4, 1);
	ck_assert_str_eq(text(s, 4), "CPU 1");
	ck_assert_uint_eq(s[0x23], 2); /* cores */
	s = structure(&t, 16, 0);
	ck_assert_uint_eq(get_le32(s + 7), 512 * 1024);
	s = structure(&t, 17, 0);
	ck_assert_uint_eq(get_le16(s + 0xc), 512);
	ck_assert_str_eq(text(s, 0x10), "DIMM 0");
	s = structure(&t, 19, 0);
	ck_assert_uint_eq(get_le32(s + 4), 0);
	ck_assert_uint_eq(get_le32(s + 8), 512 * 1024 - 1);
	ck_assert_ptr_nonnull(structure(&t, 32, 0));
	free(t.data);
	bench_free(b);
}
END_TEST

START_TEST(much_ram_is_spread_over_modules)
{
	struct board *b = bench_new("-m 40G");
	struct tables t = load(b);
	uint64_t mib = 0;

	for (unsigned i = 0; structure(&t, 17, i); i++) {
		const uint8_t *s = structure(&t, 17, i);
		mib += get_le16(s + 0xc) == 0x7fff ? get_le32(s + 0x1c) : get_le16(s + 0xc);
	}
	ck_assert_uint_eq(mib, 40 * 1024);
	ck_assert_uint_eq(get_le16(structure(&t, 16, 0) + 0xd), 3);
	/* RAM above 4 GiB has a range of its own */
	const uint8_t *s = structure(&t, 19, 1);
	ck_assert_uint_eq(get_le32(s + 4), 4 * 1024 * 1024);
	free(t.data);
	bench_free(b);
}
END_TEST

START_TEST(fields_are_set)
{
	struct board *b =
		bench_new("-m 64 -smbios type=0,vendor=Acme,version=v1,date=01/02/2003,release=4.5,uefi=on "
			  "-smbios type=1,manufacturer=M,product=P,version=V,serial=S,sku=K,family=F,"
			  "uuid=ffeeddcc-bbaa-9988-7766-554433221100 -smbios type=2,product=Board,location=Slot "
			  "-smbios type=3,asset=Tag -smbios type=4,sock_pfx=Socket,max-speed=3000,processor-id=0x1122 "
			  "-smbios type=11,value=one,value=two -smbios type=17,loc_pfx=Bank,speed=1600");
	struct tables t = load(b);
	const uint8_t *s = structure(&t, 0, 0);
	uint8_t uuid[16];

	ck_assert_str_eq(text(s, 4), "Acme");
	ck_assert_str_eq(text(s, 8), "01/02/2003");
	ck_assert_uint_eq(s[0x14], 4);
	ck_assert_uint_eq(s[0x15], 5);
	s = structure(&t, 1, 0);
	ck_assert_str_eq(text(s, 4), "M");
	ck_assert_str_eq(text(s, 5), "P");
	ck_assert_str_eq(text(s, 7), "S");
	ck_assert_str_eq(text(s, 0x19), "K");
	ck_assert_str_eq(text(s, 0x1a), "F");
	ck_assert_mem_eq(s + 8, "\xcc\xdd\xee\xff\xaa\xbb\x88\x99\x77\x66", 10);
	fw_read_key(b, 2, uuid, 16);
	ck_assert_mem_eq(uuid, "\xff\xee\xdd\xcc\xbb\xaa", 6);
	s = structure(&t, 2, 0);
	ck_assert_str_eq(text(s, 5), "Board");
	ck_assert_str_eq(text(s, 0xa), "Slot");
	ck_assert_str_eq(text(structure(&t, 3, 0), 8), "Tag");
	s = structure(&t, 4, 0);
	ck_assert_str_eq(text(s, 4), "Socket 0");
	ck_assert_uint_eq(get_le64(s + 8), 0x1122);
	ck_assert_uint_eq(get_le16(s + 0x14), 3000);
	s = structure(&t, 11, 0);
	ck_assert_uint_eq(s[4], 2);
	ck_assert_str_eq((const char *)s + 5, "one");
	ck_assert_str_eq((const char *)s + 9, "two");
	s = structure(&t, 17, 0);
	ck_assert_str_eq(text(s, 0x10), "Bank 0");
	ck_assert_uint_eq(get_le16(s + 0x15), 1600);
	free(t.data);
	bench_free(b);
}
END_TEST

START_TEST(structure_comes_from_a_file)
{
	static const uint8_t chassis[] =
		"\x03\x15\x34\x12\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0Mine"; /* one NUL lacks */
	char path[] = "/tmp/vmm-smbios-XXXXXX", options[128];
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, chassis, sizeof(chassis)), sizeof(chassis));
	close(fd);
	snprintf(options, sizeof(options), "-m 64 -smbios file=%s", path);
	struct board *b = bench_new(options);
	struct tables t = load(b);
	ck_assert_str_eq(text(structure(&t, 3, 0), 4), "Mine");
	ck_assert_ptr_null(structure(&t, 3, 1)); /* in place of the default one */
	free(t.data);
	bench_free(b);
	unlink(path);
}
END_TEST

START_TEST(bad_options_are_refused)
{
	static const char *const bad[][2] = {
		{"type=1,manufactuer=x", "'manufacturer'"},
		{"type=9,x=y", "type=9"},
		{"serial=x", "type="},
		{"type=1x", "type"},
		{"type=0,release=one", "release=one"},
		{"type=1,uuid=123", "uuid"},
		{"type=4,max-speed=70000", "max-speed"},
		{"type=11,text=x", "'text'"},
		{"file=/dev/null", "regular file"},
		{"file=/etc/hostname", "no SMBIOS structure"},
		{"file=/etc/hostname,type=1", "file="},
	};
	char options[128];

	snprintf(options, sizeof(options), "-m 64 -smbios %s", bad[_i][0]);
	const char *msg = bench_new_fails(options);
	ck_assert_msg(strstr(msg, bad[_i][1]), "'%s' does not say '%s'", msg, bad[_i][1]);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("smbios");

	tcase_add_test(t, defaults_describe_the_machine);
	tcase_add_test(t, much_ram_is_spread_over_modules);
	tcase_add_test(t, fields_are_set);
	tcase_add_test(t, structure_comes_from_a_file);
	tcase_add_loop_test(t, bad_options_are_refused, 0, 11);
	return run_suite("smbios", (TCase *[]){t, NULL});
}
