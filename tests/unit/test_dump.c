/* Core files without a machine: page-table walks over tables made by hand, and the ELF file itself. */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "src/control/dump.h"
#include "src/control/kdump.h"
#include "src/control/work.h"
#include "tests/lib/suite.h"
#include "vmm/bytes.h"

#define RAM  (4 * MIB)
#define PAGE 4096ull

static uint8_t *ram;
static struct dump d;
static struct dump_maps maps;
static struct cpu_regs regs;

static void setup(void)
{
	ram = xzalloc(RAM);
	d = (struct dump){.ram = {{.gpa = 0, .size = 3 * MIB, .host = ram},
				  {.gpa = 1ull << 32, .size = 1 * MIB, .host = ram + 3 * MIB}},
			  .n_ram = 2};
	maps = (struct dump_maps){0};
	regs = (struct cpu_regs){.cr0 = CPU_CR0_PE | CPU_CR0_PG, .cr3 = 0x1000};
}

static void teardown(void)
{
	free(ram);
	free(maps.v);
}

static void entry(uint64_t table, unsigned i, uint64_t value)
{
	put_le64(ram + table + 8 * i, value);
}

static void expect(size_t i, uint64_t linear, uint64_t physical, uint64_t size)
{
	ck_assert_uint_lt(i, maps.n);
	ck_assert_uint_eq(maps.v[i].linear, linear);
	ck_assert_uint_eq(maps.v[i].physical, physical);
	ck_assert_uint_eq(maps.v[i].size, size);
}

static void walk(size_t ranges)
{
	struct err e = ERR_INIT;

	ck_assert_msg(!dump_walk(&d, &regs, &maps, &e), "%s", e.msg);
	dump_maps_tidy(&maps);
	ck_assert_uint_eq(maps.n, ranges);
}

static void long_mode(bool five)
{
	regs.efer = CPU_EFER_LMA;
	regs.cr4 = CPU_CR4_PAE | (five ? CPU_CR4_LA57 : 0);
}

/* PML4 at 0x1000: [0] -> 0x2000 -> 0x3000 -> page table 0x4000; [511] -> 0x5000 -> 0x6000. */
static void four_levels(uint64_t root)
{
	entry(root, 0, 0x2003);
	entry(0x2000, 0, 0x3003);
	entry(0x2000, 1, (1ull << 32) | 0x83); /* 1 GiB page, of which 1 MiB is RAM */
	entry(0x3000, 0, 0x4003);
	entry(0x4000, 5, 0x10003);
	entry(0x4000, 6, 0x11003); /* goes on where the last one ended */
	entry(0x4000, 7, 0x20003 | 1ull << 63);
	entry(0x4000, 9, 0xfee00003);   /* a device */
	entry(0x4000, 10, 0x300000002); /* not present */
	entry(root, 511, 0x5003);
	entry(0x5000, 510, 0x6003);
	entry(0x6000, 0, 0x200083); /* 2 MiB page, of which 1 MiB is RAM */
}

START_TEST(test_four_levels)
{
	four_levels(0x1000);
	long_mode(false);
	walk(4);
	expect(0, 0x5000, 0x10000, 0x2000);
	expect(1, 0x7000, 0x20000, 0x1000);
	expect(2, 0x40000000, 1ull << 32, 1 * MIB);
	expect(3, 0xffffffff80000000, 0x200000, 1 * MIB);
}
END_TEST

START_TEST(test_five_levels)
{
	four_levels(0x7000);
	entry(0x1000, 0, 0x7003);
	entry(0x1000, 511, 0x7003);
	long_mode(true);
	walk(8);
	expect(0, 0x5000, 0x10000, 0x2000);
	expect(3, 0xff8000000000 + 0x7f80000000, 0x200000, 1 * MIB); /* not the top level: no sign here */
	expect(4, 0xffff000000005000, 0x10000, 0x2000);
	expect(7, 0xffffffff80000000, 0x200000, 1 * MIB);
}
END_TEST

