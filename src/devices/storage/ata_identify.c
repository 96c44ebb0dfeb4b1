/*
 * What an ATA disk says about itself: IDENTIFY DEVICE data, SMART pages, geometry.
 *
 * Sources: ATA/ATAPI-7 volume 1, table 15 (IDENTIFY DEVICE) and clauses 6.54 (SMART); ATA8-ACS words 105, 169, 217. The
 * attribute numbers are the industry's (SFF-8035i). A virtual disk has no wear: its attributes are those of a healthy
 * drive, with what we do count (power-ons, self-tests) counted.
 */
#include "src/devices/storage/ide.h"

#include <errno.h>
#include <stdlib.h>

/* ---- IDENTIFY DEVICE ---- */

static void put_word(uint8_t *page, unsigned word, uint16_t v)
{
	put_le16(page + word * 2, v);
}

void ata_put_string(uint8_t *field, size_t len, const char *text)
{
	for (size_t i = 0; i < len; i++)
		field[i ^ 1] = text && *text ? (uint8_t)*text++ : ' ';
}

static void put_capacity(const struct ide_drive *d, uint8_t *p)
{
	uint64_t total = block_size(d->blk) / IDE_SECTOR;
	uint32_t cyls = (uint32_t)MIN(total / ((uint32_t)d->cur_heads * d->cur_secs), 65535ull);

	put_word(p, 1, (uint16_t)d->cyls);
	put_word(p, 3, (uint16_t)d->heads);
	put_word(p, 4, (uint16_t)(IDE_SECTOR * d->secs));
	put_word(p, 5, IDE_SECTOR);
	put_word(p, 6, (uint16_t)d->secs);
	put_word(p, 54, (uint16_t)cyls);
	put_word(p, 55, d->cur_heads);
	put_word(p, 56, d->cur_secs);
	put_le32(p + 57 * 2, (uint32_t)MIN((uint64_t)cyls * d->cur_heads * d->cur_secs, 0x0fffffffull));
	put_le32(p + 60 * 2, (uint32_t)MIN(total, 0x0fffffffull));
	put_le64(p + 100 * 2, total);
}

static void put_transfer_modes(const struct ide_drive *d, uint8_t *p)
{
	put_word(p, 47, 0x8000 | IDE_MAX_MULTIPLE);
	put_word(p, 48, 1);      /* 32-bit PIO works */
	put_word(p, 49, 0x0f00); /* IORDY, LBA, DMA */
	put_word(p, 50, 0x4000);
	put_word(p, 51, 0x0200);
	put_word(p, 52, 0x0200);
	put_word(p, 53, 0x0007); /* words 54-58, 64-70, 88 are valid */
	put_word(p, 59, d->mult ? 0x0100 | d->mult : 0);
	put_word(p, 63, 0x0007 | (d->mwdma_mode ? 0x0100 << (d->mwdma_mode - 1) : 0));
	put_word(p, 64, 0x0003); /* PIO 3 and 4 */
	for (unsigned w = 65; w <= 68; w++)
		put_word(p, w, 120); /* ns per word */
	put_word(p, 88, 0x003f | (d->udma_mode ? 0x0100 << (d->udma_mode - 1) : 0));
	put_word(p, 93, 0x6001 | (d->index ? 0x0a00 : 0)); /* 80-conductor cable; who answered the reset */
}

static void put_features(const struct ide_drive *d, uint8_t *p)
{
	bool trim = block_discard_enabled(d->blk);

	put_word(p, 80, 0x00f0);                         /* ATA-4 to ATA-7: from ATA-8 on word 48 means TCG */
	put_word(p, 81, 0x0016);                         /* ATA/ATAPI-6 revision 3a */
	put_word(p, 82, 0x4061);                         /* NOP, look-ahead, write cache, SMART */
	put_word(p, 83, 0x7400);                         /* FLUSH CACHE (EXT), 48-bit addresses */
	put_word(p, 84, 0x4043 | (d->wwn ? 0x0100 : 0)); /* SMART error log and self-test, FUA, name */
	put_word(p, 85, 0x4000 | (d->read_ahead ? 0x40 : 0) | (d->write_cache ? 0x20 : 0) | (d->smart_enabled ? 1 : 0));
	put_word(p, 86, 0x3400);
	put_word(p, 87, 0x4043 | (d->wwn ? 0x0100 : 0));
	if (trim) {
		put_word(p, 69, 0x4020); /* reads after TRIM are deterministic and zero */
		put_word(p, 105, 1);
		put_word(p, 169, 1);
	}
	put_word(p, 217, (uint16_t)d->rotation_rate);
}

