/*
 * SMBIOS tables: types 1, 3, 4, 16, 17, 19, 32 and 127 always, 0, 2 and 11 when asked for (SeaBIOS adds its own type
 * 0), and structures from files.
 *
 * Manufacturer and product are those of QEMU's machine of the same name: a guest that ties its licence to them, or that
 * looks there to learn that it is virtual, finds what it knows.
 * Source: DMTF DSP0134 System Management BIOS 2.8; QEMU's -smbios options.
 * Left out: types 7, 8, 9 and 41 and the 3.0 (64-bit) entry point.
 */
#include "smbios.h"
#include "board.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define MACHINE_VERSION "pc-i440fx-7.2"
#define DIMM_MAX        (16 * GIB)
#define MAX_OEM_STRINGS 128
#define FILE_MAX        (64 * KIB)

struct settings {
	struct {
		char *vendor, *version, *date, *release;
		bool uefi, set;
	} t0;
	struct {
		char *manufacturer, *product, *version, *serial, *sku, *family, *uuid;
	} t1;
	struct {
		char *manufacturer, *product, *version, *serial, *asset, *location;
		bool set;
	} t2;
	struct {
		char *manufacturer, *version, *serial, *asset, *sku;
	} t3;
	struct {
		char *sock_pfx, *manufacturer, *version, *serial, *asset, *part;
		uint32_t max_speed, current_speed;
		uint64_t processor_id;
	} t4;
	struct {
		const char *value[MAX_OEM_STRINGS]; /* point into the configuration */
		unsigned n;
	} t11;
	struct {
		char *loc_pfx, *bank, *manufacturer, *serial, *asset, *part;
		uint32_t speed;
	} t17;
	bool from_file[256]; /* a file supplied this type: no default one */
};

#define TEXT(t, f, h)         PROP_NAMED(struct settings, #f, t.f, PROP_STR, .help = h)
#define TEXT_DEF(t, f, d, h)  PROP_NAMED(struct settings, #f, t.f, PROP_STR, .def_str = d, .help = h)
#define NUMBER(t, nm, f, ...) PROP_NAMED(struct settings, nm, t.f, __VA_ARGS__)

static const struct prop type0_props[] = {
	TEXT(t0, vendor, "BIOS vendor"),
	TEXT(t0, version, "BIOS version"),
	TEXT(t0, date, "release date"),
	TEXT(t0, release, "release number, MAJOR.MINOR"),
	NUMBER(t0, "uefi", uefi, PROP_BOOL, .help = "says that the firmware supports UEFI"),
	PROP_END,
};
static const struct prop type1_props[] = {
	TEXT_DEF(t1, manufacturer, "QEMU", "manufacturer"),
	TEXT_DEF(t1, product, "Standard PC (i440FX + PIIX, 1996)", "product name"),
	TEXT_DEF(t1, version, MACHINE_VERSION, "version"),
	TEXT(t1, serial, "serial number"),
	TEXT(t1, uuid, "UUID, instead of -uuid"),
	TEXT(t1, sku, "SKU number"),
	TEXT(t1, family, "family"),
	PROP_END,
};
static const struct prop type2_props[] = {
	TEXT_DEF(t2, manufacturer, "QEMU", "manufacturer"),
	TEXT_DEF(t2, product, "Standard PC (i440FX + PIIX, 1996)", "product name"),
	TEXT_DEF(t2, version, MACHINE_VERSION, "version"),
	TEXT(t2, serial, "serial number"),
	TEXT(t2, asset, "asset tag"),
	TEXT(t2, location, "location in chassis"),
	PROP_END,
};
static const struct prop type3_props[] = {
	TEXT_DEF(t3, manufacturer, "QEMU", "manufacturer"),
	TEXT_DEF(t3, version, MACHINE_VERSION, "version"),
	TEXT(t3, serial, "serial number"),
	TEXT(t3, asset, "asset tag"),
	TEXT(t3, sku, "SKU number"),
	PROP_END,
};
static const struct prop type4_props[] = {
	TEXT_DEF(t4, sock_pfx, "CPU", "socket name without its number"),
	TEXT_DEF(t4, manufacturer, "QEMU", "manufacturer"),
	TEXT_DEF(t4, version, MACHINE_VERSION, "version"),
	TEXT(t4, serial, "serial number"),
	TEXT(t4, asset, "asset tag"),
	TEXT(t4, part, "part number"),
	NUMBER(t4, "max-speed", max_speed, PROP_U32, .def = 2000, .max = 65535, .help = "MHz"),
	NUMBER(t4, "current-speed", current_speed, PROP_U32, .def = 2000, .max = 65535, .help = "MHz"),
	NUMBER(t4, "processor-id", processor_id, PROP_U64, .help = "CPUID leaf 1, EDX in the high half"),
	PROP_END,
};
static const struct prop type17_props[] = {
	TEXT_DEF(t17, loc_pfx, "DIMM", "module name without its number"),
	TEXT(t17, bank, "bank"),
	TEXT_DEF(t17, manufacturer, "QEMU", "manufacturer"),
	TEXT(t17, serial, "serial number"),
	TEXT(t17, asset, "asset tag"),
	TEXT(t17, part, "part number"),
	NUMBER(t17, "speed", speed, PROP_U32, .max = 65535, .help = "MT/s"),
	PROP_END,
};
static const struct {
	unsigned type;
	const struct prop *props;
} type_props[] = {{0, type0_props}, {1, type1_props}, {2, type2_props},
		  {3, type3_props}, {4, type4_props}, {17, type17_props}};

