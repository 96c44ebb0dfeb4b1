/*
 * ACPI tables: FACS, DSDT (firmware/dsdt.asl with the board's facts patched in), SSDT (processors, sleep states), FADT,
 * MADT, WAET, user's -acpitable files, RSDT and RSDP.
 *
 * Everything is ACPI 1.0 in form (revision 1 tables, RSDT): what Windows XP's ACPI HAL accepts, every later OS does.
 * Source: ACPI 1.0b and 6.3; Windows ACPI Emulated Devices Table specification; QEMU's pc for the register addresses
 * and the interrupt overrides. Left out: HPET (there is none), SRAT and SLIT (one node), DMAR, reset register (needs a
 * revision 2 FADT, which XP rejects on some paths).
 */
#include "acpi.h"
#include "acpi_cpus.h"
#include "aml.h"
#include "board.h"
#include "vmm/cmos.h"
#include "vmm/hotplug.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

extern const uint8_t acpi_dsdt[];
extern const size_t acpi_dsdt_len;

#define HEADER_LEN 36
#define OEM_ID     "VMM   "
#define OEM_TABLE  "VMMPC   "

/* Bits of PRES in the DSDT */
enum {
	ACPI_HAS_COM1 = 0x01,
	ACPI_HAS_COM2 = 0x02,
	ACPI_HAS_LPT1 = 0x04,
	ACPI_HAS_FDC = 0x08,
	ACPI_HAS_FLOPPY_A = 0x10,
	ACPI_HAS_FLOPPY_B = 0x20,
	ACPI_HAS_I8042 = 0x40,
	ACPI_HAS_PVPANIC = 0x80,
};

#define IOAPIC_BASE   0xfec00000u
#define LAPIC_BASE    0xfee00000u
#define PCI_HOLE_END  0xfebfffffu
#define PCI_HOLE64    (2 * GIB)
#define SCI_IRQ       9
#define MAX_TABLES    64
#define ACPITABLE_MAX (1 * MIB)

struct builder {
	struct board *board;
	struct acpi_blobs *out;
	uint32_t listed[MAX_TABLES]; /* offsets of what the RSDT points to */
	unsigned n_listed;
};

/* ---- the loader script ---- */

static void script(struct acpi_blobs *out, const struct acpi_loader_entry *entry)
{
	_Static_assert(sizeof(*entry) == 128, "an entry of the loader script has 128 bytes");
	blob_add(&out->loader, entry, sizeof(*entry));
}

static void script_allocate(struct acpi_blobs *out, const char *file, uint32_t align, uint8_t zone)
{
	struct acpi_loader_entry en = {.command = htole32(ACPI_LOADER_ALLOCATE)};
	strcpy(en.alloc.file, file);
	en.alloc.align = htole32(align);
	en.alloc.zone = zone;
	script(out, &en);
}

/* All our pointers lead into the tables file. */
static void script_pointer(struct acpi_blobs *out, const char *dest, uint32_t offset)
{
	struct acpi_loader_entry en = {.command = htole32(ACPI_LOADER_ADD_POINTER)};
	strcpy(en.pointer.dest, dest);
	strcpy(en.pointer.src, ACPI_TABLES_FILE);
	en.pointer.offset = htole32(offset);
	en.pointer.size = 4;
	script(out, &en);
}

static void script_checksum(struct acpi_blobs *out, const char *file, uint32_t offset, uint32_t start, uint32_t length)
{
	struct acpi_loader_entry en = {.command = htole32(ACPI_LOADER_ADD_CHECKSUM)};
	strcpy(en.checksum.file, file);
	en.checksum.offset = htole32(offset);
	en.checksum.start = htole32(start);
	en.checksum.length = htole32(length);
	script(out, &en);
}

/* ---- tables ---- */

static size_t table_begin(struct builder *b, const char *signature, uint8_t revision)
{
	struct blob *t = &b->out->tables;
	blob_align(t, 16);
	size_t at = blob_add(t, NULL, HEADER_LEN);
	uint8_t *h = t->data + at;
	memcpy(h, signature, 4);
	h[8] = revision;
	memcpy(h + 10, OEM_ID, 6);
	memcpy(h + 16, OEM_TABLE, 8);
	put_le32(h + 24, 1);
	memcpy(h + 28, "VMM ", 4);
	put_le32(h + 32, 1);
	return at;
}