void ata_fill_identify(const struct ide_drive *d, uint8_t page[IDE_SECTOR])
{
	uint8_t sum = 0;
	unsigned log = 0;

	memset(page, 0, IDE_SECTOR);
	put_word(page, 0, 0x0040); /* fixed drive */
	ata_put_string(page + 10 * 2, 20, d->serial);
	put_word(page, 20, 3);
	put_word(page, 21, 512); /* buffer, in sectors */
	put_word(page, 22, 4);
	ata_put_string(page + 23 * 2, 8, d->version);
	ata_put_string(page + 27 * 2, 40, d->model);
	put_capacity(d, page);
	put_transfer_modes(d, page);
	put_features(d, page);
	while (IDE_SECTOR << log < (int)d->physical_block_size)
		log++;
	put_word(page, 106, (uint16_t)(0x4000 | (log ? 0x2000 | log : 0)));
	if (d->wwn)
		for (unsigned i = 0; i < 4; i++) /* most significant word first */
			put_word(page, 108 + i, (uint16_t)(d->wwn >> (48 - 16 * i)));
	put_word(page, 209, 0x4000); /* logical sector 0 is aligned */
	page[510] = 0xa5;
	for (unsigned i = 0; i < 511; i++)
		sum += page[i];
	page[511] = (uint8_t)-sum;
}

/* ---- SMART ---- */

static const struct {
	uint8_t id;
	uint16_t flags; /* bit 0: below the threshold means failure; bit 1: updated on-line */
	uint8_t value, worst, threshold;
	uint8_t raw[6];
} attributes[] = {
	{1, 0x0003, 100, 100, 6, {0}},              /* raw read error rate */
	{3, 0x0003, 100, 100, 0, {16}},             /* spin-up time */
	{4, 0x0002, 100, 100, 20, {100}},           /* start/stop count */
	{5, 0x0003, 100, 100, 36, {0}},             /* reallocated sectors */
	{9, 0x0003, 100, 100, 0, {1}},              /* power-on hours */
	{12, 0x0003, 100, 100, 0, {0}},             /* power cycles */
	{190, 0x0003, 69, 69, 50, {31, 0, 31, 31}}, /* airflow temperature */
	{197, 0x0012, 100, 100, 0, {0}},            /* pending sectors */
	{198, 0x0010, 100, 100, 0, {0}},            /* uncorrectable sectors */
};

static void put_checksum(uint8_t *page)
{
	uint8_t sum = 0;

	for (unsigned i = 0; i < 511; i++)
		sum += page[i];
	page[511] = (uint8_t)-sum;
}

void ata_smart_data(struct ide_drive *d, uint8_t page[IDE_SECTOR])
{
	memset(page, 0, IDE_SECTOR);
	put_le16(page, 1); /* structure revision */
	for (size_t i = 0; i < ARRAY_SIZE(attributes); i++) {
		uint8_t *a = page + 2 + 12 * i;

		a[0] = attributes[i].id;
		put_le16(a + 1, attributes[i].flags);
		a[3] = attributes[i].value;
		a[4] = attributes[i].worst;
		memcpy(a + 5, attributes[i].raw, 6);
	}
	page[362] = 0x02 | (d->smart_autosave ? 0x80 : 0); /* off-line collection completed */
	page[363] = 0x00;                                  /* last self-test passed */
	put_le16(page + 364, 288);                         /* seconds an off-line collection takes */
	page[367] = 0x01 | 0x10;                           /* immediate off-line and self-tests */
	put_le16(page + 368, 0x0003);                      /* attributes are saved, autosave */
	page[370] = 0x01;                                  /* error logging */
	page[372] = 2;                                     /* minutes: short, */
	page[373] = 54;                                    /* extended, */
	page[374] = 5;                                     /* conveyance self-test */
	put_checksum(page);
}

void ata_smart_thresholds(uint8_t page[IDE_SECTOR])
{
	memset(page, 0, IDE_SECTOR);
	put_le16(page, 1);
	for (size_t i = 0; i < ARRAY_SIZE(attributes); i++) {
		page[2 + 12 * i] = attributes[i].id;
		page[3 + 12 * i] = attributes[i].threshold;
	}
	put_checksum(page);
}