/* ---- structures ---- */

struct structure {
	struct blob *b;
	size_t at;
	unsigned n_strings;
	struct blob strings;
};

static struct structure structure_begin(struct blob *b, uint8_t type, uint16_t handle)
{
	struct structure s = {.b = b, .at = blob_le(b, type, 1)};
	blob_le(b, 0, 1); /* length, known at the end */
	blob_le(b, handle, 2);
	return s;
}

static void u8(struct structure *s, uint8_t v)
{
	blob_le(s->b, v, 1);
}
static void u16(struct structure *s, uint16_t v)
{
	blob_le(s->b, v, 2);
}
static void u32(struct structure *s, uint32_t v)
{
	blob_le(s->b, v, 4);
}
static void u64(struct structure *s, uint64_t v)
{
	blob_le(s->b, v, 8);
}

/* Add to the structure's strings; returns the string's number. 0: an empty string, or the 256th. */
static unsigned keep_string(struct structure *s, const char *text)
{
	if (!text || !*text || s->n_strings == 255)
		return 0;
	blob_add(&s->strings, text, strlen(text) + 1);
	return ++s->n_strings;
}

static void string(struct structure *s, const char *text)
{
	u8(s, keep_string(s, text));
}

static void structure_end(struct structure *s)
{
	s->b->data[s->at + 1] = s->b->len - s->at;
	blob_add(s->b, s->strings.data, s->strings.len);
	blob_add(s->b, NULL, s->n_strings ? 1 : 2);
	blob_free(&s->strings);
}

static int release_number(const char *text, uint8_t *major, uint8_t *minor, struct err *e)
{
	unsigned a, b;
	char rest;
	*major = *minor = 0;
	if (!text)
		return 0;
	if (sscanf(text, "%u.%u%c", &a, &b, &rest) != 2 || a > 255 || b > 255)
		return err_set(e, EINVAL, "-smbios type=0: release=%s is not MAJOR.MINOR with numbers up to 255", text);
	*major = a;
	*minor = b;
	return 0;
}

static int build_bios(struct blob *b, const struct settings *c, struct err *e)
{
	uint8_t major, minor;
	int ret = release_number(c->t0.release, &major, &minor, e);
	if (ret < 0)
		return ret;
	struct structure s = structure_begin(b, 0, 0x0000);
	string(&s, c->t0.vendor);
	string(&s, c->t0.version);
	u16(&s, 0xe800); /* segment; 64 KiB */
	string(&s, c->t0.date);
	u8(&s, 0);
	u64(&s, 0x08); /* characteristics not given */
	u8(&s, 0);
	u8(&s, c->t0.uefi ? 0x1c : 0x14); /* virtual machine, targeted content, UEFI */
	u8(&s, major);
	u8(&s, minor);
	u8(&s, 0xff); /* no embedded controller */
	u8(&s, 0xff);
	structure_end(&s);
	return 0;
}

static void build_system(struct blob *b, const struct settings *c, const uint8_t uuid[16])
{
	static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
	struct structure s = structure_begin(b, 1, 0x0100);
	string(&s, c->t1.manufacturer);
	string(&s, c->t1.product);
	string(&s, c->t1.version);
	string(&s, c->t1.serial);
	for (unsigned i = 0; i < 16; i++) /* 7.2.1: the first three fields are little-endian */
		u8(&s, uuid[order[i]]);
	u8(&s, 6); /* woken by the power switch */
	string(&s, c->t1.sku);
	string(&s, c->t1.family);
	structure_end(&s);
}

