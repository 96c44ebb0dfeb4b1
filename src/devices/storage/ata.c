/*
 * "ide-hd": an ATA hard disk.
 *
 * Sources: ATA/ATAPI-7 (T13/1532D) volume 1, clause 6 for the commands; ATA8-ACS for DATA SET MANAGEMENT and the
 * rotation rate. Left out, aborted and not announced by IDENTIFY: host protected area (SET MAX), security, queueing,
 * READ/WRITE LONG, CFA, streaming, automatic acoustic management. Hot-plug does not exist on parallel ATA.
 */
#include "src/devices/storage/ide.h"

#include <errno.h>

#include "vmm/cmos.h"

/* ---- addresses ---- */

static uint64_t total_sectors(const struct ide_drive *d)
{
	return block_size(d->blk) / IDE_SECTOR;
}

static uint64_t chs_to_lba(const struct ide_drive *d)
{
	uint64_t cyl = (uint64_t)d->r.lba_high << 8 | d->r.lba_mid;

	if (!d->r.lba_low)
		return UINT64_MAX; /* sectors count from 1 */
	return (cyl * d->cur_heads + (d->r.device & 15)) * d->cur_secs + d->r.lba_low - 1;
}

static uint64_t get_lba(const struct ide_drive *d)
{
	const struct ide_regs *r = &d->r;
	uint64_t low = (uint64_t)r->lba_high << 16 | (uint64_t)r->lba_mid << 8 | r->lba_low;

	if (d->lba48)
		return (uint64_t)r->hob_lba_high << 40 | (uint64_t)r->hob_lba_mid << 32 |
		       (uint64_t)r->hob_lba_low << 24 | low;
	return r->device & DH_LBA ? (uint64_t)(r->device & 15) << 24 | low : chs_to_lba(d);
}

static void put_lba(struct ide_drive *d, uint64_t lba)
{
	struct ide_regs *r = &d->r;
	uint32_t per_cyl = (uint32_t)d->cur_heads * d->cur_secs;

	if (!d->lba48 && !(r->device & DH_LBA)) {
		r->lba_low = (uint8_t)(lba % d->cur_secs + 1);
		r->device = (r->device & 0xf0) | (lba / d->cur_secs % d->cur_heads & 15);
		r->lba_mid = (uint8_t)(lba / per_cyl);
		r->lba_high = (uint8_t)(lba / per_cyl >> 8);
		return;
	}
	r->lba_low = (uint8_t)lba;
	r->lba_mid = (uint8_t)(lba >> 8);
	r->lba_high = (uint8_t)(lba >> 16);
	if (d->lba48) {
		r->hob_lba_low = (uint8_t)(lba >> 24);
		r->hob_lba_mid = (uint8_t)(lba >> 32);
		r->hob_lba_high = (uint8_t)(lba >> 40);
	} else {
		r->device = (r->device & 0xf0) | (lba >> 24 & 15);
	}
}

static uint32_t get_count(const struct ide_drive *d)
{
	uint32_t n = d->r.count;

	if (!d->lba48)
		return n ? n : 256;
	n |= (uint32_t)d->r.hob_count << 8;
	return n ? n : 65536;
}

static void put_count(struct ide_drive *d, uint64_t n)
{
	d->r.count = (uint8_t)n;
	if (d->lba48)
		d->r.hob_count = (uint8_t)(n >> 8);
}

/* As ATA-1 hosts expect: the count goes to 0 and the address to the last sector moved. */
void ata_progress(struct ide_drive *d, uint64_t bytes)
{
	put_count(d, d->op_left / IDE_SECTOR);
	put_lba(d, d->op_pos / IDE_SECTOR - 1);
}

void ata_locate_error(struct ide_drive *d)
{
	put_count(d, d->op_left / IDE_SECTOR);
	put_lba(d, d->op_pos / IDE_SECTOR);
}

/* ---- reading and writing ---- */

enum { RW_WRITE = 1, RW_DMA = 2, RW_EXT = 4, RW_MULTIPLE = 8, RW_VERIFY = 16, RW_FUA = 32 };

