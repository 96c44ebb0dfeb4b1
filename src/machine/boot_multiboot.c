/*
 * Multiboot 1. Source: Multiboot Specification 0.6.96. The image is an ELF file (32-bit, or 64-bit with a 32-bit entry
 * point, as GRUB accepts) or says itself where it goes (flag 16). Modules come from -initrd "file args,file2 args".
 *
 * Left out: the graphics mode a kernel may ask for (it starts in text mode and the log says so), symbol tables, drives,
 * APM and the ROM configuration table; their flags are clear in the information structure.
 */
#include "boot.h"

#include <errno.h>

#define HEADER_MAGIC  0x1badb002u
#define LOADER_MAGIC  0x2badb002u
#define SEARCH        8192
#define HEADER_PLAIN  12
#define HEADER_KLUDGE 32
#define FLAG_GRAPHICS BIT(2)
#define FLAG_KLUDGE   BIT(16)
#define FLAGS_KNOWN   (BIT(0) | BIT(1) | FLAG_GRAPHICS) /* of the low half: requirements */

#define INFO_SIZE 120
#define INFO_FLAGS                                    \
	(BIT(0) | BIT(1) | BIT(2) | BIT(3) | BIT(6) | \
	 BIT(9)) /* memory, boot device, command line, modules, map, name */
#define MMAP_SIZE 24
#define MOD_SIZE  16

static bool find_header(const uint8_t *d, size_t len, size_t *at)
{
	size_t end = MIN(len, (size_t)SEARCH);

	for (size_t i = 0; i + HEADER_PLAIN <= end; i += 4)
		if (get_le32(d + i) == HEADER_MAGIC &&
		    get_le32(d + i) + get_le32(d + i + 4) + get_le32(d + i + 8) == 0) {
			*at = i;
			return true;
		}
	return false;
}

/* The header's own address fields: header, load, load end (0: to the end of the file), end of bss (0: none), entry. */
static int parse_kludge(const uint8_t *d, size_t len, size_t at, uint64_t ram_low, struct boot_image *out,
			struct err *e)
{
	uint64_t header = get_le32(d + at + 12), load = get_le32(d + at + 16), load_end = get_le32(d + at + 20);
	uint64_t bss_end = get_le32(d + at + 24);
	struct boot_segment s = {.gpa = load};
	int r;

	if (load > header || header - load > at)
		return err_set(e, EINVAL, "its multiboot header puts the beginning of the image before the file");
	s.offset = at - (header - load);
	if (load_end && load_end < load)
		return err_set(e, EINVAL, "its multiboot header ends the image before it begins");
	s.file_len = load_end ? load_end - load : len - s.offset;
	s.mem_len = bss_end > load + s.file_len ? bss_end - load : s.file_len;
	if (s.mem_len == 0)
		return err_set(e, EINVAL, "its multiboot header describes an empty image");
	r = boot_add_segment(out, &s, len, ram_low, e);
	out->entry = get_le32(d + at + 28);
	return r;
}

int boot_parse_multiboot(const uint8_t *d, size_t len, uint64_t ram_low, struct boot_image *out, struct err *e)
{
	uint32_t flags;
	size_t at;
	int r;

	if (!find_header(d, len, &at))
		return -ENOEXEC;
	memset(out, 0, sizeof(*out));
	out->kind = BOOT_MULTIBOOT;
	flags = out->multiboot.flags = get_le32(d + at + 4);
	if (flags & 0xffff & ~FLAGS_KNOWN)
		return err_set(e, ENOTSUP, "it requires multiboot features nobody defined (flags 0x%x)",
			       flags & 0xffff);
	if (flags & FLAG_KLUDGE && len - at < HEADER_KLUDGE)
		return err_set(e, EINVAL, "it is cut off in its multiboot header");
	/* mode_type 1 asks for the text mode it gets */
	out->multiboot.wants_graphics = flags & FLAG_GRAPHICS && len - at >= 36 && get_le32(d + at + 32) != 1;
	r = flags & FLAG_KLUDGE ? parse_kludge(d, len, at, ram_low, out, e) : boot_parse_elf(d, len, ram_low, out, e);
	if (r == -ENOEXEC)
		return err_set(e, EINVAL, "it has a multiboot header, but neither load addresses nor an ELF header");
	if (r == 0 && (out->entry < out->start || out->entry >= out->end))
		return err_set(e, EINVAL, "its multiboot entry point 0x%llx is outside of what is loaded",
			       (unsigned long long)out->entry);
	return r;
}

