/*
 * "ide-cd": an ATAPI CD/DVD-ROM drive: the PACKET protocol, tray and media changes, sense data. The commands inside the
 * packets are in atapi_commands.c.
 *
 * Sources: ATA/ATAPI-7 volume 1 (PACKET, IDENTIFY PACKET DEVICE) and volume 2; SFF-8020i; MMC-5. Left out: overlapped
 * commands, audio (an image has no audio tracks), writing.
 */
#include "src/devices/storage/ide.h"

#include <errno.h>

/* Sense keys */
enum { NOT_READY = 2, MEDIUM_ERROR = 3, ILLEGAL_REQUEST = 5, ABORTED_COMMAND = 0x0b };

bool atapi_medium_present(const struct ide_drive *d)
{
	return !d->tray_open && block_inserted(d->blk);
}

/* ---- the PACKET protocol ---- */

void atapi_packet(struct ide_drive *d)
{
	if (d->r.feature & 0x02) { /* overlapped */
		ide_abort(d, ER_ABRT);
		return;
	}
	d->packet_dma = d->r.feature & 1;
	d->byte_limit = (uint32_t)d->r.lba_high << 8 | d->r.lba_mid;
	if (!d->byte_limit || d->byte_limit == 0xffff)
		d->byte_limit = 0xfffe;
	d->r.count = IR_CD;
	d->op = OP_PACKET;
	d->op_left = 0;
	d->buf_pos = 0;
	d->buf_len = d->drq_size = sizeof(d->packet);
	ide_data_out(d, false); /* IDENTIFY says: DRQ follows within 50 us, no interrupt */
}

void atapi_run_packet(struct ide_drive *d)
{
	memcpy(d->packet, d->buf, sizeof(d->packet));
	d->r.status = ST_DRDY | ST_BSY;
	atapi_command(d);
}

void atapi_complete(struct ide_drive *d)
{
	d->r.count = IR_IO | IR_CD;
	ide_finish(d);
}

void atapi_check(struct ide_drive *d, uint8_t key, uint8_t asc, uint8_t ascq)
{
	d->sense_key = key;
	d->asc = asc;
	d->ascq = ascq;
	d->sense_lba_valid = false;
	d->r.count = IR_IO | IR_CD;
	ide_abort(d, (uint8_t)(key << 4 | (key == ILLEGAL_REQUEST || key == ABORTED_COMMAND ? ER_ABRT : 0)));
}

void atapi_io_error(struct ide_drive *d, int err)
{
	uint64_t lba = d->op_pos / CD_SECTOR;

	if (err == ENOMEDIUM) {
		atapi_check(d, NOT_READY, 0x3a, d->tray_open ? 2 : 1);
		return;
	}
	atapi_check(d, MEDIUM_ERROR, 0x11, 0x00); /* UNRECOVERED READ ERROR */
	d->sense_lba = (uint32_t)lba;
	d->sense_lba_valid = true;
}

/* How many bytes the next DRQ block has: whole sectors where the limit allows. */
static uint32_t block_bytes(const struct ide_drive *d)
{
	uint32_t left = d->buf_len - d->buf_pos, limit = d->byte_limit;
	uint32_t unit = d->op == OP_CD_READ ? atapi_sector_size(d) : 0;

	if (left <= limit)
		return left;
	if (unit && limit >= unit)
		return limit - limit % unit;
	return limit & ~1u; /* all but the last block have even sizes; a limit of 1 cannot be met */
}

static void pio_block(struct ide_drive *d)
{
	uint32_t n = MAX(block_bytes(d), 1u);

	d->r.lba_mid = (uint8_t)n;
	d->r.lba_high = (uint8_t)(n >> 8);
	d->r.count = IR_IO;
	d->drq_size = n;
	ide_data_in(d);
}

