/*
 * The IDE channel: task file, drive selection, commands, PIO data phase, interrupts, resets, and the chunks of an
 * operation on the host's block layer.
 *
 * Sources: ATA/ATAPI-7 (T13/1532D) volumes 1 and 2, ATA8-ACS for DATA SET MANAGEMENT. Left out: overlapped and queued
 * commands, READ/WRITE LONG, CFA, media status notification, streaming: aborted, as IDENTIFY says.
 */
#include "src/devices/storage/ide.h"

#include <errno.h>

enum { KIND_HD = 1, KIND_CD = 2, KIND_ALL = 3 };

struct ide_command {
	const char *name;
	const char *since; /* standard that defines it */
	uint8_t kinds;     /* other drives abort it */
	void (*run)(struct ide_drive *d);
};

static void nop(struct ide_drive *d)
{
	ide_abort(d, ER_ABRT); /* NOP always aborts */
}

static void refused(struct ide_drive *d)
{
	ide_abort(d, ER_ABRT);
}

static void execute_device_diagnostic(struct ide_drive *d);

static const struct ide_command commands[256] = {
	[0x00] = {"NOP", "ATA-1", KIND_ALL, nop},
	[0x06] = {"DATA SET MANAGEMENT", "ATA8-ACS", KIND_HD, ata_data_set_management},
	[0x08] = {"DEVICE RESET", "ATA/ATAPI-4", KIND_CD, atapi_device_reset},
	[0x10] = {"RECALIBRATE", "ATA-1", KIND_HD, ata_seek},
	[0x20] = {"READ SECTOR(S)", "ATA-1", KIND_ALL, ata_read_write},
	[0x21] = {"READ SECTOR(S) without retries", "ATA-1", KIND_HD, ata_read_write},
	[0x24] = {"READ SECTOR(S) EXT", "ATA/ATAPI-6", KIND_HD, ata_read_write},
	[0x25] = {"READ DMA EXT", "ATA/ATAPI-6", KIND_HD, ata_read_write},
	[0x27] = {"READ NATIVE MAX ADDRESS EXT", "ATA/ATAPI-6", KIND_HD, ata_native_max},
	[0x29] = {"READ MULTIPLE EXT", "ATA/ATAPI-6", KIND_HD, ata_read_write},
	[0x30] = {"WRITE SECTOR(S)", "ATA-1", KIND_HD, ata_read_write},
	[0x31] = {"WRITE SECTOR(S) without retries", "ATA-1", KIND_HD, ata_read_write},
	[0x34] = {"WRITE SECTOR(S) EXT", "ATA/ATAPI-6", KIND_HD, ata_read_write},
	[0x35] = {"WRITE DMA EXT", "ATA/ATAPI-6", KIND_HD, ata_read_write},
	[0x37] = {"SET MAX ADDRESS EXT", "ATA/ATAPI-6", KIND_HD, refused},
	[0x39] = {"WRITE MULTIPLE EXT", "ATA/ATAPI-6", KIND_HD, ata_read_write},
	[0x3c] = {"WRITE VERIFY", "ATA-1", KIND_HD, ata_read_write},
	[0x3d] = {"WRITE DMA FUA EXT", "ATA/ATAPI-7", KIND_HD, ata_read_write},
	[0x40] = {"READ VERIFY SECTOR(S)", "ATA-1", KIND_HD, ata_read_write},
	[0x41] = {"READ VERIFY SECTOR(S) without retries", "ATA-1", KIND_HD, ata_read_write},
	[0x42] = {"READ VERIFY SECTOR(S) EXT", "ATA/ATAPI-6", KIND_HD, ata_read_write},
	[0x45] = {"WRITE UNCORRECTABLE EXT", "ATA8-ACS", KIND_HD, refused},
	[0x70] = {"SEEK", "ATA-1", KIND_HD, ata_seek},
	[0x90] = {"EXECUTE DEVICE DIAGNOSTIC", "ATA-1", KIND_ALL, execute_device_diagnostic},
	[0x91] = {"INITIALIZE DEVICE PARAMETERS", "ATA-1", KIND_HD, ata_init_params},
	[0x94] = {"STANDBY IMMEDIATE (ATA-1 code)", "ATA-1", KIND_HD, ata_power},
	[0x95] = {"IDLE IMMEDIATE (ATA-1 code)", "ATA-1", KIND_HD, ata_power},
	[0x96] = {"STANDBY (ATA-1 code)", "ATA-1", KIND_HD, ata_power},
	[0x97] = {"IDLE (ATA-1 code)", "ATA-1", KIND_HD, ata_power},
	[0x98] = {"CHECK POWER MODE (ATA-1 code)", "ATA-1", KIND_HD, ata_check_power},
	[0x99] = {"SLEEP (ATA-1 code)", "ATA-1", KIND_HD, ata_power},
	[0xa0] = {"PACKET", "ATA/ATAPI-4", KIND_CD, atapi_packet},
	[0xa1] = {"IDENTIFY PACKET DEVICE", "ATA/ATAPI-4", KIND_CD, atapi_identify_packet},
	[0xb0] = {"SMART", "ATA-3", KIND_HD, ata_smart},
	[0xc4] = {"READ MULTIPLE", "ATA-1", KIND_HD, ata_read_write},
	[0xc5] = {"WRITE MULTIPLE", "ATA-1", KIND_HD, ata_read_write},
	[0xc6] = {"SET MULTIPLE MODE", "ATA-1", KIND_HD, ata_set_multiple},
	[0xc8] = {"READ DMA", "ATA-1", KIND_HD, ata_read_write},
	[0xc9] = {"READ DMA without retries", "ATA-1", KIND_HD, ata_read_write},
	[0xca] = {"WRITE DMA", "ATA-1", KIND_HD, ata_read_write},
	[0xcb] = {"WRITE DMA without retries", "ATA-1", KIND_HD, ata_read_write},
	[0xce] = {"WRITE MULTIPLE FUA EXT", "ATA/ATAPI-7", KIND_HD, ata_read_write},
	[0xe0] = {"STANDBY IMMEDIATE", "ATA-3", KIND_ALL, ata_power},
	[0xe1] = {"IDLE IMMEDIATE", "ATA-3", KIND_ALL, ata_power},
	[0xe2] = {"STANDBY", "ATA-3", KIND_HD, ata_power},
	[0xe3] = {"IDLE", "ATA-3", KIND_HD, ata_power},
	[0xe5] = {"CHECK POWER MODE", "ATA-3", KIND_ALL, ata_check_power},
	[0xe6] = {"SLEEP", "ATA-3", KIND_ALL, ata_power},
	[0xe7] = {"FLUSH CACHE", "ATA/ATAPI-5", KIND_ALL, ata_flush},
	[0xea] = {"FLUSH CACHE EXT", "ATA/ATAPI-6", KIND_HD, ata_flush},
	[0xec] = {"IDENTIFY DEVICE", "ATA-1", KIND_ALL, ata_identify},
	[0xef] = {"SET FEATURES", "ATA-1", KIND_ALL, ata_set_features},
	[0xf1] = {"SECURITY SET PASSWORD", "ATA-3", KIND_HD, refused},
	[0xf2] = {"SECURITY UNLOCK", "ATA-3", KIND_HD, refused},
	[0xf3] = {"SECURITY ERASE PREPARE", "ATA-3", KIND_HD, refused},
	[0xf4] = {"SECURITY ERASE UNIT", "ATA-3", KIND_HD, refused},
	[0xf5] = {"SECURITY FREEZE LOCK", "ATA-3", KIND_HD, refused},
	[0xf6] = {"SECURITY DISABLE PASSWORD", "ATA-3", KIND_HD, refused},
	[0xf8] = {"READ NATIVE MAX ADDRESS", "ATA/ATAPI-4", KIND_HD, ata_native_max},
	[0xf9] = {"SET MAX", "ATA/ATAPI-4", KIND_HD, refused},
};