static void build_baseboard(struct blob *b, const struct settings *c)
{
	struct structure s = structure_begin(b, 2, 0x0200);
	string(&s, c->t2.manufacturer);
	string(&s, c->t2.product);
	string(&s, c->t2.version);
	string(&s, c->t2.serial);
	string(&s, c->t2.asset);
	u8(&s, 0x01); /* hosting board */
	string(&s, c->t2.location);
	u16(&s, 0x0300); /* chassis */
	u8(&s, 0x0a);    /* motherboard */
	u8(&s, 0);
	structure_end(&s);
}

static void build_chassis(struct blob *b, const struct settings *c)
{
	struct structure s = structure_begin(b, 3, 0x0300);
	string(&s, c->t3.manufacturer);
	u8(&s, 1); /* other */
	string(&s, c->t3.version);
	string(&s, c->t3.serial);
	string(&s, c->t3.asset);
	u8(&s, 3); /* boot-up, power supply and thermal state: safe; security: unknown */
	u8(&s, 3);
	u8(&s, 3);
	u8(&s, 2);
	u32(&s, 0);
	u8(&s, 0);
	u8(&s, 0);
	u8(&s, 0);
	u8(&s, 0);
	string(&s, c->t3.sku);
	structure_end(&s);
}

static void build_processor(struct blob *b, const struct settings *c, const struct smp_opts *smp, unsigned socket)
{
	struct structure s = structure_begin(b, 4, 0x0400 + socket);
	unsigned cores = smp->cores, threads = smp->cores * smp->threads;
	char *name = xasprintf("%s %u", c->t4.sock_pfx ? c->t4.sock_pfx : "CPU", socket);
	string(&s, name);
	free(name);
	u8(&s, 3); /* central processor */
	u8(&s, 1); /* family: other */
	string(&s, c->t4.manufacturer);
	u64(&s, c->t4.processor_id);
	string(&s, c->t4.version);
	u8(&s, 0);
	u16(&s, 0);
	u16(&s, c->t4.max_speed);
	u16(&s, c->t4.current_speed);
	u8(&s, 0x41); /* socket populated, CPU enabled */
	u8(&s, 1);    /* upgrade: other */
	u16(&s, 0xffff);
	u16(&s, 0xffff);
	u16(&s, 0xffff); /* caches are told by CPUID */
	string(&s, c->t4.serial);
	string(&s, c->t4.asset);
	string(&s, c->t4.part);
	u8(&s, MIN(cores, 255u));
	u8(&s, MIN(cores, 255u));
	u8(&s, MIN(threads, 255u));
	u16(&s, 0x0002); /* characteristics unknown */
	u16(&s, 0x0001);
	structure_end(&s);
}

static void build_oem_strings(struct blob *b, const struct settings *c)
{
	struct structure s = structure_begin(b, 11, 0x0e00);
	for (unsigned i = 0; i < c->t11.n; i++)
		keep_string(&s, c->t11.value[i]);
	u8(&s, s.n_strings);
	structure_end(&s);
}

static void build_memory_array(struct blob *b, uint64_t ram, unsigned modules)
{
	struct structure s = structure_begin(b, 16, 0x1000);
	uint64_t kib = ram / KIB;
	u8(&s, 1); /* other */
	u8(&s, 3); /* system memory */
	u8(&s, 6); /* multi-bit ECC */
	u32(&s, kib < 0x80000000u ? kib : 0x80000000u);
	u16(&s, 0xfffe);
	u16(&s, modules);
	u64(&s, kib < 0x80000000u ? 0 : ram);
	structure_end(&s);
}