/* Move what is in the buffer by DMA. false: the command ended with an error. */
static bool dma_block(struct ide_drive *d)
{
	int64_t n = bm_copy(d->ch, DMA_FROM_DEVICE, d->buf + d->buf_pos, d->buf_len - d->buf_pos);

	if (n < 0 || !bm_mastering(d->ch)) {
		ide_dma_failed(d);
		return false;
	}
	if ((uint64_t)n < d->buf_len - d->buf_pos) { /* the host wanted less than it asked for */
		d->op_left = 0;
		bm_finish(d->ch, true);
	}
	d->buf_pos = d->buf_len;
	return true;
}

/* Hand over what is in the buffer, then read on, then complete. */
void atapi_next_chunk(struct ide_drive *d)
{
	if (d->buf_pos < d->buf_len) {
		if (!d->packet_dma) {
			pio_block(d);
			return;
		}
		if (!dma_block(d))
			return;
	}
	if (d->op_left) {
		ide_next_chunk(d);
		return;
	}
	if (d->packet_dma)
		bm_finish(d->ch, false);
	atapi_complete(d);
}

/* ---- sectors ---- */

/* Fields of READ CD: 80h sync, 60h header codes (20h header), 10h user data, 08h EDC and ECC. */
uint32_t atapi_sector_size(const struct ide_drive *d)
{
	return (d->cd_fields & 0x80 ? 12 : 0) + (d->cd_fields & 0x20 ? 4 : 0) + (d->cd_fields & 0x10 ? 2048 : 0) +
	       (d->cd_fields & 0x08 ? 288 : 0);
}

static uint32_t select_fields(const struct ide_drive *d, const uint8_t raw[CD_RAW_SECTOR], uint8_t *out)
{
	static const struct {
		uint8_t field;
		uint16_t at, len;
	} parts[] = {{0x80, 0, 12}, {0x20, 12, 4}, {0x10, 16, 2048}, {0x08, 2064, 288}};
	uint32_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!(d->cd_fields & parts[i].field))
			continue;
		memcpy(out + n, raw + parts[i].at, parts[i].len);
		n += parts[i].len;
	}
	return n;
}

/* User data was read to the end of the buffer: build the sectors asked for at its start. */
static uint32_t assemble(struct ide_drive *d)
{
	uint32_t n = (uint32_t)(d->chunk / CD_SECTOR), out = 0;
	uint64_t lba = d->op_pos / CD_SECTOR - n;
	const uint8_t *in = d->buf + IDE_BUFFER - d->chunk;

	for (uint32_t i = 0; i < n; i++, in += CD_SECTOR) {
		uint8_t raw[CD_RAW_SECTOR];

		memcpy(raw + 16, in, CD_SECTOR);
		cd_make_raw_sector(raw, (uint32_t)(lba + i));
		out += select_fields(d, raw, d->buf + out);
	}
	return out;
}

void atapi_read_done(struct ide_drive *d)
{
	d->buf_pos = 0;
	d->buf_len = atapi_sector_size(d) == CD_SECTOR && d->cd_fields == 0x10 ? (uint32_t)d->chunk : assemble(d);
	if (!d->packet_dma) {
		atapi_next_chunk(d);
		return;
	}
	d->r.status = ST_DRDY | ST_DSC | ST_DRQ;
	d->step = STEP_WAIT_DMA;
	if (d->ch->bm_status & BM_ACTIVE)
		atapi_next_chunk(d);
}

void atapi_start_read(struct ide_drive *d, uint64_t lba, uint32_t sectors, uint8_t fields)
{
	d->cd_fields = fields;
	if (!sectors || !atapi_sector_size(d)) {
		atapi_complete(d);
		return;
	}
	d->op_pos = lba * CD_SECTOR;
	d->op_left = (uint64_t)sectors * CD_SECTOR;
	d->op = d->packet_dma && fields == 0x10 ? OP_DMA_READ : OP_CD_READ;
	ide_start(d);
}

void atapi_reply(struct ide_drive *d, uint32_t len, uint32_t allocation)
{
	len = MIN(len, allocation);
	if (!len) {
		atapi_complete(d);
		return;
	}
	d->op = OP_REPLY;
	d->op_left = 0;
	d->buf_pos = 0;
	d->buf_len = len;
	if (d->packet_dma)
		ide_start(d);
	else
		atapi_next_chunk(d);
}