/* ---- interrupts ---- */

static struct ide_drive *selected(struct ide_channel *ch)
{
	return ch->drive[ch->selected];
}

static void update_irq(struct ide_channel *ch)
{
	struct ide_drive *d = selected(ch);

	ide_channel_irq(ch, d && d->intrq && !(ch->devctl & DC_NIEN));
}

void ide_set_intrq(struct ide_drive *d)
{
	d->intrq = true;
	update_irq(d->ch);
}

static void clear_intrq(struct ide_drive *d)
{
	d->intrq = false;
	update_irq(d->ch);
}

/* ---- ends of commands ---- */

static void end_operation(struct ide_drive *d)
{
	d->op = OP_NONE;
	d->step = STEP_IDLE;
	d->op_left = 0;
	d->buf_pos = d->buf_end = d->buf_len = 0;
	d->careful = false;
}

void ide_finish(struct ide_drive *d)
{
	end_operation(d);
	d->r.status = ST_DRDY | ST_DSC;
	ide_set_intrq(d);
}

void ide_abort(struct ide_drive *d, uint8_t error)
{
	end_operation(d);
	d->r.error = error;
	d->r.status = ST_DRDY | ST_DSC | ST_ERR;
	ide_set_intrq(d);
}

/* ---- PIO data phase ---- */

static void data_phase(struct ide_drive *d, bool interrupt)
{
	d->buf_end = MIN(d->buf_pos + d->drq_size, d->buf_len);
	d->step = STEP_DATA;
	d->r.status = ST_DRDY | ST_DSC | ST_DRQ;
	if (interrupt)
		ide_set_intrq(d);
}