static void build_memory_device(struct blob *b, const struct settings *c, unsigned n, uint64_t size)
{
	struct structure s = structure_begin(b, 17, 0x1100 + n);
	uint64_t mib = size / MIB;
	char *name = xasprintf("%s %u", c->t17.loc_pfx ? c->t17.loc_pfx : "DIMM", n);
	u16(&s, 0x1000);
	u16(&s, 0xfffe);
	u16(&s, 0xffff);
	u16(&s, 0xffff);
	u16(&s, mib < 0x7fff ? mib : 0x7fff);
	u8(&s, 9); /* DIMM */
	u8(&s, 0);
	string(&s, name);
	string(&s, c->t17.bank);
	u8(&s, 7); /* RAM */
	u16(&s, 0x0002);
	u16(&s, c->t17.speed);
	string(&s, c->t17.manufacturer);
	string(&s, c->t17.serial);
	string(&s, c->t17.asset);
	string(&s, c->t17.part);
	u8(&s, 0);
	u32(&s, mib < 0x7fff ? 0 : mib);
	u16(&s, c->t17.speed);
	u16(&s, 0);
	u16(&s, 0);
	u16(&s, 0);
	structure_end(&s);
	free(name);
}

static void build_mapped_address(struct blob *b, unsigned n, uint64_t start, uint64_t size)
{
	struct structure s = structure_begin(b, 19, 0x1300 + n);
	uint64_t first = start / KIB, last = (start + size) / KIB - 1;
	bool extended = last > 0xfffffffeu;
	u32(&s, extended ? 0xffffffff : first);
	u32(&s, extended ? 0xffffffff : last);
	u16(&s, 0x1000);
	u8(&s, 1);
	u64(&s, extended ? start : 0);
	u64(&s, extended ? start + size - 1 : 0);
	structure_end(&s);
}

static void build_memory(struct board *board, struct blob *b, const struct settings *c)
{
	uint64_t low = board_ram_below_4g(board), high = board_ram_above_4g(board), ram = low + high;
	unsigned modules = (ram + DIMM_MAX - 1) / DIMM_MAX;
	build_memory_array(b, ram, modules);
	for (unsigned i = 0; i < modules; i++)
		build_memory_device(b, c, i, MIN(DIMM_MAX, ram - i * DIMM_MAX));
	build_mapped_address(b, 0, 0, low);
	if (high)
		build_mapped_address(b, 1, 4 * GIB, high);
}

static void build_boot_info(struct blob *b)
{
	struct structure s = structure_begin(b, 32, 0x2000);
	for (unsigned i = 0; i < 7; i++)
		u8(&s, 0);
	structure_end(&s);
}

static void build_end(struct blob *b)
{
	struct structure s = structure_begin(b, 127, 0x7f00);
	structure_end(&s);
}

/* ---- options ---- */

/* One structure, header first, strings behind it; the double NUL that ends it is added where it lacks. */
static int add_file(struct board *board, struct blob *b, struct settings *c, const char *file, struct err *e)
{
	void *data;
	size_t len;
	char *path = strchr(file, '/') ? xstrdup(file) : xasprintf("./%s", file);
	int ret = board_load_file(board, path, FILE_MAX, &data, &len, e);
	free(path);
	if (ret < 0)
		return err_prefix(e, "-smbios");
	const uint8_t *p = data;
	if (len < 4 || p[1] < 4 || p[1] > len) {
		ret = err_set(e, EINVAL,
			      "-smbios file=%s is no SMBIOS structure: %zu bytes, of which its header claims %u", file,
			      len, len < 2 ? 0 : p[1]);
	} else {
		c->from_file[p[0]] = true;
		blob_add(b, data, len);
		if (len == p[1])
			blob_add(b, NULL, 2);
		else
			while (len < 2 || b->data[b->len - 1] || b->data[b->len - 2])
				blob_add(b, NULL, 1);
	}
	free(data);
	return ret;
}

static int oem_strings(struct opts *o, struct settings *c, struct err *e)
{
	for (size_t i = 0; i < o->n; i++) {
		if (!strcmp(o->v[i].key, "type"))
			continue;
		if (strcmp(o->v[i].key, "value"))
			return err_set(e, EINVAL, "-smbios type=11: parameter '%s' is not known; it takes value=TEXT",
				       o->v[i].key);
		if (c->t11.n == MAX_OEM_STRINGS)
			return err_set(e, ENOSPC, "-smbios type=11: more than %d strings", MAX_OEM_STRINGS);
		c->t11.value[c->t11.n++] = o->v[i].value;
	}
	return 0;
}