/* ---- ATA commands of a packet device ---- */

void atapi_identify_refused(struct ide_drive *d)
{
	ide_set_signature(d); /* tells the host what it is */
	ide_abort(d, ER_ABRT);
}

void atapi_device_reset(struct ide_drive *d)
{
	ide_drive_reset(d, false); /* no interrupt */
}

static void put_word(uint8_t *page, unsigned word, uint16_t v)
{
	put_le16(page + word * 2, v);
}

static void fill_identify(const struct ide_drive *d, uint8_t *p)
{
	memset(p, 0, IDE_SECTOR);
	put_word(p, 0, 0x85c0); /* ATAPI, CD-ROM, removable, DRQ within 50 us, 12-byte packets */
	ata_put_string(p + 10 * 2, 20, d->serial);
	put_word(p, 20, 3);
	put_word(p, 21, 512);
	put_word(p, 22, 4);
	ata_put_string(p + 23 * 2, 8, d->version);
	ata_put_string(p + 27 * 2, 40, d->model);
	put_word(p, 48, 1);
	put_word(p, 49, 0x0b00); /* DMA, LBA, IORDY */
	put_word(p, 53, 0x0007);
	put_word(p, 62, 7);
	put_word(p, 63, 0x0007 | (d->mwdma_mode ? 0x0100 << (d->mwdma_mode - 1) : 0));
	put_word(p, 64, 3);
	put_word(p, 65, 180);
	put_word(p, 66, 180);
	put_word(p, 67, 300);
	put_word(p, 68, 180);
	put_word(p, 71, 30); /* us from PACKET to bus release, from SERVICE to BSY clear */
	put_word(p, 72, 30);
	put_word(p, 80, 0x00f0); /* ATA/ATAPI-4 to -7 */
	put_word(p, 82, 0x4210); /* NOP, DEVICE RESET, PACKET */
	put_word(p, 83, 0x4000);
	put_word(p, 84, 0x4000);
	put_word(p, 85, 0x4210);
	put_word(p, 87, 0x4000);
	put_word(p, 88, 0x003f | (d->udma_mode ? 0x0100 << (d->udma_mode - 1) : 0));
	put_word(p, 93, 0x6001);
}

void atapi_identify_packet(struct ide_drive *d)
{
	fill_identify(d, d->buf);
	d->op = OP_PIO_READ;
	d->packet_dma = false;
	d->op_left = 0;
	d->buf_pos = 0;
	d->buf_len = d->drq_size = IDE_SECTOR;
	ide_data_in(d);
}

/* ---- tray and media ---- */

static void medium_arrived(struct ide_drive *d)
{
	d->ua_asc = 0x28; /* NOT READY TO READY CHANGE, MEDIUM MAY HAVE CHANGED */
	d->event_new_media = true;
	d->event_eject = false;
}

static void medium_left(struct ide_drive *d)
{
	d->change_unseen = true;
	d->event_removed = true;
	d->event_new_media = false;
	d->event_eject = false;
}

static void set_tray(void *opaque, bool open)
{
	struct ide_drive *d = opaque;

	if (d->tray_open == open)
		return;
	d->tray_open = open;
	block_tray_moved(d->blk, open);
	if (!block_inserted(d->blk))
		return;
	if (open)
		medium_left(d);
	else
		medium_arrived(d);
}

static void media_changed(void *opaque, bool inserted)
{
	struct ide_drive *d = opaque;

	if (d->tray_open)
		return; /* closing it is what the guest sees */
	if (inserted)
		medium_arrived(d);
	else
		medium_left(d);
}

static void eject_request(void *opaque, bool force)
{
	struct ide_drive *d = opaque;

	d->event_eject = true;
	if (force)
		d->tray_locked = false;
}

static bool tray_locked(void *opaque)
{
	return DEVICE(opaque, struct ide_drive)->tray_locked;
}