void ide_data_in(struct ide_drive *d)
{
	data_phase(d, true);
}

void ide_data_out(struct ide_drive *d, bool interrupt)
{
	data_phase(d, interrupt);
}

/* The guest has moved a whole DRQ block. */
static void data_done(struct ide_drive *d)
{
	switch (d->op) {
	case OP_PIO_READ:
	case OP_REPLY:
	case OP_CD_READ:
		if (d->is_cd)
			atapi_next_chunk(d);
		else if (d->buf_pos < d->buf_len)
			ide_data_in(d);
		else if (d->op_left)
			ide_next_chunk(d);
		else { /* no interrupt: the last one announced this block */
			end_operation(d);
			d->r.status = ST_DRDY | ST_DSC;
		}
		break;
	case OP_PIO_WRITE:
		if (d->buf_pos < d->buf_len)
			ide_data_out(d, true);
		else
			ide_next_chunk(d);
		break;
	case OP_PACKET:
		atapi_run_packet(d);
		break;
	case OP_MODE_DATA:
		atapi_mode_select(d);
		break;
	}
}

static bool data_direction_in(const struct ide_drive *d)
{
	return d->op == OP_PIO_READ || d->op == OP_REPLY || d->op == OP_CD_READ;
}

static bool data_ready(const struct ide_drive *d, bool in)
{
	return d && d->step == STEP_DATA && data_direction_in(d) == in;
}

/* One item through the data port. An odd-length ATAPI block ends with a padding byte. */
static uint64_t read_data(struct ide_channel *ch, unsigned size)
{
	struct ide_drive *d = selected(ch);
	uint8_t v[8] = {0};
	uint32_t n;

	if (!data_ready(d, true))
		return d ? 0 : 0xff7fff7f;
	n = MIN(size, d->buf_end - d->buf_pos);
	memcpy(v, d->buf + d->buf_pos, n);
	d->buf_pos += n;
	if (d->buf_pos == d->buf_end)
		data_done(d);
	return get_le(v, size);
}

static void write_data(struct ide_channel *ch, uint64_t value, unsigned size)
{
	struct ide_drive *d = selected(ch);
	uint8_t v[8];
	uint32_t n;

	if (!data_ready(d, false))
		return;
	put_le(v, value, size);
	n = MIN(size, d->buf_end - d->buf_pos);
	memcpy(d->buf + d->buf_pos, v, n);
	d->buf_pos += n;
	if (d->buf_pos == d->buf_end)
		data_done(d);
}

uint32_t ide_read_data_string(struct ide_channel *ch, void *buf, unsigned size, uint32_t count)
{
	struct ide_drive *d = selected(ch);
	uint32_t n;

	if (!data_ready(d, true))
		return 0;
	n = MIN(count, (d->buf_end - d->buf_pos) / size);
	memcpy(buf, d->buf + d->buf_pos, (size_t)n * size);
	d->buf_pos += n * size;
	if (n && d->buf_pos == d->buf_end)
		data_done(d);
	return n;
}

uint32_t ide_write_data_string(struct ide_channel *ch, const void *buf, unsigned size, uint32_t count)
{
	struct ide_drive *d = selected(ch);
	uint32_t n;

	if (!data_ready(d, false))
		return 0;
	n = MIN(count, (d->buf_end - d->buf_pos) / size);
	memcpy(d->buf + d->buf_pos, buf, (size_t)n * size);
	d->buf_pos += n * size;
	if (n && d->buf_pos == d->buf_end)
		data_done(d);
	return n;
}

/* ---- the host request of an operation ---- */

static void chunk_done(struct block_req *req, int ret);

static enum dma_dir dma_direction(const struct ide_drive *d)
{
	return d->op == OP_DMA_READ ? DMA_FROM_DEVICE : DMA_TO_DEVICE;
}

static void submit(struct ide_drive *d, enum block_op op, uint64_t offset, uint64_t len)
{
	d->req = (struct block_req){
		.op = op,
		.offset = offset,
		.len = len,
		.iov = d->iov,
		.n_iov = d->n_iov,
		.fua = d->fua && op == BLOCK_WRITE,
		.lock = d->dev.lock,
		.done = chunk_done,
		.opaque = d,
	};
	d->chunk = len;
	d->step = STEP_IO;
	d->busy = true;
	block_submit(d->blk, &d->req);
}

/* Into or out of the PIO buffer. */
static void submit_buffer(struct ide_drive *d, enum block_op op, uint32_t offset_in_buf, uint64_t len)
{
	d->iov[0] = (struct iovec){d->buf + offset_in_buf, len};
	d->n_iov = 1;
	submit(d, op, d->op_pos, len);
}

