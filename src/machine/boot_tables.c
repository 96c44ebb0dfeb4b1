/*
 * ACPI and SMBIOS for a boot without firmware: runs the loader script that SeaBIOS would run (acpi.h) against guest
 * RAM. Files of zone 2 and, as far as they fit, the others go to 0xE0000-0xFFFFF, which the memory map reserves; what
 * does not fit goes to the top of low RAM, reserved as well (the FACS must survive, so nothing is marked reclaimable).
 * The script is our own, but checked as if it were not.
 */
#include "boot.h"

#include <errno.h>

#define SEGMENT_BASE 0xe0000ull
#define SEGMENT_END  0x100000ull
#define ANCHOR_BASE  0xf0000ull /* where the SMBIOS entry point is looked for */

struct linked {
	const char *name;
	uint8_t *data; /* a copy to patch */
	size_t len;
	uint64_t gpa;
	bool placed;
};
struct linker {
	struct boot *boot;
	struct linked file[2];
	uint64_t next; /* free in the segment below 1 MiB */
};

static int bad_script(struct err *e)
{
	return err_set(e, EINVAL, "the ACPI loader script is damaged");
}

static struct linked *find(struct linker *l, const char name[56])
{
	for (unsigned i = 0; i < ARRAY_SIZE(l->file); i++)
		if (!strncmp(l->file[i].name, name, 56))
			return &l->file[i];
	return NULL;
}

/* An address below 1 MiB, or at the top of low RAM if that is allowed. */
static int allocate(struct linker *l, struct linked *f, uint32_t align, bool low_only, struct err *e)
{
	uint64_t at;

	if (!align || align & (align - 1) || align > 4096)
		return bad_script(e);
	at = ALIGN_UP(l->next, (uint64_t)align);
	if (at + f->len <= SEGMENT_END) {
		l->next = at + f->len;
	} else {
		if (low_only || f->len + 2 * MIB > l->boot->tables_base)
			return err_set(e, ENOSPC, "the ACPI tables (%zu bytes) do not fit into the guest's memory",
				       f->len);
		at = ALIGN_DOWN(l->boot->tables_base - f->len, 4096ull);
		l->boot->tables_base = at;
	}
	f->gpa = at;
	f->placed = true;
	return 0;
}

static int add_pointer(struct linker *l, const struct acpi_loader_entry *en, struct err *e)
{
	struct linked *dest = find(l, en->pointer.dest), *src = find(l, en->pointer.src);
	uint32_t offset = le32toh(en->pointer.offset);
	unsigned size = en->pointer.size;

	if (!dest || !src || !src->placed || (size != 1 && size != 2 && size != 4 && size != 8) || offset > dest->len ||
	    size > dest->len - offset)
		return bad_script(e);
	put_le(dest->data + offset, get_le(dest->data + offset, size) + src->gpa, size);
	return 0;
}

static int add_checksum(struct linker *l, const struct acpi_loader_entry *en, struct err *e)
{
	struct linked *f = find(l, en->checksum.file);
	uint32_t offset = le32toh(en->checksum.offset), start = le32toh(en->checksum.start);
	uint32_t length = le32toh(en->checksum.length);
	uint8_t sum = 0;

	if (!f || offset >= f->len || start > f->len || length > f->len - start)
		return bad_script(e);
	for (uint32_t i = 0; i < length; i++)
		sum += f->data[start + i];
	f->data[offset] -= sum;
	return 0;
}

static int run_entry(struct linker *l, const struct acpi_loader_entry *en, struct err *e)
{
	struct linked *f;

	switch (le32toh(en->command)) {
	case ACPI_LOADER_ALLOCATE:
		f = find(l, en->alloc.file);
		return f ? allocate(l, f, le32toh(en->alloc.align), en->alloc.zone == 2, e) : bad_script(e);
	case ACPI_LOADER_ADD_POINTER:
		return add_pointer(l, en, e);
	case ACPI_LOADER_ADD_CHECKSUM:
		return add_checksum(l, en, e);
	default:
		return 0; /* unknown commands are to be passed over */
	}
}

static int load_acpi(struct linker *l, struct err *e)
{
	struct boot *boot = l->boot;
	const struct blob *script = &boot->acpi.loader;
	int r = 0;

	l->file[0] = (struct linked){
		.name = ACPI_RSDP_FILE, .data = xmemdup(boot->acpi.rsdp, ACPI_RSDP_SIZE), .len = ACPI_RSDP_SIZE};
	l->file[1] = (struct linked){.name = ACPI_TABLES_FILE,
				     .data = xmemdup(boot->acpi.tables.data, boot->acpi.tables.len),
				     .len = boot->acpi.tables.len};
	for (size_t at = 0; r == 0 && at + sizeof(struct acpi_loader_entry) <= script->len;
	     at += sizeof(struct acpi_loader_entry))
		r = run_entry(l, (const struct acpi_loader_entry *)(script->data + at), e);
	for (unsigned i = 0; i < ARRAY_SIZE(l->file); i++) {
		if (r == 0 && l->file[i].placed)
			r = boot_put(boot, l->file[i].gpa, l->file[i].data, l->file[i].len, e);
		free(l->file[i].data);
	}
	boot->rsdp = r == 0 && l->file[0].placed ? l->file[0].gpa : 0;
	return r;
}

/* SMBIOS 2.8 entry point: byte 4 is its checksum, byte 15h that of the part from 10h, dword 18h the tables' address. */
static int load_smbios(struct linker *l, struct err *e)
{
	const struct smbios_blobs *s = &l->boot->smbios;
	struct linked tables = {.name = "tables", .data = s->tables.data, .len = s->tables.len};
	uint8_t anchor[SMBIOS_ANCHOR_SIZE], sum = 0;
	uint64_t at;
	int r;

	memcpy(anchor, s->anchor, sizeof(anchor));
	l->next = MAX(ALIGN_UP(l->next, 16ull), ANCHOR_BASE);
	at = l->next;
	if (at + sizeof(anchor) > SEGMENT_END)
		return err_set(e, ENOSPC, "there is no room left below 1 MiB for the SMBIOS entry point");
	l->next = at + sizeof(anchor);
	r = allocate(l, &tables, 16, false, e);
	if (r < 0)
		return r;
	put_le32(anchor + 0x18, (uint32_t)tables.gpa);
	anchor[0x15] = 0;
	for (unsigned i = 0x10; i < sizeof(anchor); i++)
		sum += anchor[i];
	anchor[0x15] = (uint8_t)-sum;
	anchor[4] = sum = 0;
	for (unsigned i = 0; i < sizeof(anchor); i++)
		sum += anchor[i];
	anchor[4] = (uint8_t)-sum;
	r = boot_put(l->boot, at, anchor, sizeof(anchor), e);
	return r == 0 ? boot_put(l->boot, tables.gpa, tables.data, tables.len, e) : r;
}

int boot_load_tables(struct boot *boot, struct err *e)
{
	struct linker l = {.boot = boot, .next = SEGMENT_BASE};
	int r = 0;

	boot->rsdp = 0;
	boot->tables_base = board_ram_below_4g(boot->board);
	if (boot->has_acpi)
		r = load_acpi(&l, e);
	return r == 0 ? load_smbios(&l, e) : r;
}