/* Close the table at `at`: its length, and a checksum once all pointers in it are known. */
static void table_end(struct builder *b, size_t at, bool listed)
{
	struct blob *t = &b->out->tables;
	put_le32(t->data + at + 4, t->len - at);
	script_checksum(b->out, ACPI_TABLES_FILE, at + 9, at, t->len - at);
	if (listed)
		b->listed[b->n_listed++] = at;
}

static size_t build_facs(struct builder *b)
{
	struct blob *t = &b->out->tables;
	blob_align(t, 64);
	size_t at = blob_add(t, NULL, 64);
	memcpy(t->data + at, "FACS", 4);
	put_le32(t->data + at + 4, 64);
	return at;
}

/* ---- DSDT ---- */

static unsigned u8_option(const struct device *dev, const char *name)
{
	const struct prop *p = prop_find(dev->class->props, name);
	return p && p->type == PROP_U8 ? *((const uint8_t *)dev + p->offset) : 0;
}

static bool bool_option(const struct device *dev, const char *name)
{
	const struct prop *p = prop_find(dev->class->props, name);
	return p && p->type == PROP_BOOL && *(const bool *)((const char *)dev + p->offset);
}

static bool has_port(struct board *board, uint16_t port)
{
	for (struct device *d = device_next(board, NULL); d; d = device_next(board, d))
		for (unsigned i = 0; i < d->class->n_regions; i++)
			if (d->regions[i].desc->space == SPACE_PIO && d->regions[i].desc->bar == REGION_NOT_BAR &&
			    d->regions[i].base == port)
				return true;
	return false;
}

static uint32_t isa_devices(struct board *board)
{
	uint32_t pres = 0;
	pres |= has_port(board, 0x3f8) ? ACPI_HAS_COM1 : 0;
	pres |= has_port(board, 0x2f8) ? ACPI_HAS_COM2 : 0;
	pres |= has_port(board, 0x378) ? ACPI_HAS_LPT1 : 0;
	pres |= device_find_class(board, "i8042") ? ACPI_HAS_I8042 : 0;
	pres |= device_find_class(board, "pvpanic") ? ACPI_HAS_PVPANIC : 0;
	if (device_find_class(board, "isa-fdc")) {
		pres |= ACPI_HAS_FDC;
		pres |= floppy_cmos_type(board, 0) ? ACPI_HAS_FLOPPY_A : 0;
		pres |= floppy_cmos_type(board, 1) ? ACPI_HAS_FLOPPY_B : 0;
	}
	return pres;
}

/* Replace the one occurrence of `from` in [p, p + size). */
static int patch(uint8_t *p, size_t size, const void *from, const void *to, size_t len, struct err *e)
{
	uint8_t *found = memmem(p, size, from, len);
	if (!found || memmem(found + 1, p + size - found - 1, from, len))
		return err_set(e, EINVAL,
			       "ACPI: the compiled DSDT does not hold one placeholder where one is expected");
	memcpy(found, to, len);
	return 0;
}

/* Minimum, maximum, translation and length as they follow each other in an address space descriptor. */
static int patch_window(uint8_t *p, size_t size, unsigned width, uint64_t from, uint64_t start, uint64_t end,
			struct err *e)
{
	uint8_t old[32] = {0}, new[32] = {0};
	uint64_t from_len = 1ull << 4 * width;
	put_le(old, from, width);
	put_le(old + width, from + from_len - 1, width);
	put_le(old + 3 * width, from_len, width);
	put_le(new, start, width);
	put_le(new + width, end, width);
	put_le(new + 3 * width, end - start + 1, width);
	return patch(p, size, old, new, 4 * width, e);
}

/* Slots that nothing can leave: _EJ0 behind the slot's _SUN becomes EJ0_, which means nothing to anybody. */
static int hide_ejectors(struct board *board, uint8_t *p, size_t size, struct err *e)
{
	struct device *pm = device_find_class(board, "PIIX4_PM");
	uint32_t removable = pm && bool_option(pm, "acpi-root-pci-hotplug") ? machine_removable_slots(board) : 0;
	for (unsigned slot = 2; slot < 32; slot++) {
		const uint8_t sun[] = {0x08, '_', 'S', 'U', 'N', 0x0a, slot};
		uint8_t *found = memmem(p, size, sun, sizeof(sun));
		uint8_t *method = found ? memmem(found, MIN((size_t)(p + size - found), (size_t)32), "_EJ0", 4) : NULL;
		if (!method)
			return err_set(e, EINVAL, "ACPI: the compiled DSDT has no slot %u", slot);
		if (!(removable & BIT(slot)))
			memcpy(method, "EJ0_", 4);
	}
	return 0;
}