static uint64_t chunk_limit(const struct ide_drive *d, uint64_t most)
{
	return d->careful ? MIN(d->op_left, d->is_cd ? (uint64_t)CD_SECTOR : IDE_SECTOR) : MIN(d->op_left, most);
}

/* The drive leaves the bus without an interrupt: what the bus master's status then means is in 82371SB 2.6.2. */
static void dma_underflow(struct ide_drive *d)
{
	end_operation(d);
	d->r.status = ST_DRDY | ST_DSC;
	bm_finish(d->ch, true);
}

void ide_dma_failed(struct ide_drive *d)
{
	log_guest(&d->dev.guest_log, "ide", "%s: DMA to or from an address without memory", d->dev.id);
	bm_fail(d->ch);
	if (d->is_cd)
		atapi_check(d, 0x0b, 0x44, 0x00); /* ABORTED COMMAND, INTERNAL TARGET FAILURE */
	else
		ide_abort(d, ER_ABRT);
}

/* PCI bus mastering is off: the chip moves nothing. A drive would wait for ever; end a read without data. */
static void dma_not_mastering(struct ide_drive *d)
{
	if (d->op == OP_DMA_READ) {
		if (d->is_cd)
			atapi_complete(d);
		else
			ide_finish(d);
	} else {
		ide_dma_failed(d);
	}
}

static void submit_dma(struct ide_drive *d)
{
	struct ide_prd cur = d->ch->prd;
	uint64_t want = chunk_limit(d, IDE_MAX_DMA_CHUNK), got;
	int r;

	if (!(d->ch->bm_status & BM_ACTIVE)) { /* the host stopped the engine between two chunks */
		d->step = STEP_WAIT_DMA;
		return;
	}
	if (!bm_mastering(d->ch)) {
		dma_not_mastering(d);
		return;
	}
	r = bm_map(d->ch, &cur, dma_direction(d), want, d->iov, &d->n_iov, &got);
	if (r) {
		ide_dma_failed(d);
		return;
	}
	if (!got) {
		dma_underflow(d);
		return;
	}
	d->prd_after = cur;
	submit(d, d->op == OP_DMA_READ ? BLOCK_READ : BLOCK_WRITE, d->op_pos, got);
}

static void fetch_trim_list(struct ide_drive *d)
{
	int64_t n = bm_copy(d->ch, DMA_TO_DEVICE, d->buf, d->buf_len);

	if (n < 0)
		ide_dma_failed(d);
	else if ((uint64_t)n < d->buf_len)
		dma_underflow(d);
	else
		ata_trim_next(d);
}

/* Issue the next chunk, or hold it while the machine is being stopped. */
void ide_next_chunk(struct ide_drive *d)
{
	uint64_t offset, len;

	d->r.status = d->op == OP_DMA_READ || d->op == OP_DMA_WRITE ? ST_DRDY | ST_DSC | ST_DRQ : ST_DRDY | ST_BSY;
	if (d->quiescing || d->busy) {
		d->step = STEP_HELD;
		return;
	}
	switch (d->op) {
	case OP_PIO_READ:
	case OP_VERIFY:
		submit_buffer(d, BLOCK_READ, 0, chunk_limit(d, IDE_BUFFER));
		break;
	case OP_PIO_WRITE: /* the buffer holds buf_len bytes, of which buf_pos were written; see retry in chunk_failed
			    */
		submit_buffer(d, BLOCK_WRITE, d->buf_len - d->buf_pos,
			      d->careful ? MIN(d->buf_pos, (uint32_t)IDE_SECTOR) : d->buf_pos);
		break;
	case OP_DMA_READ:
	case OP_DMA_WRITE:
		submit_dma(d);
		break;
	case OP_FLUSH:
		d->n_iov = 0;
		submit(d, BLOCK_FLUSH, 0, 0);
		break;
	case OP_TRIM:
		ata_trim_entry(d, &offset, &len);
		d->n_iov = 0;
		submit(d, BLOCK_DISCARD, offset, len);
		break;
	case OP_CD_READ: {
		uint64_t most = atapi_sector_size(d) == CD_SECTOR ? IDE_BUFFER : 27 * CD_SECTOR;

		len = chunk_limit(d, most);
		/* Raw sectors are assembled from the end of the buffer to its start. */
		submit_buffer(d, BLOCK_READ, atapi_sector_size(d) == CD_SECTOR ? 0 : IDE_BUFFER - (uint32_t)len, len);
		break;
	}
	}
}

static void operation_advanced(struct ide_drive *d)
{
	struct ide_channel *ch = d->ch;

	if (d->op_left) {
		ide_next_chunk(d);
		return;
	}
	if (d->op == OP_DMA_READ || d->op == OP_DMA_WRITE)
		bm_finish(ch, false);
	if (d->is_cd)
		atapi_complete(d);
	else
		ide_finish(d);
}