START_TEST(test_pae)
{
	entry(0x1000, 3, 0x2001);
	entry(0x2000, 1, 0x3003);
	entry(0x2000, 2, (1ull << 32) | 0x83);
	entry(0x3000, 511, 0x15003);
	regs.cr4 = CPU_CR4_PAE;
	walk(2);
	expect(0, 0xc03ff000, 0x15000, 0x1000);
	expect(1, 0xc0400000, 1ull << 32, 1 * MIB);
}
END_TEST

START_TEST(test_32_bit)
{
	put_le32(ram + 0x1000 + 4 * 768, 0x2003);
	put_le32(ram + 0x2000 + 4 * 1023, 0x8003);
	put_le32(ram + 0x1000 + 4 * 1, 0x0083);         /* 4 MiB, of which 3 MiB are RAM */
	put_le32(ram + 0x1000 + 4 * 2, 1 << 13 | 0x83); /* PSE-36: at 4 GiB */
	regs.cr4 = CPU_CR4_PSE;
	walk(3);
	expect(0, 0x400000, 0, 3 * MIB);
	expect(1, 0x800000, 1ull << 32, 1 * MIB);
	expect(2, 0xc03ff000, 0x8000, 0x1000);
}
END_TEST

START_TEST(test_no_paging)
{
	regs.cr0 = CPU_CR0_PE;
	walk(2);
	expect(0, 0, 0, 3 * MIB);
	expect(1, 1ull << 32, 1ull << 32, 1 * MIB);
}
END_TEST

/* A table whose entries all lead back to itself would be 2^36 pages. */
START_TEST(test_circles)
{
	struct err e = ERR_INIT;

	for (unsigned i = 0; i < 512; i++)
		entry(0x1000, i, 0x1003);
	long_mode(false);
	ck_assert_int_eq(dump_walk(&d, &regs, &maps, &e), -E2BIG);
	ck_assert(strstr(e.msg, "circles"));
}
END_TEST

START_TEST(test_wild_root)
{
	long_mode(false);
	regs.cr3 = 0x000ffffffffff000;
	walk(0);
	regs.cr4 = 0;
	regs.efer = 0;
	regs.cr3 = 3 * MIB - 0x800; /* half of the directory is there */
	walk(0);
}
END_TEST

/* ---- the file ---- */

static uint8_t *written;
static size_t written_size;

static void write_core(bool sparse)
{
	struct work w = {0};
	struct err e = ERR_INIT;
	int fd = memfd_create("core", 0);

	dump_measure(&d);
	ck_assert_msg(!dump_write(&d, &w, fd, sparse, &e), "%s", e.msg);
	ck_assert_uint_eq(d.done, d.total);
	written_size = (size_t)lseek(fd, 0, SEEK_END);
	written = mmap(NULL, written_size, PROT_READ, MAP_PRIVATE, fd, 0);
	ck_assert(written != MAP_FAILED);
	close(fd);
}

static const Elf64_Phdr *header(unsigned i)
{
	const Elf64_Ehdr *h = (const Elf64_Ehdr *)written;

	ck_assert_uint_lt(i, h->e_phnum);
	return (const Elf64_Phdr *)(written + h->e_phoff) + i;
}

START_TEST(test_core_physical)
{
	struct cpu_regs cpus[2] = {{.rip = 0x1111, .efer = CPU_EFER_LMA, .cr3 = 0x77000}, {.rip = 0x2222}};
	const Elf64_Ehdr *h;
	const uint8_t *note;

	cpus[1].gpr[CPU_RSP] = 0x3333;
	d.cpus = cpus;
	d.n_cpus = 2;
	memset(ram + 0x100000, 0xab, 0x1000);
	write_core(_i);
	h = (const Elf64_Ehdr *)written;
	ck_assert(!memcmp(h->e_ident, ELFMAG "\2\1\1", 7));
	ck_assert_uint_eq(h->e_type, ET_CORE);
	ck_assert_uint_eq(h->e_machine, EM_X86_64);
	ck_assert_uint_eq(h->e_phnum, 3);
	ck_assert_uint_eq(header(0)->p_type, PT_NOTE);
	ck_assert_uint_eq(header(0)->p_filesz, 2 * (20 + 336) + 2 * (20 + 440));
	note = written + header(0)->p_offset;
	ck_assert_str_eq((const char *)note + 12, "CORE");
	ck_assert_uint_eq(get_le32(note + 8), NT_PRSTATUS);
	ck_assert_uint_eq(get_le32(note + 20 + 32), 1);                /* pid */
	ck_assert_uint_eq(get_le64(note + 20 + 112 + 16 * 8), 0x1111); /* rip */
	ck_assert_uint_eq(get_le64(note + 356 + 20 + 112 + 19 * 8), 0x3333);
	ck_assert_str_eq((const char *)note + 2 * 356 + 12, "QEMU");
	ck_assert_uint_eq(get_le64(note + 2 * 356 + 20 + 8 + 18 * 8 + 240 + 24), 0x77000);
	ck_assert_uint_eq(header(1)->p_paddr, 0);
	ck_assert_uint_eq(header(1)->p_filesz, 3 * MIB);
	ck_assert_uint_eq(header(2)->p_paddr, 1ull << 32);
	ck_assert_uint_eq(written_size, header(2)->p_offset + 1 * MIB);
	ck_assert(!memcmp(written + header(1)->p_offset, ram, 3 * MIB));
	munmap(written, written_size);
}
END_TEST