static int build_dsdt(struct builder *b, size_t *at, struct err *e)
{
	struct blob *t = &b->out->tables;
	struct device *panic = device_find_class(b->board, "pvpanic");
	uint16_t port = panic ? panic->regions[0].base : 0x505;
	uint64_t high = ALIGN_UP(4 * GIB + board_ram_above_4g(b->board), GIB);
	uint8_t old_pres[4], new_pres[4], new_port[6] = {0, 0, 0, 0, 1, 1};
	*at = blob_add(t, acpi_dsdt, acpi_dsdt_len);
	uint8_t *p = t->data + *at;
	p[9] = 0; /* iasl's own checksum */
	put_le32(old_pres, 0x5a5a0001);
	put_le32(new_pres, isa_devices(b->board));
	put_le16(new_port, port);
	put_le16(new_port + 2, port);
	int ret = patch(p, acpi_dsdt_len, old_pres, new_pres, 4, e);
	if (ret == 0)
		ret = patch_window(p, acpi_dsdt_len, 4, 0x5a5a0000, board_ram_below_4g(b->board), PCI_HOLE_END, e);
	if (ret == 0)
		ret = patch_window(p, acpi_dsdt_len, 8, 0x5a5a5a5a00000000, high, high + PCI_HOLE64 - 1, e);
	if (ret == 0)
		ret = patch(p, acpi_dsdt_len, "\x5a\x5a\x5a\x5a\x01\x01", new_port, 6, e);
	if (ret == 0)
		ret = hide_ejectors(b->board, p, acpi_dsdt_len, e);
	table_end(b, *at, false);
	return ret;
}

/* ---- SSDT ---- */

static void sleep_state(struct blob *t, const char *name, uint8_t type)
{
	aml_name(t, name);
	aml_package(t, (const uint8_t[]){type, type, 0, 0}, 4);
}

static void build_ssdt(struct builder *b)
{
	struct blob *t = &b->out->tables;
	struct device *pm = device_find_class(b->board, "PIIX4_PM");
	size_t at = table_begin(b, "SSDT", 1);
	/* S3 ends in the firmware's entry point. */
	if (pm && !u8_option(pm, "disable_s3") && board_firmware(b->board))
		sleep_state(t, "_S3_", 1);
	if (pm && !u8_option(pm, "disable_s4"))
		sleep_state(t, "_S4_", u8_option(pm, "s4_val"));
	if (pm)
		sleep_state(t, "_S5_", 0);
	acpi_cpus_build(t, b->board);
	table_end(b, at, true);
}

/* ---- FADT, MADT, WAET ---- */

static void build_fadt(struct builder *b, size_t facs, size_t dsdt)
{
	enum {
		WBINVD = 1 << 0,
		PROC_C1 = 1 << 2,
		SLP_BUTTON = 1 << 5,
		RTC_S4 = 1 << 7,
		USE_PLATFORM_CLOCK = 1 << 15,
		FORCE_CLUSTER = 1 << 18
	};
	struct blob *t = &b->out->tables;
	size_t at = table_begin(b, "FACP", 1);
	blob_add(t, NULL, 116 - HEADER_LEN);
	uint8_t *f = t->data + at;
	put_le32(f + 36, facs);
	put_le32(f + 40, dsdt);
	f[44] = 1; /* interrupt model: dual PIC */
	put_le16(f + 46, SCI_IRQ);
	put_le32(f + 48, 0xb2); /* SMI command port, and what turns ACPI on and off */
	f[52] = 0xf1;
	f[53] = 0xf0;
	put_le32(f + 56, ACPI_PM_BASE); /* PM1a events, control, timer */
	put_le32(f + 64, ACPI_PM_BASE + 4);
	put_le32(f + 76, ACPI_PM_BASE + 8);
	put_le32(f + 80, 0xafe0); /* GPE0 */
	f[88] = 4;                /* lengths of these blocks */
	f[89] = 2;
	f[91] = 4;
	f[92] = 4;
	put_le16(f + 96, 0xfff); /* C2 and C3: too slow to use */
	put_le16(f + 98, 0xfff);
	f[108] = 0x32; /* century in CMOS */
	put_le32(f + 112, WBINVD | PROC_C1 | SLP_BUTTON | RTC_S4 | USE_PLATFORM_CLOCK |
				  (board_max_cpus(b->board) > 8 ? FORCE_CLUSTER : 0));
	script_pointer(b->out, ACPI_TABLES_FILE, at + 36);
	script_pointer(b->out, ACPI_TABLES_FILE, at + 40);
	table_end(b, at, true);
}