static void pio_write_advanced(struct ide_drive *d)
{
	d->buf_pos -= (uint32_t)d->chunk;
	if (d->buf_pos) { /* careful: the rest of the buffer sector by sector */
		ide_next_chunk(d);
	} else if (d->op_left) {
		d->buf_len = (uint32_t)MIN(d->op_left, (uint64_t)IDE_BUFFER);
		ide_data_out(d, true);
	} else {
		ide_finish(d);
	}
}

static void chunk_succeeded(struct ide_drive *d)
{
	if (d->op == OP_FLUSH) {
		ide_finish(d);
		return;
	}
	if (d->op == OP_TRIM) {
		d->op_pos++;
		ata_trim_next(d);
		return;
	}
	d->op_pos += d->chunk;
	d->op_left -= d->chunk;
	if (!d->is_cd)
		ata_progress(d, d->chunk);
	switch (d->op) {
	case OP_PIO_READ:
		d->buf_pos = 0;
		d->buf_len = (uint32_t)d->chunk;
		ide_data_in(d);
		break;
	case OP_PIO_WRITE:
		pio_write_advanced(d);
		break;
	case OP_CD_READ:
		atapi_read_done(d);
		break;
	default:
		operation_advanced(d);
	}
}

/* Reported to the guest: where, and what kind. */
static void report_error(struct ide_drive *d, int err)
{
	bool dma = d->op == OP_DMA_READ || d->op == OP_DMA_WRITE || d->op == OP_TRIM;
	bool read = d->req.op == BLOCK_READ;

	if (dma)
		bm_finish(d->ch, true);
	if (d->is_cd) {
		atapi_io_error(d, err);
		return;
	}
	if (d->op != OP_FLUSH && d->op != OP_TRIM)
		ata_locate_error(d);
	ide_abort(d, read ? ER_UNC : ER_ABRT);
}

static void chunk_failed(struct ide_drive *d, int err)
{
	uint64_t sector = d->is_cd ? CD_SECTOR : IDE_SECTOR;

	/* Find the sector that fails, so that the guest keeps the ones before it and learns its address. */
	if ((d->req.op == BLOCK_READ || d->req.op == BLOCK_WRITE) && d->chunk > sector && err != ENOMEDIUM) {
		d->careful = true;
		ide_next_chunk(d);
		return;
	}
	switch (block_error_action(d->blk, d->req.op, err)) {
	case BLOCK_ACTION_IGNORE:
		chunk_succeeded(d);
		break;
	case BLOCK_ACTION_STOP:
		d->careful = false;
		d->step = STEP_HELD;
		machine_request_stop_on_io_error(d->dev.board);
		break;
	case BLOCK_ACTION_REPORT:
		report_error(d, err);
		break;
	}
}

/* A reset came while the request was in flight: it is over only now. */
static void finish_delayed_reset(struct ide_drive *d)
{
	d->reset_pending = false;
	end_operation(d);
	if (!(d->ch->devctl & DC_SRST))
		ide_set_signature(d);
}

/* Main loop, lock held. */
static void chunk_done(struct block_req *req, int ret)
{
	struct ide_drive *d = req->opaque;

	d->busy = false;
	if (d->op == OP_DMA_READ || d->op == OP_DMA_WRITE) {
		bm_unmap(d->ch, dma_direction(d), d->iov, d->n_iov, ret ? 0 : d->chunk);
		if (!ret && !d->reset_pending)
			d->ch->prd = d->prd_after;
	}
	if (d->reset_pending)
		finish_delayed_reset(d);
	else if (ret)
		chunk_failed(d, -ret);
	else
		chunk_succeeded(d);
	if (d->quiescing && !d->busy)
		device_quiesced(&d->dev);
}

void ide_start(struct ide_drive *d)
{
	bool dma = d->op == OP_DMA_READ || d->op == OP_DMA_WRITE || d->op == OP_TRIM;

	if (d->op == OP_PIO_WRITE) {
		d->buf_pos = 0;
		d->buf_len = (uint32_t)MIN(d->op_left, (uint64_t)IDE_BUFFER);
		ide_data_out(d, false);
	} else if (dma || (d->is_cd && d->packet_dma && d->op == OP_REPLY)) {
		d->r.status = ST_DRDY | ST_DSC | ST_DRQ;
		d->step = STEP_WAIT_DMA;
		if (d->ch->bm_status & BM_ACTIVE)
			ide_dma_started(d->ch);
	} else {
		ide_next_chunk(d);
	}
}