START_TEST(test_core_paging_and_filter)
{
	struct cpu_regs cpu;

	four_levels(0x1000);
	long_mode(false);
	cpu = regs;
	d.cpus = &cpu;
	d.n_cpus = 1;
	d.paging = true;
	d.begin = 0x11000;
	d.length = 0x10000;
	memset(ram + 0x11000, 0x11, 0x1000);
	memset(ram + 0x20000, 0x22, 0x1000);
	write_core(false);
	ck_assert_uint_eq(((const Elf64_Ehdr *)written)->e_phnum, 3);
	ck_assert_uint_eq(header(1)->p_vaddr, 0x6000);
	ck_assert_uint_eq(header(1)->p_paddr, 0x11000);
	ck_assert_uint_eq(header(1)->p_filesz, 0x1000);
	ck_assert_uint_eq(written[header(1)->p_offset], 0x11);
	ck_assert_uint_eq(header(2)->p_vaddr, 0x7000);
	ck_assert_uint_eq(written[header(2)->p_offset], 0x22);
	munmap(written, written_size);
}
END_TEST

/* More mappings than e_phnum can count: section header 0 has the number. */
START_TEST(test_core_many_headers)
{
	struct cpu_regs cpu;
	const Elf64_Ehdr *h;

	entry(0x1000, 0, 0x2003);
	entry(0x2000, 0, 0x3003);
	for (unsigned t = 0; t < 160; t++) {
		entry(0x3000, t, (0x10000 + t * PAGE) | 3);
		for (unsigned i = 0; i < 512; i++)
			entry(0x10000 + t * PAGE, i, (i & 1 ? 0x1000u : 0x3000u) | 3);
	}
	long_mode(false);
	cpu = regs;
	d.cpus = &cpu;
	d.n_cpus = 1;
	d.paging = true;
	write_core(true);
	h = (const Elf64_Ehdr *)written;
	ck_assert_uint_eq(h->e_phnum, PN_XNUM);
	ck_assert_uint_eq(h->e_shnum, 1);
	ck_assert_uint_eq(((const Elf64_Shdr *)(written + h->e_shoff))->sh_info, 1 + 160 * 512);
	ck_assert_uint_eq(h->e_shoff, h->e_phoff + (1 + 160 * 512) * sizeof(Elf64_Phdr));
	munmap(written, written_size);
}
END_TEST

START_TEST(test_core_32_bit)
{
	struct cpu_regs cpu = {.rip = 0xc0001234, .cr0 = CPU_CR0_PE};
	const Elf32_Ehdr *h;
	const Elf32_Phdr *p;

	d.n_ram = 1;
	d.cpus = &cpu;
	d.n_cpus = 1;
	write_core(false);
	h = (const Elf32_Ehdr *)written;
	p = (const Elf32_Phdr *)(written + h->e_phoff);
	ck_assert_uint_eq(h->e_ident[EI_CLASS], ELFCLASS32);
	ck_assert_uint_eq(h->e_machine, EM_386);
	ck_assert_uint_eq(p[0].p_type, PT_NOTE);
	ck_assert_uint_eq(get_le32(written + p[0].p_offset + 20 + 72 + 12 * 4), 0xc0001234);
	ck_assert_uint_eq(p[1].p_filesz, 3 * MIB);
	munmap(written, written_size);
}
END_TEST

