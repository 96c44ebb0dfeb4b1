/*
 * ELF images for direct boot. Source: System V ABI (gABI 4.1) chapters 4 and 5. Only what a boot loader needs: program
 * headers and notes; sections and symbols are not looked at. Physical addresses (p_paddr) are used.
 */
#include "boot.h"

#include <elf.h>
#include <errno.h>

struct header {
	bool is64;
	uint64_t entry, phoff;
	unsigned phnum, phentsize;
};
struct program {
	uint32_t type;
	uint64_t offset, paddr, filesz, memsz;
};

static int read_header(const uint8_t *d, size_t len, struct header *h, struct err *e)
{
	uint16_t machine;

	if (len < EI_NIDENT || memcmp(d, ELFMAG, SELFMAG) != 0)
		return -ENOEXEC;
	h->is64 = d[EI_CLASS] == ELFCLASS64;
	if (!h->is64 && d[EI_CLASS] != ELFCLASS32)
		return err_set(e, EINVAL, "this ELF file is neither 32- nor 64-bit");
	if (len < (h->is64 ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)))
		return err_set(e, EINVAL, "this ELF file is cut off in its header");
	machine = get_le16(d + offsetof(Elf64_Ehdr, e_machine));
	if (d[EI_DATA] != ELFDATA2LSB || (machine != EM_386 && machine != EM_X86_64))
		return err_set(e, EINVAL, "this ELF file is for another processor (machine %u), x86 is needed",
			       machine);
	if (h->is64) {
		h->entry = get_le64(d + offsetof(Elf64_Ehdr, e_entry));
		h->phoff = get_le64(d + offsetof(Elf64_Ehdr, e_phoff));
		h->phentsize = get_le16(d + offsetof(Elf64_Ehdr, e_phentsize));
		h->phnum = get_le16(d + offsetof(Elf64_Ehdr, e_phnum));
	} else {
		h->entry = get_le32(d + offsetof(Elf32_Ehdr, e_entry));
		h->phoff = get_le32(d + offsetof(Elf32_Ehdr, e_phoff));
		h->phentsize = get_le16(d + offsetof(Elf32_Ehdr, e_phentsize));
		h->phnum = get_le16(d + offsetof(Elf32_Ehdr, e_phnum));
	}
	if (h->phnum && h->phentsize < (h->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
		return err_set(e, EINVAL, "this ELF file's program headers have an impossible size");
	if (h->phoff > len || (uint64_t)h->phnum * h->phentsize > len - h->phoff)
		return err_set(e, EINVAL, "this ELF file is cut off in its program headers");
	return 0;
}

static struct program read_program(const uint8_t *d, const struct header *h, unsigned i)
{
	const uint8_t *p = d + h->phoff + (uint64_t)i * h->phentsize;

	if (h->is64)
		return (struct program){get_le32(p), get_le64(p + offsetof(Elf64_Phdr, p_offset)),
					get_le64(p + offsetof(Elf64_Phdr, p_paddr)),
					get_le64(p + offsetof(Elf64_Phdr, p_filesz)),
					get_le64(p + offsetof(Elf64_Phdr, p_memsz))};
	return (struct program){
		get_le32(p), get_le32(p + offsetof(Elf32_Phdr, p_offset)), get_le32(p + offsetof(Elf32_Phdr, p_paddr)),
		get_le32(p + offsetof(Elf32_Phdr, p_filesz)), get_le32(p + offsetof(Elf32_Phdr, p_memsz))};
}

int boot_parse_elf(const uint8_t *d, size_t len, uint64_t ram_low, struct boot_image *out, struct err *e)
{
	struct header h;
	int r = read_header(d, len, &h, e);

	for (unsigned i = 0; r == 0 && i < h.phnum; i++) {
		struct program p = read_program(d, &h, i);

		if (p.type != PT_LOAD || p.memsz == 0)
			continue;
		r = boot_add_segment(
			out,
			&(struct boot_segment){
				.gpa = p.paddr, .mem_len = p.memsz, .offset = p.offset, .file_len = p.filesz},
			len, ram_low, e);
	}
	if (r < 0)
		return r;
	if (out->n_segments == 0)
		return err_set(e, EINVAL, "this ELF file has nothing to load (is it an object file?)");
	out->entry = h.entry;
	return 0;
}

/* The notes of one PT_NOTE segment: {namesz, descsz, type}, name and desc each padded to 4 bytes. */
static bool find_note(const uint8_t *d, size_t len, const char *name, uint32_t type, uint64_t *value)
{
	size_t at = 0;

	while (len - at >= 12) {
		uint64_t namesz = get_le32(d + at), descsz = get_le32(d + at + 4);
		uint64_t name_at = at + 12, desc_at = name_at + ALIGN_UP(namesz, 4),
			 next = desc_at + ALIGN_UP(descsz, 4);

		if (desc_at > len || descsz > len - desc_at)
			return false;
		if (get_le32(d + at + 8) == type && namesz == strlen(name) + 1 && !memcmp(d + name_at, name, namesz) &&
		    descsz >= 4) {
			*value = descsz >= 8 ? get_le64(d + desc_at) : get_le32(d + desc_at);
			return true;
		}
		if (next > len)
			return false;
		at = next;
	}
	return false;
}

bool boot_elf_note(const uint8_t *d, size_t len, const char *name, uint32_t type, uint64_t *value)
{
	struct header h;

	if (read_header(d, len, &h, NULL) < 0)
		return false;
	for (unsigned i = 0; i < h.phnum; i++) {
		struct program p = read_program(d, &h, i);

		if (p.type == PT_NOTE && p.offset <= len && p.filesz <= len - p.offset &&
		    find_note(d + p.offset, p.filesz, name, type, value))
			return true;
	}
	return false;
}