bool ata_smart_read_log(struct ide_drive *d, uint8_t log, uint8_t page[IDE_SECTOR])
{
	memset(page, 0, IDE_SECTOR);
	switch (log) {
	case 0x00: /* directory: one sector each for logs 1 and 6 */
		put_le16(page, 1);
		put_le16(page + 2 * 1, 1);
		put_le16(page + 2 * 6, 1);
		return true; /* the only page without checksum */
	case 0x01:           /* summary error log: no error was ever logged */
		page[0] = 1;
		break;
	case 0x06: /* self-test log: 21 entries of 24 bytes in a ring */
		put_le16(page, 1);
		memcpy(page + 2, d->smart_log, sizeof(d->smart_log));
		page[508] = d->smart_selftests;
		break;
	default:
		return false;
	}
	put_checksum(page);
	return true;
}

/* Self-tests pass at once. 0: off-line collection; 1 short, 2 extended, 3 conveyance; +80h captive; 7Fh abort. */
bool ata_smart_self_test(struct ide_drive *d, uint8_t kind)
{
	uint8_t *entry;

	if (kind == 0 || kind == 0x7f)
		return true;
	if ((kind & 0x7f) > 3 || !(kind & 0x7f))
		return false;
	d->smart_selftests = d->smart_selftests % 21 + 1;
	entry = d->smart_log + 24 * (d->smart_selftests - 1);
	memset(entry, 0, 24);
	entry[0] = kind;
	put_le16(entry + 2, 1); /* power-on hours */
	return true;
}

/* ---- geometry ---- */

enum { TRANS_AUTO, TRANS_NONE, TRANS_LBA, TRANS_LARGE };

static void standard_geometry(struct ide_drive *d)
{
	uint64_t cyls = block_size(d->blk) / IDE_SECTOR / (16 * 63);

	d->cyls = (uint32_t)MAX(MIN(cyls, 16383ull), 2ull);
	d->heads = 16;
	d->secs = 63;
}

/* The logical geometry a partition table was made with shows in where partitions end. */
static bool geometry_from_mbr(struct ide_drive *d, uint32_t *cyls, uint32_t *heads, uint32_t *secs)
{
	uint8_t mbr[IDE_SECTOR];

	if (block_pread(d->blk, 0, mbr, sizeof(mbr)) || mbr[510] != 0x55 || mbr[511] != 0xaa)
		return false;
	for (unsigned i = 0; i < 4; i++) {
		const uint8_t *p = mbr + 446 + 16 * i;
		uint64_t n;

		if (!get_le32(p + 12) || !p[5] || !(p[6] & 63))
			continue;
		*heads = p[5] + 1u;
		*secs = p[6] & 63;
		n = block_size(d->blk) / IDE_SECTOR / (*heads * *secs);
		if (n < 1 || n > 16383)
			continue;
		*cyls = (uint32_t)n;
		return true;
	}
	return false;
}

/*
 * As QEMU guesses, so that a disk moves between the two: a logical geometry of up to 16 heads is taken for the physical
 * one; more heads mean that the BIOS translated.
 */
static int guess(struct ide_drive *d)
{
	uint32_t cyls, heads, secs;

	if (!geometry_from_mbr(d, &cyls, &heads, &secs)) {
		standard_geometry(d);
		return d->cyls <= 1024 ? TRANS_NONE : TRANS_LBA;
	}
	if (heads > 16) {
		standard_geometry(d);
		return d->cyls * d->heads <= 131072 ? TRANS_LARGE : TRANS_LBA;
	}
	d->cyls = cyls;
	d->heads = heads;
	d->secs = secs;
	return TRANS_NONE;
}

int ata_guess_geometry(struct ide_drive *d, struct err *e)
{
	int trans;

	if (!d->cyls && !d->heads && !d->secs)
		trans = guess(d);
	else if (!d->cyls || !d->heads || !d->secs)
		return err_set(e, EINVAL, "ide-hd: cyls, heads and secs must be given together");
	else
		trans = d->cyls <= 1024 && d->secs <= 63 ? TRANS_NONE : TRANS_LBA;
	if (d->bios_chs_trans == TRANS_AUTO)
		d->bios_chs_trans = trans;
	return 0;
}