static int one_option(struct board *board, struct opt_item *item, struct blob *b, struct settings *c, struct err *e)
{
	const char *file = opts_get(&item->opts, "file");
	const char *text = opts_get(&item->opts, "type");
	char *end, owner[32];
	if (file && item->opts.n > 1)
		return err_set(e, EINVAL, "-smbios %s: file= takes no other parameter", item->text);
	if (file)
		return add_file(board, b, c, file, e);
	unsigned long type = text ? strtoul(text, &end, 10) : 256;
	if (!text || !*text || *end)
		return err_set(e, EINVAL, "-smbios %s: needs file=FILE or type=0|1|2|3|4|11|17", item->text);
	if (type == 11)
		return oem_strings(&item->opts, c, e);
	for (unsigned i = 0; i < ARRAY_SIZE(type_props); i++) {
		if (type_props[i].type != type)
			continue;
		c->t0.set |= type == 0;
		c->t2.set |= type == 2;
		snprintf(owner, sizeof(owner), "-smbios type=%lu", type);
		return opts_apply(&item->opts, type_props[i].props, c, owner, e);
	}
	return err_set(e, EINVAL,
		       "-smbios type=%s: fields can be set for types 0, 1, 2, 3, 4, 11 and 17; use file= for others",
		       text);
}

static int build_all(struct board *board, struct smbios_blobs *out, struct settings *c, struct err *e)
{
	const struct config *config = machine_config(board);
	const struct smp_opts *smp = &config->smp;
	struct blob *b = &out->tables;
	static const struct prop uuid_prop = {
		.name = "uuid", .type = PROP_UUID, .offset = offsetof(struct smbios_blobs, uuid)};
	int ret = 0;
	memcpy(out->uuid, config->uuid, sizeof(out->uuid));
	for (struct opt_item *i = config->smbios.first; i && ret == 0; i = i->next)
		ret = one_option(board, i, b, c, e);
	if (ret == 0 && c->t1.uuid)
		ret = prop_parse(&uuid_prop, out, c->t1.uuid, e);
	if (ret == 0 && c->t0.set && !c->from_file[0])
		ret = build_bios(b, c, e);
	if (ret < 0)
		return ret;
	if (!c->from_file[1])
		build_system(b, c, out->uuid);
	if (c->t2.set && !c->from_file[2])
		build_baseboard(b, c);
	if (!c->from_file[3])
		build_chassis(b, c);
	unsigned per_socket = smp->cores * smp->threads;
	for (unsigned i = 0; i * per_socket < smp->cpus && !c->from_file[4]; i++)
		build_processor(b, c, smp, i);
	if (c->t11.n)
		build_oem_strings(b, c);
	if (!c->from_file[16] && !c->from_file[17])
		build_memory(board, b, c);
	if (!c->from_file[32])
		build_boot_info(b);
	build_end(b);
	return b->len <= 0xffff
		       ? 0
		       : err_set(e, E2BIG, "SMBIOS: %zu bytes of tables, the entry point counts 65535", b->len);
}

/* Number of structures and the longest of them, as the entry point wants to know. */
static void measure(const struct blob *b, uint16_t *count, uint16_t *longest)
{
	*count = *longest = 0;
	for (size_t at = 0; at + 4 <= b->len;) {
		size_t end = at + b->data[at + 1];
		while (end + 1 < b->len && (b->data[end] || b->data[end + 1]))
			end++;
		end += 2;
		*longest = MAX(*longest, end - at);
		++*count;
		at = end;
	}
}

static void build_anchor(struct smbios_blobs *out)
{
	uint16_t count, longest;
	measure(&out->tables, &count, &longest);
	uint8_t *a = out->anchor;
	memcpy(a, "_SM_", 4);
	a[5] = SMBIOS_ANCHOR_SIZE;
	a[6] = 2;
	a[7] = 8;
	put_le16(a + 8, longest);
	memcpy(a + 16, "_DMI_", 5);
	put_le16(a + 22, out->tables.len);
	put_le16(a + 28, count);
	a[30] = 0x28; /* BCD revision */
}

int smbios_build(struct board *board, struct smbios_blobs *out, struct err *e)
{
	struct settings *c = xzalloc(sizeof(*c));
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < ARRAY_SIZE(type_props); i++)
		props_default(type_props[i].props, c);
	int ret = build_all(board, out, c, e);
	for (unsigned i = 0; i < ARRAY_SIZE(type_props); i++)
		props_free(type_props[i].props, c);
	free(c);
	if (ret < 0)
		smbios_blobs_free(out);
	else
		build_anchor(out);
	return ret;
}

void smbios_blobs_free(struct smbios_blobs *blobs)
{
	blob_free(&blobs->tables);
}
