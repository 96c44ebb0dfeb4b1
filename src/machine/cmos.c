/*
 * The CMOS bytes through which a PC tells its BIOS what it has, as SeaBIOS reads them on this board (its src/hw/rtc.h)
 * and as DOS-era programs know them (R. Brown's CMOS.LST).
 */
#include "vmm/cmos.h"

#include <errno.h>
#include <string.h>

enum {
	CMOS_FLOPPY_TYPES = 0x10,
	CMOS_DISK_TYPES = 0x12,
	CMOS_EQUIPMENT = 0x14,
	CMOS_BASE_MEMORY = 0x15,   /* KiB, 16 bits */
	CMOS_EXT_MEMORY = 0x17,    /* KiB above 1 MiB, 16 bits */
	CMOS_DISK_EXT_TYPE = 0x19, /* and 0x1a: the type when the nibble at 0x12 is 15 */
	CMOS_DISK_C = 0x1b,        /* geometry of type 47, nine bytes for each of two disks */
	CMOS_EXT_MEMORY_2 = 0x30,
	CMOS_MEMORY_16M = 0x34, /* 64 KiB units between 16 MiB and the hole, 16 bits */
	CMOS_BOOT_3 = 0x38,     /* high nibble: third boot device; bit 0: do not check floppies for 55AAh */
	CMOS_TRANSLATION = 0x39,
	CMOS_BOOT_1_2 = 0x3d,
	CMOS_MEMORY_4G = 0x5b, /* 64 KiB units above 4 GiB, 24 bits */
	CMOS_CPUS = 0x5f,      /* number of CPUs less one */
};
enum { EQUIPMENT_FLOPPY = 0x01, EQUIPMENT_FPU = 0x02, EQUIPMENT_MOUSE = 0x04, EQUIPMENT_TWO_FLOPPIES = 0x40 };

static int set16(struct board *b, unsigned index, uint64_t value)
{
	uint16_t v = (uint16_t)MIN(value, (uint64_t)0xffff);
	int ret = rtc_set_cmos(b, index, (uint8_t)v);

	return ret < 0 ? ret : rtc_set_cmos(b, index + 1, (uint8_t)(v >> 8));
}

/* One byte: with more than 256 CPUs firmware takes the number from fw_cfg. */
void cmos_update_cpus(struct board *b)
{
	rtc_set_cmos(b, CMOS_CPUS, (uint8_t)(MIN(board_cpus(b), 256u) - 1));
}

static void fill_memory(struct board *b)
{
	uint64_t below = board_ram_below_4g(b), above = board_ram_above_4g(b);

	set16(b, CMOS_BASE_MEMORY, MIN(below / KIB, (uint64_t)640));
	set16(b, CMOS_EXT_MEMORY, below > MIB ? (below - MIB) / KIB : 0);
	set16(b, CMOS_EXT_MEMORY_2, below > MIB ? (below - MIB) / KIB : 0);
	set16(b, CMOS_MEMORY_16M, below > 16 * MIB ? (below - 16 * MIB) / (64 * KIB) : 0);
	for (unsigned i = 0; i < 3; i++)
		rtc_set_cmos(b, CMOS_MEMORY_4G + i, (uint8_t)(above / (64 * KIB) >> (8 * i)));
	cmos_update_cpus(b);
}

static void fill_floppies(struct board *b)
{
	unsigned a = floppy_cmos_type(b, 0), second = floppy_cmos_type(b, 1);
	uint8_t equipment = EQUIPMENT_FPU | EQUIPMENT_MOUSE;

	rtc_set_cmos(b, CMOS_FLOPPY_TYPES, (uint8_t)(a << 4 | second));
	if (a || second)
		equipment |= EQUIPMENT_FLOPPY;
	if (a && second)
		equipment |= EQUIPMENT_TWO_FLOPPIES;
	rtc_set_cmos(b, CMOS_EQUIPMENT, equipment);
}

/* User-defined drive type 47: its geometry follows in CMOS. */
static void fill_disk(struct board *b, unsigned n, const struct cmos_disk *d)
{
	unsigned at = CMOS_DISK_C + 9 * n;
	uint8_t geometry[9] = {
		(uint8_t)d->cylinders,
		(uint8_t)(d->cylinders >> 8),
		(uint8_t)d->heads,
		0xff, /* write precompensation: none */
		0xff,
		(uint8_t)(0xc0 | (d->heads > 8 ? 8 : 0)),
		(uint8_t)d->cylinders, /* landing zone */
		(uint8_t)(d->cylinders >> 8),
		(uint8_t)d->sectors,
	};

	rtc_set_cmos(b, CMOS_DISK_EXT_TYPE + n, 47);
	for (unsigned i = 0; i < sizeof(geometry); i++)
		rtc_set_cmos(b, at + i, geometry[i]);
}

static void fill_disks(struct board *b, const struct cmos_disk disks[4])
{
	uint8_t types = 0, translation = 0;

	for (unsigned n = 0; disks && n < 4; n++) {
		if (!disks[n].cylinders)
			continue;
		if (n < 2) {
			types |= (uint8_t)(n == 0 ? 0xf0 : 0x0f);
			fill_disk(b, n, &disks[n]);
		}
		translation |= (uint8_t)((disks[n].translation & 3u) << (2 * n));
	}
	rtc_set_cmos(b, CMOS_DISK_TYPES, types);
	rtc_set_cmos(b, CMOS_TRANSLATION, translation);
}

int cmos_set_boot_order(struct board *b, const char *order, struct err *e)
{
	static const char letters[] = "acdn"; /* SeaBIOS's codes 1..4 */
	uint8_t code[3] = {0};
	const char *found;

	order = order ? order : "cad";
	for (unsigned i = 0; order[i]; i++) {
		found = strchr(letters, order[i]);
		if (!found)
			return err_set(e, EINVAL, "-boot order=%s: '%c' is no boot device; use letters of \"%s\"",
				       order, order[i], letters);
		if (strchr(order, order[i]) != order + i)
			return err_set(e, EINVAL, "-boot order=%s: Boot device '%c' was given twice", order, order[i]);
		if (i == ARRAY_SIZE(code))
			return err_set(e, EINVAL, "-boot order=%s: Too many boot devices for PC", order);
		code[i] = (uint8_t)(found - letters + 1);
	}
	rtc_set_cmos(b, CMOS_BOOT_1_2, (uint8_t)(code[1] << 4 | code[0]));
	rtc_set_cmos(b, CMOS_BOOT_3, (uint8_t)(code[2] << 4));
	return 0;
}

int cmos_fill(struct board *board, const char *boot_order, const struct cmos_disk disks[4], struct err *e)
{
	fill_memory(board);
	fill_floppies(board);
	fill_disks(board, disks);
	return cmos_set_boot_order(board, boot_order, e);
}