static void madt_override(struct blob *t, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	blob_add(t, (const uint8_t[]){2, 10, 0, irq}, 4);
	blob_le(t, gsi, 4);
	blob_le(t, flags, 2);
}

static void build_madt(struct builder *b)
{
	enum { ACTIVE_HIGH_LEVEL = 0xd };
	struct blob *t = &b->out->tables;
	size_t at = table_begin(b, "APIC", 1);
	bool x2apic = false;
	blob_le(t, LAPIC_BASE, 4);
	blob_le(t, 1, 4); /* there are 8259s as well */
	for (unsigned i = 0; i < board_max_cpus(b->board); i++) {
		uint8_t entry[16];
		unsigned len =
			acpi_madt_cpu(entry, i, machine_cpu_apic_id(b->board, i), machine_cpu_present(b->board, i));
		x2apic |= len == 16;
		blob_add(t, entry, len);
	}
	blob_add(t, (const uint8_t[]){1, 12, 0, 0}, 4); /* IOAPIC, id 0 */
	blob_le(t, IOAPIC_BASE, 4);
	blob_le(t, 0, 4);
	madt_override(t, 0, 2, 0);
	/* Where the PIRQ links and the SCI can lead: level-triggered, unlike ISA's default */
	static const uint8_t level_irqs[] = {5, 9, 10, 11};
	for (unsigned i = 0; i < sizeof(level_irqs); i++)
		madt_override(t, level_irqs[i], level_irqs[i], ACTIVE_HIGH_LEVEL);
	blob_add(t, (const uint8_t[]){4, 6, 0xff, 0, 0, 1}, 6); /* NMI at LINT1 of every CPU */
	if (x2apic)
		blob_add(t, (const uint8_t[]){10, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0}, 12);
	table_end(b, at, true);
}

/* Tells Windows that one read of our PM timer is enough (the real PIIX4's needs three). */
static void build_waet(struct builder *b)
{
	size_t at = table_begin(b, "WAET", 1);
	blob_le(&b->out->tables, 2, 4);
	table_end(b, at, true);
}

/* ---- -acpitable ---- */

struct user_table {
	char *sig, *oem_id, *oem_table_id, *asl_compiler_id, *data, *file;
	uint32_t rev, oem_rev, asl_compiler_rev;
};

#define UNSET 0xffffffffu
static const struct prop user_table_props[] = {
	PROP(struct user_table, sig, PROP_STR, .help = "signature, 4 characters"),
	PROP(struct user_table, rev, PROP_U32, .def = UNSET, .help = "revision"),
	PROP(struct user_table, oem_id, PROP_STR, .help = "OEM id, up to 6 characters"),
	PROP(struct user_table, oem_table_id, PROP_STR, .help = "OEM table id, up to 8 characters"),
	PROP(struct user_table, oem_rev, PROP_U32, .def = UNSET, .help = "OEM revision"),
	PROP(struct user_table, asl_compiler_id, PROP_STR, .help = "compiler id, up to 4 characters"),
	PROP(struct user_table, asl_compiler_rev, PROP_U32, .def = UNSET, .help = "compiler revision"),
	PROP(struct user_table, data, PROP_STR, .help = "file with the table's body"),
	PROP(struct user_table, file, PROP_STR, .help = "file with a whole table, header included"),
	PROP_END,
};

static int set_text(uint8_t *dst, size_t len, const char *text, const char *option, struct err *e)
{
	if (!text)
		return 0;
	if (strlen(text) > len)
		return err_set(e, EINVAL, "-acpitable: %s=%s has more than %zu characters", option, text, len);
	memset(dst, 0, len);
	memcpy(dst, text, strlen(text));
	return 0;
}