static unsigned rw_flags(uint8_t code)
{
	switch (code) {
	case 0x24:
		return RW_EXT;
	case 0x25:
		return RW_EXT | RW_DMA;
	case 0x29:
		return RW_EXT | RW_MULTIPLE;
	case 0x30:
	case 0x31:
		return RW_WRITE;
	case 0x3c: /* the medium is the host's business: writing through is all the verifying there is */
		return RW_WRITE | RW_FUA;
	case 0x34:
		return RW_EXT | RW_WRITE;
	case 0x35:
		return RW_EXT | RW_WRITE | RW_DMA;
	case 0x39:
		return RW_EXT | RW_WRITE | RW_MULTIPLE;
	case 0x3d:
		return RW_EXT | RW_WRITE | RW_DMA | RW_FUA;
	case 0x40:
	case 0x41:
		return RW_VERIFY;
	case 0x42:
		return RW_EXT | RW_VERIFY;
	case 0xc4:
		return RW_MULTIPLE;
	case 0xc5:
		return RW_WRITE | RW_MULTIPLE;
	case 0xc8:
	case 0xc9:
		return RW_DMA;
	case 0xca:
	case 0xcb:
		return RW_WRITE | RW_DMA;
	case 0xce:
		return RW_EXT | RW_WRITE | RW_MULTIPLE | RW_FUA;
	default:
		return 0; /* 20h, 21h */
	}
}

void ata_read_write(struct ide_drive *d)
{
	unsigned f = rw_flags(d->command);
	uint64_t lba, n;

	if (d->is_cd) {
		atapi_identify_refused(d);
		return;
	}
	d->lba48 = f & RW_EXT;
	d->fua = f & RW_FUA;
	lba = get_lba(d);
	n = get_count(d);
	if (f & RW_MULTIPLE && !d->mult) {
		ide_abort(d, ER_ABRT);
		return;
	}
	if (lba >= total_sectors(d) || n > total_sectors(d) - lba) {
		ide_abort(d, ER_IDNF);
		return;
	}
	d->standby = false;
	d->op_pos = lba * IDE_SECTOR;
	d->op_left = n * IDE_SECTOR;
	d->drq_size = f & RW_MULTIPLE ? d->mult * (uint32_t)IDE_SECTOR : IDE_SECTOR;
	if (f & RW_VERIFY)
		d->op = OP_VERIFY;
	else if (f & RW_DMA)
		d->op = f & RW_WRITE ? OP_DMA_WRITE : OP_DMA_READ;
	else
		d->op = f & RW_WRITE ? OP_PIO_WRITE : OP_PIO_READ;
	ide_start(d);
}

void ata_flush(struct ide_drive *d)
{
	if (d->is_cd) { /* nothing is cached for writing */
		ide_abort(d, ER_ABRT);
		return;
	}
	d->op = OP_FLUSH;
	ide_start(d);
}

/* ---- DATA SET MANAGEMENT ---- */

void ata_data_set_management(struct ide_drive *d)
{
	d->lba48 = true;
	if (!(d->r.feature & 1) || get_count(d) != 1) { /* TRIM, one block as IDENTIFY word 105 says */
		ide_abort(d, ER_ABRT);
		return;
	}
	d->op = OP_TRIM;
	d->op_pos = 0;
	d->buf_pos = d->buf_end = 0;
	d->buf_len = IDE_SECTOR;
	ide_start(d);
}

void ata_trim_entry(struct ide_drive *d, uint64_t *offset, uint64_t *len)
{
	uint64_t entry = d->op_pos < IDE_SECTOR / 8 ? get_le64(d->buf + d->op_pos * 8) : 0;

	*offset = (entry & 0xffffffffffff) * IDE_SECTOR;
	*len = (entry >> 48) * IDE_SECTOR;
}

/* From entry op_pos on: the next one that is not empty. */
void ata_trim_next(struct ide_drive *d)
{
	uint64_t offset, len;

	for (; d->op_pos < IDE_SECTOR / 8; d->op_pos++) {
		ata_trim_entry(d, &offset, &len);
		if (!len)
			continue;
		if (offset > block_size(d->blk) || len > block_size(d->blk) - offset) {
			bm_finish(d->ch, false);
			put_lba(d, offset / IDE_SECTOR);
			ide_abort(d, ER_IDNF);
		} else {
			ide_next_chunk(d);
		}
		return;
	}
	bm_finish(d->ch, false);
	ide_finish(d);
}

