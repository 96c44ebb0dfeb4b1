/*
 * Linux bzImage, entered behind its real-mode part: at the 64-bit entry point if the kernel has one and the CPU model
 * long mode, else at the 32-bit one. Source: Linux Documentation/arch/x86/boot.rst (protocol 2.15) and zero-page.rst.
 * The oldest protocol taken is 2.02 (Linux 2.4), loaded high. Left out: setup_data, EFI handover, kernels loaded low
 * (zImage).
 */
#include "boot.h"

#include <errno.h>

/* Offsets in the image and in the zero page */
enum {
	ZP_ACPI_RSDP = 0x070,
	ZP_E820_COUNT = 0x1e8,
	SETUP_SECTS = 0x1f1,
	SYSSIZE = 0x1f4,
	VID_MODE = 0x1fa,
	BOOT_FLAG = 0x1fe,
	JUMP = 0x200,
	MAGIC = 0x202,
	VERSION = 0x206,
	TYPE_OF_LOADER = 0x210,
	LOADFLAGS = 0x211,
	CODE32_START = 0x214,
	RAMDISK_IMAGE = 0x218,
	RAMDISK_SIZE = 0x21c,
	HEAP_END_PTR = 0x224,
	CMD_LINE_PTR = 0x228,
	INITRD_ADDR_MAX = 0x22c,
	KERNEL_ALIGNMENT = 0x230,
	RELOCATABLE = 0x234,
	XLOADFLAGS = 0x236,
	CMDLINE_SIZE = 0x238,
	SETUP_DATA = 0x250,
	PREF_ADDRESS = 0x258,
	INIT_SIZE = 0x260,
	ZP_E820_TABLE = 0x2d0,
};
#define ZERO_PAGE_SIZE 4096
#define SECTOR         512u
#define LOADED_HIGH    BIT(0)
#define CAN_USE_HEAP   BIT(7)
#define XLF_KERNEL_64  BIT(0)
#define LOADER_OTHER   0xff
#define ENTRY64        0x200
#define HEAP_END       0xe000 /* of the real-mode code, which does not run */
#define PTE_TABLE      3u     /* present, writable */
#define PTE_2M         0x83u

/* Where the protected-mode part goes. GRUB's rule: a relocatable kernel where it would like to be, any other at 1 MiB.
 */
static uint64_t choose_address(const uint8_t *d, uint16_t version, uint64_t init_size, uint64_t ram_low)
{
	uint64_t align, preferred;

	if (version < 0x205 || !d[RELOCATABLE])
		return MIB;
	align = get_le32(d + KERNEL_ALIGNMENT);
	if (!align || align > GIB || (align & (align - 1)))
		align = 2 * MIB;
	preferred = version >= 0x20a ? get_le64(d + PREF_ADDRESS) : 0;
	if (preferred >= MIB && preferred % align == 0 && preferred < ram_low && init_size <= ram_low - preferred)
		return preferred;
	return ALIGN_UP((uint64_t)MIB, align);
}

static int check_header(const uint8_t *d, size_t len, struct err *e)
{
	uint16_t version = get_le16(d + VERSION);

	if (version < 0x202)
		return err_set(e, ENOTSUP, "this Linux kernel is too old: boot protocol %u.%02u, 2.02 is needed",
			       version >> 8, version & 0xff);
	if (!(d[LOADFLAGS] & LOADED_HIGH))
		return err_set(e, ENOTSUP, "this Linux kernel is a zImage loaded below 1 MiB: a bzImage is needed");
	return 0;
}

int boot_parse_bzimage(const uint8_t *d, size_t len, uint64_t ram_low, struct boot_image *out, struct err *e)
{
	size_t setup, header_end, declared;
	uint64_t init_size = 0;
	uint16_t version;
	int r;

	if (len < BOOT_SETUP_END || get_le16(d + BOOT_FLAG) != 0xaa55 || memcmp(d + MAGIC, "HdrS", 4) != 0)
		return -ENOEXEC;
	r = check_header(d, len, e);
	if (r < 0)
		return r;
	memset(out, 0, sizeof(*out));
	out->kind = BOOT_LINUX;
	version = out->bzimage.version = get_le16(d + VERSION);
	setup = ((size_t)(d[SETUP_SECTS] ? d[SETUP_SECTS] : 4) + 1) * SECTOR;
	declared = (size_t)(version >= 0x204 ? get_le32(d + SYSSIZE) : get_le16(d + SYSSIZE)) * 16;
	if (len <= setup || len - setup + 15 < declared)
		return err_set(e, EINVAL, "this Linux kernel is cut off: %zu of %zu bytes are there", len,
			       setup + declared);
	header_end = MIN((size_t)MAGIC + d[JUMP + 1], (size_t)BOOT_SETUP_END);
	memcpy(out->bzimage.header, d + BOOT_SETUP_AT, MAX(header_end, (size_t)HEAP_END_PTR) - BOOT_SETUP_AT);
	out->bzimage.initrd_max = version >= 0x203 ? get_le32(d + INITRD_ADDR_MAX) : 0x37ffffff;
	out->bzimage.cmdline_max = version >= 0x206 ? get_le32(d + CMDLINE_SIZE) : 255;
	out->bzimage.entry64 = version >= 0x20c && get_le16(d + XLOADFLAGS) & XLF_KERNEL_64;
	init_size = MAX(version >= 0x20a ? get_le32(d + INIT_SIZE) : 0, len - setup);
	r = boot_add_segment(out,
			     &(struct boot_segment){.gpa = choose_address(d, version, init_size, ram_low),
						    .mem_len = init_size,
						    .offset = setup,
						    .file_len = len - setup},
			     len, ram_low, e);
	out->entry = out->start;
	return r;
}