/* Serve the drive that waits for the bus master. */
void ide_dma_started(struct ide_channel *ch)
{
	struct ide_drive *d = selected(ch);

	if (!d || d->step != STEP_WAIT_DMA)
		return;
	if (d->op == OP_TRIM)
		fetch_trim_list(d);
	else if (d->op == OP_REPLY || d->op == OP_CD_READ)
		atapi_next_chunk(d);
	else
		ide_next_chunk(d);
}

/* ---- resets ---- */

void ide_set_signature(struct ide_drive *d)
{
	d->r.count = d->r.lba_low = 1;
	d->r.lba_mid = d->is_cd ? 0x14 : 0x00;
	d->r.lba_high = d->is_cd ? 0xeb : 0x00;
	d->r.device &= DH_DEV;
	d->r.hob_feature = d->r.hob_count = d->r.hob_lba_low = d->r.hob_lba_mid = d->r.hob_lba_high = 0;
	d->r.error = 0x01; /* diagnostics passed */
	d->r.status = d->is_cd ? 0 : ST_DRDY | ST_DSC;
}

/* Stop what the drive does. A request in flight cannot be called back: the drive stays busy until it is done. */
static void stop_operation(struct ide_drive *d)
{
	d->intrq = false;
	if (d->busy) {
		d->reset_pending = true;
		block_cancel(d->blk, &d->req);
		d->r.status = ST_BSY;
		d->step = STEP_IO;
	} else {
		end_operation(d);
	}
}

void ide_drive_reset(struct ide_drive *d, bool power_on)
{
	stop_operation(d);
	ide_set_signature(d);
	if (d->reset_pending)
		d->r.status = ST_BSY;
	d->lba48 = d->fua = d->packet_dma = false;
	d->sleeping = d->standby = false;
	d->drq_size = IDE_SECTOR;
	if (d->is_cd)
		atapi_reset(d, power_on);
	else
		ata_reset(d, power_on);
}

/* SRST: both drives are busy while it is set, and done a moment after it is cleared. */
static void software_reset(struct ide_channel *ch, bool begin)
{
	for (int i = 0; i < 2; i++) {
		struct ide_drive *d = ch->drive[i];

		if (!d)
			continue;
		if (begin) {
			ide_drive_reset(d, false);
			d->r.status = ST_BSY;
		} else if (!d->reset_pending) {
			ide_set_signature(d);
		}
	}
	ch->selected = 0;
	ch->bm_status &= ~BM_ACTIVE;
	for (int i = 0; i < 2; i++)
		if (ch->drive[i])
			ch->drive[i]->r.device = 0;
	update_irq(ch);
}

static void execute_device_diagnostic(struct ide_drive *d)
{
	struct ide_channel *ch = d->ch;

	for (int i = 0; i < 2; i++)
		if (ch->drive[i])
			ide_drive_reset(ch->drive[i], false);
	ch->selected = 0;
	for (int i = 0; i < 2; i++)
		if (ch->drive[i])
			ch->drive[i]->r.device = 0;
	if (selected(ch))
		ide_set_intrq(selected(ch));
}

void ide_channel_reset(struct ide_channel *ch)
{
	ch->devctl = 0;
	ch->selected = 0;
	ch->bm_command = ch->bm_status = 0;
	ch->bm_table = 0;
	ch->prd = (struct ide_prd){0};
}

void ide_channel_settle(struct ide_channel *ch)
{
	update_irq(ch);
}

/* ---- registers ---- */

uint8_t ide_alt_status(struct ide_channel *ch)
{
	struct ide_drive *d = selected(ch);

	if (d)
		return d->sleeping ? 0 : d->r.status;
	/* Drive 0 answers for an absent drive 1, with a status of 0. Without it the bus floats; DD7 is pulled down. */
	return ch->selected && ch->drive[0] ? 0x00 : 0x7f;
}

static uint8_t read_register(struct ide_channel *ch, unsigned reg)
{
	struct ide_drive *d = selected(ch) ? selected(ch) : ch->selected ? ch->drive[0] : NULL;
	bool hob = ch->devctl & DC_HOB;

	if (reg == REG_COMMAND) {
		if (selected(ch))
			clear_intrq(selected(ch));
		return ide_alt_status(ch);
	}
	if (!d)
		return 0x7f;
	switch (reg) {
	case REG_FEATURES:
		return hob ? d->r.hob_feature : d->r.error;
	case REG_COUNT:
		return hob ? d->r.hob_count : d->r.count;
	case REG_LBA_LOW:
		return hob ? d->r.hob_lba_low : d->r.lba_low;
	case REG_LBA_MID:
		return hob ? d->r.hob_lba_mid : d->r.lba_mid;
	case REG_LBA_HIGH:
		return hob ? d->r.hob_lba_high : d->r.lba_high;
	case REG_DEVICE:
		return (d->r.device & ~DH_DEV) | (ch->selected ? DH_DEV : 0) | 0xa0;
	}
	return 0xff;
}