/* ---- modes and power ---- */

/* Subcommand 03h: the count register holds the transfer mode. */
static bool set_transfer_mode(struct ide_drive *d)
{
	uint8_t type = d->r.count >> 3, mode = d->r.count & 7;

	switch (type) {
	case 0: /* PIO default */
	case 1: /* PIO with IORDY */
		if (mode > 4)
			return false;
		d->udma_mode = d->mwdma_mode = 0;
		return true;
	case 2: /* single word DMA: accepted for old drivers, there is nothing to show for it */
		d->udma_mode = d->mwdma_mode = 0;
		return mode <= 2;
	case 4:
		if (mode > 2)
			return false;
		d->mwdma_mode = mode + 1;
		d->udma_mode = 0;
		return true;
	case 8:
		if (mode > 5)
			return false;
		d->udma_mode = mode + 1;
		d->mwdma_mode = 0;
		return true;
	}
	return false;
}

static void set_write_cache(struct ide_drive *d, bool on)
{
	d->write_cache = on;
	block_set_write_cache(d->blk, on);
	if (on) {
		ide_finish(d);
		return;
	}
	d->op = OP_FLUSH; /* what is cached must not wait for a flush that is now unneeded */
	ide_start(d);
}

void ata_set_features(struct ide_drive *d)
{
	bool ok = true;

	switch (d->r.feature) {
	case 0x03:
		ok = set_transfer_mode(d);
		break;
	case 0x02:
	case 0x82:
		if (d->is_cd)
			break;
		set_write_cache(d, d->r.feature == 0x02);
		return;
	case 0x55:
	case 0xaa:
		d->read_ahead = d->r.feature == 0xaa;
		break;
	case 0x66: /* keep, or */
	case 0xcc: /* revert to, power-on defaults at soft reset: our modes survive it */
		break;
	default: /* 05h/85h power management, 42h/C2h acoustics, 5Dh/DDh release interrupt, ...: not supported */
		ok = false;
	}
	if (ok)
		ide_finish(d);
	else
		ide_abort(d, ER_ABRT);
}

void ata_check_power(struct ide_drive *d)
{
	d->r.count = d->standby ? 0x00 : 0xff;
	ide_finish(d);
}

void ata_power(struct ide_drive *d)
{
	switch (d->command) {
	case 0x94:
	case 0xe0: /* STANDBY IMMEDIATE */
	case 0x96:
	case 0xe2: /* STANDBY: the timer in the count register changes nothing a guest could see */
		d->standby = true;
		break;
	case 0x99:
	case 0xe6:
		ide_finish(d);
		d->sleeping = true; /* until a reset */
		return;
	default:
		d->standby = false;
	}
	ide_finish(d);
}

void ata_set_multiple(struct ide_drive *d)
{
	uint8_t n = d->r.count;

	if (n > IDE_MAX_MULTIPLE || (n & (n - 1))) {
		d->mult = 0;
		ide_abort(d, ER_ABRT);
		return;
	}
	d->mult = n;
	ide_finish(d);
}

void ata_init_params(struct ide_drive *d)
{
	if (!d->r.count) {
		ide_abort(d, ER_ABRT);
		return;
	}
	d->cur_secs = d->r.count;
	d->cur_heads = (d->r.device & 15) + 1;
	ide_finish(d);
}

/* SEEK, and RECALIBRATE, which always finds track 0. */
void ata_seek(struct ide_drive *d)
{
	if (d->command == 0x70 && get_lba(d) >= total_sectors(d))
		ide_abort(d, ER_IDNF);
	else
		ide_finish(d);
}

void ata_native_max(struct ide_drive *d)
{
	uint64_t max = total_sectors(d) - 1;

	d->lba48 = d->command == 0x27;
	d->r.device |= DH_LBA; /* the answer is an LBA whatever the host had selected */
	put_lba(d, d->lba48 ? max : MIN(max, 0x0fffffffull));
	ide_finish(d);
}

/* ---- data-in commands ---- */

static void send_sector(struct ide_drive *d)
{
	d->op = OP_PIO_READ;
	d->op_left = 0;
	d->drq_size = IDE_SECTOR;
	d->buf_pos = 0;
	d->buf_len = IDE_SECTOR;
	ide_data_in(d);
}

