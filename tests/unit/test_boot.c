/*
 * Kernel image parsers: what they accept, where things go, and one clear sentence for everything else. No machine.
 */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>

#include "src/machine/boot.h"
#include "tests/lib/suite.h"

#define RAM (64 * MIB)

static uint8_t image[65536];
static struct boot_image out;

static void refused(size_t len, uint64_t ram, const char *expect)
{
	struct err e = ERR_INIT;

	ck_assert_msg(boot_parse(image, len, ram, &out, &e) < 0, "accepted; expected: %s", expect);
	ck_assert_msg(strstr(e.msg, expect), "'%s' lacks '%s'", e.msg, expect);
	ck_assert_ptr_null(strchr(e.msg, '\n'));
}

static void accepted(size_t len, uint64_t ram, enum boot_kind kind)
{
	struct err e = ERR_INIT;

	ck_assert_msg(boot_parse(image, len, ram, &out, &e) == 0, "%s", e.msg);
	ck_assert_int_eq(out.kind, kind);
}

static void make_bzimage(void)
{
	memset(image, 0, sizeof(image));
	image[0x1f1] = 4;
	put_le32(image + 0x1f4, 0x1000 / 16);
	put_le16(image + 0x1fe, 0xaa55);
	image[0x200] = 0xeb;
	image[0x201] = 0x66;
	memcpy(image + 0x202, "HdrS", 4);
	put_le16(image + 0x206, 0x20f);
	image[0x211] = 1;
	put_le32(image + 0x22c, 0x7fffffff);
	put_le32(image + 0x230, 2 << 20);
	image[0x234] = 1;
	put_le16(image + 0x236, 1);
	put_le32(image + 0x238, 2047);
	put_le64(image + 0x258, 16 << 20);
	put_le32(image + 0x260, 8 << 20);
}
#define BZ_LEN (5 * 512 + 0x1000)

START_TEST(bzimage)
{
	make_bzimage();
	accepted(BZ_LEN, RAM, BOOT_LINUX);
	ck_assert_uint_eq(out.start, 16 * MIB);
	ck_assert_uint_eq(out.end, 24 * MIB);
	ck_assert_uint_eq(out.segment[0].offset, 5 * 512);
	ck_assert_uint_eq(out.segment[0].file_len, 0x1000);
	ck_assert(out.bzimage.entry64);
	ck_assert_uint_eq(out.bzimage.cmdline_max, 2047);
	accepted(BZ_LEN, 20 * MIB, BOOT_LINUX); /* not where it would like to be */
	ck_assert_uint_eq(out.start, 2 * MIB);
	image[0x234] = 0;
	accepted(BZ_LEN, RAM, BOOT_LINUX);
	ck_assert_uint_eq(out.start, MIB);
	make_bzimage();
	refused(BZ_LEN, 4 * MIB, "-m");
	refused(BZ_LEN - 100, RAM, "cut off");
	refused(5 * 512, RAM, "cut off");
	put_le16(image + 0x206, 0x201);
	refused(BZ_LEN, RAM, "too old");
	make_bzimage();
	image[0x211] = 0;
	refused(BZ_LEN, RAM, "zImage");
}
END_TEST

static Elf32_Phdr *make_elf(void)
{
	Elf32_Ehdr *h = (Elf32_Ehdr *)image;
	Elf32_Phdr *p = (Elf32_Phdr *)(image + sizeof(*h));

	memset(image, 0, sizeof(image));
	memcpy(h->e_ident, ELFMAG, SELFMAG);
	h->e_ident[EI_CLASS] = ELFCLASS32;
	h->e_ident[EI_DATA] = ELFDATA2LSB;
	h->e_machine = EM_386;
	h->e_entry = 0x100010;
	h->e_phoff = sizeof(*h);
	h->e_phentsize = sizeof(*p);
	h->e_phnum = 2;
	p[0] = (Elf32_Phdr){
		.p_type = PT_LOAD, .p_offset = 0x1000, .p_paddr = 0x100000, .p_filesz = 0x1000, .p_memsz = 0x3000};
	p[1] = (Elf32_Phdr){.p_type = PT_NOTE, .p_offset = 0x800, .p_filesz = 20};
	put_le32(image + 0x800, 4);
	put_le32(image + 0x804, 4);
	put_le32(image + 0x808, 18);
	memcpy(image + 0x80c, "Xen", 4);
	put_le32(image + 0x810, 0x100020);
	return p;
}
#define ELF_LEN 0x2000