static int put_map(struct boot *boot, uint8_t *info, struct err *e)
{
	uint64_t at = boot_area(boot, boot->n_map * MMAP_SIZE, 8, e);

	if (!at)
		return -ENOSPC;
	for (size_t i = 0; i < boot->n_map; i++) {
		uint8_t entry[MMAP_SIZE];

		put_le32(entry, MMAP_SIZE - 4);
		memcpy(entry + 4, &boot->map[i], sizeof(boot->map[i]));
		if (boot_put(boot, at + i * MMAP_SIZE, entry, sizeof(entry), e) < 0)
			return -EFAULT;
	}
	put_le32(info + 44, (uint32_t)(boot->n_map * MMAP_SIZE));
	put_le32(info + 48, (uint32_t)at);
	return 0;
}

/* Modules follow the kernel, each on its own page. */
static int put_modules(struct boot *boot, uint8_t *info, struct err *e)
{
	uint64_t list = boot_area(boot, (size_t)boot->n_modules * MOD_SIZE + 1, 8, e);
	uint64_t next = ALIGN_UP(MAX(boot->image.end, MIB), 4096);

	if (!list)
		return -ENOSPC;
	for (unsigned i = 0; i < boot->n_modules; i++) {
		struct boot_file *f = &boot->module[i];
		uint64_t text = boot_area_string(boot, f->text, e);
		uint8_t entry[MOD_SIZE] = {0};

		if (!text)
			return -ENOSPC;
		if (next > boot->tables_base || f->size > boot->tables_base - next)
			return err_set(e, ENOMEM,
				       "-initrd %s: %llu KiB do not fit into the guest's RAM behind the kernel",
				       f->path, (unsigned long long)(f->size / KIB));
		f->gpa = next;
		next = ALIGN_UP(next + f->size, 4096);
		put_le32(entry, (uint32_t)f->gpa);
		put_le32(entry + 4, (uint32_t)(f->gpa + f->size));
		put_le32(entry + 8, (uint32_t)text);
		if (boot_put_file(boot, f->gpa, f, 0, f->size, e) < 0 ||
		    boot_put(boot, list + i * MOD_SIZE, entry, sizeof(entry), e) < 0)
			return -EFAULT;
	}
	put_le32(info + 20, boot->n_modules);
	put_le32(info + 24, (uint32_t)list);
	return 0;
}

int boot_load_multiboot(struct boot *boot, struct kvm_boot_state *s, struct err *e)
{
	const struct config *c = boot->board->config;
	char *line = xasprintf("%s%s%s", c->kernel, c->append && *c->append ? " " : "", c->append ? c->append : "");
	uint8_t info[INFO_SIZE] = {0};
	uint64_t at = boot_area(boot, sizeof(info), 8, e), cmdline = at ? boot_area_string(boot, line, e) : 0;
	uint64_t name = cmdline ? boot_area_string(boot, "vmm", e) : 0;

	free(line);
	if (!name)
		return -ENOSPC;
	if (boot->image.multiboot.wants_graphics && !boot->loaded)
		log_warn("boot", "-kernel %s asks for a graphics mode; it starts in text mode", c->kernel);
	put_le32(info, INFO_FLAGS);
	put_le32(info + 4, 639);
	put_le32(info + 8, (uint32_t)((boot->tables_base - MIB) / KIB));
	put_le32(info + 12, 0x8000ffff); /* first hard disk, no partition */
	put_le32(info + 16, (uint32_t)cmdline);
	put_le32(info + 64, (uint32_t)name);
	if (put_map(boot, info, e) < 0 || put_modules(boot, info, e) < 0 ||
	    boot_put(boot, at, info, sizeof(info), e) < 0)
		return -EFAULT;
	*s = (struct kvm_boot_state){
		.mode = KVM_BOOT_PROTECTED32, .rip = boot->image.entry, .rax = LOADER_MAGIC, .rbx = at};
	return boot_put_gdt(boot, false, s, e);
}