START_TEST(test_cancelled)
{
	struct work w = {.cancelled = true};
	struct err e = ERR_INIT;
	int fd = memfd_create("core", 0);

	ck_assert_int_eq(dump_write(&d, &w, fd, false, &e), -ECANCELED);
	close(fd);
}
END_TEST

START_TEST(test_no_space)
{
	struct work w = {0};
	struct err e = ERR_INIT;
	FILE *full = fopen("/dev/full", "w");

	ck_assert(full != NULL);
	ck_assert_int_eq(dump_write(&d, &w, fileno(full), false, &e), -ENOSPC);
	ck_assert(strstr(e.msg, "No space"));
	fclose(full);
}
END_TEST

/* The guest's own note comes after the CPUs'; what is none, or does not fit, is not taken for one. */
START_TEST(test_guest_note)
{
	static const uint8_t note[] = "\13\0\0\0\5\0\0\0\0\0\0\0VMCOREINFO\0\0A=1\n\n\0\0";
	uint8_t broken[sizeof(note)];

	ck_assert_uint_eq(dump_note_size(note, sizeof(note)), 32);
	ck_assert_uint_eq(dump_note_size(note, 32), 32);
	ck_assert_uint_eq(dump_note_size(note, 31), 0);
	ck_assert_uint_eq(dump_note_size(note, 11), 0);
	memcpy(broken, note, sizeof(note));
	put_le32(broken + 4, 0xffffffff);
	ck_assert_uint_eq(dump_note_size(broken, sizeof(broken)), 0);
	put_le32(broken, 0xfffffff0);
	ck_assert_uint_eq(dump_note_size(broken, sizeof(broken)), 0);
	d.guest_note = note;
	d.guest_note_size = 32;
	d.n_cpus = 0;
	write_core(true);
	ck_assert_uint_eq(header(0)->p_type, PT_NOTE);
	ck_assert_uint_eq(header(0)->p_filesz, 32);
	ck_assert_mem_eq(written + header(0)->p_offset, note, 32);
	munmap(written, written_size);
}
END_TEST

/* ---- kdump ---- */

/* Stands for a compressor: a page of one value becomes 8 bytes, others stay. */
static void *fake_create(void)
{
	return &ram;
}

static void fake_destroy(void *state)
{
}

static size_t fake_compress(void *state, const uint8_t page[4096], uint8_t *out)
{
	if (memcmp(page, page + 1, 4095))
		return 0;
	memset(out, page[0], 8);
	return 8;
}
static const struct kdump_codec fake = {"fake", 0x40, fake_create, fake_destroy, fake_compress};

/* The flattened form laid out flat; false: it is not well-formed. */
static bool rearrange(const uint8_t *p, size_t size, uint8_t **out, size_t *len)
{
	const uint8_t *end = p + size;

	ck_assert(size > 4096 && !strcmp((const char *)p, "makedumpfile"));
	ck_assert_uint_eq(get_be64(p + 16), 1);
	ck_assert_uint_eq(get_be64(p + 24), 1);
	*out = NULL;
	*len = 0;
	for (p += 4096; end - p >= 16;) {
		uint64_t offset = get_be64(p), n = get_be64(p + 8);

		p += 16;
		if (offset == UINT64_MAX && n == UINT64_MAX)
			return p == end;
		if (n > (uint64_t)(end - p))
			return false;
		if (offset + n > *len) {
			*out = xrealloc(*out, offset + n);
			memset(*out + *len, 0xee, offset + n - *len);
			*len = offset + n;
		}
		memcpy(*out + offset, p, n);
		p += n;
	}
	return false;
}

static uint8_t *flat;
static size_t flat_len;

static void write_kdump(void)
{
	struct work w = {0};
	struct err e = ERR_INIT;
	int fd = memfd_create("kdump", 0);

	dump_measure(&d);
	ck_assert_msg(!kdump_write(&d, &w, fd, &fake, &e), "%s", e.msg);
	ck_assert_uint_eq(d.done, d.total);
	written_size = (size_t)lseek(fd, 0, SEEK_END);
	written = mmap(NULL, written_size, PROT_READ, MAP_PRIVATE, fd, 0);
	ck_assert(written != MAP_FAILED);
	close(fd);
	ck_assert(rearrange(written, written_size, &flat, &flat_len));
	munmap(written, written_size);
}