void ata_identify(struct ide_drive *d)
{
	if (d->is_cd) {
		atapi_identify_refused(d);
		return;
	}
	ata_fill_identify(d, d->buf);
	send_sector(d);
}

static void smart_log(struct ide_drive *d)
{
	if (ata_smart_read_log(d, d->r.lba_low, d->buf))
		send_sector(d);
	else
		ide_abort(d, ER_ABRT);
}

/* B0h: subcommand in the features register, key C24Fh in LBA mid and high. */
void ata_smart(struct ide_drive *d)
{
	uint8_t sub = d->r.feature;

	if (d->r.lba_mid != 0x4f || d->r.lba_high != 0xc2 || (!d->smart_enabled && sub != 0xd8)) {
		ide_abort(d, ER_ABRT);
		return;
	}
	switch (sub) {
	case 0xd0: /* READ DATA */
		ata_smart_data(d, d->buf);
		send_sector(d);
		return;
	case 0xd1: /* READ THRESHOLDS */
		ata_smart_thresholds(d->buf);
		send_sector(d);
		return;
	case 0xd2: /* ATTRIBUTE AUTOSAVE */
		d->smart_autosave = d->r.count == 0xf1;
		break;
	case 0xd3: /* SAVE ATTRIBUTE VALUES */
		break;
	case 0xd4: /* EXECUTE OFF-LINE IMMEDIATE */
		if (!ata_smart_self_test(d, d->r.lba_low)) {
			ide_abort(d, ER_ABRT);
			return;
		}
		break;
	case 0xd5: /* READ LOG */
		smart_log(d);
		return;
	case 0xd8:
		d->smart_enabled = true;
		break;
	case 0xd9:
		d->smart_enabled = false;
		break;
	case 0xda: /* RETURN STATUS: the key unchanged says no threshold was exceeded */
		break;
	default:
		ide_abort(d, ER_ABRT);
		return;
	}
	ide_finish(d);
}

/* ---- class ---- */

void ata_reset(struct ide_drive *d, bool power_on)
{
	if (!power_on)
		return; /* modes survive a soft reset */
	d->mult = IDE_MAX_MULTIPLE;
	d->udma_mode = 6; /* UDMA 5, as a BIOS leaves it */
	d->mwdma_mode = 0;
	d->read_ahead = true;
	d->write_cache = d->write_cache_prop == 1;
	d->cur_heads = (uint8_t)d->heads;
	d->cur_secs = (uint8_t)d->secs;
	d->smart_enabled = d->smart_autosave = true;
	d->smart_selftests = 0;
	memset(d->smart_log, 0, sizeof(d->smart_log));
}

static void hd_reset(struct device *dev)
{
	struct ide_drive *d = DEVICE(dev, struct ide_drive);

	ide_drive_reset(d, true);
	block_set_write_cache(d->blk, d->write_cache);
}

static int check_block_sizes(const struct ide_drive *d, struct err *e)
{
	uint32_t phys = d->physical_block_size;

	if (d->logical_block_size != IDE_SECTOR)
		return err_set(e, EINVAL, "ide-hd: logical_block_size must be 512 for IDE");
	if (phys < IDE_SECTOR || phys > 32768 || (phys & (phys - 1)))
		return err_set(e, EINVAL, "ide-hd: physical_block_size=%u is no power of two from 512 to 32768", phys);
	return 0;
}

static int hd_create(struct device *dev, struct err *e)
{
	struct ide_drive *d = DEVICE(dev, struct ide_drive);
	int r = ide_drive_claim(d, e);

	if (r)
		return r;
	if (block_is_cdrom(d->blk))
		return err_set(e, EINVAL, "ide-hd: drive '%s' is a CD-ROM; use ide-cd", d->drive);
	if (!block_inserted(d->blk))
		return err_set(e, EINVAL, "ide-hd: Device needs media, but drive is empty");
	if (block_readonly(d->blk))
		return err_set(e, EROFS, "ide-hd: Block node is read-only");
	if (!d->physical_block_size)
		d->physical_block_size = block_physical_sector(d->blk);
	if (d->write_cache_prop == 2)
		d->write_cache_prop = block_write_cache(d->blk);
	r = check_block_sizes(d, e);
	if (!r)
		r = ata_guess_geometry(d, e);
	return r ? r : ide_attach(d, e);
}