static void latch(struct ide_regs *r, unsigned reg, uint8_t v)
{
	switch (reg) {
	case REG_FEATURES:
		r->hob_feature = r->feature;
		r->feature = v;
		break;
	case REG_COUNT:
		r->hob_count = r->count;
		r->count = v;
		break;
	case REG_LBA_LOW:
		r->hob_lba_low = r->lba_low;
		r->lba_low = v;
		break;
	case REG_LBA_MID:
		r->hob_lba_mid = r->lba_mid;
		r->lba_mid = v;
		break;
	case REG_LBA_HIGH:
		r->hob_lba_high = r->lba_high;
		r->lba_high = v;
		break;
	case REG_DEVICE:
		r->device = v;
		break;
	}
}

static void run_command(struct ide_channel *ch, uint8_t code)
{
	const struct ide_command *c = &commands[code];
	struct ide_drive *d = selected(ch);

	if (!d) {
		if (code == 0x90 && ch->drive[0]) /* goes to both drives, whichever is selected */
			execute_device_diagnostic(ch->drive[0]);
		return;
	}
	clear_intrq(d);
	/* While busy or transferring only DEVICE RESET gets through, and while asleep nothing but that. */
	if ((d->r.status & (ST_BSY | ST_DRQ) || d->sleeping) && !(code == 0x08 && d->is_cd))
		return;
	d->r.error = 0;
	d->r.status = ST_DRDY | ST_BSY;
	d->lba48 = d->fua = false;
	if (!c->run || !(c->kinds & (d->is_cd ? KIND_CD : KIND_HD))) {
		log_guest(&d->dev.guest_log, "ide", "%s: command %02x %s%s", d->dev.id, code,
			  c->name ? c->name : "unknown", c->name ? " is not for this kind of drive" : "");
		ide_abort(d, ER_ABRT);
		return;
	}
	d->command = code;
	c->run(d);
}

static void write_register(struct ide_channel *ch, unsigned reg, uint8_t v)
{
	struct ide_drive *d = selected(ch);

	ch->devctl &= ~DC_HOB;
	if (reg == REG_COMMAND) {
		run_command(ch, v);
		return;
	}
	/* Registers belong to the drive while it is busy. */
	if (d && d->r.status & (ST_BSY | ST_DRQ))
		return;
	for (int i = 0; i < 2; i++)
		if (ch->drive[i])
			latch(&ch->drive[i]->r, reg, v);
	if (reg == REG_DEVICE) {
		ch->selected = (v & DH_DEV) != 0;
		update_irq(ch);
	}
}

uint64_t ide_read_command_block(struct ide_channel *ch, unsigned offset, unsigned size)
{
	uint64_t v = 0;

	if (offset == REG_DATA && size >= 2)
		return read_data(ch, size);
	for (unsigned i = 0; i < size; i++)
		v |= (uint64_t)read_register(ch, offset + i) << (8 * i);
	return v;
}

void ide_write_command_block(struct ide_channel *ch, unsigned offset, uint64_t value, unsigned size)
{
	if (offset == REG_DATA && size >= 2) {
		write_data(ch, value, size);
		return;
	}
	for (unsigned i = 0; i < size; i++)
		if (offset + i != REG_DATA)
			write_register(ch, offset + i, (uint8_t)(value >> (8 * i)));
}

void ide_write_device_control(struct ide_channel *ch, uint8_t value)
{
	uint8_t old = ch->devctl;

	ch->devctl = value;
	if ((old ^ value) & DC_SRST)
		software_reset(ch, value & DC_SRST);
	update_irq(ch);
}

/* ---- life cycle of a drive ---- */

const char *const ide_on_error_names[] = {"report", "ignore", "stop", "enospc", "auto", NULL};

int ide_drive_claim(struct ide_drive *d, struct err *e)
{
	int read, write;

	if (d->drive && *d->drive) {
		d->blk = device_claim_block(&d->dev, d->drive, e);
	} else if (d->is_cd) {
		d->blk = block_open_empty_cdrom(d->dev.id);
		d->own_block = true;
	} else {
		return err_set(e, EINVAL, "%s: property 'drive' is missing: it names the -drive or -blockdev to use",
			       d->dev.class->name);
	}
	if (!d->blk)
		return -EBUSY;
	read = d->rerror == ON_ERROR_AUTO ? (int)block_on_read_error(d->blk) : d->rerror;
	write = d->werror == ON_ERROR_AUTO ? (int)block_on_write_error(d->blk) : d->werror;
	block_set_on_error(d->blk, (enum block_on_error)read, (enum block_on_error)write);
	return 0;
}