static bool has_page(unsigned bitmap, uint64_t pfn)
{
	size_t pages = get_le32(flat + 436) / 2;

	return flat[(1 + get_le32(flat + 432) + bitmap * pages) * PAGE + pfn / 8] >> (pfn & 7) & 1;
}

/* Descriptor n; descriptors follow the bitmaps. */
static const uint8_t *descriptor(unsigned n)
{
	return flat + (1 + get_le32(flat + 432) + get_le32(flat + 436)) * PAGE + 24 * n;
}

START_TEST(test_kdump)
{
	struct cpu_regs cpus[2] = {{.rip = 0x1111, .efer = CPU_EFER_LMA, .cr3 = 0x77000}, {.rip = 0x2222}};
	const uint8_t *note, *data;
	const uint64_t high = 1ull << 20; /* the page frame at 4 GiB */

	d.cpus = cpus;
	d.n_cpus = 2;
	memset(ram + 5 * PAGE, 0xab, PAGE);
	ram[6 * PAGE + 77] = 1;
	memset(ram + 3 * MIB + 9 * PAGE, 0xcd, PAGE);
	write_kdump();

	ck_assert(!memcmp(flat, "KDUMP   \6\0\0\0", 12));
	ck_assert_str_eq((const char *)flat + 12 + 4 * 65, "x86_64");
	ck_assert_uint_eq(get_le32(flat + 424), fake.flag);
	ck_assert_uint_eq(get_le32(flat + 428), PAGE);
	ck_assert_uint_eq(get_le32(flat + 440), high + 256); /* max_mapnr */
	ck_assert_uint_eq(get_le32(flat + 460), 2);          /* CPUs */
	ck_assert_uint_eq(get_le32(flat + PAGE + 8), 1);     /* dump level */
	ck_assert_uint_eq(get_le64(flat + PAGE + 96), high + 256);
	note = flat + get_le64(flat + PAGE + 48);
	ck_assert_uint_eq(get_le64(flat + PAGE + 56), 2 * (20 + 336) + 2 * (20 + 440));
	ck_assert_str_eq((const char *)note + 12, "CORE");
	ck_assert_uint_eq(get_le64(note + 20 + 112 + 16 * 8), 0x1111);
	ck_assert_str_eq((const char *)note + 2 * 356 + 12, "QEMU");
	ck_assert_uint_eq(get_le64(note + 2 * 356 + 20 + 8 + 18 * 8 + 240 + 24), 0x77000);

	for (unsigned i = 0; i < 2; i++) {
		ck_assert(has_page(i, 0) && has_page(i, 767) && !has_page(i, 768));
		ck_assert(!has_page(i, high - 1) && has_page(i, high) && has_page(i, high + 255) &&
			  !has_page(i, high + 256));
	}
	/* Pages of zeroes: one for all. */
	ck_assert_uint_eq(get_le64(descriptor(0)), get_le64(descriptor(7)));
	ck_assert_uint_eq(get_le32(descriptor(0) + 12), 0);
	data = flat + get_le64(descriptor(0));
	ck_assert(!*data && !memcmp(data, data + 1, PAGE - 1));
	/* Compressed, not compressible, and the last of memory above 4 GiB. */
	ck_assert_uint_eq(get_le32(descriptor(5) + 8), 8);
	ck_assert_uint_eq(get_le32(descriptor(5) + 12), fake.flag);
	ck_assert_uint_eq(flat[get_le64(descriptor(5))], 0xab);
	ck_assert_uint_eq(get_le32(descriptor(6) + 8), PAGE);
	ck_assert_uint_eq(get_le32(descriptor(6) + 12), 0);
	ck_assert(!memcmp(flat + get_le64(descriptor(6)), ram + 6 * PAGE, PAGE));
	ck_assert_uint_eq(flat[get_le64(descriptor(768 + 9))], 0xcd);
	free(flat);
}
END_TEST