START_TEST(pvh)
{
	Elf32_Phdr *p = make_elf();

	accepted(ELF_LEN, RAM, BOOT_PVH);
	ck_assert_uint_eq(out.entry, 0x100020);
	ck_assert_uint_eq(out.start, 0x100000);
	ck_assert_uint_eq(out.end, 0x103000);
	put_le32(image + 0x810, 0x200000);
	refused(ELF_LEN, RAM, "entry point 0x200000");
	p = make_elf();
	p[0].p_paddr = 0xb8000;
	refused(ELF_LEN, RAM, "0xb8000");
	p = make_elf();
	p[0].p_paddr = 0x9f000; /* runs into the VGA */
	refused(ELF_LEN, RAM, "0x9f000");
	p = make_elf();
	p[0].p_memsz = 0xfffffff0;
	refused(ELF_LEN, RAM, "-m");
	p = make_elf();
	p[0].p_filesz = 0x1001;
	refused(ELF_LEN, RAM, "cut off");
	p = make_elf();
	p[0].p_offset = 0xffffffff;
	refused(ELF_LEN, RAM, "cut off");
	p = make_elf();
	p[0].p_memsz = 0x10;
	refused(ELF_LEN, RAM, "larger in the file");
	p = make_elf();
	p[0].p_type = PT_NULL;
	refused(ELF_LEN, RAM, "nothing to load");
	make_elf();
	put_le32(image + 0x804, 0xfffffff0); /* a note beyond its segment */
	refused(ELF_LEN, RAM, "no kernel");
	make_elf();
	((Elf32_Ehdr *)image)->e_machine = EM_ARM;
	refused(ELF_LEN, RAM, "no kernel");
	make_elf();
	((Elf32_Ehdr *)image)->e_phnum = 0xffff;
	refused(ELF_LEN, RAM, "no kernel");
}
END_TEST

static void put_multiboot(size_t at, uint32_t flags)
{
	put_le32(image + at, 0x1badb002);
	put_le32(image + at + 4, flags);
	put_le32(image + at + 8, 0u - 0x1badb002 - flags);
}

START_TEST(multiboot)
{
	Elf32_Phdr *p = make_elf();

	p[1].p_type = PT_NULL;
	put_multiboot(0x1000, 3);
	accepted(ELF_LEN, RAM, BOOT_MULTIBOOT);
	ck_assert_uint_eq(out.entry, 0x100010);
	put_multiboot(0x1000, 8);
	refused(ELF_LEN, RAM, "features nobody defined");
	put_multiboot(0x1000, 3);
	((Elf32_Ehdr *)image)->e_entry = 0x500000;
	refused(ELF_LEN, RAM, "entry point");

	memset(image, 0, sizeof(image)); /* its own addresses: header at 0x200 of the file is at 1 MiB + 0x100 */
	put_multiboot(0x200, 0x10000);
	put_le32(image + 0x20c, 0x100100);
	put_le32(image + 0x210, 0x100000);
	put_le32(image + 0x214, 0x100800);
	put_le32(image + 0x218, 0x102000);
	put_le32(image + 0x21c, 0x100040);
	accepted(ELF_LEN, RAM, BOOT_MULTIBOOT);
	ck_assert_uint_eq(out.segment[0].offset, 0x100);
	ck_assert_uint_eq(out.segment[0].file_len, 0x800);
	ck_assert_uint_eq(out.segment[0].mem_len, 0x2000);
	put_le32(image + 0x210, 0x0ff000);
	refused(ELF_LEN, RAM, "before the file");
	put_le32(image + 0x210, 0x100000);
	put_le32(image + 0x214, 0x108000);
	refused(ELF_LEN, RAM, "cut off");
	put_le32(image + 0x214, 0x0f0000);
	refused(ELF_LEN, RAM, "before it begins");
	memset(image, 0, sizeof(image));
	put_multiboot(0x200, 0);
	refused(ELF_LEN, RAM, "nor an ELF header");
	memset(image, 0, sizeof(image));
	put_multiboot(8192, 3); /* too late in the file */
	refused(sizeof(image), RAM, "no kernel");
}
END_TEST

START_TEST(not_a_kernel)
{
	memset(image, 'x', sizeof(image));
	for (size_t len = 0; len < 600; len++)
		refused(len, RAM, "no kernel");
	refused(sizeof(image), RAM, "bzImage");
}
END_TEST

/* Every byte of a good image, damaged: never out of bounds (ASan) and never a segment outside of RAM or file. */
START_TEST(damaged)
{
	for (unsigned kind = 0; kind < 2; kind++) {
		size_t len = kind ? BZ_LEN : ELF_LEN;

		for (size_t at = 0; at < 0x900; at++) {
			for (unsigned v = 0; v < 256; v += 51) {
				if (kind)
					make_bzimage();
				else
					make_elf();
				image[at] = (uint8_t)v;
				if (boot_parse(image, len, RAM, &out, NULL) < 0)
					continue;
				for (unsigned i = 0; i < out.n_segments; i++) {
					const struct boot_segment *s = &out.segment[i];

					ck_assert(s->gpa + s->mem_len <= RAM && s->file_len <= s->mem_len);
					ck_assert(s->offset + s->file_len <= len);
				}
			}
		}
	}
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("all");

	tcase_set_timeout(c, 30);
	tcase_add_test(c, bzimage);
	tcase_add_test(c, pvh);
	tcase_add_test(c, multiboot);
	tcase_add_test(c, not_a_kernel);
	tcase_add_test(c, damaged);
	return run_suite("boot", (TCase *[]){c, NULL});
}