static int user_table_header(uint8_t *h, const struct user_table *u, struct err *e)
{
	const struct {
		unsigned offset, len;
		const char *text, *option;
	} texts[] = {{0, 4, u->sig, "sig"},
		     {10, 6, u->oem_id, "oem_id"},
		     {16, 8, u->oem_table_id, "oem_table_id"},
		     {28, 4, u->asl_compiler_id, "asl_compiler_id"}};
	for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
		int ret = set_text(h + texts[i].offset, texts[i].len, texts[i].text, texts[i].option, e);
		if (ret < 0)
			return ret;
	}
	if (u->rev != UNSET)
		h[8] = u->rev;
	if (u->oem_rev != UNSET)
		put_le32(h + 24, u->oem_rev);
	if (u->asl_compiler_rev != UNSET)
		put_le32(h + 32, u->asl_compiler_rev);
	return 0;
}

static int add_user_table(struct builder *b, const struct user_table *u, struct err *e)
{
	struct blob *t = &b->out->tables;
	const char *path = u->file ? u->file : u->data;
	void *data;
	size_t len;
	if (!path || (u->file && u->data))
		return err_set(e, EINVAL, "-acpitable needs one of data=FILE and file=FILE");
	if (b->n_listed == MAX_TABLES)
		return err_set(e, ENOSPC, "-acpitable: more than %d tables", MAX_TABLES);
	char *name = strchr(path, '/') ? xstrdup(path) : xasprintf("./%s", path);
	int ret = board_load_file(b->board, name, ACPITABLE_MAX, &data, &len, e);
	free(name);
	if (ret < 0)
		return err_prefix(e, "-acpitable");
	size_t at = t->len;
	if (!u->file) {
		at = table_begin(b, "    ", 1);
		blob_add(t, data, len);
	} else if (len < HEADER_LEN || get_le32((uint8_t *)data + 4) != len) {
		ret = err_set(e, EINVAL,
			      "-acpitable file=%s is no ACPI table: its header does not give its length, %zu", u->file,
			      len);
	} else {
		blob_align(t, 16);
		at = blob_add(t, data, len);
		t->data[at + 9] = 0;
	}
	free(data);
	if (ret == 0)
		ret = user_table_header(t->data + at, u, e);
	if (ret == 0)
		table_end(b, at, true);
	return ret;
}

static int add_user_tables(struct builder *b, struct err *e)
{
	for (struct opt_item *i = machine_config(b->board)->acpitable.first; i; i = i->next) {
		struct user_table u = {0};
		props_default(user_table_props, &u);
		int ret = opts_apply(&i->opts, user_table_props, &u, "-acpitable", e);
		if (ret == 0)
			ret = add_user_table(b, &u, e);
		props_free(user_table_props, &u);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* ---- roots ---- */

static void build_roots(struct builder *b)
{
	struct blob *t = &b->out->tables;
	size_t at = table_begin(b, "RSDT", 1);
	for (unsigned i = 0; i < b->n_listed; i++)
		script_pointer(b->out, ACPI_TABLES_FILE, blob_le(t, b->listed[i], 4));
	table_end(b, at, false);
	memcpy(b->out->rsdp, "RSD PTR ", 8);
	memcpy(b->out->rsdp + 9, OEM_ID, 6);
	put_le32(b->out->rsdp + 16, at);
	script_pointer(b->out, ACPI_RSDP_FILE, 16);
	script_checksum(b->out, ACPI_RSDP_FILE, 8, 0, ACPI_RSDP_SIZE);
}

int acpi_build(struct board *board, struct acpi_blobs *out, struct err *e)
{
	struct builder b = {.board = board, .out = out};
	size_t dsdt;
	memset(out, 0, sizeof(*out));
	script_allocate(out, ACPI_RSDP_FILE, 16, 2);
	script_allocate(out, ACPI_TABLES_FILE, 64, 1);
	size_t facs = build_facs(&b);
	int ret = build_dsdt(&b, &dsdt, e);
	if (ret == 0) {
		build_fadt(&b, facs, dsdt);
		build_ssdt(&b);
		build_madt(&b);
		build_waet(&b);
		ret = add_user_tables(&b, e);
	}
	if (ret < 0) {
		acpi_blobs_free(out);
		return ret;
	}
	build_roots(&b);
	return 0;
}

void acpi_blobs_free(struct acpi_blobs *blobs)
{
	blob_free(&blobs->tables);
	blob_free(&blobs->loader);
}