/* More pages than one piece has room for, none alike: every byte of memory is there again. */
START_TEST(test_kdump_all_of_it)
{
	const uint8_t *host = ram;

	for (size_t i = 0; i < RAM / 4; i++)
		put_le32(ram + 4 * i, (uint32_t)(i * 2654435761u));
	d.cpus = NULL;
	write_kdump();
	for (unsigned i = 0; i < RAM / PAGE; i++, host += PAGE) {
		ck_assert_uint_eq(get_le32(descriptor(i) + 8), PAGE);
		ck_assert(!memcmp(flat + get_le64(descriptor(i)), host, PAGE));
	}
	free(flat);
}
END_TEST

START_TEST(test_kdump_32_bit)
{
	struct cpu_regs cpu = {.rip = 0xc0001234, .cr0 = CPU_CR0_PE};
	const uint8_t *sub;

	d.n_ram = 1;
	d.cpus = &cpu;
	d.n_cpus = 1;
	write_kdump();
	sub = flat + PAGE;
	ck_assert_str_eq((const char *)flat + 12 + 4 * 65, "i686");
	ck_assert_uint_eq(get_le32(flat + 412), fake.flag);
	ck_assert_uint_eq(get_le32(flat + 448), 1);
	ck_assert_uint_eq(get_le64(sub + 32), PAGE + 80);
	ck_assert_uint_eq(get_le32(sub + 40), 20 + 144 + 20 + 440);
	ck_assert_uint_eq(get_le64(sub + 72), 768);
	ck_assert_uint_eq(get_le32(flat + get_le64(sub + 32) + 20 + 72 + 12 * 4), 0xc0001234);
	free(flat);
}
END_TEST

START_TEST(test_kdump_guest_note)
{
	static const uint8_t note[] = "\13\0\0\0\33\0\0\0\0\0\0\0VMCOREINFO\0\0A=1\nNUMBER(phys_base)=-4096\0";
	const uint8_t *sub;

	d.n_cpus = 0;
	d.guest_note = note;
	d.guest_note_size = dump_note_size(note, sizeof(note));
	ck_assert_uint_eq(d.guest_note_size, 52);
	write_kdump();
	sub = flat + PAGE;
	ck_assert_uint_eq(get_le32(sub), (uint32_t)-4096);
	ck_assert(!memcmp(flat + get_le32(sub + 32), "A=1\nNUMBER", 10));
	ck_assert_uint_eq(get_le32(sub + 40), 27);
	ck_assert_uint_eq(get_le32(sub + 56), 52);
	free(flat);
}
END_TEST

START_TEST(test_kdump_fails)
{
	struct work w = {.cancelled = true};
	struct err e = ERR_INIT;
	FILE *full = fopen("/dev/full", "w");
	int fd = memfd_create("kdump", 0);

	ck_assert_int_eq(kdump_write(&d, &w, fd, &fake, &e), -ECANCELED);
	close(fd);
	w.cancelled = false;
	e = ERR_INIT;
	ck_assert_int_eq(kdump_write(&d, &w, fileno(full), &fake, &e), -ENOSPC);
	ck_assert(strstr(e.msg, "No space"));
	fclose(full);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("dump");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, test_four_levels);
	tcase_add_test(t, test_five_levels);
	tcase_add_test(t, test_pae);
	tcase_add_test(t, test_32_bit);
	tcase_add_test(t, test_no_paging);
	tcase_add_test(t, test_circles);
	tcase_add_test(t, test_wild_root);
	tcase_add_loop_test(t, test_core_physical, 0, 2);
	tcase_add_test(t, test_guest_note);
	tcase_add_test(t, test_core_paging_and_filter);
	tcase_add_test(t, test_core_many_headers);
	tcase_add_test(t, test_core_32_bit);
	tcase_add_test(t, test_cancelled);
	tcase_add_test(t, test_no_space);
	tcase_add_test(t, test_kdump);
	tcase_add_test(t, test_kdump_all_of_it);
	tcase_add_test(t, test_kdump_32_bit);
	tcase_add_test(t, test_kdump_guest_note);
	tcase_add_test(t, test_kdump_fails);
	tcase_set_timeout(t, 60);
	return run_suite("dump", (TCase *[]){t, NULL});
}