/* Identity map of the first 4 GiB in 2 MiB pages: one PML4, one PDPT, four page directories. */
static uint64_t put_page_tables(struct boot *boot, struct err *e)
{
	uint64_t at = boot_area(boot, 6 * 4096, 4096, e);
	uint64_t *t = xcalloc(6, 4096);

	t[0] = htole64((at + 4096) | PTE_TABLE);
	for (unsigned i = 0; i < 4; i++)
		t[512 + i] = htole64((at + (2 + i) * 4096) | PTE_TABLE);
	for (uint64_t i = 0; i < 4 * 512; i++)
		t[1024 + i] = htole64(i * 2 * MIB | PTE_2M);
	if (at && boot_put(boot, at, t, 6 * 4096, e) < 0)
		at = 0;
	free(t);
	return at;
}

static int fill_zero_page(struct boot *boot, uint8_t *zp, struct err *e)
{
	const struct boot_image *im = &boot->image;
	const char *append = boot->board->config->append ? boot->board->config->append : "";
	uint64_t cmdline;

	if (strlen(append) > im->bzimage.cmdline_max)
		return err_set(e, E2BIG, "-append: %zu characters are too many, this kernel takes %u", strlen(append),
			       im->bzimage.cmdline_max);
	cmdline = boot_area_string(boot, append, e);
	if (!cmdline)
		return -ENOSPC;
	memcpy(zp + BOOT_SETUP_AT, im->bzimage.header, sizeof(im->bzimage.header));
	put_le16(zp + VID_MODE, 0xffff); /* normal text mode */
	zp[TYPE_OF_LOADER] = LOADER_OTHER;
	zp[LOADFLAGS] |= CAN_USE_HEAP;
	put_le16(zp + HEAP_END_PTR, HEAP_END);
	put_le32(zp + CODE32_START, (uint32_t)im->start);
	put_le32(zp + CMD_LINE_PTR, (uint32_t)cmdline);
	if (im->bzimage.version >= 0x209)
		put_le64(zp + SETUP_DATA, 0);
	boot_describe_screen(boot, zp);
	put_le64(zp + ZP_ACPI_RSDP, boot->rsdp);
	zp[ZP_E820_COUNT] = (uint8_t)boot->n_map;
	memcpy(zp + ZP_E820_TABLE, boot->map, boot->n_map * sizeof(boot->map[0]));
	if (boot->n_modules) {
		struct boot_file *f = &boot->module[0];
		int r = boot_place_high(boot, f, im->end, MIN(boot->tables_base, im->bzimage.initrd_max + 1), e);

		if (r < 0)
			return r;
		put_le32(zp + RAMDISK_IMAGE, (uint32_t)f->gpa);
		put_le32(zp + RAMDISK_SIZE, (uint32_t)f->size);
	}
	return 0;
}

int boot_load_bzimage(struct boot *boot, struct kvm_boot_state *s, struct err *e)
{
	const struct boot_image *im = &boot->image;
	bool long64 = im->bzimage.entry64 && boot->long_mode;
	uint8_t *zp = xzalloc(ZERO_PAGE_SIZE);
	uint64_t at = boot_area(boot, ZERO_PAGE_SIZE, 4096, e);
	int r = at ? fill_zero_page(boot, zp, e) : -ENOSPC;

	if (r == 0)
		r = boot_put(boot, at, zp, ZERO_PAGE_SIZE, e);
	free(zp);
	*s = (struct kvm_boot_state){.mode = long64 ? KVM_BOOT_LONG64 : KVM_BOOT_PROTECTED32,
				     .rip = im->entry + (long64 ? ENTRY64 : 0),
				     .rsi = at};
	if (r == 0 && long64 && !(s->cr3 = put_page_tables(boot, e)))
		r = -ENOSPC;
	return r == 0 ? boot_put_gdt(boot, long64, s, e) : r;
}