void ide_drive_quiesce(struct device *dev)
{
	struct ide_drive *d = DEVICE(dev, struct ide_drive);

	d->quiescing = true;
	if (!d->busy)
		device_quiesced(dev);
}

void ide_drive_resume(struct device *dev)
{
	struct ide_drive *d = DEVICE(dev, struct ide_drive);

	d->quiescing = false;
	if (d->step == STEP_HELD && !d->busy)
		ide_next_chunk(d);
}

static const struct state_field regs_fields[] = {
	STATE_U(struct ide_regs, feature),      STATE_U(struct ide_regs, count),
	STATE_U(struct ide_regs, lba_low),      STATE_U(struct ide_regs, lba_mid),
	STATE_U(struct ide_regs, lba_high),     STATE_U(struct ide_regs, device),
	STATE_U(struct ide_regs, hob_feature),  STATE_U(struct ide_regs, hob_count),
	STATE_U(struct ide_regs, hob_lba_low),  STATE_U(struct ide_regs, hob_lba_mid),
	STATE_U(struct ide_regs, hob_lba_high), STATE_U(struct ide_regs, error),
	STATE_U(struct ide_regs, status),       STATE_FIELDS_END,
};
static const struct state_table regs_table = {
	.name = "ide-registers", .version = 1, .oldest = 1, .fields = regs_fields};

static const struct state_field common_fields[] = {
	STATE_SUB(struct ide_drive, r, &regs_table),
	STATE_B(struct ide_drive, intrq),
	STATE_U(struct ide_drive, mult, .max = IDE_MAX_MULTIPLE),
	STATE_U(struct ide_drive, udma_mode, .max = 6),
	STATE_U(struct ide_drive, mwdma_mode, .max = 3),
	STATE_B(struct ide_drive, read_ahead),
	STATE_B(struct ide_drive, write_cache),
	STATE_B(struct ide_drive, standby),
	STATE_B(struct ide_drive, sleeping),
	STATE_U(struct ide_drive, cur_heads),
	STATE_U(struct ide_drive, cur_secs),
	STATE_U(struct ide_drive, command),
	STATE_U(struct ide_drive, op, .max = OP_MAX),
	STATE_U(struct ide_drive, step, .max = STEP_MAX),
	STATE_B(struct ide_drive, lba48),
	STATE_B(struct ide_drive, fua),
	STATE_B(struct ide_drive, careful),
	STATE_BUF(struct ide_drive, packet),
	STATE_U(struct ide_drive, op_pos),
	STATE_U(struct ide_drive, op_left),
	STATE_U(struct ide_drive, drq_size, .min = 1, .max = IDE_BUFFER),
	STATE_U(struct ide_drive, buf_pos, .max = IDE_BUFFER),
	STATE_U(struct ide_drive, buf_end, .max = IDE_BUFFER),
	STATE_U(struct ide_drive, buf_len, .max = IDE_BUFFER),
	STATE_VBUF(struct ide_drive, buf, buf_len),
	STATE_FIELDS_END,
};
const struct state_table ide_drive_common_state = {
	.name = "ide-drive",
	.version = 1,
	.oldest = 1,
	.fields = common_fields,
};

static bool operation_fits(const struct ide_drive *d)
{
	bool cd_only = d->op >= OP_PACKET;
	bool sizes = d->op != OP_NONE && d->op != OP_FLUSH && d->op != OP_TRIM;
	uint64_t size = block_size(d->blk);

	if (cd_only && !d->is_cd)
		return false;
	if (d->is_cd && (d->op == OP_PIO_WRITE || d->op == OP_DMA_WRITE || d->op == OP_TRIM || d->op == OP_VERIFY))
		return false;
	if (d->op == OP_TRIM && (d->op_pos > IDE_SECTOR / 8 || d->buf_len != IDE_SECTOR))
		return false;
	return !sizes || !d->op_left ||
	       (d->op_pos <= size && d->op_left <= size - d->op_pos && !(d->op_left % IDE_SECTOR));
}

int ide_drive_post_load(void *obj, uint16_t version, struct err *e)
{
	struct ide_drive *d = obj;

	if (d->step == STEP_IO || (d->op == OP_NONE) != (d->step == STEP_IDLE) || d->buf_pos > d->buf_end ||
	    d->buf_end > d->buf_len || (d->step == STEP_DATA && d->buf_pos == d->buf_end) || !operation_fits(d))
		return err_set(
			e, EINVAL,
			"%s: operation %u in step %u with %llu bytes left at %llu, buffer %u..%u of %u is impossible",
			d->dev.id, d->op, d->step, (unsigned long long)d->op_left, (unsigned long long)d->op_pos,
			d->buf_pos, d->buf_end, d->buf_len);
	block_set_write_cache(d->blk, d->write_cache);
	return 0;
}
