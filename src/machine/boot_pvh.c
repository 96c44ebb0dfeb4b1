/*
 * PVH entry: an ELF kernel with a XEN_ELFNOTE_PHYS32_ENTRY note is entered in 32-bit protected mode with EBX pointing
 * to a struct hvm_start_info. Source: Xen docs/misc/pvh.pandoc, xen/include/public/arch-x86/hvm/start_info.h (version
 * 1) and elfnote.h. Linux (CONFIG_PVH), FreeBSD and many small kernels have it.
 */
#include "boot.h"

#include <errno.h>

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define START_INFO_MAGIC         0x336ec578u
#define START_INFO_SIZE          56
#define MODULE_SIZE              32
#define MEMMAP_SIZE              24

int boot_parse_pvh(const uint8_t *data, size_t len, uint64_t ram_low, struct boot_image *out, struct err *e)
{
	uint64_t entry;
	int r;

	if (!boot_elf_note(data, len, "Xen", XEN_ELFNOTE_PHYS32_ENTRY, &entry))
		return -ENOEXEC;
	memset(out, 0, sizeof(*out));
	r = boot_parse_elf(data, len, ram_low, out, e);
	if (r < 0)
		return r;
	if (entry < out->start || entry >= out->end)
		return err_set(e, EINVAL, "its PVH entry point 0x%llx is outside of what is loaded",
			       (unsigned long long)entry);
	out->kind = BOOT_PVH;
	out->entry = entry;
	return 0;
}

static uint64_t put_memory_map(struct boot *boot, struct err *e)
{
	uint64_t at = boot_area(boot, boot->n_map * MEMMAP_SIZE, 8, e);

	for (size_t i = 0; at && i < boot->n_map; i++) {
		uint8_t entry[MEMMAP_SIZE] = {0};

		memcpy(entry, &boot->map[i], sizeof(boot->map[i])); /* address, length, type: E820's */
		if (boot_put(boot, at + i * MEMMAP_SIZE, entry, sizeof(entry), e) < 0)
			return 0;
	}
	return at;
}

static uint64_t put_module(struct boot *boot, struct err *e)
{
	uint64_t at = boot_area(boot, MODULE_SIZE, 8, e);
	uint8_t entry[MODULE_SIZE] = {0};

	if (!at || boot_place_high(boot, &boot->module[0], boot->image.end, boot->tables_base, e) < 0)
		return 0;
	put_le64(entry, boot->module[0].gpa);
	put_le64(entry + 8, boot->module[0].size);
	return boot_put(boot, at, entry, sizeof(entry), e) < 0 ? 0 : at;
}

int boot_load_pvh(struct boot *boot, struct kvm_boot_state *s, struct err *e)
{
	const char *append = boot->board->config->append;
	uint8_t info[START_INFO_SIZE] = {0};
	uint64_t at = boot_area(boot, sizeof(info), 8, e), cmdline, map, modules = 0;

	if (!at || !(cmdline = boot_area_string(boot, append ? append : "", e)) || !(map = put_memory_map(boot, e)))
		return -ENOSPC;
	if (boot->n_modules && !(modules = put_module(boot, e)))
		return -ENOSPC;
	put_le32(info, START_INFO_MAGIC);
	put_le32(info + 4, 1); /* version */
	put_le32(info + 12, boot->n_modules);
	put_le64(info + 16, modules);
	put_le64(info + 24, cmdline);
	put_le64(info + 32, boot->rsdp);
	put_le64(info + 40, map);
	put_le32(info + 48, (uint32_t)boot->n_map);
	*s = (struct kvm_boot_state){.mode = KVM_BOOT_PROTECTED32, .rip = boot->image.entry, .rbx = at};
	if (boot_put(boot, at, info, sizeof(info), e) < 0)
		return -EFAULT;
	return boot_put_gdt(boot, false, s, e);
}