static void hd_destroy(struct device *dev)
{
	ide_detach(DEVICE(dev, struct ide_drive));
}

/* For CMOS: the drive at position n (channel n/2, drive n%2) as INT 13h should see it. */
static struct ide_drive *hd_at(struct board *board, unsigned position)
{
	for (struct device *dev = device_next(board, NULL); dev; dev = device_next(board, dev)) {
		struct ide_drive *d = DEVICE(dev, struct ide_drive);

		if (dev->class == &device_class_ata && d->ch->index == position / 2 && d->index == position % 2)
			return d;
	}
	return NULL;
}

bool ide_cmos_disk(struct board *board, unsigned position, struct cmos_disk *out)
{
	struct ide_drive *d = hd_at(board, position);

	if (!d)
		return false;
	*out = (struct cmos_disk){
		.cylinders = d->cyls,
		.heads = d->heads,
		.sectors = d->secs,
		.translation = (uint8_t)(d->bios_chs_trans - 1),
	};
	return true;
}

static const char *const trans_names[] = {"auto", "none", "lba", "large", "rechs", NULL};

static const struct prop props[] = {
	PROP(struct ide_drive, drive, PROP_DRIVE, .help = "The -drive or -blockdev behind it"),
	IDE_ON_ERROR_PROPS,
	IDE_IDENTITY_PROPS("VMM HARDDISK"),
	PROP(struct ide_drive, wwn, PROP_U64, .help = "World wide name; 0: none"),
	PROP(struct ide_drive, cyls, PROP_U32, .max = 65535, .help = "Cylinders; 0: guess the geometry"),
	PROP(struct ide_drive, heads, PROP_U32, .max = 16, .help = "Heads"),
	PROP(struct ide_drive, secs, PROP_U32, .max = 255, .help = "Sectors per track"),
	PROP_NAMED(struct ide_drive, "bios-chs-trans", bios_chs_trans, PROP_ENUM, .values = trans_names,
		   .help = "Translation the BIOS uses for INT 13h"),
	PROP(struct ide_drive, logical_block_size, PROP_U32, .def = IDE_SECTOR, .help = "Bytes per sector: 512"),
	PROP(struct ide_drive, physical_block_size, PROP_U32, .help = "Bytes per sector on the medium; 0: the image's"),
	PROP(struct ide_drive, rotation_rate, PROP_U32, .max = 0xfffe,
	     .help = "Revolutions per minute, 1: solid state, 0: unknown"),
	PROP_NAMED(struct ide_drive, "write-cache", write_cache_prop, PROP_ONOFFAUTO, .def = 2,
		   .help = "Volatile write cache; auto: as the drive's cache mode"),
	IDE_BOOTINDEX_PROP,
	PROP_END,
};

static const struct state_field hd_fields[] = {
	IDE_COMMON_STATE,
	STATE_B(struct ide_drive, smart_enabled),
	STATE_B(struct ide_drive, smart_autosave),
	STATE_U(struct ide_drive, smart_selftests, .max = 21),
	STATE_BUF(struct ide_drive, smart_log),
	STATE_FIELDS_END,
};
static int hd_post_load(void *obj, uint16_t version, struct err *e)
{
	struct ide_drive *d = obj;

	if (!d->cur_heads || d->cur_heads > 16 || !d->cur_secs)
		return err_set(e, EINVAL, "%s: %u heads and %u sectors per track are impossible", d->dev.id,
			       d->cur_heads, d->cur_secs);
	return ide_drive_post_load(obj, version, e);
}
static const struct state_table hd_state = {
	.name = "ide-hd",
	.version = 1,
	.oldest = 1,
	.fields = hd_fields,
	.post_load = hd_post_load,
};

DEVICE_CLASS(ata) = {
	.name = "ide-hd",
	.summary = "ATA hard disk",
	IDE_DRIVE_CLASS,
	.props = props,
	.state = &hd_state,
	.create = hd_create,
	.destroy = hd_destroy,
	.reset = hd_reset,
};