static bool tray_open(void *opaque)
{
	return DEVICE(opaque, struct ide_drive)->tray_open;
}

static const struct block_media_ops media_ops = {
	.changed = media_changed,
	.eject_request = eject_request,
	.tray_locked = tray_locked,
	.tray_open = tray_open,
	.set_tray = set_tray,
};

/* START STOP UNIT with LoEj. false: the tray is locked. */
bool atapi_move_tray(struct ide_drive *d, bool open)
{
	if (open && !d->tray_open && d->tray_locked)
		return false;
	set_tray(d, open);
	return true;
}

/* ---- class ---- */

void atapi_reset(struct ide_drive *d, bool power_on)
{
	d->sense_key = d->asc = d->ascq = 0;
	d->sense_lba_valid = false;
	d->tray_locked = false;
	d->byte_limit = 0xfffe;
	d->cd_fields = 0x10;
	if (!power_on)
		return;
	d->ua_asc = 0x29; /* POWER ON, RESET, OR BUS DEVICE RESET OCCURRED */
	d->change_unseen = false;
	d->event_new_media = d->event_removed = d->event_eject = false;
	d->udma_mode = 6;
	d->mwdma_mode = 0;
	d->read_ahead = true;
	d->cur_heads = d->cur_secs = 1;
	memset(d->packet, 0, sizeof(d->packet));
}

static void cd_reset(struct device *dev)
{
	ide_drive_reset(DEVICE(dev, struct ide_drive), true);
}

static int cd_create(struct device *dev, struct err *e)
{
	struct ide_drive *d = DEVICE(dev, struct ide_drive);
	int r;

	d->is_cd = true;
	r = ide_drive_claim(d, e);
	if (!r)
		r = ide_attach(d, e);
	if (!r)
		block_set_media_ops(d->blk, &media_ops, d, dev->lock, dev->user_id ? dev->id : "");
	else if (d->own_block)
		block_close(d->blk);
	return r;
}

static void cd_destroy(struct device *dev)
{
	struct ide_drive *d = DEVICE(dev, struct ide_drive);

	ide_detach(d);
	if (d->own_block)
		block_close(d->blk);
}

static const struct prop props[] = {
	PROP(struct ide_drive, drive, PROP_DRIVE,
	     .help = "The -drive or -blockdev behind it, which may be empty; default: an empty one"),
	IDE_ON_ERROR_PROPS,
	IDE_IDENTITY_PROPS("VMM DVD-ROM"),
	IDE_BOOTINDEX_PROP,
	PROP_END,
};

static const struct state_field cd_fields[] = {
	IDE_COMMON_STATE,
	STATE_U(struct ide_drive, sense_key, .max = 15),
	STATE_U(struct ide_drive, asc),
	STATE_U(struct ide_drive, ascq),
	STATE_U(struct ide_drive, sense_lba),
	STATE_B(struct ide_drive, sense_lba_valid),
	STATE_U(struct ide_drive, ua_asc),
	STATE_B(struct ide_drive, change_unseen),
	STATE_B(struct ide_drive, event_new_media),
	STATE_B(struct ide_drive, event_removed),
	STATE_B(struct ide_drive, event_eject),
	STATE_B(struct ide_drive, tray_open),
	STATE_B(struct ide_drive, tray_locked),
	STATE_B(struct ide_drive, packet_dma),
	STATE_U(struct ide_drive, byte_limit, .min = 1, .max = 0xfffe),
	STATE_U(struct ide_drive, cd_fields),
	STATE_FIELDS_END,
};
static const struct state_table cd_state = {
	.name = "ide-cd",
	.version = 1,
	.oldest = 1,
	.fields = cd_fields,
	.post_load = ide_drive_post_load,
};

DEVICE_CLASS(atapi) = {
	.name = "ide-cd",
	.summary = "ATAPI CD/DVD-ROM drive",
	IDE_DRIVE_CLASS,
	.props = props,
	.state = &cd_state,
	.create = cd_create,
	.destroy = cd_destroy,
	.reset = cd_reset,
};
